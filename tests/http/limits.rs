//! Limits: deadlines, sizes, places, and a crowd that does not hold up those inside.

use crate::support::client::{POLLING, WEBSOCKET, connected_session, sid_of};
use crate::support::http::{Connection, WAIT_MAX, get, post};
use crate::support::websocket::Peer;
use crate::support::{Fixture, Running, settings, stats, wait_for_stats};
use crate::{assert_open, assert_refusals_counted};
use fanfare::{Io, Settings, Socket};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

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
    let opened = stats(&fixture.io).opened;
    assert_eq!(opened, (THREADS * ROUNDS * AT_A_TIME + 1) as u64);
}

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
    assert_refusals_counted(&fixture, 1);
}

#[test]
fn a_head_that_is_too_long_or_cannot_be_read_is_refused_and_counted() {
    use std::io::Write as _;
    let fixture = Fixture::new(settings());
    let mut connection = Connection::open(fixture.address());
    let head = format!("GET {POLLING} HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(300 << 10));
    // The server may close before it has read all of it.
    let _ = connection.reader.get_mut().write_all(head.as_bytes());
    assert_eq!(connection.response().status, 431);
    connection.close();
    let mut connection = Connection::open(fixture.address());
    connection.write("GET\x01 / HTTP/1.1\r\n\r\n");
    assert_eq!(connection.response().status, 400);
    connection.rest();
    wait_for_stats(&fixture.io, |stats| stats.refused == 2);
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
    let stats = stats(&fixture.io);
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
