//! Site: the program's own routes, beside the endpoint.
//!
//! | route               | answer                                                                     |
//! |---------------------|----------------------------------------------------------------------------|
//! | `GET /`             | the page                                                                   |
//! | `GET /api/stats`    | what the server holds and has done (stats.rs)                              |
//! | `POST /api/publish` | `{"sockets":12}`; for a batch `{"sockets":[12,0]}` (publish.rs, guard.rs)  |
//! | `GET /healthz`      | 200 as long as the process answers: a supervisor need not restart it       |
//! | `GET /readyz`       | 200 while it takes clients, 503 once it drains: a balancer looks elsewhere  |
//! | `GET <path>/NAME`   | the official client (bundles.rs)                                           |
//!
//! Whatever is refused is refused with `{"error":"…"}`. HEAD is answered wherever GET is.

use super::asset::Asset;
use super::bundles::{Bundles, digest};
use super::clients::Permissions;
use super::config::{Config, Limits};
use super::guard;
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
use std::time::Instant;

const PAGE: &str = include_str!("page.html");
/// Where the page looks for the endpoint.
const PAGE_ENDPOINT: &str = "/socket.io/?";

/// What the routes share.
pub struct Shared {
    pub io: Io,
    pub started: Instant,
    pub bundles: Bundles,
    /// Whether the server takes nobody in any more.
    pub closing: AtomicBool,
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
        Shared {
            io: io.clone(),
            started: Instant::now(),
            namespaces: config.namespaces.keys().map(|name| (name.clone(), io.of(name))).collect(),
            bundles,
            closing: AtomicBool::new(false),
            permissions,
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
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let gets = *request.method() == Method::GET || *request.method() == Method::HEAD;
        let posts = *request.method() == Method::POST;
        match path {
            "/api/publish" if posts => self.publish(request).await.unwrap_or_else(|refusal| refused(&refusal)),
            "/api/publish" => not_allowed("POST"),
            "/" if gets => self.page(request.headers()),
            "/api/stats" if gets => self.stats().await,
            "/healthz" if gets => json_answer(StatusCode::OK, &json!({ "status": "ok" })),
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
            true => json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "closing" })),
            false => json_answer(StatusCode::OK, &json!({ "status": "ready" })),
        }
    }

    async fn stats(&self) -> Answer {
        match self.io.stats().await {
            Ok(stats) => json_answer(StatusCode::OK, &stats::report(self, &stats)),
            Err(_) => refused(&Refusal::Closing),
        }
    }

    // ---- publishing

    async fn publish(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let config = self.config();
        guard::check(config.server.publish_key.as_ref(), request.headers())?;
        let body = body(request, &config.limits).await?;
        let batch_max = config.limits.publish_batch_max;
        let Publication { events, is_batch } = publish::read(&body, batch_max, self.namespaces.keys())?;
        // All are on their way, in their order, before the first count is awaited.
        let counts: Vec<_> = events.iter().map(|event| self.emit(event)).collect();
        let mut sockets = Vec::with_capacity(counts.len());
        for count in counts {
            let count = count.map_err(|_| Refusal::Closing)?;
            sockets.push(count.await.map_err(|_| Refusal::Closing)?);
        }
        let sockets = if is_batch { json!(sockets) } else { json!(sockets[0]) };
        Ok(json_answer(StatusCode::OK, &json!({ "sockets": sockets })))
    }

    /// The event has passed every check, so only a server that has closed refuses.
    fn emit(&self, event: &Event) -> Result<CountFuture, EmitError> {
        let everyone = self.namespaces[&event.namespace].everyone();
        let target = everyone.to(&event.rooms).except(&event.except);
        let target = if event.volatile { target.volatile() } else { target };
        target.emit_and_count(&event.event, &event.args)
    }
}

/// The whole body of a publisher.
async fn body(request: Request<Incoming>, limits: &Limits) -> Result<Bytes, Refusal> {
    let too_large = Refusal::BodyTooLarge { bytes_max: limits.publish_bytes_max };
    let body = request.into_body();
    if body.size_hint().lower() > limits.publish_bytes_max as u64 {
        return Err(too_large);
    }
    match tokio::time::timeout(limits.request_timeout, Limited::new(body, limits.publish_bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(Refusal::BodyBroken),
        Err(_) => Err(Refusal::BodyTooSlow),
    }
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

fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(value).expect("answers have a JSON form");
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn error_answer(status: StatusCode, error: &str) -> Answer {
    json_answer(status, &json!({ "error": error }))
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = error_answer(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {allowed}"));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    let mut answer = error_answer(status(refusal), &refusal.to_string());
    let challenge = match refusal {
        Refusal::KeyMissing => "Bearer realm=\"fanfare\"",
        Refusal::KeyWrong => "Bearer realm=\"fanfare\", error=\"invalid_token\"",
        _ => return answer,
    };
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::KeyMissing | Refusal::KeyWrong => StatusCode::UNAUTHORIZED,
        Refusal::ForeignOrigin { .. } | Refusal::ForeignHost { .. } => StatusCode::FORBIDDEN,
        Refusal::BodyTooLarge { .. } | Refusal::BatchTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        Refusal::UnknownNamespace { .. } => StatusCode::NOT_FOUND,
        Refusal::Closing => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::BodyBroken | Refusal::NotUtf8 | Refusal::NotJson { .. } | Refusal::NoEvent | Refusal::Field { .. } => {
            StatusCode::BAD_REQUEST
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
