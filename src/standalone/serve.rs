//! Serve: the life of the server, from a configuration to an exit code.
//!
//! The main thread carries a small runtime that waits for signals and for the end; everything else happens on the
//! library's workers. The first SIGTERM or Ctrl-C closes gracefully, one more ends at once.

use super::bundles::{self, Bundles};
use super::config::{Config, FdTables, LogFormat, Origins, ProxyProtocol, SendPath};
use super::site::{Shared, Site};
use super::{clients, say, stats};
use crate::Cors;
use crate::Io;
use crate::Server;
use crate::Settings;
use crate::StartError;
use crate::Stats;
use crate::Transports;
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

/// How long the last count may take, before a server is closed that does not answer.
const LAST_COUNT_TIMEOUT: Duration = Duration::from_secs(1);

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
pub fn serve(config: &Config) -> Result<ExitCode, Problem> {
    log_to_stderr(config)?;
    raise_descriptor_limit();
    let bundles = config.server.client_dir.as_deref().map(Bundles::read).transpose().map_err(Problem::Bundles)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Problem::Runtime)?;
    runtime.block_on(run(config, bundles.unwrap_or_default()))
}

/// Shells usually allow 1,024 descriptors where the system would allow many more, and a client takes one. Only the soft
/// limit moves, within what the operator allows.
fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(descriptors) => tracing::debug!(descriptors, "one connection takes one descriptor"),
        Err(error) => tracing::warn!(%error, "the limit on descriptors, and so on connections, could not be raised"),
    }
}

async fn run(config: &Config, bundles: Bundles) -> Result<ExitCode, Problem> {
    let mut signals = Signals::listen().map_err(Problem::Runtime)?;
    let io = Io::with_settings(settings(config, &bundles));
    let shared = Arc::new(Shared::new(config, &io, bundles));
    clients::admit(config, &io, &shared.events_refused);
    let server = io.listen_with(config.server.listen, Site(Arc::clone(&shared))).map_err(Problem::Start)?;
    shared.set_workers(server.workers(), server.workers_on_uring());
    say(&announcement(config, &server, &shared.bundles));
    let begun = Instant::now();
    let mut ended = end_of(server);
    tokio::select! {
        _ = signals.next() => {}
        _ = &mut ended => return Ok(broken()),
    }
    // From here on /readyz says so, on connections that are still open.
    shared.closing.store(true, Ordering::Relaxed);
    let stats = tokio::time::timeout(LAST_COUNT_TIMEOUT, io.stats()).await.ok().and_then(Result::ok);
    tracing::info!("closing");
    io.close();
    let signalled = Instant::now();
    loop {
        tokio::select! {
            end = &mut ended => match end {
                Ok(()) => break,
                Err(_) => return Ok(broken()),
            },
            signal = signals.next() => if signalled.elapsed() > ECHO_WITHIN {
                return Ok(ExitCode::from(128 + signal));
            },
        }
    }
    say(&farewell(begun.elapsed(), &stats.unwrap_or_default()));
    Ok(ExitCode::SUCCESS)
}

/// Waits for the server's end on a thread of its own. An error means that a worker panicked.
fn end_of(server: Server) -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        server.wait();
        let _ = sender.send(());
    });
    receiver
}

/// A worker has broken one of our own promises; the panic has been printed. A supervisor starts the server again.
fn broken() -> ExitCode {
    tracing::error!("a worker ended by itself");
    ExitCode::FAILURE
}

/// SIGTERM, from supervisors, and SIGINT, from Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        u8::try_from(kind.as_raw_value()).expect("signals have small numbers")
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

fn farewell(up: Duration, stats: &Stats) -> String {
    let clients = stats.polling + stats.websocket;
    let plural = if clients == 1 { "" } else { "s" };
    format!("fanfare closed {clients} client{plural} after {} s and {} deliveries\n", up.as_secs(), stats.deliveries)
}

fn log_to_stderr(config: &Config) -> Result<(), Problem> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter),
        _ => EnvFilter::try_new(config.log.level.as_str()),
    };
    let filter = filter.map_err(|error| Problem::LogFilter(error.to_string()))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

// ---- settings

fn settings(config: &Config, bundles: &Bundles) -> Settings {
    let Config { server, engine, cors, limits, namespaces: _, log: _, .. } = config;
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
        policy: crate::Policy::Evict,
        outbox_bytes_max: limits.outbox_bytes_max,
        outbox_age_max: limits.outbox_age_max,
        outboxes_bytes_max: limits.outboxes_bytes_max,
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

fn origins(origins: &Origins) -> Option<crate::Origins> {
    match origins {
        Origins::Off => None,
        Origins::Any => Some(crate::Origins::Any),
        Origins::Listed(listed) => Some(crate::Origins::Listed(listed.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_defaults_are_the_librarys_but_for_what_only_embedders_have_to_fear() {
        let ours = settings(&Config::default(), &Bundles::default());
        let librarys = Settings { fd_tables: crate::FdTables::Auto, ..Settings::default() };
        assert_eq!(format!("{ours:#?}"), format!("{librarys:#?}"));
    }

    #[test]
    fn an_address_that_means_every_address_is_shown_as_one_to_open() {
        let shown = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:3000"), "127.0.0.1:3000");
        assert_eq!(shown("[::]:3000"), "[::1]:3000");
        assert_eq!(shown("192.0.2.7:80"), "192.0.2.7:80");
    }
}
