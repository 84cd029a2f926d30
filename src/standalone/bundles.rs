//! Bundles: the official browser client, served under the endpoint's path as the reference does.
//!
//! The files are read once, at the start. Only these names are taken from the endpoint, and only those that are there;
//! any other name under the path gets the endpoint's own refusal.

use super::asset::Asset;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The names in the `dist` folder of socket.io-client, the one for pages first.
const NAMES: [&str; 8] = [
    "socket.io.min.js",
    "socket.io.js",
    "socket.io.esm.min.js",
    "socket.io.msgpack.min.js",
    "socket.io.min.js.map",
    "socket.io.js.map",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js.map",
];

/// As in the reference: kept by browsers, and asked about each time.
const CACHE_CONTROL: &str = "public, max-age=0";

/// The files that are there, by name.
#[derive(Default)]
pub struct Bundles(BTreeMap<&'static str, Asset>);

/// Why the files cannot be served. The operator must act.
#[derive(Debug)]
pub enum Problem {
    /// The directory holds none of them.
    NoneThere {
        directory: PathBuf,
    },
    Unreadable {
        file: PathBuf,
        error: std::io::Error,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NoneThere { directory } => write!(
                f,
                "{directory:?} has none of the client's files, like {}; they are in node_modules/socket.io-client/dist",
                NAMES[0]
            ),
            Problem::Unreadable { file, error } => write!(f, "cannot read {file:?}: {error}"),
        }
    }
}

impl Bundles {
    /// Reads what the directory has of the client.
    pub fn read(directory: &Path) -> Result<Bundles, Problem> {
        let version = package_version(directory);
        let mut files = BTreeMap::new();
        for name in NAMES {
            let file = directory.join(name);
            match std::fs::read(&file) {
                Ok(bytes) => files.insert(name, asset(name, bytes.into(), version.as_deref())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Problem::Unreadable { file, error }),
            };
        }
        if files.is_empty() {
            return Err(Problem::NoneThere { directory: directory.into() });
        }
        Ok(Bundles(files))
    }

    /// The names that are there, the one for pages first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(|name| self.0.contains_key(name))
    }

    pub fn get(&self, name: &str) -> Option<&Asset> {
        self.0.get(name)
    }
}

fn asset(name: &str, bytes: Bytes, version: Option<&str>) -> Asset {
    let content_type = match name.ends_with(".map") {
        true => "application/json; charset=utf-8",
        false => "application/javascript; charset=utf-8",
    };
    let version = version.map_or_else(|| digest(&bytes), str::to_owned);
    Asset::new(bytes, &version, content_type, CACHE_CONTROL)
}

/// The client's version, from the package.json beside the directory. Only one that can stand in a header is one.
fn package_version(directory: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let text = std::fs::read_to_string(directory.canonicalize().ok()?.parent()?.join("package.json")).ok()?;
    let package: Package = serde_json::from_str(&text).ok()?;
    let in_version = |b: u8| b.is_ascii_alphanumeric() || b".-+".contains(&b);
    (package.name == "socket.io-client" && package.version.bytes().all(in_version)).then_some(package.version)
}

/// Names a content: 16 hexadecimal digits of its SHA-256.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_have_equal_names_and_others_others() {
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea");
        assert_ne!(digest(b"abd"), digest(b"abc"));
    }
}
