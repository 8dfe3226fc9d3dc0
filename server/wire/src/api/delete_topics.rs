//! DeleteTopics (20): by name up to version 5, by name or id from version 6.

use uuid::Uuid;

use crate::codec::table::message;

message! {
    /// Deletes topics.
    request DeleteTopicsRequest of DeleteTopics {
        topics: Vec<DeleteTopicState> = 6..;
        topic_names: Vec<String> = 0..=5, ignorable;
        timeout_ms: i32 = 0..;
    }

    /// One topic, by name or by id.
    struct DeleteTopicState {
        name: Option<String> = 6.., nullable 6..;
        topic_id: Uuid = 6..;
    }
}

message! {
    /// What became of each topic.
    response DeleteTopicsResponse of DeleteTopics {
        throttle_time_ms: i32 = 1.., ignorable;
        responses: Vec<DeletableTopicResult> = 0..;
    }

    /// One topic.
    struct DeletableTopicResult {
        /// Null for an id that is not known.
        name: Option<String> = 0.., nullable 6..;
        topic_id: Uuid = 6.., ignorable;
        error_code: i16 = 0..;
        error_message: Option<String> = 5.., nullable 5.., ignorable;
    }
}
