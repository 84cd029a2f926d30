//! Prometheus: the two figures that we want, in the text that a server shows to Prometheus.
//!
//! ```text
//!     # TYPE process_cpu_seconds_total counter
//!     process_cpu_seconds_total{pid="7"} 12.34 1700000000000
//!     name                     labels    value time
//! ```
//!
//! The names are those of the official client libraries. Some servers put a name of their own in front; that is the
//! same figure when it is the only one.

use std::time::Duration;

const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";

/// CPU time and resident bytes, or what is wrong with the text.
pub fn parse(text: &str) -> Result<(Duration, u64), String> {
    let cpu = figure(text, CPU)?;
    let cpu = Duration::try_from_secs_f64(cpu).map_err(|_| no_figure(CPU, cpu))?;
    let resident = figure(text, RESIDENT)?;
    // Below 2^53 every whole number has its own f64, and no machine has more bytes.
    if !(0.0..9e15).contains(&resident) {
        return Err(no_figure(RESIDENT, resident));
    }
    Ok((cpu, resident as u64))
}

fn no_figure(name: &str, value: f64) -> String {
    format!("{name} is {value}")
}

/// The value of `name`, or else of the only name that ends with `_name`.
fn figure(text: &str, name: &str) -> Result<f64, String> {
    let exact = values(text, |found| found == name);
    let prefixed = || values(text, |found| found.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('_')));
    let found = if exact.is_empty() { prefixed() } else { exact };
    match found[..] {
        [value] => value.parse().map_err(|_| format!("{name} is '{value}', which is no number")),
        [] => Err(format!("it has no {name}")),
        _ => Err(format!("it has {name} {} times", found.len())),
    }
}

fn values(text: &str, mut wanted: impl FnMut(&str) -> bool) -> Vec<&str> {
    lines(text).filter_map(sample).filter(|(name, _)| wanted(name)).map(|(_, value)| value).collect()
}

/// Whole lines only: the last one of a text that was cut may end in the middle of a number.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::trim)
}

/// Name and value of a line; `None` for comments and for what is no sample.
fn sample(line: &str) -> Option<(&str, &str)> {
    let end = line.find(|letter: char| letter == '{' || letter.is_whitespace()).filter(|end| *end > 0)?;
    let (name, rest) = line.split_at(end);
    let rest = match rest.trim_start().strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => rest,
    };
    let value = rest.split_whitespace().next()?;
    (!name.starts_with('#')).then_some((name, value))
}

/// What follows the closing brace; those in quoted values, and quotes behind a backslash, mean nothing.
fn after_labels(labels: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in labels.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(&labels[at + 1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cpu: &str, resident: &str) -> Result<(Duration, u64), String> {
        parse(&format!("# HELP a b\n# TYPE process_cpu_seconds_total counter\n{cpu}\nother 1\n\n{resident}\n"))
    }

    #[test]
    fn figures_in_all_their_forms() {
        let memory = "process_resident_memory_bytes 1048576";
        for (cpu, seconds) in [
            ("process_cpu_seconds_total 12.5", 12.5),
            ("process_cpu_seconds_total 1.25e+01", 12.5),
            ("  process_cpu_seconds_total\t0  ", 0.0),
            ("process_cpu_seconds_total 12.5 1700000000000", 12.5),
            ("process_cpu_seconds_total{} 12.5", 12.5),
            ("process_cpu_seconds_total{app=\"a\",} 12.5", 12.5),
            ("process_cpu_seconds_total {app=\"a } 7\", b=\"\\\"} 8\"} 12.5", 12.5),
            ("myapp_process_cpu_seconds_total 12.5", 12.5),
            ("a_process_cpu_seconds_total 1\nb_process_cpu_seconds_total 2\nprocess_cpu_seconds_total 12.5", 12.5),
            ("process_cpu_seconds_total 12.5\r", 12.5),
        ] {
            assert_eq!(with(cpu, memory), Ok((Duration::from_secs_f64(seconds), 1 << 20)), "{cpu}");
        }
        let cpu = "process_cpu_seconds_total 1";
        for (memory, bytes) in
            [("process_resident_memory_bytes 4.8e+07", 48_000_000), ("x_process_resident_memory_bytes{a=\"\"} 5", 5)]
        {
            assert_eq!(with(cpu, memory), Ok((Duration::from_secs(1), bytes)), "{memory}");
        }
    }

    #[test]
    fn what_is_no_figure_says_so() {
        let (cpu, memory) = ("process_cpu_seconds_total 1", "process_resident_memory_bytes 1");
        for (cpu, memory, problem) in [
            ("", memory, "it has no process_cpu_seconds_total"),
            ("# process_cpu_seconds_total 1", memory, "it has no process_cpu_seconds_total"),
            ("myprocess_cpu_seconds_total 1", memory, "it has no process_cpu_seconds_total"),
            ("process_cpu_seconds_total{a=\"b 1", memory, "it has no process_cpu_seconds_total"),
            ("process_cpu_seconds_total", memory, "it has no process_cpu_seconds_total"),
            ("process_cpu_seconds_total NaN", memory, "process_cpu_seconds_total is NaN"),
            ("process_cpu_seconds_total +Inf", memory, "process_cpu_seconds_total is inf"),
            ("process_cpu_seconds_total -1", memory, "process_cpu_seconds_total is -1"),
            ("process_cpu_seconds_total much", memory, "process_cpu_seconds_total is 'much', which is no number"),
            (
                "a_process_cpu_seconds_total 1\nb_process_cpu_seconds_total 1",
                memory,
                "it has process_cpu_seconds_total 2 times",
            ),
            (cpu, "", "it has no process_resident_memory_bytes"),
            (cpu, "process_resident_memory_bytes NaN", "process_resident_memory_bytes is NaN"),
            (cpu, "process_resident_memory_bytes 1e300", &format!("process_resident_memory_bytes is {}", 1e300)),
        ] {
            assert_eq!(with(cpu, memory), Err(problem.to_owned()));
        }
    }

    #[test]
    fn a_text_that_is_cut_gives_no_part_of_a_number() {
        let text = "process_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 1048576\n";
        assert!((0..text.len()).all(|cut| parse(&text[..cut]).is_err()));
        assert!(parse(text).is_ok());
    }
}
