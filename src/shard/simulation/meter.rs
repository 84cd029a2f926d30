//! Meter: what each client has said and when, as it reached its shard; so the oracle knows who said too much.
//!
//! It remembers everything and looks at every stretch of time, where the shard has a bucket.

use super::super::Millis;
use crate::proto::{Id, websocket};
use crate::settings::Settings;
use std::collections::BTreeMap;

pub struct Meter {
    events: Option<Limit>,
    bytes: Option<Limit>,
    payload_bytes_max: usize,
    sessions: BTreeMap<Id, Said>,
    /// How far each stream was read.
    streams: BTreeMap<usize, Ear>,
}

/// No stretch of time may hold more than `burst` and `per_second` for each of its seconds.
struct Limit {
    per_second: u64,
    burst: u64,
}

/// When, and how much then.
#[derive(Default)]
struct Said {
    events: Vec<(Millis, u64)>,
    bytes: Vec<(Millis, u64)>,
}

/// A reader of what a client sends over a stream.
#[derive(Default)]
struct Ear {
    input: Vec<u8>,
    decoder: websocket::Decoder,
    state: Speech,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Speech {
    /// Wants to take over a session. Events come after its `5`.
    #[default]
    Probing,
    Speaking,
    /// Said something that ends the stream.
    Over,
}

impl Limit {
    fn new(per_second: usize, burst_min: usize) -> Option<Limit> {
        (per_second > 0).then(|| Limit { per_second: per_second as u64, burst: per_second.max(burst_min) as u64 })
    }

    fn is_broken(&self, said: &[(Millis, u64)]) -> bool {
        let Some(&(now, _)) = said.last() else { return false };
        let mut sum = 0;
        said.iter().rev().any(|&(since, much)| {
            sum += much;
            sum * 1000 > self.burst * 1000 + self.per_second * (now - since)
        })
    }
}

impl Meter {
    pub fn new(settings: &Settings) -> Meter {
        const FRAME_HEAD_BYTES_MAX: usize = 14;
        let whole_message = settings.payload_bytes_max + FRAME_HEAD_BYTES_MAX;
        Meter {
            events: Limit::new(settings.events_per_second_max, 1),
            bytes: Limit::new(settings.bytes_per_second_max, whole_message),
            payload_bytes_max: settings.payload_bytes_max,
            sessions: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Whether anything is limited.
    pub fn is_on(&self) -> bool {
        self.events.is_some() || self.bytes.is_some()
    }

    /// A POST body reaches its session. Returns whether the client has said too much.
    pub fn pushed(&mut self, sid: Id, now: Millis, body: &[u8]) -> bool {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let known = |packet: &&str| packet.starts_with(|c: char| "0123456b".contains(c));
        let events = text.split('\x1e').take_while(known).filter(|packet| packet.starts_with('4')).count();
        self.said(sid, now, body.len(), events)
    }

    /// Bytes of a stream reach its session. `serves`: the stream is the session's transport.
    pub fn streamed(&mut self, stream: usize, serves: bool, sid: Id, now: Millis, bytes: &[u8]) -> bool {
        let ear = self.streams.entry(stream).or_default();
        if serves && ear.state == Speech::Probing {
            ear.state = Speech::Speaking;
        }
        let events = ear.hear(bytes, self.payload_bytes_max);
        self.said(sid, now, bytes.len(), events)
    }

    fn said(&mut self, sid: Id, now: Millis, bytes: usize, events: usize) -> bool {
        let said = self.sessions.entry(sid).or_default();
        add(&mut said.bytes, now, bytes);
        add(&mut said.events, now, events);
        let broken = |limit: &Option<Limit>, said| limit.as_ref().is_some_and(|limit| limit.is_broken(said));
        broken(&self.bytes, &said.bytes) || broken(&self.events, &said.events)
    }
}

fn add(said: &mut Vec<(Millis, u64)>, now: Millis, much: usize) {
    match said.last_mut() {
        Some((at, sum)) if *at == now => *sum += much as u64,
        _ => said.push((now, much as u64)),
    }
}

impl Ear {
    /// How many events are complete with these bytes.
    fn hear(&mut self, bytes: &[u8], message_bytes_max: usize) -> usize {
        let rules = websocket::Rules {
            role: websocket::Role::Server,
            message_bytes_max,
            fragments_max: websocket::FRAGMENTS_MAX_DEFAULT,
        };
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let (mut rest, mut events) = (&mut input[..], 0);
        while self.state != Speech::Over {
            let item = match self.decoder.decode(&mut rest, &rules) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(_) => {
                    self.state = Speech::Over;
                    break;
                }
            };
            let is_event = match &item {
                websocket::Item::Text(text) => text.starts_with('4'),
                websocket::Item::Ping(_) => true,
                _ => false,
            };
            events += usize::from(is_event && self.state == Speech::Speaking);
            self.state = self.state.after(&item);
        }
        self.input = rest.to_vec();
        events
    }
}

impl Speech {
    fn after(self, item: &websocket::Item<'_>) -> Speech {
        use websocket::Item::{Close, Ping, Pong, Text};
        match (self, item) {
            (Speech::Probing, Ping(_) | Pong(_)) => Speech::Probing,
            (Speech::Probing, Text(text)) if **text == *"2probe" => Speech::Probing,
            (Speech::Probing, Text(text)) if **text == *"5" => Speech::Speaking,
            (Speech::Probing, _) | (_, Close { .. }) => Speech::Over,
            (state, _) => state,
        }
    }
}
