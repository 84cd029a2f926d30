//! Fuzz: no data makes a decode panic, and what `Args` took can be sent on.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::placeholders::mark_used;
use super::tests::{Flat, Goal, Shape, Tagged, Untagged, bin, parts};
use super::*;

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (splitmix(&mut self.0) % n as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\",
    " ",
    "0",
    "1",
    "-",
    "1e9",
    "null",
    "true",
    "false",
    "\"a\"",
    "\"num\"",
    "\"_placeholder\"",
    "\"\\u005fplaceholder\"",
    "{\"_placeholder\":true,\"num\":0}",
    "{\"num\":1,\"_placeholder\":true}",
    "[\"ev\",",
    "\u{e9}",
    "\u{1F600}",
    "\\u",
    "\"x\":",
];

/// Mostly JSON, then damaged now and then.
fn random_json(random: &mut Random, depth: usize) -> String {
    let several = |random: &mut Random, open: &str, close: &str, member: &mut dyn FnMut(&mut Random) -> String| {
        let members: Vec<_> = (0..random.below(4)).map(|_| member(random)).collect();
        format!("{open}{}{close}", members.join(","))
    };
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => random.pick(&["null", "true", "false", "0", "-1.5", "1e400", "\"\"", "\"\\ud83d\"", "\"[\\\"\""]).into(),
        1 => format!("{}", random.below(300)),
        2 => format!("\"{}\"", random.below(1000)),
        3 => format!("{{\"_placeholder\":true,\"num\":{}}}", random.below(3)),
        4 => format!("{{\"num\": {} ,\"_placeholder\":true}}", random.below(3)),
        5 => random.pick(PIECES).into(),
        6 => several(random, "[", "]", &mut |random| random_json(random, depth - 1)),
        _ => several(random, "{", "}", &mut |random| {
            let key = random.pick(&[
                "\"a\"",
                "\"num\"",
                "\"_placeholder\"",
                "\"player\"",
                "\"type\"",
                "\"pixels\"",
                "\"Line\"",
            ]);
            format!("{key}:{}", random_json(random, depth - 1))
        }),
    }
}

fn random_data(random: &mut Random) -> String {
    if random.below(4) == 0 {
        return (0..random.below(30)).map(|_| random.pick(PIECES)).collect();
    }
    let mut data = format!("[\"ev\",{},{}]", random_json(random, 3), random_json(random, 3));
    if random.below(3) == 0 {
        let cuts: Vec<_> = data.char_indices().map(|(at, _)| at).collect();
        let at = cuts[random.below(cuts.len())];
        match random.below(3) {
            0 => data.truncate(at),
            1 => data.insert_str(at, random.pick(PIECES)),
            _ => drop(data.remove(at)),
        }
    }
    data
}

#[test]
fn decode_never_panics_and_what_args_take_can_be_sent_on() {
    let seed = env("FANFARE_FUZZ_SEED", 1);
    let runs = env("FANFARE_FUZZ_RUNS", 20_000);
    eprintln!("FANFARE_FUZZ_SEED={seed} FANFARE_FUZZ_RUNS={runs}");
    let mut random = Random(seed);
    let mut sent_on = 0;
    for _ in 0..runs {
        let data = random_data(&mut random);
        let attachments = parts(&[&b"zero"[..], &b"one"[..]][..random.below(3)]);
        let _ = decode_event::<()>(&data, &attachments);
        let _ = decode_event::<String>(&data, &attachments);
        let _ = decode_event::<(Option<u8>, Binary)>(&data, &attachments);
        let _ = decode_event::<(Bytes, Vec<Bytes>)>(&data, &attachments);
        let _ = decode_event::<Goal>(&data, &attachments);
        let _ = decode_event::<Shape>(&data, &attachments);
        let _ = decode_event::<(Tagged, Untagged)>(&data, &attachments);
        let _ = decode_event::<(Flat, Box<RawValue>)>(&data, &attachments);
        let _ = decode_ack::<(Value, Value)>(&data, &attachments);
        let _ = decode_ack::<(Value, Args)>(&data, &attachments);

        let valid = serde_json::from_str::<Vec<&RawValue>>(&data).is_ok() && !data.is_empty();
        let fits = attachments.is_empty() || (valid && mark_used(&mut vec![false; attachments.len()], &data));
        let all = decode_event::<Args>(&data, &attachments);
        assert!(all.is_err() || valid || data.is_empty(), "{data}");
        let Ok(all) = all else {
            assert!(!valid || !fits, "{data}");
            continue;
        };
        sent_on += 1;
        let _ = all.to_values();
        let alone = encode_event("ev", &all).unwrap();
        let again: Args = decode_event(&alone.data, &alone.attachments).unwrap();
        assert_eq!(encode_event("ev", &again).unwrap(), alone, "{data}");

        // After another attachment each placeholder still names the bytes that it named.
        let Ok(shifted) = encode_event("ev", &(bin(b"first"), &all)) else {
            assert!(attachments.is_empty(), "{data}");
            continue;
        };
        let (_, shifted): (Binary, Args) = decode_event(&shifted.data, &shifted.attachments).unwrap();
        for position in 0..all.len() {
            assert_eq!(all.get::<Binary>(position).ok(), shifted.get::<Binary>(position).ok(), "{data}");
            assert_eq!(all.get::<Vec<Binary>>(position).ok(), shifted.get::<Vec<Binary>>(position).ok(), "{data}");
        }
    }
    assert!(runs < 1000 || sent_on > runs / 10, "{sent_on} of {runs} were sent on: the fuzz has become blind");
}
