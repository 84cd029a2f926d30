//! Embedder: the application above the simulated shards. It does at random what an application may do, and tells the
//! oracle of everything at the moment it does it.

use super::super::Shard;
use super::super::arena::Key;
use super::super::drive::App;
use super::super::feeds::{EVENT_BYTES, whole_key};
use super::super::mail::{Acked, Event, Target};
use super::super::runs::LAID_OUT_BYTES_MAX;
use super::super::sockets::{Socket, SocketState, Unsent};
use super::oracle::{Oracle, head};
use crate::proto::fuzzing::Random;
use crate::proto::{Fate, Prepared, socketio};
use bytes::Bytes;
use serde_json::Value;
use std::cell::RefCell;
use std::sync::Arc;

pub const NAMESPACES: [&str; 3] = ["/", "/a", "/b"];
pub const ROOMS: [&str; 6] = ["r0", "r1", "r2", "r3", "r4", "r5"];
const KEYS: [&str; 6] = ["k0", "k1", "k2", "k3", "k4", "k5"];

pub struct Embedder {
    pub state: RefCell<State>,
}

pub struct State {
    pub oracle: Oracle,
    random: Random,
    /// CONNECTs that wait for their answer.
    undecided: Vec<(u16, Key<Socket>)>,
    /// Numbers of emits, and tokens.
    next: u64,
    /// Most broadcasts are larger than what is laid end to end.
    large: bool,
    /// Only answers what comes, does nothing by itself.
    pub quiet: bool,
}

impl Embedder {
    pub fn new(oracle: Oracle, seed: u64, large: bool) -> Embedder {
        let random = Random::new(seed);
        let state = State { oracle, random, undecided: Vec::new(), next: 0, large, quiet: false };
        Embedder { state: RefCell::new(state) }
    }
}

impl App for Embedder {
    fn handle(&self, shard: &RefCell<Shard>, event: Event<'_>) {
        self.state.borrow_mut().handle(&mut shard.borrow_mut(), event);
    }
}

impl State {
    fn handle(&mut self, shard: &mut Shard, event: Event<'_>) {
        let number = shard.number();
        match event {
            Event::Connect { socket, namespace, .. } => self.connect(shard, socket, &namespace),
            Event::Received { socket, name, data, attachments, ack_id } => {
                self.received(shard, socket, &name, &data, &attachments, ack_id);
            }
            Event::Acked { token, outcome } => {
                let at = self.oracle.acked(token, matches!(outcome, Acked::TimedOut));
                let ended = |shard: &Shard, key| shard.socket(key).is_none_or(|it| it.state == SocketState::Closed);
                let key = self.oracle.places[at].key;
                match outcome {
                    Acked::Answered { data, .. } => {
                        assert_eq!(data, format!("[{token}]"), "the answer to this question")
                    }
                    Acked::Disconnected => assert!(ended(shard, key)),
                    Acked::TimedOut => {}
                }
            }
            Event::Disconnected { socket, reason } => {
                let at = self.oracle.place_of(number, socket);
                self.oracle.rooms_agree(shard, at);
                self.oracle.disconnected(at, reason);
                if !self.quiet && self.random.one_in(8) {
                    let namespace = self.oracle.places[at].namespace.clone();
                    self.broadcast(shard, &Target { namespace: namespace.into(), ..Target::default() });
                }
            }
            Event::Pressure { socket, high } => {
                let at = self.oracle.place_of(number, socket);
                self.oracle.pressure(at, high);
            }
            Event::Counted { token, counts } => self.oracle.counted(token, counts.sockets),
            Event::Opened { .. } | Event::Message { .. } | Event::Closed { .. } => {
                unreachable!("only a bare Engine.IO server tells these")
            }
        }
    }

    fn connect(&mut self, shard: &mut Shard, key: Key<Socket>, namespace: &str) {
        self.oracle.connecting(shard, key, namespace);
        let at = self.oracle.place_of(shard.number(), key);
        if self.random.one_in(3) {
            let room = *self.random.pick(&ROOMS);
            self.join(shard, at, room);
        }
        if self.random.one_in(12) {
            self.ask(shard, at);
        }
        if !self.quiet && self.random.one_in(5) {
            self.undecided.push((shard.number(), key))
        } else {
            self.decide(shard, key)
        }
    }

    /// Answers a CONNECT, if anybody still waits.
    fn decide(&mut self, shard: &mut Shard, key: Key<Socket>) {
        let waits = shard.socket(key).is_some_and(|socket| socket.state == SocketState::Connecting);
        if self.random.one_in(8) {
            let error = r#"{"message":"not you"}"#;
            if waits {
                self.oracle.refused(self.oracle.place_of(shard.number(), key), error);
            }
            return shard.refuse(key, error);
        }
        assert_eq!(shard.accept(key), waits);
        if waits {
            let at = self.oracle.place_of(shard.number(), key);
            self.oracle.accepted(at);
        }
        assert!(!shard.accept(key), "a CONNECT is answered once");
    }

    fn received(
        &mut self,
        shard: &mut Shard,
        key: Key<Socket>,
        name: &str,
        data: &str,
        attachments: &[Bytes],
        ack_id: Option<u64>,
    ) {
        let at = self.oracle.place_of(shard.number(), key);
        let args: Vec<Value> = serde_json::from_str(data).expect("the codec has checked it");
        let place = &mut self.oracle.places[at];
        assert_eq!(args[1].as_u64(), Some(place.next_event), "events arrive once and in order");
        place.next_event += 1;
        let (namespace, id) = (place.namespace.clone(), place.id.clone());
        let room = args.get(2).and_then(Value::as_str).unwrap_or_default();
        let everyone = Target { namespace: namespace.clone().into(), ..Target::default() };
        match name {
            "join" => self.join(shard, at, room),
            "leave" => {
                self.oracle.leave(at, room);
                shard.leave_room(key, room);
            }
            "to" => self.broadcast(shard, &Target { rooms: vec![room.into()], except: vec![id.into()], ..everyone }),
            "all" => self.broadcast(shard, &everyone),
            "ask" => {
                let ack_id = ack_id.expect("its client wants an answer");
                self.emit(
                    shard,
                    at,
                    &socketio::ack(&namespace, ack_id, "[7]", &[]),
                    &format!("{}{ack_id}[7]", head("3", &namespace)),
                    &[],
                );
            }
            "echo" => {
                let data = data.replace("echo", "echoed");
                let kind = if attachments.is_empty() { "2".into() } else { format!("5{}-", attachments.len()) };
                let text = format!("{}{data}", head(&kind, &namespace));
                self.emit(shard, at, &socketio::event(&namespace, None, &data, attachments), &text, attachments);
            }
            "kick" => {
                let close = room == "close";
                self.oracle.disconnect(shard, at, close);
                shard.disconnect(key, close);
                assert_eq!(
                    shard.emit(key, &Arc::new(socketio::event("/", None, "[\"late\"]", &[])), false),
                    Err(Unsent::Closed)
                );
            }
            other => panic!("no client emits {other}"),
        }
    }

    fn emit(&mut self, shard: &mut Shard, at: usize, packet: &Prepared, text: &str, attachments: &[Bytes]) {
        let key = self.oracle.places[at].key;
        if shard.emit(key, &Arc::new(packet.clone()), false).is_ok() {
            self.oracle.owe(at, text, attachments.iter().map(|bytes| bytes.to_vec()).collect());
        }
    }

    fn join(&mut self, shard: &mut Shard, at: usize, room: &str) {
        let fits = self.oracle.join(shard, at, room);
        let joined = shard.join(self.oracle.places[at].key, room);
        assert_eq!(joined, if fits { Ok(()) } else { Err(Unsent::TooManyRooms) });
    }

    /// Emits an event that wants an ack.
    fn ask(&mut self, shard: &mut Shard, at: usize) {
        let (key, namespace) = (self.oracle.places[at].key, self.oracle.places[at].namespace.clone());
        let token = self.number();
        let timeout = (!self.random.one_in(3)).then(|| self.random.below(3000) as u64);
        let Ok(ack_id) = shard.expect_ack(key, token, timeout) else { return };
        self.oracle.await_ack(at, token, timeout.map(|timeout| shard.now + timeout));
        let data = format!("[\"question\",{token}]");
        let text = format!("{}{ack_id}{data}", head("2", &namespace));
        self.emit(shard, at, &socketio::event(&namespace, Some(ack_id), &data, &[]), &text, &[]);
    }

    fn broadcast(&mut self, shard: &mut Shard, target: &Target) {
        let (number, from) = (self.number(), shard.number());
        let mut target = target.clone();
        let fate = self.fate(shard, &mut target);
        let name = if target.key.is_some() { "feed" } else { "cast" };
        let padding = match (self.random.one_in(6), self.large) {
            (true, _) => self.random.below(1200),
            (false, true) => LAID_OUT_BYTES_MAX + self.random.below(400),
            (false, false) => self.random.below(40),
        };
        let binary = self.random.one_in(8).then(|| Bytes::from(self.random.bytes(200)));
        let (kind, hole) = if binary.is_some() { ("51-", r#",{"_placeholder":true,"num":0}"#) } else { ("2", "") };
        let data = format!("[\"{name}\",{from},{number},\"{}\"{hole}]", "x".repeat(padding));
        let attachments: Vec<Bytes> = binary.into_iter().collect();
        let packet = Arc::new(socketio::event(&target.namespace, None, &data, &attachments).with_fate(fate));
        let text = format!("{}{data}", head(kind, &target.namespace));
        let owned = attachments.iter().map(|bytes| bytes.to_vec()).collect();
        self.oracle.prepared(&packet, text, owned, target.volatile);
        let certain = !target.volatile && *packet.fate() != Fate::DroppedNewest;
        let token = (certain && self.random.one_in(3)).then_some(number);
        if let Some(token) = token {
            self.oracle.count(token, shard.shards);
        }
        let before = shard.counters;
        let concerned = self.oracle.broadcast(shard, &target, &packet, token) as u64;
        shard.broadcast(&Arc::new(target.clone()), &packet, token);
        let reached = shard.counters.deliveries - before.deliveries;
        let dropped = shard.counters.volatile_dropped - before.volatile_dropped;
        let turned_away = shard.counters.turned_away - before.turned_away;
        assert_eq!(reached + dropped + turned_away, concerned, "{target:?}");
        // What is held may be volatile, and leaves because of this one.
        assert!(!certain || dropped + turned_away == 0 || !shard.settings.feeds.is_empty());
    }

    /// What may become of an event. If newer ones are to take its place, it gets a key, and sometimes else.
    fn fate(&mut self, shard: &Shard, target: &mut Target) -> Fate {
        let key = self.key(shard);
        target.key = self.random.one_in(4).then(|| key.clone());
        match self.random.below(8) {
            0 => Fate::DroppedNewest,
            1 => Fate::DroppedOldest,
            2..5 => {
                target.key = Some(key.clone());
                target.rooms.truncate(if self.random.one_in(4) { 3 } else { 1 });
                Fate::Conflated(whole_key(&target.namespace, target.rooms.iter().map(|room| &**room), &key))
            }
            _ => Fate::Kept,
        }
    }

    /// A key: some are so long that two more or less fill a window. Large events do that too, but keys are sent to nobody.
    fn key(&mut self, shard: &Shard) -> Box<str> {
        let key = *self.random.pick(&KEYS);
        let half = shard.settings.outbox_bytes_max / 2 - EVENT_BYTES - 300;
        let rest = if self.random.one_in(4) && !self.large { half } else { 0 };
        (key.to_owned() + &"x".repeat(rest)).into()
    }

    /// Something that the application does by itself.
    pub fn act(&mut self, shard: &mut Shard) {
        let number = shard.number();
        while let Some(at) = self.undecided.iter().position(|&(other, _)| other == number)
            && (self.quiet || self.random.one_in(3))
        {
            let (_, key) = self.undecided.remove(at);
            self.decide(shard, key);
        }
        if self.quiet {
            return;
        }
        let here = &self.oracle.here[shard.number() as usize];
        let someone = (!here.is_empty()).then(|| here[self.random.below(here.len())]);
        match (self.random.below(24), someone) {
            (0..8, _) => {
                let target = self.target();
                self.broadcast(shard, &target);
            }
            (8..11, Some(at)) => self.ask(shard, at),
            (11, Some(at)) => self.oracle.rooms_agree(shard, at),
            (12, Some(at)) => {
                let (key, namespace) = (self.oracle.places[at].key, self.oracle.places[at].namespace.clone());
                let data = format!("[\"maybe\",{}]", self.number());
                if shard.emit(key, &Arc::new(socketio::event(&namespace, None, &data, &[])), true).is_ok() {
                    self.oracle.owe_maybe(at, &format!("{}{data}", head("2", &namespace)));
                }
            }
            (13, _) => self.act_on_many(shard),
            (14, _) if self.random.one_in(4) => {
                let key = self.random.one_in(2).then(|| self.key(shard));
                let target = Target { key, ..self.target() };
                self.oracle.forget(shard, &target);
                shard.forget(&Arc::new(target));
            }
            (15, _) => {
                let token = self.number();
                self.oracle.count(token, shard.shards);
                self.oracle.share(token, 0);
                shard.mark(token);
            }
            _ => {}
        }
    }

    fn act_on_many(&mut self, shard: &mut Shard) {
        let mut target = self.target();
        target.volatile = false;
        let rooms: Arc<[Box<str>]> = [self.room().into(), self.room().into()].into();
        match self.random.below(8) {
            0..4 => {
                self.oracle.joined_by(shard, &target, &rooms);
                shard.sockets_join(&Arc::new(target), rooms);
            }
            4..7 => {
                self.oracle.left_by(shard, &target, &rooms);
                shard.sockets_leave(&Arc::new(target), rooms);
            }
            _ if target.rooms.len() == 1 => {
                let close = self.random.one_in(2);
                self.oracle.disconnected_by(shard, &target, close);
                shard.disconnect_sockets(&Arc::new(target), close);
            }
            _ => {}
        }
    }

    fn target(&mut self) -> Target {
        let rooms = if self.random.one_in(4) { 0 } else { 1 + self.random.below(3) };
        let except = if self.random.one_in(3) { 1 + self.random.below(2) } else { 0 };
        Target {
            namespace: (*self.random.pick(&NAMESPACES)).into(),
            rooms: (0..rooms).map(|_| self.room().into()).collect(),
            except: (0..except).map(|_| self.room().into()).collect(),
            volatile: self.random.one_in(6),
            key: None,
        }
    }

    /// A room's name: now and then the id of a socket, wherever it lives or lived.
    fn room(&mut self) -> String {
        let places = &self.oracle.places;
        if !places.is_empty() && self.random.one_in(5) {
            return places[self.random.below(places.len())].id.clone();
        }
        (*self.random.pick(&ROOMS)).into()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
