//! HTTP stream: a TCP connection while hyper serves it. It spares a WebSocket's handshake what only waiting needs.
//!
//! **It is registered when it has to wait.** Under load a request is there before its connection is accepted: it is read
//! and answered at once, and the runtime's poller never hears of the stream. What a WebSocket's handshake needs is often
//! even less than that (front_door.rs); what comes here is the rest, with the bytes that were read there.
//!
//! **It can keep back what hyper writes.** That is for the 101 of a WebSocket that begins a session: the session's open
//! packet follows at once, so both leave in one write.
//!
//! ```text
//! hyper ── 101 ──▶ kept ── the upgrade ──▶ streams.rs ── 101, open packet ──▶ one write
//! ```
//!
//! **Bytes can be put back**, which came behind a PROXY protocol header (proxied.rs), or were read at the front door.
//!
//! Invariants: once something is kept back, the stream is taken out of hyper; nothing but its new owner writes any more.
//! Limits:     kept is what hyper writes before the upgrade: the 101, and responses to requests that came in front of it.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Bytes of a read without the runtime. Most heads are smaller; what is left is read next.
const READ_BYTES: usize = 4096;

/// The switch of one stream. Atomic because hyper gives out only what is `Send`; all of it stays on one thread.
#[derive(Clone, Default)]
pub struct KeepBack(Arc<AtomicBool>);

impl KeepBack {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub struct HttpStream {
    tcp: Tcp,
    /// The last read found less than it asked for.
    is_drained: bool,
    /// What was read already and is to be read again.
    ahead: Vec<u8>,
    keep_back: KeepBack,
    kept: Vec<u8>,
}

/// A stream that has left HTTP.
pub struct Bare {
    pub tcp: TcpStream,
    /// Bytes of its peer that nobody has read.
    pub ahead: Vec<u8>,
    /// What its peer has still to be sent before anything else.
    pub kept: Vec<u8>,
}

enum Tcp {
    /// Has not had to wait yet.
    Bare(TcpStream),
    Watched(TokioIo<tokio::net::TcpStream>),
    /// The runtime could not watch it.
    Lost,
}

impl HttpStream {
    /// The stream does not block. What was read of it, which was as a rule all that was there, is read again first.
    pub fn new(tcp: TcpStream, read: Vec<u8>, keep_back: KeepBack) -> HttpStream {
        HttpStream { tcp: Tcp::Bare(tcp), is_drained: !read.is_empty(), ahead: read, keep_back, kept: Vec::new() }
    }

    /// Has the next reads give these bytes, which came first.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        assert!(self.ahead.is_empty(), "what was put back is read before more is put back");
        self.ahead = bytes;
    }

    /// The bare stream.
    pub fn into_std(self) -> io::Result<Bare> {
        let tcp = match self.tcp {
            Tcp::Bare(tcp) => tcp,
            Tcp::Watched(tcp) => tcp.into_inner().into_std()?,
            Tcp::Lost => return Err(ErrorKind::NotConnected.into()),
        };
        Ok(Bare { tcp, ahead: self.ahead, kept: self.kept })
    }

    fn keeps_back(&self) -> bool {
        self.keep_back.0.load(Ordering::Relaxed)
    }

    /// What `act` does without waiting. `None`: the runtime has to wait for it.
    fn at_once<T>(&self, act: impl FnOnce(&TcpStream) -> io::Result<T>) -> Option<io::Result<T>> {
        let Tcp::Bare(tcp) = &self.tcp else { return None };
        let has_to_wait = |error: &io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
        Some(act(tcp)).filter(|done| !done.as_ref().is_err_and(has_to_wait))
    }

    fn watched(&mut self) -> io::Result<Pin<&mut TokioIo<tokio::net::TcpStream>>> {
        self.tcp = match std::mem::replace(&mut self.tcp, Tcp::Lost) {
            Tcp::Bare(tcp) => Tcp::Watched(TokioIo::new(tokio::net::TcpStream::from_std(tcp)?)),
            other => other,
        };
        match &mut self.tcp {
            Tcp::Watched(tcp) => Ok(Pin::new(tcp)),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Read for HttpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(to.remaining());
            to.put_slice(&self.ahead[..count]);
            self.ahead.drain(..count);
            return Poll::Ready(Ok(()));
        }
        if matches!(self.tcp, Tcp::Watched(_)) {
            return self.watched()?.poll_read(cx, to);
        }
        if std::mem::take(&mut self.is_drained) {
            // hyper reads on while it answers, to see the peer's end. A handshake is answered before this task is polled
            // again; whatever else the request was, the stream is watched then.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut bytes = [0; READ_BYTES];
        let room = bytes.len().min(to.remaining());
        match self.at_once(|mut tcp| tcp.read(&mut bytes[..room])) {
            Some(read) => {
                let read = read?;
                self.is_drained = (1..room).contains(&read);
                to.put_slice(&bytes[..read]);
                Poll::Ready(Ok(()))
            }
            None => self.watched()?.poll_read(cx, to),
        }
    }
}

impl Write for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.keeps_back() {
            self.kept.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        match self.at_once(|mut tcp| tcp.write(bytes)) {
            Some(written) => Poll::Ready(written),
            None => self.watched()?.poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.keeps_back() {
            pieces.iter().for_each(|piece| self.kept.extend_from_slice(piece));
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        match self.at_once(|mut tcp| tcp.write_vectored(pieces)) {
            Some(written) => Poll::Ready(written),
            None => self.watched()?.poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A TCP stream has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.at_once(|tcp| tcp.shutdown(Shutdown::Write)) {
            Some(shut) => Poll::Ready(shut),
            None => self.watched()?.poll_shutdown(cx),
        }
    }
}
