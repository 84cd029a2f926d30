//! Link: the coordinator's end of the connection to one agent; a thread, in the place of the agent's threads of clients.
//!
//! It tells the agent where the run is, writes the agent's counts into the seats of its threads, and ends with their
//! outcomes. An agent that fails, falls silent or goes away ends the run, with what its seats had so far.
//!
//! Limits: [`REACH_TIMEOUT`] to connect, [`ROUNDS`] to compare clocks, and those of `protocol`.

use super::lines::Lines;
use super::offset::Offset;
use super::protocol::{Answer, Hello, Job, Order, PREPARE, SILENCE, TELL, Tell, VERSION, WAIT};
use super::{Key, Trouble, error};
use crate::board::{Board, Phase, Seat};
use crate::clock::{Clock, Nanos};
use crate::crowd::Outcome;
use crate::error::{Error, cause};
use crate::marks::Merge;
use crate::record::Worker;
use crate::tables::THREADS_MAX;
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// Enough that one of them meets no queue, and over in a blink.
const ROUNDS: u32 = 32;

pub struct Link {
    address: String,
    lines: Lines,
    clients: Range<u32>,
    threads: u32,
    clock: Clock,
    /// As it was before the run.
    offset: Offset,
}

/// What an agent left behind.
pub struct Left {
    pub outcomes: Vec<Outcome>,
    pub worker: Worker,
}

impl Link {
    /// Finds the agent willing and prepared for its part of the run.
    pub fn open(address: &str, key: Option<&Key>, job: Job, clock: Clock) -> Result<Link, Error> {
        Link::try_open(address, key, job, clock).map_err(|trouble| error(address, trouble))
    }

    fn try_open(address: &str, key: Option<&Key>, job: Job, clock: Clock) -> Result<Link, Trouble> {
        let mut lines = Lines::new(reach(address)?)?;
        greet(&mut lines, key)?;
        let offset = compare_clocks(&mut lines, clock)?;
        let clients = job.clients.0..job.clients.1;
        lines.put(&Order::Run(Job { clock_ahead: offset.ahead, ..job }))?;
        match lines.expect(PREPARE)? {
            Answer::Prepared { threads } if (1..=THREADS_MAX).contains(&u64::from(threads)) => {
                Ok(Link { address: address.to_owned(), lines, clients, threads, clock, offset })
            }
            Answer::Failed(reason) => Err(Trouble::Refused(reason)),
            _ => Err(Trouble::Foreign),
        }
    }

    /// How many threads the agent has for its clients.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    pub fn clients(&self) -> Range<u32> {
        self.clients.clone()
    }

    /// Runs until the run is over. `seats` are those of the agent's threads.
    pub fn run(mut self, board: &Board, seats: &[Seat], merge: &Merge<'_>) -> Left {
        let (outcomes, drift) = match self.follow(board, seats, merge) {
            Ok(outcomes) => (outcomes, compare_clocks(&mut self.lines, self.clock)),
            Err(trouble) => (seats.iter().map(seen_so_far).collect(), Err(trouble)),
        };
        let drift = drift.unwrap_or_else(|trouble| {
            board.fail(error(&self.address, last_words(&mut self.lines, trouble)));
            Offset { ahead: 0, uncertainty: 0 }
        });
        self.lines.close();
        let worker = Worker {
            address: self.address,
            connections: self.clients.len() as u32,
            offset_ms: drift.ahead as f64 / 1e6,
            uncertainty_ms: self.offset.uncertainty.max(drift.uncertainty) as f64 / 1e6,
        };
        Left { outcomes, worker }
    }

    fn follow(&mut self, board: &Board, seats: &[Seat], merge: &Merge<'_>) -> Result<Vec<Outcome>, Trouble> {
        let mut outcomes = Vec::new();
        let mut heard = self.clock.now();
        let mut told: Option<(Phase, Nanos)> = None;
        let mut refused = 0;
        loop {
            let (phase, now) = (board.phase(), self.clock.now());
            if told.is_none_or(|(last, at)| last != phase || now >= at + TELL.as_nanos() as Nanos) {
                let fresh = board.refusals.from(refused);
                refused += fresh.len();
                let (begin, sent) = (board.begin.load(Relaxed), board.sent());
                self.lines.put(&Order::Tell(Tell { phase, begin, sent, refused: fresh }))?;
                told = Some((phase, now));
            }
            match self.lines.next(WAIT)? {
                None if now >= heard + SILENCE.as_nanos() as Nanos => {
                    return Err(Trouble::Silent { seconds: SILENCE.as_secs() });
                }
                None => continue,
                Some(Answer::Counts { threads, memory }) if threads.len() == seats.len() => {
                    threads.iter().zip(seats).for_each(|(counts, seat)| counts.write(seat));
                    seats[0].memory.store(memory, Relaxed);
                }
                Some(Answer::Marks(marks)) => {
                    for (message, micros) in marks {
                        merge.take(message, micros).ok_or(Trouble::Foreign)?;
                    }
                }
                Some(Answer::Failed(reason)) => board.fail(error(&self.address, Trouble::Refused(reason))),
                Some(Answer::Outcome(outcome)) if outcomes.len() < seats.len() => outcomes.push(*outcome),
                Some(Answer::Done) if outcomes.len() == seats.len() => return Ok(outcomes),
                Some(_) => return Err(Trouble::Foreign),
            }
            heard = now;
        }
    }
}

fn reach(address: &str) -> Result<TcpStream, Trouble> {
    let addresses = address.to_socket_addrs().map_err(|error| Trouble::Unreachable(cause(&error)))?;
    let mut trouble = Trouble::Unreachable("no address".to_owned());
    for address in addresses {
        match TcpStream::connect_timeout(&address, REACH_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = Trouble::Unreachable(cause(&error)),
        }
    }
    Err(trouble)
}

fn greet(lines: &mut Lines, key: Option<&Key>) -> Result<(), Trouble> {
    lines.put(&Hello { loadtest: VERSION, key: key.map(|key| key.text().to_owned()), refused: None })?;
    let hello: Hello = lines.expect(SILENCE)?;
    match hello.refused {
        _ if hello.loadtest != VERSION => Err(Trouble::Version { theirs: hello.loadtest, ours: VERSION }),
        Some(reason) => Err(Trouble::Refused(reason)),
        None => {
            lines.trust();
            Ok(())
        }
    }
}

/// The best of several rounds. What comes between them is not for us.
fn compare_clocks(lines: &mut Lines, clock: Clock) -> Result<Offset, Trouble> {
    let mut best: Option<Offset> = None;
    for _ in 0..ROUNDS {
        let sent = clock.now();
        lines.put(&Order::Ping)?;
        let Answer::Pong(theirs) = lines.expect(SILENCE)? else { return Err(Trouble::Foreign) };
        let round = Offset::of_round(sent, theirs, clock.now());
        best = Some(best.map_or(round, |best| best.best(round)));
    }
    Ok(best.expect("there was a round"))
}

/// Who goes away may have said why, and we may have noticed only that it does not listen.
fn last_words(lines: &mut Lines, trouble: Trouble) -> Trouble {
    loop {
        match lines.next(Duration::ZERO) {
            Ok(Some(Answer::Failed(reason))) => return Trouble::Refused(reason),
            Ok(Some(_)) => {}
            _ => return trouble,
        }
    }
}

/// What the seat of a thread that is gone says: its counts, without times and examples; its clients are gone too.
fn seen_so_far(seat: &Seat) -> Outcome {
    seat.ready.store(0, Relaxed);
    let mut outcome = Outcome::default();
    let tally = &mut outcome.tally;
    (tally.delivered, tally.to_audience) = (seat.delivered.load(Relaxed), seat.to_audience.load(Relaxed));
    for (fault, count) in [&mut tally.doubled, &mut tally.reordered, &mut tally.stray].into_iter().zip(&seat.faults) {
        fault.count = count.load(Relaxed);
    }
    outcome.moved = seat.moves.load(Relaxed).into();
    outcome
}
