//! Lines: one JSON value per line, over a TCP connection.
//!
//! Limits: a line has [`STRANGER_BYTES_MAX`] bytes until the other side has shown that it belongs here, and
//!         [`LINE_BYTES_MAX`] then; a write waits for [`WRITE_TIMEOUT`] at most.

use super::trouble::Trouble;
use crate::error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The longest line of somebody who has not been let in: a greeting, and nothing worth memory.
pub const STRANGER_BYTES_MAX: usize = 4 << 10;
/// The longest line at all: three histograms of one thread have some twenty thousand values each at most.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// A side that does not read for so long is not there.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 << 10;

pub struct Lines {
    stream: TcpStream,
    /// What came and was not taken; of that, how much has no end of line.
    inbox: Vec<u8>,
    searched: usize,
    bytes_max: usize,
}

impl Lines {
    pub fn new(stream: TcpStream) -> Result<Lines, Trouble> {
        stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT))).map_err(gone)?;
        Ok(Lines { stream, inbox: Vec::new(), searched: 0, bytes_max: STRANGER_BYTES_MAX })
    }

    /// The other side belongs here: its lines may be long.
    pub fn trust(&mut self) {
        self.bytes_max = LINE_BYTES_MAX;
    }

    pub fn put(&mut self, value: &impl Serialize) -> Result<(), Trouble> {
        let mut line = serde_json::to_vec(value).expect("our own words are JSON");
        line.push(b'\n');
        if line.len() > LINE_BYTES_MAX {
            return Err(Trouble::LineTooLong { bytes_max: LINE_BYTES_MAX });
        }
        self.stream.write_all(&line).map_err(gone)
    }

    /// The next line, if it is there or comes within `wait`.
    pub fn next<T: DeserializeOwned>(&mut self, wait: Duration) -> Result<Option<T>, Trouble> {
        if let Some(line) = self.take_line()? {
            return parse(&line).map(Some);
        }
        self.stream.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).map_err(gone)?;
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Trouble::Gone("it closed the connection".to_owned())),
            Ok(read) => self.inbox.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(gone(error)),
        }
        self.take_line()?.map(|line| parse(&line)).transpose()
    }

    /// The next line, which has to come within `patience`.
    pub fn expect<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T, Trouble> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(value) = self.next(left)? {
                return Ok(value);
            }
            if left.is_zero() {
                return Err(Trouble::Silent { seconds: patience.as_secs() });
            }
        }
    }

    /// Ends the connection for both sides, also where a thread's descriptor table still has a copy of it.
    pub fn close(&self) {
        // One that has ended already is as good.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    fn take_line(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        let end = self.inbox[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        if end.unwrap_or(self.inbox.len()) >= self.bytes_max {
            return Err(Trouble::LineTooLong { bytes_max: self.bytes_max });
        }
        self.searched = if end.is_some() { 0 } else { self.inbox.len() };
        Ok(end.map(|end| self.inbox.drain(..=end).collect()))
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(line).map_err(|_| Trouble::Foreign)
}

fn gone(error: std::io::Error) -> Trouble {
    Trouble::Gone(error::cause(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn pair() -> (Lines, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (Lines::new(listener.accept().expect("one has come").0).expect("it is open"), stream)
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"[1,2]\n[3]\n[]\n";
        for cut in 0..text.len() {
            let (mut lines, mut peer) = pair();
            let (head, tail) = text.split_at(cut);
            peer.write_all(head).expect("it is open");
            let whole = head.iter().filter(|byte| **byte == b'\n').count();
            let mut read: Vec<Vec<u32>> = (0..whole).map(|_| lines.expect(PATIENCE).expect("it is there")).collect();
            assert_eq!(lines.next::<Vec<u32>>(Duration::ZERO), Ok(None), "cut at {cut}");
            peer.write_all(tail).expect("it is open");
            read.extend((whole..3).map(|_| lines.expect::<Vec<u32>>(PATIENCE).expect("it is there")));
            assert_eq!(read, [vec![1, 2], vec![3], vec![]], "cut at {cut}");
        }
    }

    #[test]
    fn a_strangers_line_is_short() {
        let letters = |count: usize| format!("\"{}\"\n", "x".repeat(count));
        let (mut lines, mut peer) = pair();
        peer.write_all(letters(STRANGER_BYTES_MAX - 3).as_bytes()).expect("it is open");
        assert_eq!(lines.expect::<String>(PATIENCE).map(|text| text.len()), Ok(STRANGER_BYTES_MAX - 3));
        peer.write_all(letters(STRANGER_BYTES_MAX - 2).as_bytes()).expect("it is open");
        let too_long = Trouble::LineTooLong { bytes_max: STRANGER_BYTES_MAX };
        assert_eq!(lines.expect::<String>(PATIENCE), Err(too_long.clone()));
        let (mut lines, mut peer) = pair();
        peer.write_all(&[b'x'; STRANGER_BYTES_MAX]).expect("it is open");
        assert_eq!(lines.expect::<String>(PATIENCE), Err(too_long), "without an end");
    }

    #[test]
    fn a_trusted_line_is_long_but_not_endless() {
        let (mut lines, peer) = pair();
        lines.trust();
        let mut far = Lines::new(peer).expect("it is open");
        let longest = "x".repeat(LINE_BYTES_MAX - 3);
        let refused = far.put(&format!("{longest}x"));
        assert_eq!(refused, Err(Trouble::LineTooLong { bytes_max: LINE_BYTES_MAX }), "not even sent");
        thread::scope(|scope| {
            scope.spawn(|| far.put(&longest));
            assert_eq!(lines.expect::<String>(PATIENCE).map(|text| text.len()), Ok(longest.len()));
        });
    }

    #[test]
    fn what_is_no_line_of_ours_and_who_is_gone() {
        let (mut lines, mut peer) = pair();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n").expect("it is open");
        assert_eq!(lines.expect::<u32>(PATIENCE), Err(Trouble::Foreign));
        drop(peer);
        let gone = Trouble::Gone("it closed the connection".to_owned());
        assert_eq!(lines.expect::<u32>(PATIENCE), Err(gone));
    }
}
