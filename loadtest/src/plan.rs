//! Plan: what the run will do: the options after they were checked together.

use crate::error::Error;
use crate::limits::Limit;
use crate::options::{Options, Publish};
use crate::stamp::STAMP_BYTES;
use crate::target::Target;
use crate::watch::Source;
use std::path::PathBuf;
use std::time::Duration;

/// Messages in one run at most: each has a counter, so this is 64 MB.
const MESSAGES_MAX: f64 = 16e6;
const SIZE_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub connections: u32,
    pub ramp: f64,
    pub room: Option<String>,
    pub rate: f64,
    pub size: usize,
    pub duration: Duration,
    pub publish: Publish,
    pub namespace: String,
    pub limits: Vec<Limit>,
    pub json: Option<PathBuf>,
    /// How the server is watched.
    pub watch: Option<Source>,
    /// How many messages that makes.
    pub messages: u32,
}

impl Plan {
    pub fn new(options: Options) -> Result<Plan, Error> {
        if !(STAMP_BYTES..=SIZE_BYTES_MAX).contains(&options.size) {
            let problem = format!("a message is {STAMP_BYTES} bytes at least, for its stamp, and 16m at most");
            return Err(Error::Option { option: "--size", problem });
        }
        // A little more, so that 0.1 s at 30/s is three messages, whatever the last bit of a fraction says.
        let messages = (options.rate * options.duration.as_secs_f64() + 1e-6).floor();
        if messages < 1.0 {
            let problem = "no message falls into this time; make it longer, or raise --rate".to_owned();
            return Err(Error::Option { option: "--duration", problem });
        }
        if messages > MESSAGES_MAX {
            let problem = "more than 16,000,000 messages; make it shorter, or lower --rate".to_owned();
            return Err(Error::Option { option: "--duration", problem });
        }
        Ok(Plan {
            target: options.target,
            connections: options.connections,
            ramp: options.ramp,
            room: options.room,
            rate: options.rate,
            size: options.size,
            duration: options.duration,
            publish: options.publish,
            namespace: options.namespace,
            limits: options.limit.map(|limits| limits.0).unwrap_or_default(),
            json: options.json,
            watch: options.server_pid.map(Source::Pid).or(options.metrics.map(Source::Metrics)),
            messages: messages as u32,
        })
    }

    /// The way of publishing, in words.
    pub fn way(&self) -> String {
        match &self.publish {
            Publish::Http => "POST /api/publish".to_owned(),
            Publish::Event(name) => format!("the event '{name}'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn plan(flags: &[&str]) -> Result<u32, String> {
        let options = Options::try_parse_from(["loadtest", "http://h"].iter().chain(flags)).expect("all are flags");
        Plan::new(options).map(|plan| plan.messages).map_err(|error| error.to_string())
    }

    #[test]
    fn rate_and_duration_make_messages() {
        assert_eq!(plan(&[]), Ok(100));
        assert_eq!(plan(&["--rate", "30", "--duration", "100ms"]), Ok(3));
        assert_eq!(plan(&["--rate", "0.5", "--duration", "3s"]), Ok(1));
    }

    #[test]
    fn options_that_do_not_fit_together() {
        let table: [(&[&str], &str); 4] = [
            (&["--size", "35"], "--size: a message is 36 bytes at least, for its stamp, and 16m at most"),
            (&["--size", "17m"], "--size: a message is 36 bytes at least, for its stamp, and 16m at most"),
            (
                &["--rate", "0.1", "--duration", "1s"],
                "--duration: no message falls into this time; make it longer, or raise --rate",
            ),
            (
                &["--rate", "1000000", "--duration", "1h"],
                "--duration: more than 16,000,000 messages; make it shorter, or lower --rate",
            ),
        ];
        table.iter().for_each(|(flags, line)| assert_eq!(plan(flags), Err((*line).to_owned())));
    }
}
