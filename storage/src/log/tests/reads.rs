//! What is served of bytes at rest that are not what was written.

use std::time::Duration;

use proptest::prelude::*;
use riverrun_record::batches;

use super::harness::{Maker, create, dir, files, some_entries};
use crate::disk::mem::{Operation, Times};
use crate::disk::{Disk, MemDisk, OpenMode};
use crate::entry::{EntryKind, LogEntry};
use crate::log::{Log, LogError, LogReader};
use crate::recovered::LogStart;

/// Longer than anything is trusted.
const LATER: Duration = Duration::from_secs(3600);

fn filled(disk: &MemDisk, rounds: usize) -> (Log, Vec<LogEntry>) {
    let start = LogStart::default();
    let entries = some_entries(start, rounds);
    let mut log = create(disk, start);
    log.append(&entries).unwrap();
    log.flush_indexes().unwrap();
    log.sync_handle().sync_all().unwrap();
    (log, entries)
}

/// Flips a bit of what reads see.
fn flip(disk: &MemDisk, path: &std::path::Path, at: u64, bit: u8) {
    let file = disk.open(path, OpenMode::Existing).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << bit;
    file.write_all_at(&[std::io::IoSlice::new(&byte)], at)
        .unwrap();
}

/// Reads the whole log as a client does that goes on behind what it is told it cannot have.
fn read_all(reader: &LogReader, max_bytes: usize) -> (Vec<u8>, Vec<(i64, i64)>) {
    let (mut at, end) = (reader.log_start_offset(), reader.next_offset());
    let (mut bytes, mut refused) = (Vec::new(), Vec::new());
    while at < end {
        match reader.fetch(at, end, max_bytes, true) {
            Ok(fetched) => {
                assert!(fetched.next_offset > at, "offset {at}: it goes on");
                bytes.extend(fetched.batches.concat());
                at = fetched.next_offset;
            }
            Err(LogError::BadBatch {
                first_offset,
                next_offset,
                ..
            }) => {
                assert!(
                    first_offset <= at && at < next_offset,
                    "{first_offset} {at}"
                );
                refused.push((first_offset, next_offset));
                at = next_offset;
            }
            Err(error) => panic!("offset {at}: {error}"),
        }
    }
    (bytes, refused)
}

proptest! {
    /// Whatever bit is flipped in a `.log`: that batch is refused by its offsets, all others are served.
    #[test]
    fn a_flipped_bit_is_refused_and_all_else_is_served(
        segment in 0_usize..6,
        place in 0.0_f64..1.0,
        bit in 0_u8..8,
        max_bytes in 1_usize..2000,
    ) {
        let disk = MemDisk::new();
        let (log, entries) = filled(&disk, 24);
        let reader = log.reader();
        let bases = reader.segment_base_offsets();
        let base = bases[segment % bases.len()];
        let path = dir().join(format!("{base:020}.log"));
        let len = disk.open(&path, OpenMode::Existing).unwrap().len().unwrap();
        prop_assume!(len > 0);
        let at = (place * len as f64) as u64;
        flip(&disk, &path, at, bit);
        disk.set_now(LATER);

        let mut position = 0;
        let mut expected = Vec::new();
        let mut refused = Vec::new();
        let next = bases.iter().find(|other| **other > base).copied().unwrap_or(i64::MAX);
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Data) {
            let here = (base..next).contains(&entry.base_offset);
            let end = position + if here { entry.payload.len() as u64 } else { 0 };
            if here && (position..end).contains(&at) {
                refused.push((entry.base_offset, entry.next_offset()));
            } else {
                expected.extend_from_slice(&entry.payload);
            }
            position = end;
        }
        prop_assert_eq!(refused.len(), 1);
        prop_assert_eq!(read_all(&reader, max_bytes), (expected, refused));
        // Nothing of it is handed to another replica either.
        let (lo, hi) = (reader.first_index(), reader.last_index() + 1);
        let mut index = lo;
        while index < hi {
            match reader.entries(index, hi, 300) {
                Ok(read) => {
                    for entry in read {
                        let written = &entries[(entry.index - lo) as usize];
                        prop_assert_eq!(&entry, written);
                        index = entry.index + 1;
                    }
                }
                Err(LogError::BadBatch { index: bad, .. }) => {
                    prop_assert_eq!(bad, index);
                    index += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The same of the sidecar of a segment that is not written any more.
    #[test]
    fn a_flipped_bit_in_a_sidecar_costs_no_more_than_its_entry(
        segment in 0_usize..6,
        record in 0.0_f64..1.0,
        byte in 0_u64..32,
        bit in 0_u8..8,
    ) {
        let disk = MemDisk::new();
        let (log, entries) = filled(&disk, 24);
        let reader = log.reader();
        let bases = reader.segment_base_offsets();
        let lasts = reader.segment_last_indexes();
        prop_assume!(bases.len() > 2);
        let which = segment % (bases.len() - 1);
        let first = if which == 0 { reader.first_index() } else { lasts[which - 1] + 1 };
        let count = lasts[which] + 1 - first;
        let index = first + (record * count as f64) as u64;
        let path = dir().join(format!("{:020}.raft", bases[which]));
        let len = disk.open(&path, OpenMode::Existing).unwrap().len().unwrap();
        flip(&disk, &path, len - (lasts[which] + 1 - index) * 32 + byte, bit);
        disk.set_now(LATER);

        let bad = &entries[(index - reader.first_index()) as usize];
        let whole: Vec<&LogEntry> = entries.iter().filter(|entry| {
            entry.kind == EntryKind::Data && entry.index != index
        }).collect();
        let (bytes, refused) = read_all(&reader, 700);
        let expected: Vec<u8> = whole.iter().flat_map(|entry| entry.payload.to_vec()).collect();
        prop_assert_eq!(bytes, expected);
        if bad.kind == EntryKind::Data {
            prop_assert_eq!(refused, [(bad.base_offset, bad.next_offset())]);
        } else {
            prop_assert_eq!(refused, []);
        }
    }
}

#[test]
fn what_was_written_lately_leaves_without_being_read_again() {
    let disk = MemDisk::new();
    let (log, _) = filled(&disk, 24);
    let reader = log.reader();
    let end = reader.next_offset();
    let all = reader.fetch_in_memory(0, end, usize::MAX, true).unwrap();
    assert_eq!(all.unwrap().next_offset, end);
    disk.set_now(LATER);
    assert_eq!(
        reader.fetch_in_memory(0, end, usize::MAX, true).unwrap(),
        None
    );
    let read = reader.fetch(0, end, 1000, true).unwrap();
    let again = reader.fetch_in_memory(0, end, 1000, true).unwrap();
    assert_eq!(again, Some(read), "verified, so it is trusted anew");
}

#[test]
fn a_timestamp_is_not_looked_for_in_bytes_that_are_bad() {
    let disk = MemDisk::new();
    let start = LogStart::default();
    let mut make = Maker::new(start);
    let entries: Vec<LogEntry> = (0..40).map(|_| make.data(2, 60)).collect();
    let mut log = create(&disk, start);
    log.append(&entries).unwrap();
    let reader = log.reader();
    let end = reader.next_offset();
    let before = reader.offset_for_timestamp(1005, end).unwrap().unwrap();
    assert_eq!((before.offset, before.timestamp), (2, 1020));
    // The highest byte of the second batch's largest timestamp.
    let path = dir().join(format!("{:020}.log", 0));
    let second = entries[0].payload.len() as u64;
    flip(&disk, &path, second + 35, 6);
    disk.set_now(LATER);
    let error = reader.offset_for_timestamp(1005, end).unwrap_err();
    assert!(
        matches!(
            error,
            LogError::BadBatch {
                first_offset: 2,
                next_offset: 4,
                ..
            }
        ),
        "{error}"
    );
    let read = reader.fetch(0, end, usize::MAX, true).unwrap();
    assert_eq!(batches(&read.batches.concat()).count(), 1);
}

/// Flips bits of a log whose entries are known, puts what is bad right with them, and gives how many files
/// were exchanged.
fn mend_all(log: &mut Log, entries: &[LogEntry]) -> usize {
    let reader = log.reader();
    let first = reader.first_index();
    let mut exchanged = 0;
    let mut index = first;
    while index <= reader.last_index() {
        let run = reader.bad_run(index, 8).unwrap();
        let wanted: Vec<LogEntry> = run
            .iter()
            .map(|index| entries[(index - first) as usize].clone())
            .collect();
        let mended = reader.mend(&wanted).unwrap();
        let count = mended.len();
        if log.exchange(mended).unwrap() {
            exchanged += count;
        }
        if run.is_empty() || run.iter().all(|index| reader.verify(*index).is_ok()) {
            index += 1;
        }
    }
    exchanged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any bits of a log, of sealed segments' sidecars and of payloads: put right with the entries of another
    /// replica, every file is what it was, and the log goes on.
    #[test]
    fn what_is_bad_is_put_right_in_place(
        flips in prop::collection::vec((0_usize..100, 0.0_f64..1.0, 0_u8..8), 1..8),
    ) {
        let disk = MemDisk::new();
        let (mut log, entries) = filled(&disk, 24);
        let reader = log.reader();
        let active = *reader.segment_base_offsets().last().unwrap();
        let before = files(&disk);
        let kinds = |name: &str| {
            name.ends_with(".log") || name.ends_with(".aux")
                || (name.ends_with(".raft") && !name.starts_with(&format!("{active:020}")))
        };
        let names: Vec<&String> = before.keys().filter(|name| kinds(name)).collect();
        let mut flipped = std::collections::BTreeSet::new();
        for (which, place, bit) in flips {
            let name = names[which % names.len()];
            let len = before[name].len();
            // The header of a sidecar is looked at by the next opening, not by a read.
            let from = if name.ends_with(".raft") { len - len.saturating_sub(128) / 32 * 32 } else { 0 };
            let from = if name.ends_with(".aux") { 8 } else { from };
            if len <= from || !flipped.insert(name.clone()) {
                continue;
            }
            let at = from + (place * (len - from) as f64) as usize;
            flip(&disk, &dir().join(name), at as u64, bit);
        }
        disk.set_now(LATER);
        let exchanged = mend_all(&mut log, &entries);
        prop_assert!(exchanged >= flipped.len(), "{exchanged} of {flipped:?}");
        prop_assert_eq!(reader.bad_entries(), []);
        let after = files(&disk);
        for name in &names {
            prop_assert_eq!(&after[*name], &before[*name], "{}", name);
        }
        let mut make = Maker::after(&entries, LogStart::default());
        let more: Vec<LogEntry> = (0..4).map(|_| make.data(2, 90)).collect();
        log.append(&more).unwrap();
        log.sync_handle().sync().unwrap();
        let mut all = entries.clone();
        all.extend(more);
        prop_assert_eq!(super::harness::all(&log), all);
    }
}

#[test]
fn an_entry_that_does_not_belong_there_is_not_taken() {
    let disk = MemDisk::new();
    let start = LogStart::default();
    let mut make = Maker::new(start);
    let entries: Vec<LogEntry> = (0..40).map(|_| make.data(2, 60)).collect();
    let mut log = create(&disk, start);
    log.append(&entries).unwrap();
    let reader = log.reader();
    let path = dir().join(format!("{:020}.log", 0));
    flip(&disk, &path, entries[0].payload.len() as u64 + 70, 1);
    disk.set_now(LATER);
    let bad = entries[1].index;
    assert_eq!(reader.bad_run(bad, 9).unwrap(), [bad]);
    let before = files(&disk);
    // A neighbour's bytes; its own with a bit flipped; another term's.
    let mut neighbour = entries[2].clone();
    neighbour.index = bad;
    let mut flipped = entries[1].clone();
    let mut bytes = flipped.payload.to_vec();
    bytes[80] ^= 1;
    flipped.payload = bytes.into();
    let mut later = entries[1].clone();
    later.term += 1;
    for wrong in [neighbour, flipped, later] {
        let error = reader.mend(&[wrong]).unwrap_err();
        assert!(
            matches!(error, LogError::Unfit { index } if index == bad),
            "{error}"
        );
    }
    assert_eq!(files(&disk), before, "and nothing is written");
    let mended = reader.mend(&entries[1..2]).unwrap();
    // The log is begun anew meanwhile: the file goes, and takes nobody's place.
    let reset = LogStart {
        prev_index: 100,
        prev_term: 3,
        offset: 500,
    };
    log.reset(reset, &crate::recovered::StoredConf::default())
        .unwrap();
    assert!(!log.exchange(mended).unwrap());
    assert_eq!(
        files(&disk)
            .keys()
            .filter(|name| name.ends_with(".tmp"))
            .count(),
        0
    );
    assert_eq!(log.next_offset(), 500);
}

#[test]
fn a_place_that_cannot_be_read_leaves_no_gap_in_what_is_read() {
    let disk = MemDisk::new();
    let (log, entries) = filled(&disk, 24);
    let reader = log.reader();
    let (lo, hi) = (reader.first_index(), reader.last_index() + 1);
    // The first read of a run fails; that of its first half succeeds.
    let is_log = |path: &std::path::Path| path.extension().is_some_and(|end| end == "log");
    disk.fail(Operation::Read, Times::Once, is_log);
    let read = reader.entries(lo, hi, u64::MAX).unwrap();
    assert!(!read.is_empty());
    assert_eq!(read, entries[..read.len()]);
    disk.set_now(LATER);
    disk.fail(Operation::Read, Times::Once, is_log);
    let end = reader.next_offset();
    let fetched = reader.fetch(0, end, usize::MAX, true).unwrap();
    let bytes = fetched.batches.concat();
    let data: Vec<_> = batches(&bytes).map(Result::unwrap).collect();
    assert!(!data.is_empty());
    for pair in data.windows(2) {
        assert_eq!(pair[0].next_offset(), pair[1].base_offset());
    }
}
