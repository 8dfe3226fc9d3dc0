//! Builds a batch.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::TimestampType;
use crate::compression::{Compression, compress};
use crate::crc;
use crate::error::BatchError;
use crate::layout::{
    CONTROL_BIT, CRC, HEADER_LEN, LENGTH_PREFIX_LEN, MAGIC_V2, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TIMESTAMP_TYPE_BIT, TRANSACTIONAL_BIT,
};
use crate::record::Header;
use crate::varint;

/// Most bytes of a batch that the format can state.
const MAX_TOTAL_LEN: usize = i32::MAX as usize;

/// Builds one batch out of records appended in order, with offsets counted from the base offset.
///
/// Uncompressed records are written once, straight into the memory that becomes the batch.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    level: Option<i32>,
    base_offset: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    timestamp_type: TimestampType,
    is_transactional: bool,
    is_control: bool,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    count: i32,
    /// Room for the header, then the records, not compressed.
    buffer: BytesMut,
}

impl BatchBuilder {
    /// A builder without records. The level is gzip's or zstd's; `None` is the codec's default.
    #[must_use]
    pub fn new(compression: Compression, level: Option<i32>) -> Self {
        Self::with_capacity(compression, level, 0)
    }

    /// The same, with memory for `record_bytes` taken at once.
    #[must_use]
    pub fn with_capacity(
        compression: Compression,
        level: Option<i32>,
        record_bytes: usize,
    ) -> Self {
        let mut buffer = BytesMut::with_capacity(HEADER_LEN + record_bytes);
        buffer.put_bytes(0, HEADER_LEN);
        Self {
            compression,
            level,
            base_offset: 0,
            leader_epoch: NO_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            timestamp_type: TimestampType::CreateTime,
            is_transactional: false,
            is_control: false,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            count: 0,
            buffer,
        }
    }

    /// Sets an idempotent producer's identity and the sequence number of the first record.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Sets the base offset; 0 where a broker will stamp it.
    #[must_use]
    pub fn base_offset(mut self, base_offset: i64) -> Self {
        self.base_offset = base_offset;
        self
    }

    /// Sets the leader's epoch; -1 where a broker will stamp it.
    #[must_use]
    pub fn leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.leader_epoch = leader_epoch;
        self
    }

    /// Sets who sets the timestamps; the producer by default.
    #[must_use]
    pub fn timestamp_type(mut self, timestamp_type: TimestampType) -> Self {
        self.timestamp_type = timestamp_type;
        self
    }

    /// Makes the batch part of a transaction.
    #[must_use]
    pub fn transactional(mut self, is_transactional: bool) -> Self {
        self.is_transactional = is_transactional;
        self
    }

    /// Makes it a control batch.
    #[must_use]
    pub fn control(mut self, is_control: bool) -> Self {
        self.is_control = is_control;
        self
    }

    /// Appends a record. A refused record leaves the builder as it was.
    ///
    /// # Errors
    /// `TooLarge` when the batch could not state its length, `TooManyRecords`, and `InvalidRecord`
    /// for a timestamp too far from the first record's.
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), BatchError> {
        let offset_delta = self.count;
        if offset_delta == i32::MAX {
            return Err(BatchError::TooManyRecords {
                count: i32::MAX,
                max: i32::MAX,
            });
        }
        let base_timestamp = self.base_timestamp.unwrap_or(timestamp_ms);
        let timestamp_delta =
            timestamp_ms
                .checked_sub(base_timestamp)
                .ok_or(BatchError::record(
                    offset_delta,
                    "its timestamp is too far from the first",
                ))?;
        let body_len = body_len(offset_delta, timestamp_delta, key, value, headers);
        let len = self
            .buffer
            .len()
            .saturating_add(body_len)
            .saturating_add(varint::MAX_LEN_I32);
        let too_large = BatchError::TooLarge {
            len,
            max: MAX_TOTAL_LEN,
        };
        let body_len_i32 = i32::try_from(body_len).map_err(|_| too_large.clone())?;
        if len > MAX_TOTAL_LEN {
            return Err(too_large);
        }

        let out = &mut self.buffer;
        out.reserve(body_len + varint::MAX_LEN_I32);
        varint::put_i32(out, body_len_i32);
        out.put_u8(0);
        varint::put_i64(out, timestamp_delta);
        varint::put_i32(out, offset_delta);
        put_bytes(out, key);
        put_bytes(out, value);
        varint::put_i32(out, i32::try_from(headers.len()).unwrap_or(i32::MAX));
        for header in headers {
            put_bytes(out, Some(header.key));
            put_bytes(out, header.value);
        }
        self.base_timestamp = Some(base_timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        self.count += 1;
        Ok(())
    }

    /// Number of records so far.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Whether there is no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch as it stands; of a compressed one, before its compression.
    #[must_use]
    pub fn estimated_len(&self) -> usize {
        self.buffer.len()
    }

    /// The batch, in one piece of memory.
    ///
    /// # Errors
    /// `InvalidBatch` without a record; `Compress` when the codec fails.
    pub fn build(self) -> Result<Bytes, BatchError> {
        self.build_mut().map(BytesMut::freeze)
    }

    /// The batch, still writable, for [`crate::stamp`].
    ///
    /// # Errors
    /// As [`BatchBuilder::build`].
    pub fn build_mut(mut self) -> Result<BytesMut, BatchError> {
        if self.is_empty() {
            return Err(BatchError::InvalidBatch {
                what: "it has no records",
            });
        }
        let mut batch = std::mem::take(&mut self.buffer);
        if self.compression != Compression::None {
            let records = batch.get(HEADER_LEN..).unwrap_or_default();
            let mut compressed = BytesMut::with_capacity(HEADER_LEN + records.len() / 2 + 64);
            compressed.put_bytes(0, HEADER_LEN);
            compress(self.compression, self.level, records, &mut compressed)?;
            batch = compressed;
        }
        let length = batch.len() - LENGTH_PREFIX_LEN;
        let length = i32::try_from(length).map_err(|_| BatchError::TooLarge {
            len: batch.len(),
            max: MAX_TOTAL_LEN,
        })?;
        self.write_header(&mut batch, length);
        let crc = crc::of_batch(&batch);
        if let Some(field) = batch.get_mut(CRC..CRC + 4) {
            field.copy_from_slice(&crc.to_be_bytes());
        }
        Ok(batch)
    }

    fn write_header(&self, batch: &mut [u8], length: i32) {
        let mut attributes = i16::from(self.compression.id());
        if self.timestamp_type == TimestampType::LogAppendTime {
            attributes |= TIMESTAMP_TYPE_BIT;
        }
        if self.is_transactional {
            attributes |= TRANSACTIONAL_BIT;
        }
        if self.is_control {
            attributes |= CONTROL_BIT;
        }
        let mut out = batch;
        out.put_i64(self.base_offset);
        out.put_i32(length);
        out.put_i32(self.leader_epoch);
        out.put_i8(MAGIC_V2);
        out.put_u32(0);
        out.put_i16(attributes);
        out.put_i32(self.count - 1);
        out.put_i64(self.base_timestamp.unwrap_or(NO_TIMESTAMP));
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.count);
    }
}

/// Bytes that a record takes in a batch, its own length included.
#[must_use]
pub fn record_len(
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> usize {
    let len = body_len(offset_delta, timestamp_delta, key, value, headers);
    len.saturating_add(varint::len_i32(i32::try_from(len).unwrap_or(i32::MAX)))
}

fn body_len(
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> usize {
    let count = i32::try_from(headers.len()).unwrap_or(i32::MAX);
    let headers_len: usize = headers
        .iter()
        .map(|header| bytes_len(Some(header.key)) + bytes_len(header.value))
        .sum();
    1 + varint::len_i64(timestamp_delta)
        + varint::len_i32(offset_delta)
        + bytes_len(key)
        + bytes_len(value)
        + varint::len_i32(count)
        + headers_len
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| {
        varint::len_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX)) + bytes.len()
    })
}

/// Writes a length and the bytes. The caller has checked that the record as a whole has a length,
/// so each part has.
fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::put_i32(out, i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            out.put_slice(bytes);
        }
        None => varint::put_i32(out, -1),
    }
}
