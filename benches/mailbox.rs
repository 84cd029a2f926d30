//! Mailbox: what does it cost to tell another worker something?
//!
//! The question: workers share nothing but mailboxes (src/worker/mailbox.rs): a bounded `ArrayQueue` behind a flag, and
//! a `mio::Waker`, because a worker waits for its streams and its mail in one `epoll_wait`. Mail travels in batches,
//! one a turn. Is that as good as a channel, and what does a batch spare?
//!
//! - `64 mails, one thread`: from one shard to another. Ours is all of it: noted by the shard, collected, posted,
//!   taken. In the others each mail goes alone.
//! - `a batch, one thread`: a batch that is there already, posted and taken. Whoever looks into its mailbox anyway is
//!   not woken; `mailbox, asleep` is.
//! - `a batch there and back, two threads`: the other thread answers with the batch that it took. Both wait to be
//!   woken, but for the bare queue, which has nothing to wake with and spins.
//! - `1,000 batches there and back, two threads`: the same without waiting in between.
//!
//! Two threads need two idle cores: on a busy machine this measures who gets one.
//!
//!     cargo bench --bench mailbox

#[path = "support/cores.rs"]
mod cores;
mod support;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use fanfare::Settings;
use fanfare::bench::{Carries, Mail, Mailbox, Post, Shard, Target, collect};
use fanfare::proto::{Prepared, socketio};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use tokio::sync::mpsc as tokio_mpsc;

const MAILS: usize = 64;
const BATCHES: usize = 1_000;
const QUEUE_MAX: usize = 4096;
/// The shard that the mail is for.
const NEIGHBOUR: u16 = 1;

type Batch = Vec<Mail>;
type Queue<T> = Arc<ArrayQueue<Option<T>>>;

/// One end of a queue; `None` is the last thing sent.
trait Sender<T>: Send {
    fn send(&self, item: Option<T>);
}

/// The other end, which waits.
trait Receiver<T>: Send {
    fn receive(&mut self) -> Option<T>;
}

fn in_one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("64 mails, one thread");
    group.throughput(Throughput::Elements(MAILS as u64));
    collected(&mut group);
    one_by_one(&mut group, "ArrayQueue", array_queue());
    one_by_one(&mut group, "std::sync::mpsc", std_channel());
    one_by_one(&mut group, "tokio::sync::mpsc", tokio_channel());
    group.finish();

    let mut group = c.benchmark_group("a batch, one thread");
    there(&mut group, "mailbox", mailbox(), |_| {});
    there(&mut group, "mailbox, asleep", mailbox(), |owner| owner.mailbox.listen());
    there(&mut group, "ArrayQueue", array_queue(), |_| {});
    there(&mut group, "std::sync::mpsc", std_channel(), |_| {});
    there(&mut group, "tokio::sync::mpsc", tokio_channel(), |_| {});
    group.finish();
}

fn in_two_threads(c: &mut Criterion) {
    cores::pin_to_first();
    for (name, batches) in
        [("a batch there and back, two threads", 1), ("1,000 batches there and back, two threads", BATCHES)]
    {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(batches as u64));
        there_and_back(&mut group, "mailbox", batches, mailbox(), mailbox());
        there_and_back(&mut group, "ArrayQueue, spinning", batches, array_queue(), array_queue());
        there_and_back(&mut group, "std::sync::mpsc", batches, std_channel(), std_channel());
        there_and_back(&mut group, "tokio::sync::mpsc", batches, tokio_channel(), tokio_channel());
        group.finish();
    }
}

/// The way that mail goes between two shards.
fn collected(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut shard = Shard::new(0, 2, Arc::new(Settings::default()), Carries::SocketIo, [0; 32]);
    let (paper, mut outgoing, (sender, mut owner)) = (Paper::new(), VecDeque::new(), mailbox());
    group.bench_function("shard and mailbox", |b| {
        b.iter(|| {
            (0..MAILS).for_each(|_| shard.post(NEIGHBOUR, paper.mail()));
            collect(&mut shard, &mut outgoing);
            let (to, post) = outgoing.pop_front().expect("there is mail");
            assert!(to == NEIGHBOUR && outgoing.is_empty(), "one batch for one neighbour");
            assert!(sender.try_post(post).is_ok(), "the mailbox was empty");
            assert_eq!(read(owner.receive().expect("it was posted")), MAILS);
        })
    });
}

fn one_by_one(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    (sender, mut receiver): (impl Sender<Mail>, impl Receiver<Mail>),
) {
    let paper = Paper::new();
    group.bench_function(name, |b| {
        b.iter(|| {
            (0..MAILS).for_each(|_| sender.send(Some(paper.mail())));
            (0..MAILS).for_each(|_| _ = black_box(receiver.receive().expect("it was sent")));
        })
    });
}

fn there<R: Receiver<Batch>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    (sender, mut receiver): (impl Sender<Batch>, R),
    before: impl Fn(&R),
) {
    let mut batch = Some(Paper::new().batch());
    group.bench_function(name, |b| {
        b.iter(|| {
            before(&receiver);
            sender.send(batch.take());
            batch = receiver.receive();
            assert_eq!(batch.as_ref().expect("it was sent").len(), MAILS);
        })
    });
}

fn there_and_back(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    batches: usize,
    (sender, mut receiver): (impl Sender<Batch>, impl Receiver<Batch>),
    (back_sender, mut back_receiver): (impl Sender<Batch>, impl Receiver<Batch>),
) {
    thread::scope(|threads| {
        threads.spawn(move || {
            cores::pin_to_last();
            // The same batches travel all the time: what is measured is the way and not the allocator.
            let mut kept = Vec::with_capacity(batches);
            while let Some(batch) = receiver.receive() {
                assert_eq!(black_box(&batch).len(), MAILS);
                kept.push(batch);
                if kept.len() == batches {
                    kept.drain(..).for_each(|batch| back_sender.send(Some(batch)));
                }
            }
        });
        let paper = Paper::new();
        let mut here: Vec<Batch> = (0..batches).map(|_| paper.batch()).collect();
        group.bench_function(name, |b| {
            b.iter(|| {
                here.drain(..).for_each(|batch| sender.send(Some(batch)));
                here.extend((0..batches).map(|_| back_receiver.receive().expect("it comes back")));
            })
        });
        sender.send(None);
    });
}

/// What mail is written on: a broadcast that other shards take part in.
struct Paper {
    target: Arc<Target>,
    packet: Arc<Prepared>,
}

impl Paper {
    fn new() -> Paper {
        let target = Target { namespace: "/".into(), ..Target::default() };
        Paper { target: Arc::new(target), packet: Arc::new(socketio::event("/", None, r#"["tick",1]"#, &[])) }
    }

    fn mail(&self) -> Mail {
        Mail::Broadcast { target: Arc::clone(&self.target), packet: Arc::clone(&self.packet), count: None }
    }

    fn batch(&self) -> Batch {
        (0..MAILS).map(|_| self.mail()).collect()
    }
}

fn read(batch: Batch) -> usize {
    batch.into_iter().map(black_box).count()
}

fn mailbox() -> (Arc<Mailbox>, Owner) {
    let poll = mio::Poll::new().expect("a poller needs one descriptor");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker needs one descriptor");
    let mailbox = Arc::new(Mailbox::new(waker, None));
    (Arc::clone(&mailbox), Owner { mailbox, poll, events: mio::Events::with_capacity(1), listening: false })
}

/// Does with its mailbox what a worker does: looks once more after asking to be woken, then waits.
struct Owner {
    mailbox: Arc<Mailbox>,
    poll: mio::Poll,
    events: mio::Events,
    listening: bool,
}

impl Sender<Batch> for Arc<Mailbox> {
    fn send(&self, batch: Option<Batch>) {
        let post = batch.map_or(Post::ShutDown, Post::Mail);
        self.post(post).expect("nobody closes it");
    }
}

impl Receiver<Batch> for Owner {
    fn receive(&mut self) -> Option<Batch> {
        loop {
            match self.mailbox.take() {
                Some(Post::Mail(batch)) => return Some(batch),
                Some(_) => return None,
                None if self.listening => self.poll.poll(&mut self.events, None).expect("no signal comes"),
                None => self.mailbox.listen(),
            }
            self.listening = !self.listening;
        }
    }
}

fn array_queue<T: Send>() -> (Queue<T>, Queue<T>) {
    let queue = Arc::new(ArrayQueue::new(QUEUE_MAX));
    (Arc::clone(&queue), queue)
}

impl<T: Send> Sender<T> for Queue<T> {
    fn send(&self, item: Option<T>) {
        assert!(self.push(item).is_ok(), "it has room for all that is under way");
    }
}

impl<T: Send> Receiver<T> for Queue<T> {
    fn receive(&mut self) -> Option<T> {
        loop {
            match self.pop() {
                Some(item) => return item,
                None => std::hint::spin_loop(),
            }
        }
    }
}

fn std_channel<T: Send>() -> (std_mpsc::SyncSender<Option<T>>, std_mpsc::Receiver<Option<T>>) {
    std_mpsc::sync_channel(QUEUE_MAX)
}

impl<T: Send> Sender<T> for std_mpsc::SyncSender<Option<T>> {
    fn send(&self, item: Option<T>) {
        assert!(self.try_send(item).is_ok(), "it has room for all that is under way");
    }
}

impl<T: Send> Receiver<T> for std_mpsc::Receiver<Option<T>> {
    fn receive(&mut self) -> Option<T> {
        self.recv().expect("`None` comes before the end")
    }
}

fn tokio_channel<T: Send>() -> (tokio_mpsc::Sender<Option<T>>, tokio_mpsc::Receiver<Option<T>>) {
    tokio_mpsc::channel(QUEUE_MAX)
}

impl<T: Send> Sender<T> for tokio_mpsc::Sender<Option<T>> {
    fn send(&self, item: Option<T>) {
        assert!(self.try_send(item).is_ok(), "it has room for all that is under way");
    }
}

impl<T: Send> Receiver<T> for tokio_mpsc::Receiver<Option<T>> {
    fn receive(&mut self) -> Option<T> {
        self.blocking_recv().expect("`None` comes before the end")
    }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = in_one_thread, in_two_threads
}
criterion_main!(benches);
