//! What a check has found.

use std::path::{Path, PathBuf};

/// Findings of one directory that are kept; there may be one for every few bytes.
const MAX_FINDINGS: usize = 1000;

/// One place that is worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Damage, or else only something to know.
    pub(super) is_damage: bool,
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
        self.add(true, path, position.into(), what.into());
    }

    /// Something is as a crash may leave it, or otherwise worth knowing.
    pub(super) fn note(
        &mut self,
        path: &Path,
        position: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) {
        self.add(false, path, position.into(), what.into());
    }

    /// The one or the other.
    pub(super) fn add(
        &mut self,
        is_damage: bool,
        path: &Path,
        position: Option<u64>,
        what: String,
    ) {
        self.damaged += u64::from(is_damage);
        if self.kept.len() < MAX_FINDINGS {
            self.kept.push(Finding {
                is_damage,
                path: path.to_path_buf(),
                position,
                what,
            });
        } else {
            self.left_out += 1;
        }
    }
}
