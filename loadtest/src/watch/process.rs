//! Process: the server as a process on this machine.
//!
//! CPU time is the process's own clock: nanoseconds, and threads that have ended count. The road not taken: the ticks in
//! /proc/PID/stat are 10 ms, and the sum over /proc/PID/task/*/schedstat forgets those threads.

use super::Sample;
use crate::clock::Clock;
use crate::error::Error;
use crate::kernel;

pub struct Process {
    pid: u32,
    clock: Clock,
    /// Once it is gone it stays so: its number may be given to another process.
    ended: bool,
}

impl Process {
    pub fn find(pid: u32, clock: Clock) -> Result<Process, Error> {
        let mut process = Process { pid, clock, ended: false };
        process.sample().map(|_| process).ok_or(Error::NoProcess { pid })
    }

    pub fn sample(&mut self) -> Option<Sample> {
        let sample = if self.ended { None } else { self.read() };
        self.ended = sample.is_none();
        sample
    }

    fn read(&self) -> Option<Sample> {
        // A process that has ended and that its parent has not noticed has a clock still, but no memory.
        let resident = resident_bytes(&self.pid.to_string())?;
        Some(Sample { at: self.clock.now(), cpu: kernel::process_cpu_time(self.pid).ok()?, resident })
    }

    pub fn trouble(&self) -> Option<String> {
        self.ended.then(|| format!("the server process {} ended during the run", self.pid))
    }
}

/// The memory of a process in bytes, `self` for our own; `None` when there is no such process, or it has no memory.
pub fn resident_bytes(process: &str) -> Option<u64> {
    parse_resident(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn our_own_process_spends_time() {
        let mut process = Process::find(std::process::id(), Clock::start()).expect("we run");
        let first = process.sample().expect("we run");
        // Ended threads count as well.
        let work = || (0..20_000_000_u64).fold(0, |sum, number| std::hint::black_box(sum ^ number));
        let sum = std::thread::spawn(work).join().expect("it ends");
        assert!(sum < u64::MAX);
        let second = process.sample().expect("we run");
        assert!(second.cpu > first.cpu && second.at > first.at && second.resident > 0, "{first:?} {second:?}");
        assert!(second.cpu - first.cpu > Duration::from_micros(100), "{first:?} {second:?}");
        assert_eq!(process.trouble(), None);
    }

    #[test]
    fn a_process_that_ends_is_told_once_and_for_all() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat is there");
        let mut process = Process::find(child.id(), Clock::start()).expect("it waits for its input");
        assert!(process.sample().is_some());
        child.kill().expect("it is ours");
        // Not waited for yet, so it is a zombie soon, with its number.
        while process.sample().is_some() {
            std::thread::yield_now();
        }
        child.wait().expect("it was killed");
        assert_eq!(process.sample(), None);
        assert_eq!(process.trouble(), Some(format!("the server process {} ended during the run", child.id())));
        let error = Process::find(child.id(), Clock::start()).err().expect("it is gone");
        let line = format!("no process {} is to be seen on this machine; correct --server-pid", child.id());
        assert_eq!(error.to_string(), line);
    }

    #[test]
    fn resident_memory_is_in_kilobytes() {
        for (status, bytes) in [
            ("Name:\ta b) (c\nVmRSS:\t    1234 kB\nThreads:\t1\n", Some(1_263_616)),
            ("Name:\tx\nState:\tZ (zombie)\n", None),
            ("VmRSS:\tmuch kB\n", None),
            ("VmRSS:\t12\n", None),
            ("", None),
        ] {
            assert_eq!(parse_resident(status), bytes, "{status}");
        }
    }
}
