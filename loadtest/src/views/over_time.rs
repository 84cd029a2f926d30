//! Over time: the charts of the seconds of a run, one below the other and with the same seconds at the same place.

use super::chart::{self, Axis, Chart, plain_number};
use crate::record::{BEHIND_S, Record, Second};
use crate::units::{bytes, count, millis};

/// Points in a chart: more than a screen has pixels for are not worth their bytes.
const POINTS_MAX: usize = 1200;

/// The classes of [`Second::behind`], as styles.
const CLASSES: [&str; 6] = ["behind0", "behind1", "behind2", "behind3", "behind4", "behind5"];

pub fn charts(record: &Record) -> String {
    if record.seconds.is_empty() {
        return "<p class=\"none wide\">The run ended before its first second.</p>\n".to_owned();
    }
    let view = View::new(record);
    let charts = [view.connected(record), view.deliveries(), view.last(), view.behind(), view.cpu(), view.memory()];
    charts.iter().map(Chart::html).collect()
}

struct View {
    seconds: Vec<Second>,
    axis: Axis,
}

/// A figure of a second, where it was measured.
type Figure = fn(&Second) -> Option<f64>;

impl View {
    fn new(record: &Record) -> View {
        let group = record.seconds.len().div_ceil(POINTS_MAX).max(1);
        let seconds: Vec<_> = record.seconds.chunks(group).map(merged).collect();
        let axis = Axis::time(seconds.last().map_or(0.0, |second| second.at_s));
        View { seconds, axis }
    }

    fn connected(&self, record: &Record) -> Chart {
        let connected: Figure = |second| Some(second.connected.into());
        let y = Axis::whole(self.max(connected).max(record.plan.connections.into()), short);
        let (ready, planned) = (count(record.connecting.connected.into()), count(record.plan.connections.into()));
        let shapes = self.filled("main", &y, connected);
        let say = |second: &Second| format!("{} clients", count(second.connected.into()));
        self.chart("Clients connected", format!("{ready} of {planned}"), y, shapes, connected, say)
    }

    fn deliveries(&self) -> Chart {
        let deliveries: Figure = |second| Some(second.per_second as f64);
        let y = Axis::whole(self.max(deliveries), short);
        let note = format!("highest {}/s", count(self.max(deliveries) as u64));
        let shapes = self.filled("main", &y, deliveries);
        let say = |second: &Second| format!("{}/s", count(second.per_second));
        self.chart("Deliveries per second", note, y, shapes, deliveries, say)
    }

    fn last(&self) -> Chart {
        let last: Figure = |second| second.last_max_ms;
        let y = Axis::numbers(self.max(last), time_label);
        let note = format!("longest {}", millis(self.max(last)));
        let shapes = self.filled("hot", &y, last);
        let say = |second: &Second| second.last_max_ms.map_or("no message complete".to_owned(), millis);
        self.chart("Last receiver’s delay", note, y, shapes, last, say)
    }

    /// A strip: the share of clients in each class, those who keep up at the bottom.
    fn behind(&self) -> Chart {
        let some: Figure = |second| second.behind.iter().any(|clients| *clients > 0).then_some(1.0);
        let y = Axis { max: 1.0, ticks: [0, 50, 100].map(|at| (f64::from(at) / 100.0, format!("{at} %"))).into() };
        let runs = self.seconds.chunk_by(|a, b| some(a).is_some() == some(b).is_some());
        let shapes = runs.filter(|run| run.first().and_then(some).is_some()).map(|run| self.strip(run)).collect();
        let worst = self.seconds.iter().max_by(|a, b| worse(a, b)).map_or(String::new(), |second| {
            let class = second.behind.iter().rposition(|clients| *clients > 0).unwrap_or(0);
            let clients = second.behind.get(class).copied().unwrap_or(0);
            if class == 0 {
                "everyone kept up".to_owned()
            } else {
                format!("at worst {} behind", in_class(class, clients))
            }
        });
        let mut chart = self.chart("Clients behind", worst, y, shapes, some, |second| {
            let classes = second.behind.iter().enumerate().filter(|(_, clients)| **clients > 0);
            let classes: Vec<_> = classes.map(|(class, clients)| in_class(class, *clients)).collect();
            if classes.is_empty() { "nobody".to_owned() } else { classes.join(", ") }
        });
        chart.class = "time long";
        chart.legend = CLASSES.iter().enumerate().map(|(class, style)| (*style, class_name(class))).collect();
        chart
    }

    fn strip(&self, run: &[Second]) -> String {
        // A single second would have no width.
        let last = [&run[run.len() - 1]];
        let corners: Vec<_> = run.iter().chain(last.iter().copied().filter(|_| run.len() == 1)).collect();
        let width = self.axis.at(1.0);
        let mut lower = vec![0.0; corners.len()];
        let mut shapes = String::new();
        for (class, style) in CLASSES.iter().enumerate() {
            let mut points = Vec::new();
            for (at, (second, lower)) in corners.iter().zip(&mut lower).enumerate() {
                let all: f64 = second.behind.iter().map(|clients| f64::from(*clients)).sum();
                let share = f64::from(second.behind.get(class).copied().unwrap_or(0)) / all;
                let x = self.axis.at(second.at_s) - if run.len() == 1 && at == 0 { width } else { 0.0 };
                points.push((x, *lower, *lower + share));
                *lower += share;
            }
            shapes += &chart::area(style, &points);
        }
        shapes
    }

    fn cpu(&self) -> Chart {
        let (server, generator): (Figure, Figure) = (|second| second.server_cpu, |second| second.generator_cpu);
        let either: Figure = |second| second.server_cpu.or(second.generator_cpu);
        let y = Axis::numbers(self.max(server).max(self.max(generator)), plain_number);
        let shapes = self.filled("main", &y, server) + &self.line("dashed", &y, generator);
        let note = if self.known(server) {
            format!("server at most {:.2} cores", self.max(server))
        } else {
            format!("generator at most {:.2} cores", self.max(generator))
        };
        let mut chart = self.chart("CPU, in cores", note, y, shapes, either, |second| {
            let known = [("server", second.server_cpu), ("generator", second.generator_cpu)].into_iter();
            let known: Vec<_> = known.filter_map(|(name, cores)| Some(format!("{name} {:.2}", cores?))).collect();
            if known.is_empty() { "not measured".to_owned() } else { known.join(", ") }
        });
        let legend = [("main", "server", server), ("dashed", "generator", generator)].into_iter();
        let legend = legend.filter(|(_, _, figure)| self.known(*figure));
        chart.legend = legend.map(|(class, name, _)| (class, name.to_owned())).collect();
        chart
    }

    fn memory(&self) -> Chart {
        let resident: Figure = |second| second.server_resident.map(|size| size as f64);
        let y = Axis::bytes(self.max(resident));
        let note = format!("at most {}", bytes(self.max(resident) as u64));
        let shapes = self.filled("main", &y, resident);
        let say = |second: &Second| second.server_resident.map_or("not measured".to_owned(), bytes);
        self.chart("Server memory", note, y, shapes, resident, say)
    }

    /// `known` tells whether there is anything to draw.
    fn chart(
        &self,
        title: &'static str,
        note: String,
        y: Axis,
        shapes: String,
        known: Figure,
        say: impl Fn(&Second) -> String,
    ) -> Chart {
        let known = self.known(known);
        let hover = self.seconds.iter().filter(|_| known).map(|second| {
            let text = format!("{} s, {}: {}", plain_number(second.at_s), second.phase, say(second));
            (self.axis.at(second.at_s), text)
        });
        Chart {
            title,
            alt: format!("{title}, over {} seconds: {note}", plain_number(self.axis.max)),
            note: if known { note } else { String::new() },
            x: Axis { max: self.axis.max, ticks: self.axis.ticks.clone() },
            y,
            shapes: self.phases() + &shapes,
            legend: Vec::new(),
            hover: hover.collect(),
            class: "time",
        }
    }

    /// A shade over the time in which nothing is measured yet, or any more.
    fn phases(&self) -> String {
        let mut begin = 0.0;
        let mut shapes = String::new();
        for run in self.seconds.chunk_by(|a, b| a.phase == b.phase) {
            let end = run.last().map_or(begin, |second| self.axis.at(second.at_s));
            if run[0].phase != "measuring" {
                shapes += &chart::bar("phase", begin, end, 0.0, 1.0);
            }
            begin = end;
        }
        shapes
    }

    fn max(&self, figure: Figure) -> f64 {
        self.seconds.iter().filter_map(figure).fold(0.0, f64::max)
    }

    fn known(&self, figure: Figure) -> bool {
        self.seconds.iter().any(|second| figure(second).is_some())
    }

    fn line(&self, class: &str, y: &Axis, figure: Figure) -> String {
        let points = self.seconds.iter();
        chart::line(class, points.map(|second| (self.axis.at(second.at_s), figure(second).map(|value| y.at(value)))))
    }

    fn filled(&self, class: &str, y: &Axis, figure: Figure) -> String {
        let runs = self.seconds.chunk_by(|a, b| figure(a).is_some() == figure(b).is_some());
        let areas = runs.map(|run| {
            let points = run.iter().filter_map(|second| Some((self.axis.at(second.at_s), 0.0, y.at(figure(second)?))));
            points.collect::<Vec<_>>()
        });
        let areas =
            areas.filter(|points| points.len() > 1).map(|points| chart::area(&format!("fill {class}"), &points));
        areas.collect::<String>() + &self.line(class, y, figure)
    }
}

/// Several seconds as one: averages of rates, the worst of delays, the state at the end.
fn merged(group: &[Second]) -> Second {
    let mean = |figure: Figure| {
        let known: Vec<_> = group.iter().filter_map(figure).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    let last = group.last().expect("chunks are not empty");
    let worst = group.iter().max_by(|a, b| worse(a, b)).expect("chunks are not empty");
    Second {
        per_second: mean(|second| Some(second.per_second as f64)).unwrap_or(0.0) as u64,
        last_max_ms: group.iter().filter_map(|second| second.last_max_ms).reduce(f64::max),
        behind: worst.behind.clone(),
        server_cpu: mean(|second| second.server_cpu),
        generator_cpu: mean(|second| second.generator_cpu),
        server_resident: group.iter().filter_map(|second| second.server_resident).max(),
        ..last.clone()
    }
}

/// More clients farther behind.
fn worse(a: &Second, b: &Second) -> std::cmp::Ordering {
    a.behind.iter().rev().cmp(b.behind.iter().rev())
}

fn class_name(class: usize) -> String {
    match BEHIND_S.get(class) {
        Some(bound) => format!("up to {bound} s"),
        None => format!("over {} s", BEHIND_S[BEHIND_S.len() - 1]),
    }
}

fn in_class(class: usize, clients: u32) -> String {
    format!("{} {}", count(clients.into()), class_name(class))
}

/// `1.5M`, `100k`, `20`.
fn short(number: f64) -> String {
    match number {
        ..1e3 => plain_number(number),
        ..1e6 => plain_number(number / 1e3) + "k",
        ..1e9 => plain_number(number / 1e6) + "M",
        _ => plain_number(number / 1e9) + "G",
    }
}

/// `20 ms`, `1.5 s`.
pub fn time_label(milliseconds: f64) -> String {
    match milliseconds {
        0.0 => "0".to_owned(),
        ..1e3 => plain_number(milliseconds) + " ms",
        _ => plain_number(milliseconds / 1e3) + " s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_no_more_points_than_a_screen() {
        let mut record = Record::example();
        let second = record.seconds[1].clone();
        record.seconds = (1..=5000).map(|at| Second { at_s: f64::from(at), ..second.clone() }).collect();
        record.seconds[2500].last_max_ms = Some(99.0);
        record.seconds[2500].behind = vec![999, 0, 0, 0, 0, 1];
        let view = View::new(&record);
        assert_eq!((view.seconds.len(), view.axis.max), (1000, 5000.0));
        assert_eq!(view.max(|second| second.last_max_ms), 99.0, "the worst is kept");
        assert_eq!(view.behind().note, "at worst 1 over 10 s behind");
    }

    #[test]
    fn what_the_charts_say() {
        let record = Record::example();
        let view = View::new(&record);
        let charts =
            [view.connected(&record), view.deliveries(), view.last(), view.behind(), view.cpu(), view.memory()];
        let notes = charts.each_ref().map(|chart| chart.note.as_str());
        let expected = [
            "1,000 of 1,000",
            "highest 10,000/s",
            "longest 18.5 ms",
            "at worst 1 up to 3 s behind",
            "server at most 0.25 cores",
            "at most 20.8 MB",
        ];
        assert_eq!(notes, expected);
        let third = charts.each_ref().map(|chart| chart.hover[2].1.as_str());
        let expected = [
            "3 s, measuring: 1,000 clients",
            "3 s, measuring: 9,999/s",
            "3 s, measuring: 12.0 ms",
            "3 s, measuring: 999 up to 1 s, 1 up to 3 s",
            "3 s, measuring: not measured",
            "3 s, measuring: not measured",
        ];
        assert_eq!(third, expected);
    }

    #[test]
    fn a_server_that_was_not_watched_has_no_memory() {
        let mut record = Record::example();
        record.seconds.iter_mut().for_each(|second| (second.server_cpu, second.server_resident) = (None, None));
        let view = View::new(&record);
        assert!(view.memory().hover.is_empty());
        assert_eq!(view.cpu().note, "generator at most 0.50 cores");
    }
}
