//! Images of the controller beside group 0's log: what a start makes of them, after every crash.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::TestNode;
use riverrun_replication::controller::{
    Checkpoints, Command, Controller, Pace, RegisterBroker, encode_batch,
};
use riverrun_replication::{Acks, PartitionHandle};
use riverrun_storage::disk::mem::{CrashModel, Operation, Times};
use riverrun_storage::{Disk, LogConfig, MemDisk, OpenMode};

fn dir() -> PathBuf {
    Path::new("/data/__cluster_metadata-0").to_owned()
}

fn register(node: i32) -> bytes::BytesMut {
    let command = Command::RegisterBroker(RegisterBroker {
        node,
        directory: u128::try_from(node).unwrap().to_be_bytes().to_vec(),
        incarnation: 1,
        host: "localhost".to_owned(),
        port: 9092,
        ..RegisterBroker::default()
    });
    encode_batch(&[command]).unwrap()
}

/// A node whose group 0 leads and has registered brokers.
struct Rig {
    disk: MemDisk,
    node: TestNode,
    group: PartitionHandle,
    registered: i32,
}

impl Rig {
    fn new() -> Self {
        let disk = MemDisk::new();
        let node = TestNode::open(Arc::new(disk.clone()));
        let group = node.create(0, false, LogConfig::tiny());
        Self {
            disk,
            node,
            group,
            registered: 0,
        }
    }

    fn register(&mut self, count: i32) {
        for _ in 0..count {
            self.registered += 1;
            let batch = register(self.registered);
            let request = self.node.post_batch(&self.group, Acks::All, batch);
            self.node.runtime.run(self.group.shard());
            self.node.flush();
            self.node.offset(request).unwrap();
        }
    }

    fn controller(&self) -> Controller {
        self.node.host().controller.lock().clone()
    }

    fn checkpoints(&self) -> Checkpoints {
        self.node.runtime.node().checkpoints()
    }

    fn write(&self) -> Controller {
        let controller = self.controller();
        self.checkpoints()
            .write(&controller, self.group.published().term)
            .unwrap();
        controller
    }

    /// The image that a start would begin with.
    fn load(&self) -> Option<Controller> {
        let found = self.checkpoints().load(self.group.reader()).unwrap();
        found.map(|found| found.controller)
    }

    /// The process is killed, and another one starts on the same files.
    fn restart(self) -> Self {
        drop(self.node);
        self.disk.crash(0, &CrashModel::KEEP_ALL);
        let node = TestNode::open(Arc::new(self.disk.clone()));
        let group = node.runtime.handle(0).unwrap();
        let rig = Self {
            node,
            group,
            ..self
        };
        rig.node.runtime.run_all();
        rig.node.flush();
        rig
    }

    fn files(&self) -> Vec<String> {
        let names = self.disk.read_dir(&dir()).unwrap();
        let names = names.into_iter().map(|entry| entry.name);
        names.filter(|name| name.contains("checkpoint")).collect()
    }

    fn images(&self) -> Vec<String> {
        let files = self.files().into_iter();
        files
            .filter(|name| name != "leader-epoch-checkpoint")
            .collect()
    }

    fn bytes_of(&self, name: &str) -> Vec<u8> {
        let file = self
            .disk
            .open(&dir().join(name), OpenMode::ReadOnly)
            .unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let file = self.disk.open(&dir().join(name), OpenMode::Create).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    }
}

#[test]
fn a_start_replays_only_what_follows_the_newest_image() {
    let mut rig = Rig::new();
    rig.register(6);
    rig.write();
    rig.register(6);
    let newest = rig.write();
    rig.register(4);
    let all = rig.controller();
    let rig = rig.restart();
    assert_eq!(*rig.node.host().replayed.lock(), [12, 13, 14, 15]);
    assert_eq!(rig.controller(), all);
    assert_eq!(rig.load(), Some(newest));
}

#[test]
fn an_image_of_the_whole_log_leaves_nothing_to_replay() {
    let mut rig = Rig::new();
    rig.register(5);
    let all = rig.write();
    let mut rig = rig.restart();
    assert!(rig.node.host().replayed.lock().is_empty());
    assert_eq!(rig.controller(), all);
    rig.register(1);
    assert_eq!(rig.controller().image().brokers.len(), 6);
}

#[test]
fn of_many_images_two_stay() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.register(1);
        rig.write();
    }
    let files: BTreeSet<String> = rig.images().into_iter().collect();
    let names = ["00000000000000000004", "00000000000000000005"];
    assert_eq!(files.len(), 2, "{files:?}");
    for (file, name) in files.iter().zip(names) {
        assert!(
            file.starts_with(name) && file.ends_with(".checkpoint"),
            "{file}"
        );
    }
}

#[test]
fn a_damaged_image_is_passed_over_for_the_one_before_and_then_for_the_log() {
    let mut rig = Rig::new();
    rig.register(3);
    let older = rig.write();
    rig.register(3);
    let newest = rig.write();
    let names = rig.images();
    let (old, new) = (&names[0], &names[1]);
    let whole = rig.bytes_of(new);
    assert_eq!(rig.load(), Some(newest.clone()));
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        rig.put(new, &damaged);
        assert_eq!(rig.load(), Some(older.clone()), "byte {at} was flipped");
    }
    for len in 0..whole.len() {
        rig.put(new, &whole[..len]);
        assert_eq!(rig.load(), Some(older.clone()), "cut to {len} bytes");
    }
    let mut longer = whole.clone();
    longer.push(0);
    rig.put(new, &longer);
    assert_eq!(rig.load(), Some(older));
    rig.put(old, &[]);
    assert_eq!(rig.load(), None);
    // The log has it all.
    let rig = rig.restart();
    assert_eq!(*rig.node.host().replayed.lock(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(rig.controller(), newest);
}

#[test]
fn an_image_that_the_log_does_not_bear_out_is_passed_over() {
    let mut rig = Rig::new();
    rig.register(3);
    let older = rig.write();
    rig.register(3);
    let controller = rig.controller();
    let term = rig.group.published().term;
    rig.checkpoints().write(&controller, term + 1).unwrap();
    assert_eq!(
        rig.load(),
        Some(older.clone()),
        "the log has another term there"
    );
    // An image of a longer log: what would be written from here on would be taken for known.
    let bytes = rig.bytes_of(&rig.images()[0]);
    rig.put(&format!("{:020}-{term:010}.checkpoint", 99), &bytes);
    assert_eq!(rig.load(), Some(older.clone()));
    rig.put(&format!("{:020}-{term:010}.checkpoint", 6), &bytes);
    assert_eq!(rig.load(), Some(older), "its name gives another offset");
}

/// Power is lost at every call that changes the disk, and every time something else of what was
/// not synced is kept.
#[test]
fn a_crash_at_any_moment_leaves_an_image_that_was_whole() {
    let mut crashes = 0;
    for calls in 0.. {
        let mut finished = false;
        for seed in 0..16 {
            let mut rig = Rig::new();
            rig.register(2);
            let first = rig.write();
            rig.register(2);
            let before = rig.write();
            rig.register(2);
            let left = Arc::new(AtomicI64::new(calls));
            for operation in [
                Operation::Write,
                Operation::Sync,
                Operation::SyncDir,
                Operation::SetLen,
                Operation::Rename,
            ] {
                let left = left.clone();
                let spent = move |_: &Path| left.fetch_sub(1, Ordering::Relaxed) <= 0;
                rig.disk.fail(operation, Times::Always, spent);
            }
            let after = rig.controller();
            let term = rig.group.published().term;
            let written = rig.checkpoints().write(&after, term);
            rig.disk.clear_faults();
            finished = written.is_ok();
            crashes += 1;
            let model = if seed == 0 {
                CrashModel::LOSE_ALL
            } else {
                CrashModel::RANDOM
            };
            rig.disk.crash(seed, &model);
            let found = rig.load().unwrap();
            if finished {
                assert_eq!(found, after, "{calls} calls, seed {seed}");
            } else {
                assert!(
                    found == before || found == after,
                    "{calls} calls, seed {seed}"
                );
            }
            assert_ne!(found, first);
            // Leftovers are in nobody's way.
            rig.checkpoints().write(&after, term).unwrap();
            assert_eq!(rig.load(), Some(after));
            assert!(rig.images().len() <= 3, "{:?}", rig.images());
        }
        if finished {
            break;
        }
    }
    assert!(crashes > 16 * 4, "only {crashes} crashes");
}

#[test]
fn an_image_is_due_when_more_was_applied_than_it_is_long() {
    let mut pace = Pace::new(1000);
    pace.applied(999);
    assert!(!pace.is_due());
    pace.applied(1);
    assert!(pace.is_due());
    pace.begin();
    pace.imaged(5000);
    pace.applied(4999);
    assert!(!pace.is_due(), "an image must not cost more than the log");
    pace.applied(1);
    assert!(pace.is_due());
}
