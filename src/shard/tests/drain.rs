//! Drains: in what order clients go, at what pace, and what they get before.

use super::*;

impl Server {
    /// Begins a drain, whose first step follows.
    fn drain(&mut self, over: Millis) {
        self.shard.borrow_mut().drain(over);
        self.wait(TICK_MS);
    }

    /// How many sessions close in each of these slices of time.
    fn closings(&mut self, slices: u64, slice: Millis) -> Vec<u64> {
        let mut closings = Vec::new();
        for _ in 0..slices {
            let before = self.counters().closed;
            for _ in 0..10 {
                self.now += slice / 10;
                self.turn();
            }
            closings.push(self.counters().closed - before);
        }
        closings
    }
}

#[test]
fn a_drain_lets_as_many_go_in_each_second_as_in_any_other() {
    let mut server = server();
    for _ in 0..3_000 {
        server.shard.borrow_mut().open_websocket(handshake()).expect("there is room");
    }
    server.drain(15_000);
    assert_eq!(server.shard.borrow().draining(), Some(3_000));
    let closings = server.closings(15, 1_000);
    assert!(closings.iter().all(|count| (199..=201).contains(count)), "{closings:?}");
    assert_eq!((server.counters().let_go, server.shard.borrow().draining()), (3_000, Some(0)));
}

#[test]
fn those_who_came_together_do_not_go_together() {
    let mut server = server();
    let conns: Vec<_> =
        (0..2_560).map(|_| server.shard.borrow_mut().open_websocket(handshake()).expect("there is room")).collect();
    server.drain(20_000);
    server.closings(1, 5_000);
    let gone = |conns: &[Key<Conn>]| {
        let shard = server.shard.borrow();
        let leaves = |conn: &&Key<Conn>| !matches!(shard.conns.get(**conn).unwrap().role, Role::Serving(_));
        conns.iter().filter(leaves).count()
    };
    let by_age: Vec<_> = conns.chunks(256).map(gone).collect();
    // A quarter of each chunk, within the grain of the walk.
    assert!(by_age.iter().all(|gone| (54..=74).contains(gone)), "{by_age:?}");
}

#[test]
fn few_clients_are_let_go_sooner_than_in_the_whole_time() {
    let mut server = server();
    (0..50).for_each(|_| _ = server.websocket());
    server.drain(3_600_000);
    assert_eq!(server.closings(5, 1_000 * 10 / PACE_MIN), [10; 5]);
    assert_eq!(server.shard.borrow().draining(), Some(0));
}

#[test]
fn who_leaves_by_itself_during_a_drain_is_one_of_those_who_go() {
    let mut server = server();
    let conns: Vec<_> = (0..1_000).map(|_| server.websocket()).collect();
    server.drain(10_000);
    for &conn in &conns[..500] {
        server.shard.borrow_mut().on_hangup(conn, false);
        drive::hear_out(&server.shard, &server.app);
    }
    assert_eq!(server.closings(10, 1_000), [0, 0, 0, 0, 0, 100, 100, 100, 100, 100]);
}

#[test]
fn a_drain_that_is_late_closes_no_more_at_a_time_than_a_step_may() {
    let mut server = server();
    for _ in 0..2_000 {
        server.shard.borrow_mut().open_websocket(handshake()).expect("there is room");
    }
    server.drain(1);
    let mut steps = Vec::new();
    while server.counters().closed < 2_000 {
        let before = server.counters().closed;
        server.wait(TICK_MS);
        steps.push(server.counters().closed - before);
    }
    assert_eq!(steps, [STEP_CLIENTS_MAX, STEP_CLIENTS_MAX, 2_000 - 3 * STEP_CLIENTS_MAX], "after the first one");
}

#[test]
fn who_is_not_let_go_yet_lives_on_and_nobody_joins() {
    let mut server = server();
    let clients: Vec<_> = (0..10).map(|_| server.joined()).collect();
    server.drain(60_000);
    assert!(server.shard.borrow_mut().open_polling(handshake()).is_err());
    assert!(server.shard.borrow_mut().open_websocket(handshake()).is_err());
    assert_eq!(server.closings(1, 50), [5]);
    assert_eq!(server.broadcast(&[], &[], "[1]"), 5, "those who are left");
    for (conn, _) in clients {
        let heard = server.heard(conn);
        assert!(heard == ["close"] || heard == ["42[1]"], "{heard:?}");
        if heard != ["close"] {
            server.say(conn, r#"42["say"]"#);
        }
    }
    assert_eq!(server.app.names.take(), ["say"; 5], "they are still heard");
}

#[test]
fn a_client_that_is_let_go_in_the_middle_of_a_frame_gets_what_is_queued() {
    let mut server = calm();
    let (conn, socket) = server.joined();
    let mut frame = Vec::new();
    websocket::put_frame(&mut frame, Opcode::Text, b"42[\"late\"]", Some([0xff; 4]));
    server.pipes.room.insert(conn, 0);
    server.emit(socket, "[\"queued\"]", false).unwrap();
    server.receive(conn, frame[..9].to_vec());
    server.drain(0);
    server.turn();
    server.receive(conn, frame[9..].to_vec());
    server.pipes.room.remove(&conn);
    server.shard.borrow_mut().on_writable(conn);
    server.turn();
    assert_eq!(server.heard(conn), ["42[\"queued\"]", "close"]);
    assert_eq!(server.shard.borrow().counters.protocol_errors, 0);
    assert!(server.app.names.borrow().is_empty(), "what it says then is not looked at");
}

#[test]
fn what_is_queued_is_sent_before_the_close_frame_of_a_drain() {
    let mut server = server();
    let (conn, socket) = server.joined();
    server.shard.borrow_mut().emit(socket, &event("[1]"), false).unwrap();
    server.drain(0);
    assert_eq!(server.heard(conn), ["42[1]", "close"]);
    assert_eq!(server.ends(), [CloseReason::ServerShuttingDown]);
    assert_eq!(server.counters().cut_off, 0);
}

#[test]
fn polling_clients_are_let_go_with_a_poll_which_may_come_after_the_end() {
    let mut server = server();
    let [(waits, _), (between, socket), (busy, other)] = [(); 3].map(|()| server.polling_joined());
    let poll = server.poll(waits);
    let full = server.poll(busy);
    server.shard.borrow_mut().emit(socket, &event("[1]"), false).unwrap();
    server.shard.borrow_mut().emit(other, &event("[2]"), false).unwrap();
    server.drain(0);
    assert_eq!((&*server.answer(poll), &*server.answer(full)), ("1", "42[2]"));
    assert_eq!(server.sessions(), 2, "two are still to hear of it");
    assert_eq!(server.push(between, r#"42["say"]"#), "Done", "or its client would give up before");
    assert!(server.app.names.take().is_empty());
    let polls = [(); 2].map(|()| server.poll(between));
    assert_eq!(polls.map(|poll| server.answer(poll)), ["42[1]", "6\x1e1"]);
    let poll = server.poll(busy);
    assert_eq!((&*server.answer(poll), server.sessions()), ("6\x1e1", 0));
}

#[test]
fn a_drain_waits_for_a_last_poll_no_longer_than_the_grace() {
    let mut server = with(Settings { shutdown_grace: Duration::from_secs(2), ..Settings::default() });
    server.polling_joined();
    server.drain(0);
    server.wait(1_999);
    assert_eq!(server.sessions(), 1);
    server.wait(2 * TICK_MS);
    assert_eq!(server.sessions(), 0);
}

#[test]
fn a_drain_can_begin_anew_and_closing_ends_it_at_once() {
    let mut server = server();
    let conns: Vec<_> = (0..1_000).map(|_| server.websocket()).collect();
    server.drain(1_000_000_000);
    assert_eq!(server.closings(1, 1_000), [100], "no slower than the slowest pace");
    server.drain(3_000);
    assert_eq!(server.closings(1, 1_000), [300], "a third of those who are left");
    server.shard.borrow_mut().shut_down();
    drive::hear_out(&server.shard, &server.app);
    while server.shard.borrow().has_work() {
        server.turn();
    }
    assert!(conns.iter().all(|&conn| server.heard(conn).last().is_some_and(|last| last == "close")));
    assert_eq!(server.closings(3, 1_000), [0; 3]);
    assert_eq!((server.counters().let_go, server.shard.borrow().draining()), (1_000, Some(0)));
}

#[test]
fn who_is_owed_something_when_the_time_is_over_is_counted() {
    let mut server = server();
    let (stuck, socket) = server.joined();
    server.joined();
    server.polling_joined();
    server.pipes.room.insert(stuck, 0);
    server.emit(socket, "[1]", false).unwrap();
    server.drain(0);
    server.shard.borrow_mut().cut_off();
    assert_eq!(server.counters().cut_off, 2, "the stuck one, and the one that polls no more");
    server.wait(FAREWELL_MS + TICK_MS);
    assert_eq!(server.counters().cut_off, 3, "a farewell that was not taken counts by itself");
}
