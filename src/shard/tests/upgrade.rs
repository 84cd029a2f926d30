//! Upgrades: from polling to a stream, without a packet lost or overtaken.

use super::*;

#[test]
fn a_ping_frame_on_a_probing_stream_is_ignored() {
    let mut server = server();
    let (sid, _) = server.polling_joined();
    let conn = server.upgrade(sid);
    server.send(conn, Opcode::Ping, b"early");
    server.say(conn, "2probe");
    assert_eq!(server.heard(conn), ["3probe"]);
}

#[test]
fn what_is_emitted_during_an_upgrade_keeps_its_order() {
    let mut server = server();
    let (sid, socket) = server.polling_joined();
    let conn = server.upgrade(sid);
    server.say(conn, "2probe");
    assert_eq!(server.heard(conn), ["3probe"]);
    let poll = server.poll(sid);
    server.emit(socket, "[1]", false).unwrap();
    assert_eq!(server.answer(poll), "42[1]", "polling goes on until the client says 5");
    server.emit(socket, "[2]", false).unwrap();
    assert!(server.heard(conn).is_empty());
    server.say(conn, "5");
    server.emit(socket, "[3]", false).unwrap();
    assert_eq!(server.heard(conn), ["42[2]", "42[3]"]);
    let late = server.poll(sid);
    assert_eq!(server.answer(late), "BadRequest");
}

#[test]
fn a_poll_is_released_with_a_noop_while_its_session_upgrades() {
    let mut server = server();
    let (sid, _) = server.polling_joined();
    let poll = server.poll(sid);
    let conn = server.upgrade(sid);
    server.wait(200);
    assert_eq!(server.answer(poll), "waits", "nobody has probed yet");
    server.say(conn, "2probe");
    assert_eq!(server.answer(poll), "6");
    let poll = server.poll(sid);
    server.wait(100 + TICK_MS);
    assert_eq!(server.answer(poll), "6");
}

#[test]
fn the_answer_to_a_probe_precedes_the_first_packet_of_the_session() {
    let mut server = server();
    let (sid, socket) = server.polling_joined();
    server.emit(socket, "[1]", false).unwrap();
    let conn = server.upgrade(sid);
    let mut frames = Vec::new();
    websocket::put_frame(&mut frames, Opcode::Text, b"2probe", Some([0; 4]));
    websocket::put_frame(&mut frames, Opcode::Text, b"5", Some([0; 4]));
    server.receive(conn, frames);
    assert_eq!(server.heard(conn), ["3probe", "42[1]"]);
}

#[test]
fn an_upgrade_that_fails_leaves_the_polling_session_alone() {
    for how in ["4hello", "2", "never"] {
        let mut server = calm();
        let (sid, socket) = server.polling_joined();
        let conn = server.upgrade(sid);
        if how == "never" {
            server.wait(10_000 + TICK_MS)
        } else {
            server.say(conn, how)
        }
        assert_eq!(server.heard(conn), ["close"], "{how}");
        server.emit(socket, "[1]", false).unwrap();
        let poll = server.poll(sid);
        assert_eq!(server.answer(poll), "42[1]");
        assert!(server.ends().is_empty());
    }
}

#[test]
fn the_ping_of_before_an_upgrade_is_still_awaited_after_it() {
    let mut server = server();
    let (sid, _) = server.polling_joined();
    let poll = server.poll(sid);
    while !server.answers.contains_key(&poll) {
        server.wait(TICK_MS);
    }
    assert_eq!(server.answer(poll), "2");
    let conn = server.upgrade(sid);
    server.say(conn, "5");
    server.wait(TIMEOUT + TICK_MS);
    assert_eq!(server.ends(), [CloseReason::PingTimeout]);
}
