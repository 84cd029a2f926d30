//! Frame: the WebSocket frames of RFC 6455, as a client reads and writes them.
//!
//! ```text
//!     byte 0        byte 1        0, 2 or 8 bytes       0 or 4 bytes     length bytes
//!     F RRR oooo    M lllllll     longer length if      key if M (ours   payload
//!     fin   opcode  mask length   l is 126 or 127       are, theirs not)
//! ```
//!
//! A payload stays where it was read and is lent to the caller. Our own frames are masked with a key of zeros: it
//! keeps the rule that a client masks, and leaves the payload as it is, because what we send hides nothing.
//!
//! Limits: [`PAYLOAD_BYTES_MAX`], refused at the header, so that a broken server cannot make us buffer for ever.

use std::fmt;

/// The longest payload that is taken: above any `--size`, with room for what a server wraps around it.
pub const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub fin: bool,
    pub opcode: Opcode,
    pub payload: &'a [u8],
}

/// The rule that the server broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    ReservedBitSet,
    UnknownOpcode,
    Masked,
    ControlTooLong,
    ControlFragmented,
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Error::ReservedBitSet => "a frame with a reserved bit set",
            Error::UnknownOpcode => "a frame of unknown kind",
            Error::Masked => "a masked frame",
            Error::ControlTooLong => "a control frame of more than 125 bytes",
            Error::ControlFragmented => "a control frame in fragments",
            Error::TooLong => "a frame of more than 64 MB",
        })
    }
}

/// Takes one frame from the front of `bytes` and says how many bytes it was. `None`: more bytes are needed.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Error> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Error::ReservedBitSet);
    }
    let fin = first & 0x80 != 0;
    let opcode = opcode(first & 0x0f).ok_or(Error::UnknownOpcode)?;
    if second & 0x80 != 0 {
        return Err(Error::Masked);
    }
    if first & 0x08 != 0 && second > 125 {
        return Err(Error::ControlTooLong);
    }
    if first & 0x08 != 0 && !fin {
        return Err(Error::ControlFragmented);
    }
    let (length, header) = match second {
        127 => match rest.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        126 => match rest.first_chunk() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        length => (u64::from(length), 2),
    };
    if length > PAYLOAD_BYTES_MAX {
        return Err(Error::TooLong);
    }
    let end = header + length as usize;
    Ok(bytes.get(header..end).map(|payload| (Frame { fin, opcode, payload }, end)))
}

/// Appends one whole frame.
pub fn put(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let code = match opcode {
        Opcode::Continuation => 0x0,
        Opcode::Text => 0x1,
        Opcode::Binary => 0x2,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xa,
    };
    out.push(0x80 | code);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

fn opcode(code: u8) -> Option<Opcode> {
    Some(match code {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoder_table() {
        type Decoded<'a> = Result<Option<(bool, Opcode, &'a [u8])>, Error>;
        fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Decoded<'_> {
            Ok(Some((fin, opcode, payload)))
        }
        let table: [(&[u8], Decoded<'_>); 14] = [
            (b"", Ok(None)),
            (b"\x81", Ok(None)),
            (b"\x81\x00", frame(true, Opcode::Text, b"")),
            (b"\x81\x012tail", frame(true, Opcode::Text, b"2")),
            (b"\x02\x01a", frame(false, Opcode::Binary, b"a")),
            (b"\x80\x01b", frame(true, Opcode::Continuation, b"b")),
            (b"\x88\x02\x03\xe8", frame(true, Opcode::Close, b"\x03\xe8")),
            (b"\x81\x7e\x00", Ok(None)),
            (b"\xc1\x00", Err(Error::ReservedBitSet)),
            (b"\x83\x00", Err(Error::UnknownOpcode)),
            (b"\x81\x80", Err(Error::Masked)),
            (b"\x89\x7e", Err(Error::ControlTooLong)),
            (b"\x09\x00", Err(Error::ControlFragmented)),
            (b"\x81\x7f\x00\x00\x00\x01\x00\x00\x00\x00", Err(Error::TooLong)),
        ];
        for (bytes, expected) in table {
            let decoded = decode(bytes).map(|found| found.map(|(frame, _)| (frame.fin, frame.opcode, frame.payload)));
            assert_eq!(decoded, expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_not_a_frame_yet() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut bytes = unmasked(&payload);
            let whole = bytes.len();
            for cut in (0..whole).filter(|cut| *cut < 20 || whole - cut < 20) {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "{length} bytes cut at {cut}");
            }
            bytes.extend_from_slice(b"next");
            let expected = Frame { fin: true, opcode: Opcode::Text, payload: &payload };
            assert_eq!(decode(&bytes), Ok(Some((expected, whole))));
        }
    }

    #[test]
    fn our_frames_are_masked() {
        let mut bytes = Vec::new();
        put(Opcode::Text, b"40", &mut bytes);
        assert_eq!(bytes, b"\x81\x82\0\0\0\x0040");
        assert_eq!(decode(&bytes), Err(Error::Masked), "a client never receives what a client sends");
    }

    /// A frame as a server sends it: ours without the mask.
    fn unmasked(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(Opcode::Text, payload, &mut bytes);
        bytes[1] &= 0x7f;
        let key = bytes.len() - payload.len() - 4;
        bytes.drain(key..key + 4);
        bytes
    }
}
