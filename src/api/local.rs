//! Local: what one worker keeps for the embedder, and how the shard's events reach handlers.
//!
//! One per worker thread, reached through a thread-local, because handles do not carry references. A handler runs while
//! nothing here is borrowed, so it may register others, emit, join, or disconnect.
//!
//! Invariants: an entry's socket has the key that the entry stands under.

use super::ack::{Ack, Answer};
use super::args;
use super::handler::{AnyEndHandler, AnyEventHandler, Incoming, Panicked, Rest, Step, guarded, run};
use super::io::{Io, Snapshot};
use super::namespace::{Behaviour, ConnectError};
use super::socket::{Socket, answer};
use crate::error::CloseReason;
use crate::shard::Shard;
use crate::shard::arena::{Beside, Key};
use crate::shard::drive::App;
use crate::shard::mail::{Acked, Counts, Event};
use crate::shard::sockets;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

struct Local {
    io: Io,
    shards: u16,
    snapshot: RefCell<Snapshot>,
    entries: RefCell<Beside<sockets::Socket, Entry>>,
    next_token: Cell<u64>,
    acks: RefCell<HashMap<u64, oneshot::Sender<Answer>>>,
    counts: RefCell<HashMap<u64, Counting>>,
}

/// A worker's side of a socket.
pub(crate) struct Entry {
    socket: Socket,
    behaviour: Arc<Behaviour>,
    handlers: Option<Box<Own>>,
}

/// Handlers of this socket alone.
#[derive(Default)]
pub(crate) struct Own {
    pub events: HashMap<Box<str>, Vec<AnyEventHandler>>,
    pub disconnecting: Vec<AnyEndHandler>,
    pub disconnect: Vec<AnyEndHandler>,
}

impl Entry {
    pub fn handlers_mut(&mut self) -> &mut Own {
        self.handlers.get_or_insert_default()
    }
}

/// A counted broadcast whose shards have not all answered.
struct Counting {
    missing: u16,
    counts: Counts,
    sender: oneshot::Sender<Counts>,
}

/// The application of a worker: gives the shard's events to the embedder's handlers.
pub(crate) struct Dispatch(Rc<Local>);

impl Dispatch {
    /// To be made on the worker's thread.
    pub fn new(io: Io, shards: u16) -> Dispatch {
        let local = Rc::new(Local {
            snapshot: RefCell::new(io.snapshot()),
            io,
            shards,
            entries: RefCell::default(),
            next_token: Cell::new(0),
            acks: RefCell::default(),
            counts: RefCell::default(),
        });
        LOCAL.set(Some(Rc::clone(&local)));
        Dispatch(local)
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        LOCAL.set(None);
    }
}

impl App for Dispatch {
    fn handle(&self, shard: &RefCell<Shard>, event: Event<'_>) {
        match event {
            Event::Received { socket, name, data, attachments, ack_id } => {
                let incoming = Incoming { data: &data, attachments: &attachments, ack_id, answered: None, last: true };
                self.0.on_event(socket, &name, incoming);
            }
            Event::Connect { socket, namespace, auth } => {
                self.0.on_connect(shard, socket, &namespace, auth.as_deref());
            }
            Event::Disconnected { socket, reason } => self.0.on_disconnected(shard, socket, reason),
            Event::Acked { token, outcome } => self.0.on_acked(token, outcome),
            Event::Counted { token, counts } => self.0.on_counted(token, counts),
            Event::Opened { .. } | Event::Message { .. } | Event::Closed { .. } => {
                unreachable!("a shard that carries Socket.IO has no bare messages")
            }
        }
    }
}

impl Local {
    fn on_connect(self: &Rc<Self>, shard: &RefCell<Shard>, key: Key<sockets::Socket>, name: &str, auth: Option<&str>) {
        self.io.refresh(&mut self.snapshot.borrow_mut());
        let known =
            self.snapshot.borrow().namespaces().get_key_value(name).map(|(n, b)| (Arc::clone(n), Arc::clone(b)));
        let Some((namespace, behaviour)) = known else {
            return shard.borrow_mut().refuse(key, r#"{"message":"Invalid namespace"}"#);
        };
        let socket = Socket::new(&self.io, &shard.borrow(), key, namespace, auth);
        let socket = socket.expect("a connecting socket is there");
        let entry = Entry { socket: socket.clone(), behaviour: Arc::clone(&behaviour), handlers: None };
        self.entries.borrow_mut().insert(key, entry);
        self.admit(socket, behaviour, 0);
    }

    /// Runs the middlewares from number `next` on, and then lets the socket in.
    fn admit(self: &Rc<Self>, socket: Socket, behaviour: Arc<Behaviour>, mut next: usize) {
        while let Some(middleware) = behaviour.middlewares.get(next) {
            next += 1;
            match guarded("middleware", || middleware(socket.clone())) {
                Ok(Step::Ready(Ok(()))) => {}
                Ok(Step::Ready(Err(refusal))) => return self.refuse(&socket, &refusal),
                Ok(Step::Pending(rest)) => {
                    let local = Rc::clone(self);
                    return run("middleware", rest, move |outcome| match outcome {
                        Ok(Ok(())) => local.admit(socket, behaviour, next),
                        Ok(Err(refusal)) => local.refuse(&socket, &refusal),
                        Err(Panicked) => local.refuse_after_panic(&socket),
                    });
                }
                Err(Panicked) => return self.refuse_after_panic(&socket),
            }
        }
        if socket.here(|shard, key| shard.accept(key)) != Some(true) {
            return self.forget(socket.key()); // it has gone meanwhile
        }
        for handler in &behaviour.connection {
            let rest = guarded("connection", || handler(socket.clone()));
            self.go_on("connection", &socket, rest);
        }
    }

    fn refuse_after_panic(&self, socket: &Socket) {
        socket.here(|shard, _| shard.counters.handler_panics += 1);
        self.refuse(socket, &ConnectError::new("internal error"));
    }

    fn refuse(&self, socket: &Socket, refusal: &ConnectError) {
        let payload = refusal.payload();
        socket.here(|shard, key| shard.refuse(key, &payload));
        self.forget(socket.key());
    }

    fn on_event(&self, key: Key<sockets::Socket>, name: &str, incoming: Incoming<'_>) {
        self.io.refresh(&mut self.snapshot.borrow_mut());
        let Some((socket, own)) = self.own_handlers_of(key, name) else { return };
        let registry = self.snapshot.borrow().registry();
        let shared = registry.namespaces.get(socket.namespace()).and_then(|it| it.events.get(name));
        // The namespace's handlers first, then the socket's own.
        let handlers = shared.into_iter().flatten().chain(&own);
        let count = handlers.clone().count();
        if count == 0 {
            return self.on_unhandled(&socket, name, incoming);
        }
        let answered = (count > 1 && incoming.ack_id.is_some()).then(Arc::default);
        for (at, handler) in handlers.enumerate() {
            let incoming = Incoming { answered: answered.as_ref(), last: at + 1 == count, ..incoming };
            match guarded("event", || handler(socket.clone(), incoming)) {
                Ok(Ok(rest)) => self.go_on("event", &socket, Ok(rest)),
                Ok(Err(error)) => refuse_arguments(&socket, name, &error),
                Err(panicked) => self.go_on("event", &socket, Err(panicked)),
            }
        }
    }

    fn on_unhandled(&self, socket: &Socket, name: &str, incoming: Incoming<'_>) {
        let shared = self.snapshot.borrow().namespaces().get(socket.namespace()).and_then(|it| it.unhandled.clone());
        let Some(handler) = shared else { return };
        let all = match args::decode_event(incoming.data, incoming.attachments) {
            Ok(all) => all,
            Err(error) => return refuse_arguments(socket, name, &error),
        };
        let done = guarded("event", || handler(socket.clone(), name, all, Ack::given(socket, incoming)));
        self.go_on("event", socket, done.map(|()| None));
    }

    fn own_handlers_of(&self, key: Key<sockets::Socket>, name: &str) -> Option<(Socket, Vec<AnyEventHandler>)> {
        let entries = self.entries.borrow();
        let entry = entries.get(key)?;
        let own = entry.handlers.as_ref().and_then(|own| own.events.get(name));
        Some((entry.socket.clone(), own.cloned().unwrap_or_default()))
    }

    fn on_disconnected(&self, shard: &RefCell<Shard>, key: Key<sockets::Socket>, reason: CloseReason) {
        let Some((socket, disconnecting, disconnect)) = self.end_handlers_of(key) else { return };
        self.run_all("disconnecting", disconnecting, &socket, reason);
        shard.borrow_mut().leave_all(key);
        self.run_all("disconnect", disconnect, &socket, reason);
        self.forget(key);
    }

    fn run_all(&self, what: &'static str, handlers: Vec<AnyEndHandler>, socket: &Socket, reason: CloseReason) {
        for handler in handlers {
            let rest = guarded(what, || handler(socket.clone(), reason));
            self.go_on(what, socket, rest);
        }
    }

    fn end_handlers_of(&self, key: Key<sockets::Socket>) -> Option<(Socket, Vec<AnyEndHandler>, Vec<AnyEndHandler>)> {
        let entries = self.entries.borrow();
        let entry = entries.get(key)?;
        let snapshot = self.snapshot.borrow();
        let shared = snapshot.namespaces().get(entry.socket.namespace()).unwrap_or(&entry.behaviour);
        let own = entry.handlers.as_deref();
        let all = |shared: &[AnyEndHandler], own: Option<&Vec<AnyEndHandler>>| {
            shared.iter().chain(own.into_iter().flatten()).cloned().collect()
        };
        let disconnecting = all(&shared.disconnecting, own.map(|own| &own.disconnecting));
        let disconnect = all(&shared.disconnect, own.map(|own| &own.disconnect));
        Some((entry.socket.clone(), disconnecting, disconnect))
    }

    /// Lets the rest of an async handler run. A panic costs the socket.
    fn go_on(&self, what: &'static str, socket: &Socket, rest: Result<Option<Rest<()>>, Panicked>) {
        let socket = socket.clone();
        let finish = move |outcome: Result<(), Panicked>| {
            if outcome.is_err() {
                socket.here(|shard, _| shard.counters.handler_panics += 1);
                socket.disconnect(false);
            }
        };
        match rest {
            Ok(None) => {}
            Ok(Some(rest)) => run(what, rest, finish),
            Err(panicked) => finish(Err(panicked)),
        }
    }

    fn on_acked(&self, token: u64, outcome: Acked<'_>) {
        let Some(sender) = self.acks.borrow_mut().remove(&token) else { return };
        // Nobody need be waiting any more.
        let _ = match outcome {
            Acked::Answered { data, attachments } => sender.send(answer(&data, attachments)),
            Acked::TimedOut => sender.send(Answer::TimedOut),
            Acked::Disconnected => return,
        };
    }

    fn on_counted(&self, token: u64, counts: Counts) {
        let mut all = self.counts.borrow_mut();
        let Some(counting) = all.get_mut(&token) else { return };
        counting.counts += counts;
        counting.missing -= 1;
        if counting.missing == 0 {
            let counting = all.remove(&token).expect("just found");
            // Nobody need be waiting any more.
            let _ = counting.sender.send(counting.counts);
        }
    }

    fn forget(&self, key: Key<sockets::Socket>) {
        let entry = self.entries.borrow_mut().remove(key);
        drop(entry); // an embedder's values may do anything when they are dropped: nothing is borrowed here
    }

    fn token(&self) -> u64 {
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        token
    }
}

fn refuse_arguments(socket: &Socket, event: &str, error: &args::DecodeError) {
    tracing::debug!(?socket, event, %error, "an event's arguments do not fit its handler");
    socket.here(|shard, _| shard.counters.arguments_refused += 1);
}

fn with<R>(act: impl FnOnce(&Rc<Local>) -> R) -> R {
    let local = LOCAL.with_borrow(|local| local.clone());
    act(&local.expect("only called on a worker's thread"))
}

/// Changes a socket's entry, on its worker's thread. A socket that has left has none.
pub(crate) fn change(socket: &Socket, change: impl FnOnce(&mut Entry)) {
    with(|local| {
        if let Some(entry) = local.entries.borrow_mut().get_mut(socket.key()) {
            change(entry);
        }
    });
}

/// A token for an ack that somebody waits for.
pub(crate) fn expect_ack(sender: oneshot::Sender<Answer>) -> u64 {
    with(|local| {
        let token = local.token();
        local.acks.borrow_mut().insert(token, sender);
        token
    })
}

/// The event of that token was not sent.
pub(crate) fn forget_ack(token: u64) {
    with(|local| drop(local.acks.borrow_mut().remove(&token)));
}

/// A token for a broadcast that somebody counts.
pub(crate) fn expect_counts(sender: oneshot::Sender<Counts>) -> u64 {
    with(|local| {
        let token = local.token();
        let counting = Counting { missing: local.shards, counts: Counts::default(), sender };
        local.counts.borrow_mut().insert(token, counting);
        token
    })
}
