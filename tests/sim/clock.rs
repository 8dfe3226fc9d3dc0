//! Virtual time: a queue of what happens when.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One millisecond in the simulation's unit, the microsecond.
pub const MS: u64 = 1_000;
/// One second.
pub const SECOND: u64 = 1_000_000;

/// When the simulation begins: a day in 2023.
pub const EPOCH_MS: i64 = 1_700_000_000_000;

#[derive(Debug)]
struct Scheduled<E> {
    at_us: u64,
    number: u64,
    event: E,
}

// The heap gives the greatest first: the earliest is the greatest, and of two at the same time the
// one that was scheduled first.
impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Scheduled<E> {}

/// The clock and all that lies ahead of it.
#[derive(Debug)]
pub struct Clock<E> {
    now_us: u64,
    scheduled: u64,
    queue: BinaryHeap<Scheduled<E>>,
}

impl<E> Default for Clock<E> {
    fn default() -> Self {
        // Not 0, so that a time that was never set is seen as such.
        Self {
            now_us: SECOND,
            scheduled: 0,
            queue: BinaryHeap::new(),
        }
    }
}

impl<E> Clock<E> {
    /// The time.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The time in milliseconds since 1970, as the code under test sees it.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        EPOCH_MS + i64::try_from(self.now_us / MS).unwrap_or(0)
    }

    /// Something happens later.
    pub fn after(&mut self, delay_us: u64, event: E) {
        self.scheduled += 1;
        let at_us = self.now_us + delay_us;
        self.queue.push(Scheduled {
            at_us,
            number: self.scheduled,
            event,
        });
    }

    /// The next event; time moves on to it.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, or has more to say than an iterator"
    )]
    pub fn next(&mut self) -> Option<E> {
        let next = self.queue.pop()?;
        self.now_us = self.now_us.max(next.at_us);
        Some(next.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_times_and_then_of_their_making() {
        let mut clock = Clock::default();
        for (delay, name) in [(5, "c"), (1, "a"), (5, "d"), (2, "b")] {
            clock.after(delay, name);
        }
        let mut seen = Vec::new();
        while let Some(name) = clock.next() {
            seen.push((clock.now_us() - SECOND, name));
        }
        assert_eq!(seen, [(1, "a"), (2, "b"), (5, "c"), (5, "d")]);
    }
}
