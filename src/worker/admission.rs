//! Admission: who may come in. Connections in all and from one address, and handshakes in a second, of the whole process.
//!
//! The one place of this layer besides the mailbox where threads share something, because a limit for the process needs
//! one count. It is touched when a connection or a session comes and when it goes, and the map of addresses only if that
//! limit is set.
//!
//! A place counts a connection, an address, or both. Whose address depends on who stands between us and the client:
//!
//! ```text
//! client ─▶ us                  the connection's place counts its peer
//! client ─▶ PROXY header ─▶ us  the connection's place counts the client that the header names
//! client ─▶ HTTP proxy ─▶ us    the connection's place counts nobody, as it carries many clients: the client is counted by
//!                               its WebSocket's place, or by one that its polling session holds until it is buried
//! ```
//!
//! The limits can change at any time. All connections are counted, so that a limit which comes late knows of those who
//! came before; by address are counted those that come while there is such a limit.
//!
//! Invariants: what a place has counted is given back when it is dropped, wherever that happens.

use crate::error::Refusal;
use crate::settings::Settings;
use crate::shard::slack::Slack as _;
use rand::{Rng, RngExt as _};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest time after which somebody who was refused is asked to come back: enough for a crowd to spread out, and
/// short for a person who waits.
const RETRY_AFTER_SECONDS_MAX: u8 = 10;

pub struct Admission {
    connections_max: AtomicUsize,
    connections_per_address_max: AtomicUsize,
    counts: Arc<Counts>,
    /// Of all connections whose address is not counted.
    anonymous: Arc<Place>,
    pace: Pace,
    refusals: Refusals,
    accept_failures: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    per_address: Mutex<HashMap<IpAddr, usize>>,
}

/// Refusals by their kind.
#[derive(Default)]
struct Refusals {
    connections: AtomicU64,
    addresses: AtomicU64,
    handshakes: AtomicU64,
    shutting_down: AtomicU64,
    proxy_headers: AtomicU64,
}

/// What admission has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections_refused: u64,
    pub addresses_refused: u64,
    pub handshakes_refused: u64,
    pub shutting_down_refused: u64,
    pub proxy_headers_refused: u64,
    pub accept_failures: u64,
    pub lost: u64,
}

/// A place. Dropping it frees the place. One pointer, because every connection has it.
pub struct Admitted(Arc<Place>);

struct Place {
    counts: Arc<Counts>,
    is_connection: bool,
    /// Whose place it is, if that is counted. Then it is nobody else's.
    address: Option<IpAddr>,
}

impl Admission {
    /// Zero means no limit but the descriptors'. Where those run out, connections wait in the accept queue (listen.rs).
    pub fn new(settings: &Settings) -> Arc<Admission> {
        let counts = Arc::<Counts>::default();
        let anonymous = Place { counts: Arc::clone(&counts), is_connection: true, address: None };
        let admission = Admission {
            connections_max: AtomicUsize::default(),
            connections_per_address_max: AtomicUsize::default(),
            counts,
            anonymous: Arc::new(anonymous),
            pace: Pace::default(),
            refusals: Refusals::default(),
            accept_failures: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        admission.set_limits(settings);
        Arc::new(admission)
    }

    /// The limits of these settings, for those who come from now on.
    pub fn set_limits(&self, settings: &Settings) {
        self.connections_max.store(settings.connections_max, Ordering::Relaxed);
        self.connections_per_address_max.store(settings.connections_per_address_max, Ordering::Relaxed);
        self.pace.per_second.store(settings.handshakes_per_second_max as u64, Ordering::Relaxed);
    }

    /// A place for one more connection, if the limit leaves one. It counts nobody's address yet.
    pub fn admit(&self) -> Result<Admitted, Refusal> {
        let most = self.connections_max.load(Ordering::Relaxed);
        let over = self.counts.connections.fetch_add(1, Ordering::Relaxed) >= most && most > 0;
        let admitted = Admitted(Arc::clone(&self.anonymous));
        if over {
            return Err(Refusal::TooManyConnections); // and `admitted` gives back what was counted
        }
        Ok(admitted)
    }

    /// Counts a connection for `address`, and for nobody else, if addresses are limited.
    pub fn count_for(&self, admitted: &mut Admitted, address: IpAddr) -> Result<(), Refusal> {
        admitted.0 = Arc::clone(&self.anonymous);
        if let Some(place) = self.place_of(address, true)? {
            admitted.0 = place;
        }
        Ok(())
    }

    /// A place for a client whose connections are not its own. `None`: addresses are not limited.
    pub fn admit_client(&self, address: IpAddr) -> Result<Option<Admitted>, Refusal> {
        Ok(self.place_of(address, false)?.map(Admitted))
    }

    fn place_of(&self, address: IpAddr, is_connection: bool) -> Result<Option<Arc<Place>>, Refusal> {
        let most = self.connections_per_address_max.load(Ordering::Relaxed);
        if most == 0 {
            return Ok(None);
        }
        let address = address.to_canonical();
        let mut addresses = self.counts.per_address.lock().expect("no code panics while it holds this lock");
        let count = addresses.entry(address).or_default();
        if *count >= most {
            return Err(Refusal::TooManyFromAddress);
        }
        *count += 1;
        Ok(Some(Arc::new(Place { counts: Arc::clone(&self.counts), is_connection, address: Some(address) })))
    }

    /// Whether one more handshake may be made, so long after the start.
    pub fn admit_handshake(&self, now: Duration) -> Result<(), Refusal> {
        match self.pace.take(now.as_nanos() as u64) {
            true => Ok(()),
            false => Err(Refusal::TooManyHandshakes),
        }
    }

    /// Counts a refusal that somebody was told. Returns whether it has a counter here; those for a broken rule have not.
    pub fn note_refusal(&self, refusal: Refusal) -> bool {
        let Refusals { connections, addresses, handshakes, shutting_down, .. } = &self.refusals;
        let counter = match refusal {
            Refusal::TooManyConnections => connections,
            Refusal::TooManyFromAddress => addresses,
            Refusal::TooManyHandshakes => handshakes,
            Refusal::ShuttingDown => shutting_down,
            _ => return false,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// A connection had no PROXY protocol header that counts.
    pub fn note_proxy_header(&self) {
        self.refusals.proxy_headers.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel gave no descriptor for a connection, which waits in its accept queue.
    pub fn note_accept_failure(&self) {
        self.accept_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed between two workers, because there was no descriptor for it.
    pub fn note_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            connections_refused: read(&self.refusals.connections),
            addresses_refused: read(&self.refusals.addresses),
            handshakes_refused: read(&self.refusals.handshakes),
            shutting_down_refused: read(&self.refusals.shutting_down),
            proxy_headers_refused: read(&self.refusals.proxy_headers),
            accept_failures: read(&self.accept_failures),
            lost: read(&self.lost),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.0.is_connection {
            self.0.counts.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = self.counts.per_address.lock().expect("no code panics while it holds this lock");
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
                addresses.trim();
            }
        }
    }
}

/// How many things may happen in a second: a token bucket with a burst of one second, as one number.
///
/// The number is the time at which the bucket is full again. Each token moves it by an interval; when it lies more than a
/// burst ahead, the bucket is empty. (The generic cell rate algorithm of ATM, by its other name.)
#[derive(Default)]
struct Pace {
    /// Zero: there is no limit.
    per_second: AtomicU64,
    /// In nanoseconds.
    full_at: AtomicU64,
}

impl Pace {
    fn take(&self, now: u64) -> bool {
        let per_second = self.per_second.load(Ordering::Relaxed);
        let Some(interval) = 1_000_000_000u64.checked_div(per_second) else { return true };
        let next = |full_at: u64| {
            let full_at = full_at.max(now) + interval;
            (full_at <= now + interval * per_second).then_some(full_at)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// Seconds after which somebody who is refused may come back: not everybody after the same.
pub fn retry_after(random: &mut impl Rng) -> u8 {
    random.random_range(1..=RETRY_AFTER_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn limits(connections: usize, per_address: usize, handshakes: usize) -> Settings {
        Settings {
            connections_max: connections,
            connections_per_address_max: per_address,
            handshakes_per_second_max: handshakes,
            ..Settings::default()
        }
    }

    fn admission(connections: usize, per_address: usize, handshakes: usize) -> Arc<Admission> {
        Admission::new(&limits(connections, per_address, handshakes))
    }

    fn admit(admission: &Admission, address: IpAddr) -> Result<Admitted, Refusal> {
        let mut admitted = admission.admit()?;
        admission.count_for(&mut admitted, address)?;
        Ok(admitted)
    }

    fn connections(admission: &Admission) -> usize {
        admission.counts.connections.load(Ordering::Relaxed)
    }

    fn counts_no_address(admission: &Admission) -> bool {
        admission.counts.per_address.lock().unwrap().is_empty()
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_goes() {
        let admission = admission(2, 0, 0);
        let (first, second) = (admit(&admission, HERE), admit(&admission, HERE));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(admit(&admission, THERE).err(), Some(Refusal::TooManyConnections));
        drop(first);
        assert!(admit(&admission, THERE).is_ok());
    }

    #[test]
    fn one_address_cannot_take_the_places_of_another() {
        let admission = admission(0, 1, 0);
        let first = admit(&admission, HERE);
        assert!(first.is_ok() && admit(&admission, THERE).is_ok());
        assert_eq!(admit(&admission, HERE).err(), Some(Refusal::TooManyFromAddress));
        drop(first);
        assert!(admit(&admission, HERE).is_ok());
        assert!(counts_no_address(&admission), "addresses do not pile up");
    }

    #[test]
    fn clients_of_a_proxy_are_counted_one_by_one_and_its_connections_for_nobody() {
        let admission = admission(3, 1, 0);
        let held: Vec<_> = (0..3).map(|_| admission.admit()).collect();
        assert!(held.iter().all(Result::is_ok), "no address is counted");
        let client = admission.admit_client(HERE);
        assert!(client.is_ok() && admission.admit_client(HERE).is_err() && admission.admit_client(THERE).is_ok());
        assert_eq!(connections(&admission), 3, "a client's place is no connection's");
        drop(client);
        assert!(admission.admit_client(HERE).is_ok());
        drop(held);
        assert_eq!(connections(&admission), 0);
        assert!(counts_no_address(&admission));
    }

    #[test]
    fn each_refusal_of_ours_has_a_counter_of_its_own() {
        let admission = admission(0, 0, 0);
        let times = [
            (Refusal::TooManyConnections, 1),
            (Refusal::TooManyFromAddress, 2),
            (Refusal::TooManyHandshakes, 3),
            (Refusal::ShuttingDown, 4),
        ];
        for (refusal, times) in times {
            (0..times).for_each(|_| assert!(admission.note_refusal(refusal)));
        }
        (0..5).for_each(|_| admission.note_proxy_header());
        assert!(!admission.note_refusal(Refusal::UnknownSid), "a broken rule is counted elsewhere");
        let expected = Totals {
            connections_refused: 1,
            addresses_refused: 2,
            handshakes_refused: 3,
            shutting_down_refused: 4,
            proxy_headers_refused: 5,
            ..Totals::default()
        };
        assert_eq!(admission.totals(), expected);
    }

    #[test]
    fn a_place_that_changes_its_client_is_one_clients_only() {
        let admission = admission(0, 1, 0);
        let mut place = admission.admit().unwrap();
        let mut count_for = |address| admission.count_for(&mut place, address);
        assert!(count_for(HERE).is_ok() && count_for(THERE).is_ok());
        assert!(admission.admit_client(HERE).is_ok() && admission.admit_client(THERE).is_err());
        assert_eq!(connections(&admission), 1);
    }

    #[test]
    fn an_address_of_v4_is_the_same_over_a_socket_of_v6() {
        let admission = admission(0, 1, 0);
        let first = admit(&admission, HERE);
        assert!(first.is_ok() && admit(&admission, "::ffff:127.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn without_limits_nobody_is_refused_and_no_address_counted() {
        let admission = admission(0, 0, 0);
        let places: Vec<_> = (0..9).map(|_| admit(&admission, HERE)).collect();
        assert!(places.iter().all(Result::is_ok) && admission.admit_client(HERE).is_ok_and(|place| place.is_none()));
        assert!(counts_no_address(&admission));
        assert!((0..10_000).all(|_| admission.admit_handshake(Duration::ZERO).is_ok()));
    }

    #[test]
    fn a_limit_that_comes_late_knows_of_those_who_came_before() {
        let admission = admission(0, 0, 0);
        let (first, second) = (admit(&admission, HERE), admit(&admission, HERE));
        admission.set_limits(&limits(2, 0, 0));
        assert!(first.is_ok() && second.is_ok() && admit(&admission, HERE).is_err());
        drop(first);
        assert!(admit(&admission, HERE).is_ok());
        admission.set_limits(&limits(0, 0, 0));
        let many: Vec<_> = (0..9).map(|_| admit(&admission, HERE)).collect();
        assert!(many.iter().all(Result::is_ok));
    }

    #[test]
    fn a_limit_for_addresses_that_goes_leaves_no_address_behind() {
        let admission = admission(0, 1, 0);
        let (mut connection, client) = (admit(&admission, HERE), admission.admit_client(THERE));
        admission.set_limits(&limits(0, 0, 0));
        assert!(connection.is_ok() && admit(&admission, HERE).is_ok() && admission.admit_client(THERE).is_ok());
        assert_eq!(admission.count_for(connection.as_mut().unwrap(), THERE), Ok(()), "which counts it for nobody");
        drop(client);
        assert!(counts_no_address(&admission));
        drop(connection);
        assert_eq!(connections(&admission), 0);
    }

    #[test]
    fn another_pace_holds_from_the_next_handshake() {
        let admission = admission(0, 0, 1_000);
        let all_at = |millis| {
            let handshake = || admission.admit_handshake(Duration::from_millis(millis));
            (0..2_000).take_while(|_| handshake().is_ok()).count()
        };
        assert_eq!(all_at(0), 1_000);
        admission.set_limits(&limits(0, 0, 10));
        assert_eq!((all_at(99), all_at(100), all_at(1_100)), (0, 1, 10));
        admission.set_limits(&limits(0, 0, 0));
        assert_eq!(all_at(1_100), 2_000);
    }

    #[test]
    fn a_second_of_handshakes_may_come_at_once_and_then_one_at_a_time() {
        for per_second in [1, 3, 7, 1_000, 999_999, 1_000_000] {
            let admission = admission(0, 0, per_second);
            let all_at = |now| (0..).take_while(|_| admission.admit_handshake(now).is_ok()).count();
            let second = Duration::from_secs(1);
            let one = second / per_second as u32;
            assert_eq!(all_at(Duration::ZERO), per_second);
            assert_eq!(all_at(one / 2), 0);
            assert_eq!(all_at(one), 1, "{per_second}");
            assert_eq!(all_at(60 * second), per_second, "a pause saves no more than a second's worth");
        }
    }

    #[test]
    fn threads_share_one_pace() {
        let admission = admission(0, 0, 1_000);
        let let_in = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let here = (0..900).filter(|_| admission.admit_handshake(Duration::ZERO).is_ok()).count();
                    let_in.fetch_add(here, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(let_in.into_inner(), 1_000);
    }

    #[test]
    fn those_who_are_refused_together_do_not_come_back_together() {
        let seconds = |seed| {
            let mut random = StdRng::from_seed([seed; 32]);
            let all: Vec<u8> = (0..1_000).map(|_| retry_after(&mut random)).collect();
            all
        };
        let all = seconds(7);
        for second in 1..=RETRY_AFTER_SECONDS_MAX {
            let back = all.iter().filter(|&&it| it == second).count();
            // 100 on average; half as many more is five standard deviations away.
            assert!((50..150).contains(&back), "{back} after {second} s");
        }
        assert!(all.iter().all(|it| (1..=RETRY_AFTER_SECONDS_MAX).contains(it)));
        assert_eq!(all, seconds(7), "by the seed");
        assert_ne!(all, seconds(8));
    }
}
