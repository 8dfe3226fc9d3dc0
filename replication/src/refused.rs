//! Batches of idempotent producers that were refused and are to come again.
//!
//! A producer has several batches under way. What it is told of one that is to be sent again holds for all
//! that follow it, until that one is there: whoever judged the next ones by their sequence alone would call
//! a gap what is none of the producer's making. It would begin a new epoch then, and send again, under
//! numbers that nothing is recognised by, what may be in the log.
//!
//! Kept by leaders and followers, and over changes of leadership: the next batch may arrive when this
//! replica leads. Bounded in number, and in time: a producer that is gone is forgotten, and one that has
//! given its batch up is told of its gap in the end.

use std::collections::BTreeMap;

use riverrun_record::BatchSummary;
use riverrun_storage::planted::{self, Bug};

use crate::api::ProduceError;

/// Ticks for which a refused batch holds those behind it back. Those that were under way when it was refused
/// have arrived by then, and the producer has asked again.
const HOLD_TICKS: u32 = 600;
/// The same for a beginning of which nothing is known: a producer that goes on in a topic that was made anew
/// waits for no longer before it is told.
const BEGINNING_TICKS: u32 = 40;
/// Ticks after which nothing is remembered. In between, the producer is judged by its sequences alone.
const FORGET_TICKS: u32 = 2 * HOLD_TICKS;
/// Most producers that are remembered; the one that was refused first gives way.
const MOST: usize = 1024;

/// The numbers of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

impl Numbers {
    /// Those of a batch, where it has any.
    pub(crate) fn of(batch: &BatchSummary) -> Option<Self> {
        (batch.producer_id >= 0).then_some(Self {
            producer_id: batch.producer_id,
            epoch: batch.producer_epoch,
            sequence: batch.base_sequence,
        })
    }
}

/// The batches of a producer that were refused and did not come again.
#[derive(Debug, Clone, Copy)]
struct Missing {
    epoch: i16,
    /// The sequence of the first.
    first: i32,
    /// That of the last.
    last: i32,
    /// What the first was told.
    why: ProduceError,
    ticks: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    producers: BTreeMap<i64, Missing>,
}

/// Whether a sequence comes before another one; they wrap behind 2^31-1.
pub(crate) fn is_before(one: i32, other: i32) -> bool {
    let ahead = other.wrapping_sub(one) & i32::MAX;
    ahead != 0 && ahead < 1 << 30
}

impl Refused {
    /// A batch is refused, and is to come again.
    pub(crate) fn note(&mut self, batch: Numbers, why: ProduceError) {
        if planted::is(Bug::SequenceBeforeRefusal) {
            return;
        }
        let Numbers {
            producer_id,
            epoch,
            sequence,
        } = batch;
        let known = self.producers.get_mut(&producer_id);
        match known {
            Some(missing) if epoch < missing.epoch => return,
            Some(missing) if epoch == missing.epoch => {
                if is_before(missing.last, sequence) {
                    missing.last = sequence;
                }
                if !is_before(missing.first, sequence) {
                    missing.first = sequence;
                    missing.why = why;
                    missing.ticks = 0;
                }
                return;
            }
            Some(_) => {}
            None => self.make_room(),
        }
        let missing = Missing {
            epoch,
            first: sequence,
            last: sequence,
            why,
            ticks: 0,
        };
        self.producers.insert(producer_id, missing);
    }

    /// A producer's beginning may have been refused where nobody noted it, and is waited for a little while.
    pub(crate) fn note_beginning(&mut self, batch: Numbers, why: ProduceError) {
        self.note(
            Numbers {
                sequence: 0,
                ..batch
            },
            why,
        );
        if let Some(missing) = self.producers.get_mut(&batch.producer_id) {
            missing.ticks = HOLD_TICKS - BEGINNING_TICKS;
        }
    }

    fn make_room(&mut self) {
        if self.producers.len() < MOST {
            return;
        }
        let oldest = self.producers.iter().max_by_key(|(_, of)| of.ticks);
        if let Some(oldest) = oldest.map(|(producer_id, _)| *producer_id) {
            self.producers.remove(&oldest);
        }
    }

    /// What a batch is answered because of an earlier one that was refused and is not there yet. `next` is
    /// the sequence that follows what the log has of the producer in this epoch, if it has anything.
    pub(crate) fn holds(&mut self, batch: Numbers, next: Option<i32>) -> Option<ProduceError> {
        let missing = self.producers.get_mut(&batch.producer_id)?;
        if missing.epoch != batch.epoch {
            return None;
        }
        if let Some(next) = next.filter(|next| is_before(missing.first, *next)) {
            // Another leader took those before, or they were there already.
            if is_before(missing.last, next) {
                self.producers.remove(&batch.producer_id);
                return None;
            }
            missing.first = next;
        }
        let waits = is_before(missing.first, batch.sequence) && missing.ticks < HOLD_TICKS;
        waits.then_some(missing.why)
    }

    /// Whether something is known of a producer's epoch.
    pub(crate) fn knows(&self, batch: Numbers) -> bool {
        let missing = self.producers.get(&batch.producer_id);
        missing.is_some_and(|missing| missing.epoch == batch.epoch)
    }

    /// A batch was appended; `next` is the sequence behind it.
    pub(crate) fn appended(&mut self, batch: Numbers, next: i32) {
        let Some(missing) = self.producers.get_mut(&batch.producer_id) else {
            return;
        };
        if batch.epoch > missing.epoch
            || (batch.epoch == missing.epoch && is_before(missing.last, next))
        {
            self.producers.remove(&batch.producer_id);
        } else if batch.epoch == missing.epoch && is_before(missing.first, next) {
            missing.first = next;
            missing.ticks = 0;
        }
    }

    /// A batch is not the next one, and that is nobody's fault but its producer's.
    pub(crate) fn has_a_gap(&mut self, batch: Numbers) {
        let missing = self.producers.get(&batch.producer_id);
        if missing.is_some_and(|missing| batch.epoch == missing.epoch) {
            self.producers.remove(&batch.producer_id);
        }
    }

    /// One tick of time.
    pub(crate) fn tick(&mut self) {
        self.producers.retain(|_, missing| {
            missing.ticks += 1;
            missing.ticks < FORGET_TICKS
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: ProduceError = ProduceError::Busy;

    fn batch(producer_id: i64, epoch: i16, sequence: i32) -> Numbers {
        Numbers {
            producer_id,
            epoch,
            sequence,
        }
    }

    #[test]
    fn what_follows_a_refused_batch_is_held_until_it_is_there() {
        let mut refused = Refused::default();
        refused.note(batch(7, 0, 5), BUSY);
        refused.note(batch(7, 0, 8), ProduceError::NotLeader);
        assert_eq!(refused.holds(batch(7, 0, 5), Some(5)), None);
        assert_eq!(refused.holds(batch(7, 0, 6), Some(5)), Some(BUSY));
        assert_eq!(refused.holds(batch(7, 0, 8), Some(5)), Some(BUSY));
        assert_eq!(refused.holds(batch(7, 1, 8), Some(5)), None);
        assert_eq!(refused.holds(batch(8, 0, 8), Some(5)), None);
        refused.appended(batch(7, 0, 5), 6);
        assert_eq!(refused.holds(batch(7, 0, 6), Some(6)), None);
        assert_eq!(refused.holds(batch(7, 0, 7), Some(6)), Some(BUSY));
        refused.appended(batch(7, 0, 6), 9);
        assert!(refused.producers.is_empty());
    }

    #[test]
    fn those_behind_one_that_was_there_already_are_waited_for() {
        // 5 was in the log when it was sent again and refused, with 6 and 7 behind it.
        let mut refused = Refused::default();
        for sequence in 5..8 {
            refused.note(batch(7, 0, sequence), BUSY);
        }
        assert_eq!(refused.holds(batch(7, 0, 8), Some(6)), Some(BUSY));
        assert_eq!(refused.holds(batch(7, 0, 6), Some(6)), None);
    }

    #[test]
    fn a_gap_of_the_producers_own_is_waited_for_no_longer() {
        let mut refused = Refused::default();
        refused.note(batch(7, 0, 5), BUSY);
        refused.has_a_gap(batch(7, 0, 5));
        assert_eq!(refused.holds(batch(7, 0, 6), Some(4)), None);
    }

    #[test]
    fn one_that_another_leader_took_holds_nobody_back() {
        let mut refused = Refused::default();
        refused.note(batch(7, 0, 5), BUSY);
        // This replica has followed, and has 5 and 6 from that leader.
        assert_eq!(refused.holds(batch(7, 0, 9), Some(7)), None);
        assert!(refused.producers.is_empty());
    }

    #[test]
    fn an_earlier_batch_and_a_newer_epoch_take_the_place() {
        let mut refused = Refused::default();
        refused.note(batch(7, 0, 5), BUSY);
        refused.note(batch(7, 0, 3), ProduceError::Storage);
        assert_eq!(
            refused.holds(batch(7, 0, 4), Some(3)),
            Some(ProduceError::Storage)
        );
        refused.note(batch(7, 1, 0), BUSY);
        refused.note(batch(7, 0, 3), ProduceError::Storage);
        assert_eq!(refused.holds(batch(7, 1, 2), None), Some(BUSY));
        refused.appended(batch(7, 2, 0), 1);
        assert!(refused.producers.is_empty());
    }

    #[test]
    fn sequences_wrap() {
        let mut refused = Refused::default();
        refused.note(batch(7, 0, i32::MAX), BUSY);
        assert_eq!(refused.holds(batch(7, 0, 0), Some(i32::MAX)), Some(BUSY));
        assert_eq!(refused.holds(batch(7, 0, 1), Some(0)), None);
    }

    #[test]
    fn who_never_comes_again_is_judged_by_sequence_and_then_forgotten() {
        let mut refused = Refused::default();
        refused.note(batch(7, 0, 5), BUSY);
        let pass = |refused: &mut Refused, ticks| (0..ticks).for_each(|_| refused.tick());
        pass(&mut refused, HOLD_TICKS - 1);
        // One behind it that is refused does not prolong it.
        refused.note(batch(7, 0, 6), BUSY);
        assert_eq!(refused.holds(batch(7, 0, 6), Some(5)), Some(BUSY));
        refused.tick();
        assert_eq!(refused.holds(batch(7, 0, 6), Some(5)), None);
        assert!(refused.knows(batch(7, 0, 6)));
        pass(&mut refused, HOLD_TICKS);
        assert!(refused.producers.is_empty());
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_gives_way() {
        let mut refused = Refused::default();
        refused.note(batch(0, 0, 0), BUSY);
        refused.tick();
        for producer in 1..=i64::try_from(MOST).unwrap_or(0) {
            refused.note(batch(producer, 0, 0), BUSY);
        }
        assert_eq!(refused.producers.len(), MOST);
        assert!(!refused.knows(batch(0, 0, 1)));
    }
}
