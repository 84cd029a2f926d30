//! Arena: values with stable keys, in pages.
//!
//! A key is a slot and a generation, so a key that outlives its value finds nothing instead of a stranger.
//! Pages instead of one `Vec`: growing never copies what is there, so no turn stalls on the 100,000th client, and a page
//! whose values have all gone gives its memory back.
//!
//! ```text
//! pages   [ ■■■■■■■■ ][ ■■·■■··■ ][         ][ ■■······ ]        ■ a value   · vacant
//!            full        roomy       freed       roomy
//! ```
//!
//! A new value takes the first vacant slot of the first page that has one. So while clients come and go, those that stay
//! gather in front, and the pages at the end fall empty.
//!
//! Invariants: `len` counts the values; `roomy` names exactly the pages that have a vacant slot; of the pages without a
//!             value, only `spare` has memory.
//! Limits:     `SLOTS_MAX` slots, because an `Id` names a slot with 22 bits.

use crate::proto::id::SLOTS_MAX;
use std::collections::BTreeSet;
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

struct Page<T> {
    /// Empty when the page's memory has been given back; else it grows up to `PAGE`.
    slots: Vec<Slot<T>>,
    values: usize,
    /// With what generation a slot begins: later than any that a key of the page's former slots may have.
    first_generation: u32,
}

pub struct Arena<T> {
    pages: Vec<Page<T>>,
    roomy: BTreeSet<u32>,
    /// A page without a value that keeps its memory, so that one client which comes and goes does not cost a page.
    spare: Option<u32>,
    len: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { pages: Vec::new(), roomy: BTreeSet::new(), spare: None, len: 0 }
    }
}

impl<T> Page<T> {
    /// The first vacant slot. The page is roomy.
    fn vacancy(&mut self) -> usize {
        if self.values < self.slots.len() {
            return self.slots.iter().position(|slot| slot.value.is_none()).expect("fewer values than slots");
        }
        if self.slots.is_empty() {
            self.slots.reserve_exact(PAGE);
        }
        self.slots.push(Slot { generation: self.first_generation, value: None });
        self.slots.len() - 1
    }

    fn give_back(&mut self) {
        let latest = self.slots.iter().map(|slot| slot.generation).max();
        self.first_generation = latest.map_or(self.first_generation, |latest| latest.wrapping_add(1));
        self.slots = Vec::new();
    }
}

impl<T> Arena<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Every slot that has a value is below this one.
    pub fn slots(&self) -> usize {
        self.pages.len() * PAGE
    }

    pub fn is_full(&self) -> bool {
        self.len >= SLOTS_MAX as usize
    }

    /// Puts the value that `make` builds from its own key. The caller has checked `is_full`.
    pub fn insert_with(&mut self, make: impl FnOnce(Key<T>) -> T) -> Key<T> {
        let number = self.roomy.first().copied().unwrap_or_else(|| self.grow());
        let page = &mut self.pages[number as usize];
        let at = page.vacancy();
        let place = &mut page.slots[at];
        let key = Key { slot: number * PAGE as u32 + at as u32, generation: place.generation, of: PhantomData };
        place.value = Some(make(key));
        page.values += 1;
        if page.values == PAGE {
            self.roomy.remove(&number);
        }
        if self.spare == Some(number) {
            self.spare = None;
        }
        self.len += 1;
        key
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let number = key.slot / PAGE as u32;
        let page = self.pages.get_mut(number as usize)?;
        let place = page.slots.get_mut(key.slot as usize % PAGE)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        page.values -= 1;
        self.len -= 1;
        match page.values {
            0 => self.note_empty(number),
            left if left == PAGE - 1 => _ = self.roomy.insert(number),
            _ => {}
        }
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
        self.pages.iter().enumerate().flat_map(|(number, page)| {
            page.slots.iter().enumerate().filter_map(move |(at, place)| {
                let key = Key { slot: (number * PAGE + at) as u32, generation: place.generation, of: PhantomData };
                place.value.as_ref().map(|value| (key, value))
            })
        })
    }

    pub fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }

    fn place(&self, slot: u32) -> Option<&Slot<T>> {
        self.pages.get(slot as usize / PAGE)?.slots.get(slot as usize % PAGE)
    }

    fn place_mut(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        self.pages.get_mut(slot as usize / PAGE)?.slots.get_mut(slot as usize % PAGE)
    }

    /// Adds a page and returns its number.
    fn grow(&mut self) -> u32 {
        let number = self.pages.len() as u32;
        assert!(number as usize * PAGE < SLOTS_MAX as usize, "the caller checks is_full");
        self.pages.push(Page { slots: Vec::new(), values: 0, first_generation: 0 });
        self.roomy.insert(number);
        number
    }

    /// A page has lost its last value. One such page is kept, the one that is filled first.
    fn note_empty(&mut self, number: u32) {
        let spare = self.spare.replace(number);
        if let Some(other) = spare {
            self.spare = Some(number.min(other));
            self.pages[number.max(other) as usize].give_back();
        }
    }

    /// Pages that hold memory.
    #[cfg(test)]
    fn pages_in_use(&self) -> usize {
        self.pages.iter().filter(|page| !page.slots.is_empty()).count()
    }

    #[cfg(test)]
    fn invariants(&self) {
        let values = |page: &Page<T>| page.slots.iter().filter(|slot| slot.value.is_some()).count();
        assert_eq!(self.len, self.pages.iter().map(values).sum::<usize>());
        for (number, page) in self.pages.iter().enumerate() {
            let number = number as u32;
            assert_eq!(page.values, values(page));
            assert_eq!(self.roomy.contains(&number), page.values < PAGE, "roomy means a vacant slot");
            assert!(page.values > 0 || page.slots.is_empty() || self.spare == Some(number), "one spare page");
        }
    }
}

/// What somebody else keeps beside an arena's values, under the same keys: found without a map, in pages that go when they
/// are empty, as the arena's do.
pub struct Beside<T, U> {
    /// Each has `PAGE` places, or none.
    pages: Vec<Box<[Place<T, U>]>>,
    /// How many of a page's places are taken.
    values: Vec<u16>,
    /// The page that was empty last, for the next that is needed: a value that comes and goes alone does not cost one.
    spare: Option<Box<[Place<T, U>]>>,
}

type Place<T, U> = Option<(Key<T>, U)>;

impl<T, U> Default for Beside<T, U> {
    fn default() -> Self {
        Beside { pages: Vec::new(), values: Vec::new(), spare: None }
    }
}

impl<T, U> Beside<T, U> {
    /// Puts a value there. The one of a former key of this slot goes.
    pub fn insert(&mut self, key: Key<T>, value: U) {
        let (page, at) = (key.slot as usize / PAGE, key.slot as usize % PAGE);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, Default::default);
            self.values.resize(page + 1, 0);
        }
        if self.pages[page].is_empty() {
            let vacant = || std::iter::repeat_with(|| None).take(PAGE).collect();
            self.pages[page] = self.spare.take().unwrap_or_else(vacant);
        }
        if self.pages[page][at].replace((key, value)).is_none() {
            self.values[page] += 1;
        }
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<U> {
        let (page, at) = (key.slot as usize / PAGE, key.slot as usize % PAGE);
        let place = self.pages.get_mut(page)?.get_mut(at)?;
        let (_, value) = place.take_if(|(own, _)| *own == key)?;
        self.values[page] -= 1;
        if self.values[page] == 0 {
            self.spare = Some(std::mem::take(&mut self.pages[page]));
        }
        Some(value)
    }

    pub fn get(&self, key: Key<T>) -> Option<&U> {
        self.at(key.slot).filter(|(own, _)| *own == key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut U> {
        let place = self.pages.get_mut(key.slot as usize / PAGE)?.get_mut(key.slot as usize % PAGE)?;
        place.as_mut().filter(|(own, _)| *own == key).map(|(_, value)| value)
    }

    /// By slot alone, with the key that it stands under.
    pub fn at(&self, slot: u32) -> Option<&(Key<T>, U)> {
        self.pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
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
        let keys: Vec<_> = (0..PAGE * 10).map(|i| arena.insert_with(|_| i)).collect();
        let (stay, go) = keys.split_at(PAGE / 2);
        go.iter().for_each(|&key| assert!(arena.remove(key).is_some()));
        arena.invariants();
        assert_eq!(arena.pages_in_use(), 2, "the one with values, and a spare one");
        let again: Vec<_> = (0..PAGE * 10).map(|i| arena.insert_with(|_| i)).collect();
        arena.invariants();
        assert!(go.iter().all(|&key| arena.get(key).is_none() && arena.remove(key).is_none()));
        assert!(stay.iter().enumerate().all(|(i, &key)| arena.get(key) == Some(&i)));
        assert_eq!(again[0].slot() as usize, PAGE / 2, "the first vacant slot");
    }

    #[test]
    fn what_stands_beside_a_value_is_found_under_its_key_alone() {
        let (mut arena, mut beside) = (Arena::default(), Beside::default());
        let keys: Vec<_> = (0..PAGE * 3).map(|i| arena.insert_with(|_| i)).collect();
        keys.iter().enumerate().for_each(|(i, &key)| beside.insert(key, i));
        arena.remove(keys[5]);
        let next = arena.insert_with(|_| 5);
        assert_eq!((next.slot(), beside.get(next)), (5, None), "it is its predecessor's");
        assert_eq!(beside.remove(next), None);
        assert_eq!((beside.get(keys[5]), beside.at(5)), (Some(&5), Some(&(keys[5], 5))));
        beside.insert(next, 7);
        assert_eq!((beside.get(keys[5]), beside.get(next)), (None, Some(&7)));
        keys[PAGE..].iter().enumerate().for_each(|(i, &key)| assert_eq!(beside.remove(key), Some(PAGE + i)));
        let in_use = |beside: &Beside<_, _>| beside.pages.iter().filter(|page| !page.is_empty()).count();
        assert_eq!(in_use(&beside), 1, "the pages that are empty are gone");
        assert!(beside.spare.is_some(), "but one");
        assert_eq!(beside.get(keys[4]), Some(&4));
        beside.insert(keys[PAGE], PAGE);
        assert_eq!((in_use(&beside), beside.spare.is_some()), (2, false), "which is used again");
        assert_eq!((beside.get(keys[PAGE]), beside.get(keys[PAGE + 1])), (Some(&PAGE), None));
    }

    #[test]
    fn an_arena_does_what_a_map_would_do() {
        fuzz(10, |random| {
            let (mut arena, mut model, mut gone) = (Arena::default(), Vec::new(), Vec::new());
            for step in 0..8000 {
                // It swells and shrinks, by turns.
                let removes = if step / 2000 % 2 == 0 { random.one_in(4) } else { !random.one_in(4) };
                if removes && !model.is_empty() {
                    let (key, value) = model.swap_remove(random.below(model.len()));
                    assert_eq!(arena.remove(key), Some(value));
                    gone.push(key);
                } else {
                    model.push((arena.insert_with(|_| step), step));
                }
            }
            arena.invariants();
            assert!(model.iter().all(|(key, value)| arena.get(*key) == Some(value)));
            assert!(gone.iter().all(|&key| arena.get(key).is_none()));
            assert_eq!(arena.keys().len(), model.len());
        });
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
