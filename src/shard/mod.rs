//! Shard: all the state of one core, as a value.
//!
//! It makes no system call and reads no clock: bytes, mail and `now` go in; bytes to write, mail and endings come out.
//! A worker drives exactly one shard; so does the simulator, with a fake network, from one seed.
//!
//! Reading order: `session` and `sockets` (what there is), `engine` (bytes become packets), `sockets` (packets become
//! events), `broadcast`, `feeds` and `runs` (an event becomes bytes for many), `write` (bytes leave), `lag` (who waits for
//! that), `drive` (the order of it all).
//!
//! Everything that must wait for the end of the turn is noted: `events` for the application, `answers` for HTTP requests,
//! `mail` for other shards, `endings` for streams, `lanes` for sessions that have something to write.
//!
//! Invariants: see `invariants()`, which the simulator and the tests call at the end of every turn.

pub mod arena;
mod broadcast;
pub mod chains;
mod compaction;
mod drain;
pub mod drive;
mod engine;
pub mod feeds;
mod lag;
mod lanes;
mod lobby;
pub mod mail;
pub mod outbox;
mod page;
mod pressure;
mod rates;
mod rooms;
pub mod runs;
pub mod session;
#[cfg(test)]
mod simulation;
pub mod slack;
pub mod sockets;
#[cfg(test)]
mod tests;
mod wheel;
mod write;

use crate::error::CloseReason;
use crate::settings::Settings;
use arena::{Arena, Key};
use chains::Chains;
use compaction::Compaction;
use drain::Drain;
use feeds::{Feed, Feeds};
use lag::Lag;
use lanes::Lanes;
use lobby::Lobby;
use mail::{Count, Counts, Ending, Event, Exchange, Mail, Reply};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rooms::Namespace;
use runs::Runs;
use session::{Conn, Session, State};
use slack::Slack as _;
use sockets::Socket;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use wheel::Wheel;
pub use wheel::{Millis, millis};

pub struct Shard {
    number: u16,
    shards: u16,
    settings: Arc<Settings>,
    carries: Carries,
    now: Millis,
    /// Sids are secrets: seeded from the operating system's randomness, or from the simulator's seed.
    rng: StdRng,
    sessions: Arena<Session>,
    conns: Arena<Conn>,
    sockets: Arena<Socket>,
    namespaces: Arena<Namespace>,
    namespace_slots: HashMap<Box<str>, u32>,
    feeds: Feeds,
    runs: Runs,
    chains: Chains,
    wheel: Wheel<(Millis, Timer)>,
    /// Sessions, which know themselves when they are due.
    heartbeats: Wheel<Key<Session>>,
    lobby: Lobby<Key<Session>>,
    expired: Vec<Timer>,
    /// Number of the last broadcast; see `Socket::stamp`.
    stamp: u64,
    /// Whether nobody is let in any more.
    draining: bool,
    /// How those who are there are let go.
    drain: Option<Drain>,
    compaction: Compaction,

    /// Sessions that have something to write.
    lanes: Lanes<Key<Session>>,
    /// How far the writes are behind the fan-out.
    lag: Lag,
    /// Counts that are held back until they have caught up.
    held: VecDeque<(Count, Counts)>,
    /// Conns whose session is gone and which have something left to write.
    leaving: VecDeque<Key<Conn>>,
    /// Probing conns that are owed the answer to their probe.
    probed: Vec<Key<Conn>>,
    events: VecDeque<Event<'static>>,
    answers: Vec<(Exchange, Reply)>,
    mail: Vec<(u16, Mail)>,
    endings: Vec<Ending>,
    buried_sessions: Vec<Key<Session>>,
    /// Sessions whose burial the worker wants to hear of.
    announced: HashSet<Key<Session>>,
    buried_sockets: Vec<Key<Socket>>,
    pub counters: Counters,
}

/// What Engine.IO messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    SocketIo,
    /// Whatever the embedder makes of them: a bare Engine.IO server.
    Messages,
}

/// What time wakes. Whoever is woken looks whether it still matters. The first two come from places of their own, which
/// take less memory for what each client has; the others from the wheel.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Heartbeat(Key<Session>),
    /// Nothing joined in time.
    Connect(Key<Session>),
    /// Nobody came to hear that the session is closed.
    Linger(Key<Session>),
    /// A poll of a session that is upgrading is answered, so that the client can pause its polling.
    Noop(Key<Session>),
    Upgrade(Key<Conn>),
    /// The peer of a leaving conn did not close its side.
    Farewell(Key<Conn>),
    Ack(Key<Socket>, u32),
    /// A backlog may have waited for too long.
    Age(Key<Session>),
    /// More clients are to be let go.
    Drain,
    /// What a room has held leaves.
    Window(Key<Feed>),
}

/// Totals since the start. Plain numbers: only this shard's thread touches them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub opened: u64,
    pub closed: u64,
    /// Sockets that left, by reason, in the order of `CloseReason::ALL`.
    pub disconnects: [u64; CloseReason::ALL.len()],
    /// Events received from clients.
    pub received: u64,
    /// Broadcasts that began here. Each is counted once, whichever shards its receivers live on.
    pub broadcasts: u64,
    /// Counts of broadcasts that were held back, because the writes were `lag_bytes_max` behind.
    pub counts_held: u64,
    /// Packets queued for a session by broadcasts.
    pub deliveries: u64,
    /// Packets queued in all, and how they ended.
    pub queued: u64,
    pub written: u64,
    pub discarded: u64,
    /// Left to a stream that outlived its session.
    pub parted: u64,
    /// Volatile packets that found their receiver not ready.
    pub volatile_dropped: u64,
    /// Events that a newer one with the same key replaced in a window.
    pub conflated_in_windows: u64,
    /// Windows that ended early, because they held `conflate_keys_max` events, or would have held more than
    /// `outbox_bytes_max`.
    pub windows_full: u64,
    /// Retained events that sockets got when they joined.
    pub caught_up: u64,
    /// Retained events that were given up for `retain_keys_max`, `retain_rooms_max` or `retain_bytes_max`.
    pub retained_forgotten: u64,
    /// Bytes that left as WebSocket frames or polling payloads.
    pub bytes_out: u64,
    /// Bytes of WebSocket streams and POST bodies.
    pub bytes_in: u64,
    /// Sessions closed because they were too far behind, for whatever reason.
    pub evicted: u64,
    /// Those of them whose oldest packet had waited for too long.
    pub evicted_late: u64,
    /// Those of them that were furthest behind when too much waited in the whole process.
    pub evicted_for_memory: u64,
    /// Packets dropped by policy for a receiver that was behind.
    pub dropped_newest: u64,
    pub dropped_oldest: u64,
    pub conflated: u64,
    /// Packets whose policy is to be dropped before they are queued, if there is no room. They are not `queued`.
    pub turned_away: u64,
    /// Sessions closed because the server ends.
    pub let_go: u64,
    /// Clients that were still owed something when the time for their end was over.
    pub cut_off: u64,
    /// Sessions closed because their client said more than it may.
    pub rate_limited: u64,
    /// Requests and packets that broke a rule.
    pub protocol_errors: u64,
    /// Joins of sockets that were already in `rooms_per_socket_max` rooms.
    pub joins_refused: u64,
    /// Events whose arguments did not fit their handler.
    pub arguments_refused: u64,
    /// Handlers that panicked.
    pub handler_panics: u64,
    /// Requests refused.
    pub refused: u64,
}

impl Counters {
    fn disconnected(&mut self, reason: CloseReason) {
        let at = CloseReason::ALL.iter().position(|&other| other == reason).expect("ALL names every reason");
        self.disconnects[at] += 1;
    }
}

/// What a shard holds at a moment.
#[derive(Clone, Debug, Default)]
pub struct Census {
    pub polling: usize,
    pub websocket: usize,
    pub sockets: usize,
    pub rooms: usize,
    /// Events that are retained.
    pub retained: usize,
    /// What they cost, as `retain_bytes_max` counts.
    pub retained_bytes: usize,
    pub namespaces: Vec<(Box<str>, usize)>,
    /// Bytes that wait longer than a turn, each packet counted once.
    pub waiting_bytes: usize,
    /// Bytes of broadcasts that have not been offered to all of their receivers.
    pub lag_bytes: usize,
    /// While the server drains, the sessions that are still to be let go.
    pub draining: Option<u64>,
    pub counters: Counters,
}

impl Shard {
    pub fn new(number: u16, shards: u16, settings: Arc<Settings>, carries: Carries, seed: [u8; 32]) -> Shard {
        Shard {
            number,
            shards,
            settings,
            carries,
            now: 0,
            rng: StdRng::from_seed(seed),
            sessions: Arena::default(),
            conns: Arena::default(),
            sockets: Arena::default(),
            namespaces: Arena::default(),
            namespace_slots: HashMap::new(),
            feeds: Feeds::default(),
            runs: Runs::default(),
            chains: Chains::default(),
            wheel: Wheel::default(),
            heartbeats: Wheel::default(),
            lobby: Lobby::default(),
            expired: Vec::new(),
            stamp: 0,
            draining: false,
            drain: None,
            compaction: Compaction::default(),
            lanes: Lanes::default(),
            lag: Lag::default(),
            held: VecDeque::new(),
            leaving: VecDeque::new(),
            probed: Vec::new(),
            events: VecDeque::new(),
            answers: Vec::new(),
            mail: Vec::new(),
            endings: Vec::new(),
            buried_sessions: Vec::new(),
            announced: HashSet::new(),
            buried_sockets: Vec::new(),
            counters: Counters::default(),
        }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// From now on these hold. What a live session was told at its handshake is the same in them.
    pub fn set_settings(&mut self, settings: Arc<Settings>) {
        let before = std::mem::replace(&mut self.settings, settings);
        if before.outbox_age_max != self.settings.outbox_age_max {
            self.review_ages();
        }
    }

    pub fn session(&self, key: Key<Session>) -> Option<&Session> {
        self.sessions.get(key)
    }

    pub fn socket(&self, key: Key<Socket>) -> Option<&Socket> {
        self.sockets.get(key)
    }

    /// Sessions that are open or still wait for a poll to say that they are closed.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Streams, those included that only wait for the peer's close.
    pub fn conn_count(&self) -> usize {
        self.conns.len()
    }

    pub fn census(&self) -> Census {
        let open = || self.sessions.iter().filter(|(_, session)| session.state == State::Open);
        let websocket = open().filter(|(_, session)| session.transport.name() == "websocket").count();
        let namespaces = || self.namespaces.iter().map(|(_, namespace)| namespace);
        let (retained, retained_bytes) = self.feeds.retained();
        Census {
            polling: open().count() - websocket,
            websocket,
            sockets: namespaces().map(|namespace| namespace.connected.len()).sum(),
            rooms: namespaces().map(Namespace::room_count).sum(),
            retained,
            retained_bytes,
            namespaces: namespaces().map(|it| (it.name.clone(), it.connected.len())).collect(),
            lag_bytes: self.lag.bytes(),
            waiting_bytes: self.waiting_bytes(),
            draining: self.draining(),
            counters: self.counters,
        }
    }

    /// When `advance` is to be called next, even if nothing else happens.
    pub fn next_due(&self) -> Option<Millis> {
        let due = [self.wheel.next_due(), self.heartbeats.next_due(), self.lobby.next_due()];
        due.into_iter().flatten().min()
    }

    /// Tells the time to what happens next. To be called before anything that comes in after a pause.
    pub fn tell_time(&mut self, now: Millis) {
        debug_assert!(now >= self.now, "time goes forward");
        self.now = now;
    }

    /// Has `timer` wake somebody.
    fn wake_at(&mut self, due: Millis, timer: Timer) {
        self.wheel.schedule(due, (due, timer));
    }

    /// Time goes on: heartbeats, deadlines.
    pub fn advance(&mut self, now: Millis) {
        self.tell_time(now);
        let mut expired = std::mem::take(&mut self.expired);
        let timer_of = |key: &Key<Session>| self.sessions.get(*key).map(|session| session.heartbeat.timer);
        self.heartbeats.advance(now, timer_of, |session| expired.push(Timer::Heartbeat(session)));
        expired.extend(std::iter::from_fn(|| self.lobby.take_due(now)).map(Timer::Connect));
        self.wheel.advance(now, |(due, _)| Some(*due), |(_, timer)| expired.push(timer));
        let mut drains = false;
        for timer in expired.drain(..) {
            match timer {
                Timer::Heartbeat(session) => self.heartbeat_due(session),
                Timer::Connect(session) => self.connect_due(session),
                Timer::Linger(session) => self.linger_due(session),
                Timer::Noop(session) => self.release_poll(session),
                Timer::Upgrade(conn) => self.upgrade_due(conn),
                Timer::Farewell(conn) => self.farewell_due(conn),
                Timer::Ack(socket, ack_id) => self.ack_timed_out(socket, ack_id),
                Timer::Age(session) => self.age_due(session),
                Timer::Drain => drains = true,
                Timer::Window(feed) => self.window_due(feed),
            }
        }
        self.expired = expired;
        if drains {
            // Behind the windows that have ended: who is let go has got what they held.
            self.drain_due();
        }
    }

    pub fn next_event(&mut self) -> Option<Event<'static>> {
        self.events.pop_front()
    }

    pub fn take_answers(&mut self) -> Vec<(Exchange, Reply)> {
        std::mem::take(&mut self.answers)
    }

    /// Mail for other shards, by number.
    pub fn take_mail(&mut self) -> Vec<(u16, Mail)> {
        std::mem::take(&mut self.mail)
    }

    pub fn post(&mut self, to: u16, mail: Mail) {
        debug_assert_ne!(to, self.number, "what concerns this shard is done at once");
        self.mail.push((to, mail));
    }

    /// The last step of a turn: what ended is freed, and the worker learns which streams to close.
    pub fn bury(&mut self) -> Vec<Ending> {
        assert!(self.events.is_empty(), "handlers hear of an end before it is buried");
        for key in std::mem::take(&mut self.buried_sockets) {
            self.bury_socket(key);
        }
        let before = self.sessions.len();
        for key in std::mem::take(&mut self.buried_sessions) {
            let mut session = self.sessions.remove(key).expect("buried once");
            self.discard(&mut session);
            if self.announced.remove(&key) {
                self.announced.trim();
                self.endings.push(Ending::Buried(key));
            }
        }
        if self.sessions.len() < before {
            self.note_burials(before);
        }
        self.compact();
        for ending in &self.endings {
            if let Ending::Close(conn) | Ending::Reset(conn) = ending {
                self.conns.remove(*conn);
            }
        }
        self.trim();
        self.release_counts();
        std::mem::take(&mut self.endings)
    }

    /// What all clients may fill in one turn gives memory back when there are far fewer of them.
    fn trim(&mut self) {
        let sessions = self.sessions.len();
        self.lanes.trim(sessions);
        self.runs.trim(sessions);
        self.events.trim_for(sessions);
        self.expired.trim_for(sessions);
        self.leaving.trim_for(sessions);
    }

    /// Has the session's burial told to the worker, which holds something for it.
    pub fn announce_end(&mut self, key: Key<Session>) {
        assert!(self.sessions.get(key).is_some(), "the caller has just opened it");
        self.announced.insert(key);
    }

    /// Whether another turn would find work although nothing came in.
    pub fn has_work(&self) -> bool {
        !(self.lanes.is_empty() && self.leaving.is_empty() && self.probed.is_empty() && self.events.is_empty())
            || !(self.answers.is_empty() && self.mail.is_empty() && self.endings.is_empty())
            || !(self.buried_sessions.is_empty() && self.buried_sockets.is_empty())
            || self.compaction.is_under_way()
    }

    /// Closes every session; whoever connects now is refused. What is queued still leaves over WebSockets and with polls
    /// that are there; a session that is between two polls hears nothing, as with the reference.
    pub fn shut_down(&mut self) {
        self.draining = true;
        self.drain = None;
        self.flush_all();
        for key in self.sessions.keys() {
            self.close(key, CloseReason::ServerShuttingDown);
        }
    }

    /// The time is over: whoever is still owed something is not waited for. To be called before the shard is dropped.
    pub fn cut_off(&mut self) {
        let conns = self.conns.iter().filter(|(_, conn)| conn.is_owed()).count();
        self.counters.cut_off += (self.sessions.len() + conns) as u64;
    }

    /// What must be true between turns, because of our own code.
    #[cfg(test)]
    pub fn invariants(&self) {
        self.sessions.invariants();
        self.conns.invariants();
        self.sockets.invariants();
        self.namespaces.invariants();
        for (_, namespace) in self.namespaces.iter() {
            namespace.invariants(&self.sockets);
        }
        self.feeds.invariants();
        for (key, session) in self.sessions.iter() {
            assert!(session.outbox.is_empty() || session.state != State::Closed, "the closed hold nothing");
            for &slot in &session.sockets {
                assert_eq!(self.sockets.at(slot).expect("listed, so alive").session, key);
            }
        }
        if self.lanes.is_empty() {
            assert_eq!((self.lag.bytes(), self.held.len()), (0, 0), "nobody waits for writes that are done");
        }
        let waiting = self.sessions.iter().filter(|(_, session)| session.outbox.run != runs::EMPTY).count();
        assert!(waiting > 0 || self.runs.len() == 0, "a run without a session is freed");
        let Counters { queued, written, discarded, parted, opened, closed, .. } = self.counters;
        let Counters { dropped_newest, dropped_oldest, conflated, .. } = self.counters;
        if self.lanes.is_empty() && self.sessions.iter().all(|(_, session)| session.outbox.is_empty()) {
            let dropped = dropped_newest + dropped_oldest + conflated;
            assert_eq!(queued, written + discarded + parted + dropped, "every queued packet ends in one way");
            assert!(self.chains.is_empty(), "nothing is kept for nobody");
        }
        let open = self.sessions.iter().filter(|(_, session)| session.state == State::Open).count();
        assert_eq!(opened - closed, open as u64);
    }
}
