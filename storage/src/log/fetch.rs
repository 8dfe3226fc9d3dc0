//! Reading batches by their offset.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::{HEADER_LEN, batches};

use crate::disk::{DiskFile, OpenMode};
use crate::entry::EntryKind;
use crate::format::SegmentFile;
use crate::format::index::{OFFSET_ENTRY_LEN, OffsetEntry, partition_entries};
use crate::format::sidecar::Record;
use crate::log::error::{LogError, LogResult};
use crate::log::files::{Files, slice_at};
use crate::log::reader::LogReader;
use crate::log::shared::{Active, Inner, Sealed};
use crate::log::trust::Span;
use crate::log::verified::read_run;

/// Records of a sealed segment's sidecar that are read at once.
const RECORDS_AT_ONCE: u64 = 256;

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

/// What a read that must not wait does about bytes that are not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// It touches them: they were written a moment ago.
    Touch,
    /// It ends there.
    InMemory,
}

/// Bytes that are asked about at once.
const LEAST_WINDOW_BYTES: u64 = 64 << 10;
const MOST_WINDOW_BYTES: u64 = 1 << 20;

/// How far into a file its bytes may be touched.
#[derive(Debug)]
struct Frontier<'a> {
    pages: Pages,
    files: &'a Files,
    file: &'a Arc<dyn DiskFile>,
    /// Everything that was asked for below this may be touched.
    to: u64,
    /// Where the part ends that is ever touched.
    end: u64,
    window: u64,
}

impl<'a> Frontier<'a> {
    fn new(pages: Pages, files: &'a Files, end: u64, wanted_bytes: usize) -> LogResult<Self> {
        let window = (wanted_bytes as u64).clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES);
        Ok(Self {
            pages,
            files,
            file: files.log()?,
            to: 0,
            end,
            window,
        })
    }

    /// Whether `from..to` may be touched; from one call to the next `from` never goes back.
    fn reaches(&mut self, from: u64, to: u64) -> bool {
        if to <= self.to || self.pages == Pages::Touch {
            return true;
        }
        let start = self.to.max(from);
        let len = (to - start).max(self.window.min(self.end.saturating_sub(start)));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.to = start + self.file.resident(start, len) as u64;
        if to > self.to {
            // Whoever brings it back may not look at it (X1).
            self.files.trust.forget(self.to, to);
        }
        to <= self.to
    }
}

impl LogReader {
    /// Whole batches from the one that holds `offset` on, all of them below the offset `ceiling`:
    /// no more than `max_bytes`, but the first one whatever its size if `at_least_one`. Bytes that this
    /// process has not written or verified lately are verified; the answer ends before a batch that is
    /// not whole. Waits for the disk.
    ///
    /// # Errors
    /// `OutOfRange` where the log does not have the offset and does not end at it, `BadBatch` where the
    /// first batch is not what was written; I/O errors.
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
        let mut fetched = Fetched::nothing(offset);
        loop {
            let at = fetched.next_offset;
            let trusted = self.take_trusted(at, &budget, Pages::InMemory);
            let taken = match trusted.transpose() {
                Some(taken) => taken,
                None => self.take_verified(at, &budget),
            };
            let more = match taken {
                Ok(more) => more,
                Err(_) if at > offset => return Ok(fetched),
                Err(error) => return Err(error),
            };
            let moved = more.next_offset > at;
            fetched.append(more, &mut budget);
            if !moved {
                return Ok(fetched);
            }
        }
    }

    /// The same from memory alone, as much as this process has written or verified lately and is still
    /// there; none where that is nothing. Waits for nothing.
    ///
    /// # Errors
    /// As [`LogReader::fetch`].
    pub fn fetch_in_memory(
        &self,
        offset: i64,
        ceiling: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> LogResult<Option<Fetched>> {
        self.fetch_trusted((offset, ceiling), max_bytes, at_least_one, Pages::InMemory)
    }

    /// The same for one who was at the end: what there is was written a moment ago, so nobody asks whether
    /// it is in memory.
    ///
    /// # Errors
    /// As [`LogReader::fetch`].
    pub fn fetch_written(
        &self,
        offset: i64,
        ceiling: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> LogResult<Option<Fetched>> {
        self.fetch_trusted((offset, ceiling), max_bytes, at_least_one, Pages::Touch)
    }

    fn fetch_trusted(
        &self,
        (offset, ceiling): (i64, i64),
        max_bytes: usize,
        at_least_one: bool,
        pages: Pages,
    ) -> LogResult<Option<Fetched>> {
        let mut budget = Budget {
            ceiling,
            bytes: max_bytes,
            at_least_one,
        };
        let mut fetched = Fetched::nothing(offset);
        loop {
            let at = fetched.next_offset;
            let more = match self.take_trusted(at, &budget, pages) {
                Ok(Some(more)) => more,
                Ok(None) | Err(_) if at > offset => return Ok(Some(fetched)),
                nothing => return nothing,
            };
            let moved = more.next_offset > at;
            fetched.append(more, &mut budget);
            if !moved {
                return Ok(Some(fetched));
            }
        }
    }

    /// What one segment has at an offset that needs no verifying; none where that is nothing.
    fn take_trusted(&self, at: i64, budget: &Budget, pages: Pages) -> LogResult<Option<Fetched>> {
        let (files, range) = {
            let inner = self.shared.inner.read();
            inner.check_offset(at)?;
            match inner.sealed.get(inner.segment_of_offset(at)) {
                Some(sealed) => {
                    let sealed = Arc::clone(sealed);
                    drop(inner);
                    let Some(range) = sealed_range(&sealed, at, budget, pages)? else {
                        return Ok(None);
                    };
                    (Arc::clone(&sealed.files), range)
                }
                None => {
                    let range = active_range(&inner.active, at, budget);
                    let files = Arc::clone(&inner.active.files);
                    drop(inner);
                    let mut reach = Frontier::new(pages, &files, range.to, 0)?;
                    if range.from < range.to
                        && (!files.trust.covers(range.from, range.to, files.now())
                            || !reach.reaches(range.from, range.to))
                    {
                        return Ok(None);
                    }
                    (files, range)
                }
            }
        };
        let mut fetched = Fetched::nothing(at);
        fetched.next_offset = range.next_offset.max(at);
        if range.from < range.to {
            fetched.first_offset = range.first_offset;
            let bytes = slice(&files, range.from, range.to)?;
            fetched.batches.push(bytes);
        }
        Ok(Some(fetched))
    }

    /// What one segment has at an offset, read and verified.
    fn take_verified(&self, at: i64, budget: &Budget) -> LogResult<Fetched> {
        loop {
            let (files, found) = {
                let inner = self.shared.inner.read();
                inner.check_offset(at)?;
                match inner.sealed.get(inner.segment_of_offset(at)) {
                    Some(sealed) => (Arc::clone(&sealed.files), Ok(Arc::clone(sealed))),
                    None => {
                        let entries = active_entries(&inner.active, at, budget);
                        (Arc::clone(&inner.active.files), Err(entries))
                    }
                }
            };
            let entries = match found {
                Ok(sealed) => {
                    sealed.bring_in_index();
                    sealed_entries(&sealed, at, budget)
                }
                Err(active) => Ok(active),
            };
            let index = entries.as_ref().ok().map(|entries| entries.index);
            let read = entries.and_then(|entries| entries.read(&files, at));
            // Whatever is wrong with files that the log has no more is nothing wrong with the log.
            if read.is_ok() || self.shared.inner.read().has(&files) {
                return read.inspect_err(|error| {
                    self.note(error);
                    if let Some(index) = index.filter(|_| error.is_of_one_place()) {
                        self.note_unreadable(index);
                    }
                });
            }
        }
    }
}

impl Fetched {
    fn nothing(offset: i64) -> Self {
        Self {
            batches: Vec::new(),
            first_offset: offset,
            next_offset: offset,
        }
    }

    fn append(&mut self, more: Self, budget: &mut Budget) {
        if self.batches.is_empty() {
            self.first_offset = more.first_offset;
        }
        let bytes: usize = more.batches.iter().map(Bytes::len).sum();
        if bytes > 0 {
            budget.at_least_one = false;
        }
        budget.bytes = budget.bytes.saturating_sub(bytes);
        self.batches.extend(more.batches);
        self.next_offset = more.next_offset;
    }
}

impl Inner {
    /// Whether the log has the offset or ends at it.
    fn check_offset(&self, at: i64) -> LogResult<()> {
        let (start, end) = (self.start.offset, self.next_offset());
        if at < start || at > end {
            return Err(LogError::OutOfRange {
                offset: at,
                start,
                end,
            });
        }
        Ok(())
    }
}

/// Entries of one segment that follow each other.
#[derive(Debug, Default)]
struct Entries {
    /// The first one's Raft index.
    index: u64,
    records: Vec<Record>,
    /// The offset to go on at behind them.
    next_offset: i64,
}

impl Entries {
    /// Takes the next entry if the budget does; false where it does not.
    fn take(&mut self, record: &Record, bytes: &mut u64, budget: &Budget) -> bool {
        if record.next_offset() > budget.ceiling {
            return false;
        }
        if record.kind == EntryKind::Data {
            let len = u64::from(record.len);
            if !budget.takes(*bytes, len) {
                return false;
            }
            *bytes += len;
        }
        self.next_offset = self.next_offset.max(record.next_offset());
        self.records.push(*record);
        true
    }

    /// Their batches, as far as they are whole.
    fn read(self, files: &Files, at: i64) -> LogResult<Fetched> {
        let mut fetched = Fetched::nothing(at);
        let run = read_run(files, self.index, &self.records)?;
        let whole = self.records.get(..run.entries).unwrap_or_default();
        match run.bad {
            Some(bad) if whole.is_empty() => return Err(bad),
            Some(_) => {}
            None if whole.len() < self.records.len() => {}
            None => fetched.next_offset = self.next_offset.max(at),
        }
        if let Some(first) = whole.iter().find(|record| record.kind == EntryKind::Data) {
            fetched.first_offset = first.base_offset;
            fetched.batches.push(run.bytes);
        }
        if let Some(last) = whole.last() {
            fetched.next_offset = fetched.next_offset.max(last.next_offset());
        }
        Ok(fetched)
    }
}

fn active_entries(active: &Active, offset: i64, budget: &Budget) -> Entries {
    let first = active.above(offset);
    let mut entries = Entries {
        index: active.shape.first_index + first as u64,
        records: Vec::new(),
        next_offset: offset,
    };
    let mut bytes = 0;
    for record in active.records.get(first..).unwrap_or_default() {
        if !entries.take(record, &mut bytes, budget) {
            break;
        }
    }
    entries
}

/// The entries of a sealed segment from the one that holds an offset on; those before one whose record is
/// bad.
fn sealed_entries(sealed: &Sealed, offset: i64, budget: &Budget) -> LogResult<Entries> {
    let mut index = sealed.index_above(offset)?;
    let mut entries = Entries {
        index,
        records: Vec::new(),
        next_offset: offset,
    };
    let mut first_bad = None;
    let mut bytes = 0;
    while index <= sealed.last_index {
        let to = (index + RECORDS_AT_ONCE).min(sealed.last_index + 1);
        for record in sealed.some_records(index, to)? {
            match record {
                Some(record) if entries.records.is_empty() && record.base_offset > offset => {
                    if let Some(bad) = first_bad {
                        return Err(sealed.bad_record_of(bad, offset, record.base_offset));
                    }
                    if !entries.take(&record, &mut bytes, budget) {
                        return Ok(entries);
                    }
                }
                Some(record) => {
                    if entries.records.is_empty() {
                        entries.index = index;
                        first_bad = None;
                    }
                    if !entries.take(&record, &mut bytes, budget) {
                        return Ok(entries);
                    }
                }
                None if entries.records.is_empty() => {
                    first_bad.get_or_insert(index);
                }
                None => return Ok(entries),
            }
            index += 1;
        }
    }
    if let Some(bad) = first_bad {
        return Err(sealed.bad_record_of(bad, offset, sealed.next_offset));
    }
    // Whatever offsets the segment ends with, holes perhaps, the next one goes on behind them.
    entries.next_offset = sealed
        .next_offset
        .min(budget.ceiling)
        .max(entries.next_offset);
    Ok(entries)
}

fn active_range(active: &Active, offset: i64, budget: &Budget) -> Range {
    let first = active.above(offset);
    let mut range = Range {
        from: active.log_len,
        to: active.log_len,
        first_offset: offset,
        next_offset: offset,
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

/// Where to begin looking for the batch that holds an offset, within a span that is trusted: behind the
/// newest index entry that is not above it, if that entry is true and lies in the span.
fn position_within(sealed: &Sealed, offset: i64, span: &Span, reach: &mut Frontier<'_>) -> u64 {
    let Some(index) = sealed.index_in_memory(reach.pages) else {
        return span.from;
    };
    let relative = offset - sealed.shape.base_offset;
    let below = |entry: &[u8]| i64::from(OffsetEntry::decode(entry).relative_offset) <= relative;
    let count = partition_entries(index, OFFSET_ENTRY_LEN, below);
    let Some(at) = count.checked_sub(1) else {
        return span.from;
    };
    let entry = OffsetEntry::decode(index.get(at * OFFSET_ENTRY_LEN..).unwrap_or_default());
    let position = u64::from(entry.position);
    let header_end = position + HEADER_LEN as u64;
    if position < span.from || header_end > span.to || !reach.reaches(position, header_end) {
        return span.from;
    }
    let Ok(bytes) = slice(&sealed.files, position, span.to) else {
        return span.from;
    };
    let last_offset = sealed.shape.base_offset + i64::from(entry.relative_offset);
    match batches(&bytes).next() {
        Some(Ok(batch)) if batch.last_offset() == last_offset => position,
        // The index is damaged. The way is longer, the answer is the same.
        _ => {
            reach.to = 0;
            span.from
        }
    }
}

fn slice(files: &Files, from: u64, to: u64) -> LogResult<Bytes> {
    let log = files.log()?;
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    slice_at(log, from, len)
}

impl Sealed {
    /// Brings the index into memory, for whoever reads next without waiting: without it the way begins at the
    /// front of what is trusted. An index that cannot be had only makes the way longer.
    fn bring_in_index(&self) {
        let opened = self.files.open(SegmentFile::Index, OpenMode::Existing);
        let Ok(index) = opened else { return };
        let len = index.len().ok().and_then(|len| usize::try_from(len).ok());
        if let Some(len) = len.filter(|len| index.resident(0, *len) < *len) {
            let _ = index.bring_in(0, len);
        }
    }

    /// The index, where it may be searched without waiting.
    fn index_in_memory(&self, pages: Pages) -> Option<&Bytes> {
        if pages == Pages::InMemory {
            // To open a file may wait for the disk too.
            let index = self.files.opened(SegmentFile::Index)?;
            let len = usize::try_from(index.len().ok()?).ok()?;
            if index.resident(0, len) < len {
                return None;
            }
        }
        self.index_bytes()
    }
}

/// The whole batches from an offset on that the budget takes and that need no verifying; none where that is
/// nothing.
fn sealed_range(
    sealed: &Sealed,
    offset: i64,
    budget: &Budget,
    pages: Pages,
) -> LogResult<Option<Range>> {
    let files = &sealed.files;
    let Some(span) = files.trust.holding(offset, files.now()) else {
        return Ok(None);
    };
    let mut reach = Frontier::new(pages, files, span.to, budget.bytes)?;
    let begin = position_within(sealed, offset, &span, &mut reach);
    let bytes = slice(files, begin, span.to)?;
    let mut walk = batches(&bytes);
    let mut range = Range {
        from: span.to,
        to: span.to,
        first_offset: offset,
        next_offset: offset,
    };
    loop {
        let position = begin + walk.position() as u64;
        let header_end = (position + HEADER_LEN as u64).min(span.to);
        if position < header_end && !reach.reaches(position, header_end) {
            break;
        }
        let batch = match walk.next() {
            None => break,
            Some(Ok(batch)) => batch,
            Some(Err(_)) => {
                // Whoever verifies it says what is wrong.
                files.trust.forget(span.from, span.to);
                return Ok(None);
            }
        };
        if batch.last_offset() < offset {
            continue;
        }
        let len = batch.total_len() as u64;
        let first = range.from == range.to;
        if batch.next_offset() > budget.ceiling || !budget.takes(range.to - range.from, len) {
            // The limits end it, with nothing perhaps, and not the disk.
            return Ok(Some(range));
        }
        if first {
            (range.from, range.to) = (position, position);
            range.first_offset = batch.base_offset();
        }
        if !reach.reaches(position, position + len) {
            break;
        }
        range.to += len;
        range.next_offset = range.next_offset.max(batch.next_offset());
    }
    if range.from == range.to {
        return Ok(None);
    }
    if range.to == sealed.log_len {
        // Whatever offsets the segment ends with, holes perhaps, the next one goes on behind them.
        range.next_offset = sealed
            .next_offset
            .min(budget.ceiling)
            .max(range.next_offset);
    }
    Ok(Some(range))
}
