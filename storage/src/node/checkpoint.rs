//! Checkpoints: how the space of the ring is used again (W3, W6).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::error::NodeError;
use super::pool::sync_each;
use super::round::Round;
use super::side::write_side;
use super::store::{Core, NodeStore, Shared};
use super::target::SyncTarget;
use super::wal::ring::Outgoing;
use super::wal::{MarkPoint, RecordBody};
use crate::recovered::FileTrust;

type Targets = BTreeMap<u64, Option<Arc<dyn SyncTarget>>>;

/// Where a checkpoint stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// There is none.
    Idle,
    /// The logs whose entries lie before `point` are being synced.
    Syncing {
        number: u64,
        point: MarkPoint,
        targets: Targets,
    },
    /// They are; the next round writes the states forward.
    StateDue {
        point: MarkPoint,
        unsynced: BTreeSet<u64>,
    },
    /// The states are durable; the next round moves the start mark.
    MarkDue(MarkDue),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct MarkDue {
    pub(super) point: MarkPoint,
    pub(super) must_reach: u64,
}

/// The blocking part of a checkpoint, to be carried out beside the rounds.
#[derive(Debug)]
pub struct Checkpoint {
    number: u64,
    targets: Targets,
    shared: Arc<Shared>,
}

/// What the disk said to a checkpoint.
#[derive(Debug, Default)]
pub struct CheckpointResult {
    /// Logs that could not be synced: poisoned (I10). Their entries move to side files.
    pub failed: Vec<(u64, io::Error)>,
    unsynced: BTreeSet<u64>,
}

impl Checkpoint {
    /// Logs that it syncs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether no log has to be synced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Makes the files of the logs durable.
    #[must_use]
    pub fn sync(&self) -> CheckpointResult {
        sync_targets(&self.shared, &self.targets)
    }
}

fn sync_targets(shared: &Shared, targets: &Targets) -> CheckpointResult {
    let mut result = CheckpointResult::default();
    let mut groups = Vec::new();
    let mut logs = Vec::new();
    for (group, log) in targets {
        match log {
            Some(log) => {
                groups.push(*group);
                logs.push(Arc::clone(log));
            }
            None => {
                result.unsynced.insert(*group);
            }
        }
    }
    if logs.len() > shared.config.pool_files {
        // One pass over the disk in its own order; the syncs of each file then find clean pages,
        // and say whose were lost.
        let _ = shared.disk.sync_all(&shared.data_dir);
    }
    for (group, synced) in groups
        .into_iter()
        .zip(sync_each(&shared.pool, &logs, |log| log.sync_full()))
    {
        if let Err(error) = synced {
            result.unsynced.insert(group);
            result.failed.push((group, error));
        }
    }
    result
}

impl NodeStore {
    /// Whether the ring is so full that a checkpoint should begin.
    #[must_use]
    pub fn needs_checkpoint(&self) -> bool {
        let core = self.core();
        matches!(core.phase, Phase::Idle)
            && (core.damaged || core.ring.used() > core.ring.geometry.capacity / 2)
    }

    /// Begins a checkpoint; `None` while there is one.
    #[must_use]
    pub fn begin_checkpoint(&self) -> Option<Checkpoint> {
        let mut core = self.core();
        if !matches!(core.phase, Phase::Idle) || core.stopped.is_some() {
            return None;
        }
        core.checkpoints += 1;
        let number = core.checkpoints;
        let targets = std::mem::take(&mut core.dirty);
        core.sidecars_begin(&targets);
        let point = core.ring.tail;
        core.phase = Phase::Syncing {
            number,
            point,
            targets: targets.clone(),
        };
        Some(Checkpoint {
            number,
            targets,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Takes note of what [`Checkpoint::sync`] has done; the next two rounds do the rest.
    pub fn finish_checkpoint(&self, checkpoint: &Checkpoint, result: &CheckpointResult) {
        let mut core = self.core();
        for (group, _) in &result.failed {
            core.distrust(*group, FileTrust::Poisoned);
        }
        // A round that found no room may have done the rest in the meantime.
        let due = match &core.phase {
            Phase::Syncing { number, point, .. } if *number == checkpoint.number => *point,
            _ => return,
        };
        core.sidecars_failed(&result.unsynced);
        core.phase = Phase::StateDue {
            point: due,
            unsynced: result.unsynced.clone(),
        };
    }

    /// A checkpoint from beginning to end; waits for the disk. To be called by the thread that runs
    /// the rounds, between two of them.
    pub fn checkpoint(&self) -> Result<CheckpointResult, NodeError> {
        let mut result = CheckpointResult::default();
        if let Some(checkpoint) = self.begin_checkpoint() {
            result = checkpoint.sync();
            self.finish_checkpoint(&checkpoint, &result);
        }
        while matches!(
            self.core().phase,
            Phase::StateDue { .. } | Phase::MarkDue(_)
        ) {
            self.idle_round()?;
        }
        Ok(result)
    }
}

impl Core {
    /// What is durable of a log when its sync begins has a record in its sidecars, which it covers.
    fn sidecars_begin(&mut self, targets: &Targets) {
        for (group, log) in targets {
            if let Some(state) = self.image.groups.get_mut(group) {
                state.sidecar_syncing = log.as_ref().map(|_| state.reached);
            }
        }
    }

    fn sidecars_failed(&mut self, unsynced: &BTreeSet<u64>) {
        for group in unsynced {
            if let Some(state) = self.image.groups.get_mut(group) {
                state.sidecar_syncing = None;
            }
        }
    }

    /// In a round that writes the states: moves the entries of logs that could not be synced to side
    /// files, and names these in the states.
    pub(super) fn write_due_sides(
        &mut self,
        shared: &Shared,
        records: &mut [Outgoing],
    ) -> Result<Vec<(u64, u64)>, NodeError> {
        let unsynced = match &self.phase {
            Phase::StateDue { unsynced, .. } => unsynced.clone(),
            _ => return Ok(Vec::new()),
        };
        let mut sides = self.write_sides(shared, &unsynced, records)?;
        // Those written before stay named while nothing new has come.
        for (group, state) in &self.image.groups {
            if state.side_file != 0 && !unsynced.contains(group) {
                sides.push((*group, state.side_file));
            }
        }
        Ok(sides)
    }

    fn write_sides(
        &mut self,
        shared: &Shared,
        unsynced: &BTreeSet<u64>,
        records: &mut [Outgoing],
    ) -> Result<Vec<(u64, u64)>, NodeError> {
        let mut sides = Vec::new();
        if unsynced.is_empty() {
            return Ok(sides);
        }
        let (image, _) = self.replay_live(shared)?;
        for record in records {
            let RecordBody::State(body) = &mut record.body else {
                continue;
            };
            if !unsynced.contains(&record.group) {
                continue;
            }
            let Some(state) = image.groups.get(&record.group) else {
                continue;
            };
            body.side_file = 0;
            if !state.entries.is_empty() {
                let number = self.next_side;
                self.next_side += 1;
                let entries = state.entries.values();
                write_side(
                    &*shared.disk,
                    &shared.node_dir,
                    record.group,
                    number,
                    entries,
                )?;
                body.side_file = number;
                sides.push((record.group, number));
            }
        }
        Ok(sides)
    }

    /// After a round: the next step of a checkpoint whose step it carried.
    pub(super) fn checkpoint_round_ended(
        &mut self,
        shared: &Shared,
        round: &Round,
    ) -> Result<(), NodeError> {
        if round.with_states
            && let Phase::StateDue { point, .. } = self.phase
        {
            self.name_sides(round.sides.clone());
            self.phase = Phase::MarkDue(MarkDue {
                point,
                must_reach: round.number(),
            });
        } else if let (Some(mark), Phase::MarkDue(_)) = (round.with_mark, &self.phase) {
            self.ring.mark = mark;
            self.phase = Phase::Idle;
            self.damaged = false;
            self.forget_sides(shared)?;
        }
        Ok(())
    }

    fn name_sides(&mut self, sides: Vec<(u64, u64)>) {
        self.sides_named = sides.into_iter().collect();
        self.sides_in_use.extend(&self.sides_named);
    }

    /// The start mark has moved: only the newest states count, and the side files that they name.
    fn forget_sides(&mut self, shared: &Shared) -> Result<(), NodeError> {
        if self.sides_in_use.is_empty() {
            return Ok(());
        }
        self.sides_in_use = std::mem::take(&mut self.sides_named);
        self.find_sides(shared)
    }

    /// A whole checkpoint at once, because a round has found no room. Whatever checkpoint is under
    /// way is given up: its mark might free too little.
    // INVARIANT: a state of every group and a mark always fit: every round leaves the reserve free.
    pub(super) fn make_room(&mut self, shared: &Shared) -> Result<(), NodeError> {
        let mut targets = std::mem::take(&mut self.dirty);
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle | Phase::MarkDue(_) => {}
            Phase::Syncing {
                targets: earlier, ..
            } => {
                for (group, log) in earlier {
                    targets.entry(group).or_insert(log);
                }
            }
            Phase::StateDue { unsynced, .. } => {
                for group in unsynced {
                    targets.entry(group).or_insert(None);
                }
            }
        }
        let point = self.ring.tail;
        self.sidecars_begin(&targets);
        let mut result = sync_targets(shared, &targets);
        self.sidecars_failed(&result.unsynced);
        for (group, _) in &result.failed {
            self.distrust(*group, FileTrust::Poisoned);
        }
        self.failed_logs.append(&mut result.failed);
        self.phase = Phase::StateDue {
            point,
            unsynced: result.unsynced,
        };
        let mut records = self.state_records();
        let sides = self.write_due_sides(shared, &mut records)?;
        let must_reach = self.ring.tail.round;
        let written = self
            .ring
            .write_round(&records)
            .and_then(|()| self.ring.file.sync_data());
        written.map_err(|error| self.wal_failed(error))?;
        self.take_effect(&records, &mut BTreeSet::new())?;
        self.name_sides(sides);
        self.lagging.clear();
        let moved = self.ring.write_mark(point, must_reach).and_then(|mark| {
            self.ring.file.sync_data()?;
            Ok(mark)
        });
        self.ring.mark = moved.map_err(|error| self.wal_failed(error))?;
        self.phase = Phase::Idle;
        self.damaged = false;
        self.forget_sides(shared)
    }
}
