//! Output: the only place that writes to the terminal.
//!
//! On a terminal the progress is a display that changes in place, and is gone when the run is over; elsewhere, and on a
//! terminal that cannot do that, it is a plain line per second. A reader that went away (`loadtest … | head`) is no
//! reason to fail: the exit code still tells.

use crate::display;
use crate::history::History;
use crate::snapshot::Snapshot;
use crate::strip::Strip;
use crate::units::{bytes, count};
use ratatui::crossterm::terminal;
use ratatui::layout::Size;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

pub struct Output {
    /// On a terminal.
    live: Option<Live>,
}

struct Live {
    strip: Strip,
    history: History,
    /// The terminal's, as it was told last.
    size: Size,
}

impl Output {
    pub fn new() -> Output {
        Output { live: if io::stdout().is_terminal() { Live::new() } else { None } }
    }

    /// How often progress is worth showing.
    pub fn interval(&self) -> Duration {
        if self.live.is_some() { Duration::from_millis(200) } else { Duration::from_secs(1) }
    }

    pub fn progress(&mut self, snapshot: &Snapshot) {
        match &mut self.live {
            Some(live) => live.progress(snapshot),
            None => put(io::stdout(), &format!("{}\n", line(snapshot))),
        }
    }

    /// Text that stays.
    pub fn text(&mut self, text: &str) {
        self.clear();
        put(io::stdout(), text);
    }

    pub fn error(&mut self, line: &str) {
        self.clear();
        put(io::stderr(), &format!("loadtest: {line}\n"));
    }

    fn clear(&mut self) {
        if let Some(live) = &mut self.live {
            drop(live.strip.clear(&mut io::stdout()));
        }
    }
}

impl Live {
    /// `None` where lines cannot be drawn again, or the size is not told.
    fn new() -> Option<Live> {
        let dumb = env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
        let colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let size = size().filter(|_| !dumb)?;
        Some(Live { strip: Strip::new(colours), history: History::default(), size })
    }

    fn progress(&mut self, snapshot: &Snapshot) {
        self.size = size().unwrap_or(self.size);
        self.history.note(snapshot);
        let frame = display::draw(snapshot, &self.history, self.size);
        drop(self.strip.draw(&mut io::stdout(), &frame, self.size.height));
    }
}

/// The terminal's size; some pseudo terminals say zero.
fn size() -> Option<Size> {
    let (width, height) = terminal::size().ok()?;
    (width > 0 && height > 0).then_some(Size { width, height })
}

/// Progress as one line: for logs, and for programs.
fn line(snapshot: &Snapshot) -> String {
    let (seconds, all) = (snapshot.at / 1_000_000_000, count(snapshot.connections.into()));
    let mut line = format!("{seconds:4} s  connected {} of {all}", count(snapshot.connected.into()));
    match snapshot.phase {
        "connecting" => {}
        "warming" => line += &format!("  heard a test {}", count(snapshot.warm.into())),
        _ => {
            line += &format!(
                "  published {}  delivered {}  per second {}  under way {}",
                count(snapshot.published.into()),
                count(snapshot.delivered),
                count(snapshot.per_second),
                count(snapshot.under_way)
            );
        }
    }
    if snapshot.behind.iter().any(|clients| *clients > 0) {
        let behind = snapshot.behind[1..].iter().map(|clients| u64::from(*clients)).sum();
        line += &format!("  over 1 s behind {}", count(behind));
    }
    if let Some(server) = snapshot.server {
        line += &format!("  server {:.2} cores {}", server.cpu, bytes(server.resident));
    }
    line
}

fn put(mut stream: impl Write, text: &str) {
    drop(stream.write_all(text.as_bytes()).and_then(|()| stream.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ServerNow;

    #[test]
    fn a_line_tells_what_is_known() {
        let connecting = Snapshot {
            at: 3_200_000_000,
            phase: "connecting",
            connections: 2000,
            connected: 1500,
            ..Snapshot::default()
        };
        assert_eq!(line(&connecting), "   3 s  connected 1,500 of 2,000");
        let warming = Snapshot { phase: "warming", warm: 1200, ..connecting };
        assert_eq!(line(&warming), "   3 s  connected 1,500 of 2,000  heard a test 1,200");
        let measuring = Snapshot {
            phase: "measuring",
            published: 10,
            delivered: 14_990,
            per_second: 4_000,
            under_way: 10,
            ..warming
        };
        let counts = "   3 s  connected 1,500 of 2,000  published 10  delivered 14,990  per second 4,000  under way 10";
        assert_eq!(line(&measuring), counts);
        let server = Some(ServerNow { cpu: 1.234, resident: 12 << 20 });
        let watched = Snapshot { behind: [1_490, 4, 3, 0, 2, 1], server, ..measuring };
        assert_eq!(line(&watched), format!("{counts}  over 1 s behind 10  server 1.23 cores 12.0 MB"));
    }
}
