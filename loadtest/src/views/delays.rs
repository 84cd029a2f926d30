//! Delays: the curve by percentile, and the histogram of the last receiver.
//!
//! The curve's axis gives each further nine the same room, as users of HdrHistogram know it: the tail is what a
//! percentile is asked for, and on an even axis it is one pixel.

use super::chart::{self, Axis, Chart};
use super::over_time::time_label;
use crate::record::{Delays, Spread};
use crate::units::{count, millis};

/// Nines on the axis: enough for a thousand samples, and no more than anybody has samples for.
const NINES_MIN: f64 = 2.0;
const NINES_MAX: f64 = 7.0;
/// Labels below a histogram.
const LABELS_MAX: usize = 6;

pub fn charts(delays: &Delays) -> String {
    if delays.named().iter().all(|(_, spread)| spread.quantiles.samples == 0) {
        return "<p class=\"none wide\">Nothing was delivered.</p>\n".to_owned();
    }
    curve(delays).html() + &histogram(&delays.last).html()
}

fn curve(delays: &Delays) -> Chart {
    let named = delays.named();
    let known: Vec<_> = named.iter().filter(|(_, spread)| spread.quantiles.samples > 0).collect();
    let samples = known.iter().map(|(_, spread)| spread.quantiles.samples).max().unwrap_or(0);
    let nines = (samples as f64).log10().ceil().clamp(NINES_MIN, NINES_MAX);
    let longest = known.iter().flat_map(|(_, spread)| spread.curve.iter().map(|(_, time)| *time)).fold(0.0, f64::max);
    let y = Axis::numbers(longest, time_label);
    let lines = known.iter().map(|(name, spread)| {
        let points = spread.curve.iter();
        let points = points.map(|(quantile, time)| (place(*quantile, spread, nines), Some(y.at(*time))));
        chart::line(&format!("receiver {name}"), points)
    });
    let quantiles = (0..nines as i32).flat_map(|nine| {
        let rest = 10f64.powi(-nine);
        [1.0 - rest, 1.0 - rest / 2.0, 1.0 - rest / 4.0]
    });
    let hover = quantiles.filter(|_| longest > 0.0).map(|quantile| {
        let times = known.iter().map(|(name, spread)| format!("{name} {}", millis(time_at(quantile, spread))));
        let text = format!("{} %: {}", percent(quantile), times.collect::<Vec<_>>().join(", "));
        (-(1.0 - quantile).log10() / nines, text)
    });
    let last = &delays.last.quantiles;
    Chart {
        title: "Delays by percentile",
        note: if longest > 0.0 { "percent that had no longer delay".to_owned() } else { String::new() },
        alt: format!(
            "Delays by percentile. The last receiver had a message after {} (p50), {} (p99), {} (max); \
             the table of quantiles has all figures",
            millis(last.p50),
            millis(last.p99),
            millis(last.max)
        ),
        x: nines_axis(nines),
        shapes: lines.collect(),
        legend: known.iter().map(|(name, _)| (*name, said(name).to_owned())).collect(),
        hover: hover.collect(),
        class: "wide tall long",
        y,
    }
}

pub fn said(receiver: &str) -> &'static str {
    match receiver {
        "first" => "first receiver",
        "median" => "median receiver",
        "p99" => "99th of 100 receivers",
        "last" => "last receiver",
        _ => "every delivery",
    }
}

fn nines_axis(nines: f64) -> Axis {
    let half = (2f64.log10() / nines, "50".to_owned());
    let ticks = (0..=nines as i32).map(|nine| (f64::from(nine) / nines, percent(1.0 - 10f64.powi(-nine))));
    let mut ticks: Vec<_> = ticks.collect();
    ticks.insert(1, half);
    Axis { max: nines, ticks }
}

/// `99.9`, without what floating point adds.
fn percent(quantile: f64) -> String {
    chart::plain_number(quantile * 100.0)
}

/// The worst of n samples has no place at 100 %, it stands where one of n is left.
fn place(quantile: f64, spread: &Spread, nines: f64) -> f64 {
    let left = (1.0 - quantile).max(1.0 / spread.quantiles.samples as f64);
    -left.log10() / nines
}

fn time_at(quantile: f64, spread: &Spread) -> f64 {
    let point = spread.curve.iter().find(|(at, _)| *at >= quantile);
    point.map_or(spread.quantiles.max, |(_, time)| *time)
}

/// Bars of equal width, whatever time each spans: they may be made in steps that grow.
fn histogram(last: &Spread) -> Chart {
    let bars = &last.bars;
    let most = bars.iter().map(|(_, samples)| *samples).max().unwrap_or(0);
    let y = Axis::whole(most as f64, |number| count(number as u64));
    let edge = |at: usize| at as f64 / bars.len() as f64;
    let shapes = bars.iter().enumerate();
    let shapes = shapes.map(|(at, (_, samples))| {
        let gap = 0.12 / bars.len() as f64;
        chart::bar("bar hot", edge(at) + gap, edge(at + 1) - gap, 0.0, y.at(*samples as f64))
    });
    let labels = bars.iter().enumerate().skip(1).step_by(bars.len().div_ceil(LABELS_MAX).max(1));
    let all = last.quantiles.samples;
    let hover = bars.iter().enumerate().filter(|_| most > 0).map(|(at, (up_to, samples))| {
        (edge(at) + 0.5 * edge(1), format!("up to {}: {} of {} messages", millis(*up_to), count(*samples), count(all)))
    });
    Chart {
        title: "Last receiver: how many messages took how long",
        note: if most > 0 { format!("{} messages", count(all)) } else { String::new() },
        alt: format!(
            "Histogram of the last receiver's delay, of {} messages; longest {}",
            count(all),
            millis(last.quantiles.max)
        ),
        // Labels stand at the end of the bar before theirs, which reaches up to that time.
        x: Axis { max: 1.0, ticks: labels.map(|(at, _)| (edge(at), millis(bars[at - 1].0))).collect() },
        shapes: shapes.collect(),
        legend: Vec::new(),
        hover: hover.collect(),
        class: "wide",
        y,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn each_nine_has_the_same_room() {
        let labels: Vec<_> = nines_axis(4.0).ticks.into_iter().collect();
        let texts: Vec<_> = labels.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["0", "50", "90", "99", "99.9", "99.99"]);
        assert_eq!([labels[2].0, labels[3].0, labels[5].0], [0.25, 0.5, 1.0]);
    }

    #[test]
    fn the_worst_stands_where_one_sample_is_left() {
        let mut spread = Record::example().delays_ms.last;
        spread.quantiles.samples = 1000;
        assert!((place(1.0, &spread, 4.0) - 0.75).abs() < 1e-9);
        assert!((place(0.99, &spread, 4.0) - 0.5).abs() < 1e-9);
        assert_eq!(place(0.0, &spread, 4.0), 0.0);
    }

    #[test]
    fn hover_says_all_receivers() {
        let chart = curve(&Record::example().delays_ms);
        let texts: Vec<_> = chart.hover.iter().map(|(_, text)| text.as_str()).collect();
        let half = "50 %: first 0.250 ms, median 4.50 ms, p99 9.00 ms, last 9.50 ms, delivery 4.50 ms";
        assert!(texts.contains(&half), "{texts:?}");
        assert_eq!(chart.legend.len(), 5);
    }

    #[test]
    fn a_bar_says_up_to_when() {
        let chart = histogram(&Record::example().delays_ms.last);
        let texts: Vec<_> = chart.hover.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts[..2], ["up to 10.0 ms: 19 of 29 messages", "up to 15.0 ms: 8 of 29 messages"]);
        let labels: Vec<_> = chart.x.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(labels, ["10.0 ms", "15.0 ms"]);
    }

    #[test]
    fn nothing_is_not_drawn() {
        let nothing = Record::nothing().delays_ms;
        assert!(curve(&nothing).hover.is_empty() && histogram(&nothing.last).hover.is_empty());
    }
}
