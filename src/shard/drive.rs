//! Drive: the order in which a shard and the application take turns.
//!
//! The shard never calls the application; it gives events, one at a time, and is free while one is handled. So a handler
//! may emit, join and disconnect on the very shard that gave it the event. A worker and the simulator drive their shards
//! through these functions and through nothing else.

use super::arena::Key;
use super::mail::{Event, Exchange, Mail, Request};
use super::session::Conn;
use super::{Millis, Shard};
use crate::proto::{Id, engineio};
use std::cell::RefCell;

/// Who is told what happened. The shard is not borrowed during the call.
pub trait App {
    fn handle(&self, shard: &RefCell<Shard>, event: Event<'_>);
}

/// Bytes that were read from a stream. They are unmasked in place.
pub fn receive(shard: &RefCell<Shard>, app: &impl App, conn: Key<Conn>, bytes: &mut [u8]) {
    let mut spill = {
        let mut shard = shard.borrow_mut();
        shard.count_bytes_in(conn, bytes.len());
        shard.take_spill(conn)
    };
    if spill.is_empty() {
        let rest = consume(shard, app, conn, bytes);
        let rest = bytes[bytes.len() - rest..].to_vec();
        return shard.borrow_mut().keep_spill(conn, rest);
    }
    spill.extend_from_slice(bytes);
    let rest = consume(shard, app, conn, &mut spill);
    spill.drain(..spill.len() - rest);
    if rest == 0 {
        spill = Vec::new();
    }
    shard.borrow_mut().keep_spill(conn, spill);
}

/// Handles all whole frames; returns the length of what is left.
fn consume(shard: &RefCell<Shard>, app: &impl App, conn: Key<Conn>, bytes: &mut [u8]) -> usize {
    let mut input = bytes;
    loop {
        let event = shard.borrow_mut().read_event(conn, &mut input);
        let Some(event) = event else { return input.len() };
        app.handle(shard, event);
        hear_out(shard, app);
    }
}

/// An HTTP request of a polling session that lives on this shard.
pub fn request(shard: &RefCell<Shard>, app: &impl App, sid: Id, request: Request, exchange: Exchange) {
    let pushed = shard.borrow_mut().on_request(sid, request, exchange);
    let Some((session, body)) = pushed else { return };
    // A body that is not UTF-8 is one packet that cannot be decoded.
    let text = std::str::from_utf8(&body).unwrap_or_default();
    for packet in engineio::payload(text) {
        let outcome = shard.borrow_mut().on_pushed(session, packet);
        match outcome {
            Ok(Some(event)) => app.handle(shard, event),
            Ok(None) => {}
            Err(_) => break,
        }
        hear_out(shard, app);
    }
    shard.borrow_mut().finish_push(exchange);
}

/// Mail from another shard.
pub fn deliver(shard: &RefCell<Shard>, app: &impl App, mail: Mail) {
    match mail {
        Mail::Request { sid, request, exchange } => self::request(shard, app, sid, request, exchange),
        other => shard.borrow_mut().on_mail(other),
    }
    hear_out(shard, app);
}

pub fn advance(shard: &RefCell<Shard>, app: &impl App, now: Millis) {
    shard.borrow_mut().advance(now);
    hear_out(shard, app);
}

/// Lets the application hear of everything that has happened. To be called whenever the shard was touched.
pub fn hear_out(shard: &RefCell<Shard>, app: &impl App) {
    loop {
        let event = shard.borrow_mut().next_event();
        let Some(event) = event else { return };
        app.handle(shard, event);
    }
}
