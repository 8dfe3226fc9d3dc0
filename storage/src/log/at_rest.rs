//! Looking at what the disk holds of entries, past the page cache, whatever the cache says of them (X1).
//!
//! An entry is looked at as a read looks at it: the checksum of its record, the batch against the record and
//! against its own CRC-32C, a payload against its checksum. What is not whole is read a second time.

use std::io::ErrorKind;

use riverrun_record::BatchView;

use crate::disk::{DiskFile, OpenMode};
use crate::entry::EntryKind;
use crate::format::index::IndexedBatch;
use crate::format::sidecar::{Header, RECORD_LEN, Record};
use crate::format::{SegmentFile, aux};
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::Files;
use crate::log::shared::{Sealed, Shape};
use crate::log::verified::is_whole;

/// What a look at entries of one segment found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The batches that are whole.
    pub(super) batches: Vec<IndexedBatch>,
    /// Entries that are not, each with what is wrong, in order.
    pub(super) bad: Vec<(u64, LogError)>,
    /// Entries that cannot be read, in order, and why one of them cannot.
    pub(super) unreadable: Vec<u64>,
    pub(super) why: Option<LogError>,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

impl Look {
    /// Whether every entry is what was written.
    pub(super) fn is_clean(&self) -> bool {
        self.bad.is_empty() && self.unreadable.is_empty()
    }
}

/// Bytes of a sidecar that are asked for by themselves where they cannot be read together with the rest.
const PIECE_RECORDS: u64 = 4096 / RECORD_LEN as u64;

/// Records of a sidecar.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// None for each that is bad or cannot be read.
    pub(super) records: Vec<Option<Record>>,
    /// Those that cannot be read, and why.
    pub(super) unreadable: Vec<u64>,
    pub(super) why: Option<LogError>,
}

/// Records of a sidecar as the disk has them.
pub(super) fn records(files: &Files, shape: &Shape, from: u64, to: u64) -> LogResult<Records> {
    match read_records(files, shape, from, to) {
        Err(error) if error.is_of_one_place() || error.is_short() => {}
        other => {
            return Ok(Records {
                records: other?,
                ..Records::default()
            });
        }
    }
    let mut found = Records::default();
    let mut at = from;
    while at < to {
        let end = (at + PIECE_RECORDS).min(to);
        match read_records(files, shape, at, end) {
            Ok(records) => found.records.extend(records),
            Err(error) if error.is_of_one_place() => {
                for index in at..end {
                    found.records.push(None);
                    found.unreadable.push(index);
                }
                found.why = Some(error);
            }
            Err(error) if error.is_short() && end > at + 1 => {
                for index in at..end {
                    let one = read_records(files, shape, index, index + 1);
                    found
                        .records
                        .push(one.ok().and_then(|one| one.first().copied().flatten()));
                }
            }
            Err(error) if error.is_short() => found.records.push(None),
            Err(error) => return Err(error),
        }
        at = end;
    }
    Ok(found)
}

fn read_records(
    files: &Files,
    shape: &Shape,
    from: u64,
    to: u64,
) -> LogResult<Vec<Option<Record>>> {
    let raft = files.raft()?;
    let count = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
    let mut bytes = vec![0; count * RECORD_LEN];
    raft.read_past_cache(&mut bytes, shape.record_position(from))
        .at(raft.path())?;
    let (records, _) = bytes.as_chunks::<RECORD_LEN>();
    let mut found = Vec::with_capacity(count);
    for (index, bytes) in (from..).zip(records) {
        let record = match Record::decode(index, bytes) {
            Some(record) => Some(record),
            None => {
                let mut again = [0; RECORD_LEN];
                raft.read_past_cache(&mut again, shape.record_position(index))
                    .at(raft.path())?;
                Record::decode(index, &again)
            }
        };
        found.push(record);
    }
    Ok(found)
}

/// The errors of the entries whose records are bad, with the offsets between which each lies.
pub(super) fn bad_records(sealed: &Sealed, from: u64, found: &Records) -> Vec<(u64, LogError)> {
    let mut bad = Vec::new();
    let mut before = sealed.shape.base_offset;
    let mut unreadable = found.unreadable.iter().peekable();
    let mut next = (0, sealed.shape.base_offset);
    for (at, (index, record)) in (from..).zip(&found.records).enumerate() {
        let is_unreadable = unreadable.next_if_eq(&&index).is_some();
        match record {
            Some(record) => before = record.next_offset(),
            None if is_unreadable => {}
            None => {
                // The next good one serves all bad ones before it.
                if next.0 <= at {
                    let mut behind = found.records.iter().enumerate().skip(at);
                    let good = behind.find_map(|(at, record)| Some((at, record.as_ref()?)));
                    next = good.map_or((usize::MAX, sealed.next_offset), |(at, record)| {
                        (at, record.base_offset)
                    });
                }
                bad.push((index, sealed.bad_record_of(index, before, next.1)));
            }
        }
    }
    bad
}

/// Whether the header of a sidecar is what it should be.
pub(super) fn header_is_whole(files: &Files, shape: &Shape) -> LogResult<bool> {
    let raft = files.raft()?;
    let mut bytes = vec![0; usize::try_from(shape.header_len).unwrap_or(0)];
    for _ in 0..2 {
        match raft.read_past_cache(&mut bytes, 0).at(raft.path()) {
            Ok(()) => {}
            Err(error) if error.is_short() => return Ok(false),
            Err(error) => return Err(error),
        }
        if Header::decode(&bytes).is_ok_and(|(header, len)| {
            len as u64 == shape.header_len
                && header.start.offset == shape.base_offset
                && header.start.prev_index + 1 == shape.first_index
        }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks at the entries of these records, which follow each other in one segment from `index` on. An error
/// is one of the machine that says nothing of any of them.
pub(super) fn look(files: &Files, index: u64, records: &[Option<Record>]) -> LogResult<Look> {
    let mut look = Look::default();
    let data = || {
        let records = (index..).zip(records);
        let known = records.filter_map(|(index, record)| Some((index, record.as_ref()?)));
        known.filter(|(_, record)| record.kind == EntryKind::Data)
    };
    if let (Some((_, first)), Some((_, last))) = (data().next(), data().last()) {
        let from = u64::from(first.position);
        let len = usize::try_from(last.end().saturating_sub(from)).unwrap_or(0);
        let log = files.log()?;
        let mut bytes = vec![0; len];
        // Where not all of it can be read, each batch is asked for by itself.
        let together = log.read_past_cache(&mut bytes, from).is_ok();
        for (index, record) in data() {
            let begin = usize::try_from(u64::from(record.position).saturating_sub(from));
            let begin = begin.unwrap_or(usize::MAX);
            let end = begin.saturating_add(record.len as usize);
            let place = bytes.get(begin..end).filter(|_| together);
            look.bytes += u64::from(record.len);
            if let Some(place) = place.filter(|place| is_whole(record, place)) {
                look.batches.push(indexed(record, place));
                continue;
            }
            match batch(files, index, record) {
                Ok(found) => look.batches.push(indexed(record, &found)),
                Err(error) => look.note(index, error)?,
            }
        }
    }
    for (index, record) in (index..).zip(records) {
        if let Some(record) = record
            && matches!(record.kind, EntryKind::Conf | EntryKind::Command)
        {
            look.bytes += u64::from(record.len);
            if let Err(error) = payload(files, index, record) {
                look.note(index, error)?;
            }
        }
    }
    Ok(look)
}

impl Look {
    fn note(&mut self, index: u64, error: LogError) -> LogResult<()> {
        match error {
            LogError::BadBatch { .. } => self.bad.push((index, error)),
            error if error.is_of_one_place() => {
                self.unreadable.push(index);
                self.why = Some(error);
            }
            error => return Err(error),
        }
        Ok(())
    }
}

fn indexed(record: &Record, bytes: &[u8]) -> IndexedBatch {
    IndexedBatch {
        last_offset: record.last_offset(),
        max_timestamp: BatchView::parse(bytes).map_or(-1, |batch| batch.max_timestamp()),
        position: record.position,
        len: record.len,
    }
}

fn bad(file: &dyn DiskFile, index: u64, record: &Record) -> LogError {
    LogError::BadBatch {
        path: file.path().clone(),
        position: u64::from(record.position),
        index,
        first_offset: record.base_offset,
        next_offset: record.next_offset(),
    }
}

/// A batch as the disk has it. `BadBatch` where that is not what was written, or not there.
fn batch(files: &Files, index: u64, record: &Record) -> LogResult<Vec<u8>> {
    let log = files.log()?;
    let mut bytes = vec![0; record.len as usize];
    match log.read_past_cache(&mut bytes, u64::from(record.position)) {
        Ok(()) if is_whole(record, &bytes) => Ok(bytes),
        Ok(()) => Err(bad(&**log, index, record)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(bad(&**log, index, record)),
        Err(error) => Err(error).at(log.path()),
    }
}

/// The same of a payload.
fn payload(files: &Files, index: u64, record: &Record) -> LogResult<()> {
    let file = files.open(SegmentFile::Aux, OpenMode::Existing)?;
    let mut item = vec![0; aux::ITEM_HEADER_LEN as usize + record.len as usize];
    for _ in 0..2 {
        match file.read_past_cache(&mut item, u64::from(record.position)) {
            Ok(()) if aux::decode(index, &item).is_some() => return Ok(()),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error).at(file.path()),
        }
    }
    Err(bad(&**file, index, record))
}
