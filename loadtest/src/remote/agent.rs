//! Agent: waits for coordinators and makes load for one of them at a time.
//!
//! ```text
//!     accept ─▶ greet (version, key) ─▶ free? ─▶ serve the run ─▶ wait again
//! ```
//!
//! Whoever it works for decides where the load goes. So it listens on loopback, and elsewhere only with a key.
//!
//! Limits: [`VISITORS_MAX`] connections at once, [`GREETING`] for the first line, [`BUSY_WAIT`] for the run before.

use super::key::Key;
use super::lines::Lines;
use super::protocol::{Hello, VERSION};
use super::service::{self, Service};
use super::trouble::Trouble;
use crate::error::{self, Error};
use crate::options::Agent as Options;
use crate::output::Output;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that are looked at together; the others are closed.
const VISITORS_MAX: u32 = 8;
/// How long a visitor may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);
/// How long a coordinator waits for the run before it, which may be ending just now.
const BUSY_WAIT: Duration = Duration::from_secs(3);
/// How often the listener is asked, and a wait looks up.
const STEP: Duration = Duration::from_millis(20);

struct Agent<'a> {
    options: &'a Options,
    key: Option<Key>,
    interrupted: &'a AtomicBool,
    output: Mutex<&'a mut Output>,
    visitors: AtomicU32,
    /// The coordinator that it works for.
    busy: Mutex<Option<SocketAddr>>,
}

/// Serves until it is interrupted.
pub fn run(options: &Options, interrupted: &AtomicBool, output: &mut Output) -> Result<u8, Error> {
    let key = options.key.as_deref().map(Key::read).transpose()?;
    if key.is_none() && !options.listen.ip().is_loopback() {
        let problem = "beyond this machine an agent wants a key from its coordinators; add --key FILE".to_owned();
        return Err(Error::Option { option: "--listen", problem });
    }
    let cannot = |error: std::io::Error| Error::Listen { address: options.listen, cause: error::cause(&error) };
    let listener = TcpListener::bind(options.listen).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    output.text(&format!("agent listens on {}\n", listener.local_addr().map_err(cannot)?));
    let (visitors, busy) = (AtomicU32::new(0), Mutex::new(None));
    let agent = &Agent { options, key, interrupted, output: Mutex::new(output), visitors, busy };
    thread::scope(|scope| {
        while !interrupted.load(Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) if agent.visitors.fetch_add(1, Relaxed) < VISITORS_MAX => {
                    scope.spawn(move || agent.visit(stream, peer));
                }
                Ok((_, peer)) => {
                    agent.visitors.fetch_sub(1, Relaxed);
                    agent.say(&format!("{peer} was turned away: {VISITORS_MAX} others are here"));
                }
                // Whatever was wrong with one connection says nothing about the next.
                Err(_) => thread::sleep(STEP),
            }
        }
    });
    Ok(0)
}

impl Agent<'_> {
    fn visit(&self, stream: TcpStream, peer: SocketAddr) {
        let end = stream.set_nonblocking(false).map_err(|error| Trouble::Gone(error::cause(&error)));
        let end = end.and_then(|()| Lines::new(stream)).and_then(|mut lines| {
            let end = self.receive(&mut lines, peer);
            lines.close();
            end
        });
        if let Err(trouble) = end {
            self.say(&format!("coordinator {peer}: {trouble}"));
        }
        self.visitors.fetch_sub(1, Relaxed);
    }

    fn receive(&self, lines: &mut Lines, peer: SocketAddr) -> Result<(), Trouble> {
        let hello: Hello = service::expect(lines, GREETING, self.interrupted)?;
        let refused = self.objection(&hello).or_else(|| self.begin(peer));
        lines.put(&Hello { loadtest: VERSION, key: None, refused: refused.clone() })?;
        if let Some(reason) = refused {
            return Err(Trouble::Refused(format!("refused: {reason}")));
        }
        lines.trust();
        let service = Service { lines, sources: &self.options.source_ip, interrupted: self.interrupted };
        let end = service.serve(|what| self.say(&format!("for {peer}: {what}")));
        *self.busy.lock().expect("nobody panics while holding it") = None;
        end
    }

    /// Why it does not work for whoever says this.
    fn objection(&self, hello: &Hello) -> Option<String> {
        if hello.loadtest != VERSION {
            return Some(Trouble::Version { theirs: hello.loadtest, ours: VERSION }.to_string());
        }
        let shown = hello.key.as_deref();
        match &self.key {
            Some(key) if !shown.is_some_and(|shown| key.is(shown)) => {
                Some("it wants another key; give the agent's with --key FILE".to_owned())
            }
            _ => None,
        }
    }

    /// Becomes busy for `peer`, or says why not.
    fn begin(&self, peer: SocketAddr) -> Option<String> {
        let until = Instant::now() + BUSY_WAIT;
        loop {
            {
                let mut busy = self.busy.lock().expect("nobody panics while holding it");
                match *busy {
                    None => {
                        *busy = Some(peer);
                        return None;
                    }
                    Some(other) if Instant::now() >= until => {
                        return Some(format!("it is busy with the run of {other}; wait until that is over"));
                    }
                    Some(_) => {}
                }
            }
            thread::sleep(STEP);
        }
    }

    fn say(&self, line: &str) {
        self.output.lock().expect("nobody panics while holding it").text(&format!("{line}\n"));
    }
}
