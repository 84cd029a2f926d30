//! Stamp: what a published message says about itself.
//!
//! ```text
//!     ~rrrrrrrr:ssssssss:tttttttttttttttt~xxxxxxxx…      r run, s sequence number, t when it was due; hexadecimal
//!     0         9        18              34   36        filled with x up to --size
//! ```
//!
//! The time is the one at which the message *should* have left. A generator that is late stamps the past, so its own
//! lateness counts as delay and cannot hide. The run keeps two generators on one server apart. Fixed width, so that
//! reading a stamp is thirty-six bytes and no search.

use crate::clock::Nanos;

/// The bytes of a stamp, and so the least `--size`.
pub const STAMP_BYTES: usize = 36;

/// The first byte of a stamp.
pub const BEGIN: u8 = b'~';

/// Messages from this number on only prove that the way to a room is open: the room's number is what is above it. They
/// are not counted.
const WARM_UP: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run: u32,
    pub sequence: u32,
    pub due: Nanos,
}

impl Stamp {
    /// A message that proves that the way to `room` is open.
    pub fn warm_up(run: u32, room: u32, due: Nanos) -> Stamp {
        Stamp { run, sequence: WARM_UP + room, due }
    }

    /// The room that this message warms up; `None` for one that is counted.
    pub fn warms_up(self) -> Option<u32> {
        self.sequence.checked_sub(WARM_UP)
    }

    /// Appends the stamp, filled up to `size` bytes.
    pub fn put(self, size: usize, out: &mut Vec<u8>) {
        assert!(size >= STAMP_BYTES, "the plan refuses smaller messages");
        let text = format!("~{:08x}:{:08x}:{:016x}~", self.run, self.sequence, self.due);
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len() + size - STAMP_BYTES, b'x');
    }

    /// Reads the stamp at the front of `bytes`. `None` is a message of somebody else.
    pub fn read(bytes: &[u8]) -> Option<Stamp> {
        let bytes = bytes.first_chunk::<STAMP_BYTES>()?;
        if [bytes[0], bytes[9], bytes[18], bytes[35]] != *b"~::~" {
            return None;
        }
        Some(Stamp {
            run: u32::try_from(hex(&bytes[1..9])?).ok()?,
            sequence: u32::try_from(hex(&bytes[10..18])?).ok()?,
            due: hex(&bytes[19..35])?,
        })
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, &digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(nibble))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 0xdead_beef, sequence: 42, due: 1_234_567_890_123 };

    #[test]
    fn what_is_put_is_read_at_any_size() {
        for size in [STAMP_BYTES, STAMP_BYTES + 1, 200, 70_000] {
            let mut bytes = Vec::new();
            STAMP.put(size, &mut bytes);
            assert_eq!(bytes.len(), size);
            assert_eq!(Stamp::read(&bytes), Some(STAMP));
        }
    }

    #[test]
    fn a_warm_up_knows_its_room() {
        assert_eq!(Stamp::warm_up(1, 99_999, 5).warms_up(), Some(99_999));
        assert_eq!(STAMP.warms_up(), None);
    }

    #[test]
    fn a_cut_or_damaged_stamp_is_nobodys() {
        let mut bytes = Vec::new();
        STAMP.put(STAMP_BYTES, &mut bytes);
        for cut in 0..STAMP_BYTES {
            assert_eq!(Stamp::read(&bytes[..cut]), None, "cut at {cut}");
        }
        for at in 0..STAMP_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] = b'!';
            assert_eq!(Stamp::read(&damaged), None, "damaged at {at}");
        }
    }
}
