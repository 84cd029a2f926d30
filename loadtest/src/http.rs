//! HTTP: just enough of HTTP/1.1 to ask for an upgrade and to publish: whole answers at the front of a buffer.
//!
//! Limits: [`HEAD_BYTES_MAX`] and [`BODY_BYTES_MAX`]; what is longer is no answer to anything that we ask.

const HEAD_BYTES_MAX: usize = 16 << 10;
const BODY_BYTES_MAX: usize = 1 << 20;

/// One answer, without its body: nobody here reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `HTTP/1.1 404 Not Found`, for the person who reads the error.
    pub line: String,
    /// Lower-case names, trimmed values.
    headers: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    NotHttp,
    TooLong,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Takes the status line and the headers from the front of `bytes`.
pub fn head(bytes: &[u8]) -> Result<Option<(Answer, usize)>, Error> {
    if !bytes.starts_with(b"HTTP/1.") && !b"HTTP/1.".starts_with(bytes) {
        return Err(Error::NotHttp);
    }
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(Error::TooLong) } else { Ok(None) };
    };
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(Error::NotHttp)?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Some((Answer { status, line, headers }, end + 4)))
}

/// Takes a whole answer, body included.
pub fn answer(bytes: &[u8]) -> Result<Option<(Answer, usize)>, Error> {
    let Some((answer, start)) = head(bytes)? else { return Ok(None) };
    let chunked = answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let body = if chunked { chunks(&bytes[start..])? } else { plain(&answer, &bytes[start..])? };
    Ok(body.map(|length| (answer, start + length)))
}

/// The bytes of a body whose length was told. An answer that does not tell, tells zero: we keep the connection.
fn plain(answer: &Answer, bytes: &[u8]) -> Result<Option<usize>, Error> {
    let length = answer.header("content-length").map_or(Ok(0), str::parse).map_err(|_| Error::NotHttp)?;
    if length > BODY_BYTES_MAX {
        return Err(Error::TooLong);
    }
    Ok((bytes.len() >= length).then_some(length))
}

/// The bytes of a chunked body, up to and with its last empty line.
fn chunks(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let mut at = 0;
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).ok().and_then(|text| text.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).ok_or(Error::NotHttp)?;
        at += line + 2;
        if size > BODY_BYTES_MAX || at > BODY_BYTES_MAX {
            return Err(Error::TooLong);
        }
        at += size + 2;
        if bytes.len() < at {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
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
        for (whole, status) in [(TOLD, 200), (CHUNKED, 404), (EMPTY, 204)] {
            for cut in 0..whole.len() {
                assert_eq!(answer(&whole[..cut]), Ok(None), "{status} cut at {cut}");
            }
            let two = [whole, TOLD].concat();
            let (first, length) = answer(&two).expect("it is HTTP").expect("it is whole");
            assert_eq!((first.status, length), (status, whole.len()));
        }
    }

    #[test]
    fn headers_have_names_of_any_case() {
        let (answer, _) = head(TOLD).expect("it is HTTP").expect("it is whole");
        assert_eq!((answer.header("content-length"), answer.header("x")), (Some("13"), Some("y")));
        assert_eq!(answer.line, "HTTP/1.1 200 OK");
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
