//! Websocket: a WebSocket peer, frame by frame, over the connection that its handshake was made on.
//!
//! Its masks are zero, which the RFC frowns upon and every server must take.

use super::http::Connection;
use std::io::Read as _;
use std::net::SocketAddr;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;

pub struct Peer {
    connection: Connection,
}

impl Peer {
    /// A WebSocket after its handshake. Nothing has been read.
    pub fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Peer {
        Peer::over(Connection::open(address), target, headers)
    }

    /// The same on a connection that has carried requests before.
    pub fn over(mut connection: Connection, target: &str, headers: &[(&str, &str)]) -> Peer {
        connection.send_upgrade("GET", target, headers);
        Peer::accepted(connection)
    }

    /// The same where the handshake has been sent, and the answer has not been read.
    pub fn accepted(mut connection: Connection) -> Peer {
        let response = connection.response();
        assert_eq!(response.status, 101, "{response:?}");
        Peer { connection }
    }

    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).expect("no test sends more").to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.connection.write(frame);
    }

    pub fn send(&mut self, text: &str) {
        self.send_frame(TEXT, text.as_bytes());
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.connection.write(bytes);
    }

    /// The next frame: opcode and payload.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.read(&mut head);
        assert_eq!(head[0] & 0xf0, 0x80, "the server sends whole messages");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.read(&mut length);
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.read(&mut length);
                u64::from_be_bytes(length)
            }
            length => u64::from(length),
        };
        let mut payload = vec![0; length as usize];
        self.read(&mut payload);
        (head[0] & 0x0f, payload)
    }

    /// The next frame, which is text.
    pub fn text(&mut self) -> String {
        let (opcode, payload) = self.frame();
        let payload = String::from_utf8(payload).expect("text is UTF-8");
        assert_eq!(opcode, TEXT, "{payload:?}");
        payload
    }

    /// Waits for a close frame without a code, which is how the server says goodbye in order.
    pub fn expect_close(&mut self) {
        assert_eq!(self.frame(), (CLOSE, Vec::new()));
    }

    /// Waits for the end, whatever comes before.
    pub fn wait_for_end(&mut self) {
        self.connection.rest();
    }

    fn read(&mut self, bytes: &mut [u8]) {
        self.connection.reader.read_exact(bytes).expect("a frame within 5 s");
    }
}
