//! Site: the program's own routes, beside the endpoint.
//!
//! | route               | answer                                                                     |
//! |---------------------|----------------------------------------------------------------------------|
//! | `GET /`             | the page                                                                   |
//! | `GET /api/stats`    | what the server holds and has done (stats.rs)                              |
//! | `POST /api/publish` | `{"sockets":12}`; for a batch `{"sockets":[12,0]}` (publish.rs)             |
//! | `GET /healthz`      | 200 as long as the process answers: a supervisor need not restart it       |
//! | `GET /readyz`       | 200 while it takes clients, 503 once it drains: a balancer looks elsewhere  |
//! | `GET <path>/NAME`   | the official client (bundles.rs)                                           |
//!
//! Whatever is refused is refused with `{"error":"…"}`. HEAD is answered wherever GET is.

use super::asset::Asset;
use super::bundles::{Bundles, digest};
use super::clients::Permissions;
use super::config::{Config, Limits};
use super::gate::{self, Gate};
use super::guard;
use super::keys::{self, Begun, Key, Keys, Ticket};
use super::publish::{self, Event, Publication, Refusal};
use super::stats;
use crate::CountFuture;
use crate::EmitError;
use crate::Io;
use crate::Namespace;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("page.html");
/// Where the page looks for the endpoint.
const PAGE_ENDPOINT: &str = "/socket.io/?";
/// Says that an answer was given before; not in the draft, but what publishers know from others.
const REPLAYED: &str = "idempotent-replayed";
/// Publishers that are refused together come back within so many seconds of each other.
const RETRY_SPREAD_SECS: u64 = 4;

/// What the routes share.
pub struct Shared {
    pub io: Io,
    pub started: Instant,
    pub bundles: Bundles,
    /// Whether the server takes nobody in any more.
    pub closing: AtomicBool,
    pub gate: Arc<Gate>,
    pub keys: Arc<Keys>,
    pub permissions: Arc<Permissions>,
    /// How often the configuration was reread, and how often it stayed as it was because of a mistake.
    pub reloads: AtomicU64,
    pub reloads_failed: AtomicU64,
    /// In effect; replaced by a reload.
    config: RwLock<Arc<Config>>,
    namespaces: BTreeMap<String, Namespace>,
    workers: AtomicUsize,
    workers_on_uring: AtomicUsize,
    path: String,
    page: Asset,
    page_policy: HeaderValue,
}

impl Shared {
    pub fn new(config: Config, io: &Io, bundles: Bundles, permissions: Arc<Permissions>) -> Shared {
        let slash = if config.engine.add_trailing_slash { "/" } else { "" };
        let page = PAGE.replace(PAGE_ENDPOINT, &format!("{}{slash}?", config.server.path));
        let started = Instant::now();
        Shared {
            io: io.clone(),
            started,
            namespaces: config.namespaces.keys().map(|name| (name.clone(), io.of(name))).collect(),
            bundles,
            closing: AtomicBool::new(false),
            permissions,
            gate: Gate::new(publishing(&config.limits), started),
            keys: Keys::new(config.limits.idempotency_time, config.limits.idempotency_keys_max),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            workers: AtomicUsize::new(0),
            workers_on_uring: AtomicUsize::new(0),
            path: config.server.path.clone(),
            page_policy: page_policy(&page),
            page: Asset::new(page.clone().into(), &digest(page.as_bytes()), "text/html; charset=utf-8", "no-cache"),
            config: RwLock::new(Arc::new(config)),
        }
    }

    /// The configuration in effect.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().expect("nothing panics while it holds this lock"))
    }

    /// From now on this one is in effect, for clients too.
    pub fn set_config(&self, config: Config) {
        self.permissions.grant(&config, &self.io);
        self.gate.set_limits(publishing(&config.limits), Instant::now());
        self.keys.set_limits(config.limits.idempotency_time, config.limits.idempotency_keys_max);
        *self.config.write().expect("nothing panics while it holds this lock") = Arc::new(config);
    }

    /// How many workers there are; known once the server listens.
    pub fn workers(&self) -> usize {
        self.workers.load(Ordering::Relaxed)
    }

    /// How many of them send through io_uring.
    pub fn workers_on_uring(&self) -> usize {
        self.workers_on_uring.load(Ordering::Relaxed)
    }

    pub fn set_workers(&self, workers: usize, on_uring: usize) {
        self.workers.store(workers, Ordering::Relaxed);
        self.workers_on_uring.store(on_uring, Ordering::Relaxed);
    }
}

/// The routes as a `tower` service.
#[derive(Clone)]
pub struct Site(pub Arc<Shared>);

type Answer = Response<Full<Bytes>>;

impl tower_service::Service<Request<Incoming>> for Site {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { Ok(shared.answer(request).await) })
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let gets = *request.method() == Method::GET || *request.method() == Method::HEAD;
        let posts = *request.method() == Method::POST;
        match path {
            "/api/publish" if posts => self.publish(request).await.unwrap_or_else(|refusal| refused(&refusal)),
            "/api/publish" => not_allowed("POST"),
            "/" if gets => self.page(request.headers()),
            "/api/stats" if gets => self.stats().await,
            "/healthz" if gets => json_answer(StatusCode::OK, json_text(&json!({ "status": "ok" }))),
            "/readyz" if gets => self.readiness(),
            "/" | "/api/stats" | "/healthz" | "/readyz" => not_allowed("GET, HEAD"),
            _ => match self.bundle(path) {
                Some(bundle) if gets => bundle.respond(request.headers()),
                Some(_) => not_allowed("GET, HEAD"),
                None => error_answer(StatusCode::NOT_FOUND, &format!("nothing is served at {path}")),
            },
        }
    }

    fn bundle(&self, path: &str) -> Option<&Asset> {
        self.bundles.get(path.strip_prefix(&self.path)?.strip_prefix('/')?)
    }

    fn page(&self, headers: &HeaderMap) -> Answer {
        let mut answer = self.page.respond(headers);
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.page_policy.clone());
        answer.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }

    fn readiness(&self) -> Answer {
        match self.closing.load(Ordering::Relaxed) {
            true => json_answer(StatusCode::SERVICE_UNAVAILABLE, json_text(&json!({ "status": "closing" }))),
            false => json_answer(StatusCode::OK, json_text(&json!({ "status": "ready" }))),
        }
    }

    async fn stats(&self) -> Answer {
        match self.io.stats().await {
            Ok(stats) => json_answer(StatusCode::OK, json_text(&stats::report(self, &stats))),
            Err(_) => refused(&Refusal::Closing),
        }
    }

    // ---- publishing

    async fn publish(self: &Arc<Self>, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let config = self.config();
        guard::check(config.server.publish_key.as_ref(), request.headers())?;
        let key = keys::key(request.headers())?;
        let place = self.gate.enter(body_bytes(request.body(), &config.limits)?)?;
        let body = body(request, &config.limits).await?;
        self.publish_body(key, &body, place).await
    }

    /// What is refused has sent nothing; what has been sent is seen to its end, whether or not its publisher waits for it:
    /// it keeps its place until then, and its answer is there for whoever asks again.
    async fn publish_body(
        self: &Arc<Self>,
        key: Option<Key>,
        body: &[u8],
        mut place: gate::Place,
    ) -> Result<Answer, Refusal> {
        place.shrink_to(body.len());
        let ticket = match key.map(|key| self.keys.begin(key, body, Instant::now())).transpose()? {
            Some(Begun::Before(answer)) => return Ok(replayed(answer)),
            Some(Begun::Anew(ticket)) => Some(ticket),
            None => None,
        };
        let batch_max = self.config().limits.publish_batch_max;
        let Publication { events, is_batch } = publish::read(body, batch_max, self.namespaces.keys())?;
        place.admit(events.len(), Instant::now())?;
        // All are on their way, in their order, before the first count is awaited.
        let counts: Result<Vec<_>, _> = events.iter().map(|event| self.emit(event)).collect();
        let counts = counts.map_err(|_| Refusal::Closing)?;
        let answered = tokio::task::spawn_local(see_to_end(counts, is_batch, ticket, place));
        Ok(json_answer(StatusCode::OK, answered.await.map_err(|_| Refusal::Closing)??))
    }

    /// The event has passed every check, so only a server that has closed refuses.
    fn emit(&self, event: &Event) -> Result<CountFuture, EmitError> {
        let everyone = self.namespaces[&event.namespace].everyone();
        let target = everyone.to(&event.rooms).except(&event.except);
        let target = if event.volatile { target.volatile() } else { target };
        let target = match &event.conflate {
            Some(key) => target.conflate(key),
            None => target,
        };
        target.emit_and_count(&event.event, &event.args)
    }
}

/// What may be under way.
fn publishing(limits: &Limits) -> gate::Limits {
    gate::Limits {
        events_max: limits.publishes_pending_max,
        bytes_max: limits.publishes_pending_bytes_max,
        per_second_max: limits.publishes_per_second_max,
    }
}

/// How large a body will be at most.
fn body_bytes(body: &Incoming, limits: &Limits) -> Result<usize, Refusal> {
    let bytes_max = limits.publish_bytes_max;
    let announced = body.size_hint();
    if announced.lower() > bytes_max as u64 {
        return Err(Refusal::BodyTooLarge { bytes_max });
    }
    Ok(announced.exact().map_or(bytes_max, |bytes| bytes as usize))
}

/// The whole body of a publisher.
async fn body(request: Request<Incoming>, limits: &Limits) -> Result<Bytes, Refusal> {
    let bytes_max = limits.publish_bytes_max;
    match tokio::time::timeout(limits.request_timeout, Limited::new(request.into_body(), bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge { bytes_max }),
        Ok(Err(_)) => Err(Refusal::BodyBroken),
        Err(_) => Err(Refusal::BodyTooSlow),
    }
}

/// Waits until every worker has reported what was sent, and keeps the answer if somebody may ask for it again.
async fn see_to_end(
    counts: Vec<CountFuture>,
    is_batch: bool,
    ticket: Option<Ticket>,
    place: gate::Place,
) -> Result<Bytes, Refusal> {
    let mut all = Vec::with_capacity(counts.len());
    for count in counts {
        all.push(count.await.map_err(|_| Refusal::Closing)?);
    }
    drop(place);
    let answer = json_text(&publish::report(&all, is_batch));
    if let Some(ticket) = ticket {
        // A copy takes no more than its bytes; the text was given room to grow.
        ticket.finish(Bytes::copy_from_slice(&answer), Instant::now());
    }
    Ok(answer)
}

/// What the page may do: run its own script, and talk to its own server. A script that got into it in any other way
/// does not have this hash.
fn page_policy(page: &str) -> HeaderValue {
    let script = page.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>"));
    let (script, _) = script.expect("the page has a script");
    let hash = BASE64.encode(Sha256::digest(script));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("a policy is visible ASCII")
}

// ---- answers

fn json_text(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("answers have a JSON form").into()
}

fn json_answer(status: StatusCode, text: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The answer that the first request with the same key got.
fn replayed(text: Bytes) -> Answer {
    let mut answer = json_answer(StatusCode::OK, text);
    answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    answer
}

fn error_answer(status: StatusCode, error: &str) -> Answer {
    json_answer(status, json_text(&json!({ "error": error })))
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = error_answer(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {allowed}"));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    let mut answer = error_answer(status(refusal), &refusal.to_string());
    if let Some(wait) = refusal.retry_after() {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, retry_after(wait, rand::random_range(..=RETRY_SPREAD_SECS)).into());
    }
    let challenge = match refusal {
        Refusal::KeyMissing => "Bearer realm=\"fanfare\"",
        Refusal::KeyWrong => "Bearer realm=\"fanfare\", error=\"invalid_token\"",
        _ => return answer,
    };
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

/// Whole seconds, and not the same ones for all who are refused together.
fn retry_after(wait: Duration, spread_secs: u64) -> u64 {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    secs.max(1) + spread_secs
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::KeyMissing | Refusal::KeyWrong => StatusCode::UNAUTHORIZED,
        Refusal::ForeignOrigin { .. } | Refusal::ForeignHost { .. } => StatusCode::FORBIDDEN,
        Refusal::BodyTooLarge { .. } | Refusal::BatchTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        Refusal::UnknownNamespace { .. } => StatusCode::NOT_FOUND,
        Refusal::UnderWay => StatusCode::CONFLICT,
        Refusal::AnotherBody { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::TooManyPerSecond { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::EventsPending { .. } | Refusal::BytesPending { .. } | Refusal::Closing => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Refusal::BodyBroken | Refusal::NotUtf8 | Refusal::NotJson { .. } | Refusal::NoEvent => StatusCode::BAD_REQUEST,
        Refusal::Field { .. } | Refusal::IdempotencyKey { .. } => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Server;
    use crate::Settings;
    use std::sync::mpsc::{Sender, channel};

    /// A server of two workers, of which the second does nothing until something is sent.
    fn with_a_busy_worker(io: &Io, publishes_pending_max: usize) -> (Arc<Shared>, Server, Sender<()>) {
        let mut config = Config::default();
        config.limits.publishes_pending_max = publishes_pending_max;
        let permissions = Permissions::new(&config, io);
        let shared = Arc::new(Shared::new(config, io, Bundles::default(), permissions));
        let server = io.listen("127.0.0.1:0").unwrap();
        let ((is_busy, begun), (free, freed)) = (channel(), channel());
        io.call_on(1, move || {
            is_busy.send(()).unwrap();
            let _ = freed.recv();
        })
        .unwrap();
        begun.recv().unwrap();
        (shared, server, free)
    }

    async fn publish(shared: Arc<Shared>, key: Option<&str>, body: &str) -> Result<(StatusCode, String), Refusal> {
        let place = shared.gate.enter(body.len())?;
        let answer = shared.publish_body(key.map(Key::from), body.as_bytes(), place).await?;
        let (head, body) = answer.into_parts();
        let Ok(body) = body.collect().await;
        Ok((head.status, String::from_utf8(body.to_bytes().to_vec()).unwrap()))
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    const TWO: &str = r#"[{"event":"a"},{"event":"b"}]"#;
    const ONE: &str = r#"{"event":"c"}"#;

    #[test]
    fn while_a_worker_does_not_report_publications_are_refused_and_nothing_of_them_is_sent() {
        let io = Io::with_settings(Settings { workers: 2, pin: false, ..Settings::default() });
        let (shared, server, free) = with_a_busy_worker(&io, 3);
        run(async {
            let first = tokio::task::spawn_local(publish(Arc::clone(&shared), None, TWO));
            tokio::task::yield_now().await;
            assert_eq!(shared.gate.pending(), (2, TWO.len()));
            for _ in 0..3 {
                let refused = publish(Arc::clone(&shared), None, TWO).await;
                assert_eq!(refused, Err(Refusal::EventsPending { events: 2, events_max: 3 }));
            }
            free.send(()).unwrap();
            assert_eq!(first.await.unwrap(), Ok((StatusCode::OK, r#"{"sockets":[0,0]}"#.into())));
            assert_eq!(shared.gate.pending(), (0, 0));
            assert!(publish(Arc::clone(&shared), None, ONE).await.is_ok());
            assert_eq!(io.stats().await.unwrap().broadcasts, 3);
        });
        server.close();
    }

    #[test]
    fn a_body_that_has_arrived_counts_its_own_bytes_whatever_room_was_kept_for_it() {
        let io = Io::with_settings(Settings { workers: 2, pin: false, ..Settings::default() });
        let (shared, server, free) = with_a_busy_worker(&io, 3);
        run(async {
            let place = shared.gate.enter(1_000_000).unwrap();
            let publisher = Arc::clone(&shared);
            let answer =
                tokio::task::spawn_local(async move { publisher.publish_body(None, TWO.as_bytes(), place).await });
            tokio::task::yield_now().await;
            assert_eq!(shared.gate.pending(), (2, TWO.len()));
            free.send(()).unwrap();
            assert!(answer.await.unwrap().is_ok());
            assert_eq!(shared.gate.pending(), (0, 0));
        });
        server.close();
    }

    #[test]
    fn a_publication_whose_publisher_has_gone_keeps_its_place_and_its_answer() {
        let io = Io::with_settings(Settings { workers: 2, pin: false, ..Settings::default() });
        let (shared, server, free) = with_a_busy_worker(&io, 3);
        run(async {
            let first = tokio::task::spawn_local(publish(Arc::clone(&shared), Some("key"), TWO));
            tokio::task::yield_now().await;
            first.abort();
            assert!(first.await.unwrap_err().is_cancelled());
            assert_eq!(shared.gate.pending(), (2, TWO.len()));
            assert_eq!(publish(Arc::clone(&shared), Some("key"), TWO).await, Err(Refusal::UnderWay));
            assert!(matches!(publish(Arc::clone(&shared), Some("key"), ONE).await, Err(Refusal::AnotherBody { .. })));
            free.send(()).unwrap();
            let again = loop {
                match publish(Arc::clone(&shared), Some("key"), TWO).await {
                    Err(Refusal::UnderWay) => tokio::task::yield_now().await,
                    outcome => break outcome,
                }
            };
            assert_eq!(again, Ok((StatusCode::OK, r#"{"sockets":[0,0]}"#.into())));
            assert_eq!((shared.keys.replayed(), io.stats().await.unwrap().broadcasts), (1, 2));
        });
        server.close();
    }

    #[test]
    fn a_refused_key_may_be_used_again() {
        let io = Io::with_settings(Settings { workers: 2, pin: false, ..Settings::default() });
        let (shared, server, free) = with_a_busy_worker(&io, 2);
        run(async {
            let first = tokio::task::spawn_local(publish(Arc::clone(&shared), None, TWO));
            tokio::task::yield_now().await;
            let refused = publish(Arc::clone(&shared), Some("key"), ONE).await;
            assert_eq!(refused, Err(Refusal::EventsPending { events: 2, events_max: 2 }));
            free.send(()).unwrap();
            assert!(first.await.unwrap().is_ok());
            // Nothing was sent, so the key is as good as new; also for a mended body.
            assert!(publish(Arc::clone(&shared), Some("key"), "{}").await.is_err());
            assert!(publish(Arc::clone(&shared), Some("key"), ONE).await.is_ok());
            assert_eq!((shared.keys.replayed(), shared.keys.count()), (0, 1));
        });
        server.close();
    }

    #[test]
    fn whoever_is_refused_is_told_whole_seconds() {
        let secs = |ms: u64, spread: u64| retry_after(Duration::from_millis(ms), spread);
        assert_eq!((secs(0, 0), secs(1, 0), secs(1_000, 0), secs(1_001, 0)), (1, 1, 1, 2));
        assert_eq!((secs(1, 4), secs(3_500, 2)), (5, 6));
    }

    #[test]
    fn the_page_looks_for_the_endpoint_at_one_place_that_can_be_replaced() {
        assert_eq!(PAGE.matches(PAGE_ENDPOINT).count(), 1);
        assert_eq!(PAGE.matches("/socket.io/").count(), 1);
    }

    #[test]
    fn the_page_has_one_script_so_one_hash_allows_it() {
        assert_eq!(PAGE.matches("<script").count(), 1);
        for attribute in [" onclick=", " onload=", " onsubmit=", "javascript:"] {
            assert!(!PAGE.contains(attribute), "{attribute} would not run under the policy");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for word in [" src=\"", "@import", "url(", "<iframe"] {
            assert!(!PAGE.contains(word), "{word}");
        }
        for link in PAGE.match_indices("href=\"").map(|(at, _)| &PAGE[at + 6..]) {
            assert!(link.starts_with("data:") || link.starts_with('#'), "{}", &link[..20]);
        }
    }
}
