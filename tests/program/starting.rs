//! Starting: what it says, which configurations it refuses, and where its log goes.

use crate::program::{KEY, Program, command, run, scratch, stderr};
use crate::support::client::Client;
use crate::support::http::Connection;
use std::io::Read as _;
use std::process::Stdio;

#[test]
fn it_says_where_it_listens_and_what_to_try_next() {
    let program = Program::start(&["--io", "send"]);
    let url = format!("http://{}", program.address);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        program.greeting,
        format!(
            "fanfare {version} listens on {url} with 2 workers, I/O: send\n\n\
             \x20 look      {url}/\n\
             \x20 connect   Socket.IO clients to {url}/socket.io/\n\
             \x20 publish   curl {url}/api/publish -d '{{\"event\":\"hello\",\"args\":[\"world\"]}}'\n\n"
        )
    );
}

#[test]
fn with_a_key_the_line_to_try_names_the_variable_and_never_the_key() {
    let program = Program::start(&["--publish-key", KEY, "--workers", "1"]);
    assert!(program.greeting.contains("-H \"Authorization: Bearer $FANFARE_PUBLISH_KEY\""));
    assert!(program.greeting.contains("with 1 worker,") && !program.greeting.contains(KEY));
}

#[test]
fn without_a_command_it_helps_and_names_the_first_one_to_try() {
    let output = run(&[]);
    let help = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && help.contains("To begin: fanfare serve"), "{help}");
}

#[test]
fn the_configuration_in_effect_can_be_printed() {
    let output = run(&["config", "--listen", "[::1]:4000", "--publish-key", KEY]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && text.contains("listen = \"[::1]:4000\" # --listen"), "{text}");
    assert!(!text.contains(KEY));
}

#[test]
fn a_configuration_that_cannot_be_ends_with_2_and_says_what_to_change() {
    let file = scratch("bad-configuration").join("fanfare.toml");
    std::fs::write(&file, "[limits]\nconections_max = 1\n").unwrap();
    let file = file.to_str().unwrap();
    let directory = scratch("no-bundles");
    let directory = directory.to_str().unwrap();
    let cases: [(&[&str], &str); 5] = [
        (
            &["--listen", "0.0.0.0:0"],
            "server.listen (--listen): 0.0.0.0:0 is not loopback and server.publish_key is not set",
        ),
        (
            &["--workers", "-1"],
            "server.workers (--workers): -1 is out of range; allowed: a whole number from 0 to 1024",
        ),
        (&["--config", file], "fanfare.toml:2): unknown key; did you mean limits.connections_max?"),
        (
            &["--fd-tables", "own"],
            "server.fd_tables (--fd-tables): \"own\" is not offered; allowed: auto, shared, per-worker",
        ),
        (&["--client-dir", directory], "has none of the client's files, like socket.io.min.js"),
    ];
    for (words, text) in cases {
        let output = run(&[&["serve"], words].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).starts_with("fanfare: ") && stderr(&output).contains(text), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_address_that_is_taken_ends_with_2_and_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "--listen", &address]);
    let text =
        format!("fanfare: server.listen: {address} is taken by another program; choose another port with --listen\n");
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), text));
}

#[test]
fn a_log_filter_that_cannot_be_is_refused_and_one_that_can_overrides_the_level() {
    let output = command(&["serve", "--listen", "127.0.0.1:0"]).env("RUST_LOG", "fanfare=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("fanfare: RUST_LOG: "), "{}", stderr(&output));

    for (filter, logs) in [("info", true), ("", false)] {
        let mut command = command(&["serve", "--log-level", "error", "--log-format", "json"]);
        command.env("RUST_LOG", filter).stderr(Stdio::piped());
        let mut program = Program::of(command);
        let mut log = program.child.stderr.take().unwrap();
        program.signal("TERM");
        assert_eq!(program.end().0, Some(0));
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().any(|line| line["fields"]["message"] == "draining"), logs, "{text}");
    }
}

/// A program with a standard error that takes nothing.
#[cfg(target_os = "linux")]
fn unheard(words: &[&str]) -> Program {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(&[&["serve"], words].concat());
    command.stderr(full);
    Program::of(command)
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_does_not_keep_it_from_draining() {
    let program = unheard(&[]);
    let mut client = Client::connect(program.address);
    program.signal("TERM");
    client.peer.expect_close();
    drop(client);
    let (code, said) = program.end();
    assert_eq!(code, Some(0));
    assert!(said.starts_with("fanfare let 1 client go in "), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_lets_no_stranger_end_it() {
    let program = unheard(&["--proxy-protocol", "required", "--trusted-proxy", "127.0.0.9"]);
    // As many as reach every worker, each of which has a line of its own to write.
    for _ in 0..20 {
        let mut stranger = Connection::open(program.address);
        assert_eq!(stranger.rest(), b"");
    }
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}
