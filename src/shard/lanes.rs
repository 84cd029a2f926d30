//! Lanes: the sessions that have something to write, in two queues.
//!
//! ```text
//!     swift   what few wait for: answers, heartbeats, small rooms      ──┐  three of four
//!     wide    the receivers of a broadcast to more than NARROW_MAX     ──┴▶ write     the others
//! ```
//!
//! A broadcast to a hundred thousand takes many turns to write. Whoever is owed an answer meanwhile does not wait behind
//! it, and it does not wait for them for ever.
//!
//! Invariants: a session is in a lane at most once, and knows it ([`Queued`]).

use super::slack::Slack as _;
use std::collections::VecDeque;

/// A broadcast that reaches more sockets of a shard than this is wide: half a turn's writes. In tests fewer, so that the
/// simulator's hundred clients are a wide room.
pub const NARROW_MAX: usize = if cfg!(test) { 16 } else { 512 };
/// Of so many sessions that are taken, one is of the wide lane although the swift one is not empty.
const WIDE_EVERY: u64 = 4;

/// In which lanes a session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    swift: bool,
    wide: bool,
    /// It has a job in the batch that is being made: met again in the other lane, it has nothing more to say.
    pub writing: bool,
}

impl Queued {
    #[cfg(test)]
    pub fn anywhere(self) -> bool {
        self.swift || self.wide
    }

    /// The session was taken from this lane.
    pub fn leave(&mut self, lane: Lane) {
        match lane {
            Lane::Swift => self.swift = false,
            Lane::Wide => self.wide = false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Swift,
    Wide,
}

pub struct Lanes<K> {
    swift: VecDeque<K>,
    wide: VecDeque<K>,
    /// How many have been taken from each.
    swift_taken: u64,
    wide_taken: u64,
}

impl<K> Default for Lanes<K> {
    fn default() -> Self {
        Lanes { swift: VecDeque::new(), wide: VecDeque::new(), swift_taken: 0, wide_taken: 0 }
    }
}

impl<K> Lanes<K> {
    /// Lists a session. Whoever is in the swift lane needs no other one; whoever is in the wide lane may be owed
    /// something sooner, and is in both then.
    pub fn add(&mut self, key: K, queued: &mut Queued, lane: Lane) {
        match lane {
            _ if queued.swift => {}
            Lane::Wide if queued.wide => {}
            Lane::Swift => {
                queued.swift = true;
                self.swift.push_back(key);
            }
            Lane::Wide => {
                queued.wide = true;
                self.wide.push_back(key);
            }
        }
    }

    /// The next session, and the lane that it leaves; the caller takes it from its [`Queued`].
    pub fn take(&mut self) -> Option<(K, Lane)> {
        let wide_first = (self.swift_taken + self.wide_taken + 1).is_multiple_of(WIDE_EVERY);
        let (first, second) = if wide_first { (Lane::Wide, Lane::Swift) } else { (Lane::Swift, Lane::Wide) };
        self.take_from(first).or_else(|| self.take_from(second))
    }

    fn take_from(&mut self, lane: Lane) -> Option<(K, Lane)> {
        let (keys, taken) = match lane {
            Lane::Swift => (&mut self.swift, &mut self.swift_taken),
            Lane::Wide => (&mut self.wide, &mut self.wide_taken),
        };
        let key = keys.pop_front()?;
        *taken += 1;
        Some((key, lane))
    }

    /// How many have been taken from a lane.
    pub fn taken(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Swift => self.swift_taken,
            Lane::Wide => self.wide_taken,
        }
    }

    /// How many have been listed in a lane: the number of the last one who waits there.
    pub fn listed(&self, lane: Lane) -> u64 {
        let waiting = match lane {
            Lane::Swift => self.swift.len(),
            Lane::Wide => self.wide.len(),
        };
        self.taken(lane) + waiting as u64
    }

    /// Gives memory back when the lanes have room for many more than there are. To be called once a turn.
    pub fn trim(&mut self, sessions: usize) {
        for lane in [&mut self.swift, &mut self.wide] {
            lane.trim_for(sessions);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.swift.is_empty() && self.wide.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_four_are_swift_while_both_wait() {
        let mut lanes = Lanes::default();
        for number in 0..16 {
            let lane = if number < 8 { Lane::Wide } else { Lane::Swift };
            lanes.add(number, &mut Queued::default(), lane);
        }
        let taken: Vec<_> = std::iter::from_fn(|| lanes.take()).map(|(_, lane)| lane == Lane::Wide).collect();
        let wide = |of: &[bool]| of.iter().filter(|wide| **wide).count();
        assert_eq!((wide(&taken[..8]), wide(&taken)), (2, 8));
        assert!(lanes.is_empty());
    }

    #[test]
    fn once_in_a_lane_and_the_swift_one_is_enough() {
        let (mut lanes, key, mut queued) = (Lanes::default(), 7, Queued::default());
        for lane in [Lane::Wide, Lane::Wide, Lane::Swift, Lane::Swift, Lane::Wide] {
            lanes.add(key, &mut queued, lane);
        }
        assert_eq!(lanes.take(), Some((key, Lane::Swift)));
        queued.leave(Lane::Swift);
        assert!(queued.anywhere(), "it is still among the wide");
        assert_eq!(lanes.take(), Some((key, Lane::Wide)));
        queued.leave(Lane::Wide);
        assert_eq!((lanes.take(), queued), (None, Queued::default()));
    }
}
