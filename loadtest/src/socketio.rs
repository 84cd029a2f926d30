//! Socket.IO: the packets inside Engine.IO messages, protocol 5.
//!
//! ```text
//!     <type>[<attachments>-][/namespace,][<ack id>][<json>]        2/admin,12["msg","text"]
//! ```
//!
//! Only as deep as a judge needs: the type, the namespace, and of an event its name and its first string. A JSON
//! parser would read every byte of every delivery for nothing.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
    BinaryEvent,
    BinaryAck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub kind: Kind,
    pub namespace: &'a [u8],
    pub data: &'a [u8],
}

/// `None` is a packet that no server may send.
pub fn parse(message: &[u8]) -> Option<Packet<'_>> {
    let (digit, mut rest) = message.split_first()?;
    let kind = match digit {
        b'0' => Kind::Connect,
        b'1' => Kind::Disconnect,
        b'2' => Kind::Event,
        b'3' => Kind::Ack,
        b'4' => Kind::ConnectError,
        b'5' => Kind::BinaryEvent,
        b'6' => Kind::BinaryAck,
        _ => return None,
    };
    if matches!(kind, Kind::BinaryEvent | Kind::BinaryAck) {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = rest[digits..].strip_prefix(b"-").filter(|_| digits > 0)?;
    }
    let mut namespace: &[u8] = b"/";
    if rest.first() == Some(&b'/') {
        let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
        namespace = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some(Packet { kind, namespace, data: &rest[digits..] })
}

/// The bytes of the first argument of the event `name`, from behind its opening quote. `None`: another event, or its
/// first argument is no string.
pub fn first_string<'a>(name: &[u8], data: &'a [u8]) -> Option<&'a [u8]> {
    data.strip_prefix(b"[\"")?.strip_prefix(name)?.strip_prefix(b"\",")?.trim_ascii_start().strip_prefix(b"\"")
}

/// A whole Engine.IO message: a Socket.IO packet of type `digit` for `namespace`.
pub fn message(digit: char, namespace: &str, data: &str) -> String {
    match namespace {
        "/" => format!("4{digit}{data}"),
        _ => format!("4{digit}{namespace},{data}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoder_table() {
        fn packet<'a>(kind: Kind, namespace: &'a [u8], data: &'a [u8]) -> Option<Packet<'a>> {
            Some(Packet { kind, namespace, data })
        }
        let table: [(&[u8], Option<Packet<'_>>); 15] = [
            (b"", None),
            (b"7", None),
            (b"x[]", None),
            (b"5[]", None),
            (b"5-[]", None),
            (b"0", packet(Kind::Connect, b"/", b"")),
            (b"0{\"sid\":\"a\"}", packet(Kind::Connect, b"/", b"{\"sid\":\"a\"}")),
            (b"0/x,{\"sid\":\"a\"}", packet(Kind::Connect, b"/x", b"{\"sid\":\"a\"}")),
            (b"0/x", packet(Kind::Connect, b"/x", b"")),
            (b"1/x,", packet(Kind::Disconnect, b"/x", b"")),
            (b"2[\"msg\",1]", packet(Kind::Event, b"/", b"[\"msg\",1]")),
            (b"2/x,12[\"msg\"]", packet(Kind::Event, b"/x", b"[\"msg\"]")),
            (b"37[]", packet(Kind::Ack, b"/", b"[]")),
            (b"4{\"message\":\"no\"}", packet(Kind::ConnectError, b"/", b"{\"message\":\"no\"}")),
            (b"51-/x,[\"msg\",{}]", packet(Kind::BinaryEvent, b"/x", b"[\"msg\",{}]")),
        ];
        table.iter().for_each(|(message, packet)| assert_eq!(parse(message), *packet, "{message:?}"));
    }

    #[test]
    fn the_first_string_of_the_wanted_event() {
        let table: [(&[u8], Option<&[u8]>); 8] = [
            (b"[\"msg\",\"~text\"]", Some(b"~text\"]")),
            (b"[\"msg\", \"~text\"]", Some(b"~text\"]")),
            (b"[\"msg\",1]", None),
            (b"[\"msg\"]", None),
            (b"[\"msgs\",\"~text\"]", None),
            (b"[\"other\",\"~text\"]", None),
            (b"[]", None),
            (b"", None),
        ];
        table.iter().for_each(|(data, text)| assert_eq!(first_string(b"msg", data), *text, "{data:?}"));
    }

    #[test]
    fn the_main_namespace_is_not_written() {
        assert_eq!(message('0', "/", ""), "40");
        assert_eq!(message('2', "/x", "[\"join\"]"), "42/x,[\"join\"]");
    }
}
