//! Units: rates, durations, sizes and counts as people write and read them.

use crate::clock::Nanos;
use serde::de::{Deserialize, Deserializer, Error};
use std::time::Duration;

/// `5000/s`, or plain `5000`.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write a rate as 10 or 10/s, above zero".to_owned()),
    }
}

/// The same, and `0` for none.
pub fn parse_rate_or_zero(text: &str) -> Result<f64, String> {
    if text.strip_suffix("/s").unwrap_or(text) == "0" { Ok(0.0) } else { parse_rate(text) }
}

/// `500us`, `20ms`, `1.5s`, `2m`, or plain seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds_per_unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    digits
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds_per_unit).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a duration as 500us, 20ms, 1.5s or 2m, above zero".to_owned())
}

/// `200`, `16k`, `1m`: bytes, with k for 1,024.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" => Some(10),
        "m" | "mb" => Some(20),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.parse::<usize>().ok()?.checked_mul(1 << shift));
    bytes.ok_or_else(|| "write a size as 200, 16k or 1m".to_owned())
}

/// Reads a quantity that is written as a text or as a bare number.
pub fn deserialize<'de, D: Deserializer<'de>, T>(
    value: D,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "write a number, or a number with its unit in quotes")]
    enum Quantity {
        Whole(u64),
        Real(f64),
        Text(String),
    }
    let text = match Quantity::deserialize(value)? {
        Quantity::Whole(number) => number.to_string(),
        Quantity::Real(number) => number.to_string(),
        Quantity::Text(text) => text,
    };
    parse(&text).map_err(|wanted| D::Error::custom(format!("'{text}': {wanted}")))
}

pub fn deserialize_duration<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    deserialize(value, parse_duration)
}

pub fn deserialize_duration_or_zero<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    deserialize(value, |text| match text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()) {
        "0" => Ok(Duration::ZERO),
        _ => parse_duration(text),
    })
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, in the unit that suits: `0.213 ms`, `12.4 ms`, `1.21 s`.
pub fn nanos(time: Nanos) -> String {
    let milliseconds = time as f64 / 1e6;
    match milliseconds {
        ..0.9995 => format!("{milliseconds:.3} ms"),
        ..9.995 => format!("{milliseconds:.2} ms"),
        ..99.95 => format!("{milliseconds:.1} ms"),
        ..999.5 => format!("{milliseconds:.0} ms"),
        _ => format!("{:.2} s", milliseconds / 1e3),
    }
}

/// A time in milliseconds, as [`nanos`] writes it.
pub fn millis(time: f64) -> String {
    nanos((time * 1e6) as Nanos)
}

/// A time in microseconds: `0.84 µs`, `12.4 µs`, and from a millisecond on as [`nanos`] writes it.
pub fn micros(time: f64) -> String {
    match time {
        ..9.995 => format!("{time:.2} µs"),
        ..99.95 => format!("{time:.1} µs"),
        ..999.5 => format!("{time:.0} µs"),
        _ => millis(time / 1e3),
    }
}

/// A time that somebody planned: `10s`, `1.5s`, `300ms`.
pub fn seconds(time: f64) -> String {
    Duration::try_from_secs_f64(time).map_or_else(|_| format!("{time}s"), |time| format!("{time:?}"))
}

const BYTE_UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

/// Three significant digits, with k for 1,024: `12 B`, `4.12 kB`, `98.5 MB`.
pub fn bytes(size: u64) -> String {
    let mut scaled = size as f64;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < BYTE_UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = match scaled {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$} {}", BYTE_UNITS[unit])
}

/// `2026-11-22 14:50 UTC`, of seconds since 1970.
pub fn utc(unix_s: u64) -> String {
    let (mut days, minutes) = (unix_s / 86_400, unix_s % 86_400 / 60);
    // Years begin in March here, so that a leap day is the last one; an era of 400 of them has always the same length.
    days += 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// A rate without needless digits: `10`, `0.5`.
pub fn rate(per_second: f64) -> String {
    if per_second.fract() == 0.0 { count(per_second as u64) } else { per_second.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(parse_rate("5000/s"), Ok(5000.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for wrong in ["", "0", "-1", "5/m", "fast", "inf", "NaN", "/s"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("60"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "0s", "-1s", "1d", "1e400s", "ten", "1 s", "5µs"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("200"), Ok(200));
        assert_eq!(parse_bytes("16k"), Ok(16 << 10));
        assert_eq!(parse_bytes("1MB"), Ok(1 << 20));
        for wrong in ["", "k", "-1", "1.5k", "1g", "99999999999999999999m"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn figures_are_readable() {
        let table = [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")];
        table.iter().for_each(|&(number, text)| assert_eq!(count(number), text));
        let table = [(213_000, "0.213 ms"), (9_990_000, "9.99 ms"), (12_440_000, "12.4 ms"), (1_210_000_000, "1.21 s")];
        table.iter().for_each(|&(time, text)| assert_eq!(nanos(time), text));
        let table =
            [(999, "999 B"), (1000, "0.98 kB"), (12 << 20, "12.0 MB"), (1 << 30, "1.00 GB"), (1 << 60, "1048576 TB")];
        table.iter().for_each(|&(size, text)| assert_eq!(bytes(size), text));
    }

    #[test]
    fn times_of_other_units() {
        let table = [(0.0, "0.00 µs"), (0.84, "0.84 µs"), (12.44, "12.4 µs"), (999.4, "999 µs"), (1500.0, "1.50 ms")];
        table.iter().for_each(|&(time, text)| assert_eq!(micros(time), text));
        let table = [(10.0, "10s"), (1.5, "1.5s"), (0.3, "300ms"), (-1.0, "-1s")];
        table.iter().for_each(|&(time, text)| assert_eq!(seconds(time), text));
    }

    #[test]
    fn memory() {
        let table = [(0, "0 B"), (999, "999 B"), (1000, "0.98 kB"), (4219, "4.12 kB"), (103_284_736, "98.5 MB")];
        table.iter().for_each(|&(size, text)| assert_eq!(bytes(size), text));
        assert_eq!(bytes(u64::MAX), "16777216 TB");
    }

    #[test]
    fn dates() {
        let table = [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59 UTC"),
        ];
        table.iter().for_each(|&(time, text)| assert_eq!(utc(time), text));
    }
}
