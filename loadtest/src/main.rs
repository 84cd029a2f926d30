//! loadtest: what a fan-out server really delivers, counted exactly and timed honestly.
//!
//! ```text
//!   options, scenario ─▶ plan ─▶ run ┬─ crowd × threads:  ramp ─▶ session ─▶ books ─▶ tally, marks ┐
//!                                    └─ publisher:        schedule ─▶ stamp ─▶ wire                ┴─▶ report
//!                                                                                                      ▼
//!                                                                           exit code ◀─ views ◀─ record
//! ```
//!
//! It shares no code with the server: a bug in a common codec would hide from both. Threads meet on the `board`, in
//! numbers only. Whoever wants to understand one run reads `run.rs`, then `crowd/`.
//!
//! Clients may be on other machines: there `loadtest agent` runs the crowds, here a link stands for them; see
//! `remote/mod.rs`. `loadtest doctor` tells beforehand whether this machine allows a run; see `doctor/mod.rs`.

#![deny(unsafe_code)]

mod board;
mod clock;
mod crowd;
mod delays;
mod display;
mod doctor;
mod engineio;
mod error;
mod frame;
mod health;
mod history;
mod hlog;
mod http;
mod kernel;
mod knee;
mod latest;
mod limits;
mod marks;
mod motion;
mod options;
mod order;
mod output;
mod outputs;
mod pace;
mod plan;
mod publisher;
mod ramp;
mod record;
mod refusals;
mod remote;
mod report;
mod rooms;
mod run;
mod scenario;
mod schedule;
mod seed;
mod session;
mod snapshot;
mod socketio;
mod sources;
mod speech;
mod stamp;
mod strip;
mod tables;
mod tally;
mod target;
mod units;
mod views;
mod watch;
mod wire;

use error::Error;
use knee::Knee;
use options::{Command, Options, Show};
use output::Output;
use outputs::{Outputs, unwritten};
use plan::Plan;
use record::Record;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn main() -> ExitCode {
    let mut output = Output::new();
    let code = Command::read().and_then(|command| obey(command, &mut output)).unwrap_or_else(|error| {
        output.error(&error.to_string());
        2
    });
    ExitCode::from(code)
}

fn obey(command: Command, output: &mut Output) -> Result<u8, Error> {
    match command {
        Command::Measure(options) => measure(*options, output),
        Command::Doctor(options) => Ok(doctor::run(&options, output)),
        Command::Agent(options) => remote::run_agent(&options, &*interruption()?, output),
        Command::Show(show) => view(&show, output).map(|()| 0),
        Command::Compare(files) => compare(&files, output).map(|()| 0),
    }
}

fn measure(options: Options, output: &mut Output) -> Result<u8, Error> {
    let (outputs, find_knee) = (Outputs::open(&options)?, options.find_knee);
    let plan = Plan::new(options)?;
    let interrupted = interruption()?;
    let report =
        if find_knee { search(plan, &interrupted, output)? } else { measure_once(plan, &interrupted, output)? };
    outputs.write(&report)?;
    Ok(report.record.exit_code)
}

fn measure_once(plan: Plan, interrupted: &AtomicBool, output: &mut Output) -> Result<Report, Error> {
    let report = run::run(plan, interrupted, output)?;
    output.text(&views::summary(&report.record));
    if let Some(error) = &report.error {
        output.error(&error.to_string());
    }
    Ok(report)
}

/// Runs at one rate after the other, and gives the last run that kept every limit; without one, or after an
/// interruption, the last run.
fn search(plan: Plan, interrupted: &AtomicBool, output: &mut Output) -> Result<Report, Error> {
    let mut knee = Knee::new(plan.rate);
    let (mut best, mut last) = (None, None);
    while let Some(rate) = knee.next() {
        // Too many messages for one run, or none at all: further is not tried.
        let Ok(plan) = plan.at_rate(rate) else { break };
        let report = measure_once(plan, interrupted, output)?;
        if interrupted.load(Relaxed) {
            (best, last) = (None, Some(report));
            break;
        }
        let (held, valid) = (report.record.exit_code == 0, report.record.valid);
        // What breaks in an invalid run says that we are at our end, not that the server is.
        if held || valid {
            knee.note(rate, held);
        }
        *(if held { &mut best } else { &mut last }) = Some(report);
        if !held && !valid {
            break;
        }
    }
    output.text(&knee.text());
    Ok(best.or(last).expect("there was a first run"))
}

fn view(show: &Show, output: &mut Output) -> Result<(), Error> {
    let record = Record::read(&show.file)?;
    output.text(&views::summary(&record));
    write_file("--html", show.html.as_deref(), || views::html(&record))?;
    write_file("--csv", show.csv.as_deref(), || views::csv(&record))
}

fn compare(files: &[PathBuf; 2], output: &mut Output) -> Result<(), Error> {
    let [a, b] = files;
    let records = [Record::read(a)?, Record::read(b)?];
    let names = [a, b].map(|file| file.display().to_string());
    output.text(&views::compare([&names[0], &names[1]], [&records[0], &records[1]]));
    Ok(())
}

fn write_file(option: &'static str, path: Option<&Path>, content: impl FnOnce() -> String) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, content()).map_err(|error| unwritten(option, path, &error))
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
