//! Reading bytes of a `.log` and looking whether they are what was written.
//!
//! A batch is whole where its CRC-32C fits and its base offset, length, leader epoch and last offset delta
//! are those of its record in the sidecar, which has a checksum of its own. Where it is not, it is read
//! once more past the cache: memory may be bad where the disk is not.
//!
//! Nothing in the sidecar binds the batch's CRC. Two `.log` files of equal shape that were exchanged between
//! partitions agree with all that is looked at here.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::BatchView;

use crate::disk::DiskFile;
use crate::entry::EntryKind;
use crate::format::sidecar::Record;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::{Files, read_at, read_past_cache};
use crate::log::trust::Span;
use crate::planted::{self, Bug};

/// What was read of a run of entries.
#[derive(Debug)]
pub(super) struct Run {
    /// The batches, back to back, of the entries that are whole.
    pub(super) bytes: Bytes,
    /// How many of the entries that is. Fewer than were asked for, without a bad one, where a place cannot be
    /// read.
    pub(super) entries: usize,
    /// The first entry whose batch is not whole.
    pub(super) bad: Option<LogError>,
}

/// Reads the batches of entries that follow each other in one segment, from `index` on, and verifies them.
/// Waits for the disk.
pub(super) fn read_run(files: &Files, index: u64, records: &[Record]) -> LogResult<Run> {
    let data = || records.iter().filter(|r| r.kind == EntryKind::Data);
    let (Some(first), Some(last)) = (data().next(), data().next_back()) else {
        return Ok(Run {
            bytes: Bytes::new(),
            entries: records.len(),
            bad: None,
        });
    };
    let from = u64::from(first.position);
    let log = files.log()?;
    let len = usize::try_from(last.end().saturating_sub(from)).unwrap_or(usize::MAX);
    let there = log.len().at(log.path())?.saturating_sub(from);
    let readable = len.min(usize::try_from(there).unwrap_or(usize::MAX));
    let mut bytes = vec![0; readable];
    if let Err(error) = read_at(log, &mut bytes, from) {
        // Perhaps only one place cannot be read: what lies before it is served.
        if let Some(half) = records
            .get(..records.len() / 2)
            .filter(|half| !half.is_empty())
        {
            return read_run(files, index, half);
        }
        return match files.is_given_up(index, &error) {
            true => Ok(Run {
                bytes: Bytes::new(),
                entries: 0,
                bad: Some(bad_batch(log, index, first)),
            }),
            false => Err(error),
        };
    }
    let mut taken = 0;
    let mut entries = 0;
    let mut next_offset = first.base_offset;
    let mut bad = None;
    let mut trusted = true;
    for (index, record) in (index..).zip(records) {
        if record.kind == EntryKind::Data {
            let begin = usize::try_from(u64::from(record.position).saturating_sub(from));
            let begin = begin.unwrap_or(usize::MAX);
            let end = begin.saturating_add(record.len as usize);
            let place = if begin == taken {
                bytes.get_mut(begin..end)
            } else {
                None
            };
            let whole = match place {
                Some(place) => {
                    is_whole(record, place) || {
                        trusted = false;
                        read_again(log, record, place)?
                    }
                }
                None => false,
            };
            if !whole {
                bad = Some(bad_batch(log, index, record));
                break;
            }
            taken = end;
            next_offset = record.next_offset();
        }
        entries += 1;
    }
    bytes.truncate(taken);
    // A page of the cache that differs from the disk stays there: only what agreed at once is trusted.
    if trusted && log.resident(from, taken) == taken {
        files.trust.add(Span {
            from,
            to: from + taken as u64,
            first_offset: first.base_offset,
            next_offset,
            at: files.now(),
        });
    }
    Ok(Run {
        bytes: Bytes::from(bytes),
        entries,
        bad,
    })
}

fn bad_batch(log: &Arc<dyn DiskFile>, index: u64, record: &Record) -> LogError {
    LogError::BadBatch {
        path: log.path().clone(),
        position: u64::from(record.position),
        index,
        first_offset: record.base_offset,
        next_offset: record.next_offset(),
    }
}

/// Whether the bytes are the batch that a record speaks of.
pub(super) fn is_whole(record: &Record, bytes: &[u8]) -> bool {
    if planted::is(Bug::UnverifiedColdRead) {
        return true;
    }
    BatchView::parse(bytes).is_ok_and(|batch| {
        batch.total_len() == record.len as usize
            && batch.base_offset() == record.base_offset
            && batch.leader_epoch().cast_unsigned() == record.term
            && batch.last_offset_delta().cast_unsigned() == record.last_offset_delta
            && batch.crc_is_valid()
    })
}

/// Reads a batch past the cache. True where that one is whole.
fn read_again(log: &Arc<dyn DiskFile>, record: &Record, place: &mut [u8]) -> LogResult<bool> {
    read_past_cache(log, place, u64::from(record.position))?;
    Ok(is_whole(record, place))
}
