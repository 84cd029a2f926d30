//! Knee: the highest rate that keeps the limits, found by runs at other and other rates.
//!
//! ```text
//!     rate   10   20   40   80   160 ✗   113   137 ✗   124          doubled while it holds, then halved in between
//!            ok   ok   ok   ok           ok            ok  ◀─ within a tenth of the first that broke
//! ```

use crate::units;

/// The search ends when the highest rate that held and the lowest that broke are so close.
const CLOSE: f64 = 1.1;
/// Rates below this share of the first one are not tried: the limits do not hold at all.
const SMALLEST: f64 = 1.0 / 1024.0;

#[derive(Clone, Debug, Default)]
pub struct Knee {
    first: f64,
    held: Option<f64>,
    broke: Option<f64>,
}

impl Knee {
    pub fn new(first: f64) -> Knee {
        Knee { first, held: None, broke: None }
    }

    /// The rate to try next; `None` when the answer is known.
    pub fn next(&self) -> Option<f64> {
        match (self.held, self.broke) {
            (None, None) => Some(self.first),
            (Some(held), None) => Some(held * 2.0),
            (None, Some(broke)) => Some(round(broke / 2.0)).filter(|rate| *rate >= self.first * SMALLEST),
            (Some(held), Some(broke)) => {
                let between = round((held * broke).sqrt());
                (broke / held > CLOSE && between > held && between < broke).then_some(between)
            }
        }
    }

    /// A run at `rate` kept the limits, or did not.
    pub fn note(&mut self, rate: f64, held: bool) {
        *(if held { &mut self.held } else { &mut self.broke }) = Some(rate);
    }

    /// What is known, in words.
    pub fn text(&self) -> String {
        let rate = |rate: f64| format!("{}/s", units::rate(rate));
        match (self.held, self.broke) {
            (Some(held), Some(broke)) => format!("KNEE {} kept every limit, {} did not\n", rate(held), rate(broke)),
            (Some(held), None) => format!("KNEE not found: {} kept every limit, more was not tried\n", rate(held)),
            (None, Some(broke)) => format!("KNEE not found: not even {} kept every limit\n", rate(broke)),
            (None, None) => "KNEE not found: nothing was measured\n".to_owned(),
        }
    }
}

/// Three digits are enough for a rate that people read.
fn round(rate: f64) -> f64 {
    let scale = 10_f64.powf(rate.log10().floor() - 2.0);
    (rate / scale).round() * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the search finds when everything up to `knee` holds, and in how many runs.
    fn search(first: f64, knee: f64) -> (Option<f64>, usize) {
        let (mut search, mut runs) = (Knee::new(first), 0);
        while let Some(rate) = search.next() {
            search.note(rate, rate <= knee);
            runs += 1;
            assert!(runs < 40, "it ends");
        }
        (search.held, runs)
    }

    #[test]
    fn the_knee_is_found_from_either_side() {
        for first in [0.5, 10.0, 100.0, 5000.0] {
            for knee in [7.3, 10.0, 99.0, 1234.0] {
                let (held, runs) = search(first, knee);
                let held = held.expect("some rate holds");
                assert!(held <= knee && held * CLOSE >= knee * 0.99, "{held} of {knee} from {first}");
                assert!(runs <= 20, "{runs} runs for {knee} from {first}");
            }
        }
    }

    #[test]
    fn a_server_that_keeps_nothing_is_given_up() {
        let (held, runs) = search(100.0, 0.0);
        assert_eq!((held, runs), (None, 11));
    }

    #[test]
    fn rates_are_readable() {
        assert_eq!([113.137, 0.056789, 98765.4].map(round), [113.0, 0.0568, 98800.0]);
    }
}
