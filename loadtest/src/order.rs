//! Order: which messages one client has seen, and whether each came once and in its turn.
//!
//! Usually that is one number: the next sequence number. Only a client that missed something owns more, the ranges
//! that it misses, so a hundred thousand faultless clients cost sixteen bytes each.
//!
//! A client that joins in the middle expects nothing before its first message: its order is *open* until then.
//!
//! Invariants: missing ranges are sorted, apart, not empty, and below `next`.
//! Limits:     [`RANGES_MAX`] ranges per client. Beyond it the oldest is given up: it stays lost, and should it come
//!             after all, it counts as doubled. Such a run has failed thousands of times already.

use std::ops::Range;

const RANGES_MAX: usize = 4096;

#[derive(Default)]
pub struct Order {
    /// The next sequence number in turn, or [`OPEN`].
    next: u32,
    missing: Option<Box<Missing>>,
}

/// Whatever comes is in turn.
const OPEN: u32 = u32::MAX;

#[derive(Default)]
struct Missing {
    ranges: Vec<Range<u32>>,
    given_up: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// For the first time, in its turn or after a gap.
    InTurn,
    /// For the first time, but after a later one, whose number is given.
    After(u32),
    Again,
}

impl Order {
    /// Expects everything from the first message that comes.
    pub fn open() -> Order {
        Order { next: OPEN, missing: None }
    }

    /// Ends being open: everything from `sequence` on is expected. No effect on an order that is not open.
    pub fn begin(&mut self, sequence: u32) {
        if self.next == OPEN {
            self.next = sequence;
        }
    }

    /// The sequence number that should come next; `None` while that is open.
    pub fn next(&self) -> Option<u32> {
        Some(self.next).filter(|next| *next != OPEN)
    }

    pub fn see(&mut self, sequence: u32) -> Seen {
        self.begin(sequence);
        if sequence >= self.next {
            if sequence > self.next {
                self.miss(self.next..sequence);
            }
            self.next = sequence + 1;
            return Seen::InTurn;
        }
        if self.find(sequence) { Seen::After(self.next - 1) } else { Seen::Again }
    }

    /// Takes everything up to `sequence` for seen.
    pub fn pass(&mut self, sequence: u32) {
        self.begin(0);
        self.next = self.next.max(sequence + 1);
    }

    /// Whether `sequence`, which is before `end`, never came.
    pub fn misses(&self, sequence: u32, end: u32) -> bool {
        let missing = || self.missing.iter().flat_map(|missing| &missing.ranges).any(|gap| gap.contains(&sequence));
        sequence < end && (sequence >= self.next || missing())
    }

    /// How many of the messages before `end` never came.
    pub fn lost(&self, end: u32) -> u64 {
        // Of an open order nothing is lost: the subtraction saturates.
        let unseen = u64::from(end.saturating_sub(self.next));
        let missing = self.missing.as_deref();
        let missed =
            |missing: &Missing| missing.given_up + missing.ranges.iter().map(|gap| gap.len() as u64).sum::<u64>();
        unseen + missing.map_or(0, missed)
    }

    /// The first message before `end` that never came, those in `unpublished` apart.
    pub fn first_lost(&self, end: u32, unpublished: &[u32]) -> Option<u32> {
        let gaps = self.missing.iter().flat_map(|missing| missing.ranges.iter().cloned()).flatten();
        gaps.chain(self.next..end).find(|sequence| !unpublished.contains(sequence))
    }

    fn miss(&mut self, gap: Range<u32>) {
        let missing = self.missing.get_or_insert_default();
        missing.ranges.push(gap);
        if missing.ranges.len() > RANGES_MAX {
            missing.given_up += missing.ranges.remove(0).len() as u64;
        }
    }

    /// Whether `sequence` was missing; it no longer is.
    fn find(&mut self, sequence: u32) -> bool {
        let Some(missing) = &mut self.missing else { return false };
        let at = missing.ranges.partition_point(|gap| gap.end <= sequence);
        let Some(gap) = missing.ranges.get_mut(at).filter(|gap| gap.contains(&sequence)) else { return false };
        let behind = sequence + 1..gap.end;
        gap.end = sequence;
        let emptied = gap.start == sequence;
        if !behind.is_empty() {
            missing.ranges.insert(at + 1, behind);
        }
        if emptied {
            missing.ranges.remove(at);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_turn_costs_one_number() {
        let mut order = Order::default();
        assert!((0..1000).all(|sequence| order.see(sequence) == Seen::InTurn));
        assert!(order.missing.is_none());
        assert_eq!((order.lost(1000), order.first_lost(1000, &[])), (0, None));
        assert!(size_of::<Order>() <= 16);
    }

    #[test]
    fn the_table_of_faults() {
        use Seen::{After, Again, InTurn};
        type Row<'a> = (&'a [u32], &'a [Seen], u64, Option<u32>);
        let table: [Row<'_>; 7] = [
            (&[0, 2, 3], &[InTurn; 3], 1, Some(1)),
            (&[0, 1, 1, 2, 3], &[InTurn, InTurn, Again, InTurn, InTurn], 0, None),
            (&[0, 2, 1, 3], &[InTurn, InTurn, After(2), InTurn], 0, None),
            (&[3, 1, 0, 1, 2], &[InTurn, After(3), After(3), Again, After(3)], 0, None),
            (&[3], &[InTurn], 3, Some(0)),
            (&[0, 1, 2], &[InTurn; 3], 1, Some(3)),
            (&[], &[], 4, Some(0)),
        ];
        for (arrivals, expected, lost, first_lost) in table {
            let mut order = Order::default();
            let seen: Vec<_> = arrivals.iter().map(|&sequence| order.see(sequence)).collect();
            assert_eq!(seen, expected, "{arrivals:?}");
            assert_eq!((order.lost(4), order.first_lost(4, &[])), (lost, first_lost), "{arrivals:?}");
        }
    }

    /// Every way in which five messages can come, some not at all, some twice: the same as a plain list says.
    #[test]
    fn every_arrival_agrees_with_a_plain_list() {
        for code in 0..5_u32.pow(6) {
            let arrivals: Vec<u32> = (0..6).map(|place| code / 5_u32.pow(place) % 5).collect();
            let (mut order, mut list) = (Order::default(), Vec::new());
            for &sequence in &arrivals {
                let latest = list.iter().max().copied();
                let expected = match latest {
                    _ if list.contains(&sequence) => Seen::Again,
                    Some(latest) if latest > sequence => Seen::After(latest),
                    _ => Seen::InTurn,
                };
                assert_eq!(order.see(sequence), expected, "{arrivals:?}");
                list.push(sequence);
            }
            let lost = (0..5).filter(|sequence| !list.contains(sequence));
            assert_eq!(order.lost(5), lost.clone().count() as u64, "{arrivals:?}");
            assert_eq!(order.first_lost(5, &[]), lost.min(), "{arrivals:?}");
        }
    }

    #[test]
    fn an_open_order_begins_with_its_first_message() {
        let mut order = Order::open();
        assert_eq!((order.next(), order.lost(100), order.first_lost(100, &[])), (None, 0, None));
        assert_eq!([40, 41, 43].map(|sequence| order.see(sequence)), [Seen::InTurn; 3]);
        assert_eq!((order.next(), order.lost(45), order.first_lost(45, &[])), (Some(44), 2, Some(42)));
        assert_eq!(order.see(7), Seen::Again, "it is from before");
    }

    #[test]
    fn what_is_missing_is_known_by_its_number() {
        let mut order = Order::default();
        [0, 1, 4, 6].into_iter().for_each(|sequence| assert_eq!(order.see(sequence), Seen::InTurn));
        let missed: Vec<_> = (0..10).filter(|sequence| order.misses(*sequence, 9)).collect();
        assert_eq!(missed, [2, 3, 5, 7, 8]);
        assert_eq!(
            [&[][..], &[2], &[2, 3, 5, 7]].map(|unpublished| order.first_lost(9, unpublished)),
            [2, 3, 8].map(Some)
        );
        assert_eq!(order.first_lost(7, &[2, 3, 5]), None);
    }

    #[test]
    fn what_is_passed_is_not_missed() {
        for mut order in [Order::default(), Order::open()] {
            [4, 2].into_iter().for_each(|sequence| order.pass(sequence));
            assert_eq!((order.next(), order.lost(7)), (Some(5), 2));
        }
    }

    #[test]
    fn too_many_gaps_stay_lost_and_bounded() {
        let mut order = Order::default();
        let gaps = 2 * RANGES_MAX as u32;
        (0..gaps).for_each(|gap| assert_eq!(order.see(2 * gap + 1), Seen::InTurn));
        assert_eq!(order.lost(2 * gaps), u64::from(gaps));
        assert_eq!(order.missing.as_ref().map(|missing| missing.ranges.len()), Some(RANGES_MAX));
    }
}
