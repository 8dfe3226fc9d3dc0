//! The producer snapshots beside a log, one at the base offset of a segment.
//!
//! They are durable with the next sync of the log, so a power cut may leave one that is torn. It says nothing
//! that the batches before it do not say, and is made again when the log is opened. That at the log's start is
//! another matter where a head was dropped: what those batches said of producers, nothing else says any more.

use crate::disk::{OpenMode, is_of_machine};
use crate::format::SegmentFile;
use crate::log::Log;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::{read_whole, remove};
use crate::log::producers::KnownProducers;
use crate::log::reader::LogReader;
use crate::producer_state::{ProducerState, snapshot_fault};

impl Log {
    /// Writes Kafka's producer snapshot for an offset. It is durable with the next sync of the log;
    /// a snapshot that a crash has damaged is not used, and is made again when the log is opened.
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

    /// Makes those anew that cannot be read, and says how many. What batches that are bad would tell is missing
    /// from it, so where there are any it stays as it is.
    pub(super) fn remake_snapshots(&mut self) -> LogResult<usize> {
        let mut remade = 0;
        let mut first = None;
        for offset in self.snapshots()? {
            let reader = self.reader();
            match reader.snapshot(offset) {
                Ok(_) => continue,
                Err(LogError::Io { path, source }) if is_of_machine(&source) => {
                    return Err(LogError::Io { path, source });
                }
                Err(error) => first = first.or(Some(error)),
            }
            let KnownProducers {
                state,
                skipped,
                lost,
            } = reader.recover_known_producers(offset)?;
            if lost.is_some() || !skipped.is_empty() {
                continue;
            }
            match self.write_producer_snapshot(offset, &state) {
                Ok(()) => remade += 1,
                Err(LogError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::StorageFull =>
                {
                    tracing::warn!(offset, "no room for a producer snapshot to be made anew");
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = first {
            tracing::warn!(%error, remade, "producer snapshots could not be read; what batches tell was made anew");
        }
        Ok(remade)
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
    /// The snapshot of an offset.
    fn snapshot(&self, offset: i64) -> LogResult<ProducerState> {
        let path = SegmentFile::Snapshot.path(&self.shared.dir, offset);
        let file = self.shared.disk.open(&path, OpenMode::Existing).at(&path)?;
        let bytes = read_whole(&file)?;
        ProducerState::from_snapshot(&bytes).map_err(|_| {
            let (position, what) = snapshot_fault(&bytes);
            LogError::damaged(&path, position, what)
        })
    }

    /// The newest snapshot at or below an offset that can be read, but of the log's start at least. Where there
    /// is none and the log does not have its beginning any more, why that is.
    pub(super) fn newest_snapshot(
        &self,
        at_most: i64,
        start: i64,
    ) -> LogResult<(i64, ProducerState, Option<LogError>)> {
        let offsets = self.snapshots()?.into_iter().rev();
        let mut unreadable = None;
        for offset in offsets.filter(|offset| *offset <= at_most) {
            match self.snapshot(offset) {
                Ok(state) => return Ok((offset.max(start), state, None)),
                // Whatever would meet the next one as well says nothing of this one.
                Err(LogError::Io { path, source }) if is_of_machine(&source) => {
                    return Err(LogError::Io { path, source });
                }
                Err(error) => unreadable = Some(error),
            }
        }
        let lost = (start > 0).then(|| {
            unreadable.unwrap_or_else(|| LogError::Absent {
                path: SegmentFile::Snapshot.path(&self.shared.dir, start),
            })
        });
        if let Some(lost) = &lost {
            *self.shared.lost.lock() = Some(lost.to_string());
        }
        Ok((start, ProducerState::default(), lost))
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
