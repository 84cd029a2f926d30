//! Polling: one stream that is kept alive, requests in pairs, answers in their order.
//!
//! ```text
//!     GET ─▶ 0{sid}     POST 40, GET ─▶ ok, 40{…}     GET ─▶ 42[…]     GET ─▶ 2     POST 3, GET ─▶ ok, 42[…]
//! ```
//!
//! A client speaks only when nothing is awaited: what was said goes out as one POST, and the next poll right behind it,
//! in one write. What is said while a poll hangs waits for its answer, because a POST behind the poll on this stream
//! would wait as well: until the next message, and at the server's ping interval at the latest.
//!
//! A poll has no time limit of its own. When an answer says that the stream ends with it, the session goes on, on
//! another.
//!
//! Invariants: at most one POST and one poll are awaited, and the POST is answered first.

use super::{Ending, Incoming, Next, Saying, Words, feed};
use crate::engineio::{self, Packet, SEPARATOR};
use crate::http;
use std::mem;

/// One pointer: a client over WebSocket should not pay for this.
#[derive(Default)]
pub struct Polling(Box<State>);

#[derive(Default)]
struct State {
    sid: Option<Box<str>>,
    /// The bytes of an answer that is not whole yet.
    bytes: Vec<u8>,
    /// The payload of the next POST.
    said: Vec<u8>,
    posted: bool,
    polled: bool,
    /// The server closes this stream.
    closing: bool,
}

impl Polling {
    pub fn sid(&self) -> Option<&str> {
        self.0.sid.as_deref()
    }

    /// Whether nothing is left to be said.
    pub fn is_silent(&self) -> bool {
        self.0.said.is_empty()
    }

    /// On a fresh stream nothing is awaited.
    pub fn begin(&mut self) {
        (self.0.posted, self.0.polled, self.0.closing) = (false, false, false);
    }

    /// Keeps a packet for the next POST.
    pub fn say(&mut self, packet: &str) {
        if !self.is_silent() {
            self.0.said.push(SEPARATOR);
        }
        self.0.said.extend_from_slice(packet.as_bytes());
    }

    /// Asks for what is due, if nothing is awaited. Who is `leaving` polls no more.
    pub fn flush(&mut self, words: &Words, leaving: bool, out: &mut Vec<u8>) -> Next {
        let state = &mut *self.0;
        if state.closing {
            return Next::Reconnect;
        }
        if state.posted || state.polled {
            return Next::Stay;
        }
        if !state.said.is_empty() {
            words.put_post(state.sid.as_deref(), &mem::take(&mut state.said), out);
            state.posted = true;
        }
        match leaving {
            true if state.posted => Next::Stay,
            true => Next::Reconnect,
            false => {
                words.put_poll(state.sid.as_deref(), out);
                state.polled = true;
                Next::Stay
            }
        }
    }

    /// Takes what was read and lets it be heard; what is said to it is kept.
    pub fn receive<'w>(
        &mut self,
        input: &[u8],
        hear: &mut impl FnMut(Incoming<'_>) -> Saying<'w>,
    ) -> Result<(), Ending> {
        let bytes = mem::take(&mut self.0.bytes);
        self.0.bytes = feed(bytes, input, |bytes| self.take(bytes, hear))?;
        Ok(())
    }

    /// Takes every whole answer from the front of `bytes` and says how much that was.
    fn take<'w>(&mut self, bytes: &[u8], hear: &mut impl FnMut(Incoming<'_>) -> Saying<'w>) -> Result<usize, Ending> {
        let mut taken = 0;
        while let Some((answer, (body, length))) = http::answer(&bytes[taken..])? {
            self.take_answer(&answer, &body, hear)?;
            taken += length;
            if self.0.closing {
                return Ok(bytes.len());
            }
        }
        Ok(taken)
    }

    fn take_answer<'w>(
        &mut self,
        answer: &http::Answer<'_>,
        body: &[u8],
        hear: &mut impl FnMut(Incoming<'_>) -> Saying<'w>,
    ) -> Result<(), Ending> {
        let (posted, line) = (mem::take(&mut self.0.posted), || answer.line().to_owned());
        if !posted && !mem::take(&mut self.0.polled) {
            return Err(Ending::Unasked(line()));
        }
        self.0.closing = answer.closes();
        match (answer.status, posted) {
            (200, true) => Ok(()),
            (200, false) => self.take_payload(body, hear),
            (_, true) => Err(Ending::PostRefused(line())),
            (_, false) if self.0.sid.is_none() => Err(Ending::HandshakeRefused(line())),
            (_, false) => Err(Ending::PollRefused(line())),
        }
    }

    fn take_payload<'w>(
        &mut self,
        payload: &[u8],
        hear: &mut impl FnMut(Incoming<'_>) -> Saying<'w>,
    ) -> Result<(), Ending> {
        for packet in payload.split(|byte| *byte == SEPARATOR) {
            if self.0.sid.is_none() {
                let Some(Packet::Open(handshake)) = engineio::parse(packet) else { return Err(Ending::EngineIo) };
                self.0.sid = Some(engineio::sid(handshake).ok_or(Ending::EngineIo)?);
            }
            let incoming = match packet {
                [b'b', ..] => Incoming::Binary(packet),
                _ => Incoming::Text(packet),
            };
            if let Some(packet) = hear(incoming)? {
                self.say(packet);
            }
        }
        Ok(())
    }
}
