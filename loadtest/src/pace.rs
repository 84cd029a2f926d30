//! Pace: how many of something happened in each tenth of a second of the run, and so in each second since the first.
//!
//! Seconds begin with the first that was noted: those of the run would cut an even flow into uneven ones at both ends.

use crate::clock::Nanos;
use crate::record;
use serde::{Deserialize, Serialize};

const STEP: Nanos = 100_000_000;
const STEPS_PER_SECOND: usize = 10;

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Pace(Vec<u64>);

impl Pace {
    /// One more, so long after the first message was due.
    pub fn note(&mut self, elapsed: Nanos) {
        let step = (elapsed / STEP) as usize;
        if step >= self.0.len() {
            self.0.resize(step + 1, 0);
        }
        self.0[step] += 1;
    }

    pub fn add(&mut self, other: &Pace) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(sum, number)| *sum += number);
    }

    pub fn record(&self) -> record::Pace {
        let first = self.0.iter().position(|number| *number > 0).unwrap_or(self.0.len());
        let steps = &self.0[first..];
        let per_s: Vec<u64> = steps.chunks(STEPS_PER_SECOND).map(|second| second.iter().sum()).collect();
        let seconds = (steps.len() as f64 / STEPS_PER_SECOND as f64).max(1.0);
        record::Pace {
            largest: per_s.iter().copied().max().unwrap_or(0),
            mean: steps.iter().sum::<u64>() as f64 / seconds,
            per_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_begin_with_the_first() {
        let (mut pace, mut more) = (Pace::default(), Pace::default());
        (0..100).for_each(|step| pace.note(350_000_000 + step * 25_000_000));
        assert_eq!(pace.record(), record::Pace { per_s: vec![38, 40, 22], largest: 40, mean: 100.0 / 2.6 });
        more.note(3_000_000_000);
        pace.add(&more);
        assert_eq!(pace.record().per_s, [38, 40, 23]);
        assert_eq!(Pace::default().record(), record::Pace::default());
    }

    #[test]
    fn what_is_over_in_less_than_a_second_is_a_second() {
        let mut pace = Pace::default();
        (0..7).for_each(|_| pace.note(100));
        assert_eq!(pace.record(), record::Pace { per_s: vec![7], largest: 7, mean: 7.0 });
    }
}
