//! What a replica knows of producers is what its log says, however often segments were rolled,
//! heads deleted, the process restarted or the state rebuilt from files.

use std::collections::BTreeMap;

use riverrun_storage::{ProducerState, SequenceVerdict};

use super::{Checked, Violation};

/// Compares a replica's state with the last (epoch, sequence) of every producer in the log below
/// the same offset.
///
/// # Errors
/// Where the next sequence is not what it would take.
pub fn check(
    group: u64,
    node: usize,
    kept: &ProducerState,
    expected: &BTreeMap<i64, (i16, i32)>,
) -> Checked {
    for (producer, (epoch, last)) in expected {
        let next = if *last == i32::MAX { 0 } else { last + 1 };
        let verdict = kept.check(*producer, *epoch, next, next);
        let too_far = if next == i32::MAX { 0 } else { next + 1 };
        let gap = kept.check(*producer, *epoch, too_far, too_far);
        if verdict != SequenceVerdict::Next || gap == SequenceVerdict::Next {
            return Err(Violation::new(
                "producer_state_rebuilt_equals_kept",
                format!(
                    "group {group}: node {node} takes producer {producer} epoch {epoch} sequence \
                     {next} as {verdict:?} and {too_far} as {gap:?}"
                ),
            ));
        }
    }
    Ok(())
}
