//! io_uring: how it sends where the system allows it, and where it does not.

use crate::program::{Program, command, stderr};
use crate::support::client::Client;
use serde_json::json;
use std::io::BufReader;
use std::io::Read as _;
use std::process::{Command, Stdio};

/// How `auto` sends here.
#[cfg(target_os = "linux")]
pub fn best_io() -> &'static str {
    // SAFETY: nothing is set up, because the parameters are missing: the kernel says so, or that it would not anyway.
    let error = match unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<u8>()) } {
        -1 => std::io::Error::last_os_error(),
        _ => unreachable!("a ring without parameters"),
    };
    if error.raw_os_error() == Some(libc::EFAULT) { "uring" } else { "send" }
}

#[cfg(not(target_os = "linux"))]
pub fn best_io() -> &'static str {
    "send"
}

/// The program under a filter of system calls that forbids io_uring, as containers have one.
#[cfg(target_os = "linux")]
fn without_io_uring(words: &[&str]) -> Command {
    use std::os::unix::process::CommandExt as _;
    let forbid = || {
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let (load, equal, answer) =
            (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET);
        let mut filter = [
            step(load as u16, 0, 0, std::mem::offset_of!(libc::seccomp_data, nr) as u32),
            step(equal as u16, 0, 1, libc::SYS_io_uring_setup as u32),
            step(answer as u16, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            step(answer as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the kernel copies the filter, which lives until both calls have returned.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    let mut command = command(&[&["serve"], words].concat());
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(forbid) };
    command
}

/// Everybody gets what is published.
fn serves_websockets(program: &Program) {
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(program.address)).collect();
    for text in ["hello", "again"] {
        assert_eq!(program.publish(json!({"event": "say", "args": [text]})).json(), json!({"sockets": 50}));
        for client in &mut clients {
            client.expect(&format!(r#"42["say","{text}"]"#));
        }
    }
}

#[test]
fn it_sends_by_the_best_that_the_system_allows_and_says_which() {
    for words in [&[][..], &["--io", best_io()]] {
        let program = Program::start(words);
        assert!(program.greeting.contains(&format!(", I/O: {}\n", best_io())), "{words:?}: {}", program.greeting);
        assert_eq!(program.stats()["io"], json!(best_io()));
        serves_websockets(&program);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn each_worker_with_a_descriptor_table_of_its_own_sends_by_the_best_too() {
    let program = Program::start(&["--fd-tables", "per-worker", "--io", best_io()]);
    assert!(program.greeting.contains(&format!(", I/O: {}\n", best_io())), "{}", program.greeting);
    serves_websockets(&program);
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn where_io_uring_is_forbidden_auto_serves_without_it_and_says_why() {
    let mut command = without_io_uring(&["--io", "auto"]);
    command.env("NO_COLOR", "1").stderr(Stdio::piped());
    let mut program = Program::of(command);
    assert!(program.greeting.contains(", I/O: send\n"), "{}", program.greeting);
    serves_websockets(&program);
    let mut log = BufReader::new(program.child.stderr.take().unwrap());
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    let said = text.lines().filter(|line| line.contains("io_uring is not to be had here")).collect::<Vec<_>>();
    assert!(said.len() == 1 && said[0].contains("Operation not permitted") && said[0].contains("workers=2"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn where_io_uring_is_forbidden_insisting_on_it_ends_with_2_and_a_way_out() {
    for tables in ["shared", "per-worker"] {
        let output =
            without_io_uring(&["--listen", "127.0.0.1:0", "--io", "uring", "--fd-tables", tables]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("fanfare: setting `io`: sending through io_uring needs Linux 5.6"), "{text}");
        assert!(last.ends_with("use auto or send (Operation not permitted (os error 1))"), "{text}");
        assert!(output.stdout.is_empty());
    }
}
