//! When a place that the disk refuses to give counts as bad (R16).
//!
//! An error of the machine is no proof of damage: it may pass, and what meets several logs at once is the
//! machine's. A place in one file that refuses for ten minutes while other files are read is a bad sector:
//! what lay there is asked of the other replicas like any bytes that are bad.

use std::time::Duration;

/// How long a place is tried.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// What the disk does with other logs of the node at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Those of which it refuses a place, too.
    pub refusing: usize,
    /// Those of which it gave, just now, what it was asked for.
    pub reading: usize,
}

/// Whether a place that has been refused since then, and was refused again just now, is damaged.
#[must_use]
pub fn is_damage(first_refused: Duration, now: Duration, elsewhere: Elsewhere) -> bool {
    now.saturating_sub(first_refused) >= PATIENCE && elsewhere.reading > elsewhere.refusing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_damaged_after_ten_minutes_while_most_of_the_others_read() {
        let elsewhere = |refusing, reading| Elsewhere { refusing, reading };
        let since = Duration::from_secs(50);
        let late = since + PATIENCE;
        assert!(is_damage(since, late, elsewhere(0, 1)));
        assert!(is_damage(since, late, elsewhere(1, 2)));
        assert!(!is_damage(since, late, elsewhere(0, 0)), "nothing reads");
        assert!(
            !is_damage(since, late, elsewhere(2, 2)),
            "it is the machine's"
        );
        let early = late - Duration::from_millis(1);
        assert!(!is_damage(since, early, elsewhere(0, 9)));
        assert!(
            !is_damage(late, since, elsewhere(0, 9)),
            "a clock that went back"
        );
    }
}
