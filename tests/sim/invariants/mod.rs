//! What must never be seen, one file each. The simulator tells them everything that happens; each
//! keeps its own notes and says what is wrong the moment that it is.

pub mod acknowledged_is_never_lost;
pub mod committed_agrees;
pub mod confirmed_offsets_are_current;
pub mod controllers_agree;
pub mod leaders_known;
pub mod no_duplicate_of_an_idempotent_producer;
pub mod no_group_stuck;
pub mod nothing_committed_is_cut;
pub mod nothing_outlives_its_topic;
pub mod nothing_uncommitted_is_served;
pub mod offsets_dense;
pub mod one_cluster;
pub mod one_leader_per_term;
pub mod one_value_at_one_offset;
pub mod one_vote_per_replica_and_term;
pub mod producer_state_rebuilt_equals_kept;
pub mod promises_outlive_a_crash;
pub mod same_index_and_term_same_bytes;
pub mod watermark_never_goes_back;
pub mod what_is_changed_was_asked_for;
pub mod what_is_counted_is_held;
pub mod what_rots_is_put_right;

use std::fmt;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name: that of its file.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// A broken invariant.
    #[must_use]
    pub fn new(invariant: &'static str, detail: String) -> Self {
        Self { invariant, detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// Whether all is well.
pub type Checked = Result<(), Violation>;

/// Everything that is kept, by invariant.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the fields are the files")]
pub struct Invariants {
    pub bytes: same_index_and_term_same_bytes::Seen,
    pub changed: what_is_changed_was_asked_for::Changed,
    pub committed: committed_agrees::Committed,
    pub confirmed: confirmed_offsets_are_current::Asked,
    pub controllers: controllers_agree::Images,
    pub leaders: one_leader_per_term::Leaders,
    pub replaced: nothing_outlives_its_topic::Replaced,
    pub promises: promises_outlive_a_crash::Promises,
    pub votes: one_vote_per_replica_and_term::Votes,
    pub watermarks: watermark_never_goes_back::Watermarks,
}
