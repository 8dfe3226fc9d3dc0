//! DescribeQuorum (55): the replicas of the controller's log, and how far each of them is.

use uuid::Uuid;

use crate::codec::table::message;

message! {
    /// Asks about the controller's log.
    request DescribeQuorumRequest of DescribeQuorum {
        topics: Vec<DescribeQuorumTopic> = 0..;
    }

    /// One topic; there is one such log, `__cluster_metadata`.
    struct DescribeQuorumTopic {
        topic_name: String = 0..;
        partitions: Vec<DescribeQuorumPartition> = 0..;
    }

    /// One partition; the log has one, 0.
    struct DescribeQuorumPartition {
        partition_index: i32 = 0..;
    }
}

message! {
    /// The controller's log.
    response DescribeQuorumResponse of DescribeQuorum {
        error_code: i16 = 0..;
        error_message: Option<String> = 2.., nullable 2.., ignorable;
        topics: Vec<DescribeQuorumTopicResult> = 0..;
        nodes: Vec<Node> = 2..;
    }

    /// One topic.
    struct DescribeQuorumTopicResult {
        topic_name: String = 0..;
        partitions: Vec<DescribeQuorumPartitionResult> = 0..;
    }

    /// One partition.
    struct DescribeQuorumPartitionResult {
        partition_index: i32 = 0..;
        error_code: i16 = 0..;
        error_message: Option<String> = 2.., nullable 2.., ignorable;
        /// -1 where nobody leads.
        leader_id: i32 = 0..;
        leader_epoch: i32 = 0..;
        high_watermark: i64 = 0..;
        current_voters: Vec<ReplicaState> = 0..;
        /// Those that follow and do not vote.
        observers: Vec<ReplicaState> = 0..;
    }

    /// A replica, as its leader knows it.
    struct ReplicaState {
        replica_id: i32 = 0..;
        replica_directory_id: Uuid = 2..;
        /// -1 where it is not known.
        log_end_offset: i64 = 0..;
        /// When it last asked for more; -1 for the leader itself and where it is not known.
        last_fetch_timestamp: i64 = 1.., default -1, ignorable;
        /// When it last had everything; now for the leader itself, -1 where it is not known.
        last_caught_up_timestamp: i64 = 1.., default -1, ignorable;
    }

    /// A node and the listeners by which the other nodes reach it.
    struct Node {
        node_id: i32 = 2..;
        listeners: Vec<Listener> = 2..;
    }

    /// One listener.
    struct Listener {
        name: String = 2..;
        host: String = 2..;
        port: u16 = 2..;
    }
}
