//! Metrics: the server's own figures, asked for over HTTP.
//!
//! A thread waits for the network, asks when it is told to, and leaves the newest sample in a slot. Whoever takes that
//! one has the next one asked for, once per [`INTERVAL`] at most. The question is HTTP/1.0: the answer then comes in one
//! piece, and the server closes.
//!
//! Limits: [`ANSWER_MAX`] for a whole answer, however slowly it drips, and [`ANSWER_BYTES_MAX`]. A bad answer is counted
//!         and told at the end; the run goes on.

use super::{Sample, prometheus};
use crate::clock::{Clock, Nanos};
use crate::error::{self, Error};
use crate::http;
use crate::target::Target;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The answer that is under way, and the one after it.
pub const FRESH_MAX: Duration = Duration::from_secs(5);

pub struct Metrics {
    url: String,
    clock: Clock,
    slot: Arc<Slot>,
    /// Tells the thread to ask; its end ends the thread.
    asks: Sender<()>,
    last_ask: Nanos,
}

#[derive(Default)]
struct Slot {
    readings: Mutex<Readings>,
    changed: Condvar,
}

#[derive(Default)]
struct Readings {
    /// When the last answer was asked for, good or bad.
    asked: Nanos,
    newest: Option<Sample>,
    count: u64,
    bad: u64,
    last_problem: String,
}

/// Whom to ask, and how.
struct Question {
    address: SocketAddr,
    request: String,
    clock: Clock,
}

impl Metrics {
    pub fn start(target: &Target, clock: Clock) -> Result<Metrics, Error> {
        let request = format!(
            "GET {} HTTP/1.0\r\nHost: {}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n",
            target.path,
            target.host()
        );
        let question = Question { address: target.reach()?, request, clock };
        let url = target.url();
        let first = question.ask().map_err(|problem| Error::Metrics { url: url.clone(), problem })?;
        let slot = Arc::new(Slot::default());
        slot.put(first.at, Ok(first));
        let (asks, asked) = mpsc::channel();
        let answers = Arc::clone(&slot);
        thread::spawn(move || question.ask_when_told(&asked, &answers));
        Ok(Metrics { url, clock, slot, asks, last_ask: first.at })
    }

    pub fn newest(&mut self) -> Option<Sample> {
        if Duration::from_nanos(self.clock.now() - self.last_ask) >= INTERVAL {
            self.ask();
        }
        self.slot.lock().newest
    }

    /// A sample that was asked for after the call, or nothing.
    pub fn fresh(&mut self) -> Option<Sample> {
        let now = self.ask();
        let old = |readings: &mut Readings| readings.asked < now;
        let waited = self.slot.changed.wait_timeout_while(self.slot.lock(), FRESH_MAX, old);
        let (readings, _) = waited.expect("nobody panics while holding it");
        readings.newest.filter(|sample| sample.at >= now)
    }

    fn ask(&mut self) -> Nanos {
        self.last_ask = self.clock.now();
        self.asks.send(()).expect("the thread ends after us");
        self.last_ask
    }

    pub fn trouble(&self) -> Option<String> {
        let readings = self.slot.lock();
        let Readings { count, bad, last_problem, .. } = &*readings;
        (*bad > 0).then(|| format!("{bad} of {count} readings of {} failed, the last one: {last_problem}", self.url))
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().expect("nobody panics while holding it")
    }

    fn put(&self, asked: Nanos, answer: Result<Sample, String>) {
        let mut readings = self.lock();
        readings.asked = asked;
        readings.count += 1;
        match answer {
            Ok(sample) => readings.newest = Some(sample),
            Err(problem) => {
                readings.bad += 1;
                readings.last_problem = problem;
            }
        }
        self.changed.notify_all();
    }
}

impl Question {
    fn ask_when_told(&self, asked: &Receiver<()>, slot: &Slot) {
        while asked.recv().is_ok() {
            // Told several times while the last answer was slow: one answer is enough.
            while asked.try_recv().is_ok() {}
            let now = self.clock.now();
            slot.put(now, self.ask());
        }
    }

    fn ask(&self) -> Result<Sample, String> {
        let at = self.clock.now();
        let text = self.fetch(Instant::now() + ANSWER_MAX)?;
        let (cpu, resident) = prometheus::parse(&text)?;
        Ok(Sample { at, cpu, resident })
    }

    fn fetch(&self, deadline: Instant) -> Result<String, String> {
        let told = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => too_late(),
            _ => error::cause(&error),
        };
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_MAX).map_err(told)?;
        stream.set_write_timeout(Some(ANSWER_MAX)).map_err(told)?;
        stream.write_all(self.request.as_bytes()).map_err(told)?;
        let (mut bytes, mut piece) = (Vec::new(), [0; 16 << 10]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(too_late());
            }
            stream.set_read_timeout(Some(left)).map_err(told)?;
            let read = match stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(told)?,
            };
            bytes.extend_from_slice(&piece[..read]);
            if let Some(body) = body(&bytes, read == 0)? {
                return String::from_utf8(body.to_vec()).map_err(|_| "it is no text".to_owned());
            }
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("it has more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
    }
}

fn too_late() -> String {
    format!("no whole answer in {} s", ANSWER_MAX.as_secs())
}

/// The body at the end of `bytes`, once it is whole: as long as was told, or up to the end of the stream.
fn body(bytes: &[u8], ended: bool) -> Result<Option<&[u8]>, String> {
    let cut = || "the server hung up".to_owned();
    let Some((answer, start)) = http::head(bytes).map_err(|_| "it is no HTTP".to_owned())? else {
        return if ended { Err(cut()) } else { Ok(None) };
    };
    if answer.status != 200 {
        return Err(format!("the answer was '{}'", answer.line()));
    }
    if answer.header("transfer-encoding").is_some() {
        return Err("it comes in chunks, which HTTP/1.0 does not have".to_owned());
    }
    let length = answer.header("content-length").map(str::parse::<usize>).transpose();
    match length.map_err(|_| "its Content-Length is no number".to_owned())? {
        Some(length) if bytes.len() - start >= length => Ok(Some(&bytes[start..start + length])),
        Some(_) if ended => Err(cut()),
        None if ended => Ok(Some(&bytes[start..])),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TEXT: &str = "process_cpu_seconds_total 1.5\nprocess_resident_memory_bytes 2048\n";

    /// A server that gives these answers, one per connection, the last one for ever; then it closes, or keeps silent.
    fn server(answers: Vec<String>, closes: bool) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut kept, mut next) = (Vec::new(), 0);
            for mut stream in listener.incoming().flatten() {
                // To see whether it accepts, somebody connects and says nothing.
                let mut head = [0; 1024];
                if stream.read(&mut head).unwrap_or(0) == 0 {
                    continue;
                }
                // A client that has heard enough may be gone.
                drop(stream.write_all(answers[next.min(answers.len() - 1)].as_bytes()));
                next += 1;
                kept.extend((!closes).then_some(stream));
            }
        });
        Target::parse(&format!("http://{address}/metrics")).expect("it is a URL")
    }

    fn told(text: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
    }

    fn start(answers: &[&str], closes: bool) -> Result<Metrics, String> {
        let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
        Metrics::start(&server(answers, closes), Clock::start()).map_err(|error| {
            let line = error.to_string();
            let line = line.split_once("/metrics: ").map_or(line.clone(), |(_, problem)| problem.to_owned());
            line.strip_suffix("; correct --metrics").expect("it says what to do").to_owned()
        })
    }

    #[test]
    fn a_good_server_is_read() {
        let closed = format!("HTTP/1.0 200 OK\r\n\r\n{TEXT}");
        for (answer, closes) in [(told(TEXT), true), (told(TEXT), false), (closed, true)] {
            let mut metrics = start(&[&answer], closes).expect("it answers");
            let first = metrics.newest().expect("the first was read");
            assert_eq!((first.cpu, first.resident), (Duration::from_millis(1500), 2048));
            let fresh = metrics.fresh().expect("it answers again");
            assert!(fresh.at > first.at);
            assert_eq!(metrics.trouble(), None);
        }
    }

    #[test]
    fn taking_the_newest_has_the_next_one_asked_for() {
        let mut metrics = start(&[&told(TEXT)], true).expect("it answers");
        let first = metrics.newest();
        let mut looks = std::iter::repeat_with(|| {
            thread::sleep(Duration::from_millis(10));
            metrics.newest()
        });
        assert!(first.is_some() && looks.by_ref().take(1000).any(|newest| newest > first));
    }

    #[test]
    fn a_bad_first_answer_is_an_error() {
        for (answer, problem) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n".to_owned(), "the answer was 'HTTP/1.1 404 Not Found'"),
            ("SSH-2.0-OpenSSH".to_owned(), "it is no HTTP"),
            (String::new(), "the server hung up"),
            ("HTTP/1.1 200 OK\r\n".to_owned(), "the server hung up"),
            (told(TEXT)[..80].to_owned(), "the server hung up"),
            (format!("HTTP/1.0 200 OK\r\n\r\n{}", &TEXT[..TEXT.len() - 1]), "it has no process_resident_memory_bytes"),
            (told("nothing here\n"), "it has no process_cpu_seconds_total"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(), "its Content-Length is no number"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
                "it comes in chunks, which HTTP/1.0 does not have",
            ),
        ] {
            assert_eq!(start(&[&answer], true).err().as_deref(), Some(problem));
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
        assert_eq!(start(&["HTTP/1.1 200 OK\r\n"], false).err().as_deref(), Some("no whole answer in 2 s"));
    }

    #[test]
    fn bad_answers_later_are_counted() {
        let mut metrics = start(&[&told(TEXT), "", &told(TEXT), "garbage"], true).expect("the first is good");
        // Seen without asking, so that each answer meets its question.
        let seen = |metrics: &Metrics| metrics.slot.lock().newest;
        let first = seen(&metrics);
        assert!(first.is_some() && metrics.fresh().is_none());
        assert_eq!(seen(&metrics), first, "the newest good one");
        assert!(metrics.fresh().is_some());
        assert_eq!(metrics.fresh(), None);
        let trouble = metrics.trouble().expect("two were bad");
        assert!(trouble.starts_with("2 of 4 readings of http://127.0.0.1:"), "{trouble}");
        assert!(trouble.ends_with("/metrics failed, the last one: it is no HTTP"), "{trouble}");
    }

    #[test]
    fn an_answer_cut_anywhere_is_not_an_answer_yet() {
        let whole = told(TEXT);
        assert!((0..whole.len()).all(|cut| body(&whole.as_bytes()[..cut], false) == Ok(None)));
        assert_eq!(body(whole.as_bytes(), false), Ok(Some(TEXT.as_bytes())));
    }
}
