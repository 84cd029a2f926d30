//! Watch: what the server spends while it is measured: the CPU time of its threads, and its memory.
//!
//! ```text
//!   --server-pid ─▶ process   read at once, in microseconds           ┐
//!   --metrics    ─▶ metrics   asked over HTTP by a thread of its own ┴─▶ Sample
//! ```
//!
//! Invariant: nothing is open before the first sample that is taken after the start. A stream that is open while a crowd
//!            copies its descriptor table would stay open in the copy.

mod metrics;
mod process;
mod prometheus;

use crate::clock::{Clock, Nanos};
use crate::error::Error;
use crate::plan::Plan;
use crate::target::Target;
use metrics::Metrics;
use process::Process;
use std::time::Duration;

pub use process::resident_bytes;

/// Where the figures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A process on this machine.
    Pid(u32),
    /// Metrics in the text format of Prometheus.
    Metrics(Target),
}

/// What a server had used at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Sample {
    pub at: Nanos,
    /// All threads, user and system, since the server began.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// What a server used between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    pub time: Duration,
    pub cpu: Duration,
}

pub enum ServerWatch {
    Process(Process),
    Metrics(Metrics),
}

impl ServerWatch {
    /// Takes a first sample, so that a wrong number or URL is told before anything is measured.
    pub fn start(plan: &Plan, clock: Clock) -> Result<Option<ServerWatch>, Error> {
        match &plan.watch {
            None => Ok(None),
            Some(Source::Pid(pid)) => Process::find(*pid, clock).map(|process| Some(ServerWatch::Process(process))),
            Some(Source::Metrics(target)) => {
                Metrics::start(target, clock).map(|metrics| Some(ServerWatch::Metrics(metrics)))
            }
        }
    }

    /// The newest sample, without waiting. `None` when the process has ended.
    pub fn sample(&mut self) -> Option<Sample> {
        match self {
            ServerWatch::Process(process) => process.sample(),
            ServerWatch::Metrics(metrics) => metrics.newest(),
        }
    }

    /// A sample that was taken after the call; for metrics this waits for an answer, [`metrics::FRESH_MAX`] at most.
    pub fn fresh_sample(&mut self) -> Option<Sample> {
        match self {
            ServerWatch::Process(process) => process.sample(),
            ServerWatch::Metrics(metrics) => metrics.fresh(),
        }
    }

    /// What went wrong so far, in one line.
    pub fn trouble(&self) -> Option<String> {
        match self {
            ServerWatch::Process(process) => process.trouble(),
            ServerWatch::Metrics(metrics) => metrics.trouble(),
        }
    }
}

impl Spent {
    /// `None` when the samples are not of one server: a new process starts to count at zero.
    pub fn between(before: Sample, after: Sample) -> Option<Spent> {
        let cpu = after.cpu.checked_sub(before.cpu)?;
        let time = Duration::from_nanos(after.at.checked_sub(before.at)?);
        Some(Spent { time, cpu })
    }

    /// How many cores were busy, on average.
    pub fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.time.as_secs_f64().max(1e-9)
    }

    /// CPU time per delivery in microseconds, when there were any.
    pub fn micros_per(&self, deliveries: u64) -> Option<f64> {
        (deliveries > 0).then(|| self.cpu.as_secs_f64() * 1e6 / deliveries as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_is_the_difference() {
        let sample = |at: Nanos, millis| Sample { at, cpu: Duration::from_millis(millis), resident: 1 };
        let (before, after) = (sample(1_000_000_000, 500), sample(5_000_000_000, 2500));
        let spent = Spent::between(before, after).expect("time and CPU went on");
        assert_eq!((spent.time, spent.cpu), (Duration::from_secs(4), Duration::from_secs(2)));
        assert_eq!((spent.cores(), spent.micros_per(1_000_000), spent.micros_per(0)), (0.5, Some(2.0), None));
        assert_eq!(Spent::between(before, sample(5_000_000_000, 499)), None, "another process");
    }
}
