//! Compare: two runs side by side.
//!
//! What differs in their plans comes first: to compare unlike runs is the commonest mistake. Then each figure of both,
//! their ratio, and whether B is better or worse, where a figure has a good direction.

use super::plain;
use crate::record::{Quantiles, Record};
use crate::units::{bytes, count, micros, millis};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::{Result, Write};

/// B is better or worse when it differs by more than this share; two runs of the same server often differ by less.
const NOISE_SHARE_MAX: f64 = 0.05;

/// Chosen anew for each run unless asked for, and unlike seeds do not make unlike runs.
const NOT_COMPARED: &str = "seed";

struct Row {
    name: String,
    a: Option<f64>,
    b: Option<f64>,
    write: fn(f64) -> String,
    good: Good,
}

/// Which way a figure gets better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Good {
    Less,
    More,
    /// It is the generator's, and says nothing about the server.
    Neither,
}

/// The names are those under which the records are known, such as their files.
pub fn compare(names: [&str; 2], records: [&Record; 2]) -> String {
    let mut text = String::new();
    write_text(names, records, &mut text).expect("writing into a string cannot fail");
    text
}

fn write_text(names: [&str; 2], records: [&Record; 2], out: &mut String) -> Result {
    for ((letter, name), record) in ["A", "B"].iter().zip(names).zip(records) {
        let (verdict, url) = (record.verdict().word(), plain(&record.plan.url));
        writeln!(out, "{letter}  {}  {verdict}  {}: {url}", plain(name), plain(&record.plan.workload))?;
        if !record.valid {
            let reason = plain(record.invalid.as_deref().unwrap_or("the generator was too slow"));
            writeln!(out, "   INVALID {reason}; its delays say nothing about the server")?;
        }
        if let Some(error) = &record.error {
            writeln!(out, "   not done as planned: {}", plain(error))?;
        }
    }
    write_differences(records, out)?;
    write_rows(&rows(records), out)
}

fn write_differences([a, b]: [&Record; 2], out: &mut String) -> Result {
    let mut unlike = differences(&a.plan, &b.plan);
    unlike.extend(differences(&a.machine, &b.machine));
    if unlike.is_empty() {
        return writeln!(out, "\nThe plans are the same.");
    }
    writeln!(out, "\nThe runs differ in what was asked of them, and so may their figures:")?;
    let width = unlike.iter().map(|(_, a, _)| a.chars().count()).max().unwrap_or(0);
    writeln!(out, "  {:<14} {:<width$}  B", "", "A")?;
    unlike.iter().try_for_each(|(name, a, b)| writeln!(out, "  {name:<14} {a:<width$}  {b}"))
}

/// Fields that are not equal, with both values. Generic, so that a new field cannot be forgotten.
fn differences<T: Serialize>(a: &T, b: &T) -> Vec<(String, String, String)> {
    let [a, b] = [a, b].map(fields);
    let unlike = a.iter().filter(|(name, value)| b[*name] != **value && *name != NOT_COMPARED);
    unlike.map(|(name, value)| (name.clone(), said(value), said(&b[name]))).collect()
}

fn fields(part: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(part) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("the parts of a record are structs of plain fields"),
    }
}

fn said(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(said).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

fn rows(records: [&Record; 2]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, good, write, figure: &dyn Fn(&Record) -> Option<f64>| {
        let [a, b] = records.map(figure);
        rows.push(Row { name: name.to_owned(), a, b, write, good });
    };
    let whole = |number: f64| count(number as u64);
    let size = |number: f64| bytes(number as u64);
    use Good::{Less, More, Neither};

    row("connected", More, whole, &|record| Some(record.connecting.connected.into()));
    row("connecting took", Less, millis, &|record| Some(record.connecting.seconds * 1e3));
    for at in 0..Quantiles::NAMES.len() {
        row(&format!("handshake {}", Quantiles::NAMES[at]), Less, millis, &|record| {
            known(&record.connecting.handshake_ms, at)
        });
    }
    row("delivered", More, whole, &|record| Some(record.counts.delivered as f64));
    row("deliveries per s", More, whole, &|record| Some(record.counts.per_second as f64));
    for at in 0..4 {
        row(records[0].faults.named()[at].0, Less, whole, &|record| Some(record.faults.named()[at].1.count as f64));
    }
    row("closed", Less, whole, &|record| Some(record.counts.closed as f64));
    for (at, (receiver, _)) in records[0].delays_ms.named().into_iter().enumerate() {
        for (quantile, name) in Quantiles::NAMES.iter().enumerate() {
            row(&format!("{receiver} {name}"), Less, millis, &|record| {
                known(&record.delays_ms.named()[at].1.quantiles, quantile)
            });
        }
    }
    for at in 0..Quantiles::NAMES.len() {
        row(&format!("back {}", Quantiles::NAMES[at]), Less, millis, &|record| {
            known(&record.moved.as_ref()?.back_ms, at)
        });
    }
    row("CPU per delivery", Less, micros, &|record| record.server.as_ref()?.cpu_per_delivery_us);
    row("CPU per connect", Less, micros, &|record| record.server.as_ref()?.cpu_per_connect_us);
    row("CPU in all", Less, millis, &|record| Some(record.server.as_ref()?.cpu_s? * 1e3));
    row("memory per client", Less, size, &|record| Some(record.memory_per_client()? as f64));
    row("memory at most", Less, size, &|record| Some(record.server.as_ref()?.resident_max? as f64));
    row("published late p99", Neither, millis, &|record| known(&record.generator.late_ms, 2));
    row("loop lag p99", Neither, millis, &|record| Some(record.generator.lag_p99_ms()));
    rows.retain(|row| row.a.is_some() || row.b.is_some());
    rows
}

fn known(times: &Quantiles, at: usize) -> Option<f64> {
    (times.samples > 0).then(|| times.values()[at])
}

fn write_rows(rows: &[Row], out: &mut String) -> Result {
    writeln!(out, "\n  {:<20}{:>13}{:>13}{:>9}", "", "A", "B", "B/A")?;
    for row in rows {
        let [a, b] = [row.a, row.b].map(|figure| figure.map_or("-".to_owned(), row.write));
        let line = format!("  {:<20}{a:>13}{b:>13}{:>9}  {}", row.name, row.ratio(), row.mark());
        writeln!(out, "{}", line.trim_end())?;
    }
    let percent = NOISE_SHARE_MAX * 100.0;
    writeln!(
        out,
        "\nbetter, worse: B by more than {percent:.0} %. Chance can do that too: repeat both runs to be sure."
    )
}

impl Row {
    fn ratio(&self) -> String {
        match (self.a, self.b) {
            (Some(a), Some(b)) if a == b => "1.00".to_owned(),
            (Some(a), Some(b)) if a > 0.0 => format!("{:.2}", b / a),
            _ => "-".to_owned(),
        }
    }

    fn mark(&self) -> &'static str {
        let (Some(a), Some(b)) = (self.a, self.b) else { return "" };
        let more = b > a * (1.0 + NOISE_SHARE_MAX);
        let less = b * (1.0 + NOISE_SHARE_MAX) < a;
        match self.good {
            Good::Less if less => "better",
            Good::More if more => "better",
            Good::Less if more => "worse",
            Good::More if less => "worse",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Planned;

    fn marked(good: Good, a: Option<f64>, b: Option<f64>) -> (String, &'static str) {
        let row = Row { name: String::new(), a, b, write: millis, good };
        (row.ratio(), row.mark())
    }

    #[test]
    fn ratios_and_marks() {
        use Good::{Less, More, Neither};
        let table = [
            ((Less, Some(100.0), Some(105.0)), ("1.05", "")),
            ((Less, Some(100.0), Some(106.0)), ("1.06", "worse")),
            ((Less, Some(106.0), Some(100.0)), ("0.94", "better")),
            ((More, Some(100.0), Some(106.0)), ("1.06", "better")),
            ((More, Some(106.0), Some(100.0)), ("0.94", "worse")),
            ((Neither, Some(1.0), Some(9.0)), ("9.00", "")),
            ((Less, Some(0.0), Some(0.0)), ("1.00", "")),
            ((Less, Some(0.0), Some(1.0)), ("-", "worse")),
            ((Less, Some(1.0), Some(0.0)), ("0.00", "better")),
            ((Less, None, Some(1.0)), ("-", "")),
            ((More, Some(1.0), None), ("-", "")),
        ];
        for ((good, a, b), (ratio, mark)) in table {
            assert_eq!(marked(good, a, b), (ratio.to_owned(), mark), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_run_is_like_itself() {
        let record = Record { plan: Planned { seed: 8, ..Record::example().plan }, ..Record::example() };
        let text = compare(["a.json", "b.json"], [&Record::example(), &record]);
        let begin = "A  a.json  FAIL  ticker: http://127.0.0.1:3000/socket.io/\n\
                     B  b.json  FAIL  ticker: http://127.0.0.1:3000/socket.io/\n\n\
                     The plans are the same.\n\n";
        assert!(text.starts_with(begin), "{text}");
        let table = text.lines().filter(|line| line.starts_with("  ")).skip(1);
        assert!(table.clone().count() > 40 && table.clone().all(|line| line.ends_with(" 1.00")), "{text}");
    }

    #[test]
    fn what_differs_comes_first() {
        let a = Record::example();
        let mut b = a.clone();
        b.plan.connections = 2000;
        b.plan.limits.clear();
        b.machine.cores = 8;
        b.delays_ms.last.quantiles.p99 = 37.0;
        b.faults.lost.count = 0;
        b.server = None;
        (b.valid, b.invalid, b.error) = (false, Some("it was busy".to_owned()), Some("it\nended".to_owned()));
        let text = compare(["a.json", "b.json"], [&a, &b]);
        let begin = "A  a.json  FAIL  ticker: http://127.0.0.1:3000/socket.io/
B  b.json  FAIL  ticker: http://127.0.0.1:3000/socket.io/
   INVALID it was busy; its delays say nothing about the server
   not done as planned: it\u{fffd}ended

The runs differ in what was asked of them, and so may their figures:
                 A                      B
  connections    1000                   2000
  limits         last-p99<100ms,lost=0  none
  cores          2                      8

                                  A            B      B/A
  connected                   1,000        1,000     1.00
  connecting took            512 ms       512 ms     1.00
";
        assert!(text.starts_with(begin), "{text}");
        for line in [
            "\n  lost                            1            0     0.00  better\n",
            "\n  last p99                  18.5 ms      37.0 ms     2.00  worse\n",
            "\n  CPU per delivery          1.24 µs            -        -\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn nothing_has_no_ratio() {
        let text = compare(["a", "b"], [&Record::nothing(), &Record::nothing()]);
        assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains("null"), "{text}");
    }
}
