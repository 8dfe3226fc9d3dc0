//! The producer snapshots beside a log, and the state of its producers at an offset.

use riverrun_record::batches;

use crate::disk::OpenMode;
use crate::format::SegmentFile;
use crate::log::Log;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::{read_whole, remove};
use crate::log::reader::LogReader;
use crate::producer_state::ProducerState;

/// Bytes that are replayed at once.
const REPLAY_BYTES: usize = 1 << 20;

impl Log {
    /// Writes Kafka's producer snapshot for an offset. It is durable with the next sync of the log;
    /// a snapshot that a crash has damaged is not used.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write_producer_snapshot(&mut self, offset: i64, state: &ProducerState) -> LogResult<()> {
        self.sync.check()?;
        let path = SegmentFile::Snapshot.path(&self.shared.dir, offset);
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        self.write_aside(name, &state.to_snapshot())
    }

    /// The producers as they are behind exactly the batches below `up_to_offset`: the newest usable
    /// snapshot that leaves at least one whole segment to be replayed, so that the last batches of
    /// each producer are known and not only the very last, and the batches behind it.
    ///
    /// # Errors
    /// `BadBatch` where one of those cannot be told, and I/O errors.
    pub fn recover_producer_state(&self, up_to_offset: i64) -> LogResult<ProducerState> {
        let (state, skipped) = self.recover_known_producers(up_to_offset)?;
        match skipped.first() {
            None => Ok(state),
            Some(index) => {
                let reader = self.reader();
                reader.verify(*index)?;
                // It is whole after all.
                Ok(self.recover_known_producers(up_to_offset)?.0)
            }
        }
    }

    /// The same without what bad batches would tell, and the indexes of those.
    ///
    /// # Errors
    /// I/O errors.
    pub fn recover_known_producers(
        &self,
        up_to_offset: i64,
    ) -> LogResult<(ProducerState, Vec<u64>)> {
        self.reader().recover_known_producers(up_to_offset)
    }

    pub(super) fn snapshots(&self) -> LogResult<Vec<i64>> {
        self.reader().snapshots()
    }

    pub(super) fn drop_snapshots(&self, gone: impl Fn(i64) -> bool) -> LogResult<()> {
        for offset in self.snapshots()?.into_iter().filter(|offset| gone(*offset)) {
            remove(
                &self.shared.disk,
                &SegmentFile::Snapshot.path(&self.shared.dir, offset),
            )?;
        }
        Ok(())
    }
}

impl LogReader {
    /// The producers as they are behind the batches below `up_to_offset`, without what bad batches would
    /// tell, and the indexes of those. Waits for the disk.
    ///
    /// # Errors
    /// I/O errors.
    pub fn recover_known_producers(
        &self,
        up_to_offset: i64,
    ) -> LogResult<(ProducerState, Vec<u64>)> {
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
        let (from, mut state) = self.newest_snapshot(before, start)?;
        let mut skipped = Vec::new();
        self.replay(&mut state, from, up_to_offset, &mut skipped)?;
        Ok((state, skipped))
    }

    /// The newest usable snapshot at or below an offset, but of the log's start at least.
    fn newest_snapshot(&self, at_most: i64, start: i64) -> LogResult<(i64, ProducerState)> {
        for offset in self
            .snapshots()?
            .into_iter()
            .rev()
            .filter(|offset| *offset <= at_most)
        {
            let path = SegmentFile::Snapshot.path(&self.shared.dir, offset);
            let bytes = self
                .shared
                .disk
                .open(&path, OpenMode::Existing)
                .at(&path)
                .and_then(|file| read_whole(&file));
            if let Some(state) = bytes
                .ok()
                .and_then(|bytes| ProducerState::from_snapshot(&bytes).ok())
            {
                return Ok((offset.max(start), state));
            }
        }
        Ok((start, ProducerState::default()))
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
                for batch in batches(bytes).flatten() {
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

    /// Offsets of the snapshots that are there, in order.
    pub(super) fn snapshots(&self) -> LogResult<Vec<i64>> {
        let dir = &self.shared.dir;
        let names = self.shared.disk.read_dir(dir).at(dir)?;
        let parsed = names
            .iter()
            .filter_map(|entry| SegmentFile::parse(&entry.name));
        let mut offsets: Vec<i64> = parsed
            .filter(|(_, file)| *file == SegmentFile::Snapshot)
            .map(|(offset, _)| offset)
            .collect();
        offsets.sort_unstable();
        Ok(offsets)
    }
}
