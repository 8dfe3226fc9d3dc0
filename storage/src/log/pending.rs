//! What recovery's landing replaces: until then a log is created and never opened again.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::log::{Log, LogConfig, LogError, LogResult};
use crate::producer_state::ProducerState;
use crate::recovered::{GroupRecord, LogStart, StoredConf};

/// What recovery found.
#[derive(Debug, Clone, Default)]
pub struct Recovery {}

impl Log {
    fn not_yet<T>(path: &Path) -> LogResult<T> {
        Err(LogError::Missing { path: path.to_path_buf() })
    }

    /// Opens a log again.
    pub fn open(
        _disk: Arc<dyn Disk>,
        dir: &Path,
        _record: &GroupRecord,
        _config: LogConfig,
    ) -> LogResult<(Self, Recovery)> {
        Self::not_yet(dir)
    }

    /// Cuts the tail.
    pub fn truncate_from(&mut self, _index: u64) -> LogResult<()> {
        Self::not_yet(self.dir())
    }

    /// Begins again.
    pub fn reset(&mut self, _start: LogStart, _conf: &StoredConf) -> LogResult<()> {
        Self::not_yet(self.dir())
    }

    /// Drops whole segments.
    pub fn drop_head(&mut self, _keep_from: u64, _conf: &StoredConf) -> LogResult<LogStart> {
        Self::not_yet(self.dir())
    }

    /// Writes a producer snapshot.
    pub fn write_producer_snapshot(&mut self, _: i64, _: &ProducerState) -> LogResult<()> {
        Ok(())
    }

    /// The producers up to an offset.
    pub fn recover_producer_state(&self, _up_to_offset: i64) -> LogResult<ProducerState> {
        Ok(ProducerState::default())
    }
}
