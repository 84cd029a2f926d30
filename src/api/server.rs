//! Server: a running server, and why one did not start.

use super::Stats;
use super::io::Io;
use super::local::Dispatch;
use crate::settings::{Settings, SettingsError};
use crate::shard::Carries;
use crate::shard::drive::App;
use crate::worker::admission::Admission;
use crate::worker::http::{Body, Routes, respond};
use crate::worker::mailbox::Mailbox;
use crate::worker::server::{self, Failure, Workers};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// A running server. Dropping it does not end it.
pub struct Server {
    address: SocketAddr,
    workers: Workers,
    mailboxes: Arc<[Mailbox]>,
    admission: Arc<Admission>,
}

impl Server {
    /// The address that it listens on; with port 0 this tells the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// How many of its workers send through io_uring; see [`Settings::io`](crate::Settings::io).
    pub fn workers_on_uring(&self) -> usize {
        self.workers.on_uring
    }

    /// Waits until the server has closed, and tells what it has done. Blocks the thread.
    pub fn wait(self) -> Stats {
        let ends = self.workers.join();
        let mut stats = Stats::of_process(&self.admission);
        ends.into_iter().for_each(|census| stats.add(census));
        stats
    }

    /// Closes the server, as [`Io::close`] does, and waits for the end. Blocks the thread.
    pub fn close(self) -> Stats {
        server::shut_down(&self.mailboxes);
        self.wait()
    }

    /// Lets the clients go over this time, as [`Io::drain`] does, and waits for the end. Blocks the thread.
    pub fn drain(self, over: Duration) -> Stats {
        server::drain(&self.mailboxes, over);
        self.wait()
    }
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    Settings(SettingsError),
    /// The name resolves to no address.
    NoAddress,
    Bind {
        address: SocketAddr,
        error: io::Error,
    },
    /// The same `Io` listens already, or has: it does so once.
    AlreadyListening,
    /// [`FdTables::PerWorker`](crate::FdTables::PerWorker) is asked for, and the system does not let threads have
    /// descriptor tables of their own.
    Tables(io::Error),
    /// [`SendPath::Uring`](crate::SendPath::Uring) is asked for, and the system does not let a worker have io_uring.
    Uring(io::Error),
    /// No thread, poller or descriptor is to be had.
    Resources(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Settings(error) => error.fmt(f),
            StartError::NoAddress => f.write_str("the address to listen on resolves to nothing"),
            StartError::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::AlreadyListening => f.write_str("this server listens already"),
            StartError::Tables(error) => write!(
                f,
                "setting `fd_tables`: a table for each worker needs Linux 5.9 and the system call close_range, which a \
                 container may forbid; use auto or shared ({error})"
            ),
            StartError::Uring(error) => write!(
                f,
                "setting `io`: sending through io_uring needs Linux 5.6, and a container or the sysctl \
                 kernel.io_uring_disabled may forbid it; use auto or send ({error})"
            ),
            StartError::Resources(error) => write!(f, "cannot start the workers: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

pub(crate) fn start(io: &Io, address: impl ToSocketAddrs, routes: Routes) -> Result<Server, StartError> {
    let dispatch = {
        let io = io.clone();
        move |shards: u16| {
            let io = io.clone();
            move |_: u16| Dispatch::new(io.clone(), shards)
        }
    };
    start_app(&io.settings(), address, routes, Carries::SocketIo, dispatch, |mailboxes, admission| {
        io.set_running(mailboxes, admission)
    })
}

/// Starts workers for an application. `ready` is told how to reach them before they run; it may refuse.
pub(crate) fn start_app<A: App + 'static, F: Fn(u16) -> A + Send + Clone + 'static>(
    settings: &Arc<Settings>,
    address: impl ToSocketAddrs,
    routes: Routes,
    carries: Carries,
    app: impl FnOnce(u16) -> F,
    ready: impl FnOnce(Arc<[Mailbox]>, Arc<Admission>) -> bool,
) -> Result<Server, StartError> {
    settings.check().map_err(StartError::Settings)?;
    let address = address.to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or(StartError::NoAddress)?;
    let layout = server::layout(settings).map_err(StartError::Tables)?;
    let claim = server::claim(address).map_err(|error| StartError::Bind { address, error })?;
    let address = claim.address;
    let admission = Admission::new(settings);
    let groundwork = server::prepare(layout).map_err(StartError::Resources)?;
    let mailboxes = Arc::clone(&groundwork.mailboxes);
    if !ready(Arc::clone(&mailboxes), Arc::clone(&admission)) {
        return Err(StartError::AlreadyListening);
    }
    let app = app(layout.workers as u16);
    let workers = server::start(groundwork, claim, settings, &admission, &routes, carries, app);
    let workers = workers.map_err(|failure| match failure {
        Failure::Listen(error) => StartError::Bind { address, error },
        Failure::Resources(error) => StartError::Resources(error),
        Failure::Uring(error) => StartError::Uring(error),
    })?;
    Ok(Server { address, workers, mailboxes, admission })
}

/// 404 for everything.
pub(crate) fn nothing_else() -> Routes {
    Routes(Arc::new(|_| Box::pin(async { respond(StatusCode::NOT_FOUND, Bytes::new()) })))
}

/// An embedder's service. An error of the service is its own affair; the client sees a 500.
pub(crate) fn routes<S, B>(service: S) -> Routes
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: std::fmt::Display,
    S::Future: 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Routes(Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            let response = match poll_fn(|cx| service.poll_ready(cx)).await {
                Ok(()) => service.call(request).await,
                Err(error) => Err(error),
            };
            match response {
                Ok(response) => response.map(|body| -> Body { Either::Right(body.map_err(Into::into).boxed_unsync()) }),
                Err(error) => {
                    tracing::error!(%error, "a route failed");
                    respond(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
                }
            }
        })
    }))
}
