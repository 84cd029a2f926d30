//! The server program from outside: the real binary on a free port, spoken to over plain sockets.
//!
//! Every test starts its own server, so they run side by side. Nothing sleeps: a test waits for a line, for an answer,
//! or for the end of the process.
#![cfg(feature = "standalone")]

mod clients;
#[cfg(target_os = "linux")]
mod descriptors;
mod endings;
mod io_uring;
mod poller;
mod program;
mod publishing;
mod reloading;
mod routes;
mod starting;
#[path = "../support/mod.rs"]
mod support;
