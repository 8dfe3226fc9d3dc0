//! The records of a batch.
//!
//! ```text
//! length      varint   bytes of the record behind this field
//! attributes  i8       no bit has a meaning
//! timestamp   varlong  counted from the batch's base timestamp
//! offset      varint   counted from the batch's base offset
//! key length  varint   -1 for null; then the key
//! value len.  varint   -1 for null; then the value
//! headers     varint   how many; then for each:
//!   key length   varint   never negative; then the key, UTF-8
//!   value length varint   -1 for null; then the value
//! ```

use std::borrow::Cow;

use bytes::Bytes;

use crate::batch::{BatchView, TimestampType};
use crate::compression::{Compression, decompress};
use crate::error::BatchError;
use crate::layout::HEADER_LEN;
use crate::varint;

/// One record, borrowed from the bytes of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Offset, counted from the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp, counted from the batch's base timestamp; see [`BatchView::record_timestamp`].
    pub timestamp_delta: i64,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, checked already.
    pub headers: HeaderIter<'a>,
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key: UTF-8 by agreement, not checked.
    pub key: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Takes the record at the front of `input` off it. `index` is for the error only.
    fn take(input: &mut &'a [u8], index: i32) -> Result<Self, BatchError> {
        let bad = |what| BatchError::record(index, what);
        let len = varint::get_i32(input).ok_or(bad("its length is not a varint"))?;
        let len = usize::try_from(len).map_err(|_| bad("its length is negative"))?;
        let (mut body, rest) = input
            .split_at_checked(len)
            .ok_or(bad("it is longer than its batch"))?;
        *input = rest;

        let (_attributes, tail) = body.split_first().ok_or(bad("it has no attributes"))?;
        body = tail;
        let timestamp_delta =
            varint::get_i64(&mut body).ok_or(bad("its timestamp is not a varint"))?;
        let offset_delta = varint::get_i32(&mut body).ok_or(bad("its offset is not a varint"))?;
        let key = take_bytes(&mut body).ok_or(bad("its key is longer than it"))?;
        let value = take_bytes(&mut body).ok_or(bad("its value is longer than it"))?;
        let headers = HeaderIter::take(&mut body).ok_or(bad("its headers do not fit"))?;
        if !body.is_empty() {
            return Err(bad("bytes follow its headers"));
        }
        Ok(Self {
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers,
        })
    }
}

/// A length-prefixed byte string; a negative length is null. The outer `None` is a failure.
fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint::get_i32(input)?;
    let Ok(len) = usize::try_from(len) else {
        return Some(None);
    };
    let (bytes, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(Some(bytes))
}

/// The headers of one record.
///
/// INVARIANT: `bytes` holds exactly `left` well-formed headers; `HeaderIter::take` is the only
/// way to make one and has walked them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderIter<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> HeaderIter<'a> {
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        let count = usize::try_from(varint::get_i32(input)?).ok()?;
        // A header takes two bytes at least, so a hostile count ends here and not in the loop.
        if count > input.len() / 2 {
            return None;
        }
        let start = *input;
        for _ in 0..count {
            Self::take_one(input)?;
        }
        let bytes = start.get(..start.len() - input.len())?;
        Some(Self { bytes, left: count })
    }

    fn take_one(input: &mut &'a [u8]) -> Option<Header<'a>> {
        let key = take_bytes(input)??;
        let value = take_bytes(input)?;
        Some(Header { key, value })
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        Self::take_one(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

/// The records of an area that is not compressed, or not any more.
///
/// Ends after the first error, and after the stated count, when nothing may follow.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
}

impl<'a> RecordIter<'a> {
    /// Reads `count` records from `area`.
    #[must_use]
    pub fn new(area: &'a [u8], count: i32) -> Self {
        Self {
            rest: area,
            index: 0,
            count,
        }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(BatchError::record(
                self.index,
                "bytes follow the last record",
            )));
        }
        let record = Record::take(&mut self.rest, self.index);
        match record {
            Ok(_) => self.index += 1,
            Err(_) => {
                self.rest = &[];
                self.index = self.count;
            }
        }
        Some(record)
    }
}

/// The record area of a batch, decompressed where it is compressed.
///
/// # Errors
/// `DecompressedTooLarge` when it would take more than `max_bytes`; a codec's error; an unknown
/// compression.
pub fn decode_records<'a>(
    batch: &BatchView<'a>,
    max_bytes: usize,
) -> Result<Cow<'a, [u8]>, BatchError> {
    match batch.compression()? {
        Compression::None => Ok(Cow::Borrowed(batch.records_bytes())),
        compression => decompress(compression, batch.records_bytes(), max_bytes).map(Cow::Owned),
    }
}

/// One record that owns its bytes, as slices of its batch's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its timestamp in milliseconds, or -1.
    pub timestamp: i64,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The headers in their order: key (UTF-8 by agreement, not checked) and value.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// The records of the batch at the front of `batch`, as slices of its memory or, for a compressed
/// one, of its decompressed records.
///
/// # Errors
/// As [`BatchView::parse`] and [`decode_records`].
pub fn owned_records(batch: &Bytes, max_bytes: usize) -> Result<OwnedRecordIter, BatchError> {
    let view = BatchView::parse(batch)?;
    let area = match view.compression()? {
        Compression::None => batch.slice(HEADER_LEN..view.total_len()),
        compression => decompress(compression, view.records_bytes(), max_bytes)?.into(),
    };
    Ok(OwnedRecordIter {
        area,
        position: 0,
        index: 0,
        count: view.record_count(),
        base_offset: view.base_offset(),
        base_timestamp: view.base_timestamp(),
        append_timestamp: (view.timestamp_type() == TimestampType::LogAppendTime)
            .then(|| view.max_timestamp()),
    })
}

/// See [`owned_records`].
#[derive(Debug, Clone)]
pub struct OwnedRecordIter {
    area: Bytes,
    position: usize,
    index: i32,
    count: i32,
    base_offset: i64,
    base_timestamp: i64,
    append_timestamp: Option<i64>,
}

impl Iterator for OwnedRecordIter {
    type Item = Result<OwnedRecord, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut records = RecordIter {
            rest: self.area.get(self.position..).unwrap_or_default(),
            index: self.index,
            count: self.count,
        };
        let record = records.next()?;
        self.index = records.index;
        self.position = self.area.len() - records.rest.len();
        Some(record.map(|record| self.own(&record)))
    }
}

impl OwnedRecordIter {
    fn own(&self, record: &Record<'_>) -> OwnedRecord {
        let slice = |bytes: &[u8]| self.area.slice_ref(bytes);
        OwnedRecord {
            offset: self
                .base_offset
                .saturating_add(i64::from(record.offset_delta)),
            timestamp: self
                .append_timestamp
                .unwrap_or(self.base_timestamp.saturating_add(record.timestamp_delta)),
            key: record.key.map(slice),
            value: record.value.map(slice),
            headers: record
                .headers
                .clone()
                .map(|header| (slice(header.key), header.value.map(slice)))
                .collect(),
        }
    }
}
