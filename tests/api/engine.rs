//! Engine: sessions without Socket.IO.

use crate::support::client::{Client, sid_of};
use crate::support::http::{get, post};
use crate::support::websocket::BINARY;
use crate::support::{Running, settings};
use crate::{fail, next};
use fanfare::engine::{Conn, Engine, Message};
use fanfare::{CloseReason, Settings};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// An engine that echoes, and tells how its sessions open and close.
fn echo_engine() -> (Engine, Receiver<Conn>, Receiver<(String, CloseReason)>) {
    let ((opened, opens), (closed, closes)) = (channel(), channel());
    let engine = Engine::with_settings(Settings { path: "/engine.io".into(), ..settings() })
        .on_open(move |conn| drop(opened.send(conn)))
        .on_message(|conn, message| match message {
            Message::Text(text) if text == "fail" => fail(),
            message => conn.send(message),
        })
        .on_close(move |conn, reason| drop(closed.send((conn.id(), reason))));
    (engine, opens, closes)
}

#[test]
fn the_engine_alone_opens_echoes_and_closes() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=websocket&x=y";
    let mut client = Client::open_at(server.address(), target, &[("X-Kit", "yes")]);
    let conn = next(&opens);
    assert_eq!((conn.id(), conn.url(), conn.header("x-kit")), (client.sid.clone(), target, Some("yes")));
    client.ask("4hello", "4hello");
    client.ask("4", "4");
    client.peer.send_frame(BINARY, &[0, 1, 255]);
    assert_eq!(client.peer.frame(), (BINARY, vec![0, 1, 255]));
    for i in 0..100 {
        conn.send(Message::Text(format!("from another thread {i}")));
    }
    (0..100).for_each(|i| client.expect(&format!("4from another thread {i}")));
    conn.send(Message::Binary(vec![7].into()));
    conn.close();
    assert_eq!(client.peer.frame(), (BINARY, vec![7]), "what is queued still leaves");
    client.peer.expect_close();
    assert_eq!(next(&closes), (client.sid.clone(), CloseReason::ForcedClose));
    conn.send(Message::Text("to nobody".into()));

    let client = Client::open_at(server.address(), target, &[]);
    let sid = client.sid.clone();
    drop(client);
    assert_eq!(next(&closes), (sid, CloseReason::TransportClose));
}

#[test]
fn the_engine_alone_speaks_polling_too() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=polling";
    let handshake = get(server.address(), target).body;
    let conn = next(&opens);
    assert_eq!(sid_of(&handshake), conn.id());
    let target = format!("{target}&sid={}", conn.id());
    assert_eq!(post(server.address(), &target, "4a\x1ebAQL/\x1e4b").brief(), (200, "ok"));
    assert_eq!(get(server.address(), &target).body, "4a\x1ebAQL/\x1e4b");
    assert_eq!(post(server.address(), &target, "1").brief(), (200, "ok"));
    assert_eq!(next(&closes), (conn.id(), CloseReason::TransportClose));
}

#[test]
fn a_panic_in_an_engines_handler_costs_only_that_session() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=websocket";
    let mut other = Client::open_at(server.address(), target, &[]);
    let mut client = Client::open_at(server.address(), target, &[]);
    client.send("4fail");
    client.peer.expect_close();
    assert_eq!(next(&closes), (client.sid.clone(), CloseReason::ForcedClose));
    other.ask("4still here", "4still here");
    assert_eq!(opens.try_iter().count(), 2);
}

#[test]
fn a_closed_engine_tells_its_sessions() {
    let (engine, _opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let mut client = Client::open_at(server.address(), "/engine.io/?EIO=4&transport=websocket", &[]);
    let server = server.into_server();
    std::thread::scope(|scope| {
        scope.spawn(|| server.close());
        client.peer.expect_close();
        assert_eq!(next(&closes), (client.sid.clone(), CloseReason::ServerShuttingDown));
        drop(client);
    });
}

#[test]
fn a_drained_engine_lets_its_sessions_go() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=websocket";
    let mut clients: Vec<_> = (0..3).map(|_| Client::open_at(server.address(), target, &[])).collect();
    clients.iter().for_each(|_| next(&opens).send(Message::Text("last".into())));
    let server = server.into_server();
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| server.drain(Duration::from_millis(30)));
        for client in &mut clients {
            client.expect("4last");
            client.peer.expect_close();
            assert_eq!(next(&closes).1, CloseReason::ServerShuttingDown);
        }
        drop(clients);
        let stats = drained.join().expect("it ends");
        assert_eq!((stats.let_go, stats.cut_off), (3, 0));
    });
}
