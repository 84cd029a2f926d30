//! Delays: how long messages took, from when each should have left; what limits, reports and charts speak of.

use crate::board::Board;
use crate::clock::Nanos;
use crate::marks::Marks;
use crate::rooms::Rooms;
use crate::tally::Times;

#[derive(Clone, Default)]
pub struct Delays {
    /// Of each message: until the first, the median, the 99th percentile and the last client of its room had it.
    pub first: Times,
    pub median: Times,
    pub p99: Times,
    pub last: Times,
    /// Every delivery by itself.
    pub delivery: Times,
    /// Messages that somebody waited for.
    pub awaited: u32,
    /// Those among them that reached everyone. The others have no last receiver.
    pub complete: u32,
}

/// The delays of last receivers, by when their messages were due: before the first client moved, from then on until the
/// last one was back, and later.
#[derive(Clone, Default)]
pub struct Beside {
    pub before: Times,
    pub during: Times,
    pub after: Times,
}

impl Beside {
    /// Clients moved from `begin` to `end`; `None` is never.
    pub fn new(board: &Board, begin: Option<Nanos>, end: Option<Nanos>) -> Beside {
        let mut beside = Beside::default();
        for message in 0..board.sent() {
            let Some(delay) = board.marks.of(message).last else { continue };
            let due = board.schedule.time(message.into());
            let times = match due {
                _ if begin.is_none_or(|begin| due < begin) => &mut beside.before,
                _ if end.is_none_or(|end| due <= end) => &mut beside.during,
                _ => &mut beside.after,
            };
            times.record(delay);
        }
        beside
    }
}

impl Delays {
    /// Of the messages published. One that has a key may rightly reach nobody, or not everyone; then it is not awaited.
    pub fn new(board: &Board, delivery: Times) -> Delays {
        let refused = board.refusals.from(0);
        let taken = (0..board.sent()).filter(|message| refused.binary_search(message).is_err());
        Delays::of(&board.marks, &board.rooms, taken, board.plan.keys > 0, delivery)
    }

    fn of(marks: &Marks, rooms: &Rooms, messages: impl Iterator<Item = u32>, keyed: bool, delivery: Times) -> Delays {
        let mut delays = Delays { delivery, ..Delays::default() };
        for message in messages.filter(|message| rooms.audience(rooms.room(*message)) > 0) {
            let mark = marks.of(message);
            if keyed && mark.last.is_none() {
                continue;
            }
            delays.awaited += 1;
            delays.complete += u32::from(mark.last.is_some());
            for (time, times) in [
                (mark.first, &mut delays.first),
                (mark.median, &mut delays.median),
                (mark.p99, &mut delays.p99),
                (mark.last, &mut delays.last),
            ] {
                time.into_iter().for_each(|time| times.record(time));
            }
        }
        delays
    }

    pub fn named(&self) -> [(&'static str, &Times); 5] {
        [
            ("first", &self.first),
            ("median", &self.median),
            ("p99", &self.p99),
            ("last", &self.last),
            ("delivery", &self.delivery),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn a_message_that_did_not_reach_everyone_has_no_last_receiver() {
        let (marks, rooms) = (Marks::new(3), Rooms::new(None, &scenario::Rooms::default(), None, 2, 0));
        for (message, millis) in [(0, 4), (0, 6), (1, 5)] {
            marks.arrive(message, 2, millis * 1_000_000);
        }
        let delays = Delays::of(&marks, &rooms, 0..3, false, Times::default());
        assert_eq!((delays.awaited, delays.complete), (3, 1));
        assert_eq!(delays.named().map(|(_, times)| times.samples()), [2, 2, 1, 1, 0]);
        assert_eq!(delays.last.max() / 1_000_000, 6);
        let keyed = Delays::of(&marks, &rooms, 0..3, true, Times::default());
        assert_eq!((keyed.awaited, keyed.complete, keyed.first.samples()), (1, 1, 1));
    }
}
