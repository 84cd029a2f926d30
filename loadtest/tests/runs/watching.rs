//! What the server spends is in the report, from its process or from its metrics.

use crate::relay::{Fault, loadtest, relay};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

/// A run against a relay in this process; gives the report's text and what its JSON says of the server.
fn run(name: &str, watch: [&str; 2]) -> (String, Value) {
    let file = format!("{}/{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let flags = ["--connections", "5", "--duration", "500ms", "--publish", "event:pub", "--json", &file];
    let output = loadtest(relay(Fault::None, 1), &[&flags[..], &watch].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("it was written")).expect("JSON");
    (text, json["server"].clone())
}

/// Metrics of a server that spends a second of CPU between any two readings.
fn metrics() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut reading = 0;
        for mut stream in listener.incoming().flatten() {
            // To see whether it accepts, somebody connects and says nothing.
            if stream.read(&mut [0; 1024]).unwrap_or(0) == 0 {
                continue;
            }
            reading += 1;
            let body = format!("process_cpu_seconds_total {reading}\nprocess_resident_memory_bytes 3.0e+06\n");
            // A client that went away is no matter of the server's.
            drop(write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}"));
        }
    });
    address
}

#[test]
fn by_its_process() {
    let (text, server) = run("process", ["--server-pid", &std::process::id().to_string()]);
    assert!(server["cpu_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{server}");
    assert!(server["resident_max"].as_u64().is_some_and(|bytes| bytes > 100_000), "{server}");
    assert_eq!(server["trouble"], Value::Null);
    assert!(text.contains("\n  server      CPU ") && text.contains(" µs per delivery, "), "{text}");
}

#[test]
fn by_its_metrics() {
    let (text, server) = run("metrics", ["--metrics", &format!("http://{}", metrics())]);
    // One reading before the first message, one after the last delivery, and perhaps one or more between.
    assert!(server["cpu_s"].as_f64().is_some_and(|seconds| seconds >= 1.0 && seconds.fract() == 0.0), "{server}");
    assert_eq!((&server["resident_connected"], &server["trouble"]), (&Value::from(3_000_000), &Value::Null));
    assert!(text.contains(", 2.86 MB with all clients, "), "{text}");
}
