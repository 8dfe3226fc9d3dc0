//! The executions of docs/safety.md that the node store alone has to survive, each forced by name,
//! and what it says of disks that fail.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use riverrun_record::{BatchBuilder, Compression};
use riverrun_storage::disk::mem::{CrashModel, MemDisk, Operation, Times};
use riverrun_storage::node::wal::{DumpItem, RecordBody, dump};
use riverrun_storage::node::{
    Boot, Flags, NodeConfig, NodeError, NodeRecovery, NodeStore, RoundItem, RoundResult, SyncTarget,
};
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{
    Disk, EntryKind, FileTrust, GroupRecord, HardState, Log, LogConfig, LogEntry, LogError,
    LogIdentity, LogStart, LogSync, StoredConf,
};
use uuid::Uuid;

const WAL: &str = "/data/node/wal";
const RING_OFFSET: u64 = 12_288;

/// A log that only counts what is asked of it.
#[derive(Debug, Default)]
struct Counter {
    data: AtomicUsize,
    full: AtomicUsize,
    fails: AtomicBool,
}

impl Counter {
    fn answer(&self, count: &AtomicUsize) -> io::Result<()> {
        count.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

impl SyncTarget for Counter {
    fn sync_data(&self) -> io::Result<()> {
        self.answer(&self.data)
    }
    fn sync_full(&self) -> io::Result<()> {
        self.answer(&self.full)
    }
}

struct Node {
    disk: MemDisk,
    store: Option<NodeStore>,
    config: NodeConfig,
    boots: u32,
}

impl Node {
    fn new(wal_bytes: u64) -> Self {
        let config = NodeConfig {
            wal_bytes,
            flush_threads: 0,
            ..NodeConfig::default()
        };
        let mut node = Self {
            disk: MemDisk::new(),
            store: None,
            config,
            boots: 0,
        };
        assert!(node.start().unwrap().founded);
        node
    }

    fn start(&mut self) -> Result<NodeRecovery, NodeError> {
        self.boots += 1;
        let boot = Boot {
            kernel_boot_id: format!("boot-{}", self.boots),
            node_id: 1,
            new_directory_id: Uuid::from_u128(0xd1),
            start_token: 0x5eed,
        };
        let (store, recovery) = NodeStore::open(
            self.disk.shared(),
            Path::new("/data"),
            self.config.clone(),
            boot,
        )?;
        self.store = Some(store);
        Ok(recovery)
    }

    fn stop(&mut self) {
        self.store = None;
    }

    /// Loses power, and all that was not synced with it.
    fn power_cut(&mut self) {
        self.stop();
        self.disk.crash(1, &CrashModel::LOSE_ALL);
    }

    fn restart(&mut self) -> NodeRecovery {
        self.power_cut();
        self.start().unwrap()
    }

    fn store(&self) -> &NodeStore {
        self.store.as_ref().unwrap()
    }

    fn round(&self, items: Vec<RoundItem>) -> RoundResult {
        let round = self.store().begin_round(items).unwrap();
        let result = round.sync().unwrap();
        self.store().end_round(round, &result).unwrap();
        result
    }

    fn create(&self, group: u64, prev_index: u64) {
        let start = LogStart {
            prev_index,
            prev_term: 4,
            offset: 100,
        };
        self.round(vec![RoundItem {
            group,
            identity: Some((identity(group, 10 + group), start)),
            conf: Some(StoredConf {
                index: 0,
                bytes: Bytes::from_static(b"voters"),
            }),
            ..RoundItem::default()
        }]);
    }
}

fn identity(group: u64, replica: u64) -> LogIdentity {
    LogIdentity {
        group,
        replica,
        topic_id: Uuid::from_u128(0x70),
        partition: 2,
    }
}

fn entry(index: u64, term: u64, kind: EntryKind, len: usize) -> LogEntry {
    let payload = Bytes::from(vec![(index % 251) as u8; len]);
    LogEntry {
        index,
        term,
        kind,
        base_offset: 100,
        last_offset_delta: 0,
        payload,
    }
}

fn data(index: u64, term: u64, len: usize) -> LogEntry {
    entry(index, term, EntryKind::Data, len)
}

fn item(group: u64, entries: Vec<LogEntry>, log: &Arc<Counter>) -> RoundItem {
    let durable_through = entries.last().map_or(0, |entry| entry.index);
    RoundItem {
        group,
        entries,
        log: Some(log.clone()),
        durable_through,
        ..RoundItem::default()
    }
}

fn held(record: &GroupRecord) -> Vec<(u64, u64)> {
    record
        .entries
        .iter()
        .map(|entry| (entry.index, entry.term))
        .collect()
}

#[test]
fn w1_vote_lost_in_bulk_round() {
    // The vote and a great batch come in one round: the round is bulk, and the vote is lost if it
    // syncs the segment only.
    let run = || {
        let mut node = Node::new(1 << 20);
        let log = Arc::new(Counter::default());
        node.create(1, 9);
        let hard_state = HardState {
            term: 6,
            vote: 3,
            commit: 9,
        };
        let entries = vec![entry(10, 6, EntryKind::Noop, 0), data(11, 6, 1 << 20)];
        let mut bulk = item(1, entries, &log);
        bulk.hard_state = Some(hard_state);
        let round = node.store().begin_round(vec![bulk]).unwrap();
        assert!(round.is_bulk());
        let result = round.sync().unwrap();
        node.store().end_round(round, &result).unwrap();
        assert_eq!(log.data.load(Ordering::Relaxed), 1);
        let record = node.restart().groups.remove(&1).unwrap();
        (record.hard_state == hard_state, held(&record))
    };
    assert_eq!(run(), (true, vec![(10, 6)]));
    planted::set(Bug::W1, true);
    assert!(!run().0, "the rule is off and nothing is lost");
    planted::clear();
}

#[test]
fn w1_the_next_round_stores_the_durable_index() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    node.create(2, 0);
    node.round(vec![item(1, vec![data(1, 1, 400 << 10)], &log)]);
    assert!(node.store().needs_idle_round());
    // Somebody else's round carries it.
    node.round(vec![item(2, vec![data(1, 1, 10)], &log)]);
    assert!(!node.store().needs_idle_round());
    let groups = node.restart().groups;
    assert_eq!((groups[&1].durable_index, groups[&2].durable_index), (1, 1));
}

#[test]
fn w2_stale_replay() {
    // (8..11, 5) are in the WAL; a leader of term 6 replaces 10 by WAL and 11 by the segment.
    let run = || {
        let mut node = Node::new(1 << 20);
        let log = Arc::new(Counter::default());
        node.create(1, 7);
        node.round(vec![item(
            1,
            (8..=11).map(|index| data(index, 5, 50)).collect(),
            &log,
        )]);
        node.round(vec![RoundItem {
            group: 1,
            cut: Some(10),
            log: Some(log.clone()),
            ..RoundItem::default()
        }]);
        let mut behind = item(
            1,
            vec![entry(10, 6, EntryKind::Noop, 0), data(11, 6, 1 << 20)],
            &log,
        );
        behind.cut_done = true;
        node.round(vec![behind]);
        node.restart().groups.remove(&1).unwrap()
    };
    let record = run();
    assert_eq!(held(&record), [(8, 5), (9, 5), (10, 6)]);
    assert_eq!((record.unfinished_cut, record.durable_index), (None, 10));
    planted::set(Bug::W2, true);
    assert!(
        held(&run()).contains(&(11, 5)),
        "the rule is off and nothing stale is replayed"
    );
    planted::clear();
}

#[test]
fn w2_only_a_cut_without_its_cut_done_is_repeated() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    node.round(vec![item(
        1,
        (1..=5).map(|index| data(index, 1, 20)).collect(),
        &log,
    )]);
    node.round(vec![RoundItem {
        group: 1,
        cut: Some(4),
        ..RoundItem::default()
    }]);
    let record = node.restart().groups.remove(&1).unwrap();
    assert_eq!((record.unfinished_cut, record.durable_index), (Some(4), 3));
    assert_eq!(held(&record), [(1, 1), (2, 1), (3, 1)]);
    // The log's recovery has repeated it; the first round says so.
    node.store().log_opened(1, 3);
    assert!(node.store().needs_idle_round());
    node.store().idle_round().unwrap();
    let record = node.restart().groups.remove(&1).unwrap();
    assert_eq!(record.unfinished_cut, None);
}

#[test]
fn w2_a_torn_tail_that_recovery_cut_is_cut_in_the_wal_too() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    // The no-op is in the WAL, the data before it in a segment that was never synced.
    let mut only_noop = item(1, vec![entry(3, 1, EntryKind::Noop, 0)], &log);
    only_noop.durable_through = 0;
    node.round(vec![only_noop]);
    let record = node.restart().groups.remove(&1).unwrap();
    assert_eq!((held(&record), record.durable_index), (vec![(3, 1)], 0));
    node.store().log_opened(1, 0);
    node.store().idle_round().unwrap();
    node.round(vec![item(1, vec![data(1, 2, 5), data(2, 2, 5)], &log)]);
    let record = node.restart().groups.remove(&1).unwrap();
    assert_eq!(held(&record), [(1, 2), (2, 2)]);
    assert_eq!(record.unfinished_cut, None);
}

#[test]
fn a_reset_is_a_cut_of_everything() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    node.round(vec![item(
        1,
        (1..=5).map(|index| data(index, 1, 20)).collect(),
        &log,
    )]);
    let start = LogStart {
        prev_index: 999,
        prev_term: 7,
        offset: 5000,
    };
    node.round(vec![RoundItem {
        group: 1,
        identity: Some((identity(1, 11), start)),
        ..RoundItem::default()
    }]);
    let record = node.restart().groups.remove(&1).unwrap();
    assert_eq!((record.start, record.unfinished_cut), (start, Some(0)));
    assert_eq!((record.durable_index, held(&record)), (999, Vec::new()));
}

/// The records of the file with their places.
fn records(disk: &MemDisk) -> Vec<(u64, u64, u64, Option<RecordBody>)> {
    let dump = dump(disk, Path::new(WAL)).unwrap();
    let items = dump.into_iter().filter_map(|item| match item {
        DumpItem::Record {
            file_offset,
            header,
            body,
            ..
        } => Some((file_offset, header.round, header.group, body)),
        _ => None,
    });
    items.collect()
}

#[test]
fn w3_old_laps() {
    // A ring that is filled hundreds of times: what is read is only ever of the last laps.
    let mut node = Node::new(32 << 10);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    for index in 1..=2000 {
        if node.store().needs_checkpoint() {
            node.store().checkpoint().unwrap();
        }
        node.round(vec![item(1, vec![data(index, 1, 300)], &log)]);
        if index % 97 == 0 {
            let record = node.restart().groups.remove(&1).unwrap();
            assert_eq!(record.durable_index, index);
            let held = held(&record);
            assert!(held.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
            assert_eq!(held.last(), Some(&(index, 1)));
            node.store().log_opened(1, index);
        }
    }
    let rounds: Vec<u64> = records(&node.disk).iter().map(|record| record.1).collect();
    assert!(rounds.is_sorted() && rounds[0] > 1500);
    assert!(log.full.load(Ordering::Relaxed) > 20);
}

#[test]
fn w3_a_bad_record_before_a_later_round_is_damage() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    for group in 1..=3 {
        node.create(group, 0);
    }
    node.round(vec![item(1, vec![data(1, 1, 40)], &log)]);
    node.round(vec![item(2, vec![data(1, 1, 40)], &log)]);
    node.round(vec![
        item(1, vec![data(2, 1, 40)], &log),
        item(3, vec![data(1, 1, 40)], &log),
    ]);
    let bad = records(&node.disk).iter().find(|r| r.1 == 5).unwrap().0;
    node.stop();
    assert!(node.disk.flip_bit(Path::new(WAL), bad + 70, 3));
    let recovery = node.restart();
    let damage = recovery.damage.unwrap();
    assert_eq!(damage.places, [(bad, 512)]);
    // Groups 1 and 3 go on behind the gap without one of their records missing; group 2 does not.
    assert_eq!((damage.affected, damage.lost), (vec![2], vec![]));
    assert!(recovery.groups[&2].recovering && !recovery.groups[&1].recovering);
    assert_eq!(held(&recovery.groups[&1]), [(1, 1), (2, 1)]);
    assert_eq!(held(&recovery.groups[&3]), [(1, 1)]);
    // A checkpoint is asked for, and takes the damage and not the flag away.
    assert!(node.store().needs_checkpoint());
    node.store().checkpoint().unwrap();
    let recovery = node.restart();
    assert_eq!(recovery.damage, None);
    assert!(recovery.groups[&2].recovering);
}

/// One bad record took all that lay behind it in its round along, though it could be read.
#[test]
fn w3_what_lies_behind_a_bad_record_in_its_round_counts() {
    let vote = |group| RoundItem {
        group,
        hard_state: Some(HardState {
            term: 5,
            vote: 3,
            commit: 0,
        }),
        ..RoundItem::default()
    };
    // A bad body, whose header leads to the next record, and a bad length, which does not.
    for at in [60, 1] {
        let mut node = Node::new(1 << 20);
        for group in 1..=3 {
            node.create(group, 0);
        }
        node.round((1..=3).map(vote).collect());
        node.round(vec![vote(1)]);
        let bad = records(&node.disk).iter().find(|r| r.1 == 4).unwrap().0;
        node.stop();
        assert!(node.disk.flip_bit(Path::new(WAL), bad + at, 3));
        let recovery = node.restart();
        let damage = recovery.damage.unwrap();
        assert_eq!(damage.places, [(bad, 80)]);
        // The first group has a record behind the gap, and lacks one; the others lack none.
        assert_eq!(damage.affected, [1], "byte {at}");
        for group in [2, 3] {
            assert_eq!(recovery.groups[&group].hard_state.term, 5);
        }
        // It stands until everybody that it may concern was accounted for (R12).
        let standing = node.store().damage().unwrap();
        assert_eq!(standing.ordered_below, u64::MAX);
        node.store().checkpoint().unwrap();
        assert_eq!(node.restart().damage, None);
        assert_eq!(node.store().damage(), Some(standing));
        node.store().bound_damage(77).unwrap();
        node.restart();
        assert_eq!(node.store().damage().unwrap().ordered_below, 77);
        node.store().forget_damage().unwrap();
        node.restart();
        assert_eq!(node.store().damage(), None);
    }
}

/// R14: an older copy of the WAL, or of the identity, that is put back beside newer files is found.
#[test]
fn r14_an_older_copy_beside_newer_files_is_found() {
    let wal = Path::new(WAL);
    let mut node = Node::new(1 << 20);
    node.create(1, 0);
    let old = node.disk.durable_image(wal).unwrap();
    let vote = RoundItem {
        group: 1,
        hard_state: Some(HardState {
            term: 5,
            vote: 3,
            commit: 0,
        }),
        ..RoundItem::default()
    };
    node.round(vec![vote]);
    node.store().checkpoint().unwrap();
    node.store().close_clean().unwrap();
    node.stop();
    assert!(node.disk.put_durable_image(wal, old));
    let recovery = node.restart();
    let damage = recovery.damage.unwrap();
    assert_eq!(damage.affected, [1], "its vote is forgotten");
    assert!(recovery.groups[&1].recovering);
    assert!(node.store().damage().is_some());
}

#[test]
fn w3_a_replica_that_may_have_forgotten_its_vote_takes_a_term_above_all_that_it_knew() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    let vote = |group, term| RoundItem {
        group,
        hard_state: Some(HardState {
            term,
            vote: 3,
            commit: 0,
        }),
        ..RoundItem::default()
    };
    node.create(1, 0);
    node.create(2, 0);
    node.create(3, 0);
    node.round(vec![vote(1, 5), vote(2, 5), vote(3, 5)]);
    // This round is lost; behind it come entries of the first group, a vote of the second, nothing of
    // the third.
    node.round(vec![vote(1, 6), vote(2, 6)]);
    node.round(vec![item(1, vec![data(1, 6, 40)], &log), vote(2, 7)]);
    let bad = records(&node.disk).iter().find(|r| r.1 == 5).unwrap().0;
    node.stop();
    for record in [bad, bad + 80] {
        assert!(node.disk.flip_bit(Path::new(WAL), record + 70, 3));
    }
    let recovery = node.restart();
    assert_eq!(recovery.damage.unwrap().affected, [1, 2, 3]);
    let hard_state = |group| recovery.groups[&group].hard_state;
    for group in [1, 3] {
        assert!(hard_state(group).term > 100_000, "group {group}");
        // Its vote in that term is its own: nobody else gets it.
        assert_eq!(hard_state(group).vote, 10 + group);
    }
    assert_eq!((hard_state(2).term, hard_state(2).vote), (7, 3));
    // It is not raised again by each start that reads the same, and not forgotten by a checkpoint.
    let before: Vec<u64> = (1..=3).map(|group| hard_state(group).term).collect();
    for _ in 0..2 {
        let terms: Vec<u64> = node
            .restart()
            .groups
            .values()
            .map(|record| record.hard_state.term)
            .collect();
        assert_eq!(terms, before);
        node.store().checkpoint().unwrap();
    }
}

#[test]
fn w3_a_bad_record_of_the_last_round_is_a_torn_tail() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    node.round(vec![item(1, vec![data(1, 1, 40)], &log)]);
    // One round of three records over several sectors, of which the middle one is lost.
    node.round(vec![item(
        1,
        vec![data(2, 1, 900), data(3, 1, 900), data(4, 1, 900)],
        &log,
    )]);
    let torn: Vec<u64> = records(&node.disk)
        .iter()
        .filter(|r| r.1 == 3)
        .map(|r| r.0)
        .collect();
    assert_eq!(torn.len(), 3);
    node.stop();
    assert!(node.disk.flip_bit(Path::new(WAL), torn[1] + 60, 0));
    let recovery = node.restart();
    assert_eq!(recovery.damage, None);
    assert_eq!(held(&recovery.groups[&1]), [(1, 1)]);
    // The same place is written by this boot; what is left of the torn round never comes back.
    node.store().log_opened(1, 1);
    node.store().idle_round().unwrap();
    node.round(vec![item(1, vec![data(2, 2, 900)], &log)]);
    let recovery = node.restart();
    assert_eq!(
        (recovery.damage, held(&recovery.groups[&1])),
        (None, vec![(1, 1), (2, 2)])
    );
}

#[test]
fn w3_states_that_a_checkpoint_wrote_and_that_are_gone_are_damage() {
    let mut node = Node::new(64 << 10);
    node.create(1, 0);
    node.store().checkpoint().unwrap();
    node.stop();
    // The states lie right behind the creation and are the first thing to be read.
    let state = records(&node.disk)
        .iter()
        .find(|r| matches!(r.3, Some(RecordBody::State(_))))
        .unwrap()
        .0;
    for sector in 0..8 {
        assert!(
            node.disk
                .flip_bit(Path::new(WAL), state + sector * 512 + 9, 1)
        );
    }
    node.power_cut();
    assert!(matches!(node.start(), Err(NodeError::Damaged { .. })));
}

#[test]
fn w6_pinned_wal() {
    // Group 1 is fenced at the start and never opens; the others fill the ring many times.
    let mut node = Node::new(32 << 10);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    node.create(2, 0);
    node.round(vec![item(
        1,
        (1..=3).map(|index| data(index, 1, 100)).collect(),
        &log,
    )]);
    node.restart();
    node.store().log_opened(2, 0);
    let mut next = 1;
    for _ in 0..3 {
        for _ in 0..400 {
            if node.store().needs_checkpoint() {
                node.store().checkpoint().unwrap();
            }
            node.round(vec![item(2, vec![data(next, 1, 300)], &log)]);
            next += 1;
        }
        let recovery = node.restart();
        node.store().log_opened(2, next - 1);
        assert_eq!(held(&recovery.groups[&1]), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(recovery.groups[&1].durable_index, 3);
    }
    let sides = |node: &Node| {
        let names = node.disk.read_dir(Path::new("/data/node")).unwrap();
        names
            .iter()
            .filter(|entry| entry.name.starts_with("fenced-1-"))
            .count()
    };
    assert_eq!(sides(&node), 1);
    // Repaired at last: the side file goes with the next checkpoint.
    node.store().log_opened(1, 3);
    node.store().checkpoint().unwrap();
    let recovery = node.restart();
    assert_eq!((sides(&node), held(&recovery.groups[&1])), (0, Vec::new()));
    assert_eq!(recovery.groups[&1].durable_index, 3);
}

#[test]
fn w6_a_round_without_room_makes_it() {
    // Nobody ever calls for a checkpoint.
    let mut node = Node::new(32 << 10);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    for index in 1..=500 {
        node.round(vec![item(1, vec![data(index, 1, 1000)], &log)]);
    }
    assert!(log.full.load(Ordering::Relaxed) > 5);
    let record = node.restart().groups.remove(&1).unwrap();
    assert_eq!(record.durable_index, 500);
}

#[test]
fn w6_what_can_never_fit_is_refused() {
    let node = Node::new(32 << 10);
    node.create(1, 0);
    let log = Arc::new(Counter::default());
    let great = item(1, vec![entry(1, 1, EntryKind::Command, 64 << 10)], &log);
    let refused = node.store().begin_round(vec![great]);
    assert!(matches!(refused, Err(NodeError::WalTooSmall { .. })));
    // Data of that size goes past the WAL.
    node.round(vec![item(1, vec![data(1, 1, 64 << 10)], &log)]);
    assert_eq!(log.data.load(Ordering::Relaxed), 1);
}

/// A partition with real files under the node store, as a node drives it.
struct Partition {
    node: Node,
    log: Option<Log>,
    /// What was acknowledged.
    acknowledged: Vec<LogEntry>,
    /// What was appended.
    appended: Vec<LogEntry>,
    term: u64,
}

/// More than this is flushed by the files, less goes through the WAL.
const SMALL: usize = 2000;

impl Partition {
    fn new(caching: bool) -> Self {
        let mut node = Node::new(64 << 10);
        node.stop();
        node.config.small_round_max_bytes = SMALL as u64;
        node.start().unwrap();
        node.disk.failed_syncs_stick(true);
        let log = Log::create(
            node.disk.shared(),
            Path::new("/data/log"),
            &identity(1, 11),
            LogStart::default(),
            &StoredConf::default(),
            Self::config(),
        );
        node.round(vec![RoundItem {
            group: 1,
            identity: Some((identity(1, 11), LogStart::default())),
            flags: caching.then_some(Flags {
                may_be_short: true,
                recovering: false,
            }),
            ..RoundItem::default()
        }]);
        Self {
            node,
            log: Some(log.unwrap()),
            acknowledged: Vec::new(),
            appended: Vec::new(),
            term: 0,
        }
    }

    fn config() -> LogConfig {
        LogConfig {
            segment_bytes: 6000,
            ..LogConfig::tiny()
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn sync(&mut self) -> Arc<LogSync> {
        self.log().sync_handle()
    }

    /// Appends a batch, behind the no-op of a new term if one is wanted.
    fn append(&mut self, new_term: bool, len: usize) {
        let mut entries = Vec::new();
        let (index, base_offset) = (self.log().last_index() + 1, self.log().next_offset());
        if new_term {
            self.term += 1;
            entries.push(LogEntry {
                base_offset,
                ..entry(index, self.term, EntryKind::Noop, 0)
            });
        }
        let value = vec![self.term as u8 ^ index as u8; len];
        let mut batch = BatchBuilder::new(Compression::None, None)
            .base_offset(base_offset)
            .leader_epoch(self.term as i32);
        batch.append(1000, None, Some(&value), &[]).unwrap();
        entries.push(LogEntry {
            index: index + u64::from(new_term),
            term: self.term,
            kind: EntryKind::Data,
            base_offset,
            last_offset_delta: 0,
            payload: batch.build().unwrap(),
        });
        self.log().append(&entries).unwrap();
        self.appended.extend(entries);
    }

    /// A flush round of all that is not acknowledged. True if it was.
    fn flush(&mut self) -> bool {
        let entries = self.appended[self.acknowledged.len()..].to_vec();
        let item = RoundItem {
            group: 1,
            durable_through: self.appended.len() as u64,
            entries,
            log: Some(self.sync()),
            ..RoundItem::default()
        };
        let result = self.node.round(vec![item]);
        if result.failed.is_empty() {
            self.acknowledged.clone_from(&self.appended);
        }
        result.failed.is_empty()
    }

    fn settle(&self) {
        while self.node.store().needs_idle_round() {
            self.node.store().idle_round().unwrap();
        }
    }

    /// The process starts again and opens the log.
    fn open(&mut self, believe_the_cache: bool) -> Result<GroupRecord, LogError> {
        self.log = None;
        self.node.stop();
        let mut record = self.node.start().unwrap().groups.remove(&1).unwrap();
        if believe_the_cache {
            record.trust = FileTrust::Sound;
        }
        let opened = Log::open(
            self.node.disk.shared(),
            Path::new("/data/log"),
            &record,
            Self::config(),
        );
        let (log, _) = opened.inspect_err(|_| self.node.store().suspect(1))?;
        self.node.store().log_opened(1, log.last_index());
        self.settle();
        self.log = Some(log);
        self.appended = self.entries();
        Ok(record)
    }

    fn entries(&mut self) -> Vec<LogEntry> {
        let (first, last) = (self.log().first_index(), self.log().last_index());
        let reader = self.log().reader();
        reader.entries(first, last + 1, u64::MAX).unwrap()
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// Entries that the WAL made durable, some that the files did, a checkpoint of them or not, and then
/// a flush that fails: of the batches, or of a segment that was ended.
fn poisoned(checkpoint: bool, rolls: bool, caching: bool) -> Partition {
    let mut partition = Partition::new(caching);
    partition.append(true, 100);
    assert!(partition.flush());
    partition.append(false, 2500);
    assert!(partition.flush());
    if checkpoint {
        partition.node.store().checkpoint().unwrap();
    }
    for _ in 0..3 {
        partition.append(false, 300);
        assert!(partition.flush());
    }
    partition.append(false, SMALL + 1);
    if rolls {
        partition.append(false, 2500);
        partition.append(false, 2500);
    }
    partition
        .node
        .disk
        .fail(Operation::Sync, Times::Once, is_log);
    assert!(!partition.flush(), "its sync fails");
    assert!(partition.sync().is_poisoned());
    assert!(
        partition.node.store().needs_idle_round(),
        "the failure is to be made durable at once"
    );
    partition
}

#[test]
fn w8_poisoned_cache() {
    // fdatasync fails once and the pages are marked clean; a restart finds all of it good, in the
    // cache, acknowledges what follows, and at the next power cut the disk holds old bytes.
    let run = |case: u32, believe_the_cache: bool| {
        let (checkpoint, rolls, side_file) = (case & 1 != 0, case & 2 != 0, case & 4 != 0);
        let mut partition = poisoned(checkpoint, rolls, false);
        partition.settle();
        if side_file {
            // What the WAL holds of it moves to a side file, for the log cannot be synced (W6).
            partition.node.store().checkpoint().unwrap();
        }
        let record = partition.open(believe_the_cache).unwrap();
        assert!(!record.recovering, "what was lost was never acknowledged");
        if !believe_the_cache {
            assert_eq!(partition.appended, partition.acknowledged, "case {case}");
        }
        partition.acknowledged.clone_from(&partition.appended);
        // Another leader: other entries at the indexes of those that were dropped.
        for (len, new_term) in [(50, true), (2500, false), (2500, false)] {
            partition.append(new_term, len);
            assert!(partition.flush());
        }
        partition.log = None;
        partition.node.power_cut();
        let opened = partition.open(false);
        opened.is_ok() && partition.appended == partition.acknowledged
    };
    for case in 0..8 {
        assert!(run(case, false), "case {case}");
        assert!(
            !run(case, true),
            "case {case}: the rule is off and nothing is lost"
        );
    }
}

#[test]
fn w8_poisoned_cache_with_a_power_cut_in_every_call_of_the_opening() {
    for case in 0..4 {
        for seed in 0..200_u64 {
            let mut partition = poisoned(case & 1 != 0, case & 2 != 0, false);
            partition.settle();
            let acknowledged = partition.acknowledged.clone();
            partition.log = None;
            partition.node.stop();
            // The machine stops in one of the calls that change the disk.
            let left = Arc::new(AtomicUsize::new(seed as usize));
            let disk = partition.node.disk.clone();
            for operation in [
                Operation::Write,
                Operation::Sync,
                Operation::SyncDir,
                Operation::SetLen,
                Operation::Rename,
            ] {
                let left = Arc::clone(&left);
                disk.fail(operation, Times::Always, move |path| {
                    path.starts_with("/data/log")
                        && left
                            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                                n.checked_sub(1)
                            })
                            .is_err()
                });
            }
            let stopped = partition.open(false).is_err();
            disk.clear_faults();
            if stopped {
                partition.log = None;
                partition.node.stop();
                if !seed.is_multiple_of(4) {
                    disk.crash(seed, &CrashModel::RANDOM);
                }
                partition.open(false).unwrap();
            }
            assert_eq!(partition.appended, acknowledged, "case {case}, seed {seed}");
            partition.append(true, 2500);
            assert!(partition.flush());
            let acknowledged = partition.acknowledged.clone();
            partition.log = None;
            partition.node.power_cut();
            partition.open(false).unwrap();
            assert_eq!(partition.appended, acknowledged, "case {case}, seed {seed}");
            if !stopped {
                break;
            }
            assert!(seed < 199, "an opening has fewer calls than that");
        }
    }
}

#[test]
fn w8_what_was_acknowledged_from_memory_makes_the_replica_recovering() {
    let mut partition = poisoned(false, false, true);
    partition.settle();
    let record = partition.open(false).unwrap();
    assert!(record.trust == FileTrust::Poisoned && record.recovering);
    // The flag outlives the files that were written anew.
    let record = partition.open(false).unwrap();
    assert!(record.trust == FileTrust::Sound && record.recovering);
}

#[test]
fn w8_a_new_log_that_lacks_what_was_acknowledged_is_refused() {
    // The side file that held what only the WAL had is lost: that is not made up from the cache.
    let mut partition = poisoned(false, false, false);
    partition.settle();
    partition.node.store().checkpoint().unwrap();
    partition.node.stop();
    let names = partition
        .node
        .disk
        .read_dir(Path::new("/data/node"))
        .unwrap();
    let side = names
        .iter()
        .find(|entry| entry.name.starts_with("fenced-1-"));
    let path = Path::new("/data/node").join(&side.unwrap().name);
    partition.node.disk.remove_file(&path).unwrap();
    // The disk itself lost what lies between the last good flush of the file and the failed one.
    partition.log = None;
    partition.node.power_cut();
    let names = partition
        .node
        .disk
        .read_dir(Path::new("/data/node"))
        .unwrap();
    if names
        .iter()
        .any(|entry| entry.name.starts_with("fenced-1-"))
    {
        partition.node.disk.remove_file(&path).unwrap();
    }
    assert!(matches!(
        partition.open(false),
        Err(LogError::Damaged { .. })
    ));
}

#[test]
fn w8_a_failure_that_cannot_be_recorded_ends_the_process() {
    let partition = poisoned(false, false, false);
    let wal = |path: &Path| path.ends_with("wal");
    partition.node.disk.fail(Operation::Sync, Times::Once, wal);
    assert!(matches!(
        partition.node.store().idle_round(),
        Err(NodeError::WalFailed(_))
    ));
    assert!(matches!(
        partition.node.store().begin_round(Vec::new()),
        Err(NodeError::Misuse { .. })
    ));
}

#[test]
fn w8_a_poisoned_log_is_read_again_from_the_wal() {
    let mut node = Node::new(1 << 20);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    node.round(vec![item(1, vec![data(1, 1, 50), data(2, 1, 50)], &log)]);
    log.fails.store(true, Ordering::Relaxed);
    let result = node.round(vec![item(1, vec![data(3, 1, 600 << 10)], &log)]);
    assert_eq!(result.failed.len(), 1);
    let record = node
        .store()
        .read_groups(&BTreeSet::from([1]))
        .unwrap()
        .remove(&1)
        .unwrap();
    assert_eq!(
        (held(&record), record.durable_index),
        (vec![(1, 1), (2, 1)], 2)
    );
    // The checkpoint cannot sync it either, so its entries move to a side file ...
    node.store().checkpoint().unwrap();
    let record = node
        .store()
        .read_groups(&BTreeSet::from([1]))
        .unwrap()
        .remove(&1)
        .unwrap();
    assert_eq!(held(&record), [(1, 1), (2, 1)]);
    // ... where a restart finds them.
    let record = node.restart().groups.remove(&1).unwrap();
    assert_eq!(
        (held(&record), record.durable_index),
        (vec![(1, 1), (2, 1)], 2)
    );
}

#[test]
fn w8_a_round_of_a_poisoned_cache_is_written_again() {
    // The sync of a round fails and its pages count as clean. The process dies of it (I10); its
    // successor reads the round from the cache, and must not take it for durable as it is.
    let mut node = Node::new(1 << 20);
    node.create(1, 0);
    let hard_state = HardState {
        term: 9,
        vote: 2,
        commit: 0,
    };
    node.disk
        .fail(Operation::Sync, Times::Once, |path| path.ends_with("wal"));
    let vote = RoundItem {
        group: 1,
        hard_state: Some(hard_state),
        ..RoundItem::default()
    };
    let round = node.store().begin_round(vec![vote]).unwrap();
    assert!(round.sync().is_err());
    drop(round);
    node.stop();
    assert_eq!(node.start().unwrap().groups[&1].hard_state, hard_state);
    assert_eq!(node.restart().groups[&1].hard_state, hard_state);
}

#[test]
fn i10_nothing_is_taken_after_the_wal_has_failed() {
    let node = Node::new(1 << 20);
    node.create(1, 0);
    node.disk
        .fail(Operation::Write, Times::Once, |path| path.ends_with("wal"));
    assert!(matches!(
        node.store().begin_round(Vec::new()),
        Err(NodeError::WalFailed(_))
    ));
    assert!(matches!(
        node.store().begin_round(Vec::new()),
        Err(NodeError::Misuse { .. })
    ));
}

#[test]
fn one_sync_of_the_file_system_stands_for_many_files() {
    let node = Node::new(8 << 20);
    let logs: Vec<Arc<Counter>> = (0..100).map(|_| Arc::default()).collect();
    for group in 1..=100 {
        node.create(group, 0);
    }
    let items = |index: u64| {
        let each = logs.iter().zip(1..);
        each.map(|(log, group)| item(group, vec![data(index, 1, 100 << 10)], log))
            .collect()
    };
    let result = node.round(items(1));
    assert!(result.failed.is_empty());
    // It fails as a whole: nobody knows whose pages were lost.
    node.disk.fail(Operation::Sync, Times::Once, |path| {
        path == Path::new("/data")
    });
    assert_eq!(node.round(items(2)).failed.len(), 100);
}

#[test]
fn threads_sync_beside_the_wal() {
    let mut node = Node::new(8 << 20);
    node.stop();
    node.config.flush_threads = 4;
    node.start().unwrap();
    let logs: Vec<Arc<Counter>> = (0..20).map(|_| Arc::default()).collect();
    for group in 1..=20 {
        node.create(group, 0);
    }
    logs[7].fails.store(true, Ordering::Relaxed);
    let each = logs.iter().zip(1..);
    let items = each
        .map(|(log, group)| item(group, vec![data(1, 1, 200 << 10)], log))
        .collect();
    let failed = node.round(items).failed;
    assert_eq!(
        failed.iter().map(|(group, _)| *group).collect::<Vec<_>>(),
        [8]
    );
    assert!(logs.iter().all(|log| log.data.load(Ordering::Relaxed) == 1));
}

#[test]
fn r3_the_incarnation_is_raised_at_each_start() {
    let mut node = Node::new(64 << 10);
    node.create(1, 0);
    assert_eq!(node.restart().incarnation, 2);
    let copy = node.disk.snapshot();
    assert_eq!(node.restart().incarnation, 3);
    node.create(2, 0);
    // A disk that was rolled back starts with an incarnation that its peers have seen.
    node.stop();
    node.disk.restore(&copy);
    assert_eq!(node.restart().incarnation, 3);
    // Only the identity is rolled back: the WAL knows better.
    let path = PathBuf::from("/data/node/identity");
    node.create(3, 0);
    node.stop();
    for offset in [20, 4096 + 20] {
        // The newer slot goes, the older one is of the start before.
        let before = node.disk.snapshot();
        assert!(node.disk.flip_bit(&path, offset, 0));
        node.power_cut();
        match node.start() {
            Ok(recovery) => assert_eq!(recovery.incarnation, 4),
            Err(error) => assert!(matches!(error, NodeError::Damaged { .. })),
        }
        node.stop();
        node.disk.restore(&before);
    }
}

#[test]
fn r2_the_clean_mark_counts_for_one_start() {
    let mut node = Node::new(64 << 10);
    node.create(1, 0);
    let flags = Flags {
        may_be_short: true,
        recovering: false,
    };
    node.round(vec![RoundItem {
        group: 1,
        flags: Some(flags),
        ..RoundItem::default()
    }]);
    node.store().close_clean().unwrap();
    let recovery = node.restart();
    assert!(!recovery.unclean_power_loss && recovery.groups[&1].may_be_short);
    let recovery = node.restart();
    assert!(recovery.unclean_power_loss);
}

#[test]
fn a_directory_is_held_by_one_process() {
    let mut node = Node::new(64 << 10);
    let boot = Boot {
        kernel_boot_id: "boot".into(),
        node_id: 1,
        new_directory_id: Uuid::from_u128(2),
        start_token: 0x5eed,
    };
    let open = |node_id| {
        let boot = Boot {
            node_id,
            ..boot.clone()
        };
        NodeStore::open(
            node.disk.shared(),
            Path::new("/data"),
            NodeConfig::default(),
            boot,
        )
    };
    assert!(matches!(open(1), Err(NodeError::Locked { .. })));
    node.store = None;
    assert!(matches!(
        open(2),
        Err(NodeError::OtherNode {
            stored: 1,
            given: 2
        })
    ));
}

#[test]
fn founding_can_be_stopped_anywhere() {
    for seed in 0..40 {
        let disk = MemDisk::new();
        let boot = Boot {
            kernel_boot_id: "boot".into(),
            node_id: 1,
            new_directory_id: Uuid::from_u128(7),
            start_token: 0x5eed,
        };
        let config = NodeConfig {
            wal_bytes: 64 << 10,
            flush_threads: 0,
            ..NodeConfig::default()
        };
        let operation = [
            Operation::Sync,
            Operation::SyncDir,
            Operation::Rename,
            Operation::Write,
        ][seed as usize % 4];
        let wal_only = seed % 3 == 0;
        disk.fail(operation, Times::Once, move |path| {
            !wal_only || path.to_string_lossy().contains("wal")
        });
        let open = || {
            NodeStore::open(
                disk.shared(),
                Path::new("/data"),
                config.clone(),
                boot.clone(),
            )
        };
        let first = open().map(|_| ());
        disk.clear_faults();
        disk.crash(seed, &CrashModel::RANDOM);
        let (_, recovery) = open().unwrap();
        // What was founded before the power went is there; else it is founded now.
        assert!(recovery.founded == first.is_err() || !recovery.founded);
    }
}

#[test]
fn a_dump_writes_nothing_and_names_the_damage() {
    let mut node = Node::new(64 << 10);
    let log = Arc::new(Counter::default());
    node.create(1, 0);
    node.round(vec![item(1, vec![data(1, 1, 40)], &log)]);
    node.round(vec![item(1, vec![data(2, 1, 40)], &log)]);
    node.stop();
    assert!(
        node.disk
            .flip_bit(Path::new(WAL), RING_OFFSET + 512 + 30, 2)
    );
    node.disk.crash(0, &CrashModel::KEEP_ALL);
    node.disk.fail(Operation::Write, Times::Always, |_| true);
    let items: Vec<DumpItem> = dump(&node.disk, Path::new(WAL))
        .unwrap()
        .into_iter()
        .collect();
    let damage = DumpItem::Damage {
        file_offset: RING_OFFSET + 512,
        bytes: 512,
    };
    assert!(items.contains(&damage));
    assert!(matches!(
        items.last(),
        Some(DumpItem::End { torn: false, .. })
    ));
}

#[test]
fn r13_a_checkpoint_says_how_far_the_sidecars_were_synced() {
    let mut node = Node::new(64 << 10);
    let (log, broken) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    node.create(1, 0);
    node.create(2, 0);
    node.round(vec![
        item(1, (1..=3).map(|index| data(index, 5, 100)).collect(), &log),
        item(
            2,
            (1..=3).map(|index| data(index, 5, 100)).collect(),
            &broken,
        ),
    ]);
    let synced = |node: &mut Node| {
        let recovery = node.restart();
        [1, 2].map(|group| recovery.groups[&group].sidecar_synced)
    };
    broken.fails.store(true, Ordering::Relaxed);
    let checkpoint = node.store().begin_checkpoint().unwrap();
    // What comes while it is under way is none of its syncs'.
    node.round(vec![item(1, vec![data(4, 5, 100)], &log)]);
    let result = checkpoint.sync();
    node.store().finish_checkpoint(&checkpoint, &result);
    node.round(Vec::new());
    node.round(Vec::new());
    assert_eq!(
        synced(&mut node),
        [3, 0],
        "a log that could not be synced has nothing"
    );
    // A cut lowers it, also one of which no checkpoint has heard.
    node.store().log_opened(1, 4);
    let mut cut = item(1, vec![data(3, 6, 100)], &log);
    cut.cut = Some(3);
    node.round(vec![cut]);
    assert_eq!(synced(&mut node), [2, 0]);
}
