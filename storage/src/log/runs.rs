//! Which term each index has, without reading anything.

use crate::recovered::LogStart;

/// Entries of one term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TermRun {
    pub(crate) first_index: u64,
    pub(crate) term: u64,
    /// The next offset before the first entry.
    pub(crate) offset: i64,
}

/// The terms of a log in order. A few entries however long the log is: also Kafka's cache of leader
/// epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TermRuns(Vec<TermRun>);

impl TermRuns {
    /// The newest term, if there is any entry.
    pub(crate) fn last_term(&self) -> Option<u64> {
        self.0.last().map(|run| run.term)
    }

    /// Takes the next entry.
    pub(crate) fn push(&mut self, index: u64, term: u64, offset: i64) {
        if self.last_term() != Some(term) {
            self.0.push(TermRun {
                first_index: index,
                term,
                offset,
            });
        }
    }

    /// The term of an index that is in the log.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        let after = self.0.partition_point(|run| run.first_index <= index);
        self.0.get(after.checked_sub(1)?).map(|run| run.term)
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        let keep = self.0.partition_point(|run| run.first_index < index);
        self.0.truncate(keep);
    }

    /// Forgets the entries up to the new start of the log.
    pub(crate) fn drop_head(&mut self, start: &LogStart, last_index: u64) {
        let first = start.prev_index + 1;
        let after = self.0.partition_point(|run| run.first_index <= first);
        self.0.drain(..after.saturating_sub(1));
        if last_index < first {
            self.0.clear();
        }
        if let Some(run) = self.0.first_mut()
            && run.first_index < first
        {
            run.first_index = first;
            run.offset = start.offset;
        }
    }

    /// The leader epochs as Kafka lists them: of terms that begin at the same offset, the newest.
    pub(crate) fn epochs(&self) -> Vec<(i32, i64)> {
        let mut epochs: Vec<(i32, i64)> = Vec::with_capacity(self.0.len());
        for run in &self.0 {
            let Ok(epoch) = i32::try_from(run.term) else {
                continue;
            };
            if epochs
                .last()
                .is_some_and(|(_, offset)| *offset == run.offset)
            {
                epochs.pop();
            }
            epochs.push((epoch, run.offset));
        }
        epochs
    }
}

/// Kafka's answer to `OffsetForLeaderEpoch`, for a log that ends at `ceiling`.
pub(crate) fn end_offset_for_epoch(
    epochs: &[(i32, i64)],
    epoch: i32,
    ceiling: i64,
) -> Option<(i32, i64)> {
    if epoch < 0 {
        return None;
    }
    let above = epochs.partition_point(|(known, _)| *known <= epoch);
    let floor = above.checked_sub(1).and_then(|at| epochs.get(at));
    match (floor, epochs.get(above)) {
        // The newest epoch ends where the log does. A newer one than that is not known.
        (Some((known, _)), None) => (*known == epoch).then_some((epoch, ceiling)),
        (Some((known, _)), Some((_, next))) => Some((*known, (*next).min(ceiling))),
        // All of that epoch was deleted: the follower begins where the log does.
        (None, Some((_, next))) => Some((epoch, (*next).min(ceiling))),
        (None, None) => None,
    }
}

/// The epoch of an offset that is in the log.
pub(crate) fn epoch_of_offset(epochs: &[(i32, i64)], offset: i64) -> Option<i32> {
    let after = epochs.partition_point(|(_, start)| *start <= offset);
    epochs.get(after.checked_sub(1)?).map(|(epoch, _)| *epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> TermRuns {
        let mut runs = TermRuns::default();
        // Term 1: no-op and offsets 0..10; term 2: a no-op only; term 4: a no-op and offsets from 10.
        for (index, term, offset) in [
            (1, 1, 0),
            (2, 1, 0),
            (3, 1, 5),
            (4, 2, 10),
            (5, 4, 10),
            (6, 4, 10),
        ] {
            runs.push(index, term, offset);
        }
        runs
    }

    #[test]
    fn terms_and_epochs_come_from_the_runs() {
        let runs = runs();
        assert_eq!(
            [1, 3, 4, 5, 6].map(|index| runs.term(index).unwrap_or(0)),
            [1, 1, 2, 4, 4]
        );
        assert_eq!(runs.epochs(), [(1, 0), (4, 10)]);
        assert_eq!(end_offset_for_epoch(&runs.epochs(), 4, 30), Some((4, 30)));
        assert_eq!(end_offset_for_epoch(&runs.epochs(), 5, 30), None);
        assert_eq!(end_offset_for_epoch(&runs.epochs(), 3, 30), Some((1, 10)));
        assert_eq!(end_offset_for_epoch(&runs.epochs(), 1, 7), Some((1, 7)));
        assert_eq!(end_offset_for_epoch(&runs.epochs(), 0, 30), Some((0, 0)));
        assert_eq!(end_offset_for_epoch(&[], 0, 30), None);
        assert_eq!(epoch_of_offset(&runs.epochs(), 9), Some(1));
        assert_eq!(epoch_of_offset(&runs.epochs(), 10), Some(4));
    }

    #[test]
    fn truncation_and_a_dropped_head_leave_the_rest() {
        let mut cut = runs();
        cut.truncate_from(5);
        assert_eq!(cut.last_term(), Some(2));
        let mut headless = runs();
        let start = LogStart {
            prev_index: 2,
            prev_term: 1,
            offset: 5,
        };
        headless.drop_head(&start, 6);
        assert_eq!(headless.epochs(), [(1, 5), (4, 10)]);
        assert_eq!(headless.term(3), Some(1));
        headless.drop_head(
            &LogStart {
                prev_index: 6,
                prev_term: 4,
                offset: 30,
            },
            6,
        );
        assert_eq!(headless.last_term(), None);
    }
}
