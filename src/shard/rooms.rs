//! Rooms: who is where, inside one namespace.
//!
//! A room is a dense list of socket slots, walked in memory order by every broadcast; a socket knows its place in each
//! of its rooms, so leaving is a swap and never a search through the room. The room that every socket has for itself,
//! named by its id, is not stored at all: the id says where the socket is.
//!
//! ```text
//! by_name: "news" ─▶ room 7 ─▶ members [ 12 | 40 | 3 ]        one step a receiver
//!                                             ▲
//! socket 40's memberships  [ room 2, place 9 | room 7, place 1 ]       sorted by room; two fit into the socket
//! ```
//!
//! The road not taken is a hash map in each socket. It would spare the binary search of a socket in thousands of rooms,
//! and the shift when it joins one (80 KB at most with the default limit; benches/rooms.rs), and would have to be paid
//! for by the many that are in one or two.
//!
//! Invariants: `members[m.place]` of room `m.room` is the socket that holds the membership `m`; a socket's memberships
//!             are sorted by room, each room once; no room is empty.
//! Limits:     `rooms_per_socket_max` (Settings); as many rooms in a namespace as an arena has slots.
//! Not here:   sending (broadcast.rs).

use super::arena::{Arena, Key};
use super::slack::Slack as _;
use super::sockets::Socket;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::rc::Rc;

pub struct Namespace {
    pub name: Box<str>,
    /// Slots of the connected sockets.
    pub connected: Vec<u32>,
    /// Sockets of any state that point here; the last one takes the namespace along.
    pub users: usize,
    by_name: HashMap<Rc<str>, Key<Room>>,
    rooms: Arena<Room>,
}

struct Room {
    /// The same text as in `by_name`.
    name: Rc<str>,
    members: Vec<u32>,
}

/// A socket's place in one room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// Slot of the room.
    room: u32,
    place: u32,
}

/// The rooms of one socket. Most are in one or two, and need no memory but the socket's own.
#[derive(Default)]
pub struct Memberships(SmallVec<[Membership; 2]>);

impl Memberships {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the room is in the list, or where it would be.
    fn find(&self, room: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&room, |membership| membership.room)
    }

    fn remove(&mut self, at: usize) -> Membership {
        let membership = self.0.remove(at);
        // It grows by doubling: between a quarter and a half there is time to pay for the copy.
        if self.0.spilled() && self.0.len() <= self.0.capacity() / 4 {
            self.0.shrink_to_fit();
        }
        membership
    }
}

impl Namespace {
    pub fn new(name: &str) -> Namespace {
        Namespace {
            name: name.into(),
            connected: Vec::new(),
            users: 0,
            by_name: HashMap::new(),
            rooms: Arena::default(),
        }
    }

    /// Slots of the room's members. Sockets that have not connected yet may be among them.
    pub fn members(&self, room: &str) -> &[u32] {
        self.room(room).map_or(&[], |key| &self.rooms.get(key).expect("named, so in use").members)
    }

    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// Names of the socket's rooms.
    pub fn rooms_of(&self, socket: &Socket) -> impl Iterator<Item = &str> {
        let rooms = socket.rooms.0.iter().map(|at| self.rooms.at(at.room).expect("a member's room is in use"));
        rooms.map(|room| &*room.name)
    }

    /// Whether the socket is in the room.
    pub fn holds(&self, socket: &Socket, name: &str) -> bool {
        self.room(name).is_some_and(|key| socket.rooms.find(key.slot()).is_ok())
    }

    /// Whether one more room of this name finds no place.
    pub fn is_full(&self, name: &str) -> bool {
        self.rooms.is_full() && self.room(name).is_none()
    }

    /// Puts the socket into the room. `false`: it was there.
    pub fn join(&mut self, slot: u32, socket: &mut Socket, name: &str) -> bool {
        let key = self.room(name).unwrap_or_else(|| self.create(name));
        let Err(at) = socket.rooms.find(key.slot()) else { return false };
        let members = &mut self.rooms.get_mut(key).expect("named, so in use").members;
        socket.rooms.0.insert(at, Membership { room: key.slot(), place: members.len() as u32 });
        members.push(slot);
        true
    }

    /// Takes the socket out of the room. `false`: it was not there.
    pub fn leave(&mut self, slot: u32, sockets: &mut Arena<Socket>, name: &str) -> bool {
        let Some(key) = self.room(name) else { return false };
        let socket = sockets.at_mut(slot).expect("the caller has looked");
        let Ok(at) = socket.rooms.find(key.slot()) else { return false };
        let membership = socket.rooms.remove(at);
        self.take_out(slot, sockets, membership);
        true
    }

    pub fn leave_all(&mut self, slot: u32, sockets: &mut Arena<Socket>) {
        let socket = sockets.at_mut(slot).expect("the caller has looked");
        for membership in std::mem::take(&mut socket.rooms).0 {
            self.take_out(slot, sockets, membership);
        }
    }

    fn take_out(&mut self, slot: u32, sockets: &mut Arena<Socket>, Membership { room, place }: Membership) {
        let key = self.rooms.key_at(room).expect("a member's room is in use");
        let members = &mut self.rooms.get_mut(key).expect("just found").members;
        let gone = members.swap_remove(place as usize);
        assert_eq!(gone, slot, "a membership names its socket's place");
        if let Some(&moved) = members.get(place as usize) {
            let other = sockets.at_mut(moved).expect("members are taken out before their socket is freed");
            let at = other.rooms.find(room).expect("a member holds its membership");
            other.rooms.0[at].place = place;
        }
        members.trim();
        if members.is_empty() {
            let room = self.rooms.remove(key).expect("just found");
            self.by_name.remove(&room.name);
            self.by_name.trim();
        }
    }

    fn room(&self, name: &str) -> Option<Key<Room>> {
        self.by_name.get(name).copied()
    }

    fn create(&mut self, name: &str) -> Key<Room> {
        let name = Rc::<str>::from(name);
        let key = self.rooms.insert_with(|_| Room { name: Rc::clone(&name), members: Vec::new() });
        self.by_name.insert(name, key);
        key
    }

    /// Every membership and every member agree.
    #[cfg(test)]
    pub fn invariants(&self, sockets: &Arena<Socket>) {
        self.rooms.invariants();
        assert_eq!(self.by_name.len(), self.rooms.len());
        for (name, &key) in &self.by_name {
            let Room { name: own, members } = self.rooms.get(key).expect("named, so in use");
            assert!(own == name && !members.is_empty());
            for (place, &slot) in members.iter().enumerate() {
                let socket = sockets.at(slot).expect("a member is alive");
                assert!(socket.rooms.0.contains(&Membership { room: key.slot(), place: place as u32 }));
            }
        }
        for (place, &slot) in self.connected.iter().enumerate() {
            let socket = sockets.at(slot).expect("connected, so alive");
            assert_eq!(socket.place as usize, place);
            assert!(socket.rooms.0.is_sorted_by(|one, next| one.room < next.room), "each room once, in order");
        }
    }
}
