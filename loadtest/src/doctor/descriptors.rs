//! Descriptors: what one table, a thread and the whole system may open.

use super::{Check, System, Wanted};
use crate::error::Error;
use crate::tables;
use crate::units::count;

/// Descriptors that a server needs beside its connections: listeners, pollers, logs.
const SERVER_RESERVE: u64 = 64;

pub fn checks(wanted: &Wanted, system: &System) -> Vec<Check> {
    let mut checks = vec![own(wanted, system), own_tables(wanted, system)];
    if wanted.shared {
        checks.push(servers(wanted, system));
    }
    checks.push(whole_system(wanted, system));
    checks
}

/// The tables of loadtest itself. It raises its soft limit to the hard one, so only the hard one counts.
fn own(wanted: &Wanted, system: &System) -> Check {
    let name = "descriptors";
    let Some((soft, hard)) = system.table_limits() else { return Check::hidden(name, "/proc/self/limits") };
    match tables::threads(wanted.connections, hard, system.cores) {
        Ok(threads) => {
            let (soft, hard) = (limit(soft), limit(hard));
            Check::ok(name, format!("{threads} threads, a table holds {hard} (soft limit {soft}, raised by loadtest)"))
        }
        Err(Error::TooFewDescriptors { wanted: least, .. }) => Check::problem(
            name,
            format!("a table holds {}, {} are needed in each of the most threads", limit(hard), count(least)),
            raise(least, system),
        ),
        Err(error) => Check::refused(name, &error),
    }
}

/// Several threads need tables of their own, whatever the limit is.
fn own_tables(wanted: &Wanted, system: &System) -> Check {
    let name = "own tables";
    let threads = system.table_limits().map(|(_, hard)| tables::threads(wanted.connections, hard, system.cores));
    match (threads, &system.own_tables) {
        (None, _) => Check::skipped(name, "how many threads there will be is not known"),
        (Some(Err(_)), _) => Check::skipped(name, "no number of threads is enough, see descriptors"),
        (Some(Ok(1)), _) => Check::ok(name, "one thread needs none".to_owned()),
        (Some(Ok(threads)), Ok(())) => Check::ok(name, format!("each of {threads} threads may have its own")),
        (Some(Ok(threads)), Err(cause)) => Check::problem(
            name,
            format!("{threads} threads need tables of their own, and unshare(CLONE_FILES) says: {cause}"),
            "allow the call, in Docker with --security-opt seccomp=unconfined or --cap-add SYS_ADMIN".to_owned(),
        ),
    }
}

/// The server's tables are not known, but one that is started like us has our limit.
fn servers(wanted: &Wanted, system: &System) -> Check {
    let name = "server tables";
    let Some((_, hard)) = system.table_limits() else { return Check::hidden(name, "/proc/self/limits") };
    let needed = u64::from(wanted.connections) + SERVER_RESERVE;
    if needed <= hard {
        return Check::ok(name, format!("a server started like this one may open {}", limit(hard)));
    }
    let found =
        format!("a server started like this one may open {} in a table, {} are needed", limit(hard), count(needed));
    Check::warning(name, found, format!("if it has only one table, before it starts {}", raise(needed, system)))
}

/// Root may go beyond this limit, but a server seldom is root.
fn whole_system(wanted: &Wanted, system: &System) -> Check {
    let name = "open files";
    let (Some([max]), Some([open])) = (system.sysctl("fs.file-max"), system.sysctl("fs.file-nr")) else {
        return Check::hidden(name, "fs.file-max or fs.file-nr");
    };
    let needed = open.saturating_add(u64::from(wanted.connections) * wanted.ends());
    let found = format!("the system has {} of {} open, {} with the run", count(open), count(max), count(needed));
    if needed > max {
        return Check::problem(name, found, format!("sysctl -w fs.file-max={}", needed.next_power_of_two()));
    }
    Check::ok(name, found)
}

/// How to have `descriptors` in one table. No limit goes beyond fs.nr_open.
fn raise(descriptors: u64, system: &System) -> String {
    let first = match system.sysctl("fs.nr_open") {
        Some([ceiling]) if ceiling < descriptors => {
            format!("sysctl -w fs.nr_open={}, then ", descriptors.next_multiple_of(1024))
        }
        _ => String::new(),
    };
    format!(
        "{first}ulimit -n {descriptors} as root; for good '* - nofile {descriptors}' in a file in \
         /etc/security/limits.d, or LimitNOFILE={descriptors} in the systemd unit"
    )
}

fn limit(limit: u64) -> String {
    if limit == u64::MAX { "any number".to_owned() } else { count(limit) }
}

#[cfg(test)]
mod tests {
    use super::super::State::{Ok, Problem, Skipped, Warning};
    use super::super::system::made_up::MadeUp;
    use super::super::tests::{elsewhere, expect, on_loopback};
    use super::*;

    fn machine(hard: u64, file_max: u64) -> MadeUp {
        let limits = format!("Max open files            1024                 {hard}                files     \n");
        let files = [
            ("proc/self/limits", limits.as_str()),
            ("proc/sys/fs/file-max", &format!("{file_max}\n")),
            ("proc/sys/fs/file-nr", "500\t0\t9223372036854775807\n"),
            ("proc/sys/fs/nr_open", "50000\n"),
        ];
        MadeUp::new(&files)
    }

    #[test]
    fn tables() {
        for (hard, state, words) in [
            (1 << 20, Ok, "2 threads, a table holds 1,048,576 (soft limit 1,024, raised by loadtest)"),
            (20_000, Ok, "6 threads, a table holds 20,000"),
            (
                1000,
                Problem,
                "a table holds 1,000, 1,595 are needed in each of the most threads; ulimit -n 1595 as root",
            ),
        ] {
            // 1,000 in a table is enough for 61,952 connections in 64 threads.
            expect(&checks(&on_loopback(100_000), &machine(hard, 1 << 30)), "descriptors", state, words);
        }
        expect(&checks(&on_loopback(1), &MadeUp::new(&[])), "descriptors", Skipped, "not readable here");
    }

    #[test]
    fn no_limit_goes_beyond_the_ceiling() {
        let below = checks(&on_loopback(100_000), &machine(1000, 1 << 30));
        expect(&below, "descriptors", Problem, "threads; ulimit -n 1595 as root");
        let beyond = checks(&on_loopback(10_000_000), &machine(1000, 1 << 30));
        expect(&beyond, "descriptors", Problem, "sysctl -w fs.nr_open=156672, then ulimit -n 156282 as root");
    }

    #[test]
    fn tables_for_each_thread() {
        let several = checks(&on_loopback(100_000), &machine(20_000, 1 << 30));
        expect(&several, "own tables", Ok, "each of 6 threads may have its own");
        let refused = checks(&on_loopback(100_000), &machine(20_000, 1 << 30).without_own_tables());
        expect(
            &refused,
            "own tables",
            Problem,
            "6 threads need tables of their own, and unshare(CLONE_FILES) says: op",
        );
        let one = checks(&on_loopback(1000), &machine(20_000, 1 << 30).without_own_tables());
        expect(&one, "own tables", Ok, "one thread needs none");
        expect(&checks(&on_loopback(1), &MadeUp::new(&[])), "own tables", Skipped, "not known");
        let too_many = checks(&on_loopback(10_000_000), &machine(20_000, 1 << 30));
        expect(&too_many, "own tables", Skipped, "see descriptors");
    }

    #[test]
    fn the_servers_tables_count_when_it_is_here() {
        let system = machine(20_000, 1 << 30);
        expect(&checks(&on_loopback(19_936), &system), "server tables", Ok, "may open 20,000");
        let words = "20,000 in a table, 20,001 are needed; if it has only one table, before it starts ulimit -n 20001";
        expect(&checks(&on_loopback(19_937), &system), "server tables", Warning, words);
        let ceiling = "before it starts sysctl -w fs.nr_open=100352, then ulimit -n 100064";
        expect(&checks(&on_loopback(100_000), &system), "server tables", Warning, ceiling);
        assert!(checks(&elsewhere(100_000), &system).iter().all(|check| check.name != "server tables"));
        expect(&checks(&on_loopback(1), &MadeUp::new(&[])), "server tables", Skipped, "not readable here");
    }

    #[test]
    fn the_system_counts_both_ends_of_a_connection_here() {
        let words = "the system has 500 of 20,500 open, 20,500 with the run";
        expect(&checks(&on_loopback(10_000), &machine(20_000, 20_500)), "open files", Ok, words);
        let words = "20,502 with the run; sysctl -w fs.file-max=32768";
        expect(&checks(&on_loopback(10_001), &machine(20_000, 20_500)), "open files", Problem, words);
        expect(&checks(&elsewhere(20_000), &machine(20_000, 20_500)), "open files", Ok, "20,500 with the run");
        expect(&checks(&on_loopback(1), &MadeUp::new(&[])), "open files", Skipped, "not readable here");
    }
}
