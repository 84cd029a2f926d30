//! Config: everything an operator can choose, read from four sources and checked once.
//!
//! Strongest first: a flag, an environment variable `FANFARE_…`, the TOML file, the default. The file is the one that
//! `--config FILE` or `FANFARE_CONFIG` names and no other: a file picked up because it happens to lie in the working
//! directory would make the same command mean different things in different places.
//!
//! The one idea: an option is written down once, in `options.rs`. Its line there gives the field and its
//! documentation, the key in the file, the flag, the variable, the help, the check and the line that `fanfare config`
//! prints. After `load` nothing is checked again.
//!
//! Every source is checked, also where a stronger one wins: a mistake in the file is a mistake today and not on the
//! day the flag goes away. All mistakes of one run are reported together. Without a source nothing is guessed: an
//! unknown key or an unknown `FANFARE_…` variable is an error, because a misspelt limit is a missing limit.
//!
//! Invariants: a `Config` has passed every check; `namespaces` always has "/".
//! Limits:     none of its own; it runs once, before anything else.
//! Not here:   shapes and ranges (kind.rs); the sources (file.rs, variables.rs, flags.rs); the messages (error.rs).

mod error;
mod field;
mod file;
mod flags;
mod given;
mod kind;
mod nearest;
mod options;
mod reload;
mod render;
mod source;
mod text;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub use error::{ConfigError, ConfigErrors, Problem};
pub use field::{FdTables, Level, LogFormat, Origins, ProxyProtocol, PublishKey, SendPath, Transports};
pub use flags::Flags;
pub use options::{Cors, Engine, Limits, Log, Namespace, Room, Server};
pub use reload::Reloaded;
pub use source::Source;
pub use variables::environment;

use field::Value;
use given::Given;
use options::{MAIN_NAMESPACE, Section, Spec, namespace_prefix, room_prefix};

/// The checked configuration. Where a value came from does not take part in `==`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server listens and what it serves.
    pub server: Server,
    /// The Engine.IO sessions: heartbeats, transports, payloads.
    pub engine: Engine,
    /// What browsers on other origins may read.
    pub cors: Cors,
    /// How much one peer, one address and one process may use.
    pub limits: Limits,
    /// The namespaces that exist, by name; "/" is always one of them.
    pub namespaces: BTreeMap<String, Namespace>,
    /// The rules of rooms, by namespace and by the room's name as the file has it, with its "*".
    pub rooms: BTreeMap<(String, String), Room>,
    /// What is written to standard error, and how.
    pub log: Log,
    /// Which source each value came from, by key; a key that is missing here has its default.
    sources: BTreeMap<String, Source>,
}

impl Config {
    /// The configuration as TOML that `load` accepts again; each key with its meaning and the source of its value.
    ///
    /// The publish key is shown as "***", and `load` refuses that: a printed configuration may end up anywhere.
    pub fn render(&self) -> String {
        render::render(self)
    }

    /// What a server that runs with this configuration makes of a new one.
    pub fn reload(&self, new: &Config) -> Result<Reloaded, ConfigErrors> {
        reload::reload(self, new)
    }

    /// Which source the value of `key` came from, such as `server.listen` or `namespaces."/".join`.
    pub fn source(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or(&Source::Default)
    }
}

impl Default for Config {
    fn default() -> Self {
        Loader::default().config()
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        let Self { server, engine, cors, limits, namespaces, rooms, log, sources: _ } = self;
        *server == other.server
            && *engine == other.engine
            && *cors == other.cors
            && *limits == other.limits
            && *namespaces == other.namespaces
            && *rooms == other.rooms
            && *log == other.log
    }
}

impl Eq for Config {}

/// Reads all four sources and checks them.
///
/// The world comes in as arguments: `env` is `config::environment()` in the program, `read_file` is
/// `std::fs::read_to_string`. The one look at the disk besides is whether `server.client_dir` is a directory.
pub fn load(
    flags: &Flags,
    env: impl Iterator<Item = (String, String)>,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Config, ConfigErrors> {
    let mut loader = Loader::default();
    let file_from_env = variables::collect(env, &mut loader.given, &mut loader.errors);
    flags.collect(&mut loader.given);
    let from_flag = flags.config.clone().map(|path| (path, Source::Flag("--config".into())));
    if let Some((path, source)) = from_flag.or(file_from_env) {
        loader.file(path, source, read_file);
    }
    let config = loader.config();
    loader.check_rules(&config);
    ConfigErrors::none_or(loader.errors).map(|()| config)
}

/// What was given, on its way to becoming a `Config`.
#[derive(Default)]
struct Loader {
    given: Given,
    sources: BTreeMap<String, Source>,
    errors: Vec<ConfigError>,
}

impl Loader {
    fn file(&mut self, path: PathBuf, source: Source, read_file: impl FnOnce(&Path) -> io::Result<String>) {
        match read_file(&path) {
            Ok(text) => file::collect(&text, &path, &mut self.given, &mut self.errors),
            Err(error) => {
                let problem = Problem::Unreadable { path, reason: error.to_string() };
                self.errors.push(ConfigError { option: "config".into(), source, problem });
            }
        }
    }

    fn config(&mut self) -> Config {
        Config {
            server: self.section(Server::NAME),
            engine: self.section(Engine::NAME),
            cors: self.section(Cors::NAME),
            limits: self.section(Limits::NAME),
            namespaces: self.namespaces(),
            rooms: self.rooms(),
            log: self.section(Log::NAME),
            sources: std::mem::take(&mut self.sources),
        }
    }

    fn namespaces(&mut self) -> BTreeMap<String, Namespace> {
        let mut names = std::mem::take(&mut self.given.namespaces);
        names.insert(MAIN_NAMESPACE.into());
        let sections = names.into_iter().map(|name| (self.section(&namespace_prefix(&name)), name));
        sections.map(|(namespace, name)| (name, namespace)).collect()
    }

    fn rooms(&mut self) -> BTreeMap<(String, String), Room> {
        let names = std::mem::take(&mut self.given.rooms).into_iter();
        names.map(|name| (name.clone(), self.section(&room_prefix(&name.0, &name.1)))).collect()
    }

    fn section<S: Section>(&mut self, prefix: &str) -> S {
        S::build(|spec| self.value(prefix, spec))
    }

    /// The value from the strongest source that gave a good one. A bad one is noted and the next best stands in for
    /// it, so that the rest can still be checked; with a note there will be no `Config` in the end.
    fn value(&mut self, prefix: &str, spec: &'static Spec) -> Value {
        let key = format!("{prefix}.{}", spec.name);
        let mut value = spec.default_value();
        for (source, raw) in self.given.take(&key) {
            match spec.kind.check(&raw) {
                Ok(checked) => {
                    value = checked;
                    self.sources.insert(key.clone(), source);
                }
                Err(problem) => self.errors.push(ConfigError { option: key.clone(), source, problem }),
            }
        }
        value
    }

    fn check_rules(&mut self, config: &Config) {
        for (options, problem) in broken_rules(config) {
            self.refuse(config, options, problem);
        }
    }

    /// Notes a broken rule at the first of the options it concerns. Where one of them is wrong by itself, that has
    /// been said already, and what the rule saw was only a stand-in.
    fn refuse(&mut self, config: &Config, options: [&str; 2], problem: Problem) {
        let known: BTreeSet<&str> = self.errors.iter().map(|error| error.option.as_str()).collect();
        if options.iter().chain(&["config"]).any(|option| known.contains(option)) {
            return;
        }
        let source = config.source(options[0]).clone();
        self.errors.push(ConfigError { option: options[0].into(), source, problem });
    }
}

/// The rules that need more than one option to judge: those that are broken, with the options that they concern.
fn broken_rules(config: &Config) -> Vec<([&'static str; 2], Problem)> {
    let mut broken = Vec::new();
    let exposed = !config.server.listen.ip().to_canonical().is_loopback();
    if exposed && config.server.publish_key.is_none() {
        let problem = Problem::ExposedWithoutKey { listen: config.server.listen };
        broken.push((["server.listen", "server.publish_key"], problem));
    }
    if config.cors.credentials && config.cors.origins == Origins::Any {
        broken.push((["cors.credentials", "cors.origins"], Problem::CredentialsForEveryone));
    }
    broken
}

#[cfg(test)]
mod tests;
