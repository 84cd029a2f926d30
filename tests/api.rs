//! What an embedder is promised: handlers, arguments, answers, middlewares, targets, counts, and how everything ends.
//!
//! The peer is a bare WebSocket, so that what arrives, and in which order, is seen packet by packet.

mod support;

use fanfare::engine::{Conn, Engine, Message};
use fanfare::proto::Id;
use fanfare::{
    Ack, AckError, Args, Broadcast, CloseReason, ConnectError, Cors, CountFuture, EmitError, Emitted, Io, JoinError,
    Namespace, Origins, Server, Settings, Socket, StartError, Stats, Transports,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::http::{Connection, WAIT_MAX, get, post};
use support::websocket::{BINARY, CLOSE, Peer, TEXT};
use support::{Running, block_on, settings};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// A client with a session of its own.
struct Client {
    peer: Peer,
    sid: String,
    /// Of its socket in the namespace that it joined last.
    id: String,
}

impl Client {
    /// A session that has joined nothing.
    fn open(server: &Running) -> Client {
        Client::open_at(server, WEBSOCKET, &[])
    }

    fn open_at(server: &Running, target: &str, headers: &[(&str, &str)]) -> Client {
        let mut peer = Peer::open(server.address(), target, headers);
        let packet = peer.text();
        let sid = packet.strip_prefix(r#"0{"sid":""#).and_then(|rest| rest.get(..20)).expect("an open packet");
        Client { sid: sid.to_owned(), peer, id: String::new() }
    }

    /// A session whose client is in the main namespace.
    fn connect(server: &Running) -> Client {
        let mut client = Client::open(server);
        client.join("/");
        client
    }

    /// Joins a namespace, and expects to be let in at once.
    fn join(&mut self, namespace: &str) {
        let place = place(namespace);
        self.send(&format!("40{place}"));
        let answer = self.text();
        let id = answer.strip_prefix(&format!(r#"40{place}{{"sid":""#)).and_then(|rest| rest.strip_suffix(r#""}"#));
        self.id = id.unwrap_or_else(|| panic!("not let in: {answer}")).to_owned();
    }

    fn send(&mut self, packet: &str) {
        self.peer.send(packet);
    }

    fn text(&mut self) -> String {
        self.peer.text()
    }

    fn expect(&mut self, packet: &str) {
        assert_eq!(self.text(), packet);
    }

    /// Says something and expects one answer.
    fn ask(&mut self, packet: &str, answer: &str) {
        self.send(packet);
        self.expect(answer);
    }

    /// The worker that it lives on.
    fn worker(&self) -> usize {
        usize::from(Id::parse(&self.sid).expect("one of ours").shard())
    }
}

/// How packets name a namespace.
fn place(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

/// Clients in the main namespace, on each of the two workers at least two.
fn clients_on_both_workers(server: &Running) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::connect(server));
        let on_first = clients.iter().filter(|client| client.worker() == 0).count();
        if on_first >= 2 && clients.len() - on_first >= 2 {
            return clients;
        }
    }
    panic!("a hundred connections, and one worker got none of them");
}

fn emit_to_all(sockets: &[Socket], event: &str, number: u32) {
    sockets.iter().for_each(|socket| _ = socket.emit(event, &number).expect("the server runs"));
}

/// How many sockets a broadcast was queued for.
fn reached(count: Result<CountFuture, EmitError>) -> usize {
    block_on(count.expect("the server runs")).expect("a count").sockets
}

fn stats(io: &Io) -> Stats {
    block_on(io.stats()).expect("the server runs")
}

/// Waits until the counters are as they shall be.
fn wait_for_stats(io: &Io, what: impl Fn(&Stats) -> bool) -> Stats {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let stats = stats(io);
        if what(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "still {stats:?}");
    }
}

fn next<T>(events: &Receiver<T>) -> T {
    events.recv_timeout(WAIT_MAX).expect("it happens within 5 s")
}

/// A server, and the sockets that have connected to its main namespace.
fn with_sockets(io: &Io) -> (Running, Receiver<Socket>) {
    let (sender, sockets) = channel();
    io.on_connection(move |socket: Socket| drop(sender.send(socket)));
    (Running::io(io), sockets)
}

/// How the sockets of a namespace end, with their ids.
fn ends_of(namespace: &Namespace) -> Receiver<(String, CloseReason)> {
    let (sender, ends) = channel();
    namespace.on_disconnect(move |socket: Socket, reason| drop(sender.send((socket.id().to_owned(), reason))));
    ends
}

/// A panic that prints nothing.
fn fail() {
    std::panic::resume_unwind(Box::new("a handler that fails"));
}

#[test]
fn handles_go_anywhere() {
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    anywhere::<Io>();
    anywhere::<Socket>();
    anywhere::<Namespace>();
    anywhere::<Broadcast>();
    anywhere::<Conn>();
    anywhere::<Engine>();
    fn travels<T: Send + Sync + 'static>() {}
    travels::<Server>();
    travels::<Ack>();
}

// ---- handlers, arguments, answers

#[derive(Deserialize, Serialize)]
struct Goal {
    player: String,
    minute: u32,
}

#[test]
fn handlers_take_typed_arguments_and_answer_with_what_they_return() {
    let io = Io::with_settings(settings());
    io.of("/")
        .on_event("nothing", |_: Socket| {})
        .on_event("sum", |_: Socket, (a, b): (i64, i64)| a + b)
        .on_event("sum-async", async |_: Socket, (a, b): (i64, i64)| {
            tokio::task::yield_now().await;
            a + b
        })
        .on_event("async-at-once", async |_: Socket| "now")
        .on_event("pair", |_: Socket, text: String| (text.len(), text))
        .on_event("list", |_: Socket, list: Vec<i64>| list.into_iter().rev().collect::<Vec<_>>())
        .on_event("object", |_: Socket, goal: Goal| Goal { minute: goal.minute + 1, ..goal })
        .on_event("optional", |_: Socket, (a, b): (u8, Option<u8>)| (a, b))
        .on_event("all", |_: Socket, all: Args| all)
        .on_event("rest", |_: Socket, (_, rest): (String, Args)| rest)
        .on_event("later", |_: Socket, text: String, ack: Ack| {
            assert!(ack.is_wanted());
            std::thread::spawn(move || ack.send(&text));
        })
        .on_event("later-async", async |_: Socket, ack: Ack| {
            tokio::task::yield_now().await;
            drop(ack.send(&("late", 1)));
        })
        .on_event("never", |_: Socket, ack: Ack| drop(ack));
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    let cases = [
        (r#"421["nothing"]"#, "431[]"),
        (r#"422["nothing","more","than","asked"]"#, "432[]"),
        (r#"423["sum",1,2]"#, "433[3]"),
        (r#"424["sum",1,2,"and more"]"#, "434[3]"),
        (r#"425["sum-async",3,4]"#, "435[7]"),
        (r#"426["async-at-once"]"#, r#"436["now"]"#),
        (r#"427["pair","äö"]"#, r#"437[4,"äö"]"#),
        (r#"428["list",[1,2,3]]"#, "438[[3,2,1]]"),
        (r#"429["object",{"minute":17,"player":"Ada"}]"#, r#"439[{"player":"Ada","minute":18}]"#),
        (r#"4210["optional",1]"#, "4310[1,null]"),
        (r#"4211["optional",1,null]"#, "4311[1,null]"),
        (r#"4212["optional",1,2]"#, "4312[1,2]"),
        (r#"4213["all",{"b":2,  "a":1},null]"#, r#"4313[{"b":2,  "a":1},null]"#),
        (r#"4214["rest","first",2,3]"#, "4314[2,3]"),
        (r#"4215["later","from another thread"]"#, r#"4315["from another thread"]"#),
        (r#"4216["later-async"]"#, r#"4316["late",1]"#),
    ];
    for (event, answer) in cases {
        client.ask(event, answer);
    }
    // Not asked for, nothing is sent; dropped, an answer is never sent.
    client.send(r#"42["sum",1,2]"#);
    client.send(r#"4217["never"]"#);
    client.send(r#"4218["nobody listens to this"]"#);
    client.ask(r#"4219["nothing"]"#, "4319[]");
    assert_eq!(stats(&io).received, cases.len() as u64 + 4);
}

#[test]
fn a_binary_answer_is_a_binary_ack() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("all", |_: Socket, all: Args| all);
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    client.send(r#"451-7["all",{"_placeholder":true,"num":0}]"#);
    client.peer.send_frame(BINARY, &[1, 2, 3]);
    client.expect(r#"461-7[{"_placeholder":true,"num":0}]"#);
    assert_eq!(client.peer.frame(), (BINARY, vec![1, 2, 3]));
}

#[test]
fn arguments_that_do_not_fit_are_counted_and_cost_nobody_anything() {
    let io = Io::with_settings(settings());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_too = Arc::clone(&seen);
    io.of("/")
        .on_event("sum", |_: Socket, (a, b): (i64, i64)| a + b)
        .on_event("async", async |_: Socket, text: String| text)
        .on_event("goal", |_: Socket, goal: Goal| goal)
        .on_event("goal", move |_: Socket, all: Args, ack: Ack| {
            seen_too.lock().unwrap().push(all.len());
            drop(ack);
        });
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    let unfit = [
        r#"421["sum"]"#,
        r#"422["sum",1]"#,
        r#"423["sum",1,"2"]"#,
        r#"424["sum",1,1.5]"#,
        r#"425["sum",null,null]"#,
        r#"426["async",{}]"#,
        r#"427["goal",{"player":"Ada"}]"#,
    ];
    unfit.iter().for_each(|event| client.send(event));
    client.ask(r#"428["sum",1,2]"#, "438[3]");
    let stats = stats(&io);
    assert_eq!((stats.arguments_refused, stats.handler_panics), (unfit.len() as u64, 0));
    assert_eq!(*seen.lock().unwrap(), [1], "another handler of the same event reads what it likes");
}

#[test]
fn handlers_of_a_namespace_come_before_those_of_a_socket_each_in_order() {
    let io = Io::with_settings(settings());
    let tell = |word: &'static str| move |socket: Socket| drop(socket.emit(word, &()));
    io.of("/").on_event("go", tell("first")).on_event("go", tell("second"));
    let both = tell;
    io.on_connection(move |socket: Socket| {
        socket.on("go", both("third")).on("go", both("fourth")).on("mine", |_: Socket, n: u32| n + 1);
    });
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(&server);
    client.send(r#"42["go"]"#);
    ["first", "second", "third", "fourth"].iter().for_each(|word| client.expect(&format!(r#"42["{word}"]"#)));
    client.ask(r#"421["mine",1]"#, "431[2]");
    // From another thread, and while the server runs.
    let socket = next(&sockets);
    socket.on("added", |_: Socket| "later");
    socket.emit("ready", &()).expect("the server runs");
    client.expect(r#"42["ready"]"#);
    client.ask(r#"422["added"]"#, r#"432["later"]"#);
    io.of("/").on_event("added to all", |_: Socket| "later");
    client.ask(r#"423["added to all"]"#, r#"433["later"]"#);
    let mut other = Client::connect(&server);
    other.send(r#"424["added"]"#);
    other.ask(r#"425["mine",2]"#, "435[3]");
}

#[test]
fn of_several_handlers_of_an_event_one_answers() {
    let io = Io::with_settings(settings());
    io.of("/")
        .on_event("returned", |_: Socket| "first")
        .on_event("returned", async |_: Socket| "last")
        .on_event("given", |_: Socket, ack: Ack| drop(ack.send(&"first")))
        .on_event("given", |_: Socket| "last");
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    client.ask(r#"421["returned"]"#, r#"431["last"]"#);
    client.ask(r#"422["given"]"#, r#"432["first"]"#);
    client.ask(r#"423["returned"]"#, r#"433["last"]"#);
}

#[test]
fn events_that_nobody_handles_have_a_handler_of_their_own() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("known", |_: Socket| "known").on_unhandled(|_: Socket, name: &str, all: Args, ack: Ack| {
        match name {
            "panic" => fail(),
            name => drop(ack.send(&(name, all))),
        }
    });
    io.on_connection(|socket: Socket| {
        socket.on("own", |_: Socket| "own");
    });
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    client.ask(r#"421["known"]"#, r#"431["known"]"#);
    client.ask(r#"422["own"]"#, r#"432["own"]"#);
    client.ask(r#"423["other",1,[2]]"#, r#"433["other",1,[2]]"#);
    client.ask(r#"42["panic"]"#, "41");
    assert_eq!(stats(&io).handler_panics, 1);
}

#[test]
fn a_handler_that_panics_costs_only_its_socket() {
    let io = Io::with_settings(settings());
    io.of("/")
        .on_event("sync", |_: Socket| fail())
        .on_event("async at once", async |_: Socket| fail())
        .on_event("async later", async |_: Socket| {
            tokio::task::yield_now().await;
            fail();
        })
        .on_event("fine", |_: Socket| "fine");
    io.of("/bystander").on_event("fine", |_: Socket| "fine");
    let ends = ends_of(&io.of("/"));
    let server = Running::io(&io);
    let mut other = Client::connect(&server);
    for (panics, event) in ["sync", "async at once", "async later"].into_iter().enumerate() {
        let mut client = Client::connect(&server);
        let id = client.id.clone();
        client.join("/bystander");
        client.ask(&format!(r#"427["{event}"]"#), "41");
        assert_eq!(next(&ends), (id, CloseReason::ServerNamespaceDisconnect), "{event}");
        client.ask(r#"42/bystander,1["fine"]"#, r#"43/bystander,1["fine"]"#);
        client.join("/");
        client.ask(r#"422["fine"]"#, r#"432["fine"]"#);
        assert_eq!(stats(&io).handler_panics, panics as u64 + 1, "{event}");
        drop(client);
        next(&ends);
    }
    other.ask(r#"421["fine"]"#, r#"431["fine"]"#);
}

#[test]
fn a_panic_while_connecting_or_leaving_costs_only_that_socket() {
    let io = Io::with_settings(settings());
    io.of("/middleware").middleware(|_: Socket| {
        fail();
        Ok(())
    });
    io.of("/middleware-later").middleware(async |_: Socket| {
        tokio::task::yield_now().await;
        fail();
        Ok(())
    });
    io.of("/connection").on_connection(|_: Socket| fail());
    io.of("/leaving").on_disconnecting(|_: Socket, _| fail()).on_disconnect(|_: Socket, _| fail());
    let ends = ends_of(&io.of("/leaving"));
    io.of("/").on_event("fine", |_: Socket| "fine");
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    for namespace in ["/middleware", "/middleware-later"] {
        client.ask(&format!("40{namespace},"), &format!(r#"44{namespace},{{"message":"internal error"}}"#));
    }
    assert_eq!(stats(&io).handler_panics, 2);
    client.join("/connection");
    client.expect("41/connection,");
    client.join("/leaving");
    client.send("41/leaving,");
    assert_eq!(next(&ends).1, CloseReason::ClientNamespaceDisconnect, "the next handler is called");
    client.ask(r#"421["fine"]"#, r#"431["fine"]"#);
    let stats = stats(&io);
    assert_eq!((stats.handler_panics, stats.sockets), (5, 1));
}

// ---- middlewares

#[test]
fn middlewares_run_in_order_and_the_first_refusal_is_the_last_word() {
    let io = Io::with_settings(settings());
    let (sender, steps) = channel();
    let step = move |name: &'static str| {
        let sender = sender.clone();
        move || sender.send(name).expect("somebody waits")
    };
    let (first, second, third, connected) = (step("first"), step("second"), step("third"), step("connected"));
    let admin = io.of("admin");
    assert_eq!(admin.name(), "/admin", "the slash is added");
    admin
        .middleware(move |_: Socket| {
            first();
            Ok(())
        })
        .middleware(move |socket: Socket| {
            second();
            async move {
                tokio::task::yield_now().await;
                let auth: HashMap<String, String> = socket.handshake().auth().unwrap_or_default();
                let refusal = || ConnectError::new("not \"authorized\"").with_data(serde_json::json!({ "code": 7 }));
                auth.contains_key("token").then_some(()).ok_or_else(refusal)
            }
        })
        .middleware(move |_: Socket| {
            third();
            Err(ConnectError::new("closed"))
        })
        .on_connection(move |_: Socket| connected());
    let server = Running::io(&io);
    let mut client = Client::open(&server);
    let expect_steps = |expected: &[&str]| {
        let found: Vec<_> = expected.iter().map(|_| next(&steps)).collect();
        assert_eq!(found, expected);
        assert!(steps.try_recv().is_err());
    };
    client.ask("40/admin,", r#"44/admin,{"message":"not \"authorized\"","data":{"code":7}}"#);
    expect_steps(&["first", "second"]);
    client.ask(r#"40/admin,{"token":"x"}"#, r#"44/admin,{"message":"closed"}"#);
    expect_steps(&["first", "second", "third"]);
    client.ask("40/unknown,", r#"44/unknown,{"message":"Invalid namespace"}"#);
    client.join("/");
    assert_eq!(stats(&io).sockets, 1);
}

#[test]
fn what_a_middleware_emits_arrives_before_connect_and_the_room_it_joins_is_joined() {
    let io = Io::with_settings(settings());
    io.of("/")
        .middleware(|socket: Socket| {
            socket.emit("sync", &1).expect("it may emit");
            socket.join("early").expect("it may join");
            Ok(())
        })
        .middleware(async |socket: Socket| {
            tokio::task::yield_now().await;
            socket.emit("async", &2).expect("it may emit");
            Ok(())
        })
        .on_connection(|socket: Socket| drop(socket.emit("connected", &socket.rooms())));
    let server = Running::io(&io);
    let mut client = Client::open(&server);
    client.send("40");
    client.expect(r#"42["sync",1]"#);
    client.expect(r#"42["async",2]"#);
    let connect = client.text();
    let id = connect.strip_prefix(r#"40{"sid":""#).and_then(|rest| rest.strip_suffix(r#""}"#)).expect("CONNECT");
    client.expect(&format!(r#"42["connected",["{id}","early"]]"#));
}

#[test]
fn an_event_for_a_namespace_whose_middleware_still_runs_ends_the_connection() {
    let io = Io::with_settings(settings());
    let (sender, gone) = channel();
    io.of("/slow")
        .middleware(async |_: Socket| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        })
        .on_connection(move |_: Socket| sender.send(()).expect("somebody waits"));
    let server = Running::io(&io);
    let mut client = Client::open(&server);
    client.send("40/slow,");
    client.send(r#"42/slow,["too early"]"#);
    client.peer.expect_close();
    wait_for_stats(&io, |stats| stats.websocket == 0);
    let mut patient = Client::open(&server);
    patient.join("/slow");
    next(&gone);
    assert!(gone.try_recv().is_err(), "the hasty one was not let in");
}

// ---- targets

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
    let mut clients = clients_on_both_workers(&server);
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
    let mut clients = clients_on_both_workers(&server);
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
    let mut clients = clients_on_both_workers(&server);
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
    let clients = clients_on_both_workers(&server);
    let mut asker = Client::connect(&server);
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
    let mut clients = clients_on_both_workers(&server);
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
    let handshake = get(server.address(), POLLING).body;
    let target = format!("{POLLING}&sid={}", &handshake[9..29]);
    assert_eq!(post(server.address(), &target, "40").brief(), (200, "ok"));
    assert!(get(server.address(), &target).body.starts_with("40{"));
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
    let mut client = Client::connect(&server);
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
    let handshake = get(server.address(), POLLING).body;
    let target = format!("{POLLING}&sid={}", &handshake[9..29]);
    let say = |packet: &str| assert_eq!(post(server.address(), &target, packet).brief(), (200, "ok"));
    say("40");
    assert!(get(server.address(), &target).body.starts_with("40{"));
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
    let mut clients = clients_on_both_workers(&server);
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

// ---- asking clients

#[test]
fn a_client_that_is_asked_answers_or_the_caller_learns_why_not() {
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(&server);
    let socket = next(&sockets);

    let answer = socket.emit_with_ack::<String>("name?", &1);
    client.ask_back(r#"["name?",1]"#, r#"["Ada","more than asked"]"#);
    assert_eq!(block_on(answer), Ok("Ada".to_owned()));

    let answer = socket.emit_with_ack::<(String, u32)>("pair?", &());
    client.ask_back(r#"["pair?"]"#, r#"["Ada",17]"#);
    assert_eq!(block_on(answer), Ok(("Ada".to_owned(), 17)));

    let wrong = socket.emit_with_ack::<u32>("number?", &());
    client.ask_back(r#"["number?"]"#, r#"["seventeen"]"#);
    assert!(matches!(block_on(wrong), Err(AckError::Decode(_))));

    let reserved = socket.emit_with_ack::<u32>("disconnect", &());
    assert!(matches!(block_on(reserved), Err(AckError::Encode(_))));

    let limited = socket.timeout(WAIT_MAX).emit_with_ack::<u32>("in time?", &());
    client.ask_back(r#"["in time?"]"#, "[1]");
    assert_eq!(block_on(limited), Ok(1));

    let started = Instant::now();
    let late = socket.timeout(Duration::from_millis(50)).emit_with_ack::<u32>("late?", &());
    let late_ack = client.text();
    assert_eq!(block_on(late), Err(AckError::Timeout));
    assert!(started.elapsed() >= Duration::from_millis(50));
    client.send(&late_ack.replace("42", "43").replace(r#"["late?"]"#, "[1]"));
    client.send("43999[1]"); // an answer that nobody waits for, like the one before, is ignored

    let gone = socket.emit_with_ack::<u32>("gone?", &());
    assert!(client.text().ends_with(r#"["gone?"]"#));
    client.send("41");
    assert_eq!(block_on(gone), Err(AckError::Disconnected));
    assert_eq!(block_on(socket.emit_with_ack::<u32>("still gone?", &())), Err(AckError::Disconnected));
}

impl Client {
    /// Expects an event that asks for an answer, and answers it.
    fn ask_back(&mut self, event: &str, answer: &str) {
        let packet = self.text();
        let ack_id = packet.strip_prefix("42").and_then(|rest| rest.strip_suffix(event));
        let ack_id = ack_id.unwrap_or_else(|| panic!("{packet} is not {event}")).to_owned();
        assert!(!ack_id.is_empty(), "{packet} asks for no answer");
        self.send(&format!("43{ack_id}{answer}"));
    }
}

#[test]
fn a_handler_may_ask_its_client_and_wait() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("quiz", async |socket: Socket, question: String| {
        let answer = socket.emit_with_ack::<i64>("question", &question).await;
        answer.map(|number| number * 2).unwrap_or(-1)
    });
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    client.send(r#"425["quiz","?"]"#);
    client.ask_back(r#"["question","?"]"#, "[21]");
    client.expect("435[42]");
}

// ---- sockets

#[test]
fn rooms_are_still_there_while_disconnecting_and_gone_after_it() {
    let io = Io::with_settings(settings());
    let (sender, ends) = channel();
    let senders: [Sender<_>; 4] = std::array::from_fn(|_| sender.clone());
    let [shared_before, shared_after, own_before, own_after] = senders;
    let tell = |what: &'static str, sender: Sender<(&'static str, Vec<String>, Option<bool>)>| {
        move |socket: Socket, reason| {
            assert_eq!(reason, CloseReason::ClientNamespaceDisconnect);
            assert_eq!(socket.emit("too late", &()), Err(EmitError::Closed));
            assert_eq!(socket.join("too late"), Err(JoinError::Closed));
            let mut rooms = socket.rooms().expect("its own thread");
            rooms.retain(|room| room != socket.id());
            drop(sender.send((what, rooms, socket.connected())));
        }
    };
    io.of("/")
        .on_disconnecting(tell("disconnecting", shared_before))
        .on_disconnect(tell("disconnect", shared_after))
        .on_connection(move |socket: Socket| {
            socket.join(["a", "b"]).expect("it is there");
            socket.leave("b");
            socket.join(String::from("c")).expect("it is there");
            socket.on_disconnecting(tell("own disconnecting", own_before.clone()));
            socket.on_disconnect(tell("own disconnect", own_after.clone()));
        });
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(&server);
    let socket = next(&sockets);
    assert_eq!((socket.rooms(), socket.connected()), (None, None), "not known from here");
    client.send("41");
    let rooms = || vec!["a".to_owned(), "c".to_owned()];
    let expected = [
        ("disconnecting", rooms()),
        ("own disconnecting", rooms()),
        ("disconnect", Vec::new()),
        ("own disconnect", Vec::new()),
    ];
    for (what, rooms) in expected {
        assert_eq!(next(&ends), (what, rooms, Some(false)));
    }
    assert_eq!(stats(&io).rooms, 0);
}

#[test]
fn a_disconnect_takes_one_namespace_or_the_whole_connection() {
    let io = Io::with_settings(settings());
    let other = io.of("/other");
    other.on_event("fine", |_: Socket| "fine");
    io.of("/").on_event("kick", |socket: Socket, close: bool| socket.disconnect(close));
    let (ends, other_ends) = (ends_of(&io.of("/")), ends_of(&other));
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(&server);
    let id = client.id.clone();
    client.join("/other");
    client.ask(r#"42["kick",false]"#, "41");
    assert_eq!(next(&ends), (id, CloseReason::ServerNamespaceDisconnect));
    client.ask(r#"42/other,1["fine"]"#, r#"43/other,1["fine"]"#);
    client.join("/");
    client.send(r#"42["kick",true]"#);
    let mut goodbyes = [client.text(), client.text()];
    goodbyes.sort();
    assert_eq!(goodbyes, ["41", "41/other,"]);
    client.peer.expect_close();
    assert_eq!(next(&ends).1, CloseReason::ServerNamespaceDisconnect);
    assert_eq!(next(&other_ends).1, CloseReason::ServerNamespaceDisconnect);

    // From another thread, and the connection without a word to the namespaces.
    while sockets.try_recv().is_ok() {}
    let mut client = Client::connect(&server);
    next(&sockets).disconnect(false);
    client.expect("41");
    client.join("/");
    next(&sockets).conn().close();
    client.peer.expect_close();
    assert_eq!(next(&ends).1, CloseReason::ServerNamespaceDisconnect);
    assert_eq!(next(&ends).1, CloseReason::ForcedClose);
}

#[test]
fn a_client_that_hangs_up_or_says_goodbye_is_told_apart() {
    let io = Io::with_settings(settings());
    let ends = ends_of(&io.of("/"));
    let server = Running::io(&io);
    drop(Client::connect(&server));
    assert_eq!(next(&ends).1, CloseReason::TransportClose);
    let mut client = Client::connect(&server);
    client.peer.send_frame(8, &[]);
    client.peer.expect_close();
    assert_eq!(next(&ends).1, CloseReason::TransportClose);
    let mut client = Client::connect(&server);
    client.send("41");
    assert_eq!(next(&ends).1, CloseReason::ClientNamespaceDisconnect);
    client.join("/");
    client.send("9");
    client.peer.expect_close();
    assert_eq!(next(&ends).1, CloseReason::ParseError);
}

#[test]
fn a_socket_keeps_one_value_of_each_type() {
    #[derive(Debug, PartialEq)]
    struct User(&'static str);
    let io = Io::with_settings(settings());
    io.of("/")
        .middleware(|socket: Socket| {
            assert_eq!(socket.insert(User("Ada")), None);
            Ok(())
        })
        .on_event("user", |socket: Socket| socket.get::<User>().map(|user| user.0));
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(&server);
    client.ask(r#"421["user"]"#, r#"431["Ada"]"#);
    let socket = next(&sockets);
    assert_eq!(socket.insert(User("Grace")).as_deref(), Some(&User("Ada")), "from any thread");
    assert_eq!((socket.insert(7_u32), socket.get::<u64>()), (None, None));
    assert_eq!(socket.get::<u32>().as_deref(), Some(&7));
    client.ask(r#"422["user"]"#, r#"432["Grace"]"#);
    let mut other = Client::connect(&server);
    assert_eq!(next(&sockets).get::<u32>(), None, "each socket has its own");
    other.ask(r#"423["user"]"#, r#"433["Ada"]"#);
}

#[test]
fn the_handshake_is_what_the_first_request_and_connect_said() {
    #[derive(Deserialize, Debug, PartialEq)]
    struct Auth {
        token: String,
    }
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let target = format!("{WEBSOCKET}&room=a%20b&room=c+d&flag");
    let headers = [("X-Kit", "yes"), ("Origin", "http://there.example")];
    let mut client = Client::open_at(&server, &target, &headers);
    client.send(r#"40{"token": "s3cret"}"#);
    assert!(client.text().starts_with("40{"));
    let socket = next(&sockets);
    let handshake = socket.handshake();
    let query = handshake.query();
    let expected = [("EIO", "4"), ("transport", "websocket"), ("room", "c d"), ("flag", "")];
    assert_eq!(query, expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    assert_eq!(handshake.url(), target);
    assert_eq!((handshake.header("x-kit"), handshake.header("x-other")), (Some("yes"), None));
    assert_eq!(handshake.headers().filter(|(name, _)| *name == "x-kit").count(), 1);
    assert_eq!(handshake.header("connection"), None, "headers of one hop are nobody's business");
    assert_eq!(handshake.auth::<Auth>().expect("as it was sent"), Auth { token: "s3cret".into() });
    assert!(handshake.auth::<Vec<u8>>().is_err());
    assert_eq!((handshake.xdomain(), handshake.secure()), (true, false));
    assert!(handshake.address().ip().is_loopback());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    assert!(now.abs_diff(u128::from(handshake.issued_ms())) < 10_000);
    assert_eq!(socket.conn().id(), client.sid);
    assert_ne!(socket.id(), client.sid);
    assert_eq!(socket.namespace(), "/");

    Client::connect(&server);
    let socket = next(&sockets);
    assert_eq!((socket.handshake().auth_json(), socket.handshake().xdomain()), ("{}", false));
}

#[test]
fn rooms_and_namespaces_have_limits() {
    let io = Io::with_settings(Settings { rooms_per_socket_max: 2, namespaces_per_session_max: 2, ..settings() });
    io.of("/").on_event("join", |socket: Socket, room: String| {
        let joined = socket.join(room);
        (joined.is_ok(), joined == Err(JoinError::TooManyRooms))
    });
    io.of("/").on_event("leave", |socket: Socket, room: String| socket.leave(room));
    ["/b", "/c"].iter().for_each(|name| drop(io.of(name)));
    let ends = ends_of(&io.of("/"));
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    client.ask(r#"421["join","a"]"#, "431[true,false]");
    client.ask(r#"422["join","b"]"#, "432[true,false]");
    client.ask(r#"423["join","c"]"#, "433[false,true]");
    client.ask(r#"424["join","a"]"#, "434[true,false]");
    client.ask(r#"425["leave","a"]"#, "435[]");
    client.ask(r#"426["join","c"]"#, "436[true,false]");
    client.join("/b");
    client.send("41/b,");
    client.join("/c"); // a place is free again
    assert_eq!(stats(&io).joins_refused, 1);
    client.send("40/b,");
    client.peer.expect_close();
    assert_eq!(next(&ends).1, CloseReason::ForcedClose);
}

// ---- the whole

#[test]
fn the_statistics_balance() {
    let io = Io::with_settings(settings());
    io.of("/admin");
    io.of("/").on_event("join", |socket: Socket, room: String| socket.join(room).is_ok());
    let server = Running::io(&io);
    let fresh = stats(&io);
    assert_eq!((fresh.opened, fresh.sockets, fresh.received, fresh.bytes_in), (0, 0, 0, 0));
    let mut clients = clients_on_both_workers(&server);
    let everyone = clients.len();
    clients[0].join("/admin");
    get(server.address(), POLLING);
    for client in &mut clients {
        client.ask(r#"421["join","room"]"#, "431[true]");
    }
    let count = reached(io.emit_and_count("news", &()));
    assert_eq!(count, everyone);
    clients.iter_mut().for_each(|client| client.expect(r#"42["news"]"#));
    let mut now = stats(&io);
    assert_eq!((now.polling, now.websocket, now.opened), (1, everyone, everyone as u64 + 1));
    assert_eq!((now.sockets, now.rooms), (everyone + 1, 2), "a room is counted on each worker");
    now.namespaces.sort();
    assert_eq!(now.namespaces, [("/".to_owned(), everyone), ("/admin".to_owned(), 1)]);
    assert_eq!((now.received, now.broadcasts, now.deliveries), (everyone as u64, 1, everyone as u64));
    assert!(now.bytes_in > 0 && now.bytes_out > now.bytes_in, "{now:?}");
    assert!(now.disconnects.iter().all(|(_, count)| *count == 0));

    let leaver = clients.pop().expect("several");
    drop(leaver);
    clients[0].send("41/admin,");
    let sum = |stats: &Stats| stats.disconnects.iter().map(|(_, count)| count).sum::<u64>();
    let then = wait_for_stats(&io, |stats| sum(stats) == 2);
    assert_eq!((then.sockets, then.websocket), (everyone - 1, everyone - 1));
    let of = |reason| then.disconnects.iter().find(|(other, _)| *other == reason).expect("all are listed").1;
    assert_eq!((of(CloseReason::TransportClose), of(CloseReason::ClientNamespaceDisconnect)), (1, 1));
    assert_eq!((then.protocol_errors, then.refused, then.evicted, then.handler_panics), (0, 0, 0, 0));
}

/// What the server has counted, when it has ended.
fn end_of(server: Running) -> Receiver<Stats> {
    let (sender, ended) = channel();
    let server = server.into_server();
    std::thread::spawn(move || drop(sender.send(server.wait())));
    ended
}

/// Waits until every worker has begun to close.
fn wait_until_nobody_listens(server: &Running) {
    let deadline = Instant::now() + WAIT_MAX;
    while TcpStream::connect_timeout(&server.address(), WAIT_MAX).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
    }
}

#[test]
fn a_closed_server_tells_everyone_and_refuses_everything() {
    let io = Io::with_settings(settings());
    assert!(matches!(io.emit("early", &()), Err(EmitError::Closed)), "it does not listen yet");
    assert_eq!(block_on(io.stats()), Err(EmitError::Closed));
    let ends = ends_of(&io.of("/"));
    let (server, sockets) = with_sockets(&io);
    let again = io.listen("127.0.0.1:0");
    assert!(matches!(again, Err(StartError::AlreadyListening)), "{:?}", again.err());
    let mut clients = clients_on_both_workers(&server);
    let sockets: Vec<_> = clients.iter().map(|_| next(&sockets)).collect();
    let waiting = sockets[0].emit_with_ack::<u32>("anyone?", &());
    let asked = clients.iter().position(|client| client.id == sockets[0].id()).expect("one of them");
    assert!(clients[asked].text().ends_with(r#"["anyone?"]"#));

    let under_way = io.to("nowhere").emit("last", &()).expect("it runs");
    io.close();
    for client in &mut clients {
        client.peer.expect_close();
        assert_eq!(next(&ends).1, CloseReason::ServerShuttingDown);
    }
    drop(clients);
    next(&end_of(server));
    assert_eq!(block_on(waiting), Err(AckError::Disconnected));
    assert_eq!(block_on(under_way.into_future()), Err(EmitError::Closed), "nobody is left to write it");
    assert!(matches!(io.emit("late", &()), Err(EmitError::Closed)));
    assert_eq!(io.to("room").sockets_join("other"), Err(EmitError::Closed));
    assert!(matches!(io.emit_and_count("late", &()), Err(EmitError::Closed)));
    assert_eq!(sockets[0].emit("late", &()), Err(EmitError::Closed));
    assert_eq!(sockets[0].join("late"), Err(JoinError::Closed));
    assert_eq!(block_on(sockets[0].emit_with_ack::<u32>("late", &())), Err(AckError::Disconnected));
    assert_eq!(block_on(io.stats()), Err(EmitError::Closed));
    io.close(); // once more does nothing
}

/// Opens clients on both workers, some of them polling, until there are this many of both kinds.
fn crowd(server: &Running, websockets: usize, pollers: usize) -> (Vec<Client>, Vec<String>) {
    let polling = |_| {
        let opened = get(server.address(), POLLING);
        let target = format!("{POLLING}&sid={}", &opened.body[9..29]);
        assert_eq!(post(server.address(), &target, "40").status, 200);
        assert!(get(server.address(), &target).body.starts_with("40"));
        target
    };
    ((0..websockets).map(|_| Client::connect(server)).collect(), (0..pollers).map(polling).collect())
}

/// What a client still gets until it is closed in order.
fn rest(client: &mut Client) -> Vec<String> {
    let mut rest = Vec::new();
    loop {
        match client.peer.frame() {
            (TEXT, payload) => rest.push(String::from_utf8(payload).expect("text is UTF-8")),
            other => {
                assert_eq!(other, (CLOSE, Vec::new()));
                return rest;
            }
        }
    }
}

#[test]
fn a_server_that_drains_lets_nobody_in_and_everybody_go() {
    const WEBSOCKETS: usize = 60;
    const POLLERS: usize = 10;
    let io = Io::with_settings(Settings { shutdown_grace: WAIT_MAX, ..settings() });
    let ends = ends_of(&io.of("/"));
    let server = Running::io(&io);
    let (mut clients, targets) = crowd(&server, WEBSOCKETS, POLLERS);
    io.emit("queued", &()).expect("it runs");
    io.drain(Duration::from_secs(3600)); // as few as these do not take so long
    assert!(stats(&io).draining);

    for (status, retry, end) in
        [get(server.address(), POLLING), Connection::open(server.address()).upgrade("GET", WEBSOCKET, &[])].map(
            |refused| {
                assert!(refused.body.contains("Server is shutting down"), "{refused:?}");
                let header = |name| refused.header(name).map(str::to_owned);
                (refused.status, header("retry-after"), header("connection"))
            },
        )
    {
        assert_eq!((status, end.as_deref()), (503, Some("close")));
        let seconds: u8 = retry.expect("a time").parse().expect("seconds");
        assert!((1..=10).contains(&seconds));
    }
    let reached = block_on(io.emit_and_count("late", &()).expect("it runs")).expect("it runs");

    let mut heard = 0;
    for client in &mut clients {
        let rest = rest(client);
        assert!(rest == [r#"42["queued"]"#] || rest == [r#"42["queued"]"#, r#"42["late"]"#], "{rest:?}");
        heard += rest.len() - 1;
    }
    for target in &targets {
        let mut packets = Vec::new();
        while packets.last().is_none_or(|last| last != "1") {
            let polled = get(server.address(), target);
            assert_eq!(polled.status, 200, "{polled:?}");
            packets.extend(polled.body.split('\x1e').map(str::to_owned));
        }
        packets.retain(|packet| packet != "6" && packet != "1");
        assert!(packets == [r#"42["queued"]"#] || packets == [r#"42["queued"]"#, r#"42["late"]"#], "{packets:?}");
        heard += packets.len() - 1;
    }
    assert_eq!(heard, reached.sockets, "who was counted has heard it");
    drop(clients);
    let stats = server.into_server().wait();
    assert_eq!((stats.let_go, stats.cut_off, stats.draining_left), ((WEBSOCKETS + POLLERS) as u64, 0, 0));
    assert_eq!((stats.shutting_down_refused, stats.refused), (2, 0), "they broke no rule");
    let reasons: Vec<_> = ends.try_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, [CloseReason::ServerShuttingDown; WEBSOCKETS + POLLERS]);
    io.drain(WAIT_MAX); // once more does nothing
}

#[test]
fn a_handler_may_drain_its_server_and_closing_ends_a_drain_at_once() {
    let io = Io::with_settings(settings());
    let handle = io.clone();
    io.of("/").on_event("drain", move |_: Socket| handle.drain(Duration::from_secs(3600)));
    let server = Running::io(&io);
    let (mut clients, _) = crowd(&server, 300, 0);
    clients[0].send(r#"42["drain"]"#);
    let begun = wait_for_stats(&io, |stats| stats.let_go > 0);
    assert!(begun.draining && begun.draining_left > 0, "{begun:?}");
    io.close();
    clients.iter_mut().for_each(|client| drop(rest(client)));
    drop(clients);
    assert_eq!(server.into_server().wait().let_go, 300);
}

/// Nobody waits so long in a test: what ends in time did not wait for it.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_server_without_clients_drains_at_once() {
    for workers in [1, 2, 5] {
        let io = Io::with_settings(Settings { workers, shutdown_grace: LONG, ..settings() });
        let server = Running::io(&io);
        io.drain(LONG);
        assert_eq!(next(&end_of(server)).let_go, 0);
    }
}

#[test]
fn a_drain_is_over_when_the_last_client_has_left_by_itself() {
    let io = Io::with_settings(Settings { shutdown_grace: LONG, ..settings() });
    let server = Running::io(&io);
    let (clients, _) = crowd(&server, 300, 0);
    io.drain(LONG);
    wait_for_stats(&io, |stats| stats.let_go > 0);
    drop(clients);
    let stats = next(&end_of(server));
    assert!(stats.let_go < 300 && stats.draining_left == 0, "{stats:?}");
}

#[test]
fn a_count_is_complete_as_long_as_any_worker_has_a_client_to_say_farewell_to() {
    let io = Io::with_settings(Settings { workers: 5, shutdown_grace: LONG, ..settings() });
    let server = Running::io(&io);
    let mut client = Client::connect(&server);
    io.close();
    client.peer.expect_close();
    wait_until_nobody_listens(&server);
    let counted = block_on(io.emit_and_count("late", &()).expect("one worker waits for the client, and so all do"));
    assert_eq!(counted.expect("all workers answer").sockets, 0);
    drop(client);
    next(&end_of(server));
    assert!(matches!(io.emit_and_count("later", &()), Err(EmitError::Closed)));
}

#[test]
fn a_request_that_ends_after_closing_has_begun_is_answered_whichever_worker_its_session_is_of() {
    let io = Io::with_settings(Settings { shutdown_grace: LONG, ..settings() });
    let server = Running::io(&io);
    // A session begins on the worker that its connection is of.
    let open = || {
        let mut connection = Connection::open(server.address());
        let sid = connection.get(POLLING).body[9..29].to_owned();
        (Id::parse(&sid).expect("one of ours").shard(), connection, sid)
    };
    let (owner, _, sid) = open();
    let elsewhere = std::iter::repeat_with(open).take(100).find(|(worker, ..)| *worker != owner);
    let (_, mut connection, _) = elsewhere.expect("both workers get some of a hundred connections");
    let length = "Content-Length: 2\r\nExpect: 100-continue";
    connection.write(format!("POST {POLLING}&sid={sid} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n"));
    assert_eq!(connection.response().status, 100);
    io.close();
    wait_until_nobody_listens(&server);
    connection.write("40");
    assert_eq!(connection.response().brief(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    next(&end_of(server));
}

#[test]
fn who_does_not_read_is_cut_off_when_the_time_is_over() {
    const OUTBOX_MAX: usize = 40 << 20;
    let shutdown_grace = Duration::from_millis(100);
    let io = Io::with_settings(Settings { shutdown_grace, outbox_bytes_max: OUTBOX_MAX, ..settings() });
    let server = Running::io(&io);
    let clients: Vec<_> = (0..3).map(|_| Client::connect(&server)).collect();
    // More than the kernel takes for a client that does not read, and less than a slow client is closed for.
    let large = "x".repeat(200_000);
    (0..OUTBOX_MAX / large.len() - 1).for_each(|_| drop(io.emit("large", &large).expect("it runs")));
    io.drain(Duration::from_millis(1));
    assert_eq!(server.into_server().wait().cut_off, 3);
    drop(clients);
}

#[test]
fn an_event_that_cannot_be_encoded_is_the_callers_error() {
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(&server);
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

#[test]
fn settings_that_can_change_do_so_on_every_worker_and_the_others_are_named() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("join", |socket: Socket, rooms: Vec<String>| socket.join(rooms).is_ok());
    let server = Running::io(&io);
    let mut clients = clients_on_both_workers(&server);
    clients.iter_mut().for_each(|client| client.ask(r#"421["join",["a","b"]]"#, "431[true]"));

    let reload = io.reload(Settings {
        rooms_per_socket_max: 2,
        connections_max: clients.len(),
        ping_interval: Duration::from_secs(9),
        path: "/elsewhere".into(),
        workers: 5,
        ..settings()
    });
    let reload = reload.expect("they are allowed");
    assert_eq!(reload.kept(), ["path", "ping_interval", "workers"]);
    block_on(reload);
    let now = io.settings();
    assert_eq!((now.rooms_per_socket_max, &*now.path, now.workers), (2, "/socket.io", 2));
    for client in &mut clients {
        client.ask(r#"422["join",["c"]]"#, "432[false]");
        client.ask(r#"423["join",["a"]]"#, "433[true]");
    }
    assert_eq!(Connection::open(server.address()).response().status, 503, "those who are there count");

    let bad = io.reload(Settings { rooms_per_socket_max: 0, ..settings() });
    assert_eq!(bad.expect_err("no room is too few").option, "rooms_per_socket_max");
    clients[0].ask(r#"424["join",["c"]]"#, "434[false]");
    let reload = io.reload(settings()).expect("they were allowed before");
    assert_eq!(reload.kept(), [""; 0]);
    block_on(reload);
    clients[0].ask(r#"425["join",["c"]]"#, "435[true]");
    assert_eq!(get(server.address(), POLLING).status, 200);
    assert_eq!(io.settings().ping_interval, settings().ping_interval);
}

#[test]
fn a_setting_that_cannot_be_is_named() {
    let none = Transports { polling: false, websocket: false };
    let any_with_credentials = Cors { origins: Origins::Any, credentials: true, methods: Vec::new() };
    let no_method = Cors { origins: Origins::Any, credentials: false, methods: vec!["GET POST".into()] };
    let cases = [
        ("path", Settings { path: "socket.io".into(), ..settings() }),
        ("path", Settings { path: "/socket.io/".into(), ..settings() }),
        ("path", Settings { path: String::new(), ..settings() }),
        ("path", Settings { path: "/socket io".into(), ..settings() }),
        ("transports", Settings { transports: none, ..settings() }),
        ("ping_interval", Settings { ping_interval: Duration::ZERO, ..settings() }),
        ("ping_timeout", Settings { ping_timeout: Duration::ZERO, ..settings() }),
        ("handshake_timeout", Settings { handshake_timeout: Duration::ZERO, ..settings() }),
        ("request_timeout", Settings { request_timeout: Duration::ZERO, ..settings() }),
        ("rooms_per_socket_max", Settings { rooms_per_socket_max: 0, ..settings() }),
        ("payload_bytes_max", Settings { payload_bytes_max: 0, ..settings() }),
        ("payload_bytes_max", Settings { payload_bytes_max: (1 << 30) + 1, ..settings() }),
        ("outbox_bytes_max", Settings { outbox_bytes_max: 0, ..settings() }),
        ("namespaces_per_session_max", Settings { namespaces_per_session_max: 0, ..settings() }),
        ("accept_queue", Settings { accept_queue: 0, ..settings() }),
        ("cookie", Settings { cookie: Some("a b".into()), ..settings() }),
        ("cookie", Settings { cookie: Some(String::new()), ..settings() }),
        ("cors", Settings { cors: Some(any_with_credentials), ..settings() }),
        ("cors", Settings { cors: Some(no_method), ..settings() }),
    ];
    for (option, settings) in cases {
        let error = Io::with_settings(settings.clone()).listen("127.0.0.1:0").err().expect("it does not start");
        assert!(matches!(&error, StartError::Settings(error) if error.option == option), "{option}: {error:?}");
        assert!(error.to_string().contains(&format!("`{option}`")), "{error}");
        assert!(matches!(Engine::with_settings(settings).listen("127.0.0.1:0"), Err(StartError::Settings(_))));
    }
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let io = Io::with_settings(settings());
    let error = io.listen(address).err().expect("it is taken");
    assert!(matches!(&error, StartError::Bind { address: named, .. } if *named == address), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    drop(taken);
    Running::io(&io); // and nothing of the attempt is left
}

#[test]
#[should_panic(expected = "comma")]
fn a_namespace_that_packets_cannot_name_is_refused() {
    let _ = Io::new().of("/a,b");
}

// ---- the engine alone

/// An engine that echoes, and tells how its sessions open and close.
fn echo_engine() -> (Engine, Receiver<Conn>, Receiver<(String, CloseReason)>) {
    let ((opened, opens), (closed, closes)) = (channel(), channel());
    let engine = Engine::with_settings(Settings { path: "/engine.io".into(), ..settings() })
        .on_open(move |conn| drop(opened.send(conn)))
        .on_message(|conn, message| match message {
            Message::Text(text) if text == "fail" => fail(),
            message => conn.send(message),
        })
        .on_close(move |conn, reason| drop(closed.send((conn.id(), reason))));
    (engine, opens, closes)
}

#[test]
fn the_engine_alone_opens_echoes_and_closes() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=websocket&x=y";
    let mut client = Client::open_at(&server, target, &[("X-Kit", "yes")]);
    let conn = next(&opens);
    assert_eq!((conn.id(), conn.url(), conn.header("x-kit")), (client.sid.clone(), target, Some("yes")));
    client.ask("4hello", "4hello");
    client.ask("4", "4");
    client.peer.send_frame(BINARY, &[0, 1, 255]);
    assert_eq!(client.peer.frame(), (BINARY, vec![0, 1, 255]));
    for i in 0..100 {
        conn.send(Message::Text(format!("from another thread {i}")));
    }
    (0..100).for_each(|i| client.expect(&format!("4from another thread {i}")));
    conn.send(Message::Binary(vec![7].into()));
    conn.close();
    assert_eq!(client.peer.frame(), (BINARY, vec![7]), "what is queued still leaves");
    client.peer.expect_close();
    assert_eq!(next(&closes), (client.sid.clone(), CloseReason::ForcedClose));
    conn.send(Message::Text("to nobody".into()));

    let client = Client::open_at(&server, target, &[]);
    let sid = client.sid.clone();
    drop(client);
    assert_eq!(next(&closes), (sid, CloseReason::TransportClose));
}

#[test]
fn the_engine_alone_speaks_polling_too() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=polling";
    let handshake = get(server.address(), target).body;
    let conn = next(&opens);
    assert_eq!(&handshake[9..29], conn.id());
    let target = format!("{target}&sid={}", conn.id());
    assert_eq!(post(server.address(), &target, "4a\x1ebAQL/\x1e4b").brief(), (200, "ok"));
    assert_eq!(get(server.address(), &target).body, "4a\x1ebAQL/\x1e4b");
    assert_eq!(post(server.address(), &target, "1").brief(), (200, "ok"));
    assert_eq!(next(&closes), (conn.id(), CloseReason::TransportClose));
}

#[test]
fn a_panic_in_an_engines_handler_costs_only_that_session() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=websocket";
    let mut other = Client::open_at(&server, target, &[]);
    let mut client = Client::open_at(&server, target, &[]);
    client.send("4fail");
    client.peer.expect_close();
    assert_eq!(next(&closes), (client.sid.clone(), CloseReason::ForcedClose));
    other.ask("4still here", "4still here");
    assert_eq!(opens.try_iter().count(), 2);
}

#[test]
fn a_closed_engine_tells_its_sessions() {
    let (engine, _opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let mut client = Client::open_at(&server, "/engine.io/?EIO=4&transport=websocket", &[]);
    let server = server.into_server();
    std::thread::scope(|scope| {
        scope.spawn(|| server.close());
        client.peer.expect_close();
        assert_eq!(next(&closes), (client.sid.clone(), CloseReason::ServerShuttingDown));
        drop(client);
    });
}

#[test]
fn a_drained_engine_lets_its_sessions_go() {
    let (engine, opens, closes) = echo_engine();
    let server = Running::engine(engine);
    let target = "/engine.io/?EIO=4&transport=websocket";
    let mut clients: Vec<_> = (0..3).map(|_| Client::open_at(&server, target, &[])).collect();
    clients.iter().for_each(|_| next(&opens).send(Message::Text("last".into())));
    let server = server.into_server();
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| server.drain(Duration::from_millis(30)));
        for client in &mut clients {
            client.expect("4last");
            client.peer.expect_close();
            assert_eq!(next(&closes).1, CloseReason::ServerShuttingDown);
        }
        drop(clients);
        let stats = drained.join().expect("it ends");
        assert_eq!((stats.let_go, stats.cut_off), (3, 0));
    });
}
