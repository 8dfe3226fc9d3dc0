//! A replica votes once in a term, whatever crashes lie between.

use std::collections::BTreeMap;

use super::{Checked, Violation};

/// Every vote that left a node, by group, voter and term.
#[derive(Debug, Default)]
pub struct Votes {
    votes: BTreeMap<(u64, u64, u64), u64>,
}

impl Votes {
    /// A group is founded anew: its replicas are others.
    pub fn begin_again(&mut self, group: u64) {
        self.votes.retain(|(of, _, _), _| *of != group);
    }

    /// A vote left a node: an answer, or the candidate's own, which its request implies.
    ///
    /// # Errors
    /// Where the voter had voted for somebody else in that term.
    pub fn cast(&mut self, group: u64, voter: u64, term: u64, candidate: u64) -> Checked {
        let first = *self.votes.entry((group, voter, term)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        Err(Violation::new(
            "one_vote_per_replica_and_term",
            format!(
                "group {group}: replica {voter} voted for {first} and for {candidate} in term {term}"
            ),
        ))
    }
}
