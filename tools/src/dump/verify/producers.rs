//! Producer snapshots, held against the batches as these go by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use riverrun_record::BatchView;
use riverrun_storage::format::SegmentFile;
use riverrun_storage::producer_state::{SnapshotEntry, read_snapshot};

use super::findings::Findings;
use crate::dump::input::{Failure, Input};
use crate::dump::snapshot::{MAX_SNAPSHOT_BYTES, fault};

/// Producers that are remembered. A log with more of them is not held against its snapshots.
const MAX_PRODUCERS: usize = 1 << 20;
/// Bytes of a snapshot before its entries.
const HEAD_BYTES: u64 = 10;
/// Bytes of an entry.
const ENTRY_BYTES: u64 = 46;

/// The snapshots of a partition, in order.
#[derive(Debug)]
pub(super) struct SnapshotCheck {
    dir: PathBuf,
    /// Offsets of snapshots that were not reached yet, the last one first.
    pending: Vec<i64>,
    /// Where the log begins: what lies before cannot be checked.
    start: i64,
    /// The last batch of each producer, as a snapshot would have it.
    last: BTreeMap<i64, SnapshotEntry>,
    gave_up: bool,
}

impl SnapshotCheck {
    pub(super) fn new(
        dir: &Path,
        offsets: impl DoubleEndedIterator<Item = i64>,
        start: i64,
    ) -> Self {
        Self {
            dir: dir.to_path_buf(),
            pending: offsets.rev().collect(),
            start,
            last: BTreeMap::new(),
            gave_up: false,
        }
    }

    /// Part of the log is not known: which producers it has from here on is not either.
    pub(super) fn give_up(&mut self) {
        self.gave_up = true;
        self.last.clear();
    }

    /// Takes the next batch.
    pub(super) fn batch(
        &mut self,
        batch: &BatchView<'_>,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        self.reach(batch.base_offset(), findings)?;
        if self.gave_up || batch.producer_id() < 0 || batch.base_sequence() < 0 {
            return Ok(());
        }
        let entry = SnapshotEntry {
            producer_id: batch.producer_id(),
            epoch: batch.producer_epoch(),
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta(),
            timestamp: batch.max_timestamp(),
            coordinator_epoch: -1,
            current_txn_first_offset: -1,
        };
        self.last.insert(entry.producer_id, entry);
        if self.last.len() > MAX_PRODUCERS {
            findings.note(
                &self.dir,
                None,
                "too many producers to hold snapshots against them",
            );
            self.give_up();
        }
        Ok(())
    }

    /// Checks the snapshots up to an offset.
    fn reach(&mut self, offset: i64, findings: &mut Findings) -> Result<(), Failure> {
        while let Some(next) = self.pending.pop_if(|next| *next <= offset) {
            self.check(next, findings)?;
        }
        Ok(())
    }

    /// Ends the log.
    pub(super) fn finish(mut self, end: i64, findings: &mut Findings) -> Result<(), Failure> {
        self.reach(end, findings)?;
        while let Some(offset) = self.pending.pop() {
            let path = SegmentFile::Snapshot.path(&self.dir, offset);
            findings.note(
                &path,
                None,
                "it lies behind the log's end; the next start removes it",
            );
        }
        Ok(())
    }

    fn check(&self, offset: i64, findings: &mut Findings) -> Result<(), Failure> {
        let path = SegmentFile::Snapshot.path(&self.dir, offset);
        // What a dropped head said of producers is nowhere else.
        let is_remade = offset > self.start || self.start == 0;
        let bytes = match Input::open(&path) {
            Ok(mut input) => input.whole(MAX_SNAPSHOT_BYTES)?,
            Err(error) => {
                let what = format!("it cannot be opened: {error}");
                findings.derived(is_remade, &path, None, what);
                return Ok(());
            }
        };
        if let Some((position, what)) = fault(&bytes) {
            findings.derived(is_remade, &path, position, what);
            return Ok(());
        }
        let Some((_, entries)) = read_snapshot(&bytes) else {
            return Ok(());
        };
        if self.gave_up {
            return Ok(());
        }
        for (entry, number) in entries.zip(0_u64..) {
            if let Some(what) = self.contradiction(offset, &entry) {
                findings.damage(&path, HEAD_BYTES + ENTRY_BYTES * number, what);
            }
        }
        Ok(())
    }

    fn contradiction(&self, offset: i64, entry: &SnapshotEntry) -> Option<String> {
        let id = entry.producer_id;
        if entry.last_offset >= offset {
            return Some(format!(
                "producer {id} has offset {}, behind the snapshot",
                entry.last_offset
            ));
        }
        let Some(last) = self.last.get(&id) else {
            let may_be_older = entry.last_offset < self.start || entry.last_sequence < 0;
            return (!may_be_older).then(|| format!("the log has no batch of producer {id}"));
        };
        let same = (
            entry.epoch,
            entry.last_sequence,
            entry.last_offset,
            entry.offset_delta,
        ) == (
            last.epoch,
            last.last_sequence,
            last.last_offset,
            last.offset_delta,
        );
        (!same).then(|| {
            format!(
                "producer {id} has epoch {}, sequence {} and offset {} here, and {}, {} and {} in the log",
                entry.epoch,
                entry.last_sequence,
                entry.last_offset,
                last.epoch,
                last.last_sequence,
                last.last_offset
            )
        })
    }
}
