//! ListOffsets (2): offsets by timestamp or by one of the special timestamps.

use crate::codec::table::message;

message! {
    /// Asks for offsets.
    request ListOffsetsRequest of ListOffsets {
        /// -1 for a consumer.
        replica_id: i32 = 0..;
        /// 0 reads what is not committed too, 1 only what is.
        isolation_level: i8 = 2..;
        topics: Vec<ListOffsetsTopic> = 0..;
        timeout_ms: i32 = 10.., ignorable;
    }

    /// One topic.
    struct ListOffsetsTopic {
        name: String = 0..;
        partitions: Vec<ListOffsetsPartition> = 0..;
    }

    /// One partition.
    struct ListOffsetsPartition {
        partition_index: i32 = 0..;
        current_leader_epoch: i32 = 4.., default -1, ignorable;
        /// In milliseconds, or -1 for the latest offset, -2 the earliest, -3 that of the largest
        /// timestamp (from version 7), -4 the earliest on local disk (8), -5 the latest in tiered
        /// storage (9), -6 the earliest not yet uploaded (11).
        timestamp: i64 = 0..;
    }
}

message! {
    /// The offsets found.
    response ListOffsetsResponse of ListOffsets {
        throttle_time_ms: i32 = 2.., ignorable;
        topics: Vec<ListOffsetsTopicResponse> = 0..;
    }

    /// One topic.
    struct ListOffsetsTopicResponse {
        name: String = 0..;
        partitions: Vec<ListOffsetsPartitionResponse> = 0..;
    }

    /// One partition.
    struct ListOffsetsPartitionResponse {
        partition_index: i32 = 0..;
        error_code: i16 = 0..;
        timestamp: i64 = 1.., default -1;
        /// -1 if there is none.
        offset: i64 = 1.., default -1;
        leader_epoch: i32 = 4.., default -1;
    }
}
