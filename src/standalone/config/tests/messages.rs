//! Messages: what is refused, and what is said about it.

use super::*;

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
