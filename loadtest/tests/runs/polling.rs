//! A Socket.IO relay that speaks polling and lets its clients upgrade. Blocking, a thread per stream.
//!
//! It sends each client that joins `ticker` a ping, and relays only to those that have answered it.

use crate::relay::{UPGRADED, frame, read, read_text};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

#[derive(Default)]
struct Relay {
    sessions: Mutex<Vec<Session>>,
    told: Condvar,
    /// Whether each poll is the last on its stream.
    closing: bool,
}

#[derive(Default)]
struct Session {
    /// What waits for a poll, or for the end of an upgrade.
    packets: Vec<String>,
    stream: Option<TcpStream>,
    alive: bool,
}

/// Serves until the test's process ends.
pub fn polling(closing: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let relay = Arc::new(Relay { closing, ..Relay::default() });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let relay = Arc::clone(&relay);
            thread::spawn(move || relay.serve(stream));
        }
    });
    address
}

impl Relay {
    /// Answers one request after the other, until a stream becomes a WebSocket, or ends.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend_from_slice(&read::<1>(&mut stream)?);
            }
            let head = String::from_utf8(head).ok()?;
            let number = head.split_once("&sid=s").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            if head.contains("transport=websocket") {
                return self.serve_websocket(stream, number);
            }
            let post = head.starts_with("POST");
            let body = match number {
                None => self.open("[\"websocket\"]").1,
                Some(number) if post => {
                    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
                    let mut payload = vec![0; length.parse().ok()?];
                    stream.read_exact(&mut payload).ok()?;
                    let payload = String::from_utf8(payload).ok()?;
                    payload.split('\u{1e}').for_each(|packet| self.hear(number, packet));
                    "ok".to_owned()
                }
                Some(number) => self.packets(number).join("\u{1e}"),
            };
            let connection = if self.closing && !post { "close" } else { "keep-alive" };
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).ok()?;
            if connection == "close" {
                return None;
            }
        }
    }

    fn serve_websocket(&self, mut stream: TcpStream, number: Option<usize>) -> Option<()> {
        stream.write_all(UPGRADED.as_bytes()).ok()?;
        let number = match number {
            Some(number) => {
                assert_eq!(read_text(&mut stream)?, "2probe");
                stream.write_all(&frame("3probe")).ok()?;
                assert_eq!(read_text(&mut stream)?, "5");
                number
            }
            None => {
                let (number, handshake) = self.open("[]");
                stream.write_all(&frame(&handshake)).ok()?;
                number
            }
        };
        let mut sessions = self.sessions.lock().ok()?;
        sessions[number].stream = Some(stream.try_clone().ok()?);
        let packets = std::mem::take(&mut sessions[number].packets);
        packets.into_iter().for_each(|packet| sessions[number].tell(packet));
        drop(sessions);
        loop {
            self.hear(number, &read_text(&mut stream)?);
        }
    }

    /// A new session's number and handshake.
    fn open(&self, upgrades: &str) -> (usize, String) {
        let mut sessions = self.sessions.lock().expect("nobody panics while holding it");
        sessions.push(Session::default());
        let number = sessions.len() - 1;
        let sid = format!("\"s{number}\"");
        (number, format!("0{{\"sid\":{sid},\"upgrades\":{upgrades},\"pingInterval\":25000,\"pingTimeout\":20000}}"))
    }

    /// Waits until there is something for a poll.
    fn packets(&self, number: usize) -> Vec<String> {
        let sessions = self.sessions.lock().expect("nobody panics while holding it");
        let empty = |sessions: &mut Vec<Session>| sessions[number].packets.is_empty();
        let mut sessions = self.told.wait_while(sessions, empty).expect("nobody panics while holding it");
        std::mem::take(&mut sessions[number].packets)
    }

    fn hear(&self, number: usize, packet: &str) {
        let mut sessions = self.sessions.lock().expect("nobody panics while holding it");
        match packet {
            "40" => sessions[number].tell("40{\"sid\":\"x\"}".to_owned()),
            "42[\"join\",\"ticker\"]" => sessions[number].tell("2".to_owned()),
            "3" => sessions[number].alive = true,
            _ => {
                let data = packet.strip_prefix("42[\"pub\",").expect("a client says nothing else");
                let alive = sessions.iter_mut().filter(|session| session.alive);
                alive.for_each(|session| session.tell(format!("42[\"msg\",{data}")));
            }
        }
        self.told.notify_all();
    }
}

impl Session {
    fn tell(&mut self, packet: String) {
        match &mut self.stream {
            // A client that went away is no matter of the relay's.
            Some(stream) => drop(stream.write_all(&frame(&packet))),
            None => self.packets.push(packet),
        }
    }
}
