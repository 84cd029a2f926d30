//! Passage: how a stream reaches a worker that has a descriptor table of its own.
//!
//! A number of one table means nothing in another, so the kernel has to carry the stream (`SCM_RIGHTS`), over a pair of
//! Unix sockets that every table has. Everything else takes the mailbox, as ever; a ticket ties the two together.
//!
//! ```text
//! worker 0                              worker 2
//! stream ─── 17, the descriptor ──────▶ passage ─────────────┐
//! adoption ─ 17, what was read, … ────▶ mailbox ─ post 17 ─▶ stream, under a number of this table
//! ```
//!
//! The descriptor goes first. So when the post is taken, its stream has arrived; streams whose posts come later may lie
//! before it in the queue, and wait in [`Arrivals`].
//!
//! Invariants: a descriptor is only in the table of the thread that holds the value, or in the queue.
//! Limits:     the send buffer of a Unix socket, some hundred streams that wait. A stream that finds no room stays with
//!             its post, which is tried again next turn, as with a full mailbox.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};

/// Room for one descriptor beside a ticket.
const SPACE: usize = rustix::cmsg_space!(ScmRights(1));

#[cfg(target_os = "linux")]
const RECEIVE: RecvFlags = RecvFlags::DONTWAIT.union(RecvFlags::CMSG_CLOEXEC);
/// Elsewhere no thread has a table of its own, and there is no passage.
#[cfg(not(target_os = "linux"))]
const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;

/// The way to one worker. Any worker may send, only that one receives.
pub struct Passage {
    entry: UnixDatagram,
    exit: UnixDatagram,
    next_ticket: AtomicU64,
}

/// A stream, somewhere between two workers.
#[derive(Debug)]
pub enum Passenger {
    /// Not yet sent; or it never will be, because both workers use one table.
    Here(TcpStream),
    /// In the passage, or among the arrivals.
    Sent(u64),
    /// Closed on the way.
    Lost,
}

/// Streams that have come out of a passage before their posts. Of the worker whose passage it is.
#[derive(Default)]
pub struct Arrivals(HashMap<u64, TcpStream>);

impl Passage {
    pub fn open() -> io::Result<Passage> {
        let (entry, exit) = UnixDatagram::pair()?;
        Ok(Passage { entry, exit, next_ticket: AtomicU64::new(0) })
    }

    /// Sends the stream, unless it has been sent. Returns false if it has to wait for room.
    pub fn send(&self, passenger: &mut Passenger) -> bool {
        let Passenger::Here(tcp) = passenger else { return true };
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let fds = [tcp.as_fd()];
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        assert!(rights.push(SendAncillaryMessage::ScmRights(&fds)), "there is room for one");
        match sendmsg(&self.entry, &[IoSlice::new(&ticket.to_ne_bytes())], &mut rights, SendFlags::DONTWAIT) {
            Ok(_) => *passenger = Passenger::Sent(ticket),
            // Too many references: all processes of this user together have as many on the way as a table may hold.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS) => return false,
            Err(error) => {
                tracing::error!(%error, "a stream cannot be passed to its worker");
                *passenger = Passenger::Lost;
            }
        }
        true
    }

    /// For when nobody receives any more: closes what is on the way.
    pub fn empty(&self) {
        while self.receive().is_some() {}
    }

    /// The next ticket, and its stream unless this table is full. `None` when nothing is on the way.
    fn receive(&self) -> Option<(u64, Option<TcpStream>)> {
        let mut ticket = [0; size_of::<u64>()];
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.exit, &mut [IoSliceMut::new(&mut ticket)], &mut rights, RECEIVE) {
                Err(Errno::INTR) => {}
                received => break received,
            }
        };
        let bytes = received.ok()?.bytes;
        assert_eq!(bytes, ticket.len(), "nobody else sends");
        let mut fds = rights.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd: Option<OwnedFd> = fds.next().and_then(|mut fds| fds.next());
        Some((u64::from_ne_bytes(ticket), fd.map(TcpStream::from)))
    }
}

impl Arrivals {
    /// The stream of a post that has been taken. `None` if it was lost, perhaps because this table is full.
    pub fn take(&mut self, passage: Option<&Passage>, passenger: Passenger) -> Option<TcpStream> {
        let ticket = match passenger {
            Passenger::Here(tcp) => return Some(tcp),
            Passenger::Sent(ticket) => ticket,
            Passenger::Lost => return None,
        };
        if let Some(tcp) = self.0.remove(&ticket) {
            return Some(tcp);
        }
        while let Some((arrived, tcp)) = passage?.receive() {
            match tcp {
                tcp if arrived == ticket => return tcp,
                Some(tcp) => _ = self.0.insert(arrived, tcp),
                None => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Passengers, and the addresses that their peers know them by.
    fn passengers(count: usize) -> (Vec<Passenger>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || {
            let peer = TcpStream::connect(address).unwrap();
            (Passenger::Here(listener.accept().unwrap().0), peer)
        };
        (0..count).map(|_| connect()).unzip()
    }

    fn is_between(tcp: &TcpStream, peer: &TcpStream) -> bool {
        tcp.peer_addr().unwrap() == peer.local_addr().unwrap()
    }

    #[test]
    fn posts_find_their_streams_in_whatever_order_they_are_taken() {
        let passage = Passage::open().unwrap();
        let (mut streams, peers) = passengers(4);
        assert!(streams.iter_mut().all(|stream| passage.send(stream)));
        let mut arrivals = Arrivals::default();
        let mut streams: Vec<_> = streams.into_iter().map(Some).collect();
        for place in [2, 0, 3, 1] {
            let passenger = streams[place].take().unwrap();
            assert!(matches!(passenger, Passenger::Sent(_)));
            let tcp = arrivals.take(Some(&passage), passenger).expect("it was sent before");
            assert!(is_between(&tcp, &peers[place]));
        }
        assert!(arrivals.0.is_empty() && passage.receive().is_none());
    }

    #[test]
    fn a_full_passage_neither_waits_nor_loses_anyone() {
        let passage = Passage::open().unwrap();
        let mut arrivals = Arrivals::default();
        let mut waiting = Vec::new();
        let refused = loop {
            let (mut streams, peers) = passengers(1);
            let mut stream = streams.pop().unwrap();
            if !passage.send(&mut stream) {
                break (stream, peers);
            }
            waiting.push((stream, peers));
            assert!(waiting.len() < 5_000, "the queue has no end");
        };
        let (mut stream, peers) = refused;
        assert!(matches!(stream, Passenger::Here(_)), "it is still with its post");
        let sent = waiting.len();
        for (passenger, peers) in waiting {
            let tcp = arrivals.take(Some(&passage), passenger).expect("it is on the way");
            assert!(is_between(&tcp, &peers[0]));
        }
        assert!(sent > 0 && passage.send(&mut stream), "there is room again");
        assert!(is_between(&arrivals.take(Some(&passage), stream).unwrap(), &peers[0]));
    }

    #[test]
    fn a_ticket_whose_stream_did_not_come_is_known_as_lost() {
        let passage = Passage::open().unwrap();
        // What the kernel delivers to a table that is full: the bytes without the descriptor.
        passage.entry.send(&7u64.to_ne_bytes()).unwrap();
        let mut arrivals = Arrivals::default();
        assert!(arrivals.take(Some(&passage), Passenger::Sent(7)).is_none());
        assert!(arrivals.take(Some(&passage), Passenger::Lost).is_none());
    }

    #[test]
    fn an_emptied_passage_closes_what_was_in_it() {
        use std::io::Read as _;
        let passage = Passage::open().unwrap();
        let (mut streams, mut peers) = passengers(1);
        assert!(passage.send(&mut streams[0]));
        passage.empty();
        assert_eq!(peers[0].read(&mut [0]).unwrap(), 0, "its end");
    }
}
