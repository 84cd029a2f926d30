//! Clock: the time of one run, the same for all of its threads.
//!
//! Nanoseconds since the run began, monotonic. A stamp carries such a time, so a stamp means nothing to another run.

use std::time::Instant;

/// Nanoseconds since the run's [`Clock`] was made.
pub type Nanos = u64;

#[derive(Clone, Copy)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { epoch: Instant::now() }
    }

    pub fn now(&self) -> Nanos {
        u64::try_from(self.epoch.elapsed().as_nanos()).expect("a run is shorter than five centuries")
    }
}
