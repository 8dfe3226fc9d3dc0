//! Reading batches by their offset.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::{HEADER_LEN, batches};

use crate::disk::{DiskFile, OpenMode};
use crate::entry::EntryKind;
use crate::format::SegmentFile;
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

/// What a read does about bytes that are not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// It touches them, and waits for the disk if it has to.
    Touch,
    /// It ends without an answer.
    InMemory,
    /// It reads them first: an error of the disk is then an error, and not a signal.
    BringIn,
}

/// Bytes that are asked about, or brought in, at once.
const LEAST_WINDOW_BYTES: u64 = 64 << 10;
const MOST_WINDOW_BYTES: u64 = 1 << 20;

/// How far into a file its bytes may be touched.
#[derive(Debug)]
struct Frontier<'a> {
    pages: Pages,
    file: &'a Arc<dyn DiskFile>,
    /// Everything that was asked for below this may be touched.
    to: u64,
    /// Where the part ends that is ever touched.
    end: u64,
    window: u64,
}

impl<'a> Frontier<'a> {
    fn new(pages: Pages, file: &'a Arc<dyn DiskFile>, end: u64, wanted_bytes: usize) -> Self {
        let window = (wanted_bytes as u64).clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES);
        Self {
            pages,
            file,
            to: 0,
            end,
            window,
        }
    }

    /// Whether `from..to` may be touched; from one call to the next `from` never goes back.
    fn reaches(&mut self, from: u64, to: u64) -> LogResult<bool> {
        if to <= self.to || self.pages == Pages::Touch {
            return Ok(true);
        }
        let start = self.to.max(from);
        let len = (to - start).max(self.window.min(self.end.saturating_sub(start)));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.to = match self.pages {
            Pages::InMemory => start + self.file.resident(start, len) as u64,
            Pages::Touch | Pages::BringIn => {
                bring_in(self.file, start, len)?;
                start + len as u64
            }
        };
        Ok(to <= self.to)
    }
}

fn bring_in(file: &Arc<dyn DiskFile>, offset: u64, len: usize) -> LogResult<()> {
    if file.resident(offset, len) < len {
        file.bring_in(offset, len).at(file.path())?;
    }
    Ok(())
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
        self.fetch_pages(offset, ceiling, max_bytes, at_least_one, Pages::Touch)
            .map(|fetched| fetched.unwrap_or_else(|| unreachable!("it touches what it needs")))
    }

    /// The same without waiting for a disk: none where a byte of the answer, or of the way to it, is
    /// not in memory.
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
        self.fetch_pages(offset, ceiling, max_bytes, at_least_one, Pages::InMemory)
    }

    /// The same with all of it brought into memory first. Waits for the disk.
    ///
    /// # Errors
    /// As [`LogReader::fetch`].
    pub fn fetch_from_disk(
        &self,
        offset: i64,
        ceiling: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> LogResult<Fetched> {
        self.fetch_pages(offset, ceiling, max_bytes, at_least_one, Pages::BringIn)
            .map(|fetched| fetched.unwrap_or_else(|| unreachable!("it brings in what it needs")))
    }

    fn fetch_pages(
        &self,
        offset: i64,
        ceiling: i64,
        max_bytes: usize,
        at_least_one: bool,
        pages: Pages,
    ) -> LogResult<Option<Fetched>> {
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
                        let Some(range) = sealed_range(&sealed, at, &budget, pages)? else {
                            return Ok(None);
                        };
                        (Arc::clone(&sealed.files), range)
                    }
                    None => {
                        let range = active_range(&inner.active, at, &budget);
                        let files = Arc::clone(&inner.active.files);
                        drop(inner);
                        let mut reach = Frontier::new(pages, files.log()?, range.to, 0);
                        if range.from < range.to && !reach.reaches(range.from, range.to)? {
                            return Ok(None);
                        }
                        (files, range)
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
                return Ok(Some(fetched));
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
    let mut reach = Frontier::new(Pages::Touch, sealed.files.log()?, sealed.log_len, 0);
    Ok(position_within(sealed, offset, &mut reach)?.unwrap_or(0))
}

/// The same; none where the way there is not in memory.
fn position_within(
    sealed: &Sealed,
    offset: i64,
    reach: &mut Frontier<'_>,
) -> LogResult<Option<u64>> {
    if !sealed.index_within(reach.pages)? {
        return Ok(None);
    }
    let index = sealed.index_bytes();
    let relative = offset - sealed.shape.base_offset;
    let below = |entry: &[u8]| i64::from(OffsetEntry::decode(entry).relative_offset) <= relative;
    let count = partition_entries(index, OFFSET_ENTRY_LEN, below);
    let Some(at) = count.checked_sub(1) else {
        return Ok(Some(0));
    };
    let entry = OffsetEntry::decode(index.get(at * OFFSET_ENTRY_LEN..).unwrap_or_default());
    let position = u64::from(entry.position);
    if position >= sealed.log_len {
        return Ok(Some(0));
    }
    let header_end = (position + HEADER_LEN as u64).min(sealed.log_len);
    if !reach.reaches(position, header_end)? {
        return Ok(None);
    }
    let bytes = slice(&sealed.files, position, sealed.log_len)?;
    let last_offset = sealed.shape.base_offset + i64::from(entry.relative_offset);
    match batches(&bytes).next() {
        Some(Ok(batch)) if batch.last_offset() == last_offset => Ok(Some(position)),
        // The index is damaged. The way is longer, the answer is the same.
        _ => {
            reach.to = 0;
            Ok(Some(0))
        }
    }
}

pub(super) fn slice(files: &Files, from: u64, to: u64) -> LogResult<Bytes> {
    let log = files.log()?;
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    log.slice(from, len).at(log.path())
}

impl Sealed {
    /// Whether the index may be searched.
    fn index_within(&self, pages: Pages) -> LogResult<bool> {
        let index = match (pages, self.files.opened(SegmentFile::Index)) {
            (Pages::Touch, _) => return Ok(true),
            // To open a file may wait for the disk too.
            (Pages::InMemory, None) => return Ok(false),
            (Pages::InMemory, Some(index)) => index,
            (Pages::BringIn, _) => {
                // An index that cannot be opened only makes the way longer.
                let opened = self.files.open(SegmentFile::Index, OpenMode::Existing);
                let Ok(index) = opened else { return Ok(true) };
                index
            }
        };
        let len = index.len().at(index.path())?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if pages == Pages::InMemory {
            return Ok(index.resident(0, len) == len);
        }
        bring_in(index, 0, len)?;
        Ok(true)
    }
}

/// The whole batches from an offset on that the budget takes; none where one of them, or the way to
/// it, is not in memory.
fn sealed_range(
    sealed: &Sealed,
    offset: i64,
    budget: &Budget,
    pages: Pages,
) -> LogResult<Option<Range>> {
    if pages == Pages::InMemory && sealed.files.opened(SegmentFile::Log).is_none() {
        return Ok(None);
    }
    let log = sealed.files.log()?;
    let mut reach = Frontier::new(pages, log, sealed.log_len, budget.bytes);
    let Some(begin) = position_within(sealed, offset, &mut reach)? else {
        return Ok(None);
    };
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
        let header_end = (position + HEADER_LEN as u64).min(sealed.log_len);
        if position < header_end && !reach.reaches(position, header_end)? {
            return Ok(None);
        }
        let batch = match walk.next() {
            None => break,
            Some(Ok(batch)) => batch,
            Some(Err(_)) => {
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
            return Ok(Some(range));
        }
        if range.from == range.to {
            (range.from, range.to) = (position, position);
            range.first_offset = batch.base_offset();
        }
        let len = batch.total_len() as u64;
        if !budget.takes(range.to - range.from, len) {
            range.stopped = true;
            return Ok(Some(range));
        }
        if !reach.reaches(position, position + len)? {
            return Ok(None);
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
    Ok(Some(range))
}
