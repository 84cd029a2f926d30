//! loadtest: what a fan-out server really delivers, counted exactly and timed honestly.
//!
//! ```text
//!   options ─▶ plan ─▶ run ┬─ crowd × threads:  ramp ─▶ session ─▶ order, ranks ─▶ tally ┐
//!                          └─ publisher:        schedule ─▶ stamp ─▶ wire                ┴─▶ report ─▶ exit code
//! ```
//!
//! It shares no code with the server: a bug in a common codec would hide from both. Threads meet on the `board`, in
//! numbers only. Whoever wants to understand one run reads `run.rs`, then `crowd.rs`.
//!
//! `loadtest doctor` tells beforehand whether this machine allows a run; see `doctor/mod.rs`.

#![deny(unsafe_code)]

mod board;
mod clock;
mod crowd;
mod doctor;
mod engineio;
mod error;
mod frame;
mod health;
mod http;
mod kernel;
mod limits;
mod options;
mod order;
mod output;
mod plan;
mod publisher;
mod ramp;
mod ranks;
mod report;
mod run;
mod session;
mod socketio;
mod sources;
mod stamp;
mod tables;
mod tally;
mod target;
mod units;
mod watch;
mod wire;

use error::Error;
use options::Command;
use output::Output;
use plan::Plan;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> ExitCode {
    let mut output = Output::new();
    let code = obey(&mut output).unwrap_or_else(|error| {
        output.error(&error.to_string());
        2
    });
    ExitCode::from(code)
}

fn obey(output: &mut Output) -> Result<u8, Error> {
    match Command::read()? {
        Command::Measure(options) => measure(Plan::new(*options)?, output),
        Command::Doctor(options) => Ok(doctor::run(&options, output)),
    }
}

fn measure(plan: Plan, output: &mut Output) -> Result<u8, Error> {
    // Opened first: nobody wants to hear after an hour that the directory does not exist.
    let json = plan.json.clone().map(|path| File::create(&path).map(|file| (path, file)));
    let json = json.transpose().map_err(|error| unwritten(plan.json.as_deref(), &error))?;
    let report = run::run(plan, &*interruption()?, output)?;
    output.text(&report.text());
    if let Some((path, mut file)) = json {
        writeln!(file, "{:#}", report.json()).map_err(|error| unwritten(Some(&path), &error))?;
    }
    if let Some(error) = report.error() {
        output.error(&error.to_string());
    }
    Ok(report.exit_code())
}

/// Becomes true on the first Ctrl-C, or when asked to terminate; the second one ends the process at once.
fn interruption() -> Result<Arc<AtomicBool>, Error> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|error| Error::System { what: "signals cannot be caught", cause: error::cause(&error) })?;
    }
    Ok(flag)
}

fn unwritten(path: Option<&Path>, error: &io::Error) -> Error {
    let path = path.map(|path| path.display().to_string()).unwrap_or_default();
    Error::Report { path, cause: error::cause(error) }
}
