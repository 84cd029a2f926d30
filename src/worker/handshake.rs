//! Handshake: what a request says of the WebSocket or session that it wants, who is let in, and what a 101 says.
//!
//! A WebSocket's handshake comes one of two ways, and both ask the rules of this file, in the same order:
//!
//! ```text
//! front_door.rs   all of it is there when its connection is accepted, and nothing is to be said against it
//! http.rs         everything else, by way of hyper
//! ```
//!
//! The order of the checks is the reference's; what a refusal says stands in error.rs.

use super::admission::Admitted;
use super::{Worker, forwarded};
use crate::error::Refusal;
use crate::proto::{Id, websocket};
use crate::settings::{Cors, Origins, Settings};
use crate::shard::session::Handshake;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

// ---- what requests say

/// The parts of the query that Engine.IO reads. The last of several equal names counts, as in the reference.
#[derive(Default)]
pub struct Query<'q> {
    pub revision: Cow<'q, str>,
    pub transport: Cow<'q, str>,
    pub sid: Option<Cow<'q, str>>,
}

impl Query<'_> {
    pub fn of<B>(request: &Request<B>) -> Query<'_> {
        let mut parsed = Query::default();
        let query = request.uri().query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "EIO" => parsed.revision = value,
                "transport" => parsed.transport = value,
                "sid" => parsed.sid = Some(value).filter(|sid| !sid.is_empty()),
                _ => {}
            }
        }
        parsed
    }
}

/// Whether the path is the endpoint's (option `addTrailingSlash` of the reference), and not one of the names under it
/// that the embedder serves.
pub fn is_ours(settings: &Settings, path: &str) -> bool {
    match path.strip_prefix(&*settings.path) {
        Some("") => !settings.add_trailing_slash,
        Some(rest) => match rest.strip_prefix('/') {
            Some(name) => !settings.routes_under_path.iter().any(|route| route == name),
            None => false,
        },
        None => false,
    }
}

pub fn is_enabled(settings: &Settings, transport: &str) -> bool {
    match transport {
        "polling" => settings.transports.polling,
        "websocket" => settings.transports.websocket,
        _ => false,
    }
}

/// Whether the request asks for a WebSocket, in both of the headers that say so (RFC 6455, section 4.2.1).
pub fn is_websocket(settings: &Settings, headers: &HeaderMap) -> bool {
    settings.transports.websocket
        && names(headers, header::UPGRADE, "websocket")
        && names(headers, header::CONNECTION, "upgrade")
}

/// Whether a header, which is a list, names this token.
pub fn names(headers: &HeaderMap, header: HeaderName, token: &str) -> bool {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// What the session keeps of its request.
pub fn kept<B>(settings: &Settings, peer: SocketAddr, request: &Request<B>) -> Handshake {
    let url = request.uri().path_and_query().map_or("/", |url| url.as_str());
    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let client = forwarded::client(peer, request.headers(), &settings.trusted_proxies);
    Handshake::new(url, headers, client, issued.as_millis() as u64)
}

/// Whether the peer is a trusted proxy, whose requests are its clients'.
pub fn is_proxy(settings: &Settings, peer: SocketAddr) -> bool {
    forwarded::is_trusted(peer.ip(), &settings.trusted_proxies)
}

// ---- who is let in

/// Why a WebSocket is not let in.
pub enum Denial {
    Refused(Refusal),
    /// The shard of its session has refused it, and counted that.
    RefusedByShard(Refusal),
    /// A rule of the WebSocket handshake itself was broken (RFC 6455, section 4.2.1).
    BadVersion,
    BadKey,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Denial {
        Denial::Refused(refusal)
    }
}

impl<A> Worker<A> {
    /// A sid that one of our shards could have given out.
    pub fn known(&self, sid: &str) -> Option<Id> {
        Id::parse(sid).filter(|sid| usize::from(sid.shard()) < self.mailboxes.len())
    }

    /// The session that a WebSocket is to take over. `None`: it is to begin its own.
    pub fn session_wanted<B>(&self, settings: &Settings, request: &Request<B>) -> Result<Option<Id>, Refusal> {
        let query = Query::of(request);
        if !is_enabled(settings, &query.transport) {
            return Err(Refusal::TransportUnknown);
        }
        let sid = match &query.sid {
            Some(sid) => Some(self.known(sid).ok_or(Refusal::UnknownSid)?),
            None => None,
        };
        if request.method() != Method::GET {
            return Err(Refusal::BadHandshakeMethod);
        }
        if query.transport != "websocket" {
            return Err(Refusal::BadRequest);
        }
        if query.revision != "4" {
            return Err(if sid.is_some() { Refusal::BadRequest } else { Refusal::UnsupportedProtocolVersion });
        }
        Ok(sid)
    }

    /// Lets a WebSocket in that begins its own session. Returns what the session keeps of the request, and the accept key.
    ///
    /// Its connection's place is its client's from now on. It may be asked again about one that was refused: nothing has
    /// been counted for that one but, perhaps, its client in `place`, who is counted anew then.
    pub fn let_in<B>(
        &self,
        settings: &Settings,
        peer: SocketAddr,
        request: &Request<B>,
        place: &mut Admitted,
    ) -> Result<(Handshake, String), Denial> {
        // Asked before the 101, because after it there is no way to say why.
        self.shard.borrow().admit()?;
        let accept = accept_key(request.headers())?;
        let handshake = kept(settings, peer, request);
        if is_proxy(settings, peer) {
            self.admission.count_for(place, handshake.address().ip())?;
        }
        self.admission.admit_handshake(self.started.elapsed())?;
        Ok((handshake, accept))
    }
}

/// The accept key of a WebSocket handshake that keeps the rules.
pub fn accept_key(headers: &HeaderMap) -> Result<String, Denial> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if !matches!(version, Some(b"13" | b"8")) {
        return Err(Denial::BadVersion);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    key.and_then(websocket::accept_key).ok_or(Denial::BadKey)
}

// ---- what answers say

/// The headers of a 101, in their order, but for those of [`cors_headers`] behind them.
pub fn switching_headers(accept: String, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, header_value(accept)),
    ];
    if let Some(protocol) = request.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(first_protocol) {
        headers.push((header::SEC_WEBSOCKET_PROTOCOL, protocol));
    }
    headers
}

fn first_protocol(offered: &HeaderValue) -> Option<HeaderValue> {
    let first = offered.to_str().ok()?.split(',').next()?.trim();
    HeaderValue::from_str(first).ok()
}

/// What the Fetch standard calls the CORS response headers, as the reference's `cors` module sends them.
pub fn cors_headers<B>(cors: &Cors, request: &Request<B>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let mut vary = Vec::new();
    match &cors.origins {
        Origins::Any => headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))),
        Origins::Listed(origins) => {
            vary.push("Origin");
            let origin = request.headers().get(header::ORIGIN);
            if let Some(origin) = origin.filter(|&origin| origins.iter().any(|listed| origin == listed.as_str())) {
                headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            }
        }
    }
    if cors.credentials {
        headers.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
    }
    if request.method() == Method::OPTIONS {
        headers.push((header::ACCESS_CONTROL_ALLOW_METHODS, header_value(cors.methods.join(","))));
        vary.push("Access-Control-Request-Headers");
        if let Some(wanted) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.push((header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone()));
        }
    }
    if !vary.is_empty() {
        headers.push((header::VARY, header_value(vary.join(", "))));
    }
    headers
}

pub fn header_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("built from checked settings and base64")
}
