//! Flags: the command line's part of the configuration.
//!
//! Made from the table of options, so `--help` cannot disagree with it. clap only sorts the words; whether a word is
//! good is checked where all other values are.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::given::{Given, Raw};
use super::kind::Kind;
use super::options::{MAIN_NAMESPACE, Namespace, Reload, Section, Spec, options_with_flag};
use super::source::Source;

/// What the flags said, for `load`. Flatten it into a subcommand: `#[command(flatten)] flags: Flags`.
#[derive(Clone, Default)]
pub struct Flags {
    /// The file that `--config` names.
    pub config: Option<PathBuf>,
    /// The words after each flag, by the option's key.
    words: BTreeMap<String, Vec<String>>,
}

/// Without the words: one of them may be the publish key.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given: Vec<_> = self.words.keys().collect();
        f.debug_struct("Flags").field("config", &self.config).field("given", &given).finish()
    }
}

impl Flags {
    pub(super) fn collect(&self, given: &mut Given) {
        for (key, spec) in options_with_flag() {
            let Some(words) = self.words.get(&key) else { continue };
            let raw = match words.as_slice() {
                [word] if !spec.kind.is_list() => spec.kind.read_word(word),
                words => Raw::List(words.iter().cloned().map(Raw::Text).collect()),
            };
            given.push(key, Source::Flag(format!("--{}", spec.flag())), raw);
        }
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("The TOML file to read; without it none is read [env: FANFARE_CONFIG]");
        command.arg(file).args(options_with_flag().map(|(key, spec)| arg(key, spec)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = options_with_flag().filter_map(|(key, _)| {
            let words: Vec<String> = matches.get_many(&key)?.cloned().collect();
            Some((key, words))
        });
        Ok(Self { words: given.collect(), config: matches.get_one("config").cloned() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let Self { config, words } = Self::from_arg_matches(matches)?;
        self.config = config.or(self.config.take());
        self.words.extend(words);
        Ok(())
    }
}

fn arg(key: String, spec: &'static Spec) -> Arg {
    let notes = notes(spec);
    let allowed = spec.kind.allowed();
    let change = match spec.reload {
        Reload::Live => "SIGHUP rereads it.",
        Reload::Restart => "Another value needs a restart.",
    };
    let arg = Arg::new(key)
        .long(spec.flag())
        .value_name(spec.kind.placeholder())
        .help(format!("{} {notes}", spec.meaning()))
        .long_help(format!("{}\n\n{}\n\nAllowed: {allowed}. {change} {notes}", spec.meaning(), spec.reasons()))
        .help_heading(format!("[{}]", spec.section))
        .action(if spec.kind.is_list() { ArgAction::Append } else { ArgAction::Set })
        // So that "--workers -1" is answered with the range.
        .allow_negative_numbers(true);
    match spec.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}

/// `[default: 25s] [env: FANFARE_PING_INTERVAL]`
fn notes(spec: &Spec) -> String {
    let default = match spec.default {
        None => "unset",
        Some("") => "none",
        Some(word) => word,
    };
    let repeated = if spec.kind.is_list() { " [may be repeated]" } else { "" };
    if spec.section == Namespace::NAME {
        return format!("[for {MAIN_NAMESPACE:?}; other namespaces in the file] [default: {default}]{repeated}");
    }
    format!("[default: {default}] [env: {}]{repeated}", spec.variable())
}
