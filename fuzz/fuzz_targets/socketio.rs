//! Any sequence of messages through an assembler: each is accepted or refused, and what is accepted can be sent again.
#![no_main]

use bytes::Bytes;
use fanfare::proto::prepared::Prepared;
use fanfare::proto::socketio::{self, Assembler, Packet};
use libfuzzer_sys::fuzz_target;

// A line is a text message, except that one starting with a zero byte is a binary message.
fuzz_target!(|messages: &str| {
    let mut assembler = Assembler::default();
    for message in messages.split('\n') {
        if let Some(data) = message.strip_prefix('\0') {
            if let Ok(Some(whole)) = assembler.binary(data.as_bytes()) {
                sent_again(whole.packet(), &whole.attachments);
            }
        } else if let Ok(Some(packet)) = assembler.text(message) {
            sent_again(packet, &[]);
        }
    }
});

fn sent_again(packet: Packet<'_>, attachments: &[Bytes]) {
    assert_eq!(packet.attachments(), attachments.len());
    let prepared = encoded(&packet, attachments);
    let text = str::from_utf8(prepared.packet()).expect("packets are text");
    let text = text.strip_prefix('4').expect("a Socket.IO packet is a message");
    assert_eq!(socketio::decode(text), Ok(packet));
    assert!(prepared.attachments().eq(attachments));
}

fn encoded(packet: &Packet<'_>, attachments: &[Bytes]) -> Prepared {
    match *packet {
        Packet::Connect { namespace, auth } => socketio::connect(namespace, auth.unwrap_or("")),
        Packet::Disconnect { namespace } => socketio::disconnect(namespace),
        Packet::Event { namespace, ack_id, data, .. } => {
            socketio::split_args(data).expect("data is an array");
            socketio::event(namespace, ack_id, data, attachments)
        }
        Packet::Ack { namespace, ack_id, data, .. } => {
            socketio::split_args(data).expect("data is an array");
            socketio::ack(namespace, ack_id, data, attachments)
        }
        Packet::ConnectError { namespace, data } => socketio::connect_error(namespace, data),
    }
}
