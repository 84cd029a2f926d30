//! Given: the values of all sources, by key, before they are checked.
//!
//! Filled by the file, the variables and the flags in any order; emptied by the loader, key by key, weakest source
//! first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::source::Source;
use super::text::quoted;

/// A value as it was given, typed but not yet checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    Switch(bool),
    Number(i128),
    Text(String),
    List(Vec<Raw>),
    /// What no option wants, described for the message: a float, a date, a table.
    Other(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Switch(on) => write!(f, "{on}"),
            Raw::Number(number) => write!(f, "{number}"),
            Raw::Text(text) => f.write_str(&quoted(text)),
            Raw::List(_) => f.write_str("a list"),
            Raw::Other(description) => f.write_str(description),
        }
    }
}

#[derive(Default)]
pub struct Given {
    by_key: BTreeMap<String, Vec<(Source, Raw)>>,
    /// Every namespace that the file names, also one without a single option.
    pub namespaces: BTreeSet<String>,
    /// Every room that the file names, behind its namespace.
    pub rooms: BTreeSet<(String, String)>,
}

impl Given {
    pub fn push(&mut self, key: String, source: Source, raw: Raw) {
        self.by_key.entry(key).or_default().push((source, raw));
    }

    /// What the sources gave for `key`, weakest first.
    pub fn take(&mut self, key: &str) -> Vec<(Source, Raw)> {
        let mut values = self.by_key.remove(key).unwrap_or_default();
        values.sort_by(|(left, _), (right, _)| left.cmp(right));
        values
    }
}
