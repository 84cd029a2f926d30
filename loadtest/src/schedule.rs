//! Schedule: when each message is due; a steady rate, or bursts with rests between them.
//!
//! ```text
//!     steady   |  |  |  |  |  |  |  |  |  |
//!     bursts   ||||||||          ||||||||          ||||
//!              ├length┤          │
//!              ├──────every──────┤
//! ```
//!
//! It waits for nothing: a slow server meets the next message at its time all the same.

use crate::clock::Nanos;
use crate::scenario::Bursts;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    per_second: f64,
    /// Messages in one burst, and the time from one burst to the next.
    bursts: Option<(u64, Nanos)>,
}

impl Schedule {
    pub fn new(per_second: f64, bursts: Option<Bursts>) -> Schedule {
        let bursts = bursts.map(|bursts| (fitting(per_second, bursts.length), bursts.every.as_nanos() as Nanos));
        Schedule { per_second, bursts }
    }

    /// When message `index` is due, counted from the beginning.
    pub fn time(&self, index: u64) -> Nanos {
        let steady = |index: u64| (index as f64 * 1e9 / self.per_second).ceil() as Nanos;
        match self.bursts {
            None => steady(index),
            Some((size, every)) => index / size * every + steady(index % size),
        }
    }

    /// The first message that is due at `elapsed` or later.
    pub fn first_from(&self, elapsed: Nanos) -> u64 {
        let steady = |elapsed: Nanos| (elapsed as f64 * self.per_second / 1e9 - 1e-6).ceil().max(0.0) as u64;
        match self.bursts {
            None => steady(elapsed),
            Some((size, every)) => {
                (elapsed / every).saturating_mul(size).saturating_add(steady(elapsed % every).min(size))
            }
        }
    }

    /// How many messages fall into `duration`.
    pub fn messages(&self, duration: Duration) -> u64 {
        let Some((size, every)) = self.bursts else { return fitting(self.per_second, duration) };
        let (bursts, rest) = (duration.as_nanos() as Nanos / every, duration.as_nanos() as Nanos % every);
        bursts * size + fitting(self.per_second, Duration::from_nanos(rest)).min(size)
    }
}

/// A little more, so that 0.1 s at 30/s is three messages, whatever the last bit of a fraction says.
fn fitting(per_second: f64, duration: Duration) -> u64 {
    (per_second * duration.as_secs_f64() + 1e-6).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_steady_schedule_is_a_straight_line() {
        for per_second in [0.3, 1.0, 7.0, 30.0, 5000.0] {
            let schedule = Schedule::new(per_second, None);
            assert_eq!(schedule.time(0), 0);
            let tenth = schedule.time(10) as f64;
            assert!((tenth - 10e9 / per_second).abs() <= 1.0, "{per_second}");
        }
        assert_eq!(Schedule::new(30.0, None).messages(seconds(0.1)), 3);
        assert_eq!(Schedule::new(0.5, None).messages(seconds(3.0)), 1);
        assert_eq!(Schedule::new(0.0, None).messages(seconds(3.0)), 0);
    }

    #[test]
    fn the_first_from_a_time_on_is_not_due_before_it() {
        let bursts = Some(Bursts { length: seconds(0.5), every: seconds(2.0) });
        for schedule in [Schedule::new(7.0, None), Schedule::new(1000.0, None), Schedule::new(30.0, bursts)] {
            for elapsed in (0..5_000_000_000).step_by(37_000_001) {
                let first = schedule.first_from(elapsed);
                assert!(schedule.time(first) + 1_000 >= elapsed, "{first} of {schedule:?} at {elapsed}");
                assert!(
                    first == 0 || schedule.time(first - 1) < elapsed + 1_000,
                    "{first} of {schedule:?} at {elapsed}"
                );
            }
        }
    }

    #[test]
    fn bursts_rest_between_them() {
        let schedule = Schedule::new(1000.0, Some(Bursts { length: seconds(2.0), every: seconds(10.0) }));
        let millis = |index| schedule.time(index) / 1_000_000;
        assert_eq!([0, 1, 1999, 2000, 2001, 4000].map(millis), [0, 1, 1999, 10_000, 10_001, 20_000]);
        let messages = |duration| schedule.messages(seconds(duration));
        assert_eq!([1.0, 2.0, 9.0, 10.0, 11.0, 30.0].map(messages), [1000, 2000, 2000, 2000, 3000, 6000]);
    }
}
