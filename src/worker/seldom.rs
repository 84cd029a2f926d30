//! Seldom: for log lines about what may go wrong a thousand times a second. One line in a while says how often.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// No more than one line in this time: enough to notice, too few to fill a disk.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Seldom {
    last_line: Cell<Option<Instant>>,
    times: Cell<u64>,
}

impl Seldom {
    /// It has happened. `log` is told how often since the last line, if it is time for one.
    pub fn note(&self, log: impl FnOnce(u64)) {
        self.note_at(Instant::now(), log);
    }

    fn note_at(&self, now: Instant, log: impl FnOnce(u64)) {
        self.times.update(|times| times + 1);
        if self.last_line.get().is_none_or(|last| now.duration_since(last) >= PAUSE) {
            self.last_line.set(Some(now));
            log(self.times.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_told_at_once_and_the_others_are_counted() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let lines = Cell::new(Vec::new());
        let note = |at| seldom.note_at(at, |times| lines.set([lines.take(), vec![times]].concat()));
        note(start);
        (0..99).for_each(|ms| note(start + Duration::from_millis(ms)));
        note(start + PAUSE);
        note(start + PAUSE);
        assert_eq!(lines.take(), [1, 100]);
    }
}
