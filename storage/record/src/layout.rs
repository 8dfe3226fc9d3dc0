//! Where each field of the batch header lies. All numbers are big endian.
//!
//! ```text
//!  byte   0        8      12       16 17     21      23          27
//!        +--------+------+--------+--+------+-------+-----------+
//!        | base   | batch| leader |m | CRC  | attri-| last      |
//!        | offset | len  | epoch  |ag| 32C  | butes | offset d. |
//!        | i64    | i32  | i32    |i8| u32  | i16   | i32       |
//!        +--------+------+--------+--+------+-------+-----------+
//!  byte  27         35         43         51     53       57      61
//!        +----------+----------+----------+------+--------+-------+---------
//!        | base     | max      | producer | prod.| base   | count | records
//!        | timestamp| timestamp| id       | epoch| sequen.|       | ...
//!        | i64      | i64      | i64      | i16  | i32    | i32   |
//!        +----------+----------+----------+------+--------+-------+---------
//! ```
//!
//! The batch length counts what follows it (total length = 12 + batch length, at least 61). The
//! checksum covers everything from the attributes to the end, so base offset and leader epoch can
//! be stamped by a broker without computing it again.

/// Bytes before the first record.
pub const HEADER_LEN: usize = 61;
/// Base offset and batch length: the bytes that the batch length does not count.
pub const LENGTH_PREFIX_LEN: usize = 12;
/// The smallest legal batch length.
pub const MIN_BATCH_LENGTH: i32 = 49;
/// The only magic that is read and written.
pub const MAGIC_V2: i8 = 2;

/// Base offset, i64.
pub const BASE_OFFSET: usize = 0;
/// Batch length, i32.
pub const BATCH_LENGTH: usize = 8;
/// Partition leader epoch, i32.
pub const LEADER_EPOCH: usize = 12;
/// Magic, i8.
pub const MAGIC: usize = 16;
/// CRC-32C of the bytes from [`ATTRIBUTES`] to the end, u32.
pub const CRC: usize = 17;
/// Attributes, i16.
pub const ATTRIBUTES: usize = 21;
/// Last offset delta, i32.
pub const LAST_OFFSET_DELTA: usize = 23;
/// Base timestamp in milliseconds (the delete horizon where attribute bit 6 is set), i64.
pub const BASE_TIMESTAMP: usize = 27;
/// Maximum timestamp in milliseconds, i64.
pub const MAX_TIMESTAMP: usize = 35;
/// Producer id, i64.
pub const PRODUCER_ID: usize = 43;
/// Producer epoch, i16.
pub const PRODUCER_EPOCH: usize = 51;
/// Sequence number of the first record, i32.
pub const BASE_SEQUENCE: usize = 53;
/// Number of records, i32.
pub const RECORD_COUNT: usize = 57;

/// Attribute bits 0-2: the compression id.
pub const COMPRESSION_MASK: i16 = 0x07;
/// Attribute bit 3: timestamps are log append time.
pub const TIMESTAMP_TYPE_BIT: i16 = 0x08;
/// Attribute bit 4: part of a transaction.
pub const TRANSACTIONAL_BIT: i16 = 0x10;
/// Attribute bit 5: a control batch.
pub const CONTROL_BIT: i16 = 0x20;
/// Attribute bit 6: the base timestamp is a delete horizon.
pub const DELETE_HORIZON_BIT: i16 = 0x40;
/// Attribute bits that have no meaning yet.
pub const RESERVED_BITS: i16 = !0x7f;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// The producer id of a batch without idempotence.
pub const NO_PRODUCER_ID: i64 = -1;
/// The producer epoch of a batch without idempotence.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// The base sequence of a batch without idempotence.
pub const NO_SEQUENCE: i32 = -1;
/// The leader epoch of a batch that no leader has stamped.
pub const NO_LEADER_EPOCH: i32 = -1;
