//! Engine: sessions and their transports. Handshake, polling, WebSocket, upgrade, heartbeat, close (Engine.IO v4).
//!
//! Bytes come in through [`Shard::read_event`] (a WebSocket stream) or [`Shard::on_request`] (a polling request) and
//! end as engine packets in one place, `on_engine_packet`, whatever the transport. Every ending of a session goes through
//! one function, `close_with`, which says how by a [`CloseReason`].
//!
//! How things end, from the outside in:
//!
//! | function | ends | by |
//! |---|---|---|
//! | `close`, `close_with` | a session: its sockets leave, its transport says goodbye | anybody |
//! | `part` | the tie between a closing session and its conn, which keeps what is still to be written | `close_with` |
//! | `answer_and_close`, `linger` | a polling session: with the poll that is there, or with one that may come | `close_with` |
//! | `break_off` | whatever a conn serves: the peer closed or broke a rule | frames |
//! | `dismiss`, `depart` | a conn without a session: last words, then the end | the above |
//! | `end` | a conn: the worker closes the stream when the turn ends | everything |
//!
//! Invariants: a session that is Open is in nobody's burial list; a polling session holds at most one poll.
//! Limits:     `payload_bytes_max`, `events_per_second_max`, `bytes_per_second_max`, `upgrade_timeout`, `connect_timeout`, `ping_timeout` (Settings); `LINGER_MS`, `FAREWELL_MS`.

use super::arena::Key;
use super::lanes::Queued;
use super::mail::{Data, Ending, Event, Exchange, Mail, Reply, Request};
use super::rates::{self, OverLimit, Rates};
use super::session::{Conn, Handshake, Heartbeat, HeartbeatState, LastWord, Role, Session, State, Transport};
use super::wheel::{Millis, TICK_MS, millis};
use super::{Carries, Shard, Timer};
use crate::error::{CloseReason, Refusal, close_code};
use crate::proto::websocket::{self, Item, Opcode};
use crate::proto::{Fate, Id, Prepared, engineio};
use crate::settings::Settings;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

/// How long a closed polling session waits at most for a poll that takes its last words, as in the reference.
const LINGER_MS: Millis = 30_000;
/// How long a closed WebSocket waits for the peer to take its last words and to close its side. A third of what `ws`
/// waits: time for a slow link to take what was queued, and an end to peers that never answer.
pub(super) const FAREWELL_MS: Millis = 10_000;
/// How soon a poll is released while its session upgrades, as in the reference.
const NOOP_MS: Millis = 100;

/// The close code of who breaks no rule of WebSocket, but one of ours (RFC 6455, section 7.4.1).
const POLICY_VIOLATION: u16 = 1008;

static PING: LazyLock<Arc<Prepared>> = LazyLock::new(|| Arc::new(engineio::ping()));
static PROBE_PONG: LazyLock<Prepared> = LazyLock::new(|| engineio::pong("probe"));
static CLOSE: &str = "1";
/// What pongs are conflated by. The keys of events are longer (feeds.rs).
static PONG: LazyLock<Arc<str>> = LazyLock::new(|| "pong".into());
static NOOP: &str = "6";
static NOOP_AND_CLOSE: &str = "6\x1e1";

impl Shard {
    // ---- how sessions begin

    /// A handshake by polling: the session, and the payload that answers the request.
    pub fn open_polling(&mut self, handshake: Handshake) -> Result<(Key<Session>, Bytes), Refusal> {
        let key = self.open(handshake, Transport::Polling { poll: None })?;
        let mut payload = Vec::new();
        self.open_packet(key).put_polling(&mut payload);
        Ok((key, Bytes::from(payload)))
    }

    /// A handshake by WebSocket, after the 101: the conn of the new session.
    pub fn open_websocket(&mut self, handshake: Handshake) -> Result<Key<Conn>, Refusal> {
        let conn = self.conns.insert_with(|_| Conn::new(Role::Leaving(None)));
        let key = match self.open(handshake, Transport::WebSocket { conn, blocked: false }) {
            Ok(key) => key,
            Err(refusal) => {
                self.conns.remove(conn);
                return Err(refusal);
            }
        };
        self.conns.get_mut(conn).expect("just inserted").role = Role::Serving(key);
        let packet = self.open_packet(key);
        self.push(key, &Arc::new(packet));
        Ok(conn)
    }

    /// A WebSocket that was accepted for a polling session arrives. It is told to leave if the session has gone, or
    /// has another upgrade, meanwhile.
    pub fn open_upgrade(&mut self, sid: Id) -> Key<Conn> {
        let session = self.session_by_sid(&sid);
        let conn = self.conns.insert_with(|_| Conn::new(Role::Leaving(None)));
        let free = session.filter(|&key| self.sessions.get(key).is_some_and(can_upgrade));
        let Some(key) = free else {
            self.dismiss(conn, None);
            return conn;
        };
        self.conns.get_mut(conn).expect("just inserted").role = Role::Probing { session: key, probed: false };
        self.sessions.get_mut(key).expect("just found").upgrade = Some(conn);
        let due = self.now + millis(self.settings.upgrade_timeout);
        self.wake_at(due, Timer::Upgrade(conn));
        conn
    }

    /// Whether one more session may open.
    pub fn admit(&self) -> Result<(), Refusal> {
        match (self.draining, self.sessions.is_full()) {
            (true, _) => Err(Refusal::ShuttingDown),
            (_, true) => Err(Refusal::TooManyConnections),
            _ => Ok(()),
        }
    }

    fn open(&mut self, handshake: Handshake, transport: Transport) -> Result<Key<Session>, Refusal> {
        self.admit()?;
        let due = self.now + self.until_first_ping();
        let (number, rng) = (self.number, &mut self.rng);
        let key = self.sessions.insert_with(|key| Session {
            id: Id::new(number, key.slot(), rand::RngExt::random(rng)),
            transport,
            outbox: Default::default(),
            heartbeat: Heartbeat { due, timer: due, state: HeartbeatState::Resting },
            rates: None,
            upgrade: None,
            sockets: Default::default(),
            assembler: Default::default(),
            handshake,
            state: State::Open,
            queued: Queued::default(),
            joined: false,
        });
        self.counters.opened += 1;
        self.heartbeats.schedule(due, key);
        if self.carries == Carries::SocketIo {
            let due = self.now + millis(self.settings.connect_timeout);
            let waits =
                |key| self.sessions.get(key).is_some_and(|session| session.state == State::Open && !session.joined);
            self.lobby.enter(due, key, waits);
        } else {
            self.events.push_back(Event::Opened { session: key });
        }
        Ok(key)
    }

    /// Random, for those who come at once would else be pinged at once ever after. Clients allow for it: they give up when
    /// the interval and the timeout have passed since the last ping.
    fn until_first_ping(&mut self) -> Millis {
        let interval = millis(self.settings.ping_interval);
        match self.settings.ping_spread {
            true => rand::RngExt::random_range(&mut self.rng, 1..=interval.max(1)),
            false => interval,
        }
    }

    fn open_packet(&self, key: Key<Session>) -> Prepared {
        let session = self.sessions.get(key).expect("just opened");
        let polling = matches!(session.transport, Transport::Polling { .. });
        let offered = polling && self.settings.allow_upgrades && self.settings.transports.websocket;
        engineio::Handshake {
            sid: &session.id.text(),
            upgrades: if offered { &["websocket"] } else { &[] },
            ping_interval_ms: millis(self.settings.ping_interval),
            ping_timeout_ms: millis(self.settings.ping_timeout),
            payload_bytes_max: self.settings.payload_bytes_max as u64,
        }
        .packet()
    }

    pub fn session_by_sid(&self, sid: &Id) -> Option<Key<Session>> {
        let key = self.sessions.key_at(sid.slot())?;
        let session = self.sessions.get(key)?;
        (session.id == *sid && session.state != State::Closed).then_some(key)
    }

    // ---- polling

    /// An HTTP request of a polling session. The answer comes through `take_answers`, at once or later; the packets of
    /// a POST are returned, to be fed to [`Shard::on_pushed`] one by one.
    pub fn on_request(&mut self, sid: Id, request: Request, exchange: Exchange) -> Option<(Key<Session>, Bytes)> {
        let Some(key) = self.session_by_sid(&sid) else {
            self.counters.refused += 1;
            self.answers.push((exchange, Reply::Refused(Refusal::UnknownSid)));
            return None;
        };
        let session = self.sessions.get(key).expect("just found");
        let upgraded = matches!(session.transport, Transport::WebSocket { .. });
        match request {
            // As over a WebSocket that closes, it is heard by nobody. A refusal would have the client give up before the
            // poll that takes what is queued.
            Request::Push(_) if self.draining && matches!(session.state, State::Lingering { .. }) => {
                self.answers.push((exchange, Reply::Done));
            }
            // What a client says after its end is lost; so it is told that there is nobody.
            Request::Push(_) | Request::PushBinary if session.state != State::Open => {
                self.counters.refused += 1;
                self.answers.push((exchange, Reply::Refused(Refusal::UnknownSid)));
            }
            // An upgrade that comes too late is let in, to be dismissed with a close frame, as in the reference.
            Request::Upgrade => self.answers.push((exchange, Reply::Accepted)),
            _ if upgraded || matches!(request, Request::Mismatch) => {
                self.counters.refused += 1;
                self.answers.push((exchange, Reply::Refused(Refusal::BadRequest)));
            }
            Request::Poll => self.on_poll(key, exchange),
            Request::Push(body) => {
                self.counters.bytes_in += body.len() as u64;
                if self.charge(key, |rates, settings, now| rates.take_bytes(body.len(), settings, now)).is_ok() {
                    return Some((key, body));
                }
                self.answers.push((exchange, Reply::Refused(Refusal::RateLimited)));
            }
            Request::PushBinary => {
                self.counters.protocol_errors += 1;
                self.answers.push((exchange, Reply::Broken));
                self.close(key, CloseReason::TransportError);
            }
            Request::Mismatch => unreachable!("refused above"),
            Request::Other => self.answers.push((exchange, Reply::MethodUnknown)),
        }
        None
    }

    fn on_poll(&mut self, key: Key<Session>, exchange: Exchange) {
        let session = self.sessions.get_mut(key).expect("the caller has it");
        if let State::Lingering { last } = session.state {
            return self.answer_last_poll(key, exchange, last);
        }
        let Transport::Polling { poll } = &mut session.transport else { unreachable!("on_request has looked") };
        if poll.is_some() {
            // Two polls at a time: the client has lost count, and an answer could go to either.
            self.counters.protocol_errors += 1;
            self.answers.push((exchange, Reply::Broken));
            return self.close(key, CloseReason::TransportError);
        }
        *poll = Some(exchange);
        let (upgrades, owed) = (session.upgrade.is_some(), !session.outbox.is_empty());
        if upgrades {
            self.wake_at(self.now + NOOP_MS, Timer::Noop(key));
        }
        if owed {
            self.freshen(key);
            self.mark_dirty(key);
        }
    }

    /// One packet of a POST body. `Err`: the rest of the body is not to be read.
    pub fn on_pushed<'b>(
        &mut self,
        key: Key<Session>,
        packet: Result<engineio::Packet<'b>, engineio::Error>,
    ) -> Result<Option<Event<'b>>, CloseReason> {
        let Some(State::Open) = self.sessions.get(key).map(|session| session.state) else {
            return Err(CloseReason::TransportClose);
        };
        match packet {
            Ok(packet) => Ok(self.on_engine_packet(key, packet)),
            Err(_) => {
                self.counters.protocol_errors += 1;
                self.close(key, CloseReason::ParseError);
                Err(CloseReason::ParseError)
            }
        }
    }

    /// All packets of a POST were processed.
    pub fn finish_push(&mut self, exchange: Exchange) {
        self.answers.push((exchange, Reply::Done));
    }

    /// The client of a request went away before the answer: the transport is broken.
    pub fn on_abandoned(&mut self, sid: Id, exchange: Exchange) {
        let Some(key) = self.session_by_sid(&sid) else { return };
        let session = self.sessions.get(key).expect("just found");
        if let Transport::Polling { poll } = session.transport
            && poll.is_none_or(|poll| poll == exchange)
        {
            self.close(key, CloseReason::TransportError);
        }
    }

    // ---- WebSocket

    /// The bytes that `conn` had left over, to be followed by what was read now.
    pub fn take_spill(&mut self, conn: Key<Conn>) -> Vec<u8> {
        self.conns.get_mut(conn).and_then(|conn| conn.spill.take()).map_or_else(Vec::new, |spill| *spill)
    }

    /// Keeps the rest of a partial frame until more comes.
    pub fn keep_spill(&mut self, conn: Key<Conn>, mut rest: Vec<u8>) {
        rest.shrink_to_fit();
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.spill = (!rest.is_empty()).then(|| Box::new(rest));
        }
    }

    /// Bytes have come over a stream, whatever is in them: control frames count too.
    pub fn count_bytes_in(&mut self, key: Key<Conn>, bytes: usize) {
        self.counters.bytes_in += bytes as u64;
        if let Some(&Conn { role: Role::Serving(session) | Role::Probing { session, .. }, .. }) = self.conns.get(key) {
            // A client over its limit is closed by this, and what it said is not looked at.
            let _ = self.charge(session, |rates, settings, now| rates.take_bytes(bytes, settings, now));
        }
    }

    /// Consumes frames from the front of `input` until one of them is an event. `None`: more bytes are needed, or the
    /// conn is closed and reads no more.
    pub fn read_event<'b>(&mut self, key: Key<Conn>, input: &mut &'b mut [u8]) -> Option<Event<'b>> {
        let rules = websocket::Rules {
            role: websocket::Role::Server,
            message_bytes_max: self.settings.payload_bytes_max,
            fragments_max: websocket::FRAGMENTS_MAX_DEFAULT,
        };
        loop {
            let conn = self.conns.get_mut(key)?;
            if conn.deaf {
                *input = &mut [];
                return None;
            }
            match conn.decoder.decode(input, &rules) {
                Ok(None) => return None,
                Ok(Some(item)) => {
                    if let Some(event) = self.on_item(key, item) {
                        return Some(event);
                    }
                }
                Err(error) => {
                    // Else what follows would be read as frames, break again, and cut off the answer to the first.
                    conn.deaf = true;
                    self.counters.protocol_errors += 1;
                    self.break_off(key, CloseReason::TransportError, Some(close_code(error)));
                }
            }
        }
    }

    fn on_item<'b>(&mut self, key: Key<Conn>, item: Item<'b>) -> Option<Event<'b>> {
        let session = match self.conns.get(key)?.role {
            Role::Serving(session) => session,
            Role::Probing { session, probed } => {
                self.on_probe(key, session, probed, item);
                return None;
            }
            Role::Leaving(ref left) => {
                // Its own close frame is the only thing that is still of interest.
                if let (Item::Close { .. }, true) = (item, left.as_ref().is_none_or(|left| left.is_empty())) {
                    self.end(key);
                }
                return None;
            }
        };
        match item {
            Item::Text(text) => match self.decode_text(session, text) {
                Some(Decoded::Borrowed(packet)) => self.on_engine_packet(session, packet),
                Some(Decoded::Owned(event)) => event,
                None => None,
            },
            Item::Binary(data) => self.on_engine_packet(session, engineio::Packet::Binary(data)),
            // It wants an answer, so it counts like an event.
            Item::Ping(_) if self.charge(session, Rates::take_event).is_err() => None,
            Item::Ping(data) => {
                // Who does not read need not get an answer to each (RFC 6455, section 5.5.3).
                let mut pong = Vec::new();
                websocket::put_frame(&mut pong, Opcode::Pong, data, None);
                let pong = Prepared::frame(pong).with_fate(Fate::Conflated(Arc::clone(&PONG)));
                self.push(session, &Arc::new(pong));
                None
            }
            Item::Pong(_) => None,
            Item::Close { code, .. } => {
                self.conns.get_mut(key)?.deaf = true;
                self.break_off(key, CloseReason::TransportClose, code);
                None
            }
        }
    }

    /// A text message as an engine packet. A message that came in fragments is owned, and so is what becomes of it.
    fn decode_text<'b>(&mut self, session: Key<Session>, text: Cow<'b, str>) -> Option<Decoded<'b>> {
        let decoded = match text {
            Cow::Borrowed(text) => engineio::decode(text).map(Decoded::Borrowed),
            Cow::Owned(ref text) => engineio::decode(text)
                .map(|packet| Decoded::Owned(self.on_engine_packet(session, packet).map(Event::into_owned))),
        };
        if decoded.is_err() {
            self.counters.protocol_errors += 1;
            self.close(session, CloseReason::ParseError);
        }
        decoded.ok()
    }

    /// The kernel takes bytes again.
    pub fn on_writable(&mut self, key: Key<Conn>) {
        match self.conns.get(key).map(|conn| &conn.role) {
            Some(&Role::Serving(session)) => {
                let state = self.sessions.get_mut(session).expect("a conn serves a live session");
                if let Transport::WebSocket { blocked: blocked @ true, .. } = &mut state.transport {
                    *blocked = false;
                    if !state.outbox.is_empty() {
                        self.freshen(session);
                        self.mark_dirty(session);
                    }
                }
            }
            Some(Role::Leaving(Some(left))) if !left.is_empty() => self.leaving.push_back(key),
            _ => {}
        }
    }

    /// The stream ended, or is `broken`. Whatever was still to be written is lost.
    pub fn on_hangup(&mut self, key: Key<Conn>, broken: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let reason = if broken { CloseReason::TransportError } else { CloseReason::TransportClose };
        let role = std::mem::replace(&mut conn.role, Role::Leaving(None));
        match role {
            Role::Serving(session) => self.close_with(session, reason, Farewell::None),
            Role::Probing { session, .. } => self.forget_upgrade(session),
            Role::Leaving(_) => {}
        }
        self.end(key);
    }

    /// The peer closed or broke a rule: the conn says its last words, and takes its session along.
    fn break_off(&mut self, key: Key<Conn>, reason: CloseReason, code: Option<u16>) {
        match self.conns.get(key).expect("the caller has it").role {
            Role::Serving(session) => self.close_with(session, reason, Farewell::Frame(code)),
            Role::Probing { session, .. } => {
                self.forget_upgrade(session);
                self.dismiss(key, code);
            }
            Role::Leaving(_) => self.end(key),
        }
    }

    /// Closes a conn without a session: a close frame, then the end.
    fn dismiss(&mut self, key: Key<Conn>, code: Option<u16>) {
        self.depart(key, VecDeque::new(), code);
    }

    /// From now on the conn only delivers what is left, and a close frame after it. A partial frame stays: the rest of it,
    /// taken for the head of another one, would be a broken rule, and the end before everything is delivered.
    fn depart(&mut self, key: Key<Conn>, mut left: VecDeque<Bytes>, code: Option<u16>) {
        let mut goodbye = Vec::new();
        websocket::put_close(&mut goodbye, code, "", None);
        left.push_back(Bytes::from(goodbye));
        let conn = self.conns.get_mut(key).expect("the caller has it");
        conn.role = Role::Leaving(Some(Box::new(left)));
        self.leaving.push_back(key);
        self.wake_at(self.now + FAREWELL_MS, Timer::Farewell(key));
    }

    pub(super) fn farewell_due(&mut self, key: Key<Conn>) {
        if let Some(conn) = self.conns.get(key) {
            self.counters.cut_off += u64::from(conn.is_owed());
            self.end(key);
        }
    }

    /// The conn of an evicted session. `whole`: no frame has left in part, so a close frame may follow, if the stream
    /// takes it at once.
    fn throw_out(&mut self, key: Key<Conn>, whole: bool) {
        if !whole {
            return self.reset(key);
        }
        let mut goodbye = Vec::new();
        websocket::put_close(&mut goodbye, Some(POLICY_VIOLATION), CloseReason::SlowClient.as_str(), None);
        let conn = self.conns.get_mut(key).expect("the caller has it");
        conn.role = Role::Leaving(Some(Box::new([Bytes::from(goodbye)].into())));
        conn.spill = None;
        conn.evicted = true;
        self.leaving.push_back(key);
    }

    /// The worker closes the stream when the turn ends. Until then nothing more is written to it.
    pub(super) fn end(&mut self, key: Key<Conn>) {
        self.end_with(key, Ending::Close(key));
    }

    /// The same, and what the kernel still holds for the peer is thrown away.
    pub(super) fn reset(&mut self, key: Key<Conn>) {
        self.end_with(key, Ending::Reset(key));
    }

    fn end_with(&mut self, key: Key<Conn>, ending: Ending) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Role::Leaving(left) = &mut conn.role {
            *left = None;
        }
        if !std::mem::replace(&mut conn.ended, true) {
            self.endings.push(ending);
        }
    }

    // ---- upgrade

    fn on_probe(&mut self, key: Key<Conn>, session: Key<Session>, probed: bool, item: Item<'_>) {
        let packet = match &item {
            Item::Text(text) => engineio::decode(text).ok(),
            Item::Ping(_) | Item::Pong(_) => return,
            _ => None,
        };
        match packet {
            Some(engineio::Packet::Ping("probe")) if !probed => {
                self.conns.get_mut(key).expect("the caller has it").role = Role::Probing { session, probed: true };
                self.probed.push(key);
                self.release_poll(session);
            }
            // Also without a probe, as in the reference: a client that knows that WebSocket works.
            Some(engineio::Packet::Upgrade) => self.switch(key, session),
            // Anything else: this stream goes, the polling session goes on.
            _ => self.break_off(key, CloseReason::TransportError, None),
        }
    }

    /// The session's packets take the WebSocket from here on, in the order in which they were emitted.
    fn switch(&mut self, conn: Key<Conn>, key: Key<Session>) {
        let session = self.sessions.get_mut(key).expect("a conn probes for a live session");
        session.upgrade = None;
        let before = std::mem::replace(&mut session.transport, Transport::WebSocket { conn, blocked: false });
        self.conns.get_mut(conn).expect("the caller has it").role = Role::Serving(key);
        if let Transport::Polling { poll: Some(poll) } = before {
            self.answer(poll, CLOSE);
        }
        if !self.sessions.get(key).expect("just found").outbox.is_empty() {
            self.freshen(key);
            self.mark_dirty(key);
        }
    }

    fn forget_upgrade(&mut self, session: Key<Session>) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.upgrade = None;
        }
    }

    pub(super) fn upgrade_due(&mut self, key: Key<Conn>) {
        if let Some(Conn { role: Role::Probing { .. }, .. }) = self.conns.get(key) {
            self.break_off(key, CloseReason::TransportError, None);
        }
    }

    /// While a session upgrades its polls are answered soon, so that the client can stop polling.
    pub(super) fn release_poll(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let probed = session.upgrade.and_then(|conn| self.conns.get(conn));
        let Some(Conn { role: Role::Probing { probed: true, .. }, .. }) = probed else { return };
        if let Transport::Polling { poll } = &mut session.transport
            && let Some(poll) = poll.take()
        {
            self.answer(poll, NOOP);
        }
    }

    // ---- packets, whatever the transport

    fn on_engine_packet<'b>(&mut self, key: Key<Session>, packet: engineio::Packet<'b>) -> Option<Event<'b>> {
        use engineio::Packet;
        let state = self.sessions.get(key)?.state;
        if state != State::Open {
            return None;
        }
        let is_event = match packet {
            Packet::Message(_) => true,
            // To Socket.IO it is an attachment, a part of an event that has been counted.
            Packet::Binary(_) => self.carries == Carries::Messages,
            _ => false,
        };
        if is_event && self.charge(key, Rates::take_event).is_err() {
            return None;
        }
        self.sign_of_life(key, matches!(packet, Packet::Pong(_)));
        match packet {
            Packet::Message(text) => self.on_text(key, text),
            Packet::Binary(data) => self.on_binary(key, data),
            Packet::Close => {
                self.close(key, CloseReason::TransportClose);
                None
            }
            // In Engine.IO v4 the server pings. A client that does has another protocol in mind.
            Packet::Ping(_) => {
                self.counters.protocol_errors += 1;
                self.close(key, CloseReason::TransportError);
                None
            }
            Packet::Pong(_) | Packet::Open(_) | Packet::Upgrade | Packet::Noop => None,
        }
    }

    fn on_text<'b>(&mut self, key: Key<Session>, text: &'b str) -> Option<Event<'b>> {
        if self.carries == Carries::Messages {
            return Some(Event::Message { session: key, data: Data::Text(Cow::Borrowed(text)) });
        }
        match self.sessions.get_mut(key)?.assembler.text(text) {
            Ok(Some(packet)) => self.on_packet(key, packet, Vec::new()),
            Ok(None) => None,
            Err(_) => self.broken_packet(key),
        }
    }

    fn on_binary<'b>(&mut self, key: Key<Session>, data: Cow<'b, [u8]>) -> Option<Event<'b>> {
        if self.carries == Carries::Messages {
            return Some(Event::Message { session: key, data: Data::Binary(data) });
        }
        match self.sessions.get_mut(key)?.assembler.binary(&data) {
            Ok(Some(mut whole)) => {
                let attachments = std::mem::take(&mut whole.attachments);
                self.on_packet(key, whole.packet(), attachments).map(Event::into_owned)
            }
            Ok(None) => None,
            Err(_) => self.broken_packet(key),
        }
    }

    pub(super) fn broken_packet<'b>(&mut self, key: Key<Session>) -> Option<Event<'b>> {
        self.counters.protocol_errors += 1;
        self.close(key, CloseReason::ForcedClose);
        None
    }

    // ---- rates

    /// Takes what the client says out of what it may say. If that is too little, the session is closed.
    fn charge(
        &mut self,
        key: Key<Session>,
        take: impl FnOnce(&mut Rates, &Settings, Millis) -> Result<(), OverLimit>,
    ) -> Result<(), OverLimit> {
        if !rates::are_limited(&self.settings) {
            return Ok(());
        }
        let session = self.sessions.get_mut(key).filter(|session| session.state == State::Open);
        let Some(session) = session else { return Ok(()) };
        let taken = take(session.rates.get_or_insert_default(), &self.settings, self.now);
        if taken.is_err() {
            self.counters.rate_limited += 1;
            self.close(key, CloseReason::RateLimited);
        }
        taken
    }

    // ---- heartbeat

    fn sign_of_life(&mut self, key: Key<Session>, pong: bool) {
        let session = self.sessions.get_mut(key).expect("the caller has it");
        let interval = millis(self.settings.ping_interval);
        let timeout = millis(self.settings.ping_timeout);
        let heartbeat = &mut session.heartbeat;
        match (heartbeat.state, pong) {
            (_, true) => (heartbeat.due, heartbeat.state) = (self.now + interval, HeartbeatState::Resting),
            (HeartbeatState::AwaitingPong, false) => {
                (heartbeat.due, heartbeat.state) = (self.now + timeout, HeartbeatState::Extended);
            }
            _ => return,
        }
        // Usually the deadline moves away and the early entry finds it later. Only one that comes nearer
        // needs an entry of its own.
        if heartbeat.due < heartbeat.timer {
            heartbeat.timer = heartbeat.due;
            self.heartbeats.schedule(heartbeat.due, key);
        }
    }

    pub(super) fn heartbeat_due(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.state == State::Open) else { return };
        let heartbeat = &mut session.heartbeat;
        if heartbeat.timer > self.now {
            return; // a later entry stands for this session
        }
        if heartbeat.due > self.now {
            heartbeat.timer = heartbeat.due;
            return self.heartbeats.schedule(heartbeat.due, key);
        }
        match heartbeat.state {
            HeartbeatState::Resting => {
                // Counted from when the ping was due: the wheel's rounding is not to add up.
                let pinged = heartbeat.due.max(self.now.saturating_sub(TICK_MS));
                heartbeat.due = pinged + millis(self.settings.ping_timeout);
                heartbeat.timer = heartbeat.due;
                heartbeat.state = HeartbeatState::AwaitingPong;
                self.heartbeats.schedule(heartbeat.due, key);
                let ping = Arc::clone(&PING);
                self.push(key, &ping);
            }
            HeartbeatState::AwaitingPong | HeartbeatState::Extended => self.close(key, CloseReason::PingTimeout),
        }
    }

    pub(super) fn connect_due(&mut self, key: Key<Session>) {
        if self.sessions.get(key).is_some_and(|session| session.state == State::Open && !session.joined) {
            self.close(key, CloseReason::ForcedClose);
        }
    }

    // ---- how sessions end

    /// Ends a session, in an orderly way where the transport still allows it.
    pub fn close(&mut self, key: Key<Session>, reason: CloseReason) {
        self.close_with(key, reason, Farewell::Frame(reason.close_code()));
    }

    fn close_with(&mut self, key: Key<Session>, reason: CloseReason, farewell: Farewell) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.state == State::Open) else { return };
        session.state = State::Closed;
        session.outbox.keep(&mut self.runs, &mut self.chains, 0, self.now);
        let transport = session.transport;
        let upgrade = session.upgrade.take();
        self.counters.closed += 1;
        self.counters.let_go += u64::from(reason == CloseReason::ServerShuttingDown);
        for slot in std::mem::take(&mut session.sockets) {
            let socket = self.sockets.key_at(slot).expect("a session lists its live sockets");
            self.begin_disconnect(socket, reason);
        }
        if self.carries == Carries::Messages {
            self.events.push_back(Event::Closed { session: key, reason });
        }
        if let Some(conn) = upgrade {
            self.dismiss(conn, None);
        }
        match (transport, farewell) {
            (_, Farewell::None) => self.buried_sessions.push(key),
            (Transport::WebSocket { conn, .. }, Farewell::Frame(code)) => self.part(key, conn, reason, code),
            (Transport::Polling { poll: Some(poll) }, _) => self.answer_and_close(key, poll, reason),
            (Transport::Polling { poll: None }, _) => self.linger(key, reason),
        }
    }

    /// The stream outlives its session, to deliver what was emitted before the end.
    fn part(&mut self, key: Key<Session>, conn: Key<Conn>, reason: CloseReason, code: Option<u16>) {
        let session = self.sessions.get_mut(key).expect("being closed");
        self.buried_sessions.push(key);
        if reason == CloseReason::SlowClient {
            // What it has not read is what it is closed for: nobody waits for it to read that.
            let whole = session.outbox.is_between_packets(&self.chains);
            return self.throw_out(conn, whole);
        }
        if reason == CloseReason::TransportClose && self.conns.get(conn).is_some_and(|conn| conn.deaf) {
            // A client that has sent its close frame hears nothing more: what it has not read need not wait for it.
            let (written, discarded) = session.outbox.drop_unsent(&mut self.chains);
            self.counters.written += written as u64;
            self.counters.discarded += discarded as u64;
        }
        let (left, packets) = session.outbox.take_frames(&mut self.chains);
        self.counters.parted += packets as u64;
        if reason == CloseReason::RateLimited {
            // It said too much already: whatever else it sends is not looked at.
            self.conns.get_mut(conn).expect("it served the session").deaf = true;
        }
        self.depart(conn, left, code);
    }

    /// The poll that is there takes what is queued. When the server closes in order, the close packet waits for the next
    /// one: the JavaScript client looks at a close packet before the packets that came with it, and would miss them.
    fn answer_and_close(&mut self, key: Key<Session>, poll: Exchange, reason: CloseReason) {
        let session = self.sessions.get_mut(key).expect("being closed");
        match reason {
            CloseReason::ForcedClose | CloseReason::ServerShuttingDown if !session.outbox.is_empty() => {
                let mut payload = Vec::new();
                self.counters.written += session.outbox.take_payload(&mut self.chains, &mut payload) as u64;
                self.answer_payload(poll, payload);
                self.linger(key, reason);
            }
            CloseReason::TransportClose => self.last_payload(key, poll, NOOP),
            _ => self.last_payload(key, poll, CLOSE),
        }
    }

    /// A poll that comes soon shall hear of the end, if it was the server's wish; or it was on its way, perhaps through
    /// another worker, while the client said goodbye.
    fn linger(&mut self, key: Key<Session>, reason: CloseReason) {
        let last = match reason {
            CloseReason::ForcedClose => LastWord::NoopAndClose,
            // A server that drains has time to be asked; one that closes at once has not.
            CloseReason::ServerShuttingDown if self.drain.is_some() => LastWord::NoopAndClose,
            CloseReason::TransportClose => LastWord::Noop,
            _ => return self.buried_sessions.push(key),
        };
        let session = self.sessions.get_mut(key).expect("being closed");
        session.state = State::Lingering { last };
        // A client that would have missed its heartbeat by then is not waited for.
        let heard_until = match session.heartbeat.state {
            HeartbeatState::Resting => session.heartbeat.due + millis(self.settings.ping_timeout),
            HeartbeatState::AwaitingPong | HeartbeatState::Extended => session.heartbeat.due,
        };
        // And nobody else waits for one that does not come to hear that the server ends.
        let patience = if self.draining { millis(self.settings.shutdown_grace).min(LINGER_MS) } else { LINGER_MS };
        self.wake_at(heard_until.min(self.now + patience), Timer::Linger(key));
    }

    pub(super) fn linger_due(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let State::Lingering { .. } = session.state {
            session.state = State::Closed;
            self.buried_sessions.push(key);
        }
    }

    /// The first poll after the end takes what was still queued, the next one hears that it was the end.
    fn answer_last_poll(&mut self, key: Key<Session>, exchange: Exchange, last: LastWord) {
        let session = self.sessions.get_mut(key).expect("the caller has it");
        if session.outbox.is_empty() {
            session.state = State::Closed;
            let last = match last {
                LastWord::Noop => NOOP,
                LastWord::NoopAndClose => NOOP_AND_CLOSE,
            };
            self.last_payload(key, exchange, last);
        } else {
            let mut payload = Vec::new();
            self.counters.written += session.outbox.take_payload(&mut self.chains, &mut payload) as u64;
            self.answer_payload(exchange, payload);
        }
    }

    /// Answers a session's last poll with what is queued and `last`.
    fn last_payload(&mut self, key: Key<Session>, poll: Exchange, last: &str) {
        let session = self.sessions.get_mut(key).expect("being closed");
        let mut payload = Vec::new();
        self.counters.written += session.outbox.take_payload(&mut self.chains, &mut payload) as u64;
        if !payload.is_empty() {
            payload.push(engineio::SEPARATOR);
        }
        payload.extend_from_slice(last.as_bytes());
        self.buried_sessions.push(key);
        self.answer_payload(poll, payload);
    }

    fn answer(&mut self, poll: Exchange, packet: &'static str) {
        self.answers.push((poll, Reply::Payload(Bytes::from_static(packet.as_bytes()))));
    }

    pub(super) fn answer_payload(&mut self, poll: Exchange, payload: Vec<u8>) {
        self.counters.bytes_out += payload.len() as u64;
        self.answers.push((poll, Reply::Payload(Bytes::from(payload))));
    }

    /// Gives an exchange's answer to the worker that holds the request.
    pub fn route_answers(&mut self) -> Vec<(Exchange, Reply)> {
        let (here, elsewhere) =
            self.take_answers().into_iter().partition(|(exchange, _)| exchange.worker == self.number);
        let away: Vec<_> = elsewhere;
        for (exchange, reply) in away {
            self.post(exchange.worker, Mail::Answer { exchange, reply });
        }
        here
    }

    pub(super) fn probe_pong() -> &'static [u8] {
        PROBE_PONG.websocket()
    }
}

/// How the stream of a closing session is left.
enum Farewell {
    /// With what is queued and a close frame.
    Frame(Option<u16>),
    /// It is gone.
    None,
}

enum Decoded<'b> {
    Borrowed(engineio::Packet<'b>),
    /// Already dealt with.
    Owned(Option<Event<'static>>),
}

fn can_upgrade(session: &Session) -> bool {
    session.state == State::Open && session.upgrade.is_none() && matches!(session.transport, Transport::Polling { .. })
}
