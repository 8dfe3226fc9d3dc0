//! Reads the head of each record, from a slice or from a decompressing stream, and skips keys,
//! values and headers without looking at them or keeping anything.

use crate::error::BatchError;
use crate::varint;

/// Where record bytes come from.
pub(crate) trait Source {
    /// The next byte.
    fn byte(&mut self) -> Result<u8, NoMore>;
    /// Passes over `len` bytes.
    fn skip(&mut self, len: u64) -> Result<(), NoMore>;
    /// Bytes taken so far.
    fn position(&self) -> u64;
    /// Whether nothing follows, and the source is satisfied with how it ended.
    fn is_at_end(&mut self) -> Result<bool, BatchError>;
    /// What failed, where [`NoMore`] was not simply the end.
    fn take_fault(&mut self) -> Option<BatchError> {
        None
    }
}

/// A source has no more bytes: it ended, or it has a fault. A type without content, so that
/// reading a byte costs no more than that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoMore;

#[cold]
fn ended<S: Source>(source: &mut S, index: i32) -> BatchError {
    source
        .take_fault()
        .unwrap_or(BatchError::record(index, "the batch ends within it"))
}

/// Records that lie in memory.
pub(crate) struct SliceSource<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> SliceSource<'a> {
    pub(crate) fn new(area: &'a [u8]) -> Self {
        Self {
            rest: area,
            len: area.len(),
        }
    }
}

impl Source for SliceSource<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, NoMore> {
        let (&byte, rest) = self.rest.split_first().ok_or(NoMore)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, len: u64) -> Result<(), NoMore> {
        let len = usize::try_from(len).map_err(|_| NoMore)?;
        self.rest = self.rest.get(len..).ok_or(NoMore)?;
        Ok(())
    }

    #[inline]
    fn position(&self) -> u64 {
        (self.len - self.rest.len()) as u64
    }

    fn is_at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.rest.is_empty())
    }
}

/// What is kept of a record that was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) offset_delta: i32,
    pub(crate) timestamp_delta: i64,
    pub(crate) has_key: bool,
}

/// Passes over the next record, checking that its parts fill exactly the length it states.
#[inline]
pub(crate) fn next_head<S: Source>(source: &mut S, index: i32) -> Result<RecordHead, BatchError> {
    let bad = |what| BatchError::record(index, what);
    let body_len = varint_i32(source, index)?;
    let body_len = u64::try_from(body_len).map_err(|_| bad("its length is negative"))?;
    let end = source.position() + body_len;

    let _attributes = source.byte().map_err(|NoMore| ended(source, index))?;
    let timestamp_delta = varint::decode_i64(|| source.byte())
        .map_err(|NoMore| ended(source, index))?
        .ok_or_else(|| bad("its timestamp is not a varint"))?;
    let offset_delta = varint_i32(source, index)?;
    let has_key = skip_bytes(source, end, index)?;
    skip_bytes(source, end, index)?;

    let header_count = varint_i32(source, index)?;
    let header_count = u64::try_from(header_count).map_err(|_| bad("its headers do not fit"))?;
    if header_count > end.saturating_sub(source.position()) / 2 {
        return Err(bad("its headers do not fit"));
    }
    for _ in 0..header_count {
        if !skip_bytes(source, end, index)? {
            return Err(bad("a header has no key"));
        }
        skip_bytes(source, end, index)?;
    }
    if source.position() != end {
        return Err(bad("its parts do not fill its length"));
    }
    Ok(RecordHead {
        offset_delta,
        timestamp_delta,
        has_key,
    })
}

#[inline]
fn varint_i32<S: Source>(source: &mut S, index: i32) -> Result<i32, BatchError> {
    varint::decode_i32(|| source.byte())
        .map_err(|NoMore| ended(source, index))?
        .ok_or_else(|| BatchError::record(index, "a number in it is not a varint"))
}

/// Skips a length-prefixed byte string within `end`; false when it is null.
#[inline]
fn skip_bytes<S: Source>(source: &mut S, end: u64, index: i32) -> Result<bool, BatchError> {
    let len = varint_i32(source, index)?;
    let Ok(len) = u64::try_from(len) else {
        return Ok(false);
    };
    if len > end.saturating_sub(source.position()) {
        return Err(BatchError::record(index, "a part of it is longer than it"));
    }
    source.skip(len).map_err(|NoMore| ended(source, index))?;
    Ok(true)
}
