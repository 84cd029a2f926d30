//! Listen: one accept queue per worker, and the task that empties it.
//!
//! Every worker binds the same address with `SO_REUSEPORT`, and the kernel spreads new connections over them. Systems
//! whose kernel does not spread (macOS) give them all to one worker: everything works, on one core.

use super::Worker;
use super::http;
use crate::error::Refusal;
use crate::shard::drive::App;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

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
pub fn listen(address: SocketAddr, accept_queue: i32) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.set_nonblocking(true)?;
    socket.listen(accept_queue)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts until the server shuts down.
pub async fn accept<A: App + 'static>(worker: Rc<Worker<A>>, listener: TcpListener, routes: http::Routes) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listener cannot be used"),
    };
    let mut closing = worker.closing.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match accepted {
            Ok((stream, peer)) => welcome(&worker, stream, peer, &routes),
            Err(error) => {
                worker.admission.note_accept_failure();
                let warn = |times| tracing::warn!(%error, times, "connections have to wait in the accept queue");
                worker.accept_failures.note(warn);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn welcome<A: App + 'static>(worker: &Rc<Worker<A>>, stream: TcpStream, peer: SocketAddr, routes: &http::Routes) {
    match worker.admission.admit(peer.ip()) {
        Some(admitted) => http::spawn(Rc::clone(worker), stream, peer, admitted, routes.clone()),
        None => {
            let _ = stream.try_write(over_limit().as_bytes());
        }
    }
}

/// What a connection over the limits is told before it is closed, without having been asked.
fn over_limit() -> String {
    let (code, message, status) = Refusal::TooManyConnections.wire();
    let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    let head = "Connection: close\r\nRetry-After: 1\r\nContent-Type: application/json";
    format!("HTTP/1.1 {status} Service Unavailable\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
