//! Polling: polls and pushes of a session, over whichever connections they come, and how they end it.

use crate::support::client::{POLLING, connected_session, session_of};
use crate::support::http::{Connection, get, post};
use crate::support::{Fixture, settings};
use crate::{assert_gone, assert_open, assert_refusals_counted, pairs};
use fanfare::{CloseReason, Settings};

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
    assert_refusals_counted(&fixture, 2);
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
