//! Support: how every bench measures, said once.
//!
//! Few samples and short ones: all benches together take minutes, and what they decide are factors, not percents.

use criterion::Criterion;
use std::time::Duration;

const SAMPLES: usize = 20;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASUREMENT: Duration = Duration::from_millis(1500);

pub fn criterion() -> Criterion {
    Criterion::default().sample_size(SAMPLES).warm_up_time(WARM_UP).measurement_time(MEASUREMENT)
}
