//! Tally: what one thread has counted and timed. Threads keep their own; the report adds them up.

use crate::clock::Nanos;
use crate::order::{Order, Seen};
use crate::ranks::{Rank, Ranks};
use crate::stamp::Stamp;
use hdrhistogram::Histogram;

/// The longest delay that is told apart from longer ones, in microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// Delays in microseconds, to three digits.
#[derive(Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Times {
        Times(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are in order"))
    }
}

impl Times {
    pub fn record(&mut self, time: Nanos) {
        self.0.saturating_record(time.div_ceil(1000));
    }

    pub fn add(&mut self, other: &Times) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// The time that `quantile` of the samples did not exceed; zero without samples.
    pub fn at(&self, quantile: f64) -> Nanos {
        self.0.value_at_quantile(quantile).min(self.0.max()) * 1000
    }

    pub fn max(&self) -> Nanos {
        self.0.max() * 1000
    }

    pub fn samples(&self) -> u64 {
        self.0.len()
    }
}

/// Delays from the time at which a message should have left.
#[derive(Clone, Default)]
pub struct Delays {
    /// Of each message: until the first, the median, the 99th percentile and the last client had it.
    pub first: Times,
    pub median: Times,
    pub p99: Times,
    pub last: Times,
    /// Every delivery by itself.
    pub delivery: Times,
}

/// One client and one message, of which something is told; the first of its kind that the thread saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    pub client: usize,
    pub sequence: u32,
    /// Of a reordered message, the one that came before it.
    pub after: u32,
}

#[derive(Clone, Default)]
pub struct Fault {
    pub count: u64,
    pub example: Option<Example>,
}

impl Fault {
    pub fn note(&mut self, count: u64, example: Example) {
        self.count += count;
        self.example.get_or_insert(example);
    }

    fn add(&mut self, other: &Fault) {
        self.count += other.count;
        self.example = self.example.or(other.example);
    }
}

#[derive(Clone, Default)]
pub struct Tally {
    /// First arrivals: each client and message once.
    pub delivered: u64,
    pub lost: Fault,
    pub doubled: Fault,
    pub reordered: Fault,
    pub delays: Delays,
}

impl Tally {
    /// One counted message has reached one client.
    pub fn arrive(&mut self, client: usize, order: &mut Order, stamp: Stamp, now: Nanos, ranks: &Ranks) {
        let sequence = stamp.sequence;
        if sequence >= ranks.messages() {
            return;
        }
        match order.see(sequence) {
            Seen::InTurn => {}
            Seen::After(after) => self.reordered.note(1, Example { client, sequence, after }),
            Seen::Again => return self.doubled.note(1, Example { client, sequence, after: sequence }),
        }
        self.delivered += 1;
        let rank = ranks.arrive(sequence).expect("the sequence number is below the number of messages");
        self.delays.record(now.saturating_sub(stamp.due), rank);
    }

    /// After the run: what this client never received of `sent` messages.
    pub fn settle(&mut self, client: usize, order: &Order, sent: u32) {
        if let Some(sequence) = order.first_lost(sent) {
            self.lost.note(order.lost(sent), Example { client, sequence, after: sequence });
        }
    }

    pub fn add(&mut self, other: &Tally) {
        self.delivered += other.delivered;
        self.lost.add(&other.lost);
        self.doubled.add(&other.doubled);
        self.reordered.add(&other.reordered);
        self.delays.add(&other.delays);
    }
}

impl Delays {
    fn record(&mut self, delay: Nanos, rank: Rank) {
        self.delivery.record(delay);
        let ranked = [
            (rank.first, &mut self.first),
            (rank.median, &mut self.median),
            (rank.p99, &mut self.p99),
            (rank.last, &mut self.last),
        ];
        for (_, times) in ranked.into_iter().filter(|(met, _)| *met) {
            times.record(delay);
        }
    }

    fn add(&mut self, other: &Delays) {
        self.first.add(&other.first);
        self.median.add(&other.median);
        self.p99.add(&other.p99);
        self.last.add(&other.last);
        self.delivery.add(&other.delivery);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(tally: &mut Tally, client: usize, order: &mut Order, sequence: u32, now: Nanos, ranks: &Ranks) {
        tally.arrive(client, order, Stamp { run: 1, sequence, due: 1_000_000 }, now, ranks);
    }

    #[test]
    fn delay_counts_from_when_the_message_was_due() {
        let (mut tally, ranks, mut orders) = (Tally::default(), Ranks::new(1, 2), [Order::default(), Order::default()]);
        arrive(&mut tally, 0, &mut orders[0], 0, 3_000_000, &ranks);
        arrive(&mut tally, 1, &mut orders[1], 0, 6_000_000, &ranks);
        assert_eq!(tally.delivered, 2);
        let delays = [&tally.delays.first, &tally.delays.median, &tally.delays.p99, &tally.delays.last];
        assert_eq!(delays.map(|times| times.max() / 1_000_000), [2, 2, 5, 5]);
        assert_eq!(tally.delays.delivery.samples(), 2);
    }

    #[test]
    fn a_doubled_message_is_no_delivery() {
        let (mut tally, ranks, mut order) = (Tally::default(), Ranks::new(3, 1), Order::default());
        [0, 0, 2, 1].into_iter().for_each(|sequence| arrive(&mut tally, 7, &mut order, sequence, 2_000_000, &ranks));
        assert_eq!((tally.delivered, tally.doubled.count, tally.reordered.count), (3, 1, 1));
        assert_eq!(tally.doubled.example, Some(Example { client: 7, sequence: 0, after: 0 }));
        assert_eq!(tally.reordered.example, Some(Example { client: 7, sequence: 1, after: 2 }));
    }

    #[test]
    fn what_never_came_is_settled_against_what_was_sent() {
        let (mut tally, ranks, mut order) = (Tally::default(), Ranks::new(10, 1), Order::default());
        [0, 2].into_iter().for_each(|sequence| arrive(&mut tally, 0, &mut order, sequence, 2_000_000, &ranks));
        tally.settle(0, &order, 5);
        assert_eq!(tally.lost.count, 3);
        assert_eq!(tally.lost.example.map(|example| example.sequence), Some(1));
    }

    #[test]
    fn a_number_that_was_never_planned_is_not_counted() {
        let (mut tally, ranks, mut order) = (Tally::default(), Ranks::new(1, 1), Order::default());
        arrive(&mut tally, 0, &mut order, 1, 2_000_000, &ranks);
        assert_eq!((tally.delivered, order.lost(1)), (0, 1));
    }
}
