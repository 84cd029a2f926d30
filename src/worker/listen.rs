//! Listen: one accept queue per worker, which its turn empties.
//!
//! Every worker binds the same address with `SO_REUSEPORT`, and the kernel spreads new connections over them. Systems
//! whose kernel does not spread (macOS) give them all to one worker: everything works, on one core.

use super::streams::Streams;
use crate::error::Refusal;
use crate::settings::Settings;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// How long a worker that is out of descriptors leaves its accept queue alone.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that is ours, before anybody listens on it: a socket that is bound and no more, so that the kernel gives
/// it no connections. It keeps the port that port 0 stands for until the workers have it.
pub struct Claim {
    socket: Socket,
    pub address: SocketAddr,
}

impl Claim {
    pub fn new(address: SocketAddr) -> io::Result<Claim> {
        let socket = bind(address)?;
        let address = socket.local_addr()?.as_socket().expect("it was bound to an IP address");
        Ok(Claim { socket, address })
    }
}

impl AsRawFd for Claim {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A listener that shares its address with those of the other workers.
pub fn listen(address: SocketAddr, settings: &Settings) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    // Accepted connections inherit these, which spares each of them the system calls.
    socket.set_tcp_nodelay(true)?;
    cap_kernel_buffers(&socket, settings)?;
    socket.set_nonblocking(true)?;
    socket.listen(settings.accept_queue)?;
    Ok(socket.into())
}

/// What has left for the kernel waits too, and nobody else limits it.
fn cap_kernel_buffers(socket: &Socket, settings: &Settings) -> io::Result<()> {
    if settings.send_buffer_bytes > 0 {
        socket.set_send_buffer_size(settings.send_buffer_bytes)?;
    }
    #[cfg(target_os = "linux")]
    {
        if settings.unsent_bytes_max > 0 {
            socket.set_tcp_notsent_lowat(u32::try_from(settings.unsent_bytes_max).unwrap_or(u32::MAX))?;
        }
        if !settings.tcp_user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(settings.tcp_user_timeout))?;
        }
    }
    Ok(())
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A worker's accept queue, as its turn sees it.
pub struct Listener {
    tcp: mio::net::TcpListener,
    /// Whether connections may wait. The kernel says it once, and it holds until the queue was found empty.
    waiting: bool,
    /// Until when the queue is left alone, after a failure.
    resting_until: Option<Instant>,
}

impl Listener {
    pub fn new(tcp: TcpListener, streams: &Streams) -> io::Result<Listener> {
        let mut tcp = mio::net::TcpListener::from_std(tcp);
        streams.watch_listener(&mut tcp)?;
        // Somebody may have come before it was watched.
        Ok(Listener { tcp, waiting: true, resting_until: None })
    }

    /// The kernel says that connections wait.
    pub fn on_ready(&mut self) {
        self.waiting = true;
    }

    pub fn resting_until(&self) -> Option<Instant> {
        self.resting_until
    }

    /// Whether connections may wait that can be accepted at once.
    pub fn has_waiting(&self) -> bool {
        self.waiting && self.resting_until.is_none()
    }

    /// Accepts at most `budget` connections. A failure ends it for a while: the worker is out of descriptors.
    pub fn accept(
        &mut self,
        now: Instant,
        budget: usize,
        mut welcome: impl FnMut(TcpStream, SocketAddr),
    ) -> io::Result<()> {
        self.resting_until = self.resting_until.filter(|until| now < *until);
        for _ in 0..budget {
            if !self.has_waiting() {
                break;
            }
            match self.tcp.accept() {
                Ok((stream, peer)) => welcome(stream.into(), peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.waiting = false,
                // It was gone before it was accepted, or a signal came: the next one is asked for.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.resting_until = Some(now + ACCEPT_PAUSE);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Says so if the kernel holds fewer connections than it is asked to: a crowd that comes at once is refused by it then.
pub fn warn_if_capped(accept_queue: i32) {
    // Of Linux; where there is no such file, there is nothing to compare.
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    if let Some(cap) = cap(accept_queue, &somaxconn) {
        tracing::warn!(
            accept_queue,
            somaxconn = cap,
            "the kernel holds only {cap} connections that wait to be accepted; raise net.core.somaxconn"
        );
    }
}

fn cap(accept_queue: i32, somaxconn: &str) -> Option<i32> {
    somaxconn.trim().parse().ok().filter(|cap| *cap < accept_queue)
}

/// What a connection over the limits is told before it is closed, without having been asked.
pub fn refusal(refusal: Refusal, retry_after: u8) -> String {
    let (code, message, status) = refusal.wire();
    let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    let head = format!("Connection: close\r\nRetry-After: {retry_after}\r\nContent-Type: application/json");
    format!("HTTP/1.1 {status} Service Unavailable\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[cfg(test)]
mod tests {
    use super::super::streams::Poller;
    use super::*;
    use std::net::Ipv4Addr;

    /// A listener, and peers that wait in its queue.
    fn listener_with(peers: usize) -> (Listener, Vec<TcpStream>) {
        let tcp = listen((Ipv4Addr::LOCALHOST, 0).into(), &Settings::default()).unwrap();
        let address = tcp.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let (_, streams) = Poller::new(mio::Poll::new().unwrap()).unwrap();
        let listener = Listener::new(tcp, &streams).unwrap();
        (listener, (0..peers).map(|_| TcpStream::connect(address).unwrap()).collect())
    }

    fn accepted(listener: &mut Listener, now: Instant, budget: usize) -> Vec<SocketAddr> {
        let mut accepted = Vec::new();
        listener.accept(now, budget, |_, peer| accepted.push(peer)).unwrap();
        accepted
    }

    fn addresses(peers: &[TcpStream]) -> Vec<SocketAddr> {
        peers.iter().map(|peer| peer.local_addr().unwrap()).collect()
    }

    #[test]
    fn a_crowd_is_let_in_by_the_budget_and_in_its_order() {
        let (mut listener, peers) = listener_with(8);
        let (now, expected) = (Instant::now(), addresses(&peers));
        assert_eq!(accepted(&mut listener, now, 3), expected[..3]);
        assert!(listener.has_waiting(), "the next turn follows at once");
        assert_eq!(accepted(&mut listener, now, 3), expected[3..6]);
        assert_eq!(accepted(&mut listener, now, 3), expected[6..]);
        assert!(!listener.has_waiting(), "the queue was found empty");
        assert!(accepted(&mut listener, now, 3).is_empty(), "and is left alone until the kernel says otherwise");
    }

    #[test]
    fn after_a_failure_the_queue_is_left_alone_for_a_while() {
        let (mut listener, peers) = listener_with(2);
        let now = Instant::now();
        listener.resting_until = Some(now + ACCEPT_PAUSE);
        assert!(!listener.has_waiting() && accepted(&mut listener, now, 3).is_empty());
        assert_eq!(listener.resting_until(), Some(now + ACCEPT_PAUSE));
        assert_eq!(accepted(&mut listener, now + ACCEPT_PAUSE, 3), addresses(&peers));
        assert_eq!(listener.resting_until(), None);
    }

    #[test]
    fn what_is_accepted_does_not_block_and_sends_at_once() {
        let (mut listener, _peers) = listener_with(1);
        let mut accepted = 0;
        let check = |mut stream: TcpStream, _| {
            assert!(stream.nodelay().unwrap());
            let read = io::Read::read(&mut stream, &mut [0]);
            assert!(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
            accepted += 1;
        };
        listener.accept(Instant::now(), 2, check).unwrap();
        assert_eq!(accepted, 1);
    }

    #[test]
    fn a_queue_that_the_kernel_cuts_short_is_noticed() {
        assert_eq!(cap(4096, "128\n"), Some(128));
        assert_eq!(cap(4096, "4096\n"), None);
        assert_eq!(cap(4096, "65535\n"), None);
        assert_eq!(cap(4096, ""), None, "not Linux");
    }
}
