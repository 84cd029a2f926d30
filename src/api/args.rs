//! Args: how an event's typed arguments become the JSON array and the attachments of a packet, and back.
//!
//! Sits between handlers, who speak Rust types, and the Socket.IO codec, who speaks JSON text and binary parts.
//! The rule, the same in both directions: **a tuple is several arguments, `()` is none, anything else is one.**
//!
//! | Rust                 | wire              | why                                              |
//! |----------------------|-------------------|--------------------------------------------------|
//! | `(1, "two")`         | `["ev",1,"two"]`  | a tuple or tuple struct spreads                  |
//! | `[1, 2]`             | `["ev",1,2]`      | a fixed-size array is a tuple to serde           |
//! | `vec![1, 2]`         | `["ev",[1,2]]`    | one argument, a list                             |
//! | `((1, 2),)`          | `["ev",[1,2]]`    | only the outermost tuple spreads                 |
//! | `Some((1, 2))`       | `["ev",[1,2]]`    | an option is one argument                        |
//! | `Meters(5)`          | `["ev",5]`        | a newtype is what it wraps                       |
//! | `()`                 | `["ev"]`          | none                                             |
//! | `all: Args`          | `["ev",…]`        | everything, as it came                           |
//! | `("room", all)`      | `["ev","room",…]` | inside the outermost tuple it is the rest        |
//!
//! Decoding is as forgiving as JavaScript: extra arguments are ignored, missing ones read as absent.
//!
//! Binary travels beside serde, which knows bytes but not attachments: a thread-local (`beside`) holds the attachments
//! of the call in progress. The road not taken is a deserializer that carries them along. It needs no thread-local, but
//! serde buffers tagged and untagged enums and `flatten` in a type of its own, where our deserializer is no longer
//! asked. An enum with `#[serde(tag = "type")]` is how many people write events, and binary must work in it.
//! A stateless remainder of that road is here all the same (`resolve`), for byte types that are not ours.
//!
//! Invariants: each value is serialised exactly once, so values that can be read only once work;
//!             in an encoded packet with attachments, each placeholder is one that we wrote.
//! Limits:     `ATTACHMENTS_MAX`, which is what current clients accept; 128 levels of nesting (`serde_json`).
//! Not here:   packet type, namespace and ack id (the Socket.IO codec); whether an *incoming* event may be named so.

mod beside;
mod binary;
mod decode;
mod encode;
#[cfg(test)]
mod fuzz;
mod placeholders;
mod raw;
mod resolve;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::binary::Binary;
pub use self::raw::Args;
use crate::proto::socketio::{ATTACHMENTS_MAX, RESERVED_EVENTS};

/// Raw arguments: JSON array text, for an event with its name first, and the attachments its placeholders name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The array.
    pub data: String,
    /// In the order of their placeholders' `num`.
    pub attachments: Vec<Bytes>,
}

/// Encodes an event: `["name",…]`.
///
/// ```
/// use fanfare::args::{Binary, encode_event};
///
/// let goal = encode_event("goal", &("Ada", 17)).unwrap();
/// assert_eq!(goal.data, r#"["goal","Ada",17]"#);
///
/// let photo = encode_event("photo", &("cat.png", Binary::from(vec![1, 2, 3]))).unwrap();
/// assert_eq!(photo.data, r#"["photo","cat.png",{"_placeholder":true,"num":0}]"#);
/// assert_eq!(&photo.attachments[0][..], [1, 2, 3]);
/// ```
pub fn encode_event<T: Serialize + ?Sized>(name: &str, args: &T) -> Result<Encoded, EncodeError> {
    if let Some(reserved) = RESERVED_EVENTS.iter().find(|reserved| **reserved == name) {
        return Err(EncodeError::Reserved(reserved));
    }
    encode::encode(Some(name), args)
}

/// Encodes the answer to an event: `[…]`.
///
/// ```
/// let answer = fanfare::args::encode_ack(&("ok", 3)).unwrap();
/// assert_eq!(answer.data, r#"["ok",3]"#);
/// ```
pub fn encode_ack<T: Serialize + ?Sized>(args: &T) -> Result<Encoded, EncodeError> {
    encode::encode(None, args)
}

/// Decodes the arguments of an event, skipping its name. Empty `data`, which the protocol allows, has no arguments.
///
/// ```
/// use fanfare::args::decode_event;
///
/// let (player, minute): (String, u32) = decode_event(r#"["goal","Ada",17]"#, &[]).unwrap();
/// assert_eq!((player.as_str(), minute), ("Ada", 17));
///
/// // One argument needs no tuple, and whoever sends less than asked sends `None`.
/// let player: String = decode_event(r#"["goal","Ada",17]"#, &[]).unwrap();
/// let (_, _, team): (String, u32, Option<String>) = decode_event(r#"["goal","Ada",17]"#, &[]).unwrap();
/// assert_eq!((player.as_str(), team), ("Ada", None));
/// ```
pub fn decode_event<T: DeserializeOwned>(data: &str, attachments: &[Bytes]) -> Result<T, DecodeError> {
    decode::decode(data, attachments, true)
}

/// Decodes the arguments of an ack. Empty `data`, which the protocol allows, has no arguments.
///
/// ```
/// let (status, count): (String, u32) = fanfare::args::decode_ack(r#"["ok",3]"#, &[]).unwrap();
/// assert_eq!((status.as_str(), count), ("ok", 3));
/// ```
pub fn decode_ack<T: DeserializeOwned>(data: &str, attachments: &[Bytes]) -> Result<T, DecodeError> {
    decode::decode(data, attachments, false)
}

/// Why arguments could not be encoded. The caller must act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The event's name has a meaning of its own to Socket.IO.
    Reserved(&'static str),
    /// More than [`ATTACHMENTS_MAX`] binary values.
    TooManyAttachments {
        /// How many there are.
        count: usize,
    },
    /// An object among the arguments looks like a placeholder. With attachments in the same packet, clients would put
    /// one of them in its place, or close because there is none of that number.
    StrayPlaceholder,
    /// What `serde_json` said, for example of a map whose keys are lists.
    Json(String),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(name) => write!(f, "the event name `{name}` is reserved"),
            Self::TooManyAttachments { count } => {
                write!(f, "{count} binary values in one packet, at most {ATTACHMENTS_MAX} are allowed")
            }
            Self::StrayPlaceholder => f.write_str("an object looks like the placeholder of an attachment"),
            Self::Json(problem) => write!(f, "the arguments do not fit JSON: {problem}"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Why arguments could not be decoded. Positions count from zero and leave out the event's name, as in [`Args::get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON, or nested too deeply.
    Json(String),
    /// JSON, but not an array.
    NotAnArray,
    /// The sender gave fewer arguments, and this one has no absent value.
    Missing {
        /// Which one.
        position: usize,
    },
    /// The argument is there and is something else.
    Argument {
        /// Which one.
        position: usize,
        /// What serde said, cut short.
        problem: String,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(problem) => write!(f, "the arguments are not valid JSON: {problem}"),
            Self::NotAnArray => f.write_str("the arguments are not a JSON array"),
            Self::Missing { position } => write!(f, "argument {position} is missing"),
            Self::Argument { position, problem } => write!(f, "argument {position}: {problem}"),
        }
    }
}

impl std::error::Error for DecodeError {}
