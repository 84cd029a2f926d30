//! Run: one measurement from the first connection to the report; the only one who changes the phase forward on time.
//!
//! ```text
//!     reach ─▶ connect ─▶ warm up ─▶ measure ─▶ drain ─▶ report
//! ```
//!
//! Clients are here, or elsewhere behind links, which stand for their threads; see `remote`.
//!
//! Every wait has a deadline: [`SILENCE`] without progress ends connecting, [`UNHEARD`] the warm-up, [`GRACE`] the
//! drain. An interruption, or a failure while messages are counted, goes to the drain, so that the report is of what
//! was seen so far and messages under way are not called lost.

use crate::board::{Board, Counts, Part, Phase, Seat, Servers};
use crate::clock::{Clock, Nanos};
use crate::crowd::{self, Crowd};
use crate::error::{self, Error};
use crate::kernel;
use crate::marks::Merge;
use crate::output::Output;
use crate::plan::Plan;
use crate::publisher;
use crate::record::{Second, Worker};
use crate::remote::{Left, Link};
use crate::report::Report;
use crate::snapshot::{ServerNow, Snapshot};
use crate::sources::Sources;
use crate::tables;
use crate::tally::Times;
use crate::watch::{self, Sample, ServerWatch, Spent};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Connecting ends when no client became ready for so long.
const SILENCE: Duration = Duration::from_secs(30);
/// The warm-up ends when no client heard its first test message for so long.
const UNHEARD: Duration = Duration::from_secs(10);
/// The drain ends when nothing arrived for so long; what has not come by then is called lost.
pub const GRACE: Duration = Duration::from_secs(5);
/// After the last expected delivery: time for one too many to arrive.
const SETTLE: Duration = Duration::from_millis(250);
/// What a watched server is given to clear up behind clients that have gone, until its memory is looked at again.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// Between the warm-up and the first message: time for the last test message to be over.
const PAUSE: Duration = Duration::from_millis(250);
const STEP: Duration = Duration::from_millis(5);
const SECOND: Nanos = 1_000_000_000;

/// What the threads left behind, those of other generators included.
pub struct Seen {
    pub crowds: Vec<crowd::Outcome>,
    pub workers: Vec<Worker>,
    pub publisher: publisher::Outcome,
    pub notes: Notes,
    pub interrupted: bool,
}

/// The controller's own notes.
#[derive(Clone, Default)]
pub struct Notes {
    /// How long connecting took.
    pub connecting: Nanos,
    /// From the first message to the last delivery.
    pub delivering: Nanos,
    /// What the memory of the process, and of other generators, grew by while connecting, in bytes.
    pub memory: u64,
    /// Clients that were ready.
    pub ready: u32,
    pub seconds: Vec<Second>,
    /// The server before the first connection, when all were there, when the first message was due, after the last
    /// delivery, and [`AFTERWARDS`] after the clients had gone.
    pub server: [Option<Sample>; 5],
    pub server_trouble: Option<String>,
}

/// What clients of this process stand on.
pub struct Ground {
    pub servers: Servers,
    pub sources: Sources,
    /// Of each thread, the numbers of its clients.
    pub crews: Vec<Vec<u32>>,
}

impl Ground {
    /// Room for so many clients. `told` are the addresses that they come from.
    pub fn prepare(plan: &Plan, clients: Range<u32>, told: &[IpAddr]) -> Result<Ground, Error> {
        let what = "the limit of descriptors is not known";
        let table_limit =
            kernel::raise_table_limit().map_err(|error| Error::System { what, cause: error::cause(&error) })?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let crews = tables::crews(plan, clients.clone(), table_limit, cores)?;
        let servers = Servers::reach(plan)?;
        let sources = Sources::choose(servers.first, clients.len() as u32, plan.speech.streams_each(), told)?;
        Ok(Ground { servers, sources, crews })
    }

    /// All the clients are elsewhere.
    fn without_clients(plan: &Plan) -> Result<Ground, Error> {
        Ok(Ground { servers: Servers::reach(plan)?, sources: Sources::Own, crews: Vec::new() })
    }
}

/// Does what the plan says. An error is a run that never came to measure.
pub fn run(plan: Plan, interrupted: &AtomicBool, output: &mut Output) -> Result<Report, Error> {
    let (clock, part) = (Clock::start(), Part::whole(plan.connections));
    let (ground, links) = match &plan.workers {
        None => (Ground::prepare(&plan, part.clients.clone(), &plan.sources)?, Vec::new()),
        Some(workers) => (Ground::without_clients(&plan)?, workers.open(&plan, part.run, clock)?),
    };
    let elsewhere: u32 = links.iter().map(Link::threads).sum();
    let watch = ServerWatch::start(&plan, clock)?;
    let Ground { servers, sources, crews } = ground;
    let threads = crews.len() as u32;
    let board = Board::new(plan, servers, sources, threads + elsewhere, clock, part);
    let gathered = Barrier::new(threads as usize + 1);
    let merge = Merge::new(&board.marks, &board.rooms, &links.iter().map(Link::clients).collect::<Vec<_>>());
    let seen = thread::scope(|scope| {
        let crowds = Crowd::spawn_all(scope, &board, crews, &gathered);
        let mut seats = &board.seats[..elsewhere as usize];
        let links = links.into_iter().map(|link| {
            let (own, rest) = seats.split_at(link.threads() as usize);
            seats = rest;
            scope.spawn(|| link.run(&board, own, &merge))
        });
        let links: Vec<_> = links.collect();
        let publisher = (board.plan.messages > 0).then(|| scope.spawn(|| publisher::run(&board)));
        let mut control = Control::new(&board, watch, interrupted, output);
        control.connect();
        control.warm_up();
        control.measure();
        control.drain();
        let (notes, watch) = control.finish();
        board.enter(Phase::Over);
        let mut seen = Seen {
            crowds: crowds.into_iter().map(|crowd| crowd.join().expect("a panic of a crowd is a bug")).collect(),
            workers: Vec::new(),
            publisher: publisher::Outcome::default(),
            notes,
            interrupted: interrupted.load(Relaxed),
        };
        for link in links {
            let Left { outcomes, worker } = link.join().expect("a panic of a link is a bug");
            seen.crowds.extend(outcomes);
            seen.workers.push(worker);
        }
        if let Some(thread) = publisher {
            seen.publisher = thread.join().expect("a panic of the publisher is a bug");
        }
        if let Some(mut watch) = watch {
            thread::sleep(AFTERWARDS);
            seen.notes.server[4] = watch.fresh_sample();
            seen.notes.server_trouble = watch.trouble();
        }
        seen
    });
    match board.failure() {
        Some(error) if !board.measured() => Err(error),
        failure => Ok(Report::new(&board, seen, failure)),
    }
}

struct Control<'a> {
    board: &'a Board,
    watch: Option<ServerWatch>,
    interrupted: &'a AtomicBool,
    output: &'a mut Output,
    shown: View,
    written: View,
    /// Messages whose last receiver has been seen to, and the times of those.
    complete: u32,
    last: Times,
    /// The longest of those since a second was written.
    longest: Option<Nanos>,
    threads: Vec<Thread>,
    notes: Notes,
}

/// What one of our threads had spent when it was looked at, and the share of its time since the look before.
#[derive(Clone, Default)]
struct Thread {
    cpu: Nanos,
    at: Nanos,
    share: f64,
}

impl Thread {
    fn look(&mut self, seat: &Seat) {
        let (cpu, at) = (seat.cpu.load(Relaxed), seat.looked.load(Relaxed));
        self.share = cpu.saturating_sub(self.cpu) as f64 / at.saturating_sub(self.at).max(1) as f64;
        (self.cpu, self.at) = (cpu, at);
    }
}

/// When something was looked at last, and what it was then.
#[derive(Clone, Copy, Default)]
struct View {
    at: Nanos,
    delivered: u64,
    server: Option<Sample>,
}

impl<'a> Control<'a> {
    fn new(board: &'a Board, watch: Option<ServerWatch>, interrupted: &'a AtomicBool, output: &'a mut Output) -> Self {
        Control {
            board,
            watch,
            interrupted,
            output,
            shown: View::default(),
            written: View::default(),
            complete: 0,
            last: Times::default(),
            longest: None,
            threads: vec![Thread::default(); board.seats.len()],
            notes: Notes::default(),
        }
    }

    fn connect(&mut self) {
        let (began, memory) = (self.board.clock.now(), own_memory());
        self.note_server(0);
        let all = self.board.plan.connections;
        let silent = self.watch(SILENCE, |counts| counts.ready, |counts| counts.ready == all);
        if let Some(ready) = silent {
            self.board.fail(Error::Silent { ready, connections: all, seconds: SILENCE.as_secs() });
        }
        self.notes.connecting = self.board.clock.now() - began;
        let elsewhere: u64 = self.board.seats.iter().map(|seat| seat.memory.load(Relaxed)).sum();
        self.notes.memory = own_memory().saturating_sub(memory) + elsewhere;
        self.notes.ready = self.board.counts().ready;
        self.note_server(1);
    }

    fn warm_up(&mut self) {
        let all = self.board.early();
        if self.board.plan.messages == 0 || all == 0 {
            return;
        }
        self.board.enter(Phase::Warming);
        let unheard = self.watch(UNHEARD, |counts| counts.warm, |counts| counts.warm == all);
        if let Some(heard) = unheard {
            let duty = self.board.plan.speech.duty();
            self.board.fail(Error::Unheard { heard, connections: all, duty, seconds: UNHEARD.as_secs() });
        }
    }

    /// Until everything is published; without messages, for as long as connections are to be held.
    fn measure(&mut self) {
        if self.ended() {
            return;
        }
        self.note_server(2);
        let begin = self.board.clock.now() + PAUSE.as_nanos() as Nanos;
        self.board.measure(begin);
        let (all, plan) = (self.board.plan.connections, &self.board.plan);
        let hold = (plan.messages == 0).then(|| begin + plan.duration.as_nanos() as Nanos);
        while self.board.phase() == Phase::Measuring && !self.ended() && self.board.counts().closed < all {
            if hold.is_some_and(|until| self.board.clock.now() >= until) {
                break;
            }
            self.step();
        }
        self.board.enter(Phase::Draining);
    }

    fn drain(&mut self) {
        self.board.enter(Phase::Draining);
        if self.board.sent() == 0 {
            return;
        }
        let (mut last, mut changed) = (Counts::default(), self.board.clock.now());
        loop {
            let (counts, now) = (self.board.counts(), self.board.clock.now());
            if counts.delivered != last.delivered {
                (last, changed) = (counts, now);
            }
            let quiet = Duration::from_nanos(now - changed);
            let everything = Some(counts.to_audience) == self.board.expected();
            // Of clients that move nobody knows what they are still to receive.
            let moving = self.board.plan.motion.is_some();
            let patience = if everything && !moving || counts.ready == 0 { SETTLE } else { GRACE };
            if quiet >= patience {
                self.notes.delivering = changed.saturating_sub(self.board.begin.load(Relaxed));
                return;
            }
            self.step();
        }
    }

    fn finish(mut self) -> (Notes, Option<ServerWatch>) {
        self.note_server(3);
        self.write_second();
        (self.notes, self.watch)
    }

    fn note_server(&mut self, moment: usize) {
        self.notes.server[moment] = self.watch.as_mut().and_then(ServerWatch::fresh_sample);
    }

    /// Steps until `done`, or until the run is ended. Gives `figure` when it did not change for `patience`.
    fn watch(
        &mut self,
        patience: Duration,
        figure: impl Fn(Counts) -> u32,
        done: impl Fn(Counts) -> bool,
    ) -> Option<u32> {
        let (mut last, mut changed) = (0, self.board.clock.now());
        while !self.ended() {
            let (counts, now) = (self.board.counts(), self.board.clock.now());
            if done(counts) {
                return None;
            }
            if figure(counts) != last {
                (last, changed) = (figure(counts), now);
            }
            if Duration::from_nanos(now - changed) >= patience {
                return Some(last);
            }
            self.step();
        }
        None
    }

    fn ended(&self) -> bool {
        self.interrupted.load(Relaxed) || self.board.failure().is_some()
    }

    // ---- telling

    fn step(&mut self) {
        thread::sleep(STEP);
        let now = self.board.clock.now();
        if now - self.written.at >= SECOND {
            self.write_second();
        }
        if Duration::from_nanos(now - self.shown.at) >= self.output.interval() {
            self.settle_complete();
            let (snapshot, view) = self.snapshot(self.shown);
            self.shown = view;
            self.output.progress(&snapshot);
        }
    }

    fn write_second(&mut self) {
        self.settle_complete();
        self.threads.iter_mut().zip(&self.board.seats).for_each(|(thread, seat)| thread.look(seat));
        let (snapshot, view) = self.snapshot(self.written);
        self.written = view;
        self.notes.seconds.push(Second {
            at_s: snapshot.at as f64 / 1e9,
            phase: snapshot.phase.to_owned(),
            connected: snapshot.connected,
            published: snapshot.published,
            delivered: snapshot.delivered,
            per_second: snapshot.per_second,
            last_max_ms: self.longest.take().map(|delay| delay as f64 / 1e6),
            behind: snapshot.behind.to_vec(),
            server_cpu: snapshot.server.map(|server| server.cpu),
            server_resident: snapshot.server.map(|server| server.resident),
            generator_cpu: Some(snapshot.threads.iter().sum()),
        });
    }

    /// Takes in the messages that have reached everyone since the last call, in order. One that is still missing
    /// somewhere holds up the others, for [`GRACE`] at most.
    fn settle_complete(&mut self) {
        let board = self.board;
        let elapsed = board.elapsed(board.clock.now());
        while self.complete < board.sent() {
            let due = board.schedule.time(self.complete.into());
            match board.marks.of(self.complete).last {
                Some(delay) => {
                    self.last.record(delay);
                    self.longest = self.longest.max(Some(delay));
                }
                None if board.rooms.audience(board.rooms.room(self.complete)) == 0 => {}
                None if elapsed < due + GRACE.as_nanos() as Nanos => break,
                None => {}
            }
            self.complete += 1;
        }
    }

    fn snapshot(&mut self, before: View) -> (Snapshot, View) {
        let (board, counts, now) = (self.board, self.board.counts(), self.board.clock.now());
        let server = self.watch.as_mut().and_then(ServerWatch::sample);
        let view = View { at: now, delivered: counts.delivered, server };
        let since = (now - before.at).max(1) as f64 / 1e9;
        let (sent, plan) = (board.sent(), &board.plan);
        let phase = board.phase();
        let share = |part: u32, whole: u32| Some(f64::from(part) / f64::from(whole.max(1)));
        let snapshot = Snapshot {
            at: now,
            phase: phase.name(),
            progress: match phase {
                Phase::Connecting => share(counts.ready, plan.connections),
                Phase::Warming => share(counts.warm, board.early()),
                Phase::Measuring if plan.messages > 0 => share(sent, plan.messages),
                Phase::Measuring => Some(board.elapsed(now) as f64 / plan.duration.as_nanos() as f64),
                Phase::Draining | Phase::Over => None,
            },
            connections: plan.connections,
            connected: counts.ready,
            warm: counts.warm,
            closed: counts.closed,
            published: sent,
            messages: plan.messages,
            delivered: counts.delivered,
            under_way: board.expected().map_or(0, |expected| expected.saturating_sub(counts.to_audience)),
            per_second: ((counts.delivered - before.delivered) as f64 / since) as u64,
            behind: counts.behind,
            last: Some(self.last.clone()),
            doubled: counts.faults[0],
            reordered: counts.faults[1],
            stray: counts.faults[2],
            server: server.map(|sample| ServerNow {
                cpu: before.server.and_then(|before| Spent::between(before, sample)).map_or(0.0, |spent| spent.cores()),
                resident: sample.resident,
            }),
            threads: self.threads.iter().map(|thread| thread.share).collect(),
            late: board.late.load(Relaxed),
        };
        (snapshot, view)
    }
}

/// The process's memory in bytes; zero where it is not told.
pub fn own_memory() -> u64 {
    watch::resident_bytes("self").unwrap_or(0)
}
