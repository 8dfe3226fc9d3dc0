//! A start opens its groups side by side, and finds what one after another would find.

mod common;

use std::sync::Arc;

use common::TestNode;
use riverrun_replication::Acks;
use riverrun_storage::disk::mem::CrashModel;
use riverrun_storage::{LogConfig, MemDisk};

#[test]
fn groups_that_are_opened_side_by_side_are_all_there_in_their_order() {
    for threads in [0, 1, 4, 64] {
        let disk = MemDisk::new();
        let mut node = TestNode::with_threads(Arc::new(disk.clone()), threads);
        for group in 1..=40 {
            let handle = node.create(group, false, LogConfig::tiny());
            for _ in 0..group {
                node.produce(&handle, Acks::All, b"event");
            }
            node.flush();
        }
        drop(node);
        disk.crash(7, &CrashModel::RANDOM);
        let node = TestNode::with_threads(Arc::new(disk), threads);
        let groups: Vec<u64> = node.runtime.handles().iter().map(|h| h.group()).collect();
        assert_eq!(groups, (1..=40).collect::<Vec<u64>>(), "{threads} threads");
        node.runtime.run_all();
        node.flush();
        for handle in node.runtime.handles() {
            let published = handle.published();
            assert!(
                published.ready,
                "{threads} threads: group {}",
                handle.group()
            );
            assert_eq!(u64::try_from(published.high_watermark), Ok(handle.group()));
        }
        assert!(node.host().fenced.lock().is_empty());
    }
}
