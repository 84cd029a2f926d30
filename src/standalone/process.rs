//! Process: what this process uses, as the operating system counts it.

/// Memory and processor time; unknown where the system has no such file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// Processor time of all threads since the start, in steps of 10 ms.
    pub cpu_ms: Option<u64>,
}

#[cfg(target_os = "linux")]
pub use linux::usage;

#[cfg(not(target_os = "linux"))]
pub fn usage() -> Usage {
    Usage::default()
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Usage;
    use std::fs::read_to_string;

    /// Ticks in `/proc/self/stat` are `USER_HZ`, which is 100 on every architecture of today.
    const MS_PER_TICK: u64 = 10;

    /// Reads two small files of the kernel.
    pub fn usage() -> Usage {
        Usage {
            rss_bytes: read_to_string("/proc/self/status").ok().and_then(|text| rss_bytes(&text)),
            cpu_ms: read_to_string("/proc/self/stat").ok().and_then(|text| cpu_ms(&text)),
        }
    }

    /// `VmRSS:     5120 kB`, where kB means 1024 bytes.
    fn rss_bytes(status: &str) -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    }

    /// The fields 14 and 15, user and system time. The second field is the program's name in parentheses, which may
    /// itself hold spaces and parentheses.
    fn cpu_ms(stat: &str) -> Option<u64> {
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut times = after_name.split_whitespace().skip(11).map(str::parse::<u64>);
        Some((times.next()?.ok()? + times.next()?.ok()?) * MS_PER_TICK)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_files_of_the_kernel_are_read() {
            assert_eq!(rss_bytes("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t    5120 kB\n"), Some(5120 << 10));
            let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 9 0 0 0 17 5 0 0 20 0 3 0 8 9 9";
            assert_eq!(cpu_ms(stat), Some(220));
            assert_eq!((rss_bytes(""), cpu_ms("")), (None, None));
        }

        #[test]
        fn a_process_uses_memory() {
            assert!(usage().rss_bytes.unwrap() > 100_000 && usage().cpu_ms.is_some());
        }
    }
}
