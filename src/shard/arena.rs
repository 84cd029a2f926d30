//! Arena: values with stable keys, in pages.
//!
//! A key is a slot and a generation, so a key that outlives its value finds nothing instead of a stranger.
//! Pages instead of one `Vec`: growing never copies what is there, so no turn stalls on the 100,000th client.
//!
//! Invariants: `len` counts the occupied slots; a slot on the free list is empty.
//! Limits:     `SLOTS_MAX` slots, because an `Id` names a slot with 22 bits.

use crate::proto::id::SLOTS_MAX;
use std::marker::PhantomData;

const PAGE: usize = 256;

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

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

pub struct Arena<T> {
    pages: Vec<Vec<Slot<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { pages: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Arena<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_full(&self) -> bool {
        self.len >= SLOTS_MAX as usize
    }

    /// Puts the value that `make` builds from its own key. The caller has checked `is_full`.
    pub fn insert_with(&mut self, make: impl FnOnce(Key<T>) -> T) -> Key<T> {
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        let place = &mut self.pages[slot as usize / PAGE][slot as usize % PAGE];
        assert!(place.value.is_none(), "a slot on the free list is empty");
        let key = Key { slot, generation: place.generation, of: PhantomData };
        place.value = Some(make(key));
        self.len += 1;
        key
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let place = self.place_mut(key.slot)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.slot);
        self.len -= 1;
        Some(value)
    }

    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let place = self.place(key.slot)?;
        if place.generation == key.generation { place.value.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let place = self.place_mut(key.slot)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    /// By slot alone: for lists that are corrected whenever a value goes, and for ids, which are compared as a whole.
    pub fn at(&self, slot: u32) -> Option<&T> {
        self.place(slot)?.value.as_ref()
    }

    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.place_mut(slot)?.value.as_mut()
    }

    pub fn key_at(&self, slot: u32) -> Option<Key<T>> {
        let place = self.place(slot)?;
        place.value.as_ref()?;
        Some(Key { slot, generation: place.generation, of: PhantomData })
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.pages.iter().flatten().enumerate().filter_map(|(slot, place)| {
            let key = Key { slot: slot as u32, generation: place.generation, of: PhantomData };
            place.value.as_ref().map(|value| (key, value))
        })
    }

    pub fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }

    fn place(&self, slot: u32) -> Option<&Slot<T>> {
        self.pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)
    }

    fn place_mut(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        self.pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)
    }

    fn grow(&mut self) -> u32 {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let before = (self.pages.len() - 1) * PAGE;
        let page = self.pages.last_mut().expect("one was just pushed");
        page.push(Slot { generation: 0, value: None });
        let slot = before + page.len() - 1;
        assert!(slot < SLOTS_MAX as usize, "the caller checks is_full");
        slot as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn values_keep_their_place_while_it_grows() {
        let mut arena = Arena::default();
        let keys: Vec<_> = (0..PAGE * 3).map(|i| arena.insert_with(|_| i)).collect();
        let first = arena.get(keys[0]).unwrap() as *const usize;
        arena.insert_with(|_| 0);
        assert_eq!(arena.get(keys[0]).unwrap() as *const usize, first);
        assert_eq!(arena.keys().len(), PAGE * 3 + 1);
        assert!(keys.iter().enumerate().all(|(i, &key)| arena.get(key) == Some(&i)));
    }
}
