//! Target: the server that is measured: its URL, and the address that answers.

use crate::error::{self, Error};
use crate::speech::Protocol;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const REACH_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    name: String,
    port: u16,
    /// What is asked for, query included. Engine.IO lives at `/socket.io/`, unless the URL has a path.
    pub path: String,
}

/// Where Engine.IO lives unless it is told.
const SOCKETIO_PATH: &str = "/socket.io/";

impl Target {
    pub fn parse(url: &str) -> Result<Target, String> {
        let wrong = || format!("'{url}' is no URL; write http://HOST:PORT");
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        if !matches!(scheme, "http" | "ws") {
            return Err(format!("{scheme}:// is not spoken here; write http://HOST:PORT"));
        }
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (name, port) = match port_at {
            Some(at) => (&authority[..at], authority[at + 1..].parse().map_err(|_| wrong())?),
            None => (authority, 80),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '#';
        if name.is_empty() || port == 0 || url.contains(odd) || authority.contains('@') {
            return Err(wrong());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Target { name: name.to_owned(), port, path })
    }

    /// The same server, where it speaks `protocol` unless the URL has a path.
    pub fn speaking(self, protocol: Protocol) -> Target {
        match protocol {
            Protocol::SocketIo => self.or_path(SOCKETIO_PATH),
            Protocol::Ws => self,
        }
    }

    /// The same server at `path`, unless the URL has a path.
    pub fn or_path(self, path: &str) -> Target {
        match self.path.strip_prefix('/').filter(|rest| rest.is_empty() || rest.starts_with('?')) {
            Some(query) => Target { path: format!("{path}{query}"), ..self },
            None => self,
        }
    }

    /// As the Host header has it.
    pub fn host(&self) -> String {
        if self.name.contains(':') {
            format!("[{}]:{}", self.name, self.port)
        } else {
            format!("{}:{}", self.name, self.port)
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}{}", self.host(), self.path)
    }

    /// The first of the host's addresses that accepts a connection.
    pub fn reach(&self) -> Result<SocketAddr, Error> {
        let unknown = |cause: String| Error::UnknownHost { host: self.name.clone(), cause };
        let addresses =
            (self.name.as_str(), self.port).to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
        let mut failure = unknown("no address".to_owned());
        for address in addresses {
            match TcpStream::connect_timeout(&address, REACH_TIMEOUT) {
                Ok(_) => return Ok(address),
                Err(error) => failure = Error::Unreachable { address, cause: error::cause(&error) },
            }
        }
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let table = [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000/socket.io/", "http://127.0.0.1:3000/"),
            ("http://example.org/", "http://example.org:80/socket.io/", "http://example.org:80/"),
            ("http://h?a=b@c", "http://h:80/socket.io/?a=b@c", "http://h:80/?a=b@c"),
            ("ws://h:8080/chat/io/?a", "http://h:8080/chat/io/?a", "http://h:8080/chat/io/?a"),
            ("http://[::1]:3000", "http://[::1]:3000/socket.io/", "http://[::1]:3000/"),
        ];
        for (url, socketio, ws) in table {
            let speaking = |protocol| Target::parse(url).map(|target| target.speaking(protocol).url());
            assert_eq!(speaking(Protocol::SocketIo).as_deref(), Ok(socketio));
            assert_eq!(speaking(Protocol::Ws).as_deref(), Ok(ws));
        }
    }

    #[test]
    fn what_is_no_url_says_how_to_write_one() {
        for url in [
            "",
            "localhost:3000",
            "http://",
            "http://:1",
            "http://h:x",
            "http://h:0",
            "http://h:70000",
            "http://h/#a",
            "http://h/?a\0",
            "http://a@h",
            "http://a b",
        ] {
            assert_eq!(Target::parse(url), Err(format!("'{url}' is no URL; write http://HOST:PORT")));
        }
        let https = Target::parse("https://h").expect_err("it is another protocol");
        assert_eq!(https, "https:// is not spoken here; write http://HOST:PORT");
    }
}
