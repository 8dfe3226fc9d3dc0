//! What a leader counts a replica to hold, towards a majority, is there: the same entry, not another
//! one of that index (R2b) or one that an earlier life of the replica had (R1).

use super::{Checked, Violation};

/// A leader counts a replica up to an index, where its own entry has one term and the replica's
/// another, or none.
///
/// # Errors
/// Where they differ.
pub fn counts(
    group: u64,
    leader: usize,
    follower: usize,
    index: u64,
    own: Option<u64>,
    theirs: Option<u64>,
) -> Checked {
    if own == theirs {
        return Ok(());
    }
    Err(Violation::new(
        "what_is_counted_is_held",
        format!(
            "group {group}: node {leader} counts node {follower} up to {index}, where it has term \
             {own:?} itself and the other has {theirs:?}"
        ),
    ))
}
