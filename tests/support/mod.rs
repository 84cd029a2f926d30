//! Support: what the integration tests share. A server to talk to, clients to talk with, a way to run them.
//!
//! `Server` is a guard: it starts the `conformance` example, or another program, on a free port and stops it when
//! dropped.
//! `node` and `python` give a command with its packages installed; `run_suite` runs it, with a deadline.
//! `Running` guards a server inside the test's own process, `Fixture` one whose sockets tell how they end; `http` and
//! `websocket` are peers that show every byte, `client` is one that shows every packet.
//!
//! Invariants: nothing is written outside the target directory; no process outlives its guard.
//! Not here:   what the clients check (tests/clients/).

#![allow(dead_code, reason = "each integration test uses its own part")]

pub mod client;
pub mod http;
mod install;
mod process;
mod running;
mod server;
pub mod websocket;

#[allow(unused_imports, reason = "each integration test uses its own part")]
pub use install::{chromium, node, node_package, python};
#[allow(unused_imports, reason = "each integration test uses its own part")]
pub use process::run_suite;
#[allow(unused_imports, reason = "each integration test uses its own part")]
pub use running::{Fixture, Running, block_on, settings, stats, wait_for_stats};
#[allow(unused_imports, reason = "each integration test uses its own part")]
pub use server::Server;

use std::path::{Path, PathBuf};

/// `target/<profile>`: the test itself runs from `target/<profile>/deps/`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    test.ancestors().nth(2).expect("cargo puts tests into target/<profile>/deps").to_path_buf()
}

/// Installed clients live here: the source tree stays clean and `cargo clean` removes them.
fn clients_dir() -> PathBuf {
    profile_dir().parent().expect("a profile directory is inside target").join("test-clients")
}

fn suites_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}
