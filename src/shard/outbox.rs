//! Outbox: what one session still has to send.
//!
//! Filled by the fan-out and by control packets; emptied by `Shard::write`, once per turn. It never touches the network.
//!
//! The usual outbox is four bytes: the run (runs.rs) that this turn has gathered, written straight from shared memory.
//! Only what the kernel, or a missing poll, does not take becomes a backlog, by reference (chains.rs): ten thousand
//! clients that are behind on the same feed share one copy of it.
//!
//! A packet says itself what may become of it when its receiver is behind ([`Fate`]), and [`Outbox::relieve`] is where
//! that is done. In front of everything stays the segment of which a part has left: a frame is never cut.
//!
//! Invariants: `bytes` equals the sum of the segments minus `offset`; `offset` is inside the first segment, or zero;
//!             `fates` names at least the fates that are there.
//! Limits:     `outbox_bytes_max`, `outbox_age_max` (Settings), asked when the stream takes no more or no poll is there
//!             (write.rs).
//! Not here:   choosing recipients (broadcast.rs); system calls (worker/streams.rs).

use super::chains::{Chains, Fates, Segment, Span};
use super::runs::{EMPTY, LAID_OUT_BYTES_MAX, Run, Runs};
use super::wheel::Millis;
use crate::proto::engineio::SEPARATOR;
use crate::proto::{Fate, Prepared};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// A search for what may be dropped looks at the whole backlog. A larger one than this is searched only when much has come
/// since the last time: as much as was there, or of too much an [`EXCESS`]. So each packet is looked at a few times,
/// however many come.
const SEARCH_BYTES_MIN: usize = 4 << 10;
/// The share of `outbox_bytes_max` by which a backlog may exceed it between two searches: an eighth.
pub const EXCESS: usize = 8;

#[derive(Default)]
pub struct Outbox {
    /// What this turn has gathered; it comes after the backlog.
    pub run: Run,
    /// Whether the application has heard that much waits, and not yet that it is less.
    pub pressed: bool,
    /// Whether the wheel holds an entry that will look how long the backlog has waited.
    pub aging: bool,
    backlog: Option<Box<Backlog>>,
}

#[derive(Default)]
struct Backlog {
    spans: VecDeque<Span>,
    /// Bytes of the first segment that have left as WebSocket frames.
    offset: usize,
    bytes: usize,
    fates: Fates,
    /// Bytes that have come since the last search.
    unsearched: usize,
    /// Whether the stream has refused some of it, or there was no poll: then it is the client that is behind, not we.
    refused: bool,
}

/// What was dropped, in packets, by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    pub newest: u64,
    pub oldest: u64,
    pub conflated: u64,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.run == EMPTY && self.backlog.is_none()
    }

    /// Bytes in the backlog, as WebSocket frames. The run is not counted.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// The client does not take what waits.
    pub fn refuse(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.refused = true;
        }
    }

    pub fn is_refused(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.refused)
    }

    /// Bytes that wait for our own writes and for nothing else.
    pub fn unoffered_bytes(&self) -> usize {
        if self.is_refused() { 0 } else { self.backlog_bytes() }
    }

    pub fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Since when the first packet waits.
    pub fn since(&self, chains: &Chains) -> Option<Millis> {
        let backlog = self.backlog.as_ref()?;
        Some(chains.first(backlog.spans.front()?).since)
    }

    /// Since when the first packet waits that must not be dropped.
    pub fn kept_since(&self, chains: &Chains) -> Option<Millis> {
        let backlog = self.backlog.as_ref().filter(|backlog| backlog.fates.kept)?;
        chains.segments(&backlog.spans).find(|segment| segment.fates.kept).map(|segment| segment.since)
    }

    /// Since when the first packet waits that is dropped when it is too old.
    pub fn droppable_since(&self, chains: &Chains) -> Option<Millis> {
        let backlog = self.backlog.as_ref().filter(|backlog| backlog.fates.oldest)?;
        let whole = chains.segments(&backlog.spans).skip(usize::from(backlog.offset > 0));
        whole.into_iter().find(|segment| segment.fates.oldest).map(|segment| segment.since)
    }

    /// Turns the run into backlog, `sent` bytes of it being gone already.
    pub fn keep(&mut self, runs: &mut Runs, chains: &mut Chains, sent: usize, now: Millis) {
        if self.run == EMPTY {
            return;
        }
        debug_assert!(sent < runs.bytes(self.run) && (sent == 0 || self.backlog.is_none() && !runs.is_heavy(self.run)));
        let backlog = self.backlog.get_or_insert_default();
        backlog.offset += sent;
        let (bytes, fates) = runs.put_behind(self.run, chains, &mut backlog.spans, now);
        backlog.bytes += bytes - sent;
        backlog.unsearched += bytes - sent;
        backlog.fates.add(fates);
        runs.release(std::mem::take(&mut self.run));
        self.invariants(chains);
    }

    /// The frames that come next, if the backlog has any.
    pub fn front<'s>(&'s self, chains: &'s Chains) -> Option<&'s [u8]> {
        let backlog = self.backlog.as_ref()?;
        Some(&chains.first(backlog.spans.front()?).wire[backlog.offset..])
    }

    /// `sent` bytes of `front()` have left. Returns how many packets are complete by that.
    pub fn advance(&mut self, chains: &mut Chains, sent: usize) -> usize {
        let backlog = self.backlog.as_mut().expect("advance() follows front()");
        let first = chains.first(backlog.spans.front().expect("a backlog is never empty"));
        let (bytes, packets) = (first.wire.len(), first.packets.len());
        backlog.bytes -= sent;
        backlog.unsearched = backlog.unsearched.min(backlog.bytes);
        backlog.offset += sent;
        assert!(backlog.offset <= bytes, "the kernel takes no more than it is given");
        if backlog.offset < bytes {
            return 0;
        }
        backlog.offset = 0;
        chains.pop(&mut backlog.spans);
        if backlog.spans.is_empty() {
            self.backlog = None;
        }
        self.invariants(chains);
        packets
    }

    /// Whether no packet has left in part.
    pub fn is_between_packets(&self, chains: &Chains) -> bool {
        let Some(backlog) = self.backlog.as_ref() else { return true };
        let first = chains.first(backlog.spans.front().expect("a backlog is never empty"));
        let ends = first.packets.iter().scan(0, |end, packet| {
            *end += packet.websocket().len();
            Some(*end)
        });
        backlog.offset == 0 || ends.take_while(|&end| end <= backlog.offset).last() == Some(backlog.offset)
    }

    /// Drops what may be dropped: what newer packets have replaced, and then as much as is too much.
    pub fn relieve(&mut self, chains: &mut Chains, bytes_max: usize) -> Relief {
        let mut relief = Relief::default();
        let Some(backlog) = self.backlog.as_mut() else { return relief };
        let is_over = backlog.bytes > bytes_max;
        let is_worth_it =
            if is_over { backlog.has_new(bytes_max / EXCESS) } else { backlog.has_new(backlog.bytes / 2) };
        if !is_worth_it {
            return relief;
        }
        if backlog.fates.conflated && (is_over || backlog.bytes >= SEARCH_BYTES_MIN) {
            relief.conflated = backlog.conflate(chains);
        }
        if backlog.fates.oldest && backlog.bytes > bytes_max {
            relief.oldest = backlog.drop_oldest(chains, bytes_max, 0);
        }
        if backlog.fates.newest && backlog.bytes > bytes_max {
            relief.newest = backlog.drop_newest(chains, bytes_max);
        }
        if is_over {
            backlog.unsearched = 0;
        }
        self.end_relief(chains);
        relief
    }

    /// Whether more waits than may, also after [`relieve`](Self::relieve). While a search would not be worth it, an excess
    /// of what might be dropped is none.
    pub fn is_over(&self, bytes_max: usize) -> bool {
        let Some(backlog) = &self.backlog else { return false };
        let Fates { newest, oldest, conflated, .. } = backlog.fates;
        let droppable = newest || oldest || conflated;
        let excused = droppable && backlog.unsearched > 0 && !backlog.has_new(bytes_max / EXCESS);
        backlog.bytes > bytes_max && !excused
    }

    /// Drops what waits since before that time, of that which is dropped when it is too old. Returns the number of packets.
    pub fn drop_late(&mut self, chains: &mut Chains, since_min: Millis) -> u64 {
        let Some(backlog) = self.backlog.as_mut().filter(|backlog| backlog.fates.oldest) else { return 0 };
        let dropped = backlog.drop_oldest(chains, usize::MAX, since_min);
        self.end_relief(chains);
        dropped
    }

    /// Drops what newer packets have replaced, because the client reads again and is to see the newest. Returns the number
    /// of packets.
    pub fn conflate(&mut self, chains: &mut Chains) -> u64 {
        let Some(backlog) = self.backlog.as_mut().filter(|backlog| backlog.fates.conflated) else { return 0 };
        if !backlog.has_new(backlog.bytes / EXCESS) {
            return 0;
        }
        let dropped = backlog.conflate(chains);
        self.end_relief(chains);
        dropped
    }

    fn end_relief(&mut self, chains: &Chains) {
        if self.backlog.as_ref().is_some_and(|backlog| backlog.spans.is_empty()) {
            self.backlog = None;
        }
        self.invariants(chains);
    }

    /// Everything as one polling payload, appended to `body`; returns the number of packets. The run must have been
    /// kept.
    pub fn take_payload(&mut self, chains: &mut Chains, body: &mut Vec<u8>) -> usize {
        debug_assert_eq!(self.run, EMPTY, "keep() comes first");
        let Some(mut backlog) = self.backlog.take() else { return 0 };
        debug_assert_eq!(backlog.offset, 0, "polling sends whole packets");
        let mut packets = 0;
        for packet in backlog.packets(chains) {
            if !body.is_empty() {
                body.push(SEPARATOR);
            }
            packet.put_polling(body);
            packets += 1;
        }
        chains.clear(&mut backlog.spans);
        packets
    }

    /// Everything as frames, for a stream that outlives its session, and the number of packets in them. The run must
    /// have been kept.
    pub fn take_frames(&mut self, chains: &mut Chains) -> (VecDeque<Bytes>, usize) {
        debug_assert_eq!(self.run, EMPTY, "keep() comes first");
        let Some(mut backlog) = self.backlog.take() else { return Default::default() };
        let mut frames: VecDeque<_> = chains.segments(&backlog.spans).map(|segment| segment.wire.clone()).collect();
        if let Some(first) = frames.front_mut() {
            *first = first.slice(backlog.offset..);
        }
        let packets = backlog.packets(chains).count();
        chains.clear(&mut backlog.spans);
        (frames, packets)
    }

    /// Drops every packet of which nothing has left. Returns how many had left whole, and how many are dropped.
    pub fn drop_unsent(&mut self, chains: &mut Chains) -> (usize, usize) {
        let Some(backlog) = self.backlog.as_mut() else { return (0, 0) };
        let (sent, dropped) = backlog.drop_unsent(chains);
        self.end_relief(chains);
        (sent, dropped)
    }

    /// Forgets everything, because the session is gone; returns the number of packets.
    pub fn clear(&mut self, runs: &mut Runs, chains: &mut Chains) -> usize {
        let waiting = runs.packets(self.run) as usize;
        runs.release(std::mem::take(&mut self.run));
        let Some(mut backlog) = self.backlog.take() else { return waiting };
        let kept = backlog.packets(chains).count();
        chains.clear(&mut backlog.spans);
        waiting + kept
    }

    fn invariants(&self, chains: &Chains) {
        if cfg!(debug_assertions)
            && let Some(backlog) = &self.backlog
        {
            let queued: usize = chains.segments(&backlog.spans).map(|segment| segment.wire.len()).sum();
            assert_eq!(backlog.bytes, queued - backlog.offset);
            let mut fates = backlog.fates;
            chains.segments(&backlog.spans).for_each(|segment| fates.add(segment.fates));
            assert_eq!(backlog.fates, fates);
        }
    }
}

impl Backlog {
    fn packets<'s>(&'s self, chains: &'s Chains) -> impl Iterator<Item = &'s Arc<Prepared>> {
        chains.segments(&self.spans).flat_map(|segment| segment.packets.iter())
    }

    /// Whether more than so many bytes have come since the last search, or any where a search is cheap.
    fn has_new(&self, bytes: usize) -> bool {
        self.unsearched > if self.bytes <= SEARCH_BYTES_MIN { 0 } else { bytes }
    }

    /// Drops from the front what is too old, and then until the rest fits. Returns the number of packets.
    fn drop_oldest(&mut self, chains: &mut Chains, bytes_max: usize, since_min: Millis) -> u64 {
        let only_oldest = Fates { oldest: true, ..Fates::default() };
        let head = self.detach_head();
        let mut dropped = 0;
        let (mut spans, mut stay) = (VecDeque::new(), Vec::new());
        while let Some(span) = self.spans.front() {
            let first = chains.first(span);
            let mut excess = self.bytes.saturating_sub(bytes_max);
            let late = first.since < since_min;
            if excess == 0 && !late {
                break;
            }
            if !first.fates.oldest && stay.is_empty() {
                shift(&mut self.spans, &mut spans);
                continue;
            }
            let len = first.wire.len();
            if first.fates == only_oldest && (late || excess >= len) {
                dropped += first.packets.len() as u64;
                self.bytes -= len;
            } else {
                let (go, rest): (Vec<_>, Vec<_>) = items(first).partition(|item| {
                    let goes = (late || excess > 0) && *item.packet.fate() == Fate::DroppedOldest;
                    excess = excess.saturating_sub(if goes { item.bytes() } else { 0 });
                    goes
                });
                dropped += go.len() as u64;
                self.bytes -= go.iter().map(Item::bytes).sum::<usize>();
                stay.extend(rest);
            }
            chains.pop(&mut self.spans);
        }
        chains.put(&mut spans, pieces(stay));
        spans.append(&mut self.spans);
        self.spans = spans;
        self.attach_head(head);
        dropped
    }

    /// Drops what newer packets have replaced. Returns the number of packets.
    fn conflate(&mut self, chains: &mut Chains) -> u64 {
        self.unsearched = 0;
        let mut later = HashSet::new();
        self.sift(chains, |item| match item.packet.fate() {
            Fate::Conflated(key) => later.insert(Arc::clone(key)),
            _ => true,
        })
    }

    /// Drops from the back until the rest fits. Returns the number of packets.
    fn drop_newest(&mut self, chains: &mut Chains, bytes_max: usize) -> u64 {
        let mut excess = self.bytes.saturating_sub(bytes_max);
        self.sift(chains, |item| {
            let goes = excess > 0 && *item.packet.fate() == Fate::DroppedNewest;
            excess = excess.saturating_sub(if goes { item.bytes() } else { 0 });
            !goes
        })
    }

    /// Drops all packets but, where one has left in part, that one. Returns how many had left whole, and how many are
    /// dropped.
    fn drop_unsent(&mut self, chains: &mut Chains) -> (usize, usize) {
        let all = self.packets(chains).count();
        let first = chains.first(self.spans.front().expect("a backlog is never empty"));
        let since = first.since;
        let mut sent = 0;
        let mut partial = None;
        for packet in &first.packets {
            let len = packet.websocket().len();
            if self.offset < len {
                partial = (self.offset > 0).then(|| Arc::clone(packet));
                break;
            }
            self.offset -= len;
            sent += 1;
        }
        chains.clear(&mut self.spans);
        (self.bytes, self.unsearched) = (0, 0);
        if let Some(packet) = &partial {
            self.bytes = packet.websocket().len() - self.offset;
            self.fates = Fates::of(std::slice::from_ref(packet));
            chains.put(&mut self.spans, vec![Segment::laid_out(vec![Arc::clone(packet)], since)]);
        }
        (sent, all - sent - usize::from(partial.is_some()))
    }

    /// Keeps those packets that stay, asked from the last to the first. Returns how many it has dropped.
    fn sift(&mut self, chains: &mut Chains, stays: impl FnMut(&Item) -> bool) -> u64 {
        let head = self.detach_head();
        let all: Vec<Item> = chains.segments(&self.spans).flat_map(items).collect();
        let (mut stay, go): (Vec<_>, Vec<_>) = all.into_iter().rev().partition(stays);
        if !go.is_empty() {
            self.bytes -= go.iter().map(Item::bytes).sum::<usize>();
            stay.reverse();
            chains.clear(&mut self.spans);
            chains.put(&mut self.spans, pieces(stay));
        }
        self.attach_head(head);
        go.len() as u64
    }

    /// The segment of which a part has left is nobody's to change.
    fn detach_head(&mut self) -> Option<Span> {
        if self.offset == 0 { None } else { take_first(&mut self.spans) }
    }

    fn attach_head(&mut self, head: Option<Span>) {
        match (head, self.spans.front_mut()) {
            (Some(Span::Shared { chain, from, to }), Some(Span::Shared { chain: next, from: goes_on, .. }))
                if (chain, to) == (*next, *goes_on) =>
            {
                *goes_on = from;
            }
            (Some(head), _) => self.spans.push_front(head),
            (None, _) => {}
        }
    }
}

/// Takes the first segment of a backlog, as it is: as a span of its own.
fn take_first(spans: &mut VecDeque<Span>) -> Option<Span> {
    let Some(Span::Shared { chain, from, to }) = spans.front_mut() else { return spans.pop_front() };
    let first = Span::Shared { chain: *chain, from: *from, to: from.wrapping_add(1) };
    *from = from.wrapping_add(1);
    if from == to {
        spans.pop_front();
    }
    Some(first)
}

/// Moves the first segment of a backlog to the end of another one.
fn shift(from: &mut VecDeque<Span>, to: &mut VecDeque<Span>) {
    match (take_first(from), to.back_mut()) {
        (Some(Span::Shared { chain, from, to }), Some(Span::Shared { chain: last, to: end, .. }))
            if (chain, from) == (*last, *end) =>
        {
            *end = to;
        }
        (first, _) => to.extend(first),
    }
}

/// A packet of a backlog.
struct Item {
    packet: Arc<Prepared>,
    since: Millis,
}

fn items(segment: &Segment) -> impl Iterator<Item = Item> {
    segment.packets.iter().map(|packet| Item { packet: Arc::clone(packet), since: segment.since })
}

/// Makes segments of what was chosen, as large as runs make them. A segment has one age, so packets of different ages are
/// parted; but for those whose age does not matter, because they wait for a newer one and nothing else.
fn pieces(items: Vec<Item>) -> Vec<Segment> {
    let mut pieces = Vec::new();
    let mut items = items.into_iter().peekable();
    while let Some(first) = items.next() {
        let (mut age, mut eldest, mut bytes) = (first.age(), first.since, first.bytes());
        let mut packets = vec![first.packet];
        while let Some(item) = items.next_if(|item| {
            let same_age = item.age().is_none_or(|since| since == age.unwrap_or(eldest));
            same_age && bytes + item.bytes() <= (packets.len() + 1) * LAID_OUT_BYTES_MAX
        }) {
            age = age.or(item.age());
            eldest = eldest.min(item.since);
            bytes += item.bytes();
            packets.push(item.packet);
        }
        pieces.push(Segment::laid_out(packets, age.unwrap_or(eldest)));
    }
    pieces
}

impl Item {
    /// Since when it waits, if that matters.
    fn age(&self) -> Option<Millis> {
        (!matches!(self.packet.fate(), Fate::Conflated(_))).then_some(self.since)
    }

    fn bytes(&self) -> usize {
        self.packet.websocket().len()
    }
}
