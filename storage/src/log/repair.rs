//! Bringing the files to what the merge of the three sources found, and all of it to the disk.
//!
//! `.log` first, synced, and only then the sidecars (W5): a sidecar that ends early is made again
//! from the batches, but a batch without its record takes the index of another entry.
//!
//! What lies above the durable index, or in the WAL, is written again even where the files have it.
//! After a failed sync of an earlier life the cache holds bytes that the disk does not, on pages
//! that count as clean: only pages that are written are synced. Where it is known that a sync failed
//! the files themselves are new ones, see [`super::renew`] (W8).

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::SegmentFile;
use crate::format::index::Indexes;
use crate::log::error::{IoContext, LogResult};
use crate::log::files::{Files, read_at, read_whole, remove};
use crate::log::merge::{Draft, Merged};
use crate::log::open::or_unreadable;
use crate::log::renew::{renew_log, renew_whole};
use crate::log::segment::Spec;

/// Bytes that are read and written again at once.
const COPY_BYTES: u64 = 1 << 20;

/// A segment whose files are as they should be.
#[derive(Debug)]
pub(super) struct Repaired {
    pub(super) draft: Draft,
    pub(super) files: Arc<Files>,
    pub(super) header_len: u64,
    pub(super) indexes: Indexes,
}

/// How to repair.
#[derive(Debug)]
pub(super) struct Repair<'a> {
    pub(super) spec: Spec<'a>,
    pub(super) index_interval_bytes: u32,
    /// Entries from here on are written again.
    pub(super) rewrite_from: u64,
    /// Whether all goes into new files (W8).
    pub(super) renew: bool,
    /// Files of segments without a `.log`, and what was left by something unfinished.
    pub(super) leftovers: Vec<PathBuf>,
}

impl Repair<'_> {
    /// Carries a merge out. Returns the segments and how many indexes were made anew.
    pub(super) fn run(&self, merged: &mut Merged) -> LogResult<(Vec<Repaired>, usize)> {
        let (disk, dir) = (self.spec.disk, self.spec.dir);
        for draft in &merged.drafts {
            if self.renew {
                renew_log(disk, draft)?;
            } else {
                self.write_log(draft)?;
            }
        }
        let mut names = self.renew;
        for input in &merged.dropped {
            names |= input.files.remove(SegmentFile::Log)?;
        }
        if names {
            disk.sync_dir(dir).at(dir)?;
        }
        for input in merged.dropped.drain(..) {
            for file in [
                SegmentFile::Raft,
                SegmentFile::Aux,
                SegmentFile::Index,
                SegmentFile::TimeIndex,
                SegmentFile::Snapshot,
            ] {
                input.files.remove(file)?;
            }
        }
        for path in &self.leftovers {
            remove(disk, path)?;
        }
        let count = merged.drafts.len();
        let mut rebuilt = 0;
        let mut repaired = Vec::with_capacity(count);
        for (at, draft) in merged.drafts.drain(..).enumerate() {
            let header_len = self.write_sidecar(&draft)?;
            let mut indexes = Indexes::new(draft.start.offset);
            for batch in &draft.batches {
                indexes.add(*batch, self.index_interval_bytes);
            }
            if at + 1 < count {
                indexes.seal();
            }
            let files = if self.renew {
                let files = Files::new(disk, dir, draft.start.offset);
                files.remove(SegmentFile::Index)?;
                files.remove(SegmentFile::TimeIndex)?;
                Arc::new(files)
            } else {
                Arc::new(draft.input.files.reopened())
            };
            rebuilt += write_indexes(disk, &files, &indexes)?;
            repaired.push(Repaired {
                draft,
                files,
                header_len,
                indexes,
            });
        }
        disk.sync_dir(dir).at(dir)?;
        Ok((repaired, rebuilt))
    }

    fn write_log(&self, draft: &Draft) -> LogResult<()> {
        let log = draft.input.files.log()?;
        let path = log.path();
        // Also where it has that length: a cut whose sync failed in an earlier life may be in the cache
        // alone, and what was cut would be there again after a power loss.
        log.set_len(draft.log_len.min(draft.input.log_len))
            .at(path)?;
        for (position, payload) in &draft.restored {
            log.write_all_at(&[IoSlice::new(payload)], *position)
                .at(path)?;
        }
        let skip = self.rewrite_from.saturating_sub(draft.start.prev_index + 1);
        let first = usize::try_from(skip).ok().and_then(|skip| {
            let records = draft.records.get(skip..)?;
            records
                .iter()
                .find(|record| record.kind == crate::entry::EntryKind::Data)
        });
        if let Some(first) = first {
            write_again(log, u64::from(first.position), draft.log_len)?;
        }
        log.sync_data().at(path)
    }

    /// Writes header and records where they differ from what is there. Returns the header's length.
    fn write_sidecar(&self, draft: &Draft) -> LogResult<u64> {
        let files = &draft.input.files;
        let mut bytes = match &draft.input.header {
            Some((_, len)) => draft.input.sidecar.get(..*len).unwrap_or_default().to_vec(),
            None => self.spec.header(draft.start, -1),
        };
        let header_len = bytes.len();
        let first_index = draft.start.prev_index + 1;
        for (index, record) in (first_index..).zip(&draft.records) {
            bytes.extend_from_slice(&record.encode(index));
        }
        if draft.aux.is_empty() {
            files.remove(SegmentFile::Aux)?;
        } else if self.renew {
            renew_whole(self.spec.disk, &files.path(SegmentFile::Aux), &draft.aux)?;
        } else {
            let aux = files.open(SegmentFile::Aux, OpenMode::Create)?;
            bring_to(aux, &draft.aux)?;
        }
        if self.renew {
            renew_whole(self.spec.disk, &files.path(SegmentFile::Raft), &bytes)?;
            return Ok(header_len as u64);
        }
        // All of it: nothing says that the header ever reached the disk. A process that was killed with
        // a sync of this file failing has noted nothing, and left pages that count as clean.
        let raft = files.open(SegmentFile::Raft, OpenMode::Create)?;
        bring_to(raft, &bytes)?;
        Ok(header_len as u64)
    }
}

/// Makes a file have these bytes, writing all of them, and syncs it: only pages that are written are
/// sure to be synced (W8).
fn bring_to(file: &Arc<dyn DiskFile>, bytes: &[u8]) -> LogResult<()> {
    let path = file.path();
    if !bytes.is_empty() {
        file.write_all_at(&[IoSlice::new(bytes)], 0).at(path)?;
    }
    file.set_len(bytes.len() as u64).at(path)?;
    file.sync_data().at(path)
}

/// Writes bytes over themselves, so that the next sync takes them to the disk.
fn write_again(file: &Arc<dyn DiskFile>, from: u64, to: u64) -> LogResult<()> {
    let mut at = from;
    let mut buffer = Vec::new();
    while at < to {
        let len = COPY_BYTES.min(to - at);
        buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        read_at(file, &mut buffer, at)?;
        file.write_all_at(&[IoSlice::new(&buffer)], at)
            .at(file.path())?;
        at += len;
    }
    Ok(())
}

/// Writes the indexes of a segment anew where they are not as they should be. Returns how many.
pub(super) fn write_indexes(
    disk: &Arc<dyn Disk>,
    files: &Files,
    indexes: &Indexes,
) -> LogResult<usize> {
    let wanted = [
        (SegmentFile::Index, indexes.offset_bytes(0)),
        (SegmentFile::TimeIndex, indexes.time_bytes(0)),
    ];
    let mut rebuilt = 0;
    for (which, bytes) in wanted {
        let path = files.path(which);
        let old = disk.open(&path, OpenMode::Existing).at(&path);
        let old = old.and_then(|file| Ok((read_whole(&file)?, file)));
        if let Some((old, file)) = or_unreadable(old)?
            && old == bytes
        {
            if !bytes.is_empty() {
                file.write_all_at(&[IoSlice::new(&bytes)], 0).at(&path)?;
                file.sync_data().at(&path)?;
            }
            continue;
        }
        files.remove(which)?;
        let file = files.create(which)?;
        if !bytes.is_empty() {
            file.write_all_at(&[IoSlice::new(&bytes)], 0).at(&path)?;
        }
        file.sync_data().at(&path)?;
        rebuilt += 1;
    }
    Ok(rebuilt)
}
