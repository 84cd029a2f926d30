//! Session: one Socket.IO client over WebSocket, from the upgrade to its events; a value that does no I/O.
//!
//! ```text
//!     Upgrading ── 101 ──▶ Opening ── 0{…} ──▶ Joining ── 40{…} ──▶ Ready ── 42[…] ──▶ on_event
//!                          (engine)            sends 40             sends 42["join",…]
//! ```
//!
//! Bytes go in, replies and events come out. A frame that is cut stays here until its rest has come; a session that
//! waits for nothing owns no buffer. The key of the upgrade is RFC 6455's own example, the same for everyone, so its
//! answer is known and is checked.
//!
//! Limits: [`frame::PAYLOAD_BYTES_MAX`] for a frame, and for the fragments of one message together.

use crate::engineio;
use crate::frame::{self, Frame, Opcode};
use crate::http;
use crate::socketio::{self, Kind};
use std::fmt;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What every session of a run says and expects; shared by all.
pub struct Words {
    /// The request for the upgrade.
    pub request: Vec<u8>,
    namespace: String,
    connect: Vec<u8>,
    join: Vec<u8>,
}

impl Words {
    pub fn new(host: &str, path: &str, namespace: &str, room: Option<&str>) -> Words {
        let request = format!(
            "GET {path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let text = |text: String| {
            let mut bytes = Vec::new();
            frame::put(Opcode::Text, text.as_bytes(), &mut bytes);
            bytes
        };
        let join = |room: &str| text(socketio::message('2', namespace, &serde_json::json!(["join", room]).to_string()));
        Words {
            request: request.into_bytes(),
            namespace: namespace.to_owned(),
            connect: text(socketio::message('0', namespace, "")),
            join: room.map(join).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Upgrading,
    Opening,
    Joining,
    Ready,
}

#[derive(Default)]
pub struct Session {
    stage: Stage,
    kept: Option<Box<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// The bytes of a frame that is not whole yet.
    bytes: Vec<u8>,
    /// A message that its server sends in fragments, and whether it is text.
    fragments: Option<(Vec<u8>, bool)>,
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The upgrade was answered with this status line.
    Refused(String),
    NotHttp,
    WrongAcceptKey,
    Frame(frame::Error),
    Fragments,
    EngineIo,
    SocketIo,
    NamespaceRefused(String),
    Disconnected,
    EngineClosed,
    Closed(Option<u16>),
    /// The stream ended, or failed as told.
    Lost(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Refused(line) => write!(out, "the upgrade was answered with '{line}'"),
            Ending::NotHttp => out.write_str("the upgrade was not answered in HTTP"),
            Ending::WrongAcceptKey => out.write_str("the upgrade was answered with a wrong Sec-WebSocket-Accept"),
            Ending::Frame(error) => write!(out, "the server sent {error}"),
            Ending::Fragments => out.write_str("the server mixed the fragments of a WebSocket message"),
            Ending::EngineIo => out.write_str("the server sent something that is no Engine.IO 4 packet"),
            Ending::SocketIo => out.write_str("the server sent something that is no Socket.IO 5 packet"),
            Ending::NamespaceRefused(message) => write!(out, "the namespace was refused: {message}"),
            Ending::Disconnected => out.write_str("the server disconnected the socket"),
            Ending::EngineClosed => out.write_str("the server closed the Engine.IO session"),
            Ending::Closed(Some(code)) => write!(out, "the server closed with code {code}"),
            Ending::Closed(None) => out.write_str("the server closed without a code"),
            Ending::Lost(cause) => out.write_str(cause),
        }
    }
}

impl Session {
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes what was read. Replies are appended to `reply`; each event's data goes to `on_event`.
    pub fn receive(
        &mut self,
        words: &Words,
        input: &[u8],
        reply: &mut Vec<u8>,
        on_event: &mut impl FnMut(&[u8]),
    ) -> Result<(), Ending> {
        let mut kept = self.kept.as_mut().map(|kept| std::mem::take(&mut kept.bytes)).unwrap_or_default();
        if kept.is_empty() {
            let taken = self.take(words, input, reply, on_event)?;
            kept.extend_from_slice(&input[taken..]);
        } else {
            kept.extend_from_slice(input);
            let taken = self.take(words, &kept, reply, on_event)?;
            kept.drain(..taken);
        }
        if kept.is_empty() {
            self.kept.take_if(|kept| kept.fragments.is_none());
        } else {
            self.kept.get_or_insert_default().bytes = kept;
        }
        Ok(())
    }

    /// Takes everything whole from the front of `bytes` and says how much that was.
    fn take(
        &mut self,
        words: &Words,
        bytes: &[u8],
        reply: &mut Vec<u8>,
        on_event: &mut impl FnMut(&[u8]),
    ) -> Result<usize, Ending> {
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            let Some((answer, length)) = http::head(bytes).map_err(|_| Ending::NotHttp)? else { return Ok(0) };
            check_upgrade(&answer)?;
            self.stage = Stage::Opening;
            taken = length;
        }
        while let Some((frame, length)) = frame::decode(&bytes[taken..]).map_err(Ending::Frame)? {
            self.take_frame(words, frame, reply, on_event)?;
            taken += length;
        }
        Ok(taken)
    }

    fn take_frame(
        &mut self,
        words: &Words,
        frame: Frame<'_>,
        reply: &mut Vec<u8>,
        on_event: &mut impl FnMut(&[u8]),
    ) -> Result<(), Ending> {
        let open = self.kept.as_mut().and_then(|kept| kept.fragments.take());
        let (open, text) = match (frame.opcode, frame.fin, open) {
            (Opcode::Close, ..) => {
                return Err(Ending::Closed(frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code))));
            }
            (Opcode::Ping, _, open) => {
                frame::put(Opcode::Pong, frame.payload, reply);
                (open, None)
            }
            (Opcode::Pong, _, open) => (open, None),
            (Opcode::Text, true, None) => return self.take_text(words, frame.payload, reply, on_event),
            // An attachment of a binary event: those are nobody's to count.
            (Opcode::Binary, true, None) => (None, None),
            (Opcode::Text, false, None) => (Some((frame.payload.to_vec(), true)), None),
            (Opcode::Binary, false, None) => (Some((Vec::new(), false)), None),
            (Opcode::Continuation, fin, Some((mut bytes, is_text))) => {
                bytes.extend_from_slice(frame.payload);
                match (fin, is_text) {
                    _ if bytes.len() as u64 > frame::PAYLOAD_BYTES_MAX => {
                        return Err(Ending::Frame(frame::Error::TooLong));
                    }
                    (false, _) => (Some((bytes, is_text)), None),
                    (true, true) => (None, Some(bytes)),
                    (true, false) => (None, None),
                }
            }
            (Opcode::Continuation, _, None) | (Opcode::Text | Opcode::Binary, _, Some(_)) => {
                return Err(Ending::Fragments);
            }
        };
        if open.is_some() {
            self.kept.get_or_insert_default().fragments = open;
        }
        text.map_or(Ok(()), |text| self.take_text(words, &text, reply, on_event))
    }

    fn take_text(
        &mut self,
        words: &Words,
        text: &[u8],
        reply: &mut Vec<u8>,
        on_event: &mut impl FnMut(&[u8]),
    ) -> Result<(), Ending> {
        match engineio::parse(text).ok_or(Ending::EngineIo)? {
            engineio::Packet::Message(message) => return self.take_message(words, message, reply, on_event),
            engineio::Packet::Open if self.stage == Stage::Opening => {
                reply.extend_from_slice(&words.connect);
                self.stage = Stage::Joining;
            }
            engineio::Packet::Open => return Err(Ending::EngineIo),
            engineio::Packet::Close => return Err(Ending::EngineClosed),
            engineio::Packet::Ping => frame::put(Opcode::Text, b"3", reply),
            engineio::Packet::Pong | engineio::Packet::Upgrade | engineio::Packet::Noop => {}
        }
        Ok(())
    }

    fn take_message(
        &mut self,
        words: &Words,
        message: &[u8],
        reply: &mut Vec<u8>,
        on_event: &mut impl FnMut(&[u8]),
    ) -> Result<(), Ending> {
        let packet = socketio::parse(message).ok_or(Ending::SocketIo)?;
        if packet.namespace != words.namespace.as_bytes() {
            return Ok(());
        }
        match packet.kind {
            Kind::Event => on_event(packet.data),
            Kind::Connect if self.stage == Stage::Joining => {
                reply.extend_from_slice(&words.join);
                self.stage = Stage::Ready;
            }
            Kind::Connect => return Err(Ending::SocketIo),
            Kind::ConnectError => return Err(Ending::NamespaceRefused(refusal(packet.data))),
            Kind::Disconnect => return Err(Ending::Disconnected),
            Kind::Ack | Kind::BinaryEvent | Kind::BinaryAck => {}
        }
        Ok(())
    }
}

fn check_upgrade(answer: &http::Answer) -> Result<(), Ending> {
    match answer.header("sec-websocket-accept") {
        _ if answer.status != 101 => Err(Ending::Refused(answer.line.clone())),
        Some(ACCEPT) => Ok(()),
        _ => Err(Ending::WrongAcceptKey),
    }
}

/// The message of a CONNECT_ERROR, or its data as they are.
fn refusal(data: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(data).unwrap_or_default();
    let message = json.get("message").and_then(|message| message.as_str()).map(str::to_owned);
    message.unwrap_or_else(|| String::from_utf8_lossy(data).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nSEC-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    fn words() -> Words {
        Words::new("127.0.0.1:3000", "/socket.io/", "/x", Some("news"))
    }

    fn server(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let frame = |&(first, payload): &(u8, &[u8])| [&[first, payload.len() as u8], payload].concat();
        [HEAD.as_bytes().to_vec(), frames.iter().flat_map(frame).collect()].concat()
    }

    fn client(frames: &[(Opcode, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(opcode, payload)| frame::put(*opcode, payload, &mut bytes));
        bytes
    }

    /// What a session answers and hears when it is fed these pieces.
    fn feed(pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>, Result<Stage, Ending>) {
        let (mut session, words, mut reply, mut events) = (Session::default(), words(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut on_event = |data: &[u8]| events.push(String::from_utf8_lossy(data).into_owned());
            if let Err(ending) = session.receive(&words, piece, &mut reply, &mut on_event) {
                return (reply, events, Err(ending));
            }
        }
        assert!(session.kept.is_none(), "everything was whole");
        (reply, events, Ok(session.stage))
    }

    const CONVERSATION: &[(u8, &[u8])] = &[
        (0x81, b"0{\"sid\":\"a\",\"upgrades\":[]}"),
        (0x81, b"40/x,{\"sid\":\"b\"}"),
        (0x81, b"2"),
        (0x81, b"42/x,[\"msg\",\"one\"]"),
        (0x81, b"42[\"msg\",\"of another namespace\"]"),
        (0x01, b"42/x,[\"ms"),
        (0x89, b"hi"),
        (0x00, b"g\",\"tw"),
        (0x80, b"o\"]"),
        (0x81, b"451-/x,[\"msg\",{}]"),
        (0x82, b"\x00\x01"),
        (0x81, b"6"),
    ];

    #[test]
    fn a_conversation_cut_in_two_anywhere_is_the_same() {
        let bytes = server(CONVERSATION);
        let replies = client(&[
            (Opcode::Text, b"40/x,"),
            (Opcode::Text, b"42/x,[\"join\",\"news\"]"),
            (Opcode::Text, b"3"),
            (Opcode::Pong, b"hi"),
        ]);
        let events = vec!["[\"msg\",\"one\"]".to_owned(), "[\"msg\",\"two\"]".to_owned()];
        for cut in 0..=bytes.len() {
            let heard = feed(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(heard, (replies.clone(), events.clone(), Ok(Stage::Ready)), "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(feed(&single), (replies, events, Ok(Stage::Ready)), "byte by byte");
    }

    #[test]
    fn every_ending_has_its_reason() {
        let open: (u8, &[u8]) = (0x81, b"0{}");
        let joined: (u8, &[u8]) = (0x81, b"40/x,{}");
        let refused = Ending::NamespaceRefused("Invalid namespace".to_owned());
        type Row<'a> = (&'a [(u8, &'a [u8])], Ending);
        let table: [Row<'_>; 11] = [
            (&[open, (0x81, b"44/x,{\"message\":\"Invalid namespace\"}")], refused),
            (&[open, (0x81, b"44/x,\"odd\"")], Ending::NamespaceRefused("\"odd\"".to_owned())),
            (&[open, open], Ending::EngineIo),
            (&[open, joined, joined], Ending::SocketIo),
            (&[open, joined, (0x81, b"41/x,")], Ending::Disconnected),
            (&[open, (0x81, b"1")], Ending::EngineClosed),
            (&[open, (0x88, b"\x03\xe9")], Ending::Closed(Some(1001))),
            (&[open, (0x88, b"")], Ending::Closed(None)),
            (&[(0x81, b"")], Ending::EngineIo),
            (&[(0x80, b"x")], Ending::Fragments),
            (&[(0x01, b"x"), (0x81, b"x")], Ending::Fragments),
        ];
        for (frames, ending) in table {
            assert_eq!(feed(&[&server(frames)]).2, Err(ending), "{frames:?}");
        }
    }

    #[test]
    fn an_upgrade_must_be_answered_properly() {
        let refused = Ending::Refused("HTTP/1.1 400 Bad Request".to_owned());
        assert_eq!(feed(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]).2, Err(refused));
        let wrong = HEAD.replace("s3p", "S3P");
        assert_eq!(feed(&[wrong.as_bytes()]).2, Err(Ending::WrongAcceptKey));
        assert_eq!(feed(&[b"220 smtp ready\r\n"]).2, Err(Ending::NotHttp));
    }

    #[test]
    fn a_waiting_session_is_small() {
        assert!(size_of::<Session>() <= 16);
    }
}
