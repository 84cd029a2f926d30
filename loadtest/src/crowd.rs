//! Crowd: the clients of one thread, and the loop that connects, reads and counts them.
//!
//! ```text
//!     open    the connections that are due, few at a time
//!     wait    until streams are ready, or briefly
//!     read    bytes → session → events → tally; replies are written at once, they are tiny
//!     tell    the board
//! ```
//!
//! A client is a stream, a session and an order: about fifty bytes, and no task. The read buffer is the thread's.
//! Streams and poll live and die in [`Crowd::run`], because the thread's descriptors mean nothing elsewhere; see
//! `kernel::own_table`.
//!
//! Limits: [`OPEN_MAX`] connections begun per turn, [`SHAKING_MAX`] that are begun and not ready.

use crate::board::{Board, Phase, Seat};
use crate::clock::Nanos;
use crate::error::{self, Error};
use crate::health::Health;
use crate::kernel;
use crate::order::Order;
use crate::ramp::Ramp;
use crate::session::{Ending, Session, Stage};
use crate::socketio;
use crate::stamp::{Stamp, WARM_UP};
use crate::tally::Tally;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 256 << 10;
/// Connections begun in one turn at most, so that a fast ramp does not delay those that are being answered.
const OPEN_MAX: u32 = 32;
/// Connections begun and not ready, per thread: a server's accept queue is finite, and overflowing it costs seconds.
const SHAKING_MAX: u32 = 256;
/// How long a turn waits at most: phases change without waking anybody.
const WAIT_MAX: Duration = Duration::from_millis(20);

pub struct Crowd<'a> {
    board: &'a Board,
    seat: &'a Seat,
    /// The numbers of these clients among all.
    numbers: Range<u32>,
    ramp: Ramp,
    clients: Vec<Client>,
    reply: Vec<u8>,
    shaking: u32,
    ready: u32,
    warm: u32,
    closed: u32,
    outcome: Outcome,
}

/// What a crowd knows at the end.
#[derive(Default)]
pub struct Outcome {
    pub tally: Tally,
    pub health: Health,
    /// The first client that was ended while messages were counted.
    pub closed: Option<(u32, Ending)>,
}

struct Client {
    /// `None` once it is closed.
    stream: Option<TcpStream>,
    asked: bool,
    warm: bool,
    session: Session,
    order: Order,
}

impl<'a> Crowd<'a> {
    pub fn new(board: &'a Board, thread: u32, numbers: Range<u32>) -> Crowd<'a> {
        let per_second = board.plan.ramp * numbers.len() as f64 / f64::from(board.plan.connections);
        Crowd {
            board,
            seat: &board.seats[thread as usize],
            clients: Vec::with_capacity(numbers.len()),
            numbers,
            ramp: Ramp { begin: 0, per_second },
            reply: Vec::new(),
            shaking: 0,
            ready: 0,
            warm: 0,
            closed: 0,
            outcome: Outcome::default(),
        }
    }

    /// Runs until the run is over. `gathered` is where all threads meet after each has its own descriptor table.
    pub fn run(mut self, gathered: &Barrier) -> Outcome {
        let own_table = if self.board.seats.len() > 1 { kernel::own_table() } else { Ok(()) };
        gathered.wait();
        if let Err(error) = own_table.and_then(|()| self.turns()) {
            let what = "a thread cannot have descriptors of its own, or poll them";
            self.board.fail(Error::System { what, cause: error::cause(&error) });
        }
        let sent = self.board.sent();
        for (number, client) in self.numbers.clone().zip(&self.clients) {
            self.outcome.tally.settle(number as usize, &client.order, sent);
        }
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
                return Ok(());
            }
            let wait = if phase == Phase::Connecting { self.open_due(&poll) } else { WAIT_MAX };
            match poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let woke = self.board.clock.now();
            let mut ready = 0;
            for event in &events {
                ready += 1;
                let ending = event.is_read_closed() || event.is_error();
                self.serve(event.token().0, ending, &mut buffer);
            }
            self.outcome.health.turn(woke, self.board.clock.now(), ready, EVENTS_MAX);
            self.tell();
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

    fn tell(&self) {
        self.seat.ready.store(self.ready, Relaxed);
        self.seat.warm.store(self.warm, Relaxed);
        self.seat.closed.store(self.closed, Relaxed);
        self.seat.delivered.store(self.outcome.tally.delivered, Relaxed);
    }

    /// Begins the connections that are due, and says how long to wait for the next.
    fn open_due(&mut self, poll: &Poll) -> Duration {
        let now = self.board.clock.now();
        let due = self.ramp.due(now).min(self.numbers.len() as u64) as u32;
        let opened = self.clients.len() as u32;
        for _ in opened..due.min(opened + OPEN_MAX).min(opened + SHAKING_MAX.saturating_sub(self.shaking)) {
            let number = self.numbers.start + self.clients.len() as u32;
            match open(self.board, number, self.clients.len(), poll) {
                Ok(stream) => self.clients.push(Client::new(stream)),
                Err(error) => {
                    self.board.fail(explain(number, &error));
                    return WAIT_MAX;
                }
            }
            self.shaking += 1;
        }
        let opened = self.clients.len();
        if opened == self.numbers.len() || self.shaking >= SHAKING_MAX {
            return WAIT_MAX;
        }
        Duration::from_nanos(self.ramp.time(opened as u64).saturating_sub(now)).min(WAIT_MAX)
    }

    fn serve(&mut self, index: usize, ending: bool, buffer: &mut [u8]) {
        if let Err(ending) = self.exchange(index, ending, buffer) {
            self.end(index, ending);
        }
    }

    /// Asks for the upgrade, or reads everything that is there. Readiness is told once, so nothing may be left: less
    /// than a full buffer means that the stream was empty, unless the end was told together with the last bytes.
    fn exchange(&mut self, index: usize, ending: bool, buffer: &mut [u8]) -> Result<(), Ending> {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return Ok(()) };
        if !client.asked {
            if let Some(error) = stream.take_error().map_err(lost)? {
                return Err(lost(error));
            }
            if stream.peer_addr().is_err() {
                return Ok(());
            }
            client.asked = true;
            write(stream, &self.board.words.request)?;
        }
        loop {
            let Some(stream) = &mut self.clients[index].stream else { return Ok(()) };
            let read = match stream.read(buffer) {
                Ok(0) => return Err(Ending::Lost("the server hung up".to_owned())),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(error)),
            };
            self.take(index, &buffer[..read])?;
            if read < buffer.len() && !ending {
                return Ok(());
            }
        }
    }

    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<(), Ending> {
        let now = self.board.clock.now();
        let client = &mut self.clients[index];
        let number = self.numbers.start as usize + index;
        let stage = client.session.stage();
        let (order, warm, tally, board) = (&mut client.order, &mut client.warm, &mut self.outcome.tally, self.board);
        let warm_before = *warm;
        let mut on_event = |data: &[u8]| count(number, order, warm, data, now, tally, board);
        client.session.receive(&board.words, bytes, &mut self.reply, &mut on_event)?;
        self.warm += u32::from(client.warm && !warm_before);
        if client.session.stage() != stage && client.session.stage() == Stage::Ready {
            self.shaking -= 1;
            self.ready += 1;
        }
        if !self.reply.is_empty() {
            let stream = client.stream.as_mut().expect("it was just read from");
            write(stream, &self.reply)?;
            self.reply.clear();
        }
        Ok(())
    }

    fn end(&mut self, index: usize, ending: Ending) {
        self.reply.clear();
        self.clients[index].stream = None;
        let (number, plan) = (self.numbers.start + index as u32, &self.board.plan);
        if self.board.phase() < Phase::Measuring {
            return self.board.fail(Error::from_ending(number, ending, &plan.target.url(), &plan.namespace));
        }
        // An interrupted ramp leaves clients that were never ready.
        if self.clients[index].session.stage() == Stage::Ready {
            self.ready -= 1;
        }
        self.closed += 1;
        self.outcome.closed.get_or_insert((number, ending));
    }
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        Client { stream: Some(stream), asked: false, warm: false, session: Session::default(), order: Order::default() }
    }
}

/// One event has reached a client. Those of others, and of other runs, pass.
fn count(number: usize, order: &mut Order, warm: &mut bool, data: &[u8], now: Nanos, tally: &mut Tally, board: &Board) {
    let stamp = socketio::first_string(b"msg", data).and_then(Stamp::read).filter(|stamp| stamp.run == board.run);
    match stamp {
        None => {}
        Some(stamp) if stamp.sequence == WARM_UP => *warm = true,
        Some(stamp) => tally.arrive(number, order, stamp, now, &board.ranks),
    }
}

/// Requests and replies fit into an empty send buffer; a server that does not read them is not there.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Ending> {
    match stream.write(bytes) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err(Ending::Lost("the server stopped reading".to_owned())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(Ending::Lost("the server stopped reading".to_owned()))
        }
        Err(error) => Err(lost(error)),
    }
}

fn open(board: &Board, number: u32, token: usize, poll: &Poll) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(board.server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(address) = board.sources.address(number) {
        kernel::choose_port_on_connect(&socket)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
    }
    match socket.connect(&board.server.into()) {
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

    #[test]
    fn a_client_is_small() {
        assert!(size_of::<Client>() <= 64, "{} bytes", size_of::<Client>());
    }
}
