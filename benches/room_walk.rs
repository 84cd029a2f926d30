//! Room walk: what does it cost to reach the members of a room, and what do rooms that overlap cost?
//!
//! The question: a broadcast looks up its rooms once and then visits every member: its socket, its session, one step of
//! the run (src/shard/runs.rs). Does a member cost the same in a small house and in one that no cache holds, and what
//! does it cost that a socket in two of the rooms, or in an excepted one, must be passed over?
//!
//! - `dense`: everybody is in the room.
//! - `sparse`: every tenth socket is, so that no two members are neighbours in memory.
//! - `in two rooms`: everybody is in both rooms of the target, and receives once.
//! - `except`: everybody is in the room, every second one also in a room that is excepted.
//!
//! An element is one visit of a member, passed over or not; an excepted room is visited too. Only the walk is measured:
//! the write step that a turn would end with follows each walk while the clock stands.
//!
//!     cargo bench --bench room_walk

mod support;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use fanfare::bench::{Crowd, Target};
use fanfare::proto::{Prepared, socketio};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SOCKETS: [usize; 2] = [1_000, 100_000];

fn room_walk(c: &mut Criterion) {
    for sockets in SOCKETS {
        let mut group = c.benchmark_group(format!("walk over {sockets} sockets"));
        let all = Visits { reached: sockets, passed_over: 0 };
        walk(&mut group, "dense", sockets, |_| &["all"], &target(&["all"], &[]), all);

        let tenth = |socket| -> &[&str] { if socket % 10 == 0 { &["some"] } else { &[] } };
        let some = Visits { reached: sockets / 10, passed_over: 0 };
        walk(&mut group, "sparse", sockets, tenth, &target(&["some"], &[]), some);

        let twice = Visits { reached: sockets, passed_over: sockets };
        walk(&mut group, "in two rooms", sockets, |_| &["one", "two"], &target(&["one", "two"], &[]), twice);

        let half = |socket| -> &[&str] { if socket % 2 == 0 { &["all", "half"] } else { &["all"] } };
        // The excepted are visited in their own room, and again in the target's.
        let rest = Visits { reached: sockets / 2, passed_over: sockets };
        walk(&mut group, "except", sockets, half, &target(&["all"], &["half"]), rest);
        group.finish();
    }
}

struct Visits {
    reached: usize,
    passed_over: usize,
}

fn walk(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    sockets: usize,
    rooms: impl Fn(usize) -> &'static [&'static str],
    target: &Target,
    visits: Visits,
) {
    let mut crowd = Crowd::new(sockets, rooms);
    let packet = packet();
    group.throughput(Throughput::Elements((visits.reached + visits.passed_over) as u64));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::from_parameter(name), |b| {
        b.iter_custom(|walks| {
            let mut spent = Duration::ZERO;
            for _ in 0..walks {
                let start = Instant::now();
                let reached = crowd.broadcast(black_box(target), &packet);
                spent += start.elapsed();
                assert_eq!(reached, visits.reached);
                crowd.write();
            }
            spent
        })
    });
}

fn target(rooms: &[&str], except: &[&str]) -> Target {
    let names = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
    Target { namespace: "/".into(), rooms: names(rooms), except: names(except), ..Target::default() }
}

fn packet() -> Arc<Prepared> {
    Arc::new(socketio::event("/", None, r#"["tick",1]"#, &[]))
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = room_walk
}
criterion_main!(benches);
