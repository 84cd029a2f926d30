//! Outbox: what does a client cost that is behind, and what does laying packets end to end cost?
//!
//! The question: what a stream does not take waits in its session's outbox. Ours keep references to shared segments
//! (src/shard/outbox.rs); the plain way, which most servers go, is a byte buffer for each session into which every
//! frame is copied. Small frames are cheap to copy and a list of references has its own costs: from what size on are
//! references worth it? A thousand sessions are behind on the same four packets, of 128 bytes and of 16 KB.
//!
//! - `append`: each packet becomes backlog of every session.
//! - `advance`: the backlog leaves in writes of a third of a frame, as through a narrow stream.
//! - `end to end`: sixteen packets that wait for the same sessions become what is written or kept: for small ones one
//!   copy of all, for large ones sixteen references. It happens once for all sessions, so the plain way has no such
//!   step.
//!
//! An element is one packet for one session; in `end to end` one packet.
//!
//!     cargo bench --bench outbox

mod support;

use bytes::{Buf as _, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::bench::{Chains, Outbox, Runs};
use fanfare::proto::Prepared;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

const SESSIONS: usize = 1_000;
const PACKETS: usize = 4;
const LAID_OUT_PACKETS: usize = 16;
const SIZES: [usize; 2] = [128, 16 << 10];

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append to 1,000 backlogs");
    group.throughput(Throughput::Elements((SESSIONS * PACKETS) as u64));
    for bytes in SIZES {
        let packet = packet(bytes);
        group.bench_function(BenchmarkId::new("shared segments", bytes), |b| {
            b.iter_batched_ref(Waiting::default, |waiting| waiting.fall_behind(&packet), BatchSize::PerIteration)
        });
        let copied = || vec![BytesMut::new(); SESSIONS];
        group.bench_function(BenchmarkId::new("a buffer per session", bytes), |b| {
            b.iter_batched_ref(copied, |buffers| copy_behind(buffers, &packet), BatchSize::PerIteration)
        });
    }
    group.finish();
}

fn advance(c: &mut Criterion) {
    let mut group = c.benchmark_group("advance 1,000 backlogs");
    group.throughput(Throughput::Elements((SESSIONS * PACKETS) as u64));
    for bytes in SIZES {
        let packet = packet(bytes);
        let write_bytes_max = packet.websocket().len().div_ceil(3);
        let shared = || {
            let mut waiting = Waiting::default();
            waiting.fall_behind(&packet);
            waiting
        };
        group.bench_function(BenchmarkId::new("shared segments", bytes), |b| {
            b.iter_batched_ref(shared, |waiting| waiting.catch_up(write_bytes_max), BatchSize::PerIteration)
        });
        let copied = || {
            let mut buffers = vec![BytesMut::new(); SESSIONS];
            copy_behind(&mut buffers, &packet);
            buffers
        };
        group.bench_function(BenchmarkId::new("a buffer per session", bytes), |b| {
            b.iter_batched_ref(copied, |buffers| drain(buffers, write_bytes_max), BatchSize::PerIteration)
        });
    }
    group.finish();
}

fn end_to_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("16 packets end to end");
    group.throughput(Throughput::Elements(LAID_OUT_PACKETS as u64));
    for bytes in SIZES {
        let packet = packet(bytes);
        let waiting = || {
            let (mut runs, mut outbox) = (Runs::default(), Outbox::default());
            (0..LAID_OUT_PACKETS).for_each(|_| runs.step(&packet).extend(&mut outbox.run));
            (runs, outbox)
        };
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter_batched_ref(
                waiting,
                |(runs, outbox)| {
                    let (mut chains, mut backlog) = (Chains::default(), VecDeque::new());
                    let (bytes, _) = runs.put_behind(outbox.run, &mut chains, &mut backlog, 0);
                    assert_eq!(bytes, LAID_OUT_PACKETS * packet.websocket().len());
                    (chains, backlog)
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}

fn packet(bytes: usize) -> Arc<Prepared> {
    Arc::new(Prepared::message(&"x".repeat(bytes)))
}

/// What a shard has for those who wait.
struct Waiting {
    runs: Runs,
    chains: Chains,
    outboxes: Vec<Outbox>,
}

impl Default for Waiting {
    fn default() -> Self {
        let outboxes = (0..SESSIONS).map(|_| Outbox::default()).collect();
        Waiting { runs: Runs::default(), chains: Chains::default(), outboxes }
    }
}

impl Waiting {
    /// A turn for each packet, whose write finds every stream full.
    fn fall_behind(&mut self, packet: &Arc<Prepared>) {
        let Waiting { runs, chains, outboxes } = self;
        for _ in 0..PACKETS {
            let mut step = runs.step(packet);
            outboxes.iter_mut().for_each(|outbox| step.extend(&mut outbox.run));
            outboxes.iter_mut().for_each(|outbox| outbox.keep(runs, chains, 0, 0));
        }
    }

    fn catch_up(&mut self, write_bytes_max: usize) {
        let Waiting { chains, outboxes, .. } = self;
        for outbox in outboxes {
            let mut packets = 0;
            while let Some(front) = outbox.front(chains) {
                let written = black_box(front).len().min(write_bytes_max);
                packets += outbox.advance(chains, written);
            }
            assert_eq!(packets, PACKETS);
        }
    }
}

fn copy_behind(buffers: &mut [BytesMut], packet: &Arc<Prepared>) {
    for _ in 0..PACKETS {
        buffers.iter_mut().for_each(|buffer| buffer.extend_from_slice(packet.websocket()));
    }
}

fn drain(buffers: &mut [BytesMut], write_bytes_max: usize) {
    for buffer in buffers {
        while !buffer.is_empty() {
            let written = black_box(&buffer[..]).len().min(write_bytes_max);
            buffer.advance(written);
        }
    }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = append, advance, end_to_end
}
criterion_main!(benches);
