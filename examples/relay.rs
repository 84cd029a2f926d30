//! Relay: whatever a client sends as `pub` goes to everyone as `msg`, or to the room that comes behind it.
//!
//! What benchmarks talk to: one string in, one string to every client of `/`. Clients may `join` and `leave` rooms.
//!
//!     cargo run --release --example relay -- --port 3000 --workers 1

use clap::{Parser, ValueEnum};
use fanfare::{FdTables, Io, SendPath, Settings, Socket};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Worker threads; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Whether workers share one table of file descriptors; see `Settings::fd_tables`.
    #[arg(long, value_enum, default_value = "shared")]
    fd_tables: Tables,
    /// How bytes go to the kernel; see `Settings::io`.
    #[arg(long, value_enum, default_value = "auto")]
    io: Sender,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tables {
    Shared,
    PerWorker,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sender {
    Auto,
    Send,
    Uring,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), fanfare::StartError> {
    let arguments = Arguments::parse();
    let io = Io::with_settings(Settings {
        workers: arguments.workers,
        fd_tables: match arguments.fd_tables {
            Tables::Shared => FdTables::Shared,
            Tables::PerWorker => FdTables::PerWorker,
        },
        io: match arguments.io {
            Sender::Auto => SendPath::Auto,
            Sender::Send => SendPath::Send,
            Sender::Uring => SendPath::Uring,
        },
        payload_bytes_max: 100 << 20,
        outbox_bytes_max: 256 << 20,
        ..Settings::default()
    });
    let relay = io.clone();
    io.of("/")
        .on_event("pub", move |_: Socket, (message, room): (String, Option<String>)| match room {
            Some(room) => _ = relay.to(room).emit("msg", &message),
            None => _ = relay.emit("msg", &message),
        })
        .on_event("join", |socket: Socket, room: String| _ = socket.join(room))
        .on_event("leave", |socket: Socket, room: String| socket.leave(room));
    let server = io.listen(("127.0.0.1", arguments.port))?;
    println!("ready http://{} with {} workers", server.address(), server.workers());
    server.wait();
    Ok(())
}
