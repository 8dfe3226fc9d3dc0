//! What a scrub finds of bits that flip and sectors that fail on the disk alone, while the cache has the bytes.

use std::time::Duration;

use proptest::prelude::*;

use super::harness::{Maker, create, dir, files, identity, open, record, some_entries};
use crate::disk::MemDisk;
use crate::disk::mem::CrashModel;
use crate::entry::LogEntry;
use crate::format::bad_places;
use crate::log::{Log, LogError, Scrubbed, Scrubber};
use crate::recovered::LogStart;

/// A log of several segments, all of it durable and the head of its directory too.
fn filled(disk: &MemDisk) -> (Log, Vec<LogEntry>) {
    let start = LogStart::default();
    let entries = some_entries(start, 40);
    let mut log = create(disk, start);
    for part in entries.chunks(5) {
        let rolled = log.append(part).unwrap().rolled;
        for base in rolled {
            let state = log.recover_producer_state(base).unwrap();
            log.write_producer_snapshot(base, &state).unwrap();
        }
        log.sync_handle().sync_all().unwrap();
    }
    log.flush_indexes().unwrap();
    log.sync_handle().sync_all().unwrap();
    assert!(log.reader().segment_base_offsets().len() > 3);
    (log, entries)
}

/// Scrubs all of a log in small steps; gives what was found.
fn scrub(log: &mut Log) -> (usize, Vec<String>, usize) {
    let reader = log.reader();
    let mut scrubber = Scrubber::default();
    let (mut from, through) = (reader.first_index(), reader.last_index());
    let (mut bad, mut stale, mut unreadable) = (0, Vec::new(), 0);
    while from <= through {
        let interval = log.config().index_interval_bytes;
        let mut done: Scrubbed = reader
            .scrub(&mut scrubber, (from, through), 300, interval)
            .unwrap();
        assert!(done.next > from);
        from = done.next;
        bad += done.bad;
        unreadable += usize::from(done.unreadable.is_some());
        let names = done.stale.iter().map(|path| path.file_name().unwrap());
        stale.extend(names.map(|name| name.to_str().unwrap().to_owned()));
        log.renew_stale(&mut done).unwrap();
    }
    (bad, stale, unreadable)
}

/// Every file as a loss of power would leave it.
fn at_rest(disk: &MemDisk) -> std::collections::BTreeMap<String, Vec<u8>> {
    let names = files(disk).into_keys();
    names
        .map(|name| {
            let image = disk.durable_image(&dir().join(&name)).unwrap_or_default();
            (name, image)
        })
        .collect()
}

fn mend(log: &mut Log, entries: &[LogEntry]) {
    let reader = log.reader();
    let first = reader.first_index();
    while let Some(bad) = reader.bad_entries().first().copied() {
        let run = reader.bad_run(bad.index, 64).unwrap();
        let wanted: Vec<LogEntry> = run
            .iter()
            .map(|index| entries[usize::try_from(index - first).unwrap()].clone())
            .collect();
        assert!(!wanted.is_empty());
        let mended = reader.mend(&wanted).unwrap();
        assert!(log.exchange(mended).unwrap());
        for entry in &wanted {
            reader.verify(entry.index).unwrap();
        }
    }
}

#[test]
fn a_log_that_is_whole_is_left_alone() {
    let disk = MemDisk::new();
    let (mut log, _) = filled(&disk);
    let before = files(&disk);
    assert_eq!(scrub(&mut log), (0, Vec::new(), 0));
    assert_eq!(files(&disk), before);
    assert!(!log.reader().is_marred());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// One bit of any file that a log is made of, on the disk alone.
    #[test]
    fn a_bit_that_flips_anywhere_is_found_and_put_right(
        (which, place, bit) in (0_usize..100, 0.0_f64..1.0, 0_u8..8),
    ) {
        let disk = MemDisk::new();
        let (mut log, entries) = filled(&disk);
        let before = at_rest(&disk);
        let active = *log.reader().segment_base_offsets().last().unwrap();
        let active = format!("{active:020}");
        let ends = |name: &str, ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let names: Vec<&String> = before
            .iter()
            .filter(|(name, bytes)| {
                // What only a start needs of the newest segment is written again when it is sealed.
                let of_sealed = ends(name, &[".index", ".timeindex"]);
                !bytes.is_empty()
                    && (ends(name, &[".log", ".raft", ".aux", ".snapshot"]) || of_sealed)
                    && !(of_sealed && name.starts_with(&active))
            })
            .map(|(name, _)| name)
            .collect();
        let name = names[which % names.len()];
        let len = before[name].len();
        let at = (place * len as f64) as usize;
        prop_assert!(disk.flip_bit(&dir().join(name), at as u64, bit));
        let (bad, stale, _) = scrub(&mut log);
        prop_assert!(bad > 0 || stale.contains(name), "{name} at {at}: {bad}, {stale:?}");
        log.remember_bad().unwrap();
        prop_assert_eq!(bad > 0, files(&disk).contains_key(bad_places::FILE_NAME));
        mend(&mut log, &entries);
        log.remember_bad().unwrap();
        log.sync_handle().sync_all().unwrap();
        let after = at_rest(&disk);
        // A header tells how much was durable when it was written, which may be more by now.
        let header = if name.ends_with(".raft") && at < 128 { 128 } else { 0 };
        prop_assert_eq!(&after[name][header..], &before[name][header..], "{}", name);
        prop_assert!(!after.contains_key(bad_places::FILE_NAME));
        prop_assert_eq!(scrub(&mut log), (0, Vec::new(), 0));
    }
}

#[test]
fn what_was_found_is_known_after_a_restart_and_forgotten_when_it_is_right() {
    let disk = MemDisk::new();
    let (mut log, entries) = filled(&disk);
    let path = dir().join(format!("{:020}.log", 0));
    assert!(disk.flip_bit(&path, 70, 1));
    assert_eq!(scrub(&mut log).0, 1);
    let bad = log.reader().bad_entries();
    assert!(!log.reader().remembers_bad());
    log.remember_bad().unwrap();
    assert!(log.reader().remembers_bad());
    drop(log);
    disk.crash(1, &CrashModel::LOSE_ALL);
    let mut known = record(LogStart::default());
    known.durable_index = entries.last().unwrap().index;
    known.entries = super::harness::non_data(&entries);
    let (mut log, _) = open(&disk, &known).unwrap();
    let again = log.reader().bad_entries();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].index, bad[0].index);
    mend(&mut log, &entries);
    log.remember_bad().unwrap();
    drop(log);
    let (log, _) = open(&disk, &known).unwrap();
    assert!(!log.reader().is_marred());
}

#[test]
fn a_list_that_cannot_be_read_or_is_another_replicas_says_nothing_and_is_set_aside() {
    let disk = MemDisk::new();
    let (log, entries) = filled(&disk);
    drop(log);
    let mut known = record(LogStart::default());
    known.durable_index = entries.last().unwrap().index;
    known.entries = super::harness::non_data(&entries);
    let path = dir().join(bad_places::FILE_NAME);
    let place = bad_places::BadPlace {
        index: 3,
        first_offset: 0,
        next_offset: 1,
    };
    let others = bad_places::BadPlaces {
        group: identity().group,
        replica: identity().replica + 1,
        places: vec![place],
    };
    for bytes in [others.encode(), b"RVBP, or so".to_vec()] {
        super::harness::write_file(&disk, &path, &bytes);
        let (log, _) = open(&disk, &known).unwrap();
        assert!(!log.reader().is_marred());
        let files = files(&disk);
        assert!(!files.contains_key(bad_places::FILE_NAME));
        assert_eq!(files[bad_places::DAMAGED_NAME], bytes);
    }
}

#[test]
fn a_place_that_is_refused_counts_as_bad_when_it_is_given_up_and_is_put_right() {
    let disk = MemDisk::new();
    let (mut log, entries) = filled(&disk);
    let before = at_rest(&disk);
    let name = format!("{:020}.log", 0);
    let reader = log.reader();
    // The end of the first batch and the whole of the second.
    let len = entries[1].payload.len();
    assert!(disk.refuse(&dir().join(&name), len as u64 - 4, 100));
    disk.set_now(Duration::from_secs(1000));
    let error = reader
        .fetch(0, reader.next_offset(), 1 << 20, true)
        .unwrap_err();
    assert!(error.is_of_one_place(), "{error}");
    assert_eq!(scrub(&mut log).0, 0);
    assert!(!reader.is_marred(), "it may pass");
    let refused: Vec<u64> = reader
        .unreadable_entries()
        .iter()
        .map(|(of, _)| *of)
        .collect();
    assert_eq!(refused, [entries[1].index, entries[2].index]);
    reader.give_up_reading(refused[1]).unwrap();
    assert_eq!(reader.bad_entries().len(), 2);
    assert!(reader.unreadable_entries().is_empty());
    // What lies there is bad for whoever asks, and what lies behind is served.
    let error = reader
        .fetch(0, reader.next_offset(), 1 << 20, true)
        .unwrap_err();
    let LogError::BadBatch { next_offset, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(next_offset, entries[1].next_offset());
    let behind = entries[2].next_offset();
    assert!(
        reader
            .fetch(behind, reader.next_offset(), 1 << 20, true)
            .is_ok()
    );
    mend(&mut log, &entries);
    assert_eq!(at_rest(&disk)[&name], before[&name]);
    assert_eq!(super::harness::all(&log), entries);
    let mut make = Maker::after(&entries, LogStart::default());
    log.append(&[make.data(2, 50)]).unwrap();
}

#[test]
fn a_sidecar_that_is_refused_is_written_anew_from_what_others_have() {
    let disk = MemDisk::new();
    let (mut log, entries) = filled(&disk);
    let before = at_rest(&disk);
    let name = format!("{:020}.raft", 0);
    let len = before[&name].len();
    assert!(disk.refuse(&dir().join(&name), len as u64 - 64, 32));
    let reader = log.reader();
    assert_eq!(scrub(&mut log).0, 0);
    let refused = reader.unreadable_entries();
    assert!(!refused.is_empty());
    for (index, _) in refused {
        if reader.bad_for(index).is_none() {
            reader.give_up_reading(index).unwrap();
        }
    }
    mend(&mut log, &entries);
    assert_eq!(at_rest(&disk)[&name], before[&name]);
    assert_eq!(scrub(&mut log), (0, Vec::new(), 0));
}
