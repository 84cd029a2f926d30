//! A Socket.IO server for massive fan-out: one event in, a hundred thousand sockets out.
//!
//! Stock Socket.IO clients (4.x and 3.x: Socket.IO protocol 5 over Engine.IO protocol 4) connect unchanged, over WebSocket
//! and long-polling. The words are Socket.IO's: namespaces, rooms, acks, middleware.
//!
//! ```
//! use fanfare::{ConnectError, Io, Settings, Socket};
//! use std::time::Duration;
//!
//! let io = Io::with_settings(Settings { ping_interval: Duration::from_secs(20), workers: 1, ..Settings::default() });
//!
//! // Who may come: Socket.IO's `nsp.use`.
//! io.of("/").middleware(|socket: Socket| match socket.handshake().header("authorization") {
//!     Some("Bearer banned") => Err(ConnectError::new("not authorized")),
//!     _ => Ok(()),
//! });
//!
//! // What happens: one handler for all sockets of a namespace …
//! io.of("/").on_event("join", |socket: Socket, room: String| socket.join(room).is_ok()); // answers the ack
//! io.of("/").on_event("say", async |socket: Socket, (room, text): (String, String)| {
//!     _ = socket.to(room).emit("said", &(socket.id(), text));
//! });
//!
//! // … or of one socket, as in `io.on("connection", (socket) => socket.on(…))`.
//! io.on_connection(|socket: Socket| {
//!     socket.on("ping me", |socket: Socket| socket.id().to_owned());
//!     _ = socket.emit("welcome", "to the feed");
//! });
//!
//! let server = io.listen("127.0.0.1:0").unwrap();
//! println!("http://{}", server.address());
//!
//! // From any thread, for example where scores come in:
//! io.to("match-7").emit("goal", &("Ada", 17)).unwrap();
//! server.close();
//! ```
//!
//! # How it works
//!
//! Sockets are sharded over workers, one pinned thread per core. Handlers run on their socket's worker and act at once;
//! from other threads the handles [`Io`] and [`Socket`] post there. A broadcast is encoded once, and its receivers share
//! the bytes. Every backlog is bounded: see [`Settings::outbox_bytes_max`].
//!
//! What an event carries is said in [`args`]; the Engine.IO layer alone is [`engine`]; the codecs without I/O are
//! [`proto`].

// Unsafe code has one place, the worker layer, and each block there its argument.
#[forbid(unsafe_code)]
mod api;
#[cfg(feature = "bench")]
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod bench;
#[forbid(unsafe_code)]
mod error;
#[forbid(unsafe_code)]
pub mod proto;
#[forbid(unsafe_code)]
mod settings;
#[forbid(unsafe_code)]
mod shard;
#[cfg(feature = "standalone")]
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod standalone;
#[deny(unsafe_code)]
mod worker;

pub use api::ack::{Ack, AckError, AckFuture};
pub use api::args::{self, Args, Binary};
pub use api::broadcast::Broadcast;
pub use api::engine;
pub use api::handler::{EndHandler, EventHandler, Middleware, PressureHandler, SocketHandler};
pub use api::io::Io;
pub use api::namespace::{ConnectError, Namespace};
pub use api::server::{Server, StartError};
pub use api::socket::{
    Backlog, Conflated, Conn, Emitted, HandshakeView, JoinError, Pressure, Socket, Volatile, WithTimeout,
};
pub use api::{CountFuture, Counts, DispatchFuture, Dispatched, EmitError, Reload, Rooms, Stats};
pub use error::CloseReason;
pub use ipnet::IpNet;
pub use settings::{
    Cors, FdTables, Feed, Origins, Policy, ProxyProtocol, SendPath, Settings, SettingsError, Transports,
};
pub use worker::http::PeerAddress;
