//! The sequences of batches that a leader has appended and not yet applied.
//!
//! The state of the applied log knows only what is committed. A leader that is asked again about a
//! batch in its tail must know that too: this overlay is made of the real tail, entry by entry, and
//! dropped when the tail is cut or leadership is lost (L1).

use std::collections::BTreeMap;

use riverrun_record::{BatchSummary, BatchView};
use riverrun_storage::{EntryKind, LogEntry, ProducerBatch, ProducerState, SequenceVerdict};

/// Producers with unapplied batches.
#[derive(Debug, Default)]
pub struct Overlay {
    /// Holds every producer of `last_index`, as of the end of the tail.
    state: ProducerState,
    /// Last unapplied index of each producer.
    last_index: BTreeMap<i64, u64>,
    /// Base offset to index of the unapplied batches of producers.
    by_offset: BTreeMap<i64, u64>,
}

impl Overlay {
    /// The overlay of a tail above the applied state.
    pub fn of_tail<'a>(applied: &ProducerState, tail: impl Iterator<Item = &'a LogEntry>) -> Self {
        let mut overlay = Self::default();
        for entry in tail.filter(|e| e.kind == EntryKind::Data) {
            let view = BatchView::parse(&entry.payload)
                .unwrap_or_else(|e| panic!("I1: entry {}: {e}", entry.index));
            if view.producer_id() >= 0 {
                overlay.adopt(applied, view.producer_id());
                overlay.state.apply(&view);
                overlay.last_index.insert(view.producer_id(), entry.index);
                overlay.by_offset.insert(entry.base_offset, entry.index);
            }
        }
        overlay
    }

    fn adopt(&mut self, applied: &ProducerState, producer_id: i64) {
        if !self.last_index.contains_key(&producer_id) {
            self.state.adopt(applied, producer_id);
        }
    }

    /// The state that knows a producer's last batches.
    fn state<'a>(&'a self, applied: &'a ProducerState, producer_id: i64) -> &'a ProducerState {
        if self.last_index.contains_key(&producer_id) {
            &self.state
        } else {
            applied
        }
    }

    /// What a batch is by its numbers.
    pub fn check(&self, applied: &ProducerState, batch: &BatchSummary) -> SequenceVerdict {
        self.state(applied, batch.producer_id).check(
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            batch.last_sequence(),
        )
    }

    /// The sequence that follows what the log has of a producer in an epoch, if it has anything.
    #[must_use]
    pub fn next(&self, applied: &ProducerState, producer_id: i64, epoch: i16) -> Option<i32> {
        self.state(applied, producer_id).next(producer_id, epoch)
    }

    /// Whether the log has nothing of a producer.
    #[must_use]
    pub fn is_new(&self, applied: &ProducerState, producer_id: i64) -> bool {
        !self.state(applied, producer_id).knows(producer_id)
    }

    /// A batch was appended.
    pub fn append(
        &mut self,
        applied: &ProducerState,
        batch: &BatchSummary,
        base_offset: i64,
        index: u64,
    ) {
        self.adopt(applied, batch.producer_id);
        self.state.append(ProducerBatch {
            producer_id: batch.producer_id,
            epoch: batch.producer_epoch,
            first_sequence: batch.base_sequence,
            base_offset,
            last_offset_delta: batch.last_offset_delta,
            timestamp: batch.max_timestamp,
        });
        self.last_index.insert(batch.producer_id, index);
        self.by_offset.insert(base_offset, index);
    }

    /// The last unapplied entry of a producer.
    #[must_use]
    pub fn last_index_of(&self, producer_id: i64) -> Option<u64> {
        self.last_index.get(&producer_id).copied()
    }

    /// The unapplied entry that begins at an offset.
    #[must_use]
    pub fn index_of(&self, base_offset: i64) -> Option<u64> {
        self.by_offset.get(&base_offset).copied()
    }

    /// A batch was applied: it is in the applied state from now on.
    pub fn applied(&mut self, producer_id: i64, index: u64) {
        while let Some(first) = self.by_offset.first_entry() {
            if *first.get() > index {
                break;
            }
            first.remove();
        }
        if self
            .last_index
            .get(&producer_id)
            .is_some_and(|last| *last <= index)
        {
            self.last_index.remove(&producer_id);
            self.state.forget(producer_id);
        }
    }
}
