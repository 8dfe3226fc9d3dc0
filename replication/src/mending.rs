//! How often a node puts bad bytes right (R8). A place that turns up bad now and then is a disk as disks are;
//! where many do, memory, the unit that computes checksums, or the controller of the disk is bad, and what
//! such a node writes is no better than what it had.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back places are counted.
const WITHIN: Duration = Duration::from_secs(3600);
/// Places that may turn up in that time.
pub const MOST_PLACES: usize = 10;

/// The places that were put right lately.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    at: VecDeque<Duration>,
}

impl Pace {
    /// Whether another place may be put right now.
    pub fn may(&mut self, now: Duration) -> bool {
        while self
            .at
            .front()
            .is_some_and(|at| now.saturating_sub(*at) > WITHIN)
        {
            self.at.pop_front();
        }
        self.at.len() < MOST_PLACES
    }

    /// A place, of one or more entries that lie together, was put right.
    pub fn note(&mut self, now: Duration) {
        self.at.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_PLACES, Pace, WITHIN};
    use std::time::Duration;

    #[test]
    fn a_few_places_an_hour_are_put_right_and_no_more() {
        let mut pace = Pace::default();
        for _ in 0..MOST_PLACES {
            assert!(pace.may(Duration::ZERO));
            pace.note(Duration::ZERO);
        }
        assert!(!pace.may(WITHIN));
        assert!(pace.may(WITHIN + Duration::from_secs(1)));
    }
}
