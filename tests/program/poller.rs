//! Poller: a Socket.IO client that polls, each time over a connection of its own.

use crate::program::Program;
use crate::support::client::{POLLING, place, session_of};
use crate::support::http::Connection;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;

pub struct Poller {
    address: SocketAddr,
    /// Of its requests.
    target: String,
    namespace: &'static str,
    waiting: VecDeque<String>,
    acks: u32,
}

impl Poller {
    pub fn connect(program: &Program) -> Poller {
        Poller::connect_to(program, "/")
    }

    pub fn connect_to(program: &Program, namespace: &'static str) -> Poller {
        let target = session_of(&program.get(POLLING));
        let mut client = Poller { address: program.address, target, namespace, waiting: VecDeque::new(), acks: 0 };
        client.push(&format!("40{}", client.prefix()));
        assert!(client.next().starts_with(&format!("40{}{{\"sid\"", client.prefix())));
        client
    }

    fn prefix(&self) -> String {
        place(self.namespace)
    }

    fn push(&self, packet: &str) {
        let pushed = Connection::open(self.address).post(&self.target, packet);
        assert_eq!(pushed.brief(), (200, "ok"));
    }

    /// The next packet.
    pub fn next(&mut self) -> String {
        while self.waiting.is_empty() {
            let polled = Connection::open(self.address).get(&self.target);
            assert_eq!(polled.status, 200, "{}", polled.body);
            self.waiting.extend(polled.body.split('\x1e').map(str::to_owned));
        }
        self.waiting.pop_front().unwrap()
    }

    /// The next event: its name and arguments.
    pub fn event(&mut self) -> Value {
        let packet = self.next();
        let start = format!("42{}", self.prefix());
        serde_json::from_str(packet.strip_prefix(&start).unwrap_or_else(|| panic!("no event: {packet}"))).unwrap()
    }

    pub fn emit(&self, event: Value) {
        self.push(&format!("42{}{event}", self.prefix()));
    }

    /// Emits, and waits for the answer, which has one argument.
    pub fn ask(&mut self, event: Value) -> Value {
        self.acks += 1;
        self.push(&format!("42{}{}{event}", self.prefix(), self.acks));
        let packet = self.next();
        let start = format!("43{}{}", self.prefix(), self.acks);
        let answer = packet.strip_prefix(&start).unwrap_or_else(|| panic!("no answer: {packet}"));
        serde_json::from_str::<[Value; 1]>(answer).unwrap()[0].clone()
    }
}
