//! Plan: what the run will do: defaults, scenario and flags laid over each other, and checked together.

use crate::error::Error;
use crate::limits::Limit;
use crate::motion::{Kind, Motion};
use crate::options::{Options, Publish};
use crate::remote::{Key, Workers};
use crate::scenario::{self, Bursts, Scenario};
use crate::schedule::Schedule;
use crate::speech::{self, Speech};
use crate::stamp::STAMP_BYTES;
use crate::target::Target;
use crate::watch::Source;
use std::net::IpAddr;
use std::time::Duration;

/// Messages in one run at most: each has a counter and four times, so this is 80 MB.
const MESSAGES_MAX: u64 = 4_000_000;
const SIZE_BYTES_MAX: usize = 16 << 20;
/// Places of clients in rooms at most: each keeps an order of 24 bytes.
const PLACES_MAX: u64 = 100_000_000;
/// Keys of clients in rooms at most: of each a number of 4 bytes is kept.
const VALUES_MAX: u64 = 400_000_000;
/// Rooms told by their count at most, as many as clients: more could only be empty, and each takes memory.
const ROOMS_MAX: u32 = 10_000_000;

#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    /// Where clients go on to when the server closes them; back to it, unless told.
    pub then: Option<Target>,
    pub workload: String,
    pub connections: u32,
    /// Connections begun per second, at most.
    pub ramp: f64,
    pub room: Option<String>,
    pub layout: scenario::Rooms,
    pub motion: Option<Motion>,
    pub bursts: Option<Bursts>,
    /// Messages per second; in a burst, where there are bursts.
    pub rate: f64,
    /// Messages have so many keys, one after the other; zero: they have none.
    pub keys: u32,
    pub size: usize,
    pub duration: Duration,
    /// How many messages that makes; zero: nothing is published, the connections are held for the duration.
    pub messages: u32,
    /// Bytes that the kernel keeps for a client that does not read; `None`: as many as it likes.
    pub receive_buffer: Option<usize>,
    pub speech: Speech,
    pub sources: Vec<IpAddr>,
    pub seed: u64,
    /// How the server is watched.
    pub watch: Option<Source>,
    pub limits: Vec<Limit>,
    /// The generators that have the clients; without them they are here.
    pub workers: Option<Workers>,
}

impl Plan {
    pub fn new(options: Options) -> Result<Plan, Error> {
        let text = options.scenario.as_deref().map(scenario::Text::read).transpose()?;
        Plan::with_scenario(options, text)
    }

    /// The same, where the scenario's file was read elsewhere.
    pub fn with_scenario(options: Options, text: Option<scenario::Text>) -> Result<Plan, Error> {
        let (workload, scenario) = match (&options.workload, &text) {
            (Some(name), _) => {
                let problem = |problem| Error::Option { option: "--workload", problem };
                (name.clone(), Scenario::named(name).map_err(problem)?)
            }
            (None, Some(text)) => (text.name(), text.scenario()?),
            (None, None) => ("ticker".to_owned(), Scenario::default()),
        };
        Self::of(options, workload, scenario, text)
    }

    fn of(options: Options, workload: String, scenario: Scenario, text: Option<scenario::Text>) -> Result<Plan, Error> {
        let speech = Speech::new(&options)?;
        let key = options.key.as_deref().map(Key::read).transpose()?;
        let workers = Workers { addresses: options.workers, key, words: options.words, scenario: text };
        let nobody_moves = scenario.motion.is_none();
        if options.still && nobody_moves {
            let problem = "nobody moves in this workload; leave it out".to_owned();
            return Err(Error::Option { option: "--still", problem });
        }
        let plan = Plan {
            target: options.target.speaking(speech.protocol),
            then: options.then.map(|target| target.speaking(speech.protocol)),
            workload,
            connections: options.connections.or(scenario.connections).unwrap_or(1000),
            ramp: options.ramp.or(scenario.ramp).unwrap_or(2000.0),
            room: options.room.or(scenario.room),
            layout: scenario.rooms,
            motion: scenario.motion.map(|motion| Motion { still: options.still, ..motion }),
            bursts: scenario.bursts,
            rate: options.rate.or(scenario.rate).unwrap_or(10.0),
            keys: options.keys.or(scenario.keys).unwrap_or(0),
            size: options.size.or(scenario.size).unwrap_or(200),
            duration: options.duration.or(scenario.duration).unwrap_or(Duration::from_secs(10)),
            messages: 0,
            receive_buffer: scenario.receive_buffer,
            speech,
            sources: options.source_ip,
            seed: options.seed,
            watch: options.server_pid.map(Source::Pid).or(options.metrics.map(Source::Metrics)),
            limits: options.limit.map(|limits| limits.0).unwrap_or_default(),
            workers: Some(workers).filter(|workers| !workers.addresses.is_empty()),
        };
        plan.check_layout()?;
        plan.count_messages()
    }

    /// The same at another rate.
    pub fn at_rate(&self, rate: f64) -> Result<Plan, Error> {
        Plan { rate, ..self.clone() }.count_messages()
    }

    fn check_layout(&self) -> Result<(), Error> {
        let problem = |option, problem: &str| Err(Error::Option { option, problem: problem.to_owned() });
        if !(STAMP_BYTES..=SIZE_BYTES_MAX).contains(&self.size) {
            return problem("--size", "a message is 36 bytes at least, for its stamp, and 16m at most");
        }
        if self.receive_buffer.is_some_and(|bytes| !(1 << 10..=SIZE_BYTES_MAX).contains(&bytes)) {
            return problem("receive_buffer", "1k to 16m; leave it out for the kernel's default");
        }
        if !(1..=10_000_000).contains(&self.connections) {
            return problem("connections", "1 to 10,000,000 clients");
        }
        if self.workers.as_ref().is_some_and(|workers| workers.addresses.len() > self.connections as usize) {
            return problem("--workers", "each has one client at least; name fewer, or raise --connections");
        }
        let scenario::Rooms { count, size, per_client, .. } = self.layout;
        if count.is_some() && size.is_some() {
            return problem("rooms", "count and size exclude each other; the other one follows");
        }
        if count == Some(0) || size == Some(0) || per_client == 0 {
            return problem("rooms", "count, size and per_client are 1 at least");
        }
        if count.is_some_and(|count| count > ROOMS_MAX) {
            return problem("rooms", "count is 10,000,000 at most");
        }
        if count.is_some_and(|count| count % per_client != 0) {
            return problem("rooms", "count is a multiple of per_client, so that each client has as many rooms");
        }
        if u64::from(self.connections) * u64::from(per_client) > PLACES_MAX {
            return problem("rooms", "connections × per_client is 100,000,000 at most");
        }
        if self.keys > 0 && self.speech.publish != Publish::Http {
            return problem("--keys", "only POST /api/publish carries a key; leave out --publish");
        }
        if u64::from(self.connections) * u64::from(per_client) * u64::from(self.keys) > VALUES_MAX {
            return problem("--keys", "connections × rooms per client × keys is 400,000,000 at most");
        }
        let several = count.unwrap_or(1) > 1 || size.is_some() || per_client > 1 || self.layout.apart;
        if several && self.room.is_none() {
            return problem("rooms", "several rooms need a name to begin with: room = \"NAME\", or --room NAME");
        }
        let returns = self.motion.is_some_and(|motion| motion.kind == Kind::Return);
        if self.then.is_some() && !returns {
            return problem(
                "--then",
                "clients go on to it in a workload whose motion is kind = \"return\", like drain",
            );
        }
        if returns && self.rate > 0.0 {
            return problem("motion", "who is at which server nobody knows, so nothing can be counted: rate = \"0/s\"");
        }
        match self.motion {
            Some(motion) => {
                motion.check().or_else(|text| problem("motion", &text))?;
                let polls = self.speech.transport == speech::Transport::Polling;
                match motion.kind == Kind::Join {
                    true if self.room.is_none() => problem("motion", "clients that join late need a room: --room NAME"),
                    true if polls => {
                        problem("motion", "a client that polls cannot join late: what it says waits for the poll")
                    }
                    _ => Ok(()),
                }
            }
            None => Ok(()),
        }
    }

    fn count_messages(mut self) -> Result<Plan, Error> {
        let problem = |option, problem: &str| Err(Error::Option { option, problem: problem.to_owned() });
        if let Some(Bursts { length, every }) = self.bursts
            && (length > every || self.schedule().messages(length) == 0)
        {
            return problem("bursts", "length is at most every, and long enough for one message");
        }
        let messages = self.schedule().messages(self.duration);
        if self.rate > 0.0 && messages == 0 {
            return problem("--duration", "no message falls into this time; make it longer, or raise --rate");
        }
        if messages > MESSAGES_MAX {
            return problem("--duration", "more than 4,000,000 messages; make it shorter, or lower --rate");
        }
        self.messages = messages as u32;
        Ok(self)
    }

    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.rate, self.bursts)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use clap::Parser;

    /// The plan of a test: a scenario's text, against a server that is not there.
    pub fn plan_of(scenario: &str) -> Plan {
        let options = Options::try_parse_from(["loadtest", "http://127.0.0.1:1"]).expect("a URL is enough");
        let scenario = Scenario::parse(scenario).unwrap_or_else(|error| panic!("{error}"));
        Plan::of(options, "test".to_owned(), scenario, None).unwrap_or_else(|error| panic!("{error}"))
    }

    fn plan(flags: &[&str]) -> Result<Plan, String> {
        let options = Options::try_parse_from(["loadtest", "http://h"].iter().chain(flags)).expect("all are flags");
        Plan::new(options).map_err(|error| error.to_string())
    }

    fn messages(flags: &[&str]) -> Result<u32, String> {
        plan(flags).map(|plan| plan.messages)
    }

    #[test]
    fn rate_and_duration_make_messages() {
        assert_eq!(messages(&[]), Ok(100));
        assert_eq!(messages(&["--rate", "30", "--duration", "100ms"]), Ok(3));
        assert_eq!(messages(&["--workload", "connect"]), Ok(0));
        assert_eq!(messages(&["--workload", "auction"]), Ok(6000));
    }

    #[test]
    fn flags_lie_over_the_scenario_and_that_over_the_defaults() {
        let plan = plan(&["--workload", "scores", "--rate", "5/s", "--room", "x"]).expect("it is a plan");
        assert_eq!((plan.rate, plan.room.as_deref(), plan.layout.count, plan.size), (5.0, Some("x"), Some(1000), 200));
        assert_eq!(plan.workload, "scores");
        assert_eq!(plan.at_rate(50.0).map(|plan| plan.messages), Ok(500));
    }

    #[test]
    fn every_named_scenario_makes_a_plan() {
        for name in [
            "ticker", "scores", "chat", "notify", "auction", "storm", "stall", "join", "connect", "churn", "drain",
            "conflate",
        ] {
            assert_eq!(plan(&["--workload", name]).map(|plan| plan.workload), Ok(name.to_owned()));
        }
    }

    #[test]
    fn options_that_do_not_fit_together() {
        let table: [(&[&str], &str); 9] = [
            (&["--size", "35"], "--size: a message is 36 bytes at least, for its stamp, and 16m at most"),
            (&["--size", "17m"], "--size: a message is 36 bytes at least, for its stamp, and 16m at most"),
            (
                &["--workload", "conflate", "--publish", "event:pub"],
                "--keys: only POST /api/publish carries a key; leave out --publish",
            ),
            (
                &["--keys", "1000000", "--connections", "1000"],
                "--keys: connections × rooms per client × keys is 400,000,000 at most",
            ),
            (
                &["--then", "http://h:2"],
                "--then: clients go on to it in a workload whose motion is kind = \"return\", like drain",
            ),
            (&["--still"], "--still: nobody moves in this workload; leave it out"),
            (
                &["--workload", "drain", "--rate", "5"],
                "motion: who is at which server nobody knows, so nothing can be counted: rate = \"0/s\"",
            ),
            (
                &["--rate", "0.1", "--duration", "1s"],
                "--duration: no message falls into this time; make it longer, or raise --rate",
            ),
            (
                &["--rate", "1000000", "--duration", "1h"],
                "--duration: more than 4,000,000 messages; make it shorter, or lower --rate",
            ),
        ];
        table.iter().for_each(|(flags, line)| assert_eq!(messages(flags), Err((*line).to_owned())));
    }

    #[test]
    fn scenarios_that_do_not_fit_together() {
        let base = plan(&["--room", "x"]).expect("it is a plan");
        let wrong = |change: fn(&mut Plan)| {
            let mut plan = base.clone();
            change(&mut plan);
            plan.check_layout().and_then(|()| plan.count_messages().map(|_| ())).expect_err("it is wrong").to_string()
        };
        let both = wrong(|plan| (plan.layout.count, plan.layout.size) = (Some(2), Some(3)));
        assert_eq!(both, "rooms: count and size exclude each other; the other one follows");
        let buffer = wrong(|plan| plan.receive_buffer = Some(100));
        assert_eq!(buffer, "receive_buffer: 1k to 16m; leave it out for the kernel's default");
        let unnamed = wrong(|plan| (plan.room, plan.layout.count) = (None, Some(2)));
        assert_eq!(unnamed, "rooms: several rooms need a name to begin with: room = \"NAME\", or --room NAME");
        let second = Duration::from_secs(1);
        for text in [
            wrong(|plan| plan.layout.per_client = 0),
            wrong(|plan| plan.layout.size = Some(0)),
            wrong(|plan| plan.layout.count = Some(ROOMS_MAX + 1)),
            wrong(|plan| (plan.layout.count, plan.layout.per_client) = (Some(7), 2)),
            wrong(|plan| (plan.layout.count, plan.layout.per_client) = (Some(2), 3)),
            wrong(|plan| (plan.connections, plan.layout.per_client) = (10_000_000, 11)),
        ] {
            assert!(text.starts_with("rooms: "), "{text}");
        }
        let long = Bursts { length: 2 * second, every: second };
        assert!(base.clone().with_bursts(long).is_err());
        assert!(base.with_bursts(Bursts { length: second / 1000, every: second }).is_err(), "10/s in a millisecond");
    }

    impl Plan {
        fn with_bursts(self, bursts: Bursts) -> Result<Plan, Error> {
            Plan { bursts: Some(bursts), ..self }.count_messages()
        }
    }
}
