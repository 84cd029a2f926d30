//! What an embedder touches: Socket.IO's words over the workers.
//!
//! Reading order: `io` (the server), `namespace` (who may come and what happens then), `socket`, `broadcast`, `ack`,
//! `handler` (the shapes of functions); then `local`, where the shard's events meet all of it.

pub mod ack;
pub mod args;
pub mod broadcast;
pub mod engine;
pub mod handler;
pub mod io;
mod local;
pub mod namespace;
pub mod server;
pub mod socket;

pub use broadcast::Rooms;

use crate::error::CloseReason;
use crate::shard::Census;
pub use crate::shard::mail::Counts;
use crate::worker::admission::Admission;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// Why an emit did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmitError {
    /// The socket has left, or the server does not run.
    Closed,
    /// The arguments have no JSON form, or the event's name is reserved.
    Encode(args::EncodeError),
}

impl From<args::EncodeError> for EmitError {
    fn from(error: args::EncodeError) -> EmitError {
        EmitError::Encode(error)
    }
}

impl std::fmt::Display for EmitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EmitError::Closed => f.write_str("the socket has left, or the server does not run"),
            EmitError::Encode(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EmitError {}

/// An event that is on its way. To be awaited by those who can emit faster than the server can write; who does not await
/// it pays nothing for it.
///
/// It resolves when every worker has queued what this thread emitted before, and where a worker has begun more than it can
/// write, only when that is less again ([`lag_bytes_max`](crate::Settings::lag_bytes_max)). So a loop that awaits each emit
/// cannot fill the memory, however fast it is. A client that reads slowly makes nobody wait. It fails if the server ends
/// before.
#[derive(Debug)]
pub struct Dispatched(pub(crate) io::Io);

impl IntoFuture for Dispatched {
    type Output = Result<(), EmitError>;
    type IntoFuture = DispatchFuture;

    fn into_future(self) -> DispatchFuture {
        DispatchFuture(self.0.counted(|shard, token| shard.mark(token)))
    }
}

/// What [`Dispatched`] becomes when it is awaited.
pub struct DispatchFuture(Result<CountFuture, EmitError>);

impl Future for DispatchFuture {
    type Output = Result<(), EmitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(count) => Pin::new(count).poll(cx).map_ok(drop),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

/// What became of a broadcast, once every worker has said so; see
/// [`Broadcast::emit_and_count`](crate::Broadcast::emit_and_count).
#[must_use = "whoever does not want the count calls `emit`"]
pub struct CountFuture(pub(crate) oneshot::Receiver<Counts>);

impl Future for CountFuture {
    type Output = Result<Counts, EmitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| EmitError::Closed)
    }
}

/// Settings that a server is given while it runs; see [`Io::reload`](crate::Io::reload). It resolves when every worker goes
/// by them. They come into effect whether or not anybody waits.
#[derive(Debug)]
pub struct Reload {
    pub(crate) kept: Vec<&'static str>,
    /// Closed when the last worker has taken them.
    pub(crate) taken: mpsc::Receiver<Infallible>,
}

impl Reload {
    /// The fields of [`Settings`](crate::Settings) that were to change and need a restart: they keep their values.
    pub fn kept(&self) -> &[&'static str] {
        &self.kept
    }
}

impl Future for Reload {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.taken.poll_recv(cx).map(|_closed| ())
    }
}

/// What a server holds at a moment, and totals since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Open sessions by transport.
    pub polling: usize,
    pub websocket: usize,
    /// Sockets in all namespaces.
    pub sockets: usize,
    /// Rooms in all namespaces, counted on each worker; sockets' own rooms are not.
    pub rooms: usize,
    /// Events that rooms retain, counted on each worker.
    pub retained: usize,
    /// What they cost in bytes, as `retain_bytes_max` counts; on each worker.
    pub retained_bytes: usize,
    /// Namespaces that have sockets, and how many.
    pub namespaces: Vec<(String, usize)>,
    /// Sessions opened.
    pub opened: u64,
    /// Events received from clients.
    pub received: u64,
    /// Broadcasts, those that reached nobody too.
    pub broadcasts: u64,
    /// Bytes of broadcasts that workers have begun and not offered to all of their receivers yet.
    pub lag_bytes: usize,
    /// Counts that were held back, on one worker each, because it was more than `lag_bytes_max` behind.
    pub counts_held: u64,
    /// Packets that broadcasts queued for a client.
    pub deliveries: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// Volatile packets that found their client not ready.
    pub volatile_dropped: u64,
    /// Events that a newer one with the same key replaced in a window, counted on each worker.
    pub conflated_in_windows: u64,
    /// Windows that ended early, because they held `conflate_keys_max` events, or would have held more than
    /// `outbox_bytes_max`.
    pub windows_full: u64,
    /// Retained events that sockets got when they joined.
    pub caught_up: u64,
    /// Retained events that were given up for `retain_keys_max`, `retain_rooms_max` or `retain_bytes_max`, counted on each worker.
    pub retained_forgotten: u64,
    /// Bytes that wait for clients that are behind, each packet counted once for each worker.
    pub waiting_bytes: usize,
    /// Sessions closed because they were too far behind: `outbox_bytes_max`, and what the next two count.
    pub evicted: u64,
    /// Of these, those whose oldest packet had waited for longer than `outbox_age_max`.
    pub evicted_late: u64,
    /// Of these, those that were furthest behind when more than `outboxes_bytes_max` waited.
    pub evicted_for_memory: u64,
    /// Packets that the policy `DropNewest` dropped, for one client each.
    pub dropped_newest: u64,
    /// Packets that the policy `DropOldest` dropped, for one client each.
    pub dropped_oldest: u64,
    /// Packets that a newer one with the same key replaced, for one client each that was behind.
    pub conflated: u64,
    /// Whether it lets its clients go; see [`Io::drain`](crate::Io::drain). So it does when it closes.
    pub draining: bool,
    /// While it does, the sessions that are still to be let go.
    pub draining_left: u64,
    /// Sessions closed because the server ends.
    pub let_go: u64,
    /// Clients that were still owed something when the time for their end was over.
    pub cut_off: u64,
    /// Sessions closed because their client went over `events_per_second_max` or `bytes_per_second_max`.
    pub rate_limited: u64,
    /// Requests refused by the rules of Engine.IO and HTTP, bodies that are too long or too slow included.
    pub refused: u64,
    /// Connections over `connections_max`, and sessions over what a worker holds.
    pub connections_refused: u64,
    /// Connections, or sessions behind a proxy, over `connections_per_address_max`.
    pub addresses_refused: u64,
    /// Handshakes over `handshakes_per_second_max`.
    pub handshakes_refused: u64,
    /// Requests that came while the server was closing.
    pub shutting_down_refused: u64,
    /// Connections without a PROXY protocol header that counts.
    pub proxy_headers_refused: u64,
    /// Connections of upgrades that ended between two workers, because there was no descriptor for them.
    pub connections_lost: u64,
    /// Tries to accept a connection that failed, mostly for want of descriptors. The connection waits for the next one.
    pub accept_failures: u64,
    /// Packets and frames that broke a rule.
    pub protocol_errors: u64,
    /// Events whose arguments did not fit their handler.
    pub arguments_refused: u64,
    /// Joins of sockets that were already in `rooms_per_socket_max` rooms.
    pub joins_refused: u64,
    pub handler_panics: u64,
    /// How sockets ended.
    pub disconnects: Vec<(CloseReason, u64)>,
}

impl Stats {
    /// What is counted for the whole process, before the workers' shares are added.
    pub(crate) fn of_process(admission: &Admission) -> Stats {
        let totals = admission.totals();
        Stats {
            connections_refused: totals.connections_refused,
            addresses_refused: totals.addresses_refused,
            handshakes_refused: totals.handshakes_refused,
            shutting_down_refused: totals.shutting_down_refused,
            proxy_headers_refused: totals.proxy_headers_refused,
            connections_lost: totals.lost,
            accept_failures: totals.accept_failures,
            ..Stats::default()
        }
    }

    pub(crate) fn add(&mut self, census: Census) {
        let counters = census.counters;
        self.polling += census.polling;
        self.websocket += census.websocket;
        self.sockets += census.sockets;
        self.rooms += census.rooms;
        self.retained += census.retained;
        self.retained_bytes += census.retained_bytes;
        for (name, sockets) in census.namespaces {
            match self.namespaces.iter_mut().find(|(other, _)| **other == *name) {
                Some((_, sum)) => *sum += sockets,
                None => self.namespaces.push((name.into(), sockets)),
            }
        }
        self.opened += counters.opened;
        self.received += counters.received;
        self.broadcasts += counters.broadcasts;
        self.lag_bytes += census.lag_bytes;
        self.counts_held += counters.counts_held;
        self.deliveries += counters.deliveries;
        self.bytes_out += counters.bytes_out;
        self.bytes_in += counters.bytes_in;
        self.volatile_dropped += counters.volatile_dropped;
        self.conflated_in_windows += counters.conflated_in_windows;
        self.windows_full += counters.windows_full;
        self.caught_up += counters.caught_up;
        self.retained_forgotten += counters.retained_forgotten;
        self.waiting_bytes += census.waiting_bytes;
        self.evicted += counters.evicted;
        self.evicted_late += counters.evicted_late;
        self.evicted_for_memory += counters.evicted_for_memory;
        self.dropped_newest += counters.dropped_newest + counters.turned_away;
        self.dropped_oldest += counters.dropped_oldest;
        self.conflated += counters.conflated;
        self.draining |= census.draining.is_some();
        self.draining_left += census.draining.unwrap_or(0);
        self.let_go += counters.let_go;
        self.cut_off += counters.cut_off;
        self.rate_limited += counters.rate_limited;
        self.refused += counters.refused;
        self.protocol_errors += counters.protocol_errors;
        self.arguments_refused += counters.arguments_refused;
        self.joins_refused += counters.joins_refused;
        self.handler_panics += counters.handler_panics;
        if self.disconnects.is_empty() {
            self.disconnects = CloseReason::ALL.map(|reason| (reason, 0)).into();
        }
        for ((_, sum), count) in self.disconnects.iter_mut().zip(counters.disconnects) {
            *sum += count;
        }
    }
}
