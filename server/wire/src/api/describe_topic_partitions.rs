//! DescribeTopicPartitions (75): topics with their partitions, a page at a time.

use uuid::Uuid;

use crate::codec::table::message;

message! {
    /// Asks about topics.
    request DescribeTopicPartitionsRequest of DescribeTopicPartitions {
        topics: Vec<TopicRequest> = 0..;
        response_partition_limit: i32 = 0.., default 2_000;
        /// Where the page before ended; null begins.
        cursor: Option<Cursor> = 0.., nullable 0..;
    }

    /// One topic.
    struct TopicRequest {
        name: String = 0..;
    }

    /// The first topic and partition of a page.
    struct Cursor {
        topic_name: String = 0..;
        partition_index: i32 = 0..;
    }
}

message! {
    /// A page of topics.
    response DescribeTopicPartitionsResponse of DescribeTopicPartitions {
        throttle_time_ms: i32 = 0.., ignorable;
        topics: Vec<DescribeTopicPartitionsResponseTopic> = 0..;
        /// Null if this is the last page.
        next_cursor: Option<Cursor> = 0.., nullable 0..;
    }

    /// One topic.
    struct DescribeTopicPartitionsResponseTopic {
        error_code: i16 = 0..;
        name: Option<String> = 0.., nullable 0..;
        topic_id: Uuid = 0.., ignorable;
        is_internal: bool = 0.., ignorable;
        partitions: Vec<DescribeTopicPartitionsResponsePartition> = 0..;
        topic_authorized_operations: i32 = 0.., default i32::MIN;
    }

    /// One partition.
    struct DescribeTopicPartitionsResponsePartition {
        error_code: i16 = 0..;
        partition_index: i32 = 0..;
        leader_id: i32 = 0..;
        leader_epoch: i32 = 0.., default -1, ignorable;
        replica_nodes: Vec<i32> = 0..;
        isr_nodes: Vec<i32> = 0..;
        /// Replicas out of sync that still hold everything committed.
        eligible_leader_replicas: Option<Vec<i32>> = 0.., nullable 0..;
        last_known_elr: Option<Vec<i32>> = 0.., nullable 0..;
        offline_replicas: Vec<i32> = 0.., ignorable;
    }
}
