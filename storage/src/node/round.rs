//! Flush rounds: what goes in, which shape it takes, and what is known when it has ended.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::checkpoint::Phase;
use super::error::{NodeError, WalFailed};
use super::shape::{Way, bytes_of, growth};
use super::store::{Core, NodeStore, Shared};
use super::target::SyncTarget;
use super::wal::Flags;
use super::wal::preamble::align_up;
use super::wal::ring::Outgoing;
use crate::disk::DiskFile;
use crate::entry::LogEntry;
use crate::planted::{self, Bug};
use crate::recovered::{FileTrust, HardState, LogIdentity, LogStart, StoredConf};

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
            core.distrust(*group, FileTrust::Poisoned);
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

    /// Whether an empty round is wanted: the durable indexes of a bulk round (W1), what the recovery
    /// of logs has done or that the files of one are poisoned (W8) is not stored yet, or a checkpoint
    /// waits for its next step.
    #[must_use]
    pub fn needs_idle_round(&self) -> bool {
        let core = self.core();
        !core.lagging.is_empty()
            || !core.opened.is_empty()
            || !core.trust_due.is_empty()
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

    /// What must stay free: a state of every group, and the round that moves the mark behind it.
    fn reserve(&self, growth: u64) -> u64 {
        align_up(self.state_bytes + growth) + 4 * super::wal::preamble::ROUND_ALIGN_BYTES
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
        self.trust_due.clear();
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
}
