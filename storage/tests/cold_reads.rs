//! Reads of what is not in memory, on a real disk: they are known before a page is touched, and
//! give the same bytes as any other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use riverrun_record::{BatchBuilder, Compression, stamp};
use riverrun_storage::{
    EntryKind, Log, LogConfig, LogEntry, LogIdentity, LogReader, LogStart, StdDisk, StoredConf,
};
use rustix::fs::{Advice, fadvise};
use uuid::Uuid;

const BATCHES: i64 = 400;
const RECORD_BYTES: usize = 10_000;
const ALL: usize = 64 << 20;

fn batch(offset: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    let value = vec![u8::try_from(offset % 251).unwrap(); RECORD_BYTES];
    builder.append(1_000, None, Some(&value), &[]).unwrap();
    let mut batch = builder.build_mut().unwrap();
    stamp(&mut batch, offset, 1);
    batch.freeze()
}

/// A log of several segments, all of it on the disk.
fn log(dir: &Path) -> Log {
    let identity = LogIdentity {
        group: 1,
        replica: 1,
        topic_id: Uuid::from_u128(1),
        partition: 0,
    };
    let conf = StoredConf {
        index: 0,
        bytes: Bytes::new(),
    };
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..LogConfig::default()
    };
    let start = LogStart::default();
    let mut log = Log::create(StdDisk::shared(), dir, &identity, start, &conf, config).unwrap();
    for offset in 0..BATCHES {
        let entry = LogEntry {
            index: u64::try_from(offset).unwrap() + 1,
            term: 1,
            kind: EntryKind::Data,
            base_offset: offset,
            last_offset_delta: 0,
            payload: batch(offset),
        };
        log.append(&[entry]).unwrap();
    }
    log.flush_indexes().unwrap();
    log.sync_handle().sync_all().unwrap();
    log
}

/// Drops the pages of all files that no map has touched; false where the file system keeps them.
fn evict(dir: &Path, reader: &LogReader) -> bool {
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
    let first = reader.fetch_in_memory(0, BATCHES, 1, true).unwrap();
    first.is_none()
}

#[test]
fn what_is_not_in_memory_is_known_and_read_as_it_was_written() {
    // Not the temporary directory, which may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let dir = dir.path().join("log");
    let log = log(&dir);
    let reader = log.reader();
    assert!(reader.segment_base_offsets().len() > 3);
    if !evict(&dir, &reader) {
        eprintln!("SKIPPED: reads of evicted pages (the file system here is in memory)");
        return;
    }
    let bytes_from = |from: i64| {
        let batches: Vec<Bytes> = (from..BATCHES).map(batch).collect();
        batches.concat()
    };
    for from in [0, 1, 99, 100, 101, 250, BATCHES - 2, BATCHES - 1] {
        evict(&dir, &reader);
        // Nothing of it may have been touched by a map before it is brought in.
        let cold = reader.fetch_in_memory(from, BATCHES, ALL, true).unwrap();
        let read = reader.fetch(from, BATCHES, ALL, true).unwrap();
        let warm = reader.fetch_in_memory(from, BATCHES, ALL, true).unwrap();
        assert_eq!(warm, Some(read.clone()), "offset {from}: it was brought in");
        assert_eq!(read.first_offset, from);
        assert_eq!(read.next_offset, BATCHES);
        assert_eq!(read.batches.concat(), bytes_from(from), "offset {from}");
        assert_eq!(reader.fetch(from, BATCHES, ALL, true).unwrap(), read);
        if from == 0 {
            assert_eq!(cold, None);
        }
    }
}

/// The limit of bytes ends before the part that is not in memory, so nobody waits for that.
#[test]
fn what_lies_behind_the_limit_does_not_make_a_read_cold() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let dir = dir.path().join("log");
    let log = log(&dir);
    let reader = log.reader();
    if !evict(&dir, &reader) {
        eprintln!("SKIPPED: reads of evicted pages (the file system here is in memory)");
        return;
    }
    let limit = 20 * (RECORD_BYTES + 100);
    let some = reader.fetch(0, BATCHES, limit, true).unwrap();
    assert!(some.next_offset < 25);
    // Evicted are only pages that no map has touched: those behind what was read.
    evict(&dir, &reader);
    let few = RECORD_BYTES + 100;
    let again = reader.fetch_in_memory(0, BATCHES, few, true).unwrap();
    let far = reader.fetch_in_memory(60, BATCHES, few, true).unwrap();
    assert_eq!(far, None, "far behind it nothing is in memory");
    if let Some(again) = again {
        assert_eq!(again.next_offset, 1);
    }
}
