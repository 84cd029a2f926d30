//! Streams: the TCP connections of established WebSockets, and the poller that watches them.
//!
//! A stream stands beside its conn, under the same key, so neither side needs a map. Streams are registered once,
//! edge-triggered, for both directions: no system call changes a registration again.
//!
//! The poller's own descriptor is watched by the runtime, so that one thread can wait for both at once.
//!
//! A stream is removed when its conn is buried, and at no other time. It is closed a little later: to close one takes the
//! kernel as long as to send something, and a crowd that leaves at once must not stop the turn.
//!
//! Limits: [`CLOSES_MAX`].

use super::admission::Admitted;
use crate::shard::arena::{Beside, Key};
use crate::shard::mail::{Job, Sent, Wire};
use crate::shard::session::Conn;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;
use tokio::io::Interest as RuntimeInterest;
use tokio::io::unix::AsyncFd;

/// The mailbox's token; no slot reaches it, or the next one.
const MAILBOX: Token = Token(usize::MAX >> 1);
/// The listener's token.
const LISTENER: Token = Token(MAILBOX.0 - 1);
/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
/// Streams closed in one turn at most: a millisecond.
const CLOSES_MAX: usize = 128;

/// A stream that has just left HTTP behind, with what it had already read.
pub struct NewStream {
    pub tcp: std::net::TcpStream,
    pub read: Vec<u8>,
    pub admitted: Admitted,
}

struct Stream {
    tcp: TcpStream,
    /// What the peer has to be sent before anything else: its 101, until the first write.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 24 for the many streams that have been greeted")]
    greeting: Cell<Option<Box<Vec<u8>>>>,
    _admitted: Admitted,
}

pub struct Streams {
    beside: Beside<Conn, Stream>,
    /// Removed, and not closed yet.
    removed: VecDeque<Stream>,
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

/// What the kernel said, besides which streams are ready.
pub struct Found {
    /// Connections wait to be accepted.
    pub connections: bool,
    /// There may be more to ask for.
    pub more: bool,
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
        Ok((
            Poller { poll, events: Events::with_capacity(EVENTS) },
            Streams { beside: Beside::default(), removed: VecDeque::new(), registry },
        ))
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

    /// Asks the kernel what is ready now.
    pub fn poll(&mut self, streams: &Streams, ready: &mut Vec<Ready>) -> Found {
        if let Err(error) = self.poll.get_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            // Interrupted: what is ready is still ready, and is asked for again.
            let again = error.kind() == ErrorKind::Interrupted;
            if !again {
                tracing::error!(%error, "polling failed");
            }
            return Found { connections: false, more: again };
        }
        // The mailbox and the listener have no slot.
        ready.extend(self.events.iter().filter_map(|event| streams.ready(event)));
        let connections = self.events.iter().any(|event| event.token() == LISTENER);
        Found { connections, more: self.events.iter().count() >= EVENTS }
    }
}

impl Streams {
    pub fn watch_listener(&self, listener: &mut TcpListener) -> io::Result<()> {
        self.registry.register(listener, LISTENER, Interest::READABLE)
    }

    pub fn insert(
        &mut self,
        conn: Key<Conn>,
        tcp: std::net::TcpStream,
        greeting: Vec<u8>,
        admitted: Admitted,
    ) -> io::Result<()> {
        let mut tcp = TcpStream::from_std(tcp);
        self.registry.register(&mut tcp, Token(conn.slot() as usize), Interest::READABLE | Interest::WRITABLE)?;
        let greeting = Cell::new((!greeting.is_empty()).then(|| Box::new(greeting)));
        self.beside.insert(conn, Stream { tcp, greeting, _admitted: admitted });
        Ok(())
    }

    pub fn remove(&mut self, conn: Key<Conn>) {
        self.removed.extend(self.beside.remove(conn));
    }

    /// Closes some of those that were removed. Until then the kernel may announce something of them, for which the conn
    /// that has their slot by now is looked at once too often.
    pub fn close_removed(&mut self) {
        let now = self.removed.len().min(CLOSES_MAX);
        self.removed.drain(..now);
        if self.removed.is_empty() {
            self.removed.shrink_to(CLOSES_MAX);
        }
    }

    pub fn has_removed(&self) -> bool {
        !self.removed.is_empty()
    }

    /// Removes, and has the kernel forget what it still holds for the peer.
    pub fn reset(&mut self, conn: Key<Conn>) {
        if let Some(stream) = self.get(conn) {
            // Fails only if the peer is gone, and then there is nothing to forget.
            let _ = SockRef::from(&stream.tcp).set_linger(Some(Duration::ZERO));
        }
        self.remove(conn);
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

    /// Whether the stream's first bytes have something in front of them, which only a [`SendLoop`] knows to send.
    #[cfg(target_os = "linux")]
    pub fn owes_greeting(&self, conn: Key<Conn>) -> bool {
        self.get(conn).is_some_and(Stream::owes_greeting)
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
        let conn = self.beside.key_at(u32::try_from(event.token().0).ok()?)?;
        Some(Ready {
            conn,
            readable: event.is_readable(),
            writable: event.is_writable(),
            ending: event.is_read_closed() || event.is_error(),
        })
    }
}

impl Stream {
    #[cfg(target_os = "linux")]
    fn owes_greeting(&self) -> bool {
        let greeting = self.greeting.take();
        let owes = greeting.is_some();
        self.greeting.set(greeting);
        owes
    }

    /// Writes bytes, and in front of them the greeting, which is not counted.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut greeting) = self.greeting.take() else { return (&self.tcp).write(bytes) };
        let written = (&self.tcp).write_vectored(&[IoSlice::new(&greeting), IoSlice::new(bytes)]);
        let greeted = written.as_ref().map_or(0, |written| greeting.len().min(*written));
        greeting.drain(..greeted);
        self.greeting.set(Some(greeting).filter(|greeting| !greeting.is_empty()));
        Ok(written? - greeted)
    }
}

/// Sends what a peer should hear before its stream is closed, if the stream takes it.
pub fn write_last(mut tcp: &std::net::TcpStream, bytes: &[u8]) {
    let _ = tcp.write(bytes);
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
            if let Some(sent) = outcome(stream.write(job.bytes)) {
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

#[cfg(test)]
mod tests {
    use super::super::admission::Admission;
    use super::*;
    use crate::settings::Settings;
    use crate::shard::arena::Arena;
    use crate::shard::session::Role;
    use std::net::Ipv4Addr;

    fn empty() -> Streams {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        Poller::new(Poll::new().unwrap()).unwrap().1
    }

    fn pair() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        (tcp, peer)
    }

    /// A stream with a greeting, and its peer.
    fn greeted(greeting: Vec<u8>) -> (Streams, Key<Conn>, std::net::TcpStream) {
        let (mut streams, (tcp, peer)) = (empty(), pair());
        let conn = Arena::default().insert_with(|_| Conn::new(Role::Leaving(None)));
        streams.insert(conn, tcp, greeting, Admission::new(&Settings::default()).admit().unwrap()).unwrap();
        (streams, conn, peer)
    }

    fn send(streams: &mut Streams, conn: Key<Conn>, bytes: &[u8]) -> Sent {
        let mut sent = Vec::new();
        SendLoop(streams).send(&[Job { conn, bytes }], &mut sent);
        sent[0]
    }

    #[test]
    fn a_greeting_leaves_once_in_front_of_the_first_bytes_and_is_not_counted() {
        let (mut streams, conn, mut peer) = greeted(b"hello, ".to_vec());
        assert!(matches!(send(&mut streams, conn, b"world"), Sent::Bytes(5)));
        assert!(matches!(send(&mut streams, conn, b"!"), Sent::Bytes(1)));
        drop(streams);
        let mut heard = String::new();
        peer.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello, world!");
    }

    #[test]
    fn a_stream_that_takes_only_a_part_of_the_greeting_gets_the_rest_later() {
        // More than any socket takes at a time.
        let greeting: Vec<u8> = (0..16u32 << 20).map(|byte| (byte % 251) as u8).collect();
        let (mut streams, conn, mut peer) = greeted(greeting.clone());
        assert!(matches!(send(&mut streams, conn, b"end"), Sent::Blocked));
        let mut heard = vec![0; greeting.len() + 3];
        let mut at = 0;
        let mut sent = 0;
        while at < heard.len() {
            at += peer.read(&mut heard[at..]).unwrap();
            if sent < 3
                && let Sent::Bytes(bytes) = send(&mut streams, conn, &b"end"[sent..])
            {
                sent += bytes;
            }
        }
        assert_eq!(sent, 3, "only the bytes behind the greeting are counted");
        assert!(heard == [&greeting[..], b"end"].concat());
    }

    #[test]
    fn a_crowd_that_leaves_at_once_is_closed_by_and_by() {
        let (mut streams, mut conns) = (empty(), Arena::default());
        let admission = Admission::new(&Settings::default());
        let mut arrive = |streams: &mut Streams| {
            let ((tcp, peer), conn) = (pair(), conns.insert_with(|_| Conn::new(Role::Leaving(None))));
            streams.insert(conn, tcp, Vec::new(), admission.admit().unwrap()).unwrap();
            (conn, peer)
        };
        let (stays, _peer) = arrive(&mut streams);
        let peers: Vec<_> = (0..2 * CLOSES_MAX + 1).map(|_| arrive(&mut streams)).collect();
        peers.iter().for_each(|(conn, _)| streams.remove(*conn));
        assert!(streams.get(peers[0].0).is_none() && streams.get(stays).is_some());
        let mut open = Vec::new();
        while streams.has_removed() {
            open.push(streams.removed.len());
            streams.close_removed();
        }
        assert_eq!(open, [2 * CLOSES_MAX + 1, CLOSES_MAX + 1, 1]);
        for (_, mut peer) in peers {
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    }
}
