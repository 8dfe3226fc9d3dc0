//! The replicas of group 0: who they are, and which of them are to vote.
//!
//! The founders vote. Who joins follows as a learner, and learners are called to vote until there
//! are [`VOTERS`], odd numbers only: a second voter alone would make the cluster need both. A node
//! that comes back with another data directory takes the place of the replica that it lost (R3),
//! under a new id (I7). All of it follows from the order of the commands, so every node knows the
//! same; who leads group 0 makes its configuration so (`Partition::set_members`).

use uuid::Uuid;

use super::image::{FIRST_REPLICA, ReplicaImage};
use super::outcome::Rejection;

/// Voters of group 0 that a cluster grows to.
const VOTERS: usize = 3;
/// The replica that a single node founds its cluster with.
pub const FIRST_CONTROLLER: u64 = 1;

/// The replicas of group 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuorumImage {
    /// The replicas that the cluster was founded with: the configuration with which the first entry
    /// of the log is read.
    pub first_voters: Vec<u64>,
    /// The replicas, one a node.
    pub replicas: Vec<QuorumReplica>,
}

/// A replica of group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Which, where, and on what.
    pub at: ReplicaImage,
    /// Whether it is to vote.
    pub votes: bool,
}

impl QuorumImage {
    /// The replica of a node.
    #[must_use]
    pub fn of_node(&self, node: i32) -> Option<&QuorumReplica> {
        self.replicas.iter().find(|replica| replica.at.node == node)
    }

    /// The ids of those that are to vote, or of the others.
    pub fn ids(&self, votes: bool) -> impl Iterator<Item = u64> {
        self.replicas
            .iter()
            .filter(move |replica| replica.votes == votes)
            .map(|replica| replica.at.replica)
    }

    /// Greater than every id that was given out.
    #[must_use]
    pub fn next_replica(&self) -> u64 {
        let ids = self.replicas.iter().map(|replica| replica.at.replica);
        // A replica that was replaced had a lower id than the one in its place.
        let greatest = ids.chain(self.first_voters.iter().copied()).max();
        greatest.map_or(FIRST_CONTROLLER, |id| id + 1)
    }

    /// The founders are made known.
    pub(super) fn found(&mut self, founders: &[ReplicaImage]) -> Result<(), Rejection> {
        let bad = Rejection::Malformed { what: "founders" };
        if !self.replicas.is_empty() || founders.is_empty() {
            return Err(bad);
        }
        for (at, founder) in founders.iter().enumerate() {
            let before = founders.get(..at).unwrap_or_default();
            let twice = before
                .iter()
                .any(|other| other.node == founder.node || other.replica == founder.replica);
            if twice || founder.replica == 0 || founder.replica >= FIRST_REPLICA {
                return Err(bad);
            }
        }
        self.first_voters = founders.iter().map(|founder| founder.replica).collect();
        self.replicas = founders
            .iter()
            .map(|at| QuorumReplica {
                at: *at,
                votes: true,
            })
            .collect();
        Ok(())
    }

    /// A node has registered with a data directory: whether it has a new replica.
    pub(super) fn register(&mut self, node: i32, directory: Uuid) -> Result<bool, Rejection> {
        if self.replicas.is_empty() {
            // A cluster of one node that was founded before its founders were written down.
            self.found(&[ReplicaImage {
                replica: FIRST_CONTROLLER,
                node,
                directory,
            }])?;
            return Ok(true);
        }
        let known = self.of_node(node);
        if known.is_some_and(|known| known.at.directory == directory) {
            return Ok(false);
        }
        let replica = self.next_replica();
        if replica >= FIRST_REPLICA {
            return Err(Rejection::Exhausted);
        }
        let at = ReplicaImage {
            replica,
            node,
            directory,
        };
        let votes = known.is_some_and(|known| known.votes);
        self.replicas.retain(|replica| replica.at.node != node);
        self.replicas.push(QuorumReplica { at, votes });
        self.replicas.sort_by_key(|replica| replica.at.node);
        self.grow();
        Ok(true)
    }

    /// The replica of a node that is lost in a data directory that is there still gets a successor there.
    pub(super) fn replace(&mut self, node: i32, old: u64) -> Result<u64, Rejection> {
        let new = self.next_replica();
        if new >= FIRST_REPLICA {
            return Err(Rejection::Exhausted);
        }
        let mut replicas = self.replicas.iter_mut();
        let known = replicas.find(|known| known.at.node == node && known.at.replica == old);
        known.ok_or(Rejection::UnknownReplica)?.at.replica = new;
        Ok(new)
    }

    fn grow(&mut self) {
        let voters = self.ids(true).count();
        if voters >= VOTERS || self.replicas.len() < VOTERS {
            return;
        }
        let learners = self.replicas.iter_mut().filter(|replica| !replica.votes);
        for replica in learners.take(VOTERS - voters) {
            replica.votes = true;
        }
    }
}
