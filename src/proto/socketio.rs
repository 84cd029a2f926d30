//! Socket.IO v5: the packets inside Engine.IO messages.
//!
//! Takes the text after a message's leading `4` and gives a [`Packet`] that borrows from it; gives [`Prepared`] packets
//! for what a server sends. An [`Assembler`] per session joins a binary packet's text with the attachments that follow.
//!
//! ```text
//!   type [attachments -] [namespace ,] [ack id] [JSON]
//!
//!   2["a",1]                   an event "a" in the namespace `/`
//!   2/admin,7["a"]             the same in `/admin`, asking for ack 7
//!   52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]     and then two binary messages
//! ```
//!
//! The one idea: JSON is checked but not built. An event keeps its arguments as the text that came, because most are
//! passed on or read once into the embedder's own type. One pass proves the text valid, a short look finds the name, and
//! a plain event costs no allocation for its data.
//!
//! Neither pass recurses, and both are linear: depth costs a byte or two of heap per level, so that no nesting that fits
//! into a message can overflow the stack.
//!
//! Rules: Socket.IO protocol, revision 5, "Packet encoding"; where the reference server is laxer than its protocol (an
//!        event without payload, a blank as ack id, `1e0` as a count, ids rounded like floating point) this refuses.
//! Limits: [`ATTACHMENTS_MAX`] per packet; each message is at most `payload_bytes_max` (Settings).
//! Not here: who may send what and when, such as an event before `CONNECT` (the shard).

pub(crate) mod placeholders;

use std::borrow::Cow;
use std::ops::Range;
use std::{error, fmt};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::prepared::{Builder, Prepared};
use placeholders::{number_literal, placeholders, string_literal, unescape};

/// The most attachments of one packet, in either direction: the reference's parsers refuse more, clients' included.
pub const ATTACHMENTS_MAX: usize = 10;

/// Event names that mean something to the libraries themselves. Neither side may emit them.
pub const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// The namespace of packets that name none.
const DEFAULT_NAMESPACE: &str = "/";

/// One Socket.IO packet, borrowed from the text that it was decoded from.
///
/// `namespace` is `/` when the packet named none. `data` is JSON as it came, without the whitespace around it.
/// `attachments` is how many binary messages belong to the packet; it is zero for the types without binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: a client wants to join the namespace.
    Connect {
        /// Where to.
        namespace: &'a str,
        /// What the client says about itself: a JSON object.
        auth: Option<&'a str>,
    },
    /// `1`: a socket leaves the namespace.
    Disconnect {
        /// Which one.
        namespace: &'a str,
    },
    /// `2` or `5`: an event.
    Event {
        /// Where to.
        namespace: &'a str,
        /// Asks for an ack with this id.
        ack_id: Option<u64>,
        /// The first element of `data`, decoded. A number is a name too: it becomes its text, as it was written.
        name: Cow<'a, str>,
        /// The whole JSON array, name included; see [`split_args`].
        data: &'a str,
        /// How many binary messages follow.
        attachments: usize,
    },
    /// `3` or `6`: the answer to an event.
    Ack {
        /// The event's namespace.
        namespace: &'a str,
        /// The event's ack id.
        ack_id: u64,
        /// A JSON array of arguments, `[]` when the peer sent none.
        data: &'a str,
        /// How many binary messages follow.
        attachments: usize,
    },
    /// `4`: a `CONNECT` is refused. Only servers say so; whoever decodes for a server treats it as a broken rule.
    ConnectError {
        /// The namespace that was refused.
        namespace: &'a str,
        /// Why: a JSON object, or a string from old servers.
        data: &'a str,
    },
}

impl<'a> Packet<'a> {
    /// The namespace that this packet is for.
    pub fn namespace(&self) -> &'a str {
        match *self {
            Packet::Connect { namespace, .. }
            | Packet::Disconnect { namespace }
            | Packet::Event { namespace, .. }
            | Packet::Ack { namespace, .. }
            | Packet::ConnectError { namespace, .. } => namespace,
        }
    }

    /// How many binary messages belong to this packet.
    pub fn attachments(&self) -> usize {
        match *self {
            Packet::Event { attachments, .. } | Packet::Ack { attachments, .. } => attachments,
            Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. } => 0,
        }
    }
}

/// The rule that a peer's packet broke. The session ends with "forced close".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A packet without even a type.
    Empty,
    /// The type is not one of `0` to `6`.
    UnknownType,
    /// A binary packet must begin with a count in digits, and `-`.
    AttachmentCountMalformed,
    /// A binary packet must have at least one attachment.
    AttachmentCountZero,
    /// More attachments than [`ATTACHMENTS_MAX`].
    TooManyAttachments,
    /// An ack must have an id.
    AckIdMissing,
    /// An ack id must be smaller than 2⁶⁴.
    AckIdTooLarge,
    /// This type of packet must have a payload.
    PayloadMissing,
    /// A disconnect must not have a payload.
    PayloadForbidden,
    /// The payload of this type must be a JSON object.
    PayloadNotObject,
    /// The payload of this type must be a JSON array.
    PayloadNotArray,
    /// The payload is not valid JSON, or something follows it.
    InvalidJson,
    /// An event must have a name.
    NameMissing,
    /// An event's name must be a string or a number.
    NameWrongType,
    /// The event's name is one of [`RESERVED_EVENTS`].
    NameReserved,
    /// The event's name holds half of a surrogate pair, which is no character.
    NameNotUnicode,
    /// A placeholder must have as `num` the index of one of the packet's attachments.
    PlaceholderOutOfRange,
    /// A text packet came while attachments of the one before were owed.
    AttachmentsOwed,
    /// A binary message came while none was owed.
    NoAttachmentOwed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Empty => "empty Socket.IO packet",
            Error::UnknownType => "unknown Socket.IO packet type",
            Error::AttachmentCountMalformed => "binary packet without an attachment count",
            Error::AttachmentCountZero => "binary packet with zero attachments",
            Error::TooManyAttachments => "too many attachments",
            Error::AckIdMissing => "ack without an id",
            Error::AckIdTooLarge => "ack id larger than 64 bits",
            Error::PayloadMissing => "packet without its payload",
            Error::PayloadForbidden => "payload in a packet that has none",
            Error::PayloadNotObject => "payload that is not an object",
            Error::PayloadNotArray => "payload that is not an array",
            Error::InvalidJson => "payload that is not valid JSON",
            Error::NameMissing => "event without a name",
            Error::NameWrongType => "event name that is neither string nor number",
            Error::NameReserved => "reserved event name",
            Error::NameNotUnicode => "event name that is not Unicode",
            Error::PlaceholderOutOfRange => "placeholder for an attachment that does not exist",
            Error::AttachmentsOwed => "text while attachments are owed",
            Error::NoAttachmentOwed => "binary message that no packet owes",
        })
    }
}

impl error::Error for Error {}

/// Decodes the text of one packet: what follows the `4` of an Engine.IO message.
///
/// A binary packet is decoded like any other, placeholders checked; joining it with its attachments is the
/// [`Assembler`]'s work.
///
/// # Errors
///
/// The rule that `text` breaks.
pub fn decode(text: &str) -> Result<Packet<'_>, Error> {
    let mut chars = text.chars();
    let kind = chars.next().ok_or(Error::Empty)?;
    let mut rest = Rest(chars.as_str());
    match kind {
        '0' => rest.connect(),
        '1' => rest.disconnect(),
        '2' => rest.event(0),
        '3' => rest.ack(0),
        '4' => rest.connect_error(),
        '5' => rest.attachments().and_then(|count| rest.event(count)),
        '6' => rest.attachments().and_then(|count| rest.ack(count)),
        _ => Err(Error::UnknownType),
    }
}

/// Splits a JSON array, such as an event's data, into its elements. They borrow from `data` and are not parsed further.
///
/// # Errors
///
/// [`Error::PayloadNotArray`] or [`Error::InvalidJson`]; neither for the data of a decoded event or ack.
pub fn split_args(data: &str) -> Result<Vec<&RawValue>, Error> {
    if !data.trim_ascii_start().starts_with('[') {
        return Err(Error::PayloadNotArray);
    }
    serde_json::from_str(data).map_err(|_| Error::InvalidJson)
}

/// What is left of a packet's text. Each part takes itself from the front; the order of calls is the order on the wire.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn connect(&mut self) -> Result<Packet<'a>, Error> {
        let namespace = self.namespace();
        let auth = self.payload().map(|text| json(text, &['{'], Error::PayloadNotObject)).transpose()?;
        Ok(Packet::Connect { namespace, auth })
    }

    fn disconnect(&mut self) -> Result<Packet<'a>, Error> {
        let namespace = self.namespace();
        match self.payload() {
            None => Ok(Packet::Disconnect { namespace }),
            Some(_) => Err(Error::PayloadForbidden),
        }
    }

    fn event(&mut self, attachments: usize) -> Result<Packet<'a>, Error> {
        let namespace = self.namespace();
        let ack_id = self.ack_id()?;
        let data = self.payload().ok_or(Error::PayloadMissing)?;
        let data = json(data, &['['], Error::PayloadNotArray)?;
        let name = event_name(data)?;
        check_placeholders(data, attachments)?;
        Ok(Packet::Event { namespace, ack_id, name, data, attachments })
    }

    fn ack(&mut self, attachments: usize) -> Result<Packet<'a>, Error> {
        let namespace = self.namespace();
        let ack_id = self.ack_id()?.ok_or(Error::AckIdMissing)?;
        let data = self.payload().unwrap_or("[]");
        let data = json(data, &['['], Error::PayloadNotArray)?;
        check_placeholders(data, attachments)?;
        Ok(Packet::Ack { namespace, ack_id, data, attachments })
    }

    fn connect_error(&mut self) -> Result<Packet<'a>, Error> {
        let namespace = self.namespace();
        let data = self.payload().ok_or(Error::PayloadMissing)?;
        let data = json(data, &['{', '"'], Error::PayloadNotObject)?;
        Ok(Packet::ConnectError { namespace, data })
    }

    /// The count before `-`, only in binary packets.
    fn attachments(&mut self) -> Result<usize, Error> {
        let count = self.digits();
        self.0 = self.0.strip_prefix('-').ok_or(Error::AttachmentCountMalformed)?;
        if count.is_empty() {
            return Err(Error::AttachmentCountMalformed);
        }
        match count.parse() {
            Ok(0) => Err(Error::AttachmentCountZero),
            Ok(count @ 1..=ATTACHMENTS_MAX) => Ok(count),
            // Digits that do not parse are a number too large for the machine.
            Ok(_) | Err(_) => Err(Error::TooManyAttachments),
        }
    }

    /// A namespace is there only when it begins with `/`. It ends at the first comma, or with the packet.
    fn namespace(&mut self) -> &'a str {
        if !self.0.starts_with('/') {
            return DEFAULT_NAMESPACE;
        }
        let (namespace, rest) = self.0.split_once(',').unwrap_or((self.0, ""));
        self.0 = rest;
        namespace
    }

    fn ack_id(&mut self) -> Result<Option<u64>, Error> {
        match self.digits() {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| Error::AckIdTooLarge),
        }
    }

    fn payload(&self) -> Option<&'a str> {
        (!self.0.is_empty()).then_some(self.0)
    }

    fn digits(&mut self) -> &'a str {
        let len = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(len);
        self.0 = rest;
        digits
    }
}

/// Checks that all of `text` is one JSON value that begins with one of `openings`, else it is `wrong_type`. Whitespace
/// after the value is JSON too, but not part of what is given back.
fn json<'a>(text: &'a str, openings: &[char], wrong_type: Error) -> Result<&'a str, Error> {
    if !text.starts_with(openings) {
        return Err(wrong_type);
    }
    serde_json::from_str(text).map(RawValue::get).map_err(|_| Error::InvalidJson)
}

/// The name in an event's data, which is known to be a valid JSON array.
fn event_name(data: &str) -> Result<Cow<'_, str>, Error> {
    let first = data[1..].trim_ascii_start();
    match first.as_bytes()[0] {
        b'"' => {
            let name = unescape(string_literal(first)).ok_or(Error::NameNotUnicode)?;
            let reserved = RESERVED_EVENTS.contains(&name.as_ref());
            if reserved { Err(Error::NameReserved) } else { Ok(name) }
        }
        b'-' | b'0'..=b'9' => Ok(Cow::Borrowed(number_literal(first))),
        b']' => Err(Error::NameMissing),
        _ => Err(Error::NameWrongType),
    }
}

/// Checks that each placeholder in `data`, which is known to be valid JSON, names one of the attachments. A packet
/// without attachments has no placeholders: there, such an object is an object like any other.
fn check_placeholders(data: &str, attachments: usize) -> Result<(), Error> {
    let names_one = |num: Range<usize>| data[num].parse().is_ok_and(|num: usize| num < attachments);
    if attachments == 0 || placeholders(data).into_iter().all(names_one) {
        Ok(())
    } else {
        Err(Error::PlaceholderOutOfRange)
    }
}

/// Joins the text of binary packets with their attachments; one per session, because all namespaces share one order of
/// messages. Plain packets pass through untouched.
///
/// Eight bytes while idle. While gathering it holds one text and up to [`ATTACHMENTS_MAX`] attachments, each as large as
/// the transport lets a message be; [`bytes`](Self::bytes) tells how much. An error changes nothing.
#[derive(Debug, Default)]
pub struct Assembler {
    gathering: Option<Box<Gathering>>,
}

#[derive(Debug)]
struct Gathering {
    text: Box<str>,
    /// More than `attachments.len()`, else the packet would be whole.
    owed: usize,
    attachments: Vec<Bytes>,
}

/// A binary packet together with its attachments. The fields are open so that a receiver can keep the attachments
/// while it looks at the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The packet's text, which [`decode`] has already accepted.
    pub text: Box<str>,
    /// The attachments in the order of their placeholders' `num`. Not each must be used by a placeholder.
    pub attachments: Vec<Bytes>,
}

impl Assembler {
    /// Takes a text message. Gives the packet, or `None` when it must wait for its attachments.
    ///
    /// # Errors
    ///
    /// [`Error::AttachmentsOwed`] while gathering, else what [`decode`] says.
    pub fn text<'a>(&mut self, text: &'a str) -> Result<Option<Packet<'a>>, Error> {
        if self.gathering.is_some() {
            return Err(Error::AttachmentsOwed);
        }
        let packet = decode(text)?;
        match packet.attachments() {
            0 => Ok(Some(packet)),
            owed => {
                let attachments = Vec::with_capacity(owed);
                self.gathering = Some(Box::new(Gathering { text: text.into(), owed, attachments }));
                Ok(None)
            }
        }
    }

    /// Takes a binary message, copying it out of the receive buffer. Gives the packet once nothing more is owed.
    ///
    /// # Errors
    ///
    /// [`Error::NoAttachmentOwed`].
    pub fn binary(&mut self, data: &[u8]) -> Result<Option<Whole>, Error> {
        let gathering = self.gathering.as_mut().ok_or(Error::NoAttachmentOwed)?;
        gathering.attachments.push(Bytes::copy_from_slice(data));
        if gathering.attachments.len() < gathering.owed {
            return Ok(None);
        }
        let whole = self.gathering.take().map(|gathered| Whole::from(*gathered));
        Ok(whole)
    }

    /// How many bytes are kept for a packet that is not whole yet. Zero while idle.
    pub fn bytes(&self) -> usize {
        let kept =
            |gathering: &Gathering| gathering.text.len() + gathering.attachments.iter().map(Bytes::len).sum::<usize>();
        self.gathering.as_deref().map_or(0, kept)
    }
}

impl From<Gathering> for Whole {
    fn from(Gathering { text, attachments, .. }: Gathering) -> Whole {
        Whole { text, attachments }
    }
}

impl Whole {
    /// The packet, borrowed from this.
    ///
    /// Decodes the kept text once more: it is short, since what is large came as attachments. Keeping offsets instead
    /// would spare that, should a measurement ever ask for it.
    ///
    /// # Panics
    ///
    /// When somebody has changed `text` into what is no packet.
    pub fn packet(&self) -> Packet<'_> {
        decode(&self.text).expect("it was decoded when it came")
    }
}

/// Prepares an event. `data` is a JSON array that begins with the name; the placeholders in it are the caller's work.
///
/// # Panics
///
/// When there are more attachments than [`ATTACHMENTS_MAX`]: the caller has to refuse that.
pub fn event(namespace: &str, ack_id: Option<u64>, data: &str, attachments: &[Bytes]) -> Prepared {
    encode(if attachments.is_empty() { "42" } else { "45" }, namespace, ack_id, data, attachments)
}

/// Prepares the answer to an event. `data` is a JSON array of arguments; the placeholders in it are the caller's work.
///
/// # Panics
///
/// When there are more attachments than [`ATTACHMENTS_MAX`]: the caller has to refuse that.
pub fn ack(namespace: &str, ack_id: u64, data: &str, attachments: &[Bytes]) -> Prepared {
    encode(if attachments.is_empty() { "43" } else { "46" }, namespace, Some(ack_id), data, attachments)
}

/// Prepares the answer to a `CONNECT` that is granted. `payload` is a JSON object with the socket's id, `{"sid":…}`.
pub fn connect(namespace: &str, payload: &str) -> Prepared {
    encode("40", namespace, None, payload, &[])
}

/// Prepares the answer to a `CONNECT` that is refused. `payload` is a JSON object with the reason, `{"message":…}`.
pub fn connect_error(namespace: &str, payload: &str) -> Prepared {
    encode("44", namespace, None, payload, &[])
}

/// Prepares the end of a socket: the server disconnects it from the namespace.
pub fn disconnect(namespace: &str) -> Prepared {
    encode("41", namespace, None, "", &[])
}

/// Writes `types` (the Engine.IO and the Socket.IO one), then the parts that are there.
fn encode(types: &str, namespace: &str, ack_id: Option<u64>, payload: &str, attachments: &[Bytes]) -> Prepared {
    /// Both types, the attachment count with `-`, the comma, and the longest ack id.
    const HEAD_BYTES_MAX: usize = 2 + 3 + 1 + 20;
    assert!(attachments.len() <= ATTACHMENTS_MAX, "{} attachments in one packet", attachments.len());
    debug_assert!(namespace.starts_with('/') && !namespace.contains(','), "{namespace:?} is no namespace");

    let mut builder = Builder::with_attachments(HEAD_BYTES_MAX + namespace.len() + payload.len(), attachments);
    builder.put(types);
    if !attachments.is_empty() {
        builder.put_number(attachments.len() as u64).put("-");
    }
    if namespace != DEFAULT_NAMESPACE {
        builder.put(namespace).put(",");
    }
    if let Some(ack_id) = ack_id {
        builder.put_number(ack_id);
    }
    builder.put(payload);
    builder.finish()
}

#[cfg(test)]
mod tests;
