//! Putting right, in place, what is bad at rest: a segment's file is written anew beside the old one with the
//! bytes that another replica has, read back past the cache, and exchanged for it (R8).
//!
//! Nothing is taken on anybody's word. An entry has to be what this log knows of it: its sidecar record, or
//! where that is bad, its place between its neighbours.

use std::sync::Arc;

use crate::disk::OpenMode;
use crate::entry::{EntryKind, LogEntry};
use crate::format::sidecar::Record;
use crate::format::{SegmentFile, aux};
use crate::log::at_rest;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::exchange::Mended;
use crate::log::files::Files;
use crate::log::reader::LogReader;
use crate::log::shared::{Sealed, Shape};
use crate::log::verified::is_whole;

/// The segment that entries lie in, as it is when it is looked at.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) files: Arc<Files>,
    pub(super) shape: Shape,
    pub(super) sealed: Option<Arc<Sealed>>,
    /// The records of the active segment.
    active: Vec<Record>,
    pub(super) last_index: u64,
    next_offset: i64,
    log_len: u64,
}

impl LogReader {
    /// Writes the files of the segment that entries lie in anew, with these in the place of what is bad.
    /// The entries follow each other in order, perhaps with gaps. [`Log::exchange`] puts the files into
    /// their place. Waits for the disk.
    ///
    /// # Errors
    /// `Unfit` where an entry is not the one that belongs there, `Full`, and I/O errors.
    pub fn mend(&self, entries: &[LogEntry]) -> LogResult<Vec<Mended>> {
        let Some(first) = entries.first() else {
            return Ok(Vec::new());
        };
        let place = self.place(first.index)?;
        let (mut log, mut raft, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
        let mut made: Vec<(u64, Record)> = Vec::new();
        for entry in entries {
            let known = place.record(entry.index)?;
            let record = match known {
                Some(record) => record,
                None => {
                    let record = place.record_between(entry, &made)?;
                    let at = place.shape.record_position(entry.index);
                    raft.push((at, record.encode(entry.index).to_vec()));
                    made.push((entry.index, record));
                    record
                }
            };
            if !fits(&record, entry) {
                return Err(LogError::Unfit { index: entry.index });
            }
            match entry.kind {
                EntryKind::Data => {
                    log.push((u64::from(record.position), entry.payload.to_vec()));
                }
                EntryKind::Conf | EntryKind::Command => {
                    let mut item = Vec::new();
                    aux::encode_into(&mut item, entry.index, &entry.payload);
                    payloads.push((u64::from(record.position), item));
                }
                EntryKind::Noop | EntryKind::Hole => {}
            }
        }
        let indexes: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
        let mut mended = Vec::new();
        // The records first: without them nobody finds the batches.
        for (file, patches) in [
            (SegmentFile::Raft, raft),
            (SegmentFile::Aux, payloads),
            (SegmentFile::Log, log),
        ] {
            if !patches.is_empty() {
                let len = match file {
                    SegmentFile::Log => place.log_len,
                    _ => {
                        let old = place.files.open(file, OpenMode::Existing)?;
                        old.len().at(old.path())?
                    }
                };
                mended.push(self.patched(&place.files, (file, len), patches, &indexes)?);
            }
        }
        Ok(mended)
    }

    pub(super) fn place(&self, index: u64) -> LogResult<Place> {
        let inner = self.shared.inner.read();
        if let Some(sealed) = inner.sealed_of_index(index) {
            return Ok(Place {
                files: Arc::clone(&sealed.files),
                shape: sealed.shape,
                sealed: Some(Arc::clone(sealed)),
                active: Vec::new(),
                last_index: sealed.last_index,
                next_offset: sealed.next_offset,
                log_len: sealed.log_len,
            });
        }
        let active = &inner.active;
        if active.at(index).is_none() {
            return Err(LogError::NoSuchEntry {
                index,
                first: inner.first_index(),
                last: inner.last_index(),
            });
        }
        Ok(Place {
            files: Arc::clone(&active.files),
            shape: active.shape,
            sealed: None,
            active: active.records.clone(),
            last_index: active.last_index(),
            next_offset: active.next_offset,
            log_len: active.log_len,
        })
    }
}

impl Place {
    /// The record of an entry; none where it is bad.
    pub(super) fn record(&self, index: u64) -> LogResult<Option<Record>> {
        if index < self.shape.first_index || index > self.last_index {
            return Err(LogError::Unfit { index });
        }
        match &self.sealed {
            Some(sealed) => {
                let found = at_rest::records(&sealed.files, &sealed.shape, index, index + 1)?;
                Ok(found.records.first().copied().flatten())
            }
            None => {
                let at = usize::try_from(index - self.shape.first_index).unwrap_or(usize::MAX);
                Ok(self.active.get(at).copied())
            }
        }
    }

    /// The record of an entry whose own is bad, as its neighbours tell it.
    fn record_between(&self, entry: &LogEntry, made: &[(u64, Record)]) -> LogResult<Record> {
        let unfit = || LogError::Unfit { index: entry.index };
        let known = |index: u64| -> LogResult<Option<Record>> {
            match made.iter().find(|(of, _)| *of == index) {
                Some((_, record)) => Ok(Some(*record)),
                None => self.record(index),
            }
        };
        let mut before = None;
        let (mut log_end, mut aux_end) = (None, None);
        let mut index = entry.index;
        while index > self.shape.first_index && (log_end.is_none() || aux_end.is_none()) {
            index -= 1;
            let record = known(index)?.ok_or_else(unfit)?;
            before = before.or(Some(record));
            match record.kind {
                EntryKind::Data => log_end = log_end.or(Some(record.end())),
                EntryKind::Conf | EntryKind::Command => {
                    let end = record.end() + u64::from(aux::ITEM_HEADER_LEN);
                    aux_end = aux_end.or(Some(end));
                }
                EntryKind::Noop | EntryKind::Hole => {}
            }
        }
        let begins = before.map_or(self.shape.base_offset, |record| record.next_offset());
        let log_end = log_end.unwrap_or(0);
        let position = match entry.kind {
            EntryKind::Data | EntryKind::Hole => log_end,
            EntryKind::Conf | EntryKind::Command => aux_end.unwrap_or(u64::from(aux::HEADER_LEN)),
            EntryKind::Noop => 0,
        };
        let narrow = |number: u64| u32::try_from(number).map_err(|_| unfit());
        let record = Record {
            base_offset: entry.base_offset,
            term: narrow(entry.term)?,
            position: narrow(position)?,
            len: narrow(entry.payload.len() as u64)?,
            last_offset_delta: entry.last_offset_delta,
            kind: entry.kind,
        };
        let mut ends = self.next_offset;
        let mut latest = u32::MAX;
        let mut log_ends = self.log_len;
        if entry.index < self.last_index {
            // Where the next one is bad too, what it will be made of has to fit in its turn.
            if let Some(next) = known(entry.index + 1)? {
                ends = next.base_offset;
                latest = next.term;
                if next.kind == EntryKind::Data {
                    log_ends = u64::from(next.position);
                }
            } else {
                ends = record.next_offset();
            }
        }
        let is_data = entry.kind == EntryKind::Data;
        let fits = record.base_offset == begins
            && record.next_offset() == ends
            && before.is_none_or(|before| before.term <= record.term)
            && record.term <= latest
            && (!is_data || record.end() <= log_ends);
        if fits { Ok(record) } else { Err(unfit()) }
    }
}

/// Whether an entry is the one that a record speaks of.
fn fits(record: &Record, entry: &LogEntry) -> bool {
    u64::from(record.term) == entry.term
        && record.kind == entry.kind
        && record.base_offset == entry.base_offset
        && record.last_offset_delta == entry.last_offset_delta
        && record.len as usize == entry.payload.len()
        && (entry.kind != EntryKind::Data || is_whole(record, &entry.payload))
}
