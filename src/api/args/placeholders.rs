//! Placeholders of arguments that nobody decodes: which attachments they name, and how they are numbered anew.
//!
//! Finding them is the codec's work (proto/socketio/placeholders.rs). All text here is valid JSON: `serde_json` has just
//! read it or written it.

pub(super) use crate::proto::socketio::placeholders::placeholders;

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
