//! Page: the values of 64 slots, without holes. What arenas are made of, and what stands beside them.
//!
//! ```text
//! slot      0   1   2   3   4   5  …
//! places  [ 2 | · | 0 | · | · | 1  …      a byte each: where the slot's value is
//!
//! place     0   1   2
//! values  [ ■ | ■ | ■ ]                   each with its slot, 2, 5 and 0
//! ```
//!
//! A value that goes leaves no hole: the last one moves into its place. So memory follows the number of values, whoever
//! leaves. What never goes is a byte a slot, which stands in the page itself: finding a value takes no other memory.
//!
//! A page that is full grows by half, and one that is less than half full is copied to less memory: never more than one
//! page is copied, and not more than a few values for each that came or went. Copied indeed: `Vec::shrink_to` asks the
//! allocator to make an allocation smaller, and allocators leave one that is still half used where it is.
//!
//! Small pages, because allocators do not give back the memory of one block, but of all the blocks around it: those of up to
//! 8 or 10 KB share 64 KB with mimalloc, larger ones 512 KB, and a little of each size always stays.
//!
//! Invariants: `places` and `values` name each other; a page without values holds no memory, and else at least half of its
//!             memory is in use.

/// A power of two, so that a slot's page and its place in there are a shift and a mask.
pub const SLOTS: usize = 64;
/// The place of a slot without a value. No page has so many.
const NOWHERE: u8 = u8::MAX;

pub struct Page<V> {
    places: [u8; SLOTS],
    values: Vec<Held<V>>,
}

struct Held<V> {
    value: V,
    /// Of the key that it was put under.
    generation: u32,
    /// Its slot in the page.
    slot: u8,
}

impl<V> Default for Page<V> {
    fn default() -> Self {
        Page { places: [NOWHERE; SLOTS], values: Vec::new() }
    }
}

impl<V> Page<V> {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The first slot without a value.
    pub fn vacancy(&self) -> Option<usize> {
        self.places.iter().position(|place| *place == NOWHERE)
    }

    /// Puts a value into a slot and returns the one that was there.
    pub fn put(&mut self, slot: usize, generation: u32, value: V) -> Option<V> {
        let held = Held { value, generation, slot: slot as u8 };
        if let Some(before) = self.values.get_mut(self.places[slot] as usize) {
            return Some(std::mem::replace(before, held).value);
        }
        let len = self.values.len();
        if len == self.values.capacity() {
            self.values.reserve_exact((len / 2 + 1).min(SLOTS - len));
        }
        self.places[slot] = len as u8;
        self.values.push(held);
        None
    }

    pub fn remove(&mut self, slot: usize, generation: u32) -> Option<V> {
        self.get(slot, generation)?;
        let place = std::mem::replace(&mut self.places[slot], NOWHERE);
        let held = self.values.swap_remove(place as usize);
        if let Some(moved) = self.values.get(place as usize) {
            self.places[moved.slot as usize] = place;
        }
        if self.is_slack() {
            self.shrink();
        }
        Some(held.value)
    }

    fn is_slack(&self) -> bool {
        self.values.len() * 2 < self.values.capacity()
    }

    /// Leaves room for some who may come.
    fn shrink(&mut self) {
        let len = self.values.len();
        let mut values = Vec::with_capacity(if len == 0 { 0 } else { len + len / 8 + 1 });
        values.append(&mut self.values);
        self.values = values;
    }

    #[inline]
    pub fn get(&self, slot: usize, generation: u32) -> Option<&V> {
        let held = self.values.get(self.places[slot] as usize)?;
        if held.generation == generation { Some(&held.value) } else { None }
    }

    #[inline]
    pub fn get_mut(&mut self, slot: usize, generation: u32) -> Option<&mut V> {
        let held = self.values.get_mut(self.places[slot] as usize)?;
        if held.generation == generation { Some(&mut held.value) } else { None }
    }

    /// Whatever its generation.
    #[inline]
    pub fn at(&self, slot: usize) -> Option<&V> {
        self.values.get(self.places[slot] as usize).map(|held| &held.value)
    }

    #[inline]
    pub fn at_mut(&mut self, slot: usize) -> Option<&mut V> {
        self.values.get_mut(self.places[slot] as usize).map(|held| &mut held.value)
    }

    #[inline]
    pub fn generation(&self, slot: usize) -> Option<u32> {
        self.values.get(self.places[slot] as usize).map(|held| held.generation)
    }

    /// Slot, generation and value, in the order of memory.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u32, &V)> {
        self.values.iter().map(|held| (held.slot as usize, held.generation, &held.value))
    }

    /// Values that it has memory for.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.values.capacity()
    }

    #[cfg(test)]
    pub fn invariants(&self) {
        for (place, held) in self.values.iter().enumerate() {
            assert_eq!(self.places[held.slot as usize] as usize, place, "they name each other");
        }
        let taken = self.places.iter().filter(|place| **place != NOWHERE).count();
        assert_eq!(taken, self.values.len());
        assert!(self.values.capacity() <= SLOTS && !self.is_slack(), "{} for {taken}", self.values.capacity());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_moves_into_the_hole() {
        let mut page = Page::default();
        for (slot, value) in [(7, "a"), (0, "b"), (63, "c")] {
            assert_eq!(page.put(slot, 1, value), None);
        }
        assert_eq!((page.remove(7, 2), page.remove(7, 1), page.remove(7, 1)), (None, Some("a"), None));
        assert_eq!(page.iter().collect::<Vec<_>>(), [(63, 1, &"c"), (0, 1, &"b")]);
        assert_eq!((page.at(7), page.at(0), page.get(63, 1), page.get(63, 0)), (None, Some(&"b"), Some(&"c"), None));
        assert_eq!((page.put(0, 2, "d"), page.get(0, 1), page.get(0, 2)), (Some("b"), None, Some(&"d")));
        assert_eq!((page.vacancy(), page.len()), (Some(1), 2));
        page.invariants();
    }

    #[test]
    fn a_full_page_has_no_slack_and_an_empty_one_no_memory() {
        let mut page = Page::default();
        for slot in 0..SLOTS {
            page.put(slot, 0, slot);
            page.invariants();
        }
        assert_eq!((page.vacancy(), page.capacity()), (None, SLOTS));
        for slot in 0..SLOTS {
            assert_eq!(page.remove(slot, 0), Some(slot));
            page.invariants();
        }
        assert_eq!((page.len(), page.capacity()), (0, 0));
    }

    #[test]
    fn a_value_costs_nine_bytes_besides_itself() {
        let page_table = size_of::<Page<u64>>() - size_of::<Vec<u64>>();
        assert_eq!(size_of::<Held<u64>>() - size_of::<u64>() + page_table / SLOTS, 9, "perf/budget.md");
    }

    #[test]
    fn one_that_comes_and_goes_at_whatever_length_has_nothing_copied() {
        for len in 1..SLOTS {
            let mut page = Page::default();
            (0..len).for_each(|slot| _ = page.put(slot, 0, slot));
            page.put(len, 0, len);
            page.remove(len, 0);
            let (capacity, memory) = (page.capacity(), page.values.as_ptr());
            for _ in 0..4 {
                page.put(len, 0, len);
                page.remove(len, 0);
                assert_eq!((page.capacity(), page.values.as_ptr()), (capacity, memory));
            }
        }
    }
}
