//! HTTP: just enough of HTTP/1.1 to poll, to ask for an upgrade and to publish: whole answers at the front of a buffer.
//!
//! An answer borrows from that buffer; only a chunked body is put together anew.
//!
//! Limits: [`HEAD_BYTES_MAX`] and [`BODY_BYTES_MAX`]; what is longer is no answer to anything that we ask.

use std::borrow::Cow;

const HEAD_BYTES_MAX: usize = 16 << 10;
/// As for a frame: a poll may bring as much as one, and a broken server must not make us buffer for ever.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The status and the headers of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    head: Cow<'a, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    NotHttp,
    TooLong,
}

impl Answer<'_> {
    /// `HTTP/1.1 404 Not Found`, for the person who reads the error.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// The value of a header; its name is of any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let mut found = headers.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }

    /// Whether the server takes no further request on this stream.
    pub fn closes(&self) -> bool {
        let mut tokens = self.header("connection").unwrap_or_default().split(',');
        tokens.any(|token| token.trim().eq_ignore_ascii_case("close"))
    }
}

/// Takes the status line and the headers from the front of `bytes`.
pub fn head(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, Error> {
    if !bytes.starts_with(b"HTTP/1.") && !b"HTTP/1.".starts_with(bytes) {
        return Err(Error::NotHttp);
    }
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(Error::TooLong) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status = head.split([' ', '\r']).nth(1).and_then(|status| status.parse().ok()).ok_or(Error::NotHttp)?;
    Ok(Some((Answer { status, head }, end + 4)))
}

/// A body, and how many bytes brought it.
type Body<'a> = (Cow<'a, [u8]>, usize);

/// Takes a whole answer: its head, and its body with the bytes of both.
pub fn answer(bytes: &[u8]) -> Result<Option<(Answer<'_>, Body<'_>)>, Error> {
    let Some((answer, start)) = head(bytes)? else { return Ok(None) };
    let chunked = answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let body = if chunked { chunks(&bytes[start..])? } else { plain(&answer, &bytes[start..])? };
    Ok(body.map(|(body, length)| (answer, (body, start + length))))
}

/// A body whose length was told. An answer that does not tell, tells zero: we keep the connection.
fn plain<'a>(answer: &Answer<'_>, bytes: &'a [u8]) -> Result<Option<Body<'a>>, Error> {
    let length = answer.header("content-length").map_or(Ok(0), str::parse).map_err(|_| Error::NotHttp)?;
    if length > BODY_BYTES_MAX {
        return Err(Error::TooLong);
    }
    Ok(bytes.get(..length).map(|body| (body.into(), length)))
}

/// A body in chunks, up to and with its last empty line.
fn chunks(bytes: &[u8]) -> Result<Option<Body<'_>>, Error> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).ok().and_then(|text| text.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).ok_or(Error::NotHttp)?;
        at += line + 2;
        if size > BODY_BYTES_MAX || at > BODY_BYTES_MAX {
            return Err(Error::TooLong);
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body.into(), at)));
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nX: y\r\n\r\n{\"sockets\":1}";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\n\r\n";
    const EMPTY: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

    #[test]
    fn an_answer_cut_anywhere_is_not_an_answer_yet() {
        let table: [(&[u8], u16, &[u8]); 3] =
            [(TOLD, 200, b"{\"sockets\":1}"), (CHUNKED, 404, b"abc0123456789"), (EMPTY, 204, b"")];
        for (whole, status, body) in table {
            for cut in 0..whole.len() {
                assert_eq!(answer(&whole[..cut]), Ok(None), "{status} cut at {cut}");
            }
            let two = [whole, TOLD].concat();
            let (first, (found, length)) = answer(&two).expect("it is HTTP").expect("it is whole");
            assert_eq!((first.status, &*found, length), (status, body, whole.len()));
        }
    }

    #[test]
    fn headers_have_names_of_any_case() {
        let (answer, _) = head(TOLD).expect("it is HTTP").expect("it is whole");
        assert_eq!((answer.header("content-length"), answer.header("x")), (Some("13"), Some("y")));
        assert_eq!(answer.line(), "HTTP/1.1 200 OK");
    }

    #[test]
    fn an_answer_says_when_it_was_the_last() {
        for (header, closes) in [("close", true), ("Keep-Alive, CLOSE", true), ("keep-alive", false), ("closed", false)]
        {
            let bytes = format!("HTTP/1.1 200 OK\r\nCONNECTION: {header}\r\n\r\n");
            let (answer, _) = head(bytes.as_bytes()).expect("it is HTTP").expect("it is whole");
            assert_eq!(answer.closes(), closes, "{header}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert_eq!(head(b"SSH-2.0-OpenSSH"), Err(Error::NotHttp));
        assert_eq!(head(b"HTTP/1.1 many\r\n\r\n"), Err(Error::NotHttp));
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), Err(Error::NotHttp));
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"), Err(Error::TooLong));
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; HEAD_BYTES_MAX]].concat();
        assert_eq!(head(&endless), Err(Error::TooLong));
    }
}
