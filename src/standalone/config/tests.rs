//! The promises of the configuration, tested from the outside: words, variables and a file go in, a `Config` or the
//! exact text of the messages comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Parser;

use super::options::{Reload, options, options_with_flag};
use super::*;
use crate::Policy;

const KEY: &str = "0123456789abcdef";

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

// Sources.

#[test]
fn without_any_source_everything_has_its_default() {
    let read_file = |_: &Path| panic!("no file was named");
    let config = load(&Flags::default(), std::iter::empty(), read_file).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.server.listen, "127.0.0.1:3000".parse().unwrap());
    assert_eq!(config.engine.ping_interval.as_millis(), 25_000);
    assert_eq!(config.engine.payload_bytes_max, 1_000_000);
    assert_eq!(config.engine.transports, Transports { polling: true, websocket: true });
    assert_eq!(config.limits.outbox_bytes_max, 4 << 20);
    assert_eq!(config.limits.outbox_age_max, Duration::from_secs(20));
    assert_eq!(config.limits.outboxes_bytes_max, 1 << 30);
    assert_eq!(config.cors.origins, Origins::Off);
    assert_eq!(config.namespaces.keys().collect::<Vec<_>>(), ["/"]);
    assert_eq!(config.source("server.listen"), &Source::Default);
}

/// The option's name; the file; the variable; the flag; then the lines rendered when all are given, when the flag is
/// not, when only the file is, and when none is.
type Precedence<'a> = (&'a str, &'a str, (&'a str, &'a str), &'a [&'a str], [&'a str; 4]);

fn check_precedence((name, file, variable, words, lines): Precedence) {
    let all = load_all(words, &[variable], file);
    let without_flag = load_all(&[], &[variable], file);
    let only_file = load_all(&[], &[], file);
    let found = [all, without_flag, only_file, Config::default()].map(|config| rendered(&config, name));
    assert_eq!(found, lines.map(|line| line.to_string()));
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default_for_each_type() {
    let cases: &[Precedence] = &[
        (
            "pin",
            "[server]\npin = false",
            ("FANFARE_PIN", "true"),
            &["--pin=false"],
            ["pin = false # --pin", "pin = true # FANFARE_PIN", "pin = false # fanfare.toml:2", "pin = true # default"],
        ),
        (
            "workers",
            "[server]\n\n\nworkers = 1",
            ("FANFARE_WORKERS", "2"),
            &["--workers", "3"],
            [
                "workers = 3 # --workers",
                "workers = 2 # FANFARE_WORKERS",
                "workers = 1 # fanfare.toml:4",
                "workers = 0 # default",
            ],
        ),
        (
            "payload_bytes_max",
            "engine.payload_bytes_max = 0x1_0000",
            ("FANFARE_PAYLOAD_BYTES_MAX", "2MB"),
            &["--payload-bytes-max", "3001"],
            [
                "payload_bytes_max = 3001 # --payload-bytes-max",
                "payload_bytes_max = \"2MB\" # FANFARE_PAYLOAD_BYTES_MAX",
                "payload_bytes_max = \"64KiB\" # fanfare.toml:1",
                "payload_bytes_max = \"1MB\" # default",
            ],
        ),
        (
            "ping_interval",
            "[engine]\nping_interval = \"500ms\"",
            ("FANFARE_PING_INTERVAL", "2000"),
            &["--ping-interval", "3m"],
            [
                "ping_interval = \"3m\" # --ping-interval",
                "ping_interval = \"2s\" # FANFARE_PING_INTERVAL",
                "ping_interval = \"500ms\" # fanfare.toml:2",
                "ping_interval = \"25s\" # default",
            ],
        ),
        (
            "listen",
            "[server]\nlisten = \"127.0.0.1:1\"",
            ("FANFARE_LISTEN", "127.0.0.1:2"),
            &["--listen", "[::1]:3"],
            [
                "listen = \"[::1]:3\" # --listen",
                "listen = \"127.0.0.1:2\" # FANFARE_LISTEN",
                "listen = \"127.0.0.1:1\" # fanfare.toml:2",
                "listen = \"127.0.0.1:3000\" # default",
            ],
        ),
        (
            "path",
            "[server]\npath = \"/a/\"",
            ("FANFARE_PATH", "/b"),
            &["--path", "/c/d/"],
            [
                "path = \"/c/d\" # --path",
                "path = \"/b\" # FANFARE_PATH",
                "path = \"/a\" # fanfare.toml:2",
                "path = \"/socket.io\" # default",
            ],
        ),
        (
            "client_dir",
            "[server]\nclient_dir = \"/\"",
            ("FANFARE_CLIENT_DIR", "."),
            &["--client-dir", ".."],
            [
                "client_dir = \"..\" # --client-dir",
                "client_dir = \".\" # FANFARE_CLIENT_DIR",
                "client_dir = \"/\" # fanfare.toml:2",
                "# client_dir is unset # default",
            ],
        ),
        (
            "cookie",
            "[engine]\ncookie = \"a\"",
            ("FANFARE_COOKIE", "b"),
            &["--cookie", "c"],
            [
                "cookie = \"c\" # --cookie",
                "cookie = \"b\" # FANFARE_COOKIE",
                "cookie = \"a\" # fanfare.toml:2",
                "# cookie is unset # default",
            ],
        ),
        (
            "fd_tables",
            "[server]\nfd_tables = \"per-worker\"",
            ("FANFARE_FD_TABLES", "auto"),
            &["--fd-tables", "shared"],
            [
                "fd_tables = \"shared\" # --fd-tables",
                "fd_tables = \"auto\" # FANFARE_FD_TABLES",
                "fd_tables = \"per-worker\" # fanfare.toml:2",
                "fd_tables = \"auto\" # default",
            ],
        ),
        (
            "io",
            "[server]\nio = \"uring\"",
            ("FANFARE_IO", "auto"),
            &["--io", "send"],
            [
                "io = \"send\" # --io",
                "io = \"auto\" # FANFARE_IO",
                "io = \"uring\" # fanfare.toml:2",
                "io = \"auto\" # default",
            ],
        ),
        (
            "policy",
            "[limits]\npolicy = \"conflate\"",
            ("FANFARE_POLICY", "drop-newest"),
            &["--policy", "drop-oldest"],
            [
                "policy = \"drop-oldest\" # --policy",
                "policy = \"drop-newest\" # FANFARE_POLICY",
                "policy = \"conflate\" # fanfare.toml:2",
                "policy = \"evict\" # default",
            ],
        ),
        (
            "level",
            "[log]\nlevel = \"trace\"",
            ("FANFARE_LOG_LEVEL", "warn"),
            &["--log-level", "error"],
            [
                "level = \"error\" # --log-level",
                "level = \"warn\" # FANFARE_LOG_LEVEL",
                "level = \"trace\" # fanfare.toml:2",
                "level = \"info\" # default",
            ],
        ),
        (
            "transports",
            "[engine]\ntransports = [\"websocket\"]",
            ("FANFARE_TRANSPORTS", "polling"),
            &["--transport", "websocket", "--transport", "polling"],
            [
                "transports = [\"polling\", \"websocket\"] # --transport",
                "transports = [\"polling\"] # FANFARE_TRANSPORTS",
                "transports = [\"websocket\"] # fanfare.toml:2",
                "transports = [\"polling\", \"websocket\"] # default",
            ],
        ),
        (
            "origins",
            "[cors]\norigins = \"*\"",
            ("FANFARE_CORS_ORIGINS", "https://a.example, https://b.example"),
            &["--cors-origin", "http://c.example:8080", "--cors-origin", "http://d.example"],
            [
                "origins = [\"http://c.example:8080\", \"http://d.example\"] # --cors-origin",
                "origins = [\"https://a.example\", \"https://b.example\"] # FANFARE_CORS_ORIGINS",
                "origins = [\"*\"] # fanfare.toml:2",
                "origins = [] # default",
            ],
        ),
    ];
    cases.iter().for_each(|case| check_precedence(*case));
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_for_the_publish_key() {
    let file = "[server]\npublish_key = \"file-0123456789abcdef\"";
    let env = [("FANFARE_PUBLISH_KEY", "variable-0123456789abcdef")];
    let words = ["--publish-key", "flag-0123456789abcdef"];
    let key = |config: Config| config.server.publish_key.map(|key| key.expose().to_string());
    assert_eq!(key(load_all(&words, &env, file)).as_deref(), Some("flag-0123456789abcdef"));
    assert_eq!(key(load_all(&[], &env, file)).as_deref(), Some("variable-0123456789abcdef"));
    assert_eq!(key(load_all(&[], &[], file)).as_deref(), Some("file-0123456789abcdef"));
    assert_eq!(key(Config::default()), None);
}

#[test]
fn client_event_flags_replace_the_files_list_for_the_main_namespace_only() {
    let file = "namespaces.\"/\".client_events = [\"a\"]\nnamespaces.\"/admin\".client_events = [\"b\"]";
    let config = load_all(&["--client-event", "x,y", "--client-event", "z"], &[], file);
    assert_eq!(config.namespaces["/"].client_events, BTreeSet::from(["x,y".into(), "z".into()]));
    assert_eq!(config.namespaces["/admin"].client_events, BTreeSet::from(["b".into()]));
    assert_eq!(config.source("namespaces.\"/\".client_events"), &Source::Flag("--client-event".into()));
}

#[test]
fn a_namespace_without_options_exists_with_the_defaults_and_main_exists_always() {
    let config = load_file("[namespaces.\"/admin\"]\n[namespaces.\"/quiet\"]\njoin = false");
    assert_eq!(config.namespaces.keys().collect::<Vec<_>>(), ["/", "/admin", "/quiet"]);
    let (client_events, join, policy, conflate_every, retain) = (BTreeSet::new(), true, None, None, false);
    let defaults = Namespace { client_events, join, policy, conflate_every, retain };
    assert_eq!(config.namespaces["/admin"], defaults);
    assert!(!config.namespaces["/quiet"].join);
}

#[test]
fn namespaces_and_rooms_have_rules() {
    let config = load_file(
        r#"
        [limits]
        policy = "drop-oldest"
        [namespaces."/"]
        policy = "evict"
        [namespaces."/".rooms."ticker:*"]
        policy = "conflate"
        conflate_every = "200ms"
        retain = true
        [namespaces."/".rooms]
        lobby = {}
        [namespaces."/admin".rooms."*"]
        policy = "drop-newest"
        "#,
    );
    assert_eq!((config.limits.policy, config.namespaces["/"].policy), (Policy::DropOldest, Some(Policy::Evict)));
    let room = |namespace: &str, name: &str| &config.rooms[&(namespace.into(), name.into())];
    let window = Some(Duration::from_millis(200));
    let ticker = Room { policy: Some(Policy::Conflate), conflate_every: window, retain: true };
    assert_eq!(*room("/", "ticker:*"), ticker);
    assert_eq!(*room("/", "lobby"), Room { policy: None, conflate_every: None, retain: false });
    assert_eq!(room("/admin", "*").policy, Some(Policy::DropNewest));
    assert!(config.namespaces.contains_key("/admin") && config.rooms.len() == 3);
    let source = config.source("namespaces.\"/\".rooms.\"ticker:*\".retain");
    assert_eq!(source.to_string(), "fanfare.toml:9");
}

#[test]
fn the_flag_names_the_file_before_the_variable_does() {
    let env = || [("FANFARE_CONFIG".to_string(), "from-variable.toml".to_string())].into_iter();
    let asked = |words: &[&str]| {
        let mut asked = None;
        load(&flags(words), env(), |path| {
            asked = Some(path.to_path_buf());
            Ok(String::new())
        })
        .unwrap();
        asked
    };
    assert_eq!(asked(&[]), Some("from-variable.toml".into()));
    assert_eq!(asked(&["--config", "from-flag.toml"]), Some("from-flag.toml".into()));
}

#[test]
fn a_switch_flag_alone_means_true() {
    assert!(load_all(&["--cors-credentials"], &[], "").cors.credentials);
}

#[test]
fn an_empty_variable_is_an_empty_list_but_not_an_empty_text() {
    let config = load_all(&[], &[("FANFARE_CORS_ORIGINS", "")], "cors.origins = \"*\"");
    assert_eq!(config.cors.origins, Origins::Off);
    assert_eq!(
        messages(&[], &[("FANFARE_PUBLISH_KEY", "")], ""),
        "server.publish_key (FANFARE_PUBLISH_KEY): 0 characters are too few; allowed: at least 16 visible ASCII characters, no spaces"
    );
}

#[test]
fn variables_that_a_cluster_manager_makes_are_ignored_and_none_of_ours_looks_like_one() {
    let links = [
        ("FANFARE_SERVICE_HOST", "10.0.0.1"),
        ("FANFARE_SERVICE_PORT", "3000"),
        ("FANFARE_SERVICE_PORT_HTTP", "3000"),
        ("FANFARE_PORT", "tcp://10.0.0.1:3000"),
        ("FANFARE_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
        ("FANFARE_PORT_3000_TCP_ADDR", "10.0.0.1"),
        ("FANFARE_PORT_3000_TCP_PORT", "3000"),
        ("FANFARE_PORT_3000_TCP_PROTO", "tcp"),
        ("FANFARE_EDGE_SERVICE_HOST", "10.0.0.2"),
        ("FANFARE_EDGE_PORT", "tcp://10.0.0.2:80"),
        ("FANFARE_EDGE_PORT_80_TCP_ADDR", "10.0.0.2"),
    ];
    assert_eq!(load_all(&[], &links, ""), Config::default());
    for spec in options() {
        let name = spec.variable();
        assert!(!name.contains("_SERVICE_") && !name.ends_with("_PORT") && !name.contains("_PORT_"), "{name}");
    }
}

#[test]
fn variables_of_others_are_not_looked_at() {
    assert_eq!(load_all(&[], &[("PATH", "/bin"), ("FANFARES", "1"), ("fanfare_listen", "x")], ""), Config::default());
}

// Messages.

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let cases = [
        (
            "[limits]\nconections_max = 1",
            "limits.conections_max (fanfare.toml:2): unknown key; did you mean limits.connections_max?",
        ),
        (
            "[engine]\npingInterval = 1",
            "engine.pingInterval (fanfare.toml:2): unknown key; did you mean engine.ping_interval?",
        ),
        (
            "[engine]\nmaxHttpBufferSize = 1",
            "engine.maxHttpBufferSize (fanfare.toml:2): unknown key; did you mean engine.payload_bytes_max?",
        ),
        (
            "[limits]\nconnect_timeout = 1",
            "limits.connect_timeout (fanfare.toml:2): unknown key; did you mean engine.connect_timeout?",
        ),
        ("lisen = 1", "lisen (fanfare.toml:1): unknown key; did you mean server.listen?"),
        ("\n[limit]\nx = 1", "limit (fanfare.toml:2): unknown key; did you mean [limits]?"),
        (
            "[namespaces.\"/\"]\nroom = {}",
            "namespaces.\"/\".room (fanfare.toml:2): unknown key; did you mean namespaces.\"/\".rooms?",
        ),
        (
            "[namespaces.\"/\".rooms.a]\nretains = true",
            "namespaces.\"/\".rooms.\"a\".retains (fanfare.toml:2): unknown key; did you mean namespaces.\"/\".rooms.\"a\".retain?",
        ),
        (
            "[namespaces.\"/\"]\nclient_event = []",
            "namespaces.\"/\".client_event (fanfare.toml:2): unknown key; did you mean namespaces.\"/\".client_events?",
        ),
    ];
    cases.iter().for_each(|(file, message)| assert_eq!(file_message(file), *message));
}

#[test]
fn an_unknown_key_that_resembles_nothing_is_refused_with_what_is_allowed() {
    assert_eq!(
        file_message("[log]\n\"a b\" = 1"),
        "log.\"a b\" (fanfare.toml:2): unknown key; allowed here: format, level"
    );
    assert_eq!(
        file_message("[database]"),
        "database (fanfare.toml:1): unknown key; allowed here: [server], [engine], [cors], [limits], [namespaces], [log]"
    );
}

#[test]
fn in_a_namespace_and_a_room_too_an_unknown_key_is_told_what_is_allowed() {
    assert_eq!(
        file_message("[namespaces.\"/\"]\nx = 1"),
        "namespaces.\"/\".x (fanfare.toml:2): unknown key; allowed here: client_events, join, policy, conflate_every, retain, rooms"
    );
    assert_eq!(
        file_message("[namespaces.\"/\".rooms.\"b*\"]\nx = 1"),
        "namespaces.\"/\".rooms.\"b*\".x (fanfare.toml:2): unknown key; allowed here: policy, conflate_every, retain"
    );
}

#[test]
fn a_room_is_named_or_how_its_name_begins() {
    for name in ["a*b", "**", "*a"] {
        assert_eq!(
            file_message(&format!("[namespaces.\"/\".rooms.\"{name}\"]")),
            format!(
                "namespaces.\"/\".rooms.\"{name}\" (fanfare.toml:1): \"*\" stands at the end only; allowed: a room's name, or how names begin and \"*\", like \"ticker:*\""
            )
        );
    }
}

#[test]
fn a_rule_that_no_room_can_have_is_refused() {
    let message = |line: &str| file_message(&format!("[namespaces.\"/\".rooms.a]\n{line}"));
    let at = "namespaces.\"/\".rooms.\"a\"";
    assert_eq!(
        message("policy = \"drop\""),
        format!(
            "{at}.policy (fanfare.toml:2): \"drop\" is not offered; allowed: evict, drop-newest, drop-oldest, conflate"
        )
    );
    for every in ["0", "\"61s\""] {
        assert_eq!(
            message(&format!("conflate_every = {every}")),
            format!(
                "{at}.conflate_every (fanfare.toml:2): {every} is out of range; allowed: 1ms to 1m, written like \"25s\", \"500ms\", \"2m\" or as a whole number of milliseconds"
            )
        );
    }
}

#[test]
fn an_unknown_variable_is_refused() {
    let message = |name: &str, value: &str| messages(&[], &[(name, value)], "");
    assert_eq!(message("FANFARE_LISTN", "1"), "FANFARE_LISTN: unknown variable; did you mean FANFARE_LISTEN?");
    assert_eq!(
        message("FANFARE_SERVER_LISTEN", "1"),
        "FANFARE_SERVER_LISTEN: unknown variable; did you mean FANFARE_LISTEN?"
    );
    assert_eq!(message("FANFARE_CONFG", "1"), "FANFARE_CONFG: unknown variable; did you mean FANFARE_CONFIG?");
    assert_eq!(
        message("FANFARE_PORT", "8080"),
        "FANFARE_PORT: unknown variable; `fanfare serve --help` lists those that begin with FANFARE_"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    let cases = [
        (
            "[server]\nfd_tables = true",
            "server.fd_tables (fanfare.toml:2): true is of the wrong type; allowed: auto, shared, per-worker",
        ),
        (
            "[server]\nworkers = \"4\"",
            "server.workers (fanfare.toml:2): \"4\" is of the wrong type; allowed: a whole number from 0 to 1024",
        ),
        ("[server]\npin = 1", "server.pin (fanfare.toml:2): 1 is of the wrong type; allowed: true or false"),
        (
            "[server]\nlisten = 3000",
            "server.listen (fanfare.toml:2): 3000 is of the wrong type; allowed: an IP address and a port, like \"127.0.0.1:3000\" or \"[::1]:3000\"",
        ),
        (
            "[engine]\nping_interval = 2.5",
            "engine.ping_interval (fanfare.toml:2): 2.5 is of the wrong type; allowed: 100ms to 1h, written like \"25s\", \"500ms\", \"2m\" or as a whole number of milliseconds",
        ),
        (
            "[engine]\npayload_bytes_max = 99999999999999999999999999999999999999999999",
            "engine.payload_bytes_max (fanfare.toml:2): a number of that size is of the wrong type; allowed: 1KB to 64MB, written like \"1MB\", \"64KiB\" or as a whole number of bytes",
        ),
        (
            "[engine]\ntransports = \"polling\"",
            "engine.transports (fanfare.toml:2): \"polling\" is of the wrong type; allowed: a list of one or more of polling, websocket",
        ),
        (
            "[cors]\norigins = [\n  1\n]",
            "cors.origins (fanfare.toml:2): 1 is of the wrong type; allowed: \"*\", or a list of origins like \"https://example.com\": scheme://host[:port], no path",
        ),
        (
            "[log]\nlevel = {}",
            "log.level (fanfare.toml:2): a table is of the wrong type; allowed: error, warn, info, debug, trace",
        ),
        (
            "[engine]\ncookie = [\"io\"]",
            "engine.cookie (fanfare.toml:2): a list is of the wrong type; allowed: a cookie's name, like \"io\": letters, digits and !#$%&'*+-.^_`|~",
        ),
        (
            "[server]\npath = 1979-05-27",
            "server.path (fanfare.toml:2): a date or time is of the wrong type; allowed: a path of one or more names, like \"/socket.io\"",
        ),
        (
            "[namespaces.\"/\"]\nclient_events = true",
            "namespaces.\"/\".client_events (fanfare.toml:2): true is of the wrong type; allowed: a list of event names",
        ),
        (
            "[server]\nclient_dir = 1",
            "server.client_dir (fanfare.toml:2): 1 is of the wrong type; allowed: a directory that exists",
        ),
    ];
    cases.iter().for_each(|(file, message)| assert_eq!(file_message(file), *message));
    assert_eq!(
        messages(&["--workers", "four"], &[], ""),
        "server.workers (--workers): \"four\" is of the wrong type; allowed: a whole number from 0 to 1024"
    );
    assert_eq!(
        messages(&[], &[("FANFARE_PIN", "yes")], ""),
        "server.pin (FANFARE_PIN): \"yes\" is of the wrong type; allowed: true or false"
    );
}

#[test]
fn a_malformed_value_is_refused() {
    let cases = [
        (
            "[engine]\nping_interval = \"25 sec\"",
            "engine.ping_interval (fanfare.toml:2): \"25 sec\" is malformed; allowed: 100ms to 1h, written like \"25s\", \"500ms\", \"2m\" or as a whole number of milliseconds",
        ),
        (
            "[limits]\npublish_bytes_max = \"1 MB\"",
            "limits.publish_bytes_max (fanfare.toml:2): \"1 MB\" is malformed; allowed: 1KB to 64MB, written like \"1MB\", \"64KiB\" or as a whole number of bytes",
        ),
        (
            "[server]\nlisten = \"localhost:3000\"",
            "server.listen (fanfare.toml:2): \"localhost:3000\" is malformed; allowed: an IP address and a port, like \"127.0.0.1:3000\" or \"[::1]:3000\"",
        ),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            "server.trusted_proxies (fanfare.toml:2): \"10.0.0.0/33\" is malformed; allowed: a list of IP addresses, like \"192.0.2.1\", or networks, like \"10.0.0.0/8\"",
        ),
        (
            "[server]\npath = \"socket.io\"",
            "server.path (fanfare.toml:2): \"socket.io\" is malformed; allowed: a path of one or more names, like \"/socket.io\"",
        ),
        (
            "[engine]\ncookie = \"a b\\n\"",
            "engine.cookie (fanfare.toml:2): \"a b\\n\" is malformed; allowed: a cookie's name, like \"io\": letters, digits and !#$%&'*+-.^_`|~",
        ),
        (
            "[cors]\norigins = [\"https://a.example/\"]",
            "cors.origins (fanfare.toml:2): \"https://a.example/\" is malformed; allowed: \"*\", or a list of origins like \"https://example.com\": scheme://host[:port], no path",
        ),
    ];
    cases.iter().for_each(|(file, message)| assert_eq!(file_message(file), *message));
}

#[test]
fn a_value_out_of_range_is_refused() {
    let cases = [
        (
            "[server]\nworkers = 1025",
            "server.workers (fanfare.toml:2): 1025 is out of range; allowed: a whole number from 0 to 1024",
        ),
        (
            "[engine]\nping_interval = \"2h\"",
            "engine.ping_interval (fanfare.toml:2): \"2h\" is out of range; allowed: 100ms to 1h, written like \"25s\", \"500ms\", \"2m\" or as a whole number of milliseconds",
        ),
        (
            "[engine]\nping_interval = 99",
            "engine.ping_interval (fanfare.toml:2): 99 is out of range; allowed: 100ms to 1h, written like \"25s\", \"500ms\", \"2m\" or as a whole number of milliseconds",
        ),
        (
            "[engine]\npayload_bytes_max = \"65MB\"",
            "engine.payload_bytes_max (fanfare.toml:2): \"65MB\" is out of range; allowed: 1KB to 64MB, written like \"1MB\", \"64KiB\" or as a whole number of bytes",
        ),
        (
            "[limits]\nrooms_per_socket_max = 0",
            "limits.rooms_per_socket_max (fanfare.toml:2): 0 is out of range; allowed: a whole number from 1 to 4294967295",
        ),
    ];
    cases.iter().for_each(|(file, message)| assert_eq!(file_message(file), *message));
    assert_eq!(
        messages(&["--workers", "-1"], &[], ""),
        "server.workers (--workers): -1 is out of range; allowed: a whole number from 0 to 1024"
    );
}

#[test]
fn a_range_includes_its_ends() {
    let config = load_file("[engine]\nping_interval = 100\nping_timeout = \"1h\"\npayload_bytes_max = \"64MB\"");
    assert_eq!(config.engine.ping_interval.as_millis(), 100);
    assert_eq!(config.engine.ping_timeout.as_secs(), 3600);
    assert_eq!(config.engine.payload_bytes_max, 64_000_000);
    assert_eq!(load_file("[engine]\npayload_bytes_max = 1000").engine.payload_bytes_max, 1000);
}

#[test]
fn a_choice_that_is_not_offered_is_refused() {
    assert_eq!(
        file_message("[log]\nformat = \"jsn\""),
        "log.format (fanfare.toml:2): \"jsn\" is not offered; did you mean json? allowed: text, json"
    );
    assert_eq!(
        file_message("[log]\nlevel = \"verbose\""),
        "log.level (fanfare.toml:2): \"verbose\" is not offered; allowed: error, warn, info, debug, trace"
    );
    assert_eq!(
        messages(&["--transport", "websockets"], &[], ""),
        "engine.transports (--transport): \"websockets\" is not offered; did you mean websocket? allowed: a list of one or more of polling, websocket"
    );
}

#[test]
fn a_list_that_is_empty_or_repeats_itself_is_refused() {
    assert_eq!(
        file_message("[engine]\ntransports = []"),
        "engine.transports (fanfare.toml:2): the list is empty; allowed: a list of one or more of polling, websocket"
    );
    assert_eq!(
        file_message("[engine]\ntransports = [\"polling\", \"polling\"]"),
        "engine.transports (fanfare.toml:2): \"polling\" is given twice"
    );
    assert_eq!(
        file_message("[cors]\norigins = [\"https://a.example\", \"https://A.example:443\"]"),
        "cors.origins (fanfare.toml:2): \"https://a.example\" is given twice"
    );
}

#[test]
fn a_star_among_origins_is_refused() {
    assert_eq!(
        file_message("[cors]\norigins = [\"https://a.example\", \"*\"]"),
        "cors.origins (fanfare.toml:2): \"*\" already means every origin; either \"*\" alone or the list without it"
    );
}

#[test]
fn a_star_with_credentials_is_refused() {
    assert_eq!(
        file_message("[cors]\norigins = \"*\"\ncredentials = true"),
        "cors.credentials (fanfare.toml:3): browsers refuse credentials where cors.origins is \"*\"; list the origins, or set cors.credentials to false"
    );
    assert!(load_file("[cors]\norigins = [\"https://a.example\"]\ncredentials = true").cors.credentials);
}

#[test]
fn an_event_with_a_meaning_of_its_own_cannot_be_published_by_clients() {
    for event in ["", "connect", "disconnecting", "join"] {
        assert_eq!(
            file_message(&format!("[namespaces.\"/a\"]\nclient_events = [\"{event}\"]")),
            format!(
                "namespaces.\"/a\".client_events (fanfare.toml:2): \"{event}\" cannot be published: it is empty, one of Socket.IO's own events, or join or leave"
            )
        );
    }
}

#[test]
fn a_namespace_that_no_client_can_name_is_refused() {
    for name in ["admin", "", "/a,b"] {
        assert_eq!(
            file_message(&format!("[namespaces.\"{name}\"]")),
            format!(
                "namespaces.\"{name}\" (fanfare.toml:1): not a namespace's name; allowed: \"/\" followed by anything but a comma, like \"/admin\""
            )
        );
    }
}

#[test]
fn a_section_that_is_not_a_table_is_refused() {
    assert_eq!(file_message("server = 3000"), "server (fanfare.toml:1): 3000 is not a table of options");
    assert_eq!(file_message("[[engine]]"), "engine (fanfare.toml:1): a list is not a table of options");
    assert_eq!(
        file_message("[namespaces]\n\"/a\" = true"),
        "namespaces.\"/a\" (fanfare.toml:2): true is not a table of options"
    );
    assert_eq!(
        file_message("[namespaces.\"/a\"]\nrooms = [\"b\"]"),
        "namespaces.\"/a\".rooms (fanfare.toml:2): a list is not a table of options"
    );
    assert_eq!(
        file_message("[namespaces.\"/a\".rooms]\nb = \"conflate\""),
        "namespaces.\"/a\".rooms.\"b\" (fanfare.toml:2): \"conflate\" is not a table of options"
    );
}

#[test]
fn a_weak_publish_key_is_refused_and_never_shown() {
    let cases = [
        ("\"hunter2\"", "7 characters are too few; allowed: at least 16 visible ASCII characters, no spaces"),
        (
            "\"hunter2 hunter2 hunter2\"",
            "it has a space or another character that an HTTP header does not carry; allowed: at least 16 visible ASCII characters, no spaces",
        ),
        (
            "1234567890123456",
            "what was given is of the wrong type; allowed: at least 16 visible ASCII characters, no spaces",
        ),
    ];
    for (key, message) in cases {
        let file = format!("[server]\npublish_key = {key}");
        assert_eq!(file_message(&file), format!("server.publish_key (fanfare.toml:2): {message}"));
    }
}

#[test]
fn a_masked_publish_key_that_is_fed_back_is_refused_with_a_hint() {
    let printed = load_all(&["--publish-key", KEY], &[], "").render();
    assert_eq!(
        file_message(&printed),
        "server.publish_key (fanfare.toml:18): \"***\" is what `fanfare config` prints in place of the key; write the key itself here, or remove this and set FANFARE_PUBLISH_KEY"
    );
}

#[test]
fn a_client_dir_that_is_no_directory_is_refused() {
    assert_eq!(
        file_message("[server]\nclient_dir = \"no/such/dir\""),
        "server.client_dir (fanfare.toml:2): \"no/such/dir\" does not exist; allowed: a directory"
    );
    assert_eq!(
        file_message("[server]\nclient_dir = \"Cargo.toml\""),
        "server.client_dir (fanfare.toml:2): \"Cargo.toml\" is not a directory"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_who_named_it() {
    let missing = |_: &Path| Err(io::Error::new(io::ErrorKind::NotFound, "no such file"));
    let errors = load(&flags(&["--config", "a.toml"]), std::iter::empty(), missing).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "1 problem in the configuration:\n  config (--config): cannot read \"a.toml\": no such file"
    );
    let env = [("FANFARE_CONFIG".to_string(), String::new())];
    let errors = load(&Flags::default(), env.into_iter(), missing).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "1 problem in the configuration:\n  config (FANFARE_CONFIG): cannot read \"\": no such file"
    );
}

#[test]
fn a_syntax_error_is_shown_with_its_line() {
    assert_eq!(
        file_message("[server]\nworkers = 1\nlisten = \"127.0.0.1:3000\npin = true\n"),
        "config (fanfare.toml:3): not valid TOML: invalid basic string, expected `\"`\n  | listen = \"127.0.0.1:3000"
    );
    assert_eq!(
        file_message("[server]\nworkers = 1\nworkers = 2\n"),
        "config (fanfare.toml:3): not valid TOML: duplicate key\n  | workers = 2"
    );
    assert_eq!(
        file_message("[server"),
        "config (fanfare.toml:1): not valid TOML: unclosed table, expected `]`\n  | [server"
    );
}

#[test]
fn a_syntax_error_never_shows_the_publish_key() {
    for file in
        ["[server]\npublish_key = \"hunter2", "[server]\npublish_key = \n\"hunter2\"", "server.publish_key = hunter2"]
    {
        let text = file_message(file);
        assert!(text.contains("(not shown: it may hold the key)") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn no_text_makes_the_reader_of_the_file_panic() {
    let printed = load_all(&["--publish-key", KEY], &[], "").render();
    let keys: Vec<_> = printed.lines().filter(|line| !line.starts_with('#')).collect();
    let whole = keys.join("\n") + "é = \"日本\"\n[namespaces.\"/é\"]\n";
    for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
        let _ = try_load(&[], &[], &whole[..cut]);
        let _ = try_load(&[], &[], &whole[cut..]);
    }
}

// Rules over several options.

#[test]
fn listening_beyond_loopback_without_a_publish_key_is_refused() {
    assert_eq!(
        messages(&["--listen", "0.0.0.0:80"], &[], ""),
        "server.listen (--listen): 0.0.0.0:80 is not loopback and server.publish_key is not set, so anyone who reaches the port could publish to everyone; \
         set server.publish_key (or FANFARE_PUBLISH_KEY), or listen on loopback, like 127.0.0.1:80"
    );
    for listen in ["[::]:80", "192.168.1.2:80", "[2001:db8::1]:80", "[::ffff:10.0.0.1]:80"] {
        assert!(messages(&["--listen", listen], &[], "").contains("is not loopback"), "{listen}");
        load_all(&["--listen", listen, "--publish-key", KEY], &[], "");
    }
    for listen in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        load_all(&["--listen", listen], &[], "");
    }
}

#[test]
fn a_rule_is_not_judged_on_an_option_that_is_wrong_by_itself() {
    assert_eq!(
        messages(&["--listen", "0.0.0.0:80", "--publish-key", "short"], &[], ""),
        "server.publish_key (--publish-key): 5 characters are too few; allowed: at least 16 visible ASCII characters, no spaces"
    );
}

#[test]
fn a_rule_is_not_judged_without_the_file_that_may_satisfy_it() {
    let text = messages(&["--listen", "0.0.0.0:80"], &[], "[server");
    assert_eq!(text, "config (fanfare.toml:1): not valid TOML: unclosed table, expected `]`\n  | [server");
}

// All at once.

#[test]
fn all_mistakes_of_all_sources_are_reported_together_and_in_order() {
    let file = "\
[engine]
ping_intervall = 1
[server]
listen = \"0.0.0.0:80\"
workers = 9999
";
    let errors = try_load(&["--pin=maybe"], &[("FANFARE_WORKERS", "x"), ("FANFARE_PNI", "1")], file).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "\
6 problems in the configuration:
  engine.ping_intervall (fanfare.toml:2): unknown key; did you mean engine.ping_interval?
  server.listen (fanfare.toml:4): 0.0.0.0:80 is not loopback and server.publish_key is not set, so anyone who reaches the port could publish to everyone; set server.publish_key (or FANFARE_PUBLISH_KEY), or listen on loopback, like 127.0.0.1:80
  server.workers (fanfare.toml:5): 9999 is out of range; allowed: a whole number from 0 to 1024
  FANFARE_PNI: unknown variable; did you mean FANFARE_PIN?
  server.workers (FANFARE_WORKERS): \"x\" is of the wrong type; allowed: a whole number from 0 to 1024
  server.pin (--pin): \"maybe\" is of the wrong type; allowed: true or false"
    );
    assert_eq!(errors.iter().count(), 6);
    assert_eq!(ConfigErrors::EXIT_CODE, 2);
}

#[test]
fn a_mistake_in_the_file_is_reported_also_where_a_flag_wins() {
    assert_eq!(
        messages(&["--workers", "1"], &[], "[server]\nworkers = -1"),
        "server.workers (fanfare.toml:2): -1 is out of range; allowed: a whole number from 0 to 1024"
    );
}

// Shapes.

#[test]
fn origins_are_compared_as_browsers_write_them() {
    let good = [
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.COM:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[0:0::1]:8080", "http://[::1]:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
    ];
    for (given, kept) in good {
        let config = load_all(&["--cors-origin", given], &[], "");
        assert_eq!(config.cors.origins, Origins::Listed(vec![kept.into()]));
    }
    let bad = "example.com|null|https://|https://a/|https://a/b|https://*.a|https://a:|https://a:0|https://a:65536|https://a:+1|https://u@a|https://[::1|https://a b|1x://a|://a|https://é.example|";
    for given in bad.split('|') {
        let message = messages(&["--cors-origin", given], &[], "");
        assert!(message.contains("is malformed"), "{given}: {message}");
    }
}

#[test]
fn a_path_that_no_request_could_match_is_refused() {
    for given in ["", "/", "//", "a", "/a//b", "/a?b", "/a#b", "/a b", "/a/../b", "/.", "/é", "/a%20b", "/a\\b"] {
        let message = messages(&["--path", given], &[], "");
        assert!(message.contains("is malformed"), "{given}: {message}");
    }
}

// Rendering.

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

// The table of options.

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

// Rereading.

/// What a server that runs with the first file makes of the second.
fn reread(running: &str, new: &str) -> Result<Reloaded, ConfigErrors> {
    load_file(running).reload(&load_file(new))
}

#[test]
fn every_option_either_changes_or_is_named_and_keeps_its_value() {
    let (old, new) = (load_file("[namespaces.\"/é \\\"quoted\\\"\\t\"]"), load_file(EVERY_OPTION));
    let Reloaded { config, changed, kept } = old.reload(&new).unwrap();
    for spec in options().filter(|spec| !spec.kind.is_secret()) {
        let key = spec.key();
        let value = |config: &Config| rendered(config, spec.name).split(" # ").next().unwrap().to_owned();
        let is_live = spec.reload == Reload::Live;
        assert_eq!((changed.contains(&key), kept.contains(&key)), (is_live, !is_live), "{key}");
        assert_eq!(value(&config), value(if is_live { &new } else { &old }), "{key}");
    }
    assert!(changed.contains(&r#"namespaces."/".client_events"#.into()));
    assert!(changed.contains(&r#"namespaces."/é \"quoted\"\t".join"#.into()));
    for (name, namespace) in &config.namespaces {
        let (old, new) = (&old.namespaces[name], &new.namespaces[name]);
        assert_eq!((&namespace.client_events, namespace.join), (&new.client_events, new.join));
        let rules = |it: &Namespace| (it.policy, it.conflate_every, it.retain);
        assert_eq!(rules(namespace), rules(old));
    }
    assert!(kept.contains(&r#"namespaces."/é \"quoted\"\t".retain"#.into()));
}

#[test]
fn the_rules_of_rooms_stay_and_are_named() {
    let running = "[namespaces.\"/\".rooms]\na = { retain = true }\n\"b*\" = { retain = true }\nc = {}";
    let new = "[namespaces.\"/\".rooms]\na = { retain = true }\n\"b*\" = { retain = false }\nd = {}";
    let Reloaded { config, changed, kept } = reread(running, new).unwrap();
    assert_eq!((config.rooms, changed.len()), (load_file(running).rooms, 0));
    let room = |name: &str| format!("namespaces.\"/\".rooms.\"{name}\"");
    assert_eq!(kept, [room("b*"), room("c"), room("d")]);
}

#[test]
fn what_is_the_same_is_neither_changed_nor_named() {
    let Reloaded { config, changed, kept } = reread(EVERY_OPTION, EVERY_OPTION).unwrap();
    assert_eq!((config, changed.len(), kept.len()), (load_file(EVERY_OPTION), 0, 0));
}

#[test]
fn the_key_changes_and_is_not_told() {
    const OTHER: &str = "another-key-of-the-tests";
    let with_key = |key| load_all(&["--publish-key", key], &[], "");
    let Reloaded { config, changed, .. } = with_key(KEY).reload(&with_key(OTHER)).unwrap();
    assert_eq!(config.server.publish_key.unwrap().expose(), OTHER);
    assert_eq!(changed, ["server.publish_key"]);
}

#[test]
fn namespaces_neither_come_nor_go() {
    let (one, other) = ("[namespaces.\"/a\"]\njoin = false", "[namespaces.\"/b\"]\njoin = false");
    let Reloaded { config, kept, .. } = reread(one, other).unwrap();
    assert_eq!(config.namespaces, load_file(one).namespaces);
    assert_eq!(kept, [r#"namespaces."/b""#, r#"namespaces."/a""#]);
}

#[test]
fn a_file_that_is_right_by_itself_may_be_wrong_beside_what_is_kept() {
    let open = format!("[server]\nlisten = \"0.0.0.0:80\"\npublish_key = \"{KEY}\"");
    let errors = reread(&open, "[server]\nlisten = \"127.0.0.1:80\"").unwrap_err();
    assert!(matches!(errors.iter().next().unwrap().problem, Problem::ExposedWithoutKey { .. }), "{errors}");
    assert!(errors.to_string().contains("0.0.0.0:80 is not loopback"), "{errors}");
}

#[test]
fn the_operators_manual_says_of_each_option_what_a_reload_does() {
    let manual = include_str!("../../../docs/operating.md");
    for spec in options().chain(Namespace::OPTIONS).chain(Room::OPTIONS) {
        let default = match spec.default {
            None => "unset".into(),
            Some("") => "none".into(),
            Some(word) => format!("`{word}`"),
        };
        let reload = match spec.reload {
            Reload::Live => "yes",
            Reload::Restart => "restart",
        };
        let row = format!("| `{}` | {default} | {reload} |", spec.key());
        assert!(manual.contains(&row), "docs/operating.md misses this row: {row}");
    }
    let rows = manual.lines().filter(|line| line.ends_with("| yes |") || line.ends_with("| restart |")).count();
    assert_eq!(
        rows,
        options().count() + Namespace::OPTIONS.len() + Room::OPTIONS.len(),
        "a row of an option that is gone"
    );
}
