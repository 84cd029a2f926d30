//! Target: the server that is measured: its URL, and the address that answers.

use crate::error::{self, Error};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const REACH_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    name: String,
    port: u16,
    /// Where Engine.IO lives; `/socket.io/` unless the URL has a path.
    pub path: String,
}

impl Target {
    pub fn parse(url: &str) -> Result<Target, String> {
        Self::parse_with(url, "/socket.io/")
    }

    /// The same for another service, with its own path for a URL that has none.
    pub fn parse_with(url: &str, usual_path: &str) -> Result<Target, String> {
        let wrong = || format!("'{url}' is no URL; write http://HOST:PORT");
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        if !matches!(scheme, "http" | "ws") {
            return Err(format!("{scheme}:// is not spoken here; write http://HOST:PORT"));
        }
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (name, port) = match port_at {
            Some(at) => (&authority[..at], authority[at + 1..].parse().map_err(|_| wrong())?),
            None => (authority, 80),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || port == 0 || url.contains(|byte: char| byte.is_whitespace() || "?#@".contains(byte)) {
            return Err(wrong());
        }
        let path = if path == "/" { usual_path } else { path };
        Ok(Target { name: name.to_owned(), port, path: path.to_owned() })
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
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000/socket.io/"),
            ("http://example.org/", "http://example.org:80/socket.io/"),
            ("ws://example.org:8080/chat/io/", "http://example.org:8080/chat/io/"),
            ("http://[::1]:3000", "http://[::1]:3000/socket.io/"),
        ];
        table.iter().for_each(|(url, whole)| assert_eq!(Target::parse(url).map(|it| it.url()).as_deref(), Ok(*whole)));
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
            "http://h/?a",
            "http://a b",
        ] {
            assert_eq!(Target::parse(url), Err(format!("'{url}' is no URL; write http://HOST:PORT")));
        }
        let https = Target::parse("https://h").expect_err("it is another protocol");
        assert_eq!(https, "https:// is not spoken here; write http://HOST:PORT");
    }
}
