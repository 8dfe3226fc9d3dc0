//! A log, its share of the node WAL and a disk that loses power, at random.
//!
//! The WAL is a model here: a list that a round makes durable at once, or not at all.

use crate::disk::MemDisk;
use crate::disk::mem::{CrashModel, Operation, Times};
use crate::entry::{EntryKind, LogEntry};
use crate::log::{Log, LogConfig};
use crate::recovered::{GroupRecord, LogStart, StoredConf};

use super::harness::{Maker, all, create_with, dir, record};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct World {
    disk: MemDisk,
    log: Log,
    start: LogStart,
    birth: LogStart,
    /// What was appended.
    model: Vec<LogEntry>,
    /// Entries up to here were made durable in one way or the other.
    durable: u64,
    /// What the WAL says of that: at most one round behind.
    stored_durable: u64,
    wal: Vec<LogEntry>,
    /// A cut that has no cut-done yet.
    unfinished_cut: Option<u64>,
    /// The last entry that a round has covered.
    flushed: u64,
    term: u64,
    config: LogConfig,
}

impl World {
    fn new(config: LogConfig) -> Self {
        let start = LogStart {
            prev_index: 2,
            prev_term: 1,
            offset: 10,
        };
        let disk = MemDisk::new();
        let log = create_with(&disk, start, config.clone());
        Self {
            disk,
            log,
            start,
            birth: start,
            model: Vec::new(),
            durable: 2,
            stored_durable: 2,
            wal: Vec::new(),
            unfinished_cut: None,
            flushed: 2,
            term: 2,
            config,
        }
    }

    fn last(&self) -> u64 {
        self.start.prev_index + self.model.len() as u64
    }

    fn append(&mut self, random: &mut Random) {
        let mut make = Maker::after(&self.model, self.start);
        for _ in 0..=random.below(5) {
            let entry = if make.term < self.term {
                make.term = self.term - 1;
                make.noop()
            } else {
                match random.below(10) {
                    0 => make.conf("conf"),
                    1 => make.command("command"),
                    n => make.data(1 + n as usize % 3, random.below(700) as usize),
                }
            };
            // I4: no data behind a non-data entry that is not durable.
            let open = self
                .model
                .iter()
                .rev()
                .take_while(|e| e.index > self.flushed);
            let blocked = open.into_iter().any(|e| e.kind != EntryKind::Data);
            if blocked && entry.kind == EntryKind::Data {
                self.round(random, None);
            }
            self.log.append(std::slice::from_ref(&entry)).unwrap();
            self.model.push(entry);
        }
    }

    /// A flush round; with `torn` the power goes within it.
    fn round(&mut self, random: &mut Random, torn: Option<u64>) {
        let small = random.below(2) == 0;
        let wal_is_durable = torn.is_none_or(|torn| torn % 2 == 0);
        let fresh = self.model.iter().filter(|entry| entry.index > self.flushed);
        let fresh: Vec<_> = fresh
            .filter(|entry| small || entry.kind != EntryKind::Data)
            .cloned()
            .collect();
        if wal_is_durable {
            self.wal.extend(fresh);
            self.stored_durable = self.stored_durable.max(self.durable);
            if self.unfinished_cut.is_some() {
                self.unfinished_cut = None;
            }
            if small {
                self.durable = self.last();
            }
        }
        if torn.is_some() {
            return;
        }
        if !small {
            self.log.sync_handle().sync().unwrap();
            self.durable = self.last();
        }
        self.flushed = self.last();
    }

    fn checkpoint(&mut self) {
        self.log.sync_handle().sync_all().unwrap();
        let durable = self.flushed;
        self.wal.retain(|entry| entry.index > durable);
    }

    fn cut(&mut self, random: &mut Random, fails: bool) {
        let at = self.start.prev_index + 1 + random.below(self.model.len() as u64 + 1);
        self.wal.retain(|entry| entry.index < at);
        self.durable = self.durable.min(at - 1);
        self.stored_durable = self.stored_durable.min(at - 1);
        self.flushed = self.flushed.min(at - 1);
        self.unfinished_cut = Some(at);
        self.term += 1;
        self.model
            .truncate((at - 1 - self.start.prev_index) as usize);
        if fails {
            let operation = [
                Operation::Sync,
                Operation::SetLen,
                Operation::SyncDir,
                Operation::Rename,
            ];
            let nth = random.below(4);
            self.disk.fail(
                operation[random.below(4) as usize],
                Times::Once,
                move |path| {
                    path.to_str()
                        .is_some_and(|path| path.len() as u64 % 4 == nth)
                },
            );
        }
        let _ = self.log.truncate_from(at);
        self.disk.clear_faults();
    }

    fn record(&self) -> GroupRecord {
        let mut known = record(self.birth);
        known.durable_index = self.stored_durable;
        known.unfinished_cut = self.unfinished_cut;
        known.entries.clone_from(&self.wal);
        known
    }

    /// Opens the log again and holds it against what was written.
    fn reopen(&mut self, what: &str) {
        let (log, recovery) = Log::open(
            self.disk.shared(),
            &dir(),
            &self.record(),
            self.config.clone(),
        )
        .unwrap_or_else(|error| panic!("{what}: {error}"));
        self.log = log;
        let got = all(&self.log);
        assert!(
            self.model.starts_with(&got),
            "{what}: not a prefix of what was written"
        );
        assert!(
            self.log.last_index() >= self.durable,
            "{what}: what was durable is lost"
        );
        assert_eq!(self.log.start(), self.start, "{what}");
        self.model.truncate(got.len());
        if let Some(cut) = recovery.cut_at {
            assert_eq!(cut, self.last() + 1);
            self.wal.retain(|entry| entry.index < cut);
        }
        self.unfinished_cut = None;
        (self.durable, self.flushed) = (self.last(), self.last());
        // Another leader comes, or the same one begins a new term.
        self.term = self.term.max(self.log.last_term()) + 1;
        let indexes: u64 = self.model.iter().filter(|e| e.kind.moves_offset()).count() as u64;
        assert!(indexes <= self.last());
    }
}

fn run(seed: u64, config: LogConfig) {
    let mut random = Random(seed);
    let mut world = World::new(config);
    for step in 0..60 {
        let what = format!("seed {seed} step {step}");
        let op = random.below(20);
        match op {
            0..8 => world.append(&mut random),
            8..12 => world.round(&mut random, None),
            12 => world.checkpoint(),
            13 => world.cut(&mut random, false),
            14 => {
                let keep = world.start.prev_index
                    + random.below(world.durable.saturating_sub(world.start.prev_index) + 1);
                let start = world.log.drop_head(keep, &StoredConf::default()).unwrap();
                world
                    .model
                    .drain(..(start.prev_index - world.start.prev_index) as usize);
                world.start = start;
            }
            15 => {
                // Only the process goes.
                world.reopen(&what);
            }
            16 => {
                let torn = Some(random.below(2));
                world.round(&mut random, torn);
                world.disk.crash(random.below(1 << 30), &CrashModel::RANDOM);
                world.reopen(&what);
            }
            17 => {
                world.cut(&mut random, true);
                world.disk.crash(random.below(1 << 30), &CrashModel::RANDOM);
                world.reopen(&what);
            }
            _ => {
                world.append(&mut random);
                let model = match random.below(4) {
                    0 => CrashModel::LOSE_ALL,
                    1 => CrashModel::KEEP_ALL,
                    _ => CrashModel::RANDOM,
                };
                world.disk.crash(random.below(1 << 30), &model);
                world.reopen(&what);
                if random.below(3) == 0 {
                    // And again, before anything was written.
                    world
                        .disk
                        .crash(random.below(1 << 30), &CrashModel::LOSE_ALL);
                    world.reopen(&what);
                }
            }
        }
    }
}

#[test]
fn what_was_made_durable_survives_and_the_rest_is_a_prefix() {
    let seeds: u64 = std::env::var("RIVERRUN_LOG_SEEDS")
        .ok()
        .map_or(400, |n| n.parse().unwrap());
    for seed in 0..seeds {
        run(seed, LogConfig::tiny());
    }
}

#[test]
fn the_same_holds_where_durable_segments_are_not_read_again() {
    for seed in 0..400 {
        run(
            seed,
            LogConfig {
                scrub_on_open: false,
                segment_bytes: 1500,
                ..LogConfig::tiny()
            },
        );
    }
}
