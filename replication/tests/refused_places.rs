//! A place of one log that the disk refuses for good: after ten minutes, while other logs are read, it counts as
//! bad, whether the log is open or cannot be opened.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use riverrun_record::{BatchBuilder, Compression};
use riverrun_replication::group::FlushItem;
use riverrun_replication::node::unreadable::Tried;
use riverrun_replication::node::{
    CONTROLLER_GROUP, GroupOrder, Node, NodeSettings, Opened, directory_name,
};
use riverrun_replication::reconciler::Standing;
use riverrun_replication::unreadable::PATIENCE;
use riverrun_replication::{GroupConfig, GroupSettings};
use riverrun_storage::disk::mem::CrashModel;
use riverrun_storage::node::NodeConfig;
use riverrun_storage::{EntryKind, HardState, LogConfig, LogEntry, LogIdentity, MemDisk};
use uuid::Uuid;

const GROUP: u64 = 1;

fn group_settings() -> GroupSettings {
    GroupSettings {
        log: LogConfig::tiny(),
        ..GroupSettings::default()
    }
}

fn open(disk: &MemDisk) -> (Node, Opened) {
    let settings = NodeSettings {
        node_id: 1,
        kernel_boot_id: "boot".to_owned(),
        new_directory_id: Uuid::from_u128(1),
        start_token: 0x5eed,
        store: NodeConfig {
            wal_bytes: 1 << 20,
            flush_threads: 0,
            ..NodeConfig::default()
        },
        group: GroupConfig::default(),
        shards: 1,
        most_replicas: usize::MAX,
    };
    Node::open(disk.shared(), Path::new("/data"), settings, |_| {
        group_settings()
    })
    .unwrap()
}

fn identity(group: u64) -> LogIdentity {
    LogIdentity {
        group,
        replica: group + 1,
        topic_id: Uuid::from_u128(99),
        partition: i32::try_from(group).unwrap(),
    }
}

/// Entries of term 1: its no-op, then batches of one record each.
fn entries(count: u64, len: usize) -> Vec<LogEntry> {
    let noop = LogEntry {
        index: 1,
        term: 1,
        kind: EntryKind::Noop,
        base_offset: 0,
        last_offset_delta: 0,
        payload: bytes::Bytes::new(),
    };
    let data = (0..count).map(|n| {
        let offset = i64::try_from(n).unwrap();
        let mut builder = BatchBuilder::new(Compression::None, None)
            .base_offset(offset)
            .leader_epoch(1);
        builder
            .append(1000, None, Some(&vec![7; len]), &[])
            .unwrap();
        LogEntry {
            index: n + 2,
            term: 1,
            kind: EntryKind::Data,
            base_offset: offset,
            last_offset_delta: 0,
            payload: builder.build().unwrap(),
        }
    });
    [noop].into_iter().chain(data).collect()
}

/// A directory with group 0 and two others, of which one has entries.
fn filled(count: u64, len: usize) -> (MemDisk, Node, Vec<LogEntry>) {
    let disk = MemDisk::new();
    let (node, _) = open(&disk);
    for group in [CONTROLLER_GROUP, GROUP, 2] {
        let order = GroupOrder {
            identity: identity(group),
            voters: vec![group + 1, 77, 78],
            learners: vec![],
            settings: group_settings(),
        };
        node.create_group(&order).unwrap();
    }
    let entries = entries(count, len);
    assert!(node.write(GROUP, entries.clone()).is_some());
    let last = entries.last().unwrap().index;
    node.want_flush(FlushItem {
        group: GROUP,
        hard_state: Some(HardState {
            term: 1,
            vote: GROUP + 1,
            commit: last,
        }),
        entries: entries.clone(),
        durable_through: last,
        ..FlushItem::default()
    });
    let (mut inputs, mut writers) = (Vec::new(), Vec::new());
    while node.flush_once(&mut inputs, &mut writers).unwrap() {}
    // The WAL does not have them any more.
    node.store().checkpoint().unwrap();
    (disk, node, entries)
}

fn first_log() -> PathBuf {
    let dir = Path::new("/data").join(directory_name(&identity(GROUP)));
    dir.join(format!("{:020}.log", 0))
}

#[test]
fn of_an_open_log() {
    let (disk, node, entries) = filled(20, 200);
    let reader = node.handle(GROUP).unwrap().reader().clone();
    assert!(disk.refuse(&first_log(), 20, 8));
    let index = entries[1].index;
    assert!(reader.entries(index, index + 1, u64::MAX).is_err());
    assert_eq!(node.try_again(GROUP, index).unwrap(), Tried::Refuses);
    disk.set_now(PATIENCE);
    assert_eq!(node.try_again(GROUP, index).unwrap(), Tried::GivenUp);
    assert_eq!(reader.bad_entries().len(), 1);
    node.mend(GROUP, &entries[1..2]).unwrap();
    assert!(!reader.is_marred());
    assert_eq!(
        reader.entries(index, index + 1, u64::MAX).unwrap(),
        entries[1..2]
    );
}

#[test]
fn it_is_the_machines_where_other_logs_are_refused_too() {
    let (disk, node, entries) = filled(20, 200);
    let index = entries[1].index;
    let reader = node.handle(GROUP).unwrap().reader().clone();
    let refused = disk.fail(
        riverrun_storage::disk::mem::Operation::Read,
        riverrun_storage::disk::mem::Times::Always,
        |_| true,
    );
    assert!(reader.entries(index, index + 1, u64::MAX).is_err());
    disk.set_now(10 * PATIENCE);
    assert_eq!(node.try_again(GROUP, index).unwrap(), Tried::Refuses);
    disk.clear_fault(refused);
    assert_eq!(node.try_again(GROUP, index).unwrap(), Tried::Reads);
    assert!(reader.unreadable_entries().is_empty());
}

/// A node that was stopped hard, started where its log is refused a place, and waited for ten minutes.
fn started_late(count: u64, len: usize, place: u64) -> (Node, Vec<LogEntry>) {
    let (disk, node, entries) = filled(count, len);
    drop(node);
    disk.crash(1, &CrashModel::LOSE_ALL);
    assert!(disk.refuse(&first_log(), place, 8));
    let (node, opened) = open(&disk);
    let standing = |node: &Node| node.unopened_of(GROUP).map(|of| of.standing);
    assert_eq!(
        standing(&node),
        Some(Standing::Unavailable),
        "{:?}",
        opened.unopened
    );
    disk.set_now(PATIENCE - Duration::from_millis(1));
    assert!(node.retry_unavailable(|_| group_settings()).is_empty());
    assert_eq!(standing(&node), Some(Standing::Unavailable));
    disk.set_now(PATIENCE);
    node.retry_unavailable(|_| group_settings());
    (node, entries)
}

#[test]
fn of_a_log_that_cannot_be_opened() {
    let (node, entries) = started_late(1, 20_000, 5000);
    let reader = node.handle(GROUP).unwrap().reader().clone();
    let bad: Vec<u64> = reader.bad_entries().iter().map(|bad| bad.index).collect();
    assert_eq!(bad, [entries[1].index]);
    node.mend(GROUP, &entries[1..]).unwrap();
    assert!(!reader.is_marred());
    assert_eq!(reader.entries(1, 3, u64::MAX).unwrap(), entries);
}

#[test]
fn of_a_log_that_says_nothing_of_what_lay_there() {
    // The headers of batches lie in the place, too.
    let (node, _) = started_late(40, 200, 2000);
    let unopened = node.unopened_of(GROUP).unwrap();
    assert_eq!(unopened.standing, Standing::Damaged, "{unopened:?}");
}
