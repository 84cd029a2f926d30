//! Program: the binary as a guard, with words, variables and a file of its own.

use crate::support::http::{Connection, Response};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

pub const KEY: &str = "a-key-of-the-tests";
/// Nothing takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose descriptor table the workers may use here.
#[cfg(target_os = "linux")]
pub const TABLES: [&str; 2] = ["shared", "per-worker"];
#[cfg(not(target_os = "linux"))]
pub const TABLES: [&str; 1] = ["shared"];

pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(words).env_remove("RUST_LOG").stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANFARE_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command that ends by itself.
pub fn run(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running server. Its process ends with it, also when the test fails.
pub struct Program {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
    pub address: SocketAddr,
    /// The whole start-up text.
    pub greeting: String,
}

impl Program {
    pub fn start(words: &[&str]) -> Program {
        Program::of(command(&[&["serve"], words].concat()))
    }

    pub fn of(mut command: Command) -> Program {
        command.env("FANFARE_LISTEN", "127.0.0.1:0").env("FANFARE_WORKERS", "2");
        // No ping comes between what a test expects.
        command.env("FANFARE_PING_SPREAD", "false");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        while !greeting.ends_with("'\n\n") {
            assert_ne!(stdout.read_line(&mut greeting).unwrap(), 0, "it ended: {greeting}");
        }
        let (_, rest) = greeting.split_once("http://").unwrap();
        let address = rest.split_whitespace().next().unwrap().parse().unwrap();
        Program { child, stdout, address, greeting }
    }

    pub fn with_file(name: &str, text: &str, words: &[&str]) -> Program {
        let file = config_file(name, text);
        Program::start(&[&["--config", file.to_str().unwrap()], words].concat())
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "")
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        Connection::open(self.address).request(method, path, headers, body.as_bytes())
    }

    pub fn publish(&self, body: Value) -> Response {
        self.request("POST", "/api/publish", &[], &body.to_string())
    }

    pub fn stats(&self) -> Value {
        self.get("/api/stats").json()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code, and what it said on stdout since the greeting.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    /// The same, of one that could take longer than anybody has patience.
    pub fn end_in_time(self) -> (Option<i32>, String) {
        let (sender, ended) = channel();
        std::thread::spawn(move || drop(sender.send(self.end())));
        ended.recv_timeout(PATIENCE).expect("it ends")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration for one test.
pub fn config_file(name: &str, text: &str) -> PathBuf {
    let file = scratch(name).join("fanfare.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// An empty directory for one test.
pub fn scratch(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}
