//! Proxied: the PROXY protocol header in front of a connection, read before anything else is.
//!
//! Limits: `handshake_timeout` for all of it; [`HEADER_BYTES_MAX`].

use super::http_stream::HttpStream;
use crate::proto::proxy::{self, HEADER_BYTES_MAX};
use hyper::rt::{Read as _, ReadBuf};
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

/// Why a connection has no header that counts.
#[derive(Debug)]
pub enum Failure {
    /// The peer is none of the trusted proxies.
    Stranger,
    Header(proxy::Error),
    /// It ended, or broke, before the header did.
    Ended,
    TimedOut,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Stranger => f.write_str("its peer is not in trusted_proxies"),
            Failure::Header(error) => error.fmt(f),
            Failure::Ended => f.write_str("it ended before its PROXY protocol header was complete"),
            Failure::TimedOut => f.write_str("its PROXY protocol header did not arrive within handshake_timeout"),
        }
    }
}

/// Reads the header. What came behind it is put back in front of the stream. Returns whose connection it is: the proxy's
/// own, `peer`, if it does not speak for anybody.
pub async fn read_source(stream: &mut HttpStream, peer: SocketAddr, wait: Duration) -> Result<SocketAddr, Failure> {
    match tokio::time::timeout(wait, read_header(stream)).await {
        Ok(source) => Ok(source?.unwrap_or(peer)),
        Err(_) => Err(Failure::TimedOut),
    }
}

async fn read_header(stream: &mut HttpStream) -> Result<Option<SocketAddr>, Failure> {
    // Not an array: it would make room for itself in the task of every connection.
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let mut filled = 0;
    loop {
        // A header that is not complete by then is too long, which the decoder has said.
        let mut buffer = ReadBuf::new(&mut bytes[filled..]);
        let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, buffer.unfilled())).await;
        let count = buffer.filled().len();
        if read.is_err() || count == 0 {
            return Err(Failure::Ended);
        }
        filled += count;
        if let Some(header) = proxy::decode(&bytes[..filled]).map_err(Failure::Header)? {
            stream.put_back(bytes[header.length..filled].to_vec());
            return Ok(header.source);
        }
    }
}
