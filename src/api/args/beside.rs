//! Beside: the attachments of the call in progress, on their way between a value and our end of serde.
//!
//! Serde knows bytes but not attachments, and a value in the middle of its types has no other way to reach us. One
//! thread-local holds what belongs to the call, and only to that call.
//!
//! Writing, it saves the copy: `Binary` and `Args` lay their bytes here while they show themselves to serde, and our
//! formatter picks them up. Reading, they find here what the placeholders name.
//!
//! Invariants: it is again what it was when the call that filled it is over, also after a panic.

use std::cell::RefCell;
use std::mem;

use bytes::Bytes;

pub(super) struct Beside {
    pub(super) attachments: Vec<Bytes>,
    /// Writing: the number that the packet gave to the first of them.
    pub(super) first: Option<usize>,
}

thread_local! {
    pub(super) static BESIDE: RefCell<Beside> = const { RefCell::new(Beside::new(Vec::new())) };
}

impl Beside {
    const fn new(attachments: Vec<Bytes>) -> Self {
        Self { attachments, first: None }
    }
}

/// Lays these beside serde until the guard is dropped. Calls nest: what was there comes back.
pub(super) fn carry(attachments: Vec<Bytes>) -> Carried {
    Carried { before: BESIDE.replace(Beside::new(attachments)) }
}

#[must_use]
pub(super) struct Carried {
    before: Beside,
}

impl Drop for Carried {
    fn drop(&mut self) {
        BESIDE.set(mem::replace(&mut self.before, Beside::new(Vec::new())));
    }
}
