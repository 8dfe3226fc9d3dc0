//! Metadata (3): the brokers, and the topics with their partitions and leaders.

use uuid::Uuid;

use crate::codec::table::message;

message! {
    /// Asks about topics.
    request MetadataRequest of Metadata {
        /// Null asks for all topics, and so does an empty list in version 0, which has no null.
        topics: Option<Vec<MetadataRequestTopic>> = 0.., nullable 1..;
        allow_auto_topic_creation: bool = 4.., default true;
        include_cluster_authorized_operations: bool = 8..=10;
        include_topic_authorized_operations: bool = 8..;
    }

    /// One topic.
    struct MetadataRequestTopic {
        topic_id: Uuid = 10.., ignorable;
        /// Null if the id is given.
        name: Option<String> = 0.., nullable 10..;
    }
}

message! {
    /// Brokers and topics.
    response MetadataResponse of Metadata {
        throttle_time_ms: i32 = 3.., ignorable;
        brokers: Vec<MetadataResponseBroker> = 0..;
        cluster_id: Option<String> = 2.., nullable 2.., ignorable;
        /// -1 if unknown.
        controller_id: i32 = 1.., default -1, ignorable;
        topics: Vec<MetadataResponseTopic> = 0..;
        /// A bit for each operation; the smallest number if not asked for.
        cluster_authorized_operations: i32 = 8..=10, default i32::MIN;
        error_code: i16 = 13.., ignorable;
    }

    /// One broker.
    struct MetadataResponseBroker {
        node_id: i32 = 0..;
        host: String = 0..;
        port: i32 = 0..;
        rack: Option<String> = 1.., nullable 1.., ignorable;
    }

    /// One topic.
    struct MetadataResponseTopic {
        error_code: i16 = 0..;
        /// Null for an id that is not known.
        name: Option<String> = 0.., nullable 12..;
        topic_id: Uuid = 10.., ignorable;
        is_internal: bool = 1.., ignorable;
        partitions: Vec<MetadataResponsePartition> = 0..;
        /// A bit for each operation; the smallest number if not asked for.
        topic_authorized_operations: i32 = 8.., default i32::MIN;
    }

    /// One partition.
    struct MetadataResponsePartition {
        error_code: i16 = 0..;
        partition_index: i32 = 0..;
        /// -1 if there is none.
        leader_id: i32 = 0..;
        leader_epoch: i32 = 7.., default -1, ignorable;
        replica_nodes: Vec<i32> = 0..;
        isr_nodes: Vec<i32> = 0..;
        offline_replicas: Vec<i32> = 5.., ignorable;
    }
}

impl MetadataRequest {
    /// Whether all topics are asked for: by null, or in version 0 by an empty list.
    #[must_use]
    pub fn all_topics(&self, version: i16) -> bool {
        self.topics
            .as_ref()
            .is_none_or(|topics| version == 0 && topics.is_empty())
    }
}
