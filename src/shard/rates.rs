//! Rates: how much one client may say, in events and in bytes.
//!
//! Two token buckets. Each fills with time up to its burst, and what the client says is taken out of it; who takes more
//! than there is goes over the limit, and the session is closed.
//!
//! ```text
//! 0 ──────── tokens ────────▶ burst       + per_second, all the time       − 1 an event, − its length a read
//! ```
//!
//! Counted as it arrives: what the network held back for longer than a second counts at once. The limits are those in
//! effect when it arrives, for sessions that are there as for new ones.
//!
//! Invariants: a client that in no stretch of time says more than burst + per_second · seconds is never over.
//! Limits:     `events_per_second_max`, `bytes_per_second_max` (Settings). A burst is one second's worth; of bytes, at
//!             least one whole message of `payload_bytes_max` in one frame.

use super::wheel::Millis;
use crate::settings::Settings;

/// The head of a client's largest frame: two bytes, a length of eight, a mask of four (RFC 6455, section 5.2).
const FRAME_HEAD_BYTES_MAX: u64 = 14;

/// The buckets of one session, full at first. Boxed, because most servers set no limit and then a session pays 8 bytes.
#[derive(Default)]
pub struct Rates {
    events: Bucket,
    bytes: Bucket,
}

/// The client said more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit;

/// Whether there is a limit at all.
pub fn are_limited(settings: &Settings) -> bool {
    settings.events_per_second_max > 0 || settings.bytes_per_second_max > 0
}

impl Rates {
    pub fn take_event(&mut self, settings: &Settings, now: Millis) -> Result<(), OverLimit> {
        let most = settings.events_per_second_max as u64;
        self.events.take(1, most, most, now)
    }

    pub fn take_bytes(&mut self, bytes: usize, settings: &Settings, now: Millis) -> Result<(), OverLimit> {
        let most = settings.bytes_per_second_max as u64;
        let message = settings.payload_bytes_max as u64 + FRAME_HEAD_BYTES_MAX;
        self.bytes.take(bytes as u64, most, most.max(message), now)
    }
}

/// What was taken out of a bucket and has not grown back, so that the limit may become another one meanwhile. In
/// thousandths of a token, so that a millisecond's worth is a whole number.
#[derive(Default)]
struct Bucket {
    missing_milli: u64,
    filled: Millis,
}

impl Bucket {
    fn take(&mut self, tokens: u64, per_second: u64, burst: u64, now: Millis) -> Result<(), OverLimit> {
        if per_second == 0 {
            return Ok(());
        }
        let (burst_milli, grown) = (burst.saturating_mul(1000), per_second.saturating_mul(now - self.filled));
        // No more than all of it is missing: who said a lot under a higher limit need not atone for that for long.
        self.missing_milli = self.missing_milli.min(burst_milli).saturating_sub(grown);
        self.filled = now;
        let missing = self.missing_milli.saturating_add(tokens.saturating_mul(1000));
        if missing > burst_milli {
            return Err(OverLimit);
        }
        self.missing_milli = missing;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::fuzzing::fuzz;

    fn limits(events: usize, bytes: usize, payload: usize) -> Settings {
        Settings {
            events_per_second_max: events,
            bytes_per_second_max: bytes,
            payload_bytes_max: payload,
            ..Settings::default()
        }
    }

    #[test]
    fn without_limits_everything_may_be_said() {
        let (mut rates, none) = (Rates::default(), Settings::default());
        assert!(!are_limited(&none));
        assert!((0..10_000).all(|_| rates.take_event(&none, 0).is_ok() && rates.take_bytes(1 << 40, &none, 0).is_ok()));
        assert!([limits(1, 0, 1000), limits(0, 1, 1000)].iter().all(are_limited));
    }

    #[test]
    fn a_second_of_events_may_come_at_once_and_then_one_at_a_time() {
        let (mut rates, limits) = (Rates::default(), limits(4, 0, 1000));
        let mut next = |now| rates.take_event(&limits, now);
        (0..4).for_each(|_| assert_eq!(next(0), Ok(())));
        assert_eq!(next(249), Err(OverLimit));
        assert_eq!(next(250), Ok(()));
        assert_eq!((next(499), next(500)), (Err(OverLimit), Ok(())));
        (0..4).for_each(|_| assert_eq!(next(60_000), Ok(()), "a pause fills it"));
        assert_eq!(next(60_000), Err(OverLimit), "but not beyond a second's worth");
    }

    #[test]
    fn a_whole_message_may_always_come_however_low_the_limit() {
        let (mut rates, limits) = (Rates::default(), limits(0, 10, 1000));
        let mut take = |bytes, now| rates.take_bytes(bytes, &limits, now);
        assert_eq!(take(1014, 0), Ok(()));
        assert_eq!(take(1, 99), Err(OverLimit));
        assert_eq!(take(1, 100), Ok(()));
        assert_eq!(take(1015, 1_000_000), Err(OverLimit));
    }

    #[test]
    fn limits_do_not_touch_each_other_and_the_largest_do_not_overflow() {
        let (mut rates, both) = (Rates::default(), limits(1, 5000, 1000));
        assert_eq!((rates.take_event(&both, 0), rates.take_event(&both, 0)), (Ok(()), Err(OverLimit)));
        assert_eq!(rates.take_bytes(5000, &both, 0), Ok(()));
        let (mut rates, largest) = (Rates::default(), limits(usize::MAX, usize::MAX, 1 << 30));
        assert_eq!(rates.take_event(&largest, Millis::MAX), Ok(()));
        assert_eq!(rates.take_bytes(1 << 40, &largest, Millis::MAX), Ok(()));
    }

    #[test]
    fn another_limit_holds_from_the_next_event_and_nobody_atones_for_long() {
        let (mut rates, high, low) = (Rates::default(), limits(100, 0, 1000), limits(10, 0, 1000));
        (0..90).for_each(|_| assert_eq!(rates.take_event(&high, 0), Ok(())));
        assert_eq!(rates.take_event(&low, 99), Err(OverLimit), "it said more than that in this second");
        (0..10).for_each(|_| assert_eq!(rates.take_event(&low, 1_099), Ok(())));
        assert_eq!(rates.take_event(&low, 1_099), Err(OverLimit));
        (0..90).for_each(|_| {
            assert_eq!(rates.take_event(&high, 1_099), Ok(()), "what the burst has more is there at once")
        });
        assert_eq!(rates.take_event(&high, 1_099), Err(OverLimit));
    }

    /// The bucket against what it stands for: no stretch of time holds more than burst + rate · length.
    #[test]
    fn whoever_is_over_was_too_fast_in_some_stretch_of_time_and_nobody_else() {
        fuzz(200, |random| {
            let (rate, payload) = (1 + random.below(500), 1 + random.below(300));
            let (mut rates, limits) = (Rates::default(), limits(0, rate, payload));
            let burst = rate.max(payload + 14) as u64;
            let mut said: Vec<(Millis, u64)> = Vec::new();
            let mut now = 0;
            for _ in 0..60 {
                now += random.below(900) as Millis;
                let bytes = random.below(rate / 2 + 2);
                said.push((now, bytes as u64));
                let too_fast = (0..said.len()).any(|from| {
                    let sum: u64 = said[from..].iter().map(|(_, bytes)| bytes).sum();
                    sum * 1000 > burst * 1000 + rate as u64 * (now - said[from].0)
                });
                assert_eq!(rates.take_bytes(bytes, &limits, now).is_err(), too_fast);
                if too_fast {
                    return;
                }
            }
        });
    }
}
