//! Marks: of each message, when the first, the median, the 99th percentile and the last client of its room had it.
//!
//! Deliveries of one message happen in the order of time, so the arrival that completes half of the audience *is* the
//! median and the last one *is* the last receiver: exact, for one counter and four times per message, whatever the
//! number of clients. Threads share the counters. Two of them may swap neighbouring ranks, by as much as the time
//! between reading the clock and counting, which is microseconds.
//!
//! Several generators have marks of their own, each for its own clients. Merged, the first is the first of all and the
//! last the last of all, exact as far as their clocks agree. Median and 99th percentile are the latest of theirs: by
//! then at least as many of all clients had the message, so they are upper bounds, and the closer to the truth the more
//! alike the generators' clients are served.

use crate::clock::Nanos;
use crate::rooms::Rooms;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub struct Marks {
    messages: Vec<Message>,
}

/// First, median, 99th percentile and last as they are kept: microseconds, zero for those that are not reached.
pub type Micros = [u32; 4];

/// Times are microseconds from when the message was due, rounded up; zero is "not yet".
#[derive(Default)]
struct Message {
    received: AtomicU32,
    first: AtomicU32,
    median: AtomicU32,
    p99: AtomicU32,
    last: AtomicU32,
}

/// The marks of one message that have been reached, each a delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub first: Option<Nanos>,
    pub median: Option<Nanos>,
    pub p99: Option<Nanos>,
    pub last: Option<Nanos>,
}

impl Marks {
    pub fn new(messages: u32) -> Marks {
        Marks { messages: (0..messages).map(|_| Message::default()).collect() }
    }

    /// Counts one of `audience` clients that receives `message` for the first time, `delay` after it was due.
    pub fn arrive(&self, message: u32, audience: u32, delay: Nanos) {
        let marks = &self.messages[message as usize];
        let micros = u32::try_from(delay.div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        // Relaxed: nothing but the numbers themselves is told to the other threads.
        let rank = marks.received.fetch_add(1, Relaxed) + 1;
        let share = |percent: u64| (u64::from(audience) * percent).div_ceil(100) as u32;
        for (wanted, mark) in
            [(1, &marks.first), (share(50), &marks.median), (share(99), &marks.p99), (audience, &marks.last)]
        {
            if rank == wanted {
                mark.store(micros, Relaxed);
            }
        }
    }

    pub fn count(&self) -> u32 {
        self.messages.len() as u32
    }

    pub fn of(&self, message: u32) -> Mark {
        let reached = |micros: u32| Some(u64::from(micros) * 1000).filter(|time| *time > 0);
        let [first, median, p99, last] = self.micros(message).map(reached);
        Mark { first, median, p99, last }
    }

    pub fn micros(&self, message: u32) -> Micros {
        self.messages[message as usize].marks().map(|mark| mark.load(Relaxed))
    }

    fn set(&self, message: u32, micros: Micros) {
        self.messages[message as usize]
            .marks()
            .iter()
            .zip(micros)
            .for_each(|(mark, micros)| mark.store(micros, Relaxed));
    }
}

impl Message {
    fn marks(&self) -> [&AtomicU32; 4] {
        [&self.first, &self.median, &self.p99, &self.last]
    }
}

/// Makes the marks of several generators those of all. A message has its first one as soon as a generator tells one,
/// and the others when all that have clients in its room have told.
pub struct Merge<'a> {
    marks: &'a Marks,
    messages: Mutex<Vec<Merging>>,
}

/// One message of which not everything is told.
#[derive(Clone, Copy)]
struct Merging {
    /// Generators that have not told yet.
    awaited: u32,
    /// The first so far; of the others the latest.
    micros: Micros,
    /// Whether every generator so far reached it.
    reached: [bool; 4],
}

impl<'a> Merge<'a> {
    /// `parts` are the numbers of each generator's clients.
    pub fn new(marks: &'a Marks, rooms: &Rooms, parts: &[Range<u32>]) -> Merge<'a> {
        let audiences: Vec<_> = parts.iter().map(|part| rooms.audience_among(part.clone())).collect();
        let generators = |room: u32| audiences.iter().filter(|audience| audience[room as usize] > 0).count() as u32;
        let merging = |awaited| Merging { awaited, micros: [0; 4], reached: [true; 4] };
        let messages = if parts.is_empty() { 0 } else { marks.count() };
        let messages = (0..messages).map(|message| merging(generators(rooms.room(message)))).collect();
        Merge { marks, messages: Mutex::new(messages) }
    }

    /// What one generator tells of one message, once. `None`: nobody has to tell anything of that message any more.
    pub fn take(&self, message: u32, told: Micros) -> Option<()> {
        let mut messages = self.messages.lock().expect("nobody panics while holding it");
        let merging = messages.get_mut(message as usize)?;
        merging.awaited = merging.awaited.checked_sub(1)?;
        for ((micros, reached), told) in merging.micros.iter_mut().zip(&mut merging.reached).zip(told) {
            *micros = (*micros).max(told);
            *reached &= told > 0;
        }
        let before = self.marks.micros(message)[0];
        let first = [before, told[0]].into_iter().filter(|micros| *micros > 0).min().unwrap_or(0);
        let complete = merging.awaited == 0;
        let mark = |at: usize| if complete && merging.reached[at] { merging.micros[at] } else { 0 };
        self.marks.set(message, [first, mark(1), mark(2), mark(3)]);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn each_rank_leaves_its_time() {
        for audience in [1, 2, 3, 99, 100, 101, 1000] {
            let marks = Marks::new(1);
            assert_eq!(marks.of(0), Mark::default());
            (1..=audience).for_each(|rank| marks.arrive(0, audience, u64::from(rank) * 1000));
            let at = |rank: u32| Some(u64::from(rank) * 1000);
            let (median, p99) = (at(audience.div_ceil(2)), at((audience * 99).div_ceil(100)));
            assert_eq!(marks.of(0), Mark { first: at(1), median, p99, last: at(audience) }, "{audience}");
        }
    }

    #[test]
    fn what_did_not_reach_everyone_has_no_last() {
        let marks = Marks::new(2);
        (0..9).for_each(|_| marks.arrive(1, 10, 5_000));
        let mark = marks.of(1);
        assert_eq!((mark.first, mark.median, mark.p99, mark.last), (Some(5_000), Some(5_000), None, None));
        assert_eq!(marks.of(0), Mark::default());
    }

    /// Ten clients, in one room.
    fn rooms() -> Rooms {
        Rooms::new(None, &scenario::Rooms::default(), None, 10, 0)
    }

    #[test]
    fn the_marks_of_all_are_the_first_and_the_latest() {
        let marks = Marks::new(1);
        let merge = Merge::new(&marks, &rooms(), &[0..5, 5..10]);
        assert_eq!(merge.take(0, [30, 50, 80, 90]), Some(()));
        assert_eq!(marks.micros(0), [30, 0, 0, 0], "another one may be slower");
        assert_eq!(merge.take(0, [20, 60, 70, 85]), Some(()));
        assert_eq!(marks.micros(0), [20, 60, 80, 90]);
        assert_eq!(merge.take(0, [1, 1, 1, 1]), None, "nobody is left to tell");
        assert_eq!(merge.take(1, [1, 1, 1, 1]), None, "there is no such message");
    }

    #[test]
    fn what_one_of_them_did_not_reach_is_not_reached() {
        let marks = Marks::new(2);
        let merge = Merge::new(&marks, &rooms(), &[0..5, 5..10]);
        for told in [[0, 0, 0, 0], [20, 60, 70, 85]] {
            assert_eq!(merge.take(0, told), Some(()));
        }
        assert_eq!(marks.micros(0), [20, 0, 0, 0]);
        for told in [[20, 60, 70, 85], [7, 8, 9, 0]] {
            assert_eq!(merge.take(1, told), Some(()));
        }
        assert_eq!(marks.micros(1), [7, 60, 70, 0]);
    }

    #[test]
    fn who_has_no_clients_in_the_room_is_not_waited_for() {
        let layout = scenario::Rooms { count: Some(2), ..Default::default() };
        let (marks, rooms) = (Marks::new(2), Rooms::new(Some("r"), &layout, None, 2, 0));
        let merge = Merge::new(&marks, &rooms, &[0..1, 1..2]);
        for message in [0, 1] {
            assert_eq!(merge.take(message, [4, 5, 6, 7]), Some(()));
            assert_eq!(marks.micros(message), [4, 5, 6, 7]);
        }
    }

    /// Whoever merges the marks of parts has bounds from above, and the first and the last exactly.
    #[test]
    fn merged_marks_bound_those_of_all() {
        let delay = |client: u64| client * 7_919 % 1_000 * 1_000 + 1_000;
        let receive = |clients: Range<u64>| {
            let (marks, audience) = (Marks::new(1), clients.clone().count() as u32);
            let mut delays: Vec<_> = clients.map(delay).collect();
            delays.sort_unstable();
            delays.into_iter().for_each(|delay| marks.arrive(0, audience, delay));
            marks.micros(0)
        };
        let (whole, marks) = (receive(0..10), Marks::new(1));
        for cut in 1..10 {
            let merge = Merge::new(&marks, &rooms(), &[0..cut, cut..10]);
            marks.set(0, [0; 4]);
            for clients in [0..cut.into(), cut.into()..10] {
                assert_eq!(merge.take(0, receive(clients)), Some(()));
            }
            let merged = marks.micros(0);
            assert_eq!((merged[0], merged[3]), (whole[0], whole[3]), "{cut}");
            assert!(merged[1] >= whole[1] && merged[2] >= whole[2], "{cut}: {merged:?}, {whole:?}");
        }
    }

    #[test]
    fn no_delay_at_all_is_a_time_too() {
        let marks = Marks::new(1);
        marks.arrive(0, 1, 0);
        assert_eq!(marks.of(0).last, Some(1000));
    }
}
