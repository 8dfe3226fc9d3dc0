//! Putting right in place what is bad at rest, with another replica's entries (R8).

use std::sync::atomic::Ordering;

use riverrun_storage::{LogEntry, LogError};

use super::Node;
use crate::shard::Input;

/// What came of putting entries right.
#[derive(Debug)]
pub enum Mended {
    /// The replica, or the segment, is not there any more.
    Gone,
    /// They are right.
    Done,
    /// They are right, and all producers are known: for the group's shard.
    Sighted(Box<Input>),
}

impl Node {
    /// Writes the files of the segment that these entries lie in anew and exchanges them. False where the
    /// replica, or the segment, is not there any more. Blocks; the group's writer waits for the exchange
    /// alone.
    ///
    /// Where bad batches hid something of producers, the input tells the shard what they say.
    ///
    /// # Errors
    /// Where an entry is not the one that belongs there, or the disk refuses: the replica stays as it was.
    pub fn mend(&self, group: u64, entries: &[LogEntry]) -> Result<Mended, LogError> {
        let Some(files) = self.files_of(group) else {
            return Ok(Mended::Gone);
        };
        let reader = files.handle.reader();
        let mended = reader.mend(entries)?;
        {
            let mut log = files.log.lock();
            if files.gone.load(Ordering::SeqCst) || !log.exchange(mended)? {
                return Ok(Mended::Gone);
            }
        }
        for entry in entries {
            reader.verify(entry.index)?;
        }
        self.remember_bad(group)?;
        if !files.handle.is_blind() {
            return Ok(Mended::Done);
        }
        let offset = files.handle.published().high_watermark;
        let known = reader.recover_known_producers(offset)?;
        if !known.is_all() {
            // Whoever puts the others right tells.
            return Ok(Mended::Done);
        }
        Ok(Mended::Sighted(Box::new(Input::Sighted {
            group,
            offset,
            producers: Box::new(known.state),
        })))
    }
}
