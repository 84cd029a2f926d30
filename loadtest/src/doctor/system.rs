//! System: what the kernel says about this machine, read from /proc and /sys below a root.
//!
//! A file that is missing or unreadable is `None`, never a guess: containers hide much, and a check that cannot see says
//! so. The root is `/`, and a made-up folder in tests.

use crate::error;
use crate::kernel;
use std::fs;
use std::path::PathBuf;
use std::thread;

pub struct System {
    root: PathBuf,
    pub cores: usize,
    /// Whether a thread may have a descriptor table of its own, or the system's words for no.
    pub own_tables: Result<(), String>,
}

impl System {
    pub fn here() -> System {
        // In a thread that ends at once: the table that it was given goes with it.
        let tried = thread::spawn(kernel::own_table).join().expect("a system call does not panic");
        System {
            root: PathBuf::from("/"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            own_tables: tried.map_err(|error| error::cause(&error)),
        }
    }

    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// The first numbers of a setting, like `net.ipv4.tcp_mem`.
    pub fn sysctl<const N: usize>(&self, name: &str) -> Option<[u64; N]> {
        let text = self.text(&format!("proc/sys/{}", name.replace('.', "/")))?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut found = [0; N];
        for number in &mut found {
            *number = numbers.next()?.ok()?;
        }
        Some(found)
    }

    /// The number behind `word` in the line that begins with `line`, which may be the same.
    pub fn figure(&self, path: &str, line: &str, word: &str) -> Option<u64> {
        let text = self.text(path)?;
        let line = text.lines().find(|found| found.starts_with(line))?;
        line.split_whitespace().skip_while(|found| *found != word).nth(1)?.parse().ok()
    }

    /// The soft and the hard limit of descriptors in one table.
    pub fn table_limits(&self) -> Option<(u64, u64)> {
        let text = self.text("proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let mut limits =
            line.split_whitespace().map(|limit| if limit == "unlimited" { Ok(u64::MAX) } else { limit.parse() });
        Some((limits.next()?.ok()?, limits.next()?.ok()?))
    }
}

#[cfg(test)]
pub mod made_up {
    use super::*;
    use std::ops::Deref;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// A system of two cores that consists of these files; gone with this value.
    pub struct MadeUp(System);

    impl MadeUp {
        pub fn new(files: &[(&str, &str)]) -> MadeUp {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("loadtest-doctor-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(&root).expect("a folder can be made");
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("it is below the root")).expect("a folder can be made");
                fs::write(path, text).expect("a file can be written");
            }
            MadeUp(System { root, cores: 2, own_tables: Ok(()) })
        }

        pub fn with_cores(mut self, cores: usize) -> MadeUp {
            self.0.cores = cores;
            self
        }

        pub fn without_own_tables(mut self) -> MadeUp {
            self.0.own_tables = Err("operation not permitted".to_owned());
            self
        }
    }

    impl Deref for MadeUp {
        type Target = System;

        fn deref(&self) -> &System {
            &self.0
        }
    }

    impl Drop for MadeUp {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0.root));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made_up::MadeUp;
    use super::*;

    #[test]
    fn figures_are_found_where_the_kernel_writes_them() {
        let system = MadeUp::new(&[
            ("proc/sys/net/ipv4/tcp_mem", "10\t20\t30\n"),
            ("proc/net/sockstat", "sockets: used 13\nTCP: inuse 1 orphan 0 tw 7 alloc 1 mem 102\n"),
            ("proc/meminfo", "MemTotal:       100 kB\nMemAvailable:    50 kB\n"),
            ("proc/self/limits", "Max stack size  1  2  bytes\nMax open files            1024  unlimited  files \n"),
        ]);
        assert_eq!(system.sysctl("net.ipv4.tcp_mem"), Some([10, 20, 30]));
        assert_eq!(system.sysctl::<4>("net.ipv4.tcp_mem"), None);
        assert_eq!(system.sysctl::<1>("net.ipv4.tcp_rmem"), None);
        assert_eq!(system.figure("proc/net/sockstat", "TCP:", "tw"), Some(7));
        assert_eq!(system.figure("proc/net/sockstat", "TCP:", "gone"), None);
        assert_eq!(system.figure("proc/meminfo", "MemAvailable:", "MemAvailable:"), Some(50));
        assert_eq!(system.table_limits(), Some((1024, u64::MAX)));
    }

    #[test]
    fn this_machine_has_cores_and_limits() {
        let system = System::here();
        let (soft, hard) = system.table_limits().expect("every Linux process has limits");
        assert!(system.cores >= 1 && (1..=hard).contains(&soft));
    }
}
