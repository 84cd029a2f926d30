//! Chains: what waits longer than a turn, kept once for all who wait for the same.
//!
//! A *segment* is some packets laid end to end, or one large packet. Segments that follow each other stand in a *chain*,
//! and a backlog only says from where to where: a thousand clients that have stopped reading the same feed cost one copy
//! of it, and a few words each, however long they stay behind. What only one session waits for is its own.
//!
//! ```text
//!   chain    S1 S2 S3 S4 S5 S6         a feed
//!   a           ╰─────────────╯        one span
//!   b              ╰──╯  P  ╰──╯       three: its own ping came in between
//! ```
//!
//! Where a segment that was already put into some chain is wanted again, it is found by its [`Home`], which its run
//! remembers (runs.rs). A session that cannot go on where its last span ends begins another one, so what sessions do
//! differently costs them a span, never a copy.
//!
//! Invariants: an entry's `users` are the spans that cover it, and one without is empty; the first entry of a chain is
//!             not empty, and a chain without entries is free; `bytes` and `cost` are the sums over all segments here and
//!             those that backlogs own.
//! Limits:     `CHAIN_MAX`; see outbox.rs for what may wait.

use super::wheel::Millis;
use crate::proto::{Fate, Prepared};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries of a chain. Then it is continued by another one, so that one session that stays where it is holds no more than
/// so many entries of which nobody wants anything.
const CHAIN_MAX: usize = 1024;

/// Packets that are written, and wait, as one piece.
pub struct Segment {
    /// The WebSocket frames of its packets, end to end.
    pub wire: Bytes,
    /// The same packets one by one: for polling, for a session that upgrades, and for choosing among them.
    pub packets: Box<[Arc<Prepared>]>,
    /// Since when its oldest packet waits.
    pub since: Millis,
    pub fates: Fates,
}

/// Which fates there are among some packets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Fates {
    pub kept: bool,
    pub newest: bool,
    pub oldest: bool,
    pub conflated: bool,
}

impl Fates {
    pub fn of(packets: &[Arc<Prepared>]) -> Fates {
        let mut fates = Fates::default();
        for packet in packets {
            match packet.fate() {
                Fate::Kept => fates.kept = true,
                Fate::DroppedNewest => fates.newest = true,
                Fate::DroppedOldest => fates.oldest = true,
                Fate::Conflated(_) => fates.conflated = true,
            }
        }
        fates
    }

    pub fn add(&mut self, other: Fates) {
        self.kept |= other.kept;
        self.newest |= other.newest;
        self.oldest |= other.oldest;
        self.conflated |= other.conflated;
    }
}

/// What a packet costs beside its bytes while it waits: its node in the runs or its place in a segment, and its own head.
pub const PACKET_BYTES: usize = 256;

impl Segment {
    /// What it costs to keep this: packets that were laid end to end have their own bytes besides.
    fn cost(&self) -> usize {
        let copies = if self.packets.len() > 1 { 2 } else { 1 };
        copies * self.wire.len() + self.packets.len() * PACKET_BYTES
    }

    /// `wire` holds the frames of `packets`.
    pub fn new(wire: Bytes, packets: Box<[Arc<Prepared>]>, since: Millis) -> Segment {
        Segment { wire, fates: Fates::of(&packets), packets, since }
    }

    /// Lays packets end to end.
    pub fn laid_out(packets: Vec<Arc<Prepared>>, since: Millis) -> Segment {
        let wire = match &packets[..] {
            [only] => only.websocket().clone(),
            all => {
                let mut wire = Vec::with_capacity(all.iter().map(|packet| packet.websocket().len()).sum());
                all.iter().for_each(|packet| wire.extend_from_slice(packet.websocket()));
                Bytes::from(wire)
            }
        };
        Segment::new(wire, packets.into_boxed_slice(), since)
    }
}

/// Where a segment stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home {
    chain: u32,
    /// Chains are used again; their births are not.
    birth: u64,
    place: u32,
}

/// A stretch of a backlog.
pub enum Span {
    /// Entries of a chain. Places count round and round, so `from` may be larger than `to`.
    Shared {
        chain: u32,
        from: u32,
        to: u32,
    },
    Own(Box<Segment>),
}

#[derive(Default)]
pub struct Chains {
    chains: Vec<Chain>,
    free: Vec<u32>,
    births: u64,
    /// The chain that grew last: where those who fall behind now begin.
    latest: Option<(u32, u64)>,
    /// What was put last.
    made: Vec<Made>,
    bytes: usize,
    cost: usize,
}

/// A segment that was made for a backlog.
struct Made {
    /// Whose packets these are; only compared, and valid as long as the home is.
    packets: Box<[*const Prepared]>,
    since: Millis,
    home: Option<Home>,
}

impl Made {
    fn is(&self, segment: &Segment) -> bool {
        let same = |(made, packet): (&*const Prepared, &Arc<Prepared>)| *made == Arc::as_ptr(packet);
        self.since == segment.since
            && self.packets.len() == segment.packets.len()
            && self.packets.iter().zip(&segment.packets).all(same)
    }

    fn like(segment: &Segment) -> Made {
        Made { packets: segment.packets.iter().map(Arc::as_ptr).collect(), since: segment.since, home: None }
    }
}

#[derive(Default)]
struct Chain {
    birth: u64,
    /// The place of the first entry.
    first: u32,
    entries: VecDeque<Entry>,
}

struct Entry {
    segment: Option<Box<Segment>>,
    users: u32,
}

impl Chain {
    fn end(&self) -> u32 {
        self.first.wrapping_add(self.entries.len() as u32)
    }

    fn at(&self, place: u32) -> Option<&Entry> {
        self.entries.get(place.wrapping_sub(self.first) as usize)
    }

    fn at_mut(&mut self, place: u32) -> Option<&mut Entry> {
        self.entries.get_mut(place.wrapping_sub(self.first) as usize)
    }
}

impl Chains {
    /// Bytes that wait here, each segment counted once.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it costs to keep them.
    pub fn cost(&self) -> usize {
        self.cost
    }

    fn count(&mut self, segment: &Segment) {
        self.bytes += segment.wire.len();
        self.cost += segment.cost();
    }

    fn discount(&mut self, segment: &Segment) {
        self.bytes -= segment.wire.len();
        self.cost -= segment.cost();
    }

    /// Puts a segment behind a backlog. `home` is where it already stands, or will: nobody else's, it becomes the
    /// backlog's own. Returns its bytes and fates.
    pub fn append(
        &mut self,
        spans: &mut VecDeque<Span>,
        home: &mut Option<Home>,
        shared: bool,
        segment: impl FnOnce() -> Segment,
    ) -> (usize, Fates) {
        let found = home.filter(|home| self.is_there(home));
        if found.is_none() && !shared {
            let segment = segment();
            let (bytes, fates) = (segment.wire.len(), segment.fates);
            self.own(spans, segment);
            return (bytes, fates);
        }
        let at = found.unwrap_or_else(|| self.settle(spans.back(), segment()));
        *home = Some(at);
        self.cover(spans, at)
    }

    /// Puts segments behind a backlog that were made for it. Who made the same ones last shares them: clients that have
    /// stopped reading the same feed are left with the same packets.
    pub fn put(&mut self, spans: &mut VecDeque<Span>, segments: Vec<Segment>) {
        if segments.is_empty() {
            return; // and what was made last is remembered
        }
        let mut made = std::mem::take(&mut self.made);
        if !(made.len() == segments.len() && made.iter().zip(&segments).all(|(made, segment)| made.is(segment))) {
            made = segments.iter().map(Made::like).collect();
        }
        let mut chain = None;
        for (made, segment) in made.iter_mut().zip(segments) {
            let found = made.home.filter(|home| self.is_there(home));
            let home = found.unwrap_or_else(|| {
                let chain = *chain.get_or_insert_with(|| self.open());
                self.push(chain, segment)
            });
            made.home = Some(home);
            self.cover(spans, home);
        }
        self.made = made;
    }

    /// Makes an entry a backlog's next one. Returns its bytes and fates.
    fn cover(&mut self, spans: &mut VecDeque<Span>, at: Home) -> (usize, Fates) {
        match spans.back_mut() {
            Some(Span::Shared { chain, to, .. }) if (*chain, *to) == (at.chain, at.place) => *to = to.wrapping_add(1),
            _ => spans.push_back(Span::Shared { chain: at.chain, from: at.place, to: at.place.wrapping_add(1) }),
        }
        let entry = self.chains[at.chain as usize].at_mut(at.place).expect("it is there");
        entry.users += 1;
        let segment = entry.segment.as_ref().expect("it is in use");
        (segment.wire.len(), segment.fates)
    }

    /// Puts a segment behind a backlog that nobody else waits for.
    fn own(&mut self, spans: &mut VecDeque<Span>, segment: Segment) {
        self.count(&segment);
        spans.push_back(Span::Own(Box::new(segment)));
    }

    /// Finds a segment's place: where the first who wants it can go on, else where others have gone on lately.
    fn settle(&mut self, last: Option<&Span>, segment: Segment) -> Home {
        let goes_on = last.and_then(|last| match *last {
            Span::Shared { chain, to, .. } => (self.chains[chain as usize].end() == to).then_some(chain),
            Span::Own(_) => None,
        });
        let latest = self.latest.filter(|&(chain, birth)| self.chains[chain as usize].birth == birth);
        let chain = goes_on.or(latest.map(|(chain, _)| chain));
        let chain = chain.filter(|&chain| self.chains[chain as usize].entries.len() < CHAIN_MAX);
        let chain = chain.unwrap_or_else(|| self.open());
        let home = self.push(chain, segment);
        self.latest = Some((chain, home.birth));
        home
    }

    fn push(&mut self, chain: u32, segment: Segment) -> Home {
        self.count(&segment);
        let at = &mut self.chains[chain as usize];
        let home = Home { chain, birth: at.birth, place: at.end() };
        at.entries.push_back(Entry { segment: Some(Box::new(segment)), users: 0 });
        home
    }

    fn open(&mut self) -> u32 {
        let chain = self.free.pop().unwrap_or_else(|| {
            self.chains.push(Chain::default());
            (self.chains.len() - 1) as u32
        });
        self.births += 1;
        self.chains[chain as usize].birth = self.births;
        chain
    }

    /// Whether a segment still stands there.
    pub fn is_there(&self, home: &Home) -> bool {
        let chain = &self.chains[home.chain as usize];
        chain.birth == home.birth && chain.at(home.place).is_some_and(|entry| entry.segment.is_some())
    }

    /// The first segment of a span.
    pub fn first<'s>(&'s self, span: &'s Span) -> &'s Segment {
        match span {
            Span::Shared { chain, from, .. } => self.segment(*chain, *from),
            Span::Own(segment) => segment,
        }
    }

    fn segment(&self, chain: u32, place: u32) -> &Segment {
        let entry = self.chains[chain as usize].at(place).expect("a span covers entries that are there");
        entry.segment.as_ref().expect("a span covers segments in use")
    }

    /// All segments of a backlog, in order.
    pub fn segments<'s>(&'s self, spans: &'s VecDeque<Span>) -> impl Iterator<Item = &'s Segment> {
        spans.iter().flat_map(move |span| {
            let (own, shared) = match *span {
                Span::Own(ref segment) => (Some(&**segment), None),
                Span::Shared { chain, from, to } => (None, Some((chain, from, to.wrapping_sub(from)))),
            };
            let shared = shared.into_iter().flat_map(move |(chain, from, count)| {
                (0..count).map(move |nth| self.segment(chain, from.wrapping_add(nth)))
            });
            own.into_iter().chain(shared)
        })
    }

    /// Takes the first segment from a backlog. It is freed when it was the last one's.
    pub fn pop(&mut self, spans: &mut VecDeque<Span>) {
        match spans.front_mut() {
            Some(Span::Own(_)) => {
                if let Some(Span::Own(segment)) = spans.pop_front() {
                    self.discount(&segment);
                }
            }
            Some(Span::Shared { chain, from, to }) => {
                let (chain, place) = (*chain, *from);
                *from = from.wrapping_add(1);
                if from == to {
                    spans.pop_front();
                }
                self.let_go(chain, place);
            }
            None => {}
        }
    }

    fn let_go(&mut self, number: u32, place: u32) {
        let chain = &mut self.chains[number as usize];
        let entry = chain.at_mut(place).expect("a span covers entries that are there");
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let segment = entry.segment.take().expect("it was in use");
        while chain.entries.front().is_some_and(|entry| entry.segment.is_none()) {
            chain.entries.pop_front();
            chain.first = chain.first.wrapping_add(1);
        }
        if chain.entries.is_empty() {
            // What it grew to is not kept: the next chain may be short.
            *chain = Chain { birth: 0, first: chain.first, entries: VecDeque::new() };
            self.free.push(number);
        }
        self.discount(&segment);
    }

    /// Forgets a backlog.
    pub fn clear(&mut self, spans: &mut VecDeque<Span>) {
        while !spans.is_empty() {
            self.pop(spans);
        }
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        (self.bytes, self.cost) == (0, 0) && self.free.len() == self.chains.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(text: &str) -> Segment {
        Segment::laid_out(vec![Arc::new(Prepared::text(text))], 0)
    }

    /// One segment for all of these backlogs, in this order.
    fn append<'b>(chains: &mut Chains, backlogs: impl IntoIterator<Item = &'b mut VecDeque<Span>>, text: &str) {
        let mut home = None;
        for spans in backlogs {
            chains.append(spans, &mut home, true, || segment(text));
        }
    }

    fn texts(chains: &Chains, spans: &VecDeque<Span>) -> String {
        let packets = chains.segments(spans).flat_map(|segment| segment.packets.iter());
        packets.map(|packet| std::str::from_utf8(packet.packet()).unwrap().to_owned()).collect()
    }

    #[test]
    fn a_feed_is_kept_once_and_a_backlog_is_one_span() {
        let mut chains = Chains::default();
        let mut backlogs: Vec<VecDeque<Span>> = (0..100).map(|_| VecDeque::new()).collect();
        for number in 0..50 {
            append(&mut chains, &mut backlogs, &(number % 10).to_string());
        }
        assert_eq!(chains.bytes(), 50 * 3, "whoever waits for them");
        assert!(backlogs.iter().all(|spans| spans.len() == 1));
        assert_eq!(texts(&chains, &backlogs[99]), "0123456789".repeat(5));
        backlogs.iter_mut().skip(1).for_each(|spans| chains.clear(spans));
        assert_eq!(chains.bytes(), 150, "one still waits for all");
        chains.pop(&mut backlogs[0]);
        assert_eq!(chains.bytes(), 147);
        chains.clear(&mut backlogs[0]);
        assert!(chains.is_empty());
    }

    #[test]
    fn a_ping_of_its_own_costs_a_session_two_spans_and_the_others_nothing() {
        let mut chains = Chains::default();
        let mut backlogs = [VecDeque::new(), VecDeque::new()];
        append(&mut chains, &mut backlogs, "a");
        for ping in 0..3 {
            chains.append(&mut backlogs[0], &mut None, false, || segment("p"));
            append(&mut chains, &mut backlogs, &ping.to_string());
        }
        assert_eq!([texts(&chains, &backlogs[0]), texts(&chains, &backlogs[1])], ["ap0p1p2", "a012"]);
        assert_eq!([backlogs[0].len(), backlogs[1].len()], [7, 1]);
        backlogs.iter_mut().for_each(|spans| chains.clear(spans));
        assert!(chains.is_empty());
    }

    #[test]
    fn who_falls_behind_first_today_goes_on_where_the_others_are() {
        let mut chains = Chains::default();
        let (mut old, mut new) = (VecDeque::new(), VecDeque::new());
        append(&mut chains, [&mut old], "a");
        append(&mut chains, [&mut new, &mut old], "b");
        append(&mut chains, [&mut old, &mut new], "c");
        assert_eq!([texts(&chains, &old), texts(&chains, &new)], ["abc", "bc"]);
        assert_eq!([old.len(), new.len()], [1, 1]);
    }

    #[test]
    fn a_place_that_was_left_is_not_found_again() {
        let mut chains = Chains::default();
        let (mut first, mut second) = (VecDeque::new(), VecDeque::new());
        let mut home = None;
        chains.append(&mut first, &mut home, true, || segment("a"));
        chains.clear(&mut first);
        append(&mut chains, [&mut first], "b");
        chains.append(&mut second, &mut home, true, || segment("a"));
        assert_eq!([texts(&chains, &first), texts(&chains, &second)], ["b", "a"]);
    }

    #[test]
    fn places_count_round_and_round() {
        let mut chains = Chains::default();
        let mut spans = VecDeque::new();
        let chain = chains.open();
        chains.chains[chain as usize].first = u32::MAX - 1;
        chains.latest = Some((chain, chains.births));
        for text in ["a", "b", "c", "d"] {
            append(&mut chains, [&mut spans], text);
        }
        assert_eq!((texts(&chains, &spans), spans.len()), (String::from("abcd"), 1));
        chains.pop(&mut spans);
        chains.pop(&mut spans);
        chains.pop(&mut spans);
        assert_eq!(texts(&chains, &spans), "d");
        chains.clear(&mut spans);
        assert!(chains.is_empty());
    }

    #[test]
    fn a_span_is_small() {
        assert!(size_of::<Span>() <= 16, "{} bytes", size_of::<Span>());
    }
}
