//! A directory in memory.

use std::collections::BTreeMap;

use super::crash::CrashModel;
use super::rng::Rng;

/// Names given (to an inode) and taken, together or not at all.
pub(super) type NameChange = Vec<(String, Option<usize>)>;

/// One directory: its names, those that are durable, and what was done in between.
#[derive(Debug, Clone, Default)]
pub(super) struct DirState {
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable: BTreeMap<String, usize>,
    /// Each change with its sequence number.
    pub(super) pending: Vec<(u64, NameChange)>,
}

fn apply(names: &mut BTreeMap<String, usize>, change: NameChange) {
    for (name, inode) in change {
        match inode {
            Some(inode) => names.insert(name, inode),
            None => names.remove(&name),
        };
    }
}

impl DirState {
    pub(super) fn change(&mut self, seq: u64, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.pending.push((seq, change));
    }

    pub(super) fn sync(&mut self, horizon: Option<u64>) {
        let upto = match horizon {
            None => self.pending.len(),
            Some(horizon) => self.pending.partition_point(|(seq, _)| *seq <= horizon),
        };
        for (_, change) in self.pending.drain(..upto) {
            apply(&mut self.durable, change);
        }
    }

    /// Loses power: each change that was not synced is kept or not, on its own.
    pub(super) fn crash(&mut self, rng: &mut Rng, model: &CrashModel) {
        for (_, change) in self.pending.drain(..) {
            if rng.chance(model.name_kept_permille) {
                apply(&mut self.durable, change);
            }
        }
        self.names.clone_from(&self.durable);
    }
}
