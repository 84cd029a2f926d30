//! Service: an agent's end of the connection, and the part of a run that it does.
//!
//! ```text
//!     prepare ─▶ tell how many threads ─▶ crowds run as in a local run, phases as they are told ─▶ outcomes
//! ```
//!
//! A coordinator that is gone, or silent, ends the run: the clients are closed and nothing is left of it.

use super::lines::Lines;
use super::protocol::{Answer, Counts, Job, MARKS_MAX, Order, PREPARE, SILENCE, TELL, Tell, WAIT};
use super::trouble::Trouble;
use crate::board::{Board, Part, Phase};
use crate::clock::{Clock, Nanos};
use crate::crowd::{Crowd, Outcome};
use crate::error::Error;
use crate::marks::Micros;
use crate::options::Options;
use crate::plan::Plan;
use crate::run::{self, GRACE, Ground};
use crate::units::count;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub struct Service<'a> {
    pub lines: &'a mut Lines,
    /// Local addresses that clients come from, where they were told.
    pub sources: &'a [IpAddr],
    pub interrupted: &'a AtomicBool,
}

/// The next line, which has to come within `patience`, unless the agent is to end.
pub fn expect<T: DeserializeOwned>(
    lines: &mut Lines,
    patience: Duration,
    interrupted: &AtomicBool,
) -> Result<T, Trouble> {
    let until = Instant::now() + patience;
    loop {
        if let Some(value) = lines.next(WAIT)? {
            return Ok(value);
        }
        if interrupted.load(Relaxed) {
            return Err(Trouble::Interrupted);
        }
        if Instant::now() >= until {
            return Err(Trouble::Silent { seconds: patience.as_secs() });
        }
    }
}

impl Service<'_> {
    /// One run, from the comparison of clocks on. `say` is for whoever looks at the agent.
    pub fn serve(mut self, say: impl Fn(&str)) -> Result<(), Trouble> {
        let clock = Clock::start();
        let job = loop {
            match self.expect(SILENCE)? {
                Order::Ping => self.lines.put(&Answer::Pong(clock.now()))?,
                Order::Run(job) => break job,
                Order::Tell(_) => return Err(Trouble::Foreign),
            }
        };
        let clock = clock.set_back(job.clock_ahead);
        let (board, crews) = match prepare(job, self.sources, clock) {
            Ok(prepared) => prepared,
            Err(error) => {
                say(&error.to_string());
                return self.lines.put(&Answer::Failed(error.to_string()));
            }
        };
        self.lines.put(&Answer::Prepared { threads: crews.len() as u32 })?;
        let Order::Tell(first) = self.expect(PREPARE)? else { return Err(Trouble::Foreign) };
        let (part, plan) = (&board.part, &board.plan);
        let [from, to, all] = [part.clients.start, part.clients.end - 1, plan.connections].map(|n| count(n.into()));
        say(&format!("clients {from} to {to} of {all}, of {}", plan.target.url()));
        self.run(&board, crews, first)?;
        say("done");
        // The clocks are compared again, until the coordinator has seen enough and closes.
        loop {
            match self.expect(SILENCE) {
                Ok(Order::Ping) => self.lines.put(&Answer::Pong(clock.now()))?,
                Ok(Order::Tell(_)) => {}
                Ok(Order::Run(_)) => return Err(Trouble::Foreign),
                Err(Trouble::Gone(_)) => return Ok(()),
                Err(trouble) => return Err(trouble),
            }
        }
    }

    fn expect(&mut self, patience: Duration) -> Result<Order, Trouble> {
        expect(self.lines, patience, self.interrupted)
    }

    fn run(&mut self, board: &Board, crews: Vec<Vec<u32>>, first: Tell) -> Result<(), Trouble> {
        let (mut teller, gathered) = (Teller::new(board, crews.len()), Barrier::new(crews.len() + 1));
        board.follow(first.phase, first.begin, first.sent);
        let outcomes: Vec<Outcome> = thread::scope(|scope| {
            let crowds = Crowd::spawn_all(scope, board, crews, &gathered);
            let end = self.follow(board, &mut teller);
            if end == Err(Trouble::Interrupted) {
                // It may be gone as well.
                drop(self.lines.put(&Answer::Failed(Trouble::Interrupted.to_string())));
            }
            board.enter(Phase::Over);
            let outcomes = crowds.into_iter().map(|crowd| crowd.join().expect("a panic of a crowd is a bug")).collect();
            end.map(|()| outcomes)
        })?;
        teller.tell_rest(self.lines)?;
        outcomes.into_iter().try_for_each(|outcome| self.lines.put(&Answer::Outcome(Box::new(outcome))))?;
        self.lines.put(&Answer::Done)
    }

    /// Until the run is over, or the coordinator is gone.
    fn follow(&mut self, board: &Board, teller: &mut Teller<'_>) -> Result<(), Trouble> {
        let mut heard = Instant::now();
        loop {
            match self.lines.next(WAIT)? {
                Some(Order::Tell(Tell { phase, begin, sent, refused })) => {
                    heard = Instant::now();
                    board.refusals.note(&refused);
                    board.follow(phase, begin, sent);
                    if phase == Phase::Over {
                        return Ok(());
                    }
                }
                Some(_) => return Err(Trouble::Foreign),
                None if heard.elapsed() >= SILENCE => return Err(Trouble::Silent { seconds: SILENCE.as_secs() }),
                None => {}
            }
            if self.interrupted.load(Relaxed) {
                return Err(Trouble::Interrupted);
            }
            teller.tell_if_due(self.lines)?;
        }
    }
}

/// What this machine needs for its part, and what it knows of the run.
fn prepare(job: Job, sources: &[IpAddr], clock: Clock) -> Result<(Board, Vec<Vec<u32>>), Error> {
    let plan = Plan::with_scenario(Options::from_words(&job.words)?, job.scenario)?;
    let (first, end) = job.clients;
    if first >= end || end > plan.connections {
        let problem = format!("clients {first} to {end} are no part of {}", plan.connections);
        return Err(Error::Option { option: "--workers", problem });
    }
    let Ground { servers, sources, crews } = Ground::prepare(&plan, first..end, sources)?;
    let part = Part { clients: first..end, run: job.run };
    Ok((Board::new(plan, servers, sources, crews.len() as u32, clock, part), crews))
}

/// Tells the coordinator what the board knows.
struct Teller<'a> {
    board: &'a Board,
    threads: usize,
    /// The process's memory before the first connection, in bytes.
    memory: u64,
    told: Instant,
    failed: bool,
    /// The first message whose marks were not told, and those before it that were passed over, because somebody still
    /// waits for them.
    next: u32,
    passed_over: Vec<u32>,
}

impl<'a> Teller<'a> {
    fn new(board: &'a Board, threads: usize) -> Teller<'a> {
        Teller {
            board,
            threads,
            memory: run::own_memory(),
            told: Instant::now(),
            failed: false,
            next: 0,
            passed_over: Vec::new(),
        }
    }

    fn tell_if_due(&mut self, lines: &mut Lines) -> Result<(), Trouble> {
        if self.told.elapsed() < TELL {
            return Ok(());
        }
        self.told = Instant::now();
        self.tell_counts(lines)?;
        let marks = self.new_marks();
        if !marks.is_empty() {
            lines.put(&Answer::Marks(marks))?;
        }
        if let Some(error) = self.board.failure().filter(|_| !self.failed) {
            self.failed = true;
            lines.put(&Answer::Failed(error.to_string()))?;
        }
        Ok(())
    }

    /// When the threads have ended: their last counts, and the marks that are left, reached or not.
    fn tell_rest(&mut self, lines: &mut Lines) -> Result<(), Trouble> {
        self.tell_counts(lines)?;
        let board = self.board;
        let left = std::mem::take(&mut self.passed_over).into_iter().chain(self.next..board.sent());
        let marks: Vec<_> = left.filter(|message| self.awaited(*message)).map(|m| (m, board.marks.micros(m))).collect();
        marks.chunks(MARKS_MAX).try_for_each(|marks| lines.put(&Answer::Marks(marks.to_vec())))
    }

    fn tell_counts(&self, lines: &mut Lines) -> Result<(), Trouble> {
        let threads = self.board.seats[..self.threads].iter().map(Counts::of).collect();
        lines.put(&Answer::Counts { threads, memory: run::own_memory().saturating_sub(self.memory) })
    }

    /// Of the messages that have reached everyone here since the last call, in order. One that is still missing
    /// somewhere holds up the others, for [`GRACE`] at most.
    fn new_marks(&mut self) -> Vec<(u32, Micros)> {
        let (board, mut marks) = (self.board, Vec::new());
        let elapsed = board.elapsed(board.clock.now());
        while marks.len() < MARKS_MAX && self.next < board.sent() {
            let (message, micros) = (self.next, board.marks.micros(self.next));
            let overdue = elapsed >= board.schedule.time(message.into()) + GRACE.as_nanos() as Nanos;
            // All of them: a thread that has just counted the last receiver may be ahead of one that writes a mark.
            match micros.iter().all(|mark| *mark > 0) {
                true => marks.push((message, micros)),
                false if !self.awaited(message) => {}
                false if overdue => self.passed_over.push(message),
                false => break,
            }
            self.next += 1;
        }
        marks
    }

    /// Whether the message waits for a client of ours.
    fn awaited(&self, message: u32) -> bool {
        self.board.audience(self.board.rooms.room(message)) > 0
    }
}
