//! Entries that the disk refuses to give: tried again, and in the end taken for bad (R16).

use std::sync::Arc;

use riverrun_storage::node::{IDENTITY_FILE, NODE_DIR};
use riverrun_storage::{LenientDisk, LogError, OpenMode};

use super::Node;
use crate::unreadable::{Elsewhere, is_damage};

/// What came of trying an entry again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// The disk gives it.
    Reads,
    /// It does not, and that may pass.
    Refuses,
    /// It is taken for bad, with what lies in the same place.
    GivenUp,
}

impl Node {
    /// Tries an entry again that the disk refused. Blocks.
    ///
    /// # Errors
    /// Where the log does not have it, or what is wrong is something else.
    pub fn try_again(&self, group: u64, index: u64) -> Result<Tried, LogError> {
        let Some(handle) = self.handle(group) else {
            return Ok(Tried::Reads);
        };
        let reader = handle.reader();
        match reader.verify(index) {
            Ok(()) => return Ok(Tried::Reads),
            Err(error) if error.is_of_one_place() => {}
            Err(error) => return Err(error),
        }
        let refused = reader.unreadable_entries();
        let since = refused.iter().find(|(of, _)| *of == index);
        let Some((_, lasts)) = since.copied() else {
            return Ok(Tried::Refuses);
        };
        let now = self.disk.now();
        if !is_damage(now.saturating_sub(lasts), now, self.elsewhere(group)) {
            return Ok(Tried::Refuses);
        }
        reader.give_up_reading(index)?;
        tracing::error!(
            group,
            index,
            "the disk has refused a place of a log for ten minutes while it gives others: what lies there \
             counts as bad"
        );
        self.remember_bad(group)?;
        Ok(Tried::GivenUp)
    }

    /// The disk to open a group's log on where a place of it counts as bad by now: it is tried once more, and
    /// what is refused then reads as zeros.
    pub(super) fn given_up_disk(&self, group: u64) -> Option<LenientDisk> {
        let (_, since) = self.unopened_of(group)?.refused?;
        let damaged = is_damage(since, self.disk.now(), self.elsewhere(group));
        damaged.then(|| LenientDisk::new(Arc::clone(&self.disk)))
    }

    /// What the disk does with the logs of other groups, and with the node's own files.
    fn elsewhere(&self, group: u64) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        let identity = self.data.join(NODE_DIR).join(IDENTITY_FILE);
        let mut bytes = [0; 16];
        let opened = self.disk.open(&identity, OpenMode::Existing);
        if opened.is_ok_and(|file| file.read_past_cache(&mut bytes, 0).is_ok()) {
            elsewhere.reading += 1;
        }
        for handle in self.handles() {
            let reader = handle.reader();
            if handle.group() == group {
                continue;
            }
            if reader.unreadable_entries().is_empty() && reader.reads() {
                elsewhere.reading += 1;
            } else {
                elsewhere.refusing += 1;
            }
        }
        let unopened = self.unopened();
        let others = unopened.iter().filter(|of| of.identity.group != group);
        elsewhere.refusing += others.filter(|of| of.refused.is_some()).count();
        elsewhere
    }
}
