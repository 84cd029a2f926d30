//! Namespaces: what an embedder has said about each, and the handle by which it says it.
//!
//! Handlers may be added at any time, from any thread. Workers read a copy that they renew when the version number
//! changes, so an event costs no lock and touches no count that other cores touch.

use super::ack::Ack;
use super::args::Args;
use super::broadcast::Broadcast;
use super::handler::{
    AnyEndHandler, AnyEventHandler, AnyMiddleware, AnyPressureHandler, AnySocketHandler, AnyUnhandledHandler,
    EndHandler, EventHandler, Middleware, PressureHandler, SocketHandler,
};
use super::io::Io;
use super::socket::Socket;
use super::{CountFuture, Dispatched, EmitError};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;

/// Why a client is not let into a namespace: the payload of CONNECT_ERROR (Socket.IO v5, "connection to a namespace").
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectError {
    /// What the client's `connect_error` handler reads as `err.message`.
    pub message: String,
    /// What it reads as `err.data`, if anything.
    pub data: Option<serde_json::Value>,
}

impl ConnectError {
    /// An error without data.
    pub fn new(message: impl Into<String>) -> ConnectError {
        ConnectError { message: message.into(), data: None }
    }

    /// The same with data.
    pub fn with_data(self, data: impl Into<serde_json::Value>) -> ConnectError {
        ConnectError { data: Some(data.into()), ..self }
    }

    pub(crate) fn payload(&self) -> String {
        match &self.data {
            None => serde_json::json!({ "message": self.message }).to_string(),
            Some(data) => {
                let message = serde_json::Value::from(&*self.message);
                format!(r#"{{"message":{message},"data":{data}}}"#)
            }
        }
    }
}

/// All namespaces, by name.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    pub namespaces: HashMap<Arc<str>, Arc<Behaviour>>,
}

/// What happens in one namespace.
#[derive(Clone, Default)]
pub(crate) struct Behaviour {
    pub middlewares: Vec<AnyMiddleware>,
    pub connection: Vec<AnySocketHandler>,
    pub events: HashMap<Box<str>, Vec<AnyEventHandler>>,
    pub unhandled: Option<AnyUnhandledHandler>,
    pub disconnecting: Vec<AnyEndHandler>,
    pub pressure: Vec<AnyPressureHandler>,
    pub disconnect: Vec<AnyEndHandler>,
}

/// A namespace: a separate channel space on the clients' connections, like `/admin`. Cheap to clone, usable anywhere.
///
/// Made by [`Io::of`]; from then on clients may connect to it.
#[derive(Clone)]
pub struct Namespace {
    io: Io,
    name: Arc<str>,
}

impl Namespace {
    pub(crate) fn new(io: Io, name: Arc<str>) -> Namespace {
        Namespace { io, name }
    }

    /// Its name, with the leading slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a middleware (`nsp.use` in Socket.IO): run for each CONNECT, in order of registration, before anything
    /// else. An error refuses the client with CONNECT_ERROR. The socket may already join rooms and emit; what it emits
    /// arrives before the answer to CONNECT. A socket that is not let in, or leaves before, is not told to
    /// [`on_disconnect`](Self::on_disconnect)'s handlers: what a middleware reserves it has to release itself.
    pub fn middleware<M>(&self, middleware: impl Middleware<M>) -> &Self {
        self.change(|it| it.middlewares.push(Arc::new(move |socket| middleware.call(socket))))
    }

    /// Calls `handler` with each socket that connects (`nsp.on("connection", …)`), after CONNECT was answered.
    pub fn on_connection<M>(&self, handler: impl SocketHandler<M>) -> &Self {
        self.change(|it| it.connection.push(Arc::new(move |socket| handler.call(socket))))
    }

    /// Calls `handler` for this event of every socket of the namespace, as if each connection handler had said
    /// [`socket.on`](crate::Socket::on); but a hundred thousand sockets share one entry.
    pub fn on_event<M>(&self, event: &str, handler: impl EventHandler<M>) -> &Self {
        let handler: AnyEventHandler = Arc::new(move |socket, incoming| handler.call(socket, incoming));
        self.change(|it| it.events.entry(event.into()).or_default().push(handler))
    }

    /// Calls `handler` for every event that nothing else handles, neither [`on_event`](Self::on_event) nor
    /// [`socket.on`](crate::Socket::on), with the event's name. The latest such handler counts. Without one, these
    /// events are ignored, as in Socket.IO.
    ///
    /// ```
    /// # use fanfare::{Ack, Args, Io, Socket};
    /// # let io = Io::new();
    /// io.of("/").on_unhandled(|_socket: Socket, event: &str, _args: Args, ack: Ack| {
    ///     let _ = ack.send(&format!("nobody knows {event}"));
    /// });
    /// ```
    pub fn on_unhandled(&self, handler: impl Fn(Socket, &str, Args, Ack) + Send + Sync + 'static) -> &Self {
        self.change(|it| it.unhandled = Some(Arc::new(handler)))
    }

    /// Calls `handler` for every socket that leaves, while it is still in its rooms.
    pub fn on_disconnecting<M>(&self, handler: impl EndHandler<M>) -> &Self {
        self.change(|it| it.disconnecting.push(Arc::new(move |socket, reason| handler.call(socket, reason))))
    }

    /// Calls `handler` when much waits for a client, and when it no longer does; see [`Socket::on_pressure`].
    pub fn on_pressure<M>(&self, handler: impl PressureHandler<M>) -> &Self {
        self.change(|it| it.pressure.push(Arc::new(move |socket, pressure| handler.call(socket, pressure))))
    }

    /// Calls `handler` for every socket that has left.
    pub fn on_disconnect<M>(&self, handler: impl EndHandler<M>) -> &Self {
        self.change(|it| it.disconnect.push(Arc::new(move |socket, reason| handler.call(socket, reason))))
    }

    /// Emits to every socket of the namespace. See [`Broadcast::emit`].
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<Dispatched, EmitError> {
        self.everyone().emit(event, args)
    }

    /// Emits to every socket of the namespace and counts them. See [`Broadcast::emit_and_count`].
    pub fn emit_and_count<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<CountFuture, EmitError> {
        self.everyone().emit_and_count(event, args)
    }

    /// A target: the sockets in this room, or in any of these rooms.
    pub fn to(&self, rooms: impl super::Rooms) -> Broadcast {
        self.everyone().to(rooms)
    }

    /// The same as [`to`](Self::to). Socket.IO calls it `in`, which is a word of Rust.
    pub fn within(&self, rooms: impl super::Rooms) -> Broadcast {
        self.to(rooms)
    }

    /// A target: everyone but the sockets in these rooms.
    pub fn except(&self, rooms: impl super::Rooms) -> Broadcast {
        self.everyone().except(rooms)
    }

    /// A target whose packets are dropped for clients that are not ready to receive. See [`Broadcast::volatile`].
    pub fn volatile(&self) -> Broadcast {
        self.everyone().volatile()
    }

    /// A target: the sockets of this node only. See [`Broadcast::local`].
    pub fn local(&self) -> Broadcast {
        self.everyone().local()
    }

    /// All sockets of the namespace, as a target.
    pub fn everyone(&self) -> Broadcast {
        Broadcast::new(self.io.clone(), &self.name)
    }

    fn change(&self, change: impl FnOnce(&mut Behaviour)) -> &Self {
        self.io.change_namespace(&self.name, change);
        self
    }
}
