//! Handlers: functions of an embedder, in the shapes that people like to write, behind one type each.
//!
//! A handler runs on its socket's own thread. A sync one is done when it returns; an async one is polled once in place,
//! and if it waits, the rest runs on the worker's runtime. So handlers of one socket start in the order in which its
//! events arrived and may overlap, as in the reference.
//!
//! The marker parameter `M` of the traits only keeps their implementations apart; nobody names it.

use super::ack::Ack;
use super::args;
use super::namespace::ConnectError;
use super::socket::{Pressure, Socket};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

/// What a handler leaves to be done.
#[doc(hidden)]
pub type Rest<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a middleware has decided, or is going to.
#[doc(hidden)]
pub enum Step<T> {
    Ready(T),
    Pending(Rest<T>),
}

/// An event on its way to a handler.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Incoming<'e> {
    /// The whole JSON array, the name included.
    pub(crate) data: &'e str,
    pub(crate) attachments: &'e [Bytes],
    pub(crate) ack_id: Option<u64>,
    /// Set by the first answer, where several handlers may give one.
    pub(crate) answered: Option<&'e Arc<AtomicBool>>,
    /// Whether what this handler returns is the answer: that of the last one is.
    pub(crate) last: bool,
}

/// A function that handles an event. Implemented for functions of these shapes, sync or async:
///
/// | function | arguments |
/// |---|---|
/// | `Fn(Socket)` | none are read |
/// | `Fn(Socket, T)` | `T` is the first argument; a tuple takes several; see [`args`](crate::args) |
/// | `Fn(Socket, T, Ack)`, `Fn(Socket, Ack)` | the same, and the handler answers itself, or never |
///
/// An async closure that uses what it captured takes a copy for each call:
/// `move |socket: Socket| { let db = db.clone(); async move { … } }`.
///
/// Without an [`Ack`] parameter, what the function returns is the answer if the client asked for one: a tuple is several
/// arguments, `()` none. Where an event has several handlers, only what the last one returns is; and of several answers
/// the first one is sent.
pub trait EventHandler<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError>;
}

/// A function that is told of a socket: `Fn(Socket)`, sync or async.
pub trait SocketHandler<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, socket: Socket) -> Option<Rest<()>>;
}

/// A function that is told how a socket ended: `Fn(Socket, CloseReason)`, sync or async.
pub trait EndHandler<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, socket: Socket, reason: crate::CloseReason) -> Option<Rest<()>>;
}

/// A function that hears how far behind a client is: `Fn(Socket, Pressure)`, sync or async.
pub trait PressureHandler<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, socket: Socket, pressure: Pressure) -> Option<Rest<()>>;
}

/// A function that lets a socket in or not: `Fn(Socket) -> Result<(), ConnectError>`, sync or async.
pub trait Middleware<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, socket: Socket) -> Step<Result<(), ConnectError>>;
}

pub(crate) type AnyEventHandler =
    Arc<dyn Fn(Socket, Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> + Send + Sync>;
pub(crate) type AnyUnhandledHandler = Arc<dyn Fn(Socket, &str, args::Args, Ack) + Send + Sync>;
pub(crate) type AnySocketHandler = Arc<dyn Fn(Socket) -> Option<Rest<()>> + Send + Sync>;
pub(crate) type AnyEndHandler = Arc<dyn Fn(Socket, crate::CloseReason) -> Option<Rest<()>> + Send + Sync>;
pub(crate) type AnyPressureHandler = Arc<dyn Fn(Socket, Pressure) -> Option<Rest<()>> + Send + Sync>;
pub(crate) type AnyMiddleware = Arc<dyn Fn(Socket) -> Step<Result<(), ConnectError>> + Send + Sync>;

/// Marks the handlers that are done when they return.
#[doc(hidden)]
pub struct Now<T>(std::marker::PhantomData<T>);
/// Marks the handlers that return a future.
#[doc(hidden)]
pub struct Later<T>(std::marker::PhantomData<T>);

fn decoded<T: DeserializeOwned>(incoming: Incoming<'_>) -> Result<T, args::DecodeError> {
    args::decode_event(incoming.data, incoming.attachments)
}

/// Sends what a handler returned, if it was asked for.
fn answer<R: Serialize>(ack: Ack, reply: &R) {
    if let Err(error) = ack.send(reply) {
        tracing::warn!(%error, "what a handler returned cannot be sent as an answer");
    }
}

fn answer_later<Fut>(ack: Ack, future: Fut) -> Option<Rest<()>>
where
    Fut: Future<Output: Serialize> + 'static,
{
    Some(Box::pin(async move { answer(ack, &future.await) }))
}

impl<F, R> EventHandler<Now<(R,)>> for F
where
    F: Fn(Socket) -> R + Send + Sync + 'static,
    R: Serialize,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::returned(&socket, incoming);
        answer(ack, &self(socket));
        Ok(None)
    }
}

impl<F, T, R> EventHandler<Now<(T, R)>> for F
where
    F: Fn(Socket, T) -> R + Send + Sync + 'static,
    T: DeserializeOwned,
    R: Serialize,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::returned(&socket, incoming);
        answer(ack, &self(socket, decoded(incoming)?));
        Ok(None)
    }
}

impl<F> EventHandler<Now<(Ack,)>> for F
where
    F: Fn(Socket, Ack) + Send + Sync + 'static,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::given(&socket, incoming);
        self(socket, ack);
        Ok(None)
    }
}

impl<F, T> EventHandler<Now<(T, Ack)>> for F
where
    F: Fn(Socket, T, Ack) + Send + Sync + 'static,
    T: DeserializeOwned,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::given(&socket, incoming);
        self(socket, decoded(incoming)?, ack);
        Ok(None)
    }
}

impl<F, Fut> EventHandler<Later<(Fut,)>> for F
where
    F: Fn(Socket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Serialize> + 'static,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::returned(&socket, incoming);
        Ok(answer_later(ack, self(socket)))
    }
}

impl<F, T, Fut> EventHandler<Later<(T, Fut)>> for F
where
    F: Fn(Socket, T) -> Fut + Send + Sync + 'static,
    T: DeserializeOwned,
    Fut: Future<Output: Serialize> + 'static,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::returned(&socket, incoming);
        Ok(answer_later(ack, self(socket, decoded(incoming)?)))
    }
}

impl<F, Fut> EventHandler<Later<(Ack, Fut)>> for F
where
    F: Fn(Socket, Ack) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::given(&socket, incoming);
        Ok(Some(Box::pin(self(socket, ack))))
    }
}

impl<F, T, Fut> EventHandler<Later<(T, Ack, Fut)>> for F
where
    F: Fn(Socket, T, Ack) -> Fut + Send + Sync + 'static,
    T: DeserializeOwned,
    Fut: Future<Output = ()> + 'static,
{
    fn call(&self, socket: Socket, incoming: Incoming<'_>) -> Result<Option<Rest<()>>, args::DecodeError> {
        let ack = Ack::given(&socket, incoming);
        Ok(Some(Box::pin(self(socket, decoded(incoming)?, ack))))
    }
}

impl<F> SocketHandler<Now<()>> for F
where
    F: Fn(Socket) + Send + Sync + 'static,
{
    fn call(&self, socket: Socket) -> Option<Rest<()>> {
        self(socket);
        None
    }
}

impl<F, Fut> SocketHandler<Later<Fut>> for F
where
    F: Fn(Socket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    fn call(&self, socket: Socket) -> Option<Rest<()>> {
        Some(Box::pin(self(socket)))
    }
}

impl<F> EndHandler<Now<()>> for F
where
    F: Fn(Socket, crate::CloseReason) + Send + Sync + 'static,
{
    fn call(&self, socket: Socket, reason: crate::CloseReason) -> Option<Rest<()>> {
        self(socket, reason);
        None
    }
}

impl<F, Fut> EndHandler<Later<Fut>> for F
where
    F: Fn(Socket, crate::CloseReason) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    fn call(&self, socket: Socket, reason: crate::CloseReason) -> Option<Rest<()>> {
        Some(Box::pin(self(socket, reason)))
    }
}

impl<F> PressureHandler<Now<()>> for F
where
    F: Fn(Socket, Pressure) + Send + Sync + 'static,
{
    fn call(&self, socket: Socket, pressure: Pressure) -> Option<Rest<()>> {
        self(socket, pressure);
        None
    }
}

impl<F, Fut> PressureHandler<Later<Fut>> for F
where
    F: Fn(Socket, Pressure) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    fn call(&self, socket: Socket, pressure: Pressure) -> Option<Rest<()>> {
        Some(Box::pin(self(socket, pressure)))
    }
}

impl<F> Middleware<Now<()>> for F
where
    F: Fn(Socket) -> Result<(), ConnectError> + Send + Sync + 'static,
{
    fn call(&self, socket: Socket) -> Step<Result<(), ConnectError>> {
        Step::Ready(self(socket))
    }
}

impl<F, Fut> Middleware<Later<Fut>> for F
where
    F: Fn(Socket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ConnectError>> + 'static,
{
    fn call(&self, socket: Socket) -> Step<Result<(), ConnectError>> {
        Step::Pending(Box::pin(self(socket)))
    }
}

/// The embedder's code panicked. It has been caught and logged.
pub(crate) struct Panicked;

/// The one call site of an embedder's code: a panic in it is theirs and ends here.
pub(crate) fn guarded<R>(what: &str, call: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
        tracing::error!(handler = what, "a handler panicked, which costs its socket");
        Panicked
    })
}

/// Polls once; what waits is given to the worker's runtime, to end with `finish`.
pub(crate) fn run<T: 'static>(
    what: &'static str,
    mut rest: Rest<T>,
    finish: impl FnOnce(Result<T, Panicked>) + 'static,
) {
    let first = guarded(what, || rest.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    match first {
        Ok(Poll::Ready(value)) => finish(Ok(value)),
        Err(panicked) => finish(Err(panicked)),
        Ok(Poll::Pending) => {
            tokio::task::spawn_local(async move {
                let value = std::future::poll_fn(|cx| match guarded(what, || rest.as_mut().poll(cx)) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
                    Err(panicked) => Poll::Ready(Err(panicked)),
                });
                finish(value.await);
            });
        }
    }
}
