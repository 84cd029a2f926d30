//! Snapshot: the run as it is right now, as numbers; what the display draws, and what a second of the record is made of.

use crate::clock::Nanos;
use crate::tally::Times;

/// Classes of clients by how far they are behind: up to 1, 2, 3, 5, 10 and more seconds; see `record::BEHIND_S`.
pub type Behind = [u32; 6];

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Since the run began.
    pub at: Nanos,
    /// `connecting`, `warming`, `measuring` or `draining`.
    pub phase: &'static str,
    /// Of the present phase, how much of it is done, 0 to 1, where that is known.
    pub progress: Option<f64>,
    pub connections: u32,
    pub connected: u32,
    /// Clients that heard a test message, while warming.
    pub warm: u32,
    pub closed: u32,
    pub published: u32,
    pub messages: u32,
    pub delivered: u64,
    /// Deliveries that should have come and have not yet.
    pub under_way: u64,
    /// Deliveries per second since the last snapshot.
    pub per_second: u64,
    pub behind: Behind,
    /// Of the messages that are complete so far, when the last client had them.
    pub last: Option<Times>,
    /// Lost is known only at the end; these are seen at once.
    pub doubled: u64,
    pub reordered: u64,
    pub stray: u64,
    pub server: Option<ServerNow>,
    /// The share of its time that each of our threads ran; the last one publishes.
    pub threads: Vec<f64>,
    /// How late the last message was published.
    pub late: Nanos,
}

#[derive(Clone, Copy, Debug)]
pub struct ServerNow {
    /// Cores in use since the last snapshot, 1.0 is one.
    pub cpu: f64,
    pub resident: u64,
}
