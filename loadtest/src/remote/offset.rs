//! Offset: how far another machine's clock is ahead of ours, and how well that is known.
//!
//! ```text
//!     ours    ─── sent ─────────────────── received ───▶
//!                   ╲                      ╱
//!     theirs  ─────── theirs ──────────────────────────▶      some time between the two, taken for the middle
//! ```
//!
//! However the round trip was shared between there and back, the middle is off by half of it at most. So the shortest
//! of several rounds knows best, and averages would not help: queues delay one way more than the other.

use crate::clock::Nanos;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Their clock minus ours.
    pub ahead: i64,
    pub uncertainty: Nanos,
}

impl Offset {
    /// From one round: our clock before and after, and theirs between.
    pub fn of_round(sent: Nanos, theirs: Nanos, received: Nanos) -> Offset {
        let round = received.saturating_sub(sent);
        Offset { ahead: (theirs as i64).wrapping_sub((sent + round / 2) as i64), uncertainty: round.div_ceil(2) }
    }

    pub fn best(self, other: Offset) -> Offset {
        if other.uncertainty < self.uncertainty { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_is_within_the_uncertainty_however_the_round_is_shared() {
        for (there, back) in [(0, 0), (1, 0), (0, 1), (50, 50), (99, 1), (1, 99), (10_000, 3), (7, 1_000_001)] {
            for ahead in [-5_000_000_i64, -1, 0, 1, 123, 5_000_000_000] {
                let sent: Nanos = 10_000_000;
                let theirs = (sent + there).checked_add_signed(ahead).expect("it is after the start");
                let offset = Offset::of_round(sent, theirs, sent + there + back);
                let error = (offset.ahead - ahead).unsigned_abs();
                assert!(error <= offset.uncertainty, "{there} there, {back} back, {ahead} ahead: {offset:?}");
                assert_eq!(offset.uncertainty, (there + back).div_ceil(2));
            }
        }
    }

    #[test]
    fn equal_ways_give_the_offset_itself() {
        assert_eq!(Offset::of_round(100, 1_150, 200), Offset { ahead: 1_000, uncertainty: 50 });
    }

    #[test]
    fn the_shortest_round_knows_best() {
        let (long, short) = (Offset::of_round(0, 90, 100), Offset::of_round(0, 12, 20));
        assert_eq!(long.best(short), Offset { ahead: 2, uncertainty: 10 });
        assert_eq!(short.best(long), short.best(short));
    }
}
