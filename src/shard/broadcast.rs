//! Broadcast: one packet to a target, and the verbs that act on all sockets of a target.
//!
//! The walk is a room's dense list and one step of [`Runs`](super::runs) a receiver; names are resolved once.
//! `stamp` numbers the broadcasts: a socket that carries the current stamp has been dealt with, because it was reached
//! through another room, or because it is excepted.

use super::Shard;
use super::arena::{Arena, Key};
use super::lanes::{Lane, Lanes, NARROW_MAX};
use super::mail::{Count, Counts, Event, Mail, Target};
use super::runs::Step;
use super::session::{Session, State, Transport};
use super::sockets::{Socket, SocketState, Unsent};
use crate::proto::{Fate, Id, Prepared};
use crate::settings::Settings;
use std::sync::Arc;

impl Shard {
    /// One packet to a target, on every shard. With `token`, `Event::Counted` follows once from each shard.
    pub fn broadcast(&mut self, target: &Arc<Target>, packet: &Arc<Prepared>, token: Option<u64>) {
        let count = token.map(|token| Count { shard: self.number, token });
        self.counters.broadcasts += 1;
        self.post_all(|| Mail::Broadcast { target: Arc::clone(target), packet: Arc::clone(packet), count });
        let counts = self.feed(target, packet);
        if let Some(count) = count {
            self.report(count, counts);
        }
    }

    /// Marks this place in the order of the broadcasts. `Event::Counted` follows once from each shard, as for a broadcast
    /// that reaches nobody.
    pub fn mark(&mut self, token: u64) {
        let count = Count { shard: self.number, token };
        self.post_all(|| Mail::Mark { count });
        self.report(count, Counts::default());
    }

    /// One packet to the target's sockets on this shard.
    pub fn fan_out(&mut self, target: &Target, packet: &Arc<Prepared>) -> Counts {
        let Some(&slot) = self.namespace_slots.get(&target.namespace) else { return Counts::default() };
        let namespace = self.namespaces.at(slot).expect("named, so in use");
        self.stamp += 1;
        for room in &target.except {
            let own = own_room(&self.sockets, self.number, slot, room);
            namespace.members(room).iter().chain(&own).for_each(|&slot| {
                self.sockets.at_mut(slot).expect("members are alive").stamp = self.stamp;
            });
        }
        let mut walk = Walk {
            stamp: self.stamp,
            sockets: &mut self.sockets,
            sessions: &mut self.sessions,
            lanes: &mut self.lanes,
            step: self.runs.step(packet),
            volatile: target.volatile,
            bytes_max: door(packet, &self.settings),
            lane: Lane::Swift,
            counts: Counts::default(),
            turned_away: 0,
        };
        match &target.rooms[..] {
            [] => walk.deliver_all(&namespace.connected),
            rooms => rooms.iter().for_each(|room| {
                walk.deliver(own_room(walk.sockets, self.number, slot, room).as_slice(), Lane::Swift);
                walk.deliver_all(namespace.members(room));
            }),
        }
        let (lane, counts, turned_away) = (walk.lane, walk.counts, walk.turned_away);
        if counts.sockets > 0 {
            self.lag.begin(packet, lane, &self.lanes);
        }
        self.counters.deliveries += counts.sockets as u64;
        self.counters.queued += counts.sockets as u64;
        self.counters.volatile_dropped += counts.dropped as u64 - turned_away;
        self.counters.turned_away += turned_away;
        counts
    }

    /// Tells whoever counts what became of a broadcast; where the writes are far behind, once they have caught up.
    fn report(&mut self, count: Count, counts: Counts) {
        if self.is_lagging() {
            self.counters.counts_held += 1;
            self.held.push_back((count, counts));
        } else {
            self.tell(count, counts);
        }
    }

    fn tell(&mut self, Count { shard, token }: Count, counts: Counts) {
        if shard == self.number {
            self.events.push_back(Event::Counted { token, counts });
        } else {
            self.post(shard, Mail::Counted { token, counts });
        }
    }

    /// Writing may have caught up.
    pub(super) fn release_counts(&mut self) {
        self.lag.settle(&self.lanes);
        if !self.is_lagging() {
            for (count, counts) in std::mem::take(&mut self.held) {
                self.tell(count, counts);
            }
        }
    }

    fn is_lagging(&self) -> bool {
        self.lag.bytes() > self.settings.lag_bytes_max
    }

    /// Mail from another shard. HTTP requests are not for here: their packets are events (see `drive`).
    pub(super) fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Request { .. } => unreachable!("drive::deliver takes requests"),
            Mail::Abandoned { sid, exchange } => self.on_abandoned(sid, exchange),
            Mail::Answer { exchange, reply } => self.answers.push((exchange, reply)),
            Mail::Broadcast { target, packet, count } => {
                let counts = self.feed(&target, &packet);
                if let Some(count) = count {
                    self.report(count, counts);
                }
            }
            Mail::Mark { count } => self.report(count, Counts::default()),
            Mail::Counted { token, counts } => self.events.push_back(Event::Counted { token, counts }),
            Mail::Join { target, rooms } => self.join_matching(&target, &rooms),
            Mail::Leave { target, rooms } => self.leave_matching(&target, &rooms),
            Mail::Disconnect { target, close } => self.disconnect_matching(&target, close),
            Mail::Forget { target } => self.forget_here(&target),
        }
    }

    pub(super) fn post_all(&mut self, mail: impl Fn() -> Mail) {
        (0..self.shards).filter(|&shard| shard != self.number).for_each(|shard| self.mail.push((shard, mail())));
    }

    /// `socketsJoin`: all matching sockets, on every shard, join the rooms.
    pub fn sockets_join(&mut self, target: &Arc<Target>, rooms: Arc<[Box<str>]>) {
        self.post_all(|| Mail::Join { target: Arc::clone(target), rooms: Arc::clone(&rooms) });
        self.join_matching(target, &rooms);
    }

    /// `socketsLeave`: all matching sockets, on every shard, leave the rooms.
    pub fn sockets_leave(&mut self, target: &Arc<Target>, rooms: Arc<[Box<str>]>) {
        self.post_all(|| Mail::Leave { target: Arc::clone(target), rooms: Arc::clone(&rooms) });
        self.leave_matching(target, &rooms);
    }

    /// `disconnectSockets`: all matching sockets, on every shard, are disconnected.
    pub fn disconnect_sockets(&mut self, target: &Arc<Target>, close: bool) {
        self.post_all(|| Mail::Disconnect { target: Arc::clone(target), close });
        self.disconnect_matching(target, close);
    }

    fn join_matching(&mut self, target: &Target, rooms: &[Box<str>]) {
        let sockets = self.matching(target);
        // Room by room, which is the same to each of them, and has them catch up together.
        for room in rooms {
            let newcomers = sockets.iter().copied().filter(|&socket| self.enter(socket, room) == Ok(true));
            let newcomers: Vec<_> = newcomers.collect(); // refused ones are counted
            self.catch_up(&newcomers, room);
        }
    }

    fn leave_matching(&mut self, target: &Target, rooms: &[Box<str>]) {
        for socket in self.matching(target) {
            rooms.iter().for_each(|room| self.leave_room(socket, room));
        }
    }

    fn disconnect_matching(&mut self, target: &Target, close: bool) {
        for socket in self.matching(target) {
            self.disconnect(socket, close);
        }
    }

    /// Queues one packet for one session. What one client asks for in a turn is held to the limits before the turn ends: a
    /// few bytes may ask for megabytes, many times over.
    pub(super) fn push(&mut self, key: Key<Session>, packet: &Arc<Prepared>) {
        self.queue(&[key], packet);
        if self.gathered(key) > self.settings.outbox_bytes_max {
            self.keep_backlog(key, 0);
        }
    }

    /// Queues one packet for several sessions, without a limit.
    pub(super) fn queue(&mut self, keys: &[Key<Session>], packet: &Arc<Prepared>) {
        let mut step = self.runs.step(packet);
        for &key in keys {
            let session = self.sessions.get_mut(key).filter(|session| session.state == State::Open);
            let Some(session) = session else { continue };
            self.counters.queued += 1;
            step.extend(&mut session.outbox.run);
            self.lanes.add(key, &mut session.queued, Lane::Swift);
        }
    }

    /// Bytes of what this turn has gathered for a session.
    pub(super) fn gathered(&self, key: Key<Session>) -> usize {
        self.sessions.get(key).map_or(0, |session| self.runs.bytes(session.outbox.run))
    }

    /// Queues an Engine.IO message, on a bare Engine.IO server. `false`: the session has gone.
    pub fn send(&mut self, key: Key<Session>, packet: &Arc<Prepared>) -> bool {
        let open = self.sessions.get(key).is_some_and(|session| session.state == State::Open);
        self.push(key, packet);
        open
    }

    /// The session has something to write, sooner than the receivers of a wide broadcast.
    pub(super) fn mark_dirty(&mut self, key: Key<Session>) {
        if let Some(session) = self.sessions.get_mut(key) {
            self.lanes.add(key, &mut session.queued, Lane::Swift);
        }
    }

    /// Whether a packet that makes room for those before it finds none.
    pub(super) fn is_turned_away(&mut self, key: Key<Session>, packet: &Arc<Prepared>) -> bool {
        let Some(bytes_max) = door(packet, &self.settings) else { return false };
        let step = self.runs.step(packet);
        let turned_away = self.sessions.get(key).is_some_and(|session| finds_no_room(session, &step, bytes_max));
        self.counters.turned_away += u64::from(turned_away);
        turned_away
    }

    /// Whether a volatile packet would leave at once.
    pub(super) fn is_ready(&self, key: Key<Session>) -> bool {
        self.sessions.get(key).is_some_and(is_ready)
    }

    pub fn join(&mut self, key: Key<Socket>, room: &str) -> Result<(), Unsent> {
        if self.enter(key, room)? {
            self.catch_up(&[key], room);
        }
        Ok(())
    }

    /// Puts a socket into a room. `false`: it was there.
    fn enter(&mut self, key: Key<Socket>, room: &str) -> Result<bool, Unsent> {
        let max = self.settings.rooms_per_socket_max;
        let socket = self.sockets.get_mut(key).filter(|socket| socket.state != SocketState::Closed);
        let socket = socket.ok_or(Unsent::Closed)?;
        if *socket.id.text() == *room {
            return Ok(std::mem::take(&mut socket.left_own_room));
        }
        let namespace = self.namespaces.at_mut(socket.namespace).expect("in use");
        if (socket.rooms.len() >= max && !namespace.holds(socket, room)) || namespace.is_full(room) {
            self.counters.joins_refused += 1;
            return Err(Unsent::TooManyRooms);
        }
        Ok(namespace.join(key.slot(), socket, room))
    }

    pub fn leave_room(&mut self, key: Key<Socket>, room: &str) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if *socket.id.text() == *room {
            socket.left_own_room = true;
            return;
        }
        let namespace = self.namespaces.at_mut(socket.namespace).expect("in use");
        namespace.leave(key.slot(), &mut self.sockets, room);
    }

    /// Names of the socket's rooms, its own first.
    pub fn rooms_of(&self, key: Key<Socket>) -> Vec<String> {
        let Some(socket) = self.sockets.get(key) else { return Vec::new() };
        let namespace = self.namespace(socket.namespace);
        let own = (!socket.left_own_room).then(|| socket.id.to_string());
        own.into_iter().chain(namespace.rooms_of(socket).map(str::to_owned)).collect()
    }

    /// Takes the socket out of all its rooms, after the `disconnecting` handlers.
    pub fn leave_all(&mut self, key: Key<Socket>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.left_own_room = true;
        let namespace = self.namespaces.at_mut(socket.namespace).expect("in use");
        namespace.leave_all(key.slot(), &mut self.sockets);
    }

    /// How many sockets are in the one room that the target names, or in the namespace.
    pub(super) fn member_count(&self, target: &Target) -> usize {
        let Some(&slot) = self.namespace_slots.get(&target.namespace) else { return 0 };
        let namespace = self.namespace(slot);
        target.rooms.first().map_or(namespace.connected.len(), |room| {
            namespace.members(room).len() + usize::from(own_room(&self.sockets, self.number, slot, room).is_some())
        })
    }

    /// The target's connected sockets on this shard, each once.
    pub fn matching(&mut self, target: &Target) -> Vec<Key<Socket>> {
        let Some(&slot) = self.namespace_slots.get(&target.namespace) else { return Vec::new() };
        let namespace = self.namespaces.at(slot).expect("named, so in use");
        let members = |room: &str| {
            let own = own_room(&self.sockets, self.number, slot, room);
            own.into_iter().chain(namespace.members(room).iter().copied()).collect::<Vec<_>>()
        };
        let mut slots: Vec<u32> = match &target.rooms[..] {
            [] => namespace.connected.clone(),
            rooms => rooms.iter().flat_map(|room| members(room)).collect(),
        };
        let mut except: Vec<u32> = target.except.iter().flat_map(|room| members(room)).collect();
        except.sort_unstable();
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| except.binary_search(slot).is_err());
        let keys = slots.into_iter().filter_map(|slot| self.sockets.key_at(slot));
        keys.filter(|&key| self.is_connected(key)).collect()
    }
}

fn is_ready(session: &Session) -> bool {
    is_listening(session) && !session.outbox.has_backlog()
}

/// Whether what is queued would leave.
pub(super) fn is_listening(session: &Session) -> bool {
    match session.transport {
        Transport::Polling { poll } => poll.is_some(),
        Transport::WebSocket { blocked, .. } => !blocked,
    }
}

/// Whether a step's packet would wait, and be one too many.
fn finds_no_room(session: &Session, step: &Step<'_>, bytes_max: usize) -> bool {
    !is_listening(session) && step.bytes_behind(&session.outbox) > bytes_max
}

/// The limit that a packet meets before it is queued, if it is one that makes room for those before it.
fn door(packet: &Prepared, settings: &Settings) -> Option<usize> {
    (*packet.fate() == Fate::DroppedNewest).then_some(settings.outbox_bytes_max)
}

/// The socket that a room is named after, if there is one in this namespace on this shard.
fn own_room(sockets: &Arena<Socket>, shard: u16, namespace: u32, room: &str) -> Option<u32> {
    let id = Id::parse(room).filter(|id| id.shard() == shard)?;
    let socket = sockets.at(id.slot())?;
    (socket.id == id && socket.namespace == namespace && !socket.left_own_room).then_some(id.slot())
}

/// Spreads numbers that follow each other evenly over all numbers (Fibonacci hashing).
fn scatter(number: u64) -> usize {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// One walk over the receivers of a broadcast.
struct Walk<'s> {
    stamp: u64,
    sockets: &'s mut Arena<Socket>,
    sessions: &'s mut Arena<Session>,
    lanes: &'s mut Lanes<Key<Session>>,
    step: Step<'s>,
    volatile: bool,
    /// What may wait for a receiver that cannot be written to, this packet included; for a packet that is dropped first.
    bytes_max: Option<usize>,
    /// Wide, once the receivers of some room are.
    lane: Lane,
    counts: Counts,
    /// Those of the dropped that found no room.
    turned_away: u64,
}

impl Walk<'_> {
    /// To the members of a room. A wide room's are written over many turns: each broadcast begins with another one, so
    /// that the same are not always last.
    fn deliver_all(&mut self, slots: &[u32]) {
        if slots.len() <= NARROW_MAX {
            return self.deliver(slots, Lane::Swift);
        }
        self.lane = Lane::Wide;
        let (last, first) = slots.split_at(scatter(self.stamp) % slots.len());
        self.deliver(first, Lane::Wide);
        self.deliver(last, Lane::Wide);
    }

    fn deliver(&mut self, slots: &[u32], lane: Lane) {
        for &slot in slots {
            let socket = self.sockets.at_mut(slot).expect("a member is alive");
            if socket.stamp == self.stamp || socket.state != SocketState::Connected {
                continue;
            }
            socket.stamp = self.stamp;
            let key = socket.session;
            let session = self.sessions.get_mut(key).expect("a connected socket has a session");
            if self.volatile && !is_ready(session) {
                self.counts.dropped += 1;
                continue;
            }
            if self.bytes_max.is_some_and(|max| finds_no_room(session, &self.step, max)) {
                self.counts.dropped += 1;
                self.turned_away += 1;
                continue;
            }
            self.lanes.add(key, &mut session.queued, lane);
            self.step.extend(&mut session.outbox.run);
            self.counts.sockets += 1;
        }
    }
}
