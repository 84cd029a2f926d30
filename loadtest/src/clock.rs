//! Clock: the time of one run, the same for all of its threads.
//!
//! Nanoseconds since the run began, monotonic. A stamp carries such a time, so a stamp means nothing to another run. Of
//! several generators all follow the clock of the one that publishes.

use std::time::Instant;

/// Nanoseconds since the run's [`Clock`] was made.
pub type Nanos = u64;

#[derive(Clone, Copy)]
pub struct Clock {
    epoch: Instant,
    /// How far it was ahead of the one that it follows.
    ahead: i64,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { epoch: Instant::now(), ahead: 0 }
    }

    pub fn now(&self) -> Nanos {
        let elapsed = u64::try_from(self.epoch.elapsed().as_nanos()).expect("a run is shorter than five centuries");
        elapsed.saturating_add_signed(self.ahead.saturating_neg())
    }

    /// The same, set to another generator's time, of which it is `ahead`.
    pub fn set_back(self, ahead: i64) -> Clock {
        Clock { ahead, ..self }
    }
}
