//! What becomes of the handshakes of those who stay.

use super::super::compaction::{PEAK_MIN, TURN_SLOTS_MAX};
use super::*;
use std::ops::Range;

const CROWD: usize = PEAK_MIN * 10;

/// Clients with these numbers, each with a handshake of its own.
fn crowd(server: &mut Server, numbers: Range<usize>) -> Vec<Key<Conn>> {
    let shard = server.shard.get_mut();
    let open = |number| shard.open_websocket(handshake_of(number)).expect("there is room");
    let conns = numbers.map(open).collect();
    rest(server);
    conns
}

fn handshake_of(number: usize) -> Handshake {
    let host = format!("{number}.example");
    let headers = [("host", host.as_bytes())].into_iter();
    Handshake::new("/socket.io/", headers, ([127, 0, 0, 1], number as u16).into(), number as u64)
}

fn hang_up(server: &mut Server, conns: &[Key<Conn>]) {
    conns.iter().for_each(|&conn| server.shard.get_mut().on_hangup(conn, false));
    drive::hear_out(&server.shard, &server.app);
}

/// Turns until nothing is left to do.
fn rest(server: &mut Server) {
    server.turn();
    while server.shard.borrow().has_work() {
        server.turn();
    }
}

/// Each session's handshake, by its number, and where it is.
fn handshakes(server: &Server) -> BTreeMap<u64, (Handshake, usize)> {
    let shard = server.shard.borrow();
    let of = |session: &Session| {
        let handshake = &session.handshake;
        (handshake.issued_ms(), (handshake.copy(), handshake.allocation().0))
    };
    shard.sessions.iter().map(|(_, session)| of(session)).collect()
}

/// The numbers of those that are elsewhere now.
fn moved(server: &Server, before: &BTreeMap<u64, (Handshake, usize)>) -> Vec<u64> {
    let is_elsewhere = |(number, (_, at)): &(u64, (Handshake, usize))| before.get(number).is_some_and(|it| it.1 != *at);
    handshakes(server).into_iter().filter(is_elsewhere).map(|(number, _)| number).collect()
}

#[test]
fn handshakes_move_when_most_have_left_but_those_that_handles_hold_stay() {
    let mut server = server();
    let conns = crowd(&mut server, 0..CROWD);
    let shared = |number: u64| number.is_multiple_of(20);
    let handles: Vec<Handshake> = {
        let shard = server.shard.borrow();
        let handshakes = shard.sessions.iter().map(|(_, session)| &session.handshake);
        handshakes.filter(|handshake| shared(handshake.issued_ms())).cloned().collect()
    };
    let (stay, go): (Vec<_>, Vec<_>) = (0..CROWD).partition(|number| number.is_multiple_of(10));
    let before = handshakes(&server);
    hang_up(&mut server, &go.iter().map(|&number| conns[number]).collect::<Vec<_>>());

    // The pass begins with the burial, and goes on from turn to turn with nothing else to do.
    let mut turns = 0;
    loop {
        server.shard.get_mut().bury();
        turns += 1;
        if !server.shard.borrow().has_work() {
            break;
        }
    }
    assert_eq!(turns, server.shard.borrow().sessions.slots().div_ceil(TURN_SLOTS_MAX as usize));
    let after = handshakes(&server);
    assert_eq!(after.keys().map(|&number| number as usize).collect::<Vec<_>>(), stay);
    let expected: Vec<_> = after.keys().copied().filter(|&number| !shared(number)).collect();
    assert_eq!(moved(&server, &before), expected);
    for (&number, (handshake, at)) in &after {
        let told = handshake_of(number as usize);
        assert_eq!((handshake.address(), handshake.url()), (told.address(), told.url()));
        assert!(handshake.headers().eq(told.headers()));
        let handle = handles.iter().find(|handle| handle.issued_ms() == number);
        assert_eq!(handle.map(|handle| handle.allocation().0), shared(number).then_some(*at));
    }
}

#[test]
fn handshakes_stay_when_half_stay_or_when_there_were_few() {
    for (clients, leave) in [(CROWD, CROWD / 2), (PEAK_MIN - 1, PEAK_MIN - 2)] {
        let mut server = server();
        let conns = crowd(&mut server, 0..clients);
        let before = handshakes(&server);
        hang_up(&mut server, &conns[..leave]);
        rest(&mut server);
        assert_eq!(handshakes(&server).len(), clients - leave);
        assert!(moved(&server, &before).is_empty());
    }
}

#[test]
fn who_comes_during_a_pass_does_not_disturb_it_and_the_next_one_needs_another_half_to_leave() {
    let mut server = server();
    let conns = crowd(&mut server, 0..CROWD);
    let before = handshakes(&server);
    hang_up(&mut server, &conns[PEAK_MIN..]);
    server.shard.get_mut().bury();
    assert!(server.shard.borrow().has_work());
    crowd(&mut server, CROWD..CROWD + 2);
    assert_eq!(moved(&server, &before), (0..PEAK_MIN as u64).collect::<Vec<_>>());

    let before = handshakes(&server);
    assert_eq!(before.len(), PEAK_MIN + 2);
    hang_up(&mut server, &conns[..PEAK_MIN / 4]);
    rest(&mut server);
    assert!(moved(&server, &before).is_empty(), "fewer than half have left since");
    hang_up(&mut server, &conns[PEAK_MIN / 4..PEAK_MIN * 3 / 4]);
    rest(&mut server);
    assert!(!moved(&server, &before).is_empty());
}

#[test]
fn a_server_that_drains_moves_nothing() {
    let mut server = server();
    let conns = crowd(&mut server, 0..CROWD);
    let before = handshakes(&server);
    server.shard.get_mut().drain(60_000);
    hang_up(&mut server, &conns[PEAK_MIN..]);
    server.shard.get_mut().bury();
    assert!(!server.shard.borrow().has_work());
    assert!(moved(&server, &before).is_empty());
}
