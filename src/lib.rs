//! A Socket.IO server for massive fan-out: one event in, a hundred thousand sockets out.

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
pub use api::handler::{EndHandler, EventHandler, Middleware, SocketHandler};
pub use api::io::Io;
pub use api::namespace::{ConnectError, Namespace};
pub use api::server::{Server, StartError};
pub use api::socket::{Conn, HandshakeView, JoinError, Socket, Volatile, WithTimeout};
pub use api::{CountFuture, EmitError, Rooms, Stats};
pub use error::CloseReason;
pub use settings::{Cors, Origins, Settings, SettingsError, Transports};
pub use worker::http::PeerAddress;
