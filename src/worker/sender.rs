//! Sender: which of the two ways to the kernel a worker has, chosen once, when it begins.
//!
//! - [`SendLoop`]: one `send(2)` for each job, everywhere.
//! - `SendRing` (uring.rs): one system call of io_uring for a batch, where Linux has it and lets us.
//!
//! Each is a [`Wire`], and what the shard hears of a job is the same.

use super::streams::{SendLoop, Streams};
#[cfg(target_os = "linux")]
use super::uring::{Ring, SendRing};
use crate::settings::SendPath;
use crate::shard::mail::{Job, Sent, Wire};
use std::io;

pub enum Sender {
    Loop,
    #[cfg(target_os = "linux")]
    Ring(Box<Ring>),
}

impl Sender {
    /// The sender of the calling thread, and of no other. With `Auto` there is always one, and beside it the error that
    /// kept it from being the better one; with `Uring` that error is all there is.
    pub fn open(path: SendPath) -> io::Result<(Sender, Option<io::Error>)> {
        match path {
            SendPath::Send => Ok((Sender::Loop, None)),
            SendPath::Uring => Ok((Sender::open_ring()?, None)),
            SendPath::Auto => {
                Ok(Sender::open_ring().map_or_else(|error| (Sender::Loop, Some(error)), |ring| (ring, None)))
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn open_ring() -> io::Result<Sender> {
        Ring::open().map(|ring| Sender::Ring(Box::new(ring)))
    }

    #[cfg(not(target_os = "linux"))]
    fn open_ring() -> io::Result<Sender> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn is_uring(&self) -> bool {
        !matches!(self, Sender::Loop)
    }

    /// The wire to these streams.
    pub fn over<'s>(&'s mut self, streams: &'s Streams) -> impl Wire + 's {
        Over { sender: self, streams }
    }
}

struct Over<'s> {
    sender: &'s mut Sender,
    streams: &'s Streams,
}

impl Wire for Over<'_> {
    fn send(&mut self, jobs: &[Job<'_>], sent: &mut Vec<Sent>) {
        match self.sender {
            Sender::Loop => SendLoop(self.streams).send(jobs, sent),
            #[cfg(target_os = "linux")]
            Sender::Ring(ring) => SendRing { ring, streams: self.streams }.send(jobs, sent),
        }
    }
}
