//! OffsetForLeaderEpoch (23): where a leader epoch ended, by which a client finds divergence.

use crate::codec::table::message;

message! {
    /// Asks where epochs ended.
    request OffsetForLeaderEpochRequest of OffsetForLeaderEpoch {
        /// -1 for a consumer, -2 in versions that do not say.
        replica_id: i32 = 3.., default -2, ignorable;
        topics: Vec<OffsetForLeaderTopic> = 0..;
    }

    /// One topic.
    struct OffsetForLeaderTopic {
        topic: String = 0..;
        partitions: Vec<OffsetForLeaderPartition> = 0..;
    }

    /// One partition.
    struct OffsetForLeaderPartition {
        partition: i32 = 0..;
        current_leader_epoch: i32 = 2.., default -1, ignorable;
        /// The epoch asked about.
        leader_epoch: i32 = 0..;
    }
}

message! {
    /// Where epochs ended.
    response OffsetForLeaderEpochResponse of OffsetForLeaderEpoch {
        throttle_time_ms: i32 = 2.., ignorable;
        topics: Vec<OffsetForLeaderTopicResult> = 0..;
    }

    /// One topic.
    struct OffsetForLeaderTopicResult {
        topic: String = 0..;
        partitions: Vec<EpochEndOffset> = 0..;
    }

    /// An epoch and where it ended.
    struct EpochEndOffset {
        error_code: i16 = 0..;
        partition: i32 = 0..;
        leader_epoch: i32 = 1.., default -1, ignorable;
        end_offset: i64 = 0.., default -1;
    }
}
