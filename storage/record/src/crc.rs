//! CRC-32C of a batch, and its correction after a change of the header.

use crate::layout::{ATTRIBUTES, HEADER_LEN};

/// The checksum of a whole batch: CRC-32C from the attributes to the end.
pub(crate) fn of_batch(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(ATTRIBUTES..).unwrap_or_default())
}

/// The checksummed part of a header, small enough to keep while the header is changed.
pub(crate) type HeaderTail = [u8; HEADER_LEN - ATTRIBUTES];

/// The checksum of a batch whose header changed from `before` to `after` while the `records_len`
/// bytes behind it did not.
///
/// CRC is linear: the change of the whole is the change of the header, shifted over the records.
/// So no byte of the records is read, and a batch whose checksum was wrong before stays wrong.
pub(crate) fn after_header_change(
    stated: u32,
    before: &HeaderTail,
    after: &HeaderTail,
    records_len: usize,
) -> u32 {
    let change = crc32c::crc32c(before) ^ crc32c::crc32c(after);
    stated ^ crc32c::crc32c_combine(change, 0, records_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrects_for_any_length_of_records() {
        for records_len in [0_usize, 1, 7, 64, 1000, 70_000] {
            let before: HeaderTail = std::array::from_fn(|i| u8::try_from(i * 5).unwrap_or(1));
            let mut after = before;
            after[1] ^= 0x08;
            after[14..22].copy_from_slice(&1_700_000_000_000_i64.to_be_bytes());
            let records: Vec<u8> = (0..records_len)
                .map(|i| u8::try_from(i % 251).unwrap_or(0))
                .collect();
            let whole = |header: &HeaderTail| crc32c::crc32c(&[&header[..], &records].concat());
            assert_eq!(
                after_header_change(whole(&before), &before, &after, records_len),
                whole(&after),
                "{records_len} bytes of records"
            );
        }
    }
}
