//! Sockets: rooms, values, what the handshake said, limits, and how each ends.

use crate::support::client::{Client, WEBSOCKET};
use crate::support::{Running, settings, stats};
use crate::{ends_of, next, with_sockets};
use fanfare::{CloseReason, EmitError, Io, JoinError, Settings, Socket};
use serde::Deserialize;
use std::sync::mpsc::{Sender, channel};

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
    let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
    drop(Client::connect(server.address()));
    assert_eq!(next(&ends).1, CloseReason::TransportClose);
    let mut client = Client::connect(server.address());
    client.peer.send_frame(8, &[]);
    client.peer.expect_close();
    assert_eq!(next(&ends).1, CloseReason::TransportClose);
    let mut client = Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
    client.ask(r#"421["user"]"#, r#"431["Ada"]"#);
    let socket = next(&sockets);
    assert_eq!(socket.insert(User("Grace")).as_deref(), Some(&User("Ada")), "from any thread");
    assert_eq!((socket.insert(7_u32), socket.get::<u64>()), (None, None));
    assert_eq!(socket.get::<u32>().as_deref(), Some(&7));
    client.ask(r#"422["user"]"#, r#"432["Grace"]"#);
    let mut other = Client::connect(server.address());
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
    let mut client = Client::open_at(server.address(), &target, &headers);
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

    Client::connect(server.address());
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
    let mut client = Client::connect(server.address());
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
