//! Seeds that once found something: every one is run again by the tests.
//!
//! `seeds.txt` has one a line: the seed, the planted bug that it finds (`-` for none: it once broke
//! the code itself, or stands for a kind of run), the invariant that says so, and a remark behind `#`.

use riverrun_storage::planted::Bug;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSeed {
    /// The seed.
    pub seed: u64,
    /// The planted bug that it finds.
    pub bug: Option<Bug>,
    /// The invariant that is broken then.
    pub invariant: String,
}

/// Every line of the file.
#[must_use]
pub fn known() -> Vec<KnownSeed> {
    include_str!("seeds.txt")
        .lines()
        .filter_map(parse)
        .collect()
}

fn parse(line: &str) -> Option<KnownSeed> {
    let mut words = line.split('#').next()?.split_whitespace();
    let seed = words.next()?.parse().ok()?;
    let bug = Bug::from_name(words.next()?);
    let invariant = words.next().unwrap_or("-").to_owned();
    Some(KnownSeed {
        seed,
        bug,
        invariant,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bugs::named_by;

    #[test]
    fn every_line_is_understood() {
        let lines = include_str!("seeds.txt").lines().filter(|line| {
            line.split('#')
                .next()
                .is_some_and(|text| !text.trim().is_empty())
        });
        assert_eq!(lines.count(), known().len());
    }

    #[test]
    fn every_planted_bug_has_a_seed_that_an_invariant_naming_it_finds() {
        for bug in Bug::ALL {
            let found = known().into_iter().any(|seed| {
                seed.bug == Some(bug) && named_by(bug).contains(&seed.invariant.as_str())
            });
            assert!(found, "{}", bug.name());
        }
    }
}
