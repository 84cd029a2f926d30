//! Asset: a file in memory, as browsers want it: with an ETag, and compressed if they like.
//!
//! Each compressed form is made when it is first asked for and kept: a few hundred kilobytes that never change.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use std::io::Write as _;
use std::sync::OnceLock;

/// A file that is served as it is.
pub struct Asset {
    plain: Bytes,
    gzip: OnceLock<Bytes>,
    deflate: OnceLock<Bytes>,
    etag: HeaderValue,
    content_type: HeaderValue,
    cache_control: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Asset {
    /// `version` is what the ETag holds, without its quotes.
    pub fn new(plain: Bytes, version: &str, content_type: &'static str, cache_control: &'static str) -> Asset {
        Asset {
            plain,
            gzip: OnceLock::new(),
            deflate: OnceLock::new(),
            etag: HeaderValue::from_str(&format!("\"{version}\"")).expect("a version is visible ASCII"),
            content_type: HeaderValue::from_static(content_type),
            cache_control: HeaderValue::from_static(cache_control),
        }
    }

    /// The answer to GET or HEAD: the file, or 304 if the client has it.
    pub fn respond(&self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let has_it = is_known(request, self.etag.to_str().expect("made from text"));
        let coding = preferred(request);
        let mut response = Response::new(Full::new(if has_it { Bytes::new() } else { self.coded(coding) }));
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::CACHE_CONTROL, self.cache_control.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if has_it {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match coding {
            Coding::Identity => None,
            Coding::Gzip => headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            Coding::Deflate => headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("deflate")),
        };
        response
    }

    fn coded(&self, coding: Coding) -> Bytes {
        match coding {
            Coding::Identity => self.plain.clone(),
            Coding::Gzip => self.gzip.get_or_init(|| gzip(&self.plain)).clone(),
            Coding::Deflate => self.deflate.get_or_init(|| deflate(&self.plain)).clone(),
        }
    }
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("a vector takes everything").into()
}

/// HTTP's deflate is the format that others call zlib (RFC 9110, section 8.4.1.2).
fn deflate(plain: &[u8]) -> Bytes {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("a vector takes everything").into()
}

/// Whether `If-None-Match` names this ETag. It is compared weakly: bytes that a proxy has compressed are the same file.
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let given = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag
    })
}

/// The coding that `Accept-Encoding` likes best of those that we have; among equals the one that it names first.
fn preferred(request: &HeaderMap) -> Coding {
    let given = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut best = (Coding::Identity, 0.0);
    for item in given.flat_map(|value| value.split(',')) {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        let coding = match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" | "*" => Coding::Gzip,
            "deflate" => Coding::Deflate,
            "identity" => Coding::Identity,
            _ => continue,
        };
        if weight > best.1 {
            best = (coding, weight);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_clients_own_order_decides_among_the_codings() {
        let cases = [
            ("", Coding::Identity),
            ("gzip, br", Coding::Gzip),
            ("br, deflate, gzip", Coding::Deflate),
            ("deflate;q=0.5, GZIP;q=0.8", Coding::Gzip),
            ("gzip;q=0, deflate;q=0", Coding::Identity),
            ("identity, gzip", Coding::Identity),
            ("br", Coding::Identity),
            ("*", Coding::Gzip),
            ("gzip;q=x", Coding::Identity),
        ];
        for (value, coding) in cases {
            assert_eq!(preferred(&headers(header::ACCEPT_ENCODING, value)), coding, "{value}");
        }
        assert_eq!(preferred(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn an_etag_is_known_alone_in_a_list_and_weakly() {
        for value in ["\"4.8.4\"", "W/\"4.8.4\"", "\"1\", \"4.8.4\"", "*"] {
            assert!(is_known(&headers(header::IF_NONE_MATCH, value), "\"4.8.4\""), "{value}");
        }
        for value in ["", "4.8.4", "\"4.8.5\"", "w/\"4.8.4\""] {
            assert!(!is_known(&headers(header::IF_NONE_MATCH, value), "\"4.8.4\""), "{value}");
        }
    }

    #[test]
    fn each_coding_gives_the_file_back() {
        let plain = b"fan fare fan fare fan fare".repeat(100);
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&*gzip(&plain)).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain);
        text.clear();
        flate2::read::ZlibDecoder::new(&*deflate(&plain)).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain);
    }
}
