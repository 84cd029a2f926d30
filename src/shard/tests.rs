//! What a shard promises, one promise a test. The simulator (simulation.rs) proves the same of all of them at once; here
//! each can be read, and its time is exact.

mod compaction;
mod drain;
mod endings;
mod feeds;
mod heartbeat;
mod lag;
mod pressure;
mod rates;
mod upgrade;

use super::drain::{PACE_MIN, STEP_CLIENTS_MAX};
use super::drive::{self, App};
use super::engine::FAREWELL_MS;
use super::lanes::NARROW_MAX;
use super::mail::{Acked, Count, Ending, Event, Exchange, Job, Mail, Reply, Request, Sent, Target, Wire};
use super::session::{Conn, Handshake, Role, Session};
use super::sockets::{Emitted, Socket, SocketState, Unsent};
use super::wheel::TICK_MS;
use super::{Carries, Counters, Key, Millis, Shard};
use crate::error::CloseReason;
use crate::proto::fuzzing::fuzz;
use crate::proto::websocket::{self, Opcode};
use crate::proto::{Id, Prepared, socketio};
use crate::settings::Settings;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

// ---- a server with one shard

const INTERVAL: Millis = 25_000;
const TIMEOUT: Millis = 20_000;
/// Events in a second, where a test limits them.
const EVENTS_MAX: usize = 10;

struct Server {
    shard: RefCell<Shard>,
    app: Recorder,
    pipes: Pipes,
    now: Millis,
    exchanges: u64,
    answers: BTreeMap<u64, Reply>,
    endings: Vec<Ending>,
}

/// Accepts everybody but those who come to `/refused` and `/later`, and remembers what happened.
#[derive(Default)]
struct Recorder {
    sockets: RefCell<Vec<Key<Socket>>>,
    ends: RefCell<Vec<CloseReason>>,
    names: RefCell<Vec<String>>,
    acks: RefCell<Vec<String>>,
    pressure: RefCell<Vec<bool>>,
}

impl App for Recorder {
    fn handle(&self, shard: &RefCell<Shard>, event: Event<'_>) {
        match event {
            Event::Connect { socket, namespace, .. } => {
                self.sockets.borrow_mut().push(socket);
                match &*namespace {
                    "/refused" => shard.borrow_mut().refuse(socket, r#"{"message":"no"}"#),
                    "/later" => {}
                    _ => drop(shard.borrow_mut().accept(socket)),
                }
            }
            Event::Received { name, .. } => self.names.borrow_mut().push(name.into_owned()),
            Event::Pressure { high, .. } => self.pressure.borrow_mut().push(high),
            Event::Disconnected { reason, .. } => self.ends.borrow_mut().push(reason),
            Event::Acked { token, outcome } => self.acks.borrow_mut().push(match outcome {
                Acked::Answered { data, .. } => format!("{token} {data}"),
                Acked::TimedOut => format!("{token} timed out"),
                Acked::Disconnected => format!("{token} disconnected"),
            }),
            _ => {}
        }
    }
}

/// Streams that take everything, or as much as `room` says.
#[derive(Default)]
struct Pipes {
    bytes: HashMap<Key<Conn>, Vec<u8>>,
    room: HashMap<Key<Conn>, usize>,
}

impl Wire for Pipes {
    fn send(&mut self, jobs: &[Job<'_>], sent: &mut Vec<Sent>) {
        for Job { conn, bytes } in jobs {
            let room = self.room.get_mut(conn);
            let taken = room.as_ref().map_or(bytes.len(), |room| bytes.len().min(**room));
            if let Some(room) = room {
                *room -= taken;
            }
            self.bytes.entry(*conn).or_default().extend_from_slice(&bytes[..taken]);
            sent.push(if taken == 0 { Sent::Blocked } else { Sent::Bytes(taken) });
        }
    }
}

fn server() -> Server {
    with(Settings::default())
}

/// One that pings nobody before all of the interval has passed.
fn calm() -> Server {
    with(Settings { ping_spread: false, ..Settings::default() })
}

fn with(settings: Settings) -> Server {
    Server {
        shard: RefCell::new(Shard::new(0, 1, Arc::new(settings), Carries::SocketIo, [7; 32])),
        app: Recorder::default(),
        pipes: Pipes::default(),
        now: 0,
        exchanges: 0,
        answers: BTreeMap::new(),
        endings: Vec::new(),
    }
}

impl Server {
    fn turn(&mut self) {
        drive::advance(&self.shard, &self.app, self.now);
        for _ in 0..2 {
            self.shard.borrow_mut().write(&mut self.pipes, 100);
            drive::hear_out(&self.shard, &self.app);
            let answers = self.shard.borrow_mut().route_answers();
            self.answers.extend(answers.into_iter().map(|(exchange, reply)| (exchange.number, reply)));
            let endings = self.shard.borrow_mut().bury();
            self.endings.extend(endings);
            self.shard.borrow().invariants();
        }
    }

    /// Lets time pass, slot by slot.
    fn wait(&mut self, ms: Millis) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + TICK_MS).min(until);
            self.turn();
        }
    }

    /// Lets time pass at a stroke.
    fn wait_at_once(&mut self, ms: Millis) {
        self.now += ms;
        self.turn();
    }

    /// Waits for the first ping of a client, which comes at any moment within the interval. Others of its packets are
    /// skipped.
    fn pinged(&mut self, conn: Key<Conn>) {
        let until = self.now + INTERVAL;
        while !self.heard(conn).contains(&"2".into()) {
            assert!(self.now < until, "no ping within the interval");
            self.wait(TICK_MS);
        }
    }

    fn websocket(&mut self) -> Key<Conn> {
        let conn = self.shard.borrow_mut().open_websocket(handshake()).expect("there is room");
        self.turn();
        assert!(self.heard(conn)[0].starts_with("0{"), "the open packet comes first");
        conn
    }

    /// A WebSocket client in the default namespace, and its socket.
    fn joined(&mut self) -> (Key<Conn>, Key<Socket>) {
        let conn = self.websocket();
        self.say(conn, "40");
        assert!(self.heard(conn)[0].starts_with("40{"));
        (conn, self.last_socket())
    }

    fn last_socket(&self) -> Key<Socket> {
        *self.app.sockets.borrow().last().expect("somebody connected")
    }

    fn say(&mut self, conn: Key<Conn>, text: &str) {
        self.send(conn, Opcode::Text, text.as_bytes());
    }

    fn send(&mut self, conn: Key<Conn>, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        websocket::put_frame(&mut frame, opcode, payload, Some([1, 2, 3, 4]));
        self.receive(conn, frame);
    }

    fn receive(&mut self, conn: Key<Conn>, mut bytes: Vec<u8>) {
        drive::receive(&self.shard, &self.app, conn, &mut bytes);
        self.turn();
    }

    /// What has come over the stream since the last look. Whole frames only.
    fn heard(&mut self, conn: Key<Conn>) -> Vec<String> {
        let mut bytes = self.pipes.bytes.remove(&conn).unwrap_or_default();
        let rules = websocket::Rules { role: websocket::Role::Client, message_bytes_max: 1 << 20, fragments_max: 1 };
        let (mut input, mut decoder, mut heard) = (&mut bytes[..], websocket::Decoder::default(), Vec::new());
        while let Some(item) = decoder.decode(&mut input, &rules).expect("a server's frames are right") {
            heard.push(match item {
                websocket::Item::Text(text) => text.into_owned(),
                websocket::Item::Close { code: None, .. } => "close".into(),
                websocket::Item::Close { code: Some(code), .. } => format!("close {code}"),
                websocket::Item::Pong(data) => format!("pong {}", data.escape_ascii()),
                other => format!("{other:?}"),
            });
        }
        heard
    }

    fn polling(&mut self) -> Id {
        let (key, _) = self.shard.borrow_mut().open_polling(handshake()).expect("there is room");
        let sid = self.shard.borrow().session(key).expect("just opened").id;
        self.turn();
        sid
    }

    /// A polling client in the default namespace that has heard of it, and its socket.
    fn polling_joined(&mut self) -> (Id, Key<Socket>) {
        let sid = self.polling();
        self.push(sid, "40");
        let poll = self.poll(sid);
        assert!(self.answer(poll).starts_with("40{"));
        (sid, self.last_socket())
    }

    fn request(&mut self, sid: Id, request: Request) -> u64 {
        self.exchanges += 1;
        let exchange = Exchange { worker: 0, number: self.exchanges };
        drive::request(&self.shard, &self.app, sid, request, exchange);
        self.turn();
        exchange.number
    }

    fn poll(&mut self, sid: Id) -> u64 {
        self.request(sid, Request::Poll)
    }

    fn push(&mut self, sid: Id, body: &str) -> String {
        let number = self.request(sid, Request::Push(body.to_owned().into()));
        self.answer(number)
    }

    /// The answer to a request, in short; `waits` if there is none yet.
    fn answer(&mut self, number: u64) -> String {
        match self.answers.remove(&number) {
            None => "waits".into(),
            Some(Reply::Payload(payload)) => String::from_utf8(payload.to_vec()).expect("text"),
            Some(Reply::Refused(refusal)) => format!("{refusal:?}"),
            Some(reply) => format!("{reply:?}"),
        }
    }

    fn upgrade(&mut self, sid: Id) -> Key<Conn> {
        let number = self.request(sid, Request::Upgrade);
        assert_eq!(self.answer(number), "Accepted");
        let conn = self.shard.borrow_mut().open_upgrade(sid);
        self.turn();
        conn
    }

    fn emit(&mut self, socket: Key<Socket>, data: &str, volatile: bool) -> Result<Emitted, Unsent> {
        let sent = self.shard.borrow_mut().emit(socket, &event(data), volatile);
        self.turn();
        sent
    }

    fn broadcast(&mut self, rooms: &[&str], except: &[&str], data: &str) -> usize {
        let boxed = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        let target = Target { namespace: "/".into(), rooms: boxed(rooms), except: boxed(except), ..Target::default() };
        let reached = self.shard.borrow_mut().fan_out(&target, &event(data)).sockets;
        self.turn();
        reached
    }

    fn join(&mut self, socket: Key<Socket>, room: &str) -> Result<(), Unsent> {
        self.shard.borrow_mut().join(socket, room)
    }

    fn id(&self, socket: Key<Socket>) -> String {
        self.shard.borrow().socket(socket).expect("alive").id.to_string()
    }

    fn ends(&self) -> Vec<CloseReason> {
        self.app.ends.take()
    }

    fn sessions(&self) -> usize {
        self.shard.borrow().session_count()
    }

    fn counters(&self) -> Counters {
        self.shard.borrow().counters
    }
}

fn event(data: &str) -> Arc<Prepared> {
    Arc::new(socketio::event("/", None, data, &[]))
}

fn handshake() -> Handshake {
    Handshake::new("/socket.io/", std::iter::empty(), ([127, 0, 0, 1], 9).into(), 0)
}

// ---- broadcasts and rooms

#[test]
fn a_socket_in_two_rooms_receives_once() {
    let mut server = server();
    let (conn, socket) = server.joined();
    server.join(socket, "a").unwrap();
    server.join(socket, "b").unwrap();
    assert_eq!(server.broadcast(&["a", "b", "a"], &[], "[1]"), 1);
    assert_eq!(server.heard(conn), ["42[1]"]);
}

#[test]
fn who_is_in_an_excepted_room_receives_nothing() {
    let mut server = server();
    let ((one, first), (other, _)) = (server.joined(), server.joined());
    server.join(first, "quiet").unwrap();
    assert_eq!(server.broadcast(&[], &["quiet"], "[1]"), 1);
    let id = server.id(first);
    assert_eq!(server.broadcast(&[], &[&id], "[2]"), 1);
    assert!(server.heard(one).is_empty());
    assert_eq!(server.heard(other), ["42[1]", "42[2]"]);
}

#[test]
fn everybody_has_a_room_of_their_own_until_they_leave_it() {
    let mut server = server();
    let (conn, socket) = server.joined();
    let id = server.id(socket);
    assert_eq!(server.broadcast(&[&id], &[], "[1]"), 1);
    server.shard.borrow_mut().leave_room(socket, &id);
    assert_eq!(server.broadcast(&[&id], &[], "[2]"), 0);
    assert!(server.shard.borrow().rooms_of(socket).is_empty());
    server.join(socket, &id).unwrap();
    assert_eq!(server.broadcast(&[&id], &[], "[3]"), 1);
    assert_eq!(server.heard(conn), ["42[1]", "42[3]"]);
}

#[test]
fn a_room_named_after_somebody_else_can_be_joined() {
    let mut server = server();
    let ((one, first), (other, second)) = (server.joined(), server.joined());
    let id = server.id(first);
    server.join(second, &id).unwrap();
    assert_eq!(server.broadcast(&[&id], &[], "[1]"), 2);
    assert_eq!((server.heard(one), server.heard(other)), (vec!["42[1]".into()], vec!["42[1]".into()]));
}

#[test]
fn a_full_socket_joins_no_more_rooms_but_may_join_again_those_it_is_in() {
    let mut server = with(Settings { rooms_per_socket_max: 1, ..Settings::default() });
    let (_, socket) = server.joined();
    assert_eq!(server.join(socket, "a"), Ok(()));
    assert_eq!(server.join(socket, "b"), Err(Unsent::TooManyRooms));
    assert_eq!(server.join(socket, "a"), Ok(()));
}

#[test]
fn rooms_are_what_plain_sets_of_names_would_be() {
    fuzz(12, |random| {
        let mut server = server();
        let rooms = *random.pick(&[3, 40, 400]);
        let mut crowd: Vec<(Key<Conn>, Key<Socket>, BTreeSet<String>)> = Vec::new();
        for step in 0..600 {
            let name = format!("room {}", random.below(rooms));
            if crowd.len() < 2 || (crowd.len() < 12 && random.one_in(20)) {
                let (conn, socket) = server.joined();
                crowd.push((conn, socket, BTreeSet::new()));
            }
            let at = random.below(crowd.len());
            let (_, socket, names) = &mut crowd[at];
            match random.below(40) {
                0 => {
                    server.shard.borrow_mut().disconnect(*socket, true);
                    server.turn();
                    crowd.swap_remove(at);
                }
                1 => {
                    server.shard.borrow_mut().leave_all(*socket);
                    let _ = server.join(*socket, &server.id(*socket)); // its own room is not in the model
                    names.clear();
                }
                2..12 => {
                    server.shard.borrow_mut().leave_room(*socket, &name);
                    names.remove(&name);
                }
                12..36 => {
                    server.join(*socket, &name).unwrap();
                    names.insert(name);
                }
                _ => {
                    let (other, quiet) =
                        (format!("room {}", random.below(rooms)), format!("room {}", random.below(rooms)));
                    let data = format!("[{step}]");
                    let meant = |names: &BTreeSet<String>| {
                        (names.contains(&name) || names.contains(&other)) && !names.contains(&quiet)
                    };
                    let reached = server.broadcast(&[&name, &other], &[&quiet], &data);
                    assert_eq!(reached, crowd.iter().filter(|(.., names)| meant(names)).count());
                    for (conn, _, names) in &crowd {
                        assert_eq!(server.heard(*conn) == [format!("42{data}")], meant(names));
                    }
                }
            }
            for (_, socket, names) in &crowd {
                let mut expected = names.clone();
                expected.insert(server.id(*socket));
                let rooms = server.shard.borrow().rooms_of(*socket);
                assert_eq!(rooms.len(), expected.len(), "a room is named once");
                assert_eq!(rooms.into_iter().collect::<BTreeSet<_>>(), expected);
            }
            let in_use: BTreeSet<_> = crowd.iter().flat_map(|(.., names)| names).collect();
            assert_eq!(server.shard.borrow().census().rooms, in_use.len(), "an empty room is gone");
            server.shard.borrow().invariants();
        }
    });
}

#[test]
fn volatile_is_dropped_when_the_receiver_is_not_ready() {
    let mut server = server();
    let (sid, socket) = server.polling_joined();
    assert_eq!(server.emit(socket, "[1]", true), Ok(Emitted::Dropped));
    let poll = server.poll(sid);
    assert_eq!(server.answer(poll), "waits", "nobody polled, so it was dropped");
    assert_eq!(server.emit(socket, "[2]", true), Ok(Emitted::Queued));
    assert_eq!(server.answer(poll), "42[2]");

    let (conn, socket) = server.joined();
    server.pipes.room.insert(conn, 3);
    assert_eq!(server.emit(socket, "[\"long\"]", false), Ok(Emitted::Queued));
    assert_eq!(server.emit(socket, "[3]", true), Ok(Emitted::Dropped));
    let target = Target { volatile: true, ..everyone() };
    let counts = server.shard.borrow_mut().fan_out(&target, &event("[4]"));
    assert_eq!((counts.sockets, counts.dropped), (0, 2), "the one has no poll, the other's stream is full");
    server.pipes.room.remove(&conn);
    server.shard.borrow_mut().on_writable(conn);
    server.turn();
    assert_eq!(server.heard(conn), ["42[\"long\"]"]);
    assert_eq!(server.shard.borrow().counters.volatile_dropped, 4);
}

// ---- namespaces

#[test]
fn a_refused_client_hears_why_and_its_acks_end() {
    let mut server = server();
    let conn = server.websocket();
    server.say(conn, "40/refused,");
    assert_eq!(server.heard(conn), ["44/refused,{\"message\":\"no\"}"]);
    assert!(server.ends().is_empty(), "who was never in does not leave");

    server.say(conn, "40/later,");
    let socket = server.last_socket();
    server.shard.borrow_mut().expect_ack(socket, 5, Some(1_000)).unwrap();
    server.shard.borrow_mut().refuse(socket, r#"{"message":"no"}"#);
    server.turn();
    assert_eq!(server.app.acks.take(), ["5 disconnected"]);
}

#[test]
fn a_second_connect_to_a_namespace_closes_the_session() {
    for first in ["40", "40/later,"] {
        let mut server = server();
        let conn = server.websocket();
        server.say(conn, first);
        server.heard(conn);
        server.say(conn, first);
        assert_eq!(server.heard(conn), ["close"]);
        assert_eq!(server.sessions(), 0);
    }
}

#[test]
fn a_session_without_namespace_is_closed_in_time() {
    let mut server =
        with(Settings { connect_timeout: Duration::from_secs(5), ping_spread: false, ..Settings::default() });
    let idle = server.websocket();
    let refused = server.websocket();
    server.say(refused, "40/refused,");
    let (joined, _) = server.joined();
    server.wait(4_999);
    assert_eq!((server.heard(idle).len(), server.heard(refused).len()), (0, 1));
    server.wait(10);
    assert_eq!((server.heard(idle), server.heard(refused)), (vec!["close".into()], vec!["close".into()]));
    assert!(server.heard(joined).is_empty());
}

#[test]
fn an_answer_to_connect_that_comes_too_late_does_nothing() {
    let mut server = server();
    let conn = server.websocket();
    server.say(conn, "40/later,");
    let socket = server.last_socket();
    server.send(conn, Opcode::Close, &[]);
    assert!(!server.shard.borrow_mut().accept(socket));
    server.shard.borrow_mut().refuse(socket, "{}");
    server.turn();
    assert_eq!(server.shard.borrow().census().sockets, 0);
}

#[test]
fn an_ack_that_may_take_for_ever_is_waited_for() {
    let mut server = server();
    let (_, socket) = server.joined();
    server.wait(10);
    server.shard.borrow_mut().expect_ack(socket, 1, Some(Millis::MAX)).unwrap();
    server.wait(10);
    assert!(server.app.acks.take().is_empty());
}

#[test]
fn an_ack_ends_exactly_once_whichever_way() {
    let mut server = server();
    let (conn, socket) = server.joined();
    for (token, timeout) in [(1, None), (2, Some(1_000)), (3, None)] {
        let ack_id = server.shard.borrow_mut().expect_ack(socket, token, timeout).unwrap();
        assert_eq!(ack_id, token - 1);
    }
    server.say(conn, "430[\"yes\"]");
    server.say(conn, "430[\"again\"]");
    server.wait(999);
    assert_eq!(server.app.acks.take(), ["1 [\"yes\"]"]);
    server.wait(2 * TICK_MS);
    server.say(conn, "431[\"too late\"]");
    assert_eq!(server.app.acks.take(), ["2 timed out"]);
    server.say(conn, "41");
    assert_eq!(server.app.acks.take(), ["3 disconnected"]);
}

// ---- where the reference does something else

#[test]
fn a_close_packet_over_websocket_ends_the_session() {
    let mut server = server();
    let (conn, _) = server.joined();
    server.say(conn, "1");
    assert_eq!(server.ends(), [CloseReason::TransportClose]);
    assert_eq!(server.heard(conn), ["close"]);
}

#[test]
fn a_second_connect_while_the_first_waits_ends_the_session() {
    let mut server = server();
    let conn = server.websocket();
    server.say(conn, "40/later,");
    server.say(conn, "40/later,");
    assert_eq!(server.heard(conn), ["close"]);
    assert_eq!(server.sessions(), 0);
}

#[test]
fn a_post_after_the_end_finds_nobody() {
    let mut server = server();
    let (sid, socket) = server.polling_joined();
    server.shard.borrow_mut().disconnect(socket, true);
    server.turn();
    assert_eq!(server.push(sid, "40"), "UnknownSid");
}

/// More clients than a narrow broadcast reaches.
fn crowd(server: &mut Server) -> Vec<(Key<Conn>, Key<Socket>)> {
    let clients: Vec<_> = (0..4 * NARROW_MAX).map(|_| server.joined()).collect();
    clients.iter().for_each(|(conn, _)| drop(server.heard(*conn)));
    clients
}

fn everyone() -> Target {
    Target { namespace: "/".into(), ..Target::default() }
}

#[test]
fn answers_and_small_rooms_overtake_a_wide_broadcast() {
    let mut server = server();
    let clients = crowd(&mut server);
    let (answered, small) = (clients[20], &clients[10..13]);
    small.iter().for_each(|(_, socket)| server.join(*socket, "small").unwrap());
    {
        let mut shard = server.shard.borrow_mut();
        assert_eq!(shard.fan_out(&everyone(), &event("[\"wide\"]")).sockets, clients.len());
        shard.fan_out(&Target { rooms: vec!["small".into()], ..everyone() }, &event("[\"small\"]"));
        shard.emit(answered.1, &event("[\"answer\"]"), false).unwrap();
        shard.write(&mut server.pipes, 8);
    }
    for (conn, _) in small.iter().chain([&answered]) {
        assert_eq!(server.heard(*conn).len(), 2, "the wide one before it, in one write");
    }
    let heard = |server: &mut Server| clients.iter().map(|(conn, _)| server.heard(*conn).len()).sum::<usize>();
    assert_eq!(heard(&mut server), 8 - 4, "the others of the eight writes");
    while server.shard.borrow().has_work() {
        server.turn();
    }
    assert_eq!(heard(&mut server), clients.len() - 8, "everyone had it, once");
}

#[test]
fn a_wide_broadcast_goes_on_while_others_are_served() {
    let mut server = server();
    let clients = crowd(&mut server);
    server.shard.borrow_mut().fan_out(&everyone(), &event("[\"wide\"]"));
    let mut reached = HashSet::new();
    for turn in 0..4 * clients.len() / 8 {
        let mut shard = server.shard.borrow_mut();
        (0..8).for_each(|nth| _ = shard.emit(clients[(turn + nth) % 12].1, &event("[\"often\"]"), false).unwrap());
        shard.write(&mut server.pipes, 8);
        reached.extend(server.pipes.bytes.keys().copied());
    }
    assert_eq!(reached.len(), clients.len());
}

#[test]
fn the_same_are_not_always_last() {
    let mut server = server();
    let clients = crowd(&mut server);
    let mut last = HashSet::new();
    for _ in 0..20 {
        server.shard.borrow_mut().fan_out(&everyone(), &event("[\"wide\"]"));
        server.shard.borrow_mut().write(&mut server.pipes, clients.len() - 1);
        let missing = clients.iter().find(|(conn, _)| !server.pipes.bytes.contains_key(conn));
        last.insert(missing.expect("one is left").0);
        server.turn();
        server.pipes.bytes.clear();
    }
    assert!(last.len() > 15, "{} different ones", last.len());
}

// ---- what a client costs

#[test]
fn what_a_crowd_has_filled_goes_with_it() {
    let mut server = server();
    let crowd: Vec<_> = (0..1024).map(|_| server.joined()).collect();
    let (stay, go): (Vec<_>, Vec<_>) = crowd.iter().enumerate().partition(|(i, _)| i % 16 == 0);
    let stay: Vec<_> = stay.into_iter().map(|(_, &(conn, _))| conn).collect();
    let mut shard = server.shard.borrow_mut();
    assert_eq!((shard.sessions.capacity(), shard.heartbeats.capacity() >= 1024), (1024, true));
    // All in one turn: each is told something of its own, half of those who go hang up, and half are sent away.
    for (i, &(conn, socket)) in go {
        shard.emit(socket, &event(&i.to_string()), false).unwrap();
        if i % 2 == 0 { shard.on_hangup(conn, true) } else { shard.disconnect(socket, true) }
    }
    assert!(shard.events.capacity() > 512 && shard.leaving.capacity() > 256);
    drop(shard);
    // Longer than anybody is waited for, and than an interval of heartbeats.
    for _ in 0..60 {
        server.wait_at_once(1000);
        for &conn in &stay {
            if server.heard(conn).contains(&"2".into()) {
                server.say(conn, "3");
            }
        }
    }
    let shard = server.shard.borrow();
    assert_eq!((shard.sessions.len(), shard.conns.len(), shard.sockets.len()), (64, 64, 64));
    let values = [shard.sessions.capacity(), shard.conns.capacity(), shard.sockets.capacity()];
    assert!(values.iter().all(|capacity| *capacity <= 256), "{values:?} for 64, eight in each page");
    let connected = &shard.namespaces.at(shard.namespace_slots["/"]).expect("in use").connected;
    let lists = [shard.events.capacity(), shard.leaving.capacity(), shard.expired.capacity(), connected.capacity()];
    assert!(lists.iter().all(|capacity| *capacity <= 4 * 64), "{lists:?}");
    assert!(shard.heartbeats.capacity() <= 4 * 64, "{}", shard.heartbeats.capacity());
}

/// The table in perf/budget.md.
#[test]
fn an_idle_client_takes_no_more_bytes_than_its_budget() {
    assert_eq!(size_of::<Session>(), 144);
    assert_eq!(size_of::<Socket>(), 80);
    assert_eq!(size_of::<Conn>(), 40);
    assert_eq!(size_of::<Handshake>(), 8, "in the session");
    let text = "x".repeat(59);
    let handshake = Handshake::new(&text, std::iter::empty(), ([127, 0, 0, 1], 9).into(), 0);
    assert_eq!(handshake.allocation().1, 96, "24, the address, the text, and up to 8 whole bytes");
    assert_eq!(size_of::<Key<Session>>(), 8, "its heartbeat");
}
