//! World: shards, clients and what lies between them, under one clock and one seed.
//!
//! Each round the clock goes on, every client takes a step, and most shards take one turn in exactly the order in which
//! a worker drives them. Mail between two shards keeps its order and takes its time.

use super::super::arena::Key;
use super::super::drive;
use super::super::mail::{Ending, Mail, Reply, Request};
use super::super::outbox::EXCESS;
use super::super::session::{Conn, Handshake, Role, Session, State, Transport};
use super::super::{Carries, Counters, Millis, Shard};
use super::client::{Client, Outside, Temper};
use super::embedder::{Embedder, NAMESPACES, ROOMS};
use super::meter::Meter;
use super::network::{Arrival, Network, Sender};
use super::oracle::Oracle;
use crate::proto::Id;
use crate::proto::fuzzing::Random;
use crate::settings::{Feed, Settings};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

/// How long a healthy client may wait for what it is owed, whatever others do.
const PATIENCE_MS: Millis = 6_000;

pub struct World {
    random: Random,
    now: Millis,
    shards: Vec<RefCell<Shard>>,
    /// Mail under way to each shard.
    mailboxes: Vec<VecDeque<Mail>>,
    network: Network,
    clients: Vec<Client>,
    app: Embedder,
    meter: Meter,
    settings: Arc<Settings>,
    write_budget: usize,
    quiet: bool,
}

/// What a run amounted to.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    pub traffic: u64,
    pub packets_seen: u64,
    pub ends: BTreeMap<&'static str, u64>,
    pub counters: Counters,
}

impl World {
    pub fn new(seed: u64, trace: bool) -> World {
        let mut random = Random::new(seed);
        let shards = 2 + random.below(3) as u16;
        let large = random.one_in(4);
        let settings = Arc::new(settings(&mut random, large));
        let key = |random: &mut Random| std::array::from_fn(|_| random.next() as u8);
        let oracle = Oracle::new(shards, settings.rooms_per_socket_max, trace);
        let clients = 60 + random.below(140);
        World {
            now: 0,
            shards: (0..shards)
                .map(|number| {
                    RefCell::new(Shard::new(number, shards, settings.clone(), Carries::SocketIo, key(&mut random)))
                })
                .collect(),
            mailboxes: (0..shards).map(|_| VecDeque::new()).collect(),
            network: Network::new(shards),
            clients: (0..clients).map(|_| Client::new(temper(&mut random))).collect(),
            app: Embedder::new(oracle, random.next(), large),
            meter: Meter::new(&settings),
            settings,
            // Large events leave one by one.
            write_budget: (40 + random.below(200)) * if large { 5 } else { 1 },
            quiet: false,
            random,
        }
    }

    pub fn run(mut self) -> Summary {
        let rounds = 100 + self.random.below(120);
        let drained_from = self.random.one_in(3).then(|| self.random.below(rounds));
        for round in 0..rounds {
            if drained_from == Some(round) {
                self.begin_drain();
            }
            // After a long pause everybody has time to catch up before the next one.
            let pause = if round % 8 == 0 && self.random.one_in(2) {
                150 + self.random.below(500)
            } else {
                1 + self.random.below(40)
            };
            self.round(pause as u64);
        }
        self.come_to_rest();
        if drained_from.is_some() {
            self.finish_drain();
        }
        self.shut_down();
        self.summary()
    }

    fn round(&mut self, pause_ms: Millis) {
        self.now += pause_ms;
        self.app.state.borrow_mut().oracle.now = self.now;
        for at in 0..self.clients.len() {
            if self.clients[at].temper == Temper::Healthy || self.random.one_in(2) {
                self.step(at);
            }
        }
        for number in 0..self.shards.len() {
            if !self.random.one_in(8) {
                self.turn(number as u16);
            }
        }
        self.check_patience();
    }

    fn step(&mut self, at: usize) {
        let mut state = self.app.state.borrow_mut();
        self.clients[at].step(&mut Outside {
            network: &mut self.network,
            oracle: &mut state.oracle,
            random: &mut self.random,
            workers: self.shards.len() as u16,
            quiet: self.quiet,
        });
    }

    // ---- one turn of a worker

    fn turn(&mut self, number: u16) {
        self.shards[number as usize].borrow_mut().tell_time(self.now);
        self.read(number);
        self.take_arrivals(number);
        self.take_mail(number);
        self.advance(number);
        self.act(number);
        self.post(number);
        self.write(number);
        let left = self.shed(number);
        self.bury(number);
        let waiting = self.shards[number as usize].borrow().waiting_cost();
        assert!(left.is_none_or(|left| waiting <= left), "what is too much is gone");
    }

    /// Now and then too much waits in the process. Returns how much may be left, then.
    fn shed(&mut self, number: u16) -> Option<usize> {
        let shard = &self.shards[number as usize];
        let waiting = shard.borrow().waiting_cost();
        // A drain promises what no server can keep that runs out of memory.
        let draining = shard.borrow().draining().is_some();
        if self.quiet || draining || waiting == 0 || !self.random.one_in(100) {
            return None;
        }
        let excess = 1 + self.random.below(waiting);
        self.app.state.borrow_mut().oracle.shedding = true;
        let before = lingering(&shard.borrow());
        shard.borrow_mut().shed(excess);
        drive::hear_out(shard, &self.app);
        let oracle = &mut self.app.state.borrow_mut().oracle;
        oracle.shedding = false;
        // Those who have left and had not polled yet miss what they were owed; no socket tells of it any more.
        before.difference(&lingering(&shard.borrow())).for_each(|sid| oracle.blame(*sid));
        Some(waiting - excess)
    }

    fn advance(&self, number: u16) {
        let shard = &self.shards[number as usize];
        self.app.state.borrow_mut().oracle.advance(&shard.borrow(), self.now);
        drive::advance(shard, &self.app, self.now);
    }

    fn act(&mut self, number: u16) {
        let shard = &self.shards[number as usize];
        for _ in 0..1 + self.random.below(3) {
            self.app.state.borrow_mut().act(&mut shard.borrow_mut());
            drive::hear_out(shard, &self.app);
        }
    }

    /// Streams that are readable, writable or broken.
    fn read(&mut self, number: u16) {
        for at in 0..self.network.streams.len() {
            let stream = &mut self.network.streams[at];
            let Some((_, conn)) = stream.conn.filter(|&(shard, _)| shard == number) else { continue };
            let shard = &self.shards[number as usize];
            if stream.reset {
                if !std::mem::replace(&mut stream.hung_up, true) {
                    shard.borrow_mut().on_hangup(conn, true);
                }
            } else if !stream.to_server.is_empty() {
                let len = stream.to_server.len();
                let taken = if self.random.one_in(3) { 1 + self.random.below(len.min(9)) } else { len };
                let mut bytes: Vec<u8> = stream.to_server.drain(..taken).collect();
                self.network.traffic.write(&bytes);
                let before = shard.borrow().counters.rate_limited;
                let over = self.meter_stream(number, at, conn, &bytes);
                let shard = &self.shards[number as usize];
                drive::receive(shard, &self.app, conn, &mut bytes);
                check_rate(&shard.borrow(), before, over);
            } else if stream.client_finished && !std::mem::replace(&mut stream.hung_up, true) {
                shard.borrow_mut().on_hangup(conn, false);
            }
            let (stream, shard) = (&mut self.network.streams[at], &self.shards[number as usize]);
            if stream.blocked && stream.has_room() && !stream.reset {
                stream.blocked = false;
                shard.borrow_mut().on_writable(conn);
            }
            drive::hear_out(shard, &self.app);
        }
    }

    /// Measures what a client says over a stream. The session that has said too much must end by it.
    fn meter_stream(&mut self, number: u16, stream: usize, conn: Key<Conn>, bytes: &[u8]) -> Option<Id> {
        let shard = self.shards[number as usize].borrow();
        let (session, serves) = match shard.conns.get(conn)?.role {
            Role::Serving(session) => (session, true),
            Role::Probing { session, .. } => (session, false),
            Role::Leaving(_) => return None,
        };
        let sid = shard.session(session)?.id;
        let over = self.meter.is_on() && self.meter.streamed(stream, serves, sid, self.now, bytes);
        over.then(|| self.app.state.borrow_mut().oracle.blame(sid));
        over.then_some(sid)
    }

    /// The same for a request.
    fn meter_request(&mut self, number: u16, sid: Id, request: &Request) -> Option<Id> {
        let Request::Push(body) = request else { return None };
        let shard = self.shards[number as usize].borrow();
        let session = shard.session(shard.session_by_sid(&sid)?)?;
        let polls = matches!(session.transport, Transport::Polling { .. });
        let heard = session.state == State::Open && polls && self.meter.is_on();
        let over = heard && self.meter.pushed(sid, self.now, body);
        over.then(|| self.app.state.borrow_mut().oracle.blame(sid));
        over.then_some(sid)
    }

    fn take_arrivals(&mut self, number: u16) {
        let most = self.network.arrivals[number as usize].len();
        let count = if self.random.one_in(6) { self.random.below(most + 1) } else { most };
        for _ in 0..count {
            let arrival = self.network.arrivals[number as usize].pop_front().expect("counted");
            let over = match &arrival {
                Arrival::Request(sid, request, _) if sid.shard() == number => self.meter_request(number, *sid, request),
                _ => None,
            };
            let shard = &self.shards[number as usize];
            match arrival {
                Arrival::Polling(exchange) => {
                    let opened = shard.borrow_mut().open_polling(handshake());
                    let reply = match opened {
                        Ok((_, payload)) => Reply::Payload(payload),
                        Err(refusal) => Reply::Refused(refusal),
                    };
                    self.network.answer(number, exchange, reply);
                }
                Arrival::WebSocket(stream) => match shard.borrow_mut().open_websocket(handshake()) {
                    Ok(conn) => self.network.attach(stream, number, conn),
                    Err(_) => self.network.streams[stream].reset = true,
                },
                Arrival::Upgrade(stream, sid) => {
                    let conn = shard.borrow_mut().open_upgrade(sid);
                    self.network.attach(stream, number, conn);
                }
                Arrival::Request(sid, request, exchange) if sid.shard() == number => {
                    let before = shard.borrow().counters.rate_limited;
                    drive::request(shard, &self.app, sid, request, exchange);
                    check_rate(&shard.borrow(), before, over);
                }
                Arrival::Request(sid, request, exchange) => {
                    shard.borrow_mut().post(sid.shard(), Mail::Request { sid, request, exchange });
                }
                Arrival::Abandoned(sid, exchange) if sid.shard() == number => {
                    shard.borrow_mut().on_abandoned(sid, exchange);
                }
                Arrival::Abandoned(sid, exchange) => {
                    shard.borrow_mut().post(sid.shard(), Mail::Abandoned { sid, exchange });
                }
            }
            drive::hear_out(shard, &self.app);
        }
    }

    fn take_mail(&mut self, number: u16) {
        let most = self.mailboxes[number as usize].len();
        let count = if self.random.one_in(4) { self.random.below(most + 1) } else { most };
        for _ in 0..count {
            let mail = self.mailboxes[number as usize].pop_front().expect("counted");
            let over = match &mail {
                Mail::Request { sid, request, .. } => self.meter_request(number, *sid, request),
                _ => None,
            };
            let shard = &self.shards[number as usize];
            let before = shard.borrow().counters;
            let reaches = self.foresee(&shard.borrow(), &mail);
            drive::deliver(shard, &self.app, mail);
            check_rate(&shard.borrow(), before.rate_limited, over);
            // A broadcast causes no event here, so nothing else can have been counted.
            let concerned = |it: &Counters| it.deliveries + it.volatile_dropped + it.turned_away;
            let reached = concerned(&shard.borrow().counters) - concerned(&before);
            assert!(reaches.is_none_or(|reaches| reaches as u64 == reached), "{reached} are not {reaches:?}");
        }
    }

    /// Tells the oracle what a piece of mail is about to do. For a broadcast, how many it concerns.
    fn foresee(&self, shard: &Shard, mail: &Mail) -> Option<usize> {
        let oracle = &mut self.app.state.borrow_mut().oracle;
        match mail {
            Mail::Broadcast { target, packet, count } => {
                return Some(oracle.broadcast(shard, target, packet, count.map(|count| count.token)));
            }
            Mail::Join { target, rooms } => oracle.joined_by(shard, target, rooms),
            Mail::Leave { target, rooms } => oracle.left_by(shard, target, rooms),
            Mail::Disconnect { target, close } => oracle.disconnected_by(shard, target, *close),
            Mail::Forget { target } => return Some(oracle.forget(shard, target)),
            Mail::Mark { count } => oracle.share(count.token, 0),
            Mail::Request { .. } | Mail::Abandoned { .. } | Mail::Answer { .. } | Mail::Counted { .. } => {}
        }
        None
    }

    fn post(&mut self, number: u16) {
        let mut shard = self.shards[number as usize].borrow_mut();
        for (exchange, reply) in shard.route_answers() {
            self.app.state.borrow().oracle.note(|| format!("answer to {}: {reply:?}", exchange.number));
            self.network.answer(number, exchange, reply);
        }
        for (to, mail) in shard.take_mail() {
            self.mailboxes[to as usize].push_back(mail);
        }
    }

    fn write(&mut self, number: u16) {
        let shard = &self.shards[number as usize];
        let mut sender = Sender { network: &mut self.network, random: &mut self.random, shard: number };
        shard.borrow_mut().write(&mut sender, self.write_budget);
        drive::hear_out(shard, &self.app);
    }

    fn bury(&mut self, number: u16) {
        let shard = &self.shards[number as usize];
        self.app.state.borrow_mut().oracle.turn_ends(&shard.borrow());
        let endings = shard.borrow_mut().bury();
        for ending in endings {
            match ending {
                Ending::FinishWriting(conn) => {
                    let stream = self.network.stream_of(number, conn);
                    self.network.streams[stream].server_finished = true;
                }
                Ending::Close(conn) => self.network.close(number, conn),
                Ending::Reset(conn) => self.network.reset(number, conn),
                Ending::Buried(_) => unreachable!("nobody asked for it"),
            }
        }
        let shard = shard.borrow();
        shard.invariants();
        // Whoever is dirty waits for our own budget, which is not its fault and does not count against it.
        let behind = |session: &Session| session.state == State::Open && !session.queued.anywhere();
        let max = self.settings.outbox_bytes_max;
        for (_, session) in shard.sessions.iter().filter(|(_, session)| behind(session)) {
            assert!(session.outbox.backlog_bytes() <= max + max / EXCESS, "the limit holds");
        }
    }

    // ---- checks

    fn check_patience(&self) {
        let oracle = &self.app.state.borrow().oracle;
        for client in self.clients.iter().filter(|client| client.temper == Temper::Healthy) {
            let missing = client.session().and_then(|sid| oracle.waits_for(sid));
            assert!(missing.is_none_or(|it| it.since + PATIENCE_MS > self.now), "a healthy client is not delayed");
        }
    }

    /// Nothing new begins; what is under way arrives.
    fn come_to_rest(&mut self) {
        self.quiet = true;
        self.app.state.borrow_mut().quiet = true;
        for _ in 0..60 {
            self.round(20);
        }
        let oracle = &self.app.state.borrow().oracle;
        for client in self.clients.iter().filter(|client| client.temper == Temper::Healthy) {
            let Some(sid) = client.session() else { continue };
            // What a timer has caused a moment ago may still be under way.
            let missing = oracle.waits_for(sid).filter(|owed| owed.since + 400 < self.now);
            assert!(missing.is_none(), "{sid} is still there and has not got everything: {missing:?}");
        }
    }

    /// The server lets its clients go one after another, while everything goes on. It reaches shards at different times.
    fn begin_drain(&mut self) {
        let over = self.random.below(4_000) as Millis;
        for shard in &self.shards {
            self.now += self.random.below(5) as Millis;
            let mut shard = shard.borrow_mut();
            shard.tell_time(self.now);
            shard.drain(over);
        }
    }

    /// The drain comes to its end by itself. Nobody who reads has lost what was queued before they were let go.
    fn finish_drain(&mut self) {
        for _ in 0..200 {
            self.round(50);
        }
        for shard in &self.shards {
            let shard = shard.borrow();
            assert_eq!((shard.draining(), shard.session_count()), (Some(0), 0), "shard {}", shard.number());
        }
        self.app.state.borrow().oracle.let_go_in_order();
    }

    /// The server shuts down: afterwards nothing is left anywhere.
    fn shut_down(&mut self) {
        for number in 0..self.shards.len() {
            self.app.state.borrow_mut().oracle.flush_all(&self.shards[number].borrow());
            self.shards[number].borrow_mut().shut_down();
            drive::hear_out(&self.shards[number], &self.app);
        }
        for round in 0..160 {
            self.round(if round < 100 { 10 } else { 1_000 });
        }
        for (shard, mailbox) in self.shards.iter().zip(&self.mailboxes) {
            let shard = shard.borrow();
            assert!(mailbox.is_empty() && !shard.has_work(), "shard {} is at rest", shard.number());
            assert_eq!((shard.session_count(), shard.conn_count(), shard.sockets.len()), (0, 0, 0), "all is gone");
            assert_eq!(shard.runs.len(), 0, "every run is freed");
            assert!(shard.namespaces.len() == 0 && shard.namespace_slots.is_empty());
            let Counters { opened, closed, queued, written, discarded, parted, .. } = shard.counters;
            let Counters { dropped_newest, dropped_oldest, conflated, .. } = shard.counters;
            let dropped = dropped_newest + dropped_oldest + conflated;
            assert_eq!((opened, queued), (closed, written + discarded + parted + dropped), "the counters balance");
        }
        assert_eq!(self.network.unanswered(), 0, "every request was answered");
        self.app.state.borrow().oracle.all_ended();
    }

    fn summary(self) -> Summary {
        let mut counters = Counters::default();
        for shard in &self.shards {
            add(&mut counters, &shard.borrow().counters);
        }
        let oracle = self.app.state.into_inner().oracle;
        let Counters { dropped_newest, dropped_oldest, turned_away, conflated, .. } = counters;
        let dropped = dropped_newest + dropped_oldest + turned_away;
        assert!(oracle.skipped.dropped <= dropped, "nothing is dropped without being counted");
        assert!(oracle.skipped.conflated <= conflated, "nothing is replaced without being counted");
        Summary { traffic: self.network.traffic.finish(), packets_seen: oracle.seen, ends: oracle.ends, counters }
    }
}

/// Sessions that wait for their last poll.
fn lingering(shard: &Shard) -> BTreeSet<Id> {
    let lingers = |session: &Session| matches!(session.state, State::Lingering { .. });
    shard.sessions.iter().filter(|(_, session)| lingers(session)).map(|(_, session)| session.id).collect()
}

/// Who said too much is closed at once, and nobody else is closed for it.
fn check_rate(shard: &Shard, before: u64, over: Option<Id>) {
    assert!(shard.counters.rate_limited - before <= u64::from(over.is_some()), "a client below its limits was closed");
    let Some(sid) = over else { return };
    let open = |key| shard.session(key).is_some_and(|session| session.state == State::Open);
    assert!(!shard.session_by_sid(&sid).is_some_and(open), "{sid} said too much and is still there");
}

fn add(total: &mut Counters, more: &Counters) {
    total.opened += more.opened;
    total.queued += more.queued;
    total.written += more.written;
    total.discarded += more.discarded;
    total.parted += more.parted;
    total.deliveries += more.deliveries;
    total.volatile_dropped += more.volatile_dropped;
    total.conflated_in_windows += more.conflated_in_windows;
    total.windows_full += more.windows_full;
    total.caught_up += more.caught_up;
    total.retained_forgotten += more.retained_forgotten;
    total.evicted += more.evicted;
    total.evicted_late += more.evicted_late;
    total.evicted_for_memory += more.evicted_for_memory;
    total.dropped_newest += more.dropped_newest;
    total.dropped_oldest += more.dropped_oldest;
    total.turned_away += more.turned_away;
    total.conflated += more.conflated;
    total.counts_held += more.counts_held;
    total.let_go += more.let_go;
    total.rate_limited += more.rate_limited;
    total.protocol_errors += more.protocol_errors;
    total.received += more.received;
    total.refused += more.refused;
    total.joins_refused += more.joins_refused;
    total.bytes_out += more.bytes_out;
}

/// With `large` events there is as much more room for them.
fn settings(random: &mut Random, large: bool) -> Settings {
    let ping_spread = random.one_in(2);
    let mut limit = |least: usize, span: usize| if random.one_in(3) { least + random.below(span) } else { 0 };
    let (events_per_second_max, bytes_per_second_max) = (limit(5, 60), limit(300, 10_000));
    let mut ms = |least: usize, span: usize| Duration::from_millis((least + random.below(span)) as u64);
    Settings {
        events_per_second_max,
        bytes_per_second_max,
        ping_interval: ms(1_000, 4_000),
        ping_spread,
        ping_timeout: ms(2_000, 3_000),
        upgrade_timeout: ms(1_500, 4_000),
        connect_timeout: ms(2_000, 8_000),
        // Longer than a healthy client may have to wait.
        outbox_age_max: ms(PATIENCE_MS as usize, 4_000),
        outbox_bytes_max: (60_000 + random.below(80_000)) * if large { 12 } else { 1 },
        // Packets are some 300 bytes here, with what they cost beside their data.
        lag_bytes_max: 300 << random.below(12),
        outbox_watermark: 500 + random.below(20_000),
        payload_bytes_max: 3_000 + random.below(20_000),
        namespaces_per_session_max: 2 + random.below(3),
        rooms_per_socket_max: 2 + random.below(6),
        conflate_keys_max: 1 + random.below(4),
        retain_keys_max: 2 + random.below(6),
        retain_rooms_max: 2 + random.below(3),
        retain_bytes_max: 1000 << random.below(10),
        feeds: feeds(random),
        ..Settings::default()
    }
}

/// Rules for some rooms and namespaces, or none at all.
fn feeds(random: &mut Random) -> Vec<Feed> {
    let rules = if random.one_in(4) { 0 } else { 1 + random.below(6) };
    let rule = |random: &mut Random| Feed {
        namespace: (*random.pick(&NAMESPACES)).into(),
        room: match random.below(4) {
            0 => None,
            1 => Some("r*".into()),
            _ => Some((*random.pick(&ROOMS)).into()),
        },
        conflate_every: (!random.one_in(4)).then(|| Duration::from_millis(10 + random.below(300) as u64)),
        retain: random.one_in(2),
        ..Feed::default()
    };
    (0..rules).map(|_| rule(random)).collect()
}

fn temper(random: &mut Random) -> Temper {
    match random.below(10) {
        0 => Temper::Slow,
        1 => Temper::Stalled,
        2 => Temper::Silent,
        3 | 4 => Temper::Rude,
        _ => Temper::Healthy,
    }
}

fn handshake() -> Handshake {
    Handshake::new("/socket.io/?EIO=4", std::iter::empty(), ([127, 0, 0, 1], 9).into(), 0)
}
