//! WebSocket: the frame codec of RFC 6455.
//!
//! It sits between the bytes of an upgraded stream and the Engine.IO packets. [`Decoder::decode`]
//! takes items from the front of a read buffer; the `put_*` functions append frames to a write
//! buffer. Both roles are here, so that a test can be the peer. *Message* and *payload* are the
//! RFC's words in this file: a message is one or more frames, a payload is what a frame carries.
//!
//! ```text
//!     byte 0        byte 1        0, 2 or 8 bytes       0 or 4 bytes     length bytes
//!     F RRR oooo    M lllllll     longer length if      key if M (from   payload, xor-ed with
//!     fin   opcode  mask length   l is 126 or 127       a client only)   the key if M
//! ```
//!
//! The one idea: a payload stays where it was read. It is unmasked in place and lent to the caller;
//! only a message that its peer chose to send in fragments is copied, once. The road not taken is a
//! parser that swallows partial frames: it needs a buffer and a state for every conn. Here a
//! partial frame stays in the read buffer, and its header, 14 bytes at most, is read again when
//! more bytes have come. An idle decoder is one null pointer.
//!
//! Invariants: bytes are consumed, and unmasked, in whole frames only;
//!             the items, and the error that ends them, do not depend on how the stream was cut;
//!             what a peer sends can break a rule, never an assertion.
//! Limits:     `message_bytes_max` and `fragments_max` ([`Rules`]). Going over one is an [`Error`].
//!             A frame is refused at its header, so nobody has to buffer what will be refused.
//!             An open fragmented message holds at most twice `message_bytes_max`.
//! Not here:   the HTTP upgrade around [`accept_key`]; answering pings, closing and its deadline;
//!             permessage-deflate, so all three reserved bits are refused.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

#[cfg(test)]
mod tests;

/// The default of [`Rules::fragments_max`], in frames: the same as `ws`, so that no client meets
/// here a limit that it did not meet there.
pub const FRAGMENTS_MAX_DEFAULT: u32 = 16_384;

/// The longest payload of a close, ping or pong frame, in bytes (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest header without a mask key, in bytes: the size of the array from [`header`].
pub const HEADER_BYTES_MAX: usize = 10;

const FIN: u8 = 0b1000_0000;
const RESERVED_BITS: u8 = 0b0111_0000;
const OPCODE_BITS: u8 = 0b0000_1111;
const MASKED: u8 = 0b1000_0000;
const LENGTH_BITS: u8 = 0b0111_1111;
/// The real length follows in 16 bits.
const LENGTH_IN_16: u8 = 126;
/// The real length follows in 64 bits.
const LENGTH_IN_64: u8 = 127;

/// Who we are. The peer is the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We demand masked frames (RFC 6455 §5.1).
    Server,
    /// We demand unmasked frames (RFC 6455 §5.1).
    Client,
}

/// What a frame is for (RFC 6455 §5.2). The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of the open message.
    Continuation = 0x0,
    /// A message of UTF-8 text, or its first fragment.
    Text = 0x1,
    /// A message of bytes, or its first fragment.
    Binary = 0x2,
    /// The sender will send nothing more.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or comes unasked.
    Pong = 0xa,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        match bits {
            0x0 => Some(Opcode::Continuation),
            0x1 => Some(Opcode::Text),
            0x2 => Some(Opcode::Binary),
            0x8 => Some(Opcode::Close),
            0x9 => Some(Opcode::Ping),
            0xa => Some(Opcode::Pong),
            _ => None,
        }
    }

    /// Control frames are short, never fragmented, and may stand between fragments (§5.5).
    fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// The rule that the peer broke. The conn cannot go on: after a bad frame nobody knows where the
/// next one begins. Send [`Error::close_code`] and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A reserved bit is set, and no extension gave it a meaning (RFC 6455 §5.2).
    ReservedBitSet,
    /// An opcode without a meaning: 3 to 7, or 11 to 15 (§5.2).
    ReservedOpcode,
    /// A client did not mask its frame (§5.1).
    Unmasked,
    /// A server masked its frame (§5.1).
    Masked,
    /// A control frame of more than [`CONTROL_BYTES_MAX`] (§5.5).
    ControlTooLong,
    /// A control frame without the FIN bit (§5.5).
    ControlFragmented,
    /// A continuation, and no message is open (§5.4).
    UnexpectedContinuation,
    /// A new message inside an open one (§5.4).
    ExpectedContinuation,
    /// A 64-bit length with its top bit set (§5.2).
    LengthTooLarge,
    /// A message, whole or as the sum of its fragments, over [`Rules::message_bytes_max`] (§10.4).
    MessageTooLarge,
    /// A message in more frames than [`Rules::fragments_max`] (§10.4).
    TooManyFragments,
    /// A text message, or the reason in a close frame, is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A close payload of one byte: half a code (§5.5.1).
    CloseTooShort,
    /// A close code that nobody may send (§7.4).
    InvalidCloseCode,
}

impl Error {
    /// The code to close with (RFC 6455 §7.4.1): the one that `ws` sends for the same mistake.
    pub fn close_code(self) -> u16 {
        match self {
            Error::ReservedBitSet
            | Error::ReservedOpcode
            | Error::Unmasked
            | Error::Masked
            | Error::ControlTooLong
            | Error::ControlFragmented
            | Error::UnexpectedContinuation
            | Error::ExpectedContinuation
            | Error::CloseTooShort
            | Error::InvalidCloseCode => 1002,
            Error::InvalidUtf8 => 1007,
            Error::TooManyFragments => 1008,
            Error::LengthTooLarge | Error::MessageTooLarge => 1009,
        }
    }
}

/// What a decoder holds its peer to. One value serves every conn, so a decoder does not store it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Who we are; decides whether frames must be masked.
    pub role: Role,
    /// The longest message, in bytes of payload, all fragments together. Control frames do not
    /// count. Zero allows empty messages only; it does not mean "no limit".
    pub message_bytes_max: usize,
    /// The most frames of one message, empty ones included. A message in a single frame is always
    /// allowed. See [`FRAGMENTS_MAX_DEFAULT`].
    pub fragments_max: u32,
}

/// What the peer said: a message, whole again, or a control frame. Payloads lie unmasked in the
/// read buffer; only a message that came in fragments is owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// A text message.
    Text(Cow<'b, str>),
    /// A binary message.
    Binary(Cow<'b, [u8]>),
    /// To be answered by a pong with the same payload (RFC 6455 §5.5.2).
    Ping(&'b [u8]),
    /// An answer to our ping, or unasked for (§5.5.3).
    Pong(&'b [u8]),
    /// The peer's last frame (§5.5.1). Stop decoding: whatever follows has no meaning.
    Close {
        /// Why, if the peer says so. Always a code that may be sent back.
        code: Option<u16>,
        /// For people to read. Empty without a code.
        reason: &'b str,
    },
}

/// What must be remembered between two reads: the open fragmented message, if there is one.
#[derive(Debug, Default)]
pub struct Decoder {
    // Boxed: browsers do not fragment what Socket.IO sends, so a conn pays eight bytes for this.
    partial: Option<Box<Partial>>,
}

/// A message that still lacks its last fragment.
#[derive(Debug)]
struct Partial {
    /// Text or binary: the opcode of the first fragment.
    kind: Opcode,
    fragments: u32,
    bytes: Vec<u8>,
}

/// A frame header that broke no rule.
struct Header {
    fin: bool,
    opcode: Opcode,
    masked: bool,
    /// In bytes, without the mask key.
    header_len: usize,
    payload_len: usize,
}

impl Decoder {
    /// Consumes whole frames from the front of `input`, up to and including the next item.
    ///
    /// `Ok(None)` asks for more bytes: `input` is then the start of a frame, untouched, or empty.
    /// Call again with the same bytes and more behind them. Fragments that do not end their message
    /// are consumed on the way and yield nothing.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke, as early as its bytes show it. What is left of `input` and of
    /// the decoder has no meaning then, nor after [`Item::Close`].
    pub fn decode<'b>(&mut self, input: &mut &'b mut [u8], rules: &Rules) -> Result<Option<Item<'b>>, Error> {
        while let Some(header) = self.read_header(input, rules)? {
            let Some(payload) = header.take_payload(input) else {
                break;
            };
            if let Some(item) = self.receive(&header, payload)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Reads the header at the front of `input` (RFC 6455 §5.2), and judges each byte before it
    /// asks for the next one. `None` until the length is complete.
    fn read_header(&self, input: &[u8], rules: &Rules) -> Result<Option<Header>, Error> {
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        let opcode = self.judge_first(first, rules)?;
        let Some(&second) = input.get(1) else {
            return Ok(None);
        };
        judge_second(second, opcode, rules.role)?;
        let Some((announced, header_len)) = read_length(second, input)? else {
            return Ok(None);
        };
        Ok(Some(Header {
            fin: first & FIN != 0,
            opcode,
            masked: second & MASKED != 0,
            header_len,
            payload_len: self.judge_length(announced, opcode, rules)?,
        }))
    }

    /// The first byte tells whether this kind of frame may come now (§5.4).
    fn judge_first(&self, first: u8, rules: &Rules) -> Result<Opcode, Error> {
        if first & RESERVED_BITS != 0 {
            return Err(Error::ReservedBitSet);
        }
        let opcode = Opcode::from_bits(first & OPCODE_BITS).ok_or(Error::ReservedOpcode)?;
        let fragments = self.partial.as_ref().map(|partial| partial.fragments);
        match (opcode, fragments) {
            (Opcode::Continuation, None) => Err(Error::UnexpectedContinuation),
            (Opcode::Continuation, Some(n)) if n >= rules.fragments_max => Err(Error::TooManyFragments),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Error::ExpectedContinuation),
            _ if opcode.is_control() && first & FIN == 0 => Err(Error::ControlFragmented),
            _ => Ok(opcode),
        }
    }

    /// The announced length becomes a real one if the message has room for it.
    fn judge_length(&self, announced: u64, opcode: Opcode, rules: &Rules) -> Result<usize, Error> {
        let room = if opcode.is_control() {
            CONTROL_BYTES_MAX
        } else {
            let held = self.partial.as_ref().map_or(0, |partial| partial.bytes.len());
            // Saturating, because the caller may lower the limit while a message is open.
            rules.message_bytes_max.saturating_sub(held)
        };
        match usize::try_from(announced) {
            Ok(len) if len <= room => Ok(len),
            _ => Err(Error::MessageTooLarge),
        }
    }

    /// Turns one frame into an item, or into a part of a later one.
    fn receive<'b>(&mut self, header: &Header, payload: &'b [u8]) -> Result<Option<Item<'b>>, Error> {
        match header.opcode {
            Opcode::Ping => Ok(Some(Item::Ping(payload))),
            Opcode::Pong => Ok(Some(Item::Pong(payload))),
            Opcode::Close => read_close(payload).map(Some),
            Opcode::Continuation => self.continue_message(payload, header.fin),
            kind if header.fin => message(kind, Cow::Borrowed(payload)).map(Some),
            kind => {
                let (fragments, bytes) = (1, payload.to_vec());
                self.partial = Some(Box::new(Partial { kind, fragments, bytes }));
                Ok(None)
            }
        }
    }

    fn continue_message(&mut self, payload: &[u8], fin: bool) -> Result<Option<Item<'static>>, Error> {
        let open = self.partial.take();
        let mut partial = open.expect("a continuation of nothing is refused at its first byte");
        partial.fragments += 1;
        partial.bytes.extend_from_slice(payload);
        if fin {
            return message(partial.kind, Cow::Owned(partial.bytes)).map(Some);
        }
        self.partial = Some(partial);
        Ok(None)
    }
}

impl Header {
    /// Cuts the whole frame off `input` and returns its payload, unmasked where it lies.
    /// `None`, and nothing is touched, until the frame is complete.
    fn take_payload<'b>(&self, input: &mut &'b mut [u8]) -> Option<&'b [u8]> {
        let key_len = if self.masked { 4 } else { 0 };
        let frame_len = (self.header_len + key_len).checked_add(self.payload_len)?;
        let frame = input.split_off_mut(..frame_len)?;
        let (_, body) = frame.split_at_mut(self.header_len);
        if !self.masked {
            return Some(body);
        }
        let (key, payload) = body.split_first_chunk_mut()?;
        apply_mask(payload, *key);
        Some(payload)
    }
}

/// The second byte tells whether the mask is right and whether a control frame can be (§5.1, §5.5).
fn judge_second(second: u8, opcode: Opcode, role: Role) -> Result<(), Error> {
    let short_len = second & LENGTH_BITS;
    match (role, second & MASKED != 0) {
        (Role::Server, false) => Err(Error::Unmasked),
        (Role::Client, true) => Err(Error::Masked),
        _ if opcode.is_control() && usize::from(short_len) > CONTROL_BYTES_MAX => Err(Error::ControlTooLong),
        _ if opcode == Opcode::Close && short_len == 1 => Err(Error::CloseTooShort),
        _ => Ok(()),
    }
}

/// The announced payload length, and where the header ends without its mask key.
/// `None` until all bytes of the length are there.
///
/// A length in more bytes than it needs is accepted, although the sender must not do that (§5.2).
/// It has only one reading, so refusing it protects nobody; `ws` accepts it, so refusing it could
/// cut off a client that works there. Only in a control frame do both refuse it, as too long.
fn read_length(second: u8, input: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let tail = &input[2..];
    let length = match second & LENGTH_BITS {
        LENGTH_IN_16 => tail.first_chunk().map(|be| (u16::from_be_bytes(*be).into(), 4)),
        LENGTH_IN_64 => tail.first_chunk().map(|be| (u64::from_be_bytes(*be), 10)),
        short => Some((short.into(), 2)),
    };
    match length {
        Some((announced, _)) if announced >> 63 != 0 => Err(Error::LengthTooLarge),
        _ => Ok(length),
    }
}

/// A complete message. Text is checked here, when it is whole, and not fragment by fragment: a
/// character may lie across two of them, and an early refusal is only optional (§8.1).
fn message(kind: Opcode, bytes: Cow<'_, [u8]>) -> Result<Item<'_>, Error> {
    if kind == Opcode::Binary {
        return Ok(Item::Binary(bytes));
    }
    let text = match bytes {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    };
    text.map(Item::Text).ok_or(Error::InvalidUtf8)
}

/// A close payload is empty, or a code and a reason (§5.5.1). One byte was refused at the header.
fn read_close(payload: &[u8]) -> Result<Item<'_>, Error> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return Ok(Item::Close { code: None, reason: "" });
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Error::InvalidCloseCode);
    }
    let reason = str::from_utf8(reason).map_err(|_| Error::InvalidUtf8)?;
    Ok(Item::Close { code: Some(code), reason })
}

/// The close codes that may be on the wire (§7.4): those with a meaning, as registered at IANA, and
/// those left to libraries and applications. 1004 has no meaning; 1005, 1006 and 1015 say what an
/// endpoint saw, and are never sent.
fn may_be_sent(close_code: u16) -> bool {
    matches!(close_code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The header of a whole, unmasked message or control frame (RFC 6455 §5.2): the first `usize`
/// bytes of the array. It is what a server puts in front of a payload that is encoded already.
///
/// `payload_len` is in bytes.
///
/// # Panics
///
/// If a control frame would be longer than [`CONTROL_BYTES_MAX`].
pub fn header(opcode: Opcode, payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    assert!(!opcode.is_control() || payload_len <= CONTROL_BYTES_MAX, "a control frame of {payload_len} bytes");
    let mut bytes = [0; HEADER_BYTES_MAX];
    bytes[0] = FIN | opcode as u8;
    match payload_len {
        0..=125 => {
            bytes[1] = payload_len as u8;
            (bytes, 2)
        }
        126..=0xffff => {
            bytes[1] = LENGTH_IN_16;
            bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            (bytes, 4)
        }
        _ => {
            bytes[1] = LENGTH_IN_64;
            bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
            (bytes, 10)
        }
    }
}

/// Appends the header of a frame whose payload of `payload_len` bytes is to follow.
///
/// A client gives a `mask`, fresh and unpredictable for each frame (RFC 6455 §5.3), and applies it
/// to the payload with [`apply_mask`]. A server gives `None`.
///
/// # Panics
///
/// As [`header`].
pub fn put_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize, mask: Option<[u8; 4]>) {
    let (mut bytes, len) = header(opcode, payload_len);
    if mask.is_some() {
        bytes[1] |= MASKED;
    }
    out.extend_from_slice(&bytes[..len]);
    out.extend(mask.into_iter().flatten());
}

/// Appends a whole frame: the header as [`put_header`] writes it, then the payload, masked if there
/// is a `mask`. We never send fragments.
///
/// # Panics
///
/// As [`header`].
pub fn put_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    put_header(out, opcode, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key);
    }
}

/// Appends a close frame (RFC 6455 §5.5.1). Without a code its payload is empty, which the peer
/// reports as 1005.
///
/// # Panics
///
/// If the code may not be sent (§7.4), if there is a reason but no code, or if the reason is longer
/// than 123 bytes. Codes that came in an [`Item::Close`] or from [`Error::close_code`] may be sent.
pub fn put_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str, mask: Option<[u8; 4]>) {
    let Some(code) = code else {
        assert!(reason.is_empty(), "a close reason needs a code in front of it");
        return put_frame(out, Opcode::Close, &[], mask);
    };
    assert!(may_be_sent(code), "close code {code} may not be sent");
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    put_frame(out, Opcode::Close, &payload, mask);
}

/// Masks or unmasks a payload in place; doing it twice undoes it (RFC 6455 §5.3).
///
/// Always from the first byte of the payload: frames are only unmasked whole, so there is no offset
/// into the key to carry along.
pub fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    // Eight bytes at a time. Eight is a multiple of the key, so the rest starts at its first byte.
    let [a, b, c, d] = key;
    let pattern = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ pattern).to_ne_bytes();
    }
    for (byte, key_byte) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key_byte;
    }
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 §4.2.2); `None` if the
/// key is not 16 bytes in base64 (§4.2.1), which is then a bad request.
///
/// The four bits that the last character has to spare are not looked at, as in `ws`: the answer is
/// a hash of the text, nobody decodes it, and a client may draw its 22 characters at random.
pub fn accept_key(key: &str) -> Option<String> {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digits = key.strip_suffix("==")?.as_bytes();
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if digits.len() != 22 || !digits.iter().all(is_digit) {
        return None;
    }
    Some(STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize()))
}
