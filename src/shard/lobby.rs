//! Lobby: sessions that have not joined a namespace yet, in the order in which their time runs out.
//!
//! All may wait equally long, so the order in which they come is the order of their deadlines, and a queue does what
//! would take an entry of the wheel. Nearly all join at once and need no deadline any more; they are not searched for,
//! but leave the queue when it has doubled. So what stands here is at most twice those who really wait.
//!
//! Invariants: deadlines do not fall from front to back.

use super::slack::Slack as _;
use super::wheel::Millis;
use std::collections::VecDeque;

/// Below this length nothing is gained by looking who has left.
const KEPT: usize = 64;

pub struct Lobby<T> {
    sessions: VecDeque<(Millis, T)>,
    /// At this length the queue is looked through for those who wait no more.
    crowd: usize,
}

impl<T> Default for Lobby<T> {
    fn default() -> Self {
        Lobby { sessions: VecDeque::new(), crowd: 0 }
    }
}

impl<T: Copy> Lobby<T> {
    /// One more waits. `waits` says whether one that came before still does. Where the time to wait was made shorter, it
    /// is not until after those who came before.
    pub fn enter(&mut self, due: Millis, session: T, waits: impl Fn(T) -> bool) {
        let due = self.sessions.back().map_or(due, |(before, _)| due.max(*before));
        if self.sessions.len() >= self.crowd.max(KEPT) {
            self.sessions.retain(|(_, session)| waits(*session));
            self.crowd = self.sessions.len() * 2;
            self.sessions.shrink_to(self.crowd.max(KEPT));
        }
        self.sessions.push_back((due, session));
    }

    /// The next one whose time is over. It may have joined long ago.
    pub fn take_due(&mut self, now: Millis) -> Option<T> {
        self.next_due().filter(|due| *due <= now)?;
        let (_, session) = self.sessions.pop_front()?;
        self.sessions.trim();
        Some(session)
    }

    /// When `take_due` has one. `None`: nobody is here.
    pub fn next_due(&self) -> Option<Millis> {
        self.sessions.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_made_shorter_does_not_overtake() {
        let mut lobby = Lobby::default();
        [(100, 'a'), (40, 'b'), (120, 'c')].into_iter().for_each(|(due, who)| lobby.enter(due, who, |_| true));
        assert_eq!(lobby.take_due(99), None);
        assert_eq!([lobby.take_due(100), lobby.take_due(100), lobby.take_due(100)], [Some('a'), Some('b'), None]);
    }

    #[test]
    fn those_who_wait_too_long_come_out_in_their_order_and_nobody_early() {
        let mut lobby = Lobby::default();
        (0..300).for_each(|due| lobby.enter(due, due + 1000, |_| true));
        assert_eq!(lobby.next_due(), Some(0));
        let out: Vec<_> = std::iter::from_fn(|| lobby.take_due(199)).collect();
        assert_eq!(out, (1000..1200).collect::<Vec<_>>());
        assert_eq!(lobby.next_due(), Some(200));
        let out = std::iter::from_fn(|| lobby.take_due(300)).count();
        assert_eq!(out, 100);
        assert!(lobby.sessions.capacity() <= KEPT, "{} for nobody", lobby.sessions.capacity());
    }

    #[test]
    fn those_who_have_joined_take_no_room_and_those_who_have_not_stay() {
        let (mut lobby, waits) = (Lobby::default(), |number: u64| number.is_multiple_of(100));
        (0..10_000).for_each(|number| lobby.enter(number, number, waits));
        assert!(lobby.sessions.capacity() <= 4 * 100 + KEPT, "{} for 100", lobby.sessions.capacity());
        let out = std::iter::from_fn(|| lobby.take_due(10_000)).filter(|number| waits(*number));
        assert_eq!(out.collect::<Vec<_>>(), (0..10_000).step_by(100).collect::<Vec<_>>());
    }
}
