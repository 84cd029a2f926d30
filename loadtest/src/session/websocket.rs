//! WebSocket: from the answer to the upgrade on, bytes in, texts and binaries out.
//!
//! A frame that is cut, or a message in fragments, stays here until its rest has come; who waits for nothing owns no
//! buffer. The key of the upgrade is RFC 6455's own example, the same for everyone, so its answer is known and is
//! checked.
//!
//! Limits: [`frame::PAYLOAD_BYTES_MAX`] for a frame, and for the fragments of one message together.

use super::{Ending, Incoming, Saying, feed};
use crate::frame::{self, Frame, Opcode};
use crate::http;
use std::mem;

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// RFC 6455's code for a peer that broke a rule of the server's own.
const POLICY_VIOLATION: u16 = 1008;
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Default)]
pub struct WebSocket {
    /// Whether the upgrade was answered.
    open: bool,
    kept: Option<Box<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// The bytes of an answer or a frame that is not whole yet.
    bytes: Vec<u8>,
    /// A message that the server sends in fragments, text or binary.
    fragments: Option<(Opcode, Vec<u8>)>,
}

impl WebSocket {
    /// Takes what was read and lets it be heard; what is said to it goes to `out`.
    pub fn receive<'w>(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        hear: &mut impl FnMut(Incoming<'_>) -> Saying<'w>,
    ) -> Result<(), Ending> {
        let bytes = self.kept.as_mut().map(|kept| mem::take(&mut kept.bytes)).unwrap_or_default();
        let bytes = feed(bytes, input, |bytes| self.take(bytes, out, hear))?;
        if bytes.is_empty() {
            self.kept.take_if(|kept| kept.fragments.is_none());
        } else {
            self.kept.get_or_insert_default().bytes = bytes;
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn waits_for_nothing(&self) -> bool {
        self.kept.is_none()
    }

    /// Takes everything whole from the front of `bytes` and says how much that was.
    fn take<'w>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        hear: &mut impl FnMut(Incoming<'_>) -> Saying<'w>,
    ) -> Result<usize, Ending> {
        let mut say = |incoming: Incoming<'_>, out: &mut Vec<u8>| {
            hear(incoming).map(|said| said.iter().for_each(|text| put(text, out)))
        };
        let mut taken = 0;
        if !self.open {
            let Some((answer, length)) = http::head(bytes)? else { return Ok(0) };
            check_upgrade(&answer)?;
            self.open = true;
            say(Incoming::Upgraded, out)?;
            taken = length;
        }
        while let Some((frame, length)) = frame::decode(&bytes[taken..]).map_err(Ending::Frame)? {
            self.take_frame(frame, out, &mut say)?;
            taken += length;
        }
        Ok(taken)
    }

    fn take_frame(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        say: &mut impl FnMut(Incoming<'_>, &mut Vec<u8>) -> Result<(), Ending>,
    ) -> Result<(), Ending> {
        let open = match frame.opcode {
            Opcode::Close => {
                return Err(ending(frame.payload));
            }
            Opcode::Ping => {
                frame::put(Opcode::Pong, frame.payload, out);
                return Ok(());
            }
            Opcode::Pong => return Ok(()),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.kept.as_mut().and_then(|kept| kept.fragments.take())
            }
        };
        let (opcode, mut bytes) = match (frame.opcode, open) {
            (Opcode::Continuation, Some(open)) => open,
            (Opcode::Continuation, None) | (_, Some(_)) => return Err(Ending::Fragments),
            (opcode, None) if frame.fin => return say(incoming(opcode, frame.payload), out),
            (opcode, None) => (opcode, Vec::new()),
        };
        if (bytes.len() + frame.payload.len()) as u64 > frame::PAYLOAD_BYTES_MAX {
            return Err(Ending::Frame(frame::Error::TooLong));
        }
        bytes.extend_from_slice(frame.payload);
        if frame.fin {
            return say(incoming(opcode, &bytes), out);
        }
        self.kept.get_or_insert_default().fragments = Some((opcode, bytes));
        Ok(())
    }
}

/// Appends a message.
pub fn put(text: &str, out: &mut Vec<u8>) {
    frame::put(Opcode::Text, text.as_bytes(), out);
}

fn incoming(opcode: Opcode, payload: &[u8]) -> Incoming<'_> {
    match opcode {
        Opcode::Text => Incoming::Text(payload),
        _ => Incoming::Binary(payload),
    }
}

/// What a close frame says: a code, and perhaps a reason behind it.
fn ending(payload: &[u8]) -> Ending {
    match payload.split_first_chunk() {
        Some((code, b"slow client")) if *code == POLICY_VIOLATION.to_be_bytes() => Ending::SlowClient,
        code => Ending::Closed(code.map(|(code, _)| u16::from_be_bytes(*code))),
    }
}

fn check_upgrade(answer: &http::Answer<'_>) -> Result<(), Ending> {
    match answer.header("sec-websocket-accept") {
        _ if answer.status != 101 => Err(Ending::UpgradeRefused(answer.line().to_owned())),
        Some(ACCEPT) => Ok(()),
        _ => Err(Ending::WrongAcceptKey),
    }
}
