//! Network: streams and HTTP exchanges between the clients and the workers, all in memory.
//!
//! A stream is two byte queues. The one to the client has a capacity, so a client that does not read blocks its server;
//! the bytes come out in pieces of any size. Nothing here draws a random number that the caller did not ask for.

use super::super::arena::Key;
use super::super::mail::{Exchange, Job, Reply, Request, Sent, Wire};
use super::super::session::Conn;
use crate::proto::Id;
use crate::proto::fuzzing::Random;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hasher;

#[derive(Default)]
pub struct Stream {
    pub to_server: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    capacity: usize,
    /// The server was told that the stream is full, and is owed a word when it no longer is.
    pub blocked: bool,
    pub client_finished: bool,
    pub reset: bool,
    /// The server writes nothing more: what is left to read is the end.
    pub server_finished: bool,
    /// The server has forgotten the stream.
    pub closed: bool,
    /// The server was told that the client finished.
    pub hung_up: bool,
    pub conn: Option<(u16, Key<Conn>)>,
}

impl Stream {
    pub fn has_room(&self) -> bool {
        self.to_client.len() < self.capacity
    }
}

/// A client that comes to a worker.
pub enum Arrival {
    Polling(Exchange),
    WebSocket(usize),
    Upgrade(usize, Id),
    Request(Id, Request, Exchange),
    Abandoned(Id, Exchange),
}

pub struct Network {
    pub streams: Vec<Stream>,
    by_conn: HashMap<(u16, Key<Conn>), usize>,
    /// What waits at each worker.
    pub arrivals: Vec<VecDeque<Arrival>>,
    /// Exchanges without an answer, and whether their client still waits.
    waiting: BTreeMap<u64, bool>,
    answered: BTreeMap<u64, Reply>,
    exchanges: u64,
    /// Digest of every byte in both directions, in order.
    pub traffic: DefaultHasher,
}

impl Network {
    pub fn new(workers: u16) -> Network {
        Network {
            streams: Vec::new(),
            by_conn: HashMap::new(),
            arrivals: (0..workers).map(|_| VecDeque::new()).collect(),
            waiting: BTreeMap::new(),
            answered: BTreeMap::new(),
            exchanges: 0,
            traffic: DefaultHasher::new(),
        }
    }

    pub fn dial(&mut self, capacity: usize) -> usize {
        self.streams.push(Stream { capacity, ..Stream::default() });
        self.streams.len() - 1
    }

    pub fn attach(&mut self, stream: usize, shard: u16, conn: Key<Conn>) {
        self.streams[stream].conn = Some((shard, conn));
        assert!(self.by_conn.insert((shard, conn), stream).is_none(), "a key names one conn");
    }

    pub fn stream_of(&self, shard: u16, conn: Key<Conn>) -> usize {
        self.by_conn[&(shard, conn)]
    }

    /// The server closes its end. What the client has not read yet can still be read.
    pub fn close(&mut self, shard: u16, conn: Key<Conn>) {
        let stream = self.by_conn.remove(&(shard, conn)).expect("a conn is closed once");
        self.streams[stream].closed = true;
        self.streams[stream].server_finished = true;
        self.streams[stream].conn = None;
    }

    /// The server closes its end, and what is under way to the client is lost.
    pub fn reset(&mut self, shard: u16, conn: Key<Conn>) {
        let stream = self.stream_of(shard, conn);
        self.close(shard, conn);
        self.streams[stream].to_client.clear();
        self.streams[stream].reset = true;
    }

    /// A request reaches `worker`; the answer is found under the number that is given back.
    pub fn request(&mut self, worker: u16, sid: Id, request: Request) -> Exchange {
        if let Request::Push(body) = &request {
            self.traffic.write(body);
        }
        let exchange = self.exchange(worker);
        self.arrivals[worker as usize].push_back(Arrival::Request(sid, request, exchange));
        exchange
    }

    pub fn open_polling(&mut self, worker: u16) -> Exchange {
        let exchange = self.exchange(worker);
        self.arrivals[worker as usize].push_back(Arrival::Polling(exchange));
        exchange
    }

    fn exchange(&mut self, worker: u16) -> Exchange {
        self.exchanges += 1;
        self.waiting.insert(self.exchanges, true);
        Exchange { worker, number: self.exchanges }
    }

    pub fn abandon(&mut self, sid: Id, exchange: Exchange) {
        if let Some(waits) = self.waiting.get_mut(&exchange.number) {
            *waits = false;
            self.arrivals[exchange.worker as usize].push_back(Arrival::Abandoned(sid, exchange));
        }
        self.answered.remove(&exchange.number);
    }

    pub fn answer(&mut self, worker: u16, exchange: Exchange, reply: Reply) {
        assert_eq!(worker, exchange.worker, "an answer comes out where the request came in");
        let waits = self.waiting.remove(&exchange.number).expect("a request is answered once");
        if let Reply::Payload(payload) = &reply {
            self.traffic.write(payload);
        }
        if waits {
            self.answered.insert(exchange.number, reply);
        }
    }

    pub fn take_answer(&mut self, exchange: Exchange) -> Option<Reply> {
        self.answered.remove(&exchange.number)
    }

    /// How many requests have no answer yet.
    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }
}

/// One worker's sender, for the length of a write.
pub struct Sender<'w> {
    pub network: &'w mut Network,
    pub random: &'w mut Random,
    pub shard: u16,
}

impl Wire for Sender<'_> {
    fn send(&mut self, jobs: &[Job<'_>], sent: &mut Vec<Sent>) {
        for Job { conn, bytes } in jobs {
            assert!(!bytes.is_empty(), "nobody is sent nothing");
            let stream = self.network.stream_of(self.shard, *conn);
            let stream = &mut self.network.streams[stream];
            assert!(!stream.server_finished, "nothing is written after the end");
            if stream.reset {
                sent.push(Sent::Broken);
                continue;
            }
            let room = stream.capacity.saturating_sub(stream.to_client.len());
            let mut taken = room.min(bytes.len());
            // A few bytes always fit into an empty stream as a whole.
            if taken > 16 && self.random.one_in(8) {
                taken = 1 + self.random.below(taken);
            }
            stream.blocked |= taken < bytes.len();
            self.network.traffic.write(&bytes[..taken]);
            stream.to_client.extend(&bytes[..taken]);
            sent.push(if taken == 0 { Sent::Blocked } else { Sent::Bytes(taken) });
        }
    }
}
