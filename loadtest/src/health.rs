//! Health: whether a thread of ours kept up, or was what made the deliveries late.
//!
//! Three signs. *Busy*: the share of the time in which the thread ran, or wanted to and had no core; a thread that never
//! rests measures itself. *Waiting* for a core, by message: on a core shared with the server, deliveries wait until the
//! server has sent to everyone, and the first receiver looks as late as the last. *Lag*: how long something may have waited to be read because the thread was reading others;
//! it starts when a poll returns, ends with the turn, and goes on through the next when the poll was full.
//!
//! Slowness of ours only ever makes delays longer. So a limit that holds in an invalid run does hold, and counts are
//! exact in any; only "the server was slower than that" cannot be said. Another generator's clock may make them shorter
//! too, so limits are held against the delays with all that it may be off by; see `limits`.

use crate::clock::Nanos;
use crate::record::Worker;
use crate::tally::Times;
use serde::{Deserialize, Serialize};
use std::fs;

/// Running and waiting for a core, of the calling thread so far.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    running: Nanos,
    waiting: Nanos,
}

impl Spent {
    /// `None` where the kernel keeps no such figures.
    pub fn now() -> Option<Spent> {
        Self::parse(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    pub fn running(self) -> Nanos {
        self.running
    }

    fn parse(text: &str) -> Option<Spent> {
        let mut numbers = text.split_whitespace().map(str::parse);
        Some(Spent { running: numbers.next()?.ok()?, waiting: numbers.next()?.ok()? })
    }
}

/// One thread's health while messages were published.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Health {
    pub lag: Times,
    #[serde(skip)]
    began: Option<(Nanos, Spent)>,
    /// Shares of the time, 1.0 is all of it.
    pub cpu: f64,
    pub busy: f64,
    /// How long the thread wanted to run and had no core.
    pub waited: Nanos,
    #[serde(skip)]
    behind_since: Option<Nanos>,
    #[serde(skip)]
    watching: bool,
    /// Has only clients that no message waits for: what it reads late makes no message look late.
    pub unawaited: bool,
}

impl Health {
    /// Of a thread of clients.
    pub fn of_crew(unawaited: bool) -> Health {
        Health { unawaited, ..Health::default() }
    }

    pub fn begin(&mut self, now: Nanos) {
        self.watching = true;
        self.began = Spent::now().map(|spent| (now, spent));
    }

    pub fn end(&mut self, now: Nanos) {
        self.watching = false;
        let Some(((began, before), after)) = self.began.take().zip(Spent::now()) else { return };
        let time = now.saturating_sub(began).max(1) as f64;
        self.cpu = (after.running - before.running) as f64 / time;
        self.waited = after.waiting - before.waiting;
        self.busy = self.cpu + self.waited as f64 / time;
    }

    pub fn watching(&self) -> bool {
        self.watching
    }

    /// A turn began at `woke` and ended at `now`; it read `ready` streams, and a poll tells at most `ready_max`.
    /// Gives the lag, if it counts.
    pub fn turn(&mut self, woke: Nanos, now: Nanos, ready: usize, ready_max: usize) -> Option<Nanos> {
        let since = self.behind_since.unwrap_or(woke);
        self.behind_since = (ready == ready_max).then_some(since);
        let lag = (self.watching && ready > 0).then(|| now - since)?;
        self.lag.record(lag);
        Some(lag)
    }
}

/// A thread that is busy for more than this share of the time is the bottleneck.
pub const BUSY_MAX: f64 = 0.9;
/// Waiting, lag and lateness count when they are more than this…
pub const LAG_MIN: Nanos = 5_000_000;
/// …and more than this share of the median time to the last receiver.
const LAG_SHARE_MAX: f64 = 0.5;

/// Why the run says more about the generator than about the server; `None` when it does not.
pub fn bottleneck(threads: &[&Health], messages: u32, late: &Times, last: &Times) -> Option<String> {
    use crate::units::nanos;
    let last = last.at(0.5);
    let too_long = |time: Nanos| time > LAG_MIN && time as f64 > last as f64 * LAG_SHARE_MAX;
    let busiest = threads.iter().map(|health| health.busy).fold(0.0, f64::max);
    let awaited = || threads.iter().filter(|health| !health.unawaited);
    let lag = awaited().map(|health| health.lag.at(0.99)).max().unwrap_or(0);
    let percent = busiest * 100.0;
    if busiest > BUSY_MAX {
        return Some(format!("a thread of the generator was busy or waited for a core {percent:.0} % of the time"));
    }
    if messages == 0 || last == 0 {
        return None;
    }
    let waited = awaited().map(|health| health.waited).max().unwrap_or(0) / u64::from(messages.max(1));
    if too_long(waited) {
        let (waited, last) = (nanos(waited), nanos(last));
        return Some(format!(
            "a thread of the generator waited {waited} for a core per message, beside delays of {last} (p50)"
        ));
    }
    if too_long(lag) {
        return Some(format!(
            "the generator read with a lag of {} (p99), beside delays of {} (p50)",
            nanos(lag),
            nanos(last)
        ));
    }
    let late = late.at(0.99);
    too_long(late)
        .then(|| format!("the generator published {} late (p99), beside delays of {} (p50)", nanos(late), nanos(last)))
}

/// The same for the messages that were due while clients came back; times are milliseconds.
pub fn late_beside(lag_p99: f64, during_p50: f64) -> Option<String> {
    use crate::units::millis;
    let late = during_p50 > 0.0 && lag_p99 > LAG_MIN as f64 / 1e6 && lag_p99 > during_p50 * LAG_SHARE_MAX;
    late.then(|| {
        let (lag, during) = (millis(lag_p99), millis(during_p50));
        format!(
            "while clients came back, the generator read with a lag of {lag} (p99), beside delays of {during} (p50)"
        )
    })
}

/// A clock that may be off by more than this share of the median time to the last receiver is not known well enough.
const CLOCK_SHARE_MAX: f64 = 0.1;

/// Which other generator's clock makes the delays unsure; `None` when all are known well enough.
pub fn unsure_clock(workers: &[Worker], last: &Times) -> Option<String> {
    use crate::units::{millis, nanos};
    let last = last.at(0.5);
    let worst = workers.iter().max_by(|a, b| a.error_ms().total_cmp(&b.error_ms()))?;
    (last > 0 && worst.error_ms() > last as f64 / 1e6 * CLOCK_SHARE_MAX).then(|| {
        let (error, last) = (millis(worst.error_ms()), nanos(last));
        format!("the clock of worker {} may be off by {error}, beside delays of {last} (p50)", worst.address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Nanos = 1_000_000;

    fn times(time: Nanos) -> Times {
        let mut times = Times::default();
        times.record(time);
        times
    }

    #[test]
    fn lag_goes_on_through_full_polls() {
        let mut health = Health::default();
        assert_eq!(health.turn(0, MILLI, 8, 8), None);
        health.begin(0);
        assert_eq!(health.turn(MILLI, 3 * MILLI, 8, 8), Some(3 * MILLI));
        assert_eq!(health.turn(3 * MILLI, 4 * MILLI, 7, 8), Some(4 * MILLI));
        assert_eq!(health.turn(8 * MILLI, 8 * MILLI, 0, 8), None);
        assert_eq!(health.turn(9 * MILLI, 10 * MILLI, 1, 8), Some(MILLI));
        let lags = (health.lag.samples(), health.lag.max(), health.lag.at(0.0));
        assert_eq!((lags.0, lags.1 / MILLI, lags.2 / MILLI), (3, 4, 1));
    }

    #[test]
    fn a_generator_that_cannot_keep_up_says_so() {
        let health = |busy, lag| Health { busy, lag: times(lag), ..Health::default() };
        let (quick, slow) = (times(MILLI), times(100 * MILLI));
        assert_eq!(bottleneck(&[&health(0.5, MILLI)], 1, &quick, &slow), None);
        assert_eq!(bottleneck(&[&health(0.5, 40 * MILLI)], 1, &quick, &slow), None, "less than half");
        assert_eq!(bottleneck(&[&health(0.5, 4 * MILLI)], 1, &quick, &quick), None, "too short to matter");
        for (health, late, last, word) in [
            (health(0.95, MILLI), &quick, &slow, "busy"),
            (health(0.5, 80 * MILLI), &quick, &slow, "lag"),
            (health(0.5, MILLI), &slow, &slow, "late"),
        ] {
            let reason = bottleneck(&[&Health::default(), &health], 1, late, last);
            assert!(reason.is_some_and(|reason| reason.contains(word)), "{word}");
        }
    }

    #[test]
    fn who_reads_late_what_nobody_waits_for_makes_nothing_late() {
        let health = |unawaited, busy| Health {
            busy,
            lag: times(80 * MILLI),
            waited: 900 * MILLI,
            unawaited,
            ..Health::default()
        };
        let (quick, slow) = (times(MILLI), times(100 * MILLI));
        assert!(bottleneck(&[&health(false, 0.5)], 1, &quick, &slow).is_some());
        assert_eq!(bottleneck(&[&health(true, 0.5)], 1, &quick, &slow), None);
        assert!(bottleneck(&[&health(true, 0.95)], 1, &quick, &slow).is_some(), "it has no time left all the same");
    }

    #[test]
    fn a_clock_has_to_be_known_ten_times_better_than_the_delays() {
        let worker = |address: &str, offset_ms, uncertainty_ms| Worker {
            address: address.to_owned(),
            connections: 1,
            offset_ms,
            uncertainty_ms,
        };
        let delays = times(10 * MILLI);
        assert_eq!(unsure_clock(&[], &delays), None);
        assert_eq!(unsure_clock(&[worker("a", -0.5, 0.4)], &delays), None);
        assert_eq!(unsure_clock(&[worker("a", 9.0, 9.0)], &Times::default()), None, "there are no delays");
        let reason = unsure_clock(&[worker("a", 0.1, 0.1), worker("b:1", -0.7, 0.5)], &delays).expect("1.2 ms");
        assert!(
            reason.starts_with("the clock of worker b:1 may be off by 1.20 ms, beside delays of 10.0 ms"),
            "{reason}"
        );
    }

    #[test]
    fn lag_beside_those_that_come_back_counts_by_itself() {
        assert_eq!([late_beside(4.0, 1.0), late_beside(20.0, 41.0), late_beside(20.0, 0.0)], [None, None, None]);
        let reason = late_beside(20.0, 39.0).expect("more than half of it");
        let line =
            "while clients came back, the generator read with a lag of 20.0 ms (p99), beside delays of 39.0 ms (p50)";
        assert_eq!(reason, line);
    }

    #[test]
    fn waiting_for_a_core_counts_per_message() {
        let waiting = Health { waited: 700 * MILLI, ..Health::default() };
        let (quick, slow) = (times(MILLI), times(12 * MILLI));
        assert_eq!(bottleneck(&[&waiting], 200, &quick, &slow), None);
        let reason = bottleneck(&[&waiting], 100, &quick, &slow).expect("7 ms of 12 ms");
        assert!(reason.starts_with("a thread of the generator waited 7.00 ms for a core per message"), "{reason}");
    }

    #[test]
    fn the_kernel_tells_what_a_thread_spent() {
        let spent = Spent::parse("123 456 7\n").expect("three numbers");
        assert_eq!((spent.running, spent.waiting), (123, 456));
        assert!(Spent::parse("").is_none());
    }
}
