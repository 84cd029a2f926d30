//! Guard: who may publish.
//!
//! With a key, whoever shows it, from anywhere. Without one the server listens on loopback only (the configuration sees
//! to that), where every program of this machine may publish. But a browser on this machine runs programs of others:
//!
//! - Any page on the web can send a POST to `http://127.0.0.1:3000` without asking (cross-site request forgery). It
//!   cannot hide where it comes from: the browser adds `Origin`. So a foreign `Origin` is refused.
//! - A page of `evil.example` can have that name point to 127.0.0.1 after it was loaded (DNS rebinding). Then it is of
//!   the same origin as this server, but the browser still says `Host: evil.example`. So `Host` must be a name of
//!   loopback.
//!
//! With a key neither helps: a page does not know it, and the browser does not send it by itself.

use super::config::PublishKey;
use super::publish::Refusal;
use http::header::{self, HeaderMap, HeaderName};
use std::net::IpAddr;

/// Lets a publisher through, or says why not.
pub fn check(key: Option<&PublishKey>, headers: &HeaderMap) -> Result<(), Refusal> {
    match key {
        Some(key) => check_key(key.expose(), headers),
        None => check_page(headers),
    }
}

fn check_key(key: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let shown = headers.get(header::AUTHORIZATION).ok_or(Refusal::KeyMissing)?.as_bytes();
    let (scheme, shown) = shown.split_at(shown.len().min("Bearer ".len()));
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Refusal::KeyMissing);
    }
    if is_same(shown.trim_ascii(), key.as_bytes()) { Ok(()) } else { Err(Refusal::KeyWrong) }
}

/// Compares in a time that depends on the lengths alone, so that nobody can find the key byte by byte with a clock.
fn is_same(shown: &[u8], key: &[u8]) -> bool {
    let difference = shown.iter().zip(key).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    shown.len() == key.len() && difference == 0
}

fn check_page(headers: &HeaderMap) -> Result<(), Refusal> {
    // Without `Host` it is no browser.
    let host = text(headers, header::HOST).unwrap_or_default();
    if headers.contains_key(header::HOST) && !is_loopback(&host) {
        return Err(Refusal::ForeignHost { host });
    }
    match text(headers, header::ORIGIN) {
        Some(origin) if !is_of(&origin, &host) => Err(Refusal::ForeignOrigin { origin }),
        _ => Ok(()),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
}

/// Whether a page of this origin came from this server.
fn is_of(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    !host.is_empty() && authority == Some(host)
}

/// `localhost`, `127.0.0.1` or `[::1]`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_key_is_compared_whole() {
        assert!(is_same(b"0123456789abcdef", b"0123456789abcdef"));
        for shown in [&b""[..], b"0123456789abcde", b"0123456789abcdeg", b"0123456789abcdef0", b"X123456789abcdef"] {
            assert!(!is_same(shown, b"0123456789abcdef"));
        }
    }

    #[test]
    fn the_scheme_may_be_written_in_any_case_and_must_be_bearer() {
        let check = |value: &str| check_key("0123456789abcdef", &headers(&[("authorization", value)]));
        assert_eq!(check("bearer 0123456789abcdef"), Ok(()));
        assert_eq!(check("Bearer  0123456789abcdef "), Ok(()));
        assert_eq!(check("Bearer 0123456789abcdeX"), Err(Refusal::KeyWrong));
        assert_eq!(check("Basic 0123456789abcdef"), Err(Refusal::KeyMissing));
        assert_eq!(check("0123456789abcdef"), Err(Refusal::KeyMissing));
        assert_eq!(check_key("0123456789abcdef", &HeaderMap::new()), Err(Refusal::KeyMissing));
    }

    #[test]
    fn without_a_key_programs_and_our_own_page_may_publish() {
        for host in [
            "127.0.0.1:3000",
            "localhost:3000",
            "LOCALHOST",
            "[::1]:3000",
            "[::1]",
            "127.1.2.3",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(check_page(&headers(&[("host", host)])), Ok(()), "{host}");
            let origin = format!("http://{host}");
            assert_eq!(check_page(&headers(&[("host", host), ("origin", &origin)])), Ok(()), "{host}");
        }
        assert_eq!(check_page(&HeaderMap::new()), Ok(()));
    }

    #[test]
    fn without_a_key_pages_of_others_may_not_publish() {
        for origin in ["null", "http://evil.example", "http://127.0.0.1:8000", "http://127.0.0.1", "127.0.0.1:3000", ""]
        {
            let refused = check_page(&headers(&[("host", "127.0.0.1:3000"), ("origin", origin)]));
            assert_eq!(refused, Err(Refusal::ForeignOrigin { origin: origin.into() }), "{origin}");
        }
        assert!(check_page(&headers(&[("origin", "http://")])).is_err(), "no host is no origin");
    }

    #[test]
    fn without_a_key_a_name_that_was_rebound_to_loopback_is_refused() {
        for host in [
            "evil.example:3000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::2]:3000",
            "",
            ":3000",
            "192.0.2.1",
        ] {
            let same_origin = headers(&[("host", host), ("origin", &format!("http://{host}"))]);
            assert_eq!(check_page(&same_origin), Err(Refusal::ForeignHost { host: host.into() }), "{host}");
        }
    }
}
