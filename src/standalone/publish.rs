//! Publish: the body of `POST /api/publish` becomes events, or a refusal that says what to change.
//!
//! One event, or a batch as a JSON list. A batch is read whole before its first event is sent, so a mistake in the last
//! one sends nothing. Arguments are never taken apart: their JSON text goes into the packet as it came.
//!
//! Limits: `publish_bytes_max`, `publish_batch_max`; `CONFLATE_BYTES_MAX`.
//! Not here: who may publish (guard.rs), and when (gate.rs); what is repeated (keys.rs); HTTP (site.rs).

use super::keys::KEY_BYTES_MAX;
use crate::Counts;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeTuple as _, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The fields that an event may have; `event` alone must be there.
const FIELDS: &str = "namespace, rooms, except, event, args, volatile, conflate";

/// The longest key of `conflate`, in bytes of UTF-8. As long as the longest room a client may join by default: a key is
/// a name, and the server keeps one for each event that it holds or retains.
const CONFLATE_BYTES_MAX: usize = 256;

/// Names with a meaning of their own to Socket.IO; clients refuse them as events.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// What a body asks for.
#[derive(Debug)]
pub struct Publication {
    pub events: Vec<Event>,
    /// Whether it was a list, and the answer is one.
    pub is_batch: bool,
}

/// One event to publish.
#[derive(Debug)]
pub struct Event {
    pub namespace: String,
    /// No room at all means everyone.
    pub rooms: Vec<String>,
    pub except: Vec<String>,
    pub event: String,
    pub args: Arguments,
    pub volatile: bool,
    /// The key by which newer events replace older ones.
    pub conflate: Option<String>,
}

/// JSON texts that become the arguments of an event.
#[derive(Debug, Default)]
pub struct Arguments(Vec<Box<RawValue>>);

/// A tuple spreads: each text is one argument.
impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|arg| tuple.serialize_element(arg))?;
        tuple.end()
    }
}

/// Why nothing was published. The publisher must act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    KeyMissing,
    KeyWrong,
    ForeignOrigin {
        origin: String,
    },
    ForeignHost {
        host: String,
    },
    BodyTooLarge {
        bytes_max: usize,
    },
    BodyTooSlow,
    BodyBroken,
    NotUtf8,
    NotJson {
        problem: String,
    },
    NoEvent,
    BatchTooLarge {
        events: usize,
        events_max: usize,
    },
    /// A field is not what it should be; `at` is `events[3].rooms`, or `rooms` if it is one event.
    Field {
        at: String,
        problem: String,
    },
    UnknownNamespace {
        at: String,
        given: String,
        known: String,
    },
    IdempotencyKey {
        problem: &'static str,
    },
    /// The key was used for another body.
    AnotherBody {
        within: Duration,
    },
    /// The first request with this key and body is not answered yet.
    UnderWay,
    EventsPending {
        events: usize,
        events_max: usize,
    },
    BytesPending {
        bytes: usize,
        bytes_max: usize,
    },
    TooManyPerSecond {
        per_second_max: usize,
        wait: Duration,
    },
    Closing,
}

impl Refusal {
    /// How long the publisher should wait at least until it tries the same again, if that makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::TooManyPerSecond { wait, .. } => Some(*wait),
            Refusal::UnderWay | Refusal::EventsPending { .. } | Refusal::BytesPending { .. } | Refusal::Closing => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::KeyMissing => f.write_str("this server wants its publish key: `Authorization: Bearer KEY`"),
            Refusal::KeyWrong => f.write_str("this is not the server's publish key"),
            Refusal::ForeignOrigin { origin } => {
                write!(
                    f,
                    "a page of {origin:?} may not publish here; a server with server.publish_key lets in whoever shows it"
                )
            }
            Refusal::ForeignHost { host } => write!(
                f,
                "{host:?} is not a name of this machine's loopback, like 127.0.0.1 or localhost; \
                 a server with server.publish_key answers under any name"
            ),
            Refusal::BodyTooLarge { bytes_max } => {
                write!(f, "the body is larger than limits.publish_bytes_max, {bytes_max} bytes")
            }
            Refusal::BodyTooSlow => f.write_str("the body did not arrive within limits.request_timeout"),
            Refusal::BodyBroken => f.write_str("the body ended early"),
            Refusal::NotUtf8 => f.write_str("the body is not UTF-8"),
            Refusal::NotJson { problem } => write!(f, "the body is not JSON: {problem}"),
            Refusal::NoEvent => f.write_str("expected an event, which is an object, or a list of events"),
            Refusal::BatchTooLarge { events, events_max } => {
                write!(f, "{events} events are more than limits.publish_batch_max, {events_max}")
            }
            Refusal::Field { at, problem } => write!(f, "{at}: {problem}"),
            Refusal::UnknownNamespace { at, given, known } => {
                write!(f, "{at}: {given:?} does not exist; the configuration has {known}")
            }
            Refusal::IdempotencyKey { problem } => {
                write!(f, "Idempotency-Key {problem}; allowed: one, of 1 to {KEY_BYTES_MAX} visible ASCII characters")
            }
            Refusal::AnotherBody { within } => write!(
                f,
                "this Idempotency-Key was used for another body within limits.idempotency_time, {} s",
                within.as_secs_f64()
            ),
            Refusal::UnderWay => f.write_str("the first request with this Idempotency-Key is still under way"),
            Refusal::EventsPending { events, events_max } => write!(
                f,
                "the server is behind: {events} events are not fanned out yet, and \
                 limits.publishes_pending_max is {events_max}; nothing was sent, try again later"
            ),
            Refusal::BytesPending { bytes, bytes_max } => write!(
                f,
                "the server is behind: bodies of {bytes} bytes are not fanned out yet, and \
                 limits.publishes_pending_bytes_max is {bytes_max}; nothing was sent, try again later"
            ),
            Refusal::TooManyPerSecond { per_second_max, wait } => write!(
                f,
                "more than limits.publishes_per_second_max, {per_second_max} events a second: there is room in {} ms",
                wait.as_millis()
            ),
            Refusal::Closing => f.write_str("the server is closing"),
        }
    }
}

/// Reads a body. `namespaces` are those that exist.
pub fn read<'n>(
    body: &[u8],
    events_max: usize,
    namespaces: impl Iterator<Item = &'n String> + Clone,
) -> Result<Publication, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::NotUtf8)?;
    let whole: &RawValue =
        serde_json::from_str(text).map_err(|error| Refusal::NotJson { problem: error.to_string() })?;
    match whole.get().as_bytes()[0] {
        b'{' => {
            let event = read_event(whole, "", namespaces)?;
            Ok(Publication { events: vec![event], is_batch: false })
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(whole.get()).expect("it is valid JSON and a list");
            if items.len() > events_max {
                return Err(Refusal::BatchTooLarge { events: items.len(), events_max });
            }
            let items = items.into_iter().enumerate();
            let events = items.map(|(number, item)| read_event(item, &format!("events[{number}]"), namespaces.clone()));
            Ok(Publication { events: events.collect::<Result<_, _>>()?, is_batch: true })
        }
        _ => Err(Refusal::NoEvent),
    }
}

/// What the answer says: how many sockets each event was queued for, and, once any was dropped, how many missed each.
pub fn report(counts: &[Counts], is_batch: bool) -> Value {
    let each = |of: fn(&Counts) -> usize| match counts {
        [only] if !is_batch => json!(of(only)),
        all => json!(all.iter().map(of).collect::<Vec<_>>()),
    };
    let mut report = json!({ "sockets": each(|counts| counts.sockets) });
    if counts.iter().any(|counts| counts.dropped > 0) {
        report["dropped"] = each(|counts| counts.dropped);
    }
    report
}

fn read_event<'n>(
    raw: &RawValue,
    place: &str,
    mut namespaces: impl Iterator<Item = &'n String> + Clone,
) -> Result<Event, Refusal> {
    let at = |field: &str| if place.is_empty() { field.to_owned() } else { format!("{place}.{field}") };
    let refuse = |field: &str, problem: &str| Refusal::Field { at: at(field), problem: problem.into() };
    let mut fields = Fields::read(raw)
        .ok_or_else(|| Refusal::Field { at: place.into(), problem: "expected an event, which is an object".into() })?;
    let namespace = fields.take("namespace", "expected a string", at)?.unwrap_or_else(|| String::from("/"));
    let event = Event {
        rooms: fields.take("rooms", "expected a list of strings", at)?.unwrap_or_default(),
        except: fields.take("except", "expected a list of strings", at)?.unwrap_or_default(),
        event: fields.take("event", "expected a string", at)?.ok_or_else(|| refuse("event", "is missing"))?,
        args: Arguments(fields.take("args", "expected a list", at)?.unwrap_or_default()),
        volatile: fields.take("volatile", "expected true or false", at)?.unwrap_or_default(),
        conflate: fields.take("conflate", "expected a string", at)?,
        namespace,
    };
    if let Some((name, _)) = fields.0.first() {
        let problem = format!("unknown field, or given twice; allowed: {FIELDS}");
        return Err(refuse(name, &problem));
    }
    if event.event.is_empty() {
        return Err(refuse("event", "expected a name, not an empty string"));
    }
    match event.conflate.as_ref().map(String::len) {
        Some(0) => return Err(refuse("conflate", "expected a key, not an empty string")),
        Some(bytes) if bytes > CONFLATE_BYTES_MAX => {
            let problem = format!("a key of {bytes} bytes is longer than {CONFLATE_BYTES_MAX}");
            return Err(refuse("conflate", &problem));
        }
        _ => {}
    }
    if RESERVED.contains(&event.event.as_str()) {
        return Err(refuse("event", &format!("{:?} is reserved by Socket.IO", event.event)));
    }
    if !namespaces.clone().any(|name| *name == event.namespace) {
        let mut known = namespaces.next().map(|name| format!("{name:?}")).unwrap_or_default();
        namespaces.for_each(|name| known += &format!(", {name:?}"));
        return Err(Refusal::UnknownNamespace { at: at("namespace"), given: event.namespace, known });
    }
    Ok(event)
}

/// An object's fields that have not been taken yet, in their order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// `None` if it is not an object.
    fn read(raw: &'a RawValue) -> Option<Fields<'a>> {
        serde_json::from_str(raw.get()).ok()
    }

    /// The value of a field, if it is there. A field that is there twice leaves the second one behind.
    fn take<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        expected: &str,
        at: impl Fn(&str) -> String,
    ) -> Result<Option<T>, Refusal> {
        let Some(position) = self.0.iter().position(|(other, _)| other == name) else { return Ok(None) };
        let (_, raw) = self.0.remove(position);
        let value = serde_json::from_str(raw.get());
        value.map(Some).map_err(|_| Refusal::Field { at: at(name), problem: expected.into() })
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::encode_event;

    fn try_read(body: &str) -> Result<Publication, Refusal> {
        let namespaces = [String::from("/"), String::from("/admin")];
        read(body.as_bytes(), 5, namespaces.iter())
    }

    fn refused(body: &str) -> String {
        try_read(body).expect_err("this is to be refused").to_string()
    }

    #[test]
    fn everything_but_the_event_may_be_left_out() {
        let publication = try_read(r#" {"event":"goal"} "#).unwrap();
        let event = &publication.events[0];
        assert!(!publication.is_batch && !event.volatile && event.conflate.is_none());
        assert_eq!((&*event.namespace, &*event.event), ("/", "goal"));
        assert!(event.rooms.is_empty() && event.except.is_empty() && event.args.0.is_empty());
    }

    #[test]
    fn every_field_is_read_and_arguments_keep_their_text() {
        let body = r#"{"namespace":"/admin","rooms":["a","é\n"],"except":["b"],"event":"goal",
            "args":[1.50, {"b":2, "a":[]},"x"],"volatile":true,"conflate":"ACME"}"#;
        let publication = try_read(body).unwrap();
        let event = &publication.events[0];
        assert_eq!(
            (&*event.namespace, &event.rooms, &event.except),
            ("/admin", &vec!["a".into(), "é\n".into()], &vec!["b".into()])
        );
        assert!(event.volatile && event.conflate.as_deref() == Some("ACME"));
        let encoded = encode_event(&event.event, &event.args).unwrap();
        assert_eq!(encoded.data, r#"["goal",1.50,{"b":2, "a":[]},"x"]"#);
    }

    #[test]
    fn no_arguments_are_no_arguments() {
        let publication = try_read(r#"{"event":"goal","args":[]}"#).unwrap();
        assert_eq!(encode_event("goal", &publication.events[0].args).unwrap().data, r#"["goal"]"#);
    }

    #[test]
    fn a_batch_is_a_list_also_of_one_or_none() {
        for (body, count) in [("[]", 0), (r#"[{"event":"a"}]"#, 1), (r#"[{"event":"a"},{"event":"b"}]"#, 2)] {
            let publication = try_read(body).unwrap();
            assert!(publication.is_batch && publication.events.len() == count);
        }
    }

    #[test]
    fn the_answer_tells_of_dropped_packets_once_there_are_some() {
        let counts = |sockets, dropped| {
            let mut counts = Counts::default();
            (counts.sockets, counts.dropped) = (sockets, dropped);
            counts
        };
        assert_eq!(report(&[counts(3, 0)], false), json!({"sockets": 3}));
        assert_eq!(report(&[counts(3, 1)], false), json!({"sockets": 3, "dropped": 1}));
        assert_eq!(report(&[], true), json!({"sockets": []}));
        assert_eq!(report(&[counts(3, 0)], true), json!({"sockets": [3]}));
        assert_eq!(report(&[counts(3, 0), counts(0, 2)], true), json!({"sockets": [3, 0], "dropped": [0, 2]}));
    }

    #[test]
    fn a_refusal_names_the_field_and_what_it_wants() {
        let cases = [
            (r#"{}"#, "event: is missing"),
            (r#"{"event":1}"#, "event: expected a string"),
            (r#"{"event":""}"#, "event: expected a name, not an empty string"),
            (r#"{"event":"disconnect"}"#, r#"event: "disconnect" is reserved by Socket.IO"#),
            (r#"{"event":"a","rooms":"b"}"#, "rooms: expected a list of strings"),
            (r#"{"event":"a","rooms":["b",1]}"#, "rooms: expected a list of strings"),
            (r#"{"event":"a","except":{}}"#, "except: expected a list of strings"),
            (r#"{"event":"a","args":"b"}"#, "args: expected a list"),
            (r#"{"event":"a","args":{}}"#, "args: expected a list"),
            (r#"{"event":"a","volatile":"yes"}"#, "volatile: expected true or false"),
            (r#"{"event":"a","conflate":7}"#, "conflate: expected a string"),
            (r#"{"event":"a","conflate":""}"#, "conflate: expected a key, not an empty string"),
            (r#"{"event":"a","namespace":null}"#, "namespace: expected a string"),
            (
                r#"{"event":"a","room":"b"}"#,
                "room: unknown field, or given twice; allowed: namespace, rooms, except, event, args, volatile, conflate",
            ),
            (
                r#"{"event":"a","event":"b"}"#,
                "event: unknown field, or given twice; allowed: namespace, rooms, except, event, args, volatile, conflate",
            ),
            (
                r#"{"event":"a","namespace":"/chat"}"#,
                r#"namespace: "/chat" does not exist; the configuration has "/", "/admin""#,
            ),
        ];
        for (body, text) in cases {
            assert_eq!(refused(body), text, "{body}");
        }
    }

    #[test]
    fn a_key_may_be_as_long_as_the_limit() {
        let body = |bytes: usize| format!(r#"{{"event":"a","conflate":"{}"}}"#, "k".repeat(bytes));
        assert!(try_read(&body(CONFLATE_BYTES_MAX)).is_ok());
        assert_eq!(refused(&body(CONFLATE_BYTES_MAX + 1)), "conflate: a key of 257 bytes is longer than 256");
    }

    #[test]
    fn in_a_batch_a_refusal_names_the_position_too() {
        let batch = |last: &str| format!(r#"[{{"event":"a"}},{{"event":"b"}},{last}]"#);
        assert_eq!(refused(&batch(r#"{"event":"c","rooms":7}"#)), "events[2].rooms: expected a list of strings");
        assert_eq!(refused(&batch("7")), "events[2]: expected an event, which is an object");
        assert_eq!(refused(&batch("[]")), "events[2]: expected an event, which is an object");
        assert!(
            refused(&batch(r#"{"event":"c","namespace":"x"}"#)).starts_with(r#"events[2].namespace: "x" does not"#)
        );
        assert_eq!(
            refused(&format!("[{}]", ["{}"; 6].join(","))),
            "6 events are more than limits.publish_batch_max, 5"
        );
    }

    #[test]
    fn what_is_no_json_is_told_where() {
        assert_eq!(refused(""), "the body is not JSON: EOF while parsing a value at line 1 column 0");
        assert_eq!(refused(r#"{"event":'a'}"#), "the body is not JSON: expected value at line 1 column 10");
        assert!(refused("{} {}").starts_with("the body is not JSON: trailing characters"));
        assert_eq!(refused("null"), "expected an event, which is an object, or a list of events");
        assert_eq!(read(b"\"\xff\"", 1, [].iter()).unwrap_err(), Refusal::NotUtf8);
    }

    #[test]
    fn what_the_library_reserves_is_refused_here_first() {
        for event in RESERVED {
            assert!(encode_event(event, &()).is_err());
        }
    }
}
