//! Finding a record by its timestamp.

use crate::batch::{BatchView, TimestampType};
use crate::compression::Compression;
use crate::error::BatchError;
use crate::stream::with_stream;
use crate::walk::{SliceSource, Source, next_head};

/// A record's place and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
}

/// The first record of the batch, at or above `min_offset`, whose timestamp is at least
/// `timestamp_ms`. With the batch's own maximum timestamp it finds the record that has it.
///
/// A compressed batch is decompressed as far as needed, as a stream.
///
/// # Errors
/// When the records cannot be read, or take more than `max_decompressed_bytes`.
pub fn first_record_at_or_after(
    batch: &BatchView<'_>,
    timestamp_ms: i64,
    min_offset: i64,
    max_decompressed_bytes: usize,
) -> Result<Option<TimestampedOffset>, BatchError> {
    if batch.timestamp_type() == TimestampType::LogAppendTime
        && batch.max_timestamp() < timestamp_ms
    {
        return Ok(None);
    }
    match batch.compression()? {
        Compression::None => find(
            &mut SliceSource::new(batch.records_bytes()),
            batch,
            timestamp_ms,
            min_offset,
        ),
        compression => with_stream(
            compression,
            batch.records_bytes(),
            max_decompressed_bytes,
            |stream| find(stream, batch, timestamp_ms, min_offset),
        ),
    }
}

fn find<S: Source>(
    source: &mut S,
    batch: &BatchView<'_>,
    timestamp_ms: i64,
    min_offset: i64,
) -> Result<Option<TimestampedOffset>, BatchError> {
    for index in 0..batch.record_count() {
        let head = next_head(source, index)?;
        let offset = batch
            .base_offset()
            .saturating_add(i64::from(head.offset_delta));
        let timestamp = batch.record_timestamp(head.timestamp_delta);
        if timestamp >= timestamp_ms && offset >= min_offset {
            return Ok(Some(TimestampedOffset { offset, timestamp }));
        }
    }
    Ok(None)
}
