//! Books: which messages each client of a crowd has had, room by room.
//!
//! ```text
//!     message text ─▶ stamp ─▶ the client's place in that room ─▶ order ─▶ tally, marks
//! ```
//!
//! Who is in a room from the beginning has to receive everything that is published there. Who comes later, or comes
//! back, has to receive everything from its first message on, and that first one has to be there soon: a message that
//! was due [`SETTLE_IN`] after the join counts as lost if neither it nor an earlier one came. Who leaves again cannot
//! know what was still under way: it is asked for less, see [`Books::leave`].
//!
//! Where messages have keys, of all that the last value of each key is asked for; see `latest`. Who leaves is not asked.

use crate::board::Board;
use crate::clock::Nanos;
use crate::latest;
use crate::order::Order;
use crate::record::BEHIND_S;
use crate::snapshot::Behind;
use crate::stamp::Stamp;
use crate::tally::{Arrival, Example, Tally};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// How long after a join messages may still pass a client by: a server under a storm of joins takes its time.
const SETTLE_IN: Nanos = 5_000_000_000;
/// When a client joins that has not joined yet: messages reach it by mistake, and none is missed.
pub const NOT_YET: Nanos = Nanos::MAX;

pub struct Books {
    /// Of each client, one place after the other.
    places: Vec<Place>,
    per_client: usize,
    /// Of each place, one after the other: of each key, what came last. Empty where there are no keys.
    latest: Vec<u32>,
    keys: usize,
    pub tally: Tally,
}

/// One client in one room.
struct Place {
    order: Order,
    room: u32,
    /// A test message has come.
    warm: bool,
}

/// The client that something has reached: its index in the crowd, its number among all, when it joined, or [`NOT_YET`].
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
    pub fn new(board: &Board, numbers: &[u32]) -> Books {
        let rooms = &board.rooms;
        let of = |client| (0..rooms.per_client()).map(move |layer| rooms.of(client, layer));
        let late = |client| board.plan.motion.is_some_and(|motion| motion.joins_late(client));
        let order = move |client| if late(client) { Order::open() } else { Order::default() };
        let places = move |client| of(client).map(move |room| Place { order: order(client), room, warm: false });
        let per_client = rooms.per_client() as usize;
        let places: Vec<_> = numbers.iter().copied().flat_map(places).collect();
        let keys = board.plan.keys as usize;
        Books { latest: vec![0; places.len() * keys], keys, places, per_client, tally: Tally::default() }
    }

    /// The rooms of a client.
    pub fn rooms(&self, index: usize) -> impl Iterator<Item = u32> {
        self.places[self.range(index)].iter().map(|place| place.room)
    }

    /// A message has reached a client.
    pub fn take(&mut self, board: &Board, reader: Reader, text: &[u8], now: Nanos) -> Heard {
        let Some(stamp) = Stamp::read(text).filter(|stamp| stamp.run == board.part.run) else { return Heard::Nothing };
        let range = self.range(reader.index);
        let places = &mut self.places[range.clone()];
        let joined = reader.since != NOT_YET;
        if let Some(room) = stamp.warms_up().filter(|_| joined) {
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
        let Some(index) = places.iter().position(|place| place.room == room && joined) else {
            self.tally.stray.note(1, Example { client: reader.number, message });
            return Heard::Nothing;
        };
        let place = &mut places[index];
        let seen = if self.keys > 0 {
            place.order.pass(sequence);
            latest::see(&mut self.latest[keys_of(range.start + index, self.keys)], sequence)
        } else {
            if place.order.next().is_none() {
                place.order.begin(sequence.min(first_expected(board, room, reader.since)));
            }
            place.order.see(sequence)
        };
        let audience = (!board.rooms.moves(reader.number)).then(|| board.audience(room));
        let arrival = Arrival { message, seen, delay: now.saturating_sub(stamp.due), audience };
        self.tally.arrive(reader.number, arrival, &board.marks);
        Heard::Message
    }

    /// The client leaves by itself at `now`, and may come back. What was under way it cannot have, so it misses what came
    /// before the last message that it had; or, if it had none at all, what was due [`SETTLE_IN`] ago.
    pub fn leave(&mut self, board: &Board, reader: Reader, now: Nanos) {
        let range = self.range(reader.index);
        self.latest[keys_from(&range, self.keys)].fill(0);
        for place in &mut self.places[range] {
            let mut order = std::mem::replace(&mut place.order, Order::open());
            let nothing_came = order.next().is_none_or(|next| next == 0);
            order.begin(first_expected(board, place.room, reader.since));
            let (due, published) = (now.saturating_sub(SETTLE_IN), board.rooms.published(place.room, board.sent()));
            let end = nothing_came.then(|| due_before(board, place.room, due).min(published));
            if self.keys == 0 {
                let unpublished = board.unpublished(place.room);
                self.tally.settle(reader.number, place.room, &order, end, &unpublished, &board.rooms);
            }
        }
    }

    /// The run is over for a client that should have had everything.
    pub fn settle(&mut self, board: &Board, reader: Reader) {
        let (sent, range) = (board.sent(), self.range(reader.index));
        for index in range {
            let place = &mut self.places[index];
            let (published, unpublished) = (board.rooms.published(place.room, sent), board.unpublished(place.room));
            let first = first_expected(board, place.room, reader.since);
            if self.keys == 0 {
                place.order.begin(first);
                self.tally.settle(reader.number, place.room, &place.order, Some(published), &unpublished, &board.rooms);
                continue;
            }
            let early = reader.since <= board.begin.load(Relaxed);
            let latest = &self.latest[keys_of(index, self.keys)];
            let missing = latest::missing(latest, if early { 0 } else { first }, published, &unpublished);
            if let Some(&sequence) = missing.first() {
                let message = board.rooms.message(place.room, sequence) as u32;
                self.tally.lost.note(missing.len() as u64, Example { client: reader.number, message });
            }
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

/// Where the keys of a place are.
fn keys_of(place: usize, keys: usize) -> Range<usize> {
    keys_from(&(place..place + 1), keys)
}

fn keys_from(places: &Range<usize>, keys: usize) -> Range<usize> {
    places.start * keys..places.end * keys
}

/// The message of `room` that a client which joined at `since` has to receive at the latest. Everything that the room
/// had before that message passes the client by.
fn first_expected(board: &Board, room: u32, since: Nanos) -> u32 {
    due_before(board, room, since.saturating_add(SETTLE_IN))
}

/// How many messages of `room` are due before `time`.
fn due_before(board: &Board, room: u32, time: Nanos) -> u32 {
    let first = board.schedule.first_from(time.saturating_sub(board.begin.load(Relaxed)));
    board.rooms.published(room, u32::try_from(first).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Part, Phase, Servers};
    use crate::clock::Clock;
    use crate::plan::tests::plan_of;
    use crate::sources::Sources;

    const SECOND: Nanos = 1_000_000_000;
    /// When the first message is due.
    const BEGIN: Nanos = SECOND;

    /// A run of 30 messages, one per second, all of them published.
    fn board(scenario: &str) -> Board {
        let plan = plan_of(&format!("room = \"r\"\nrate = 1\nduration = 30\n{scenario}"));
        let part = Part::whole(plan.connections);
        let servers = Servers { first: ([127, 0, 0, 1], 1).into(), then: ([127, 0, 0, 1], 1).into() };
        let board = Board::new(plan, servers, Sources::Own, 1, Clock::start(), part);
        board.measure(BEGIN);
        board.sent.store(30, Relaxed);
        board
    }

    fn books(board: &Board) -> Books {
        Books::new(board, &(0..board.plan.connections).collect::<Vec<_>>())
    }

    fn reader(number: u32, since: Nanos) -> Reader {
        Reader { index: number as usize, number, since }
    }

    /// A message reaches a client the moment it is due.
    fn take(books: &mut Books, board: &Board, reader: Reader, message: u32) -> Heard {
        let due = BEGIN + board.schedule.time(message.into());
        let mut text = Vec::new();
        Stamp { run: board.part.run, sequence: message, due }.put(100, &mut text);
        books.take(board, reader, &text, due)
    }

    /// What is lost of all that was published.
    fn lost(mut books: Books, board: &Board, reader: Reader) -> u64 {
        books.settle(board, reader);
        books.tally.lost.count
    }

    #[test]
    fn a_client_that_stays_misses_what_never_came() {
        let board = board("connections = 2");
        let mut books = books(&board);
        let client = reader(1, 0);
        (0..30).filter(|message| *message != 7).for_each(|message| {
            assert_eq!(take(&mut books, &board, client, message), Heard::Message);
        });
        books.settle(&board, client);
        assert_eq!((books.tally.delivered, books.tally.to_audience, books.tally.lost.count), (29, 29, 1));
        assert_eq!(books.tally.lost.example.map(|example| (example.client, example.message)), Some((1, 7)));
    }

    const DROP: &str = "connections = 2\n[motion]\nkind = \"drop\"\nshare = 1.0";
    const JOIN: &str = "connections = 2\n[motion]\nkind = \"join\"\nshare = 1.0";

    /// It is back at 10 s, so message 14, due at 15 s, is the latest that may be its first.
    #[test]
    fn who_comes_back_and_hears_nothing_misses_what_was_due_after_a_while() {
        let board = board(DROP);
        let back = |board| {
            let mut books = books(board);
            (0..5).for_each(|message| assert_eq!(take(&mut books, board, reader(0, 0), message), Heard::Message));
            books.leave(board, reader(0, 0), 6 * SECOND);
            assert_eq!(books.tally.lost.count, 0, "what was under way is nobody's fault");
            books
        };
        let again = reader(0, 10 * SECOND);
        assert_eq!(lost(back(&board), &board, again), 30 - 14);
        for (first, missed) in [(10, 0), (14, 0), (15, 1), (20, 6)] {
            let mut books = back(&board);
            (first..30).for_each(|message| assert_eq!(take(&mut books, &board, again, message), Heard::Message));
            assert_eq!(lost(books, &board, again), missed, "its first is {first}");
        }
    }

    #[test]
    fn who_leaves_without_having_heard_anything_misses_what_was_long_due() {
        let board = board(DROP);
        // It was there from 10 s to 25 s: 14 to 18 are due from 15 s to before 20 s.
        let mut silent = books(&board);
        silent.leave(&board, reader(0, 0), 2 * SECOND);
        assert_eq!(silent.tally.lost.count, 0, "it was there for too short a time");
        silent.leave(&board, reader(0, 10 * SECOND), 25 * SECOND);
        assert_eq!(silent.tally.lost.count, 5);
        assert_eq!(silent.tally.lost.example.map(|example| example.message), Some(14));
        // One that was there from the beginning.
        let mut silent = books(&board);
        silent.leave(&board, reader(0, 0), 11 * SECOND);
        assert_eq!(silent.tally.lost.count, 5, "0 to 4 are due before 6 s");
    }

    #[test]
    fn nothing_is_missed_that_was_not_published() {
        let board = board(DROP);
        board.sent.store(3, Relaxed);
        let mut silent = books(&board);
        silent.leave(&board, reader(0, 0), 20 * SECOND);
        assert_eq!(silent.tally.lost.count, 3);
    }

    #[test]
    fn who_has_not_joined_misses_nothing_and_whatever_comes_is_astray() {
        let board = board(JOIN);
        let mut books = books(&board);
        let waiting = reader(0, NOT_YET);
        assert_eq!(take(&mut books, &board, waiting, 3), Heard::Nothing);
        assert_eq!((books.tally.stray.count, books.tally.delivered), (1, 0));
        assert_eq!(books.behind(&board, 20 * SECOND, |_| true)[0], 2, "nobody who waits to join is behind");
        assert_eq!(lost(books, &board, waiting), 0);
    }

    #[test]
    fn a_late_joiner_has_everything_from_its_first_message_on() {
        let board = board(JOIN);
        let joined = reader(1, 10 * SECOND);
        let hear = |messages: &[u32]| {
            let mut books = books(&board);
            messages.iter().for_each(|message| assert_eq!(take(&mut books, &board, joined, *message), Heard::Message));
            lost(books, &board, joined)
        };
        assert_eq!(hear(&(11..30).collect::<Vec<_>>()), 0);
        assert_eq!(hear(&(11..30).filter(|message| *message != 20).collect::<Vec<_>>()), 1, "one in the middle");
        assert_eq!(hear(&(11..28).collect::<Vec<_>>()), 2, "the last two");
        assert_eq!(hear(&[]), 16, "14 and later");
    }

    #[test]
    fn a_message_of_another_room_is_astray_and_a_room_is_settled_by_its_own_messages() {
        let board = board("connections = 4\n[rooms]\ncount = 4");
        let (rooms, mut books) = (&board.rooms, books(&board));
        for message in 0..30 {
            let mine = rooms.room(message) == rooms.of(2, 0);
            let heard = take(&mut books, &board, reader(2, 0), message);
            assert_eq!(heard, if mine { Heard::Message } else { Heard::Nothing });
        }
        let own = rooms.published(rooms.of(2, 0), 30);
        assert_eq!((books.tally.delivered, books.tally.stray.count), (own.into(), u64::from(30 - own)));
        assert_eq!(lost(books, &board, reader(2, 0)), 0);
    }

    const KEYED: &str = "connections = 2\nkeys = 3";

    #[test]
    fn where_messages_have_keys_only_the_last_of_each_is_asked_for() {
        let board = board(KEYED);
        let hear = |messages: &[u32]| {
            let mut books = books(&board);
            messages
                .iter()
                .for_each(|message| assert_eq!(take(&mut books, &board, reader(1, 0), *message), Heard::Message));
            books.settle(&board, reader(1, 0));
            (books.tally.delivered, books.tally.lost.count, books.tally.lost.example.map(|example| example.message))
        };
        assert_eq!(hear(&[0, 11, 27, 28, 29]), (5, 0, None));
        assert_eq!(hear(&[0, 11, 24, 28, 29]), (5, 1, Some(27)));
        assert_eq!(hear(&[]), (0, 3, Some(27)));
        board.refusals.note(&[24, 27]);
        assert_eq!(hear(&[21, 28, 29]), (3, 0, None), "those were never published");
        assert_eq!(hear(&[18, 28, 29]), (3, 1, Some(21)));
    }

    #[test]
    fn a_key_that_goes_back_or_stands_still_is_found() {
        let board = board(KEYED);
        let mut books = books(&board);
        for message in [9, 11, 6, 11, 28] {
            assert_eq!(take(&mut books, &board, reader(0, 0), message), Heard::Message);
        }
        let Tally { reordered, doubled, delivered, .. } = &books.tally;
        assert_eq!((reordered.count, doubled.count, *delivered), (1, 1, 4));
        assert_eq!(books.behind(&board, 20 * SECOND, |_| true)[0], 1, "nothing newer than the last one is due");
    }

    #[test]
    fn who_leaves_and_comes_back_starts_anew_with_every_key() {
        let board = board(KEYED);
        let mut books = books(&board);
        assert_eq!(take(&mut books, &board, reader(0, 0), 10), Heard::Message);
        books.leave(&board, reader(0, 0), 12 * SECOND);
        assert_eq!(books.tally.lost.count, 0);
        assert_eq!(take(&mut books, &board, reader(0, 13 * SECOND), 10), Heard::Message, "what the server kept");
        assert_eq!((books.tally.doubled.count, books.tally.delivered), (0, 2));
        assert_eq!(lost(books, &board, reader(0, 13 * SECOND)), 3);
    }

    #[test]
    fn what_the_server_refused_nobody_lost() {
        let board = board("connections = 1");
        board.refusals.note(&[3, 29]);
        let mut books = books(&board);
        let all = (0..29).filter(|message| *message != 3);
        all.for_each(|message| assert_eq!(take(&mut books, &board, reader(0, 0), message), Heard::Message));
        assert_eq!(lost(books, &board, reader(0, 0)), 0);
    }

    #[test]
    fn what_somebody_else_published_is_nobodys() {
        let board = board("connections = 1");
        let mut books = books(&board);
        let mut foreign = Vec::new();
        Stamp { run: !board.part.run, sequence: 0, due: 0 }.put(100, &mut foreign);
        for text in [&foreign[..], b"hello", b""] {
            assert_eq!(books.take(&board, reader(0, 0), text, SECOND), Heard::Nothing);
        }
        assert_eq!(take(&mut books, &board, reader(0, 0), 30), Heard::Nothing, "there is no such message");
        assert_eq!((books.tally.delivered, books.tally.stray.count), (0, 0));
        assert_eq!(board.phase(), Phase::Measuring);
    }
}
