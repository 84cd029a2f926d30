//! Marks: of each message, when the first, the median, the 99th percentile and the last client of its room had it.
//!
//! Deliveries of one message happen in the order of time, so the arrival that completes half of the audience *is* the
//! median and the last one *is* the last receiver: exact, for one counter and four times per message, whatever the
//! number of clients. Threads share the counters. Two of them may swap neighbouring ranks, by as much as the time
//! between reading the clock and counting, which is microseconds.

use crate::clock::Nanos;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub struct Marks {
    messages: Vec<Message>,
}

/// Times are microseconds from when the message was due, rounded up; zero is "not yet".
#[derive(Default)]
struct Message {
    received: AtomicU32,
    first: AtomicU32,
    median: AtomicU32,
    p99: AtomicU32,
    last: AtomicU32,
}

/// The marks of one message that have been reached, each a delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub first: Option<Nanos>,
    pub median: Option<Nanos>,
    pub p99: Option<Nanos>,
    pub last: Option<Nanos>,
}

impl Marks {
    pub fn new(messages: u32) -> Marks {
        Marks { messages: (0..messages).map(|_| Message::default()).collect() }
    }

    /// Counts one of `audience` clients that receives `message` for the first time, `delay` after it was due.
    pub fn arrive(&self, message: u32, audience: u32, delay: Nanos) {
        let marks = &self.messages[message as usize];
        let micros = u32::try_from(delay.div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        // Relaxed: nothing but the numbers themselves is told to the other threads.
        let rank = marks.received.fetch_add(1, Relaxed) + 1;
        let share = |percent: u64| (u64::from(audience) * percent).div_ceil(100) as u32;
        for (wanted, mark) in
            [(1, &marks.first), (share(50), &marks.median), (share(99), &marks.p99), (audience, &marks.last)]
        {
            if rank == wanted {
                mark.store(micros, Relaxed);
            }
        }
    }

    pub fn count(&self) -> u32 {
        self.messages.len() as u32
    }

    pub fn of(&self, message: u32) -> Mark {
        let marks = &self.messages[message as usize];
        let reached =
            |mark: &AtomicU32| Some(mark.load(Relaxed)).filter(|micros| *micros > 0).map(|us| u64::from(us) * 1000);
        Mark {
            first: reached(&marks.first),
            median: reached(&marks.median),
            p99: reached(&marks.p99),
            last: reached(&marks.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_leaves_its_time() {
        for audience in [1, 2, 3, 99, 100, 101, 1000] {
            let marks = Marks::new(1);
            assert_eq!(marks.of(0), Mark::default());
            (1..=audience).for_each(|rank| marks.arrive(0, audience, u64::from(rank) * 1000));
            let at = |rank: u32| Some(u64::from(rank) * 1000);
            let (median, p99) = (at(audience.div_ceil(2)), at((audience * 99).div_ceil(100)));
            assert_eq!(marks.of(0), Mark { first: at(1), median, p99, last: at(audience) }, "{audience}");
        }
    }

    #[test]
    fn what_did_not_reach_everyone_has_no_last() {
        let marks = Marks::new(2);
        (0..9).for_each(|_| marks.arrive(1, 10, 5_000));
        let mark = marks.of(1);
        assert_eq!((mark.first, mark.median, mark.p99, mark.last), (Some(5_000), Some(5_000), None, None));
        assert_eq!(marks.of(0), Mark::default());
    }

    #[test]
    fn no_delay_at_all_is_a_time_too() {
        let marks = Marks::new(1);
        marks.arrive(0, 1, 0);
        assert_eq!(marks.of(0).last, Some(1000));
    }
}
