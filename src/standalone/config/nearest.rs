//! Nearest: the name that was probably meant.
//!
//! Compared by edits (a transposition is one), after `pingInterval`, `Ping-Interval` and `ping_interval` are made one.
//! At most one edit for every three characters, and three in all: further away a suggestion is a guess.

/// The answer whose name is nearest to `given`, if one is near; the first of equals.
pub fn nearest(given: &str, names: impl Iterator<Item = (String, String)>) -> Option<String> {
    let given = snake_case(given);
    let near = names.filter_map(|(name, answer)| {
        let distance = strsim::damerau_levenshtein(&given, &name.to_lowercase());
        (distance <= (name.chars().count() / 3).min(3)).then_some((distance, answer))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, answer)| answer)
}

fn snake_case(given: &str) -> String {
    let mut out = String::new();
    let mut after_lower = false;
    for c in given.chars() {
        if c.is_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = c.is_lowercase();
        out.extend(if c == '-' { '_' } else { c }.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::nearest;

    fn ask(given: &str) -> Option<String> {
        let names = ["listen", "ping_interval", "ping_timeout", "pin"];
        nearest(given, names.iter().map(|name| (name.to_string(), name.to_uppercase())))
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(ask("pingInterval").as_deref(), Some("PING_INTERVAL"));
        assert_eq!(ask("ping-timeuot").as_deref(), Some("PING_TIMEOUT"));
        assert_eq!(ask("lisen").as_deref(), Some("LISTEN"));
        assert_eq!(ask("pni").as_deref(), Some("PIN"));
        assert_eq!(ask("port"), None);
        assert_eq!(ask(""), None);
    }
}
