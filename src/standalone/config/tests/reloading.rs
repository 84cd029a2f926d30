//! Reloading: what changes, what is kept and named, and what a bad file does.

use super::*;

/// What a server that runs with the first file makes of the second.
fn reread(running: &str, new: &str) -> Result<Reloaded, ConfigErrors> {
    load_file(running).reload(&load_file(new))
}

#[test]
fn every_option_either_changes_or_is_named_and_keeps_its_value() {
    let (old, new) = (load_file("[namespaces.\"/é \\\"quoted\\\"\\t\"]"), load_file(EVERY_OPTION));
    let Reloaded { config, changed, kept } = old.reload(&new).unwrap();
    for spec in options().filter(|spec| !spec.kind.is_secret()) {
        let key = spec.key();
        let value = |config: &Config| rendered(config, spec.name).split(" # ").next().unwrap().to_owned();
        let is_live = spec.reload == Reload::Live;
        assert_eq!((changed.contains(&key), kept.contains(&key)), (is_live, !is_live), "{key}");
        assert_eq!(value(&config), value(if is_live { &new } else { &old }), "{key}");
    }
    assert!(changed.contains(&r#"namespaces."/".client_events"#.into()));
    assert!(changed.contains(&r#"namespaces."/é \"quoted\"\t".join"#.into()));
    for (name, namespace) in &config.namespaces {
        let (old, new) = (&old.namespaces[name], &new.namespaces[name]);
        assert_eq!((&namespace.client_events, namespace.join), (&new.client_events, new.join));
        let rules = |it: &Namespace| (it.policy, it.conflate_every, it.retain);
        assert_eq!(rules(namespace), rules(old));
    }
    assert!(kept.contains(&r#"namespaces."/é \"quoted\"\t".retain"#.into()));
}

#[test]
fn the_rules_of_rooms_stay_and_are_named() {
    let running = "[namespaces.\"/\".rooms]\na = { retain = true }\n\"b*\" = { retain = true }\nc = {}";
    let new = "[namespaces.\"/\".rooms]\na = { retain = true }\n\"b*\" = { retain = false }\nd = {}";
    let Reloaded { config, changed, kept } = reread(running, new).unwrap();
    assert_eq!((config.rooms, changed.len()), (load_file(running).rooms, 0));
    let room = |name: &str| format!("namespaces.\"/\".rooms.\"{name}\"");
    assert_eq!(kept, [room("b*"), room("c"), room("d")]);
}

#[test]
fn what_is_the_same_is_neither_changed_nor_named() {
    let Reloaded { config, changed, kept } = reread(EVERY_OPTION, EVERY_OPTION).unwrap();
    assert_eq!((config, changed.len(), kept.len()), (load_file(EVERY_OPTION), 0, 0));
}

#[test]
fn the_key_changes_and_is_not_told() {
    const OTHER: &str = "another-key-of-the-tests";
    let with_key = |key| load_all(&["--publish-key", key], &[], "");
    let Reloaded { config, changed, .. } = with_key(KEY).reload(&with_key(OTHER)).unwrap();
    assert_eq!(config.server.publish_key.unwrap().expose(), OTHER);
    assert_eq!(changed, ["server.publish_key"]);
}

#[test]
fn namespaces_neither_come_nor_go() {
    let (one, other) = ("[namespaces.\"/a\"]\njoin = false", "[namespaces.\"/b\"]\njoin = false");
    let Reloaded { config, kept, .. } = reread(one, other).unwrap();
    assert_eq!(config.namespaces, load_file(one).namespaces);
    assert_eq!(kept, [r#"namespaces."/b""#, r#"namespaces."/a""#]);
}

#[test]
fn a_file_that_is_right_by_itself_may_be_wrong_beside_what_is_kept() {
    let open = format!("[server]\nlisten = \"0.0.0.0:80\"\npublish_key = \"{KEY}\"");
    let errors = reread(&open, "[server]\nlisten = \"127.0.0.1:80\"").unwrap_err();
    assert!(matches!(errors.iter().next().unwrap().problem, Problem::ExposedWithoutKey { .. }), "{errors}");
    assert!(errors.to_string().contains("0.0.0.0:80 is not loopback"), "{errors}");
}

#[test]
fn the_operators_manual_says_of_each_option_what_a_reload_does() {
    let manual = include_str!("../../../../docs/operating.md");
    for spec in options().chain(Namespace::OPTIONS).chain(Room::OPTIONS) {
        let default = match spec.default {
            None => "unset".into(),
            Some("") => "none".into(),
            Some(word) => format!("`{word}`"),
        };
        let reload = match spec.reload {
            Reload::Live => "yes",
            Reload::Restart => "restart",
        };
        let row = format!("| `{}` | {default} | {reload} |", spec.key());
        assert!(manual.contains(&row), "docs/operating.md misses this row: {row}");
    }
    let rows = manual.lines().filter(|line| line.ends_with("| yes |") || line.ends_with("| restart |")).count();
    assert_eq!(
        rows,
        options().count() + Namespace::OPTIONS.len() + Room::OPTIONS.len(),
        "a row of an option that is gone"
    );
}
