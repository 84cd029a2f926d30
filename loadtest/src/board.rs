//! Board: what the threads of a run know of each other: the phase, the counts so far, the first failure.
//!
//! Numbers only. Descriptors, clients and histograms stay with their thread until it ends.

use crate::clock::{Clock, Nanos};
use crate::error::Error;
use crate::health::Spent;
use crate::marks::Marks;
use crate::plan::Plan;
use crate::refusals::Refusals;
use crate::rooms::Rooms;
use crate::schedule::Schedule;
use crate::session::Words;
use crate::snapshot::Behind;
use crate::sources::Sources;
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Connecting => "connecting",
            Phase::Warming => "warming",
            Phase::Measuring => "measuring",
            Phase::Draining | Phase::Over => "draining",
        }
    }
}

/// The part of a run that this process knows of.
#[derive(Clone, Debug)]
pub struct Part {
    /// The numbers of its clients among all.
    pub clients: Range<u32>,
    /// Tells our stamps from those of another run.
    pub run: u32,
}

impl Part {
    /// All of a new run.
    pub fn whole(connections: u32) -> Part {
        // The process and the time together: two runs on one server at once must differ, nothing else.
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Part { clients: 0..connections, run: std::process::id() ^ time.subsec_nanos().rotate_left(7) }
    }
}

/// The addresses that answer: of the server, and of the one that clients go on to.
pub struct Servers {
    pub first: SocketAddr,
    pub then: SocketAddr,
}

impl Servers {
    /// Where there is no second server, it is the first.
    pub fn reach(plan: &Plan) -> Result<Servers, Error> {
        let first = plan.target.reach()?;
        Ok(Servers { first, then: plan.then.as_ref().map_or(Ok(first), Target::reach)? })
    }
}

/// A server as clients know it: where it is, and what they say to it.
pub struct Place {
    pub server: SocketAddr,
    pub words: Words,
}

pub struct Board {
    pub plan: Plan,
    pub part: Part,
    places: [Place; 2],
    pub sources: Sources,
    pub clock: Clock,
    pub rooms: Rooms,
    pub schedule: Schedule,
    pub marks: Marks,
    /// Of each room, for how many clients of ours a message waits.
    audience: Vec<u32>,
    /// One for each thread of clients; the last one is the publisher's.
    pub seats: Vec<Seat>,
    /// Messages published so far, and how late the newest was.
    pub sent: AtomicU32,
    pub late: AtomicU64,
    /// Those among them that the server would not take.
    pub refusals: Refusals,
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
    /// Clients that are there now; that have heard a test message; that the server ended; that moved.
    pub ready: AtomicU32,
    pub warm: AtomicU32,
    pub closed: AtomicU32,
    pub moves: AtomicU32,
    /// Clients that are on their way back. Threads of this process ask each other; it is not told to other generators.
    pub returning: AtomicU32,
    /// First deliveries to all clients, and to those that stay.
    pub delivered: AtomicU64,
    pub to_audience: AtomicU64,
    /// Doubled, reordered, stray.
    pub faults: [AtomicU64; 3],
    pub behind: [AtomicU32; 6],
    /// How long the thread ran, all in all, and when that was looked at.
    pub cpu: AtomicU64,
    pub looked: AtomicU64,
    /// Of another process's first thread: what the memory of the process has grown by, in bytes.
    pub memory: AtomicU64,
}

/// The sum of all seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub ready: u32,
    pub warm: u32,
    pub closed: u32,
    pub moves: u32,
    pub delivered: u64,
    pub to_audience: u64,
    pub faults: [u64; 3],
    pub behind: Behind,
}

impl Seat {
    /// Tells how long the calling thread, whose seat it is, has run so far.
    pub fn tell_cpu(&self, now: Nanos) {
        self.cpu.store(Spent::now().map_or(0, Spent::running), Relaxed);
        self.looked.store(now, Relaxed);
    }
}

impl Board {
    pub fn new(plan: Plan, servers: Servers, sources: Sources, threads: u32, clock: Clock, part: Part) -> Board {
        let then = plan.then.as_ref().unwrap_or(&plan.target);
        let places = [(servers.first, &plan.target), (servers.then, then)].map(|(server, target)| {
            let words = Words::new(&target.host(), &target.path, &plan.speech);
            Place { server, words }
        });
        let rooms = Rooms::new(plan.room.as_deref(), &plan.layout, plan.motion, plan.connections, plan.seed);
        Board {
            places,
            sources,
            clock,
            audience: rooms.audience_among(part.clients.clone()),
            rooms,
            schedule: plan.schedule(),
            marks: Marks::new(plan.messages),
            plan,
            part,
            seats: (0..=threads).map(|_| Seat::default()).collect(),
            sent: AtomicU32::new(0),
            late: AtomicU64::new(0),
            refusals: Refusals::default(),
            begin: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Connecting as u8),
            failure: Mutex::new(None),
        }
    }

    /// The server that clients are at; or, if they have moved, the one that they went on to.
    pub fn place(&self, moved: bool) -> &Place {
        &self.places[usize::from(moved)]
    }

    /// Whether the run has come as far as to count.
    pub fn measured(&self) -> bool {
        self.begin.load(Relaxed) > 0
    }

    pub fn phase(&self) -> Phase {
        let phases = [Phase::Connecting, Phase::Warming, Phase::Measuring, Phase::Draining, Phase::Over];
        phases[usize::from(self.phase.load(Acquire))]
    }

    /// Goes on to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Release);
    }

    /// Comes to where the run is elsewhere.
    pub fn follow(&self, phase: Phase, begin: Nanos, sent: u32) {
        self.begin.store(begin, Relaxed);
        self.sent.store(sent, Relaxed);
        self.enter(phase);
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
        self.seats.iter().fold(Counts::default(), |mut sum, seat| {
            sum.ready += seat.ready.load(Relaxed);
            sum.warm += seat.warm.load(Relaxed);
            sum.closed += seat.closed.load(Relaxed);
            sum.moves += seat.moves.load(Relaxed);
            sum.delivered += seat.delivered.load(Relaxed);
            sum.to_audience += seat.to_audience.load(Relaxed);
            sum.faults.iter_mut().zip(&seat.faults).for_each(|(sum, faults)| *sum += faults.load(Relaxed));
            sum.behind.iter_mut().zip(&seat.behind).for_each(|(sum, clients)| *sum += clients.load(Relaxed));
            sum
        })
    }

    /// Clients that are in their rooms from the beginning: all but those that join late.
    pub fn early(&self) -> u32 {
        let early = |client: &u32| self.plan.motion.is_none_or(|motion| !motion.joins_late(*client));
        (0..self.plan.connections).filter(early).count() as u32
    }

    /// The messages of `room`, by their numbers in it, that the server would not take.
    pub fn unpublished(&self, room: u32) -> Vec<u32> {
        let of_room = |message: &u32| self.rooms.room(*message) == room;
        self.refusals.from(0).into_iter().filter(of_room).map(|message| self.rooms.sequence(message)).collect()
    }

    /// Deliveries that there should be by now, to clients that stay. Where messages have keys nobody knows.
    pub fn expected(&self) -> Option<u64> {
        (self.plan.keys == 0).then(|| self.rooms.expected(self.sent()).saturating_sub(self.refused_deliveries()))
    }

    /// Deliveries, to clients that stay, that there were not to be because the server would not take their messages.
    pub fn refused_deliveries(&self) -> u64 {
        let audience = |message| u64::from(self.rooms.audience(self.rooms.room(message)));
        self.refusals.from(0).into_iter().map(audience).sum()
    }

    /// Whether any client of this process is on its way back.
    pub fn returning(&self) -> bool {
        self.seats.iter().any(|seat| seat.returning.load(Relaxed) > 0)
    }

    /// For how many clients of ours a message to `room` waits.
    pub fn audience(&self, room: u32) -> u32 {
        self.audience[room as usize]
    }

    /// How long messages have been published; zero before the first is due.
    pub fn elapsed(&self, now: Nanos) -> Nanos {
        if self.phase() < Phase::Measuring { 0 } else { now.saturating_sub(self.begin.load(Relaxed)) }
    }

    pub fn sent(&self) -> u32 {
        self.sent.load(Relaxed)
    }
}
