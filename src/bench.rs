//! Bench: what `benches/` may see of the inside, for them and for nobody else. Behind the feature `bench`; not API.
//!
//! What a shard and a mailbox cost before the kernel cannot be seen from outside. Parts that work alone are only named
//! here. What takes more of the inside than a bench should know is made here: [`Crowd`], a shard full of sockets, whose
//! wire takes everything, so that what is left is our own work; and [`Streams`], the worker's sender over real streams.

pub use crate::shard::chains::Chains;
pub use crate::shard::mail::{Mail, Target};
pub use crate::shard::outbox::Outbox;
pub use crate::shard::runs::Runs;
pub use crate::shard::{Carries, Shard};
pub use crate::worker::mailbox::{Mailbox, Post, collect};

use crate::proto::Prepared;
use crate::proto::websocket::{self, Opcode};
use crate::settings::{SendPath, Settings};
use crate::shard::arena::{Arena, Key};
use crate::shard::drive::{self, App};
use crate::shard::mail::{Event, Job, Sent, Wire};
use crate::shard::session::{Conn, Handshake, Role};
use crate::shard::sockets::Socket;
use crate::worker::admission::Admission;
use crate::worker::sender::Sender;
use crate::worker::streams::{self, Poller};
use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

/// Sockets on WebSockets, in the rooms that each was given.
pub struct Crowd {
    shard: Shard,
    sockets: Vec<Key<Socket>>,
    wire: Sink,
}

impl Crowd {
    /// `rooms` says where each socket is, by its number.
    pub fn new(sockets: usize, rooms: impl Fn(usize) -> &'static [&'static str]) -> Crowd {
        let settings = Arc::new(Settings::default());
        let shard = RefCell::new(Shard::new(0, 1, settings, Carries::SocketIo, [0; 32]));
        (0..sockets).for_each(|socket| join(&shard, rooms(socket)));
        let mut shard = shard.into_inner();
        let everybody = Target { namespace: "/".into(), ..Target::default() };
        let mut crowd = Crowd { sockets: shard.matching(&everybody), shard, wire: Sink::default() };
        crowd.write(); // the answers to their handshakes
        crowd.wire = Sink::default();
        crowd
    }

    /// Puts one socket, by its number, into one more room.
    pub fn join(&mut self, socket: usize, room: &str) {
        self.shard.join(self.sockets[socket], room).expect("the rooms of a bench are allowed");
    }

    pub fn leave(&mut self, socket: usize, room: &str) {
        self.shard.leave_room(self.sockets[socket], room);
    }

    pub fn leave_all(&mut self, socket: usize) {
        self.shard.leave_all(self.sockets[socket]);
    }

    /// One packet to a target. Returns how many sockets it reaches.
    pub fn broadcast(&mut self, target: &Target, packet: &Arc<Prepared>) -> usize {
        self.shard.fan_out(target, packet).sockets
    }

    /// The write step of a turn. Returns the bytes that have left since the beginning.
    pub fn write(&mut self) -> usize {
        self.shard.write(&mut self.wire, usize::MAX);
        self.wire.bytes
    }
}

/// A client's whole way in.
fn join(shard: &RefCell<Shard>, rooms: &[&str]) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let handshake = Handshake::new("/socket.io/?EIO=4&transport=websocket", [].into_iter(), address, 0);
    let conn: Key<Conn> = shard.borrow_mut().open_websocket(handshake).expect("there is room");
    let mut connect = Vec::new();
    websocket::put_frame(&mut connect, Opcode::Text, b"40", Some([1, 2, 3, 4]));
    drive::receive(shard, &Welcome(rooms), conn, &mut connect);
}

/// Lets everyone into these rooms.
struct Welcome<'r>(&'r [&'r str]);

impl App for Welcome<'_> {
    fn handle(&self, shard: &RefCell<Shard>, event: Event<'_>) {
        let Event::Connect { socket, .. } = event else { unreachable!("nothing else has been sent") };
        let mut shard = shard.borrow_mut();
        assert!(shard.accept(socket));
        for room in self.0 {
            shard.join(socket, room).expect("a few rooms are allowed");
        }
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

/// A worker's streams, watched by its poller, and its sender over them.
pub struct Streams {
    conns: Vec<Key<Conn>>,
    streams: streams::Streams,
    sender: Sender,
    sent: Vec<Sent>,
    // Dropped in this order: a poller leaves its runtime.
    _poller: Poller,
    _runtime: tokio::runtime::Runtime,
}

impl Streams {
    /// An error may also mean that the system does not allow this way to send.
    pub fn new(streams: Vec<TcpStream>, io: SendPath) -> io::Result<Streams> {
        let (sender, _) = Sender::open(io)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (poller, mut watched) = runtime.block_on(async { Poller::new(mio::Poll::new()?) })?;
        let (admission, mut keys) = (Admission::new(&Settings::default()), Arena::default());
        let mut conns = Vec::new();
        for stream in streams {
            let conn = keys.insert_with(|_| Conn::new(Role::Leaving(None)));
            let admitted = admission.admit().expect("there is no limit");
            stream.set_nonblocking(true)?;
            watched.insert(conn, stream, Vec::new(), admitted)?;
            conns.push(conn);
        }
        Ok(Streams { conns, streams: watched, sender, sent: Vec::new(), _poller: poller, _runtime: runtime })
    }

    /// The same bytes to each stream, as one batch. Returns how many bytes were taken in all.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let jobs: Vec<Job<'_>> = self.conns.iter().map(|&conn| Job { conn, bytes }).collect();
        self.sent.clear();
        self.sender.over(&self.streams).send(&jobs, &mut self.sent);
        let taken = self.sent.iter().map(|sent| if let Sent::Bytes(bytes) = sent { *bytes } else { 0 });
        taken.sum()
    }
}
