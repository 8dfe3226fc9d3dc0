//! A bit that flips at rest, in what nobody reads, is found by a scrub and put right while others have it (X1, R8).

use super::{Checked, Violation};

/// A place of a group's files is still as it was flipped, long after its turn to be looked at.
///
/// # Errors
/// Always.
pub fn at_the_end(group: u64, place: &str) -> Checked {
    Err(Violation::new(
        "what_rots_is_put_right",
        format!("group {group}: {place} is not what was written, and nobody has noticed"),
    ))
}
