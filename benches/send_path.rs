//! Send path: which way to the kernel is worth having?
//!
//! The question: a broadcast ends with one small send for each of many streams. What does one system call for hundreds of
//! streams gain over one for each, and what does a runtime gain that makes a future of each send?
//!
//! - `send loop`: the server's sender that is always there (`SendLoop` in src/worker/streams.rs).
//! - `io_uring`: the server's other one (src/worker/uring.rs). Both over streams that its poller watches.
//! - `tokio-uring`: a future for each send; all are submitted before the first is awaited, which is its best case.
//!
//! ```text
//!   core 0, measured                                   core 1
//!   one round: a 150-byte frame to each of N streams   reads everything away, never sleeps, counts
//!        ╰────── clock stands until all has arrived ──────╯
//! ```
//!
//! The receiving thread never sleeps, so no send pays for waking it, as none would over a real network. Every byte must
//! arrive, or the bench fails. It needs two idle cores, and 2,000 descriptors, which it asks for.
//!
//! Where a system has no io_uring, or forbids it, a line says so and the send loop is measured alone.
//!
//!     cargo bench --bench send_path

#[path = "support/cores.rs"]
mod cores;
mod support;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use fanfare::SendPath;
use fanfare::bench::Streams;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const STREAMS: [usize; 2] = [100, 1_000];
static FRAME: [u8; 150] = [b'x'; 150];

/// One way to give the frame to every stream. Returns how many bytes the kernel took.
trait Sender {
    fn send(&mut self, frame: &'static [u8]) -> usize;
}

impl Sender for Streams {
    fn send(&mut self, frame: &'static [u8]) -> usize {
        Streams::send(self, frame)
    }
}

fn send_path(c: &mut Criterion) {
    // A lower limit than asked for shows when the connections are made.
    let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
    cores::pin_to_first();
    for streams in STREAMS {
        let mut group = c.benchmark_group("150 bytes to each stream");
        group.throughput(Throughput::Elements(streams as u64)).sampling_mode(SamplingMode::Flat);
        measure(&mut group, "send loop", streams, |ends| Streams::new(ends, SendPath::Send));
        measure(&mut group, "io_uring", streams, |ends| Streams::new(ends, SendPath::Uring));
        #[cfg(target_os = "linux")]
        measure(&mut group, "tokio-uring", streams, linux::Futures::new);
        group.finish();
    }
}

fn measure<S: Sender>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    streams: usize,
    make: impl FnOnce(Vec<TcpStream>) -> io::Result<S>,
) {
    let (ends, receivers) = connect(streams).expect("loopback connects, within the limit on descriptors");
    let mut sender = match make(ends) {
        Ok(sender) => sender,
        Err(error) => return eprintln!("{name}: left out, this system does not allow it: {error}"),
    };
    let mut sent = 0;
    group.bench_function(BenchmarkId::new(name, streams), |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let start = Instant::now();
                let bytes = sender.send(&FRAME);
                spent += start.elapsed();
                assert_eq!(bytes, streams * FRAME.len(), "every stream takes its frame at once");
                sent += bytes as u64;
                receivers.wait_for(sent);
            }
            spent
        })
    });
    drop(sender);
    assert_eq!(receivers.end(), sent, "every byte arrives, and no other");
}

/// The other ends of the streams, and the thread that reads them.
struct Receivers {
    received: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

/// Pairs of connected streams over loopback: the sending ends, and what receives at the others.
fn connect(streams: usize) -> io::Result<(Vec<TcpStream>, Receivers)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..streams {
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        near.push(stream);
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        far.push(stream);
    }
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    let thread = thread::spawn(move || {
        cores::pin_to_last();
        receive(far, &count)
    });
    Ok((near, Receivers { received, thread }))
}

/// Reads until every stream has ended.
fn receive(streams: Vec<TcpStream>, received: &AtomicU64) -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut streams = streams.into_iter().map(mio::net::TcpStream::from_std).collect::<Vec<_>>();
    for (place, stream) in streams.iter_mut().enumerate() {
        poll.registry().register(stream, Token(place), Interest::READABLE)?;
    }
    let mut streams = streams.into_iter().map(Some).collect::<Vec<_>>();
    let (mut open, mut buffer) = (streams.len(), [0; 4096]);
    while open > 0 {
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            // An end may be announced twice.
            while let Some(stream) = &mut streams[event.token().0] {
                match stream.read(&mut buffer) {
                    Ok(0) => {
                        open -= 1;
                        streams[event.token().0] = None;
                    }
                    Ok(bytes) => _ = received.fetch_add(bytes as u64, Ordering::Release),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

impl Receivers {
    fn wait_for(&self, bytes: u64) {
        while self.received.load(Ordering::Acquire) < bytes {
            assert!(!self.thread.is_finished(), "the receivers read until the streams end");
            thread::yield_now();
        }
    }

    /// All that arrived until the streams ended.
    fn end(self) -> u64 {
        self.thread.join().expect("the receivers do not panic").expect("no stream breaks");
        self.received.load(Ordering::Acquire)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Sender;
    use std::io;
    use std::net::TcpStream;

    /// Sends in one system call.
    const ENTRIES: u32 = 1024;

    /// A future for each send.
    pub struct Futures {
        streams: Vec<tokio_uring::net::TcpStream>,
        runtime: tokio_uring::Runtime,
    }

    impl Futures {
        pub fn new(streams: Vec<TcpStream>) -> io::Result<Futures> {
            let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(ENTRIES))?;
            let streams = streams.into_iter().map(tokio_uring::net::TcpStream::from_std).collect();
            Ok(Futures { streams, runtime })
        }
    }

    impl Sender for Futures {
        fn send(&mut self, frame: &'static [u8]) -> usize {
            let Futures { streams, runtime } = self;
            runtime.block_on(async {
                let sends: Vec<_> = streams.iter().map(|stream| stream.write(frame).submit()).collect();
                let mut taken = 0;
                for send in sends {
                    taken += send.await.0.unwrap_or(0);
                }
                taken
            })
        }
    }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = send_path
}
criterion_main!(benches);
