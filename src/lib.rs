//! A Socket.IO server for massive fan-out: one event in, a hundred thousand sockets out.

pub mod error;
pub mod proto;
pub mod settings;
#[doc(hidden)]
pub mod shard;
