//! Small batches that would become very large ones are refused, in little memory.
//!
//! One test function, because the peak of a process's memory is measured.
#![allow(clippy::unwrap_used, reason = "tests")]

mod samples;

use std::io::Write;

use bytes::{BufMut, BytesMut};
use riverrun_record::{BatchError, Compression, Limits, compress, decompress, validate, varint};
use samples::{NOW_MS, wrap};

const MIB: usize = 1 << 20;
const LIMIT: usize = 24 * MIB;

#[test]
fn bombs_are_refused_in_little_memory() {
    let bombs: Vec<(Compression, BytesMut)> = [
        (Compression::Gzip, 300),
        (Compression::Snappy, 300),
        (Compression::Lz4, 300),
        (Compression::Zstd, 400),
    ]
    .map(|(compression, mib)| (compression, wrap(compression, 1, &bomb(compression, mib))))
    .into();
    let limits = Limits {
        max_batch_bytes: 64 * MIB,
        max_decompressed_bytes: LIMIT,
        max_decompression_ratio: usize::MAX,
        ..Limits::new(NOW_MS)
    };

    reset_peak();
    let before = peak_bytes();
    for (compression, batch) in &bombs {
        assert_eq!(
            validate(batch, &limits),
            Err(BatchError::DecompressedTooLarge { max: LIMIT }),
            "{compression}"
        );
    }
    let grown = peak_bytes().saturating_sub(before);
    assert!(grown < 20 * MIB, "validating took {grown} bytes");

    for (compression, batch) in &bombs {
        let refused = decompress(*compression, batch.get(61..).unwrap(), LIMIT);
        assert!(
            matches!(refused, Err(BatchError::DecompressedTooLarge { .. })),
            "{compression}"
        );
    }
    let grown = peak_bytes().saturating_sub(before);
    assert!(grown < 4 * LIMIT, "decompressing took {grown} bytes");

    a_ratio_is_refused_before_the_limit(&bombs);
    lengths_that_are_only_declared_take_no_memory();
    windows_that_are_only_declared_take_no_memory();
}

fn a_ratio_is_refused_before_the_limit(bombs: &[(Compression, BytesMut)]) {
    let limits = Limits {
        max_batch_bytes: 64 * MIB,
        max_decompressed_bytes: usize::MAX,
        max_decompression_ratio: 2,
        ..Limits::new(NOW_MS)
    };
    for (compression, batch) in bombs {
        let max = Limits::RATIO_FREE_BYTES.max((batch.len() - 61) * 2);
        let refused = validate(batch, &limits);
        assert_eq!(
            refused,
            Err(BatchError::DecompressedTooLarge { max }),
            "{compression}"
        );
    }
}

fn lengths_that_are_only_declared_take_no_memory() {
    reset_peak();
    let before = peak_bytes();
    // Raw snappy: a length of 2 GiB, one literal byte.
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x07, 0x00, b'a'];
    for _ in 0..20 {
        assert!(decompress(Compression::Snappy, &snappy, usize::MAX).is_err());
        let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        framed.put_i32(7);
        framed.extend_from_slice(&snappy);
        assert!(decompress(Compression::Snappy, &framed, usize::MAX).is_err());
        // A record that states 2 GiB, in a batch of a few bytes.
        let mut area = BytesMut::new();
        varint::put_i32(&mut area, i32::MAX);
        area.put_slice(&[0, 0, 0, 1]);
        varint::put_i32(&mut area, i32::MAX - 20);
        for compression in Compression::ALL {
            let mut compressed = BytesMut::new();
            compress(compression, None, &area, &mut compressed).unwrap();
            let refused = validate(&wrap(compression, 1, &compressed), &Limits::new(NOW_MS));
            assert!(
                matches!(refused, Err(BatchError::InvalidRecord { .. })),
                "{refused:?}"
            );
        }
    }
    let grown = peak_bytes().saturating_sub(before);
    assert!(grown < 8 * MIB, "declared lengths took {grown} bytes");
}

/// Level 22 without a known size declares a window of 128 MiB, and is what other clients send.
fn windows_that_are_only_declared_take_no_memory() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 22).unwrap();
    encoder.write_all(&[0, 0, 0, 1, 1]).unwrap();
    encoder.flush().unwrap();
    let compressed = encoder.finish().unwrap();
    reset_peak();
    let before = peak_bytes();
    assert_eq!(
        decompress(Compression::Zstd, &compressed, 100).unwrap(),
        [0, 0, 0, 1, 1]
    );
    let grown = peak_bytes().saturating_sub(before);
    assert!(grown < 8 * MIB, "a declared window took {grown} bytes");
}

/// One record with a value of `mib` MiB of zeros, written through the codec as a stream.
fn bomb(compression: Compression, mib: usize) -> Vec<u8> {
    let value_len = i32::try_from(mib * MIB).unwrap();
    let mut head = BytesMut::new();
    head.put_slice(&[0, 0, 0, 1]);
    varint::put_i32(&mut head, value_len);
    let body_len = head.len() + mib * MIB + 1;
    let mut start = BytesMut::new();
    varint::put_i32(&mut start, i32::try_from(body_len).unwrap());
    start.put_slice(&head);

    let write = |out: &mut dyn Write| {
        out.write_all(&start).unwrap();
        for _ in 0..mib {
            out.write_all(&[0; MIB]).unwrap();
        }
        out.write_all(&[0]).unwrap();
    };
    match compression {
        Compression::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            write(&mut out);
            out.finish().unwrap()
        }
        Compression::Lz4 => {
            let mut out = lz4_flex::frame::FrameEncoder::with_frame_info(
                lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent),
                Vec::new(),
            );
            write(&mut out);
            out.finish().unwrap()
        }
        Compression::Zstd => {
            let mut out = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
            write(&mut out);
            out.finish().unwrap()
        }
        _ => {
            // The blocks of zeros are all the same, so one is compressed and repeated.
            let mut out = BytesMut::new();
            compress(Compression::Snappy, None, &start, &mut out).unwrap();
            let mut zeros = BytesMut::new();
            compress(Compression::Snappy, None, &[0; MIB], &mut zeros).unwrap();
            for _ in 0..mib {
                out.put_slice(zeros.get(16..).unwrap());
            }
            out.to_vec()
        }
    }
}

fn reset_peak() {
    // Where that is not allowed the peak includes the making of the bombs, and shows less growth.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1024
}
