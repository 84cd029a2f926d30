//! Render: the configuration in effect, as TOML that can be fed back.
//!
//! Above each key stands what it means, behind it where its value came from. An option that is unset stands in a
//! comment.

use super::Config;
use super::options::{Namespace, Room, Section, namespace_prefix, room_prefix};

const HEADER: &str = "\
# The configuration in effect. Behind each value stands its source;
# the strongest wins: flag, FANFARE_ variable, file, default.
";

pub fn render(config: &Config) -> String {
    let Config { server, engine, cors, limits, namespaces, rooms, log, sources: _ } = config;
    let mut out = HEADER.to_string();
    section(&mut out, config, "server", server);
    section(&mut out, config, "engine", engine);
    section(&mut out, config, "cors", cors);
    section(&mut out, config, "limits", limits);
    for (name, namespace) in namespaces {
        section::<Namespace>(&mut out, config, &namespace_prefix(name), namespace);
        for ((_, room), rules) in rooms.iter().filter(|((namespace, _), _)| namespace == name) {
            section::<Room>(&mut out, config, &room_prefix(name, room), rules);
        }
    }
    section(&mut out, config, "log", log);
    out
}

fn section<S: Section>(out: &mut String, config: &Config, prefix: &str, section: &S) {
    out.push_str(&format!("\n[{prefix}]\n"));
    for (spec, value) in S::OPTIONS.iter().zip(section.values()) {
        let source = config.source(&format!("{prefix}.{}", spec.name)).to_string();
        // A path may hold a line break, and a comment ends there.
        let source = source.replace(char::is_control, "?");
        out.push_str(&format!("# {}\n", spec.meaning()));
        match value {
            super::Value::Unset => out.push_str(&format!("# {} is unset # {source}\n", spec.name)),
            value => out.push_str(&format!("{} = {} # {source}\n", spec.name, spec.kind.write(&value))),
        }
    }
}
