//! Files are never cut at or below what the replica knows to be committed (I3).

use super::{Checked, Violation};

/// A replica cuts its files.
///
/// # Errors
/// Where the cut reaches what is committed.
pub fn cuts(group: u64, node: usize, from: u64, commit: u64) -> Checked {
    if from > commit {
        return Ok(());
    }
    Err(Violation::new(
        "nothing_committed_is_cut",
        format!("group {group}: node {node} cuts at {from} with commit {commit}"),
    ))
}
