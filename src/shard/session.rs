//! Session and conn: what the shard keeps for one client, and for one WebSocket stream.
//!
//! A session lives from its handshake to the end of the turn in which it closed; if it polls, perhaps until a last poll
//! has taken its last packets. A conn is one WebSocket stream as the shard sees it; it serves a session, probes for one
//! (an upgrade), or only delivers what a closed session left behind.
//! A polling session has no conn: its requests come and go as [`Exchange`](super::mail::Exchange)s.

use super::arena::Key;
use super::lanes::Queued;
use super::mail::Exchange;
use super::outbox::Outbox;
use super::rates::Rates;
use super::wheel::Millis;
use crate::proto::{Id, socketio, websocket};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

pub struct Session {
    pub id: Id,
    pub transport: Transport,
    pub outbox: Outbox,
    pub heartbeat: Heartbeat,
    /// How much the client has said lately, where that is limited.
    pub rates: Option<Box<Rates>>,
    /// The conn that probes to become this session's transport.
    pub upgrade: Option<Key<Conn>>,
    /// Slots of this session's sockets. A slot leaves the list when its socket does.
    pub sockets: SmallVec<[u32; 2]>,
    pub assembler: socketio::Assembler,
    pub handshake: Arc<Handshake>,
    pub state: State,
    /// Whether the session is *dirty*: in the shard's lanes of those who have something to write.
    pub queued: Queued,
    /// Whether it ever joined a namespace: the connect timeout is over then.
    pub joined: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Open,
    /// Closed while no poll was there to say so. It only waits for one, whose last packets are these.
    Lingering {
        last: LastWord,
    },
    /// Ended. It is freed when the turn ends.
    Closed,
}

/// What a session that is closed answers to a last poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastWord {
    /// The client has said goodbye itself.
    Noop,
    /// The server has closed it: a noop, then a close packet.
    NoopAndClose,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Polling {
        poll: Option<Exchange>,
    },
    /// `blocked`: the kernel took less than it was given, and has not asked for more yet.
    WebSocket {
        conn: Key<Conn>,
        blocked: bool,
    },
}

impl Transport {
    /// The name that clients and handlers know.
    pub fn name(&self) -> &'static str {
        match self {
            Transport::Polling { .. } => "polling",
            Transport::WebSocket { .. } => "websocket",
        }
    }
}

/// The server pings, the client pongs (Engine.IO v4, "heartbeat").
pub struct Heartbeat {
    /// When the next ping goes out, or by when the pong must be here.
    pub due: Millis,
    /// The earliest entry that the wheel holds for `due`; it may be too early, never too late.
    pub timer: Millis,
    pub state: HeartbeatState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeartbeatState {
    Resting,
    AwaitingPong,
    /// Something else arrived while the pong was awaited: that counts as life, once per ping.
    Extended,
}

/// One WebSocket stream as the shard sees it.
pub struct Conn {
    pub role: Role,
    pub decoder: websocket::Decoder,
    /// The rest of a partial frame.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 24 for the many conns that have none")]
    pub spill: Option<Box<Vec<u8>>>,
    /// The peer said its last word or broke a rule of framing: what else it sends has no meaning.
    pub deaf: bool,
    /// Its end is noted; the worker closes the stream when the turn ends.
    pub ended: bool,
    /// Its session was evicted: it is written to once more, and not waited for.
    pub evicted: bool,
}

impl Conn {
    pub fn new(role: Role) -> Conn {
        Conn { role, decoder: Default::default(), spill: None, deaf: false, ended: false, evicted: false }
    }

    /// Whether its session is gone, and something that the session was sent has not left yet.
    pub fn is_owed(&self) -> bool {
        matches!(&self.role, Role::Leaving(Some(left)) if !left.is_empty())
    }
}

pub enum Role {
    /// The transport of a session.
    Serving(Key<Session>),
    /// Wants to become it. `probed`: it has sent its ping.
    Probing { session: Key<Session>, probed: bool },
    /// Its session is gone; this is what the peer should still get. Empty: only the peer's own close is awaited.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 32 for the many conns that serve")]
    Leaving(Option<Box<VecDeque<Bytes>>>),
}

/// What was said at the handshake. Kept as one piece of text, because most of it is never read.
#[derive(Debug)]
pub struct Handshake {
    /// `url \n name: value \n …`
    head: Box<str>,
    /// Whose handshake it was: the peer of the stream that carried it, or the client for whom a trusted proxy did.
    pub address: SocketAddr,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    pub secure: bool,
}

/// Headers that describe one hop or one WebSocket handshake and mean nothing afterwards.
const NOT_KEPT: [&str; 7] = [
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "content-length",
    "accept-encoding",
];

impl Handshake {
    pub fn new<'h>(
        url: &str,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
        address: SocketAddr,
        issued_ms: u64,
    ) -> Handshake {
        let mut head = String::from(url);
        for (name, value) in headers.filter(|(name, _)| !NOT_KEPT.contains(name)) {
            head.push('\n');
            head.push_str(name);
            head.push_str(": ");
            head.push_str(&String::from_utf8_lossy(value));
        }
        Handshake { head: head.into_boxed_str(), address, issued_ms, secure: false }
    }

    /// Path and query of the handshake request.
    pub fn url(&self) -> &str {
        self.head.split('\n').next().unwrap_or_default()
    }

    /// Header names in lower case, with their values. Those of a single hop are not kept.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.split('\n').skip(1).filter_map(|line| line.split_once(": "))
    }

    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(header, _)| *header == name).map(|(_, value)| value)
    }
}
