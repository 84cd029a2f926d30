//! Kernel: the few things that we ask of Linux and that have no safe name in Rust. All of loadtest's unsafe is here.
//!
//! Not here: everything else about descriptors; see `tables`.

#![allow(unsafe_code)]

use socket2::Socket;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Gives the calling thread a descriptor table of its own, a copy of the one that it shared until now.
///
/// From here on a number means one descriptor in this thread and another one elsewhere. So a thread calls this first,
/// and whatever it opens later never leaves it: not to another thread, not even to be dropped there.
pub fn own_table() -> io::Result<()> {
    // SAFETY: the call takes no pointer and touches no memory of ours. What it can break is I/O safety: an `OwnedFd`
    // moved to or from another thread would name the wrong descriptor. Callers keep the rule above: clients' streams
    // and polls are made and dropped inside `crowd::Crowd::run`, and only counts leave it.
    checked(unsafe { libc::unshare(libc::CLONE_FILES) })
}

/// Lets the calling thread run only on a core that no ordinary thread wants, for good. It needs no privilege: see sched(7),
/// `SCHED_IDLE`.
pub fn give_way() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live `sched_param`, which the kernel reads; 0 is the calling thread.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) })
}

/// Raises the soft limit of descriptors per table to the hard one, and says what it is now.
pub fn raise_table_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live `rlimit`, which the kernel fills.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live `rlimit`, which the kernel reads.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Lets `bind` to an address leave the choice of the port to `connect`, which may use one port towards many servers
/// and reuse one that still lingers from the last run; `bind` alone would run out of ports too early.
pub fn choose_port_on_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer is to a live integer of the told length, which the kernel reads; the descriptor is open for
    // as long as `socket` is borrowed.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    })
}

/// What all threads of a process have run so far, in user and system, those included that have ended.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live `clockid_t`, which the call fills.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: the pointer is to a live `timespec`, which the kernel fills.
    checked(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, thread};

    /// The 41st field of proc_pid_stat(5); the second is a name in parentheses, which may hold blanks.
    fn scheduling_policy() -> libc::c_int {
        let stat = fs::read_to_string("/proc/thread-self/stat").expect("a thread can read of itself");
        let (_, behind_name) = stat.rsplit_once(") ").expect("the name ends");
        behind_name.split(' ').nth(41 - 3).expect("there are 52").parse().expect("it is a number")
    }

    #[test]
    fn a_thread_that_gives_way_does_so_alone() {
        let before = scheduling_policy();
        let given = thread::spawn(|| give_way().map(|()| scheduling_policy())).join().expect("it does not panic");
        assert_eq!(given.expect("nothing forbids it here"), libc::SCHED_IDLE);
        assert_eq!(scheduling_policy(), before);
        assert_ne!(before, libc::SCHED_IDLE);
    }
}
