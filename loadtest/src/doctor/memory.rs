//! Memory: what the connections cost the kernel and loadtest, against what is free and what TCP may use.

use super::{Check, System, Wanted};
use crate::units::count;

/// Kernel memory for one end of an idle connection. Measured on Linux 6.18 with 16,000 ends, by /proc/slabinfo: socket
/// 2.4 KB, inode 0.8, file, directory entry and epoll entry 0.6, the rest hash tables and padding: 4.2 KB together.
const KERNEL_BYTES_PER_END: u64 = 4_352;
/// What loadtest itself keeps for a client. Measured with 9,000: 110 bytes; twice that, because lists double when they
/// grow, and some to spare.
const CLIENT_BYTES: u64 = 256;
/// tcp_mem counts pages. Where they are larger than these, more is allowed than we think.
const PAGE_BYTES: u64 = 4096;
/// Above this share of the free memory, the machine starts to push other things out.
const COMFORTABLE_SHARE: f64 = 0.8;

pub fn checks(wanted: &Wanted, system: &System) -> Vec<Check> {
    vec![free(wanted, system), tcp(wanted, system), buffers(wanted, system)]
}

/// Pages of socket buffer that a connection holds while a broadcast is under way: an idle one holds none, and one with
/// 200 bytes that nobody has read yet was measured to hold one.
fn pages_each(wanted: &Wanted) -> u64 {
    (wanted.size as u64).div_ceil(PAGE_BYTES).max(1)
}

fn free(wanted: &Wanted, system: &System) -> Check {
    let name = "memory";
    let Some(kilobytes) = system.figure("proc/meminfo", "MemAvailable:", "MemAvailable:") else {
        return Check::hidden(name, "MemAvailable in /proc/meminfo");
    };
    let free = kilobytes.saturating_mul(1024);
    let each = KERNEL_BYTES_PER_END * wanted.ends() + CLIENT_BYTES + pages_each(wanted) * PAGE_BYTES;
    let needed = each * u64::from(wanted.connections);
    let and_server = if wanted.shared { ", without the server's own" } else { "" };
    let found = format!("{} free, the run takes about {}{and_server}", megabytes(free), megabytes(needed));
    let fit = |share: f64| (free as f64 * share) as u64 / each;
    let fix = || format!("free some, or run with --connections {}", fit(COMFORTABLE_SHARE));
    if needed > free {
        Check::problem(name, found, fix())
    } else if needed as f64 > free as f64 * COMFORTABLE_SHARE {
        Check::warning(name, found, fix())
    } else {
        Check::ok(name, found)
    }
}

/// What all TCP buffers together may hold. Beyond it the kernel throttles everybody to the least, and drops.
fn tcp(wanted: &Wanted, system: &System) -> Check {
    let (name, setting) = ("TCP memory", "net.ipv4.tcp_mem");
    let Some([_, pressure, most]) = system.sysctl(setting) else { return Check::hidden(name, setting) };
    let Some(used) = system.figure("proc/net/sockstat", "TCP:", "mem") else {
        return Check::hidden(name, "/proc/net/sockstat");
    };
    let needed = used + pages_each(wanted) * u64::from(wanted.connections);
    let megabytes = |pages: u64| megabytes(pages.saturating_mul(PAGE_BYTES));
    let found = format!("a message to everyone takes {} of {}", megabytes(needed), megabytes(most));
    let fix = || format!("sysctl -w {setting}=\"{needed} {} {}\"", needed.saturating_mul(2), needed.saturating_mul(3));
    if needed > most {
        Check::warning(name, format!("{found}: data will be dropped and sent again"), fix())
    } else if needed > pressure {
        Check::warning(name, format!("{found}, and above {} buffers shrink", megabytes(pressure)), fix())
    } else {
        Check::ok(name, found)
    }
}

/// What one socket may hold: the least that it keeps under pressure, and what it begins with.
fn buffers(wanted: &Wanted, system: &System) -> Check {
    let (name, receive, send) = ("buffers", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem");
    let (Some(received), Some(sent)) = (system.sysctl::<3>(receive), system.sysctl::<3>(send)) else {
        return Check::hidden(name, "net.ipv4.tcp_rmem or net.ipv4.tcp_wmem");
    };
    let size = wanted.size as u64;
    // The send buffer is the server's.
    let both = [(receive, received, true), (send, sent, wanted.shared)];
    for (setting, [least, first, most], _) in both.into_iter().filter(|(.., ours)| *ours) {
        let fix = |least: u64, first: u64| format!("sysctl -w {setting}=\"{least} {first} {}\"", most.max(first));
        if least < PAGE_BYTES {
            let found = format!("{setting} leaves a socket {} bytes under pressure, less than a page", count(least));
            return Check::warning(name, found, fix(PAGE_BYTES, first.max(PAGE_BYTES)));
        }
        if first < size {
            let found = format!("{setting} begins with {} bytes, a message has {}", count(first), count(size));
            return Check::warning(name, found, fix(least, size.next_power_of_two()));
        }
    }
    let (received, sent) = (received.map(count), sent.map(count));
    let sizes = |sizes: &[String; 3]| format!("{} bytes, {} at least", sizes[1], sizes[0]);
    Check::ok(name, format!("receiving begins with {}; sending with {}", sizes(&received), sizes(&sent)))
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", count(bytes.div_ceil(1 << 20)))
}

#[cfg(test)]
mod tests {
    use super::super::State::{self, Ok, Problem, Skipped, Warning};
    use super::super::system::made_up::MadeUp;
    use super::super::tests::{elsewhere, expect, on_loopback};
    use super::*;

    fn check(wanted: &Wanted, files: &[(&str, &str)], name: &str, state: State, words: &str) {
        expect(&checks(wanted, &MadeUp::new(files)), name, state, words);
    }

    #[test]
    fn free_memory() {
        for (wanted, available, state, words) in [
            // 2 × 4,352 + 256 + 4,096 bytes each: 1,246 MB.
            (
                on_loopback(100_000),
                "MemAvailable: 4000000 kB\n",
                Ok,
                "3,907 MB free, the run takes about 1,246 MB, with",
            ),
            (on_loopback(100_000), "MemAvailable: 1400000 kB\n", Warning, "run with --connections 87843"),
            (on_loopback(100_000), "MemAvailable: 1200000 kB\n", Problem, "run with --connections 75294"),
            (elsewhere(100_000), "MemAvailable: 1400000 kB\n", Ok, "the run takes about 831 MB"),
            (on_loopback(100_000), "MemFree: 1400000 kB\n", Skipped, "not readable here"),
        ] {
            check(&wanted, &[("proc/meminfo", available)], "memory", state, words);
        }
        check(&on_loopback(1), &[], "memory", Skipped, "not readable here");
    }

    #[test]
    fn tcp_memory() {
        let used = ("proc/net/sockstat", "TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 100\n");
        for (limits, state, words) in [
            ("1\t100100\t200000\n", Ok, "a message to everyone takes 392 MB of 782 MB"),
            (
                "1\t100099\t200000\n",
                Warning,
                "and above 392 MB buffers shrink; sysctl -w net.ipv4.tcp_mem=\"100100 200200",
            ),
            ("1\t50000\t100099\n", Warning, "data will be dropped and sent again; sysctl -w"),
            ("1\t2\n", Skipped, "not readable here"),
        ] {
            let files = [used, ("proc/sys/net/ipv4/tcp_mem", limits)];
            check(&on_loopback(100_000), &files, "TCP memory", state, words);
            check(&on_loopback(100_000), &files[1..], "TCP memory", Skipped, "not readable here");
        }
        let large = Wanted { size: 8193, ..on_loopback(10) };
        assert_eq!(pages_each(&large), 3);
    }

    #[test]
    fn buffers_of_a_socket() {
        let with = |receive: &'static str, send: &'static str| {
            [("proc/sys/net/ipv4/tcp_rmem", receive), ("proc/sys/net/ipv4/tcp_wmem", send)]
        };
        let usual = with("4096\t131072\t6291456\n", "4096\t16384\t4194304\n");
        let words = "receiving begins with 131,072 bytes, 4,096 at least; sending with 16,384 bytes, 4,096 at least";
        check(&on_loopback(10), &usual, "buffers", Ok, words);
        let large = |wanted| Wanted { size: 20_000, ..wanted };
        let words = "net.ipv4.tcp_wmem begins with 16,384 bytes, a message has 20,000; \
                     sysctl -w net.ipv4.tcp_wmem=\"4096 32768 4194304\"";
        check(&large(on_loopback(10)), &usual, "buffers", Warning, words);
        check(&large(elsewhere(10)), &usual, "buffers", Ok, "receiving begins");
        let words = "net.ipv4.tcp_rmem leaves a socket 1,024 bytes under pressure, less than a page; \
                     sysctl -w net.ipv4.tcp_rmem=\"4096 4096 4096\"";
        check(&elsewhere(10), &with("1024 2048 3000", "1 2 3"), "buffers", Warning, words);
        check(&elsewhere(10), &usual[1..], "buffers", Skipped, "not readable here");
    }
}
