//! Which brokers get the replicas of a partition: Kafka's rack-aware round robin.
//!
//! The brokers are put in an order in which neighbours are in different racks. Partition `p` has its
//! first replica at place `p + start` of that order, and its other replicas at places behind it; how
//! far behind moves by one with each lap, so that the followers of one broker's leaders are spread
//! over all the others. A rack gets a second replica of a partition only when every rack has one.

use std::collections::{BTreeMap, VecDeque};

/// A broker that replicas may be placed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its `node.id`.
    pub node: i32,
    /// Its rack, empty where it has none.
    pub rack: String,
    /// How many more replicas it has room for; `None` where nobody knows, or nothing limits it.
    pub room: Option<usize>,
}

/// Places `partitions` partitions, the first of them with number `first_partition`, with
/// `replication` replicas each. The preferred leader comes first.
///
/// The same arguments always give the same placement. Racks count only where every candidate has
/// one. A broker without room is passed over: the next one behind it takes its place. `None` if there are
/// fewer candidates than replicas, too few of them have room, or no replica is asked for.
#[must_use]
pub fn place(
    candidates: &[Candidate],
    first_partition: usize,
    partitions: usize,
    replication: usize,
    seed: u64,
) -> Option<Vec<Vec<i32>>> {
    let order = alternate_racks(candidates);
    let brokers = order.len();
    if replication == 0 || replication > brokers {
        return None;
    }
    let racks = order
        .iter()
        .map(|(rack, _)| *rack)
        .max()
        .map_or(0, |last| last + 1);
    // Distances to followers are counted among the other brokers.
    let others = brokers.saturating_sub(1).max(1);
    let start = usize::try_from(seed % brokers as u64).unwrap_or(0);
    let mut shift =
        usize::try_from((seed >> 32) % brokers as u64).unwrap_or(0) + first_partition / brokers;
    let stride = if racks == brokers { 1 } else { racks };
    let mut room: BTreeMap<i32, usize> = candidates
        .iter()
        .filter_map(|candidate| Some((candidate.node, candidate.room?)))
        .collect();
    let mut placed = Vec::with_capacity(partitions);
    for number in first_partition..first_partition + partitions {
        if number > first_partition && number % brokers == 0 {
            shift += 1;
        }
        let first = (number + start) % brokers;
        let has_room = |node: i32| room.get(&node) != Some(&0);
        let at_first = order.get(first).copied();
        let mut chosen: Vec<(usize, i32)> = at_first
            .into_iter()
            .filter(|(_, node)| has_room(*node))
            .collect();
        // One lap over the others finds every rack once; what is then missing is taken by further
        // laps, in which only the brokers themselves must differ.
        for every_rack_taken in [false, true] {
            for step in 0..others {
                if chosen.len() == replication {
                    break;
                }
                let place = (first + 1 + (shift * stride + step) % others) % brokers;
                let Some(&(rack, node)) = order.get(place) else {
                    continue;
                };
                let rack_taken = chosen.iter().any(|(taken, _)| *taken == rack);
                let node_taken = chosen.iter().any(|(_, taken)| *taken == node);
                if !node_taken && (every_rack_taken || !rack_taken) && has_room(node) {
                    chosen.push((rack, node));
                }
            }
        }
        if chosen.len() < replication {
            return None;
        }
        for (_, node) in &chosen {
            if let Some(room) = room.get_mut(node) {
                *room -= 1;
            }
        }
        placed.push(chosen.into_iter().map(|(_, node)| node).collect());
    }
    Some(placed)
}

/// The candidates as (rack number, node), in an order that goes round the racks.
fn alternate_racks(candidates: &[Candidate]) -> Vec<(usize, i32)> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_key(|candidate| candidate.node);
    sorted.dedup_by_key(|candidate| candidate.node);
    if sorted.iter().any(|candidate| candidate.rack.is_empty()) {
        return sorted
            .iter()
            .enumerate()
            .map(|(rack, candidate)| (rack, candidate.node))
            .collect();
    }
    let mut by_rack: BTreeMap<&str, VecDeque<i32>> = BTreeMap::new();
    for candidate in &sorted {
        by_rack
            .entry(&candidate.rack)
            .or_default()
            .push_back(candidate.node);
    }
    let mut queues: Vec<VecDeque<i32>> = by_rack.into_values().collect();
    let mut order = Vec::with_capacity(sorted.len());
    while order.len() < sorted.len() {
        for (rack, queue) in queues.iter_mut().enumerate() {
            order.extend(queue.pop_front().map(|node| (rack, node)));
        }
    }
    order
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn brokers(racks: &[&str]) -> Vec<Candidate> {
        racks
            .iter()
            .zip(1..)
            .map(|(rack, node)| Candidate {
                node,
                rack: (*rack).to_owned(),
                room: None,
            })
            .collect()
    }

    #[test]
    fn leaders_go_round_the_brokers() {
        let placed = place(&brokers(&["", "", ""]), 0, 6, 3, 0).unwrap();
        assert_eq!(
            placed,
            [
                [1, 2, 3],
                [2, 3, 1],
                [3, 1, 2],
                [1, 3, 2],
                [2, 1, 3],
                [3, 2, 1]
            ]
        );
    }

    #[test]
    fn neighbours_are_in_different_racks() {
        // Nodes 1 and 2 share a rack, as do 3 and 4, and 5 and 6.
        let placed = place(&brokers(&["a", "a", "b", "b", "c", "c"]), 0, 600, 3, 7).unwrap();
        for replicas in &placed {
            let racks: BTreeSet<i32> = replicas.iter().map(|node| (node - 1) / 2).collect();
            assert_eq!(racks.len(), 3, "{replicas:?}");
        }
        for node in 1..=6 {
            assert_eq!(
                placed.iter().filter(|replicas| replicas[0] == node).count(),
                100
            );
            assert_eq!(
                placed
                    .iter()
                    .filter(|replicas| replicas.contains(&node))
                    .count(),
                300
            );
        }
    }

    #[test]
    fn added_partitions_go_on_where_the_first_ones_ended() {
        let brokers = brokers(&["", "", "", ""]);
        let whole = place(&brokers, 0, 11, 3, 5).unwrap();
        assert_eq!(place(&brokers, 7, 4, 3, 5).unwrap(), whole[7..]);
    }

    #[test]
    fn a_broker_without_room_is_passed_over() {
        let mut three = brokers(&["", "", ""]);
        three[1].room = Some(1);
        let placed = place(&three, 0, 3, 2, 0).unwrap();
        assert_eq!(placed, [[1, 2], [3, 1], [3, 1]]);
        // With three replicas it is needed, and has room for one.
        assert_eq!(place(&three, 0, 1, 3, 0).unwrap(), [[1, 2, 3]]);
        assert_eq!(place(&three, 0, 2, 3, 0), None);
        three[0].room = Some(0);
        assert_eq!(place(&three, 0, 1, 3, 0), None);
    }

    proptest! {
        #[test]
        fn nobody_is_given_more_than_he_has_room_for(
            rooms in prop::collection::vec(prop::option::of(0_usize..6), 1..8),
            replication in 1_usize..4, partitions in 0_usize..12, seed: u64,
        ) {
            let candidates: Vec<Candidate> = rooms.iter().zip(0..)
                .map(|(room, node)| Candidate { node, rack: String::new(), room: *room }).collect();
            let Some(placed) = place(&candidates, 0, partitions, replication, seed) else {
                return Ok(());
            };
            for candidate in &candidates {
                let given = placed.iter().filter(|nodes| nodes.contains(&candidate.node)).count();
                prop_assert!(candidate.room.is_none_or(|room| given <= room));
            }
            for replicas in placed {
                prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), replication);
            }
        }

        #[test]
        fn a_partition_has_distinct_brokers_and_as_many_racks_as_possible(
            racks in prop::collection::vec(0_u8..4, 1..12), replication in 1_usize..8,
            partitions in 0_usize..50, first in 0_usize..50, seed: u64,
        ) {
            let candidates: Vec<Candidate> = racks.iter().zip(0..)
                .map(|(rack, node)| Candidate { node, rack: format!("r{rack}"), room: None }).collect();
            let placed = place(&candidates, first, partitions, replication, seed);
            if replication > candidates.len() {
                prop_assert!(placed.is_none());
                return Ok(());
            }
            let distinct_racks = racks.iter().collect::<BTreeSet<_>>().len();
            for replicas in placed.unwrap() {
                prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), replication);
                let used: BTreeSet<u8> = replicas.iter().map(|n| racks[usize::try_from(*n).unwrap()]).collect();
                prop_assert_eq!(used.len(), distinct_racks.min(replication));
            }
        }
    }
}
