//! Exchanges: HTTP requests on this worker that wait for a shard's answer, here or elsewhere.
//!
//! Invariants: an exchange is in the table exactly as long as its [`Waiting`] lives.

use crate::proto::Id;
use crate::shard::mail::{Exchange, Reply};
use crate::shard::slack::Slack as _;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use tokio::sync::oneshot;

#[derive(Default)]
pub struct Exchanges {
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Reply>>>,
}

/// A request that waits. Dropped before its answer, it means that the client has gone.
pub struct Waiting<'e> {
    exchanges: &'e Exchanges,
    exchange: Exchange,
    sid: Id,
    reply: oneshot::Receiver<Reply>,
}

impl Exchanges {
    pub fn open(&self, worker: u16, sid: Id) -> Waiting<'_> {
        let number = self.next.get();
        self.next.set(number + 1);
        let (sender, reply) = oneshot::channel();
        self.waiting.borrow_mut().insert(number, sender);
        Waiting { exchanges: self, exchange: Exchange { worker, number }, sid, reply }
    }

    pub fn answer(&self, exchange: Exchange, reply: Reply) {
        if let Some(sender) = self.take(exchange) {
            // Refused only if the request is just being dropped, which is told to the session by itself.
            let _ = sender.send(reply);
        }
    }

    fn take(&self, exchange: Exchange) -> Option<oneshot::Sender<Reply>> {
        let mut waiting = self.waiting.borrow_mut();
        let sender = waiting.remove(&exchange.number);
        waiting.trim();
        sender
    }
}

impl Waiting<'_> {
    pub fn exchange(&self) -> Exchange {
        self.exchange
    }

    pub fn sid(&self) -> Id {
        self.sid
    }

    /// The answer. `None` when the worker ends.
    pub async fn reply(&mut self) -> Option<Reply> {
        (&mut self.reply).await.ok()
    }

    /// Whether the answer has not been given yet.
    pub fn is_open(&self) -> bool {
        self.exchanges.waiting.borrow().contains_key(&self.exchange.number)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.exchanges.take(self.exchange);
    }
}
