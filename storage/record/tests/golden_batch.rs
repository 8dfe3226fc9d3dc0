//! The fixtures: bytes written by Apache Kafka, by us, and taken apart by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod samples;

use bytes::Bytes;
use riverrun_record::{
    BatchError, BatchView, Compression, ControlRecord, EndTxnMarker, LeaderChange, Limits, Origin,
    Voter, decompress, stamp, validate,
};
use samples::{MAX_BYTES, NOW_MS, golden_batch, golden_records_of, read_all};

fn fixture(name: &str) -> Bytes {
    let path = format!("{}/fixtures/batch/v2/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .into()
}

/// Hexadecimal digits; what follows a `#` on a line is for the reader.
fn hex_fixture(name: &str) -> Bytes {
    let text = String::from_utf8(fixture(name).to_vec()).unwrap();
    let digits: String = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap().split_whitespace())
        .collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn reads_what_kafka_and_riverrun_wrote() {
    for compression in Compression::ALL {
        for writer in ["kafka", "riverrun"] {
            let name = format!("{writer}-{compression}.bin");
            let batch = fixture(&name);
            let summary = validate(&batch, &Limits::new(NOW_MS)).unwrap();
            let given = golden_records_of(compression);
            assert_eq!(
                usize::try_from(summary.record_count),
                Ok(given.len()),
                "{name}"
            );
            assert_eq!(summary.max_timestamp, 1_700_000_000_500, "{name}");
            assert_eq!(summary.offset_delta_of_max_timestamp, 1, "{name}");
            assert!(!summary.timestamps_need_stamp, "{name}");
            assert_eq!(summary.compression, compression, "{name}");
            let producer = (
                summary.producer_id,
                summary.producer_epoch,
                summary.base_sequence,
            );
            assert_eq!(producer, (4242, 7, 100), "{name}");
            let expected: Vec<_> = given
                .iter()
                .zip(0..)
                .map(|(record, offset)| record.owned(offset))
                .collect();
            assert_eq!(read_all(&batch), expected, "{name}");
        }
    }
}

#[test]
fn builds_the_bytes_that_kafka_builds() {
    assert_eq!(golden_batch(Compression::None), fixture("kafka-none.bin"));
    for (name, is_commit) in [("kafka-abort.bin", false), ("kafka-commit.bin", true)] {
        let marker = EndTxnMarker {
            is_commit,
            coordinator_epoch: 11,
        };
        let mut batch = marker
            .to_batch(1_700_000_000_000, 4242, 7)
            .unwrap()
            .to_vec();
        stamp(&mut batch, 9, 3);
        assert_eq!(batch, fixture(name), "{name}");
        let view = BatchView::parse(&batch).unwrap();
        assert_eq!(
            ControlRecord::of_batch(&view).unwrap(),
            ControlRecord::EndTxn(marker)
        );
        let limits = Limits {
            origin: Origin::Broker,
            ..Limits::new(NOW_MS)
        };
        assert!(validate(&batch, &limits).unwrap().is_control);
        let refused = validate(&with_base_offset_0(&batch), &Limits::new(NOW_MS));
        assert!(matches!(refused, Err(BatchError::InvalidBatch { .. })));
    }
    let voter = |id| Voter {
        id,
        directory_id: None,
    };
    let change = LeaderChange {
        leader_id: 2,
        voters: vec![voter(1), voter(2)],
        granting_voters: vec![voter(2)],
    };
    let mut batch = change.to_batch(1_700_000_000_000).unwrap().to_vec();
    stamp(&mut batch, 9, 3);
    assert_eq!(batch, fixture("kafka-leader-change.bin"));
    let view = BatchView::parse(&batch).unwrap();
    assert_eq!(
        ControlRecord::of_batch(&view).unwrap(),
        ControlRecord::LeaderChange(change)
    );
}

fn with_base_offset_0(batch: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    stamp(&mut batch, 0, 3);
    batch
}

#[test]
fn reads_a_batch_that_was_taken_apart_by_hand() {
    let batch = hex_fixture("one-record.hex");
    let view = BatchView::parse(&batch).unwrap();
    view.check_stored().unwrap();
    assert_eq!(view.base_offset(), 5);
    assert_eq!(view.batch_length(), 62);
    assert_eq!(view.total_len(), 74);
    assert_eq!(view.leader_epoch(), 7);
    assert_eq!(view.attributes(), 0x10);
    assert!(view.is_transactional() && !view.is_control() && !view.has_delete_horizon());
    assert_eq!(
        (
            view.last_offset_delta(),
            view.last_offset(),
            view.next_offset()
        ),
        (0, 5, 6)
    );
    assert_eq!((view.base_timestamp(), view.max_timestamp()), (1000, 1000));
    assert_eq!((view.producer_id(), view.producer_epoch()), (258, 3));
    assert_eq!(
        (view.base_sequence(), view.last_sequence()),
        (i32::MAX, i32::MAX)
    );
    let record = view.plain_records().unwrap().next().unwrap().unwrap();
    assert_eq!((record.offset_delta, record.timestamp_delta), (0, 0));
    assert_eq!((record.key, record.value), (None, Some(&b"abc"[..])));
    let header = record.headers.clone().next().unwrap();
    assert_eq!((header.key, header.value), (&b"h"[..], None));
}

#[test]
fn reads_xerial_framing_that_was_taken_apart_by_hand() {
    let framed = hex_fixture("xerial.hex");
    let text = decompress(Compression::Snappy, &framed, MAX_BYTES).unwrap();
    assert_eq!(text, b"aaaaaaaaaaaaaaaa, two blocks");
    // The same block bare, as some clients send it.
    assert_eq!(
        decompress(Compression::Snappy, &framed[20..26], MAX_BYTES).unwrap(),
        [b'a'; 16]
    );
    for cut in 1..framed.len() {
        let _ = decompress(Compression::Snappy, &framed[..cut], MAX_BYTES);
    }
}

/// Writes fixtures that are missing. An existing one is never written over.
#[test]
#[ignore = "adds fixtures for a new codec or record; run by hand"]
fn add_missing_fixtures() {
    for compression in Compression::ALL {
        let name = format!("riverrun-{compression}.bin");
        let path = format!("{}/fixtures/batch/v2/{name}", env!("CARGO_MANIFEST_DIR"));
        if !std::path::Path::new(&path).exists() {
            std::fs::write(path, golden_batch(compression)).unwrap();
        }
    }
}
