//! What an embedder is promised of rooms under rules: keys, windows and retained events, seen from bare WebSockets on two
//! workers. Exact times are the shard's tests' affair (`src/shard/tests/feeds.rs`); here windows are long and are ended by
//! what must not overtake.

mod support;

use fanfare::proto::Id;
use fanfare::{Feed, Io, Policy, Settings, Socket};
use std::time::Duration;
use support::websocket::Peer;
use support::{Running, block_on, settings};

const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// Rooms that begin with `ticker:` conflate and retain, `hall` holds for a minute, and the namespace `/board` retains.
fn rules() -> Settings {
    let minute = Some(Duration::from_secs(60));
    let room = |name: &str, conflate_every, retain| Feed {
        room: Some(name.into()),
        policy: Policy::Conflate,
        conflate_every,
        retain,
        ..Feed::default()
    };
    let board = Feed { namespace: "/board".into(), retain: true, ..Feed::default() };
    Settings { feeds: vec![room("ticker:*", None, true), room("hall", minute, false), board], ..settings() }
}

fn server() -> (Io, Running) {
    let io = Io::with_settings(rules());
    io.of("/").on_event("join", |socket: Socket, room: String| socket.join(room).is_ok());
    io.of("/board");
    let server = Running::io(&io);
    (io, server)
}

/// A client in a namespace, and the worker that it lives on.
fn client(server: &Running, namespace: &str) -> (Peer, u16) {
    let mut peer = Peer::open(server.address(), WEBSOCKET, &[]);
    let open = peer.text();
    let sid = open.strip_prefix(r#"0{"sid":""#).and_then(|rest| rest.get(..20)).expect("an open packet");
    peer.send(&format!("40{namespace}"));
    assert!(peer.text().starts_with("40"), "it is let in");
    (peer, Id::parse(sid).expect("one of ours").shard())
}

/// A client on each of the two workers.
fn clients(server: &Running, namespace: &str) -> [Peer; 2] {
    let (first, one) = client(server, namespace);
    for _ in 0..100 {
        let (second, other) = client(server, namespace);
        if one != other {
            return [first, second];
        }
    }
    panic!("a hundred connections, and one worker got none of them");
}

fn join(peer: &mut Peer, room: &str) {
    peer.send(&format!(r#"42["join","{room}"]"#));
}

/// Waits until both workers have done all that this thread has asked for.
fn settle(io: &Io) {
    let count = io.to("nowhere").emit_and_count("settled", &()).unwrap();
    assert_eq!(block_on(count).expect("it runs").sockets, 0);
}

#[test]
fn who_joins_gets_the_newest_of_each_key_on_every_worker() {
    let (io, server) = server();
    for (key, price) in [("ACME", 1), ("INIT", 2), ("ACME", 3)] {
        io.to("ticker:tech").conflate(key).emit("price", &(key, price)).unwrap();
    }
    io.to("ticker:tech").emit("open", &()).unwrap(); // its key is its name
    io.to("ticker:tech").emit("close", &()).unwrap();
    io.to("ticker:tech").emit("open", &("again",)).unwrap();
    settle(&io);
    let retained = [r#"42["price","INIT",2]"#, r#"42["price","ACME",3]"#, r#"42["close"]"#, r#"42["open","again"]"#];
    for mut peer in clients(&server, "") {
        join(&mut peer, "ticker:tech");
        retained.iter().for_each(|packet| assert_eq!(peer.text(), *packet));
        join(&mut peer, "ticker:tech");
        io.to("ticker:tech").emit("live", &()).unwrap();
        assert_eq!(peer.text(), r#"42["live"]"#, "and nothing twice");
        io.to("ticker:tech").conflate("live").forget_retained().unwrap();
        settle(&io);
    }
    let stats = block_on(io.stats()).expect("it runs");
    assert_eq!((stats.retained, stats.caught_up), (8, 8), "four keys on each worker, and four for each client");
    assert_eq!((stats.retained_forgotten, stats.conflated_in_windows), (0, 0), "nobody had to give up anything");
}

#[test]
fn what_a_room_retains_can_be_forgotten() {
    let (io, server) = server();
    for room in ["ticker:a", "ticker:b"] {
        for key in ["x", "y"] {
            io.to(room).conflate(key).emit("price", &(room, key)).unwrap();
        }
    }
    io.to("ticker:a").forget_retained().unwrap();
    io.to("ticker:b").conflate("x").forget_retained().unwrap();
    settle(&io);
    for mut peer in clients(&server, "") {
        join(&mut peer, "ticker:a");
        join(&mut peer, "ticker:b");
        assert_eq!(peer.text(), r#"42["price","ticker:b","y"]"#);
    }
}

#[test]
fn what_a_namespace_retains_comes_behind_the_answer_to_connect() {
    let (io, server) = server();
    io.of("/board").emit("motd", &1).unwrap();
    io.of("/board").emit("motd", &2).unwrap();
    io.of("/board").to("room").emit("motd", &3).unwrap();
    settle(&io);
    let mut peers = clients(&server, "/board,");
    io.of("/board").emit("live", &()).unwrap();
    for peer in &mut peers {
        assert_eq!(peer.text(), r#"42/board,["motd",2]"#);
        assert_eq!(peer.text(), r#"42/board,["live"]"#);
    }
    io.of("/board").everyone().forget_retained().unwrap();
    settle(&io);
    assert_eq!(block_on(io.stats()).expect("it runs").retained, 2, "the room's, on each worker");
}

#[test]
fn a_window_holds_the_newest_of_each_key_and_nothing_overtakes_it() {
    let (io, server) = server();
    let mut peers = clients(&server, "");
    for peer in &mut peers {
        peer.send(r#"421["join","hall"]"#);
        assert_eq!(peer.text(), "431[true]");
    }
    io.to("hall").emit("score", &0).unwrap(); // leaves at once
    for score in 1..=3 {
        io.to("hall").emit("score", &score).unwrap();
        let count = io.to("hall").conflate("clock").emit_and_count("clock", &score).unwrap();
        assert_eq!(block_on(count).expect("it runs").sockets, 2, "who is in the room is counted, though it is held");
    }
    io.to("elsewhere").emit("score", &9).unwrap();
    io.emit("break", &()).unwrap(); // is for everyone, so what is held goes first
    for peer in &mut peers {
        for packet in [r#"42["score",0]"#, r#"42["score",3]"#, r#"42["clock",3]"#, r#"42["break"]"#] {
            assert_eq!(peer.text(), packet);
        }
    }
    let stats = block_on(io.stats()).expect("it runs");
    assert_eq!((stats.conflated_in_windows, stats.windows_full), (8, 0), "four replaced, on each of two workers");
}

#[test]
fn a_socket_can_be_told_with_a_key_too() {
    let io = Io::with_settings(rules());
    io.on_connection(|socket: Socket| {
        socket.conflate("me").emit("first", &1).unwrap();
        socket.conflate("me").emit("second", &2).unwrap();
    });
    let server = Running::io(&io);
    let (mut peer, _) = client(&server, "");
    assert_eq!((peer.text(), peer.text()), (r#"42["first",1]"#.into(), r#"42["second",2]"#.into()), "it is not behind");
}
