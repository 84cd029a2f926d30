//! File: a TOML text becomes raw values, each with its line.
//!
//! The parser's own tree is walked instead of deserializing into structs: it knows where each key stands, and the walk
//! can go on after a mistake, so that all of them are reported.
//!
//! Not here: whether a value is good (kind.rs).

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::{ConfigError, Problem};
use super::given::{Given, Raw};
use super::nearest::nearest;
use super::options::{Namespace, Room, SECTIONS, Section, Spec, namespace_prefix, options, room_prefix};
use super::source::Source;
use super::text::quoted;

/// Socket.IO's names for what has another name here; the rest differ only in spelling, which `nearest` sees through.
const RENAMED: [(&str, &str); 2] =
    [("maxHttpBufferSize", "engine.payload_bytes_max"), ("serveClient", "server.client_dir")];

/// Notes every value of `text` in `given`, and every key that nobody knows in `errors`.
pub fn collect(text: &str, path: &Path, given: &mut Given, errors: &mut Vec<ConfigError>) {
    let mut walk = Walk { text, path, given, errors };
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    if syntax_errors.is_empty() {
        walk.root(root.get_ref());
    }
    // After a syntax error the tree is a guess: values without a key, keys in the wrong table.
    for error in syntax_errors {
        walk.syntax(error.message(), error.span().unwrap_or(0..0));
    }
}

struct Walk<'a> {
    text: &'a str,
    path: &'a Path,
    given: &'a mut Given,
    errors: &'a mut Vec<ConfigError>,
}

type Key<'a> = Spanned<DeString<'a>>;

impl Walk<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        for (key, value) in root {
            let name = key.get_ref().as_ref();
            match (SECTIONS.contains(&name), value.get_ref()) {
                (false, other) => self.unknown_root(key, other.is_table()),
                (true, DeValue::Table(table)) if name == Namespace::NAME => self.namespaces(table),
                (true, DeValue::Table(table)) => {
                    self.section(name, table, options().filter(|spec| spec.section == name), None)
                }
                (true, other) => self.not_a_table(key, name.into(), other),
            }
        }
    }

    fn namespaces(&mut self, namespaces: &DeTable<'_>) {
        for (key, value) in namespaces {
            let name = key.get_ref().as_ref();
            let prefix = namespace_prefix(name);
            // A packet ends its namespace with a comma, so a name with a comma could never be joined.
            if !name.starts_with('/') || name.contains(',') {
                self.refuse(key.span(), prefix, Problem::NamespaceName);
                continue;
            }
            match value.get_ref() {
                DeValue::Table(table) => {
                    self.given.namespaces.insert(name.into());
                    self.section(&prefix, table, Namespace::OPTIONS.iter(), Some(Room::NAME));
                    let is_rooms = |(key, _): &(&Key<'_>, _)| key.get_ref().as_ref() == Room::NAME;
                    match table.iter().find(is_rooms).map(|(key, value)| (key, value.get_ref())) {
                        None => {}
                        Some((_, DeValue::Table(rooms))) => self.rooms(name, rooms),
                        Some((key, other)) => self.not_a_table(key, format!("{prefix}.{}", Room::NAME), other),
                    }
                }
                other => self.not_a_table(key, prefix, other),
            }
        }
    }

    fn rooms(&mut self, namespace: &str, rooms: &DeTable<'_>) {
        for (key, value) in rooms {
            let name = key.get_ref().as_ref();
            let prefix = room_prefix(namespace, name);
            if name.strip_suffix('*').unwrap_or(name).contains('*') {
                self.refuse(key.span(), prefix, Problem::RoomName);
                continue;
            }
            match value.get_ref() {
                DeValue::Table(table) => {
                    self.given.rooms.insert((namespace.into(), name.into()));
                    self.section(&prefix, table, Room::OPTIONS.iter(), None);
                }
                other => self.not_a_table(key, prefix, other),
            }
        }
    }

    /// One table of options, in which there may be one of tables, which is not for here.
    fn section(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        specs: impl Iterator<Item = &'static Spec>,
        tables: Option<&'static str>,
    ) {
        let specs: Vec<_> = specs.collect();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if tables == Some(name) {
                continue;
            }
            if specs.iter().any(|spec| spec.name == name) {
                let source = self.source(key.span());
                self.given.push(format!("{prefix}.{name}"), source, raw(value.get_ref()));
            } else {
                let known: Vec<_> = specs.iter().map(|spec| spec.name).chain(tables).collect();
                self.unknown_key(key, prefix, &known);
            }
        }
    }

    /// A table is compared with the sections, anything else with the options: it probably lost its section's header.
    fn unknown_root(&mut self, key: &Key<'_>, is_table: bool) {
        let name = key.get_ref().as_ref();
        let sections = SECTIONS.iter().map(|section| (section.to_string(), format!("[{section}]")));
        let nearest = if is_table { nearest(name, sections) } else { nearest_option(name, std::iter::empty()) };
        let known = SECTIONS.map(|section| format!("[{section}]")).join(", ");
        self.refuse(key.span(), bare_or_quoted(name), Problem::UnknownKey { nearest, known });
    }

    fn unknown_key(&mut self, key: &Key<'_>, prefix: &str, known: &[&'static str]) {
        let name = key.get_ref().as_ref();
        let siblings = known.iter().map(|known| (known.to_string(), format!("{prefix}.{known}")));
        let nearest = nearest_option(name, siblings);
        let known = known.join(", ");
        let option = format!("{prefix}.{}", bare_or_quoted(name));
        self.refuse(key.span(), option, Problem::UnknownKey { nearest, known });
    }

    fn not_a_table(&mut self, key: &Key<'_>, option: String, value: &DeValue<'_>) {
        self.refuse(key.span(), option, Problem::NotATable { given: raw(value).to_string() });
    }

    fn syntax(&mut self, reason: &str, span: Range<usize>) {
        let source = self.source(span.clone());
        let line = self.text[..self.floor(span.start)].matches('\n').count();
        let line_at = |index| self.text.lines().nth(index).unwrap_or_default().trim_end();
        // The line before counts too: a value may begin there and go on here.
        let may_hold_a_secret = (line.saturating_sub(1)..=line).any(|index| mentions_a_secret(line_at(index)));
        let text = if may_hold_a_secret { "(not shown: it may hold the key)" } else { line_at(line) };
        let problem = Problem::Syntax { reason: reason.into(), text: text.into() };
        self.errors.push(ConfigError { option: "config".into(), source, problem });
    }

    fn refuse(&mut self, span: Range<usize>, option: String, problem: Problem) {
        let source = self.source(span);
        self.errors.push(ConfigError { option, source, problem });
    }

    fn source(&self, span: Range<usize>) -> Source {
        let line = self.text[..self.floor(span.start)].matches('\n').count() + 1;
        Source::File { path: self.path.into(), line }
    }

    /// A syntax error may point at the end of the text, or between the bytes of a character.
    fn floor(&self, at: usize) -> usize {
        (0..=at.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
    }
}

/// Among equally near names the siblings win, since they come first; but `connect_timeout` under `[limits]` is the one
/// of `[engine]`, however much it looks like `limits.request_timeout`.
fn nearest_option(name: &str, siblings: impl Iterator<Item = (String, String)>) -> Option<String> {
    let renamed = RENAMED.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| ours.to_string());
    renamed.or_else(|| nearest(name, siblings.chain(options().map(|spec| (spec.name.into(), spec.key())))))
}

fn mentions_a_secret(line: &str) -> bool {
    options().any(|spec| spec.kind.is_secret() && line.contains(spec.name))
}

fn bare_or_quoted(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.into() } else { quoted(key) }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Raw::Other("a number of that size".into()), Raw::Number),
        DeValue::Float(float) => Raw::Other(float.as_str().into()),
        DeValue::Boolean(on) => Raw::Switch(*on),
        DeValue::Datetime(_) => Raw::Other("a date or time".into()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(_) => Raw::Other("a table".into()),
    }
}
