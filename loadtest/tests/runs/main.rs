//! The program itself, run against a server of the tests' own.

mod complaints;
mod doctor;
mod faults;
mod relay;
mod watching;
