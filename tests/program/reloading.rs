//! Reloading: a configuration that is reread while it serves.

use crate::poller::Poller;
use crate::program::{KEY, Program, TABLES, command, config_file};
use crate::support::client::{Client, POLLING};
use crate::support::http::Connection;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};

/// A program with a file, whose log is read.
struct Reloading {
    program: Program,
    file: PathBuf,
    log: BufReader<ChildStderr>,
}

impl Reloading {
    fn start(name: &str, text: &str, words: &[&str]) -> Reloading {
        let file = config_file(name, text);
        Reloading::of(command(&[&["serve", "--config", file.to_str().unwrap()], words].concat()), file)
    }

    fn of(mut command: Command, file: PathBuf) -> Reloading {
        command.env("NO_COLOR", "1").stderr(Stdio::piped());
        let mut program = Program::of(command);
        let log = BufReader::new(program.child.stderr.take().unwrap());
        Reloading { program, file, log }
    }

    /// Has the program reread its file with this text. Returns the log up to a line with `until`.
    fn reread(&mut self, text: &str, until: &str) -> String {
        std::fs::write(&self.file, text).unwrap();
        self.reread_as_it_is(until)
    }

    fn reread_as_it_is(&mut self, until: &str) -> String {
        self.program.signal("HUP");
        let mut log = String::new();
        while !log.contains(until) {
            assert_ne!(self.log.read_line(&mut log).unwrap(), 0, "it ended: {log}");
        }
        log
    }

    fn reloads(&self) -> (u64, u64) {
        let stats = self.program.stats();
        (stats["reloads"].as_u64().unwrap(), stats["reloads_failed"].as_u64().unwrap())
    }
}

#[test]
fn what_can_change_changes_on_a_signal_and_no_connection_notices() {
    for tables in TABLES {
        let before = format!("[server]\npublish_key = \"{KEY}\"\n[limits]\nrooms_per_socket_max = 1\n");
        let mut reloading = Reloading::start(&format!("reload-{tables}"), &before, &["--fd-tables", tables]);
        let address = reloading.program.address;
        let mut socket = Client::connect(address);
        let mut client = Poller::connect(&reloading.program);
        assert_eq!(client.ask(json!(["join", "a"])), json!(["a"]));
        assert!(client.ask(json!(["join", "b"]))["error"].as_str().unwrap().contains("rooms_per_socket_max, 1"));
        assert!(client.ask(json!(["say", 1]))["error"].as_str().unwrap().contains("allows: none"));

        let log = reloading.reread(
            "[server]\npublish_key = \"another-key-of-the-tests\"\nworkers = 9\n[cors]\norigins = \"*\"\n\
             [engine]\nping_interval = \"9s\"\n[limits]\nrooms_per_socket_max = 2\npublish_batch_max = 1\n\
             [namespaces.\"/\"]\nclient_events = [\"say\"]\n[log]\nlevel = \"debug\"\n",
            "need a restart",
        );
        let changed = [
            "server.publish_key",
            "cors.origins",
            "limits.rooms_per_socket_max",
            "limits.publish_batch_max",
            r#"namespaces.\"/\".client_events"#,
            "log.level",
        ];
        assert!(log.contains(&format!("changed=\"{}\"", changed.join(", "))), "{log}");
        // FANFARE_WORKERS is stronger than the file, as at the start.
        assert!(log.contains("engine.ping_interval: need a restart; keep their values"), "{log}");
        assert!(!log.contains(KEY) && !log.contains("another-key"), "{log}");
        assert_eq!(reloading.reloads(), (1, 0));

        let publish = |key: &str, body: Value| {
            let bearer = format!("Bearer {key}");
            let headers = [("Authorization", &*bearer)];
            Connection::open(address).request("POST", "/api/publish", &headers, body.to_string().as_bytes())
        };
        assert_eq!(publish(KEY, json!({"event": "hello"})).status, 401);
        assert_eq!(publish("another-key-of-the-tests", json!({"event": "hello"})).json(), json!({"sockets": 2}));
        assert_eq!(publish("another-key-of-the-tests", json!([{"event": "a"}, {"event": "b"}])).status, 413);
        socket.expect(r#"42["hello"]"#);
        assert_eq!(client.event(), json!(["hello"]));
        assert_eq!(client.ask(json!(["join", "b"])), json!(["a", "b"]));
        assert_eq!(client.ask(json!(["say", 1])), json!({"sockets": 1}));
        socket.expect(r#"42["say",1]"#);
        let opened = reloading.program.get(POLLING);
        assert_eq!(opened.header("access-control-allow-origin"), Some("*"));
        assert!(opened.body.contains("\"pingInterval\":25000"), "{}", opened.body);
        assert!(client.ask(json!(["nothing"]))["error"].as_str().unwrap().contains("allows: \"say\""));

        // And back: what had been allowed is refused, and the log is quiet again.
        let log = reloading.reread(&before, "reread");
        assert!(log.contains("a client's event is refused"), "debug was on: {log}");
        assert!(client.ask(json!(["say", 1]))["error"].as_str().unwrap().contains("allows: none"));
        assert_eq!(publish(KEY, json!({"event": "hello"})).json(), json!({"sockets": 2}));
        let log = reloading.reread(&before, "reread");
        assert!(!log.contains("a client's event is refused"), "{log}");
        assert_eq!(reloading.reloads(), (3, 0));
    }
}

#[test]
fn a_file_with_a_mistake_changes_nothing_and_says_why() {
    let mut reloading = Reloading::start("reload-bad", "cors.origins = \"*\"", &[]);
    let program = |reloading: &Reloading| reloading.program.get(POLLING);
    for (text, why) in [
        ("limits.rooms_per_socket_max = 0", "limits.rooms_per_socket_max ("),
        ("server.lisen = 1", "did you mean server.listen?"),
        ("[server", "not valid TOML"),
    ] {
        let log = reloading.reread(text, why);
        assert!(log.contains("the configuration stays as it was: 1 problem in the configuration:\n"), "{log}");
        assert_eq!(program(&reloading).header("access-control-allow-origin"), Some("*"), "{text}");
    }
    std::fs::remove_file(&reloading.file).unwrap();
    reloading.reread_as_it_is("cannot read");
    assert_eq!(reloading.reloads(), (0, 4));
    assert_eq!(reloading.reread("", "reread").matches("need a restart").count(), 0);
    assert_eq!(program(&reloading).header("access-control-allow-origin"), None);
    assert_eq!(reloading.reloads(), (1, 4));
}

#[test]
fn a_configuration_that_came_through_a_pipe_is_not_reread_and_nothing_changes() {
    let (pipe, mut writer) = std::io::pipe().unwrap();
    write!(writer, "[server]\npublish_key = \"{KEY}\"\n").unwrap();
    drop(writer);
    let mut command = command(&["serve", "--config", "/dev/stdin"]);
    command.stdin(pipe);
    let mut reloading = Reloading::of(command, PathBuf::from("/dev/stdin"));
    let mut log = reloading.reread_as_it_is("the configuration ");
    assert!(log.contains("the configuration stays as it was: 1 problem in the configuration:\n"), "{log}");
    reloading.log.read_line(&mut log).unwrap();
    assert!(log.contains("cannot read \"/dev/stdin\": it is no regular file"), "{log}");
    assert_eq!(reloading.reloads(), (0, 1));
    assert_eq!(reloading.program.publish(json!({"event": "hello"})).status, 401);
}
