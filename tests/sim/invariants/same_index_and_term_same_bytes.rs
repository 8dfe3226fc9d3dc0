//! Two entries of a group with the same index and term are the same entry, on every replica and in
//! every life (Raft's log matching). A shifted index after a crash (I4) or a cut in the wrong order
//! (W5) breaks it.

use std::collections::BTreeMap;

use super::{Checked, Violation};
use crate::mark::Mark;

/// Every entry ever written anywhere, by group, index and term.
#[derive(Debug, Default)]
pub struct Seen {
    entries: BTreeMap<(u64, u64, u64), Mark>,
}

impl Seen {
    /// A replica wrote an entry, or found it in its files.
    ///
    /// # Errors
    /// Where another one had the same index and term.
    pub fn saw(&mut self, group: u64, node: usize, mark: &Mark) -> Checked {
        match self.entries.get(&(group, mark.index, mark.term)) {
            None => {
                self.entries.insert((group, mark.index, mark.term), *mark);
                Ok(())
            }
            Some(before) if before == mark => Ok(()),
            Some(before) => Err(Violation::new(
                "same_index_and_term_same_bytes",
                format!("group {group}: node {node} has {mark:?}, before it was {before:?}"),
            )),
        }
    }
}
