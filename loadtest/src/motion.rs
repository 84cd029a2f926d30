//! Motion: what some of the clients do while messages are published: drop and come back, join late, or stop reading.
//!
//! ```text
//!     at               at + over
//!     ├─ one client after the other ─┤ (again and again, with repeat)
//! ```
//!
//! The clients that move are spread evenly over all, so that every thread and every room has its share of them.

use crate::clock::Nanos;
use crate::units;
use serde::Deserialize;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Motion {
    pub kind: Kind,
    /// How many of the clients move, 1.0 for all.
    pub share: f64,
    /// When the first one moves, counted from the first message. At once, unless told.
    #[serde(default, deserialize_with = "units::deserialize_duration_or_zero")]
    pub at: Duration,
    /// How long it takes until all have moved. Zero, which is the default: all at the same moment.
    #[serde(default, deserialize_with = "units::deserialize_duration_or_zero")]
    pub over: Duration,
    /// Whether the first one begins anew when the last one has moved.
    #[serde(default)]
    pub repeat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Stops reading, and stays.
    Stall,
    /// Closes its connection and comes back as fast as it can.
    Drop,
    /// Is connected from the beginning, and joins its rooms only now.
    Join,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Stall => "stall",
            Kind::Drop => "drop",
            Kind::Join => "join",
        }
    }
}

impl Motion {
    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err("share is above 0 and at most 1, which is all clients".to_owned());
        }
        if self.repeat && (self.kind != Kind::Drop || self.over.is_zero()) {
            return Err("only kind = \"drop\" can repeat, and only with a time that it takes (over)".to_owned());
        }
        Ok(())
    }

    /// Whether client number `client` is one of those that move.
    pub fn moves(&self, client: u32) -> bool {
        let before = |clients: u32| (f64::from(clients) * self.share + 1e-9).floor();
        before(client + 1) > before(client)
    }

    /// Whether client number `client` joins its rooms only when it moves.
    pub fn joins_late(&self, client: u32) -> bool {
        self.kind == Kind::Join && self.moves(client)
    }

    /// How many moves `movers` clients should have made when messages have been published for `elapsed`.
    pub fn due(&self, movers: usize, elapsed: Nanos) -> u64 {
        let Some(since) = elapsed.checked_sub(self.at.as_nanos() as Nanos) else { return 0 };
        if self.over.is_zero() {
            return movers as u64;
        }
        let due = (since as f64 / self.over.as_nanos() as f64 * movers as f64) as u64;
        if self.repeat { due } else { due.min(movers as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP: Motion =
        Motion { kind: Kind::Drop, share: 0.5, at: Duration::from_secs(1), over: Duration::ZERO, repeat: false };

    #[test]
    fn the_share_is_met_and_spread() {
        for share in [0.01, 0.1, 1.0 / 3.0, 0.5, 0.9, 1.0] {
            let motion = Motion { share, ..DROP };
            for clients in [10_u32, 100, 1000, 12_345] {
                let movers = (0..clients).filter(|client| motion.moves(*client)).count();
                assert_eq!(movers, (f64::from(clients) * share + 1e-9) as usize, "{share} of {clients}");
            }
            let longest_rest =
                (0..1000).collect::<Vec<_>>().split(|client| motion.moves(*client)).map(<[_]>::len).max();
            assert!(longest_rest.is_some_and(|rest| rest as f64 <= 1.0 / share), "{share}");
        }
    }

    #[test]
    fn all_at_once_one_by_one_and_again() {
        let second = 1_000_000_000;
        assert_eq!([0, second - 1, second, 9 * second].map(|elapsed| DROP.due(10, elapsed)), [0, 0, 10, 10]);
        let slow = Motion { over: Duration::from_secs(10), ..DROP };
        assert_eq!([0, 1, 2, 6, 11, 21].map(|seconds| slow.due(10, seconds * second)), [0, 0, 1, 5, 10, 10]);
        let again = Motion { repeat: true, ..slow };
        assert_eq!([1, 6, 11, 21].map(|seconds| again.due(10, seconds * second)), [0, 5, 10, 20]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(DROP.check(), Ok(()));
        for wrong in [
            Motion { share: 0.0, ..DROP },
            Motion { share: 1.1, ..DROP },
            Motion { share: f64::NAN, ..DROP },
            Motion { repeat: true, ..DROP },
            Motion { repeat: true, kind: Kind::Stall, over: Duration::from_secs(1), ..DROP },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
