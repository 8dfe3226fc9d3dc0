//! One batch for each rule of `validate`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod samples;

use bytes::{BufMut, BytesMut};
use riverrun_record::{
    BatchBuilder, BatchError, BatchView, Compression, Limits, Origin, TimestampType, batches,
    compress, increment_sequence, layout, validate,
};
use samples::{Given, NOW_MS, batch_of, fix_crc, plain_batch, with_field, wrap};

fn limits() -> Limits {
    Limits::new(NOW_MS)
}

fn one() -> BytesMut {
    plain_batch(&[Given::new(NOW_MS, Some(b"k"), Some(b"v"))])
}

fn three() -> Vec<Given> {
    (0..3)
        .map(|i| Given::new(NOW_MS + i, Some(b"key"), Some(b"value")))
        .collect()
}

#[track_caller]
fn assert_invalid_batch(batch: &[u8], words: &str) {
    match validate(batch, &limits()) {
        Err(BatchError::InvalidBatch { what }) => assert!(what.contains(words), "{what}"),
        other => panic!("{words}: {other:?}"),
    }
}

/// The record area in every codec, so that both walks see it.
#[track_caller]
fn assert_invalid_record(count: i32, area: &[u8], at: i32, words: &str) {
    for compression in Compression::ALL {
        let mut compressed = BytesMut::new();
        compress(compression, None, area, &mut compressed).unwrap();
        match validate(&wrap(compression, count, &compressed), &limits()) {
            Err(BatchError::InvalidRecord { index, what }) => {
                assert_eq!(index, at, "{compression}: {what}");
                assert!(what.contains(words), "{compression}: {what}");
            }
            other => panic!("{compression}: {words}: {other:?}"),
        }
    }
}

#[test]
fn header_rules() {
    assert!(validate(&one(), &limits()).is_ok());
    let with = |at, bytes: &[u8]| with_field(one(), at, bytes);
    assert_invalid_batch(
        &with(layout::RECORD_COUNT, &0_i32.to_be_bytes()),
        "no records",
    );
    assert_invalid_batch(
        &with(layout::RECORD_COUNT, &(-1_i32).to_be_bytes()),
        "no records",
    );
    assert_invalid_batch(
        &with(layout::RECORD_COUNT, &2_i32.to_be_bytes()),
        "do not fit",
    );
    assert_invalid_batch(
        &with(layout::LAST_OFFSET_DELTA, &i32::MAX.to_be_bytes()),
        "do not fit",
    );
    assert_invalid_batch(
        &with(layout::LAST_OFFSET_DELTA, &(-1_i32).to_be_bytes()),
        "do not fit",
    );
    assert_invalid_batch(&with(layout::ATTRIBUTES, &[0x80, 0]), "without a meaning");
    assert_invalid_batch(&with(layout::ATTRIBUTES, &[0, 0x40]), "delete horizon");
    assert_invalid_batch(&with(layout::ATTRIBUTES, &[0, 0x20]), "control");
    assert_invalid_batch(&with(layout::ATTRIBUTES, &[0, 0x10]), "no producer id");
    assert_invalid_batch(
        &with(layout::BASE_OFFSET, &7_i64.to_be_bytes()),
        "base offset",
    );
    assert_eq!(
        validate(&with(layout::ATTRIBUTES, &[0, 0x08]), &limits()),
        Err(BatchError::InvalidTimestampType)
    );
    for id in 5..=7 {
        assert_eq!(
            validate(&with(layout::ATTRIBUTES, &[0, id]), &limits()),
            Err(BatchError::UnsupportedCompression { id })
        );
    }
    let mut two = one();
    two.extend_from_slice(&one());
    assert_invalid_batch(&two, "bytes follow");
}

#[test]
fn producer_fields_fit_each_other() {
    let with = |id, epoch, sequence| {
        let mut builder = BatchBuilder::new(Compression::None, None).producer(id, epoch, sequence);
        builder.append(NOW_MS, None, None, &[]).unwrap();
        builder.build().unwrap()
    };
    assert_invalid_batch(&with(-2, 0, 0), "producer id is negative");
    assert_invalid_batch(&with(0, -1, 0), "epoch");
    assert_invalid_batch(&with(0, 0, -1), "sequence");
    // Clients are known that leave zeros where there is no producer id.
    let summary = validate(&with(-1, 0, 0), &limits()).unwrap();
    let producer = (
        summary.producer_id,
        summary.producer_epoch,
        summary.base_sequence,
    );
    assert_eq!(producer, (-1, -1, -1));
    let summary = validate(&with(1, 2, i32::MAX), &limits()).unwrap();
    assert_eq!(summary.base_sequence, i32::MAX);
}

#[test]
fn lengths_and_formats() {
    let batch = one();
    for cut in 0..batch.len() {
        let error = BatchView::parse(batch.get(..cut).unwrap()).unwrap_err();
        assert!(
            matches!(error, BatchError::Incomplete { .. }),
            "{cut}: {error:?}"
        );
    }
    let mut short = one();
    short
        .get_mut(8..12)
        .unwrap()
        .copy_from_slice(&48_i32.to_be_bytes());
    assert!(matches!(
        BatchView::parse(&short),
        Err(BatchError::Corrupt { .. })
    ));
    short
        .get_mut(8..12)
        .unwrap()
        .copy_from_slice(&(-1_i32).to_be_bytes());
    assert!(matches!(
        BatchView::parse(&short),
        Err(BatchError::Corrupt { .. })
    ));
    let old = with_field(one(), layout::MAGIC, &[1]);
    assert_eq!(
        BatchView::parse(&old).unwrap_err(),
        BatchError::UnsupportedMagic { magic: 1 }
    );
    let mut damaged = one();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(
        validate(&damaged, &limits()),
        Err(BatchError::CrcMismatch { .. })
    ));

    let small = Limits {
        max_batch_bytes: batch.len() - 1,
        ..limits()
    };
    let (len, max) = (batch.len(), batch.len() - 1);
    assert_eq!(
        validate(&batch, &small),
        Err(BatchError::TooLarge { len, max })
    );
    let few = Limits {
        max_records: 2,
        ..limits()
    };
    let refused = validate(&plain_batch(&three()), &few);
    assert_eq!(
        refused,
        Err(BatchError::TooManyRecords { count: 3, max: 2 })
    );
}

#[test]
fn records_fill_their_lengths_and_their_batch() {
    let good = [0x0c, 0, 0, 0, 0x01, 0x01, 0];
    let two = [good, [0x0c, 0, 0, 2, 0x01, 0x01, 0]].concat();
    for compression in Compression::ALL {
        let mut compressed = BytesMut::new();
        compress(compression, None, &two, &mut compressed).unwrap();
        assert!(
            validate(&wrap(compression, 2, &compressed), &limits()).is_ok(),
            "{compression}"
        );
    }
    assert_invalid_record(1, &two, 1, "bytes follow");
    assert_invalid_record(3, &two, 2, "ends within");
    assert_invalid_record(2, &[good, good].concat(), 1, "offset delta");
    assert_invalid_record(1, &[0x01, 0, 0, 0, 0x01, 0x01, 0], 0, "negative");
    assert_invalid_record(1, &[0x0a, 0, 0, 0, 0x01, 0x01, 0], 0, "do not fill");
    assert_invalid_record(1, &[0x0e, 0, 0, 0, 0x01, 0x01, 0, 0], 0, "do not fill");
    assert_invalid_record(1, &[0x0c, 0, 0, 0, 0x08, 0x01, 0], 0, "longer than it");
    assert_invalid_record(1, &[0x0c, 0, 0, 0, 0x01, 0x08, 0], 0, "longer than it");
    assert_invalid_record(
        1,
        &[0x0c, 0, 0, 0, 0x01, 0x01, 0x01],
        0,
        "headers do not fit",
    );
    assert_invalid_record(
        1,
        &[0x0c, 0, 0, 0, 0x01, 0x01, 0x02],
        0,
        "headers do not fit",
    );
    // A header whose key is null.
    assert_invalid_record(
        1,
        &[0x10, 0, 0, 0, 0x01, 0x01, 0x02, 0x01, 0x01],
        0,
        "no key",
    );
    // Six bytes of one number.
    let long = [0x16, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 1, 0];
    assert_invalid_record(1, &long, 0, "varint");
    assert_invalid_record(1, &[], 0, "ends within");
}

#[test]
fn timestamps_are_bounded_where_the_producer_sets_them() {
    let bounded = Limits {
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 500,
        ..limits()
    };
    let at = |timestamp| {
        plain_batch(&[
            Given::new(NOW_MS, None, None),
            Given::new(timestamp, None, None),
        ])
    };
    for fine in [NOW_MS - 1000, NOW_MS, NOW_MS + 500, -1] {
        assert!(validate(&at(fine), &bounded).is_ok(), "{fine}");
    }
    for (bad, limits) in [
        (NOW_MS - 1001, &bounded),
        (NOW_MS + 501, &bounded),
        (0, &bounded),
        (i64::MAX, &limits()),
        (-2, &bounded),
    ] {
        match validate(&at(bad), limits) {
            Err(BatchError::InvalidTimestamp {
                index: 1,
                timestamp_ms,
                ..
            }) => {
                assert_eq!(timestamp_ms, bad);
            }
            other => panic!("{bad}: {other:?}"),
        }
    }
    let append_time = Limits {
        timestamp_type: TimestampType::LogAppendTime,
        ..bounded
    };
    let summary = validate(&at(0), &append_time).unwrap();
    assert_eq!(
        (summary.max_timestamp, summary.timestamps_need_stamp),
        (NOW_MS, true)
    );

    // A base timestamp and a delta whose sum is no timestamp.
    let overflow = with_field(
        at(NOW_MS + 1),
        layout::BASE_TIMESTAMP,
        &i64::MAX.to_be_bytes(),
    );
    let far = Limits {
        timestamp_after_max_ms: i64::MAX,
        ..limits()
    };
    assert!(matches!(
        validate(&overflow, &far),
        Err(BatchError::InvalidRecord { index: 1, .. })
    ));
    // All without a timestamp.
    let none = plain_batch(&[Given::new(-1, None, None)]);
    assert_eq!(validate(&none, &bounded).unwrap().max_timestamp, -1);
}

#[test]
fn compacted_topics_need_keys() {
    let keyed = Limits {
        require_keys: true,
        ..limits()
    };
    for compression in Compression::ALL {
        let mut records = three();
        assert!(validate(&batch_of(compression, &records), &keyed).is_ok());
        records.push(Given::new(NOW_MS, None, Some(b"v")));
        let refused = validate(&batch_of(compression, &records), &keyed);
        assert!(matches!(
            refused,
            Err(BatchError::InvalidRecord { index: 3, .. })
        ));
    }
}

#[test]
fn damaged_and_cut_compression_is_refused() {
    for compression in Compression::ALL.into_iter().skip(1) {
        let batch = batch_of(compression, &three());
        for cut in 1..batch.len() - 61 {
            let mut cut_batch = BytesMut::from(batch.get(..batch.len() - cut).unwrap());
            let length = i32::try_from(cut_batch.len() - 12).unwrap();
            cut_batch
                .get_mut(8..12)
                .unwrap()
                .copy_from_slice(&length.to_be_bytes());
            fix_crc(&mut cut_batch);
            assert!(
                validate(&cut_batch, &limits()).is_err(),
                "{compression} cut by {cut}"
            );
        }
        let mut longer = batch.clone();
        longer.put_slice(b"more");
        let length = i32::try_from(longer.len() - 12).unwrap();
        longer
            .get_mut(8..12)
            .unwrap()
            .copy_from_slice(&length.to_be_bytes());
        fix_crc(&mut longer);
        assert!(
            validate(&longer, &limits()).is_err(),
            "{compression} with bytes behind"
        );
    }
}

#[test]
fn lz4_blocks_that_depend_on_each_other_are_read_and_not_taken() {
    use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
    use std::io::Write;
    let plain = plain_batch(&three());
    let area = plain.get(61..).unwrap();
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .content_checksum(true);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(area).unwrap();
    let compressed = encoder.finish().unwrap();
    let back = riverrun_record::decompress(Compression::Lz4, &compressed, 1000).unwrap();
    assert_eq!(back, area);
    let refused = validate(&wrap(Compression::Lz4, 3, &compressed), &limits());
    assert!(matches!(refused, Err(BatchError::Decompression { .. })));
}

#[test]
fn brokers_may_write_control_batches() {
    let mut builder = BatchBuilder::new(Compression::None, None)
        .producer(5, 0, -1)
        .control(true)
        .base_offset(7);
    builder
        .append(NOW_MS, Some(b"\0\0\0\x01"), None, &[])
        .unwrap();
    let batch = builder.build().unwrap();
    assert_invalid_batch(&batch, "control");
    assert!(
        validate(
            &batch,
            &Limits {
                origin: Origin::Broker,
                ..limits()
            }
        )
        .is_ok()
    );
}

#[test]
fn batches_are_found_back_to_back() {
    let mut log = one();
    log.extend_from_slice(&plain_batch(&three()));
    let whole = log.len();
    log.extend_from_slice(one().get(..30).unwrap());
    let mut iter = batches(&log);
    let counts: Vec<_> = iter
        .by_ref()
        .map(|view| view.map(|view| view.record_count()).ok())
        .collect();
    assert_eq!(counts, [Some(1), Some(3), None]);
    assert_eq!(iter.position(), whole);
    assert!(iter.next().is_none());
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(increment_sequence(5, 3), 8);
    assert_eq!(increment_sequence(i32::MAX, 1), 0);
    assert_eq!(increment_sequence(i32::MAX - 1, 3), 1);
    let mut builder = BatchBuilder::new(Compression::None, None).producer(1, 0, i32::MAX - 1);
    for _ in 0..3 {
        builder.append(NOW_MS, None, None, &[]).unwrap();
    }
    let batch = builder.build().unwrap();
    assert_eq!(BatchView::parse(&batch).unwrap().last_sequence(), 0);
}

#[test]
fn the_builder_knows_its_length_and_refuses_what_cannot_be() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    assert!(builder.is_empty());
    builder.append(i64::MIN, Some(b"k"), None, &[]).unwrap();
    let before = builder.estimated_len();
    assert_eq!(
        before - 61,
        riverrun_record::record_len(0, 0, Some(b"k"), None, &[])
    );
    assert!(builder.append(i64::MAX, None, None, &[]).is_err());
    assert_eq!(
        (builder.estimated_len(), builder.record_count()),
        (before, 1)
    );
    assert_eq!(builder.build().unwrap().len(), before);
    assert!(BatchBuilder::new(Compression::Gzip, None).build().is_err());
}
