//! The shape of a round: how the data of each item becomes durable, and which records say it.

use std::collections::BTreeMap;

use super::checkpoint::Phase;
use super::error::NodeError;
use super::round::RoundItem;
use super::store::{Core, OpenedLog, Shared};
use super::wal::RecordBody;
use super::wal::preamble::align_up;
use super::wal::record::{RECORD_HEADER_BYTES, STATE_BODY_BYTES};
use super::wal::ring::Outgoing;
use crate::entry::EntryKind;
use crate::planted::{self, Bug};
use crate::recovered::FileTrust;

/// How the data of an item becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// There is none, or it is durable already.
    None,
    /// Through the WAL.
    Wal,
    /// By a sync of the log's files.
    Files,
}

impl Core {
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

    pub(super) fn ways(&self, items: &[RoundItem], shared: &Shared) -> Result<Vec<Way>, NodeError> {
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
    pub(super) fn records(&self, items: &[RoundItem], ways: &[Way]) -> Vec<Outgoing> {
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
        for (group, trust) in &self.trust_due {
            if self.image.groups.contains_key(group) {
                out.push(*group, RecordBody::FileTrust(*trust));
            }
        }
        for (item, way) in items.iter().zip(ways) {
            out.item(item, *way);
        }
        if out.records.is_empty() {
            out.nothing();
        }
        out.records
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
pub(super) fn growth(items: &[RoundItem]) -> u64 {
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
                if state.trust != FileTrust::Sound {
                    self.push(*group, RecordBody::FileTrust(state.trust));
                }
                if let Some(synced) = state.sidecar_record() {
                    self.push(*group, synced);
                }
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
        if opened.written_anew {
            self.push(group, RecordBody::FileTrust(FileTrust::Sound));
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
