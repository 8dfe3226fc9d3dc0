//! What a replica told others it still knows after any crash: the entries that it acknowledged, and
//! the terms in which it spoke (I5, W1).
//!
//! An entry lost this way need not be missed at once, as others hold it, too. It is one crash away
//! from being lost for good, and here it is seen without that crash.

use std::collections::BTreeMap;

use super::{Checked, Violation};

/// What a replica told.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    /// The last entry that it acknowledged.
    index: u64,
    /// The term of that entry, where it is known.
    entry_term: Option<u64>,
    /// The greatest term in which it spoke.
    term: u64,
}

/// The promises of all replicas, by group and replica.
#[derive(Debug, Default)]
pub struct Promises {
    promises: BTreeMap<(u64, u64), Promise>,
}

/// What a replica has after a start.
#[derive(Debug, Clone, Copy)]
pub struct Recovered {
    /// Its last index.
    pub last_index: u64,
    /// The index before its first.
    pub start: u64,
    /// Its term.
    pub term: u64,
}

impl Promises {
    /// A group is founded anew: its replicas are others.
    pub fn begin_again(&mut self, group: u64) {
        self.promises.retain(|(of, _), _| *of != group);
    }

    /// A replica speaks in a term.
    pub fn speaks(&mut self, group: u64, replica: u64, term: u64) {
        let promise = self.promises.entry((group, replica)).or_default();
        promise.term = promise.term.max(term);
    }

    /// A replica acknowledges everything up to an entry.
    pub fn acknowledges(&mut self, group: u64, replica: u64, index: u64, entry_term: Option<u64>) {
        let promise = self.promises.entry((group, replica)).or_default();
        if index > promise.index {
            promise.index = index;
            promise.entry_term = entry_term;
        }
    }

    /// The last entry that a replica has acknowledged, 0 for none.
    #[must_use]
    pub fn acknowledged(&self, group: u64, replica: u64) -> u64 {
        let promise = self.promises.get(&(group, replica));
        promise.map_or(0, |promise| promise.index)
    }

    /// A replica is about to cut its log for a newer leader: what it acknowledged there is void.
    pub fn cuts(&mut self, group: u64, replica: u64, from: u64) {
        let promise = self.promises.entry((group, replica)).or_default();
        if promise.index >= from {
            promise.index = from.saturating_sub(1);
            promise.entry_term = None;
        }
    }

    /// A replica is back; `term_of` gives the term of an entry of its log.
    ///
    /// # Errors
    /// Where it does not know any more what it told.
    pub fn is_back(
        &self,
        group: u64,
        replica: u64,
        recovered: Recovered,
        term_of: impl Fn(u64) -> Option<u64>,
    ) -> Checked {
        let Some(promise) = self.promises.get(&(group, replica)) else {
            return Ok(());
        };
        let broken = |what: String| {
            Err(Violation::new(
                "promises_outlive_a_crash",
                format!("group {group}: replica {replica} {what}, it is back with {recovered:?}"),
            ))
        };
        if recovered.term < promise.term {
            return broken(format!("spoke in term {}", promise.term));
        }
        if recovered.last_index < promise.index {
            return broken(format!("acknowledged entry {}", promise.index));
        }
        let found = term_of(promise.index);
        match promise.entry_term {
            Some(term) if promise.index > recovered.start && found != Some(term) => {
                broken(format!(
                    "acknowledged entry {} of term {term}, which is of term {found:?} now",
                    promise.index
                ))
            }
            _ => Ok(()),
        }
    }
}
