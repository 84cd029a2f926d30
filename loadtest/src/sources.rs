//! Sources: the local address that each connection comes from.
//!
//! One local address has only so many ports towards one server. A loopback server can be reached from all of
//! 127.0.0.0/8, so there the connections are spread over 127.0.0.2, 127.0.0.3, … by themselves. Towards another host
//! the machine's own address is used, and its ports are the limit, unless more addresses are told.

use crate::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Linux's own default, for when the file cannot be read.
const PORT_RANGE_DEFAULT: RangeInclusive<u16> = 32_768..=60_999;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// The kernel chooses the address.
    Own,
    /// The first so many connections come from 127.0.0.2, the next from 127.0.0.3, and so on.
    Loopback { connections_each: u32 },
    /// The addresses that were told, one after the other.
    Told(Vec<IpAddr>),
}

impl Sources {
    /// A client may need `streams_each`, one after the other: the port of a closed one is not free at once.
    pub fn choose(server: SocketAddr, connections: u32, streams_each: u32, told: &[IpAddr]) -> Result<Sources, Error> {
        let text = std::fs::read_to_string(PORT_RANGE).unwrap_or_default();
        Self::with_ports(server, connections, streams_each, told, parse_range(&text).unwrap_or(PORT_RANGE_DEFAULT))
    }

    /// The same with the ports that are told.
    pub fn with_ports(
        server: SocketAddr,
        connections: u32,
        streams_each: u32,
        told: &[IpAddr],
        range: RangeInclusive<u16>,
    ) -> Result<Sources, Error> {
        let ports = range.len() as u32 / streams_each * told.len().max(1) as u32;
        match server.ip() {
            _ if told.iter().any(|ip| ip.is_ipv4() != server.is_ipv4()) => {
                let problem = format!("the addresses must be of the same family as the server's, {}", server.ip());
                Err(Error::Option { option: "--source-ip", problem })
            }
            _ if !told.is_empty() && connections <= ports => Ok(Sources::Told(told.to_vec())),
            // One of four ports. Linux looks for a free one among the even numbers first, one after the other: half of
            // those stay free, and two looks are enough. When all are taken, each connect looks at thousands.
            IpAddr::V4(ip) if ip.is_loopback() && told.is_empty() => {
                Ok(Sources::Loopback { connections_each: (ports / 4).max(1) })
            }
            _ if connections > ports => Err(Error::TooFewPorts { connections, ports }),
            _ => Ok(Sources::Own),
        }
    }

    pub fn address(&self, client: u32) -> Option<IpAddr> {
        match self {
            Sources::Own => None,
            Sources::Loopback { connections_each } => {
                let first = Ipv4Addr::new(127, 0, 0, 2).to_bits();
                Some(Ipv4Addr::from_bits(first + client / connections_each).into())
            }
            Sources::Told(addresses) => Some(addresses[client as usize % addresses.len()]),
        }
    }
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.trim().split_once(char::is_whitespace)?;
    Some(low.parse().ok()?..=high.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_server_is_reached_from_many_addresses() {
        let server = SocketAddr::from(([127, 0, 0, 1], 3000));
        let sources = Sources::with_ports(server, 100_000, 1, &[], 1..=40_000).expect("there is room");
        let addresses = [0, 9_999, 10_000, 99_999].map(|client| sources.address(client));
        assert_eq!(addresses, [2, 2, 3, 11].map(|last| Some(IpAddr::from([127, 0, 0, last]))));
        let upgrading = Sources::with_ports(server, 100_000, 2, &[], 1..=40_000);
        assert_eq!(upgrading, Ok(Sources::Loopback { connections_each: 5_000 }), "two ports for each client");
    }

    #[test]
    fn another_host_has_only_our_ports() {
        let server = SocketAddr::from(([192, 0, 2, 1], 3000));
        assert_eq!(Sources::with_ports(server, 28_232, 1, &[], PORT_RANGE_DEFAULT), Ok(Sources::Own));
        let error = Sources::with_ports(server, 28_233, 1, &[], PORT_RANGE_DEFAULT).expect_err("one too many");
        assert_eq!(
            error.to_string(),
            "28,233 connections need more local ports than the 28,232 that there are; \
             widen the range with: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\""
        );
    }

    #[test]
    fn told_addresses_are_taken_in_turn_and_multiply_the_ports() {
        let server = SocketAddr::from(([192, 0, 2, 1], 3000));
        let told = [IpAddr::from([192, 0, 2, 7]), IpAddr::from([192, 0, 2, 8])];
        let sources = Sources::with_ports(server, 20_000, 1, &told, 1..=10_000).expect("two addresses are enough");
        assert_eq!([0, 1, 2].map(|client| sources.address(client)), [Some(told[0]), Some(told[1]), Some(told[0])]);
        assert!(matches!(
            Sources::with_ports(server, 20_001, 1, &told, 1..=10_000),
            Err(Error::TooFewPorts { ports: 20_000, .. })
        ));
        let server = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 3000));
        assert!(matches!(Sources::with_ports(server, 1, 1, &told, 1..=10), Err(Error::Option { .. })));
    }

    #[test]
    fn the_kernel_writes_the_range_with_a_tab() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_range("many"), None);
    }
}
