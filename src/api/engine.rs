//! Engine: the Engine.IO layer alone, for those who want its sessions, transports and heartbeats without Socket.IO.
//!
//! ```no_run
//! use fanfare::engine::{Engine, Message};
//!
//! let engine = Engine::new().on_message(|conn, message: Message| conn.send(message));
//! engine.listen("127.0.0.1:3000").unwrap().wait();
//! ```

use super::handler::guarded;
use super::server::{self, Server, StartError};
use crate::error::CloseReason;
use crate::proto::{Id, Prepared};
use crate::settings::Settings;
use crate::shard::arena::Key;
use crate::shard::drive::App;
use crate::shard::mail::{Data, Event};
use crate::shard::session::{Handshake, Session};
use crate::shard::slack::Slack as _;
use crate::shard::{Carries, Shard};
use crate::worker::here;
use crate::worker::mailbox::Mailbox;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::ToSocketAddrs;
use std::sync::{Arc, OnceLock};

/// An Engine.IO message, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Binary(Bytes),
}

impl Message {
    fn prepare(&self) -> Arc<Prepared> {
        Arc::new(match self {
            Message::Text(text) => Prepared::message(text),
            Message::Binary(bytes) => Prepared::binary(bytes),
        })
    }
}

impl From<Data<'_>> for Message {
    fn from(data: Data<'_>) -> Message {
        match data {
            Data::Text(text) => Message::Text(text.into_owned()),
            Data::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(&bytes)),
        }
    }
}

/// An Engine.IO session, as an embedder's handle. Cheap to clone, usable from any thread or runtime.
#[derive(Clone)]
pub struct Conn(Arc<Inner>);

struct Inner {
    mailboxes: Arc<[Mailbox]>,
    shard: u16,
    key: Key<Session>,
    sid: Id,
    handshake: Handshake,
}

impl Conn {
    /// Its sid.
    pub fn id(&self) -> String {
        self.0.sid.to_string()
    }

    /// Path and query of the handshake request.
    pub fn url(&self) -> &str {
        self.0.handshake.url()
    }

    /// A header of the handshake request, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.handshake.header(name)
    }

    /// Queues a message. To a session that has ended it goes nowhere.
    pub fn send(&self, message: Message) {
        let packet = message.prepare();
        self.act(move |shard, key| {
            shard.send(key, &packet);
        });
    }

    /// Closes the session, after what is queued.
    pub fn close(&self) {
        self.act(|shard, key| shard.close(key, CloseReason::ForcedClose));
    }

    fn act(&self, act: impl FnOnce(&mut Shard, Key<Session>) + Send + 'static) {
        let Inner { mailboxes, shard, key, .. } = &*self.0;
        let key = *key;
        if here::shard_number(mailboxes) == Some(*shard) {
            here::with_shard(mailboxes, |shard| act(shard, key));
            return;
        }
        let away = Arc::clone(mailboxes);
        // A server that has closed has closed its sessions too.
        let _ = here::call_on(mailboxes, *shard, move || {
            here::with_shard(&away, |shard| act(shard, key));
        });
    }
}

type OnOpen = Arc<dyn Fn(Conn) + Send + Sync>;
type OnMessage = Arc<dyn Fn(Conn, Message) + Send + Sync>;
type OnClose = Arc<dyn Fn(Conn, CloseReason) + Send + Sync>;

/// An Engine.IO server under construction. Its handlers are sync and run on the session's worker.
#[derive(Clone, Default)]
pub struct Engine {
    settings: Settings,
    open: Option<OnOpen>,
    message: Option<OnMessage>,
    close: Option<OnClose>,
}

impl Engine {
    /// A server at `/engine.io`, with the default settings otherwise.
    pub fn new() -> Engine {
        Engine::with_settings(Settings { path: "/engine.io".into(), ..Settings::default() })
    }

    /// A server with these settings.
    pub fn with_settings(settings: Settings) -> Engine {
        Engine { settings, ..Engine::default() }
    }

    /// Calls `handler` for each session that opens.
    pub fn on_open(mut self, handler: impl Fn(Conn) + Send + Sync + 'static) -> Engine {
        self.open = Some(Arc::new(handler));
        self
    }

    /// Calls `handler` for each message, in order.
    pub fn on_message(mut self, handler: impl Fn(Conn, Message) + Send + Sync + 'static) -> Engine {
        self.message = Some(Arc::new(handler));
        self
    }

    /// Calls `handler` when a session has ended.
    pub fn on_close(mut self, handler: impl Fn(Conn, CloseReason) + Send + Sync + 'static) -> Engine {
        self.close = Some(Arc::new(handler));
        self
    }

    /// Starts the workers and listens.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn listen(self, address: impl ToSocketAddrs) -> Result<Server, StartError> {
        let settings = Arc::new(self.settings.clone());
        let mailboxes = Arc::new(OnceLock::new());
        let running = Arc::clone(&mailboxes);
        let app = move |_| {
            move |_| Sessions { engine: self.clone(), mailboxes: Arc::clone(&mailboxes), conns: RefCell::default() }
        };
        let routes = server::nothing_else();
        server::start_app(&settings, address, routes, Carries::Messages, app, |mailboxes, _| {
            running.set(mailboxes).is_ok()
        })
    }
}

/// The application of a worker.
struct Sessions {
    engine: Engine,
    mailboxes: Arc<OnceLock<Arc<[Mailbox]>>>,
    conns: RefCell<HashMap<Key<Session>, Conn>>,
}

impl Sessions {
    fn opened(&self, shard: &RefCell<Shard>, key: Key<Session>) -> Option<Conn> {
        let shard = shard.borrow();
        let session = shard.session(key)?;
        let conn = Conn(Arc::new(Inner {
            mailboxes: Arc::clone(self.mailboxes.get()?),
            shard: shard.number(),
            key,
            sid: session.id,
            handshake: session.handshake.clone(),
        }));
        self.conns.borrow_mut().insert(key, conn.clone());
        Some(conn)
    }

    fn conn(&self, key: Key<Session>) -> Option<Conn> {
        self.conns.borrow().get(&key).cloned()
    }

    fn forget(&self, key: Key<Session>) -> Option<Conn> {
        let mut conns = self.conns.borrow_mut();
        let conn = conns.remove(&key);
        conns.trim();
        conn
    }

    /// Calls a handler; a panic in it costs the session.
    fn call(&self, conn: Option<Conn>, handler: impl FnOnce(Conn)) {
        let Some(conn) = conn else { return };
        if guarded("engine", || handler(conn.clone())).is_err() {
            conn.close();
        }
    }
}

impl App for Sessions {
    fn handle(&self, shard: &RefCell<Shard>, event: Event<'_>) {
        match event {
            Event::Opened { session } => {
                let conn = self.opened(shard, session);
                if let Some(open) = &self.engine.open {
                    self.call(conn, |conn| open(conn));
                }
            }
            Event::Message { session, data } => {
                if let Some(message) = &self.engine.message {
                    self.call(self.conn(session), |conn| message(conn, data.into()));
                }
            }
            Event::Closed { session, reason } => {
                let conn = self.forget(session);
                if let Some(close) = &self.engine.close {
                    self.call(conn, |conn| close(conn, reason));
                }
            }
            _ => unreachable!("a shard that carries bare messages has no sockets"),
        }
    }
}
