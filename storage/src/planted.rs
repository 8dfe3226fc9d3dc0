//! Bugs that can be planted, to prove that the simulator finds them.
//!
//! A value at run time and of one thread, not a cargo feature: a feature would be unified into the
//! real binary. Nothing but a test sets one, and the few places that ask are off every hot path or
//! cost one load of a thread-local word.

use std::cell::Cell;

/// A rule that can be switched off.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bug {
    /// A leader counts itself before its entry is persisted.
    AckBeforePersist,
    /// A follower acknowledges before its entry is persisted.
    FollowerAckBeforePersist,
    /// Data is written behind a non-data entry that is not durable yet (I4).
    SkipI4Barrier,
    /// A truncation takes the last committed entry along (I3).
    TruncateBelowCommit,
    /// A fetch is served above the high watermark.
    ServeAboveWatermark,
    /// A batch is stamped with the offset that was next before the ones in flight.
    StaleBaseOffset,
    /// The vote is not there any more after a restart.
    ForgetVote,
    /// A torn tail is kept as if it were whole.
    KeepTornTail,
    /// The producer state is emptied when a segment is rolled.
    DropProducerStateOnRoll,
    /// W1: a bulk round does not sync the WAL.
    W1,
    /// W2: no cut record before a truncation.
    W2,
    /// W5: a truncation cuts the sidecar before the log.
    W5,
    /// L1: a new leader answers before it has applied an entry of its own term.
    L1,
    /// L2: waiters are keyed by offset alone.
    L2,
    /// L3: a single voter sends before its term is durable.
    L3,
    /// L6: the last word about who leads counts, whatever its term.
    L6,
    /// L8: a topic is forgotten as soon as it is marked.
    L8,
    /// R1: a replica leaves *recovering* at the leader's commit.
    R1,
    /// R2b: a contradicted follower's answers are counted.
    R2b,
    /// R3: a replica whose log is gone begins again as an empty voter.
    R3,
    /// F2: a directory whose identity is gone is founded over.
    FoundOverData,
    /// R9: a replica is replaced as soon as any other one is whole.
    ReplaceWithoutMajority,
    /// R9: a successor that is being filled counts as whole.
    LearnerCountsAsWhole,
    /// R9: an order is carried out though the replicas on whose word it stands have changed.
    OrderOnOldWord,
    /// R11: what the image does not know counts as deleted.
    ForgottenImageDeletes,
    /// R11: the files of a contradicted replica go like those of a replaced one.
    ContradictedDeleted,
    /// R16: an error of the disk while a log is opened counts as its loss.
    ErrorIsLost,
    /// R12: a creation takes away what lies in its directory.
    CreateOverALog,
    /// R10: what was replaced is deleted at once.
    DeleteBeforeFilled,
    /// R10: the directory's new name is not synced before its place is taken.
    AsideNotSynced,
    /// R12: nothing is kept of a damage of the node WAL that was met.
    DamageForgotten,
    /// R12: a start goes on as if nothing lacked in the node WAL.
    WalDamageDropped,
    /// R6: a log with a bad batch is not opened, though its index and term are known.
    MarredLosesVote,
    /// X1: bytes that were read from the disk are not looked at.
    UnverifiedColdRead,
    /// F4: the numbers of a change are taken when it has been written, and not before it is sent.
    NumbersAfterAwait,
    /// A batch is judged by its sequence alone, though an earlier one of its producer was refused for now.
    SequenceBeforeRefusal,
}

impl Bug {
    /// All of them, for a hunt.
    pub const ALL: [Self; 36] = [
        Self::AckBeforePersist,
        Self::FollowerAckBeforePersist,
        Self::SkipI4Barrier,
        Self::TruncateBelowCommit,
        Self::ServeAboveWatermark,
        Self::StaleBaseOffset,
        Self::ForgetVote,
        Self::KeepTornTail,
        Self::DropProducerStateOnRoll,
        Self::W1,
        Self::W2,
        Self::W5,
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L6,
        Self::L8,
        Self::R1,
        Self::R2b,
        Self::R3,
        Self::FoundOverData,
        Self::ReplaceWithoutMajority,
        Self::LearnerCountsAsWhole,
        Self::OrderOnOldWord,
        Self::ForgottenImageDeletes,
        Self::ContradictedDeleted,
        Self::ErrorIsLost,
        Self::CreateOverALog,
        Self::DeleteBeforeFilled,
        Self::AsideNotSynced,
        Self::DamageForgotten,
        Self::WalDamageDropped,
        Self::MarredLosesVote,
        Self::UnverifiedColdRead,
        Self::NumbersAfterAwait,
        Self::SequenceBeforeRefusal,
    ];

    /// The name that a hunt is asked for.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforePersist => "ack_before_persist",
            Self::FollowerAckBeforePersist => "follower_ack_before_persist",
            Self::SkipI4Barrier => "skip_i4_barrier",
            Self::TruncateBelowCommit => "truncate_below_commit",
            Self::ServeAboveWatermark => "serve_above_watermark",
            Self::StaleBaseOffset => "stale_base_offset",
            Self::ForgetVote => "forget_vote",
            Self::KeepTornTail => "keep_torn_tail",
            Self::DropProducerStateOnRoll => "drop_producer_state_on_roll",
            Self::W1 => "w1",
            Self::W2 => "w2",
            Self::W5 => "w5",
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::L6 => "l6",
            Self::L8 => "l8",
            Self::R1 => "r1",
            Self::R2b => "r2b",
            Self::R3 => "r3",
            Self::FoundOverData => "found_over_data",
            Self::ReplaceWithoutMajority => "replace_without_majority",
            Self::LearnerCountsAsWhole => "learner_counts_as_whole",
            Self::OrderOnOldWord => "order_on_old_word",
            Self::ForgottenImageDeletes => "forgotten_image_deletes",
            Self::ContradictedDeleted => "contradicted_deleted",
            Self::ErrorIsLost => "error_is_lost",
            Self::CreateOverALog => "create_over_a_log",
            Self::DeleteBeforeFilled => "delete_before_filled",
            Self::AsideNotSynced => "aside_not_synced",
            Self::DamageForgotten => "damage_forgotten",
            Self::WalDamageDropped => "wal_damage_dropped",
            Self::MarredLosesVote => "marred_loses_vote",
            Self::UnverifiedColdRead => "unverified_cold_read",
            Self::NumbersAfterAwait => "numbers_after_await",
            Self::SequenceBeforeRefusal => "sequence_before_refusal",
        }
    }

    /// The bug of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }

    fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

thread_local! {
    static PLANTED: Cell<u64> = const { Cell::new(0) };
}

/// Plants a bug in everything that runs on this thread, or takes it out again.
#[doc(hidden)]
pub fn set(bug: Bug, on: bool) {
    PLANTED.with(|planted| {
        let bits = planted.get();
        planted.set(if on {
            bits | bug.bit()
        } else {
            bits & !bug.bit()
        });
    });
}

/// Takes out every bug that was planted on this thread.
#[doc(hidden)]
pub fn clear() {
    PLANTED.with(|planted| planted.set(0));
}

/// Whether a bug is planted on this thread.
#[doc(hidden)]
#[inline]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.with(|planted| planted.get() & bug.bit() != 0)
}

#[cfg(test)]
mod tests {
    use super::{Bug, clear, is, set};

    #[test]
    fn a_planted_bug_is_there_until_it_is_taken_out() {
        assert!(!Bug::ALL.into_iter().any(is));
        set(Bug::W5, true);
        set(Bug::KeepTornTail, true);
        set(Bug::W5, false);
        assert!(is(Bug::KeepTornTail) && !is(Bug::W5));
        clear();
        assert!(!is(Bug::KeepTornTail));
    }

    #[test]
    fn names_lead_back_to_their_bugs() {
        for bug in Bug::ALL {
            assert_eq!(Bug::from_name(bug.name()), Some(bug));
        }
        assert_eq!(Bug::from_name("no such bug"), None);
    }
}
