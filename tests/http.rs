//! The HTTP surface, byte by byte: who is refused and how, the handshake, paths, CORS, polling, deadlines and limits.
//!
//! What is expected here was seen on the wire of the reference, except where a comment says otherwise.

mod support;

use bytes::Bytes;
use fanfare::proto::Id;
use fanfare::{Args, CloseReason, Cors, Io, Origins, PeerAddress, Settings, Socket, Transports};
use http_body_util::Full;
use std::future::{Ready, ready};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use support::http::{Connection, Response, WAIT_MAX, get, post};
use support::websocket::Peer;
use support::{Fixture, Running, block_on, settings};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

type Headers = &'static [(&'static str, &'static str)];

impl Fixture {
    /// A server that echoes the event `echo`.
    fn new(settings: Settings) -> Fixture {
        Fixture::with(settings, |main| {
            main.on_event("echo", |socket: Socket, all: Args| drop(socket.emit("echo", &all)));
        })
    }
}

/// The target of a new polling session's requests.
fn open_session(address: SocketAddr) -> String {
    session_of(&get(address, POLLING))
}

fn session_of(handshake: &Response) -> String {
    assert_eq!(handshake.status, 200, "{handshake:?}");
    format!("{POLLING}&sid={}", sid_of(&handshake.body))
}

fn sid_of(open_packet: &str) -> &str {
    open_packet.strip_prefix(r#"0{"sid":""#).and_then(|rest| rest.get(..20)).expect("an open packet")
}

/// The same for a session whose client is in the main namespace and knows it.
fn connected_session(address: SocketAddr) -> String {
    let target = open_session(address);
    assert_eq!(post(address, &target, "40").brief(), (200, "ok"));
    let answer = get(address, &target);
    assert!(answer.body.starts_with(r#"40{"sid":""#), "{answer:?}");
    target
}

fn assert_open(address: SocketAddr, target: &str) {
    assert_eq!(post(address, target, r#"42["echo","open"]"#).brief(), (200, "ok"), "{target}");
    assert_eq!(get(address, target).brief(), (200, r#"42["echo","open"]"#), "{target}");
}

fn assert_gone(address: SocketAddr, target: &str) {
    assert_eq!(get(address, target).brief(), (400, r#"{"code":1,"message":"Session ID unknown"}"#), "{target}");
}

/// Two connections to each worker. Requests over the two of a pair reach any session in the order in which they are
/// sent, so an answer over one says that the request over the other has arrived.
fn pairs(address: SocketAddr) -> [[Connection; 2]; 2] {
    let mut by_worker = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        let mut connection = Connection::open(address);
        let handshake = connection.get(POLLING);
        let sid = Id::parse(sid_of(&handshake.body)).expect("one of ours");
        by_worker[usize::from(sid.shard())].push(connection);
        if by_worker.iter().all(|connections| connections.len() >= 2) {
            return by_worker.map(|mut connections| [connections.remove(0), connections.remove(0)]);
        }
    }
    panic!("a hundred connections, and one worker got none of them");
}

/// A sid that the server could have given out, but has not.
fn stranger(shard: u16) -> String {
    Id::new(shard, 7, [0xa5; 11]).to_string()
}

// ---- refusals

const TRANSPORT_UNKNOWN: (u8, &str) = (0, "Transport unknown");
const UNKNOWN_SID: (u8, &str) = (1, "Session ID unknown");
const BAD_METHOD: (u8, &str) = (2, "Bad handshake method");
const BAD_REQUEST: (u8, &str) = (3, "Bad request");
const UNSUPPORTED: (u8, &str) = (5, "Unsupported protocol version");

fn assert_refused(response: &Response, (code, message): (u8, &str), what: &str) {
    let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    assert_eq!(response.brief(), (400, &*body), "{what}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
}

fn assert_upgrade_refused(connection: &mut Connection, response: &Response, message: &str, what: &str) {
    assert_eq!(response.brief(), (400, message), "{what}");
    assert_eq!(response.header("content-type"), Some("text/html"), "{what}");
    assert_eq!(response.header("connection"), Some("close"), "{what}");
    assert_eq!(connection.rest(), b"", "{what}");
}

/// Every refusal is counted.
fn assert_refusals_counted(fixture: &Fixture, refused: usize) {
    assert_eq!(block_on(fixture.io.stats()).expect("the server runs").refused, refused as u64);
}

#[test]
fn a_refused_request_is_told_code_and_message_in_the_order_of_the_reference() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let sid = sid_of(&get(address, POLLING).body).to_owned();
    let (other_shard, this_shard) = (stranger(999), stranger(1));
    let cases = [
        ("GET", "EIO=4".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=telepathy".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=webtransport".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=polling&transport=telepathy".to_owned(), TRANSPORT_UNKNOWN),
        ("PUT", "EIO=3&transport=telepathy&sid=abc".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=polling&sid=abc".to_owned(), UNKNOWN_SID),
        ("GET", "EIO=4&transport=polling&sid=__proto__".to_owned(), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=polling&sid={other_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=polling&sid={this_shard}"), UNKNOWN_SID),
        ("POST", format!("EIO=4&transport=polling&sid={this_shard}"), UNKNOWN_SID),
        ("PUT", format!("EIO=3&transport=websocket&sid={this_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=websocket&sid={sid}"), BAD_REQUEST),
        ("GET", format!("EIO=3&transport=polling&sid={sid}"), BAD_REQUEST),
        ("GET", format!("transport=polling&sid={sid}"), BAD_REQUEST),
        ("POST", "EIO=4&transport=polling".to_owned(), BAD_METHOD),
        ("PUT", "EIO=4&transport=polling".to_owned(), BAD_METHOD),
        ("OPTIONS", "EIO=4&transport=polling".to_owned(), BAD_METHOD),
        ("DELETE", "EIO=3&transport=websocket".to_owned(), BAD_METHOD),
        ("GET", "EIO=4&transport=websocket".to_owned(), BAD_REQUEST),
        ("GET", "EIO=3&transport=websocket".to_owned(), BAD_REQUEST),
        ("GET", "transport=polling".to_owned(), UNSUPPORTED),
        ("GET", "EIO=&transport=polling".to_owned(), UNSUPPORTED),
        ("GET", "EIO=3&transport=polling".to_owned(), UNSUPPORTED),
        ("GET", "EIO=999&transport=polling".to_owned(), UNSUPPORTED),
    ];
    for (method, query, refusal) in &cases {
        let response = Connection::open(address).request(method, &format!("/socket.io/?{query}"), &[], b"");
        assert_refused(&response, *refusal, &format!("{method} {query}"));
    }
    assert_refusals_counted(&fixture, cases.len());
}

#[test]
fn a_refused_upgrade_is_told_in_plain_text_and_its_connection_closes() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let sid = sid_of(&get(address, POLLING).body).to_owned();
    let (other_shard, this_shard) = (stranger(999), stranger(1));
    let cases = [
        ("GET", "EIO=4".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=telepathy".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=webtransport".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=websocket&sid=abc".to_owned(), UNKNOWN_SID),
        ("GET", "EIO=4&transport=websocket&sid=__proto__".to_owned(), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=websocket&sid={other_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=websocket&sid={this_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=3&transport=websocket&sid={sid}"), BAD_REQUEST),
        ("POST", "EIO=4&transport=websocket".to_owned(), BAD_METHOD),
        // The reference lets this one in, and closes it then.
        ("GET", "EIO=4&transport=polling".to_owned(), BAD_REQUEST),
        // Here it answers 101 first and writes its 400 into the WebSocket.
        ("GET", "transport=websocket".to_owned(), UNSUPPORTED),
        ("GET", "EIO=3&transport=websocket".to_owned(), UNSUPPORTED),
        ("GET", "EIO=999&transport=websocket".to_owned(), UNSUPPORTED),
    ];
    for (method, query, (_, message)) in &cases {
        let what = format!("{method} {query}");
        let mut connection = Connection::open(address);
        let response = connection.upgrade(method, &format!("/socket.io/?{query}"), &[]);
        assert_upgrade_refused(&mut connection, &response, message, &what);
    }
    assert_refusals_counted(&fixture, cases.len());
}

#[test]
fn a_broken_websocket_handshake_is_refused() {
    const KEY: (&str, &str) = (WEBSOCKET, "Missing or invalid Sec-WebSocket-Key header");
    const VERSION: (&str, &str) = (WEBSOCKET, "Missing or invalid Sec-WebSocket-Version header");
    let fixture = Fixture::new(settings());
    let cases = [
        (("Sec-WebSocket-Key", ""), KEY),
        (("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ="), KEY),
        (("Sec-WebSocket-Key", "dG9vIHNob3J0"), KEY),
        (("Sec-WebSocket-Version", ""), VERSION),
        (("Sec-WebSocket-Version", "12"), VERSION),
        (("Sec-WebSocket-Version", "thirteen"), VERSION),
        // Engine.IO's own rules come first.
        (("Sec-WebSocket-Key", "dG9vIHNob3J0"), ("/socket.io/?EIO=4&transport=telepathy", "Transport unknown")),
        (("Sec-WebSocket-Version", "12"), ("/socket.io/?EIO=4&transport=websocket&sid=abc", "Session ID unknown")),
        (("Sec-WebSocket-Version", "12"), ("/socket.io/?EIO=3&transport=websocket", "Unsupported protocol version")),
    ];
    for (header, (target, message)) in cases {
        let what = format!("{header:?} {target}");
        let mut connection = Connection::open(fixture.address());
        let response = connection.upgrade("GET", target, &[header]);
        assert_upgrade_refused(&mut connection, &response, message, &what);
    }
    assert_refusals_counted(&fixture, cases.len());
}

#[test]
fn a_transport_that_is_off_is_unknown() {
    let only = |polling, websocket| Settings { transports: Transports { polling, websocket }, ..settings() };
    let fixture = Fixture::new(only(false, true));
    assert_refused(&get(fixture.address(), POLLING), TRANSPORT_UNKNOWN, "polling is off");
    Peer::open(fixture.address(), WEBSOCKET, &[]);

    let fixture = Fixture::new(only(true, false));
    let response = Connection::open(fixture.address()).upgrade("GET", WEBSOCKET, &[]);
    assert_refused(&response, TRANSPORT_UNKNOWN, "websocket is off, so nobody looks at `Upgrade`");
    let handshake = get(fixture.address(), POLLING);
    assert!(handshake.body.contains(r#""upgrades":[],"#), "{handshake:?}");
}

#[test]
fn after_an_upgrade_polling_is_refused_and_another_upgrade_is_closed_at_once() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let target = open_session(address);
    let upgrade = target.replace("polling", "websocket");
    let mut peer = Peer::open(address, &upgrade, &[]);
    peer.send("2probe");
    assert_eq!(peer.text(), "3probe");
    Peer::open(address, &upgrade, &[]).expect_close();
    peer.send("5");
    peer.send("40");
    assert!(peer.text().starts_with("40{"));
    assert_refused(&get(address, &target), BAD_REQUEST, "a poll after the upgrade");
    assert_refused(&post(address, &target, "40"), BAD_REQUEST, "a push after the upgrade");
    Peer::open(address, &upgrade, &[]).expect_close();
    peer.send(r#"42["echo","still open"]"#);
    assert_eq!(peer.text(), r#"42["echo","still open"]"#);
}

// ---- handshake

#[test]
fn a_handshake_by_polling_says_what_clients_read_and_nothing_more() {
    let fixture = Fixture::new(settings());
    let response = get(fixture.address(), POLLING);
    let sid = sid_of(&response.body);
    let body = format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    );
    assert_eq!(response.brief(), (200, &*body));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("content-length"), Some(&*body.len().to_string()));
    for absent in ["set-cookie", "access-control-allow-origin", "vary", "transfer-encoding"] {
        assert_eq!(response.header(absent), None, "{absent}");
    }
    assert!(sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{sid}");
}

#[test]
fn a_handshake_by_websocket_offers_no_upgrade() {
    let fixture = Fixture::new(settings());
    let packet = Peer::open(fixture.address(), WEBSOCKET, &[]).text();
    let sid = sid_of(&packet);
    let expected =
        format!(r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#);
    assert_eq!(packet, expected);
}

#[test]
fn settings_show_in_the_handshake() {
    let fixture = Fixture::new(Settings {
        allow_upgrades: false,
        ping_interval: Duration::from_millis(1234),
        ping_timeout: Duration::from_millis(567),
        payload_bytes_max: 89,
        ..settings()
    });
    let body = get(fixture.address(), POLLING).body;
    let rest = &body[body.find(r#","upgrades""#).expect("the second key")..];
    assert_eq!(rest, r#","upgrades":[],"pingInterval":1234,"pingTimeout":567,"maxPayload":89}"#);
}

#[test]
fn an_upgrade_is_asked_for_in_both_of_its_headers() {
    let fixture = Fixture::new(settings());
    let headers =
        [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let response = Connection::open(fixture.address()).request("GET", WEBSOCKET, &headers, b"");
    assert_refused(&response, BAD_REQUEST, "without `Connection: Upgrade`");
}

#[test]
fn an_empty_sid_is_none() {
    let fixture = Fixture::new(settings());
    assert_eq!(get(fixture.address(), &format!("{POLLING}&sid=")).status, 200);
}

#[test]
fn the_answer_to_a_websocket_handshake_accepts_the_key_and_the_first_sub_protocol() {
    let fixture = Fixture::new(settings());
    let offers: [(Headers, Option<&str>); 4] = [
        (&[], None),
        (&[("Sec-WebSocket-Protocol", "chat")], Some("chat")),
        (&[("Sec-WebSocket-Protocol", "graph, chat,mqtt")], Some("graph")),
        (&[("Sec-WebSocket-Protocol", "mqtt"), ("Sec-WebSocket-Protocol", "chat")], Some("mqtt")),
    ];
    for (offered, chosen) in offers {
        let response = Connection::open(fixture.address()).upgrade("GET", WEBSOCKET, offered);
        assert_eq!(response.status, 101);
        assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455, 1.3");
        assert_eq!(response.header("upgrade"), Some("websocket"));
        assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
        assert_eq!(response.header("sec-websocket-protocol"), chosen, "{offered:?}");
    }
}

/// Everything up to the end of the connection, or as much as `enough` wants, without the `date`.
fn heard(connection: &mut Connection, enough: impl Fn(&str) -> bool) -> String {
    let mut heard = Vec::new();
    let mut byte = [0];
    while !enough(&String::from_utf8_lossy(&heard)) {
        match connection.reader.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => heard.push(byte[0]),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&heard)),
        }
    }
    let text = String::from_utf8(heard).expect("heads and bodies are text");
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[test]
fn a_request_that_comes_in_pieces_is_answered_like_one_that_comes_whole() {
    let fixture = Fixture::new(Settings { routes_under_path: vec!["x".into()], ..listed(true) });
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    let usual = format!("{upgrade}{version}{key}");
    let head = |line: &str, headers: &str| format!("{line}\r\nHost: localhost\r\n{headers}\r\n");
    let get = |target: &str, headers: &str| head(&format!("GET {target} HTTP/1.1"), headers);
    let requests = [
        (get(WEBSOCKET, &usual), 101),
        (get(WEBSOCKET, &format!("{usual}Origin: {GOOD}\r\nSec-WebSocket-Protocol: graph, chat\r\n")), 101),
        (get(&format!("http://localhost{WEBSOCKET}"), &usual), 101),
        (head(&format!("GET {WEBSOCKET} HTTP/1.0"), &usual), 101),
        (get(WEBSOCKET, &format!("{usual}Content-Length: 0\r\n")), 101),
        (get(WEBSOCKET, &format!("{usual}Content-Length: 4\r\n")) + "body", 101),
        (get(WEBSOCKET, &format!("{usual}X-Long: {}\r\n", "x".repeat(20_000))), 101),
        (get(WEBSOCKET, &format!("{upgrade}{key}")), 400),
        (get(WEBSOCKET, &format!("{upgrade}{version}")), 400),
        (get(&WEBSOCKET.replace("EIO=4", "EIO=3"), &usual), 400),
        (get(&format!("{WEBSOCKET}&sid=abc"), &usual), 400),
        (head(&format!("POST {WEBSOCKET} HTTP/1.1"), &usual), 400),
        (get("/socket.io/x", &format!("{usual}Connection: close\r\n")), 404),
        (get(WEBSOCKET, "Connection: close\r\n"), 400),
        (get("/socket.io/?EIO=4&transport=telepathy", "Connection: close\r\n"), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("no request\r\n\r\n".to_owned(), 400),
    ];
    for (request, status) in &requests {
        let what = &request[..request.len().min(400)];
        let has_all = |text: &str| *status == 101 && text.ends_with("\r\n\r\n");
        let answers = [request.len(), request.len() / 2, 1, request.len() - 1].map(|cut| {
            let mut connection = Connection::open(fixture.address());
            connection.write(&request[..cut]);
            if cut < request.len() {
                // Long enough, as a rule, for the server to find nothing more and to wait.
                std::thread::sleep(Duration::from_millis(20));
                connection.write(&request[cut..]);
            }
            heard(&mut connection, has_all)
        });
        assert!(answers[0].get(9..12) == Some(&status.to_string()), "{what}\n{answers:?}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{what}\n{answers:#?}");
    }
}

#[test]
fn what_comes_in_front_of_a_handshake_or_behind_it_in_one_write_is_served_in_order() {
    let fixture = Fixture::new(settings());
    let mut connection = Connection::open(fixture.address());
    let headers: String = support::http::UPGRADE.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let first = format!("GET {POLLING} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let handshake = format!("GET {WEBSOCKET} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    // Behind it a text frame, `40`, with a mask of zeros.
    let connect = [0x81, 0x82, 0, 0, 0, 0, b'4', b'0'];
    connection.write([first.as_bytes(), handshake.as_bytes(), &connect].concat());
    sid_of(&connection.response().body);
    let mut peer = Peer::accepted(connection);
    sid_of(&peer.text());
    assert!(peer.text().starts_with("40{"));
}

#[test]
fn the_cookie_is_set_by_the_handshake_poll_only() {
    let fixture = Fixture::new(Settings { cookie: Some("io".into()), ..settings() });
    let address = fixture.address();
    let handshake = get(address, POLLING);
    let target = session_of(&handshake);
    let expected = format!("io={}; Path=/; HttpOnly; SameSite=Lax", sid_of(&handshake.body));
    assert_eq!(handshake.header("set-cookie"), Some(&*expected));
    assert_eq!(post(address, &target, "40").header("set-cookie"), None);
    assert_eq!(get(address, &target).header("set-cookie"), None);
    assert_eq!(Connection::open(address).upgrade("GET", WEBSOCKET, &[]).header("set-cookie"), None);
}

// ---- paths

#[test]
fn only_paths_below_the_endpoint_are_the_endpoint() {
    let slash = |path: &str, add_trailing_slash| Settings { path: path.into(), add_trailing_slash, ..settings() };
    let cases: [(Settings, &[&str], &[&str]); 3] = [
        (
            slash("/socket.io", true),
            &["/socket.io/", "/socket.io/x/y", "/socket.io//"],
            &["/socket.io", "/socket.iox", "/socket.iox/", "/", "/engine.io/", "/x/socket.io/"],
        ),
        (slash("/socket.io", false), &["/socket.io/", "/socket.io", "/socket.io/x"], &["/socket.iox", "/socket.i"]),
        (slash("/live/v2", true), &["/live/v2/"], &["/socket.io/", "/live/", "/live/v2", "/live/v22/"]),
    ];
    for (settings, ours, others) in cases {
        let fixture = Fixture::new(settings);
        for path in ours {
            assert_eq!(get(fixture.address(), &format!("{path}?EIO=4&transport=polling")).status, 200, "{path}");
        }
        for path in others {
            let response = get(fixture.address(), &format!("{path}?EIO=4&transport=polling"));
            assert_eq!(response.brief(), (404, ""), "{path}");
        }
    }
}

/// An embedder's service: says what it was asked and by whom, and fails at `/fail`.
#[derive(Clone)]
struct Routes;

impl tower_service::Service<http::Request<hyper::body::Incoming>> for Routes {
    type Response = http::Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        if request.uri().path() == "/fail" {
            return ready(Err("as it was told"));
        }
        let peer = request.extensions().get::<PeerAddress>().expect("every request has its peer").0;
        let body = format!("{} {} from {peer}", request.method(), request.uri());
        ready(Ok(http::Response::builder().status(418).body(Full::from(body)).expect("a valid response")))
    }
}

#[test]
fn a_route_under_the_endpoints_path_is_the_embedders() {
    let routes_under_path = vec!["client.js".to_owned()];
    let io = Io::with_settings(Settings { routes_under_path, ..settings() });
    let server = Running::new(io.listen_with("127.0.0.1:0", Routes).expect("a free port"));
    assert_eq!(get(server.address(), "/socket.io/client.js").status, 418);
    assert_eq!(get(server.address(), "/socket.io/client.js.map?EIO=4&transport=polling").status, 200);
    assert_refused(&get(server.address(), "/socket.io/other.js"), TRANSPORT_UNKNOWN, "the endpoint's");
}

#[test]
fn other_paths_reach_the_embedders_service_which_knows_the_peer() {
    let io = Io::with_settings(settings());
    let server = Running::new(io.listen_with("127.0.0.1:0", Routes).expect("a free port"));
    let mut connection = Connection::open(server.address());
    let here = connection.reader.get_ref().local_addr().expect("a connected stream");
    assert_eq!(connection.get("/health?a=b").brief(), (418, &*format!("GET /health?a=b from {here}")));
    assert_eq!(connection.post("/socket.io", "body").brief(), (418, &*format!("POST /socket.io from {here}")));
    assert_eq!(connection.get("/fail").brief(), (500, ""));
    assert_eq!(connection.get(POLLING).status, 200, "and the endpoint is beside it, on the same connection");
}

// ---- cross-origin

const GOOD: &str = "http://good.example";

fn listed(credentials: bool) -> Settings {
    let origins = Origins::Listed(vec!["http://other.example".into(), GOOD.into()]);
    Settings { cors: Some(Cors { origins, credentials, methods: vec!["GET".into(), "POST".into()] }), ..settings() }
}

fn cors_of(response: &Response) -> [Option<&str>; 3] {
    ["access-control-allow-origin", "access-control-allow-credentials", "vary"].map(|name| response.header(name))
}

#[test]
fn a_listed_origin_is_allowed_and_another_is_served_without_the_header() {
    let fixture = Fixture::new(listed(true));
    let address = fixture.address();
    let ask = |target: &str, headers: &[(&str, &str)]| Connection::open(address).request("GET", target, headers, b"");
    let allowed = [Some(GOOD), Some("true"), Some("Origin")];
    let not_allowed = [None, Some("true"), Some("Origin")];
    let cases: [(Headers, _); 4] = [
        (&[("Origin", GOOD)], allowed),
        (&[("Origin", "http://evil.example")], not_allowed),
        (&[("Origin", "http://good.example:81")], not_allowed),
        (&[], not_allowed),
    ];
    for (headers, expected) in cases {
        let handshake = ask(POLLING, headers);
        assert_eq!((handshake.status, cors_of(&handshake)), (200, expected), "{headers:?}");
        let refused = ask("/socket.io/?EIO=4&transport=telepathy", headers);
        assert_eq!((refused.status, cors_of(&refused)), (400, expected), "{headers:?}");
        let upgrade = Connection::open(address).upgrade("GET", WEBSOCKET, headers);
        assert_eq!((upgrade.status, cors_of(&upgrade)), (101, expected), "{headers:?}");
        let refused = Connection::open(address).upgrade("GET", "/socket.io/?EIO=3&transport=websocket", headers);
        assert_eq!((refused.status, cors_of(&refused)), (400, expected), "{headers:?}");
    }
}

#[test]
fn any_origin_is_a_star_without_vary() {
    let cors = Cors { origins: Origins::Any, credentials: false, methods: vec!["GET".into()] };
    let fixture = Fixture::new(Settings { cors: Some(cors), ..settings() });
    for headers in [&[("Origin", GOOD)][..], &[]] {
        let response = Connection::open(fixture.address()).request("GET", POLLING, headers, b"");
        assert_eq!(cors_of(&response), [Some("*"), None, None]);
    }
}

#[test]
fn a_preflight_is_204_with_methods_and_the_headers_it_asked_for() {
    let fixture = Fixture::new(listed(false));
    let mut connection = Connection::open(fixture.address());
    let headers = [("Origin", GOOD), ("Access-Control-Request-Headers", "x-token, x-trace")];
    // A preflight asks about a request, whatever that would be told.
    for target in [POLLING, "/socket.io/?EIO=4&transport=polling&sid=abc", "/socket.io/"] {
        let response = connection.request("OPTIONS", target, &headers, b"");
        assert_eq!(response.brief(), (204, ""), "{target}");
        assert_eq!(cors_of(&response), [Some(GOOD), None, Some("Origin, Access-Control-Request-Headers")]);
        assert_eq!(response.header("access-control-allow-methods"), Some("GET,POST"));
        assert_eq!(response.header("access-control-allow-headers"), Some("x-token, x-trace"));
    }
    assert_eq!(connection.get(POLLING).status, 200, "the connection is kept");
}

// ---- polling

#[test]
fn a_poll_is_held_until_there_is_something_to_say() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let target = connected_session(address);
    for [mut poll, mut beside] in pairs(address) {
        poll.send("GET", &target, &[], b"");
        assert_eq!(beside.post(&target, "6").brief(), (200, "ok"));
        assert!(poll.is_silent());
        fixture.io.emit("news", &"first").expect("the server runs");
        let response = poll.response();
        assert_eq!(response.brief(), (200, r#"42["news","first"]"#));
        assert_eq!(response.header("content-type"), Some("text/plain; charset=UTF-8"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn a_push_is_answered_with_ok() {
    let fixture = Fixture::new(settings());
    let target = connected_session(fixture.address());
    let done = post(fixture.address(), &target, r#"42["echo",1]"#);
    assert_eq!(done.brief(), (200, "ok"));
    assert_eq!(done.header("content-type"), Some("text/html"));
    assert_eq!(done.header("cache-control"), Some("no-store"));
    assert_eq!(done.header("content-length"), Some("2"));
}

#[test]
fn a_second_poll_at_a_time_ends_the_session() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let target = connected_session(address);
    let mut polls = [Connection::open(address), Connection::open(address)];
    polls.iter_mut().for_each(|poll| poll.send("GET", &target, &[], b""));
    // Which of the two was the second is for the workers to say.
    let mut answers = polls.each_mut().map(Connection::response).map(|response| (response.status, response.body));
    answers.sort();
    assert_eq!(answers, [(200, "1".to_owned()), (400, String::new())]);
    assert_eq!(fixture.end(), CloseReason::TransportError);
    assert_gone(address, &target);
}

#[test]
fn a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_a_413() {
    const MAX: usize = 1000;
    let fixture = Fixture::new(Settings { payload_bytes_max: MAX, ..settings() });
    let address = fixture.address();
    let target = connected_session(address);
    let event = |bytes: usize| format!(r#"42["echo","{}"]"#, "x".repeat(bytes - r#"42["echo",""]"#.len()));
    assert_eq!(post(address, &target, event(MAX)).brief(), (200, "ok"));
    assert_eq!(get(address, &target).brief(), (200, &*event(MAX)));
    assert_eq!(post(address, &target, event(MAX + 1)).brief(), (413, ""));
    // The same when nobody has said how long it will be.
    let mut chunked = Connection::open(address);
    let (size, body) = (MAX + 1, event(MAX + 1));
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.write(format!("{head}{size:x}\r\n{body}\r\n0\r\n\r\n"));
    assert_eq!(chunked.response().brief(), (413, ""));
    assert_open(address, &target);
}

#[test]
fn other_methods_than_get_and_post_are_a_500_and_nothing_more() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let target = connected_session(address);
    let methods = ["PUT", "DELETE", "PATCH", "OPTIONS"];
    for method in methods {
        let response = Connection::open(address).request(method, &target, &[], b"42[\"echo\"]");
        assert_eq!(response.brief(), (500, ""), "{method}");
    }
    assert_refusals_counted(&fixture, methods.len());
    assert_open(address, &target);
}

/// How one push ended a session: the answers to it and to the poll that was pending, and what the socket heard.
#[derive(Debug, PartialEq, Eq)]
struct Ending {
    pushed: (u16, String),
    polled: (u16, String),
    reason: CloseReason,
}

fn ending(pushed: (u16, &str), polled: (u16, &str), reason: CloseReason) -> Ending {
    Ending { pushed: (pushed.0, pushed.1.to_owned()), polled: (polled.0, polled.1.to_owned()), reason }
}

/// Ends a session by one push, over connections of this pair.
fn end_by_push(fixture: &Fixture, pair: &mut [Connection; 2], headers: &[(&str, &str)], body: &[u8]) -> Ending {
    let [poll, push] = pair;
    let target = connected_session(fixture.address());
    poll.send("GET", &target, &[], b"");
    let pushed = push.request("POST", &target, headers, body);
    let polled = poll.response();
    let reason = fixture.end();
    assert_gone(fixture.address(), &target);
    Ending { pushed: (pushed.status, pushed.body), polled: (polled.status, polled.body), reason }
}

#[test]
fn a_push_that_breaks_the_rules_ends_the_session_and_its_poll() {
    let fixture = Fixture::new(settings());
    let bodies: [(&[u8], CloseReason); 8] = [
        (b"", CloseReason::ParseError),
        (b"x", CloseReason::ParseError),
        (b"9", CloseReason::ParseError),
        (b"6\x1e\x1e6", CloseReason::ParseError),
        (b"4\xff", CloseReason::ParseError),
        (b"b%%%", CloseReason::ParseError),
        (b"2probe", CloseReason::TransportError),
        (b"42[\"connect\"]", CloseReason::ForcedClose),
    ];
    for mut pair in pairs(fixture.address()) {
        for (body, reason) in bodies {
            let found = end_by_push(&fixture, &mut pair, &[], body);
            assert_eq!(found, ending((200, "ok"), (200, "1"), reason), "{}", body.escape_ascii());
        }
        let headers = [("Content-Type", "application/octet-stream")];
        let found = end_by_push(&fixture, &mut pair, &headers, b"4hello");
        assert_eq!(found, ending((400, ""), (200, "1"), CloseReason::TransportError));
    }
}

#[test]
fn packets_before_a_broken_one_are_processed_and_those_behind_it_are_not() {
    let fixture = Fixture::new(settings());
    for mut pair in pairs(fixture.address()) {
        let body = b"42[\"echo\",1]\x1ezzz\x1e42[\"echo\",2]";
        let found = end_by_push(&fixture, &mut pair, &[], body);
        assert_eq!(found, ending((200, "ok"), (200, "42[\"echo\",1]\x1e1"), CloseReason::ParseError));
    }
}

#[test]
fn a_client_that_says_goodbye_finds_its_poll_answered() {
    let fixture = Fixture::new(settings());
    for mut pair in pairs(fixture.address()) {
        let found = end_by_push(&fixture, &mut pair, &[], b"1");
        assert_eq!(found, ending((200, "ok"), (200, "6"), CloseReason::TransportClose));
    }
}

#[test]
fn packets_that_mean_nothing_to_a_server_are_ignored() {
    let fixture = Fixture::new(settings());
    let target = connected_session(fixture.address());
    assert_eq!(post(fixture.address(), &target, "0{}\x1e3\x1e3probe\x1e5\x1e6").brief(), (200, "ok"));
    assert_open(fixture.address(), &target);
}

#[test]
fn a_poll_whose_client_has_gone_ends_the_session() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    for _ in 0..4 {
        for [mut poll, mut beside] in pairs(address) {
            let target = connected_session(address);
            poll.send("GET", &target, &[], b"");
            assert_eq!(beside.post(&target, "6").brief(), (200, "ok"));
            poll.close();
            assert_eq!(fixture.end(), CloseReason::TransportError);
            assert_gone(address, &target);
        }
    }
}

#[test]
fn requests_of_one_session_may_come_over_any_connection() {
    const CONNECTIONS: usize = 24;
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let target = connected_session(address);
    let mut received = Vec::new();
    for i in 0..CONNECTIONS {
        assert_eq!(post(address, &target, format!(r#"42["echo",{i}]"#)).brief(), (200, "ok"));
        let answer = get(address, &target);
        received.extend(answer.body.split('\x1e').map(str::to_owned));
    }
    let expected: Vec<_> = (0..CONNECTIONS).map(|i| format!(r#"42["echo",{i}]"#)).collect();
    assert_eq!(received, expected);
}

#[test]
fn a_connection_may_carry_many_sessions_in_turn() {
    let fixture = Fixture::new(settings());
    // As a proxy would: several connections, so that sessions are foreign to the worker that reads.
    let mut connections: Vec<_> = (0..6).map(|_| Connection::open(fixture.address())).collect();
    let handshakes = connections.iter_mut().take(3).map(|connection| session_of(&connection.get(POLLING)));
    let sessions: Vec<_> = handshakes.collect();
    for (number, target) in sessions.iter().enumerate() {
        let connection = &mut connections[number];
        assert_eq!(connection.post(target, "40").brief(), (200, "ok"));
        assert!(connection.get(target).body.starts_with("40{"));
    }
    for connection in &mut connections {
        for (number, target) in sessions.iter().enumerate() {
            let event = format!(r#"42["echo","session {number}"]"#);
            assert_eq!(connection.post(target, &event).brief(), (200, "ok"));
            assert_eq!(connection.get(target).brief(), (200, &*event));
        }
    }
}

// ---- a crowd

#[test]
fn while_thousands_connect_those_inside_are_answered() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 25;
    const AT_A_TIME: usize = 50;
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let mut peer = Peer::open(address, WEBSOCKET, &[]);
    peer.text();
    peer.send("40");
    assert!(peer.text().starts_with("40{"));
    // Each connects 50 at a time, and only then asks what they were told.
    let crowd = move || {
        for _ in 0..ROUNDS {
            let mut arrived: Vec<_> = (0..AT_A_TIME).map(|_| Connection::open(address)).collect();
            arrived.iter_mut().for_each(|connection| connection.send_upgrade("GET", WEBSOCKET, &[]));
            for connection in arrived {
                let mut peer = Peer::accepted(connection);
                sid_of(&peer.text());
            }
        }
    };
    let crowds: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(crowd)).collect();
    let mut answered = 0;
    while crowds.iter().any(|crowd| !crowd.is_finished()) {
        let event = format!(r#"42["echo",{answered}]"#);
        peer.send(&event);
        assert_eq!(peer.text(), event);
        answered += 1;
    }
    crowds.into_iter().for_each(|crowd| crowd.join().expect("everybody was let in"));
    assert!(answered > 1, "an answer came while they connected");
    let opened = block_on(fixture.io.stats()).expect("the server runs").opened;
    assert_eq!(opened, (THREADS * ROUNDS * AT_A_TIME + 1) as u64);
}

// ---- deadlines and limits

const SOON: Duration = Duration::from_millis(200);

/// How long `wait` took. At least `SOON`, if a deadline of ours is what it waited for.
fn assert_took_a_deadline(wait: impl FnOnce()) {
    let started = Instant::now();
    wait();
    let took = started.elapsed();
    assert!(took >= SOON - Duration::from_millis(20) && took < WAIT_MAX, "took {took:?}");
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let fixture = Fixture::new(Settings { handshake_timeout: SOON, ..settings() });
    let mut silent = Connection::open(fixture.address());
    assert_took_a_deadline(|| assert_eq!(silent.rest(), b""));
    assert_eq!(get(fixture.address(), POLLING).status, 200, "others are served");
}

#[test]
fn a_head_that_comes_too_slowly_is_not_waited_for() {
    let fixture = Fixture::new(Settings { handshake_timeout: SOON, ..settings() });
    let mut slow = Connection::open(fixture.address());
    slow.write(format!("GET {POLLING} HTTP/1.1\r\n"));
    assert_took_a_deadline(|| {
        // One more byte every now and then does not help.
        let stream = slow.reader.get_ref().try_clone().expect("a descriptor");
        let dripping = std::thread::spawn(move || {
            use std::io::Write as _;
            let mut stream = stream;
            while stream.write_all(b"X").is_ok() {
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        slow.rest();
        slow.close();
        dripping.join().expect("the thread only writes");
    });
    // A poll is held as long as it takes: the deadline is for heads.
    let target = connected_session(fixture.address());
    let mut poll = Connection::open(fixture.address());
    poll.send("GET", &target, &[], b"");
    std::thread::sleep(SOON + SOON / 2);
    fixture.io.emit("late", &()).expect("the server runs");
    assert_eq!(poll.response().brief(), (200, r#"42["late"]"#));
}

#[test]
fn a_body_that_comes_too_slowly_is_a_408_and_the_session_stays() {
    let fixture = Fixture::new(Settings { request_timeout: SOON, ..settings() });
    let target = connected_session(fixture.address());
    let mut slow = Connection::open(fixture.address());
    slow.write(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n42[\"ec"));
    assert_took_a_deadline(|| assert_eq!(slow.response().brief(), (408, "")));
    slow.rest();
    assert_open(fixture.address(), &target);
}

#[test]
fn a_head_over_the_limit_is_a_431() {
    use std::io::Write as _;
    let fixture = Fixture::new(settings());
    let mut connection = Connection::open(fixture.address());
    let head = format!("GET {POLLING} HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(300 << 10));
    // The server may close before it has read all of it.
    let _ = connection.reader.get_mut().write_all(head.as_bytes());
    assert_eq!(connection.response().status, 431);
    assert_eq!(get(fixture.address(), POLLING).status, 200);
}

/// Takes all places, is refused the next one, leaves one, and gets it again.
fn assert_places(settings: Settings, places: usize, message: &str) {
    let fixture = Fixture::new(settings);
    let address = fixture.address();
    let mut held: Vec<_> = (0..places - 1).map(|_| Connection::open(address)).collect();
    for connection in &mut held {
        assert_eq!(connection.get(POLLING).status, 200, "a place is taken when the worker knows of it");
    }
    // A WebSocket takes its place along, out of HTTP.
    let mut peer = Peer::open(address, WEBSOCKET, &[]);
    peer.text();
    for _ in 0..10 {
        let mut refused = Connection::open(address);
        let response = refused.response();
        assert_eq!(response.brief(), (503, &*format!(r#"{{"code":4,"message":"{message}"}}"#)));
        assert_eq!(response.header("content-type"), Some("application/json"));
        let seconds: u8 = response.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=10).contains(&seconds), "in {seconds} s");
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(refused.rest(), b"");
    }
    assert_eq!(held[0].get(POLLING).status, 200, "those inside do not notice");
    let stats = block_on(fixture.io.stats()).expect("the server runs");
    assert_eq!((stats.connections_refused + stats.addresses_refused, stats.refused), (10, 0));
    drop(held.pop());
    let first = wait_for_a_place(address);
    drop(peer);
    let second = wait_for_a_place(address);
    drop((first, second));
}

#[test]
fn a_handshake_that_never_becomes_a_websocket_gives_its_place_back() {
    let fixture = Fixture::new(Settings { connections_max: 1, ..settings() });
    let mut connection = Connection::open(fixture.address());
    // hyper waits for the body that was announced, and does not upgrade.
    connection.send_upgrade("GET", WEBSOCKET, &[("Content-Length", "4")]);
    assert_eq!(connection.response().status, 101);
    connection.close();
    wait_for_a_place(fixture.address());
}

/// A connection that was let in. The server has to notice first that another one has gone.
fn wait_for_a_place(address: SocketAddr) -> Connection {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let mut connection = Connection::open(address);
        connection.send("GET", POLLING, &[], b"");
        match connection.response().status {
            200 => return connection,
            status => assert_eq!(status, 503),
        }
        assert!(Instant::now() < deadline, "the place is not free again");
    }
}

#[test]
fn a_connection_over_the_limit_is_told_to_come_back_later() {
    assert_places(Settings { connections_max: 4, ..settings() }, 4, "Too many connections");
}

#[test]
fn an_address_over_its_limit_is_told_to_come_back_later() {
    let fixture_settings = Settings { connections_per_address_max: 3, ..settings() };
    assert_places(fixture_settings, 3, "Too many connections from this address");
}

#[test]
fn the_peer_of_a_socket_is_who_opened_its_connection() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("address", |socket: Socket| socket.handshake().address().ip());
    let server = Running::io(&io);
    let target = connected_session(server.address());
    post(server.address(), &target, r#"420["address"]"#);
    assert_eq!(get(server.address(), &target).body, format!(r#"430["{}"]"#, Ipv4Addr::LOCALHOST));
}
