//! The program itself, run against a server of the tests' own.

mod complaints;
mod faults;
mod relay;
