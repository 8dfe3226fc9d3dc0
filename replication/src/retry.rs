//! Pauses between tries of what may succeed later.

use std::time::Duration;

/// The first pause.
const LEAST: Duration = Duration::from_secs(1);
/// The longest.
const MOST: Duration = Duration::from_secs(60);

/// Pauses that double, each drawn from its upper half so that many do not try at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause; `draw` is a random number.
    pub fn next(&mut self, draw: u64) -> Duration {
        let whole = LEAST.saturating_mul(1 << self.tries.min(6)).min(MOST);
        self.tries = self.tries.saturating_add(1);
        let half = whole / 2;
        let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_millis(draw % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_differ() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..12).map(|draw| backoff.next(draw * 7919)).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (LEAST / 2..=MOST).contains(pause))
        );
        assert!(pauses.last().is_some_and(|last| *last >= MOST / 2));
        assert_ne!(Backoff::default().next(1), Backoff::default().next(2));
    }
}
