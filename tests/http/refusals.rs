//! Refusals: who is told what, by status, code and message, in the order of the reference.

use crate::support::client::{POLLING, WEBSOCKET, sid_of};
use crate::support::http::{Connection, get, post};
use crate::support::websocket::Peer;
use crate::support::{Fixture, settings};
use crate::{
    BAD_METHOD, BAD_REQUEST, TRANSPORT_UNKNOWN, UNKNOWN_SID, UNSUPPORTED, assert_refusals_counted, assert_refused,
    assert_upgrade_refused, open_session, stranger,
};
use fanfare::{Settings, Transports};

#[test]
fn a_refused_request_is_told_code_and_message_in_the_order_of_the_reference() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let sid = sid_of(&get(address, POLLING).body).to_owned();
    let (other_shard, this_shard) = (stranger(999), stranger(1));
    let cases = [
        ("GET", "EIO=4".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=telepathy".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=webtransport".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=polling&transport=telepathy".to_owned(), TRANSPORT_UNKNOWN),
        ("PUT", "EIO=3&transport=telepathy&sid=abc".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=polling&sid=abc".to_owned(), UNKNOWN_SID),
        ("GET", "EIO=4&transport=polling&sid=__proto__".to_owned(), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=polling&sid={other_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=polling&sid={this_shard}"), UNKNOWN_SID),
        ("POST", format!("EIO=4&transport=polling&sid={this_shard}"), UNKNOWN_SID),
        ("PUT", format!("EIO=3&transport=websocket&sid={this_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=websocket&sid={sid}"), BAD_REQUEST),
        ("GET", format!("EIO=3&transport=polling&sid={sid}"), BAD_REQUEST),
        ("GET", format!("transport=polling&sid={sid}"), BAD_REQUEST),
        ("POST", "EIO=4&transport=polling".to_owned(), BAD_METHOD),
        ("PUT", "EIO=4&transport=polling".to_owned(), BAD_METHOD),
        ("OPTIONS", "EIO=4&transport=polling".to_owned(), BAD_METHOD),
        ("DELETE", "EIO=3&transport=websocket".to_owned(), BAD_METHOD),
        ("GET", "EIO=4&transport=websocket".to_owned(), BAD_REQUEST),
        ("GET", "EIO=3&transport=websocket".to_owned(), BAD_REQUEST),
        ("GET", "transport=polling".to_owned(), UNSUPPORTED),
        ("GET", "EIO=&transport=polling".to_owned(), UNSUPPORTED),
        ("GET", "EIO=3&transport=polling".to_owned(), UNSUPPORTED),
        ("GET", "EIO=999&transport=polling".to_owned(), UNSUPPORTED),
    ];
    for (method, query, refusal) in &cases {
        let response = Connection::open(address).request(method, &format!("/socket.io/?{query}"), &[], b"");
        assert_refused(&response, *refusal, &format!("{method} {query}"));
    }
    assert_refusals_counted(&fixture, cases.len());
}

#[test]
fn a_refused_upgrade_is_told_in_plain_text_and_its_connection_closes() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let sid = sid_of(&get(address, POLLING).body).to_owned();
    let (other_shard, this_shard) = (stranger(999), stranger(1));
    let cases = [
        ("GET", "EIO=4".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=telepathy".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=webtransport".to_owned(), TRANSPORT_UNKNOWN),
        ("GET", "EIO=4&transport=websocket&sid=abc".to_owned(), UNKNOWN_SID),
        ("GET", "EIO=4&transport=websocket&sid=__proto__".to_owned(), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=websocket&sid={other_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=4&transport=websocket&sid={this_shard}"), UNKNOWN_SID),
        ("GET", format!("EIO=3&transport=websocket&sid={sid}"), BAD_REQUEST),
        ("POST", "EIO=4&transport=websocket".to_owned(), BAD_METHOD),
        // The reference lets this one in, and closes it then.
        ("GET", "EIO=4&transport=polling".to_owned(), BAD_REQUEST),
        // Here it answers 101 first and writes its 400 into the WebSocket.
        ("GET", "transport=websocket".to_owned(), UNSUPPORTED),
        ("GET", "EIO=3&transport=websocket".to_owned(), UNSUPPORTED),
        ("GET", "EIO=999&transport=websocket".to_owned(), UNSUPPORTED),
    ];
    for (method, query, (_, message)) in &cases {
        let what = format!("{method} {query}");
        let mut connection = Connection::open(address);
        let response = connection.upgrade(method, &format!("/socket.io/?{query}"), &[]);
        assert_upgrade_refused(&mut connection, &response, message, &what);
    }
    assert_refusals_counted(&fixture, cases.len());
}

#[test]
fn a_broken_websocket_handshake_is_refused() {
    const KEY: (&str, &str) = (WEBSOCKET, "Missing or invalid Sec-WebSocket-Key header");
    const VERSION: (&str, &str) = (WEBSOCKET, "Missing or invalid Sec-WebSocket-Version header");
    let fixture = Fixture::new(settings());
    let cases = [
        (("Sec-WebSocket-Key", ""), KEY),
        (("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ="), KEY),
        (("Sec-WebSocket-Key", "dG9vIHNob3J0"), KEY),
        (("Sec-WebSocket-Version", ""), VERSION),
        (("Sec-WebSocket-Version", "12"), VERSION),
        (("Sec-WebSocket-Version", "thirteen"), VERSION),
        // Engine.IO's own rules come first.
        (("Sec-WebSocket-Key", "dG9vIHNob3J0"), ("/socket.io/?EIO=4&transport=telepathy", "Transport unknown")),
        (("Sec-WebSocket-Version", "12"), ("/socket.io/?EIO=4&transport=websocket&sid=abc", "Session ID unknown")),
        (("Sec-WebSocket-Version", "12"), ("/socket.io/?EIO=3&transport=websocket", "Unsupported protocol version")),
    ];
    for (header, (target, message)) in cases {
        let what = format!("{header:?} {target}");
        let mut connection = Connection::open(fixture.address());
        let response = connection.upgrade("GET", target, &[header]);
        assert_upgrade_refused(&mut connection, &response, message, &what);
    }
    assert_refusals_counted(&fixture, cases.len());
}

#[test]
fn a_transport_that_is_off_is_unknown() {
    let only = |polling, websocket| Settings { transports: Transports { polling, websocket }, ..settings() };
    let fixture = Fixture::new(only(false, true));
    assert_refused(&get(fixture.address(), POLLING), TRANSPORT_UNKNOWN, "polling is off");
    Peer::open(fixture.address(), WEBSOCKET, &[]);

    let fixture = Fixture::new(only(true, false));
    let response = Connection::open(fixture.address()).upgrade("GET", WEBSOCKET, &[]);
    assert_refused(&response, TRANSPORT_UNKNOWN, "websocket is off, so nobody looks at `Upgrade`");
    let handshake = get(fixture.address(), POLLING);
    assert!(handshake.body.contains(r#""upgrades":[],"#), "{handshake:?}");
}

#[test]
fn after_an_upgrade_polling_is_refused_and_another_upgrade_is_closed_at_once() {
    let fixture = Fixture::new(settings());
    let address = fixture.address();
    let target = open_session(address);
    let upgrade = target.replace("polling", "websocket");
    let mut peer = Peer::open(address, &upgrade, &[]);
    peer.send("2probe");
    assert_eq!(peer.text(), "3probe");
    Peer::open(address, &upgrade, &[]).expect_close();
    peer.send("5");
    peer.send("40");
    assert!(peer.text().starts_with("40{"));
    assert_refused(&get(address, &target), BAD_REQUEST, "a poll after the upgrade");
    assert_refused(&post(address, &target, "40"), BAD_REQUEST, "a push after the upgrade");
    Peer::open(address, &upgrade, &[]).expect_close();
    peer.send(r#"42["echo","still open"]"#);
    assert_eq!(peer.text(), r#"42["echo","still open"]"#);
}
