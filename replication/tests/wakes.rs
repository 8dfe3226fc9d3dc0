//! What a produce wakes when nobody else is at work: the flusher, where it has to be flushed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::TestNode;
use riverrun_replication::Acks;
use riverrun_storage::{LogConfig, MemDisk};

const PRODUCES: i64 = 1000;

/// Wakes of the flusher by so many produces, each answered and at rest before the next; nothing
/// else may be woken.
fn wakes(caching: bool, acks: Acks) -> usize {
    let mut node = TestNode::open(Arc::new(MemDisk::new()));
    let handle = node.create(7, caching, LogConfig::default());
    if caching {
        // The first write makes the flag durable that says so (R2).
        let first = node.produce(&handle, acks, b"first");
        node.flush();
        node.offset(first).unwrap();
    }
    let before = node.host().flushes_wanted.load(Ordering::SeqCst);
    let first = handle.published().high_watermark;
    for n in 0..PRODUCES {
        let request = node.produce(&handle, acks, b"one event");
        let flushed = acks == Acks::All && !caching;
        assert_eq!(
            node.offset(request).is_some(),
            !flushed,
            "I5: produce {n} is answered without its flush, and only without"
        );
        if !caching {
            node.flush();
        }
        assert_eq!(node.offset(request), Some(first + n));
        assert_eq!(handle.published().high_watermark, first + n + 1);
    }
    let wakes = node.host().flushes_wanted.load(Ordering::SeqCst) - before;
    let counted = node.runtime.flusher_wakes();
    assert_eq!(
        counted,
        node.host().flushes_wanted.load(Ordering::SeqCst) as u64
    );
    assert_eq!(node.host().runs_wanted.load(Ordering::SeqCst), 0);
    assert_eq!(node.host().writers_started.load(Ordering::SeqCst), 0);
    wakes
}

#[test]
fn a_produce_that_is_flushed_wakes_the_flusher_once_and_nobody_else() {
    assert_eq!(wakes(false, Acks::All), 1000);
}

/// It is answered before, but seen by nobody until it is flushed.
#[test]
fn a_produce_with_acks_1_wakes_the_flusher_once_behind_its_answer() {
    assert_eq!(wakes(false, Acks::Leader), 1000);
}

#[test]
fn a_produce_into_a_caching_topic_wakes_nobody() {
    assert_eq!(wakes(true, Acks::All), 0);
    assert_eq!(wakes(true, Acks::Leader), 0);
}
