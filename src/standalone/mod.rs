//! The server program, `fanfare`: the library, a configuration, and a few routes.
//!
//! Everything here stands on what the library exports to anybody, so it is also the longest example of its use.
//!
//! Reading order: `serve` (the life of the server), `clients` (what they may do), `site` (the routes), `publish` (what a
//! back end says) with `guard` (who may), `gate` (when) and `keys` (what is repeated), `stats` with `process`, `bundles` with `asset`, and `config` by itself.

mod asset;
mod bundles;
mod clients;
pub mod config;
mod gate;
mod guard;
mod keys;
mod process;
mod publish;
mod serve;
mod site;
mod stats;

use clap::{CommandFactory as _, Parser, Subcommand};
use config::{Config, ConfigErrors, Flags};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// A Socket.IO server for massive fan-out: one event in, a hundred thousand sockets out.
#[derive(Parser)]
#[command(name = "fanfare", version, after_help = "To begin: fanfare serve")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(Flags),
    /// Print the configuration in effect as TOML, with the source of every value
    Config(Flags),
}

/// What `main` does, and the code that the process ends with.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        None => {
            say(&Cli::command().render_help().to_string());
            ExitCode::SUCCESS
        }
        Some(Command::Config(flags)) => with_config(&flags, |config| {
            say(&config.render());
            ExitCode::SUCCESS
        }),
        Some(Command::Serve(flags)) => with_config(&flags, |config| match serve::serve(&flags, config) {
            Ok(code) => code,
            Err(problem) => refuse(&problem),
        }),
    }
}

fn with_config(flags: &Flags, run: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match read_config(flags) {
        Ok(config) => run(config),
        Err(errors) => refuse(&errors),
    }
}

/// From all sources, as they are now.
fn read_config(flags: &Flags) -> Result<Config, ConfigErrors> {
    config::load(flags, config::environment(), |path| std::fs::read_to_string(path))
}

/// The same once more, on a server that runs. A pipe, as in `--config <(…)`, has been read to its end: what is in it now
/// is an empty configuration, with which every option would fall back to its default.
fn reread_config(flags: &Flags) -> Result<Config, ConfigErrors> {
    config::load(flags, config::environment(), |path| match std::fs::metadata(path)?.is_file() {
        true => std::fs::read_to_string(path),
        false => Err(io::Error::other("it is no regular file, which alone can be read a second time")),
    })
}

/// What the operator has to change.
fn refuse(problem: &dyn std::fmt::Display) -> ExitCode {
    // Nobody may be reading, and the exit code says it too.
    let _ = writeln!(io::stderr(), "fanfare: {problem}");
    ExitCode::from(ConfigErrors::EXIT_CODE)
}

/// Prints, and does not mind if nobody reads: a server does not stop because its start-up text went to a closed pipe.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
