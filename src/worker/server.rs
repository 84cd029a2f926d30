//! Server: starts the workers, and ends them.

use super::admission::Admission;
use super::exchanges::Exchanges;
use super::http::Routes;
use super::listen::{Claim, Listener};
use super::load::Load;
use super::mailbox::{self, Mailbox, Post};
use super::passage::Passage;
use super::seldom::Seldom;
use super::streams::{self, Poller};
use super::tables::{self, Home, Lent};
use super::{Worker, here, listen, sender};
use crate::settings::Settings;
use crate::shard::drive::App;
use crate::shard::{Carries, Census, Shard};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, RawFd};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use super::tables::{Layout, layout};

/// The running workers.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// What each worker held and had done when it ended.
    last: Mutex<Receiver<Census>>,
    /// How many of them send through io_uring.
    pub on_uring: usize,
}

/// What exists before the workers do, so that it means the same in all of their descriptor tables: the mailboxes, by
/// which handles reach them, and what they wait with.
pub struct Groundwork {
    pub mailboxes: Arc<[Mailbox]>,
    seats: Vec<Seat>,
    own_tables: bool,
}

/// What one worker waits with, until it takes it.
struct Seat(Option<(mio::Poll, Runtime)>);

/// Why the workers did not start.
pub enum Failure {
    Listen(io::Error),
    /// No thread or no descriptor table is to be had.
    Resources(io::Error),
    /// io_uring is wanted, but not allowed.
    Uring(io::Error),
}

impl Seat {
    fn new() -> io::Result<(Seat, mio::Waker)> {
        let (poll, waker) = streams::poll_and_waker()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok((Seat(Some((poll, runtime))), waker))
    }

    fn take(mut self) -> (mio::Poll, Runtime) {
        self.0.take().expect("taken once, as it is gone then")
    }
}

/// A seat that nobody took. It may be a task of another runtime that starts the server, and there a runtime that waits
/// for its threads cannot be dropped.
impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((_, runtime)) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Makes the mailboxes, and what belongs to them.
pub fn prepare(Layout { workers, own_tables }: Layout) -> io::Result<Groundwork> {
    let (mut seats, mut mailboxes) = (Vec::new(), Vec::new());
    for _ in 0..workers {
        let (seat, waker) = Seat::new()?;
        seats.push(seat);
        mailboxes.push(Mailbox::new(waker, own_tables.then(Passage::open).transpose()?));
    }
    Ok(Groundwork { mailboxes: mailboxes.into(), seats, own_tables })
}

/// Makes an address ours. With port 0 it is now known which one.
pub fn claim(address: SocketAddr) -> io::Result<Claim> {
    Claim::new(address)
}

/// Starts the workers, and returns when all of them listen.
pub fn start<A: App + 'static>(
    groundwork: Groundwork,
    claim: Claim,
    settings: &Arc<Settings>,
    admission: &Arc<Admission>,
    routes: &Routes,
    carries: Carries,
    app: impl Fn(u16) -> A + Send + Clone + 'static,
) -> Result<Workers, Failure> {
    let Groundwork { mailboxes, seats, own_tables } = groundwork;
    // One for each worker, so that nobody waits for those that never begin.
    let endings: Vec<_> = (0..mailboxes.len()).map(|number| Ending::of(&mailboxes, number as u16)).collect();
    listen::warn_if_capped(settings.accept_queue);
    let (home, keeper) = if own_tables { Home::of_own_tables().map_err(Failure::Resources)? } else { Home::shared() };
    let mut threads = Vec::from_iter(keeper);
    let cores = if settings.pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
    let load = Arc::new(Load::new(mailboxes.len()));
    let (begun, beginnings) = channel();
    let (ended, last) = channel();
    let started = Instant::now();
    for (number, (seat, ending)) in seats.into_iter().zip(endings).enumerate() {
        let mut seed = [0; 32];
        rand::rng().fill(&mut seed[..]);
        let setup = Setup {
            number: number as u16,
            // More workers than cores share them.
            core: cores.get(number % cores.len().max(1)).copied(),
            seed,
            settings: Arc::clone(settings),
            carries,
            app: app.clone(),
            started,
            mailboxes: Arc::clone(&mailboxes),
            admission: Arc::clone(admission),
            load: Arc::clone(&load),
            address: claim.address,
            own_table: own_tables.then(|| claim.as_raw_fd()),
            routes: routes.clone(),
            ended: ended.clone(),
        };
        let (begins, home) = (begun.clone(), home.clone());
        // When `live` returns, nothing else of the setup is left on its thread.
        let body = move || {
            let lent = live(setup, seat, begins);
            drop(ending);
            home.give_back(lent);
        };
        match thread::Builder::new().name(format!("fanfare-{number}")).spawn(body) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                let _ = begun.send(Err(Failure::Resources(error)));
                break;
            }
        }
    }
    drop((begun, ended, home));
    let mut workers = Workers { threads, last: Mutex::new(last), on_uring: 0 };
    let (mut failure, mut without_uring) = (None, None);
    // A worker that panics says nothing here; `join` passes its panic on.
    for beginning in beginnings {
        match beginning {
            Ok(Beginning { on_uring, without_uring: why }) => {
                workers.on_uring += usize::from(on_uring);
                without_uring = without_uring.or(why);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if let Some(failure) = failure {
        shut_down(&mailboxes);
        workers.join();
        return Err(failure);
    }
    if let Some(error) = without_uring {
        let workers = mailboxes.len() - workers.on_uring;
        tracing::info!(%error, workers, "io_uring is not to be had here: each send is a system call");
    }
    Ok(workers)
}

/// What a worker says when it has begun.
struct Beginning {
    on_uring: bool,
    /// It would rather send through io_uring.
    without_uring: Option<io::Error>,
}

/// The end of a worker, however it comes: when this is dropped, nobody reaches it or waits for it any more.
///
/// A worker that panics has broken one of our own promises, and nobody could reach its sessions any more: the others
/// end too, and whoever waits for the server learns of the panic.
struct Ending {
    mailboxes: Arc<[Mailbox]>,
    number: u16,
}

impl Ending {
    fn of(mailboxes: &Arc<[Mailbox]>, number: u16) -> Ending {
        Ending { mailboxes: Arc::clone(mailboxes), number }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        mailbox::close(&self.mailboxes, self.number);
        if thread::panicking() {
            shut_down(&self.mailboxes);
        }
    }
}

struct Setup<F> {
    number: u16,
    core: Option<core_affinity::CoreId>,
    seed: [u8; 32],
    settings: Arc<Settings>,
    carries: Carries,
    app: F,
    started: Instant,
    mailboxes: Arc<[Mailbox]>,
    admission: Arc<Admission>,
    load: Arc<Load>,
    address: SocketAddr,
    /// The worker shall have a descriptor table of its own, which does not need the claim with this number.
    own_table: Option<RawFd>,
    routes: Routes,
    ended: Sender<Census>,
}

/// The life of a worker's thread. It says how it began, and ends with what it was lent.
fn live<A: App + 'static>(
    setup: Setup<impl Fn(u16) -> A>,
    seat: Seat,
    begun: Sender<Result<Beginning, Failure>>,
) -> Lent {
    let mailboxes = Arc::clone(&setup.mailboxes);
    let (poll, runtime) = seat.take();
    let (beginning, tools) = match begin(&setup) {
        Ok((beginning, tools)) => (Ok(beginning), Some(tools)),
        Err(failure) => (Err(failure), None),
    };
    begun.send(beginning).expect("the server waits for the beginning of every worker");
    drop(begun);
    let poll = match tools {
        Some(tools) => work(setup, tools, poll, &runtime),
        None => poll,
    };
    Lent { poll, runtime, mailboxes }
}

/// What a worker opens by itself, in its own descriptor table if it has one.
struct Tools {
    listener: TcpListener,
    sender: sender::Sender,
}

/// Everything that can fail is done before anybody can come.
fn begin<F>(setup: &Setup<F>) -> Result<(Beginning, Tools), Failure> {
    if let Some(core) = setup.core {
        core_affinity::set_for_current(core);
    }
    if let Some(claim) = setup.own_table {
        tables::part(claim).map_err(Failure::Resources)?;
    }
    let (sender, without_uring) = sender::Sender::open(setup.settings.io).map_err(Failure::Uring)?;
    let listener = listen::listen(setup.address, &setup.settings).map_err(Failure::Listen)?;
    Ok((Beginning { on_uring: sender.is_uring(), without_uring }, Tools { listener, sender }))
}

fn work<A: App + 'static>(
    setup: Setup<impl Fn(u16) -> A>,
    Tools { listener, sender }: Tools,
    poll: mio::Poll,
    runtime: &Runtime,
) -> mio::Poll {
    let Setup { number, seed, settings, carries, app, started, mailboxes, admission, load, routes, ended, .. } = setup;
    let shards = mailboxes.len() as u16;
    let mut rng = StdRng::from_seed(seed);
    let shard = Rc::new(RefCell::new(Shard::new(number, shards, settings, carries, rng.random())));
    let tasks = tokio::task::LocalSet::new();
    let poll = tasks.block_on(runtime, async {
        let (mut poller, streams) = Poller::new(poll).expect("the poller's descriptor can be watched");
        let listener = Listener::new(listener, &streams).expect("the listener can be watched");
        let worker = Rc::new(Worker {
            number,
            shard: Rc::clone(&shard),
            app: app(number),
            started,
            mailboxes: Arc::clone(&mailboxes),
            streams: RefCell::new(streams),
            sender: RefCell::new(sender),
            arrivals: RefCell::default(),
            exchanges: Exchanges::default(),
            admission,
            load,
            places: RefCell::default(),
            rng: RefCell::new(rng),
            routes,
            date: RefCell::default(),
            outgoing: Rc::default(),
            unread: RefCell::default(),
            touched: Rc::default(),
            closing: watch::Sender::new(false),
            ends_by: Cell::default(),
            drain: Cell::default(),
            http_connections: Cell::new(0),
            accept_failures: Seldom::default(),
            lost_adoptions: Seldom::default(),
            bad_proxy_headers: Seldom::default(),
        });
        here::settle_in(mailboxes, Rc::clone(&shard), started, Rc::clone(&worker.outgoing), Rc::clone(&worker.touched));
        worker.run(&mut poller, listener).await;
        shard.borrow_mut().cut_off();
        poller.into_poll()
    });
    // HTTP tasks that were cut off, and what their ends do, still find the shard.
    drop(tasks);
    here::move_out();
    // Nobody need be waiting for the end.
    let _ = ended.send(shard.borrow().census());
    poll
}

impl Workers {
    /// Waits for the end of every worker, and gives what each has counted. A worker that panicked has broken one of our
    /// own promises.
    pub fn join(self) -> Vec<Census> {
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        self.last.into_inner().expect("nothing panics while it holds this lock").try_iter().collect()
    }
}

/// Tells every worker to take nobody in, to close everybody, and to end.
pub fn shut_down(mailboxes: &[Mailbox]) {
    tell(mailboxes, || Post::ShutDown);
}

/// Tells every worker to take nobody in, to let everybody go over this time, and to end.
pub fn drain(mailboxes: &[Mailbox], over: Duration) {
    tell(mailboxes, || Post::Drain(over));
}

/// A worker that has ended already needs no telling.
fn tell(mailboxes: &[Mailbox], post: impl Fn() -> Post) {
    mailboxes.iter().for_each(|mailbox| _ = mailbox.post(post()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::mail::Event;
    use std::net::Ipv4Addr;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    /// Nobody waits so long in a test: what ends in time did not wait for it.
    const LONG: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(5);
    const WORKERS: u16 = 3;

    struct Deaf;

    impl App for Deaf {
        fn handle(&self, _: &RefCell<Shard>, _: Event<'_>) {}
    }

    fn groundwork() -> Groundwork {
        prepare(Layout { workers: WORKERS.into(), own_tables: false }).unwrap()
    }

    fn start_deaf(groundwork: Groundwork) -> Workers {
        let settings = Arc::new(Settings { shutdown_grace: LONG, ..Settings::default() });
        let routes = Routes(Arc::new(|_| unreachable!("nobody asks")));
        let claim = claim((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let admission = Admission::new(&settings);
        let workers = start(groundwork, claim, &settings, &admission, &routes, Carries::Messages, |_| Deaf);
        workers.unwrap_or_else(|_| panic!("they can start"))
    }

    /// What the workers have counted when all have ended. `None`: one of them panicked.
    fn end_of(workers: Workers) -> Option<Vec<Census>> {
        let (sender, ended) = channel();
        thread::spawn(move || sender.send(catch_unwind(AssertUnwindSafe(|| workers.join())).ok()));
        ended.recv_timeout(PATIENCE).expect("they end")
    }

    fn has_ended(mailbox: &Mailbox) -> bool {
        mailbox.post(Post::Call(Box::new(|| {}))).is_err()
    }

    #[test]
    fn workers_with_nothing_left_end_together() {
        let groundwork = groundwork();
        let mailboxes = Arc::clone(&groundwork.mailboxes);
        let workers = start_deaf(groundwork);
        drain(&mailboxes, LONG);
        assert_eq!(end_of(workers).map(|all| all.len()), Some(WORKERS.into()));
    }

    #[test]
    fn a_worker_that_panics_takes_the_others_along_and_nobody_waits_for_it() {
        for number in 0..WORKERS {
            let groundwork = groundwork();
            let mailboxes = Arc::clone(&groundwork.mailboxes);
            let workers = start_deaf(groundwork);
            let call = Box::new(|| resume_unwind(Box::new("on purpose")));
            mailboxes[usize::from(number)].post(Post::Call(call)).unwrap();
            assert!(end_of(workers).is_none(), "whoever waits learns of it");
            let deadline = Instant::now() + PATIENCE;
            while mailboxes.iter().any(|mailbox| !has_ended(mailbox)) {
                assert!(Instant::now() < deadline, "the others do not end");
                thread::yield_now();
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_worker_that_never_began() {
        let mut groundwork = groundwork();
        groundwork.seats.pop();
        let mailboxes = Arc::clone(&groundwork.mailboxes);
        let workers = start_deaf(groundwork);
        assert!(has_ended(&mailboxes[usize::from(WORKERS) - 1]), "nobody waits for room in its mailbox either");
        shut_down(&mailboxes);
        assert_eq!(end_of(workers).map(|all| all.len()), Some(usize::from(WORKERS) - 1));
    }
}
