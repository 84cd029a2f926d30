//! From errors to the wire: the only tables, side by side.
//!
//! HTTP status and Engine.IO error code of a refused request ([`Refusal`]), the ecosystem's word for how a session or
//! a socket ended ([`CloseReason`]), and the WebSocket close code that goes with it.

use crate::proto::websocket;

/// Why an Engine.IO request is refused (Engine.IO v4, "errors"; reference codes 0–5; 4 is what refuses without breaking a rule).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    TransportUnknown,
    UnknownSid,
    BadHandshakeMethod,
    BadRequest,
    UnsupportedProtocolVersion,
    /// Over the limit on connections, or on sessions. The reference has no such answer; 503 makes clients and proxies
    /// retry.
    TooManyConnections,
    /// Over the limit on connections from one address.
    TooManyFromAddress,
    /// Over the limit on handshakes in a second.
    TooManyHandshakes,
    /// The server is going down and takes nobody in.
    ShuttingDown,
    /// A POST with more than its client may say; its session is closed.
    RateLimited,
}

impl Refusal {
    /// Number, text and HTTP status. Clients show the number and the text.
    pub fn wire(self) -> (u8, &'static str, u16) {
        match self {
            Refusal::TransportUnknown => (0, "Transport unknown", 400),
            Refusal::UnknownSid => (1, "Session ID unknown", 400),
            Refusal::BadHandshakeMethod => (2, "Bad handshake method", 400),
            Refusal::BadRequest => (3, "Bad request", 400),
            Refusal::UnsupportedProtocolVersion => (5, "Unsupported protocol version", 400),
            Refusal::TooManyConnections => (4, "Too many connections", 503),
            Refusal::TooManyFromAddress => (4, "Too many connections from this address", 503),
            Refusal::TooManyHandshakes => (4, "Too many handshakes", 503),
            Refusal::ShuttingDown => (4, "Server is shutting down", 503),
            Refusal::RateLimited => (4, "Rate limit", 429),
        }
    }
}

/// How a session or a socket ended. Not an error: the outcome, and somebody will read it at three in the morning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The stream broke, or the peer broke a rule of the transport.
    TransportError,
    /// The peer closed the stream or said goodbye.
    TransportClose,
    /// The server closed the session: a bad packet, a namespace misused, nothing joined in time, or `conn.close()`.
    ForcedClose,
    /// No pong within `ping_timeout`.
    PingTimeout,
    /// An Engine.IO packet that could not be decoded.
    ParseError,
    /// The session's backlog went over `outbox_bytes_max`.
    SlowClient,
    /// The client said more than `events_per_second_max` or `bytes_per_second_max` let it.
    RateLimited,
    /// The server is closing.
    ServerShuttingDown,
    /// The client left the namespace.
    ClientNamespaceDisconnect,
    /// `socket.disconnect()`, or a handler that panicked.
    ServerNamespaceDisconnect,
}

impl CloseReason {
    pub const ALL: [CloseReason; 10] = [
        CloseReason::TransportError,
        CloseReason::TransportClose,
        CloseReason::ForcedClose,
        CloseReason::PingTimeout,
        CloseReason::ParseError,
        CloseReason::SlowClient,
        CloseReason::RateLimited,
        CloseReason::ServerShuttingDown,
        CloseReason::ClientNamespaceDisconnect,
        CloseReason::ServerNamespaceDisconnect,
    ];

    /// The ecosystem's own string, as `disconnect` handlers know it.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::TransportError => "transport error",
            CloseReason::TransportClose => "transport close",
            CloseReason::ForcedClose => "forced close",
            CloseReason::PingTimeout => "ping timeout",
            CloseReason::ParseError => "parse error",
            CloseReason::SlowClient => "slow client",
            CloseReason::RateLimited => "rate limit",
            CloseReason::ServerShuttingDown => "server shutting down",
            CloseReason::ClientNamespaceDisconnect => "client namespace disconnect",
            CloseReason::ServerNamespaceDisconnect => "server namespace disconnect",
        }
    }

    /// The code of the close frame that ends a session's WebSocket. Only what the reference never does has one: its
    /// orderly close carries none (the client sees 1005).
    pub(crate) fn close_code(self) -> Option<u16> {
        match self {
            CloseReason::RateLimited => Some(1008), // policy violation (RFC 6455, section 7.4.1)
            _ => None,
        }
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The close code of the frame that answers a broken WebSocket rule.
pub fn close_code(error: websocket::Error) -> u16 {
    error.close_code()
}
