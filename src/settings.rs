//! Settings: checked configuration. Raw options are checked once, at the border (`Io::listen`, the program's
//! configuration), and become this. After that, everybody trusts it.

use ipnet::IpNet;
use std::time::Duration;

/// Everything a server can be told, with the reference's defaults where it has such an option.
///
/// Each field says what it means, its default, and what it costs. The protocol's own limits that are not settable
/// live beside the code that applies them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URL prefix of the Engine.IO endpoint, without the trailing slash. Default `/socket.io`.
    pub path: String,
    /// Whether only `/socket.io/…` is taken (`true`, default), or `/socket.io` too.
    pub add_trailing_slash: bool,
    /// Names directly under `path` that are not the endpoint's: requests for `/socket.io/NAME` go to the embedder's own
    /// routes ([`Io::listen_with`](crate::Io::listen_with)), such as `socket.io.min.js`. Default: none. Any other name is
    /// the endpoint's, which looks at the query alone.
    pub routes_under_path: Vec<String>,
    /// Transports that a client may open. Default: both.
    pub transports: Transports,
    /// Whether a polling handshake offers the upgrade to WebSocket. Default: `true`.
    pub allow_upgrades: bool,
    /// Time between a pong and the next ping. Default 25 s: below the idle timeouts of common proxies (60 s).
    pub ping_interval: Duration,
    /// Whether a session's first ping comes at a random moment within `ping_interval` (`true`, default), so that clients that
    /// come together, as after a restart, are not pinged together ever after; or when all of it has passed, as with the
    /// reference.
    pub ping_spread: bool,
    /// How long a pong may take. Default 20 s.
    pub ping_timeout: Duration,
    /// How long an upgrade to WebSocket may take. Default 10 s.
    pub upgrade_timeout: Duration,
    /// How long a session may stay without joining any namespace. Default 45 s.
    pub connect_timeout: Duration,
    /// Largest WebSocket message or POST body, in bytes; announced as `maxPayload`. Default 1,000,000.
    pub payload_bytes_max: usize,
    /// What becomes of events whose receiver is behind. Default `Evict`. A rule of `feeds` may say otherwise.
    pub policy: Policy,
    /// Rules for the events of namespaces and rooms; the first that fits counts. Default: none, which costs nothing.
    pub feeds: Vec<Feed>,
    /// Keys whose newest events a room with [`Feed::conflate_every`] may hold at a time, on each worker. One more, and what
    /// is held leaves before its time; so it does when it would exceed `outbox_bytes_max`, counted as for
    /// `retain_bytes_max`, because each client gets all of it at once. Default 1,000: as many symbols as a screen can show,
    /// at 200 bytes 200 KB a window and client, a twentieth of `outbox_bytes_max`.
    pub conflate_keys_max: usize,
    /// Keys whose newest events a room with [`Feed::retain`] keeps. One more, and the key that changed longest ago is
    /// forgotten. Default 1,000: whoever joins gets them all at once, so this times the size of an event has to stay well
    /// below `outbox_bytes_max`.
    pub retain_keys_max: usize,
    /// Rooms of a namespace that retain something. One more, and the room that changed longest ago is forgotten. Default
    /// 10,000: with a hundred keys of 200 bytes in each they hold 200 MB, shared by all workers.
    pub retain_rooms_max: usize,
    /// Bytes of what a namespace retains: packets and keys, and for what they cost beside that, 600 bytes for each event and
    /// 1,000 for each room. Beyond it, the rooms that changed longest ago are forgotten. Default 256 MiB: a quarter of
    /// `outboxes_bytes_max`, and room for 350,000 events of a hundred bytes.
    pub retain_bytes_max: usize,
    /// Bytes that may wait for a session, and an eighth more until what may be dropped is looked for. What happens beyond
    /// that is for `policy` to say. Default 4 MiB: a second of a heavy feed; larger values let more memory wait for those
    /// who may never read it.
    pub outbox_bytes_max: usize,
    /// Bytes that wait for a session when `on_pressure` handlers hear of it; they hear again when it is half of that.
    /// Default 1 MiB, a quarter of `outbox_bytes_max`: time to send less before anything is dropped.
    pub outbox_watermark: usize,
    /// How long a packet may wait for a session. Default 20 s, as long as a pong may take: what has not been taken by then
    /// is of no use in a live feed, and neither is a client that has not read for so long.
    pub outbox_age_max: Duration,
    /// What may wait in the whole process, counted where it lies: a packet that waits for thousands counts once for each
    /// worker, with 256 bytes for what it takes beside its own. Beyond that the sessions that are furthest behind are
    /// closed, until a sixteenth less waits. Default 1 GiB.
    pub outboxes_bytes_max: usize,
    /// Bytes of broadcasts that a worker may have fanned out without having offered them to all of their receivers yet.
    /// Beyond that, whoever awaits a broadcast ([`emit`](crate::Broadcast::emit)) or its count waits until it is less.
    /// Nothing is dropped for it. Default 1 MiB: a quarter of `outbox_bytes_max`, since what piles up here leaves for a
    /// client in one piece, and what its stream does not take becomes its backlog.
    pub lag_bytes_max: usize,
    /// Namespaces that one session may join. Default 100; each costs a socket.
    pub namespaces_per_session_max: usize,
    /// Rooms that one socket may join. Default 10,000.
    pub rooms_per_socket_max: usize,
    /// Name of the cookie that the handshake poll sets to the sid. Default: none.
    pub cookie: Option<String>,
    /// Cross-origin access from browsers. Default: none, so no CORS headers at all.
    pub cors: Option<Cors>,
    /// How long an HTTP request head, and so a WebSocket handshake, may take to arrive. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long an HTTP request's body may take to arrive. Default 10 s.
    pub request_timeout: Duration,
    /// TCP connections that the process holds at a time. Default 0: as many as descriptors allow, which is what one
    /// descriptor table holds, or one table for each worker; see `fd_tables`. What comes beyond waits in the accept queue.
    pub connections_max: usize,
    /// TCP connections from one address at a time; of clients behind a trusted proxy, their WebSockets and polling sessions.
    /// Default 0: no limit, because offices share an address.
    pub connections_per_address_max: usize,
    /// Sessions that the process opens in a second; as many may come at once. What comes beyond is refused with a 503.
    /// Default 0: no limit; at most 1,000,000.
    pub handshakes_per_second_max: usize,
    /// Proxies whose word about their clients is taken: `X-Forwarded-For`, and the PROXY protocol. Default: none, so anybody
    /// who connects is the client, and what they say of others is ignored. Nobody else may be able to connect from these
    /// addresses: who does can pass for anyone.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection begins with a PROXY protocol header, version 1 or 2, which names the client. Default `Off`.
    pub proxy_protocol: ProxyProtocol,
    /// Events that one client may send in a second: Socket.IO packets of any kind (Engine.IO messages on a bare Engine.IO
    /// server) and WebSocket pings. As many may come at once; a client that sends more is closed (`rate limit`). Default
    /// 0: no limit, because only the application knows what is too much. With either limit, a session costs some 32 bytes more.
    pub events_per_second_max: usize,
    /// Bytes that one client may send in a second, as they come over its WebSocket or in its POST bodies. As many may come
    /// at once, and always one message of `payload_bytes_max`; a client that sends more is closed (`rate limit`). Default
    /// 0: no limit.
    pub bytes_per_second_max: usize,
    /// Connections that the kernel may hold for a worker until it accepts them. Default 4096: a crowd that reconnects at
    /// once waits there instead of being refused. The kernel caps it at `net.core.somaxconn`, and the log says so when
    /// the server starts.
    pub accept_queue: i32,
    /// Bytes that the kernel may hold for a connection, sent and not yet acknowledged (`SO_SNDBUF`, which Linux doubles).
    /// Default 256 KiB: two megabytes a second over a path of a tenth of a second. 0 leaves it to the kernel.
    pub send_buffer_bytes: usize,
    /// Bytes of these that may not even have been sent (`TCP_NOTSENT_LOWAT`, Linux). Default 16 KiB: what waits there for
    /// a peer that does not read can be neither replaced nor dropped. 0 is no limit.
    pub unsent_bytes_max: usize,
    /// How long the kernel keeps a connection whose peer acknowledges nothing, or leaves no room (`TCP_USER_TIMEOUT`,
    /// Linux). Default 30 s, longer than `outbox_age_max`, so that a client for which something waits here too is
    /// evicted, and told so, before. Zero leaves it to the kernel, and such clients to their heartbeats.
    pub tcp_user_timeout: Duration,
    /// Workers, one pinned thread each. Default 0: one per core; and with a descriptor table for each worker, more if
    /// `connections_max` needs more tables than there are cores.
    pub workers: usize,
    /// Whether the workers share the process's descriptor table. Default `Shared`, which is right for every embedder.
    pub fd_tables: FdTables,
    /// How workers hand bytes to the kernel. Default `Auto`.
    pub io: SendPath,
    /// Whether a worker is pinned to its core. Default `true`.
    pub pin: bool,
    /// How long a graceful close may take until what is left is cut off. Default 5 s.
    pub shutdown_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            path: "/socket.io".into(),
            add_trailing_slash: true,
            routes_under_path: Vec::new(),
            transports: Transports { polling: true, websocket: true },
            allow_upgrades: true,
            ping_interval: Duration::from_secs(25),
            ping_spread: true,
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            payload_bytes_max: 1_000_000,
            policy: Policy::Evict,
            feeds: Vec::new(),
            conflate_keys_max: 1_000,
            retain_keys_max: 1_000,
            retain_rooms_max: 10_000,
            retain_bytes_max: 256 << 20,
            outbox_bytes_max: 4 << 20,
            outbox_watermark: 1 << 20,
            outbox_age_max: Duration::from_secs(20),
            outboxes_bytes_max: 1 << 30,
            lag_bytes_max: 1 << 20,
            namespaces_per_session_max: 100,
            rooms_per_socket_max: 10_000,
            cookie: None,
            cors: None,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            connections_max: 0,
            connections_per_address_max: 0,
            handshakes_per_second_max: 0,
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyProtocol::Off,
            events_per_second_max: 0,
            bytes_per_second_max: 0,
            accept_queue: 4096,
            send_buffer_bytes: 256 << 10,
            unsent_bytes_max: 16 << 10,
            tcp_user_timeout: Duration::from_secs(30),
            workers: 0,
            fd_tables: FdTables::Shared,
            io: SendPath::Auto,
            pin: true,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// Whose descriptor table the workers use.
///
/// The limit on descriptors (`RLIMIT_NOFILE`, `ulimit -n`) holds for a table, and on Linux a thread may have its own. A
/// table for each worker lifts a hard limit of 20,000 to 20,000 for each worker.
///
/// The price is that a descriptor's number means something only on the thread that opened it, and nothing checks that.
/// So before you choose [`PerWorker`](Self::PerWorker), or [`Auto`](Self::Auto) with a `connections_max`:
///
/// - No value that owns a descriptor (a socket, a file) goes from a handler to another thread or from there to a handler,
///   not even to be dropped. Threads that a handler starts share its table.
/// - What handlers use from elsewhere, and what signal handlers write to, has to be open before the server listens: log
///   files, and every runtime that a handler wakes, or where somebody waits for what the server says, such as
///   [`Io::stats`](crate::Io::stats) or an ack. (A tokio runtime is woken through a descriptor.)
/// - What the process has open when the server starts stays open in each worker's table until the server has ended, so
///   that a connection that you close then is not closed for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdTables {
    /// A table for each worker if `connections_max` does not fit into one and the system allows it, else one for all.
    Auto,
    /// One for the process.
    Shared,
    /// A table for each worker. Linux 5.9 and later; elsewhere it is refused.
    PerWorker,
}

/// How workers hand to the kernel what streams are to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendPath {
    /// `Uring` for each worker whose system allows it, as tried at the start, else `Send`.
    Auto,
    /// One `send(2)` for each stream.
    Send,
    /// One system call of io_uring for a batch of streams: less CPU time for each. Linux 5.6 and later, and containers
    /// often forbid it; where it cannot be, the server does not start.
    Uring,
}

/// What becomes of events whose receiver is behind: it does not read as fast as it is sent, and what waits for it has
/// come to `outbox_bytes_max` or `outbox_age_max`.
///
/// Acks, and the packets of the protocol itself, are never dropped: where they come to a limit, the session is closed. Nor
/// is an event of which a part has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The session is closed (`slow client`). The client connects again, and knows that it has missed something.
    #[default]
    Evict,
    /// An event that finds no room is dropped.
    DropNewest,
    /// An event makes room for later ones.
    DropOldest,
    /// Of events with the same key only the newest waits. The key is what the emit has said, else the event's name.
    Conflate,
}

/// A rule for the events of a namespace or of some of its rooms; see [`Settings::feeds`].
///
/// ```
/// use fanfare::{Feed, Policy, Settings};
/// use std::time::Duration;
///
/// let prices = Feed {
///     room: Some("ticker:*".into()),
///     policy: Policy::Conflate,
///     conflate_every: Some(Duration::from_millis(200)),
///     retain: true,
///     ..Feed::default()
/// };
/// let settings = Settings { feeds: vec![prices], ..Settings::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The namespace. Default `/`.
    pub namespace: String,
    /// A room's name, or how the names of some begin and `*`. `None`, the default: what is emitted to the whole namespace
    /// or to a single socket, and to the rooms that no rule before this one fits.
    pub room: Option<String>,
    /// What becomes of events whose receiver is behind. Of several rooms the first rule that fits any of them counts.
    pub policy: Policy,
    /// The room's *window*: events with a key are held, the newest of each key, and leave together, at most once in this
    /// time. The first one after a quiet time leaves at once. Default: none, everything leaves at once.
    pub conflate_every: Option<Duration>,
    /// Whether the newest event of each key is kept, for each socket that joins later. Default: no.
    pub retain: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { namespace: "/".into(), room: None, policy: Policy::Evict, conflate_every: None, retain: false }
    }
}

impl Feed {
    /// Whether it is for this room, or with `None` for everyone in the namespace.
    fn fits(&self, namespace: &str, room: Option<&str>) -> bool {
        self.namespace == namespace
            && match (&self.room, room) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(name), Some(room)) => match name.strip_suffix('*') {
                    Some(prefix) => room.starts_with(prefix),
                    None => name == room,
                },
            }
    }

    /// A window of less than the clock's step would be none; one of an hour would be a fault.
    fn has_odd_window(&self) -> bool {
        let allowed = Duration::from_millis(1)..=Duration::from_secs(60);
        self.conflate_every.is_some_and(|every| !allowed.contains(&every))
    }
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does; one that comes all the same is a bad request.
    Off,
    /// Every one does. Without it, or from elsewhere than [`Settings::trusted_proxies`] where there are some, a connection
    /// is closed.
    Required,
}

/// Which transports a client may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    pub polling: bool,
    pub websocket: bool,
}

/// Cross-origin access (Fetch standard, "CORS protocol"). Origins are compared as whole strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub origins: Origins,
    /// Whether browsers may send cookies along.
    pub credentials: bool,
    /// Methods named in the answer to a preflight.
    pub methods: Vec<String>,
}

/// Who is allowed by [`Cors`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// `*`.
    Any,
    /// These, such as `https://example.com`.
    Listed(Vec<String>),
}

/// More than any machine opens; a second is cut into as many parts.
const HANDSHAKES_PER_SECOND_MAX: usize = 1_000_000;

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The field of [`Settings`].
    pub option: &'static str,
    /// What is wrong with it and what is allowed.
    pub problem: &'static str,
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "setting `{}`: {}", self.option, self.problem)
    }
}

impl std::error::Error for SettingsError {}

/// Writes `Settings::reloaded` from a decision about each field. A field that is missing there does not compile.
macro_rules! reloads {
    (@live $field:ident, $running:expr, $kept:ident) => {
        $field
    };
    (@restart $field:ident, $running:expr, $kept:ident) => {{
        if $field != $running {
            $kept.push(stringify!($field));
        }
        $running.clone()
    }};
    ($($field:ident: $how:ident,)+) => {
        /// What a server that runs with these settings makes of new ones, and the fields that need a restart: they keep
        /// their values.
        pub(crate) fn reloaded(&self, new: Settings) -> (Settings, Vec<&'static str>) {
            let mut kept = Vec::new();
            let Settings { $($field),+ } = new;
            $(let $field = reloads!(@$how $field, self.$field, kept);)+
            (Settings { $($field),+ }, kept)
        }
    };
}

impl Settings {
    // A live session was told the heartbeat and the largest payload at its handshake, and its requests go to a path by a
    // transport: those stay. So does what workers and listeners were made with, and what is decided where a packet is
    // encoded. Everything else is read where it is applied.
    reloads! {
        path: restart,
        add_trailing_slash: restart,
        routes_under_path: live,
        transports: restart,
        allow_upgrades: live,
        ping_interval: restart,
        ping_spread: restart,
        ping_timeout: restart,
        upgrade_timeout: live,
        connect_timeout: live,
        payload_bytes_max: restart,
        policy: restart,
        feeds: restart,
        conflate_keys_max: live,
        retain_keys_max: live,
        retain_rooms_max: live,
        retain_bytes_max: live,
        outbox_bytes_max: live,
        outbox_watermark: live,
        outbox_age_max: live,
        outboxes_bytes_max: live,
        send_buffer_bytes: restart,
        unsent_bytes_max: restart,
        tcp_user_timeout: restart,
        lag_bytes_max: live,
        namespaces_per_session_max: live,
        rooms_per_socket_max: live,
        cookie: live,
        cors: live,
        handshake_timeout: live,
        request_timeout: live,
        connections_max: live,
        connections_per_address_max: live,
        handshakes_per_second_max: live,
        trusted_proxies: live,
        proxy_protocol: restart,
        events_per_second_max: live,
        bytes_per_second_max: live,
        accept_queue: restart,
        workers: restart,
        fd_tables: restart,
        io: restart,
        pin: restart,
        shutdown_grace: live,
    }

    /// The rule for a room, or with `None` for everyone in the namespace.
    pub(crate) fn feed(&self, namespace: &str, room: Option<&str>) -> Option<&Feed> {
        self.feeds.iter().find(|feed| feed.fits(namespace, room))
    }

    /// The policy for what is emitted to these rooms, or if there are none, to everyone in the namespace.
    pub(crate) fn policy_for(&self, namespace: &str, rooms: &[Box<str>]) -> Policy {
        let fits = |feed: &&Feed| match rooms {
            [] => feed.fits(namespace, None),
            rooms => rooms.iter().any(|room| feed.fits(namespace, Some(room))),
        };
        self.feeds.iter().find(fits).map_or(self.policy, |feed| feed.policy)
    }

    /// Looks at what one field alone, or two together, can get wrong.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let wildcard = |cors: &Cors| cors.credentials && cors.origins == Origins::Any;
        // A token of RFC 9110, which is what RFC 6265 wants as a cookie's name.
        let in_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let is_token = |name: &String| !name.is_empty() && name.bytes().all(in_token);
        let methods_are_no_tokens = |cors: &Cors| !cors.methods.iter().all(is_token);
        let in_path = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        let is_path = self.path.starts_with('/') && !self.path.ends_with('/') && self.path.bytes().all(in_path);
        let is_namespace = |name: &str| name.starts_with('/') && !name.contains(',');
        let no_uring = self.io == SendPath::Uring && !cfg!(target_os = "linux");
        let cannot_part = self.fd_tables == FdTables::PerWorker && !cfg!(target_os = "linux");
        let rules = [
            (!is_path, "path", "a slash, then letters, digits and -._~/, without a slash at the end"),
            (!self.transports.polling && !self.transports.websocket, "transports", "at least one must be on"),
            (self.ping_interval.is_zero(), "ping_interval", "is longer than nothing"),
            (self.ping_timeout.is_zero(), "ping_timeout", "is longer than nothing"),
            (self.payload_bytes_max == 0 || self.payload_bytes_max > 1 << 30, "payload_bytes_max", "1 byte to 1 GiB"),
            (self.outbox_bytes_max == 0, "outbox_bytes_max", "at least 1 byte"),
            (self.outbox_watermark == 0, "outbox_watermark", "at least 1 byte"),
            (self.outbox_age_max.is_zero(), "outbox_age_max", "is longer than nothing"),
            (self.outboxes_bytes_max == 0, "outboxes_bytes_max", "at least 1 byte"),
            (self.lag_bytes_max == 0, "lag_bytes_max", "at least 1 byte"),
            (
                !self.feeds.iter().all(|feed| is_namespace(&feed.namespace)),
                "feeds",
                "a namespace is a slash and no comma",
            ),
            (self.feeds.iter().any(Feed::has_odd_window), "feeds", "conflate_every is 1 ms to 1 minute"),
            (self.conflate_keys_max == 0, "conflate_keys_max", "at least 1"),
            (self.retain_keys_max == 0, "retain_keys_max", "at least 1"),
            (self.retain_rooms_max == 0, "retain_rooms_max", "at least 1"),
            (self.retain_bytes_max == 0, "retain_bytes_max", "at least 1 byte"),
            (self.handshake_timeout.is_zero(), "handshake_timeout", "is longer than nothing"),
            (self.request_timeout.is_zero(), "request_timeout", "is longer than nothing"),
            (self.rooms_per_socket_max == 0, "rooms_per_socket_max", "at least 1"),
            (self.cors.as_ref().is_some_and(methods_are_no_tokens), "cors", "each method is a token, such as GET"),
            (self.namespaces_per_session_max == 0, "namespaces_per_session_max", "at least 1"),
            (
                self.handshakes_per_second_max > HANDSHAKES_PER_SECOND_MAX,
                "handshakes_per_second_max",
                "0, which is no limit, to 1,000,000",
            ),
            (self.accept_queue < 1, "accept_queue", "at least 1"),
            (cannot_part, "fd_tables", "a table for each worker is Linux's alone; auto and shared work everywhere"),
            (no_uring, "io", "io_uring is Linux's alone; auto and send work everywhere"),
            (self.cookie.as_ref().is_some_and(|name| !is_token(name)), "cookie", "letters, digits and !#$%&'*+-.^_`|~"),
            (self.cors.as_ref().is_some_and(wildcard), "cors", "credentials need listed origins (Fetch standard)"),
        ];
        match rules.into_iter().find(|(broken, ..)| *broken) {
            Some((_, option, problem)) => Err(SettingsError { option, problem }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(namespace: &str, room: Option<&str>, policy: Policy) -> Feed {
        Feed { namespace: namespace.into(), room: room.map(Into::into), policy, ..Feed::default() }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let feeds = vec![
            rule("/", Some("ticker:*"), Policy::Conflate),
            rule("/", Some("ticker:slow"), Policy::DropOldest),
            rule("/", Some("scores"), Policy::DropOldest),
            rule("/", None, Policy::DropNewest),
        ];
        let settings = Settings { feeds, ..Settings::default() };
        let policy = |namespace: &str, rooms: &[&str]| {
            let rooms: Vec<Box<str>> = rooms.iter().map(|&room| room.into()).collect();
            settings.policy_for(namespace, &rooms)
        };
        assert_eq!(policy("/", &["ticker:ACME"]), Policy::Conflate);
        assert_eq!(policy("/", &["ticker:slow"]), Policy::Conflate, "the first one");
        assert_eq!(policy("/", &["ticker"]), Policy::DropNewest, "a room that no other rule fits");
        assert_eq!(policy("/", &["scores"]), Policy::DropOldest);
        assert_eq!(policy("/", &["scores2"]), Policy::DropNewest, "without a star a name is the whole name");
        assert_eq!(policy("/", &[]), Policy::DropNewest, "everyone");
        assert_eq!(policy("/", &["lobby", "scores", "ticker:ACME"]), Policy::Conflate, "by rules, not by rooms");
        assert_eq!(policy("/admin", &["ticker:ACME"]), Policy::Evict, "another namespace has the settings' policy");
        assert_eq!(settings.feed("/", Some("scores")), Some(&settings.feeds[2]));
        assert_eq!(settings.feed("/admin", None), None);
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused() {
        let refused = |feed: Feed| {
            let settings = Settings { feeds: vec![feed], ..Settings::default() };
            settings.check().expect_err("this is to be refused").to_string()
        };
        assert_eq!(refused(rule("admin", None, Policy::Evict)), "setting `feeds`: a namespace is a slash and no comma");
        for every in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(61)] {
            let feed = Feed { conflate_every: Some(every), ..Feed::default() };
            assert_eq!(refused(feed), "setting `feeds`: conflate_every is 1 ms to 1 minute");
        }
        let good = Feed { conflate_every: Some(Duration::from_millis(1)), retain: true, ..Feed::default() };
        Settings { feeds: vec![good], ..Settings::default() }.check().unwrap();
        for settings in [
            Settings { conflate_keys_max: 0, ..Settings::default() },
            Settings { retain_keys_max: 0, ..Settings::default() },
            Settings { retain_rooms_max: 0, ..Settings::default() },
            Settings { retain_bytes_max: 0, ..Settings::default() },
        ] {
            assert!(settings.check().expect_err("this is to be refused").problem.starts_with("at least 1"));
        }
    }
}
