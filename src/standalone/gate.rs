//! Gate: whether a publication may begin now, or has to come back later.
//!
//! ```text
//!     POST ── bytes free? ── body ── rate? ── events free? ── fan-out ── counted by every worker ── answer
//!                └──────────────────── a Place ───────────────────────────────────┘
//! ```
//!
//! A publication has its place until every worker has reported its fan-out. A worker reports late when it is behind: its
//! mailbox is long, or its writes lag (shard/lag.rs). So places run out exactly when the server cannot keep up, whatever
//! the cause, and nothing else has to be measured. Who waits for each answer has one place and never finds the gate
//! closed because of itself.
//!
//! Limits: `publishes_pending_max`, `publishes_pending_bytes_max`, `publishes_per_second_max`. A publication that is larger
//!         than a limit passes when nobody else is inside, or when the rate has been paid in full; it would never pass else.
//! The lock is held for some additions, and by publishers alone.

use super::publish::Refusal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub struct Gate {
    inside: Mutex<Inside>,
    refused_busy: AtomicU64,
    refused_rate: AtomicU64,
}

/// See the options of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub events_max: usize,
    pub bytes_max: usize,
    /// 0: none.
    pub per_second_max: usize,
}

/// What has been let in.
struct Inside {
    limits: Limits,
    events: usize,
    bytes: usize,
    /// When the rate will have paid for all that was let in.
    paid: Instant,
}

/// Room for one publication. Dropping it frees the room.
pub struct Place {
    gate: Arc<Gate>,
    events: usize,
    bytes: usize,
}

impl Gate {
    pub fn new(limits: Limits, now: Instant) -> Arc<Gate> {
        let inside = Mutex::new(Inside { limits, events: 0, bytes: 0, paid: now });
        Arc::new(Gate { inside, refused_busy: AtomicU64::new(0), refused_rate: AtomicU64::new(0) })
    }

    /// From now on these hold, for who comes then.
    pub fn set_limits(&self, limits: Limits, now: Instant) {
        let mut inside = self.inside();
        inside.change_rate(limits.per_second_max, now);
        inside.limits = limits;
    }

    /// Room for a body, before it is read.
    pub fn enter(self: &Arc<Self>, bytes: usize) -> Result<Place, Refusal> {
        let mut inside = self.inside();
        let bytes_max = inside.limits.bytes_max;
        if inside.bytes > 0 && inside.bytes + bytes > bytes_max {
            let refusal = Refusal::BytesPending { bytes: inside.bytes, bytes_max };
            return Err(self.busy(refusal));
        }
        inside.bytes += bytes;
        Ok(Place { gate: Arc::clone(self), events: 0, bytes })
    }

    /// Events that every worker has not reported yet, and the bytes of their bodies.
    pub fn pending(&self) -> (usize, usize) {
        let inside = self.inside();
        (inside.events, inside.bytes)
    }

    /// Publications that were refused because too much is pending, and because there are too many a second.
    pub fn refused(&self) -> (u64, u64) {
        (self.refused_busy.load(Ordering::Relaxed), self.refused_rate.load(Ordering::Relaxed))
    }

    fn busy(&self, refusal: Refusal) -> Refusal {
        self.refused_busy.fetch_add(1, Ordering::Relaxed);
        refusal
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("nothing panics while it holds this lock")
    }
}

impl Place {
    /// The body has been read. Nobody may have said how long it would be, and then its room is that of the largest.
    pub fn shrink_to(&mut self, bytes: usize) {
        let spare = self.bytes.checked_sub(bytes).expect("a body is no larger than what it was given room for");
        self.gate.inside().bytes -= spare;
        self.bytes = bytes;
    }

    /// Room for the body's events, once it is known how many they are. All of them are let in, or none.
    pub fn admit(&mut self, events: usize, now: Instant) -> Result<(), Refusal> {
        let mut inside = self.gate.inside();
        let Limits { events_max, per_second_max, .. } = inside.limits;
        if inside.events > 0 && inside.events + events > events_max {
            let refusal = Refusal::EventsPending { events: inside.events, events_max };
            return Err(self.gate.busy(refusal));
        }
        if per_second_max > 0 {
            inside.pay(events, per_second_max, now).map_err(|wait| {
                self.gate.refused_rate.fetch_add(1, Ordering::Relaxed);
                Refusal::TooManyPerSecond { per_second_max, wait }
            })?;
        }
        inside.events += events;
        self.events = events;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        inside.events -= self.events;
        inside.bytes -= self.bytes;
    }
}

impl Inside {
    /// A bucket with a second's worth of events, kept as the time at which it will be full. What is larger than the bucket
    /// needs a full one and leaves a debt. The error is how long it takes until there is enough.
    fn pay(&mut self, events: usize, per_second: usize, now: Instant) -> Result<(), Duration> {
        const BUCKET: Duration = Duration::from_secs(1);
        let price = |events: usize| Duration::from_secs_f64(events as f64 / per_second as f64);
        let full = self.paid.max(now);
        let wait = (full + price(events).min(BUCKET)).saturating_duration_since(now + BUCKET);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.paid = full + price(events);
        Ok(())
    }

    /// What is owed is events, and a higher rate pays them sooner. Under a lower one it takes no longer than it would have:
    /// who published a lot while that was allowed need not atone for it. Without a rate nothing is owed, nor will be later.
    fn change_rate(&mut self, per_second: usize, now: Instant) {
        let owed = self.paid.saturating_duration_since(now);
        let before = self.limits.per_second_max;
        self.paid = match per_second {
            0 => now,
            _ => now + owed.mul_f64((before as f64 / per_second as f64).min(1.0)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(events_max: usize, bytes_max: usize, per_second_max: usize) -> (Arc<Gate>, Instant) {
        let now = Instant::now();
        (Gate::new(Limits { events_max, bytes_max, per_second_max }, now), now)
    }

    fn publish(gate: &Arc<Gate>, events: usize, now: Instant) -> Result<Place, String> {
        let mut place = gate.enter(1).map_err(|refusal| refusal.to_string())?;
        place.admit(events, now).map_err(|refusal| refusal.to_string())?;
        Ok(place)
    }

    #[test]
    fn places_are_free_again_when_their_publications_end() {
        let (gate, now) = gate(10, 100, 0);
        let (first, second) = (publish(&gate, 6, now).unwrap(), publish(&gate, 4, now).unwrap());
        assert_eq!(gate.pending(), (10, 2));
        let refused = publish(&gate, 1, now).err().unwrap();
        assert!(refused.starts_with("the server is behind: 10 events are not fanned out yet"), "{refused}");
        assert_eq!((gate.pending(), gate.refused()), ((10, 2), (1, 0)), "a refused one has no place");
        drop(first);
        assert!(publish(&gate, 6, now).is_ok());
        drop(second);
        assert_eq!(gate.pending(), (0, 0));
    }

    #[test]
    fn bodies_have_their_own_limit_before_they_are_read() {
        let (gate, _) = gate(10, 100, 0);
        let place = gate.enter(60).unwrap();
        assert!(gate.enter(40).is_ok());
        let refused = gate.enter(41).err().unwrap().to_string();
        assert!(refused.starts_with("the server is behind: bodies of 60 bytes are not fanned out yet"), "{refused}");
        drop(place);
        assert!(gate.enter(41).is_ok());
        assert_eq!(gate.refused(), (1, 0));
    }

    #[test]
    fn what_a_body_does_not_need_is_free_once_it_was_read() {
        let (gate, _) = gate(10, 100, 0);
        let mut place = gate.enter(90).unwrap();
        assert!(gate.enter(60).is_err());
        place.shrink_to(40);
        assert_eq!(gate.pending(), (0, 40));
        assert!(gate.enter(60).is_ok());
        drop(place);
        assert_eq!(gate.pending(), (0, 0));
    }

    #[test]
    fn what_is_larger_than_a_limit_passes_alone() {
        let (gate, now) = gate(10, 100, 0);
        let mut large = gate.enter(1000).unwrap();
        assert!(gate.enter(1).is_err());
        large.admit(50, now).unwrap();
        drop(large);
        assert!(publish(&gate, 50, now).is_ok());
        let one = publish(&gate, 1, now).unwrap();
        assert!(publish(&gate, 50, now).is_err());
        drop(one);
    }

    #[test]
    fn the_rate_lets_a_second_through_at_once_and_then_one_at_a_time() {
        let (gate, now) = gate(1000, 1000, 4);
        let at = |ms: u64| now + Duration::from_millis(ms);
        assert!(publish(&gate, 4, at(0)).is_ok());
        let refused = publish(&gate, 1, at(0)).err().unwrap();
        assert_eq!(refused, "more than limits.publishes_per_second_max, 4 events a second: there is room in 250 ms");
        assert!(publish(&gate, 1, at(249)).is_err());
        assert!(publish(&gate, 1, at(250)).is_ok());
        assert!(publish(&gate, 1, at(250)).is_err());
        assert_eq!(gate.refused(), (0, 3));
        // What was not used does not add up to more than a second's worth.
        assert!(publish(&gate, 4, at(60_000)).is_ok());
        assert!(publish(&gate, 1, at(60_000)).is_err());
    }

    #[test]
    fn a_batch_of_more_than_a_seconds_worth_passes_with_a_full_bucket_and_is_paid_for_later() {
        let (gate, now) = gate(1000, 1000, 4);
        let at = |ms: u64| now + Duration::from_millis(ms);
        assert!(publish(&gate, 1, at(0)).is_ok());
        assert!(publish(&gate, 12, at(249)).is_err());
        assert!(publish(&gate, 12, at(250)).is_ok());
        // Three seconds' worth, of which the bucket had one.
        assert!(publish(&gate, 1, at(250 + 2_249)).is_err());
        assert!(publish(&gate, 1, at(250 + 2_250)).is_ok());
    }

    /// A gate with a debt of 99 seconds: 1,000 events at 10 a second, of which the bucket had 10.
    fn indebted() -> (Arc<Gate>, Instant) {
        let (gate, now) = gate(1000, 1000, 10);
        assert!(publish(&gate, 1000, now).is_ok());
        assert!(publish(&gate, 1, now + Duration::from_millis(99_099)).is_err());
        (gate, now)
    }

    fn set_rate(gate: &Arc<Gate>, per_second_max: usize, now: Instant) {
        gate.set_limits(Limits { events_max: 1000, bytes_max: 1000, per_second_max }, now);
    }

    #[test]
    fn what_is_owed_is_paid_at_a_higher_rate_as_soon_as_there_is_one() {
        let (gate, now) = indebted();
        let at = |ms: u64| now + Duration::from_millis(ms);
        // Half of it is paid by then. Of the other 500, the new bucket has 250.
        set_rate(&gate, 250, at(50_000));
        assert!(publish(&gate, 1, at(50_000 + 1_003)).is_err());
        assert!(publish(&gate, 1, at(50_000 + 1_004)).is_ok());
        set_rate(&gate, 1_000_000, at(51_004));
        assert!(publish(&gate, 1000, at(51_004)).is_ok());
    }

    #[test]
    fn under_a_lower_rate_nothing_is_owed_for_longer_than_before() {
        let (gate, now) = gate(1000, 1000, 1000);
        let at = |ms: u64| now + Duration::from_millis(ms);
        assert!(publish(&gate, 1000, at(0)).is_ok());
        set_rate(&gate, 10, at(0));
        assert!(publish(&gate, 10, at(999)).is_err());
        assert!(publish(&gate, 10, at(1000)).is_ok());
        assert!(publish(&gate, 1, at(1000)).is_err());
    }

    #[test]
    fn the_same_rate_once_more_changes_nothing() {
        let (gate, now) = indebted();
        let at = |ms: u64| now + Duration::from_millis(ms);
        set_rate(&gate, 10, at(50_000));
        assert!(publish(&gate, 1, at(99_099)).is_err());
        assert!(publish(&gate, 1, at(99_101)).is_ok());
    }

    #[test]
    fn what_is_owed_is_forgotten_when_there_is_no_rate_for_a_while() {
        let (gate, now) = indebted();
        set_rate(&gate, 0, now);
        assert!(publish(&gate, 1000, now).is_ok());
        set_rate(&gate, 10, now);
        assert!(publish(&gate, 10, now).is_ok());
        assert!(publish(&gate, 1, now).is_err());
    }
}
