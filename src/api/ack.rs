//! Acks: answers to events, in both directions.

use super::args;
use super::handler::Incoming;
use super::socket::Socket;
use crate::proto::socketio;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The answer that a client may have asked for. Sent at most once; dropped, it is never sent.
#[must_use = "the client waits for its answer"]
pub struct Ack {
    socket: Socket,
    id: Option<u64>,
    /// Set by the first answer, where several handlers may give one.
    answered: Option<Arc<AtomicBool>>,
}

impl Ack {
    /// For a handler that answers itself.
    pub(crate) fn given(socket: &Socket, incoming: Incoming<'_>) -> Ack {
        Ack { socket: socket.clone(), id: incoming.ack_id, answered: incoming.answered.cloned() }
    }

    /// For what a handler returns: only the last handler's counts.
    pub(crate) fn returned(socket: &Socket, incoming: Incoming<'_>) -> Ack {
        Ack { id: incoming.ack_id.filter(|_| incoming.last), ..Ack::given(socket, incoming) }
    }

    /// Whether the client asked for an answer. If not, sending one does nothing.
    pub fn is_wanted(&self) -> bool {
        self.id.is_some()
    }

    /// Answers. A tuple is several arguments, `()` none; see [`args`](crate::args).
    ///
    /// # Errors
    ///
    /// [`EncodeError`](args::EncodeError) for what has no JSON form. An answer to a socket that has left goes nowhere, and
    /// so does a second answer to the same event.
    pub fn send<T: Serialize + ?Sized>(self, args: &T) -> Result<(), args::EncodeError> {
        let Some(id) = self.id else { return Ok(()) };
        let encoded = args::encode_ack(args)?;
        if self.answered.is_some_and(|answered| answered.swap(true, Ordering::Relaxed)) {
            return Ok(());
        }
        let packet = socketio::ack(self.socket.namespace(), id, &encoded.data, &encoded.attachments);
        let _ = self.socket.push(Arc::new(packet), false);
        Ok(())
    }
}

/// Why an ack did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckError {
    /// Not within the time given by [`Socket::timeout`].
    Timeout,
    /// The socket left first, or the server closed.
    Disconnected,
    /// It came, and is not of the expected type.
    Decode(args::DecodeError),
    /// The event itself could not be encoded, so nothing was sent.
    Encode(args::EncodeError),
}

impl std::fmt::Display for AckError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AckError::Timeout => f.write_str("operation has timed out"),
            AckError::Disconnected => f.write_str("socket has been disconnected"),
            AckError::Decode(error) => write!(f, "the ack cannot be read: {error}"),
            AckError::Encode(error) => write!(f, "the event cannot be sent: {error}"),
        }
    }
}

impl std::error::Error for AckError {}

/// What a worker learns of an ack.
pub(crate) enum Answer {
    Came { data: String, attachments: Vec<Bytes> },
    TimedOut,
}

/// The answer to an event that has been sent. Resolves to its first argument, or to a tuple of several.
#[must_use = "whoever does not want the answer calls `emit`"]
pub struct AckFuture<R> {
    state: State,
    reads: PhantomData<fn() -> R>,
}

enum State {
    Waiting(oneshot::Receiver<Answer>),
    /// Nothing was sent.
    Failed(Option<AckError>),
}

impl<R> AckFuture<R> {
    pub(crate) fn waiting(receiver: oneshot::Receiver<Answer>) -> AckFuture<R> {
        AckFuture { state: State::Waiting(receiver), reads: PhantomData }
    }

    pub(crate) fn failed(error: AckError) -> AckFuture<R> {
        AckFuture { state: State::Failed(Some(error)), reads: PhantomData }
    }
}

impl<R: DeserializeOwned> Future for AckFuture<R> {
    type Output = Result<R, AckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Failed(error) => Poll::Ready(Err(error.take().expect("polled once more after its end"))),
            State::Waiting(receiver) => Pin::new(receiver).poll(cx).map(|answer| match answer {
                Ok(Answer::Came { data, attachments }) => {
                    args::decode_ack(&data, &attachments).map_err(AckError::Decode)
                }
                Ok(Answer::TimedOut) => Err(AckError::Timeout),
                // The socket's end drops the sender, and so does the server's.
                Err(_) => Err(AckError::Disconnected),
            }),
        }
    }
}
