//! fastwebsockets as a plain WebSocket peer: an independent implementation of RFC 6455 on the other side.
//!
//! The official clients use `ws` and aiohttp; this one is written by others again, and lets a test see single frames.

mod support;

use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use std::time::Duration;
use support::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Peer {
    socket: WebSocket<TcpStream>,
}

impl Peer {
    /// A WebSocket whose session has opened.
    async fn open(server: &Server) -> Peer {
        let address = server.url().replace("http://", "");
        let mut stream = TcpStream::connect(&address).await.expect("the server listens");
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the request leaves");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("a head is text").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "RFC 6455, section 1.3: {head}");
        let mut socket = WebSocket::after_handshake(stream, Role::Client);
        socket.set_auto_pong(false);
        socket.set_auto_close(false);
        let mut peer = Peer { socket };
        assert!(peer.text().await.starts_with("0{\"sid\":"));
        peer
    }

    /// A WebSocket whose client is in the main namespace.
    async fn connected(server: &Server) -> Peer {
        let mut peer = Peer::open(server).await;
        peer.send(OpCode::Text, "40").await;
        assert!(peer.text().await.starts_with("40{\"sid\":"));
        peer
    }

    async fn send(&mut self, opcode: OpCode, payload: &str) {
        self.send_part(true, opcode, payload).await;
    }

    async fn send_part(&mut self, fin: bool, opcode: OpCode, payload: &str) {
        let frame = Frame::new(fin, opcode, None, Payload::Borrowed(payload.as_bytes()));
        self.socket.write_frame(frame).await.expect("the frame leaves");
    }

    /// The next frame that is not a heartbeat; heartbeats are answered.
    async fn frame(&mut self) -> (OpCode, Vec<u8>) {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(5), self.socket.read_frame()).await;
            let frame = frame.expect("a frame within 5 s").expect("a frame that keeps the rules");
            let (opcode, payload) = (frame.opcode, frame.payload.to_vec());
            drop(frame);
            if opcode == OpCode::Text && payload == b"2" {
                self.send(OpCode::Text, "3").await;
            } else {
                return (opcode, payload);
            }
        }
    }

    async fn text(&mut self) -> String {
        let (opcode, payload) = self.frame().await;
        assert_eq!(opcode, OpCode::Text, "{payload:?}");
        String::from_utf8(payload).expect("text is UTF-8")
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

#[test]
fn events_and_acks_pass_in_single_frames() {
    let server = Server::start("kit");
    run(async {
        let mut peer = Peer::connected(&server).await;
        peer.send(OpCode::Text, r#"427["echo","ä",{"a":[1]}]"#).await;
        assert_eq!(peer.text().await, r#"437["ä",{"a":[1]}]"#);
    });
}

#[test]
fn a_binary_event_is_a_text_frame_and_one_binary_frame_for_each_attachment() {
    let server = Server::start("kit");
    run(async {
        let mut peer = Peer::connected(&server).await;
        peer.send(OpCode::Text, r#"451-["echo",{"_placeholder":true,"num":0}]"#).await;
        peer.send(OpCode::Binary, "\u{1}\u{2}").await;
        assert_eq!(peer.text().await, r#"451-["echo",{"_placeholder":true,"num":0}]"#);
        assert_eq!(peer.frame().await, (OpCode::Binary, vec![1, 2]));
    });
}

#[test]
fn a_message_in_fragments_with_a_ping_between_them_is_one_message() {
    let server = Server::start("kit");
    run(async {
        let mut peer = Peer::connected(&server).await;
        peer.send_part(false, OpCode::Text, r#"428["echo","#).await;
        peer.send(OpCode::Ping, "still there?").await;
        peer.send_part(false, OpCode::Continuation, r#""one"#).await;
        peer.send_part(true, OpCode::Continuation, r#"piece"]"#).await;
        assert_eq!(peer.frame().await, (OpCode::Pong, b"still there?".to_vec()));
        assert_eq!(peer.text().await, r#"438["onepiece"]"#);
    });
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    let server = Server::start("kit");
    run(async {
        let mut peer = Peer::connected(&server).await;
        let goodbye = Frame::close(4242, b"bye");
        peer.socket.write_frame(goodbye).await.expect("the frame leaves");
        assert_eq!(peer.frame().await, (OpCode::Close, 4242_u16.to_be_bytes().to_vec()));
    });
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009() {
    let server = Server::start("kit");
    run(async {
        let mut peer = Peer::connected(&server).await;
        let large = format!(r#"42["echo","{}"]"#, "x".repeat(1_000_000));
        // The server may close before it has read all of it.
        let frame = Frame::new(true, OpCode::Text, None, Payload::Borrowed(large.as_bytes()));
        let _ = peer.socket.write_frame(frame).await;
        assert_eq!(peer.frame().await, (OpCode::Close, 1009_u16.to_be_bytes().to_vec()));
    });
}

#[test]
fn text_that_is_not_utf_8_is_closed_with_1007() {
    let server = Server::start("kit");
    run(async {
        let mut peer = Peer::connected(&server).await;
        let frame = Frame::new(true, OpCode::Text, None, Payload::Borrowed(&[b'4', 0xff]));
        peer.socket.write_frame(frame).await.expect("the frame leaves");
        assert_eq!(peer.frame().await, (OpCode::Close, 1007_u16.to_be_bytes().to_vec()));
    });
}
