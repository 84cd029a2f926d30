//! PROXY protocol: what a proxy says in front of a TCP connection about the client that it stands for.
//!
//! Versions 1 and 2, by HAProxy's specification (`proxy-protocol.txt`, sections 2.1 and 2.2).
//!
//! ```text
//!   v1   PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n                a line of at most 107 bytes
//!   v2   0d0a0d0a000d0a515549540a  21  11  000c  c0000207 c6336401 dc04 01bb  …
//!        signature                 │   │   │     addresses and ports          TLVs, which are skipped
//!                    version, command  │   bytes that follow
//!                        family, transport
//! ```
//!
//! Limits: [`HEADER_BYTES_MAX`], known to be exceeded as soon as a header says its length.
//! Not here: who may send such a header, and how long it may take (worker/proxied.rs).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is read. What proxies append (TLVs) is mostly far below 1 KB.
pub const HEADER_BYTES_MAX: usize = 4096;

const LINE_BYTES_MAX: usize = 107;
const LINE_BEGIN: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the client's connection comes from. `None`: the proxy does not know, or speaks for itself (a health check).
    pub source: Option<SocketAddr>,
    /// Bytes that it took; what follows is the client's.
    pub length: usize,
}

/// The rule that a header breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The connection begins with something else.
    Missing,
    /// Longer than any header may be, or than we read.
    TooLong,
    /// A line that is not `PROXY`, a protocol, two addresses of it and two ports.
    BadLine,
    /// Not version 2, or a command other than LOCAL and PROXY.
    BadCommand,
    /// No family and transport that a TCP connection has.
    BadFamily,
    /// Too short for the addresses of its family.
    TooShort,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Missing => "it does not begin with a PROXY protocol header",
            Error::TooLong => "its PROXY protocol header is too long",
            Error::BadLine => "its PROXY protocol line is malformed",
            Error::BadCommand => "its PROXY protocol header has an unknown version or command",
            Error::BadFamily => "its PROXY protocol header is not about a TCP connection",
            Error::TooShort => "its PROXY protocol header is too short for its addresses",
        })
    }
}

impl std::error::Error for Error {}

/// Decodes the header that `bytes` begin with. `None`: more bytes are needed.
///
/// # Errors
///
/// The rule that the header breaks, as soon as that is certain.
pub fn decode(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    match (begins(LINE_BEGIN), begins(SIGNATURE)) {
        (false, false) => Err(Error::Missing),
        (true, _) if bytes.len() >= LINE_BEGIN.len() => decode_line(bytes),
        (_, true) if bytes.len() >= SIGNATURE.len() => decode_binary(bytes),
        _ => Ok(None),
    }
}

fn decode_line(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Error::TooLong) };
    };
    let line = std::str::from_utf8(&bytes[LINE_BEGIN.len()..end]).map_err(|_| Error::BadLine)?;
    let mut words = line.split(' ');
    let source = match words.next() {
        Some("UNKNOWN") => None, // whatever follows is to be ignored
        Some("TCP4") => Some(source_of_line::<Ipv4Addr>(words).ok_or(Error::BadLine)?),
        Some("TCP6") => Some(source_of_line::<Ipv6Addr>(words).ok_or(Error::BadLine)?),
        _ => return Err(Error::BadLine),
    };
    Ok(Some(Header { source, length: end + 2 }))
}

/// `source destination source-port destination-port`, and no more.
fn source_of_line<'l, A: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'l str>,
) -> Option<SocketAddr> {
    let (source, _destination) = (words.next()?.parse::<A>().ok()?, words.next()?.parse::<A>().ok()?);
    let (source_port, _destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| SocketAddr::new(source.into(), source_port))
}

fn port(text: &str) -> Option<u16> {
    // `parse` alone takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn decode_binary(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let Some(&fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = fixed;
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Error::BadCommand),
    };
    let addresses_bytes = match family {
        _ if is_local => 0,
        0x00 => 0,   // unspecified
        0x11 => 12,  // TCP over IPv4
        0x21 => 36,  // TCP over IPv6
        0x31 => 216, // a Unix stream
        _ => return Err(Error::BadFamily),
    };
    if length < FIXED_BYTES + addresses_bytes {
        return Err(Error::TooShort);
    }
    if length > HEADER_BYTES_MAX {
        return Err(Error::TooLong);
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..length) else { return Ok(None) };
    let source = match (is_local, family) {
        (false, 0x11) => Some(source_of_binary(addresses, |octets: [u8; 4]| octets.into())),
        (false, 0x21) => Some(source_of_binary(addresses, |octets: [u8; 16]| octets.into())),
        _ => None,
    };
    Ok(Some(Header { source, length }))
}

/// Source address, destination address, source port, destination port. Their length has been checked.
fn source_of_binary<const N: usize>(addresses: &[u8], address: impl FnOnce([u8; N]) -> IpAddr) -> SocketAddr {
    let octets = addresses.first_chunk().expect("as long as its family needs");
    let port = addresses[2 * N..].first_chunk().expect("as long as its family needs");
    SocketAddr::new(address(*octets), u16::from_be_bytes(*port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::fuzzing::fuzz;

    /// A header of version 2.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short enough");
        [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), rest].concat()
    }

    fn v4() -> Vec<u8> {
        vec![192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb]
    }

    fn v6() -> Vec<u8> {
        let [source, destination] =
            ["2001:db8::7", "2001:db8::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        [&source[..], &destination, &[0xdc, 0x04, 0x01, 0xbb]].concat()
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let tlvs = [0x04, 0, 2, 0, 0];
        vec![
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), Some("192.0.2.7:56324")),
            (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(), Some("255.255.255.255:65535")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(), Some("[2001:db8::7]:56324")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 whatever 65535\r\n".to_vec(), None),
            ([b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 107 - 16], b"\r\n".to_vec()].concat(), None),
            (binary(0x21, 0x11, &v4()), Some("192.0.2.7:56324")),
            (binary(0x21, 0x21, &v6()), Some("[2001:db8::7]:56324")),
            (binary(0x21, 0x11, &[&v4()[..], &tlvs].concat()), Some("192.0.2.7:56324")),
            (binary(0x21, 0x31, &[b'/'; 216]), None),
            (binary(0x21, 0x00, &[]), None),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &v4()), None),
            (binary(0x20, 0xff, &tlvs), None),
            (binary(0x21, 0x00, &[0; HEADER_BYTES_MAX - FIXED_BYTES]), None),
        ]
    }

    #[test]
    fn a_header_says_where_the_client_is_and_how_long_it_is_itself() {
        for (bytes, source) in good() {
            let expected = Header { source: source.map(|text| text.parse().unwrap()), length: bytes.len() };
            assert_eq!(decode(&bytes), Ok(Some(expected)), "{}", bytes.escape_ascii());
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(decode(&followed), Ok(Some(expected)), "what follows is not looked at");
        }
    }

    #[test]
    fn a_header_that_is_cut_anywhere_waits_for_the_rest() {
        for (bytes, _) in good() {
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "{} of {}", cut, bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn every_broken_rule_is_refused() {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let too_long = [&SIGNATURE[..], &[0x21, 0x11], &4081u16.to_be_bytes()].concat();
        for (bytes, error) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), Error::Missing),
            (b"PROXX".to_vec(), Error::Missing),
            (b"proxy TCP4".to_vec(), Error::Missing),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Error::Missing),
            ([b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 107]].concat(), Error::TooLong),
            (line(""), Error::BadLine),
            (line("UDP4 192.0.2.7 198.51.100.1 56324 443"), Error::BadLine),
            (line("TCP4"), Error::BadLine),
            (line("TCP4 192.0.2.7 198.51.100.1 56324"), Error::BadLine),
            (line("TCP4 192.0.2.7 198.51.100.1 56324 443 1"), Error::BadLine),
            (line("TCP4 192.0.2.7  198.51.100.1 56324 443"), Error::BadLine),
            (line("TCP4 192.0.2.256 198.51.100.1 56324 443"), Error::BadLine),
            (line("TCP4 2001:db8::7 2001:db8::1 56324 443"), Error::BadLine),
            (line("TCP6 192.0.2.7 198.51.100.1 56324 443"), Error::BadLine),
            (line("TCP4 192.0.2.7 198.51.100.1 65536 443"), Error::BadLine),
            (line("TCP4 192.0.2.7 198.51.100.1 +80 443"), Error::BadLine),
            (line("TCP4 192.0.2.7 198.51.100.1 -1 443"), Error::BadLine),
            (line("TCP4 192.0.2.7 198.51.100.1  443"), Error::BadLine),
            (line("TCP4 é.0.2.7 198.51.100.1 1 443"), Error::BadLine),
            (b"PROXY \xff\r\n".to_vec(), Error::BadLine),
            (binary(0x11, 0x11, &v4()), Error::BadCommand),
            (binary(0x22, 0x11, &v4()), Error::BadCommand),
            (binary(0x21, 0x12, &v4()), Error::BadFamily),
            (binary(0x21, 0x41, &v4()), Error::BadFamily),
            (binary(0x21, 0x11, &v4()[1..]), Error::TooShort),
            (binary(0x21, 0x21, &v6()[1..]), Error::TooShort),
            (binary(0x21, 0x31, &[0; 215]), Error::TooShort),
            (too_long, Error::TooLong),
        ] {
            assert_eq!(decode(&bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn whatever_comes_is_decoded_alike_however_it_is_cut() {
        fuzz(3_000, |random| {
            let samples = good();
            let mut bytes = random.pick(&samples).0.clone();
            bytes.extend(random.bytes(20));
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len().min(60));
                bytes[at] = random.next() as u8;
            }
            let whole = decode(&bytes);
            if let Ok(Some(Header { length, .. })) = whole {
                assert!(length <= bytes.len() && length <= HEADER_BYTES_MAX);
            }
            for cut in 0..bytes.len().min(300) {
                let part = decode(&bytes[..cut]);
                assert!(part == Ok(None) || part == whole, "{part:?} and then {whole:?}");
            }
        });
    }
}
