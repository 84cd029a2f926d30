//! Slack: when a list that has become short gives memory back.
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

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Below this capacity nothing is gained.
const KEPT: usize = 64;

pub trait Slack {
    /// Halves the list's memory if it is at most a quarter full. To be called after something was removed.
    fn trim(&mut self);
}

fn is_slack(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len <= capacity / 4
}

impl<T> Slack for Vec<T> {
    fn trim(&mut self) {
        if is_slack(self.len(), self.capacity()) {
            self.shrink_to(self.capacity() / 2);
        }
    }
}

impl<T> Slack for VecDeque<T> {
    fn trim(&mut self) {
        if is_slack(self.len(), self.capacity()) {
            self.shrink_to(self.capacity() / 2);
        }
    }
}

impl<K: Eq + Hash, V> Slack for HashMap<K, V> {
    fn trim(&mut self) {
        if is_slack(self.len(), self.capacity()) {
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
        while let Some(last) = list.pop() {
            map.remove(&last);
            list.trim();
            map.trim();
            assert!(list.capacity() <= 4 * (list.len() + KEPT), "{} for {}", list.capacity(), list.len());
            assert!(map.capacity() <= 4 * (map.len() + KEPT), "{} for {}", map.capacity(), map.len());
        }
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
