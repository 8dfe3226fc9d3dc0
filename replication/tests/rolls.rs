//! Where a segment ends the producer state is written, so that a start need not read the whole log.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::TestNode;
use riverrun_replication::Acks;
use riverrun_replication::node::directory_name;
use riverrun_storage::{Disk, LogConfig, LogIdentity, MemDisk};
use uuid::Uuid;

const GROUP: u64 = 7;

/// Offsets of segments, without the first, and of producer snapshots, when so many batches of a
/// third of a segment were produced in turns of so many.
fn offsets(caching: bool, batches: usize, in_a_turn: usize) -> (Vec<i64>, Vec<i64>) {
    let disk = MemDisk::new();
    let mut node = TestNode::open(Arc::new(disk.clone()));
    let handle = node.create(GROUP, caching, LogConfig::tiny());
    for turn in 0..batches.div_ceil(in_a_turn) {
        for _ in 0..in_a_turn.min(batches - turn * in_a_turn) {
            node.post(&handle, Acks::All, &[b'x'; 1300]);
        }
        node.runtime.run(handle.shard());
        node.flush();
    }
    let name = directory_name(&LogIdentity {
        group: GROUP,
        replica: GROUP + 1,
        topic_id: Uuid::from_u128(u128::from(GROUP)),
        partition: 0,
    });
    let names = disk.read_dir(&Path::new("/data").join(name)).unwrap();
    let with = |suffix: &str| {
        let stems = names.iter().filter_map(|n| n.name.strip_suffix(suffix));
        stems
            .map(|stem| stem.parse().unwrap())
            .collect::<Vec<i64>>()
    };
    let segments = with(".log").into_iter().skip(1).collect();
    (segments, with(".snapshot"))
}

#[test]
fn every_segment_that_is_ended_leaves_the_producer_state_there() {
    for caching in [false, true] {
        for in_a_turn in [1, 2, 5, 30] {
            let (segments, snapshots) = offsets(caching, 30, in_a_turn);
            assert!(segments.len() >= 9, "{segments:?}");
            assert_eq!(
                snapshots, segments,
                "caching {caching}, {in_a_turn} in a turn"
            );
        }
    }
}
