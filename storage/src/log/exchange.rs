//! A segment's file is written anew beside the old one, read back past the cache, and exchanged for it.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{DiskFile, OpenMode};
use crate::format::{SegmentFile, TMP_SUFFIX};
use crate::log::Log;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::{Files, remove};
use crate::log::reader::LogReader;
use crate::log::shared::Sealed;

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 1 << 20;
/// Room that is left on the disk besides the new file.
const ROOM_BYTES: u64 = 64 << 20;

/// A file of a segment with what was bad put right, beside the one that it is to take the place of.
#[derive(Debug)]
pub struct Mended {
    old: Arc<Files>,
    file: SegmentFile,
    aside: PathBuf,
    new: Arc<dyn DiskFile>,
    /// Bytes of the old file that are in the new one.
    len: u64,
    /// The entries that are put right by it.
    indexes: Vec<u64>,
}

/// Bytes for one place of a file.
type Patch = (u64, Vec<u8>);

impl LogReader {
    /// A file of a segment with bytes in the place of some of its own.
    pub(super) fn patched(
        &self,
        files: &Arc<Files>,
        (file, len): (SegmentFile, u64),
        mut patches: Vec<Patch>,
        indexes: &[u64],
    ) -> LogResult<Mended> {
        let old = Arc::clone(files.open(file, OpenMode::Existing)?);
        patches.sort_by_key(|(at, _)| *at);
        let fill = |new: &Arc<dyn DiskFile>| copy(&old, new, (0, len), &patches).at(old.path());
        self.write_anew(files, (file, len), indexes, fill)
    }

    /// A file of a segment with other bytes, whatever it held.
    pub(super) fn whole(
        &self,
        files: &Arc<Files>,
        file: SegmentFile,
        bytes: &[u8],
    ) -> LogResult<Mended> {
        let fill = |new: &Arc<dyn DiskFile>| {
            let mut sum = crc32fast::Hasher::new();
            sum.update(bytes);
            if !bytes.is_empty() {
                new.write_all_at(&[IoSlice::new(bytes)], 0).at(new.path())?;
            }
            Ok(sum.finalize())
        };
        self.write_anew(files, (file, bytes.len() as u64), &[], fill)
    }

    /// Writes a file aside, syncs it, and reads back what the disk has of it. `fill` gives the checksum of
    /// what it wrote.
    fn write_anew(
        &self,
        files: &Arc<Files>,
        (file, len): (SegmentFile, u64),
        indexes: &[u64],
        fill: impl FnOnce(&Arc<dyn DiskFile>) -> LogResult<u32>,
    ) -> LogResult<Mended> {
        let disk = &self.shared.disk;
        let path = files.path(file);
        let free = disk.free_bytes(&self.shared.dir).at(&self.shared.dir)?;
        if free < len.saturating_add(ROOM_BYTES) {
            return Err(LogError::NoRoom { path, bytes: len });
        }
        let mut name = path.into_os_string();
        name.push(TMP_SUFFIX);
        let aside = PathBuf::from(name);
        remove(disk, &aside)?;
        let opened = disk.open(&aside, OpenMode::CreateNew).at(&aside);
        let written = opened.and_then(|new| {
            let sum = fill(&new)?;
            new.sync_data().at(&aside)?;
            if sum_of(&new, len).at(&aside)? != sum {
                return Err(LogError::damaged(&aside, 0, "not what was written to it"));
            }
            Ok(new)
        });
        match written {
            Ok(new) => Ok(Mended {
                old: Arc::clone(files),
                file,
                aside,
                new,
                len,
                indexes: indexes.to_vec(),
            }),
            Err(error) => {
                // The first error is the one to report.
                let _ = remove(disk, &aside);
                Err(error)
            }
        }
    }
}

/// Copies bytes `from..to` with patches, which lie in order, in their places; gives the checksum of what was
/// written. What lies under a patch is not read: perhaps it cannot be.
fn copy(
    old: &Arc<dyn DiskFile>,
    new: &Arc<dyn DiskFile>,
    (from, to): (u64, u64),
    patches: &[Patch],
) -> std::io::Result<u32> {
    let mut sum = crc32fast::Hasher::new();
    let mut at = from;
    let mut buffer = Vec::new();
    let mut read_to = |at: &mut u64, end: u64, sum: &mut crc32fast::Hasher| {
        while *at < end {
            let part = COPY_BYTES.min(end - *at);
            buffer.resize(usize::try_from(part).map_err(std::io::Error::other)?, 0);
            old.read_exact_at(&mut buffer, *at)?;
            sum.update(&buffer);
            new.write_all_at(&[IoSlice::new(&buffer)], *at)?;
            *at += part;
        }
        Ok::<(), std::io::Error>(())
    };
    for (position, bytes) in patches {
        if *position < at || position + bytes.len() as u64 > to {
            return Err(std::io::Error::other("a patch that does not fit"));
        }
        read_to(&mut at, *position, &mut sum)?;
        sum.update(bytes);
        new.write_all_at(&[IoSlice::new(bytes)], at)?;
        at += bytes.len() as u64;
    }
    read_to(&mut at, to, &mut sum)?;
    Ok(sum.finalize())
}

/// The checksum of what the disk has, read past the cache.
fn sum_of(file: &Arc<dyn DiskFile>, len: u64) -> std::io::Result<u32> {
    let mut at = 0;
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = Vec::new();
    while at < len {
        let part = COPY_BYTES.min(len - at);
        buffer.resize(usize::try_from(part).map_err(std::io::Error::other)?, 0);
        file.read_past_cache(&mut buffer, at)?;
        sum.update(&buffer);
        at += part;
    }
    Ok(sum.finalize())
}

impl Log {
    /// Puts files of one segment that were written anew into their places, durably, one after the other. Slices
    /// of the old ones live on. False where the log has that segment's old files no more: nothing was done
    /// then, or not all of it.
    ///
    /// # Errors
    /// I/O errors. The log is poisoned where nobody knows which file has the name after a crash.
    pub fn exchange(&mut self, mended: Vec<Mended>) -> LogResult<bool> {
        let mut files: Option<(Arc<Files>, Arc<Files>)> = None;
        let mut all = true;
        for mut mended in mended {
            if let Some((old, new)) = &files
                && Arc::ptr_eq(old, &mended.old)
            {
                mended.old = Arc::clone(new);
            }
            let first = files
                .take()
                .map_or_else(|| Arc::clone(&mended.old), |(old, _)| old);
            match self.exchange_one(mended)? {
                Some(new) => files = Some((first, new)),
                None => all = false,
            }
        }
        Ok(all)
    }

    fn exchange_one(&mut self, mended: Mended) -> LogResult<Option<Arc<Files>>> {
        self.sync.check()?;
        let (disk, dir) = (Arc::clone(&self.shared.disk), Arc::clone(&self.shared.dir));
        let Mended {
            old,
            file,
            aside,
            new,
            len,
            indexes,
        } = mended;
        let (sealed_at, written) = {
            let inner = self.shared.inner.read();
            let is_old = |sealed: &Arc<Sealed>| Arc::ptr_eq(&sealed.files, &old);
            let active = &inner.active;
            let written = match file {
                SegmentFile::Log => Some(active.log_len),
                SegmentFile::Aux => Some(active.aux_len),
                _ => None,
            };
            let is_written = Arc::ptr_eq(&active.files, &old);
            (
                inner.sealed.iter().position(is_old),
                written.filter(|_| is_written),
            )
        };
        if sealed_at.is_none() && written.is_none() {
            remove(&disk, &aside)?;
            return Ok(None);
        }
        if let Some(now) = written.filter(|now| *now > len) {
            // What was appended meanwhile: the writer waits for no more than this.
            let from = old.open(file, OpenMode::Existing)?;
            let copied = copy(from, &new, (len, now), &[]).and_then(|_| new.sync_data());
            if let Err(error) = copied {
                let _ = remove(&disk, &aside);
                return Err(error).at(&aside);
            }
        }
        let path = old.path(file);
        if let Err(error) = disk.rename(&aside, &path) {
            let _ = remove(&disk, &aside);
            return Err(error).at(&path);
        }
        if let Err(error) = disk.sync_dir(&dir) {
            self.sync.poison();
            return Err(error).at(&dir);
        }
        let files = Arc::new(old.without(file));
        self.sync.exchanged(&files);
        {
            let mut inner = self.shared.inner.write();
            match sealed_at.and_then(|at| inner.sealed.get_mut(at)) {
                Some(sealed) => *sealed = Arc::new(sealed.with(Arc::clone(&files), file)),
                None => inner.active.files = Arc::clone(&files),
            }
        }
        if file == SegmentFile::Log {
            self.reserved = written.unwrap_or(self.reserved);
        }
        let mut bad = self.shared.bad.lock();
        let mut unreadable = self.shared.unreadable.lock();
        for index in indexes {
            bad.remove(&index);
            unreadable.remove(&index);
        }
        Ok(Some(files))
    }
}
