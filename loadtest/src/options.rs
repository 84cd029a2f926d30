//! Options: the flags as they are written.
//!
//! ```text
//!   loadtest URL [flags]             a measurement
//!   loadtest doctor [URL] [flags]    another command, with flags of its own
//! ```

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::limits::{self, Limit};
use crate::target::Target;
use crate::units;

/// What the process is asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    Measure(Box<Options>),
    Doctor(DoctorOptions),
}

/// Measures what a Socket.IO server delivers: every message to every client counted, the last receiver timed.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "loadtest",
    version,
    after_help = "Exit code: 0 all was delivered and every limit kept; 1 something was lost, doubled or reordered, \
                  or a limit broken;\n2 the run could not be done; 130 interrupted."
)]
pub struct Options {
    /// The server, as http://HOST:PORT; a path replaces /socket.io/
    #[arg(value_name = "URL", value_parser = Target::parse)]
    pub target: Target,

    /// How many clients connect
    #[arg(long, short, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub connections: u32,

    /// How many connections are begun per second, at most
    #[arg(long, value_name = "RATE", default_value = "2000/s", value_parser = units::parse_rate)]
    pub ramp: f64,

    /// The room that every client joins (it emits `join` with this name) and that is published to; without it, everyone
    #[arg(long, value_name = "NAME")]
    pub room: Option<String>,

    /// Messages published per second
    #[arg(long, value_name = "RATE", default_value = "10/s", value_parser = units::parse_rate)]
    pub rate: f64,

    /// The length of a message's string, in bytes; 36 at least
    #[arg(long, value_name = "BYTES", default_value = "200", value_parser = units::parse_bytes)]
    pub size: usize,

    /// How long messages are published
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub duration: Duration,

    /// `http`: POST /api/publish; `event:NAME`: a client emits NAME with the string, and the server relays it as `msg`
    #[arg(long, value_name = "WAY", default_value = "http", value_parser = parse_publish)]
    pub publish: Publish,

    /// The namespace that every client connects to
    #[arg(long, value_name = "NAME", default_value = "/", value_parser = parse_namespace)]
    pub namespace: String,

    /// What the run must keep, like 'last-p99<100ms,lost=0'
    #[arg(long, value_name = "LIMITS", value_parser = parse_limits)]
    pub limit: Option<Limits>,

    /// Write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Report the CPU time and memory of the server, which is this process on this machine
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "metrics")]
    pub server_pid: Option<u32>,

    /// The same from the server's metrics for Prometheus, http://HOST:PORT/metrics
    #[arg(long, value_name = "URL", value_parser = parse_metrics)]
    pub metrics: Option<Target>,
}

/// Checks what this machine allows for a run, and says how to allow more.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "doctor",
    bin_name = "loadtest doctor",
    after_help = "Exit code: 0 the run can go, with warnings perhaps; 1 something will surely stop it; 2 a wrong flag."
)]
pub struct DoctorOptions {
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
        let flags = Options::command().subcommand(DoctorOptions::command());
        let flags = flags.args_conflicts_with_subcommands(true).subcommand_negates_reqs(true);
        let found: ArgMatches = flags.disable_help_subcommand(true).try_get_matches_from(words)?;
        match found.subcommand() {
            Some(("doctor", found)) => DoctorOptions::from_arg_matches(found).map(Command::Doctor),
            _ => Options::from_arg_matches(&found).map(Box::new).map(Command::Measure),
        }
    }
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
        _ => Err("write http or event:NAME".to_owned()),
    }
}

fn parse_namespace(text: &str) -> Result<String, String> {
    let wrong = !text.starts_with('/') || text.contains([',', '?']);
    if wrong { Err("write a namespace as /NAME, without , and ?".to_owned()) } else { Ok(text.to_owned()) }
}

fn parse_metrics(text: &str) -> Result<Target, String> {
    let target = Target::parse_with(text, "/metrics").ok().filter(|_| text.starts_with("http://"));
    target.ok_or_else(|| "write http://HOST:PORT/PATH".to_owned())
}

fn parse_limits(text: &str) -> Result<Limits, String> {
    limits::parse(text).map(Limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(flags: &[&str]) -> Result<Command, String> {
        Command::parse(["loadtest"].iter().chain(flags)).map_err(|error| one_line(&error.to_string()))
    }

    fn read(flags: &[&str]) -> Result<Options, String> {
        command(flags).map(|command| match command {
            Command::Measure(options) => *options,
            Command::Doctor(_) => panic!("{flags:?} is no measurement"),
        })
    }

    fn doctor(flags: &[&str]) -> Result<DoctorOptions, String> {
        command(&[&["doctor"], flags].concat()).map(|command| match command {
            Command::Doctor(options) => options,
            Command::Measure(_) => panic!("doctor {flags:?} is a measurement"),
        })
    }

    #[test]
    fn the_doctor_takes_a_run_as_it_is_measured() {
        let (run, examined) = (read(&["http://h"]).expect("a run"), doctor(&["http://h"]).expect("a run to be"));
        assert_eq!(Some(run.target), examined.target);
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
        assert_eq!((options.connections, options.ramp, options.rate, options.size), (5, 10.0, 2.0, 1024));
        assert_eq!(options.publish, Publish::Event("pub".to_owned()));
    }

    #[test]
    fn a_wrong_flag_is_one_line() {
        let table: [(&[&str], &str); 7] = [
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
                "invalid value 'smoke' for '--publish <WAY>': write http or event:NAME",
            ),
            (
                &["http://h", "--namespace", "x"],
                "invalid value 'x' for '--namespace <NAME>': write a namespace as /NAME, without , and ?",
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
