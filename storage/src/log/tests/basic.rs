//! Appending and reading.

use std::io;
use std::sync::Arc;

use crate::disk::mem::{Operation, Times};
use crate::disk::{Disk, MemDisk, StdDisk};
use crate::entry::LogEntry;
use crate::format::SegmentFile;
use crate::log::{Log, LogConfig, LogError, TimestampOffset};
use crate::recovered::{LogStart, StoredConf};

use super::harness::{Maker, all, create, create_with, dir, identity, read_file, some_entries};

const START: LogStart = LogStart {
    prev_index: 0,
    prev_term: 0,
    offset: 0,
};

fn bytes_of(entries: &[LogEntry], from: i64, ceiling: i64) -> Vec<u8> {
    let wanted = entries.iter().filter(|entry| {
        entry.kind.moves_offset() && entry.next_offset() > from && entry.next_offset() <= ceiling
    });
    wanted.flat_map(|entry| entry.payload.to_vec()).collect()
}

#[test]
fn what_is_appended_is_read_back_by_index_and_by_offset() {
    let start = LogStart {
        prev_index: 7,
        prev_term: 2,
        offset: 100,
    };
    let entries = some_entries(start, 60);
    for step in [1, 3, 1000] {
        let disk = MemDisk::new();
        let mut log = create(&disk, start);
        let mut rolled = vec![100];
        for chunk in entries.chunks(step) {
            rolled.extend(log.append(chunk).unwrap().rolled);
        }
        assert!(rolled.len() > 3);
        let reader = log.reader();
        assert_eq!(reader.segment_base_offsets(), rolled);
        assert_eq!(all(&log), entries);
        assert_eq!((reader.term(7), reader.term(6)), (Some(2), None));
        for entry in &entries {
            assert_eq!(reader.term(entry.index), Some(entry.term));
            let meta = reader.entry_meta(entry.index).unwrap().unwrap();
            assert_eq!(
                (meta.kind, meta.base_offset),
                (entry.kind, entry.base_offset)
            );
            assert_eq!(meta.len as usize, entry.payload.len());
            if entry.kind.moves_offset() {
                assert_eq!(
                    reader.index_of_offset(entry.base_offset).unwrap(),
                    Some(entry.index)
                );
                assert_eq!(
                    reader.index_of_offset(entry.next_offset() - 1).unwrap(),
                    Some(entry.index)
                );
                assert_eq!(
                    reader.epoch_of_offset(entry.base_offset),
                    Some(entry.term as i32)
                );
            }
        }
        let end = log.next_offset();
        for offset in 100..=end {
            for ceiling in [offset, offset + 7, end] {
                let fetched = reader.fetch(offset, ceiling, usize::MAX, false).unwrap();
                assert_eq!(
                    fetched.batches.concat(),
                    bytes_of(&entries, offset, ceiling)
                );
                assert!(fetched.next_offset <= ceiling.max(offset));
            }
        }
        for offset in [99, end + 1] {
            let refused = reader.fetch(offset, end, 1, true);
            assert!(matches!(refused, Err(LogError::OutOfRange { .. })));
        }
    }
}

#[test]
fn a_fetch_takes_whole_batches_within_its_bytes() {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let entries = some_entries(START, 30);
    log.append(&entries).unwrap();
    let (reader, end) = (log.reader(), log.next_offset());
    for max in [0, 1, 200, 500, 5000, 20_000] {
        let mut offset = 0;
        let mut got = Vec::new();
        while offset < end {
            let fetched = reader.fetch(offset, end, max, true).unwrap();
            let bytes: usize = fetched.batches.iter().map(bytes::Bytes::len).sum();
            let count = riverrun_record::batches(&fetched.batches.concat()).count();
            assert!(bytes <= max || count == 1, "{bytes} of {max}");
            assert!(fetched.next_offset > offset);
            offset = fetched.next_offset;
            got.extend(fetched.batches.concat());
        }
        assert_eq!(got, bytes_of(&entries, 0, end));
        let none = reader.fetch(0, end, 10, false).unwrap();
        assert!(none.batches.is_empty() && none.next_offset == 0);
    }
    let one = reader.entries(2, 10, 0).unwrap();
    assert_eq!(one, entries[1..2]);
    assert!(matches!(
        reader.entries(1, 10_000, 0),
        Err(LogError::NoSuchEntry { .. })
    ));
    assert!(matches!(
        reader.entries(0, 2, 0),
        Err(LogError::NoSuchEntry { index: 0, .. })
    ));
}

#[test]
fn records_are_found_by_their_timestamp() {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let mut make = Maker::new(START);
    let mut entries = vec![make.noop()];
    // Times that rise and fall.
    for n in 0..80_i64 {
        entries.push(make.data_at(1 + (n % 3) as usize, 50, 1000 + (n * 7919) % 500));
    }
    log.append(&entries).unwrap();
    assert!(log.reader().segment_base_offsets().len() > 2);
    let mut records: Vec<(i64, i64)> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind.moves_offset()) {
        let batch = riverrun_record::BatchView::parse(&entry.payload).unwrap();
        for n in 0..=i64::from(entry.last_offset_delta) {
            records.push((entry.base_offset + n, batch.base_timestamp() + n));
        }
    }
    let reader = log.reader();
    let end = log.next_offset();
    for ceiling in [0, 1, 10, 77, end - 1, end] {
        // Ceilings are ends of batches.
        let ceiling = entries
            .iter()
            .map(LogEntry::next_offset)
            .find(|o| *o >= ceiling)
            .unwrap();
        let below = || records.iter().filter(|(offset, _)| *offset < ceiling);
        for timestamp in (990..1510).chain([0, i64::MAX]) {
            let found = reader.offset_for_timestamp(timestamp, ceiling).unwrap();
            let wanted = below().find(|(_, time)| *time >= timestamp);
            assert_eq!(
                found.map(|f| (f.offset, f.timestamp)),
                wanted.copied(),
                "{timestamp}"
            );
        }
        let latest = below().map(|(_, time)| *time).max();
        let wanted = latest
            .and_then(|latest| below().find(|(_, time)| *time == latest))
            .map(|(offset, timestamp)| TimestampOffset {
                timestamp: *timestamp,
                offset: *offset,
                leader_epoch: 1,
            });
        assert_eq!(reader.max_timestamp(ceiling).unwrap(), wanted);
    }
}

#[test]
fn a_segment_ends_by_time() {
    let disk = MemDisk::new();
    let config = LogConfig {
        segment_ms: 100,
        ..LogConfig::tiny()
    };
    let mut log = create_with(&disk, START, config);
    let mut make = Maker::new(START);
    let entries = [
        make.noop(),
        make.data_at(1, 10, 1000),
        make.data_at(1, 10, 1100),
        make.conf("x"),
        make.data_at(1, 10, 1101),
        make.data_at(1, 10, 5),
        make.data_at(1, 10, 1202),
    ];
    assert_eq!(log.append(&entries).unwrap().rolled, [2, 4]);
    assert_eq!(log.reader().segment_last_indexes(), [4, 6, 7]);
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let mut make = Maker::new(START);
    let entries = [
        make.noop(),
        make.data(1, 10),
        make.data(1, 9000),
        make.data(1, 10),
    ];
    assert_eq!(log.append(&entries).unwrap().rolled, [1, 2]);
    assert_eq!(all(&log), entries);
}

#[test]
fn a_full_disk_refuses_the_write_and_the_log_goes_on_when_there_is_room() {
    for preallocate in [false, true] {
        let disk = MemDisk::new();
        let config = LogConfig {
            preallocate,
            ..LogConfig::tiny()
        };
        let mut log = create_with(&disk, START, config);
        let entries = some_entries(START, 100);
        disk.set_capacity(disk.used_bytes() + 10_000);
        let mut last_index = 0;
        let full = loop {
            let next = &entries[last_index as usize..][..5];
            match log.append(next) {
                Ok(_) => last_index += 5,
                Err(error) => break error,
            }
        };
        let LogError::Full {
            last_index: kept, ..
        } = full
        else {
            panic!("{full}")
        };
        assert!(kept >= last_index && kept < last_index + 5);
        assert_eq!(log.last_index(), kept);
        assert_eq!(all(&log), entries[..kept as usize]);
        disk.set_capacity(u64::MAX);
        log.append(&entries[kept as usize..]).unwrap();
        assert_eq!(all(&log), entries);
    }
}

#[test]
fn the_first_failed_write_or_sync_is_final() {
    let disk = MemDisk::new();
    let entries = some_entries(START, 3);
    for operation in [Operation::Write, Operation::Sync] {
        let disk = disk.clone();
        disk.wipe();
        let mut log = create(&disk, START);
        let sync = log.sync_handle();
        log.append(&entries[..2]).unwrap();
        let id = disk.fail(operation, Times::Once, |path| {
            path.extension().is_some_and(|extension| extension == "log")
        });
        if operation == Operation::Write {
            assert!(matches!(
                log.append(&entries[2..3]),
                Err(LogError::Io { .. })
            ));
        } else {
            assert_eq!(sync.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        }
        disk.clear_fault(id);
        assert!(sync.is_poisoned() && sync.sync().is_err());
        assert!(matches!(
            log.append(&entries[2..3]),
            Err(LogError::Poisoned { .. })
        ));
    }
}

#[test]
fn a_flush_covers_what_was_appended_before_it_began() {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    let sync = log.sync_handle();
    let entries = some_entries(START, 3);
    log.append(&entries[..2]).unwrap();
    let (first, begun) = (sync.begin(), disk.write_seq());
    log.append(&entries[2..]).unwrap();
    assert!(sync.is_dirty());
    let second = sync.begin();
    assert!(!sync.is_dirty());
    disk.sync_horizon(Some(begun));
    first.sync().unwrap();
    disk.sync_horizon(None);
    let path = SegmentFile::Log.path(&dir(), 0);
    let durable = |disk: &MemDisk| {
        disk.durable_files()
            .into_iter()
            .find(|(at, _)| *at == path)
            .map(|(_, len)| len)
    };
    assert_eq!(durable(&disk), Some(entries[1].payload.len() as u64));
    second.sync().unwrap();
    assert_eq!(durable(&disk), Some(log.reader().size_bytes()));
}

#[test]
fn a_log_is_not_created_over_another() {
    let disk = MemDisk::new();
    drop(create(&disk, START));
    let config = LogConfig::tiny();
    let conf = StoredConf::default();
    let again = Log::create(disk.shared(), &dir(), &identity(), START, &conf, config);
    assert!(matches!(again, Err(LogError::Exists { .. })));
}

#[test]
#[should_panic(expected = "I1: stamped with its term")]
fn a_batch_of_another_term_is_refused() {
    let mut log = create(&MemDisk::new(), START);
    let mut make = Maker::new(START);
    let mut entry = make.data(1, 1);
    entry.term = 5;
    let _ = log.append(&[entry]);
}

#[test]
fn kafkas_files_have_kafkas_contents() {
    let disk = MemDisk::new();
    let mut log = create(&disk, START);
    log.append(&some_entries(START, 60)).unwrap();
    log.flush_indexes().unwrap();
    let reader = log.reader();
    let text = |name: &str| String::from_utf8(read_file(&disk, &dir().join(name))).unwrap();
    assert!(text("partition.metadata").starts_with("version: 0\ntopic_id: AAAAAAAA"));
    let epochs = crate::format::leader_epochs::decode(&text("leader-epoch-checkpoint")).unwrap();
    assert!(epochs.len() > 5);
    for (epoch, offset) in epochs {
        assert_eq!(reader.epoch_of_offset(offset), Some(epoch));
    }
    for base in reader.segment_base_offsets() {
        let file = |which: SegmentFile| read_file(&disk, &which.path(&dir(), base));
        check_indexes(
            base,
            &file(SegmentFile::Log),
            &file(SegmentFile::Index),
            &file(SegmentFile::TimeIndex),
        );
    }
}

/// What Kafka's dump tool looks for.
pub(super) fn check_indexes(base: i64, log: &[u8], index: &[u8], time_index: &[u8]) {
    use crate::format::index::{OffsetEntry, TimeEntry};
    for entry in index.chunks(8).map(OffsetEntry::decode) {
        let batch = riverrun_record::BatchView::parse(&log[entry.position as usize..]).unwrap();
        assert_eq!(batch.last_offset() - base, i64::from(entry.relative_offset));
    }
    let mut last = -1;
    for entry in time_index.chunks(12).map(TimeEntry::decode) {
        let offset = base + i64::from(entry.relative_offset);
        let batch = riverrun_record::batches(log)
            .map(Result::unwrap)
            .find(|batch| batch.last_offset() >= offset)
            .unwrap();
        assert_eq!(
            (batch.last_offset(), batch.max_timestamp()),
            (offset, entry.timestamp)
        );
        assert!(entry.timestamp > last);
        last = entry.timestamp;
    }
}

#[test]
fn the_real_disk_serves_slices_of_its_maps() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk: Arc<dyn Disk> = StdDisk::shared();
    let config = LogConfig {
        preallocate: true,
        ..LogConfig::tiny()
    };
    let path = dir.path().join("topic-0");
    let conf = StoredConf::default();
    let mut log = Log::create(disk, &path, &identity(), START, &conf, config).unwrap();
    let entries = some_entries(START, 60);
    for chunk in entries.chunks(7) {
        log.append(chunk).unwrap();
        log.sync_handle().sync()?;
    }
    assert_eq!(all(&log), entries);
    let fetched = log
        .reader()
        .fetch(0, log.next_offset(), usize::MAX, true)
        .unwrap();
    assert_eq!(fetched.batches.concat(), bytes_of(&entries, 0, i64::MAX));
    let on_disk = std::fs::metadata(SegmentFile::Log.path(&path, 0))?.len();
    assert!(
        on_disk > 0 && on_disk <= 4096,
        "the reserved blocks do not show"
    );
    Ok(())
}
