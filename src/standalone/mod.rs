//! The server program, `fanfare`: the library, a configuration, and a few routes.
#![forbid(unsafe_code)]

pub mod config;
