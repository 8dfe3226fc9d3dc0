//! Making a log's files durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, OpenMode};
use crate::format::SegmentFile;
use crate::log::error::LogError;
use crate::log::files::Files;
use crate::node::SyncTarget;

/// What was written and not synced.
#[derive(Debug, Default)]
struct Dirty {
    /// Segments whose `.log` was written, by base offset.
    logs: BTreeMap<i64, Arc<Files>>,
    /// Segments whose sidecar or payloads were written.
    sidecars: BTreeMap<i64, Arc<Files>>,
    /// Segments that were ended: all their files are to be durable with the next data.
    sealed: BTreeMap<i64, Arc<Files>>,
    /// Whole files that were written aside and renamed.
    others: BTreeSet<PathBuf>,
    /// Whether names were given or taken.
    names: bool,
}

#[derive(Debug, Default)]
struct Lists {
    dirty: Dirty,
    /// What flushes have taken that have begun and not ended, by ticket. A later flush syncs what
    /// an earlier one took, so that none ends before all that was appended before it is durable.
    in_flight: BTreeMap<u64, Dirty>,
    last_ticket: u64,
}

/// The handle through which a flusher makes a log durable, from any thread.
///
/// The first sync that fails is final (I10): the pages count as clean afterwards, so a second one
/// would succeed and mean nothing (W8).
#[derive(Debug)]
pub struct LogSync {
    disk: Arc<dyn Disk>,
    dir: Arc<PathBuf>,
    state: Mutex<Lists>,
    /// Held while files are synced: a sync that finds nothing dirty must not return before the one
    /// that took it has ended.
    running: Mutex<()>,
    poisoned: AtomicBool,
    /// Base offset of the newest segment all of whose files are durable, as are those before it.
    synced_segment: AtomicI64,
    /// The same as headers may say it: as it stood when the last sync began. A header that is written
    /// beside a flush round speaks of rounds that have ended only, like the stored durable index (I6).
    durable_segment: AtomicI64,
}

impl LogSync {
    pub(crate) fn new(disk: &Arc<dyn Disk>, dir: &Arc<PathBuf>) -> Self {
        Self {
            disk: Arc::clone(disk),
            dir: Arc::clone(dir),
            state: Mutex::new(Lists::default()),
            running: Mutex::new(()),
            poisoned: AtomicBool::new(false),
            synced_segment: AtomicI64::new(-1),
            durable_segment: AtomicI64::new(-1),
        }
    }

    /// Makes durable what was appended before the call: the batches, the names of new segments,
    /// and everything of segments that were ended. Sidecar records of data in the newest segment
    /// are not synced: recovery makes them again from the batches.
    ///
    /// # Errors
    /// The first failure, and `Other` ever after.
    pub fn sync(&self) -> io::Result<()> {
        self.finish(self.take(false))
    }

    /// Makes every file of the log durable, sidecars included: what a checkpoint of the node WAL
    /// asks for before it lets the records of this log go (W6).
    ///
    /// # Errors
    /// The first failure, and `Other` ever after.
    pub fn sync_all(&self) -> io::Result<()> {
        self.finish(self.take(true))
    }

    /// The first half of [`LogSync::sync`], for a flush that begins now and ends later: what was
    /// appended before this call is what [`LogFlush::sync`] makes durable, and what is appended in
    /// between is left for the next.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> LogFlush {
        LogFlush {
            ticket: self.take(false),
            sync: Arc::clone(self),
        }
    }

    /// The first half of [`LogSync::sync_all`].
    #[must_use]
    pub fn begin_all(self: &Arc<Self>) -> LogFlush {
        LogFlush {
            ticket: self.take(true),
            sync: Arc::clone(self),
        }
    }

    /// A segment's file was exchanged for another, which is durable: what is to be synced is to be of the new
    /// files.
    pub(crate) fn exchanged(&self, files: &Arc<Files>) {
        let mut lists = self.state.lock();
        let Dirty {
            logs,
            sidecars,
            sealed,
            ..
        } = &mut lists.dirty;
        for of in [logs, sidecars, sealed] {
            if let Some(old) = of.get_mut(&files.base_offset) {
                *old = Arc::clone(files);
            }
        }
    }

    /// Whether anything was written since the last sync that [`LogSync::sync`] would make durable.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        let dirty = &self.state.lock().dirty;
        dirty.names || !dirty.logs.is_empty() || !dirty.sealed.is_empty()
    }

    /// Whether a write or sync of this log has failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Refuses everything from now on.
    pub fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn check(&self) -> Result<(), LogError> {
        if self.is_poisoned() {
            return Err(LogError::Poisoned {
                path: self.dir.to_path_buf(),
            });
        }
        Ok(())
    }

    /// Moves what is dirty to what is being synced.
    fn take(&self, sidecars: bool) -> u64 {
        let mut state = self.state.lock();
        let ended = self.synced_segment.load(Ordering::Acquire);
        self.durable_segment.fetch_max(ended, Ordering::AcqRel);
        let mut taken = std::mem::take(&mut state.dirty);
        if !sidecars {
            let sealed = &taken.sealed;
            let keep = std::mem::take(&mut taken.sidecars);
            state.dirty.sidecars = keep
                .into_iter()
                .filter(|(base, _)| !sealed.contains_key(base))
                .collect();
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.in_flight.insert(ticket, taken);
        ticket
    }

    /// Syncs what was taken with this ticket or an earlier one.
    fn finish(&self, ticket: u64) -> io::Result<()> {
        let _one_at_a_time = self.running.lock();
        if self.is_poisoned() {
            return Err(io::Error::other(
                "an earlier write or sync of this log failed",
            ));
        }
        loop {
            let taken = {
                let mut state = self.state.lock();
                match state.in_flight.first_entry() {
                    Some(first) if *first.key() <= ticket => first.remove(),
                    _ => return Ok(()),
                }
            };
            if let Err(error) = self.sync_taken(&taken) {
                self.poison();
                return Err(error);
            }
        }
    }

    fn sync_taken(&self, taken: &Dirty) -> io::Result<()> {
        for files in taken.logs.values() {
            sync_files(files, &[SegmentFile::Log])?;
        }
        for files in taken.sidecars.values() {
            sync_files(files, &[SegmentFile::Aux, SegmentFile::Raft])?;
        }
        for files in taken.sealed.values() {
            use SegmentFile::{Aux, Index, Raft, TimeIndex};
            sync_files(files, &[Aux, Raft, Index, TimeIndex])?;
        }
        for path in &taken.others {
            match self.disk.open(path, OpenMode::Existing) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if taken.names {
            self.disk.sync_dir(&self.dir)?;
        }
        self.is_durable(taken);
        Ok(())
    }

    fn is_durable(&self, taken: &Dirty) {
        if let Some((base, _)) = taken.sealed.last_key_value() {
            self.synced_segment.fetch_max(*base, Ordering::AcqRel);
        }
    }

    fn with_dirty(&self, change: impl FnOnce(&mut Dirty)) {
        change(&mut self.state.lock().dirty);
    }

    pub(crate) fn wrote_log(&self, files: &Arc<Files>) {
        self.with_dirty(|dirty| {
            dirty
                .logs
                .entry(files.base_offset)
                .or_insert_with(|| Arc::clone(files));
        });
    }

    pub(crate) fn wrote_sidecar(&self, files: &Arc<Files>) {
        self.with_dirty(|dirty| {
            dirty
                .sidecars
                .entry(files.base_offset)
                .or_insert_with(|| Arc::clone(files));
        });
    }

    pub(crate) fn sealed(&self, files: &Arc<Files>) {
        self.with_dirty(|dirty| {
            dirty.sealed.insert(files.base_offset, Arc::clone(files));
            dirty.names = true;
        });
    }

    /// A name was given or taken.
    pub(crate) fn named(&self) {
        self.with_dirty(|dirty| dirty.names = true);
    }

    /// A file was written aside and renamed.
    pub(crate) fn renamed(&self, path: PathBuf) {
        self.with_dirty(|dirty| {
            dirty.others.insert(path);
            dirty.names = true;
        });
    }

    /// Forgets what was to be synced of the segments that `gone` says: they are gone, or all of
    /// them was synced.
    pub(crate) fn forget(&self, gone: impl Fn(i64) -> bool) {
        let mut state = self.state.lock();
        let Lists {
            dirty, in_flight, ..
        } = &mut *state;
        for dirty in in_flight.values_mut().chain([dirty]) {
            dirty.logs.retain(|base, _| !gone(*base));
            dirty.sidecars.retain(|base, _| !gone(*base));
            dirty.sealed.retain(|base, _| !gone(*base));
        }
    }

    pub(crate) fn durable_segment(&self) -> i64 {
        self.durable_segment.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable_segment(&self, base_offset: i64) {
        self.synced_segment.store(base_offset, Ordering::Release);
        self.durable_segment.store(base_offset, Ordering::Release);
    }
}

impl SyncTarget for LogSync {
    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_full(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn written_mark(&self) -> u64 {
        self.take(true)
    }

    fn synced_through(&self, mark: u64) -> io::Result<()> {
        let _one_at_a_time = self.running.lock();
        if self.is_poisoned() {
            return Err(io::Error::other(
                "an earlier write or sync of this log failed",
            ));
        }
        loop {
            let mut state = self.state.lock();
            match state.in_flight.first_entry() {
                Some(first) if *first.key() <= mark => self.is_durable(&first.remove()),
                _ => return Ok(()),
            }
        }
    }

    fn sync_failed(&self) {
        self.poison();
    }
}

/// A flush of one log that has begun.
#[derive(Debug)]
pub struct LogFlush {
    sync: Arc<LogSync>,
    ticket: u64,
}

impl LogFlush {
    /// Makes durable what had been appended when the flush began. May block.
    ///
    /// # Errors
    /// The first failure of the log, and `Other` ever after.
    pub fn sync(&self) -> io::Result<()> {
        self.sync.finish(self.ticket)
    }
}

fn sync_files(files: &Files, which: &[SegmentFile]) -> io::Result<()> {
    for file in which {
        // A file that was never opened was never written.
        if let Some(open) = files.opened(*file) {
            open.sync_data().inspect_err(|error| {
                tracing::error!(file = %open.path().display(), %error, "a file cannot be synced");
            })?;
        }
    }
    Ok(())
}
