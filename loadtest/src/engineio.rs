//! Engine.IO: its packets, protocol 4: a type digit, then data; one in a text frame, or several in a payload.
//!
//! ```text
//!     0{"sid":"…"}          40{"sid":"…"} ␞ 2 ␞ bAAEC          ␞ is 0x1e; b… is an attachment in base64
//! ```

/// Between the packets of a payload.
pub const SEPARATOR: u8 = 0x1e;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Its data is the handshake.
    Open(&'a [u8]),
    Close,
    Ping,
    Pong(&'a [u8]),
    Message(&'a [u8]),
    Upgrade,
    Noop,
}

/// `None` is a packet that no server may send: empty, or of unknown type.
pub fn parse(text: &[u8]) -> Option<Packet<'_>> {
    let (kind, data) = text.split_first()?;
    Some(match kind {
        b'0' => Packet::Open(data),
        b'1' => Packet::Close,
        b'2' => Packet::Ping,
        b'3' => Packet::Pong(data),
        b'4' => Packet::Message(data),
        b'5' => Packet::Upgrade,
        b'6' => Packet::Noop,
        _ => return None,
    })
}

/// The session's id in a handshake. `None`: there is none, or it would have to be escaped in a URL.
pub fn sid(handshake: &[u8]) -> Option<Box<str>> {
    let json: serde_json::Value = serde_json::from_slice(handshake).ok()?;
    let sid = json.get("sid")?.as_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$'()*,;:@/".contains(&byte);
    (!sid.is_empty() && sid.bytes().all(plain)).then(|| sid.into())
}

/// Whether a handshake offers to go on over WebSocket.
pub fn offers_websocket(handshake: &[u8]) -> bool {
    let json: serde_json::Value = serde_json::from_slice(handshake).unwrap_or_default();
    let upgrades = json.get("upgrades").and_then(|upgrades| upgrades.as_array());
    upgrades.is_some_and(|upgrades| upgrades.iter().any(|transport| transport == "websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoder_table() {
        let table: [(&[u8], Option<Packet<'_>>); 9] = [
            (b"", None),
            (b"7", None),
            (b"b4aGk=", None),
            (b"0{\"sid\":\"a\"}", Some(Packet::Open(b"{\"sid\":\"a\"}"))),
            (b"1", Some(Packet::Close)),
            (b"2", Some(Packet::Ping)),
            (b"3probe", Some(Packet::Pong(b"probe"))),
            (b"42[\"msg\"]", Some(Packet::Message(b"2[\"msg\"]"))),
            (b"6", Some(Packet::Noop)),
        ];
        table.iter().for_each(|(text, packet)| assert_eq!(parse(text), *packet, "{text:?}"));
    }

    #[test]
    fn a_handshake_has_an_id_and_offers() {
        let table: [(&str, Option<&str>, bool); 7] = [
            ("{\"sid\":\"a-_1\",\"upgrades\":[\"websocket\"]}", Some("a-_1"), true),
            ("{\"sid\":\"a\",\"upgrades\":[\"webtransport\"]}", Some("a"), false),
            ("{\"sid\":\"a&b\",\"upgrades\":\"websocket\"}", None, false),
            ("{\"sid\":\"a\\r\\nb\"}", None, false),
            ("{\"sid\":\"\"}", None, false),
            ("{\"sid\":7}", None, false),
            ("hello", None, false),
        ];
        for (handshake, id, offers) in table {
            let found = (sid(handshake.as_bytes()), offers_websocket(handshake.as_bytes()));
            assert_eq!((found.0.as_deref(), found.1), (id, offers), "{handshake}");
        }
    }
}
