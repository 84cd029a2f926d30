//! Endings: a server that closes or drains, and what everybody is told.

use crate::support::client::{Client, POLLING, WEBSOCKET, clients_on_both_workers, connected_session, sid_of};
use crate::support::http::{Connection, WAIT_MAX, get};
use crate::support::{Running, block_on, settings, stats, wait_for_stats};
use crate::{ends_of, next, with_sockets};
use fanfare::proto::Id;
use fanfare::{AckError, CloseReason, EmitError, Io, JoinError, Settings, Socket, StartError, Stats};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What the server has counted, when it has ended.
fn end_of(server: Running) -> Receiver<Stats> {
    let (sender, ended) = channel();
    let server = server.into_server();
    std::thread::spawn(move || drop(sender.send(server.wait())));
    ended
}

/// Waits until every worker has begun to close.
fn wait_until_nobody_listens(server: &Running) {
    let deadline = Instant::now() + WAIT_MAX;
    while TcpStream::connect_timeout(&server.address(), WAIT_MAX).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
    }
}

#[test]
fn a_closed_server_tells_everyone_and_refuses_everything() {
    let io = Io::with_settings(settings());
    assert!(matches!(io.emit("early", &()), Err(EmitError::Closed)), "it does not listen yet");
    assert_eq!(block_on(io.stats()), Err(EmitError::Closed));
    let ends = ends_of(&io.of("/"));
    let (server, sockets) = with_sockets(&io);
    let again = io.listen("127.0.0.1:0");
    assert!(matches!(again, Err(StartError::AlreadyListening)), "{:?}", again.err());
    let mut clients = clients_on_both_workers(&server, "/", 2);
    let sockets: Vec<_> = clients.iter().map(|_| next(&sockets)).collect();
    let waiting = sockets[0].emit_with_ack::<u32>("anyone?", &());
    let asked = clients.iter().position(|client| client.id == sockets[0].id()).expect("one of them");
    assert!(clients[asked].text().ends_with(r#"["anyone?"]"#));

    let under_way = io.to("nowhere").emit("last", &()).expect("it runs");
    io.close();
    for client in &mut clients {
        client.peer.expect_close();
        assert_eq!(next(&ends).1, CloseReason::ServerShuttingDown);
    }
    drop(clients);
    next(&end_of(server));
    assert_eq!(block_on(waiting), Err(AckError::Disconnected));
    assert_eq!(block_on(under_way.into_future()), Err(EmitError::Closed), "nobody is left to write it");
    assert!(matches!(io.emit("late", &()), Err(EmitError::Closed)));
    assert_eq!(io.to("room").sockets_join("other"), Err(EmitError::Closed));
    assert!(matches!(io.emit_and_count("late", &()), Err(EmitError::Closed)));
    assert_eq!(sockets[0].emit("late", &()), Err(EmitError::Closed));
    assert_eq!(sockets[0].join("late"), Err(JoinError::Closed));
    assert_eq!(block_on(sockets[0].emit_with_ack::<u32>("late", &())), Err(AckError::Disconnected));
    assert_eq!(block_on(io.stats()), Err(EmitError::Closed));
    io.close(); // once more does nothing
}

/// Opens clients on both workers, some of them polling, until there are this many of both kinds.
fn crowd(server: &Running, websockets: usize, pollers: usize) -> (Vec<Client>, Vec<String>) {
    let address = server.address();
    let clients = (0..websockets).map(|_| Client::connect(address)).collect();
    (clients, (0..pollers).map(|_| connected_session(address)).collect())
}

#[test]
fn a_server_that_drains_lets_nobody_in_and_everybody_go() {
    const WEBSOCKETS: usize = 60;
    const POLLERS: usize = 10;
    let io = Io::with_settings(Settings { shutdown_grace: WAIT_MAX, ..settings() });
    let ends = ends_of(&io.of("/"));
    let server = Running::io(&io);
    let (mut clients, targets) = crowd(&server, WEBSOCKETS, POLLERS);
    io.emit("queued", &()).expect("it runs");
    io.drain(Duration::from_secs(3600)); // as few as these do not take so long
    assert!(stats(&io).draining);

    for (status, retry, end) in
        [get(server.address(), POLLING), Connection::open(server.address()).upgrade("GET", WEBSOCKET, &[])].map(
            |refused| {
                assert!(refused.body.contains("Server is shutting down"), "{refused:?}");
                let header = |name| refused.header(name).map(str::to_owned);
                (refused.status, header("retry-after"), header("connection"))
            },
        )
    {
        assert_eq!((status, end.as_deref()), (503, Some("close")));
        let seconds: u8 = retry.expect("a time").parse().expect("seconds");
        assert!((1..=10).contains(&seconds));
    }
    let reached = block_on(io.emit_and_count("late", &()).expect("it runs")).expect("it runs");

    let mut heard = 0;
    for client in &mut clients {
        let rest = client.rest();
        assert!(rest == [r#"42["queued"]"#] || rest == [r#"42["queued"]"#, r#"42["late"]"#], "{rest:?}");
        heard += rest.len() - 1;
    }
    for target in &targets {
        let mut packets = Vec::new();
        while packets.last().is_none_or(|last| last != "1") {
            let polled = get(server.address(), target);
            assert_eq!(polled.status, 200, "{polled:?}");
            packets.extend(polled.body.split('\x1e').map(str::to_owned));
        }
        packets.retain(|packet| packet != "6" && packet != "1");
        assert!(packets == [r#"42["queued"]"#] || packets == [r#"42["queued"]"#, r#"42["late"]"#], "{packets:?}");
        heard += packets.len() - 1;
    }
    assert_eq!(heard, reached.sockets, "who was counted has heard it");
    drop(clients);
    let stats = server.into_server().wait();
    assert_eq!((stats.let_go, stats.cut_off, stats.draining_left), ((WEBSOCKETS + POLLERS) as u64, 0, 0));
    assert_eq!((stats.shutting_down_refused, stats.refused), (2, 0), "they broke no rule");
    let reasons: Vec<_> = ends.try_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, [CloseReason::ServerShuttingDown; WEBSOCKETS + POLLERS]);
    io.drain(WAIT_MAX); // once more does nothing
}

#[test]
fn a_handler_may_drain_its_server_and_closing_ends_a_drain_at_once() {
    let io = Io::with_settings(settings());
    let handle = io.clone();
    io.of("/").on_event("drain", move |_: Socket| handle.drain(Duration::from_secs(3600)));
    let server = Running::io(&io);
    let (mut clients, _) = crowd(&server, 300, 0);
    clients[0].send(r#"42["drain"]"#);
    let begun = wait_for_stats(&io, |stats| stats.let_go > 0);
    assert!(begun.draining && begun.draining_left > 0, "{begun:?}");
    io.close();
    clients.iter_mut().for_each(|client| drop(client.rest()));
    drop(clients);
    assert_eq!(server.into_server().wait().let_go, 300);
}

/// Nobody waits so long in a test: what ends in time did not wait for it.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_server_without_clients_drains_at_once() {
    for workers in [1, 2, 5] {
        let io = Io::with_settings(Settings { workers, shutdown_grace: LONG, ..settings() });
        let server = Running::io(&io);
        io.drain(LONG);
        assert_eq!(next(&end_of(server)).let_go, 0);
    }
}

#[test]
fn a_drain_is_over_when_the_last_client_has_left_by_itself() {
    let io = Io::with_settings(Settings { shutdown_grace: LONG, ..settings() });
    let server = Running::io(&io);
    let (clients, _) = crowd(&server, 300, 0);
    io.drain(LONG);
    wait_for_stats(&io, |stats| stats.let_go > 0);
    drop(clients);
    let stats = next(&end_of(server));
    assert!(stats.let_go < 300 && stats.draining_left == 0, "{stats:?}");
}

#[test]
fn a_count_is_complete_as_long_as_any_worker_has_a_client_to_say_farewell_to() {
    let io = Io::with_settings(Settings { workers: 5, shutdown_grace: LONG, ..settings() });
    let server = Running::io(&io);
    let mut client = Client::connect(server.address());
    io.close();
    client.peer.expect_close();
    wait_until_nobody_listens(&server);
    let counted = block_on(io.emit_and_count("late", &()).expect("one worker waits for the client, and so all do"));
    assert_eq!(counted.expect("all workers answer").sockets, 0);
    drop(client);
    next(&end_of(server));
    assert!(matches!(io.emit_and_count("later", &()), Err(EmitError::Closed)));
}

#[test]
fn a_request_that_ends_after_closing_has_begun_is_answered_whichever_worker_its_session_is_of() {
    let io = Io::with_settings(Settings { shutdown_grace: LONG, ..settings() });
    let server = Running::io(&io);
    // A session begins on the worker that its connection is of.
    let open = || {
        let mut connection = Connection::open(server.address());
        let sid = sid_of(&connection.get(POLLING).body).to_owned();
        (Id::parse(&sid).expect("one of ours").shard(), connection, sid)
    };
    let (owner, _, sid) = open();
    let elsewhere = std::iter::repeat_with(open).take(100).find(|(worker, ..)| *worker != owner);
    let (_, mut connection, _) = elsewhere.expect("both workers get some of a hundred connections");
    let length = "Content-Length: 2\r\nExpect: 100-continue";
    connection.write(format!("POST {POLLING}&sid={sid} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n"));
    assert_eq!(connection.response().status, 100);
    io.close();
    wait_until_nobody_listens(&server);
    connection.write("40");
    assert_eq!(connection.response().brief(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    next(&end_of(server));
}

#[test]
fn who_does_not_read_is_cut_off_when_the_time_is_over() {
    const OUTBOX_MAX: usize = 40 << 20;
    let shutdown_grace = Duration::from_millis(100);
    let io = Io::with_settings(Settings { shutdown_grace, outbox_bytes_max: OUTBOX_MAX, ..settings() });
    let server = Running::io(&io);
    let clients: Vec<_> = (0..3).map(|_| Client::connect(server.address())).collect();
    // More than the kernel takes for a client that does not read, and less than a slow client is closed for.
    let large = "x".repeat(200_000);
    (0..OUTBOX_MAX / large.len() - 1).for_each(|_| drop(io.emit("large", &large).expect("it runs")));
    io.drain(Duration::from_millis(1));
    assert_eq!(server.into_server().wait().cut_off, 3);
    drop(clients);
}
