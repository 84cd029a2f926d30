//! Units: rates, durations, sizes and counts as people write and read them.

use crate::clock::Nanos;
use std::time::Duration;

/// `5000/s`, or plain `5000`.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write a rate as 10 or 10/s, above zero".to_owned()),
    }
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
    }
}
