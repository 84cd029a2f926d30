//! Seed: numbers that look random and are the same wherever they are asked for: a hash of the seed and of what they are
//! for (SplitMix64, Steele et al. 2014).

/// A number for `a` and `b`.
pub fn mix(seed: u64, a: u32, b: u32) -> u64 {
    let mut z =
        seed.wrapping_add((u64::from(a) << 32 | u64::from(b)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A share for `a` and `b`, from 0 to just below 1.
pub fn unit(seed: u64, a: u32, b: u32) -> f64 {
    (mix(seed, a, b) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Fisher and Yates.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    for end in (1..items.len()).rev() {
        let chosen = mix(seed, end as u32, u32::MAX) % (end as u64 + 1);
        items.swap(end, chosen as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even() {
        let mut tenths = [0_u32; 10];
        (0..10_000).for_each(|client| tenths[(unit(3, client, 0) * 10.0) as usize] += 1);
        assert!(tenths.iter().all(|tenth| (850..1150).contains(tenth)), "{tenths:?}");
    }

    #[test]
    fn a_shuffle_keeps_everything_and_follows_its_seed() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..100).collect();
            shuffle(&mut items, seed);
            items
        };
        let (one, two) = (shuffled(1), shuffled(2));
        assert_eq!(one, shuffled(1));
        assert_ne!(one, two);
        let mut sorted = one;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
