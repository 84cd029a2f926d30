//! Codec: is a WebSocket decoder of our own worth having?
//!
//! The question: what does a masked 128-byte text frame cost between the read buffer and `&str`, and what would it cost
//! with an existing crate? If fastwebsockets were as fast, its 8 KB per connection would be the only reason left.
//!
//! Both get the same: a stream in memory that fills a read buffer of at most 64 KiB at a time, 500 frames in all, a
//! check of every rule and of UTF-8. `our decoder, in place` leaves the copy into the read buffer out: it is what the
//! decoder itself costs, and the copy is the kernel's work.
//!
//! The way out is here for completeness: a server's frame is a header in front of bytes that are copied. In `Prepared`
//! even the copy is gone (benches/packet.rs).
//!
//!     cargo bench --bench codec

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanfare::proto::websocket::{self, Decoder, Item, Opcode, Role, Rules};
use fastwebsockets::{Frame, Payload, WebSocket};
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const FRAMES: usize = 500;
const TEXT_BYTES: usize = 128;
const READ_BYTES_MAX: usize = 64 << 10;

const RULES: Rules =
    Rules { role: Role::Server, message_bytes_max: 1_000_000, fragments_max: websocket::FRAGMENTS_MAX_DEFAULT };

fn decode_text(c: &mut Criterion) {
    let mut group = c.benchmark_group("masked 128-byte text frame");
    group.throughput(Throughput::Elements(FRAMES as u64));

    // Decoding unmasks in place, so every second round decodes what the round before it unmasked. The mask flips low
    // bits only: either way the text is ASCII, and the work is the same.
    let mut frames = frames([1, 2, 3, 4]);
    group.bench_function("our decoder, in place", |b| b.iter(|| assert_eq!(decode_all(&mut frames), FRAMES)));

    let stream = frames.clone();
    let mut read_buffer = vec![0; READ_BYTES_MAX];
    group.bench_function("our decoder, with the read", |b| {
        b.iter(|| assert_eq!(read_and_decode(&stream, &mut read_buffer), FRAMES))
    });

    let mut peer = WebSocket::after_handshake(Looped { bytes: stream, at: 0 }, fastwebsockets::Role::Server);
    group.bench_function("fastwebsockets, with the read", |b| {
        b.iter(|| {
            for _ in 0..FRAMES {
                let frame = ready(peer.read_frame()).expect("it is a good frame");
                assert_eq!(black_box(&frame.payload[..]).len(), TEXT_BYTES);
            }
        })
    });
    group.finish();
}

fn encode_text(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmasked 128-byte text frame, encoded");
    group.throughput(Throughput::Elements(1));
    let text = [b'x'; TEXT_BYTES];
    let mut frame = Vec::new();
    group.bench_function("ours", |b| {
        b.iter(|| {
            frame.clear();
            websocket::put_frame(&mut frame, Opcode::Text, black_box(&text), None);
            assert_eq!(black_box(&frame).len(), TEXT_BYTES + 4);
        })
    });
    let mut buffer = Vec::new();
    group.bench_function("fastwebsockets", |b| {
        b.iter(|| {
            let mut frame = Frame::text(Payload::Borrowed(black_box(&text)));
            assert_eq!(black_box(frame.write(&mut buffer)).len(), TEXT_BYTES + 4);
        })
    });
    group.finish();
}

fn frames(mask: [u8; 4]) -> Vec<u8> {
    let text: String = ('a'..='z').cycle().take(TEXT_BYTES).collect();
    let mut frames = Vec::new();
    for _ in 0..FRAMES {
        websocket::put_frame(&mut frames, Opcode::Text, text.as_bytes(), Some(mask));
    }
    frames
}

/// Decodes what is whole; returns how many texts there were.
fn decode_all(bytes: &mut [u8]) -> usize {
    let mut input = bytes;
    decode_from(&mut Decoder::default(), &mut input)
}

fn decode_from(decoder: &mut Decoder, input: &mut &mut [u8]) -> usize {
    let mut texts = 0;
    while let Some(item) = decoder.decode(input, &RULES).expect("they are good frames") {
        let Item::Text(text) = item else { unreachable!("only texts were put") };
        assert_eq!(black_box(&*text).len(), TEXT_BYTES);
        texts += 1;
    }
    texts
}

/// As a worker does it: one read buffer, and a partial frame moves to its front.
fn read_and_decode(stream: &[u8], buffer: &mut [u8]) -> usize {
    let (mut decoder, mut stream) = (Decoder::default(), stream);
    let (mut texts, mut kept) = (0, 0);
    while !stream.is_empty() {
        let (piece, rest) = stream.split_at(stream.len().min(buffer.len() - kept));
        buffer[kept..kept + piece.len()].copy_from_slice(piece);
        let filled = kept + piece.len();
        let mut input = &mut buffer[..filled];
        texts += decode_from(&mut decoder, &mut input);
        kept = input.len();
        buffer.copy_within(filled - kept..filled, 0);
        stream = rest;
    }
    texts
}

/// The same frames for ever. It is always ready, so no runtime is measured.
struct Looped {
    bytes: Vec<u8>,
    at: usize,
}

impl AsyncRead for Looped {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.at..];
        let taken = left.len().min(out.remaining()).min(READ_BYTES_MAX);
        out.put_slice(&left[..taken]);
        self.at = (self.at + taken) % self.bytes.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Looped {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the stream is always ready"),
    }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = decode_text, encode_text
}
criterion_main!(benches);
