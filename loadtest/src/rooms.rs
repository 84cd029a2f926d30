//! Rooms: which there are, who is in which, and to which one a message goes; all of it arithmetic from the plan and its
//! seed, so that every thread, and every generator of a run, knows the same without asking.
//!
//! ```text
//!     message m  ─▶  room turns[m mod C], as its message number m ÷ C            C rooms that have clients, in turn
//!     client i   ─▶  one room in each of `per_client` layers of rooms
//! ```
//!
//! Layers make sure that a client's rooms differ and that two clients who share one room rarely share the next. The
//! audience of a room are the clients in it that stay all the time: those that move are counted, but no message waits
//! for them.

use crate::motion::Motion;
use crate::scenario::{self, Spread};
use crate::seed;
use std::ops::Range;

pub struct Rooms {
    /// `None`: there are no rooms, everything goes to everyone.
    name: Option<String>,
    clients: u32,
    seed: u64,
    layers: u32,
    rooms_per_layer: u32,
    /// Of an even spread, each layer's stride through the clients.
    strides: Vec<u64>,
    /// Of a Zipf spread, which share of the clients is in the room of this rank or a lower one.
    cumulative: Option<Vec<f64>>,
    /// Clients that move have rooms of their own, behind those of the others.
    apart: bool,
    motion: Option<Motion>,
    /// Rooms that have clients, in the order of their turns; and of each room its turn, if it has one.
    turns: Vec<u32>,
    turn_of: Vec<u32>,
    audience: Vec<u32>,
    /// Of the rooms before each turn, the sum of the audiences.
    audience_before: Vec<u64>,
}

impl Rooms {
    pub fn new(name: Option<&str>, layout: &scenario::Rooms, motion: Option<Motion>, clients: u32, seed: u64) -> Rooms {
        let layers = layout.per_client.max(1);
        let wanted = match (layout.count, layout.size) {
            (Some(count), _) => count,
            (None, Some(size)) => (u64::from(clients) * u64::from(layers)).div_ceil(size.max(1).into()) as u32,
            (None, None) => 1,
        };
        let rooms_per_layer = wanted.div_ceil(layers).max(1);
        let cumulative = (layout.spread == Spread::Zipf).then(|| zipf(rooms_per_layer));
        let strides = (0..layers).map(|layer| coprime(clients.into(), seed::mix(seed, layer, 0))).collect();
        let apart = layout.apart && motion.is_some();
        let name = name.map(str::to_owned);
        let mut rooms = Rooms {
            name,
            clients,
            seed,
            layers,
            rooms_per_layer,
            strides,
            cumulative,
            apart,
            motion,
            turns: Vec::new(),
            turn_of: Vec::new(),
            audience: Vec::new(),
            audience_before: Vec::new(),
        };
        rooms.take_turns();
        rooms
    }

    fn take_turns(&mut self) {
        let count = (self.layers * self.rooms_per_layer) as usize * (1 + usize::from(self.apart));
        let (mut audience, mut members) = (vec![0; count], vec![0_u32; count]);
        for client in 0..self.clients {
            let stays = !self.moves(client);
            for room in (0..self.layers).map(|layer| self.of(client, layer) as usize) {
                members[room] += 1;
                audience[room] += u32::from(stays);
            }
        }
        let mut turns: Vec<u32> = (0..count as u32).filter(|room| members[*room as usize] > 0).collect();
        seed::shuffle(&mut turns, self.seed);
        let mut turn_of = vec![u32::MAX; count];
        turns.iter().zip(0..).for_each(|(room, turn)| turn_of[*room as usize] = turn);
        let mut sum = 0;
        let before = |room: &u32| {
            let before = sum;
            sum += u64::from(audience[*room as usize]);
            before
        };
        let audience_before = turns.iter().map(before).collect::<Vec<_>>().into_iter().chain([sum]).collect();
        (self.turns, self.turn_of, self.audience, self.audience_before) = (turns, turn_of, audience, audience_before);
    }

    /// The room of `client` in `layer`.
    pub fn of(&self, client: u32, layer: u32) -> u32 {
        let place = match &self.cumulative {
            Some(cumulative) => {
                let share = seed::unit(self.seed, client, layer);
                cumulative.partition_point(|bound| *bound <= share).min(cumulative.len() - 1) as u32
            }
            None => {
                // Each layer steps through the clients with a stride of its own, and cuts them into equal rooms.
                let clients = u64::from(self.clients);
                let place = u64::from(client) * self.strides[layer as usize] % clients;
                (place * u64::from(self.rooms_per_layer) / clients) as u32
            }
        };
        let behind = if self.apart && self.moves(client) { self.layers * self.rooms_per_layer } else { 0 };
        behind + layer * self.rooms_per_layer + place
    }

    /// Whether those that move have rooms of their own.
    pub fn are_apart(&self) -> bool {
        self.apart
    }

    pub fn moves(&self, client: u32) -> bool {
        self.motion.is_some_and(|motion| motion.moves(client))
    }

    /// Of each room, how many of the clients in it that stay are among `clients`.
    pub fn audience_among(&self, clients: Range<u32>) -> Vec<u32> {
        if clients == (0..self.clients) {
            return self.audience.clone();
        }
        let mut audience = vec![0; self.audience.len()];
        for client in clients.filter(|client| !self.moves(*client)) {
            (0..self.layers).for_each(|layer| audience[self.of(client, layer) as usize] += 1);
        }
        audience
    }

    /// How many rooms each client is in.
    pub fn per_client(&self) -> u32 {
        self.layers
    }

    /// How many rooms have clients; zero when there are no rooms.
    pub fn count(&self) -> u32 {
        if self.name.is_some() { self.turns.len() as u32 } else { 0 }
    }

    /// What the server calls it; `None` is everyone.
    pub fn name(&self, room: u32) -> Option<String> {
        let name = self.name.as_ref()?;
        Some(if self.turn_of.len() == 1 { name.clone() } else { format!("{name}-{room}") })
    }

    /// The rooms in the order of their turns.
    pub fn turns(&self) -> &[u32] {
        &self.turns
    }

    /// The room that a message goes to.
    pub fn room(&self, message: u32) -> u32 {
        self.turns[(message % self.turns.len() as u32) as usize]
    }

    /// The how-manieth message of its room a message is.
    pub fn sequence(&self, message: u32) -> u32 {
        message / self.turns.len() as u32
    }

    /// The message that is number `sequence` of `room`.
    pub fn message(&self, room: u32, sequence: u32) -> u64 {
        u64::from(sequence) * self.turns.len() as u64 + u64::from(self.turn_of[room as usize])
    }

    /// How many of the first `sent` messages went to `room`.
    pub fn published(&self, room: u32, sent: u32) -> u32 {
        let turns = self.turns.len() as u32;
        sent / turns + u32::from(self.turn_of[room as usize] < sent % turns)
    }

    /// How many clients are in a room all the time.
    pub fn audience(&self, room: u32) -> u32 {
        self.audience[room as usize]
    }

    /// How many deliveries the first `sent` messages make, to clients that stay.
    pub fn expected(&self, sent: u32) -> u64 {
        let turns = self.turns.len() as u32;
        let round = self.audience_before[self.turns.len()];
        u64::from(sent / turns) * round + self.audience_before[(sent % turns) as usize]
    }
}

/// Of each room, the share of the clients that are in it or in one of lower rank.
fn zipf(rooms: u32) -> Vec<f64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=rooms).map(|rank| (sum += 1.0 / f64::from(rank), sum).1).collect();
    sums.iter().map(|before| before / sum).collect()
}

/// A stride through `clients` that meets each of them once.
fn coprime(clients: u64, wanted: u64) -> u64 {
    let divisor = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut step = wanted % clients;
    while divisor(step, clients) != 1 {
        step += 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::motion::Kind;
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    const DROP: Motion = Motion {
        kind: Kind::Drop,
        share: 0.5,
        at: Duration::ZERO,
        over: Duration::ZERO,
        repeat: false,
        after: None,
        still: false,
    };

    fn rooms(layout: scenario::Rooms, motion: Option<Motion>, clients: u32) -> Rooms {
        Rooms::new(Some("r"), &layout, motion, clients, 7)
    }

    /// Who is in which room, asked client by client.
    fn members(rooms: &Rooms) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut members = BTreeMap::<u32, BTreeSet<u32>>::new();
        for client in 0..rooms.clients {
            for layer in 0..rooms.per_client() {
                assert!(members.entry(rooms.of(client, layer)).or_default().insert(client), "its rooms differ");
            }
        }
        members
    }

    #[test]
    fn everyone_is_in_the_one_room() {
        let rooms = rooms(scenario::Rooms::default(), None, 10);
        assert_eq!((rooms.count(), rooms.name(0), rooms.audience(0)), (1, Some("r".to_owned()), 10));
        assert_eq!((rooms.room(5), rooms.sequence(5), rooms.message(0, 5)), (0, 5, 5));
        assert_eq!((rooms.published(0, 5), rooms.expected(5)), (5, 50));
        assert_eq!(Rooms::new(None, &scenario::Rooms::default(), None, 10, 7).name(0), None);
    }

    #[test]
    fn even_rooms_have_equal_sizes_and_layers_mix() {
        let layout = scenario::Rooms { size: Some(10), per_client: 10, ..Default::default() };
        let rooms = rooms(layout, None, 1000);
        let members = members(&rooms);
        assert_eq!((rooms.count(), members.len()), (1000, 1000));
        assert!(members.values().all(|members| members.len() == 10));
        let neighbours: BTreeSet<_> = members.values().filter(|members| members.contains(&0)).flatten().collect();
        assert!(neighbours.len() > 50, "{} clients share a room with the first", neighbours.len());
        assert_eq!(rooms.name(3), Some("r-3".to_owned()));
    }

    #[test]
    fn zipf_gives_the_first_room_the_most() {
        let layout = scenario::Rooms { count: Some(100), spread: Spread::Zipf, ..Default::default() };
        let members = members(&rooms(layout, None, 20_000));
        // The sum of 1 ÷ r to 100 is 5.19: the first has 19 %, the second half of that.
        let size = |room: u32| members.get(&room).map_or(0, BTreeSet::len);
        assert!((3600..4100).contains(&size(0)) && (1800..2100).contains(&size(1)), "{} {}", size(0), size(1));
        assert!(size(99) < 80);
    }

    #[test]
    fn those_that_move_may_be_apart() {
        let layout = scenario::Rooms { count: Some(2), apart: true, ..Default::default() };
        let rooms = rooms(layout, Some(DROP), 100);
        for (room, members) in members(&rooms) {
            assert!(members.iter().all(|client| rooms.moves(*client) == (room >= 2)), "{room}");
            assert_eq!(rooms.audience(room), if room < 2 { members.len() as u32 } else { 0 });
        }
        assert_eq!(rooms.count(), 4);
    }

    #[test]
    fn shares_of_the_clients_make_up_the_audience() {
        let layout = scenario::Rooms { count: Some(7), per_client: 2, ..Default::default() };
        let rooms = rooms(layout, Some(DROP), 101);
        let [few, many] = [0..20, 20..101].map(|clients| rooms.audience_among(clients));
        let whole = rooms.audience_among(0..101);
        assert!(few.iter().zip(&many).map(|(few, many)| few + many).eq(whole.iter().copied()));
        assert_eq!(few.iter().sum::<u32>(), 20, "half of them move, and each is in two rooms");
    }

    /// Counts every message by hand, for layouts with empty rooms and without.
    #[test]
    fn turns_agree_with_counting() {
        for (layout, motion) in [
            (scenario::Rooms { count: Some(7), ..Default::default() }, None),
            (scenario::Rooms { count: Some(50), spread: Spread::Zipf, ..Default::default() }, Some(DROP)),
            (scenario::Rooms { count: Some(6), per_client: 3, ..Default::default() }, Some(DROP)),
        ] {
            let rooms = rooms(layout, motion, 40);
            let (mut published, mut expected) = (BTreeMap::<u32, u32>::new(), 0);
            for message in 0..200 {
                let room = rooms.room(message);
                let sequence = published.entry(room).or_default();
                assert_eq!((rooms.sequence(message), rooms.message(room, *sequence)), (*sequence, message.into()));
                *sequence += 1;
                expected += u64::from(rooms.audience(room));
                assert_eq!(rooms.expected(message + 1), expected);
                assert!(rooms.turns().iter().all(|room| {
                    rooms.published(*room, message + 1) == published.get(room).copied().unwrap_or_default()
                }));
            }
            assert_eq!(members(&rooms).len(), rooms.count() as usize, "only rooms with clients have turns");
        }
    }
}
