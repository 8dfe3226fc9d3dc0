//! From the bytes of a fetch to records.
//!
//! A broker answers with whole batches: the first may begin before the offset that was asked for,
//! and the last may be cut off where the answer's limit fell. Both are trimmed here.

use bytes::Bytes;
use riverrun_record::{BatchError, BatchView, OwnedRecord, owned_records};

/// What a fetch of one partition brought.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) records: Vec<OwnedRecord>,
    /// Where the next fetch begins.
    pub(crate) next_offset: i64,
    /// Epoch of the last batch, if there was one.
    pub(crate) epoch: Option<i32>,
    /// Memory that the records hold, about.
    pub(crate) bytes: usize,
}

/// Limits and checks of decoding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecodeConfig {
    pub(crate) check_crcs: bool,
    /// Most bytes that one batch may decompress to, and all that are read at once.
    pub(crate) max_decompressed_bytes: usize,
}

/// Reads the batches in `bytes`, from `offset` on. With an error comes what was read before it,
/// which is good; the batch at its `next_offset` is not.
pub(crate) fn decode(
    bytes: &Bytes,
    offset: i64,
    config: DecodeConfig,
) -> (Decoded, Option<BatchError>) {
    let mut decoded = Decoded {
        next_offset: offset,
        ..Decoded::default()
    };
    let mut rest = bytes.clone();
    let mut budget = config.max_decompressed_bytes;
    while !rest.is_empty() {
        match one(&rest, &mut decoded, &mut budget, config.check_crcs) {
            Ok(len) => rest = rest.slice(len.min(rest.len())..),
            // The answer's limit fell inside this batch. It comes whole with the next fetch, which
            // begins with it.
            Err(BatchError::Incomplete { .. }) if rest.len() < bytes.len() => break,
            // Too much with those before it, not by itself: it comes again with the next fetch.
            Err(BatchError::DecompressedTooLarge { .. })
                if budget < config.max_decompressed_bytes =>
            {
                break;
            }
            Err(error) => return (decoded, Some(error)),
        }
    }
    (decoded, None)
}

/// Reads the first batch of `rest` and says how long it is.
fn one(
    rest: &Bytes,
    decoded: &mut Decoded,
    budget: &mut usize,
    check_crc: bool,
) -> Result<usize, BatchError> {
    let view = BatchView::parse(rest)?;
    let len = view.total_len();
    let next_offset = view.next_offset();
    if next_offset <= decoded.next_offset {
        // All of it lies before what was asked for.
        return Ok(len);
    }
    if check_crc && !view.crc_is_valid() {
        return Err(BatchError::Corrupt {
            what: "the checksum does not match the bytes",
        });
    }
    if !view.is_control() {
        let first = decoded.next_offset;
        let kept = decoded.records.len();
        for record in owned_records(&rest.slice(..len), *budget)? {
            match record {
                Ok(record) if record.offset >= first => decoded.records.push(record),
                Ok(_) => {}
                Err(error) => {
                    // Half a batch is never shown: its first records would be seen again.
                    decoded.records.truncate(kept);
                    return Err(error);
                }
            }
        }
        let new = decoded.records.get(kept..).unwrap_or_default();
        let bytes = new.iter().map(size).sum();
        decoded.bytes += bytes;
        *budget = budget.saturating_sub(bytes);
    }
    decoded.next_offset = next_offset;
    decoded.epoch = Some(view.leader_epoch());
    Ok(len)
}

/// Bytes that a record keeps in memory, about.
fn size(record: &OwnedRecord) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + len(value) + size_of::<(Bytes, Option<Bytes>)>())
        .sum::<usize>();
    size_of::<OwnedRecord>() + len(&record.key) + len(&record.value) + headers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use bytes::BytesMut;
    use riverrun_record::{BatchBuilder, Compression, stamp};

    use super::*;

    const CONFIG: DecodeConfig = DecodeConfig {
        check_crcs: true,
        max_decompressed_bytes: 1 << 20,
    };

    fn batch(base_offset: i64, records: i64, compression: Compression) -> BytesMut {
        let mut builder = BatchBuilder::new(compression, None);
        for n in 0..records {
            let value = format!("value {}", base_offset + n);
            builder
                .append(1_000 + n, None, Some(value.as_bytes()), &[])
                .unwrap();
        }
        let mut batch = builder.build_mut().unwrap();
        stamp(&mut batch, base_offset, 3);
        batch
    }

    fn offsets(decoded: &Decoded) -> Vec<i64> {
        decoded.records.iter().map(|r| r.offset).collect()
    }

    #[test]
    fn records_before_the_offset_are_trimmed() {
        for compression in Compression::ALL {
            let mut bytes = batch(10, 5, compression);
            bytes.extend_from_slice(&batch(15, 2, compression));
            let (decoded, error) = decode(&bytes.freeze(), 12, CONFIG);
            assert_eq!(error, None);
            assert_eq!(offsets(&decoded), [12, 13, 14, 15, 16]);
            assert_eq!(decoded.next_offset, 17);
            assert_eq!(decoded.epoch, Some(3));
            assert_eq!(decoded.records[0].value.as_deref(), Some(&b"value 12"[..]));
        }
    }

    #[test]
    fn a_batch_cut_off_at_the_end_is_left_for_the_next_fetch() {
        let mut bytes = batch(0, 3, Compression::None);
        let second = batch(3, 3, Compression::None);
        for cut in [1, 20, 61, second.len() - 1] {
            let mut cut_off = bytes.clone();
            cut_off.extend_from_slice(&second[..cut]);
            let (decoded, error) = decode(&cut_off.freeze(), 0, CONFIG);
            let found = (offsets(&decoded), decoded.next_offset, error);
            assert_eq!(found, (vec![0, 1, 2], 3, None));
        }
        // A first batch that is not whole would be asked for for ever: that is an error.
        bytes.truncate(80);
        let (_, error) = decode(&bytes.freeze(), 0, CONFIG);
        assert!(matches!(error, Some(BatchError::Incomplete { .. })));
    }

    #[test]
    fn a_flipped_bit_is_found_and_what_stands_before_it_is_good() {
        let mut bytes = batch(0, 3, Compression::None);
        let second = bytes.len();
        bytes.extend_from_slice(&batch(3, 3, Compression::None));
        bytes[second + 70] ^= 1;
        let (decoded, error) = decode(&bytes.freeze(), 0, CONFIG);
        let found = (offsets(&decoded), decoded.next_offset);
        assert_eq!(found, (vec![0, 1, 2], 3));
        assert!(error.is_some());
    }

    #[test]
    fn control_batches_move_the_offset_and_show_nothing() {
        let mut builder = BatchBuilder::new(Compression::None, None).control(true);
        builder
            .append(0, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 0]), &[])
            .unwrap();
        let mut control = builder.build_mut().unwrap();
        stamp(&mut control, 7, 1);
        let (decoded, error) = decode(&control.freeze(), 7, CONFIG);
        let found = (decoded.records.len(), decoded.next_offset, error);
        assert_eq!(found, (0, 8, None));
    }

    #[test]
    fn batches_that_are_too_much_together_are_read_one_after_the_other() {
        let large = |base_offset: i64| {
            let mut builder = BatchBuilder::new(Compression::Zstd, None);
            builder
                .append(0, None, Some(&vec![0; 40 << 10]), &[])
                .unwrap();
            let mut batch = builder.build_mut().unwrap();
            stamp(&mut batch, base_offset, 3);
            batch
        };
        let mut bytes = large(0);
        bytes.extend_from_slice(&large(1));
        bytes.extend_from_slice(&large(2));
        let bytes = bytes.freeze();
        let config = DecodeConfig {
            max_decompressed_bytes: 100 << 10,
            ..CONFIG
        };
        let (decoded, error) = decode(&bytes, 0, config);
        assert_eq!((offsets(&decoded), error), (vec![0, 1], None));
        assert_eq!(decoded.next_offset, 2);
        let (decoded, error) = decode(&bytes, 2, config);
        assert_eq!((offsets(&decoded), error), (vec![2], None));
    }

    #[test]
    fn a_batch_that_grows_beyond_the_limit_is_refused() {
        let mut builder = BatchBuilder::new(Compression::Zstd, None);
        let zeros = vec![0; 1 << 20];
        builder.append(0, None, Some(&zeros), &[]).unwrap();
        let bytes = builder.build().unwrap();
        let config = DecodeConfig {
            max_decompressed_bytes: 1 << 16,
            ..CONFIG
        };
        let (decoded, error) = decode(&bytes, 0, config);
        assert!(decoded.records.is_empty());
        assert!(matches!(
            error,
            Some(BatchError::DecompressedTooLarge { .. })
        ));
    }
}
