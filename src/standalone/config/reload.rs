//! Reload: what a server that runs makes of a new configuration.
//!
//! Whether an option can change stands beside it in options.rs. Those that can take the new value, the others keep the
//! old one and are named. Then the rules that need more than one option are asked again: a new file may be fine by itself
//! and not beside an old value, such as no publish key and an address that the server cannot leave.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{ConfigError, ConfigErrors};
use super::options::{
    Cors, Engine, Limits, Log, Namespace, Reload, Room, Section, Server, namespace_prefix, room_prefix,
};
use super::{Config, broken_rules};

type Rooms = BTreeMap<(String, String), Room>;

/// A new configuration, as far as a server that runs can have it.
#[derive(Debug)]
pub struct Reloaded {
    pub config: Config,
    /// The options that have another value now.
    pub changed: Vec<String>,
    /// The options that need a restart and keep their values.
    pub kept: Vec<String>,
}

pub fn reload(running: &Config, new: &Config) -> Result<Reloaded, ConfigErrors> {
    let mut merge = Merge::default();
    let config = Config {
        server: merge.section(Server::NAME, &running.server, &new.server),
        engine: merge.section(Engine::NAME, &running.engine, &new.engine),
        cors: merge.section(Cors::NAME, &running.cors, &new.cors),
        limits: merge.section(Limits::NAME, &running.limits, &new.limits),
        namespaces: merge.namespaces(&running.namespaces, &new.namespaces),
        rooms: merge.rooms(&running.rooms, &new.rooms),
        log: merge.section(Log::NAME, &running.log, &new.log),
        sources: new.sources.clone(),
    };
    let as_error = |([option, _], problem): ([&str; 2], _)| ConfigError {
        option: option.into(),
        source: config.source(option).clone(),
        problem,
    };
    let Merge { changed, kept } = merge;
    ConfigErrors::none_or(broken_rules(&config).into_iter().map(as_error).collect()).map(|()| Reloaded {
        config,
        changed,
        kept,
    })
}

#[derive(Default)]
struct Merge {
    changed: Vec<String>,
    kept: Vec<String>,
}

impl Merge {
    fn section<S: Section>(&mut self, prefix: &str, running: &S, new: &S) -> S {
        let mut values = running.values().into_iter().zip(new.values());
        S::build(|spec| {
            let (running, new) = values.next().expect("one value per option");
            let (value, list) = match spec.reload {
                Reload::Live => (new.clone(), &mut self.changed),
                Reload::Restart => (running.clone(), &mut self.kept),
            };
            if running != new {
                list.push(format!("{prefix}.{}", spec.name));
            }
            value
        })
    }

    /// A namespace that clients are in cannot go, and whether one is there is no option but a table. So none comes either.
    fn namespaces(
        &mut self,
        running: &BTreeMap<String, Namespace>,
        new: &BTreeMap<String, Namespace>,
    ) -> BTreeMap<String, Namespace> {
        let added = new.keys().filter(|name| !running.contains_key(*name));
        self.kept.extend(added.map(|name| namespace_prefix(name)));
        let mut merged = BTreeMap::new();
        for (name, namespace) in running {
            let prefix = namespace_prefix(name);
            let section = match new.get(name) {
                Some(new) => self.section(&prefix, namespace, new),
                None => {
                    self.kept.push(prefix);
                    namespace.clone()
                }
            };
            merged.insert(name.clone(), section);
        }
        merged
    }

    /// The rules of rooms are those of the start: they are applied where a packet is encoded.
    fn rooms(&mut self, running: &Rooms, new: &Rooms) -> Rooms {
        let names: BTreeSet<_> = running.keys().chain(new.keys()).collect();
        let differs = |name: &&(String, String)| running.get(*name) != new.get(*name);
        self.kept.extend(names.into_iter().filter(differs).map(|(namespace, room)| room_prefix(namespace, room)));
        running.clone()
    }
}
