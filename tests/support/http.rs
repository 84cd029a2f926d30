//! Http: a client that shows every header and takes none of a client's decisions. Blocking, over a plain `TcpStream`.
//!
//! Limits: every read ends after `WAIT_MAX`.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long anything may take until the test has failed.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// What makes a request a WebSocket handshake (RFC 6455, section 1.3).
pub const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A kept-alive connection.
pub struct Connection {
    pub reader: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// The value of a header, named in lower case. A header that came twice fails the test.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "`{name}` came twice");
        value
    }

    /// Status and body: what most tests look at.
    pub fn brief(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect_timeout(&address, WAIT_MAX).expect("the server listens");
        stream.set_read_timeout(Some(WAIT_MAX)).expect("a timeout that is not zero");
        stream.set_nodelay(true).expect("a TCP stream");
        Connection { reader: BufReader::new(stream) }
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).expect("the bytes leave");
    }

    /// Writes a request and does not wait for the answer.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut request = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request += "Host: localhost\r\n";
        }
        headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
        if method != "GET" {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        self.write(request);
    }

    /// The next response, with as much body as its head says.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    fn response_to(&mut self, method: &str) -> Response {
        let status_line = self.line();
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let mut response = Response { status, headers: Vec::new(), body: String::new() };
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").expect("a header has a name");
            response.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut body = Vec::new();
        match response.header("content-length") {
            _ if method == "HEAD" || matches!(status, 100 | 101 | 204 | 304) => {}
            Some(length) => {
                body.resize(length.parse().expect("a length"), 0);
                self.reader.read_exact(&mut body).expect("a body as long as its head says");
            }
            None => drop(self.reader.read_to_end(&mut body).expect("a body within 5 s")),
        }
        response.body = String::from_utf8(body).expect("a body that is text");
        response
    }

    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(method, target, headers, body);
        self.response_to(method)
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
    }

    pub fn post(&mut self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.request("POST", target, &[], body.as_ref())
    }

    /// A WebSocket handshake, with more headers or other values for the usual ones.
    pub fn upgrade(&mut self, method: &str, target: &str, other: &[(&str, &str)]) -> Response {
        self.send_upgrade(method, target, other);
        self.response()
    }

    /// The same, without waiting for the answer.
    pub fn send_upgrade(&mut self, method: &str, target: &str, other: &[(&str, &str)]) {
        let usual = UPGRADE.into_iter().filter(|(name, _)| other.iter().all(|(replaced, _)| replaced != name));
        let headers: Vec<_> = usual.chain(other.iter().copied()).filter(|(_, value)| !value.is_empty()).collect();
        self.send(method, target, &headers, b"");
    }

    /// Whether nothing has come that nobody has read yet.
    pub fn is_silent(&mut self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).expect("a TCP stream");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a TCP stream");
        self.reader.buffer().is_empty() && peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Waits for the end of the connection; what still comes is returned.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the server does not close: {error}"),
        }
    }

    /// Says that no more will come, as a client that was closed does.
    pub fn close(self) {
        let _ = self.reader.get_ref().shutdown(Shutdown::Both);
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line within 5 s");
        assert!(line.ends_with("\r\n"), "the connection ended within a response: {line:?}");
        line.truncate(line.len() - 2);
        line
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> Response {
    Connection::open(address).get(target)
}

/// One request on a connection of its own.
pub fn post(address: SocketAddr, target: &str, body: impl AsRef<[u8]>) -> Response {
    Connection::open(address).post(target, body)
}
