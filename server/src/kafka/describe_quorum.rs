//! DescribeQuorum: the controller's log and its replicas.

use std::collections::BTreeSet;

use riverrun_wire::ErrorCode;
use riverrun_wire::api::describe_quorum::{
    DescribeQuorumPartitionResult, DescribeQuorumTopicResult, Listener, Node, ReplicaState,
};
use riverrun_wire::api::{DescribeQuorumRequest, DescribeQuorumResponse};
use uuid::Uuid;

use super::Call;
use crate::quorum::{QuorumView, ReplicaView};

/// What Kafka calls the controller's log; it is no topic that could be read.
const TOPIC: &str = "__cluster_metadata";
/// The version that first tells directories and nodes.
const WITH_NODES: i16 = 2;

pub(crate) async fn handle(call: Call, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let view = call.broker.quorum().await;
    let call = &call;
    let mut seen = BTreeSet::new();
    let topics = request.topics.iter().filter_map(|topic| {
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|partition| partition.partition_index)
            // Each is described once, however often it is asked for.
            .filter(|index| seen.insert((topic.topic_name.as_str(), *index)))
            .map(|index| partition(call, &view, &topic.topic_name, index))
            .collect();
        (!partitions.is_empty()).then(|| DescribeQuorumTopicResult {
            topic_name: topic.topic_name.clone(),
            partitions,
        })
    });
    DescribeQuorumResponse {
        topics: topics.collect(),
        nodes: if call.version >= WITH_NODES {
            nodes(call, &view)
        } else {
            Vec::new()
        },
        ..DescribeQuorumResponse::default()
    }
}

fn partition(
    call: &Call,
    view: &QuorumView,
    topic: &str,
    index: i32,
) -> DescribeQuorumPartitionResult {
    if (topic, index) != (TOPIC, 0) {
        let error = ErrorCode::UnknownTopicOrPartition;
        return DescribeQuorumPartitionResult {
            partition_index: index,
            error_code: error.number(),
            error_message: Some(format!("only partition 0 of {TOPIC} is described")),
            leader_id: -1,
            leader_epoch: -1,
            high_watermark: -1,
            ..DescribeQuorumPartitionResult::default()
        };
    }
    let states = |replicas: &[ReplicaView]| {
        let states = replicas.iter().map(|replica| state(call, replica));
        states.collect()
    };
    DescribeQuorumPartitionResult {
        leader_id: view.leader_id,
        leader_epoch: view.leader_epoch,
        high_watermark: view.high_watermark,
        current_voters: states(&view.voters),
        observers: states(&view.observers),
        ..DescribeQuorumPartitionResult::default()
    }
}

fn state(call: &Call, replica: &ReplicaView) -> ReplicaState {
    ReplicaState {
        replica_id: replica.node,
        replica_directory_id: if call.version >= WITH_NODES {
            replica.directory
        } else {
            Uuid::nil()
        },
        log_end_offset: replica.log_end_offset,
        last_fetch_timestamp: replica.last_fetch_ms,
        last_caught_up_timestamp: replica.last_caught_up_ms,
    }
}

/// Where the nodes that have a replica reach each other.
fn nodes(call: &Call, view: &QuorumView) -> Vec<Node> {
    let name = &call.broker.config().listeners.controller;
    call.broker.catalog().read(|image| {
        let replicas = view.voters.iter().chain(&view.observers);
        let listeners = |node: i32| {
            let broker = image.brokers.get(&node);
            let reachable = broker.filter(|broker| !broker.peer_host.is_empty());
            let listener = reachable.map(|broker| Listener {
                name: name.clone(),
                host: broker.peer_host.clone(),
                port: broker.peer_port,
            });
            listener.into_iter().collect()
        };
        replicas
            .map(|replica| Node {
                node_id: replica.node,
                listeners: listeners(replica.node),
            })
            .collect()
    })
}
