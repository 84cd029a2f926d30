//! Tidy: what the compiler does not check about our own sources.
//!
//! A layer imports only downwards; below the workers there is no clock, no thread, no lock and no system call; unsafe
//! code has its places, and each block its argument.

use std::fs;
use std::path::{Path, PathBuf};

/// What each part of `src/` may name of the crate. The crate's root is what users see: for the standalone program only.
const LAYERS: [(&str, &[&str]); 8] = [
    ("proto", &["proto"]),
    ("error.rs", &["proto"]),
    ("settings.rs", &[]),
    ("shard", &["proto", "error", "settings", "shard"]),
    ("worker", &["proto", "error", "settings", "shard", "worker"]),
    ("api", &["proto", "error", "settings", "shard", "worker", "api", "CloseReason"]),
    ("standalone", &["standalone", ROOT]),
    ("bench.rs", &["proto", "settings", "shard", "worker"]),
];

/// Any item that lib.rs exports at the root.
const ROOT: &str = "*";

/// Where unsafe code may be: where system calls are.
const UNSAFE: [&str; 1] = ["src/worker/"];

/// What makes a value depend on more than its inputs.
const NOT_BELOW_WORKERS: [&str; 9] =
    ["Instant", "SystemTime", "std::thread", "std::net::Tcp", "Mutex", "RwLock", "tokio", "rand::rng(", "std::env"];

/// The Rust files of a part of `src/`.
fn sources(part: &str) -> Vec<(PathBuf, String)> {
    files(&Path::new("src").join(part))
}

/// All Rust files that this package's rules are for, by their paths inside it.
fn sources_and_benches() -> impl Iterator<Item = (PathBuf, String)> {
    sources("").into_iter().chain(files(Path::new("benches")))
}

fn files(part: &Path) -> Vec<(PathBuf, String)> {
    fn walk(path: &Path, found: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("a readable folder").map(|entry| entry.expect("an entry").path());
            entries.for_each(|path| walk(&path, found));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.to_path_buf(), fs::read_to_string(path).expect("a readable file")));
        }
    }
    let mut found = Vec::new();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    walk(&package.join(part), &mut found);
    assert!(!found.is_empty(), "{} has no Rust file", part.display());
    let inside = |path: PathBuf| path.strip_prefix(package).expect("it was found there").to_path_buf();
    found.into_iter().map(|(path, text)| (inside(path), text)).collect()
}

/// Lines of code that are not comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The code in front of the tests, which may do what they like.
fn shipped(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().expect("split gives at least one piece")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        ["tests", "tests.rs", "simulation", "simulation.rs", "fuzzing.rs", "fuzz.rs"].contains(&&*part)
    })
}

#[test]
fn a_layer_imports_only_downwards() {
    let mut broken = Vec::new();
    for (part, allowed) in LAYERS {
        for (path, text) in sources(part) {
            for (number, line) in code(&text) {
                for used in line.split("crate::").skip(1) {
                    let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let group = name.is_empty();
                    let known = LAYERS.iter().any(|(layer, _)| layer.trim_end_matches(".rs") == name);
                    let fine = allowed.contains(&&*name) || (allowed.contains(&ROOT) && !known);
                    if group || !fine {
                        broken.push(format!("{}:{number}: {}", path.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "imports that do not point downwards, or that hide where they point:\n{}",
        broken.join("\n")
    );
}

#[test]
fn below_the_workers_nothing_depends_on_more_than_its_inputs() {
    let mut broken = Vec::new();
    for (path, text) in ["proto", "shard"].into_iter().flat_map(sources).filter(|(path, _)| !is_test(path)) {
        for (number, line) in code(shipped(&text)) {
            if let Some(word) = NOT_BELOW_WORKERS.iter().find(|word| line.contains(**word)) {
                broken.push(format!("{}:{number}: `{word}` in {}", path.display(), line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "a clock, a thread, a lock or a system call below the workers:\n{}", broken.join("\n"));
}

#[test]
fn unsafe_code_has_its_places_and_says_why_it_is_sound() {
    let mut broken = Vec::new();
    for (path, text) in sources_and_benches() {
        let inside = UNSAFE.iter().any(|place| path.to_string_lossy().starts_with(place));
        let lines: Vec<&str> = text.lines().collect();
        for (number, _) in code(&text).filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe fn")) {
            let argued = lines[number.saturating_sub(6)..number].iter().any(|line| line.contains("SAFETY:"));
            if !inside || !argued {
                broken.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "unsafe code elsewhere, or without its argument:\n{}", broken.join("\n"));
}

#[test]
fn every_file_begins_with_what_it_is() {
    let silent: Vec<_> =
        sources_and_benches().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "files without a first line that says what they are: {silent:?}");
}
