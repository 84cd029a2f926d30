//! Streams: the TCP connections of established WebSockets, and the poller that watches them.
//!
//! A stream stands beside its conn, under the same key, so neither side needs a map. Streams are registered once,
//! edge-triggered, for both directions: no system call changes a registration again.
//!
//! The poller's own descriptor is watched by the runtime, so that one thread can wait for both at once.
//!
//! Invariants: a stream is removed when its conn is buried, and at no other time.

use super::admission::Admitted;
use crate::shard::arena::{Beside, Key};
use crate::shard::mail::{Job, Sent, Wire};
use crate::shard::session::Conn;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;
use tokio::io::Interest as RuntimeInterest;
use tokio::io::unix::AsyncFd;

/// The mailbox's token; no slot reaches it.
const MAILBOX: Token = Token(usize::MAX >> 1);
/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// A stream that has just left HTTP behind, with what it had already read.
pub struct NewStream {
    pub tcp: std::net::TcpStream,
    pub read: Vec<u8>,
    pub admitted: Admitted,
}

struct Stream {
    tcp: TcpStream,
    _admitted: Admitted,
}

pub struct Streams {
    beside: Beside<Conn, Stream>,
    registry: mio::Registry,
}

/// The poller, apart from the streams, because it is waited for while they are used.
pub struct Poller {
    poll: AsyncFd<Poll>,
    events: Events,
}

/// A stream that can be read, or written again.
#[derive(Clone, Copy)]
pub struct Ready {
    pub conn: Key<Conn>,
    pub readable: bool,
    pub writable: bool,
    /// The peer's FIN, or an error, is behind the bytes.
    pub ending: bool,
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// Bytes; the stream is empty now if there were fewer than asked for.
    Bytes(usize),
    Nothing,
    End,
    Broken,
}

/// The poller must exist before its thread does, because other threads wake it through its mailbox.
pub fn poll_and_waker() -> io::Result<(Poll, mio::Waker)> {
    let poll = Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), MAILBOX)?;
    Ok((poll, waker))
}

impl Poller {
    /// To be called inside the worker's runtime.
    #[allow(unsafe_code)]
    pub fn new(poll: Poll) -> io::Result<(Poller, Streams)> {
        let registry = poll.registry().try_clone()?;
        // SAFETY: a `Poll` owns its descriptor and keeps it open as long as it lives; the `AsyncFd` owns the `Poll` until
        // it ends by giving it back, and nobody replaces the `Poll` inside.
        let poll = unsafe { AsyncFd::register_with_interest(poll, RuntimeInterest::READABLE) }?;
        Ok((Poller { poll, events: Events::with_capacity(EVENTS) }, Streams { beside: Beside::default(), registry }))
    }

    /// The bare poll, when the runtime shall watch it no more.
    pub fn into_poll(self) -> Poll {
        self.poll.into_inner()
    }

    /// Waits until a stream or the mailbox is ready.
    pub async fn ready(&self) {
        if let Ok(mut guard) = self.poll.readable().await {
            guard.clear_ready();
        }
    }

    /// Asks the kernel what is ready now. Returns whether there may be more.
    pub fn poll(&mut self, streams: &Streams, ready: &mut Vec<Ready>) -> bool {
        if let Err(error) = self.poll.get_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            // Interrupted: what is ready is still ready, and is asked for again.
            let again = error.kind() == ErrorKind::Interrupted;
            if !again {
                tracing::error!(%error, "polling failed");
            }
            return again;
        }
        let events = self.events.iter().filter(|event| event.token() != MAILBOX);
        ready.extend(events.filter_map(|event| streams.ready(event)));
        self.events.iter().count() >= EVENTS
    }
}

impl Streams {
    pub fn insert(&mut self, conn: Key<Conn>, tcp: std::net::TcpStream, admitted: Admitted) -> io::Result<()> {
        let mut tcp = TcpStream::from_std(tcp);
        self.registry.register(&mut tcp, Token(conn.slot() as usize), Interest::READABLE | Interest::WRITABLE)?;
        self.beside.insert(conn, Stream { tcp, _admitted: admitted });
        Ok(())
    }

    pub fn remove(&mut self, conn: Key<Conn>) {
        if let Some(mut stream) = self.beside.remove(conn) {
            // Closing deregisters too; this only spares the kernel a search when a descriptor was cloned.
            let _ = self.registry.deregister(&mut stream.tcp);
        }
    }

    pub fn finish_writing(&self, conn: Key<Conn>) {
        if let Some(stream) = self.get(conn) {
            // Fails only if the peer is gone, which reading will show.
            let _ = stream.tcp.shutdown(Shutdown::Write);
        }
    }

    pub fn read(&self, conn: Key<Conn>, buffer: &mut [u8]) -> ReadOutcome {
        let Some(stream) = self.get(conn) else { return ReadOutcome::Nothing };
        loop {
            match (&stream.tcp).read(buffer) {
                Ok(0) => return ReadOutcome::End,
                Ok(bytes) => return ReadOutcome::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadOutcome::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return ReadOutcome::Broken,
            }
        }
    }

    /// What a sender writes to, as long as the stream is there.
    #[cfg(target_os = "linux")]
    pub fn descriptor(&self, conn: Key<Conn>) -> Option<BorrowedFd<'_>> {
        self.get(conn).map(|stream| stream.tcp.as_fd())
    }

    fn get(&self, conn: Key<Conn>) -> Option<&Stream> {
        self.beside.get(conn)
    }

    fn ready(&self, event: &Event) -> Option<Ready> {
        let &(conn, _) = self.beside.at(u32::try_from(event.token().0).ok()?)?;
        Some(Ready {
            conn,
            readable: event.is_readable(),
            writable: event.is_writable(),
            ending: event.is_read_closed() || event.is_error(),
        })
    }
}

/// The sender that is always there: one `send(2)` a job.
pub struct SendLoop<'s>(pub &'s Streams);

impl Wire for SendLoop<'_> {
    fn send(&mut self, jobs: &[Job<'_>], sent: &mut Vec<Sent>) {
        sent.extend(jobs.iter().map(|job| self.send_one(job)));
    }
}

impl SendLoop<'_> {
    pub fn send_one(&self, job: &Job<'_>) -> Sent {
        let Some(stream) = self.0.get(job.conn) else { return Sent::Broken };
        loop {
            if let Some(sent) = outcome((&stream.tcp).write(job.bytes)) {
                return sent;
            }
        }
    }
}

/// What the kernel's answer to a send means. `None`: it was interrupted, and has to be made again.
pub fn outcome(result: io::Result<usize>) -> Option<Sent> {
    match result {
        Ok(0) => Some(Sent::Blocked),
        Ok(bytes) => Some(Sent::Bytes(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Sent::Blocked),
        Err(error) if error.kind() == ErrorKind::Interrupted => None,
        Err(_) => Some(Sent::Broken),
    }
}
