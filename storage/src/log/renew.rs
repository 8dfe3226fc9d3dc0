//! Writing the files of a log anew after a failed flush (W8).
//!
//! After a failed flush the cache holds bytes that the disk has not, on pages that count as clean,
//! and to write them over themselves is not enough: blocks that were given to the file in that flush
//! may never count as written, however often a later one succeeds. So what is kept goes into files
//! that are new. Each is written aside, synced and renamed over the one that is not trusted; until
//! the caller has recorded that all are there, another opening does the same again.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::{SegmentFile, TMP_SUFFIX};
use crate::log::error::{IoContext, LogResult};
use crate::log::files::{read_at, remove};
use crate::log::merge::Draft;

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// Writes the `.log` of a draft anew: what is kept of the old one, and the batches of the WAL.
pub(super) fn renew_log(disk: &Arc<dyn Disk>, draft: &Draft) -> LogResult<()> {
    let path = draft.input.files.path(SegmentFile::Log);
    let old = draft.input.files.log()?;
    replace(disk, &path, |new| {
        copy(old, new, draft.log_len.min(draft.input.log_len))?;
        for (position, payload) in &draft.restored {
            new.write_all_at(&[IoSlice::new(payload)], *position)
                .at(new.path())?;
        }
        Ok(())
    })
}

/// Writes a file anew with these bytes.
pub(super) fn renew_whole(disk: &Arc<dyn Disk>, path: &Path, bytes: &[u8]) -> LogResult<()> {
    replace(disk, path, |new| {
        new.write_all_at(&[IoSlice::new(bytes)], 0).at(new.path())
    })
}

/// Fills a file of its own, syncs it and gives it the name. Where that fails nothing of it stays:
/// a disk without room for two must not lose that of one for good.
fn replace(
    disk: &Arc<dyn Disk>,
    path: &Path,
    fill: impl FnOnce(&Arc<dyn DiskFile>) -> LogResult<()>,
) -> LogResult<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(TMP_SUFFIX);
    let aside = PathBuf::from(name);
    // One that is there was left by an attempt that failed, perhaps at its sync.
    remove(disk, &aside)?;
    let written = disk
        .open(&aside, OpenMode::CreateNew)
        .at(&aside)
        .and_then(|new| {
            fill(&new)?;
            new.sync_data().at(&aside)
        })
        .and_then(|()| disk.rename(&aside, path).at(path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = remove(disk, &aside);
    }
    written
}

fn copy(from: &Arc<dyn DiskFile>, to: &Arc<dyn DiskFile>, len: u64) -> LogResult<()> {
    let mut at = 0;
    let mut buffer = Vec::new();
    while at < len {
        let part = COPY_BYTES.min(len - at);
        buffer.resize(usize::try_from(part).unwrap_or(usize::MAX), 0);
        read_at(from, &mut buffer, at)?;
        to.write_all_at(&[IoSlice::new(&buffer)], at)
            .at(to.path())?;
        at += part;
    }
    Ok(())
}
