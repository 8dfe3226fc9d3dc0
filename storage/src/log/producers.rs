//! The producer snapshots beside a log, and the state of its producers at an offset.

use riverrun_record::batches;

use crate::disk::OpenMode;
use crate::entry::EntryKind;
use crate::format::SegmentFile;
use crate::log::Log;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::fetch::slice;
use crate::log::files::{read_whole, remove};
use crate::producer_state::ProducerState;

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
    /// `Damaged` and I/O errors.
    pub fn recover_producer_state(&self, up_to_offset: i64) -> LogResult<ProducerState> {
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
        self.replay(&mut state, from, up_to_offset)?;
        Ok(state)
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

    fn replay(&self, state: &mut ProducerState, from: i64, up_to: i64) -> LogResult<()> {
        let segments: Vec<_> = {
            let inner = self.shared.inner.read();
            let below = |record: &&crate::format::sidecar::Record| {
                record.kind == EntryKind::Data && record.next_offset() <= up_to
            };
            let active_end = inner.active.records.iter().rfind(below);
            let active_end = active_end.map_or(0, crate::format::sidecar::Record::end);
            inner
                .sealed
                .iter()
                .filter(|s| s.next_offset > from && s.shape.base_offset < up_to)
                .map(|s| (std::sync::Arc::clone(&s.files), s.log_len))
                .chain([(std::sync::Arc::clone(&inner.active.files), active_end)])
                .collect()
        };
        for (files, len) in segments {
            let bytes = slice(&files, 0, len)?;
            let mut walk = batches(&bytes);
            loop {
                let position = walk.position() as u64;
                let Some(batch) = walk.next() else { break };
                let batch = batch.map_err(|_| {
                    let path = files.path(SegmentFile::Log);
                    LogError::damaged(&path, position, "no batch begins here")
                })?;
                if batch.base_offset() >= from && batch.next_offset() <= up_to {
                    state.apply(&batch);
                }
            }
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
