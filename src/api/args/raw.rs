//! Args: raw arguments, passed on without a decode.
//!
//! Invariants: every placeholder in `values` names one of `attachments`, and each of these is named, unless there are
//!             no attachments; then what looks like a placeholder is an object like any other.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeOwned, SeqAccess, Visitor};
use serde::ser::SerializeTupleStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::beside::{self, BESIDE};
use super::placeholders::{mark_used, renumbered};
use super::{DecodeError, decode};

/// All arguments as they came. Taking them costs no decode, and sending them on keeps every byte of their text.
///
/// As a handler's arguments it gets everything; as the last member of a tuple, the rest. Sent, it gives everything
/// back, alone or in the outermost tuple. Deeper inside a value it is a list; in tagged or untagged enums and
/// `#[serde(flatten)]`, where serde keeps no text, it cannot be read.
///
/// ```
/// use fanfare::args::{Args, decode_event, encode_event};
///
/// let (room, all): (String, Args) = decode_event(r#"["publish","lobby",1,{"b":2, "a":1}]"#, &[]).unwrap();
/// assert_eq!((room.as_str(), all.len(), all.get::<u32>(0)), ("lobby", 2, Ok(1)));
/// assert_eq!(encode_event("news", &all).unwrap().data, r#"["news",1,{"b":2, "a":1}]"#);
/// assert_eq!(encode_event("news", &("Ada", all)).unwrap().data, r#"["news","Ada",1,{"b":2, "a":1}]"#);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Args {
    values: Vec<Box<RawValue>>,
    attachments: Vec<Bytes>,
}

impl Args {
    /// How many arguments there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Decodes one argument. A tuple here is an array: nothing spreads.
    pub fn get<T: DeserializeOwned>(&self, position: usize) -> Result<T, DecodeError> {
        let _carried = beside::carry(self.attachments.clone());
        decode::decode_one(self.raw(position), position)
    }

    /// The JSON text of one argument, placeholders and all.
    pub fn raw(&self, position: usize) -> Option<&str> {
        self.values.get(position).map(|value| value.get())
    }

    /// Whether the argument is itself an attachment, and not an object that holds one.
    pub fn is_binary(&self, position: usize) -> bool {
        self.get::<super::Binary>(position).is_ok()
    }

    /// The attachments of these arguments, numbered as in [`Args::raw`].
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Decodes every argument. Binary stays what it is in the text: an object with `_placeholder` and `num`.
    pub fn to_values(&self) -> Result<Vec<serde_json::Value>, DecodeError> {
        (0..self.len()).map(|position| self.get(position)).collect()
    }

    /// Leaves out the attachments of other arguments, such as those that a tuple took before `Args` got the rest.
    fn with_only(mut self, used: &[bool]) -> Self {
        if used.iter().all(|used| *used) {
            return self;
        }
        let new_num = |old: usize| used[..old].iter().filter(|used| **used).count();
        for value in &mut self.values {
            let text = renumbered(value.get(), new_num);
            *value = RawValue::from_string(text).expect("valid JSON with other numbers is valid JSON");
        }
        let mut used = used.iter();
        self.attachments.retain(|_| *used.next().expect("one mark for each attachment"));
        self
    }
}

/// The tuple that `Args` says it is, so that our ends of serde know it. No Rust type can have this name.
pub(super) const REST: &str = "$fanfare::Args";

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _carried = beside::carry(self.attachments.clone());
        let mut rest = serializer.serialize_tuple_struct(REST, self.values.len())?;
        self.values.iter().try_for_each(|value| rest.serialize_field(value))?;
        rest.end()
    }
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// We give as many as there are, and JSON never asks for the length of a tuple.
        const LEN_UNKNOWN: usize = 0;
        deserializer.deserialize_tuple_struct(REST, LEN_UNKNOWN, ArgsVisitor)
    }
}

struct ArgsVisitor;

impl<'de> Visitor<'de> for ArgsVisitor {
    type Value = Args;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of arguments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
        let attachments = BESIDE.with_borrow(|beside| beside.attachments.clone());
        let mut used = vec![false; attachments.len()];
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<Box<RawValue>>()? {
            // Nobody may read these before they are sent on, so this is the last chance to notice.
            if !attachments.is_empty() && !mark_used(&mut used, value.get()) {
                return Err(de::Error::custom("a placeholder names no attachment"));
            }
            values.push(value);
        }
        Ok(Args { values, attachments }.with_only(&used))
    }
}
