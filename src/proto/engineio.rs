//! Engine.IO v4: the packets under Socket.IO, as they arrive and as they leave.
//!
//! Takes what a WebSocket text message or a polling body holds and gives packets that borrow from it; gives prepared
//! packets for what a server sends. A WebSocket binary message needs no decoding: all of it is the data of a message.
//!
//! ```text
//!   packet    type digit, data         0 open  1 close  2 ping  3 pong  4 message  5 upgrade  6 noop
//!             b, base64                a binary message where only text can travel
//!   payload   packet 1e packet 1e …    the body of a polling request or response
//! ```
//!
//! Rules: Engine.IO protocol, revision 4, "Packet encoding".
//! Limits: none of its own; a body is at most `payload_bytes_max` (Settings), so what is decoded is bounded by it.
//! Not here: which packets a session accepts from whom (the shard); Socket.IO inside messages (socketio.rs).

use std::borrow::Cow;
use std::{error, fmt, mem};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as BASE64;
use serde::Serialize;

use super::prepared::{Builder, Prepared};

/// What stands between two packets of a payload: the ASCII record separator, which no JSON text contains unescaped.
pub const SEPARATOR: u8 = 0x1e;

/// One Engine.IO packet, borrowed from the text that it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: the handshake, JSON (server to client only).
    Open(&'a str),
    /// `1`: the session ends. Data after it says nothing and is ignored, as it is after `5` and `6`.
    Close,
    /// `2`: a heartbeat from the server, or a client's `2probe` on a WebSocket that wants to take over.
    Ping(&'a str),
    /// `3`: the answer to a ping, with the ping's data.
    Pong(&'a str),
    /// `4`: a message as text; here, a Socket.IO packet.
    Message(&'a str),
    /// A message as bytes; here, an attachment. Owned when it travelled as base64, borrowed when whoever receives a
    /// WebSocket binary message makes this packet from it.
    Binary(Cow<'a, [u8]>),
    /// `5`: the client's session moves to this WebSocket.
    Upgrade,
    /// `6`: nothing, to end a poll that is waiting.
    Noop,
}

/// The rule that a peer's packet broke. The session ends with "parse error".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A packet without even a type; an empty body counts as one.
    Empty,
    /// The first character is no type digit and not `b`.
    UnknownType,
    /// What follows `b` is not base64 in the standard alphabet.
    InvalidBase64,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Empty => "empty Engine.IO packet",
            Error::UnknownType => "unknown Engine.IO packet type",
            Error::InvalidBase64 => "binary message that is not base64",
        })
    }
}

impl error::Error for Error {}

/// Decodes one packet: a WebSocket text message, or one element of a payload.
///
/// Base64 may come without its padding, because some clients leave it away.
///
/// # Errors
///
/// The rule that `text` breaks.
pub fn decode(text: &str) -> Result<Packet<'_>, Error> {
    let mut chars = text.chars();
    let kind = chars.next().ok_or(Error::Empty)?;
    let data = chars.as_str();
    match kind {
        '0' => Ok(Packet::Open(data)),
        '1' => Ok(Packet::Close),
        '2' => Ok(Packet::Ping(data)),
        '3' => Ok(Packet::Pong(data)),
        '4' => Ok(Packet::Message(data)),
        '5' => Ok(Packet::Upgrade),
        '6' => Ok(Packet::Noop),
        'b' => BASE64.decode(data).map(|bytes| Packet::Binary(Cow::Owned(bytes))).map_err(|_| Error::InvalidBase64),
        _ => Err(Error::UnknownType),
    }
}

/// Decodes a polling body, packet by packet. The first error is the last item: what follows a broken packet is not
/// trusted.
///
/// Nothing is decoded before it is asked for, so a receiver with a budget stops where it likes.
pub fn payload(body: &str) -> impl Iterator<Item = Result<Packet<'_>, Error>> {
    let mut failed = false;
    let no_error_before = move |packet: &Result<_, _>| !mem::replace(&mut failed, packet.is_err());
    body.split(char::from(SEPARATOR)).map(decode).take_while(no_error_before)
}

/// What the server says first on a new session (Engine.IO v4, "Handshake").
// Clients read the keys by name; their order is the reference's, so that recorded handshakes compare equal byte by byte.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Handshake<'a> {
    /// The session's public id.
    pub sid: &'a str,
    /// The transports that the client may move to: `["websocket"]` on polling, none on a WebSocket.
    pub upgrades: &'a [&'a str],
    /// Milliseconds from one pong, or the opening, to the next ping.
    #[serde(rename = "pingInterval")]
    pub ping_interval_ms: u64,
    /// Milliseconds within which a ping must be answered.
    #[serde(rename = "pingTimeout")]
    pub ping_timeout_ms: u64,
    /// The most bytes that a client may send in one payload or WebSocket message.
    #[serde(rename = "maxPayload")]
    pub payload_bytes_max: u64,
}

impl Handshake<'_> {
    /// The open packet, `0{"sid":…}`.
    pub fn packet(&self) -> Prepared {
        // Enough for the keys, three numbers and the names of all transports there are.
        const FRAME_BYTES: usize = 192;
        let mut builder = Builder::new(FRAME_BYTES + self.sid.len());
        builder.put("0").put_json(self);
        builder.finish()
    }
}

/// The close packet, `1`: this session is over.
pub fn close() -> Prepared {
    Prepared::text("1")
}

/// The heartbeat, `2`.
pub fn ping() -> Prepared {
    Prepared::text("2")
}

/// The answer to a ping, `3` and the ping's data: `pong("probe")` answers an upgrade's `2probe`.
pub fn pong(data: &str) -> Prepared {
    let mut builder = Builder::new(1 + data.len());
    builder.put("3").put(data);
    builder.finish()
}

/// The packet that says nothing, `6`: it ends a waiting poll.
pub fn noop() -> Prepared {
    Prepared::text("6")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::fuzzing::{Random, fuzz};

    fn binary(data: &[u8]) -> Packet<'_> {
        Packet::Binary(Cow::Borrowed(data))
    }

    fn packets(body: &str) -> Vec<Result<Packet<'_>, Error>> {
        payload(body).collect()
    }

    fn join(packets: &[Prepared]) -> Vec<u8> {
        let mut body = Vec::new();
        for packet in packets {
            if !body.is_empty() {
                body.push(SEPARATOR);
            }
            packet.put_polling(&mut body);
        }
        body
    }

    #[test]
    fn the_examples_of_the_specification_decode() {
        let table = [
            ("0{\"sid\":\"a\"}", Packet::Open("{\"sid\":\"a\"}")),
            ("1", Packet::Close),
            ("2", Packet::Ping("")),
            ("2probe", Packet::Ping("probe")),
            ("3", Packet::Pong("")),
            ("3probe", Packet::Pong("probe")),
            ("4hello", Packet::Message("hello")),
            ("4", Packet::Message("")),
            ("4€", Packet::Message("€")),
            ("4hello\nworld\\n", Packet::Message("hello\nworld\\n")),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
            ("bAQIDBA==", binary(&[1, 2, 3, 4])),
            ("b", binary(&[])),
        ];
        for (text, packet) in table {
            assert_eq!(decode(text), Ok(packet), "{text}");
        }
    }

    #[test]
    fn data_after_close_upgrade_and_noop_is_ignored() {
        assert_eq!(decode("1x"), Ok(Packet::Close));
        assert_eq!(decode("5probe"), Ok(Packet::Upgrade));
        assert_eq!(decode("6x"), Ok(Packet::Noop));
    }

    #[test]
    fn a_packet_without_a_known_type_is_refused() {
        assert_eq!(decode(""), Err(Error::Empty));
        for text in ["7", "8", "9", "a", "B", "x", "abc", " 4", "-1", "\u{1e}", "é4", "٤", "\0", "[1]"] {
            assert_eq!(decode(text), Err(Error::UnknownType), "{text:?}");
        }
    }

    #[test]
    fn base64_may_lack_its_padding() {
        for text in ["bAQIDBA==", "bAQIDBA=", "bAQIDBA"] {
            assert_eq!(decode(text), Ok(binary(&[1, 2, 3, 4])), "{text}");
        }
        assert_eq!(decode("b+/+/"), Ok(binary(&[0xfb, 0xff, 0xbf])));
    }

    #[test]
    fn what_is_not_standard_base64_is_refused() {
        for text in ["bA", "bA===", "b====", "b=AQI", "bAQ=DBA==", "b-_-_", "bAQ ID", "bAQID\n", "b€", "bAR=="] {
            assert_eq!(decode(text), Err(Error::InvalidBase64), "{text}");
        }
    }

    #[test]
    fn a_payload_is_packets_between_separators() {
        assert_eq!(packets("4a"), [Ok(Packet::Message("a"))]);
        assert_eq!(
            packets("4hello\u{1e}2\u{1e}4world\u{1e}bAQIDBA=="),
            [
                Ok(Packet::Message("hello")),
                Ok(Packet::Ping("")),
                Ok(Packet::Message("world")),
                Ok(binary(&[1, 2, 3, 4])),
            ]
        );
    }

    #[test]
    fn an_empty_body_is_one_empty_packet() {
        assert_eq!(packets(""), [Err(Error::Empty)]);
    }

    #[test]
    fn a_payload_ends_with_its_first_error() {
        assert_eq!(packets("4a\u{1e}x\u{1e}4b\u{1e}"), [Ok(Packet::Message("a")), Err(Error::UnknownType)]);
        assert_eq!(packets("4a\u{1e}"), [Ok(Packet::Message("a")), Err(Error::Empty)]);
        assert_eq!(packets("\u{1e}4a"), [Err(Error::Empty)]);
        assert_eq!(packets("4a\u{1e}\u{1e}4b"), [Ok(Packet::Message("a")), Err(Error::Empty)]);
    }

    #[test]
    fn a_decoded_text_packet_borrows() {
        let text = String::from("4hello");
        let Ok(Packet::Message(data)) = decode(&text) else { panic!("a message") };
        assert_eq!(data.as_ptr(), text[1..].as_ptr());
    }

    #[test]
    fn the_handshake_has_the_keys_of_the_reference_in_its_order() {
        let mut handshake = Handshake {
            sid: "lv_VI97HAXpY6yYWAAAC",
            upgrades: &["websocket"],
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            payload_bytes_max: 1_000_000,
        };
        let tail = r#""pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
        let polling = format!(r#"0{{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],{tail}"#);
        assert_eq!(handshake.packet().packet(), polling.as_bytes());

        handshake.upgrades = &[];
        let websocket = format!(r#"0{{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":[],{tail}"#);
        assert_eq!(handshake.packet().packet(), websocket.as_bytes());
    }

    #[test]
    fn a_sid_is_escaped_where_json_needs_it() {
        let handshake = Handshake {
            sid: "a\"b",
            upgrades: &["websocket", "webtransport"],
            ping_interval_ms: u64::MAX,
            ping_timeout_ms: u64::MAX,
            payload_bytes_max: u64::MAX,
        };
        assert!(handshake.packet().packet().starts_with(br#"0{"sid":"a\"b","#));
    }

    #[test]
    fn control_packets_are_what_clients_expect() {
        assert_eq!(close().packet(), b"1");
        assert_eq!(ping().packet(), b"2");
        assert_eq!(pong("probe").packet(), b"3probe");
        assert_eq!(noop().packet(), b"6");
    }

    #[test]
    fn closing_an_idle_poll_is_a_noop_and_a_close() {
        assert_eq!(join(&[noop(), close()]), b"6\x1e1");
    }

    /// A packet, and what its receiver must see.
    fn generated(random: &mut Random) -> (Prepared, Vec<Packet<'static>>) {
        // Messages hold Socket.IO packets, and JSON has no raw control characters.
        let text = random.text(&["a", "4", "b", "=", "\"", "\\u001e", "é", "😀", " "], 20).leak();
        match random.below(6) {
            0 => (close(), vec![Packet::Close]),
            1 => (ping(), vec![Packet::Ping("")]),
            2 => (pong(text), vec![Packet::Pong(text)]),
            3 => (noop(), vec![Packet::Noop]),
            4 => (Prepared::message(text), vec![Packet::Message(text)]),
            _ => {
                let data = random.bytes(300);
                (Prepared::binary(&data), vec![Packet::Binary(Cow::Owned(data))])
            }
        }
    }

    #[test]
    fn whatever_is_joined_into_a_payload_splits_into_the_same_packets() {
        fuzz(300, |random| {
            let count = 1 + random.below(8);
            let (prepared, expected): (Vec<_>, Vec<_>) = (0..count).map(|_| generated(random)).unzip();
            let body = String::from_utf8(join(&prepared)).expect("a payload is text");
            let decoded: Vec<_> = payload(&body).map(|packet| packet.expect("valid")).collect();
            assert_eq!(decoded, expected.concat());
        });
    }

    #[test]
    fn every_cut_of_a_payload_is_decoded_or_refused() {
        let body = "4hello\u{1e}2\u{1e}bAQIDBA==\u{1e}4€";
        for (cut, _) in body.char_indices() {
            let (left, right) = body.split_at(cut);
            assert!(payload(left).count() >= 1 && payload(right).count() >= 1);
        }
    }

    #[test]
    fn no_input_panics_and_nothing_follows_an_error() {
        let alphabet = ["0", "1", "2", "3", "4", "5", "6", "7", "b", "A", "=", "é", "\u{1e}", "\0", "probe"];
        fuzz(3_000, |random| {
            let body = random.text(&alphabet, 30);
            let decoded = packets(&body);
            let errors_at = decoded.iter().position(Result::is_err);
            assert!(errors_at.is_none_or(|at| at == decoded.len() - 1), "{body:?}");
            assert!(!decoded.is_empty() && decoded.len() <= body.split('\u{1e}').count());
        });
    }
}
