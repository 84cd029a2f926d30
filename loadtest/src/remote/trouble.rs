//! Trouble: why the other side of a link cannot be worked with, one clear phrase each.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Unreachable(String),
    /// The connection ended, or failed as told.
    Gone(String),
    Silent {
        seconds: u64,
    },
    /// What it sends is nothing that this version says at this place.
    Foreign,
    LineTooLong {
        bytes_max: usize,
    },
    Version {
        theirs: u32,
        ours: u32,
    },
    /// It would not begin, or could not go on, and said why.
    Refused(String),
    /// Somebody asked this process to end.
    Interrupted,
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable(cause) => {
                write!(out, "cannot be reached: {cause}; start loadtest agent there, or correct --workers")
            }
            Trouble::Gone(cause) => write!(out, "went away: {cause}; see what it printed"),
            Trouble::Silent { seconds } => write!(out, "said nothing for {seconds} s; see whether it still runs"),
            Trouble::Foreign => out.write_str("does not speak as loadtest does; correct the address"),
            Trouble::LineTooLong { bytes_max } => {
                write!(out, "has a line of more than {bytes_max} bytes; correct the address, or shorten the scenario")
            }
            Trouble::Version { theirs, ours } => {
                write!(out, "speaks version {theirs}, known is {ours}; run the same loadtest on all machines")
            }
            Trouble::Refused(reason) => out.write_str(reason),
            Trouble::Interrupted => out.write_str("was ended there; start it again"),
        }
    }
}
