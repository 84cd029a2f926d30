//! Handshake: what an answer to it says, in how many pieces it may come, and the cookie.

use crate::cors::{GOOD, listed};
use crate::support::client::{POLLING, WEBSOCKET, session_of, sid_of};
use crate::support::http::{Connection, UPGRADE, get, post};
use crate::support::websocket::Peer;
use crate::support::{Fixture, settings};
use crate::{BAD_REQUEST, Headers, assert_refused};
use fanfare::Settings;
use std::io::Read as _;
use std::time::Duration;

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
    let headers: String = UPGRADE.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
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
