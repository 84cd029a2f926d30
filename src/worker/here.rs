//! Here: how code on a worker's thread reaches that worker.
//!
//! Handles act on the shard at once when they are used on its own thread, and post a call when they are not. What this
//! thread is, if it is a worker's, stands in one thread-local.

use super::mailbox::{self, Closed, Mailbox, Post};
use super::touched::Touched;
use crate::shard::{Millis, Shard};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

struct Here {
    server: Arc<[Mailbox]>,
    shard: Rc<RefCell<Shard>>,
    started: Instant,
    outgoing: Rc<RefCell<VecDeque<(u16, Post)>>>,
    /// Wakes the turn, when the shard was touched outside of one.
    touched: Rc<Touched>,
}

pub(super) fn settle_in(
    server: Arc<[Mailbox]>,
    shard: Rc<RefCell<Shard>>,
    started: Instant,
    outgoing: Rc<RefCell<VecDeque<(u16, Post)>>>,
    touched: Rc<Touched>,
) {
    HERE.set(Some(Here { server, shard, started, outgoing, touched }));
}

pub(super) fn move_out() {
    HERE.set(None);
}

/// Runs `act` on the shard of this thread, if this is a worker's thread of that server. Not to be nested.
pub fn with_shard<R>(server: &Arc<[Mailbox]>, act: impl FnOnce(&mut Shard) -> R) -> Option<R> {
    HERE.with_borrow(|here| {
        let here = here.as_ref().filter(|here| Arc::ptr_eq(&here.server, server))?;
        let mut shard = here.shard.borrow_mut();
        shard.tell_time(here.started.elapsed().as_millis() as Millis);
        let result = act(&mut shard);
        here.touched.set();
        Some(result)
    })
}

/// The number of this thread's shard, if this is a worker's thread of that server.
pub fn shard_number(server: &Arc<[Mailbox]>) -> Option<u16> {
    HERE.with_borrow(|here| {
        let here = here.as_ref().filter(|here| Arc::ptr_eq(&here.server, server))?;
        Some(here.shard.borrow().number())
    })
}

/// Has `call` run on the thread of a worker, soon, after what was given to it from here before.
pub fn call_on(server: &Arc<[Mailbox]>, worker: u16, call: impl FnOnce() + Send + 'static) -> Result<(), Closed> {
    self::post(server, worker, Post::Call(Box::new(call)))
}

/// Gives a post to a worker, after what was given to it from here before.
pub fn post(server: &Arc<[Mailbox]>, worker: u16, post: Post) -> Result<(), Closed> {
    let post = HERE.with_borrow(|here| match here.as_ref().filter(|here| Arc::ptr_eq(&here.server, server)) {
        // A worker never waits for another one's mailbox: the post goes out with this turn's mail.
        Some(here) => {
            let mut outgoing = here.outgoing.borrow_mut();
            // What a handler emitted before leaves before.
            mailbox::collect(&mut here.shard.borrow_mut(), &mut outgoing);
            outgoing.push_back((worker, post));
            here.touched.set();
            None
        }
        None => Some(post),
    });
    post.map_or(Ok(()), |post| server[usize::from(worker)].post(post))
}
