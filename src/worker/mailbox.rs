//! Mailbox: where workers meet, and where other threads reach them.
//!
//! A bounded queue behind one wake-up flag: whoever posts into a sleeping worker's mailbox wakes it, everybody else only
//! posts. A worker posts once a turn: one batch of mail for each other worker, or several with calls between them, so
//! that all of it keeps its order.
//!
//! In this layer only the counts of admission are shared besides (admission.rs). What handles share, the handlers of
//! namespaces and the values kept with a socket, is in the API.
//!
//! Limits: [`MAILBOX_POSTS_MAX`]. A full mailbox never blocks a worker: what it wanted to post waits with it, and it stops
//!         reading its own connections until the mailbox has room, so that the pressure reaches TCP and not memory.

use super::admission::Admitted;
use super::passage::{Arrivals, Passage, Passenger};
use super::streams::NewStream;
use crate::proto::Id;
use crate::shard::Shard;
use crate::shard::mail::Mail;
use crossbeam_queue::ArrayQueue;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Posts that wait for one worker. A post is a turn's mail of one worker, or one call.
pub const MAILBOX_POSTS_MAX: usize = 4096;

pub struct Mailbox {
    posts: ArrayQueue<Post>,
    /// Whether the owner knows, or will soon look.
    alerted: AtomicBool,
    /// Whether the owner has nothing left and only stays for the others, who may still ask it for something.
    finished: AtomicBool,
    closed: AtomicBool,
    waker: mio::Waker,
    /// The way for streams, if the owner has a descriptor table of its own.
    passage: Option<Passage>,
}

/// Puts the mail of a shard behind what is going out already: one batch for each other worker, in order.
pub fn collect(shard: &mut Shard, outgoing: &mut VecDeque<(u16, Post)>) {
    let mut batches: Vec<(u16, Vec<Mail>)> = Vec::new();
    for (to, mail) in shard.take_mail() {
        match batches.iter_mut().find(|(other, _)| *other == to) {
            Some((_, batch)) => batch.push(mail),
            None => batches.push((to, vec![mail])),
        }
    }
    outgoing.extend(batches.into_iter().map(|(to, batch)| (to, Post::Mail(batch))));
}

/// For a worker that closes, when it has nothing left. The last one wakes the others, who have waited for it.
pub fn finish(mailboxes: &[Mailbox], worker: u16) {
    let was_finished = mailboxes[usize::from(worker)].finished.swap(true, Ordering::SeqCst);
    if !was_finished && all_finished(mailboxes) {
        mailboxes.iter().for_each(Mailbox::alert);
    }
}

/// Whether no worker has anything left, so that none needs another one.
pub fn all_finished(mailboxes: &[Mailbox]) -> bool {
    mailboxes.iter().all(|mailbox| mailbox.finished.load(Ordering::SeqCst))
}

/// For a worker, at its end: nobody will look any more, and nobody has to wait for it.
pub fn close(mailboxes: &[Mailbox], worker: u16) {
    mailboxes[usize::from(worker)].close();
    finish(mailboxes, worker);
}

/// What one thread gives to a worker.
pub enum Post {
    /// Mail between shards, in order.
    Mail(Vec<Mail>),
    /// A WebSocket that was accepted elsewhere for a session of this worker.
    Adopt(Adoption),
    /// Work for the worker's thread: how handles act on sockets that live there.
    Call(Box<dyn FnOnce() + Send>),
    /// Take nobody in, let everybody go over this time, end.
    Drain(Duration),
    /// A worker has let its last session go, so it needs nothing more of the others.
    Drained,
    /// Take nobody in, close everybody, end.
    ShutDown,
}

/// The worker has ended.
#[derive(Clone, Copy, Debug)]
pub struct Closed;

/// A stream on its way to the worker that owns its session.
pub struct Adoption {
    sid: Id,
    tcp: Passenger,
    read: Vec<u8>,
    admitted: Admitted,
}

impl Adoption {
    pub fn new(sid: Id, stream: NewStream) -> Adoption {
        let NewStream { tcp, read, admitted } = stream;
        Adoption { sid, tcp: Passenger::Here(tcp), read, admitted }
    }
}

impl Mailbox {
    pub fn new(waker: mio::Waker, passage: Option<Passage>) -> Mailbox {
        Mailbox {
            posts: ArrayQueue::new(MAILBOX_POSTS_MAX),
            alerted: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waker,
            passage,
        }
    }

    /// Posts without waiting; a full mailbox gives the post back.
    pub fn try_post(&self, mut post: Post) -> Result<(), Post> {
        if let (Post::Adopt(adoption), Some(passage)) = (&mut post, &self.passage)
            && !passage.send(&mut adoption.tcp)
        {
            return Err(post);
        }
        self.posts.push(post)?;
        if self.closed.load(Ordering::SeqCst) {
            self.empty(); // the owner has looked for the last time, perhaps just before this came
        }
        self.alert();
        Ok(())
    }

    /// Posts from a thread that is no worker, and so may wait for room.
    pub fn post(&self, mut post: Post) -> Result<(), Closed> {
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(Closed);
            }
            match self.try_post(post) {
                Ok(()) => return Ok(()),
                Err(back) => post = back,
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// What waits is dropped, so that whoever waits for an answer learns of it.
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.empty();
    }

    fn empty(&self) {
        while self.posts.pop().is_some() {}
        self.passage.iter().for_each(Passage::empty);
    }

    /// For the owner: takes one post.
    pub fn take(&self) -> Option<Post> {
        self.posts.pop()
    }

    /// For the owner: the stream of an adoption that it took, if it arrived.
    pub fn receive(&self, adoption: Adoption, arrivals: &mut Arrivals) -> Option<(Id, NewStream)> {
        let Adoption { sid, tcp, read, admitted } = adoption;
        let tcp = arrivals.take(self.passage.as_ref(), tcp)?;
        Some((sid, NewStream { tcp, read, admitted }))
    }

    /// For the owner, before it takes: from now on a post alerts again.
    pub fn listen(&self) {
        self.alerted.store(false, Ordering::SeqCst);
    }

    fn alert(&self) {
        if !self.alerted.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a worker could not be woken");
        }
    }
}
