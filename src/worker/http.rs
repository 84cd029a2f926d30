//! HTTP: what is HTTP, and only while it is: handshakes, polling, upgrades, and an embedder's own routes. Most handshakes
//! of WebSockets do not come here (front_door.rs).
//!
//! A request of a session may arrive at any worker, also on a kept-alive connection that a proxy shares between clients:
//! nothing here belongs to a session, and a connection remembers nothing between two requests. The request is passed to
//! the shard named in its sid (`Worker::ask`), and the answer comes back.
//!
//! What requests say and who is let in is in handshake.rs; the statuses stand in error.rs.
//!
//! Limits: `handshake_timeout` for a request's head, `request_timeout` for its body, `payload_bytes_max` for its size,
//!         [`HEAD_BYTES_MAX`], and admission.rs for the number of connections.

use super::Worker;
use super::admission::Admitted;
use super::exchanges::Waiting;
use super::handshake::{Denial, Query};
use super::http_stream::{Bare, HttpStream, KeepBack};
use super::streams::NewStream;
use super::{forwarded, handshake, proxied};
use crate::error::Refusal;
use crate::proto::Id;
use crate::settings::{ProxyProtocol, Settings};
use crate::shard::drive::App;
use crate::shard::mail::{Reply, Request as Ask};
use crate::shard::session::Handshake;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioTimer;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpStream};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

/// Bytes that a connection may hold while a request's head is incomplete. Browsers with many cookies stay far below;
/// whoever sends more gets a 431.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// An answer's body: whole, as ours are, or whatever an embedder's service streams.
pub type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// What answers the paths that are not Engine.IO's.
#[derive(Clone)]
pub struct Routes(pub Arc<dyn Fn(Request<Incoming>) -> Responding + Send + Sync>);

/// An answer in the making. It stays on its worker's thread.
pub type Responding = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// The peer of the connection that carries a request; in the request's extensions for an embedder's service. With
/// [`ProxyProtocol::Required`](crate::ProxyProtocol::Required) it is the one whom the connection's header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Serves one connection until it ends or is a WebSocket. The stream does not block; `read` is what was read of it.
pub fn spawn<A: App + 'static>(
    worker: Rc<Worker<A>>,
    stream: TcpStream,
    peer: SocketAddr,
    admitted: Admitted,
    read: Vec<u8>,
) {
    let open = Open::new(Rc::clone(&worker));
    tokio::task::spawn_local(async move {
        let _open = open;
        let settings = Arc::clone(worker.shard.borrow().settings());
        let mut closing = worker.closing.subscribe();
        let keep_back = KeepBack::default();
        let stream = HttpStream::new(stream, read, keep_back.clone());
        let (stream, peer, admitted) = match settings.proxy_protocol {
            ProxyProtocol::Off => (stream, peer, admitted),
            // Boxed, so that its room is not taken in the task of every connection.
            ProxyProtocol::Required => match Box::pin(identify(&worker, &settings, stream, peer, admitted)).await {
                Some(identified) => identified,
                None => return,
            },
        };
        let (upgrade, admitted) = (RefCell::default(), RefCell::new(Some(admitted)));
        let connection = Connection { worker, peer, keep_back, upgrade, admitted };
        let connection = Rc::new(connection);
        // hyper is gone before the stream is asked for: if it did not give it out, it never will.
        {
            let service = service_fn(|request| {
                let connection = Rc::clone(&connection);
                async move { Ok::<_, Infallible>(connection.serve(request).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(settings.handshake_timeout)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(stream, service)
                .with_upgrades();
            let mut serving = pin!(serving);
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                _ = closing.wait_for(|closing| *closing) => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            // Other ends are of no interest here: a request that was broken off told its session.
            if ended.is_err_and(|error| error.is_parse()) {
                connection.count_broken_rule();
            }
        }
        connection.take_stream().await;
    });
}

/// Finds out whose connection it is, from its PROXY protocol header, and counts it for them. `None`: it is closed.
async fn identify<A: App + 'static>(
    worker: &Worker<A>,
    settings: &Settings,
    mut stream: HttpStream,
    peer: SocketAddr,
    mut admitted: Admitted,
) -> Option<(HttpStream, SocketAddr, Admitted)> {
    let mut closing = worker.closing.subscribe();
    let source = tokio::select! {
        source = proxied::read_source(&mut stream, peer, settings.handshake_timeout) => source,
        _ = closing.wait_for(|closing| *closing) => return None,
    };
    let source = match source {
        Ok(source) => source,
        Err(failure) => {
            worker.note_bad_proxy_header(peer, &failure);
            return None;
        }
    };
    // One that comes from a proxy in front of this one carries many clients, who are counted by their sessions.
    if !forwarded::is_trusted(source.ip(), &settings.trusted_proxies)
        && let Err(refusal) = worker.admission.count_for(&mut admitted, source.ip())
    {
        if let Ok(Bare { tcp, .. }) = stream.into_std() {
            worker.turn_away(&tcp, refusal);
        }
        return None;
    }
    Some((stream, source, admitted))
}

/// Counts an HTTP connection while it lasts.
struct Open<A>(Rc<Worker<A>>);

impl<A> Open<A> {
    fn new(worker: Rc<Worker<A>>) -> Open<A> {
        worker.http_connections.update(|open| open + 1);
        Open(worker)
    }
}

impl<A> Drop for Open<A> {
    fn drop(&mut self) {
        self.0.http_connections.update(|open| open - 1);
        self.0.touched.set();
    }
}

struct Connection<A> {
    worker: Rc<Worker<A>>,
    /// Who connected, or who did so by the word of a PROXY protocol header.
    peer: SocketAddr,
    /// Of the stream below hyper.
    keep_back: KeepBack,
    /// What the connection becomes when hyper is done with it.
    upgrade: RefCell<Option<Upgrade>>,
    /// Its place among the admitted connections, until a WebSocket takes it along.
    admitted: RefCell<Option<Admitted>>,
}

/// A WebSocket handshake that was accepted.
struct Upgrade {
    upgraded: OnUpgrade,
    becomes: Becomes,
}

/// What an accepted WebSocket becomes.
enum Becomes {
    /// A session of its own.
    Session(Handshake),
    /// The transport of a session that polls.
    TransportOf(Id),
}

impl<A: App + 'static> Connection<A> {
    async fn serve(self: Rc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let settings = Arc::clone(self.worker.shard.borrow().settings());
        if !handshake::is_ours(&settings, request.uri().path()) {
            request.extensions_mut().insert(PeerAddress(self.peer));
            return (self.worker.routes.0)(request).await;
        }
        let cors = settings.cors.as_ref().map(|cors| handshake::cors_headers(cors, &request)).unwrap_or_default();
        let preflight = settings.cors.is_some() && request.method() == Method::OPTIONS;
        let mut response = match (preflight, handshake::is_websocket(&settings, request.headers())) {
            (true, _) => with_status(StatusCode::NO_CONTENT),
            (_, true) => self.websocket(&settings, request).await,
            (_, false) => self.polling(&settings, request).await,
        };
        response.headers_mut().extend(cors);
        response
    }

    // ---- long-polling

    async fn polling(&self, settings: &Settings, request: Request<Incoming>) -> Response<Body> {
        let query = Query::of(&request);
        if !handshake::is_enabled(settings, &query.transport) {
            return self.refuse(Refusal::TransportUnknown);
        }
        match &query.sid {
            Some(sid) => match self.worker.known(sid) {
                Some(sid) => {
                    let matches = query.revision == "4" && query.transport == "polling";
                    self.exchange(settings, sid, matches, request).await
                }
                None => self.refuse(Refusal::UnknownSid),
            },
            None if request.method() != Method::GET => self.refuse(Refusal::BadHandshakeMethod),
            None if query.transport != "polling" => self.refuse(Refusal::BadRequest),
            None if query.revision != "4" => self.refuse(Refusal::UnsupportedProtocolVersion),
            None => self.open(settings, &request).unwrap_or_else(|refusal| self.refuse(refusal)),
        }
    }

    fn open(&self, settings: &Settings, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let handshake = handshake::kept(settings, self.peer, request);
        self.worker.shard.borrow().admit()?;
        let admission = &self.worker.admission;
        let is_proxy = handshake::is_proxy(settings, self.peer);
        let place = if is_proxy { admission.admit_client(handshake.address().ip())? } else { None };
        admission.admit_handshake(self.worker.started.elapsed())?;
        let (key, payload) = self.worker.shard_now().open_polling(handshake)?;
        if let Some(place) = place {
            self.worker.hold_place(key, place);
        }
        self.worker.hear_out();
        let mut response = payload_response(payload);
        if let Some(cookie) = &settings.cookie
            && let Some(session) = self.worker.shard.borrow().session(key)
        {
            let cookie = format!("{cookie}={}; Path=/; HttpOnly; SameSite=Lax", session.id);
            response.headers_mut().insert(header::SET_COOKIE, handshake::header_value(cookie));
        }
        Ok(response)
    }

    async fn exchange(
        &self,
        settings: &Settings,
        sid: Id,
        matches: bool,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let ask = match *request.method() {
            _ if !matches => Ask::Mismatch,
            Method::GET => Ask::Poll,
            Method::POST if is_binary(request.headers()) => Ask::PushBinary,
            Method::POST => match self.body(settings, request).await {
                Ok(body) => Ask::Push(body),
                Err(status) => {
                    self.count_broken_rule();
                    return with_status(status);
                }
            },
            _ => Ask::Other,
        };
        let mut held = Held { worker: &self.worker, waiting: self.worker.ask(sid, ask) };
        match held.waiting.reply().await {
            Some(Reply::Payload(payload)) => payload_response(payload),
            Some(Reply::Done) => done_response(),
            Some(Reply::Broken) => with_status(StatusCode::BAD_REQUEST),
            Some(Reply::MethodUnknown) => {
                self.count_broken_rule();
                with_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Some(Reply::Refused(refusal)) => self.refusal_response(refusal),
            Some(Reply::Accepted) => unreachable!("only an upgrade is accepted"),
            None => self.refuse(Refusal::ShuttingDown),
        }
    }

    /// The whole body, or the status that says why not. Its session goes on in any case.
    async fn body(&self, settings: &Settings, request: Request<Incoming>) -> Result<Bytes, StatusCode> {
        let body = Limited::new(request.into_body(), settings.payload_bytes_max).collect();
        match tokio::time::timeout(settings.request_timeout, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        }
    }

    // ---- WebSocket

    async fn websocket(&self, settings: &Settings, mut request: Request<Incoming>) -> Response<Body> {
        let wanted = match self.worker.session_wanted(settings, &request) {
            Ok(None) => self.begin(settings, &request),
            Ok(Some(sid)) => self.take_over(sid, &request).await,
            Err(refusal) => Err(refusal.into()),
        };
        let (becomes, accept) = match wanted {
            Ok(accepted) => accepted,
            Err(denial) => return self.denied(denial),
        };
        // Where hyper could end the connection with the 101 instead of upgrading it, the 101 must not wait.
        let upgrades_at_once = request.version() == Version::HTTP_11 && request.body().is_end_stream();
        if matches!(becomes, Becomes::Session(_)) && upgrades_at_once {
            self.keep_back.set();
        }
        let mut response = with_status(StatusCode::SWITCHING_PROTOCOLS);
        response.headers_mut().extend(handshake::switching_headers(accept, request.headers()));
        let upgraded = hyper::upgrade::on(&mut request);
        *self.upgrade.borrow_mut() = Some(Upgrade { upgraded, becomes });
        response
    }

    fn begin(&self, settings: &Settings, request: &Request<Incoming>) -> Result<(Becomes, String), Denial> {
        let mut admitted = self.admitted.borrow_mut();
        let place = admitted.as_mut().expect("it is here until the upgrade");
        let (handshake, accept) = self.worker.let_in(settings, self.peer, request, place)?;
        Ok((Becomes::Session(handshake), accept))
    }

    async fn take_over(&self, sid: Id, request: &Request<Incoming>) -> Result<(Becomes, String), Denial> {
        let mut waiting = self.worker.ask(sid, Ask::Upgrade);
        match waiting.reply().await {
            Some(Reply::Accepted) => Ok((Becomes::TransportOf(sid), handshake::accept_key(request.headers())?)),
            Some(Reply::Refused(refusal)) => Err(Denial::RefusedByShard(refusal)),
            _ => Err(Refusal::ShuttingDown.into()),
        }
    }

    /// Takes the bare stream out of HTTP, if it is a WebSocket now. Nothing of the task or of hyper's buffers remains.
    async fn take_stream(&self) {
        let Some(Upgrade { upgraded, becomes }) = self.upgrade.take() else { return };
        let Ok(upgraded) = upgraded.await else { return };
        let parts = upgraded.downcast::<HttpStream>().expect("every connection is served on an HttpStream");
        let Ok(Bare { tcp, ahead, kept }) = parts.io.into_std() else { return };
        let admitted = self.admitted.borrow_mut().take().expect("a connection is upgraded once");
        let stream = NewStream { tcp, read: [&parts.read_buf[..], &ahead].concat(), admitted };
        match becomes {
            Becomes::TransportOf(sid) => self.worker.attach_upgrade(sid, stream),
            Becomes::Session(handshake) => self.worker.attach(handshake, stream, kept),
        }
    }

    // ---- both

    fn count(&self, refusal: Refusal) {
        if !self.worker.admission.note_refusal(refusal) {
            self.count_broken_rule();
        }
    }

    fn count_broken_rule(&self) {
        self.worker.shard.borrow_mut().counters.refused += 1;
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        self.count(refusal);
        self.refusal_response(refusal)
    }

    fn denied(&self, denial: Denial) -> Response<Body> {
        let refusal = match denial {
            Denial::Refused(refusal) => {
                self.count(refusal);
                refusal
            }
            Denial::RefusedByShard(refusal) => refusal,
            Denial::BadKey => {
                self.count_broken_rule();
                return bad_upgrade("Missing or invalid Sec-WebSocket-Key header");
            }
            Denial::BadVersion => {
                self.count_broken_rule();
                let mut response = bad_upgrade("Missing or invalid Sec-WebSocket-Version header");
                response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13, 8"));
                return response;
            }
        };
        let (_, message, status) = refusal.wire();
        let mut response = bad_upgrade(message);
        *response.status_mut() = StatusCode::from_u16(status).expect("the table holds valid statuses");
        self.say_when_to_retry(response)
    }

    fn refusal_response(&self, refusal: Refusal) -> Response<Body> {
        let (code, message, status) = refusal.wire();
        let status = StatusCode::from_u16(status).expect("the table holds valid statuses");
        let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
        let mut response = self.say_when_to_retry(typed(status, "application/json", body.into()));
        if refusal == Refusal::ShuttingDown {
            // The next try shall find another node.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// To those who did nothing wrong but come at the wrong time.
    fn say_when_to_retry(&self, mut response: Response<Body>) -> Response<Body> {
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = HeaderValue::from(u16::from(self.worker.retry_after()));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// A request that waits for its session. Dropped unanswered, it tells the session that its client has gone.
struct Held<'w, A: App + 'static> {
    worker: &'w Worker<A>,
    waiting: Waiting<'w>,
}

impl<A: App + 'static> Drop for Held<'_, A> {
    fn drop(&mut self) {
        if self.waiting.is_open() {
            self.worker.abandon(&self.waiting);
        }
    }
}

// ---- what requests say

fn is_binary(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/octet-stream")
}

// ---- what answers say

fn with_status(status: StatusCode) -> Response<Body> {
    respond(status, Bytes::new())
}

/// A response with a whole body.
pub fn respond(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = respond(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn not_stored(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn payload_response(payload: Bytes) -> Response<Body> {
    not_stored(typed(StatusCode::OK, "text/plain; charset=UTF-8", payload))
}

fn done_response() -> Response<Body> {
    not_stored(typed(StatusCode::OK, "text/html", Bytes::from_static(b"ok")))
}

/// A refused WebSocket handshake is told why in plain text, and its connection closes.
fn bad_upgrade(why: &'static str) -> Response<Body> {
    let mut response = typed(StatusCode::BAD_REQUEST, "text/html", Bytes::from_static(why.as_bytes()));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
