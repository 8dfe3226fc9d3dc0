//! A small data directory with one file of every kind, made by the code that makes them in a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::{BatchBuilder, Compression, Header, stamp};
use riverrun_replication::controller::{Controller, encode_batch};
use riverrun_replication::node::directory_name;
use riverrun_storage::node::{Boot, NodeConfig, NodeStore, RoundItem, SyncTarget};
use riverrun_storage::{
    Disk, EntryKind, HardState, Log, LogConfig, LogEntry, LogIdentity, LogStart, StdDisk,
    StoredConf,
};
use uuid::Uuid;

use crate::controller::commands;

/// Segments of 3000 bytes with an index entry every 256 bytes.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 3000,
        ..LogConfig::tiny()
    }
}

/// Makes entries that follow each other.
pub(crate) struct Maker {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) offset: i64,
    sequence: i32,
}

impl Maker {
    fn entry(&mut self, kind: EntryKind, last_offset_delta: u32, payload: Bytes) -> LogEntry {
        let entry = LogEntry {
            index: self.index,
            term: self.term,
            kind,
            base_offset: self.offset,
            last_offset_delta,
            payload,
        };
        self.index += 1;
        self.offset = entry.next_offset();
        entry
    }

    fn noop(&mut self) -> LogEntry {
        self.term += 1;
        self.entry(EntryKind::Noop, 0, Bytes::new())
    }

    /// Three records: keyed with a header, null, and bytes that are no text.
    pub(crate) fn data(&mut self, compression: Compression) -> LogEntry {
        let mut builder = BatchBuilder::new(compression, None)
            .base_offset(self.offset)
            .leader_epoch(i32::try_from(self.term).unwrap())
            .producer(
                4000 + i64::from(self.index.is_multiple_of(2)),
                3,
                self.sequence,
            );
        self.sequence += 3;
        let timestamp = 1_700_000_000_000 + 1000 * self.offset;
        let key = format!("key-{}", self.offset);
        let header = |key, value| Header { key, value };
        let headers = [
            header(b"n".as_slice(), Some(b"1".as_slice())),
            header(b"none", None),
        ];
        let value = vec![b'v'; 200];
        builder
            .append(timestamp, Some(key.as_bytes()), Some(&value), &headers)
            .unwrap();
        builder.append(timestamp + 1, None, None, &[]).unwrap();
        builder
            .append(timestamp + 2, None, Some(b"\xff\x1b[31m"), &[])
            .unwrap();
        self.entry(EntryKind::Data, 2, builder.build().unwrap())
    }

    /// One of each command.
    fn commands(&mut self) -> LogEntry {
        let commands = commands();
        let mut batch = encode_batch(&commands).unwrap();
        stamp(&mut batch, self.offset, i32::try_from(self.term).unwrap());
        let last = u32::try_from(commands.len() - 1).unwrap();
        self.entry(EntryKind::Data, last, batch.freeze())
    }

    fn other(&mut self, kind: EntryKind, payload: &'static [u8]) -> LogEntry {
        self.entry(kind, 0, Bytes::from_static(payload))
    }
}

/// A log and where it lies.
pub(crate) struct Partition {
    pub(crate) log: Log,
    pub(crate) identity: LogIdentity,
    pub(crate) make: Maker,
}

impl Partition {
    fn create(data: &Path, group: u64, topic: u128) -> Self {
        let identity = LogIdentity {
            group,
            replica: 100 + group,
            topic_id: Uuid::from_u128(topic),
            partition: 2,
        };
        let dir = data.join(directory_name(&identity));
        let start = LogStart::default();
        let log =
            Log::create(StdDisk::shared(), &dir, &identity, start, &conf(), config()).unwrap();
        Self {
            log,
            identity,
            make: Maker {
                index: 1,
                term: 0,
                offset: 0,
                sequence: 0,
            },
        }
    }

    fn sync_target(&self) -> Arc<dyn SyncTarget> {
        self.log.sync_handle()
    }

    /// Writes entries to the files and makes them durable with a round.
    pub(crate) fn write(&mut self, store: &NodeStore, entries: Vec<LogEntry>) {
        let rolled = self.log.append(&entries).unwrap().rolled;
        for offset in rolled {
            let state = self.log.recover_producer_state(offset).unwrap();
            self.log.write_producer_snapshot(offset, &state).unwrap();
        }
        let through = self.log.last_index();
        round(
            store,
            RoundItem {
                group: self.identity.group,
                entries,
                log: Some(self.sync_target()),
                durable_through: through,
                hard_state: Some(HardState {
                    term: self.make.term,
                    vote: self.identity.replica,
                    commit: through,
                }),
                ..RoundItem::default()
            },
        );
    }
}

fn conf() -> StoredConf {
    let mut conf = vec![1, 0];
    // One voter, and none of the others, in the encoding of the replication crate.
    conf.extend_from_slice(&1_u16.to_le_bytes());
    conf.extend_from_slice(&103_u64.to_le_bytes());
    conf.extend_from_slice(&[0; 6]);
    StoredConf {
        index: 0,
        bytes: conf.into(),
    }
}

fn round(store: &NodeStore, item: RoundItem) {
    let round = store.begin_round(vec![item]).unwrap();
    let result = round.sync().unwrap();
    assert!(result.failed.is_empty());
    store.end_round(round, &result).unwrap();
}

/// A data directory.
pub(crate) struct Data {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Option<NodeStore>,
    pub(crate) partition: Partition,
    /// Every offset below this is there.
    pub(crate) end: i64,
}

impl Data {
    /// A node that was stopped.
    pub(crate) fn stopped() -> Self {
        let mut data = Self::running();
        data.stop();
        data
    }

    /// A node that is running: its last entries are in the WAL and in the files, nothing is closed.
    pub(crate) fn running() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = NodeConfig {
            wal_bytes: 256 * 1024,
            flush_threads: 0,
            ..NodeConfig::default()
        };
        let boot = Boot {
            kernel_boot_id: "a-boot".to_owned(),
            node_id: 7,
            new_directory_id: Uuid::from_u128(0xd1),
            start_token: 0x5eed,
        };
        let disk: Arc<dyn Disk> = StdDisk::shared();
        let (store, _) = NodeStore::open(disk, dir.path(), config, boot).unwrap();
        store.set_cluster_id(Uuid::from_u128(0xc1)).unwrap();
        let mut controller = Partition::create(dir.path(), 0, 1);
        let mut partition = Partition::create(dir.path(), 3, 0xabc);
        for log in [&controller, &partition] {
            round(
                &store,
                RoundItem {
                    group: log.identity.group,
                    identity: Some((log.identity.clone(), LogStart::default())),
                    conf: Some(conf()),
                    log: Some(log.sync_target()),
                    ..RoundItem::default()
                },
            );
        }
        let entry = controller.make.noop();
        controller.write(&store, vec![entry]);
        let image = Controller::new().checkpoint();
        let dir_of_controller = controller.log.dir().to_path_buf();
        fs::write(dir_of_controller.join("0-1.checkpoint"), image).unwrap();
        let mut entries = vec![partition.make.noop()];
        for n in 0..60 {
            let compression = Compression::ALL[n % Compression::ALL.len()];
            entries.push(partition.make.data(compression));
            match n {
                20 => entries.push(partition.make.other(EntryKind::Conf, b"a change")),
                40 => {
                    entries.push(partition.make.other(EntryKind::Command, b"close"));
                    entries.push(partition.make.noop());
                }
                _ => {}
            }
            if n % 7 == 0 {
                partition.write(&store, std::mem::take(&mut entries));
            }
            if n == 40 {
                store.checkpoint().unwrap();
            }
        }
        partition.write(&store, entries);
        let entry = controller.make.commands();
        controller.write(&store, vec![entry]);
        controller.log.flush_indexes().unwrap();
        // Kafka's files are written at a stop, and now and then before.
        partition.log.flush_indexes().unwrap();
        partition.log.sync_handle().sync_all().unwrap();
        let end = partition.log.next_offset();
        Self {
            dir,
            store: Some(store),
            partition,
            end,
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(store) = self.store.take() {
            store.idle_round().unwrap();
            store.close_clean().unwrap();
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn partition_dir(&self) -> &Path {
        self.partition.log.dir()
    }

    /// The partition's files that end so, in order.
    pub(crate) fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = fs::read_dir(self.partition_dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(suffix))
            .collect();
        found.sort();
        assert!(!found.is_empty(), "no {suffix}");
        found
    }

    /// Every file of the directory.
    pub(crate) fn all_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in fs::read_dir(self.path()).unwrap() {
            for file in fs::read_dir(dir.unwrap().path()).unwrap() {
                found.push(file.unwrap().path());
            }
        }
        found.sort();
        found
    }
}
