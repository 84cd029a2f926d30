//! Install: the foreign clients, from their lock files into `target/test-clients`, once.
//!
//! A copy of the lock file is the stamp of a finished installation; another lock file means install again.
//! A file lock keeps test threads and test processes from installing at the same time.
//! Needs: Node.js 18 (20 to drive a browser), Python 3.10 and Chromium. Missing programs are installed with apt-get
//! where that is possible; otherwise the test fails and says what could not be had.

use super::{clients_dir, process::run, suites_dir};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const INSTALL_TIME_MAX: Duration = Duration::from_secs(300);

/// The names that distributions give it.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// `node tests/clients/js/<script>`, with the packages it imports.
pub fn node(script: &str) -> Command {
    let packages = node_modules();
    let mut command = Command::new("node");
    command.arg("--test-reporter=spec").arg(suites_dir().join("js").join(script));
    command.env("FANFARE_NODE_MODULES", packages);
    command
}

/// The directory of an installed npm package.
pub fn node_package(name: &str) -> PathBuf {
    node_modules().join(name)
}

/// The path of a Chromium, or of a browser made of it.
pub fn chromium() -> PathBuf {
    let _guard = install_lock();
    need_node(20);
    let found = || CHROMIUM.iter().find_map(|name| on_path(name));
    found().unwrap_or_else(|| {
        apt_install(&["chromium"]);
        found().unwrap_or_else(|| panic!("could not get Chromium: none of {CHROMIUM:?} runs, not even when installed"))
    })
}

/// `python tests/clients/py/<script>`, with the packages it imports.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(virtual_env().join("bin/python"));
    // -B: no __pycache__ in the source tree
    command.arg("-B").arg(suites_dir().join("py").join(script)).arg("--verbose");
    command
}

fn node_modules() -> PathBuf {
    let (source, home) = (suites_dir().join("js"), clients_dir().join("js"));
    let _guard = install_lock();
    let (lock, stamp) = (source.join("package-lock.json"), home.join("node_modules/installed-package-lock.json"));
    if !same_text(&lock, &stamp) {
        need_node(18);
        fs::create_dir_all(&home).expect("target is writable");
        for file in ["package.json", "package-lock.json"] {
            fs::copy(source.join(file), home.join(file)).expect("target is writable");
        }
        // no scripts: none of our packages needs one
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&home);
        must(&mut npm, "the JavaScript clients (tests/clients/js/package-lock.json)");
        fs::copy(lock, stamp).expect("target is writable");
    }
    home.join("node_modules")
}

fn virtual_env() -> PathBuf {
    let home = clients_dir().join("py");
    let _guard = install_lock();
    let (requirements, stamp) = (suites_dir().join("py/requirements.txt"), home.join("installed-requirements.txt"));
    // the second condition: the python that the environment links to may have been removed
    if !same_text(&requirements, &stamp) || !home.join("bin/python").exists() {
        make_virtual_env(&home);
        let mut pip = Command::new(home.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
        must(&mut pip, "the Python clients (tests/clients/py/requirements.txt)");
        fs::copy(requirements, stamp).expect("target is writable");
    }
    home
}

fn make_virtual_env(home: &Path) {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(home);
    if run(&mut venv, INSTALL_TIME_MAX, |_| {}).is_err() {
        apt_install(&["python3", "python3-venv"]);
        must(&mut venv, "a Python virtual environment");
    }
}

/// Fails unless there is a Node.js of this version or a later one.
fn need_node(major_min: u32) {
    let version = || run(Command::new("node").arg("--version"), INSTALL_TIME_MAX, |_| {});
    let npm_runs = || run(Command::new("npm").arg("--version"), INSTALL_TIME_MAX, |_| {}).is_ok();
    if version().is_err() || !npm_runs() {
        apt_install(&["nodejs", "npm"]);
    }
    let printed = version().unwrap_or_else(|output| panic!("could not get Node.js:\n{output}"));
    let major = printed.lines().find_map(|line| line.strip_prefix('v')?.split('.').next()?.parse::<u32>().ok());
    assert!(major >= Some(major_min), "this test needs Node.js {major_min} or later, not:\n{printed}");
}

/// Where a program is, if it is there and runs: a distribution may have a stub that only says what to install.
fn on_path(name: &str) -> Option<PathBuf> {
    let directories = env::var_os("PATH")?;
    let mut places = env::split_paths(&directories).map(|directory| directory.join(name));
    places.find(|path| run(Command::new(path).arg("--version"), INSTALL_TIME_MAX, |_| {}).is_ok())
}

fn apt_install(packages: &[&str]) {
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    let what = packages.join(" and ");
    must(apt().arg("update"), &what);
    must(apt().args(["install", "-y"]).args(packages), &what);
}

fn must(command: &mut Command, what: &str) {
    if let Err(output) = run(command, INSTALL_TIME_MAX, |_| {}) {
        panic!("could not get {what}:\n{output}");
    }
}

fn same_text(wanted: &Path, stamp: &Path) -> bool {
    fs::read(wanted).expect("the lock file is in the repository") == fs::read(stamp).unwrap_or_default()
}

/// Held until dropped. A process that dies lets go of it.
fn install_lock() -> File {
    fs::create_dir_all(clients_dir()).expect("target is writable");
    let file = File::create(clients_dir().join("install.lock")).expect("target is writable");
    file.lock().expect("the target directory supports file locks");
    file
}
