//! Scenario: what is sent to whom, and what the clients do meanwhile; a TOML file, named or your own.
//!
//! ```text
//!     defaults ◀─ scenario (--workload NAME or --scenario FILE) ◀─ flags          each overrides what is left of it
//! ```
//!
//! The named ones are the files in `scenarios/`, written in the same words as anybody's own.

use crate::error::Error;
use crate::motion::Motion;
use crate::units;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;
use std::time::Duration;

const NAMED: [(&str, &str); 12] = [
    ("ticker", include_str!("../scenarios/ticker.toml")),
    ("scores", include_str!("../scenarios/scores.toml")),
    ("chat", include_str!("../scenarios/chat.toml")),
    ("notify", include_str!("../scenarios/notify.toml")),
    ("auction", include_str!("../scenarios/auction.toml")),
    ("storm", include_str!("../scenarios/storm.toml")),
    ("stall", include_str!("../scenarios/stall.toml")),
    ("join", include_str!("../scenarios/join.toml")),
    ("connect", include_str!("../scenarios/connect.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("conflate", include_str!("../scenarios/conflate.toml")),
    ("drain", include_str!("../scenarios/drain.toml")),
];

/// A scenario as it is written: what is left out is left to the flags and the defaults.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// How many clients connect.
    pub connections: Option<u32>,
    /// Connections begun per second, at most.
    #[serde(deserialize_with = "rate")]
    pub ramp: Option<f64>,
    /// The room's name; of several, what their names begin with. Without it everything goes to everyone.
    pub room: Option<String>,
    /// Messages per second; in a burst, where there are bursts. Zero: nothing is published.
    #[serde(deserialize_with = "rate_or_zero")]
    pub rate: Option<f64>,
    /// Messages have so many keys, one after the other; zero, unless told: none.
    pub keys: Option<u32>,
    /// Bytes that the kernel keeps for a client that does not read (`SO_RCVBUF`); its default, unless told.
    #[serde(deserialize_with = "bytes")]
    pub receive_buffer: Option<usize>,
    /// The length of a message's string, in bytes.
    #[serde(deserialize_with = "bytes")]
    pub size: Option<usize>,
    /// How long messages are published.
    #[serde(deserialize_with = "duration")]
    pub duration: Option<Duration>,
    pub rooms: Rooms,
    pub bursts: Option<Bursts>,
    pub motion: Option<Motion>,
}

/// How many rooms there are, and who is in which. Messages go to them in turn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rooms {
    /// How many; or, as `size`, how many clients are in each. One, unless told.
    pub count: Option<u32>,
    pub size: Option<u32>,
    pub spread: Spread,
    /// Rooms that each client is in.
    pub per_client: u32,
    /// Clients that move have as many rooms of their own.
    pub apart: bool,
}

impl Default for Rooms {
    fn default() -> Rooms {
        Rooms { count: None, size: None, spread: Spread::Even, per_client: 1, apart: false }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Every room has as many clients.
    #[default]
    Even,
    /// The room of rank r has 1 ÷ r of the clients of the first.
    Zipf,
}

/// Messages come for `length`, then none until `every` is over.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub length: Duration,
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub every: Duration,
}

/// A scenario's file, as it is read here or told to another generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    path: String,
    text: String,
}

impl Text {
    pub fn read(path: &Path) -> Result<Text, Error> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Text { path: name, text }),
            Err(error) => Err(Error::Scenario { path: name, cause: crate::error::cause(&error) }),
        }
    }

    /// The file's name, without where it is and what kind.
    pub fn name(&self) -> String {
        Path::new(&self.path).file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub fn scenario(&self) -> Result<Scenario, Error> {
        Scenario::parse(&self.text).map_err(|cause| Error::Scenario { path: self.path.clone(), cause })
    }
}

impl Scenario {
    pub fn named(name: &str) -> Result<Scenario, String> {
        let known = || NAMED.map(|(name, _)| name).join(", ");
        let (_, text) = NAMED
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| format!("there is no workload '{name}'; there are {}", known()))?;
        Ok(Self::parse(text).expect("a test reads every named scenario"))
    }

    /// An error is one line, with its place.
    pub fn parse(text: &str) -> Result<Scenario, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{place}{}", error.message().lines().collect::<Vec<_>>().join(" "))
        })
    }
}

fn rate<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    units::deserialize(value, units::parse_rate).map(Some)
}

fn rate_or_zero<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    units::deserialize(value, units::parse_rate_or_zero).map(Some)
}

fn bytes<'de, D: Deserializer<'de>>(value: D) -> Result<Option<usize>, D::Error> {
    units::deserialize(value, units::parse_bytes).map(Some)
}

fn duration<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
    units::deserialize_duration(value).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::motion::Kind;

    #[test]
    fn every_named_scenario_can_be_read() {
        for (name, text) in NAMED {
            Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let comment = text.lines().next().expect("it is not empty");
            assert!(comment.starts_with("# "), "{name} begins with what it is");
        }
        let storm = Scenario::named("storm").expect("it is one of them");
        let motion = storm.motion.expect("clients drop");
        assert_eq!((motion.kind, motion.share, motion.at), (Kind::Drop, 0.9, Duration::from_secs(15)));
        assert!(storm.rooms.apart);
    }

    const README: &str = include_str!("../README.md");

    #[test]
    fn the_example_of_the_readme_is_a_plan_with_every_key() {
        let (_, rest) = README.split_once("```toml\n").expect("there is an example");
        let (example, _) = rest.split_once("```").expect("it ends");
        let plan = crate::plan::tests::plan_of(example);
        assert_eq!((plan.connections, plan.messages, plan.layout.apart), (10_000, 300, true));
        let Scenario { connections, ramp, room, rate, keys, receive_buffer, size, duration, rooms, bursts, motion } =
            Scenario::parse(example).expect("it is one");
        assert_eq!(receive_buffer, Some(8 << 10));
        assert!(connections.is_some() && ramp.is_some() && room.is_some() && rate.is_some() && size.is_some());
        assert!(duration.is_some() && bursts.is_some() && keys == Some(100));
        let Rooms { count, size, spread, per_client, apart } = rooms;
        assert_eq!((count, size, spread, per_client, apart), (Some(1000), None, Spread::Zipf, 2, true));
        let Motion { kind, share, at, over, repeat, after, still } = motion.expect("clients move");
        assert_eq!((kind, share, repeat, still), (Kind::Drop, 0.5, true, false));
        assert_eq!((at, over), (Duration::from_secs(5), Duration::from_secs(10)));
        assert_eq!(after, Some(Duration::from_millis(500)));
    }

    #[test]
    fn the_readme_has_every_workload_and_no_other() {
        let (_, rest) = README.split_once("| name | what happens |").expect("there is a table");
        let rows = rest.lines().skip(2).take_while(|line| line.starts_with("| `"));
        let names: Vec<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        assert_eq!(names, NAMED.map(|(name, _)| name));
    }

    #[test]
    fn quantities_are_texts_or_numbers() {
        let text = "connections = 10\nramp = 500\nrate = \"2/s\"\nsize = \"1k\"\nduration = 3\n[rooms]\ncount = 7";
        let scenario = Scenario::parse(text).expect("it is a scenario");
        assert_eq!((scenario.ramp, scenario.rate, scenario.size), (Some(500.0), Some(2.0), Some(1024)));
        assert_eq!((scenario.duration, scenario.rooms.count), (Some(Duration::from_secs(3)), Some(7)));
    }

    #[test]
    fn a_wrong_scenario_is_told_in_one_line_with_its_place() {
        let table = [
            ("rate = 1\nspeed = 2", "line 2: unknown field `speed`, expected one of"),
            ("\nrate = \"fast\"", "line 2: 'fast': write a rate as 10 or 10/s"),
            ("[rooms]\nspread = \"odd\"", "line 2: unknown variant `odd`, expected `even` or `zipf`"),
            ("[motion]\nshare = 0.5", "line 1: missing field `kind`"),
            ("rate = ", "line 1: "),
        ];
        for (text, start) in table {
            let error = Scenario::parse(text).expect_err(text);
            assert!(error.starts_with(start) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Scenario::named("tickr").expect_err("it is misspelt");
        assert!(error.starts_with("there is no workload 'tickr'; there are ticker, scores, chat,"), "{error}");
    }
}
