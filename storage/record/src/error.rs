//! Why a batch is refused, by what the caller answers.

use crate::compression::Compression;

/// Why bytes are not a batch, or a batch is not taken.
///
/// One variant per answer that a caller gives: damaged on the way (`Incomplete`, `Corrupt`,
/// `CrcMismatch`: the sender may try again), too large, or wrong as it was built (the rest: trying
/// again changes nothing).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The bytes end before the batch does. More bytes may complete it.
    #[error("batch is cut short: {needed} bytes needed, {available} there")]
    Incomplete {
        /// Bytes that the batch needs, as far as they tell.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// The header contradicts itself.
    #[error("batch is corrupt: {what}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
    },
    /// The checksum does not match the bytes.
    #[error("batch is corrupt: checksum {stated:#010x} stated, {computed:#010x} computed")]
    CrcMismatch {
        /// The checksum in the header.
        stated: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A message format other than v2.
    #[error("message format {magic} is not supported, only 2 is")]
    UnsupportedMagic {
        /// The magic byte.
        magic: i8,
    },
    /// The batch is larger than the topic takes.
    #[error("batch of {len} bytes is larger than the limit of {max}")]
    TooLarge {
        /// Length of the batch.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// More records than are taken in one batch.
    #[error("batch of {count} records has more than the limit of {max}")]
    TooManyRecords {
        /// The count that the header states.
        count: i32,
        /// The limit.
        max: i32,
    },
    /// The header is whole and checksummed, and still not one that a producer may send.
    #[error("invalid batch: {what}")]
    InvalidBatch {
        /// What is wrong.
        what: &'static str,
    },
    /// A record does not fit its own lengths, its batch, or the rules.
    #[error("invalid record {index} of its batch: {what}")]
    InvalidRecord {
        /// Position of the record in the batch, from 0.
        index: i32,
        /// What is wrong.
        what: &'static str,
    },
    /// A record's timestamp is too far from now.
    #[error(
        "timestamp {timestamp_ms} of record {index} is outside {earliest_ms} to {latest_ms}; \
         correct the producer's clock or the topic's message.timestamp settings"
    )]
    InvalidTimestamp {
        /// Position of the record in the batch, from 0.
        index: i32,
        /// The record's timestamp.
        timestamp_ms: i64,
        /// The earliest that is taken now.
        earliest_ms: i64,
        /// The latest that is taken now.
        latest_ms: i64,
    },
    /// A producer claims log append time, which is the broker's to set.
    #[error("a producer must not set the timestamp type to log append time")]
    InvalidTimestampType,
    /// A compression id without a codec.
    #[error("compression id {id} is not supported")]
    UnsupportedCompression {
        /// The id in the attributes.
        id: u8,
    },
    /// The compressed records are not what their codec writes.
    #[error("{compression} records do not decompress: {what}")]
    Decompression {
        /// The codec.
        compression: Compression,
        /// What is wrong.
        what: &'static str,
    },
    /// The records decompress to more than is allowed.
    #[error("records decompress to more than the limit of {max} bytes")]
    DecompressedTooLarge {
        /// The limit that was reached.
        max: usize,
    },
    /// A codec failed to compress.
    #[error("records do not compress with {compression}; check the compression level")]
    Compress {
        /// The codec.
        compression: Compression,
    },
}

impl BatchError {
    pub(crate) fn record(index: i32, what: &'static str) -> Self {
        Self::InvalidRecord { index, what }
    }
}
