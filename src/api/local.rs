//! Local: what one worker keeps for the embedder, and how the shard's events reach handlers.
//!
//! One per worker thread, reached through a thread-local, because handles do not carry references. A handler runs while
//! nothing here is borrowed, so it may register others, emit, join, or disconnect.
//!
//! A handle is made for a handler, and kept as long as the embedder holds it, or has said something that only it knows. Of
//! most clients nothing is kept here: when the next event comes, the shard tells who they are.
//!
//! Invariants: an entry's socket has the key that the entry stands under; a connected socket of which the embedder holds a
//!             handle has an entry, so there is never a second handle that knows less.

use super::ack::{Ack, Answer};
use super::args;
use super::handler::{
    AnyEndHandler, AnyEventHandler, AnyPressureHandler, Incoming, Panicked, Rest, Step, guarded, run,
};
use super::io::{Io, Snapshot};
use super::namespace::{Behaviour, ConnectError};
use super::socket::{Place, Pressure, Socket, answer};
use crate::error::CloseReason;
use crate::shard::Shard;
use crate::shard::arena::{Beside, Key};
use crate::shard::drive::App;
use crate::shard::mail::{Acked, Counts, Event};
use crate::shard::slack::Slack as _;
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
    places: RefCell<HashMap<Arc<str>, Arc<Place>>>,
    entries: RefCell<Beside<sockets::Socket, Entry>>,
    next_token: Cell<u64>,
    acks: RefCell<HashMap<u64, oneshot::Sender<Answer>>>,
    counts: RefCell<HashMap<u64, Counting>>,
}

/// A worker's side of a socket, as long as there is more to keep than its shard knows.
pub(crate) struct Entry {
    socket: Socket,
    handlers: Option<Box<Own>>,
}

/// Handlers of this socket alone.
#[derive(Default)]
pub(crate) struct Own {
    pub events: HashMap<Box<str>, Vec<AnyEventHandler>>,
    pub disconnecting: Vec<AnyEndHandler>,
    pub pressure: Vec<AnyPressureHandler>,
    pub disconnect: Vec<AnyEndHandler>,
}

impl Entry {
    pub fn handlers_mut(&mut self) -> &mut Own {
        self.handlers.get_or_insert_default()
    }

    fn is_needed(&mut self) -> bool {
        self.handlers.is_some() || !self.socket.is_replaceable()
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
            places: RefCell::default(),
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
                self.0.on_event(shard, socket, &name, incoming);
                self.0.tidy(socket);
            }
            Event::Connect { socket, namespace, auth } => {
                self.0.on_connect(shard, socket, &namespace, auth.as_deref());
                self.0.tidy(socket);
            }
            Event::Disconnected { socket, reason } => self.0.on_disconnected(shard, socket, reason),
            Event::Pressure { socket, high } => {
                self.0.on_pressure(shard, socket, if high { Pressure::High } else { Pressure::Cleared });
                self.0.tidy(socket);
            }
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
        let Some(behaviour) = self.snapshot.borrow().namespaces().get(name).map(Arc::clone) else {
            return shard.borrow_mut().refuse(key, r#"{"message":"Invalid namespace"}"#);
        };
        let socket = self.introduce(&shard.borrow(), key, auth).expect("a connecting socket is there");
        self.admit(socket, behaviour, 0);
    }

    /// The handle of a socket that is connecting or connected: the one that is kept, or a new one.
    fn handle(&self, shard: &RefCell<Shard>, key: Key<sockets::Socket>) -> Option<Socket> {
        let kept = self.entries.borrow().get(key).map(|entry| entry.socket.clone());
        kept.or_else(|| self.introduce(&shard.borrow(), key, None))
    }

    fn introduce(&self, shard: &Shard, key: Key<sockets::Socket>, auth: Option<&str>) -> Option<Socket> {
        let place = self.place(shard, shard.namespace_of(key)?);
        let socket = Socket::new(place, shard, key, auth)?;
        self.entries.borrow_mut().insert(key, Entry { socket: socket.clone(), handlers: None });
        Some(socket)
    }

    fn place(&self, shard: &Shard, namespace: &str) -> Arc<Place> {
        let mut places = self.places.borrow_mut();
        if let Some(place) = places.get(namespace) {
            return Arc::clone(place);
        }
        let namespace = Arc::<str>::from(namespace);
        let place = Place { io: self.io.clone(), shard: shard.number(), namespace: Arc::clone(&namespace) };
        Arc::clone(places.entry(namespace).or_insert(Arc::new(place)))
    }

    /// Forgets the handle of a socket if nobody could tell it from a new one.
    fn tidy(&self, key: Key<sockets::Socket>) {
        let mut entries = self.entries.borrow_mut();
        if entries.get_mut(key).is_some_and(|entry| !entry.is_needed()) {
            entries.remove(key);
        }
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
                    let key = socket.key();
                    return run("middleware", rest, move |outcome| {
                        match outcome {
                            Ok(Ok(())) => local.admit(socket, behaviour, next),
                            Ok(Err(refusal)) => local.refuse(&socket, &refusal),
                            Err(Panicked) => local.refuse_after_panic(&socket),
                        }
                        local.tidy(key);
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

    fn on_event(&self, shard: &RefCell<Shard>, key: Key<sockets::Socket>, name: &str, incoming: Incoming<'_>) {
        self.io.refresh(&mut self.snapshot.borrow_mut());
        let Some(socket) = self.handle(shard, key) else { return };
        let own = self.own_handlers_of(key, name);
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

    fn own_handlers_of(&self, key: Key<sockets::Socket>, name: &str) -> Vec<AnyEventHandler> {
        let entries = self.entries.borrow();
        let own = entries.get(key).and_then(|entry| entry.handlers.as_ref()?.events.get(name));
        own.cloned().unwrap_or_default()
    }

    fn on_disconnected(&self, shard: &RefCell<Shard>, key: Key<sockets::Socket>, reason: CloseReason) {
        let Some(socket) = self.handle(shard, key) else { return };
        let (disconnecting, disconnect) = self.end_handlers_of(&socket);
        self.run_all("disconnecting", disconnecting, &socket, reason);
        shard.borrow_mut().leave_all(key);
        self.run_all("disconnect", disconnect, &socket, reason);
        self.forget(key);
    }

    fn on_pressure(&self, shard: &RefCell<Shard>, key: Key<sockets::Socket>, pressure: Pressure) {
        let mut handlers = Vec::new();
        if let Some(namespace) = shard.borrow().namespace_of(key) {
            let snapshot = self.snapshot.borrow();
            handlers.extend(snapshot.namespaces().get(namespace).iter().flat_map(|it| &it.pressure).cloned());
        }
        let own = |entry: &Entry| entry.handlers.as_ref().map(|own| own.pressure.clone());
        handlers.extend(self.entries.borrow().get(key).and_then(own).into_iter().flatten());
        // Thousands may fall behind together, and usually nobody asks.
        if handlers.is_empty() {
            return;
        }
        let Some(socket) = self.handle(shard, key) else { return };
        for handler in handlers {
            let rest = guarded("pressure", || handler(socket.clone(), pressure));
            self.go_on("pressure", &socket, rest);
        }
    }

    fn run_all(&self, what: &'static str, handlers: Vec<AnyEndHandler>, socket: &Socket, reason: CloseReason) {
        for handler in handlers {
            let rest = guarded(what, || handler(socket.clone(), reason));
            self.go_on(what, socket, rest);
        }
    }

    fn end_handlers_of(&self, socket: &Socket) -> (Vec<AnyEndHandler>, Vec<AnyEndHandler>) {
        let (snapshot, entries) = (self.snapshot.borrow(), self.entries.borrow());
        let shared = snapshot.namespaces().get(socket.namespace());
        let own = entries.get(socket.key()).and_then(|entry| entry.handlers.as_deref());
        let all = |shared: Option<&Vec<AnyEndHandler>>, own: Option<&Vec<AnyEndHandler>>| {
            shared.into_iter().chain(own).flatten().cloned().collect()
        };
        let disconnecting = all(shared.map(|it| &it.disconnecting), own.map(|own| &own.disconnecting));
        let disconnect = all(shared.map(|it| &it.disconnect), own.map(|own| &own.disconnect));
        (disconnecting, disconnect)
    }

    /// Lets the rest of an async handler run. A panic costs the socket.
    fn go_on(&self, what: &'static str, socket: &Socket, rest: Result<Option<Rest<()>>, Panicked>) {
        let socket = socket.clone();
        let finish = move |outcome: Result<(), Panicked>| {
            if outcome.is_err() {
                socket.here(|shard, _| shard.counters.handler_panics += 1);
                socket.disconnect(false);
            }
            let key = socket.key();
            drop(socket);
            if let Some(local) = LOCAL.with_borrow(Option::clone) {
                local.tidy(key);
            }
        };
        match rest {
            Ok(None) => {}
            Ok(Some(rest)) => run(what, rest, finish),
            Err(panicked) => finish(Err(panicked)),
        }
    }

    fn on_acked(&self, token: u64, outcome: Acked<'_>) {
        let Some(sender) = self.take_ack(token) else { return };
        // Nobody need be waiting any more.
        let _ = match outcome {
            Acked::Answered { data, attachments } => sender.send(answer(&data, attachments)),
            Acked::TimedOut => sender.send(Answer::TimedOut),
            Acked::Disconnected => return,
        };
    }

    fn take_ack(&self, token: u64) -> Option<oneshot::Sender<Answer>> {
        let mut acks = self.acks.borrow_mut();
        let sender = acks.remove(&token);
        acks.trim();
        sender
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
    with(|local| drop(local.take_ack(token)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::websocket::{Opcode, put_frame};
    use crate::settings::Settings;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::mpsc;

    /// A client of `/` over a WebSocket, as bytes.
    struct Client(TcpStream);

    impl Client {
        fn new(port: u16, connect: &str) -> Client {
            let mut client = Client(TcpStream::connect(("127.0.0.1", port)).unwrap());
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
            let head = format!("{upgrade}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
            write!(client.0, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: here\r\n{head}").unwrap();
            client.send(connect);
            client.read_until("40{");
            client
        }

        fn send(&mut self, text: &str) {
            let mut frame = Vec::new();
            put_frame(&mut frame, Opcode::Text, text.as_bytes(), Some([0; 4]));
            self.0.write_all(&frame).unwrap();
        }

        fn read_until(&mut self, text: &str) {
            let (mut heard, mut byte) = (Vec::new(), [0]);
            while !heard.ends_with(text.as_bytes()) {
                self.0.read_exact(&mut byte).unwrap();
                heard.extend(byte);
            }
        }

        /// Has everything handled that was sent before.
        fn ask(&mut self, event: &str) {
            self.send(&format!(r#"420["{event}"]"#));
            self.read_until("430[]");
        }
    }

    /// How many handles the only worker keeps.
    fn kept(io: &Io) -> usize {
        let (sender, answer) = mpsc::channel();
        let count = |local: &Rc<Local>| (0..100).filter(|&slot| local.entries.borrow().key_at(slot).is_some()).count();
        io.call_on(0, move || sender.send(with(count)).unwrap()).unwrap();
        answer.recv().unwrap()
    }

    #[test]
    fn of_an_idle_client_no_handle_is_kept_unless_it_knows_something() {
        let io = Io::with_settings(Settings { workers: 1, ..Settings::default() });
        io.of("/")
            .on_event("plain", |_: Socket, (): (), ack: Ack| _ = ack.send(&()))
            .on_event("keep", |socket: Socket, (): (), ack: Ack| {
                socket.insert(socket.get::<u32>().map_or(1, |before| *before + 1));
                _ = ack.send(&());
            })
            .on_event("on", |socket: Socket, (): (), ack: Ack| {
                socket.on("own", |_: Socket, (): (), ack: Ack| _ = ack.send(&()));
                _ = ack.send(&());
            });
        let server = io.listen("127.0.0.1:0").unwrap();
        let port = server.address().port();
        let mut clients: Vec<_> = (0..4).map(|_| Client::new(port, "40")).collect();
        clients.iter_mut().for_each(|client| client.ask("plain"));
        assert_eq!(kept(&io), 0);
        clients[1].ask("keep");
        clients[1].ask("keep");
        assert_eq!(kept(&io), 1, "a value");
        clients[2].ask("on");
        clients[2].ask("own");
        assert_eq!(kept(&io), 2, "a handler of its own");
        let authenticated = Client::new(port, r#"40{"token":"t"}"#);
        assert_eq!(kept(&io), 3, "what the client said at its CONNECT");
        clients[3].ask("plain");
        drop((clients, authenticated));
        while kept(&io) > 0 {
            std::thread::yield_now();
        }
        server.close();
    }
}
