//! Opening what a crash or a bad disk left.

use std::path::PathBuf;

use crate::disk::mem::{CrashModel, Operation, Times};
use crate::disk::{Disk, MemDisk, OpenMode};
use crate::entry::{EntryKind, LogEntry};
use crate::format::SegmentFile;
use crate::format::sidecar::RECORD_LEN;
use crate::log::{Log, LogConfig, LogError};
use crate::planted::{self, Bug};
use crate::producer_state::ProducerState;
use crate::recovered::{FileTrust, GroupRecord, LogStart, StoredConf};

use super::basic::check_indexes;
use super::harness::{
    Maker, all, create, create_with, dir, files, non_data, open, read_file, record, some_entries,
    write_file,
};

const START: LogStart = LogStart {
    prev_index: 0,
    prev_term: 0,
    offset: 0,
};

/// A synced log of a single segment.
fn small() -> (MemDisk, Vec<LogEntry>) {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let entries = some_entries(START, 5);
    log.append(&entries).unwrap();
    assert_eq!(log.reader().segment_base_offsets().len(), 1);
    log.sync_handle().sync_all().unwrap();
    log.flush_indexes().unwrap();
    (disk, entries)
}

/// A synced log of several segments.
fn large() -> (MemDisk, Vec<LogEntry>) {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let entries = some_entries(START, 80);
    for chunk in entries.chunks(10) {
        log.append(chunk).unwrap();
        log.sync_handle().sync().unwrap();
    }
    assert!(log.reader().segment_base_offsets().len() > 4);
    log.sync_handle().sync_all().unwrap();
    log.flush_indexes().unwrap();
    (disk, entries)
}

fn path(file: SegmentFile) -> PathBuf {
    file.path(&dir(), 0)
}

fn is_prefix(log: &Log, entries: &[LogEntry]) -> usize {
    let got = all(log);
    assert!(
        entries.starts_with(&got),
        "{} entries are not the first of those written",
        got.len()
    );
    got.len()
}

#[test]
fn a_log_opens_as_it_was() {
    for (disk, entries) in [small(), large()] {
        for scrub_on_open in [false, true] {
            let mut known = record(START);
            known.durable_index = entries.len() as u64;
            let config = LogConfig {
                scrub_on_open,
                ..LogConfig::tiny()
            };
            let before = files(&disk);
            let (log, recovery) = Log::open(disk.shared(), &dir(), &known, config).unwrap();
            assert_eq!((recovery.cut_at, recovery.rebuilt_indexes), (None, 0));
            assert_eq!(recovery.replayed_from_wal, 0);
            assert_eq!(all(&log), entries);
            let reader = log.reader();
            for entry in &entries {
                assert_eq!(reader.term(entry.index), Some(entry.term));
                if entry.kind.moves_offset() {
                    assert_eq!(
                        reader.epoch_of_offset(entry.base_offset),
                        Some(entry.term as i32)
                    );
                }
            }
            assert_eq!(files(&disk), before);
            if !scrub_on_open {
                let size = reader.size_bytes();
                assert!(
                    recovery.scanned_bytes <= size.max(1),
                    "only the end was read"
                );
                assert!(size < 8192 || recovery.scanned_bytes < size / 2);
            }
        }
    }
}

#[test]
fn a_torn_or_zeroed_tail_of_the_log_is_cut_at_every_byte() {
    let (disk, entries) = small();
    let whole = read_file(&disk, &path(SegmentFile::Log));
    let copy = disk.snapshot();
    for len in 0..whole.len() {
        for zeroed in [false, true] {
            disk.restore(&copy);
            let mut bytes = whole[..len].to_vec();
            if zeroed {
                bytes.resize(whole.len(), 0);
            }
            write_file(&disk, &path(SegmentFile::Log), &bytes);
            // What is wholly there, with the non-data entries before the first that is not.
            let mut end = 0;
            let wanted = entries
                .iter()
                .take_while(|entry| {
                    end += if entry.kind == EntryKind::Data {
                        entry.payload.len()
                    } else {
                        0
                    };
                    bytes.len() >= end && bytes[..end] == whole[..end]
                })
                .count();
            let (log, recovery) = open(&disk, &record(START)).unwrap();
            assert_eq!(is_prefix(&log, &entries), wanted, "{len} {zeroed}");
            assert_eq!(
                recovery.cut_at,
                (wanted < entries.len()).then_some(wanted as u64 + 1)
            );
            // What it left is durable and opens again the same.
            drop(log);
            disk.crash(1, &CrashModel::LOSE_ALL);
            let (log, recovery) = open(&disk, &record(START)).unwrap();
            assert_eq!((is_prefix(&log, &entries), recovery.cut_at), (wanted, None));
        }
    }
}

#[test]
fn a_sidecar_is_made_again_from_the_batches_and_the_wal() {
    let (disk, entries) = small();
    let whole = read_file(&disk, &path(SegmentFile::Raft));
    let copy = disk.snapshot();
    let mut known = record(START);
    known.entries = non_data(&entries);
    known.durable_index = entries.len() as u64;
    for len in 0..whole.len() {
        for fill in [None, Some(0), Some(0xa5)] {
            disk.restore(&copy);
            let mut bytes = whole[..len].to_vec();
            if let Some(fill) = fill {
                bytes.resize(whole.len(), fill);
            }
            write_file(&disk, &path(SegmentFile::Raft), &bytes);
            let (log, recovery) = open(&disk, &known).unwrap();
            assert_eq!(all(&log), entries, "{len} {fill:?}");
            assert_eq!(recovery.cut_at, None);
            assert_eq!(read_file(&disk, &path(SegmentFile::Raft)), whole);
        }
    }
    disk.restore(&copy);
    disk.remove_file(&path(SegmentFile::Raft)).unwrap();
    disk.remove_file(&path(SegmentFile::Aux)).unwrap();
    let (log, _) = open(&disk, &known).unwrap();
    assert_eq!(all(&log), entries);
}

#[test]
fn a_hole_in_the_sidecar_is_filled_from_the_batches() {
    let (disk, entries) = small();
    let whole = read_file(&disk, &path(SegmentFile::Raft));
    let copy = disk.snapshot();
    let mut known = record(START);
    known.entries = non_data(&entries);
    known.durable_index = entries.len() as u64;
    for at in (0..whole.len()).step_by(16) {
        disk.restore(&copy);
        let mut bytes = whole.clone();
        bytes[at..at + 16].fill(0);
        write_file(&disk, &path(SegmentFile::Raft), &bytes);
        let (log, _) = open(&disk, &known).unwrap();
        assert_eq!(all(&log), entries, "{at}");
        assert_eq!(read_file(&disk, &path(SegmentFile::Raft)), whole);
    }
}

#[test]
fn what_only_the_wal_has_is_put_into_the_files() {
    let (disk, entries) = large();
    let copy = disk.snapshot();
    let bases = open(&disk, &record(START))
        .unwrap()
        .0
        .reader()
        .segment_base_offsets();
    let mut known = record(START);
    for from in [1, 2, 17, 60, 100, entries.len()] {
        known.entries = entries[from - 1..].to_vec();
        known.durable_index = entries.len() as u64;
        for damage in 0..6 {
            disk.restore(&copy);
            let base = entries[from - 1].base_offset;
            let from_segment = bases.partition_point(|b| *b <= base) - 1;
            for (n, base) in bases.iter().enumerate().skip(from_segment) {
                let log = SegmentFile::Log.path(&dir(), *base);
                let first = n == from_segment;
                match damage {
                    // A later segment has vanished, or its batches, or some of them.
                    0 if !first => disk.remove_file(&log).unwrap(),
                    1 if !first => write_file(&disk, &log, &[]),
                    2 if !first => {
                        let whole = read_file(&disk, &log);
                        write_file(&disk, &log, &whole[..whole.len() / 2]);
                    }
                    3 if !first => {
                        let mut whole = read_file(&disk, &log);
                        let from = whole.len() / 3;
                        whole[from..from + 200].fill(0);
                        write_file(&disk, &log, &whole);
                    }
                    4 => disk
                        .remove_file(&SegmentFile::Raft.path(&dir(), *base))
                        .unwrap(),
                    _ => {}
                }
            }
            if damage == 4 && from > 1 {
                // The sidecar had non-data entries from before that the WAL does not hold.
                known.entries = non_data(&entries[..from - 1]);
                known.entries.extend_from_slice(&entries[from - 1..]);
            }
            let (log, recovery) = open(&disk, &known).unwrap();
            assert_eq!(all(&log), entries, "from {from}, damage {damage}");
            assert_eq!(recovery.cut_at, None);
            drop(log);
            disk.crash(1, &CrashModel::LOSE_ALL);
            let mut later = record(START);
            later.durable_index = entries.len() as u64;
            assert_eq!(all(&open(&disk, &later).unwrap().0), entries);
        }
    }
}

#[test]
fn damage_at_or_below_the_durable_index_is_told_by_its_place_and_nothing_is_cut() {
    for (disk, entries) in [small(), large()] {
        let copy = disk.snapshot();
        let mut known = record(START);
        known.durable_index = entries.len() as u64;
        let bases = open(&disk, &known)
            .unwrap()
            .0
            .reader()
            .segment_base_offsets();
        for base in bases {
            let log = SegmentFile::Log.path(&dir(), base);
            let whole = read_file(&disk, &log);
            for at in (0..whole.len()).step_by(37) {
                disk.restore(&copy);
                let mut bytes = whole.clone();
                bytes[at] ^= 0x20;
                write_file(&disk, &log, &bytes);
                let before = files(&disk);
                match open(&disk, &known) {
                    // A header that names another entry: nobody knows which lies here.
                    Err(LogError::Damaged { path, position, .. }) => {
                        assert_eq!(path, log);
                        assert!(position <= at as u64);
                    }
                    // The batch that its record speaks of, with bytes that are not those.
                    Ok((opened, recovery)) => {
                        let [bad] = recovery.bad[..] else {
                            panic!("byte {at} of {base}: {recovery:?}");
                        };
                        let entry = &entries[bad as usize - 1];
                        let of_segment = |e: &&LogEntry| {
                            e.kind == EntryKind::Data && e.base_offset >= base && e.index < bad
                        };
                        let before: usize = entries
                            .iter()
                            .filter(of_segment)
                            .map(|e| e.payload.len())
                            .sum();
                        assert!((before..before + entry.payload.len()).contains(&at));
                        assert_eq!(opened.last_index(), entries.len() as u64);
                        assert_eq!(recovery.cut_at, None);
                        let refused = opened.reader().entries(bad, bad + 1, u64::MAX);
                        assert!(
                            matches!(refused, Err(LogError::BadBatch { index, .. }) if index == bad)
                        );
                    }
                    Err(error) => panic!("byte {at} of {base}: {error}"),
                }
                assert_eq!(
                    read_file(&disk, &log),
                    before[log.file_name().unwrap().to_str().unwrap()]
                );
            }
            disk.restore(&copy);
            write_file(&disk, &log, &whole[..whole.len() - 1]);
            assert!(matches!(open(&disk, &known), Err(LogError::Damaged { .. })));
        }
    }
}

#[test]
fn a_missing_payload_below_the_durable_index_is_damage_in_its_file() {
    let (disk, entries) = small();
    let mut known = record(START);
    known.durable_index = entries.len() as u64;
    let aux = path(SegmentFile::Aux);
    let whole = read_file(&disk, &aux);
    write_file(&disk, &aux, &whole[..whole.len() - 1]);
    match open(&disk, &known) {
        Err(LogError::Damaged { path, .. }) => assert_eq!(path, aux),
        other => panic!("{other:?}"),
    }
    known.entries = non_data(&entries);
    assert_eq!(all(&open(&disk, &known).unwrap().0), entries);
}

#[test]
fn missing_and_damaged_indexes_are_made_again() {
    let (disk, entries) = large();
    let copy = disk.snapshot();
    let mut known = record(START);
    known.durable_index = entries.len() as u64;
    let bases = open(&disk, &known)
        .unwrap()
        .0
        .reader()
        .segment_base_offsets();
    let wanted = files(&disk);
    for scrub_on_open in [true, false] {
        let config = LogConfig {
            scrub_on_open,
            ..LogConfig::tiny()
        };
        for file in [SegmentFile::Index, SegmentFile::TimeIndex] {
            for (n, base) in bases.iter().enumerate() {
                let at = file.path(&dir(), *base);
                let name = at.file_name().unwrap().to_str().unwrap().to_owned();
                let whole = wanted[&name].clone();
                for damage in 0..4 {
                    disk.restore(&copy);
                    match damage {
                        0 => disk.remove_file(&at).unwrap(),
                        1 => write_file(&disk, &at, &[]),
                        2 => write_file(&disk, &at, &whole[..whole.len().saturating_sub(3)]),
                        _ => write_file(&disk, &at, &vec![0x55; whole.len() + 1]),
                    }
                    let changed = disk.open(&at, OpenMode::Existing).is_err()
                        || read_file(&disk, &at) != whole;
                    let (log, recovery) =
                        Log::open(disk.shared(), &dir(), &known, config.clone()).unwrap();
                    assert_eq!(
                        recovery.rebuilt_indexes,
                        usize::from(changed),
                        "{at:?} {damage}"
                    );
                    assert_eq!(files(&disk), wanted);
                    let reader = log.reader();
                    let fetched = reader.fetch(*base, log.next_offset(), 1, true).unwrap();
                    assert_eq!(fetched.first_offset, *base, "{n}");
                }
            }
        }
    }
}

#[test]
fn a_wrong_index_makes_the_way_longer_and_not_the_answer_wrong() {
    let (disk, entries) = large();
    let mut known = record(START);
    known.durable_index = entries.len() as u64;
    let bases = open(&disk, &known)
        .unwrap()
        .0
        .reader()
        .segment_base_offsets();
    for base in &bases[..bases.len() - 1] {
        let at = SegmentFile::Index.path(&dir(), *base);
        let len = read_file(&disk, &at).len();
        write_file(&disk, &at, &vec![0x11; len]);
    }
    let config = LogConfig {
        scrub_on_open: false,
        ..LogConfig::tiny()
    };
    let (log, _) = Log::open(disk.shared(), &dir(), &known, config).unwrap();
    let reader = log.reader();
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Data) {
        let fetched = reader
            .fetch(entry.base_offset, log.next_offset(), 1, true)
            .unwrap();
        assert_eq!(fetched.batches, std::slice::from_ref(&entry.payload));
    }
}

#[test]
fn the_scan_stops_at_a_batch_whose_term_began_with_an_entry_that_is_gone() {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let mut make = Maker::new(START);
    let entries = [
        make.noop(),
        make.data(1, 10),
        make.noop(),
        make.data(1, 10),
        make.data(1, 10),
    ];
    log.append(&entries).unwrap();
    log.sync_handle().sync().unwrap();
    let raft = read_file(&disk, &path(SegmentFile::Raft));
    write_file(
        &disk,
        &path(SegmentFile::Raft),
        &raft[..raft.len() - 3 * 32],
    );
    let copy = disk.snapshot();
    let (log, recovery) = open(&disk, &record(START)).unwrap();
    assert_eq!((all(&log).len(), recovery.cut_at), (2, Some(3)));
    disk.restore(&copy);
    let mut known = record(START);
    known.entries = vec![entries[2].clone()];
    assert_eq!(all(&open(&disk, &known).unwrap().0), entries);
    // The bug: a torn tail is taken for whole.
    disk.restore(&copy);
    let mut bytes = read_file(&disk, &path(SegmentFile::Log));
    *bytes.last_mut().unwrap() ^= 1;
    write_file(&disk, &path(SegmentFile::Log), &bytes);
    planted::set(Bug::KeepTornTail, true);
    let kept = open(&disk, &known).unwrap().0.last_index();
    planted::clear();
    assert_eq!(kept, 5);
    assert_eq!(open(&disk, &known).unwrap().0.last_index(), 4);
}

#[test]
fn wal_and_files_that_disagree_are_damage_whatever_the_index() {
    let (disk, entries) = small();
    let copy = disk.snapshot();
    for entry in &entries {
        disk.restore(&copy);
        let mut known = record(START);
        let mut other = entry.clone();
        match other.kind {
            EntryKind::Data => {
                let mut bytes = other.payload.to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                other.payload = bytes.into();
            }
            EntryKind::Conf | EntryKind::Command => other.payload = "other".into(),
            _ => other.kind = EntryKind::Conf,
        }
        known.entries = vec![other];
        let before = files(&disk);
        assert!(
            matches!(open(&disk, &known), Err(LogError::Damaged { .. })),
            "{entry:?}"
        );
        assert_eq!(files(&disk), before);
    }
}

#[test]
fn an_unfinished_cut_is_carried_out_before_anything_is_merged() {
    for (disk, entries) in [small(), large()] {
        let copy = disk.snapshot();
        for cut in [2, 5, 9, entries.len() as u64] {
            let mut known = record(START);
            known.unfinished_cut = Some(cut);
            known.durable_index = cut - 1;
            for failing in [None, Some(Operation::SetLen), Some(Operation::Sync)] {
                disk.restore(&copy);
                if let Some(operation) = failing {
                    // The cut failed half way in the life before, and the power with it.
                    let mut whole = record(START);
                    whole.durable_index = entries.len() as u64;
                    let (mut log, _) = open(&disk, &whole).unwrap();
                    disk.fail(operation, Times::Once, |path| {
                        path.extension()
                            .is_some_and(|extension| extension == "raft")
                    });
                    assert!(log.truncate_from(cut).is_err());
                    disk.clear_faults();
                    disk.crash(cut, &CrashModel::RANDOM);
                }
                let (log, recovery) = open(&disk, &known).unwrap();
                assert_eq!(all(&log), entries[..cut as usize - 1], "{cut} {failing:?}");
                assert_eq!((recovery.cut_at, recovery.finished_cut), (None, Some(cut)));
            }
        }
    }
}

#[test]
fn a_reset_that_was_recorded_is_carried_out() {
    let (disk, entries) = large();
    let copy = disk.snapshot();
    let start = LogStart {
        prev_index: 1000,
        prev_term: 9,
        offset: 5000,
    };
    let mut known = record(start);
    known.unfinished_cut = Some(1001);
    known.durable_index = 1000;
    for seed in 0..40 {
        disk.restore(&copy);
        if seed > 0 {
            let mut whole = record(START);
            whole.durable_index = entries.len() as u64;
            let (mut log, _) = open(&disk, &whole).unwrap();
            log.reset(start, &StoredConf::default()).unwrap();
            let mut make = Maker::new(start);
            log.append(&[make.noop(), make.data(1, 10)]).unwrap();
            disk.crash(seed, &CrashModel::RANDOM);
        }
        let (mut log, recovery) = open(&disk, &known).unwrap();
        assert!(recovery.was_reset);
        assert_eq!(
            (log.start(), log.last_index(), log.next_offset()),
            (start, 1000, 5000)
        );
        let mut make = Maker::new(start);
        let fresh = [make.noop(), make.data(2, 10)];
        log.append(&fresh).unwrap();
        log.sync_handle().sync_all().unwrap();
        let mut done = known.clone();
        done.unfinished_cut = None;
        assert_eq!(all(&open(&disk, &done).unwrap().0), fresh);
    }
    // Without its cut a record of another start is not believed.
    disk.restore(&copy);
    known.unfinished_cut = None;
    assert!(matches!(open(&disk, &known), Err(LogError::Damaged { .. })));
}

/// Opens a log on a disk without room, which gets a little more each time that it is asked for.
fn open_as_room_comes(disk: &MemDisk, known: &GroupRecord, what: &str) -> (Log, u32) {
    let mut refusals = 0;
    loop {
        let room = u64::from(refusals) * 97;
        disk.set_capacity(disk.used_bytes() + room);
        match open(disk, known) {
            Ok((log, _)) => return (log, refusals),
            Err(LogError::Full { .. }) => refusals += 1,
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[test]
fn an_opening_on_a_full_disk_succeeds_or_asks_for_room_and_loses_nothing() {
    let (mut at_once, mut refused) = (0, 0);
    for seed in 0..400_u64 {
        let disk = MemDisk::new();
        let mut log = create(&disk, START);
        let entries = some_entries(START, 12 + seed as usize % 30);
        let mut known = record(START);
        // Some rounds went through the WAL, some through the files, the last one was not flushed.
        for (round, chunk) in entries.chunks(6).enumerate() {
            log.append(chunk).unwrap();
            let last = chunk.last().unwrap().index;
            if last == entries.len() as u64 {
                // What is not data was durable before what is behind it was written (I4).
                known.entries.extend_from_slice(&non_data(chunk));
                break;
            }
            known
                .entries
                .extend_from_slice(&match (round as u64 + seed) % 3 {
                    0 => chunk.to_vec(),
                    _ => non_data(chunk),
                });
            if !(round as u64 + seed).is_multiple_of(3) {
                log.sync_handle().sync().unwrap();
            }
            known.durable_index = last;
        }
        drop(log);
        // What a start finds: all of it, what a power cut left, a reset, a flush that had failed.
        if seed % 4 > 0 {
            disk.crash(seed, &CrashModel::RANDOM);
        }
        let mut floor = known.durable_index;
        match seed % 10 {
            0 => known.trust = FileTrust::Suspect,
            1 => known.trust = FileTrust::Poisoned,
            2 => {
                let cut = 1 + seed % floor;
                known.unfinished_cut = Some(cut);
                known.entries.retain(|entry| entry.index < cut);
                floor = cut - 1;
                known.durable_index = floor;
            }
            _ => {}
        }
        let what = format!("seed {seed}");
        let (log, refusals) = open_as_room_comes(&disk, &known, &what);
        if refusals > 0 {
            refused += 1;
        } else {
            at_once += 1;
        }
        let got = is_prefix(&log, &entries) as u64;
        assert!(got >= floor, "{what}: {got} entries of {floor}");
        drop(log);
        disk.set_capacity(u64::MAX);
        disk.crash(seed, &CrashModel::LOSE_ALL);
        let mut later = record(START);
        later.durable_index = got;
        let (log, _) = open(&disk, &later).unwrap();
        assert_eq!(is_prefix(&log, &entries) as u64, got, "{what}");
    }
    assert!(at_once > 40 && refused > 40, "{at_once} {refused}");
}

#[test]
fn a_whole_log_opens_on_a_full_disk() {
    for (disk, entries) in [small(), large()] {
        let mut known = record(START);
        known.durable_index = entries.len() as u64;
        disk.set_capacity(disk.used_bytes());
        let (mut log, _) = open(&disk, &known).unwrap();
        assert_eq!(all(&log), entries);
        // Nor does a cut need what is not there.
        log.truncate_from(entries.len() as u64 / 2).unwrap();
        log.sync_handle().sync_all().unwrap();
    }
}

#[test]
fn a_reset_that_is_carried_out_at_an_opening_keeps_its_producer_snapshot() {
    // The producers of a snapshot are durable before its reset is recorded; the opening took the
    // file for another log's and refused the partition for ever.
    let (disk, entries) = large();
    let copy = disk.snapshot();
    let start = LogStart {
        prev_index: 1000,
        prev_term: 9,
        offset: 5000,
    };
    let mut whole = record(START);
    whole.durable_index = entries.len() as u64;
    let mut known = record(start);
    known.unfinished_cut = Some(0);
    known.durable_index = 1000;
    let names = |disk: &MemDisk| -> Vec<String> {
        let names = files(disk).into_keys();
        names.filter(|name| name.ends_with(".snapshot")).collect()
    };
    for seed in 0..20 {
        disk.restore(&copy);
        let (mut log, _) = open(&disk, &whole).unwrap();
        for offset in [40, 5000] {
            log.write_producer_snapshot(offset, &ProducerState::default())
                .unwrap();
        }
        log.sync_handle().sync_all().unwrap();
        if seed % 2 == 1 {
            log.reset(start, &StoredConf::default()).unwrap();
        }
        disk.crash(seed, &CrashModel::RANDOM);
        let (log, recovery) = open(&disk, &known).unwrap();
        assert!(recovery.was_reset);
        assert_eq!(log.start(), start);
        assert_eq!(names(&disk), ["00000000000000005000.snapshot"]);
    }
}

#[test]
fn a_missing_log_is_missing_and_another_replicas_is_foreign() {
    let (disk, entries) = small();
    let mut known = record(START);
    known.durable_index = entries.len() as u64;
    let mut other = known.clone();
    other.identity.replica += 1;
    assert!(matches!(
        open(&disk, &other),
        Err(LogError::Foreign { replica: 11, .. })
    ));
    for name in files(&disk).into_keys() {
        disk.remove_file(&dir().join(name)).unwrap();
    }
    assert!(matches!(open(&disk, &known), Err(LogError::Missing { .. })));
    disk.remove_dir_all(&dir()).unwrap();
    assert!(matches!(open(&disk, &known), Err(LogError::Missing { .. })));
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_again() {
    // W8: the sync of the log fails, the process goes, the files read well from the cache, the
    // power goes.
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let entries = some_entries(START, 5);
    log.append(&entries[..4]).unwrap();
    log.sync_handle().sync_all().unwrap();
    log.append(&entries[4..]).unwrap();
    disk.fail(Operation::Sync, Times::Once, |path| {
        path.extension().is_some_and(|extension| extension == "log")
    });
    assert!(log.sync_handle().sync_all().is_err());
    drop(log);
    let mut known = record(START);
    known.durable_index = 4;
    assert_eq!(all(&open(&disk, &known).unwrap().0), entries);
    disk.crash(1, &CrashModel::LOSE_ALL);
    known.durable_index = entries.len() as u64;
    assert_eq!(all(&open(&disk, &known).unwrap().0), entries);
}

#[test]
fn a_cut_whose_sync_failed_is_made_again_by_the_next_opening() {
    // W8: the file is cut in the cache alone. The process goes and the next one, which finds the file
    // as short as it should be, must not leave it at that: what was cut would be back after a power
    // loss, behind what has been appended since.
    for extension in ["log", "raft"] {
        let (disk, entries) = small();
        let cut = 3;
        let mut known = record(START);
        known.durable_index = entries.len() as u64;
        let (mut log, _) = open(&disk, &known).unwrap();
        disk.fail(Operation::Sync, Times::Once, move |path| {
            path.extension().is_some_and(|found| found == extension)
        });
        assert!(log.truncate_from(cut).is_err());
        drop(log);
        known.durable_index = cut - 1;
        known.unfinished_cut = Some(cut);
        let (mut log, _) = open(&disk, &known).unwrap();
        let mut kept = entries[..cut as usize - 1].to_vec();
        let mut make = Maker::after(&kept, START);
        make.term = 9;
        let noop = make.noop();
        log.append(std::slice::from_ref(&noop)).unwrap();
        kept.push(noop.clone());
        drop(log);
        disk.crash(1, &CrashModel::LOSE_ALL);
        // The noop was durable in the WAL.
        known.unfinished_cut = None;
        known.durable_index = cut;
        known.entries = vec![noop];
        let (log, recovery) = open(&disk, &known).unwrap();
        assert_eq!((all(&log), recovery.cut_at), (kept, None), "{extension}");
    }
}

#[test]
fn a_cut_with_the_sidecar_first_gives_a_batch_anothers_index() {
    // W5, and what the planted bug does: [command (i)][data (i+1)] is cut at i, the sidecar first,
    // and the power goes before the cut of the log is on the disk.
    let run = |planted: bool| {
        let disk = MemDisk::new();
        let mut log = create(&disk, START);
        let mut make = Maker::new(START);
        let entries = [
            make.noop(),
            make.data(1, 10),
            make.command("x"),
            make.data(1, 10),
        ];
        log.append(&entries).unwrap();
        log.sync_handle().sync_all().unwrap();
        planted::set(Bug::W5, planted);
        log.truncate_from(3).unwrap();
        planted::clear();
        disk.crash(1, &CrashModel::LOSE_ALL);
        let mut known = record(START);
        known.durable_index = 2;
        open(&disk, &known).unwrap().0.last_index()
    };
    assert_eq!(run(false), 2);
    assert_eq!(run(true), 3, "the batch of index 4 was taken for index 3");
}

#[test]
fn opening_checks_indexes_against_the_batches() {
    let (disk, entries) = large();
    let mut known = record(START);
    known.durable_index = entries.len() as u64;
    let (log, _) = open(&disk, &known).unwrap();
    for base in log.reader().segment_base_offsets() {
        let file = |which: SegmentFile| read_file(&disk, &which.path(&dir(), base));
        check_indexes(
            base,
            &file(SegmentFile::Log),
            &file(SegmentFile::Index),
            &file(SegmentFile::TimeIndex),
        );
    }
}

#[test]
fn a_dropped_head_stays_dropped_however_much_of_it_was_unlinked() {
    for seed in 0..30 {
        let (disk, entries) = large();
        let mut known = record(START);
        known.durable_index = entries.len() as u64;
        let (mut log, _) = open(&disk, &known).unwrap();
        let lasts = log.reader().segment_last_indexes();
        log.write_producer_snapshot(0, &ProducerState::default())
            .unwrap();
        let conf = StoredConf {
            index: 3,
            bytes: "conf".into(),
        };
        let start = log.drop_head(lasts[2] + 1, &conf).unwrap();
        assert_eq!(
            (start.prev_index, log.first_index()),
            (lasts[2], lasts[2] + 1)
        );
        assert_eq!(log.reader().term(start.prev_index), Some(start.prev_term));
        let rest = &entries[lasts[2] as usize..];
        assert_eq!(all(&log), rest);
        assert!(
            log.reader()
                .fetch(start.offset - 1, i64::MAX, 1, true)
                .is_err()
        );
        if seed % 2 == 0 {
            // Put a file of the head back, as if its unlinking had been lost.
            write_file(&disk, &SegmentFile::Log.path(&dir(), 0), b"left");
        }
        disk.crash(seed, &CrashModel::RANDOM);
        let (log, recovery) = open(&disk, &known).unwrap();
        assert_eq!((log.start(), recovery.cut_at), (start, None));
        assert_eq!(all(&log), rest);
        assert!(!disk.exists(&SegmentFile::Log.path(&dir(), 0)).unwrap());
    }
}

#[test]
fn producers_are_known_again_from_snapshots_and_batches() {
    use crate::producer_state::{ProducerState, SequenceVerdict};
    use riverrun_record::{BatchBuilder, BatchView, Compression};
    let disk = MemDisk::new();
    let mut log = create_with(&disk, START, LogConfig::tiny());
    let mut make = Maker::new(START);
    log.append(&[make.noop()]).unwrap();
    let mut live = ProducerState::default();
    let mut ends = vec![];
    for n in 0..150_i32 {
        let mut builder = BatchBuilder::new(Compression::None, None)
            .base_offset(make.offset)
            .leader_epoch(1)
            .producer(i64::from(n % 3), 0, n / 3);
        builder.append(1000, None, Some(&[1; 100]), &[]).unwrap();
        let mut entry = make.data(1, 1);
        entry.payload = builder.build().unwrap();
        for base in log.append(std::slice::from_ref(&entry)).unwrap().rolled {
            log.write_producer_snapshot(base, &live).unwrap();
        }
        live.apply(&BatchView::parse(&entry.payload).unwrap());
        ends.push((entry.next_offset(), live.clone()));
    }
    assert!(log.reader().segment_base_offsets().len() > 3);
    for (offset, state) in &ends {
        assert_eq!(
            log.recover_producer_state(*offset).unwrap().encode(),
            state.encode()
        );
    }
    let verdict = log
        .recover_producer_state(log.next_offset())
        .unwrap()
        .check(0, 0, 47, 47);
    assert!(
        matches!(verdict, SequenceVerdict::Duplicate { .. }),
        "{verdict:?}"
    );
    // A snapshot above a cut is not used.
    let cut = log.reader().segment_last_indexes()[0];
    log.truncate_from(cut).unwrap();
    let offset = log.next_offset();
    let wanted = &ends.iter().find(|(end, _)| *end == offset).unwrap().1;
    assert_eq!(
        log.recover_producer_state(offset).unwrap().encode(),
        wanted.encode()
    );
    assert!(
        !disk
            .read_dir(&dir())
            .unwrap()
            .iter()
            .any(|entry| entry.name.ends_with(".snapshot"))
    );
}

#[test]
fn r13_shifted_index() {
    // A change of the members in mid-term, checkpointed out of the WAL, and batches of the same term behind it.
    let mut make = Maker::new(START);
    let entries = [
        make.noop(),
        make.data(1, 40),
        make.conf("voters 1 2 3"),
        make.data(2, 50),
        make.data(1, 60),
    ];
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    log.append(&entries).unwrap();
    log.sync_handle().sync_all().unwrap();
    log.flush_indexes().unwrap();
    drop(log);
    let raft = path(SegmentFile::Raft);
    let whole = read_file(&disk, &raft);
    let records_at = whole.len() - entries.len() * RECORD_LEN;
    let copy = disk.snapshot();
    let shortened = |records: usize| whole[..records_at + records * RECORD_LEN].to_vec();
    let flipped = |record: usize| {
        let mut bytes = whole.clone();
        bytes[records_at + record * RECORD_LEN + 9] ^= 1;
        bytes
    };
    let opened = |sidecar: Vec<u8>, sidecar_synced: u64| {
        disk.restore(&copy);
        write_file(&disk, &raft, &sidecar);
        let mut known = record(START);
        known.durable_index = entries.len() as u64;
        known.sidecar_synced = sidecar_synced;
        open(&disk, &known).map(|(log, _)| all(&log))
    };
    let refused = |result: Result<Vec<LogEntry>, LogError>, record: usize| {
        let Err(LogError::Damaged { path, position, .. }) = result else {
            panic!("record {record}: {result:?}");
        };
        let at = records_at + record * RECORD_LEN;
        assert_eq!((path, position), (raft.clone(), at as u64));
    };
    // An older sidecar, of before the change: a batch would get the change's index, and pass for durable.
    let durable_four = |synced| {
        disk.restore(&copy);
        write_file(&disk, &raft, &shortened(2));
        let mut known = record(START);
        known.durable_index = 4;
        known.sidecar_synced = synced;
        open(&disk, &known).map(|(log, _)| all(&log))
    };
    let shifted = durable_four(0).unwrap();
    assert_eq!(shifted[2].kind, EntryKind::Data, "the rule forbids nothing");
    refused(durable_four(4), 2);
    // The last record is bad, and nothing behind it tells whether a batch was there.
    assert_eq!(opened(flipped(4), 3).unwrap(), entries);
    refused(opened(flipped(4), 5), 4);
    // One in the middle: the next one agrees with what the batches say, or does not.
    assert_eq!(opened(flipped(3), 5).unwrap(), entries);
    assert!(opened(flipped(2), 5).is_err());
    // What the WAL has is known.
    disk.restore(&copy);
    write_file(&disk, &raft, &shortened(2));
    let mut known = record(START);
    known.durable_index = 5;
    known.sidecar_synced = 5;
    known.entries = entries[2..].to_vec();
    assert_eq!(all(&open(&disk, &known).unwrap().0), entries);
}
