//! What a batch is answered: taken, known, refused for now, or for good.
//!
//! INVARIANT: whatever can refuse a batch for now is asked before its sequence is judged, and such a refusal
//! holds for what follows of the same producer until the refused batch is there. That a sequence is not the
//! next one is said only of a gap that the producer made itself.

use riverrun_record::{BatchSummary, increment_sequence};
use riverrun_storage::SequenceVerdict;
use riverrun_storage::planted::{self, Bug};

use super::{Partition, Waiter, answer};
use crate::api::{Acks, Produce, ProduceError, Ticket};
use crate::group::ProposeError;
use crate::refused::{Numbers, is_before};
use crate::shard::Effect;

impl Partition {
    /// Takes a batch to append, or answers why not.
    pub fn produce(&mut self, produce: Produce, out: &mut Vec<Effect>) {
        if let Some(why) = self.cannot_take(&produce) {
            return self.refuse(&produce, why, out);
        }
        if !self.ready && !planted::is(Bug::L1) {
            self.parked.push(produce);
            return;
        }
        let summary = produce.summary;
        let verdict = self.judge(&summary);
        if let SequenceVerdict::Fenced { .. } = verdict {
            return answer(out, produce.ticket, Err(ProduceError::InvalidProducerEpoch));
        }
        let too_few = produce.acks == Acks::All
            && self.in_sync().count() < self.settings.min_insync_replicas as usize;
        let is_there = match verdict {
            SequenceVerdict::Duplicate { base_offset, .. } => Some(Some(base_offset)),
            SequenceVerdict::OutOfOrder { .. } if self.is_behind(&summary) => Some(None),
            _ => None,
        };
        if let Some(base_offset) = is_there {
            if too_few {
                // It is there, so that it holds nobody back.
                return answer(out, produce.ticket, Err(ProduceError::NotEnoughReplicas));
            }
            return self.answer_duplicate(&produce, base_offset, out);
        }
        if too_few {
            return self.refuse(&produce, ProduceError::NotEnoughReplicas, out);
        }
        if self.group.is_handing_over() && !planted::is(Bug::SequenceBeforeRefusal) {
            return self.refuse(&produce, ProduceError::NotLeader, out);
        }
        if let Some(numbers) = Numbers::of(&summary) {
            if let Some(why) = self.is_held(numbers) {
                return self.refuse(&produce, why, out);
            }
            if self.begins_in_the_middle(numbers)
                || matches!(verdict, SequenceVerdict::OutOfOrder { .. })
            {
                self.refused.has_a_gap(numbers);
                return answer(out, produce.ticket, Err(ProduceError::OutOfOrderSequence));
            }
        }
        self.append(produce, out);
    }

    /// Why nobody's batches are taken now, whatever their numbers are.
    fn cannot_take(&self, produce: &Produce) -> Option<ProduceError> {
        if let Some(expected) = produce.expected_epoch {
            let epoch = i32::try_from(self.group.term()).unwrap_or(i32::MAX);
            if expected < epoch {
                return Some(ProduceError::FencedEpoch);
            }
            if expected > epoch {
                return Some(ProduceError::UnknownEpoch);
            }
        }
        if !self.group.is_leader() {
            return Some(ProduceError::NotLeader);
        }
        self.full.then_some(ProduceError::Storage)
    }

    /// A batch is refused for now, and with it all that follow it of its producer.
    pub(super) fn refuse(&mut self, produce: &Produce, why: ProduceError, out: &mut Vec<Effect>) {
        if let Some(numbers) = Numbers::of(&produce.summary) {
            self.refused.note(numbers, why);
        }
        answer(out, produce.ticket, Err(why));
    }

    /// What a batch is by its numbers.
    fn judge(&self, summary: &BatchSummary) -> SequenceVerdict {
        if summary.producer_id < 0 {
            return SequenceVerdict::Next;
        }
        self.overlay.check(&self.producers, summary)
    }

    /// Whether a batch lies wholly behind what the log has of its producer. Where nothing was dropped each
    /// producer begins at 0, and its sequences are appended without a gap, so that it is there: a client that has found the next leader sends on while the one before owes
    /// it an answer, and comes again with more batches behind it than are remembered.
    fn is_behind(&self, summary: &BatchSummary) -> bool {
        let Some(numbers) = Numbers::of(summary) else {
            return false;
        };
        let next = self
            .overlay
            .next(&self.producers, numbers.producer_id, numbers.epoch);
        let is_before_it = next.is_some_and(|next| {
            let behind = increment_sequence(summary.last_sequence(), 1);
            is_before(numbers.sequence, next) && (behind == next || is_before(behind, next))
        });
        is_before_it && self.has_its_beginning() && !planted::is(Bug::SequenceBeforeRefusal)
    }

    /// Whether a batch waits for one before it.
    fn is_held(&mut self, numbers: Numbers) -> Option<ProduceError> {
        let Numbers {
            producer_id, epoch, ..
        } = numbers;
        let next = self.overlay.next(&self.producers, producer_id, epoch);
        if self.begins_in_the_middle(numbers) && !self.refused.knows(numbers) {
            // What comes before may have been refused where this replica was not asked.
            self.refused
                .note_beginning(numbers, ProduceError::NotLeader);
        }
        self.refused.holds(numbers, next)
    }

    /// Whether a producer is new to a log of which nothing was ever dropped, and leaves its beginning out. Where
    /// something was, its beginning may be what was dropped.
    fn begins_in_the_middle(&self, numbers: Numbers) -> bool {
        numbers.sequence != 0
            && self.has_its_beginning()
            && self.overlay.is_new(&self.producers, numbers.producer_id)
            && !planted::is(Bug::SequenceBeforeRefusal)
    }

    fn has_its_beginning(&self) -> bool {
        self.group.log().start().offset == 0
    }

    fn append(&mut self, mut produce: Produce, out: &mut Vec<Effect>) {
        let summary = produce.summary;
        let epoch = i32::try_from(self.group.term()).unwrap_or(i32::MAX);
        let base_offset = if planted::is(Bug::StaleBaseOffset) {
            self.high_watermark
        } else {
            self.next_offset
        };
        riverrun_record::stamp(&mut produce.batch, base_offset, epoch);
        let batch = std::mem::take(&mut produce.batch).freeze();
        let index = match self.group.propose_batch(batch) {
            Ok(index) => index,
            Err(ProposeError::NotLeader) => {
                return self.refuse(&produce, ProduceError::NotLeader, out);
            }
            Err(ProposeError::Busy) => return self.refuse(&produce, ProduceError::Busy, out),
        };
        self.next_offset = base_offset + i64::from(summary.last_offset_delta) + 1;
        self.unflushed_records += u64::from(summary.record_count.unsigned_abs());
        let numbers = Numbers::of(&summary);
        if let Some(numbers) = numbers {
            self.overlay
                .append(&self.producers, &summary, base_offset, index);
            let next = increment_sequence(summary.last_sequence(), 1);
            self.refused.appended(numbers, next);
        }
        if produce.ticket == Ticket::NONE {
            return;
        }
        let waiter = Waiter {
            ticket: produce.ticket,
            index,
            base_offset: Some(base_offset),
            numbers,
        };
        match produce.acks {
            Acks::Leader => self.written_waiters.push_back(waiter),
            Acks::All => self.commit_waiters.push_back(waiter),
        }
    }

    /// A duplicate is answered under the condition of its first copy (L2): that it is committed, and
    /// held by as many replicas as `min.insync.replicas` asks for. One that lies behind those that are
    /// remembered is as safe as the newest of its producer.
    fn answer_duplicate(&mut self, produce: &Produce, at: Option<i64>, out: &mut Vec<Effect>) {
        if produce.ticket == Ticket::NONE {
            return;
        }
        let known = match at {
            Some(base_offset) => self.overlay.index_of(base_offset),
            None => self.overlay.last_index_of(produce.summary.producer_id),
        };
        let waits_for = match produce.acks {
            Acks::All => known
                .or_else(|| match at {
                    Some(base_offset) => self.applied_and_perhaps_not_held(base_offset),
                    None => (!self.majority_is_enough()).then_some(self.applied),
                })
                .filter(|index| *index > self.applied || !self.holders(*index)),
            Acks::Leader => known.filter(|index| *index > self.group.written()),
        };
        let Some(index) = waits_for else {
            return answer(out, produce.ticket, self.outcome(at));
        };
        let waiters = match produce.acks {
            Acks::All => &mut self.commit_waiters,
            Acks::Leader => &mut self.written_waiters,
        };
        let place = waiters.partition_point(|w| w.index <= index);
        waiters.insert(
            place,
            Waiter {
                ticket: produce.ticket,
                index,
                base_offset: at,
                numbers: Numbers::of(&produce.summary),
            },
        );
    }
}
