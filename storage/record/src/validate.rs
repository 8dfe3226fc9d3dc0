//! What a broker checks before it takes a batch that was produced.
//!
//! The rules are those of Apache Kafka's broker for format v2, and stricter where it is lenient
//! without need: offset deltas must be 0, 1, 2 and so on in compressed batches and others alike,
//! a record's parts must fill its length in both, and attribute bits without a meaning, or that
//! only brokers set, are refused. One bad batch would stop every consumer of its partition.

use crate::batch::{BatchView, TimestampType, increment_sequence};
use crate::compression::Compression;
use crate::error::BatchError;
use crate::layout::{NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, RESERVED_BITS};
use crate::stream::{lz4_blocks_are_independent, with_stream};
use crate::walk::{SliceSource, Source, next_head};

/// Who sends a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A client. It may not write control batches, and counts offsets from 0.
    #[default]
    Client,
    /// A coordinator of this cluster.
    Broker,
}

/// What a batch is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Who sends it.
    pub origin: Origin,
    /// The time, in milliseconds since the epoch.
    pub now_ms: i64,
    /// Who sets timestamps in this topic.
    pub timestamp_type: TimestampType,
    /// How far before now a record's timestamp may lie (create time only).
    pub timestamp_before_max_ms: i64,
    /// How far after now a record's timestamp may lie (create time only).
    pub timestamp_after_max_ms: i64,
    /// Most bytes of a batch, as it was sent.
    pub max_batch_bytes: usize,
    /// Most records in a batch.
    pub max_records: i32,
    /// Most bytes that the records of a compressed batch may decompress to.
    pub max_decompressed_bytes: usize,
    /// Most bytes that a byte of compressed records may become, beyond
    /// [`Limits::RATIO_FREE_BYTES`]: a small batch cannot cost as much work as a large one.
    pub max_decompression_ratio: usize,
    /// Whether every record needs a key, as in a compacted topic.
    pub require_keys: bool,
}

impl Limits {
    /// Decompressed bytes that every batch is allowed, whatever its ratio.
    pub const RATIO_FREE_BYTES: usize = 16 << 20;

    /// Kafka's defaults for a topic, and our own where Kafka has no limit.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self {
            origin: Origin::Client,
            now_ms,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            max_batch_bytes: 1_048_588,
            max_records: 1 << 21,
            max_decompressed_bytes: 128 << 20,
            max_decompression_ratio: 1024,
            require_keys: false,
        }
    }

    fn max_output_bytes(&self, compressed_bytes: usize) -> usize {
        let by_ratio = compressed_bytes.saturating_mul(self.max_decompression_ratio);
        self.max_decompressed_bytes
            .min(by_ratio.max(Self::RATIO_FREE_BYTES))
    }
}

/// What is known of a batch that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSummary {
    /// Number of records; at least 1.
    pub record_count: i32,
    /// Offset of the last record, counted from the base offset: `record_count - 1`.
    pub last_offset_delta: i32,
    /// Who sets the timestamps, as the topic says.
    pub timestamp_type: TimestampType,
    /// The greatest timestamp of its records, or now for log append time, or -1.
    pub max_timestamp: i64,
    /// Offset of the first record that has it, counted from the base offset.
    pub offset_delta_of_max_timestamp: i32,
    /// Whether the header says otherwise, so that [`crate::apply_timestamps`] is needed before the
    /// batch is appended.
    pub timestamps_need_stamp: bool,
    /// Bytes of the whole batch.
    pub total_len: usize,
    /// The producer's id, or -1.
    pub producer_id: i64,
    /// The producer's epoch; -1 without a producer id.
    pub producer_epoch: i16,
    /// Sequence number of the first record; -1 without a producer id.
    pub base_sequence: i32,
    /// Whether the batch belongs to a transaction.
    pub is_transactional: bool,
    /// Whether it is a control batch.
    pub is_control: bool,
    /// How it is compressed.
    pub compression: Compression,
}

impl BatchSummary {
    /// Sequence number of the last record, or -1 without a producer id. After 2^31-1 comes 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence {
            NO_SEQUENCE => NO_SEQUENCE,
            base => increment_sequence(base, self.last_offset_delta),
        }
    }
}

/// Checks all of one batch: `batch` holds it and nothing else.
///
/// The bytes are read once for the checksum; then the heads of the records are walked, where they
/// are compressed through a small buffer and behind the output limit, with keys, values and
/// headers skipped and nothing allocated for a record.
///
/// # Errors
/// See [`BatchError`]; each variant is one answer.
pub fn validate(batch: &[u8], limits: &Limits) -> Result<BatchSummary, BatchError> {
    let view = BatchView::parse(batch)?;
    if view.total_len() > limits.max_batch_bytes {
        return Err(BatchError::TooLarge {
            len: view.total_len(),
            max: limits.max_batch_bytes,
        });
    }
    if view.total_len() != batch.len() {
        return Err(invalid("bytes follow it; send one batch for a partition"));
    }
    view.check_crc()?;
    check_header(&view, limits)?;
    let compression = view.compression()?;
    let records = view.records_bytes();
    let walked = match compression {
        Compression::None => walk(&mut SliceSource::new(records), &view, limits)?,
        Compression::Lz4 if !lz4_blocks_are_independent(records) => {
            return Err(BatchError::Decompression {
                compression,
                what: "blocks that depend on each other cannot be read by all clients",
            });
        }
        compression => {
            let max = limits.max_output_bytes(records.len());
            with_stream(compression, records, max, |stream| {
                walk(stream, &view, limits)
            })?
        }
    };
    let (max_timestamp, offset_delta_of_max_timestamp) = match limits.timestamp_type {
        TimestampType::CreateTime => (walked.max_timestamp, walked.index_of_max_timestamp),
        TimestampType::LogAppendTime => (limits.now_ms, 0),
    };
    let has_producer = view.producer_id() != NO_PRODUCER_ID;
    Ok(BatchSummary {
        record_count: view.record_count(),
        last_offset_delta: view.last_offset_delta(),
        timestamp_type: limits.timestamp_type,
        max_timestamp,
        offset_delta_of_max_timestamp,
        timestamps_need_stamp: view.timestamp_type() != limits.timestamp_type
            || view.max_timestamp() != max_timestamp,
        total_len: view.total_len(),
        producer_id: view.producer_id(),
        producer_epoch: if has_producer {
            view.producer_epoch()
        } else {
            -1
        },
        base_sequence: if has_producer {
            view.base_sequence()
        } else {
            -1
        },
        is_transactional: view.is_transactional(),
        is_control: view.is_control(),
        compression,
    })
}

fn invalid(what: &'static str) -> BatchError {
    BatchError::InvalidBatch { what }
}

fn check_header(view: &BatchView<'_>, limits: &Limits) -> Result<(), BatchError> {
    let count = view.record_count();
    if count <= 0 {
        return Err(invalid("it states no records"));
    }
    if i64::from(view.last_offset_delta()) != i64::from(count) - 1 {
        return Err(invalid("its last offset delta and record count do not fit"));
    }
    if count > limits.max_records {
        return Err(BatchError::TooManyRecords {
            count,
            max: limits.max_records,
        });
    }
    if view.attributes() & RESERVED_BITS != 0 {
        return Err(invalid("attribute bits without a meaning are set"));
    }
    if view.has_delete_horizon() {
        return Err(invalid(
            "it has a delete horizon, which only compaction sets",
        ));
    }
    if view.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::InvalidTimestampType);
    }
    if limits.origin == Origin::Client {
        if view.is_control() {
            return Err(invalid("clients are not allowed to write control records"));
        }
        if view.base_offset() != 0 {
            return Err(invalid("its base offset is not 0"));
        }
    }
    check_producer(view)
}

/// Without a producer id nothing is asked of epoch and sequence: clients are known that send 0
/// there. Control batches carry an id and no sequence.
fn check_producer(view: &BatchView<'_>) -> Result<(), BatchError> {
    match view.producer_id() {
        NO_PRODUCER_ID if view.is_transactional() => {
            Err(invalid("it is transactional and has no producer id"))
        }
        NO_PRODUCER_ID => Ok(()),
        id if id < 0 => Err(invalid("its producer id is negative")),
        _ if view.producer_epoch() < 0 => Err(invalid("its producer epoch is negative")),
        _ if view.base_sequence() < 0 && !view.is_control() => {
            Err(invalid("it has a producer id and no sequence number"))
        }
        _ => Ok(()),
    }
}

struct Walked {
    max_timestamp: i64,
    index_of_max_timestamp: i32,
}

fn walk<S: Source>(
    source: &mut S,
    view: &BatchView<'_>,
    limits: &Limits,
) -> Result<Walked, BatchError> {
    let base_timestamp = view.base_timestamp();
    let check_timestamps = limits.timestamp_type == TimestampType::CreateTime;
    let mut walked = Walked {
        max_timestamp: NO_TIMESTAMP,
        index_of_max_timestamp: 0,
    };
    for index in 0..view.record_count() {
        let head = next_head(source, index)?;
        if head.offset_delta != index {
            return Err(BatchError::record(
                index,
                "its offset delta is not its position",
            ));
        }
        if limits.require_keys && !head.has_key {
            return Err(BatchError::record(index, "a compacted topic needs keys"));
        }
        let timestamp =
            base_timestamp
                .checked_add(head.timestamp_delta)
                .ok_or(BatchError::record(
                    index,
                    "its timestamp delta is impossible",
                ))?;
        if check_timestamps {
            check_timestamp(timestamp, index, limits)?;
        }
        if timestamp > walked.max_timestamp {
            walked.max_timestamp = timestamp;
            walked.index_of_max_timestamp = index;
        }
    }
    if source.is_at_end()? {
        Ok(walked)
    } else {
        Err(BatchError::record(
            view.record_count(),
            "bytes follow the last record",
        ))
    }
}

#[inline]
fn check_timestamp(timestamp_ms: i64, index: i32, limits: &Limits) -> Result<(), BatchError> {
    let before_ms = limits.now_ms.saturating_sub(timestamp_ms);
    let after_ms = timestamp_ms.saturating_sub(limits.now_ms);
    if timestamp_ms != NO_TIMESTAMP
        && (before_ms > limits.timestamp_before_max_ms || after_ms > limits.timestamp_after_max_ms)
    {
        return Err(BatchError::InvalidTimestamp {
            index,
            timestamp_ms,
            earliest_ms: limits.now_ms.saturating_sub(limits.timestamp_before_max_ms),
            latest_ms: limits.now_ms.saturating_add(limits.timestamp_after_max_ms),
        });
    }
    Ok(())
}
