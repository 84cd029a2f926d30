//! Sockets: Socket.IO on top of a session. CONNECT and its answer, events, acks, leaving.
//!
//! A socket is a client's place in one namespace. The shard knows no namespace in advance: a CONNECT becomes an event,
//! and whoever is above answers it with [`Shard::accept`] or [`Shard::refuse`], at once or after an async middleware.
//!
//! Invariants: a session has at most one socket in a namespace that is connecting or connected.
//! Limits:     `namespaces_per_session_max`, `rooms_per_socket_max` (Settings); 10 attachments a packet (proto).

use super::arena::Key;
use super::mail::{Acked, Event};
use super::rooms::{Memberships, Namespace};
use super::session::{Session, State};
use super::slack::Slack as _;
use super::wheel::FOREVER;
use super::{Shard, Timer};
use crate::error::CloseReason;
use crate::proto::{Id, Prepared, socketio};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Socket {
    pub id: Id,
    pub session: Key<Session>,
    /// Slot of its namespace.
    pub namespace: u32,
    pub state: SocketState,
    /// Whether it left the room named by its own id.
    pub left_own_room: bool,
    /// The last broadcast that has dealt with this socket: a socket in two target rooms receives once.
    pub stamp: u64,
    /// Its place in `Namespace::connected`.
    pub place: u32,
    next_ack_id: u32,
    pub rooms: Memberships,
    /// Tokens by ack id. Ordered, so that they end in the order in which they were asked for.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 24 for the many sockets that wait for nothing")]
    acks: Option<Box<BTreeMap<u32, u64>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketState {
    /// Its CONNECT is not answered yet. It may emit and join; no broadcast reaches it.
    Connecting,
    Connected,
    /// Left. Its rooms are kept for the `disconnecting` handlers, at most until the turn ends.
    Closed,
}

/// Why an emit or a join did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsent {
    Closed,
    TooManyRooms,
}

/// What became of an emit to one socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Emitted {
    Queued,
    /// It was volatile, and the client not ready.
    Dropped,
}

impl Shard {
    /// One Socket.IO packet of a session, as far as it is an event.
    pub(super) fn on_packet<'b>(
        &mut self,
        session: Key<Session>,
        packet: socketio::Packet<'b>,
        attachments: Vec<Bytes>,
    ) -> Option<Event<'b>> {
        use socketio::Packet;
        match packet {
            Packet::Connect { namespace, auth } => self.on_connect(session, namespace, auth),
            Packet::Event { namespace, ack_id, name, data, .. } => {
                let socket = self.joined(session, namespace)?;
                self.counters.received += 1;
                Some(Event::Received { socket, name, data: Cow::Borrowed(data), attachments, ack_id })
            }
            Packet::Ack { namespace, ack_id, data, .. } => {
                let socket = self.joined(session, namespace)?;
                let token = self.take_ack(socket, u32::try_from(ack_id).ok()?)?;
                Some(Event::Acked { token, outcome: Acked::Answered { data: Cow::Borrowed(data), attachments } })
            }
            Packet::Disconnect { namespace } => {
                let socket = self.joined(session, namespace)?;
                self.begin_disconnect(socket, CloseReason::ClientNamespaceDisconnect);
                None
            }
            // A client has no business refusing anybody.
            Packet::ConnectError { .. } => self.broken_packet(session),
        }
    }

    fn on_connect<'b>(&mut self, key: Key<Session>, namespace: &'b str, auth: Option<&'b str>) -> Option<Event<'b>> {
        let session = self.sessions.get(key)?;
        let twice = self.socket_in(session, namespace).is_some();
        if twice || session.sockets.len() >= self.settings.namespaces_per_session_max || self.sockets.is_full() {
            self.counters.protocol_errors += 1;
            self.close(key, CloseReason::ForcedClose);
            return None;
        }
        let namespace_slot = self.namespace_slot(namespace);
        let (number, rng) = (self.number, &mut self.rng);
        let socket = self.sockets.insert_with(|socket| Socket {
            id: Id::new(number, socket.slot(), rand::RngExt::random(rng)),
            session: key,
            namespace: namespace_slot,
            state: SocketState::Connecting,
            left_own_room: false,
            stamp: 0,
            place: 0,
            next_ack_id: 0,
            rooms: Memberships::default(),
            acks: None,
        });
        self.sessions.get_mut(key)?.sockets.push(socket.slot());
        Some(Event::Connect { socket, namespace: Cow::Borrowed(namespace), auth: auth.map(Cow::Borrowed) })
    }

    /// Answers a CONNECT: the client is in. `false`: it has gone meanwhile.
    pub fn accept(&mut self, key: Key<Socket>) -> bool {
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.state == SocketState::Connecting) else {
            return false;
        };
        let namespace = self.namespaces.at_mut(socket.namespace).expect("a socket's namespace exists");
        socket.state = SocketState::Connected;
        socket.place = namespace.connected.len() as u32;
        namespace.connected.push(key.slot());
        let answer = socketio::connect(&namespace.name, &format!(r#"{{"sid":"{}"}}"#, socket.id));
        let session = socket.session;
        self.push(session, &Arc::new(answer));
        if let Some(session) = self.sessions.get_mut(session) {
            session.joined = true;
        }
        self.catch_up_all(key);
        true
    }

    /// Answers a CONNECT: the client stays out. `error` is a JSON object with `message` and perhaps `data`.
    pub fn refuse(&mut self, key: Key<Socket>, error: &str) {
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.state == SocketState::Connecting) else {
            return;
        };
        let (session, namespace) = (socket.session, socket.namespace);
        socket.state = SocketState::Closed;
        let answer = socketio::connect_error(&self.namespace(namespace).name, error);
        self.push(session, &Arc::new(answer));
        self.forget_acks(key);
        self.detach(key);
    }

    /// Whether the socket is in its namespace and can be emitted to.
    pub fn is_connected(&self, key: Key<Socket>) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.state == SocketState::Connected)
    }

    /// Queues a packet to one socket.
    pub fn emit(&mut self, key: Key<Socket>, packet: &Arc<Prepared>, volatile: bool) -> Result<Emitted, Unsent> {
        let socket =
            self.sockets.get(key).filter(|socket| socket.state != SocketState::Closed).ok_or(Unsent::Closed)?;
        let session = socket.session;
        if volatile && !self.is_ready(session) {
            self.counters.volatile_dropped += 1;
            return Ok(Emitted::Dropped);
        }
        if self.is_turned_away(session, packet) {
            return Ok(Emitted::Dropped);
        }
        self.push(session, packet);
        Ok(Emitted::Queued)
    }

    /// A fresh ack id of this socket. Its answer, the deadline or the end comes as `Event::Acked` with the token.
    pub fn expect_ack(&mut self, key: Key<Socket>, token: u64, timeout_ms: Option<u64>) -> Result<u64, Unsent> {
        let socket = self.sockets.get_mut(key).filter(|socket| socket.state != SocketState::Closed);
        let socket = socket.ok_or(Unsent::Closed)?;
        let ack_id = socket.next_ack_id;
        socket.next_ack_id = socket.next_ack_id.wrapping_add(1);
        socket.acks.get_or_insert_default().insert(ack_id, token);
        if let Some(timeout) = timeout_ms {
            self.wake_at(self.now + timeout.min(FOREVER), Timer::Ack(key, ack_id));
        }
        Ok(u64::from(ack_id))
    }

    pub(super) fn ack_timed_out(&mut self, key: Key<Socket>, ack_id: u32) {
        if let Some(token) = self.take_ack(key, ack_id) {
            self.events.push_back(Event::Acked { token, outcome: Acked::TimedOut });
        }
    }

    fn take_ack(&mut self, key: Key<Socket>, ack_id: u32) -> Option<u64> {
        let socket = self.sockets.get_mut(key)?;
        let acks = socket.acks.as_mut()?;
        let token = acks.remove(&ack_id);
        if acks.is_empty() {
            socket.acks = None;
        }
        token
    }

    /// `socket.disconnect(close)`: says goodbye in this namespace, or in all and closes the session.
    pub fn disconnect(&mut self, key: Key<Socket>, close: bool) {
        let Some(socket) = self.sockets.get(key).filter(|socket| socket.state == SocketState::Connected) else {
            return;
        };
        let session_key = socket.session;
        let leaving: Vec<_> = match self.sessions.get(session_key) {
            Some(session) if close => session.sockets.iter().filter_map(|&slot| self.sockets.key_at(slot)).collect(),
            _ => vec![key],
        };
        for key in leaving.into_iter().filter(|&key| self.is_connected(key)).collect::<Vec<_>>() {
            let namespace = self.sockets.get(key).expect("is_connected").namespace;
            let goodbye = socketio::disconnect(&self.namespace(namespace).name);
            self.push(session_key, &Arc::new(goodbye));
            self.begin_disconnect(key, CloseReason::ServerNamespaceDisconnect);
        }
        if close {
            self.close(session_key, CloseReason::ForcedClose);
        }
    }

    /// The socket is out, from this moment: it receives nothing more, and is freed when the turn ends.
    pub(super) fn begin_disconnect(&mut self, key: Key<Socket>, reason: CloseReason) {
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.state != SocketState::Closed) else {
            return;
        };
        let was = std::mem::replace(&mut socket.state, SocketState::Closed);
        let (namespace, place) = (socket.namespace, socket.place as usize);
        self.forget_acks(key);
        if was == SocketState::Connected {
            let connected = &mut self.namespaces.at_mut(namespace).expect("in use").connected;
            connected.swap_remove(place);
            connected.trim();
            if let Some(&moved) = connected.get(place) {
                self.sockets.at_mut(moved).expect("connected, so alive").place = place as u32;
            }
            self.counters.disconnected(reason);
            self.events.push_back(Event::Disconnected { socket: key, reason });
        }
        self.detach(key);
    }

    /// Nobody will answer any more. The application hears it in the order in which it asked.
    fn forget_acks(&mut self, key: Key<Socket>) {
        let acks = self.sockets.get_mut(key).expect("the caller has it").acks.take();
        for token in acks.into_iter().flat_map(|acks| acks.into_values()) {
            self.events.push_back(Event::Acked { token, outcome: Acked::Disconnected });
        }
    }

    /// Takes the socket off its session's list and marks it for burial.
    fn detach(&mut self, key: Key<Socket>) {
        let session = self.sockets.get(key).expect("the caller has it").session;
        if let Some(session) = self.sessions.get_mut(session) {
            session.sockets.retain(|slot| *slot != key.slot());
        }
        self.buried_sockets.push(key);
    }

    pub(super) fn bury_socket(&mut self, key: Key<Socket>) {
        let slot = self.sockets.get(key).expect("buried once").namespace;
        let namespace = self.namespaces.at_mut(slot).expect("in use");
        namespace.leave_all(key.slot(), &mut self.sockets);
        namespace.users -= 1;
        if namespace.users == 0 {
            self.namespace_slots.remove(&namespace.name);
            self.namespace_slots.trim();
            let unused = self.namespaces.key_at(slot).expect("in use");
            self.namespaces.remove(unused);
        }
        self.sockets.remove(key);
    }

    /// The socket that this packet is for. A namespace that was never joined, or not yet, ends the session.
    fn joined(&mut self, key: Key<Session>, namespace: &str) -> Option<Key<Socket>> {
        let session = self.sessions.get(key).filter(|session| session.state == State::Open)?;
        let socket = self.socket_in(session, namespace).filter(|&socket| self.is_connected(socket));
        if socket.is_none() {
            self.counters.protocol_errors += 1;
            self.close(key, CloseReason::ForcedClose);
        }
        socket
    }

    fn socket_in(&self, session: &Session, namespace: &str) -> Option<Key<Socket>> {
        let &namespace = self.namespace_slots.get(namespace)?;
        let slots = session.sockets.iter().copied();
        slots
            .filter_map(|slot| self.sockets.key_at(slot))
            .find(|&key| self.sockets.get(key).is_some_and(|socket| socket.namespace == namespace))
    }

    /// The name of a socket's namespace.
    pub fn namespace_of(&self, key: Key<Socket>) -> Option<&str> {
        self.sockets.get(key).map(|socket| &*self.namespace(socket.namespace).name)
    }

    pub(super) fn namespace(&self, slot: u32) -> &Namespace {
        self.namespaces.at(slot).expect("a socket's namespace exists")
    }

    fn namespace_slot(&mut self, name: &str) -> u32 {
        let slot = match self.namespace_slots.get(name) {
            Some(&slot) => slot,
            None => {
                // As many as there are sockets at most, and there is room for one more of those.
                let slot = self.namespaces.insert_with(|_| Namespace::new(name)).slot();
                self.namespace_slots.insert(name.into(), slot);
                slot
            }
        };
        self.namespaces.at_mut(slot).expect("just made or found").users += 1;
        slot
    }
}
