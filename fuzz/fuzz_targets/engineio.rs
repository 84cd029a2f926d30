//! Any text as a polling body: it decodes or is refused, and what is decoded can be sent again.
#![no_main]

use fanfare::proto::engineio::{self, Packet};
use fanfare::proto::prepared::Prepared;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &str| {
    let mut failed = false;
    for packet in engineio::payload(body) {
        assert!(!failed, "nothing follows an error");
        failed = packet.is_err();
        if let Ok(packet) = packet {
            sent_again(packet);
        }
    }
});

/// The kinds that a server sends come back as they were.
fn sent_again(packet: Packet<'_>) {
    let prepared = match &packet {
        Packet::Close => engineio::close(),
        Packet::Ping("") => engineio::ping(),
        Packet::Pong(data) => engineio::pong(data),
        Packet::Message(data) => Prepared::message(data),
        Packet::Binary(data) => Prepared::binary(data),
        Packet::Noop => engineio::noop(),
        Packet::Open(_) | Packet::Ping(_) | Packet::Upgrade => return,
    };
    let mut body = Vec::new();
    prepared.put_polling(&mut body);
    assert_eq!(body.len(), prepared.polling_len());
    let text = str::from_utf8(&body).expect("a payload is text");
    assert_eq!(engineio::decode(text), Ok(packet));
}
