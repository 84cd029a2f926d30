//! The server program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

// A hundred thousand outboxes come and go: an allocator with arenas of its own for each thread keeps them apart.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fanfare::standalone::main()
}
