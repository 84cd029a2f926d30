//! Chart: one picture of the page, drawn here and complete without a script.
//!
//! ```text
//!     ┌ title ─────────────── note ┐     The note gives way to the values under the pointer.
//!     │ 100k ┼──────╮   ╭──────    │     Lines and areas are SVG stretched to any width; what is text is not in it,
//!     │  50k ┼      ╰───╯          │     so it keeps its size.
//!     │    0 ┼──────┬──────┬────── │
//!     └             10 s   20 s    ┘
//! ```
//!
//! Positions are shares of the plot, 0 to 1 from the left and from the bottom. Whatever is no number or outside is
//! brought inside, so an odd record draws an odd picture and never a broken page.

use super::html::escape;
use std::fmt::Write;

/// Into so many units the picture is divided, in both directions.
const UNITS: f64 = 1000.0;
/// Ticks of an axis with numbers, at most.
const TICKS_MAX: f64 = 5.0;

/// One direction: from zero to `max`, with labels on the way.
pub struct Axis {
    pub max: f64,
    /// Position and label.
    pub ticks: Vec<(f64, String)>,
}

pub struct Chart {
    pub title: &'static str,
    /// The figure worth reading first.
    pub note: String,
    /// What a picture says in words, for those who do not see it.
    pub alt: String,
    pub x: Axis,
    pub y: Axis,
    /// SVG.
    pub shapes: String,
    /// Class and name of each series; empty when there is but one.
    pub legend: Vec<(&'static str, String)>,
    /// Where the pointer finds values, rising, and the line that says them.
    pub hover: Vec<(f64, String)>,
    /// Classes of the figure: `time` for charts whose pointers move together, `wide` for a row of its own, `tall`, and `long` for
    /// values that need two lines on a small screen.
    pub class: &'static str,
}

impl Axis {
    /// Steps of 1, 2, 2.5 or 5 times a power of ten, so that the labels are round.
    pub fn numbers(max: f64, label: impl Fn(f64) -> String) -> Axis {
        Axis::scaled(max, 0.0, 1.0, label)
    }

    /// Steps of one at least.
    pub fn whole(max: f64, label: impl Fn(f64) -> String) -> Axis {
        Axis::scaled(max, 1.0, 1.0, label)
    }

    /// Round in the unit of 1,024 that suits.
    pub fn bytes(max: f64) -> Axis {
        let names = ["bytes", "kB", "MB", "GB", "TB"];
        let at = (0..names.len()).rev().find(|at| max >= 1024f64.powi(*at as i32)).unwrap_or(0);
        let unit = 1024f64.powi(at as i32);
        Axis::scaled(max, 0.0, unit, |size| format!("{} {}", plain_number(size / unit), names[at]))
    }

    fn scaled(max: f64, step_min: f64, unit: f64, label: impl Fn(f64) -> String) -> Axis {
        let max = if max.is_finite() && max > 0.0 { max / unit } else { 1.0 };
        let rough = max / TICKS_MAX;
        let power = 10f64.powf(rough.log10().floor());
        let round =
            [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough * 0.9999);
        let step = round.unwrap_or(rough);
        let step = if step_min > 0.0 { step.ceil().max(step_min) } else { step };
        let steps = (max / step - 1e-6).ceil().max(1.0);
        let ticks = (0..=steps as u32).map(|tick| (f64::from(tick) / steps, label(f64::from(tick) * step * unit)));
        Axis { max: steps * step * unit, ticks: ticks.collect() }
    }

    /// Seconds of a run.
    pub fn time(max: f64) -> Axis {
        const STEPS: [u32; 15] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400];
        let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
        let fits = |step: &f64| max / step <= TICKS_MAX + 1.0;
        let step = STEPS.map(f64::from).into_iter().find(fits).unwrap_or(max / TICKS_MAX);
        let label = |at: f64| match step {
            ..60.0 => format!("{} s", plain_number(at)),
            ..1800.0 => format!("{} min", plain_number(at / 60.0)),
            _ => format!("{} h", plain_number((at / 360.0).round() / 10.0)),
        };
        let ticks = (0..=(max / step) as u32).map(|tick| f64::from(tick) * step);
        Axis { max, ticks: ticks.map(|at| (at / max, label(at))).collect() }
    }

    pub fn at(&self, value: f64) -> f64 {
        value / self.max
    }
}

/// Without needless digits: `0.25`, `100`, and `1e300` for what no run has.
pub fn plain_number(number: f64) -> String {
    if number.abs() < 1e15 { ((number * 1e6).round() / 1e6).to_string() } else { format!("{number:e}") }
}

/// A coordinate; from the left as it is, from the bottom after `1.0 -`.
fn unit(share: f64) -> f64 {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    (share * UNITS * 10.0).round() / 10.0
}

/// A line through points; it breaks where there is none, and a point without a neighbour is a dot.
pub fn line(class: &str, points: impl Iterator<Item = (f64, Option<f64>)>) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (x, y) in points {
        let Some(y) = y else {
            drawing = false;
            continue;
        };
        let (x, y) = (unit(x), unit(1.0 - y));
        // The step of nothing makes a dot of a line that ends where it began.
        path += &if drawing { format!("L{x} {y}") } else { format!("M{x} {y}h0") };
        drawing = true;
    }
    format!("<path class=\"line {class}\" d=\"{path}\"/>")
}

/// What is between two lines, `(x, lower, upper)`.
pub fn area(class: &str, points: &[(f64, f64, f64)]) -> String {
    let upper = points.iter().map(|(x, _, upper)| (x, upper));
    let lower = points.iter().rev().map(|(x, lower, _)| (x, lower));
    let corners = upper.chain(lower).map(|(x, y)| format!("{} {}", unit(*x), unit(1.0 - y)));
    format!("<path class=\"{class}\" d=\"M{}Z\"/>", corners.collect::<Vec<_>>().join("L"))
}

pub fn bar(class: &str, from: f64, to: f64, bottom: f64, top: f64) -> String {
    area(class, &[(from, bottom, top), (to, bottom, top)])
}

impl Chart {
    pub fn html(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing into a string cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "<figure class=\"chart {}\">", self.class)?;
        writeln!(
            out,
            "<figcaption><h3>{}</h3><output aria-live=\"off\">{}</output></figcaption>",
            self.title,
            escape(&self.note)
        )?;
        if self.hover.is_empty() {
            return writeln!(out, "<p class=\"none\">not measured</p>\n</figure>");
        }
        if !self.legend.is_empty() {
            let names = self.legend.iter().map(|(class, name)| format!("<li class=\"{class}\">{}</li>", escape(name)));
            writeln!(out, "<ul class=\"legend\">{}</ul>", names.collect::<String>())?;
        }
        writeln!(out, "<div class=\"plot\" tabindex=\"0\" role=\"img\" aria-label=\"{}\">", escape(&self.alt))?;
        for (side, axis) in [("y", &self.y), ("x", &self.x)] {
            for (number, (at, label)) in axis.ticks.iter().enumerate() {
                // Every other one may go where there is little room.
                let odd = if number % 2 == 1 { " odd" } else { "" };
                write!(out, "<span class=\"{side}{odd}\" style=\"--at:{at:.4}\">{}</span>", escape(label))?;
            }
        }
        let (grid, shapes) = (self.grid(), &self.shapes);
        writeln!(
            out,
            "\n<svg viewBox=\"0 0 {UNITS} {UNITS}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{grid}{shapes}</svg><i></i>"
        )?;
        let hover: Vec<_> = self.hover.iter().map(|(at, text)| ((at * 1e4).round() / 1e4, text)).collect();
        let hover = serde_json::to_string(&hover).expect("numbers and texts");
        writeln!(
            out,
            "</div>\n<script type=\"application/json\">{}</script>\n</figure>",
            super::html::escape_json(&hover)
        )
    }

    fn grid(&self) -> String {
        let across = self.y.ticks.iter().map(|(at, _)| format!("M0 {}h{UNITS}", unit(1.0 - at)));
        let down = self.x.ticks.iter().map(|(at, _)| format!("M{} 0v{UNITS}", unit(*at)));
        format!("<path class=\"grid\" d=\"{}\"/>", across.chain(down).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Axis::numbers(93.0, plain_number)), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(&Axis::numbers(0.3, plain_number)), ["0", "0.1", "0.2", "0.3"]);
        assert_eq!(labels(&Axis::numbers(0.0, plain_number)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&Axis::whole(2.0, plain_number)), ["0", "1", "2"]);
        assert_eq!(
            labels(&Axis::bytes(250.0 * 1024.0 * 1024.0)),
            ["0 MB", "50 MB", "100 MB", "150 MB", "200 MB", "250 MB"]
        );
        assert_eq!(labels(&Axis::time(64.0)), ["0 s", "15 s", "30 s", "45 s", "60 s"]);
        assert_eq!(labels(&Axis::time(600.0)), ["0 min", "2 min", "4 min", "6 min", "8 min", "10 min"]);
        assert_eq!(labels(&Axis::time(10_800.0)), ["0 h", "0.5 h", "1 h", "1.5 h", "2 h", "2.5 h", "3 h"]);
        assert_eq!(plain_number(1e308), "1e308");
        for odd in [f64::NAN, f64::INFINITY, -1.0, 1e-300, 1e300] {
            let (numbers, time) = (Axis::numbers(odd, plain_number), Axis::time(odd));
            assert!(numbers.ticks.len() <= 7 && time.ticks.len() <= 7, "{odd}");
            assert!(numbers.max.is_finite() && numbers.max > 0.0 && time.max.is_finite() && time.max > 0.0, "{odd}");
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let points = [(0.0, Some(0.0)), (0.25, Some(1.0)), (0.5, None), (0.75, Some(0.5))];
        let path = "<path class=\"line a\" d=\"M0 1000h0L250 0M750 500h0\"/>";
        assert_eq!(line("a", points.into_iter()), path);
    }

    #[test]
    fn nothing_leaves_the_plot() {
        let points = [(-1.0, Some(2.0)), (f64::NAN, Some(f64::INFINITY))];
        assert_eq!(line("a", points.into_iter()), "<path class=\"line a\" d=\"M0 0h0L0 0\"/>");
        assert_eq!(bar("a", 0.5, 9.0, 0.0, 0.25), "<path class=\"a\" d=\"M500 750L1000 750L1000 1000L500 1000Z\"/>");
    }

    #[test]
    fn texts_are_escaped() {
        let axis = || Axis { max: 1.0, ticks: vec![(0.5, "<b>".to_owned())] };
        let chart = Chart {
            title: "Title",
            note: "<i>".to_owned(),
            alt: "\"<".to_owned(),
            x: axis(),
            y: axis(),
            shapes: String::new(),
            legend: vec![("a", "<u>".to_owned())],
            hover: vec![(0.5, "</script>".to_owned())],
            class: "time",
        };
        let html = chart.html();
        for bad in ["<i></output>", "\"\"<", "<b>", "<u>", "</script>\"]"] {
            assert!(!html.contains(bad), "{bad} in {html}");
        }
        assert!(html.contains(r#"[[0.5,"\u003c/script\u003e"]]"#), "{html}");
    }
}
