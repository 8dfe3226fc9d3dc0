//! Offsets are dense: every data entry begins where the one before it ended, on every replica (I1,
//! I2).

use super::{Checked, Violation};
use crate::mark::Mark;

/// An entry follows another one in a replica's log.
///
/// # Errors
/// Where index or offset do not follow on.
pub fn follows(group: u64, node: usize, before: &Mark, mark: &Mark) -> Checked {
    if mark.index == before.index + 1 && mark.base_offset == before.next_offset() {
        return Ok(());
    }
    Err(Violation::new(
        "offsets_dense",
        format!("group {group}: node {node} has {mark:?} behind {before:?}"),
    ))
}
