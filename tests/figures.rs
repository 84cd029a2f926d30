//! Figures: the tables in README.md say what the kept results say.
//!
//! ```text
//! perf/results/*.json ─▶ TABLES: which figure stands where ─▶ README.md, between the markers of each table
//! ```
//!
//! Only what stands between `<!-- figures: begin NAME -->` and `<!-- figures: end NAME -->` is written here; the text
//! around it is written by hand. After a new measurement:
//!     FANFARE_UPDATE_README=1 cargo test --test figures
//!
//! A new table: its results in `perf/results/`, an entry in `TABLES`, its two markers in README.md. Every figure names
//! its file, so no figure changes only because a new file exists. The format: perf/README.md.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const UPDATE: &str = "FANFARE_UPDATE_README=1 cargo test --test figures";

const RELAY: &str = "2026-11-22-hot-path.json";
const LARGE: &str = "2026-11-22-100k.json";

const TABLES: &[Table] = &[RELAY_TABLE, LARGE_TABLE];

const RELAY_TABLE: Table = Table {
    name: "relay",
    head: &["10,000 connections", "fanfare", "Bun pub/sub, plain WebSocket", "Socket.IO 4.8 on Node 20"],
    rows: &[
        Row {
            what: "CPU per delivery, one broadcast at a time",
            unit: MICROSECONDS_OF_NANOSECONDS,
            fanfare: Figure(RELAY, "/runs/0/median/ours/server_cpu_ns"),
            peers: &[
                Peer::Compared(Figure(RELAY, "/runs/0/median/bunraw/server_cpu_ns")),
                Peer::Compared(Figure(RELAY, "/runs/0/median/node/server_cpu_ns")),
            ],
        },
        Row {
            what: "CPU per delivery, 16 broadcasts under way",
            unit: MICROSECONDS_OF_NANOSECONDS,
            fanfare: Figure(RELAY, "/runs/1/median/ours/server_cpu_ns"),
            peers: &[
                Peer::Compared(Figure(RELAY, "/runs/1/median/bunraw/server_cpu_ns")),
                Peer::Compared(Figure(RELAY, "/runs/1/median/node/server_cpu_ns")),
            ],
        },
        Row {
            what: "CPU per delivery of 16 KB, 1,000 connections",
            unit: MICROSECONDS_OF_NANOSECONDS,
            fanfare: Figure(RELAY, "/runs/3/median/ours/server_cpu_ns"),
            peers: &[Peer::Compared(Figure(RELAY, "/runs/3/median/bunraw/server_cpu_ns")), Peer::Unknown],
        },
        Row {
            what: "CPU per connect, Socket.IO's CONNECT included",
            unit: Unit { name: "µs", divisor: 1.0, decimals_min: 0 },
            fanfare: Figure(RELAY, "/runs/0/median/ours/conn_cpu_us"),
            peers: &[
                Peer::Compared(Figure(RELAY, "/runs/0/median/bunraw/conn_cpu_us")),
                Peer::Compared(Figure(RELAY, "/runs/0/median/node/conn_cpu_us")),
            ],
        },
        Row {
            what: "memory per idle connection, 18,000 of them",
            unit: Unit { name: "KB", divisor: 1.0, decimals_min: 0 },
            fanfare: Figure(RELAY, "/runs/2/median/ours/rss_kb_per_conn"),
            peers: &[
                Peer::Compared(Figure(RELAY, "/runs/2/median/bunraw/rss_kb_per_conn")),
                Peer::Alone(Figure(RELAY, "/runs/0/median/node/rss_kb_per_conn"), "(at 10,000)"),
            ],
        },
    ],
    closing: Some(Closing {
        before: "A bare `send(2)` loop over the same connections costs ",
        figure: Figure(RELAY, "/runs/0/median/floor/server_cpu_ns"),
        unit: MICROSECONDS_OF_NANOSECONDS,
        after: " a delivery: what is left to win is the kernel's.",
    }),
};

/// As many clients as each server holds in one process.
const LARGE_TABLE: Table = Table {
    name: "large",
    head: &["all in one process, a hard limit of 20,000 descriptors", "fanfare", "Socket.IO 4.8 on Node 20"],
    rows: &[
        Row {
            what: "clients",
            unit: COUNT,
            fanfare: Figure(LARGE, "/runs/0/record/connecting/connected"),
            peers: &[Peer::Alone(Figure(LARGE, "/runs/1/record/connecting/connected"), "(all that one holds)")],
        },
        Row {
            what: "deliveries of 60 messages, one a second",
            unit: COUNT,
            fanfare: Figure(LARGE, "/runs/0/record/counts/delivered"),
            peers: &[Peer::Alone(Figure(LARGE, "/runs/1/record/counts/delivered"), "")],
        },
        Row {
            what: "lost",
            unit: COUNT,
            fanfare: Figure(LARGE, "/runs/0/record/faults/lost/count"),
            peers: &[Peer::Alone(Figure(LARGE, "/runs/1/record/faults/lost/count"), "")],
        },
        Row {
            what: "CPU per delivery",
            unit: Unit { name: "µs", divisor: 1.0, decimals_min: 1 },
            fanfare: Figure(LARGE, "/runs/0/record/server/cpu_per_delivery_us"),
            peers: &[Peer::Compared(Figure(LARGE, "/runs/1/record/server/cpu_per_delivery_us"))],
        },
        Row {
            what: "memory per client",
            unit: Unit { name: "KB", divisor: 1024.0, decimals_min: 0 },
            fanfare: Figure(LARGE, "/runs/0/per_client_bytes"),
            peers: &[Peer::Compared(Figure(LARGE, "/runs/1/per_client_bytes"))],
        },
    ],
    closing: None,
};

const COUNT: Unit = Unit { name: "", divisor: 1.0, decimals_min: 0 };

const MICROSECONDS_OF_NANOSECONDS: Unit = Unit { name: "µs", divisor: 1000.0, decimals_min: 1 };

/// The first column says what was measured, the second is fanfare's, then come the peers.
struct Table {
    name: &'static str,
    head: &'static [&'static str],
    rows: &'static [Row],
    closing: Option<Closing>,
}

struct Row {
    what: &'static str,
    unit: Unit,
    fanfare: Figure,
    peers: &'static [Peer],
}

/// A sentence under a table, with one figure in it.
struct Closing {
    before: &'static str,
    figure: Figure,
    unit: Unit,
    after: &'static str,
}

/// A file in `perf/results/`, and the JSON pointer of a number in it.
struct Figure(&'static str, &'static str);

enum Peer {
    /// Measured as fanfare was: how much of it fanfare needs is said beside it.
    Compared(Figure),
    /// Measured otherwise; the text beside it says how.
    Alone(Figure, &'static str),
    /// Not measured.
    Unknown,
}

struct Unit {
    /// Empty for a count.
    name: &'static str,
    /// How many of the file's units make one of these.
    divisor: f64,
    /// For a row whose figures differ much in size and are read against each other.
    decimals_min: usize,
}

#[test]
fn the_readme_shows_the_kept_results() {
    let (results, readme) = (Results::read(), read(&root().join("README.md")));
    let mut names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
    names.sort_unstable();
    let mut marked: Vec<_> = readme.lines().filter_map(|line| line.strip_prefix("<!-- figures: begin ")).collect();
    marked.sort_unstable();
    let marked: Vec<_> = marked.iter().map(|rest| rest.trim_end_matches(" -->")).collect();
    assert_eq!(marked, names, "the markers in README.md (left) and the tables here (right) differ");

    let updated = TABLES.iter().fold(readme.clone(), |text, table| fill(&text, table.name, &table.text(&results)));
    if std::env::var_os("FANFARE_UPDATE_README").is_some() {
        fs::write(root().join("README.md"), updated).expect("README.md is writable");
        return;
    }
    assert!(
        readme == updated,
        "README.md does not say what perf/results/ says:\n{}to rewrite it: {UPDATE}",
        difference(&readme, &updated)
    );
}

#[test]
fn every_result_says_when_where_and_how_it_was_taken() {
    for (file, result) in &Results::read().0 {
        let date = result["date"].as_str().unwrap_or_default();
        assert!(!date.is_empty() && file.starts_with(date), "{file}: `date` is what the file's name begins with");
        assert!(result["machine"].is_string(), "{file}: `machine` says what it was measured on");
        let runs = result["runs"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(!runs.is_empty(), "{file}: `runs` is a list of what was measured");
        for (number, run) in runs.iter().enumerate() {
            let command = run.get("command").or(result.get("command"));
            assert!(command.is_some_and(Value::is_string), "{file}: run {number} has no `command` to repeat it with");
        }
    }
}

#[test]
fn figures_are_rounded_to_what_can_be_read() {
    let table = [
        (0.347, 0, "0.35"),
        (0.0404, 0, "0.04"),
        (0.5007, 0, "0.50"),
        (1.02, 0, "1.0"),
        (1.89, 0, "1.9"),
        (9.96, 0, "10"),
        (14.98, 0, "15"),
        (16.72, 1, "16.7"),
        (230.9, 0, "231"),
        (2_073_792.0, 0, "2,073,792"),
        (0.0, 0, "0"),
    ];
    for (value, decimals_min, text) in table {
        assert_eq!(number(value, decimals_min), text);
    }
}

#[test]
fn only_what_is_between_the_markers_is_replaced() {
    let text = "a\n<!-- figures: begin x -->\nold\n<!-- figures: end x -->\nb\n<!-- figures: begin y -->\n";
    let filled = "a\n<!-- figures: begin x -->\nnew\n<!-- figures: end x -->\nb\n<!-- figures: begin y -->\n";
    assert_eq!(fill(text, "x", "new\n"), filled);
    assert_eq!(difference(text, filled), "- old\n+ new\n");
}

impl Table {
    fn text(&self, results: &Results) -> String {
        let mut text = format!("| {} |\n|{}\n", self.head.join(" | "), "---|".repeat(self.head.len()));
        let mut explained = false;
        for row in self.rows {
            assert_eq!(self.head.len(), 2 + row.peers.len(), "{}: a column for each peer", row.what);
            let ours = results.number(&row.fanfare);
            write!(text, "| {} | {} |", row.what, row.unit.of(ours)).expect("a string takes all");
            for peer in row.peers {
                let (figure, beside) = match peer {
                    Peer::Unknown => {
                        text.push_str(" – |");
                        continue;
                    }
                    Peer::Alone(figure, beside) => (figure, (*beside).to_owned()),
                    Peer::Compared(figure) => {
                        let ratio = number(ours / results.number(figure), 0);
                        let first = !std::mem::replace(&mut explained, true);
                        (figure, if first { format!("(fanfare is {ratio} of it)") } else { format!("({ratio})") })
                    }
                };
                let cell = format!("{} {beside}", row.unit.of(results.number(figure)));
                write!(text, " {} |", cell.trim_end()).expect("a string takes all");
            }
            text.push('\n');
        }
        if let Some(Closing { before, figure, unit, after }) = &self.closing {
            writeln!(text, "\n{before}{}{after}", unit.of(results.number(figure))).expect("a string takes all");
        }
        text
    }
}

impl Unit {
    fn of(&self, value: f64) -> String {
        format!("{} {}", number(value / self.divisor, self.decimals_min), self.name).trim_end().to_owned()
    }
}

/// Two digits that tell something, no more than two decimals, and never fewer digits than a whole number has.
fn number(value: f64, decimals_min: usize) -> String {
    let decimals = match value {
        0.0 => 0,
        ..0.995 => 2,
        ..9.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.*}", decimals.max(decimals_min));
    let whole = text.split('.').next().expect("split gives at least one piece").len();
    let mut grouped = String::new();
    for (place, digit) in text.chars().enumerate() {
        if place > 0 && place < whole && (whole - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// What was kept, by the name of the file.
struct Results(BTreeMap<String, Value>);

impl Results {
    fn read() -> Results {
        let files = fs::read_dir(root().join("perf/results")).expect("perf/results is there");
        let paths = files.map(|file| file.expect("an entry").path());
        let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let result = |path: PathBuf| {
            let value =
                serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_name().expect("a file has a name").to_string_lossy().into_owned(), value)
        };
        Results(json.map(result).collect())
    }

    fn number(&self, Figure(file, pointer): &Figure) -> f64 {
        let result = self.0.get(*file).unwrap_or_else(|| panic!("perf/results/{file} is shown in README.md: keep it"));
        let value = result.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("perf/results/{file} has no number at {pointer}"))
    }
}

/// The text with another table between the markers of this name.
fn fill(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- figures: begin {name} -->\n"), format!("<!-- figures: end {name} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("README.md has no line {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("README.md has no line {end} after {begin}"));
    format!("{before}{begin}{table}{end}{after}")
}

/// The lines that only one of the two has.
fn difference(old: &str, new: &str) -> String {
    let only = |sign: char, these: &str, those: &str| -> String {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    only('-', old, new) + &only('+', new, old)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
