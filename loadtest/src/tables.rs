//! Tables: how many threads the connections need, when one descriptor table holds only so many.
//!
//! A limit like 20,000 is per table, and threads may have tables of their own. So the connections are shared out among
//! as many threads as the limit asks for, and a few more when there are cores and work for them.

use crate::error::Error;
use crate::plan::Plan;
use std::ops::Range;

/// Descriptors that a thread needs beside its connections: standard streams, poll, the report, and some to spare.
const RESERVE: u64 = 32;
/// Threads at most: each has a read buffer and a table, and beyond this the limit should be raised instead.
pub const THREADS_MAX: u64 = 64;
/// Connections that are worth a thread of their own, if there is a core for it.
const CONNECTIONS_PER_THREAD: u64 = 10_000;

pub fn threads(connections: u32, table_limit: u64, cores: usize) -> Result<u32, Error> {
    let connections = u64::from(connections);
    let room = table_limit.saturating_sub(RESERVE);
    if room.saturating_mul(THREADS_MAX) < connections {
        return Err(Error::TooFewDescriptors {
            connections,
            table_limit,
            wanted: connections.div_ceil(THREADS_MAX) + RESERVE,
        });
    }
    let needed = connections.div_ceil(room);
    let useful = connections.div_ceil(CONNECTIONS_PER_THREAD).min(cores as u64);
    Ok(needed.max(useful).max(1) as u32)
}

/// The numbers of each thread's clients. Where those that move have rooms of their own, they have threads of their own
/// too, which give way, so that a storm of theirs delays nobody whose messages are timed.
pub fn crews(plan: &Plan, clients: Range<u32>, table_limit: u64, cores: usize) -> Result<Vec<Vec<u32>>, Error> {
    let apart = plan.motion.filter(|_| plan.layout.apart);
    let (movers, others): (Vec<u32>, Vec<u32>) =
        clients.partition(|client| apart.is_some_and(|motion| motion.moves(*client)));
    let mut crews = Vec::new();
    for group in [others, movers].into_iter().filter(|group| !group.is_empty()) {
        let threads = threads(group.len() as u32, table_limit, cores)?;
        let part = |number| share(group.len() as u32, threads, number);
        crews.extend((0..threads).map(|number| group[part(number).start as usize..part(number).end as usize].to_vec()));
    }
    if crews.len() as u64 > THREADS_MAX {
        let connections = crews.iter().map(|crew| crew.len() as u64).sum::<u64>();
        let wanted = connections.div_ceil(THREADS_MAX - 1) + RESERVE;
        return Err(Error::TooFewDescriptors { connections, table_limit, wanted });
    }
    Ok(crews)
}

/// The clients of thread `number` of `threads`.
pub fn share(connections: u32, threads: u32, number: u32) -> Range<u32> {
    let bound = |number: u32| (u64::from(connections) * u64::from(number) / u64::from(threads)) as u32;
    bound(number)..bound(number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan_of;

    #[test]
    fn those_that_move_in_rooms_of_their_own_have_threads_of_their_own() {
        let text = "connections = 100\nroom = \"r\"\n[motion]\nkind = \"drop\"\nshare = 0.9\n";
        let sizes = |plan: &Plan, clients: Range<u32>, limit| {
            crews(plan, clients, limit, 1).map(|crews| crews.iter().map(Vec::len).collect::<Vec<_>>())
        };
        let (mixed, apart) = (plan_of(text), plan_of(&format!("{text}[rooms]\napart = true\n")));
        assert_eq!(sizes(&mixed, 0..100, 1000), Ok(vec![100]));
        assert_eq!(sizes(&apart, 0..100, 1000), Ok(vec![10, 90]));
        assert_eq!(sizes(&apart, 50..100, 62), Ok(vec![5, 22, 23]), "a table of 62 has room for 30");
        let motion = apart.motion.expect("they drop");
        let crews = crews(&apart, 0..100, 1000, 1).expect("there is room");
        assert!(crews[1].iter().all(|client| motion.moves(*client)));
        assert!(sizes(&apart, 0..100, 33).is_err(), "a thread for each client would be too many");
    }

    #[test]
    fn no_thread_has_more_than_its_table_holds() {
        for (connections, limit, cores, expected) in [
            (1, 1024, 2, 1),
            (1000, 20_000, 2, 1),
            (100_000, 20_000, 2, 6),
            (100_000, 1 << 20, 8, 8),
            (20_000, 1 << 20, 1, 1),
        ] {
            let threads = threads(connections, limit, cores).expect("there is room");
            assert_eq!(threads, expected, "{connections} connections");
            let shares: Vec<_> = (0..threads).map(|number| share(connections, threads, number)).collect();
            assert!(shares.iter().all(|share| share.len() as u64 + RESERVE <= limit));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!((shares[0].start, shares[shares.len() - 1].end), (0, connections));
        }
    }

    #[test]
    fn too_small_a_table_says_how_large_it_should_be() {
        let error = threads(100_000, 256, 2).expect_err("64 threads of 224 are too few");
        assert_eq!(
            error.to_string(),
            "100,000 connections do not fit into descriptor tables of 256; raise the limit with: ulimit -n 1595"
        );
        assert!(threads(1, 10, 2).is_err());
        assert!(threads(100_000, 1595, 2).is_ok());
    }
}
