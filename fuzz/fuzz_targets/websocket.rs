//! Any bytes, cut anywhere: the decoder must not panic, and must not notice the cuts.
//!
//! Input: one byte whose lowest bit picks our role; two bytes that place two cuts; the stream.

#![no_main]

use fanfare::proto::websocket::{Decoder, Error, Item, Role, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [role, first, second, stream @ ..] = data else {
        return;
    };
    let rules = Rules {
        role: if role & 1 == 0 { Role::Server } else { Role::Client },
        // Small, so that inputs of a few bytes reach the limits.
        message_bytes_max: 300,
        fragments_max: 4,
    };
    let [first, second] = [first, second].map(|at| usize::from(*at) * stream.len() / 255);
    let (left, right) = (first.min(second), first.max(second));
    let pieces = [&stream[..left], &stream[left..right], &stream[right..]];
    assert_eq!(read(&pieces, &rules), read(&[stream], &rules));
});

/// Everything that a caller can notice: the items as text, then the error that ended the stream or
/// the bytes of the frame that is not complete.
type Outcome = (Vec<String>, Result<Vec<u8>, Error>);

fn read(pieces: &[&[u8]], rules: &Rules) -> Outcome {
    let mut decoder = Decoder::default();
    let mut items = Vec::new();
    let mut rest = Vec::new();
    for piece in pieces {
        rest.extend_from_slice(piece);
        let mut bytes = rest.clone();
        let mut input = &mut bytes[..];
        loop {
            match decoder.decode(&mut input, rules) {
                Ok(Some(item)) => {
                    items.push(format!("{item:?}"));
                    if let Item::Close { .. } = item {
                        return (items, Ok(Vec::new()));
                    }
                }
                Ok(None) => break,
                Err(error) => return (items, Err(error)),
            }
        }
        assert!(rest.ends_with(input), "a partial frame must stay as it came");
        rest = input.to_vec();
    }
    (items, Ok(rest))
}
