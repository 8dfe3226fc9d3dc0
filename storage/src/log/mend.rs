//! Putting right, in place, what is bad at rest: a segment's file is written anew beside the old one with the
//! bytes that another replica has, read back past the cache, and exchanged for it (R8).
//!
//! Nothing is taken on anybody's word. An entry has to be what this log knows of it: its sidecar record, or
//! where that is bad, its place between its neighbours.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{DiskFile, OpenMode};
use crate::entry::{EntryKind, LogEntry};
use crate::format::sidecar::Record;
use crate::format::{SegmentFile, TMP_SUFFIX, aux};
use crate::log::Log;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::{Files, remove};
use crate::log::reader::LogReader;
use crate::log::shared::{Sealed, Shape};
use crate::log::verified::is_whole;

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 1 << 20;
/// Good entries that end a run of bad ones.
const GOOD_BEHIND: usize = 16;
/// Room that is left on the disk besides the new file.
const ROOM_BYTES: u64 = 64 << 20;

/// An entry whose bytes at rest are bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEntry {
    /// Its Raft index.
    pub index: u64,
    /// Its first offset, or the first of the place where it lies.
    pub first_offset: i64,
    /// The offset behind it.
    pub next_offset: i64,
    /// When it was found, by the disk's clock.
    pub found: Duration,
}

/// A file of a segment with what was bad put right, beside the one that it is to take the place of.
#[derive(Debug)]
pub struct Mended {
    old: Arc<Files>,
    file: SegmentFile,
    aside: PathBuf,
    new: Arc<dyn DiskFile>,
    /// Bytes of the old file that are in the new one.
    len: u64,
    /// The entries that are put right by it.
    indexes: Vec<u64>,
}

/// Bytes for one place of a file.
type Patch = (u64, Vec<u8>);

/// The segment that entries lie in, as it is when it is looked at.
#[derive(Debug)]
struct Place {
    files: Arc<Files>,
    shape: Shape,
    sealed: Option<Arc<Sealed>>,
    /// The records of the active segment.
    active: Vec<Record>,
    last_index: u64,
    next_offset: i64,
    log_len: u64,
}

impl LogReader {
    /// The entries that were found to be bad and have not been put right. Those that the log has no more
    /// are forgotten.
    #[must_use]
    pub fn bad_entries(&self) -> Vec<BadEntry> {
        let (first, last) = (self.first_index(), self.last_index());
        let mut bad = self.shared.bad.lock();
        bad.retain(|index, _| (first..=last).contains(index));
        bad.values().copied().collect()
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_marred(&self) -> bool {
        !self.shared.bad.lock().is_empty()
    }

    /// How long ago an entry was found to be bad.
    #[must_use]
    pub fn bad_for(&self, index: u64) -> Option<Duration> {
        let found = self.shared.bad.lock().get(&index)?.found;
        Some(self.shared.disk.now().saturating_sub(found))
    }

    /// Notes what an error says of an entry.
    pub(super) fn note(&self, error: &LogError) {
        let LogError::BadBatch {
            index,
            first_offset,
            next_offset,
            ..
        } = error
        else {
            return;
        };
        let entry = BadEntry {
            index: *index,
            first_offset: *first_offset,
            next_offset: *next_offset,
            found: self.shared.disk.now(),
        };
        self.shared.bad.lock().entry(*index).or_insert(entry);
    }

    /// Notes entries that an opening found to be bad.
    pub(super) fn note_bad(&self, indexes: &[u64]) {
        for index in indexes {
            let offset = self.log_start_offset();
            let meta = self.entry_meta(*index);
            let (first, next) = meta.map_or((offset, offset), |meta| {
                (meta.base_offset, meta.next_offset())
            });
            let entry = BadEntry {
                index: *index,
                first_offset: first,
                next_offset: next,
                found: self.shared.disk.now(),
            };
            self.shared.bad.lock().insert(*index, entry);
        }
    }

    /// Reads an entry again; where it is whole, it is bad no more.
    ///
    /// # Errors
    /// As [`LogReader::entries`].
    pub fn verify(&self, index: u64) -> LogResult<()> {
        self.entries(index, index + 1, u64::MAX)?;
        self.shared.bad.lock().remove(&index);
        Ok(())
    }

    /// The bad entries of one segment from `index` on, `most` at most, as far as they lie close to each
    /// other. Waits for the disk.
    ///
    /// # Errors
    /// I/O errors, and `NoSuchEntry` where the log does not have the first.
    pub fn bad_run(&self, index: u64, most: usize) -> LogResult<Vec<u64>> {
        let last = self.place(index)?.last_index;
        let (mut bad, mut good) = (Vec::new(), 0);
        for index in index..=last {
            match self.verify(index) {
                Ok(()) => good += 1,
                Err(LogError::BadBatch { .. }) => {
                    good = 0;
                    bad.push(index);
                }
                Err(error) => return Err(error),
            }
            if good > GOOD_BEHIND || bad.len() >= most {
                break;
            }
        }
        Ok(bad)
    }

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
                mended.push(self.write_anew(&place, file, patches, &indexes)?);
            }
        }
        Ok(mended)
    }

    fn place(&self, index: u64) -> LogResult<Place> {
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

    fn write_anew(
        &self,
        place: &Place,
        file: SegmentFile,
        mut patches: Vec<Patch>,
        indexes: &[u64],
    ) -> LogResult<Mended> {
        let disk = &self.shared.disk;
        let old = place.files.open(file, OpenMode::Existing)?;
        let len = match file {
            SegmentFile::Log => place.log_len,
            _ => old.len().at(old.path())?,
        };
        let free = disk.free_bytes(&self.shared.dir).at(&self.shared.dir)?;
        if free < len.saturating_add(ROOM_BYTES) {
            return Err(LogError::NoRoom {
                path: old.path().clone(),
                bytes: len,
            });
        }
        let mut name = old.path().as_os_str().to_owned();
        name.push(TMP_SUFFIX);
        let aside = PathBuf::from(name);
        remove(disk, &aside)?;
        patches.sort_by_key(|(at, _)| *at);
        let written = disk
            .open(&aside, OpenMode::CreateNew)
            .at(&aside)
            .and_then(|new| {
                let sum = copy(old, &new, (0, len), &patches).at(old.path())?;
                new.sync_data().at(&aside)?;
                if sum_of(&new, len).at(&aside)? != sum {
                    return Err(LogError::damaged(&aside, 0, "not what was written to it"));
                }
                Ok(new)
            });
        match written {
            Ok(new) => Ok(Mended {
                old: Arc::clone(&place.files),
                file,
                aside,
                new,
                len,
                indexes: indexes.to_vec(),
            }),
            Err(error) => {
                // The first error is the one to report.
                let _ = remove(disk, &aside);
                Err(error)
            }
        }
    }
}

impl Place {
    /// The record of an entry; none where it is bad.
    fn record(&self, index: u64) -> LogResult<Option<Record>> {
        if index < self.shape.first_index || index > self.last_index {
            return Err(LogError::Unfit { index });
        }
        match &self.sealed {
            Some(sealed) => Ok(sealed.some_records(index, index + 1)?.pop().flatten()),
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

/// Copies bytes `from..to` with patches in their places; gives the checksum of what was written.
fn copy(
    old: &Arc<dyn DiskFile>,
    new: &Arc<dyn DiskFile>,
    (from, to): (u64, u64),
    patches: &[Patch],
) -> std::io::Result<u32> {
    let mut at = from;
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = Vec::new();
    while at < to {
        let part = COPY_BYTES.min(to - at);
        buffer.resize(usize::try_from(part).map_err(std::io::Error::other)?, 0);
        old.read_exact_at(&mut buffer, at)?;
        for (position, bytes) in patches {
            let end = position + bytes.len() as u64;
            let (low, high) = ((*position).max(at), end.min(at + part));
            if low >= high {
                continue;
            }
            let narrow = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let into = buffer.get_mut(narrow(low - at)..narrow(high - at));
            let out_of = bytes.get(narrow(low - position)..narrow(high - position));
            if let (Some(into), Some(out_of)) = (into, out_of) {
                into.copy_from_slice(out_of);
            }
        }
        sum.update(&buffer);
        new.write_all_at(&[IoSlice::new(&buffer)], at)?;
        at += part;
    }
    Ok(sum.finalize())
}

/// The checksum of what the disk has, read past the cache.
fn sum_of(file: &Arc<dyn DiskFile>, len: u64) -> std::io::Result<u32> {
    let mut at = 0;
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = Vec::new();
    while at < len {
        let part = COPY_BYTES.min(len - at);
        buffer.resize(usize::try_from(part).map_err(std::io::Error::other)?, 0);
        file.read_past_cache(&mut buffer, at)?;
        sum.update(&buffer);
        at += part;
    }
    Ok(sum.finalize())
}

impl Log {
    /// Puts a file that was written anew into its place, durably. Slices of the old one live on. False
    /// where the log has that segment's old files no more, and nothing was done.
    ///
    /// # Errors
    /// I/O errors. The log is poisoned where nobody knows which file has the name after a crash.
    pub fn exchange(&mut self, mended: Mended) -> LogResult<bool> {
        self.sync.check()?;
        let (disk, dir) = (Arc::clone(&self.shared.disk), Arc::clone(&self.shared.dir));
        let Mended {
            old,
            file,
            aside,
            new,
            len,
            indexes,
        } = mended;
        let (sealed_at, active_len) = {
            let inner = self.shared.inner.read();
            let is_old = |sealed: &Arc<Sealed>| Arc::ptr_eq(&sealed.files, &old);
            let active = Arc::ptr_eq(&inner.active.files, &old);
            (
                inner.sealed.iter().position(is_old),
                active.then_some(inner.active.log_len),
            )
        };
        if sealed_at.is_none() && (active_len.is_none() || file == SegmentFile::Raft) {
            remove(&disk, &aside)?;
            return Ok(false);
        }
        if let (Some(now), SegmentFile::Log) = (active_len, file)
            && now > len
        {
            // What was appended meanwhile: the writer waits for no more than this.
            let from = old.log()?;
            let copied = copy(from, &new, (len, now), &[]).and_then(|_| new.sync_data());
            if let Err(error) = copied {
                let _ = remove(&disk, &aside);
                return Err(error).at(&aside);
            }
        }
        let path = old.path(file);
        if let Err(error) = disk.rename(&aside, &path) {
            let _ = remove(&disk, &aside);
            return Err(error).at(&path);
        }
        if let Err(error) = disk.sync_dir(&dir) {
            self.sync.poison();
            return Err(error).at(&dir);
        }
        let files = Arc::new(old.without(file));
        self.sync.exchanged(&files);
        {
            let mut inner = self.shared.inner.write();
            match sealed_at.and_then(|at| inner.sealed.get_mut(at)) {
                Some(sealed) => *sealed = Arc::new(sealed.with(files)),
                None => inner.active.files = files,
            }
        }
        if active_len.is_some() && file == SegmentFile::Log {
            self.reserved = active_len.unwrap_or(0);
        }
        let mut bad = self.shared.bad.lock();
        for index in indexes {
            bad.remove(&index);
        }
        Ok(true)
    }
}
