//! Placeholders in JSON text that nobody decodes: `{"_placeholder":true,"num":0}`, at any depth, keys in any order.
//!
//! All text here is valid JSON: `serde_json` has just read it or written it. As in JavaScript, the last of two equal
//! keys counts. Nothing recurses, because a peer chooses the depth, and one pass is enough, because a peer chooses the
//! length.

use std::borrow::Cow;
use std::ops::Range;

/// What makes an object a placeholder, as far as its members are known. Arrays have one too, to keep count.
#[derive(Default)]
struct Members {
    marked: bool,
    num: Range<usize>,
}

/// Where the numbers of all placeholders are, in the order of closing braces; an empty range where one has no number.
pub(super) fn placeholders(json: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut enclosing: Vec<Members> = Vec::new();
    let mut at = 0;
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'{' | b'[' => enclosing.push(Members::default()),
            b'}' | b']' => {
                let members = enclosing.pop().expect("valid JSON closes what it opened");
                found.extend(members.marked.then_some(members.num));
            }
            b'"' => {
                let literal = string_literal(&json[at..]);
                at += literal.len() - 1;
                // In valid JSON, a string before a colon is a key, and a key is inside an object.
                if let Some(value) = json[at + 1..].trim_ascii_start().strip_prefix(':') {
                    let value = value.trim_ascii_start();
                    let members = enclosing.last_mut().expect("a key is inside an object");
                    match unescaped(literal).as_ref() {
                        "_placeholder" => members.marked = value.starts_with("true"),
                        "num" => members.num = number(json.len() - value.len(), value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The string, quotes included, that this begins with.
fn string_literal(json: &str) -> &str {
    let mut escaped = false;
    let closing = json.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    &json[..closing.expect("valid JSON closes its strings") + 2]
}

/// What a string says; nothing that we look for when it holds half of a surrogate pair.
fn unescaped(literal: &str) -> Cow<'_, str> {
    if literal.contains('\\') {
        return serde_json::from_str(literal).map_or(Cow::Borrowed(""), Cow::Owned);
    }
    Cow::Borrowed(&literal[1..literal.len() - 1])
}

/// The number that this begins with, `start` bytes into the whole text; empty when it begins with another value.
fn number(start: usize, value: &str) -> Range<usize> {
    let belongs = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    start..start + value.bytes().take_while(belongs).count()
}

/// Marks the attachments that placeholders name. False if one of them names none.
pub(super) fn mark_used(used: &mut [bool], json: &str) -> bool {
    placeholders(json).into_iter().all(|num| {
        let mark = json[num].parse::<usize>().ok().and_then(|num| used.get_mut(num));
        mark.map(|mark| *mark = true).is_some()
    })
}

/// The same text with other numbers in its placeholders, all of which must have one.
pub(super) fn renumbered(json: &str, new: impl Fn(usize) -> usize) -> String {
    let mut nums = placeholders(json);
    nums.sort_unstable_by_key(|num| num.start);
    let mut renumbered = String::with_capacity(json.len() + nums.len());
    let mut copied = 0;
    for num in nums {
        let old = json[num.clone()].parse().expect("Args checks its placeholders when it is made");
        renumbered.push_str(&json[copied..num.start]);
        renumbered.push_str(&new(old).to_string());
        copied = num.end;
    }
    renumbered.push_str(&json[copied..]);
    renumbered
}
