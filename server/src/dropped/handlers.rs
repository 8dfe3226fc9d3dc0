//! Requests of clients that have to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use riverrun_wire::api::create_partitions::CreatePartitionsTopic;
use riverrun_wire::api::describe_quorum::{DescribeQuorumPartition, DescribeQuorumTopic};
use riverrun_wire::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use riverrun_wire::api::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use riverrun_wire::api::{
    CreatePartitionsRequest, DeleteTopicsRequest, DescribeQuorumRequest, InitProducerIdRequest,
    ListOffsetsRequest, OffsetForLeaderEpochRequest,
};

use riverrun_wire::ErrorCode;

use super::changes::two;
use super::{to_its_end, until};
use crate::broker::Broker;
use crate::kafka::{
    create_partitions, create_topics, delete_topics, describe_quorum, init_producer_id,
    list_offsets, metadata, offset_for_leader_epoch,
};
use crate::testing::{Node, call, count, create_request, creates};

fn fresh() -> String {
    format!("topic-{}", count())
}

/// Whether topics can be created and deleted, and nobody waits who is not there.
async fn checked(broker: &Arc<Broker>) -> Result<(), i16> {
    let name = fresh();
    creates(broker, &name).await?;
    deletes(broker, name).await?;
    until("nobody waits", || broker.waiting() == 0).await;
    Ok(())
}

async fn deletes(broker: &Arc<Broker>, name: String) -> Result<(), i16> {
    let (call, _client) = call(broker, 5).await;
    let request = DeleteTopicsRequest {
        topic_names: vec![name],
        timeout_ms: 20_000,
        ..DeleteTopicsRequest::default()
    };
    let response = delete_topics::handle(call, request).await;
    match response.responses.first().unwrap().error_code {
        0 => Ok(()),
        code => Err(code),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn topics_created_and_deleted() {
    let node = Node::start().await;
    let broker = node.broker();
    let create = || async {
        let (call, _client) = call(broker, 7).await;
        create_topics::handle(call, create_request(&fresh())).await
    };
    let dropped = to_its_end(create, async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
    let on_demand = || async {
        let (call, _client) = call(broker, 7).await;
        metadata::create(&call, vec![fresh()]).await;
    };
    let dropped = to_its_end(on_demand, async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
    let both = || async {
        let name = fresh();
        creates(broker, &name).await.unwrap();
        deletes(broker, name).await
    };
    let dropped = to_its_end(both, async || checked(broker).await);
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn partitions_added() {
    let node = Node::start().await;
    let broker = node.broker();
    assert_eq!(creates(broker, "grows").await, Ok(()));
    let next = AtomicI32::new(2);
    let grow = || async {
        let (call, _client) = call(broker, 3).await;
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: "grows".to_owned(),
                count: next.fetch_add(1, Ordering::Relaxed),
                ..CreatePartitionsTopic::default()
            }],
            timeout_ms: 20_000,
            ..CreatePartitionsRequest::default()
        };
        let response = create_partitions::handle(call, request).await;
        response.results.first().unwrap().error_code
    };
    let stale = ErrorCode::InvalidPartitions.number();
    let dropped = to_its_end(grow, async || match grow().await {
        0 => Ok(()),
        // The one that was dropped was made between plan and command: asked again, it is planned anew.
        code if code == stale && grow().await == 0 => Ok(()),
        code => Err(code),
    });
    assert_eq!(dropped.await, Ok(()));
    let (image, shown) = (broker.catalog(), broker.topics().named("grows").unwrap());
    let most = usize::try_from(next.load(Ordering::Relaxed)).unwrap();
    let have = image.read(|image| image.topics.get(&shown.id).unwrap().partitions.len());
    assert!(
        have < most,
        "{have} partitions, and never more than {most} were asked for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn producer_ids() {
    let node = Node::start().await;
    let broker = node.broker();
    let ask = || async {
        let (call, _client) = call(broker, 4).await;
        init_producer_id::handle(call, InitProducerIdRequest::default()).await
    };
    let mut seen = std::collections::BTreeSet::new();
    let dropped = to_its_end(ask, async || {
        let answer = ask().await;
        match answer.error_code {
            0 if seen.insert(answer.producer_id) => Ok(()),
            code => Err((code, answer.producer_id)),
        }
    });
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn offsets() {
    let node = Node::start().await;
    let broker = node.broker();
    assert_eq!(creates(broker, "listed").await, Ok(()));
    let turns = broker.disk_reads().available_permits();
    for timestamp in [5, -1] {
        let list = || async {
            let (call, _client) = call(broker, 7).await;
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: "listed".to_owned(),
                    partitions: vec![ListOffsetsPartition {
                        timestamp,
                        current_leader_epoch: -1,
                        ..ListOffsetsPartition::default()
                    }],
                }],
                ..ListOffsetsRequest::default()
            };
            let response = list_offsets::handle(call, request).await;
            let rows = &response.topics.first().unwrap().partitions;
            rows.first().unwrap().error_code
        };
        let dropped = to_its_end(list, async || {
            let code = list().await;
            let all = || broker.disk_reads().available_permits() == turns;
            until("the turns to read are given back", all).await;
            if code == 0 { Ok(()) } else { Err(code) }
        });
        assert_eq!(dropped.await, Ok(()));
    }
    let epoch = || async {
        let (call, _client) = call(broker, 4).await;
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: "listed".to_owned(),
                partitions: vec![OffsetForLeaderPartition {
                    current_leader_epoch: -1,
                    leader_epoch: 1,
                    ..OffsetForLeaderPartition::default()
                }],
            }],
        };
        let response = offset_for_leader_epoch::handle(call, request).await;
        let rows = &response.topics.first().unwrap().partitions;
        rows.first().unwrap().error_code
    };
    let dropped = to_its_end(epoch, async || match epoch().await {
        0 => Ok(()),
        code => Err(code),
    });
    assert_eq!(dropped.await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn the_quorum() {
    let (_first, second) = two().await;
    let broker = second.broker();
    let describe = || async {
        let (call, _client) = call(broker, 2).await;
        let request = DescribeQuorumRequest {
            topics: vec![DescribeQuorumTopic {
                topic_name: "__cluster_metadata".to_owned(),
                partitions: vec![DescribeQuorumPartition { partition_index: 0 }],
            }],
        };
        let response = describe_quorum::handle(call, request).await;
        let rows = &response.topics.first().unwrap().partitions;
        rows.first().unwrap().leader_id
    };
    let dropped = to_its_end(describe, async || match describe().await {
        1 => Ok(()),
        leader => Err(leader),
    });
    assert_eq!(dropped.await, Ok(()));
}
