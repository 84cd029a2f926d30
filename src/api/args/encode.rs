//! Encoding: a serializer for the outermost level of the arguments, around `serde_json`'s for all below.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use serde::ser::{SerializeTuple, SerializeTupleStruct};
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::beside::{self, BESIDE};
use super::placeholders::{placeholders, renumbered};
use super::raw::REST;
use super::{EncodeError, Encoded};
use crate::proto::socketio::ATTACHMENTS_MAX;

pub(super) fn encode<T: Serialize + ?Sized>(name: Option<&str>, args: &T) -> Result<Encoded, EncodeError> {
    let _carried = beside::carry(Vec::new());
    let text = RefCell::new(Vec::with_capacity(128));
    let mut attached = Attached::default();
    text.borrow_mut().push(b'[');
    let mut json = Json::with_formatter(Out(&text), &mut attached);
    let written = match name {
        Some(name) => name.serialize(&mut json),
        None => Ok(()),
    };
    let written = written.and_then(|()| args.serialize(Outgoing { json: &mut json, text: &text, spread: true }));

    let Attached { attachments, placeholders: ours } = attached;
    if attachments.len() > ATTACHMENTS_MAX {
        return Err(EncodeError::TooManyAttachments { count: attachments.len() });
    }
    written.map_err(|error| EncodeError::Json(error.to_string()))?;
    let mut text = text.into_inner();
    text.push(b']');
    let data = String::from_utf8(text).expect("serde_json writes UTF-8, and so do we");
    if !attachments.is_empty() && placeholders(&data).len() != ours {
        return Err(EncodeError::StrayPlaceholder);
    }
    Ok(Encoded { data, attachments })
}

type Json<'e> = serde_json::Serializer<Out<'e>, &'e mut Attached>;

/// A writer that two can hold: `serde_json` for the values, and us for the commas between arguments.
struct Out<'e>(&'e RefCell<Vec<u8>>);

impl io::Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What goes beside the text.
#[derive(Default)]
struct Attached {
    attachments: Vec<Bytes>,
    /// Those that we wrote ourselves. Any other would make clients see an attachment where the sender saw an object.
    placeholders: usize,
}

/// Writes JSON, and a placeholder wherever serde says bytes.
impl Formatter for &mut Attached {
    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        let num = self.attachments.len();
        self.attachments.push(lent(value).unwrap_or_else(|| Bytes::copy_from_slice(value)));
        self.placeholders += 1;
        write!(writer, r#"{{"_placeholder":true,"num":{num}}}"#)
    }

    /// The argument of an `Args`, whose first one brings the attachments of all; or somebody's own `RawValue`, beside
    /// which nothing lies.
    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let first = BESIDE.with_borrow_mut(|beside| {
            if beside.first.is_none() && !beside.attachments.is_empty() {
                beside.first = Some(self.attachments.len());
                self.attachments.extend_from_slice(&beside.attachments);
            }
            beside.first
        });
        let Some(first) = first else {
            return writer.write_all(fragment.as_bytes());
        };
        self.placeholders += placeholders(fragment).len();
        writer.write_all(renumbered(fragment, |num| first + num).as_bytes())
    }
}

/// What `Binary` laid beside serde, if it is the very memory that serde shows us. A foreign type, and a wrapper that
/// changed the bytes, get a copy.
fn lent(value: &[u8]) -> Option<Bytes> {
    BESIDE.with_borrow(|beside| beside.attachments.first().filter(|bytes| std::ptr::eq(&bytes[..], value)).cloned())
}

/// Where the arguments go. While `spread`, the next tuple is several arguments; after that it is an array.
struct Outgoing<'a, 'e> {
    json: &'a mut Json<'e>,
    text: &'e RefCell<Vec<u8>>,
    spread: bool,
}

impl<'a, 'e> Outgoing<'a, 'e> {
    /// One argument begins: whatever is told to the serializer returned belongs to it.
    fn one(self) -> &'a mut Json<'e> {
        let mut text = self.text.borrow_mut();
        // No JSON value ends with this bracket, so it is the one that opens the arguments.
        if text.last() != Some(&b'[') {
            text.push(b',');
        }
        self.json
    }
}

macro_rules! one_argument {
    ($($method:ident($($arg:ident: $kind:ty),*) -> $ok:ident;)*) => {$(
        fn $method(self, $($arg: $kind),*) -> Result<Self::$ok, Self::Error> {
            self.one().$method($($arg),*)
        }
    )*};
}

impl<'a, 'e> Serializer for Outgoing<'a, 'e> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = <&'a mut Json<'e> as Serializer>::SerializeSeq;
    type SerializeTuple = OutgoingTuple<'a, 'e>;
    type SerializeTupleStruct = OutgoingTuple<'a, 'e>;
    type SerializeTupleVariant = <&'a mut Json<'e> as Serializer>::SerializeTupleVariant;
    type SerializeMap = <&'a mut Json<'e> as Serializer>::SerializeMap;
    type SerializeStruct = <&'a mut Json<'e> as Serializer>::SerializeStruct;
    type SerializeStructVariant = <&'a mut Json<'e> as Serializer>::SerializeStructVariant;

    fn serialize_unit(self) -> Result<(), Self::Error> {
        if self.spread { Ok(()) } else { self.one().serialize_unit() }
    }

    fn serialize_tuple(self, len: usize) -> Result<OutgoingTuple<'a, 'e>, Self::Error> {
        if self.spread {
            return Ok(OutgoingTuple::Several(self));
        }
        self.one().serialize_tuple(len).map(OutgoingTuple::One)
    }

    /// `Args` spreads inside the outermost tuple, too.
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<OutgoingTuple<'a, 'e>, Self::Error> {
        let spread = self.spread || name == REST;
        Outgoing { spread, ..self }.serialize_tuple(len)
    }

    /// A newtype is what it wraps.
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Self::Error> {
        self.one().serialize_some(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        self.one().serialize_newtype_variant(name, index, variant, value)
    }

    one_argument! {
        serialize_bool(value: bool) -> Ok;
        serialize_i8(value: i8) -> Ok;
        serialize_i16(value: i16) -> Ok;
        serialize_i32(value: i32) -> Ok;
        serialize_i64(value: i64) -> Ok;
        serialize_i128(value: i128) -> Ok;
        serialize_u8(value: u8) -> Ok;
        serialize_u16(value: u16) -> Ok;
        serialize_u32(value: u32) -> Ok;
        serialize_u64(value: u64) -> Ok;
        serialize_u128(value: u128) -> Ok;
        serialize_f32(value: f32) -> Ok;
        serialize_f64(value: f64) -> Ok;
        serialize_char(value: char) -> Ok;
        serialize_str(value: &str) -> Ok;
        serialize_bytes(value: &[u8]) -> Ok;
        serialize_none() -> Ok;
        serialize_unit_struct(name: &'static str) -> Ok;
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> Ok;
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeTupleVariant;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeStructVariant;
    }
}

enum OutgoingTuple<'a, 'e> {
    Several(Outgoing<'a, 'e>),
    One(<&'a mut Json<'e> as Serializer>::SerializeTuple),
}

impl SerializeTuple for OutgoingTuple<'_, '_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        match self {
            Self::Several(outgoing) => {
                value.serialize(Outgoing { json: outgoing.json, text: outgoing.text, spread: false })
            }
            Self::One(array) => array.serialize_element(value),
        }
    }

    fn end(self) -> Result<(), Self::Error> {
        match self {
            Self::Several(_) => Ok(()),
            Self::One(array) => SerializeTuple::end(array),
        }
    }
}

impl SerializeTupleStruct for OutgoingTuple<'_, '_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        self.serialize_element(value)
    }

    fn end(self) -> Result<(), Self::Error> {
        SerializeTuple::end(self)
    }
}
