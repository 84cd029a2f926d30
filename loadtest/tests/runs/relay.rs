//! A Socket.IO relay of its own, with a fault on order: what a client emits as `pub` goes to everyone as `msg`, except
//! that once in so many deliveries one is dropped, doubled or swapped with the next. Blocking, a thread per client.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Drop,
    Double,
    Swap,
    /// Closes a client instead.
    Hangup,
    /// Refuses every namespace.
    Refuse,
    /// Takes what is published and relays nothing.
    Mute,
    /// Publishes over HTTP too, to the namespace `/` and the room `ticker`, and answers nothing but that; for those
    /// who have the token.
    Api,
    /// The same, and closes the stream after each answer.
    ApiOnce,
    /// The same as Api, and will not take every tenth counted message: it asks to come again, the first time in a second.
    ApiBusy,
    /// The same as Api, and of every eight counted messages relays the newest of each key.
    ApiConflates,
    /// The oldest of each key, which is wrong.
    ApiKeepsOldest,
    /// No fault, and no Socket.IO: who says `join:ticker` gets every other message. Publishes over HTTP too.
    Plain,
}

pub const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub struct Relay {
    fault: Fault,
    /// One fault in so many deliveries of counted messages; what goes back to the publisher is not counted.
    every: u64,
    deliveries: u64,
    clients: Vec<Listener>,
    /// Counted messages that came over HTTP, and those that wait for the eighth, each with its key.
    published: u64,
    held: Vec<(String, String)>,
}

struct Listener {
    peer: SocketAddr,
    stream: TcpStream,
    /// A delivery that is to come after the next.
    held: Option<Vec<u8>>,
}

/// Serves until the test's process ends.
pub fn relay(fault: Fault, every: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let relay = Arc::new(Mutex::new(Relay {
        fault,
        every,
        deliveries: 0,
        clients: Vec::new(),
        published: 0,
        held: Vec::new(),
    }));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let relay = Arc::clone(&relay);
            thread::spawn(move || serve(stream, &relay));
        }
    });
    address
}

pub fn loadtest(address: SocketAddr, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg(format!("http://{address}")).args(flags).output().expect("it was built")
}

impl Relay {
    fn hold(&mut self, key: String, text: String, peer: SocketAddr) {
        match self.held.iter().position(|(held, _)| *held == key) {
            Some(_) if self.fault == Fault::ApiKeepsOldest => {}
            Some(at) => self.held[at].1 = text,
            None => self.held.push((key, text)),
        }
        if self.published.is_multiple_of(8) {
            std::mem::take(&mut self.held).iter().for_each(|(_, text)| self.publish(peer, text));
        }
    }

    fn publish(&mut self, publisher: SocketAddr, text: &str) {
        for client in &mut self.clients {
            let counted = client.peer != publisher && !text.contains(":80000000:");
            self.deliveries += u64::from(counted);
            let faulty = counted && self.deliveries.is_multiple_of(self.every);
            client.deliver(frame(text), if faulty { self.fault } else { Fault::None });
        }
    }
}

impl Listener {
    fn deliver(&mut self, frame: Vec<u8>, fault: Fault) {
        let held = self.held.take();
        let frames = match fault {
            Fault::Drop => vec![],
            Fault::Double => vec![frame.clone(), frame],
            Fault::Swap => {
                self.held = Some(frame);
                vec![]
            }
            Fault::Hangup => return drop(self.stream.shutdown(Shutdown::Both)),
            _ => vec![frame],
        };
        // A client that went away is no matter of the relay's.
        drop(self.stream.write_all(&frames.into_iter().chain(held).flatten().collect::<Vec<u8>>()));
    }
}

fn serve(mut stream: TcpStream, relay: &Mutex<Relay>) -> Option<()> {
    let peer = stream.peer_addr().ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend_from_slice(&read::<1>(&mut stream)?);
    }
    let fault = relay.lock().ok()?.fault;
    use Fault::{Api, ApiBusy, ApiConflates, ApiKeepsOldest, ApiOnce, Plain};
    if head.starts_with(b"POST") && matches!(fault, Api | ApiOnce | ApiBusy | ApiConflates | ApiKeepsOldest | Plain) {
        return publish_api(stream, head, peer, relay);
    }
    if head.starts_with(b"POST") {
        let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(answer.as_bytes()).ok();
    }
    stream.write_all(UPGRADED.as_bytes()).ok()?;
    if fault == Fault::Plain {
        return serve_plain(stream, peer, relay);
    }
    stream.write_all(&frame("0{\"sid\":\"s\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000}")).ok()?;
    loop {
        let text = read_text(&mut stream)?;
        if text == "40" && fault != Fault::Refuse {
            let mut relay = relay.lock().ok()?;
            stream.write_all(&frame("40{\"sid\":\"s\"}")).ok()?;
            relay.clients.push(Listener { peer, stream: stream.try_clone().ok()?, held: None });
        } else if let Some(namespace) = text.strip_prefix("40") {
            stream.write_all(&frame(&format!("44{namespace}{{\"message\":\"Invalid namespace\"}}"))).ok()?;
        } else if let Some(data) = text.strip_prefix("42[\"pub\",").filter(|_| fault != Fault::Mute) {
            relay.lock().ok()?.publish(peer, &format!("42[\"msg\",{data}"));
        }
    }
}

fn serve_plain(mut stream: TcpStream, peer: SocketAddr, relay: &Mutex<Relay>) -> Option<()> {
    loop {
        let text = read_text(&mut stream)?;
        let mut relay = relay.lock().ok()?;
        match text.as_str() {
            "join:ticker" => relay.clients.push(Listener { peer, stream: stream.try_clone().ok()?, held: None }),
            text => relay.publish(peer, text),
        }
    }
}

/// Answers one request after the other, in chunks. The first head is already read.
fn publish_api(mut stream: TcpStream, mut head: Vec<u8>, peer: SocketAddr, relay: &Mutex<Relay>) -> Option<()> {
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            head.extend_from_slice(&read::<1>(&mut stream)?);
        }
        let text = String::from_utf8(std::mem::take(&mut head)).ok()?;
        assert!(text.starts_with("POST /api/publish HTTP/1.1\r\n") && text.contains("\r\nX-Token: t\r\n"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
        let mut body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut body).ok()?;
        let body: serde_json::Value = serde_json::from_slice(&body).expect("the body is JSON");
        assert_eq!((&body["namespace"], &body["rooms"]), (&"/".into(), &serde_json::json!(["ticker"])));
        assert_eq!((&body["event"], body["args"].as_array().map(Vec::len)), (&"msg".into(), Some(1)));
        let mut relay = relay.lock().ok()?;
        let counted = !body["args"][0].as_str().expect("it is a string").contains(":80000000:");
        relay.published += u64::from(counted);
        match relay.fault {
            Fault::ApiBusy if counted && relay.published.is_multiple_of(10) => {
                let wait = u64::from(relay.published == 10);
                write!(stream, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n")
                    .ok()?;
                continue;
            }
            Fault::ApiConflates | Fault::ApiKeepsOldest if counted => {
                let key = body["conflate"].as_str().expect("counted messages have a key").to_owned();
                relay.hold(key, format!("42[\"msg\",{}]", body["args"][0]), peer);
            }
            Fault::Plain => relay.publish(peer, &format!("{{\"text\":{}}}", body["args"][0])),
            _ => relay.publish(peer, &format!("42[\"msg\",{}]", body["args"][0])),
        }
        let answer = format!("{{\"sockets\":{}}}", relay.clients.len());
        let chunk = format!("{:x}\r\n{answer}\r\n0\r\n\r\n", answer.len());
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").ok()?;
        if relay.fault == Fault::ApiOnce {
            return stream.shutdown(Shutdown::Both).ok();
        }
    }
}

pub fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("tests send little");
    let header =
        if length < 126 { vec![0x81, length as u8] } else { [&[0x81, 126], &length.to_be_bytes()[..]].concat() };
    [&header, text.as_bytes()].concat()
}

/// The payload of one masked frame.
pub fn read_text(stream: &mut TcpStream) -> Option<String> {
    let [_, length] = read::<2>(stream)?;
    let length = match length & 0x7f {
        126 => u16::from_be_bytes(read::<2>(stream)?),
        short => u16::from(short),
    };
    let mask = read::<4>(stream)?;
    let mut payload = vec![0; usize::from(length)];
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    String::from_utf8(payload).ok()
}

pub fn read<const N: usize>(stream: &mut TcpStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
