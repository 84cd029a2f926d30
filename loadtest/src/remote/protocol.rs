//! Protocol: what coordinator and agent say to each other, a line each.
//!
//! ```text
//!     coordinator                                 agent
//!     hello (version, key)               ─▶
//!                                        ◀─       hello (version), or why not
//!     ping × 32                          ◀▶       pong (its clock)
//!     run (flags, scenario, its part)    ─▶
//!                                        ◀─       prepared (threads), or failed
//!     tell (phase, begin, sent), always  ─▶
//!                                        ◀─       counts, always; marks; failed
//!     tell (over)                        ─▶
//!                                        ◀─       marks, an outcome per thread, done
//!     ping × 32                          ◀▶       pong
//! ```
//!
//! Compatibility: none. Both sides run the same loadtest, and [`VERSION`] rises with every change here, or in what the
//! flags of a run mean. Only `hello` is understood by all versions.

use crate::board::{Phase, Seat};
use crate::clock::Nanos;
use crate::crowd::Outcome;
use crate::marks::Micros;
use crate::scenario;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub const VERSION: u32 = 2;

/// How often each side speaks while the run is on.
pub const TELL: Duration = Duration::from_millis(50);
/// How long a turn waits for the other side at most: phases change without waking anybody.
pub const WAIT: Duration = Duration::from_millis(10);
/// A side that said nothing for so long, although it should, is not there.
pub const SILENCE: Duration = Duration::from_secs(10);
/// How long the other generators of the run may take to prepare themselves.
pub const PREPARE: Duration = Duration::from_secs(60);
/// Messages whose marks are told in one line at most.
pub const MARKS_MAX: usize = 4096;

/// The first line of each side. Fields that are not known are not looked at.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Hello {
    /// The version that is spoken.
    pub loadtest: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why this ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What the coordinator says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    Ping,
    Run(Job),
    Tell(Tell),
}

/// An agent's part of a run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The flags of the run.
    pub words: Vec<String>,
    /// The file that `--scenario` named.
    pub scenario: Option<scenario::Text>,
    /// Tells its stamps from those of another run.
    pub run: u32,
    /// The numbers of the agent's clients: from the first to before the second.
    pub clients: (u32, u32),
    /// How far the agent's clock is ahead.
    pub clock_ahead: i64,
}

/// Where the run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tell {
    pub phase: Phase,
    /// When the first message is due; zero before that is known.
    pub begin: Nanos,
    /// Messages published so far.
    pub sent: u32,
    /// Those among them that the server would not take, and that were not told before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<u32>,
}

/// What an agent says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    Pong(Nanos),
    Prepared { threads: u32 },
    Counts { threads: Vec<Counts>, memory: u64 },
    Marks(Vec<(u32, Micros)>),
    Failed(String),
    Outcome(Box<Outcome>),
    Done,
}

/// A [`Seat`] as it is right now.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    ready: u32,
    warm: u32,
    closed: u32,
    moves: u32,
    delivered: u64,
    to_audience: u64,
    faults: [u64; 3],
    behind: [u32; 6],
    cpu: u64,
    looked: u64,
}

impl Counts {
    pub fn of(seat: &Seat) -> Counts {
        Counts {
            ready: seat.ready.load(Relaxed),
            warm: seat.warm.load(Relaxed),
            closed: seat.closed.load(Relaxed),
            moves: seat.moves.load(Relaxed),
            delivered: seat.delivered.load(Relaxed),
            to_audience: seat.to_audience.load(Relaxed),
            faults: seat.faults.each_ref().map(|fault: &AtomicU64| fault.load(Relaxed)),
            behind: seat.behind.each_ref().map(|clients: &AtomicU32| clients.load(Relaxed)),
            cpu: seat.cpu.load(Relaxed),
            looked: seat.looked.load(Relaxed),
        }
    }

    pub fn write(&self, seat: &Seat) {
        seat.ready.store(self.ready, Relaxed);
        seat.warm.store(self.warm, Relaxed);
        seat.closed.store(self.closed, Relaxed);
        seat.moves.store(self.moves, Relaxed);
        seat.delivered.store(self.delivered, Relaxed);
        seat.to_audience.store(self.to_audience, Relaxed);
        seat.faults.iter().zip(self.faults).for_each(|(seat, fault)| seat.store(fault, Relaxed));
        seat.behind.iter().zip(self.behind).for_each(|(seat, clients)| seat.store(clients, Relaxed));
        seat.cpu.store(self.cpu, Relaxed);
        seat.looked.store(self.looked, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ending;
    use crate::tally::Example;

    fn through_json(answer: &Answer) -> Answer {
        serde_json::from_str(&serde_json::to_string(answer).expect("it is JSON")).expect("it is an answer")
    }

    #[test]
    fn an_outcome_arrives_as_it_was() {
        let mut outcome = Outcome { moved: 3, refused: 2, ended: 1, ..Outcome::default() };
        (1..=10_000).for_each(|step| outcome.tally.delivery.record(step * step * 1_000));
        outcome.tally.doubled.note(7, Example { client: 5, message: 9 });
        (outcome.health.cpu, outcome.health.waited) = (0.5, 12);
        outcome.closed = Some((4, Ending::Closed(Some(1001))));
        let Answer::Outcome(read) = through_json(&Answer::Outcome(Box::new(outcome.clone()))) else {
            panic!("it is an outcome")
        };
        assert_eq!(read.tally.delivery.histogram(), outcome.tally.delivery.histogram());
        assert_eq!((read.tally.doubled.count, read.tally.doubled.example), (7, outcome.tally.doubled.example));
        assert_eq!((read.health.cpu, read.health.waited), (0.5, 12));
        assert_eq!((read.moved, read.refused, read.ended), (3, 2, 1));
        let closed = read.closed.map(|(client, ending)| (client, ending.to_string()));
        assert_eq!(closed, Some((4, "the server closed with code 1001".to_owned())));
    }

    #[test]
    fn a_seat_is_told_whole() {
        let (there, here) = (Seat::default(), Seat::default());
        (1..).zip(&there.behind).for_each(|(number, clients)| clients.store(number, Relaxed));
        there.delivered.store(u64::MAX, Relaxed);
        there.looked.store(8, Relaxed);
        let text = serde_json::to_string(&Counts::of(&there)).expect("it is JSON");
        serde_json::from_str::<Counts>(&text).expect("it was written so").write(&here);
        assert_eq!(Counts::of(&here), Counts::of(&there));
    }

    #[test]
    fn what_is_not_known_is_refused_except_in_a_greeting() {
        let hello: Hello = serde_json::from_str(r#"{"loadtest":7,"colour":"red"}"#).expect("any version is understood");
        assert_eq!(hello.loadtest, 7);
        for text in [r#"{"jump":1}"#, r#"{"tell":{"phase":"over","begin":0,"sent":0,"more":1}}"#, r#""pong""#] {
            assert!(serde_json::from_str::<Order>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Order>(r#"{"tell":{"phase":"over","begin":0,"sent":0}}"#).is_ok());
    }
}
