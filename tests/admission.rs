//! Admission: who comes in, through proxies or not, how fast, and how much a client may say; over plain TCP streams.

mod support;

use fanfare::{CloseReason, IpNet, ProxyProtocol, Settings, Socket};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use support::client::{POLLING, WEBSOCKET, session_of};
use support::http::{Connection, Response, UPGRADE, WAIT_MAX};
use support::websocket::{CLOSE, Peer};
use support::{Fixture, block_on, settings, stats};

const ADA: [(&str, &str); 1] = [("X-Forwarded-For", "198.51.100.7")];
const BOB: [(&str, &str); 1] = [("X-Forwarded-For", "198.51.100.8")];

impl Fixture {
    /// A server whose sockets tell their client's address.
    fn new(settings: Settings) -> Fixture {
        Fixture::with(settings, |main| {
            main.on_event("address", |socket: Socket| socket.handshake().address().to_string());
        })
    }

    /// A handshake by polling, as `from` has it in its headers.
    fn polling(&self, from: &[(&str, &str)]) -> Response {
        Connection::open(self.address()).request("GET", POLLING, from, b"")
    }

    /// A handshake that is let in, as soon as the server has noticed that a place is free.
    fn polling_in_time(&self, from: &[(&str, &str)]) -> Response {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let response = self.polling(from);
            if response.status == 200 {
                return response;
            }
            assert!(Instant::now() < deadline, "the place is not free again: {response:?}");
        }
    }
}

fn networks(all: &[&str]) -> Vec<IpNet> {
    all.iter().map(|text| text.parse().expect("a network")).collect()
}

/// The test itself is the proxy.
fn behind_a_proxy() -> Settings {
    Settings { trusted_proxies: networks(&["127.0.0.1/32", "10.0.0.0/8"]), ..settings() }
}

fn proxied() -> Settings {
    Settings { proxy_protocol: ProxyProtocol::Required, ..behind_a_proxy() }
}

fn assert_asked_to_come_back(response: &Response, message: &str) {
    assert_eq!(response.brief(), (503, &*format!(r#"{{"code":4,"message":"{message}"}}"#)));
    let seconds: u8 = response.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=10).contains(&seconds));
}

/// The address that the server sees, told over one connection.
fn address_over(connection: &mut Connection, headers: &[(&str, &str)]) -> String {
    let target = session_of(&connection.request("GET", POLLING, headers, b""));
    assert_eq!(connection.post(&target, "40\x1e420[\"address\"]").brief(), (200, "ok"));
    let answer = connection.get(&target).body;
    let (_, address) = answer.split_once("\x1e430[\"").unwrap_or_else(|| panic!("no answer in {answer}"));
    address.trim_end_matches("\"]").to_owned()
}

// ---- X-Forwarded-For

#[test]
fn a_client_behind_trusted_proxies_is_who_the_last_of_them_was_reached_from() {
    let fixture = Fixture::new(behind_a_proxy());
    let mut connection = Connection::open(fixture.address());
    for (list, address) in [
        ("198.51.100.7", "198.51.100.7:0"),
        ("203.0.113.1, 198.51.100.7:4711, 10.1.2.3", "198.51.100.7:4711"),
        ("198.51.100.7, 2001:db8::7", "[2001:db8::7]:0"),
    ] {
        assert_eq!(address_over(&mut connection, &[("X-Forwarded-For", list)]), address, "{list}");
    }
    let own = connection.reader.get_ref().local_addr().expect("a TCP stream").to_string();
    assert_eq!(address_over(&mut connection, &[]), own);
    assert_eq!(address_over(&mut connection, &[("X-Forwarded-For", "198.51.100.7, nonsense")]), own);
}

#[test]
fn what_somebody_says_who_is_no_trusted_proxy_is_ignored() {
    let elsewhere = networks(&["127.0.0.2/32"]);
    let fixture = Fixture::new(Settings { trusted_proxies: elsewhere, connections_per_address_max: 2, ..settings() });
    let mut first = Connection::open(fixture.address());
    let own = first.reader.get_ref().local_addr().expect("a TCP stream").to_string();
    assert_eq!(address_over(&mut first, &ADA), own);
    let mut second = Connection::open(fixture.address());
    assert_eq!(second.request("GET", POLLING, &BOB, b"").status, 200);
    let refused = Connection::open(fixture.address()).response();
    assert_asked_to_come_back(&refused, "Too many connections from this address");
}

#[test]
fn polling_clients_of_a_proxy_have_places_of_their_own_until_their_sessions_end() {
    let fixture = Fixture::new(Settings { connections_per_address_max: 2, ..behind_a_proxy() });
    // One kept-alive connection carries all of them, and it is nobody's.
    let mut proxy = Connection::open(fixture.address());
    let mut handshake = |from: &[(&str, &str)]| proxy.request("GET", POLLING, from, b"");
    let (first, _second) = (session_of(&handshake(&ADA)), session_of(&handshake(&ADA)));
    for _ in 0..3 {
        assert_asked_to_come_back(&handshake(&ADA), "Too many connections from this address");
    }
    assert_eq!((handshake(&BOB).status, handshake(&BOB).status, handshake(&BOB).status), (200, 200, 503));
    assert_eq!(stats(&fixture.io).addresses_refused, 4);
    assert_eq!(stats(&fixture.io).refused, 0, "they broke no rule");
    // The session ends with the poll that is told of its end.
    assert_eq!(Connection::open(fixture.address()).post(&first, "1").status, 200);
    assert_eq!(Connection::open(fixture.address()).get(&first).brief(), (200, "6"));
    fixture.polling_in_time(&ADA);
    assert_eq!(fixture.polling(&ADA).status, 503, "it was given back once");
}

#[test]
fn a_websocket_through_a_proxy_takes_its_clients_place_and_gives_it_back() {
    let fixture = Fixture::new(Settings { connections_per_address_max: 1, ..behind_a_proxy() });
    for _ in 0..8 {
        let deadline = Instant::now() + WAIT_MAX;
        let connection = loop {
            let mut connection = Connection::open(fixture.address());
            let response = connection.upgrade("GET", WEBSOCKET, &ADA);
            if response.status == 101 {
                break connection;
            }
            assert_eq!(response.brief(), (503, "Too many connections from this address"));
            assert!(response.header("retry-after").is_some());
            assert!(Instant::now() < deadline, "the place is not free again");
        };
        assert_eq!(fixture.polling(&ADA).status, 503);
        drop(connection);
    }
    let mut bob = Peer::open(fixture.address(), WEBSOCKET, &BOB);
    assert!(bob.text().starts_with("0{"), "others have their own places");
    fixture.polling_in_time(&ADA);
}

#[test]
fn an_upgrade_keeps_its_clients_place_on_whichever_worker_it_arrives() {
    let fixture = Fixture::new(Settings { connections_per_address_max: 1, ..behind_a_proxy() });
    for round in 0..12 {
        let target = session_of(&fixture.polling_in_time(&ADA));
        let mut peer = Peer::open(fixture.address(), &target.replace("polling", "websocket"), &ADA);
        peer.send("2probe");
        assert_eq!(peer.text(), "3probe");
        peer.send("5");
        peer.send("40");
        assert!(peer.text().starts_with("40{"), "it takes no second place");
        assert_eq!(fixture.polling(&ADA).status, 503, "and still has the first: round {round}");
        drop(peer);
        assert_eq!(fixture.end(), CloseReason::TransportClose);
    }
    fixture.polling_in_time(&ADA);
    assert_eq!(fixture.polling(&ADA).status, 503);
}

// ---- PROXY protocol

fn v1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 127.0.0.1 4711 80\r\n").into_bytes()
}

/// Version 2. Without a source the proxy speaks for itself.
fn v2(source: Option<Ipv4Addr>) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let Some(source) = source else {
        header.extend([0x20, 0x00, 0, 0]);
        return header;
    };
    header.extend([0x21, 0x11, 0, 12 + 4]);
    header.extend(source.octets());
    header.extend([127, 0, 0, 1, 0x12, 0x67, 0, 80, 0x04, 0, 1, 0]);
    header
}

fn connection_of(fixture: &Fixture, header: &[u8]) -> Connection {
    let mut connection = Connection::open(fixture.address());
    connection.write(header);
    connection
}

#[test]
fn the_header_of_a_connection_says_whose_it_is() {
    let fixture = Fixture::new(proxied());
    let ada = Ipv4Addr::new(198, 51, 100, 7);
    for header in [v1("198.51.100.7"), v2(Some(ada))] {
        let mut connection = connection_of(&fixture, &header);
        assert_eq!(address_over(&mut connection, &BOB), "198.51.100.7:4711", "who is no proxy speaks for nobody");
    }
    for header in [v2(None), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut connection = connection_of(&fixture, &header);
        let own = connection.reader.get_ref().local_addr().expect("a TCP stream").to_string();
        assert_eq!(address_over(&mut connection, &[]), own);
    }
    // Its client is another proxy, which speaks for one of its own.
    let mut connection = connection_of(&fixture, &v1("10.1.2.3"));
    assert_eq!(address_over(&mut connection, &ADA), "198.51.100.7:0");
    assert_eq!(stats(&fixture.io).proxy_headers_refused, 0);
}

#[test]
fn a_header_may_come_byte_by_byte_or_together_with_everything_else() {
    let fixture = Fixture::new(proxied());
    let mut slow = Connection::open(fixture.address());
    for byte in v2(Some(Ipv4Addr::new(198, 51, 100, 7))) {
        slow.write([byte]);
        std::thread::yield_now();
    }
    assert_eq!(address_over(&mut slow, &[]), "198.51.100.7:4711");

    let mut all = v1("198.51.100.8");
    let mut head = format!("GET {WEBSOCKET} HTTP/1.1\r\nHost: localhost\r\n");
    UPGRADE.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    all.extend(format!("{head}\r\n").into_bytes());
    for text in ["40", "420[\"address\"]"] {
        all.extend([0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]);
        all.extend(text.as_bytes());
    }
    let mut peer = Peer::accepted(connection_of(&fixture, &all));
    assert!(peer.text().starts_with("0{") && peer.text().starts_with("40{"));
    assert_eq!(peer.text(), r#"430["198.51.100.8:4711"]"#);
}

#[test]
fn connections_are_counted_for_the_client_whom_their_header_names() {
    let fixture = Fixture::new(Settings { connections_per_address_max: 1, ..proxied() });
    let mut ada = connection_of(&fixture, &v1("198.51.100.7"));
    assert_eq!(ada.get(POLLING).status, 200);
    let mut again = connection_of(&fixture, &v1("198.51.100.7"));
    assert_asked_to_come_back(&again.response(), "Too many connections from this address");
    assert_eq!(connection_of(&fixture, &v1("198.51.100.8")).get(POLLING).status, 200);
    drop(ada);
    let deadline = Instant::now() + WAIT_MAX;
    while connection_of(&fixture, &[&v1("198.51.100.7")[..], b"GET / HTTP/1.1\r\n\r\n"].concat()).response().status
        == 503
    {
        assert!(Instant::now() < deadline, "the place is not free again");
    }
}

#[test]
fn a_connection_without_a_header_that_counts_is_closed() {
    const SOON: Duration = Duration::from_millis(200);
    let fixture = Fixture::new(Settings { handshake_timeout: SOON, ..proxied() });
    let request = format!("GET {POLLING} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    let unfinished = v2(Some(Ipv4Addr::LOCALHOST))[..20].to_vec();
    let bad =
        [request, b"PROXY TCP4 nonsense\r\n".to_vec(), b"PROXY TCP4 198.51.100.7".to_vec(), unfinished, Vec::new()];
    let closed = bad.len() as u64;
    for bytes in bad {
        let mut connection = connection_of(&fixture, &bytes);
        assert_eq!(connection.rest(), b"", "{}", bytes.escape_ascii());
    }
    assert_eq!(stats(&fixture.io).proxy_headers_refused, closed);
    assert_eq!(connection_of(&fixture, &v2(None)).get(POLLING).status, 200, "others are served");
}

#[test]
fn a_header_of_somebody_who_is_no_trusted_proxy_does_not_count() {
    let fixture = Fixture::new(Settings { trusted_proxies: networks(&["127.0.0.2/32"]), ..proxied() });
    let mut connection = Connection::open(fixture.address());
    assert_eq!(connection.rest(), b"");
    assert_eq!(stats(&fixture.io).proxy_headers_refused, 1);
    let anybody = Fixture::new(Settings { trusted_proxies: Vec::new(), ..proxied() });
    assert_eq!(address_over(&mut connection_of(&anybody, &v1("198.51.100.7")), &[]), "198.51.100.7:4711");
}

// ---- handshakes in a second

/// With one in a second, twenty in a row cannot all be let in unless they take as many seconds.
const IN_A_ROW: usize = 20;

#[test]
fn handshakes_over_the_limit_are_asked_to_come_back_later_and_sessions_go_on() {
    let fixture = Fixture::new(Settings { handshakes_per_second_max: 1, ..settings() });
    let mut connection = Connection::open(fixture.address());
    let target = session_of(&connection.get(POLLING));
    let mut refused = 0;
    for _ in 0..IN_A_ROW {
        let response = connection.get(POLLING);
        if response.status != 200 {
            assert_asked_to_come_back(&response, "Too many handshakes");
            refused += 1;
        }
        assert_eq!(connection.post(&target, "3").brief(), (200, "ok"), "only handshakes are counted");
    }
    let response = (0..IN_A_ROW).map(|_| Connection::open(fixture.address()).upgrade("GET", WEBSOCKET, &[]));
    let websockets: Vec<_> = response.filter(|response| response.status != 101).collect();
    for response in &websockets {
        assert_eq!(response.brief(), (503, "Too many handshakes"));
        assert!(response.header("retry-after").is_some() && response.header("connection") == Some("close"));
    }
    assert!(refused > 0 && !websockets.is_empty());
    assert_eq!(stats(&fixture.io).handshakes_refused, refused + websockets.len() as u64);
}

// ---- how much a client may say

#[test]
fn a_websocket_that_says_too_much_is_closed_with_1008() {
    let fixture = Fixture::new(Settings { events_per_second_max: 5, ..settings() });
    let mut peer = Peer::open(fixture.address(), WEBSOCKET, &[]);
    peer.send("40");
    peer.write(flood_of_events());
    assert!(peer.text().starts_with("0{") && peer.text().starts_with("40{"));
    assert_eq!(peer.frame(), (CLOSE, 1008u16.to_be_bytes().to_vec()));
    peer.wait_for_end();
    assert_eq!(fixture.end(), CloseReason::RateLimited);
    assert_eq!(stats(&fixture.io).rate_limited, 1);
}

#[test]
fn limits_and_proxies_that_change_hold_for_those_who_are_there() {
    let fixture = Fixture::new(settings());
    let mut connection = Connection::open(fixture.address());
    let own = connection.reader.get_ref().local_addr().expect("a TCP stream").to_string();
    assert_eq!(address_over(&mut connection, &ADA), own);
    let mut peer = Peer::open(fixture.address(), WEBSOCKET, &[]);
    peer.send("40");
    assert!(peer.text().starts_with("0{") && peer.text().starts_with("40{"));

    let limits = Settings { events_per_second_max: 5, connections_per_address_max: 1, ..behind_a_proxy() };
    let reload = fixture.io.reload(Settings {
        proxy_protocol: ProxyProtocol::Required,
        ping_spread: !settings().ping_spread,
        ..limits
    });
    let reload = reload.expect("they are allowed");
    assert_eq!(reload.kept(), ["ping_spread", "proxy_protocol"]);
    block_on(reload);
    assert_eq!(address_over(&mut connection, &ADA), "198.51.100.7:0");
    let second = connection.request("GET", POLLING, &ADA, b"");
    assert_asked_to_come_back(&second, "Too many connections from this address");
    peer.write(flood_of_events());
    assert_eq!(peer.frame(), (CLOSE, 1008u16.to_be_bytes().to_vec()));
    assert_eq!(stats(&fixture.io).rate_limited, 1);
    assert_eq!(fixture.io.reload(settings()).expect("they were allowed before").kept(), [""; 0]);
}

/// 200 events, as one client may send in 40 seconds.
fn flood_of_events() -> Vec<u8> {
    let event = br#"42["any"]"#;
    [&[0x81, 0x80 | event.len() as u8, 0, 0, 0, 0][..], event].concat().repeat(200)
}

#[test]
fn a_post_that_says_too_much_is_a_429_and_ends_its_session() {
    let fixture = Fixture::new(Settings { bytes_per_second_max: 1, payload_bytes_max: 1_000, ..settings() });
    let mut connection = Connection::open(fixture.address());
    let target = session_of(&connection.get(POLLING));
    assert_eq!(connection.post(&target, "40").status, 200);
    assert_eq!(connection.post(&target, format!("42[\"any\",\"{}\"]", "x".repeat(900))).status, 200);
    let response = connection.post(&target, format!("42[\"any\",\"{}\"]", "x".repeat(900)));
    assert_eq!(response.brief(), (429, r#"{"code":4,"message":"Rate limit"}"#));
    assert_eq!(fixture.end(), CloseReason::RateLimited);
    assert_eq!(connection.get(&target).brief(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    assert_eq!(stats(&fixture.io).rate_limited, 1);
}
