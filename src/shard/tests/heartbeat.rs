//! Heartbeats: when a ping goes out, how long its pong is waited for, and what a client's own ping gets.

use super::*;

#[test]
fn a_ping_goes_out_within_the_interval_and_the_next_one_that_long_after_the_pong() {
    let mut server = server();
    let (conn, _) = server.joined();
    server.pinged(conn);
    server.wait(10_000);
    server.say(conn, "3");
    server.wait(INTERVAL - 1);
    assert!(server.heard(conn).is_empty(), "counted from the pong, not from the ping");
    server.wait(TICK_MS);
    assert_eq!(server.heard(conn), ["2"]);
}

#[test]
fn without_the_spread_the_first_ping_goes_out_after_the_interval() {
    let mut server = calm();
    let (conn, _) = server.joined();
    server.wait(INTERVAL - 1);
    assert!(server.heard(conn).is_empty());
    server.wait(TICK_MS);
    assert_eq!(server.heard(conn), ["2"]);
}

#[test]
fn a_pong_while_resting_restarts_the_interval() {
    let mut server = server();
    let (conn, _) = server.joined();
    server.pinged(conn);
    server.say(conn, "3");
    server.wait(INTERVAL - 5_000);
    server.say(conn, "3");
    server.wait(INTERVAL - 1);
    assert!(server.heard(conn).is_empty());
    server.wait(TICK_MS);
    assert_eq!(server.heard(conn), ["2"]);
}

#[test]
fn the_first_other_packet_extends_the_pong_deadline_once() {
    let mut server = server();
    let (conn, _) = server.joined();
    server.pinged(conn);
    server.wait(TIMEOUT - 100);
    server.say(conn, "42[\"alive\"]");
    server.wait(TIMEOUT - 100);
    server.say(conn, "42[\"still\"]");
    assert!(server.ends().is_empty());
    server.wait(100 + TICK_MS);
    assert_eq!(server.ends(), [CloseReason::PingTimeout]);
    assert_eq!(server.heard(conn), ["close"]);
}

#[test]
fn clients_that_come_together_are_not_pinged_together() {
    const CLIENTS: usize = 1_000;
    const SLICES: usize = 25;
    let pings_by_slice = |seed: [u8; 32]| {
        let mut server = server();
        *server.shard.borrow_mut() = Shard::new(0, 1, Arc::new(Settings::default()), Carries::SocketIo, seed);
        let conns: Vec<_> = (0..CLIENTS).map(|_| server.joined().0).collect();
        let mut slices = [0; SLICES];
        for slice in &mut slices {
            server.wait(INTERVAL / SLICES as Millis);
            *slice = conns.iter().filter(|&&conn| server.heard(conn).contains(&"2".into())).count();
        }
        slices
    };
    let slices = pings_by_slice([7; 32]);
    assert_eq!(slices.iter().sum::<usize>(), CLIENTS, "everyone is pinged within the interval");
    // With 40 on average, a slice of twice as many is six standard deviations away.
    assert!(slices.iter().all(|&pings| pings < 2 * CLIENTS / SLICES), "{slices:?}");
    assert_eq!(slices, pings_by_slice([7; 32]), "by the seed");
    assert_ne!(slices, pings_by_slice([8; 32]));
}

#[test]
fn a_client_that_waits_as_long_as_it_was_told_is_pinged_in_time() {
    // It gives up when ping_interval + ping_timeout have passed since the last ping, or since the open packet.
    let mut server = server();
    let conns: Vec<_> = (0..50).map(|_| server.joined().0).collect();
    let mut patience: HashMap<_, _> = conns.iter().map(|&conn| (conn, INTERVAL + TIMEOUT)).collect();
    while server.now < 4 * INTERVAL {
        server.wait(100);
        for &conn in &conns {
            if server.heard(conn).contains(&"2".into()) {
                server.say(conn, "3");
                patience.insert(conn, server.now + INTERVAL + TIMEOUT);
            }
            assert!(server.now < patience[&conn]);
        }
    }
    assert!(server.ends().is_empty());
}

#[test]
fn a_ping_frame_is_answered() {
    let mut server = server();
    let (conn, _) = server.joined();
    server.send(conn, Opcode::Ping, b"there?");
    assert_eq!(server.heard(conn), ["pong there?"]);
}
