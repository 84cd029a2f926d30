//! Wheel: what is due when. Two in each shard: one for heartbeats, one for ack deadlines and all other timeouts.
//!
//! A hashed wheel of coarse slots. Scheduling is a push, expiry takes a slot's entries at once, and nothing is ever
//! cancelled: whoever is woken looks whether its deadline still stands and schedules itself again if it moved. An entry
//! that is farther away than a turn of the wheel (8 s) is looked at once each turn. A heap would also do; a push into a
//! wheel does not grow with the number of clients.
//!
//! An entry need not hold its deadline: whoever owns the wheel tells it. So a heartbeat is eight bytes here, as its session
//! knows the time.
//!
//! Invariants: an entry is never handed out before it is due; `occupied` has a bit for exactly the non-empty slots.
//! Limits:     deadlines are rounded up to [`TICK_MS`]; one more than a turn of the wheel away just goes round again.

use super::slack::Slack as _;
use std::time::Duration;

/// Milliseconds since the shard's start.
pub type Millis = u64;

/// A time to wait that never ends, but that can be added to any moment: 139 years.
pub const FOREVER: Millis = 1 << 42;

/// A time to wait, which may be [`Duration::MAX`].
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(FOREVER).min(FOREVER)
}

/// Length of one slot.
pub const TICK_MS: u64 = 1;
const SLOTS: usize = 8192;
const WORDS: usize = SLOTS / 64;

pub struct Wheel<T> {
    slots: Vec<Vec<T>>,
    occupied: [u64; WORDS],
    /// Every tick before this one has been handed out.
    tick: u64,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; WORDS], tick: 0 }
    }
}

impl<T> Wheel<T> {
    pub fn schedule(&mut self, due: Millis, what: T) {
        let slot = slot(due.div_ceil(TICK_MS).max(self.tick));
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.slots[slot].push(what);
    }

    /// Takes everything that is due at `now`, in order of slots. `due_of` tells when an entry is due; one that is due at
    /// another time than it was scheduled for, or never, has lost its meaning and goes.
    pub fn advance(&mut self, now: Millis, due_of: impl Fn(&T) -> Option<Millis>, mut expire: impl FnMut(T)) {
        let until = now / TICK_MS;
        // After a long sleep one full turn reaches every slot; more would only repeat it.
        let turns = (until + 1).saturating_sub(self.tick).min(SLOTS as u64);
        for tick in (until + 1 - turns)..=until {
            let at = slot(tick);
            if self.occupied[at / 64] & 1 << (at % 64) == 0 {
                continue;
            }
            let due_of = |entry: &T| due_of(entry).map(|due| due.div_ceil(TICK_MS));
            let entries = &mut self.slots[at];
            for entry in entries.extract_if(.., |entry| due_of(entry).is_none_or(|due| due <= until || slot(due) != at))
            {
                if due_of(&entry).is_some_and(|due| due <= until) {
                    expire(entry);
                }
            }
            if entries.is_empty() {
                self.occupied[at / 64] &= !(1 << (at % 64));
                // Not kept for the next time: there are thousands of slots.
                *entries = Vec::new();
            } else {
                entries.trim();
            }
        }
        self.tick = self.tick.max(until + 1);
    }

    /// When `advance` is to be called next. It may be early, never late. `None`: nothing is scheduled.
    pub fn next_due(&self) -> Option<Millis> {
        let from = slot(self.tick);
        // The word of `from` is looked at twice: its high bits first, its low bits after a full turn.
        (0..=WORDS).find_map(|step| {
            let word = (from / 64 + step) % WORDS;
            let reachable = match step {
                0 => !0 << (from % 64),
                WORDS => !(!0 << (from % 64)),
                _ => !0,
            };
            let bits = self.occupied[word] & reachable;
            let slot = word * 64 + bits.trailing_zeros() as usize;
            let ahead = (slot + SLOTS - from) % SLOTS;
            (bits != 0).then_some((self.tick + ahead as u64) * TICK_MS)
        })
    }
}

#[cfg(test)]
impl<T> Wheel<T> {
    pub fn capacity(&self) -> usize {
        self.slots.iter().map(Vec::capacity).sum()
    }
}

fn slot(tick: u64) -> usize {
    tick as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry that holds its deadline.
    type Dated = (Millis, u32);

    fn advanced(wheel: &mut Wheel<Dated>, now: Millis) -> Vec<u32> {
        let mut expired = Vec::new();
        wheel.advance(now, |(due, _)| Some(*due), |(_, number)| expired.push(number));
        expired
    }

    #[test]
    fn nothing_is_early_and_nothing_is_late() {
        let turn = TICK_MS * SLOTS as u64;
        for due in [0, 1, TICK_MS, TICK_MS + 1, 1000, turn - 1, turn, turn + 1, 3 * turn + 5] {
            let mut wheel = Wheel::default();
            wheel.schedule(due, (due, 7));
            let mut now = 0;
            loop {
                let next = wheel.next_due().expect("one entry waits");
                assert!(next >= now, "time goes forward");
                now = next;
                let expired = advanced(&mut wheel, now);
                if expired == [7] {
                    break;
                }
                assert!(expired.is_empty());
            }
            assert!(now >= due && now < due + TICK_MS, "due {due}, came {now}");
            assert_eq!(wheel.next_due(), None);
        }
    }

    #[test]
    fn a_long_sleep_hands_out_everything_at_once() {
        let mut wheel = Wheel::default();
        (0..5000).for_each(|i| wheel.schedule(u64::from(i) * 7, (u64::from(i) * 7, i)));
        let mut expired = advanced(&mut wheel, 40_000_000);
        expired.sort_unstable();
        assert_eq!(expired, (0..5000).collect::<Vec<_>>());
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn what_is_scheduled_in_the_past_comes_next() {
        let mut wheel = Wheel::default();
        assert!(advanced(&mut wheel, 1000).is_empty());
        wheel.schedule(10, (10, 1));
        assert_eq!(advanced(&mut wheel, 1000 + TICK_MS), [1]);
    }

    #[test]
    fn a_deadline_that_its_owner_knows_may_move_and_may_vanish() {
        let turn = TICK_MS * SLOTS as u64;
        let mut wheel = Wheel::default();
        (0..4).for_each(|owner| wheel.schedule(100, owner));
        wheel.schedule(300, 1);
        // Number 0 is as it was, 1 was scheduled anew, 2 has gone, 3 goes round.
        let dues = [Some(100), Some(300), None, Some(100 + turn)];
        let mut expired = Vec::new();
        let mut advance = |now| {
            wheel.advance(now, |&owner: &usize| dues[owner], |owner| expired.push(owner));
            (std::mem::take(&mut expired), wheel.slots.iter().map(Vec::len).sum::<usize>())
        };
        assert_eq!(advance(100), (vec![0], 2), "1 goes without a word, and so does 2");
        assert_eq!(advance(300), (vec![1], 1));
        assert_eq!(advance(100 + turn), (vec![3], 0));
    }
}
