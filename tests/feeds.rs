//! What an embedder is promised of rooms under rules: keys, windows and retained events, seen from bare WebSockets on two
//! workers. Exact times are the shard's tests' affair (`src/shard/tests/feeds.rs`); here windows are long and are ended by
//! what must not overtake.

mod support;

use fanfare::{Feed, Io, Policy, Settings, Socket};
use std::time::Duration;
use support::client::Client;
use support::{Running, block_on, settings, stats};

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

/// A client on each of the two workers.
fn clients(server: &Running, namespace: &str) -> [Client; 2] {
    let first = Client::connect_to(server.address(), namespace);
    let others = std::iter::repeat_with(|| Client::connect_to(server.address(), namespace));
    let second = others.take(100).find(|other| other.worker() != first.worker());
    [first, second.expect("both workers get some of a hundred connections")]
}

fn join(client: &mut Client, room: &str) {
    client.send(&format!(r#"42["join","{room}"]"#));
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
    for mut client in clients(&server, "/") {
        join(&mut client, "ticker:tech");
        retained.iter().for_each(|packet| assert_eq!(client.text(), *packet));
        join(&mut client, "ticker:tech");
        io.to("ticker:tech").emit("live", &()).unwrap();
        assert_eq!(client.text(), r#"42["live"]"#, "and nothing twice");
        io.to("ticker:tech").conflate("live").forget_retained().unwrap();
        settle(&io);
    }
    let stats = stats(&io);
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
    for mut client in clients(&server, "/") {
        join(&mut client, "ticker:a");
        join(&mut client, "ticker:b");
        assert_eq!(client.text(), r#"42["price","ticker:b","y"]"#);
    }
}

#[test]
fn what_a_namespace_retains_comes_behind_the_answer_to_connect() {
    let (io, server) = server();
    io.of("/board").emit("motd", &1).unwrap();
    io.of("/board").emit("motd", &2).unwrap();
    io.of("/board").to("room").emit("motd", &3).unwrap();
    settle(&io);
    let mut clients = clients(&server, "/board");
    io.of("/board").emit("live", &()).unwrap();
    for client in &mut clients {
        assert_eq!(client.text(), r#"42/board,["motd",2]"#);
        assert_eq!(client.text(), r#"42/board,["live"]"#);
    }
    io.of("/board").everyone().forget_retained().unwrap();
    settle(&io);
    assert_eq!(stats(&io).retained, 2, "the room's, on each worker");
}

#[test]
fn a_window_holds_the_newest_of_each_key_and_nothing_overtakes_it() {
    let (io, server) = server();
    let mut clients = clients(&server, "/");
    for client in &mut clients {
        client.send(r#"421["join","hall"]"#);
        assert_eq!(client.text(), "431[true]");
    }
    io.to("hall").emit("score", &0).unwrap(); // leaves at once
    for score in 1..=3 {
        io.to("hall").emit("score", &score).unwrap();
        let count = io.to("hall").conflate("clock").emit_and_count("clock", &score).unwrap();
        assert_eq!(block_on(count).expect("it runs").sockets, 2, "who is in the room is counted, though it is held");
    }
    io.to("elsewhere").emit("score", &9).unwrap();
    io.emit("break", &()).unwrap(); // is for everyone, so what is held goes first
    for client in &mut clients {
        for packet in [r#"42["score",0]"#, r#"42["score",3]"#, r#"42["clock",3]"#, r#"42["break"]"#] {
            assert_eq!(client.text(), packet);
        }
    }
    let stats = stats(&io);
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
    let mut client = Client::connect(server.address());
    assert_eq!(
        (client.text(), client.text()),
        (r#"42["first",1]"#.into(), r#"42["second",2]"#.into()),
        "it is not behind"
    );
}
