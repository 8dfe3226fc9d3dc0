//! CreateTopics (19).

use uuid::Uuid;

use crate::codec::table::message;

message! {
    /// Creates topics.
    request CreateTopicsRequest of CreateTopics {
        topics: Vec<CreatableTopic> = 0..;
        timeout_ms: i32 = 0.., default 60_000;
        validate_only: bool = 1..;
    }

    /// One topic.
    struct CreatableTopic {
        name: String = 0..;
        /// -1 for the default, or if the assignments say it.
        num_partitions: i32 = 0..;
        /// -1 for the default, or if the assignments say it.
        replication_factor: i16 = 0..;
        assignments: Vec<CreatableReplicaAssignment> = 0..;
        configs: Vec<CreatableTopicConfig> = 0..;
    }

    /// Where one partition is to be placed.
    struct CreatableReplicaAssignment {
        partition_index: i32 = 0..;
        broker_ids: Vec<i32> = 0..;
    }

    /// One setting.
    struct CreatableTopicConfig {
        name: String = 0..;
        value: Option<String> = 0.., nullable 0..;
    }
}

message! {
    /// What became of each topic.
    response CreateTopicsResponse of CreateTopics {
        throttle_time_ms: i32 = 2.., ignorable;
        topics: Vec<CreatableTopicResult> = 0..;
    }

    /// One topic.
    struct CreatableTopicResult {
        name: String = 0..;
        topic_id: Uuid = 7.., ignorable;
        error_code: i16 = 0..;
        error_message: Option<String> = 1.., nullable 0.., ignorable;
        topic_config_error_code: i16 = 5.., tag 0, ignorable;
        num_partitions: i32 = 5.., default -1, ignorable;
        replication_factor: i16 = 5.., default -1, ignorable;
        /// Null if the client may not read them.
        configs: Option<Vec<CreatableTopicConfigs>> = 5.., nullable 5.., ignorable;
    }

    /// One setting as it is now.
    struct CreatableTopicConfigs {
        name: String = 5..;
        /// Null if it is sensitive.
        value: Option<String> = 5.., nullable 5..;
        read_only: bool = 5..;
        config_source: i8 = 5.., default -1, ignorable;
        is_sensitive: bool = 5..;
    }
}
