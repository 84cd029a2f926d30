//! Server: statistics, settings that are allowed and that change, and addresses.

use crate::reached;
use crate::support::client::{POLLING, clients_on_both_workers};
use crate::support::http::{Connection, get};
use crate::support::{Running, block_on, settings, stats, wait_for_stats};
use fanfare::engine::Engine;
use fanfare::{CloseReason, Cors, Io, Origins, Settings, Socket, StartError, Stats, Transports};
use std::time::Duration;

#[test]
fn the_statistics_balance() {
    let io = Io::with_settings(settings());
    io.of("/admin");
    io.of("/").on_event("join", |socket: Socket, room: String| socket.join(room).is_ok());
    let server = Running::io(&io);
    let fresh = stats(&io);
    assert_eq!((fresh.opened, fresh.sockets, fresh.received, fresh.bytes_in), (0, 0, 0, 0));
    let mut clients = clients_on_both_workers(&server, "/", 2);
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

#[test]
fn settings_that_can_change_do_so_on_every_worker_and_the_others_are_named() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("join", |socket: Socket, rooms: Vec<String>| socket.join(rooms).is_ok());
    let server = Running::io(&io);
    let mut clients = clients_on_both_workers(&server, "/", 2);
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
