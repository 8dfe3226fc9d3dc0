//! The node store against a model of what must and what may survive: random rounds of both shapes,
//! cuts, resets, checkpoints, poisoned logs, a tiny WAL with many laps, and crashes at every point.
//!
//! `RIVERRUN_SEEDS=from..to` runs other seeds.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_storage::disk::mem::{CrashModel, MemDisk, Operation, Times};
use riverrun_storage::node::{
    Boot, Checkpoint, Flags, NodeConfig, NodeError, NodeRecovery, NodeStore, RoundItem, SyncTarget,
};
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{
    EntryKind, FileTrust, HardState, LogEntry, LogIdentity, LogStart, StoredConf,
};
use uuid::Uuid;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A log as far as the node store is concerned: data survives a `sync_data`, everything a
/// `sync_full`, nothing else a loss of power.
#[derive(Debug, Default)]
struct FakeLog {
    files: Mutex<Files>,
}

#[derive(Debug, Default, Clone)]
struct Files {
    written: BTreeMap<u64, LogEntry>,
    durable: BTreeMap<u64, LogEntry>,
    fails: bool,
}

impl FakeLog {
    fn append(&self, entries: &[LogEntry]) {
        let mut files = self.files.lock();
        for entry in entries {
            files.written.insert(entry.index, entry.clone());
        }
    }
    fn cut(&self, first: u64) {
        let mut files = self.files.lock();
        files.written.split_off(&first);
        files.durable.split_off(&first);
    }
    fn lose_power(&self) {
        let mut files = self.files.lock();
        files.written = files.durable.clone();
    }
}

impl SyncTarget for FakeLog {
    fn sync_data(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        if files.fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        let data: Vec<LogEntry> = files
            .written
            .values()
            .filter(|entry| entry.kind == EntryKind::Data)
            .cloned()
            .collect();
        files
            .durable
            .extend(data.into_iter().map(|entry| (entry.index, entry)));
        Ok(())
    }
    fn sync_full(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        if files.fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        files.durable = files.written.clone();
        Ok(())
    }
}

/// What the store should know of a group.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    identity: LogIdentity,
    start: LogStart,
    hard_state: HardState,
    conf: StoredConf,
    flags: Flags,
    trust: FileTrust,
    cut: Option<u64>,
    /// All that was appended and not cut.
    entries: BTreeMap<u64, LogEntry>,
    /// What is acknowledged.
    durable: u64,
    /// What the stored durable index may not be below.
    floor: u64,
}

impl Group {
    fn last(&self) -> u64 {
        self.entries
            .keys()
            .next_back()
            .copied()
            .unwrap_or(self.start.prev_index)
    }
    fn cut_to(&mut self, first: u64) {
        self.entries.split_off(&first);
        self.durable = self.durable.min(first.saturating_sub(1));
        self.floor = self.floor.min(first.saturating_sub(1));
    }
    /// A flush of its files has failed (W8).
    fn distrust(&mut self, trust: FileTrust) {
        self.trust = self.trust.max(trust);
        self.flags.recovering |= self.flags.may_be_short;
    }
}

type Model = BTreeMap<u64, Group>;

struct World {
    rng: Rng,
    disk: MemDisk,
    store: Option<NodeStore>,
    boot: u64,
    incarnation: u64,
    /// As of the last round that ended.
    ended: Model,
    logs: BTreeMap<u64, Arc<FakeLog>>,
    /// Groups whose log is not open.
    fenced: BTreeSet<u64>,
    /// What the next round has to say of files a flush of which has failed.
    trust_due: BTreeMap<u64, FileTrust>,
    next_replica: u64,
    checkpoint: Option<Checkpoint>,
    rounds: u64,
    bulk: u64,
    crashes: u64,
    checkpoints: u64,
    poisoned: u64,
}

fn config() -> NodeConfig {
    NodeConfig {
        wal_bytes: 48 * 1024,
        flush_threads: 0,
        ..NodeConfig::default()
    }
}

const DATA: &str = "/data";

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: Rng(seed),
            disk: MemDisk::new(),
            store: None,
            boot: 1,
            incarnation: 0,
            ended: Model::new(),
            logs: BTreeMap::new(),
            fenced: BTreeSet::new(),
            trust_due: BTreeMap::new(),
            next_replica: 1,
            checkpoint: None,
            rounds: 0,
            bulk: 0,
            crashes: 0,
            checkpoints: 0,
            poisoned: 0,
        };
        let recovery = world.open();
        assert!(recovery.founded);
        world
    }

    fn open(&mut self) -> NodeRecovery {
        let boot = Boot {
            kernel_boot_id: format!("boot-{}", self.boot),
            node_id: 7,
            new_directory_id: Uuid::from_u128(99),
            start_token: 0x5eed,
        };
        let (store, recovery) =
            NodeStore::open(self.disk.shared(), Path::new(DATA), config(), boot).unwrap();
        self.store = Some(store);
        assert_eq!(recovery.incarnation, self.incarnation + 1);
        self.incarnation += 1;
        recovery
    }

    fn store(&self) -> &NodeStore {
        self.store.as_ref().unwrap()
    }

    fn payload(&mut self) -> Bytes {
        let len = match self.rng.below(20) {
            0 => 3000 + self.rng.below(9000),
            1..=4 => 500 + self.rng.below(1500),
            _ => 1 + self.rng.below(150),
        };
        let byte = self.rng.next() as u8;
        Bytes::from(vec![byte; len as usize])
    }

    fn entries(&mut self, group: &Group, count: u64) -> Vec<LogEntry> {
        let term = group.hard_state.term.max(1);
        (1..=count)
            .map(|step| {
                let kind = if self.rng.one_in(4) {
                    EntryKind::Noop
                } else {
                    EntryKind::Data
                };
                let payload = if kind == EntryKind::Data {
                    self.payload()
                } else {
                    Bytes::new()
                };
                LogEntry {
                    index: group.last() + step,
                    term,
                    kind,
                    base_offset: 0,
                    last_offset_delta: 0,
                    payload,
                }
            })
            .collect()
    }

    /// A random item, and the group as it is when the item is durable. Entries are in the log.
    fn item(&mut self, id: u64) -> Option<(RoundItem, Option<Group>)> {
        let mut item = RoundItem {
            group: id,
            ..RoundItem::default()
        };
        let Some(mut group) = self.ended.get(&id).cloned() else {
            let replica = self.next_replica;
            self.next_replica += 1;
            let identity = LogIdentity {
                group: id,
                replica,
                topic_id: Uuid::from_u128(5),
                partition: 3,
            };
            let group = Group {
                identity: identity.clone(),
                start: LogStart::default(),
                hard_state: HardState::default(),
                conf: StoredConf {
                    index: 0,
                    bytes: Bytes::from_static(b"voters"),
                },
                flags: Flags::default(),
                trust: FileTrust::Sound,
                cut: None,
                entries: BTreeMap::new(),
                durable: 0,
                floor: 0,
            };
            item.conf = Some(group.conf.clone());
            item.identity = Some((identity, group.start));
            self.logs.insert(id, Arc::new(FakeLog::default()));
            self.fenced.remove(&id);
            return Some((item, Some(group)));
        };
        if self.fenced.contains(&id) {
            return None;
        }
        let log = Arc::clone(&self.logs[&id]);
        item.log = Some(log.clone());
        if self.rng.one_in(60) {
            item.removed = true;
            return Some((item, None));
        }
        if let Some(first) = group.cut {
            // The round with the cut has ended: now the files are cut.
            log.cut(first);
            if self.rng.one_in(4) {
                return None;
            }
            item.cut_done = true;
            group.cut = None;
        }
        if self.rng.one_in(3) {
            group.hard_state.term += self.rng.below(2);
            group.hard_state.vote = self.rng.below(4);
            group.hard_state.commit = group.hard_state.commit.max(group.durable);
            item.hard_state = Some(group.hard_state);
        }
        if self.rng.one_in(20) {
            let len = 4 + self.rng.below(60);
            group.conf = StoredConf {
                index: group.last(),
                bytes: Bytes::from(vec![self.rng.next() as u8; len as usize]),
            };
            item.conf = Some(group.conf.clone());
        }
        if self.rng.one_in(30) {
            group.flags = Flags {
                may_be_short: self.rng.one_in(2),
                recovering: self.rng.one_in(2),
            };
            item.flags = Some(group.flags);
        }
        if self.rng.one_in(12) && item.cut_done == (self.rng.one_in(2) && item.cut_done) {
            // A cut above nothing, in the middle, or of everything.
            let first = group.start.prev_index + 1 + self.rng.below(group.last() + 1);
            group.cut_to(first.max(group.start.prev_index + 1));
            group.cut = Some(first);
            item.cut = Some(first);
            item.durable_through = 0;
            return Some((item, Some(group)));
        }
        if self.rng.one_in(40) && !item.cut_done {
            let prev_index = group.last() + self.rng.below(20);
            group.start = LogStart {
                prev_index,
                prev_term: 1,
                offset: 77,
            };
            group.entries.clear();
            group.durable = prev_index;
            group.floor = prev_index;
            group.cut = Some(0);
            item.identity = Some((group.identity.clone(), group.start));
            return Some((item, Some(group)));
        }
        let count = self.rng.below(4);
        let entries = self.entries(&group, count);
        log.append(&entries);
        for entry in &entries {
            // Appended, so it may survive though the round does not end.
            group.entries.insert(entry.index, entry.clone());
        }
        let ended = self.ended.get_mut(&id).unwrap();
        // A boot that repeats an unfinished cut takes what lies at or above it.
        let first = ended.cut.unwrap_or(u64::MAX);
        let below = entries.iter().filter(|entry| entry.index < first);
        ended
            .entries
            .extend(below.map(|entry| (entry.index, entry.clone())));
        if self.rng.one_in(6) {
            // Entries that stay in the files for now, or are flushed from there.
            if self.rng.one_in(2) {
                item.durable_through = group.last();
                group.durable = group.last();
            }
            // What is not data is always given.
            item.entries = Vec::new();
            let non_data: Vec<LogEntry> = entries
                .iter()
                .filter(|entry| entry.kind != EntryKind::Data)
                .cloned()
                .collect();
            if non_data.len() == 1 {
                item.entries = non_data;
            } else if !non_data.is_empty() {
                item.entries = entries;
            }
            // A flush from the files makes data durable only.
            if !item.entries.is_empty() || self.pending_non_data(&group) {
                item.entries = self.above_durable(id, &group);
                item.durable_through = group.last();
                group.durable = group.last();
            }
        } else {
            item.entries = self.above_durable(id, &group);
            item.durable_through = group.last();
            group.durable = group.last();
        }
        Some((item, Some(group)))
    }

    /// Everything above what is durable, as a group brings it that has held nothing back.
    fn above_durable(&self, id: u64, group: &Group) -> Vec<LogEntry> {
        let durable = self.ended[&id].durable.min(group.last());
        group
            .entries
            .range(durable + 1..)
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    fn pending_non_data(&self, group: &Group) -> bool {
        let durable = self.ended[&group.identity.group].durable;
        group
            .entries
            .range(durable + 1..)
            .any(|(_, entry)| entry.kind != EntryKind::Data)
    }

    /// One step: a round, perhaps a part of a checkpoint, perhaps a crash in the midst of it.
    fn step(&mut self) {
        if self.checkpoint.is_none() && (self.store().needs_checkpoint() || self.rng.one_in(100)) {
            self.checkpoint = self.store().begin_checkpoint();
        } else if self.rng.one_in(3)
            && let Some(checkpoint) = self.checkpoint.take()
        {
            let result = checkpoint.sync();
            for (group, _) in &result.failed {
                self.failed(*group);
            }
            self.store().finish_checkpoint(&checkpoint, &result);
            self.checkpoints += 1;
        }
        if self.rng.one_in(150) {
            // A log begins to fail.
            let id = self.rng.below(6);
            if let Some(log) = self.logs.get(&id) {
                log.files.lock().fails = true;
            }
        }
        let mut next = self.ended.clone();
        let mut items = Vec::new();
        if !(self.store().needs_idle_round() && self.rng.one_in(2)) {
            for id in 0..6 {
                if !self.rng.one_in(3) {
                    continue;
                }
                let Some((item, group)) = self.item(id) else {
                    continue;
                };
                match group {
                    Some(group) => next.insert(id, group),
                    None => next.remove(&id),
                };
                items.push(item);
            }
        }
        for (id, group) in &mut next {
            if let Some(before) = self.ended.get(id)
                && before.identity == group.identity
                && before.start == group.start
                // The store was not told how far a log that did not open is durable.
                && !self.fenced.contains(id)
            {
                group.floor = before.durable.min(group.durable);
            }
        }
        let wal_fails = self.rng.one_in(300);
        if wal_fails {
            self.disk.fail(Operation::Sync, Times::Once, |path| {
                path.ends_with("node/wal")
            });
        }
        let round = match self.store().begin_round(items) {
            Ok(round) => round,
            // Making room has failed.
            Err(NodeError::WalFailed(_)) if wal_fails => return self.crash(None),
            Err(error) => panic!("{error}"),
        };
        // Those of a checkpoint that made room.
        for (group, _) in self.store().take_failed_logs() {
            self.failed(group);
        }
        for (id, trust) in std::mem::take(&mut self.trust_due) {
            if let (Some(group), Some(before)) = (next.get_mut(&id), self.ended.get(&id))
                && group.identity == before.identity
            {
                group.distrust(trust);
            }
        }
        self.rounds += 1;
        self.bulk += u64::from(round.is_bulk());
        if self.rng.one_in(25) {
            drop(round);
            return self.crash(Some(next));
        }
        let result = match round.sync() {
            Ok(result) => result,
            Err(_) => {
                assert!(wal_fails);
                drop(round);
                return self.crash(Some(next));
            }
        };
        for (id, _) in &result.failed {
            self.failed(*id);
            let before = self.ended[id].durable;
            let group = next.get_mut(id).unwrap();
            group.durable = group.durable.min(before);
        }
        let late = self.rng.one_in(25);
        if !late {
            self.store().end_round(round, &result).unwrap();
        }
        self.logs.retain(|id, _| next.contains_key(id));
        self.ended = next;
        self.disk.clear_faults();
        if late || self.rng.one_in(60) {
            self.crash(None);
        }
    }

    fn failed(&mut self, group: u64) {
        self.fenced.insert(group);
        self.trust_due.insert(group, FileTrust::Poisoned);
    }

    /// Stops the process, with or without the power, and starts it again.
    fn crash(&mut self, in_flight: Option<Model>) {
        self.disk.clear_faults();
        self.checkpoint = None;
        self.store = None;
        self.trust_due.clear();
        self.crashes += 1;
        if !self.rng.one_in(4) {
            let model = match self.rng.below(4) {
                0 => CrashModel::LOSE_ALL,
                1 => CrashModel::KEEP_ALL,
                _ => CrashModel::RANDOM,
            };
            self.disk.crash(self.rng.next(), &model);
            self.boot += 1;
            for log in self.logs.values() {
                log.lose_power();
            }
        }
        let recovery = self.open();
        assert_eq!(recovery.damage, None);
        let found = match &in_flight {
            // A round is there whole or not at all. Where both would look the same, less is asked.
            Some(next)
                if self.matches(next, &recovery) && !self.matches(&self.ended, &recovery) =>
            {
                next.clone()
            }
            _ => {
                assert!(
                    self.matches(&self.ended, &recovery),
                    "{}",
                    self.difference(&recovery)
                );
                self.ended.clone()
            }
        };
        let before = std::mem::replace(&mut self.ended, found);
        let reports: Vec<_> = recovery.groups.values().cloned().collect();
        self.fenced.clear();
        for record in reports {
            let id = record.identity.group;
            let log = self.logs.entry(id).or_default().clone();
            if before
                .get(&id)
                .is_none_or(|group| group.identity != record.identity)
            {
                *log.files.lock() = Files::default();
            }
            if let Some(first) = record.unfinished_cut {
                log.cut(first);
            }
            let group = self.ended.get_mut(&id).unwrap();
            let mut all = log.files.lock().written.clone();
            if record.trust == FileTrust::Poisoned {
                // What the files seem to hold beyond that is lost, whatever the cache says.
                all.split_off(&(record.durable_index + 1));
                self.poisoned += 1;
            }
            for entry in &record.entries {
                let known = all.insert(entry.index, entry.clone());
                assert!(
                    known.as_ref().is_none_or(|known| known == entry),
                    "the files and the WAL disagree on {}",
                    entry.index
                );
                assert!(
                    group.entries.get(&entry.index) == Some(entry),
                    "group {id}: entry {} is another",
                    entry.index
                );
            }
            let must = match before.get(&id) {
                Some(before)
                    if before.identity == group.identity && before.start == group.start =>
                {
                    before.durable.min(group.durable)
                }
                _ => group.start.prev_index,
            };
            for index in group.start.prev_index + 1..=must.max(record.durable_index) {
                assert!(
                    all.contains_key(&index),
                    "group {id}: entry {index} is gone, acknowledged {must}, stored {}",
                    record.durable_index
                );
                assert!(
                    all.get(&index) == group.entries.get(&index),
                    "group {id}: another entry at {index}"
                );
            }
            assert!(
                record.durable_index >= group.floor.min(must),
                "group {id}: stored {} below {}",
                record.durable_index,
                group.floor
            );
            if self.rng.one_in(8) {
                // Its recovery fails: the log stays closed until the next start.
                self.fenced.insert(id);
                group.durable = must.max(record.durable_index);
                group.floor = record.durable_index;
                if self.rng.one_in(2) {
                    self.store.as_ref().unwrap().suspect(id);
                    if group.trust < FileTrust::Suspect {
                        self.trust_due.insert(id, FileTrust::Suspect);
                    }
                }
                continue;
            }
            // The log's recovery: what is there without a gap, synced.
            let mut last = group.start.prev_index;
            while all.contains_key(&(last + 1)) {
                last += 1;
            }
            all.split_off(&(last + 1));
            *log.files.lock() = Files {
                written: all.clone(),
                durable: all.clone(),
                fails: false,
            };
            group.durable = last;
            group.floor = record.durable_index;
            self.store.as_ref().unwrap().log_opened(id, last);
        }
        self.settle();
    }

    /// What a start does before anything is appended; it may be stopped in the midst of it.
    fn settle(&mut self) {
        let mut next = self.ended.clone();
        for (id, group) in next.iter_mut().filter(|(id, _)| !self.fenced.contains(id)) {
            group.cut = None;
            group.trust = FileTrust::Sound;
            group.floor = self.ended[id].durable;
            // What the logs' recovery has cut may show in the WAL until the first round.
            group.entries.split_off(&(group.durable + 1));
        }
        for (id, trust) in std::mem::take(&mut self.trust_due) {
            next.get_mut(&id).unwrap().distrust(trust);
        }
        while self.store().needs_idle_round() {
            if self.rng.one_in(10) {
                let round = self.store().begin_round(Vec::new()).unwrap();
                drop(round);
                return self.crash(Some(next));
            }
            self.store().idle_round().unwrap();
            self.ended = next.clone();
        }
        self.ended = next;
    }

    fn matches(&self, model: &Model, recovery: &NodeRecovery) -> bool {
        model.len() == recovery.groups.len()
            && model
                .iter()
                .zip(&recovery.groups)
                .all(|((id, group), (found, record))| {
                    id == found
                        && group.identity == record.identity
                        && group.start == record.start
                        && group.hard_state == record.hard_state
                        && group.conf == record.conf
                        && group.flags.may_be_short == record.may_be_short
                        && group.flags.recovering == record.recovering
                        && group.trust == record.trust
                        && group.cut == record.unfinished_cut
                })
    }

    fn difference(&self, recovery: &NodeRecovery) -> String {
        format!("expected {:#?}\nfound {:#?}", self.ended, recovery.groups)
    }
}

fn run(seed: u64, steps: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.crash(None);
    world
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("RIVERRUN_SEEDS") else {
        return 1..60;
    };
    let (from, to) = text.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn survives_what_the_model_says() {
    let (mut rounds, mut bulk, mut crashes, mut checkpoints, mut poisoned) = (0, 0, 0, 0, 0);
    for seed in seeds() {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, 400)));
        let world = outcome.unwrap_or_else(|panic| {
            println!("seed {seed}");
            std::panic::resume_unwind(panic)
        });
        rounds += world.rounds;
        bulk += world.bulk;
        crashes += world.crashes;
        checkpoints += world.checkpoints;
        poisoned += world.poisoned;
    }
    println!(
        "{rounds} rounds, {bulk} of them bulk, {checkpoints} checkpoints, {crashes} crashes, \
         {poisoned} poisoned logs"
    );
    assert!(
        bulk > 100 && checkpoints > 100 && crashes > 100 && poisoned > 30
            || std::env::var("RIVERRUN_SEEDS").is_ok()
    );
}

fn finds(bug: Bug) {
    planted::set(bug, true);
    std::panic::set_hook(Box::new(|_| {}));
    let found = (1..200).find(|seed| catch_unwind(|| run(*seed, 400)).is_err());
    planted::clear();
    let _ = std::panic::take_hook();
    println!("{}: found by seed {found:?}", bug.name());
    assert!(found.is_some(), "{} was not found", bug.name());
}

#[test]
fn finds_the_planted_bugs() {
    for bug in [Bug::W1, Bug::W2, Bug::ForgetVote] {
        finds(bug);
    }
}
