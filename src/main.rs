//! The server program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

// Connections come and go, and other threads free packets than made them; see docs/decisions, number 11.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fanfare::standalone::main()
}
