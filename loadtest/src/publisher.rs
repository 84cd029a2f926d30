//! Publisher: one thread that publishes on schedule, whatever the server does.
//!
//! Each message is stamped with the time at which it was due, also when it leaves later. One stream for all of them,
//! requests one behind the other without waiting for answers: order is kept, and a slow answer delays nothing.

use crate::board::{Board, Phase, Seat};
use crate::clock::Nanos;
use crate::error::{self, Error};
use crate::health::Health;
use crate::http;
use crate::options::Publish;
use crate::session::{Session, Stage, Words};
use crate::stamp::Stamp;
use crate::tally::Times;
use crate::wire::Wire;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Test messages come at this interval, doubled each time up to the second one: enough for a small run to begin at
/// once, and not more than a large one can carry.
const WARM_MIN: Nanos = 200_000_000;
const WARM_MAX: Nanos = 2_000_000_000;
/// Between the test messages of one round, which go to one room after the other.
const WARM_STEP: Nanos = 200_000;
/// How long a wait lasts at most: phases change without waking anybody.
const WAIT_MAX: Nanos = 20_000_000;
/// A stream for requests that rested for so long is not used again. Node closes such ones after five seconds, and a
/// request that crosses the closing is lost.
const REST_MAX: Nanos = 1_000_000_000;
/// A server that wants to be left alone for longer wants no publisher.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often the board is told what this thread spends.
const TELL: Nanos = 250_000_000;
/// Below this a sleep is too coarse, and the thread spins.
const SPIN: Nanos = 60_000;

pub struct Publisher<'a> {
    board: &'a Board,
    seat: &'a Seat,
    /// When the board was told of this thread last.
    told: Nanos,
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
    /// A client of its own, always over WebSocket: there is nothing to flush.
    Client { session: Session, words: Box<Words> },
    /// Requests and their answers; servers close such a stream when it rests, so a fresh one is opened then.
    Http {
        head: String,
        /// Bytes that are no whole answer yet.
        answers: Vec<u8>,
        /// The messages of requests that are not answered, in their order; `None` for a test message.
        unanswered: VecDeque<Option<u32>>,
        /// Until when the server wants nothing more.
        pause: Nanos,
        /// When the last request was put; `None` when the server has closed the stream.
        used: Option<Nanos>,
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
    let mut publisher = match Wire::connect(board.place(false).server) {
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
        let (host, speech) = (plan.target.host(), &plan.speech);
        let way = match &speech.publish {
            Publish::Event(_) | Publish::Message => {
                let words = Box::new(Words::new(&host, &plan.target.path, &speech.of_publisher()));
                let mut session = Session::new(&words);
                session.begin(&words, wire.out());
                Way::Client { session, words }
            }
            Publish::Http => {
                let head = format!(
                    "POST /api/publish HTTP/1.1\r\nHost: {host}\r\n{}Content-Type: application/json\r\nContent-Length: ",
                    speech.headers
                );
                let (answers, unanswered) = (Vec::new(), VecDeque::new());
                Way::Http { head, answers, unanswered, pause: 0, used: Some(board.clock.now()) }
            }
        };
        let seat = board.seats.last().expect("the last one is the publisher's");
        Publisher { board, seat, told: 0, wire, way, outcome: Outcome::default() }
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

    /// Rounds of test messages, one for each room, until the controller has seen that they reach everyone.
    fn warm_up(&mut self) -> Result<(), Trouble> {
        let board = self.board;
        let (mut next, mut interval, mut round) = (0, WARM_MIN, board.rooms.turns().iter());
        while board.phase() < Phase::Measuring {
            let now = board.clock.now();
            // Until then there is nothing to do, and the core may be needed by those that connect.
            let begun = board.phase() == Phase::Warming && self.ready() && now >= self.pause();
            if begun && now >= next {
                if let Some(&room) = round.next() {
                    self.put(Stamp::warm_up(board.part.run, room, now), room)?;
                    // A wait is a millisecond at least, so the steps that it took too long are made up for.
                    next = next.max(now.saturating_sub(WAIT_MAX)) + WARM_STEP;
                } else {
                    round = board.rooms.turns().iter();
                    next = now + interval;
                    interval = (interval * 2).min(WARM_MAX);
                }
            }
            self.turn(if begun { next.saturating_sub(now).min(WAIT_MAX) } else { WAIT_MAX })?;
        }
        Ok(())
    }

    fn publish_all(&mut self) -> Result<(), Trouble> {
        let (board, begin) = (self.board, self.board.begin.load(Relaxed));
        for message in 0..board.plan.messages {
            let due = begin + board.schedule.time(message.into());
            let now = self.wait_until(due)?;
            if board.phase() != Phase::Measuring {
                return Ok(());
            }
            // Until the server wants to hear of us again the lateness is its own.
            let late = now - due.max(self.pause());
            self.outcome.late.record(late);
            board.late.store(late, Relaxed);
            board.sent.store(message + 1, Relaxed);
            self.put(Stamp { run: board.part.run, sequence: message, due }, board.rooms.room(message))?;
            self.turn(0)?;
        }
        Ok(())
    }

    /// Serves the stream until `due`, and gives the time then; earlier only when nothing more is to be published.
    fn wait_until(&mut self, due: Nanos) -> Result<Nanos, Trouble> {
        loop {
            let (now, due) = (self.board.clock.now(), due.max(self.pause()));
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

    /// Until when the server wants nothing more.
    fn pause(&self) -> Nanos {
        match &self.way {
            Way::Client { .. } => 0,
            Way::Http { pause, .. } => *pause,
        }
    }

    fn ready(&self) -> bool {
        match &self.way {
            Way::Client { session, .. } => session.stage() == Stage::Ready,
            Way::Http { .. } => true,
        }
    }

    fn put(&mut self, stamp: Stamp, room: u32) -> Result<(), Trouble> {
        if self.rests() {
            let trouble = |error| Trouble(Error::Publisher { cause: error::cause(&error) });
            self.wire = Wire::connect(self.board.place(false).server).map_err(trouble)?;
        }
        let plan = &self.board.plan;
        let mut data = Vec::with_capacity(plan.size);
        stamp.put(plan.size, &mut data);
        let data = std::str::from_utf8(&data).expect("a stamp is ASCII");
        let room = self.board.rooms.name(room);
        let message = stamp.warms_up().is_none().then_some(stamp.sequence);
        let out = self.wire.out();
        match &mut self.way {
            Way::Client { session, words } => session.put(words, data, room.as_deref(), out),
            Way::Http { head, unanswered, used, .. } => {
                unanswered.push_back(message);
                *used = Some(self.board.clock.now());
                let rooms: Vec<_> = room.into_iter().collect();
                let namespace = &plan.speech.namespace;
                let mut body = json!({ "namespace": namespace, "rooms": rooms, "event": "msg", "args": [data] });
                if let Some(sequence) =
                    message.filter(|_| plan.keys > 0).map(|message| self.board.rooms.sequence(message))
                {
                    body["conflate"] = format!("key-{}", sequence % plan.keys).into();
                }
                let body = body.to_string();
                out.extend_from_slice(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
            }
        }
        Ok(())
    }

    /// Whether the stream has been of no use for so long that the server may have closed it.
    fn rests(&self) -> bool {
        match &self.way {
            Way::Http { unanswered, used, .. } if unanswered.is_empty() => {
                used.is_none_or(|used| self.board.clock.now() > used + REST_MAX)
            }
            _ => false,
        }
    }

    fn turn(&mut self, wait: Nanos) -> Result<(), Trouble> {
        let now = self.board.clock.now();
        if now >= self.told + TELL {
            self.told = now;
            self.seat.tell_cpu(now);
        }
        if self.rests() {
            std::thread::sleep(Duration::from_nanos(wait));
            return Ok(());
        }
        let (way, board, plan) = (&mut self.way, self.board, &self.board.plan);
        let turned = self.wire.turn(Duration::from_nanos(wait), |bytes, out| match way {
            Way::Client { session, words } => {
                let ended =
                    |ending| Trouble(Error::from_ending(plan.connections, ending, &plan.speech, &plan.target.url()));
                session.receive(words, bytes, out, &mut |_| {}).map_err(ended)
            }
            Way::Http { answers, unanswered, pause, .. } => {
                answers.extend_from_slice(bytes);
                let (refused, wait) = check_answers(answers, unanswered)?;
                board.refusals.note(&refused);
                if let Some(wait) = wait {
                    *pause = board.clock.now() + wait.as_nanos() as Nanos;
                }
                Ok(())
            }
        });
        match (&mut self.way, turned) {
            // The server closes a stream that owes nothing: a fresh one will do as well.
            (Way::Http { unanswered, used, .. }, Err(_)) if unanswered.is_empty() => *used = None,
            (_, turned) => turned?,
        }
        Ok(())
    }
}

/// The messages that were refused, and how long the server wants to be left alone.
type Refused = (Vec<u32>, Option<Duration>);

/// Takes the whole answers; each must be a success, or a refusal that tells when to come again.
fn check_answers(answers: &mut Vec<u8>, unanswered: &mut VecDeque<Option<u32>>) -> Result<Refused, Trouble> {
    let (mut taken, mut refused, mut wait) = (0, Vec::new(), None);
    while let Some((answer, (_, length))) = http::answer(&answers[taken..])
        .map_err(|_| Trouble(Error::Publisher { cause: "POST /api/publish was not answered in HTTP".to_owned() }))?
    {
        if !(200..300).contains(&answer.status) {
            let Some(again) = retry_after(&answer) else {
                return Err(Trouble(Error::PublishRefused { line: answer.line().to_owned() }));
            };
            refused.extend(unanswered.front().copied().flatten());
            wait = wait.max(Some(again));
        }
        unanswered.pop_front();
        taken += length;
        if taken == answers.len() {
            break;
        }
    }
    answers.drain(..taken);
    Ok((refused, wait))
}

/// When a publisher that is too fast may come again.
fn retry_after(answer: &http::Answer<'_>) -> Option<Duration> {
    let seconds = answer.header("retry-after").filter(|_| matches!(answer.status, 429 | 503))?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|wait| *wait <= PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answers: &str, unanswered: &[Option<u32>]) -> Result<(Refused, usize), String> {
        let mut left = unanswered.iter().copied().collect();
        let refused =
            check_answers(&mut answers.as_bytes().to_vec(), &mut left).map_err(|Trouble(error)| error.to_string());
        refused.map(|refused| (refused, left.len()))
    }

    const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

    fn busy(status: &str, wait: &str) -> String {
        format!("HTTP/1.1 {status}\r\nRetry-After: {wait}\r\nContent-Length: 2\r\n\r\n{{}}")
    }

    #[test]
    fn answers_belong_to_the_messages_in_their_order() {
        let four = [TAKEN, &busy("503 Service Unavailable", "2"), TAKEN, &busy("429 Too Many Requests", "1")].concat();
        let table: [(&str, &[Option<u32>], Refused, usize); 4] = [
            (TAKEN, &[Some(7)], (vec![], None), 0),
            (&four, &[None, Some(0), Some(1), Some(2), Some(3)], (vec![0, 2], Some(Duration::from_secs(2))), 1),
            (&busy("503 Service Unavailable", "4"), &[None], (vec![], Some(Duration::from_secs(4))), 0),
            (&four[..60], &[None, Some(0)], (vec![], None), 1),
        ];
        for (answers, unanswered, refused, left) in table {
            assert_eq!(check(answers, unanswered), Ok((refused, left)), "{answers}");
        }
    }

    #[test]
    fn a_refusal_that_does_not_say_when_to_come_again_ends_the_run() {
        let never = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned();
        for answer in
            [never, busy("503 Service Unavailable", "61"), busy("429 Too Many Requests", "soon"), busy("401 No", "1")]
        {
            let error = check(&answer, &[Some(1)]).expect_err("it is no answer to wait for");
            assert!(error.starts_with("POST /api/publish was answered with 'HTTP/1.1 "), "{error}");
        }
    }
}
