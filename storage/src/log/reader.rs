//! Reading entries by their index.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::OpenMode;
use crate::entry::{EntryKind, LogEntry};
use crate::format::SegmentFile;
use crate::format::aux;
use crate::format::sidecar::{RECORD_LEN, Record};
use crate::log::error::{LogError, LogResult};
use crate::log::files::{Files, read_at, read_past_cache};
use crate::log::runs::{end_offset_for_epoch, epoch_of_offset};
use crate::log::shared::Shared;
use crate::log::verified::read_run;
use crate::recovered::LogStart;

/// Records read from a sealed segment's sidecar at once.
const RECORDS_PER_READ: u64 = 1024;

/// A result whose error comes with the files that it is about, where it is about any.
type FilesResult<T> = Result<T, (Option<Arc<Files>>, LogError)>;

/// What is known of an entry without reading its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    /// The Raft index.
    pub index: u64,
    /// The Raft term.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Its first Kafka offset, or the next one where it takes none.
    pub base_offset: i64,
    /// Last offset minus first offset.
    pub last_offset_delta: u32,
    /// Bytes of the batch or payload.
    pub len: u32,
}

impl EntryMeta {
    fn new(index: u64, record: &Record) -> Self {
        Self {
            index,
            term: u64::from(record.term),
            kind: record.kind,
            base_offset: record.base_offset,
            last_offset_delta: record.last_offset_delta,
            len: record.len,
        }
    }

    /// The next free offset behind the entry.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        if self.kind.moves_offset() {
            self.base_offset + i64::from(self.last_offset_delta) + 1
        } else {
            self.base_offset
        }
    }
}

/// Reads a log while it is written. Clones are cheap.
///
/// INVARIANT (I3, W9): whoever asks for bytes asks for what is committed and persisted here, and
/// nothing above. Only that is never overwritten or cut, and the answers are slices of the file.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The entry before the first one, and the first offset.
    #[must_use]
    pub fn start(&self) -> LogStart {
        self.shared.inner.read().start
    }

    /// Index of the first entry; one above the last if there is none.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.shared.inner.read().first_index()
    }

    /// Index of the last entry; that before the first if there is none.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.shared.inner.read().last_index()
    }

    /// The first offset that is on disk.
    #[must_use]
    pub fn log_start_offset(&self) -> i64 {
        self.shared.inner.read().start.offset
    }

    /// The offset that the next batch gets.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.shared.inner.read().next_offset()
    }

    /// Bytes of all batches.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let inner = self.shared.inner.read();
        inner
            .sealed
            .iter()
            .map(|segment| segment.log_len)
            .sum::<u64>()
            + inner.active.log_len
    }

    /// Base offsets of the segments, in order.
    #[must_use]
    pub fn segment_base_offsets(&self) -> Vec<i64> {
        let inner = self.shared.inner.read();
        let sealed = inner.sealed.iter().map(|segment| segment.shape.base_offset);
        sealed.chain([inner.active.shape.base_offset]).collect()
    }

    /// Index of the last entry of each segment, in order: where a head may be dropped.
    #[must_use]
    pub fn segment_last_indexes(&self) -> Vec<u64> {
        let inner = self.shared.inner.read();
        let sealed = inner.sealed.iter().map(|segment| segment.last_index);
        sealed.chain([inner.last_index()]).collect()
    }

    /// The term of an entry, or of the one before the first. Reads nothing.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        let inner = self.shared.inner.read();
        if index == inner.start.prev_index {
            return Some(inner.start.prev_term);
        }
        if index < inner.first_index() || index > inner.last_index() {
            return None;
        }
        inner.runs.term(index)
    }

    /// The leader epoch and end offset that answer Kafka's `OffsetForLeaderEpoch`, for a log that
    /// ends at `ceiling`; none where the epoch is newer than all or there is no data.
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: i32, ceiling: i64) -> Option<(i32, i64)> {
        end_offset_for_epoch(&self.shared.inner.read().runs.epochs(), epoch, ceiling)
    }

    /// The leader epoch that an offset of the log was written in.
    #[must_use]
    pub fn epoch_of_offset(&self, offset: i64) -> Option<i32> {
        let inner = self.shared.inner.read();
        if offset < inner.start.offset || offset >= inner.next_offset() {
            return None;
        }
        epoch_of_offset(&inner.runs.epochs(), offset)
    }

    /// What is known of an entry; none where it is not in the log.
    ///
    /// # Errors
    /// `BadBatch` where its record is bad; I/O errors.
    pub fn entry_meta(&self, index: u64) -> LogResult<Option<EntryMeta>> {
        let sealed = {
            let inner = self.shared.inner.read();
            if let Some(at) = inner.active.at(index) {
                let record = inner.active.records.get(at);
                return Ok(record.map(|record| EntryMeta::new(index, record)));
            }
            match inner.sealed_of_index(index) {
                Some(sealed) => Arc::clone(sealed),
                None => return Ok(None),
            }
        };
        match sealed.some_records(index, index + 1)?.pop().flatten() {
            Some(record) => Ok(Some(EntryMeta::new(index, &record))),
            None => Err(sealed.bad_record(index)).inspect_err(|error| self.note(error)),
        }
    }

    /// The next free offset behind an entry of the log, or behind the one before the first. Where the entry's
    /// record is bad, the next one's tells it.
    ///
    /// # Errors
    /// `NoSuchEntry`; `BadBatch` where neither can be read; I/O errors.
    pub fn offset_after(&self, index: u64) -> LogResult<i64> {
        {
            let inner = self.shared.inner.read();
            let (first, last) = (inner.first_index(), inner.last_index());
            if index == inner.start.prev_index {
                return Ok(inner.start.offset);
            }
            if index == last {
                return Ok(inner.next_offset());
            }
            if !(first..last).contains(&index) {
                return Err(LogError::NoSuchEntry { index, first, last });
            }
        }
        match self.entry_meta(index) {
            Ok(Some(meta)) => Ok(meta.next_offset()),
            Err(bad @ LogError::BadBatch { .. }) => match self.entry_meta(index + 1)? {
                Some(next) => Ok(next.base_offset),
                None => Err(bad),
            },
            Err(error) => Err(error),
            // It was dropped a moment ago.
            Ok(None) => Err(LogError::NoSuchEntry {
                index,
                first: self.first_index(),
                last: self.last_index(),
            }),
        }
    }

    /// Index of the entry that holds an offset; none where the log does not have it.
    ///
    /// # Errors
    /// `Damaged` where a record on the way is bad; I/O errors.
    pub fn index_of_offset(&self, offset: i64) -> LogResult<Option<u64>> {
        let sealed = {
            let inner = self.shared.inner.read();
            if offset < inner.start.offset || offset >= inner.next_offset() {
                return Ok(None);
            }
            match inner.sealed.get(inner.segment_of_offset(offset)) {
                Some(sealed) => Arc::clone(sealed),
                None => {
                    let active = &inner.active;
                    let index = active.shape.first_index + active.above(offset) as u64;
                    return Ok(Some(index));
                }
            }
        };
        sealed
            .search(|record| record.next_offset() > offset)
            .map(Some)
    }

    /// Entries `lo..hi`, at least one and no more than `max_bytes` of payload behind it. Every batch is
    /// verified; where one is not whole, the entries before it are the answer. Waits for the disk.
    ///
    /// # Errors
    /// `NoSuchEntry` where the log does not have all of them, `BadBatch` or `Damaged` where the first is
    /// not what was written.
    pub fn entries(&self, lo: u64, hi: u64, max_bytes: u64) -> LogResult<Vec<LogEntry>> {
        loop {
            match self.read_entries(lo, hi, max_bytes) {
                Err((files, error)) => {
                    // Whatever is wrong with files that the log has no more is nothing wrong with the log.
                    if files.is_none_or(|files| self.shared.inner.read().has(&files)) {
                        self.note(&error);
                        if error.is_of_one_place() {
                            self.note_unreadable(lo);
                        }
                        return Err(error);
                    }
                }
                Ok(entries) => return Ok(entries),
            }
        }
    }

    /// The same; an error with the files that it is about, where it is about any.
    fn read_entries(&self, lo: u64, hi: u64, max_bytes: u64) -> FilesResult<Vec<LogEntry>> {
        let mut entries = Vec::new();
        let mut left = max_bytes;
        let mut next = lo;
        while next < hi {
            let (files, records) = match self.records_at(next, hi) {
                Ok(found) => found,
                Err(_) if !entries.is_empty() => return Ok(entries),
                Err(error) => return Err(error),
            };
            let taken = within(&records, left, entries.is_empty());
            let wanted = records.get(..taken).unwrap_or_default();
            let run = match read_run(&files, next, wanted) {
                Ok(run) => run,
                Err(_) if !entries.is_empty() => return Ok(entries),
                Err(error) => return Err((Some(files), error)),
            };
            let mut at = 0;
            for (index, record) in (next..).zip(wanted.iter().take(run.entries)) {
                let payload = match record.kind {
                    EntryKind::Data => {
                        let begin = at;
                        at += record.len as usize;
                        run.bytes.slice(begin..at)
                    }
                    EntryKind::Conf | EntryKind::Command => {
                        match read_payload(&files, index, record) {
                            Ok(payload) => payload,
                            Err(_) if !entries.is_empty() => return Ok(entries),
                            Err(error) => return Err((Some(files), error)),
                        }
                    }
                    EntryKind::Noop | EntryKind::Hole => Bytes::new(),
                };
                left = left.saturating_sub(u64::from(record.len));
                entries.push(LogEntry {
                    index,
                    term: u64::from(record.term),
                    kind: record.kind,
                    base_offset: record.base_offset,
                    last_offset_delta: record.last_offset_delta,
                    payload,
                });
            }
            match run.bad {
                Some(_) if !entries.is_empty() => return Ok(entries),
                Some(bad) => return Err((Some(files), bad)),
                // The limit ended it, or a place that cannot be read.
                None if run.entries < records.len() => return Ok(entries),
                None => next += records.len() as u64,
            }
        }
        Ok(entries)
    }

    /// Records from `index` on, as many as are at hand in its segment; those before one that is bad.
    fn records_at(&self, index: u64, hi: u64) -> FilesResult<(Arc<Files>, Vec<Record>)> {
        let sealed = {
            let inner = self.shared.inner.read();
            let (first, last) = (inner.first_index(), inner.last_index());
            if index < first || hi > last + 1 {
                let index = if index < first { index } else { hi - 1 };
                return Err((None, LogError::NoSuchEntry { index, first, last }));
            }
            match inner.sealed_of_index(index) {
                Some(sealed) => Arc::clone(sealed),
                None => {
                    let active = &inner.active;
                    let from = active.at(index).unwrap_or(active.records.len());
                    let to = active.at(hi).unwrap_or(active.records.len());
                    let records = active.records.get(from..to).unwrap_or_default().to_vec();
                    return Ok((Arc::clone(&active.files), records));
                }
            }
        };
        let to = hi.min(sealed.last_index + 1).min(index + RECORDS_PER_READ);
        let about = |error| (Some(Arc::clone(&sealed.files)), error);
        let mut records = Vec::new();
        for record in sealed.some_records(index, to).map_err(about)? {
            let Some(record) = record else { break };
            records.push(record);
        }
        if records.is_empty() {
            return Err(about(sealed.bad_record(index)));
        }
        Ok((Arc::clone(&sealed.files), records))
    }
}

/// How many of the records have no more bytes together than there is room for, at least one if `first`.
fn within(records: &[Record], room: u64, first: bool) -> usize {
    let mut bytes = 0;
    for (count, record) in records.iter().enumerate() {
        bytes += u64::from(record.len);
        if bytes > room && (count > 0 || !first) {
            return count;
        }
    }
    records.len()
}

pub(super) fn read_payload(files: &Files, index: u64, record: &Record) -> LogResult<Bytes> {
    let file = files.open(SegmentFile::Aux, OpenMode::Existing)?;
    let position = u64::from(record.position);
    let mut item = vec![0; aux::ITEM_HEADER_LEN as usize + record.len as usize];
    let read = read_at(file, &mut item, position).and_then(|()| {
        if aux::decode(index, &item).is_some() {
            return Ok(());
        }
        read_past_cache(file, &mut item, position)
    });
    match aux::decode(index, &item).filter(|_| read.is_ok()) {
        Some(payload) => Ok(Bytes::copy_from_slice(payload)),
        None if read
            .as_ref()
            .is_err_and(|error| !files.is_given_up(index, error)) =>
        {
            read.map(|()| Bytes::new())
        }
        None => Err(LogError::BadBatch {
            path: file.path().clone(),
            position,
            index,
            first_offset: record.base_offset,
            next_offset: record.base_offset,
        }),
    }
}

const _: () = assert!(RECORD_LEN == 32);
