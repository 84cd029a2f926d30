//! Tally: what one thread has counted and timed. Threads keep their own; the report adds them up.

use crate::clock::Nanos;
use crate::marks::Marks;
use crate::order::{Order, Seen};
use crate::rooms::Rooms;
use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest delay that is told apart from longer ones, in microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// How many points of a curve there are for each halving of the rest.
const CURVE_STEPS_PER_HALF: u32 = 3;
/// The width of the first bar of a histogram: nothing is told apart below it.
const BAR_MICROS: u64 = 100;

/// Delays in microseconds, to three digits.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Times {
        Times(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are in order"))
    }
}

impl Times {
    pub fn record(&mut self, time: Nanos) {
        self.0.saturating_record(time.div_ceil(1000));
    }

    pub fn add(&mut self, other: &Times) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// As pairs of microseconds and samples.
    fn recorded(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// The time that `quantile` of the samples did not exceed; zero without samples.
    pub fn at(&self, quantile: f64) -> Nanos {
        self.0.value_at_quantile(quantile).min(self.0.max()) * 1000
    }

    pub fn max(&self) -> Nanos {
        self.0.max() * 1000
    }

    pub fn samples(&self) -> u64 {
        self.0.len()
    }

    /// How many samples lie in each class: up to the first of `bounds`, which rise, up to the second, and so on; the last
    /// class has what is above all of them.
    pub fn classes(&self, bounds: &[Nanos]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len() + 1];
        for step in self.0.iter_recorded() {
            let time = step.value_iterated_to() * 1000;
            counts[bounds.partition_point(|bound| *bound < time)] += step.count_at_value();
        }
        counts
    }

    /// In microseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Quantiles and their times in milliseconds, closer together towards the end, enough to draw the curve.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let step = |step: hdrhistogram::iterators::IterationValue<u64>| {
            (step.quantile_iterated_to(), step.value_iterated_to().min(self.0.max()) as f64 / 1e3)
        };
        self.0.iter_quantiles(CURVE_STEPS_PER_HALF).map(step).collect()
    }

    /// The bars of a histogram, each a fifth wider than the one before: up to how many milliseconds, and the samples.
    pub fn bars(&self) -> Vec<(f64, u64)> {
        let bar = |step: hdrhistogram::iterators::IterationValue<u64>| {
            (step.value_iterated_to() as f64 / 1e3, step.count_since_last_iteration())
        };
        let bars = self.0.iter_log(BAR_MICROS, 1.2).map(bar);
        bars.skip_while(|(_, samples)| *samples == 0).collect()
    }
}

/// Only the values that were recorded: a histogram is mostly zeros.
impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.recorded())
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Times, D::Error> {
        let mut times = Times::default();
        for (micros, samples) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            times.0.saturating_record_n(micros, samples);
        }
        Ok(times)
    }
}

/// One client and one message, of which something is told; the first of its kind that the thread saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub client: u32,
    pub message: u32,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Fault {
    pub count: u64,
    pub example: Option<Example>,
}

impl Fault {
    pub fn note(&mut self, count: u64, example: Example) {
        self.count += count;
        self.example.get_or_insert(example);
    }

    fn add(&mut self, other: &Fault) {
        self.count += other.count;
        self.example = self.example.or(other.example);
    }
}

/// A message on its way to one client, and what it was for that one.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub message: u32,
    pub seen: Seen,
    pub delay: Nanos,
    /// How many clients this message waits for; `None` to one that it does not wait for, because that one moves.
    pub audience: Option<u32>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// First arrivals: each client and message once.
    pub delivered: u64,
    /// Those among them to clients that stay all the time.
    pub to_audience: u64,
    pub lost: Fault,
    pub doubled: Fault,
    pub reordered: Fault,
    /// Deliveries to clients that are not in the message's room.
    pub stray: Fault,
    /// Every delivery's delay by itself.
    pub delivery: Times,
}

impl Tally {
    /// One counted message has reached one client that is in its room.
    pub fn arrive(&mut self, client: u32, arrival: Arrival, marks: &Marks) {
        let Arrival { message, seen, delay, audience } = arrival;
        match seen {
            Seen::InTurn => {}
            Seen::After(_) => self.reordered.note(1, Example { client, message }),
            Seen::Again => return self.doubled.note(1, Example { client, message }),
        }
        self.delivered += 1;
        self.delivery.record(delay);
        if let Some(audience) = audience {
            self.to_audience += 1;
            marks.arrive(message, audience, delay);
        }
    }

    /// What a client that was in `room` until now never received there: of `published` messages, or, when it left by
    /// itself, of those before the last that it had. Those in `unpublished` it could not have.
    pub fn settle(
        &mut self,
        client: u32,
        room: u32,
        order: &Order,
        published: Option<u32>,
        unpublished: &[u32],
        rooms: &Rooms,
    ) {
        let Some(end) = published.or(order.next()) else { return };
        if let Some(sequence) = order.first_lost(end, unpublished) {
            let message = rooms.message(room, sequence) as u32;
            let excused = unpublished.iter().filter(|sequence| order.misses(**sequence, end)).count() as u64;
            self.lost.note(order.lost(end) - excused, Example { client, message });
        }
    }

    pub fn add(&mut self, other: &Tally) {
        self.delivered += other.delivered;
        self.to_audience += other.to_audience;
        self.lost.add(&other.lost);
        self.doubled.add(&other.doubled);
        self.reordered.add(&other.reordered);
        self.stray.add(&other.stray);
        self.delivery.add(&other.delivery);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    fn arrive(tally: &mut Tally, client: u32, order: &mut Order, message: u32, millis: u64, marks: &Marks) {
        let arrival = Arrival { message, seen: order.see(message), delay: millis * 1_000_000, audience: Some(2) };
        tally.arrive(client, arrival, marks);
    }

    fn rooms() -> Rooms {
        Rooms::new(None, &scenario::Rooms::default(), None, 2, 0)
    }

    #[test]
    fn every_delivery_is_timed_and_the_last_one_marks_its_message() {
        let (mut tally, marks, mut orders) = (Tally::default(), Marks::new(1), [Order::default(), Order::default()]);
        arrive(&mut tally, 0, &mut orders[0], 0, 2, &marks);
        arrive(&mut tally, 1, &mut orders[1], 0, 5, &marks);
        assert_eq!((tally.delivered, tally.to_audience, tally.delivery.samples()), (2, 2, 2));
        assert_eq!((marks.of(0).first, marks.of(0).last), (Some(2_000_000), Some(5_000_000)));
    }

    #[test]
    fn no_message_waits_for_a_client_that_moves() {
        let (mut tally, marks, mut order) = (Tally::default(), Marks::new(1), Order::open());
        tally.arrive(0, Arrival { message: 0, seen: order.see(0), delay: 1, audience: None }, &marks);
        assert_eq!((tally.delivered, tally.to_audience, marks.of(0).first), (1, 0, None));
    }

    #[test]
    fn samples_are_counted_between_bounds() {
        let mut times = Times::default();
        [1_000, 10_000, 11_000, 500_000, 9_000_000].into_iter().for_each(|time| times.record(time));
        assert_eq!(times.classes(&[10_000, 400_000, 1_000_000]), [2, 1, 1, 1]);
        assert_eq!(times.classes(&[]), [5]);
    }

    #[test]
    fn a_doubled_message_is_no_delivery() {
        let (mut tally, marks, mut order) = (Tally::default(), Marks::new(3), Order::default());
        [0, 0, 2, 1].into_iter().for_each(|message| arrive(&mut tally, 7, &mut order, message, 2, &marks));
        assert_eq!((tally.delivered, tally.doubled.count, tally.reordered.count), (3, 1, 1));
        assert_eq!(tally.doubled.example, Some(Example { client: 7, message: 0 }));
        assert_eq!(tally.reordered.example, Some(Example { client: 7, message: 1 }));
    }

    #[test]
    fn what_never_came_is_settled_against_what_was_published() {
        let (mut tally, marks, mut order) = (Tally::default(), Marks::new(10), Order::default());
        [0, 2].into_iter().for_each(|message| arrive(&mut tally, 0, &mut order, message, 2, &marks));
        tally.settle(0, 0, &order, Some(5), &[], &rooms());
        assert_eq!(tally.lost.count, 3);
        assert_eq!(tally.lost.example.map(|example| example.message), Some(1));
        let mut tally = Tally::default();
        tally.settle(0, 0, &order, Some(5), &[0, 1, 3, 9], &rooms());
        assert_eq!((tally.lost.count, tally.lost.example.map(|example| example.message)), (1, Some(4)));
    }

    #[test]
    fn who_leaves_misses_only_what_came_before_the_last_it_had() {
        let (mut tally, marks, mut order) = (Tally::default(), Marks::new(10), Order::open());
        tally.settle(0, 0, &order, None, &[], &rooms());
        assert_eq!(tally.lost.count, 0, "nothing has come");
        [3, 5].into_iter().for_each(|message| arrive(&mut tally, 0, &mut order, message, 2, &marks));
        tally.settle(0, 0, &order, None, &[], &rooms());
        assert_eq!(tally.lost.count, 1);
    }
}
