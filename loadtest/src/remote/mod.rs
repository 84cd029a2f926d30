//! Remote: several generators on several machines work as one run.
//!
//! ```text
//!     coordinator: loadtest URL --workers …                 agent: loadtest agent
//!
//!     Control ─▶ board ─▶ link ── phase, begin, sent ─────▶ service ─▶ board ─▶ crowd × threads
//!                  seats ◀─┤ ◀─── counts, marks ───────────┤ ◀─ seats, marks
//!                report ◀──┘ ◀─── an outcome per thread ───┘ ◀─ outcomes
//! ```
//!
//! The coordinator has no clients: it publishes, changes the phases, watches the server and reports. Each agent has a
//! range of the clients, and runs them as a local run does; to the coordinator its threads are seats on the board like
//! its own. One TCP connection per agent carries lines of JSON, see `protocol`; each side ends the run when the other
//! one is silent or gone. Stamps carry the coordinator's time, so an agent's clock is set by it, see `offset`.
//!
//! Not here: merging what agents know of one message; see `marks::Merge`.

mod agent;
mod key;
mod lines;
mod link;
mod offset;
mod protocol;
mod service;
mod trouble;

pub use agent::run as run_agent;
pub use key::Key;
pub use link::{Left, Link};
pub use trouble::Trouble;

use crate::clock::Clock;
use crate::error::Error;
use crate::plan::Plan;
use crate::scenario;
use crate::tables;
use protocol::Job;

/// The other generators of a run, and what they have to be told of it.
#[derive(Clone, Debug)]
pub struct Workers {
    /// Each as `HOST:PORT`.
    pub addresses: Vec<String>,
    pub key: Option<Key>,
    /// The run as flags, without its rate and what concerns this machine alone.
    pub words: Vec<String>,
    pub scenario: Option<scenario::Text>,
}

impl Workers {
    /// Finds all of them willing and prepared, each for its part of the clients.
    pub fn open(&self, plan: &Plan, run: u32, clock: Clock) -> Result<Vec<Link>, Error> {
        let mut words = self.words.clone();
        if plan.rate > 0.0 {
            words.extend(["--rate".to_owned(), plan.rate.to_string()]);
        }
        let key = self.key.as_ref();
        let open = |(number, address): (u32, &String)| {
            let clients = tables::share(plan.connections, self.addresses.len() as u32, number);
            let (words, scenario) = (words.clone(), self.scenario.clone());
            let job = Job { words, scenario, run, clients: (clients.start, clients.end), clock_ahead: 0 };
            Link::open(address, key, job, clock)
        };
        (0..).zip(&self.addresses).map(open).collect()
    }
}

/// Trouble with one worker is one line with its address.
fn error(address: &str, trouble: Trouble) -> Error {
    Error::Worker { address: address.to_owned(), trouble }
}
