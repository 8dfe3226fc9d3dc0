//! Any records in, the same records out; any bytes in, no panic.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    reason = "tests"
)]

mod samples;

use bytes::Bytes;
use proptest::prelude::*;
use riverrun_record::{
    BatchSummary, BatchView, Compression, ControlRecord, Limits, RecordIter, TimestampType,
    apply_timestamps, batches, compress, decode_records, decompress, first_record_at_or_after,
    owned_records, stamp, stamp_log_append_time, validate,
};
use samples::{Given, MAX_BYTES, NOW_MS, batch_of, fix_crc, read_all, with_field};

fn bytes_up_to(len: usize) -> impl Strategy<Value = Vec<u8>> {
    // Repetitive as often as random, so that codecs have something to do.
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..len),
        (any::<u8>(), 0..len).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn given() -> impl Strategy<Value = Given> {
    (
        prop_oneof![NOW_MS - 100_000..NOW_MS + 100_000, Just(-1)],
        proptest::option::of(bytes_up_to(40)),
        proptest::option::of(prop_oneof![9 => bytes_up_to(200), 1 => bytes_up_to(90_000)]),
        proptest::collection::vec(
            (bytes_up_to(8), proptest::option::of(bytes_up_to(20))),
            0..4,
        ),
    )
        .prop_map(|(timestamp, key, value, headers)| Given {
            timestamp,
            key,
            value,
            headers,
        })
}

fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..])
}

fn limits() -> Limits {
    Limits {
        max_batch_bytes: MAX_BYTES,
        ..Limits::new(NOW_MS)
    }
}

proptest! {
    #[test]
    fn records_round_trip(
        compression in compression(),
        given in proptest::collection::vec(given(), 1..30),
        base_offset in 0..i64::MAX / 2,
        target in NOW_MS - 120_000..NOW_MS + 120_000,
    ) {
        let mut batch = batch_of(compression, &given);
        let summary = validate(&batch, &limits()).unwrap();
        let max_timestamp = given.iter().map(|record| record.timestamp).max().unwrap();
        prop_assert_eq!(summary.max_timestamp, max_timestamp);
        prop_assert!(!summary.timestamps_need_stamp);
        let first = given.iter().position(|record| record.timestamp == max_timestamp).unwrap();
        prop_assert_eq!(summary.offset_delta_of_max_timestamp as usize, first);

        stamp(&mut batch, base_offset, 9);
        let batch = batch.freeze();
        let view = BatchView::parse(&batch).unwrap();
        prop_assert!(view.check_stored().is_ok());
        prop_assert_eq!(view.next_offset(), base_offset + given.len() as i64);
        let expected: Vec<_> =
            given.iter().zip(base_offset..).map(|(record, offset)| record.owned(offset)).collect();
        prop_assert_eq!(&read_all(&batch), &expected);

        let found = first_record_at_or_after(&view, target, base_offset + 1, MAX_BYTES).unwrap();
        let naive = expected.iter().skip(1).find(|record| record.timestamp >= target);
        prop_assert_eq!(
            found.map(|it| (it.offset, it.timestamp)),
            naive.map(|it| (it.offset, it.timestamp))
        );
    }

    #[test]
    fn append_time_and_corrected_timestamps_keep_the_checksum(
        compression in compression(),
        given in proptest::collection::vec(given(), 1..5),
        stated in any::<i64>(),
    ) {
        let mut batch = with_field(batch_of(compression, &given), 35, &stated.to_be_bytes());
        let summary = validate(&batch, &limits()).unwrap();
        apply_timestamps(&mut batch, &summary);
        let again = validate(&batch, &limits()).unwrap();
        prop_assert_eq!(again, BatchSummary { timestamps_need_stamp: false, ..summary });

        let append_time =
            Limits { timestamp_type: TimestampType::LogAppendTime, ..limits() };
        let summary = validate(&batch, &append_time).unwrap();
        prop_assert_eq!(summary.max_timestamp, NOW_MS);
        let mut by_hand = batch.clone();
        apply_timestamps(&mut batch, &summary);
        stamp_log_append_time(&mut by_hand, NOW_MS);
        prop_assert_eq!(&batch, &by_hand);
        let view = BatchView::parse(&batch).unwrap();
        prop_assert!(view.crc_is_valid());
        prop_assert_eq!(view.timestamp_type(), TimestampType::LogAppendTime);
        prop_assert!(read_all(&batch.freeze()).iter().all(|record| record.timestamp == NOW_MS));
    }

    #[test]
    fn bytes_round_trip_through_every_codec(
        compression in compression(),
        level in proptest::option::of(-3..25_i32),
        input in bytes_up_to(200_000),
    ) {
        let mut out = bytes::BytesMut::new();
        compress(compression, level.map(|it| it.min(9)), &input, &mut out).unwrap();
        prop_assert_eq!(&decompress(compression, &out, input.len()).unwrap(), &input);
        if !input.is_empty() {
            prop_assert!(decompress(compression, &out, input.len() - 1).is_err());
        }
    }

    #[test]
    fn damage_with_a_right_checksum_never_panics(
        compression in compression(),
        given in proptest::collection::vec(given(), 1..6),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut batch = batch_of(compression, &given);
        for (at, byte) in damage {
            // Not the length and the magic: those are for the next test.
            let at = 17 + at.index(batch.len() - 17);
            batch[at] = byte;
        }
        if let Some(cut) = cut {
            let len = 61 + cut.index(batch.len() - 60);
            batch.truncate(len);
            let length = i32::try_from(len - 12).unwrap();
            batch[8..12].copy_from_slice(&length.to_be_bytes());
        }
        fix_crc(&mut batch);
        read_everything(&batch);
    }

    #[test]
    fn any_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        length in 0..400_i32,
        is_batch: bool,
    ) {
        if is_batch && bytes.len() > 61 {
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            fix_crc(&mut bytes);
        }
        read_everything(&bytes);
        for compression in Compression::ALL {
            let _ = decompress(compression, &bytes, 1 << 20);
        }
        let _ = RecordIter::new(&bytes, length).count();
        let _ = ControlRecord::decode(&[0, 0, 0, 2], &bytes);
        let _ = ControlRecord::decode(&bytes, &bytes);
    }

    #[test]
    fn a_flipped_bit_is_noticed(
        given in proptest::collection::vec(given(), 1..3),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut batch = batch_of(Compression::None, &given);
        let at = 17 + at.index(batch.len() - 17);
        batch[at] ^= 1 << bit;
        prop_assert!(validate(&batch, &limits()).is_err());
        prop_assert!(!BatchView::parse(&batch).unwrap().crc_is_valid());
        // Stamping must not turn a damaged batch into a sound one.
        stamp_log_append_time(&mut batch, NOW_MS);
        prop_assert!(!BatchView::parse(&batch).unwrap().crc_is_valid());
    }
}

/// Every way to read bytes; and what was validated is readable.
fn read_everything(bytes: &[u8]) {
    const MAX: usize = 1 << 20;
    for view in batches(bytes) {
        let Ok(view) = view else { break };
        let _ = format!("{view:?} {} {}", view.last_sequence(), view.next_offset());
        let _ = view.check_stored();
        let _ = first_record_at_or_after(&view, 0, i64::MAX, MAX);
        let _ = ControlRecord::of_batch(&view);
        let valid = validate(
            view.bytes(),
            &Limits {
                max_decompressed_bytes: MAX,
                ..limits()
            },
        );
        let area = decode_records(&view, MAX);
        let records = area.as_ref().map_err(Clone::clone).and_then(|area| {
            RecordIter::new(area, view.record_count()).collect::<Result<Vec<_>, _>>()
        });
        let owned = owned_records(&Bytes::copy_from_slice(view.bytes()), MAX)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert_eq!(records.is_ok(), owned.is_ok());
        if valid.is_ok() {
            let records = records.unwrap();
            assert!(
                records
                    .iter()
                    .zip(0..)
                    .all(|(record, index)| record.offset_delta == index)
            );
            assert_eq!(records.len(), view.record_count() as usize);
        }
    }
}
