//! Several generators as one run: agents in processes of their own, and what happens when one is not as it should be.

use crate::relay::{Fault, loadtest, relay};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

/// As in `faults`: 25 clients, 12,500 deliveries.
const FLAGS: &str = "--connections 25 --rate 500/s --duration 1s --size 100 --publish event:pub";
/// Longer than any test looks at it.
const LONG: &str = "--connections 10 --rate 100/s --duration 60s --publish event:pub";

/// An agent, until it is dropped.
struct Agent {
    process: Child,
    address: String,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    fn start(flags: &[&str]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        Agent::of(command.args(["agent", "--listen", "127.0.0.1:0"]).args(flags))
    }

    fn of(command: &mut Command) -> Agent {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it was built");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let line = lines.next().expect("it says where it listens").expect("it is text");
        let address = line.strip_prefix("agent listens on ").expect("so it begins").to_owned();
        Agent { process, address, lines }
    }

    /// The next line that contains `text`.
    fn line_with(&mut self, text: &str) -> String {
        line_with(&mut self.lines, text)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn line_with(lines: &mut impl Iterator<Item = std::io::Result<String>>, text: &str) -> String {
    lines.map(|line| line.expect("it is text")).find(|line| line.contains(text)).expect("it says so")
}

fn workers(agents: &[&Agent]) -> String {
    agents.iter().map(|agent| agent.address.as_str()).collect::<Vec<_>>().join(",")
}

fn run(agents: &[&Agent], fault: Fault, flags: &str, more: &[&str]) -> Output {
    let flags: Vec<_> = flags.split(' ').chain(more.iter().copied()).collect();
    loadtest(relay(fault, 10_000), &[&flags[..], &["--workers", &workers(agents)]].concat())
}

/// Code, report and complaint.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A run of two agents with its record.
fn record(name: &str, fault: Fault) -> (Option<i32>, String, Value) {
    let file = format!("{}/workers-{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let agents = [Agent::start(&[]), Agent::start(&[])];
    let (code, text, complaint) = said(&run(&[&agents[0], &agents[1]], fault, FLAGS, &["--json", &file]));
    let json = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("no record: {text}{complaint}"));
    (code, text, serde_json::from_str(&json).expect("the record is JSON"))
}

/// A coordinator that was begun, and what it prints.
struct Coordinator {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<ChildStderr>>,
}

impl Coordinator {
    /// Publishes already.
    fn start(agents: &[&Agent]) -> Coordinator {
        let mut process = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .arg(format!("http://{}", relay(Fault::None, 1)))
            .args(LONG.split(' '))
            .args(["--workers", &workers(agents)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let complaints = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        line_with(&mut lines, "  published ");
        Coordinator { process, lines, complaints }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn two_agents_count_as_one() {
    let (code, text, json) = record("none", Fault::None);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("delivered   12,500 of 12,500"), "{text}");
    assert_eq!(json["connecting"]["connected"], 25);
    assert_eq!(json["connecting"]["handshake_ms"]["samples"], 25);
    for receiver in ["first", "median", "p99", "last"] {
        assert_eq!(json["delays_ms"][receiver]["samples"], 500, "{receiver}");
    }
    assert_eq!(json["delays_ms"]["delivery"]["samples"], 12_500);
    let generator = &json["generator"];
    let clients = generator["workers"].as_array().expect("there are some").iter().map(|worker| &worker["connections"]);
    assert_eq!(clients.collect::<Vec<_>>(), [12, 13]);
    for worker in generator["workers"].as_array().expect("there are some") {
        assert!(worker["uncertainty_ms"].as_f64().is_some_and(|millis| millis > 0.0), "{worker}");
    }
    let threads = generator["threads"].as_array().expect("there are some");
    assert_eq!(threads.len(), 3, "one of each agent, and the publisher");
    assert!(threads[..2].iter().all(|thread| thread["lag_ms"]["samples"].as_u64() > Some(0)), "{generator}");
}

#[test]
fn one_dropped_message_among_two_agents_fails_the_run() {
    let (code, text, json) = record("drop", Fault::Drop);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!((&json["counts"]["delivered"], &json["faults"]["lost"]["count"]), (&12_499.into(), &1.into()));
    let client = json["faults"]["lost"]["first"]["client"].as_u64().expect("it has its client");
    let line = format!("FAIL lost: 1 of 12,500 deliveries never came; client {client} missed message 399\n");
    assert!(client < 25 && text.contains(&line), "{text}");
    assert!(text.contains("1 messages never reached everyone"), "{text}");
}

#[test]
fn one_client_that_an_agent_loses_is_named() {
    let (code, text, json) = record("hangup", Fault::Hangup);
    assert_eq!((code, &json["counts"]["closed"]), (Some(2), &1.into()), "{text}");
    let error = json["error"].as_str().expect("it says what happened");
    assert!(error.starts_with("1 of 25 connections ended during the run, the first was connection "), "{error}");
    assert!(error.ends_with(": the server hung up; see the server's log"), "{error}");
}

#[test]
fn the_scenario_file_is_told_to_the_agents() {
    let file = format!("{}/workers.toml", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&file, "connections = 7\nrate = 200\nduration = \"500ms\"\n").expect("it can be written");
    let agents = [Agent::start(&[]), Agent::start(&[])];
    let output = run(&[&agents[0], &agents[1]], Fault::None, "--publish event:pub", &["--scenario", &file]);
    let (code, text, complaint) = said(&output);
    assert_eq!(code, Some(0), "{text}{complaint}");
    assert!(text.contains("delivered   700 of 700"), "{text}");
}

#[test]
fn the_same_agents_do_one_run_after_the_other() {
    let agents = [Agent::start(&[]), Agent::start(&[])];
    for messages in [20, 40, 60] {
        let flags = format!("--connections 4 --rate {messages}/s --duration 1s --publish event:pub");
        let (code, text, complaint) = said(&run(&[&agents[0], &agents[1]], Fault::None, &flags, &[]));
        assert_eq!(code, Some(0), "{text}{complaint}");
        let deliveries = 4 * messages;
        assert!(text.contains(&format!("delivered   {deliveries} of {deliveries}")), "{text}");
    }
}

#[test]
fn threads_of_an_agent_have_their_own_descriptors() {
    let script = "ulimit -n 100; exec \"$0\" agent --listen 127.0.0.1:0";
    let agent = Agent::of(Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_loadtest")]));
    for _ in 0..2 {
        let flags = "--connections 200 --duration 500ms --publish event:pub";
        let (code, text, complaint) = said(&run(&[&agent], Fault::None, flags, &[]));
        assert_eq!(code, Some(0), "{text}{complaint}");
        assert!(text.contains("delivered   1,000 of 1,000"), "{text}");
    }
}

#[test]
fn an_interruption_ends_the_run_of_all() {
    let mut agent = Agent::start(&[]);
    let mut coordinator = Coordinator::start(&[&agent]);
    let killed = Command::new("kill").args(["-INT", &coordinator.process.id().to_string()]).status();
    assert!(killed.expect("kill is there").success());
    assert_eq!(coordinator.process.wait().expect("it ends").code(), Some(130));
    line_with(&mut coordinator.lines, "INTERRUPTED this is what was seen so far");
    agent.line_with(": done");
}

#[test]
fn nobody_is_at_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let (code, _, complaint) = said(&loadtest(relay(Fault::None, 1), &["--workers", &address]));
    let line = format!(
        "loadtest: worker {address}: cannot be reached: connection refused; start loadtest agent there, \
         or correct --workers\n"
    );
    assert_eq!((code, complaint), (Some(2), line));
}

/// Somebody who answers one visitor with `answer`, and stays.
fn impostor(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("one comes");
        let mut greeting = String::new();
        BufReader::new(&stream).read_line(&mut greeting).expect("it is a line");
        stream.write_all(answer.as_bytes()).expect("it listens");
        // Until the visitor goes.
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    });
    address
}

#[test]
fn another_version_or_no_agent_at_all() {
    for (answer, what) in [
        ("{\"loadtest\":99,\"more\":1}\n", "speaks version 99, known is 2; run the same loadtest on all machines"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak as loadtest does; correct the address"),
    ] {
        let address = impostor(answer);
        let (code, _, complaint) = said(&loadtest(relay(Fault::None, 1), &["--workers", &address]));
        assert_eq!((code, complaint), (Some(2), format!("loadtest: worker {address}: {what}\n")));
    }
}

/// What an agent answers to a first line.
fn greet(agent: &Agent, line: &str) -> Value {
    let mut stream = TcpStream::connect(&agent.address).expect("it listens");
    stream.write_all(line.as_bytes()).expect("it reads");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("it answers");
    serde_json::from_str(&answer).expect("it is JSON")
}

#[test]
fn an_agent_refuses_another_version() {
    let answer = greet(&Agent::start(&[]), "{\"loadtest\":99}\n");
    assert_eq!(answer["refused"], "speaks version 99, known is 2; run the same loadtest on all machines");
    assert_eq!(answer["loadtest"], 2);
}

#[test]
fn an_agent_works_for_one_at_a_time() {
    let mut agent = Agent::start(&[]);
    let first = Coordinator::start(&[&agent]);
    let peer = agent.line_with(": clients 0 to 9 of 10, of http://");
    let peer = peer.strip_prefix("for ").and_then(|line| line.split_once(": ")).expect("it says for whom").0.to_owned();
    let line = format!("it is busy with the run of {peer}; wait until that is over");
    assert_eq!(greet(&agent, "{\"loadtest\":2}\n")["refused"], line);
    drop(first);
}

#[test]
fn an_agent_that_dies_ends_the_run_with_a_report() {
    let (mut dying, other) = (Agent::start(&[]), Agent::start(&[]));
    let mut coordinator = Coordinator::start(&[&dying, &other]);
    dying.process.kill().expect("it runs");
    let line = line_with(&mut coordinator.complaints, "worker");
    assert!(line.starts_with(&format!("loadtest: worker {}: went away: ", dying.address)), "{line}");
    assert_eq!(coordinator.process.wait().expect("it ends").code(), Some(2));
    let delivered = line_with(&mut coordinator.lines, "  delivered   ");
    assert!(!delivered.contains("delivered   0 of"), "{delivered}");
}

#[test]
fn an_agent_that_is_ended_says_so() {
    let agent = Agent::start(&[]);
    let mut coordinator = Coordinator::start(&[&agent]);
    let ended = Command::new("kill").args(["-TERM", &agent.process.id().to_string()]).status().expect("kill is there");
    assert!(ended.success());
    let line = line_with(&mut coordinator.complaints, "worker");
    assert_eq!(line, format!("loadtest: worker {}: was ended there; start it again", agent.address));
    assert_eq!(coordinator.process.wait().expect("it ends").code(), Some(2));
    let mut agent = agent;
    assert_eq!(agent.process.wait().expect("it ends").code(), Some(0));
}

#[test]
fn an_agent_whose_coordinator_died_works_for_the_next() {
    let mut agent = Agent::start(&[]);
    drop(Coordinator::start(&[&agent]));
    assert!(agent.line_with("went away").starts_with("coordinator 127.0.0.1:"));
    let (code, text, complaint) = said(&run(&[&agent], Fault::None, FLAGS, &[]));
    assert_eq!(code, Some(0), "{text}{complaint}");
    assert!(text.contains("delivered   12,500 of 12,500"), "{text}");
}

#[test]
fn what_an_agent_cannot_do_is_its_line() {
    let script = "ulimit -n 100; exec \"$0\" agent --listen 127.0.0.1:0";
    let agent = Agent::of(Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_loadtest")]));
    let (code, _, complaint) = said(&run(&[&agent], Fault::None, "--connections 100000", &[]));
    let line = format!(
        "loadtest: worker {}: 100,000 connections do not fit into descriptor tables of 100; \
         raise the limit with: ulimit -n 1595\n",
        agent.address
    );
    assert_eq!((code, complaint), (Some(2), line));
    let (code, _, complaint) = said(&run(&[&agent], Fault::Refuse, "--connections 5 --namespace /x", &[]));
    let refused = "the server refused namespace '/x': Invalid namespace; choose one that it has with --namespace";
    assert_eq!((code, complaint), (Some(2), format!("loadtest: worker {}: {refused}\n", agent.address)));
}

#[test]
fn a_key_is_asked_for() {
    let key = |name: &str, text: &str| {
        let file = format!("{}/{name}.key", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&file, text).expect("it can be written");
        file
    };
    let (right, wrong) = (key("right", "0123456789abcdef\n"), key("wrong", "0123456789abcdeX\n"));
    let agent = Agent::start(&["--key", &right]);
    let flags = "--connections 4 --duration 200ms --publish event:pub";
    let line = format!("loadtest: worker {}: it wants another key; give the agent's with --key FILE\n", agent.address);
    for more in [&[][..], &["--key", &wrong]] {
        let (code, _, complaint) = said(&run(&[&agent], Fault::None, flags, more));
        assert_eq!((code, complaint), (Some(2), line.clone()));
    }
    let (code, text, complaint) = said(&run(&[&agent], Fault::None, flags, &["--key", &right]));
    assert_eq!(code, Some(0), "{text}{complaint}");
    let short = key("short", "0123456789\n");
    let (code, _, complaint) = said(&run(&[&agent], Fault::None, flags, &["--key", &short]));
    let line =
        format!("loadtest: --key: the first line of {short} has to have 16 letters at least, and 1024 at most\n");
    assert_eq!((code, complaint), (Some(2), line));
}

#[test]
fn beyond_loopback_an_agent_has_a_key() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(["agent", "--listen", "0.0.0.0:0"]).output();
    let line = "loadtest: --listen: beyond this machine an agent wants a key from its coordinators; add --key FILE\n";
    let (code, _, complaint) = said(&output.expect("it was built"));
    assert_eq!((code, complaint.as_str()), (Some(2), line));
}
