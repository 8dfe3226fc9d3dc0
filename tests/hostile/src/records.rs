//! Record batches and their compression.

use bytes::Bytes;
use riverrun_record::{
    BatchView, Compression, ControlRecord, Limits, batches, decompress, first_record_at_or_after,
    owned_records, validate,
};

use crate::sealed;

/// What bytes may become when they are decompressed: with it, a vector that grows by doubling and
/// is moved stays below what a target may hold.
fn most(bytes: &[u8]) -> usize {
    16 * bytes.len()
}

/// A batch as a client produces it, as a log holds it and as a consumer reads it.
pub(crate) fn batch(bytes: &[u8]) {
    sealed::both(bytes, sealed::batch, |bytes| {
        drop(validate(bytes, &Limits::new(1_700_000_000_000)));
        for batch in batches(bytes) {
            let Ok(view) = batch else { break };
            stored(&view, most(bytes));
        }
        if let Ok(records) = owned_records(&Bytes::copy_from_slice(bytes), most(bytes)) {
            for record in records {
                if record.is_err() {
                    break;
                }
            }
        }
    });
}

/// The codecs of the batches that lie one after another, and of the first when it is sealed: three bits
/// of their attributes.
pub(crate) fn codecs(bytes: &[u8]) -> Vec<u8> {
    let mut found: Vec<u8> = bytes.get(22).map(|bits| bits & 7).into_iter().collect();
    let views = batches(bytes).map_while(Result::ok);
    found.extend(views.map(|view| u8::try_from(view.attributes() & 7).unwrap_or(0)));
    found
}

fn stored(view: &BatchView<'_>, most: usize) {
    drop(view.check_stored());
    let (first, last) = (view.base_timestamp(), view.max_timestamp());
    for timestamp in [i64::MIN, first, last, i64::MAX] {
        let found = first_record_at_or_after(view, timestamp, view.base_offset(), most);
        if let Ok(Some(found)) = found {
            assert!(found.timestamp >= timestamp);
        }
    }
    let _ = (view.last_offset(), view.next_offset(), view.last_sequence());
    drop(ControlRecord::of_batch(view));
    for record in view.plain_records().into_iter().flatten() {
        let Ok(record) = record else { break };
        assert!(record.headers.count() <= record.value.map_or(0, <[u8]>::len) + most);
    }
}

fn codec(compression: Compression, bytes: &[u8]) {
    if let Ok(out) = decompress(compression, bytes, most(bytes)) {
        assert!(out.len() <= most(bytes));
    }
}

pub(crate) fn gzip(bytes: &[u8]) {
    codec(Compression::Gzip, bytes);
}

pub(crate) fn snappy(bytes: &[u8]) {
    codec(Compression::Snappy, bytes);
}

pub(crate) fn lz4(bytes: &[u8]) {
    codec(Compression::Lz4, bytes);
}

pub(crate) fn zstd(bytes: &[u8]) {
    codec(Compression::Zstd, bytes);
}
