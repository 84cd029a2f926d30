//! Mail: all that shards say to each other, and what a shard tells the world outside.
//!
//! A closed list with the verbs of the reference's cluster adapters, so that another node can be a shard that is
//! farther away. Mail is data: it carries no handle, no callback and no lock.

use super::arena::Key;
use super::session::{Conn, Session};
use super::sockets::Socket;
use crate::error::{CloseReason, Refusal};
use crate::proto::{Id, Prepared};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

/// What one shard asks of another.
#[derive(Debug)]
pub enum Mail {
    /// An HTTP request of a session that lives here arrived elsewhere.
    Request {
        sid: Id,
        request: Request,
        exchange: Exchange,
    },
    /// The client of that request went away before it was answered.
    Abandoned {
        sid: Id,
        exchange: Exchange,
    },
    /// The answer to such a request.
    Answer {
        exchange: Exchange,
        reply: Reply,
    },
    /// One packet to a target. With `count`, what became of it is sent back.
    Broadcast {
        target: Arc<Target>,
        packet: Arc<Prepared>,
        count: Option<Count>,
    },
    /// A mark behind what was emitted before: it is sent back like the count of a broadcast.
    Mark {
        count: Count,
    },
    /// What became of a broadcast on one shard, or that a mark was reached.
    Counted {
        token: u64,
        counts: Counts,
    },
    Join {
        target: Arc<Target>,
        rooms: Arc<[Box<str>]>,
    },
    Leave {
        target: Arc<Target>,
        rooms: Arc<[Box<str>]>,
    },
    Disconnect {
        target: Arc<Target>,
        close: bool,
    },
    /// What the target's rooms retain is forgotten.
    Forget {
        target: Arc<Target>,
    },
}

/// Who should receive: the sockets of any of `rooms` (none named: of the namespace) that are in none of `except`.
#[derive(Debug, Default, Clone)]
pub struct Target {
    pub namespace: Box<str>,
    pub rooms: Vec<Box<str>>,
    pub except: Vec<Box<str>>,
    /// Only those whose transport is ready at this moment.
    pub volatile: bool,
    /// Of events with the same key the newest counts, where a rule or the emit has said so (feeds.rs).
    pub key: Option<Box<str>>,
}

/// Where what became of a broadcast is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    pub shard: u16,
    pub token: u64,
}

/// What became of a broadcast: how many sockets it was queued for, and for how many it was dropped at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Sockets that it was queued for.
    pub sockets: usize,
    /// Sockets of the target that were not ready for a volatile packet.
    pub dropped: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.sockets += more.sockets;
        self.dropped += more.dropped;
    }
}

/// An HTTP request that waits for its answer, on the worker that read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange {
    pub worker: u16,
    pub number: u64,
}

/// An HTTP request of a polling session, once its query has been understood.
#[derive(Debug)]
pub enum Request {
    /// GET: whatever there is, or wait for it.
    Poll,
    /// POST: packets from the client.
    Push(Bytes),
    /// A POST whose content type says binary: Engine.IO v4 has none.
    PushBinary,
    /// Another transport than polling, or another protocol revision than at the handshake.
    Mismatch,
    /// Any other method.
    Other,
    /// A WebSocket handshake that names the session. After `Accepted` the stream comes as a new conn.
    Upgrade,
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Reply {
    /// 200 with an Engine.IO payload.
    Payload(Bytes),
    /// 200 `ok`: the packets were processed.
    Done,
    /// The stream may come.
    Accepted,
    /// 400 without a body: the request broke the rules of polling and ended the session.
    Broken,
    /// 500 without a body, as the reference answers methods it does not know.
    MethodUnknown,
    Refused(Refusal),
}

/// What happened that the application may want to know, in the order in which it happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A session began. Only for a bare Engine.IO server; Socket.IO waits for `Connect`.
    Opened { session: Key<Session> },
    /// An Engine.IO message, on a bare Engine.IO server.
    Message { session: Key<Session>, data: Data<'a> },
    /// A session ended.
    Closed { session: Key<Session>, reason: CloseReason },
    /// A client asks to join a namespace. To be answered with `accept` or `refuse`, now or later.
    Connect { socket: Key<Socket>, namespace: Cow<'a, str>, auth: Option<Cow<'a, str>> },
    /// An event. `data` is the whole JSON array, the name included.
    Received {
        socket: Key<Socket>,
        name: Cow<'a, str>,
        data: Cow<'a, str>,
        attachments: Vec<Bytes>,
        ack_id: Option<u64>,
    },
    /// The end of waiting for an ack that `emit_with_ack` asked for.
    Acked { token: u64, outcome: Acked<'a> },
    /// A socket leaves. Its rooms are still there, at most until the turn ends; it receives nothing any more.
    Disconnected { socket: Key<Socket>, reason: CloseReason },
    /// Much waits for the client of this socket, or no longer does.
    Pressure { socket: Key<Socket>, high: bool },
    /// A shard's share of a counted broadcast.
    Counted { token: u64, counts: Counts },
}

impl Event<'_> {
    /// The same, with everything it borrowed copied.
    pub fn into_owned(self) -> Event<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Event::Opened { session } => Event::Opened { session },
            Event::Message { session, data: Data::Text(text) } => {
                Event::Message { session, data: Data::Text(owned(text)) }
            }
            Event::Message { session, data: Data::Binary(bytes) } => {
                Event::Message { session, data: Data::Binary(Cow::Owned(bytes.into_owned())) }
            }
            Event::Closed { session, reason } => Event::Closed { session, reason },
            Event::Connect { socket, namespace, auth } => {
                Event::Connect { socket, namespace: owned(namespace), auth: auth.map(owned) }
            }
            Event::Received { socket, name, data, attachments, ack_id } => {
                Event::Received { socket, name: owned(name), data: owned(data), attachments, ack_id }
            }
            Event::Acked { token, outcome: Acked::Answered { data, attachments } } => {
                Event::Acked { token, outcome: Acked::Answered { data: owned(data), attachments } }
            }
            Event::Acked { token, outcome: Acked::TimedOut } => Event::Acked { token, outcome: Acked::TimedOut },
            Event::Acked { token, outcome: Acked::Disconnected } => {
                Event::Acked { token, outcome: Acked::Disconnected }
            }
            Event::Disconnected { socket, reason } => Event::Disconnected { socket, reason },
            Event::Pressure { socket, high } => Event::Pressure { socket, high },
            Event::Counted { token, counts } => Event::Counted { token, counts },
        }
    }
}

#[derive(Debug)]
pub enum Acked<'a> {
    /// The JSON array of its arguments.
    Answered {
        data: Cow<'a, str>,
        attachments: Vec<Bytes>,
    },
    TimedOut,
    Disconnected,
}

/// An Engine.IO message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'a> {
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
}

/// What the worker shall do to a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Nothing more will be written: send FIN and wait for the peer's.
    FinishWriting(Key<Conn>),
    /// Close, and forget the conn.
    Close(Key<Conn>),
    /// The same, and let the kernel throw away what it still holds for the peer.
    Reset(Key<Conn>),
    /// The session is buried. Only of those for whom `Shard::announce_end` asked for it.
    Buried(Key<Session>),
}

/// Where the bytes go. The worker's senders implement it; so does the simulator.
pub trait Wire {
    /// Writes each job to its stream, once, and reports in order how far it came. Nothing waits.
    fn send(&mut self, jobs: &[Job<'_>], sent: &mut Vec<Sent>);
}

/// Bytes for one stream, borrowed from where they were encoded.
pub struct Job<'b> {
    pub conn: Key<Conn>,
    pub bytes: &'b [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// This many bytes, at least one. Fewer than offered: the stream is full.
    Bytes(usize),
    /// Nothing: the stream is full.
    Blocked,
    /// The stream is broken.
    Broken,
}
