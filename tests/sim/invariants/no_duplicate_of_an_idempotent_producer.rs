//! A batch of an idempotent producer is in the log once at most (L1), and its batches are there in
//! the order of their sequences.

use super::{Checked, Violation};

/// A batch turns up at an offset.
///
/// # Errors
/// Where it is at another one as well.
pub fn appears(group: u64, batch: i64, offset: i64, before: i64) -> Checked {
    if offset == before {
        return Ok(());
    }
    Err(Violation::new(
        "no_duplicate_of_an_idempotent_producer",
        format!("group {group}: batch {batch} is at offset {before} and at {offset}"),
    ))
}

/// The newest (epoch, sequence) of a producer before and now.
///
/// # Errors
/// Where the sequence does not follow on.
pub fn follows(group: u64, producer: i64, before: Option<(i16, i32)>, now: (i16, i32)) -> Checked {
    let (epoch, first) = now;
    let fine = match before {
        None => true,
        Some((last_epoch, last)) if last_epoch == epoch => {
            first == if last == i32::MAX { 0 } else { last + 1 }
        }
        Some((last_epoch, _)) => epoch > last_epoch && first == 0,
    };
    if fine {
        return Ok(());
    }
    Err(Violation::new(
        "no_duplicate_of_an_idempotent_producer",
        format!(
            "group {group}: producer {producer} has sequence {first} of epoch {epoch} behind {before:?}"
        ),
    ))
}
