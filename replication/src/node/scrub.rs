//! Carrying a scrub out on the logs of a node.

use std::sync::atomic::Ordering;

use riverrun_storage::{LogError, Scrubbed};

use super::Node;
use crate::scrub::Piece;

impl Node {
    /// Looks at a part of a piece, of about so many bytes, and makes anew what lies beside the batches, follows
    /// from them and is wrong. What is bad of the rest is noted in the log's reader. None where the replica is
    /// not there, or its log takes nothing more. Blocks.
    ///
    /// # Errors
    /// Where the machine or the disk does not answer.
    pub fn scrub(&self, piece: &Piece, most_bytes: u64) -> Result<Option<Scrubbed>, LogError> {
        let Some(files) = self.files_of(piece.group) else {
            return Ok(None);
        };
        if files.gone.load(Ordering::SeqCst) || files.sync.is_poisoned() {
            return Ok(None);
        }
        let interval_bytes = files.log.lock().config().index_interval_bytes;
        let mut scrubber = files.scrubber.lock();
        let range = (piece.from, piece.through);
        let reader = files.handle.reader();
        let mut scrubbed = reader.scrub(&mut scrubber, range, most_bytes, interval_bytes)?;
        if scrubbed.stale.is_empty() && reader.remembers_bad() {
            return Ok(Some(scrubbed));
        }
        for path in &scrubbed.stale {
            tracing::warn!(
                group = piece.group,
                file = %path.display(),
                "a file is not what it should be at rest: it is made anew from the log"
            );
        }
        let mut log = files.log.lock();
        if files.gone.load(Ordering::SeqCst) {
            return Ok(None);
        }
        log.remember_bad()?;
        log.renew_stale(&mut scrubbed)?;
        Ok(Some(scrubbed))
    }

    /// Writes down beside the log of a group which of its entries are bad, where that has changed. Blocks.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remember_bad(&self, group: u64) -> Result<(), LogError> {
        let Some(files) = self.files_of(group) else {
            return Ok(());
        };
        let mut log = files.log.lock();
        if files.gone.load(Ordering::SeqCst) {
            return Ok(());
        }
        log.remember_bad()
    }
}
