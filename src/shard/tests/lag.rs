//! What is fanned out and not written yet: how it holds back those who count.

use super::*;

/// What the shard has reported of counted broadcasts.
fn counted(server: &Server) -> Vec<u64> {
    let mut tokens = Vec::new();
    while let Some(event) = server.shard.borrow_mut().next_event() {
        match event {
            Event::Counted { token, .. } => tokens.push(token),
            other => panic!("nothing else happens: {other:?}"),
        }
    }
    tokens
}

#[test]
fn whoever_awaits_each_count_goes_at_the_pace_of_the_writes() {
    const LAG_MAX: usize = 1_000;
    let mut server = with(Settings { lag_bytes_max: LAG_MAX, ..Settings::default() });
    let clients = crowd(&mut server);
    let packet = event("[\"wide\"]");
    let (mut emitted, mut turns, mut furthest) = (0, 0, 0);
    while emitted < 50 {
        // To mark the place behind a broadcast is as good as to count it.
        let count = (emitted % 2 == 0).then_some(emitted);
        server.shard.borrow_mut().broadcast(&Arc::new(everyone()), &packet, count);
        if count.is_none() {
            server.shard.borrow_mut().mark(emitted);
        }
        emitted += 1;
        // The next one is not emitted before this one has been counted.
        while counted(&server).is_empty() {
            turns += 1;
            let mut shard = server.shard.borrow_mut();
            shard.write(&mut server.pipes, 8);
            shard.bury();
            shard.invariants();
            furthest = furthest.max(shard.census().lag_bytes);
        }
    }
    let one = packet.websocket().len() + 256;
    assert!(furthest <= LAG_MAX + one, "{furthest} bytes");
    // So many are let in before the writes have gone round once, and then as many again.
    let in_one_round = LAG_MAX / one + 1;
    let (rounds, round) = (50 / in_one_round - 1, clients.len() / 8);
    assert!(turns >= rounds * round, "{turns} turns");
    let counters = server.shard.borrow().counters;
    assert!(counters.counts_held > 0 && counters.evicted == 0);
    server.turn();
    while server.shard.borrow().has_work() {
        server.turn();
    }
    assert!(clients.iter().all(|(conn, _)| server.heard(*conn).len() == 50), "nothing is dropped for it");
    assert_eq!(server.shard.borrow().census().lag_bytes, 0);
}

#[test]
fn a_client_that_does_not_read_holds_no_count_back() {
    let mut server = with(Settings { lag_bytes_max: 1, ..Settings::default() });
    let clients = crowd(&mut server);
    for (conn, _) in &clients[..8] {
        server.pipes.room.insert(*conn, 0);
    }
    for token in 0..20 {
        server.shard.borrow_mut().broadcast(&Arc::new(everyone()), &event("[\"wide\"]"), Some(token));
        assert!(counted(&server).is_empty(), "it waits for the writes");
        let mut shard = server.shard.borrow_mut();
        shard.write(&mut server.pipes, usize::MAX);
        shard.bury();
        drop(shard);
        assert_eq!(counted(&server), [token]);
    }
    assert!(server.shard.borrow().backlog(clients[0].1).is_some_and(|(bytes, _)| bytes > 0));
}

#[test]
fn a_shard_that_lags_holds_back_what_another_one_counts() {
    let mut server = with(Settings { lag_bytes_max: 1, ..Settings::default() });
    let (conn, _) = server.joined();
    let (target, packet) = (Arc::new(everyone()), event("[1]"));
    let mut shard = server.shard.borrow_mut();
    for token in 0..2 {
        let count = Some(Count { shard: 9, token });
        shard.on_mail(Mail::Broadcast { target: Arc::clone(&target), packet: Arc::clone(&packet), count });
    }
    assert!(shard.take_mail().is_empty());
    shard.write(&mut server.pipes, 100);
    shard.bury();
    let mail = shard.take_mail();
    let tokens = mail.iter().map(|mail| match mail {
        (9, Mail::Counted { token, counts }) if counts.sockets == 1 => *token,
        other => panic!("{other:?} is no count"),
    });
    assert_eq!(tokens.collect::<Vec<_>>(), [0, 1]);
    // Nobody is to be written to for a broadcast that nobody is to get.
    let target = Arc::new(Target { rooms: vec!["empty".into()], ..everyone() });
    shard.on_mail(Mail::Broadcast { target, packet, count: Some(Count { shard: 9, token: 2 }) });
    assert_eq!(shard.take_mail().len(), 1);
    drop(shard);
    assert_eq!(server.heard(conn).len(), 2);
}

#[test]
fn large_events_that_leave_one_at_a_time_are_behind_until_the_last_of_them() {
    const LAG_MAX: usize = 50_000;
    for bytes in [700, 2_000] {
        let mut server = with(Settings { lag_bytes_max: LAG_MAX, ..Settings::default() });
        let clients = crowd(&mut server);
        let packet = event(&format!("[\"{}\"]", "x".repeat(bytes)));
        let mut worst = 0;
        for token in 0..1_000 {
            server.shard.borrow_mut().broadcast(&Arc::new(everyone()), &packet, Some(token));
            while counted(&server).is_empty() {
                let mut shard = server.shard.borrow_mut();
                shard.write(&mut server.pipes, 8);
                shard.bury();
                server.pipes.bytes.clear();
                worst = clients
                    .iter()
                    .filter_map(|&(_, socket)| shard.backlog(socket))
                    .fold(worst, |most, it| most.max(it.0));
            }
        }
        assert!(worst <= 2 * LAG_MAX, "{worst} bytes wait for who reads everything, of events of {bytes}");
        clients.iter().for_each(|(conn, _)| _ = server.pipes.room.insert(*conn, 0));
        server.turn();
        assert_eq!(server.shard.borrow().counters.evicted, 0, "nobody is slow");
    }
}
