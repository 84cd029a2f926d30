//! Client: a small Socket.IO client, written from the protocol and not from the server.
//!
//! It polls or has a WebSocket or moves from one to the other, joins namespaces, emits, answers pings and questions, and
//! tells the oracle every packet that it sees. Some are slow, silent or rude, each in its own way.

use super::super::mail::{Exchange, Reply, Request};
use super::embedder::{NAMESPACES, ROOMS};
use super::network::{Arrival, Network};
use super::oracle::{Oracle, head};
use crate::proto::fuzzing::Random;
use crate::proto::{Id, websocket};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What a client does to its server, beyond what clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Temper {
    /// Reads at once, pongs, and is never closed for a fault.
    Healthy,
    /// Has a small buffer and reads a little at a time.
    Slow,
    /// Stops reading for ever.
    Stalled,
    /// Answers no ping.
    Silent,
    /// Breaks rules and streams.
    Rude,
}

/// All that a client can touch.
pub struct Outside<'w> {
    pub network: &'w mut Network,
    pub oracle: &'w mut Oracle,
    pub random: &'w mut Random,
    pub workers: u16,
    pub quiet: bool,
}

pub struct Client {
    pub temper: Temper,
    link: Option<Link>,
}

enum Out {
    Text(String),
    Binary(Vec<u8>),
}

enum Upgrade {
    None,
    Asked(Exchange, usize),
    /// The probe is under way; `paused`: its answer came, and polling ends.
    Probing {
        paused: bool,
        stream: usize,
    },
}

/// One session as its client sees it.
struct Link {
    /// Known once the open packet came.
    sid: Option<Id>,
    opening: Option<Exchange>,
    poll: Option<Exchange>,
    push: Option<Exchange>,
    /// The WebSocket, once it is the transport.
    stream: Option<usize>,
    /// Something came over it: then the server knows, too.
    heard: bool,
    /// It has sent a close frame.
    closes: bool,
    /// It upgraded without waiting for the answer to its probe, which must then come before everything else.
    probe_owed: bool,
    heard_probe: bool,
    upgrade: Upgrade,
    input: Vec<u8>,
    decoder: websocket::Decoder,
    queue: VecDeque<Out>,
    namespaces: BTreeMap<&'static str, Membership>,
    /// The text of a packet that still owes attachments, and those that came.
    gathering: Option<(String, usize, Vec<Vec<u8>>)>,
    /// The server said goodbye, or the client gave up: nothing is sent any more.
    over: bool,
    stalled: bool,
    last_cast: [u64; 8],
}

#[derive(Default)]
struct Membership {
    asked: bool,
    joined: bool,
    next_event: u64,
}

impl Client {
    pub fn new(temper: Temper) -> Client {
        Client { temper, link: None }
    }

    /// The session, if it is open as far as the client knows.
    pub fn session(&self) -> Option<Id> {
        self.link.as_ref().filter(|link| !link.over).and_then(|link| link.sid)
    }

    /// What it sees, then what it does, then what it sends.
    pub fn step(&mut self, out: &mut Outside<'_>) {
        let Some(link) = &mut self.link else {
            if !out.quiet && out.random.one_in(6) {
                self.link = Some(Link::open(self.temper, out));
            }
            return;
        };
        if let Some(sid) = link.sid {
            let (poll, push, stream, paused) = (link.poll, link.push, link.stream, link.is_paused());
            out.oracle.note(|| format!("{sid} poll {poll:?} push {push:?} stream {stream:?} paused {paused}"));
        }
        link.read(self.temper, out);
        if !link.over && link.sid.is_some() && !out.quiet {
            link.act(self.temper, out);
        }
        if !link.over && link.sid.is_some() {
            link.go_on(self.temper, out);
        }
        let link = self.link.as_ref().expect("just used");
        if link.is_gone(out) {
            self.link = None;
        }
    }
}

impl Link {
    fn open(temper: Temper, out: &mut Outside<'_>) -> Link {
        let worker = out.random.below(out.workers as usize) as u16;
        let mut link = Link {
            sid: None,
            opening: None,
            poll: None,
            push: None,
            stream: None,
            heard: false,
            closes: false,
            probe_owed: false,
            heard_probe: false,
            upgrade: Upgrade::None,
            input: Vec::new(),
            decoder: websocket::Decoder::default(),
            queue: VecDeque::new(),
            namespaces: BTreeMap::new(),
            gathering: None,
            over: false,
            stalled: false,
            last_cast: [0; 8],
        };
        if out.random.one_in(2) {
            link.opening = Some(out.network.open_polling(worker));
        } else {
            let stream = out.network.dial(capacity(temper, out.random));
            out.network.arrivals[worker as usize].push_back(Arrival::WebSocket(stream));
            link.stream = Some(stream);
        }
        link
    }

    /// Nothing of it is left: neither a stream nor a request that could be answered.
    fn is_gone(&self, out: &Outside<'_>) -> bool {
        let ended = |stream: usize| {
            let stream = &out.network.streams[stream];
            stream.reset || (stream.closed && stream.to_client.is_empty())
        };
        match (self.stream, &self.upgrade) {
            _ if !self.over => false,
            (Some(stream), _) => ended(stream),
            (None, Upgrade::Probing { stream, .. }) => ended(*stream),
            (None, _) => true,
        }
    }

    // ---- what it sees

    fn read(&mut self, temper: Temper, out: &mut Outside<'_>) {
        if let Some(exchange) = self.opening
            && let Some(reply) = out.network.take_answer(exchange)
        {
            self.opening = None;
            match reply {
                Reply::Payload(payload) => self.payload(&payload, temper, out),
                _ => self.over = true,
            }
        }
        if let Some(exchange) = self.push
            && let Some(reply) = out.network.take_answer(exchange)
        {
            self.push = None;
            if !matches!(reply, Reply::Done) {
                self.give_up(out);
            }
        }
        if let Some(exchange) = self.poll
            && let Some(reply) = out.network.take_answer(exchange)
        {
            self.poll = None;
            match reply {
                Reply::Payload(payload) => self.payload(&payload, temper, out),
                _ => self.give_up(out),
            }
        }
        if !self.over {
            self.read_upgrade(temper, out);
        }
        if let Some(stream) = self.stream {
            self.read_stream(stream, temper, out);
        }
    }

    fn payload(&mut self, payload: &[u8], temper: Temper, out: &mut Outside<'_>) {
        for packet in std::str::from_utf8(payload).expect("a payload is text").split('\x1e') {
            match packet.strip_prefix('b') {
                Some(base64) => self.binary(BASE64.decode(base64).expect("padded base64"), out),
                None => self.text(packet, temper, out),
            }
        }
    }

    fn read_stream(&mut self, at: usize, temper: Temper, out: &mut Outside<'_>) {
        if self.stalled {
            return;
        }
        let stream = &mut out.network.streams[at];
        let waiting = stream.to_client.len();
        let taken = match temper {
            Temper::Slow => waiting.min(1 + out.random.below(400)),
            _ if out.random.one_in(4) => out.random.below(waiting + 1),
            _ => waiting,
        };
        self.input.extend(stream.to_client.drain(..taken));
        let rules = websocket::Rules { role: websocket::Role::Client, message_bytes_max: 1 << 30, fragments_max: 1 };
        let mut input = std::mem::take(&mut self.input);
        let mut rest = &mut input[..];
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut closed = false;
        while let Some(item) = decoder.decode(&mut rest, &rules).expect("the server's frames are right") {
            assert!(!closed, "nothing follows a close frame");
            self.heard |= !matches!(item, websocket::Item::Close { .. });
            match item {
                websocket::Item::Text(text) => self.text(&text, temper, out),
                websocket::Item::Binary(data) => self.binary(data.into_owned(), out),
                websocket::Item::Pong(data) => assert!(data == b"there?" || temper == Temper::Rude),
                websocket::Item::Ping(_) => unreachable!("the server pings in Engine.IO only"),
                websocket::Item::Close { code, .. } => {
                    match self.sid {
                        // Evicted, which is not in order; whether it may be is asked where the socket leaves.
                        Some(_) if code == Some(1008) => {}
                        // It has said that it wants nothing more.
                        Some(_) if self.closes => {}
                        Some(sid) if self.heard => out.oracle.ended_in_order(sid),
                        // The upgrade was too late: the session polls on, and nobody polls.
                        Some(sid) => out.oracle.blame(sid),
                        None => {}
                    }
                    (self.over, closed) = (true, true);
                    // Our own close frame, and the end.
                    let stream = &mut out.network.streams[at];
                    if !stream.client_finished && !stream.reset {
                        send_frame(stream, 8, &[], out.random);
                        stream.client_finished = temper != Temper::Rude;
                    }
                }
            }
        }
        self.decoder = decoder;
        self.input = rest.to_vec();
        let stream = &mut out.network.streams[at];
        if stream.server_finished && stream.to_client.is_empty() || stream.reset {
            self.over = true;
            stream.client_finished = true;
        }
    }

    fn text(&mut self, packet: &str, temper: Temper, out: &mut Outside<'_>) {
        let (kind, data) = packet.split_at(1);
        if std::mem::take(&mut self.probe_owed) {
            // It only says that the probe arrived. The session may have ended before the upgrade did.
            self.heard = false;
            return assert_eq!(packet, "3probe");
        }
        match kind {
            "0" => {
                let (_, sid) = data.split_once("\"sid\":\"").expect("an open packet has a sid");
                let sid = Id::parse(&sid[..20]).expect("20 characters");
                assert!(self.sid.replace(sid).is_none(), "a session opens once");
                out.oracle.opened(sid, temper != Temper::Healthy);
            }
            "1" => {
                out.oracle.ended_in_order(self.sid.expect("the open packet comes first"));
                self.over = true;
                self.drop_upgrade(out);
            }
            "2" if temper == Temper::Silent => {}
            "2" => self.queue.push_back(Out::Text(format!("3{data}"))),
            "4" => {
                assert!(self.gathering.is_none(), "attachments come before anything else: {packet}");
                match data.strip_prefix('5') {
                    Some(rest) => {
                        let (count, _) = rest.split_once('-').expect("a count");
                        self.gathering = Some((data.into(), count.parse().expect("a number"), Vec::new()));
                    }
                    None => self.packet(data, &[], out),
                }
            }
            "6" => {}
            _ => panic!("no server sends {packet}"),
        }
    }

    fn binary(&mut self, data: Vec<u8>, out: &mut Outside<'_>) {
        let (_, count, attachments) = self.gathering.as_mut().expect("an attachment belongs to a packet");
        attachments.push(data);
        if attachments.len() == *count {
            let (text, _, attachments) = self.gathering.take().expect("just seen");
            self.packet(&text, &attachments, out);
        }
    }

    /// A Socket.IO packet, taken apart with as little code as will do.
    fn packet(&mut self, text: &str, attachments: &[Vec<u8>], out: &mut Outside<'_>) {
        out.oracle.received(self.sid.expect("the open packet comes first"), text, attachments);
        let namespace = NAMESPACES
            .iter()
            .rev()
            .find(|name| text[1..].contains(&format!("{name},")))
            .filter(|_| text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').starts_with('/'));
        let namespace = namespace.copied().unwrap_or("/");
        let member = self.namespaces.entry(namespace).or_default();
        match &text[..1] {
            "0" => member.joined = true,
            "1" | "4" => *member = Membership::default(),
            _ => {}
        }
        if let Some((ids, token)) = text.split_once("[\"question\",")
            && member.joined
            && !out.random.one_in(4)
        {
            let digits = ids.len() - ids.bytes().rev().take_while(u8::is_ascii_digit).count();
            // In the default namespace the packet's type stands right before the ack id.
            let ack_id = if namespace == "/" { &ids[1..] } else { &ids[digits..] };
            let token = token.trim_end_matches(']');
            self.queue.push_back(Out::Text(format!("4{}{ack_id}[{token}]", head("3", namespace))));
        }
        if let Some((_, cast)) = text.split_once("[\"cast\",") {
            let mut numbers = cast.split(',').map(|number| number.parse::<u64>());
            let (Some(Ok(from)), Some(Ok(number))) = (numbers.next(), numbers.next()) else { panic!("{cast}") };
            assert!(number > self.last_cast[from as usize], "one sender's broadcasts keep their order");
            self.last_cast[from as usize] = number;
        }
    }

    // ---- upgrade

    fn read_upgrade(&mut self, temper: Temper, out: &mut Outside<'_>) {
        match self.upgrade {
            Upgrade::None => {}
            Upgrade::Asked(exchange, stream) => match out.network.take_answer(exchange) {
                None => {}
                Some(Reply::Accepted) => {
                    let sid = self.sid.expect("only open sessions upgrade");
                    let impatient = out.random.one_in(6);
                    self.heard_probe = false;
                    let ping = if temper == Temper::Rude && out.random.one_in(2) { "4nonsense" } else { "2probe" };
                    if !impatient {
                        send_text(&mut out.network.streams[stream], ping, out.random);
                    }
                    out.network.arrivals[sid.shard() as usize].push_back(Arrival::Upgrade(stream, sid));
                    self.upgrade = Upgrade::Probing { paused: impatient, stream };
                }
                Some(_) => self.upgrade = Upgrade::None,
            },
            Upgrade::Probing { paused, stream: at } => {
                let stream = &mut out.network.streams[at];
                let ended = stream.server_finished && stream.to_client.is_empty();
                let bytes: Vec<u8> = stream.to_client.iter().copied().collect();
                if bytes.first() == Some(&0x88) || ended {
                    // Refused: polling goes on.
                    stream.to_client.clear();
                    stream.client_finished = true;
                    self.upgrade = Upgrade::None;
                } else if !paused && bytes.len() >= 8 {
                    assert_eq!(&bytes[..8], b"\x81\x063probe");
                    stream.to_client.drain(..8);
                    self.heard_probe = true;
                    self.upgrade = Upgrade::Probing { paused: true, stream: at };
                } else if paused && self.poll.is_none() && self.push.is_none() {
                    if temper != Temper::Healthy && out.random.one_in(20) {
                        stream.reset = true;
                        self.upgrade = Upgrade::None;
                        return;
                    }
                    self.probe_owed = !self.heard_probe && out.random.one_in(2);
                    if self.probe_owed {
                        send_text(stream, "2probe", out.random);
                    }
                    send_text(stream, "5", out.random);
                    self.stream = Some(at);
                    self.upgrade = Upgrade::None;
                }
            }
        }
    }

    fn is_paused(&self) -> bool {
        matches!(self.upgrade, Upgrade::Probing { paused: true, .. })
    }

    fn drop_upgrade(&mut self, out: &mut Outside<'_>) {
        if let Upgrade::Probing { stream, .. } = self.upgrade {
            out.network.streams[stream].client_finished = true;
        }
    }

    // ---- what it does

    fn act(&mut self, temper: Temper, out: &mut Outside<'_>) {
        let namespace = *out.random.pick(&NAMESPACES);
        let joined = self.namespaces.get(namespace).is_some_and(|member| member.joined);
        match out.random.below(24) {
            0..6 => self.connect(namespace),
            6..14 if joined => self.emit(namespace, out.random),
            14 if joined && out.random.one_in(6) => {
                self.namespaces.insert(namespace, Membership::default());
                self.queue.push_back(Out::Text(format!("4{}", head("1", namespace))));
            }
            15 | 16 => self.begin_upgrade(temper, out),
            17 if out.random.one_in(8) => self.leave(out),
            18 if temper == Temper::Rude => self.offend(out),
            19 if temper == Temper::Stalled && out.random.one_in(3) => self.stalled = true,
            20 if self.stream.is_some() && temper != Temper::Stalled => {
                let stream = &mut out.network.streams[self.stream.expect("just looked")];
                send_frame(stream, 9, b"there?", out.random);
            }
            _ => {}
        }
    }

    fn connect(&mut self, namespace: &'static str) {
        let member = self.namespaces.entry(namespace).or_default();
        if !std::mem::replace(&mut member.asked, true) {
            self.queue.push_back(Out::Text(format!("4{}{{\"token\":1}}", head("0", namespace))));
        }
    }

    fn emit(&mut self, namespace: &'static str, random: &mut Random) {
        let member = self.namespaces.get_mut(namespace).expect("it has joined");
        let number = member.next_event;
        member.next_event += 1;
        let room = random.pick(&ROOMS);
        let head = |kind: &str| format!("4{}", head(kind, namespace));
        let text = match random.below(16) {
            0..4 => format!("{}[\"join\",{number},\"{room}\"]", head("2")),
            4 | 5 => format!("{}[\"leave\",{number},\"{room}\"]", head("2")),
            6..9 => format!("{}[\"to\",{number},\"{room}\"]", head("2")),
            9 => format!("{}[\"all\",{number}]", head("2")),
            10 | 11 => format!("{}{}[\"ask\",{number}]", head("2"), random.below(1000)),
            12 | 13 => format!("{}[\"echo\",{number},\"{}\"]", head("2"), "é".repeat(random.below(200))),
            14 => {
                let hole = r#"{"_placeholder":true,"num":0}"#;
                self.queue.push_back(Out::Text(format!("{}[\"echo\",{number},{hole}]", head("51-"))));
                return self.queue.push_back(Out::Binary(random.bytes(300)));
            }
            _ if random.one_in(4) => {
                let how = if random.one_in(2) { "close" } else { "leave" };
                format!("{}[\"kick\",{number},\"{how}\"]", head("2"))
            }
            _ => format!("{}[\"all\",{number}]", head("2")),
        };
        self.queue.push_back(Out::Text(text));
    }

    fn begin_upgrade(&mut self, temper: Temper, out: &mut Outside<'_>) {
        if self.stream.is_some() || !matches!(self.upgrade, Upgrade::None) {
            return;
        }
        let worker = out.random.below(out.workers as usize) as u16;
        let exchange = out.network.request(worker, self.sid.expect("open"), Request::Upgrade);
        let stream = out.network.dial(capacity(temper, out.random));
        self.upgrade = Upgrade::Asked(exchange, stream);
    }

    /// Ends the session, in one of the ways clients do.
    fn leave(&mut self, out: &mut Outside<'_>) {
        out.oracle.blame(self.sid.expect("open"));
        let Some(at) = self.stream else { return self.queue.push_back(Out::Text("1".into())) };
        let stream = &mut out.network.streams[at];
        match out.random.below(4) {
            0 => self.queue.push_back(Out::Text("1".into())),
            1 => {
                self.closes = true;
                send_frame(stream, 8, &[0x03, 0xe8], out.random);
            }
            2 => stream.client_finished = true,
            _ => {
                stream.reset = true;
                stream.to_server.clear();
                stream.to_client.clear();
                self.over = true;
            }
        }
    }

    /// Breaks a rule.
    fn offend(&mut self, out: &mut Outside<'_>) {
        const PACKETS: [&str; 16] = [
            "9",
            "4",
            "49",
            "42",
            "42{}",
            "42[]",
            "42[null]",
            "42[\"connect\"]",
            "42/nowhere,[\"a\"]",
            "40[]",
            "41[]",
            "2",
            "44{}",
            "451-[\"a\",{\"_placeholder\":true,\"num\":3}]",
            "43/b,[]",
            "40{",
        ];
        if out.random.one_in(2) {
            return self.queue.push_back(Out::Text((*out.random.pick(&PACKETS)).into()));
        }
        let sid = self.sid.expect("open");
        let worker = out.random.below(out.workers as usize) as u16;
        let Some(at) = self.stream else {
            let request = match out.random.below(5) {
                0 => Request::Push(Bytes::from(out.random.bytes(40))),
                1 => Request::PushBinary,
                2 => Request::Poll,
                3 => Request::Push(Bytes::new()),
                _ => Request::Other,
            };
            let polls = matches!(request, Request::Poll);
            let exchange = out.network.request(worker, sid, request);
            match self.poll {
                None if polls => self.poll = Some(exchange),
                // Whichever of the two is answered, the client has lost count.
                Some(_) if polls => return self.give_up(out),
                _ => {}
            }
            if out.random.one_in(3) {
                out.network.abandon(sid, self.poll.take().unwrap_or(exchange));
                self.give_up(out);
            }
            return;
        };
        if self.heard && out.random.one_in(3) {
            // A late poll of a session that has a WebSocket.
            out.network.request(worker, sid, Request::Poll);
        }
        let stream = &mut out.network.streams[at];
        match out.random.below(6) {
            // Random bytes behind one that cannot begin a frame: else they might, and swallow what is said later.
            0 => {
                stream.to_server.push_back(0xf0);
                stream.to_server.extend(out.random.bytes(60));
            }
            1 => stream.to_server.extend([0x81, 0x01, b'3']),
            2 => stream.to_server.extend([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]),
            3 => send_frame(stream, 1, &[0xff, 0xfe], out.random),
            4 => send_frame(stream, 2, b"unasked", out.random),
            _ => send_frame(stream, 1, b"", out.random),
        }
    }

    /// The transport failed, as far as the client can tell.
    fn give_up(&mut self, out: &mut Outside<'_>) {
        self.over = true;
        self.drop_upgrade(out);
        (self.poll, self.push) = (None, None);
    }

    // ---- what it sends

    fn go_on(&mut self, temper: Temper, out: &mut Outside<'_>) {
        if let Some(at) = self.stream {
            let stream = &mut out.network.streams[at];
            if !stream.client_finished && !stream.reset {
                for packet in self.queue.drain(..) {
                    match packet {
                        Out::Text(text) => send_text(stream, &text, out.random),
                        Out::Binary(data) => send_frame(stream, 2, &data, out.random),
                    }
                }
            }
            return;
        }
        if self.is_paused() {
            return;
        }
        let sid = self.sid.expect("only an open session goes on");
        let mut worker = || out.random.below(out.workers as usize) as u16;
        if self.push.is_none() && !self.queue.is_empty() {
            let packets = self.queue.drain(..).map(|packet| match packet {
                Out::Text(text) => text,
                Out::Binary(data) => format!("b{}", BASE64.encode(data)),
            });
            let body: Vec<_> = packets.collect();
            self.push = Some(out.network.request(worker(), sid, Request::Push(body.join("\x1e").into())));
        }
        if self.poll.is_none() && !self.stalled && (temper == Temper::Healthy || out.random.one_in(4)) {
            let worker = out.random.below(out.workers as usize) as u16;
            self.poll = Some(out.network.request(worker, sid, Request::Poll));
        }
    }
}

fn capacity(temper: Temper, random: &mut Random) -> usize {
    match temper {
        Temper::Healthy => 30_000 + random.below(30_000),
        _ => 64 + random.below(3_000),
    }
}

fn send_text(stream: &mut super::network::Stream, text: &str, random: &mut Random) {
    send_frame(stream, 1, text.as_bytes(), random);
}

/// A masked frame, or now and then a message in fragments.
fn send_frame(stream: &mut super::network::Stream, opcode: u8, payload: &[u8], random: &mut Random) {
    let cut = if opcode < 8 && random.one_in(6) { random.below(payload.len() + 1) } else { payload.len() };
    let (first, second) = payload.split_at(cut);
    let mut put = |head: u8, part: &[u8], random: &mut Random| {
        let mask = (random.next() as u32).to_be_bytes();
        stream.to_server.push_back(head);
        match part.len() {
            len @ 0..126 => stream.to_server.push_back(0x80 | len as u8),
            len => {
                stream.to_server.push_back(0x80 | 126);
                stream.to_server.extend((len as u16).to_be_bytes());
            }
        }
        stream.to_server.extend(mask);
        stream.to_server.extend(part.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    };
    if second.is_empty() {
        return put(0x80 | opcode, first, random);
    }
    put(opcode, first, random);
    put(0x80, second, random);
}
