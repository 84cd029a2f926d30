//! Report: what was seen, what it means, as text for people and as JSON for programs.

use crate::board::Board;
use crate::error::Error;
use crate::health::{self, Health};
use crate::limits::{Figures, Was};
use crate::plan::Plan;
use crate::run::{Seen, Server, Times as RunTimes};
use crate::tally::{Fault, Tally, Times};
use crate::units::{self, count, nanos};
use serde_json::{Value, json};
use std::fmt::Write;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

pub struct Report {
    plan: Plan,
    tally: Tally,
    late: Times,
    /// The crowds', then the publisher's.
    threads: Vec<Health>,
    times: RunTimes,
    sent: u32,
    expected: u64,
    /// Messages that reached every client.
    complete: u32,
    closed: u64,
    interrupted: bool,
    /// What watching the server gave, when that was asked for.
    server: Option<Server>,
    /// One line per broken promise.
    failures: Vec<String>,
    /// Why the run says more about the generator than about the server.
    invalid: Option<String>,
    /// What kept the run from being done as planned.
    error: Option<Error>,
}

impl Report {
    pub fn new(board: &Board, seen: Seen, failure: Option<Error>) -> Report {
        let (plan, sent) = (board.plan.clone(), board.sent());
        let mut tally = Tally::default();
        seen.crowds.iter().for_each(|crowd| tally.add(&crowd.tally));
        let closed = u64::from(board.counts().closed);
        let first_closed = seen.crowds.iter().find_map(|crowd| crowd.closed.clone());
        let closing = first_closed.filter(|_| sent > 0).map(|(client, ending)| Error::Closed {
            count: closed,
            connections: plan.connections,
            client,
            ending,
        });
        let mut threads: Vec<_> = seen.crowds.into_iter().map(|crowd| crowd.health).collect();
        threads.push(seen.publisher.health);
        let late = seen.publisher.late;
        let mut report = Report {
            invalid: health::bottleneck(&threads, sent, &late, &tally.delays.last),
            expected: u64::from(sent) * u64::from(plan.connections),
            complete: board.ranks.complete(sent),
            failures: Vec::new(),
            error: failure.or(closing),
            times: seen.times,
            interrupted: seen.interrupted,
            server: seen.server,
            closed,
            sent,
            late,
            threads,
            tally,
            plan,
        };
        report.failures = report.faults().chain(report.broken_limits()).collect();
        report
    }

    /// See the help text for what the codes mean.
    pub fn exit_code(&self) -> u8 {
        match self {
            Report { error: Some(_), .. } => 2,
            Report { failures, .. } if !failures.is_empty() => 1,
            Report { interrupted: true, .. } => 130,
            _ => 0,
        }
    }

    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    fn faults(&self) -> impl Iterator<Item = String> {
        let line = |name: &str, fault: &Fault, said: &str, story: fn(u32, u32) -> String| {
            let example = fault.example?;
            let (times, of) = (count(fault.count), count(self.expected));
            let story = story(example.sequence, example.after);
            Some(format!("{name}: {times} of {of} deliveries {said}; client {} {story}", example.client))
        };
        let tally = &self.tally;
        [
            line("lost", &tally.lost, "never came", |sequence, _| format!("missed message {sequence}")),
            line("doubled", &tally.doubled, "came again", |sequence, _| format!("received message {sequence} again")),
            line("reordered", &tally.reordered, "came too late", |sequence, after| {
                format!("received message {sequence} after message {after}")
            }),
        ]
        .into_iter()
        .flatten()
    }

    fn broken_limits(&self) -> impl Iterator<Item = String> {
        let figures = Figures {
            lost: self.tally.lost.count,
            doubled: self.tally.doubled.count,
            reordered: self.tally.reordered.count,
            closed: self.closed,
            delays: &self.tally.delays,
            sent: self.sent.into(),
            expected: self.expected,
        };
        self.plan.limits.iter().filter_map(move |limit| {
            let was: Was = limit.broken(&figures)?;
            let doubt = if self.invalid.is_some() && limit.is_delay() { ", in an invalid run" } else { "" };
            Some(format!("limit {limit}: it was {was}{doubt}"))
        })
    }

    /// The summary, several lines.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("writing into a string cannot fail");
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let (plan, tally) = (&self.plan, &self.tally);
        let room = plan.room.as_ref().map_or("everyone".to_owned(), |room| format!("room {room}"));
        let clients = count(plan.connections.into());
        let load = format!("{}/s of {} bytes for {:?}", units::rate(plan.rate), plan.size, plan.duration);
        writeln!(out, "\n{}  {clients} clients, {load}, to {room} by {}", plan.target.url(), plan.way())?;
        let (ready, memory) = (count(self.times.ready.into()), count(self.times.memory / 1024));
        writeln!(
            out,
            "  connected   {ready} of {clients} in {}, for {memory} kB of memory",
            nanos(self.times.connecting)
        )?;
        writeln!(out, "  published   {} of {} messages", count(self.sent.into()), count(plan.messages.into()))?;
        let delivered = count(tally.delivered);
        writeln!(out, "  delivered   {delivered} of {}, {}/s", count(self.expected), count(self.per_second()))?;
        let faults = [("lost", &tally.lost), ("doubled", &tally.doubled), ("reordered", &tally.reordered)];
        let faults = faults.map(|(name, fault)| format!("{name} {}", count(fault.count)));
        writeln!(out, "  faults      {}, closed {}", faults.join(", "), count(self.closed))?;
        self.write_delays(out)?;
        self.write_server(out)?;
        self.write_generator(out)?;
        if self.interrupted {
            writeln!(out, "INTERRUPTED this is what was seen so far")?;
        }
        if let Some(reason) = &self.invalid {
            writeln!(
                out,
                "INVALID {reason}; the counts are exact, the delays are too long; give it cores of its own (taskset -c) or less load"
            )?;
        }
        self.failures.iter().try_for_each(|failure| writeln!(out, "FAIL {failure}"))?;
        match self.exit_code() {
            0 => writeln!(out, "PASS"),
            _ => Ok(()),
        }
    }

    fn write_delays(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "  {:<14}", "delay")?;
        QUANTILES.iter().try_for_each(|(name, _)| write!(out, "{name:>11}"))?;
        writeln!(out, "{:>11}", "max")?;
        for (name, times) in self.delays() {
            if times.samples() == 0 {
                continue;
            }
            write!(out, "    {name:<12}")?;
            QUANTILES.iter().try_for_each(|(_, quantile)| write!(out, "{:>11}", nanos(times.at(*quantile))))?;
            writeln!(out, "{:>11}", nanos(times.max()))?;
        }
        if self.complete < self.sent {
            let missing = count((self.sent - self.complete).into());
            writeln!(out, "    {missing} messages never reached everyone; they have no last receiver")?;
        }
        Ok(())
    }

    fn write_server(&self, out: &mut String) -> std::fmt::Result {
        let Some(server) = &self.server else { return Ok(()) };
        let spent = server.spent.map(|spent| {
            let (cpu, cores) = (spent.cpu.as_secs_f64(), spent.cores());
            let each = spent.micros_per(self.tally.delivered);
            let each = each.map(|micros| format!(", {micros:.2} µs per delivery")).unwrap_or_default();
            format!("{cpu:.2} s of CPU, {cores:.2} cores{each}")
        });
        let memory = server.resident_max.map(|bytes| format!("{} kB of memory at most", count(bytes / 1024)));
        let lines = [spent, memory, server.trouble.clone()].into_iter().flatten();
        let labels = std::iter::once("server").chain(std::iter::repeat(""));
        lines.zip(labels).try_for_each(|(line, label)| writeln!(out, "  {label:<11} {line}"))
    }

    fn write_generator(&self, out: &mut String) -> std::fmt::Result {
        let percent = |share: fn(&Health) -> f64| {
            let shares = self.threads.iter().map(|health| format!("{:.0} %", share(health) * 100.0));
            shares.collect::<Vec<_>>().join(" ")
        };
        let (late, lag) = (nanos(self.late.at(0.99)), nanos(self.lag()));
        writeln!(out, "  generator   published late {late} (p99), loop lag {lag} (p99)")?;
        let (cpu, busy) = (percent(|health| health.cpu), percent(|health| health.busy));
        writeln!(out, "              CPU per thread {cpu}; with waiting for a core {busy}; the last one publishes")
    }

    fn delays(&self) -> [(&'static str, &Times); 5] {
        let delays = &self.tally.delays;
        [
            ("first", &delays.first),
            ("median", &delays.median),
            ("p99", &delays.p99),
            ("last", &delays.last),
            ("delivery", &delays.delivery),
        ]
    }

    fn per_second(&self) -> u64 {
        (self.tally.delivered as f64 * 1e9 / self.times.delivering.max(1) as f64) as u64
    }

    /// The worst thread's.
    fn lag(&self) -> u64 {
        self.threads.iter().map(|health| health.lag.at(0.99)).max().unwrap_or(0)
    }

    /// Times in milliseconds.
    pub fn json(&self) -> Value {
        let (plan, tally) = (&self.plan, &self.tally);
        let millis = |time: u64| time as f64 / 1e6;
        let times = |times: &Times| {
            let quantiles =
                QUANTILES.iter().map(|(name, quantile)| ((*name).to_owned(), json!(millis(times.at(*quantile)))));
            let mut figures: serde_json::Map<_, _> = quantiles.collect();
            figures.insert("max".to_owned(), json!(millis(times.max())));
            figures.insert("samples".to_owned(), json!(times.samples()));
            Value::Object(figures)
        };
        let fault = |fault: &Fault| {
            let example = fault.example.map(|example| json!({ "client": example.client, "message": example.sequence }));
            json!({ "count": fault.count, "first": example })
        };
        let delays: serde_json::Map<_, _> =
            self.delays().into_iter().map(|(name, delays)| (name.to_owned(), times(delays))).collect();
        let threads: Vec<_> = self
            .threads
            .iter()
            .map(|health| json!({ "cpu": health.cpu, "busy": health.busy, "lag_ms": times(&health.lag) }))
            .collect();
        json!({
            "url": plan.target.url(),
            "connections": plan.connections,
            "connected": self.times.ready,
            "connect_s": millis(self.times.connecting) / 1e3,
            "namespace": plan.namespace,
            "room": plan.room,
            "rate": plan.rate,
            "size": plan.size,
            "duration_s": plan.duration.as_secs_f64(),
            "publish": plan.way(),
            "published": self.sent,
            "expected": self.expected,
            "delivered": tally.delivered,
            "deliveries_per_s": self.per_second(),
            "lost": fault(&tally.lost),
            "doubled": fault(&tally.doubled),
            "reordered": fault(&tally.reordered),
            "closed": self.closed,
            "complete": self.complete,
            "delay_ms": delays,
            "generator": {
                "late_ms": times(&self.late),
                "threads": threads,
                "memory_bytes": self.times.memory,
            },
            "server": self.server.as_ref().map(|server| json!({
                "cpu_s": server.spent.map(|spent| spent.cpu.as_secs_f64()),
                "cores": server.spent.map(|spent| spent.cores()),
                "cpu_us_per_delivery": server.spent.and_then(|spent| spent.micros_per(tally.delivered)),
                "memory_bytes_max": server.resident_max,
                "trouble": server.trouble,
            })),
            "interrupted": self.interrupted,
            "valid": self.invalid.is_none(),
            "invalid": self.invalid,
            "failures": self.failures,
            "error": self.error.as_ref().map(Error::to_string),
            "exit_code": self.exit_code(),
        })
    }
}
