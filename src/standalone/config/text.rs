//! Text: how durations, sizes and strings are written, and read back.
//!
//! What is written here is read here: `read_duration(write_duration(d))` is `d`, for whole milliseconds.

use std::time::Duration;

const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 6] =
    [("GiB", 1 << 30), ("GB", 1_000_000_000), ("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10), ("KB", 1_000)];

/// "25s", "500ms", "2m", "1h"; `None` for anything else.
pub fn read_duration(text: &str) -> Option<Duration> {
    read_with_unit(text, &TIME_UNITS).map(Duration::from_millis)
}

/// "1MB", "64KiB"; `None` for anything else.
pub fn read_size(text: &str) -> Option<u64> {
    read_with_unit(text, &SIZE_UNITS)
}

pub fn write_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        "0s".into()
    } else {
        write_with_unit(ms, &TIME_UNITS).expect("every whole millisecond divides by 1 ms")
    }
}

/// With the largest unit that divides it; `None` if none does.
pub fn write_size(bytes: u64) -> Option<String> {
    write_with_unit(bytes, &SIZE_UNITS)
}

/// A TOML basic string, quotes included; also how messages show what was given.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Digits and a unit, nothing between. More digits than fit count as the largest number: that is out of every range,
/// and "out of range" is the message such a value deserves.
fn read_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    if number.is_empty() {
        return None;
    }
    Some(number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*scale))
}

fn write_with_unit(number: u64, units: &[(&str, u64)]) -> Option<String> {
    let (unit, scale) = units.iter().find(|(_, scale)| number > 0 && number.is_multiple_of(*scale))?;
    Some(format!("{}{unit}", number / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for ms in (0..5_000).chain([60_000, 61_000, 90_000, 3_600_000, 5_400_000]) {
            let duration = Duration::from_millis(ms);
            assert_eq!(read_duration(&write_duration(duration)), Some(duration));
        }
        for bytes in (1..70_000).chain([1_000_000, 4 << 20, 64_000_000, 3_000_000_000, 1 << 30]) {
            if let Some(text) = write_size(bytes) {
                assert_eq!(read_size(&text), Some(bytes));
            }
        }
    }

    #[test]
    fn the_largest_unit_that_divides_is_written() {
        assert_eq!(write_duration(Duration::from_millis(90_000)), "90s");
        assert_eq!(write_duration(Duration::from_secs(3600)), "1h");
        assert_eq!(write_duration(Duration::ZERO), "0s");
        assert_eq!(write_size(1_000_000).as_deref(), Some("1MB"));
        assert_eq!(write_size(4 << 20).as_deref(), Some("4MiB"));
        assert_eq!(write_size(1_500).as_deref(), None);
    }

    #[test]
    fn a_number_needs_digits_and_exactly_one_known_unit() {
        for text in ["", "s", "25", "25 s", "25S", "2.5s", "-1s", "+1s", "25ss", "25µs", " 25s", "٢s"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
        for text in ["", "MB", "1", "1 MB", "1mb", "1M", "1.5MB", "1TB"] {
            assert_eq!(read_size(text), None, "{text}");
        }
        assert_eq!(read_size("99999999999999999999999MB"), Some(u64::MAX));
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n\t\u{1b}\u{7f}é"), r#""a\"b\\c\n\t\u001B\u007Fé""#);
    }
}
