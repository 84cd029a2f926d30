//! Oracle: who is owed what, kept by rules that are simpler than the server's.
//!
//! It hears of every accept, join, leave and broadcast at the moment it is applied on a shard, and from that keeps, for
//! each session, the exact sequence of Socket.IO packets that its client must see. A client tells every packet that it
//! decodes. So one comparison proves most promises at once: exactly once, nobody else, in order, nothing after the end.
//!
//! Room membership is a set of names per socket, its own id among them: no special case, no index, no shared structure.
//! The one thing taken from the shard is whether a socket is still connected at that moment; that each end is told in
//! the same turn is checked at the end of the turn.

use super::super::arena::Key;
use super::super::mail::Target;
use super::super::sockets::{Socket, SocketState};
use super::super::wheel::TICK_MS;
use super::super::{Millis, Shard};
use super::feeds::{Cast, Feeds};
use crate::error::CloseReason;
use crate::proto::{Fate, Id, Prepared};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// A Socket.IO packet as a client must see it.
#[derive(Clone, Debug)]
pub struct Owed {
    pub text: Rc<str>,
    pub attachments: Rc<[Vec<u8>]>,
    /// A volatile packet: it may be missing.
    pub optional: bool,
    /// What may become of it if the client is behind.
    pub fate: Fate,
    pub since: Millis,
    /// The number of the advance that caused it, if one did.
    advance: Option<u64>,
}

#[derive(Default)]
struct Session {
    owed: VecDeque<Owed>,
    /// Its client did something for which a session may end, or miss what policies allow to drop.
    blamed: bool,
    /// The server ended it, because it ends itself.
    let_go: bool,
}

impl Place {
    fn is_in_one_of(&self, rooms: &[Box<str>]) -> bool {
        rooms.iter().any(|room| self.rooms.contains(&**room))
    }

    /// By its namespace and its rooms.
    fn is_meant_by(&self, target: &Target) -> bool {
        *self.namespace == *target.namespace
            && (target.rooms.is_empty() || self.is_in_one_of(&target.rooms))
            && !self.is_in_one_of(&target.except)
    }
}

impl Session {
    /// What its client must still get. An event that a later one replaces may be missing, and the later one then not.
    fn must_come(&self) -> impl Iterator<Item = &Owed> {
        let replaced = |at: usize, owed: &Owed| self.owed.iter().skip(at + 1).any(|later| later.fate == owed.fate);
        self.owed.iter().enumerate().filter_map(move |(at, owed)| {
            let may_miss = match owed.fate {
                Fate::Kept => owed.optional,
                Fate::DroppedNewest | Fate::DroppedOldest => owed.optional || self.blamed,
                Fate::Conflated(_) => owed.optional || replaced(at, owed),
            };
            (!may_miss).then_some(owed)
        })
    }
}

/// What clients did not get because they were behind, as far as they can tell.
#[derive(Default)]
pub struct Skipped {
    pub dropped: u64,
    pub conflated: u64,
}

/// A socket as the embedder knows it.
pub struct Place {
    pub shard: u16,
    pub key: Key<Socket>,
    pub sid: Id,
    pub id: String,
    pub namespace: String,
    pub rooms: BTreeSet<String>,
    pub state: SocketState,
    /// Much waits for it.
    pressed: bool,
    /// Number of the next event that its client sends.
    pub next_event: u64,
}

struct Ack {
    place: usize,
    due: Option<Millis>,
}

pub struct Oracle {
    pub now: Millis,
    pub rooms_max: usize,
    sessions: BTreeMap<Id, Session>,
    pub places: Vec<Place>,
    by_key: HashMap<(u16, Key<Socket>), usize>,
    /// Sockets that have not left, for each shard.
    pub here: Vec<Vec<usize>>,
    /// What was broadcast, by the address of the packet, which is kept so that the address stays its own.
    packets: HashMap<*const Prepared, (Arc<Prepared>, Owed)>,
    acks: BTreeMap<u64, Ack>,
    /// What each shard holds and retains.
    feeds: Vec<Feeds>,
    /// What windows held when time went on last, on the shard of which it did.
    held: Vec<Cast>,
    advances: u64,
    /// For each counted broadcast, the shares that were not reported yet, and how many shards were not reached yet.
    counts: BTreeMap<u64, (Vec<usize>, u16)>,
    pub ends: BTreeMap<&'static str, u64>,
    pub seen: u64,
    pub skipped: Skipped,
    /// The process has too much waiting: whoever is furthest behind is closed, whether or not it is to blame.
    pub shedding: bool,
    trace: bool,
}

impl Oracle {
    pub fn new(shards: u16, rooms_max: usize, trace: bool) -> Oracle {
        Oracle {
            now: 0,
            rooms_max,
            sessions: BTreeMap::new(),
            places: Vec::new(),
            by_key: HashMap::new(),
            here: (0..shards).map(|_| Vec::new()).collect(),
            packets: HashMap::new(),
            acks: BTreeMap::new(),
            feeds: (0..shards).map(|_| Feeds::default()).collect(),
            held: Vec::new(),
            advances: 0,
            counts: BTreeMap::new(),
            ends: BTreeMap::new(),
            seen: 0,
            skipped: Skipped::default(),
            shedding: false,
            trace,
        }
    }

    /// A line of the trace.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>7} {}", self.now, what());
        }
    }

    // ---- what clients tell

    pub fn opened(&mut self, sid: Id, blamed: bool) {
        self.note(|| format!("{sid} opens"));
        let before = self.sessions.insert(sid, Session { blamed, ..Session::default() });
        assert!(before.is_none(), "a sid is used once");
    }

    pub fn blame(&mut self, sid: Id) {
        self.sessions.get_mut(&sid).expect("it was opened").blamed = true;
    }

    /// A client has decoded a packet. It must be the next one that it is owed.
    pub fn received(&mut self, sid: Id, text: &str, attachments: &[Vec<u8>]) {
        self.seen += 1;
        self.note(|| format!("{sid} sees {text}"));
        let session = self.sessions.get_mut(&sid).expect("it was opened");
        let it_is = |owed: &Owed| *owed.text == *text && owed.attachments[..] == *attachments;
        let at = session.owed.iter().position(it_is);
        let at = at.unwrap_or_else(|| panic!("{sid} is not owed {text}, but {:?}", session.owed.front()));
        let must = session.must_come().next();
        assert!(
            must.is_none_or(|must| session.owed.iter().take(at).all(|owed| !std::ptr::eq(owed, must))),
            "{sid} is owed {must:?} and got {text}"
        );
        // A retained event may be owed twice. Seen once, it was the first; or the second, which has replaced the first, or
        // the first was volatile and never came.
        if matches!(session.owed[at].fate, Fate::Conflated(_)) || session.owed[at].optional {
            session.owed.iter_mut().skip(at + 1).filter(|owed| it_is(owed)).for_each(|owed| owed.optional = true);
        }
        for missed in session.owed.drain(..=at).take(at) {
            match missed.fate {
                Fate::Kept => {}
                Fate::DroppedNewest | Fate::DroppedOldest => self.skipped.dropped += u64::from(!missed.optional),
                Fate::Conflated(_) => self.skipped.conflated += u64::from(!missed.optional),
            }
        }
    }

    /// A client was told in an orderly way that this was all.
    pub fn ended_in_order(&self, sid: Id) {
        let missing = self.sessions[&sid].must_come().next();
        assert!(missing.is_none(), "{sid} was closed before it got {missing:?}");
    }

    /// The oldest packet that the session is owed and must get.
    pub fn waits_for(&self, sid: Id) -> Option<&Owed> {
        self.sessions[&sid].must_come().next()
    }

    // ---- what the embedder does

    pub fn place_of(&self, shard: u16, key: Key<Socket>) -> usize {
        self.by_key[&(shard, key)]
    }

    pub fn connecting(&mut self, shard: &Shard, key: Key<Socket>, namespace: &str) {
        let socket = shard.socket(key).expect("it asks to connect");
        let sid = shard.session(socket.session).expect("a socket has a session").id;
        let id = socket.id.to_string();
        let twin = |&at: &usize| self.places[at].sid == sid && self.places[at].namespace == namespace;
        let twin = self.here[shard.number() as usize].iter().copied().find(twin);
        assert!(twin.is_none_or(|at| !shard.is_connected(self.places[at].key)), "one socket in a namespace");
        let at = self.places.len();
        self.places.push(Place {
            shard: shard.number(),
            key,
            sid,
            rooms: [id.clone()].into(),
            id,
            namespace: namespace.into(),
            state: SocketState::Connecting,
            pressed: false,
            next_event: 0,
        });
        self.by_key.insert((shard.number(), key), at);
        self.here[shard.number() as usize].push(at);
    }

    pub fn accepted(&mut self, at: usize) {
        let place = &mut self.places[at];
        assert_eq!(place.state, SocketState::Connecting, "a CONNECT has one answer");
        place.state = SocketState::Connected;
        let text = format!("{}{{\"sid\":\"{}\"}}", head("0", &place.namespace), place.id);
        self.owe(at, &text, Vec::new());
        let rooms = self.places[at].rooms.clone();
        let rooms: Vec<_> = rooms.iter().map(|room| Some(&**room)).chain([None]).collect();
        self.catch_up(at, &rooms, |_, _| false);
    }

    pub fn refused(&mut self, at: usize, error: &str) {
        let text = format!("{}{error}", head("4", &self.places[at].namespace));
        self.owe(at, &text, Vec::new());
        self.places[at].state = SocketState::Closed;
        self.strike_out(at);
    }

    /// A packet to one socket.
    pub fn owe(&mut self, at: usize, text: &str, attachments: Vec<Vec<u8>>) {
        let owed = Owed {
            text: text.into(),
            attachments: attachments.into(),
            optional: false,
            fate: Fate::Kept,
            since: self.now,
            advance: None,
        };
        self.sessions.get_mut(&self.places[at].sid).expect("it was opened").owed.push_back(owed);
    }

    pub fn owe_maybe(&mut self, at: usize, text: &str) {
        self.owe(at, text, Vec::new());
        let session = self.sessions.get_mut(&self.places[at].sid).expect("it was opened");
        session.owed.back_mut().expect("just pushed").optional = true;
    }

    pub fn join(&mut self, shard: &Shard, at: usize, room: &str) -> bool {
        let place = &mut self.places[at];
        let named = place.rooms.iter().filter(|room| **room != place.id).count();
        let fits = room == place.id || place.rooms.contains(room) || named < self.rooms_max;
        if fits && place.rooms.insert(room.into()) && shard.is_connected(place.key) {
            let (namespace, rooms) = (place.namespace.clone(), place.rooms.clone());
            let others =
                |cast: &Cast| cast.target.rooms.iter().filter(|other| ***other != *room).cloned().collect::<Vec<_>>();
            self.catch_up(at, &[Some(room)], |feeds, cast| {
                let retains = |other: &str| feeds.retained(&namespace, Some(other)).any(|it| it.number == cast.number);
                others(cast).iter().any(|other| rooms.contains(&**other) && retains(other))
            });
        }
        fits
    }

    pub fn leave(&mut self, at: usize, room: &str) {
        self.places[at].rooms.remove(room);
    }

    pub fn prepared(&mut self, packet: &Arc<Prepared>, text: String, attachments: Vec<Vec<u8>>, optional: bool) {
        let owed = Owed {
            text: text.into(),
            attachments: attachments.into(),
            optional,
            fate: packet.fate().clone(),
            since: 0,
            advance: None,
        };
        self.packets.insert(Arc::as_ptr(packet), (Arc::clone(packet), owed));
    }

    /// The sockets of `target` on this shard, at this moment.
    pub fn members(&self, shard: &Shard, target: &Target) -> Vec<usize> {
        let chosen = |&at: &usize| {
            let place = &self.places[at];
            place.state == SocketState::Connected && place.is_meant_by(target) && shard.is_connected(place.key)
        };
        self.here[shard.number() as usize].iter().copied().filter(chosen).collect()
    }

    /// A broadcast is about to be applied on this shard. Returns to how many something leaves because of it.
    pub fn broadcast(&mut self, shard: &Shard, target: &Target, packet: &Arc<Prepared>, token: Option<u64>) -> usize {
        let (leaving, held) = self.feeds[shard.number() as usize].emitted(shard, target, packet);
        let concerned = self.send(shard, &leaving, None);
        if let Some(token) = token {
            let share = if held { shard.member_count(target) } else { self.members(shard, target).len() };
            self.share(token, share);
        }
        concerned
    }

    /// What leaves is owed to whoever it is for, now.
    fn send(&mut self, shard: &Shard, leaving: &[Cast], advance: Option<u64>) -> usize {
        let mut concerned = 0;
        for Cast { target, packet, .. } in leaving {
            let (_, owed) = &self.packets[&Arc::as_ptr(packet)];
            let owed = Owed { since: self.now, advance, ..owed.clone() };
            let members = self.members(shard, target);
            concerned += members.len();
            self.note(|| format!("{} on {} to {} of {target:?}", owed.text, shard.number(), members.len()));
            for at in members {
                self.sessions.get_mut(&self.places[at].sid).expect("it was opened").owed.push_back(owed.clone());
            }
        }
        concerned
    }

    /// Time is about to go on on this shard. Other deadlines may close a session before or after a window ends: then it
    /// got what the window held, or not.
    pub fn advance(&mut self, shard: &Shard, now: Millis) {
        self.advances += 1;
        let leaving = self.feeds[shard.number() as usize].advance(shard, now);
        self.send(shard, &leaving, Some(self.advances));
        // Then it lets clients go, if it drains, before anybody hears of anything.
        self.held = self.feeds[shard.number() as usize].held();
    }

    /// The shard is about to shut down.
    pub fn flush_all(&mut self, shard: &Shard) {
        self.held.clear();
        let leaving = self.feeds[shard.number() as usize].flush_all(shard);
        self.send(shard, &leaving, None);
    }

    /// What rooms retain is about to be forgotten on this shard.
    pub fn forget(&mut self, shard: &Shard, target: &Target) -> usize {
        self.note(|| format!("{target:?} is forgotten on {}", shard.number()));
        let leaving = self.feeds[shard.number() as usize].forget(shard, target);
        self.send(shard, &leaving, None)
    }

    /// What the rooms retain is owed to a socket that has come into them, unless it has got it elsewhere.
    fn catch_up(&mut self, at: usize, rooms: &[Option<&str>], has: impl Fn(&Feeds, &Cast) -> bool) {
        let place = &self.places[at];
        let feeds = &self.feeds[place.shard as usize];
        let mut casts: Vec<&Cast> = rooms.iter().flat_map(|room| feeds.retained(&place.namespace, *room)).collect();
        casts.sort_by_key(|cast| cast.number);
        casts.dedup_by_key(|cast| cast.number);
        casts.retain(|cast| !place.is_in_one_of(&cast.target.except));
        casts.retain(|cast| !has(feeds, cast));
        for cast in casts {
            let (_, owed) = &self.packets[&Arc::as_ptr(&cast.packet)];
            let owed = Owed { since: self.now, optional: false, ..owed.clone() };
            self.sessions.get_mut(&place.sid).expect("it was opened").owed.push_back(owed);
        }
    }

    pub fn count(&mut self, token: u64, shards: u16) {
        self.counts.insert(token, (Vec::new(), shards));
    }

    /// One shard's share of a count, as it is to be reported.
    pub fn share(&mut self, token: u64, sockets: usize) {
        let (shares, shards) = self.counts.get_mut(&token).expect("it was announced");
        shares.push(sockets);
        *shards -= 1;
    }

    pub fn counted(&mut self, token: u64, sockets: usize) {
        let (shares, shards) = self.counts.get_mut(&token).expect("it was announced, and not reported in full");
        let at = shares.iter().position(|&share| share == sockets);
        shares.swap_remove(
            at.unwrap_or_else(|| panic!("{sockets} is no shard's true count, these are left: {shares:?}")),
        );
        if shares.is_empty() && *shards == 0 {
            self.counts.remove(&token);
        }
    }

    pub fn joined_by(&mut self, shard: &Shard, target: &Target, rooms: &[Box<str>]) {
        for at in self.members(shard, target) {
            for room in rooms {
                self.join(shard, at, room);
            }
        }
    }

    pub fn left_by(&mut self, shard: &Shard, target: &Target, rooms: &[Box<str>]) {
        for at in self.members(shard, target) {
            rooms.iter().for_each(|room| self.leave(at, room));
        }
    }

    pub fn disconnected_by(&mut self, shard: &Shard, target: &Target, close: bool) {
        for at in self.members(shard, target) {
            self.disconnect(shard, at, close);
        }
    }

    /// The server is about to disconnect a socket, and with `close` all others of its session.
    pub fn disconnect(&mut self, shard: &Shard, at: usize, close: bool) {
        let sid = self.places[at].sid;
        let here = self.here[self.places[at].shard as usize].clone();
        for other in here {
            let place = &self.places[other];
            let concerned = if close { place.sid == sid } else { other == at };
            if concerned && shard.is_connected(place.key) {
                let goodbye = head("1", &place.namespace);
                self.owe(other, &goodbye, Vec::new());
            }
        }
    }

    pub fn await_ack(&mut self, at: usize, token: u64, due: Option<Millis>) {
        self.acks.insert(token, Ack { place: at, due });
    }

    /// Returns the place that the ack was awaited from.
    pub fn acked(&mut self, token: u64, timed_out: bool) -> usize {
        let ack = self.acks.remove(&token).expect("an ack ends once");
        if timed_out {
            let due = ack.due.expect("an ack without deadline cannot time out");
            assert!(self.now >= due, "an ack has its whole time");
        }
        ack.place
    }

    // ---- what the shard tells

    pub fn pressure(&mut self, at: usize, high: bool) {
        let place = &mut self.places[at];
        assert_eq!(place.state, SocketState::Connected, "only of those who are in");
        // One that came while much waited for another socket of its session may hear of the end alone.
        assert!(!(place.pressed && high), "{} is told once", place.id);
        place.pressed = high;
    }

    pub fn disconnected(&mut self, at: usize, reason: CloseReason) {
        let place = &mut self.places[at];
        assert_eq!(place.state, SocketState::Connected, "an end is told once, and only of those who were in");
        place.state = SocketState::Closed;
        let session = self.sessions.get_mut(&place.sid).expect("it was opened");
        for owed in session.owed.iter_mut().filter(|owed| owed.advance == Some(self.advances)) {
            owed.optional = true;
        }
        if self.trace {
            eprintln!("{:>7} {} leaves {}: {reason}", self.now, place.sid, place.namespace);
        }
        *self.ends.entry(reason.as_str()).or_default() += 1;
        if reason == CloseReason::ServerShuttingDown {
            session.let_go = true;
            for Cast { packet, .. } in self.held.iter().filter(|cast| place.is_meant_by(&cast.target)) {
                let (_, owed) = &self.packets[&Arc::as_ptr(packet)];
                session.owed.push_back(Owed { since: self.now, ..owed.clone() });
            }
        }
        let innocent = matches!(
            reason,
            CloseReason::ForcedClose
                | CloseReason::ServerShuttingDown
                | CloseReason::ClientNamespaceDisconnect
                | CloseReason::ServerNamespaceDisconnect
        );
        let shed = self.shedding && reason == CloseReason::SlowClient;
        assert!(innocent || shed || session.blamed, "{} did nothing wrong and was closed: {reason}", place.sid);
        self.strike_out(at);
    }

    fn strike_out(&mut self, at: usize) {
        let place = &self.places[at];
        self.here[place.shard as usize].retain(|&other| other != at);
        self.by_key.remove(&(place.shard, place.key));
    }

    /// At the end of a turn, before the burial: every end has been told, rooms agree, no deadline has passed.
    pub fn turn_ends(&mut self, shard: &Shard) {
        let number = shard.number();
        for at in self.here[number as usize].clone() {
            let place = &self.places[at];
            let state = shard.socket(place.key).map(|socket| socket.state);
            match place.state {
                SocketState::Connected => {
                    assert_eq!(state, Some(SocketState::Connected), "the end of {} was told", place.id);
                }
                // One that was never in leaves without a word.
                _ if state != Some(SocketState::Connecting) => self.strike_out(at),
                _ => {}
            }
        }
        let sockets = self.here[number as usize].iter().map(|&at| &self.places[at]);
        let connected = sockets.filter(|place| place.state == SocketState::Connected).count();
        assert_eq!(shard.census().sockets, connected, "nobody is in a namespace whom the embedder does not know");
        for (token, ack) in &self.acks {
            let place = &self.places[ack.place];
            assert!(
                place.shard != number || self.by_key.contains_key(&(number, place.key)),
                "ack {token} ends with its socket"
            );
            let late = ack.due.is_some_and(|due| due + TICK_MS < shard.now);
            assert!(place.shard != number || !late, "ack {token} ends in time");
        }
    }

    pub fn rooms_agree(&self, shard: &Shard, at: usize) {
        let place = &self.places[at];
        let rooms: Vec<_> = shard.rooms_of(place.key);
        let set: BTreeSet<_> = rooms.iter().cloned().collect();
        assert_eq!(rooms.len(), set.len(), "a room is named once");
        assert_eq!(set, place.rooms, "rooms of {}", place.id);
    }

    /// After a drain every client that reads has got what it was owed when it was let go.
    pub fn let_go_in_order(&self) {
        for (sid, _) in self.sessions.iter().filter(|(_, session)| session.let_go && !session.blamed) {
            self.ended_in_order(*sid);
        }
    }

    /// After the end nothing is open.
    pub fn all_ended(&self) {
        assert!(self.here.iter().all(Vec::is_empty), "every socket has left");
        assert!(self.acks.is_empty(), "every ack has ended");
        assert!(self.counts.is_empty(), "every count was reported: {:?}", self.counts);
    }
}

/// How a packet for a namespace begins.
pub fn head(kind: &str, namespace: &str) -> String {
    if namespace == "/" { kind.into() } else { format!("{kind}{namespace},") }
}
