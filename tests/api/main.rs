//! What an embedder is promised: handlers, arguments, answers, middlewares, targets, counts, and how everything ends.
//!
//! The peer is a bare WebSocket, so that what arrives, and in which order, is seen packet by packet.

mod acks;
mod endings;
mod engine;
mod handlers;
mod middlewares;
mod server;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
mod targets;

use fanfare::engine::{Conn, Engine};
use fanfare::{Ack, Broadcast, CloseReason, CountFuture, EmitError, Io, Namespace, Server, Socket};
use std::sync::mpsc::{Receiver, channel};
use support::http::WAIT_MAX;
use support::{Running, block_on};

fn next<T>(events: &Receiver<T>) -> T {
    events.recv_timeout(WAIT_MAX).expect("it happens within 5 s")
}

/// A server, and the sockets that have connected to its main namespace.
fn with_sockets(io: &Io) -> (Running, Receiver<Socket>) {
    let (sender, sockets) = channel();
    io.on_connection(move |socket: Socket| drop(sender.send(socket)));
    (Running::io(io), sockets)
}

/// How the sockets of a namespace end, with their ids.
fn ends_of(namespace: &Namespace) -> Receiver<(String, CloseReason)> {
    let (sender, ends) = channel();
    namespace.on_disconnect(move |socket: Socket, reason| drop(sender.send((socket.id().to_owned(), reason))));
    ends
}

/// How many sockets a broadcast was queued for.
fn reached(count: Result<CountFuture, EmitError>) -> usize {
    block_on(count.expect("the server runs")).expect("a count").sockets
}

/// A panic that prints nothing.
fn fail() {
    std::panic::resume_unwind(Box::new("a handler that fails"));
}

#[test]
fn handles_go_anywhere() {
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    anywhere::<Io>();
    anywhere::<Socket>();
    anywhere::<Namespace>();
    anywhere::<Broadcast>();
    anywhere::<Conn>();
    anywhere::<Engine>();
    fn travels<T: Send + Sync + 'static>() {}
    travels::<Server>();
    travels::<Ack>();
}
