//! Whatever keeps a run from being done is one line that says what to do, and exit code 2.

use crate::relay::{Fault, loadtest, relay};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn complaint(output: &std::process::Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let line = format!("loadtest: cannot reach {address}: connection refused; start the server or correct the URL\n");
    assert_eq!(complaint(&loadtest(address, &[])), (Some(2), line));
}

#[test]
fn the_namespace_is_refused() {
    let line =
        "loadtest: the server refused namespace '/x': Invalid namespace; choose one that it has with --namespace\n";
    let output = loadtest(relay(Fault::Refuse, 1), &["--namespace", "/x", "--connections", "5"]);
    assert_eq!(complaint(&output), (Some(2), line.to_owned()));
}

#[test]
fn polling_is_not_spoken() {
    let address = relay(Fault::None, 1);
    let line = format!(
        "loadtest: no Socket.IO over polling at http://{address}/socket.io/: the handshake was answered with \
         'HTTP/1.1 101 Switching Protocols'; correct the URL, path included, or --protocol and --transport\n"
    );
    let output = loadtest(address, &["--transport", "polling", "--connections", "5"]);
    assert_eq!(complaint(&output), (Some(2), line));
}

#[test]
fn what_does_not_fit_together() {
    let line = "loadtest: --transport: plain WebSocket has only itself; leave it out, or use --protocol socketio\n";
    let output = loadtest(([127, 0, 0, 1], 1).into(), &["--protocol", "ws", "--transport", "polling"]);
    assert_eq!(complaint(&output), (Some(2), line.to_owned()));
}

#[test]
fn there_is_no_publish_api() {
    let line = "loadtest: POST /api/publish was answered with 'HTTP/1.1 404 Not Found'; \
                publish through a client with --publish event:NAME, or switch the server's API on\n";
    let output = loadtest(relay(Fault::None, 1), &["--connections", "5"]);
    assert_eq!(complaint(&output), (Some(2), line.to_owned()));
}

#[test]
fn nothing_is_relayed() {
    let line = "loadtest: only 0 of 5 connections received a test message and no more in 10 s; \
                the server must answer the event 'pub' with an event 'msg' to all of them\n";
    let output = loadtest(relay(Fault::Mute, 1), &["--connections", "5", "--publish", "event:pub"]);
    assert_eq!(complaint(&output), (Some(2), line.to_owned()));
}

#[test]
fn a_wrong_flag() {
    let line = "loadtest: unexpected argument '--conections' found; tip: a similar argument exists: '--connections'; \
                see loadtest --help\n";
    let output = loadtest(([127, 0, 0, 1], 1).into(), &["--conections", "5"]);
    assert_eq!(complaint(&output), (Some(2), line.to_owned()));
}

#[test]
fn too_few_descriptors() {
    let line = "loadtest: 100,000 connections do not fit into descriptor tables of 100; \
                raise the limit with: ulimit -n 1595\n";
    let script = "ulimit -n 100; exec \"$0\" http://127.0.0.1:1 --connections 100000";
    let output = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_loadtest")]).output().expect("sh is there");
    assert_eq!(complaint(&output), (Some(2), line.to_owned()));
}

#[test]
fn the_report_cannot_be_written() {
    let line = "loadtest: cannot write the report to /nowhere/report.json: no such file or directory; correct --json\n";
    let output = loadtest(([127, 0, 0, 1], 1).into(), &["--json", "/nowhere/report.json"]);
    assert_eq!(complaint(&output), (Some(2), line.to_owned()));
}

#[test]
fn the_server_cannot_be_watched() {
    let mut ended = Command::new("true").spawn().expect("true is there");
    assert!(ended.wait().expect("it ends").success());
    let line = format!("loadtest: no process {} is to be seen on this machine; correct --server-pid\n", ended.id());
    let server = relay(Fault::None, 1);
    assert_eq!(complaint(&loadtest(server, &["--server-pid", &ended.id().to_string()])), (Some(2), line));
    let line = format!(
        "loadtest: no metrics at http://{server}/nothing: the answer was 'HTTP/1.1 101 Switching Protocols'; \
         correct --metrics\n"
    );
    assert_eq!(complaint(&loadtest(server, &["--metrics", &format!("http://{server}/nothing")])), (Some(2), line));
}

#[test]
fn a_broken_limit_is_one_line_and_code_1() {
    let flags = "--connections 5 --duration 300ms --publish event:pub --limit last-max<1us,lost=0";
    let output = loadtest(relay(Fault::None, 1), &flags.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("\nFAIL ").count(), 1, "{text}");
    assert!(text.contains("\nFAIL limit last-max<1us: it was "), "{text}");
}

#[test]
fn many_threads_have_their_own_descriptors() {
    let address = relay(Fault::None, 1);
    let flags = "--connections 200 --duration 500ms --publish event:pub";
    let script = format!("ulimit -n 100; exec \"$0\" http://{address} {flags}");
    let output =
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_loadtest")]).output().expect("sh is there");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("delivered   1,000 of 1,000"), "{text}");
}

#[test]
fn an_interruption_ends_with_the_report() {
    let address = relay(Fault::None, 1);
    let mut run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([&format!("http://{address}"), "--connections", "5", "--duration", "60s", "--publish", "event:pub"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built");
    let started = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let killed = Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill is there");
    assert!(killed.success());
    let code = run.wait().expect("it ends").code();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut run.stdout.take().expect("it is piped"), &mut text).expect("it is text");
    assert_eq!(code, Some(130), "{text}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(text.contains("INTERRUPTED this is what was seen so far"), "{text}");
    assert!(text.contains("lost 0, doubled 0, reordered 0"), "{text}");
}
