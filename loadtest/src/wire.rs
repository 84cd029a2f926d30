//! Wire: the publisher's one stream: bytes out in order, bytes in as they come, never blocking the schedule.
//!
//! Limits: [`BACKLOG_BYTES_MAX`] unsent. A server that reads so much slower than we publish will not catch up.

use crate::error;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

const BACKLOG_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Wire {
    poll: Poll,
    events: Events,
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    buffer: Box<[u8]>,
}

impl Wire {
    pub fn connect(server: SocketAddr) -> io::Result<Wire> {
        let stream = std::net::TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (poll, mut stream) = (Poll::new()?, TcpStream::from_std(stream));
        poll.registry().register(&mut stream, Token(0), Interest::READABLE | Interest::WRITABLE)?;
        let buffer = vec![0; 64 << 10].into_boxed_slice();
        Ok(Wire { poll, events: Events::with_capacity(4), stream, out: Vec::new(), written: 0, buffer })
    }

    /// Where to put what should be sent; it goes out with the next [`Wire::turn`].
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Writes what waits, waits for the stream at most so long, and hands over what was read. What `take` answers is
    /// sent too. Errors are told in words: only a person can act on them.
    pub fn turn<E: From<String>>(
        &mut self,
        wait: Duration,
        mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.flush()?;
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error::cause(&error).into()),
            _ => {}
        }
        loop {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the server hung up".to_owned().into()),
                Ok(read) => take(&self.buffer[..read], &mut self.out)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error::cause(&error).into()),
            }
        }
        Ok(self.flush()?)
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error::cause(&error)),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else if self.out.len() - self.written > BACKLOG_BYTES_MAX {
            return Err("the server does not read what is published".to_owned());
        }
        Ok(())
    }
}
