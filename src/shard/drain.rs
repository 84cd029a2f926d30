//! Drain: the graceful end of a shard. Its clients are let go one after another, evenly over a time.
//!
//! ```text
//! still here  ■■■■■■■■■■■■■■■■■■■■
//!             ■■■■■■■■■■■■■■            a straight line from `drain` to `over` later
//!             ■■■■■■■
//!             ■
//! ```
//!
//! All at once would be simpler, and would send the whole crowd to the next node in the same second. So each step lets as
//! many go as the line says, those included who left by themselves: they come back elsewhere too.
//!
//! Who goes is a matter of slots and not of age. The walk over the arena takes strides of the golden ratio, so that those
//! who have gone are at each moment spread evenly over those who came early and late, and nobody is listed or sorted.
//!
//! Whoever has not been let go yet lives on completely. Nobody joins: `admit` refuses from the beginning.
//!
//! Limits: [`PACE_MIN`], so that few clients are soon gone; [`STEP_SLOTS_MAX`] and [`STEP_CLIENTS_MAX`] for one step. What
//!         they leave behind comes with the next turn.

use super::wheel::Millis;
use super::{Shard, Timer};
use crate::error::CloseReason;

/// The slowest pace, in clients per second of the whole server. The next node does not notice a hundred reconnects in a
/// second, and a server with a dozen clients ends at once.
pub(super) const PACE_MIN: u64 = 100;
/// Time between two steps: short enough that what goes in one second is many small steps, long enough to cost nothing.
const STEP_MS: Millis = 10;
/// Slots that one step looks at: some hundred microseconds, in an arena that is nearly empty.
const STEP_SLOTS_MAX: usize = 4096;
/// Clients that one step lets go: a millisecond of closing, in the order of what a turn may write.
pub(super) const STEP_CLIENTS_MAX: u64 = 512;

#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    begun: Millis,
    over: Millis,
    /// Sessions that were open when it began, and how many had closed by then.
    open: u64,
    closed: u64,
    walk: Walk,
}

impl Drain {
    /// How many shall be gone by now.
    fn gone_by(&self, now: Millis) -> u64 {
        let elapsed = (now - self.begun).min(self.over);
        if elapsed == self.over { self.open } else { self.open * elapsed / self.over }
    }
}

/// Every slot below a power of two once, in strides of the golden ratio.
#[derive(Clone, Copy, Debug)]
struct Walk {
    slots: u32,
    at: u32,
    left: u32,
}

impl Walk {
    fn over(slots: usize) -> Walk {
        let slots = slots.next_power_of_two() as u32;
        Walk { slots, at: 0, left: slots }
    }
}

impl Iterator for Walk {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        // An odd stride meets every slot of a power of two. 0x9e3779b9 is the golden ratio of 2^32.
        let stride = ((u64::from(self.slots) * 0x9e37_79b9) >> 32) as u32 | 1;
        self.at = self.at.wrapping_add(stride) & (self.slots - 1);
        Some(self.at)
    }
}

impl Shard {
    /// Takes nobody in from now on, and lets the clients go evenly over this time, or sooner if they are few. Called again,
    /// it begins anew with those who are left.
    pub fn drain(&mut self, over: Millis) {
        self.draining = true;
        let open = self.open_count();
        let enough = open * 1000 * u64::from(self.shards) / PACE_MIN;
        let walk = Walk::over(self.sessions.slots());
        let drain = Drain { begun: self.now, over: over.min(enough), open, closed: self.counters.closed, walk };
        if self.drain.replace(drain).is_none() {
            self.wake_at(self.now, Timer::Drain);
        }
    }

    /// Whether it drains, and how many sessions are still to be let go.
    pub fn draining(&self) -> Option<u64> {
        self.draining.then(|| self.open_count())
    }

    pub(super) fn drain_due(&mut self) {
        let Some(mut drain) = self.drain else { return };
        let due = drain.gone_by(self.now);
        let most = self.counters.let_go + STEP_CLIENTS_MAX;
        let mut slots = drain.walk.by_ref().take(STEP_SLOTS_MAX);
        while self.counters.closed - drain.closed < due
            && self.counters.let_go < most
            && let Some(slot) = slots.next()
        {
            if let Some(session) = self.sessions.key_at(slot) {
                self.give_held(session);
                self.close(session, CloseReason::ServerShuttingDown);
            }
        }
        let is_behind = self.counters.closed - drain.closed < due;
        self.drain = (self.open_count() > 0).then_some(drain);
        if self.drain.is_some() {
            self.wake_at(self.now + if is_behind { 0 } else { STEP_MS }, Timer::Drain);
        }
    }

    fn open_count(&self) -> u64 {
        self.counters.opened - self.counters.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_meets_every_slot_once_and_is_spread_evenly_all_the_while() {
        for slots in [0, 1, 2, 3, 255, 256, 257, 5_000] {
            let met: Vec<_> = Walk::over(slots).collect();
            let mut sorted = met.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..slots.next_power_of_two() as u32).collect::<Vec<_>>());
        }
        // A sixteenth of the walk meets each sixteenth of the slots as often as the others, within a few.
        let slots = 1 << 16;
        let mut met = [0; 16];
        Walk::over(slots).take(slots / 16).for_each(|slot| met[slot as usize * 16 / slots] += 1);
        assert!(met.iter().all(|count| (250..=262).contains(count)), "{met:?}");
    }
}
