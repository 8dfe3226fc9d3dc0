//! Finding records by their timestamp.

use std::sync::Arc;

use riverrun_record::{BatchView, batches, first_record_at_or_after};

use crate::format::index::{TIME_ENTRY_LEN, TimeEntry, partition_entries};
use crate::log::error::{LogError, LogResult};
use crate::log::reader::LogReader;
use crate::log::shared::{Active, Sealed};

/// The most that a compressed batch may grow to while it is searched: no batch that was accepted
/// comes near it.
const MAX_DECOMPRESSED_BYTES: usize = 1 << 30;
/// Bytes that are searched at once.
const SEARCHED_BYTES: usize = 1 << 20;

/// A record by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

/// A segment to look into.
#[derive(Debug)]
enum Segment {
    Sealed(Arc<Sealed>),
    /// The active one: where to begin, and what its time index knows of the batches before that.
    Active {
        from: i64,
        max: Option<TimeEntry>,
    },
}

fn active_segment(active: &Active, timestamp: i64, ceiling: i64) -> Segment {
    let base = active.shape.base_offset;
    let known = active.indexes.time.partition_point(|e| {
        e.timestamp < timestamp && i64::from(e.relative_offset) < ceiling - base
    });
    let max = known
        .checked_sub(1)
        .and_then(|at| active.indexes.time.get(at))
        .copied();
    Segment::Active {
        from: max.map_or(base, |entry| base + i64::from(entry.relative_offset)),
        max,
    }
}

impl LogReader {
    /// The first record, below the offset `ceiling`, whose timestamp is at least `timestamp`. Every batch
    /// that is looked into is verified. Waits for the disk.
    ///
    /// # Errors
    /// `BadBatch`, `Damaged` and I/O errors.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        ceiling: i64,
    ) -> LogResult<Option<TimestampOffset>> {
        for segment in self.segments(timestamp, ceiling) {
            let (from, to) = match &segment {
                Segment::Sealed(sealed) => {
                    if sealed
                        .max_timestamp()
                        .is_some_and(|max| max.timestamp < timestamp)
                    {
                        continue;
                    }
                    let to = sealed.next_offset.min(ceiling);
                    (from_timestamp(sealed, timestamp), to)
                }
                Segment::Active { from, .. } => (*from, ceiling),
            };
            let found = self.search(from, to, |batch| first_in(batch, timestamp))?;
            if found.is_some() {
                return Ok(found.filter(|found| found.offset < ceiling));
            }
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp of all below the offset `ceiling`.
    ///
    /// # Errors
    /// As [`LogReader::offset_for_timestamp`].
    pub fn max_timestamp(&self, ceiling: i64) -> LogResult<Option<TimestampOffset>> {
        let mut max = -1;
        for segment in self.segments(i64::MAX, ceiling) {
            let (from, to) = match &segment {
                Segment::Sealed(sealed) => {
                    let known = sealed.max_timestamp();
                    if let Some(known) = known
                        && sealed.next_offset <= ceiling
                    {
                        max = max.max(known.timestamp);
                        continue;
                    }
                    (sealed.shape.base_offset, sealed.next_offset.min(ceiling))
                }
                Segment::Active { from, max: known } => {
                    max = max.max(known.map_or(-1, |entry| entry.timestamp));
                    (*from, ceiling)
                }
            };
            self.search(from, to, |batch| {
                max = max.max(batch.max_timestamp());
                Ok(None::<()>)
            })?;
        }
        if max < 0 {
            Ok(None)
        } else {
            self.offset_for_timestamp(max, ceiling)
        }
    }

    /// What the first of the batches from one offset to another gives that gives anything.
    fn search<T>(
        &self,
        from: i64,
        to: i64,
        mut found: impl FnMut(&BatchView<'_>) -> LogResult<Option<T>>,
    ) -> LogResult<Option<T>> {
        let mut at = from.max(self.log_start_offset());
        while at < to {
            let fetched = self.fetch(at, to, SEARCHED_BYTES, true)?;
            for bytes in &fetched.batches {
                for batch in batches(bytes) {
                    let batch = batch.map_err(|_| LogError::Unreadable {
                        first_offset: fetched.first_offset,
                        next_offset: fetched.next_offset,
                    })?;
                    if let Some(found) = found(&batch)? {
                        return Ok(Some(found));
                    }
                }
            }
            if fetched.next_offset <= at {
                break;
            }
            at = fetched.next_offset;
        }
        Ok(None)
    }

    fn segments(&self, timestamp: i64, ceiling: i64) -> Vec<Segment> {
        let inner = self.shared.inner.read();
        let below = |sealed: &&Arc<Sealed>| sealed.shape.base_offset < ceiling;
        let sealed = inner
            .sealed
            .iter()
            .take_while(below)
            .map(Arc::clone)
            .map(Segment::Sealed);
        let mut segments: Vec<Segment> = sealed.collect();
        segments.push(active_segment(&inner.active, timestamp, ceiling));
        segments
    }
}

/// The offset of a sealed segment from where a timestamp may first be reached.
fn from_timestamp(sealed: &Sealed, timestamp: i64) -> i64 {
    let Some(index) = sealed.time_bytes() else {
        return sealed.shape.base_offset;
    };
    let below = |entry: &[u8]| TimeEntry::decode(entry).timestamp < timestamp;
    let count = partition_entries(index, TIME_ENTRY_LEN, below);
    let relative = count.checked_sub(1).map_or(0, |at| {
        let entry = TimeEntry::decode(index.get(at * TIME_ENTRY_LEN..).unwrap_or_default());
        i64::from(entry.relative_offset)
    });
    let offset = sealed.shape.base_offset + relative;
    offset.clamp(sealed.shape.base_offset, sealed.next_offset)
}

fn first_in(batch: &BatchView<'_>, timestamp: i64) -> LogResult<Option<TimestampOffset>> {
    if batch.max_timestamp() < timestamp {
        return Ok(None);
    }
    let found = first_record_at_or_after(batch, timestamp, 0, MAX_DECOMPRESSED_BYTES);
    let found = found.map_err(|_| LogError::Unreadable {
        first_offset: batch.base_offset(),
        next_offset: batch.next_offset(),
    })?;
    Ok(found.map(|found| TimestampOffset {
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: batch.leader_epoch(),
    }))
}
