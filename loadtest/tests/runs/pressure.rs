//! What happens under pressure: a server that closes its clients, or that publishers are too fast for.

use crate::hall::{Fault, hall};
use crate::relay::{self, loadtest, relay};
use crate::workloads::{command, start_until, temporary};
use serde_json::{Value, json};
use std::io::Read;

const RETURN: &str = "connections = 12\nrate = 0\nduration = \"5s\"\n\
                      [motion]\nkind = \"return\"\nshare = 1.0\nafter = \"200ms\"";

/// Closes all clients of a run while they are held, and gives its exit code, its report and its record.
fn close_while_held(name: &str, then: bool) -> (Option<i32>, String, Value, [usize; 2]) {
    let (first, second) = (hall(Fault::None), hall(Fault::None));
    let record = temporary(&format!("{name}.json"));
    let mut command = command(first.address, name, RETURN);
    command.args(["--json", &record]);
    if then {
        command.args(["--then", &format!("http://{}", second.address)]);
    }
    let (mut child, mut lines, mut text) = start_until(command, " published ");
    let before = first.connected();
    first.close();
    lines.read_to_string(&mut text).expect("it is text");
    let code = child.wait().expect("it ends").code();
    let json = std::fs::read_to_string(&record).unwrap_or_else(|error| panic!("{record}: {error}: {text}"));
    let json = serde_json::from_str(&json).expect("the record is JSON");
    (code, text, json, [first.connected() - before, second.connected()])
}

#[test]
fn clients_that_a_server_closes_go_on_to_the_next_one() {
    let (code, text, json, [again, elsewhere]) = close_while_held("then", true);
    assert_eq!((code, again), (Some(0), 0), "{text}");
    // One connection more finds out whether the server is there.
    assert_eq!(elsewhere, 13, "{text}");
    let moved = &json["moved"];
    assert_eq!((&moved["kind"], &moved["moves"], &moved["away"]), (&"return".into(), &12.into(), &0.into()), "{text}");
    assert_eq!((&moved["refused"], &moved["back_ms"]["samples"]), (&0.into(), &12.into()), "{text}");
    assert_eq!(moved["left"]["per_s"], json!([12]), "all in one second");
    assert_eq!(
        moved["back"]["per_s"].as_array().map(|seconds| seconds.iter().filter_map(Value::as_u64).sum()),
        Some(12)
    );
    // Each waits for 100 to 300 ms.
    assert!(moved["back_ms"]["p50"].as_f64().is_some_and(|millis| millis >= 100.0), "{moved}");
    assert_eq!((&json["counts"]["closed"], &json["error"]), (&0.into(), &Value::Null), "{text}");
    assert!(json["plan"]["then"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{}", json["plan"]);
}

#[test]
fn clients_that_a_server_closes_come_back_to_it_where_there_is_no_other() {
    let (code, text, json, [again, elsewhere]) = close_while_held("back", false);
    assert_eq!((code, again, elsewhere), (Some(0), 12, 0), "{text}");
    assert_eq!((&json["moved"]["moves"], &json["moved"]["away"]), (&12.into(), &0.into()), "{text}");
    assert!(text.contains("  moved       return: 12 clients, 12 times; back in "), "{text}");
}

// ---- publishing

/// A run of 5 clients against a server that publishes over HTTP: its exit code, its report and its record.
fn publish(name: &str, fault: relay::Fault, flags: &str) -> (Option<i32>, String, Value) {
    let record = temporary(&format!("{name}.json"));
    let flags = format!("--connections 5 --room ticker --header X-Token:t --duration 500ms --json {record} {flags}");
    let output = loadtest(relay(fault, 1), &flags.split(' ').collect::<Vec<_>>());
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let json = std::fs::read_to_string(&record).unwrap_or_else(|error| panic!("{record}: {error}: {text}"));
    (output.status.code(), text, serde_json::from_str(&json).expect("the record is JSON"))
}

#[test]
fn what_a_busy_server_refuses_is_counted_and_not_lost() {
    let (code, text, json) = publish("busy", relay::Fault::ApiBusy, "--rate 100/s");
    let counts = &json["counts"];
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((&counts["published"], &counts["refused"], &counts["delivered"]), (&50.into(), &5.into(), &225.into()));
    assert_eq!((&counts["awaited"], &counts["complete"]), (&45.into(), &45.into()), "{text}");
    assert!(text.contains("50 of 50 messages; 5 refused, to be tried again later"), "{text}");
    // A second is waited for after the first refusal, and what was due meanwhile tells of it.
    assert!(json["delays_ms"]["delivery"]["max"].as_f64().is_some_and(|millis| millis > 500.0), "{text}");
}

/// Two rounds of four keys are held together: half of the messages are left out, and those that come are the last.
#[test]
fn only_the_newest_value_of_a_key_has_to_arrive() {
    let (code, text, json) = publish("conflates", relay::Fault::ApiConflates, "--rate 192/s --keys 4");
    let counts = &json["counts"];
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        (&counts["published"], &counts["delivered"], &counts["conflated"]),
        (&96.into(), &240.into(), &240.into())
    );
    assert_eq!((&counts["awaited"], &counts["complete"]), (&48.into(), &48.into()), "{text}");
    assert!(text.contains("240 conflated, of 4 keys"), "{text}");
}

#[test]
fn an_old_value_in_the_place_of_the_newest_is_found() {
    let (code, text, json) = publish("oldest", relay::Fault::ApiKeepsOldest, "--rate 192/s --keys 4");
    assert_eq!((code, &json["faults"]["lost"]["count"]), (Some(1), &20.into()), "four keys of five clients: {text}");
    let line = "FAIL lost: 20 of 260 deliveries of a key's newest value never came; client ";
    assert!(text.contains(line) && text.contains(" missed message 92"), "{text}");
}

#[test]
fn a_workload_with_keys_can_be_published_without() {
    let (code, text, json) = publish("unkeyed", relay::Fault::Api, "--workload conflate --keys 0 --rate 100/s");
    assert_eq!(
        (code, &json["counts"]["delivered"], &json["plan"]["keys"]),
        (Some(0), &250.into(), &0.into()),
        "{text}"
    );
}
