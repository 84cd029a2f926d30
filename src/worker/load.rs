//! Load: how much waits in the whole process for clients that are behind.
//!
//! A shard cannot know what the others hold, and a limit for the process needs the sum. Each worker writes its own number
//! once a turn, on a cache line of its own, and reads the others' only while something waits with it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Two lines, because the hardware fetches them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicUsize);

pub struct Load(Box<[Line]>);

impl Load {
    pub fn new(workers: usize) -> Load {
        Load((0..workers).map(|_| Line::default()).collect())
    }

    /// A worker holds so many bytes. Returns how many of them are too many, when all workers together may hold
    /// `bytes_max`: each gives up the same share of what it holds.
    pub fn note(&self, worker: u16, bytes: usize, bytes_max: usize) -> usize {
        let own = &self.0[usize::from(worker)].0;
        if own.load(Ordering::Relaxed) != bytes {
            own.store(bytes, Ordering::Relaxed);
        }
        if bytes == 0 {
            return 0;
        }
        let all: usize = self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).sum();
        let excess = all.saturating_sub(bytes_max);
        (excess as u128 * bytes as u128).div_ceil(all as u128) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_gives_up_the_same_share() {
        let load = Load::new(3);
        assert_eq!(load.note(0, 600, 1_000), 0);
        assert_eq!(load.note(1, 200, 1_000), 0);
        assert_eq!(load.note(2, 400, 1_000), 67, "a third of the 200 that are too many");
        assert_eq!(load.note(0, 600, 1_000), 100);
        assert_eq!(load.note(1, 0, 1_000), 0, "who holds nothing has nothing to give");
        assert_eq!(load.note(0, 600, 1_000), 0);
    }

    #[test]
    fn one_worker_alone_gives_up_what_is_too_much() {
        let load = Load::new(1);
        assert_eq!(load.note(0, 1_500, 1_000), 500);
        assert_eq!(load.note(0, usize::MAX, 1), usize::MAX - 1);
    }
}
