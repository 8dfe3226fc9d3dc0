//! The state of a log's producers at an offset.

use riverrun_record::batches;

use crate::log::Log;
use crate::log::error::{LogError, LogResult};
use crate::log::reader::LogReader;
use crate::producer_state::ProducerState;

/// Bytes that are replayed at once.
const REPLAY_BYTES: usize = 1 << 20;

/// What a log tells of its producers.
#[derive(Debug, Default)]
pub struct KnownProducers {
    /// Their state, without what is named below.
    pub state: ProducerState,
    /// Indexes of the bad batches that would tell more.
    pub skipped: Vec<u64>,
    /// Why what lay before the log's start is not known.
    pub lost: Option<LogError>,
}

impl KnownProducers {
    /// Whether that is all.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.skipped.is_empty() && self.lost.is_none()
    }
}

impl Log {
    /// The producers as they are behind exactly the batches below `up_to_offset`: the newest usable
    /// snapshot that leaves at least one whole segment to be replayed, so that the last batches of
    /// each producer are known and not only the very last, and the batches behind it.
    ///
    /// # Errors
    /// `BadBatch` where one of those cannot be told, `Damaged` or `Absent` where the log does not have its
    /// beginning any more and the snapshot of its start cannot be read, and I/O errors.
    pub fn recover_producer_state(&self, up_to_offset: i64) -> LogResult<ProducerState> {
        let reader = self.reader();
        let mut known = reader.recover_known_producers(up_to_offset)?;
        if let Some(index) = known.skipped.first() {
            reader.verify(*index)?;
            // It is whole after all.
            known = reader.recover_known_producers(up_to_offset)?;
        }
        known.lost.map_or(Ok(known.state), Err)
    }
}

impl LogReader {
    /// The producers as they are behind the batches below `up_to_offset`, as far as what can be read tells.
    /// Waits for the disk.
    ///
    /// # Errors
    /// I/O errors.
    pub fn recover_known_producers(&self, up_to_offset: i64) -> LogResult<KnownProducers> {
        let (start, bases) = {
            let inner = self.shared.inner.read();
            let mut bases: Vec<i64> = inner
                .sealed
                .iter()
                .map(|segment| segment.shape.base_offset)
                .collect();
            bases.push(inner.active.shape.base_offset);
            (inner.start.offset, bases)
        };
        // The segment before the one that the offset lies in.
        let holds = bases.partition_point(|base| *base < up_to_offset);
        let before = holds
            .checked_sub(2)
            .and_then(|at| bases.get(at))
            .copied()
            .unwrap_or(start);
        let (from, mut state, lost) = self.newest_snapshot(before, start)?;
        let mut skipped = Vec::new();
        self.replay(&mut state, from, up_to_offset, &mut skipped)?;
        Ok(KnownProducers {
            state,
            skipped,
            lost,
        })
    }

    fn replay(
        &self,
        state: &mut ProducerState,
        from: i64,
        up_to: i64,
        skipped: &mut Vec<u64>,
    ) -> LogResult<()> {
        let mut at = from;
        while at < up_to {
            let fetched = match self.fetch(at, up_to, REPLAY_BYTES, true) {
                Ok(fetched) => fetched,
                Err(LogError::BadBatch {
                    index, next_offset, ..
                }) if next_offset > at => {
                    skipped.push(index);
                    at = next_offset;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for bytes in &fetched.batches {
                for batch in batches(bytes) {
                    let batch = batch.map_err(|_| LogError::Unreadable {
                        first_offset: fetched.first_offset,
                        next_offset: fetched.next_offset,
                    })?;
                    if batch.base_offset() >= from && batch.next_offset() <= up_to {
                        state.apply(&batch);
                    }
                }
            }
            if fetched.next_offset <= at {
                break;
            }
            at = fetched.next_offset;
        }
        Ok(())
    }
}
