//! Any bytes as the beginning of a connection behind a proxy: the header is decoded or refused, and a cut changes nothing.
#![no_main]

use fanfare::proto::proxy::{self, HEADER_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = proxy::decode(bytes);
    if let Ok(Some(header)) = whole {
        assert!(header.length <= bytes.len() && header.length <= HEADER_BYTES_MAX);
    }
    for cut in 0..bytes.len().min(HEADER_BYTES_MAX) {
        let part = proxy::decode(&bytes[..cut]);
        assert!(part == Ok(None) || part == whole);
    }
});
