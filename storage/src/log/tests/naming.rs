//! No error becomes a default, and none names another file than the one that is bad.

use std::path::Path;

use super::harness::{
    Maker, all, create, create_with, dir, files, open, read_file, record, some_entries, write_file,
};
use crate::disk::mem::{Operation, Times};
use crate::disk::{Disk, MemDisk, OpenMode};
use crate::entry::LogEntry;
use crate::format::{SegmentFile, leader_epochs, log_start, partition_metadata};
use crate::log::{Log, LogConfig, LogError, Recovery};
use crate::producer_state::ProducerState;
use crate::recovered::{GroupRecord, LogStart, StoredConf};

const START: LogStart = LogStart {
    prev_index: 0,
    prev_term: 0,
    offset: 0,
};

/// A durable log of several segments, and its entries.
fn large() -> (MemDisk, Vec<LogEntry>, GroupRecord) {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let entries = some_entries(START, 60);
    for entry in &entries {
        for base in log.append(std::slice::from_ref(entry)).unwrap().rolled {
            log.write_producer_snapshot(base, &ProducerState::default())
                .unwrap();
        }
    }
    log.flush_indexes().unwrap();
    log.sync_handle().sync_all().unwrap();
    assert!(log.reader().segment_base_offsets().len() > 3);
    let mut known = record(START);
    known.durable_index = entries.len() as u64;
    (disk, entries, known)
}

fn flip(disk: &MemDisk, path: &Path, at: usize) {
    let byte = read_file(disk, path)[at] ^ 1;
    let file = disk.open(path, OpenMode::Existing).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&[byte])], at as u64)
        .unwrap();
    file.sync_data().unwrap();
}

fn scrubbed(disk: &MemDisk, known: &GroupRecord) -> crate::log::LogResult<(Log, Recovery)> {
    let config = LogConfig {
        scrub_on_open: true,
        ..LogConfig::tiny()
    };
    Log::open(disk.shared(), &dir(), known, config)
}

/// Flips a bit of every so many bytes of the files of a kind; each time the log is whole again, or the error
/// names that file and a byte no further than the flipped one.
fn flips(file: SegmentFile, step: usize) -> usize {
    let (disk, entries, known) = large();
    let copy = disk.snapshot();
    let mut refused = 0;
    for name in files(&disk).keys() {
        let Some((base, kind)) = SegmentFile::parse(name) else {
            continue;
        };
        if kind != file {
            continue;
        }
        let path = file.path(&dir(), base);
        let whole = read_file(&disk, &path);
        for at in (0..whole.len()).step_by(step) {
            disk.restore(&copy);
            let mut bytes = whole.clone();
            bytes[at] ^= 0x04;
            write_file(&disk, &path, &bytes);
            match scrubbed(&disk, &known) {
                Ok((log, _)) => assert_eq!(all(&log), entries, "byte {at} of {name}"),
                Err(LogError::Damaged {
                    path: named,
                    position,
                    what,
                }) => {
                    assert_eq!(named, path, "byte {at} of {name}: {what}");
                    assert!(position <= at as u64, "byte {at} of {name}: {position}");
                    refused += 1;
                }
                Err(error) => panic!("byte {at} of {name}: {error}"),
            }
        }
    }
    refused
}

#[test]
fn a_flipped_bit_in_a_sidecar_is_healed_or_named_there() {
    assert!(flips(SegmentFile::Raft, 7) > 0);
}

#[test]
fn a_flipped_bit_in_payloads_is_named_there() {
    assert!(flips(SegmentFile::Aux, 3) > 0);
}

#[test]
fn what_is_derived_is_made_again_and_never_an_error() {
    for file in [
        SegmentFile::Index,
        SegmentFile::TimeIndex,
        SegmentFile::Snapshot,
    ] {
        assert_eq!(flips(file, 1), 0);
    }
    let (disk, entries, known) = large();
    for name in [leader_epochs::FILE_NAME, partition_metadata::FILE_NAME] {
        let path = dir().join(name);
        let whole = read_file(&disk, &path);
        write_file(&disk, &path, &whole[..3]);
        let (log, _) = open(&disk, &known).unwrap();
        assert_eq!(all(&log), entries);
        assert_eq!(read_file(&disk, &path), whole, "{name}");
        drop(log);
        disk.remove_file(&path).unwrap();
        drop(open(&disk, &known).unwrap());
        assert_eq!(read_file(&disk, &path), whole, "{name}");
    }
}

#[test]
fn a_sidecar_that_is_gone_or_cut_short_is_named() {
    let (disk, _, known) = large();
    let copy = disk.snapshot();
    let path = SegmentFile::Raft.path(&dir(), 0);
    let whole = read_file(&disk, &path);
    disk.remove_file(&path).unwrap();
    match scrubbed(&disk, &known) {
        Err(LogError::Damaged {
            path: named, what, ..
        }) => {
            assert_eq!((named, what), (path.clone(), "the file is missing"));
        }
        other => panic!("{other:?}"),
    }
    for keep in [0, 40, whole.len() / 2] {
        disk.restore(&copy);
        write_file(&disk, &path, &whole[..keep]);
        match scrubbed(&disk, &known) {
            Err(LogError::Damaged {
                path: named,
                position,
                ..
            }) => {
                assert_eq!(named, path);
                assert!(position <= keep as u64, "{position} of {keep}");
            }
            other => panic!("{keep}: {other:?}"),
        }
    }
}

#[test]
fn a_log_start_that_is_damaged_is_named() {
    let (disk, entries, known) = large();
    let (mut log, _) = open(&disk, &known).unwrap();
    let keep = log.reader().segment_last_indexes()[1] + 1;
    log.drop_head(keep, &StoredConf::default()).unwrap();
    drop(log);
    let path = dir().join(log_start::FILE_NAME);
    let whole = read_file(&disk, &path);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        write_file(&disk, &path, &bytes);
        match open(&disk, &known) {
            Err(LogError::Damaged { path: named, .. }) => assert_eq!(named, path),
            other => panic!("byte {at}: {other:?}"),
        }
    }
    write_file(&disk, &path, &whole);
    assert!(entries.ends_with(&all(&open(&disk, &known).unwrap().0)));
}

#[test]
fn a_torn_snapshot_is_made_again() {
    let (disk, _, known) = large();
    let snapshots: Vec<String> = files(&disk)
        .into_keys()
        .filter(|name| name.ends_with(".snapshot"))
        .collect();
    assert!(snapshots.len() > 2);
    let whole: Vec<Vec<u8>> = snapshots
        .iter()
        .map(|name| read_file(&disk, &dir().join(name)))
        .collect();
    for name in &snapshots {
        write_file(&disk, &dir().join(name), &[0; 5]);
    }
    let (_, recovery) = open(&disk, &known).unwrap();
    assert_eq!(recovery.rebuilt_snapshots, snapshots.len());
    for (name, whole) in snapshots.iter().zip(&whole) {
        assert_eq!(&read_file(&disk, &dir().join(name)), whole, "{name}");
    }
    let (_, recovery) = open(&disk, &known).unwrap();
    assert_eq!(recovery.rebuilt_snapshots, 0);
}

#[test]
fn what_a_dropped_head_said_of_producers_is_not_made_up() {
    let (disk, _, known) = large();
    let (mut log, _) = open(&disk, &known).unwrap();
    let keep = log.reader().segment_last_indexes()[1] + 1;
    let start = log.drop_head(keep, &StoredConf::default()).unwrap();
    drop(log);
    let path = SegmentFile::Snapshot.path(&dir(), start.offset);
    let mut bytes = read_file(&disk, &path);
    bytes[3] ^= 1;
    write_file(&disk, &path, &bytes);
    let (mut log, recovery) = open(&disk, &known).unwrap();
    assert_eq!(recovery.rebuilt_snapshots, 0);
    let reader = log.reader();
    let head = reader.recover_known_producers(start.offset).unwrap();
    match head.lost {
        Some(LogError::Damaged {
            path: named,
            position,
            ..
        }) => assert_eq!((named, position), (path.clone(), 2)),
        other => panic!("{other:?}"),
    }
    assert!(reader.is_marred());
    let why = reader.lost_producers().unwrap();
    assert!(why.contains(".snapshot") && why.contains("byte 2"), "{why}");
    let keep = reader.segment_last_indexes()[0] + 1;
    assert!(log.drop_head(keep, &StoredConf::default()).is_err());
    assert_eq!(read_file(&disk, &path), bytes, "the file stays as it is");
}

#[test]
fn a_record_that_cannot_be_read_later_is_an_error() {
    let (disk, entries, known) = large();
    let (log, _) = open(&disk, &known).unwrap();
    let reader = log.reader();
    let path = SegmentFile::Raft.path(&dir(), 0);
    let wanted = |index: usize| entries[index - 1].next_offset();
    assert_eq!(reader.offset_after(2).unwrap(), wanted(2));
    let header = read_file(&disk, &path).len() - 32 * reader.segment_last_indexes()[0] as usize;
    // The record of entry 2, which the next one's makes up for.
    flip(&disk, &path, header + 32 + 12);
    assert_eq!(reader.offset_after(2).unwrap(), wanted(2));
    assert!(matches!(
        reader.entry_meta(2),
        Err(LogError::BadBatch { index: 2, .. })
    ));
    assert!(reader.is_marred());
    flip(&disk, &path, header + 64 + 12);
    assert!(matches!(
        reader.offset_after(2),
        Err(LogError::BadBatch { .. })
    ));
    disk.fail(Operation::Read, Times::Always, {
        let path = path.clone();
        move |read: &Path| read == path
    });
    for error in [
        reader.entry_meta(2).map(drop),
        reader.offset_after(2).map(drop),
        reader.index_of_offset(0).map(drop),
    ] {
        assert!(matches!(error, Err(LogError::Io { path: named, .. }) if named == path));
    }
}

#[test]
fn an_error_of_the_machine_ends_the_opening_and_changes_nothing_that_cannot_be_made_again() {
    let (disk, entries, known) = large();
    let copy = disk.snapshot();
    let names: Vec<String> = files(&disk).into_keys().collect();
    for name in names {
        disk.restore(&copy);
        let path = dir().join(&name);
        let before = files(&disk);
        disk.fail_with(Operation::Open, Times::Always, libc::EMFILE, {
            let path = path.clone();
            move |opened: &Path| opened == path
        });
        match scrubbed(&disk, &known) {
            Err(error @ LogError::Io { .. }) => assert!(error.is_unavailable(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        disk.clear_faults();
        let after = files(&disk);
        for (file, bytes) in &before {
            if file.ends_with(".log") || file.ends_with(".raft") || file.ends_with(".aux") {
                assert_eq!(after.get(file), Some(bytes), "{file} for {name}");
            }
        }
        assert_eq!(all(&scrubbed(&disk, &known).unwrap().0), entries);
    }
}

#[test]
fn an_index_that_cannot_be_read_for_a_moment_is_read_later() {
    let disk = MemDisk::new();
    let mut log = create_with(&disk, START, LogConfig::tiny());
    let mut make = Maker::new(START);
    let mut entries = vec![make.noop()];
    for _ in 0..80 {
        entries.push(make.data(1, 60));
    }
    log.append(&entries).unwrap();
    log.flush_indexes().unwrap();
    log.sync_handle().sync_all().unwrap();
    drop(log);
    let mut known = record(START);
    known.durable_index = entries.len() as u64;
    let (log, _) = open(&disk, &known).unwrap();
    let reader = log.reader();
    let end = reader.next_offset();
    let wanted = reader.offset_for_timestamp(1300, end).unwrap();
    let (log, _) = open(&disk, &known).unwrap();
    let reader = log.reader();
    disk.fail_with(Operation::Open, Times::Always, libc::EMFILE, |opened| {
        opened.extension().is_some_and(|is| is == "timeindex")
    });
    assert_eq!(reader.offset_for_timestamp(1300, end).unwrap(), wanted);
    disk.clear_faults();
    assert_eq!(reader.offset_for_timestamp(1300, end).unwrap(), wanted);
    let file = SegmentFile::TimeIndex.path(&dir(), 0);
    assert!(disk.open(&file, OpenMode::Existing).is_ok());
}
