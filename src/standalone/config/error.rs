//! Error: what an operator got wrong, where it stands, and the way out.
//!
//! One line each: the option, where the value came from, what was given and what is allowed. A secret is never quoted.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::source::Source;
use super::text::quoted;

/// Every mistake of one run, at least one: those of the file by line, then the variables', then the flags'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The option's key, such as `server.listen`, or the unknown name that was given.
    pub option: String,
    /// Where the value stands.
    pub source: Source,
    /// The rule it breaks.
    pub problem: Problem,
}

/// The rules, each with what is needed to say how it was broken. `given` is quoted already where it is a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    UnknownKey { nearest: Option<String>, known: String },
    UnknownVariable { nearest: Option<String> },
    NotATable { given: String },
    NamespaceName,
    RoomName,
    WrongType { given: String, allowed: String },
    Malformed { given: String, allowed: String },
    OutOfRange { given: String, allowed: String },
    NotOffered { given: String, nearest: Option<String>, allowed: String },
    EmptyList { allowed: String },
    Duplicate { given: String },
    StarAmongOrigins,
    ReservedEvent { given: String },
    KeyMasked,
    KeyTooShort { chars: usize, allowed: String },
    KeyNotVisible { allowed: String },
    DirectoryMissing { given: String },
    NotADirectory { given: String },
    ExposedWithoutKey { listen: SocketAddr },
    CredentialsForEveryone,
    Unreadable { path: PathBuf, reason: String },
    Syntax { reason: String, text: String },
}

impl ConfigErrors {
    /// What the process ends with when its configuration is refused.
    pub const EXIT_CODE: u8 = 2;

    /// `Err` with the errors in order, unless there are none.
    pub(super) fn none_or(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        errors.sort_by(|left, right| left.source.cmp(&right.source));
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 problem in the configuration:")?,
            count => write!(f, "{count} problems in the configuration:")?,
        }
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, source, problem } = self;
        match problem {
            Problem::UnknownVariable { .. } => write!(f, "{source}: {problem}"),
            _ => write!(f, "{option} ({source}): {problem}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::UnknownKey { nearest: Some(nearest), .. } => write!(f, "unknown key; did you mean {nearest}?"),
            Problem::UnknownKey { nearest: None, known } => write!(f, "unknown key; allowed here: {known}"),
            Problem::UnknownVariable { nearest: Some(nearest) } => {
                write!(f, "unknown variable; did you mean {nearest}?")
            }
            Problem::UnknownVariable { nearest: None } => {
                f.write_str("unknown variable; `fanfare serve --help` lists those that begin with FANFARE_")
            }
            Problem::NotATable { given } => write!(f, "{given} is not a table of options"),
            Problem::NamespaceName => {
                f.write_str(r#"not a namespace's name; allowed: "/" followed by anything but a comma, like "/admin""#)
            }
            Problem::RoomName => f.write_str(
                r#""*" stands at the end only; allowed: a room's name, or how names begin and "*", like "ticker:*""#,
            ),
            Problem::WrongType { given, allowed } => write!(f, "{given} is of the wrong type; allowed: {allowed}"),
            Problem::Malformed { given, allowed } => write!(f, "{given} is malformed; allowed: {allowed}"),
            Problem::OutOfRange { given, allowed } => write!(f, "{given} is out of range; allowed: {allowed}"),
            Problem::NotOffered { given, nearest: Some(nearest), allowed } => {
                write!(f, "{given} is not offered; did you mean {nearest}? allowed: {allowed}")
            }
            Problem::NotOffered { given, nearest: None, allowed } => {
                write!(f, "{given} is not offered; allowed: {allowed}")
            }
            Problem::EmptyList { allowed } => write!(f, "the list is empty; allowed: {allowed}"),
            Problem::Duplicate { given } => write!(f, "{given} is given twice"),
            Problem::StarAmongOrigins => {
                f.write_str(r#""*" already means every origin; either "*" alone or the list without it"#)
            }
            Problem::ReservedEvent { given } => {
                write!(f, "{given} cannot be published: it is empty, one of Socket.IO's own events, or join or leave")
            }
            Problem::KeyMasked => f.write_str(
                "\"***\" is what `fanfare config` prints in place of the key; \
                 write the key itself here, or remove this and set FANFARE_PUBLISH_KEY",
            ),
            Problem::KeyTooShort { chars, allowed } => write!(f, "{chars} characters are too few; allowed: {allowed}"),
            Problem::KeyNotVisible { allowed } => {
                write!(f, "it has a space or another character that an HTTP header does not carry; allowed: {allowed}")
            }
            Problem::DirectoryMissing { given } => write!(f, "{given} does not exist; allowed: a directory"),
            Problem::NotADirectory { given } => write!(f, "{given} is not a directory"),
            Problem::ExposedWithoutKey { listen } => write!(
                f,
                "{listen} is not loopback and server.publish_key is not set, \
                 so anyone who reaches the port could publish to everyone; \
                 set server.publish_key (or FANFARE_PUBLISH_KEY), or listen on loopback, like 127.0.0.1:{}",
                listen.port()
            ),
            Problem::CredentialsForEveryone => f.write_str(
                "browsers refuse credentials where cors.origins is \"*\"; \
                 list the origins, or set cors.credentials to false",
            ),
            Problem::Unreadable { path, reason } => {
                write!(f, "cannot read {}: {reason}", quoted(&path.to_string_lossy()))
            }
            Problem::Syntax { reason, text } => write!(f, "not valid TOML: {reason}\n    | {text}"),
        }
    }
}
