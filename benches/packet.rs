//! Packet: what do Engine.IO and Socket.IO cost, in and out?
//!
//! The question: between the frame and the handler, and between `emit` and the frame, would a plainer way be faster?
//!
//! - Reading: a text becomes the parts of a packet, borrowed, and every rule is checked. The plain way reads the event
//!   into a tree of `serde_json` and copies what it keeps.
//! - Making: name and arguments become a `Prepared`: one buffer, the header in place, ready for both transports. The
//!   plain way serializes, formats the packet, and copies it into a frame, for WebSockets only.
//!
//! A broadcast makes its packet once, whoever receives it. The frame alone is benches/codec.rs, typed arguments are
//! benches/event.rs.
//!
//!     cargo bench --bench packet

mod support;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::args;
use fanfare::proto::websocket::{self, Opcode};
use fanfare::proto::{Prepared, engineio, socketio};
use std::hint::black_box;

const TEXT_BYTES: usize = 128;
const PAYLOAD_PACKETS: usize = 16;

fn read(c: &mut Criterion) {
    let text = "x".repeat(TEXT_BYTES);
    let event = format!(r#"42["msg","{text}"]"#);
    let asking = format!(r#"42/admin,7["msg","{text}"]"#);

    let mut group = c.benchmark_group("read a packet");
    for (name, packet) in [("connect", "40"), ("event", &event), ("event with namespace and ack", &asking)] {
        group.bench_function(BenchmarkId::new("ours", name), |b| {
            b.iter(|| message(engineio::decode(black_box(packet)).expect("it is a packet")).namespace().len())
        });
    }
    group.bench_function(BenchmarkId::new("serde_json tree", "event"), |b| {
        b.iter(|| {
            let data = black_box(&*event).strip_prefix("42").expect("it is an event");
            let tree: serde_json::Value = serde_json::from_str(data).expect("it is JSON");
            assert_eq!(tree[0], "msg");
            tree
        })
    });
    group.finish();

    let mut group = c.benchmark_group("read a polling payload of 16 events");
    group.throughput(Throughput::Elements(PAYLOAD_PACKETS as u64));
    let payload = vec![&*event; PAYLOAD_PACKETS].join(&char::from(engineio::SEPARATOR).to_string());
    group.bench_function("ours", |b| {
        b.iter(|| {
            let packets = engineio::payload(black_box(&payload));
            let events = packets.map(|packet| message(packet.expect("it is a packet")));
            assert_eq!(events.map(black_box).count(), PAYLOAD_PACKETS);
        })
    });
    group.finish();
}

fn message(packet: engineio::Packet<'_>) -> socketio::Packet<'_> {
    match packet {
        engineio::Packet::Message(text) => socketio::decode(text).expect("it is a packet"),
        _ => unreachable!("only messages are read here"),
    }
}

fn make(c: &mut Criterion) {
    let text = "x".repeat(TEXT_BYTES);
    assert_eq!(make_ours(&text).websocket(), &make_plain(&text));
    let mut group = c.benchmark_group("make an event of 128 bytes");
    group.bench_function("ours", |b| b.iter(|| make_ours(black_box(&text))));
    group.bench_function("serialize, format, frame", |b| b.iter(|| make_plain(black_box(&text))));
    group.finish();

    let attachments = [Bytes::from(vec![7; 1 << 10]), Bytes::from(vec![8; 1 << 10])];
    let data = r#"["two",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let mut group = c.benchmark_group("an event with two attachments of 1 KB");
    group.bench_function("make", |b| b.iter(|| socketio::event("/", None, black_box(data), &attachments)));
    let prepared = socketio::event("/", None, data, &attachments);
    let mut body = Vec::new();
    group.bench_function("put into a polling payload", |b| {
        b.iter(|| {
            body.clear();
            black_box(&prepared).put_polling(&mut body);
            assert_eq!(body.len(), prepared.polling_len());
        })
    });
    group.finish();
}

fn make_ours(text: &str) -> Prepared {
    let event = args::encode_event("msg", text).expect("a text is JSON");
    socketio::event("/", None, &event.data, &event.attachments)
}

fn make_plain(text: &str) -> Vec<u8> {
    let data = serde_json::to_string(&("msg", text)).expect("a text is JSON");
    let mut frame = Vec::new();
    websocket::put_frame(&mut frame, Opcode::Text, format!("42{data}").as_bytes(), None);
    frame
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = read, make
}
criterion_main!(benches);
