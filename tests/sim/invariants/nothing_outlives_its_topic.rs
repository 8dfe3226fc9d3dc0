//! A topic that was deleted is gone when another one has its name (L8): what is written to it from
//! then on is not acknowledged, and nothing of it turns up in the other.

use std::collections::BTreeMap;

use super::{Checked, Violation};

/// Groups of topics whose name another one has.
#[derive(Debug, Default)]
pub struct Replaced {
    /// The first batch that was made after that.
    from: BTreeMap<u64, i64>,
}

impl Replaced {
    /// Another topic has the name; this batch is the first of those that are made from now on.
    pub fn is_replaced(&mut self, group: u64, from: i64) {
        self.from.entry(group).or_insert(from);
    }

    /// A leader acknowledges a batch as one that a majority has.
    ///
    /// # Errors
    /// Where it was made when the topic was gone.
    pub fn acknowledges(&self, group: u64, node: usize, batch: i64) -> Checked {
        match self.from.get(&group) {
            Some(from) if batch >= *from => Err(Violation::new(
                "nothing_outlives_its_topic",
                format!(
                    "group {group} on node {node} acknowledges batch {batch}, its topic is no more"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// A batch is committed in a group.
///
/// # Errors
/// Where it was made for another one.
pub fn belongs(group: u64, node: usize, batch: i64, made_for: u64) -> Checked {
    if group == made_for {
        return Ok(());
    }
    Err(Violation::new(
        "nothing_outlives_its_topic",
        format!("group {group} on node {node} has batch {batch}, which was made for {made_for}"),
    ))
}
