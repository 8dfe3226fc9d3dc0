//! What the writer of a log and its readers share: where each entry lies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, OpenMode};
use crate::format::SegmentFile;
use crate::format::index::{Indexes, TIME_ENTRY_LEN, TimeEntry};
use crate::format::sidecar::{RECORD_LEN, Record};
use crate::log::bad::BadEntry;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::{Files, read_at, read_past_cache, slice_at};
use crate::log::runs::TermRuns;
use crate::recovered::LogStart;

/// Where a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) base_offset: i64,
    pub(crate) first_index: u64,
    /// Bytes of the sidecar before its first record.
    pub(crate) header_len: u64,
}

impl Shape {
    /// Where the sidecar has the record of an index.
    pub(crate) fn record_position(&self, index: u64) -> u64 {
        self.header_len + (index - self.first_index) * RECORD_LEN as u64
    }
}

/// A segment that is not written any more.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) files: Arc<Files>,
    pub(crate) shape: Shape,
    pub(crate) last_index: u64,
    pub(crate) last_term: u64,
    pub(crate) next_offset: i64,
    /// Bytes of its `.log`.
    pub(crate) log_len: u64,
    /// The largest timestamp and the last offset of the batch that has it.
    pub(crate) max: OnceLock<Option<TimeEntry>>,
    /// Bytes of its indexes, once they were needed.
    pub(crate) index: OnceLock<Bytes>,
    pub(crate) time_index: OnceLock<Bytes>,
    /// That an index cannot be read was said.
    pub(crate) said: OnceLock<()>,
}

impl Sealed {
    pub(crate) fn new(
        files: Arc<Files>,
        shape: Shape,
        last: &Record,
        last_index: u64,
        log_len: u64,
    ) -> Self {
        Self {
            files,
            shape,
            last_index,
            last_term: u64::from(last.term),
            next_offset: last.next_offset(),
            log_len,
            max: OnceLock::new(),
            index: OnceLock::new(),
            time_index: OnceLock::new(),
            said: OnceLock::new(),
        }
    }

    /// The same segment where a file was exchanged for another.
    pub(crate) fn with(&self, files: Arc<Files>, exchanged: SegmentFile) -> Self {
        let is_time = exchanged == SegmentFile::TimeIndex;
        Self {
            files,
            shape: self.shape,
            last_index: self.last_index,
            last_term: self.last_term,
            next_offset: self.next_offset,
            log_len: self.log_len,
            max: if is_time {
                OnceLock::new()
            } else {
                self.max.clone()
            },
            index: if exchanged == SegmentFile::Index {
                OnceLock::new()
            } else {
                self.index.clone()
            },
            time_index: if is_time {
                OnceLock::new()
            } else {
                self.time_index.clone()
            },
            said: self.said.clone(),
        }
    }

    /// Reads records `from..to` of the sidecar.
    pub(crate) fn records(&self, from: u64, to: u64) -> LogResult<Vec<Record>> {
        let path = self.files.path(SegmentFile::Raft);
        (from..)
            .zip(self.some_records(from, to)?)
            .map(|(index, record)| {
                record.ok_or_else(|| {
                    let at = self.shape.record_position(index);
                    LogError::damaged(&path, at, "the record's checksum does not match")
                })
            })
            .collect()
    }

    /// The same, with none for each that is bad, also when it was read past the cache, or that counts as bad
    /// since the disk refuses to give it.
    pub(crate) fn some_records(&self, from: u64, to: u64) -> LogResult<Vec<Option<Record>>> {
        match self.read_records(from, to) {
            Err(error) if error.is_of_one_place() => (from..to)
                .map(|index| match self.read_records(index, index + 1) {
                    Ok(mut record) => Ok(record.pop().flatten()),
                    Err(error) if self.files.is_given_up(index, &error) => Ok(None),
                    Err(error) => Err(error),
                })
                .collect(),
            read => read,
        }
    }

    fn read_records(&self, from: u64, to: u64) -> LogResult<Vec<Option<Record>>> {
        let raft = self.files.raft()?;
        let count = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        let position = self.shape.record_position(from);
        let mut bytes = vec![0; count * RECORD_LEN];
        read_at(raft, &mut bytes, position)?;
        let (records, _) = bytes.as_chunks::<RECORD_LEN>();
        let mut read = Vec::with_capacity(count);
        for (index, bytes) in (from..).zip(records) {
            let record = match Record::decode(index, bytes) {
                Some(record) => Some(record),
                None => {
                    let mut again = [0; RECORD_LEN];
                    read_past_cache(raft, &mut again, self.shape.record_position(index))?;
                    Record::decode(index, &again)
                }
            };
            read.push(record);
        }
        Ok(read)
    }

    /// The error of an entry whose record is bad; which offsets it has, nothing here tells.
    pub(crate) fn bad_record(&self, index: u64) -> LogError {
        self.bad_record_of(index, self.shape.base_offset, self.next_offset)
    }

    /// The same where the offsets are known between which it lies.
    pub(crate) fn bad_record_of(
        &self,
        index: u64,
        first_offset: i64,
        next_offset: i64,
    ) -> LogError {
        LogError::BadBatch {
            path: self.files.path(SegmentFile::Raft),
            position: self.shape.record_position(index),
            index,
            first_offset,
            next_offset,
        }
    }

    /// The first index whose entry ends above an offset, or the first of the bad records right before it:
    /// whose offsets those were is not known. One above the last if there is none.
    pub(crate) fn index_above(&self, offset: i64) -> LogResult<u64> {
        let (mut low, mut high) = (self.shape.first_index, self.last_index + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut next = middle;
            let mut record = None;
            while next < high && record.is_none() {
                record = self.some_records(next, next + 1)?.pop().flatten();
                next += 1;
            }
            match record {
                Some(record) if record.next_offset() <= offset => low = next,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// The first index at or above `from` whose record satisfies `found`, which is false for none
    /// behind one for which it is true; one above the last if there is none.
    pub(crate) fn search(&self, mut found: impl FnMut(&Record) -> bool) -> LogResult<u64> {
        let (mut low, mut high) = (self.shape.first_index, self.last_index + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let hit = self
                .records(middle, middle + 1)?
                .first()
                .is_some_and(&mut found);
            if hit { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// The bytes of `.index`, where it can be read. What it says is checked against the batches it points at.
    pub(crate) fn index_bytes(&self) -> Option<&Bytes> {
        self.whole(SegmentFile::Index, &self.index)
    }

    /// The bytes of `.timeindex`, where it can be read.
    pub(crate) fn time_bytes(&self) -> Option<&Bytes> {
        self.whole(SegmentFile::TimeIndex, &self.time_index)
    }

    /// A whole index. One that cannot be read makes the way longer and no answer wrong, so it is said once and
    /// tried again by whoever comes next.
    fn whole<'a>(&self, file: SegmentFile, read: &'a OnceLock<Bytes>) -> Option<&'a Bytes> {
        if let Some(bytes) = read.get() {
            return Some(bytes);
        }
        let bytes = self.files.open(file, OpenMode::Existing).and_then(|open| {
            let len = open.len().at(open.path())?;
            slice_at(open, 0, usize::try_from(len).unwrap_or(usize::MAX))
        });
        match bytes {
            Ok(bytes) => Some(read.get_or_init(|| bytes)),
            Err(error) => {
                if self.said.set(()).is_ok() {
                    tracing::warn!(%error, "an index cannot be read: segments are searched without it");
                }
                None
            }
        }
    }

    /// The largest timestamp with the last offset of its batch: the last entry of the time index. None where
    /// that is not known.
    pub(crate) fn max_timestamp(&self) -> Option<TimeEntry> {
        if let Some(max) = self.max.get() {
            return *max;
        }
        let bytes = self.time_bytes()?;
        let at = bytes.len().checked_sub(TIME_ENTRY_LEN);
        let last = at.and_then(|at| bytes.get(at..)).map(TimeEntry::decode);
        *self.max.get_or_init(|| last)
    }
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) files: Arc<Files>,
    pub(crate) shape: Shape,
    /// One for each entry, as in the sidecar.
    pub(crate) records: Vec<Record>,
    pub(crate) log_len: u64,
    pub(crate) aux_len: u64,
    pub(crate) next_offset: i64,
    pub(crate) indexes: Indexes,
}

impl Active {
    pub(crate) fn last_index(&self) -> u64 {
        self.shape.first_index + self.records.len() as u64 - 1
    }

    /// Position in `records` of the first entry that ends above an offset.
    pub(crate) fn above(&self, offset: i64) -> usize {
        self.records
            .partition_point(|record| record.next_offset() <= offset)
    }

    /// Position in `records` of an index.
    pub(crate) fn at(&self, index: u64) -> Option<usize> {
        let at = usize::try_from(index.checked_sub(self.shape.first_index)?).ok()?;
        (at < self.records.len()).then_some(at)
    }
}

/// The segments and terms of a log.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) start: LogStart,
    /// In order, all before the active one.
    pub(crate) sealed: Vec<Arc<Sealed>>,
    pub(crate) active: Active,
    pub(crate) runs: TermRuns,
}

impl Inner {
    pub(crate) fn first_index(&self) -> u64 {
        self.start.prev_index + 1
    }

    /// The last entry; the one before the first if there is none.
    pub(crate) fn last_index(&self) -> u64 {
        self.active.last_index()
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.active.next_offset
    }

    /// The sealed segment that holds an index.
    pub(crate) fn sealed_of_index(&self, index: u64) -> Option<&Arc<Sealed>> {
        let at = self
            .sealed
            .partition_point(|segment| segment.last_index < index);
        self.sealed
            .get(at)
            .filter(|segment| segment.shape.first_index <= index)
    }

    /// Whether a segment of the log has these files.
    pub(crate) fn has(&self, files: &Arc<Files>) -> bool {
        Arc::ptr_eq(&self.active.files, files)
            || self.sealed.iter().any(|s| Arc::ptr_eq(&s.files, files))
    }

    /// Position among the sealed segments of the one that an offset lies in; their number for the
    /// active one.
    pub(crate) fn segment_of_offset(&self, offset: i64) -> usize {
        self.sealed
            .partition_point(|segment| segment.next_offset <= offset)
    }
}

/// The writer's side and the readers' side hold one each.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: Arc<PathBuf>,
    pub(crate) inner: RwLock<Inner>,
    /// Entries whose bytes at rest were found to be bad, by index.
    pub(crate) bad: Mutex<BTreeMap<u64, BadEntry>>,
    /// Entries that the disk refuses to give, by index, each with when that was met first.
    pub(crate) unreadable: Mutex<BTreeMap<u64, Duration>>,
    /// The bad entries that are written down beside the log, by index.
    pub(crate) remembered: Mutex<Vec<u64>>,
    /// Why what a dropped head said of producers is not known.
    pub(crate) lost: Mutex<Option<String>>,
}
