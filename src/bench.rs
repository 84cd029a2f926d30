//! Bench: a shard full of sockets, for `benches/` and for nobody else. Behind the feature `bench`; not API.
//!
//! The shard is private, and what it costs before the kernel cannot be seen from outside. So this opens one room of it
//! and gives it a wire that takes everything: what is left is our own work.

use crate::proto::Prepared;
use crate::proto::websocket::{self, Opcode};
use crate::settings::Settings;
use crate::shard::arena::Key;
use crate::shard::drive::{self, App};
use crate::shard::mail::{Event, Job, Sent, Target, Wire};
use crate::shard::session::{Conn, Handshake};
use crate::shard::{Carries, Shard};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const ROOM: &str = "room";

/// Sockets on WebSockets, all of them in one room.
pub struct Room {
    shard: Shard,
    target: Target,
    wire: Sink,
}

impl Room {
    pub fn new(sockets: usize) -> Room {
        let settings = Arc::new(Settings::default());
        let shard = RefCell::new(Shard::new(0, 1, settings, Carries::SocketIo, [0; 32]));
        (0..sockets).for_each(|_| join(&shard));
        let target = Target { namespace: "/".into(), rooms: vec![ROOM.into()], ..Target::default() };
        let mut room = Room { shard: shard.into_inner(), target, wire: Sink::default() };
        room.write(); // the answers to their handshakes
        room.wire = Sink::default();
        room
    }

    /// One packet to all of them. Returns how many there are.
    pub fn broadcast(&mut self, packet: &Arc<Prepared>) -> usize {
        self.shard.fan_out(&self.target, packet)
    }

    /// The write step of a turn. Returns the bytes that have left since the beginning.
    pub fn write(&mut self) -> usize {
        self.shard.write(&mut self.wire, usize::MAX);
        self.wire.bytes
    }
}

/// A client's whole way in.
fn join(shard: &RefCell<Shard>) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let handshake = Handshake::new("/socket.io/?EIO=4&transport=websocket", [].into_iter(), address, 0);
    let conn: Key<Conn> = shard.borrow_mut().open_websocket(Arc::new(handshake)).expect("there is room");
    let mut connect = Vec::new();
    websocket::put_frame(&mut connect, Opcode::Text, b"40", Some([1, 2, 3, 4]));
    drive::receive(shard, &Welcome, conn, &mut connect);
}

/// Lets everyone into the room.
struct Welcome;

impl App for Welcome {
    fn handle(&self, shard: &RefCell<Shard>, event: Event<'_>) {
        let Event::Connect { socket, .. } = event else { unreachable!("nothing else has been sent") };
        let mut shard = shard.borrow_mut();
        assert!(shard.accept(socket));
        shard.join(socket, ROOM).expect("it is its first room");
    }
}

/// Takes everything at once.
#[derive(Default)]
struct Sink {
    bytes: usize,
}

impl Wire for Sink {
    fn send(&mut self, jobs: &[Job<'_>], sent: &mut Vec<Sent>) {
        for job in jobs {
            self.bytes += std::hint::black_box(job.bytes).len();
            sent.push(Sent::Bytes(job.bytes.len()));
        }
    }
}
