//! What the node WAL says must be there, by which damage is told from what a crash may leave.

use std::collections::BTreeMap;

use riverrun_storage::format::sidecar::Record;
use riverrun_storage::{GroupRecord, LogEntry};

/// What is known of a log beside its files.
#[derive(Debug, Default)]
pub(super) struct Durability<'a> {
    /// Without it, all must be there.
    record: Option<&'a GroupRecord>,
    wal: BTreeMap<u64, &'a LogEntry>,
}

impl<'a> Durability<'a> {
    pub(super) fn new(record: Option<&'a GroupRecord>) -> Self {
        let entries = record
            .map(|record| record.entries.as_slice())
            .unwrap_or_default();
        Self {
            record,
            wal: entries.iter().map(|entry| (entry.index, entry)).collect(),
        }
    }

    pub(super) fn record(&self) -> Option<&'a GroupRecord> {
        self.record
    }

    /// The first entry that is about to be cut, whatever it is.
    pub(super) fn cut(&self) -> u64 {
        self.record
            .and_then(|record| record.unfinished_cut)
            .unwrap_or(u64::MAX)
    }

    /// Whether the entry must be whole in the files: it was durable, and the WAL does not have it.
    pub(super) fn demands(&self, index: u64) -> bool {
        index < self.cut()
            && !self.wal.contains_key(&index)
            && self
                .record
                .is_none_or(|record| index <= record.durable_index)
    }

    /// The first entry from here on that must be there, if there is any.
    pub(super) fn next_demanded(&self, from: u64) -> Option<u64> {
        let last = self.record?.durable_index.min(self.cut().saturating_sub(1));
        // The WAL has so many entries and no more, so the first hole among them is soon found.
        (from..=last).find(|index| self.demands(*index))
    }

    /// The WAL's entry.
    pub(super) fn wal_entry(&self, index: u64) -> Option<&'a LogEntry> {
        self.wal.get(&index).copied()
    }

    /// Whether the sidecar says the same of an entry as the WAL.
    pub(super) fn agrees(&self, index: u64, record: &Record) -> bool {
        index >= self.cut()
            || self.wal_entry(index).is_none_or(|entry| {
                entry.kind == record.kind
                    && entry.term == u64::from(record.term)
                    && entry.base_offset == record.base_offset
                    && entry.last_offset_delta == record.last_offset_delta
                    && entry.payload.len() as u64 == u64::from(record.len)
            })
    }
}

impl Durability<'_> {
    /// How many of the WAL's entries, from this one on, follow each other.
    pub(super) fn wal_from(&self, from: u64) -> usize {
        (from..self.cut())
            .take_while(|index| self.wal.contains_key(index))
            .count()
    }
}
