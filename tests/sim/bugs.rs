//! Which invariants name a planted bug: those that say what the rule is there for. That a run with
//! the bug goes wrong in some other way proves little, so a hunt goes on until one of these speaks.

use riverrun_storage::planted::Bug;

/// The invariants that name a bug.
#[must_use]
pub fn named_by(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AckBeforePersist => &[
            "acknowledged_is_never_lost",
            "nothing_uncommitted_is_served",
            "promises_outlive_a_crash",
        ],
        Bug::FollowerAckBeforePersist => {
            &["acknowledged_is_never_lost", "promises_outlive_a_crash"]
        }
        Bug::SkipI4Barrier | Bug::W5 => &["same_index_and_term_same_bytes"],
        Bug::TruncateBelowCommit => &["nothing_committed_is_cut"],
        Bug::ServeAboveWatermark => &["nothing_uncommitted_is_served"],
        Bug::StaleBaseOffset => &["offsets_dense", "one_value_at_one_offset"],
        Bug::ForgetVote => &["one_vote_per_replica_and_term"],
        Bug::KeepTornTail => &["offsets_dense", "what_recovery_accepts_can_be_read"],
        Bug::DropProducerStateOnRoll => &["producer_state_rebuilt_equals_kept"],
        Bug::W1 => &[
            "acknowledged_is_never_lost",
            "one_vote_per_replica_and_term",
            "promises_outlive_a_crash",
        ],
        Bug::W2 => &[
            "acknowledged_is_never_lost",
            "promises_outlive_a_crash",
            "recovery_accepts_what_a_crash_leaves",
        ],
        Bug::L1 | Bug::SequenceBeforeRefusal => &["no_duplicate_of_an_idempotent_producer"],
        Bug::L2 => &["acknowledged_is_never_lost", "one_value_at_one_offset"],
        Bug::L3 => &["committed_agrees", "same_index_and_term_same_bytes"],
        Bug::L6 => &["leaders_known"],
        Bug::L8 => &["nothing_outlives_its_topic"],
        Bug::FoundOverData => &[
            "acknowledged_is_never_lost",
            "nothing_is_founded_over_data",
            "promises_outlive_a_crash",
        ],
        Bug::ReplaceWithoutMajority | Bug::LearnerCountsAsWhole | Bug::OrderOnOldWord => &[
            "acknowledged_is_never_lost",
            "successors_stand_on_a_majority",
        ],
        Bug::ForgottenImageDeletes | Bug::ContradictedDeleted | Bug::DeleteBeforeFilled => {
            &["acknowledged_is_never_lost", "nothing_is_deleted_unproven"]
        }
        Bug::ErrorIsLost => &[
            "acknowledged_is_never_lost",
            "recovery_accepts_what_a_crash_leaves",
        ],
        Bug::CreateOverALog => &[
            "acknowledged_is_never_lost",
            "nothing_is_deleted_unproven",
            "one_vote_per_replica_and_term",
            "promises_outlive_a_crash",
        ],
        Bug::MarredLosesVote => &["acknowledged_is_never_lost", "marred_keeps_its_vote"],
        Bug::DamageForgotten | Bug::WalDamageDropped => &[
            "acknowledged_is_never_lost",
            "one_vote_per_replica_and_term",
            "promises_outlive_a_crash",
        ],
        Bug::UnverifiedColdRead => &[
            "committed_agrees",
            "committed_offsets_can_be_read",
            "offsets_dense",
            "one_value_at_one_offset",
        ],
        Bug::AsideNotSynced => &["what_is_aside_stays_aside"],
        Bug::NumbersAfterAwait => &["what_is_changed_was_asked_for"],
        Bug::R1 => &["acknowledged_is_never_lost"],
        Bug::R2b => &["acknowledged_is_never_lost", "what_is_counted_is_held"],
        Bug::R3 => &[
            "acknowledged_is_never_lost",
            "committed_agrees",
            "one_vote_per_replica_and_term",
            "promises_outlive_a_crash",
        ],
    }
}
