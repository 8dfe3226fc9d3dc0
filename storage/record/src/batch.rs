//! A view of one batch over bytes that somebody else owns.

use crate::compression::Compression;
use crate::crc;
use crate::error::BatchError;
use crate::layout::{
    ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, BASE_TIMESTAMP, BATCH_LENGTH, COMPRESSION_MASK,
    CONTROL_BIT, CRC, DELETE_HORIZON_BIT, HEADER_LEN, LAST_OFFSET_DELTA, LEADER_EPOCH,
    LENGTH_PREFIX_LEN, MAGIC, MAGIC_V2, MAX_TIMESTAMP, MIN_BATCH_LENGTH, NO_SEQUENCE,
    PRODUCER_EPOCH, PRODUCER_ID, RECORD_COUNT, TIMESTAMP_TYPE_BIT, TRANSACTIONAL_BIT,
};
use crate::record::RecordIter;

/// Who set a batch's timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer, for each record.
    #[default]
    CreateTime,
    /// The broker that appended it: every record has the batch's maximum timestamp.
    LogAppendTime,
}

/// One batch, seen over its bytes. Nothing is copied and only the header is looked at.
///
/// INVARIANT: `header` is the front of `bytes`, and `bytes` has exactly the length it states.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Takes the batch at the front of `bytes`; bytes behind it are not looked at.
    ///
    /// Checks only what a reader needs to find its way: a whole header, magic 2, and all of the
    /// length it states. The checksum and the records are for [`BatchView::check_stored`] and
    /// [`crate::validate`].
    ///
    /// # Errors
    /// `Incomplete` when more bytes are needed, `UnsupportedMagic`, or `Corrupt` for an impossible
    /// length.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        // The magic lies at the same place in every format, so an old and short message is named
        // for what it is.
        if let Some(&magic) = bytes.get(MAGIC)
            && magic.cast_signed() != MAGIC_V2
        {
            return Err(BatchError::UnsupportedMagic {
                magic: magic.cast_signed(),
            });
        }
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Incomplete {
                needed: HEADER_LEN,
                available: bytes.len(),
            });
        };
        let length = i32::from_be_bytes(field(header, BATCH_LENGTH));
        if length < MIN_BATCH_LENGTH {
            return Err(BatchError::Corrupt {
                what: "the batch length is below that of a header",
            });
        }
        let total_len = LENGTH_PREFIX_LEN + usize::try_from(length).unwrap_or_default();
        match bytes.get(..total_len) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Incomplete {
                needed: total_len,
                available: bytes.len(),
            }),
        }
    }

    /// Checks what every batch in a log must satisfy, whoever built it: the checksum, and offsets
    /// and counts that are possible.
    ///
    /// # Errors
    /// `CrcMismatch` or `Corrupt`.
    pub fn check_stored(&self) -> Result<(), BatchError> {
        self.check_crc()?;
        if self.base_offset() < 0
            || self
                .base_offset()
                .checked_add(i64::from(i32::MAX))
                .is_none()
        {
            return Err(BatchError::Corrupt {
                what: "the base offset is impossible",
            });
        }
        let (delta, count) = (self.last_offset_delta(), self.record_count());
        // Compaction keeps the offsets of a batch and drops records, so there may be fewer.
        if delta < 0 || count < 0 || i64::from(count) > i64::from(delta) + 1 {
            return Err(BatchError::Corrupt {
                what: "record count and offsets do not fit",
            });
        }
        Ok(())
    }

    pub(crate) fn check_crc(&self) -> Result<(), BatchError> {
        let (stated, computed) = (self.crc(), crc::of_batch(self.bytes));
        if stated == computed {
            Ok(())
        } else {
            Err(BatchError::CrcMismatch { stated, computed })
        }
    }

    /// Whether the checksum matches the bytes.
    #[must_use]
    pub fn crc_is_valid(&self) -> bool {
        self.check_crc().is_ok()
    }

    /// Offset of the first record (before compaction).
    #[must_use]
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(field(self.header, BASE_OFFSET))
    }

    /// Bytes behind the length field, as the header states them.
    #[must_use]
    pub fn batch_length(&self) -> i32 {
        i32::from_be_bytes(field(self.header, BATCH_LENGTH))
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// Epoch of the leader that appended the batch, or -1.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(field(self.header, LEADER_EPOCH))
    }

    /// Message format; always 2 here.
    #[must_use]
    pub fn magic(&self) -> i8 {
        i8::from_be_bytes(field(self.header, MAGIC))
    }

    /// The checksum that the header states.
    #[must_use]
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(field(self.header, CRC))
    }

    /// The attribute bits.
    #[must_use]
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(field(self.header, ATTRIBUTES))
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `UnsupportedCompression` for an id without a codec.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let [_, id] = (self.attributes() & COMPRESSION_MASK).to_be_bytes();
        Compression::from_id(id).ok_or(BatchError::UnsupportedCompression { id })
    }

    /// Who set the timestamps.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch is for the brokers, not for consumers.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Whether the base timestamp is the time from which tombstones may be dropped.
    #[must_use]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON_BIT != 0
    }

    /// Offset of the last record (before compaction), counted from the base offset.
    #[must_use]
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(field(self.header, LAST_OFFSET_DELTA))
    }

    /// Offset of the last record (before compaction).
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset()
            .saturating_add(i64::from(self.last_offset_delta()))
    }

    /// Offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The timestamp that the records' deltas count from.
    #[must_use]
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(field(self.header, BASE_TIMESTAMP))
    }

    /// The greatest timestamp of the records, or -1.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(field(self.header, MAX_TIMESTAMP))
    }

    /// The producer's id, or -1.
    #[must_use]
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(field(self.header, PRODUCER_ID))
    }

    /// The producer's epoch, or -1.
    #[must_use]
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(field(self.header, PRODUCER_EPOCH))
    }

    /// Sequence number of the first record, or -1.
    #[must_use]
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(field(self.header, BASE_SEQUENCE))
    }

    /// Sequence number of the last record, or -1. After 2^31-1 comes 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            NO_SEQUENCE => NO_SEQUENCE,
            base => increment_sequence(base, self.last_offset_delta()),
        }
    }

    /// Number of records, as the header states it.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(field(self.header, RECORD_COUNT))
    }

    /// The records, compressed as the attributes say.
    #[must_use]
    pub fn records_bytes(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// The whole batch.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records of a batch that is not compressed. `None` for a compressed one, which goes
    /// through [`crate::decode_records`] or [`crate::owned_records`].
    #[must_use]
    pub fn plain_records(&self) -> Option<RecordIter<'a>> {
        matches!(self.compression(), Ok(Compression::None))
            .then(|| RecordIter::new(self.records_bytes(), self.record_count()))
    }

    /// The timestamp of a record with this delta.
    #[must_use]
    pub fn record_timestamp(&self, timestamp_delta: i64) -> i64 {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp().saturating_add(timestamp_delta),
            TimestampType::LogAppendTime => self.max_timestamp(),
        }
    }
}

impl std::fmt::Debug for BatchView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchView")
            .field("base_offset", &self.base_offset())
            .field("last_offset_delta", &self.last_offset_delta())
            .field("leader_epoch", &self.leader_epoch())
            .field("attributes", &self.attributes())
            .field("max_timestamp", &self.max_timestamp())
            .field("producer_id", &self.producer_id())
            .field("producer_epoch", &self.producer_epoch())
            .field("base_sequence", &self.base_sequence())
            .field("record_count", &self.record_count())
            .field("total_len", &self.total_len())
            .finish_non_exhaustive()
    }
}

/// The sequence number `by` after `sequence`: after 2^31-1 comes 0.
#[must_use]
pub fn increment_sequence(sequence: i32, by: i32) -> i32 {
    const CYCLE: i64 = 1 << 31;
    let next = (i64::from(sequence) + i64::from(by)).rem_euclid(CYCLE);
    i32::try_from(next).unwrap_or(0)
}

/// The batches that lie back to back in `bytes`.
///
/// The last item is an error when the bytes end within a batch or what follows is not one; after
/// an error the iterator ends.
#[must_use]
pub fn batches(bytes: &[u8]) -> BatchIter<'_> {
    BatchIter {
        rest: bytes,
        position: 0,
    }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct BatchIter<'a> {
    rest: &'a [u8],
    position: usize,
}

impl BatchIter<'_> {
    /// Where the next batch begins, or the one that could not be read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = BatchView::parse(self.rest);
        match &parsed {
            Ok(view) => {
                self.rest = self.rest.get(view.total_len()..).unwrap_or_default();
                self.position += view.total_len();
            }
            Err(_) => self.rest = &[],
        }
        Some(parsed)
    }
}

/// A big endian field of the header; `at` and `N` are constants of the layout.
#[inline]
fn field<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(bytes) = header.get(at..at + N) {
        out.copy_from_slice(bytes);
    }
    out
}
