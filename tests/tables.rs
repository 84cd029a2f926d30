//! Servers whose workers have descriptor tables of their own: streams that change their table, and what is in each.
//!
//! The tests of `http` and `api` hold for such servers, too; support/running.rs says how to run them so.
//!
//! Linux shows the table of every thread under `/proc/self/task`. A worker's table begins with a copy of everything that
//! the process has open, the clients of a test beside it included; so the tests take turns.
#![cfg(target_os = "linux")]

mod support;

use fanfare::{Args, FdTables, Io, Settings, Socket, StartError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use support::client::{POLLING, WEBSOCKET, sid_of, worker_of};
use support::http::{Connection, WAIT_MAX, get, post};
use support::websocket::Peer;
use support::{Running, settings, stats};

const WORKERS: usize = 3;

fn take_turns() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own_tables() -> Settings {
    Settings { workers: WORKERS, fd_tables: FdTables::PerWorker, ..settings() }
}

fn echo(settings: Settings) -> Io {
    let io = Io::with_settings(settings);
    io.of("/").on_event("echo", |socket: Socket, all: Args| drop(socket.emit("echo", &all)));
    io
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::yield_now();
    }
}

// ---- what the kernel shows

/// What each descriptor of a thread is, like `socket:[4711]`.
fn table(task: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("{task}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_str()?.to_owned())).collect()
}

/// The table that the tests and everybody but the workers use.
fn home() -> Vec<String> {
    let all = table("/proc/thread-self");
    // Looking takes one, too.
    all.into_iter().filter(|name| !name.starts_with("/proc/")).collect()
}

/// The workers' tables, by the threads' names.
fn workers() -> BTreeMap<String, Vec<String>> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has it").flatten().map(|task| task.path());
    let named = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.join("comm")).ok()?.trim().to_owned();
        let is_worker = name.strip_prefix("fanfare-").is_some_and(|number| number.parse::<u16>().is_ok());
        is_worker.then(|| (name, table(task.to_str().expect("digits"))))
    });
    named.collect()
}

/// TCP sockets at a local port, as tables name them.
fn sockets(port: u16, is_listener: bool) -> BTreeSet<String> {
    let all = fs::read_to_string("/proc/self/net/tcp").expect("Linux has it");
    let fields = all.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let here = fields.filter(|fields| fields[1].ends_with(&format!(":{port:04X}")));
    let such = here.filter(|fields| (fields[3] == "0A") == is_listener && fields[9] != "0");
    such.map(|fields| format!("socket:[{}]", fields[9])).collect()
}

/// In which workers' tables a descriptor is.
fn holders(name: &str) -> Vec<String> {
    let such = workers().into_iter().filter(|(_, table)| table.iter().any(|other| other == name));
    such.map(|(worker, _)| worker).collect()
}

fn assert_refuses(address: SocketAddr) {
    assert!(TcpStream::connect(address).is_err(), "somebody listens still");
    assert_eq!(sockets(address.port(), true), BTreeSet::new());
}

// ---- clients

/// A new session, and the connection that it was opened on, which is therefore its worker's.
fn session_on(address: SocketAddr, worker: usize) -> (Connection, String) {
    for _ in 0..1_000 {
        let mut connection = Connection::open(address);
        let sid = sid_of(&connection.get(POLLING).body).to_owned();
        if worker_of(&sid) == worker {
            return (connection, sid);
        }
    }
    panic!("a thousand connections, and worker {worker} got none of them");
}

/// A session of one worker whose client upgrades it over a connection that another one accepted.
fn upgrade(address: SocketAddr, owner: usize, acceptor: usize) -> Peer {
    let (_polling, sid) = session_on(address, owner);
    let (connection, _) = session_on(address, acceptor);
    let mut peer = Peer::over(connection, &format!("{WEBSOCKET}&sid={sid}"), &[]);
    peer.send("2probe");
    assert_eq!(peer.text(), "3probe");
    peer.send("5");
    peer.send("40");
    assert!(peer.text().starts_with("40{"));
    peer
}

// ---- promises

#[test]
fn whoever_accepts_the_upgrade_of_whosever_session_it_moves_to_its_owner() {
    let _turn = take_turns();
    let io = echo(own_tables());
    let server = Running::io(&io);
    let (address, port) = (server.address(), server.address().port());
    let pairs = (0..WORKERS).flat_map(|owner| (0..WORKERS).map(move |acceptor| (owner, acceptor)));
    // More than once, so that numbers of descriptors have come and gone.
    let pairs: Vec<_> = pairs.cycle().take(4 * WORKERS * WORKERS).collect();
    let mut peers: Vec<_> = pairs.iter().map(|&(owner, acceptor)| upgrade(address, owner, acceptor)).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        let packet = format!(r#"42["echo",{number}]"#);
        peer.send(&packet);
        assert_eq!(peer.text(), packet);
    }
    io.emit("to all", &()).expect("the server runs");
    peers.iter_mut().for_each(|peer| assert_eq!(peer.text(), r#"42["to all"]"#));
    wait_until("the connections that carried only polls are gone", || sockets(port, false).len() == peers.len());
    for socket in sockets(port, false) {
        assert_eq!(holders(&socket).len(), 1, "a stream is in one table");
        assert!(!home().contains(&socket));
    }
    let stats = stats(&io);
    assert_eq!((stats.connections_lost, stats.accept_failures), (0, 0));
    server.into_server().close();
    peers.iter_mut().for_each(Peer::expect_close);
    assert_refuses(address);
}

#[test]
fn the_requests_of_a_session_arrive_at_any_worker() {
    let _turn = take_turns();
    let io = echo(own_tables());
    let server = Running::io(&io);
    let mut lines: Vec<_> = (0..WORKERS).map(|worker| session_on(server.address(), worker).0).collect();
    for owner in 0..WORKERS {
        let (_, sid) = session_on(server.address(), owner);
        let target = format!("{POLLING}&sid={sid}");
        assert_eq!(post(server.address(), &target, "40").brief(), (200, "ok"));
        assert!(get(server.address(), &target).body.starts_with("40{"));
        for (worker, line) in lines.iter_mut().enumerate() {
            let packet = format!(r#"42["echo",{worker}]"#);
            assert_eq!(line.post(&target, &packet).brief(), (200, "ok"));
            assert_eq!(line.get(&target).brief(), (200, &*packet));
        }
    }
}

#[test]
fn a_handler_that_waits_is_woken_from_every_table() {
    let _turn = take_turns();
    let io = Io::with_settings(own_tables());
    let stats = io.clone();
    let (sender, elsewhere) = channel::<tokio::sync::oneshot::Sender<&str>>();
    io.of("/")
        .on_event("workers", move |_: Socket| {
            let stats = stats.clone();
            async move { stats.stats().await.map_or(0, |stats| stats.sockets) }
        })
        .on_event("home", move |_: Socket| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            _ = sender.send(answer);
            async move { answered.await.unwrap_or("nobody") }
        });
    std::thread::spawn(move || elsewhere.into_iter().for_each(|answer| _ = answer.send("from home")));
    let server = Running::io(&io);
    let mut peers: Vec<_> = (0..WORKERS).map(|worker| upgrade(server.address(), worker, worker)).collect();
    for round in 0..50 {
        for peer in &mut peers {
            peer.send(&format!(r#"42{round}["workers"]"#));
            assert_eq!(peer.text(), format!("43{round}[{WORKERS}]"));
            peer.send(&format!(r#"42{round}["home"]"#));
            assert_eq!(peer.text(), format!(r#"43{round}["from home"]"#));
        }
    }
}

#[test]
fn a_listener_is_in_the_table_of_its_worker_and_nowhere_else() {
    let _turn = take_turns();
    let io = echo(own_tables());
    let server = Running::io(&io);
    let listeners = sockets(server.address().port(), true);
    assert_eq!(listeners.len(), WORKERS);
    let held: BTreeSet<_> = listeners.iter().map(|listener| holders(listener)).collect();
    let expected = (0..WORKERS).map(|worker| vec![format!("fanfare-{worker}")]).collect();
    assert_eq!(held, expected, "each by one");
    assert!(home().iter().all(|name| !listeners.contains(name)));
}

#[test]
fn a_server_that_has_ended_leaves_nothing_open_and_nobody_at_its_port() {
    let _turn = take_turns();
    // What libraries open once and keep.
    echo(own_tables()).listen("127.0.0.1:0").expect("a free port").close();
    let before = home().len();
    for round in 0..3 {
        let io = echo(own_tables());
        let server = io.listen("127.0.0.1:0").expect("a free port");
        let address = server.address();
        let mut peer = upgrade(address, 0, 1);
        let (mut polling, _) = session_on(address, 2);
        if round == 0 {
            server.close();
        } else {
            // Nobody waits for this end.
            drop(server);
            io.close();
        }
        peer.expect_close();
        drop(peer);
        polling.rest();
        drop(polling);
        drop(io);
        wait_until("the workers have ended", || workers().is_empty());
        wait_until("home is as it was", || home().len() == before);
        assert_refuses(address);
    }
}

#[test]
fn while_it_closes_it_refuses_newcomers_though_somebody_is_still_being_served() {
    let _turn = take_turns();
    // Looking at all sockets of the machine takes a while where it has many.
    let io = echo(Settings { shutdown_grace: WAIT_MAX, ..own_tables() });
    let server = Running::io(&io);
    let address = server.address();
    // A connection whose first request is under way is waited for.
    let mut slow = Connection::open(address);
    slow.write("GET / HTTP/1.1\r\n");
    wait_until("it is accepted", || sockets(address.port(), false).len() == 1);
    io.close();
    wait_until("nobody listens", || sockets(address.port(), true).is_empty());
    assert!(TcpStream::connect(address).is_err());
    slow.write("Host: localhost\r\n\r\n");
    assert_eq!(slow.response().status, 404);
    server.into_server().wait();
}

#[test]
fn what_a_task_of_the_embedder_holds_is_closed_in_its_own_table() {
    let _turn = take_turns();
    let io = Io::with_settings(Settings { workers: 1, ..own_tables() });
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound");
    let (sender, number) = channel();
    io.on_connection(move |_: Socket| {
        let sender = sender.clone();
        drop(tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
            sender.send(stream.as_raw_fd()).expect("the test waits");
            std::future::pending::<()>().await;
            drop(stream);
        }));
    });
    let server = Running::io(&io);
    drop(upgrade(server.address(), 0, 0));
    let mut held = other.accept().expect("the task connects").0;
    let number = number.recv_timeout(WAIT_MAX).expect("the task says its descriptor");
    // The same number at home is something else.
    let mut files = Vec::new();
    while fs::read_link(format!("/proc/thread-self/fd/{number}")).is_err() {
        files.push(File::open("/dev/null").expect("it can be read"));
    }
    let here = table("/proc/thread-self").len();
    server.into_server().close();
    assert_eq!(held.read(&mut [0]).expect("an end"), 0);
    assert_eq!(table("/proc/thread-self").len(), here);
    assert!(fs::read_link(format!("/proc/thread-self/fd/{number}")).is_ok(), "nobody closed it");
}

#[test]
fn a_server_that_cannot_start_leaves_nothing_open() {
    let _turn = take_turns();
    echo(own_tables()).listen("127.0.0.1:0").expect("a free port").close();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let before = home().len();
    let error = echo(own_tables()).listen(address).err();
    assert!(matches!(error, Some(StartError::Bind { address: named, .. }) if named == address), "{error:?}");
    let io = echo(own_tables());
    // In a task, as in the program, where a runtime cannot just be dropped.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let server = io.listen("127.0.0.1:0").expect("a free port");
        let again = io.listen("127.0.0.1:0").err();
        assert!(matches!(again, Some(StartError::AlreadyListening)), "{again:?}");
        server.close();
    });
    drop((io, runtime));
    wait_until("home is as it was", || home().len() == before);
}

#[test]
fn the_library_shares_one_table_unless_it_is_told_otherwise() {
    let _turn = take_turns();
    let fd_tables = Settings::default().fd_tables;
    let io = echo(Settings { workers: WORKERS, fd_tables, ..settings() });
    let server = Running::io(&io);
    let listeners = sockets(server.address().port(), true);
    assert_eq!(listeners.len(), WORKERS);
    assert!(listeners.iter().all(|listener| home().contains(listener)));
}
