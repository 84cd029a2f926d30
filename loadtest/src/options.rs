//! Options: the flags as they are written.
//!
//! ```text
//!   loadtest URL [flags]             a measurement
//!   loadtest --compare A B           two records side by side
//!   loadtest doctor [URL] [flags]    other commands, with flags of their own
//!   loadtest show FILE [flags]
//!   loadtest agent [flags]
//! ```

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::limits::{self, Limit};
use crate::speech::{Protocol, Transport};
use crate::target::Target;
use crate::units;

/// What the process is asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    Measure(Box<Options>),
    Doctor(Doctor),
    Show(Show),
    Agent(Agent),
    /// Two files that `--json` wrote.
    Compare([PathBuf; 2]),
}

/// Measures what a fan-out server delivers: every message to every client counted, the last receiver timed.
#[derive(Parser)]
#[command(
    name = "loadtest",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    after_help = "Exit code: 0 all was delivered and every limit kept; 1 something was lost, doubled, reordered or \
                  astray, or a limit broken;\n2 the run could not be done; 130 interrupted."
)]
struct Line {
    #[command(subcommand)]
    other: Option<Other>,

    /// Show two records of --json side by side instead: what differs in their plans, then each figure
    #[arg(long, value_names = ["A", "B"], num_args = 2, exclusive = true)]
    compare: Vec<PathBuf>,

    #[command(flatten)]
    options: Option<Options>,
}

#[derive(Subcommand)]
enum Other {
    Doctor(Doctor),
    Show(Show),
    Agent(Agent),
}

/// The flags of a run.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// The server, as http://HOST:PORT; a path replaces /socket.io/, a query is kept
    #[arg(value_name = "URL", value_parser = Target::parse)]
    pub target: Target,

    /// What clients speak: Socket.IO, or plain WebSocket whose messages are the strings themselves
    #[arg(long, value_name = "PROTOCOL", default_value = "socketio")]
    pub protocol: Protocol,

    /// How Socket.IO is carried; `upgrade` begins with polling and goes on over WebSocket, as browsers do
    #[arg(long, value_name = "TRANSPORT", default_value = "websocket")]
    pub transport: Transport,

    /// What every client sends when it connects to the namespace, like '{"token":"abc"}'
    #[arg(long, value_name = "JSON", value_parser = parse_auth)]
    pub auth: Option<String>,

    /// Goes into every HTTP request of clients and publisher; repeatable
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<String>,

    /// With plain WebSocket: a message that each client sends once connected; {room} in it is the room's name
    #[arg(long, value_name = "TEXT")]
    pub subscribe: Option<String>,

    /// What is done: ticker, scores, chat, notify, auction, storm, stall, join, connect, churn, conflate or
    /// drain; see scenarios/; ticker without a room, unless told
    #[arg(long, value_name = "NAME", conflicts_with = "scenario")]
    pub workload: Option<String>,

    /// The same from a file of your own
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,

    /// Nobody moves, though the same clients are counted as if they did: the run to compare storm and stall with
    #[arg(long)]
    pub still: bool,

    /// Where clients go on to when the server closes them (drain), as http://HOST:PORT; back to it, unless told
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    pub then: Option<Target>,

    /// How many clients connect; 1000 unless told
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub connections: Option<u32>,

    /// How many connections are begun per second, at most; 2000/s unless told
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    pub ramp: Option<f64>,

    /// The room that every client joins (it emits `join` with this name) and that is published to; of several rooms,
    /// what their names begin with; without it, everyone
    #[arg(long, value_name = "NAME")]
    pub room: Option<String>,

    /// Messages published per second; 10/s unless told
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    pub rate: Option<f64>,

    /// Messages have so many keys, one after the other, of which only the newest value has to arrive; with POST
    /// /api/publish, as its field `conflate`; 0, unless told: none
    #[arg(long, value_name = "N")]
    pub keys: Option<u32>,

    /// The length of a message's string, in bytes; 36 at least; 200 unless told
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    pub size: Option<usize>,

    /// How long messages are published; 10s unless told
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,

    /// `http`: POST /api/publish; `event:NAME`: a client emits NAME with the string, and with the room if there is one,
    /// and the server relays the string as `msg`; `message`: a plain WebSocket client sends the string; http unless
    /// told, message with --protocol ws
    #[arg(long, value_name = "WAY", value_parser = parse_publish)]
    pub publish: Option<Publish>,

    /// The namespace that every client connects to
    #[arg(long, value_name = "NAME", default_value = "/", value_parser = parse_namespace)]
    pub namespace: String,

    /// Local addresses to connect from, one after the other; loopback servers are reached from many by themselves
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub source_ip: Vec<IpAddr>,

    /// Decides who is in which room; the same seed makes the same run
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub seed: u64,

    /// What the run must keep, like 'last-p99<100ms,lost=0'
    #[arg(long, value_name = "LIMITS", value_parser = parse_limits)]
    pub limit: Option<Limits>,

    /// Run again and again at other rates, beginning with --rate, and find the highest one that keeps --limit
    #[arg(long, requires = "limit")]
    pub find_knee: bool,

    /// Write the record of the run to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the seconds of the run to this file, as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Write a page with charts to this file; it needs nothing but itself
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write the delays to this file, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,

    /// Report the CPU time and memory of the server, which is this process on this machine
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "metrics")]
    pub server_pid: Option<u32>,

    /// The same from the server's metrics for Prometheus, http://HOST:PORT/metrics
    #[arg(long, value_name = "URL", value_parser = parse_metrics)]
    pub metrics: Option<Target>,

    /// Let agents have the clients, each as many; see `loadtest agent`
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = parse_worker, conflicts_with = "source_ip")]
    pub workers: Vec<String>,

    /// A file whose first line the agents want to see
    #[arg(long, value_name = "FILE", requires = "workers")]
    pub key: Option<PathBuf>,

    /// The flags as they were given, as far as they concern other generators.
    #[arg(skip)]
    pub words: Vec<String>,
}

/// Flags that concern this machine alone, or that are told in another way, and whether a value follows.
const OURS_ALONE: [(&str, bool); 14] = [
    ("--scenario", true),
    ("--rate", true),
    ("--source-ip", true),
    ("--limit", true),
    ("--find-knee", false),
    ("--json", true),
    ("--csv", true),
    ("--html", true),
    ("--hdr", true),
    ("--server-pid", true),
    ("--metrics", true),
    ("--workers", true),
    ("--key", true),
    ("--", false),
];

/// Waits for coordinators and lends them this machine: clients for their runs, one run at a time
#[derive(Args, Clone, Debug)]
#[command(after_help = "It makes load for whoever may connect. Exit code: 0 it was ended; 2 it could not begin.")]
pub struct Agent {
    /// Where coordinators connect; port 0 is any free one. Beyond loopback --key is needed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,

    /// A file whose first line coordinators have to show: 16 letters at least
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Local addresses to connect from, one after the other; loopback servers are reached from many by themselves
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub source_ip: Vec<IpAddr>,
}

/// Shows a record of --json again: the summary here, other views as files
#[derive(Args, Clone, Debug)]
pub struct Show {
    /// The record
    pub file: PathBuf,

    /// Write a page with charts to this file; it needs nothing but itself
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write the seconds of the run to this file, as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
}

/// Checks what this machine allows for a run, and says how to allow more
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit code: 0 the run can go, with warnings perhaps; 1 something will surely stop it; 2 a wrong flag."
)]
pub struct Doctor {
    /// The server, as http://HOST:PORT; without it, one on this machine that does not run yet
    #[arg(value_name = "URL", value_parser = Target::parse)]
    pub target: Option<Target>,

    /// How many clients will connect
    #[arg(long, short, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub connections: u32,

    /// How many connections will be begun per second
    #[arg(long, value_name = "RATE", default_value = "2000/s", value_parser = units::parse_rate)]
    pub ramp: f64,

    /// How long messages will be, in bytes
    #[arg(long, value_name = "BYTES", default_value = "200", value_parser = units::parse_bytes)]
    pub size: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publish {
    Http,
    Event(String),
    Message,
}

/// Several limits behind one flag. Its own type, because clap would take a plain `Vec` for a repeated flag.
#[derive(Clone, Debug)]
pub struct Limits(pub Vec<Limit>);

impl Command {
    /// What the flags of this process say. Help and version are printed here, and end it.
    pub fn read() -> Result<Command, Error> {
        Self::parse(std::env::args_os()).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
            _ => Error::Flags(one_line(&error.to_string())),
        })
    }

    fn parse(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Command, clap::Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        Line::try_parse_from(&words).map(|line| match line {
            Line { other: Some(Other::Doctor(doctor)), .. } => Command::Doctor(doctor),
            Line { other: Some(Other::Show(show)), .. } => Command::Show(show),
            Line { other: Some(Other::Agent(agent)), .. } => Command::Agent(agent),
            Line { options: Some(options), .. } => {
                let words = for_others(words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()));
                Command::Measure(Box::new(Options { words, ..options }))
            }
            Line { compare, .. } => {
                Command::Compare(compare.try_into().expect("without --compare the URL is asked for, and it takes two"))
            }
        })
    }
}

impl Options {
    /// What another generator was told.
    pub fn from_words(words: &[String]) -> Result<Options, Error> {
        let name = std::iter::once("loadtest");
        Options::try_parse_from(name.chain(words.iter().map(String::as_str)))
            .map_err(|error| Error::Flags(one_line(&error.to_string())))
    }
}

/// The flags that every generator of a run has to know.
fn for_others(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let (mut kept, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        match OURS_ALONE.iter().find(|(ours, _)| *ours == name) {
            Some((_, true)) if name == word => drop(words.next()),
            Some(_) => {}
            None => kept.push(word),
        }
    }
    kept
}

/// What clap says over several lines, without the usage.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for part in text.lines().map(str::trim).take_while(|part| !part.starts_with("Usage:")) {
        if part.is_empty() || part.starts_with("For more information") {
            continue;
        }
        line += match line.as_str() {
            "" => "",
            so_far if so_far.ends_with(':') => " ",
            _ => "; ",
        };
        line += part.strip_prefix("error: ").unwrap_or(part);
    }
    line
}

fn parse_publish(text: &str) -> Result<Publish, String> {
    match text.strip_prefix("event:") {
        Some(name) if !name.is_empty() => Ok(Publish::Event(name.to_owned())),
        None if text == "http" => Ok(Publish::Http),
        None if text == "message" => Ok(Publish::Message),
        _ => Err("write http, event:NAME or message".to_owned()),
    }
}

fn parse_auth(text: &str) -> Result<String, String> {
    let object = serde_json::from_str::<serde_json::Map<_, _>>(text);
    object.map(|_| text.trim().to_owned()).map_err(|_| "write a JSON object, like '{\"token\":\"abc\"}'".to_owned())
}

/// A header as it is sent. What we say ourselves is refused: said twice, it would mean something else to each server.
fn parse_header(line: &str) -> Result<String, String> {
    const OURS: [&str; 6] = ["host", "upgrade", "connection", "content-length", "content-type", "transfer-encoding"];
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let wrong = || "write a header as 'Name: value', on one line".to_owned();
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    if name.is_empty() || !name.bytes().all(token) || value.contains(['\r', '\n', '\0']) {
        return Err(wrong());
    }
    let lower = name.to_ascii_lowercase();
    if OURS.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
        return Err(format!("{name} is set by loadtest itself; leave it out"));
    }
    Ok(format!("{name}: {}", value.trim()))
}

fn parse_namespace(text: &str) -> Result<String, String> {
    let wrong = !text.starts_with('/') || text.contains([',', '?']);
    if wrong { Err("write a namespace as /NAME, without , and ?".to_owned()) } else { Ok(text.to_owned()) }
}

fn parse_metrics(text: &str) -> Result<Target, String> {
    let target = Target::parse(text).ok().filter(|target| text.starts_with("http://") && !target.path.contains('?'));
    target.map(|target| target.or_path("/metrics")).ok_or_else(|| "write http://HOST:PORT/PATH".to_owned())
}

fn parse_worker(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let right = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if right { Ok(text.to_owned()) } else { Err("write an agent's address as HOST:PORT".to_owned()) }
}

fn parse_limits(text: &str) -> Result<Limits, String> {
    limits::parse(text).map(Limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn command(flags: &[&str]) -> Result<Command, String> {
        Command::parse(["loadtest"].iter().chain(flags)).map_err(|error| one_line(&error.to_string()))
    }

    fn read(flags: &[&str]) -> Result<Options, String> {
        command(flags).map(|command| match command {
            Command::Measure(options) => *options,
            other => panic!("{flags:?} is no measurement but {other:?}"),
        })
    }

    fn doctor(flags: &[&str]) -> Result<Doctor, String> {
        command(&[&["doctor"], flags].concat()).map(|command| match command {
            Command::Doctor(options) => options,
            other => panic!("doctor {flags:?} is {other:?}"),
        })
    }

    #[test]
    fn the_doctor_takes_a_run_as_it_is_measured() {
        let (run, examined) = (read(&["http://h"]).expect("a run"), doctor(&["http://h"]).expect("a run to be"));
        assert_eq!(Some(&run.target), examined.target.as_ref());
        let run = Plan::new(run).expect("it is a plan");
        assert_eq!((run.connections, run.ramp, run.size), (examined.connections, examined.ramp, examined.size));
        let examined = doctor(&["--connections", "5", "--ramp", "10/s", "--size", "1k"]).expect("all are flags");
        assert!(examined.target.is_none());
        assert_eq!((examined.connections, examined.ramp, examined.size), (5, 10.0, 1024));
        for (flags, line) in [
            (
                ["--conections", "5"],
                "unexpected argument '--conections' found; tip: a similar argument exists: '--connections'",
            ),
            (["--ramp", "fast"], "invalid value 'fast' for '--ramp <RATE>': write a rate as 10 or 10/s, above zero"),
        ] {
            assert_eq!(doctor(&flags).map(|_| ()), Err(line.to_owned()));
        }
    }

    #[test]
    fn a_server_is_watched_in_one_way() {
        assert_eq!(read(&["http://h", "--server-pid", "7"]).map(|options| options.server_pid), Ok(Some(7)));
        for (url, whole) in [("http://h:1", "http://h:1/metrics"), ("http://h/a/b", "http://h:80/a/b")] {
            let metrics = read(&["http://h", "--metrics", url]).expect("it is a URL").metrics;
            assert_eq!(metrics.map(|target| target.url()).as_deref(), Some(whole));
        }
        let both = read(&["http://h", "--server-pid", "7", "--metrics", "http://h"]).map(|_| ());
        assert_eq!(both, Err("the argument '--server-pid <PID>' cannot be used with '--metrics <URL>'".to_owned()));
        for url in ["https://h", "ws://h", "h:1", "http://h/?a"] {
            let line = format!("invalid value '{url}' for '--metrics <URL>': write http://HOST:PORT/PATH");
            assert_eq!(read(&["http://h", "--metrics", url]).map(|_| ()), Err(line));
        }
    }

    #[test]
    fn all_flags_together() {
        let flags = "http://h:1 --connections 5 --ramp 10/s --room a --rate 2 --size 1k --duration 3s \
                     --publish event:pub --namespace /x --json f --limit lost=0";
        let options = read(&flags.split_whitespace().collect::<Vec<_>>()).expect("all are flags");
        let figures = (options.connections, options.ramp, options.rate, options.size);
        assert_eq!(figures, (Some(5), Some(10.0), Some(2.0), Some(1024)));
        assert_eq!(options.publish, Some(Publish::Event("pub".to_owned())));
        let flags =
            ["http://h", "--transport", "upgrade", "--auth", " {\"a\": 1} ", "--header", "X-A:b", "--header", "c: d "];
        let options = read(&flags).expect("all are flags");
        assert_eq!((options.protocol, options.transport), (Protocol::SocketIo, Transport::Upgrade));
        assert_eq!(
            (options.auth.as_deref(), options.headers),
            (Some("{\"a\": 1}"), vec!["X-A: b".into(), "c: d".into()])
        );
        let flags = ["http://h", "--protocol", "ws", "--subscribe", "join {room}", "--publish", "message"];
        let options = read(&flags).expect("all are flags");
        assert_eq!((options.protocol, options.publish), (Protocol::Ws, Some(Publish::Message)));
        assert_eq!(options.subscribe.as_deref(), Some("join {room}"));
    }

    #[test]
    fn other_generators_are_told_what_concerns_them() {
        let flags = "http://h --connections 5 --json a --csv=b --workers a:1,b:2 --key k --rate 5 --limit lost=0 \
                     --find-knee --seed=3 --scenario f --auth {} -c 6";
        assert_eq!(
            for_others(flags.split_whitespace().map(str::to_owned)),
            ["http://h", "--connections", "5", "--seed=3", "--auth", "{}", "-c", "6"]
        );
        let options = read(&["http://h", "--seed", "7", "--json", "f", "--workers", "a:1,[::1]:2"]).expect("flags");
        assert_eq!(options.workers, ["a:1", "[::1]:2"]);
        let told = Options::from_words(&options.words).expect("they are flags again");
        assert_eq!((told.seed, told.json, told.workers), (7, None, vec![]));
        let error = Options::from_words(&["http://h".to_owned(), "--sed".to_owned()]).map(|_| ());
        let line = "unexpected argument '--sed' found; tip: a similar argument exists: '--seed'; see loadtest --help";
        assert_eq!(error.map_err(|error| error.to_string()), Err(line.to_owned()));
    }

    #[test]
    fn an_agent_listens_on_this_machine_unless_it_is_told() {
        let agent = |flags: &[&str]| match command(&[&["agent"], flags].concat()) {
            Ok(Command::Agent(agent)) => agent,
            other => panic!("{flags:?} is {other:?}"),
        };
        assert_eq!(agent(&[]).listen, SocketAddr::from(([127, 0, 0, 1], 7070)));
        let told = agent(&["--listen", "10.0.0.2:0", "--key", "k", "--source-ip", "10.0.0.2,10.0.0.3"]);
        assert_eq!((told.listen.port(), told.key, told.source_ip.len()), (0, Some(PathBuf::from("k")), 2));
        for worker in ["a", ":1", "a:0", "a:x", "a:70000"] {
            let line =
                format!("invalid value '{worker}' for '--workers <HOST:PORT>': write an agent's address as HOST:PORT");
            assert_eq!(read(&["http://h", "--workers", worker]).map(|_| ()), Err(line));
        }
        let both = read(&["http://h", "--workers", "a:1", "--source-ip", "10.0.0.2"]).map(|_| ());
        let line = "the argument '--workers <HOST:PORT>' cannot be used with '--source-ip <IP>'";
        assert_eq!(both, Err(line.to_owned()));
    }

    #[test]
    fn a_header_cannot_break_a_request() {
        let shape = Err("write a header as 'Name: value', on one line".to_owned());
        for line in ["", "X", ": v", "X Y: v", "X\r\nY: v", "X: a\r\nY: b", "X: a\nb", "X: \0", "Ü: v"] {
            assert_eq!(parse_header(line), shape, "{line:?}");
        }
        for name in ["Host", "upgrade", "CONNECTION", "Content-Length", "Transfer-Encoding", "Sec-WebSocket-Key"] {
            let ours = Err(format!("{name} is set by loadtest itself; leave it out"));
            assert_eq!(parse_header(&format!("{name}: v")), ours);
        }
        assert_eq!(parse_header("Cookie:  a=b; c=ü "), Ok("Cookie: a=b; c=ü".to_owned()));
    }

    #[test]
    fn records_are_shown_and_compared_without_a_url() {
        let show = command(&["show", "a.json", "--html", "a.html", "--csv", "a.csv"]).expect("all are flags");
        let Command::Show(Show { file, html: Some(html), csv: Some(csv) }) = show else { panic!("not {show:?}") };
        assert_eq!([file, html, csv], ["a.json", "a.html", "a.csv"].map(PathBuf::from));
        let compare = command(&["--compare", "a.json", "b.json"]).expect("all are flags");
        let Command::Compare(files) = compare else { panic!("not {compare:?}") };
        assert_eq!(files, ["a.json", "b.json"].map(PathBuf::from));
    }

    #[test]
    fn a_wrong_flag_is_one_line() {
        let table: [(&[&str], &str); 12] = [
            (&[], "the following required arguments were not provided: <URL>"),
            (
                &["http://h", "--conections", "1"],
                "unexpected argument '--conections' found; tip: a similar argument exists: '--connections'",
            ),
            (
                &["http://h", "--rate", "fast"],
                "invalid value 'fast' for '--rate <RATE>': write a rate as 10 or 10/s, above zero",
            ),
            (
                &["http://h", "--publish", "smoke"],
                "invalid value 'smoke' for '--publish <WAY>': write http, event:NAME or message",
            ),
            (
                &["http://h", "--namespace", "x"],
                "invalid value 'x' for '--namespace <NAME>': write a namespace as /NAME, without , and ?",
            ),
            (
                &["http://h", "--auth", "[1]"],
                "invalid value '[1]' for '--auth <JSON>': write a JSON object, like '{\"token\":\"abc\"}'",
            ),
            (
                &["http://h", "--transport", "pigeon"],
                "invalid value 'pigeon' for '--transport <TRANSPORT>'; [possible values: websocket, polling, upgrade]",
            ),
            (&["show"], "the following required arguments were not provided: <FILE>"),
            (&["--compare", "a.json"], "2 values required for '--compare <A> <B>' but 1 was provided"),
            (
                &["--compare", "a.json", "b.json", "--rate", "1"],
                "the argument '--compare <A> <B>' cannot be used with one or more of the other specified arguments",
            ),
            (&["h"], "invalid value 'h' for '<URL>': 'h' is no URL; write http://HOST:PORT"),
            (
                &["http://h", "--limit", "lost=x"],
                "invalid value 'lost=x' for '--limit <LIMITS>': 'lost=x' needs a whole number, like lost=0",
            ),
        ];
        for (flags, line) in table {
            assert_eq!(read(flags).map(|_| ()), Err(line.to_owned()));
        }
    }
}
