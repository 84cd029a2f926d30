//! Limits: what the run must keep, `last-p99<100ms,lost=0`, and whether it did.
//!
//! ```text
//!     lost doubled reordered stray closed     = < <=    a count
//!     first median p99 last delivery          < <=      a duration; the receiver of a message, or every delivery
//!       each with -p50 -p90 -p99 -p999 -max
//! ```

use crate::clock::Nanos;
use crate::delays::Delays;
use crate::tally::Times;
use crate::units;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// As it was written.
    text: String,
    figure: Figure,
    bound: Bound,
    value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Count(Count),
    Delay(Receiver, Quantile),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Lost,
    Doubled,
    Reordered,
    Stray,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    First,
    Median,
    P99,
    Last,
    Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantile {
    P50,
    P90,
    P99,
    P999,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Equal,
    Below,
    AtMost,
}

/// The figures that limits speak of.
pub struct Figures<'a> {
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    pub stray: u64,
    pub closed: u64,
    /// A message that did not reach everyone has no last receiver: its delay is endless.
    pub delays: &'a Delays,
    /// How much too short a delay may be, because clocks of several generators differ. It is added to each.
    pub unsure: Nanos,
    /// All the deliveries there should be.
    pub expected: u64,
}

/// What was instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    Count(u64),
    Delay(Nanos),
    /// Not everyone received, so the delay has no end.
    Endless,
}

impl fmt::Display for Was {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Was::Count(number) => out.write_str(&units::count(*number)),
            Was::Delay(time) => out.write_str(&units::nanos(*time)),
            Was::Endless => out.write_str("endless: some never received"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Reads limits separated by commas.
pub fn parse(text: &str) -> Result<Vec<Limit>, String> {
    text.split(',').map(|one| parse_one(one.trim())).collect()
}

fn parse_one(text: &str) -> Result<Limit, String> {
    let at = text.find(['<', '=']).ok_or_else(|| format!("'{text}' has no < or =; write last-p99<100ms or lost=0"))?;
    let (name, rest) = (text[..at].trim(), &text[at..]);
    let (bound, value) = match (rest.strip_prefix("<="), rest.strip_prefix('<'), rest.strip_prefix('=')) {
        (Some(value), ..) => (Bound::AtMost, value),
        (_, Some(value), _) => (Bound::Below, value),
        (_, _, value) => (Bound::Equal, value.unwrap_or_default()),
    };
    let figure = parse_figure(name)?;
    let value = parse_value(figure, bound, value.trim()).ok_or_else(|| match figure {
        Figure::Count(_) => format!("'{text}' needs a whole number, like {name}=0"),
        Figure::Delay(..) => format!("'{text}' needs < and a duration, like {name}<100ms"),
    })?;
    Ok(Limit { text: text.to_owned(), figure, bound, value })
}

fn parse_value(figure: Figure, bound: Bound, value: &str) -> Option<u64> {
    match figure {
        Figure::Count(_) => value.parse().ok(),
        // A bare number would be seconds: hardly what was meant, so the unit is asked for.
        Figure::Delay(..) if bound == Bound::Equal || value.ends_with(|last: char| last.is_ascii_digit()) => None,
        Figure::Delay(..) => units::parse_duration(value).ok()?.as_nanos().try_into().ok(),
    }
}

fn parse_figure(name: &str) -> Result<Figure, String> {
    let count = match name {
        "lost" => Some(Count::Lost),
        "doubled" => Some(Count::Doubled),
        "reordered" => Some(Count::Reordered),
        "stray" => Some(Count::Stray),
        "closed" => Some(Count::Closed),
        _ => None,
    };
    let delay = name.split_once('-').and_then(|(receiver, quantile)| {
        let receiver = match receiver {
            "first" => Receiver::First,
            "median" => Receiver::Median,
            "p99" => Receiver::P99,
            "last" => Receiver::Last,
            "delivery" => Receiver::Delivery,
            _ => return None,
        };
        let quantile = match quantile {
            "p50" => Quantile::P50,
            "p90" => Quantile::P90,
            "p99" => Quantile::P99,
            "p999" => Quantile::P999,
            "max" => Quantile::Max,
            _ => return None,
        };
        Some(Figure::Delay(receiver, quantile))
    });
    count.map(Figure::Count).or(delay).ok_or_else(|| {
        format!(
            "'{name}' is no figure; there are lost, doubled, reordered, closed, \
             and first, median, p99, last, delivery with -p50, -p90, -p99, -p999, -max"
        )
    })
}

impl Limit {
    /// `None` when it was kept.
    pub fn broken(&self, figures: &Figures<'_>) -> Option<Was> {
        let was = self.figure.of(figures);
        let kept = match (was, self.bound) {
            (Was::Endless, _) => false,
            (Was::Count(was) | Was::Delay(was), Bound::Equal) => was == self.value,
            (Was::Count(was) | Was::Delay(was), Bound::Below) => was < self.value,
            (Was::Count(was) | Was::Delay(was), Bound::AtMost) => was <= self.value,
        };
        (!kept).then_some(was)
    }

    /// Whether the generator's own slowness can break it.
    pub fn is_delay(&self) -> bool {
        matches!(self.figure, Figure::Delay(..))
    }
}

impl Figure {
    fn of(self, figures: &Figures<'_>) -> Was {
        let (times, wanted): (&Times, u64) = match self {
            Figure::Count(Count::Lost) => return Was::Count(figures.lost),
            Figure::Count(Count::Doubled) => return Was::Count(figures.doubled),
            Figure::Count(Count::Reordered) => return Was::Count(figures.reordered),
            Figure::Count(Count::Stray) => return Was::Count(figures.stray),
            Figure::Count(Count::Closed) => return Was::Count(figures.closed),
            Figure::Delay(Receiver::First, _) => (&figures.delays.first, figures.delays.awaited.into()),
            Figure::Delay(Receiver::Median, _) => (&figures.delays.median, figures.delays.awaited.into()),
            Figure::Delay(Receiver::P99, _) => (&figures.delays.p99, figures.delays.awaited.into()),
            Figure::Delay(Receiver::Last, _) => (&figures.delays.last, figures.delays.awaited.into()),
            Figure::Delay(Receiver::Delivery, _) => (&figures.delays.delivery, figures.expected),
        };
        let Figure::Delay(_, quantile) = self else { unreachable!("counts have returned above") };
        quantile.of(times, wanted).map_or(Was::Endless, |delay| Was::Delay(delay + figures.unsure))
    }
}

impl Quantile {
    /// The quantile among `wanted` samples, of which those that are not there count as endless.
    fn of(self, times: &Times, wanted: u64) -> Option<Nanos> {
        let share = match self {
            Quantile::P50 => 0.5,
            Quantile::P90 => 0.9,
            Quantile::P99 => 0.99,
            Quantile::P999 => 0.999,
            Quantile::Max => 1.0,
        };
        let rank = (share * wanted as f64).ceil();
        let samples = times.samples();
        (samples > 0 && rank <= samples as f64).then(|| times.at(rank / samples as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred messages; the last receiver of the i-th had it after i ms.
    fn delays() -> Delays {
        let mut delays = Delays::default();
        (1..=100).for_each(|millis| delays.last.record(millis * 1_000_000));
        delays
    }

    fn broken(text: &str, sent: u32) -> Option<Was> {
        broken_with(text, sent, 0)
    }

    fn broken_with(text: &str, sent: u32, unsure: Nanos) -> Option<Was> {
        let delays = delays();
        let delays = &Delays { awaited: sent, ..delays };
        let figures = Figures { lost: 2, doubled: 0, reordered: 0, stray: 0, closed: 0, delays, unsure, expected: 100 };
        parse(text).expect("it is a limit")[0].broken(&figures)
    }

    #[test]
    fn what_limits_say() {
        for kept in ["lost<3", "lost<=2", "lost = 2", "doubled=0", "closed=0", "last-p50<51ms", "last-max<=101ms"] {
            assert_eq!(broken(kept, 100), None, "{kept}");
        }
        assert_eq!(broken("lost=0", 100), Some(Was::Count(2)));
        assert!(matches!(broken("last-p99<50ms", 100), Some(Was::Delay(98_900_000..=99_100_000))));
    }

    #[test]
    fn a_message_that_never_reached_everyone_has_no_end() {
        assert_eq!(broken("last-p50<60s", 150), None, "the better half is known");
        assert_eq!(broken("last-p90<60s", 150), Some(Was::Endless));
        assert_eq!(broken("delivery-p50<60s", 100), Some(Was::Endless), "there was no delivery at all");
    }

    #[test]
    fn a_limit_holds_whatever_the_clocks() {
        assert_eq!(broken_with("last-p50<60ms", 100, 5_000_000), None);
        assert!(matches!(broken_with("last-p50<52ms", 100, 5_000_000), Some(Was::Delay(54_900_000..=55_100_000))));
    }

    #[test]
    fn several_are_separated_by_commas() {
        let limits = parse("last-p99<100ms, lost=0").expect("both are limits");
        let texts: Vec<_> = limits.iter().map(Limit::to_string).collect();
        assert_eq!(texts, ["last-p99<100ms", "lost=0"]);
        assert_eq!(limits.iter().map(Limit::is_delay).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn what_is_no_limit_says_what_would_be_one() {
        let table = [
            ("", "'' has no < or =; write last-p99<100ms or lost=0"),
            ("lost>0", "'lost>0' has no < or =; write last-p99<100ms or lost=0"),
            ("lost=many", "'lost=many' needs a whole number, like lost=0"),
            ("last-p99<100", "'last-p99<100' needs < and a duration, like last-p99<100ms"),
            ("last-p99=1ms", "'last-p99=1ms' needs < and a duration, like last-p99<100ms"),
        ];
        table.iter().for_each(|(text, error)| assert_eq!(parse(text), Err((*error).to_owned())));
        for text in ["latency<1ms", "last<1ms", "last-p95<1ms", "lost-p99<1ms", "lost=0,"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
