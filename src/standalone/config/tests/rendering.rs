//! Rendering: what `fanfare config` prints, and what the help and the table of options say.

use super::*;

#[test]
fn each_key_is_printed_with_its_meaning_and_its_source() {
    let file = "[server]\nworkers = 4\npublish_key = \"0123456789abcdef\"\n";
    let text = load_all(&["--listen", "[::]:80"], &[("FANFARE_PIN", "false")], file).render();
    let (head, _) = text.split_once("\n[engine]\n").unwrap();
    assert_eq!(
        head,
        "\
# The configuration in effect. Behind each value stands its source;
# the strongest wins: flag, FANFARE_ variable, file, default.

[server]
# The IP address and port to listen on; with port 0 the kernel chooses one.
listen = \"[::]:80\" # --listen
# How many worker threads there are; 0 is one per core.
workers = 4 # fanfare.toml:2
# Whether the workers share one table of file descriptors, or each has its own.
fd_tables = \"auto\" # default
# How workers hand bytes to the kernel.
io = \"auto\" # default
# Whether each worker stays on its own core.
pin = false # FANFARE_PIN
# The URL path of the Socket.IO endpoint.
path = \"/socket.io\" # default
# The secret that a publisher shows to POST /api/publish.
publish_key = \"***\" # fanfare.toml:3
# The directory with the official browser client, such as node_modules/socket.io-client/dist.
# client_dir is unset # default
# How many connections the kernel may hold for each worker until it accepts them.
accept_queue = 4096 # default
# The proxies whose word about their clients is taken: IP addresses, and networks like 10.0.0.0/8.
trusted_proxies = [] # default
# Whether each connection begins with a PROXY protocol header, of version 1 or 2.
proxy_protocol = \"off\" # default
# Over what time a graceful stop lets clients go, evenly; 0 closes all at once.
drain_time = \"10s\" # default
# How long a graceful stop may take, after its `drain_time`, before what is left is cut.
shutdown_grace = \"5s\" # default
"
    );
}

#[test]
fn what_is_printed_can_be_fed_back() {
    for config in [Config::default(), load_file(EVERY_OPTION), load_file("cors.origins = \"*\"")] {
        assert_eq!(load_file(&config.render()), config, "{}", config.render());
    }
    let changed = load_file(EVERY_OPTION);
    for spec in options().filter(|spec| !spec.kind.is_secret()) {
        assert_ne!(changed.source(&spec.key()), &Source::Default, "{} is missing above", spec.key());
    }
}

#[test]
fn a_line_break_in_the_files_name_does_not_break_what_is_printed() {
    let text = load(&flags(&["--config", "a\nb = 1"]), std::iter::empty(), |_| Ok("server.workers = 1".into()));
    assert_eq!(rendered(&text.unwrap(), "workers"), "workers = 1 # a?b = 1:1");
}

#[test]
fn the_publish_key_shows_itself_only_when_asked() {
    let words = ["--publish-key", KEY];
    let config = load_all(&words, &[], "");
    assert!(!format!("{config:?}").contains(KEY) && !config.render().contains(KEY));
    assert!(!format!("{:?}", flags(&words)).contains(KEY));
    assert_eq!(config.server.publish_key.unwrap().expose(), KEY);
}

#[test]
fn names_are_unique_also_without_their_section() {
    let count = options_with_flag().count();
    let flags: BTreeSet<_> = options_with_flag().map(|(_, spec)| spec.flag()).collect();
    let variables: BTreeSet<_> = options_with_flag().map(|(_, spec)| spec.variable()).collect();
    assert_eq!((flags.len(), variables.len()), (count, count));
    assert!(!flags.contains("config") && !variables.contains("FANFARE_CONFIG"));
}

#[test]
fn names_are_derived_from_the_key() {
    let names: Vec<_> = options_with_flag().map(|(key, spec)| (key, spec.flag(), spec.variable())).collect();
    let has =
        |key: &str, flag: &str, variable: &str| assert!(names.contains(&(key.into(), flag.into(), variable.into())));
    has("server.listen", "listen", "FANFARE_LISTEN");
    has("engine.ping_interval", "ping-interval", "FANFARE_PING_INTERVAL");
    has("engine.transports", "transport", "FANFARE_TRANSPORTS");
    has("limits.outbox_bytes_max", "outbox-bytes-max", "FANFARE_OUTBOX_BYTES_MAX");
    has("server.trusted_proxies", "trusted-proxy", "FANFARE_TRUSTED_PROXIES");
    has("cors.origins", "cors-origin", "FANFARE_CORS_ORIGINS");
    has("log.level", "log-level", "FANFARE_LOG_LEVEL");
}

#[test]
fn every_default_passes_its_own_check_and_every_option_explains_itself() {
    for spec in options().chain(Namespace::OPTIONS).chain(Room::OPTIONS) {
        assert_eq!(spec.default_value() == super::Value::Unset, spec.default.is_none(), "{}", spec.key());
        assert!(spec.meaning().ends_with('.') && spec.meaning().len() < 120, "{}", spec.key());
        assert!(spec.reasons().ends_with('.'), "{}", spec.key());
    }
}

#[test]
fn the_help_has_every_flag_with_its_default_and_its_variable() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
    let help = Cli::command().term_width(1000).render_long_help().to_string();
    for (_, spec) in options_with_flag() {
        assert!(help.contains(&format!("--{}", spec.flag())), "{}", spec.key());
        assert!(help.contains(spec.meaning()) && help.contains(&spec.reasons()), "{}", spec.key());
    }
    assert!(help.contains("[default: 25s] [env: FANFARE_PING_INTERVAL]"));
}
