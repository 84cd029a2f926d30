//! HTML: a run as one page that needs nothing but itself: no network, no fonts, no library.
//!
//! ```text
//!     page.html ─▶ {{places}} ◀─┬─ verdict, figures, tables    (here)
//!                               ├─ charts                      (over_time, delays)
//!                               └─ the record itself, as JSON
//! ```
//!
//! Everything is there without a script; that only shows values under the pointer, copies and saves.
//!
//! Whatever comes from the record goes through [`escape`] or [`escape_json`]; places are filled in one pass, so a text
//! that looks like a place stays a text.

use super::{audience, delays, over_time};
use crate::record::{Fault, Quantiles, Record, Verdict};
use crate::units::{bytes, count, micros, millis, rate, seconds, utc};
use std::borrow::Cow;

const PAGE: &str = include_str!("page.html");
/// For what was not measured.
const ABSENT: &str = "–";

pub fn html(record: &Record) -> String {
    fill(PAGE, |place| match place {
        "title" => escape(&title(record)).into_owned(),
        "class" => record.verdict().word().to_lowercase(),
        "verdict" => record.verdict().word().to_owned(),
        "what" => what(record),
        "sentence" => escape(&sentence(record)).into_owned(),
        "reasons" => reasons(record),
        "figures" => figures(record),
        "over_time" => over_time::charts(record),
        "delays" => delays::charts(&record.delays_ms),
        "quantiles" => quantiles(record),
        "faults" => faults(record),
        "limits" => limits(record),
        "server" => server(record),
        "generator" => generator(record),
        "plan" => plan(record),
        "command" => escape(&record.command).into_owned(),
        "version" => env!("CARGO_PKG_VERSION").to_owned(),
        "record" => escape_json(&serde_json::to_string(record).expect("a record is numbers and texts")),
        place => unreachable!("the page has no place {place}"),
    })
}

/// Replaces each `{{place}}`.
fn fill(page: &str, content: impl Fn(&str) -> String) -> String {
    let mut pieces = page.split("{{");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (place, text) = piece.split_once("}}").expect("each place of the page is closed");
        out += &content(place);
        out += text;
    }
    out
}

/// Text for an element or a quoted attribute.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            letter => out.push(letter),
        }
    }
    Cow::Owned(out)
}

/// JSON for a `<script>`: these letters stand in its strings only, and there they may be written as numbers. So neither
/// `</script>` nor `<!--` can come up.
pub fn escape_json(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn title(record: &Record) -> String {
    let (verdict, clients) = (record.verdict().word(), count(record.plan.connections.into()));
    format!("{verdict} · {clients} clients · {}", record.plan.url)
}

/// What was tested, when and how, in a line.
fn what(record: &Record) -> String {
    let plan = &record.plan;
    let load = if plan.rate_per_s > 0.0 {
        format!("{} messages/s of {} bytes to {}", rate(plan.rate_per_s), plan.size_bytes, audience(plan.rooms))
    } else {
        "nothing published".to_owned()
    };
    let line = format!("{} · {load} · {} · {}", plan.workload, seconds(plan.duration_s), utc(record.began_unix_s));
    format!("<b>{}</b> <span>{}</span>", escape(&plan.url), escape(&line))
}

fn sentence(record: &Record) -> String {
    let (counts, ready) = (&record.counts, count(record.connecting.connected.into()));
    match record.verdict() {
        Verdict::Fail => match (&record.error, record.failures.len()) {
            (Some(error), _) => sentence_of(error),
            (None, 1) => "One promise was broken.".to_owned(),
            (None, broken) => format!("{broken} promises were broken."),
        },
        Verdict::Invalid => {
            "The delays are the generator’s and say little about the server; the counts are exact.".to_owned()
        }
        Verdict::Interrupted => "Interrupted; nothing was wrong until then.".to_owned(),
        Verdict::Pass if counts.expected == 0 => format!("{ready} clients connected; nothing was published."),
        Verdict::Pass => {
            let limits = if record.plan.limits.is_empty() { "" } else { ", and every limit was kept" };
            format!("All {} deliveries came, once and in order{limits}.", count(counts.expected))
        }
    }
}

/// With a capital and a full stop.
fn sentence_of(line: &str) -> String {
    let mut letters = line.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>() + ".").unwrap_or_default()
}

fn reasons(record: &Record) -> String {
    let invalid = record.invalid.iter().filter(|_| !record.valid).map(|reason| format!("invalid: {reason}"));
    let lines = record.failures.iter().cloned().chain(invalid);
    let items: String = lines.map(|line| format!("<li>{}</li>", escape(&line))).collect();
    if items.is_empty() { items } else { format!("<ul class=\"reasons\">{items}</ul>") }
}

/// The figures that one looks for first, large.
fn figures(record: &Record) -> String {
    let Record { plan, connecting, counts, faults, server, .. } = record;
    let last = &record.delays_ms.last.quantiles;
    let server = server.as_ref();
    let cpu = server.and_then(|server| server.cpu_per_delivery_us);
    let connect = server.and_then(|server| server.cpu_per_connect_us);
    let most = server.and_then(|server| server.resident_max);
    let published = counts.published > 0;
    let planned = count(plan.connections.into());
    let unless = |known: bool, note: String, why: &str| if known { note } else { why.to_owned() };
    let not_measured = || "not measured".to_owned();
    [
        figure(
            "Connections",
            Some(count(connecting.connected.into())),
            unless(
                connecting.connected > 0,
                format!("of {planned} in {}", millis(connecting.seconds * 1e3)),
                &format!("of {planned}"),
            ),
        ),
        figure(
            "Deliveries per second",
            published.then(|| count(counts.per_second)),
            unless(
                published,
                format!("{} of {} came", count(counts.delivered), count(counts.expected)),
                "nothing was published",
            ),
        ),
        figure(
            "Last receiver, p99",
            (last.samples > 0).then(|| millis(last.p99)),
            unless(
                last.samples > 0,
                format!("{} (p50), {} (max)", millis(last.p50), millis(last.max)),
                "no message reached everyone",
            ),
        ),
        figure(
            "Lost",
            published.then(|| count(faults.lost.count)),
            unless(
                published,
                format!("{} doubled, {} reordered", count(faults.doubled.count), count(faults.reordered.count)),
                "nothing was published",
            ),
        ),
        figure(
            "Server CPU per delivery",
            cpu.map(micros),
            connect.map_or_else(not_measured, |time| format!("{} per client to connect", micros(time))),
        ),
        figure(
            "Server memory per client",
            record.memory_per_client().map(bytes),
            most.map_or_else(not_measured, |size| format!("{} at most, in all", bytes(size))),
        ),
    ]
    .concat()
}

fn figure(name: &str, value: Option<String>, note: String) -> String {
    let value = match value.as_deref().map(|value| value.split_once(' ').unwrap_or((value, ""))) {
        Some((number, unit)) => format!("<b>{number}</b><span>{unit}</span>"),
        None => format!("<b class=\"absent\">{ABSENT}</b>"),
    };
    format!("<div><dt>{name}</dt><dd>{value}<p>{note}</p></dd></div>\n")
}

/// A table whose first column names its rows; the others hold numbers when `numbers` says so.
fn table(caption: &str, head: &[&str], rows: &[Vec<String>], class: &str) -> String {
    let head: String = head.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let rows = rows.iter().map(|row| {
        let (name, cells) = row.split_first().expect("a row has a name");
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(name))
    });
    let rows: String = rows.collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"{class}\"><caption>{caption}</caption>\
         <thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
}

fn quantiles(record: &Record) -> String {
    let delays = record.delays_ms.named().map(|(name, spread)| (delays::said(name).to_owned(), &spread.quantiles));
    let back = record.moved.as_ref().map(|moved| (format!("back after {}", moved.kind), &moved.back_ms));
    let handshake = ("handshake".to_owned(), &record.connecting.handshake_ms);
    let late = ("published late".to_owned(), &record.generator.late_ms);
    let rows =
        delays.into_iter().chain([handshake]).chain(back).chain([late]).map(|(name, times)| times_row(name, times));
    let head = ["", "p50", "p90", "p99", "p99.9", "max", "samples"];
    table("Quantiles", &head, &rows.collect::<Vec<_>>(), "numbers")
}

fn times_row(name: String, times: &Quantiles) -> Vec<String> {
    let written = |time: f64| if times.samples > 0 { millis(time) } else { ABSENT.to_owned() };
    [name].into_iter().chain(times.values().map(written)).chain([count(times.samples)]).collect()
}

fn faults(record: &Record) -> String {
    let row = |name: &str, said: &str, fault: &Fault| {
        let first = fault.first.as_ref();
        let first =
            first.map_or(ABSENT.to_owned(), |first| format!("client {}, message {}", first.client, first.message));
        vec![name.to_owned(), count(fault.count), said.to_owned(), first]
    };
    let said = ["never came", "came again", "came too late", "came to a client of another room"];
    let faults = record.faults.named().into_iter().zip(said);
    let mut rows: Vec<_> = faults.map(|((name, fault), said)| row(name, said, fault)).collect();
    let closed = ["closed".to_owned(), count(record.counts.closed), "clients that the server ended".to_owned()];
    rows.push(closed.into_iter().chain([ABSENT.to_owned()]).collect());
    table("Faults", &["", "count", "deliveries that", "first seen"], &rows, "")
}

fn limits(record: &Record) -> String {
    if record.plan.limits.is_empty() {
        return String::new();
    }
    let rows = record.plan.limits.iter().map(|limit| {
        let failure = record.failures.iter().find_map(|line| line.strip_prefix(&format!("limit {limit}: ")));
        let outcome = match failure {
            Some(failure) => format!("✕ broken: {failure}"),
            None if record.counts.published == 0 => "nothing was published".to_owned(),
            None => "✓ kept".to_owned(),
        };
        vec![limit.clone(), outcome]
    });
    table("Limits", &["limit", "outcome"], &rows.collect::<Vec<_>>(), "")
}

fn server(record: &Record) -> String {
    let Some(server) = &record.server else {
        return facts("Server", vec![("watched", "no".to_owned())]);
    };
    let absent = || ABSENT.to_owned();
    let mut rows = vec![
        ("CPU in all", server.cpu_s.map_or_else(absent, |time| millis(time * 1e3))),
        ("CPU per delivery", server.cpu_per_delivery_us.map_or_else(absent, micros)),
        ("CPU per client that connected", server.cpu_per_connect_us.map_or_else(absent, micros)),
        ("memory before", server.resident_before.map_or_else(absent, bytes)),
        ("memory with all clients", server.resident_connected.map_or_else(absent, bytes)),
        ("memory at most", server.resident_max.map_or_else(absent, bytes)),
        ("memory per client", record.memory_per_client().map_or_else(absent, bytes)),
    ];
    rows.extend(server.trouble.clone().map(|trouble| ("trouble", trouble)));
    facts("Server", rows)
}

fn generator(record: &Record) -> String {
    let generator = &record.generator;
    let threads = &generator.threads;
    let rows = threads.iter().enumerate().map(|(at, thread)| {
        let name = if at + 1 == threads.len() { "publisher".to_owned() } else { format!("clients {}", at + 1) };
        let (cpu, busy) = (format!("{:.0} %", thread.cpu * 100.0), format!("{:.0} %", thread.busy * 100.0));
        vec![name, cpu, busy, millis(thread.lag_ms.p99), millis(thread.lag_ms.max)]
    });
    let rows: Vec<_> = rows.collect();
    let head = ["thread", "CPU", "with waiting for a core", "lag p99", "lag max"];
    let mut tables = if rows.is_empty() { String::new() } else { table("Generator", &head, &rows, "numbers") };
    if !generator.workers.is_empty() {
        let rows = generator.workers.iter().map(|worker| {
            let offset = format!("{:+.3} ms ± {}", worker.offset_ms, millis(worker.uncertainty_ms));
            vec![worker.address.clone(), count(worker.connections.into()), offset]
        });
        tables += &table("Other generators", &["address", "clients", "clock"], &rows.collect::<Vec<_>>(), "numbers");
    }
    tables
}

fn plan(record: &Record) -> String {
    let Record { plan, machine, generator, moved, .. } = record;
    let mut rows = vec![
        ("URL", plan.url.clone()),
        ("workload", plan.workload.clone()),
        ("protocol", format!("{} over {}", plan.protocol, plan.transport)),
        ("namespace", plan.namespace.clone()),
        ("clients", format!("{}, {}/s", count(plan.connections.into()), rate(plan.ramp_per_s))),
        ("to", audience(plan.rooms)),
        ("published by", plan.publish.clone()),
        (
            "messages",
            format!("{}, {}/s of {} bytes", count(plan.messages.into()), rate(plan.rate_per_s), plan.size_bytes),
        ),
        ("duration", seconds(plan.duration_s)),
        ("seed", plan.seed.to_string()),
    ];
    rows.extend(moved.as_ref().map(|moved| {
        ("moved", format!("{}: {} clients, {} times", moved.kind, count(moved.clients.into()), count(moved.moves)))
    }));
    rows.extend([
        ("machine", format!("{} cores, {}", machine.cores, machine.system)),
        ("generator’s memory", bytes(generator.memory_bytes)),
    ]);
    facts("Plan and machine", rows)
}

/// Names and what they are.
fn facts(caption: &str, rows: Vec<(&str, String)>) -> String {
    let rows = rows.into_iter().map(|(name, value)| {
        let value = if value.is_empty() { ABSENT.into() } else { escape(&value) };
        format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")
    });
    let rows: String = rows.collect();
    format!("<section class=\"facts\"><h3>{caption}</h3><dl>{rows}</dl></section>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    type Change = fn(&mut Record);

    /// The page between two marks.
    fn between<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
        let (_, rest) = page.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
        rest.split_once(end).unwrap_or_else(|| panic!("no {end}")).0
    }

    #[test]
    fn places_are_filled_once() {
        let filled = fill("a{{x}}b{{y}}c", |place| if place == "x" { "{{y}}".to_owned() } else { "1".to_owned() });
        assert_eq!(filled, "a{{y}}b1c");
    }

    #[test]
    fn the_page_has_the_record_in_it() {
        let record = Record::example();
        let page = html(&record);
        let json = between(&page, "<script type=\"application/json\" id=\"record\">", "</script>");
        let value: Record = serde_json::from_str(json).expect("it is JSON");
        assert_eq!(value, record);
    }

    #[test]
    fn it_shows_what_the_run_was() {
        let page = html(&Record::example());
        for part in [
            "<title>FAIL · 1,000 clients · http://127.0.0.1:3000/socket.io/</title>",
            "One promise was broken.",
            "<li>lost: 1 of 30,000 deliveries never came; client 17 missed message 12</li>",
            "<b>18.5</b><span>ms</span>",
            "<td>client 17, message 12</td>",
            "<td>✓ kept</td>",
            "2026-12-31 23:59 UTC",
            "--limit &#39;last-p99&lt;100ms,lost=0&#39;",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn sentences() {
        let pass = Record { failures: Vec::new(), ..Record::example() };
        let with = |change: Change| {
            let mut record = pass.clone();
            change(&mut record);
            sentence(&record)
        };
        let table: [(Change, &str); 7] = [
            (|_| (), "All 30,000 deliveries came, once and in order, and every limit was kept."),
            (|record| record.plan.limits.clear(), "All 30,000 deliveries came, once and in order."),
            (|record| record.counts.expected = 0, "1,000 clients connected; nothing was published."),
            (|record| record.failures = vec![String::new(); 2], "2 promises were broken."),
            (|record| record.error = Some("cannot reach it".to_owned()), "Cannot reach it."),
            (|record| record.interrupted = true, "Interrupted; nothing was wrong until then."),
            (
                |record| record.valid = false,
                "The delays are the generator’s and say little about the server; the counts are exact.",
            ),
        ];
        table.into_iter().for_each(|(change, line)| assert_eq!(with(change), line));
    }

    /// Every text becomes what would do harm.
    fn hostile(value: &mut Value) {
        match value {
            Value::Object(fields) => fields.values_mut().for_each(hostile),
            Value::Array(items) => items.iter_mut().for_each(hostile),
            Value::String(text) => *text = "</script><!--<script>\"'&{{record}}<b onclick=x>".to_owned(),
            _ => {}
        }
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        let mut value = serde_json::to_value(Record::example()).expect("it is JSON");
        value["valid"] = false.into();
        value["invalid"] = "".into();
        value["error"] = "".into();
        value["server"]["trouble"] = "".into();
        hostile(&mut value);
        let record: Record = serde_json::from_value(value).expect("it is a record");
        let (page, tame) = (html(&record), html(&Record::example()));
        for mark in ["<script", "</script", "<!--", "<b onclick"] {
            assert_eq!(page.matches(mark).count(), tame.matches(mark).count(), "{mark}");
        }
        let json = between(&page, "<script type=\"application/json\" id=\"record\">", "</script>");
        assert_eq!(serde_json::from_str::<Record>(json).expect("it is JSON"), record);
    }

    #[test]
    fn nothing_measured_is_said_so() {
        let page = html(&Record::nothing());
        let (visible, _) =
            page.split_once("<script type=\"application/json\" id=\"record\">").expect("it is at the end");
        for odd in ["NaN", "inf", "null", "undefined"] {
            assert!(!visible.contains(odd), "{odd}");
        }
        assert!(
            visible.contains("The run ended before its first second.") && visible.contains("Nothing was delivered.")
        );
        assert_eq!(visible.matches("<b class=\"absent\">–</b>").count(), 5, "each figure but connections");
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let page = html(&Record::nothing());
        for outside in ["src=", "href=\"http", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("default-src 'none'"));
    }
}
