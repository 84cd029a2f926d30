//! Doctor: whether this machine allows the wanted run, and how to make it.
//!
//! ```text
//!   flags ─▶ wanted ┐
//!   /proc ─▶ system ┴─▶ descriptors, network, memory, cores ─▶ a line each ─▶ exit code
//! ```
//!
//! A check is a function of what is wanted and of what the kernel says; it changes nothing. *Problem* is what will
//! surely stop the run; *warning* what may spoil it; what cannot be seen is *skipped*, and never passes for fine.
//! Whatever is not fine says how to mend it, in words to copy.

mod cores;
mod descriptors;
mod memory;
mod network;
mod system;

use crate::error::Error;
use crate::options::Doctor;
use crate::output::Output;
use crate::units::{count, rate};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use system::System;

/// Where a server is when no URL is given: on this machine, as in a first try.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Where a server is whose name has no address: not on this machine.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The run that is to be.
pub struct Wanted {
    connections: u32,
    /// Connections begun per second.
    ramp: f64,
    /// Bytes of a message.
    size: usize,
    server: SocketAddr,
    /// The server runs on this machine as well, so both ends of each connection are here.
    shared: bool,
}

impl Wanted {
    /// How many ends of a connection are on this machine.
    fn ends(&self) -> u64 {
        if self.shared { 2 } else { 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Problem,
    Skipped,
}

/// One line of the answer.
#[derive(Debug)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// What to do; nothing exactly where there is nothing to mend.
    fix: Option<String>,
}

/// Examines the machine and prints what it found. 0: the run can go; 1: something will surely stop it.
pub fn run(options: &Doctor, output: &mut Output) -> u8 {
    let (server, reached) = match &options.target {
        None => (HERE, None),
        Some(target) => {
            let reached = target.reach();
            let server = match &reached {
                Ok(address) | Err(Error::Unreachable { address, .. }) => *address,
                Err(_) => NOWHERE,
            };
            (server, Some(reached))
        }
    };
    let wanted = Wanted {
        connections: options.connections,
        ramp: options.ramp,
        size: options.size,
        server,
        shared: server.ip().is_loopback() || is_ours(server),
    };
    let mut checks = examine(&wanted, &System::here());
    checks.extend(reached.map(reachable));
    output.text(&text(&wanted, &checks));
    u8::from(checks.iter().any(|check| check.state == State::Problem))
}

fn examine(wanted: &Wanted, system: &System) -> Vec<Check> {
    [
        descriptors::checks(wanted, system),
        network::checks(wanted, system),
        memory::checks(wanted, system),
        cores::checks(wanted, system),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Only a machine's own addresses can be listened on.
fn is_ours(address: SocketAddr) -> bool {
    address != NOWHERE && TcpListener::bind((address.ip(), 0)).is_ok()
}

fn reachable(reached: Result<SocketAddr, Error>) -> Check {
    match reached {
        Ok(address) => Check::ok("server", format!("{address} accepts connections")),
        Err(error) => Check::refused("server", &error),
    }
}

fn text(wanted: &Wanted, checks: &[Check]) -> String {
    let mut text = format!(
        "{} connections, {}/s at the start, messages of {} bytes, {}\n",
        count(wanted.connections.into()),
        rate(wanted.ramp),
        count(wanted.size as u64),
        if wanted.shared { "server on this machine" } else { "server elsewhere" }
    );
    checks.iter().for_each(|check| text += &format!("  {check}\n"));
    if checks.iter().any(|check| check.fix.as_ref().is_some_and(|fix| fix.contains("sysctl -w"))) {
        text += "A sysctl lasts until the next boot; for good, put it into a file in /etc/sysctl.d.\n";
    }
    let number = |state: State| checks.iter().filter(|check| check.state == state).count();
    let (problems, warnings, skipped) = (number(State::Problem), number(State::Warning), number(State::Skipped));
    let can = if problems == 0 { "can" } else { "cannot" };
    text + &format!("The run {can} go (problems: {problems}, warnings: {warnings}, skipped: {skipped}).\n")
}

impl Check {
    fn ok(name: &'static str, found: String) -> Check {
        Check { name, state: State::Ok, found, fix: None }
    }

    fn warning(name: &'static str, found: String, fix: String) -> Check {
        Check { name, state: State::Warning, found, fix: Some(fix) }
    }

    fn problem(name: &'static str, found: String, fix: String) -> Check {
        Check { name, state: State::Problem, found, fix: Some(fix) }
    }

    fn skipped(name: &'static str, why: &str) -> Check {
        Check { name, state: State::Skipped, found: why.to_owned(), fix: None }
    }

    /// What a run would end with. An error's line is what was wrong, and behind the semicolon what to do.
    fn refused(name: &'static str, error: &Error) -> Check {
        let line = error.to_string();
        let (found, fix) = line.rsplit_once("; ").expect("every error says what to do");
        Check::problem(name, found.to_owned(), fix.to_owned())
    }

    /// A setting that nobody may read here.
    fn hidden(name: &'static str, file: &str) -> Check {
        Check { name, state: State::Skipped, found: format!("{file} is not readable here"), fix: None }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Problem => "problem",
            State::Skipped => "skipped",
        };
        write!(out, "{state:<8} {:<13} {}", self.name, self.found)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(out, "; {fix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::system::made_up::MadeUp;
    use super::*;

    /// A run of so many connections towards a server on this machine.
    pub fn on_loopback(connections: u32) -> Wanted {
        Wanted { connections, ramp: 2000.0, size: 200, server: HERE, shared: true }
    }

    pub fn elsewhere(connections: u32) -> Wanted {
        Wanted { server: SocketAddr::from(([192, 0, 2, 1], 3000)), shared: false, ..on_loopback(connections) }
    }

    /// The check of this name says so, and has something to do exactly when something is wrong.
    pub fn expect(checks: &[Check], name: &str, state: State, words: &str) {
        let check = checks.iter().find(|check| check.name == name).expect("there is such a check");
        assert!(check.state == state && check.to_string().contains(words), "wanted {state:?} {words}\ngot    {check}");
        assert_eq!(check.fix.is_some(), matches!(state, State::Warning | State::Problem), "{check}");
        assert!(!check.to_string().contains('\n'), "{check}");
    }

    #[test]
    fn where_nothing_can_be_read_nothing_is_fine_but_what_needs_no_reading() {
        let checks = examine(&on_loopback(1000), &MadeUp::new(&[]));
        let fine: Vec<_> = checks.iter().filter(|check| check.state == State::Ok).map(|check| check.name).collect();
        assert_eq!(fine, ["cores"]);
        assert!(checks.iter().all(|check| check.name == "cores" || check.state == State::Skipped), "{checks:#?}");
    }

    #[test]
    fn the_last_line_says_whether_the_run_can_go() {
        let (ok, skipped) = (Check::ok("a", "fine".to_owned()), Check::hidden("b", "b"));
        let warning = Check::warning("c", "low".to_owned(), "sysctl -w c=1".to_owned());
        let last = |checks: &[Check]| text(&elsewhere(5), checks).lines().last().map(str::to_owned);
        assert_eq!(
            last(&[ok, warning, skipped]).as_deref(),
            Some("The run can go (problems: 0, warnings: 1, skipped: 1).")
        );
        let refused = Check::refused("server", &Error::SystemDescriptors { client: 1 });
        assert_eq!(refused.fix.as_deref(), Some("raise the limit with: sysctl -w fs.file-max=2000000"));
        assert_eq!(last(&[refused]).as_deref(), Some("The run cannot go (problems: 1, warnings: 0, skipped: 0)."));
    }

    #[test]
    fn our_addresses_are_known() {
        assert!(is_ours(SocketAddr::from(([127, 0, 0, 9], 1))));
        assert!(!is_ours(SocketAddr::from(([192, 0, 2, 1], 1))), "an address of documents is nobody's");
        assert!(!is_ours(NOWHERE));
    }

    #[test]
    fn a_server_that_accepts_is_fine_and_another_is_a_problem() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        expect(&[reachable(Ok(address))], "server", State::Ok, "accepts connections");
        let error = Error::UnknownHost { host: "h".to_owned(), cause: "no address".to_owned() };
        expect(&[reachable(Err(error))], "server", State::Problem, "the host 'h' has no address (no address); correct");
    }
}
