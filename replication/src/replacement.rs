//! Whether a lost replica may be replaced: pure, by the word of its group's leader (R9).
//!
//! INVARIANT: when an order to replace a replica is applied, every committed entry is readable on a majority
//! of all voters without the one that goes. What lies in directories that were set aside is not counted.

use riverrun_storage::planted::{self, Bug};

use crate::api::Word;
use crate::controller::{PartitionImage, QuorumImage};

/// The members that a group is to have, by the controller's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The voters.
    pub voters: Vec<u64>,
    /// The learners; only group 0 has any that stay.
    pub learners: Vec<u64>,
}

impl Wanted {
    /// Those of a partition.
    #[must_use]
    pub fn of_partition(partition: &PartitionImage) -> Self {
        Self {
            voters: partition.replicas.iter().map(|at| at.replica).collect(),
            learners: Vec::new(),
        }
    }

    /// Those of group 0.
    #[must_use]
    pub fn of_quorum(quorum: &QuorumImage) -> Self {
        Self {
            voters: quorum.ids(true).collect(),
            learners: quorum.ids(false).collect(),
        }
    }

    /// Whether the group has exactly these, and nothing is being changed.
    #[must_use]
    pub fn is_of(&self, word: &Word) -> bool {
        let is_voter = |replica: &u64| word.voters.iter().any(|voter| voter.replica == *replica);
        !word.changing
            && word.voters.len() == self.voters.len()
            && self.voters.iter().all(is_voter)
            && word.learners.len() == self.learners.len()
            && self.learners.iter().all(|id| word.learners.contains(id))
    }
}

/// Why a replica is not replaced yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// Nobody else has a copy.
    #[error("it is the only replica")]
    Alone,
    /// The members of the group are being changed, or are not those of the controller's image.
    #[error("the members of the group are changing")]
    Changing,
    /// Whoever goes may be needed for a majority.
    #[error("{whole} of {voters} voters are whole without it, and a majority has to be")]
    TooFewWhole {
        /// Voters that are whole, without the replica.
        whole: usize,
        /// All voters.
        voters: usize,
    },
}

/// The replicas on whose word a lost one may be replaced: all the others of the partition. The order names
/// them, and does nothing where they have changed until it is applied.
///
/// # Errors
/// Why it may not be replaced now.
pub fn others_whole(word: &Word, wanted: &Wanted, lost: u64) -> Result<Vec<u64>, NotYet> {
    let all = wanted.voters.iter().chain(&wanted.learners).copied();
    let others: Vec<u64> = all.filter(|replica| *replica != lost).collect();
    if others.is_empty() {
        return Err(NotYet::Alone);
    }
    // A successor that is lost before it votes takes nothing along; those who stay vote all the same.
    let never_voted = !word.changing
        && !word.voters.iter().any(|voter| voter.replica == lost)
        && wanted.voters.contains(&lost)
        && wanted
            .voters
            .iter()
            .all(|id| *id == lost || word.voters.iter().any(|voter| voter.replica == *id));
    let settled = wanted.is_of(word) || never_voted;
    if !settled && !planted::is(Bug::LearnerCountsAsWhole) {
        return Err(NotYet::Changing);
    }
    let mut whole = word
        .voters
        .iter()
        .filter(|voter| voter.replica != lost && voter.whole)
        .count();
    if planted::is(Bug::LearnerCountsAsWhole) {
        whole += word.learners.len();
    }
    let voters = word.voters.len();
    let enough = whole * 2 > voters || (planted::is(Bug::ReplaceWithoutMajority) && whole > 0);
    if enough {
        Ok(others)
    } else {
        Err(NotYet::TooFewWhole { whole, voters })
    }
}

/// Whether what was set aside of a replica that was replaced may be deleted (R10): its group is settled with
/// the members of the image, it is none of them, and each of them holds all that the leader had.
#[must_use]
pub fn is_filled(word: &Word, wanted: &Wanted, old: u64) -> bool {
    wanted.is_of(word)
        && !wanted.learners.contains(&old)
        && word
            .voters
            .iter()
            .all(|voter| voter.replica != old && voter.has_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::VoterWord;

    fn wanted(voters: &[u64]) -> Wanted {
        Wanted {
            voters: voters.to_vec(),
            learners: Vec::new(),
        }
    }

    fn word(voters: &[(u64, bool)]) -> Word {
        let voter = |(replica, whole): &(u64, bool)| VoterWord {
            replica: *replica,
            whole: *whole,
            has_all: *whole,
        };
        Word {
            group: 7,
            term: 5,
            changing: false,
            voters: voters.iter().map(voter).collect(),
            learners: Vec::new(),
            high_watermark: 100,
        }
    }

    #[test]
    fn one_of_three_goes_where_both_others_are_whole() {
        let of = wanted(&[1, 2, 3]);
        let both = word(&[(1, true), (2, true), (3, false)]);
        assert_eq!(others_whole(&both, &of, 3), Ok(vec![1, 2]));
        let one = word(&[(1, true), (2, false), (3, false)]);
        let too_few = Err(NotYet::TooFewWhole {
            whole: 1,
            voters: 3,
        });
        assert_eq!(others_whole(&one, &of, 3), too_few);
    }

    #[test]
    fn a_majority_is_of_all_voters_and_not_of_the_others() {
        // Two of the three others are whole, and two of four elect nobody.
        let of = wanted(&[1, 2, 3, 4]);
        let two = word(&[(1, true), (2, true), (3, false), (4, false)]);
        let too_few = Err(NotYet::TooFewWhole {
            whole: 2,
            voters: 4,
        });
        assert_eq!(others_whole(&two, &of, 4), too_few);
        let pair = word(&[(1, true), (2, false)]);
        let of = wanted(&[1, 2]);
        let too_few = Err(NotYet::TooFewWhole {
            whole: 1,
            voters: 2,
        });
        assert_eq!(others_whole(&pair, &of, 2), too_few);
        assert_eq!(
            others_whole(&word(&[(1, false)]), &wanted(&[1]), 1),
            Err(NotYet::Alone)
        );
    }

    #[test]
    fn while_members_change_nobody_is_replaced() {
        let of = wanted(&[1, 2, 9]);
        let mut filling = word(&[(1, true), (2, true), (3, true)]);
        filling.learners = vec![9];
        assert_eq!(others_whole(&filling, &of, 2), Err(NotYet::Changing));
        let mut joint = word(&[(1, true), (2, true), (9, true)]);
        joint.changing = true;
        assert_eq!(others_whole(&joint, &of, 2), Err(NotYet::Changing));
        assert!(!is_filled(&joint, &of, 3));
    }

    #[test]
    fn a_successor_that_is_lost_before_it_votes_is_replaced() {
        // 3 was lost, and 9 is in its place, and lost while it was filled.
        let of = wanted(&[1, 2, 9]);
        let mut filling = word(&[(1, true), (2, true), (3, false)]);
        filling.learners = vec![9];
        assert_eq!(others_whole(&filling, &of, 9), Ok(vec![1, 2]));
        let mut one = word(&[(1, true), (2, false), (3, false)]);
        one.learners = vec![9];
        let too_few = Err(NotYet::TooFewWhole {
            whole: 1,
            voters: 3,
        });
        assert_eq!(others_whole(&one, &of, 9), too_few);
        filling.changing = true;
        assert_eq!(others_whole(&filling, &of, 9), Err(NotYet::Changing));
    }

    #[test]
    fn what_was_set_aside_goes_when_every_member_has_all() {
        let of = wanted(&[1, 2, 9]);
        assert!(is_filled(&word(&[(1, true), (2, true), (9, true)]), &of, 3));
        assert!(!is_filled(
            &word(&[(1, true), (2, true), (9, false)]),
            &of,
            3
        ));
        assert!(!is_filled(
            &word(&[(1, true), (2, true), (3, true)]),
            &of,
            3
        ));
    }
}
