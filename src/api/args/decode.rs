//! Decoding: a deserializer for the outermost level of the arguments, in front of `serde_json`'s for all below.
//!
//! Limits: `PROBLEM_CHARS_MAX` of an error's text, which quotes the peer; 128 levels of nesting (`serde_json`).

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::value::SeqDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::DecodeError;
use super::beside;
use super::raw::REST;
use super::resolve::Resolve;

/// Characters of `serde_json`'s words that a `DecodeError` keeps.
pub(super) const PROBLEM_CHARS_MAX: usize = 200;

/// Decodes all arguments. If they are `named`, the first element is the event's name, and skipped.
pub(super) fn decode<T: DeserializeOwned>(data: &str, attachments: &[Bytes], named: bool) -> Result<T, DecodeError> {
    let data = if data.is_empty() { "[]" } else { data };
    let _carried = beside::carry(attachments.to_vec());
    let mut progress = Progress::default();
    let mut json = serde_json::Deserializer::from_str(data);
    json.deserialize_seq(AllVisitor { named, progress: &mut progress, kind: PhantomData })
        .and_then(|args| json.end().map(|()| args))
        .map_err(|error| progress.explain(&error))
}

/// Decodes the argument at this position from its own text, or from its absence.
pub(super) fn decode_one<T: DeserializeOwned>(text: Option<&str>, position: usize) -> Result<T, DecodeError> {
    let mut progress = Progress { array: true, next: position, missing: false };
    let decoded = match text {
        Some(text) => {
            progress.next += 1;
            T::deserialize(Resolve(&mut serde_json::Deserializer::from_str(text)))
        }
        None => {
            let seq = SeqDeserializer::<_, serde_json::Error>::new(std::iter::empty::<()>());
            T::deserialize(Argument { from: &mut Incoming { seq, progress: &mut progress }, spread: false })
        }
    };
    decoded.map_err(|error| progress.explain(&error))
}

/// How far decoding came. An error of serde has no room for this.
#[derive(Default)]
struct Progress {
    array: bool,
    next: usize,
    missing: bool,
}

impl Progress {
    fn explain(&self, error: &serde_json::Error) -> DecodeError {
        let position = self.next.saturating_sub(1);
        match error.classify() {
            serde_json::error::Category::Data if !self.array => DecodeError::NotAnArray,
            serde_json::error::Category::Data if self.missing => DecodeError::Missing { position },
            serde_json::error::Category::Data => DecodeError::Argument { position, problem: brief(error) },
            _ => DecodeError::Json(brief(error)),
        }
    }
}

/// serde quotes what it did not expect, and a peer decides how long that is.
fn brief(error: &serde_json::Error) -> String {
    let problem = error.to_string();
    match problem.char_indices().nth(PROBLEM_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &problem[..end]),
        None => problem,
    }
}

struct AllVisitor<'p, T> {
    named: bool,
    progress: &'p mut Progress,
    kind: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AllVisitor<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of arguments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        self.progress.array = true;
        if self.named {
            seq.next_element::<IgnoredAny>()?;
        }
        let mut incoming = Incoming { seq, progress: self.progress };
        let args = T::deserialize(Argument { from: &mut incoming, spread: true })?;
        while incoming.seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(args)
    }
}

/// The arguments not yet taken. Read to its end, it is the rest that `Args` wants.
struct Incoming<'p, A> {
    seq: A,
    progress: &'p mut Progress,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Incoming<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.progress.next += 1;
        self.seq.next_element_seed(seed)
    }
}

/// The members of a tuple. There are always as many as it wants: those not sent are absent.
struct Members<'a, 'p, A> {
    from: &'a mut Incoming<'p, A>,
    left: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Members<'_, '_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Argument { from: self.from, spread: false }).map(Some)
    }
}

/// The next argument, not yet taken; while `spread`, all of them, if it turns out that a tuple is wanted.
struct Argument<'a, 'p, A> {
    from: &'a mut Incoming<'p, A>,
    spread: bool,
}

/// What most types say to an argument that is not there.
fn missing<'de, V: Visitor<'de>, E: Error>(_: V) -> Result<V::Value, E> {
    Err(E::custom("missing"))
}

/// Takes the next argument with the method that was asked of us, or gives what stands for it in its absence.
macro_rules! take {
    ($argument:ident.$method:ident($($arg:ident: $kind:ty),*) for $visitor:ident or $absent:expr) => {{
        struct Seed<'s, V> {
            /// Stays here when there is no argument.
            visitor: &'s mut Option<V>,
            $($arg: $kind,)*
        }
        impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Seed<'_, V> {
            type Value = V::Value;

            fn deserialize<D: Deserializer<'de>>(self, taken: D) -> Result<V::Value, D::Error> {
                let visitor = self.visitor.take().expect("a seed is used once");
                Resolve(taken).$method($(self.$arg,)* visitor)
            }
        }
        let mut unused = Some($visitor);
        match ($argument.from.next_element_seed(Seed { visitor: &mut unused, $($arg,)* })?, unused) {
            (Some(value), _) => Ok(value),
            (None, Some(visitor)) => $absent(visitor).inspect_err(|_| $argument.from.progress.missing = true),
            (None, None) => unreachable!("without an argument nobody uses the seed"),
        }
    }};
}

macro_rules! one_argument {
    ($($method:ident($($arg:ident: $kind:ty),*) or $absent:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, A::Error> {
            take!(self.$method($($arg: $kind),*) for visitor or $absent)
        }
    )*};
}

impl<'de, A: SeqAccess<'de>> Deserializer<'de> for Argument<'_, '_, A> {
    type Error = A::Error;

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        if self.spread {
            return visitor.visit_unit();
        }
        take!(self.deserialize_unit() for visitor or Visitor::visit_unit)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        if self.spread {
            return visitor.visit_seq(Members { from: self.from, left: len });
        }
        take!(self.deserialize_tuple(len: usize) for visitor or missing)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        if name == REST {
            return visitor.visit_seq(self.from);
        }
        self.deserialize_tuple(len, visitor)
    }

    /// A newtype is what it wraps. A `$` begins private agreements, such as that of `RawValue` with `serde_json`.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, A::Error> {
        if !name.starts_with('$') {
            return visitor.visit_newtype_struct(self);
        }
        take!(self.deserialize_newtype_struct(name: &'static str) for visitor or missing)
    }

    one_argument! {
        deserialize_option() or Visitor::visit_none;
        deserialize_any() or Visitor::visit_unit;
        deserialize_ignored_any() or Visitor::visit_unit;
        deserialize_unit_struct(name: &'static str) or Visitor::visit_unit;
        deserialize_bool() or missing;
        deserialize_i8() or missing;
        deserialize_i16() or missing;
        deserialize_i32() or missing;
        deserialize_i64() or missing;
        deserialize_i128() or missing;
        deserialize_u8() or missing;
        deserialize_u16() or missing;
        deserialize_u32() or missing;
        deserialize_u64() or missing;
        deserialize_u128() or missing;
        deserialize_f32() or missing;
        deserialize_f64() or missing;
        deserialize_char() or missing;
        deserialize_str() or missing;
        deserialize_string() or missing;
        deserialize_bytes() or missing;
        deserialize_byte_buf() or missing;
        deserialize_seq() or missing;
        deserialize_map() or missing;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) or missing;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) or missing;
        deserialize_identifier() or missing;
    }
}
