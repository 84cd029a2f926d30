//! Cores: where the two threads of a bench run that measures what passes between them. Pinned, as workers are: left to
//! the scheduler they may share a core, and then it is the scheduler that is measured.
//!
//! A machine with one core, or a system without pinning, measures something all the same, but not this.

use core_affinity::CoreId;
use std::sync::OnceLock;

/// For the thread that measures, before it starts the other.
pub fn pin_to_first() {
    if let Some(&core) = cores().first() {
        core_affinity::set_for_current(core);
    }
}

/// For the other thread.
pub fn pin_to_last() {
    if let Some(&core) = cores().last() {
        core_affinity::set_for_current(core);
    }
}

/// Asked once, before anybody is pinned: who is, and whom it starts, sees no core but its own.
fn cores() -> &'static [CoreId] {
    static CORES: OnceLock<Vec<CoreId>> = OnceLock::new();
    CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default())
}
