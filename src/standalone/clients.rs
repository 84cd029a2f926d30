//! Clients: what they may do by themselves: join and leave rooms, and publish the events that the configuration names.
//!
//! Every answer is a value that a page can show: what was asked for, or `{"error": "…"}`.
//!
//! What they may do can change while the server runs ([`Permissions::grant`]). Handlers stay, and look at each event. They
//! read single values, so that an event costs no lock and touches nothing that another core writes.
//!
//! Limits: `rooms_per_socket_max`, `room_bytes_max`; the size of an event is the transport's affair.

use super::config::{Config, Namespace as Allowed};
use crate::Ack;
use crate::Args;
use crate::CountFuture;
use crate::Io;
use crate::JoinError;
use crate::Namespace;
use crate::Socket;
use crate::args::{decode_event, encode_event};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is told to a client.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    /// The rooms that it is in now.
    Rooms(Vec<String>),
    Sent {
        sockets: usize,
    },
    Refused {
        error: String,
    },
}

/// Why a client may not do what it asked for.
#[derive(Debug, PartialEq, Eq)]
enum Refusal<'r> {
    JoinIsOff { namespace: &'r str },
    NotRooms { event: &'r str },
    RoomTooLong { bytes: usize, bytes_max: usize },
    TooManyRooms { rooms_max: usize },
    NoRoom,
    NotPublishable { event: &'r str, allowed: BTreeSet<String> },
    Gone,
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::JoinIsOff { namespace } => {
                write!(f, "clients may not join or leave rooms of {namespace:?}; the configuration says join = false")
            }
            Refusal::NotRooms { event } => write!(f, "{event:?} wants a room's name or a list of them"),
            Refusal::RoomTooLong { bytes, bytes_max } => {
                write!(f, "a room's name of {bytes} bytes is longer than limits.room_bytes_max, {bytes_max}")
            }
            Refusal::TooManyRooms { rooms_max } => {
                write!(f, "that would be more rooms than limits.rooms_per_socket_max, {rooms_max}")
            }
            Refusal::NoRoom => f.write_str("\"to\" names no room"),
            Refusal::NotPublishable { event, allowed } => {
                write!(f, "event {event:?} may not be published by clients; the configuration allows: ")?;
                match allowed.is_empty() {
                    true => f.write_str("none"),
                    false => {
                        f.write_str(&allowed.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "))
                    }
                }
            }
            Refusal::Gone => f.write_str("the socket has left"),
        }
    }
}

/// One room or several, as a client writes them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(Vec<String>),
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Vec<String> {
        match names {
            Names::One(name) => vec![name],
            Names::Several(names) => names,
        }
    }
}

/// The first argument of an event that is for rooms: this key and no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: Names,
}

/// What the configuration in effect allows clients.
pub struct Permissions {
    limits: RoomLimits,
    places: BTreeMap<String, Arc<Place>>,
    /// Events of clients that were refused.
    pub refused: AtomicU64,
}

/// Limits on what a client may join.
#[derive(Default)]
struct RoomLimits {
    rooms_max: AtomicUsize,
    bytes_max: AtomicUsize,
}

/// What clients may do in one namespace.
#[derive(Default)]
struct Place {
    join: AtomicBool,
    /// Every event that has ever been allowed, and whether it is.
    events: Mutex<BTreeMap<String, Arc<AtomicBool>>>,
}

impl Place {
    fn not_publishable<'r>(&self, event: &'r str) -> Refusal<'r> {
        let events = self.events.lock().expect("nothing panics while it holds this lock");
        let allowed = events.iter().filter(|(_, is_allowed)| is_allowed.load(Ordering::Relaxed));
        Refusal::NotPublishable { event, allowed: allowed.map(|(name, _)| name.clone()).collect() }
    }
}

impl Permissions {
    /// Makes the namespaces of this configuration, and grants what it says.
    pub fn new(config: &Config, io: &Io) -> Arc<Permissions> {
        let permissions = Arc::new(Permissions {
            limits: RoomLimits::default(),
            places: config.namespaces.keys().map(|name| (name.clone(), Arc::default())).collect(),
            refused: AtomicU64::new(0),
        });
        permissions.places.iter().for_each(|(name, place)| permissions.handle_the_rest(&io.of(name), place));
        permissions.grant(config, io);
        permissions
    }

    /// From now on clients may do what this configuration says, which has the same namespaces.
    pub fn grant(self: &Arc<Self>, config: &Config, io: &Io) {
        self.limits.rooms_max.store(config.limits.rooms_per_socket_max, Ordering::Relaxed);
        self.limits.bytes_max.store(config.limits.room_bytes_max, Ordering::Relaxed);
        for (name, allowed) in &config.namespaces {
            self.grant_in(&io.of(name), allowed);
        }
    }

    fn grant_in(self: &Arc<Self>, namespace: &Namespace, allowed: &Allowed) {
        let place = &self.places[namespace.name()];
        place.join.store(allowed.join, Ordering::Relaxed);
        let mut events = place.events.lock().expect("nothing panics while it holds this lock");
        for (name, is_allowed) in &*events {
            is_allowed.store(allowed.client_events.contains(name), Ordering::Relaxed);
        }
        for name in &allowed.client_events {
            if !events.contains_key(name) {
                let is_allowed = Arc::new(AtomicBool::new(true));
                self.handle(namespace, place, name, &is_allowed);
                events.insert(name.clone(), is_allowed);
            }
        }
    }

    /// What clients publish.
    fn handle(self: &Arc<Self>, namespace: &Namespace, place: &Arc<Place>, event: &str, is_allowed: &Arc<AtomicBool>) {
        let (permissions, place, is_allowed) = (Arc::clone(self), Arc::clone(place), Arc::clone(is_allowed));
        let name = event.to_owned();
        namespace.on_event(event, move |socket: Socket, args: Args, ack: Ack| {
            let rest = match is_allowed.load(Ordering::Relaxed) {
                true => pass_on(&socket, &name, &args, ack, &permissions.refused),
                false => {
                    reply(ack, Err(place.not_publishable(&name)), &permissions.refused);
                    None
                }
            };
            async move {
                if let Some(rest) = rest {
                    tell_count(rest).await;
                }
            }
        });
    }

    /// `join`, `leave`, and what nobody has ever allowed.
    fn handle_the_rest(self: &Arc<Self>, namespace: &Namespace, place: &Arc<Place>) {
        for event in ["join", "leave"] {
            let (permissions, place) = (Arc::clone(self), Arc::clone(place));
            namespace.on_event(event, move |socket: Socket, args: Args, ack: Ack| {
                let may_join = place.join.load(Ordering::Relaxed);
                let rooms = change_rooms(&socket, event, &args, may_join, &permissions.limits);
                reply(ack, rooms.map(|()| Answer::Rooms(rooms_of(&socket))), &permissions.refused);
            });
        }
        let (permissions, place) = (Arc::clone(self), Arc::clone(place));
        namespace.on_unhandled(move |_: Socket, event: &str, _: Args, ack: Ack| {
            reply(ack, Err(place.not_publishable(event)), &permissions.refused);
        });
    }
}

/// All of the rooms, or none and the reason.
fn change_rooms<'r>(
    socket: &'r Socket,
    event: &'r str,
    args: &Args,
    may_join: bool,
    limits: &RoomLimits,
) -> Result<(), Refusal<'r>> {
    if !may_join {
        return Err(Refusal::JoinIsOff { namespace: socket.namespace() });
    }
    let mut rooms: Vec<String> = args.get::<Names>(0).map_err(|_| Refusal::NotRooms { event })?.into();
    // Its own room is how others reach this socket alone; it stays.
    rooms.retain(|room| room != socket.id());
    if event == "leave" {
        socket.leave(rooms);
        return Ok(());
    }
    let (rooms_max, bytes_max) = (limits.rooms_max.load(Ordering::Relaxed), limits.bytes_max.load(Ordering::Relaxed));
    if let Some(room) = rooms.iter().find(|room| room.len() > bytes_max) {
        return Err(Refusal::RoomTooLong { bytes: room.len(), bytes_max });
    }
    let now = rooms_of(socket);
    let joined: HashSet<&str> = now.iter().map(String::as_str).collect();
    let new: HashSet<&str> = rooms.iter().map(String::as_str).filter(|room| !joined.contains(room)).collect();
    if joined.len() + new.len() > rooms_max {
        return Err(Refusal::TooManyRooms { rooms_max });
    }
    match socket.join(new.into_iter().collect::<Vec<_>>()) {
        Ok(()) => Ok(()),
        Err(JoinError::Closed) => Err(Refusal::Gone),
        // Counted above. But a reload reaches the worker and this at different times.
        Err(JoinError::TooManyRooms) => Err(Refusal::TooManyRooms { rooms_max }),
    }
}

/// The rooms of a socket without its own.
fn rooms_of(socket: &Socket) -> Vec<String> {
    let rooms = socket.rooms().expect("handlers run on the socket's own thread");
    rooms.into_iter().filter(|room| room != socket.id()).collect()
}

/// Publishes what a client has sent, to everyone else or to everyone else in the rooms that it names. If the client
/// wants to know, what is left is to tell it how many they were.
fn pass_on(socket: &Socket, event: &str, args: &Args, ack: Ack, refused: &AtomicU64) -> Option<(Ack, CountFuture)> {
    let (target, args) = match args.get::<To>(0) {
        Ok(To { to }) => {
            let rooms: Vec<String> = to.into();
            if rooms.is_empty() {
                reply(ack, Err(Refusal::NoRoom), refused);
                return None;
            }
            (socket.to(rooms), without_first(args))
        }
        Err(_) => (socket.broadcast(), args.clone()),
    };
    // What came as an event can be sent as one; only a server that has closed refuses, and then nobody waits.
    if ack.is_wanted() {
        return Some((ack, target.emit_and_count(event, &args).ok()?));
    }
    let _ = target.emit(event, &args);
    None
}

async fn tell_count((ack, count): (Ack, CountFuture)) {
    if let Ok(counts) = count.await {
        ack.send(&Answer::Sent { sockets: counts.sockets }).expect("an answer has a JSON form");
    }
}

/// The same arguments but for the first, with the attachments that are left.
fn without_first(args: &Args) -> Args {
    let encoded = encode_event("", args).expect("arguments that were decoded can be encoded");
    let rest = decode_event::<(IgnoredAny, Args)>(&encoded.data, &encoded.attachments);
    rest.expect("what was just encoded can be decoded").1
}

fn reply(ack: Ack, outcome: Result<Answer, Refusal<'_>>, refused: &AtomicU64) {
    let answer = outcome.unwrap_or_else(|refusal| {
        refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%refusal, "a client's event is refused");
        Answer::Refused { error: refusal.to_string() }
    });
    ack.send(&answer).expect("an answer has a JSON form");
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn args(text: &str, attachments: &[Bytes]) -> Args {
        decode_event(text, attachments).unwrap()
    }

    #[test]
    fn an_event_is_for_rooms_if_its_first_argument_is_to_and_nothing_else() {
        let rooms = |text: &str| args(text, &[]).get::<To>(0).ok().map(|to| Vec::from(to.to));
        assert_eq!(rooms(r#"["say",{"to":"a"},1]"#), Some(vec!["a".into()]));
        assert_eq!(rooms(r#"["say",{"to":["a","b"]}]"#), Some(vec!["a".into(), "b".into()]));
        for text in [
            r#"["say"]"#,
            r#"["say",1]"#,
            r#"["say",{"to":"a","text":"hi"}]"#,
            r#"["say",{"to":1}]"#,
            r#"["say","x",{"to":"a"}]"#,
        ] {
            assert_eq!(rooms(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_argument_goes_and_attachments_stay() {
        let attachments = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let text = r#"["say",{"to":"a"},{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#;
        let rest = encode_event("say", &without_first(&args(text, &attachments))).unwrap();
        assert_eq!(rest.data, r#"["say",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#);
        assert_eq!(rest.attachments, attachments);
        assert!(without_first(&args(r#"["say",{"to":"a"}]"#, &[])).is_empty());
    }

    #[test]
    fn a_refusal_tells_what_is_allowed() {
        let allowed = BTreeSet::from([String::from("say"), String::from("wave")]);
        assert_eq!(
            Refusal::NotPublishable { event: "x", allowed }.to_string(),
            r#"event "x" may not be published by clients; the configuration allows: "say", "wave""#
        );
        assert_eq!(
            Refusal::NotPublishable { event: "x", allowed: BTreeSet::new() }.to_string(),
            r#"event "x" may not be published by clients; the configuration allows: none"#
        );
    }
}
