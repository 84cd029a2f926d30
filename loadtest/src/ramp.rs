//! Ramp: how many connections should have been begun by now; and schedule, the same thing for messages.
//!
//! Both are straight lines from a beginning. Neither waits for what it began: a slow server meets the next message at
//! its time all the same.

use crate::clock::Nanos;

#[derive(Clone, Copy)]
pub struct Ramp {
    pub begin: Nanos,
    pub per_second: f64,
}

impl Ramp {
    /// How many are due at `now`, the first at the beginning itself.
    pub fn due(&self, now: Nanos) -> u64 {
        let seconds = now.saturating_sub(self.begin) as f64 / 1e9;
        (seconds * self.per_second) as u64 + 1
    }

    /// When number `index` is due.
    pub fn time(&self, index: u64) -> Nanos {
        self.begin + (index as f64 * 1e9 / self.per_second).ceil() as Nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_due_at_its_time() {
        for per_second in [0.3, 1.0, 7.0, 1000.0, 5000.0] {
            let ramp = Ramp { begin: 5_000, per_second };
            assert_eq!((ramp.time(0), ramp.due(0), ramp.due(5_000)), (5_000, 1, 1));
            for index in 1..1000 {
                assert!(ramp.due(ramp.time(index) + 1) > index, "{index} at {per_second}/s");
                assert!(ramp.due(ramp.time(index) - 2) <= index, "{index} at {per_second}/s");
            }
        }
    }
}
