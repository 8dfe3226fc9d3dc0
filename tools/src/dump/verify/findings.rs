//! What a check has found.

use std::path::{Path, PathBuf};

/// Findings of one directory that are kept; there may be one for every few bytes.
const MAX_FINDINGS: usize = 1000;

/// What a place means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Something is lost, or wrong and will stay so.
    Damage,
    /// It says nothing that other files do not say, and the next start makes it anew.
    Rebuilt,
    /// As a crash may leave it, or otherwise worth knowing.
    Note,
}

/// One place that is worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) weight: Weight,
    pub(super) path: PathBuf,
    pub(super) position: Option<u64>,
    pub(super) what: String,
}

/// What was found in one directory.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    /// Damaged places, kept or not.
    pub(super) damaged: u64,
    /// Places that the next start makes anew, kept or not.
    pub(super) rebuilt: u64,
    pub(super) left_out: u64,
}

impl Findings {
    /// Something is wrong.
    pub(super) fn damage(
        &mut self,
        path: &Path,
        position: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) {
        self.put(Weight::Damage, path, position.into(), what.into());
    }

    /// Something is wrong that the next start makes anew.
    pub(super) fn rebuilt(
        &mut self,
        path: &Path,
        position: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) {
        self.put(Weight::Rebuilt, path, position.into(), what.into());
    }

    /// Something is as a crash may leave it, or otherwise worth knowing.
    pub(super) fn note(
        &mut self,
        path: &Path,
        position: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) {
        self.put(Weight::Note, path, position.into(), what.into());
    }

    /// Damage, or only something to know.
    pub(super) fn add(
        &mut self,
        is_damage: bool,
        path: &Path,
        position: Option<u64>,
        what: String,
    ) {
        let weight = if is_damage {
            Weight::Damage
        } else {
            Weight::Note
        };
        self.put(weight, path, position, what);
    }

    /// Damage, or what the next start makes anew.
    pub(super) fn derived(
        &mut self,
        is_remade: bool,
        path: &Path,
        position: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) {
        let weight = if is_remade {
            Weight::Rebuilt
        } else {
            Weight::Damage
        };
        self.put(weight, path, position.into(), what.into());
    }

    /// Whether something may look otherwise in a moment, where a node is at it.
    pub(super) fn looks_bad(&self) -> bool {
        self.damaged + self.rebuilt > 0
    }

    fn put(&mut self, weight: Weight, path: &Path, position: Option<u64>, what: String) {
        self.damaged += u64::from(weight == Weight::Damage);
        self.rebuilt += u64::from(weight == Weight::Rebuilt);
        if self.kept.len() < MAX_FINDINGS {
            self.kept.push(Finding {
                weight,
                path: path.to_path_buf(),
                position,
                what,
            });
        } else {
            self.left_out += 1;
        }
    }
}
