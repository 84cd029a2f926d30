//! Books: which messages each client of a crowd has had, room by room.
//!
//! ```text
//!     message text ─▶ stamp ─▶ the client's place in that room ─▶ order ─▶ tally, marks
//! ```
//!
//! Who is in a room from the beginning has to receive everything that is published there. Who comes later, or comes
//! back, has to receive everything from its first message on, and that first one has to be there soon: a message that
//! was due [`SETTLE_IN`] after the join counts as lost if neither it nor an earlier one came.

use crate::board::Board;
use crate::clock::Nanos;
use crate::order::Order;
use crate::record::BEHIND_S;
use crate::snapshot::Behind;
use crate::stamp::Stamp;
use crate::tally::{Arrival, Example, Tally};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// How long after a join messages may still pass a client by: a server under a storm of joins takes its time.
const SETTLE_IN: Nanos = 5_000_000_000;

pub struct Books {
    /// Of each client, one place after the other.
    places: Vec<Place>,
    per_client: usize,
    pub tally: Tally,
}

/// One client in one room.
struct Place {
    order: Order,
    room: u32,
    /// A test message has come.
    warm: bool,
}

/// The client that something has reached: its index in the crowd, its number among all, when it joined.
#[derive(Clone, Copy)]
pub struct Reader {
    pub index: usize,
    pub number: u32,
    pub since: Nanos,
}

/// What it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody else's, or a repetition.
    Nothing,
    /// The first test message of a room.
    Test,
    Message,
}

impl Books {
    pub fn new(board: &Board, numbers: Range<u32>) -> Books {
        let rooms = &board.rooms;
        let of = |client| (0..rooms.per_client()).map(move |layer| rooms.of(client, layer));
        let place = |room| Place { order: Order::default(), room, warm: false };
        let per_client = rooms.per_client() as usize;
        Books { places: numbers.flat_map(of).map(place).collect(), per_client, tally: Tally::default() }
    }

    /// The rooms of a client.
    pub fn rooms(&self, index: usize) -> impl Iterator<Item = u32> {
        self.places[self.range(index)].iter().map(|place| place.room)
    }

    /// A message has reached a client.
    pub fn take(&mut self, board: &Board, reader: Reader, text: &[u8], now: Nanos) -> Heard {
        let Some(stamp) = Stamp::read(text).filter(|stamp| stamp.run == board.part.run) else { return Heard::Nothing };
        let range = self.range(reader.index);
        let places = &mut self.places[range];
        if let Some(room) = stamp.warms_up() {
            let place = places.iter_mut().find(|place| place.room == room && !place.warm);
            return place.map_or(Heard::Nothing, |place| {
                place.warm = true;
                Heard::Test
            });
        }
        let message = stamp.sequence;
        if message >= board.marks.count() {
            return Heard::Nothing;
        }
        let (room, sequence) = (board.rooms.room(message), board.rooms.sequence(message));
        let Some(place) = places.iter_mut().find(|place| place.room == room) else {
            self.tally.stray.note(1, Example { client: reader.number, message });
            return Heard::Nothing;
        };
        if place.order.next().is_none() {
            place.order.begin(sequence.min(first_expected(board, room, reader.since)));
        }
        let audience = (!board.rooms.moves(reader.number)).then(|| board.audience(room));
        let arrival = Arrival { message, sequence, delay: now.saturating_sub(stamp.due), audience };
        self.tally.arrive(reader.number, &mut place.order, arrival, &board.marks);
        Heard::Message
    }

    /// The client will join later, or again: it expects nothing yet.
    pub fn open(&mut self, index: usize) {
        let range = self.range(index);
        self.places[range].iter_mut().for_each(|place| place.order = Order::open());
    }

    /// The client leaves by itself: what was under way it cannot have.
    pub fn leave(&mut self, board: &Board, number: u32, index: usize) {
        let range = self.range(index);
        for place in &mut self.places[range] {
            let order = std::mem::replace(&mut place.order, Order::open());
            self.tally.settle(number, place.room, &order, None, &board.rooms);
        }
    }

    /// The run is over for a client that should have had everything.
    pub fn settle(&mut self, board: &Board, reader: Reader) {
        let (sent, range) = (board.sent(), self.range(reader.index));
        for place in &mut self.places[range] {
            let published = board.rooms.published(place.room, sent);
            place.order.begin(first_expected(board, place.room, reader.since));
            self.tally.settle(reader.number, place.room, &place.order, Some(published), &board.rooms);
        }
    }

    /// How many of the clients that are there are how far behind: each as far as its oldest missing message is old.
    pub fn behind(&self, board: &Board, now: Nanos, present: impl Fn(usize) -> bool) -> Behind {
        let (elapsed, sent) = (board.elapsed(now), u64::from(board.sent()));
        let mut behind = Behind::default();
        for (index, places) in self.places.chunks(self.per_client).enumerate().filter(|(index, _)| present(*index)) {
            let missing = places.iter().filter_map(|place| Some(board.rooms.message(place.room, place.order.next()?)));
            let oldest = missing.filter(|message| *message < sent).min();
            let age = oldest.map_or(0, |message| elapsed.saturating_sub(board.schedule.time(message)));
            let class = BEHIND_S.iter().take_while(|bound| age >= **bound * 1_000_000_000).count();
            debug_assert!(class < behind.len(), "{index}");
            behind[class] += 1;
        }
        behind
    }

    fn range(&self, index: usize) -> Range<usize> {
        index * self.per_client..(index + 1) * self.per_client
    }
}

/// The message of `room` that a client which joined at `since` has to receive at the latest.
fn first_expected(board: &Board, room: u32, since: Nanos) -> u32 {
    let begin = board.begin.load(Relaxed);
    let first = board.schedule.first_from((since + SETTLE_IN).saturating_sub(begin));
    // Everything that the room had before that message passes the client by.
    board.rooms.published(room, u32::try_from(first).unwrap_or(u32::MAX))
}
