//! From the members that the controller wants to the next change of a group's configuration.
//!
//! Whoever leads takes one step at a time, looks again when it is applied, and needs no memory of
//! what it has done: new members join as learners, are filled, and then become voters in the same
//! joint change that removes those whose place they take.

use raft::eraftpb::ConfState;

use crate::conf::{self, Change};
use crate::partition::Partition;

/// Entries that a learner may lack when it is made a voter: what is proposed meanwhile.
const CAUGHT_UP_ENTRIES: u64 = 8;

/// The members that a group is to have, by an image of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The voters, by replica id.
    pub voters: Vec<u64>,
    /// The learners.
    pub learners: Vec<u64>,
    /// Greater than every replica id that the image knows.
    pub next_replica: u64,
}

impl Members {
    fn has(&self, id: &u64) -> bool {
        self.voters.contains(id) || self.learners.contains(id)
    }

    /// The next step from a configuration, if there is one to take now.
    ///
    /// A configuration with a member that the image does not know is newer than the image, and left
    /// alone: to act on an older image would bring a replica back that was removed (I7).
    #[must_use]
    pub fn next_change(
        &self,
        conf: &ConfState,
        is_caught_up: impl Fn(u64) -> bool,
    ) -> Option<Vec<Change>> {
        let members = conf::members(conf);
        let joint = !conf.get_voters_outgoing().is_empty();
        if joint || members.iter().any(|id| *id >= self.next_replica) {
            return None;
        }
        let wanted = self.voters.iter().chain(&self.learners);
        let joins: Vec<Change> = wanted
            .filter(|id| !members.contains(id))
            .map(|id| Change::AddLearner(*id))
            .collect();
        if !joins.is_empty() {
            return Some(joins);
        }
        let learners = conf.get_learners();
        let called: Vec<u64> = self
            .voters
            .iter()
            .copied()
            .filter(|id| learners.contains(id))
            .collect();
        if !called.iter().all(|id| is_caught_up(*id)) {
            return None;
        }
        if !self.voters.iter().any(|id| conf.get_voters().contains(id)) {
            // None that votes now stays: one of those who come has to lead before the leader can go.
            let comes: Vec<Change> = called.iter().map(|id| Change::AddVoter(*id)).collect();
            return (!comes.is_empty()).then_some(comes);
        }
        let steps_down = self
            .learners
            .iter()
            .filter(|id| conf.get_voters().contains(id));
        let gone = members.iter().filter(|id| !self.has(id));
        let changes: Vec<Change> = called
            .iter()
            .map(|id| Change::AddVoter(*id))
            .chain(steps_down.map(|id| Change::AddLearner(*id)))
            .chain(gone.map(|id| Change::Remove(*id)))
            .collect();
        (!changes.is_empty()).then_some(changes)
    }
}

impl Partition {
    /// The members that the group is to have.
    pub fn set_members(&mut self, members: Members) {
        // Images come in order, but for a task that was overtaken.
        let is_older = |known: &Members| members.next_replica < known.next_replica;
        if !self.wanted.as_ref().is_some_and(is_older) {
            self.wanted = Some(members);
        }
    }

    /// A leader takes the next step towards the members that are wanted.
    pub(crate) fn tick_members(&mut self) {
        let Some(wanted) = &self.wanted else { return };
        if !self.group.is_leader() || !self.is_ready() || self.group.has_pending_change() {
            return;
        }
        let last = self.group.log().last();
        let term = self.group.term();
        let is_caught_up = |id| {
            self.peers.get(id).greeted_term == term
                && self.group.matched(id) + CAUGHT_UP_ENTRIES >= last
        };
        let Some(changes) = wanted.next_change(self.group.conf().1, is_caught_up) else {
            return;
        };
        let own = self.group.replica();
        if changes.contains(&Change::Remove(own)) || changes.contains(&Change::AddLearner(own)) {
            // Another voter that stays leads first: it knows of the change when this one is gone.
            let stays: Vec<u64> = wanted.voters.clone();
            self.group.hand_over_to(&stays);
            return;
        }
        if let Err(error) = self.group.propose_change(&changes) {
            tracing::debug!(group = self.id(), ?error, "a change of members waits");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf_of(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..ConfState::default()
        }
    }

    fn wanted(voters: &[u64], learners: &[u64]) -> Members {
        Members {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            next_replica: 100,
        }
    }

    #[test]
    fn a_lost_voter_is_replaced_when_the_new_one_is_filled() {
        let wanted = wanted(&[1, 2, 4], &[]);
        let lost = conf_of(&[1, 2, 3], &[]);
        let joins = Some(vec![Change::AddLearner(4)]);
        assert_eq!(wanted.next_change(&lost, |_| true), joins);
        let filling = conf_of(&[1, 2, 3], &[4]);
        assert_eq!(wanted.next_change(&filling, |_| false), None);
        let replaced = Some(vec![Change::AddVoter(4), Change::Remove(3)]);
        assert_eq!(wanted.next_change(&filling, |_| true), replaced);
        let there = conf_of(&[4, 1, 2], &[]);
        assert_eq!(wanted.next_change(&there, |_| true), None);
    }

    #[test]
    fn where_no_voter_stays_those_who_come_vote_before_the_others_go() {
        let wanted = wanted(&[4], &[]);
        let filled = conf_of(&[1], &[4]);
        assert_eq!(wanted.next_change(&filled, |_| false), None);
        let comes = Some(vec![Change::AddVoter(4)]);
        assert_eq!(wanted.next_change(&filled, |_| true), comes);
        let both = conf_of(&[1, 4], &[]);
        let gone = Some(vec![Change::Remove(1)]);
        assert_eq!(wanted.next_change(&both, |_| true), gone);
    }

    #[test]
    fn two_learners_become_voters_in_one_change() {
        let wanted = wanted(&[1, 2, 3], &[4]);
        let one = conf_of(&[1], &[2, 3, 4]);
        assert_eq!(wanted.next_change(&one, |id| id == 2), None);
        let both = Some(vec![Change::AddVoter(2), Change::AddVoter(3)]);
        assert_eq!(wanted.next_change(&one, |_| true), both);
    }

    #[test]
    fn a_joint_configuration_and_one_that_is_newer_than_the_image_are_left_alone() {
        let mut joint = conf_of(&[1, 2], &[]);
        joint.set_voters_outgoing(vec![1, 3]);
        assert_eq!(wanted(&[1, 3], &[]).next_change(&joint, |_| true), None);
        // The image is from before 3 was replaced by 100.
        let newer = conf_of(&[1, 2, 100], &[]);
        assert_eq!(wanted(&[1, 2, 3], &[]).next_change(&newer, |_| true), None);
    }

    #[test]
    fn whoever_is_not_wanted_goes() {
        let gone = Some(vec![Change::Remove(3), Change::Remove(9)]);
        let conf = conf_of(&[1, 2, 3], &[9]);
        assert_eq!(wanted(&[1, 2], &[]).next_change(&conf, |_| true), gone);
    }
}
