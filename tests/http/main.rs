//! The HTTP surface, byte by byte: who is refused and how, the handshake, paths, CORS, polling, deadlines and limits.
//!
//! What is expected here was seen on the wire of the reference, except where a comment says otherwise.

mod cors;
mod handshake;
mod limits;
mod paths;
mod polling;
mod refusals;
#[path = "../support/mod.rs"]
mod support;

use fanfare::proto::Id;
use fanfare::{Args, Settings, Socket};
use std::net::SocketAddr;
use support::client::{POLLING, session_of, sid_of, worker_of};
use support::http::{Connection, Response, get, post};
use support::{Fixture, stats};

type Headers = &'static [(&'static str, &'static str)];

impl Fixture {
    /// A server that echoes the event `echo`.
    fn new(settings: Settings) -> Fixture {
        Fixture::with(settings, |main| {
            main.on_event("echo", |socket: Socket, all: Args| drop(socket.emit("echo", &all)));
        })
    }
}

/// The target of a new polling session's requests.
fn open_session(address: SocketAddr) -> String {
    session_of(&get(address, POLLING))
}

fn assert_open(address: SocketAddr, target: &str) {
    assert_eq!(post(address, target, r#"42["echo","open"]"#).brief(), (200, "ok"), "{target}");
    assert_eq!(get(address, target).brief(), (200, r#"42["echo","open"]"#), "{target}");
}

fn assert_gone(address: SocketAddr, target: &str) {
    assert_eq!(get(address, target).brief(), (400, r#"{"code":1,"message":"Session ID unknown"}"#), "{target}");
}

/// Two connections to each worker. Requests over the two of a pair reach any session in the order in which they are
/// sent, so an answer over one says that the request over the other has arrived.
fn pairs(address: SocketAddr) -> [[Connection; 2]; 2] {
    let mut by_worker = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        let mut connection = Connection::open(address);
        let handshake = connection.get(POLLING);
        by_worker[worker_of(sid_of(&handshake.body))].push(connection);
        if by_worker.iter().all(|connections| connections.len() >= 2) {
            return by_worker.map(|mut connections| [connections.remove(0), connections.remove(0)]);
        }
    }
    panic!("a hundred connections, and one worker got none of them");
}

/// A sid that the server could have given out, but has not.
fn stranger(shard: u16) -> String {
    Id::new(shard, 7, [0xa5; 11]).to_string()
}

const TRANSPORT_UNKNOWN: (u8, &str) = (0, "Transport unknown");
const UNKNOWN_SID: (u8, &str) = (1, "Session ID unknown");
const BAD_METHOD: (u8, &str) = (2, "Bad handshake method");
const BAD_REQUEST: (u8, &str) = (3, "Bad request");
const UNSUPPORTED: (u8, &str) = (5, "Unsupported protocol version");

fn assert_refused(response: &Response, (code, message): (u8, &str), what: &str) {
    let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    assert_eq!(response.brief(), (400, &*body), "{what}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
}

fn assert_upgrade_refused(connection: &mut Connection, response: &Response, message: &str, what: &str) {
    assert_eq!(response.brief(), (400, message), "{what}");
    assert_eq!(response.header("content-type"), Some("text/html"), "{what}");
    assert_eq!(response.header("connection"), Some("close"), "{what}");
    assert_eq!(connection.rest(), b"", "{what}");
}

/// Every refusal is counted.
fn assert_refusals_counted(fixture: &Fixture, refused: usize) {
    assert_eq!(stats(&fixture.io).refused, refused as u64);
}
