//! Reading batches by their offset.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::batches;

use crate::entry::EntryKind;
use crate::format::index::{OFFSET_ENTRY_LEN, OffsetEntry, partition_entries};
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::Files;
use crate::log::reader::LogReader;
use crate::log::shared::{Active, Sealed};

/// Whole batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Slices of the segments, each of one or more batches back to back.
    pub batches: Vec<Bytes>,
    /// Base offset of the first batch; the offset that was asked for if there is none.
    pub first_offset: i64,
    /// The offset to go on at.
    pub next_offset: i64,
}

/// A range of whole batches in one segment.
#[derive(Debug)]
struct Range {
    from: u64,
    to: u64,
    first_offset: i64,
    next_offset: i64,
    /// Whether the limit of bytes or the ceiling ended it, and not the segment.
    stopped: bool,
}

/// What a fetch may still take.
#[derive(Debug, Clone, Copy)]
struct Budget {
    ceiling: i64,
    bytes: usize,
    at_least_one: bool,
}

impl Budget {
    fn takes(&self, taken: u64, len: u64) -> bool {
        taken + len <= self.bytes as u64 || (self.at_least_one && taken == 0)
    }
}

impl LogReader {
    /// Whole batches from the one that holds `offset` on, all of them below the offset `ceiling`:
    /// no more than `max_bytes`, but the first one whatever its size if `at_least_one`.
    ///
    /// # Errors
    /// `OutOfRange` where the log does not have the offset and does not end at it; I/O errors.
    pub fn fetch(
        &self,
        offset: i64,
        ceiling: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> LogResult<Fetched> {
        let mut budget = Budget {
            ceiling,
            bytes: max_bytes,
            at_least_one,
        };
        let mut fetched = Fetched {
            batches: Vec::new(),
            first_offset: offset,
            next_offset: offset,
        };
        loop {
            let at = fetched.next_offset;
            let (files, range) = {
                let inner = self.shared.inner.read();
                let (start, end) = (inner.start.offset, inner.next_offset());
                if fetched.batches.is_empty() && (at < start || at > end) {
                    return Err(LogError::OutOfRange {
                        offset: at,
                        start,
                        end,
                    });
                }
                match inner.sealed.get(inner.segment_of_offset(at)) {
                    Some(sealed) => {
                        let sealed = Arc::clone(sealed);
                        drop(inner);
                        let range = sealed_range(&sealed, at, &budget)?;
                        (Arc::clone(&sealed.files), range)
                    }
                    None => {
                        let range = active_range(&inner.active, at, &budget);
                        (Arc::clone(&inner.active.files), range)
                    }
                }
            };
            let len = usize::try_from(range.to - range.from).unwrap_or(usize::MAX);
            if len > 0 {
                let log = files.log()?;
                if fetched.batches.is_empty() {
                    fetched.first_offset = range.first_offset;
                }
                fetched
                    .batches
                    .push(log.slice(range.from, len).at(log.path())?);
                budget.bytes = budget.bytes.saturating_sub(len);
                budget.at_least_one = false;
            }
            let moved = range.next_offset > fetched.next_offset;
            fetched.next_offset = fetched.next_offset.max(range.next_offset);
            if range.stopped || !moved {
                return Ok(fetched);
            }
        }
    }
}

fn active_range(active: &Active, offset: i64, budget: &Budget) -> Range {
    let first = active
        .records
        .partition_point(|record| record.next_offset() <= offset);
    let mut range = Range {
        from: active.log_len,
        to: active.log_len,
        first_offset: offset,
        next_offset: offset,
        stopped: true,
    };
    for record in active.records.get(first..).unwrap_or_default() {
        if record.next_offset() > budget.ceiling {
            break;
        }
        if record.kind == EntryKind::Data {
            if range.from == range.to {
                range.from = u64::from(record.position);
                range.to = range.from;
                range.first_offset = record.base_offset;
            }
            if !budget.takes(range.to - range.from, u64::from(record.len)) {
                break;
            }
            range.to = record.end();
        }
        range.next_offset = range.next_offset.max(record.next_offset());
    }
    range
}

/// Where to begin looking for the batch that holds an offset: behind the newest index entry that is
/// not above it, if that entry is true.
pub(super) fn sealed_position(sealed: &Sealed, offset: i64) -> LogResult<u64> {
    let index = sealed.index_bytes();
    let relative = offset - sealed.shape.base_offset;
    let below = |entry: &[u8]| i64::from(OffsetEntry::decode(entry).relative_offset) <= relative;
    let count = partition_entries(index, OFFSET_ENTRY_LEN, below);
    let Some(at) = count.checked_sub(1) else {
        return Ok(0);
    };
    let entry = OffsetEntry::decode(index.get(at * OFFSET_ENTRY_LEN..).unwrap_or_default());
    let position = u64::from(entry.position);
    if position >= sealed.log_len {
        return Ok(0);
    }
    let bytes = slice(&sealed.files, position, sealed.log_len)?;
    let last_offset = sealed.shape.base_offset + i64::from(entry.relative_offset);
    match batches(&bytes).next() {
        Some(Ok(batch)) if batch.last_offset() == last_offset => Ok(position),
        // The index is damaged. The way is longer, the answer is the same.
        _ => Ok(0),
    }
}

pub(super) fn slice(files: &Files, from: u64, to: u64) -> LogResult<Bytes> {
    let log = files.log()?;
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    log.slice(from, len).at(log.path())
}

fn sealed_range(sealed: &Sealed, offset: i64, budget: &Budget) -> LogResult<Range> {
    let begin = sealed_position(sealed, offset)?;
    let bytes = slice(&sealed.files, begin, sealed.log_len)?;
    let mut walk = batches(&bytes);
    let mut range = Range {
        from: sealed.log_len,
        to: sealed.log_len,
        first_offset: offset,
        next_offset: offset,
        stopped: false,
    };
    loop {
        let position = begin + walk.position() as u64;
        let batch = match walk.next() {
            None => break,
            Some(Ok(batch)) => batch,
            Some(Err(_)) => {
                let log = sealed.files.log()?;
                return Err(LogError::damaged(
                    log.path(),
                    position,
                    "no batch begins here",
                ));
            }
        };
        if batch.last_offset() < offset {
            continue;
        }
        if batch.next_offset() > budget.ceiling {
            range.stopped = true;
            return Ok(range);
        }
        if range.from == range.to {
            (range.from, range.to) = (position, position);
            range.first_offset = batch.base_offset();
        }
        let len = batch.total_len() as u64;
        if !budget.takes(range.to - range.from, len) {
            range.stopped = true;
            return Ok(range);
        }
        range.to += len;
        range.next_offset = range.next_offset.max(batch.next_offset());
    }
    // Whatever offsets the segment ends with, holes perhaps, the next one goes on behind them.
    range.next_offset = sealed
        .next_offset
        .min(budget.ceiling)
        .max(range.next_offset);
    range.stopped = sealed.next_offset > budget.ceiling;
    Ok(range)
}
