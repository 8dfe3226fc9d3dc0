//! The bytes of the node store's files, as they were when the formats were fixed. A fixture is never
//! changed, only added to; `RIVERRUN_WRITE_FIXTURES=1` writes those that are missing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use riverrun_storage::node::wal::{DumpItem, dump};
use riverrun_storage::node::{
    Boot, Flags, MAX_STARTS, NodeConfig, NodeStore, RoundItem, SyncTarget, read_identity, read_side,
};
use riverrun_storage::{
    Disk, EntryKind, HardState, LogEntry, LogIdentity, LogStart, MemDisk, OpenMode, StdDisk,
    StoredConf,
};
use uuid::Uuid;

#[derive(Debug)]
struct Broken;

impl SyncTarget for Broken {
    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn sync_full(&self) -> std::io::Result<()> {
        Err(std::io::Error::from_raw_os_error(5))
    }
}

fn entry(index: u64, kind: EntryKind, payload: &'static [u8]) -> LogEntry {
    LogEntry {
        index,
        term: 3,
        kind,
        base_offset: 40,
        last_offset_delta: if kind == EntryKind::Data { 2 } else { 0 },
        payload: Bytes::from_static(payload),
    }
}

/// One record of every kind, a checkpoint with a side file, and a second start. Returns the WAL as it
/// was before the checkpoint.
fn write(disk: &MemDisk) -> Vec<u8> {
    let open = || {
        let boot = Boot {
            kernel_boot_id: "6f7c3e9a-boot".into(),
            node_id: 5,
            new_directory_id: Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00),
            start_token: 0x5eed,
        };
        let config = NodeConfig {
            wal_bytes: 32 << 10,
            flush_threads: 0,
            ..NodeConfig::default()
        };
        NodeStore::open(disk.shared(), Path::new("/data"), config, boot)
            .unwrap()
            .0
    };
    let round = |store: &NodeStore, item: RoundItem| {
        let round = store.begin_round(vec![item]).unwrap();
        let result = round.sync().unwrap();
        store.end_round(round, &result).unwrap();
    };
    let store = open();
    store.set_cluster_id(Uuid::from_u128(0xc1)).unwrap();
    let identity = |group, replica| LogIdentity {
        group,
        replica,
        topic_id: Uuid::from_u128(0x70),
        partition: 4,
    };
    let conf = StoredConf {
        index: 6,
        bytes: Bytes::from_static(b"voters 1 2 3"),
    };
    let start = LogStart {
        prev_index: 6,
        prev_term: 2,
        offset: 40,
    };
    for (group, replica) in [(1, 21), (2, 22)] {
        round(
            &store,
            RoundItem {
                group,
                identity: Some((identity(group, replica), start)),
                hard_state: Some(HardState {
                    term: 3,
                    vote: 21,
                    commit: 6,
                }),
                conf: Some(conf.clone()),
                flags: Some(Flags {
                    may_be_short: true,
                    recovering: false,
                }),
                ..RoundItem::default()
            },
        );
    }
    round(
        &store,
        RoundItem {
            group: 1,
            entries: vec![
                entry(7, EntryKind::Noop, b""),
                entry(8, EntryKind::Data, b"a record batch"),
                entry(9, EntryKind::Command, b"close"),
            ],
            durable_through: 9,
            // Without a log that could be synced: its entries move to a side file.
            log: None,
            ..RoundItem::default()
        },
    );
    round(
        &store,
        RoundItem {
            group: 1,
            cut: Some(9),
            ..RoundItem::default()
        },
    );
    // Made durable by its files, which the next round says.
    round(
        &store,
        RoundItem {
            group: 2,
            durable_through: 8,
            log: Some(Arc::new(Broken)),
            ..RoundItem::default()
        },
    );
    store.idle_round().unwrap();
    let rounds = bytes(disk, Path::new("/data/node/wal"));
    store.checkpoint().unwrap();
    drop(store);
    let store = open();
    store.log_opened(1, 8);
    store.idle_round().unwrap();
    round(
        &store,
        RoundItem {
            group: 2,
            identity: Some((
                identity(2, 22),
                LogStart {
                    prev_index: 50,
                    prev_term: 3,
                    offset: 99,
                },
            )),
            ..RoundItem::default()
        },
    );
    round(
        &store,
        RoundItem {
            group: 2,
            removed: true,
            ..RoundItem::default()
        },
    );
    store.idle_round().unwrap();
    rounds
}

/// A log whose flush fails: that is recorded, carried forward by a checkpoint, and taken back when its
/// files were written anew; and what is said of two more failures.
fn write_poisoned(disk: &MemDisk) -> Vec<u8> {
    let open = || {
        let boot = Boot {
            kernel_boot_id: "6f7c3e9a-boot".into(),
            node_id: 5,
            new_directory_id: Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00),
            start_token: 0x5eed,
        };
        let config = NodeConfig {
            wal_bytes: 32 << 10,
            flush_threads: 0,
            ..NodeConfig::default()
        };
        let opened = NodeStore::open(disk.shared(), Path::new("/data"), config, boot);
        opened.unwrap().0
    };
    let round = |store: &NodeStore, item: RoundItem| {
        let round = store.begin_round(vec![item]).unwrap();
        let result = round.sync().unwrap();
        store.end_round(round, &result).unwrap();
    };
    let store = open();
    let identity = LogIdentity {
        group: 1,
        replica: 21,
        topic_id: Uuid::from_u128(0x70),
        partition: 4,
    };
    round(
        &store,
        RoundItem {
            group: 1,
            identity: Some((identity, LogStart::default())),
            flags: Some(Flags {
                may_be_short: true,
                recovering: false,
            }),
            ..RoundItem::default()
        },
    );
    round(
        &store,
        RoundItem {
            group: 1,
            entries: vec![entry(1, EntryKind::Data, b"a record batch")],
            durable_through: 1,
            log: Some(Arc::new(Broken)),
            ..RoundItem::default()
        },
    );
    store.poison(1);
    store.idle_round().unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let store = open();
    store.log_opened(1, 1);
    store.idle_round().unwrap();
    store.suspect(1);
    store.idle_round().unwrap();
    store.poison(1);
    store.idle_round().unwrap();
    bytes(disk, Path::new("/data/node/wal"))
}

fn of_version(version: u32) -> PathBuf {
    let dir = format!("tests/fixtures/node/v{version}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)
}

fn fixtures() -> PathBuf {
    of_version(1)
}

fn bytes(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::ReadOnly).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn files_are_written_as_they_were() {
    let disk = MemDisk::new();
    let rounds = write(&disk);
    for name in [
        "wal-rounds",
        "wal",
        "identity",
        "fenced-1-1",
        "wal-poisoned",
    ] {
        let written = match name {
            "wal-rounds" => rounds.clone(),
            "wal-poisoned" => write_poisoned(&MemDisk::new()),
            _ => bytes(&disk, &Path::new("/data/node").join(name)),
        };
        let dir = of_version(if name == "identity" { 2 } else { 1 });
        let path = dir.join(name);
        if std::env::var("RIVERRUN_WRITE_FIXTURES").is_ok() && !path.exists() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, &written).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        let differs = golden
            .iter()
            .zip(&written)
            .position(|(golden, written)| golden != written);
        assert_eq!(
            (differs, golden.len()),
            (None, written.len()),
            "{name}: first other byte"
        );
    }
}

fn line(item: DumpItem) -> String {
    match item {
        DumpItem::Record {
            file_offset,
            header,
            body,
            ..
        } => format!(
            "{file_offset} round {} generation {} lap {} group {} replica {} number {} {:?}\n",
            header.round,
            header.generation,
            header.lap,
            header.group,
            header.replica,
            header.sequence,
            body.unwrap(),
        ),
        DumpItem::Damage { file_offset, bytes } => format!("{file_offset} damage {bytes}\n"),
        DumpItem::End {
            file_offset, torn, ..
        } => format!("{file_offset} end torn {torn}\n"),
    }
}

#[test]
fn files_are_read_as_they_were() {
    let disk = StdDisk;
    for name in ["wal-rounds", "wal", "wal-poisoned"] {
        let wal = dump(&disk, &fixtures().join(name)).unwrap();
        let directory = Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);
        assert_eq!(wal.directory_id, directory);
        let text: String = wal.into_iter().map(line).collect();
        let path = fixtures().join(format!("{name}.txt"));
        if std::env::var("RIVERRUN_WRITE_FIXTURES").is_ok() && !path.exists() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap());
    }
    for version in [1, 2] {
        let identity = read_identity(&disk, &of_version(version).join("identity")).unwrap();
        assert_eq!(
            (identity.node_id, identity.incarnation, identity.clean),
            (5, 2, false)
        );
        assert_eq!(identity.cluster_id, Some(Uuid::from_u128(0xc1)));
        assert_eq!(identity.kernel_boot_id, "6f7c3e9a-boot");
        let starts = identity.starts.iter();
        let starts: Vec<(u64, u64)> = starts.map(|s| (s.incarnation, s.token)).collect();
        // The first version kept none.
        let kept: &[(u64, u64)] = if version == 1 {
            &[]
        } else {
            &[(1, 0x5eed), (2, 0x5eed)]
        };
        assert_eq!(starts, kept);
    }
    let side = read_side(&disk, &fixtures().join("fenced-1-1")).unwrap();
    let held: Vec<(u64, &[u8])> = side
        .iter()
        .map(|entry| (entry.index, &entry.payload[..]))
        .collect();
    assert_eq!(held, [(7, &b""[..]), (8, b"a record batch")]);
}

#[test]
fn a_directory_of_the_first_version_goes_on_in_the_second_and_keeps_its_last_starts() {
    let disk = MemDisk::new();
    write(&disk);
    let old = std::fs::read(of_version(1).join("identity")).unwrap();
    let path = Path::new("/data/node/identity");
    let file = disk.open(path, OpenMode::Existing).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&old)], 0)
        .unwrap();
    file.sync_data().unwrap();
    drop(file);
    for start in 3..=200_u64 {
        let boot = Boot {
            kernel_boot_id: "6f7c3e9a-boot".into(),
            node_id: 5,
            new_directory_id: Uuid::from_u128(0),
            start_token: start * 7,
        };
        let config = NodeConfig {
            wal_bytes: 32 << 10,
            flush_threads: 0,
            ..NodeConfig::default()
        };
        let opened = NodeStore::open(disk.shared(), Path::new("/data"), config, boot);
        let (store, recovery) = opened.unwrap();
        assert_eq!(recovery.incarnation, start);
        let known = store.identity();
        drop(store);
        let read = read_identity(&disk, path).unwrap();
        assert_eq!(read, known);
        let first = start.saturating_sub(MAX_STARTS as u64 - 1).max(3);
        let kept: Vec<(u64, u64)> = (first..=start).map(|n| (n, n * 7)).collect();
        let starts = read.starts.iter();
        let starts: Vec<(u64, u64)> = starts.map(|s| (s.incarnation, s.token)).collect();
        assert_eq!(starts, kept);
    }
}
