//! Motion: what some of the clients do while messages are published: drop and come back, join late, stop reading, or
//! come back when the server closes them.
//!
//! ```text
//!     at               at + over
//!     ├─ one client after the other ─┤ (again and again, with repeat)
//! ```
//!
//! The clients that move are spread evenly over all, so that every thread and every room has its share of them.

use crate::clock::Nanos;
use crate::units;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The official client's `reconnectionDelay`; its `randomizationFactor` is a half, as ours.
const RETURN_AFTER: Duration = Duration::from_secs(1);

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
    /// Of drop and return: how long a client waits before it connects again, a half more or less, so that not all try at
    /// once. As the official client does, it is a second for those whom the server closed, and nothing else for a drop.
    #[serde(default, deserialize_with = "after")]
    pub after: Option<Duration>,
    /// Nobody moves after all. The same clients are counted as if they did, so that two runs can be compared.
    #[serde(skip)]
    pub still: bool,
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
    /// Comes back when the server closes it, to that server or to another one.
    Return,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Stall => "stall",
            Kind::Drop => "drop",
            Kind::Join => "join",
            Kind::Return => "return",
        }
    }
}

fn after<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
    units::deserialize_duration_or_zero(value).map(Some)
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
        if self.after.is_some() && !matches!(self.kind, Kind::Drop | Kind::Return) {
            return Err("after is for kind = \"drop\" and \"return\": the others do not come back".to_owned());
        }
        if self.kind == Kind::Return && !(self.at.is_zero() && self.over.is_zero()) {
            return Err("the server decides when clients return: leave out at and over".to_owned());
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
        self.kind == Kind::Join && !self.still && self.moves(client)
    }

    /// Whether client number `client` comes back when the server closes it.
    pub fn returns(&self, client: u32) -> bool {
        self.kind == Kind::Return && !self.still && self.moves(client)
    }

    /// How long a client that has gone waits before it connects again; `share` is its lot, from 0 to 1.
    pub fn pause(&self, share: f64) -> Nanos {
        let after = self.after.unwrap_or(if self.kind == Kind::Return { RETURN_AFTER } else { Duration::ZERO });
        (after.as_nanos() as f64 * (0.5 + share)) as Nanos
    }

    /// How many moves `movers` clients should have made when messages have been published for `elapsed`.
    pub fn due(&self, movers: usize, elapsed: Nanos) -> u64 {
        if self.still || self.kind == Kind::Return {
            return 0;
        }
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

    const DROP: Motion = Motion {
        kind: Kind::Drop,
        share: 0.5,
        at: Duration::from_secs(1),
        over: Duration::ZERO,
        repeat: false,
        after: None,
        still: false,
    };

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
    fn who_is_still_makes_no_move_and_is_one_of_those_that_would() {
        let still = Motion { still: true, ..DROP };
        assert_eq!((still.due(10, 9_000_000_000), still.moves(1)), (0, DROP.moves(1)));
        let (join, back) = (Motion { kind: Kind::Join, ..still }, Motion { kind: Kind::Return, ..still });
        assert!((0..10).all(|client| !join.joins_late(client) && !back.returns(client)));
    }

    #[test]
    fn who_comes_back_waits_a_half_more_or_less() {
        let back = Motion { kind: Kind::Return, at: Duration::ZERO, ..DROP };
        assert_eq!(back.check(), Ok(()));
        assert_eq!([0.0, 0.5, 1.0].map(|share| back.pause(share) / 1_000_000), [500, 1000, 1500]);
        assert_eq!((back.due(10, 9_000_000_000), DROP.pause(1.0)), (0, 0), "the server decides when");
        let later = Motion { after: Some(Duration::from_secs(4)), ..DROP };
        assert_eq!(later.pause(0.0) / 1_000_000, 2000);
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
            Motion { kind: Kind::Stall, after: Some(Duration::ZERO), ..DROP },
            Motion { kind: Kind::Return, ..DROP },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
