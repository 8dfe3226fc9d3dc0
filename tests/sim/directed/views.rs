//! What there is on a node: what it shows, and what its files hold.

use riverrun_record::BatchView;
use riverrun_replication::partition::Partition;
use riverrun_replication::{PartitionHandle, Published, Role};
use riverrun_storage::{EntryKind, LogEntry};

use super::cluster::{Cluster, GROUP};

impl Cluster {
    pub(super) fn handle(&mut self, at: u64) -> Option<PartitionHandle> {
        self.machine(at).process.as_ref()?.node.handle(GROUP)
    }

    /// What a node shows of the partition.
    pub(super) fn published(&mut self, at: u64) -> Published {
        self.handle(at).unwrap().published()
    }

    pub(super) fn partition(&mut self, at: u64) -> &Partition {
        self.machine(at).running().shard.partition(GROUP).unwrap()
    }

    /// Who leads in the newest term and may answer.
    pub(super) fn leader(&mut self) -> Option<u64> {
        let ready = self.nodes().into_iter().filter_map(|at| {
            let published = self.handle(at)?.published();
            (published.role == Role::Leader && published.ready).then_some((published.term, at))
        });
        ready.max().map(|(_, at)| at)
    }

    /// The entries in a node's files.
    pub(super) fn entries(&mut self, at: u64) -> Vec<LogEntry> {
        let handle = self.handle(at).unwrap();
        let reader = handle.reader();
        let (first, last) = (reader.first_index(), reader.last_index());
        let entries = reader.entries(first, last + 1, u64::MAX).unwrap();
        assert_eq!(entries.len() as u64, last + 1 - first);
        entries
    }

    /// The entries in a node's files as (index, term, what it is).
    pub(super) fn log(&mut self, at: u64) -> Vec<(u64, u64, String)> {
        let entries = self.entries(at);
        entries.iter().map(|e| (e.index, e.term, name(e))).collect()
    }

    /// The entry of an index in a node's files.
    pub(super) fn entry(&mut self, at: u64, index: u64) -> Option<LogEntry> {
        let entries = self.entries(at);
        entries.into_iter().find(|entry| entry.index == index)
    }

    pub(super) fn last_index(&mut self, at: u64) -> u64 {
        self.handle(at).unwrap().reader().last_index()
    }

    /// The events that a consumer sees on a node.
    pub(super) fn consume(&mut self, at: u64) -> Vec<String> {
        let handle = self.handle(at).unwrap();
        let end = handle.published().high_watermark;
        let mut offset = handle.published().log_start_offset;
        let mut events = Vec::new();
        while offset < end {
            let fetched = handle.reader().fetch(offset, end, 1 << 20, true).unwrap();
            assert!(fetched.next_offset > offset, "offset {offset} is not there");
            offset = fetched.next_offset;
            events.extend(fetched.batches.iter().flat_map(|batch| values(batch)));
        }
        events
    }
}

/// Every event of some batches.
fn values(bytes: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    for batch in riverrun_record::batches(bytes) {
        for record in batch.unwrap().plain_records().unwrap() {
            let value = record.unwrap().value.unwrap().to_vec();
            let value = String::from_utf8(value).unwrap();
            events.push(value.trim_end_matches('.').to_owned());
        }
    }
    events
}

fn name(entry: &LogEntry) -> String {
    match entry.kind {
        EntryKind::Data => {
            assert!(BatchView::parse(&entry.payload).unwrap().crc_is_valid());
            values(&entry.payload).join(" ")
        }
        kind => format!("{kind:?}").to_lowercase(),
    }
}
