//! Worker: one pinned thread, its streams, and the one shard that it drives.
//!
//! ```text
//! wait      until a stream, the mailbox or a deadline is ready
//! read      bytes → frames → packets → handlers; what they emit only lands in outboxes
//! accept    new connections: the usual handshake of a WebSocket is answered here, any other request in an HTTP task
//! mail      what other shards, and handles on other threads, sent
//! advance   heartbeats, ack deadlines, upgrade timeouts
//! post      answers to HTTP requests; mail and calls to other workers (before writing, so that they start early)
//! write     each dirty session, everything that its stream takes
//! bury      tell the last handlers, close, free: nothing dies before this line
//! ```
//!
//! Reading, accepting, mail, writing and closing have budgets, so that no greedy peer, no crowd and no writing to a giant
//! room can own the core; each resumes where it stopped. The walk over a room is not cut: it is one store for each receiver.
//!
//! A WebSocket's handshake that is there when its connection is accepted is answered in that step (front_door.rs). All other
//! HTTP (http.rs) runs as ordinary tasks of the worker's runtime and only while it is HTTP: after a 101 the bare stream
//! joins `streams`, and no task, channel, timer or buffer remains for it.

pub mod admission;
mod exchanges;
mod forwarded;
mod front_door;
mod handshake;
pub mod here;
pub mod http;
mod http_stream;
mod listen;
mod load;
pub mod mailbox;
mod passage;
mod proxied;
mod seldom;
pub mod sender;
pub mod server;
pub mod streams;
mod tables;
mod touched;
#[cfg(target_os = "linux")]
mod uring;

use crate::error::Refusal;
use crate::proto::Id;
use crate::settings::ProxyProtocol;
use crate::shard::arena::{Beside, Key};
use crate::shard::drive::{self, App};
use crate::shard::mail::{Ending, Mail, Request};
use crate::shard::session::{Conn, Handshake, Session};
use crate::shard::slack::Slack as _;
use crate::shard::{Millis, Shard, millis};
use admission::{Admission, Admitted};
use exchanges::{Exchanges, Waiting};
use front_door::Date;
use http::Routes;
use listen::Listener;
use load::Load;
use mailbox::{Adoption, Mailbox, Post};
use passage::Arrivals;
use rand::rngs::StdRng;
use seldom::Seldom;
use sender::Sender;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streams::{NewStream, Poller, ReadOutcome, Ready, Streams};
use tokio::sync::watch;
use touched::Touched;

/// Bytes read from one stream in one turn at most, and the size of the worker's read buffer.
const READ_BYTES_MAX: usize = 64 << 10;
/// Streams read in one turn at most, as many as the kernel announces at a time: a millisecond of packets, or of peers that
/// have gone.
const READS_MAX: usize = 256;
/// Sessions written to in one turn at most: some milliseconds of work, after which the inputs are looked at again.
const WRITES_MAX: usize = 1024;
/// Connections accepted in one turn at most: half a millisecond of handshakes, so that those who are inside do not wait for
/// a crowd at the door. Those that become tasks of HTTP do not pile up either: the runtime polls 61 tasks between two turns.
const ACCEPTS_MAX: usize = 32;
/// Posts taken in one turn at most.
const POSTS_MAX: usize = 256;

/// What a worker knows of a drain. A session's requests may arrive at any worker, so all stay until the last one is done.
#[derive(Clone, Copy, Default)]
struct Drain {
    is_on: bool,
    /// Whether its own sessions are gone, and the others have been told.
    is_done: bool,
    /// How many workers have said so, itself included.
    done: usize,
}

/// What the tasks of one worker share. Everything is of one thread; every borrow ends before a handler runs.
pub struct Worker<A> {
    number: u16,
    shard: Rc<RefCell<Shard>>,
    app: A,
    started: Instant,
    mailboxes: Arc<[Mailbox]>,
    streams: RefCell<Streams>,
    sender: RefCell<Sender>,
    arrivals: RefCell<Arrivals>,
    exchanges: Exchanges,
    admission: Arc<Admission>,
    load: Arc<Load>,
    /// Places of clients that poll through a proxy, beside their sessions, until these are buried.
    places: RefCell<Beside<Session, Admitted>>,
    rng: RefCell<StdRng>,
    routes: Routes,
    date: RefCell<Date>,
    /// Posts that wait for this turn's end, or for room in a mailbox.
    outgoing: Rc<RefCell<VecDeque<(u16, Post)>>>,
    /// Streams that have more to read than the last turn took.
    unread: RefCell<VecDeque<Ready>>,
    touched: Rc<Touched>,
    /// Tells HTTP connections to finish; see `http`.
    closing: watch::Sender<bool>,
    /// When it ends, whatever is left. Set by a drain and by closing.
    ends_by: Cell<Option<Instant>>,
    /// How far the drain is, if the server drains.
    drain: Cell<Drain>,
    http_connections: Cell<usize>,
    accept_failures: Seldom,
    lost_adoptions: Seldom,
    bad_proxy_headers: Seldom,
}

impl<A: App + 'static> Worker<A> {
    /// Turns until the server is shut down and everybody is gone, here and from the other workers, or the time for that is
    /// over. A request here may need an answer from each of them, so none ends before all have nothing left.
    async fn run(self: Rc<Self>, poller: &mut Poller, listener: Listener) {
        let mut buffer = vec![0; READ_BYTES_MAX].into_boxed_slice();
        let mut listener = Some(listener);
        let mut busy = false;
        loop {
            // One more turn finds what the others posted before they had nothing left.
            let is_last = self.is_over();
            if busy || is_last || self.has_work() {
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    () = poller.ready() => {}
                    () = self.touched.wait() => {}
                    () = sleep_until(self.next_due()) => {}
                    () = sleep_until(listener.as_ref().and_then(Listener::resting_until)) => {}
                    () = sleep_until(self.ends_by.get()) => {}
                }
            }
            busy = self.turn(poller, listener.as_mut(), &mut buffer);
            self.note_drained();
            if *self.closing.borrow() {
                listener = None;
                if self.is_empty() {
                    mailbox::finish(&self.mailboxes, self.number);
                }
            }
            let is_late = self.ends_by.get().is_some_and(|end| Instant::now() >= end);
            if is_late || (is_last && self.is_empty()) {
                return;
            }
        }
    }

    /// One turn. Returns whether there is more to do at once.
    fn turn(self: &Rc<Self>, poller: &mut Poller, mut listener: Option<&mut Listener>, buffer: &mut [u8]) -> bool {
        self.shard.borrow_mut().tell_time(self.now());
        let saturated = self.find_ready(poller, listener.as_deref_mut());
        self.read(buffer);
        let more_connections = listener.is_some_and(|listener| self.accept(listener, buffer));
        let more_mail = self.take_mail();
        drive::advance(&self.shard, &self.app, self.now());
        self.post();
        self.write();
        self.shed();
        self.bury();
        self.touched.clear();
        saturated || more_connections || more_mail
    }

    fn find_ready(&self, poller: &mut Poller, listener: Option<&mut Listener>) -> bool {
        let mut ready = Vec::new();
        let found = poller.poll(&self.streams.borrow(), &mut ready);
        if let (Some(listener), true) = (listener, found.connections) {
            listener.on_ready();
        }
        for ready in ready {
            if ready.writable {
                self.shard.borrow_mut().on_writable(ready.conn);
            }
            if ready.readable || ready.ending {
                self.unread.borrow_mut().push_back(ready);
            }
        }
        found.more
    }

    fn read(&self, buffer: &mut [u8]) {
        // Mail that finds no room means that others are behind: whoever feeds them has to wait.
        if !self.outgoing.borrow().is_empty() {
            return;
        }
        let budget = self.unread.borrow().len().min(READS_MAX);
        for _ in 0..budget {
            let ready = self.unread.borrow_mut().pop_front().expect("counted");
            let outcome = self.streams.borrow().read(ready.conn, buffer);
            match outcome {
                ReadOutcome::Bytes(bytes) => {
                    drive::receive(&self.shard, &self.app, ready.conn, &mut buffer[..bytes]);
                    // Fewer than asked for: the stream is empty, and the next bytes will be announced anew.
                    if bytes == buffer.len() || ready.ending {
                        self.unread.borrow_mut().push_back(ready);
                    }
                }
                ReadOutcome::Nothing => {}
                ReadOutcome::End => self.shard.borrow_mut().on_hangup(ready.conn, false),
                ReadOutcome::Broken => self.shard.borrow_mut().on_hangup(ready.conn, true),
            }
            drive::hear_out(&self.shard, &self.app);
        }
    }

    /// Takes in new connections. Returns whether more may wait.
    fn accept(self: &Rc<Self>, listener: &mut Listener, buffer: &mut [u8]) -> bool {
        let accepted = listener.accept(Instant::now(), ACCEPTS_MAX, |stream, peer| self.welcome(stream, peer, buffer));
        if let Err(error) = accepted {
            self.admission.note_accept_failure();
            let warn = |times| tracing::warn!(%error, times, "connections have to wait in the accept queue");
            self.accept_failures.note(warn);
        }
        listener.has_waiting()
    }

    fn welcome(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, buffer: &mut [u8]) {
        let (trusted, proxied) = {
            let shard = self.shard.borrow();
            let settings = shard.settings();
            let trusted = forwarded::is_trusted(peer.ip(), &settings.trusted_proxies);
            let proxied = settings.proxy_protocol == ProxyProtocol::Required;
            if proxied && !trusted && !settings.trusted_proxies.is_empty() {
                return self.note_bad_proxy_header(peer, &proxied::Failure::Stranger);
            }
            (trusted, proxied)
        };
        let admitted = self.admission.admit().and_then(|mut admitted| {
            // Else it is known later whose connection it is, or each of its requests is somebody's.
            if !trusted && !proxied {
                self.admission.count_for(&mut admitted, peer.ip())?;
            }
            Ok(admitted)
        });
        match admitted {
            Ok(admitted) if proxied => http::spawn(Rc::clone(self), stream, peer, admitted, Vec::new()),
            Ok(admitted) => front_door::welcome(self, stream, peer, admitted, buffer),
            Err(refusal) => self.turn_away(&stream, refusal),
        }
    }

    /// Tells a peer that is over a limit why its connection is closed.
    fn turn_away(&self, stream: &TcpStream, refusal: Refusal) {
        self.admission.note_refusal(refusal);
        streams::write_last(stream, listen::refusal(refusal, self.retry_after()).as_bytes());
    }

    fn note_bad_proxy_header(&self, peer: SocketAddr, failure: &proxied::Failure) {
        self.admission.note_proxy_header();
        self.bad_proxy_headers.note(
            |times| tracing::warn!(%peer, %failure, times, "a connection without a PROXY protocol header that counts"),
        );
    }

    /// Seconds after which somebody who is refused may come back.
    fn retry_after(&self) -> u8 {
        admission::retry_after(&mut *self.rng.borrow_mut())
    }

    fn take_mail(&self) -> bool {
        let mailbox = &self.mailboxes[usize::from(self.number)];
        mailbox.listen();
        for _ in 0..POSTS_MAX {
            match mailbox.take() {
                Some(Post::Mail(batch)) => {
                    batch.into_iter().for_each(|mail| drive::deliver(&self.shard, &self.app, mail));
                }
                Some(Post::Call(call)) => call(),
                Some(Post::Adopt(adoption)) => self.receive(adoption),
                Some(Post::Drain(over)) => self.drain(over),
                Some(Post::Drained) => self.drain.update(|drain| Drain { done: drain.done + 1, ..drain }),
                Some(Post::ShutDown) => self.shut_down(),
                None => return false,
            }
            drive::hear_out(&self.shard, &self.app);
        }
        true
    }

    /// Gives answers to the requests that wait here, and mail to whom it is for.
    fn post(&self) {
        let here = self.shard.borrow_mut().route_answers();
        here.into_iter().for_each(|(exchange, reply)| self.exchanges.answer(exchange, reply));
        let mut outgoing = self.outgoing.borrow_mut();
        mailbox::collect(&mut self.shard.borrow_mut(), &mut outgoing);
        let mut full = Vec::new();
        for _ in 0..outgoing.len() {
            let (to, post) = outgoing.pop_front().expect("counted");
            // Behind a post that found no room, later ones for the same worker wait too: mail keeps its order.
            let posted = if full.contains(&to) { Err(post) } else { self.mailboxes[usize::from(to)].try_post(post) };
            if let Err(post) = posted {
                full.push(to);
                outgoing.push_back((to, post));
            }
        }
    }

    fn write(&self) {
        let streams = self.streams.borrow();
        self.shard.borrow_mut().write(&mut self.sender.borrow_mut().over(&streams), WRITES_MAX);
    }

    /// Gives up our share of what is too much for the process.
    fn shed(&self) {
        let mut shard = self.shard.borrow_mut();
        let bytes_max = shard.settings().outboxes_bytes_max;
        let excess = self.load.note(self.number, shard.waiting_cost(), bytes_max);
        if excess > 0 {
            // More than that, or the next turn would go through all sessions again.
            let sixteenth = shard.waiting_cost() / 16;
            shard.shed(excess.max(sixteenth));
            self.load.note(self.number, shard.waiting_cost(), bytes_max);
        }
    }

    fn bury(&self) {
        // Writing may have found streams broken and clients too slow.
        drive::hear_out(&self.shard, &self.app);
        let endings = self.shard.borrow_mut().bury();
        self.unread.borrow_mut().trim_for(self.shard.borrow().conn_count());
        let mut streams = self.streams.borrow_mut();
        for ending in endings {
            match ending {
                Ending::FinishWriting(conn) => streams.finish_writing(conn),
                Ending::Close(conn) => streams.remove(conn),
                Ending::Reset(conn) => streams.reset(conn),
                Ending::Buried(session) => drop(self.places.borrow_mut().remove(session)),
            }
        }
        streams.close_removed();
    }

    // ---- what handshakes and HTTP tasks ask for

    /// Keeps the place of a client until its session is buried.
    fn hold_place(&self, session: Key<Session>, place: Admitted) {
        self.shard.borrow_mut().announce_end(session);
        self.places.borrow_mut().insert(session, place);
    }

    /// A WebSocket that begins its own session, with a 101 that has not left yet, perhaps. Without room for it the stream
    /// is closed.
    fn attach(&self, handshake: Handshake, stream: NewStream, greeting: Vec<u8>) {
        let opened = self.shard_now().open_websocket(handshake);
        match opened {
            Ok(conn) => self.begin_reading(conn, stream, greeting),
            Err(_) => streams::write_last(&stream.tcp, &greeting),
        }
    }

    /// A WebSocket that is to take over a polling session, wherever that lives.
    fn attach_upgrade(&self, sid: Id, stream: NewStream) {
        if sid.shard() == self.number {
            self.adopt(sid, stream);
        } else {
            self.outgoing.borrow_mut().push_back((sid.shard(), Post::Adopt(Adoption::new(sid, stream))));
            self.touched.set();
        }
    }

    /// A WebSocket that comes from another worker. Without it the session goes on with polling.
    fn receive(&self, adoption: Adoption) {
        let mailbox = &self.mailboxes[usize::from(self.number)];
        match mailbox.receive(adoption, &mut self.arrivals.borrow_mut()) {
            Some((sid, stream)) => self.adopt(sid, stream),
            None => {
                self.admission.note_lost();
                self.lost_adoptions.note(|times| tracing::warn!(times, "no descriptor for a connection that upgrades"));
            }
        }
    }

    fn adopt(&self, sid: Id, stream: NewStream) {
        let conn = self.shard_now().open_upgrade(sid);
        self.begin_reading(conn, stream, Vec::new());
    }

    fn begin_reading(&self, conn: Key<Conn>, stream: NewStream, greeting: Vec<u8>) {
        let NewStream { tcp, mut read, admitted } = stream;
        drive::hear_out(&self.shard, &self.app); // the session has begun before its first message is read
        let inserted = self.streams.borrow_mut().insert(conn, tcp, greeting, admitted);
        if let Err(error) = inserted {
            tracing::warn!(%error, "a stream could not be watched");
            self.shard_now().on_hangup(conn, true);
        } else if !read.is_empty() {
            drive::receive(&self.shard, &self.app, conn, &mut read);
        }
        self.hear_out();
    }

    /// A request of a session, here or elsewhere.
    fn ask(&self, sid: Id, request: Request) -> Waiting<'_> {
        let waiting = self.exchanges.open(self.number, sid);
        let exchange = waiting.exchange();
        if sid.shard() == self.number {
            self.shard.borrow_mut().tell_time(self.now());
            drive::request(&self.shard, &self.app, sid, request, exchange);
            drive::hear_out(&self.shard, &self.app);
        } else {
            self.shard_now().post(sid.shard(), Mail::Request { sid, request, exchange });
        }
        self.touched.set();
        waiting
    }

    /// The client of a request has gone.
    fn abandon(&self, waiting: &Waiting<'_>) {
        let (sid, exchange) = (waiting.sid(), waiting.exchange());
        if sid.shard() == self.number {
            self.shard_now().on_abandoned(sid, exchange);
            drive::hear_out(&self.shard, &self.app);
        } else {
            self.shard_now().post(sid.shard(), Mail::Abandoned { sid, exchange });
        }
        self.touched.set();
    }

    /// Lets the application hear of what an HTTP task did to the shard, and has a turn follow.
    fn hear_out(&self) {
        drive::hear_out(&self.shard, &self.app);
        self.touched.set();
    }

    // ---- the end

    /// Lets clients go over this time, which may be none. Until the last of all workers is done, everything else goes on.
    fn drain(&self, over: Duration) {
        if *self.closing.borrow() {
            return;
        }
        if over.is_zero() {
            return self.shut_down();
        }
        let grace = self.shard.borrow().settings().shutdown_grace;
        self.shard_now().drain(millis(over));
        self.ends_by.set(Instant::now().checked_add(over.saturating_add(grace)));
        self.drain.update(|drain| Drain { is_on: true, ..drain });
    }

    /// Tells the others when the last session here is gone, and closes when the last one anywhere is.
    fn note_drained(&self) {
        let mut drain = self.drain.get();
        if drain.is_on && !drain.is_done && self.shard.borrow().session_count() == 0 {
            (drain.is_done, drain.done) = (true, drain.done + 1);
            self.drain.set(drain);
            let others = (0..self.mailboxes.len() as u16).filter(|&other| other != self.number);
            self.outgoing.borrow_mut().extend(others.map(|other| (other, Post::Drained)));
        }
        if drain.done == self.mailboxes.len() && !*self.closing.borrow() {
            self.shut_down();
        }
    }

    fn shut_down(&self) {
        let grace = self.shard.borrow().settings().shutdown_grace;
        let end = Instant::now().checked_add(grace);
        // The end of a drain is kept if it comes first.
        self.ends_by.update(|drained_by| [drained_by, end].into_iter().flatten().min());
        self.shard_now().shut_down();
        self.closing.send_replace(true);
    }

    // ---- state

    /// The shard, told the time: for what comes in between turns.
    fn shard_now(&self) -> RefMut<'_, Shard> {
        let mut shard = self.shard.borrow_mut();
        shard.tell_time(self.now());
        shard
    }

    fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    fn has_work(&self) -> bool {
        self.shard.borrow().has_work()
            || !self.unread.borrow().is_empty()
            || !self.outgoing.borrow().is_empty()
            || self.streams.borrow().has_removed()
    }

    fn next_due(&self) -> Option<Instant> {
        let due = self.shard.borrow().next_due()?;
        Some(self.started + Duration::from_millis(due))
    }

    /// Whether nothing is left here. Once it closes that is final: nobody is let in any more, and what the others still
    /// ask is answered in the same turn. Only a stream that was on its way here comes late, to be told that it does.
    fn is_empty(&self) -> bool {
        let shard = self.shard.borrow();
        let has_peers = shard.session_count() > 0 || shard.conn_count() > 0 || self.http_connections.get() > 0;
        !has_peers && !shard.has_work() && self.outgoing.borrow().is_empty()
    }

    /// Whether it closes and nothing is left, here and at the other workers.
    fn is_over(&self) -> bool {
        *self.closing.borrow() && self.is_empty() && mailbox::all_finished(&self.mailboxes)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
