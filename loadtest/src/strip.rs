//! Strip: the last lines of the terminal, drawn again in place; the scroll-back above stays as it is.
//!
//! ```text
//!     $ loadtest …                     scroll-back
//!     measuring ━━━━━━━━──── 62 %  ┐
//!     clients   2,000 of 2,000     │   the strip
//!     …                            ┘
//!     ▌                                the cursor, between frames
//! ```
//!
//! Every move is relative to the cursor, so the terminal is never asked where that is: no raw mode, no reading, nothing
//! that could hang. ratatui's own inline viewport asks, and clears the whole screen when it gets narrower.
//!
//! Invariants: between frames the cursor is visible and at the start of the line below the strip, colours are reset,
//!             and no mode is on. So the terminal is clean however the process ends.
//! Limits:     the strip is lower than the terminal. When a terminal that wraps lines anew gets narrower, what wrapped
//!             stays in the scroll-back.

use ratatui::backend::IntoCrossterm;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::cursor::{MoveToColumn, MoveToPreviousLine};
use ratatui::crossterm::queue;
use ratatui::crossterm::style::{Attribute, Print, SetAttribute, SetForegroundColor};
use ratatui::crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use ratatui::style::{Color, Modifier};
use std::io::{self, Write};

pub struct Strip {
    /// Without colours, what is bold or dim still is.
    colours: bool,
    /// Lines that stand on the terminal now.
    lines: u16,
}

impl Strip {
    pub fn new(colours: bool) -> Strip {
        Strip { colours, lines: 0 }
    }

    /// Puts `frame` where the one before was. `height` is the terminal's: a strip that no longer fits has lost its top
    /// to the scroll-back.
    pub fn draw(&mut self, stream: &mut impl Write, frame: &Buffer, height: u16) -> io::Result<()> {
        if frame.area.is_empty() {
            return self.clear(stream);
        }
        let mut bytes = Vec::new();
        queue!(bytes, BeginSynchronizedUpdate)?;
        self.return_to_top(&mut bytes, height)?;
        let rows = frame.content().chunks(frame.area.width.into());
        for (number, row) in (1..).zip(rows) {
            let last = number == frame.area.height;
            // Before the row is written: when it fills the terminal, some would clear its last character.
            queue!(bytes, Clear(if last { ClearType::FromCursorDown } else { ClearType::UntilNewLine }))?;
            self.row(&mut bytes, row)?;
            if last {
                queue!(bytes, EndSynchronizedUpdate)?;
            }
            bytes.write_all(b"\r\n")?;
        }
        self.lines = frame.area.height;
        send(stream, &bytes)
    }

    /// Takes the strip away; what is written next stands in its place.
    pub fn clear(&mut self, stream: &mut impl Write) -> io::Result<()> {
        if self.lines == 0 {
            return Ok(());
        }
        let mut bytes = Vec::new();
        self.return_to_top(&mut bytes, u16::MAX)?;
        queue!(bytes, Clear(ClearType::FromCursorDown))?;
        self.lines = 0;
        send(stream, &bytes)
    }

    fn return_to_top(&self, bytes: &mut Vec<u8>, height: u16) -> io::Result<()> {
        match self.lines.min(height.saturating_sub(1)) {
            0 => queue!(bytes, MoveToColumn(0)),
            lines => queue!(bytes, MoveToPreviousLine(lines)),
        }
    }

    fn row(&self, bytes: &mut Vec<u8>, row: &[Cell]) -> io::Result<()> {
        let used = row.iter().rposition(|cell| cell.symbol() != " ").map_or(0, |last| last + 1);
        let mut before = (Color::Reset, Modifier::empty());
        for cell in &row[..used] {
            let style = (cell.fg, cell.modifier);
            if style != before {
                self.style(bytes, style)?;
                before = style;
            }
            queue!(bytes, Print(cell.symbol()))?;
        }
        if before != (Color::Reset, Modifier::empty()) {
            queue!(bytes, SetAttribute(Attribute::Reset))?;
        }
        Ok(())
    }

    fn style(&self, bytes: &mut Vec<u8>, (colour, modifier): (Color, Modifier)) -> io::Result<()> {
        queue!(bytes, SetAttribute(Attribute::Reset))?;
        if self.colours && colour != Color::Reset {
            queue!(bytes, SetForegroundColor(colour.into_crossterm()))?;
        }
        for (flag, attribute) in [(Modifier::BOLD, Attribute::Bold), (Modifier::DIM, Attribute::Dim)] {
            if modifier.contains(flag) {
                queue!(bytes, SetAttribute(attribute))?;
            }
        }
        Ok(())
    }
}

/// In one system call, so that the process does not end within a frame: standard output passes on a text that ends with a
/// line's end, or has none, in one piece.
fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    fn frame(lines: &[&str]) -> Buffer {
        Buffer::with_lines(lines.iter().copied())
    }

    fn drawn(strip: &mut Strip, frame: &Buffer, height: u16) -> String {
        let mut bytes = Vec::new();
        strip.draw(&mut bytes, frame, height).expect("a vector takes all");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_frame_replaces_the_one_before() {
        let mut strip = Strip::new(false);
        assert_eq!(
            drawn(&mut strip, &frame(&["ab", "c "]), 24),
            "\x1b[?2026h\x1b[1G\x1b[Kab\r\n\x1b[Jc\x1b[?2026l\r\n"
        );
        let second = drawn(&mut strip, &frame(&["d"]), 24);
        assert_eq!(second, "\x1b[?2026h\x1b[2F\x1b[Jd\x1b[?2026l\r\n", "two lines up, what is left below is cleared");
        assert!(drawn(&mut strip, &frame(&["e"]), 24).contains("\x1b[1F\x1b[Je"));
    }

    #[test]
    fn a_terminal_that_got_lower_keeps_its_scroll_back() {
        let mut strip = Strip::new(false);
        drawn(&mut strip, &frame(&["1", "2", "3", "4"]), 24);
        assert!(drawn(&mut strip, &frame(&["1"]), 3).contains("\x1b[2F\x1b[J1"), "the other two have scrolled away");
    }

    #[test]
    fn without_room_it_is_taken_away() {
        let mut strip = Strip::new(false);
        drawn(&mut strip, &frame(&["1", "2"]), 24);
        assert_eq!(drawn(&mut strip, &Buffer::empty(Rect::new(0, 0, 80, 0)), 1), "\x1b[2F\x1b[J");
        assert_eq!(drawn(&mut strip, &Buffer::empty(Rect::new(0, 0, 80, 0)), 1), "");
    }

    #[test]
    fn it_is_cleared_once() {
        let (mut strip, mut bytes) = (Strip::new(false), Vec::new());
        drawn(&mut strip, &frame(&["1", "2"]), 24);
        strip.clear(&mut bytes).and_then(|()| strip.clear(&mut bytes)).expect("a vector takes all");
        assert_eq!(bytes, b"\x1b[2F\x1b[J");
    }

    #[test]
    fn styles_end_with_their_row_and_colours_only_where_they_are_wanted() {
        let mut frame = frame(&["ab"]);
        frame.set_style(frame.area, Style::new().red().bold());
        let plain = drawn(&mut Strip::new(false), &frame, 24);
        assert!(plain.contains("\x1b[0m\x1b[1mab\x1b[0m"), "{plain:?}");
        let coloured = drawn(&mut Strip::new(true), &frame, 24);
        assert!(coloured.len() > plain.len() && coloured.contains("\x1b[1mab\x1b[0m"), "{coloured:?}");
    }
}
