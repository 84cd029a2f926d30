//! Sources: flags, variables, the file and the defaults, and which of them wins.

use super::*;

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
