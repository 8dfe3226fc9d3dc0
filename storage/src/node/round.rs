//! Flush rounds: what goes in, which shape it takes, and what is known when it has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::checkpoint::Phase;
use super::error::{NodeError, WalFailed};
use super::store::{Core, NodeStore, OpenedLog, Shared};
use super::target::SyncTarget;
use super::wal::record::{RECORD_HEADER_BYTES, STATE_BODY_BYTES};
use super::wal::ring::{Outgoing, align_up};
use super::wal::{Flags, RecordBody};
use crate::disk::DiskFile;
use crate::entry::{EntryKind, LogEntry};
use crate::planted::{self, Bug};
use crate::recovered::{HardState, LogIdentity, LogStart, StoredConf};

/// What one group wants durable. Its entries have been appended to its log before; several items of
/// one group in a round are not allowed.
#[derive(Debug, Clone, Default)]
pub struct RoundItem {
    /// The group.
    pub group: u64,
    /// A replica that comes to be; or, where it is there already, a new start behind a snapshot. The
    /// latter acts as a cut of everything and wants a `cut_done` like one.
    pub identity: Option<(LogIdentity, LogStart)>,
    /// The replica is no more.
    pub removed: bool,
    /// A changed hard state.
    pub hard_state: Option<HardState>,
    /// A changed configuration.
    pub conf: Option<StoredConf>,
    /// Entries in index order without a gap. Those that are not data always go into the WAL; data
    /// goes there in a small round only.
    pub entries: Vec<LogEntry>,
    /// The first index that is dropped: the files are cut when this round has ended (W2).
    pub cut: Option<u64>,
    /// The files have been cut. Together with `cut` it speaks of the cut before.
    pub cut_done: bool,
    /// Changed flags.
    pub flags: Option<Flags>,
    /// The log, to be synced in a bulk round and by checkpoints.
    pub log: Option<Arc<dyn SyncTarget>>,
    /// The index up to which the log is to be durable when the round has ended.
    pub durable_through: u64,
}

/// A round that has been written and not yet synced.
#[derive(Debug)]
pub struct Round {
    number: u64,
    records: Vec<Outgoing>,
    syncs: Vec<FileSync>,
    pub(super) with_states: bool,
    pub(super) with_mark: Option<super::wal::Mark>,
    pub(super) sides: Vec<(u64, u64)>,
    wal: Arc<dyn DiskFile>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct FileSync {
    group: u64,
    log: Arc<dyn SyncTarget>,
    durable_through: u64,
}

/// What the disk said to a round. The WAL part is durable.
#[derive(Debug, Default)]
pub struct RoundResult {
    /// Groups whose files could not be synced: their logs are poisoned (I10), nothing of their data
    /// in this round counts. What they had in the WAL does.
    pub failed: Vec<(u64, io::Error)>,
}

impl Round {
    /// The round's number, over all of the directory's life.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether files of logs are synced beside the WAL.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        !self.syncs.is_empty()
    }

    /// Waits until the WAL and, in a bulk round, the logs' files are on the disk.
    pub fn sync(&self) -> Result<RoundResult, WalFailed> {
        let config = &self.shared.config;
        let pool = &self.shared.pool;
        let results = if self.syncs.len() > config.pool_files {
            let results = self.sync_file_system();
            self.sync_wal()?;
            results
        } else if self.syncs.len() > config.inline_files && pool.is_threaded() {
            let logs = self.syncs.iter().map(|sync| Arc::clone(&sync.log));
            let pending = pool.start(logs, |log| log.sync_data());
            let wal = self.sync_wal();
            let results = pending.wait();
            wal?;
            results
        } else {
            let results = self.syncs.iter().map(|sync| sync.log.sync_data()).collect();
            self.sync_wal()?;
            results
        };
        let failed = self
            .syncs
            .iter()
            .zip(results)
            .filter_map(|(sync, result)| result.err().map(|error| (sync.group, error)));
        Ok(RoundResult {
            failed: failed.collect(),
        })
    }

    fn sync_wal(&self) -> Result<(), WalFailed> {
        if planted::is(Bug::W1) && self.is_bulk() {
            return Ok(());
        }
        self.wal.sync_data().map_err(|source| WalFailed { source })
    }

    /// One sync of the whole file system for many logs; what each of them had written before it is
    /// covered.
    fn sync_file_system(&self) -> Vec<io::Result<()>> {
        let marks: Vec<u64> = self
            .syncs
            .iter()
            .map(|sync| sync.log.written_mark())
            .collect();
        match self.shared.disk.sync_all(&self.shared.data_dir) {
            Ok(()) => self
                .syncs
                .iter()
                .zip(marks)
                .map(|(sync, mark)| sync.log.synced_through(mark))
                .collect(),
            Err(error) => {
                // Nobody knows whose pages were lost, so all of them count as lost (I10).
                self.syncs
                    .iter()
                    .map(|sync| {
                        sync.log.sync_failed();
                        Err(io::Error::new(error.kind(), error.to_string()))
                    })
                    .collect()
            }
        }
    }
}

/// How the data of an item becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// There is none, or it is durable already.
    None,
    /// Through the WAL.
    Wal,
    /// By a sync of the log's files.
    Files,
}

impl NodeStore {
    /// Begins a round: writes its WAL part and decides its shape. Cheap unless the ring is full;
    /// then room is made first, which waits for the disk.
    pub fn begin_round(&self, items: Vec<RoundItem>) -> Result<Round, NodeError> {
        let mut core = self.core();
        core.check(0)?;
        core.validate(&items)?;
        let ways = core.ways(&items, &self.shared)?;
        let growth = growth(&items);
        let mut records = core.records(&items, &ways);
        let mut chosen = ways.clone();
        if !core.fits(&records, growth) {
            // Data never has to go through the WAL.
            let without: Vec<Way> = items
                .iter()
                .zip(&ways)
                .map(|(item, way)| match way {
                    Way::Wal if item.log.is_some() => Way::Files,
                    other => *other,
                })
                .collect();
            let fewer = core.records(&items, &without);
            if core.fits(&fewer, growth) {
                (records, chosen) = (fewer, without);
            } else {
                core.make_room(&self.shared)?;
                records = core.records(&items, &ways);
                if !core.fits(&records, growth) {
                    (records, chosen) = (core.records(&items, &without), without);
                }
                if !core.fits(&records, growth) {
                    let capacity = core.ring.geometry.capacity;
                    let needed = bytes_of(&records) + core.reserve(growth);
                    return Err(NodeError::WalTooSmall { capacity, needed });
                }
            }
        }
        core.start(&self.shared, items, &chosen, records)
    }

    /// Takes note of a round that was synced.
    pub fn end_round(&self, round: Round, result: &RoundResult) -> Result<(), NodeError> {
        let mut core = self.core();
        let failed: BTreeSet<u64> = result.failed.iter().map(|(group, _)| *group).collect();
        for group in &failed {
            if let Some(log) = core.dirty.get_mut(group) {
                *log = None;
            }
        }
        let mut touched = BTreeSet::new();
        for sync in round
            .syncs
            .iter()
            .filter(|sync| !failed.contains(&sync.group))
        {
            if let Some(state) = core.image.groups.get_mut(&sync.group) {
                state.reached = state.reached.max(sync.durable_through);
                touched.insert(sync.group);
            }
        }
        core.take_effect(&round.records, &mut touched)?;
        for group in touched {
            match core.image.groups.get(&group) {
                Some(state) if state.reached > state.durable_index => core.lagging.insert(group),
                _ => core.lagging.remove(&group),
            };
        }
        core.in_round = false;
        core.checkpoint_round_ended(&self.shared, &round)
    }

    /// Whether an empty round is wanted: the durable indexes of a bulk round (W1) or what the
    /// recovery of logs has done are not stored yet, or a checkpoint waits for its next step.
    #[must_use]
    pub fn needs_idle_round(&self) -> bool {
        let core = self.core();
        !core.lagging.is_empty()
            || !core.opened.is_empty()
            || matches!(core.phase, Phase::StateDue { .. } | Phase::MarkDue(_))
    }

    /// An empty round from beginning to end; waits for the disk.
    pub fn idle_round(&self) -> Result<(), NodeError> {
        let round = self.begin_round(Vec::new())?;
        match round.sync() {
            Ok(result) => self.end_round(round, &result),
            Err(failed) => Err(self.core().wal_failed(failed.source)),
        }
    }
}

impl Core {
    fn validate(&self, items: &[RoundItem]) -> Result<(), NodeError> {
        let mut seen = BTreeSet::new();
        for item in items {
            let group = item.group;
            let misuse = |what| Err(NodeError::Misuse { group, what });
            if !seen.insert(group) {
                return misuse("it is twice in one round");
            }
            if let Some((identity, _)) = &item.identity {
                if identity.group != group {
                    return misuse("the identity is that of another group");
                }
            } else if !self.image.groups.contains_key(&group) {
                return Err(NodeError::UnknownGroup { group });
            }
            let dense = item.entries.windows(2).all(|pair| match pair {
                [first, second] => first.index + 1 == second.index,
                _ => true,
            });
            if !dense {
                return misuse("its entries are not dense");
            }
        }
        Ok(())
    }

    /// The index up to which the item's log is durable before the round.
    fn reached_before(&self, item: &RoundItem) -> u64 {
        match &item.identity {
            Some((_, start)) => start.prev_index,
            None => self
                .image
                .groups
                .get(&item.group)
                .map_or(0, |state| state.reached),
        }
    }

    fn ways(&self, items: &[RoundItem], shared: &Shared) -> Result<Vec<Way>, NodeError> {
        let config = &shared.config;
        // A ring is not there for a few great rounds.
        let small_max = config
            .small_round_max_bytes
            .min(self.ring.geometry.capacity / 8);
        let many_max = config
            .many_files_max_bytes
            .min(self.ring.geometry.capacity / 8);
        let mut files = 0;
        let mut bytes = 0;
        let wants: Vec<Option<u64>> = items
            .iter()
            .map(|item| {
                let reached = self.reached_before(item);
                if item.durable_through <= reached {
                    return None;
                }
                files += usize::from(item.log.is_some());
                let covered = item
                    .entries
                    .first()
                    .is_some_and(|entry| entry.index <= reached + 1)
                    && item
                        .entries
                        .last()
                        .is_some_and(|entry| entry.index >= item.durable_through);
                let data = data_bytes(item);
                if covered {
                    bytes += data;
                }
                // What the item does not bring lies in the files only, and can but be synced there.
                Some(if covered { data } else { u64::MAX })
            })
            .collect();
        let small = bytes <= small_max || (files >= config.many_files && bytes <= many_max);
        items
            .iter()
            .zip(wants)
            .map(|(item, want)| match want {
                None => Ok(Way::None),
                Some(u64::MAX) if item.log.is_some() => Ok(Way::Files),
                Some(u64::MAX) => Err(NodeError::Misuse {
                    group: item.group,
                    what: "what is to be durable is neither in the item nor in a log of it",
                }),
                Some(_) if item.log.is_none() => Ok(Way::Wal),
                // Without data there is nothing to choose: the WAL has it all.
                Some(0) => Ok(Way::Wal),
                Some(data) if small && data <= small_max => Ok(Way::Wal),
                Some(_) => Ok(Way::Files),
            })
            .collect()
    }

    /// The records of a round with these items.
    fn records(&self, items: &[RoundItem], ways: &[Way]) -> Vec<Outgoing> {
        let mut out = Records {
            core: self,
            sequences: BTreeMap::new(),
            records: Vec::new(),
        };
        if matches!(self.phase, Phase::StateDue { .. }) {
            out.states();
        } else {
            for group in &self.lagging {
                if let Some(state) = self.image.groups.get(group) {
                    out.push(*group, RecordBody::Durable(state.reached));
                }
            }
        }
        for (group, opened) in &self.opened {
            out.opened(*group, *opened);
        }
        for (item, way) in items.iter().zip(ways) {
            out.item(item, *way);
        }
        if out.records.is_empty() {
            out.nothing();
        }
        out.records
    }

    /// What must stay free: a state of every group, and the round that moves the mark behind it.
    fn reserve(&self, growth: u64) -> u64 {
        align_up(self.state_bytes + growth) + 4 * super::wal::ring::ROUND_ALIGN_BYTES
    }

    fn fits(&self, records: &[Outgoing], growth: u64) -> bool {
        let reserve = self.reserve(growth);
        // A quarter of the ring for the states leaves room for what the ring is there for.
        (growth == 0 || reserve <= self.ring.geometry.capacity / 4)
            && bytes_of(records) + reserve <= self.ring.free()
    }

    fn start(
        &mut self,
        shared: &Arc<Shared>,
        items: Vec<RoundItem>,
        ways: &[Way],
        mut records: Vec<Outgoing>,
    ) -> Result<Round, NodeError> {
        let with_states = matches!(self.phase, Phase::StateDue { .. });
        let sides = self.write_due_sides(shared, &mut records)?;
        let number = self.ring.tail.round;
        self.ring
            .write_round(&records)
            .map_err(|error| self.wal_failed(error))?;
        let with_mark = match &self.phase {
            Phase::MarkDue(due) => {
                let written = self.ring.write_mark(due.point, due.must_reach);
                Some(written.map_err(|error| self.wal_failed(error))?)
            }
            _ => None,
        };
        let mut syncs = Vec::new();
        for (item, way) in items.into_iter().zip(ways) {
            let RoundItem {
                group,
                log,
                entries,
                cut,
                durable_through,
                removed,
                ..
            } = item;
            if removed {
                self.dirty.remove(&group);
                continue;
            }
            // While a side file counts, every change to its entries has to go into it, until the
            // log has been opened anew.
            let fenced = self
                .image
                .groups
                .get(&group)
                .is_some_and(|state| state.side_file != 0);
            if fenced && (!entries.is_empty() || cut.is_some()) {
                self.dirty.insert(group, None);
            } else if !entries.is_empty() {
                self.dirty.insert(group, log.clone());
            }
            if let (Way::Files, Some(log)) = (way, log) {
                syncs.push(FileSync {
                    group,
                    log,
                    durable_through,
                });
            }
        }
        self.opened.clear();
        self.in_round = true;
        Ok(Round {
            number,
            records,
            syncs,
            with_states,
            with_mark,
            sides,
            wal: Arc::clone(&self.ring.file),
            shared: Arc::clone(shared),
        })
    }

    /// Carries out the records of a durable round.
    pub(super) fn take_effect(
        &mut self,
        records: &[Outgoing],
        touched: &mut BTreeSet<u64>,
    ) -> Result<(), NodeError> {
        for record in records {
            let bytes = |core: &Self| {
                core.image
                    .groups
                    .get(&record.group)
                    .map_or(0, super::image::GroupState::state_bytes)
            };
            let before = bytes(self);
            let (group, replica, sequence) = (record.group, record.replica, record.sequence);
            self.image
                .apply(group, replica, sequence, &record.body, None)?;
            self.state_bytes = self.state_bytes + bytes(self) - before;
            touched.insert(record.group);
            self.noted_in_wal(record.group, &record.body);
        }
        // Only a start asks for them.
        self.image.removed.clear();
        Ok(())
    }

    /// The state records of all groups, as a checkpoint writes them.
    pub(super) fn state_records(&self) -> Vec<Outgoing> {
        let mut out = Records {
            core: self,
            sequences: BTreeMap::new(),
            records: Vec::new(),
        };
        out.states();
        if out.records.is_empty() {
            out.nothing();
        }
        out.records
    }
}

/// Bytes that a round takes in the ring.
pub(super) fn bytes_of(records: &[Outgoing]) -> u64 {
    align_up(
        records
            .iter()
            .map(|record| record.body.record_bytes() as u64)
            .sum(),
    )
}

/// By how much the states of all groups may grow.
fn growth(items: &[RoundItem]) -> u64 {
    let state = (RECORD_HEADER_BYTES + STATE_BODY_BYTES) as u64;
    items
        .iter()
        .map(|item| {
            let conf = item.conf.as_ref().map_or(0, |conf| conf.bytes.len() as u64);
            conf + if item.identity.is_some() { state } else { 0 }
        })
        .sum()
}

fn data_bytes(item: &RoundItem) -> u64 {
    item.entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Data)
        .map(|entry| entry.payload.len() as u64)
        .sum()
}

/// Collects the records of a round, numbering those of each group.
struct Records<'a> {
    core: &'a Core,
    /// Replica and last sequence number of the groups that have a record in this round.
    sequences: BTreeMap<u64, (u64, u64)>,
    records: Vec<Outgoing>,
}

impl Records<'_> {
    fn push(&mut self, group: u64, body: RecordBody) {
        let known = self.core.image.groups.get(&group);
        let (replica, sequence) = self
            .sequences
            .entry(group)
            .or_insert_with(|| known.map_or((0, 0), |state| (state.replica, state.sequence)));
        *sequence += 1;
        let (replica, sequence) = (*replica, *sequence);
        self.records.push(Outgoing {
            group,
            replica,
            sequence,
            body,
        });
    }

    fn nothing(&mut self) {
        let body = RecordBody::Nothing;
        self.records.push(Outgoing {
            group: 0,
            replica: 0,
            sequence: 0,
            body,
        });
    }

    fn states(&mut self) {
        for (group, state) in &self.core.image.groups {
            if let Some(body) = state.state_body() {
                self.push(*group, RecordBody::State(Box::new(body)));
            }
        }
    }

    fn opened(&mut self, group: u64, opened: OpenedLog) {
        let Some(state) = self.core.image.groups.get(&group) else {
            return;
        };
        if let Some(first) = opened.cut_from {
            let durable_index = state.reached.min(first.saturating_sub(1));
            self.push(
                group,
                RecordBody::Cut {
                    first,
                    durable_index,
                },
            );
        }
        if opened.cut_done || opened.cut_from.is_some() {
            self.push(group, RecordBody::CutDone);
        }
    }

    /// The order matters: a cut stands behind the entries that it may kill, and speaks of files that
    /// are cut when the round has ended; the cut that is done came before them.
    fn item(&mut self, item: &RoundItem, way: Way) {
        let group = item.group;
        let reached = self.core.reached_before(item);
        if let Some((identity, start)) = &item.identity {
            let known = self.core.image.groups.get(&group);
            if known.is_some_and(|state| state.replica == identity.replica) {
                self.push(group, RecordBody::Reset(*start));
            } else {
                let sequence = known.map_or(0, |state| state.sequence);
                self.sequences.insert(group, (identity.replica, sequence));
                let (topic_id, partition) = (identity.topic_id, identity.partition);
                self.push(
                    group,
                    RecordBody::Creation {
                        topic_id,
                        partition,
                        start: *start,
                    },
                );
            }
        }
        if item.cut_done {
            self.push(group, RecordBody::CutDone);
        }
        if let Some(hard_state) = item.hard_state {
            self.push(group, RecordBody::HardState(hard_state));
        }
        if let Some(conf) = &item.conf {
            self.push(group, RecordBody::Conf(conf.clone()));
        }
        if let Some(flags) = item.flags {
            self.push(group, RecordBody::Flags(flags));
        }
        for entry in &item.entries {
            let data_wanted =
                way == Way::Wal && entry.index > reached && entry.index <= item.durable_through;
            if entry.kind != EntryKind::Data || data_wanted {
                self.push(group, RecordBody::Entry(entry.clone()));
            }
        }
        if let Some(first) = item.cut
            && !planted::is(Bug::W2)
        {
            // Files that this round syncs may be behind when its records are on the disk (I6).
            let durable = if way == Way::Wal {
                item.durable_through.max(reached)
            } else {
                reached
            };
            let durable_index = durable.min(first.saturating_sub(1));
            self.push(
                group,
                RecordBody::Cut {
                    first,
                    durable_index,
                },
            );
        }
        if item.removed {
            self.push(group, RecordBody::Removal);
        }
    }
}
