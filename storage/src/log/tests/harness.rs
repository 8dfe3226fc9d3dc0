//! What the tests of the log share: entries made from small numbers, and a log to put them into.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::{BatchBuilder, Compression};
use uuid::Uuid;

use crate::disk::{Disk, MemDisk};
use crate::entry::{EntryKind, LogEntry};
use crate::log::{Log, LogConfig};
use crate::producer_state::ProducerState;
use crate::recovered::{FileTrust, GroupRecord, HardState, LogIdentity, LogStart, StoredConf};

pub(super) fn dir() -> PathBuf {
    PathBuf::from("/data/topic-0")
}

pub(super) fn identity() -> LogIdentity {
    LogIdentity {
        group: 3,
        replica: 11,
        topic_id: Uuid::from_u128(0xabc),
        partition: 0,
    }
}

pub(super) fn record(start: LogStart) -> GroupRecord {
    GroupRecord {
        identity: identity(),
        start,
        hard_state: HardState::default(),
        conf: StoredConf::default(),
        durable_index: start.prev_index,
        may_be_short: false,
        recovering: false,
        trust: FileTrust::Sound,
        sidecar_synced: 0,
        unfinished_cut: None,
        entries: Vec::new(),
    }
}

pub(super) fn create(disk: &MemDisk, start: LogStart) -> Log {
    create_with(disk, start, LogConfig::tiny())
}

pub(super) fn create_with(disk: &MemDisk, start: LogStart, config: LogConfig) -> Log {
    let disk: Arc<dyn Disk> = disk.shared();
    let mut log = Log::create(
        disk,
        &dir(),
        &identity(),
        start,
        &StoredConf::default(),
        config,
    )
    .unwrap();
    no_producers_before(&mut log, start);
    log
}

/// Says that nobody produced what lies before a start, as a reset does.
pub(super) fn no_producers_before(log: &mut Log, start: LogStart) {
    if start.offset > 0 {
        let nobody = ProducerState::default();
        log.write_producer_snapshot(start.offset, &nobody).unwrap();
        log.sync_handle().sync_all().unwrap();
    }
}

/// A batch of `count` records whose timestamps go up by one from `timestamp`.
pub(super) fn batch(
    base_offset: i64,
    term: u64,
    count: usize,
    timestamp: i64,
    value_len: usize,
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None)
        .base_offset(base_offset)
        .leader_epoch(term as i32);
    for n in 0..count {
        let value = vec![(base_offset as u8).wrapping_add(n as u8); value_len];
        builder
            .append(timestamp + n as i64, None, Some(value.as_slice()), &[])
            .unwrap();
    }
    builder.build().unwrap()
}

/// Makes entries that continue each other.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) offset: i64,
}

impl Maker {
    pub(super) fn new(start: LogStart) -> Self {
        Self {
            index: start.prev_index + 1,
            term: start.prev_term,
            offset: start.offset,
        }
    }

    pub(super) fn after(entries: &[LogEntry], start: LogStart) -> Self {
        entries.last().map_or_else(
            || Self::new(start),
            |last| Self {
                index: last.index + 1,
                term: last.term,
                offset: last.next_offset(),
            },
        )
    }

    fn entry(&mut self, kind: EntryKind, delta: u32, payload: Bytes) -> LogEntry {
        let entry = LogEntry {
            index: self.index,
            term: self.term,
            kind,
            base_offset: self.offset,
            last_offset_delta: delta,
            payload,
        };
        self.index += 1;
        self.offset = entry.next_offset();
        entry
    }

    pub(super) fn data(&mut self, count: usize, value_len: usize) -> LogEntry {
        let timestamp = 1000 + 10 * self.offset;
        self.data_at(count, value_len, timestamp)
    }

    pub(super) fn data_at(&mut self, count: usize, value_len: usize, timestamp: i64) -> LogEntry {
        let payload = batch(self.offset, self.term, count, timestamp, value_len);
        self.entry(EntryKind::Data, count as u32 - 1, payload)
    }

    /// The no-op that begins the next term.
    pub(super) fn noop(&mut self) -> LogEntry {
        self.term += 1;
        self.entry(EntryKind::Noop, 0, Bytes::new())
    }

    pub(super) fn conf(&mut self, text: &'static str) -> LogEntry {
        self.entry(EntryKind::Conf, 0, Bytes::from_static(text.as_bytes()))
    }

    pub(super) fn command(&mut self, text: &'static str) -> LogEntry {
        self.entry(EntryKind::Command, 0, Bytes::from_static(text.as_bytes()))
    }
}

/// A small log with everything in it.
pub(super) fn some_entries(start: LogStart, rounds: usize) -> Vec<LogEntry> {
    let mut make = Maker::new(start);
    let mut entries = vec![make.noop()];
    for round in 0..rounds {
        entries.push(make.data(1 + round % 3, 40 + 17 * (round % 5)));
        entries.push(make.data(2, 100));
        match round % 4 {
            0 => entries.push(make.conf("voters 1 2 3")),
            1 => entries.push(make.noop()),
            2 => entries.push(make.command("close")),
            _ => {}
        }
    }
    entries
}

pub(super) fn all(log: &Log) -> Vec<LogEntry> {
    log.reader()
        .entries(log.first_index(), log.last_index() + 1, u64::MAX)
        .unwrap()
}

pub(super) fn read_file(disk: &MemDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, crate::disk::OpenMode::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub(super) fn write_file(disk: &MemDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, crate::disk::OpenMode::Create).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0)
        .unwrap();
}

pub(super) fn open(
    disk: &MemDisk,
    record: &GroupRecord,
) -> crate::log::LogResult<(Log, crate::log::Recovery)> {
    Log::open(disk.shared(), &dir(), record, LogConfig::tiny())
}

/// Every file of the log with its bytes.
pub(super) fn files(disk: &MemDisk) -> std::collections::BTreeMap<String, Vec<u8>> {
    let names = disk.read_dir(&dir()).unwrap();
    let read = |name: String| (name.clone(), read_file(disk, &dir().join(name)));
    names.into_iter().map(|entry| read(entry.name)).collect()
}

/// What the WAL holds of entries when nothing was checkpointed and all data was synced in the files.
pub(super) fn non_data(entries: &[LogEntry]) -> Vec<LogEntry> {
    entries
        .iter()
        .filter(|entry| entry.kind != EntryKind::Data)
        .cloned()
        .collect()
}
