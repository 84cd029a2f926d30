//! Touched: the sign that somebody used the shard between two turns, so that one has to follow.
//!
//! A flag and a waker of one thread. What is touched during a turn is dealt with by that turn, so the turn clears the
//! sign at its end; a `Notify` of the runtime would remember it and cause an empty turn after each full one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

#[derive(Default)]
pub struct Touched {
    sign: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Touched {
    pub fn set(&self) {
        if !self.sign.replace(true)
            && let Some(waker) = self.waiting.borrow_mut().take()
        {
            waker.wake();
        }
    }

    pub fn clear(&self) {
        self.sign.set(false);
    }

    /// Waits until the sign is set. Only one waits at a time.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.sign.get() {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
