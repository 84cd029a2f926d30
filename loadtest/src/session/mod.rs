//! Session: one client, from its first byte to its messages; a value that does no I/O.
//!
//! ```text
//!     begin ──▶ bytes                                        over WebSocket, polling, or first one and then the other
//!     bytes ──▶ transport ──▶ hear ──▶ on_message            a transport makes packets of bytes and bytes of packets;
//!     bytes ◀── transport ◀───┘                              what they mean is here, the same for all
//!
//!     websocket   Upgrading ─101▶ Opening ─0{…}▶ Joining ─40{…}▶ Ready
//!     polling                     Opening ─0{…}▶ Joining ─40{…}▶ Ready
//!     upgrade                     Opening ─0{…}▶ Joining ─40{…}▶ Leaving ▶ Upgrading ─101▶ Probing ─3probe▶ Ready
//!     plain       Upgrading ─101▶ Ready
//! ```
//!
//! Bytes go in, replies and messages come out. The owner of the stream calls `begin` when it is open, `receive` with
//! what was read, `join` for each room once `Ready`, then `flush`; and then writes. A session that waits for nothing
//! owns no buffer.

mod ending;
mod polling;
mod websocket;
mod words;

pub use ending::Ending;
pub use words::Words;

use crate::engineio::{self, Packet};
use crate::socketio::{self, Kind};
use crate::speech;
use crate::stamp;
use polling::Polling;
use websocket::WebSocket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The upgrade is asked for.
    Upgrading,
    /// Engine.IO is to open the session.
    Opening,
    /// The namespace is asked for.
    Joining,
    /// Polling is over, as soon as nothing is left to be said or heard there.
    Leaving,
    /// The new WebSocket is tried out.
    Probing,
    Ready,
}

/// What the owner of the stream is to do.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Stay,
    /// Close this stream, open another, and begin there.
    Reconnect,
}

pub struct Session {
    stage: Stage,
    transport: Transport,
}

enum Transport {
    WebSocket(WebSocket),
    Polling(Polling),
}

/// What a transport makes of bytes.
enum Incoming<'a> {
    /// A WebSocket is open.
    Upgraded,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// What is to be said to something that was heard.
type Saying<'w> = Result<Option<&'w str>, Ending>;

impl Session {
    pub fn new(words: &Words) -> Session {
        let (stage, transport) = match words.transport {
            speech::Transport::WebSocket => (Stage::Upgrading, Transport::WebSocket(WebSocket::default())),
            speech::Transport::Polling | speech::Transport::Upgrade => {
                (Stage::Opening, Transport::Polling(Polling::default()))
            }
        };
        Session { stage, transport }
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Appends what is said first on a fresh stream: the session's first, or the one after a [`Next::Reconnect`].
    pub fn begin(&mut self, words: &Words, out: &mut Vec<u8>) {
        match &mut self.transport {
            Transport::WebSocket(_) => words.put_upgrade(None, out),
            Transport::Polling(polling) if self.stage == Stage::Leaving && polling.is_silent() => {
                words.put_upgrade(polling.sid(), out);
                *self = Session { stage: Stage::Upgrading, transport: Transport::WebSocket(WebSocket::default()) };
            }
            Transport::Polling(polling) => {
                polling.begin();
                let next = polling.flush(words, self.stage == Stage::Leaving, out);
                debug_assert_eq!(next, Next::Stay, "something is asked for on a fresh stream");
            }
        }
    }

    /// Takes what was read. Replies are appended to `out`, or wait for [`Session::flush`]; of each message
    /// `on_message` gets the text: of an event `msg` its first string, of a plain WebSocket message what begins with
    /// the first byte that may begin a stamp, because a server may wrap it.
    pub fn receive(
        &mut self,
        words: &Words,
        input: &[u8],
        out: &mut Vec<u8>,
        on_message: &mut impl FnMut(&[u8]),
    ) -> Result<(), Ending> {
        let Session { stage, transport } = self;
        let mut hear = |incoming: Incoming<'_>| hear(stage, words, incoming, on_message);
        match transport {
            Transport::WebSocket(websocket) => websocket.receive(input, out, &mut hear),
            Transport::Polling(polling) => polling.receive(input, &mut hear),
        }
    }

    /// Asks to join a room, once `Ready`. With polling this is best done in the same turn, before `flush`: a later one
    /// waits for the answer of the poll, so for the next message or ping.
    pub fn join(&mut self, words: &Words, room: &str, out: &mut Vec<u8>) {
        self.say(&words.join(room), out);
    }

    /// Publishes a text that needs no escaping, to a room or to everyone.
    pub fn put(&mut self, words: &Words, text: &str, room: Option<&str>, out: &mut Vec<u8>) {
        self.say(&words.publish(text, room), out);
    }

    /// Ends a turn: with polling, what was said becomes a request, and the next poll is asked for.
    pub fn flush(&mut self, words: &Words, out: &mut Vec<u8>) -> Next {
        match &mut self.transport {
            Transport::WebSocket(_) => Next::Stay,
            Transport::Polling(polling) => polling.flush(words, self.stage == Stage::Leaving, out),
        }
    }

    fn say(&mut self, text: &str, out: &mut Vec<u8>) {
        match &mut self.transport {
            Transport::WebSocket(_) => websocket::put(text, out),
            Transport::Polling(polling) => polling.say(text),
        }
    }
}

fn hear<'w>(
    stage: &mut Stage,
    words: &'w Words,
    incoming: Incoming<'_>,
    on_message: &mut impl FnMut(&[u8]),
) -> Saying<'w> {
    use speech::{Protocol, Transport};
    match (words.protocol, incoming) {
        (Protocol::SocketIo, Incoming::Upgraded) if words.transport == Transport::Upgrade => {
            *stage = Stage::Probing;
            Ok(Some("2probe"))
        }
        (Protocol::SocketIo, Incoming::Upgraded) => {
            *stage = Stage::Opening;
            Ok(None)
        }
        (Protocol::SocketIo, Incoming::Text(packet)) => hear_packet(stage, words, packet, on_message),
        // An attachment of a binary event: those are nobody's to count.
        (Protocol::SocketIo, Incoming::Binary(_)) => Ok(None),
        (Protocol::Ws, Incoming::Upgraded) => {
            *stage = Stage::Ready;
            Ok(words.greeting.as_deref())
        }
        (Protocol::Ws, Incoming::Text(message) | Incoming::Binary(message)) => {
            if let Some(at) = message.iter().position(|byte| *byte == stamp::BEGIN) {
                on_message(&message[at..]);
            }
            Ok(None)
        }
    }
}

/// One Engine.IO packet.
fn hear_packet<'w>(
    stage: &mut Stage,
    words: &'w Words,
    packet: &[u8],
    on_message: &mut impl FnMut(&[u8]),
) -> Saying<'w> {
    let packet = engineio::parse(packet).ok_or(Ending::EngineIo)?;
    match (packet, *stage) {
        (Packet::Pong(b"probe"), Stage::Probing) => {
            *stage = Stage::Ready;
            Ok(Some("5"))
        }
        (_, Stage::Probing) => Err(Ending::Probe),
        (Packet::Open(handshake), Stage::Opening) => {
            if words.transport == speech::Transport::Upgrade && !engineio::offers_websocket(handshake) {
                return Err(Ending::NoUpgrade);
            }
            *stage = Stage::Joining;
            Ok(Some(&words.connect))
        }
        (Packet::Open(_), _) => Err(Ending::EngineIo),
        (Packet::Close, _) => Err(Ending::EngineClosed),
        (Packet::Ping, _) => Ok(Some("3")),
        (Packet::Message(message), _) => hear_message(stage, words, message, on_message).map(|()| None),
        (Packet::Pong(_) | Packet::Upgrade | Packet::Noop, _) => Ok(None),
    }
}

/// One Socket.IO packet.
fn hear_message(
    stage: &mut Stage,
    words: &Words,
    message: &[u8],
    on_message: &mut impl FnMut(&[u8]),
) -> Result<(), Ending> {
    let packet = socketio::parse(message).ok_or(Ending::SocketIo)?;
    if packet.namespace != words.namespace.as_bytes() {
        return Ok(());
    }
    match packet.kind {
        Kind::Event => socketio::first_string(b"msg", packet.data).into_iter().for_each(on_message),
        Kind::Connect if *stage == Stage::Joining => {
            let upgrade = words.transport == speech::Transport::Upgrade;
            *stage = if upgrade { Stage::Leaving } else { Stage::Ready };
        }
        Kind::Connect => return Err(Ending::SocketIo),
        Kind::ConnectError => return Err(Ending::NamespaceRefused(refusal(packet.data))),
        Kind::Disconnect => return Err(Ending::Disconnected),
        Kind::Ack | Kind::BinaryEvent | Kind::BinaryAck => {}
    }
    Ok(())
}

/// The message of a CONNECT_ERROR, or its data as they are.
fn refusal(data: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(data).unwrap_or_default();
    let message = json.get("message").and_then(|message| message.as_str()).map(str::to_owned);
    message.unwrap_or_else(|| String::from_utf8_lossy(data).into_owned())
}

/// Lets `take` take what is whole from the front of what was kept and of `input`, and gives what is to be kept now.
fn feed(
    mut kept: Vec<u8>,
    input: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<usize, Ending>,
) -> Result<Vec<u8>, Ending> {
    if kept.is_empty() {
        let taken = take(input)?;
        return Ok(input[taken..].to_vec());
    }
    kept.extend_from_slice(input);
    let taken = take(&kept)?;
    Ok(if taken == kept.len() { Vec::new() } else { kept.split_off(taken) })
}

#[cfg(test)]
mod tests;
