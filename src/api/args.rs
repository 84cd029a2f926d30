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
//! How binary travels: serde knows bytes but not attachments, so one thread-local, `BESIDE`, holds the attachments
//! of the call in progress, and only of that call. Writing, it saves the copy: `Binary` lays its bytes beside
//! what it tells serde, and our formatter picks them up. Reading, `Binary` finds there what its placeholder names.
//! The road not taken is a deserializer that carries the attachments along. It needs no thread-local, but serde
//! buffers the fields of tagged and untagged enums and of `flatten` in a type of its own, where our deserializer is
//! no longer asked. An enum with `#[serde(tag = "type")]` is how many people write events, and binary must work in it.
//! A stateless remainder of that road is here all the same (`Resolve`): it lets foreign byte types, `bytes::Bytes`
//! or `serde_bytes`, read attachments wherever it is asked, so that what encodes as binary decodes as binary.
//!
//! Invariants: each value is serialised exactly once, so values that can be read only once work;
//!             `BESIDE` is again what it was when the call that filled it is over, also after a panic;
//!             in an encoded packet with attachments, each placeholder is one that we wrote.
//! Limits:     `ATTACHMENTS_MAX`, which is what current clients accept; 128 levels of nesting (`serde_json`);
//!             `PROBLEM_CHARS_MAX` of an error's text, which quotes the peer.
//! Not here:   packet type, namespace and ack id (the Socket.IO codec); whether an *incoming* event may be named so.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use bytes::Bytes;
use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::ser::{SerializeTuple, SerializeTupleStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// Attachments in one packet. The JavaScript client closes the connection when it meets more.
pub const ATTACHMENTS_MAX: usize = 10;

/// Names with a meaning of their own to Socket.IO; both ends refuse them as events.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Characters of `serde_json`'s words that a `DecodeError` keeps.
const PROBLEM_CHARS_MAX: usize = 200;

/// Raw arguments: JSON array text, for an event with its name first, and the attachments its placeholders name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub data: String,
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
    if let Some(reserved) = RESERVED.iter().find(|reserved| **reserved == name) {
        return Err(EncodeError::Reserved(reserved));
    }
    encode(Some(name), args)
}

/// Encodes the answer to an event: `[…]`.
///
/// ```
/// let answer = fanfare::args::encode_ack(&("ok", 3)).unwrap();
/// assert_eq!(answer.data, r#"["ok",3]"#);
/// ```
pub fn encode_ack<T: Serialize + ?Sized>(args: &T) -> Result<Encoded, EncodeError> {
    encode(None, args)
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
    decode(data, attachments, true)
}

/// Decodes the arguments of an ack. Empty `data`, which the protocol allows, has no arguments.
///
/// ```
/// let (status, count): (String, u32) = fanfare::args::decode_ack(r#"["ok",3]"#, &[]).unwrap();
/// assert_eq!((status.as_str(), count), ("ok", 3));
/// ```
pub fn decode_ack<T: DeserializeOwned>(data: &str, attachments: &[Bytes]) -> Result<T, DecodeError> {
    decode(data, attachments, false)
}

/// Whether every placeholder in `data` names one of so many attachments. `data` must be valid JSON; other text gets
/// some answer. JavaScript clients close their connection over a placeholder that fits nothing, so whoever passes on
/// a packet unread asks this first.
///
/// ```
/// use fanfare::args::placeholders_fit;
///
/// assert!(placeholders_fit(r#"["photo",{"_placeholder":true,"num":0}]"#, 1));
/// assert!(!placeholders_fit(r#"["photo",{"_placeholder":true,"num":1}]"#, 1));
/// ```
pub fn placeholders_fit(data: &str, attachments: usize) -> bool {
    mark_used(&mut vec![false; attachments], data)
}

/// Why arguments could not be encoded. The caller must act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The event's name has a meaning of its own to Socket.IO.
    Reserved(&'static str),
    /// More than [`ATTACHMENTS_MAX`] binary values.
    TooManyAttachments { count: usize },
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
    Missing { position: usize },
    /// The argument is there and is something else.
    Argument { position: usize, problem: String },
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

/// A binary argument, or a binary part of one. Serialises as an attachment, deserialises from one and nothing else.
///
/// `Vec<u8>` is a list of numbers to serde. `bytes::Bytes` and `serde_bytes` also become attachments, yet cost a copy
/// each way, and cannot be read inside tagged or untagged enums and `#[serde(flatten)]`. `Binary` can, and costs none.
///
/// ```
/// use fanfare::args::{Binary, decode_event, encode_event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Photo {
///     title: String,
///     pixels: Binary,
/// }
///
/// let photo = Photo { title: "cat".into(), pixels: Binary::from(vec![1, 2, 3]) };
/// let packet = encode_event("photo", &photo).unwrap();
/// assert_eq!(packet.data, r#"["photo",{"title":"cat","pixels":{"_placeholder":true,"num":0}}]"#);
/// assert_eq!(decode_event::<Photo>(&packet.data, &packet.attachments), Ok(photo));
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Binary(pub Bytes);

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&'static [u8]> for Binary {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

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
    /// Every placeholder in `values` names one of these, and each is named.
    attachments: Vec<Bytes>,
}

impl Args {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Decodes one argument. A tuple here is an array: nothing spreads.
    pub fn get<T: DeserializeOwned>(&self, position: usize) -> Result<T, DecodeError> {
        let _scope = Beside::carry(self.attachments.clone());
        let mut progress = Progress { array: true, next: position, missing: false };
        let decoded = match self.values.get(position) {
            Some(value) => {
                progress.next += 1;
                T::deserialize(Resolve(&mut serde_json::Deserializer::from_str(value.get())))
            }
            None => {
                let nothing = SeqDeserializer::<_, serde_json::Error>::new(std::iter::empty::<()>());
                T::deserialize(Argument {
                    from: &mut Incoming { seq: nothing, progress: &mut progress },
                    spread: false,
                })
            }
        };
        decoded.map_err(|error| progress.explain(&error))
    }

    /// The JSON text of one argument, placeholders and all.
    pub fn raw(&self, position: usize) -> Option<&str> {
        self.values.get(position).map(|value| value.get())
    }

    /// Whether the argument is itself an attachment, and not an object that holds one.
    pub fn is_binary(&self, position: usize) -> bool {
        self.get::<Binary>(position).is_ok()
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

// ---- Beside serde ----

/// Attachments on their way between a value and our end of serde. See the module's first lines.
#[derive(Default)]
struct Beside {
    attachments: Vec<Bytes>,
    /// Writing: the number that the packet gave to the first of them.
    first: Option<usize>,
}

thread_local! {
    static BESIDE: RefCell<Beside> = const { RefCell::new(Beside { attachments: Vec::new(), first: None }) };
}

impl Beside {
    /// Lays these beside serde until the guard is dropped. Calls nest: what was there comes back.
    fn carry(attachments: Vec<Bytes>) -> BesideGuard {
        BesideGuard(BESIDE.replace(Self { attachments, first: None }))
    }
}

struct BesideGuard(Beside);

impl Drop for BesideGuard {
    fn drop(&mut self) {
        BESIDE.set(std::mem::take(&mut self.0));
    }
}

/// `Args` asks for all remaining arguments by this name. No Rust type can have it.
const REST: &str = "$fanfare::Args";

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _lent = Beside::carry(vec![self.0.clone()]);
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A format that has binary of its own, such as msgpack, says so by not being readable.
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(BinaryVisitor)
        } else {
            deserializer.deserialize_byte_buf(BinaryVisitor)
        }
    }
}

struct BinaryVisitor;

#[derive(Deserialize)]
#[serde(field_identifier)]
enum PlaceholderKey {
    #[serde(rename = "_placeholder")]
    Mark,
    #[serde(rename = "num")]
    Num,
    #[serde(other)]
    Other,
}

impl<'de> Visitor<'de> for BinaryVisitor {
    type Value = Binary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a binary attachment")
    }

    /// Keys come in any order: the Swift client writes a dictionary.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Binary, A::Error> {
        let (mut marked, mut num) = (false, None);
        while let Some(key) = map.next_key()? {
            match key {
                PlaceholderKey::Mark => marked = map.next_value()?,
                PlaceholderKey::Num => num = Some(map.next_value::<usize>()?),
                PlaceholderKey::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        let Some(num) = num.filter(|_| marked) else {
            return Err(de::Error::invalid_type(Unexpected::Map, &self));
        };
        BESIDE.with_borrow(|beside| match beside.attachments.get(num) {
            Some(bytes) => Ok(Binary(bytes.clone())),
            None => {
                let count = beside.attachments.len();
                Err(de::Error::custom(format_args!("there is no attachment {num}, the packet has {count}")))
            }
        })
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Binary, E> {
        Ok(Binary(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Binary, E> {
        Ok(Binary(bytes.into()))
    }
}

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _lent = Beside::carry(self.attachments.clone());
        serializer.serialize_newtype_struct(REST, &Spreading(&self.values))
    }
}

struct Spreading<'a>(&'a [Box<RawValue>]);

impl Serialize for Spreading<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|value| tuple.serialize_element(value))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(REST, ArgsVisitor)
    }
}

struct ArgsVisitor;

impl<'de> Visitor<'de> for ArgsVisitor {
    type Value = Args;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of arguments")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Args, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
        let attachments = BESIDE.with_borrow(|beside| beside.attachments.clone());
        let mut values = Vec::new();
        let mut used = vec![false; attachments.len()];
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

// ---- Encoding ----

fn encode<T: Serialize + ?Sized>(name: Option<&str>, args: &T) -> Result<Encoded, EncodeError> {
    let _scope = Beside::carry(Vec::new());
    let text = RefCell::new(Vec::with_capacity(128));
    let mut attached = Attached::default();
    text.borrow_mut().push(b'[');
    let mut json = Json::with_formatter(Out(&text), Placeholders(&mut attached));
    let written = match name {
        Some(name) => name.serialize(&mut json),
        None => Ok(()),
    };
    let written = written.and_then(|()| args.serialize(Outgoing { json: &mut json, text: &text, spread: true }));

    if attached.count > ATTACHMENTS_MAX {
        return Err(EncodeError::TooManyAttachments { count: attached.count });
    }
    written.map_err(|error| EncodeError::Json(error.to_string()))?;
    let mut text = text.into_inner();
    text.push(b']');
    let data = String::from_utf8(text).expect("serde_json writes UTF-8, and so do we");
    let attachments = attached.list;
    if !attachments.is_empty() && placeholders(&data).len() != attached.placeholders {
        return Err(EncodeError::StrayPlaceholder);
    }
    Ok(Encoded { data, attachments })
}

/// A writer that two can hold: `serde_json` for the values, and us for the commas between arguments.
struct Out<'e>(&'e RefCell<Vec<u8>>);

impl io::Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Attached {
    list: Vec<Bytes>,
    /// Also those beyond the limit, which are counted and not kept.
    count: usize,
    /// Those that we wrote ourselves. Any other would make clients see an attachment where the sender saw an object.
    placeholders: usize,
}

impl Attached {
    fn push(&mut self, bytes: impl FnOnce() -> Bytes) -> usize {
        if self.count < ATTACHMENTS_MAX {
            self.list.push(bytes());
        }
        self.count += 1;
        self.count - 1
    }
}

/// Writes JSON, and a placeholder wherever serde says bytes.
struct Placeholders<'e>(&'e mut Attached);

type Json<'e> = serde_json::Serializer<Out<'e>, Placeholders<'e>>;

impl Placeholders<'_> {
    /// The number that the first attachment of an `Args` has in this packet. Its first argument brings them all.
    /// None if nothing lies beside serde.
    fn place(&mut self, beside: &mut Beside) -> Option<usize> {
        if beside.first.is_none() && !beside.attachments.is_empty() {
            beside.first = Some(self.0.count);
            beside.attachments.iter().for_each(|bytes| _ = self.0.push(|| bytes.clone()));
        }
        beside.first
    }
}

impl serde_json::ser::Formatter for Placeholders<'_> {
    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        self.0.placeholders += 1;
        let num = self.0.push(|| lent(value).unwrap_or_else(|| Bytes::copy_from_slice(value)));
        write!(writer, r#"{{"_placeholder":true,"num":{num}}}"#)
    }

    /// The argument of an `Args`, or somebody's own `RawValue`, beside which nothing lies.
    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let Some(first) = BESIDE.with_borrow_mut(|beside| self.place(beside)) else {
            return writer.write_all(fragment.as_bytes());
        };
        self.0.placeholders += placeholders(fragment).len();
        writer.write_all(renumbered(fragment, |num| first + num).as_bytes())
    }
}

/// What lies beside serde, if it is the very memory that serde shows us. A wrapper that changed the bytes gets a copy.
fn lent(value: &[u8]) -> Option<Bytes> {
    BESIDE
        .with_borrow(|beside| beside.attachments.iter().find(|bytes| std::ptr::eq::<[u8]>(&bytes[..], value)).cloned())
}

/// The same text with other numbers in its placeholders, all of which must have one.
fn renumbered(text: &str, new: impl Fn(usize) -> usize) -> String {
    let mut nums = placeholders(text);
    nums.sort_unstable_by_key(|num| num.start);
    let mut renumbered = String::with_capacity(text.len() + nums.len());
    let mut copied = 0;
    for num in nums {
        let old = text[num.clone()].parse().expect("Args checks its placeholders when it is made");
        renumbered.push_str(&text[copied..num.start]);
        renumbered.push_str(&new(old).to_string());
        copied = num.end;
    }
    renumbered.push_str(&text[copied..]);
    renumbered
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

    fn tuple(self, len: usize) -> Result<OutgoingTuple<'a, 'e>, serde_json::Error> {
        if self.spread {
            return Ok(OutgoingTuple::Several(self));
        }
        self.one().serialize_tuple(len).map(OutgoingTuple::One)
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
            Self::One(array) => SerializeTuple::serialize_element(array, value),
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

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, Self::Error> {
        self.tuple(len)
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, Self::Error> {
        self.tuple(len)
    }

    /// A newtype is what it wraps, except `Args`, which spreads in the outermost tuple, too.
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), Self::Error> {
        let spread = self.spread || name == REST;
        value.serialize(Outgoing { spread, ..self })
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

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Self::Error> {
        self.one().collect_str(value)
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

// ---- Decoding ----

fn decode<T: DeserializeOwned>(data: &str, attachments: &[Bytes], named: bool) -> Result<T, DecodeError> {
    let data = if data.is_empty() { "[]" } else { data };
    let _scope = Beside::carry(attachments.to_vec());
    let mut progress = Progress::default();
    let mut json = serde_json::Deserializer::from_str(data);
    json.deserialize_seq(AllVisitor { named, progress: &mut progress, kind: PhantomData })
        .and_then(|args| json.end().map(|()| args))
        .map_err(|error| progress.explain(&error))
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

    fn none<'de, V: Visitor<'de>, E: de::Error>(&mut self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_none()
    }

    fn null<'de, V: Visitor<'de>, E: de::Error>(&mut self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_unit()
    }

    fn missing<'de, V: Visitor<'de>, E: de::Error>(&mut self, _: V) -> Result<V::Value, E> {
        self.missing = true;
        Err(E::custom("missing"))
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

/// The arguments not yet taken.
struct Incoming<'p, A> {
    seq: A,
    progress: &'p mut Progress,
}

/// The next argument, not yet taken; while `spread`, all of them, if it turns out that a tuple is wanted.
struct Argument<'a, 'p, A> {
    from: &'a mut Incoming<'p, A>,
    spread: bool,
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

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The arguments that nobody took, for `Args`.
struct Rest<'a, 'p, A>(&'a mut Incoming<'p, A>);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Rest<'_, '_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.progress.next += 1;
        self.0.seq.next_element_seed(seed)
    }
}

/// Takes the next argument with the method that was asked of us, or answers in its absence. `unless` comes first.
macro_rules! take_argument {
    ($(
        $method:ident($($arg:ident: $kind:ty),*) or $absent:ident
        $(, unless |$argument:ident, $unused:ident| $several:expr => $answer:expr)*;
    )*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, A::Error> {
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
            let (argument, visitor) = (self, visitor);
            $(let (argument, visitor) = match (argument, visitor) {
                ($argument, $unused) if $several => return $answer,
                one => one,
            };)*
            let Incoming { seq, progress } = argument.from;
            progress.next += 1;
            let mut unused = Some(visitor);
            let taken = seq.next_element_seed(Seed { visitor: &mut unused, $($arg,)* })?;
            match (taken, unused) {
                (Some(value), _) => Ok(value),
                (None, Some(visitor)) => progress.$absent(visitor),
                (None, None) => unreachable!("without an argument nobody uses the seed"),
            }
        }
    )*};
}

impl<'de, A: SeqAccess<'de>> Deserializer<'de> for Argument<'_, '_, A> {
    type Error = A::Error;

    take_argument! {
        deserialize_unit() or null,
            unless |all, visitor| all.spread => visitor.visit_unit();
        deserialize_tuple(len: usize) or missing,
            unless |all, visitor| all.spread => visitor.visit_seq(Members { from: all.from, left: len });
        deserialize_tuple_struct(name: &'static str, len: usize) or missing,
            unless |all, visitor| all.spread => visitor.visit_seq(Members { from: all.from, left: len });
        // A newtype is what it wraps. A `$` begins private agreements, such as that of `RawValue` with serde_json.
        deserialize_newtype_struct(name: &'static str) or missing,
            unless |all, visitor| name == REST => visitor.visit_seq(Rest(all.from)),
            unless |all, visitor| !name.starts_with('$') => visitor.visit_newtype_struct(all);
        deserialize_option() or none;
        deserialize_any() or null;
        deserialize_ignored_any() or null;
        deserialize_unit_struct(name: &'static str) or null;
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

// ---- Bytes of foreign types ----

/// Passes on whatever it wraps, at every depth; only who asks for bytes is given an attachment.
struct Resolve<X>(X);

macro_rules! pass_on {
    ($($method:ident($($arg:ident: $kind:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($arg,)* Resolve(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Resolve<D> {
    type Error = D::Error;

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_bytes(&Binary::deserialize(self.0)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_byte_buf(Binary::deserialize(self.0)?.to_vec())
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    pass_on! {
        deserialize_any();
        deserialize_ignored_any();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_seq();
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
    }
}

macro_rules! show_as_is {
    ($($method:ident($kind:ty);)*) => {$(
        fn $method<E: de::Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Resolve<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    show_as_is! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Resolve(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Resolve(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Resolve(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Resolve(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Resolve(data))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Resolve<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Resolve(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Resolve<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Resolve(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// Keys are never binary and go as they are.
impl<'de, A: MapAccess<'de>> MapAccess<'de> for Resolve<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Resolve(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Resolve<A> {
    type Error = A::Error;
    type Variant = Resolve<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(name, variant)| (name, Resolve(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Resolve<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Resolve(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Resolve(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Resolve(visitor))
    }
}

// ---- Placeholders in text that nobody decodes ----

/// An object or array that is open where the scan stands.
#[derive(Default)]
struct Open<'t> {
    object: bool,
    /// The key whose value comes next, with its quotes.
    key: Option<&'t str>,
    marked: bool,
    num: Range<usize>,
}

impl<'t> Open<'t> {
    /// A value begins or stands here. As in JavaScript, the last of two equal keys counts.
    fn value(&mut self, text: &'t str, token: Range<usize>) {
        let Some(key) = self.key.take() else { return };
        match &*unescaped(key) {
            "_placeholder" => self.marked = &text[token] == "true",
            "num" => self.num = token,
            _ => {}
        }
    }
}

/// Where the numbers of all placeholders are in this JSON text; an empty or odd range where one has no number.
/// The order is that of closing braces. The stack is on the heap: a peer chooses the depth.
fn placeholders(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => continue,
            b'{' | b'[' => {
                if let Some(parent) = open.last_mut() {
                    parent.value(text, start..at);
                }
                open.push(Open { object: bytes[start] == b'{', ..Open::default() });
                continue;
            }
            b'}' | b']' => {
                found.extend(open.pop().filter(|closed| closed.marked).map(|closed| closed.num));
                continue;
            }
            b'"' => at = string_end(bytes, at),
            _ => at += bytes[at..].iter().take_while(|byte| !b" \t\n\r,:{}[]\"".contains(byte)).count(),
        }
        match open.last_mut() {
            Some(object) if object.object && object.key.is_none() => object.key = Some(&text[start..at]),
            Some(parent) => parent.value(text, start..at),
            None => {}
        }
    }
    found
}

/// Just after the quote that closes the string which began before `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Marks the attachments that placeholders name. False if one of them names none.
fn mark_used(used: &mut [bool], text: &str) -> bool {
    placeholders(text).into_iter().all(|num| {
        let mark = text[num].parse::<usize>().ok().and_then(|num| used.get_mut(num));
        mark.map(|mark| *mark = true).is_some()
    })
}

fn unescaped(key: &str) -> Cow<'_, str> {
    if key.contains('\\') {
        return serde_json::from_str(key).map_or(Cow::Borrowed(key), Cow::Owned);
    }
    Cow::Borrowed(key.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    struct Goal {
        player: String,
        minute: Option<u32>,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Pair(u8, String);

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Meters(u32);

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct WrappedPair((u8, u8));

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Unit;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Shape {
        Point,
        Circle(u8),
        Line(u8, u8),
        Image { pixels: Binary },
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "type")]
    enum Tagged {
        Image { name: String, pixels: Binary },
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Untagged {
        Image { pixels: Binary },
        Text(String),
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Flat {
        name: String,
        #[serde(flatten)]
        image: BTreeMap<String, Binary>,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Nested {
        map: BTreeMap<String, Binary>,
        list: Vec<Binary>,
        maybe: Option<Binary>,
        pair: (Binary, u8),
        shape: Shape,
        foreign: Bytes,
    }

    fn bin(bytes: &'static [u8]) -> Binary {
        Binary::from(bytes)
    }

    fn parts(parts: &[&'static [u8]]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::from_static(part)).collect()
    }

    fn text<T: Serialize + ?Sized>(args: &T) -> String {
        let packet = encode_event("ev", args).unwrap();
        assert!(packet.attachments.is_empty());
        packet.data
    }

    fn event<T: DeserializeOwned>(data: &str) -> Result<T, DecodeError> {
        decode_event(data, &[])
    }

    #[track_caller]
    fn round_trip<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(args: &T) {
        let packet = encode_event("ev", args).unwrap();
        assert_eq!(decode_event::<T>(&packet.data, &packet.attachments).as_ref(), Ok(args), "{packet:?}");
        let packet = encode_ack(args).unwrap();
        assert_eq!(decode_ack::<T>(&packet.data, &packet.attachments).as_ref(), Ok(args), "{packet:?}");
    }

    #[test]
    fn a_tuple_is_several_arguments_unit_is_none_and_anything_else_is_one() {
        let goal = Goal { player: "Ada".into(), minute: None };
        assert_eq!(text(&()), r#"["ev"]"#);
        assert_eq!(text(&(1, "two")), r#"["ev",1,"two"]"#);
        assert_eq!(text(&Pair(1, "two".into())), r#"["ev",1,"two"]"#);
        assert_eq!(text(&[1, 2]), r#"["ev",1,2]"#);
        assert_eq!(text(&[0; 0]), r#"["ev"]"#);
        assert_eq!(text(&vec![1, 2]), r#"["ev",[1,2]]"#);
        assert_eq!(text(&[1, 2][..]), r#"["ev",[1,2]]"#);
        assert_eq!(text(&Vec::<u8>::new()), r#"["ev",[]]"#);
        assert_eq!(text(&((1, 2),)), r#"["ev",[1,2]]"#);
        assert_eq!(text(&(Vec::<u8>::new(), 1, ((),), ())), r#"["ev",[],1,[null],null]"#);
        assert_eq!(text(&Some((1, 2))), r#"["ev",[1,2]]"#);
        assert_eq!(text(&None::<u8>), r#"["ev",null]"#);
        assert_eq!(text(&Meters(5)), r#"["ev",5]"#);
        assert_eq!(text(&WrappedPair((1, 2))), r#"["ev",1,2]"#);
        assert_eq!(text(&(WrappedPair((1, 2)), 3)), r#"["ev",[1,2],3]"#);
        assert_eq!(text(&Unit), r#"["ev",null]"#);
        assert_eq!(text("str"), r#"["ev","str"]"#);
        assert_eq!(text("["), r#"["ev","["]"#);
        assert_eq!(text(&("[", "[")), r#"["ev","[","["]"#);
        assert_eq!(text(&'c'), r#"["ev","c"]"#);
        assert_eq!(text(&true), r#"["ev",true]"#);
        assert_eq!(text(&-1.5), r#"["ev",-1.5]"#);
        assert_eq!(text(&format_args!("{}-{}", 1, 2)), r#"["ev","1-2"]"#);
        assert_eq!(text(&goal), r#"["ev",{"player":"Ada","minute":null}]"#);
        assert_eq!(text(&(&goal, Some(&goal.player))), r#"["ev",{"player":"Ada","minute":null},"Ada"]"#);
        assert_eq!(text(&BTreeMap::from([(1, 2)])), r#"["ev",{"1":2}]"#);
        assert_eq!(text(&Shape::Point), r#"["ev","Point"]"#);
        assert_eq!(text(&Shape::Circle(1)), r#"["ev",{"Circle":1}]"#);
        assert_eq!(text(&Shape::Line(1, 2)), r#"["ev",{"Line":[1,2]}]"#);
        assert_eq!(text(&json!({"a": [1, null]})), r#"["ev",{"a":[1,null]}]"#);
        assert_eq!(text(&RawValue::from_string("[ 1 ]".into()).unwrap()), r#"["ev",[ 1 ]]"#);
        assert_eq!(encode_ack(&()).unwrap().data, "[]");
        assert_eq!(encode_ack(&(1, "two")).unwrap().data, r#"[1,"two"]"#);
        assert_eq!(encode_ack(&vec![1]).unwrap().data, "[[1]]");
    }

    #[test]
    fn decoding_follows_the_same_rule() {
        assert_eq!(event(r#"["ev"]"#), Ok(()));
        assert_eq!(event(r#"["ev",1]"#), Ok(()));
        assert_eq!(event(r#"["pub","xxx"]"#), Ok("xxx".to_string()));
        assert_eq!(event(r#"["ev",1,"two"]"#), Ok((1, "two".to_string())));
        assert_eq!(event(r#"["ev",1,"two"]"#), Ok(Pair(1, "two".into())));
        assert_eq!(event(r#"["ev",1,2]"#), Ok([1, 2]));
        assert_eq!(event(r#"["ev",[1,2],3]"#), Ok(vec![1, 2]));
        assert_eq!(event(r#"["ev",[1,2]]"#), Ok(((1, 2),)));
        assert_eq!(event(r#"["ev",[1,2]]"#), Ok(Some((1, 2))));
        assert_eq!(event(r#"["ev",5,6]"#), Ok(Meters(5)));
        assert_eq!(event(r#"["ev",1,2]"#), Ok(WrappedPair((1, 2))));
        assert_eq!(event(r#"["ev",[1,2],3]"#), Ok((WrappedPair((1, 2)), 3)));
        assert_eq!(event(r#"["ev",null]"#), Ok(Unit));
        assert_eq!(event(" [ 7 , { \"player\" : \"Ada\" } ] "), Ok(Goal { player: "Ada".into(), minute: None }));
        assert_eq!(event(r#"["ev",{"Line":[1,2]}]"#), Ok(Shape::Line(1, 2)));
        assert_eq!(event(r#"["ev",{"a":1}]"#), Ok(json!({"a": 1})));
        assert_eq!(event::<Box<RawValue>>(r#"["ev",{"a": 1}]"#).unwrap().get(), r#"{"a": 1}"#);
        assert_eq!(decode_ack(r#"["ok",3]"#, &[]), Ok(("ok".to_string(), 3)));
        assert_eq!(decode_ack(r#"[3,4]"#, &[]), Ok(3));
    }

    #[test]
    fn extra_arguments_are_ignored_and_missing_ones_are_absent() {
        assert_eq!(event(r#"["ev",1,"two",{"three":[4]}]"#), Ok((1, "two".to_string())));
        assert_eq!(event(r#"["ev",1]"#), Ok((1, None::<String>, None::<u8>)));
        assert_eq!(event(r#"["ev"]"#), Ok(None::<String>));
        assert_eq!(event(r#"["ev"]"#), Ok(Value::Null));
        assert_eq!(event(r#"["ev",1]"#), Ok((1, Value::Null, (), Unit)));
        assert_eq!(event(r#"["ev",null]"#), Ok(None::<String>));
        assert_eq!(event(r#"[]"#), Ok(None::<String>));
        assert_eq!(event(""), Ok(None::<String>));
        assert_eq!(decode_ack("", &[]), Ok(()));
        assert_eq!(event::<Meters>(r#"["ev"]"#), Err(DecodeError::Missing { position: 0 }));
        assert_eq!(event::<(u8, u8)>(r#"["ev",1]"#), Err(DecodeError::Missing { position: 1 }));
        assert_eq!(event::<(u8, Binary)>(r#"["ev",1]"#), Err(DecodeError::Missing { position: 1 }));
        assert_eq!(event::<Box<RawValue>>(r#"["ev"]"#).unwrap_err(), DecodeError::Missing { position: 0 });
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        round_trip(&());
        round_trip(&(1u8, -2i64, 3.5f64, 'c', true, "s".to_string()));
        round_trip(&(u64::MAX, i64::MIN, u128::MAX, i128::MIN));
        round_trip(&(Some(1u8), None::<u8>, Some(vec![Some(1u8), None])));
        round_trip(&((1u8, (2u8,)), [3u8, 4], ()));
        round_trip(&vec![(1u8, "\u{1F600}\"\\\n[".to_string())]);
        round_trip(&Pair(1, "a".into()));
        round_trip(&WrappedPair((1, 2)));
        round_trip(&(Unit, Meters(1)));
        round_trip(&json!({"a": {"b": [1, 2.5, "c", null, {}, []]}}));
        round_trip(&[Shape::Point, Shape::Circle(1), Shape::Line(1, 2)]);
        round_trip(&bin(b"alone"));
        round_trip(&(bin(b""), bin(b""), Bytes::from_static(b"foreign")));
        round_trip(&[Some(bin(b"some")), None]);
        round_trip(&(bin(b"a"), Untagged::Image { pixels: bin(b"b") }, Untagged::Text("c".into())));
        round_trip(&Tagged::Image { name: "cat".into(), pixels: bin(b"pixels") });
        round_trip(&Flat { name: "cat".into(), image: BTreeMap::from([("pixels".into(), bin(b"pixels"))]) });
        round_trip(&Nested {
            map: BTreeMap::from([("a".into(), bin(b"1")), ("b".into(), bin(b"2"))]),
            list: vec![bin(b"3"), bin(b"4")],
            maybe: Some(bin(b"5")),
            pair: (bin(b"6"), 6),
            shape: Shape::Image { pixels: bin(b"7") },
            foreign: Bytes::from_static(b"8"),
        });
    }

    #[test]
    fn bytes_become_placeholders_numbered_depth_first() {
        let args = (bin(b"a"), vec![bin(b"b"), bin(b"c")], Bytes::from_static(b"d"), vec![1u8, 2]);
        let packet = encode_event("ev", &args).unwrap();
        assert_eq!(
            packet.data,
            r#"["ev",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}],{"_placeholder":true,"num":3},[1,2]]"#
        );
        assert_eq!(packet.attachments, parts(&[b"a", b"b", b"c", b"d"]));
    }

    #[test]
    fn binary_is_never_copied() {
        let binary = Binary::from(vec![7; 1000]);
        let packet = encode_event("ev", &(Some(&binary), "x")).unwrap();
        assert_eq!(packet.attachments[0].as_ptr(), binary.as_ptr());
        let (decoded, _): (Binary, String) = decode_event(&packet.data, &packet.attachments).unwrap();
        assert_eq!(decoded.as_ptr(), binary.as_ptr());
        let all: Args = decode_event(&packet.data, &packet.attachments).unwrap();
        assert_eq!(encode_event("ev", &all).unwrap().attachments[0].as_ptr(), binary.as_ptr());
    }

    #[test]
    fn a_placeholder_may_have_its_keys_in_any_order_and_others_besides() {
        let attachments = parts(&[b"zero", b"one"]);
        for placeholder in [
            r#"{"_placeholder":true,"num":1}"#,
            r#"{"num":1,"_placeholder":true}"#,
            r#"{ "num" : 1, "other": [{"num":7}], "\u005fplaceholder" : true }"#,
            r#"{"num":0,"_placeholder":false,"_placeholder":true,"num":1}"#,
        ] {
            let data = format!(r#"["ev",{placeholder}]"#);
            assert_eq!(decode_event(&data, &attachments), Ok(bin(b"one")), "{data}");
            assert_eq!(decode_event(&data, &attachments), Ok(Bytes::from_static(b"one")), "{data}");
            assert!(placeholders_fit(&data, 2) && !placeholders_fit(&data, 1), "{data}");
        }
    }

    #[test]
    fn binary_reads_nothing_but_an_attachment() {
        let attachments = parts(&[b"secret"]);
        for not_binary in [
            "null",
            "0",
            r#""text""#,
            "[1,2,3]",
            "[true,0]",
            "{}",
            r#"{"num":0}"#,
            r#"{"_placeholder":true}"#,
            r#"{"_placeholder":false,"num":0}"#,
            r#"{"_placeholder":1,"num":0}"#,
            r#"{"_placeholder":true,"num":"0"}"#,
            r#"{"_placeholder":true,"num":-1}"#,
            r#"{"_placeholder":true,"num":0.5}"#,
            r#"{"_placeholder":true,"num":null}"#,
            r#"{"_placeholder":true,"num":1}"#,
            r#"{"_placeholder":true,"num":18446744073709551616}"#,
        ] {
            let data = format!(r#"["ev",{not_binary}]"#);
            assert!(decode_event::<Binary>(&data, &attachments).is_err(), "{data}");
            assert!(decode_event::<Bytes>(&data, &attachments).is_err(), "{data}");
            assert!(decode_event::<(Binary,)>(&data, &attachments).is_err(), "{data}");
        }
        // Without attachments nothing is binary, and afterwards none are left lying around.
        let data = r#"["ev",{"_placeholder":true,"num":0}]"#;
        assert_eq!(decode_event(data, &attachments), Ok(bin(b"secret")));
        assert!(event::<Binary>(data).is_err());
        assert!(serde_json::from_str::<Binary>(r#"{"_placeholder":true,"num":0}"#).is_err());
        assert_eq!(event::<Value>(data), Ok(json!({"_placeholder": true, "num": 0})));
    }

    #[test]
    fn decodes_and_encodes_inside_each_other_keep_their_attachments_apart() {
        #[derive(Debug)]
        struct Meddling(Binary);
        impl<'de> Deserialize<'de> for Meddling {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let data = r#"[{"_placeholder":true,"num":0}]"#;
                assert!(decode_ack::<Binary>(data, &[]).is_err());
                assert_eq!(decode_ack::<Binary>(data, &parts(&[b"inner"])), Ok(bin(b"inner")));
                assert_eq!(encode_ack(&RawValue::from_string("1".into()).unwrap()).unwrap().attachments.len(), 0);
                assert_eq!(encode_ack(&(bin(b"x"), Bytes::from_static(b"y"))).unwrap().attachments.len(), 2);
                Binary::deserialize(deserializer).map(Self)
            }
        }
        let meddling: Meddling = decode_ack(r#"[{"_placeholder":true,"num":0}]"#, &parts(&[b"outer"])).unwrap();
        assert_eq!(meddling.0, bin(b"outer"));
    }

    #[test]
    fn a_panic_inside_a_decode_leaves_nothing_beside_serde() {
        #[derive(Debug)]
        struct Panics;
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                std::panic::resume_unwind(Box::new("on purpose"))
            }
        }
        let attachments = parts(&[b"secret"]);
        assert!(std::panic::catch_unwind(|| decode_ack::<Panics>("[1]", &attachments)).is_err());
        BESIDE.with_borrow(|beside| assert!(beside.attachments.is_empty()));
    }

    #[test]
    fn args_take_everything_and_give_it_back_unchanged() {
        for data in [
            r#"["echo"]"#,
            r#"["echo",1.0,1e3,-0,"\u0041",{"b" : 1,"a":2},[ ],null,123456789012345678901234567890]"#,
            r#"["echo",{"num":0,"_placeholder":true},{"deep":[{"_placeholder":true, "num":1}]}]"#,
            r#"["echo",[{"_placeholder":true,"num":1}],{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        ] {
            let attachments = if data.contains("_placeholder") { parts(&[b"zero", b"one"]) } else { Vec::new() };
            let all: Args = decode_event(data, &attachments).unwrap();
            let again = encode_event("echo", &all).unwrap();
            assert_eq!((again.data.as_str(), &again.attachments), (data, &attachments));
            let in_tuple = encode_event("echo", &(all,)).unwrap();
            assert_eq!((in_tuple.data.as_str(), in_tuple.attachments), (data, attachments));
        }
    }

    #[test]
    fn args_show_what_they_hold() {
        let data = r#"["ev","a",{"_placeholder":true,"num":0},{"deep":{"_placeholder":true,"num":1}},[1,2]]"#;
        let all: Args = decode_event(data, &parts(&[b"zero", b"one"])).unwrap();
        assert_eq!((all.len(), all.is_empty(), all.attachments().len()), (4, false, 2));
        assert_eq!([0, 1, 2, 3, 4].map(|position| all.is_binary(position)), [false, true, false, false, false]);
        assert_eq!(all.get(0), Ok("a".to_string()));
        assert_eq!(all.get(1), Ok(bin(b"zero")));
        assert_eq!(all.get(2), Ok(BTreeMap::from([("deep".to_string(), bin(b"one"))])));
        assert_eq!(all.get(2), Ok(BTreeMap::from([("deep".to_string(), Bytes::from_static(b"one"))])));
        assert_eq!(all.get(3), Ok((1, 2)));
        assert_eq!(all.get(4), Ok(None::<u8>));
        assert_eq!(all.get::<u8>(4), Err(DecodeError::Missing { position: 4 }));
        assert!(matches!(all.get::<u8>(3), Err(DecodeError::Argument { position: 3, .. })));
        assert_eq!((all.raw(3), all.raw(4)), (Some("[1,2]"), None));
        assert_eq!(
            all.to_values().unwrap(),
            [
                json!("a"),
                json!({"_placeholder": true, "num": 0}),
                json!({"deep": {"_placeholder": true, "num": 1}}),
                json!([1, 2])
            ]
        );
        assert!(Args::default().is_empty());
        assert_eq!(text(&Args::default()), r#"["ev"]"#);
    }

    #[test]
    fn args_in_the_outermost_tuple_are_the_rest() {
        let (room, rest): (String, Args) = event(r#"["pub","lobby",1,[2]]"#).unwrap();
        assert_eq!((room.as_str(), text(&rest)), ("lobby", r#"["ev",1,[2]]"#.into()));
        assert_eq!(text(&("x", &rest, "y", &Args::default())), r#"["ev","x",1,[2],"y"]"#);
        let (_, rest): (String, Args) = event(r#"["pub","lobby"]"#).unwrap();
        assert_eq!(text(&(&rest, "y")), r#"["ev","y"]"#);
        let (_, rest): (Option<String>, Args) = event(r#"["pub"]"#).unwrap();
        assert!(rest.is_empty());
        // Deeper they are a list, both ways.
        let inside: Vec<Args> = event(r#"["ev",[[1,2],[]]]"#).unwrap();
        assert_eq!(text(&inside), r#"["ev",[[1,2],[]]]"#);
        assert!(event::<Option<Args>>(r#"["ev",{"a":1}]"#).is_err());
    }

    #[test]
    fn the_rest_brings_its_own_attachments_and_no_others() {
        let data = r#"["ev",{"_placeholder":true,"num":0},"x",[{"_placeholder":true,"num":2},{"num":2,"_placeholder":true}],{"_placeholder":true,"num":1}]"#;
        let (first, rest): (Binary, Args) = decode_event(data, &parts(&[b"a", b"b", b"c"])).unwrap();
        assert_eq!(rest.attachments(), parts(&[b"b", b"c"]));
        assert_eq!(rest.get(2), Ok(bin(b"b")));
        assert_eq!(rest.get(1), Ok(vec![bin(b"c"), bin(b"c")]));
        let again = encode_event("ev", &(first, &rest, vec![&rest])).unwrap();
        assert_eq!(
            again.data,
            r#"["ev",{"_placeholder":true,"num":0},"x",[{"_placeholder":true,"num":2},{"num":2,"_placeholder":true}],{"_placeholder":true,"num":1},[["x",[{"_placeholder":true,"num":4},{"num":4,"_placeholder":true}],{"_placeholder":true,"num":3}]]]"#
        );
        assert_eq!(again.attachments, parts(&[b"a", b"b", b"c", b"b", b"c"]));

        let (_, rest): (Binary, Args) =
            decode_event(r#"["ev",{"_placeholder":true,"num":0},"x"]"#, &parts(&[b"a"])).unwrap();
        assert_eq!(text(&rest), r#"["ev","x"]"#);
    }

    #[test]
    fn a_placeholder_that_fits_nothing_goes_no_further() {
        let stray = r#"["ev",1,{"deep":[{"_placeholder":true,"num":1}]}]"#;
        assert_eq!(
            decode_event::<Args>(stray, &parts(&[b"a"])).unwrap_err(),
            DecodeError::Argument {
                position: 1,
                problem: "a placeholder names no attachment at line 1 column 49".into()
            }
        );
        for num in [r#""0""#, "null", "{}", "0.5", "-1", r#"{"_placeholder":true,"num":0}"#] {
            let data = format!(r#"["ev",{{"_placeholder":true,"num":{num}}}]"#);
            assert!(decode_event::<Args>(&data, &parts(&[b"a"])).is_err(), "{data}");
        }
        // In a packet without attachments it is an ordinary object. Something binary must not give it a new meaning.
        let (look_alike, all): (Value, Args) =
            event(&stray.replace(r#"1,{"#, r#"{"_placeholder":true,"num":7},{"#)).unwrap();
        assert!(encode_event("ev", &(&look_alike, &all)).is_ok());
        assert_eq!(encode_event("ev", &(&look_alike, bin(b"a"))), Err(EncodeError::StrayPlaceholder));
        assert_eq!(encode_event("ev", &(bin(b"a"), &all)), Err(EncodeError::StrayPlaceholder));
        let in_range = json!({"_placeholder": true, "num": 0});
        assert_eq!(encode_event("ev", &(in_range, bin(b"a"))), Err(EncodeError::StrayPlaceholder));
    }

    #[test]
    fn a_value_is_serialised_exactly_once() {
        struct Once(Cell<bool>);
        impl Serialize for Once {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                assert!(!self.0.replace(true), "serialised twice");
                serializer.collect_seq([1, 2])
            }
        }
        let once = || Once(Cell::new(false));
        assert_eq!(text(&once()), r#"["ev",[1,2]]"#);
        assert_eq!(text(&(once(), once())), r#"["ev",[1,2],[1,2]]"#);
    }

    #[test]
    fn foreign_wrappers_that_change_bytes_get_what_they_wrote() {
        struct Reversed(Binary);
        impl Serialize for Reversed {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0.iter().rev().copied().collect::<Vec<_>>())
            }
        }
        assert_eq!(encode_ack(&Reversed(bin(b"abc"))).unwrap().attachments, parts(&[b"cba"]));
    }

    #[test]
    fn ten_attachments_pass_and_eleven_do_not() {
        let ten = vec![bin(b"x"); 10];
        assert_eq!(encode_event("ev", &ten).unwrap().attachments.len(), 10);
        let refused = Err(EncodeError::TooManyAttachments { count: 11 });
        assert_eq!(encode_event("ev", &vec![bin(b"x"); 11]), refused);
        assert_eq!(encode_ack(&(bin(b"x"), &ten)), refused);
        let packet = encode_event("ev", &ten).unwrap();
        let all: Args = decode_event(&packet.data, &packet.attachments).unwrap();
        assert_eq!(encode_event("ev", &(bin(b"x"), all)), refused);
    }

    #[test]
    fn reserved_names_are_refused_and_others_are_escaped() {
        for name in RESERVED {
            assert_eq!(encode_event(name, &1), Err(EncodeError::Reserved(name)));
        }
        for (name, data) in [
            ("error", r#"["error",1]"#),
            ("Connect", r#"["Connect",1]"#),
            ("", r#"["",1]"#),
            ("[", r#"["[",1]"#),
            ("a\"b\n\u{e9}", "[\"a\\\"b\\n\u{e9}\",1]"),
        ] {
            assert_eq!(encode_event(name, &1).unwrap().data, data);
            assert_eq!(event(data), Ok(1));
        }
    }

    #[test]
    fn numbers_that_json_lacks_become_null() {
        assert_eq!(text(&(f64::NAN, f64::INFINITY, f32::NEG_INFINITY, 1.5)), r#"["ev",null,null,null,1.5]"#);
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        let decode_errors = [
            (
                event::<(u8, u32)>(r#"["ev",1,"two"]"#).map(drop),
                r#"argument 1: invalid type: string "two", expected u32 at line 1 column 13"#,
            ),
            (
                event::<String>(r#"["ev",{}]"#).map(drop),
                "argument 0: invalid type: map, expected a string at line 1 column 6",
            ),
            (event::<String>(r#"["ev"]"#).map(drop), "argument 0 is missing"),
            (event::<(u8, Vec<u8>)>(r#"["ev",1]"#).map(drop), "argument 1 is missing"),
            (event::<Goal>(r#"["ev",{}]"#).map(drop), "argument 0: missing field `player` at line 1 column 8"),
            (
                event::<Binary>(r#"["ev","x"]"#).map(drop),
                r#"argument 0: invalid type: string "x", expected a binary attachment at line 1 column 9"#,
            ),
            (
                event::<Binary>(r#"["ev",{}]"#).map(drop),
                "argument 0: invalid type: map, expected a binary attachment at line 1 column 8",
            ),
            (
                decode_ack::<Bytes>(r#"[{"_placeholder":true,"num":3}]"#, &parts(&[b"a"])).map(drop),
                "argument 0: there is no attachment 3, the packet has 1 at line 1 column 30",
            ),
            (event::<u8>("{}").map(drop), "the arguments are not a JSON array"),
            (event::<()>("7").map(drop), "the arguments are not a JSON array"),
            (
                event::<u8>(r#"["ev",1"#).map(drop),
                "the arguments are not valid JSON: EOF while parsing a list at line 1 column 7",
            ),
            (
                event::<()>(r#"["ev",1,]"#).map(drop),
                "the arguments are not valid JSON: trailing comma at line 1 column 9",
            ),
            (
                event::<()>(r#"["ev"]x"#).map(drop),
                "the arguments are not valid JSON: trailing characters at line 1 column 7",
            ),
        ];
        for (result, message) in decode_errors {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
        let encode_errors = [
            (encode_event("connect", &()), "the event name `connect` is reserved"),
            (encode_event("ev", &vec![bin(b"x"); 12]), "12 binary values in one packet, at most 10 are allowed"),
            (
                encode_event("ev", &BTreeMap::from([(vec![1], 2)])),
                "the arguments do not fit JSON: key must be a string",
            ),
            (
                encode_event("ev", &(bin(b"x"), json!({"_placeholder": true}))),
                "an object looks like the placeholder of an attachment",
            ),
        ];
        for (result, message) in encode_errors {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_error_does_not_repeat_all_that_the_peer_sent() {
        let data = format!(r#"["ev","{}"]"#, "\u{e9}".repeat(100_000));
        let Err(DecodeError::Argument { problem, .. }) = event::<u8>(&data) else { panic!("a string is no number") };
        assert_eq!(problem.chars().count(), PROBLEM_CHARS_MAX + 1);
    }

    #[test]
    fn json_values_keep_placeholders_as_they_are() {
        let data = r#"["ev",{"_placeholder":true,"num":0}]"#;
        assert_eq!(decode_event(data, &parts(&[b"a"])), Ok(json!({"_placeholder": true, "num": 0})));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow() {
        for (open, close) in [("[", "]"), (r#"{"num":"#, "}"), (r#"{"a":["#, "]}")] {
            let nested = |depth: usize| format!(r#"["ev",{}1{}]"#, open.repeat(depth), close.repeat(depth));
            assert!(event::<Value>(&nested(60)).is_ok());
            let deep = nested(100_000);
            assert!(matches!(event::<Value>(&deep), Err(DecodeError::Json(_))));
            assert!(decode_event::<Value>(&deep, &parts(&[b"a"])).is_err());
            assert!(event::<Binary>(&deep).is_err());
            assert_eq!(event(&deep), Ok(()));
            let all: Args = decode_event(&deep, &parts(&[b"a"])).unwrap();
            assert!(all.to_values().is_err());
            assert_eq!(text(&all), deep);
        }
    }

    #[test]
    fn outside_a_packet_binary_is_what_the_format_makes_of_bytes() {
        assert_eq!(serde_json::to_string(&bin(&[1, 2])).unwrap(), "[1,2]");
        let all: Args = event(r#"["ev",1,{"a": 2}]"#).unwrap();
        assert_eq!(serde_json::to_string(&all).unwrap(), r#"[1,{"a": 2}]"#);
        assert_eq!(serde_json::from_str::<Args>("[1, 2]").unwrap().len(), 2);
    }

    // ---- Fuzz ----

    fn splitmix(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            (splitmix(&mut self.0) % n as u64) as usize
        }

        fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
            of[self.below(of.len())]
        }
    }

    fn env(name: &str, default: u64) -> u64 {
        std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
    }

    const PIECES: &[&str] = &[
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\\",
        " ",
        "0",
        "1",
        "-",
        "1e9",
        "null",
        "true",
        "false",
        "\"a\"",
        "\"num\"",
        "\"_placeholder\"",
        "\"\\u005fplaceholder\"",
        "{\"_placeholder\":true,\"num\":0}",
        "{\"num\":1,\"_placeholder\":true}",
        "[\"ev\",",
        "\u{e9}",
        "\u{1F600}",
        "\\u",
        "\"x\":",
    ];

    /// Mostly JSON, then damaged now and then.
    fn random_json(random: &mut Random, depth: usize) -> String {
        let several = |random: &mut Random, open: &str, close: &str, member: &mut dyn FnMut(&mut Random) -> String| {
            let members: Vec<_> = (0..random.below(4)).map(|_| member(random)).collect();
            format!("{open}{}{close}", members.join(","))
        };
        match random.below(if depth == 0 { 6 } else { 9 }) {
            0 => {
                random.pick(&["null", "true", "false", "0", "-1.5", "1e400", "\"\"", "\"\\ud83d\"", "\"[\\\"\""]).into()
            }
            1 => format!("{}", random.below(300)),
            2 => format!("\"{}\"", random.below(1000)),
            3 => format!("{{\"_placeholder\":true,\"num\":{}}}", random.below(3)),
            4 => format!("{{\"num\": {} ,\"_placeholder\":true}}", random.below(3)),
            5 => random.pick(PIECES).into(),
            6 => several(random, "[", "]", &mut |random| random_json(random, depth - 1)),
            _ => several(random, "{", "}", &mut |random| {
                let key = random.pick(&[
                    "\"a\"",
                    "\"num\"",
                    "\"_placeholder\"",
                    "\"player\"",
                    "\"type\"",
                    "\"pixels\"",
                    "\"Line\"",
                ]);
                format!("{key}:{}", random_json(random, depth - 1))
            }),
        }
    }

    fn random_data(random: &mut Random) -> String {
        if random.below(4) == 0 {
            return (0..random.below(30)).map(|_| random.pick(PIECES)).collect();
        }
        let mut data = format!("[\"ev\",{},{}]", random_json(random, 3), random_json(random, 3));
        if random.below(3) == 0 {
            let cuts: Vec<_> = data.char_indices().map(|(at, _)| at).collect();
            let at = cuts[random.below(cuts.len())];
            match random.below(3) {
                0 => data.truncate(at),
                1 => data.insert_str(at, random.pick(PIECES)),
                _ => drop(data.remove(at)),
            }
        }
        data
    }

    #[test]
    fn decode_never_panics_and_what_args_take_can_be_sent_on() {
        let seed = env("FANFARE_FUZZ_SEED", 1);
        let runs = env("FANFARE_FUZZ_RUNS", 20_000);
        eprintln!("FANFARE_FUZZ_SEED={seed} FANFARE_FUZZ_RUNS={runs}");
        let mut random = Random(seed);
        let mut sent_on = 0;
        for _ in 0..runs {
            let data = random_data(&mut random);
            let attachments = parts(&[&b"zero"[..], &b"one"[..]][..random.below(3)]);
            let _ = decode_event::<()>(&data, &attachments);
            let _ = decode_event::<String>(&data, &attachments);
            let _ = decode_event::<(Option<u8>, Binary)>(&data, &attachments);
            let _ = decode_event::<(Bytes, Vec<Bytes>)>(&data, &attachments);
            let _ = decode_event::<Goal>(&data, &attachments);
            let _ = decode_event::<Shape>(&data, &attachments);
            let _ = decode_event::<(Tagged, Untagged)>(&data, &attachments);
            let _ = decode_event::<(Flat, Box<RawValue>)>(&data, &attachments);
            let _ = decode_ack::<(Value, Value)>(&data, &attachments);
            let _ = decode_ack::<(Value, Args)>(&data, &attachments);
            let _ = placeholders_fit(&data, attachments.len());

            let valid = serde_json::from_str::<Vec<&RawValue>>(&data).is_ok() && !data.is_empty();
            let fits = attachments.is_empty() || placeholders_fit(&data, attachments.len());
            let all = decode_event::<Args>(&data, &attachments);
            assert!(all.is_err() || valid || data.is_empty(), "{data}");
            let Ok(all) = all else {
                assert!(!valid || !fits, "{data}");
                continue;
            };
            sent_on += 1;
            let _ = all.to_values();
            let alone = encode_event("ev", &all).unwrap();
            let again: Args = decode_event(&alone.data, &alone.attachments).unwrap();
            assert_eq!(encode_event("ev", &again).unwrap(), alone, "{data}");

            // After another attachment each placeholder still names the bytes that it named.
            let Ok(shifted) = encode_event("ev", &(bin(b"first"), &all)) else {
                assert!(attachments.is_empty(), "{data}");
                continue;
            };
            let (_, shifted): (Binary, Args) = decode_event(&shifted.data, &shifted.attachments).unwrap();
            for position in 0..all.len() {
                assert_eq!(all.get::<Binary>(position).ok(), shifted.get::<Binary>(position).ok(), "{data}");
                assert_eq!(all.get::<Vec<Binary>>(position).ok(), shifted.get::<Vec<Binary>>(position).ok(), "{data}");
            }
        }
        assert!(runs < 1000 || sent_on > runs / 10, "{sent_on} of {runs} were sent on: the fuzz has become blind");
    }
}
