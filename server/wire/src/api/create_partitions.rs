//! CreatePartitions (37): raises the number of partitions of topics.

use crate::codec::table::message;

message! {
    /// Adds partitions.
    request CreatePartitionsRequest of CreatePartitions {
        topics: Vec<CreatePartitionsTopic> = 0..;
        timeout_ms: i32 = 0..;
        validate_only: bool = 0..;
    }

    /// One topic.
    struct CreatePartitionsTopic {
        name: String = 0..;
        /// The number of partitions that there shall be.
        count: i32 = 0..;
        /// Where the new ones are placed; null leaves it to the controller.
        assignments: Option<Vec<CreatePartitionsAssignment>> = 0.., nullable 0..;
    }

    /// Where one new partition is placed.
    struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> = 0..;
    }
}

message! {
    /// What became of each topic.
    response CreatePartitionsResponse of CreatePartitions {
        throttle_time_ms: i32 = 0..;
        results: Vec<CreatePartitionsTopicResult> = 0..;
    }

    /// One topic.
    struct CreatePartitionsTopicResult {
        name: String = 0..;
        error_code: i16 = 0..;
        error_message: Option<String> = 0.., nullable 0..;
    }
}
