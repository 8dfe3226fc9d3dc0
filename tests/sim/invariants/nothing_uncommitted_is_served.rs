//! No reader is given, or shown in a watermark, what is not committed (I9).

use super::{Checked, Violation};

/// A replica shows a watermark.
///
/// # Errors
/// Where it lies above what its commit index covers.
pub fn shows(group: u64, node: usize, watermark: i64, committed_offset: i64) -> Checked {
    if watermark <= committed_offset {
        return Ok(());
    }
    Err(Violation::new(
        "nothing_uncommitted_is_served",
        format!("group {group}: node {node} shows {watermark}, committed is {committed_offset}"),
    ))
}
