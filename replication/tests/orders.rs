//! Orders of the controller to a node: a replica that cannot be opened, one that is removed.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use riverrun_record::{BatchBuilder, Compression};
use riverrun_replication::controller::Found;
use riverrun_replication::group::{FlushItem, Op};
use riverrun_replication::message::PeerMessage;
use riverrun_replication::node::{GroupOrder, Node, NodeSettings, OpenError, Opened};
use riverrun_replication::reconciler::Standing;
use riverrun_replication::runtime::{Host, Runtime};
use riverrun_replication::{
    CommittedBatch, GroupConfig, GroupSettings, PartitionHandle, ProduceError, ProduceOutcome,
    Published, Ticket, Word,
};
use riverrun_storage::disk::mem::{CrashModel, Operation, Times};
use riverrun_storage::format::aside::Reason;
use riverrun_storage::node::NodeConfig;
use riverrun_storage::{
    DirEntry, Disk, DiskFile, EntryKind, LogConfig, LogEntry, LogIdentity, MemDisk, OpenMode,
};
use uuid::Uuid;

const GROUP: u64 = 5;
const DATA: &str = "/data";

fn settings(boot: u32) -> NodeSettings {
    NodeSettings {
        node_id: 1,
        kernel_boot_id: format!("boot-{boot}"),
        new_directory_id: Uuid::from_u128(1),
        start_token: 0x5eed,
        store: NodeConfig {
            wal_bytes: 1 << 20,
            flush_threads: 0,
            ..NodeConfig::default()
        },
        group: GroupConfig {
            seed: 7,
            ..GroupConfig::default()
        },
        shards: 1,
        most_replicas: usize::MAX,
    }
}

fn group_settings() -> GroupSettings {
    GroupSettings {
        log: LogConfig::tiny(),
        ..GroupSettings::default()
    }
}

fn order(replica: u64) -> GroupOrder {
    GroupOrder {
        identity: LogIdentity {
            group: GROUP,
            replica,
            topic_id: Uuid::from_u128(99),
            partition: 0,
        },
        voters: vec![replica],
        learners: vec![],
        settings: group_settings(),
    }
}

fn open(disk: &MemDisk, boot: u32) -> (Node, Opened) {
    Node::open(disk.shared(), Path::new(DATA), settings(boot), |_| {
        group_settings()
    })
    .unwrap()
}

/// A no-op and batches of term 1.
fn entries(count: usize) -> Vec<LogEntry> {
    let mut entries = vec![LogEntry {
        index: 1,
        term: 1,
        kind: EntryKind::Noop,
        base_offset: 0,
        last_offset_delta: 0,
        payload: Bytes::new(),
    }];
    for offset in 0..i64::try_from(count).unwrap() {
        let mut batch = BatchBuilder::new(Compression::None, None)
            .base_offset(offset)
            .leader_epoch(1);
        batch.append(1000, None, Some(&[7; 400]), &[]).unwrap();
        entries.push(LogEntry {
            index: entries.len() as u64 + 1,
            term: 1,
            kind: EntryKind::Data,
            base_offset: offset,
            last_offset_delta: 0,
            payload: batch.build().unwrap(),
        });
    }
    entries
}

/// Writes entries and makes them durable, through the WAL.
fn write(node: &Node, entries: &[LogEntry]) {
    assert!(node.write(GROUP, entries.to_vec()).is_some());
    node.want_flush(FlushItem {
        group: GROUP,
        entries: entries.to_vec(),
        durable_through: entries.last().unwrap().index,
        ..FlushItem::default()
    });
    let (mut inputs, mut writers) = (Vec::new(), Vec::new());
    while node.flush_once(&mut inputs, &mut writers).unwrap() {}
    assert!(writers.is_empty());
}

fn held(node: &Node) -> Vec<LogEntry> {
    let reader = node.handle(GROUP).unwrap().reader().clone();
    let (first, last) = (reader.first_index(), reader.last_index());
    reader.entries(first, last + 1, u64::MAX).unwrap()
}

fn dir_of_group() -> String {
    format!("{}-0", Uuid::from_u128(99).simple())
}

fn standings(opened: &Opened) -> Vec<Standing> {
    opened.unopened.iter().map(|of| of.standing).collect()
}

fn has_files(disk: &MemDisk) -> bool {
    let names = disk.read_dir(Path::new(DATA)).unwrap();
    names.iter().any(|entry| entry.name.ends_with("-0"))
}

/// The log's files are gone, the node store knows of what was durable in them.
fn lost() -> (MemDisk, Node) {
    let disk = MemDisk::new();
    let (node, _) = open(&disk, 1);
    node.create_group(&order(1)).unwrap();
    write(&node, &entries(5));
    node.store().checkpoint().unwrap();
    let log = node.handle(GROUP).unwrap().reader().segment_base_offsets();
    assert!(!log.is_empty());
    drop(node);
    let dir = Path::new(DATA).join(dir_of_group());
    for entry in disk.read_dir(&dir).unwrap() {
        disk.remove_file(&dir.join(entry.name)).unwrap();
    }
    let (node, opened) = open(&disk, 1);
    assert_eq!(standings(&opened), [Standing::Lost]);
    (disk, node)
}

#[test]
fn a_log_that_finds_no_room_at_a_start_is_opened_once_there_is() {
    let disk = MemDisk::new();
    let (node, _) = open(&disk, 1);
    node.create_group(&order(1)).unwrap();
    let written = entries(40);
    write(&node, &written);
    drop(node);
    // The WAL has it all, the files have nothing, and the disk is full.
    disk.crash(1, &CrashModel::LOSE_ALL);
    disk.set_capacity(disk.used_bytes());
    let (node, opened) = open(&disk, 2);
    assert!(opened.partitions.is_empty());
    assert_eq!(standings(&opened), [Standing::Unavailable]);
    for _ in 0..2 {
        let again = node.create_group(&order(1)).map(drop);
        assert!(matches!(again, Err(OpenError::Refused(GROUP))), "R3");
        assert!(node.retry_unavailable(|_| group_settings()).is_empty());
    }
    disk.set_capacity(u64::MAX);
    assert_eq!(node.retry_unavailable(|_| group_settings()).len(), 1);
    assert!(node.unopened().is_empty());
    assert!(!node.wants(), "what its recovery did is recorded");
    assert_eq!(held(&node), written);
    drop(node);
    disk.crash(1, &CrashModel::LOSE_ALL);
    let (node, opened) = open(&disk, 3);
    assert_eq!(opened.partitions.len(), 1);
    assert_eq!(held(&node), written);
}

#[test]
fn a_lost_replica_is_not_created_again_and_is_set_aside_with_its_files() {
    let (disk, node) = lost();
    let again = node.create_group(&order(1)).map(drop);
    assert!(matches!(again, Err(OpenError::Refused(GROUP))), "R3");
    assert!(has_files(&disk));
    node.set_aside(GROUP, Reason::Replaced).unwrap();
    assert!(!has_files(&disk));
    drop(node);
    disk.crash(1, &CrashModel::KEEP_ALL);
    let (_, opened) = open(&disk, 2);
    assert!(opened.unopened.is_empty() && opened.partitions.is_empty());
}

#[test]
fn a_replica_of_another_id_takes_the_place_of_a_lost_one() {
    let (disk, node) = lost();
    node.create_group(&order(2)).unwrap();
    write(&node, &entries(3));
    drop(node);
    disk.crash(1, &CrashModel::LOSE_ALL);
    let (node, opened) = open(&disk, 2);
    assert!(opened.unopened.is_empty());
    assert_eq!(held(&node), entries(3));
}

#[test]
fn a_directory_that_a_crash_brings_back_under_its_name_is_set_aside_by_the_next_start() {
    let disk = MemDisk::new();
    let (node, _) = open(&disk, 1);
    node.create_group(&order(1)).unwrap();
    disk.fail(Operation::Rename, Times::Once, |path| {
        path.ends_with(dir_of_group())
    });
    assert!(node.set_aside(GROUP, Reason::Contradicted).is_err());
    drop(node);
    // The removal is in the WAL, and the directory has its name still.
    disk.crash(1, &CrashModel::LOSE_ALL);
    assert!(has_files(&disk));
    let (node, opened) = open(&disk, 2);
    assert!(opened.unopened.is_empty() && opened.partitions.is_empty());
    assert!(!has_files(&disk));
    let asides = node.asides().unwrap();
    let reasons: Vec<_> = asides
        .iter()
        .map(|aside| aside.note.as_ref().map(|n| n.reason))
        .collect();
    assert_eq!(reasons, [Some(Reason::Contradicted)]);
    // Not those of a replica that came later to the same place.
    node.create_group(&order(2)).unwrap();
    node.set_aside(GROUP, Reason::Replaced).unwrap();
    node.create_group(&order(3)).unwrap();
    write(&node, &entries(2));
    drop(node);
    disk.crash(1, &CrashModel::KEEP_ALL);
    let (node, _) = open(&disk, 3);
    assert_eq!(held(&node), entries(2));
}

/// A gate that a test closes before the syncs of `.log` files.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().0 = closed;
        self.changed.notify_all();
    }
    fn pass(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            self.changed.wait(&mut state);
        }
        state.1 -= 1;
    }
    fn until_somebody_waits(&self) {
        let mut state = self.state.lock();
        while !state.0 || state.1 == 0 {
            self.changed.wait(&mut state);
        }
    }
}

#[derive(Debug)]
struct Gated<T: ?Sized> {
    gate: Arc<Gate>,
    inner: Arc<T>,
}

impl Disk for Gated<MemDisk> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, mode)?;
        let gate = Arc::clone(&self.gate);
        Ok(Arc::new(Gated { gate, inner }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename_new(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_all(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }
}

impl DiskFile for Gated<dyn DiskFile> {
    fn path(&self) -> &PathBuf {
        self.inner.path()
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(bufs, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.path().extension().is_some_and(|name| name == "log") {
            self.gate.pass();
        }
        self.inner.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.inner.reserve(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.inner.slice(offset, len)
    }
}

#[derive(Debug)]
struct Deaf;

impl Host for Deaf {
    fn produced(&self, _: Ticket, _: ProduceOutcome) {}
    fn word(&self, _: Ticket, _: Result<Word, ProduceError>) {}
    fn confirmed(&self, _: Ticket, _: Result<Published, ProduceError>) {}
    fn advanced(&self, _: &PartitionHandle) {}
    fn led(&self, _partition: &PartitionHandle) {}
    fn restored(&self, _: Found) {}
    fn committed(&self, _: CommittedBatch) {}
    fn flush_wanted(&self) {}
    fn run_later(&self, _: usize) {}
    fn write_later(&self, _: u64) {}
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn send(&self, _: PeerMessage) {}
    fn fenced(&self, _: u64, _: &str) {}
    fn contradicted(&self, _: u64) {}
    fn turn_panicked(&self) {}
}

#[test]
fn a_removal_waits_for_what_the_flusher_has_taken() {
    // The flusher hangs in the first of two cuts of a replica's files. The second, taken with it, cut
    // the files of the replica that was created in the same place meanwhile.
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(Gated {
        gate: Arc::clone(&gate),
        inner: Arc::new(MemDisk::new()),
    });
    let (runtime, _) = Runtime::open(
        disk,
        Path::new(DATA),
        settings(1),
        |_| group_settings(),
        Arc::new(Deaf),
    )
    .unwrap();
    // The only voter leads at once, with the no-op of its term.
    let create = |replica, count| {
        runtime.create_group(&order(replica)).unwrap();
        while runtime.flush_once().unwrap() {}
        write(runtime.node(), &entries(count).split_off(1));
    };
    create(1, 5);
    runtime.node().want_op(GROUP, Op::Cut { from: 4 });
    runtime.node().want_op(GROUP, Op::Cut { from: 2 });
    gate.set(true);
    let (removed, is_removed) = channel();
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| runtime.flush_once().unwrap());
        gate.until_somebody_waits();
        let operator = scope.spawn(|| {
            runtime.set_aside(GROUP, Reason::Replaced).unwrap();
            removed.send(()).unwrap();
        });
        let early = is_removed.recv_timeout(Duration::from_millis(100)).is_ok();
        if early {
            // As it was: the next replica is there before the second cut is carried out.
            gate.set(false);
        }
        assert!(!early, "the removal did not wait");
        gate.set(false);
        assert!(flusher.join().unwrap());
        operator.join().unwrap();
    });
    create(2, 7);
    while runtime.flush_once().unwrap() {}
    assert_eq!(held(runtime.node()), entries(7));
}
