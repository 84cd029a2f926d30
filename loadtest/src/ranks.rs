//! Ranks: of each message, the how-manieth client receives it now.
//!
//! Deliveries of one message happen in the order of time, so the arrival that completes half of the clients *is* the
//! median and the last one *is* the last receiver: exact, for one counter per message and no list of times. Threads
//! share the counters. Two of them may swap neighbouring ranks, by as much as the time between reading the clock and
//! counting, which is microseconds.

use std::sync::atomic::{AtomicU32, Ordering};

/// The receivers whose time is kept, as the how-manieth of all.
pub struct Ranks {
    received: Vec<AtomicU32>,
    median: u32,
    p99: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    pub first: bool,
    pub median: bool,
    pub p99: bool,
    pub last: bool,
}

impl Ranks {
    pub fn new(messages: u32, clients: u32) -> Ranks {
        let received = (0..messages).map(|_| AtomicU32::new(0)).collect();
        let share = |percent: u64| (u64::from(clients) * percent).div_ceil(100) as u32;
        Ranks { received, median: share(50), p99: share(99), last: clients }
    }

    /// Counts one client that receives `sequence` for the first time. `None`: no such message is planned.
    pub fn arrive(&self, sequence: u32) -> Option<Rank> {
        // Relaxed: nothing but the number itself is told to the other threads.
        let rank = self.received.get(sequence as usize)?.fetch_add(1, Ordering::Relaxed) + 1;
        Some(Rank { first: rank == 1, median: rank == self.median, p99: rank == self.p99, last: rank == self.last })
    }

    pub fn messages(&self) -> u32 {
        self.received.len() as u32
    }

    /// How many of the first `sent` messages reached every client.
    pub fn complete(&self, sent: u32) -> u32 {
        let whole = |received: &&AtomicU32| received.load(Ordering::Relaxed) == self.last;
        self.received.iter().take(sent as usize).filter(whole).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_is_met_once() {
        for clients in [1, 2, 3, 99, 100, 101, 1000] {
            let ranks = Ranks::new(1, clients);
            let met: Vec<_> = (0..clients).filter_map(|_| ranks.arrive(0)).collect();
            let place = |wanted: fn(&Rank) -> bool| met.iter().position(wanted).map(|at| at as u32 + 1);
            assert_eq!(place(|rank| rank.first), Some(1));
            assert_eq!(place(|rank| rank.median), Some(clients.div_ceil(2)));
            assert_eq!(place(|rank| rank.p99), Some((clients * 99).div_ceil(100)));
            assert_eq!(place(|rank| rank.last), Some(clients));
            assert_eq!(ranks.complete(1), 1);
        }
    }

    #[test]
    fn a_message_that_was_never_planned_has_no_rank() {
        assert_eq!(Ranks::new(10, 1).arrive(10), None);
    }
}
