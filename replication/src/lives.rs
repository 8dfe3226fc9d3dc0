//! Whether a data directory that presents itself is the one that was seen, or a copy of an older one
//! (R3). Pure.
//!
//! A directory counts its starts, and keeps a number drawn in each of the last ones. A copy that is
//! put back has fewer starts than were seen of the original, or, when it has caught up, other ones. A
//! copy of the last life that anybody has seen is not known: it may as well be the original.

use riverrun_storage::node::MAX_STARTS;

use crate::frame::Start;

/// What a directory is, by its starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The directory that was seen, started again since.
    Fresh,
    /// The start that was seen.
    Known,
    /// A copy of an older one: it must not say a word.
    Restored(Restored),
}

/// What gives a copy away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Restored {
    /// It has started less often than was seen.
    #[error("it has started {starts} times, and start {seen} of it was seen")]
    Behind {
        /// How often it has started.
        starts: u64,
        /// The latest start that was seen.
        seen: u64,
    },
    /// It has caught up in the number of starts, by others than were seen.
    #[error("start {seen} of it was seen, and was another one")]
    Another {
        /// The latest start that was seen.
        seen: u64,
    },
    /// It does not remember the start that was seen.
    #[error("it remembers its last {starts} starts, and start {seen} of it was seen")]
    Forgotten {
        /// Starts that it presents.
        starts: usize,
        /// The latest start that was seen.
        seen: u64,
    },
}

/// Judges the starts that a directory presents, the latest last, by the latest that was seen of it.
#[must_use]
pub fn judge(seen: Start, starts: &[Start]) -> Life {
    let last = starts.last().map_or(0, |start| start.incarnation);
    if last < seen.incarnation {
        return Life::Restored(Restored::Behind {
            starts: last,
            seen: seen.incarnation,
        });
    }
    let same = starts
        .iter()
        .find(|start| start.incarnation == seen.incarnation);
    match same {
        Some(same) if *same != seen => Life::Restored(Restored::Another {
            seen: seen.incarnation,
        }),
        Some(_) if last == seen.incarnation => Life::Known,
        Some(_) => Life::Fresh,
        // A directory kept no starts in the first version of its format: those are taken on the word
        // of its counter.
        None if starts.len() < MAX_STARTS
            && starts
                .first()
                .is_some_and(|first| first.incarnation > seen.incarnation) =>
        {
            Life::Fresh
        }
        None => Life::Restored(Restored::Forgotten {
            starts: starts.len(),
            seen: seen.incarnation,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(incarnation: u64, token: u64) -> Start {
        Start { incarnation, token }
    }

    /// Starts of the original, each with ten times its number for a token.
    fn starts(numbers: std::ops::RangeInclusive<u64>) -> Vec<Start> {
        numbers.map(|number| start(number, number * 10)).collect()
    }

    #[test]
    fn the_original_is_known_and_comes_back() {
        let original = starts(1..=7);
        assert_eq!(judge(start(7, 70), &original), Life::Known);
        assert_eq!(judge(start(5, 50), &original), Life::Fresh);
        // It has started so often that the first ones are not kept any more.
        let long = starts(101..=270);
        assert_eq!(long.len(), MAX_STARTS);
        assert_eq!(judge(start(101, 1010), &long), Life::Fresh);
    }

    #[test]
    fn a_copy_that_is_behind_is_known() {
        let copy = starts(1..=5);
        let behind = Restored::Behind { starts: 5, seen: 7 };
        assert_eq!(judge(start(7, 70), &copy), Life::Restored(behind));
        assert_eq!(
            judge(start(7, 70), &[]),
            Life::Restored(Restored::Behind { starts: 0, seen: 7 })
        );
    }

    #[test]
    fn a_copy_that_has_caught_up_is_known_by_what_it_has_drawn() {
        let mut copy = starts(1..=5);
        copy.extend([start(6, 1), start(7, 2)]);
        let another = Life::Restored(Restored::Another { seen: 7 });
        assert_eq!(judge(start(7, 70), &copy), another);
        copy.extend([start(8, 3), start(9, 4)]);
        assert_eq!(judge(start(7, 70), &copy), another);
        // What was seen was before the copy was made.
        assert_eq!(judge(start(5, 50), &copy), Life::Fresh);
    }

    #[test]
    fn one_that_does_not_reach_back_to_what_was_seen_is_refused() {
        let forgotten = Restored::Forgotten {
            starts: MAX_STARTS,
            seen: 100,
        };
        let copy = starts(101..=270);
        assert_eq!(judge(start(100, 1000), &copy), Life::Restored(forgotten));
        let holes = [start(1, 10), start(3, 30)];
        assert_eq!(
            judge(start(2, 20), &holes),
            Life::Restored(Restored::Forgotten { starts: 2, seen: 2 })
        );
    }

    #[test]
    fn starts_that_a_directory_of_the_first_version_did_not_keep_are_not_asked_for() {
        assert_eq!(judge(start(4, 40), &[start(5, 50)]), Life::Fresh);
    }
}
