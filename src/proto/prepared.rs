//! Prepared: a packet encoded once, ready for every transport.
//!
//! Made by the encoders of `engineio` and `socketio`; kept by outboxes and walked by the fan-out. It never changes.
//!
//! One buffer holds all WebSocket frames of the packet end to end. A server does not mask its frames, so the same bytes
//! are right for every WebSocket receiver; and what lies between the frame headers is what polling needs, so a packet
//! for both transports is still one buffer.
//!
//! ```text
//!   room for the header   text                    attachments, one binary frame each
//!   . . . . . . 81 1f     451-["a",{"_place…}]    82 03  x y z     82 01  q
//!               ╰─────────────────────────── websocket() ───────────────────────────╯
//! ```
//!
//! How long the text is, and so how long its header, is known only once the text is written. So the text starts behind
//! room for the longest header, and the header is put right-aligned in front of it: no copy, a few bytes unused.
//!
//! The road not taken: keeping the packet's parts in separate buffers would spare the copy of each attachment, and would
//! cost every receiver a gathered write instead of one plain slice.
//!
//! Invariants: `websocket()` is not empty; `text` and `attachments` are disjoint, rising ranges inside it.
//! Limits:     4 GiB for one packet (offsets are `u32`). Settings keep packets far below.
//! Not here:   the syntax of packets (engineio.rs, socketio.rs); other forms such as deflate, which nobody makes yet;
//!             `packet()` and `attachments()` are what they would be made from.

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf as _, Bytes};
use serde::Serialize;

use super::engineio::SEPARATOR;
use super::websocket::{self, Opcode};

/// The longest header of an unmasked WebSocket frame, in bytes (RFC 6455, section 5.2).
const HEADER_BYTES_MAX: usize = 10;

/// A packet encoded once, for every transport. Cloning it copies no bytes.
///
/// It is either an Engine.IO text packet followed by any number of binary messages (the attachments of a Socket.IO
/// packet), or one binary message alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// All frames, end to end.
    wire: Bytes,
    /// The text packet inside `wire`, without its frame header. Empty when the packet is one binary message.
    text: Range<u32>,
    /// Each attachment inside `wire`. Most packets have none, and then this allocates nothing.
    attachments: Option<Arc<[Range<u32>]>>,
    fate: Fate,
}

/// What may become of a packet whose receiver is behind. It takes no part in the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Fate {
    /// It arrives, or the session ends: acks and what else the protocol itself says, and events unless told otherwise.
    #[default]
    Kept,
    /// Dropped, if there is no room behind what waits already.
    DroppedNewest,
    /// Dropped, if there is no room for what comes later.
    DroppedOldest,
    /// Dropped, when a later packet with the same key waits. The key is whole: it names the target too.
    Conflated(Arc<str>),
}

impl Prepared {
    /// The same packet with another fate.
    pub fn with_fate(self, fate: Fate) -> Prepared {
        Prepared { fate, ..self }
    }

    /// What may become of it, if its receiver is behind.
    pub fn fate(&self) -> &Fate {
        &self.fate
    }

    /// Prepares an Engine.IO text packet that is already encoded, such as `2` or `4hello`.
    ///
    /// # Panics
    ///
    /// When `packet` is empty: every packet has at least its type.
    pub fn text(packet: &str) -> Prepared {
        assert!(!packet.is_empty(), "an Engine.IO packet has at least its type");
        let mut builder = Builder::new(packet.len());
        builder.put(packet);
        builder.finish()
    }

    /// Prepares an Engine.IO text message: `4` and the data.
    pub fn message(data: &str) -> Prepared {
        let mut builder = Builder::new(1 + data.len());
        builder.put("4").put(data);
        builder.finish()
    }

    /// Prepares an Engine.IO binary message: a bare binary frame on WebSocket, `b` and base64 in a polling payload.
    pub fn binary(data: &[u8]) -> Prepared {
        Builder::with_attachments(0, &[data]).finish()
    }

    /// Takes finished WebSocket frames that have no counterpart in polling, such as the pong of RFC 6455.
    pub fn frame(frames: Vec<u8>) -> Prepared {
        Prepared { wire: frames.into(), text: 0..0, attachments: None, fate: Fate::Kept }
    }

    /// The bytes for a WebSocket: every frame of this packet, headers included.
    pub fn websocket(&self) -> &Bytes {
        &self.wire
    }

    /// The Engine.IO text packet (UTF-8, without frame header). Empty when this is one binary message.
    pub fn packet(&self) -> &[u8] {
        self.part(&self.text)
    }

    /// The data of each binary message that follows the text, in order.
    pub fn attachments(&self) -> impl Iterator<Item = &[u8]> {
        self.attachments.iter().flat_map(|ranges| ranges.iter()).map(|range| self.part(range))
    }

    /// How many bytes [`put_polling`](Self::put_polling) appends.
    pub fn polling_len(&self) -> usize {
        let binary: usize = self.attachments().map(|data| base64_packet_len(data.len())).sum();
        let packets = usize::from(!self.text.is_empty()) + self.attachments().count();
        let separators = packets.saturating_sub(1);
        self.text.len() + binary + separators
    }

    /// Appends this packet as it stands in a polling payload: its Engine.IO packets joined by [`SEPARATOR`], binary ones
    /// as `b` and padded base64 (Engine.IO v4, "HTTP long-polling"). Between two prepared packets the caller puts the
    /// separator.
    pub fn put_polling(&self, out: &mut Vec<u8>) {
        out.reserve(self.polling_len());
        let start = out.len();
        out.extend_from_slice(self.packet());
        for data in self.attachments() {
            if out.len() > start {
                out.push(SEPARATOR);
            }
            put_base64_packet(data, out);
        }
        debug_assert_eq!(out.len() - start, self.polling_len(), "announced and written lengths agree");
    }

    fn part(&self, range: &Range<u32>) -> &[u8] {
        &self.wire[range.start as usize..range.end as usize]
    }
}

/// The length of a binary message in a polling payload: `b` and four characters for each three bytes begun.
fn base64_packet_len(data_len: usize) -> usize {
    1 + data_len.div_ceil(3) * 4
}

fn put_base64_packet(data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + base64_packet_len(data.len()), b'b');
    BASE64.encode_slice(data, &mut out[start + 1..]).expect("the room was made to measure");
}

/// Writes one packet straight into the buffer that [`Prepared`] will keep.
///
/// Announce the text's length and the attachments, put the pieces of the text, finish.
pub(crate) struct Builder<'a, A> {
    /// Room for the header, then the text as far as it is written.
    buffer: Vec<u8>,
    attachments: &'a [A],
}

impl Builder<'_, &[u8]> {
    /// Begins a packet without attachments, whose text will have up to `text_bytes_max` bytes.
    pub(crate) fn new(text_bytes_max: usize) -> Self {
        Builder::with_attachments(text_bytes_max, &[])
    }
}

impl<'a, A: AsRef<[u8]>> Builder<'a, A> {
    /// Begins a packet whose text will have up to `text_bytes_max` bytes. One byte more is not wrong, only slower:
    /// the buffer would have to grow.
    pub(crate) fn with_attachments(text_bytes_max: usize, attachments: &'a [A]) -> Self {
        let framed = |attachment: &A| HEADER_BYTES_MAX + attachment.as_ref().len();
        let attachment_bytes_max: usize = attachments.iter().map(framed).sum();
        let mut buffer = Vec::with_capacity(HEADER_BYTES_MAX + text_bytes_max + attachment_bytes_max);
        buffer.resize(HEADER_BYTES_MAX, 0);
        Builder { buffer, attachments }
    }

    /// Appends a piece of the text.
    pub(crate) fn put(&mut self, piece: &str) -> &mut Self {
        self.buffer.extend_from_slice(piece.as_bytes());
        self
    }

    /// Appends a number in decimal digits, at most 20 bytes.
    pub(crate) fn put_number(&mut self, number: u64) -> &mut Self {
        write!(self.buffer, "{number}").expect("memory takes every write");
        self
    }

    /// Appends a value as compact JSON. For our own values only: their serialization must not fail.
    pub(crate) fn put_json(&mut self, value: &impl Serialize) -> &mut Self {
        serde_json::to_writer(&mut self.buffer, value).expect("our own values are valid JSON");
        self
    }

    /// Frames the text, appends the attachments and seals the buffer.
    ///
    /// # Panics
    ///
    /// When the packet reaches 4 GiB.
    pub(crate) fn finish(mut self) -> Prepared {
        let start = self.put_text_header();
        // Ranges count from where the wire begins, not from where the buffer does.
        let text = range(HEADER_BYTES_MAX - start, self.buffer.len() - start);
        let attachments = self.attachments.iter().map(|attachment| {
            let data = attachment.as_ref();
            put_frame(Opcode::Binary, data, &mut self.buffer);
            range(self.buffer.len() - data.len() - start, self.buffer.len() - start)
        });
        // An empty collection would allocate its two counters.
        let attachments = (!self.attachments.is_empty()).then(|| attachments.collect());
        let mut wire = Bytes::from(self.buffer);
        wire.advance(start);
        Prepared { wire, text, attachments, fate: Fate::Kept }
    }

    /// Puts the header of the text frame right in front of the text and tells where it starts. No text, no frame.
    fn put_text_header(&mut self) -> usize {
        let text_len = self.buffer.len() - HEADER_BYTES_MAX;
        if text_len == 0 {
            return HEADER_BYTES_MAX;
        }
        let (header, header_len) = websocket::header(Opcode::Text, text_len);
        let start = HEADER_BYTES_MAX - header_len;
        self.buffer[start..HEADER_BYTES_MAX].copy_from_slice(&header[..header_len]);
        start
    }
}

fn put_frame(opcode: Opcode, data: &[u8], buffer: &mut Vec<u8>) {
    let (header, header_len) = websocket::header(opcode, data.len());
    buffer.extend_from_slice(&header[..header_len]);
    buffer.extend_from_slice(data);
}

fn range(start: usize, end: usize) -> Range<u32> {
    let offset = |at: usize| u32::try_from(at).expect("a packet is smaller than 4 GiB");
    offset(start)..offset(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polling(prepared: &Prepared) -> Vec<u8> {
        let mut out = b"already here".to_vec();
        prepared.put_polling(&mut out);
        let appended = out.strip_prefix(b"already here").expect("what was there stays").to_vec();
        assert_eq!(appended.len(), prepared.polling_len());
        appended
    }

    fn with_attachments(text: &str, attachments: &[Bytes]) -> Prepared {
        let mut builder = Builder::with_attachments(text.len(), attachments);
        builder.put(text);
        builder.finish()
    }

    #[test]
    fn a_text_packet_is_one_text_frame_and_itself_in_polling() {
        let ping = Prepared::text("2");
        assert_eq!(ping.websocket().as_ref(), b"\x81\x012");
        assert_eq!(polling(&ping), b"2");
        assert_eq!(ping.packet(), b"2");
        assert_eq!(ping.attachments().count(), 0);
    }

    #[test]
    fn a_message_is_a_text_packet_of_type_four() {
        assert_eq!(Prepared::message("hello"), Prepared::text("4hello"));
        assert_eq!(Prepared::message(""), Prepared::text("4"));
    }

    #[test]
    fn a_binary_message_is_a_bare_frame_and_base64_in_polling() {
        let prepared = Prepared::binary(&[1, 2, 3, 4]);
        assert_eq!(prepared.websocket().as_ref(), b"\x82\x04\x01\x02\x03\x04");
        assert_eq!(polling(&prepared), b"bAQIDBA==");
        assert_eq!(prepared.packet(), b"");
        assert_eq!(prepared.attachments().collect::<Vec<_>>(), [&[1, 2, 3, 4]]);
    }

    #[test]
    fn an_empty_binary_message_is_still_a_message() {
        let prepared = Prepared::binary(&[]);
        assert_eq!(prepared.websocket().as_ref(), b"\x82\x00");
        assert_eq!(polling(&prepared), b"b");
    }

    #[test]
    fn attachments_follow_their_text_in_order_on_both_transports() {
        let prepared = with_attachments("452-[]", &[Bytes::from_static(b"xyz"), Bytes::from_static(b"q")]);
        assert_eq!(prepared.websocket().as_ref(), b"\x81\x06452-[]\x82\x03xyz\x82\x01q");
        assert_eq!(polling(&prepared), b"452-[]\x1ebeHl6\x1ebcQ==");
        assert_eq!(prepared.attachments().collect::<Vec<_>>(), [b"xyz".as_slice(), b"q"]);
    }

    #[test]
    fn every_length_of_header_ends_where_the_text_begins() {
        for len in [1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let text = "é".repeat(len / 2) + &"x".repeat(len % 2);
            let prepared = with_attachments(&text, &[Bytes::from(vec![7; len])]);
            let (text_header, text_header_len) = websocket::header(Opcode::Text, len);
            let (binary_header, binary_header_len) = websocket::header(Opcode::Binary, len);
            let expected =
                [&text_header[..text_header_len], text.as_bytes(), &binary_header[..binary_header_len], &vec![7; len]];
            assert_eq!(prepared.websocket().as_ref(), expected.concat(), "length {len}");
            assert_eq!(prepared.packet(), text.as_bytes());
        }
    }

    #[test]
    fn polling_base64_of_every_remainder_is_announced_exactly() {
        for len in 0..=64 {
            let prepared = with_attachments("4", &[Bytes::from(vec![0xff; len]), Bytes::new()]);
            let expected = format!("4\x1eb{}\x1eb", BASE64.encode(vec![0xff; len]));
            assert_eq!(polling(&prepared), expected.as_bytes());
        }
    }

    #[test]
    fn the_text_stays_where_it_was_written() {
        let attachments = [b"attached"];
        let mut builder = Builder::with_attachments(300, &attachments);
        builder.put(&"x".repeat(300));
        let written_at = builder.buffer[HEADER_BYTES_MAX..].as_ptr();
        let prepared = builder.finish();
        assert_eq!(prepared.packet().as_ptr(), written_at, "no copy after writing");
    }

    #[test]
    fn a_clone_shares_the_bytes() {
        let prepared = Prepared::text("4hello");
        let clone = prepared.clone();
        assert_eq!(prepared.websocket().as_ptr(), clone.websocket().as_ptr());
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut builder = Builder::new(42);
        builder.put("4").put_number(0).put(",").put_number(u64::MAX);
        assert_eq!(builder.finish().packet(), b"40,18446744073709551615");
    }

    #[test]
    #[should_panic(expected = "at least its type")]
    fn an_empty_text_packet_is_our_bug() {
        Prepared::text("");
    }

    #[test]
    fn a_prepared_packet_travels_between_threads_and_is_small() {
        fn travels<T: Send + Sync>() {}
        travels::<Prepared>();
        assert!(size_of::<Prepared>() <= 80, "{} bytes", size_of::<Prepared>());
    }
}
