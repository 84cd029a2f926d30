//! Write: each dirty session once, with everything it has waiting.
//!
//! Bytes go from where they were encoded to the [`Wire`], a batch of jobs at a time; nothing is copied or counted for a
//! receiver that takes all it is offered. What is not taken becomes the session's backlog (outbox.rs). A run of large
//! packets becomes backlog first, by reference, and leaves packet by packet. The limits on backlogs are in pressure.rs.

use super::Shard;
use super::arena::Key;
use super::lanes::Lane;
use super::mail::{Ending, Job, Sent, Wire};
use super::runs::EMPTY;
use super::session::{Conn, Role, Session, State, Transport};

/// Jobs handed to the wire at a time. Enough to make one io_uring submission worth its system call.
const BATCH: usize = 512;

impl Shard {
    /// Makes at most `budget` writes to sessions. What is left stays dirty for the next turn. A session whose backlog has
    /// several segments comes round again as long as its stream takes them, else it would never catch up with a feed.
    pub fn write(&mut self, wire: &mut impl Wire, budget: usize) {
        // First, because a session that has switched to its probing conn may be among the dirty: what answers the probe
        // must not fall between two parts of a frame.
        self.write_probes(wire);
        let mut left = budget;
        let mut batch = Vec::new();
        let mut sent = Vec::new();
        while left > 0 && !self.lanes.is_empty() {
            batch.clear();
            sent.clear();
            while left > 0
                && batch.len() < BATCH
                && let Some((key, lane)) = self.lanes.take()
            {
                left -= 1;
                batch.extend(self.prepare(key, lane));
            }
            let jobs: Vec<Job<'_>> = batch.iter().map(|&(key, conn)| self.job(key, conn)).collect();
            wire.send(&jobs, &mut sent);
            debug_assert_eq!(jobs.len(), sent.len(), "every job is reported");
            for (&(key, conn), &sent) in batch.iter().zip(&sent) {
                self.on_sent(key, conn, sent);
            }
        }
        self.write_leaving(wire, budget);
    }

    /// Decides what a dirty session needs: the conn to write to, if any.
    fn prepare(&mut self, key: Key<Session>, lane: Lane) -> Option<(Key<Session>, Key<Conn>)> {
        let session = self.sessions.get_mut(key)?;
        session.queued.leave(lane);
        if session.state != State::Open || session.outbox.is_empty() || session.queued.writing {
            return None;
        }
        match session.transport {
            Transport::WebSocket { conn, blocked: false } => {
                if session.outbox.has_backlog() || self.runs.is_heavy(session.outbox.run) {
                    session.outbox.keep(&mut self.runs, &mut self.chains, 0, self.now);
                } else {
                    self.runs.seal(session.outbox.run);
                }
                session.queued.writing = true;
                Some((key, conn))
            }
            Transport::WebSocket { blocked: true, .. } | Transport::Polling { poll: None } => {
                self.keep_backlog(key, 0);
                None
            }
            Transport::Polling { poll: Some(poll) } => {
                session.outbox.keep(&mut self.runs, &mut self.chains, 0, self.now);
                session.transport = Transport::Polling { poll: None };
                let mut payload = Vec::new();
                self.counters.written += session.outbox.take_payload(&mut self.chains, &mut payload) as u64;
                self.answer_payload(poll, payload);
                self.gauge(key);
                None
            }
        }
    }

    fn job(&self, key: Key<Session>, conn: Key<Conn>) -> Job<'_> {
        let session = self.sessions.get(key).expect("prepared in this batch");
        let bytes = session.outbox.front(&self.chains).unwrap_or_else(|| self.runs.wire(session.outbox.run));
        Job { conn, bytes }
    }

    fn on_sent(&mut self, key: Key<Session>, conn: Key<Conn>, sent: Sent) {
        match sent {
            Sent::Bytes(bytes) => {
                self.counters.bytes_out += bytes as u64;
                self.took(key, bytes);
            }
            Sent::Blocked => self.took(key, 0),
            Sent::Broken => {
                self.sessions.get_mut(key).expect("prepared in this batch").queued.writing = false;
                self.on_hangup(conn, true);
            }
        }
    }

    fn took(&mut self, key: Key<Session>, bytes: usize) {
        let session = self.sessions.get_mut(key).expect("prepared in this batch");
        session.queued.writing = false;
        if !session.outbox.has_backlog() {
            let run = session.outbox.run;
            if bytes == self.runs.bytes(run) {
                self.counters.written += u64::from(self.runs.packets(run));
                session.outbox.run = EMPTY;
                return self.runs.release(run);
            }
            self.block(key);
            return self.keep_backlog(key, bytes);
        }
        let offered = session.outbox.front(&self.chains).expect("it has a backlog").len();
        self.counters.written += session.outbox.advance(&mut self.chains, bytes) as u64;
        if bytes < offered {
            self.block(key);
            self.hold_to_limits(key);
        } else {
            if !session.outbox.is_empty() {
                // The next segment of a backlog: the stream takes it, but others may be owed something small.
                self.lanes.add(key, &mut session.queued, Lane::Wide);
                self.lag.go_on(session.outbox.unoffered_bytes(), &self.lanes);
            }
            self.gauge(key);
        }
    }

    fn block(&mut self, key: Key<Session>) {
        let session = self.sessions.get_mut(key).expect("the caller has it");
        if let Transport::WebSocket { blocked, .. } = &mut session.transport {
            *blocked = true;
        }
    }

    /// What could not leave becomes backlog, within the limits.
    pub(super) fn keep_backlog(&mut self, key: Key<Session>, sent: usize) {
        let session = self.sessions.get_mut(key).expect("the caller has it");
        session.outbox.keep(&mut self.runs, &mut self.chains, sent, self.now);
        self.hold_to_limits(key);
    }

    fn write_probes(&mut self, wire: &mut impl Wire) {
        for key in std::mem::take(&mut self.probed) {
            let pong = Shard::probe_pong();
            // A stream that cannot take a few bytes as its first is not worth an upgrade.
            if self.conns.get(key).is_some() && write_one(wire, key, pong) != Sent::Bytes(pong.len()) {
                self.on_hangup(key, true);
            }
        }
    }

    fn write_leaving(&mut self, wire: &mut impl Wire, budget: usize) {
        for _ in 0..self.leaving.len().min(budget) {
            let key = self.leaving.pop_front().expect("counted");
            let Some(Conn { role: Role::Leaving(Some(left)), evicted, .. }) = self.conns.get_mut(key) else { continue };
            let evicted = *evicted;
            if left.is_empty() {
                continue; // listed twice, or ended meanwhile
            }
            let finished = loop {
                let Some(front) = left.front_mut() else { break true };
                match write_one(wire, key, front) {
                    Sent::Bytes(bytes) => {
                        self.counters.bytes_out += bytes as u64;
                        let _ = front.split_to(bytes);
                        if front.is_empty() {
                            left.pop_front();
                        }
                    }
                    Sent::Blocked if evicted => {
                        self.reset(key);
                        break false;
                    }
                    Sent::Blocked => break false,
                    Sent::Broken => {
                        self.end(key);
                        break false;
                    }
                }
            };
            if finished && evicted {
                self.end(key);
            } else if finished {
                self.endings.push(Ending::FinishWriting(key));
            }
        }
    }

    /// Accounts for what a session takes with it.
    pub(super) fn discard(&mut self, session: &mut Session) {
        self.counters.discarded += session.outbox.clear(&mut self.runs, &mut self.chains) as u64;
    }
}

fn write_one(wire: &mut impl Wire, conn: Key<Conn>, bytes: &[u8]) -> Sent {
    let mut sent = Vec::with_capacity(1);
    wire.send(&[Job { conn, bytes }], &mut sent);
    sent[0]
}
