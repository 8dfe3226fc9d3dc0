//! Slow writes leave their turns, in order, and hold back nobody else (M3): a real runtime over a
//! disk in memory whose chosen writes take long or do not return.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use bytes::Bytes;
use common::TestNode;
use parking_lot::{Condvar, Mutex};
use riverrun_replication::node::directory_name;
use riverrun_replication::{Acks, PartitionHandle};
use riverrun_storage::disk::{DirEntry, DiskFile, OpenMode};
use riverrun_storage::{Disk, LogConfig, LogIdentity, MemDisk};
use uuid::Uuid;

/// Longer than a write may take in a turn.
const SLOW_US: u64 = 5_000;

/// How the writes to the chosen `.log` files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Quick,
    /// They take long by the runtime's clock.
    Slow,
    /// So many take long, then none returns.
    HeldAfter(u32),
}

#[derive(Debug)]
struct Watch {
    state: Mutex<Watched>,
    changed: Condvar,
    clock_us: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Watched {
    mode: Writes,
    /// Writes that wait to be let go.
    held: u32,
    /// Who wrote, in order.
    by: Vec<ThreadId>,
}

/// A disk whose writes to the `.log` files of group 7 are watched.
#[derive(Debug, Clone)]
struct WatchedDisk {
    disk: MemDisk,
    watch: Arc<Watch>,
}

impl WatchedDisk {
    fn new() -> Self {
        Self {
            disk: MemDisk::new(),
            watch: Arc::new(Watch {
                state: Mutex::new(Watched {
                    mode: Writes::Quick,
                    held: 0,
                    by: Vec::new(),
                }),
                changed: Condvar::new(),
                clock_us: Arc::default(),
            }),
        }
    }

    fn set(&self, mode: Writes) {
        self.watch.state.lock().mode = mode;
        self.watch.changed.notify_all();
    }

    /// Waits until a write is held.
    fn wait_held(&self) {
        let mut state = self.watch.state.lock();
        while state.held == 0 {
            let waited = self
                .watch
                .changed
                .wait_for(&mut state, Duration::from_secs(20));
            assert!(!waited.timed_out(), "no write came");
        }
    }

    fn last_writer(&self) -> ThreadId {
        *self.watch.state.lock().by.last().unwrap()
    }
}

impl Watch {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.by.push(std::thread::current().id());
        if state.mode == Writes::HeldAfter(0) {
            state.held += 1;
            self.changed.notify_all();
            while state.mode == Writes::HeldAfter(0) {
                self.changed.wait(&mut state);
            }
            state.held -= 1;
        }
        match &mut state.mode {
            Writes::Slow => {
                self.clock_us.fetch_add(SLOW_US, Ordering::SeqCst);
            }
            Writes::HeldAfter(left) => {
                *left -= 1;
                self.clock_us.fetch_add(SLOW_US, Ordering::SeqCst);
            }
            Writes::Quick => {}
        }
    }
}

fn dir_of(group: u64) -> String {
    directory_name(&LogIdentity {
        group,
        replica: group,
        topic_id: Uuid::from_u128(u128::from(group)),
        partition: 0,
    })
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn DiskFile>,
    watch: Option<Arc<Watch>>,
}

impl Disk for WatchedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let is_watched = path.extension().is_some_and(|e| e == "log")
            && path.to_str().unwrap().contains(&dir_of(7));
        Ok(Arc::new(WatchedFile {
            file: self.disk.open(path, mode)?,
            watch: is_watched.then(|| self.watch.clone()),
        }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename_new(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_all(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}

impl DiskFile for WatchedFile {
    fn path(&self) -> &PathBuf {
        self.file.path()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if let Some(watch) = &self.watch {
            watch.pass();
        }
        self.file.write_all_at(bufs, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.file.reserve(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.file.slice(offset, len)
    }
}

struct Rig {
    disk: WatchedDisk,
    node: TestNode,
    /// Its writes are watched.
    slow: PartitionHandle,
    /// On the same shard.
    other: PartitionHandle,
    /// The same, flushed.
    flushed: PartitionHandle,
}

impl Rig {
    fn new(log: LogConfig) -> Self {
        let disk = WatchedDisk::new();
        let mut node = TestNode::with_clock(Arc::new(disk.clone()), disk.watch.clock_us.clone());
        let slow = node.create(7, true, log);
        let other = node.create(8, true, LogConfig::default());
        let flushed = node.create(9, false, LogConfig::default());
        // The first write makes the flag durable that a caching topic needs (R2).
        for handle in [&slow, &other] {
            let first = node.produce(handle, Acks::All, b"first");
            node.flush();
            assert_eq!(node.offset(first), Some(0));
        }
        Self {
            disk,
            node,
            slow,
            other,
            flushed,
        }
    }

    fn produce_slow(&mut self, value: &[u8]) -> u64 {
        self.node.produce(&self.slow, Acks::All, value)
    }

    fn writers_started(&self) -> usize {
        self.node.host().writers_started.load(Ordering::SeqCst)
    }

    /// A write that takes long, in its turn as the first one is.
    fn be_slow_once(&mut self) {
        self.disk.set(Writes::Slow);
        let request = self.produce_slow(b"slow");
        assert!(self.node.offset(request).is_some(), "it ran in the turn");
        assert_eq!(self.disk.last_writer(), std::thread::current().id());
        assert_eq!(self.writers_started(), 0);
    }

    /// Others on the same shard are written, flushed and answered, and time goes on.
    fn others_go_on(&mut self) {
        for _ in 0..20 {
            let cached = self.node.produce(&self.other, Acks::All, b"other");
            assert!(
                self.node.offset(cached).is_some(),
                "another group is held back"
            );
            let flushed = self.node.produce(&self.flushed, Acks::All, b"flushed");
            self.node.flush();
            assert!(
                self.node.offset(flushed).is_some(),
                "a flush round is held back"
            );
            self.node.runtime.tick();
        }
    }

    fn values(&self) -> Vec<Vec<u8>> {
        let end = self.slow.published().high_watermark;
        let fetched = self.slow.reader().fetch(0, end, usize::MAX, true).unwrap();
        assert_eq!(fetched.next_offset, end);
        let bytes = fetched.batches.concat();
        riverrun_record::batches(&bytes)
            .flat_map(|batch| {
                let batch = batch.unwrap();
                let records = batch.plain_records().unwrap();
                records
                    .map(|r| r.unwrap().value.unwrap().to_vec())
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

#[test]
fn a_stalled_write_holds_back_its_own_groups_lane_and_nobody_else() {
    let mut rig = Rig::new(LogConfig::default());
    rig.be_slow_once();
    rig.disk.set(Writes::HeldAfter(0));
    let requests: Vec<u64> = (0..5_u8).map(|n| rig.produce_slow(&[b'a' + n])).collect();
    rig.disk.wait_held();
    rig.others_go_on();
    for request in &requests {
        assert_eq!(
            rig.node.offset(*request),
            None,
            "its write has not returned"
        );
    }
    assert_eq!(rig.writers_started(), 1, "a lane has one writer");

    rig.disk.set(Writes::Quick);
    for (n, request) in (2..).zip(&requests) {
        assert_eq!(
            rig.node.wait(*request),
            n,
            "M3: the order of the lane is kept"
        );
    }
    let answered = rig.node.order();
    let answered: Vec<u64> = answered
        .into_iter()
        .filter(|r| requests.contains(r))
        .collect();
    assert_eq!(answered, requests);
    let values = rig.values();
    assert_eq!(
        values[2..],
        [b"a", b"b", b"c", b"d", b"e"].map(|v| v.to_vec())
    );

    // The lane is empty and its writes were quick: the next one runs in its turn again.
    rig.node.join_writers();
    let request = rig.produce_slow(b"inline");
    assert!(rig.node.offset(request).is_some());
    assert_eq!(rig.disk.last_writer(), std::thread::current().id());
    assert_eq!(rig.writers_started(), 1);
}

#[test]
fn writes_stay_out_of_the_turn_while_they_are_slow() {
    let mut rig = Rig::new(LogConfig::default());
    rig.be_slow_once();
    for n in 1..=10 {
        let request = rig.produce_slow(b"slow");
        rig.node.wait(request);
        rig.node.join_writers();
        assert_eq!(rig.writers_started(), n);
        assert_ne!(rig.disk.last_writer(), std::thread::current().id());
    }
    rig.disk.set(Writes::Quick);
    let last = rig.produce_slow(b"the last one out of its turn");
    rig.node.wait(last);
    rig.node.join_writers();
    let request = rig.produce_slow(b"in its turn");
    assert!(rig.node.offset(request).is_some());
    assert_eq!(rig.writers_started(), 11);
}

/// A segment that was ended wants its producer state written: by whoever is at the files.
#[test]
fn work_on_files_whose_write_stalls_does_not_hold_the_flusher() {
    let mut rig = Rig::new(LogConfig::tiny());
    rig.be_slow_once();
    let big = vec![b'x'; 3000];
    rig.disk.set(Writes::HeldAfter(3));
    // Three batches of one turn fill three segments. When they are applied the producer states at
    // their ends are wanted, and the write behind them does not return.
    for _ in 0..2 {
        rig.node.post(&rig.slow, Acks::All, &big);
    }
    let through = rig.node.produce(&rig.slow, Acks::All, &big);
    let last = rig.produce_slow(&big);
    rig.disk.wait_held();
    rig.others_go_on();
    assert!(rig.node.offset(through).is_some() && rig.node.offset(last).is_none());
    let snapshots = |rig: &Rig| {
        let names = rig
            .disk
            .read_dir(&Path::new("/data").join(dir_of(7)))
            .unwrap();
        names
            .iter()
            .filter(|n| n.name.ends_with(".snapshot"))
            .count()
    };
    let before = snapshots(&rig);
    rig.disk.set(Writes::Quick);
    rig.node.wait(last);
    rig.node.join_writers();
    assert!(snapshots(&rig) > before, "it was left lying");
    assert!(rig.node.host().fenced.lock().is_empty());
}

#[test]
fn what_found_no_room_is_written_in_order_when_there_is_room_again() {
    let mut rig = Rig::new(LogConfig::default());
    rig.disk.disk.set_capacity(0);
    let request = rig.produce_slow(&vec![b'f'; 200_000]);
    assert_eq!(rig.node.offset(request), None, "there is no room");
    rig.node.runtime.tick();
    rig.node.join_writers();
    assert_eq!(rig.node.offset(request), None, "there is still none");
    rig.disk.disk.set_capacity(u64::MAX);
    rig.node.runtime.tick();
    assert_eq!(rig.node.wait(request), 1);
    rig.node.join_writers();
    let next = rig.produce_slow(b"next");
    assert_eq!(rig.node.offset(next), Some(2));
    assert_eq!(rig.values().len(), 3);
}

#[test]
fn a_stop_waits_for_the_writers() {
    let mut rig = Rig::new(LogConfig::default());
    rig.be_slow_once();
    rig.disk.set(Writes::HeldAfter(0));
    let requests: Vec<u64> = (0..3).map(|_| rig.produce_slow(b"late")).collect();
    rig.disk.wait_held();
    let runtime = rig.node.runtime.clone();
    let closing = std::thread::spawn(move || runtime.close().unwrap());
    rig.disk.set(Writes::Quick);
    closing.join().unwrap();
    for request in requests {
        assert!(rig.node.offset(request).is_some());
    }
    rig.node.join_writers();
    let Rig { disk, node, .. } = rig;
    drop(node);
    let again = TestNode::open(Arc::new(disk));
    assert_eq!(again.runtime.handle(7).unwrap().reader().next_offset(), 5);
}

#[test]
fn a_replica_that_is_removed_is_written_no_more() {
    let mut rig = Rig::new(LogConfig::default());
    rig.be_slow_once();
    rig.disk.set(Writes::HeldAfter(0));
    for _ in 0..3 {
        rig.produce_slow(b"never");
    }
    rig.disk.wait_held();
    let runtime = rig.node.runtime.clone();
    let removing = std::thread::spawn(move || {
        runtime
            .set_aside(7, riverrun_storage::format::aside::Reason::Replaced)
            .unwrap()
    });
    rig.disk.set(Writes::Quick);
    removing.join().unwrap();
    rig.node.join_writers();
    let dir = Path::new("/data").join(dir_of(7));
    assert!(!rig.disk.exists(&dir).unwrap());
    rig.others_go_on();
}
