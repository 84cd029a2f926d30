//! Session and conn: what the shard keeps for one client, and for one WebSocket stream.
//!
//! A session lives from its handshake to the end of the turn in which it closed; if it polls, perhaps until a last poll
//! has taken its last packets. A conn is one WebSocket stream as the shard sees it; it serves a session, probes for one
//! (an upgrade), or only delivers what a closed session left behind.
//! A polling session has no conn: its requests come and go as [`Exchange`](super::mail::Exchange)s.

use super::arena::Key;
use super::lanes::Queued;
use super::mail::Exchange;
use super::outbox::Outbox;
use super::rates::Rates;
use super::wheel::Millis;
use crate::proto::{Id, socketio, websocket};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use triomphe::ThinArc;

pub struct Session {
    pub id: Id,
    pub transport: Transport,
    pub outbox: Outbox,
    pub heartbeat: Heartbeat,
    /// How much the client has said lately, where that is limited.
    pub rates: Option<Box<Rates>>,
    /// The conn that probes to become this session's transport.
    pub upgrade: Option<Key<Conn>>,
    /// Slots of this session's sockets. A slot leaves the list when its socket does.
    pub sockets: SmallVec<[u32; 2]>,
    pub assembler: socketio::Assembler,
    pub handshake: Handshake,
    pub state: State,
    /// Whether the session is *dirty*: in the shard's lanes of those who have something to write.
    pub queued: Queued,
    /// Whether it ever joined a namespace: the connect timeout is over then.
    pub joined: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Open,
    /// Closed while no poll was there to say so. It only waits for one, whose last packets are these.
    Lingering {
        last: LastWord,
    },
    /// Ended. It is freed when the turn ends.
    Closed,
}

/// What a session that is closed answers to a last poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastWord {
    /// The client has said goodbye itself.
    Noop,
    /// The server has closed it: a noop, then a close packet.
    NoopAndClose,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Polling {
        poll: Option<Exchange>,
    },
    /// `blocked`: the kernel took less than it was given, and has not asked for more yet.
    WebSocket {
        conn: Key<Conn>,
        blocked: bool,
    },
}

impl Transport {
    /// The name that clients and handlers know.
    pub fn name(&self) -> &'static str {
        match self {
            Transport::Polling { .. } => "polling",
            Transport::WebSocket { .. } => "websocket",
        }
    }
}

/// The server pings, the client pongs (Engine.IO v4, "heartbeat").
pub struct Heartbeat {
    /// When the next ping goes out, or by when the pong must be here.
    pub due: Millis,
    /// The earliest entry that the wheel holds for `due`; it may be too early, never too late.
    pub timer: Millis,
    pub state: HeartbeatState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeartbeatState {
    Resting,
    AwaitingPong,
    /// Something else arrived while the pong was awaited: that counts as life, once per ping.
    Extended,
}

/// One WebSocket stream as the shard sees it.
pub struct Conn {
    pub role: Role,
    pub decoder: websocket::Decoder,
    /// The rest of a partial frame.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 24 for the many conns that have none")]
    pub spill: Option<Box<Vec<u8>>>,
    /// The peer said its last word or broke a rule of framing: what else it sends has no meaning.
    pub deaf: bool,
    /// Its end is noted; the worker closes the stream when the turn ends.
    pub ended: bool,
    /// Its session was evicted: it is written to once more, and not waited for.
    pub evicted: bool,
}

impl Conn {
    pub fn new(role: Role) -> Conn {
        Conn { role, decoder: Default::default(), spill: None, deaf: false, ended: false, evicted: false }
    }

    /// Whether its session is gone, and something that the session was sent has not left yet.
    pub fn is_owed(&self) -> bool {
        matches!(&self.role, Role::Leaving(Some(left)) if !left.is_empty())
    }
}

pub enum Role {
    /// The transport of a session.
    Serving(Key<Session>),
    /// Wants to become it. `probed`: it has sent its ping.
    Probing { session: Key<Session>, probed: bool },
    /// Its session is gone; this is what the peer should still get. Empty: only the peer's own close is awaited.
    #[allow(clippy::box_collection, reason = "8 bytes instead of 32 for the many conns that serve")]
    Leaving(Option<Box<VecDeque<Bytes>>>),
}

/// What was said at the handshake. Kept as one piece of text, because most of it is never read.
///
/// It is never changed, and handles on any thread share it: a clone is a counter. All of it is one allocation, because
/// each client has one for as long as it stays:
///
/// ```text
/// count 8 │ issued_ms 6 │ form 1 │ secure 1 │ length 8 ┃ address 6, 18 or 26 │ url \n name: value \n …
/// ```
#[derive(Clone)]
pub struct Handshake(ThinArc<Head, u8>);

#[derive(Clone, Copy)]
struct Head {
    /// Milliseconds since the Unix epoch, in six bytes: enough until the year 10889.
    issued_ms: [u8; 6],
    form: Form,
    secure: bool,
}

/// How the address is written, in front of the text. An IPv4 address that is mapped into IPv6 is an IPv6 address.
#[derive(Clone, Copy)]
enum Form {
    /// Address and port.
    V4,
    V6,
    /// Also flow label and scope, as link-local addresses have them.
    V6Scoped,
}

impl Form {
    fn of(address: &SocketAddr) -> Form {
        match address {
            SocketAddr::V4(_) => Form::V4,
            SocketAddr::V6(v6) if (v6.flowinfo(), v6.scope_id()) == (0, 0) => Form::V6,
            SocketAddr::V6(_) => Form::V6Scoped,
        }
    }

    fn len(self) -> usize {
        match self {
            Form::V4 => 6,
            Form::V6 => 18,
            Form::V6Scoped => 26,
        }
    }
}

/// Headers that describe one hop or one WebSocket handshake and mean nothing afterwards.
const NOT_KEPT: [&str; 7] = [
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "content-length",
    "accept-encoding",
];

impl Handshake {
    pub fn new<'h>(
        url: &str,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
        address: SocketAddr,
        issued_ms: u64,
    ) -> Handshake {
        let form = Form::of(&address);
        let mut said = Vec::with_capacity(512);
        put_address(&mut said, address, form);
        said.extend_from_slice(url.as_bytes());
        for (name, value) in headers.filter(|(name, _)| !NOT_KEPT.contains(name)) {
            said.push(b'\n');
            said.extend_from_slice(name.as_bytes());
            said.extend_from_slice(b": ");
            said.extend_from_slice(String::from_utf8_lossy(value).as_bytes());
        }
        let issued_ms = *issued_ms.to_le_bytes().first_chunk().expect("six of eight");
        Handshake(ThinArc::from_header_and_slice(Head { issued_ms, form, secure: false }, &said))
    }

    /// Path and query of the handshake request.
    pub fn url(&self) -> &str {
        self.text().split('\n').next().unwrap_or_default()
    }

    /// Header names in lower case, with their values. Those of a single hop are not kept.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text().split('\n').skip(1).filter_map(|line| line.split_once(": "))
    }

    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(header, _)| *header == name).map(|(_, value)| value)
    }

    /// Whose handshake it was: the peer of the stream that carried it, or the client for whom a trusted proxy did.
    pub fn address(&self) -> SocketAddr {
        let mut written = &self.0.slice[..];
        match self.head().form {
            Form::V4 => {
                let ip = Ipv4Addr::from(take(&mut written));
                (ip, u16::from_be_bytes(take(&mut written))).into()
            }
            Form::V6 => {
                let ip = Ipv6Addr::from(take(&mut written));
                (ip, u16::from_be_bytes(take(&mut written))).into()
            }
            Form::V6Scoped => {
                let ip = Ipv6Addr::from(take(&mut written));
                let port = u16::from_be_bytes(take(&mut written));
                let flow = u32::from_be_bytes(take(&mut written));
                SocketAddrV6::new(ip, port, flow, u32::from_be_bytes(take(&mut written))).into()
            }
        }
    }

    /// Milliseconds since the Unix epoch.
    pub fn issued_ms(&self) -> u64 {
        let [a, b, c, d, e, f] = self.head().issued_ms;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    pub fn secure(&self) -> bool {
        self.head().secure
    }

    /// Whether a handle holds it too.
    pub fn is_shared(&self) -> bool {
        ThinArc::strong_count(&self.0) > 1
    }

    /// The same in an allocation of its own.
    pub fn copy(&self) -> Handshake {
        Handshake(ThinArc::from_header_and_slice(*self.head(), &self.0.slice))
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    /// Checked whenever it is read, which is seldom.
    fn text(&self) -> &str {
        std::str::from_utf8(&self.0.slice[self.head().form.len()..]).expect("it was written as text")
    }

    /// Where it is, and how many bytes were asked of the allocator for it.
    #[cfg(test)]
    pub fn allocation(&self) -> (usize, usize) {
        (self.0.heap_ptr().addr(), size_of::<usize>() + size_of_val(&*self.0))
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("address", &self.address()).field("url", &self.url()).finish_non_exhaustive()
    }
}

fn put_address(out: &mut Vec<u8>, address: SocketAddr, form: Form) {
    match address {
        SocketAddr::V4(v4) => out.extend_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => out.extend_from_slice(&v6.ip().octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
    if let (SocketAddr::V6(v6), Form::V6Scoped) = (address, form) {
        out.extend_from_slice(&v6.flowinfo().to_be_bytes());
        out.extend_from_slice(&v6.scope_id().to_be_bytes());
    }
}

/// The next bytes of an address.
fn take<const N: usize>(written: &mut &[u8]) -> [u8; N] {
    let (first, rest) = written.split_first_chunk().expect("the form says how long an address is");
    *written = rest;
    *first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Handshake {
        Handshake::new("/chat/?EIO=4", std::iter::empty(), address.parse().expect("an address"), 0)
    }

    #[test]
    fn a_handshake_says_what_was_said() {
        let headers: [(&str, &[u8]); 4] =
            [("host", b"a.example"), ("connection", b"Upgrade"), ("x-odd", b"\xff: \x80"), ("cookie", b"a=1; b=2")];
        let address = "127.0.0.1:9".parse().expect("an address");
        let issued_ms = 1_764_000_000_123;
        let handshake = Handshake::new("/chat/?EIO=4&who=\u{e9}", headers.into_iter(), address, issued_ms);
        for handshake in [handshake.clone(), handshake.copy()] {
            assert_eq!(handshake.url(), "/chat/?EIO=4&who=\u{e9}");
            let kept = [("host", "a.example"), ("x-odd", "\u{fffd}: \u{fffd}"), ("cookie", "a=1; b=2")];
            assert_eq!(handshake.headers().collect::<Vec<_>>(), kept, "but for those of one hop");
            assert_eq!((handshake.header("cookie"), handshake.header("Cookie")), (Some("a=1; b=2"), None));
            assert_eq!((handshake.address(), handshake.issued_ms()), (address, issued_ms));
            assert!(!handshake.secure());
        }
    }

    #[test]
    fn an_address_stays_what_it_was() {
        let addresses = [
            "10.1.2.3:0",
            "255.255.255.255:65535",
            "[::]:1",
            "[2001:db8::1]:443",
            "[::ffff:10.1.2.3]:80",
            "[fe80::1%7]:9",
        ];
        for address in addresses {
            assert_eq!(from(address).address(), address.parse().expect("an address"));
        }
        let labelled = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 9, 0xf_ffff, 0));
        let handshake = Handshake::new("/", std::iter::empty(), labelled, 0);
        assert_eq!((handshake.address(), handshake.url()), (labelled, "/"));
    }

    #[test]
    fn a_clone_shares_it_and_a_copy_does_not() {
        let handshake = from("127.0.0.1:9");
        let copy = handshake.copy();
        assert!(!handshake.is_shared() && !copy.is_shared());
        assert_ne!(handshake.allocation(), copy.allocation());
        let clone = handshake.clone();
        assert!(handshake.is_shared() && clone.is_shared());
        assert_eq!(handshake.allocation(), clone.allocation());
        drop(clone);
        assert!(!handshake.is_shared());
    }
}
