//! A Socket.IO server for massive fan-out: one event in, a hundred thousand sockets out.
#![deny(unsafe_code)]

mod api;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod error;
pub mod proto;
mod settings;
mod shard;
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
