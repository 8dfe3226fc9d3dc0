//! A node that may have few replicas open: no more are created, and where a start finds more it opens the
//! first of them and loses none.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use riverrun_replication::node::{
    CONTROLLER_GROUP, GroupOrder, Node, NodeSettings, OpenError, Opened,
};
use riverrun_replication::reconciler::Standing;
use riverrun_replication::{GroupConfig, GroupSettings};
use riverrun_storage::node::NodeConfig;
use riverrun_storage::{LogConfig, LogIdentity, MemDisk};
use uuid::Uuid;

fn group_settings() -> GroupSettings {
    GroupSettings {
        log: LogConfig::tiny(),
        ..GroupSettings::default()
    }
}

fn open(disk: &MemDisk, flush_threads: usize, most_replicas: usize) -> (Node, Opened) {
    let settings = NodeSettings {
        node_id: 1,
        kernel_boot_id: "boot".to_owned(),
        new_directory_id: Uuid::from_u128(1),
        start_token: 0x5eed,
        store: NodeConfig {
            wal_bytes: 1 << 20,
            flush_threads,
            ..NodeConfig::default()
        },
        group: GroupConfig::default(),
        shards: 1,
        most_replicas,
    };
    Node::open(disk.shared(), Path::new("/data"), settings, |_| {
        group_settings()
    })
    .unwrap()
}

fn create(node: &Node, group: u64) -> Result<(), OpenError> {
    let replica = group + 1;
    let order = GroupOrder {
        identity: LogIdentity {
            group,
            replica,
            topic_id: Uuid::from_u128(99),
            partition: i32::try_from(group).unwrap(),
        },
        voters: vec![replica],
        learners: vec![],
        settings: group_settings(),
    };
    node.create_group(&order).map(drop)
}

/// The groups that are open, and those that are unavailable.
fn groups(node: &Node) -> (Vec<u64>, Vec<u64>) {
    let mut open: Vec<u64> = node.handles().iter().map(|handle| handle.group()).collect();
    open.sort_unstable();
    let unopened = node.unopened();
    assert!(
        unopened
            .iter()
            .all(|of| of.standing == Standing::Unavailable)
    );
    (open, unopened.iter().map(|of| of.identity.group).collect())
}

/// A directory with group 0 and five others.
fn six() -> MemDisk {
    let disk = MemDisk::new();
    let (node, _) = open(&disk, 0, usize::MAX);
    for group in 0..6 {
        create(&node, group).unwrap();
    }
    disk
}

#[test]
fn nothing_is_created_beyond_what_may_be_open() {
    let disk = MemDisk::new();
    let (node, _) = open(&disk, 0, 2);
    create(&node, 1).unwrap();
    create(&node, 2).unwrap();
    let refused = create(&node, 3).unwrap_err();
    assert!(matches!(refused, OpenError::TooMany { most: 2 }));
    assert!(refused.is_of_machine());
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    // It has left nothing behind that a later start would find.
    assert!(!node.has_files(3).unwrap());
    drop(node);
    let (node, _) = open(&disk, 0, usize::MAX);
    assert_eq!(groups(&node), (vec![1, 2], vec![]));
    create(&node, 3).unwrap();
    // Group 0 has its place however many there are.
    let (node, _) = {
        drop(node);
        open(&disk, 0, 3)
    };
    create(&node, CONTROLLER_GROUP).unwrap();
}

#[test]
fn a_start_opens_what_it_may_and_a_later_one_the_rest() {
    for threads in [0, 4] {
        let disk = six();
        let (node, opened) = open(&disk, threads, 3);
        assert_eq!(groups(&node), (vec![0, 1, 2], vec![3, 4, 5]));
        assert!(
            opened
                .unopened
                .iter()
                .all(|of| of.why.contains("ulimit -n"))
        );
        // There is no more room than before, however often it is tried.
        assert!(node.retry_unavailable(|_| group_settings()).is_empty());
        assert_eq!(groups(&node).1, [3, 4, 5]);
        drop(node);
        let (node, _) = open(&disk, threads, usize::MAX);
        assert_eq!(groups(&node), (vec![0, 1, 2, 3, 4, 5], vec![]));
    }
}

#[test]
fn a_replica_that_goes_makes_room_for_one_that_waits() {
    use riverrun_storage::format::aside::Reason;
    let disk = six();
    let (node, _) = open(&disk, 0, 3);
    node.set_aside(1, Reason::TopicDeleted).unwrap();
    assert_eq!(node.retry_unavailable(|_| group_settings()).len(), 1);
    assert_eq!(groups(&node), (vec![0, 2, 3], vec![4, 5]));
}
