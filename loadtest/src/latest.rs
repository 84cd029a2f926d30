//! Latest: of each key, the newest value that a client has had.
//!
//! ```text
//!     message number s of a room has the key s mod keys      0 1 2 0 1 2 0 1 2        with three keys
//!     a client may have had                                      2     1   0   2      and misses nothing
//! ```
//!
//! Where messages have keys, a server may leave out whatever a newer value of the same key follows. So nothing is lost
//! but a key's last value, and nothing is late but a value after a newer one of its key. Unlike with `order`, whether an
//! older value comes for the first time is not known: all of those are late.

use crate::order::Seen;

/// What one client in one room has had: of each key, the number behind that of its newest message; zero for none.
pub fn see(latest: &mut [u32], sequence: u32) -> Seen {
    let newest = &mut latest[sequence as usize % latest.len()];
    match *newest {
        had if had == sequence + 1 => Seen::Again,
        had if had > sequence => Seen::After(had - 1),
        _ => {
            *newest = sequence + 1;
            Seen::InTurn
        }
    }
}

/// Of each key the last message, if the client should have had it and has not: one of `first` to before `end`, those
/// apart that were never published.
pub fn missing(latest: &[u32], first: u32, end: u32, unpublished: &[u32]) -> Vec<u32> {
    let keys = latest.len() as u32;
    let last_of = |key: u32| {
        let newest = end.checked_sub(key + 1).map(|rounds| key + rounds / keys * keys)?;
        let candidates = std::iter::successors(Some(newest), |sequence| sequence.checked_sub(keys));
        candidates.take_while(|sequence| *sequence >= first).find(|sequence| !unpublished.contains(sequence))
    };
    let missing = |key: u32| last_of(key).filter(|last| latest[key as usize] <= *last);
    let mut missing: Vec<u32> = (0..keys).filter_map(missing).collect();
    missing.sort_unstable();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use Seen::{After, Again, InTurn};

    fn seen(messages: &[u32]) -> ([u32; 3], Vec<Seen>) {
        let mut latest = [0; 3];
        let seen = messages.iter().map(|message| see(&mut latest, *message)).collect();
        (latest, seen)
    }

    #[test]
    fn a_value_may_be_skipped_and_must_not_go_back() {
        let (_, each) = seen(&[2, 7, 0, 6, 8, 8, 5, 4, 0]);
        assert_eq!(each, [InTurn, InTurn, InTurn, InTurn, InTurn, Again, After(8), After(7), After(6)]);
    }

    #[test]
    fn only_the_last_value_of_a_key_can_be_missing() {
        type Row<'a> = (&'a [u32], u32, u32, &'a [u32], &'a [u32]);
        let table: [Row<'_>; 9] = [
            (&[6, 7, 8], 0, 9, &[], &[]),
            (&[6, 7, 8], 0, 10, &[], &[9]),
            (&[6, 7], 0, 9, &[], &[8]),
            (&[3, 4, 5], 0, 9, &[], &[6, 7, 8]),
            (&[3, 4, 5], 7, 9, &[], &[7, 8]),
            (&[], 0, 2, &[], &[0, 1]),
            (&[], 9, 9, &[], &[]),
            (&[6, 4, 8], 0, 9, &[7], &[]),
            (&[6, 1, 8], 0, 9, &[7], &[4]),
        ];
        for (had, first, end, unpublished, lost) in table {
            assert_eq!(missing(&seen(had).0, first, end, unpublished), lost, "{had:?} of {first} to {end}");
        }
    }
}
