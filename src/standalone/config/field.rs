//! Field: a checked value, and the Rust type it becomes.
//!
//! Between the two there is nothing left to refuse: `Kind` has checked the value. A kind that does not go with its
//! field's type is our mistake in `options.rs`, and every test that loads a configuration finds it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::Policy;
use ipnet::IpNet;

/// A checked value. What it means depends on the option's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Unset,
    Switch(bool),
    Number(u64),
    Time(Duration),
    Address(SocketAddr),
    Text(String),
    List(Vec<String>),
}

/// The secret of POST /api/publish. It shows itself only when asked.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishKey(String);

impl PublishKey {
    /// The key itself, to compare with what a publisher shows.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PublishKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The transports that clients may use; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    pub polling: bool,
    pub websocket: bool,
}

/// The origins that get CORS headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Nobody; no CORS headers are sent at all.
    Off,
    /// Everybody, "*".
    Any,
    /// These, written as browsers write them.
    Listed(Vec<String>),
}

/// Whether workers share the process's descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdTables {
    Auto,
    Shared,
    PerWorker,
}

/// How workers hand bytes to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendPath {
    Auto,
    Send,
    Uring,
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    Required,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl FdTables {
    pub fn as_str(self) -> &'static str {
        match self {
            FdTables::Auto => "auto",
            FdTables::Shared => "shared",
            FdTables::PerWorker => "per-worker",
        }
    }
}

impl SendPath {
    pub fn as_str(self) -> &'static str {
        match self {
            SendPath::Auto => "auto",
            SendPath::Send => "send",
            SendPath::Uring => "uring",
        }
    }
}

impl ProxyProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            ProxyProtocol::Off => "off",
            ProxyProtocol::Required => "required",
        }
    }
}

impl LogFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl Level {
    /// The name that `tracing` and `RUST_LOG` use too.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// A type that an option's field may have.
pub trait Field: Sized {
    fn from_value(value: Value) -> Self;
    fn to_value(&self) -> Value;
}

impl Field for bool {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Switch(on) => on,
            other => mismatch(&other),
        }
    }

    fn to_value(&self) -> Value {
        Value::Switch(*self)
    }
}

impl Field for usize {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Number(number) => usize::try_from(number).expect("every kind's maximum fits into 32 bits"),
            other => mismatch(&other),
        }
    }

    fn to_value(&self) -> Value {
        Value::Number(*self as u64)
    }
}

impl Field for Duration {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Time(duration) => duration,
            other => mismatch(&other),
        }
    }

    fn to_value(&self) -> Value {
        Value::Time(*self)
    }
}

impl Field for SocketAddr {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Address(address) => address,
            other => mismatch(&other),
        }
    }

    fn to_value(&self) -> Value {
        Value::Address(*self)
    }
}

impl Field for String {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Text(text) => text,
            other => mismatch(&other),
        }
    }

    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl Field for PathBuf {
    fn from_value(value: Value) -> Self {
        String::from_value(value).into()
    }

    fn to_value(&self) -> Value {
        Value::Text(self.to_str().expect("it was made from a string").into())
    }
}

impl Field for PublishKey {
    fn from_value(value: Value) -> Self {
        Self(String::from_value(value))
    }

    fn to_value(&self) -> Value {
        Value::Text(self.0.clone())
    }
}

impl<T: Field> Field for Option<T> {
    fn from_value(value: Value) -> Self {
        (value != Value::Unset).then(|| T::from_value(value))
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Unset, T::to_value)
    }
}

impl Field for BTreeSet<String> {
    fn from_value(value: Value) -> Self {
        list(value).into_iter().collect()
    }

    fn to_value(&self) -> Value {
        Value::List(self.iter().cloned().collect())
    }
}

impl Field for Transports {
    fn from_value(value: Value) -> Self {
        let names = list(value);
        let has = |name: &str| names.iter().any(|given| given == name);
        Self { polling: has("polling"), websocket: has("websocket") }
    }

    fn to_value(&self) -> Value {
        let names = [("polling", self.polling), ("websocket", self.websocket)];
        Value::List(names.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.into()).collect())
    }
}

impl Field for Origins {
    fn from_value(value: Value) -> Self {
        let origins = list(value);
        match origins.first().map(String::as_str) {
            None => Origins::Off,
            Some("*") => Origins::Any,
            Some(_) => Origins::Listed(origins),
        }
    }

    fn to_value(&self) -> Value {
        Value::List(match self {
            Origins::Off => Vec::new(),
            Origins::Any => vec!["*".into()],
            Origins::Listed(origins) => origins.clone(),
        })
    }
}

impl Field for FdTables {
    fn from_value(value: Value) -> Self {
        let all = [FdTables::Auto, FdTables::Shared, FdTables::PerWorker];
        chosen(&value, &all, |tables| tables.as_str())
    }

    fn to_value(&self) -> Value {
        Value::Text(self.as_str().into())
    }
}

impl Field for SendPath {
    fn from_value(value: Value) -> Self {
        chosen(&value, &[SendPath::Auto, SendPath::Send, SendPath::Uring], |path| path.as_str())
    }

    fn to_value(&self) -> Value {
        Value::Text(self.as_str().into())
    }
}

/// The library's own type: its words are the program's too.
impl Field for Policy {
    fn from_value(value: Value) -> Self {
        let all = [Policy::Evict, Policy::DropNewest, Policy::DropOldest, Policy::Conflate];
        chosen(&value, &all, policy_name)
    }

    fn to_value(&self) -> Value {
        Value::Text(policy_name(*self).into())
    }
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Evict => "evict",
        Policy::DropNewest => "drop-newest",
        Policy::DropOldest => "drop-oldest",
        Policy::Conflate => "conflate",
    }
}

impl Field for ProxyProtocol {
    fn from_value(value: Value) -> Self {
        chosen(&value, &[ProxyProtocol::Off, ProxyProtocol::Required], |protocol| protocol.as_str())
    }

    fn to_value(&self) -> Value {
        Value::Text(self.as_str().into())
    }
}

impl Field for Vec<IpNet> {
    fn from_value(value: Value) -> Self {
        list(value).iter().map(|network| network.parse().expect("the kind has checked it")).collect()
    }

    fn to_value(&self) -> Value {
        Value::List(self.iter().map(IpNet::to_string).collect())
    }
}

impl Field for LogFormat {
    fn from_value(value: Value) -> Self {
        chosen(&value, &[LogFormat::Text, LogFormat::Json], |format| format.as_str())
    }

    fn to_value(&self) -> Value {
        Value::Text(self.as_str().into())
    }
}

impl Field for Level {
    fn from_value(value: Value) -> Self {
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        chosen(&value, &levels, |level| level.as_str())
    }

    fn to_value(&self) -> Value {
        Value::Text(self.as_str().into())
    }
}

fn list(value: Value) -> Vec<String> {
    match value {
        Value::List(list) => list,
        other => mismatch(&other),
    }
}

fn chosen<T: Copy>(value: &Value, choices: &[T], name: fn(T) -> &'static str) -> T {
    let found = choices.iter().find(|choice| matches!(value, Value::Text(text) if text == name(**choice)));
    found.copied().unwrap_or_else(|| mismatch(value))
}

fn mismatch(value: &Value) -> ! {
    unreachable!("{value:?}: a kind and its field's type stand side by side in options.rs and must agree")
}
