//! Server: the server under test as a guard. Started on a free port, stopped and reaped when dropped.
//!
//! `Server::start` takes the `conformance` example of this build, or whatever `FANFARE_TEST_SERVER` says: a command
//! with the words `{profile}` and `{port}` in it. Either prints a line starting with `ready` when it listens.
//! `Server::start_by` takes any command, and the beginning of the line that it prints then.

use super::{process::Process, profile_dir};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const START_TIME_MAX: Duration = Duration::from_secs(30);

pub struct Server {
    /// What starts it on a port.
    command: Box<dyn Fn(u16) -> Command>,
    /// How the line begins that it prints when it listens.
    ready: &'static str,
    port: u16,
    process: Process,
    /// The lines up to `ready`. What came later is still in `process.lines`.
    printed: Vec<String>,
}

impl Server {
    pub fn start(profile: &str) -> Server {
        let profile = profile.to_owned();
        Server::start_by(move |port| command(&profile, port), "ready")
    }

    pub fn start_by(command: impl Fn(u16) -> Command + 'static, ready: &'static str) -> Server {
        // one start at a time: the port found free stays free until its server listens on it
        static STARTING: Mutex<()> = Mutex::new(());
        let _guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let port = free_port();
        let process = spawn(&mut command(port));
        let mut server = Server { command: Box::new(command), ready, port, process, printed: Vec::new() };
        server.wait_until_ready();
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills the server, as a crash would.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Kills the server unless it has been, and starts it again on the same port.
    pub fn restart(&mut self) {
        self.stop();
        self.process = spawn(&mut (self.command)(self.port));
        self.printed.clear();
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_TIME_MAX;
        // both ends of the wait are the same for us: the deadline, and a server that exits before it is ready
        while let Ok(line) = self.process.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            let ready = line.starts_with(self.ready);
            self.printed.push(line);
            if ready {
                return;
            }
        }
        panic!("the server did not print `{}`: {:?}", self.ready, (self.command)(self.port));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.process.stop();
        if !std::thread::panicking() {
            return;
        }
        if let Some(status) = ended {
            eprintln!("the server had ended by itself: {status}");
        }
        // bounded: a server that is a script may leave a child behind which holds the pipes open
        while let Ok(line) = self.process.lines.recv_timeout(Duration::from_secs(1)) {
            self.printed.push(line);
        }
        eprintln!("the server printed:\n{}", self.printed.join("\n"));
    }
}

fn spawn(command: &mut Command) -> Process {
    Process::start(command).unwrap_or_else(|error| panic!("the server {command:?} does not start: {error}"))
}

fn command(profile: &str, port: u16) -> Command {
    let Ok(other) = std::env::var("FANFARE_TEST_SERVER") else {
        let mut command = Command::new(conformance());
        command.args([profile, "--port", &port.to_string()]);
        return command;
    };
    let filled = other.replace("{profile}", profile).replace("{port}", &port.to_string());
    let mut words = filled.split_whitespace();
    let mut command = Command::new(words.next().expect("FANFARE_TEST_SERVER names a program"));
    command.args(words);
    command
}

fn conformance() -> PathBuf {
    let example = profile_dir().join("examples").join(format!("conformance{}", std::env::consts::EXE_SUFFIX));
    let hint = "`cargo test` builds it, `cargo test --test …` does not: run `cargo build --example conformance`";
    assert!(example.exists(), "{} is missing; {hint}", example.display());
    if let Some(source) = newer_source(&example) {
        panic!("{} is older than {source}; {hint}", example.display());
    }
    example
}

/// A source file changed after the example was built, if there is one. Cargo lists the sources in
/// `conformance.d` as `binary: source source …`, with `\ ` for a blank in a path.
fn newer_source(example: &Path) -> Option<String> {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let list = std::fs::read_to_string(example.with_extension("d")).ok()?;
    let (_, sources) = list.split_once(": ")?;
    sources
        .replace("\\ ", "\0")
        .split_whitespace()
        .map(|source| source.replace('\0', " "))
        .find(|source| changed(Path::new(source)) > changed(example))
}

/// A port nobody listens on. Below 32768: the kernel gives the ports above it to outgoing connections, and one
/// of these could take the port while its server is being restarted.
fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..COUNT)
        .map(|_| {
            // test processes that run side by side start their search at different places
            let offset = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            u16::try_from(FIRST + offset % COUNT).expect("FIRST + COUNT fits")
        })
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("one of 12000 ports is free")
}
