//! Seeded randomness for this layer's tests: the same seed repeats the same run, for ever.

use std::env;
use std::thread;

/// Calls `check` once per run, each with its own seed; a failing run prints how to repeat it alone.
///
/// `FANFARE_FUZZ_SEED` (default 1) is the first seed, `FANFARE_FUZZ_RUNS` (default `runs`) how many follow one another.
pub(crate) fn fuzz(runs: u64, mut check: impl FnMut(&mut Random)) {
    let first = number("FANFARE_FUZZ_SEED").unwrap_or(1);
    let runs = number("FANFARE_FUZZ_RUNS").unwrap_or(runs);
    for seed in (0..runs).map(|run| first.wrapping_add(run)) {
        let _confession = Confession(format!("FANFARE_FUZZ_SEED={seed} FANFARE_FUZZ_RUNS=1"));
        check(&mut Random(seed));
    }
}

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Tells how to repeat the run when it panics.
pub(crate) struct Confession(pub(crate) String);

impl Drop for Confession {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("repeat with {}", self.0);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): seven lines, and good enough to choose test data.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number smaller than `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Up to `len_max` bytes.
    pub(crate) fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Up to `len_max` pieces of `alphabet`, end to end.
    pub(crate) fn text(&mut self, alphabet: &[&str], len_max: usize) -> String {
        let len = self.below(len_max + 1);
        (0..len).map(|_| *self.pick(alphabet)).collect()
    }

    /// `text` with one to three characters removed, repeated, or replaced by pieces of `alphabet`.
    pub(crate) fn mutated(&mut self, text: &str, alphabet: &[&str]) -> String {
        let mut pieces: Vec<String> = text.chars().map(String::from).collect();
        for _ in 0..=self.below(3) {
            let at = self.below(pieces.len() + 1);
            match self.below(3) {
                0 => pieces.insert(at, self.pick(alphabet).to_string()),
                _ if at == pieces.len() => pieces.truncate(at / 2),
                1 => drop(pieces.remove(at)),
                _ => pieces[at] = self.pick(alphabet).to_string(),
            }
        }
        pieces.concat()
    }
}
