//! Kind: what an option accepts, from a raw value to a checked one.
//!
//! A flag or a variable gives words, the file gives typed values. `read_word` makes the first look like the second,
//! so that there is one check: "25000" in a variable is the number, while in the file a quoted number is a mistake.
//!
//! Invariant: `check` accepts what `write` writes, except a masked secret.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::error::Problem;
use super::field::Value;
use super::given::Raw;
use super::nearest::nearest;
use super::text::{quoted, read_duration, read_size, write_duration, write_size};

/// What an option accepts.
#[derive(Debug)]
pub enum Kind {
    Switch,
    Count {
        min: u64,
        max: u64,
    },
    /// In bytes.
    Size {
        min: u64,
        max: u64,
    },
    Time {
        min: Duration,
        max: Duration,
    },
    Address,
    UrlPath,
    /// A secret: never shown, neither in a message nor by `fanfare config`.
    Key,
    Directory,
    CookieName,
    Choice(&'static [&'static str]),
    /// A list of some of these, not empty.
    Choices(&'static [&'static str]),
    Origins,
    Events,
    /// A list of IP addresses and networks.
    Networks,
}

/// What `fanfare config` shows in place of a secret.
pub const MASK: &str = "***";

const KEY_CHARS_MIN: usize = 16;

/// Events with a meaning of their own: Socket.IO's, which no client can emit, and ours.
const RESERVED_EVENTS: [&str; 8] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener", "join", "leave"];

impl Kind {
    pub fn is_list(&self) -> bool {
        matches!(self, Kind::Choices(_) | Kind::Origins | Kind::Events | Kind::Networks)
    }

    pub fn is_secret(&self) -> bool {
        matches!(self, Kind::Key)
    }

    /// What stands for the value in the help.
    pub fn placeholder(&self) -> String {
        match self {
            Kind::Switch => "true|false".into(),
            Kind::Count { .. } => "NUMBER".into(),
            Kind::Size { .. } => "SIZE".into(),
            Kind::Time { .. } => "DURATION".into(),
            Kind::Address => "ADDRESS".into(),
            Kind::UrlPath => "PATH".into(),
            Kind::Key => "KEY".into(),
            Kind::Directory => "DIR".into(),
            Kind::CookieName | Kind::Events => "NAME".into(),
            Kind::Origins => "ORIGIN".into(),
            Kind::Networks => "NETWORK".into(),
            Kind::Choice(choices) | Kind::Choices(choices) => choices.join("|"),
        }
    }

    /// What is allowed, as the end of a message.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Switch => "true or false".into(),
            Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Size { min, max } => format!(
                r#"{} to {}, written like "1MB", "64KiB" or as a whole number of bytes"#,
                size(*min),
                size(*max)
            ),
            Kind::Time { min, max } => format!(
                r#"{} to {}, written like "25s", "500ms", "2m" or as a whole number of milliseconds"#,
                write_duration(*min),
                write_duration(*max)
            ),
            Kind::Address => r#"an IP address and a port, like "127.0.0.1:3000" or "[::1]:3000""#.into(),
            Kind::UrlPath => r#"a path of one or more names, like "/socket.io""#.into(),
            Kind::Key => format!("at least {KEY_CHARS_MIN} visible ASCII characters, no spaces"),
            Kind::Directory => "a directory that exists".into(),
            Kind::CookieName => r#"a cookie's name, like "io": letters, digits and !#$%&'*+-.^_`|~"#.into(),
            Kind::Choice(choices) => choices.join(", "),
            Kind::Choices(choices) => format!("a list of one or more of {}", choices.join(", ")),
            Kind::Origins => {
                r#""*", or a list of origins like "https://example.com": scheme://host[:port], no path"#.into()
            }
            Kind::Events => "a list of event names".into(),
            Kind::Networks => r#"a list of IP addresses, like "192.0.2.1", or networks, like "10.0.0.0/8""#.into(),
        }
    }

    /// The word of a flag or a variable, typed as the file would have it. A list's words are separated by commas.
    pub fn read_word(&self, word: &str) -> Raw {
        let text = || Raw::Text(word.into());
        match self {
            Kind::Switch => word.parse().map_or_else(|_| text(), Raw::Switch),
            Kind::Count { .. } | Kind::Size { .. } | Kind::Time { .. } => {
                word.parse().map_or_else(|_| text(), Raw::Number)
            }
            _ if self.is_list() && word.trim().is_empty() => Raw::List(Vec::new()),
            _ if self.is_list() => Raw::List(word.split(',').map(|item| Raw::Text(item.trim().into())).collect()),
            _ => text(),
        }
    }

    /// The border: what passes here is trusted from here on.
    pub fn check(&self, raw: &Raw) -> Result<Value, Problem> {
        match (self, raw) {
            (Kind::Switch, Raw::Switch(on)) => Ok(Value::Switch(*on)),
            (Kind::Count { min, max }, Raw::Number(number)) => self.within(raw, *number, *min, *max).map(Value::Number),
            (Kind::Size { min, max }, Raw::Number(number)) => self.within(raw, *number, *min, *max).map(Value::Number),
            (Kind::Size { min, max }, Raw::Text(text)) => {
                let bytes = read_size(text).ok_or_else(|| self.malformed(raw))?;
                self.within(raw, bytes.into(), *min, *max).map(Value::Number)
            }
            (Kind::Time { min, max }, Raw::Number(number)) => self.time(raw, *number, *min, *max),
            (Kind::Time { min, max }, Raw::Text(text)) => {
                let duration = read_duration(text).ok_or_else(|| self.malformed(raw))?;
                self.time(raw, ms(duration), *min, *max)
            }
            (Kind::Address, Raw::Text(text)) => {
                text.parse::<SocketAddr>().map(Value::Address).map_err(|_| self.malformed(raw))
            }
            (Kind::UrlPath, Raw::Text(text)) => url_path(text).map(Value::Text).ok_or_else(|| self.malformed(raw)),
            (Kind::Key, Raw::Text(text)) => key(text, self.allowed()),
            (Kind::Directory, Raw::Text(text)) => directory(text),
            (Kind::CookieName, Raw::Text(text)) if is_token(text) => Ok(Value::Text(text.clone())),
            (Kind::CookieName, Raw::Text(_)) => Err(self.malformed(raw)),
            (Kind::Choice(choices), Raw::Text(text)) => self.chosen(choices, text).map(Value::Text),
            (Kind::Choices(choices), Raw::List(items)) => {
                let names = self.each(items, |text| self.chosen(choices, text))?;
                if names.is_empty() {
                    Err(Problem::EmptyList { allowed: self.allowed() })
                } else {
                    Ok(Value::List(names))
                }
            }
            (Kind::Origins, Raw::List(items)) => self.origins(items),
            (Kind::Origins, Raw::Text(_)) => self.origins(std::slice::from_ref(raw)),
            (Kind::Events, Raw::List(items)) => self.each(items, event).map(Value::List),
            (Kind::Networks, Raw::List(items)) => {
                let malformed = |text: &str| Problem::Malformed { given: quoted(text), allowed: self.allowed() };
                self.each(items, |text| network(text).ok_or_else(|| malformed(text))).map(Value::List)
            }
            _ => Err(self.wrong_type(raw)),
        }
    }

    /// The value as the file would have it.
    pub fn write(&self, value: &Value) -> String {
        match value {
            Value::Unset => unreachable!("an unset option has nothing to write"),
            Value::Text(_) if self.is_secret() => quoted(MASK),
            Value::Switch(on) => on.to_string(),
            Value::Number(bytes) if matches!(self, Kind::Size { .. }) => {
                write_size(*bytes).map_or_else(|| bytes.to_string(), |text| quoted(&text))
            }
            Value::Number(number) => number.to_string(),
            Value::Time(duration) => quoted(&write_duration(*duration)),
            Value::Address(address) => quoted(&address.to_string()),
            Value::Text(text) => quoted(text),
            Value::List(items) => {
                format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn within(&self, raw: &Raw, number: i128, min: u64, max: u64) -> Result<u64, Problem> {
        let number = u64::try_from(number).ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| Problem::OutOfRange { given: raw.to_string(), allowed: self.allowed() })
    }

    fn time(&self, raw: &Raw, number: i128, min: Duration, max: Duration) -> Result<Value, Problem> {
        let bounds = [min, max].map(|bound| u64::try_from(ms(bound)).expect("the bounds are hours at most"));
        self.within(raw, number, bounds[0], bounds[1]).map(|ms| Value::Time(Duration::from_millis(ms)))
    }

    fn chosen(&self, choices: &[&str], text: &str) -> Result<String, Problem> {
        if choices.contains(&text) {
            return Ok(text.into());
        }
        let nearest = nearest(text, choices.iter().map(|choice| (choice.to_string(), choice.to_string())));
        Err(Problem::NotOffered { given: quoted(text), nearest, allowed: self.allowed() })
    }

    fn origins(&self, items: &[Raw]) -> Result<Value, Problem> {
        let read = |text: &str| if text == "*" { Some("*".into()) } else { origin(text) };
        let malformed = |text: &str| Problem::Malformed { given: quoted(text), allowed: self.allowed() };
        let origins = self.each(items, |text| read(text).ok_or_else(|| malformed(text)))?;
        if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
            return Err(Problem::StarAmongOrigins);
        }
        Ok(Value::List(origins))
    }

    /// A list of texts, each of which passes `check_one` and comes once.
    fn each(&self, items: &[Raw], check_one: impl Fn(&str) -> Result<String, Problem>) -> Result<Vec<String>, Problem> {
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for item in items {
            let Raw::Text(text) = item else { return Err(self.wrong_type(item)) };
            let text = check_one(text)?;
            if !seen.insert(text.clone()) {
                return Err(Problem::Duplicate { given: quoted(&text) });
            }
            out.push(text);
        }
        Ok(out)
    }

    fn malformed(&self, raw: &Raw) -> Problem {
        Problem::Malformed { given: raw.to_string(), allowed: self.allowed() }
    }

    fn wrong_type(&self, raw: &Raw) -> Problem {
        let given = if self.is_secret() { "what was given".into() } else { raw.to_string() };
        Problem::WrongType { given, allowed: self.allowed() }
    }
}

fn size(bytes: u64) -> String {
    write_size(bytes).unwrap_or_else(|| bytes.to_string())
}

fn ms(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).unwrap_or(i128::MAX)
}

/// "/a/b" without the slash that may stand at its end. What a URL parser would change or cut off is refused,
/// since no request could ever match it.
fn url_path(text: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c);
    let path = text.strip_suffix('/').unwrap_or(text);
    let mut names = path.strip_prefix('/')?.split('/');
    let good = names.all(|name| !["", ".", ".."].contains(&name) && name.chars().all(is_plain));
    good.then(|| path.into())
}

/// The key travels in an HTTP header, where spaces and other alphabets get lost on the way.
fn key(text: &str, allowed: String) -> Result<Value, Problem> {
    if text == MASK {
        return Err(Problem::KeyMasked);
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Problem::KeyNotVisible { allowed });
    }
    if text.len() < KEY_CHARS_MIN {
        return Err(Problem::KeyTooShort { chars: text.len(), allowed });
    }
    Ok(Value::Text(text.into()))
}

fn directory(text: &str) -> Result<Value, Problem> {
    let path = Path::new(text);
    if path.is_dir() {
        return Ok(Value::Text(text.into()));
    }
    let given = quoted(text);
    Err(if path.exists() { Problem::NotADirectory { given } } else { Problem::DirectoryMissing { given } })
}

/// A token of RFC 9110, which is what RFC 6265 wants as a cookie's name.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// A network as it is compared: an address alone is a network of one, and what lies behind the prefix is zero.
fn network(text: &str) -> Option<String> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(alone).map(|network| network.trunc().to_string())
}

fn event(text: &str) -> Result<String, Problem> {
    if text.is_empty() || RESERVED_EVENTS.contains(&text) {
        return Err(Problem::ReservedEvent { given: quoted(text) });
    }
    Ok(text.into())
}

/// `scheme://host[:port]`, as a browser would write it in its `Origin` header: lower-case, without the scheme's own
/// port.
fn origin(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://")?;
    let (host, port) = match rest.rfind(':').filter(|colon| !rest[*colon..].contains(']')) {
        Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
        None => (rest, None),
    };
    let host = host_of_origin(host).filter(|_| is_scheme(scheme))?;
    let port = match port {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok().filter(|n| *n > 0u16)?),
        Some(_) => return None,
        None => None,
    };
    Some(match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

fn host_of_origin(text: &str) -> Option<String> {
    if let Some(inside) = text.strip_prefix('[') {
        return inside.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|ip| format!("[{ip}]"));
    }
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    (!text.is_empty() && text.chars().all(is_name)).then(|| text.into())
}
