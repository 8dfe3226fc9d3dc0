//! Zigzag variable-length integers: at most 5 bytes for an i32, at most 10 for an i64.

use bytes::BufMut;

/// Most bytes that an i32 takes.
pub const MAX_LEN_I32: usize = 5;
/// Most bytes that an i64 takes.
pub const MAX_LEN_I64: usize = 10;

const CONTINUES: u8 = 0x80;
const PAYLOAD: u8 = 0x7f;

/// Writes `value` as a zigzag varint.
pub fn put_i32(out: &mut impl BufMut, value: i32) {
    put_u64(out, u64::from(zigzag_32(value)));
}

/// Writes `value` as a zigzag varlong.
pub fn put_i64(out: &mut impl BufMut, value: i64) {
    put_u64(out, zigzag_64(value));
}

/// Writes `value` as an unsigned varint, without zigzag.
pub fn put_u32(out: &mut impl BufMut, value: u32) {
    put_u64(out, u64::from(value));
}

/// Bytes that [`put_i32`] writes.
#[must_use]
pub fn len_i32(value: i32) -> usize {
    len_u64(u64::from(zigzag_32(value)))
}

/// Bytes that [`put_i64`] writes.
#[must_use]
pub fn len_i64(value: i64) -> usize {
    len_u64(zigzag_64(value))
}

/// Reads a zigzag varint off the front of `input`. `None` when it is cut short, longer than five
/// bytes or over 32 bits; `input` is then left anywhere within the number.
#[must_use]
pub fn get_i32(input: &mut &[u8]) -> Option<i32> {
    get_u32(input).map(unzigzag_32)
}

/// Reads a zigzag varlong off the front of `input`, as [`get_i32`] does.
#[must_use]
pub fn get_i64(input: &mut &[u8]) -> Option<i64> {
    decode_i64(|| take_byte(input).ok_or(())).ok().flatten()
}

/// Reads an unsigned varint off the front of `input`, as [`get_i32`] does.
#[must_use]
pub fn get_u32(input: &mut &[u8]) -> Option<u32> {
    decode_u32(|| take_byte(input).ok_or(())).ok().flatten()
}

#[inline]
fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    Some(byte)
}

/// Decodes from any supply of bytes. `Ok(None)` is a number that does not fit.
#[inline]
pub(crate) fn decode_i32<E>(next: impl FnMut() -> Result<u8, E>) -> Result<Option<i32>, E> {
    Ok(decode_u32(next)?.map(unzigzag_32))
}

#[inline]
fn decode_u32<E>(mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<u32>, E> {
    let first = next()?;
    if first & CONTINUES == 0 {
        return Ok(Some(u32::from(first)));
    }
    let mut raw = u32::from(first & PAYLOAD);
    for shift in [7_u32, 14, 21, 28] {
        let byte = next()?;
        // The fifth byte holds the last four bits: more would be lost, and its continuation bit
        // would be a sixth byte.
        if shift == 28 && byte > 0x0f {
            return Ok(None);
        }
        raw |= u32::from(byte & PAYLOAD) << shift;
        if byte & CONTINUES == 0 {
            break;
        }
    }
    Ok(Some(raw))
}

/// Decodes from any supply of bytes. `Ok(None)` is a number that does not fit.
#[inline]
pub(crate) fn decode_i64<E>(mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<i64>, E> {
    let first = next()?;
    if first & CONTINUES == 0 {
        return Ok(Some(unzigzag_64(u64::from(first))));
    }
    let mut raw = u64::from(first & PAYLOAD);
    for shift in [7_u32, 14, 21, 28, 35, 42, 49, 56, 63] {
        let byte = next()?;
        if shift == 63 && byte > 0x01 {
            return Ok(None);
        }
        raw |= u64::from(byte & PAYLOAD) << shift;
        if byte & CONTINUES == 0 {
            break;
        }
    }
    Ok(Some(unzigzag_64(raw)))
}

fn put_u64(out: &mut impl BufMut, mut raw: u64) {
    loop {
        let [low, ..] = raw.to_le_bytes();
        raw >>= 7;
        if raw == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | CONTINUES);
    }
}

fn len_u64(raw: u64) -> usize {
    let bits = (u64::BITS - raw.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
fn unzigzag_32(raw: u32) -> i32 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

#[inline]
fn unzigzag_64(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_the_known_bytes() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (-8192, &[0xff, 0x7f]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            put_i32(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            let mut out = Vec::new();
            put_i64(&mut out, i64::from(value));
            assert_eq!(out, bytes, "{value} as a varlong");
        }
    }

    #[test]
    fn refuses_cut_and_overlong_numbers() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xff, 0x10],
            &[0xff, 0xff, 0xff, 0xff, 0x8f, 0x00],
        ] {
            assert_eq!(get_i32(&mut &*bytes), None, "{bytes:?}");
        }
        assert_eq!(get_i64(&mut &[0xff; 9][..]), None);
        let mut ten = [0xff; 10];
        assert_eq!(get_i64(&mut &ten[..]), None);
        ten[9] = 0x02;
        assert_eq!(get_i64(&mut &ten[..]), None);
        ten[9] = 0x01;
        assert_eq!(get_i64(&mut &ten[..]), Some(i64::MIN));
    }

    proptest! {
        #[test]
        fn round_trips(a: i32, b: i64, c: u32) {
            let mut out = Vec::new();
            put_i32(&mut out, a);
            prop_assert_eq!(out.len(), len_i32(a));
            put_i64(&mut out, b);
            prop_assert_eq!(out.len(), len_i32(a) + len_i64(b));
            put_u32(&mut out, c);
            let mut input = &out[..];
            prop_assert_eq!(get_i32(&mut input), Some(a));
            prop_assert_eq!(get_i64(&mut input), Some(b));
            prop_assert_eq!(get_u32(&mut input), Some(c));
            prop_assert!(input.is_empty());
        }
    }
}
