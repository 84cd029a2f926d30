//! CSV: the seconds of a run, one a line, for spreadsheets and plotters.
//!
//! As RFC 4180 has it: a header, lines that end with CR LF, quotes where a field needs them. What was not measured is an
//! empty field.

use crate::record::{BEHIND_S, Record, Second};

const LINE_END: &str = "\r\n";

pub fn csv(record: &Record) -> String {
    let lines = record.seconds.iter().map(fields);
    std::iter::once(header()).chain(lines).map(|fields| fields.join(",") + LINE_END).collect()
}

fn header() -> Vec<String> {
    let front = ["at_s", "phase", "connected", "published", "delivered", "deliveries_per_s", "last_max_ms"];
    let behind = BEHIND_S.iter().map(|bound| format!("behind_up_to_{bound}_s"));
    let beyond = format!("behind_over_{}_s", BEHIND_S[BEHIND_S.len() - 1]);
    let back = ["server_cpu_cores", "server_resident_bytes", "generator_cpu_cores"];
    let front = front.into_iter().map(str::to_owned).chain(behind).chain([beyond]);
    front.chain(back.into_iter().map(str::to_owned)).collect()
}

fn fields(second: &Second) -> Vec<String> {
    let mut fields = vec![
        second.at_s.to_string(),
        quoted(&second.phase),
        second.connected.to_string(),
        second.published.to_string(),
        second.delivered.to_string(),
        second.per_second.to_string(),
        known(second.last_max_ms),
    ];
    fields.extend((0..=BEHIND_S.len()).map(|class| known(second.behind.get(class))));
    fields.extend([known(second.server_cpu), known(second.server_resident), known(second.generator_cpu)]);
    fields
}

fn known(figure: Option<impl ToString>) -> String {
    figure.map_or_else(String::new, |figure| figure.to_string())
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what RFC 4180 allows.
    fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut lines, mut line, mut field) = (Vec::new(), Vec::new(), String::new());
        let mut inside = false;
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '"' if inside && letters.peek() == Some(&'"') => field.extend(letters.next()),
                '"' => inside = !inside,
                ',' if !inside => line.push(std::mem::take(&mut field)),
                '\r' if !inside => {
                    assert_eq!(letters.next(), Some('\n'), "a line ends with both");
                    line.push(std::mem::take(&mut field));
                    lines.push(std::mem::take(&mut line));
                }
                letter => field.push(letter),
            }
        }
        assert!(field.is_empty() && line.is_empty(), "the last line has an end");
        lines
    }

    #[test]
    fn one_line_per_second() {
        let text = csv(&Record::example());
        let begin = "at_s,phase,connected,published,delivered,deliveries_per_s,last_max_ms,\
                     behind_up_to_1_s,behind_up_to_2_s,behind_up_to_3_s,behind_up_to_5_s,behind_up_to_10_s,\
                     behind_over_10_s,server_cpu_cores,server_resident_bytes,generator_cpu_cores\r\n\
                     1,connecting,1000,0,0,0,,1000,0,0,0,0,0,0.25,20774912,0.5\r\n\
                     2,measuring,1000,10,10000,10000,18.5,990,10,0,0,0,0,0.125,21000000,0.25\r\n\
                     3,measuring,1000,20,19999,9999,12,999,0,1,0,0,0,,,\r\n";
        assert!(text.starts_with(begin), "{text}");
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn it_parses_back_whatever_the_phase_is_called() {
        let mut record = Record::example();
        for phase in ["a,b", "say \"hi\"", "two\r\nlines", "", "\""] {
            record.seconds[0].phase = phase.to_owned();
            record.seconds[1].behind.clear();
            let lines = parse(&csv(&record));
            assert_eq!(lines.len(), 5);
            assert!(lines.iter().all(|line| line.len() == 16), "{lines:?}");
            assert_eq!(lines[1][1], phase);
            assert_eq!(lines[2][7..13], [""; 6]);
        }
    }

    #[test]
    fn a_run_without_a_second_is_its_header() {
        assert_eq!(parse(&csv(&Record::nothing())).len(), 1);
    }
}
