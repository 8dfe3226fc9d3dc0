//! The fields that a broker writes into a batch in place.

use crate::batch::TimestampType;
use crate::crc;
use crate::layout::{
    ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, CRC, HEADER_LEN, LEADER_EPOCH, MAX_TIMESTAMP,
    PRODUCER_EPOCH, PRODUCER_ID, TIMESTAMP_TYPE_BIT,
};
use crate::validate::BatchSummary;

/// Writes the base offset and the leader's epoch. Both lie outside the checksum.
///
/// # Panics
/// When `batch` is shorter than a header: only parsed batches are stamped.
pub fn stamp(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    assert!(base_offset >= 0, "stamping the base offset {base_offset}");
    put(batch, BASE_OFFSET, base_offset.to_be_bytes());
    put(batch, LEADER_EPOCH, leader_epoch.to_be_bytes());
}

/// Turns a batch to log append time: sets the attribute bit and the maximum timestamp, and
/// corrects the checksum. The records keep their bytes, compressed or not; readers give each of
/// them the maximum timestamp.
///
/// # Panics
/// When `batch` is shorter than a header: only parsed batches are stamped.
pub fn stamp_log_append_time(batch: &mut [u8], timestamp_ms: i64) {
    stamp_timestamp(batch, TimestampType::LogAppendTime, timestamp_ms);
}

/// Writes the maximum timestamp of a create-time batch and corrects the checksum, for a producer
/// that stated another than its records have.
///
/// # Panics
/// When `batch` is shorter than a header: only parsed batches are stamped.
pub fn stamp_max_timestamp(batch: &mut [u8], timestamp_ms: i64) {
    stamp_timestamp(batch, TimestampType::CreateTime, timestamp_ms);
}

/// Writes the timestamps that [`crate::validate`] found to be right for this batch; does nothing
/// where they stand there already.
///
/// # Panics
/// When `batch` is shorter than a header: only validated batches are stamped.
pub fn apply_timestamps(batch: &mut [u8], summary: &BatchSummary) {
    if summary.timestamps_need_stamp {
        stamp_timestamp(batch, summary.timestamp_type, summary.max_timestamp);
    }
}

/// Writes an idempotent producer's identity and the first sequence number, and corrects the
/// checksum: for a producer that sends a built batch again under another identity.
///
/// # Panics
/// When `batch` is shorter than a header: only built batches are stamped.
pub fn stamp_producer(batch: &mut [u8], id: i64, epoch: i16, base_sequence: i32) {
    change_header(batch, |batch| {
        put(batch, PRODUCER_ID, id.to_be_bytes());
        put(batch, PRODUCER_EPOCH, epoch.to_be_bytes());
        put(batch, BASE_SEQUENCE, base_sequence.to_be_bytes());
    });
}

fn stamp_timestamp(batch: &mut [u8], timestamp_type: TimestampType, max_timestamp_ms: i64) {
    change_header(batch, |batch| {
        let attributes = i16::from_be_bytes(get(batch, ATTRIBUTES));
        let attributes = match timestamp_type {
            TimestampType::CreateTime => attributes & !TIMESTAMP_TYPE_BIT,
            TimestampType::LogAppendTime => attributes | TIMESTAMP_TYPE_BIT,
        };
        put(batch, ATTRIBUTES, attributes.to_be_bytes());
        put(batch, MAX_TIMESTAMP, max_timestamp_ms.to_be_bytes());
    });
}

/// Changes fields of the header that the checksum covers, and the checksum with them.
fn change_header(batch: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let before = checksummed_header(batch);
    change(batch);
    let after = checksummed_header(batch);
    let stated = u32::from_be_bytes(get(batch, CRC));
    let crc = crc::after_header_change(stated, &before, &after, batch.len() - HEADER_LEN);
    put(batch, CRC, crc.to_be_bytes());
}

fn checksummed_header(batch: &[u8]) -> crc::HeaderTail {
    get(batch, ATTRIBUTES)
}

/// Reads a field; the assertion is what the callers' `# Panics` speaks of.
fn get<const N: usize>(batch: &[u8], at: usize) -> [u8; N] {
    assert!(
        batch.len() >= HEADER_LEN,
        "a batch of {} bytes has no header",
        batch.len()
    );
    let mut out = [0; N];
    if let Some(bytes) = batch.get(at..at + N) {
        out.copy_from_slice(bytes);
    }
    out
}

fn put<const N: usize>(batch: &mut [u8], at: usize, value: [u8; N]) {
    assert!(
        batch.len() >= HEADER_LEN,
        "a batch of {} bytes has no header",
        batch.len()
    );
    if let Some(bytes) = batch.get_mut(at..at + N) {
        bytes.copy_from_slice(&value);
    }
}
