//! Appending: one `pwritev` per file and segment, however many entries there are.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use riverrun_record::BatchView;

use crate::disk::OpenMode;
use crate::entry::{EntryKind, LogEntry};
use crate::format::SegmentFile;
use crate::format::aux;
use crate::format::index::{IndexedBatch, OFFSET_ENTRY_LEN, TIME_ENTRY_LEN};
use crate::format::sidecar::{RECORD_LEN, Record};
use crate::log::Log;
use crate::log::config::LogConfig;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::segment::{Spec, reservation, reserve_first};
use crate::log::shared::{Active, Sealed};
use crate::log::trust::Span;
use crate::recovered::LogStart;

/// Index entries that may wait in memory: a write for each would cost more than they are worth, and
/// what a crash loses of them is made again.
const MAX_UNWRITTEN_INDEX_ENTRIES: usize = 64;

/// What an append did beside appending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// Base offsets of the segments that were begun.
    pub rolled: Vec<i64>,
}

/// Entries of the active segment's indexes that are in their files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct IndexedSoFar {
    pub(super) offset: usize,
    pub(super) time: usize,
}

/// Entries that go to one segment together.
#[derive(Debug)]
struct Chunk<'a> {
    slices: Vec<IoSlice<'a>>,
    sidecar: Vec<u8>,
    aux: Vec<u8>,
    records: Vec<Record>,
    batches: Vec<IndexedBatch>,
    first_index: u64,
    base_offset: i64,
    log_len: u64,
    aux_len: u64,
    next_offset: i64,
    first_timestamp: Option<i64>,
    indexes_full: bool,
}

impl<'a> Chunk<'a> {
    fn new(active: &Active, config: &LogConfig) -> Self {
        let max_bytes = config.index_max_bytes as usize;
        Self {
            slices: Vec::new(),
            sidecar: Vec::new(),
            aux: Vec::new(),
            records: Vec::new(),
            batches: Vec::new(),
            first_index: active.last_index() + 1,
            base_offset: active.shape.base_offset,
            log_len: active.log_len,
            aux_len: active.aux_len,
            next_offset: active.next_offset,
            first_timestamp: active.indexes.first_timestamp,
            indexes_full: active.indexes.offset.len() * OFFSET_ENTRY_LEN >= max_bytes
                || (active.indexes.time.len() + 1) * TIME_ENTRY_LEN >= max_bytes,
        }
    }

    /// Whether the entry belongs to a new segment. Only one that moves the offset ever begins one,
    /// so that segments have different base offsets, and recovery knows that a non-data entry
    /// between two segments belongs to the first of them.
    fn must_roll(&self, entry: &LogEntry, max_timestamp: i64, config: &LogConfig) -> bool {
        if !entry.kind.moves_offset() || self.next_offset == self.base_offset {
            return false;
        }
        let len = entry.payload.len() as u64;
        let last_offset = entry.base_offset + i64::from(entry.last_offset_delta);
        self.indexes_full
            || (self.log_len > 0 && self.log_len + len > config.segment_bytes)
            || last_offset - self.base_offset > i64::from(i32::MAX)
            || self
                .first_timestamp
                .is_some_and(|first| max_timestamp.saturating_sub(first) > config.segment_ms)
    }

    fn push(&mut self, entry: &'a LogEntry, max_timestamp: i64) {
        let narrow = |number: u64| {
            u32::try_from(number).unwrap_or_else(|_| panic!("{number} is not a place in a segment"))
        };
        let len = narrow(entry.payload.len() as u64);
        let mut record = Record {
            base_offset: entry.base_offset,
            term: narrow(entry.term),
            position: 0,
            len,
            last_offset_delta: entry.last_offset_delta,
            kind: entry.kind,
        };
        match entry.kind {
            EntryKind::Data => {
                record.position = narrow(self.log_len);
                self.batches.push(IndexedBatch {
                    last_offset: record.last_offset(),
                    max_timestamp,
                    position: record.position,
                    len,
                });
                if self.first_timestamp.is_none() && max_timestamp >= 0 {
                    self.first_timestamp = Some(max_timestamp);
                }
                self.slices.push(IoSlice::new(&entry.payload));
                self.log_len += u64::from(len);
            }
            EntryKind::Conf | EntryKind::Command => {
                if self.aux_len == 0 {
                    self.aux.extend_from_slice(&aux::header());
                    self.aux_len = u64::from(aux::HEADER_LEN);
                }
                record.position = narrow(self.aux_len);
                aux::encode_into(&mut self.aux, entry.index, &entry.payload);
                self.aux_len += u64::from(aux::ITEM_HEADER_LEN) + u64::from(len);
            }
            EntryKind::Noop => {}
            EntryKind::Hole => record.position = narrow(self.log_len),
        }
        self.sidecar.extend_from_slice(&record.encode(entry.index));
        self.next_offset = record.next_offset();
        self.records.push(record);
    }
}

/// The largest timestamp of a data entry's batch, with I1 asserted: the entry is exactly one batch,
/// stamped with its term and offset.
fn check_entry(entry: &LogEntry, next_index: u64, next_offset: i64) -> i64 {
    assert_eq!(entry.index, next_index, "I2: indexes are dense");
    assert_eq!(
        entry.base_offset, next_offset,
        "I1: base offset is the next offset"
    );
    match entry.kind {
        EntryKind::Data => {
            let batch = BatchView::parse(&entry.payload)
                .unwrap_or_else(|error| panic!("I1: a data entry is a batch: {error}"));
            assert_eq!(
                batch.total_len(),
                entry.payload.len(),
                "I1: one batch in a data entry"
            );
            assert_eq!(
                batch.base_offset(),
                entry.base_offset,
                "I1: stamped with its offset"
            );
            assert_eq!(
                u64::try_from(batch.leader_epoch()).ok(),
                Some(entry.term),
                "I1: stamped with its term"
            );
            assert_eq!(
                u32::try_from(batch.last_offset_delta()).ok(),
                Some(entry.last_offset_delta),
                "I1: the entry has the batch's offsets"
            );
            batch.max_timestamp()
        }
        EntryKind::Noop | EntryKind::Hole => {
            assert!(entry.payload.is_empty(), "no-ops and holes have no bytes");
            -1
        }
        EntryKind::Conf | EntryKind::Command => -1,
    }
}

impl Log {
    /// Appends entries: written to the page cache, durable with the next flush. A segment is ended
    /// before an entry that would make it too long or that is too much younger than its first.
    ///
    /// # Errors
    /// `Full` when there is no room: the entries up to the index it names are in. Anything else
    /// poisons the log.
    ///
    /// # Panics
    /// When the entries break I1 or I2.
    pub fn append(&mut self, entries: &[LogEntry]) -> LogResult<Appended> {
        self.sync.check()?;
        let mut appended = Appended::default();
        let mut chunk = Chunk::new(&self.shared.inner.read().active, &self.config);
        for (next_index, entry) in (chunk.first_index..).zip(entries) {
            let max_timestamp = check_entry(entry, next_index, chunk.next_offset);
            if chunk.must_roll(entry, max_timestamp, &self.config) {
                self.write(chunk)?;
                self.roll()?;
                appended.rolled.push(entry.base_offset);
                chunk = Chunk::new(&self.shared.inner.read().active, &self.config);
            }
            chunk.push(entry, max_timestamp);
        }
        self.write(chunk)?;
        Ok(appended)
    }

    fn write(&mut self, chunk: Chunk<'_>) -> LogResult<()> {
        if chunk.records.is_empty() {
            return Ok(());
        }
        let files = Arc::clone(&self.shared.inner.read().active.files);
        if let Err(error) = self.write_files(&files, &chunk) {
            return Err(self.take_back(error));
        }
        self.sync.wrote_sidecar(&files);
        let unwritten = {
            let mut inner = self.shared.inner.write();
            for (index, record) in (chunk.first_index..).zip(&chunk.records) {
                inner
                    .runs
                    .push(index, u64::from(record.term), record.base_offset);
            }
            let active = &mut inner.active;
            let first = chunk.records.iter().find(|r| r.kind == EntryKind::Data);
            if let Some(first) = first {
                files.trust.add(Span {
                    from: active.log_len,
                    to: chunk.log_len,
                    first_offset: first.base_offset,
                    next_offset: chunk.next_offset,
                    at: files.now(),
                });
            }
            active.records.extend_from_slice(&chunk.records);
            active.log_len = chunk.log_len;
            active.aux_len = chunk.aux_len;
            active.next_offset = chunk.next_offset;
            for batch in &chunk.batches {
                active.indexes.add(*batch, self.config.index_interval_bytes);
            }
            active.indexes.offset.len() - self.indexed.offset
        };
        if unwritten >= MAX_UNWRITTEN_INDEX_ENTRIES {
            self.write_indexes()
        } else {
            Ok(())
        }
    }

    fn write_files(
        &mut self,
        files: &Arc<crate::log::files::Files>,
        chunk: &Chunk<'_>,
    ) -> LogResult<()> {
        let (log_len, aux_len, sidecar_at) = {
            let active = &self.shared.inner.read().active;
            let shape = active.shape;
            (
                active.log_len,
                active.aux_len,
                shape.record_position(chunk.first_index),
            )
        };
        if !chunk.slices.is_empty() {
            let log = files.log()?;
            if self.config.preallocate && chunk.log_len > self.reserved {
                let reserve = reservation(&self.config, self.reserved, chunk.log_len);
                log.reserve(reserve).at(log.path())?;
                self.reserved = reserve;
            }
            self.sync.wrote_log(files);
            log.write_all_at(&chunk.slices, log_len).at(log.path())?;
        }
        if !chunk.aux.is_empty() {
            let file = if aux_len == 0 {
                self.sync.named();
                files.create(SegmentFile::Aux)?
            } else {
                files.open(SegmentFile::Aux, OpenMode::Existing)?
            };
            file.write_all_at(&[IoSlice::new(&chunk.aux)], aux_len)
                .at(file.path())?;
        }
        let raft = files.raft()?;
        raft.write_all_at(&[IoSlice::new(&chunk.sidecar)], sidecar_at)
            .at(raft.path())
    }

    /// After a write that failed: where only room was missing, what was half written is cut off
    /// again and the log stays usable; otherwise it is poisoned.
    fn take_back(&mut self, error: LogError) -> LogError {
        let LogError::Io { path, source } = &error else {
            self.sync.poison();
            return error;
        };
        if source.kind() != ErrorKind::StorageFull {
            self.sync.poison();
            return error;
        }
        let (files, log_len, sidecar_len, last_index) = {
            let inner = self.shared.inner.read();
            let active = &inner.active;
            let records = (active.records.len() * RECORD_LEN) as u64;
            let sidecar_len = active.shape.header_len + records;
            (
                Arc::clone(&active.files),
                active.log_len,
                sidecar_len,
                inner.last_index(),
            )
        };
        // Nothing above these lengths was ever shown to a reader.
        let cut = files
            .log()
            .and_then(|log| log.set_len(log_len).at(log.path()))
            .and_then(|()| files.raft())
            .and_then(|raft| raft.set_len(sidecar_len).at(raft.path()));
        self.reserved = log_len;
        if let Err(error) = cut {
            self.sync.poison();
            return error;
        }
        LogError::Full {
            path: path.clone(),
            last_index,
        }
    }

    /// Ends the active segment and begins the next.
    fn roll(&mut self) -> LogResult<()> {
        let sealed = {
            let mut inner = self.shared.inner.write();
            inner.active.indexes.seal();
            Arc::clone(&inner.active.files)
        };
        let begun = self.write_indexes().and_then(|()| {
            let inner = self.shared.inner.read();
            let start = LogStart {
                prev_index: inner.last_index(),
                prev_term: inner.runs.last_term().unwrap_or(inner.start.prev_term),
                offset: inner.next_offset(),
            };
            let spec = Spec {
                disk: &self.shared.disk,
                dir: &self.shared.dir,
                identity: &self.identity,
                birth: self.birth,
                conf: &self.conf,
            };
            let active = spec.create(start, self.sync.durable_segment())?;
            let reserved = reserve_first(&active, &self.config)?;
            Ok((active, reserved))
        });
        let (active, reserved) = begun.map_err(|error| self.take_back(error))?;
        self.sync.sealed(&sealed);
        self.sync.wrote_log(&active.files);
        self.sync.wrote_sidecar(&active.files);
        let old_len = {
            let mut inner = self.shared.inner.write();
            let old = std::mem::replace(&mut inner.active, active);
            let last_index = old.last_index();
            let old_len = old.log_len;
            let max = Some(old.indexes.max).filter(|max| max.timestamp >= 0);
            if let Some(last) = old.records.last() {
                let segment = Sealed::new(old.files, old.shape, last, last_index, old.log_len);
                segment.max.get_or_init(|| max);
                inner.sealed.push(Arc::new(segment));
            }
            old_len
        };
        if self.config.preallocate && self.reserved > old_len {
            // Gives back the blocks that were reserved beyond the end.
            let log = sealed.log()?;
            if let Err(error) = log.set_len(old_len).at(log.path()) {
                self.sync.poison();
                return Err(error);
            }
        }
        self.reserved = reserved;
        self.indexed = IndexedSoFar::default();
        self.write_leader_epochs_if_room()
    }

    /// Writes Kafka's leader epochs. Where there is no room its tools will see an older one.
    pub(super) fn write_leader_epochs_if_room(&mut self) -> LogResult<()> {
        self.write_leader_epochs()
            .or_else(|error| match self.take_back(error) {
                LogError::Full { .. } => Ok(()),
                error => Err(error),
            })
    }

    /// Writes the entries of the active indexes that are not in their files yet.
    pub(super) fn write_indexes(&mut self) -> LogResult<()> {
        let (files, offset_bytes, time_bytes, now) = {
            let active = &self.shared.inner.read().active;
            let indexes = &active.indexes;
            let now = IndexedSoFar {
                offset: indexes.offset.len(),
                time: indexes.time.len(),
            };
            (
                Arc::clone(&active.files),
                indexes.offset_bytes(self.indexed.offset),
                indexes.time_bytes(self.indexed.time),
                now,
            )
        };
        let parts = [
            (
                SegmentFile::Index,
                offset_bytes,
                self.indexed.offset * OFFSET_ENTRY_LEN,
            ),
            (
                SegmentFile::TimeIndex,
                time_bytes,
                self.indexed.time * TIME_ENTRY_LEN,
            ),
        ];
        for (which, bytes, at) in parts {
            if !bytes.is_empty() {
                let file = files.open(which, OpenMode::Existing)?;
                file.write_all_at(&[IoSlice::new(&bytes)], at as u64)
                    .at(file.path())?;
            }
        }
        self.indexed = now;
        Ok(())
    }
}
