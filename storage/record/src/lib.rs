//! The record batch, format v2: the only definition of the bytes that are stored and sent.
//!
//! A batch is the unit of everything: a producer sends one, Raft replicates it as one entry, a
//! segment file is batches back to back, a fetch answers whole ones. This crate reads, checks,
//! builds and stamps them. It does no I/O, reads no clock and knows nothing of offsets beyond
//! what the bytes say.
//!
//! | File | Thing |
//! |---|---|
//! | [`layout`] | where each header field lies (the byte diagram) |
//! | `batch` | [`BatchView`], a view of one batch over bytes it does not own; [`batches`] |
//! | `validate` | [`validate`], what a broker checks before it takes a produced batch |
//! | `stamp` | the fields a broker writes in place: [`stamp`], [`stamp_log_append_time`] |
//! | `builder` | [`BatchBuilder`] |
//! | `record` | [`Record`], [`RecordIter`], [`OwnedRecord`] |
//! | `walk` | reading record heads from a slice or a decompressing stream, skipping the rest |
//! | `lookup` | [`first_record_at_or_after`], for questions by timestamp |
//! | `compression`, `stream`, `snappy` | the codecs, always behind an output limit |
//! | `control` | transaction markers and leader changes |
//! | `varint`, `crc` | zigzag numbers and CRC-32C |
//!
//! What must never be true:
//! - an allocation is sized by a number that the bytes merely declare;
//! - a byte sequence, whatever it is, makes anything here panic (the stamping functions assert
//!   that they are given a whole header; their callers hold a parsed batch);
//! - two readers of this crate disagree about where a record ends.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod builder;
mod compression;
pub mod control;
mod crc;
mod error;
pub mod layout;
mod lookup;
mod record;
mod snappy;
mod stamp;
mod stream;
mod validate;
pub mod varint;
mod walk;

pub use batch::{BatchIter, BatchView, TimestampType, batches, increment_sequence};
pub use builder::{BatchBuilder, record_len};
pub use compression::{Compression, compress, decompress};
pub use control::{ControlRecord, EndTxnMarker, LeaderChange, Voter};
pub use error::BatchError;
pub use layout::{
    HEADER_LEN, LENGTH_PREFIX_LEN, MAGIC_V2, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP,
};
pub use lookup::{TimestampedOffset, first_record_at_or_after};
pub use record::{
    Header, HeaderIter, OwnedRecord, OwnedRecordIter, Record, RecordIter, decode_records,
    owned_records,
};
pub use stamp::{
    apply_timestamps, stamp, stamp_log_append_time, stamp_max_timestamp, stamp_producer,
};
pub use validate::{BatchSummary, Limits, Origin, validate};
