//! Server: starts the workers, and ends them.

use super::admission::Admission;
use super::exchanges::Exchanges;
use super::http::Routes;
use super::mailbox::{Mailbox, Post};
use super::streams::{self, Poller};
use super::{Worker, here, listen};
use crate::proto::id::SHARDS_MAX;
use crate::settings::Settings;
use crate::shard::drive::App;
use crate::shard::{Carries, Shard};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tokio::sync::watch;

/// The running workers.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

/// What exists before the workers do: their mailboxes, by which handles reach them.
pub struct Groundwork {
    pub mailboxes: Arc<[Mailbox]>,
    polls: Vec<mio::Poll>,
}

/// How many workers these settings mean on this machine.
pub fn worker_count(settings: &Settings) -> usize {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let wanted = if settings.workers == 0 { cores } else { settings.workers };
    wanted.min(usize::from(SHARDS_MAX))
}

/// Makes the mailboxes.
pub fn prepare(workers: usize) -> io::Result<Groundwork> {
    let pairs = (0..workers).map(|_| streams::poll_and_waker()).collect::<io::Result<Vec<_>>>()?;
    let (polls, wakers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    Ok(Groundwork { mailboxes: wakers.into_iter().map(Mailbox::new).collect(), polls })
}

/// Binds one listener for each worker. With port 0 the first one's port serves for all.
pub fn bind(address: SocketAddr, settings: &Settings, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = listen::bind(address, settings)?;
    let address = first.local_addr()?;
    let others = (1..workers).map(|_| listen::bind(address, settings));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// Starts one thread for each listener.
pub fn start<A: App + 'static>(
    groundwork: Groundwork,
    listeners: Vec<TcpListener>,
    settings: &Arc<Settings>,
    admission: &Arc<Admission>,
    routes: &Routes,
    carries: Carries,
    app: impl Fn(u16) -> A + Send + Clone + 'static,
) -> io::Result<Workers> {
    let mut cores = if settings.pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
    cores.reverse();
    let shards = groundwork.mailboxes.len() as u16;
    let started = Instant::now();
    let mut threads = Vec::new();
    for (number, (poll, listener)) in groundwork.polls.into_iter().zip(listeners).enumerate() {
        let (settings, admission, routes) = (Arc::clone(settings), Arc::clone(admission), routes.clone());
        let (mailboxes, app) = (Arc::clone(&groundwork.mailboxes), app.clone());
        let core = cores.pop();
        let mut seed = [0; 32];
        rand::RngExt::fill(&mut rand::rng(), &mut seed[..]);
        let body = move || {
            let _ending = Ending(Arc::clone(&mailboxes));
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            let number = number as u16;
            let shard = Rc::new(RefCell::new(Shard::new(number, shards, settings, carries, seed)));
            work(Setup { number, shard, app: app(number), started, mailboxes, admission, poll, listener, routes });
        };
        threads.push(thread::Builder::new().name(format!("fanfare-{number}")).spawn(body)?);
    }
    Ok(Workers { threads })
}

/// A worker that panics has broken one of our own promises, and nobody could reach its sessions any more: the others
/// end too, and whoever waits for the server learns of the panic.
struct Ending(Arc<[Mailbox]>);

impl Drop for Ending {
    fn drop(&mut self) {
        if thread::panicking() {
            shut_down(&self.0);
        }
    }
}

struct Setup<A> {
    number: u16,
    shard: Rc<RefCell<Shard>>,
    app: A,
    started: Instant,
    mailboxes: Arc<[Mailbox]>,
    admission: Arc<Admission>,
    poll: mio::Poll,
    listener: TcpListener,
    routes: Routes,
}

/// The life of a worker's thread.
fn work<A: App + 'static>(setup: Setup<A>) {
    let Setup { number, shard, app, started, mailboxes, admission, poll, listener, routes } = setup;
    let own_mailboxes = Arc::clone(&mailboxes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs a few descriptors, and the listeners were bound a moment ago");
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let (poller, streams) = Poller::new(poll).expect("the poller's descriptor can be watched");
        let worker = Rc::new(Worker {
            number,
            shard: Rc::clone(&shard),
            app,
            started,
            mailboxes: Arc::clone(&mailboxes),
            streams: RefCell::new(streams),
            exchanges: Exchanges::default(),
            admission,
            outgoing: Rc::default(),
            unread: RefCell::default(),
            touched: Rc::default(),
            closing: watch::Sender::new(false),
            http_connections: Cell::new(0),
        });
        here::settle_in(mailboxes, shard, started, Rc::clone(&worker.outgoing), Rc::clone(&worker.touched));
        tokio::task::spawn_local(listen::accept(Rc::clone(&worker), listener, routes));
        worker.run(poller).await;
    });
    // HTTP tasks that were cut off, and what their ends do, still find the shard.
    drop(tasks);
    here::move_out();
    own_mailboxes[usize::from(number)].close();
}

impl Workers {
    /// Waits for the end of every worker. A worker that panicked has broken one of our own promises.
    pub fn join(self) {
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Tells every worker to take nobody in, to close everybody, and to end.
pub fn shut_down(mailboxes: &[Mailbox]) {
    // A worker that has ended already needs no telling.
    for mailbox in mailboxes {
        let _ = mailbox.post(Post::ShutDown);
    }
}
