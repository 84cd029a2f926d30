//! Real clients against the `conformance` example: the official JavaScript client and python-socketio.
//!
//! Each test starts its own server on a free port and runs one suite from `tests/clients/` against it.
//! What a suite promises stands in its file; a failure prints the suite's whole output and the server's.
//! The clients are installed once, under `target/test-clients`, and again when their lock file changes.
//!
//! The same tests against another server, which has to print a line starting with `ready` when it listens:
//!     FANFARE_TEST_SERVER='my-server {profile} --port {port}' cargo test --test clients

mod support;

use std::time::Duration;
use support::{Server, node, python, run_suite};

/// The slowest suite takes about ten seconds; the rest is for a loaded machine.
const SUITE_TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn js_client_over_polling() {
    js("socket_io.mjs", "kit", "polling");
}

#[test]
fn js_client_over_websocket() {
    js("socket_io.mjs", "kit", "websocket");
}

#[test]
fn js_client_over_an_upgrade() {
    js("socket_io.mjs", "kit", "upgrade");
}

#[test]
fn js_engine_client_over_polling() {
    js("engine_io.mjs", "engine", "polling");
}

#[test]
fn js_engine_client_over_websocket() {
    js("engine_io.mjs", "engine", "websocket");
}

#[test]
fn js_engine_client_over_an_upgrade() {
    js("engine_io.mjs", "engine", "upgrade");
}

#[test]
fn python_client_over_polling() {
    py("sync_client.py", "polling");
}

#[test]
fn python_client_over_websocket() {
    py("sync_client.py", "websocket");
}

#[test]
fn python_client_over_an_upgrade() {
    py("sync_client.py", "upgrade");
}

#[test]
fn python_async_client_over_polling() {
    py("async_client.py", "polling");
}

#[test]
fn python_async_client_over_websocket() {
    py("async_client.py", "websocket");
}

#[test]
fn python_async_client_over_an_upgrade() {
    py("async_client.py", "upgrade");
}

#[test]
fn a_broadcast_reaches_each_of_200_js_clients_once() {
    js("crowd.mjs", "kit", "all");
}

#[test]
fn polling_sessions_share_a_kept_alive_connection() {
    js("keep_alive.mjs", "kit", "polling");
}

/// The suite connects over each transport, then asks on its standard output for the restart.
#[test]
fn js_clients_reconnect_after_a_restart() {
    let mut suite = node("reconnection.mjs");
    let mut server = Server::start("kit");
    suite.env("FANFARE_URL", server.url());
    let mut restarts = 0;
    run_suite(&mut suite, SUITE_TIME_MAX, |line| {
        if line == "restart the server" {
            server.restart();
            restarts += 1;
        }
    });
    assert_eq!(restarts, 1, "the suite has to ask for one restart");
}

/// A suite about one transport learns from `transport` which one.
fn js(script: &str, profile: &str, transport: &str) {
    let mut suite = node(script);
    let server = Server::start(profile);
    suite.env("FANFARE_URL", server.url()).env("FANFARE_TRANSPORT", transport);
    run_suite(&mut suite, SUITE_TIME_MAX, |_| {});
}

fn py(script: &str, transport: &str) {
    let mut suite = python(script);
    let server = Server::start("kit");
    suite.env("FANFARE_URL", server.url()).env("FANFARE_TRANSPORT", transport);
    run_suite(&mut suite, SUITE_TIME_MAX, |_| {});
}
