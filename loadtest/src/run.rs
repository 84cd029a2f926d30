//! Run: one measurement from the first connection to the report; the only one who changes the phase forward on time.
//!
//! ```text
//!     reach ─▶ connect ─▶ warm up ─▶ measure ─▶ drain ─▶ report
//! ```
//!
//! Every wait has a deadline: [`SILENCE`] without progress ends connecting, [`UNHEARD`] the warm-up, [`GRACE`] the
//! drain. An interruption, or a failure while messages are counted, goes to the drain, so that the report is of what
//! was seen so far and messages under way are not called lost.

use crate::board::{Board, Counts, Phase};
use crate::clock::Nanos;
use crate::crowd::{self, Crowd};
use crate::error::{self, Error};
use crate::kernel;
use crate::output::Output;
use crate::plan::Plan;
use crate::publisher;
use crate::report::Report;
use crate::sources::Sources;
use crate::tables;
use crate::units::count;
use crate::watch::{self, Sample, ServerWatch, Spent};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Connecting ends when no client became ready for so long.
const SILENCE: Duration = Duration::from_secs(30);
/// The warm-up ends when no client heard its first test message for so long.
const UNHEARD: Duration = Duration::from_secs(10);
/// The drain ends when nothing arrived for so long; what has not come by then is called lost.
const GRACE: Duration = Duration::from_secs(5);
/// After the last expected delivery: time for one too many to arrive.
const SETTLE: Duration = Duration::from_millis(250);
/// Between the warm-up and the first message: time for the last test message to be over.
const PAUSE: Duration = Duration::from_millis(250);
const STEP: Duration = Duration::from_millis(5);

/// What the threads left behind.
pub struct Seen {
    pub crowds: Vec<crowd::Outcome>,
    pub publisher: publisher::Outcome,
    pub times: Times,
    pub interrupted: bool,
    pub server: Option<Server>,
}

/// What watching the server gave.
pub struct Server {
    /// From before the first message to after the last delivery.
    pub spent: Option<Spent>,
    /// The most memory that was seen, in bytes.
    pub resident_max: Option<u64>,
    pub trouble: Option<String>,
}

/// The controller's own notes.
#[derive(Clone, Copy, Default)]
pub struct Times {
    /// How long connecting took.
    pub connecting: Nanos,
    /// From the first message to the last delivery.
    pub delivering: Nanos,
    /// What the process's memory grew by while connecting, in bytes.
    pub memory: u64,
    /// Clients that were ready.
    pub ready: u32,
}

/// Does what the plan says. An error is a run that never came to measure.
pub fn run(plan: Plan, interrupted: &AtomicBool, output: &mut Output) -> Result<Report, Error> {
    let cause = |error: std::io::Error| Error::System {
        what: "the limit of descriptors is not known",
        cause: error::cause(&error),
    };
    let table_limit = kernel::raise_table_limit().map_err(cause)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = tables::threads(plan.connections, table_limit, cores)?;
    let server = plan.target.reach()?;
    let sources = Sources::choose(server, plan.connections)?;
    let board = Board::new(plan, server, sources, threads);
    let watch = ServerWatch::start(&board.plan, board.clock)?;
    let gathered = Barrier::new(threads as usize + 1);
    let seen = thread::scope(|scope| {
        let crowds: Vec<_> = (0..threads)
            .map(|number| {
                let share = tables::share(board.plan.connections, threads, number);
                let (board, gathered) = (&board, &gathered);
                scope.spawn(move || Crowd::new(board, number, share).run(gathered))
            })
            .collect();
        // Nothing is opened before every crowd has its own table: it would be copied into them and never close.
        gathered.wait();
        let publisher = scope.spawn(|| publisher::run(&board));
        let mut control = Control {
            board: &board,
            interrupted,
            output,
            watch,
            resident_max: None,
            shown: 0,
            shown_delivered: 0,
            times: Times::default(),
        };
        control.connect();
        control.warm_up();
        let before = control.sample(ServerWatch::fresh_sample);
        control.measure();
        control.drain();
        let server = control.server(before);
        let times = control.times;
        board.enter(Phase::Over);
        let crowds = crowds.into_iter().map(|crowd| crowd.join().expect("a panic of a crowd is a bug")).collect();
        let publisher = publisher.join().expect("a panic of the publisher is a bug");
        Seen { crowds, publisher, times, interrupted: interrupted.load(Relaxed), server }
    });
    match board.failure() {
        Some(error) if board.sent() == 0 => Err(error),
        failure => Ok(Report::new(&board, seen, failure)),
    }
}

struct Control<'a> {
    board: &'a Board,
    interrupted: &'a AtomicBool,
    output: &'a mut Output,
    watch: Option<ServerWatch>,
    resident_max: Option<u64>,
    /// When progress was shown last, and how many deliveries there were then.
    shown: Nanos,
    shown_delivered: u64,
    times: Times,
}

impl Control<'_> {
    fn connect(&mut self) {
        let (began, memory) = (self.board.clock.now(), watch::resident_bytes("self").unwrap_or(0));
        let all = self.board.plan.connections;
        let silent = self.watch(SILENCE, |counts| counts.ready, |counts| counts.ready == all);
        if let Some(ready) = silent {
            self.board.fail(Error::Silent { ready, connections: all, seconds: SILENCE.as_secs() });
        }
        self.times.connecting = self.board.clock.now() - began;
        self.times.memory = watch::resident_bytes("self").unwrap_or(0).saturating_sub(memory);
        self.times.ready = self.board.counts().ready;
    }

    fn warm_up(&mut self) {
        self.board.enter(Phase::Warming);
        let all = self.board.plan.connections;
        let unheard = self.watch(UNHEARD, |counts| counts.warm, |counts| counts.warm == all);
        if let Some(heard) = unheard {
            let way = self.board.plan.way();
            self.board.fail(Error::Unheard { heard, connections: all, way, seconds: UNHEARD.as_secs() });
        }
    }

    fn measure(&mut self) {
        if self.ended() {
            return;
        }
        self.board.measure(self.board.clock.now() + PAUSE.as_nanos() as Nanos);
        let all = self.board.plan.connections;
        while self.board.phase() == Phase::Measuring && !self.ended() && self.board.counts().closed < all {
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
            let expected = u64::from(self.board.sent()) * u64::from(self.board.plan.connections);
            let patience = if counts.delivered == expected || counts.ready == 0 { SETTLE } else { GRACE };
            if quiet >= patience {
                self.times.delivering = changed.saturating_sub(self.board.begin.load(Relaxed));
                return;
            }
            self.step();
        }
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

    fn step(&mut self) {
        thread::sleep(STEP);
        let now = self.board.clock.now();
        let since = Duration::from_nanos(now - self.shown);
        if since < self.output.interval() {
            return;
        }
        let counts = self.board.counts();
        let per_second = (counts.delivered - self.shown_delivered) as f64 / since.as_secs_f64();
        (self.shown, self.shown_delivered) = (now, counts.delivered);
        self.output.progress(&progress(self.board, now, counts, per_second));
        self.sample(ServerWatch::sample);
    }

    fn sample(&mut self, take: fn(&mut ServerWatch) -> Option<Sample>) -> Option<Sample> {
        let sample = take(self.watch.as_mut()?)?;
        self.resident_max = self.resident_max.max(Some(sample.resident));
        Some(sample)
    }

    /// What the server spent since `before`.
    fn server(&mut self, before: Option<Sample>) -> Option<Server> {
        let after = self.sample(ServerWatch::fresh_sample);
        let spent = before.zip(after).and_then(|(before, after)| Spent::between(before, after));
        let trouble = self.watch.as_ref()?.trouble();
        Some(Server { spent, resident_max: self.resident_max, trouble })
    }
}

fn progress(board: &Board, now: Nanos, counts: Counts, per_second: f64) -> String {
    let (all, seconds) = (board.plan.connections, now / 1_000_000_000);
    let connected = format!("{seconds:4} s  connected {} of {}", count(counts.ready.into()), count(all.into()));
    if board.phase() < Phase::Measuring {
        let test = if board.phase() == Phase::Warming {
            format!("  heard a test {}", count(counts.warm.into()))
        } else {
            String::new()
        };
        return connected + &test;
    }
    let sent = board.sent();
    let missing = (u64::from(sent) * u64::from(all)).saturating_sub(counts.delivered);
    format!(
        "{connected}  published {}  delivered {}  per second {}  under way {}",
        count(sent.into()),
        count(counts.delivered),
        count(per_second as u64),
        count(missing)
    )
}
