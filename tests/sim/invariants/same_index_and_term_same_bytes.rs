//! Two entries of a group with the same index and term are the same entry, on every replica and in
//! every life (Raft's log matching). A shifted index after a crash (I4) or a cut in the wrong order
//! (W5) breaks it.

use std::collections::BTreeMap;

use super::{Checked, Violation};
use crate::mark::Mark;

/// Every entry ever written anywhere, by group, index and term.
#[derive(Debug, Default)]
pub struct Seen {
    entries: BTreeMap<(u64, u64, u64), (Mark, Option<usize>)>,
}

impl Seen {
    /// A replica wrote an entry, or found it in its files.
    ///
    /// `alone`: its term is not durable there, so that nothing of it may have left the node (L3). Where
    /// a crash takes term and entry, the only voter may come to the same term with another entry.
    ///
    /// # Errors
    /// Where another one had the same index and term.
    pub fn saw(&mut self, group: u64, node: usize, mark: &Mark, alone: bool) -> Checked {
        let owner = alone.then_some(node);
        match self.entries.get_mut(&(group, mark.index, mark.term)) {
            None => {
                let key = (group, mark.index, mark.term);
                self.entries.insert(key, (*mark, owner));
            }
            Some((before, by)) if before == mark => {
                if *by != owner {
                    *by = None;
                }
            }
            Some(entry) if entry.1 == Some(node) => *entry = (*mark, owner),
            Some((before, _)) => {
                return Err(Violation::new(
                    "same_index_and_term_same_bytes",
                    format!("group {group}: node {node} has {mark:?}, before it was {before:?}"),
                ));
            }
        }
        Ok(())
    }
}
