//! Feeds: what the windows of one shard hold and what its rooms retain, by plain lists.
//!
//! It is told of every event and of the time, and answers which events leave now, in their order. Who gets them is for
//! the oracle to say.

use super::super::feeds::{EVENT_BYTES, ROOM_BYTES, place};
use super::super::mail::Target;
use super::super::{Millis, Shard};
use crate::proto::{Fate, Prepared};
use crate::settings::Settings;
use std::rc::Rc;
use std::sync::Arc;

/// An event on its way through a shard.
#[derive(Clone)]
pub struct Cast {
    pub target: Rc<Target>,
    pub packet: Arc<Prepared>,
    /// Numbers what is held, and what leaves; what goes to several rooms has one number.
    pub number: u64,
}

impl Cast {
    /// Whether it takes the other's place in a window.
    fn replaces(&self, other: &Cast) -> bool {
        let (one, other) = (&self.target, &other.target);
        one.key == other.key && one.except == other.except && one.volatile == other.volatile
    }

    /// What it costs that it is held.
    fn held_bytes(&self) -> usize {
        let key = self.target.key.as_deref().expect("only what has a key is held");
        self.packet.websocket().len() + place(key, &self.target).len() + EVENT_BYTES
    }
}

#[derive(Default)]
pub struct Feeds {
    now: Millis,
    list: Vec<Feed>,
    /// When somebody looks after a window again, in the order in which that was noted.
    timers: Vec<(Millis, usize)>,
    numbers: u64,
}

struct Feed {
    namespace: String,
    room: Option<String>,
    window_ends: Option<Millis>,
    held: Vec<Cast>,
    retained: Vec<Cast>,
    /// When it began to hold what it holds.
    holds_since: u64,
    /// When what it retains changed.
    changed: u64,
}

impl Feed {
    /// What it costs that it retains something.
    fn retained_bytes(&self) -> usize {
        let key = |cast: &Cast| cast.target.key.as_deref().map_or(0, str::len);
        let bytes = |cast: &Cast| cast.packet.websocket().len() + key(cast) + EVENT_BYTES;
        self.retained.iter().map(bytes).sum::<usize>() + ROOM_BYTES
    }
}

impl Feeds {
    /// An event is emitted. Returns what leaves, and whether the event is held; else it leaves last.
    pub fn emitted(&mut self, shard: &Shard, target: &Target, packet: &Arc<Prepared>) -> (Vec<Cast>, bool) {
        let cast = Cast { target: Rc::new(target.clone()), packet: Arc::clone(packet), number: 0 };
        let mut leaving = Vec::new();
        self.now = shard.now;
        if let Some((at, every)) = self.window_for(shard, &cast) {
            if self.list[at].window_ends.is_some() {
                self.hold(shard, at, cast, &mut leaving);
                return (leaving, true);
            }
            self.list[at].window_ends = Some(self.now + every);
            self.timers.push((self.now + every, at));
        }
        self.leave(shard, cast, &mut leaving);
        (leaving, false)
    }

    fn window_for(&mut self, shard: &Shard, cast: &Cast) -> Option<(usize, Millis)> {
        let room = match &cast.target.rooms[..] {
            [] => None,
            [room] => Some(&**room),
            _ => return None,
        };
        let rule = shard.settings.feed(&cast.target.namespace, room)?;
        let every = rule.conflate_every?.as_millis() as Millis;
        let keyed = matches!(cast.packet.fate(), Fate::Conflated(_));
        let wanted = rule.retain || shard.member_count(&cast.target) > 0;
        (keyed && wanted).then(|| (self.feed(&cast.target.namespace, room), every))
    }

    fn hold(&mut self, shard: &Shard, at: usize, cast: Cast, leaving: &mut Vec<Cast>) {
        let (replaced, beside): (Vec<&Cast>, Vec<_>) = self.list[at].held.iter().partition(|held| cast.replaces(held));
        let too_many = replaced.is_empty() && beside.len() == shard.settings.conflate_keys_max;
        let bytes: usize = beside.iter().map(|held| held.held_bytes()).sum();
        let too_large = !beside.is_empty() && bytes + cast.held_bytes() > shard.settings.outbox_bytes_max;
        if too_many || too_large {
            self.flush(shard, at, leaving);
        }
        self.numbers += 1;
        let number = self.numbers;
        let feed = &mut self.list[at];
        if feed.held.is_empty() {
            feed.holds_since = number;
        }
        feed.held.retain(|held| !cast.replaces(held));
        feed.held.push(Cast { number, ..cast });
    }

    /// What waits for a window to end, the oldest first.
    pub fn held(&self) -> Vec<Cast> {
        let mut held: Vec<Cast> = self.list.iter().flat_map(|feed| &feed.held).cloned().collect();
        held.sort_by_key(|cast| cast.number);
        held
    }

    /// Time goes on.
    pub fn advance(&mut self, shard: &Shard, now: Millis) -> Vec<Cast> {
        let mut leaving = Vec::new();
        self.now = now;
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.timers).into_iter().partition(|it| it.0 <= now);
        self.timers = later;
        due.sort_by_key(|&(due, _)| due);
        for (_, at) in due {
            let feed = &mut self.list[at];
            let ends = feed.window_ends.expect("its last timer closes it");
            if ends <= now && feed.held.is_empty() {
                feed.window_ends = None;
                continue;
            }
            if ends <= now {
                self.flush(shard, at, &mut leaving);
            }
            self.timers.push((self.list[at].window_ends.expect("it goes on"), at));
        }
        leaving
    }

    /// Everything that is held leaves.
    pub fn flush_all(&mut self, shard: &Shard) -> Vec<Cast> {
        let mut leaving = Vec::new();
        self.now = shard.now;
        for at in self.holding(|_| true) {
            self.flush(shard, at, &mut leaving);
        }
        leaving
    }

    /// What these rooms retain is forgotten, once what they hold has left.
    pub fn forget(&mut self, shard: &Shard, target: &Target) -> Vec<Cast> {
        let mut leaving = Vec::new();
        self.now = shard.now;
        self.flush_before(shard, target, &mut leaving);
        for feed in self.list.iter_mut().filter(|feed| names(target, feed, false)) {
            feed.retained.retain(|cast| target.key.is_some() && cast.target.key != target.key);
        }
        leaving
    }

    /// What a feed retains, the oldest first.
    pub fn retained<'f>(&'f self, namespace: &str, room: Option<&str>) -> impl Iterator<Item = &'f Cast> {
        let is_it = move |feed: &&Feed| feed.namespace == namespace && feed.room.as_deref() == room;
        self.list.iter().filter(is_it).flat_map(|feed| &feed.retained)
    }

    fn leave(&mut self, shard: &Shard, cast: Cast, leaving: &mut Vec<Cast>) {
        self.flush_before(shard, &cast.target, leaving);
        self.numbers += 1;
        let cast = Cast { number: self.numbers, ..cast };
        self.retain(shard, &cast);
        leaving.push(cast);
    }

    fn flush_before(&mut self, shard: &Shard, target: &Target, leaving: &mut Vec<Cast>) {
        let mut before = self.holding(|feed| names(target, feed, true));
        let position = |feed: &Feed| target.rooms.iter().position(|room| feed.room.as_deref() == Some(room));
        before.sort_by_key(|&at| position(&self.list[at]));
        before.into_iter().for_each(|at| self.flush(shard, at, leaving));
    }

    fn holding(&self, of: impl Fn(&Feed) -> bool) -> Vec<usize> {
        let holds = |at: &usize| !self.list[*at].held.is_empty() && of(&self.list[*at]);
        let mut holding: Vec<usize> = (0..self.list.len()).filter(holds).collect();
        holding.sort_by_key(|&at| self.list[at].holds_since);
        holding
    }

    fn flush(&mut self, shard: &Shard, at: usize, leaving: &mut Vec<Cast>) {
        let feed = &mut self.list[at];
        let rule = shard.settings.feed(&feed.namespace, feed.room.as_deref());
        let every = rule.and_then(|rule| rule.conflate_every).expect("it has a window").as_millis() as Millis;
        feed.window_ends = Some(self.now + every);
        for cast in std::mem::take(&mut feed.held) {
            self.leave(shard, cast, leaving);
        }
    }

    fn retain(&mut self, shard: &Shard, cast: &Cast) {
        let rooms: Vec<Option<&str>> = match &cast.target.rooms[..] {
            [] => vec![None],
            rooms => rooms.iter().map(|room| Some(&**room)).collect(),
        };
        for room in rooms {
            let retains = |settings: &Settings| settings.feed(&cast.target.namespace, room).is_some_and(|it| it.retain);
            if cast.target.key.is_none() || !retains(&shard.settings) {
                continue;
            }
            let at = self.feed(&cast.target.namespace, room);
            self.numbers += 1;
            self.list[at].changed = self.numbers;
            let retained = &mut self.list[at].retained;
            retained.retain(|old| old.target.key != cast.target.key);
            retained.push(cast.clone());
            if retained.len() > shard.settings.retain_keys_max {
                retained.remove(0);
            }
            while self.forget_one(&cast.target.namespace, &shard.settings) {}
        }
    }

    /// Forgets a room, or else the oldest event for everyone, if the namespace retains too much.
    fn forget_one(&mut self, namespace: &str, settings: &Settings) -> bool {
        let here = self.list.iter_mut().filter(|feed| feed.namespace == namespace && !feed.retained.is_empty());
        let (rooms, mut everyone): (Vec<&mut Feed>, Vec<_>) = here.partition(|feed| feed.room.is_some());
        let bytes: usize = rooms.iter().chain(&everyone).map(|feed| feed.retained_bytes()).sum();
        if rooms.len() <= settings.retain_rooms_max && bytes <= settings.retain_bytes_max {
            return false;
        }
        match rooms.into_iter().min_by_key(|feed| feed.changed) {
            Some(room) => room.retained.clear(),
            None => drop(everyone[0].retained.remove(0)),
        }
        true
    }

    fn feed(&mut self, namespace: &str, room: Option<&str>) -> usize {
        let is_it = |feed: &Feed| feed.namespace == namespace && feed.room.as_deref() == room;
        self.list.iter().position(is_it).unwrap_or_else(|| {
            let (namespace, room) = (namespace.into(), room.map(Into::into));
            let (held, retained) = (Vec::new(), Vec::new());
            self.list.push(Feed { namespace, room, window_ends: None, held, retained, holds_since: 0, changed: 0 });
            self.list.len() - 1
        })
    }
}

/// Whether the target names the feed: by its room, or if it names none, as everyone's or (`all`) whoever's it is.
fn names(target: &Target, feed: &Feed, all: bool) -> bool {
    feed.namespace == *target.namespace
        && match (&target.rooms[..], feed.room.as_deref()) {
            ([], room) => all || room.is_none(),
            (rooms, Some(room)) => rooms.iter().any(|other| **other == *room),
            (_, None) => false,
        }
}
