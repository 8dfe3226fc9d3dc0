//! A partition's log on disk: segments of record batches with what Raft knows of them beside.
//!
//! One [`Log`] writes; any number of [`LogReader`]s read at the same time; a [`LogSync`] makes
//! durable what was written. The log itself never waits for a disk sync but in
//! [`Log::truncate_from`], [`Log::drop_head`], [`Log::reset`] and [`Log::open`].

mod append;
mod at_rest;
mod bad;
mod config;
mod error;
mod exchange;
mod fetch;
mod files;
mod mend;
mod merge;
mod open;
mod producers;
mod reader;
mod remembered;
mod renew;
mod repair;
mod runs;
mod scan;
mod scrub;
mod segment;
mod shared;
mod snapshots;
mod sync;
mod timestamps;
mod truncate;
mod trust;
mod verified;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::disk::{Disk, OpenMode};
use crate::format::{SegmentFile, TMP_SUFFIX, leader_epochs, partition_metadata};
use crate::recovered::{LogIdentity, LogStart, StoredConf};

pub use append::Appended;
pub use bad::BadEntry;
pub use config::{LogConfig, MAX_SEGMENT_BYTES};
pub use error::{LogError, LogResult};
pub use exchange::Mended;
pub use fetch::Fetched;
pub use open::Recovery;
pub use producers::KnownProducers;
pub use reader::{EntryMeta, LogReader};
pub use scrub::{Scrubbed, Scrubber};
pub use sync::{LogFlush, LogSync};
pub use timestamps::TimestampOffset;

use error::IoContext;
use runs::TermRuns;
use shared::{Inner, Shared};

/// The writer of one partition's log (I8: there is one).
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    sync: Arc<LogSync>,
    config: LogConfig,
    identity: LogIdentity,
    /// Where the log was created or last reset.
    birth: LogStart,
    /// The newest configuration that the log was told of, for the headers of new segments.
    conf: StoredConf,
    /// Bytes of the active `.log` that blocks are reserved for.
    reserved: u64,
    /// Entries of the active indexes that are in their files.
    indexed: append::IndexedSoFar,
}

impl Log {
    /// Creates the directory and the first, empty segment, all of it durable before this returns.
    ///
    /// # Errors
    /// `Exists` where files of a log are there already, leaving them alone; I/O errors.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: &LogIdentity,
        start: LogStart,
        conf: &StoredConf,
        config: LogConfig,
    ) -> LogResult<Self> {
        disk.create_dir_all(dir).at(dir)?;
        let names = disk.read_dir(dir).at(dir)?;
        if names
            .iter()
            .any(|entry| SegmentFile::parse(&entry.name).is_some())
        {
            return Err(LogError::Exists {
                path: dir.to_path_buf(),
            });
        }
        let dir = Arc::new(dir.to_path_buf());
        Self::begin(disk, dir, identity, start, conf, config)
    }

    /// The first segment in a directory that has none; a reset's producer snapshot may lie there.
    fn begin(
        disk: Arc<dyn Disk>,
        dir: Arc<PathBuf>,
        identity: &LogIdentity,
        start: LogStart,
        conf: &StoredConf,
        config: LogConfig,
    ) -> LogResult<Self> {
        let sync = Arc::new(LogSync::new(&disk, &dir));
        let spec = segment::Spec {
            disk: &disk,
            dir: &dir,
            identity,
            birth: start,
            conf,
        };
        let active = spec.create(start, -1)?;
        segment::reserve_first(&active, &config)?;
        write_partition_metadata(&disk, &dir, identity)?;
        let shared = Shared {
            disk,
            dir,
            inner: RwLock::new(Inner {
                start,
                sealed: Vec::new(),
                active,
                runs: TermRuns::default(),
            }),
            bad: parking_lot::Mutex::default(),
            unreadable: parking_lot::Mutex::default(),
            remembered: parking_lot::Mutex::default(),
            lost: parking_lot::Mutex::default(),
        };
        let log = Self::assemble(shared, sync, config, identity.clone(), start, conf.clone());
        log.sync_everything()?;
        Ok(log)
    }

    fn assemble(
        shared: Shared,
        sync: Arc<LogSync>,
        config: LogConfig,
        identity: LogIdentity,
        birth: LogStart,
        conf: StoredConf,
    ) -> Self {
        let reserved = shared.inner.read().active.log_len;
        Self {
            shared: Arc::new(shared),
            sync,
            config,
            identity,
            birth,
            conf,
            reserved,
            indexed: append::IndexedSoFar::default(),
        }
    }

    /// Syncs the files of the active segment and the directory.
    fn sync_everything(&self) -> LogResult<()> {
        {
            let inner = self.shared.inner.read();
            self.sync.wrote_log(&inner.active.files);
            self.sync.wrote_sidecar(&inner.active.files);
        }
        self.sync.named();
        self.sync.sync_all().at(&self.shared.dir)
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self) -> &LogIdentity {
        &self.identity
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings from the next append on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Tells the newest configuration, for the headers of new segments. The node WAL is what keeps
    /// it; the headers are for whoever looks at the files.
    pub fn set_conf(&mut self, conf: StoredConf) {
        self.conf = conf;
    }

    /// A handle for reading, from any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// The handle for making durable what was appended.
    #[must_use]
    pub fn sync_handle(&self) -> Arc<LogSync> {
        Arc::clone(&self.sync)
    }

    /// The entry before the first one, and the first offset.
    #[must_use]
    pub fn start(&self) -> LogStart {
        self.shared.inner.read().start
    }

    /// Index of the first entry; one above the last if there is none.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.shared.inner.read().first_index()
    }

    /// Index of the last entry; that before the first if there is none.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.shared.inner.read().last_index()
    }

    /// Term of the last entry, or of that before the first.
    #[must_use]
    pub fn last_term(&self) -> u64 {
        let inner = self.shared.inner.read();
        inner.runs.last_term().unwrap_or(inner.start.prev_term)
    }

    /// The offset that the next batch gets.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.shared.inner.read().next_offset()
    }

    /// Writes the part of the indexes that is still in memory, and Kafka's leader epochs. For a
    /// clean stop; nothing that recovery needs.
    ///
    /// # Errors
    /// I/O errors, which poison the log.
    pub fn flush_indexes(&mut self) -> LogResult<()> {
        self.sync.check()?;
        self.write_indexes()?;
        self.write_leader_epochs()
    }

    fn write_leader_epochs(&self) -> LogResult<()> {
        let epochs = self.shared.inner.read().runs.epochs();
        let text = leader_epochs::encode(&epochs);
        self.write_aside(leader_epochs::FILE_NAME, text.as_bytes())
    }

    /// Writes a whole file under another name and renames it; durable with the next sync.
    fn write_aside(&self, name: &str, bytes: &[u8]) -> LogResult<()> {
        let path = write_whole(&self.shared.disk, &self.shared.dir, name, bytes)?;
        self.sync.renamed(path);
        Ok(())
    }
}

impl Log {
    /// Kafka's `partition.metadata` is written for its tools. One that does not name a topic id is made anew; what
    /// it should say is known.
    fn remake_partition_metadata(&self) -> LogResult<()> {
        let (disk, dir) = (&self.shared.disk, &self.shared.dir);
        let path = dir.join(partition_metadata::FILE_NAME);
        let read = disk
            .open(&path, OpenMode::Existing)
            .at(&path)
            .and_then(|file| files::read_whole(&file));
        let text = open::or_unreadable(read)?.and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(partition_metadata::decode) {
            Some(id) if id == self.identity.topic_id => return Ok(()),
            Some(id) => {
                tracing::warn!(file = %path.display(), %id, "the file names another topic");
                return Ok(());
            }
            None => {}
        }
        let written = write_partition_metadata(disk, dir, &self.identity);
        match written {
            Err(LogError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Ok(())
            }
            written => {
                self.sync.named();
                written
            }
        }
    }
}

fn write_partition_metadata(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    identity: &LogIdentity,
) -> LogResult<()> {
    let text = partition_metadata::encode(identity.topic_id);
    let path = write_whole(disk, dir, partition_metadata::FILE_NAME, text.as_bytes())?;
    let file = disk.open(&path, OpenMode::Existing).at(&path)?;
    file.sync_data().at(&path)
}

/// Writes a file under another name and renames it, without syncing either.
fn write_whole(disk: &Arc<dyn Disk>, dir: &Path, name: &str, bytes: &[u8]) -> LogResult<PathBuf> {
    let path = dir.join(name);
    let aside = dir.join(format!("{name}{TMP_SUFFIX}"));
    let file = disk.open(&aside, OpenMode::Create).at(&aside)?;
    if file.len().at(&aside)? > 0 {
        file.set_len(0).at(&aside)?;
    }
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0)
        .at(&aside)?;
    drop(file);
    disk.rename(&aside, &path).at(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests;
