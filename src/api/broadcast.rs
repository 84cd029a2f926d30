//! Broadcast: who should receive, said in Socket.IO's words, and the verbs that act on them.

use super::args;
use super::io::Io;
use super::socket::Socket;
use super::{CountFuture, Dispatched, EmitError};
use crate::proto::{Fate, Prepared, socketio};
use crate::settings::Settings;
use crate::shard::feeds;
use crate::shard::mail::Target;
use serde::Serialize;
use std::sync::Arc;

/// One room or several: `"a"`, `["a", "b"]`, a `Vec` or slice of strings.
pub trait Rooms {
    /// Gives each room's name to `add`.
    fn each(&self, add: &mut dyn FnMut(&str));
}

impl Rooms for &str {
    fn each(&self, add: &mut dyn FnMut(&str)) {
        add(self);
    }
}

impl Rooms for String {
    fn each(&self, add: &mut dyn FnMut(&str)) {
        add(self);
    }
}

impl Rooms for &String {
    fn each(&self, add: &mut dyn FnMut(&str)) {
        add(self);
    }
}

impl<S: AsRef<str>> Rooms for &[S] {
    fn each(&self, add: &mut dyn FnMut(&str)) {
        self.iter().for_each(|room| add(room.as_ref()));
    }
}

impl<S: AsRef<str>> Rooms for Vec<S> {
    fn each(&self, add: &mut dyn FnMut(&str)) {
        self.as_slice().each(add);
    }
}

impl<S: AsRef<str>> Rooms for &Vec<S> {
    fn each(&self, add: &mut dyn FnMut(&str)) {
        self.as_slice().each(add);
    }
}

impl<S: AsRef<str>, const N: usize> Rooms for [S; N] {
    fn each(&self, add: &mut dyn FnMut(&str)) {
        self.as_slice().each(add);
    }
}

pub(crate) fn names(rooms: impl Rooms) -> Vec<Box<str>> {
    let mut names = Vec::new();
    rooms.each(&mut |room| names.push(room.into()));
    names
}

/// A target under construction: Socket.IO's `BroadcastOperator`. Every method takes it and gives it back, so that calls
/// chain in any order.
///
/// ```no_run
/// # fn example(io: fanfare::Io, socket: fanfare::Socket) -> Result<(), fanfare::EmitError> {
/// io.to("match-7").except("muted").emit("goal", &("Ada", 17))?;
/// socket.to(["a", "b"]).volatile().emit("position", &(1.5, 2.5))?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a target does nothing until something is emitted to it"]
pub struct Broadcast {
    io: Io,
    target: Target,
}

impl Broadcast {
    pub(crate) fn new(io: Io, namespace: &str) -> Broadcast {
        Broadcast { io, target: Target { namespace: namespace.into(), ..Target::default() } }
    }

    /// Adds rooms. A socket that is in several of them receives once. No room at all means everyone.
    pub fn to(mut self, rooms: impl Rooms) -> Broadcast {
        self.target.rooms.append(&mut names(rooms));
        self
    }

    /// The same as [`to`](Self::to). Socket.IO calls it `in`, which is a word of Rust.
    pub fn within(self, rooms: impl Rooms) -> Broadcast {
        self.to(rooms)
    }

    /// Leaves out whoever is in one of these rooms.
    pub fn except(mut self, rooms: impl Rooms) -> Broadcast {
        self.target.except.append(&mut names(rooms));
        self
    }

    /// The packet is dropped for a client that is not ready at this moment: one whose last packets wait for the
    /// kernel, or that polls and has no poll pending.
    pub fn volatile(mut self) -> Broadcast {
        self.target.volatile = true;
        self
    }

    /// The events have a key: of events with the same key for the same rooms the newest is what counts. If a receiver is
    /// behind, the newest waits for it and the others are left out. Where a rule says so ([`Settings::feeds`](crate::Settings::feeds)), the room
    /// holds and retains the newest of each key.
    ///
    /// ```no_run
    /// # fn example(io: fanfare::Io) -> Result<(), fanfare::EmitError> {
    /// io.to("ticker:tech").conflate("ACME").emit("price", &("ACME", 17.25))?;
    /// # Ok(()) }
    /// ```
    pub fn conflate(mut self, key: &str) -> Broadcast {
        self.target.key = Some(key.into());
        self
    }

    /// Only the sockets of this node. A single server is one node with all its workers.
    pub fn local(self) -> Broadcast {
        self
    }

    /// Emits an event to the target. A tuple is several arguments; see [`args`](crate::args).
    ///
    /// It is encoded once and queued; it leaves with the current turn of each worker, whether or not anybody awaits what
    /// this returns. What one thread emits, to one socket or to many, reaches each receiver in the order in which it was
    /// emitted.
    ///
    /// To await it is the way to wait for a server that is behind; see [`Dispatched`].
    ///
    /// ```no_run
    /// # async fn example(io: fanfare::Io, prices: impl Iterator<Item = u32>) -> Result<(), fanfare::EmitError> {
    /// for price in prices {
    ///     io.to("ticker").emit("price", &price)?.await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`EmitError::Encode`] for arguments that have no JSON form or an event name that is reserved.
    /// [`EmitError::Closed`] before the server listens and after it has closed.
    pub fn emit<T: Serialize + ?Sized>(self, event: &str, args: &T) -> Result<Dispatched, EmitError> {
        let (io, target, packet) = self.prepare(event, args)?;
        io.on_any_shard(move |shard| shard.broadcast(&target, &packet, None))?;
        Ok(Dispatched(io))
    }

    /// Emits, and counts the sockets that it was queued for, over all workers. It is on its way when this returns,
    /// whether or not the count is awaited.
    ///
    /// The count comes when every worker has queued the packet, and from a worker that is behind only when that is less
    /// again, as with [`Dispatched`].
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    pub fn emit_and_count<T: Serialize + ?Sized>(self, event: &str, args: &T) -> Result<CountFuture, EmitError> {
        let (io, target, packet) = self.prepare(event, args)?;
        io.counted(move |shard, token| shard.broadcast(&target, &packet, Some(token)))
    }

    fn prepare<T: Serialize + ?Sized>(
        self,
        event: &str,
        args: &T,
    ) -> Result<(Io, Arc<Target>, Arc<Prepared>), EmitError> {
        let Broadcast { io, mut target } = self;
        let fate = io.first_settings().map_or(Fate::Kept, |settings| settle(settings, &mut target, event));
        let packet = prepare(&target.namespace, event, args, fate)?;
        Ok((io, Arc::new(target), packet))
    }

    /// Forgets what the rooms retain, on every worker: all events, or after [`conflate`](Self::conflate) those with this
    /// key. Without a room, what was emitted to everyone. See [`Feed::retain`](crate::Feed::retain).
    ///
    /// It has its place in the order of the emits: what the same thread emitted before is forgotten too.
    ///
    /// # Errors
    ///
    /// [`EmitError::Closed`].
    pub fn forget_retained(self) -> Result<(), EmitError> {
        let target = Arc::new(self.target);
        self.io.on_any_shard(move |shard| shard.forget(&target))
    }

    /// Makes all matching sockets join rooms (`socketsJoin`). It happens soon; nothing tells when.
    ///
    /// # Errors
    ///
    /// [`EmitError::Closed`].
    pub fn sockets_join(self, rooms: impl Rooms) -> Result<(), EmitError> {
        let rooms = names(rooms).into();
        let target = Arc::new(self.target);
        self.io.on_any_shard(move |shard| shard.sockets_join(&target, rooms))
    }

    /// Makes all matching sockets leave rooms (`socketsLeave`).
    ///
    /// # Errors
    ///
    /// [`EmitError::Closed`].
    pub fn sockets_leave(self, rooms: impl Rooms) -> Result<(), EmitError> {
        let rooms = names(rooms).into();
        let target = Arc::new(self.target);
        self.io.on_any_shard(move |shard| shard.sockets_leave(&target, rooms))
    }

    /// Disconnects all matching sockets (`disconnectSockets`), with `close` their whole connections.
    ///
    /// # Errors
    ///
    /// [`EmitError::Closed`].
    pub fn disconnect_sockets(self, close: bool) -> Result<(), EmitError> {
        let target = Arc::new(self.target);
        self.io.on_any_shard(move |shard| shard.disconnect_sockets(&target, close))
    }
}

impl Socket {
    /// A target: the sockets in these rooms, but not this one.
    pub fn to(&self, rooms: impl Rooms) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// The same as [`to`](Self::to). Socket.IO calls it `in`, which is a word of Rust.
    pub fn within(&self, rooms: impl Rooms) -> Broadcast {
        self.to(rooms)
    }

    /// A target: everyone in the namespace but this socket and whoever is in these rooms.
    pub fn except(&self, rooms: impl Rooms) -> Broadcast {
        self.broadcast().except(rooms)
    }

    /// A target: everyone in the namespace but this socket.
    pub fn broadcast(&self) -> Broadcast {
        Broadcast::new(self.io().clone(), self.namespace()).except(self.id())
    }

    /// A target: everyone on this node but this socket.
    pub fn local(&self) -> Broadcast {
        self.broadcast().local()
    }
}

/// What may become of an event to this target where a receiver is behind. If a rule of the namespace wants to know newer
/// events from older ones, the target gets a key.
fn settle(settings: &Settings, target: &mut Target, event: &str) -> Fate {
    let Target { namespace, rooms, key, .. } = target;
    let policy = settings.policy_for(namespace, rooms);
    let whole = |key: &str| feeds::whole_key(namespace, rooms.iter().map(|room| &**room), key);
    let fate = feeds::fate(policy, key.as_deref(), event, whole);
    let retains = || settings.feeds.iter().any(|feed| feed.retain && *feed.namespace == **namespace);
    if key.is_none() && (matches!(fate, Fate::Conflated(_)) || retains()) {
        *key = Some(event.into());
    }
    fate
}

pub(crate) fn prepare<T: Serialize + ?Sized>(
    namespace: &str,
    event: &str,
    args: &T,
    fate: Fate,
) -> Result<Arc<Prepared>, EmitError> {
    let encoded = args::encode_event(event, args)?;
    let packet = socketio::event(namespace, None, &encoded.data, &encoded.attachments);
    Ok(Arc::new(packet.with_fate(fate)))
}
