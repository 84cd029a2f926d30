//! Records that were kept are shown and compared without a server.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A record as `--json` writes it.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/runs/record.json");

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().expect("it was built")
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A path for a file that a test writes.
fn temporary(name: &str) -> String {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name).display().to_string()
}

#[test]
fn show_prints_the_summary_and_writes_the_others() {
    let (page, lines) = (temporary("shown.html"), temporary("shown.csv"));
    let (code, text, error) = texts(&loadtest(&["show", RECORD, "--html", &page, "--csv", &lines]));
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(text.contains("  delivered   29,999 of 30,000, 9,999/s\n"), "{text}");
    let page = std::fs::read_to_string(page).expect("a page was written");
    assert!(page.starts_with("<!doctype html>") && page.contains("client 17 missed message 12"), "{page}");
    let lines = std::fs::read_to_string(lines).expect("lines were written");
    assert_eq!(lines.matches("\r\n").count(), 5, "{lines}");
}

#[test]
fn compare_says_what_differs() {
    let other = temporary("other.json");
    let record = std::fs::read_to_string(RECORD).expect("it is there");
    let changed = record.replacen("\"rate_per_s\": 10.0", "\"rate_per_s\": 20.0", 1);
    let changed = changed.replacen("\"cpu_per_delivery_us\": 1.24", "\"cpu_per_delivery_us\": 0.62", 1);
    std::fs::write(&other, changed).expect("the folder is there");
    let (code, text, error) = texts(&loadtest(&["--compare", RECORD, &other]));
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(text.contains("may their figures:\n                 A     B\n  rate_per_s     10.0  20.0\n\n"), "{text}");
    assert!(text.contains("\n  CPU per delivery          1.24 µs      0.62 µs     0.50  better\n"), "{text}");
}

#[test]
fn a_file_that_cannot_be_shown_is_one_line() {
    let (noise, newer) = (temporary("noise.json"), temporary("newer.json"));
    std::fs::write(&noise, "hello").expect("the folder is there");
    std::fs::write(&newer, "{\"format\": 99}").expect("the folder is there");
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let table: [(&[&str], String); 5] = [
        (
            &["show", "/nowhere/a.json"],
            "cannot read /nowhere/a.json: no such file or directory; name a file that --json wrote".to_owned(),
        ),
        (
            &["show", &noise],
            format!("{noise} is not JSON: expected value at line 1 column 1; name a file that --json wrote"),
        ),
        (
            &["--compare", RECORD, &newer],
            format!("{newer} has format 99, known is 1; show it with the loadtest that wrote it"),
        ),
        (
            &["--compare", other, RECORD],
            format!("{other} is not JSON: expected value at line 1 column 2; name a file that --json wrote"),
        ),
        (
            &["show", RECORD, "--html", "/nowhere/a.html"],
            "cannot write the report to /nowhere/a.html: no such file or directory; correct --html".to_owned(),
        ),
    ];
    for (arguments, line) in table {
        let (code, _, error) = texts(&loadtest(arguments));
        assert_eq!((code, error), (Some(2), format!("loadtest: {line}\n")));
    }
}
