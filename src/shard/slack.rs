//! Slack: when a list that has become short gives memory back, so that what a crowd has left is not kept for ever.
//!
//! Lists grow by doubling. If they shrank as soon as they could, one client that comes and goes at the wrong size would
//! copy the list each time. So a list is halved when it is a quarter full, and then half of what is left is vacant:
//!
//! ```text
//! ■■■■■■■■■■■■····   three quarters have to go …   ■■■■············
//!                    … and then it is halved       ■■■■····
//! ```
//!
//! Between two copies a list has lost, or gained, at least as many entries as the copy moves: an entry costs a constant
//! share of it.
//!
//! A list that is filled and emptied each turn has a length that says nothing. It is held to how many there are who could
//! be in it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// Below this capacity nothing is gained.
const KEPT: usize = 64;
/// The least that a `Vec` grows to. Of those there are thousands of short ones: small rooms, the slots of a wheel.
const KEPT_IN_VEC: usize = 4;

pub trait Slack {
    /// Halves the list's memory if it is at most a quarter full. To be called after something was removed.
    fn trim(&mut self) {
        self.trim_for(0);
    }

    /// The same for a list that so many may be in soon: it keeps room for them. To be called once a turn.
    fn trim_for(&mut self, many: usize);
}

fn is_slack(len: usize, capacity: usize, kept: usize) -> bool {
    capacity > kept && len <= capacity / 4
}

impl<T> Slack for Vec<T> {
    fn trim_for(&mut self, many: usize) {
        if is_slack(self.len().max(many), self.capacity(), KEPT_IN_VEC) {
            self.shrink_to(self.capacity() / 2);
        }
    }
}

impl<T> Slack for VecDeque<T> {
    fn trim_for(&mut self, many: usize) {
        if is_slack(self.len().max(many), self.capacity(), KEPT) {
            self.shrink_to(self.capacity() / 2);
        }
    }
}

impl<K: Eq + Hash, V> Slack for HashMap<K, V> {
    fn trim_for(&mut self, many: usize) {
        if is_slack(self.len().max(many), self.capacity(), KEPT) {
            self.shrink_to(self.capacity() / 2);
        }
    }
}

impl<K: Eq + Hash> Slack for HashSet<K> {
    fn trim_for(&mut self, many: usize) {
        if is_slack(self.len().max(many), self.capacity(), KEPT) {
            self.shrink_to(self.capacity() / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_empties_keeps_at_most_four_times_what_it_holds() {
        let mut list: Vec<_> = (0..100_000).collect();
        let mut map: HashMap<_, _> = list.iter().map(|&i| (i, i)).collect();
        let mut set: HashSet<_> = list.iter().copied().collect();
        let check = |capacity, len, kept| assert!(capacity <= 4 * (len + kept), "{capacity} for {len}");
        while let Some(last) = list.pop() {
            map.remove(&last);
            set.remove(&last);
            list.trim();
            map.trim();
            set.trim();
            check(list.capacity(), list.len(), KEPT_IN_VEC);
            check(map.capacity(), map.len(), KEPT);
            check(set.capacity(), set.len(), KEPT);
        }
    }

    #[test]
    fn a_list_that_is_emptied_each_turn_keeps_room_for_those_who_are_there() {
        let mut list: Vec<u8> = Vec::with_capacity(1024);
        (0..10).for_each(|_| list.trim_for(256));
        assert_eq!(list.capacity(), 512, "a quarter of 1024 is enough, and more than a quarter of 512");
        (0..10).for_each(|_| list.trim_for(0));
        assert_eq!(list.capacity(), KEPT_IN_VEC);
    }

    #[test]
    fn a_list_at_the_border_is_not_copied_again_and_again() {
        let mut list: VecDeque<_> = (0..10_000).collect();
        list.truncate(2_000);
        list.trim();
        let capacity = list.capacity();
        for _ in 0..1_000 {
            list.push_back(0);
            list.pop_back();
            list.pop_back();
            list.trim();
            list.push_back(0);
        }
        assert_eq!(list.capacity(), capacity);
    }
}
