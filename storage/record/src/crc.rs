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
    stated ^ shift(change, records_len)
}

/// CRC-32C's polynomial. In a number that stands for a polynomial the highest bit is the
/// coefficient of x^0.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^8, x^16, x^32 and so on, modulo the polynomial: what 1, 2, 4... bytes of zeros multiply by.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const POWERS: [u32; 32] = {
    let mut powers = [1 << (31 - 8); 32];
    let mut k = 1;
    while k < powers.len() {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// The remainder `crc`, after `len` bytes of zeros. (The crate's own `crc32c_combine` does the
/// same with matrices and takes 20 us, more than the checksum of 256 KiB.)
fn shift(crc: u32, len: usize) -> u32 {
    let mut shifted = crc;
    for (k, &power) in POWERS.iter().enumerate() {
        if len >> k & 1 == 1 {
            shifted = multiply(power, shifted);
        }
    }
    shifted
}

/// The product of two polynomials, modulo the polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1_u32 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        bit >>= 1;
        b = (b >> 1) ^ (if b & 1 == 1 { POLYNOMIAL } else { 0 });
    }
    product
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
