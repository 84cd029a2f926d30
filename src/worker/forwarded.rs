//! Forwarded: whose request it is, where proxies stand between the client and us.
//!
//! ```text
//! client ─▶ proxy ─▶ proxy ─▶ us          X-Forwarded-For: (whatever the client said), client, proxy
//!                                                                                       ◀── read from here
//! ```
//!
//! Each proxy appends the address that it was reached from. So the list is read from its end, for as long as the one who
//! wrote an entry is trusted: the first entry that is no trusted proxy is the client. What stands before it was written by
//! the client, and is not looked at.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const HEADER: &str = "x-forwarded-for";

/// Whether the peer is one of our proxies. A v4 address that came over a v6 socket is the v4 address.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address.to_canonical()))
}

/// The client of a request that came from `peer`. An entry says no port, mostly: it is 0 then. If an entry that matters is
/// malformed nothing of the list is believed, and the client is the peer.
pub fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> SocketAddr {
    if !is_trusted(peer.ip(), trusted) {
        return peer;
    }
    let mut client = peer;
    for value in headers.get_all(HEADER).iter().rev() {
        let Ok(value) = value.to_str() else { return peer };
        for entry in value.rsplit(',') {
            let Some(address) = address(entry.trim()) else { return peer };
            client = address;
            if !is_trusted(address.ip(), trusted) {
                return client;
            }
        }
    }
    client
}

/// `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]` or `[2001:db8::7]:4711`.
fn address(entry: &str) -> Option<SocketAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let without_port = || Some(SocketAddr::new(bare.parse().ok()?, 0));
    entry.parse().ok().or_else(without_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client_of(peer: &str, lines: &[&[u8]]) -> String {
        let trusted = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, HeaderValue::from_bytes(line).unwrap());
        }
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_first_from_the_right_whom_nobody_trusts_is_the_client() {
        let proxy = "10.0.0.1:5000";
        for (lines, client) in [
            (&[][..], proxy),
            (&[&b"198.51.100.7"[..]], "198.51.100.7:0"),
            (&[b"198.51.100.7:4711"], "198.51.100.7:4711"),
            (&[b"2001:db8::7"], "[2001:db8::7]:0"),
            (&[b"[2001:db8::7]"], "[2001:db8::7]:0"),
            (&[b"[2001:db8::7]:4711"], "[2001:db8::7]:4711"),
            (&[b"198.51.100.7, 10.2.3.4,192.0.2.1 , 2001:db8:1::5"], "198.51.100.7:0"),
            (&[b"198.51.100.7", b"10.2.3.4", b"192.0.2.1"], "198.51.100.7:0"),
            // What the client wrote itself is worth nothing.
            (&[b"1.2.3.4, 198.51.100.7"], "198.51.100.7:0"),
            (&[b"10.9.9.9, 198.51.100.7, 10.2.3.4"], "198.51.100.7:0"),
            (&[b"garbage, , 198.51.100.7"], "198.51.100.7:0"),
            (&[b"gar\xffbage", b"198.51.100.7"], "198.51.100.7:0"),
            // All are proxies: the one farthest away.
            (&[b"10.7.7.7, 10.2.3.4"], "10.7.7.7:0"),
            // Malformed where it matters.
            (&[b""], proxy),
            (&[b"198.51.100.7,"], proxy),
            (&[b"unknown"], proxy),
            (&[b"198.51.100.7, unknown, 10.2.3.4"], proxy),
            (&[b"198.51.100.300"], proxy),
            (&[b"198.51.100.7", b"gar\xffbage"], proxy),
            (&[b"[198.51.100.7"], proxy),
        ] {
            let shown: Vec<_> = lines.iter().map(|line| line.escape_ascii().to_string()).collect();
            assert_eq!(client_of(proxy, lines), client, "{shown:?}");
        }
    }

    #[test]
    fn a_header_of_somebody_who_is_no_proxy_is_ignored() {
        assert_eq!(client_of("198.51.100.9:5000", &[b"1.2.3.4"]), "198.51.100.9:5000");
        assert_eq!(client_of("[2001:db8:2::1]:5000", &[b"1.2.3.4"]), "[2001:db8:2::1]:5000");
    }

    #[test]
    fn a_proxy_that_comes_over_a_socket_of_both_families_is_the_same_proxy() {
        assert_eq!(client_of("[::ffff:10.0.0.1]:5000", &[b"198.51.100.7, ::ffff:10.2.3.4"]), "198.51.100.7:0");
    }
}
