//! Every layout of rooms and every motion against a server with rooms; and the faults that only they can show.

use crate::hall::{Fault, Hall, hall};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub struct Run {
    pub code: Option<i32>,
    pub text: String,
    pub errors: String,
    pub json: Value,
}

/// A path for a file that a test writes.
pub fn temporary(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))
}

fn written(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn command(server: SocketAddr, name: &str, scenario: &str) -> Command {
    let file = temporary(&format!("{name}.toml"));
    std::fs::write(&file, scenario).expect("the folder is there");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args([&format!("http://{server}"), "--publish", "event:pub", "--scenario", &file]);
    command
}

pub fn run_with(server: SocketAddr, name: &str, scenario: &str, flags: &[&str]) -> Run {
    let record = temporary(&format!("{name}.json"));
    let output = command(server, name, scenario).args(["--json", &record]).args(flags).output().expect("it was built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let json = serde_json::from_str(&written(&record)).unwrap_or_default();
    Run { code: output.status.code(), text: text(&output.stdout), errors: text(&output.stderr), json }
}

fn run(server: &Hall, name: &str, scenario: &str) -> Run {
    run_with(server.address, name, scenario, &[])
}

impl Run {
    pub fn passes(&self) {
        assert_eq!(self.code, Some(0), "{}{}", self.text, self.errors);
        assert_eq!(["lost", "doubled", "reordered", "stray"].map(|fault| self.fault(fault)), [0; 4], "{}", self.text);
    }

    pub fn fault(&self, name: &str) -> u64 {
        self.json["faults"][name]["count"].as_u64().unwrap_or_else(|| panic!("no {name}: {}{}", self.text, self.errors))
    }

    pub fn count(&self, name: &str) -> u64 {
        self.json["counts"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {}{}", self.text, self.errors))
    }

    pub fn moved(&self, name: &str) -> u64 {
        self.json["moved"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {}{}", self.text, self.errors))
    }
}

/// Of each room, how many clients joined it.
fn members(hall: &Hall) -> BTreeMap<String, u64> {
    let mut members = BTreeMap::new();
    let log = hall.log.lock().expect("nobody panicked while holding it");
    log.joins.iter().for_each(|(_, room)| *members.entry(room.clone()).or_default() += 1);
    members
}

/// How many deliveries the counted messages make, to the clients that joined.
fn deliveries(hall: &Hall) -> u64 {
    let members = members(hall);
    let log = hall.log.lock().expect("nobody panicked while holding it");
    log.published.iter().map(|room| members[room]).sum()
}

// ---- rooms

#[test]
fn a_message_reaches_its_room_and_nobody_else() {
    let server = hall(Fault::None);
    let run =
        run(&server, "rooms", "room = \"r\"\nconnections = 12\nrate = 100\nduration = \"500ms\"\n[rooms]\ncount = 4");
    run.passes();
    let members = members(&server);
    assert_eq!(members.keys().collect::<Vec<_>>(), ["r-0", "r-1", "r-2", "r-3"]);
    assert!(members.values().all(|clients| *clients == 3), "{members:?}");
    assert_eq!((run.count("published"), run.count("delivered")), (50, 150));
    assert_eq!((run.count("awaited"), run.count("complete")), (50, 50));
    let published = server.log.lock().expect("nobody panicked while holding it").published.clone();
    let rounds: Vec<BTreeSet<_>> = published.chunks_exact(4).map(|round| round.iter().collect()).collect();
    assert!(rounds.iter().all(|round| round.len() == 4), "each has its turn: {published:?}");
}

#[test]
fn more_rooms_than_clients_and_a_single_client() {
    let server = hall(Fault::None);
    let run =
        run(&server, "empty", "room = \"r\"\nconnections = 1\nrate = 100\nduration = \"200ms\"\n[rooms]\ncount = 50");
    run.passes();
    assert_eq!((members(&server).len(), run.count("delivered")), (1, 20), "empty rooms have no turns");
}

#[test]
fn a_client_in_three_rooms_hears_each_of_them() {
    let server = hall(Fault::None);
    let scenario =
        "room = \"r\"\nconnections = 10\nrate = 100\nduration = \"600ms\"\n[rooms]\ncount = 6\nper_client = 3";
    let run = run(&server, "three", scenario);
    run.passes();
    let mut rooms = BTreeMap::<SocketAddr, BTreeSet<String>>::new();
    for (peer, room) in &server.log.lock().expect("nobody panicked while holding it").joins {
        assert!(rooms.entry(*peer).or_default().insert(room.clone()), "nobody joins a room twice");
    }
    assert!(rooms.len() == 10 && rooms.values().all(|rooms| rooms.len() == 3), "{rooms:?}");
    assert_eq!(run.count("delivered"), deliveries(&server));
}

#[test]
fn zipf_has_full_rooms_and_empty_ones() {
    let server = hall(Fault::None);
    let scenario =
        "room = \"r\"\nconnections = 40\nrate = 100\nduration = \"500ms\"\n[rooms]\ncount = 30\nspread = \"zipf\"";
    let run = run(&server, "zipf", scenario);
    run.passes();
    let members = members(&server);
    assert!(members.values().max() == members.get("r-0"), "the first is the fullest: {members:?}");
    assert!(members.len() < 30 && members["r-0"] > 1, "{members:?}");
    assert_eq!((run.count("published"), run.count("delivered")), (50, deliveries(&server)));
}

#[test]
fn bursts_have_as_many_messages_as_they_are_long() {
    let server = hall(Fault::None);
    let scenario = "room = \"r\"\nconnections = 5\nrate = 500\nduration = \"1s\"\n\
                    [bursts]\nlength = \"100ms\"\nevery = \"500ms\"";
    let run = run(&server, "bursts", scenario);
    run.passes();
    assert_eq!((run.count("published"), run.count("delivered")), (100, 500));
}

#[test]
fn without_a_rate_connections_are_only_held() {
    let server = hall(Fault::None);
    let run = run(&server, "connect", "connections = 8\nrate = 0\nduration = \"300ms\"");
    run.passes();
    assert_eq!((run.count("published"), run.count("delivered")), (0, 0));
    assert_eq!(run.json["connecting"]["handshake_ms"]["samples"], 8);
    assert!(run.text.contains("nothing published"), "{}", run.text);
    assert!(members(&server).is_empty() && deliveries(&server) == 0);
}

#[test]
fn one_message_that_is_lost_in_one_of_many_rooms_is_found() {
    let (_, run) = waited("loses");
    assert_eq!((run.code, run.fault("lost"), run.count("delivered")), (Some(1), 1, 99), "{}", run.text);
    assert_eq!((run.count("awaited"), run.count("complete")), (50, 49));
}

#[test]
fn one_message_that_strays_to_another_room_is_found() {
    let (_, run) = waited("strays");
    assert_eq!((run.code, run.fault("stray"), run.fault("lost")), (Some(1), 1, 0), "{}", run.text);
    assert_eq!(run.count("delivered"), 100, "who is not in the room is not counted");
    assert!(run.text.contains("FAIL stray: 1 of 100 deliveries came from rooms that were not joined"), "{}", run.text);
}

// ---- motions

/// Where clients move or lose something, a run waits for silence at its end: these wait together.
const WAITING: [(&str, Fault, &str); 11] = [
    ("loses", Fault::LosesIn("r-3"), TEN_ROOMS),
    ("strays", Fault::StraysFrom("r-3"), TEN_ROOMS),
    ("drop", Fault::None, DROP),
    ("refuses", Fault::RefusesLate, DROP),
    (
        "again",
        Fault::None,
        "room = \"r\"\nconnections = 10\nrate = 50\nduration = \"2s\"\n\
         [motion]\nkind = \"drop\"\nshare = 0.4\nover = \"500ms\"\nrepeat = true",
    ),
    (
        "forgets",
        Fault::ForgetsLate,
        "room = \"r\"\nconnections = 4\nrate = 10\nduration = \"7s\"\n\
         [motion]\nkind = \"drop\"\nshare = 0.5\nat = \"200ms\"",
    ),
    ("join", Fault::None, JOIN),
    ("skips", Fault::SkipsLate, JOIN),
    (
        "unmoved",
        Fault::None,
        "room = \"r\"\nconnections = 6\nrate = 50\nduration = \"1s\"\n\
         [motion]\nkind = \"join\"\nshare = 0.5\nat = \"1h\"",
    ),
    ("stall", Fault::None, STALL),
    ("resets", Fault::Resets, STALL),
];
const TEN_ROOMS: &str = "room = \"r\"\nconnections = 20\nrate = 100\nduration = \"500ms\"\n[rooms]\ncount = 10";
const DROP: &str = "room = \"r\"\nconnections = 10\nrate = 50\nduration = \"2s\"\n[rooms]\napart = true\n\
                    [motion]\nkind = \"drop\"\nshare = 0.5\nat = \"500ms\"";
const STALL: &str = "room = \"r\"\nconnections = 4\nrate = 100\nsize = 10000\nduration = \"3s\"\n\
                     [motion]\nkind = \"stall\"\nshare = 0.25";
const JOIN: &str = "room = \"r\"\nconnections = 6\nrate = 50\nduration = \"1s\"\n\
                    [motion]\nkind = \"join\"\nshare = 0.5\nover = \"500ms\"";

type Started = Mutex<BTreeMap<&'static str, JoinHandle<(Hall, Run)>>>;

/// The server and the run of [`WAITING`] that has this name.
fn waited(name: &str) -> (Hall, Run) {
    static STARTED: LazyLock<Started> = LazyLock::new(|| {
        let start = |(name, fault, scenario)| {
            let work = move || {
                let server = hall(fault);
                let run = run(&server, name, scenario);
                (server, run)
            };
            (name, thread::spawn(work))
        };
        Mutex::new(WAITING.map(start).into())
    });
    let run = STARTED.lock().expect("nobody panics while holding it").remove(name);
    run.expect("each is asked for once").join().expect("a run does not panic")
}

#[test]
fn clients_drop_and_come_back_and_the_others_lose_nothing() {
    let (server, run) = waited("drop");
    run.passes();
    assert_eq!((run.moved("clients"), run.moved("moves"), run.moved("away")), (5, 5, 0), "{}", run.text);
    assert_eq!(run.json["moved"]["back_ms"]["samples"], 5, "all came back");
    let members = members(&server);
    assert_eq!((members["r-0"], members["r-1"]), (5, 10), "those that drop are apart, and join again");
    assert_eq!((run.count("awaited"), run.count("complete")), (50, 50), "the other half waits for nobody");
    let moved = &run.json["moved"];
    let beside = ["before_ms", "during_ms", "after_ms"].map(|when| moved["beside"][when]["samples"].as_u64());
    assert_eq!(beside.into_iter().sum::<Option<u64>>(), Some(50), "{moved}");
    // 12 messages of the room that stays are due in the first half second.
    assert!(beside[0].is_some_and(|before| (10..=14).contains(&before)), "{moved}");
    assert!(moved["all_back_s"].is_number(), "{moved}");
    for what in ["left", "asked", "back"] {
        assert_eq!((&moved[what]["per_s"], &moved[what]["largest"]), (&serde_json::json!([5]), &5.into()), "{what}");
    }
    assert_eq!(run.json["generator"]["threads"].as_array().map(Vec::len), Some(3), "those that drop have their own");
}

#[test]
fn clients_drop_again_and_again() {
    let (_, run) = waited("again");
    run.passes();
    assert_eq!((run.moved("clients"), run.moved("away")), (4, 0), "{}", run.text);
    assert!(run.moved("moves") > 4, "more than one round: {}", run.text);
    assert_eq!(run.json["moved"]["back_ms"]["samples"].as_u64(), Some(run.moved("moves")));
}

#[test]
fn clients_that_are_not_let_in_again_are_told_of() {
    let (_, run) = waited("refuses");
    run.passes();
    assert_eq!((run.moved("away"), run.count("complete")), (5, 50), "{}", run.text);
    assert!(run.moved("refused") >= 5 && run.text.contains("; 5 not back at the end"), "{}", run.text);
    let refused =
        &run.json["moved"]["refused_with"]["the upgrade was answered with 'HTTP/1.1 503 Service Unavailable'"];
    assert_eq!(refused.as_u64(), Some(run.moved("refused")));
    assert!(run.json["moved"]["all_back_s"].is_null());
}

/// The two are back at 0.2 s at the earliest, and what is due 5 s later should have come. How soon they are back decides
/// how many of the last 18 messages that is.
#[test]
fn a_client_that_hears_nothing_after_coming_back_has_lost() {
    let (_, run) = waited("forgets");
    let lost = run.fault("lost");
    assert_eq!((run.code, run.moved("away")), (Some(1), 0), "{}", run.text);
    assert!((2..=36).contains(&lost), "{lost}: {}", run.text);
}

#[test]
fn clients_join_late_and_miss_nothing_from_then_on() {
    let (server, run) = waited("join");
    run.passes();
    assert_eq!((run.moved("moves"), members(&server)["r"]), (3, 6));
    assert_eq!(run.json["moved"]["back_ms"]["samples"], 3, "each had a first message");
    assert_eq!((run.count("awaited"), run.count("complete")), (50, 50));
    assert!(run.count("delivered") > 150, "{}", run.text);
}

#[test]
fn a_late_joiner_that_misses_one_message_in_the_middle_is_found() {
    let (_, run) = waited("skips");
    assert_eq!((run.code, run.fault("lost")), (Some(1), 3), "one of each: {}", run.text);
}

#[test]
fn who_never_joins_misses_nothing() {
    let (_, run) = waited("unmoved");
    run.passes();
    assert_eq!((run.moved("moves"), run.count("delivered")), (0, 150), "{}", run.text);
}

#[test]
fn a_stalled_client_is_ended_and_the_others_lose_nothing() {
    let (server, run) = waited("stall");
    run.passes();
    assert_eq!((run.moved("moves"), run.moved("ended")), (1, 1), "{}", run.text);
    assert_eq!(server.log.lock().expect("nobody panicked while holding it").closed, 1);
    assert_eq!((run.count("complete"), run.count("closed")), (300, 0), "{}", run.text);
}

#[test]
fn when_a_stalled_client_is_reset_that_is_seen_at_once() {
    let (_, run) = waited("resets");
    run.passes();
    let ended = &run.json["moved"]["ended_ms"];
    assert_eq!((run.moved("ended"), ended["samples"].as_u64()), (1, Some(1)), "{}", run.text);
    // It stalls with the first message, and the server loses its patience after a second.
    assert!(ended["max"].as_f64().is_some_and(|millis| (900.0..9_000.0).contains(&millis)), "{ended}");
    assert_eq!((run.count("complete"), run.count("closed")), (300, 0), "{}", run.text);
}

#[test]
fn with_still_nobody_stalls_and_the_same_clients_are_waited_for() {
    let server = hall(Fault::None);
    let run = run_with(server.address, "still", STALL, &["--still"]);
    run.passes();
    assert_eq!((run.moved("clients"), run.moved("moves"), run.moved("ended")), (1, 0, 0), "{}", run.text);
    assert_eq!((run.count("delivered"), run.count("complete")), (1200, 300), "all four read");
    assert_eq!(run.json["plan"]["still"], true);
    let beside = &run.json["moved"]["beside"];
    assert_eq!((&beside["before_ms"]["samples"], &beside["during_ms"]["samples"]), (&300.into(), &0.into()));
}

// ---- the search, the files, the ends

/// Ten milliseconds for each message are 100 messages per second, never more.
#[test]
fn the_knee_is_where_the_server_gets_slow() {
    let flags = ["--find-knee", "--limit", "last-p50<60ms"];
    let scenario = "room = \"r\"\nconnections = 2\nrate = 60\nduration = \"500ms\"";
    // A machine that is busy with something else makes a run invalid, or slow at any rate: then it is done again.
    let found = (0..5).any(|_| {
        let server = hall(Fault::Slow(Duration::from_millis(10)));
        let run = run_with(server.address, "knee", scenario, &flags);
        let line = run.text.lines().find(|line| line.starts_with("KNEE ")).expect("a search ends with its answer");
        let rates: Vec<f64> = line.split(&[' ', '/']).filter_map(|word| word.replace(',', "").parse().ok()).collect();
        let &[held, broke] = &rates[..] else { return false };
        // In half a second at 140/s the backlog grows to 0.14 s, and half of the messages wait for more than 0.07 s.
        assert!(held < broke && held <= 140.0, "{line}: {}", run.text);
        assert_eq!(run.code, Some(0), "the report is of the best run: {}", run.text);
        held >= 15.0
    });
    assert!(found, "one of five searches finds a rate that holds and one that does not");
}

#[test]
fn every_file_is_written_and_can_be_read() {
    let [csv, html, hdr] = ["files.csv", "files.html", "files.hlog"].map(temporary);
    let scenario = "room = \"r\"\nconnections = 5\nrate = 50\nduration = \"300ms\"\n[rooms]\ncount = 2";
    let server = hall(Fault::None);
    let run =
        run_with(server.address, "files", scenario, &["--csv", &csv, "--html", &html, "--hdr", &hdr, "--seed", "7"]);
    run.passes();
    let (plan, format) = (&run.json["plan"], &run.json["format"]);
    assert_eq!(
        (&plan["workload"], &plan["rooms"], &plan["seed"], format),
        (&"files".into(), &2.into(), &7.into(), &1.into())
    );
    let csv = written(&csv);
    let mut lines = csv.split_terminator("\r\n").map(|line| line.split(',').count());
    let columns = lines.next().expect("there is a heading");
    assert!(lines.clone().count() > 0 && lines.all(|line| line == columns), "{csv}");
    let html = written(&html);
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    let hdr = written(&hdr);
    let entries = hdr.lines().filter(|line| line.starts_with("Tag=") && line.contains(",HISTFAAA")).count();
    assert_eq!(entries, 5, "first, median, p99, last and delivery: {hdr}");
}

#[test]
fn a_scenario_that_is_wrong_is_one_line() {
    let file = temporary("wrong.toml");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for (scenario, problem) in [
        (
            "rate = 1\nspeed = 2",
            format!("the scenario {file} cannot be used: line 2: unknown field `speed`, expected one of"),
        ),
        ("[rooms]\ncount = 2", "rooms: several rooms need a name to begin with: room = \"NAME\"".to_owned()),
        ("room = \"r\"\n[rooms]\ncount = 5\nper_client = 2", "rooms: count is a multiple of per_client".to_owned()),
        ("[motion]\nkind = \"drop\"\nshare = 2", "motion: share is above 0 and at most 1".to_owned()),
    ] {
        let output = command(nobody, "wrong", scenario).output().expect("it was built");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.starts_with(&format!("loadtest: {problem}")), "{errors}");
        assert_eq!(errors.matches('\n').count(), 1, "{errors}");
    }
}

/// Starts a run, and gives what it writes up to the first line of its progress that has `word`.
pub fn start_until(mut command: Command, word: &str) -> (Child, BufReader<ChildStdout>, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it was built");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut text = String::new();
    while !text.lines().last().is_some_and(|line| line.contains(word)) {
        assert!(lines.read_line(&mut text).expect("it is text") > 0, "{word} never came: {text}");
    }
    (child, lines, text)
}

/// Interrupts a run when a line of its progress has `word`, and gives its exit code and what it wrote.
fn interrupted(name: &str, word: &str, scenario: &str, flags: &[&str]) -> (Option<i32>, String) {
    let server = hall(Fault::None);
    let mut command = command(server.address, name, scenario);
    command.args(flags);
    let (mut child, mut lines, mut text) = start_until(command, word);
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill is there");
    assert!(killed.success());
    lines.read_to_string(&mut text).expect("it is text");
    (child.wait().expect("it ends").code(), text)
}

/// Those that have not joined yet, or are on their way back, have lost nothing.
#[test]
fn an_interruption_in_any_phase_ends_with_a_clean_report() {
    let still = "room = \"r\"\nconnections = 4\nrate = 10\nduration = \"1h\"\n";
    let short =
        "room = \"r\"\nconnections = 4\nrate = 10\nduration = \"500ms\"\n[motion]\nkind = \"drop\"\nshare = 0.5";
    let join = format!("{still}[motion]\nkind = \"join\"\nshare = 1.0\nover = \"1h\"");
    let drop = format!("{still}[motion]\nkind = \"drop\"\nshare = 1.0\nover = \"1s\"\nrepeat = true");
    let table: [(&str, &str, &str, &[&str]); 5] = [
        ("connecting", " connected ", still, &["--ramp", "0.1/s"]),
        ("measuring", " published ", still, &[]),
        ("joining", " published ", &join, &[]),
        ("dropping", " published ", &drop, &[]),
        ("draining", " published 5 ", short, &[]),
    ];
    let runs = table.map(|(name, word, scenario, flags)| {
        let scenario = scenario.to_owned();
        let run = move || interrupted(name, word, &scenario, flags);
        (name, thread::spawn(run))
    });
    for (name, run) in runs {
        let (code, text) = run.join().expect("a run does not panic");
        assert_eq!(code, Some(130), "{name}: {text}");
        assert!(text.contains("INTERRUPTED this is what was seen so far"), "{name}: {text}");
        assert!(text.contains("lost 0, doubled 0, reordered 0, stray 0, closed 0"), "{name}: {text}");
    }
}
