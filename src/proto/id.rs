//! Id: the public name of a session (its *sid*) or of a socket.
//!
//! Twenty characters of `[A-Za-z0-9_-]`, as the reference's ids are, because sticky load balancers and the
//! sharded Redis adapter recognise ids by that length.
//!
//! The one idea: an id carries its own address. Whoever receives a request with a sid knows from the sid alone
//! which shard owns the session, and that shard finds it without a table of ids. The other 88 bits are random,
//! so an id cannot be guessed; it is compared as a whole before it is believed.
//!
//! ```text
//! byte  0 ............ 10 | 11 ........ 14
//!       random            | shard:10 slot:22   → base64url, 20 characters
//! ```

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::fmt;

/// How many shards an id can name.
pub const SHARDS_MAX: u16 = 1 << SHARD_BITS;
/// How many sessions, or sockets, one shard can hold at a time.
pub const SLOTS_MAX: u32 = 1 << SLOT_BITS;

const SHARD_BITS: u32 = 10;
const SLOT_BITS: u32 = 22;
const RANDOM_BYTES: usize = 11;
const BYTES: usize = RANDOM_BYTES + 4;
/// Length of the text form, in characters.
pub const TEXT_LEN: usize = 20;

/// A session's or a socket's public id; see the module for its layout.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; BYTES]);

impl Id {
    /// An id at `slot` of `shard`. The caller brings the randomness; it must come from a secure source.
    pub fn new(shard: u16, slot: u32, random: [u8; RANDOM_BYTES]) -> Id {
        assert!(shard < SHARDS_MAX && slot < SLOTS_MAX, "an arena never hands out slots beyond SLOTS_MAX");
        let mut bytes = [0; BYTES];
        bytes[..RANDOM_BYTES].copy_from_slice(&random);
        bytes[RANDOM_BYTES..].copy_from_slice(&(u32::from(shard) << SLOT_BITS | slot).to_be_bytes());
        Id(bytes)
    }

    /// Reads the text form. `None`: not an id of ours, whatever else it may be.
    pub fn parse(text: &str) -> Option<Id> {
        if text.len() != TEXT_LEN {
            return None;
        }
        let mut bytes = [0; BYTES];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (len == BYTES).then_some(Id(bytes))
    }

    /// The shard that owns what this id names.
    pub fn shard(&self) -> u16 {
        (self.address() >> SLOT_BITS) as u16
    }

    /// Where that shard keeps it.
    pub fn slot(&self) -> u32 {
        self.address() & (SLOTS_MAX - 1)
    }

    /// The text form, without an allocation.
    pub fn text(&self) -> IdText {
        let mut text = [0; TEXT_LEN];
        let len = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        debug_assert_eq!(len, Ok(TEXT_LEN));
        IdText(text)
    }

    fn address(&self) -> u32 {
        let [a, b, c, d] = self.0[RANDOM_BYTES..] else { unreachable!("BYTES is RANDOM_BYTES + 4") };
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The twenty characters of an [`Id`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdText([u8; TEXT_LEN]);

impl std::ops::Deref for IdText {
    type Target = str;
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        for (shard, slot) in [(0, 0), (1, 2), (SHARDS_MAX - 1, SLOTS_MAX - 1)] {
            let id = Id::new(shard, slot, [0xfb; RANDOM_BYTES]);
            let text = id.to_string();
            assert_eq!(text.len(), 20);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{text}");
            assert_eq!(Id::parse(&text), Some(id));
            assert_eq!((id.shard(), id.slot()), (shard, slot));
        }
    }

    #[test]
    fn what_is_not_an_id_is_none() {
        for text in [
            "",
            "__proto__",
            "AAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAA+",
            "äAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(Id::parse(text), None, "{text:?}");
        }
    }
}
