//! Network: ports, what lingers on them, the server's accept queue, and connection tracking.

use super::{Check, System, Wanted};
use crate::error::Error;
use crate::sources::Sources;
use crate::units::count;
use std::time::Duration;

const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";
/// The widest range that is of use: ports below are for root.
const WIDEST: &str = "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"";
const WIDEST_PORTS: u32 = 65_535 - 1024 + 1;
/// How long a server may do something else before it accepts again: a broadcast to ten thousand sockets at 25 µs each.
/// Connections that come meanwhile wait in the queue; those that find it full wait for TCP to try again, a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
/// The least that a queue is raised to: the kernel's own default for somaxconn since Linux 5.4.
const QUEUE_MIN: u64 = 4096;

pub fn checks(wanted: &Wanted, system: &System) -> Vec<Check> {
    vec![
        ports(wanted, system),
        lingering(wanted, system),
        queue("accept queue", "net.core.somaxconn", wanted, system),
        queue("SYN queue", "net.ipv4.tcp_max_syn_backlog", wanted, system),
        tracking(wanted, system),
    ]
}

/// The number of local ports, and the addresses that the connections would come from.
fn range(wanted: &Wanted, system: &System) -> Option<(u32, Result<Sources, Error>)> {
    let [low, high] = system.sysctl(PORT_RANGE)?.map(|port| u16::try_from(port).ok());
    let range = low?..=high?;
    Some((range.len() as u32, Sources::with_ports(wanted.server, wanted.connections, 1, &[], range)))
}

fn ports(wanted: &Wanted, system: &System) -> Check {
    let name = "ports";
    let Some((ports, sources)) = range(wanted, system) else { return Check::hidden(name, PORT_RANGE) };
    let found = format!("{} local ports", count(ports.into()));
    match sources {
        Ok(Sources::Loopback { connections_each }) => {
            let addresses = wanted.connections.div_ceil(connections_each);
            let each = count(connections_each.into());
            Check::ok(name, format!("{found}; {addresses} loopback addresses with {each} connections each"))
        }
        Ok(_) if wanted.connections > ports / 4 * 3 => {
            let found = format!("{found} towards the server, and the run takes more than three of four");
            Check::warning(name, found, WIDEST.to_owned())
        }
        Ok(_) => Check::ok(name, format!("{found} towards the server")),
        Err(_) if wanted.connections > WIDEST_PORTS => Check::problem(
            name,
            format!("{found} towards the server, and one address never has more than {}", count(WIDEST_PORTS.into())),
            format!("share the run among {} machines or more", wanted.connections.div_ceil(WIDEST_PORTS)),
        ),
        Err(error) => Check::refused(name, &error),
    }
}

/// A port that was closed a minute ago may not be had again, unless the kernel reuses it.
fn lingering(wanted: &Wanted, system: &System) -> Check {
    let name = "TIME_WAIT";
    let (Some(waiting), Some([reuse])) =
        (system.figure("proc/net/sockstat", "TCP:", "tw"), system.sysctl("net.ipv4.tcp_tw_reuse"))
    else {
        return Check::hidden(name, "/proc/net/sockstat or net.ipv4.tcp_tw_reuse");
    };
    let Some((ports, sources)) = range(wanted, system) else { return Check::hidden(name, PORT_RANGE) };
    let addresses = match sources {
        Ok(Sources::Loopback { connections_each }) => wanted.connections.div_ceil(connections_each),
        Ok(_) => 1,
        Err(_) => return Check::skipped(name, "no number of free ports is enough, see ports"),
    };
    let reused = reuse == 1 || (reuse == 2 && wanted.server.ip().is_loopback());
    let found = format!("{} ports linger, net.ipv4.tcp_tw_reuse is {reuse}", count(waiting));
    let free = (u64::from(ports) * u64::from(addresses)).saturating_sub(waiting);
    if free < u64::from(wanted.connections) && !reused {
        let fix = "sysctl -w net.ipv4.tcp_tw_reuse=1, or wait a minute".to_owned();
        return Check::warning(name, format!("{found}, only {} are free", count(free)), fix);
    }
    Check::ok(name, found)
}

fn queue(name: &'static str, setting: &str, wanted: &Wanted, system: &System) -> Check {
    if !wanted.shared {
        return Check::skipped(name, "matters on the server's machine; run loadtest doctor there");
    }
    let Some([length]) = system.sysctl(setting) else { return Check::hidden(name, setting) };
    let needed = (wanted.ramp * ACCEPT_PAUSE.as_secs_f64()).ceil() as u64;
    // Never more than all of them.
    let needed = needed.min(wanted.connections.into());
    let found = format!("{setting} is {}", count(length));
    if length < needed {
        let pause = ACCEPT_PAUSE.as_millis();
        let found = format!("{found}, {} arrive while a server is busy for {pause} ms", count(needed));
        let least = needed.next_power_of_two().max(QUEUE_MIN);
        return Check::warning(
            name,
            found,
            format!("sysctl -w {setting}={least} and start the server again, or --ramp"),
        );
    }
    Check::ok(name, found)
}

/// A full table drops new connections, where rules make the kernel track them at all. Both ends on one machine are one
/// entry.
fn tracking(wanted: &Wanted, system: &System) -> Check {
    let (name, setting) = ("conntrack", "net.netfilter.nf_conntrack_max");
    let (Some([max]), Some([entries])) = (system.sysctl(setting), system.sysctl("net.netfilter.nf_conntrack_count"))
    else {
        return Check::skipped(name, "not readable here: the kernel tracks no connections, or hides it");
    };
    let needed = entries.saturating_add(wanted.connections.into());
    let found = format!("{} of {} entries, {} with the run", count(entries), count(max), count(needed));
    let fix = format!("sysctl -w {setting}={}", needed.saturating_mul(2).next_power_of_two());
    match entries {
        _ if needed <= max => Check::ok(name, found),
        0 => Check::warning(name, format!("{found}, though nothing is tracked so far"), fix),
        _ => Check::problem(name, found, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State::{Ok, Problem, Skipped, Warning};
    use super::super::system::made_up::MadeUp;
    use super::super::tests::{elsewhere, expect, on_loopback};
    use super::*;

    fn check(wanted: &Wanted, files: &[(&str, &str)], name: &str, state: super::super::State, words: &str) {
        expect(&checks(wanted, &MadeUp::new(files)), name, state, words);
    }

    const RANGE: (&str, &str) = ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");

    #[test]
    fn ports_towards_loopback_and_towards_others() {
        let words = "28,232 local ports; 15 loopback addresses with 7,058 connections each";
        check(&on_loopback(100_000), &[RANGE], "ports", Ok, words);
        check(&elsewhere(21_174), &[RANGE], "ports", Ok, "28,232 local ports towards the server");
        let words = "takes more than three of four; sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"";
        check(&elsewhere(21_175), &[RANGE], "ports", Warning, words);
        let words = "28,233 connections need more local ports than the 28,232 that there are; widen the range with";
        check(&elsewhere(28_233), &[RANGE], "ports", Problem, words);
        let words = "one address never has more than 64,512; share the run among 2 machines or more";
        check(&elsewhere(100_000), &[RANGE], "ports", Problem, words);
        check(&elsewhere(1), &[], "ports", Skipped, "net.ipv4.ip_local_port_range is not readable here");
        check(&elsewhere(1), &[(RANGE.0, "1 70000")], "ports", Skipped, "not readable here");
    }

    #[test]
    fn lingering_ports() {
        let with = |waiting: u32, reuse: &'static str| {
            let sockets = format!("sockets: used 13\nTCP: inuse 1 orphan 0 tw {waiting} alloc 1 mem 102\n");
            [
                ("proc/net/sockstat", sockets),
                ("proc/sys/net/ipv4/tcp_tw_reuse", reuse.into()),
                (RANGE.0, RANGE.1.into()),
            ]
        };
        for (wanted, waiting, reuse, state, words) in [
            (elsewhere(20_000), 8232, "0", Ok, "8,232 ports linger, net.ipv4.tcp_tw_reuse is 0"),
            (elsewhere(20_000), 8233, "1", Ok, "is 1"),
            (elsewhere(20_000), 8233, "2", Warning, "only 19,999 are free; sysctl -w net.ipv4.tcp_tw_reuse=1, or wait"),
            (on_loopback(7_000), 21_233, "2", Ok, "is 2"),
            (on_loopback(7_000), 21_233, "0", Warning, "only 6,999 are free"),
            (on_loopback(100_000), 41_160, "0", Ok, "41,160 ports linger"),
            (elsewhere(28_233), 0, "0", Skipped, "see ports"),
        ] {
            let files = with(waiting, reuse);
            let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
            check(&wanted, &files, "TIME_WAIT", state, words);
            check(&wanted, &files[..1], "TIME_WAIT", Skipped, "not readable here");
            check(&wanted, &files[..2], "TIME_WAIT", Skipped, "ip_local_port_range is not readable here");
        }
    }

    #[test]
    fn queues_of_the_server() {
        for (name, setting) in [("accept queue", "net.core.somaxconn"), ("SYN queue", "net.ipv4.tcp_max_syn_backlog")] {
            let path = format!("proc/sys/{}", setting.replace('.', "/"));
            check(&on_loopback(10_000), &[(&path, "500\n")], name, Ok, &format!("{setting} is 500"));
            let words = format!("500 arrive while a server is busy for 250 ms; sysctl -w {setting}=4096 and start");
            check(&on_loopback(10_000), &[(&path, "499\n")], name, Warning, &words);
            let fast = Wanted { ramp: 40_000.0, ..on_loopback(100_000) };
            check(&fast, &[(&path, "4096\n")], name, Warning, &format!("sysctl -w {setting}=16384"));
            check(&on_loopback(128), &[(&path, "128\n")], name, Ok, "is 128");
            check(&elsewhere(10_000), &[(&path, "1\n")], name, Skipped, "run loadtest doctor there");
            check(&on_loopback(10_000), &[], name, Skipped, "not readable here");
        }
    }

    #[test]
    fn tracked_connections() {
        let with = |entries: &'static str, max: &'static str| {
            let folder = "proc/sys/net/netfilter/nf_conntrack_";
            [(format!("{folder}count"), entries), (format!("{folder}max"), max)]
        };
        for (entries, max, state, words) in [
            ("5", "100005", Ok, "5 of 100,005 entries, 100,005 with the run"),
            ("5", "100004", Problem, "100,005 with the run; sysctl -w net.netfilter.nf_conntrack_max=262144"),
            ("0", "65536", Warning, "though nothing is tracked so far; sysctl -w"),
        ] {
            let files = with(entries, max);
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
            check(&on_loopback(100_000), &files, "conntrack", state, words);
            check(&elsewhere(100_000), &files, "conntrack", state, words);
            check(&elsewhere(100_000), &files[..1], "conntrack", Skipped, "not readable here");
        }
    }
}
