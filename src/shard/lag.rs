//! Lag: what has been fanned out and not been offered to all of its receivers yet.
//!
//! A fan-out only lists its receivers; the writes follow, so many a turn. Whoever emits faster than they are written lets
//! packets pile up here, and no receiver is to blame. Such an emitter can be made to wait, if it counts: the counts of a
//! broadcast are held back while the shard lags by more than `lag_bytes_max`, and a loop that awaits them goes at the
//! pace of the writes.
//!
//! ```text
//!               taken                          listed
//!     ────────────┬──────────────────────────────┬────▶ a lane's sessions, in order
//!        written  │  k     k     k  k     k  k   │
//!                 └───▲─────────────▲────────────▲
//!                 broadcast 1       2            3      each ends where the lane ended when it was fanned out
//! ```
//!
//! A lane is first in, first out, so a broadcast is done when the lane has come to its mark: one number for each
//! broadcast, and nothing for a receiver. A wide one may have receivers in both lanes, so it has a mark in each.
//!
//! Large packets leave one at a time, and a session that has more of them comes round again. What it has not been offered
//! by then is behind too, and the most that any session has is what counts. A session whose stream has refused some of
//! its backlog is not among them: it is the client that is behind.
//!
//! The road not taken is to count the packets that are queued and not written. What waits for slow clients is among
//! them, and these must not delay anybody.
//!
//! Invariants: marks rise, and the bytes of `rests` fall; `bytes` is the sum of the broadcasts' bytes. Once settled, an
//!             empty lane is behind with nothing.
//! Limits:     `lag_bytes_max` (Settings). It holds back counts, and with them who waits for them, never a packet.

use super::chains::PACKET_BYTES;
use super::lanes::{Lane, Lanes};
use crate::proto::Prepared;
use std::collections::VecDeque;

#[derive(Default)]
pub struct Lag {
    swift: Behind,
    wide: Behind,
    /// What sessions have come round with again, and where they then stood in the wide lane. The bytes fall: who comes
    /// before one with more changes nothing.
    rests: VecDeque<(u64, usize)>,
}

/// The broadcasts that one lane has not come to the end of.
#[derive(Default)]
struct Behind {
    /// Where they end, and the bytes of all that end there.
    ends: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Lag {
    /// A broadcast has listed its receivers, in the swift lane, or in both.
    pub fn begin<K>(&mut self, packet: &Prepared, lane: Lane, lanes: &Lanes<K>) {
        let bytes = packet.websocket().len() + PACKET_BYTES;
        self.swift.begin(lanes.listed(Lane::Swift), bytes);
        if lane == Lane::Wide {
            self.wide.begin(lanes.listed(Lane::Wide), bytes);
        }
    }

    /// A session has been listed in the wide lane again, with so many bytes that it has not been offered.
    pub fn go_on<K>(&mut self, bytes: usize, lanes: &Lanes<K>) {
        if bytes == 0 {
            return;
        }
        while self.rests.back().is_some_and(|&(_, less)| less <= bytes) {
            self.rests.pop_back();
        }
        self.rests.push_back((lanes.listed(Lane::Wide), bytes));
    }

    /// Forgets the broadcasts that have been offered to all of their receivers. To be called after writing.
    pub fn settle<K>(&mut self, lanes: &Lanes<K>) {
        self.swift.settle(lanes.taken(Lane::Swift));
        self.wide.settle(lanes.taken(Lane::Wide));
        while self.rests.front().is_some_and(|&(mark, _)| mark <= lanes.taken(Lane::Wide)) {
            self.rests.pop_front();
        }
    }

    /// Bytes of the packets that wait for this shard's writes.
    pub fn bytes(&self) -> usize {
        // What is in both is one packet, and what one session comes round with others have as well.
        let rest = self.rests.front().map_or(0, |&(_, bytes)| bytes);
        self.swift.bytes.max(self.wide.bytes).max(rest)
    }
}

impl Behind {
    fn begin(&mut self, mark: u64, bytes: usize) {
        self.bytes += bytes;
        match self.ends.back_mut() {
            Some((last, sum)) if *last == mark => *sum += bytes,
            _ => self.ends.push_back((mark, bytes)),
        }
    }

    fn settle(&mut self, taken: u64) {
        while let Some(&(mark, bytes)) = self.ends.front()
            && mark <= taken
        {
            self.bytes -= bytes;
            self.ends.pop_front();
        }
        debug_assert!(!self.ends.is_empty() || self.bytes == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Queued;
    use super::*;

    const BYTES: usize = 7 + PACKET_BYTES; // two of them are the frame's header

    fn packet() -> Prepared {
        Prepared::text("4five")
    }

    /// Lists receivers that are in no lane, as a fan-out does.
    fn list(lanes: &mut Lanes<u32>, receivers: u32, lane: Lane) {
        (0..receivers).for_each(|key| lanes.add(key, &mut Queued::default(), lane));
    }

    #[test]
    fn a_broadcast_waits_until_its_last_receiver_is_taken() {
        for lane in [Lane::Swift, Lane::Wide] {
            let (mut lag, mut lanes) = (Lag::default(), Lanes::default());
            for round in 1..=3 {
                list(&mut lanes, 2, lane);
                lag.begin(&packet(), lane, &lanes);
                assert_eq!(lag.bytes(), round * BYTES);
            }
            for left in [3, 2, 2, 1, 1, 0] {
                lanes.take().expect("six are listed");
                lag.settle(&lanes);
                assert_eq!(lag.bytes(), left * BYTES);
            }
        }
    }

    #[test]
    fn what_goes_to_the_same_receivers_ends_with_them() {
        let (mut lag, mut lanes) = (Lag::default(), Lanes::default());
        list(&mut lanes, 1, Lane::Wide);
        // The later ones find their receivers listed already.
        (0..3).for_each(|_| lag.begin(&packet(), Lane::Wide, &lanes));
        assert_eq!((lag.bytes(), lag.wide.ends.len()), (3 * BYTES, 1), "one end for all");
        lanes.take().expect("one is listed");
        lag.settle(&lanes);
        assert_eq!(lag.bytes(), 0);
    }

    #[test]
    fn a_wide_broadcast_waits_for_its_receivers_in_the_swift_lane_too() {
        let (mut lag, mut lanes) = (Lag::default(), Lanes::default());
        list(&mut lanes, 1, Lane::Swift);
        lag.begin(&packet(), Lane::Wide, &lanes);
        lag.settle(&lanes);
        assert_eq!(lag.bytes(), BYTES);
        lanes.take().expect("one is listed");
        lag.settle(&lanes);
        assert_eq!(lag.bytes(), 0);
    }

    #[test]
    fn a_small_rooms_broadcast_does_not_wait_for_a_wide_one() {
        let (mut lag, mut lanes) = (Lag::default(), Lanes::default());
        list(&mut lanes, 9, Lane::Wide);
        lag.begin(&packet(), Lane::Wide, &lanes);
        lag.settle(&lanes);
        for _ in 0..2 {
            list(&mut lanes, 1, Lane::Swift);
            lag.begin(&packet(), Lane::Swift, &lanes);
            assert_eq!((lag.swift.bytes, lag.wide.bytes), (BYTES, BYTES));
            while lanes.take().expect("ten are listed").1 == Lane::Wide {}
            lag.settle(&lanes);
            assert_eq!((lag.swift.bytes, lag.wide.bytes), (0, BYTES));
        }
    }
}
