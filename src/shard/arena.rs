//! Arena: values with stable keys, in pages without holes.
//!
//! A key is a slot and a generation, so a key that outlives its value finds nothing instead of a stranger. A slot never
//! changes, but where its value is does: each page packs its own (page.rs), so memory goes with the values, whoever stays.
//!
//! ```text
//! slots      0         64        128        192
//! pages   [ ■■■■■■■■ ][ ■■■■■·· ][         ][ ■· ]        ■ a value   · room for one
//!            full       roomy      empty      roomy
//! ```
//!
//! Pages instead of one `Vec`: growing never copies more than one, so no turn stalls on the 100,000th client.
//!
//! A new value takes the first vacant slot of the first page that has one. So while clients come and go, those that stay
//! gather in front, and the pages at the end fall empty.
//!
//! Two roads not taken. A value in its slot spares a look at the place, and a page of it goes only if all its values go:
//! where 10,000 of 100,000 clients stay, evenly among the others, none does. All values packed as one would give back a
//! little more, and each of them would be found through a second page.
//!
//! Invariants: `len` counts the values; `roomy` names exactly the pages that have a vacant slot; no key comes again before
//!             2^32 others.
//! Limits:     `SLOTS_MAX` slots, because an `Id` names a slot with 22 bits.

use super::page::{self, Page};
use crate::proto::id::SLOTS_MAX;
use std::collections::BTreeSet;
use std::marker::PhantomData;

/// Names one value of an [`Arena<T>`].
pub struct Key<T> {
    slot: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    pub fn slot(self) -> u32 {
        self.slot
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.slot, self.generation) == (other.slot, other.generation)
    }
}
impl<T> Eq for Key<T> {}
impl<T> std::hash::Hash for Key<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.slot, self.generation).hash(state);
    }
}
impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

pub struct Arena<T> {
    pages: Vec<Page<T>>,
    roomy: BTreeSet<u32>,
    len: usize,
    /// Of the next key.
    generation: u32,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { pages: Vec::new(), roomy: BTreeSet::new(), len: 0, generation: 0 }
    }
}

impl<T> Arena<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Every slot that has a value is below this one.
    pub fn slots(&self) -> usize {
        self.pages.len() * page::SLOTS
    }

    pub fn is_full(&self) -> bool {
        self.len >= SLOTS_MAX as usize
    }

    /// Puts the value that `make` builds from its own key. The caller has checked `is_full`.
    pub fn insert_with(&mut self, make: impl FnOnce(Key<T>) -> T) -> Key<T> {
        let number = self.roomy.first().copied().unwrap_or_else(|| self.grow());
        let page = &mut self.pages[number as usize];
        let at = page.vacancy().expect("a roomy page");
        let key = Key { slot: number * page::SLOTS as u32 + at as u32, generation: self.generation, of: PhantomData };
        page.put(at, key.generation, make(key));
        if page.len() == page::SLOTS {
            self.roomy.remove(&number);
        }
        self.generation = self.generation.wrapping_add(1);
        self.len += 1;
        key
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let (number, at) = split(key.slot);
        let page = self.pages.get_mut(number)?;
        let value = page.remove(at, key.generation)?;
        if page.len() == page::SLOTS - 1 {
            self.roomy.insert(number as u32);
        }
        self.len -= 1;
        Some(value)
    }

    #[inline]
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let (page, at) = split(key.slot);
        self.pages.get(page)?.get(at, key.generation)
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let (page, at) = split(key.slot);
        self.pages.get_mut(page)?.get_mut(at, key.generation)
    }

    /// By slot alone: for lists that are corrected whenever a value goes, and for ids, which are compared as a whole.
    #[inline]
    pub fn at(&self, slot: u32) -> Option<&T> {
        let (page, at) = split(slot);
        self.pages.get(page)?.at(at)
    }

    #[inline]
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        let (page, at) = split(slot);
        self.pages.get_mut(page)?.at_mut(at)
    }

    #[inline]
    pub fn key_at(&self, slot: u32) -> Option<Key<T>> {
        key_at(&self.pages, slot)
    }

    /// Page by page; within one in no order that means anything, but always the same after the same.
    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.pages.iter().enumerate().flat_map(|(number, page)| {
            page.iter().map(move |(at, generation, value)| {
                (Key { slot: (number * page::SLOTS + at) as u32, generation, of: PhantomData }, value)
            })
        })
    }

    pub fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// Adds a page and returns its number.
    fn grow(&mut self) -> u32 {
        let number = self.pages.len() as u32;
        assert!(self.slots() < SLOTS_MAX as usize, "the caller checks is_full");
        self.pages.push(Page::default());
        self.roomy.insert(number);
        number
    }

    /// Values that there is memory for.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.pages.iter().map(Page::capacity).sum()
    }

    #[cfg(test)]
    pub fn invariants(&self) {
        assert_eq!(self.len, self.pages.iter().map(Page::len).sum::<usize>());
        for (number, page) in self.pages.iter().enumerate() {
            page.invariants();
            let is_roomy = page.vacancy().is_some();
            assert_eq!(self.roomy.contains(&(number as u32)), is_roomy, "roomy means a vacant slot");
        }
    }
}

/// The page of a slot, and where it is in there.
#[inline]
fn split(slot: u32) -> (usize, usize) {
    (slot as usize / page::SLOTS, slot as usize % page::SLOTS)
}

fn key_at<T, V>(pages: &[Page<V>], slot: u32) -> Option<Key<T>> {
    let (page, at) = split(slot);
    let generation = pages.get(page)?.generation(at)?;
    Some(Key { slot, generation, of: PhantomData })
}

/// What somebody else keeps beside an arena's values, under the same keys: found without a map, and packed as they are.
pub struct Beside<T, U> {
    pages: Vec<Page<U>>,
    of: PhantomData<fn() -> T>,
}

impl<T, U> Default for Beside<T, U> {
    fn default() -> Self {
        Beside { pages: Vec::new(), of: PhantomData }
    }
}

impl<T, U> Beside<T, U> {
    /// Puts a value there. The one of a former key of this slot goes.
    pub fn insert(&mut self, key: Key<T>, value: U) {
        let (page, at) = split(key.slot);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, Page::default);
        }
        self.pages[page].put(at, key.generation, value);
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<U> {
        let (page, at) = split(key.slot);
        self.pages.get_mut(page)?.remove(at, key.generation)
    }

    #[inline]
    pub fn get(&self, key: Key<T>) -> Option<&U> {
        let (page, at) = split(key.slot);
        self.pages.get(page)?.get(at, key.generation)
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut U> {
        let (page, at) = split(key.slot);
        self.pages.get_mut(page)?.get_mut(at, key.generation)
    }

    /// By slot alone: the key that a value stands under.
    #[inline]
    pub fn key_at(&self, slot: u32) -> Option<Key<T>> {
        key_at(&self.pages, slot)
    }

    /// Values that there is memory for.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.pages.iter().map(Page::capacity).sum()
    }

    #[cfg(test)]
    fn invariants(&self) {
        self.pages.iter().for_each(Page::invariants);
    }
}

#[cfg(test)]
mod tests {
    use super::page::SLOTS;
    use super::*;
    use crate::proto::fuzzing::fuzz;

    #[test]
    fn a_key_never_finds_a_stranger() {
        let mut arena = Arena::default();
        let first = arena.insert_with(|_| "first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert_with(|_| "second");
        assert_eq!(second.slot(), first.slot());
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(arena.len(), 1);
    }

    #[test]
    fn a_page_that_is_empty_gives_its_memory_back_and_its_old_keys_stay_dead() {
        let mut arena = Arena::default();
        let keys: Vec<_> = (0..SLOTS * 10).map(|i| arena.insert_with(|_| i)).collect();
        let (stay, go) = keys.split_at(SLOTS);
        go.iter().for_each(|&key| assert!(arena.remove(key).is_some()));
        arena.invariants();
        assert_eq!(arena.capacity(), SLOTS);
        let again: Vec<_> = (0..SLOTS * 10).map(|i| arena.insert_with(|_| i)).collect();
        arena.invariants();
        assert!(go.iter().all(|&key| arena.get(key).is_none() && arena.remove(key).is_none()));
        assert!(stay.iter().enumerate().all(|(i, &key)| arena.get(key) == Some(&i)));
        assert_eq!(again[0].slot() as usize, SLOTS, "the first vacant slot");
    }

    #[test]
    fn memory_goes_with_the_values_whoever_stays() {
        let (mut arena, mut beside) = (Arena::default(), Beside::default());
        let keys: Vec<_> = (0..SLOTS * 100).map(|i| arena.insert_with(|_| i)).collect();
        keys.iter().enumerate().for_each(|(i, &key)| beside.insert(key, i));
        assert_eq!((arena.capacity(), beside.capacity()), (SLOTS * 100, SLOTS * 100));
        let stays = |i: &usize| i.is_multiple_of(10);
        for (i, &key) in keys.iter().enumerate().filter(|(i, _)| !stays(i)) {
            assert_eq!((arena.remove(key), beside.remove(key)), (Some(i), Some(i)));
        }
        arena.invariants();
        let of_hundred = [arena.capacity(), beside.capacity()].map(|capacity| capacity / SLOTS);
        assert!(of_hundred.iter().all(|percent| (10..=20).contains(percent)), "{of_hundred:?} for a tenth");
        for (i, &key) in keys.iter().enumerate() {
            let expected = Some(&i).filter(|i| stays(i));
            assert_eq!((arena.get(key), beside.get(key)), (expected, expected));
        }
    }

    #[test]
    fn what_stands_beside_a_value_is_found_under_its_key_alone() {
        let (mut arena, mut beside) = (Arena::default(), Beside::default());
        let keys: Vec<_> = (0..SLOTS * 3).map(|i| arena.insert_with(|_| i)).collect();
        keys.iter().enumerate().for_each(|(i, &key)| beside.insert(key, i));
        arena.remove(keys[5]);
        let next = arena.insert_with(|_| 5);
        assert_eq!((next.slot(), beside.get(next)), (5, None), "it is its predecessor's");
        assert_eq!(beside.remove(next), None);
        assert_eq!((beside.get(keys[5]), beside.key_at(5)), (Some(&5), Some(keys[5])));
        beside.insert(next, 7);
        assert_eq!((beside.get(keys[5]), beside.get(next), beside.key_at(5)), (None, Some(&7), Some(next)));
        keys[SLOTS..].iter().enumerate().for_each(|(i, &key)| assert_eq!(beside.remove(key), Some(SLOTS + i)));
        assert_eq!(beside.capacity(), SLOTS, "the pages that are empty have no memory");
        assert_eq!((beside.get(keys[4]), beside.key_at(keys[SLOTS].slot())), (Some(&4), None));
        beside.insert(keys[SLOTS], SLOTS);
        assert_eq!((beside.get(keys[SLOTS]), beside.get(keys[SLOTS + 1])), (Some(&SLOTS), None));
    }

    #[test]
    fn an_arena_and_what_stands_beside_it_do_what_maps_would_do() {
        fuzz(10, |random| {
            let (mut arena, mut beside) = (Arena::default(), Beside::default());
            let (mut model, mut gone) = (Vec::new(), Vec::new());
            for step in 0..8000 {
                // It swells and shrinks, by turns.
                let removes = if step / 2000 % 2 == 0 { random.one_in(4) } else { !random.one_in(4) };
                if removes && !model.is_empty() {
                    let (key, value) = model.swap_remove(random.below(model.len()));
                    assert_eq!((arena.remove(key), beside.remove(key)), (Some(value), Some(value)));
                    gone.push(key);
                } else {
                    let key = arena.insert_with(|_| step);
                    beside.insert(key, step);
                    model.push((key, step));
                }
                if step % 500 == 0 {
                    arena.invariants();
                    beside.invariants();
                }
            }
            arena.invariants();
            beside.invariants();
            assert!(
                model
                    .iter()
                    .all(|(key, value)| arena.get(*key) == Some(value) && arena.key_at(key.slot()) == Some(*key))
            );
            assert!(model.iter().all(|(key, value)| beside.get(*key) == Some(value)));
            assert!(gone.iter().all(|&key| arena.get(key).is_none() && arena.remove(key).is_none()));
            assert!(gone.iter().all(|&key| beside.get(key).is_none() && beside.remove(key).is_none()));
            let mut all: Vec<_> = arena.iter().map(|(key, &value)| (key.slot(), value)).collect();
            let mut expected: Vec<_> = model.iter().map(|&(key, value)| (key.slot(), value)).collect();
            all.sort_unstable();
            expected.sort_unstable();
            assert_eq!(all, expected);
            let slots = expected.last().map_or(0, |&(slot, _)| slot as usize + 1);
            assert!(arena.slots() >= slots, "a walk over the slots misses nobody");
        });
    }

    #[test]
    fn values_of_other_pages_keep_their_place_while_it_grows() {
        let mut arena = Arena::default();
        let keys: Vec<_> = (0..SLOTS * 3).map(|i| arena.insert_with(|_| i)).collect();
        let first = arena.get(keys[0]).unwrap() as *const usize;
        arena.insert_with(|_| 0);
        assert_eq!(arena.get(keys[0]).unwrap() as *const usize, first);
        assert_eq!(arena.keys().len(), SLOTS * 3 + 1);
        assert!(keys.iter().enumerate().all(|(i, &key)| arena.get(key) == Some(&i)));
    }
}
