//! Endings: how sessions and streams end, for which reason, and what is still delivered.

use super::*;

#[test]
fn a_second_poll_at_a_time_ends_the_session() {
    let mut server = server();
    let (sid, _) = server.polling_joined();
    let (first, second) = (server.poll(sid), server.poll(sid));
    assert_eq!((server.answer(first), server.answer(second)), ("1".into(), "Broken".into()));
    assert_eq!(server.ends(), [CloseReason::TransportError]);
    let late = server.poll(sid);
    assert_eq!(server.answer(late), "UnknownSid");
}

#[test]
fn a_closed_polling_session_lingers_for_its_last_poll() {
    let mut server = server();
    let (sid, socket) = server.polling_joined();
    server.emit(socket, "[1]", false).unwrap();
    server.shard.borrow_mut().disconnect(socket, true);
    server.turn();
    assert_eq!(server.ends(), [CloseReason::ServerNamespaceDisconnect]);
    let poll = server.poll(sid);
    assert_eq!(server.answer(poll), "42[1]\x1e41");
    let poll = server.poll(sid);
    assert_eq!(server.answer(poll), "6\x1e1");
    assert_eq!(server.sessions(), 0);
}

#[test]
fn the_worker_hears_of_a_burial_if_it_has_asked_and_once() {
    let mut server = calm();
    let ((asked, _), (other, _)) = (server.polling_joined(), server.polling_joined());
    let key = server.shard.borrow().session_by_sid(&asked).expect("it is open");
    server.shard.borrow_mut().announce_end(key);
    assert_eq!([asked, other].map(|sid| server.push(sid, "1")), ["Done", "Done"]);
    assert!(server.endings.is_empty(), "they wait for a last poll");
    let polls = [asked, other].map(|sid| server.poll(sid));
    assert_eq!(polls.map(|poll| server.answer(poll)), ["6", "6"]);
    assert_eq!(server.endings, [Ending::Buried(key)]);
    server.wait(40_000);
    assert_eq!(server.endings, [Ending::Buried(key)]);
}

#[test]
fn nobody_lingers_for_ever() {
    let mut server = calm();
    let (_, socket) = server.polling_joined();
    server.shard.borrow_mut().disconnect(socket, true);
    server.wait(29_999);
    assert_eq!(server.sessions(), 1);
    server.wait(2 * TICK_MS);
    assert_eq!(server.sessions(), 0);
}

#[test]
fn what_was_emitted_before_the_end_is_delivered_before_the_end() {
    let mut server = server();
    let (conn, socket) = server.joined();
    server.pipes.room.insert(conn, 4);
    server.emit(socket, "[1]", false).unwrap();
    server.emit(socket, "[2]", false).unwrap();
    server.shard.borrow_mut().disconnect(socket, true);
    server.turn();
    assert_eq!(server.sessions(), 0);
    server.pipes.room.remove(&conn);
    server.shard.borrow_mut().on_writable(conn);
    server.turn();
    assert_eq!(server.heard(conn), ["42[1]", "42[2]", "41", "close"]);
    assert_eq!(server.endings, [Ending::FinishWriting(conn)]);
    server.wait(FAREWELL_MS + TICK_MS);
    assert_eq!(server.endings, [Ending::FinishWriting(conn), Ending::Close(conn)]);
}

#[test]
fn a_stream_that_takes_nothing_more_is_cut_off_and_not_finished() {
    let mut server = server();
    let (conn, socket) = server.joined();
    server.pipes.room.insert(conn, 4);
    server.emit(socket, "[1]", false).unwrap();
    server.shard.borrow_mut().disconnect(socket, true);
    server.turn();
    // It becomes writable at the moment in which it is given up.
    server.now += FAREWELL_MS + TICK_MS;
    server.pipes.room.remove(&conn);
    server.shard.borrow_mut().on_writable(conn);
    server.turn();
    assert_eq!(server.endings, [Ending::Close(conn)]);
    assert_eq!(server.shard.borrow().conn_count(), 0);
}

#[test]
fn a_broken_frame_is_answered_with_its_code_whatever_follows_it() {
    let mut server = server();
    let (conn, _) = server.joined();
    let broken = [&[0x81, 0x01, b'x'][..], &[0xff; 40]].concat();
    drive::receive(&server.shard, &server.app, conn, &mut broken.clone());
    drive::receive(&server.shard, &server.app, conn, &mut broken.clone());
    server.turn();
    assert_eq!(server.heard(conn), ["close 1002"]);
    server.receive(conn, broken);
    assert_eq!(server.endings, [Ending::FinishWriting(conn)], "the peer has time to read it");
    assert_eq!(server.ends(), [CloseReason::TransportError]);
}

#[test]
fn a_close_frame_is_answered_whatever_follows_it() {
    let mut server = server();
    let (conn, _) = server.joined();
    let mut bytes = Vec::new();
    websocket::put_close(&mut bytes, Some(1000), "", Some([0; 4]));
    bytes.extend([0xff; 9]);
    server.receive(conn, bytes);
    assert_eq!(server.heard(conn), ["close 1000"]);
}

#[test]
fn a_backlog_over_the_limit_evicts() {
    let mut server = with(Settings { outbox_bytes_max: 1_000, ..Settings::default() });
    let ((stalled, _), (healthy, _)) = (server.joined(), server.joined());
    server.pipes.room.insert(stalled, 0);
    let data = format!("[\"{}\"]", "x".repeat(94));
    for _ in 0..9 {
        assert_eq!(server.broadcast(&[], &[], &data), 2);
    }
    assert!(server.ends().is_empty());
    server.broadcast(&[], &[], &data);
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
    assert_eq!(server.endings, [Ending::Reset(stalled)], "nobody waits for it to read");
    assert_eq!(server.shard.borrow().counters.evicted, 1);
    assert_eq!(server.heard(healthy).len(), 10);
}

#[test]
fn who_reads_but_too_little_is_evicted_too() {
    let mut server = with(Settings { outbox_bytes_max: 1_000, ..Settings::default() });
    let (slow, _) = server.joined();
    server.pipes.room.insert(slow, 0);
    let data = format!("[\"{}\"]", "x".repeat(94));
    for _ in 0..30 {
        server.broadcast(&[], &[], &data);
        server.pipes.room.insert(slow, 20);
        server.shard.borrow_mut().on_writable(slow);
    }
    server.turn();
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
}

#[test]
fn a_backlog_of_many_segments_leaves_in_one_turn_once_its_stream_takes_it() {
    let mut server = server();
    let (conn, socket) = server.joined();
    server.pipes.room.insert(conn, 0);
    for number in 0..5 {
        server.emit(socket, &format!("[{number}]"), false).unwrap();
    }
    server.pipes.room.remove(&conn);
    server.shard.borrow_mut().on_writable(conn);
    server.shard.borrow_mut().write(&mut server.pipes, 100);
    assert_eq!(server.heard(conn).len(), 5);
}

#[test]
fn an_abandoned_poll_ends_its_session() {
    let mut server = server();
    let (sid, _) = server.polling_joined();
    let number = server.poll(sid);
    server.shard.borrow_mut().on_abandoned(sid, Exchange { worker: 0, number });
    server.turn();
    assert_eq!(server.ends(), [CloseReason::TransportError]);
}

#[test]
fn each_close_reason_has_its_cause() {
    type Cause = fn(&mut Server, Key<Conn>, Key<Socket>);
    let causes: [(CloseReason, Cause); CloseReason::ALL.len()] = [
        (CloseReason::TransportError, |server, conn, _| server.shard.borrow_mut().on_hangup(conn, true)),
        (CloseReason::TransportClose, |server, conn, _| server.shard.borrow_mut().on_hangup(conn, false)),
        (CloseReason::ForcedClose, |server, conn, _| server.say(conn, "42/elsewhere,[\"a\"]")),
        (CloseReason::PingTimeout, |server, _, _| server.wait(INTERVAL + TIMEOUT + 2 * TICK_MS)),
        (CloseReason::ParseError, |server, conn, _| server.say(conn, "9")),
        (CloseReason::SlowClient, |server, conn, socket| {
            server.pipes.room.insert(conn, 0);
            server.emit(socket, &format!("[\"{}\"]", "x".repeat(5 << 20)), false).unwrap();
        }),
        (CloseReason::RateLimited, |server, conn, _| {
            (0..EVENTS_MAX).for_each(|_| server.say(conn, "42[\"often\"]"));
        }),
        (CloseReason::ServerShuttingDown, |server, _, _| server.shard.borrow_mut().shut_down()),
        (CloseReason::ClientNamespaceDisconnect, |server, conn, _| server.say(conn, "41")),
        (CloseReason::ServerNamespaceDisconnect, |server, _, socket| {
            server.shard.borrow_mut().disconnect(socket, false);
        }),
    ];
    for (at, (reason, cause)) in causes.into_iter().enumerate() {
        assert_eq!(reason, CloseReason::ALL[at], "every reason is here");
        let mut server = with(Settings { events_per_second_max: EVENTS_MAX, ..Settings::default() });
        let (conn, socket) = server.joined();
        cause(&mut server, conn, socket);
        drive::hear_out(&server.shard, &server.app);
        server.turn();
        assert_eq!(server.ends(), [reason]);
        assert_eq!(server.shard.borrow().counters.disconnects[at], 1, "{reason}");
        assert_eq!(server.emit(socket, "[1]", false), Err(Unsent::Closed));
    }
}

#[test]
fn a_socket_keeps_its_rooms_until_the_turn_ends_and_receives_nothing_in_them() {
    let mut server = server();
    let (conn, socket) = server.joined();
    server.join(socket, "a").unwrap();
    server.shard.borrow_mut().disconnect(socket, false);
    assert_eq!(server.shard.borrow().rooms_of(socket).len(), 2);
    assert_eq!(server.shard.borrow().socket(socket).map(|it| it.state), Some(SocketState::Closed));
    let target = Target { namespace: "/".into(), rooms: vec!["a".into()], ..Target::default() };
    assert_eq!(server.shard.borrow_mut().fan_out(&target, &event("[1]")).sockets, 0);
    drive::hear_out(&server.shard, &server.app);
    server.turn();
    assert!(server.shard.borrow().socket(socket).is_none());
    assert_eq!(server.heard(conn), ["41"]);
}

#[test]
fn a_server_that_shuts_down_lets_nobody_in() {
    let mut server = server();
    let (conn, _) = server.joined();
    server.shard.borrow_mut().shut_down();
    drive::hear_out(&server.shard, &server.app);
    server.turn();
    assert_eq!(server.heard(conn), ["close"]);
    assert!(server.shard.borrow_mut().open_polling(handshake()).is_err());
    assert!(server.shard.borrow_mut().open_websocket(handshake()).is_err());
    assert_eq!(server.sessions(), 0);
}

#[test]
fn a_crowd_that_is_closed_at_once_is_told_within_the_budget_of_each_turn() {
    let mut server = server();
    let conns: Vec<_> = (0..100).map(|_| server.joined().0).collect();
    server.shard.borrow_mut().disconnect_sockets(&Arc::new(everyone()), true);
    drive::hear_out(&server.shard, &server.app);
    server.shard.borrow_mut().write(&mut server.pipes, 10);
    let told = conns.iter().filter(|conn| server.pipes.bytes.contains_key(conn)).count();
    assert_eq!(told, 10);
    while server.shard.borrow().has_work() {
        server.turn();
    }
    assert!(conns.iter().all(|&conn| server.heard(conn).last().is_some_and(|last| last == "close")));
}
