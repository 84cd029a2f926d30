//! Cross-origin: who may read an answer, and preflights.

use crate::Headers;
use crate::support::client::{POLLING, WEBSOCKET};
use crate::support::http::{Connection, Response};
use crate::support::{Fixture, settings};
use fanfare::{Cors, Origins, Settings};

pub const GOOD: &str = "http://good.example";

pub fn listed(credentials: bool) -> Settings {
    let origins = Origins::Listed(vec!["http://other.example".into(), GOOD.into()]);
    Settings { cors: Some(Cors { origins, credentials, methods: vec!["GET".into(), "POST".into()] }), ..settings() }
}

fn cors_of(response: &Response) -> [Option<&str>; 3] {
    ["access-control-allow-origin", "access-control-allow-credentials", "vary"].map(|name| response.header(name))
}

#[test]
fn a_listed_origin_is_allowed_and_another_is_served_without_the_header() {
    let fixture = Fixture::new(listed(true));
    let address = fixture.address();
    let ask = |target: &str, headers: &[(&str, &str)]| Connection::open(address).request("GET", target, headers, b"");
    let allowed = [Some(GOOD), Some("true"), Some("Origin")];
    let not_allowed = [None, Some("true"), Some("Origin")];
    let cases: [(Headers, _); 4] = [
        (&[("Origin", GOOD)], allowed),
        (&[("Origin", "http://evil.example")], not_allowed),
        (&[("Origin", "http://good.example:81")], not_allowed),
        (&[], not_allowed),
    ];
    for (headers, expected) in cases {
        let handshake = ask(POLLING, headers);
        assert_eq!((handshake.status, cors_of(&handshake)), (200, expected), "{headers:?}");
        let refused = ask("/socket.io/?EIO=4&transport=telepathy", headers);
        assert_eq!((refused.status, cors_of(&refused)), (400, expected), "{headers:?}");
        let upgrade = Connection::open(address).upgrade("GET", WEBSOCKET, headers);
        assert_eq!((upgrade.status, cors_of(&upgrade)), (101, expected), "{headers:?}");
        let refused = Connection::open(address).upgrade("GET", "/socket.io/?EIO=3&transport=websocket", headers);
        assert_eq!((refused.status, cors_of(&refused)), (400, expected), "{headers:?}");
    }
}

#[test]
fn any_origin_is_a_star_without_vary() {
    let cors = Cors { origins: Origins::Any, credentials: false, methods: vec!["GET".into()] };
    let fixture = Fixture::new(Settings { cors: Some(cors), ..settings() });
    for headers in [&[("Origin", GOOD)][..], &[]] {
        let response = Connection::open(fixture.address()).request("GET", POLLING, headers, b"");
        assert_eq!(cors_of(&response), [Some("*"), None, None]);
    }
}

#[test]
fn a_preflight_is_204_with_methods_and_the_headers_it_asked_for() {
    let fixture = Fixture::new(listed(false));
    let mut connection = Connection::open(fixture.address());
    let headers = [("Origin", GOOD), ("Access-Control-Request-Headers", "x-token, x-trace")];
    // A preflight asks about a request, whatever that would be told.
    for target in [POLLING, "/socket.io/?EIO=4&transport=polling&sid=abc", "/socket.io/"] {
        let response = connection.request("OPTIONS", target, &headers, b"");
        assert_eq!(response.brief(), (204, ""), "{target}");
        assert_eq!(cors_of(&response), [Some(GOOD), None, Some("Origin, Access-Control-Request-Headers")]);
        assert_eq!(response.header("access-control-allow-methods"), Some("GET,POST"));
        assert_eq!(response.header("access-control-allow-headers"), Some("x-token, x-trace"));
    }
    assert_eq!(connection.get(POLLING).status, 200, "the connection is kept");
}
