//! Words: what every session of a run says and expects; made once and shared by all.

use super::websocket::KEY;
use crate::options::Publish;
use crate::socketio;
use crate::speech::{Protocol, ROOM, Speech, Transport};
use serde_json::json;

pub struct Words {
    pub(super) protocol: Protocol,
    pub(super) transport: Transport,
    pub(super) namespace: String,
    /// The packet that asks for the namespace.
    pub(super) connect: String,
    /// What a plain WebSocket client says once connected, whatever its rooms.
    pub(super) greeting: Option<String>,
    /// What it says to join a room, with [`ROOM`] for the name.
    subscribe: String,
    /// The event that is published, as JSON; empty where none is.
    event: String,
    /// Path and query; for Socket.IO up to `transport=`.
    address: String,
    /// Behind the address: the version, and the headers of every request.
    head: String,
}

impl Words {
    pub fn new(host: &str, path: &str, speech: &Speech) -> Words {
        let joint = if path.contains('?') { '&' } else { '?' };
        let address = match speech.protocol {
            Protocol::SocketIo => format!("{path}{joint}EIO=4&transport="),
            Protocol::Ws => path.to_owned(),
        };
        let subscribe = speech.subscribe.clone().unwrap_or_default();
        let event = match &speech.publish {
            Publish::Event(name) => json!(name).to_string(),
            Publish::Http | Publish::Message => String::new(),
        };
        Words {
            protocol: speech.protocol,
            transport: speech.transport,
            namespace: speech.namespace.clone(),
            connect: socketio::message('0', &speech.namespace, &speech.auth),
            greeting: speech.subscribe.clone().filter(|text| !text.contains(ROOM)),
            subscribe,
            event,
            address,
            head: format!(" HTTP/1.1\r\nHost: {host}\r\n{}", speech.headers),
        }
    }

    /// What joins a room.
    pub(super) fn join(&self, room: &str) -> String {
        match self.protocol {
            Protocol::SocketIo => socketio::message('2', &self.namespace, &json!(["join", room]).to_string()),
            Protocol::Ws => self.subscribe.replace(ROOM, room),
        }
    }

    /// What publishes a text that needs no escaping. The room comes behind it, so that a server which relays to everyone
    /// need not know of rooms.
    pub(super) fn publish(&self, text: &str, room: Option<&str>) -> String {
        match self.protocol {
            Protocol::SocketIo => {
                let room = room.map(|room| format!(",{}", json!(room))).unwrap_or_default();
                socketio::message('2', &self.namespace, &format!("[{},\"{text}\"{room}]", self.event))
            }
            Protocol::Ws => text.to_owned(),
        }
    }

    /// The request for a WebSocket. A session that was begun with polling tells its id.
    pub(super) fn put_upgrade(&self, sid: Option<&str>, out: &mut Vec<u8>) {
        let transport = if self.protocol == Protocol::SocketIo { "websocket" } else { "" };
        self.put_head("GET", transport, sid, out);
        let rest = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        out.extend_from_slice(rest.as_bytes());
    }

    /// A poll; without an id it asks for a new session.
    pub(super) fn put_poll(&self, sid: Option<&str>, out: &mut Vec<u8>) {
        self.put_head("GET", "polling", sid, out);
        out.extend_from_slice(b"\r\n");
    }

    pub(super) fn put_post(&self, sid: Option<&str>, payload: &[u8], out: &mut Vec<u8>) {
        self.put_head("POST", "polling", sid, out);
        let rest = format!("Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n", payload.len());
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(payload);
    }

    fn put_head(&self, method: &str, transport: &str, sid: Option<&str>, out: &mut Vec<u8>) {
        let (name, sid) = sid.map_or(("", ""), |sid| ("&sid=", sid));
        for part in [method, " ", &self.address, transport, name, sid, &self.head] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}
