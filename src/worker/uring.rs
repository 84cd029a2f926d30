//! io_uring: the sender that needs one system call for a whole batch.
//!
//! ```text
//! jobs ── an entry each ──▶ submission queue ──┐ one io_uring_enter: each send is made at once or refused at once
//! sent ◀── by its number ── completion queue ◀─┘ (MSG_DONTWAIT), and never waits in the ring
//! ```
//!
//! The kernel reads the jobs' bytes where they were encoded, so they must not go away before it has reported every entry
//! of the batch. [`InFlight`] is the one way into the ring, and cannot be left earlier.
//!
//! A worker opens its ring on its own thread, after it has parted (tables.rs), and closes it there.
//!
//! Invariants: between two calls nothing is in the ring, so a batch of [`ENTRIES`] always fits.
//! Not here:   which sender a worker gets (server.rs); what an answer of the kernel means (streams.rs).

use super::streams::{SendLoop, Streams, outcome};
use crate::shard::mail::{Job, Sent, Wire};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Sends in one system call at most: what a shard hands over at a time. The completion queue has room for twice as many.
const ENTRIES: u32 = 512;

/// A ring of the thread that opened it, which alone may use it.
pub struct Ring {
    ring: IoUring,
    _of_its_thread: PhantomData<*const ()>,
}

impl Ring {
    /// A ring that has shown that it can send. Kernels before 5.6 cannot; containers and administrators may forbid it.
    pub fn open() -> io::Result<Ring> {
        Ring::with_entries(ENTRIES)
    }

    fn with_entries(entries: u32) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.setup_submit_all().setup_single_issuer().setup_defer_taskrun();
        let ring = match builder.build(entries) {
            // A kernel before 6.1. The flags make it quicker, and are needed for nothing else.
            Err(error) if error.kind() == ErrorKind::InvalidInput => IoUring::new(entries)?,
            built => built?,
        };
        let mut ring = Ring::of(ring);
        ring.try_sending()?;
        Ok(ring)
    }

    fn of(ring: IoUring) -> Ring {
        Ring { ring, _of_its_thread: PhantomData }
    }

    fn try_sending(&mut self) -> io::Result<()> {
        let (near, _far) = UnixStream::pair()?;
        let mut in_flight = InFlight::new(&mut self.ring);
        in_flight.push(near.as_fd(), b"?", 0);
        let completion = in_flight.next().expect("one was pushed");
        result(&completion).map(drop)
    }
}

/// The sender over these streams.
pub struct SendRing<'s> {
    pub ring: &'s mut Ring,
    pub streams: &'s Streams,
}

impl Wire for SendRing<'_> {
    fn send(&mut self, jobs: &[Job<'_>], sent: &mut Vec<Sent>) {
        let entries = self.ring.ring.params().sq_entries() as usize;
        for batch in jobs.chunks(entries) {
            let first = sent.len();
            // A job whose stream is gone gets no entry, and stays broken.
            sent.resize(first + batch.len(), Sent::Broken);
            self.send_batch(batch, &mut sent[first..]);
        }
    }
}

impl SendRing<'_> {
    fn send_batch(&mut self, jobs: &[Job<'_>], sent: &mut [Sent]) {
        let mut in_flight = InFlight::new(&mut self.ring.ring);
        for (number, job) in jobs.iter().enumerate() {
            if self.streams.owes_greeting(job.conn) {
                // Two pieces, once in a stream's life: not worth another kind of entry.
                sent[number] = SendLoop(self.streams).send_one(job);
            } else if let Some(stream) = self.streams.descriptor(job.conn) {
                in_flight.push(stream, job.bytes, number as u64);
            }
        }
        while let Some(completion) = in_flight.next() {
            let number = completion.user_data() as usize;
            // Interrupted or cancelled, so not sent: seldom enough for a system call of its own.
            let again = || SendLoop(self.streams).send_one(&jobs[number]);
            sent[number] = outcome(result(&completion)).unwrap_or_else(again);
        }
    }
}

fn result(completion: &cqueue::Entry) -> io::Result<usize> {
    match completion.result() {
        error if error == -libc::ECANCELED => Err(ErrorKind::Interrupted.into()),
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        bytes => Ok(bytes as usize),
    }
}

/// Sends whose bytes the kernel may be reading. It does not outlive those bytes, and whoever drops it, in a panic too,
/// waits until the kernel has reported them all.
struct InFlight<'r, 'b> {
    ring: &'r mut IoUring,
    sends: usize,
    _borrowed: PhantomData<&'b [u8]>,
}

impl<'r, 'b> InFlight<'r, 'b> {
    fn new(ring: &'r mut IoUring) -> Self {
        InFlight { ring, sends: 0, _borrowed: PhantomData }
    }

    #[allow(unsafe_code)]
    fn push(&mut self, stream: BorrowedFd<'b>, bytes: &'b [u8], number: u64) {
        // More than an entry can say goes in parts, as with send(2).
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let send = opcode::Send::new(Fd(stream.as_raw_fd()), bytes.as_ptr(), length).flags(flags);
        // SAFETY: the bytes and the descriptor must stay until the send has been reported. They are borrowed for `'b`,
        // which is longer than `self` lives, and `self` waits for the report before it ends: see `drop`. Only this file
        // sees an `InFlight`, as a local variable, and forgets none.
        let pushed = unsafe { self.ring.submission().push(&send.build().user_data(number)) };
        pushed.expect("a batch fits into the ring, which was empty");
        self.sends += 1;
    }

    /// The next report, in any order. `None`: the kernel needs nothing of ours any more.
    fn next(&mut self) -> Option<cqueue::Entry> {
        while self.sends > 0 {
            if let Some(completion) = self.ring.completion().next() {
                self.sends -= 1;
                return Some(completion);
            }
            self.ring.submit_and_wait(self.sends).map_or_else(survive, drop);
        }
        None
    }
}

impl Drop for InFlight<'_, '_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

/// A signal or a moment without memory passes. Any other error means that we cannot learn what the kernel still reads,
/// and then nothing may be freed: the process stops, as for any other broken promise of ours.
fn survive(error: io::Error) {
    match error.kind() {
        ErrorKind::Interrupted => {}
        ErrorKind::WouldBlock | ErrorKind::ResourceBusy => std::thread::yield_now(),
        _ => {
            tracing::error!(%error, "io_uring does not answer any more");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::arena::{Arena, Key};
    use crate::shard::session::{Conn, Role};
    use crate::worker::admission::Admission;
    use crate::worker::streams::Poller;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom as _;
    use rand::{RngExt as _, SeedableRng as _};
    use std::io::Read as _;
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;

    /// Fewer than most batches of these tests have jobs.
    const FEW: u32 = 4;

    /// A ring as on a new kernel and one as on an old kernel; none where the system forbids io_uring.
    fn rings() -> Vec<Ring> {
        match Ring::with_entries(FEW) {
            Ok(ring) => vec![ring, Ring::of(IoUring::new(FEW).unwrap())],
            Err(error) => {
                eprintln!("left out, this system does not allow io_uring: {error}");
                Vec::new()
            }
        }
    }

    /// Streams and their peers. Pairs of Unix sockets, because there the kernel buffers the same each time.
    struct Pairs {
        conns: Vec<Key<Conn>>,
        peers: Vec<Option<UnixStream>>,
        streams: Streams,
        // Dropped in this order: a poller leaves its runtime.
        _poller: Poller,
        _runtime: tokio::runtime::Runtime,
    }

    impl Pairs {
        fn new(count: usize) -> Pairs {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (poller, mut streams) = runtime.block_on(async { Poller::new(mio::Poll::new().unwrap()) }).unwrap();
            let (mut arena, mut conns, mut peers) = (Arena::default(), Vec::new(), Vec::new());
            for _ in 0..count {
                let (near, far) = UnixStream::pair().unwrap();
                near.set_nonblocking(true).unwrap();
                far.set_nonblocking(true).unwrap();
                let conn = arena.insert_with(|_| Conn::new(Role::Leaving(None)));
                let admitted = Admission::new(&crate::settings::Settings::default()).admit().unwrap();
                streams.insert(conn, TcpStream::from(OwnedFd::from(near)), Vec::new(), admitted).unwrap();
                conns.push(conn);
                peers.push(Some(far));
            }
            Pairs { conns, peers, streams, _poller: poller, _runtime: runtime }
        }

        fn send(&self, ring: Option<&mut Ring>, jobs: &[(usize, &[u8])]) -> Vec<Sent> {
            let jobs: Vec<_> = jobs.iter().map(|&(place, bytes)| Job { conn: self.conns[place], bytes }).collect();
            let mut sent = Vec::new();
            match ring {
                Some(ring) => SendRing { ring, streams: &self.streams }.send(&jobs, &mut sent),
                None => SendLoop(&self.streams).send(&jobs, &mut sent),
            }
            sent
        }

        /// All that has arrived at a peer and was not read before.
        fn received(&mut self, place: usize) -> Vec<u8> {
            let mut bytes = Vec::new();
            let end = self.peers[place].as_mut().unwrap().read_to_end(&mut bytes);
            assert!(end.is_ok() || end.unwrap_err().kind() == ErrorKind::WouldBlock);
            bytes
        }
    }

    #[test]
    fn each_stream_gets_its_own_bytes_also_if_the_batch_is_larger_than_the_ring() {
        for mut ring in rings() {
            for count in [1, 3, 4, 5, 8, 23] {
                let mut pairs = Pairs::new(count);
                let bytes: Vec<_> = (0..count).map(|place| vec![place as u8; 100 + place]).collect();
                let jobs: Vec<_> = bytes.iter().enumerate().map(|(place, bytes)| (place, &bytes[..])).collect();
                let expected: Vec<_> = bytes.iter().map(|bytes| Sent::Bytes(bytes.len())).collect();
                assert_eq!(pairs.send(Some(&mut ring), &jobs), expected);
                (0..count).for_each(|place| assert_eq!(pairs.received(place), bytes[place]));
            }
        }
    }

    #[test]
    fn a_full_stream_takes_a_part_and_then_nothing_until_its_peer_has_read() {
        let large: Vec<u8> = (0..4 << 20).map(|at| (at >> 10) as u8).collect();
        for mut ring in rings() {
            let mut pairs = Pairs::new(1);
            let mut at = 0;
            while at < large.len() {
                let sent = pairs.send(Some(&mut ring), &[(0, &large[at..])]);
                let [Sent::Bytes(part)] = sent[..] else { panic!("{sent:?} at {at}") };
                let is_last = at + part == large.len();
                if !is_last {
                    assert_eq!(pairs.send(Some(&mut ring), &[(0, &large[at + part..])]), [Sent::Blocked]);
                }
                assert_eq!(pairs.received(0), large[at..at + part]);
                assert!(at > 0 || !is_last, "more than a stream holds");
                at += part;
            }
        }
    }

    #[test]
    fn one_batch_may_have_every_outcome_and_each_is_reported_in_its_place() {
        let large = vec![b'l'; 4 << 20];
        for mut ring in rings() {
            let mut pairs = Pairs::new(7);
            pairs.peers[1] = None;
            while pairs.send(Some(&mut ring), &[(2, &large)]) != [Sent::Blocked] {}
            pairs.streams.remove(pairs.conns[3]);
            pairs.streams.finish_writing(pairs.conns[4]);
            let small = &b"small"[..];
            let jobs = [(0, small), (1, small), (2, small), (3, small), (4, small), (5, &large), (6, small)];
            let sent = pairs.send(Some(&mut ring), &jobs);
            let Sent::Bytes(part) = sent[5] else { panic!("{sent:?}") };
            assert!(part < large.len());
            let (whole, broken) = (Sent::Bytes(small.len()), Sent::Broken);
            assert_eq!(sent, [whole, broken, Sent::Blocked, broken, broken, Sent::Bytes(part), whole]);
            assert_eq!((pairs.received(0), pairs.received(6)), (small.to_vec(), small.to_vec()));
            assert_eq!(pairs.received(5), large[..part]);
        }
    }

    #[test]
    fn the_ring_and_the_loop_answer_alike_whatever_happens_to_the_streams() {
        const STREAMS: usize = 12;
        let large: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
        for (seed, mut ring) in rings().into_iter().enumerate() {
            let mut random = StdRng::seed_from_u64(seed as u64);
            let mut sides = [Pairs::new(STREAMS), Pairs::new(STREAMS)];
            let (mut short, mut blocked, mut broken) = (0, 0, 0);
            for round in 0..300 {
                let mut places: Vec<usize> = (0..STREAMS).collect();
                places.shuffle(&mut random);
                places.truncate(random.random_range(0..=STREAMS));
                let length = |random: &mut StdRng| match random.random_bool(0.7) {
                    true => random.random_range(1..2_000),
                    false => random.random_range(1..large.len()),
                };
                let jobs: Vec<_> = places.iter().map(|&place| (place, &large[..length(&mut random)])).collect();
                let [by_ring, by_loop] = &sides;
                let sent = by_ring.send(Some(&mut ring), &jobs);
                assert_eq!(sent, by_loop.send(None, &jobs), "seed {seed}, round {round}");
                for (sent, (_, bytes)) in sent.iter().zip(&jobs) {
                    match sent {
                        Sent::Bytes(taken) => short += usize::from(*taken < bytes.len()),
                        Sent::Blocked => blocked += 1,
                        Sent::Broken => broken += 1,
                    }
                }
                for place in 0..STREAMS {
                    if sides[0].peers[place].is_none() {
                        continue;
                    } else if random.random_bool(0.3) {
                        let [by_ring, by_loop] = sides.each_mut().map(|side| side.received(place));
                        assert!(by_ring == by_loop, "seed {seed}, round {round}, stream {place}");
                    } else if random.random_bool(0.002) {
                        sides.iter_mut().for_each(|side| side.peers[place] = None);
                    }
                }
            }
            assert!(short > 0 && blocked > 0 && broken > 0, "seed {seed}: {short}, {blocked} and {broken} of each");
        }
    }

    #[test]
    fn what_is_in_flight_is_waited_for_in_a_panic_too() {
        for mut ring in rings() {
            let mut pairs = Pairs::new(3);
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let bytes = b"gone with this frame".to_vec();
                let mut in_flight = InFlight::new(&mut ring.ring);
                for conn in &pairs.conns {
                    in_flight.push(pairs.streams.descriptor(*conn).unwrap(), &bytes, 0);
                }
                in_flight.next().unwrap();
                std::panic::resume_unwind(Box::new(()));
            }));
            assert!(panicked.is_err());
            (0..3).for_each(|place| assert_eq!(pairs.received(place), b"gone with this frame"));
            // Nothing is left over that a later batch would take for its own.
            assert_eq!(ring.ring.completion().len(), 0);
            assert_eq!(pairs.send(Some(&mut ring), &[(1, b"next")]), [Sent::Bytes(4)]);
        }
    }
}
