//! Ending: why a session cannot go on, one clear phrase each.

use crate::frame;
use crate::http;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The upgrade was answered with this status line.
    UpgradeRefused(String),
    WrongAcceptKey,
    /// So was the first request of polling.
    HandshakeRefused(String),
    /// So was a later poll.
    PollRefused(String),
    /// So was what the client said.
    PostRefused(String),
    /// This status line answers no request.
    Unasked(String),
    NotHttp,
    AnswerTooLong,
    NoUpgrade,
    Probe,
    Frame(frame::Error),
    Fragments,
    EngineIo,
    SocketIo,
    NamespaceRefused(String),
    Disconnected,
    EngineClosed,
    Closed(Option<u16>),
    /// Evicted: the server says that it read too slowly.
    SlowClient,
    /// The stream ended, or failed as told.
    Lost(String),
    /// Seen by another generator, in its words.
    Elsewhere(String),
}

impl Ending {
    /// Whether this is about how the server speaks at all, and not about this client.
    pub fn is_of_the_handshake(&self) -> bool {
        use Ending as E;
        matches!(self, E::UpgradeRefused(_) | E::WrongAcceptKey | E::HandshakeRefused(_) | E::NotHttp | E::NoUpgrade)
    }
}

impl From<http::Error> for Ending {
    fn from(error: http::Error) -> Ending {
        match error {
            http::Error::NotHttp => Ending::NotHttp,
            http::Error::TooLong => Ending::AnswerTooLong,
        }
    }
}

impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ending {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ending, D::Error> {
        String::deserialize(deserializer).map(Ending::Elsewhere)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::UpgradeRefused(line) => write!(out, "the upgrade was answered with '{line}'"),
            Ending::WrongAcceptKey => out.write_str("the upgrade was answered with a wrong Sec-WebSocket-Accept"),
            Ending::HandshakeRefused(line) => write!(out, "the handshake was answered with '{line}'"),
            Ending::PollRefused(line) => write!(out, "a poll was answered with '{line}'"),
            Ending::PostRefused(line) => write!(out, "a POST was answered with '{line}'"),
            Ending::Unasked(line) => write!(out, "the server sent '{line}' and was not asked"),
            Ending::NotHttp => out.write_str("the server did not answer in HTTP"),
            Ending::AnswerTooLong => out.write_str("the server sent an HTTP answer of more than 64 MB"),
            Ending::NoUpgrade => out.write_str("the server offers no upgrade to WebSocket"),
            Ending::Probe => out.write_str("the server did not answer the probe of the upgrade"),
            Ending::Frame(error) => write!(out, "the server sent {error}"),
            Ending::Fragments => out.write_str("the server mixed the fragments of a WebSocket message"),
            Ending::EngineIo => out.write_str("the server sent something that is no Engine.IO 4 packet"),
            Ending::SocketIo => out.write_str("the server sent something that is no Socket.IO 5 packet"),
            Ending::NamespaceRefused(message) => write!(out, "the namespace was refused: {message}"),
            Ending::Disconnected => out.write_str("the server disconnected the socket"),
            Ending::EngineClosed => out.write_str("the server closed the Engine.IO session"),
            Ending::SlowClient => out.write_str("the server evicted it as a slow client"),
            Ending::Closed(Some(code)) => write!(out, "the server closed with code {code}"),
            Ending::Closed(None) => out.write_str("the server closed without a code"),
            Ending::Lost(cause) | Ending::Elsewhere(cause) => out.write_str(cause),
        }
    }
}
