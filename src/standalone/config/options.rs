//! Options: the one place where an option is written down.
//!
//! A line `name: Type = "default", kind, reload;` becomes the public field with its documentation, the key in the file,
//! the flag, the environment variable, the text of `--help`, the check, the line that `fanfare config` prints, and the
//! answer to whether a server that runs can take another value. A default is written as the variable would be, and
//! passes the same check. An option without default is unset until it is given.
//!
//! In each comment the first line is the meaning, which help and `fanfare config` show; then follow why the default is
//! what it is, and what the option costs.
//!
//! Names: `server.listen` is `--listen` and `FANFARE_LISTEN`; so for `[server]`, `[engine]` and `[limits]`. `[cors]`
//! and `[log]` keep the section (`--log-level`), since "level" alone says too little. A list's flag is its singular
//! and is repeated (`--cors-origin A --cors-origin B`); its variable is separated by commas. Namespaces and rooms are for
//! the file, except `--client-event`, which speaks of "/".
//!
//! Invariants: names are unique without their section; every default passes its check (tests).
//! Not here:   what a kind accepts (kind.rs); how a value becomes its Rust type (field.rs).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::field::{
    FdTables, Field, Level, LogFormat, Origins, ProxyProtocol, PublishKey, SendPath, Transports, Value,
};
use super::kind::Kind;
use super::text::quoted;
use crate::Policy;

const KB: u64 = 1_000;
const MB: u64 = 1_000_000;
const GIB: u64 = 1 << 30;
const COUNT_MAX: u64 = u32::MAX as u64;
/// No deadline is so short that an honest peer across the world misses it, none so long that it is none.
const WAIT: Kind = Kind::Time { min: Duration::from_millis(100), max: Duration::from_secs(3600) };

const POLICIES: Kind = Kind::Choice(&["evict", "drop-newest", "drop-oldest", "conflate"]);
/// Less than the clock's step would be none; longer is no feed any more.
const WINDOW: Kind = Kind::Time { min: Duration::from_millis(1), max: Duration::from_secs(60) };

/// One group of options: a table of the file, and the struct that it becomes.
pub trait Section: Sized {
    /// The table's name in the file.
    const NAME: &'static str;
    const OPTIONS: &'static [Spec];
    /// Asks for the values in the order of `OPTIONS`.
    fn build(value: impl FnMut(&'static Spec) -> Value) -> Self;
    /// The values in the order of `OPTIONS`.
    fn values(&self) -> Vec<Value>;
}

/// What happens to another value when a server that runs rereads its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It takes effect, and touches no connection.
    Live,
    /// It needs a restart: live sessions were told the old one or depend on it, or the workers are built with it.
    Restart,
}

/// What is known about one option, apart from its value.
#[derive(Debug)]
pub struct Spec {
    pub section: &'static str,
    pub name: &'static str,
    pub default: Option<&'static str>,
    pub kind: Kind,
    pub reload: Reload,
    lines: &'static [&'static str],
}

macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        $Section:ident = $name:literal {
            $(
                $(#[doc = $line:literal])+
                $option:ident: $Type:ty $(= $default:literal)?, $kind:expr, $reload:ident;
            )+
        }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Section {
            $(
                $(#[doc = $line])+
                $(#[doc = concat!("\n\nDefault: `", $default, "`")])?
                pub $option: $Type,
            )+
        }

        impl Section for $Section {
            const NAME: &'static str = $name;

            const OPTIONS: &'static [Spec] = &[$(Spec {
                section: $name,
                name: stringify!($option),
                default: optional!($($default)?),
                kind: $kind,
                reload: Reload::$reload,
                lines: &[$($line),+],
            }),+];

            fn build(mut value: impl FnMut(&'static Spec) -> Value) -> Self {
                let mut options = Self::OPTIONS.iter();
                let mut next = || value(options.next().expect("OPTIONS has one entry per field"));
                Self { $($option: Field::from_value(next())),+ }
            }

            fn values(&self) -> Vec<Value> {
                vec![$(Field::to_value(&self.$option)),+]
            }
        }
    )+};
}

macro_rules! optional {
    () => {
        None
    };
    ($default:literal) => {
        Some($default)
    };
}

sections! {
    /// `[server]`: where it listens and what it serves.
    Server = "server" {
        /// The IP address and port to listen on; with port 0 the kernel chooses one.
        ///
        /// Only this machine by default, so that nothing is exposed before somebody decides it. Any other address
        /// needs `publish_key`, since whoever reaches the port could otherwise publish to everyone.
        listen: SocketAddr = "127.0.0.1:3000", Kind::Address, Restart;

        /// How many worker threads there are; 0 is one per core.
        ///
        /// One per core because a worker never waits for another. More than the cores only adds switches between
        /// threads; fewer leave cores to other programs. Each worker costs a thread, a poller and one read buffer.
        /// With 0 there are more than cores if `fd_tables` is needed for `connections_max`.
        workers: usize = "0", Kind::Count { min: 0, max: 1024 }, Restart;

        /// Whether the workers share one table of file descriptors, or each has its own.
        ///
        /// The limit on descriptors (ulimit -n) holds for a table, so tables of their own let 6 workers hold 100,000
        /// connections where the limit is 20,000 and cannot be raised. auto does that if `connections_max` is more than
        /// one table holds and the system allows it (Linux 5.9); per-worker insists. The cost is a few descriptors in
        /// each table, and a system call more when a polling session upgrades on another worker than its own.
        fd_tables: FdTables = "auto", Kind::Choice(&["auto", "shared", "per-worker"]), Restart;

        /// How workers hand bytes to the kernel.
        ///
        /// send is one system call for each client that gets something; uring is one for some hundred clients, through
        /// io_uring, and costs less CPU time. auto is uring for each worker that can have it, which takes Linux 5.6 and a
        /// container and a sysctl (kernel.io_uring_disabled) that do not forbid it, else send; uring insists.
        io: SendPath = "auto", Kind::Choice(&["auto", "send", "uring"]), Restart;

        /// Whether each worker stays on its own core.
        ///
        /// On, because a session's state then stays in that core's cache. Turn it off where other busy programs share
        /// the cores: a pinned worker cannot move out of their way.
        pin: bool = "true", Kind::Switch, Restart;

        /// The URL path of the Socket.IO endpoint.
        ///
        /// The default of every Socket.IO client; clients must be told of another one. A slash at the end is dropped
        /// here; see `add_trailing_slash`.
        path: String = "/socket.io", Kind::UrlPath, Restart;

        /// The secret that a publisher shows to POST /api/publish.
        ///
        /// Unset: only fit for loopback, where every local program may publish. At least 16 characters, so that
        /// guessing is hopeless. Prefer the file or the variable: a flag is visible in the list of processes.
        publish_key: Option<PublishKey>, Kind::Key, Live;

        /// The directory with the official browser client, such as node_modules/socket.io-client/dist.
        ///
        /// Unset: most pages bundle the client or take it from elsewhere. A relative path starts in the working
        /// directory. The client's files are read once, at the start, and kept in memory: some 2 MB.
        client_dir: Option<PathBuf>, Kind::Directory, Restart;

        /// How many connections the kernel may hold for each worker until it accepts them.
        ///
        /// Enough for the rush after a restart, when all clients come back at once. The kernel caps it at
        /// net.core.somaxconn; what finds no room has to try again, a second later.
        accept_queue: usize = "4096", Kind::Count { min: 1, max: 65_535 }, Restart;

        /// The proxies whose word about their clients is taken: IP addresses, and networks like 10.0.0.0/8.
        ///
        /// None: what anybody can write into a header is no address. With it, the client of a request that comes from one
        /// of these is found in X-Forwarded-For, from its end, and `connections_per_address_max` counts clients instead of
        /// the proxy's connections. Nobody but your proxies may be able to connect from these addresses.
        trusted_proxies: Vec<IpNet> = "", Kind::Networks, Live;

        /// Whether each connection begins with a PROXY protocol header, of version 1 or 2.
        ///
        /// Off, because the one who connects is mostly the client, or an HTTP proxy. "required" is for proxies that pass
        /// TCP on (HAProxy, NLB): a connection without the header, or from elsewhere than `trusted_proxies` where that
        /// is set, is closed. Costs one read for each connection.
        proxy_protocol: ProxyProtocol = "off", Kind::Choice(&["off", "required"]), Restart;

        /// Over what time a graceful stop lets clients go, evenly; 0 closes all at once.
        ///
        /// 10s turn 50,000 clients that come back at once into 5,000 a second for the next node. Together with
        /// `shutdown_grace` it stays below the 30s after which most supervisors kill; where they wait for longer, so can
        /// this. Few clients are gone sooner: at least 100 a second.
        drain_time: Duration = "10s", Kind::Time { min: Duration::ZERO, max: Duration::from_secs(3600) }, Live;

        /// How long a graceful stop may take, after its `drain_time`, before what is left is cut.
        ///
        /// Enough to hand every client its last packets and a close. A longer grace makes each restart as slow as the
        /// slowest client.
        shutdown_grace: Duration = "5s", Kind::Time { min: Duration::ZERO, max: Duration::from_secs(3600) }, Live;
    }

    /// `[engine]`: the Engine.IO sessions under Socket.IO.
    Engine = "engine" {
        /// How often the server pings each session.
        ///
        /// The ecosystem's default, and below the idle timeout of common proxies (60s). Shorter finds dead peers
        /// sooner and costs one small packet each way, per session and interval.
        ping_interval: Duration = "25s", WAIT, Restart;

        /// Whether a session's first ping comes at a random moment within `ping_interval`.
        ///
        /// On: clients that all come back after a restart would else be pinged together ever after. Off pings them when
        /// the whole interval has passed, as the ecosystem does.
        ping_spread: bool = "true", Kind::Switch, Restart;

        /// How long a session may take to answer a ping before it is closed.
        ///
        /// The ecosystem's default; clients are told both values and use them too. Shorter closes phones on bad
        /// networks; longer keeps dead sessions and their backlog in memory.
        ping_timeout: Duration = "20s", WAIT, Restart;

        /// How long an upgrade from polling to WebSocket may take.
        ///
        /// The ecosystem's default. When it runs out the polling session goes on; until then both connections are
        /// open.
        upgrade_timeout: Duration = "10s", WAIT, Live;

        /// How long a session may live without having joined a namespace.
        ///
        /// The ecosystem's default. Such a session does nothing but occupy memory and a connection.
        connect_timeout: Duration = "45s", WAIT, Live;

        /// The largest POST body and WebSocket message that a client may send.
        ///
        /// The ecosystem's default (there called maxHttpBufferSize); announced to clients as maxPayload. A peer can
        /// make the server hold this much per session.
        payload_bytes_max: usize = "1MB", Kind::Size { min: KB, max: 64 * MB }, Restart;

        /// The transports that clients may use.
        ///
        /// Both: clients start with polling unless told otherwise, and some networks let nothing else through. Without
        /// polling there is one request per session, and no need for a proxy that keeps clients on one node.
        transports: Transports = "polling,websocket", Kind::Choices(&["polling", "websocket"]), Restart;

        /// Whether a polling session may move to WebSocket.
        ///
        /// On: polling costs a request per batch of packets. Off is for networks where upgrades hang instead of
        /// failing.
        allow_upgrades: bool = "true", Kind::Switch, Live;

        /// The name of a cookie that carries the session's id, for proxies that route by cookie.
        ///
        /// Unset: no cookie, which browsers send along with everything and some laws want announced.
        cookie: Option<String>, Kind::CookieName, Live;

        /// Whether the endpoint is the path with a slash at its end.
        ///
        /// On, as in the ecosystem: "/socket.io/". Off takes "/socket.io", for proxies that strip the slash; clients
        /// must then be told.
        add_trailing_slash: bool = "true", Kind::Switch, Restart;
    }

    /// `[cors]`: what browsers on other origins may read.
    Cors = "cors" {
        /// The origins whose pages may connect by polling: a list, or "*" for every one; empty sends no CORS headers.
        ///
        /// Empty, as in the ecosystem: pages of the same origin need nothing. "*" lets any page on the web read what a
        /// visitor's browser receives. Origins are compared as browsers write them, lower-case and without the
        /// scheme's own port.
        origins: Origins = "", Kind::Origins, Live;

        /// Whether browsers may send cookies along from the listed origins.
        ///
        /// Off, because a cookie is a login. Browsers accept it only for listed origins, never for "*".
        credentials: bool = "false", Kind::Switch, Live;
    }

    /// `[limits]`: how much one peer, one address and one process may use.
    Limits = "limits" {
        /// How many connections the process accepts; 0 is no limit but the file descriptors'.
        ///
        /// None, because the right number depends on the machine's memory. A connection over it is refused at once;
        /// one that finds no descriptor waits. If it is more than the limit on descriptors, see `fd_tables`.
        connections_max: usize = "0", Kind::Count { min: 0, max: COUNT_MAX }, Live;

        /// How many connections one IP address may have; 0 is no limit.
        ///
        /// None, because behind a proxy every client has the proxy's address, and whole offices share one. Set it
        /// where clients connect directly, or with `trusted_proxies`: then it counts each client's WebSockets and polling
        /// sessions. Costs one counter per address.
        connections_per_address_max: usize = "0", Kind::Count { min: 0, max: COUNT_MAX }, Live;

        /// How many sessions the process opens in a second; 0 is no limit.
        ///
        /// None, because a machine opens tens of thousands, and who is refused has to come again. Set it where each new
        /// client costs more elsewhere, such as a look into a database. As many may come at once. What comes beyond gets a
        /// 503, with a Retry-After of some seconds that is not the same for all.
        handshakes_per_second_max: usize = "0", Kind::Count { min: 0, max: 1_000_000 }, Live;

        /// How many events one client may send in a second; 0 is no limit.
        ///
        /// None, because only the application knows what is too much. As many may come at once. Events are Socket.IO
        /// packets of any kind, acks and CONNECT too, and WebSocket pings. A client that sends more is closed, with code
        /// 1008 and the reason "rate limit". What a bad network held back counts when it arrives: leave room for a few
        /// seconds' worth.
        events_per_second_max: usize = "0", Kind::Count { min: 0, max: COUNT_MAX }, Live;

        /// How many bytes one client may send in a second; 0 is no limit.
        ///
        /// None, as above. Counted as they arrive over the WebSocket, frame heads and control frames included, or in
        /// POST bodies. As many may come at once, and always one message of `payload_bytes_max`.
        bytes_per_second_max: usize = "0", Kind::Size { min: 0, max: GIB }, Live;

        /// How long a connection may take to send a complete request head or WebSocket handshake.
        ///
        /// Far above an honest client on a bad network. It bounds how long a connection that says nothing is kept.
        handshake_timeout: Duration = "10s", WAIT, Live;

        /// How long a request's body may take to arrive.
        ///
        /// Enough for a full payload at 100 KB a second. It bounds how long a trickling POST holds its memory.
        request_timeout: Duration = "10s", WAIT, Live;

        /// What becomes of events whose client reads too slowly, where no namespace and no room says otherwise.
        ///
        /// evict closes the session, so that the client connects again and knows that it has missed something; the others
        /// keep it. drop-newest and drop-oldest leave events out; conflate leaves out those that a newer one with the same
        /// key has made old news (the key of a publish, else the event's name).
        policy: Policy = "evict", POLICIES, Restart;

        /// The backlog at which a session that reads too slowly is closed.
        ///
        /// A few seconds of a busy feed, and above the largest publish: an event that does not fit closes everyone it
        /// is for. A backlog refers to shared packets, but in the worst case every slow session holds this much.
        outbox_bytes_max: usize = "4MiB", Kind::Size { min: KB, max: GIB }, Live;

        /// How long a packet may wait for a session.
        ///
        /// As long as a pong may take. What has not been read by then is of no use in a live feed, and a client that has
        /// not read for so long is better served by connecting again.
        outbox_age_max: Duration = "20s", WAIT, Live;

        /// How much may wait in the whole process, for all sessions together.
        ///
        /// Counted where it lies: a packet that waits for thousands counts once for each worker. Beyond it the sessions
        /// that are furthest behind are closed. Set it to what the machine can spare.
        outboxes_bytes_max: usize = "1GiB", Kind::Size { min: MB, max: 1024 * GIB }, Live;

        /// How much the kernel may hold for one connection, sent and not yet acknowledged; 0 leaves it to the kernel.
        ///
        /// Two megabytes a second over a path of a tenth of a second. Linux doubles the number for its own needs, and
        /// holds memory only for what is under way.
        send_buffer_bytes: usize = "256KiB", Kind::Size { min: 0, max: GIB }, Restart;

        /// How much of that may not even have been sent; 0 is no limit.
        ///
        /// What waits in the kernel for a peer that does not read can be neither replaced nor dropped. Less makes large
        /// messages leave in more pieces. Linux only.
        unsent_bytes_max: usize = "16KiB", Kind::Size { min: 0, max: GIB }, Restart;

        /// How long the kernel waits for a peer that acknowledges nothing or leaves no room; 0 is as long as it likes.
        ///
        /// As `outbox_age_max`, for what the server has already given to the kernel; longer than that, so that a client for
        /// which something waits here too is evicted, and told so, before. With a policy that keeps slow clients,
        /// 0 leaves them to their heartbeats. Linux only.
        tcp_user_timeout: Duration = "30s", Kind::Time { min: Duration::ZERO, max: Duration::from_secs(3600) }, Restart;

        /// How many bytes of events each worker may have begun and not written to all of their receivers yet.
        ///
        /// Beyond it the answer to a publish waits until it is less, and so does its publisher; nothing is dropped. What
        /// piles up here leaves for a client in one piece, so the default is a quarter of `outbox_bytes_max`. More lets a
        /// burst in sooner, and has clients on slow lines fall behind by more at once.
        lag_bytes_max: usize = "1MiB", Kind::Size { min: KB, max: GIB }, Live;

        /// How many keys a room with conflate_every may hold the newest event of.
        ///
        /// As many symbols as a screen can show. One more, and what is held leaves before its time. Each worker holds them
        /// by reference, and each client gets them all at once: so they leave early too when they, their keys and 600 bytes
        /// for each would exceed `outbox_bytes_max`.
        conflate_keys_max: usize = "1000", Kind::Count { min: 1, max: COUNT_MAX }, Live;

        /// How many keys a room with retain keeps the newest event of.
        ///
        /// Whoever joins gets them all at once: this times the size of an event has to stay well below `outbox_bytes_max`.
        /// One more, and the key that changed longest ago is forgotten.
        retain_keys_max: usize = "1000", Kind::Count { min: 1, max: COUNT_MAX }, Live;

        /// How many rooms of a namespace may retain events.
        ///
        /// Publishers choose the names of rooms, and a retained event stays without anybody in the room: together with
        /// `retain_keys_max` this bounds what they can make the server keep. One more, and the room that changed longest
        /// ago is forgotten.
        retain_rooms_max: usize = "10000", Kind::Count { min: 1, max: COUNT_MAX }, Live;

        /// How much a namespace may retain, in all of its rooms.
        ///
        /// Packets and keys, 600 bytes for each event, 1,000 for each room. Beyond it whole rooms are forgotten, those first
        /// that changed longest ago, and at last what went to everyone.
        retain_bytes_max: usize = "256MiB", Kind::Size { min: MB, max: 1024 * GIB }, Live;

        /// How many namespaces one session may join.
        ///
        /// Far above what applications use. Each costs a socket with its own id and rooms.
        namespaces_per_session_max: usize = "100", Kind::Count { min: 1, max: 65_535 }, Live;

        /// How many rooms one socket may be in.
        ///
        /// Far above what applications use. Each costs a few words in the room and in the socket, and time when it
        /// leaves.
        rooms_per_socket_max: usize = "10000", Kind::Count { min: 1, max: COUNT_MAX }, Live;

        /// The longest name of a room that a client may join, in bytes of UTF-8.
        ///
        /// Far above what people call their rooms, and an id of any kind fits. A client chooses these names, and the
        /// server keeps each one as long as somebody is in the room: together with `rooms_per_socket_max` this bounds
        /// what one socket can make it keep.
        room_bytes_max: usize = "256", Kind::Count { min: 1, max: 65_535 }, Live;

        /// The largest body of one POST /api/publish.
        ///
        /// As large as what a client may send. It is held whole while it is read; larger bodies delay the other
        /// publishers.
        publish_bytes_max: usize = "1MB", Kind::Size { min: KB, max: 64 * MB }, Live;

        /// How many events one POST /api/publish may carry.
        ///
        /// Enough to make the cost of a request vanish. A batch is passed on whole, so a larger one makes others wait
        /// longer.
        publish_batch_max: usize = "1000", Kind::Count { min: 1, max: 1_000_000 }, Live;

        /// How many published events may be under way to the workers; more are refused with 503.
        ///
        /// Four full batches. An event is under way until every worker has queued it, and longer while a worker is
        /// behind (`lag_bytes_max`), so a server that keeps up has hardly any. A publication that is larger passes alone.
        publishes_pending_max: usize = "4096", Kind::Count { min: 1, max: COUNT_MAX }, Live;

        /// How many bytes the bodies of publications under way may have together; more are refused with 503.
        ///
        /// 64 of the largest bodies. It bounds what publishing can take of the memory when the workers are behind, and is
        /// counted before a body is read. A larger body passes alone.
        publishes_pending_bytes_max: usize = "64MB", Kind::Size { min: KB, max: 64 * GIB }, Live;

        /// How many events all publishers together may publish a second; more are refused with 429. 0 is no limit.
        ///
        /// None, because what the clients can take depends on them. A second's worth may come at once, and a batch that is
        /// larger may come when nothing was published for a second.
        publishes_per_second_max: usize = "0", Kind::Count { min: 0, max: 1_000_000_000 }, Live;

        /// How long the answer to a publish with an Idempotency-Key is kept, to be given again instead of sending twice.
        ///
        /// Longer than publishers try again after a broken connection. Each key is kept in the memory of this process for
        /// so long, with a hash of the body and the answer: some 300 bytes.
        idempotency_time: Duration = "5m", Kind::Time { min: Duration::from_secs(1), max: Duration::from_secs(86_400) }, Live;

        /// How many such answers are kept; of more the oldest is forgotten before its time, and counted.
        ///
        /// 333 publishes a second with a key, for 5 minutes; some 30 MB.
        idempotency_keys_max: usize = "100000", Kind::Count { min: 1, max: COUNT_MAX }, Live;
    }

    /// `[namespaces."/name"]`: what clients may do in one namespace.
    Namespace = "namespaces" {
        /// The events that clients may publish themselves; others are refused.
        ///
        /// None: what a client sends to everyone was checked by nobody. Names are exact, there are no patterns.
        /// Such an event goes to everyone else in the namespace. If its first argument is an object with the one key
        /// "to", a room or a list of them, it goes to everyone else in those rooms, without that argument:
        /// `socket.emit("goal", {to: "match-7"}, "Ada", 17)`. The ack, if one is asked for, tells how many sockets
        /// that was: `{"sockets": 12}`. A refused event is acked with `{"error": "…"}`.
        client_events: BTreeSet<String> = "", Kind::Events, Live;

        /// Whether clients may join and leave rooms themselves.
        ///
        /// On, so that a page can subscribe without any code on the server. Off where a room's name is no secret and
        /// its events are. Clients emit `join` or `leave` with a room or a list of them; the ack lists the rooms that
        /// they are in then, or is `{"error": "…"}`.
        join: bool = "true", Kind::Switch, Live;

        /// What becomes of events whose client reads too slowly.
        ///
        /// Unset: as `limits.policy` says. It is for events to the whole namespace, and to rooms without an entry of their
        /// own that says otherwise.
        policy: Option<Policy>, POLICIES, Restart;

        /// The time in which events with a key are held, so that only the newest of each key leaves.
        ///
        /// Unset: everything leaves at once. For events to the whole namespace, and for each room without an entry of its
        /// own; see there.
        conflate_every: Option<Duration>, WINDOW, Restart;

        /// Whether the newest event of each key is kept for those who come later.
        ///
        /// Off. For events to the whole namespace, which whoever connects gets, and for each room without an entry of its
        /// own; see there.
        retain: bool = "false", Kind::Switch, Restart;
    }

    /// `[namespaces."/name".rooms."room"]`: the rules of one room, or with "*" at the end, of all that begin so.
    ///
    /// Of several entries that fit, the whole name counts before a beginning, and a longer beginning before a shorter.
    Room = "rooms" {
        /// What becomes of events whose client reads too slowly.
        ///
        /// Unset: as the namespace says. conflate is for state, such as prices; the others are for what happens, such as
        /// messages.
        policy: Option<Policy>, POLICIES, Restart;

        /// The time in which events with a key are held, so that only the newest of each key leaves.
        ///
        /// Unset: everything leaves at once. With it each client is written to at most once in this time, however much is
        /// published; the cost is that events are late by up to this time. The first one after a quiet time is not.
        conflate_every: Option<Duration>, WINDOW, Restart;

        /// Whether the newest event of each key is kept for those who join later.
        ///
        /// Off, because the events stay in memory, on each worker by reference, while nobody is in the room. Whoever joins
        /// gets them, and from then on everything.
        retain: bool = "false", Kind::Switch, Restart;
    }

    /// `[log]`: what is written to standard error, and how.
    Log = "log" {
        /// How log lines are written: for people, or as JSON for programs.
        ///
        /// Text, because a person starts the first one. JSON is a little longer and costs a little more per line.
        format: LogFormat = "text", Kind::Choice(&["text", "json"]), Restart;

        /// The least severe level that is logged; the variable RUST_LOG, where it is set, overrides it.
        ///
        /// At info a server tells of its start, its stop and what an operator should know. debug and trace write a
        /// line per session and packet: they are for a handful of clients. RUST_LOG also takes levels per module.
        level: Level = "info", Kind::Choice(&["error", "warn", "info", "debug", "trace"]), Live;
    }
}

/// "origin" for "origins", "proxy" for "proxies".
fn singular(name: &str) -> String {
    match name.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => name.trim_end_matches('s').into(),
    }
}

/// The namespace that always exists.
pub const MAIN_NAMESPACE: &str = "/";

/// The tables that the file may have, in the order in which they are printed.
pub const SECTIONS: [&str; 6] = [Server::NAME, Engine::NAME, Cors::NAME, Limits::NAME, Namespace::NAME, Log::NAME];

/// Every option but those of namespaces and rooms.
pub fn options() -> impl Iterator<Item = &'static Spec> {
    [Server::OPTIONS, Engine::OPTIONS, Cors::OPTIONS, Limits::OPTIONS, Log::OPTIONS].into_iter().flatten()
}

/// Every option that has a flag, with its key.
pub fn options_with_flag() -> impl Iterator<Item = (String, &'static Spec)> {
    let client_events = Namespace::OPTIONS.iter().filter(|spec| spec.name == "client_events");
    let of_main = client_events.map(|spec| (format!("{}.{}", namespace_prefix(MAIN_NAMESPACE), spec.name), spec));
    options().map(|spec| (spec.key(), spec)).chain(of_main)
}

/// `namespaces."/admin"`, as the file writes it.
pub fn namespace_prefix(name: &str) -> String {
    format!("{}.{}", Namespace::NAME, quoted(name))
}

/// `namespaces."/".rooms."ticker:*"`, as the file writes it.
pub fn room_prefix(namespace: &str, room: &str) -> String {
    format!("{}.{}.{}", namespace_prefix(namespace), Room::NAME, quoted(room))
}

impl Spec {
    /// `server.listen`
    pub fn key(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `listen`, without the dashes
    pub fn flag(&self) -> String {
        let name = if self.kind.is_list() { singular(self.name) } else { self.name.into() };
        format!("{}{name}", self.shown_section()).replace('_', "-")
    }

    /// `FANFARE_LISTEN`
    pub fn variable(&self) -> String {
        format!("FANFARE_{}{}", self.shown_section(), self.name).to_uppercase()
    }

    /// What it means, in one line.
    pub fn meaning(&self) -> &'static str {
        self.lines[0].trim()
    }

    /// Why the default is what it is, and what the option costs.
    pub fn reasons(&self) -> String {
        let lines = self.lines[1..].iter().map(|line| line.trim()).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join(" ")
    }

    pub fn default_value(&self) -> Value {
        let Some(word) = self.default else { return Value::Unset };
        self.kind.check(&self.kind.read_word(word)).expect("the defaults pass their own checks, see the tests")
    }

    fn shown_section(&self) -> &'static str {
        match self.section {
            "cors" => "cors_",
            "log" => "log_",
            _ => "",
        }
    }
}
