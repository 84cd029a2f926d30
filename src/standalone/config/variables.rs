//! Variables: the `FANFARE_…` part of the environment.
//!
//! A variable that nobody knows is an error: a misspelt one would be silently without effect. The exception are the
//! variables that a cluster manager sets by itself in every container when a service is called "fanfare" or
//! "fanfare-…": `FANFARE_SERVICE_HOST`, `FANFARE_PORT=tcp://…`, `FANFARE_PORT_3000_TCP_ADDR` and their like. They are
//! ignored.

use std::path::PathBuf;

use super::error::{ConfigError, Problem};
use super::given::Given;
use super::nearest::nearest;
use super::options::{Spec, options};
use super::source::Source;

const PREFIX: &str = "FANFARE_";
const CONFIG: &str = "FANFARE_CONFIG";

/// The `FANFARE_…` variables of this process. Bytes that are not UTF-8 become "�", which the checks then see.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let words = std::env::vars_os().map(|(name, value)| (lossy(&name), lossy(&value)));
    words.filter(|(name, _)| name.starts_with(PREFIX))
}

/// Notes every value in `given`, and every variable that nobody knows in `errors`; answers the file's path, if one is
/// named.
pub fn collect(
    env: impl Iterator<Item = (String, String)>,
    given: &mut Given,
    errors: &mut Vec<ConfigError>,
) -> Option<(PathBuf, Source)> {
    let mut file = None;
    for (name, value) in env.filter(|(name, _)| name.starts_with(PREFIX)) {
        let source = Source::Variable(name.clone());
        if name == CONFIG {
            file = Some((PathBuf::from(value), source));
        } else if let Some(spec) = options().find(|spec| spec.variable() == name) {
            given.push(spec.key(), source, spec.kind.read_word(&value));
        } else if !is_service_link(&name, &value) {
            let problem = Problem::UnknownVariable { nearest: nearest_variable(&name) };
            errors.push(ConfigError { option: name, source, problem });
        }
    }
    file
}

fn lossy(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Whether a cluster manager made this variable for a service of ours or a neighbour's.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_port_part = name.split("_PORT_").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_link)
        || is_port_part
}

/// Also finds the name with its section in it, `FANFARE_SERVER_LISTEN`.
fn nearest_variable(name: &str) -> Option<String> {
    let short = |spec: &Spec| (spec.variable()[PREFIX.len()..].to_string(), spec.variable());
    let long = |spec: &Spec| (format!("{}_{}", spec.section, spec.name), spec.variable());
    let config = (CONFIG[PREFIX.len()..].to_string(), CONFIG.to_string());
    let known = options().flat_map(|spec| [short(spec), long(spec)]).chain([config]);
    nearest(&name[PREFIX.len()..], known)
}
