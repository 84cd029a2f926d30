//! A judge must notice: one fault in ten thousand deliveries makes the run fail, and the report says which.

use crate::relay::{Fault, loadtest, relay};
use serde_json::Value;

/// 25 clients, 500 messages: 12,500 deliveries, so one fault in ten thousand happens once: delivery 10,000 is message
/// 399, counted from zero, to the client that connected last.
const FLAGS: &[&str] = &[
    "--connections",
    "25",
    "--rate",
    "500/s",
    "--duration",
    "1s",
    "--size",
    "100",
    "--publish",
    "event:pub",
    "--json",
];

struct Run {
    code: Option<i32>,
    text: String,
    json: Value,
}

fn run(name: &str, fault: Fault) -> Run {
    let file = format!("{}/{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let output = loadtest(relay(fault, 10_000), &[FLAGS, &[&file]].concat());
    let json = std::fs::read_to_string(&file).expect("a report was written");
    Run {
        code: output.status.code(),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
        json: serde_json::from_str(&json).expect("the report is JSON"),
    }
}

fn counts(json: &Value) -> [Option<u64>; 4] {
    let count = |fault: &str| json["faults"][fault]["count"].as_u64();
    [json["counts"]["delivered"].as_u64(), count("lost"), count("doubled"), count("reordered")]
}

fn client(json: &Value, fault: &str) -> u64 {
    json["faults"][fault]["first"]["client"].as_u64().expect("the first fault has its client")
}

#[test]
fn a_relay_without_fault_passes() {
    let run = run("none", Fault::None);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert_eq!(counts(&run.json), [Some(12_500), Some(0), Some(0), Some(0)]);
    assert!(run.text.ends_with("PASS\n"), "{}", run.text);
    for receiver in ["first", "median", "p99", "last"] {
        assert_eq!(run.json["delays_ms"][receiver]["samples"], 500, "{receiver}");
    }
}

#[test]
fn one_dropped_message_fails_the_run() {
    let run = run("drop", Fault::Drop);
    assert_eq!(run.code, Some(1), "{}", run.text);
    assert_eq!(counts(&run.json), [Some(12_499), Some(1), Some(0), Some(0)]);
    let client = client(&run.json, "lost");
    let line = format!("FAIL lost: 1 of 12,500 deliveries never came; client {client} missed message 399\n");
    assert!(run.text.contains(&line), "{}", run.text);
    assert!(run.text.contains("1 messages never reached everyone"), "{}", run.text);
}

#[test]
fn one_doubled_message_fails_the_run() {
    let run = run("double", Fault::Double);
    assert_eq!(run.code, Some(1), "{}", run.text);
    assert_eq!(counts(&run.json), [Some(12_500), Some(0), Some(1), Some(0)]);
    let client = client(&run.json, "doubled");
    let line = format!("FAIL doubled: 1 of 12,500 deliveries came again; client {client} received message 399 again\n");
    assert!(run.text.contains(&line), "{}", run.text);
}

#[test]
fn one_reordered_message_fails_the_run() {
    let run = run("swap", Fault::Swap);
    assert_eq!(run.code, Some(1), "{}", run.text);
    assert_eq!(counts(&run.json), [Some(12_500), Some(0), Some(0), Some(1)]);
    let client = client(&run.json, "reordered");
    let line = format!(
        "FAIL reordered: 1 of 12,500 deliveries came too late; client {client} received message 399 after a later one\n"
    );
    assert!(run.text.contains(&line), "{}", run.text);
}

#[test]
fn one_closed_client_ends_with_report_and_reason() {
    let run = run("hangup", Fault::Hangup);
    assert_eq!(run.code, Some(2), "{}", run.text);
    assert_eq!(
        (run.json["counts"]["closed"].as_u64(), run.json["faults"]["lost"]["count"].as_u64()),
        (Some(1), Some(101))
    );
    let error = run.json["error"].as_str().expect("it says what happened");
    assert!(error.starts_with("1 of 25 connections ended during the run, the first was connection "), "{error}");
    assert!(error.ends_with(": the server hung up; see the server's log"), "{error}");
}

#[test]
fn publishing_over_http_reaches_everyone_in_order() {
    let flags = "--connections 10 --rate 1000/s --duration 500ms --room ticker --header X-Token:t";
    let output = loadtest(relay(Fault::Api, 1), &flags.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("delivered   5,000 of 5,000"), "{text}");
}

#[test]
fn a_server_that_closes_the_publishers_stream_is_published_to_over_another() {
    let flags = "--connections 10 --rate 5/s --duration 1s --room ticker --header X-Token:t";
    let output = loadtest(relay(Fault::ApiOnce, 1), &flags.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("delivered   50 of 50"), "{text}");
}
