//! Routes: statistics, the page, health, and the clients' bundles.

use crate::io_uring::best_io;
use crate::program::{Program, scratch};
use crate::support::client::POLLING;
use crate::support::http::Connection;
use serde_json::json;
use std::net::SocketAddr;

#[test]
fn the_stats_have_what_the_page_reads() {
    let program = Program::start(&[]);
    let stats = program.stats();
    let keys: Vec<&str> = stats.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "version",
        "uptime_ms",
        "workers",
        "io",
        "transports",
        "sockets",
        "rooms",
        "retained",
        "retained_bytes",
        "deliveries",
        "broadcasts",
        "lag_bytes",
        "counts_held",
        "received",
        "bytes_out",
        "conflated_in_windows",
        "windows_full",
        "caught_up",
        "retained_forgotten",
        "waiting_bytes",
        "evicted",
        "evicted_late",
        "evicted_for_memory",
        "dropped_newest",
        "dropped_oldest",
        "conflated",
        "draining",
        "draining_left",
        "reloads",
        "reloads_failed",
        "rate_limited",
        "refused",
        "refused_by",
        "events_refused",
        "rss_bytes",
        "cpu_ms",
        "publish_key_required",
        "publishes",
        "namespaces",
    ];
    expected.sort();
    assert_eq!(keys, expected);
    assert_eq!((&stats["workers"], &stats["io"]), (&json!(2), &json!(best_io())));
    #[cfg(target_os = "linux")]
    assert!(stats["rss_bytes"].as_u64().unwrap() > 100_000 && stats["cpu_ms"].is_u64());
}

#[test]
fn the_page_is_served_with_a_policy_and_revalidated() {
    let program = Program::start(&[]);
    let page = program.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.body, include_str!("../../src/standalone/page.html"));
    assert!(page.header("content-security-policy").unwrap().contains("script-src 'sha256-"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let etag = page.header("etag").unwrap();
    let again = program.request("GET", "/", &[("If-None-Match", etag)], "");
    assert_eq!((again.status, again.header("etag")), (304, Some(etag)));
    let head = program.request("HEAD", "/", &[], "");
    assert_eq!((head.status, head.header("content-length")), (200, page.header("content-length")));
}

#[test]
fn the_page_follows_the_endpoint_to_another_path() {
    let program = Program::start(&["--path", "/live"]);
    assert!(program.get("/").body.contains("\"/live/?EIO=4&transport=websocket\""));
    assert!(program.get("/live/?EIO=4&transport=polling").body.starts_with('0'));
    assert_eq!(program.get(POLLING).status, 404);
}

#[test]
fn what_is_not_there_and_what_is_not_allowed_is_said_as_json() {
    let program = Program::start(&[]);
    let missing = program.get("/nowhere?x=1");
    assert_eq!((missing.status, missing.error()), (404, "nothing is served at /nowhere".into()));
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/api/stats", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("PUT", "/readyz", "GET, HEAD"),
        ("GET", "/api/publish", "POST"),
        ("OPTIONS", "/api/publish", "POST"),
    ] {
        let answer = program.request(method, path, &[], "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert_eq!(answer.error(), format!("allowed here: {allowed}"));
    }
    assert_eq!(program.get("/healthz").json(), json!({"status": "ok"}));
    assert_eq!(program.get("/readyz").json(), json!({"status": "ready"}));
}

/// The head of an answer, and its body, which is no text.
fn compressed(address: SocketAddr, path: &str, encodings: &str) -> (String, Vec<u8>) {
    let mut connection = Connection::open(address);
    connection.send("GET", path, &[("Accept-Encoding", encodings), ("Connection", "close")], b"");
    let mut head = connection.rest();
    let end = head.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let body = head.split_off(end);
    (String::from_utf8(head).unwrap(), body)
}

#[test]
fn the_clients_bundles_are_served_under_the_path() {
    let package = scratch("bundles");
    let dist = package.join("dist");
    std::fs::create_dir(&dist).unwrap();
    std::fs::write(package.join("package.json"), r#"{"name":"socket.io-client","version":"4.8.4"}"#).unwrap();
    let script = "fanfare();".repeat(100);
    std::fs::write(dist.join("socket.io.min.js"), &script).unwrap();
    std::fs::write(dist.join("socket.io.min.js.map"), "{}").unwrap();
    std::fs::write(dist.join("secret.js"), "not a bundle").unwrap();
    let program = Program::start(&["--client-dir", dist.to_str().unwrap()]);
    let url = "/socket.io/socket.io.min.js";
    assert!(program.greeting.contains(&format!("<script src=\"http://{}{url}\"></script>", program.address)));

    let plain = program.get(url);
    assert_eq!(plain.brief(), (200, &*script));
    assert_eq!(plain.header("content-type"), Some("application/javascript; charset=utf-8"));
    assert_eq!(plain.header("cache-control"), Some("public, max-age=0"));
    assert_eq!((plain.header("etag"), plain.header("content-encoding")), (Some("\"4.8.4\""), None));
    assert_eq!(program.get(&format!("{url}?v=1")).body, script);
    let map = program.get("/socket.io/socket.io.min.js.map");
    assert_eq!(map.header("content-type"), Some("application/json; charset=utf-8"));

    for etag in ["\"4.8.4\"", "W/\"4.8.4\""] {
        let same = program.request("GET", url, &[("If-None-Match", etag)], "");
        assert_eq!((same.status, same.body.len()), (304, 0));
    }
    for (accepted, encoding, magic) in [("gzip, br", "gzip", &[0x1f, 0x8b][..]), ("br, deflate", "deflate", &[0x78])] {
        let (head, body) = compressed(program.address, url, accepted);
        assert!(head.contains(&format!("content-encoding: {encoding}\r\n")), "{head}");
        assert!(head.contains("vary: Accept-Encoding\r\n"), "{head}");
        assert!(body.starts_with(magic), "{body:?}");
    }
    assert_eq!(program.request("POST", url, &[], "").status, 405);

    for unknown in [
        "/socket.io/secret.js",
        "/socket.io/socket.io.js",
        "/socket.io/../secret.js",
        "/socket.io/dist/socket.io.min.js",
    ] {
        let answer = program.get(unknown);
        assert_eq!(
            (answer.status, answer.json()),
            (400, json!({"code": 0, "message": "Transport unknown"})),
            "{unknown}"
        );
    }
}

#[test]
fn without_a_package_beside_them_the_bundles_are_known_by_their_content() {
    let dist = scratch("bundles-alone").join("dist");
    std::fs::create_dir(&dist).unwrap();
    std::fs::write(dist.join("socket.io.js"), "one").unwrap();
    std::fs::write(dist.join("socket.io.esm.min.js"), "two").unwrap();
    let program = Program::start(&["--client-dir", dist.to_str().unwrap()]);
    let etag = |name: &str| program.get(&format!("/socket.io/{name}")).header("etag").unwrap().to_owned();
    assert_eq!(etag("socket.io.js"), "\"7692c3ad3540bb80\"");
    assert_ne!(etag("socket.io.js"), etag("socket.io.esm.min.js"));
}
