//! The server program from outside: the real binary on a free port, spoken to over plain sockets.
//!
//! Every test starts its own server, so they run side by side. Nothing sleeps: a test waits for a line, for an answer,
//! or for the end of the process.
#![cfg(feature = "standalone")]

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

const KEY: &str = "a-key-of-the-tests";
/// Nothing takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

// ---- the program

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(words).env_remove("RUST_LOG").stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANFARE_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command that ends by itself.
fn run(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running server. Its process ends with it, also when the test fails.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
    /// The whole start-up text.
    greeting: String,
}

impl Program {
    fn start(words: &[&str]) -> Program {
        Program::of(command(&[&["serve"], words].concat()))
    }

    fn of(mut command: Command) -> Program {
        command.env("FANFARE_LISTEN", "127.0.0.1:0").env("FANFARE_WORKERS", "2");
        // No ping comes between what a test expects.
        command.env("FANFARE_PING_SPREAD", "false");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        while !greeting.ends_with("'\n\n") {
            assert_ne!(stdout.read_line(&mut greeting).unwrap(), 0, "it ended: {greeting}");
        }
        let (_, rest) = greeting.split_once("http://").unwrap();
        let address = rest.split_whitespace().next().unwrap().parse().unwrap();
        Program { child, stdout, address, greeting }
    }

    fn with_file(name: &str, text: &str, words: &[&str]) -> Program {
        let file = scratch(name).join("fanfare.toml");
        std::fs::write(&file, text).unwrap();
        Program::start(&[&["--config", file.to_str().unwrap()], words].concat())
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        Line::open(self.address).request(method, path, headers, body)
    }

    fn publish(&self, body: Value) -> Answer {
        self.request("POST", "/api/publish", &[], &body.to_string())
    }

    fn stats(&self) -> Value {
        self.get("/api/stats").json()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code, and what it said on stdout since the greeting.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    /// The same, of one that could take longer than anybody has patience.
    fn end_in_time(self) -> (Option<i32>, String) {
        let (sender, ended) = channel();
        std::thread::spawn(move || drop(sender.send(self.end())));
        ended.recv_timeout(PATIENCE).expect("it ends")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An empty directory for one test.
fn scratch(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

// ---- HTTP, as little of it as is needed

/// One connection.
struct Line(BufReader<TcpStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Line {
    fn open(address: SocketAddr) -> Line {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Line(BufReader::new(stream))
    }

    fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {}\r\n", self.0.get_ref().peer_addr().unwrap());
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
        self.answer(method)
    }

    fn answer(&mut self, method: &str) -> Answer {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the connection ended after {head:?}");
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        let pairs = head[1..].iter().map(|line| line.split_once(": ").unwrap());
        let headers = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method != "HEAD" && status != 304 {
            answer.body.resize(answer.header("content-length").map_or(0, |length| length.parse().unwrap()), 0);
            self.0.read_exact(&mut answer.body).unwrap();
        }
        answer
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

// ---- a Socket.IO client that polls

struct Client {
    address: SocketAddr,
    sid: String,
    namespace: &'static str,
    waiting: VecDeque<String>,
    acks: u32,
}

impl Client {
    fn connect(program: &Program) -> Client {
        Client::connect_to(program, "/")
    }

    fn connect_to(program: &Program, namespace: &'static str) -> Client {
        let opened = program.get("/socket.io/?EIO=4&transport=polling");
        let hello: Value = serde_json::from_str(&opened.text()[1..]).unwrap();
        let sid = hello["sid"].as_str().unwrap().to_owned();
        let mut client = Client { address: program.address, sid, namespace, waiting: VecDeque::new(), acks: 0 };
        client.push(&format!("40{}", client.prefix()));
        assert!(client.next().starts_with(&format!("40{}{{\"sid\"", client.prefix())));
        client
    }

    fn prefix(&self) -> String {
        if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) }
    }

    fn path(&self) -> String {
        format!("/socket.io/?EIO=4&transport=polling&sid={}", self.sid)
    }

    fn push(&self, packet: &str) {
        let pushed = Line::open(self.address).request("POST", &self.path(), &[], packet);
        assert_eq!((pushed.status, pushed.text()), (200, "ok"));
    }

    /// The next packet.
    fn next(&mut self) -> String {
        while self.waiting.is_empty() {
            let polled = Line::open(self.address).request("GET", &self.path(), &[], "");
            assert_eq!(polled.status, 200, "{}", polled.text());
            self.waiting.extend(polled.text().split('\x1e').map(str::to_owned));
        }
        self.waiting.pop_front().unwrap()
    }

    /// The next event: its name and arguments.
    fn event(&mut self) -> Value {
        let packet = self.next();
        let start = format!("42{}", self.prefix());
        serde_json::from_str(packet.strip_prefix(&start).unwrap_or_else(|| panic!("no event: {packet}"))).unwrap()
    }

    fn emit(&self, event: Value) {
        self.push(&format!("42{}{event}", self.prefix()));
    }

    /// Emits, and waits for the answer, which has one argument.
    fn ask(&mut self, event: Value) -> Value {
        self.acks += 1;
        self.push(&format!("42{}{}{event}", self.prefix(), self.acks));
        let packet = self.next();
        let start = format!("43{}{}", self.prefix(), self.acks);
        let answer = packet.strip_prefix(&start).unwrap_or_else(|| panic!("no answer: {packet}"));
        serde_json::from_str::<[Value; 1]>(answer).unwrap()[0].clone()
    }
}

// ---- a Socket.IO client over WebSocket, which hears of the end by itself

struct WebSocket(Line);

impl WebSocket {
    fn connect(program: &Program) -> WebSocket {
        let mut line = Line::open(program.address);
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let answer = line.request("GET", "/socket.io/?EIO=4&transport=websocket", &headers, "");
        assert_eq!(answer.status, 101);
        let mut client = WebSocket(line);
        assert!(client.next().unwrap().starts_with("0{"));
        // A text frame of two bytes; a mask of zeros changes nothing.
        client.0.0.get_mut().write_all(b"\x81\x82\0\0\0\x0040").unwrap();
        assert!(client.next().unwrap().starts_with("40{"));
        client
    }

    /// The next packet; `None` is a close frame.
    fn next(&mut self) -> Option<String> {
        let mut head = [0; 2];
        self.0.0.read_exact(&mut head).unwrap();
        assert!(head[1] <= 125, "short frames only");
        let mut payload = vec![0; usize::from(head[1])];
        self.0.0.read_exact(&mut payload).unwrap();
        match head[0] {
            0x81 => Some(String::from_utf8(payload).unwrap()),
            0x88 => None,
            other => panic!("an unexpected frame: {other:#x}"),
        }
    }
}

// ---- start

#[test]
fn it_says_where_it_listens_and_what_to_try_next() {
    let program = Program::start(&["--io", "send"]);
    let url = format!("http://{}", program.address);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        program.greeting,
        format!(
            "fanfare {version} listens on {url} with 2 workers, I/O: send\n\n\
             \x20 look      {url}/\n\
             \x20 connect   Socket.IO clients to {url}/socket.io/\n\
             \x20 publish   curl {url}/api/publish -d '{{\"event\":\"hello\",\"args\":[\"world\"]}}'\n\n"
        )
    );
}

#[test]
fn with_a_key_the_line_to_try_names_the_variable_and_never_the_key() {
    let program = Program::start(&["--publish-key", KEY, "--workers", "1"]);
    assert!(program.greeting.contains("-H \"Authorization: Bearer $FANFARE_PUBLISH_KEY\""));
    assert!(program.greeting.contains("with 1 worker,") && !program.greeting.contains(KEY));
}

#[test]
fn without_a_command_it_helps_and_names_the_first_one_to_try() {
    let output = run(&[]);
    let help = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && help.contains("To begin: fanfare serve"), "{help}");
}

#[test]
fn the_configuration_in_effect_can_be_printed() {
    let output = run(&["config", "--listen", "[::1]:4000", "--publish-key", KEY]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && text.contains("listen = \"[::1]:4000\" # --listen"), "{text}");
    assert!(!text.contains(KEY));
}

#[test]
fn a_configuration_that_cannot_be_ends_with_2_and_says_what_to_change() {
    let file = scratch("bad-configuration").join("fanfare.toml");
    std::fs::write(&file, "[limits]\nconections_max = 1\n").unwrap();
    let file = file.to_str().unwrap();
    let directory = scratch("no-bundles");
    let directory = directory.to_str().unwrap();
    let cases: [(&[&str], &str); 5] = [
        (
            &["--listen", "0.0.0.0:0"],
            "server.listen (--listen): 0.0.0.0:0 is not loopback and server.publish_key is not set",
        ),
        (
            &["--workers", "-1"],
            "server.workers (--workers): -1 is out of range; allowed: a whole number from 0 to 1024",
        ),
        (&["--config", file], "fanfare.toml:2): unknown key; did you mean limits.connections_max?"),
        (
            &["--fd-tables", "own"],
            "server.fd_tables (--fd-tables): \"own\" is not offered; allowed: auto, shared, per-worker",
        ),
        (&["--client-dir", directory], "has none of the client's files, like socket.io.min.js"),
    ];
    for (words, text) in cases {
        let output = run(&[&["serve"], words].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).starts_with("fanfare: ") && stderr(&output).contains(text), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_address_that_is_taken_ends_with_2_and_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "--listen", &address]);
    let text =
        format!("fanfare: server.listen: {address} is taken by another program; choose another port with --listen\n");
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), text));
}

#[test]
fn a_log_filter_that_cannot_be_is_refused_and_one_that_can_overrides_the_level() {
    let output = command(&["serve", "--listen", "127.0.0.1:0"]).env("RUST_LOG", "fanfare=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("fanfare: RUST_LOG: "), "{}", stderr(&output));

    for (filter, logs) in [("info", true), ("", false)] {
        let mut command = command(&["serve", "--log-level", "error", "--log-format", "json"]);
        command.env("RUST_LOG", filter).stderr(Stdio::piped());
        let mut program = Program::of(command);
        let mut log = program.child.stderr.take().unwrap();
        program.signal("TERM");
        assert_eq!(program.end().0, Some(0));
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().any(|line| line["fields"]["message"] == "draining"), logs, "{text}");
    }
}

/// A program with a standard error that takes nothing.
#[cfg(target_os = "linux")]
fn unheard(words: &[&str]) -> Program {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(&[&["serve"], words].concat());
    command.stderr(full);
    Program::of(command)
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_does_not_keep_it_from_draining() {
    let program = unheard(&[]);
    let mut client = WebSocket::connect(&program);
    program.signal("TERM");
    assert_eq!(client.next(), None);
    drop(client);
    let (code, said) = program.end();
    assert_eq!(code, Some(0));
    assert!(said.starts_with("fanfare let 1 client go in "), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_lets_no_stranger_end_it() {
    let program = unheard(&["--proxy-protocol", "required", "--trusted-proxy", "127.0.0.9"]);
    // As many as reach every worker, each of which has a line of its own to write.
    for _ in 0..20 {
        let mut stranger = Line::open(program.address);
        assert_eq!(stranger.0.read(&mut [0]).unwrap(), 0);
    }
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}

// ---- publishing

#[test]
fn what_a_back_end_publishes_reaches_whom_it_is_for_and_they_are_counted() {
    let program = Program::start(&[]);
    let (mut home, mut away, mut both) =
        (Client::connect(&program), Client::connect(&program), Client::connect(&program));
    assert_eq!(home.ask(json!(["join", "home"])), json!(["home"]));
    assert_eq!(away.ask(json!(["join", "away"])), json!(["away"]));
    both.ask(json!(["join", ["home", "away"]]));

    let sent = |body: Value| {
        let answer = program.publish(body);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        answer.json()
    };
    assert_eq!(sent(json!({"event": "a"})), json!({"sockets": 3}));
    assert_eq!(
        sent(json!({"event": "b", "rooms": ["home", "away"], "args": ["x", {"y": [1]}]})),
        json!({"sockets": 3})
    );
    assert_eq!(sent(json!({"event": "c", "rooms": ["home"], "except": ["away"]})), json!({"sockets": 1}));
    assert_eq!(sent(json!({"event": "d", "rooms": ["nowhere"], "volatile": false})), json!({"sockets": 0}));
    let batch = json!([{"event": "e", "rooms": ["away"]}, {"event": "f"}, {"event": "g", "rooms": ["nowhere"]}]);
    assert_eq!(sent(batch), json!({"sockets": [2, 3, 0]}));
    assert_eq!(sent(json!([])), json!({"sockets": []}));

    let events = |client: &mut Client, count: usize| -> Vec<Value> { (0..count).map(|_| client.event()).collect() };
    let b = json!(["b", "x", {"y": [1]}]);
    assert_eq!(events(&mut home, 4), [json!(["a"]), b.clone(), json!(["c"]), json!(["f"])]);
    assert_eq!(events(&mut away, 4), [json!(["a"]), b.clone(), json!(["e"]), json!(["f"])]);
    assert_eq!(events(&mut both, 4), [json!(["a"]), b, json!(["e"]), json!(["f"])]);

    let stats = program.stats();
    assert_eq!((&stats["sockets"], &stats["transports"]), (&json!(3), &json!({"polling": 3, "websocket": 0})));
    assert_eq!((&stats["broadcasts"], &stats["deliveries"]), (&json!(7), &json!(12)));
}

#[test]
fn rooms_follow_the_rules_of_the_file() {
    let text = r#"
        [namespaces."/"]
        client_events = ["move"]
        [namespaces."/".rooms."hall"]
        policy = "conflate"
        conflate_every = "1m"
        [namespaces."/".rooms."board:*"]
        retain = true
    "#;
    let program = Program::with_file("feeds", text, &[]);
    let (mut client, mut mover) = (Client::connect(&program), Client::connect(&program));
    client.ask(json!(["join", "hall"]));
    let price = |price: u32| json!({"event": "price", "rooms": ["hall"], "conflate": "ACME", "args": [price]});
    assert_eq!(program.publish(price(1)).json(), json!({"sockets": 1}));
    assert_eq!(client.event(), json!(["price", 1]), "the first one leaves at once");
    for now in 2..=3 {
        assert_eq!(program.publish(price(now)).json(), json!({"sockets": 1}));
    }
    for step in 1..=2 {
        assert_eq!(mover.ask(json!(["move", {"to": "hall"}, step])), json!({"sockets": 1}));
    }
    program.publish(json!([{"event": "noted", "rooms": ["board:a"]}, {"event": "end"}]));
    let expected = [json!(["price", 3]), json!(["move", 2]), json!(["end"])];
    expected.into_iter().for_each(|event| assert_eq!(client.event(), event));
    client.emit(json!(["join", "board:a"]));
    assert_eq!(client.event(), json!(["noted"]));

    let long = json!({"event": "a", "conflate": "k".repeat(257)});
    let answer = program.publish(long);
    assert_eq!((answer.status, answer.error()), (400, "conflate: a key of 257 bytes is longer than 256".into()));
}

#[test]
fn a_batch_with_one_mistake_sends_nothing() {
    let program = Program::start(&[]);
    let mut client = Client::connect(&program);
    let answer = program.publish(json!([{"event": "a"}, {"event": "b", "rooms": "c"}]));
    assert_eq!((answer.status, answer.error()), (400, "events[1].rooms: expected a list of strings".into()));
    program.publish(json!({"event": "later"}));
    assert_eq!(client.event(), json!(["later"]));
}

#[test]
fn what_cannot_be_published_is_refused_with_its_reason() {
    let program = Program::start(&["--publish-bytes-max", "1KB", "--publish-batch-max", "2"]);
    let refused = |body: &str| {
        let answer = program.request("POST", "/api/publish", &[], body);
        (answer.status, answer.error())
    };
    let large = format!(r#"{{"event":"a","args":["{}"]}}"#, "x".repeat(1000));
    assert_eq!(refused(&large), (413, "the body is larger than limits.publish_bytes_max, 1000 bytes".into()));
    assert_eq!(refused("[{},{},{}]"), (413, "3 events are more than limits.publish_batch_max, 2".into()));
    assert_eq!(refused("{"), (400, "the body is not JSON: EOF while parsing an object at line 1 column 1".into()));
    assert_eq!(refused("{}"), (400, "event: is missing".into()));
    assert_eq!(
        refused(r#"{"event":"a","namespace":"/b"}"#),
        (404, r#"namespace: "/b" does not exist; the configuration has "/""#.into())
    );
    assert_eq!(refused(r#"{"event":"a"}"#.trim_end_matches('}')).0, 400);
}

#[test]
fn a_publish_with_a_key_is_sent_once_however_often_it_comes() {
    let program = Program::start(&[]);
    let mut client = Client::connect(&program);
    let publish = |key: &str, body: &str| program.request("POST", "/api/publish", &[("Idempotency-Key", key)], body);
    let replayed = |answer: &Answer| answer.header("idempotent-replayed").is_some();
    let first = publish("\"order-7\"", r#"{"event":"paid"}"#);
    assert_eq!((first.status, first.json(), replayed(&first)), (200, json!({"sockets": 1}), false));
    for key in ["order-7", "\"order-7\""] {
        let again = publish(key, r#"{"event":"paid"}"#);
        assert_eq!((again.status, again.json(), replayed(&again)), (200, json!({"sockets": 1}), true));
    }
    let other = publish("order-7", r#"{"event":"late"}"#);
    assert_eq!(other.status, 422);
    assert_eq!(other.error(), "this Idempotency-Key was used for another body within limits.idempotency_time, 300 s");
    let spaced = publish("order 7", r#"{"event":"late"}"#);
    assert_eq!(spaced.status, 400);
    assert!(spaced.error().starts_with("Idempotency-Key has a character that is not visible ASCII"));
    assert_eq!(publish("order-8", r#"{"event":"paid too"}"#).status, 200);
    assert_eq!((client.event(), client.event()), (json!(["paid"]), json!(["paid too"])));
    let publishes = &program.stats()["publishes"];
    assert_eq!((&publishes["keys"], &publishes["replayed"]), (&json!(2), &json!(2)));
    assert_eq!(program.stats()["broadcasts"], json!(2));
}

#[test]
fn publishers_that_are_too_many_are_told_when_to_come_back() {
    let program = Program::start(&["--publishes-pending-bytes-max", "1KB"]);
    let mut slow = Line::open(program.address);
    let head = format!("POST /api/publish HTTP/1.1\r\nHost: {}\r\nContent-Length: 990\r\n\r\n", program.address);
    slow.0.get_mut().write_all(head.as_bytes()).unwrap();
    while program.stats()["publishes"]["pending_bytes"] != json!(990) {}
    let refused = program.publish(json!({"event": "a"}));
    let text = "the server is behind: bodies of 990 bytes are not fanned out yet, and \
                limits.publishes_pending_bytes_max is 1000; nothing was sent, try again later";
    assert_eq!((refused.status, refused.error()), (503, text.into()));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    slow.0.get_mut().write_all(format!("{:990}", r#"{"event":"b"}"#).as_bytes()).unwrap();
    assert_eq!(slow.answer("POST").status, 200);
    assert_eq!(program.publish(json!({"event": "a"})).status, 200);
    let publishes = &program.stats()["publishes"];
    assert_eq!((&publishes["pending_bytes"], &publishes["refused_busy"]), (&json!(0), &json!(1)));
}

#[test]
fn publishers_together_have_a_rate() {
    let program = Program::start(&["--publishes-per-second-max", "1"]);
    // Far more than a second's worth: it passes because nothing was published before, and is paid for afterwards.
    let batch: Vec<_> = (0..1000).map(|_| json!({"event": "a"})).collect();
    assert_eq!(program.publish(json!(batch)).status, 200);
    let refused = program.publish(json!({"event": "a"}));
    assert_eq!(refused.status, 429);
    assert!(
        refused.error().starts_with("more than limits.publishes_per_second_max, 1 events a second: there is room in"),
        "{}",
        refused.error()
    );
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 1);
    assert_eq!(program.stats()["publishes"]["refused_rate"], json!(1));
    assert_eq!(program.stats()["broadcasts"], json!(1000));
}

#[test]
fn what_volatile_events_miss_is_counted_in_the_answer() {
    let program = Program::start(&[]);
    let mut client = Client::connect(&program);
    assert_eq!(program.publish(json!({"event": "a", "volatile": true})).json(), json!({"sockets": 0, "dropped": 1}));
    let batch = json!([{"event": "b"}, {"event": "c", "volatile": true}]);
    assert_eq!(program.publish(batch).json(), json!({"sockets": [1, 0], "dropped": [0, 1]}));
    assert_eq!(client.event(), json!(["b"]));
}

#[test]
fn a_body_in_chunks_is_limited_like_any_other() {
    let program = Program::start(&["--publish-bytes-max", "1KB"]);
    let mut line = Line::open(program.address);
    let head = format!("POST /api/publish HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", program.address);
    let chunk = format!("400\r\n{}\r\n0\r\n\r\n", " ".repeat(1024));
    line.0.get_mut().write_all((head + &chunk).as_bytes()).unwrap();
    assert_eq!(line.answer("POST").status, 413);
}

#[test]
fn with_a_key_only_those_who_show_it_may_publish() {
    let program = Program::start(&["--publish-key", KEY]);
    let publish = |headers: &[(&str, &str)]| program.request("POST", "/api/publish", headers, r#"{"event":"a"}"#);
    let missing = publish(&[]);
    assert_eq!(missing.status, 401);
    assert_eq!(missing.error(), "this server wants its publish key: `Authorization: Bearer KEY`");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"fanfare\""));
    let wrong = publish(&[("Authorization", "Bearer a-key-of-the-tesT")]);
    assert_eq!((wrong.status, wrong.error()), (401, "this is not the server's publish key".into()));
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer realm=\"fanfare\", error=\"invalid_token\""));
    let bearer = format!("Bearer {KEY}");
    let from_elsewhere =
        [("Authorization", bearer.as_str()), ("Origin", "https://example.com"), ("Host", "example.com")];
    assert_eq!(publish(&from_elsewhere).status, 200);
    assert_eq!(program.stats()["publish_key_required"], json!(true));
}

#[test]
fn without_a_key_pages_of_others_cannot_publish() {
    let program = Program::start(&[]);
    let publish = |headers: &[(&str, &str)]| program.request("POST", "/api/publish", headers, r#"{"event":"a"}"#);
    let own = format!("http://{}", program.address);
    assert_eq!(publish(&[("Origin", &own)]).status, 200);
    let foreign = publish(&[("Origin", "http://evil.example")]);
    assert_eq!(foreign.status, 403);
    assert!(
        foreign.error().starts_with("a page of \"http://evil.example\" may not publish here"),
        "{}",
        foreign.error()
    );
    let rebound = publish(&[("Host", "evil.example:3000"), ("Origin", "http://evil.example:3000")]);
    assert_eq!(rebound.status, 403);
    assert!(rebound.error().starts_with("\"evil.example:3000\" is not a name of this machine's loopback"));
}

// ---- clients

#[test]
fn clients_join_and_leave_and_are_told_where_they_are() {
    let program = Program::start(&["--rooms-per-socket-max", "3", "--room-bytes-max", "8"]);
    let mut client = Client::connect(&program);
    assert_eq!(client.ask(json!(["join", ["b", "a", "b"]])).as_array().unwrap().len(), 2);
    assert_eq!(client.ask(json!(["leave", "b"])), json!(["a"]));
    assert_eq!(client.ask(json!(["leave", ["never", "there"]])), json!(["a"]));
    assert_eq!(
        client.ask(json!(["join", ["c", "d", "e"]])),
        json!({"error": "that would be more rooms than limits.rooms_per_socket_max, 3"})
    );
    assert_eq!(client.ask(json!(["join", []])), json!(["a"]), "a refused list joins nothing");
    assert_eq!(
        client.ask(json!(["join", ["c", "a-long-name"]])),
        json!({"error": "a room's name of 11 bytes is longer than limits.room_bytes_max, 8"})
    );
    for wrong in [json!(["join"]), json!(["join", 7]), json!(["join", ["c", 7]]), json!(["join", {"room": "c"}])] {
        assert_eq!(client.ask(wrong), json!({"error": "\"join\" wants a room's name or a list of them"}));
    }
    assert_eq!(program.stats()["events_refused"], json!(6));
}

#[test]
fn what_a_client_may_publish_goes_to_everyone_else_or_to_the_rooms_it_names() {
    let program = Program::start(&["--client-event", "say", "--client-event", "wave"]);
    let (mut sender, mut near, mut far) =
        (Client::connect(&program), Client::connect(&program), Client::connect(&program));
    sender.ask(json!(["join", "near"]));
    near.ask(json!(["join", "near"]));
    assert_eq!(sender.ask(json!(["say", "hi", {"to": "all"}])), json!({"sockets": 2}));
    assert_eq!(sender.ask(json!(["say", {"to": "near"}, 1, 2])), json!({"sockets": 1}));
    assert_eq!(sender.ask(json!(["say", {"to": ["far", "nowhere"]}])), json!({"sockets": 0}));
    assert_eq!(sender.ask(json!(["say", {"to": []}])), json!({"error": "\"to\" names no room"}));
    sender.emit(json!(["wave", {"to": "far", "text": "an argument like any other"}]));
    assert_eq!(near.event(), json!(["say", "hi", {"to": "all"}]));
    assert_eq!(near.event(), json!(["say", 1, 2]));
    assert_eq!(near.event()[0], json!("wave"));
    assert_eq!(far.event(), json!(["say", "hi", {"to": "all"}]));
    assert_eq!(far.event(), json!(["wave", {"to": "far", "text": "an argument like any other"}]));
}

#[test]
fn an_event_that_is_not_in_the_configuration_is_refused_and_counted() {
    let text = "[namespaces.\"/\"]\nclient_events = [\"say\"]\n[namespaces.\"/quiet\"]\njoin = false\n";
    let program = Program::with_file("client-events", text, &[]);
    let (mut client, mut witness) = (Client::connect(&program), Client::connect(&program));
    assert_eq!(
        client.ask(json!(["shout", 1])),
        json!({"error": "event \"shout\" may not be published by clients; the configuration allows: \"say\""})
    );
    client.emit(json!(["shout", 2]));
    client.ask(json!(["say", 3]));
    assert_eq!(witness.event(), json!(["say", 3]), "nothing else came before");

    let mut quiet = Client::connect_to(&program, "/quiet");
    assert_eq!(
        quiet.ask(json!(["say", 1])),
        json!({"error": "event \"say\" may not be published by clients; the configuration allows: none"})
    );
    assert_eq!(
        quiet.ask(json!(["join", "a"])),
        json!({"error": "clients may not join or leave rooms of \"/quiet\"; the configuration says join = false"})
    );
    let stats = program.stats();
    assert_eq!(stats["events_refused"], json!(4));
    assert_eq!(
        stats["namespaces"],
        json!([{"name": "/", "sockets": 2, "join": true}, {"name": "/quiet", "sockets": 1, "join": false}])
    );
}

// ---- the other routes

#[test]
fn the_stats_have_what_the_page_reads() {
    let program = Program::start(&[]);
    let stats = program.stats();
    let keys: Vec<&str> = stats.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "version",
        "uptime_ms",
        "workers",
        "io",
        "transports",
        "sockets",
        "rooms",
        "retained",
        "retained_bytes",
        "deliveries",
        "broadcasts",
        "lag_bytes",
        "counts_held",
        "received",
        "bytes_out",
        "conflated_in_windows",
        "windows_full",
        "caught_up",
        "retained_forgotten",
        "waiting_bytes",
        "evicted",
        "evicted_late",
        "evicted_for_memory",
        "dropped_newest",
        "dropped_oldest",
        "conflated",
        "draining",
        "draining_left",
        "reloads",
        "reloads_failed",
        "rate_limited",
        "refused",
        "refused_by",
        "events_refused",
        "rss_bytes",
        "cpu_ms",
        "publish_key_required",
        "publishes",
        "namespaces",
    ];
    expected.sort();
    assert_eq!(keys, expected);
    assert_eq!((&stats["workers"], &stats["io"]), (&json!(2), &json!(best_io())));
    #[cfg(target_os = "linux")]
    assert!(stats["rss_bytes"].as_u64().unwrap() > 100_000 && stats["cpu_ms"].is_u64());
}

#[test]
fn the_page_is_served_with_a_policy_and_revalidated() {
    let program = Program::start(&[]);
    let page = program.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.text(), include_str!("../src/standalone/page.html"));
    assert!(page.header("content-security-policy").unwrap().contains("script-src 'sha256-"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let etag = page.header("etag").unwrap();
    let again = program.request("GET", "/", &[("If-None-Match", etag)], "");
    assert_eq!((again.status, again.header("etag")), (304, Some(etag)));
    let head = program.request("HEAD", "/", &[], "");
    assert_eq!((head.status, head.header("content-length")), (200, page.header("content-length")));
}

#[test]
fn the_page_follows_the_endpoint_to_another_path() {
    let program = Program::start(&["--path", "/live"]);
    assert!(program.get("/").text().contains("\"/live/?EIO=4&transport=websocket\""));
    assert!(program.get("/live/?EIO=4&transport=polling").text().starts_with('0'));
    assert_eq!(program.get("/socket.io/?EIO=4&transport=polling").status, 404);
}

#[test]
fn what_is_not_there_and_what_is_not_allowed_is_said_as_json() {
    let program = Program::start(&[]);
    let missing = program.get("/nowhere?x=1");
    assert_eq!((missing.status, missing.error()), (404, "nothing is served at /nowhere".into()));
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/api/stats", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("PUT", "/readyz", "GET, HEAD"),
        ("GET", "/api/publish", "POST"),
        ("OPTIONS", "/api/publish", "POST"),
    ] {
        let answer = program.request(method, path, &[], "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert_eq!(answer.error(), format!("allowed here: {allowed}"));
    }
    assert_eq!(program.get("/healthz").json(), json!({"status": "ok"}));
    assert_eq!(program.get("/readyz").json(), json!({"status": "ready"}));
}

#[test]
fn the_clients_bundles_are_served_under_the_path() {
    let package = scratch("bundles");
    let dist = package.join("dist");
    std::fs::create_dir(&dist).unwrap();
    std::fs::write(package.join("package.json"), r#"{"name":"socket.io-client","version":"4.8.4"}"#).unwrap();
    let script = "fanfare();".repeat(100);
    std::fs::write(dist.join("socket.io.min.js"), &script).unwrap();
    std::fs::write(dist.join("socket.io.min.js.map"), "{}").unwrap();
    std::fs::write(dist.join("secret.js"), "not a bundle").unwrap();
    let program = Program::start(&["--client-dir", dist.to_str().unwrap()]);
    let url = "/socket.io/socket.io.min.js";
    assert!(program.greeting.contains(&format!("<script src=\"http://{}{url}\"></script>", program.address)));

    let plain = program.get(url);
    assert_eq!((plain.status, plain.text()), (200, &*script));
    assert_eq!(plain.header("content-type"), Some("application/javascript; charset=utf-8"));
    assert_eq!(plain.header("cache-control"), Some("public, max-age=0"));
    assert_eq!((plain.header("etag"), plain.header("content-encoding")), (Some("\"4.8.4\""), None));
    assert_eq!(program.get(&format!("{url}?v=1")).text(), script);
    let map = program.get("/socket.io/socket.io.min.js.map");
    assert_eq!(map.header("content-type"), Some("application/json; charset=utf-8"));

    for etag in ["\"4.8.4\"", "W/\"4.8.4\""] {
        let same = program.request("GET", url, &[("If-None-Match", etag)], "");
        assert_eq!((same.status, same.body.len()), (304, 0));
    }
    let gzip = program.request("GET", url, &[("Accept-Encoding", "gzip, br")], "");
    assert_eq!((gzip.header("content-encoding"), &gzip.body[..2]), (Some("gzip"), &[0x1f, 0x8b][..]));
    let deflate = program.request("GET", url, &[("Accept-Encoding", "br, deflate")], "");
    assert_eq!((deflate.header("content-encoding"), deflate.body[0]), (Some("deflate"), 0x78));
    assert_eq!(gzip.header("vary"), Some("Accept-Encoding"));
    assert_eq!(program.request("POST", url, &[], "").status, 405);

    for unknown in [
        "/socket.io/secret.js",
        "/socket.io/socket.io.js",
        "/socket.io/../secret.js",
        "/socket.io/dist/socket.io.min.js",
    ] {
        let answer = program.get(unknown);
        assert_eq!(
            (answer.status, answer.json()),
            (400, json!({"code": 0, "message": "Transport unknown"})),
            "{unknown}"
        );
    }
}

#[test]
fn without_a_package_beside_them_the_bundles_are_known_by_their_content() {
    let dist = scratch("bundles-alone").join("dist");
    std::fs::create_dir(&dist).unwrap();
    std::fs::write(dist.join("socket.io.js"), "one").unwrap();
    std::fs::write(dist.join("socket.io.esm.min.js"), "two").unwrap();
    let program = Program::start(&["--client-dir", dist.to_str().unwrap()]);
    let etag = |name: &str| program.get(&format!("/socket.io/{name}")).header("etag").unwrap().to_owned();
    assert_eq!(etag("socket.io.js"), "\"7692c3ad3540bb80\"");
    assert_ne!(etag("socket.io.js"), etag("socket.io.esm.min.js"));
}

// ---- descriptors

/// The program where the limit on descriptors is low and cannot be raised.
#[cfg(target_os = "linux")]
fn with_descriptors(limit: u32, words: &[&str]) -> Command {
    let program = command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" serve \"$@\"")]).arg(program.get_program()).args(words);
    shell.env_remove("RUST_LOG").stdin(Stdio::null());
    for (name, _) in program.get_envs() {
        shell.env_remove(name);
    }
    shell
}

/// How many descriptor tables the threads of a process have, told apart by their listeners.
#[cfg(target_os = "linux")]
fn tables_of(program: &Program) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.child.id())).unwrap();
    let sockets = tasks.map(|task| {
        let entries = std::fs::read_dir(task.unwrap().path().join("fd")).unwrap();
        let names = entries.flatten().flat_map(|entry| std::fs::read_link(entry.path()));
        names.filter(|name| name.to_string_lossy().starts_with("socket:")).collect::<std::collections::BTreeSet<_>>()
    });
    sockets.collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(target_os = "linux")]
#[test]
fn with_a_table_for_each_worker_it_holds_more_connections_than_one_table_has_descriptors() {
    const CLIENTS: usize = 600;
    let program = Program::of(with_descriptors(256, &["--fd-tables", "per-worker", "--workers", "4"]));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| WebSocket::connect(&program)).collect();
    assert_eq!(program.publish(json!({"event": "hello"})).json(), json!({"sockets": CLIENTS}));
    for client in &mut clients {
        assert_eq!(client.next().as_deref(), Some("42[\"hello\"]"));
    }
    assert_eq!(program.stats()["transports"]["websocket"], json!(CLIENTS));
    program.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.next(), None);
    }
    let address = program.address;
    drop(clients);
    assert_eq!(program.end().0, Some(0));
    assert!(TcpStream::connect(address).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn tables_are_parted_by_themselves_only_if_the_wanted_connections_need_it() {
    for (words, tables) in [
        (&["--workers", "3"][..], 1),
        (&["--workers", "3", "--connections-max", "100"], 1),
        (&["--workers", "3", "--connections-max", "300"], 4),
        (&["--workers", "3", "--connections-max", "300", "--fd-tables", "shared"], 1),
        (&["--workers", "3", "--fd-tables", "per-worker"], 4),
    ] {
        let program = Program::of(with_descriptors(256, words));
        assert_eq!(tables_of(&program), tables, "{words:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_without_descriptors_says_so_and_lets_its_clients_wait() {
    let mut command = with_descriptors(64, &["--fd-tables", "per-worker", "--workers", "1"]);
    command.env("NO_COLOR", "1").stderr(Stdio::piped());
    let mut program = Program::of(command);
    // More than fit: the kernel connects them all, and the worker accepts as many as it can.
    let mut lines: VecDeque<_> = (0..100).map(|_| Line::open(program.address)).collect();
    let mut log = BufReader::new(program.child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("connections have to wait in the accept queue") {
        assert_ne!(log.read_line(&mut text).unwrap(), 0, "{text}");
    }
    // The last one is served as soon as others have gone.
    let mut last = lines.pop_back().unwrap();
    lines.truncate(10);
    assert_eq!(last.request("GET", "/healthz", &[], "").status, 200);
}

// ---- io_uring

/// How `auto` sends here.
#[cfg(target_os = "linux")]
fn best_io() -> &'static str {
    // SAFETY: nothing is set up, because the parameters are missing: the kernel says so, or that it would not anyway.
    let error = match unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<u8>()) } {
        -1 => std::io::Error::last_os_error(),
        _ => unreachable!("a ring without parameters"),
    };
    if error.raw_os_error() == Some(libc::EFAULT) { "uring" } else { "send" }
}

#[cfg(not(target_os = "linux"))]
fn best_io() -> &'static str {
    "send"
}

/// The program under a filter of system calls that forbids io_uring, as containers have one.
#[cfg(target_os = "linux")]
fn without_io_uring(words: &[&str]) -> Command {
    use std::os::unix::process::CommandExt as _;
    let forbid = || {
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let (load, equal, answer) =
            (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET);
        let mut filter = [
            step(load as u16, 0, 0, std::mem::offset_of!(libc::seccomp_data, nr) as u32),
            step(equal as u16, 0, 1, libc::SYS_io_uring_setup as u32),
            step(answer as u16, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            step(answer as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the kernel copies the filter, which lives until both calls have returned.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    let mut command = command(&[&["serve"], words].concat());
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(forbid) };
    command
}

/// Everybody gets what is published.
fn serves_websockets(program: &Program) {
    let mut clients: Vec<_> = (0..50).map(|_| WebSocket::connect(program)).collect();
    for text in ["hello", "again"] {
        assert_eq!(program.publish(json!({"event": "say", "args": [text]})).json(), json!({"sockets": 50}));
        for client in &mut clients {
            assert_eq!(client.next(), Some(format!("42[\"say\",\"{text}\"]")));
        }
    }
}

#[test]
fn it_sends_by_the_best_that_the_system_allows_and_says_which() {
    for words in [&[][..], &["--io", best_io()]] {
        let program = Program::start(words);
        assert!(program.greeting.contains(&format!(", I/O: {}\n", best_io())), "{words:?}: {}", program.greeting);
        assert_eq!(program.stats()["io"], json!(best_io()));
        serves_websockets(&program);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn each_worker_with_a_descriptor_table_of_its_own_sends_by_the_best_too() {
    let program = Program::start(&["--fd-tables", "per-worker", "--io", best_io()]);
    assert!(program.greeting.contains(&format!(", I/O: {}\n", best_io())), "{}", program.greeting);
    serves_websockets(&program);
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn where_io_uring_is_forbidden_auto_serves_without_it_and_says_why() {
    let mut command = without_io_uring(&["--io", "auto"]);
    command.env("NO_COLOR", "1").stderr(Stdio::piped());
    let mut program = Program::of(command);
    assert!(program.greeting.contains(", I/O: send\n"), "{}", program.greeting);
    serves_websockets(&program);
    let mut log = BufReader::new(program.child.stderr.take().unwrap());
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    let said = text.lines().filter(|line| line.contains("io_uring is not to be had here")).collect::<Vec<_>>();
    assert!(said.len() == 1 && said[0].contains("Operation not permitted") && said[0].contains("workers=2"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn where_io_uring_is_forbidden_insisting_on_it_ends_with_2_and_a_way_out() {
    for tables in ["shared", "per-worker"] {
        let output =
            without_io_uring(&["--listen", "127.0.0.1:0", "--io", "uring", "--fd-tables", tables]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("fanfare: setting `io`: sending through io_uring needs Linux 5.6"), "{text}");
        assert!(last.ends_with("use auto or send (Operation not permitted (os error 1))"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

// ---- the end

/// Whose descriptor table the workers may use here.
#[cfg(target_os = "linux")]
const TABLES: [&str; 2] = ["shared", "per-worker"];
#[cfg(not(target_os = "linux"))]
const TABLES: [&str; 1] = ["shared"];

#[test]
fn a_signal_closes_gracefully_and_clients_are_told() {
    for signal in ["TERM", "INT"] {
        let program = Program::start(&[]);
        let mut client = WebSocket::connect(&program);
        program.publish(json!({"event": "last"}));
        program.signal(signal);
        assert_eq!(client.next().as_deref(), Some("42[\"last\"]"));
        // Not a packet 41, which would tell clients to stay away.
        assert_eq!(client.next(), None);
        drop(client);
        let (code, said) = program.end();
        assert_eq!(code, Some(0));
        assert!(
            said.starts_with("fanfare let 1 client go in ")
                && said.contains(" s, 0 of them cut off, after ")
                && said.ends_with(" s and 1 deliveries\n"),
            "{said}"
        );
    }
}

#[test]
fn while_it_closes_it_is_alive_but_not_ready() {
    let program = Program::start(&["--workers", "1"]);
    // Their requests have begun before the close does, and end after it. The one worker has read the beginnings before
    // it answers the client that comes after them.
    let mut lines = ["readyz", "healthz"].map(|name| {
        let mut line = Line::open(program.address);
        write!(line.0.get_mut(), "GET /{name} HTTP/1.1\r\n").unwrap();
        line
    });
    let mut client = WebSocket::connect(&program);
    program.signal("TERM");
    assert_eq!(client.next(), None);
    drop(client);
    let [ready, alive] = lines.each_mut().map(|line| {
        line.0.get_mut().write_all(b"Host: localhost\r\n\r\n").unwrap();
        line.answer("GET")
    });
    assert_eq!((ready.status, ready.json()), (503, json!({"status": "closing"})));
    assert_eq!((alive.status, alive.json()), (200, json!({"status": "ok"})));
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_second_signal_ends_at_once_with_its_number() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut program = Program::start(&["--shutdown-grace", "1h", "--handshake-timeout", "1h", "--workers", "1"]);
        // Its head never ends, so the server waits for it.
        let mut slow = Line::open(program.address);
        slow.0.get_mut().write_all(b"GET /").unwrap();
        let mut client = WebSocket::connect(&program);
        program.signal("TERM");
        assert_eq!(client.next(), None);
        // What comes at once is taken for an echo of the first, so it is said until it is heard.
        while program.child.try_wait().unwrap().is_none() {
            program.signal(signal);
        }
        assert_eq!(program.end(), (Some(code), String::new()));
    }
}

/// Clients that take some seconds to let go, at the slowest pace that there is.
const CROWD: usize = 300;

#[test]
fn while_it_drains_it_is_not_ready_and_those_who_are_left_live_on() {
    for tables in TABLES {
        let program = Program::start(&["--drain-time", "1h", "--shutdown-grace", "20s", "--fd-tables", tables]);
        let mut clients: Vec<_> = (0..CROWD).map(|_| WebSocket::connect(&program)).collect();
        let mut pollers: Vec<_> = (0..10).map(|_| Client::connect(&program)).collect();
        program.publish(json!({"event": "queued"}));
        program.signal("TERM");
        // The first to go tells that it has begun.
        let begun = std::iter::repeat_with(|| program.stats()).find(|stats| stats["draining"] == true).unwrap();
        assert!(begun["draining_left"].as_u64().unwrap() > 0, "{begun}");
        assert_eq!((program.get("/readyz").status, program.get("/healthz").status), (503, 200));
        let refused = program.get("/socket.io/?EIO=4&transport=polling");
        assert_eq!(refused.status, 503);
        assert_eq!(refused.json(), json!({"code": 4, "message": "Server is shutting down"}));
        let seconds: u8 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&seconds) && refused.header("connection") == Some("close"), "{refused:?}");
        assert_eq!(program.stats()["refused_by"]["shutting_down"], 1);
        let reached = program.publish(json!({"event": "late"})).json()["sockets"].as_u64().unwrap();
        assert!(reached > 0, "some are left for {} ms", CROWD * 10);

        let mut late = 0;
        for client in &mut clients {
            let heard: Vec<_> = std::iter::from_fn(|| client.next()).collect();
            assert_eq!(heard[0], "42[\"queued\"]");
            assert!(heard[1..].iter().all(|packet| packet == "42[\"late\"]"), "{heard:?}");
            late += heard.len() - 1;
        }
        for client in &mut pollers {
            let heard: Vec<_> = std::iter::from_fn(|| Some(client.next()).filter(|packet| packet != "1"))
                .filter(|packet| packet != "6")
                .collect();
            assert_eq!(heard[0], "42[\"queued\"]");
            assert!(heard[1..].iter().all(|packet| packet == "42[\"late\"]"), "{heard:?}");
            late += heard.len() - 1;
        }
        assert_eq!(late as u64, reached);
        drop(clients);
        let (code, said) = program.end();
        assert_eq!(code, Some(0));
        assert!(said.starts_with(&format!("fanfare let {} clients go in ", CROWD + 10)), "{said}");
        assert!(said.contains(" s, 0 of them cut off, "), "{said}");
    }
}

#[test]
fn without_clients_a_signal_ends_it_at_once() {
    for (signal, tables) in ["TERM", "INT"].into_iter().zip(TABLES.into_iter().cycle()) {
        // As long as nobody waits here.
        let times = ["--drain-time", "60s", "--shutdown-grace", "60s"];
        let program = Program::start(&[&times[..], &["--fd-tables", tables]].concat());
        program.signal(signal);
        let (code, said) = program.end_in_time();
        assert_eq!(code, Some(0));
        assert!(said.starts_with("fanfare let 0 clients go in "), "{said}");
    }
}

#[test]
fn a_publish_that_is_under_way_when_it_closes_is_answered() {
    for tables in TABLES {
        let words = ["--drain-time", "0", "--shutdown-grace", "60s", "--workers", "5", "--fd-tables", tables];
        let program = Program::start(&words);
        let body = json!({"event": "last"}).to_string();
        let mut line = Line::open(program.address);
        let head = format!("Host: {}\r\nContent-Length: {}\r\nExpect: 100-continue", program.address, body.len());
        write!(line.0.get_mut(), "POST /api/publish HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        assert_eq!(line.answer("POST").status, 100);
        program.signal("TERM");
        // The workers that have no request to answer could end now.
        while TcpStream::connect(program.address).is_ok() {}
        line.0.get_mut().write_all(body.as_bytes()).unwrap();
        let answer = line.answer("POST");
        assert_eq!((answer.status, answer.json()), (200, json!({"sockets": 0})));
        assert_eq!(program.end_in_time().0, Some(0));
    }
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let mut program = Program::start(&["--drain-time", "1h", "--shutdown-grace", "1h"]);
    let clients: Vec<_> = (0..CROWD).map(|_| WebSocket::connect(&program)).collect();
    program.signal("TERM");
    // What comes at once is taken for an echo of the first, so it is said until it is heard.
    while program.child.try_wait().unwrap().is_none() {
        program.signal("TERM");
    }
    assert_eq!(program.end(), (Some(143), String::new()));
    drop(clients);
}

// ---- rereading the configuration

/// A program with a file, whose log is read.
struct Reloading {
    program: Program,
    file: PathBuf,
    log: BufReader<std::process::ChildStderr>,
}

impl Reloading {
    fn start(name: &str, text: &str, words: &[&str]) -> Reloading {
        let file = scratch(name).join("fanfare.toml");
        std::fs::write(&file, text).unwrap();
        Reloading::of(command(&[&["serve", "--config", file.to_str().unwrap()], words].concat()), file)
    }

    fn of(mut command: Command, file: PathBuf) -> Reloading {
        command.env("NO_COLOR", "1").stderr(Stdio::piped());
        let mut program = Program::of(command);
        let log = BufReader::new(program.child.stderr.take().unwrap());
        Reloading { program, file, log }
    }

    /// Has the program reread its file with this text. Returns the log up to a line with `until`.
    fn reread(&mut self, text: &str, until: &str) -> String {
        std::fs::write(&self.file, text).unwrap();
        self.reread_as_it_is(until)
    }

    fn reread_as_it_is(&mut self, until: &str) -> String {
        self.program.signal("HUP");
        let mut log = String::new();
        while !log.contains(until) {
            assert_ne!(self.log.read_line(&mut log).unwrap(), 0, "it ended: {log}");
        }
        log
    }

    fn reloads(&self) -> (u64, u64) {
        let stats = self.program.stats();
        (stats["reloads"].as_u64().unwrap(), stats["reloads_failed"].as_u64().unwrap())
    }
}

#[test]
fn what_can_change_changes_on_a_signal_and_no_connection_notices() {
    for tables in TABLES {
        let before = format!("[server]\npublish_key = \"{KEY}\"\n[limits]\nrooms_per_socket_max = 1\n");
        let mut reloading = Reloading::start(&format!("reload-{tables}"), &before, &["--fd-tables", tables]);
        let address = reloading.program.address;
        let mut socket = WebSocket::connect(&reloading.program);
        let mut client = Client::connect(&reloading.program);
        assert_eq!(client.ask(json!(["join", "a"])), json!(["a"]));
        assert!(client.ask(json!(["join", "b"]))["error"].as_str().unwrap().contains("rooms_per_socket_max, 1"));
        assert!(client.ask(json!(["say", 1]))["error"].as_str().unwrap().contains("allows: none"));

        let log = reloading.reread(
            "[server]\npublish_key = \"another-key-of-the-tests\"\nworkers = 9\n[cors]\norigins = \"*\"\n\
             [engine]\nping_interval = \"9s\"\n[limits]\nrooms_per_socket_max = 2\npublish_batch_max = 1\n\
             [namespaces.\"/\"]\nclient_events = [\"say\"]\n[log]\nlevel = \"debug\"\n",
            "need a restart",
        );
        let changed = [
            "server.publish_key",
            "cors.origins",
            "limits.rooms_per_socket_max",
            "limits.publish_batch_max",
            r#"namespaces.\"/\".client_events"#,
            "log.level",
        ];
        assert!(log.contains(&format!("changed=\"{}\"", changed.join(", "))), "{log}");
        // FANFARE_WORKERS is stronger than the file, as at the start.
        assert!(log.contains("engine.ping_interval: need a restart; keep their values"), "{log}");
        assert!(!log.contains(KEY) && !log.contains("another-key"), "{log}");
        assert_eq!(reloading.reloads(), (1, 0));

        let publish = |key: &str, body: Value| {
            let bearer = format!("Bearer {key}");
            let headers = [("Authorization", &*bearer)];
            Line::open(address).request("POST", "/api/publish", &headers, &body.to_string())
        };
        assert_eq!(publish(KEY, json!({"event": "hello"})).status, 401);
        assert_eq!(publish("another-key-of-the-tests", json!({"event": "hello"})).json(), json!({"sockets": 2}));
        assert_eq!(publish("another-key-of-the-tests", json!([{"event": "a"}, {"event": "b"}])).status, 413);
        assert_eq!(socket.next().as_deref(), Some("42[\"hello\"]"));
        assert_eq!(client.event(), json!(["hello"]));
        assert_eq!(client.ask(json!(["join", "b"])), json!(["a", "b"]));
        assert_eq!(client.ask(json!(["say", 1])), json!({"sockets": 1}));
        assert_eq!(socket.next().as_deref(), Some("42[\"say\",1]"));
        let opened = reloading.program.get("/socket.io/?EIO=4&transport=polling");
        assert_eq!(opened.header("access-control-allow-origin"), Some("*"));
        assert!(opened.text().contains("\"pingInterval\":25000"), "{}", opened.text());
        assert!(client.ask(json!(["nothing"]))["error"].as_str().unwrap().contains("allows: \"say\""));

        // And back: what had been allowed is refused, and the log is quiet again.
        let log = reloading.reread(&before, "reread");
        assert!(log.contains("a client's event is refused"), "debug was on: {log}");
        assert!(client.ask(json!(["say", 1]))["error"].as_str().unwrap().contains("allows: none"));
        assert_eq!(publish(KEY, json!({"event": "hello"})).json(), json!({"sockets": 2}));
        let log = reloading.reread(&before, "reread");
        assert!(!log.contains("a client's event is refused"), "{log}");
        assert_eq!(reloading.reloads(), (3, 0));
    }
}

#[test]
fn a_file_with_a_mistake_changes_nothing_and_says_why() {
    let mut reloading = Reloading::start("reload-bad", "cors.origins = \"*\"", &[]);
    let program = |reloading: &Reloading| reloading.program.get("/socket.io/?EIO=4&transport=polling");
    for (text, why) in [
        ("limits.rooms_per_socket_max = 0", "limits.rooms_per_socket_max ("),
        ("server.lisen = 1", "did you mean server.listen?"),
        ("[server", "not valid TOML"),
    ] {
        let log = reloading.reread(text, why);
        assert!(log.contains("the configuration stays as it was: 1 problem in the configuration:\n"), "{log}");
        assert_eq!(program(&reloading).header("access-control-allow-origin"), Some("*"), "{text}");
    }
    std::fs::remove_file(&reloading.file).unwrap();
    reloading.reread_as_it_is("cannot read");
    assert_eq!(reloading.reloads(), (0, 4));
    assert_eq!(reloading.reread("", "reread").matches("need a restart").count(), 0);
    assert_eq!(program(&reloading).header("access-control-allow-origin"), None);
    assert_eq!(reloading.reloads(), (1, 4));
}

#[test]
fn a_configuration_that_came_through_a_pipe_is_not_reread_and_nothing_changes() {
    let (pipe, mut writer) = std::io::pipe().unwrap();
    write!(writer, "[server]\npublish_key = \"{KEY}\"\n").unwrap();
    drop(writer);
    let mut command = command(&["serve", "--config", "/dev/stdin"]);
    command.stdin(pipe);
    let mut reloading = Reloading::of(command, PathBuf::from("/dev/stdin"));
    let mut log = reloading.reread_as_it_is("the configuration ");
    assert!(log.contains("the configuration stays as it was: 1 problem in the configuration:\n"), "{log}");
    reloading.log.read_line(&mut log).unwrap();
    assert!(log.contains("cannot read \"/dev/stdin\": it is no regular file"), "{log}");
    assert_eq!(reloading.reloads(), (0, 1));
    assert_eq!(reloading.program.publish(json!({"event": "hello"})).status, 401);
}
