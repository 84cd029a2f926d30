//! Clients that say more than they may.

use super::*;

fn limited(events: usize, bytes: usize) -> Server {
    let settings = Settings {
        events_per_second_max: events,
        bytes_per_second_max: bytes,
        payload_bytes_max: 1_000,
        ..Settings::default()
    };
    with(settings)
}

#[test]
fn a_client_over_its_limit_of_events_is_closed_with_1008_and_heard_no_more() {
    let mut server = limited(EVENTS_MAX, 0);
    let (conn, _) = server.joined();
    (1..EVENTS_MAX).for_each(|_| server.say(conn, "42[\"in\"]"));
    assert!(server.ends().is_empty(), "a second's worth may come at once, CONNECT included");
    let mut frames = Vec::new();
    (0..3).for_each(|_| websocket::put_frame(&mut frames, Opcode::Text, b"42[\"over\"]", Some([0; 4])));
    server.receive(conn, frames);
    assert_eq!(server.ends(), [CloseReason::RateLimited]);
    assert_eq!(server.heard(conn), ["close 1008"]);
    assert!(!server.app.names.borrow().contains(&"over".into()));
    assert_eq!(server.shard.borrow().counters.rate_limited, 1);
    server.wait(FAREWELL_MS + TICK_MS);
    assert_eq!(server.endings, [Ending::FinishWriting(conn), Ending::Close(conn)]);
}

#[test]
fn a_client_that_stays_below_its_limits_is_never_closed_for_it() {
    // A masked frame of 9 bytes ten times a second, and one pong in between.
    let mut server = limited(EVENTS_MAX, 15 * EVENTS_MAX);
    let (conn, _) = server.joined();
    server.wait(1_000);
    for _ in 0..100 * EVENTS_MAX {
        server.say(conn, "42[1,2]");
        server.wait(1_000 / EVENTS_MAX as Millis);
        if server.heard(conn).contains(&"2".into()) {
            server.say(conn, "3");
        }
    }
    assert!(server.ends().is_empty());
    assert_eq!(server.shard.borrow().counters.rate_limited, 0);
}

#[test]
fn a_flood_of_control_frames_is_over_the_limit_of_bytes_and_of_pings_over_that_of_events() {
    for (opcode, mut server) in [(Opcode::Pong, limited(0, 100)), (Opcode::Ping, limited(EVENTS_MAX, 0))] {
        let (conn, _) = server.joined();
        let mut flood = Vec::new();
        (0..1_000).for_each(|_| websocket::put_frame(&mut flood, opcode, b"", Some([0; 4])));
        server.receive(conn, flood);
        assert_eq!(server.ends(), [CloseReason::RateLimited]);
        let heard = server.heard(conn);
        assert_eq!(heard.last().map(|it| &**it), Some("close 1008"));
        assert!(heard.len() <= EVENTS_MAX, "{} answers", heard.len());
    }
}

#[test]
fn one_message_as_large_as_any_may_come_however_few_bytes_a_second_are_allowed() {
    let mut server = limited(0, 1);
    let conn = server.websocket();
    let message = format!("40{{\"token\":\"{}\"}}", "x".repeat(1_000 - 14));
    assert_eq!(message.len(), 1_000);
    server.say(conn, &message);
    assert!(server.heard(conn)[0].starts_with("40{"));
    server.say(conn, "42[\"more\"]");
    assert_eq!(server.ends(), [CloseReason::RateLimited]);
}

#[test]
fn a_post_over_the_limit_is_refused_and_the_poll_that_waits_hears_the_end() {
    let mut server = limited(0, 1_000);
    let (sid, _) = server.polling_joined();
    let poll = server.poll(sid);
    let push = |server: &mut Server| server.push(sid, &format!("42[\"{}\"]", "x".repeat(600)));
    assert_eq!(push(&mut server), "Done");
    assert_eq!(push(&mut server), "RateLimited");
    assert_eq!(server.answer(poll), "1");
    assert_eq!(server.ends(), [CloseReason::RateLimited]);
    let late = server.poll(sid);
    assert_eq!(server.answer(late), "UnknownSid");
}

#[test]
fn events_count_the_same_in_a_post_as_in_frames() {
    let mut server = limited(EVENTS_MAX, 0);
    let (sid, _) = server.polling_joined();
    server.wait(1_000);
    let body = |events: usize| vec!["42[\"in\"]"; events].join("\x1e");
    assert_eq!(server.push(sid, &body(EVENTS_MAX)), "Done");
    assert!(server.ends().is_empty());
    assert_eq!(server.push(sid, &body(1)), "Done", "as after any other packet that ends the session");
    assert_eq!(server.ends(), [CloseReason::RateLimited]);
    assert_eq!(server.app.names.borrow().len(), EVENTS_MAX);
}

#[test]
fn the_attachments_of_an_event_are_a_part_of_it() {
    let mut server = limited(2, 0);
    let (conn, _) = server.joined();
    server.say(conn, "451-[\"event\",{\"_placeholder\":true,\"num\":0}]");
    server.send(conn, Opcode::Binary, b"attachment");
    assert_eq!(*server.app.names.borrow(), ["event"]);
    assert!(server.ends().is_empty());
}

#[test]
fn what_a_client_said_by_polling_still_counts_after_its_upgrade() {
    let mut server = limited(EVENTS_MAX, 0);
    let (sid, _) = server.polling_joined();
    (1..EVENTS_MAX).for_each(|_| assert_eq!(server.push(sid, "42[\"in\"]"), "Done"));
    let conn = server.upgrade(sid);
    server.say(conn, "5");
    server.say(conn, "42[\"over\"]");
    assert_eq!(server.ends(), [CloseReason::RateLimited]);
}
