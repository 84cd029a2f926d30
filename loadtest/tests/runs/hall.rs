//! A Socket.IO server with rooms, and with a fault on order. Blocking, a thread per client.
//!
//! ```text
//!     42["join",ROOM]             the client is in ROOM
//!     42["pub",TEXT,ROOM]   ─▶    42["msg",TEXT] to everyone in ROOM
//! ```
//!
//! Limits: a client that does not read for [`PATIENCE`] is closed, so that nobody waits for it any longer.

use crate::relay::{UPGRADED, frame, read, read_text};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Long for a client that reads, even where many programs share a core.
const PATIENCE: Duration = Duration::from_secs(1);
/// Little, so that it does not take much to fill it.
const SEND_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The third message of this room misses one of its clients.
    LosesIn(&'static str),
    /// The third message of this room reaches somebody who is not in it.
    StraysFrom(&'static str),
    /// Whoever joins when messages are already counted misses the third message from then on.
    SkipsLate,
    /// Whoever joins when messages are already counted hears nothing.
    ForgetsLate,
    /// Whoever connects when messages are already counted is sent away.
    RefusesLate,
    /// Resets whoever does not read, instead of closing it in order.
    Resets,
    /// Takes so long for each message.
    Slow(Duration),
}

/// What a test may ask the server when the run is over.
#[derive(Default)]
pub struct Log {
    /// Who joined which room, in the order of time.
    pub joins: Vec<(SocketAddr, String)>,
    /// The rooms of the counted messages, in the order of time.
    pub published: Vec<String>,
    pub connected: usize,
    /// Clients that did not read.
    pub closed: usize,
}

pub struct Hall {
    pub address: SocketAddr,
    pub log: Arc<Mutex<Log>>,
    /// Of everyone who connected.
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Hall {
    /// How many connections there have been.
    pub fn connected(&self) -> usize {
        self.log.lock().expect("nobody panics while holding it").connected
    }

    /// Closes everyone.
    pub fn close(&self) {
        let streams = std::mem::take(&mut *self.streams.lock().expect("nobody panics while holding it"));
        streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

struct State {
    fault: Fault,
    members: Vec<Member>,
    log: Arc<Mutex<Log>>,
}

/// One client in one room.
struct Member {
    peer: SocketAddr,
    room: String,
    stream: TcpStream,
    late: bool,
    /// Counted messages that were meant for it.
    meant: u64,
}

/// Serves until the test's process ends.
pub fn hall(fault: Fault) -> Hall {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let log = Arc::new(Mutex::new(Log::default()));
    let state = Arc::new(Mutex::new(State { fault, members: Vec::new(), log: Arc::clone(&log) }));
    let streams = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    let (accepted, counted) = (Arc::clone(&streams), Arc::clone(&log));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            let clone = stream.try_clone().expect("descriptors are left");
            counted.lock().expect("nobody panics while holding it").connected += 1;
            accepted.lock().expect("nobody panics while holding it").push(clone);
            let accepted = Arc::clone(&accepted);
            thread::spawn(move || {
                let peer = stream.peer_addr();
                serve(stream, &state);
                let gone = |stream: &TcpStream| {
                    stream.peer_addr().map_or(true, |other| peer.as_ref().is_ok_and(|peer| *peer == other))
                };
                accepted.lock().expect("nobody panics while holding it").retain(|stream| !gone(stream));
                let mut state = state.lock().expect("nobody panics while holding it");
                state.members.retain(|member| peer.as_ref().is_ok_and(|peer| *peer != member.peer));
            });
        }
    });
    Hall { address, log, streams }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let peer = stream.peer_addr().ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend_from_slice(&read::<1>(&mut stream)?);
    }
    if state.lock().ok().is_some_and(|state| state.fault == Fault::RefusesLate && state.counting()) {
        return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").ok();
    }
    socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BYTES).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(UPGRADED.as_bytes()).ok()?;
    stream.write_all(&frame("0{\"sid\":\"s\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000}")).ok()?;
    loop {
        let text = read_text(&mut stream)?;
        let mut state = state.lock().ok()?;
        if text == "40" {
            stream.write_all(&frame("40{\"sid\":\"s\"}")).ok()?;
            continue;
        }
        let event: Vec<String> = serde_json::from_str(text.strip_prefix("42")?).expect("an event is strings");
        match &event.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["join", room] => state.join(peer, room, stream.try_clone().ok()?),
            ["pub", data, room] => state.publish(data, room),
            other => panic!("nobody says {other:?}"),
        }
    }
}

impl State {
    /// Whether messages have been published that count.
    fn counting(&self) -> bool {
        !self.log.lock().expect("nobody panics while holding it").published.is_empty()
    }

    fn join(&mut self, peer: SocketAddr, room: &str, stream: TcpStream) {
        let late = self.counting();
        self.members.push(Member { peer, room: room.to_owned(), stream, late, meant: 0 });
        self.log.lock().expect("nobody panics while holding it").joins.push((peer, room.to_owned()));
    }

    fn publish(&mut self, data: &str, room: &str) {
        // A stamp's sequence number: those of test messages have the highest bit.
        let counted = data.as_bytes()[10] < b'8';
        if let Fault::Slow(pause) = self.fault
            && counted
        {
            thread::sleep(pause);
        }
        let frame = frame(&format!("42[\"msg\",\"{data}\"]"));
        let mut log = self.log.lock().expect("nobody panics while holding it");
        let third = counted && log.published.iter().filter(|published| *published == room).count() == 2;
        let mut losing = third && matches!(self.fault, Fault::LosesIn(name) if name == room);
        let mut straying = third && matches!(self.fault, Fault::StraysFrom(name) if name == room);
        self.members.retain_mut(|member| {
            let send = if member.room == room {
                member.meant += u64::from(counted);
                !match self.fault {
                    Fault::SkipsLate => member.late && counted && member.meant == 3,
                    Fault::ForgetsLate => member.late,
                    _ => std::mem::take(&mut losing),
                }
            } else {
                std::mem::take(&mut straying)
            };
            let stays = !send || member.stream.write_all(&frame).is_ok();
            if !stays && self.fault == Fault::Resets {
                let linger = socket2::SockRef::from(&member.stream).set_linger(Some(Duration::ZERO));
                linger.expect("it is open");
            }
            if !stays && member.stream.shutdown(Shutdown::Both).is_ok() {
                log.closed += 1;
            }
            stays
        });
        if counted {
            log.published.push(room.to_owned());
        }
    }
}
