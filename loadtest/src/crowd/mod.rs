//! Crowd: the clients of one thread, and the loop that connects, reads and counts them.
//!
//! ```text
//!     move    those clients whose time has come: drop, join late, stop reading
//!     open    the connections that are due, few at a time
//!     wait    until streams are ready, or briefly
//!     read    bytes → session → messages → books; replies are written at once, they are tiny
//!     tell    the board
//! ```
//!
//! A client is a stream, a session and its places in rooms: about a hundred bytes, and no task. The read buffer is the
//! thread's. Streams and poll live and die in [`Crowd::run`], because the thread's descriptors mean nothing elsewhere;
//! see `kernel::own_table`.
//!
//! Limits: [`OPEN_MAX`] connections begun per turn, [`SHAKING_MAX`] that are begun and not ready ([`RETURNING_MAX`] when
//! clients come back), [`MOVES_MAX`] moves per turn.

mod books;

use crate::board::{Board, Phase, Seat};
use crate::clock::Nanos;
use crate::error::{self, Error};
use crate::health::Health;
use crate::kernel;
use crate::motion::{Kind, Motion};
use crate::pace::Pace;
use crate::ramp::Ramp;
use crate::seed;
use crate::session::{Ending, Next, Session, Stage};
use crate::tally::{Tally, Times};
use books::{Books, Heard, NOT_YET, Reader};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 256 << 10;
/// Connections begun in one turn at most, so that a fast ramp does not delay those that are being answered.
const OPEN_MAX: usize = 32;
/// Connections begun and not ready, per thread: a server's accept queue is finite, and overflowing it costs seconds.
const SHAKING_MAX: usize = 256;
/// The same for clients that come back: a storm asks just this.
const RETURNING_MAX: usize = 4096;
/// Moves made in one turn at most.
const MOVES_MAX: u64 = 256;
/// Kinds of refusals that are told apart, per thread; the others count without a name.
const REFUSALS_MAX: usize = 32;
/// A client that was not let in tries again after this and up to as much more, so that not all try at once.
const RETRY: Nanos = 1_000_000_000;
/// How long a turn waits at most: phases change without waking anybody.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// Which of a client's lots decides how long it waits before it comes back.
const PAUSE: u32 = u32::MAX;
/// How long the end of a stalled client may be looked for, and for how long in vain.
const LOOK_MAX: Nanos = 2_000_000_000;
const LOOK_QUIET: Duration = Duration::from_millis(250);
/// How often the board is told what takes a walk over all clients.
const SURVEY: Nanos = 250_000_000;

pub struct Crowd<'a> {
    board: &'a Board,
    seat: &'a Seat,
    /// The numbers of these clients among all.
    numbers: Vec<u32>,
    ramp: Ramp,
    clients: Vec<Client>,
    books: Books,
    motion: Option<Motion>,
    /// Those that move, and how many moves are behind us.
    movers: Vec<usize>,
    moves: u64,
    /// Clients that will come back, and when.
    returning: BinaryHeap<Reverse<(Nanos, usize)>>,
    reply: Vec<u8>,
    shaking: usize,
    surveyed: Nanos,
    ready: u32,
    warm: u32,
    closed: u32,
    outcome: Outcome,
}

/// What a crowd knows at the end.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub tally: Tally,
    pub health: Health,
    /// Of each client, from the opened stream to the confirmed namespace.
    pub handshakes: Times,
    /// Until a dropped client was ready again, or a late joiner had its first message.
    pub back: Times,
    pub moved: u64,
    pub refused: u64,
    /// What the server refused with, and how often; [`REFUSALS_MAX`] kinds at most.
    pub refused_with: BTreeMap<String, u64>,
    /// Clients that the server ended while they did not read; and how long after they stopped, where that was seen.
    pub ended: u64,
    pub ended_after: Times,
    /// Clients that went, whoever closed the stream; their connections that were begun anew; clients that were back.
    pub left: Pace,
    pub asked: Pace,
    pub returned: Pace,
    /// When the first one moved and when the last one was back, counted from the first message.
    pub first_move: Option<Nanos>,
    pub last_back: Option<Nanos>,
    /// How long something may have waited to be read while clients came back.
    pub lag_returning: Times,
    /// Clients that the server evicted for reading too slowly, although they read.
    pub evicted: u64,
    /// Clients that dropped and were not back at the end.
    pub away: u64,
    /// The first client that was ended while messages were counted.
    pub closed: Option<(u32, Ending)>,
}

struct Client {
    /// `None` while it has no connection.
    stream: Option<TcpStream>,
    session: Session,
    /// When it began to connect, or dropped; once it is there, when it joined, or [`NOT_YET`].
    since: Nanos,
    /// Rooms from which no test message has come yet.
    cold: u32,
    life: Life,
    /// The stream is connected, and has been spoken to.
    asked: bool,
    /// Moved, and nothing has come since.
    unheard: bool,
    /// Has gone on to the second server.
    elsewhere: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Connecting for the first time.
    Arriving,
    /// In its rooms, unless it joins late.
    Present,
    /// Dropped, and connecting again or about to.
    Returning,
    /// There, and not reading.
    Stalled,
    /// Ended by the server.
    Closed,
}

impl<'a> Crowd<'a> {
    /// Starts a thread for each crew of this process's clients. `gathered` is for one more than there are.
    pub fn spawn_all<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        board: &'a Board,
        crews: Vec<Vec<u32>>,
        gathered: &'a Barrier,
    ) -> Vec<ScopedJoinHandle<'scope, Outcome>> {
        let spawn = |(thread, numbers)| scope.spawn(move || Crowd::new(board, thread, numbers).run(gathered));
        let crowds = (0..).zip(crews).map(spawn).collect();
        // Nothing is opened before every crowd has its own table: it would be copied into them and never close.
        gathered.wait();
        crowds
    }

    pub fn new(board: &'a Board, thread: usize, numbers: Vec<u32>) -> Crowd<'a> {
        let per_second = board.plan.ramp * numbers.len() as f64 / f64::from(board.plan.connections);
        let motion = board.plan.motion;
        let moves = |index: &usize| motion.is_some_and(|motion| motion.moves(numbers[*index]));
        let movers: Vec<_> = (0..numbers.len()).filter(moves).collect();
        let unawaited = board.rooms.are_apart() && movers.len() == numbers.len();
        Crowd {
            board,
            seat: &board.seats[thread],
            clients: Vec::with_capacity(numbers.len()),
            books: Books::new(board, &numbers),
            motion,
            movers,
            moves: 0,
            returning: BinaryHeap::new(),
            numbers,
            ramp: Ramp { begin: 0, per_second },
            reply: Vec::new(),
            shaking: 0,
            surveyed: 0,
            ready: 0,
            warm: 0,
            closed: 0,
            outcome: Outcome { health: Health::of_crew(unawaited), ..Outcome::default() },
        }
    }

    /// Runs until the run is over. `gathered` is where all threads meet after each has its own descriptor table.
    pub fn run(mut self, gathered: &Barrier) -> Outcome {
        let own_table = if self.board.seats.len() > 2 { kernel::own_table() } else { Ok(()) };
        gathered.wait();
        if self.outcome.health.unawaited {
            // Where that is forbidden, the health of those who are awaited shows what it costs.
            let _ = kernel::give_way();
        }
        if let Err(error) = own_table.and_then(|()| self.turns()) {
            let what = "a thread cannot have descriptors of its own, or poll them";
            self.board.fail(Error::System { what, cause: error::cause(&error) });
        }
        for index in 0..self.clients.len() {
            self.settle(index);
        }
        self.outcome.tally = self.books.tally;
        self.outcome
    }

    fn turns(&mut self) -> io::Result<()> {
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(EVENTS_MAX));
        let mut buffer = vec![0; READ_BYTES].into_boxed_slice();
        self.ramp.begin = self.board.clock.now();
        loop {
            let phase = self.board.phase();
            self.watch(phase);
            if phase == Phase::Over {
                return self.look_after_stalled(&poll, &mut events, &mut buffer);
            }
            let wait = match phase {
                Phase::Connecting => self.open_due(&poll),
                Phase::Measuring => self.make_moves().min(self.open_returning(&poll)),
                _ => self.open_returning(&poll),
            };
            match poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let woke = self.board.clock.now();
            let mut ready = 0;
            for event in &events {
                ready += 1;
                let ending = event.is_read_closed() || event.is_error();
                self.serve(event.token().0, ending, &poll, &mut buffer);
            }
            let lag = self.outcome.health.turn(woke, self.board.clock.now(), ready, EVENTS_MAX);
            if let Some(lag) = lag.filter(|_| self.board.returning()) {
                self.outcome.lag_returning.record(lag);
            }
            self.tell(woke);
        }
    }

    /// Watches the thread's health exactly while messages are published.
    fn watch(&mut self, phase: Phase) {
        let measuring = phase == Phase::Measuring;
        match (measuring, self.outcome.health.watching()) {
            (true, false) => self.outcome.health.begin(self.board.clock.now()),
            (false, true) => self.outcome.health.end(self.board.clock.now()),
            _ => {}
        }
    }

    fn tell(&mut self, now: Nanos) {
        let (seat, tally) = (self.seat, &self.books.tally);
        seat.ready.store(self.ready, Relaxed);
        seat.warm.store(self.warm, Relaxed);
        seat.closed.store(self.closed, Relaxed);
        seat.moves.store(self.outcome.moved as u32, Relaxed);
        let connecting = if self.board.measured() { self.shaking } else { 0 };
        seat.returning.store((self.returning.len() + connecting) as u32, Relaxed);
        seat.delivered.store(tally.delivered, Relaxed);
        seat.to_audience.store(tally.to_audience, Relaxed);
        for (seat, fault) in seat.faults.iter().zip([&tally.doubled, &tally.reordered, &tally.stray]) {
            seat.store(fault.count, Relaxed);
        }
        if now - self.surveyed < SURVEY {
            return;
        }
        self.surveyed = now;
        let present = |index: usize| self.clients.get(index).is_some_and(|client| client.life == Life::Present);
        let behind = self.books.behind(self.board, now, present);
        seat.behind.iter().zip(behind).for_each(|(seat, clients)| seat.store(clients, Relaxed));
        seat.tell_cpu(now);
    }

    // ---- connecting

    /// Begins the connections that are due, and says how long to wait for the next.
    fn open_due(&mut self, poll: &Poll) -> Duration {
        let now = self.board.clock.now();
        let due = self.ramp.due(now).min(self.numbers.len() as u64) as usize;
        let opened = self.clients.len();
        for _ in opened..due.min(opened + OPEN_MAX).min(opened + SHAKING_MAX.saturating_sub(self.shaking)) {
            self.clients.push(Client {
                stream: None,
                session: Session::new(&self.board.place(false).words),
                since: now,
                cold: self.board.rooms.per_client(),
                life: Life::Arriving,
                asked: false,
                unheard: false,
                elsewhere: false,
            });
            let index = self.clients.len() - 1;
            if let Err(error) = self.connect(index, poll) {
                self.board.fail(explain(self.number(index), &error));
                return WAIT_MAX;
            }
            self.shaking += 1;
        }
        let opened = self.clients.len();
        if opened == self.numbers.len() || self.shaking >= SHAKING_MAX {
            return WAIT_MAX;
        }
        Duration::from_nanos(self.ramp.time(opened as u64).saturating_sub(now)).min(WAIT_MAX)
    }

    /// Lets those come back whose time it is, and says how long to wait for the next.
    fn open_returning(&mut self, poll: &Poll) -> Duration {
        let now = self.board.clock.now();
        for _ in 0..OPEN_MAX.min(RETURNING_MAX.saturating_sub(self.shaking)) {
            let Some(&Reverse((_, index))) = self.returning.peek().filter(|Reverse((due, _))| *due <= now) else {
                break;
            };
            self.returning.pop();
            self.shaking += 1;
            self.outcome.asked.note(self.board.elapsed(now));
            if let Err(error) = self.connect(index, poll) {
                self.end(index, Ending::Lost(error::cause(&error)));
            }
        }
        match self.returning.peek() {
            Some(Reverse((due, _))) if self.shaking < RETURNING_MAX => {
                Duration::from_nanos(due.saturating_sub(now)).min(WAIT_MAX)
            }
            _ => WAIT_MAX,
        }
    }

    /// Opens a stream for a client that has none.
    fn connect(&mut self, index: usize, poll: &Poll) -> io::Result<()> {
        let server = self.board.place(self.clients[index].elsewhere).server;
        let stream = open(self.board, server, self.number(index), index, poll)?;
        let client = &mut self.clients[index];
        client.stream = Some(stream);
        client.asked = false;
        Ok(())
    }

    // ---- moving

    /// Makes the moves that are due, and says how long to wait for the next.
    fn make_moves(&mut self) -> Duration {
        let Some(motion) = self.motion else { return WAIT_MAX };
        let now = self.board.clock.now();
        let due = motion.due(self.movers.len(), self.board.elapsed(now));
        for _ in self.moves..due.min(self.moves + MOVES_MAX) {
            let index = self.movers[(self.moves % self.movers.len() as u64) as usize];
            self.moves += 1;
            if self.clients[index].life == Life::Present {
                self.outcome.moved += 1;
                self.make_move(index, motion.kind, now);
            }
        }
        // Moves are spread finer than this only when there are many: then there is always the next turn.
        if self.moves < due { Duration::ZERO } else { Duration::from_millis(1) }
    }

    fn make_move(&mut self, index: usize, kind: Kind, now: Nanos) {
        self.outcome.first_move.get_or_insert(self.board.elapsed(now));
        let client = &mut self.clients[index];
        match kind {
            Kind::Stall => {
                client.since = now;
                // It stays registered, for its end alone: what comes before wakes us until the kernel's buffers are full.
                client.life = Life::Stalled;
                self.ready -= 1;
            }
            Kind::Drop => self.leave(index, now),
            Kind::Return => unreachable!("the server decides when these move, so none is ever due"),
            Kind::Join => {
                client.since = now;
                client.unheard = true;
                self.join(index);
                if let Err(ending) = self.send_reply(index) {
                    self.end(index, ending);
                }
            }
        }
    }

    /// The client goes, and will come back.
    fn leave(&mut self, index: usize, now: Nanos) {
        let (board, number) = (self.board, self.number(index));
        let pause = self.motion.map_or(0, |motion| motion.pause(seed::unit(board.plan.seed, number, PAUSE)));
        let client = &mut self.clients[index];
        client.stream = None;
        client.elsewhere = board.plan.then.is_some();
        client.session = Session::new(&board.place(client.elsewhere).words);
        client.life = Life::Returning;
        let since = std::mem::replace(&mut client.since, now);
        self.books.leave(board, Reader { index, number, since }, now);
        self.ready -= 1;
        self.outcome.left.note(board.elapsed(now));
        self.returning.push(Reverse((now + pause, index)));
    }

    /// Asks to enter the client's rooms.
    fn join(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let (board, words) = (self.board, &self.board.place(client.elsewhere).words);
        for room in self.books.rooms(index) {
            if let Some(name) = board.rooms.name(room) {
                client.session.join(words, &name, &mut self.reply);
            }
        }
    }

    /// The server has ended a client that did not read. Without its window a server that closes in order cannot say so,
    /// and is found out in the end; one that resets the stream is seen at once.
    fn end_stalled(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.stream = None;
        self.outcome.ended += 1;
        self.outcome.ended_after.record(self.board.clock.now().saturating_sub(client.since));
    }

    /// Learns which other clients the server has ended although they did not read. The end comes behind what was sent
    /// before, so that is read away, and counts no more. A poll of their own keeps the other clients out of this.
    fn look_after_stalled(&mut self, old: &Poll, events: &mut Events, buffer: &mut [u8]) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut stalled = false;
        for (index, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| client.life == Life::Stalled) {
            let Some(stream) = &mut client.stream else { continue };
            old.registry().deregister(stream)?;
            poll.registry().register(stream, Token(index), Interest::READABLE)?;
            stalled = true;
        }
        let until = self.board.clock.now() + LOOK_MAX;
        while stalled && self.board.clock.now() < until {
            match poll.poll(events, Some(LOOK_QUIET)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            stalled = !events.is_empty();
            for index in events.iter().map(|event| event.token().0) {
                while let Some(stream) = &mut self.clients[index].stream {
                    match stream.read(buffer) {
                        Ok(1..) if self.board.clock.now() < until => {}
                        Ok(1..) => break,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Ok(0) | Err(_) => {
                            self.clients[index].stream = None;
                            self.outcome.ended += 1;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    // ---- reading

    fn serve(&mut self, index: usize, ending: bool, poll: &Poll, buffer: &mut [u8]) {
        if self.clients[index].life == Life::Stalled {
            if ending && self.clients[index].stream.is_some() {
                self.end_stalled(index);
            }
            return;
        }
        match self.exchange(index, ending, buffer) {
            Ok(Next::Stay) => {}
            Ok(Next::Reconnect) => {
                self.clients[index].stream = None;
                if let Err(error) = self.connect(index, poll) {
                    self.end(index, lost(error));
                }
            }
            Err(ending) => self.end(index, ending),
        }
    }

    /// Begins the conversation, or reads everything that is there. Readiness is told once, so nothing may be left: less
    /// than a full buffer means that the stream was empty, unless the end was told together with the last bytes.
    fn exchange(&mut self, index: usize, ending: bool, buffer: &mut [u8]) -> Result<Next, Ending> {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return Ok(Next::Stay) };
        if !client.asked {
            if let Some(error) = stream.take_error().map_err(lost)? {
                return Err(lost(error));
            }
            if stream.peer_addr().is_err() {
                return Ok(Next::Stay);
            }
            client.asked = true;
            client.session.begin(&self.board.place(client.elsewhere).words, &mut self.reply);
            self.send_reply(index)?;
        }
        loop {
            let Some(stream) = &mut self.clients[index].stream else { return Ok(Next::Stay) };
            let read = match stream.read(buffer) {
                Ok(0) => return Err(Ending::Lost("the server hung up".to_owned())),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Stay),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(error)),
            };
            if self.take(index, &buffer[..read])? == Next::Reconnect {
                return Ok(Next::Reconnect);
            }
            if read < buffer.len() && !ending {
                return Ok(Next::Stay);
            }
        }
    }

    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<Next, Ending> {
        let now = self.board.clock.now();
        let number = self.number(index);
        let (board, books) = (self.board, &mut self.books);
        let Client { session, since, cold, unheard, life, elsewhere, .. } = &mut self.clients[index];
        let words = &board.place(*elsewhere).words;
        let before = (session.stage(), *cold);
        // A first message may come together with the word that lets the client in again.
        let reader = Reader { index, number, since: if *life == Life::Returning { now } else { *since } };
        let back = &mut self.outcome.back;
        let mut on_message = |text: &[u8]| match books.take(board, reader, text, now) {
            Heard::Nothing => {}
            Heard::Test => *cold -= 1,
            Heard::Message => {
                if std::mem::take(unheard) {
                    back.record(now.saturating_sub(*since));
                }
            }
        };
        session.receive(words, bytes, &mut self.reply, &mut on_message)?;
        self.warm += u32::from(*cold == 0 && before.1 > 0);
        if session.stage() == Stage::Ready && before.0 != Stage::Ready {
            self.arrive(index, now);
        }
        let next = self.clients[index].session.flush(words, &mut self.reply);
        self.send_reply(index)?;
        Ok(next)
    }

    /// The client has been let in.
    fn arrive(&mut self, index: usize, now: Nanos) {
        self.shaking -= 1;
        self.ready += 1;
        let client = &mut self.clients[index];
        let connected = now.saturating_sub(std::mem::replace(&mut client.since, now));
        match std::mem::replace(&mut client.life, Life::Present) {
            Life::Returning => {
                let elapsed = self.board.elapsed(now);
                self.outcome.back.record(connected);
                self.outcome.returned.note(elapsed);
                self.outcome.last_back = self.outcome.last_back.max(Some(elapsed));
            }
            _ => self.outcome.handshakes.record(connected),
        }
        if self.motion.is_some_and(|motion| motion.joins_late(self.number(index))) {
            self.clients[index].since = NOT_YET;
        } else {
            self.join(index);
        }
    }

    /// Requests and replies fit into an empty send buffer; a server that does not read them is not there.
    fn send_reply(&mut self, index: usize) -> Result<(), Ending> {
        if self.reply.is_empty() {
            return Ok(());
        }
        let stopped = || Ending::Lost("the server stopped reading".to_owned());
        let stream = self.clients[index].stream.as_mut().expect("whoever is spoken to has a stream");
        match stream.write(&self.reply) {
            Ok(written) if written == self.reply.len() => {}
            Ok(_) => return Err(stopped()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(stopped()),
            Err(error) => return Err(lost(error)),
        }
        self.reply.clear();
        Ok(())
    }

    // ---- ending

    fn end(&mut self, index: usize, ending: Ending) {
        self.reply.clear();
        let number = self.number(index);
        let client = &mut self.clients[index];
        client.stream = None;
        if client.life == Life::Returning {
            self.outcome.refused += 1;
            self.shaking -= 1;
            client.session = Session::new(&self.board.place(client.elsewhere).words);
            let (kinds, refusal) = (&mut self.outcome.refused_with, ending.to_string());
            if kinds.len() < REFUSALS_MAX || kinds.contains_key(&refusal) {
                *kinds.entry(refusal).or_default() += 1;
            }
            let now = self.board.clock.now();
            let jitter = seed::unit(self.board.plan.seed, number, self.outcome.refused as u32) * RETRY as f64;
            return self.returning.push(Reverse((now + RETRY + jitter as Nanos, index)));
        }
        if self.board.phase() < Phase::Measuring {
            return self.board.fail({
                let plan = &self.board.plan;
                Error::from_ending(number, ending, &plan.speech, &plan.target.url())
            });
        }
        if client.life == Life::Present && self.motion.is_some_and(|motion| motion.returns(number)) {
            let now = self.board.clock.now();
            self.outcome.first_move.get_or_insert(self.board.elapsed(now));
            self.outcome.moved += 1;
            return self.leave(index, now);
        }
        // An interrupted ramp leaves clients that were never ready.
        if client.life == Life::Present {
            self.ready -= 1;
        }
        client.life = Life::Closed;
        self.closed += 1;
        self.outcome.evicted += u64::from(ending == Ending::SlowClient);
        self.outcome.closed.get_or_insert((number, ending));
    }

    /// After the run: what the client did not receive. Of those that are not back, what they had has been settled.
    fn settle(&mut self, index: usize) {
        let (client, board) = (&self.clients[index], self.board);
        let reader = Reader { index, number: self.number(index), since: client.since };
        match client.life {
            Life::Returning => self.outcome.away += 1,
            Life::Stalled => self.books.leave(board, reader, client.since),
            Life::Arriving | Life::Present | Life::Closed => self.books.settle(board, reader),
        }
    }

    fn number(&self, index: usize) -> u32 {
        self.numbers[index]
    }
}

fn open(board: &Board, server: SocketAddr, number: u32, token: usize, poll: &Poll) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = board.plan.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(address) = board.sources.address(number) {
        kernel::choose_port_on_connect(&socket)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
    }
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let mut stream = TcpStream::from_std(socket.into());
    poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

fn explain(number: u32, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Error::SystemDescriptors { client: number },
        Some(libc::EADDRNOTAVAIL) => Error::TooFewPorts { connections: number + 1, ports: number },
        _ => Error::Connect { client: number, cause: error::cause(error) },
    }
}

fn lost(error: io::Error) -> Ending {
    Ending::Lost(error::cause(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Part, Servers};
    use crate::clock::Clock;
    use crate::plan::tests::plan_of;
    use crate::sources::Sources;
    use crate::speech::Protocol;
    use crate::stamp::Stamp;

    fn board(scenario: &str) -> Board {
        let mut plan = plan_of(scenario);
        plan.speech.protocol = Protocol::Ws;
        let part = Part::whole(plan.connections);
        let servers = Servers { first: ([127, 0, 0, 1], 1).into(), then: ([127, 0, 0, 1], 2).into() };
        Board::new(plan, servers, Sources::Own, 1, Clock::start(), part)
    }

    fn client(board: &Board, life: Life) -> Client {
        let session = Session::new(&board.place(false).words);
        Client { stream: None, session, since: 0, cold: 1, life, asked: true, unheard: false, elsewhere: false }
    }

    /// It dropped at zero. Had it been there since then, it would have to have everything from the beginning.
    #[test]
    fn a_message_together_with_the_word_that_lets_a_client_in_again_begins_its_order() {
        let board = board("rate = 100000\nconnections = 1\n[motion]\nkind = \"drop\"\nshare = 1.0");
        board.measure(5_000_000_000);
        let mut crowd = Crowd::new(&board, 0, vec![0]);
        crowd.clients.push(client(&board, Life::Returning));
        crowd.books.leave(&board, Reader { index: 0, number: 0, since: 0 }, 0);
        crowd.shaking = 1;
        std::thread::sleep(Duration::from_millis(2));
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x64"
            .to_vec();
        Stamp { run: board.part.run, sequence: 100, due: 0 }.put(100, &mut bytes);
        board.sent.store(101, Relaxed);
        assert_eq!(crowd.take(0, &bytes).map_err(|ending| ending.to_string()), Ok(Next::Stay));
        assert_eq!((crowd.clients[0].life, crowd.ready), (Life::Present, 1));
        crowd.settle(0);
        assert_eq!((crowd.books.tally.delivered, crowd.books.tally.lost.count), (1, 0));
    }

    #[test]
    fn who_is_refused_while_coming_back_tries_again_and_is_away_until_it_is_let_in() {
        let board = board("connections = 1\n[motion]\nkind = \"drop\"\nshare = 1.0");
        board.measure(1);
        let mut crowd = Crowd::new(&board, 0, vec![0]);
        crowd.clients.push(client(&board, Life::Returning));
        crowd.shaking = 1;
        crowd.end(0, Ending::Lost("refused".to_owned()));
        assert_eq!((crowd.shaking, crowd.returning.len(), crowd.outcome.refused, crowd.closed), (0, 1, 1, 0));
        assert_eq!(crowd.outcome.refused_with, [("refused".to_owned(), 1)].into());
        crowd.settle(0);
        assert_eq!((crowd.outcome.away, crowd.books.tally.lost.count), (1, 0));
    }

    #[test]
    fn a_connection_has_the_receive_buffer_that_the_scenario_asks_for() {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let (server, poll) = (listener.local_addr().expect("it has one"), Poll::new().expect("there is a poll"));
        let buffer = |scenario: &str| {
            let stream = open(&board(scenario), server, 0, 0, &poll).expect("it connects");
            socket2::SockRef::from(&stream).recv_buffer_size().expect("it has one")
        };
        assert_eq!(buffer("receive_buffer = \"8k\""), 16 << 10, "Linux doubles it for its own needs");
        assert!(buffer("") > 16 << 10);
    }

    #[test]
    fn a_stalled_client_that_was_closed_before_it_stalled_still_misses_what_it_should_have_had() {
        let board = board("rate = 1\nconnections = 1\n[motion]\nkind = \"stall\"\nshare = 1.0\nat = \"5s\"");
        board.measure(1);
        board.sent.store(10, Relaxed);
        let mut crowd = Crowd::new(&board, 0, vec![0]);
        crowd.clients.push(client(&board, Life::Present));
        crowd.ready = 1;
        crowd.end(0, Ending::Lost("gone".to_owned()));
        crowd.settle(0);
        assert_eq!((crowd.ready, crowd.closed, crowd.books.tally.lost.count), (0, 1, 10));
    }

    #[test]
    fn whom_the_server_closes_comes_back_if_that_is_the_motion() {
        let board = board("rate = 0\nconnections = 1\n[motion]\nkind = \"return\"\nshare = 1.0");
        board.measure(1);
        let mut crowd = Crowd::new(&board, 0, vec![0]);
        crowd.clients.push(client(&board, Life::Present));
        crowd.ready = 1;
        crowd.end(0, Ending::EngineClosed);
        assert_eq!((crowd.clients[0].life, crowd.ready, crowd.closed), (Life::Returning, 0, 0));
        let Some(Reverse((due, 0))) = crowd.returning.pop() else { panic!("it will come back") };
        let waits = due - crowd.clients[0].since;
        assert!((500_000_000..=1_500_000_000).contains(&waits), "{waits}");
        crowd.shaking = 1;
        crowd.arrive(0, board.clock.now());
        assert_eq!((crowd.outcome.moved, crowd.outcome.back.samples()), (1, 1));
        assert_eq!((crowd.outcome.left.record().largest, crowd.outcome.returned.record().largest), (1, 1));
    }

    #[test]
    fn a_slow_client_that_reads_is_counted_as_evicted() {
        let board = board("rate = 1\nconnections = 2");
        board.measure(1);
        let mut crowd = Crowd::new(&board, 0, vec![0, 1]);
        (0..2).for_each(|_| crowd.clients.push(client(&board, Life::Present)));
        crowd.ready = 2;
        crowd.end(0, Ending::SlowClient);
        crowd.end(1, Ending::Closed(Some(1008)));
        assert_eq!((crowd.closed, crowd.outcome.evicted), (2, 1));
    }

    #[test]
    fn a_share_that_is_too_small_moves_nobody() {
        let board = board("connections = 9\n[motion]\nkind = \"drop\"\nshare = 0.1");
        board.measure(1);
        let mut crowd = Crowd::new(&board, 0, (0..9).collect());
        assert!(crowd.movers.is_empty());
        crowd.make_moves();
        assert_eq!((crowd.moves, crowd.outcome.moved), (0, 0));
    }

    #[test]
    fn a_client_is_small() {
        assert!(size_of::<Client>() <= 64, "{} bytes", size_of::<Client>());
    }
}
