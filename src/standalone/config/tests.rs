//! The promises of the configuration, tested from the outside: words, variables and a file go in, a `Config` or the
//! exact text of the messages comes out.

mod messages;
mod reloading;
mod rendering;
mod sources;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Parser;

use super::options::{Reload, options, options_with_flag};
use super::*;
use crate::Policy;

const KEY: &str = "0123456789abcdef";

/// Every option but the key, with a value that is not its default.
const EVERY_OPTION: &str = r#"
        [server]
        listen = "[::1]:0"
        workers = 3
        fd_tables = "per-worker"
        io = "uring"
        pin = false
        path = "/a/b.c"
        client_dir = "."
        drain_time = "1m"
        shutdown_grace = 0
        accept_queue = 7
        trusted_proxies = ["10.1.2.3/8", "192.0.2.1", "2001:db8::/32"]
        proxy_protocol = "required"
        [engine]
        ping_interval = 1001
        ping_spread = false
        ping_timeout = "1m"
        upgrade_timeout = "1h"
        connect_timeout = "90s"
        payload_bytes_max = 1001
        transports = ["websocket"]
        allow_upgrades = false
        cookie = "a'b`"
        add_trailing_slash = false
        [cors]
        origins = ["https://a.example", "http://b.example:8080"]
        credentials = true
        [limits]
        connections_max = 4294967295
        connections_per_address_max = 1
        handshakes_per_second_max = 1000000
        events_per_second_max = 1
        bytes_per_second_max = "20KB"
        handshake_timeout = "100ms"
        request_timeout = "2s"
        policy = "drop-newest"
        conflate_keys_max = 11
        retain_keys_max = 12
        retain_rooms_max = 13
        retain_bytes_max = "14MB"
        outbox_bytes_max = "1GiB"
        outbox_age_max = "30s"
        outboxes_bytes_max = "4GiB"
        send_buffer_bytes = "1MiB"
        unsent_bytes_max = 0
        tcp_user_timeout = 0
        lag_bytes_max = "64KiB"
        namespaces_per_session_max = 1
        rooms_per_socket_max = 2
        room_bytes_max = 9
        publish_bytes_max = "64KiB"
        publish_batch_max = 3
        publishes_pending_max = 4
        publishes_pending_bytes_max = "1MB"
        publishes_per_second_max = 5
        idempotency_time = "1h"
        idempotency_keys_max = 6
        [namespaces."/"]
        client_events = ["say", "a\"b\\c\nd\u0000é"]
        [namespaces."/é \"quoted\"\t"]
        join = false
        policy = "conflate"
        conflate_every = "1s"
        retain = true
        [namespaces."/".rooms."ticker:*"]
        policy = "drop-oldest"
        conflate_every = 200
        retain = true
        [namespaces."/é \"quoted\"\t".rooms."a \"b\" é.c"]
        policy = "evict"
        [log]
        format = "json"
        level = "trace"
    "#;

#[derive(Parser, Debug)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn flags(words: &[&str]) -> Flags {
    Cli::try_parse_from(["fanfare"].iter().chain(words)).expect("clap takes these words").flags
}

/// Loads with these flags and variables, and with `file` as the text of fanfare.toml.
fn try_load(words: &[&str], env: &[(&str, &str)], file: &str) -> Result<Config, ConfigErrors> {
    let mut flags = flags(words);
    flags.config = Some("fanfare.toml".into());
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    load(&flags, env, |_| Ok(file.into()))
}

fn load_all(words: &[&str], env: &[(&str, &str)], file: &str) -> Config {
    try_load(words, env, file).unwrap_or_else(|errors| panic!("{errors}"))
}

fn load_file(file: &str) -> Config {
    load_all(&[], &[], file)
}

/// The messages, one a line, without the line that counts them.
fn messages(words: &[&str], env: &[(&str, &str)], file: &str) -> String {
    let text = try_load(words, env, file).expect_err("this is to be refused").to_string();
    let lines = text.lines().skip(1).map(|line| line.strip_prefix("  ").expect("messages are indented"));
    lines.collect::<Vec<_>>().join("\n")
}

fn file_message(file: &str) -> String {
    messages(&[], &[], file)
}

/// The line of `name` in the rendered configuration.
fn rendered(config: &Config, name: &str) -> String {
    let text = config.render();
    let is_it =
        |line: &&str| line.starts_with(&format!("{name} = ")) || line.starts_with(&format!("# {name} is unset"));
    text.lines().find(is_it).expect("every option is rendered").into()
}
