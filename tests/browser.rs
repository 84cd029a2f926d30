//! A real browser against the real program: the page that it serves, and the official client from its own bundle route.
//!
//! Each test starts its own server on a free port and runs one suite from `tests/clients/js/`, which drives a headless
//! Chromium with a fresh profile. What a suite promises stands in its file; a failure prints the suite's whole output
//! and the server's. The browser and its driver are installed where they are missing.
#![cfg(feature = "standalone")]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::{Server, chromium, node, node_package, run_suite};

/// A suite takes about ten seconds; the rest is for a loaded machine.
const SUITE_TIME_MAX: Duration = Duration::from_secs(90);

#[test]
fn the_page_in_a_browser() {
    in_a_browser("page.mjs");
}

#[test]
fn the_official_client_in_a_browser() {
    in_a_browser("browser_client.mjs");
}

/// A suite asks on its standard output for the server's end and for its return.
fn in_a_browser(script: &str) {
    let browser = chromium();
    let mut suite = node(script);
    let mut server = Server::start_by(serve(node_package("socket.io-client").join("dist")), "fanfare ");
    suite.env("FANFARE_URL", server.url()).env("FANFARE_BROWSER", browser).env("FANFARE_BROWSER_HOME", home(script));
    run_suite(&mut suite, SUITE_TIME_MAX, |line| match line {
        "stop the server" => server.stop(),
        "restart the server" => server.restart(),
        _ => {}
    });
}

/// `fanfare serve`, with the client's bundles and an event that clients may publish, and nothing from our environment.
fn serve(bundles: PathBuf) -> impl Fn(u16) -> Command {
    move |port| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        let ours = std::env::vars_os().map(|(name, _)| name);
        ours.filter(|name| name.to_string_lossy().starts_with("FANFARE_")).for_each(|name| {
            command.env_remove(name);
        });
        command.env_remove("RUST_LOG").args(["serve", "--workers", "2", "--client-event", "say"]);
        command.args(["--listen", &format!("127.0.0.1:{port}")]).arg("--client-dir").arg(&bundles);
        command
    }
}

/// An empty directory for all that a browser writes.
fn home(script: &str) -> PathBuf {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser").join(script);
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).expect("target is writable");
    home
}
