//! Clients that do not read as fast as they are sent: what each policy drops, what it never drops, and who is evicted.

use super::super::outbox::EXCESS;
use super::*;
use crate::proto::Fate;

const BYTES_MAX: usize = 1_000;
const AGE_MAX: Millis = 20_000;

/// Heartbeats stay out of the way.
fn patient() -> Settings {
    Settings {
        outbox_bytes_max: BYTES_MAX,
        ping_interval: Duration::from_secs(3600),
        ping_timeout: Duration::from_secs(3600),
        ..Settings::default()
    }
}

/// An event of 97 bytes that says its number.
fn numbered(number: usize, fate: Fate) -> Arc<Prepared> {
    let packet = socketio::event("/", None, &format!("[{number:091}]"), &[]).with_fate(fate);
    assert_eq!(packet.websocket().len(), 97);
    Arc::new(packet)
}

fn key(key: &str) -> Fate {
    Fate::Conflated(key.into())
}

impl Server {
    fn stall(&mut self, conn: Key<Conn>) {
        self.pipes.room.insert(conn, 0);
    }

    fn resume(&mut self, conn: Key<Conn>) {
        self.pipes.room.remove(&conn);
        self.shard.borrow_mut().on_writable(conn);
        self.turn();
    }

    /// To everyone. Returns how many it was queued for.
    fn cast(&mut self, packet: &Arc<Prepared>) -> usize {
        let reached = self.shard.borrow_mut().fan_out(&everyone(), packet).sockets;
        self.turn();
        reached
    }

    /// The numbers of the events that a client has got.
    fn numbers(&mut self, conn: Key<Conn>) -> Vec<usize> {
        let heard = self.heard(conn);
        heard.into_iter().map(|text| text[3..text.len() - 1].parse().expect("a numbered event")).collect()
    }
}

#[test]
fn drop_newest_keeps_what_came_first_and_says_so() {
    let mut server = with(patient());
    let ((stalled, _), (healthy, _)) = (server.joined(), server.joined());
    server.stall(stalled);
    let reached: Vec<usize> = (0..20).map(|number| server.cast(&numbered(number, Fate::DroppedNewest))).collect();
    assert_eq!(reached, [[2; 10], [1; 10]].concat(), "ten of 97 bytes find room");
    assert_eq!(server.counters().turned_away, 10);
    server.resume(stalled);
    assert_eq!(server.numbers(stalled), Vec::from_iter(0..10));
    assert_eq!(server.numbers(healthy), Vec::from_iter(0..20));
    assert!(server.ends().is_empty());
}

#[test]
fn drop_newest_holds_for_a_burst_of_one_turn_too() {
    let mut server = with(patient());
    let (stalled, _) = server.joined();
    server.stall(stalled);
    for number in 0..20 {
        // Nobody knows yet that the stream is full.
        assert_eq!(server.shard.borrow_mut().fan_out(&everyone(), &numbered(number, Fate::DroppedNewest)).sockets, 1);
    }
    server.turn();
    assert_eq!(server.counters().dropped_newest, 10);
    server.resume(stalled);
    assert_eq!(server.numbers(stalled), Vec::from_iter(0..10));
}

#[test]
fn drop_oldest_keeps_what_came_last() {
    let mut server = with(patient());
    let (stalled, _) = server.joined();
    server.stall(stalled);
    for number in 0..20 {
        assert_eq!(server.cast(&numbered(number, Fate::DroppedOldest)), 1);
    }
    assert_eq!(server.counters().dropped_oldest, 10);
    server.resume(stalled);
    assert_eq!(server.numbers(stalled), Vec::from_iter(10..20));
}

#[test]
fn drop_oldest_drops_no_more_than_it_has_to_of_what_came_in_one_turn() {
    let mut server = with(patient());
    let (stalled, _) = server.joined();
    server.stall(stalled);
    for number in 0..20 {
        server.shard.borrow_mut().fan_out(&everyone(), &numbered(number, Fate::DroppedOldest));
    }
    server.turn();
    assert_eq!(server.counters().dropped_oldest, 10);
    server.cast(&numbered(20, Fate::DroppedOldest));
    assert_eq!(server.counters().dropped_oldest, 11);
    server.resume(stalled);
    assert_eq!(server.numbers(stalled), Vec::from_iter(11..21));
}

#[test]
fn drop_oldest_drops_nothing_where_leaving_out_what_was_replaced_makes_room() {
    let mut server = with(patient());
    let (stalled, _) = server.joined();
    server.stall(stalled);
    (0..2).for_each(|number| _ = server.cast(&numbered(number, Fate::DroppedOldest)));
    (2..30).for_each(|number| _ = server.cast(&numbered(number, key("a"))));
    server.resume(stalled);
    assert_eq!(server.numbers(stalled), [0, 1, 29]);
}

#[test]
fn a_frame_that_has_left_in_part_is_never_cut() {
    for fate in [Fate::DroppedOldest, key("k")] {
        let mut server = with(patient());
        let (slow, _) = server.joined();
        server.pipes.room.insert(slow, 50);
        for number in 0..20 {
            server.cast(&numbered(number, fate.clone()));
        }
        server.resume(slow);
        let numbers = server.numbers(slow);
        assert_eq!((numbers[0], *numbers.last().unwrap()), (0, 19), "the first had begun");
    }
}

#[test]
fn conflate_leaves_the_newest_of_each_key_in_order_of_last_change() {
    let mut server = with(patient());
    let (stalled, _) = server.joined();
    server.stall(stalled);
    for number in 0..60 {
        server.cast(&numbered(number, key(["a", "b", "c"][[0, 1, 2, 0][number % 4]])));
    }
    server.resume(stalled);
    assert_eq!(server.numbers(stalled), [57, 58, 59]);
    assert_eq!(server.counters().conflated, 57);
    assert!(server.ends().is_empty());
}

#[test]
fn keys_are_left_alone_while_the_client_keeps_up() {
    let mut server = with(patient());
    let (conn, _) = server.joined();
    for number in 0..20 {
        server.cast(&numbered(number, key("a")));
    }
    assert_eq!(server.numbers(conn), Vec::from_iter(0..20));
}

#[test]
fn more_keys_than_fit_evict() {
    let mut server = with(patient());
    let (stalled, _) = server.joined();
    server.stall(stalled);
    for number in 0..11 {
        server.cast(&numbered(number, key(&number.to_string())));
    }
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
}

#[test]
fn what_must_arrive_is_never_dropped_and_evicts_where_it_does_not_fit() {
    let mut server = with(patient());
    let (stalled, socket) = server.joined();
    server.stall(stalled);
    for number in 0..8 {
        server.emit(socket, &format!("[{number:091}]"), false).unwrap();
        (0..5).for_each(|more| _ = server.cast(&numbered(100 * number + more, Fate::DroppedOldest)));
    }
    assert!(server.ends().is_empty(), "the others have made room");
    (8..11).for_each(|number| _ = server.emit(socket, &format!("[{number:091}]"), false));
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
    assert_eq!(server.counters().evicted, 1);
}

#[test]
fn whoever_must_get_something_and_does_not_read_is_gone_when_it_is_too_old() {
    let mut server = with(patient());
    let ((stalled, _), (healthy, _)) = (server.joined(), server.joined());
    let (sid, _) = server.polling_joined();
    server.stall(stalled);
    server.cast(&numbered(0, Fate::Kept));
    server.wait(AGE_MAX / 2);
    server.cast(&numbered(1, Fate::Kept));
    server.wait(AGE_MAX / 2);
    assert!(server.ends().is_empty());
    server.wait(2 * TICK_MS);
    assert_eq!(server.ends(), [CloseReason::SlowClient; 2], "the WebSocket and the one that does not poll");
    assert_eq!((server.counters().evicted, server.counters().evicted_late), (2, 2));
    assert_eq!(server.endings, [Ending::Reset(stalled)]);
    let poll = server.poll(sid);
    assert_eq!(server.answer(poll), "UnknownSid");
    assert_eq!(server.numbers(healthy), [0, 1]);
}

#[test]
fn age_drops_what_may_be_dropped_and_evicts_nobody_for_it() {
    let mut server = with(patient());
    let (stalled, socket) = server.joined();
    server.stall(stalled);
    server.cast(&numbered(0, Fate::DroppedOldest));
    server.wait(AGE_MAX / 2);
    server.cast(&numbered(1, Fate::DroppedOldest));
    server.wait(AGE_MAX / 2 + 2 * TICK_MS);
    assert_eq!(server.counters().dropped_oldest, 1);
    server.wait(2 * AGE_MAX);
    assert_eq!(server.counters().dropped_oldest, 2);
    server.emit(socket, "[2]", false).unwrap();
    server.wait(AGE_MAX / 2);
    assert!(server.ends().is_empty());
    server.wait(AGE_MAX);
    assert_eq!(server.ends(), [CloseReason::SlowClient], "an event that must arrive is another matter");
}

#[test]
fn who_reads_now_and_then_is_not_too_old() {
    let mut server = with(patient());
    let (slow, _) = server.joined();
    for number in 0..10 {
        server.stall(slow);
        server.cast(&numbered(number, Fate::Kept));
        server.wait(AGE_MAX - 1_000);
        server.resume(slow);
    }
    assert!(server.ends().is_empty());
    assert_eq!(server.numbers(slow), Vec::from_iter(0..10));
}

#[test]
fn a_byte_that_is_read_in_the_turn_in_which_it_is_too_late_saves_nobody() {
    let mut server = with(patient());
    let (slow, _) = server.joined();
    server.stall(slow);
    server.cast(&numbered(0, Fate::Kept));
    server.wait(AGE_MAX);
    server.now += 1;
    server.pipes.room.insert(slow, 1);
    server.shard.borrow_mut().on_writable(slow);
    server.turn();
    assert!(server.ends().is_empty(), "it may have read everything");
    server.wait(20);
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
}

#[test]
fn who_polls_in_the_turn_in_which_it_is_too_late_gets_what_waits() {
    let mut server = with(patient());
    let (sid, _) = server.polling_joined();
    server.cast(&numbered(0, Fate::Kept));
    server.wait(AGE_MAX);
    server.now += 1;
    server.shard.borrow_mut().tell_time(server.now);
    let poll = server.poll(sid);
    server.turn();
    assert_eq!(server.answer(poll), format!("42[{:091}]", 0));
    assert!(server.ends().is_empty());
}

#[test]
fn a_lower_limit_on_age_holds_for_those_who_are_behind_already() {
    let old = Settings { outbox_age_max: Duration::from_secs(600), ..patient() };
    let mut server = with(old.clone());
    let ((stalled, _), (reading, _)) = (server.joined(), server.joined());
    server.stall(stalled);
    server.stall(reading);
    server.cast(&numbered(0, key("k")));
    server.resume(reading);
    server.shard.borrow_mut().set_settings(Arc::new(Settings { outbox_age_max: Duration::from_secs(20), ..old }));
    server.stall(reading);
    server.cast(&numbered(0, Fate::Kept));
    server.wait(AGE_MAX - 100);
    assert!(server.ends().is_empty());
    server.wait(200);
    assert_eq!(server.ends(), [CloseReason::SlowClient; 2]);
}

#[test]
fn never_is_an_age_too() {
    let mut server = with(Settings { outbox_age_max: Duration::MAX, ..patient() });
    let (stalled, _) = server.joined();
    server.stall(stalled);
    server.cast(&numbered(0, Fate::Kept));
    server.wait(10 * AGE_MAX);
    assert!(server.ends().is_empty());
}

#[test]
fn the_evicted_hear_why_if_their_stream_takes_it_at_once() {
    let mut server = with(patient());
    let (slow, _) = server.joined();
    server.stall(slow);
    (0..10).for_each(|number| _ = server.cast(&numbered(number, Fate::Kept)));
    // It has read meanwhile, and the kernel has not told yet.
    server.pipes.room.remove(&slow);
    server.cast(&numbered(10, Fate::Kept));
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
    assert_eq!(server.heard(slow), ["close 1008"]);
    assert_eq!(server.endings, [Ending::Close(slow)], "and nobody waits for it");
}

#[test]
fn thousands_that_are_behind_on_the_same_feed_share_one_copy() {
    let mut server = with(Settings { outbox_bytes_max: 1 << 20, ..patient() });
    let conns: Vec<Key<Conn>> = (0..200).map(|_| server.joined().0).collect();
    conns.iter().for_each(|&conn| server.stall(conn));
    for number in 0..50 {
        server.cast(&numbered(number, Fate::DroppedOldest));
    }
    assert_eq!(server.shard.borrow().waiting_bytes(), 50 * 97);
    for number in 50..3_050 {
        server.cast(&numbered(number, key("only")));
    }
    let waiting = server.shard.borrow().waiting_bytes();
    assert!(waiting < 50 * 97 + 20_000, "{waiting} bytes: what was replaced is gone, and the rest is shared still");
    for conn in conns {
        server.resume(conn);
        assert_eq!(server.numbers(conn), Vec::from_iter((0..50).chain([3_049])));
    }
    assert_eq!(server.shard.borrow().waiting_bytes(), 0);
}

#[test]
fn too_much_in_all_evicts_who_is_furthest_behind() {
    let mut server = with(patient());
    let conns: Vec<(Key<Conn>, Key<Socket>)> = (0..3).map(|_| server.joined()).collect();
    for (at, &(conn, socket)) in conns.iter().enumerate() {
        server.stall(conn);
        (0..=at).for_each(|number| _ = server.emit(socket, &format!("[{number:091}]"), false).unwrap());
    }
    assert_eq!(server.shard.borrow().waiting_bytes(), 6 * 97);
    let cost = server.shard.borrow().waiting_cost();
    server.shard.borrow_mut().shed(cost * 4 / 6);
    server.turn();
    assert_eq!(server.shard.borrow().waiting_bytes(), 97, "three and two are gone, one stays");
    assert_eq!(server.counters().evicted_for_memory, 2);
    assert_eq!(server.ends(), [CloseReason::SlowClient; 2]);
    server.resume(conns[0].0);
    assert_eq!(server.numbers(conns[0].0), [0]);
}

#[test]
fn the_application_hears_once_that_much_waits_and_once_that_it_no_longer_does() {
    let mut server = with(Settings { outbox_watermark: 4 * 97, ..patient() });
    let (slow, socket) = server.joined();
    server.stall(slow);
    for number in 0..6 {
        assert!(number < 5 || *server.app.pressure.borrow() == [true], "with the fifth");
        server.cast(&numbered(number, Fate::Kept));
    }
    assert_eq!(server.shard.borrow().backlog(socket), Some((6 * 97, 0)));
    server.pipes.room.insert(slow, 3 * 97);
    server.shard.borrow_mut().on_writable(slow);
    server.turn();
    assert_eq!(server.app.pressure.take(), [true], "three wait, which is more than half");
    server.pipes.room.insert(slow, 97);
    server.shard.borrow_mut().on_writable(slow);
    server.wait(5);
    assert_eq!(server.app.pressure.take(), [false]);
    assert_eq!(server.shard.borrow().backlog(socket), Some((2 * 97, 5)));
    server.resume(slow);
    assert_eq!((server.app.pressure.take(), server.numbers(slow)), (vec![], Vec::from_iter(0..6)));
}

#[test]
fn the_application_hears_that_no_more_waits_when_it_was_dropped() {
    let mut server = with(Settings { outbox_watermark: 4 * 97, ..patient() });
    let ((slow, socket), (sid, polling)) = (server.joined(), server.polling_joined());
    server.stall(slow);
    (0..6).for_each(|number| _ = server.cast(&numbered(number, Fate::DroppedOldest)));
    assert_eq!(server.app.pressure.take(), [true, true]);
    server.wait(AGE_MAX + 10);
    assert_eq!(server.counters().dropped_oldest, 12);
    let backlogs = [socket, polling].map(|socket| server.shard.borrow().backlog(socket));
    assert_eq!((backlogs, server.app.pressure.take()), ([Some((0, 0)); 2], vec![false, false]));

    (0..6).for_each(|number| _ = server.cast(&numbered(number, key("k"))));
    assert_eq!(server.app.pressure.take(), [true, true]);
    server.poll(sid);
    server.resume(slow);
    assert_eq!((server.app.pressure.take(), server.numbers(slow)), (vec![false, false], vec![5]));
}

#[test]
fn a_backlog_is_as_old_as_the_first_that_waits_whatever_came_after_it() {
    let mut server = with(patient());
    let (slow, socket) = server.joined();
    server.stall(slow);
    server.cast(&numbered(0, key("a")));
    server.cast(&numbered(1, key("b")));
    server.wait(10_000);
    assert_eq!(server.shard.borrow().backlog(socket), Some((2 * 97, 10_000)));
    server.cast(&numbered(2, Fate::Kept));
    (3..20).for_each(|number| _ = server.cast(&numbered(number, key("b"))));
    assert_eq!(server.shard.borrow().backlog(socket).map(|(_, age)| age), Some(10_000));
}

#[test]
fn who_upgrades_gets_the_newest_of_each_key() {
    let mut server = with(Settings { outbox_bytes_max: 4 << 20, ..patient() });
    let (sid, _) = server.polling_joined();
    (0..20).for_each(|number| _ = server.cast(&numbered(number, key("a"))));
    let conn = server.upgrade(sid);
    server.say(conn, "2probe");
    server.heard(conn);
    server.say(conn, "5");
    assert_eq!(server.numbers(conn), [19]);
}

#[test]
fn pings_of_a_client_that_does_not_read_cost_next_to_nothing() {
    let mut server = with(Settings { outbox_bytes_max: 4 << 20, ..patient() });
    let (stalled, _) = server.joined();
    server.stall(stalled);
    for _ in 0..100 {
        (0..1_000).for_each(|_| server.send(stalled, Opcode::Ping, b"?"));
        server.turn();
    }
    let cost = server.shard.borrow().waiting_cost();
    assert!(cost < 1 << 20, "{cost} bytes wait");
    server.resume(stalled);
    assert_eq!(server.heard(stalled).last().map(String::as_str), Some("pong ?"));
}

#[test]
fn what_small_packets_cost_besides_counts_for_the_process() {
    let mut server = with(patient());
    let (stalled, socket) = server.joined();
    server.stall(stalled);
    (0..100).for_each(|_| _ = server.emit(socket, "[]", false).unwrap());
    let shard = server.shard.borrow();
    assert_eq!((shard.waiting_bytes(), shard.waiting_cost()), (100 * 6, 100 * (6 + 256)));
}

#[test]
fn who_asks_for_more_than_fits_in_one_turn_is_held_to_the_limit_at_once() {
    let mut server = with(patient());
    let ((greedy, socket), (other, _)) = (server.joined(), server.joined());
    let packet = numbered(0, Fate::Kept);
    for asked in 0.. {
        assert!(asked < 12, "nobody lays out more");
        if server.shard.borrow_mut().emit(socket, &packet, false).is_err() {
            break;
        }
    }
    server.turn();
    assert_eq!(server.ends(), [CloseReason::SlowClient]);
    assert_eq!(server.heard(greedy), ["close 1008"]);
    assert_eq!(server.cast(&packet), 1);
    assert_eq!(server.numbers(other), [0]);
}

#[test]
fn what_may_be_dropped_is_dropped_where_one_turn_brings_too_much() {
    let mut server = with(patient());
    let (conn, socket) = server.joined();
    for number in 0..25 {
        server.shard.borrow_mut().emit(socket, &numbered(number, Fate::DroppedOldest), false).unwrap();
    }
    server.turn();
    assert!(server.ends().is_empty());
    assert_eq!(server.numbers(conn), Vec::from_iter(12..25), "ten that fit, and what came after the last search");
}

#[test]
fn who_sends_a_close_frame_leaves_nothing_behind() {
    let mut server = with(patient());
    for taken in [0, 150, 194] {
        let (slow, socket) = server.joined();
        server.pipes.room.insert(slow, taken);
        (0..10).for_each(|_| _ = server.emit(socket, &format!("[{:091}]", 0), false).unwrap());
        server.send(slow, Opcode::Close, &[]);
        assert_eq!(server.shard.borrow().waiting_bytes(), 0);
        server.pipes.room.remove(&slow);
        server.shard.borrow_mut().on_writable(slow);
        server.turn();
        let heard = server.heard(slow);
        assert_eq!(heard.len(), usize::div_ceil(taken, 97) + 1, "a frame that has left in part is never cut");
        assert_eq!(heard.last().map(String::as_str), Some("close"));
    }
}

#[test]
fn a_search_waits_until_it_is_worth_it_and_the_limit_holds_meanwhile() {
    const MAX: usize = 50_000;
    for fate in [Fate::DroppedOldest, Fate::DroppedNewest] {
        let mut server = with(Settings { outbox_bytes_max: MAX, ..patient() });
        let (stalled, socket) = server.joined();
        server.stall(stalled);
        let (mut searches, mut before) = (0, 0);
        for number in 0..2_000 {
            // What must arrive is in front, and at first takes half of the room.
            let kept = number < 250 || number % 100 == 0;
            server.cast(&numbered(number, if kept { Fate::Kept } else { fate.clone() }));
            let counters = server.counters();
            let dropped = counters.dropped_oldest + counters.dropped_newest;
            searches += usize::from(dropped > before);
            before = dropped;
            let waiting = server.shard.borrow().backlog(socket).expect("it is not evicted").0;
            assert!(waiting <= MAX + MAX / EXCESS, "{waiting} bytes");
        }
        assert!(searches <= 40, "{searches} searches for {before} packets of {fate:?}");
    }
}
