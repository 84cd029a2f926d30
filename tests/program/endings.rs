//! Endings: signals, drains, and what is answered meanwhile.

use crate::poller::Poller;
use crate::program::{Program, TABLES};
use crate::support::client::{Client, POLLING};
use crate::support::http::Connection;
use serde_json::json;
use std::net::TcpStream;

#[test]
fn a_signal_closes_gracefully_and_clients_are_told() {
    for signal in ["TERM", "INT"] {
        let program = Program::start(&[]);
        let mut client = Client::connect(program.address);
        program.publish(json!({"event": "last"}));
        program.signal(signal);
        client.expect(r#"42["last"]"#);
        // Not a packet 41, which would tell clients to stay away.
        client.peer.expect_close();
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
        let mut line = Connection::open(program.address);
        line.write(format!("GET /{name} HTTP/1.1\r\n"));
        line
    });
    let mut client = Client::connect(program.address);
    program.signal("TERM");
    client.peer.expect_close();
    drop(client);
    let [ready, alive] = lines.each_mut().map(|line| {
        line.write(b"Host: localhost\r\n\r\n");
        line.response()
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
        let mut slow = Connection::open(program.address);
        slow.write(b"GET /");
        let mut client = Client::connect(program.address);
        program.signal("TERM");
        client.peer.expect_close();
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
        let mut clients: Vec<_> = (0..CROWD).map(|_| Client::connect(program.address)).collect();
        let mut pollers: Vec<_> = (0..10).map(|_| Poller::connect(&program)).collect();
        program.publish(json!({"event": "queued"}));
        program.signal("TERM");
        // The first to go tells that it has begun.
        let begun = std::iter::repeat_with(|| program.stats()).find(|stats| stats["draining"] == true).unwrap();
        assert!(begun["draining_left"].as_u64().unwrap() > 0, "{begun}");
        assert_eq!((program.get("/readyz").status, program.get("/healthz").status), (503, 200));
        let refused = program.get(POLLING);
        assert_eq!(refused.status, 503);
        assert_eq!(refused.json(), json!({"code": 4, "message": "Server is shutting down"}));
        let seconds: u8 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&seconds) && refused.header("connection") == Some("close"), "{refused:?}");
        assert_eq!(program.stats()["refused_by"]["shutting_down"], 1);
        let reached = program.publish(json!({"event": "late"})).json()["sockets"].as_u64().unwrap();
        assert!(reached > 0, "some are left for {} ms", CROWD * 10);

        let mut late = 0;
        for client in &mut clients {
            let heard = client.rest();
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
        let mut line = Connection::open(program.address);
        let head = format!("Host: {}\r\nContent-Length: {}\r\nExpect: 100-continue", program.address, body.len());
        line.write(format!("POST /api/publish HTTP/1.1\r\n{head}\r\n\r\n"));
        assert_eq!(line.response().status, 100);
        program.signal("TERM");
        // The workers that have no request to answer could end now.
        while TcpStream::connect(program.address).is_ok() {}
        line.write(body);
        let answer = line.response();
        assert_eq!((answer.status, answer.json()), (200, json!({"sockets": 0})));
        assert_eq!(program.end_in_time().0, Some(0));
    }
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let mut program = Program::start(&["--drain-time", "1h", "--shutdown-grace", "1h"]);
    let clients: Vec<_> = (0..CROWD).map(|_| Client::connect(program.address)).collect();
    program.signal("TERM");
    // What comes at once is taken for an echo of the first, so it is said until it is heard.
    while program.child.try_wait().unwrap().is_none() {
        program.signal("TERM");
    }
    assert_eq!(program.end(), (Some(143), String::new()));
    drop(clients);
}
