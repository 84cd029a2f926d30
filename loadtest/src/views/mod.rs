//! Views: what people and other programs see of a finished run. Each is a function of its record and of nothing else.
//!
//! ```text
//!     record ─┬─ summary ───────────────────────────▶ terminal
//!             ├─ csv ───────────────────────────────▶ file
//!             └─ html ◀── over_time, delays ◀── chart ─▶ file
//!     two records ── compare ───────────────────────▶ terminal
//! ```
//!
//! A record says what a server said: its URL, its errors. So whatever is text in it is escaped for where it goes.

mod chart;
mod compare;
mod csv;
mod delays;
mod html;
mod over_time;
mod summary;

pub use compare::compare;
pub use csv::csv;
pub use html::html;
pub use summary::summary;

/// A text of the record for the terminal: nothing in it moves the cursor or begins a line of its own.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// What a message goes to.
fn audience(rooms: u32) -> String {
    match rooms {
        0 => "everyone".to_owned(),
        1 => "1 room".to_owned(),
        rooms => format!("{} rooms", crate::units::count(rooms.into())),
    }
}
