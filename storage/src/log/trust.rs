//! Which bytes of a `.log` this process wrote or verified lately.
//!
//! That bytes lie in the page cache proves nothing: whoever read them last may not have looked at them,
//! and what was verified may have been evicted and read again from a bad sector. So bytes leave from the
//! map only while this process wrote or verified them within [`TRUST_FOR`] and has found them in memory
//! at every look since (X1).

use std::time::Duration;

use parking_lot::Mutex;

/// How long bytes are taken for what they were when they were written or verified.
const TRUST_FOR: Duration = Duration::from_secs(600);
/// Neighbours of about the same age become one span, as old as the older.
const SAME_AGE: Duration = Duration::from_secs(60);
/// Spans that are kept of one file; a file that is read in many places at once is verified more often.
const MOST_SPANS: usize = 64;

/// Whole batches that lie back to back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Base offset of the first batch.
    pub(crate) first_offset: i64,
    /// The offset behind the last batch.
    pub(crate) next_offset: i64,
    /// When they were written or verified.
    pub(crate) at: Duration,
}

impl Span {
    fn is_old(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) > TRUST_FOR
    }
}

/// The spans of one file, apart from each other and in order.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    spans: Mutex<Vec<Span>>,
}

impl Trust {
    /// Takes in what was written or verified.
    pub(crate) fn add(&self, span: Span) {
        if span.from >= span.to {
            return;
        }
        let mut spans = self.spans.lock();
        // What is written goes behind everything, and that is nearly all that is added.
        if let Some(last) = spans.last_mut()
            && last.to == span.from
            && last.next_offset <= span.first_offset
            && span.at.saturating_sub(last.at) <= SAME_AGE
        {
            last.to = span.to;
            last.next_offset = span.next_offset;
            return;
        }
        spans.retain(|old| !old.is_old(span.at) && (old.to <= span.from || old.from >= span.to));
        let at = spans.partition_point(|old| old.from < span.from);
        spans.insert(at, span);
        if let Some(next) = spans.get(at + 1).copied()
            && next.from == span.to
            && next.at.abs_diff(span.at) <= SAME_AGE
            && let Some(here) = spans.get_mut(at)
        {
            here.to = next.to;
            here.next_offset = next.next_offset;
            here.at = here.at.min(next.at);
            spans.remove(at + 1);
        }
        if let Some(here) = spans.get(at).copied()
            && let Some(before) = at.checked_sub(1).and_then(|before| spans.get_mut(before))
            && before.to == here.from
            && before.at.abs_diff(here.at) <= SAME_AGE
        {
            before.to = here.to;
            before.next_offset = here.next_offset;
            before.at = before.at.min(here.at);
            spans.remove(at);
        }
        if spans.len() > MOST_SPANS
            && let Some(oldest) = (0..spans.len()).min_by_key(|at| spans.get(*at).map(|s| s.at))
        {
            spans.remove(oldest);
        }
    }

    /// The span whose batches hold an offset.
    pub(crate) fn holding(&self, offset: i64, now: Duration) -> Option<Span> {
        let spans = self.spans.lock();
        let at = spans.partition_point(|span| span.next_offset <= offset);
        let span = spans.get(at)?;
        (span.first_offset <= offset && !span.is_old(now)).then_some(*span)
    }

    /// Whether all of `from..to` was written or verified lately.
    pub(crate) fn covers(&self, from: u64, to: u64, now: Duration) -> bool {
        let spans = self.spans.lock();
        let first = spans.partition_point(|span| span.to <= from);
        let mut reached = from;
        for span in spans.get(first..).unwrap_or_default() {
            if reached >= to || span.from > reached || span.is_old(now) {
                break;
            }
            reached = span.to;
        }
        reached >= to
    }

    /// Lets go of the spans that have a part in `from..to`.
    pub(crate) fn forget(&self, from: u64, to: u64) {
        self.spans
            .lock()
            .retain(|span| span.to <= from || span.from >= to);
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_SPANS, Span, TRUST_FOR, Trust};
    use std::time::Duration;

    /// Bytes ten times the offsets.
    fn span(first: i64, next: i64, at_secs: u64) -> Span {
        Span {
            from: first.unsigned_abs() * 10,
            to: next.unsigned_abs() * 10,
            first_offset: first,
            next_offset: next,
            at: Duration::from_secs(at_secs),
        }
    }

    #[test]
    fn what_lies_back_to_back_is_one_span_as_old_as_its_oldest_part() {
        let trust = Trust::default();
        trust.add(span(0, 5, 100));
        trust.add(span(5, 9, 130));
        trust.add(span(20, 30, 140));
        trust.add(span(9, 20, 150));
        let now = Duration::from_secs(150);
        assert_eq!(trust.holding(29, now), Some(span(0, 30, 100)));
        assert!(trust.covers(0, 300, now));
        assert!(!trust.covers(0, 301, now));
        let late = Duration::from_secs(101) + TRUST_FOR;
        assert_eq!(trust.holding(29, late), None);
        assert!(!trust.covers(200, 210, late));
    }

    #[test]
    fn parts_of_different_age_stay_apart_and_still_cover_a_range_together() {
        let trust = Trust::default();
        trust.add(span(0, 5, 0));
        trust.add(span(5, 9, 300));
        let now = Duration::from_secs(300);
        assert_eq!(trust.holding(4, now), Some(span(0, 5, 0)));
        assert!(trust.covers(0, 90, now));
        assert!(!trust.covers(0, 90, Duration::from_secs(601)));
        assert!(trust.covers(50, 90, Duration::from_secs(601)));
    }

    #[test]
    fn what_was_evicted_is_not_trusted_any_more() {
        let trust = Trust::default();
        trust.add(span(0, 5, 0));
        trust.add(span(7, 9, 0));
        trust.forget(40, 50);
        assert_eq!(trust.holding(0, Duration::ZERO), None);
        assert!(trust.covers(70, 90, Duration::ZERO));
    }

    #[test]
    fn the_number_of_spans_is_bounded() {
        let trust = Trust::default();
        for n in 0..1000_i64 {
            trust.add(span(n * 10, n * 10 + 5, n.unsigned_abs() % 7));
        }
        assert!(trust.spans.lock().len() <= MOST_SPANS);
    }
}
