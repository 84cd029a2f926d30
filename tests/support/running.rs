//! Running: a server inside the test's own process, as a guard. On a free port, closed and awaited when dropped.
//!
//! With `FANFARE_TEST_FD_TABLES=per-worker` each worker has a descriptor table of its own. Such a table begins with a copy
//! of what all tests have open, so these take turns then (`--test-threads=1`).
//!
//! With `FANFARE_TEST_IO=send` or `uring` the workers send by nothing else; without it, as they choose.

use super::http::WAIT_MAX;
use fanfare::engine::Engine;
use fanfare::{CloseReason, FdTables, Io, Namespace, SendPath, Server, Settings, Socket, Stats};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// The defaults, with two workers wherever the test runs, so that there are always foreign ones, and no ping before all
/// of its interval has passed, so that none comes between what a test expects.
pub fn settings() -> Settings {
    let per_worker = std::env::var_os("FANFARE_TEST_FD_TABLES").is_some_and(|tables| tables == "per-worker");
    let fd_tables = if per_worker { FdTables::PerWorker } else { FdTables::Shared };
    let io = match std::env::var("FANFARE_TEST_IO").as_deref() {
        Ok("send") => SendPath::Send,
        Ok("uring") => SendPath::Uring,
        Ok(other) => panic!("FANFARE_TEST_IO: {other}; allowed: send, uring"),
        Err(_) => SendPath::Auto,
    };
    Settings {
        workers: 2,
        fd_tables,
        io,
        pin: false,
        ping_spread: false,
        shutdown_grace: Duration::from_millis(500),
        ..Settings::default()
    }
}

/// Waits for what a server says. Without a runtime, which would have to exist before the server does; see `FdTables`.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(Instant::now() < deadline, "not done within 5 s");
        thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// What a server has counted.
pub fn stats(io: &Io) -> Stats {
    block_on(io.stats()).expect("the server runs")
}

/// Waits until the counters are as they shall be.
pub fn wait_for_stats(io: &Io, what: impl Fn(&Stats) -> bool) -> Stats {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let stats = stats(io);
        if what(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "still {stats:?}");
    }
}

pub struct Running {
    address: SocketAddr,
    server: Option<Server>,
}

impl Running {
    pub fn io(io: &Io) -> Running {
        Running::new(io.listen("127.0.0.1:0").expect("a free port"))
    }

    pub fn engine(engine: Engine) -> Running {
        Running::new(engine.listen("127.0.0.1:0").expect("a free port"))
    }

    pub fn new(server: Server) -> Running {
        Running { address: server.address(), server: Some(server) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server itself. From now on its end is the caller's affair.
    pub fn into_server(mut self) -> Server {
        self.server.take().expect("taken once")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        // A worker that panicked fails the test here, unless the test has failed already.
        if !std::thread::panicking() {
            server.close();
        }
    }
}

/// A server whose sockets tell how they end. Each test says what else happens in the main namespace.
pub struct Fixture {
    pub io: Io,
    pub server: Running,
    pub ends: Receiver<CloseReason>,
}

impl Fixture {
    /// `prepare` is given the main namespace.
    pub fn with(settings: Settings, prepare: impl FnOnce(&Namespace)) -> Fixture {
        let io = Io::with_settings(settings);
        let (sender, ends) = channel();
        let main = io.of("/");
        prepare(&main);
        main.on_disconnect(move |_: Socket, reason| _ = sender.send(reason));
        Fixture { server: Running::io(&io), io, ends }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How the next socket ends.
    pub fn end(&self) -> CloseReason {
        self.ends.recv_timeout(WAIT_MAX).expect("a socket that ends within 5 s")
    }
}
