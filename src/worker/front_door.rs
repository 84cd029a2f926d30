//! Front door: a WebSocket handshake that is all there when its connection is accepted is answered at once.
//!
//! ```text
//! accepted ─▶ one read ─▶ plain? ─ yes ─▶ handshake.rs: let in? ─ yes ─▶ the session begins ─▶ 101, open packet: one write
//!                           │ no                           │ no
//!                           ╰ http.rs, with what was read ─╯
//! ```
//!
//! Nearly every client sends the same first request, in one segment, and under load it is there before its connection is
//! accepted. It needs no task, no HTTP connection and no buffers.
//!
//! **It only ever says yes.** Whoever is to be refused, and whatever is unusual, is left to hyper as if it had not been
//! looked at. So hyper alone decides what a strange request says, and each refusal has one place. The parser is hyper's
//! own, and so are the types that it fills: nothing is understood here that hyper would understand otherwise.
//!
//! Limits: [`READ_BYTES`], [`HEADERS_MAX`]; a longer request is hyper's.

use super::Worker;
use super::admission::Admitted;
use super::handshake::{self, names};
use super::http;
use super::streams::NewStream;
use crate::shard::drive::App;
use crate::shard::session::Handshake;
use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Request, Uri};
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of the first read. Heads with large cookies are longer, and seldom.
const READ_BYTES: usize = 8 << 10;
/// Headers of a request: those of a browser and of several proxies in front of us.
const HEADERS_MAX: usize = 64;
/// What a 101 takes, with room for a sub-protocol and the CORS headers.
const ANSWER_BYTES: usize = 320;

/// Takes in a connection which was admitted, and whose stream does not block. `buffer` is for the first read.
pub fn welcome<A: App + 'static>(
    worker: &Rc<Worker<A>>,
    mut tcp: TcpStream,
    peer: SocketAddr,
    mut admitted: Admitted,
    buffer: &mut [u8],
) {
    let read = match tcp.read(&mut buffer[..READ_BYTES]) {
        Ok(0) => return, // it has gone again
        Ok(bytes) => &buffer[..bytes],
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => &[],
        Err(_) => return,
    };
    let accepted = plain_handshake(read)
        .and_then(|(request, length)| Some((answer(worker, peer, &request, &mut admitted)?, &read[length..])));
    match accepted {
        Some(((handshake, switching), behind)) => {
            let stream = NewStream { tcp, read: behind.to_vec(), admitted };
            worker.attach(handshake, stream, switching);
        }
        None => http::spawn(Rc::clone(worker), tcp, peer, admitted, read.to_vec()),
    }
}

/// What the session keeps of the request, and its 101. `None`: it is HTTP's to answer.
fn answer<A: App + 'static>(
    worker: &Worker<A>,
    peer: SocketAddr,
    request: &Request<()>,
    admitted: &mut Admitted,
) -> Option<(Handshake, Vec<u8>)> {
    let shard = worker.shard.borrow();
    let settings = shard.settings();
    if !handshake::is_ours(settings, request.uri().path()) || !handshake::is_websocket(settings, request.headers()) {
        return None;
    }
    let None = worker.session_wanted(settings, request).ok()? else { return None };
    let (handshake, accept) = worker.let_in(settings, peer, request, admitted).ok()?;
    let mut headers = handshake::switching_headers(accept, request.headers());
    headers.extend(settings.cors.iter().flat_map(|cors| handshake::cors_headers(cors, request)));
    let switching = switching_protocols(&headers, worker.date.borrow_mut().at(handshake.issued_ms()));
    Some((handshake, switching))
}

/// The request with which these bytes begin, and its length. `None`: it is not complete, it could have a body, or the
/// connection would not simply be a WebSocket's after it.
fn plain_handshake(bytes: &[u8]) -> Option<(Request<()>, usize)> {
    if !bytes.starts_with(b"GET /") {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
    if parsed.version != Some(1) {
        return None;
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::try_from(parsed.path?).ok()?;
    *request.headers_mut() = header_map(parsed.headers)?;
    is_plain(request.headers()).then_some((request, length))
}

fn header_map(parsed: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(headers)
}

/// Whether nothing but the WebSocket can follow: hyper reads a body by the first two, answers the third before the
/// request, and adds to the 101 if the connection is to end.
fn is_plain(headers: &HeaderMap) -> bool {
    let unusual = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT];
    !unusual.iter().any(|name| headers.contains_key(name)) && !names(headers, header::CONNECTION, "close")
}

/// The 101 as hyper writes it.
fn switching_protocols(headers: &[(HeaderName, HeaderValue)], date: &str) -> Vec<u8> {
    let mut head = Vec::with_capacity(ANSWER_BYTES);
    head.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in headers {
        [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]
            .iter()
            .for_each(|piece| head.extend_from_slice(piece));
    }
    [b"date: ", date.as_bytes(), b"\r\n\r\n"].iter().for_each(|piece| head.extend_from_slice(piece));
    head
}

/// The `date` of answers, which is written anew once a second.
#[derive(Default)]
pub struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// The time is in milliseconds since the Unix epoch.
    fn at(&mut self, ms: u64) -> &str {
        let second = ms / 1000;
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "/socket.io/?EIO=4&transport=websocket";
    const USUAL: &str = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn head(headers: &str) -> String {
        format!("GET {TARGET} HTTP/1.1\r\n{USUAL}{headers}\r\n")
    }

    #[test]
    fn a_usual_handshake_is_taken_as_it_was_written_up_to_its_end() {
        let cookies = format!("Cookie: {}\r\n", "x".repeat(READ_BYTES / 2));
        let others = (0..HEADERS_MAX - 5).map(|number| format!("X-{number}: {number}\r\n")).collect::<String>();
        for headers in ["", "X-Name: K\u{e4}the\r\n", "X-Two: a\r\nX-Two: b\r\n", "X-Empty:\r\n", &cookies, &others] {
            let usual = head(headers);
            for behind in ["", "\u{81}", "GET / HTTP/1.1\r\n\r\n"] {
                let bytes = [usual.as_bytes(), behind.as_bytes()].concat();
                let (request, length) = plain_handshake(&bytes).unwrap_or_else(|| panic!("{usual}"));
                assert_eq!(length, usual.len());
                assert_eq!(request.uri(), TARGET);
                assert_eq!(request.headers().len(), 5 + headers.matches("\r\n").count());
                assert_eq!(request.headers()["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
            }
        }
    }

    #[test]
    fn a_handshake_that_is_not_all_there_is_not_taken() {
        let head = head("");
        for cut in 0..head.len() {
            assert!(plain_handshake(&head.as_bytes()[..cut]).is_none(), "{cut} bytes");
        }
    }

    #[test]
    fn whatever_is_unusual_is_not_taken() {
        let with = head;
        let instead = |line: &str| head("").replace(&format!("GET {TARGET} HTTP/1.1"), line);
        let many = (0..HEADERS_MAX - 4).map(|number| format!("X-{number}: {number}\r\n")).collect::<String>();
        for unusual in [
            // A body, or what is answered before the request.
            with("Content-Length: 0\r\n"),
            with("content-length: 4\r\n"),
            with("Transfer-Encoding: chunked\r\n"),
            with("Transfer-Encoding: identity\r\n"),
            with("Expect: 100-continue\r\n"),
            with("Expect: nothing\r\n"),
            // It is to end, which the 101 would have to say.
            with("Connection: close\r\n"),
            head("").replace("Connection: Upgrade", "Connection: upgrade , CLOSE"),
            // Another method, version or form of the target.
            instead(&format!("POST {TARGET} HTTP/1.1")),
            instead(&format!("get {TARGET} HTTP/1.1")),
            instead(&format!("GET {TARGET} HTTP/1.0")),
            instead(&format!("GET {TARGET} HTTP/2.0")),
            instead(&format!("GET http://localhost{TARGET} HTTP/1.1")),
            instead("GET * HTTP/1.1"),
            instead("GET /a b HTTP/1.1"),
            instead(&format!("GET {TARGET}\u{7f} HTTP/1.1")),
            instead(&format!("GET {TARGET}")),
            // What comes in front of a request.
            format!("\r\n{}", head("")),
            format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{}", head("")),
            // No header.
            with("no colon\r\n"),
            with("X-Name : space\r\n"),
            with("X-Folded: a\r\n b\r\n"),
            with("X-Zero: \0\r\n"),
            with(": no name\r\n"),
            with(&many),
        ] {
            assert!(plain_handshake(unusual.as_bytes()).is_none(), "{unusual}");
        }
    }

    #[test]
    fn a_101_has_its_headers_in_order_and_the_date_last() {
        let headers = [
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        ];
        let expected = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\naccess-control-allow-origin: *\r\n\
                        date: now\r\n\r\n";
        assert_eq!(switching_protocols(&headers, "now"), expected.as_bytes());
    }

    #[test]
    fn the_date_is_that_of_its_second() {
        let mut date = Date::default();
        let at = |ms: u64| 784_111_777_000 + ms; // RFC 9110, section 5.6.7
        assert_eq!(date.at(at(0)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(at(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(at(1000)), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(date.at(at(0)), "Sun, 06 Nov 1994 08:49:37 GMT", "a clock may be set back");
    }
}
