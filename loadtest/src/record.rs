//! Record: one finished run, as numbers with names: what `--json` writes and what every other view of a run is made of.
//!
//! ```text
//!     report ─▶ record ─┬─ summary    text for the terminal
//!                       ├─ --json     this, as it is
//!                       ├─ --csv      its seconds
//!                       ├─ --html     a page with charts
//!                       └─ --compare  two of them, side by side
//! ```
//!
//! Times are milliseconds, sizes bytes, shares 1.0 for all, unless a name says otherwise. A field that is `null` was not
//! measured; nothing is zero for want of a figure.
//!
//! Compatibility: fields may be added; a change of meaning raises [`FORMAT`].

use crate::error::{self, Error, Unreadable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// The command line, as it was given.
    pub command: String,
    /// When the run began, in seconds since 1970 (UTC).
    pub began_unix_s: u64,
    pub machine: Machine,
    pub plan: Planned,
    pub connecting: Connecting,
    pub counts: Counts,
    pub faults: Faults,
    pub delays_ms: Delays,
    /// What the clients that moved did; absent where none did.
    pub moved: Option<Moved>,
    /// The server, where it was watched.
    pub server: Option<Server>,
    pub generator: Generator,
    /// One entry per second of the run, from the first connection on.
    pub seconds: Vec<Second>,
    pub interrupted: bool,
    /// Whether the delays say something about the server; `invalid` says why not.
    pub valid: bool,
    pub invalid: Option<String>,
    /// One line per broken promise.
    pub failures: Vec<String>,
    /// What kept the run from being done as planned.
    pub error: Option<String>,
    /// See the help text for what the codes mean.
    pub exit_code: u8,
}

/// Where the generator ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cores: usize,
    pub system: String,
}

/// What was to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub url: String,
    /// The scenario's name, such as `ticker`.
    pub workload: String,
    pub protocol: String,
    pub transport: String,
    pub namespace: String,
    pub publish: String,
    pub connections: u32,
    /// Rooms that have clients; zero when everything goes to everyone.
    pub rooms: u32,
    pub ramp_per_s: f64,
    /// Messages per second, over the whole time; zero when nothing is published.
    pub rate_per_s: f64,
    pub size_bytes: usize,
    pub duration_s: f64,
    pub messages: u32,
    pub seed: u64,
    /// Keys that messages have in turn; zero: they have none.
    #[serde(default)]
    pub keys: u32,
    /// Nobody moved, though the same clients were counted as if they did.
    #[serde(default)]
    pub still: bool,
    /// Where closed clients went on to.
    #[serde(default)]
    pub then: Option<String>,
    pub limits: Vec<String>,
}

/// From the first connection to the last client that was ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connecting {
    pub connected: u32,
    pub seconds: f64,
    /// Per client, from the opened stream to the confirmed namespace.
    pub handshake_ms: Quantiles,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub published: u32,
    /// Those among them that the server refused with 429 or 503 and `Retry-After`: nobody could have them.
    #[serde(default)]
    pub refused: u32,
    /// Deliveries that there should have been, and those that there were, each client and message once.
    pub expected: u64,
    pub delivered: u64,
    /// Deliveries that a newer value of the same key made needless, to clients that stay.
    #[serde(default)]
    pub conflated: u64,
    pub per_second: u64,
    /// Messages to rooms in which clients stay all the time, and those among them that reached every such client.
    pub awaited: u32,
    pub complete: u32,
    /// Clients that were ended by the server while messages were counted; those among them that it evicted because they
    /// read too slowly (1008), although they read.
    pub closed: u64,
    #[serde(default)]
    pub evicted: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Faults {
    pub lost: Fault,
    pub doubled: Fault,
    pub reordered: Fault,
    /// Deliveries to clients that are not in the message's room.
    pub stray: Fault,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub count: u64,
    /// The first of them that was seen.
    pub first: Option<Example>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    pub client: u32,
    pub message: u32,
}

/// Delays from the time at which a message should have left. `first` to `last` are of messages: until the first client,
/// half of them, 99 of 100 and all had it; `delivery` is of every delivery by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    pub first: Spread,
    pub median: Spread,
    pub p99: Spread,
    pub last: Spread,
    pub delivery: Spread,
}

/// A distribution: its quantiles, and enough of its curve to draw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    #[serde(flatten)]
    pub quantiles: Quantiles,
    /// Quantile and time, rising.
    pub curve: Vec<(f64, f64)>,
    /// Bars of a histogram: the time up to which one reaches, and its samples.
    pub bars: Vec<(f64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub samples: u64,
}

/// Clients that dropped and came back, joined late, stopped reading, or were closed and came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// `drop`, `join`, `stall` or `return`.
    pub kind: String,
    pub clients: u32,
    /// How often one of them moved.
    pub moves: u64,
    /// Until a dropped client was ready again, or a late joiner had its first message.
    pub back_ms: Quantiles,
    /// Times that the server would not take one back; it tried again.
    pub refused: u64,
    /// Those that the server ended while they stalled.
    pub ended: u64,
    /// Those that dropped and were not back when the run was over.
    #[serde(default)]
    pub away: u64,
    /// What the server refused with, and how often.
    #[serde(default)]
    pub refused_with: BTreeMap<String, u64>,
    /// Of those that the server ended while they stalled: how long they had stalled, where the end was seen at once.
    #[serde(default)]
    pub ended_ms: Quantiles,
    /// From the first that moved to the last that was back; absent while somebody is away.
    #[serde(default)]
    pub all_back_s: Option<f64>,
    /// Clients that went, connections that were begun to come back, and clients that were back, in each second.
    #[serde(default)]
    pub left: Pace,
    #[serde(default)]
    pub asked: Pace,
    #[serde(default)]
    pub back: Pace,
    /// What the others noticed.
    #[serde(default)]
    pub beside: Beside,
}

/// How many in each second, from the first one on; the most in one of them, and the mean from the first to the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    pub per_s: Vec<u64>,
    pub largest: u64,
    pub mean: f64,
}

/// Delays of last receivers, of the messages due before the first client moved, from then until the last was back, and
/// later; and the generator's own lag while clients came back, in threads whose clients are waited for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    pub before_ms: Quantiles,
    pub during_ms: Quantiles,
    pub after_ms: Quantiles,
    pub lag_ms: Quantiles,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub cpu_s: Option<f64>,
    /// While messages were published and delivered, in all and per delivery.
    #[serde(default)]
    pub cpu_publishing_s: Option<f64>,
    pub cpu_per_delivery_us: Option<f64>,
    /// While clients connected, per client.
    pub cpu_per_connect_us: Option<f64>,
    pub resident_before: Option<u64>,
    /// When every client was connected.
    pub resident_connected: Option<u64>,
    /// When the first message was due.
    #[serde(default)]
    pub resident_published: Option<u64>,
    pub resident_max: Option<u64>,
    /// After the last delivery, with all clients still there, stalled ones too.
    #[serde(default)]
    pub resident_end: Option<u64>,
    /// A second after all clients had gone.
    #[serde(default)]
    pub resident_after: Option<u64>,
    /// What went wrong with watching.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// How much later than due messages were published.
    pub late_ms: Quantiles,
    /// One per thread; the last one publishes.
    pub threads: Vec<Thread>,
    /// What the process, and those of the workers, grew by while connecting.
    pub memory_bytes: u64,
    /// The other generators of the run, and how well their clocks are known.
    pub workers: Vec<Worker>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// The share of the time in which it ran, and with that in which it waited for a core.
    pub cpu: f64,
    pub busy: f64,
    pub lag_ms: Quantiles,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub address: String,
    pub connections: u32,
    /// Its clock minus ours at the end of the run, after it was set by ours at the beginning, and how far that may be
    /// off. Of one that went away, the beginning is all that is known.
    pub offset_ms: f64,
    pub uncertainty_ms: f64,
}

impl Worker {
    /// How much too long or too short the delays of its clients may be.
    pub fn error_ms(&self) -> f64 {
        self.offset_ms.abs() + self.uncertainty_ms
    }
}

/// One second of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the run began.
    pub at_s: f64,
    /// `connecting`, `warming`, `measuring` or `draining`.
    pub phase: String,
    pub connected: u32,
    /// Totals so far.
    pub published: u32,
    pub delivered: u64,
    /// Deliveries in this second, per second.
    pub per_second: u64,
    /// The longest delay of a last receiver among the messages that became complete in this second.
    pub last_max_ms: Option<f64>,
    /// How many clients are up to 1, 2, 3, 5, 10 and more seconds behind; see [`BEHIND_S`].
    pub behind: Vec<u32>,
    /// Cores in use, 1.0 is one.
    pub server_cpu: Option<f64>,
    pub server_resident: Option<u64>,
    pub generator_cpu: Option<f64>,
}

/// The bounds of [`Second::behind`], in seconds: the first class is below the first bound, the last one has none.
pub const BEHIND_S: [u64; 5] = [1, 2, 3, 5, 10];

/// A run in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// A promise was broken, or the run could not be done.
    Fail,
    /// Nothing was broken, but the delays are the generator's.
    Invalid,
    /// Nothing was wrong until it was interrupted.
    Interrupted,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Invalid => "INVALID",
            Verdict::Interrupted => "INTERRUPTED",
        }
    }
}

impl Record {
    /// A record that was kept.
    pub fn read(path: &Path) -> Result<Record, Error> {
        let unreadable = |why| Error::Record { path: path.display().to_string(), why };
        let text = std::fs::read(path).map_err(|error| unreadable(Unreadable::File(error::cause(&error))))?;
        Record::parse(&text).map_err(unreadable)
    }

    fn parse(text: &[u8]) -> Result<Record, Unreadable> {
        let value: Value = serde_json::from_slice(text).map_err(|error| Unreadable::NotJson(error.to_string()))?;
        match value["format"].as_u64() {
            None => Err(Unreadable::NoRecord("it has no format".to_owned())),
            Some(format) if format > FORMAT.into() => Err(Unreadable::Newer { format, known: FORMAT }),
            Some(_) => serde_json::from_value(value).map_err(|error| Unreadable::NoRecord(error.to_string())),
        }
    }

    pub fn verdict(&self) -> Verdict {
        match self {
            Record { error: Some(_), .. } => Verdict::Fail,
            Record { failures, .. } if !failures.is_empty() => Verdict::Fail,
            Record { valid: false, .. } => Verdict::Invalid,
            Record { interrupted: true, .. } => Verdict::Interrupted,
            _ => Verdict::Pass,
        }
    }

    /// What the server's memory grew by while clients connected, per client.
    pub fn memory_per_client(&self) -> Option<u64> {
        let server = self.server.as_ref()?;
        let grown = server.resident_connected?.saturating_sub(server.resident_before?);
        grown.checked_div(self.connecting.connected.into())
    }
}

impl Quantiles {
    pub const NAMES: [&str; 5] = ["p50", "p90", "p99", "p999", "max"];

    /// In the order of [`Quantiles::NAMES`].
    pub fn values(&self) -> [f64; 5] {
        [self.p50, self.p90, self.p99, self.p999, self.max]
    }
}

impl Delays {
    pub fn named(&self) -> [(&'static str, &Spread); 5] {
        [
            ("first", &self.first),
            ("median", &self.median),
            ("p99", &self.p99),
            ("last", &self.last),
            ("delivery", &self.delivery),
        ]
    }
}

impl Faults {
    pub fn named(&self) -> [(&'static str, &Fault); 4] {
        [("lost", &self.lost), ("doubled", &self.doubled), ("reordered", &self.reordered), ("stray", &self.stray)]
    }
}

impl Generator {
    /// The worst thread's lag.
    pub fn lag_p99_ms(&self) -> f64 {
        self.threads.iter().map(|thread| thread.lag_ms.p99).fold(0.0, f64::max)
    }
}

#[cfg(test)]
impl Record {
    /// A run of 1,000 clients with everything measured; one delivery was lost.
    pub fn example() -> Record {
        Record::parse(EXAMPLE.as_bytes()).expect("it is a record")
    }

    /// A run that never began: whatever may be absent is, the rest is zero or empty.
    pub fn nothing() -> Record {
        let mut value: Value = serde_json::from_str(EXAMPLE).expect("it is JSON");
        erase(&mut value);
        value["format"] = FORMAT.into();
        value["valid"] = true.into();
        let quantiles = serde_json::to_value(Quantiles::default()).expect("numbers");
        value["delays_ms"] = ["first", "median", "p99", "last", "delivery"]
            .map(|name| {
                let mut spread = quantiles.clone();
                spread["curve"] = Value::Array(Vec::new());
                spread["bars"] = Value::Array(Vec::new());
                (name.to_owned(), spread)
            })
            .into_iter()
            .collect();
        serde_json::from_value(value).expect("it is a record")
    }
}

#[cfg(test)]
const EXAMPLE: &str = include_str!("../tests/runs/record.json");

#[cfg(test)]
fn erase(value: &mut Value) {
    const OPTIONAL: [&str; 6] = ["moved", "server", "invalid", "error", "first", "then"];
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| match field {
            _ if OPTIONAL.contains(&name.as_str()) => *field = Value::Null,
            field => erase(field),
        }),
        Value::Array(items) => items.clear(),
        Value::String(text) => text.clear(),
        Value::Bool(flag) => *flag = false,
        Value::Number(number) => *number = 0.into(),
        Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_through_json_unchanged() {
        let kept: Value = serde_json::from_str(EXAMPLE).expect("it is JSON");
        let record = Record::example();
        assert_eq!(serde_json::to_value(&record).expect("it has no odd numbers"), kept, "no field more, none less");
        let text = serde_json::to_vec(&record).expect("it has no odd numbers");
        assert_eq!(Record::parse(&text), Ok(record));
    }

    #[test]
    fn what_is_no_record() {
        let newer = EXAMPLE.replacen("\"format\": 1", "\"format\": 2", 1);
        let cut = EXAMPLE.replacen("\"machine\"", "\"engine\"", 1);
        let table = [
            ("hello", Unreadable::NotJson("expected value at line 1 column 1".to_owned())),
            ("{\"log\": []}", Unreadable::NoRecord("it has no format".to_owned())),
            ("[1]", Unreadable::NoRecord("it has no format".to_owned())),
            (&cut, Unreadable::NoRecord("missing field `machine`".to_owned())),
            (&newer, Unreadable::Newer { format: 2, known: 1 }),
        ];
        table.into_iter().for_each(|(text, why)| assert_eq!(Record::parse(text.as_bytes()), Err(why), "{text}"));
    }

    #[test]
    fn verdicts() {
        let pass = Record { failures: Vec::new(), ..Record::example() };
        let invalid = Record { valid: false, interrupted: true, ..pass.clone() };
        let table = [
            (Verdict::Pass, pass.clone()),
            (Verdict::Fail, Record { valid: false, ..Record::example() }),
            (Verdict::Fail, Record { error: Some("no".to_owned()), ..pass.clone() }),
            (Verdict::Invalid, invalid),
            (Verdict::Interrupted, Record { interrupted: true, ..pass }),
        ];
        table.iter().for_each(|(verdict, record)| assert_eq!(record.verdict(), *verdict));
    }

    #[test]
    fn memory_per_client_needs_clients() {
        let mut record = Record::example();
        assert_eq!(record.memory_per_client(), Some(8_192));
        record.connecting.connected = 0;
        assert_eq!(record.memory_per_client(), None);
    }
}
