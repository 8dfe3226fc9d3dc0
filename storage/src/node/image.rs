//! What the WAL says of each group: changed by the same function when a round has ended and when a
//! boot replays it, so that the process and its successor cannot disagree.

use std::collections::{BTreeMap, BTreeSet};

use super::error::NodeError;
use super::wal::record::{RECORD_HEADER_BYTES, STATE_BODY_BYTES};
use super::wal::{Flags, RecordBody, RecordHeader, StateBody};
use crate::entry::LogEntry;
use crate::planted::{self, Bug};
use crate::recovered::{FileTrust, GroupRecord, HardState, LogIdentity, LogStart, StoredConf};

/// One group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupState {
    pub(super) replica: u64,
    /// `None` between the start mark and the checkpoint's state record behind it.
    pub(super) identity: Option<LogIdentity>,
    pub(super) start: LogStart,
    pub(super) hard_state: HardState,
    pub(super) conf: StoredConf,
    /// The durable index that a boot would find now.
    pub(super) durable_index: u64,
    /// The durable index as it is; the next round stores it (W1).
    // INVARIANT: never below `durable_index` (I6).
    pub(super) reached: u64,
    pub(super) flags: Flags,
    pub(super) unfinished_cut: Option<u64>,
    /// The side file that holds entries of a group whose log cannot be synced; 0 for none (W6).
    pub(super) side_file: u64,
    pub(super) trust: FileTrust,
    /// The sidecars have a record of every entry up to here, whatever the power does (R13).
    pub(super) sidecar_synced: u64,
    /// The same once the checkpoint that is under way has written the states; `None` where it does not sync
    /// the group's log.
    pub(super) sidecar_syncing: Option<u64>,
    /// Sequence number of the group's last record.
    pub(super) sequence: u64,
    /// Only filled by a replay.
    pub(super) entries: BTreeMap<u64, LogEntry>,
}

impl GroupState {
    fn created(identity: LogIdentity, start: LogStart) -> Self {
        Self {
            replica: identity.replica,
            identity: Some(identity),
            start,
            durable_index: start.prev_index,
            reached: start.prev_index,
            ..Self::default()
        }
    }

    /// The record of a checkpoint; `None` for a group whose creation was lost to damage.
    pub(super) fn state_body(&self) -> Option<StateBody> {
        let identity = self.identity.as_ref()?;
        Some(StateBody {
            topic_id: identity.topic_id,
            partition: identity.partition,
            start: self.start,
            hard_state: self.hard_state,
            conf: self.conf.clone(),
            durable_index: self.reached,
            flags: self.flags,
            unfinished_cut: self.unfinished_cut,
            side_file: self.side_file,
        })
    }

    /// What a checkpoint's state is followed by where the sidecars are known to have something.
    pub(super) fn sidecar_record(&self) -> Option<RecordBody> {
        let index = self.sidecar_syncing.unwrap_or(0).max(self.sidecar_synced);
        (index > 0).then_some(RecordBody::SidecarSynced(index))
    }

    /// Bytes that a checkpoint takes for the group.
    pub(super) fn state_bytes(&self) -> u64 {
        let state = RECORD_HEADER_BYTES + STATE_BODY_BYTES + self.conf.bytes.len();
        let trust = RecordBody::FileTrust(self.trust).record_bytes();
        let trust = if self.trust == FileTrust::Sound {
            0
        } else {
            trust
        };
        let synced = RecordBody::SidecarSynced(0).record_bytes();
        (state + trust + synced) as u64
    }

    /// What recovery is told. The entries are taken out.
    pub(super) fn take_record(&mut self) -> Option<GroupRecord> {
        let mut hard_state = self.hard_state;
        if planted::is(Bug::ForgetVote) {
            hard_state.vote = 0;
        }
        Some(GroupRecord {
            identity: self.identity.clone()?,
            start: self.start,
            hard_state,
            conf: self.conf.clone(),
            durable_index: self.durable_index,
            may_be_short: self.flags.may_be_short,
            recovering: self.flags.recovering,
            trust: self.trust,
            sidecar_synced: self.sidecar_synced,
            unfinished_cut: self.unfinished_cut,
            entries: std::mem::take(&mut self.entries).into_values().collect(),
        })
    }

    fn cut(&mut self, first: u64, durable_index: u64) {
        self.durable_index = self.durable_index.min(durable_index);
        self.reached = self
            .reached
            .min(first.saturating_sub(1))
            .max(self.durable_index);
        let first_unfinished = self
            .unfinished_cut
            .map_or(first, |earlier| earlier.min(first));
        self.unfinished_cut = Some(first_unfinished);
        let stays = first.saturating_sub(1);
        self.sidecar_synced = self.sidecar_synced.min(stays);
        self.sidecar_syncing = self.sidecar_syncing.map(|index| index.min(stays));
        // The cut kills what came before it at or above its index, and nothing else (W2).
        self.entries.split_off(&first);
    }

    /// What was acknowledged from memory lies above the durable index, where a failed flush may have
    /// taken it (W8).
    fn trust(&mut self, trust: FileTrust) {
        let failed = trust.max(self.trust) != FileTrust::Sound;
        self.flags.recovering |= failed && self.flags.may_be_short;
        self.trust = trust;
    }

    fn entry(&mut self, entry: &LogEntry, keep: bool) {
        // An entry that lies in the WAL right behind what is durable is durable itself.
        if entry.index == self.durable_index + 1 {
            self.durable_index = entry.index;
            self.reached = self.reached.max(entry.index);
        }
        if keep {
            self.entries.insert(entry.index, entry.clone());
        }
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) groups: BTreeMap<u64, GroupState>,
    /// Replicas whose removal is recorded and whose files may still be there.
    pub(super) removed: Vec<LogIdentity>,
}

/// Brings the entries of a side file: (group, number).
pub(super) type LoadSide<'a> = &'a mut dyn FnMut(u64, u64) -> Result<Vec<LogEntry>, NodeError>;

impl Image {
    /// Carries out one record. `load` is given by a replay, which also keeps entries.
    pub(super) fn apply(
        &mut self,
        group: u64,
        replica: u64,
        sequence: u64,
        body: &RecordBody,
        load: Option<LoadSide<'_>>,
    ) -> Result<(), NodeError> {
        match body {
            RecordBody::Nothing => return Ok(()),
            RecordBody::Removal => {
                if let Some(identity) = self.groups.remove(&group).and_then(|state| state.identity)
                {
                    self.removed.push(identity);
                }
                return Ok(());
            }
            RecordBody::Creation {
                topic_id,
                partition,
                start,
            } => {
                let identity = LogIdentity {
                    group,
                    replica,
                    topic_id: *topic_id,
                    partition: *partition,
                };
                let mut state = GroupState::created(identity, *start);
                state.sequence = sequence;
                self.groups.insert(group, state);
                return Ok(());
            }
            _ => {}
        }
        let state = self.groups.entry(group).or_insert_with(|| GroupState {
            replica,
            ..GroupState::default()
        });
        state.sequence = sequence;
        let keep = load.is_some();
        match body {
            RecordBody::Nothing | RecordBody::Removal | RecordBody::Creation { .. } => {}
            RecordBody::HardState(hard_state) => state.hard_state = *hard_state,
            RecordBody::Entry(entry) => state.entry(entry, keep),
            RecordBody::Cut {
                first,
                durable_index,
            } => state.cut(*first, *durable_index),
            RecordBody::CutDone => state.unfinished_cut = None,
            RecordBody::Conf(conf) => state.conf = conf.clone(),
            RecordBody::Durable(index) => {
                state.durable_index = state.durable_index.max(*index);
                state.reached = state.reached.max(*index);
            }
            RecordBody::Reset(start) => {
                state.start = *start;
                state.cut(0, start.prev_index);
                state.durable_index = start.prev_index;
                state.reached = start.prev_index;
            }
            RecordBody::Flags(flags) => {
                state.flags = *flags;
                state.trust(state.trust);
            }
            RecordBody::FileTrust(trust) => state.trust(*trust),
            RecordBody::SidecarSynced(index) => {
                state.sidecar_synced = *index;
                state.sidecar_syncing = None;
            }
            RecordBody::State(body) => {
                state.replica = replica;
                state.identity = Some(body.identity(group, replica));
                state.start = body.start;
                state.hard_state = body.hard_state;
                state.conf = body.conf.clone();
                state.durable_index = body.durable_index;
                // The files that the same round has synced may be further already.
                state.reached = if keep {
                    body.durable_index
                } else {
                    state.reached.max(body.durable_index)
                };
                state.flags = body.flags;
                state.unfinished_cut = body.unfinished_cut;
                state.side_file = body.side_file;
                if let (Some(load), true) = (load, body.side_file != 0) {
                    // The side file holds what the WAL held of the group until this record.
                    state.entries = load(group, body.side_file)?
                        .into_iter()
                        .map(|entry| (entry.index, entry))
                        .collect();
                }
            }
        }
        Ok(())
    }
}

/// A replay, which also finds out whom a gap in the WAL concerns.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) image: Image,
    /// Gaps as (first bad position, next good position).
    pub(super) gaps: Vec<(u64, u64)>,
    /// Groups of which records are missing.
    affected: BTreeSet<u64>,
    /// Groups that had a record behind the last gap.
    seen_since_gap: BTreeSet<u64>,
    /// Those of them whose hard state was among it.
    voted_since_gap: BTreeSet<u64>,
}

/// By how much the term of a replica is raised that may have forgotten in which terms it voted. More
/// than a ring can hold changes of the term.
const FORGOTTEN_TERMS: u64 = 1 << 20;

impl Replay {
    pub(super) fn gap(&mut self, from: u64, to: u64) {
        self.gaps.push((from, to));
        self.seen_since_gap.clear();
        self.voted_since_gap.clear();
    }

    pub(super) fn record(
        &mut self,
        header: &RecordHeader,
        body: &RecordBody,
        load: LoadSide<'_>,
    ) -> Result<(), NodeError> {
        if matches!(body, RecordBody::Nothing) {
            return Ok(());
        }
        let group = header.group;
        if !matches!(body, RecordBody::Creation { .. }) {
            let known = self.image.groups.get(&group);
            let whole = match known {
                Some(state) => {
                    state.sequence + 1 == header.sequence && state.replica == header.replica
                }
                // The first record of a group since the start mark follows on one before it.
                None => self.gaps.is_empty(),
            };
            if !whole {
                self.affected.insert(group);
            }
        }
        self.seen_since_gap.insert(group);
        if matches!(
            body,
            RecordBody::HardState(_) | RecordBody::State(_) | RecordBody::Creation { .. }
        ) {
            self.voted_since_gap.insert(group);
        }
        let (replica, sequence) = (header.replica, header.sequence);
        match self.image.apply(group, replica, sequence, body, Some(load)) {
            Err(NodeError::Damaged { .. }) => {
                // The side file is not readable: that group has lost entries, nobody else has.
                self.affected.insert(group);
                Ok(())
            }
            other => other,
        }
    }

    /// At the end: the groups of which records may be missing, marked as recovering.
    ///
    /// Where a vote may be among them, the replica could vote a second time in a term that it has
    /// forgotten, or follow a leader whom it had left for another, and be freed from recovering by one
    /// that does not know what it had acknowledged to the other. It takes a term above all of those, and
    /// no vote in it: whoever frees it was then elected later, by a majority without it.
    pub(super) fn settle(&mut self) -> BTreeSet<u64> {
        if planted::is(Bug::WalDamageDropped) {
            self.gaps.clear();
            self.affected.clear();
            return BTreeSet::new();
        }
        for (group, state) in &mut self.image.groups {
            let silent = !self.gaps.is_empty() && !self.seen_since_gap.contains(group);
            if silent || state.identity.is_none() {
                self.affected.insert(*group);
            }
            if self.affected.contains(group) {
                state.flags.recovering = true;
                if !self.gaps.is_empty() && !self.voted_since_gap.contains(group) {
                    state.hard_state.term += FORGOTTEN_TERMS;
                    state.hard_state.vote = state.replica;
                }
            }
        }
        std::mem::take(&mut self.affected)
    }
}
