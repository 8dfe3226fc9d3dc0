//! Whoever is told that a change of the cluster was made hears of his own, and no change is made twice.
//!
//! The changes that are watched take producer ids, each as many as no other one does.

use std::collections::BTreeMap;

use riverrun_replication::controller::{Command, Outcome};

use super::{Checked, Violation};

/// Where each change was made.
#[derive(Debug, Default)]
pub struct Changed {
    /// By how many ids it takes: the offset of its batch.
    made: BTreeMap<u32, i64>,
}

fn broken(detail: String) -> Checked {
    Err(Violation::new("what_is_changed_was_asked_for", detail))
}

impl Changed {
    /// A node has applied the commands of the batch at an offset.
    ///
    /// # Errors
    /// Where one of them was applied at another offset before.
    pub fn applied(&mut self, node: usize, offset: i64, commands: &[Command]) -> Checked {
        for command in commands {
            let Command::AllocateProducerIds(taken) = command else {
                continue;
            };
            let first = *self.made.entry(taken.count).or_insert(offset);
            if first != offset {
                return broken(format!(
                    "node {node}: the change that takes {} ids is made at {first} and at {offset}",
                    taken.count
                ));
            }
        }
        Ok(())
    }

    /// A node is told what came of its change.
    ///
    /// # Errors
    /// Where that is what came of another one.
    pub fn told(&self, node: usize, asked: u32, offset: i64, outcomes: &[Outcome]) -> Checked {
        match outcomes {
            [Outcome::ProducerIds { count, .. }]
                if *count == asked && self.made.get(&asked) == Some(&offset) =>
            {
                Ok(())
            }
            other => broken(format!(
                "node {node} asked for {asked} ids, and was told of {other:?} at {offset}"
            )),
        }
    }
}
