//! Client: a Socket.IO client over WebSocket that shows every packet, and what all tests know of sessions.

use super::Running;
use super::http::{Response, get, post};
use super::websocket::{CLOSE, Peer, TEXT};
use fanfare::proto::Id;
use std::net::SocketAddr;

pub const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
pub const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// The sid in an open packet, which is the first that a session says.
pub fn sid_of(open_packet: &str) -> &str {
    let sid = open_packet.strip_prefix(r#"0{"sid":""#).and_then(|rest| rest.get(..20));
    sid.unwrap_or_else(|| panic!("no open packet: {open_packet}"))
}

/// The target of a polling session's requests, from the answer to its handshake.
pub fn session_of(handshake: &Response) -> String {
    assert_eq!(handshake.status, 200, "{handshake:?}");
    format!("{POLLING}&sid={}", sid_of(&handshake.body))
}

/// The target of a new session whose client polls, is in the main namespace, and knows it.
pub fn connected_session(address: SocketAddr) -> String {
    let target = session_of(&get(address, POLLING));
    assert_eq!(post(address, &target, "40").brief(), (200, "ok"));
    let answer = get(address, &target);
    assert!(answer.body.starts_with(r#"40{"sid":""#), "{answer:?}");
    target
}

/// The worker that a session lives on.
pub fn worker_of(sid: &str) -> usize {
    usize::from(Id::parse(sid).expect("one of ours").shard())
}

/// A client with a session of its own.
pub struct Client {
    pub peer: Peer,
    pub sid: String,
    /// Of its socket in the namespace that it joined last.
    pub id: String,
}

impl Client {
    /// A session that has joined nothing.
    pub fn open(address: SocketAddr) -> Client {
        Client::open_at(address, WEBSOCKET, &[])
    }

    pub fn open_at(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Client {
        let mut peer = Peer::open(address, target, headers);
        let sid = sid_of(&peer.text()).to_owned();
        Client { peer, sid, id: String::new() }
    }

    /// A session whose client is in the main namespace.
    pub fn connect(address: SocketAddr) -> Client {
        Client::connect_to(address, "/")
    }

    /// A session whose client is in this namespace.
    pub fn connect_to(address: SocketAddr, namespace: &str) -> Client {
        let mut client = Client::open(address);
        client.join(namespace);
        client
    }

    /// Joins a namespace, and expects to be let in at once.
    pub fn join(&mut self, namespace: &str) {
        let place = place(namespace);
        self.send(&format!("40{place}"));
        let answer = self.text();
        let id = answer.strip_prefix(&format!(r#"40{place}{{"sid":""#)).and_then(|rest| rest.strip_suffix(r#""}"#));
        self.id = id.unwrap_or_else(|| panic!("not let in: {answer}")).to_owned();
    }

    pub fn send(&mut self, packet: &str) {
        self.peer.send(packet);
    }

    pub fn text(&mut self) -> String {
        self.peer.text()
    }

    pub fn expect(&mut self, packet: &str) {
        assert_eq!(self.text(), packet);
    }

    /// Says something and expects one answer.
    pub fn ask(&mut self, packet: &str, answer: &str) {
        self.send(packet);
        self.expect(answer);
    }

    /// The packets that still come until it is closed in order.
    pub fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            match self.peer.frame() {
                (TEXT, payload) => rest.push(String::from_utf8(payload).expect("text is UTF-8")),
                other => {
                    assert_eq!(other, (CLOSE, Vec::new()));
                    return rest;
                }
            }
        }
    }

    /// The worker that it lives on.
    pub fn worker(&self) -> usize {
        worker_of(&self.sid)
    }
}

/// How packets name a namespace.
pub fn place(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

/// Clients in a namespace, on each of the two workers so many of them, or more.
pub fn clients_on_both_workers(server: &Running, namespace: &str, each: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::connect_to(server.address(), namespace));
        let on_first = clients.iter().filter(|client| client.worker() == 0).count();
        if on_first >= each && clients.len() - on_first >= each {
            return clients;
        }
    }
    panic!("a hundred connections, and one worker got none of them");
}
