//! Serve: the life of the server, from a configuration to an exit code.
//!
//! The main thread carries a small runtime that waits for signals and for the end; everything else happens on the
//! library's workers. The first SIGTERM or Ctrl-C drains the server, one more ends it at once. SIGHUP rereads the
//! configuration. Where workers have descriptor tables of their own, all that the signals need is open before they part.

use super::bundles::{self, Bundles};
use super::clients::Permissions;
use super::config::{Config, FdTables, Flags, LogFormat, Origins, ProxyProtocol, Reloaded, SendPath};
use super::site::{Shared, Site};
use super::{reread_config, say, stats};
use crate::Cors;
use crate::Feed;
use crate::Io;
use crate::Server;
use crate::Settings;
use crate::StartError;
use crate::Stats;
use crate::Transports;
use std::cmp::Reverse;
use std::fmt;
use std::io::{ErrorKind, IsTerminal as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// A signal so soon after the one before is the same request: `timeout`, `npm` and their like pass on to their child what
/// the terminal or the group has already given it.
const ECHO_WITHIN: Duration = Duration::from_millis(200);

/// Why the server did not start. The operator must act.
#[derive(Debug)]
pub enum Problem {
    /// RUST_LOG is not what it should be.
    LogFilter(String),
    Bundles(bundles::Problem),
    Start(StartError),
    /// The thread for signals has no descriptors left.
    Runtime(std::io::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::LogFilter(problem) => {
                write!(f, "RUST_LOG: {problem}; allowed: a level, like \"debug\", or levels by module")
            }
            Problem::Bundles(problem) => write!(f, "server.client_dir: {problem}"),
            Problem::Start(StartError::Bind { address, error }) if error.kind() == ErrorKind::AddrInUse => {
                write!(f, "server.listen: {address} is taken by another program; choose another port with --listen")
            }
            Problem::Start(StartError::Bind { address, error }) => {
                write!(f, "server.listen: cannot listen on {address}: {error}")
            }
            Problem::Start(error) => error.fmt(f),
            Problem::Runtime(error) => write!(f, "cannot wait for signals: {error}"),
        }
    }
}

/// Runs the server until it has closed. The code is 0, or 128 and the number of the signal that cut it short.
pub fn serve(flags: &Flags, config: Config) -> Result<ExitCode, Problem> {
    let set_log_filter = log_to_stderr(&config)?;
    raise_descriptor_limit();
    let bundles = config.server.client_dir.as_deref().map(Bundles::read).transpose().map_err(Problem::Bundles)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Problem::Runtime)?;
    runtime.block_on(run(flags, config, bundles.unwrap_or_default(), set_log_filter))
}

/// Shells usually allow 1,024 descriptors where the system would allow many more, and a client takes one. Only the soft
/// limit moves, within what the operator allows.
fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(descriptors) => tracing::debug!(descriptors, "one connection takes one descriptor"),
        Err(error) => tracing::warn!(%error, "the limit on descriptors, and so on connections, could not be raised"),
    }
}

async fn run(flags: &Flags, config: Config, bundles: Bundles, set_filter: SetFilter) -> Result<ExitCode, Problem> {
    let mut signals = Signals::listen().map_err(Problem::Runtime)?;
    let io = Io::with_settings(settings(&config, &bundles));
    let permissions = Permissions::new(&config, &io);
    let shared = Arc::new(Shared::new(config, &io, bundles, permissions));
    let server = io.listen_with(shared.config().server.listen, Site(Arc::clone(&shared))).map_err(Problem::Start)?;
    shared.set_workers(server.workers(), server.workers_on_uring());
    say(&announcement(&shared.config(), &server, &shared.bundles));
    let begun = Instant::now();
    let mut ended = end_of(server);
    let mut stopped: Option<Instant> = None;
    loop {
        let asked = tokio::select! {
            end = &mut ended => {
                let (Ok(stats), Some(stopped)) = (end, stopped) else { return Ok(broken()) };
                say(&farewell(begun.elapsed(), stopped.elapsed(), &stats));
                return Ok(ExitCode::SUCCESS);
            }
            asked = signals.next() => asked,
        };
        match (asked, stopped) {
            (Asked::Reload, _) => reload(flags, &shared, &set_filter),
            (Asked::Stop(_), None) => {
                stopped = Some(Instant::now());
                // From here on /readyz says so.
                shared.closing.store(true, Ordering::Relaxed);
                let drain_time = shared.config().server.drain_time;
                tracing::info!(?drain_time, "draining");
                io.drain(drain_time);
            }
            (Asked::Stop(signal), Some(since)) if since.elapsed() > ECHO_WITHIN => {
                return Ok(ExitCode::from(128 + signal));
            }
            (Asked::Stop(_), Some(_)) => {}
        }
    }
}

/// Rereads the configuration. What can change does, on a server that goes on, and the log says when it has; a mistake changes
/// nothing.
fn reload(flags: &Flags, shared: &Arc<Shared>, set_filter: &SetFilter) {
    let refuse = |problem: &dyn fmt::Display| {
        shared.reloads_failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!("the configuration stays as it was: {problem}");
    };
    let new = reread_config(flags).and_then(|new| shared.config().reload(&new));
    let Reloaded { config, changed, kept } = match new {
        Ok(reloaded) => reloaded,
        Err(errors) => return refuse(&errors),
    };
    let reload = match shared.io.reload(settings(&config, &shared.bundles)) {
        Ok(reload) => reload,
        Err(error) => return refuse(&error),
    };
    debug_assert!(reload.kept().is_empty(), "options.rs says that these can change: {:?}", reload.kept());
    set_filter(log_filter(&config).expect("it was read at the start"));
    shared.set_config(config);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        reload.await;
        shared.reloads.fetch_add(1, Ordering::Relaxed);
        tracing::info!(changed = changed.join(", "), "the configuration was reread");
        if !kept.is_empty() {
            tracing::warn!("{}: need a restart; keep their values", kept.join(", "));
        }
    });
}

/// Waits for the server's end on a thread of its own. An error means that a worker panicked.
fn end_of(server: Server) -> oneshot::Receiver<Stats> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = sender.send(server.wait());
    });
    receiver
}

/// A worker has broken one of our own promises; the panic has been printed. A supervisor starts the server again.
fn broken() -> ExitCode {
    tracing::error!("a worker ended by itself");
    ExitCode::FAILURE
}

/// SIGTERM, from supervisors; SIGINT, from Ctrl-C; SIGHUP, from operators.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy)]
enum Asked {
    /// With the number of the signal.
    Stop(u8),
    Reload,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        let stop =
            |kind: SignalKind| Asked::Stop(u8::try_from(kind.as_raw_value()).expect("signals have small numbers"));
        tokio::select! {
            _ = self.terminate.recv() => stop(SignalKind::terminate()),
            _ = self.interrupt.recv() => stop(SignalKind::interrupt()),
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}

// ---- words

fn announcement(config: &Config, server: &Server, bundles: &Bundles) -> String {
    let address = server.address();
    let url = format!("http://{}", reachable(address));
    let slash = if config.engine.add_trailing_slash { "/" } else { "" };
    let path = &config.server.path;
    let workers = server.workers();
    let key = match config.server.publish_key {
        Some(_) => " -H \"Authorization: Bearer $FANFARE_PUBLISH_KEY\"",
        None => "",
    };
    let mut text = format!(
        "fanfare {} listens on http://{address} with {workers} worker{}, I/O: {}\n\n",
        env!("CARGO_PKG_VERSION"),
        if workers == 1 { "" } else { "s" },
        stats::io(workers, server.workers_on_uring()),
    );
    text += &format!("  look      {url}/\n");
    text += &format!("  connect   Socket.IO clients to {url}{path}{slash}\n");
    if let Some(name) = bundles.names().next() {
        text += &format!("            <script src=\"{url}{path}/{name}\"></script>\n");
    }
    text += &format!("  publish   curl {url}/api/publish{key} -d '{{\"event\":\"hello\",\"args\":[\"world\"]}}'\n\n");
    text
}

/// An address that a browser on this machine can open.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

fn farewell(up: Duration, closing: Duration, stats: &Stats) -> String {
    let Stats { let_go, cut_off, deliveries, .. } = stats;
    let plural = if *let_go == 1 { "" } else { "s" };
    format!(
        "fanfare let {let_go} client{plural} go in {:.1} s, {cut_off} of them cut off, after {} s and {deliveries} deliveries\n",
        closing.as_secs_f64(),
        up.as_secs()
    )
}

// ---- log

/// Gives the log another filter.
type SetFilter = Box<dyn Fn(EnvFilter)>;

fn log_filter(config: &Config) -> Result<EnvFilter, Problem> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter),
        _ => EnvFilter::try_new(config.log.level.as_str()),
    };
    filter.map_err(|error| Problem::LogFilter(error.to_string()))
}

fn log_to_stderr(config: &Config) -> Result<SetFilter, Problem> {
    // A line that cannot be written is lost. To report that, the subscriber would write to stderr too, and panic.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(log_filter(config)?)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // The two formats are two types.
    macro_rules! start {
        ($lines:expr) => {{
            let lines = $lines.with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |filter| handle.reload(filter).expect("the log lasts as long as the program"))
        }};
    }
    Ok(match config.log.format {
        LogFormat::Text => start!(lines.with_ansi(std::io::stderr().is_terminal())),
        LogFormat::Json => start!(lines.json()),
    })
}

// ---- settings

fn settings(config: &Config, bundles: &Bundles) -> Settings {
    let Config { server, engine, cors, limits, namespaces: _, rooms: _, log: _, .. } = config;
    Settings {
        path: server.path.clone(),
        add_trailing_slash: engine.add_trailing_slash,
        routes_under_path: bundles.names().map(str::to_owned).collect(),
        transports: Transports { polling: engine.transports.polling, websocket: engine.transports.websocket },
        allow_upgrades: engine.allow_upgrades,
        ping_interval: engine.ping_interval,
        ping_spread: engine.ping_spread,
        ping_timeout: engine.ping_timeout,
        upgrade_timeout: engine.upgrade_timeout,
        connect_timeout: engine.connect_timeout,
        payload_bytes_max: engine.payload_bytes_max,
        policy: limits.policy,
        feeds: feeds(config),
        conflate_keys_max: limits.conflate_keys_max,
        retain_keys_max: limits.retain_keys_max,
        retain_rooms_max: limits.retain_rooms_max,
        retain_bytes_max: limits.retain_bytes_max,
        outbox_bytes_max: limits.outbox_bytes_max,
        // Of use to handlers alone, and the program has none.
        outbox_watermark: Settings::default().outbox_watermark,
        outbox_age_max: limits.outbox_age_max,
        outboxes_bytes_max: limits.outboxes_bytes_max,
        lag_bytes_max: limits.lag_bytes_max,
        namespaces_per_session_max: limits.namespaces_per_session_max,
        rooms_per_socket_max: limits.rooms_per_socket_max,
        cookie: engine.cookie.clone(),
        cors: origins(&cors.origins).map(|origins| Cors {
            origins,
            credentials: cors.credentials,
            // What the reference names when it is not told.
            methods: ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"].map(String::from).into(),
        }),
        handshake_timeout: limits.handshake_timeout,
        request_timeout: limits.request_timeout,
        connections_max: limits.connections_max,
        connections_per_address_max: limits.connections_per_address_max,
        handshakes_per_second_max: limits.handshakes_per_second_max,
        trusted_proxies: server.trusted_proxies.clone(),
        proxy_protocol: match server.proxy_protocol {
            ProxyProtocol::Off => crate::ProxyProtocol::Off,
            ProxyProtocol::Required => crate::ProxyProtocol::Required,
        },
        events_per_second_max: limits.events_per_second_max,
        bytes_per_second_max: limits.bytes_per_second_max,
        accept_queue: i32::try_from(server.accept_queue).expect("the option ends at 65,535"),
        send_buffer_bytes: limits.send_buffer_bytes,
        unsent_bytes_max: limits.unsent_bytes_max,
        tcp_user_timeout: limits.tcp_user_timeout,
        workers: server.workers,
        fd_tables: match server.fd_tables {
            FdTables::Auto => crate::FdTables::Auto,
            FdTables::Shared => crate::FdTables::Shared,
            FdTables::PerWorker => crate::FdTables::PerWorker,
        },
        io: match server.io {
            SendPath::Auto => crate::SendPath::Auto,
            SendPath::Send => crate::SendPath::Send,
            SendPath::Uring => crate::SendPath::Uring,
        },
        pin: server.pin,
        shutdown_grace: server.shutdown_grace,
    }
}

/// The rules in the order in which they are to be tried: for each namespace whole names, then beginnings, the longest
/// first, then its own.
fn feeds(config: &Config) -> Vec<Feed> {
    let mut feeds = Vec::new();
    for (name, own) in &config.namespaces {
        let policy = own.policy.unwrap_or(config.limits.policy);
        let mut rooms: Vec<_> = config.rooms.iter().filter(|((namespace, _), _)| namespace == name).collect();
        rooms.sort_by_key(|((_, room), _)| (room.ends_with('*'), Reverse(room.len())));
        feeds.extend(rooms.into_iter().map(|((_, room), rules)| Feed {
            namespace: name.clone(),
            room: Some(room.clone()),
            policy: rules.policy.unwrap_or(policy),
            conflate_every: rules.conflate_every,
            retain: rules.retain,
        }));
        if own.policy.is_some() || own.conflate_every.is_some() || own.retain {
            let (conflate_every, retain) = (own.conflate_every, own.retain);
            feeds.push(Feed { namespace: name.clone(), room: None, policy, conflate_every, retain });
        }
    }
    feeds
}

fn origins(origins: &Origins) -> Option<crate::Origins> {
    match origins {
        Origins::Off => None,
        Origins::Any => Some(crate::Origins::Any),
        Origins::Listed(listed) => Some(crate::Origins::Listed(listed.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Room;
    use super::*;
    use crate::Policy;

    #[test]
    fn the_programs_defaults_are_the_librarys_but_for_what_only_embedders_have_to_fear() {
        let ours = settings(&Config::default(), &Bundles::default());
        let librarys = Settings { fd_tables: crate::FdTables::Auto, ..Settings::default() };
        assert_eq!(format!("{ours:#?}"), format!("{librarys:#?}"));
    }

    /// Options that can change reach settings that can: the two tables agree.
    #[test]
    fn what_a_reload_changes_in_the_program_can_change_in_the_library() {
        let second = Duration::from_secs(1);
        let mut changed = Config::default();
        (changed.engine.upgrade_timeout, changed.engine.connect_timeout) = (second, second);
        (changed.engine.allow_upgrades, changed.engine.cookie) = (false, Some("io".into()));
        changed.cors.origins = Origins::Listed(vec!["http://a.example".into()]);
        changed.cors.credentials = true;
        (changed.limits.connections_max, changed.limits.connections_per_address_max) = (1, 1);
        changed.limits.handshakes_per_second_max = 1;
        (changed.limits.events_per_second_max, changed.limits.bytes_per_second_max) = (1, 1);
        changed.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        (changed.limits.handshake_timeout, changed.limits.request_timeout) = (second, second);
        (changed.limits.namespaces_per_session_max, changed.limits.rooms_per_socket_max) = (1, 1);
        (changed.limits.outbox_bytes_max, changed.limits.outboxes_bytes_max) = (5_000_000, 2_000_000);
        changed.limits.outbox_age_max = second;
        changed.server.shutdown_grace = second;
        let Reloaded { config, kept, .. } = Config::default().reload(&changed).unwrap();
        assert_eq!((&config, kept.len()), (&changed, 0));
        let io = Io::with_settings(settings(&Config::default(), &Bundles::default()));
        let server = io.listen("127.0.0.1:0").unwrap();
        assert_eq!(io.reload(settings(&changed, &Bundles::default())).unwrap().kept(), [""; 0]);
        assert_eq!(format!("{:?}", io.settings()), format!("{:?}", settings(&changed, &Bundles::default())));
        server.close();
    }

    #[test]
    fn the_rule_that_says_more_about_a_room_is_tried_first() {
        let room = |policy, every: Option<u64>, retain| Room {
            policy,
            conflate_every: every.map(Duration::from_millis),
            retain,
        };
        let mut config = Config::default();
        config.limits.policy = Policy::DropOldest;
        for (namespace, name, rules) in [
            ("/", "a*", room(Some(Policy::Conflate), Some(200), true)),
            ("/", "a:b*", room(None, None, true)),
            ("/", "a:b:cc", room(None, Some(50), false)),
            ("/admin", "x", room(None, None, false)),
        ] {
            config.rooms.insert((namespace.into(), name.into()), rules);
        }
        let mut admin = config.namespaces["/"].clone();
        (admin.policy, admin.retain) = (Some(Policy::DropNewest), true);
        config.namespaces.insert("/admin".into(), admin);
        let feed = |namespace: &str, room: Option<&str>, policy, every: Option<u64>, retain| Feed {
            namespace: namespace.into(),
            room: room.map(Into::into),
            policy,
            conflate_every: every.map(Duration::from_millis),
            retain,
        };
        let expected = [
            feed("/", Some("a:b:cc"), Policy::DropOldest, Some(50), false),
            feed("/", Some("a:b*"), Policy::DropOldest, None, true),
            feed("/", Some("a*"), Policy::Conflate, Some(200), true),
            feed("/admin", Some("x"), Policy::DropNewest, None, false),
            feed("/admin", None, Policy::DropNewest, None, true),
        ];
        assert_eq!(feeds(&config), expected);
    }

    #[test]
    fn an_address_that_means_every_address_is_shown_as_one_to_open() {
        let shown = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:3000"), "127.0.0.1:3000");
        assert_eq!(shown("[::]:3000"), "[::1]:3000");
        assert_eq!(shown("192.0.2.7:80"), "192.0.2.7:80");
    }
}
