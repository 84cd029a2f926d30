//! Paths: what is the endpoint, what is the embedder's, and how each is told from the other.

use crate::support::client::POLLING;
use crate::support::http::{Connection, get};
use crate::support::{Fixture, Running, settings};
use crate::{TRANSPORT_UNKNOWN, assert_refused};
use bytes::Bytes;
use fanfare::{Io, PeerAddress, Settings};
use http_body_util::Full;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

#[test]
fn only_paths_below_the_endpoint_are_the_endpoint() {
    let slash = |path: &str, add_trailing_slash| Settings { path: path.into(), add_trailing_slash, ..settings() };
    let cases: [(Settings, &[&str], &[&str]); 3] = [
        (
            slash("/socket.io", true),
            &["/socket.io/", "/socket.io/x/y", "/socket.io//"],
            &["/socket.io", "/socket.iox", "/socket.iox/", "/", "/engine.io/", "/x/socket.io/"],
        ),
        (slash("/socket.io", false), &["/socket.io/", "/socket.io", "/socket.io/x"], &["/socket.iox", "/socket.i"]),
        (slash("/live/v2", true), &["/live/v2/"], &["/socket.io/", "/live/", "/live/v2", "/live/v22/"]),
    ];
    for (settings, ours, others) in cases {
        let fixture = Fixture::new(settings);
        for path in ours {
            assert_eq!(get(fixture.address(), &format!("{path}?EIO=4&transport=polling")).status, 200, "{path}");
        }
        for path in others {
            let response = get(fixture.address(), &format!("{path}?EIO=4&transport=polling"));
            assert_eq!(response.brief(), (404, ""), "{path}");
        }
    }
}

/// An embedder's service: says what it was asked and by whom, and fails at `/fail`.
#[derive(Clone)]
struct Routes;

impl tower_service::Service<http::Request<hyper::body::Incoming>> for Routes {
    type Response = http::Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        if request.uri().path() == "/fail" {
            return ready(Err("as it was told"));
        }
        let peer = request.extensions().get::<PeerAddress>().expect("every request has its peer").0;
        let body = format!("{} {} from {peer}", request.method(), request.uri());
        ready(Ok(http::Response::builder().status(418).body(Full::from(body)).expect("a valid response")))
    }
}

#[test]
fn a_route_under_the_endpoints_path_is_the_embedders() {
    let routes_under_path = vec!["client.js".to_owned()];
    let io = Io::with_settings(Settings { routes_under_path, ..settings() });
    let server = Running::new(io.listen_with("127.0.0.1:0", Routes).expect("a free port"));
    assert_eq!(get(server.address(), "/socket.io/client.js").status, 418);
    assert_eq!(get(server.address(), "/socket.io/client.js.map?EIO=4&transport=polling").status, 200);
    assert_refused(&get(server.address(), "/socket.io/other.js"), TRANSPORT_UNKNOWN, "the endpoint's");
}

#[test]
fn other_paths_reach_the_embedders_service_which_knows_the_peer() {
    let io = Io::with_settings(settings());
    let server = Running::new(io.listen_with("127.0.0.1:0", Routes).expect("a free port"));
    let mut connection = Connection::open(server.address());
    let here = connection.reader.get_ref().local_addr().expect("a connected stream");
    assert_eq!(connection.get("/health?a=b").brief(), (418, &*format!("GET /health?a=b from {here}")));
    assert_eq!(connection.post("/socket.io", "body").brief(), (418, &*format!("POST /socket.io from {here}")));
    assert_eq!(connection.get("/fail").brief(), (500, ""));
    assert_eq!(connection.get(POLLING).status, 200, "and the endpoint is beside it, on the same connection");
}
