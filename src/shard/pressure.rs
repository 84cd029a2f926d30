//! Pressure: the limits on what may wait for clients that do not read as fast as they are sent.
//!
//! They apply where a stream takes no more, or no poll is there: what waits for our own budget is nobody's fault. A client
//! that reads, but less than it is sent, goes over a limit just as one that does not read at all. What may be dropped is
//! dropped first (outbox.rs); whoever is still over a limit then is evicted, and nobody waits for it.
//!
//! | limit | of | beyond it |
//! |---|---|---|
//! | `outbox_bytes_max` | a session | drop as the packets' fates allow, else evict |
//! | `outbox_age_max` | a session | drop what is marked to make room; evict for anything that must arrive |
//! | `outboxes_bytes_max` | the process | evict who is furthest behind: [`Shard::shed`] |
//! | `outbox_watermark` | a session | tell the application, and again when it is half of that |

use super::arena::Key;
use super::broadcast::is_listening;
use super::mail::Event;
use super::session::{Session, State};
use super::sockets::{Socket, SocketState};
use super::wheel::millis;
use super::{Millis, Shard, Timer};
use crate::error::CloseReason;

/// How long a backlog that is too old may be offered to a stream that can be written to, or to a poll.
const OFFERED_MS: Millis = 10;
/// How many times in an age limit a backlog is searched for what has become too old, at most.
const LOOKS: Millis = 64;

impl Shard {
    /// To be called for a session that has a backlog and cannot be written to.
    pub(super) fn hold_to_limits(&mut self, key: Key<Session>) {
        let bytes_max = self.settings.outbox_bytes_max;
        let session = self.sessions.get_mut(key).expect("the caller has it");
        session.outbox.refuse();
        let relief = session.outbox.relieve(&mut self.chains, bytes_max);
        self.counters.dropped_newest += relief.newest;
        self.counters.dropped_oldest += relief.oldest;
        self.counters.conflated += relief.conflated;
        if session.outbox.is_over(bytes_max) {
            return self.evict(key);
        }
        self.gauge(key);
        let session = self.sessions.get_mut(key).expect("the caller has it");
        if !session.outbox.aging && session.outbox.has_backlog() {
            self.watch_age(key, self.now + millis(self.settings.outbox_age_max));
        }
    }

    /// Tells the application when much waits, and when it no longer does.
    pub(super) fn gauge(&mut self, key: Key<Session>) {
        let session = self.sessions.get_mut(key).expect("the caller has it");
        let (bytes, watermark) = (session.outbox.backlog_bytes(), self.settings.outbox_watermark);
        let high = if session.outbox.pressed { bytes > watermark / 2 } else { bytes > watermark };
        if std::mem::replace(&mut session.outbox.pressed, high) != high {
            let here = |&socket: &Key<Socket>| {
                self.sockets.get(socket).is_some_and(|socket| socket.state == SocketState::Connected)
            };
            let sockets = session.sockets.iter().filter_map(|&slot| self.sockets.key_at(slot)).filter(here);
            self.events.extend(sockets.map(|socket| Event::Pressure { socket, high }));
        }
    }

    /// The session can be written to again: what others have replaced shall not leave any more. What is too old has gone when
    /// its time came.
    pub(super) fn freshen(&mut self, key: Key<Session>) {
        let session = self.sessions.get_mut(key).expect("the caller has it");
        self.counters.conflated += session.outbox.conflate(&mut self.chains);
        self.gauge(key);
    }

    /// A backlog may have waited for too long.
    pub(super) fn age_due(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.state == State::Open) else { return };
        session.outbox.aging = false;
        if !session.outbox.has_backlog() {
            return;
        }
        let age_max = millis(self.settings.outbox_age_max);
        let since_min = self.now.saturating_sub(age_max);
        self.counters.dropped_oldest += session.outbox.drop_late(&mut self.chains, since_min);
        let (listening, refused) = (is_listening(session), session.outbox.is_refused());
        let kept = session.outbox.kept_since(&self.chains);
        let droppable = session.outbox.droppable_since(&self.chains);
        let is_late = kept.is_some_and(|since| since < since_min);
        if is_late && !listening {
            self.counters.evicted_late += 1;
            return self.evict(key);
        }
        self.gauge(key);
        // What is dropped need not be dropped to the millisecond, and a look goes through all that waits in front of it.
        let drops = droppable.map(|since| (since + age_max).max(self.now + age_max / LOOKS));
        let ends = kept.map(|since| match (is_late, refused) {
            // It waits for our own writes, which is not to be held against the client.
            (_, false) => self.now + age_max,
            // It is being offered. If it is refused once more, that is soon enough to see it.
            (true, true) => self.now + OFFERED_MS,
            (false, true) => since + age_max,
        });
        if let Some(due) = drops.into_iter().chain(ends).min() {
            self.watch_age(key, due);
        }
    }

    /// Has a backlog looked at again.
    fn watch_age(&mut self, key: Key<Session>, due: Millis) {
        self.sessions.get_mut(key).expect("the caller has it").outbox.aging = true;
        self.wake_at(due + 1, Timer::Age(key));
    }

    /// The age from which on nothing may wait any longer is another one: entries of the wheel go by the old one.
    pub(super) fn review_ages(&mut self) {
        let aging = self.sessions.iter().filter(|(_, session)| session.outbox.aging);
        let aging: Vec<Key<Session>> = aging.map(|(key, _)| key).collect();
        aging.into_iter().for_each(|key| self.wake_at(self.now, Timer::Age(key)));
    }

    pub(super) fn evict(&mut self, key: Key<Session>) {
        if self.sessions.get(key).is_some_and(|session| session.state == State::Open) {
            self.counters.evicted += 1;
            self.close(key, CloseReason::SlowClient);
        } else {
            self.linger_due(key);
        }
        // At once, so that `shed` sees what it has gained.
        let session = self.sessions.get_mut(key).expect("it is buried when the turn ends");
        self.counters.discarded += session.outbox.clear(&mut self.runs, &mut self.chains) as u64;
    }

    /// What waits for the client of this socket, for all namespaces of its session: bytes, and for how long the first of
    /// them have. `None`: the socket has left.
    pub fn backlog(&self, key: Key<Socket>) -> Option<(usize, Millis)> {
        let socket = self.sockets.get(key).filter(|socket| socket.state != SocketState::Closed)?;
        let outbox = &self.sessions.get(socket.session)?.outbox;
        Some((outbox.backlog_bytes(), outbox.since(&self.chains).map_or(0, |since| self.now - since)))
    }

    /// Bytes that wait longer than a turn, each packet counted once.
    pub fn waiting_bytes(&self) -> usize {
        self.chains.bytes()
    }

    /// What it costs to let them wait: with many small packets, much more than these have bytes.
    pub fn waiting_cost(&self) -> usize {
        self.chains.cost()
    }

    /// Evicts who is furthest behind, and who comes next, until what waits costs so many bytes less.
    pub fn shed(&mut self, bytes: usize) {
        let goal = self.chains.cost().saturating_sub(bytes);
        let behind = |session: &Session| session.state != State::Closed && session.outbox.has_backlog();
        let sessions = self.sessions.iter().filter(|(_, session)| behind(session));
        let mut sessions: Vec<_> = sessions.map(|(key, session)| (session.outbox.backlog_bytes(), key)).collect();
        sessions.sort_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
        for (_, key) in sessions {
            if self.chains.cost() <= goal {
                return;
            }
            self.counters.evicted_for_memory += 1;
            self.evict(key);
        }
    }
}
