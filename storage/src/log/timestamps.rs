//! Finding records by their timestamp.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::{BatchView, batches, first_record_at_or_after};

use crate::format::index::{TIME_ENTRY_LEN, TimeEntry, partition_entries};
use crate::log::error::{LogError, LogResult};
use crate::log::fetch::{sealed_position, slice};
use crate::log::files::Files;
use crate::log::reader::LogReader;
use crate::log::shared::{Active, Sealed};

/// The most that a compressed batch may grow to while it is searched: no batch that was accepted
/// comes near it.
const MAX_DECOMPRESSED_BYTES: usize = 1 << 30;

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
    /// The active one: its files, where to begin, where its batches below the ceiling end, and what
    /// its time index knows of the batches before that beginning.
    Active {
        files: Arc<Files>,
        from: u64,
        to: u64,
        max: Option<TimeEntry>,
    },
}

impl Segment {
    fn files(&self) -> &Arc<Files> {
        match self {
            Self::Sealed(sealed) => &sealed.files,
            Self::Active { files, .. } => files,
        }
    }
}

fn active_segment(active: &Active, timestamp: i64, ceiling: i64) -> Segment {
    let below = active
        .records
        .partition_point(|record| record.next_offset() <= ceiling);
    let records = active.records.get(..below).unwrap_or_default();
    let to = records
        .iter()
        .rev()
        .find(|record| record.kind == crate::entry::EntryKind::Data)
        .map_or(0, super::super::format::sidecar::Record::end);
    let relative_ceiling = ceiling - active.shape.base_offset;
    let known = active.indexes.time.partition_point(|e| {
        e.timestamp < timestamp && i64::from(e.relative_offset) < relative_ceiling
    });
    let max = known
        .checked_sub(1)
        .and_then(|at| active.indexes.time.get(at))
        .copied();
    let from = max.map_or(0, |entry| {
        active
            .indexes
            .position_of(active.shape.base_offset + i64::from(entry.relative_offset))
    });
    Segment::Active {
        files: Arc::clone(&active.files),
        from: u64::from(from).min(to),
        to,
        max,
    }
}

impl LogReader {
    /// The first record, below the offset `ceiling`, whose timestamp is at least `timestamp`.
    ///
    /// # Errors
    /// `Damaged` and I/O errors.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        ceiling: i64,
    ) -> LogResult<Option<TimestampOffset>> {
        for segment in self.segments(timestamp, ceiling) {
            let bytes = match &segment {
                Segment::Sealed(sealed) => {
                    if sealed
                        .max_timestamp()
                        .is_some_and(|max| max.timestamp < timestamp)
                    {
                        continue;
                    }
                    from_timestamp(sealed, timestamp)?
                }
                Segment::Active {
                    files, from, to, ..
                } => slice(files, *from, *to)?,
            };
            if let Some(found) = first_in(segment.files(), &bytes, timestamp, ceiling)? {
                return Ok(Some(found).filter(|found| found.offset < ceiling));
            }
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp of all below the offset `ceiling`.
    ///
    /// # Errors
    /// `Damaged` and I/O errors.
    pub fn max_timestamp(&self, ceiling: i64) -> LogResult<Option<TimestampOffset>> {
        let mut max = -1;
        for segment in self.segments(i64::MAX, ceiling) {
            let bytes = match &segment {
                Segment::Sealed(sealed) if sealed.next_offset <= ceiling => {
                    let known = sealed.max_timestamp();
                    if let Some(known) = known {
                        max = max.max(known.timestamp);
                        continue;
                    }
                    slice(&sealed.files, 0, sealed.log_len)?
                }
                Segment::Sealed(sealed) => slice(&sealed.files, 0, sealed.log_len)?,
                Segment::Active {
                    files,
                    from,
                    to,
                    max: known,
                } => {
                    max = max.max(known.map_or(-1, |entry| entry.timestamp));
                    slice(files, *from, *to)?
                }
            };
            for batch in batches(&bytes) {
                let batch = batch.map_err(|_| no_batch(segment.files()))?;
                if batch.next_offset() <= ceiling {
                    max = max.max(batch.max_timestamp());
                }
            }
        }
        if max < 0 {
            Ok(None)
        } else {
            self.offset_for_timestamp(max, ceiling)
        }
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

fn no_batch(files: &Files) -> LogError {
    LogError::damaged(
        &files.path(crate::format::SegmentFile::Log),
        0,
        "a batch cannot be read",
    )
}

/// The bytes of a sealed segment from where a timestamp may first be reached.
fn from_timestamp(sealed: &Sealed, timestamp: i64) -> LogResult<Bytes> {
    let index = sealed.time_bytes();
    let below = |entry: &[u8]| TimeEntry::decode(entry).timestamp < timestamp;
    let count = partition_entries(index, TIME_ENTRY_LEN, below);
    let position = match count.checked_sub(1) {
        Some(at) => {
            let entry = TimeEntry::decode(index.get(at * TIME_ENTRY_LEN..).unwrap_or_default());
            let offset = sealed.shape.base_offset + i64::from(entry.relative_offset);
            sealed_position(sealed, offset)?
        }
        None => 0,
    };
    slice(&sealed.files, position, sealed.log_len)
}

fn first_in(
    files: &Files,
    bytes: &Bytes,
    timestamp: i64,
    ceiling: i64,
) -> LogResult<Option<TimestampOffset>> {
    for batch in batches(bytes) {
        let batch: BatchView<'_> = batch.map_err(|_| no_batch(files))?;
        if batch.base_offset() >= ceiling {
            return Ok(None);
        }
        if batch.max_timestamp() < timestamp {
            continue;
        }
        let found = first_record_at_or_after(&batch, timestamp, 0, MAX_DECOMPRESSED_BYTES)
            .map_err(|_| no_batch(files))?;
        if let Some(found) = found {
            return Ok(Some(TimestampOffset {
                timestamp: found.timestamp,
                offset: found.offset,
                leader_epoch: batch.leader_epoch(),
            }));
        }
    }
    Ok(None)
}
