//! Fan-out: what does a broadcast cost before the kernel, and do runs earn their keep?
//!
//! The question: how much of a delivery is ours? The kernel takes 6 to 9 µs of it (a bare `send(2)` loop on loopback), or
//! about 1 µs when 16 broadcasts leave in one write; ours should stay far below. And a run (shard/runs.rs) is cleverer
//! than a queue: is the plain way slow enough to justify it?
//!
//! The plain way, written here: each session has a `VecDeque<Arc<Prepared>>`; a broadcast pushes, a write gathers what
//! waits into one buffer, unless it is a single packet. It walks plain memory with nothing else in it: no room to look
//! up, no socket between room and session, no limits, no counters. So it is flattered.
//!
//! Both hand their bytes to a wire that takes everything and does nothing.
//!
//! The last group asks the same while a second core fans out the same packet to its own 10,000: a queue's references are
//! counted in the packet, which both cores then write to; a run counts its users in its own shard. It needs two idle
//! cores: on a busy machine it measures who gets one.
//!
//!     cargo bench --bench fan_out

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanfare::args;
use fanfare::bench::{Crowd, Target};
use fanfare::proto::{Prepared, socketio};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SOCKETS: usize = 10_000;
const ROOM: &str = "room";

fn fan_out(c: &mut Criterion) {
    for broadcasts in [1, 16] {
        let mut group = c.benchmark_group(format!("{broadcasts} broadcast(s) to 10,000 sockets"));
        group.throughput(Throughput::Elements((broadcasts * SOCKETS) as u64));

        let (mut room, everybody) = (Crowd::new(SOCKETS, |_| &[ROOM]), everybody());
        group.bench_function("runs", |b| {
            b.iter(|| {
                for _ in 0..broadcasts {
                    assert_eq!(room.broadcast(&everybody, &black_box(packet())), SOCKETS);
                }
                room.write()
            })
        });

        let mut queues = Queues::new(SOCKETS);
        group.bench_function("a queue per session", |b| {
            b.iter(|| {
                for _ in 0..broadcasts {
                    queues.broadcast(&black_box(packet()));
                }
                queues.write()
            })
        });
        group.finish();
    }
}

fn on_two_cores(c: &mut Criterion) {
    let mut group = c.benchmark_group("1 broadcast to 10,000 sockets, beside another core");
    group.throughput(Throughput::Elements(SOCKETS as u64));
    let packet = packet();
    let runs = || {
        let (mut room, everybody, packet) = (Crowd::new(SOCKETS, |_| &[ROOM]), everybody(), &packet);
        move || {
            assert_eq!(room.broadcast(&everybody, packet), SOCKETS);
            room.write()
        }
    };
    let queues = || {
        let (mut queues, packet) = (Queues::new(SOCKETS), &packet);
        move || {
            queues.broadcast(packet);
            queues.write()
        }
    };
    beside(runs, |turn| _ = group.bench_function("runs", |b| b.iter(&mut *turn)));
    beside(queues, |turn| _ = group.bench_function("a queue per session", |b| b.iter(&mut *turn)));
    group.finish();
}

/// Measures turns while another thread takes turns of its own.
fn beside<T: FnMut() -> usize>(make: impl Fn() -> T + Sync, measure: impl FnOnce(&mut T)) {
    let measured = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut turn = make();
            while !measured.load(Ordering::Relaxed) {
                black_box(turn());
            }
        });
        measure(&mut make());
        measured.store(true, Ordering::Relaxed);
    });
}

fn everybody() -> Target {
    Target { namespace: "/".into(), rooms: vec![ROOM.into()], ..Target::default() }
}

/// Encoded anew each time, as a broadcast is: a 128-byte text.
fn packet() -> Arc<Prepared> {
    let event = args::encode_event("msg", &"x".repeat(128)).expect("a text is JSON");
    Arc::new(socketio::event("/", None, &event.data, &event.attachments))
}

/// The plain way.
struct Queues {
    waiting: Vec<VecDeque<Arc<Prepared>>>,
    dirty: Vec<usize>,
    gathered: Vec<u8>,
    bytes: usize,
}

impl Queues {
    fn new(sessions: usize) -> Queues {
        let waiting = (0..sessions).map(|_| VecDeque::new()).collect();
        Queues { waiting, dirty: Vec::new(), gathered: Vec::new(), bytes: 0 }
    }

    fn broadcast(&mut self, packet: &Arc<Prepared>) {
        for (session, queue) in self.waiting.iter_mut().enumerate() {
            if queue.is_empty() {
                self.dirty.push(session);
            }
            queue.push_back(Arc::clone(packet));
        }
    }

    fn write(&mut self) -> usize {
        for session in self.dirty.drain(..) {
            let queue = &mut self.waiting[session];
            if let [only] = queue.make_contiguous() {
                self.bytes += black_box(&only.websocket()[..]).len();
            } else {
                self.gathered.clear();
                queue.iter().for_each(|packet| self.gathered.extend_from_slice(packet.websocket()));
                self.bytes += black_box(&self.gathered[..]).len();
            }
            queue.clear();
        }
        self.bytes
    }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = fan_out, on_two_cores
}
criterion_main!(benches);
