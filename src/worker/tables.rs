//! Tables: whether the workers share the process's descriptor table, or each has one of its own.
//!
//! A limit like 20,000 descriptors is per table, and a Linux thread may have a table to itself. It begins as a copy:
//!
//! ```text
//! home (whoever starts the server)   0 1 2   poll, runtime, mailbox, passage of every worker   claim
//!                                      │ copied, when a worker parts
//! worker 0                           0 1 2   the same, under the same numbers      its listener, its streams
//! worker 1                           0 1 2   the same, under the same numbers      its listener, its streams
//! ```
//!
//! The one idea: what others reach a worker by (an eventfd to wake it, a socket to pass it a stream) is opened at home
//! before the first worker parts. So each of those numbers means the same in every table, for as long as the table
//! exists, and any thread may use it. Everything else is opened after parting, and never leaves its thread.
//!
//! A table ends with its last thread, and takes its copies along. Only home's have to be closed by somebody: a worker
//! gives what it was lent back to the [`Home`] that it came from.
//!
//! Invariants: no table but home closes a number that was copied from there, except the claim's; see [`part`].
//! Not here:   how streams cross from table to table (passage.rs).

use super::mailbox::Mailbox;
use crate::proto::id::SHARDS_MAX;
use crate::settings::{FdTables, Settings};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use tokio::runtime::Runtime;

/// Descriptors of a table that are not for connections: standard streams, logs, what routes open, what an embedder has.
const RESERVE: usize = 64;
/// Descriptors that a table holds for each worker of the server, at most: what is made before the workers part.
const RESERVE_PER_WORKER: usize = 12;
/// How full tables are planned to be, in percent. The kernel spreads connections over listeners by a hash: evenly, but
/// not exactly, and a table that is full refuses while its neighbours have room.
const FILL_PERCENT: usize = 90;

/// How many workers there are, and in what tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub workers: usize,
    pub own_tables: bool,
}

/// What these settings mean on this machine. An error means that a table for each worker is wanted, but not allowed.
pub fn layout(settings: &Settings) -> io::Result<Layout> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let limit = table_limit();
    let mut layout = plan(settings, cores, limit);
    if layout.own_tables
        && let Err(error) = try_parting()
    {
        if settings.fd_tables == FdTables::PerWorker {
            return Err(error);
        }
        tracing::warn!(%error, "workers cannot have descriptor tables of their own, and share one");
        layout = plan(&Settings { fd_tables: FdTables::Shared, ..settings.clone() }, cores, limit);
    }
    if layout.own_tables {
        tracing::info!(workers = layout.workers, descriptors = limit, "each worker has a descriptor table of its own");
    }
    let capacity = if layout.own_tables { layout.workers } else { 1 }.saturating_mul(room(limit, layout.workers));
    if settings.connections_max > capacity {
        tracing::warn!(
            connections_max = settings.connections_max,
            descriptors_per_table = limit,
            "the descriptors end before connections_max: some {capacity} connections fit"
        );
    }
    Ok(layout)
}

fn plan(settings: &Settings, cores: usize, limit: usize) -> Layout {
    let workers_max = usize::from(SHARDS_MAX);
    let workers = if settings.workers == 0 { cores } else { settings.workers }.min(workers_max);
    let own_tables = match settings.fd_tables {
        FdTables::Shared => false,
        FdTables::PerWorker => true,
        FdTables::Auto => cfg!(target_os = "linux") && settings.connections_max > room(limit, workers),
    };
    if !own_tables || settings.workers > 0 {
        return Layout { workers, own_tables };
    }
    let fits = |workers: &usize| {
        let planned = room(limit, *workers).saturating_mul(FILL_PERCENT) / 100;
        planned.saturating_mul(*workers) >= settings.connections_max
    };
    Layout { workers: (workers..=workers_max).find(fits).unwrap_or(workers), own_tables }
}

/// Connections that fit into one table of a server with so many workers.
fn room(limit: usize, workers: usize) -> usize {
    limit.saturating_sub(RESERVE + workers * RESERVE_PER_WORKER)
}

fn table_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Whether threads may have tables of their own here. Containers sometimes forbid it.
fn try_parting() -> io::Result<()> {
    const NONE: RawFd = -1; // the largest number there is, as the kernel reads it
    thread::Builder::new().spawn(|| part(NONE))?.join().expect("a system call does not panic")
}

/// Gives the calling thread a descriptor table of its own, a copy of the one that it shared until now, but without
/// `claim`.
///
/// `close_range` and not `unshare`, because the usual profile of containers forbids the latter.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn part(claim: RawFd) -> io::Result<()> {
    // SAFETY: the call takes no pointer and touches no memory of ours. What it can break is I/O safety, in two ways. It
    // closes `claim`, but in the new table alone, where no value owns that number. And it makes numbers ambiguous: a
    // worker calls it before it opens anything, and afterwards what it opens is made and dropped on its thread, and what
    // it was lent has the same number everywhere (see the head of this file).
    let result = unsafe { libc::syscall(libc::SYS_close_range, claim, claim, libc::CLOSE_RANGE_UNSHARE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
pub fn part(_: RawFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What a worker was lent, when it needs it no more.
pub struct Lent {
    pub poll: mio::Poll,
    pub runtime: Runtime,
    pub mailboxes: Arc<[Mailbox]>,
}

impl Lent {
    /// What holds the last count of the mailboxes closes them, too.
    fn close(self) {
        let Lent { poll, runtime, mailboxes } = self;
        drop((runtime, poll, mailboxes));
    }
}

/// Where workers give back what they were lent, so that it is closed in the table where it was opened.
#[derive(Clone)]
pub struct Home(Option<Sender<Lent>>);

impl Home {
    /// Workers that share a table can close everything themselves.
    pub fn shared() -> (Home, Option<JoinHandle<()>>) {
        (Home(None), None)
    }

    /// A thread in the caller's table that ends when every worker has given back.
    pub fn of_own_tables() -> io::Result<(Home, Option<JoinHandle<()>>)> {
        let (sender, receiver) = channel::<Lent>();
        let keep = move || receiver.into_iter().for_each(Lent::close);
        let keeper = thread::Builder::new().name("fanfare-home".into()).spawn(keep)?;
        Ok((Home(Some(sender)), Some(keeper)))
    }

    /// The last act of a worker.
    pub fn give_back(&self, lent: Lent) {
        // Tasks that an embedder spawned may hold descriptors, which are of this thread's table and have to be dropped
        // here, with their runtime. Then its few descriptors stay open at home.
        let has_tasks = lent.runtime.metrics().num_alive_tasks() > 0;
        match &self.0 {
            Some(sender) if !has_tasks => _ = sender.send(lent),
            _ => lent.close(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(fd_tables: FdTables, workers: usize, connections_max: usize) -> Settings {
        Settings { fd_tables, workers, connections_max, ..Settings::default() }
    }

    #[test]
    fn tables_are_parted_when_one_is_too_small_and_there_are_as_many_workers_as_they_need() {
        use FdTables::{Auto, PerWorker, Shared};
        let all = |workers| Layout { workers, own_tables: false };
        let own = |workers| Layout { workers, own_tables: true };
        for ((fd_tables, workers, connections_max), cores, limit, expected) in [
            ((Auto, 0, 0), 2, 20_000, all(2)),
            ((Auto, 0, 19_000), 2, 20_000, all(2)),
            ((Auto, 0, 20_000), 2, 20_000, own(2)),
            ((Auto, 0, 100_000), 2, 20_000, own(6)),
            ((Auto, 0, 100_000), 16, 20_000, own(16)),
            ((Auto, 0, 100_000), 2, 1 << 20, all(2)),
            ((Auto, 3, 100_000), 2, 20_000, own(3)),
            ((Shared, 0, 100_000), 2, 20_000, all(2)),
            ((PerWorker, 0, 0), 2, 20_000, own(2)),
            ((PerWorker, 0, 100), 2, usize::MAX, own(2)),
            ((PerWorker, 4, 100_000), 2, 20_000, own(4)),
            // No number of workers is enough, since each takes its part of every table.
            ((PerWorker, 0, 1_000_000), 2, 256, own(2)),
        ] {
            let settings = settings(fd_tables, workers, connections_max);
            let what = format!("{fd_tables:?}, {workers} workers, {connections_max} connections");
            assert_eq!(plan(&settings, cores, limit), expected, "{what}, {cores} cores, tables of {limit}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_parts_has_everything_but_the_claim_and_closes_nothing_elsewhere() {
        use std::fs::File;
        use std::os::fd::AsRawFd as _;
        let (claim, kept) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let numbers = [claim.as_raw_fd(), kept.as_raw_fd()];
        let is_open = |number: RawFd| std::path::Path::new(&format!("/proc/thread-self/fd/{number}")).exists();
        let there = thread::spawn(move || {
            part(numbers[0]).unwrap();
            numbers.map(is_open)
        });
        assert_eq!(there.join().unwrap(), [false, true]);
        assert_eq!(numbers.map(is_open), [true, true]);
    }
}
