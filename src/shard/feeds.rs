//! Feeds: rooms where the newest event of each key is what counts.
//!
//! A rule of `Settings::feeds` may give a room a *window*: what is emitted to it with a key is held here, the newest of
//! each key, and leaves together when the window ends. It may also have the room *retain* the newest event of each key,
//! for those who join later. What belongs to everyone in the namespace is a feed of its own beside the rooms'.
//!
//! ```text
//! emitted   a1  b1 a2 b2 a3          c1                            b3
//! window    ├────────────────────────┼────────────────────────┤    ├───
//! leaves    a1                       b2 a3                    c1   b3
//! retained  a1                       b2 a3                    …c1  a3 c1 b3
//! ```
//!
//! What is held has not happened yet: it is retained when it leaves. So a socket that joins gets what the room retains,
//! which is what all others have got, and from then on what they get: nothing is missing, and nothing comes twice but what
//! came by a room that has something newer. One that a drain lets go gets what is held for it before the window ends: it
//! will not be here then.
//!
//! Held is only what goes to one room (or everyone) with a key to conflate by. Anything else leaves at once, behind what
//! the rooms that it names hold; what goes to everyone, behind what all rooms hold. A held event is replaced by one with
//! the same key and the same target only: else somebody might get neither.
//!
//! Nothing of this is in a membership or in a walk: a room without a rule pays a lookup at most, whatever other rooms and
//! namespaces hold.
//!
//! Invariants: a feed has a window or retains something; of each namespace, `holding` names the feeds that hold something,
//!             `retaining` the rooms that retain something, by their last change, and `retained_bytes` is the sum.
//! Limits:     `conflate_keys_max`, `outbox_bytes_max`; `retain_keys_max`, `retain_rooms_max`, `retain_bytes_max` (Settings).
//! Not here:   what becomes of a packet whose receiver is behind (outbox.rs).

use super::arena::{Arena, Key};
use super::mail::{Counts, Mail, Target};
use super::session::Session;
use super::slack::Slack as _;
use super::sockets::{Socket, SocketState};
use super::{Millis, Shard, Timer, millis};
use crate::proto::{Fate, Prepared};
use crate::settings::Policy;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

/// What an event that is retained or held costs beside its bytes and its key: its head, its target, its places in the
/// lists. Measured as 614 bytes on one worker, with 100 keys in each of 2,000 rooms; each worker more adds 165.
pub const EVENT_BYTES: usize = 600;
/// What a room costs that retains something. Measured as 900 bytes, on each worker, with one key in each of 50,000 rooms.
pub const ROOM_BYTES: usize = 1000;

#[derive(Default)]
pub struct Feeds {
    feeds: Arena<Feed>,
    by_name: HashMap<Box<str>, Names>,
    /// Numbers whatever is held or retained, in the order in which it changed.
    changes: u64,
}

/// The feeds of one namespace.
#[derive(Default)]
struct Names {
    everyone: Option<Key<Feed>>,
    rooms: HashMap<Box<str>, Key<Feed>>,
    /// Those that hold something: the number of the change since which they do, and the slot.
    holding: BTreeSet<(u64, u32)>,
    /// The rooms that retain something: the number of the last change, and the slot.
    retaining: BTreeSet<(u64, u32)>,
    /// What it costs all of them together to retain what they do.
    retained_bytes: usize,
}

pub struct Feed {
    namespace: Box<str>,
    /// `None`: everyone in the namespace.
    room: Option<Box<str>>,
    window: Option<Window>,
    retained: Newest,
    /// When what it retains changed last.
    changed: u64,
}

struct Window {
    every: Millis,
    ends: Millis,
    held: Newest,
    /// The change with which it began to hold what it holds.
    since: u64,
}

/// Of each key the newest event, in the order in which they changed.
#[derive(Default)]
struct Newest {
    by_change: BTreeMap<u64, Entry>,
    changes: HashMap<Rc<str>, u64>,
    bytes: usize,
}

struct Entry {
    key: Rc<str>,
    target: Arc<Target>,
    packet: Arc<Prepared>,
}

impl Entry {
    fn bytes(&self) -> usize {
        event_bytes(&self.key, &self.packet)
    }
}

fn event_bytes(key: &str, packet: &Prepared) -> usize {
    packet.websocket().len() + key.len() + EVENT_BYTES
}

impl Feed {
    fn retained(&self) -> Option<&Newest> {
        Some(&self.retained)
    }

    fn held(&self) -> Option<&Newest> {
        self.window.as_ref().map(|window| &window.held)
    }
}

impl Newest {
    fn len(&self) -> usize {
        self.by_change.len()
    }

    fn is_empty(&self) -> bool {
        self.by_change.is_empty()
    }

    /// Whether these are too many, or too large, with one event more. By itself it never is.
    fn is_full(&self, key: &str, packet: &Prepared, keys_max: usize, bytes_max: usize) -> bool {
        let replaced = self.changes.get(key).map(|change| &self.by_change[change]);
        let beside = self.bytes - replaced.map_or(0, Entry::bytes);
        replaced.is_none() && self.len() >= keys_max || beside > 0 && beside + event_bytes(key, packet) > bytes_max
    }

    /// What it costs a room to retain this.
    fn cost(&self) -> usize {
        if self.is_empty() { 0 } else { self.bytes + ROOM_BYTES }
    }

    /// Puts an event. `true`: it has replaced one.
    fn put(&mut self, change: u64, key: &str, target: &Arc<Target>, packet: &Arc<Prepared>) -> bool {
        let before = self.remove(key);
        let key = Rc::<str>::from(key);
        self.changes.insert(Rc::clone(&key), change);
        let entry = Entry { key, target: Arc::clone(target), packet: Arc::clone(packet) };
        self.bytes += entry.bytes();
        self.by_change.insert(change, entry);
        before
    }

    fn remove(&mut self, key: &str) -> bool {
        let change = self.changes.remove(key);
        self.changes.trim();
        let entry = change.and_then(|change| self.by_change.remove(&change));
        self.bytes -= entry.as_ref().map_or(0, Entry::bytes);
        entry.is_some()
    }

    fn remove_oldest(&mut self) {
        if let Some((_, oldest)) = self.by_change.pop_first() {
            self.changes.remove(&oldest.key);
            self.changes.trim();
            self.bytes -= oldest.bytes();
        }
    }
}

impl Feeds {
    pub fn is_empty(&self) -> bool {
        self.feeds.len() == 0
    }

    /// How many events are retained, and what they cost.
    pub fn retained(&self) -> (usize, usize) {
        let events = self.feeds.iter().map(|(_, feed)| feed.retained.len()).sum();
        (events, self.by_name.values().map(|names| names.retained_bytes).sum())
    }

    fn at(&mut self, key: Key<Feed>) -> &mut Feed {
        self.feeds.get_mut(key).expect("who has the key of a feed has looked")
    }

    fn find(&self, namespace: &str, room: Option<&str>) -> Option<Key<Feed>> {
        let names = self.by_name.get(namespace)?;
        room.map_or(names.everyone, |room| names.rooms.get(room).copied())
    }

    /// The feed of that name, made if it is not there. `None`: there is no slot for one more.
    fn find_or_make(&mut self, namespace: &str, room: Option<&str>) -> Option<Key<Feed>> {
        if let Some(key) = self.find(namespace, room) {
            return Some(key);
        }
        if self.feeds.is_full() {
            return None;
        }
        let (retained, changed) = (Newest::default(), 0);
        let feed = Feed { namespace: namespace.into(), room: room.map(Into::into), window: None, retained, changed };
        let key = self.feeds.insert_with(|_| feed);
        let names = self.by_name.entry(namespace.into()).or_default();
        match room {
            None => names.everyone = Some(key),
            Some(room) => drop(names.rooms.insert(room.into(), key)),
        }
        Some(key)
    }

    /// Frees a feed that has neither a window nor anything that it retains.
    fn tidy(&mut self, key: Key<Feed>) {
        let feed = self.feeds.get(key).expect("the caller has it");
        if feed.window.is_some() || !feed.retained.is_empty() {
            return;
        }
        let Feed { namespace, room, .. } = self.feeds.remove(key).expect("just found");
        let names = self.by_name.get_mut(&namespace).expect("a feed is named");
        match room {
            None => names.everyone = None,
            Some(room) => drop(names.rooms.remove(&room)),
        }
        names.rooms.trim();
        if names.everyone.is_none() && names.rooms.is_empty() {
            self.by_name.remove(&namespace);
            self.by_name.trim();
        }
    }

    /// The feeds of a namespace that hold something, in the order in which they began to.
    pub fn holding(&self, namespace: &str) -> impl Iterator<Item = Key<Feed>> {
        let holding = self.by_name.get(namespace).into_iter().flat_map(|names| &names.holding);
        holding.map(|&(_, slot)| self.feeds.key_at(slot).expect("it holds something"))
    }

    /// Those of all namespaces, in the same order.
    fn all_holding(&self) -> Vec<Key<Feed>> {
        let holding: BTreeSet<(u64, u32)> = self.by_name.values().flat_map(|names| &names.holding).copied().collect();
        holding.into_iter().map(|(_, slot)| self.feeds.key_at(slot).expect("it holds something")).collect()
    }

    /// Has a feed's window hold an event. `true`: it has replaced one.
    fn hold(&mut self, key: Key<Feed>, place: &str, target: &Arc<Target>, packet: &Arc<Prepared>) -> bool {
        let change = self.next_change();
        let feed = self.feeds.get_mut(key).expect("the caller has it");
        let window = feed.window.as_mut().expect("the caller has seen it");
        if window.held.is_empty() {
            window.since = change;
            let names = self.by_name.get_mut(&feed.namespace).expect("a feed is named");
            names.holding.insert((change, key.slot()));
        }
        window.held.put(change, place, target, packet)
    }

    /// Takes what a feed holds, and begins its window anew. `None`: it holds nothing.
    fn take_held(&mut self, key: Key<Feed>, now: Millis) -> Option<Newest> {
        let feed = self.feeds.get_mut(key)?;
        let window = feed.window.as_mut().filter(|window| !window.held.is_empty())?;
        window.ends = now + window.every;
        let names = self.by_name.get_mut(&feed.namespace).expect("a feed is named");
        names.holding.remove(&(window.since, key.slot()));
        Some(std::mem::take(&mut window.held))
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Changes what a feed retains, and keeps the books of its namespace. `change` is the feed's last one from now on.
    fn change_retained(&mut self, key: Key<Feed>, change: u64, act: impl FnOnce(&mut Newest)) {
        let feed = self.feeds.get_mut(key).expect("the caller has it");
        let names = self.by_name.get_mut(&feed.namespace).expect("a feed is named");
        names.retained_bytes -= feed.retained.cost();
        act(&mut feed.retained);
        names.retained_bytes += feed.retained.cost();
        let before = std::mem::replace(&mut feed.changed, change);
        if feed.room.is_some() {
            names.retaining.remove(&(before, key.slot()));
            if !feed.retained.is_empty() {
                names.retaining.insert((change, key.slot()));
            }
        }
    }

    /// Has a feed retain less. Returns how many events it has forgotten.
    fn forget(&mut self, key: Key<Feed>, act: impl FnOnce(&mut Newest)) -> usize {
        let feed = self.at(key);
        let (before, changed) = (feed.retained.len(), feed.changed);
        self.change_retained(key, changed, act);
        let forgotten = before - self.at(key).retained.len();
        self.tidy(key);
        forgotten
    }

    /// Brings a namespace back within its limits. Whole rooms are forgotten, in the order of their last change; when none
    /// is left, the oldest of what everyone got. Returns how many events have been forgotten.
    fn forget_excess(&mut self, namespace: &str, rooms_max: usize, bytes_max: usize) -> usize {
        let mut forgotten = 0;
        while let Some(names) = self.by_name.get(namespace)
            && (names.retaining.len() > rooms_max || names.retained_bytes > bytes_max)
        {
            forgotten += match names.retaining.first() {
                Some(&(_, slot)) => {
                    let oldest = self.feeds.key_at(slot).expect("it retains something");
                    self.forget(oldest, |retained| *retained = Newest::default())
                }
                None => self.forget(names.everyone.expect("else nothing is retained"), Newest::remove_oldest),
            };
        }
        forgotten
    }

    #[cfg(test)]
    pub fn invariants(&self) {
        let named = self.by_name.values().flat_map(|names| names.rooms.values().chain(&names.everyone));
        assert_eq!(named.count(), self.feeds.len());
        for (key, feed) in self.feeds.iter() {
            assert_eq!(self.find(&feed.namespace, feed.room.as_deref()), Some(key));
            assert!(feed.window.is_some() || !feed.retained.is_empty(), "an idle feed is freed");
            let Names { holding, retaining, .. } = &self.by_name[&feed.namespace];
            if let Some(window) = &feed.window {
                assert_eq!(holding.contains(&(window.since, key.slot())), !window.held.is_empty());
            }
            let listed = feed.room.is_some() && !feed.retained.is_empty();
            assert_eq!(retaining.contains(&(feed.changed, key.slot())), listed);
            for newest in feed.window.iter().map(|window| &window.held).chain([&feed.retained]) {
                assert_eq!(newest.changes.len(), newest.by_change.len());
                assert_eq!(newest.bytes, newest.by_change.values().map(Entry::bytes).sum::<usize>());
                assert!(newest.changes.iter().all(|(key, change)| newest.by_change[change].key == *key));
            }
        }
        let holds = |feed: &Feed| feed.window.as_ref().is_some_and(|window| !window.held.is_empty());
        let retains = |feed: &Feed| feed.room.is_some() && !feed.retained.is_empty();
        for (name, names) in &self.by_name {
            let feeds = || self.feeds.iter().map(|(_, feed)| feed).filter(|feed| feed.namespace == *name);
            assert_eq!(feeds().filter(|feed| holds(feed)).count(), names.holding.len());
            assert_eq!(feeds().filter(|feed| retains(feed)).count(), names.retaining.len());
            assert_eq!(feeds().map(|feed| feed.retained.cost()).sum::<usize>(), names.retained_bytes);
        }
    }
}

impl Shard {
    /// One packet to the target's sockets on this shard, as the rules want it: now, or when a window ends. If it is
    /// held, those are counted who are in the room.
    pub(super) fn feed(&mut self, target: &Arc<Target>, packet: &Arc<Prepared>) -> Counts {
        if self.settings.feeds.is_empty() && self.feeds.is_empty() {
            return self.fan_out(target, packet);
        }
        match self.hold(target, packet) {
            Some(sockets) => Counts { sockets, ..Counts::default() },
            None => self.pass(target, packet),
        }
    }

    /// Holds a packet, if it has to wait for a window. If it would but for the quiet time before it, a window begins.
    fn hold(&mut self, target: &Arc<Target>, packet: &Arc<Prepared>) -> Option<usize> {
        let room = match &target.rooms[..] {
            [] => None,
            [room] => Some(&**room),
            _ => return None,
        };
        let (Fate::Conflated(_), Some(key)) = (packet.fate(), &target.key) else { return None };
        let rule = self.settings.feed(&target.namespace, room)?;
        let every = millis(rule.conflate_every?);
        let members = self.member_count(target);
        if members == 0 && !rule.retain {
            return None; // nobody would get it
        }
        let feed = self.feeds.find_or_make(&target.namespace, room)?;
        let place = place(key, target);
        let Some(window) = &mut self.feeds.at(feed).window else {
            self.open_window(feed, every);
            return None;
        };
        // All of it leaves for each client at once: what an outbox does not hold makes a slow client of a healthy one.
        let (keys_max, bytes_max) = (self.settings.conflate_keys_max, self.settings.outbox_bytes_max);
        if window.held.is_full(&place, packet, keys_max, bytes_max) {
            self.counters.windows_full += 1;
            self.flush(feed);
        }
        if self.feeds.hold(feed, &place, target, packet) {
            self.counters.conflated_in_windows += 1;
        }
        Some(members)
    }

    fn open_window(&mut self, key: Key<Feed>, every: Millis) {
        let ends = self.now + every;
        let feed = self.feeds.at(key);
        feed.window = Some(Window { every, ends, held: Newest::default(), since: 0 });
        self.wake_at(ends, Timer::Window(key));
    }

    /// A window ends. If it has held something the next one begins, else the next event leaves at once.
    pub(super) fn window_due(&mut self, key: Key<Feed>) {
        let Some(feed) = self.feeds.feeds.get_mut(key) else { return };
        let Some(window) = &feed.window else { return };
        if window.ends <= self.now && window.held.is_empty() {
            feed.window = None;
            return self.feeds.tidy(key);
        }
        if window.ends <= self.now {
            self.flush(key);
        }
        let window =
            self.feeds.feeds.get(key).and_then(|feed| feed.window.as_ref()).expect("a flush begins the next one");
        let ends = window.ends;
        self.wake_at(ends, Timer::Window(key));
    }

    /// What a feed holds leaves, and its window begins anew.
    fn flush(&mut self, key: Key<Feed>) {
        // What left before may have taken this along.
        let Some(held) = self.feeds.take_held(key, self.now) else { return };
        for Entry { target, packet, .. } in held.by_change.into_values() {
            self.pass(&target, &packet);
        }
    }

    /// What everybody holds leaves: nothing will come after it.
    pub(super) fn flush_all(&mut self) {
        self.feeds.all_holding().into_iter().for_each(|key| self.flush(key));
    }

    /// One packet leaves, behind what was emitted to its receivers before.
    fn pass(&mut self, target: &Arc<Target>, packet: &Arc<Prepared>) -> Counts {
        self.flush_before(target);
        self.retain(target, packet);
        self.fan_out(target, packet)
    }

    /// Nothing for a room overtakes what the room holds, and nothing for everyone what any room holds.
    fn flush_before(&mut self, target: &Target) {
        if self.feeds.holding(&target.namespace).next().is_none() {
            return;
        }
        let holding: Vec<Key<Feed>> = match &target.rooms[..] {
            [] => self.feeds.holding(&target.namespace).collect(),
            rooms => rooms.iter().filter_map(|room| self.feeds.find(&target.namespace, Some(room))).collect(),
        };
        holding.into_iter().for_each(|key| self.flush(key));
    }

    /// Keeps the packet in those of its rooms that retain.
    fn retain(&mut self, target: &Arc<Target>, packet: &Arc<Prepared>) {
        if target.key.is_none() {
            return;
        }
        let change = self.feeds.next_change();
        match &target.rooms[..] {
            [] => self.retain_in(None, change, target, packet),
            rooms => rooms.iter().for_each(|room| self.retain_in(Some(room), change, target, packet)),
        }
    }

    fn retain_in(&mut self, room: Option<&str>, change: u64, target: &Arc<Target>, packet: &Arc<Prepared>) {
        let rule = self.settings.feed(&target.namespace, room);
        let Some(key) = target.key.as_deref().filter(|_| rule.is_some_and(|rule| rule.retain)) else { return };
        let Some(feed) = self.feeds.find_or_make(&target.namespace, room) else { return };
        // A number of its own: of the rooms of one event, the first named changed first.
        let changed = self.feeds.next_change();
        let mut forgotten = 0;
        self.feeds.change_retained(feed, changed, |retained| {
            retained.put(change, key, target, packet);
            while retained.len() > self.settings.retain_keys_max {
                retained.remove_oldest();
                forgotten += 1;
            }
        });
        let (rooms_max, bytes_max) = (self.settings.retain_rooms_max, self.settings.retain_bytes_max);
        forgotten += self.feeds.forget_excess(&target.namespace, rooms_max, bytes_max);
        self.counters.retained_forgotten += forgotten as u64;
    }

    /// Forgets what the target's rooms retain, or without a room what everyone does, on every shard. With a key, only what
    /// has that key.
    pub fn forget(&mut self, target: &Arc<Target>) {
        self.post_all(|| Mail::Forget { target: Arc::clone(target) });
        self.forget_here(target);
    }

    pub(super) fn forget_here(&mut self, target: &Target) {
        self.flush_before(target); // else it would be retained in a moment
        let feeds: Vec<_> = match &target.rooms[..] {
            [] => self.feeds.find(&target.namespace, None).into_iter().collect(),
            rooms => rooms.iter().filter_map(|room| self.feeds.find(&target.namespace, Some(room))).collect(),
        };
        for feed in feeds {
            if self.feeds.feeds.get(feed).is_some() {
                self.feeds.forget(feed, |retained| match &target.key {
                    Some(key) => drop(retained.remove(key)),
                    None => *retained = Newest::default(),
                });
            }
        }
    }

    // ---- those who come later

    /// Sockets of one namespace have come into a room: each gets what the room retains, but for what it has got in
    /// another room. Each event is given to all of them at once, so that those who get the same wait for the same run.
    pub(super) fn catch_up(&mut self, newcomers: &[Key<Socket>], room: &str) {
        let Some(first) = newcomers.first().filter(|_| !self.feeds.is_empty()) else { return };
        let namespace = self.sockets.get(*first).expect("it has just come").namespace;
        let feed = self.feeds.find(&self.namespace(namespace).name, Some(room));
        let Some(feed) = feed.and_then(|key| self.feeds.feeds.get(key)) else { return };
        let event = |(&change, entry): (&u64, &Entry)| (change, Arc::clone(&entry.target), Arc::clone(&entry.packet));
        let retained: Vec<_> = feed.retained.by_change.iter().map(event).collect();
        let mut receivers = Vec::new();
        for (change, target, packet) in retained {
            let sockets = newcomers.iter().filter_map(|&key| self.sockets.get(key));
            let connected = sockets.filter(|socket| socket.state == SocketState::Connected);
            let lacking = connected.filter(|socket| self.lacks(socket, room, change, &target));
            receivers.clear();
            receivers.extend(lacking.map(|socket| socket.session));
            self.counters.caught_up += receivers.len() as u64;
            self.queue(&receivers, &packet);
        }
        for &key in newcomers {
            let session = self.sockets.get(key).expect("it has just come").session;
            self.limit_catching_up(session);
        }
    }

    /// Whether a socket that has come into a room has not got what changed there, and may have it.
    fn lacks(&self, socket: &Socket, room: &str, change: u64, target: &Target) -> bool {
        let namespace = &self.namespace(socket.namespace).name;
        let mut others = target.rooms.iter().filter(|other| ***other != *room);
        !self.is_excepted(socket, target)
            && !others.any(|other| self.is_in(socket, other) && self.retains(namespace, other, change))
    }

    /// A socket has been let in: it gets what is retained for everyone and for the rooms that it has joined meanwhile.
    pub(super) fn catch_up_all(&mut self, key: Key<Socket>) {
        if self.feeds.is_empty() {
            return;
        }
        let packets = self.all_for(key, Feed::retained);
        self.counters.caught_up += packets.len() as u64;
        let session = self.give(key, &packets);
        self.limit_catching_up(session);
    }

    /// Whoever joins and leaves again and again is not given it all again and again.
    fn limit_catching_up(&mut self, session: Key<Session>) {
        if self.gathered(session) > self.settings.outbox_bytes_max {
            self.evict(session);
        }
    }

    /// A session is let go before windows end: what they hold for it, it gets now.
    pub(super) fn give_held(&mut self, session: Key<Session>) {
        if self.feeds.is_empty() {
            return;
        }
        let sockets = self.sessions.get(session).map(|session| session.sockets.clone()).unwrap_or_default();
        for slot in sockets {
            let key = self.sockets.key_at(slot).expect("a session lists its live sockets");
            let socket = self.sockets.get(key).expect("just found");
            let holds = self.feeds.holding(&self.namespace(socket.namespace).name).next().is_some();
            if holds && self.is_connected(key) {
                let packets = self.all_for(key, Feed::held);
                self.give(key, &packets);
            }
        }
    }

    fn give(&mut self, key: Key<Socket>, packets: &[Arc<Prepared>]) -> Key<Session> {
        let session = self.sockets.get(key).expect("the caller has it").session;
        packets.iter().for_each(|packet| self.queue(&[session], packet));
        session
    }

    /// What these feeds have for a socket, those of its rooms and everyone's, in the order in which it changed.
    fn all_for(&self, key: Key<Socket>, of: fn(&Feed) -> Option<&Newest>) -> Vec<Arc<Prepared>> {
        let socket = self.sockets.get(key).expect("the caller has it");
        let namespace = &self.namespace(socket.namespace).name;
        let rooms = self.rooms_of(key);
        let rooms = rooms.iter().map(|room| Some(&**room)).chain([None]);
        // An event to several rooms is there several times, with one number.
        let all: BTreeMap<u64, &Entry> = rooms.flat_map(|room| self.one_for(socket, namespace, room, of)).collect();
        all.into_values().map(|entry| Arc::clone(&entry.packet)).collect()
    }

    /// What a feed has, but for what the socket was excepted from.
    fn one_for<'s>(
        &'s self,
        socket: &'s Socket,
        namespace: &str,
        room: Option<&str>,
        of: fn(&Feed) -> Option<&Newest>,
    ) -> impl Iterator<Item = (u64, &'s Entry)> {
        let feed = self.feeds.find(namespace, room).and_then(|key| self.feeds.feeds.get(key));
        let newest = feed.and_then(of).into_iter().flat_map(|newest| &newest.by_change);
        let meant = newest.filter(move |(_, entry)| !self.is_excepted(socket, &entry.target));
        meant.map(|(&change, entry)| (change, entry))
    }

    fn is_excepted(&self, socket: &Socket, target: &Target) -> bool {
        target.except.iter().any(|room| self.is_in(socket, room))
    }

    fn retains(&self, namespace: &str, room: &str, change: u64) -> bool {
        let feed = self.feeds.find(namespace, Some(room)).and_then(|key| self.feeds.feeds.get(key));
        feed.is_some_and(|feed| feed.retained.by_change.contains_key(&change))
    }

    fn is_in(&self, socket: &Socket, room: &str) -> bool {
        let own = *socket.id.text() == *room;
        own && !socket.left_own_room || self.namespace(socket.namespace).holds(socket, room)
    }
}

// ---- keys

/// What may become of an event where a receiver is behind. An emit with a key is conflated by it, whatever the policy;
/// `whole` puts the target before it, so that equal keys of different rooms have nothing to do with each other.
pub fn fate(policy: Policy, key: Option<&str>, event: &str, whole: impl FnOnce(&str) -> Arc<str>) -> Fate {
    match (key, policy) {
        (Some(key), _) => Fate::Conflated(whole(key)),
        (None, Policy::Conflate) => Fate::Conflated(whole(event)),
        (None, Policy::Evict) => Fate::Kept,
        (None, Policy::DropNewest) => Fate::DroppedNewest,
        (None, Policy::DropOldest) => Fate::DroppedOldest,
    }
}

/// Namespace, rooms and key as one text, which no other namespace, rooms and key have.
pub fn whole_key<'r>(namespace: &str, rooms: impl Iterator<Item = &'r str>, key: &str) -> Arc<str> {
    let rooms: BTreeSet<&str> = rooms.collect();
    join([namespace].into_iter().chain(rooms).chain([key])).into()
}

/// What a held event is replaced by: the same key for the same receivers.
pub fn place(key: &str, target: &Target) -> String {
    let volatile = if target.volatile { "volatile" } else { "" };
    join([key, volatile].into_iter().chain(target.except.iter().map(|room| &**room)))
}

/// Texts as one, each behind its length: whatever they hold, other texts make another one.
fn join<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let mut joined = String::new();
    for text in texts {
        write!(joined, "{}:{text}", text.len()).expect("a string takes every write");
    }
    joined
}
