//! The program itself, run against a server of the tests' own.

mod complaints;
mod doctor;
mod faults;
mod hall;
mod polling;
mod pressure;
mod relay;
mod transports;
mod views;
mod watching;
mod workers;
mod workloads;
