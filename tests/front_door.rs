//! Front door: a WebSocket handshake that is all there when its connection is accepted is answered like one that comes in
//! pieces, which hyper reads.
//!
//! Which way a request takes must not be for the scheduler to say, so the only worker is held up in a handler while the
//! requests are written: see [`Fixture::whole`] and [`Fixture::in_pieces`].

mod support;

use fanfare::{Cors, Io, IpNet, Origins, Settings, Socket};
use rand::rngs::StdRng;
use rand::{Rng, RngExt as _, SeedableRng as _};
use std::io::{ErrorKind, Read as _};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use support::client::WEBSOCKET;
use support::http::{Connection, WAIT_MAX};
use support::websocket::Peer;
use support::{Running, settings, stats, wait_for_stats};

const HEADERS: [&str; 5] = [
    "Host: localhost",
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];
/// A text frame, `40`, with a mask of zeros.
const CONNECT: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'4', b'0'];
/// Connections that a worker accepts in one turn.
const ACCEPTS_MAX: usize = 32;

/// A server with one worker, and a client that can hold this worker up.
struct Fixture {
    io: Io,
    server: Running,
    inside: Peer,
    /// The worker is in the handler. Dropping what was sent here lets it go on.
    held: Receiver<Sender<()>>,
}

impl Fixture {
    fn new(settings: Settings) -> Fixture {
        let io = Io::with_settings(Settings { workers: 1, ..settings });
        let (holds, held) = channel();
        let holds = Mutex::new(holds);
        io.of("/")
            .on_event("echo", |socket: Socket, text: String| drop(socket.emit("echo", &text)))
            .on_event("hold", move |_: Socket| {
                let (release, released) = channel::<()>();
                holds.lock().expect("nobody panics with it").send(release).expect("the test waits");
                let _ = released.recv_timeout(WAIT_MAX);
            })
            .on_event("request", |socket: Socket| {
                let handshake = socket.handshake();
                let headers: String = handshake.headers().map(|(name, value)| format!("\n{name}: {value}")).collect();
                drop(socket.emit("request", &format!("{}{headers}", handshake.url())));
            });
        let server = Running::io(&io);
        let mut inside = Peer::open(server.address(), WEBSOCKET, &[("X-Forwarded-For", "203.0.113.1")]);
        inside.text();
        inside.send("40");
        assert!(inside.text().starts_with("40{"));
        Fixture { io, server, inside, held }
    }

    /// Connects and writes while the worker looks elsewhere: when it accepts, all of this is there.
    fn write_unseen(&mut self, texts: &[&[u8]]) -> Vec<Connection> {
        self.inside.send(r#"42["hold"]"#);
        let release = self.held.recv_timeout(WAIT_MAX).expect("the worker is in the handler");
        let write = |text: &&[u8]| {
            let mut connection = Connection::open(self.server.address());
            connection.write(text);
            connection
        };
        let connections = texts.iter().map(write).collect();
        drop(release);
        connections
    }

    /// Sends each request on a connection of its own, so that it is read at once.
    fn whole(&mut self, requests: &[Vec<u8>]) -> Vec<Connection> {
        let texts: Vec<_> = requests.iter().map(|request| &request[..]).collect();
        self.write_unseen(&texts)
    }

    /// The same so that the first read finds only the first bytes.
    fn in_pieces(&mut self, requests: &[Vec<u8>]) -> Vec<Connection> {
        let begin: Vec<_> = requests.iter().map(|request| &request[..1]).collect();
        let mut connections = self.write_unseen(&begin);
        // A turn ends with an answer at the latest.
        for _ in 0..requests.len() / ACCEPTS_MAX + 3 {
            self.inside.send(r#"42["echo","turn"]"#);
            assert_eq!(self.inside.text(), r#"42["echo","turn"]"#);
        }
        connections.iter_mut().zip(requests).for_each(|(connection, request)| connection.write(&request[1..]));
        connections
    }

    /// What is answered to requests that come whole, and in pieces.
    fn answers(&mut self, requests: &[Vec<u8>]) -> [Vec<String>; 2] {
        let whole: Vec<_> = self.whole(requests).iter_mut().map(answer).collect();
        let in_pieces = self.in_pieces(requests).iter_mut().map(answer).collect();
        [whole, in_pieces]
    }
}

/// A request with this first line and these header lines.
fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    format!("{line}\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes()
}

fn handshake(target: &str, more: &[&str]) -> Vec<u8> {
    request(&format!("GET {target} HTTP/1.1"), &[&HEADERS, more].concat())
}

/// The head of the first answer, as it came; only the time of its date and the seconds to wait are put out of sight.
fn answer(connection: &mut Connection) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match connection.reader.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {}", head.escape_ascii()),
        }
    }
    let changing = |line: &str| match line.split_once(": ") {
        Some((name @ ("date" | "retry-after"), value)) => {
            format!("{name}: {} characters\n", value.trim_end().len().min(29))
        }
        _ => line.to_owned(),
    };
    String::from_utf8(head).expect("heads are text").split_inclusive('\n').map(changing).collect()
}

fn listed_origin() -> Settings {
    let origins = Origins::Listed(vec!["http://good.example".into()]);
    Settings { cors: Some(Cors { origins, credentials: true, methods: vec!["GET".into()] }), ..settings() }
}

#[test]
fn a_handshake_that_is_all_there_gets_the_same_101_as_one_in_pieces() {
    let mut fixture = Fixture::new(listed_origin());
    let requests = [
        handshake(WEBSOCKET, &[]),
        handshake(&format!("{WEBSOCKET}&sid=&t=1"), &[]),
        handshake(&format!("{WEBSOCKET}#part"), &[]),
        handshake("/socket.io/any/thing?EIO=3&transport=polling&EIO=%34&transport=web%73ocket", &[]),
        handshake(WEBSOCKET, &["Origin: http://good.example", "Sec-WebSocket-Protocol: graph, chat"]),
        handshake(WEBSOCKET, &["Origin: http://evil.example", "Sec-WebSocket-Protocol: ", "Cookie: a=\u{e4}"]),
        handshake(WEBSOCKET, &["Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: none", "Upgrade: h2c"]),
        [handshake(WEBSOCKET, &[]), CONNECT.to_vec()].concat(),
        // hyper's in either case.
        handshake(WEBSOCKET, &["Connection: close"]),
        handshake(WEBSOCKET, &["Content-Length: 0"]),
        handshake(WEBSOCKET, &["X-Long: ".to_owned() + &"x".repeat(20_000)].each_ref().map(|text| &text[..])),
        handshake(&format!("http://localhost{WEBSOCKET}"), &[]),
    ];
    let [whole, in_pieces] = fixture.answers(&requests);
    assert_eq!(whole, in_pieces);
    for (request, answer) in requests.iter().zip(&whole) {
        let request = String::from_utf8_lossy(&request[..request.len().min(300)]);
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{request}\n{answer}");
        assert!(answer.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{request}\n{answer}");
        assert!(answer.ends_with("date: 29 characters\n\r\n"), "{request}\n{answer}");
    }
    let opened = stats(&fixture.io).opened;
    assert_eq!(opened, 1 + 2 * requests.len() as u64);
}

#[test]
fn whoever_is_refused_is_told_the_same_either_way_and_counted_once() {
    let mut fixture = Fixture::new(settings());
    let bad = |header: &str| {
        let name = header.split(':').next().expect("split gives at least one");
        let headers: Vec<_> =
            HEADERS.iter().map(|usual| if usual.starts_with(name) { header } else { usual }).collect();
        request(&format!("GET {WEBSOCKET} HTTP/1.1"), &headers)
    };
    let requests = [
        handshake(&WEBSOCKET.replace("EIO=4", "EIO=3"), &[]),
        handshake(&WEBSOCKET.replace("websocket", "telepathy"), &[]),
        handshake(&WEBSOCKET.replace("websocket", "polling"), &[]),
        handshake(&format!("{WEBSOCKET}&sid=abc"), &[]),
        request(&format!("POST {WEBSOCKET} HTTP/1.1"), &HEADERS),
        request(&format!("OPTIONS {WEBSOCKET} HTTP/1.1"), &HEADERS),
        bad("Sec-WebSocket-Version: 12"),
        bad("Sec-WebSocket-Key: dG9vIHNob3J0"),
        bad("Upgrade: h2c"),
        bad("Connection: keep-alive"),
        handshake("/elsewhere?EIO=4&transport=websocket", &[]),
        b"no request\r\n\r\n".to_vec(),
    ];
    let mut refused = Vec::new();
    for way in [Fixture::whole, Fixture::in_pieces] {
        let answers: Vec<_> = way(&mut fixture, &requests).iter_mut().map(answer).collect();
        // What hyper cannot read is counted when it has ended that connection, which is after its answer.
        let expected = 11 * (refused.len() as u64 + 1);
        refused.push((answers, wait_for_stats(&fixture.io, |stats| stats.refused >= expected).refused));
    }
    let [(whole, once), (in_pieces, twice)] = &refused[..] else { unreachable!("two ways") };
    assert_eq!(whole, in_pieces);
    assert!(whole.iter().all(|answer| answer.starts_with("HTTP/1.1 4")), "{whole:#?}");
    assert_eq!((*once, *twice), (11, 22), "other paths have no counter");
    assert_eq!(stats(&fixture.io).opened, 1);
}

#[test]
fn what_a_handler_knows_of_the_request_is_the_same_either_way() {
    let mut fixture = Fixture::new(settings());
    let headers = ["X-Twice: a", "Cookie: b=\u{e4}", "X-TWICE:  c ", "User-Agent: test", "X-Empty:"];
    let requests = [handshake(&format!("{WEBSOCKET}&token=%20x#part"), &headers)];
    let expected = format!(
        r#"42["request","{WEBSOCKET}&token=%20x{}"]"#,
        r"\nhost: localhost\nx-twice: a\nx-twice: c\ncookie: b=ä\nuser-agent: test\nx-empty: "
    );
    for way in [Fixture::whole, Fixture::in_pieces] {
        let connection = way(&mut fixture, &requests).pop().expect("one request");
        let mut peer = Peer::accepted(connection);
        peer.text();
        peer.send("40");
        peer.text();
        peer.send(r#"42["request"]"#);
        assert_eq!(peer.text(), expected);
    }
}

#[test]
fn frames_behind_a_handshake_in_one_segment_are_read() {
    let mut fixture = Fixture::new(settings());
    // The last one is cut in the middle.
    let [first, rest] = [&CONNECT[..3], &CONNECT[3..]];
    let requests =
        [[handshake(WEBSOCKET, &[]), CONNECT.to_vec()].concat(), [handshake(WEBSOCKET, &[]), first.to_vec()].concat()];
    let rests: [&[u8]; 2] = [&[], rest];
    for way in [Fixture::whole, Fixture::in_pieces] {
        for (connection, rest) in way(&mut fixture, &requests).into_iter().zip(rests) {
            let mut peer = Peer::accepted(connection);
            assert!(peer.text().starts_with(r#"0{"sid":""#));
            peer.write(rest);
            assert!(peer.text().starts_with(r#"40{"sid":""#));
            peer.send(r#"42["echo","x"]"#);
            assert_eq!(peer.text(), r#"42["echo","x"]"#);
        }
    }
}

#[test]
fn a_connection_that_ends_without_a_word_leaves_nothing_behind() {
    let mut fixture = Fixture::new(Settings { connections_max: 2, ..settings() });
    for _ in 0..3 {
        let gone = fixture.write_unseen(&[b""]);
        drop(gone);
    }
    let mut peer = Peer::accepted(fixture.whole(&[handshake(WEBSOCKET, &[])]).pop().expect("one request"));
    assert!(peer.text().starts_with("0{"), "its place is free");
    let stats = stats(&fixture.io);
    assert_eq!((stats.opened, stats.refused), (2, 0));
}

#[test]
fn handshakes_over_the_limit_of_a_second_are_refused_the_same_either_way() {
    for way in [Fixture::whole, Fixture::in_pieces] {
        // The one of the fixture took what there is for this second, and a refill takes a while.
        let mut fixture = Fixture::new(Settings { handshakes_per_second_max: 1, ..settings() });
        let requests = vec![handshake(WEBSOCKET, &[]); 4];
        let answers: Vec<_> = way(&mut fixture, &requests).iter_mut().map(answer).collect();
        let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        let refused: Vec<_> = refused.collect();
        assert!(refused.len() >= 2, "{answers:#?}");
        assert!(refused.iter().all(|answer| answer.contains("\r\nretry-after: ")), "{answers:#?}");
        let stats = stats(&fixture.io);
        assert_eq!(stats.handshakes_refused, refused.len() as u64, "each is counted once");
        assert_eq!(stats.opened, 1 + 4 - refused.len() as u64);
    }
}

#[test]
fn a_client_of_a_proxy_has_its_place_once_either_way() {
    let trusted: IpNet = "127.0.0.0/8".parse().expect("a network");
    let limits = Settings { trusted_proxies: vec![trusted], connections_per_address_max: 1, ..settings() };
    let mut fixture = Fixture::new(limits);
    for (way, hosts) in [(Fixture::whole as fn(&mut _, &[_]) -> Vec<_>, [7, 8]), (Fixture::in_pieces, [9, 10])] {
        let from = hosts.map(|host| handshake(WEBSOCKET, &[&format!("X-Forwarded-For: 198.51.100.{host}")]));
        let requests = [from[0].clone(), from[0].clone(), from[1].clone(), from[1].clone(), from[0].clone()];
        let mut connections = way(&mut fixture, &requests);
        let mut statuses: Vec<_> =
            connections.iter_mut().map(|connection| answer(connection)[9..12].to_owned()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == "101").count(), 2, "{statuses:?}");
        statuses.sort();
        assert_eq!(statuses, ["101", "101", "503", "503", "503"]);
    }
    let stats = stats(&fixture.io);
    assert_eq!((stats.addresses_refused, stats.refused, stats.opened), (6, 0, 5));
}

#[test]
fn a_server_that_drains_takes_nobody_in_either_way() {
    for way in [Fixture::whole, Fixture::in_pieces] {
        let mut fixture = Fixture::new(settings());
        fixture.io.drain(WAIT_MAX);
        while !stats(&fixture.io).draining {}
        let answers: Vec<_> = way(&mut fixture, &[handshake(WEBSOCKET, &[])]).iter_mut().map(answer).collect();
        assert!(answers[0].starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answers:?}");
        assert_eq!(stats(&fixture.io).shutting_down_refused, 1);
    }
}

// ---- any request at all

/// Lines that change how a request is read, or what is answered.
const LINES: [&str; 22] = [
    "Connection: close",
    "Connection: Upgrade",
    "Connection: ,",
    "Content-Length: 0",
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Upgrade: WebSocket",
    "Upgrade: h2c, websocket",
    "Sec-WebSocket-Version: 8",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol: a, b",
    "Sec-WebSocket-Protocol: \u{e4}",
    "Origin: http://good.example",
    "Origin: http://evil.example",
    "Access-Control-Request-Headers: x",
    "Cookie: \u{e4}",
    "X-Space : a",
    " folded",
    "X-Empty:",
    ":",
    "GET / HTTP/1.1",
];
const TARGETS: [&str; 9] = [
    "/socket.io/?EIO=3&transport=websocket",
    "/socket.io/?EIO=4&transport=polling",
    "/socket.io/?transport=websocket&EIO=4&sid=",
    "/socket.io/?transport=websocket&EIO=4&sid=abc",
    "/socket.io?EIO=4&transport=websocket",
    "//socket.io/?EIO=4&transport=websocket",
    "http://localhost/socket.io/?EIO=4&transport=websocket",
    "/socket.io/x%ff?EIO=4&transport=websocket#?EIO=3",
    "*",
];
const BYTES: &[u8] = b"\0\t\n\r \"#%&,/:;=?@[]_{}~09AZaz\x7f\x80\xff";

/// A handshake in which up to three things are other than usual.
fn mutant(random: &mut impl Rng) -> Vec<u8> {
    let mut lines = vec![format!("GET {WEBSOCKET} HTTP/1.1")];
    lines.extend(HEADERS.map(str::to_owned));
    let mut bytes_changed = 0;
    for _ in 0..random.random_range(0..=3) {
        let at = random.random_range(1..lines.len());
        match random.random_range(0..6) {
            0 => lines[0] = format!("GET {} HTTP/1.1", TARGETS[random.random_range(0..TARGETS.len())]),
            1 | 2 => lines.insert(at, LINES[random.random_range(0..LINES.len())].to_owned()),
            3 => lines.swap(at, random.random_range(1..6)),
            4 => lines.push(lines[at].to_ascii_uppercase()),
            _ => bytes_changed += 1,
        }
    }
    let mut bytes = lines.join("\r\n").into_bytes();
    for _ in 0..bytes_changed {
        let at = random.random_range(0..bytes.len());
        let byte = BYTES[random.random_range(0..BYTES.len())];
        match random.random_range(0..3) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    // Whatever has become of it, this is the end of its head: so each is answered, and none is waited for.
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

#[test]
fn any_request_is_told_the_same_either_way() {
    const SEED: u64 = 17;
    const ROUNDS: usize = 12;
    let mut random = StdRng::seed_from_u64(SEED);
    let mut fixture = Fixture::new(listed_origin());
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let requests: Vec<_> = (0..ACCEPTS_MAX).map(|_| mutant(&mut random)).collect();
        let [whole, in_pieces] = fixture.answers(&requests);
        for ((request, whole), in_pieces) in requests.iter().zip(&whole).zip(&in_pieces) {
            assert_eq!(whole, in_pieces, "seed {SEED}, round {round}: {}", request.escape_ascii());
            accepted += usize::from(whole.starts_with("HTTP/1.1 101 "));
        }
    }
    let all = ROUNDS * ACCEPTS_MAX;
    assert!((all / 5..all).contains(&accepted), "{accepted} of {all} are let in, so both answers have been seen");
}
