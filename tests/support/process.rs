//! Process: start a command and read what it says; run one to its end, with a deadline.
//!
//! Standard output and standard error come as lines over one channel: a reader sees both side by side, and can
//! act on a line while the command is still running.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Runs a suite; fails the test with the suite's whole output when the suite fails.
pub fn run_suite(suite: &mut Command, time_max: Duration, on_line: impl FnMut(&str)) {
    if let Err(output) = run(suite, time_max, on_line) {
        panic!("{output}");
    }
}

/// Runs `command` and gives its output, as the error when the command could not run, failed or took too long.
pub fn run(command: &mut Command, time_max: Duration, mut on_line: impl FnMut(&str)) -> Result<String, String> {
    let deadline = Instant::now() + time_max;
    let mut child = Process::start(command).map_err(|error| format!("{command:?} does not start: {error}"))?;

    let mut output = format!("{command:?}\n");
    let in_time = read_until(deadline, &child.lines, |line| {
        output.push_str(line);
        output.push('\n');
        on_line(line);
    });
    if !in_time {
        child.stop();
        let _ = writeln!(output, "… stopped: not finished after {time_max:?}");
    }
    let status = child.inner.wait().expect("our own child can be waited for");
    if in_time && status.success() { Ok(output) } else { Err(format!("{output}\n{status}")) }
}

/// A child process as a guard: stopped and reaped when dropped.
pub struct Process {
    inner: Child,
    /// What it prints; disconnected when it has closed both pipes.
    pub lines: Receiver<String>,
}

impl Process {
    pub fn start(command: &mut Command) -> io::Result<Process> {
        let mut inner = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = channel();
        send_lines(inner.stdout.take().expect("stdout is piped"), sender.clone());
        send_lines(inner.stderr.take().expect("stderr is piped"), sender);
        Ok(Process { inner, lines })
    }

    /// Kills it, as a crash would. How it ended, when it had ended by itself before.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let ended = self.inner.try_wait().expect("our own child can be waited for");
        if ended.is_none() {
            self.inner.kill().expect("our own child can be killed");
            self.inner.wait().expect("our own child can be waited for");
        }
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One thread for each pipe; it ends with the pipe.
fn send_lines(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string();
            if lines.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// False when the deadline came before the end of all pipes.
fn read_until(deadline: Instant, lines: &Receiver<String>, mut on_line: impl FnMut(&str)) -> bool {
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}
