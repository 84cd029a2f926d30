//! Event: should incoming events go through a faster JSON library, or through a tree of values?
//!
//! The question: what does it cost to get from a packet's text to the event's name and its typed arguments, for events
//! of 20, 128 and 500 bytes? Our path checks the text, finds the name, and decodes the arguments into the handler's own
//! type. A tree of values is what most servers build, and simd-json is known for large documents.
//!
//! - `ours, typed`: what `on_event("say", |socket, message: Message| …)` costs before the handler runs.
//! - `ours, passed on`: the same with `Args`, for a relay that does not look.
//! - `serde_json tree`, `simd-json tree`: a value for everything, the name read from it; the type is still to come.
//! - `simd-json typed`: straight into the name and the type, without the protocol's rules and without forgiving extra
//!   arguments. As fast as it goes.
//!
//! And the name alone, which is what a server needs that only looks for the handler, or passes the event on:
//!
//! - `ours, name`: the scan, which proves the rest valid JSON and leaves it as it came.
//! - `serde_json, name`: the name borrowed, the rest ignored.
//! - `simd-json, name`: its tape, the name borrowed from it.
//!
//! simd-json destroys its input, so it works on a copy; its buffers and its tape are kept, as a server would.
//!
//!     cargo bench --bench event

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fanfare::args::{self, Args};
use fanfare::proto::socketio::{self, Packet};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use simd_json::Tape;
use simd_json::prelude::*;
use std::hint::black_box;

/// What a game would send: four numbers, two words, and a text that fills the event up.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Message {
    id: u64,
    from: String,
    at: (f64, f64),
    kind: String,
    text: String,
}

const SHORT: &str = r#"2["say","hello you"]"#;
const HEAD: &str = r#"2["say",{"id":73012,"from":"Ada","at":[12.5,-3.75],"kind":"chat","text":""#;
const TAIL: &str = r#""}]"#;

fn filled_up(bytes: usize) -> String {
    let words = "the quick brown fox jumps over the lazy dog ";
    let text: String = words.chars().cycle().take(bytes - HEAD.len() - TAIL.len()).collect();
    format!("{HEAD}{text}{TAIL}")
}

fn decode_events(c: &mut Criterion) {
    assert_eq!(SHORT.len(), 20);
    decode_event::<String>(c, SHORT);
    for bytes in [128, 500] {
        decode_event::<Message>(c, &filled_up(bytes));
    }
}

fn decode_event<T: DeserializeOwned>(c: &mut Criterion, packet: &str) {
    let mut group = c.benchmark_group("event to name and arguments");
    let bytes = packet.len();
    let name_is_right = |name: &str| assert_eq!(black_box(name), "say");

    group.bench_function(BenchmarkId::new("ours, typed", bytes), |b| {
        b.iter(|| {
            let (name, data) = event(black_box(packet));
            name_is_right(name);
            args::decode_event::<T>(data, &[]).expect("it is one")
        })
    });
    group.bench_function(BenchmarkId::new("ours, passed on", bytes), |b| {
        b.iter(|| {
            let (name, data) = event(black_box(packet));
            name_is_right(name);
            args::decode_event::<Args>(data, &[]).expect("it is one")
        })
    });
    group.bench_function(BenchmarkId::new("serde_json tree", bytes), |b| {
        b.iter(|| {
            let tree: serde_json::Value = serde_json::from_str(&black_box(packet)[1..]).expect("it is JSON");
            name_is_right(tree[0].as_str().expect("the name comes first"));
            tree
        })
    });

    let mut copy = Vec::new();
    let mut buffers = simd_json::Buffers::new(bytes);
    group.bench_function(BenchmarkId::new("simd-json tree", bytes), |b| {
        b.iter(|| {
            refill(&mut copy, black_box(packet));
            let tree = simd_json::to_borrowed_value_with_buffers(&mut copy, &mut buffers).expect("it is JSON");
            name_is_right(tree[0].as_str().expect("the name comes first"));
            black_box(&tree);
        })
    });
    group.bench_function(BenchmarkId::new("simd-json typed", bytes), |b| {
        b.iter(|| {
            refill(&mut copy, black_box(packet));
            let (name, message): (String, T) =
                simd_json::serde::from_slice_with_buffers(&mut copy, &mut buffers).expect("it is one");
            name_is_right(&name);
            message
        })
    });
    group.finish();
}

fn find_names(c: &mut Criterion) {
    for packet in [SHORT.to_owned(), filled_up(128), filled_up(500)] {
        find_name(c, &packet);
    }
}

fn find_name(c: &mut Criterion, packet: &str) {
    let mut group = c.benchmark_group("event to name");
    let bytes = packet.len();
    group.bench_function(BenchmarkId::new("ours, name", bytes), |b| {
        b.iter(|| assert_eq!(event(black_box(packet)).0, "say"))
    });
    group.bench_function(BenchmarkId::new("serde_json, name", bytes), |b| {
        b.iter(|| {
            let (name, IgnoredAny): (&str, _) = serde_json::from_str(&black_box(packet)[1..]).expect("it is one");
            assert_eq!(name, "say");
        })
    });
    let mut copy = Vec::new();
    let mut buffers = simd_json::Buffers::new(bytes);
    let mut kept: Option<Tape<'static>> = None;
    group.bench_function(BenchmarkId::new("simd-json, name", bytes), |b| {
        b.iter(|| {
            refill(&mut copy, black_box(packet));
            let mut tape = kept.take().unwrap_or_else(Tape::null).reset();
            simd_json::fill_tape(&mut copy, &mut buffers, &mut tape).expect("it is JSON");
            let name = tape.as_value().as_array().and_then(|event| event.get(0)).and_then(|name| name.into_string());
            assert_eq!(name, Some("say"));
            kept = Some(tape.reset());
        })
    });
    group.finish();
}

fn event(packet: &str) -> (&str, &str) {
    match socketio::decode(packet) {
        Ok(Packet::Event { name: std::borrow::Cow::Borrowed(name), data, .. }) => (name, data),
        _ => unreachable!("it is an event with a plain name"),
    }
}

fn refill(copy: &mut Vec<u8>, packet: &str) {
    copy.clear();
    copy.extend_from_slice(&packet.as_bytes()[1..]);
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = decode_events, find_names
}
criterion_main!(benches);
