//! Admission: how many TCP connections the process holds, in all and from one address.
//!
//! The one place of this layer besides the mailbox where threads share something, because a limit for the process needs
//! one count. It is touched when a connection comes and when it goes, and the map of addresses only if that limit is set.
//!
//! The limits can change at any time. All connections are counted, so that a limit which comes late knows of those who
//! came before; by address are counted those that come while there is such a limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub struct Admission {
    connections_max: AtomicUsize,
    connections_per_address_max: AtomicUsize,
    counts: Arc<Counts>,
    /// Of all whose address is not counted.
    anonymous: Arc<Place>,
    refused: AtomicU64,
    accept_failures: AtomicU64,
    lost: AtomicU64,
}

/// A connection's place. Dropping it frees the place. One pointer, because every connection has it.
pub struct Admitted(Arc<Place>);

struct Place {
    counts: Arc<Counts>,
    /// Of whom it is one more connection, if that is counted.
    address: Option<IpAddr>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    per_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    /// Zero means no limit but the descriptors'. Where those run out, connections wait in the accept queue (listen.rs).
    pub fn new(connections_max: usize, connections_per_address_max: usize) -> Arc<Admission> {
        let counts = Arc::<Counts>::default();
        Arc::new(Admission {
            connections_max: AtomicUsize::new(connections_max),
            connections_per_address_max: AtomicUsize::new(connections_per_address_max),
            anonymous: Arc::new(Place { counts: Arc::clone(&counts), address: None }),
            counts,
            refused: AtomicU64::new(0),
            accept_failures: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// Other limits, for those who come from now on.
    pub fn set_limits(&self, connections_max: usize, connections_per_address_max: usize) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        self.connections_per_address_max.store(connections_per_address_max, Ordering::Relaxed);
    }

    /// A place for one more connection from `address`, if the limits leave one.
    pub fn admit(&self, address: IpAddr) -> Option<Admitted> {
        let max = self.connections_max.load(Ordering::Relaxed);
        let per_address_max = self.connections_per_address_max.load(Ordering::Relaxed);
        let over = self.counts.connections.fetch_add(1, Ordering::Relaxed) >= max && max > 0;
        let (place, crowded) = match per_address_max {
            0 => (Arc::clone(&self.anonymous), false),
            _ => {
                let counts = Arc::clone(&self.counts);
                (Arc::new(Place { counts, address: Some(address) }), self.count(address) > per_address_max)
            }
        };
        let admitted = Admitted(place);
        if over || crowded {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None; // and `admitted` gives back what was counted
        }
        Some(admitted)
    }

    /// Connections that found no place.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The kernel gave no descriptor for a connection, which waits in its accept queue.
    pub fn note_accept_failure(&self) {
        self.accept_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub fn accept_failures(&self) -> u64 {
        self.accept_failures.load(Ordering::Relaxed)
    }

    /// A connection was closed between two workers, because there was no descriptor for it.
    pub fn note_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn count(&self, address: IpAddr) -> usize {
        let mut addresses = self.counts.per_address.lock().expect("no code panics while it holds this lock");
        let count = addresses.entry(address).or_default();
        *count += 1;
        *count
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Place { counts, address } = &*self.0;
        counts.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = address else { return };
        let mut addresses = counts.per_address.lock().expect("no code panics while it holds this lock");
        if let Some(count) = addresses.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn a_place_is_free_again_when_its_connection_goes() {
        let admission = Admission::new(2, 0);
        let (first, second) = (admission.admit(HERE), admission.admit(HERE));
        assert!(first.is_some() && second.is_some());
        assert!(admission.admit(THERE).is_none());
        assert_eq!(admission.refused(), 1);
        drop(first);
        assert!(admission.admit(THERE).is_some());
    }

    #[test]
    fn one_address_cannot_take_the_places_of_another() {
        let admission = Admission::new(0, 1);
        let first = admission.admit(HERE);
        assert!(first.is_some() && admission.admit(HERE).is_none() && admission.admit(THERE).is_some());
        drop(first);
        assert!(admission.admit(HERE).is_some());
        assert!(admission.counts.per_address.lock().unwrap().is_empty(), "addresses do not pile up");
    }

    #[test]
    fn a_limit_that_comes_late_knows_of_those_who_came_before() {
        let admission = Admission::new(0, 0);
        let (first, second) = (admission.admit(HERE), admission.admit(HERE));
        admission.set_limits(2, 0);
        assert!(first.is_some() && second.is_some() && admission.admit(HERE).is_none());
        drop(first);
        assert!(admission.admit(HERE).is_some());
        admission.set_limits(0, 0);
        let many: Vec<_> = (0..9).map(|_| admission.admit(HERE)).collect();
        assert!(many.iter().all(Option::is_some));
    }

    #[test]
    fn a_limit_for_addresses_that_goes_leaves_no_address_behind() {
        let admission = Admission::new(0, 1);
        let place = admission.admit(HERE);
        admission.set_limits(0, 0);
        assert!(place.is_some() && admission.admit(HERE).is_some());
        drop(place);
        assert!(admission.counts.per_address.lock().unwrap().is_empty());
        assert_eq!(admission.counts.connections.load(Ordering::Relaxed), 0);
    }
}
