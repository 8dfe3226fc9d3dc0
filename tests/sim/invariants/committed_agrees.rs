//! What replicas call committed is one log: the oracle that the other invariants look things up in.
//!
//! The first replica that has an entry committed writes it here; every other one, and every later
//! life, must have the same at that index and offset.

use std::collections::BTreeMap;

use super::nothing_outlives_its_topic as outlives;
use super::{
    Checked, Violation, no_duplicate_of_an_idempotent_producer as duplicates,
    one_value_at_one_offset,
};
use crate::history::History;
use crate::mark::Mark;

/// The committed log of one group.
#[derive(Debug, Default)]
pub struct CommittedLog {
    /// By index.
    entries: BTreeMap<u64, Mark>,
    /// Index of the data entry that begins at an offset.
    offsets: BTreeMap<i64, u64>,
    /// Offset of every batch.
    batches: BTreeMap<i64, i64>,
    /// Last epoch and sequence of every idempotent producer.
    producers: BTreeMap<i64, (i16, i32)>,
    /// Within the promise of `write.caching` the log was shortened: entries of terms below this one
    /// are no longer held against anybody.
    forked_term: u64,
}

impl CommittedLog {
    /// The committed entry that begins at an offset.
    #[must_use]
    pub fn at_offset(&self, offset: i64) -> Option<&Mark> {
        self.entries.get(self.offsets.get(&offset)?)
    }

    /// The committed entry of an index.
    #[must_use]
    pub fn at_index(&self, index: u64) -> Option<&Mark> {
        self.entries.get(&index)
    }

    /// Last committed index.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    /// The offset behind the last committed entry.
    #[must_use]
    pub fn end_offset(&self) -> i64 {
        self.entries
            .values()
            .next_back()
            .map_or(0, Mark::next_offset)
    }

    /// The producers of the whole log.
    #[must_use]
    pub fn producers(&self) -> &BTreeMap<i64, (i16, i32)> {
        &self.producers
    }

    /// The entries from an index on.
    pub fn from(&self, index: u64) -> impl Iterator<Item = &Mark> {
        self.entries.range(index..).map(|(_, mark)| mark)
    }

    /// The term below which the log was shortened, 0 for never.
    #[must_use]
    pub fn forked_term(&self) -> u64 {
        self.forked_term
    }
}

/// The committed logs of all groups.
#[derive(Debug, Default)]
pub struct Committed {
    groups: BTreeMap<u64, CommittedLog>,
    /// Batches of plain producers that are in a log more than once.
    pub plain_duplicates: u64,
}

impl Committed {
    /// The log of a group.
    #[must_use]
    pub fn log(&self, group: u64) -> Option<&CommittedLog> {
        self.groups.get(&group)
    }

    /// A replica has an entry committed.
    ///
    /// # Errors
    /// Where another replica had another entry there, or the batch is somewhere else already.
    pub fn commits(&mut self, group: u64, node: usize, mark: &Mark, history: &History) -> Checked {
        let log = self.groups.entry(group).or_default();
        if let Some(before) = log.entries.get(&mark.index) {
            if before == mark || mark.term < log.forked_term {
                return Ok(());
            }
            let who = format!("node {node}");
            if before.is_data() && mark.is_data() {
                one_value_at_one_offset::claims(
                    group,
                    &who,
                    mark.base_offset,
                    mark.batch,
                    mark.crc,
                    before,
                )?;
            }
            return Err(Violation::new(
                "committed_agrees",
                format!("group {group}: {who} has committed {mark:?}, before it was {before:?}"),
            ));
        }
        if mark.term < log.forked_term {
            return Ok(());
        }
        if mark.is_data() {
            if let Some(index) = log.offsets.get(&mark.base_offset)
                && let Some(before) = log.entries.get(index)
            {
                return one_value_at_one_offset::claims(
                    group,
                    &format!("node {node}, at another index {},", mark.index),
                    mark.base_offset,
                    mark.batch,
                    mark.crc.wrapping_add(1),
                    before,
                );
            }
            let made = history.batch(mark.batch);
            if let Some(made) = made {
                outlives::belongs(group, node, mark.batch, made.group)?;
                // The bytes are those that the client sent.
                let sent = Mark {
                    crc: made.crc_as(mark.crc),
                    ..*mark
                };
                one_value_at_one_offset::claims(
                    group,
                    &format!("node {node}, by the client's own bytes,"),
                    mark.base_offset,
                    mark.batch,
                    mark.crc,
                    &sent,
                )?;
            }
            let plain = made.is_some_and(|made| !made.idempotent);
            match log.batches.get(&mark.batch) {
                // The controller's commands carry no time.
                _ if group == 0 => {}
                Some(_) if plain => self.plain_duplicates += 1,
                Some(before) => duplicates::appears(group, mark.batch, mark.base_offset, *before)?,
                None => {}
            }
            log.batches.insert(mark.batch, mark.base_offset);
            if mark.producer >= 0 {
                let before = log.producers.get(&mark.producer).copied();
                let (epoch, first, last) = mark.sequence;
                duplicates::follows(group, mark.producer, before, (epoch, first))?;
                log.producers.insert(mark.producer, (epoch, last));
            }
            log.offsets.insert(mark.base_offset, mark.index);
        }
        log.entries.insert(mark.index, *mark);
        Ok(())
    }

    /// The log of a `write.caching` group was shortened within its promise: a leader of `term` ends
    /// at `last_index`. Gives the entries that are gone.
    pub fn forgive(&mut self, group: u64, term: u64, last_index: u64) -> Vec<Mark> {
        let Some(log) = self.groups.get_mut(&group) else {
            return Vec::new();
        };
        let gone: Vec<Mark> = log
            .entries
            .split_off(&(last_index + 1))
            .into_values()
            .collect();
        for mark in gone.iter().filter(|mark| mark.is_data()) {
            log.offsets.remove(&mark.base_offset);
            log.batches.remove(&mark.batch);
        }
        log.forked_term = term;
        log.producers.clear();
        let kept: Vec<Mark> = log.entries.values().copied().collect();
        for mark in kept.iter().filter(|mark| mark.producer >= 0) {
            log.producers
                .insert(mark.producer, (mark.sequence.0, mark.sequence.2));
        }
        gone
    }
}
