//! Outbox: what one session still has to send.
//!
//! Filled by the fan-out and by control packets; emptied by `Shard::write`, once per turn. It never touches the network.
//!
//! The usual outbox is four bytes: the run (runs.rs) that this turn has gathered, written straight from shared memory.
//! Only what the kernel, or a missing poll, does not take becomes a backlog, by reference: ten thousand clients that
//! are behind on the same feed share one copy of it.
//!
//! Invariants: `bytes` equals the sum of the segments minus `offset`; `offset` is inside the first segment, or zero.
//! Limits:     `outbox_bytes_max` (Settings), checked when the stream takes no more or no poll is there (write.rs).
//! Not here:   choosing recipients (broadcast.rs); system calls (worker/streams.rs).

use super::runs::{EMPTY, Run, Runs, Segment};
use crate::proto::Prepared;
use crate::proto::engineio::SEPARATOR;
use bytes::Bytes;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Default)]
pub struct Outbox {
    /// What this turn has gathered; it comes after the backlog.
    pub run: Run,
    backlog: Option<Box<Backlog>>,
}

#[derive(Default)]
struct Backlog {
    segments: VecDeque<Rc<Segment>>,
    /// Bytes of the first segment that have left as WebSocket frames.
    offset: usize,
    bytes: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.run == EMPTY && self.backlog.is_none()
    }

    /// Bytes in the backlog, as WebSocket frames. The run is not counted.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    pub fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Turns the run into backlog, `sent` bytes of it being gone already.
    pub fn keep(&mut self, runs: &mut Runs, sent: usize) {
        if self.run == EMPTY {
            return;
        }
        debug_assert!(sent < runs.bytes(self.run) && (sent == 0 || self.backlog.is_none() && !runs.is_heavy(self.run)));
        let backlog = self.backlog.get_or_insert_default();
        backlog.bytes += runs.bytes(self.run) - sent;
        backlog.offset += sent;
        backlog.segments.extend(runs.segments(self.run));
        runs.release(std::mem::take(&mut self.run));
        self.invariants();
    }

    /// The frames that come next, if the backlog has any.
    pub fn front(&self) -> Option<&[u8]> {
        let backlog = self.backlog.as_ref()?;
        Some(&backlog.segments.front()?.wire[backlog.offset..])
    }

    /// `sent` bytes of `front()` have left. Returns how many packets are complete by that.
    pub fn advance(&mut self, sent: usize) -> usize {
        let backlog = self.backlog.as_mut().expect("advance() follows front()");
        let first = backlog.segments.front().expect("a backlog is never empty");
        let (bytes, packets) = (first.wire.len(), first.packets.len());
        backlog.bytes -= sent;
        backlog.offset += sent;
        assert!(backlog.offset <= bytes, "the kernel takes no more than it is given");
        if backlog.offset < bytes {
            return 0;
        }
        backlog.offset = 0;
        backlog.segments.pop_front();
        if backlog.segments.is_empty() {
            self.backlog = None;
        }
        self.invariants();
        packets
    }

    /// Everything as one polling payload, appended to `body`; returns the number of packets. The run must have been
    /// kept.
    pub fn take_payload(&mut self, body: &mut Vec<u8>) -> usize {
        debug_assert_eq!(self.run, EMPTY, "keep() comes first");
        let Some(backlog) = self.backlog.take() else { return 0 };
        debug_assert_eq!(backlog.offset, 0, "polling sends whole packets");
        for packet in backlog.packets() {
            if !body.is_empty() {
                body.push(SEPARATOR);
            }
            packet.put_polling(body);
        }
        backlog.packets().count()
    }

    /// Everything as frames, for a stream that outlives its session, and the number of packets in them. The run must
    /// have been kept.
    pub fn take_frames(&mut self) -> (VecDeque<Bytes>, usize) {
        debug_assert_eq!(self.run, EMPTY, "keep() comes first");
        let Some(backlog) = self.backlog.take() else { return Default::default() };
        let mut frames: VecDeque<_> = backlog.segments.iter().map(|segment| segment.wire.clone()).collect();
        if let Some(first) = frames.front_mut() {
            *first = first.slice(backlog.offset..);
        }
        (frames, backlog.packets().count())
    }

    /// Forgets everything, because the session is gone; returns the number of packets.
    pub fn clear(&mut self, runs: &mut Runs) -> usize {
        let waiting = runs.packets(self.run) as usize;
        runs.release(std::mem::take(&mut self.run));
        waiting + self.backlog.take().map_or(0, |backlog| backlog.packets().count())
    }

    fn invariants(&self) {
        if cfg!(debug_assertions)
            && let Some(backlog) = &self.backlog
        {
            let queued: usize = backlog.segments.iter().map(|segment| segment.wire.len()).sum();
            assert_eq!(backlog.bytes, queued - backlog.offset);
        }
    }
}

impl Backlog {
    fn packets(&self) -> impl Iterator<Item = &Arc<Prepared>> {
        self.segments.iter().flat_map(|segment| &segment.packets)
    }
}
