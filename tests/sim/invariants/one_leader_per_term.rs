//! A term has one leader at most.

use std::collections::BTreeMap;

use super::Violation;

/// The leader of every term, by group and term.
#[derive(Debug, Default)]
pub struct Leaders {
    leaders: BTreeMap<(u64, u64), u64>,
}

impl Leaders {
    /// A replica calls itself the leader of a term. True where nobody knew of it.
    ///
    /// # Errors
    /// Where another one led that term.
    pub fn leads(&mut self, group: u64, term: u64, replica: u64) -> Result<bool, Violation> {
        let mut new = false;
        let first = *self.leaders.entry((group, term)).or_insert_with(|| {
            new = true;
            replica
        });
        if first == replica {
            return Ok(new);
        }
        Err(Violation::new(
            "one_leader_per_term",
            format!("group {group}: replicas {first} and {replica} both lead term {term}"),
        ))
    }

    /// How many leaders there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.leaders.len()
    }
}
