//! Socket: a client's place in one namespace, as an embedder's handle.

use super::ack::{AckError, AckFuture, Answer};
use super::broadcast::{Broadcast, Rooms, names, prepare};
use super::handler::{AnyEndHandler, AnyEventHandler, AnyPressureHandler, EndHandler, EventHandler, PressureHandler};
use super::io::Io;
use super::{EmitError, args, local};
use crate::proto::id::IdText;
use crate::proto::{Id, Prepared, socketio};
use crate::settings::Policy;
use crate::shard::arena::Key;
use crate::shard::session::Handshake;
use crate::shard::sockets::{self, Unsent};
use crate::shard::{Shard, feeds, millis};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// What became of an event that was emitted to one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Emitted {
    /// It waits for the client, behind all that was emitted to it before.
    Queued,
    /// It was volatile, and the client not ready.
    Dropped,
    /// It is on its way to the socket's worker. What becomes of it there is not known here.
    Posted,
}

impl From<sockets::Emitted> for Emitted {
    fn from(emitted: sockets::Emitted) -> Emitted {
        match emitted {
            sockets::Emitted::Queued => Emitted::Queued,
            sockets::Emitted::Dropped => Emitted::Dropped,
        }
    }
}

/// What waits for a client, because it reads more slowly than it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// For all namespaces of its connection, which share one way. What this turn has queued is not in it yet.
    pub bytes: usize,
    /// For how long the first of them have waited.
    pub age: Duration,
}

/// How far behind a client is, as [`Socket::on_pressure`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pressure {
    /// More waits for it than [`outbox_watermark`](crate::Settings::outbox_watermark).
    High,
    /// It is less than half of that again.
    Cleared,
}

/// A client's place in one namespace (Socket.IO's `Socket`). Cheap to clone, usable from any thread or runtime.
///
/// On its own worker's thread, so in each of its handlers, it acts at once; from elsewhere it posts to that worker, and
/// acts soon, in the order of the calls.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

struct Inner {
    place: Arc<Place>,
    key: Key<sockets::Socket>,
    id: IdText,
    session: Id,
    handshake: Handshake,
    auth: Option<Box<str>>,
    data: Mutex<Data>,
}

/// Where sockets are: what those of one namespace on one worker have in common. Each worker has its own, so that a handle
/// that is made and dropped there touches no count that other cores touch.
pub(crate) struct Place {
    pub io: Io,
    pub shard: u16,
    pub namespace: Arc<str>,
}

/// Values by type. Empty, it costs one pointer.
type Data = Option<Box<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>;

impl Socket {
    /// Reads who the socket is from its shard.
    pub(crate) fn new(
        place: Arc<Place>,
        shard: &Shard,
        key: Key<sockets::Socket>,
        auth: Option<&str>,
    ) -> Option<Socket> {
        let socket = shard.socket(key)?;
        let session = shard.session(socket.session)?;
        Some(Socket(Arc::new(Inner {
            place,
            key,
            id: socket.id.text(),
            session: session.id,
            handshake: session.handshake.clone(),
            auth: auth.map(Box::from),
            data: Mutex::new(None),
        })))
    }

    /// Whether another handle, made later, would say the same and nobody could tell: this is the only one, and holds
    /// nothing that its shard does not know.
    pub(crate) fn is_replaceable(&mut self) -> bool {
        Arc::get_mut(&mut self.0).is_some_and(|inner| {
            let data = inner.data.get_mut().expect("nothing panics while it holds this lock");
            inner.auth.is_none() && data.is_none()
        })
    }

    // ---- who it is

    /// Its id: 20 characters, new for each connection to a namespace, and not the sid of the connection. A room of this
    /// name reaches just this socket.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The server that it belongs to.
    pub fn io(&self) -> &Io {
        &self.0.place.io
    }

    /// The name of its namespace (`socket.nsp.name`).
    pub fn namespace(&self) -> &str {
        &self.0.place.namespace
    }

    /// What the client's first request said (`socket.handshake`).
    pub fn handshake(&self) -> HandshakeView<'_> {
        HandshakeView { inner: &self.0 }
    }

    /// The connection under it (`socket.conn`).
    pub fn conn(&self) -> Conn {
        Conn { socket: self.clone() }
    }

    /// Whether it is still in its namespace. Away from its own thread this is not known: `None`.
    pub fn connected(&self) -> Option<bool> {
        self.here(|shard, key| shard.is_connected(key))
    }

    /// What waits for its client. Away from its own thread this is not known, and nothing waits for a socket that has
    /// left: `None`.
    pub fn backlog(&self) -> Option<Backlog> {
        let (bytes, age_ms) = self.here(|shard, key| shard.backlog(key))??;
        Some(Backlog { bytes, age: Duration::from_millis(age_ms) })
    }

    // ---- what an embedder keeps with it

    /// Keeps a value with the socket (`socket.data`), one for each type. Returns the one that was there.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        let mut data = self.0.data.lock().expect("nothing panics while it holds this lock");
        let before = data.get_or_insert_default().insert(TypeId::of::<T>(), Arc::new(value));
        before.and_then(|value| value.downcast().ok())
    }

    /// The value of this type that was kept with [`insert`](Self::insert).
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let data = self.0.data.lock().expect("nothing panics while it holds this lock");
        let value = data.as_ref()?.get(&TypeId::of::<T>())?;
        Arc::clone(value).downcast().ok()
    }

    // ---- events

    /// Calls `handler` for this event. Several handlers of one event are called in the order of their registration,
    /// those of [`Namespace::on_event`](crate::Namespace::on_event) first.
    pub fn on<M>(&self, event: &str, handler: impl EventHandler<M>) -> &Self {
        let handler: AnyEventHandler = Arc::new(move |socket, incoming| handler.call(socket, incoming));
        let event: Box<str> = event.into();
        self.keep(move |entry| entry.handlers_mut().events.entry(event).or_default().push(handler))
    }

    /// Calls `handler` when the socket leaves, while it is still in its rooms.
    pub fn on_disconnecting<M>(&self, handler: impl EndHandler<M>) -> &Self {
        let handler: AnyEndHandler = Arc::new(move |socket, reason| handler.call(socket, reason));
        self.keep(move |entry| entry.handlers_mut().disconnecting.push(handler))
    }

    /// Calls `handler` when the socket has left.
    pub fn on_disconnect<M>(&self, handler: impl EndHandler<M>) -> &Self {
        let handler: AnyEndHandler = Arc::new(move |socket, reason| handler.call(socket, reason));
        self.keep(move |entry| entry.handlers_mut().disconnect.push(handler))
    }

    /// Calls `handler` when much waits for the client, because it reads more slowly than it is sent, and when it no longer
    /// does: time to send less before anything is dropped. [`backlog`](Self::backlog) says how much it is. A client that
    /// is closed for it is not [`Cleared`](Pressure::Cleared); it disconnects.
    pub fn on_pressure<M>(&self, handler: impl PressureHandler<M>) -> &Self {
        let handler: AnyPressureHandler = Arc::new(move |socket, pressure| handler.call(socket, pressure));
        self.keep(move |entry| entry.handlers_mut().pressure.push(handler))
    }

    /// Emits an event to this client. A tuple is several arguments; see [`args`](crate::args).
    ///
    /// It is queued, behind all that was emitted to the client before, and leaves with the current turn. Nothing waits
    /// here for a client that reads slowly: whoever sends much to one client looks at its [`backlog`](Self::backlog).
    ///
    /// # Errors
    ///
    /// [`EmitError::Encode`], and [`EmitError::Closed`] when the socket is known to have left: on its own thread always,
    /// from elsewhere only when the server has closed.
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<Emitted, EmitError> {
        self.push(self.prepare(None, event, args)?, false)
    }

    /// The next packets have a key: if the client is behind, of those with the same key the newest waits for it, and the
    /// others are left out. See [`Broadcast::conflate`].
    pub fn conflate<'s>(&'s self, key: &'s str) -> Conflated<'s> {
        Conflated { socket: self, key }
    }

    /// The next packets may be dropped if the client is not ready: `socket.volatile().emit(…)`.
    pub fn volatile(&self) -> Volatile<'_> {
        Volatile(self)
    }

    /// Emits an event that the client answers. It is on its way when this returns. Without a timeout the answer is
    /// awaited until the socket leaves.
    pub fn emit_with_ack<R: DeserializeOwned>(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckFuture<R> {
        self.ask(event, args, None)
    }

    /// Limits how long an answer is awaited: `socket.timeout(…).emit_with_ack(…)`.
    pub fn timeout(&self, timeout: Duration) -> WithTimeout<'_> {
        WithTimeout { socket: self, timeout }
    }

    fn ask<R>(&self, event: &str, args: &(impl Serialize + ?Sized), timeout: Option<Duration>) -> AckFuture<R> {
        let encoded = match args::encode_event(event, args) {
            Ok(encoded) => encoded,
            Err(error) => return AckFuture::failed(AckError::Encode(error)),
        };
        let (sender, receiver) = oneshot::channel();
        let timeout_ms = timeout.map(millis);
        let namespace = Arc::clone(&self.0.place.namespace);
        let done = self.act(move |shard, key| {
            let token = local::expect_ack(sender);
            let Ok(ack_id) = shard.expect_ack(key, token, timeout_ms) else {
                return local::forget_ack(token);
            };
            let packet = socketio::event(&namespace, Some(ack_id), &encoded.data, &encoded.attachments);
            let _ = shard.emit(key, &Arc::new(packet), false);
        });
        match done {
            Ok(()) => AckFuture::waiting(receiver),
            Err(_) => AckFuture::failed(AckError::Disconnected),
        }
    }

    fn prepare<T: Serialize + ?Sized>(
        &self,
        key: Option<&str>,
        event: &str,
        args: &T,
    ) -> Result<Arc<Prepared>, EmitError> {
        let namespace = self.namespace();
        let policy = self.io().first_settings().map_or(Policy::Evict, |settings| settings.policy_for(namespace, &[]));
        let whole = |key: &str| feeds::whole_key(namespace, [self.id()].into_iter(), key);
        prepare(namespace, event, args, feeds::fate(policy, key, event, whole))
    }

    pub(crate) fn push(&self, packet: Arc<Prepared>, volatile: bool) -> Result<Emitted, EmitError> {
        match self.here(|shard, key| shard.emit(key, &packet, volatile)) {
            Some(Ok(emitted)) => Ok(emitted.into()),
            Some(Err(_)) => Err(EmitError::Closed),
            None => {
                self.act(move |shard, key| _ = shard.emit(key, &packet, volatile))?;
                Ok(Emitted::Posted)
            }
        }
    }

    // ---- rooms

    /// Joins a room, or several. A room exists as long as somebody is in it.
    ///
    /// # Errors
    ///
    /// [`JoinError`], on the socket's own thread; from elsewhere a refused join is only counted.
    pub fn join(&self, rooms: impl Rooms) -> Result<(), JoinError> {
        let rooms = names(rooms);
        let join = move |shard: &mut Shard, key| rooms.iter().try_for_each(|room| shard.join(key, room));
        match self.try_here(join) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Unsent::Closed)) => Err(JoinError::Closed),
            Ok(Err(Unsent::TooManyRooms)) => Err(JoinError::TooManyRooms),
            Err(join) => self.act(move |shard, key| _ = join(shard, key)).map_err(|_| JoinError::Closed),
        }
    }

    /// Leaves a room, or several.
    pub fn leave(&self, rooms: impl Rooms) {
        let rooms = names(rooms);
        let _ = self.act(move |shard, key| rooms.iter().for_each(|room| shard.leave_room(key, room)));
    }

    /// The rooms it is in, its own first. Still filled in `disconnecting` handlers, empty in `disconnect` handlers.
    /// `None` away from the socket's own thread, where they are not known.
    pub fn rooms(&self) -> Option<Vec<String>> {
        self.here(|shard, key| shard.rooms_of(key))
    }

    // ---- the end

    /// Takes the socket out of its namespace; the client sees `io server disconnect` and does not reconnect by itself.
    /// With `close`, all namespaces of its connection go, and the connection.
    pub fn disconnect(&self, close: bool) {
        let _ = self.act(move |shard, key| shard.disconnect(key, close));
    }

    // ---- the way to its shard

    pub(crate) fn key(&self) -> Key<sockets::Socket> {
        self.0.key
    }

    /// Acts on the shard if this is its thread.
    pub(crate) fn here<R>(&self, act: impl FnOnce(&mut Shard, Key<sockets::Socket>) -> R) -> Option<R> {
        self.try_here(act).ok()
    }

    /// The same, giving the action back if this is another thread.
    fn try_here<F, R>(&self, act: F) -> Result<R, F>
    where
        F: FnOnce(&mut Shard, Key<sockets::Socket>) -> R,
    {
        if self.0.place.io.shard_number() != Some(self.0.place.shard) {
            return Err(act);
        }
        Ok(self.0.place.io.with_shard(|shard| act(shard, self.0.key)).expect("shard_number has said so"))
    }

    /// Acts on the shard, now or soon.
    fn act(&self, act: impl FnOnce(&mut Shard, Key<sockets::Socket>) + Send + 'static) -> Result<(), EmitError> {
        let key = self.0.key;
        match self.try_here(act) {
            Ok(()) => Ok(()),
            Err(act) => self.0.place.io.on_shard(self.0.place.shard, move |shard| act(shard, key)),
        }
    }

    /// Changes what its worker keeps for it, now or soon.
    fn keep(&self, change: impl FnOnce(&mut local::Entry) + Send + 'static) -> &Self {
        let socket = self.clone();
        if self.0.place.io.shard_number() == Some(self.0.place.shard) {
            local::change(&socket, change);
        } else {
            // Only a closed server refuses, and then no event will come.
            let _ = self.0.place.io.call_on(self.0.place.shard, move || local::change(&socket, change));
        }
        self
    }
}

impl PartialEq for Socket {
    fn eq(&self, other: &Socket) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Socket {}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({}{})", self.namespace(), self.id())
    }
}

/// Why a socket did not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// The socket has left.
    Closed,
    /// It is in [`rooms_per_socket_max`](crate::Settings::rooms_per_socket_max) rooms.
    TooManyRooms,
}

impl std::fmt::Display for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            JoinError::Closed => "the socket has left",
            JoinError::TooManyRooms => "the socket is in as many rooms as it may be (`rooms_per_socket_max`)",
        })
    }
}

impl std::error::Error for JoinError {}

/// A socket whose packets may be dropped; see [`Socket::volatile`].
#[must_use = "nothing has been emitted yet"]
pub struct Volatile<'s>(&'s Socket);

impl Volatile<'_> {
    /// Emits if the client's transport is ready at this moment; else the packet is dropped and counted.
    ///
    /// # Errors
    ///
    /// As [`Socket::emit`]. A dropped packet is no error.
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<Emitted, EmitError> {
        self.0.push(self.0.prepare(None, event, args)?, true)
    }

    /// A volatile broadcast to everyone else.
    pub fn broadcast(&self) -> Broadcast {
        self.0.broadcast().volatile()
    }

    /// A volatile broadcast to these rooms.
    pub fn to(&self, rooms: impl Rooms) -> Broadcast {
        self.0.to(rooms).volatile()
    }
}

/// A socket whose packets have a key; see [`Socket::conflate`].
#[must_use = "nothing has been emitted yet"]
pub struct Conflated<'s> {
    socket: &'s Socket,
    key: &'s str,
}

impl Conflated<'_> {
    /// As [`Socket::emit`].
    ///
    /// # Errors
    ///
    /// As [`Socket::emit`].
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<Emitted, EmitError> {
        self.socket.push(self.socket.prepare(Some(self.key), event, args)?, false)
    }
}

/// A socket whose answers are awaited for a limited time; see [`Socket::timeout`].
#[must_use = "nothing has been emitted yet"]
pub struct WithTimeout<'s> {
    socket: &'s Socket,
    timeout: Duration,
}

impl WithTimeout<'_> {
    /// As [`Socket::emit_with_ack`], with [`AckError::Timeout`] when the time is over.
    pub fn emit_with_ack<R: DeserializeOwned>(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckFuture<R> {
        self.socket.ask(event, args, Some(self.timeout))
    }
}

/// What the client's first request said, and the `auth` of this namespace's CONNECT.
#[derive(Clone, Copy)]
pub struct HandshakeView<'s> {
    inner: &'s Inner,
}

impl<'s> HandshakeView<'s> {
    /// The value of a header, named in lower case. Headers of a single hop (`connection`, `upgrade`, …) are not kept.
    pub fn header(&self, name: &str) -> Option<&'s str> {
        self.inner.handshake.header(name)
    }

    /// All headers that were kept, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'s str, &'s str)> {
        self.inner.handshake.headers()
    }

    /// Path and query of the request.
    pub fn url(&self) -> &'s str {
        self.inner.handshake.url()
    }

    /// The query, decoded; of equal names the last.
    pub fn query(&self) -> HashMap<String, String> {
        let query = self.url().split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// The client's address: the peer of the TCP connection, or, where that is one of
    /// [`Settings::trusted_proxies`](crate::Settings::trusted_proxies), the client whom it names. The port is 0 if the proxy
    /// says none.
    pub fn address(&self) -> SocketAddr {
        self.inner.handshake.address()
    }

    /// When it was, in milliseconds since the Unix epoch.
    pub fn issued_ms(&self) -> u64 {
        self.inner.handshake.issued_ms()
    }

    /// Whether the connection was encrypted by this server. It never is yet: TLS ends at a proxy.
    pub fn secure(&self) -> bool {
        self.inner.handshake.secure()
    }

    /// Whether the request came from a page of another origin, or at least named one.
    pub fn xdomain(&self) -> bool {
        self.header("origin").is_some()
    }

    /// What the client gave as `auth`, as JSON text of an object; `{}` if it gave none.
    pub fn auth_json(&self) -> &'s str {
        self.inner.auth.as_deref().unwrap_or("{}")
    }

    /// What the client gave as `auth`.
    ///
    /// # Errors
    ///
    /// When it is not of this type.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.auth_json())
    }
}

/// The connection under a socket (`socket.conn`): one Engine.IO session, shared by all its namespaces.
pub struct Conn {
    socket: Socket,
}

impl Conn {
    /// Its sid.
    pub fn id(&self) -> String {
        self.socket.0.session.to_string()
    }

    /// `polling` or `websocket`. `None` away from the socket's own thread, and after the end.
    pub fn transport(&self) -> Option<&'static str> {
        self.socket.here(|shard, _| {
            let session = shard.session_by_sid(&self.socket.0.session)?;
            shard.session(session).map(|session| session.transport.name())
        })?
    }

    /// Closes the connection without a word to the namespaces; the client reconnects.
    pub fn close(&self) {
        let sid = self.socket.0.session;
        let _ = self.socket.act(move |shard, _| {
            if let Some(session) = shard.session_by_sid(&sid) {
                shard.close(session, crate::CloseReason::ForcedClose);
            }
        });
    }
}

/// Attachments and text of an answer, from the shard to whoever waits.
pub(crate) fn answer(data: &str, attachments: Vec<Bytes>) -> Answer {
    Answer::Came { data: data.to_owned(), attachments }
}
