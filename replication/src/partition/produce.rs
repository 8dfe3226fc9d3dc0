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
use crate::refused::Numbers;
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
        if let SequenceVerdict::Duplicate { base_offset, .. } = verdict {
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
            if let SequenceVerdict::OutOfOrder { .. } = verdict {
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

    /// Whether a batch waits for one before it.
    fn is_held(&mut self, numbers: Numbers) -> Option<ProduceError> {
        let Numbers {
            producer_id, epoch, ..
        } = numbers;
        let next = self.overlay.next(&self.producers, producer_id, epoch);
        let knows_all = self.group.log().start().offset == 0;
        let is_new = self.overlay.is_new(&self.producers, producer_id);
        if is_new && numbers.sequence != 0 && knows_all && !self.refused.knows(numbers) {
            // Nothing was ever forgotten here, and it begins in the middle: what comes before was refused
            // where this replica was not asked.
            let sequence = 0;
            self.refused.note(
                Numbers {
                    sequence,
                    ..numbers
                },
                ProduceError::NotLeader,
            );
        }
        self.refused.holds(numbers, next)
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
            base_offset,
            numbers,
        };
        match produce.acks {
            Acks::Leader => self.written_waiters.push_back(waiter),
            Acks::All => self.commit_waiters.push_back(waiter),
        }
    }

    /// A duplicate is answered under the condition of its first copy (L2): that it is committed, and
    /// held by as many replicas as `min.insync.replicas` asks for.
    fn answer_duplicate(&mut self, produce: &Produce, base_offset: i64, out: &mut Vec<Effect>) {
        if produce.ticket == Ticket::NONE {
            return;
        }
        let known = self.overlay.index_of(base_offset);
        let waits_for = match produce.acks {
            Acks::All => known
                .or_else(|| self.applied_and_perhaps_not_held(base_offset))
                .filter(|index| *index > self.applied || !self.holders(*index)),
            Acks::Leader => known.filter(|index| *index > self.group.written()),
        };
        let Some(index) = waits_for else {
            return answer(out, produce.ticket, Ok(self.produced(base_offset)));
        };
        let waiters = match produce.acks {
            Acks::All => &mut self.commit_waiters,
            Acks::Leader => &mut self.written_waiters,
        };
        let at = waiters.partition_point(|w| w.index <= index);
        waiters.insert(
            at,
            Waiter {
                ticket: produce.ticket,
                index,
                base_offset,
                numbers: Numbers::of(&produce.summary),
            },
        );
    }
}
