//! Report: what was seen and what it means: from the threads' counts to the record of the run.

use crate::board::Board;
use crate::clock::Nanos;
use crate::crowd::Outcome;
use crate::delays::{Beside, Delays};
use crate::error::Error;
use crate::health::{self, Health};
use crate::limits::{Figures, Was};
use crate::motion::Motion;
use crate::pace::Pace;
use crate::record::{self, Fault, Quantiles, Record, Spread};
use crate::run::{Notes, Seen};
use crate::tally::{self, Tally, Times};
use crate::target::Target;
use crate::units::count;
use crate::watch::{Sample, Spent};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Report {
    pub record: Record,
    /// What the record's delays were made of.
    pub delays: Delays,
    /// When the first message was due, and how long it took from then to the last delivery.
    pub began: SystemTime,
    pub delivering: Nanos,
    /// What kept the run from being done as planned.
    pub error: Option<Error>,
}

impl Report {
    pub fn new(board: &Board, seen: Seen, failure: Option<Error>) -> Report {
        let (plan, sent, notes) = (&board.plan, board.sent(), &seen.notes);
        let (mut tally, mut handshakes, mut back) = (Tally::default(), Times::default(), Times::default());
        for crowd in &seen.crowds {
            tally.add(&crowd.tally);
            handshakes.add(&crowd.handshakes);
            back.add(&crowd.back);
        }
        let delays = Delays::new(board, tally.delivery.clone());
        let closed = u64::from(board.counts().closed);
        let first_closed = seen.crowds.iter().find_map(|crowd| crowd.closed.clone());
        let connections = plan.connections;
        let closing = |(client, ending)| Error::Closed { count: closed, connections, client, ending };
        let error = failure.or(first_closed.map(closing));
        let mut threads: Vec<&Health> = seen.crowds.iter().map(|crowd| &crowd.health).collect();
        threads.extend((plan.messages > 0).then_some(&seen.publisher.health));
        let late = &seen.publisher.late;
        let moved = plan.motion.map(|motion| moved(board, &seen, motion, &back));
        // Where all clients move there is no last receiver, and a delivery is the measure.
        let measure = if delays.awaited > 0 { &delays.last } else { &delays.delivery };
        let workers = &seen.workers;
        let beside = moved.as_ref().map(|moved| &moved.beside);
        let invalid = health::bottleneck(&threads, sent, late, measure)
            .or_else(|| beside.and_then(|beside| health::late_beside(beside.lag_ms.p99, beside.during_ms.p50)))
            .or_else(|| health::unsure_clock(workers, measure).filter(|_| sent > 0));
        let unsure = workers.iter().map(record::Worker::error_ms).fold(0.0, f64::max);
        let delivered = tally.delivered;
        // Of clients that stay this is every message of their rooms; of the others, what they had and what they missed.
        let expected = delivered + tally.lost.count;
        // Of clients that stay: what was meant for them, and neither came nor had to.
        let meant = board.rooms.expected(sent) - board.refused_deliveries();
        let conflated = if plan.keys > 0 { meant.saturating_sub(tally.to_audience + tally.lost.count) } else { 0 };
        let mut record = Record {
            format: record::FORMAT,
            command: command(),
            began_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
                - board.clock.now() / 1_000_000_000,
            machine: machine(),
            plan: planned(board),
            connecting: record::Connecting {
                connected: notes.ready,
                seconds: notes.connecting as f64 / 1e9,
                handshake_ms: quantiles(&handshakes),
            },
            counts: record::Counts {
                published: sent,
                refused: board.refusals.count(),
                expected,
                delivered,
                conflated,
                per_second: (delivered as f64 * 1e9 / notes.delivering.max(1) as f64) as u64,
                awaited: delays.awaited,
                complete: delays.complete,
                closed,
                evicted: seen.crowds.iter().map(|crowd| crowd.evicted).sum(),
            },
            faults: record::Faults {
                lost: fault(&tally.lost),
                doubled: fault(&tally.doubled),
                reordered: fault(&tally.reordered),
                stray: fault(&tally.stray),
            },
            delays_ms: record::Delays {
                first: spread(&delays.first),
                median: spread(&delays.median),
                p99: spread(&delays.p99),
                last: spread(&delays.last),
                delivery: spread(&delays.delivery),
            },
            moved,
            server: server(notes, delivered),
            generator: record::Generator {
                late_ms: quantiles(late),
                threads: threads.iter().map(|health| thread(health)).collect(),
                memory_bytes: notes.memory,
                workers: workers.clone(),
            },
            seconds: notes.seconds.clone(),
            interrupted: seen.interrupted,
            valid: invalid.is_none(),
            invalid,
            failures: Vec::new(),
            error: error.as_ref().map(Error::to_string),
            exit_code: 0,
        };
        let figures = Figures {
            lost: tally.lost.count,
            doubled: tally.doubled.count,
            reordered: tally.reordered.count,
            stray: tally.stray.count,
            closed,
            delays: &delays,
            unsure: (unsure * 1e6) as Nanos,
            expected,
        };
        let broken = plan.limits.iter().filter_map(|limit| {
            let was: Was = limit.broken(&figures)?;
            let doubt = if !record.valid && limit.is_delay() { ", in an invalid run" } else { "" };
            Some(format!("limit {limit}: it was {was}{doubt}"))
        });
        record.failures = faults(&tally, expected, plan.keys > 0).chain(broken).collect();
        record.exit_code = match &record {
            _ if error.is_some() => 2,
            Record { failures, .. } if !failures.is_empty() => 1,
            Record { interrupted: true, .. } => 130,
            _ => 0,
        };
        let since_begin = Duration::from_nanos(board.elapsed(board.clock.now()));
        Report { record, delays, began: SystemTime::now() - since_begin, delivering: notes.delivering, error }
    }
}

/// What the clients that moved did, and what the others noticed.
fn moved(board: &Board, seen: &Seen, motion: Motion, back: &Times) -> record::Moved {
    let crowds = &seen.crowds;
    let sum = |of: fn(&Outcome) -> u64| crowds.iter().map(of).sum::<u64>();
    let times = |of: fn(&Outcome) -> &Times| {
        crowds.iter().fold(Times::default(), |mut sum, crowd| {
            sum.add(of(crowd));
            sum
        })
    };
    let pace = |of: fn(&Outcome) -> &Pace| {
        crowds.iter().fold(Pace::default(), |mut sum, crowd| {
            sum.add(of(crowd));
            sum
        })
    };
    let mut refused_with = BTreeMap::<String, u64>::new();
    for (kind, number) in crowds.iter().flat_map(|crowd| &crowd.refused_with) {
        *refused_with.entry(kind.clone()).or_default() += number;
    }
    let (begin, away) = (crowds.iter().filter_map(|crowd| crowd.first_move).min(), sum(|crowd| crowd.away));
    let last_back = crowds.iter().filter_map(|crowd| crowd.last_back).max().filter(|_| away == 0);
    let Beside { before, during, after } = Beside::new(board, begin, last_back);
    let waited_for = crowds.iter().filter(|crowd| !crowd.health.unawaited);
    let lag = waited_for.fold(Times::default(), |mut sum, crowd| {
        sum.add(&crowd.lag_returning);
        sum
    });
    record::Moved {
        kind: motion.kind.name().to_owned(),
        clients: (0..board.plan.connections).filter(|client| motion.moves(*client)).count() as u32,
        moves: sum(|crowd| crowd.moved),
        back_ms: quantiles(back),
        refused: sum(|crowd| crowd.refused),
        ended: sum(|crowd| crowd.ended),
        away,
        refused_with,
        ended_ms: quantiles(&times(|crowd| &crowd.ended_after)),
        all_back_s: begin.zip(last_back).map(|(begin, end)| end.saturating_sub(begin) as f64 / 1e9),
        left: pace(|crowd| &crowd.left).record(),
        asked: pace(|crowd| &crowd.asked).record(),
        back: pace(|crowd| &crowd.returned).record(),
        beside: record::Beside {
            before_ms: quantiles(&before),
            during_ms: quantiles(&during),
            after_ms: quantiles(&after),
            lag_ms: quantiles(&lag),
        },
    }
}

/// One line per kind of fault, with an example.
fn faults(tally: &Tally, expected: u64, keyed: bool) -> impl Iterator<Item = String> {
    let of = count(expected);
    let line = move |name: &str, fault: &tally::Fault, said: &str, story: [&str; 2]| {
        let tally::Example { client, message } = fault.example?;
        let (times, [had, how]) = (count(fault.count), story);
        Some(format!("{name}: {times} of {of} deliveries {said}; client {client} {had} message {message}{how}"))
    };
    let never = if keyed { "of a key's newest value never came" } else { "never came" };
    [
        line("lost", &tally.lost, never, ["missed", ""]),
        line("doubled", &tally.doubled, "came again", ["received", " again"]),
        line("reordered", &tally.reordered, "came too late", ["received", " after a later one"]),
        line("stray", &tally.stray, "came from rooms that were not joined", ["received", " of another room"]),
    ]
    .into_iter()
    .flatten()
}

fn planned(board: &Board) -> record::Planned {
    let plan = &board.plan;
    record::Planned {
        url: plan.target.url(),
        workload: plan.workload.clone(),
        protocol: plan.speech.protocol.name().to_owned(),
        transport: plan.speech.transport.name().to_owned(),
        namespace: plan.speech.namespace.clone(),
        publish: plan.speech.way(),
        connections: plan.connections,
        rooms: board.rooms.count(),
        ramp_per_s: plan.ramp,
        rate_per_s: f64::from(plan.messages) / plan.duration.as_secs_f64(),
        size_bytes: plan.size,
        duration_s: plan.duration.as_secs_f64(),
        messages: plan.messages,
        seed: plan.seed,
        keys: plan.keys,
        still: plan.motion.is_some_and(|motion| motion.still),
        then: plan.then.as_ref().map(Target::url),
        limits: plan.limits.iter().map(ToString::to_string).collect(),
    }
}

/// `None` when nobody watched it.
fn server(notes: &Notes, delivered: u64) -> Option<record::Server> {
    let [before, connected, published, end, after] = notes.server;
    let size = |sample: Option<Sample>| sample.map(|sample| sample.resident);
    if notes.server.iter().all(Option::is_none) && notes.server_trouble.is_none() {
        return None;
    }
    let spent = |from: Option<Sample>, to: Option<Sample>| Spent::between(from?, to?);
    let resident = notes.seconds.iter().filter_map(|second| second.server_resident);
    let resident = resident.chain(notes.server.iter().filter_map(|sample| size(*sample)));
    Some(record::Server {
        cpu_s: spent(before, end).map(|spent| spent.cpu.as_secs_f64()),
        cpu_publishing_s: spent(published, end).map(|spent| spent.cpu.as_secs_f64()),
        cpu_per_delivery_us: spent(published, end).and_then(|spent| spent.micros_per(delivered)),
        cpu_per_connect_us: spent(before, connected).and_then(|spent| spent.micros_per(notes.ready.into())),
        resident_before: size(before),
        resident_connected: size(connected),
        resident_published: size(published),
        resident_max: resident.max(),
        resident_end: size(end),
        resident_after: size(after),
        trouble: notes.server_trouble.clone(),
    })
}

fn thread(health: &Health) -> record::Thread {
    record::Thread { cpu: health.cpu, busy: health.busy, lag_ms: quantiles(&health.lag) }
}

fn fault(fault: &tally::Fault) -> Fault {
    let example = |tally::Example { client, message }| record::Example { client, message };
    Fault { count: fault.count, first: fault.example.map(example) }
}

fn quantiles(times: &Times) -> Quantiles {
    let millis = |quantile| times.at(quantile) as f64 / 1e6;
    Quantiles {
        p50: millis(0.5),
        p90: millis(0.9),
        p99: millis(0.99),
        p999: millis(0.999),
        max: times.max() as f64 / 1e6,
        samples: times.samples(),
    }
}

fn spread(times: &Times) -> Spread {
    Spread { quantiles: quantiles(times), curve: times.curve(), bars: times.bars() }
}

/// The command line, as one would type it.
fn command() -> String {
    let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,%@+".contains(&byte));
    let quote = |word: String| {
        if plain(&word) && !word.is_empty() { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let words = std::env::args_os().skip(1).map(|word| quote(word.to_string_lossy().into_owned()));
    std::iter::once("loadtest".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn machine() -> record::Machine {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    record::Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
    }
}
