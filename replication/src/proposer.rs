//! How a node proposes changes of the cluster's state: the numbers that each is written with, and which
//! outcome is whose.
//!
//! A change is written to group 0 by whoever leads it, and written again where nobody knows what became of
//! it; the log knows it by its numbers (KIP-98). Whoever waits for a change may go away at any moment: its
//! connection breaks, its time is over. So nothing here waits. The numbers of a change are taken before it
//! is sent, once and for good, and a change of which nothing more is heard raises the epoch of the next one,
//! after which it cannot be written any more.

use std::collections::BTreeMap;

use riverrun_record::BatchView;
use riverrun_storage::planted::{self, Bug};

use crate::controller::{Numbers, Outcome};

/// Batches whose outcomes are kept for whoever proposed them.
const OUTCOMES_KEPT: usize = 1024;

/// A change that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    numbers: Numbers,
    commands: usize,
}

impl Proposal {
    /// The numbers that its batch carries.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }
}

/// The numbers of a node's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposer {
    /// INVARIANT: behind all that were given out.
    next: Numbers,
    /// The last change, until it is known to have been written.
    in_doubt: Option<Numbers>,
}

impl Proposer {
    /// That of a start of a node, which drew this number.
    #[must_use]
    pub fn new(start_token: u64) -> Self {
        Self {
            next: Numbers {
                producer_id: (start_token >> 1).cast_signed(),
                epoch: 0,
                base_sequence: 0,
            },
            in_doubt: None,
        }
    }

    /// Takes the numbers of a change of so many commands, which no other change is given. The change before
    /// it has ended, or nobody waits for it any more.
    pub fn propose(&mut self, commands: usize) -> Proposal {
        if planted::is(Bug::NumbersAfterAwait) {
            let numbers = self.next;
            return Proposal { numbers, commands };
        }
        if self.in_doubt.is_some() {
            self.next = self.next.next_epoch();
        }
        let numbers = self.next;
        self.next = numbers.after(commands);
        self.in_doubt = Some(numbers);
        Proposal { numbers, commands }
    }

    /// A change was written, or was given up. That nobody says so of one costs an epoch and nothing else.
    pub fn ended(&mut self, proposal: &Proposal, written: bool) {
        let Proposal { numbers, commands } = *proposal;
        if planted::is(Bug::NumbersAfterAwait) {
            self.next = if written {
                numbers.after(commands)
            } else {
                numbers.next_epoch()
            };
        } else if written && self.in_doubt == Some(numbers) {
            self.in_doubt = None;
        }
    }
}

/// What came of a batch of group 0.
#[derive(Debug)]
struct Applied {
    numbers: Option<Numbers>,
    outcomes: Vec<Outcome>,
}

/// What came of the batches that a node applied last, for whoever proposed them.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// By the offset of the batch.
    by_offset: BTreeMap<i64, Applied>,
}

impl Outcomes {
    /// A batch was applied. One that a restored image holds already has no outcomes and is not noted.
    pub fn applied(&mut self, batch: &[u8], outcomes: Vec<Outcome>) {
        let Ok(view) = BatchView::parse(batch) else {
            return;
        };
        if outcomes.is_empty() {
            return;
        }
        let applied = Applied {
            numbers: Numbers::of_batch(batch),
            outcomes,
        };
        self.by_offset.insert(view.base_offset(), applied);
        while self.by_offset.len() > OUTCOMES_KEPT {
            self.by_offset.pop_first();
        }
    }

    /// What came of a change that is said to lie at an offset, one outcome for each command; nothing where
    /// that is not known: the batch there is another one, or was not applied by this node but restored.
    pub fn take(&mut self, proposal: &Proposal, base_offset: i64) -> Option<Vec<Outcome>> {
        let applied = self.by_offset.get(&base_offset)?;
        let is_it = applied.numbers == Some(proposal.numbers)
            && applied.outcomes.len() == proposal.commands;
        if !is_it {
            return None;
        }
        self.by_offset.remove(&base_offset).map(|of| of.outcomes)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::controller::{AllocateProducerIds, Command, encode_numbered_batch};

    /// A batch of one command at an offset.
    fn batch_at(offset: i64, proposal: &Proposal) -> Vec<u8> {
        let command = Command::AllocateProducerIds(AllocateProducerIds { count: 1 });
        let mut batch = encode_numbered_batch(&[command], Some(proposal.numbers())).unwrap();
        batch
            .get_mut(..8)
            .unwrap()
            .copy_from_slice(&offset.to_be_bytes());
        batch.to_vec()
    }

    #[test]
    fn changes_that_are_written_follow_each_other_in_one_epoch() {
        let mut proposer = Proposer::new(9);
        let first = proposer.propose(3);
        proposer.ended(&first, true);
        let second = proposer.propose(1);
        assert_eq!(second.numbers(), first.numbers().after(3));
    }

    #[test]
    fn the_numbers_of_a_change_that_nobody_waits_for_are_never_given_again() {
        let mut proposer = Proposer::new(9);
        let dropped = proposer.propose(1);
        let next = proposer.propose(1);
        assert_eq!(next.numbers(), dropped.numbers().after(1).next_epoch());
        // The one before it is done with, whatever is said of it now.
        proposer.ended(&dropped, true);
        let after = proposer.propose(1);
        assert_eq!(after.numbers().epoch, next.numbers().epoch + 1);
    }

    #[test]
    fn a_change_that_was_given_up_raises_the_epoch() {
        let mut proposer = Proposer::new(9);
        let first = proposer.propose(2);
        proposer.ended(&first, false);
        let second = proposer.propose(2).numbers();
        assert_eq!((second.epoch, second.base_sequence), (1, 0));
    }

    #[test]
    fn the_outcome_of_another_change_is_nobodys() {
        let mut proposer = Proposer::new(9);
        let dropped = proposer.propose(1);
        let mine = proposer.propose(1);
        let mut outcomes = Outcomes::default();
        outcomes.applied(&batch_at(7, &dropped), vec![Outcome::Done]);
        outcomes.applied(&batch_at(8, &mine), vec![Outcome::Done]);
        assert_eq!(outcomes.take(&mine, 7), None);
        assert_eq!(outcomes.take(&mine, 9), None);
        assert_eq!(outcomes.take(&mine, 8), Some(vec![Outcome::Done]));
        assert_eq!(outcomes.take(&mine, 8), None);
    }

    #[test]
    fn what_an_image_held_already_has_no_outcome() {
        let mut proposer = Proposer::new(9);
        let mine = proposer.propose(1);
        let mut outcomes = Outcomes::default();
        outcomes.applied(&batch_at(7, &mine), Vec::new());
        assert_eq!(outcomes.take(&mine, 7), None);
    }
}
