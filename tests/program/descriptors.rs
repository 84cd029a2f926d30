//! Descriptors: more connections than one table holds, and what is said when there are none left.

use crate::program::{Program, command};
use crate::support::client::Client;
use crate::support::http::Connection;
use serde_json::json;
use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// The program where the limit on descriptors is low and cannot be raised.
fn with_descriptors(limit: u32, words: &[&str]) -> Command {
    let program = command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" serve \"$@\"")]).arg(program.get_program()).args(words);
    shell.env_remove("RUST_LOG").stdin(Stdio::null());
    for (name, _) in program.get_envs() {
        shell.env_remove(name);
    }
    shell
}

/// How many descriptor tables the threads of a process have, told apart by their listeners.
fn tables_of(program: &Program) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.child.id())).unwrap();
    let sockets = tasks.map(|task| {
        let entries = std::fs::read_dir(task.unwrap().path().join("fd")).unwrap();
        let names = entries.flatten().flat_map(|entry| std::fs::read_link(entry.path()));
        names.filter(|name| name.to_string_lossy().starts_with("socket:")).collect::<BTreeSet<_>>()
    });
    sockets.collect::<BTreeSet<_>>().len()
}

#[test]
fn with_a_table_for_each_worker_it_holds_more_connections_than_one_table_has_descriptors() {
    const CLIENTS: usize = 600;
    let words = ["--fd-tables", "per-worker", "--workers", "4", "--drain-time", "0"];
    let program = Program::of(with_descriptors(256, &words));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(program.address)).collect();
    assert_eq!(program.publish(json!({"event": "hello"})).json(), json!({"sockets": CLIENTS}));
    for client in &mut clients {
        client.expect(r#"42["hello"]"#);
    }
    assert_eq!(program.stats()["transports"]["websocket"], json!(CLIENTS));
    program.signal("TERM");
    for client in &mut clients {
        client.peer.expect_close();
    }
    let address = program.address;
    drop(clients);
    assert_eq!(program.end().0, Some(0));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn tables_are_parted_by_themselves_only_if_the_wanted_connections_need_it() {
    for (words, tables) in [
        (&["--workers", "3"][..], 1),
        (&["--workers", "3", "--connections-max", "100"], 1),
        (&["--workers", "3", "--connections-max", "300"], 4),
        (&["--workers", "3", "--connections-max", "300", "--fd-tables", "shared"], 1),
        (&["--workers", "3", "--fd-tables", "per-worker"], 4),
    ] {
        let program = Program::of(with_descriptors(256, words));
        assert_eq!(tables_of(&program), tables, "{words:?}");
    }
}

#[test]
fn a_worker_without_descriptors_says_so_and_lets_its_clients_wait() {
    let mut command = with_descriptors(64, &["--fd-tables", "per-worker", "--workers", "1"]);
    command.env("NO_COLOR", "1").stderr(Stdio::piped());
    let mut program = Program::of(command);
    // More than fit: the kernel connects them all, and the worker accepts as many as it can.
    let mut lines: VecDeque<_> = (0..100).map(|_| Connection::open(program.address)).collect();
    let mut log = BufReader::new(program.child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("connections have to wait in the accept queue") {
        assert_ne!(log.read_line(&mut text).unwrap(), 0, "{text}");
    }
    // The last one is served as soon as others have gone.
    let mut last = lines.pop_back().unwrap();
    lines.truncate(10);
    assert_eq!(last.get("/healthz").status, 200);
}
