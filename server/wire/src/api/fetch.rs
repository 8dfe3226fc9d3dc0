//! Fetch (1): record batches from partitions, within or without a fetch session.

use uuid::Uuid;

use crate::Records;
use crate::codec::table::message;

message! {
    /// Reads record batches.
    request FetchRequest of Fetch {
        cluster_id: Option<String> = 12.., nullable 12.., tag 0, ignorable;
        /// -1 for a consumer.
        replica_id: i32 = 0..=14, default -1;
        replica_state: ReplicaState = 15.., tag 1;
        max_wait_ms: i32 = 0..;
        min_bytes: i32 = 0..;
        max_bytes: i32 = 3.., default i32::MAX, ignorable;
        /// 0 reads what is not committed too, 1 only what is.
        isolation_level: i8 = 4.., ignorable;
        /// 0 without a session.
        session_id: i32 = 7.., ignorable;
        /// -1 without a session, or to close it; 0 to begin one.
        session_epoch: i32 = 7.., default -1, ignorable;
        topics: Vec<FetchTopic> = 0..;
        /// What an incremental fetch removes from the session.
        forgotten_topics_data: Vec<ForgottenTopic> = 7..;
        rack_id: String = 11.., ignorable;
    }

    /// Which replica asks, if one does.
    struct ReplicaState {
        replica_id: i32 = 15.., default -1;
        replica_epoch: i64 = 15.., default -1;
    }

    /// One topic: by name up to version 12, by id from version 13.
    struct FetchTopic {
        topic: String = 0..=12, ignorable;
        topic_id: Uuid = 13.., ignorable;
        partitions: Vec<FetchPartition> = 0..;
    }

    /// One partition.
    struct FetchPartition {
        partition: i32 = 0..;
        /// -1 if unknown; else the broker must be of that epoch.
        current_leader_epoch: i32 = 9.., default -1, ignorable;
        fetch_offset: i64 = 0..;
        /// -1 if unknown; else divergence is looked for.
        last_fetched_epoch: i32 = 12.., default -1;
        log_start_offset: i64 = 5.., default -1, ignorable;
        partition_max_bytes: i32 = 0..;
        replica_directory_id: Uuid = 17.., tag 0, ignorable;
        high_watermark: i64 = 18.., default i64::MAX, tag 1, ignorable;
    }

    /// Partitions that leave the session.
    struct ForgottenTopic {
        topic: String = 7..=12, ignorable;
        topic_id: Uuid = 13.., ignorable;
        partitions: Vec<i32> = 7..;
    }
}

message! {
    /// What was read.
    response FetchResponse of Fetch {
        throttle_time_ms: i32 = 1.., ignorable;
        error_code: i16 = 7.., ignorable;
        /// 0 if there is no session.
        session_id: i32 = 7..;
        responses: Vec<FetchableTopicResponse> = 0..;
        /// The endpoints of all leaders named above.
        node_endpoints: Vec<NodeEndpoint> = 16.., tag 0;
    }

    /// One topic.
    struct FetchableTopicResponse {
        topic: String = 0..=12, ignorable;
        topic_id: Uuid = 13.., ignorable;
        partitions: Vec<PartitionData> = 0..;
    }

    /// One partition.
    struct PartitionData {
        partition_index: i32 = 0..;
        error_code: i16 = 0..;
        high_watermark: i64 = 0..;
        /// All transactions below it are decided; -1 if not said.
        last_stable_offset: i64 = 4.., default -1, ignorable;
        log_start_offset: i64 = 5.., default -1, ignorable;
        /// Set if what the client has read is no longer there.
        diverging_epoch: EpochEndOffset = 12.., tag 0;
        /// Set with NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH.
        current_leader: LeaderIdAndEpoch = 12.., tag 1;
        snapshot_id: SnapshotId = 12.., tag 2;
        /// Null if the client reads what is not committed too.
        aborted_transactions: Option<Vec<AbortedTransaction>> = 4.., nullable 4.., ignorable;
        /// The replica to read from next time, or -1.
        preferred_read_replica: i32 = 11.., default -1;
        /// Whole batches, from the one that holds the offset asked for. Empty where there are none:
        /// null is allowed too, but no broker sends it and not every client expects it.
        records: Option<Records> = 0.., nullable 0..;
    }

    /// An epoch and where it ended.
    struct EpochEndOffset {
        epoch: i32 = 12.., default -1;
        end_offset: i64 = 12.., default -1;
    }

    /// The leader of a partition, as far as the broker knows.
    struct LeaderIdAndEpoch {
        leader_id: i32 = 12.., default -1;
        leader_epoch: i32 = 12.., default -1;
    }

    /// The snapshot to read instead.
    struct SnapshotId {
        end_offset: i64 = 0.., default -1;
        epoch: i32 = 0.., default -1;
    }

    /// Records of this producer from this offset on are to be left out.
    struct AbortedTransaction {
        producer_id: i64 = 4..;
        first_offset: i64 = 4..;
    }

    /// Where a leader named in this response is reached.
    struct NodeEndpoint {
        node_id: i32 = 16..;
        host: String = 16..;
        port: i32 = 16..;
        rack: Option<String> = 16.., nullable 16..;
    }
}
