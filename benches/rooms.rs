//! Rooms: what do many rooms cost, those of one socket and those of a whole house?
//!
//! The question: does joining, leaving or sending become dearer with the number of rooms that a socket is in, or with the
//! number of rooms that there are? Whoever leaves a room makes another member change its place, and that member may be
//! in many rooms, too; so here two sockets are always in the same rooms, and the first to leave moves the second.
//!
//! - `join and leave`: both join so many rooms, one by one, and leave them, one by one. An element is one join and one
//!   leave.
//! - `leave all`: one of the two leaves all its rooms at once, as a socket does that disconnects. An element is a room.
//! - `broadcast to one of`: rooms of ten, every socket in ten of them; one broadcast to a room, each time another one,
//!   and its write. An element is a broadcast.
//! - `broadcasts, then one write`: 16,000 sockets in rooms of 100, each in ten of them; so many broadcasts, each to
//!   another room, wait until all is written, as on a worker that is behind. Hardly two sockets are owed the same, so
//!   there is next to nothing to share. An element is a delivery.
//!
//!     cargo bench --bench rooms

mod support;

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use fanfare::bench::{Crowd, Target};
use fanfare::proto::socketio;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rooms of one socket; the last is the default of `rooms_per_socket_max`.
const OF_ONE: [usize; 4] = [1, 10, 1_000, 10_000];
/// Rooms of a house.
const OF_ALL: [usize; 3] = [100, 10_000, 100_000];
const MEMBERS: usize = 10;

fn join_and_leave(c: &mut Criterion) {
    let mut group = c.benchmark_group("join and leave");
    group.sampling_mode(SamplingMode::Flat);
    for count in OF_ONE {
        let (mut crowd, names) = (Crowd::new(2, |_| &[]), names(count));
        group.throughput(Throughput::Elements(2 * count as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{count} rooms")), |b| {
            b.iter(|| {
                both_join(&mut crowd, &names);
                (0..2).for_each(|socket| names.iter().for_each(|name| crowd.leave(socket, name)));
            })
        });
    }
    group.finish();
}

fn leave_all(c: &mut Criterion) {
    let mut group = c.benchmark_group("leave all");
    group.sampling_mode(SamplingMode::Flat);
    for count in OF_ONE {
        let (mut crowd, names) = (Crowd::new(2, |_| &[]), names(count));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{count} rooms")), |b| {
            b.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    both_join(&mut crowd, &names);
                    let start = Instant::now();
                    crowd.leave_all(0);
                    spent += start.elapsed();
                    crowd.leave_all(1);
                }
                spent
            })
        });
    }
    group.finish();
}

fn broadcast(c: &mut Criterion) {
    let mut group = c.benchmark_group("broadcast to one of");
    group.throughput(Throughput::Elements(1));
    for count in OF_ALL {
        let (mut crowd, names) = (Crowd::new(count, |_| &[]), names(count));
        // Members are spread over the house: neighbours in a room are no neighbours in memory.
        for (room, name) in names.iter().enumerate() {
            (0..MEMBERS).for_each(|member| crowd.join((room * 7919 + member * count / MEMBERS) % count, name));
        }
        let packet = Arc::new(socketio::event("/", None, r#"["tick",1]"#, &[]));
        let targets: Vec<_> = names.iter().map(|name| target(name)).collect();
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(format!("{count} rooms")), |b| {
            b.iter_batched(
                || {
                    turn += 1;
                    &targets[turn * 31 % count]
                },
                |target| {
                    assert_eq!(crowd.broadcast(target, &packet), MEMBERS);
                    crowd.write()
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}

fn behind(c: &mut Criterion) {
    const SOCKETS: usize = 16_000;
    const IN_EACH: usize = 100;
    const ROOMS: usize = SOCKETS * MEMBERS / IN_EACH;
    let (mut crowd, names) = (Crowd::new(SOCKETS, |_| &[]), names(ROOMS));
    let mut rng = StdRng::seed_from_u64(1);
    for name in &names {
        sample(&mut rng, SOCKETS, IN_EACH).into_iter().for_each(|socket| crowd.join(socket, name));
    }
    let packet = Arc::new(socketio::event("/", None, r#"["tick",1]"#, &[]));
    let targets: Vec<_> = names.iter().map(|name| target(name)).collect();
    let mut group = c.benchmark_group("broadcasts, then one write");
    group.sampling_mode(SamplingMode::Flat);
    for broadcasts in [10, 100, 1_600, 16_000] {
        group.throughput(Throughput::Elements((broadcasts * IN_EACH) as u64));
        group.bench_function(BenchmarkId::from_parameter(broadcasts), |b| {
            b.iter(|| {
                for target in targets.iter().cycle().take(broadcasts) {
                    assert_eq!(crowd.broadcast(target, &packet), IN_EACH);
                }
                crowd.write()
            })
        });
    }
    group.finish();
}

fn both_join(crowd: &mut Crowd, names: &[String]) {
    names.iter().for_each(|name| (0..2).for_each(|socket| crowd.join(socket, name)));
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|room| format!("room-{room}")).collect()
}

fn target(room: &str) -> Target {
    Target { namespace: "/".into(), rooms: vec![room.into()], ..Target::default() }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = join_and_leave, leave_all, broadcast, behind
}
criterion_main!(benches);
