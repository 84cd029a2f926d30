//! Handlers: typed arguments, answers, who is asked in which order, and what a panic costs.

use crate::support::client::Client;
use crate::support::websocket::BINARY;
use crate::support::{Running, settings, stats};
use crate::{ends_of, fail, next, with_sockets};
use fanfare::{Ack, Args, CloseReason, Io, Socket};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

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
    let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
    let mut other = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
    let mut other = Client::connect(server.address());
    for (panics, event) in ["sync", "async at once", "async later"].into_iter().enumerate() {
        let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
