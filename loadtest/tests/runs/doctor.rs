//! `loadtest doctor` says whether a run can go, and its exit code says the same.

use crate::relay::{Fault, relay};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

fn doctor(server: SocketAddr, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["doctor", &format!("http://{server}")]).args(flags).output().expect("it was built")
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_small_run_can_go() {
    let server = relay(Fault::None, 1);
    let output = doctor(server, &["--connections", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("\n  ok       server        {server} accepts connections\n")), "{text}");
    assert!(last_line(&output).starts_with("The run can go (problems: 0, "), "{text}");
}

#[test]
fn without_a_server_no_run_can_go() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let output = doctor(address, &["--connections", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = format!("cannot reach {address}: connection refused; start the server or correct the URL\n");
    assert!(text.contains(&format!("\n  problem  server        {line}")), "{text}");
    assert!(last_line(&output).starts_with("The run cannot go (problems: 1, "), "{text}");
}

#[test]
fn tables_that_are_too_small_are_a_problem_and_the_fix_is_told() {
    let script = "ulimit -n 100; exec \"$0\" doctor --connections 100000";
    let output = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_loadtest")]).output().expect("sh is there");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = "a table holds 100, 1,595 are needed in each of the most threads; ulimit -n 1595 as root";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_wrong_flag_is_one_line() {
    let output = doctor(([127, 0, 0, 1], 1).into(), &["--ramp", "fast"]);
    let line = "loadtest: invalid value 'fast' for '--ramp <RATE>': write a rate as 10 or 10/s, above zero; \
                see loadtest --help\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(2), line));
}
