//! Refusals: messages that the server would not take when they were published. Nobody can have them, so nobody lost them.
//!
//! A server that is behind, or a publisher beyond its rate, is answered with 503 or 429 and `Retry-After`. The publisher
//! waits for so long and goes on with the next message. It does not repeat the refused one: others may be under way
//! behind it on the same stream, and their order would be lost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[derive(Default)]
pub struct Refusals {
    /// In the order of their numbers, because answers come in that of the requests.
    messages: Mutex<Vec<u32>>,
    count: AtomicU32,
}

impl Refusals {
    pub fn note(&self, messages: &[u32]) {
        let mut all = self.messages.lock().expect("nobody panics while holding it");
        all.extend(messages);
        self.count.store(all.len() as u32, Relaxed);
    }

    pub fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// All but the first so many.
    pub fn from(&self, first: usize) -> Vec<u32> {
        if self.count() as usize <= first {
            return Vec::new();
        }
        self.messages.lock().expect("nobody panics while holding it")[first..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_knows_the_first_ones_is_told_the_others() {
        let refusals = Refusals::default();
        assert_eq!((refusals.count(), refusals.from(0)), (0, vec![]));
        refusals.note(&[3]);
        refusals.note(&[5, 8]);
        assert_eq!((refusals.count(), refusals.from(0), refusals.from(2)), (3, vec![3, 5, 8], vec![8]));
        assert!(refusals.from(3).is_empty());
    }
}
