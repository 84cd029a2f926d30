//! Admission: how many TCP connections the process holds, in all and from one address.
//!
//! The one place of this layer besides the mailbox where threads share something, because a limit for the process needs
//! one count. It is touched when a connection comes and when it goes, and the map of addresses only if that limit is set.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub struct Admission {
    connections_max: usize,
    connections_per_address_max: usize,
    connections: AtomicUsize,
    per_address: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicU64,
    accept_failures: AtomicU64,
    lost: AtomicU64,
}

/// A connection's place, if places are counted. Dropping it frees the place.
pub struct Admitted(#[allow(dead_code, reason = "it is held for its end")] Option<Box<Place>>);

struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Zero means no limit but the descriptors'. Where those run out, connections wait in the accept queue (listen.rs).
    pub fn new(connections_max: usize, connections_per_address_max: usize) -> Arc<Admission> {
        Arc::new(Admission {
            connections_max,
            connections_per_address_max,
            connections: AtomicUsize::new(0),
            per_address: Mutex::new(HashMap::new()),
            refused: AtomicU64::new(0),
            accept_failures: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// A place for one more connection from `address`, if the limits leave one.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        if self.connections_max == 0 && self.connections_per_address_max == 0 {
            return Some(Admitted(None));
        }
        let over = self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max && self.connections_max > 0;
        let place = Admitted(Some(Box::new(Place { admission: Arc::clone(self), address })));
        let crowded = self.count(address) > self.connections_per_address_max && self.connections_per_address_max > 0;
        if over || crowded {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None; // and `place` gives back what was counted
        }
        Some(place)
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
        if self.connections_per_address_max == 0 {
            return 0;
        }
        let mut addresses = self.per_address.lock().expect("no code panics while it holds this lock");
        let count = addresses.entry(address).or_default();
        *count += 1;
        *count
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.connections.fetch_sub(1, Ordering::Relaxed);
        if self.admission.connections_per_address_max == 0 {
            return;
        }
        let mut addresses = self.admission.per_address.lock().expect("no code panics while it holds this lock");
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
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
        assert!(admission.per_address.lock().unwrap().is_empty(), "addresses do not pile up");
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let admission = Admission::new(0, 0);
        assert!(admission.admit(HERE).is_some_and(|place| place.0.is_none()));
    }
}
