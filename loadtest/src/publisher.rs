//! Publisher: one thread that publishes on schedule, whatever the server does.
//!
//! Message number i is due at begin + i ÷ rate and is stamped with that time, also when it leaves later. One stream for
//! all of them, requests one behind the other without waiting for answers: order is kept, and a slow answer delays
//! nothing.

use crate::board::{Board, Phase};
use crate::clock::Nanos;
use crate::error::{self, Error};
use crate::frame::{self, Opcode};
use crate::health::Health;
use crate::http;
use crate::options::Publish;
use crate::ramp::Ramp;
use crate::session::{Session, Stage, Words};
use crate::socketio;
use crate::stamp::{Stamp, WARM_UP};
use crate::tally::Times;
use crate::wire::Wire;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Test messages come at this interval, doubled each time up to the second one: enough for a small run to begin at
/// once, and not more than a large one can carry.
const WARM_MIN: Nanos = 200_000_000;
const WARM_MAX: Nanos = 2_000_000_000;
/// How long a wait lasts at most: phases change without waking anybody.
const WAIT_MAX: Nanos = 20_000_000;
/// Below this a sleep is too coarse, and the thread spins.
const SPIN: Nanos = 60_000;

pub struct Publisher<'a> {
    board: &'a Board,
    wire: Wire,
    way: Way,
    outcome: Outcome,
}

#[derive(Default)]
pub struct Outcome {
    /// How much later than due the messages left.
    pub late: Times,
    pub health: Health,
}

enum Way {
    Event {
        session: Session,
        words: Box<Words>,
        name: String,
    },
    /// `answers` are bytes that are no whole answer yet.
    Http {
        head: String,
        body: String,
        answers: Vec<u8>,
    },
}

/// What went wrong on the wire, or in what it carried.
struct Trouble(Error);

impl From<String> for Trouble {
    fn from(cause: String) -> Trouble {
        Trouble(Error::Publisher { cause })
    }
}

/// Runs until the run is over. A failure goes to the board.
pub fn run(board: &Board) -> Outcome {
    let mut publisher = match Wire::connect(board.server) {
        Ok(wire) => Publisher::new(board, wire),
        Err(error) => {
            board.fail(Error::Publisher { cause: error::cause(&error) });
            return Outcome::default();
        }
    };
    if let Err(Trouble(error)) = publisher.run() {
        board.fail(error);
    }
    publisher.outcome
}

impl<'a> Publisher<'a> {
    fn new(board: &'a Board, mut wire: Wire) -> Publisher<'a> {
        let plan = &board.plan;
        let way = match &plan.publish {
            Publish::Event(name) => {
                let words = Words::new(&plan.target.host(), &plan.target.path, &plan.namespace, None);
                wire.out().extend_from_slice(&words.request);
                let name = serde_json::json!(name).to_string();
                Way::Event { session: Session::default(), words: Box::new(words), name }
            }
            Publish::Http => {
                let rooms: Vec<_> = plan.room.iter().collect();
                let body =
                    serde_json::json!({ "namespace": plan.namespace, "rooms": rooms, "event": "msg" }).to_string();
                let head = format!(
                    "POST /api/publish HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: ",
                    plan.target.host()
                );
                // The brace that closes the body comes behind the arguments.
                Way::Http { head, body: body.trim_end_matches('}').to_owned(), answers: Vec::new() }
            }
        };
        Publisher { board, wire, way, outcome: Outcome::default() }
    }

    fn run(&mut self) -> Result<(), Trouble> {
        self.warm_up()?;
        if self.board.phase() == Phase::Measuring {
            self.outcome.health.begin(self.board.clock.now());
            self.publish_all()?;
            self.outcome.health.end(self.board.clock.now());
            self.board.enter(Phase::Draining);
        }
        while self.board.phase() < Phase::Over {
            self.turn(WAIT_MAX)?;
        }
        Ok(())
    }

    /// Test messages, until the controller has seen that they reach everyone.
    fn warm_up(&mut self) -> Result<(), Trouble> {
        let (mut next, mut interval) = (0, WARM_MIN);
        while self.board.phase() < Phase::Measuring {
            let now = self.board.clock.now();
            if self.board.phase() == Phase::Warming && self.ready() && now >= next {
                self.put(Stamp { run: self.board.run, sequence: WARM_UP, due: now });
                next = now + interval;
                interval = (interval * 2).min(WARM_MAX);
            }
            self.turn(WAIT_MAX)?;
        }
        Ok(())
    }

    fn publish_all(&mut self) -> Result<(), Trouble> {
        let schedule = Ramp { begin: self.board.begin.load(Relaxed), per_second: self.board.plan.rate };
        for sequence in 0..self.board.plan.messages {
            let due = schedule.time(sequence.into());
            let now = self.wait_until(due)?;
            if self.board.phase() != Phase::Measuring {
                return Ok(());
            }
            self.outcome.late.record(now - due);
            self.board.sent.store(sequence + 1, Relaxed);
            self.put(Stamp { run: self.board.run, sequence, due });
            self.turn(0)?;
        }
        Ok(())
    }

    /// Serves the stream until `due`, and gives the time then; earlier only when nothing more is to be published.
    fn wait_until(&mut self, due: Nanos) -> Result<Nanos, Trouble> {
        loop {
            let now = self.board.clock.now();
            if now >= due || self.board.phase() != Phase::Measuring {
                return Ok(now.max(due));
            }
            match due - now {
                // Polls wake on whole milliseconds: one less, then sleep the rest.
                left @ 2_000_000.. => self.turn((left - 1_000_000).min(WAIT_MAX) / 1_000_000 * 1_000_000)?,
                left @ SPIN.. => {
                    self.turn(0)?;
                    std::thread::sleep(Duration::from_nanos(
                        (left - SPIN / 2).min(due.saturating_sub(self.board.clock.now())),
                    ));
                }
                _ => std::hint::spin_loop(),
            }
        }
    }

    fn ready(&self) -> bool {
        match &self.way {
            Way::Event { session, .. } => session.stage() == Stage::Ready,
            Way::Http { .. } => true,
        }
    }

    fn put(&mut self, stamp: Stamp) {
        let plan = &self.board.plan;
        let mut data = Vec::with_capacity(plan.size);
        stamp.put(plan.size, &mut data);
        let data = std::str::from_utf8(&data).expect("a stamp is ASCII");
        let out = self.wire.out();
        match &self.way {
            Way::Event { name, .. } => {
                let text = socketio::message('2', &plan.namespace, &format!("[{name},\"{data}\"]"));
                frame::put(Opcode::Text, text.as_bytes(), out);
            }
            Way::Http { head, body, .. } => {
                let body = format!("{body},\"args\":[\"{data}\"]}}");
                out.extend_from_slice(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
            }
        }
    }

    fn turn(&mut self, wait: Nanos) -> Result<(), Trouble> {
        let (way, plan) = (&mut self.way, &self.board.plan);
        self.wire.turn(Duration::from_nanos(wait), |bytes, out| match way {
            Way::Event { session, words, .. } => {
                let ended =
                    |ending| Trouble(Error::from_ending(plan.connections, ending, &plan.target.url(), &plan.namespace));
                session.receive(words, bytes, out, &mut |_| {}).map_err(ended)
            }
            Way::Http { answers, .. } => {
                answers.extend_from_slice(bytes);
                check_answers(answers)
            }
        })
    }
}

/// Takes the whole answers; each must be a success.
fn check_answers(answers: &mut Vec<u8>) -> Result<(), Trouble> {
    let mut taken = 0;
    while let Some((answer, length)) = http::answer(&answers[taken..])
        .map_err(|_| Trouble(Error::Publisher { cause: "POST /api/publish was not answered in HTTP".to_owned() }))?
    {
        if !(200..300).contains(&answer.status) {
            return Err(Trouble(Error::PublishRefused { line: answer.line }));
        }
        taken += length;
        if taken == answers.len() {
            break;
        }
    }
    answers.drain(..taken);
    Ok(())
}
