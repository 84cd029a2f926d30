//! Stats: the answer of `GET /api/stats`, which the page reads once a second.

use super::process;
use super::site::Shared;
use crate::Stats;
use serde::Serialize;
use std::sync::atomic::Ordering;

/// How bytes reach the kernel.
pub fn io(workers: usize, workers_on_uring: usize) -> &'static str {
    match workers_on_uring {
        0 => "send",
        all if all == workers => "uring",
        _ => "uring and send",
    }
}

/// Counts are totals since the start. What a page computes rates from moves on `uptime_ms`.
#[derive(Serialize)]
pub struct Report {
    version: &'static str,
    uptime_ms: u64,
    workers: usize,
    io: &'static str,
    transports: TransportCounts,
    sockets: usize,
    rooms: usize,
    retained: usize,
    retained_bytes: usize,
    deliveries: u64,
    broadcasts: u64,
    lag_bytes: usize,
    counts_held: u64,
    received: u64,
    bytes_out: u64,
    conflated_in_windows: u64,
    windows_full: u64,
    caught_up: u64,
    retained_forgotten: u64,
    /// What waits for clients that are behind, and what became of them and of it.
    waiting_bytes: usize,
    evicted: u64,
    evicted_late: u64,
    evicted_for_memory: u64,
    dropped_newest: u64,
    dropped_oldest: u64,
    conflated: u64,
    /// Whether it lets its clients go, and how many are still to be.
    draining: bool,
    draining_left: u64,
    /// Rereadings of the configuration, and those that changed nothing because of a mistake.
    reloads: u64,
    reloads_failed: u64,
    rate_limited: u64,
    /// Requests and connections; see `events_refused` for events.
    refused: u64,
    refused_by: RefusalCounts,
    events_refused: u64,
    rss_bytes: Option<u64>,
    cpu_ms: Option<u64>,
    publish_key_required: bool,
    publishes: PublishReport,
    namespaces: Vec<NamespaceReport>,
}

#[derive(Serialize)]
struct TransportCounts {
    polling: usize,
    websocket: usize,
}

/// The part of `refused` that broke no rule of the protocol.
#[derive(Serialize)]
struct RefusalCounts {
    connections_max: u64,
    connections_per_address_max: u64,
    handshakes_per_second_max: u64,
    shutting_down: u64,
    proxy_protocol: u64,
}

impl RefusalCounts {
    fn of(stats: &Stats) -> RefusalCounts {
        RefusalCounts {
            connections_max: stats.connections_refused,
            connections_per_address_max: stats.addresses_refused,
            handshakes_per_second_max: stats.handshakes_refused,
            shutting_down: stats.shutting_down_refused,
            proxy_protocol: stats.proxy_headers_refused,
        }
    }

    fn sum(&self) -> u64 {
        let RefusalCounts { connections_max, connections_per_address_max, handshakes_per_second_max, .. } = self;
        let limits = connections_max + connections_per_address_max + handshakes_per_second_max;
        limits + self.shutting_down + self.proxy_protocol
    }
}

#[derive(Serialize)]
struct PublishReport {
    /// Events under way to the workers, and the bytes of their bodies.
    pending: usize,
    pending_bytes: usize,
    /// Publications refused because too much is pending, or too many came in a second.
    refused_busy: u64,
    refused_rate: u64,
    /// Idempotency keys that are remembered; repeated requests that got their answer again; keys that were forgotten
    /// before their time.
    keys: usize,
    replayed: u64,
    keys_forgotten: u64,
}

#[derive(Serialize)]
struct NamespaceReport {
    name: String,
    sockets: usize,
    join: bool,
}

/// Puts together what the library, the process and the configuration know.
pub fn report(shared: &Shared, stats: &Stats) -> Report {
    let usage = process::usage();
    let sockets_in =
        |name: &str| stats.namespaces.iter().find(|(other, _)| other == name).map_or(0, |(_, count)| *count);
    let config = shared.config();
    let namespaces = config.namespaces.iter().map(|(name, namespace)| NamespaceReport {
        name: name.clone(),
        sockets: sockets_in(name),
        join: namespace.join,
    });
    let refused_by = RefusalCounts::of(stats);
    Report {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: shared.started.elapsed().as_millis() as u64,
        workers: shared.workers(),
        io: io(shared.workers(), shared.workers_on_uring()),
        transports: TransportCounts { polling: stats.polling, websocket: stats.websocket },
        sockets: stats.sockets,
        rooms: stats.rooms,
        retained: stats.retained,
        retained_bytes: stats.retained_bytes,
        deliveries: stats.deliveries,
        broadcasts: stats.broadcasts,
        lag_bytes: stats.lag_bytes,
        counts_held: stats.counts_held,
        received: stats.received,
        bytes_out: stats.bytes_out,
        conflated_in_windows: stats.conflated_in_windows,
        windows_full: stats.windows_full,
        caught_up: stats.caught_up,
        retained_forgotten: stats.retained_forgotten,
        waiting_bytes: stats.waiting_bytes,
        evicted: stats.evicted,
        evicted_late: stats.evicted_late,
        evicted_for_memory: stats.evicted_for_memory,
        dropped_newest: stats.dropped_newest,
        dropped_oldest: stats.dropped_oldest,
        conflated: stats.conflated,
        draining: stats.draining,
        draining_left: stats.draining_left,
        reloads: shared.reloads.load(Ordering::Relaxed),
        reloads_failed: shared.reloads_failed.load(Ordering::Relaxed),
        rate_limited: stats.rate_limited,
        refused: stats.refused + refused_by.sum(),
        refused_by,
        events_refused: shared.permissions.refused.load(Ordering::Relaxed),
        rss_bytes: usage.rss_bytes,
        cpu_ms: usage.cpu_ms,
        publish_key_required: config.server.publish_key.is_some(),
        publishes: publishes(shared),
        namespaces: namespaces.collect(),
    }
}

fn publishes(shared: &Shared) -> PublishReport {
    let (pending, pending_bytes) = shared.gate.pending();
    let (refused_busy, refused_rate) = shared.gate.refused();
    let (keys, replayed, keys_forgotten) = (shared.keys.count(), shared.keys.replayed(), shared.keys.forgotten());
    PublishReport { pending, pending_bytes, refused_busy, refused_rate, keys, replayed, keys_forgotten }
}
