//! Key: what a coordinator shows so that an agent works for it.
//!
//! A file, not a flag: flags are seen in the list of processes, and kept in the record of a run. It crosses the network
//! as it is, so it keeps out strangers, not those who listen on the wire.

use crate::error::{self, Error};
use std::fmt;
use std::path::Path;

/// A shorter key could be tried out.
const LETTERS_MIN: usize = 16;
/// What fits into a greeting.
const LETTERS_MAX: usize = 1024;

#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The first line of a file.
    pub fn read(path: &Path) -> Result<Key, Error> {
        let problem = |problem: String| Error::Option { option: "--key", problem };
        let text = std::fs::read_to_string(path).map_err(|error| {
            problem(format!("cannot read {}: {}; name a file that has the key", path.display(), error::cause(&error)))
        })?;
        let key = text.lines().next().unwrap_or_default().trim();
        if !(LETTERS_MIN..=LETTERS_MAX).contains(&key.len()) {
            let wanted = format!("the first line of {} has to have {LETTERS_MIN} letters", path.display());
            return Err(problem(format!("{wanted} at least, and {LETTERS_MAX} at most")));
        }
        Ok(Key(key.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// Takes as long whichever letter is wrong.
    pub fn is(&self, shown: &str) -> bool {
        let differing = self.0.bytes().zip(shown.bytes()).fold(0, |sum, (ours, theirs)| sum | (ours ^ theirs));
        self.0.len() == shown.len() && differing == 0
    }
}

/// Without the key itself.
impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_opens() {
        let key = Key("0123456789abcdef".to_owned());
        assert!(key.is("0123456789abcdef"));
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "1123456789abcdef"] {
            assert!(!key.is(wrong), "{wrong}");
        }
        assert_eq!(format!("{key:?}"), "Key");
    }
}
