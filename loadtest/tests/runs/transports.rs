//! Each protocol over each transport: everything is delivered, once and in order.

use crate::polling::polling;
use crate::relay::{Fault, loadtest, relay};
use std::net::SocketAddr;

fn check(server: SocketAddr, flags: &str, speech: &str) {
    let flags = format!("{flags} --connections 10 --rate 200/s --duration 500ms --room ticker");
    let output = loadtest(server, &flags.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("delivered   1,000 of 1,000"), "{text}");
    assert!(text.contains(&format!("\n  protocol    {speech}, namespace")), "{text}");
}

#[test]
fn socketio_over_websocket() {
    check(polling(false), "--publish event:pub", "socketio over websocket");
}

#[test]
fn socketio_over_polling() {
    check(polling(false), "--transport polling --publish event:pub", "socketio over polling");
}

#[test]
fn socketio_over_polling_with_a_stream_for_each_poll() {
    check(polling(true), "--transport polling --publish event:pub", "socketio over polling");
}

#[test]
fn socketio_upgraded() {
    check(polling(false), "--transport upgrade --publish event:pub", "socketio over upgrade");
}

#[test]
fn plain_websocket() {
    check(relay(Fault::Plain, 1), "--protocol ws --subscribe join:{room}", "ws over websocket");
}

#[test]
fn plain_websocket_published_over_http() {
    let flags = "--protocol ws --subscribe join:{room} --publish http --header X-Token:t";
    check(relay(Fault::Plain, 1), flags, "ws over websocket");
}
