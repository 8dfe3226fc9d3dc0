//! The open files of one segment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::SegmentFile;
use crate::log::error::{IoContext, LogError, LogResult, SHORT};
use crate::log::trust::Trust;

/// The files of one segment, each opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    dir: Arc<PathBuf>,
    pub(crate) base_offset: i64,
    log: OnceLock<Arc<dyn DiskFile>>,
    raft: OnceLock<Arc<dyn DiskFile>>,
    aux: OnceLock<Arc<dyn DiskFile>>,
    index: OnceLock<Arc<dyn DiskFile>>,
    time_index: OnceLock<Arc<dyn DiskFile>>,
    /// What of `.log` this process wrote or verified lately.
    pub(crate) trust: Trust,
    /// Entries that the disk refuses to give and that count as bad, by index (R16).
    given_up: Mutex<BTreeSet<u64>>,
}

impl Files {
    /// Those of a segment that exists, or will be created file by file.
    pub(crate) fn new(disk: &Arc<dyn Disk>, dir: &Arc<PathBuf>, base_offset: i64) -> Self {
        Self {
            disk: Arc::clone(disk),
            dir: Arc::clone(dir),
            base_offset,
            log: OnceLock::new(),
            raft: OnceLock::new(),
            aux: OnceLock::new(),
            index: OnceLock::new(),
            time_index: OnceLock::new(),
            trust: Trust::default(),
            given_up: Mutex::default(),
        }
    }

    /// Takes an entry for bad wherever the disk refuses to give it.
    pub(crate) fn give_up(&self, index: u64) {
        self.given_up.lock().insert(index);
    }

    /// Whether an error is the disk's refusal to give an entry that counts as bad.
    pub(crate) fn is_given_up(&self, index: u64, error: &LogError) -> bool {
        error.is_of_one_place() && self.given_up.lock().contains(&index)
    }

    /// The time by the disk's clock.
    pub(crate) fn now(&self) -> Duration {
        self.disk.now()
    }

    fn slot(&self, file: SegmentFile) -> &OnceLock<Arc<dyn DiskFile>> {
        match file {
            SegmentFile::Log => &self.log,
            SegmentFile::Raft => &self.raft,
            SegmentFile::Aux => &self.aux,
            SegmentFile::Index => &self.index,
            SegmentFile::TimeIndex => &self.time_index,
            SegmentFile::Snapshot => unreachable!("snapshots are written whole, never kept open"),
        }
    }

    pub(crate) fn path(&self, file: SegmentFile) -> PathBuf {
        file.path(&self.dir, self.base_offset)
    }

    /// The same segment with indexes that are to be made anew: readers may still hold a map of the
    /// old ones. Payloads are opened again, too: that file may have been removed.
    pub(crate) fn reopened(&self) -> Self {
        let copy = Self::new(&self.disk, &self.dir, self.base_offset);
        for file in [SegmentFile::Log, SegmentFile::Raft] {
            if let Some(open) = self.opened(file) {
                let _ = copy.slot(file).set(Arc::clone(open));
            }
        }
        copy
    }

    /// The same segment where one file was exchanged for another of its name.
    pub(crate) fn without(&self, file: SegmentFile) -> Self {
        let copy = Self::new(&self.disk, &self.dir, self.base_offset);
        for other in [SegmentFile::Log, SegmentFile::Raft, SegmentFile::Aux] {
            if let Some(open) = self.opened(other).filter(|_| other != file) {
                let _ = copy.slot(other).set(Arc::clone(open));
            }
        }
        copy
    }

    /// The file, opened or created as `mode` says if it is not open yet.
    pub(crate) fn open(&self, file: SegmentFile, mode: OpenMode) -> LogResult<&Arc<dyn DiskFile>> {
        let slot = self.slot(file);
        if let Some(open) = slot.get() {
            return Ok(open);
        }
        let path = self.path(file);
        let opened = self.disk.open(&path, mode).at(&path)?;
        Ok(slot.get_or_init(|| opened))
    }

    pub(crate) fn log(&self) -> LogResult<&Arc<dyn DiskFile>> {
        self.open(SegmentFile::Log, OpenMode::Existing)
    }

    pub(crate) fn raft(&self) -> LogResult<&Arc<dyn DiskFile>> {
        self.open(SegmentFile::Raft, OpenMode::Existing)
    }

    /// The file if it is open already.
    pub(crate) fn opened(&self, file: SegmentFile) -> Option<&Arc<dyn DiskFile>> {
        self.slot(file).get()
    }

    /// Creates a file, empty: one of that name would be left of a creation that failed.
    pub(crate) fn create(&self, file: SegmentFile) -> LogResult<&Arc<dyn DiskFile>> {
        let created = self.open(file, OpenMode::Create)?;
        let path = created.path();
        if created.len().at(path)? > 0 {
            created.set_len(0).at(path)?;
        }
        Ok(created)
    }

    /// Unlinks a file if it is there. True if it was.
    pub(crate) fn remove(&self, file: SegmentFile) -> LogResult<bool> {
        remove(&self.disk, &self.path(file))
    }
}

/// Unlinks a file if it is there. True if it was.
pub(crate) fn remove(disk: &Arc<dyn Disk>, path: &Path) -> LogResult<bool> {
    match disk.remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at(path),
    }
}

/// All bytes of a file.
pub(crate) fn read_whole(file: &Arc<dyn DiskFile>) -> LogResult<Vec<u8>> {
    let len = usize::try_from(file.len().at(file.path())?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    read_at(file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Fills a buffer from a byte of a file on.
pub(crate) fn read_at(file: &Arc<dyn DiskFile>, buf: &mut [u8], from: u64) -> LogResult<()> {
    file.read_exact_at(buf, from)
        .map_err(|error| short(file, error))
}

/// The same from the disk itself, whatever the cache holds.
pub(crate) fn read_past_cache(
    file: &Arc<dyn DiskFile>,
    buf: &mut [u8],
    from: u64,
) -> LogResult<()> {
    file.read_past_cache(buf, from)
        .map_err(|error| short(file, error))
}

/// A view of bytes of a file.
pub(crate) fn slice_at(file: &Arc<dyn DiskFile>, from: u64, len: usize) -> LogResult<Bytes> {
    file.slice(from, len).map_err(|error| short(file, error))
}

/// What a failed read says. Where the file ends too early it is not the machine that failed: bytes are
/// missing, from the file's end on.
fn short(file: &Arc<dyn DiskFile>, error: std::io::Error) -> LogError {
    let path = file.path();
    let source = if error.kind() == std::io::ErrorKind::UnexpectedEof {
        match file.len() {
            Ok(len) => {
                return LogError::damaged(path, len, SHORT);
            }
            Err(source) => source,
        }
    } else {
        error
    };
    LogError::Io {
        path: path.clone(),
        source,
    }
}
