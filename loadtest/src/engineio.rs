//! Engine.IO: the packets inside text frames, protocol 4: a type digit, then data.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Open,
    Close,
    Ping,
    Pong,
    Message(&'a [u8]),
    Upgrade,
    Noop,
}

/// `None` is a packet that no server may send: empty, or of unknown type.
pub fn parse(text: &[u8]) -> Option<Packet<'_>> {
    let (kind, data) = text.split_first()?;
    Some(match kind {
        b'0' => Packet::Open,
        b'1' => Packet::Close,
        b'2' => Packet::Ping,
        b'3' => Packet::Pong,
        b'4' => Packet::Message(data),
        b'5' => Packet::Upgrade,
        b'6' => Packet::Noop,
        _ => return None,
    })
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
            (b"0{\"sid\":\"a\"}", Some(Packet::Open)),
            (b"1", Some(Packet::Close)),
            (b"2", Some(Packet::Ping)),
            (b"3probe", Some(Packet::Pong)),
            (b"42[\"msg\"]", Some(Packet::Message(b"2[\"msg\"]"))),
            (b"6", Some(Packet::Noop)),
        ];
        table.iter().for_each(|(text, packet)| assert_eq!(parse(text), *packet, "{text:?}"));
    }
}
