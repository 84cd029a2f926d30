//! Board: what the threads of a run know of each other: the phase, the counts so far, the first failure.
//!
//! Numbers only. Descriptors, clients and histograms stay with their thread until it ends.

use crate::clock::{Clock, Nanos};
use crate::error::Error;
use crate::plan::Plan;
use crate::ranks::Ranks;
use crate::session::Words;
use crate::sources::Sources;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clients connect and join.
    Connecting,
    /// Uncounted messages are published, until each client has had one.
    Warming,
    /// Messages are published on schedule, and counted.
    Measuring,
    /// Nothing more is published; what is under way may arrive.
    Draining,
    Over,
}

pub struct Board {
    pub plan: Plan,
    pub words: Words,
    pub server: SocketAddr,
    pub sources: Sources,
    pub clock: Clock,
    pub ranks: Ranks,
    /// Tells our stamps from those of another run.
    pub run: u32,
    pub seats: Vec<Seat>,
    /// Messages published so far.
    pub sent: AtomicU32,
    /// When the first message is due; meaningful from `Measuring` on.
    pub begin: AtomicU64,
    phase: AtomicU8,
    failure: Mutex<Option<Error>>,
}

/// The counts of one thread, written by it alone, once per turn. Apart by a cache line, so that threads do not slow
/// each other.
#[derive(Default)]
#[repr(align(128))]
pub struct Seat {
    pub ready: AtomicU32,
    pub warm: AtomicU32,
    pub closed: AtomicU32,
    pub delivered: AtomicU64,
}

/// The sum of all seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub ready: u32,
    pub warm: u32,
    pub closed: u32,
    pub delivered: u64,
}

impl Board {
    pub fn new(plan: Plan, server: SocketAddr, sources: Sources, threads: u32) -> Board {
        let words = Words::new(&plan.target.host(), &plan.target.path, &plan.namespace, plan.room.as_deref());
        let ranks = Ranks::new(plan.messages, plan.connections);
        // The process and the time together: two runs on one server at once must differ, nothing else.
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let run = std::process::id() ^ time.subsec_nanos().rotate_left(7);
        Board {
            plan,
            words,
            server,
            sources,
            clock: Clock::start(),
            ranks,
            run,
            seats: (0..threads).map(|_| Seat::default()).collect(),
            sent: AtomicU32::new(0),
            begin: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Connecting as u8),
            failure: Mutex::new(None),
        }
    }

    pub fn phase(&self) -> Phase {
        let phases = [Phase::Connecting, Phase::Warming, Phase::Measuring, Phase::Draining, Phase::Over];
        phases[usize::from(self.phase.load(Acquire))]
    }

    /// Goes on to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Release);
    }

    /// Starts to measure: the first message is due at `begin`.
    pub fn measure(&self, begin: Nanos) {
        self.begin.store(begin, Relaxed);
        self.enter(Phase::Measuring);
    }

    /// The first failure is kept: the others mostly follow from it.
    pub fn fail(&self, error: Error) {
        self.failure.lock().expect("nobody panics while holding it").get_or_insert(error);
    }

    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().expect("nobody panics while holding it").clone()
    }

    pub fn counts(&self) -> Counts {
        self.seats.iter().fold(Counts::default(), |sum, seat| Counts {
            ready: sum.ready + seat.ready.load(Relaxed),
            warm: sum.warm + seat.warm.load(Relaxed),
            closed: sum.closed + seat.closed.load(Relaxed),
            delivered: sum.delivered + seat.delivered.load(Relaxed),
        })
    }

    pub fn sent(&self) -> u32 {
        self.sent.load(Relaxed)
    }
}
