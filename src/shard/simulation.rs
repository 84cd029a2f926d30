//! Simulation: the whole multi-core server in one test, from one seed.
//!
//! Several shards are driven exactly as workers drive them, against a fake network, hundreds of clients of every temper
//! and an application that does whatever an application may do. An oracle knows who should have received what.
//!
//! ```text
//!   clients ── network ── shards ── embedder
//!       ╰────────── oracle ───────────╯
//! ```
//!
//! `FANFARE_SIM_SEED=7` runs exactly that seed, with `FANFARE_SIM_TRACE=1` telling what happens;
//! `FANFARE_SIM_RUNS=5000` runs that many seeds. A failure prints its seed.

mod client;
mod embedder;
mod feeds;
mod meter;
mod network;
mod oracle;
mod world;

use crate::proto::fuzzing::{Confession, number};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};
use world::{Summary, World};

const RUNS_DEFAULT: u64 = 200;

#[test]
fn every_promise_holds_for_every_seed() {
    if let Some(seed) = number("FANFARE_SIM_SEED") {
        let summary = run(seed);
        return eprintln!("{summary:#?}");
    }
    // Asked for by number, the seeds are new ones each time; else the same as ever.
    let (first, runs) = match number("FANFARE_SIM_RUNS") {
        Some(runs) => (rand::random::<u32>().into(), runs),
        None => (1, RUNS_DEFAULT),
    };
    let next = AtomicU64::new(first);
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_run_to_the_byte() {
    for seed in [1, 2, 3] {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn windows_and_retained_events_come_to_every_limit_that_they_have() {
    let counters = [1, 2, 3, 4, 5, 6, 7, 8].map(|seed| run(seed).counters);
    assert!(counters.iter().any(|counters| counters.conflated_in_windows > 0));
    assert!(counters.iter().any(|counters| counters.windows_full > 0));
    assert!(counters.iter().any(|counters| counters.caught_up > 0));
    assert!(counters.iter().any(|counters| counters.retained_forgotten > 0));
}

fn run(seed: u64) -> Summary {
    let _confession = Confession(format!("FANFARE_SIM_SEED={seed}"));
    World::new(seed, env::var_os("FANFARE_SIM_TRACE").is_some()).run()
}
