//! Middlewares: their order, what they may do before a client is in, and what a refusal says.

use crate::next;
use crate::support::client::Client;
use crate::support::{Running, settings, stats, wait_for_stats};
use fanfare::{ConnectError, Io, Socket};
use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::time::Duration;

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
    let mut client = Client::open(server.address());
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
    let mut client = Client::open(server.address());
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
    let mut client = Client::open(server.address());
    client.send("40/slow,");
    client.send(r#"42/slow,["too early"]"#);
    client.peer.expect_close();
    wait_for_stats(&io, |stats| stats.websocket == 0);
    let mut patient = Client::open(server.address());
    patient.join("/slow");
    next(&gone);
    assert!(gone.try_recv().is_err(), "the hasty one was not let in");
}
