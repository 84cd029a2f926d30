//! History: the last minute of a run, second by second; what the display draws its curves from.
//!
//! A second is the mean of the snapshots that were taken in it. The one in progress is not shown, because it would
//! jump about until it is over.
//!
//! Limits: [`SECONDS`] complete seconds and the one in progress.

use crate::clock::Nanos;
use crate::snapshot::{ServerNow, Snapshot};
use std::collections::VecDeque;

/// How far back curves go: what fits on a narrow terminal, and what somebody watching remembers.
pub const SECONDS: usize = 60;
const SECOND: Nanos = 1_000_000_000;

#[derive(Default)]
pub struct History {
    seconds: VecDeque<Second>,
}

/// One second of the run.
pub struct Second {
    /// Since the run began.
    number: u64,
    snapshots: u32,
    pub per_second: f64,
    pub server: Option<ServerNow>,
}

impl History {
    pub fn note(&mut self, snapshot: &Snapshot) {
        let number = snapshot.at / SECOND;
        if self.seconds.back().is_none_or(|second| second.number < number) {
            self.seconds.push_back(Second { number, snapshots: 0, per_second: 0.0, server: None });
        }
        if self.seconds.len() > SECONDS + 1 {
            self.seconds.pop_front();
        }
        if let Some(second) = self.seconds.back_mut() {
            second.note(snapshot);
        }
    }

    /// The last second that is over.
    pub fn last(&self) -> Option<&Second> {
        self.seconds.iter().rev().nth(1)
    }

    /// The last minute as at most `columns` means of `figure`, oldest first; `None` where nothing is known. It begins
    /// with something that is.
    pub fn curve(&self, columns: usize, figure: impl Fn(&Second) -> Option<f64>) -> Vec<Option<f64>> {
        let Some(now) = self.seconds.back().map(|second| second.number).filter(|now| *now > 0) else {
            return Vec::new();
        };
        // Columns begin at whole multiples of their width: one that is complete stays as it is.
        let width = SECONDS.div_ceil(columns.max(1)) as u64;
        let (last, count) = ((now - 1) / width, SECONDS as u64 / width);
        let mean = |column: u64| {
            let seconds = self.seconds.iter().filter(|second| second.number < now && second.number / width == column);
            let (sum, samples) = seconds.filter_map(&figure).fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
            (samples > 0.0).then(|| sum / samples)
        };
        ((last + 1).saturating_sub(count)..=last).map(mean).skip_while(Option::is_none).collect()
    }
}

impl Second {
    fn note(&mut self, snapshot: &Snapshot) {
        self.snapshots += 1;
        let mean = |before: f64, value: f64| before + (value - before) / f64::from(self.snapshots);
        self.per_second = mean(self.per_second, snapshot.per_second as f64);
        self.server = snapshot.server.map(|now| ServerNow {
            cpu: mean(self.server.map_or(now.cpu, |before| before.cpu), now.cpu),
            resident: now.resident,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, per_second: u64) -> Snapshot {
        Snapshot { at: millis * 1_000_000, per_second, ..Snapshot::default() }
    }

    fn history(snapshots: impl IntoIterator<Item = Snapshot>) -> History {
        let mut history = History::default();
        snapshots.into_iter().for_each(|snapshot| history.note(&snapshot));
        history
    }

    #[test]
    fn a_second_is_the_mean_of_its_snapshots_once_it_is_over() {
        let mut history = history([at(200, 10), at(400, 30)]);
        assert!(history.last().is_none() && history.curve(60, |second| Some(second.per_second)).is_empty());
        history.note(&at(1000, 99));
        assert_eq!(history.last().map(|second| second.per_second), Some(20.0));
        assert_eq!(history.curve(60, |second| Some(second.per_second)), [Some(20.0)]);
    }

    #[test]
    fn a_curve_fits_its_columns_and_forgets_what_is_older_than_a_minute() {
        let history = history((0..=200).map(|second| at(second * 1000, second)));
        let wide = history.curve(100, |second| Some(second.per_second));
        assert_eq!((wide.len(), wide[0], wide[59]), (60, Some(140.0), Some(199.0)));
        let narrow = history.curve(20, |second| Some(second.per_second));
        assert_eq!((narrow.len(), narrow[0]), (20, Some(142.0)), "the mean of 141, 142 and 143");
        assert_eq!(narrow[19], Some(198.5), "of 198 and 199: its last second is in progress");
    }

    #[test]
    fn seconds_without_a_snapshot_are_a_gap() {
        let curve = history([at(0, 1), at(3000, 4), at(4000, 5)]).curve(60, |second| Some(second.per_second));
        assert_eq!(curve, [Some(1.0), None, None, Some(4.0)]);
    }

    #[test]
    fn a_server_is_known_from_when_it_is_watched() {
        let server = |cpu| Some(ServerNow { cpu, resident: 7 });
        let watched = |millis, cpu| Snapshot { server: server(cpu), ..at(millis, 0) };
        let history = history([at(0, 0), watched(1000, 1.0), watched(1500, 2.0), watched(2000, 9.0)]);
        assert_eq!(history.curve(60, |second| second.server.map(|server| server.cpu)), [Some(1.5)]);
    }
}
