//! Targets: whom a broadcast reaches, in which order, what is counted, and what an emit says became of it.

use crate::support::client::{Client, clients_on_both_workers, connected_session};
use crate::support::http::{get, post};
use crate::support::{Running, block_on, settings, stats, wait_for_stats};
use crate::{ends_of, next, reached, with_sockets};
use fanfare::{Broadcast, CloseReason, EmitError, Emitted, Io, Socket};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::channel;

fn emit_to_all(sockets: &[Socket], event: &str, number: u32) {
    sockets.iter().for_each(|socket| _ = socket.emit(event, &number).expect("the server runs"));
}

#[test]
fn targets_reach_whom_they_name_and_nobody_twice() {
    let io = Io::with_settings(settings());
    let handle = io.clone();
    // Each client joins the rooms that it names, and has the server emit to a target that it names.
    io.of("/").on_event("join", |socket: Socket, rooms: Vec<String>| socket.join(&rooms).is_ok()).on_event(
        "emit",
        move |socket: Socket, target: String| {
            let target = match &*target {
                "io" => handle.of("/").everyone(),
                "io.to a" => handle.to("a"),
                "io.within a b" => handle.within(["a", "b"]),
                "io.except a" => handle.except("a"),
                "io.to a except b" => handle.to("a").except("b"),
                "io.local" => handle.local(),
                "io.volatile" => handle.volatile(),
                "broadcast" => socket.broadcast(),
                "socket.to a" => socket.to("a"),
                "socket.to a b" => socket.to("a").to(vec!["b".to_owned()]),
                "socket.within b" => socket.within("b"),
                "socket.except b" => socket.except("b"),
                "socket.local" => socket.local(),
                "socket.volatile" => socket.volatile().broadcast(),
                "socket.volatile.to a" => socket.volatile().to("a"),
                "own room" => handle.to(socket.id()),
                "nobody" => handle.to("empty"),
                unknown => unreachable!("{unknown}"),
            };
            drop(target.emit("hit", &()));
            drop(handle.emit("end", &()));
        },
    );
    let server = Running::io(&io);
    let mut clients = clients_on_both_workers(&server, "/", 2);
    // By place: 0 is in a, 1 in b, 2 in both, 3 in none, and so on.
    let rooms = |i: usize| ["[\"a\"]", "[\"b\"]", "[\"a\",\"b\"]", "[]"][i % 4];
    for (i, client) in clients.iter_mut().enumerate() {
        client.ask(&format!(r#"421["join",{}]"#, rooms(i)), "431[true]");
    }
    type Hit = fn(bool, bool, bool) -> bool;
    let cases: [(&str, Hit); 17] = [
        ("io", |_, _, _| true),
        ("io.to a", |_, a, _| a),
        ("io.within a b", |_, a, b| a || b),
        ("io.except a", |_, a, _| !a),
        ("io.to a except b", |_, a, b| a && !b),
        ("io.local", |_, _, _| true),
        ("io.volatile", |_, _, _| true),
        ("broadcast", |me, _, _| !me),
        ("socket.to a", |me, a, _| !me && a),
        ("socket.to a b", |me, a, b| !me && (a || b)),
        ("socket.within b", |me, _, b| !me && b),
        ("socket.except b", |me, _, b| !me && !b),
        ("socket.local", |me, _, _| !me),
        ("socket.volatile", |me, _, _| !me),
        ("socket.volatile.to a", |me, a, _| !me && a),
        ("own room", |me, _, _| me),
        ("nobody", |_, _, _| false),
    ];
    for (number, (target, hit)) in cases.into_iter().enumerate() {
        let sender = number % clients.len();
        clients[sender].send(&format!(r#"42["emit","{target}"]"#));
        for (i, client) in clients.iter_mut().enumerate() {
            let rooms = rooms(i);
            if hit(i == sender, rooms.contains('a'), rooms.contains('b')) {
                assert_eq!(client.text(), r#"42["hit"]"#, "{target}: client {i} of {rooms}, sender {sender}");
            }
            assert_eq!(client.text(), r#"42["end"]"#, "{target}: client {i} of {rooms}, sender {sender}");
        }
    }
}

#[test]
fn what_one_foreign_thread_emits_arrives_in_its_order() {
    const EMITS: u32 = 600;
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let mut clients = clients_on_both_workers(&server, "/", 2);
    let sockets: Vec<_> = clients.iter().map(|_| next(&sockets)).collect();
    sockets.iter().for_each(|socket| socket.join("room").expect("the server runs"));
    block_on(io.to("room").emit_and_count("begin", &()).expect("the server runs")).expect("a count");
    clients.iter_mut().for_each(|client| client.expect(r#"42["begin"]"#));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..EMITS {
                let emitted = match i % 3 {
                    0 => io.emit("n", &i),
                    1 => io.to("room").emit("n", &i),
                    _ => io.of("/").except("nobody").emit("n", &i),
                };
                emitted.expect("the server runs");
            }
        });
    });
    for client in &mut clients {
        (0..EMITS).for_each(|i| client.expect(&format!(r#"42["n",{i}]"#)));
    }
    // To many and to one, in turn.
    for i in 0..EMITS {
        match i % 2 {
            0 => drop(io.emit("s", &i).expect("the server runs")),
            _ => emit_to_all(&sockets, "s", i),
        }
    }
    for client in &mut clients {
        (0..EMITS).for_each(|i| client.expect(&format!(r#"42["s",{i}]"#)));
    }
}

#[test]
fn what_one_handler_emits_arrives_in_its_order_on_every_worker() {
    const EMITS: u32 = 300;
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let mut clients = clients_on_both_workers(&server, "/", 2);
    let sockets: Vec<_> = clients.iter().map(|_| next(&sockets)).collect();
    let handle = io.clone();
    io.of("/").on_event("go", move |_: Socket| {
        for i in 0..EMITS {
            match i % 2 {
                0 => drop(handle.emit("n", &i).expect("the server runs")),
                _ => emit_to_all(&sockets, "n", i),
            }
        }
    });
    clients[0].send(r#"42["go"]"#);
    for client in &mut clients {
        (0..EMITS).for_each(|i| client.expect(&format!(r#"42["n",{i}]"#)));
    }
}

#[test]
fn a_count_is_the_number_of_sockets_over_all_workers() {
    let io = Io::with_settings(settings());
    let handle = io.clone();
    io.of("/").on_event("count", move |socket: Socket| {
        let counts = [
            handle.emit_and_count("x", &()),
            socket.broadcast().emit_and_count("x", &()),
            handle.to(socket.id()).emit_and_count("x", &()),
            handle.to("nowhere").emit_and_count("x", &()),
        ];
        async move {
            let mut found = Vec::new();
            for count in counts {
                found.push(count.expect("the server runs").await.expect("a count").sockets);
            }
            found
        }
    });
    let (server, sockets) = with_sockets(&io);
    let clients = clients_on_both_workers(&server, "/", 2);
    let mut asker = Client::connect(server.address());
    let count = |target: Broadcast| reached(target.emit_and_count("y", &()));
    let everyone = clients.len() + 1;
    for _ in 0..4 {
        assert_eq!(count(io.of("/").everyone()), everyone, "whichever worker does the counting");
    }
    assert_eq!(reached(io.emit_and_count("y", &())), everyone);
    assert_eq!(count(io.of("/empty").everyone()), 0);
    let socket = next(&sockets);
    socket.join(["a", "b"]).expect("the server runs");
    assert_eq!(count(io.to(["a", "b"])), 1);
    assert_eq!(count(io.except("a")), everyone - 1);
    for _ in 0..5 {
        asker.expect(r#"42["y"]"#);
    }
    asker.expect(r#"42["y"]"#);
    asker.send(r#"421["count"]"#);
    asker.expect(r#"42["x"]"#);
    asker.expect(r#"42["x"]"#);
    asker.expect(&format!("431[[{everyone},{},1,0]]", everyone - 1));
}

#[test]
fn whoever_awaits_an_emit_waits_for_the_busiest_worker() {
    let io = Io::with_settings(settings());
    let ((is_busy, begun), (free, freed)) = (channel(), channel());
    let freed = Mutex::new(freed);
    io.of("/").on_event("be busy", move |_: Socket| {
        is_busy.send(()).expect("the test listens");
        next(&freed.lock().expect("only one is busy"))
    });
    let handle = io.clone();
    io.of("/").on_event("count", move |_: Socket| {
        let count = handle.emit_and_count("n", &());
        async move { count.expect("the server runs").await.expect("a count").sockets }
    });
    let handle = io.clone();
    io.of("/").on_event("wait", move |_: Socket| {
        let emitted = handle.emit("n", &());
        async move { emitted.expect("the server runs").await.is_ok() }
    });
    io.of("/").on_event("echo", |_: Socket, number: u32| number);
    let server = Running::io(&io);
    let mut clients = clients_on_both_workers(&server, "/", 2);
    let everyone = clients.len();
    let busy = clients.iter().position(|client| client.worker() == 1).expect("at least two are there");
    clients[busy].send(r#"42["be busy"]"#);
    next(&begun);
    let asker = clients.iter_mut().find(|client| client.worker() == 0).expect("at least two are there");
    for question in [r#"421["wait"]"#, r#"422["count"]"#] {
        asker.send(question);
        asker.expect(r#"42["n"]"#);
    }
    for number in 0..3 {
        asker.ask(&format!(r#"423["echo",{number}]"#), &format!("433[{number}]"));
    }
    free.send(()).expect("it waits");
    asker.expect("431[true]");
    asker.expect(&format!("432[{everyone}]"));
}

#[test]
fn a_volatile_packet_is_dropped_and_counted_if_its_client_has_no_poll_pending() {
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let target = connected_session(server.address());
    let socket = next(&sockets);
    socket.volatile().emit("lost", &1).expect("no error");
    let counts = block_on(io.volatile().emit_and_count("lost", &2).expect("no error")).expect("counts");
    assert_eq!((counts.sockets, counts.dropped), (0, 1));
    socket.emit("kept", &3).expect("the server runs");
    assert_eq!(get(server.address(), &target).body, r#"42["kept",3]"#);
    assert_eq!(stats(&io).volatile_dropped, 2);
}

#[test]
fn an_emit_says_what_became_of_it() {
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(server.address());
    let socket = next(&sockets);
    assert_eq!(socket.emit("posted", &0), Ok(Emitted::Posted), "its worker is another thread");
    client.expect(r#"42["posted",0]"#);

    let (tell, told) = channel();
    io.of("/").on_event("tell", move |socket: Socket| {
        let kept = socket.emit("kept", &1);
        socket.disconnect(false);
        tell.send((kept, socket.emit("late", &2))).expect("the test listens");
    });
    client.send(r#"42["tell"]"#);
    assert_eq!(next(&told), (Ok(Emitted::Queued), Err(EmitError::Closed)));
    client.expect(r#"42["kept",1]"#);
}

#[test]
fn a_socket_knows_on_its_own_thread_what_waits_for_its_client() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("fill", |socket: Socket| {
        socket.emit("filling", &"x".repeat(1000)).expect("it is there");
        assert_eq!(socket.volatile().emit("lost", &()), Ok(Emitted::Dropped), "no poll is pending");
    });
    io.of("/").on_event("backlog", |socket: Socket| socket.backlog().expect("its own thread").bytes);
    let (server, sockets) = with_sockets(&io);
    let target = connected_session(server.address());
    let say = |packet: &str| assert_eq!(post(server.address(), &target, packet).brief(), (200, "ok"));
    assert_eq!(next(&sockets).backlog(), None, "this is another thread");
    say(r#"420["backlog"]"#);
    assert_eq!(get(server.address(), &target).body, "430[0]");
    say(r#"42["fill"]"#);
    say(r#"421["backlog"]"#);
    let filling = format!(r#"42["filling","{}"]"#, "x".repeat(1000));
    // As a WebSocket frame: two bytes of header, and two for a length above 125.
    let bytes = filling.len() + 4;
    assert_eq!(get(server.address(), &target).body, format!("{filling}\u{1e}431[{bytes}]"));
}

#[test]
fn the_verbs_on_targets_act_on_every_worker() {
    let io = Io::with_settings(settings());
    let ends = ends_of(&io.of("/"));
    let (server, sockets) = with_sockets(&io);
    let mut clients = clients_on_both_workers(&server, "/", 2);
    let sockets: Vec<_> = clients.iter().map(|_| next(&sockets)).collect();
    let everyone = clients.len();
    let count = |room: &str| reached(io.to(room).emit_and_count("n", &()));
    io.of("/").everyone().sockets_join(["all", "both"]).expect("it runs");
    assert_eq!((count("all"), count("both")), (everyone, everyone));
    let first = sockets[0].id();
    io.except(first).sockets_leave("all").expect("it runs");
    assert_eq!((count("all"), count("both")), (1, everyone));
    io.to("all").sockets_leave(["all", "both"]).expect("it runs");
    assert_eq!((count("all"), count("both")), (0, everyone - 1));
    io.to("both").disconnect_sockets(false).expect("it runs");
    let stays = clients.iter().position(|client| client.id == first).expect("one of them");
    let stays = clients.remove(stays);
    for client in &mut clients {
        while client.text() != "41" {}
        client.join("/"); // the connection stays
        let (id, reason) = next(&ends);
        assert_eq!(reason, CloseReason::ServerNamespaceDisconnect);
        assert_ne!(id, first);
    }
    assert_eq!(reached(io.emit_and_count("m", &())), everyone);
    io.of("/").everyone().disconnect_sockets(true).expect("it runs");
    clients.push(stays);
    for client in &mut clients {
        while client.text() != "41" {}
        client.peer.expect_close();
    }
    wait_for_stats(&io, |stats| stats.sockets == 0 && stats.websocket == 0);
}

#[test]
fn an_event_that_cannot_be_encoded_is_the_callers_error() {
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(server.address());
    let socket = next(&sockets);
    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        assert!(matches!(socket.emit(name, &()), Err(EmitError::Encode(_))), "{name}");
        assert!(matches!(io.emit(name, &()), Err(EmitError::Encode(_))), "{name}");
    }
    let listed_keys: HashMap<Vec<u8>, u8> = HashMap::from([(vec![1], 1)]);
    assert!(matches!(socket.emit("map", &listed_keys), Err(EmitError::Encode(_))));
    socket.emit("error", &()).expect("not reserved");
    client.expect(r#"42["error"]"#);
}
