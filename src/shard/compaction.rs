//! Compaction: the handshakes of those who stay move together when most of their neighbours have left.
//!
//! ```text
//! all are here               [ ■■■■■■■■ ][ ■■■■■■■■ ][ ■■■■■■■■ ]
//! most have left             [ ·■······ ][ ····■··■ ][ ■······· ]   each page is still needed
//! each handshake was copied  [ ■■■■···· ][          ][          ]   two are given back
//! ```
//!
//! A handshake is the one thing an idle client has outside of the arenas, and the pages are the allocator's: 64 KB, some
//! 600 handshakes. If 90 % leave evenly, each page keeps a few, and all stay. So each handshake that stays is copied, one
//! after another. The allocator puts the copies where there is room, page by page, and the pages between fall empty.
//! Those that handles hold stay where they are, for handles are anywhere.
//!
//! A pass begins when fewer than half are left of the most that there were since the last one began, so it copies fewer
//! than have left. Whoever comes while it goes on may be copied or not. With mimalloc the pages that fell empty go back to
//! the system when it next frees a page, a second later or more; perf/budget.md has what it brings.
//!
//! A shard that drains does not begin: all of its clients leave, and so do their pages.
//!
//! Limits: [`PEAK_MIN`], [`TURN_SLOTS_MAX`].

use super::Shard;

/// Fewer sessions than this have 100 kB of handshakes, or half a MB of browsers' ones: nothing is gained. In tests fewer, so
/// that the simulator's hundred clients come to it.
pub(super) const PEAK_MIN: usize = if cfg!(test) { 32 } else { 1000 };
/// Slots that one turn looks at: a fifth of a millisecond if there is a handshake to copy in each.
pub(super) const TURN_SLOTS_MAX: u32 = if cfg!(test) { 16 } else { 1024 };

#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The most sessions since the last pass began.
    peak: usize,
    /// While a pass goes on, the slot at which the next turn takes it up.
    next: Option<u32>,
}

impl Compaction {
    pub fn is_under_way(&self) -> bool {
        self.next.is_some()
    }
}

impl Shard {
    /// Sessions were buried, and there had been so many. Begins a pass, or begins it anew, if too few are left.
    pub(super) fn note_burials(&mut self, before: usize) {
        let left = self.sessions.len();
        let peak = self.compaction.peak.max(before);
        let is_due = peak >= PEAK_MIN && left < peak / 2 && !self.draining;
        self.compaction = match is_due {
            true => Compaction { peak: left, next: Some(0) },
            false => Compaction { peak, next: self.compaction.next },
        };
    }

    /// A turn's step of the pass, if one is under way.
    pub(super) fn compact(&mut self) {
        let Some(first) = self.compaction.next else { return };
        let slots = self.sessions.slots() as u32;
        let end = slots.min(first + TURN_SLOTS_MAX);
        for slot in first..end {
            let session = self.sessions.at_mut(slot);
            if let Some(session) = session.filter(|session| !session.handshake.is_shared()) {
                session.handshake = session.handshake.copy();
            }
        }
        self.compaction.next = (end < slots).then_some(end);
    }
}
