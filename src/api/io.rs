//! Io: the server, as an embedder's handle.

use super::broadcast::{Broadcast, Rooms};
use super::handler::SocketHandler;
use super::namespace::{Behaviour, Namespace, Registry};
use super::server::{self, Server, StartError};
use super::{CountFuture, Dispatched, EmitError, Reload, local};
use crate::settings::{Settings, SettingsError};
use crate::shard::Shard;
use crate::worker::admission::Admission;
use crate::worker::here;
use crate::worker::mailbox::{Mailbox, Post};
use serde::Serialize;
use std::collections::HashMap;
use std::net::ToSocketAddrs;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A Socket.IO server (`io` in Socket.IO's examples). Cheap to clone, usable from any thread or runtime.
///
/// ```no_run
/// use fanfare::{Io, Socket};
///
/// let io = Io::new();
/// io.on_connection(|socket: Socket| {
///     socket.join("everybody").unwrap();
/// });
/// let server = io.listen("127.0.0.1:3000").unwrap();
/// server.wait();
/// ```
#[derive(Clone)]
pub struct Io(Arc<Inner>);

struct Inner {
    /// Replaced by a reload. Workers have their own copies.
    settings: Mutex<Arc<Settings>>,
    registry: Mutex<Registry>,
    /// Rises with every change of the registry. Read for every event, written almost never.
    version: AtomicU64,
    running: OnceLock<Running>,
}

struct Running {
    mailboxes: Arc<[Mailbox]>,
    admission: Arc<Admission>,
    /// As they were when it began to listen: for what a reload does not change, read at each emit without a lock.
    first_settings: Arc<Settings>,
}

/// A worker's copy of the registry.
pub(crate) struct Snapshot {
    version: u64,
    /// Counted by this worker alone, so that an event touches no count that other cores touch.
    registry: Rc<Registry>,
}

impl Snapshot {
    /// The registry, to be read while nothing is borrowed.
    pub fn registry(&self) -> Rc<Registry> {
        Rc::clone(&self.registry)
    }

    pub fn namespaces(&self) -> &HashMap<Arc<str>, Arc<Behaviour>> {
        &self.registry.namespaces
    }
}

impl Default for Io {
    fn default() -> Io {
        Io::new()
    }
}

impl Io {
    /// A server with the default settings.
    pub fn new() -> Io {
        Io::with_settings(Settings::default())
    }

    /// A server with these settings. They are checked when it listens.
    pub fn with_settings(settings: Settings) -> Io {
        let io = Io(Arc::new(Inner {
            settings: Mutex::new(Arc::new(settings)),
            registry: Mutex::default(),
            version: AtomicU64::new(0),
            running: OnceLock::new(),
        }));
        io.of("/"); // the main namespace always exists
        io
    }

    /// The settings in effect.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.lock().expect("nothing panics while it holds this lock"))
    }

    /// Other settings for a server that runs, without touching a connection. Each worker takes them between two turns;
    /// whoever has to know that all have awaits what is returned. It names the fields of [`Settings`] that need a restart and
    /// were to change: those keep their values. They are what live sessions were told at their handshake, and what goes with
    /// it (`ping_interval`, `ping_spread`, `ping_timeout`, `payload_bytes_max`), where their requests go and how they begin
    /// (`path`, `add_trailing_slash`, `transports`, `proxy_protocol`), and what workers and packets are made with (`workers`,
    /// `fd_tables`, `io`, `pin`, `accept_queue`, `policy`).
    ///
    /// Limits and timeouts hold for what comes next: nobody leaves a room or loses a place because of a lower limit. A limit
    /// on connections that comes late counts those who are there, but those of an address only from then on. What one client
    /// may say holds for its next packet.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] when one of them cannot be; then nothing changes.
    pub fn reload(&self, settings: Settings) -> Result<Reload, SettingsError> {
        settings.check()?;
        let (takes, taken) = mpsc::channel(1);
        let mut current = self.0.settings.lock().expect("nothing panics while it holds this lock");
        let Some(running) = self.0.running.get() else {
            *current = Arc::new(settings);
            return Ok(Reload { kept: Vec::new(), taken });
        };
        let (settings, kept) = current.reloaded(settings);
        running.admission.set_limits(&settings);
        *current = Arc::new(settings);
        drop(current);
        for shard in 0..running.mailboxes.len() as u16 {
            let (io, takes) = (self.clone(), takes.clone());
            // The latest, if two reloads cross. A server that has closed needs none.
            let _ = self.on_shard(shard, move |shard| {
                shard.set_settings(io.settings());
                drop(takes);
            });
        }
        Ok(Reload { kept, taken })
    }

    /// A namespace, made if it is not there yet. A missing leading slash is added.
    ///
    /// # Panics
    ///
    /// When the name contains a comma: packets could not name it (Socket.IO v5, "packet encoding").
    pub fn of(&self, name: &str) -> Namespace {
        let name: Arc<str> = if name.starts_with('/') { name.into() } else { format!("/{name}").into() };
        assert!(!name.contains(','), "the namespace {name:?} cannot be named in a packet, because of its comma");
        self.change_namespace(&name, |_| {});
        Namespace::new(self.clone(), name)
    }

    /// Starts the workers and listens. Returns at once; [`Server::wait`] waits for the end.
    ///
    /// Paths that are not Socket.IO's are answered with 404; see [`listen_with`](Self::listen_with).
    ///
    /// # Errors
    ///
    /// [`StartError`], for example when the address is taken.
    pub fn listen(&self, address: impl ToSocketAddrs) -> Result<Server, StartError> {
        server::start(self, address, server::nothing_else())
    }

    /// Listens, with a service for all paths that are not Socket.IO's: an `axum` router, or any other `tower` service
    /// on hyper's requests. It runs on the workers' threads: what it does there should be short.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn listen_with<S, B>(&self, address: impl ToSocketAddrs, service: S) -> Result<Server, StartError>
    where
        S: tower_service::Service<http::Request<hyper::body::Incoming>, Response = http::Response<B>>,
        S: Clone + Send + Sync + 'static,
        S::Error: std::fmt::Display,
        S::Future: 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        server::start(self, address, server::routes(service))
    }

    /// Calls `handler` with each socket that connects to the main namespace (`io.on("connection", …)`).
    pub fn on_connection<M>(&self, handler: impl SocketHandler<M>) -> &Self {
        self.of("/").on_connection(handler);
        self
    }

    /// Emits to every socket of the main namespace. See [`Broadcast::emit`].
    pub fn emit<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<Dispatched, EmitError> {
        self.everyone().emit(event, args)
    }

    /// Emits to every socket of the main namespace and counts them. See [`Broadcast::emit_and_count`].
    pub fn emit_and_count<T: Serialize + ?Sized>(&self, event: &str, args: &T) -> Result<CountFuture, EmitError> {
        self.everyone().emit_and_count(event, args)
    }

    /// A target in the main namespace: the sockets in these rooms.
    pub fn to(&self, rooms: impl Rooms) -> Broadcast {
        self.everyone().to(rooms)
    }

    /// The same as [`to`](Self::to). Socket.IO calls it `in`, which is a word of Rust.
    pub fn within(&self, rooms: impl Rooms) -> Broadcast {
        self.to(rooms)
    }

    /// A target in the main namespace: everyone but the sockets in these rooms.
    pub fn except(&self, rooms: impl Rooms) -> Broadcast {
        self.everyone().except(rooms)
    }

    /// A target in the main namespace whose packets are dropped for clients that are not ready.
    pub fn volatile(&self) -> Broadcast {
        self.everyone().volatile()
    }

    /// A target in the main namespace: the sockets of this node only.
    pub fn local(&self) -> Broadcast {
        self.everyone().local()
    }

    fn everyone(&self) -> Broadcast {
        Broadcast::new(self.clone(), "/")
    }

    /// Closes the server: takes nobody in, closes every socket (`server shutting down`) and session, and ends the
    /// workers once what was queued has left, or after [`shutdown_grace`](Settings::shutdown_grace). Returns at once.
    ///
    /// All clients are gone in the same moment, and are back in the same moment. See [`drain`](Self::drain).
    pub fn close(&self) {
        self.tell_workers(|| Post::ShutDown);
    }

    /// Lets the clients go one after another, evenly over this time, and then closes: for a deploy that nobody notices.
    /// Returns at once; [`Server::wait`] waits for the end.
    ///
    /// From now on nobody is let in (503), while the server still listens: clients with long-polling need their next
    /// request, and a load balancer wants to see that this node is going. Who has not been let go yet lives on as before.
    /// What is queued for a client is sent before it is closed (`server shutting down`); a client with long-polling hears
    /// of it with its poll, or with the next one. Which client goes when does not depend on how long it has been here.
    ///
    /// Few clients do not take the whole time: at least a hundred are let go in a second. And it is over at the latest
    /// [`shutdown_grace`](Settings::shutdown_grace) after this time, with whoever is left. Called again, it begins anew with
    /// those who are left; [`close`](Self::close) ends it at once, and so does a time of zero.
    pub fn drain(&self, over: Duration) {
        self.tell_workers(move || Post::Drain(over));
    }

    /// Tells all workers, after what this thread has asked for before. A server that has ended needs no telling.
    fn tell_workers(&self, post: impl Fn() -> Post + Send + 'static) {
        let (Some(running), Ok(home)) = (self.0.running.get(), self.home()) else { return };
        let mailboxes = Arc::clone(&running.mailboxes);
        let tell = move || (0..mailboxes.len() as u16).for_each(|worker| _ = here::post(&mailboxes, worker, post()));
        if self.shard_number().is_some() {
            return tell();
        }
        let _ = here::call_on(&running.mailboxes, home, tell);
    }

    /// Counts what the server holds and has done.
    ///
    /// # Errors
    ///
    /// [`EmitError::Closed`] before it listens and after it has closed.
    pub async fn stats(&self) -> Result<super::Stats, EmitError> {
        let running = self.0.running.get().ok_or(EmitError::Closed)?;
        let mut stats = super::Stats::of_process(&running.admission);
        let mut answers = Vec::new();
        for shard in 0..running.mailboxes.len() as u16 {
            let (sender, receiver) = oneshot::channel();
            self.on_shard(shard, move |shard| drop(sender.send(shard.census())))?;
            answers.push(receiver);
        }
        for answer in answers {
            stats.add(answer.await.map_err(|_| EmitError::Closed)?);
        }
        Ok(stats)
    }

    // ---- for the other parts of the API

    pub(crate) fn set_running(&self, mailboxes: Arc<[Mailbox]>, admission: Arc<Admission>) -> bool {
        self.0.running.set(Running { mailboxes, admission, first_settings: self.settings() }).is_ok()
    }

    /// The settings with which the server began to listen, if it did.
    pub(crate) fn first_settings(&self) -> Option<&Settings> {
        self.0.running.get().map(|running| &*running.first_settings)
    }

    pub(crate) fn change_namespace(&self, name: &Arc<str>, change: impl FnOnce(&mut Behaviour)) {
        let mut registry = self.0.registry.lock().expect("nothing panics while it holds this lock");
        let behaviour = registry.namespaces.entry(Arc::clone(name)).or_default();
        change(Arc::make_mut(behaviour));
        self.0.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let registry = self.0.registry.lock().expect("nothing panics while it holds this lock");
        Snapshot { version: self.0.version.load(Ordering::Acquire), registry: Rc::new(registry.clone()) }
    }

    pub(crate) fn refresh(&self, snapshot: &mut Snapshot) {
        if self.0.version.load(Ordering::Acquire) != snapshot.version {
            *snapshot = self.snapshot();
        }
    }

    /// The number of this thread's shard, if it is one of this server's.
    pub(crate) fn shard_number(&self) -> Option<u16> {
        here::shard_number(&self.0.running.get()?.mailboxes)
    }

    pub(crate) fn with_shard<R>(&self, act: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        here::with_shard(&self.0.running.get()?.mailboxes, act)
    }

    /// Runs `call` on a worker's thread, soon. What one thread asks for happens in the order in which it asked, whichever
    /// workers it concerns: a thread that is no worker always goes through the same one.
    pub(crate) fn call_on(&self, shard: u16, call: impl FnOnce() + Send + 'static) -> Result<(), EmitError> {
        let running = self.0.running.get().ok_or(EmitError::Closed)?;
        let home = self.home()?;
        let posted = if home == shard || self.shard_number().is_some() {
            here::call_on(&running.mailboxes, shard, call)
        } else {
            let io = self.clone();
            here::call_on(&running.mailboxes, home, move || _ = io.call_on(shard, call))
        };
        posted.map_err(|_| EmitError::Closed)
    }

    /// Acts on a shard, soon.
    pub(crate) fn on_shard(&self, shard: u16, act: impl FnOnce(&mut Shard) + Send + 'static) -> Result<(), EmitError> {
        let io = self.clone();
        self.call_on(shard, move || {
            io.with_shard(act);
        })
    }

    /// Acts on this thread's shard at once, or on any other soon.
    pub(crate) fn on_any_shard(&self, act: impl FnOnce(&mut Shard) + Send + 'static) -> Result<(), EmitError> {
        if self.shard_number().is_some() {
            self.with_shard(act);
            return Ok(());
        }
        self.on_shard(self.home()?, act)
    }

    /// Acts on this thread's shard at once, or on any other soon, with the token of a count that somebody waits for.
    pub(crate) fn counted(&self, act: impl FnOnce(&mut Shard, u64) + Send + 'static) -> Result<CountFuture, EmitError> {
        let (sender, receiver) = oneshot::channel();
        self.on_any_shard(move |shard| act(shard, local::expect_counts(sender)))?;
        Ok(CountFuture(receiver))
    }

    /// The worker through which this thread acts, if it is none itself. Threads are spread over the workers.
    fn home(&self) -> Result<u16, EmitError> {
        thread_local! {
            static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let running = self.0.running.get().ok_or(EmitError::Closed)?;
        Ok((NUMBER.with(|number| *number) % running.mailboxes.len()) as u16)
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io").field("listening", &self.0.running.get().is_some()).finish_non_exhaustive()
    }
}
