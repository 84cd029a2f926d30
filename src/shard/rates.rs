//! Rates: how much one client may say, in events and in bytes.
//!
//! Two token buckets. Each fills with time up to its burst, and what the client says is taken out of it; who takes more
//! than there is goes over the limit, and the session is closed.
//!
//! ```text
//! 0 ──────── tokens ────────▶ burst       + per_second, all the time       − 1 an event, − its length a read
//! ```
//!
//! Counted as it arrives: what the network held back for longer than a second counts at once.
//!
//! Invariants: a client that in no stretch of time says more than burst + per_second · seconds is never over.
//! Limits:     `events_per_second_max`, `bytes_per_second_max` (Settings). A burst is one second's worth; of bytes, at
//!             least one whole message of `payload_bytes_max` in one frame.

use super::wheel::Millis;
use crate::settings::Settings;

/// The head of a client's largest frame: two bytes, a length of eight, a mask of four (RFC 6455, section 5.2).
const FRAME_HEAD_BYTES_MAX: u64 = 14;

/// The buckets of one session.
pub struct Rates {
    events: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// The client said more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit;

impl Rates {
    /// Full buckets, where there are limits. Boxed, because most servers set none and then a session pays 8 bytes.
    pub fn new(settings: &Settings, now: Millis) -> Option<Box<Rates>> {
        let (events, bytes) = (settings.events_per_second_max as u64, settings.bytes_per_second_max as u64);
        if events == 0 && bytes == 0 {
            return None;
        }
        let message = settings.payload_bytes_max as u64 + FRAME_HEAD_BYTES_MAX;
        Some(Box::new(Rates {
            events: (events > 0).then(|| Bucket::new(events, events, now)),
            bytes: (bytes > 0).then(|| Bucket::new(bytes, bytes.max(message), now)),
        }))
    }

    pub fn take_event(&mut self, now: Millis) -> Result<(), OverLimit> {
        self.events.as_mut().map_or(Ok(()), |bucket| bucket.take(1, now))
    }

    pub fn take_bytes(&mut self, bytes: usize, now: Millis) -> Result<(), OverLimit> {
        self.bytes.as_mut().map_or(Ok(()), |bucket| bucket.take(bytes as u64, now))
    }
}

/// In thousandths of a token, so that a millisecond's worth is a whole number.
struct Bucket {
    per_second: u64,
    burst_milli: u64,
    milli: u64,
    filled: Millis,
}

impl Bucket {
    fn new(per_second: u64, burst: u64, now: Millis) -> Bucket {
        let burst_milli = burst.saturating_mul(1000);
        Bucket { per_second, burst_milli, milli: burst_milli, filled: now }
    }

    fn take(&mut self, tokens: u64, now: Millis) -> Result<(), OverLimit> {
        let grown = self.per_second.saturating_mul(now - self.filled);
        self.milli = self.milli.saturating_add(grown).min(self.burst_milli);
        self.filled = now;
        self.milli = self.milli.checked_sub(tokens.saturating_mul(1000)).ok_or(OverLimit)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::fuzzing::fuzz;

    fn rates(events: usize, bytes: usize, payload: usize) -> Rates {
        let settings = Settings {
            events_per_second_max: events,
            bytes_per_second_max: bytes,
            payload_bytes_max: payload,
            ..Settings::default()
        };
        *Rates::new(&settings, 0).expect("a limit is set")
    }

    #[test]
    fn without_limits_there_is_nothing_to_keep() {
        assert!(Rates::new(&Settings::default(), 0).is_none());
    }

    #[test]
    fn a_second_of_events_may_come_at_once_and_then_one_at_a_time() {
        let mut rates = rates(4, 0, 1000);
        (0..4).for_each(|_| assert_eq!(rates.take_event(0), Ok(())));
        let mut next = |now| rates.take_event(now);
        assert_eq!(next(249), Err(OverLimit));
        assert_eq!(next(250), Ok(()));
        assert_eq!((next(499), next(500)), (Err(OverLimit), Ok(())));
        (0..4).for_each(|_| assert_eq!(next(60_000), Ok(()), "a pause fills it"));
        assert_eq!(next(60_000), Err(OverLimit), "but not beyond a second's worth");
    }

    #[test]
    fn a_whole_message_may_always_come_however_low_the_limit() {
        let mut rates = rates(0, 10, 1000);
        assert_eq!(rates.take_bytes(1014, 0), Ok(()));
        assert_eq!(rates.take_bytes(1, 99), Err(OverLimit));
        assert_eq!(rates.take_bytes(1, 100), Ok(()));
        assert_eq!(rates.take_bytes(1015, 1_000_000), Err(OverLimit));
    }

    #[test]
    fn limits_do_not_touch_each_other_and_the_largest_do_not_overflow() {
        let mut both = rates(1, 5000, 1000);
        assert_eq!(
            (both.take_event(0), both.take_event(0), both.take_bytes(5000, 0)),
            (Ok(()), Err(OverLimit), Ok(()))
        );
        let mut largest = rates(usize::MAX, usize::MAX, 1 << 30);
        assert_eq!((largest.take_event(Millis::MAX), largest.take_bytes(1 << 40, Millis::MAX)), (Ok(()), Ok(())));
    }

    /// The bucket against what it stands for: no stretch of time holds more than burst + rate · length.
    #[test]
    fn whoever_is_over_was_too_fast_in_some_stretch_of_time_and_nobody_else() {
        fuzz(200, |random| {
            let (rate, payload) = (1 + random.below(500), 1 + random.below(300));
            let mut rates = rates(0, rate, payload);
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
                assert_eq!(rates.take_bytes(bytes, now).is_err(), too_fast);
                if too_fast {
                    return;
                }
            }
        });
    }
}
