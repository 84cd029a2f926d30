//! Placeholders: where `{"_placeholder":true,"num":0}` stands in JSON text, at any depth, keys in any order.
//!
//! All text here is known to be valid JSON. As in JavaScript, the last of two equal keys counts. By hand and not with
//! serde: a visitor would recurse, while a peer chooses the depth, and would refuse strings with half a surrogate pair,
//! which JavaScript sends. One pass is enough, because a peer chooses the length.

use std::borrow::Cow;
use std::ops::Range;

/// What makes an object a placeholder, as far as its members are known. Arrays have one too, to keep count.
#[derive(Default)]
struct Members {
    marked: bool,
    num: Range<usize>,
}

/// Where the numbers of all placeholders are, in the order of closing braces; an empty range where one has no number.
pub(crate) fn placeholders(json: &str) -> Vec<Range<usize>> {
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
                    match unescape(literal).as_deref() {
                        Some("_placeholder") => members.marked = value.starts_with("true"),
                        Some("num") => {
                            let start = json.len() - value.len();
                            members.num = start..start + number_literal(value).len();
                        }
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
pub(super) fn string_literal(json: &str) -> &str {
    let mut escaped = false;
    let closing = json.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    &json[..closing.expect("valid JSON closes its strings") + 2]
}

/// What a valid string literal says. `None` when it holds half of a surrogate pair.
pub(super) fn unescape(literal: &str) -> Option<Cow<'_, str>> {
    if literal.contains('\\') {
        serde_json::from_str(literal).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(&literal[1..literal.len() - 1]))
    }
}

/// The number that valid JSON begins with; empty when it begins with another value.
///
/// It ends where no number goes on, not at the next comma or brace: of a long nested value that could be far away, and
/// looking for it again on every level would take quadratic time.
pub(super) fn number_literal(json: &str) -> &str {
    let belongs = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    &json[..json.bytes().take_while(belongs).count()]
}
