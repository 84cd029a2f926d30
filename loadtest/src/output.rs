//! Output: the only place that writes to the terminal.
//!
//! On a terminal the progress is one line that changes; elsewhere it is a plain line per second. A reader that went
//! away (`loadtest … | head`) is no reason to fail: the exit code still tells.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

pub struct Output {
    terminal: bool,
    /// A progress line stands without its end.
    open: bool,
}

impl Output {
    pub fn new() -> Output {
        Output { terminal: io::stdout().is_terminal(), open: false }
    }

    /// How often progress is worth showing.
    pub fn interval(&self) -> Duration {
        if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(1) }
    }

    pub fn progress(&mut self, line: &str) {
        if self.terminal {
            self.open = true;
            put(io::stdout(), &format!("\r{line}\x1b[K"));
        } else {
            put(io::stdout(), &format!("{line}\n"));
        }
    }

    /// Text that stays.
    pub fn text(&mut self, text: &str) {
        self.finish_line();
        put(io::stdout(), text);
    }

    pub fn error(&mut self, line: &str) {
        self.finish_line();
        put(io::stderr(), &format!("loadtest: {line}\n"));
    }

    fn finish_line(&mut self) {
        if std::mem::take(&mut self.open) {
            put(io::stdout(), "\n");
        }
    }
}

fn put(mut stream: impl Write, text: &str) {
    drop(stream.write_all(text.as_bytes()).and_then(|()| stream.flush()));
}
