//! Rules on bytes: the codecs of WebSocket, Engine.IO and Socket.IO, and packets encoded once for everybody.
//!
//! No I/O, no clock, no unsafe code. Every decoder is incremental: any cut of its input gives the same result.
//!
//! ```text
//! bytes → websocket::Decoder → engineio::decode → socketio::decode → an event
//! an event → socketio::event → Prepared → the same bytes for every receiver
//! ```

pub mod engineio;
#[cfg(test)]
pub(crate) mod fuzzing;
pub mod id;
pub mod prepared;
pub mod proxy;
pub mod socketio;
pub mod websocket;

pub use id::Id;
pub use prepared::{Fate, Prepared};
