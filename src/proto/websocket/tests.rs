//! The promises of the frame codec.
//!
//! Tables say what is read and what is refused; every sample is then cut everywhere; random streams
//! come last. A failing random run prints its seed: `FANFARE_FUZZ_SEED` repeats it, and with
//! `FANFARE_FUZZ_RUNS` the same tests search for longer.

use super::*;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const SERVER: Rules = Rules { role: Role::Server, message_bytes_max: 1_000_000, fragments_max: FRAGMENTS_MAX_DEFAULT };
const CLIENT: Rules = Rules { role: Role::Client, ..SERVER };

// ---- Helpers: what was seen, and the bytes that show it ----------------------------------------

/// An item that outlives its buffer.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Item<'_>> for Seen {
    fn from(item: Item<'_>) -> Seen {
        match item {
            Item::Text(text) => Seen::Text(text.into_owned()),
            Item::Binary(bytes) => Seen::Binary(bytes.into_owned()),
            Item::Ping(payload) => Seen::Ping(payload.to_vec()),
            Item::Pong(payload) => Seen::Pong(payload.to_vec()),
            Item::Close { code, reason } => Seen::Close(code, reason.to_owned()),
        }
    }
}

/// Everything that a caller can notice about a stream.
#[derive(Clone, Debug, Default, PartialEq)]
struct Outcome {
    items: Vec<Seen>,
    error: Option<Error>,
    /// The partial frame at the end. Not looked at after an error or a close.
    rest: Vec<u8>,
}

/// Reads a stream that arrives in these pieces, as a worker would.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, rules: &Rules) -> Outcome {
    let mut decoder = Decoder::default();
    let mut outcome = Outcome::default();
    for piece in pieces {
        outcome.rest.extend_from_slice(piece);
        let mut bytes = outcome.rest.clone();
        let mut input = &mut bytes[..];
        loop {
            match decoder.decode(&mut input, rules) {
                Ok(Some(item)) => outcome.items.push(item.into()),
                Ok(None) => break,
                Err(error) => outcome.error = Some(error),
            }
            if outcome.error.is_some() || matches!(outcome.items.last(), Some(Seen::Close(..))) {
                outcome.rest.clear();
                return outcome;
            }
        }
        assert!(outcome.rest.ends_with(input), "a partial frame must stay as it came");
        outcome.rest = input.to_vec();
    }
    outcome
}

fn read_whole(stream: &[u8], rules: &Rules) -> Outcome {
    read([stream], rules)
}

fn items(items: impl Into<Vec<Seen>>) -> Outcome {
    Outcome { items: items.into(), ..Outcome::default() }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

/// A frame of a message that goes on: what `put_frame` never writes.
fn put_fragment(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let start = out.len();
    put_frame(out, opcode, payload, mask);
    out[start] &= !FIN;
}

fn frame(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, opcode, payload, mask);
    out
}

fn fragment(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = Vec::new();
    put_fragment(&mut out, opcode, payload, mask);
    out
}

/// Each role as a reader, and the mask that its peer writes with.
const ROLES: [(Rules, Option<[u8; 4]>); 2] = [(SERVER, Some(KEY)), (CLIENT, None)];

/// Streams that hold every shape of frame, and what they say.
fn samples(mask: Option<[u8; 4]>) -> Vec<(Vec<u8>, Vec<Seen>)> {
    use Opcode::*;
    let long = "x".repeat(126);
    let empties = [frame(Text, b"", mask), frame(Binary, b"", mask), frame(Ping, b"", mask)];
    let lengths = [
        frame(Text, &long.as_bytes()[..125], mask),
        frame(Binary, long.as_bytes(), mask),
        frame(Text, &long.as_bytes()[..1], mask),
    ];
    let interleaved = [
        fragment(Text, b"caf\xc3", mask),
        frame(Ping, b"are you there", mask),
        fragment(Continuation, b"", mask),
        frame(Pong, b"", mask),
        frame(Continuation, b"\xa9", mask),
        fragment(Binary, b"", mask),
        frame(Continuation, long.as_bytes(), mask),
        frame(Text, b"after", mask),
    ];
    let closing = [frame(Text, b"bye", mask), frame(Close, b"\x03\xe8see you", mask), frame(Text, b"never read", mask)];
    let closing_amid_fragments = [fragment(Text, b"half", mask), frame(Close, b"", mask)];
    let broken = [frame(Text, b"good", mask), frame(Text, b"\xff", mask)];
    vec![
        (empties.concat(), vec![text(""), Seen::Binary(vec![]), Seen::Ping(vec![])]),
        (lengths.concat(), vec![text(&long[..125]), Seen::Binary(long.clone().into()), text("x")]),
        (
            interleaved.concat(),
            vec![
                Seen::Ping(b"are you there".to_vec()),
                Seen::Pong(vec![]),
                text("café"),
                Seen::Binary(long.into()),
                text("after"),
            ],
        ),
        (closing.concat(), vec![text("bye"), Seen::Close(Some(1000), "see you".to_owned())]),
        (closing_amid_fragments.concat(), vec![Seen::Close(None, String::new())]),
        (broken.concat(), vec![text("good")]),
    ]
}

// ---- What is read -------------------------------------------------------------------------------

#[test]
fn the_examples_of_the_rfc_are_read_by_the_role_they_are_for_and_refused_by_the_other() {
    let hello = || vec![text("Hello")];
    let bytes_256: Vec<u8> = (0..=255).collect();
    let bytes_64k = vec![7; 65536];
    let unmasked = (CLIENT, SERVER, Error::Unmasked);
    let masked = (SERVER, CLIENT, Error::Masked);
    let table: [(_, Vec<u8>, Vec<Seen>); 7] = [
        (unmasked, b"\x81\x05Hello".to_vec(), hello()),
        (masked, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(), hello()),
        (unmasked, b"\x01\x03Hel\x80\x02lo".to_vec(), hello()),
        (unmasked, b"\x89\x05Hello".to_vec(), vec![Seen::Ping(b"Hello".to_vec())]),
        (masked, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(), vec![Seen::Pong(b"Hello".to_vec())]),
        (unmasked, [b"\x82\x7e\x01\x00", &bytes_256[..]].concat(), vec![Seen::Binary(bytes_256.clone())]),
        (
            unmasked,
            [b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", &bytes_64k[..]].concat(),
            vec![Seen::Binary(bytes_64k.clone())],
        ),
    ];
    for ((reader, other, error), stream, expected) in table {
        assert_eq!(read_whole(&stream, &reader), items(expected), "{reader:?}");
        assert_eq!(read_whole(&stream, &other).error, Some(error));
    }
}

#[test]
fn the_examples_of_the_rfc_are_written_as_they_stand() {
    use Opcode::*;
    assert_eq!(frame(Text, b"Hello", None), b"\x81\x05Hello");
    assert_eq!(frame(Text, b"Hello", Some(KEY)), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    assert_eq!(fragment(Text, b"Hel", None), b"\x01\x03Hel");
    assert_eq!(frame(Continuation, b"lo", None), b"\x80\x02lo");
    assert_eq!(frame(Ping, b"Hello", None), b"\x89\x05Hello");
    assert!(frame(Binary, &[0; 256], None).starts_with(b"\x82\x7e\x01\x00"));
    assert!(frame(Binary, &[0; 65536], None).starts_with(b"\x82\x7f\0\0\0\0\0\x01\0\0"));
}

#[test]
fn every_sample_says_what_it_should_in_both_roles() {
    for (rules, mask) in ROLES {
        for (stream, expected) in samples(mask) {
            assert_eq!(read_whole(&stream, &rules).items, expected, "{rules:?}");
        }
    }
}

#[test]
fn a_message_in_one_frame_is_lent_and_one_in_fragments_is_owned() {
    let mut bytes = [frame(Opcode::Binary, b"whole", None), b"\x02\x01a\x80\x01b".to_vec()].concat();
    let (mut decoder, mut input) = (Decoder::default(), &mut bytes[..]);
    let lent = decoder.decode(&mut input, &CLIENT);
    assert!(matches!(lent, Ok(Some(Item::Binary(Cow::Borrowed(b"whole"))))));
    let owned = decoder.decode(&mut input, &CLIENT);
    assert!(matches!(owned, Ok(Some(Item::Binary(Cow::Owned(bytes)))) if bytes == b"ab"));
}

#[test]
fn an_idle_decoder_is_one_pointer_and_idle_again_after_the_last_fragment() {
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
    let mut bytes = b"\x02\x01a\x80\x01b".to_vec();
    let (mut decoder, mut input) = (Decoder::default(), &mut bytes[..]);
    assert!(decoder.decode(&mut input, &CLIENT).is_ok());
    assert!(decoder.partial.is_none());
}

#[test]
fn a_length_in_more_bytes_than_it_needs_is_read_all_the_same() {
    let hello = items([text("Hello")]);
    assert_eq!(read_whole(b"\x81\x7e\0\x05Hello", &CLIENT), hello);
    assert_eq!(read_whole(b"\x81\x7f\0\0\0\0\0\0\0\x05Hello", &CLIENT), hello);
    let ping = read_whole(b"\x89\x7e\0\x05Hello", &CLIENT);
    assert_eq!(ping.error, Some(Error::ControlTooLong));
}

// ---- What is refused ----------------------------------------------------------------------------

/// Room for four bytes in two frames.
const TIGHT_SERVER: Rules = Rules { role: Role::Server, message_bytes_max: 4, fragments_max: 2 };
const TIGHT_CLIENT: Rules = Rules { role: Role::Client, ..TIGHT_SERVER };

/// The smallest input for each error, in the order of their declaration.
const BROKEN_RULES: [(Rules, &[u8], Error, u16); 14] = [
    (TIGHT_SERVER, b"\xc1", Error::ReservedBitSet, 1002),
    (TIGHT_SERVER, b"\x83", Error::ReservedOpcode, 1002),
    (TIGHT_SERVER, b"\x81\0", Error::Unmasked, 1002),
    (TIGHT_CLIENT, b"\x81\x80", Error::Masked, 1002),
    (TIGHT_CLIENT, b"\x89\x7e", Error::ControlTooLong, 1002),
    (TIGHT_CLIENT, b"\x09", Error::ControlFragmented, 1002),
    (TIGHT_CLIENT, b"\x80", Error::UnexpectedContinuation, 1002),
    (TIGHT_CLIENT, b"\x01\0\x81", Error::ExpectedContinuation, 1002),
    (TIGHT_CLIENT, b"\x82\x7f\x80\0\0\0\0\0\0\0", Error::LengthTooLarge, 1009),
    (TIGHT_CLIENT, b"\x82\x05", Error::MessageTooLarge, 1009),
    (TIGHT_CLIENT, b"\x02\0\0\0\0", Error::TooManyFragments, 1008),
    (TIGHT_CLIENT, b"\x81\x01\xff", Error::InvalidUtf8, 1007),
    (TIGHT_CLIENT, b"\x88\x01", Error::CloseTooShort, 1002),
    (TIGHT_CLIENT, b"\x88\x02\x03\xed", Error::InvalidCloseCode, 1002),
];

#[test]
fn every_broken_rule_is_refused_at_the_byte_that_shows_it() {
    for (position, (rules, input, error, close_code)) in BROKEN_RULES.into_iter().enumerate() {
        assert_eq!(position, error as usize, "each error has its line, in order");
        assert_eq!(error.close_code(), close_code);
        assert_eq!(read_whole(input, &rules).error, Some(error));
        let (_, before) = input.split_last().expect("no rule is broken by silence");
        assert_eq!(read_whole(before, &rules).error, None, "{error:?} comes too early");
    }
}

#[test]
fn an_unmasked_client_frame_is_refused() {
    let refused = read_whole(&frame(Opcode::Text, b"Hello", None), &SERVER);
    assert_eq!(refused.error, Some(Error::Unmasked));
}

#[test]
fn a_masked_server_frame_is_refused() {
    let refused = read_whole(&frame(Opcode::Text, b"Hello", Some(KEY)), &CLIENT);
    assert_eq!(refused.error, Some(Error::Masked));
}

#[test]
fn each_reserved_bit_and_each_reserved_opcode_is_refused() {
    for bit in [0x40, 0x20, 0x10] {
        for opcode in 0..16 {
            let refused = read_whole(&[FIN | bit | opcode], &CLIENT);
            assert_eq!(refused.error, Some(Error::ReservedBitSet));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let refused = read_whole(&[FIN | opcode], &CLIENT);
        assert_eq!(refused.error, Some(Error::ReservedOpcode));
    }
}

#[test]
fn a_new_message_inside_an_open_one_is_refused_whatever_their_kinds() {
    for open in [Opcode::Text, Opcode::Binary] {
        for new in [Opcode::Text, Opcode::Binary] {
            for next in [frame(new, b"", None), fragment(new, b"", None)] {
                let stream = [fragment(open, b"", None), next].concat();
                let refused = read_whole(&stream, &CLIENT);
                assert_eq!(refused.error, Some(Error::ExpectedContinuation));
            }
        }
    }
}

#[test]
fn every_control_frame_must_be_short_and_whole() {
    for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
        let opcode = opcode as u8;
        let too_long = read_whole(&[FIN | opcode, LENGTH_IN_16], &CLIENT);
        assert_eq!(too_long.error, Some(Error::ControlTooLong));
        let fragmented = read_whole(&[opcode], &CLIENT);
        assert_eq!(fragmented.error, Some(Error::ControlFragmented));
    }
}

#[test]
fn a_close_code_is_accepted_exactly_if_ws_accepts_it() {
    for code in 0..=u16::MAX {
        let expected = match code {
            1004..=1006 => false,
            1000..=1014 | 3000..=4999 => true,
            _ => false,
        };
        let outcome = read_whole(&frame(Opcode::Close, &code.to_be_bytes(), None), &CLIENT);
        if expected {
            assert_eq!(outcome, items([Seen::Close(Some(code), String::new())]));
        } else {
            assert_eq!(outcome.error, Some(Error::InvalidCloseCode), "{code}");
        }
    }
}

#[test]
fn a_close_reason_must_be_utf8() {
    let refused = read_whole(&frame(Opcode::Close, b"\x03\xe8\xff", None), &CLIENT);
    assert_eq!(refused.error, Some(Error::InvalidUtf8));
}

#[test]
fn text_must_be_utf8_as_a_whole_and_not_fragment_by_fragment() {
    let cut_character = read_whole(b"\x01\x01\xc3\x80\x01\xa9", &CLIENT);
    assert_eq!(cut_character, items([text("é")]));
    let unfinished_character = read_whole(b"\x01\x01\xc3\x80\x00", &CLIENT);
    assert_eq!(unfinished_character.error, Some(Error::InvalidUtf8));
    let surrogate = read_whole(b"\x81\x03\xed\xa0\x80", &CLIENT);
    assert_eq!(surrogate.error, Some(Error::InvalidUtf8));
    let binary = read_whole(b"\x82\x01\xff", &CLIENT);
    assert_eq!(binary, items([Seen::Binary(vec![0xff])]));
}

// ---- Limits -------------------------------------------------------------------------------------

#[test]
fn a_message_of_exactly_the_limit_passes_and_one_byte_more_is_refused_at_its_header() {
    for limit in [0, 1, 125, 126, 127, 65535, 65536] {
        let rules = Rules { message_bytes_max: limit, ..CLIENT };
        let exact = frame(Opcode::Binary, &vec![1; limit], None);
        assert_eq!(read_whole(&exact, &rules), items([Seen::Binary(vec![1; limit])]));

        let (over, header_len) = header(Opcode::Binary, limit + 1);
        let refused = read_whole(&over[..header_len], &rules);
        assert_eq!(refused.error, Some(Error::MessageTooLarge), "{limit}");
    }
}

#[test]
fn the_sum_of_fragments_of_exactly_the_limit_passes_and_one_byte_more_is_refused_at_its_header() {
    let rules = Rules { message_bytes_max: 6, ..CLIENT };
    let exact = read_whole(b"\x02\x03abc\x00\x00\x80\x03def", &rules);
    assert_eq!(exact, items([Seen::Binary(b"abcdef".to_vec())]));
    let in_single_bytes = read_whole(b"\x02\x01a\0\x01b\0\x01c\0\x01d\0\x01e\x80\x01f", &rules);
    assert_eq!(in_single_bytes, exact);
    let over = read_whole(b"\x02\x03abc\x00\x00\x80\x04", &rules);
    assert_eq!(over.error, Some(Error::MessageTooLarge));
}

#[test]
fn control_frames_do_not_count_towards_the_message_limit() {
    let rules = Rules { message_bytes_max: 2, ..CLIENT };
    let stream = [b"\x02\x01a".to_vec(), frame(Opcode::Ping, &[0; 125], None), b"\x80\x01b".to_vec()];
    let seen = [Seen::Ping(vec![0; 125]), Seen::Binary(b"ab".to_vec())];
    assert_eq!(read_whole(&stream.concat(), &rules), items(seen));
}

#[test]
fn the_largest_announcements_are_refused_even_without_a_limit() {
    let rules = Rules { message_bytes_max: usize::MAX, ..CLIENT };
    let top_bit = read_whole(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", &rules);
    assert_eq!(top_bit.error, Some(Error::LengthTooLarge));
    // One bit less is a legal length: it waits for its payload, and no sum overflows.
    let waiting = read_whole(b"\x02\x01a\x80\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", &rules);
    assert_eq!(waiting.items, []);
    assert_ne!(waiting.error, Some(Error::LengthTooLarge));
}

#[test]
fn a_fragment_flood_ends_at_the_limit_even_if_all_fragments_are_empty() {
    for payload in [b"".as_slice(), b"x"] {
        let mut stream = fragment(Opcode::Binary, payload, None);
        for _ in 2..FRAGMENTS_MAX_DEFAULT {
            put_fragment(&mut stream, Opcode::Continuation, payload, None);
        }
        let one_more = [&stream[..], b"\0"].concat();
        assert_eq!(read_whole(&one_more, &CLIENT).error, None, "the last one allowed has begun");

        put_fragment(&mut stream, Opcode::Continuation, payload, None);
        stream.push(0x80);
        assert_eq!(read_whole(&stream, &CLIENT).error, Some(Error::TooManyFragments));
    }
}

#[test]
fn a_message_in_as_many_frames_as_allowed_passes() {
    let rules = Rules { fragments_max: 3, ..CLIENT };
    let passes = read_whole(b"\x02\x01a\x00\x01b\x80\x01c", &rules);
    assert_eq!(passes, items([Seen::Binary(b"abc".to_vec())]));
    let rules = Rules { fragments_max: 0, ..CLIENT };
    let single = read_whole(b"\x82\x01a", &rules);
    assert_eq!(single, items([Seen::Binary(b"a".to_vec())]));
}

// ---- Cuts ---------------------------------------------------------------------------------------

#[test]
fn a_cut_anywhere_changes_nothing() {
    for (rules, mask) in ROLES {
        for (stream, _) in samples(mask) {
            let uncut = read_whole(&stream, &rules);
            for cut in 0..=stream.len() {
                let (left, right) = stream.split_at(cut);
                assert_eq!(read([left, right], &rules), uncut, "cut at {cut} of {stream:02x?}");
            }
        }
    }
}

#[test]
fn byte_by_byte_changes_nothing() {
    for (rules, mask) in ROLES {
        for (stream, _) in samples(mask) {
            assert_eq!(read(stream.chunks(1), &rules), read_whole(&stream, &rules));
        }
    }
}

#[test]
fn a_cut_anywhere_in_a_long_header_or_at_its_end_changes_nothing() {
    for (rules, mask) in ROLES {
        for len in [65535, 65536] {
            let stream = frame(Opcode::Binary, &vec![9; len], mask);
            let cuts = (0..20).chain(stream.len() - 2..=stream.len());
            for (left, right) in cuts.map(|cut| stream.split_at(cut)) {
                assert_eq!(read([left, right], &rules), items([Seen::Binary(vec![9; len])]));
            }
        }
    }
}

#[test]
fn broken_streams_break_alike_wherever_they_are_cut() {
    for (rules, input, error, _) in BROKEN_RULES {
        for cut in 0..=input.len() {
            let (left, right) = input.split_at(cut);
            assert_eq!(read([left, right], &rules).error, Some(error));
        }
    }
}

// ---- What is written ----------------------------------------------------------------------------

#[test]
fn every_length_is_written_in_the_fewest_bytes() {
    let table = [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (1 << 30, 10)];
    for (payload_len, header_len) in table {
        assert_eq!(header(Opcode::Binary, payload_len).1, header_len, "{payload_len}");
        let mut masked = Vec::new();
        put_header(&mut masked, Opcode::Binary, payload_len, Some(KEY));
        assert_eq!(masked.len(), header_len + KEY.len());
    }
}

#[test]
fn frames_are_appended_behind_what_is_there() {
    let mut out = b"before".to_vec();
    put_frame(&mut out, Opcode::Text, b"Hello", Some(KEY));
    put_close(&mut out, None, "", None);
    assert_eq!(out, b"before\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x88\x00");
}

#[test]
fn a_close_is_read_as_it_was_written() {
    let longest = "r".repeat(CONTROL_BYTES_MAX - 2);
    let table = [(None, ""), (Some(1000), ""), (Some(1009), "transport error"), (Some(4999), &longest)];
    for (rules, mask) in ROLES {
        for (code, reason) in table {
            let mut stream = Vec::new();
            put_close(&mut stream, code, reason, mask);
            assert_eq!(read_whole(&stream, &rules), items([Seen::Close(code, reason.to_owned())]));
        }
    }
}

#[test]
fn every_error_closes_with_a_code_that_may_be_sent() {
    for (_, _, error, _) in BROKEN_RULES {
        put_close(&mut Vec::new(), Some(error.close_code()), "", None);
    }
}

#[test]
#[should_panic(expected = "a control frame of 126 bytes")]
fn we_never_write_a_control_frame_that_is_too_long() {
    put_frame(&mut Vec::new(), Opcode::Ping, &[0; 126], None);
}

#[test]
#[should_panic(expected = "close code 1005 may not be sent")]
fn we_never_write_a_close_code_that_may_not_be_sent() {
    put_close(&mut Vec::new(), Some(1005), "", None);
}

#[test]
#[should_panic(expected = "needs a code")]
fn we_never_write_a_reason_without_a_code() {
    put_close(&mut Vec::new(), None, "because", None);
}

#[test]
fn the_mask_is_the_one_of_the_rfc_at_every_length_and_undoes_itself() {
    for len in 0..40 {
        let plain: Vec<u8> = (0..len).collect();
        let by_the_rfc: Vec<u8> = (0..len).map(|i| i ^ KEY[usize::from(i) % 4]).collect();
        let mut bytes = plain.clone();
        apply_mask(&mut bytes, KEY);
        assert_eq!(bytes, by_the_rfc);
        apply_mask(&mut bytes, KEY);
        assert_eq!(bytes, plain);
    }
}

#[test]
fn the_accept_key_is_the_one_of_the_rfc() {
    let accept = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn a_key_that_is_not_16_bytes_in_base64_has_no_answer() {
    let refused = [
        "",
        "==",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQ== ",
        " dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZ==",
        "dGhlIHNhbXBsZSBub25jZQQ==",
        "dGhlIHNhbXBsZSBub25j-_==",
        "dGhlIHNhbXBsZSBub25jé==",
    ];
    for key in refused {
        assert_eq!(accept_key(key), None, "{key:?}");
    }
    assert!(accept_key("++++//////aaaaaaAAAA99==").is_some(), "spare bits are not looked at");
}

// ---- Random streams -----------------------------------------------------------------------------

/// SplitMix64: small, seeded, good enough to find trouble.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not zero.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self, chars_max: usize) -> String {
        let len = self.below(chars_max + 1);
        (0..len).map(|_| ['a', 'é', '€', '🎺'][self.below(4)]).collect()
    }

    fn mask(&mut self, sender: Role) -> Option<[u8; 4]> {
        (sender == Role::Client).then(|| (self.next() as u32).to_ne_bytes())
    }

    /// The stream in pieces of random length, some of them empty.
    fn cut<'a>(&mut self, mut stream: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !stream.is_empty() {
            let reach = if self.one_in(2) { 4 } else { stream.len() };
            let (piece, rest) = stream.split_at(self.below(reach.min(stream.len()) + 1));
            pieces.push(piece);
            stream = rest;
        }
        pieces
    }
}

/// Runs a property on many seeds. Names the seed if one of them fails.
fn fuzz(runs_default: u64, property: impl Fn(&mut Random)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("repeat with FANFARE_FUZZ_SEED={} FANFARE_FUZZ_RUNS=1", self.0);
            }
        }
    }
    let from_env = |name: &str, default: u64| match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")),
        Err(_) => default,
    };
    let first = from_env("FANFARE_FUZZ_SEED", 1);
    for run in 0..from_env("FANFARE_FUZZ_RUNS", runs_default) {
        let seed = Seed(first.wrapping_add(run));
        property(&mut Random(seed.0));
    }
}

/// A valid stream from `sender`, and what it says.
fn random_stream(random: &mut Random, sender: Role) -> (Vec<u8>, Vec<Seen>) {
    let (mut stream, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..random.below(8) {
        match random.below(4) {
            0 => put_random_control(random, sender, &mut stream, &mut seen),
            1 => {
                let said = random.bytes(300);
                put_random_message(random, sender, Opcode::Binary, &said, &mut stream, &mut seen);
                seen.push(Seen::Binary(said));
            }
            _ => {
                let said = random.text(100);
                let bytes = said.as_bytes();
                put_random_message(random, sender, Opcode::Text, bytes, &mut stream, &mut seen);
                seen.push(Seen::Text(said));
            }
        }
    }
    if random.one_in(4) {
        let reason = random.text(30);
        put_close(&mut stream, Some(3000), &reason, random.mask(sender));
        seen.push(Seen::Close(Some(3000), reason));
    }
    (stream, seen)
}

fn put_random_control(random: &mut Random, sender: Role, out: &mut Vec<u8>, seen: &mut Vec<Seen>) {
    let payload = random.bytes(CONTROL_BYTES_MAX);
    let ping = random.one_in(2);
    let opcode = if ping { Opcode::Ping } else { Opcode::Pong };
    put_frame(out, opcode, &payload, random.mask(sender));
    seen.push(if ping { Seen::Ping(payload) } else { Seen::Pong(payload) });
}

/// Whole or in fragments, and then perhaps with control frames between them.
fn put_random_message(
    random: &mut Random,
    sender: Role,
    kind: Opcode,
    payload: &[u8],
    out: &mut Vec<u8>,
    seen: &mut Vec<Seen>,
) {
    let (mut opcode, mut rest) = (kind, payload);
    while random.one_in(2) {
        let (fragment, later) = rest.split_at(random.below(rest.len() + 1));
        put_fragment(out, opcode, fragment, random.mask(sender));
        (opcode, rest) = (Opcode::Continuation, later);
        if random.one_in(3) {
            put_random_control(random, sender, out, seen);
        }
    }
    put_frame(out, opcode, rest, random.mask(sender));
}

fn random_roles(random: &mut Random) -> (Rules, Role) {
    match random.one_in(2) {
        true => (SERVER, Role::Client),
        false => (CLIENT, Role::Server),
    }
}

#[test]
fn what_one_role_writes_the_other_reads_wherever_it_is_cut() {
    fuzz(2_000, |random| {
        let (reader, sender) = random_roles(random);
        let (stream, seen) = random_stream(random, sender);
        assert_eq!(read(random.cut(&stream), &reader), items(seen));
    });
}

#[test]
fn random_bytes_never_panic_and_mean_the_same_wherever_they_are_cut() {
    fuzz(10_000, |random| {
        let (rules, _) = random_roles(random);
        let mut stream = random.bytes(60);
        // Most first bytes are refused at once. Begin with one that is not.
        if let Some(first) = stream.first_mut() {
            *first = [0x01, 0x02, 0x81, 0x82, 0x88, 0x89][random.below(6)];
        }
        assert_eq!(read(random.cut(&stream), &rules), read_whole(&stream, &rules));
    });
}

#[test]
fn a_valid_stream_with_a_few_bits_flipped_never_panics_and_is_cut_independent() {
    let tight = |rules| Rules { message_bytes_max: 200, fragments_max: 3, ..rules };
    fuzz(2_000, |random| {
        let (reader, sender) = random_roles(random);
        let (mut stream, _) = random_stream(random, sender);
        for _ in 0..random.below(4).min(stream.len()) {
            let at = random.below(stream.len());
            stream[at] ^= 1 << random.below(8);
        }
        let uncut = read_whole(&stream, &tight(reader));
        assert_eq!(read(random.cut(&stream), &tight(reader)), uncut);
    });
}
