//! Putting right in place what is bad at rest, with another replica's entries (R8).

use std::sync::atomic::Ordering;

use riverrun_storage::{LogEntry, LogError};

use super::Node;

impl Node {
    /// Writes the files of the segment that these entries lie in anew and exchanges them. False where the
    /// replica, or the segment, is not there any more. Blocks; the group's writer waits for the exchange
    /// alone.
    ///
    /// # Errors
    /// Where an entry is not the one that belongs there, or the disk refuses: the replica stays as it was.
    pub fn mend(&self, group: u64, entries: &[LogEntry]) -> Result<bool, LogError> {
        let Some(files) = self.files_of(group) else {
            return Ok(false);
        };
        let reader = files.handle.reader();
        for mended in reader.mend(entries)? {
            let mut log = files.log.lock();
            if files.gone.load(Ordering::SeqCst) || !log.exchange(mended)? {
                return Ok(false);
            }
        }
        for entry in entries {
            reader.verify(entry.index)?;
        }
        Ok(true)
    }
}
