//! Summary: the text at the end of a run.

use super::{audience, plain};
use crate::record::{Beside, Faults, Generator, Moved, Planned, Quantiles, Record, Server};
use crate::units::{bytes, count, micros, millis, rate, seconds};
use std::fmt::{Result, Write};

/// Several lines.
pub fn summary(record: &Record) -> String {
    let mut text = String::new();
    write_text(record, &mut text).expect("writing into a string cannot fail");
    text
}

fn write_text(record: &Record, out: &mut String) -> Result {
    write_plan(&record.plan, out)?;
    write_counts(record, out)?;
    record.moved.as_ref().map_or(Ok(()), |moved| write_moved(moved, out))?;
    write_delays(record, out)?;
    record.server.as_ref().map_or(Ok(()), |server| write_server(record, server, out))?;
    write_generator(&record.generator, out)?;
    if record.interrupted {
        writeln!(out, "INTERRUPTED this is what was seen so far")?;
    }
    if !record.valid {
        let reason = plain(record.invalid.as_deref().unwrap_or("the generator was too slow"));
        let advice = match record.generator.workers[..] {
            [] => "the delays are too long; give it cores of its own (taskset -c) or less load",
            _ => "the delays are not; give all generators cores of their own, a shorter way to here, or less load",
        };
        writeln!(out, "INVALID {reason}; the counts are exact, {advice}")?;
    }
    record.failures.iter().try_for_each(|failure| writeln!(out, "FAIL {}", plain(failure)))?;
    match record.exit_code {
        0 => writeln!(out, "PASS"),
        _ => Ok(()),
    }
}

fn write_plan(plan: &Planned, out: &mut String) -> Result {
    let clients = count(plan.connections.into());
    write!(out, "\n{}  {}: {clients} clients, ", plain(&plan.url), plain(&plan.workload))?;
    let duration = seconds(plan.duration_s);
    if plan.rate_per_s > 0.0 {
        let (rate, audience) = (rate(plan.rate_per_s), audience(plan.rooms));
        let way = plain(&plan.publish);
        writeln!(out, "{rate}/s of {} bytes for {duration}, to {audience} by {way}", plan.size_bytes)?;
    } else {
        writeln!(out, "nothing published, for {duration}")?;
    }
    let (protocol, transport) = (plain(&plan.protocol), plain(&plan.transport));
    writeln!(out, "  protocol    {protocol} over {transport}, namespace {}", plain(&plan.namespace))
}

fn write_counts(record: &Record, out: &mut String) -> Result {
    let Record { plan, connecting, counts, .. } = record;
    let (ready, clients) = (count(connecting.connected.into()), count(plan.connections.into()));
    let (time, memory) = (millis(connecting.seconds * 1e3), bytes(record.generator.memory_bytes));
    writeln!(out, "  connected   {ready} of {clients} in {time}, for {memory} of memory")?;
    if connecting.handshake_ms.samples > 0 {
        writeln!(out, "              handshakes {}", three(&connecting.handshake_ms))?;
    }
    write!(out, "  published   {} of {} messages", count(counts.published.into()), count(plan.messages.into()))?;
    match counts.refused {
        0 => writeln!(out)?,
        refused => writeln!(out, "; {} refused, to be tried again later", count(refused.into()))?,
    }
    let (delivered, expected) = (count(counts.delivered), count(counts.expected));
    write!(out, "  delivered   {delivered} of {expected}, {}/s", count(counts.per_second))?;
    match plan.keys {
        0 => writeln!(out)?,
        keys => writeln!(out, "; {} conflated, of {} keys", count(counts.conflated), count(keys.into()))?,
    }
    write!(out, "  faults      {}, closed {}", faults(&record.faults), count(counts.closed))?;
    match counts.evicted {
        0 => writeln!(out),
        evicted => writeln!(out, ", {} of these as slow clients", count(evicted)),
    }
}

fn faults(faults: &Faults) -> String {
    faults.named().map(|(name, fault)| format!("{name} {}", count(fault.count))).join(", ")
}

/// Three quantiles in a line.
fn three(times: &Quantiles) -> String {
    format!("{} (p50), {} (p99), {} (max)", millis(times.p50), millis(times.p99), millis(times.max))
}

fn write_moved(moved: &Moved, out: &mut String) -> Result {
    let (clients, moves) = (count(moved.clients.into()), count(moved.moves));
    write!(out, "  moved       {}: {clients} clients, {moves} times", plain(&moved.kind))?;
    if moved.back_ms.samples > 0 {
        write!(out, "; back in {}", three(&moved.back_ms))?;
    }
    if let Some(seconds) = moved.all_back_s {
        write!(out, "; all in {}", millis(seconds * 1e3))?;
    }
    if moved.refused > 0 {
        write!(out, "; refused {} times", count(moved.refused))?;
    }
    if moved.ended > 0 {
        write!(out, "; {} ended by the server", count(moved.ended))?;
    }
    if moved.ended_ms.samples > 0 {
        write!(out, ", after {} at most", millis(moved.ended_ms.max))?;
    }
    if moved.away > 0 {
        write!(out, "; {} not back at the end", count(moved.away))?;
    }
    writeln!(out)?;
    for (refusal, times) in &moved.refused_with {
        writeln!(out, "              refused {} times: {}", count(*times), plain(refusal))?;
    }
    let paces = [("left", &moved.left), ("connected again", &moved.asked), ("back", &moved.back)];
    for (what, pace) in paces.into_iter().filter(|(_, pace)| pace.per_s.len() > 1) {
        let largest = count(pace.largest);
        writeln!(out, "              {what}: {:.1} per second, {largest} in the fullest", pace.mean)?;
    }
    let Beside { before_ms, during_ms, after_ms, .. } = &moved.beside;
    let others = [("before", before_ms), ("meanwhile", during_ms), ("after", after_ms)];
    if during_ms.samples > 0 && before_ms.samples > 0 {
        let others = others.into_iter().filter(|(_, times)| times.samples > 0);
        let others = others.map(|(when, times)| format!("{} {when}", millis(times.p99)));
        writeln!(out, "              last receivers of the others (p99): {}", others.collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

fn write_delays(record: &Record, out: &mut String) -> Result {
    if record.delays_ms.delivery.quantiles.samples == 0 {
        return Ok(());
    }
    write!(out, "  {:<14}", "delay")?;
    Quantiles::NAMES.iter().try_for_each(|name| write!(out, "{name:>11}"))?;
    writeln!(out)?;
    for (name, spread) in record.delays_ms.named().iter().filter(|(_, spread)| spread.quantiles.samples > 0) {
        write!(out, "    {name:<12}")?;
        spread.quantiles.values().iter().try_for_each(|time| write!(out, "{:>11}", millis(*time)))?;
        writeln!(out)?;
    }
    let missing = record.counts.awaited.saturating_sub(record.counts.complete);
    if missing > 0 {
        let missing = count(missing.into());
        writeln!(out, "    {missing} messages never reached everyone; they have no last receiver")?;
    }
    Ok(())
}

/// What was measured; a line without a figure is left out.
fn write_server(record: &Record, server: &Server, out: &mut String) -> Result {
    let cpu = [
        server.cpu_per_delivery_us.map(|time| format!("{} per delivery", micros(time))),
        server.cpu_per_connect_us.map(|time| format!("{} per client that connected", micros(time))),
        server.cpu_s.map(|time| format!("{} in all", millis(time * 1e3))),
    ];
    let memory = [
        server.resident_before.map(|size| format!("{} before", bytes(size))),
        server.resident_connected.map(|size| format!("{} with all clients", bytes(size))),
        record.memory_per_client().map(|size| format!("{} per client", bytes(size))),
        server.resident_max.map(|size| format!("{} at most", bytes(size))),
        server.resident_after.map(|size| format!("{} afterwards", bytes(size))),
    ];
    let mut name = "server";
    for (kind, figures) in [("CPU", cpu.iter().flatten().collect()), ("memory", memory.iter().flatten().collect())] {
        let figures: Vec<&String> = figures;
        if !figures.is_empty() {
            let figures = figures.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            writeln!(out, "  {:<11} {kind} {figures}", std::mem::take(&mut name))?;
        }
    }
    match &server.trouble {
        Some(trouble) => writeln!(out, "  {name:<11} {}", plain(trouble)),
        None => Ok(()),
    }
}

fn write_generator(generator: &Generator, out: &mut String) -> Result {
    let percent = |shares: Vec<f64>| {
        let shares = shares.iter().map(|share| format!("{:.0} %", share * 100.0));
        shares.collect::<Vec<_>>().join(" ")
    };
    let (late, lag) = (millis(generator.late_ms.p99), millis(generator.lag_p99_ms()));
    writeln!(out, "  generator   published late {late} (p99), loop lag {lag} (p99)")?;
    if !generator.threads.is_empty() {
        let cpu = percent(generator.threads.iter().map(|thread| thread.cpu).collect());
        let busy = percent(generator.threads.iter().map(|thread| thread.busy).collect());
        writeln!(out, "              CPU per thread {cpu}; with waiting for a core {busy}; the last one publishes")?;
    }
    for worker in &generator.workers {
        let (address, clients) = (plain(&worker.address), count(worker.connections.into()));
        let (offset, uncertainty) = (worker.offset_ms, millis(worker.uncertainty_ms));
        writeln!(
            out,
            "  worker      {address}: {clients} clients, its clock is {offset:+.3} ms ± {uncertainty} from ours"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Record);

    #[test]
    fn everything_measured() {
        let text = "
http://127.0.0.1:3000/socket.io/  ticker: 1,000 clients, 10/s of 200 bytes for 3s, to everyone by POST /api/publish
  protocol    socketio over websocket, namespace /
  connected   1,000 of 1,000 in 512 ms, for 2.00 MB of memory
              handshakes 1.25 ms (p50), 8.00 ms (p99), 9.75 ms (max)
  published   30 of 30 messages
  delivered   29,999 of 30,000, 9,999/s
  faults      lost 1, doubled 0, reordered 0, stray 0, closed 0
  moved       drop: 100 clients, 250 times; back in 12.0 ms (p50), 31.0 ms (p99), 42.0 ms (max); all in 2.50 s
              left: 100.0 per second, 100 in the fullest
              connected again: 100.0 per second, 100 in the fullest
              back: 100.0 per second, 101 in the fullest
              last receivers of the others (p99): 12.5 ms before, 18.5 ms meanwhile
  delay                 p50        p90        p99       p999        max
    first          0.213 ms   0.500 ms   0.750 ms   0.750 ms   0.750 ms
    median          4.50 ms    6.00 ms    7.50 ms    7.50 ms    7.50 ms
    p99             9.00 ms    11.0 ms    14.0 ms    14.0 ms    14.0 ms
    last            9.50 ms    12.0 ms    18.5 ms    18.5 ms    18.5 ms
    delivery        4.50 ms    8.50 ms    12.0 ms    18.0 ms    18.5 ms
    1 messages never reached everyone; they have no last receiver
  server      CPU 1.24 µs per delivery, 45.0 µs per client that connected, 750 ms in all
              memory 12.0 MB before, 19.8 MB with all clients, 8.00 kB per client, 20.8 MB at most, 16.0 MB afterwards
  generator   published late 0.125 ms (p99), loop lag 0.500 ms (p99)
              CPU per thread 21 % 2 %; with waiting for a core 25 % 2 %; the last one publishes
  worker      10.0.0.2:4000: 500 clients, its clock is +0.125 ms ± 0.034 ms from ours
FAIL lost: 1 of 30,000 deliveries never came; client 17 missed message 12
";
        assert_eq!(summary(&Record::example()), text);
    }

    #[test]
    fn nothing_measured() {
        let text = "
  : 0 clients, nothing published, for 0ns
  protocol     over , namespace \n  connected   0 of 0 in 0.000 ms, for 0 B of memory
  published   0 of 0 messages
  delivered   0 of 0, 0/s
  faults      lost 0, doubled 0, reordered 0, stray 0, closed 0
  generator   published late 0.000 ms (p99), loop lag 0.000 ms (p99)
PASS
";
        assert_eq!(summary(&Record::nothing()), text);
    }

    #[test]
    fn a_line_for_what_else_there_is() {
        let change = |change: Change| {
            let mut record = Record::example();
            change(&mut record);
            summary(&record)
        };
        let table: [(Change, &str); 14] = [
            (|record| record.counts.refused = 1200, " 30 of 30 messages; 1,200 refused, to be tried again later\n"),
            (
                |record| (record.plan.keys, record.counts.conflated) = (100, 4000),
                "29,999 of 30,000, 9,999/s; 4,000 conflated, of 100 keys\n",
            ),
            (|record| record.interrupted = true, "\nINTERRUPTED this is what was seen so far\n"),
            (|record| record.plan.rooms = 50, ", to 50 rooms by POST"),
            (|record| record.plan.rooms = 1, ", to 1 room by POST"),
            (|record| record.plan.rate_per_s = 0.0, " clients, nothing published, for 3s\n"),
            (
                |record| (record.valid, record.invalid) = (false, Some("it was busy".to_owned())),
                "\nINVALID it was busy; the counts are exact, the delays are not; give all generators cores",
            ),
            (
                |record| {
                    (record.valid, record.invalid) = (false, Some("it was busy".to_owned()));
                    record.generator.workers.clear();
                },
                "\nINVALID it was busy; the counts are exact, the delays are too long; give it cores",
            ),
            (
                |record| {
                    let moved = record.moved.as_mut().expect("some moved");
                    (moved.ended, moved.ended_ms.samples, moved.ended_ms.max) = (3, 2, 20_500.0);
                },
                "; 3 ended by the server, after 20.50 s at most\n",
            ),
            (
                |record| {
                    let moved = record.moved.as_mut().expect("some moved");
                    moved.refused_with = [("it was 503".to_owned(), 1200)].into();
                },
                "\n              refused 1,200 times: it was 503\n",
            ),
            (
                |record| (record.counts.closed, record.counts.evicted) = (5, 2),
                ", closed 5, 2 of these as slow clients\n",
            ),
            (|record| record.moved.as_mut().expect("some moved").away = 4, "; all in 2.50 s; 4 not back at the end\n"),
            (
                |record| {
                    let server = record.server.as_mut().expect("it was watched");
                    (server.cpu_s, server.cpu_per_delivery_us, server.cpu_per_connect_us) = (None, None, None);
                    server.resident_before = None;
                },
                "\n  server      memory 19.8 MB with all clients, 20.8 MB at most, 16.0 MB afterwards\n",
            ),
            (
                |record| record.server.as_mut().expect("it was watched").trouble = Some("it is gone".to_owned()),
                " afterwards\n              it is gone\n",
            ),
        ];
        for (edit, line) in table {
            let text = change(edit);
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn a_server_cannot_write_lines_of_its_own() {
        let mut record = Record::example();
        record.failures = vec!["the server said \"\x1b[2J\nPASS\"".to_owned()];
        let text = summary(&record);
        assert!(text.ends_with("\nFAIL the server said \"\u{fffd}[2J\u{fffd}PASS\"\n"), "{text}");
    }
}
