//! Rooms: who is where, inside one namespace.
//!
//! A room is a dense list of socket slots, walked in memory order by every broadcast; a socket knows its place in each
//! of its rooms, so leaving is a swap and never a search through the room. The room that every socket has for itself,
//! named by its id, is not stored at all: the id says where the socket is.
//!
//! Invariants: `members[m.place]` of room `m.room` is the socket that holds the membership `m`; no room is empty.
//! Not here:   sending (broadcast.rs).

use super::arena::Arena;
use super::sockets::{Membership, Socket};
use std::collections::HashMap;

pub struct Namespace {
    pub name: Box<str>,
    /// Slots of the connected sockets.
    pub connected: Vec<u32>,
    /// Sockets of any state that point here; the last one takes the namespace along.
    pub users: usize,
    by_name: HashMap<Box<str>, u32>,
    rooms: Vec<Room>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Room {
    name: Box<str>,
    members: Vec<u32>,
}

impl Namespace {
    pub fn new(name: &str) -> Namespace {
        Namespace {
            name: name.into(),
            connected: Vec::new(),
            users: 0,
            by_name: HashMap::new(),
            rooms: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Slots of the room's members. Sockets that have not connected yet may be among them.
    pub fn members(&self, room: &str) -> &[u32] {
        self.by_name.get(room).map_or(&[], |&room| &self.rooms[room as usize].members)
    }

    pub fn room_count(&self) -> usize {
        self.by_name.len()
    }

    pub fn room_name(&self, room: u32) -> &str {
        &self.rooms[room as usize].name
    }

    /// Whether the socket is in the room.
    pub fn holds(&self, socket: &Socket, name: &str) -> bool {
        let room = self.by_name.get(name);
        room.is_some_and(|&room| socket.rooms.iter().any(|membership| membership.room == room))
    }

    /// Puts the socket into the room. `false`: it was there.
    pub fn join(&mut self, slot: u32, socket: &mut Socket, name: &str) -> bool {
        let room = match self.by_name.get(name) {
            Some(_) if self.holds(socket, name) => return false,
            Some(&room) => room,
            None => self.create(name),
        };
        let members = &mut self.rooms[room as usize].members;
        socket.rooms.push(Membership { room, place: members.len() as u32 });
        members.push(slot);
        true
    }

    /// Takes the socket out of the room. `false`: it was not there.
    pub fn leave(&mut self, slot: u32, sockets: &mut Arena<Socket>, name: &str) -> bool {
        let Some(&room) = self.by_name.get(name) else { return false };
        let socket = sockets.at_mut(slot).expect("the caller has looked");
        let Some(at) = socket.rooms.iter().position(|membership| membership.room == room) else { return false };
        let membership = socket.rooms.swap_remove(at);
        self.take_out(slot, sockets, membership);
        true
    }

    pub fn leave_all(&mut self, slot: u32, sockets: &mut Arena<Socket>) {
        let socket = sockets.at_mut(slot).expect("the caller has looked");
        for membership in std::mem::take(&mut socket.rooms) {
            self.take_out(slot, sockets, membership);
        }
    }

    fn take_out(&mut self, slot: u32, sockets: &mut Arena<Socket>, Membership { room, place }: Membership) {
        let members = &mut self.rooms[room as usize].members;
        let gone = members.swap_remove(place as usize);
        assert_eq!(gone, slot, "a membership names its socket's place");
        if let Some(&moved) = members.get(place as usize) {
            let other = sockets.at_mut(moved).expect("members are taken out before their socket is freed");
            let memberships = other.rooms.iter_mut();
            memberships.filter(|other| other.room == room).for_each(|other| other.place = place);
        }
        if members.is_empty() {
            let name = std::mem::take(&mut self.rooms[room as usize]).name;
            self.by_name.remove(&name);
            self.free.push(room);
        }
    }

    fn create(&mut self, name: &str) -> u32 {
        let room = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(Room::default());
            (self.rooms.len() - 1) as u32
        });
        self.rooms[room as usize].name = name.into();
        self.by_name.insert(name.into(), room);
        room
    }

    /// Every membership and every member agree.
    #[cfg(test)]
    pub fn invariants(&self, sockets: &Arena<Socket>) {
        for (name, &room) in &self.by_name {
            let Room { name: own, members } = &self.rooms[room as usize];
            assert!(own == name && !members.is_empty());
            for (place, &slot) in members.iter().enumerate() {
                let socket = sockets.at(slot).expect("a member is alive");
                assert!(socket.rooms.contains(&Membership { room, place: place as u32 }));
            }
        }
        for (place, &slot) in self.connected.iter().enumerate() {
            assert_eq!(sockets.at(slot).expect("connected, so alive").place as usize, place);
        }
    }
}
