//! What was acknowledged with acks=all is in the log of every leader from then on, and is read at its
//! offset in the end.

use super::{Checked, Violation};
use crate::mark::Mark;

/// A leader that may answer lacks something that was committed before its term.
///
/// # Errors
/// Always.
pub fn leader_lacks(group: u64, node: usize, lost: &Mark, acknowledged: bool) -> Checked {
    let what = if acknowledged {
        "acknowledged"
    } else {
        "committed"
    };
    Err(Violation::new(
        "acknowledged_is_never_lost",
        format!("group {group}: node {node} leads without {lost:?}, which was {what}"),
    ))
}

/// An acknowledged batch at the end.
///
/// # Errors
/// Where it is not where it was acknowledged.
pub fn at_the_end(group: u64, batch: i64, offset: i64, found: Option<&Mark>) -> Checked {
    match found {
        Some(mark) if mark.batch == batch => Ok(()),
        _ => Err(Violation::new(
            "acknowledged_is_never_lost",
            format!(
                "group {group}: batch {batch} was acknowledged at {offset}, there is {found:?}"
            ),
        )),
    }
}
