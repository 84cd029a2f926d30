//! Error: why a run cannot begin or go on. Each is one line that says what was wrong and what to do about it.

use crate::remote::Trouble;
use crate::session::Ending;
use crate::speech::Speech;
use crate::units;
use std::fmt;
use std::net::SocketAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// An option, and what is wrong with it.
    Option {
        option: &'static str,
        problem: String,
    },
    /// What the parser of flags says.
    Flags(String),
    Scenario {
        path: String,
        cause: String,
    },
    UnknownHost {
        host: String,
        cause: String,
    },
    Unreachable {
        address: SocketAddr,
        cause: String,
    },
    TooFewDescriptors {
        connections: u64,
        table_limit: u64,
        wanted: u64,
    },
    /// The system has no descriptor left, although the table has.
    SystemDescriptors {
        client: u32,
    },
    TooFewPorts {
        connections: u32,
        ports: u32,
    },
    /// A thread could not be given what it needs.
    System {
        what: &'static str,
        cause: String,
    },
    /// A client could not connect: the TCP stream.
    Connect {
        client: u32,
        cause: String,
    },
    /// The server does not speak as the run would.
    NotSpoken {
        speech: String,
        url: String,
        ending: Ending,
    },
    Namespace {
        namespace: String,
        message: String,
    },
    /// A client was ended before the first message.
    Ended {
        client: u32,
        ending: Ending,
    },
    /// Clients were ended while messages were counted.
    Closed {
        count: u64,
        connections: u32,
        client: u32,
        ending: Ending,
    },
    /// Connections that nobody answered.
    Silent {
        ready: u32,
        connections: u32,
        seconds: u64,
    },
    /// Clients that no test message reached.
    Unheard {
        heard: u32,
        connections: u32,
        duty: String,
        seconds: u64,
    },
    PublishRefused {
        line: String,
    },
    Publisher {
        cause: String,
    },
    /// A file that was asked for with this option.
    Report {
        option: &'static str,
        path: String,
        cause: String,
    },
    /// The process that was to be watched is not there.
    NoProcess {
        pid: u32,
    },
    /// The metrics that were to be watched cannot be read.
    Metrics {
        url: String,
        problem: String,
    },
    /// Another generator of the run, and what is the matter with it.
    Worker {
        address: String,
        trouble: Trouble,
    },
    /// An agent has nowhere to wait.
    Listen {
        address: SocketAddr,
        cause: String,
    },
    /// The record of an earlier run.
    Record {
        path: String,
        why: Unreadable,
    },
}

/// Why a file is no record that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    File(String),
    NotJson(String),
    NoRecord(String),
    Newer { format: u64, known: u32 },
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Error as E;
        match self {
            E::Option { option, problem } => write!(out, "{option}: {problem}"),
            E::Flags(text) => write!(out, "{text}; see loadtest --help"),
            E::Scenario { path, cause } => write!(out, "the scenario {path} cannot be used: {cause}; correct it"),
            E::UnknownHost { host, cause } => {
                write!(out, "the host '{host}' has no address ({cause}); correct the URL")
            }
            E::Unreachable { address, cause } => {
                write!(out, "cannot reach {address}: {cause}; start the server or correct the URL")
            }
            E::TooFewDescriptors { connections, table_limit, wanted } => write!(
                out,
                "{} connections do not fit into descriptor tables of {table_limit}; \
                 raise the limit with: ulimit -n {wanted}",
                units::count(*connections)
            ),
            E::SystemDescriptors { client } => write!(
                out,
                "no descriptor is left for connection {client}; raise the limit with: sysctl -w fs.file-max=2000000"
            ),
            E::TooFewPorts { connections, ports } => write!(
                out,
                "{} connections need more local ports than the {} that there are; \
                 widen the range with: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"",
                units::count((*connections).into()),
                units::count((*ports).into())
            ),
            E::System { what, cause } => write!(out, "{what}: {cause}; run with fewer --connections"),
            E::Connect { client, cause } => {
                write!(
                    out,
                    "connection {client} failed: {cause}; connect more slowly with --ramp, or see the server's log"
                )
            }
            E::NotSpoken { speech, url, ending } => {
                write!(
                    out,
                    "no {speech} at {url}: {ending}; correct the URL, path included, or --protocol and --transport"
                )
            }
            E::Namespace { namespace, message } => write!(
                out,
                "the server refused namespace '{namespace}': {message}; choose one that it has with --namespace"
            ),
            E::Ended { client, ending } => {
                write!(out, "connection {client} ended before the first message: {ending}; see the server's log")
            }
            E::Closed { count, connections, client, ending } => write!(
                out,
                "{} of {} connections ended during the run, the first was connection {client}: {ending}; \
                 see the server's log",
                units::count(*count),
                units::count((*connections).into())
            ),
            E::Silent { ready, connections, seconds } => write!(
                out,
                "only {} of {} connections were answered and no more in {seconds} s; \
                 connect more slowly with --ramp, or see the server's log",
                units::count((*ready).into()),
                units::count((*connections).into())
            ),
            E::Unheard { heard, connections, duty, seconds } => write!(
                out,
                "only {} of {} connections received a test message and no more in {seconds} s; \
                 the server must {duty}",
                units::count((*heard).into()),
                units::count((*connections).into())
            ),
            E::PublishRefused { line } => write!(
                out,
                "POST /api/publish was answered with '{line}'; \
                 publish through a client with --publish event:NAME, or switch the server's API on"
            ),
            E::Publisher { cause } => write!(out, "publishing failed: {cause}; see the server's log"),
            E::Report { option, path, cause } => {
                write!(out, "cannot write the report to {path}: {cause}; correct {option}")
            }
            E::NoProcess { pid } => {
                write!(out, "no process {pid} is to be seen on this machine; correct --server-pid")
            }
            E::Metrics { url, problem } => write!(out, "no metrics at {url}: {problem}; correct --metrics"),
            E::Worker { address, trouble } => write!(out, "worker {address}: {trouble}"),
            E::Listen { address, cause } => {
                write!(out, "cannot listen on {address}: {cause}; choose another address with --listen")
            }
            E::Record { path, why } => match why {
                Unreadable::File(cause) => write!(out, "cannot read {path}: {cause}; name a file that --json wrote"),
                Unreadable::NotJson(cause) => write!(out, "{path} is not JSON: {cause}; name a file that --json wrote"),
                Unreadable::NoRecord(cause) => {
                    write!(out, "{path} is no record of a run: {cause}; name a file that --json wrote")
                }
                Unreadable::Newer { format, known } => {
                    write!(out, "{path} has format {format}, known is {known}; show it with the loadtest that wrote it")
                }
            },
        }
    }
}

impl Error {
    /// What the end of a client means before anything was counted.
    pub fn from_ending(client: u32, ending: Ending, speech: &Speech, url: &str) -> Error {
        match ending {
            Ending::NamespaceRefused(message) => Error::Namespace { namespace: speech.namespace.clone(), message },
            ending if ending.is_of_the_handshake() => {
                Error::NotSpoken { speech: speech.to_string(), url: url.to_owned(), ending }
            }
            ending => Error::Ended { client, ending },
        }
    }
}

/// A system error in the fewest words: `connection refused`.
pub fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::plan::Plan;
    use clap::Parser;

    #[test]
    fn the_lines() {
        let ending = Ending::Closed(Some(1001));
        let from_ending = |ending, flags: &[&str]| {
            let options =
                Options::try_parse_from(["loadtest", "http://h:1"].iter().chain(flags)).expect("all are flags");
            let plan = Plan::new(options).expect("they fit together");
            Error::from_ending(3, ending, &plan.speech, &plan.target.url())
        };
        let table = [
            (
                from_ending(Ending::NamespaceRefused("Invalid namespace".into()), &["--namespace", "/x"]),
                "the server refused namespace '/x': Invalid namespace; choose one that it has with --namespace",
            ),
            (
                from_ending(Ending::UpgradeRefused("HTTP/1.1 404 Not Found".into()), &[]),
                "no Socket.IO over WebSocket at http://h:1/socket.io/: the upgrade was answered with \
                 'HTTP/1.1 404 Not Found'; correct the URL, path included, or --protocol and --transport",
            ),
            (
                from_ending(Ending::HandshakeRefused("HTTP/1.1 400 Bad Request".into()), &["--transport", "polling"]),
                "no Socket.IO over polling at http://h:1/socket.io/: the handshake was answered with \
                 'HTTP/1.1 400 Bad Request'; correct the URL, path included, or --protocol and --transport",
            ),
            (
                from_ending(Ending::NoUpgrade, &["--transport", "upgrade"]),
                "no Socket.IO over polling, then WebSocket at http://h:1/socket.io/: the server offers no upgrade to \
                 WebSocket; correct the URL, path included, or --protocol and --transport",
            ),
            (
                from_ending(Ending::NotHttp, &["--protocol", "ws"]),
                "no plain WebSocket at http://h:1/: the server did not answer in HTTP; \
                 correct the URL, path included, or --protocol and --transport",
            ),
            (
                from_ending(ending.clone(), &[]),
                "connection 3 ended before the first message: the server closed with code 1001; see the server's log",
            ),
            (
                from_ending(Ending::PollRefused("HTTP/1.1 400 Bad Request".into()), &["--transport", "polling"]),
                "connection 3 ended before the first message: a poll was answered with 'HTTP/1.1 400 Bad Request'; \
                 see the server's log",
            ),
            (
                Error::Closed { count: 12, connections: 1000, client: 3, ending },
                "12 of 1,000 connections ended during the run, the first was connection 3: \
                 the server closed with code 1001; see the server's log",
            ),
            (
                Error::Silent { ready: 7, connections: 1000, seconds: 30 },
                "only 7 of 1,000 connections were answered and no more in 30 s; \
                 connect more slowly with --ramp, or see the server's log",
            ),
            (
                Error::Unheard {
                    heard: 0,
                    connections: 10,
                    duty: "relay a message to all of them".into(),
                    seconds: 10,
                },
                "only 0 of 10 connections received a test message and no more in 10 s; \
                 the server must relay a message to all of them",
            ),
            (
                Error::Worker { address: "b:7070".into(), trouble: Trouble::Version { theirs: 2, ours: 1 } },
                "worker b:7070: speaks version 2, known is 1; run the same loadtest on all machines",
            ),
            (
                Error::Worker { address: "b:7070".into(), trouble: Trouble::Silent { seconds: 10 } },
                "worker b:7070: said nothing for 10 s; see whether it still runs",
            ),
            (
                Error::SystemDescriptors { client: 9 },
                "no descriptor is left for connection 9; raise the limit with: sysctl -w fs.file-max=2000000",
            ),
        ];
        table.iter().for_each(|(error, text)| assert_eq!(error.to_string(), *text));
    }

    #[test]
    fn causes_are_short() {
        assert_eq!(cause(&std::io::Error::from_raw_os_error(libc::ECONNREFUSED)), "connection refused");
    }
}
