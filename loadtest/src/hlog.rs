//! Hlog: the delays as an HdrHistogram interval log, which HdrHistogram's own tools read, compare and plot.
//!
//! One histogram per kind of delay, told apart by its tag (`first`, `median`, `p99`, `last`, `delivery`), over the whole
//! run; values are microseconds.

use crate::delays::Delays;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// `began` is when the first message was due, `took` the time from then to the last delivery.
pub fn write(delays: &Delays, began: SystemTime, took: Duration, mut out: impl Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("loadtest: delays in microseconds").with_start_time(began).with_base_time(began);
    let mut log = builder.begin_log_with(&mut out, &mut serializer)?;
    for (name, times) in delays.named().into_iter().filter(|(_, times)| times.samples() > 0) {
        let tag = Tag::new(name).expect("a name has neither comma nor blank");
        log.write_histogram(times.histogram(), Duration::ZERO, took, Some(tag))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn what_is_written_is_read_back() {
        let mut delays = Delays::default();
        (1..=100).for_each(|millis| delays.last.record(millis * 1_000_000));
        delays.delivery.record(7_000_000);
        let mut bytes = Vec::new();
        write(&delays, SystemTime::UNIX_EPOCH, Duration::from_secs(9), &mut bytes).expect("a vector takes everything");
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.expect("it is a log") {
                let encoded = base64(interval.encoded_histogram());
                let histogram: hdrhistogram::Histogram<u64> =
                    Deserializer::new().deserialize(&mut encoded.as_slice()).expect("it is a histogram");
                read.push((interval.tag().map(|tag| tag.as_str().to_owned()), histogram.len(), histogram.max()));
            }
        }
        let tags = |read: &(Option<String>, u64, u64)| (read.0.clone().unwrap_or_default(), read.1, read.2 / 1000);
        assert_eq!(read.iter().map(tags).collect::<Vec<_>>(), [("last".into(), 100, 100), ("delivery".into(), 1, 7)]);
    }

    fn base64(text: &str) -> Vec<u8> {
        let value = |letter: u8| match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let bits =
            text.trim_end_matches('=').bytes().flat_map(|letter| (0..6).rev().map(move |bit| value(letter) >> bit & 1));
        let bits: Vec<u8> = bits.collect();
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
    }
}
