//! Runs: what waits for whom in this turn, laid end to end once for all who wait for the same.
//!
//! A *run* is the sequence of packets that a session is owed since its last write. Sessions that are owed the same
//! sequence share one run: a broadcast moves all its receivers from run `r` to run `r + packet`, and because they
//! usually all come from the same `r`, a receiver costs one comparison and one store. No queue, no reference count
//! on shared memory, no allocation for each receiver; and the bytes of a run are concatenated once, not once a socket.
//! Large packets are not concatenated at all: they leave, and wait, one by one and by reference.
//!
//! The runs form a tree that grows from the empty run and lives for about a turn:
//!
//! ```text
//! EMPTY ─ A ─ AB ─ ABC      most clients: in every room
//!           └ AC            clients that are not in B's room
//! ```
//!
//! A run that only one session waits for is not extended but grows: in many small rooms, where hardly two sessions are
//! owed the same, a session has one node, whatever it is owed.
//!
//! The road not taken is a queue of packets for each session: 16 broadcasts to 10,000 clients would be 160,000 pushes
//! and 10,000 gathers of 16 pieces. For a single broadcast on one core it is faster; for 16 of them, and beside another
//! core, it is slower (benches/fan_out.rs).
//!
//! Invariants: a node's `users` are the sessions that wait at it and the nodes that extend it; a node without is freed; a
//!             node of several packets has one user, which is a session.
//! Limits:     none of its own: `Shard::write` takes each session off its run, which has left then or is backlog, and
//!             `outbox_bytes_max` is for that.

use super::chains::{Chains, Fates, Home, Segment, Span};
use super::outbox::Outbox;
use super::slack::Slack as _;
use super::wheel::Millis;
use crate::proto::Prepared;
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Packets larger than this on average are not laid end to end. Copying them would cost more than the writes it saves,
/// and where clients fall behind each at its own pace, each would hold a copy of its own.
pub const LAID_OUT_BYTES_MAX: usize = 1024;

/// Names a run. [`EMPTY`] is owed nothing.
pub type Run = u32;
pub const EMPTY: Run = 0;

struct Node {
    parent: Run,
    /// What the run has more than its parent. Empty only in EMPTY and in freed nodes.
    packets: SmallVec<[Arc<Prepared>; 1]>,
    /// Bytes of the whole run as WebSocket frames.
    bytes: usize,
    depth: u32,
    users: u32,
    /// The step that brought the first of `packets`.
    step: u64,
    /// Which node the packet of `next.0` led to from here: the only way anybody looks for a child.
    next: (u64, Run),
    /// The whole run's frames end to end, once somebody needed them.
    sealed: Option<Bytes>,
    /// Where the whole run stands, once somebody kept it.
    home: Option<Home>,
}

pub struct Runs {
    nodes: Vec<Node>,
    free: Vec<Run>,
    steps: u64,
    alone: Alone,
}

/// Where the packets of some steps stand alone: in one place for all runs that have them, because sessions that fall behind
/// each at its own pace are at many runs, and wait for the same packets.
#[derive(Default)]
struct Alone {
    homes: HashMap<u64, Home>,
    /// How many were still there when they were searched last.
    found: usize,
}

/// So few homes are not worth a search for those that are gone.
const ALONE_MIN: usize = 64;

/// One packet on its way to its receivers.
pub struct Step<'r> {
    runs: &'r mut Runs,
    packet: &'r Arc<Prepared>,
    last: (Run, Run),
}

impl Default for Runs {
    fn default() -> Self {
        let empty = Node {
            parent: EMPTY,
            packets: SmallVec::new(),
            bytes: 0,
            depth: 0,
            users: 1,
            step: 0,
            next: (0, EMPTY),
            sealed: None,
            home: None,
        };
        Runs { nodes: vec![empty], free: Vec::new(), steps: 0, alone: Alone::default() }
    }
}

impl Runs {
    /// Begins to hand `packet` out; see [`Step::extend`].
    pub fn step<'r>(&'r mut self, packet: &'r Arc<Prepared>) -> Step<'r> {
        self.steps += 1;
        Step { runs: self, packet, last: (Run::MAX, EMPTY) }
    }

    /// A session has been served, or is gone.
    pub fn release(&mut self, run: Run) {
        let mut run = run;
        while run != EMPTY {
            let node = &mut self.nodes[run as usize];
            node.users -= 1;
            if node.users > 0 {
                return;
            }
            let parent = node.parent;
            node.packets.clear();
            node.sealed = None;
            self.free.push(run);
            run = parent;
        }
    }

    /// Gives memory back when there is room for many more runs than sessions. To be called once a turn.
    pub fn trim(&mut self, sessions: usize) {
        if self.free.len() + 1 < self.nodes.len() {
            return;
        }
        self.alone.clear();
        if self.nodes.capacity() / 4 > sessions {
            self.nodes.truncate(1);
            self.free.clear();
            self.nodes.trim();
            self.free.trim();
        }
    }

    /// Bytes of the run as WebSocket frames.
    pub fn bytes(&self, run: Run) -> usize {
        self.nodes[run as usize].bytes
    }

    /// How many packets the run holds.
    pub fn packets(&self, run: Run) -> u32 {
        self.nodes[run as usize].depth
    }

    /// Whether the run is better written packet by packet; see [`LAID_OUT_BYTES_MAX`].
    pub fn is_heavy(&self, run: Run) -> bool {
        let node = &self.nodes[run as usize];
        node.depth > 1 && node.bytes > node.depth as usize * LAID_OUT_BYTES_MAX
    }

    /// Lays the run's packets end to end, unless that has been done or there is only one.
    pub fn seal(&mut self, run: Run) {
        let Node { depth, sealed, .. } = &self.nodes[run as usize];
        if *depth > 1 && sealed.is_none() {
            let mut wire = Vec::with_capacity(self.nodes[run as usize].bytes);
            self.path(run).for_each(|packet| wire.extend_from_slice(packet.websocket()));
            self.nodes[run as usize].sealed = Some(wire.into());
        }
    }

    /// The frames of a run that was sealed.
    pub fn wire(&self, run: Run) -> &Bytes {
        let node = &self.nodes[run as usize];
        match (&node.sealed, &node.packets[..]) {
            (Some(wire), _) => wire,
            (None, [only]) if node.depth == 1 => only.websocket(),
            _ => unreachable!("seal() comes before wire(), and EMPTY is never written"),
        }
    }

    /// Puts the run behind a backlog: in one piece, or in one for each packet. Returns its bytes and fates.
    pub fn put_behind(
        &mut self,
        run: Run,
        chains: &mut Chains,
        backlog: &mut VecDeque<Span>,
        now: Millis,
    ) -> (usize, Fates) {
        if !self.is_heavy(run) {
            self.seal(run);
            let Node { depth, users, step, home: known, .. } = self.nodes[run as usize];
            let mut home = known.or_else(|| if depth == 1 { self.alone.home(step) } else { None });
            let segment = || Segment::new(self.wire(run).clone(), self.path(run).cloned().collect(), now);
            let put = chains.append(backlog, &mut home, users > 1, segment);
            if depth == 1 && home != known {
                self.alone.remember(step, home, chains);
            }
            self.nodes[run as usize].home = home;
            return put;
        }
        let nodes = self.nodes_of(run);
        // What stands at or above a node with other users is others' too.
        let shared_nodes = nodes.iter().rposition(|&at| self.nodes[at as usize].users > 1).map_or(0, |last| last + 1);
        let (mut bytes, mut fates) = (0, Fates::default());
        for (nth, &at) in nodes.iter().enumerate() {
            let Node { step, packets, .. } = &self.nodes[at as usize];
            for (nth_packet, packet) in packets.iter().enumerate() {
                // What a node has grown by is one session's: nobody knows which steps that were.
                let known = if nth_packet == 0 { self.alone.home(*step) } else { None };
                let mut home = known;
                let segment = || Segment::laid_out(vec![Arc::clone(packet)], now);
                let put = chains.append(backlog, &mut home, nth < shared_nodes, segment);
                if nth_packet == 0 && home != known {
                    self.alone.remember(*step, home, chains);
                }
                bytes += put.0;
                fates.add(put.1);
            }
        }
        (bytes, fates)
    }

    /// The nodes of the run, from the first to the last.
    fn nodes_of(&self, run: Run) -> SmallVec<[Run; 8]> {
        let above = |&run: &Run| Some(self.nodes[run as usize].parent);
        let mut nodes: SmallVec<_> = std::iter::successors(Some(run), above).take_while(|&run| run != EMPTY).collect();
        nodes.reverse();
        nodes
    }

    /// The run's packets, in order.
    fn path(&self, run: Run) -> impl Iterator<Item = &Arc<Prepared>> {
        self.nodes_of(run).into_iter().flat_map(|at| &self.nodes[at as usize].packets)
    }

    fn child(&mut self, parent: Run, packet: &Arc<Prepared>) -> Run {
        let above = &mut self.nodes[parent as usize];
        // Nobody lets go of EMPTY, so nobody counts there: the count would only ever rise.
        above.users += u32::from(parent != EMPTY);
        let node = Node {
            parent,
            packets: smallvec![Arc::clone(packet)],
            bytes: above.bytes + packet.websocket().len(),
            depth: above.depth + 1,
            users: 0,
            step: self.steps,
            next: (0, EMPTY),
            sealed: None,
            home: None,
        };
        match self.free.pop() {
            Some(run) => {
                self.nodes[run as usize] = node;
                run
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as Run
            }
        }
    }

    /// Has a run that one session alone waits for hold one packet more.
    fn grow(&mut self, run: Run, packet: &Arc<Prepared>) {
        let node = &mut self.nodes[run as usize];
        node.packets.push(Arc::clone(packet));
        node.bytes += packet.websocket().len();
        node.depth += 1;
        // Others may have left it as it was.
        (node.sealed, node.home) = (None, None);
    }

    /// How many runs are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - 1 - self.free.len()
    }
}

impl Alone {
    fn home(&self, step: u64) -> Option<Home> {
        self.homes.get(&step).copied()
    }

    fn remember(&mut self, step: u64, home: Option<Home>, chains: &Chains) {
        self.homes.extend(home.map(|home| (step, home)));
        if self.homes.len() > 2 * self.found.max(ALONE_MIN) {
            self.homes.retain(|_, home| chains.is_there(home));
            self.homes.trim();
            self.found = self.homes.len();
        }
    }

    /// Nobody is at a run any more, so nobody asks for what has been.
    fn clear(&mut self) {
        self.homes.clear();
        self.homes.trim();
        self.found = 0;
    }
}

impl Step<'_> {
    /// Moves one session's run on by the packet.
    #[inline]
    pub fn extend(&mut self, run: &mut Run) {
        if *run != self.last.0 {
            self.last = (*run, self.find(*run));
        }
        let (from, to) = self.last;
        let nodes = &mut self.runs.nodes;
        nodes[to as usize].users += 1;
        if from != EMPTY {
            // It cannot reach zero: the node it leads to uses it.
            nodes[from as usize].users -= 1;
        }
        *run = to;
    }

    /// How many bytes would wait for a session, if it were given the packet.
    pub fn bytes_behind(&self, outbox: &Outbox) -> usize {
        outbox.backlog_bytes() + self.runs.bytes(outbox.run) + self.packet.websocket().len()
    }

    fn find(&mut self, from: Run) -> Run {
        let (step, to) = self.runs.nodes[from as usize].next;
        if step == self.runs.steps {
            return to;
        }
        if from != EMPTY && self.runs.nodes[from as usize].users == 1 {
            self.runs.grow(from, self.packet);
            return from;
        }
        let to = self.runs.child(from, self.packet);
        self.runs.nodes[from as usize].next = (self.runs.steps, to);
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(text: &str) -> Arc<Prepared> {
        Arc::new(Prepared::text(text))
    }

    fn frames(texts: &[&str]) -> Vec<u8> {
        texts.iter().flat_map(|text| Prepared::text(text).websocket().to_vec()).collect()
    }

    /// What leaves for a session at this run.
    fn assert_holds(runs: &mut Runs, run: Run, texts: &[&str]) {
        runs.seal(run);
        assert_eq!(*runs.wire(run), frames(texts));
        assert_eq!(runs.bytes(run), frames(texts).len());
        assert_eq!(runs.packets(run) as usize, texts.len());
    }

    /// Where the bytes of the run's segments lie, once it is kept.
    fn kept(runs: &mut Runs, run: Run) -> Vec<*const u8> {
        let (mut chains, mut backlog) = (Chains::default(), VecDeque::new());
        runs.put_behind(run, &mut chains, &mut backlog, 0);
        chains.segments(&backlog).map(|segment| segment.wire.as_ptr()).collect()
    }

    #[test]
    fn receivers_of_the_same_share_one_run_and_each_keeps_its_order() {
        let mut runs = Runs::default();
        let mut sessions = [EMPTY; 100];
        for (text, reaches) in [("a", 100), ("b", 50), ("c", 100)] {
            let packet = packet(text);
            let mut step = runs.step(&packet);
            sessions[..reaches].iter_mut().for_each(|run| step.extend(run));
        }
        assert_eq!(runs.len(), 4, "a, ab, abc, ac");
        assert_holds(&mut runs, sessions[0], &["a", "b", "c"]);
        assert_holds(&mut runs, sessions[99], &["a", "c"]);
        assert_eq!(sessions[0], sessions[49]);
        sessions.iter().for_each(|&run| runs.release(run));
        assert_eq!(runs.len(), 0);
    }

    #[test]
    fn a_run_of_one_session_grows_in_place() {
        let mut runs = Runs::default();
        let mut sessions = [EMPTY; 3];
        let mut to = |texts: &[&str], sessions: &mut [Run]| {
            for text in texts {
                let packet = packet(text);
                let mut step = runs.step(&packet);
                sessions.iter_mut().for_each(|run| step.extend(run));
            }
            runs.len()
        };
        assert_eq!(to(&["all"], &mut sessions), 1);
        assert_eq!(to(&["a", "b", "c"], &mut sessions[..1]), 2, "all, all+abc");
        assert_eq!(to(&["d"], &mut sessions[1..]), 3, "two go on together");
        assert_eq!(to(&["all"], &mut sessions), 4, "the one in place, the two by another");
        assert_holds(&mut runs, sessions[0], &["all", "a", "b", "c", "all"]);
        sessions[1..].iter().for_each(|&run| assert_holds(&mut runs, run, &["all", "d", "all"]));
        sessions.iter().for_each(|&run| runs.release(run));
        assert_eq!(runs.len(), 0);
    }

    #[test]
    fn a_run_that_others_have_left_is_laid_out_anew_when_it_grows() {
        let mut runs = Runs::default();
        let mut sessions = [EMPTY; 2];
        for text in ["a", "b"] {
            let packet = packet(text);
            let mut step = runs.step(&packet);
            sessions.iter_mut().for_each(|run| step.extend(run));
        }
        let (mut chains, mut backlog) = (Chains::default(), VecDeque::new());
        runs.put_behind(sessions[0], &mut chains, &mut backlog, 0);
        runs.release(sessions[0]);
        let packet = packet("c");
        runs.step(&packet).extend(&mut sessions[1]);
        runs.put_behind(sessions[1], &mut chains, &mut backlog, 0);
        let wires: Vec<_> = chains.segments(&backlog).map(|segment| segment.wire.to_vec()).collect();
        assert_eq!(wires, [frames(&["a", "b"]), frames(&["a", "b", "c"])]);
    }

    #[test]
    fn what_many_different_runs_took_is_given_back_when_they_have_left() {
        let mut runs = Runs::default();
        let mut sessions = [EMPTY; 1000];
        for (number, run) in sessions.iter_mut().enumerate() {
            runs.step(&packet(&number.to_string())).extend(run);
        }
        let (last, others) = sessions.split_last().expect("there are many");
        others.iter().for_each(|&run| runs.release(run));
        runs.trim(0);
        assert!(runs.nodes.capacity() >= 1000 && runs.bytes(*last) > 0, "one is in use");
        runs.release(*last);
        runs.trim(1000);
        assert!(runs.nodes.capacity() >= 1000, "the sessions are still there");
        (0..10).for_each(|_| runs.trim(10));
        assert!(runs.nodes.capacity() <= 4 * 11 && runs.free.capacity() <= 4 * 11);
        let (again, mut run) = (packet("again"), EMPTY);
        runs.step(&again).extend(&mut run);
        assert_eq!((runs.len(), runs.wire(run).as_ptr()), (1, again.websocket().as_ptr()));
    }

    #[test]
    fn a_single_packet_is_never_copied() {
        let mut runs = Runs::default();
        let packet = packet("only");
        let mut run = EMPTY;
        runs.step(&packet).extend(&mut run);
        runs.seal(run);
        assert_eq!(runs.wire(run).as_ptr(), packet.websocket().as_ptr());
        assert_eq!(kept(&mut runs, run), [packet.websocket().as_ptr()]);
    }

    #[test]
    fn large_packets_are_never_copied() {
        let mut runs = Runs::default();
        let large = packet(&"x".repeat(2 * LAID_OUT_BYTES_MAX));
        let mut run = EMPTY;
        runs.step(&large).extend(&mut run);
        runs.step(&large).extend(&mut run);
        assert_eq!(kept(&mut runs, run), [large.websocket().as_ptr(); 2]);
    }

    #[test]
    fn large_packets_are_kept_once_for_runs_that_begin_at_different_ones() {
        let mut runs = Runs::default();
        let (mut chains, mut backlogs) = (Chains::default(), [const { VecDeque::new() }; 4]);
        let mut sessions = [EMPTY; 4];
        let large: Vec<_> = (0..1000).map(|nth| packet(&format!("{nth:2000}"))).collect();
        let each = large[0].websocket().len();
        // Each has a companion at the same run, which takes all, and is written in a turn of its own; so the last one has
        // kept everything after the last packet, and the others are owed some.
        let mut companions = [EMPTY; 4];
        for (turn, packet) in large.iter().enumerate() {
            let mut step = runs.step(packet);
            sessions.iter_mut().chain(&mut companions).for_each(|run| step.extend(run));
            let written = turn % 4;
            runs.put_behind(sessions[written], &mut chains, &mut backlogs[written], 0);
            runs.release(std::mem::take(&mut sessions[written]));
            runs.release(std::mem::take(&mut companions[written]));
        }
        for (run, spans) in sessions.iter().zip(&mut backlogs).take(3) {
            runs.put_behind(*run, &mut chains, spans, 0);
        }
        assert_eq!(chains.bytes(), large.len() * each);
        assert!(backlogs.iter().all(|spans| spans.len() == 1), "{:?}", backlogs.map(|spans| spans.len()));
        assert!(runs.alone.homes.len() <= large.len());
        backlogs.iter_mut().for_each(|spans| chains.clear(spans));
        sessions.iter().chain(&companions).for_each(|&run| runs.release(run));
        runs.trim(0);
        assert!(chains.is_empty() && runs.alone.homes.is_empty());
    }

    #[test]
    fn homes_of_packets_that_have_left_are_forgotten() {
        let mut runs = Runs::default();
        let (mut chains, mut backlog) = (Chains::default(), VecDeque::new());
        let mut busy = EMPTY;
        runs.step(&packet("somebody is always at some run")).extend(&mut busy);
        for _ in 0..10_000 {
            let packet = packet("x");
            let mut sessions = [EMPTY; 2];
            let mut step = runs.step(&packet);
            sessions.iter_mut().for_each(|run| step.extend(run));
            runs.put_behind(sessions[0], &mut chains, &mut backlog, 0);
            sessions.iter().for_each(|&run| runs.release(run));
            chains.clear(&mut backlog);
            runs.trim(2);
        }
        assert!(runs.alone.homes.len() <= 2 * ALONE_MIN + 1, "{}", runs.alone.homes.len());
        runs.release(busy);
    }

    #[test]
    fn a_freed_run_is_not_found_again() {
        let mut runs = Runs::default();
        let (first, second) = (packet("first"), packet("second"));
        let mut run = EMPTY;
        runs.step(&first).extend(&mut run);
        runs.release(run);
        let mut run = EMPTY;
        runs.step(&second).extend(&mut run);
        assert_eq!(*runs.wire(run), frames(&["second"]));
    }
}
