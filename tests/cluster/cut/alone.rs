//! Two of three nodes are dead for good: the third serves what it can alone.

use crate::cluster::trio::{Trio, until};
use crate::fsync::requests::Connection;
use crate::kafka::unique;
use anyhow::{Context, Result, ensure};
use riverrun_wire::ErrorCode;
use riverrun_wire::api::create_topics::{CreatableReplicaAssignment, CreatableTopic};
use riverrun_wire::api::describe_quorum::{DescribeQuorumPartition, DescribeQuorumTopic};
use riverrun_wire::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use riverrun_wire::api::metadata::MetadataRequestTopic;
use riverrun_wire::api::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeClusterRequest, DescribeQuorumRequest,
    ListOffsetsRequest, MetadataRequest,
};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

const METADATA_VERSION: i16 = 12;
/// A connection that is to be closed is closed when its answer is written.
const CLOSED: Duration = Duration::from_secs(5);
/// How long one is watched that is to stay open.
const WATCHED: Duration = Duration::from_millis(300);
/// `riverrun cluster health` where something is wrong with the cluster.
const UNHEALTHY: i32 = 10;

/// Clients, each at an address of its own.
fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 9, last)
}

pub(super) fn serves_what_it_can() -> Result<()> {
    let mut trio = Trio::start()?;
    let result = left_alone(&mut trio);
    trio.explain(result)
}

fn left_alone(trio: &mut Trio) -> Result<()> {
    let broker = trio.address(1)?;
    let (shared, own) = (unique("shared"), unique("own"));
    create(&broker, &shared, &[1, 2, 3])?;
    create(&broker, &own, &[1])?;
    trio.in_sync(&shared, 3)?;
    let mut worker = Connection::open_from(address(1), &broker)?;
    let mut looker = Connection::open_from(address(2), &broker)?;
    let mut early = [
        Connection::open_from(address(3), &broker)?,
        Connection::open_from(address(3), &broker)?,
    ];
    for id in [2, 3] {
        trio.kill(id)?;
    }
    until("somebody who asks for a leader is sent away", || {
        let mut client = Connection::open_from(address(4), &broker)?;
        ask(&mut client, &shared)?;
        Ok(client.is_closed_within(WATCHED)?.then_some(()))
    })?;

    // What it leads and can commit alone.
    for _ in 0..3 {
        let code = worker.produce(&own, 100)?;
        ensure!(code == 0, "a produce to its own partition: error {code}");
        ensure!(ask(&mut worker, &own)? == 1, "it leads its own partition");
        let sent = worker.send_fetch(&own, 0, 1 << 20)?;
        let batches = worker.batches_within(sent, CLOSED)?;
        ensure!(batches.is_some_and(|batches| !batches.is_empty()));
    }
    stays(&mut worker, "that asked for what it leads")?;

    // What health asks, and what every client asks first.
    looker.call(&ApiVersionsRequest::default(), 3)?;
    let cluster = DescribeClusterRequest {
        endpoint_type: 1,
        ..DescribeClusterRequest::default()
    };
    looker.call(&cluster, 1)?;
    let quorum = DescribeQuorumRequest {
        topics: vec![DescribeQuorumTopic {
            topic_name: "__cluster_metadata".to_owned(),
            partitions: vec![DescribeQuorumPartition::default()],
        }],
    };
    looker.call(&quorum, 2)?;
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let answer = looker.call(&all, METADATA_VERSION)?;
    ensure!(answer.topics.len() == 2, "{} topics", answer.topics.len());
    stays(&mut looker, "that asked what health asks")?;
    let health = Command::new(env!("CARGO_BIN_EXE_riverrun"))
        .args(["cluster", "health", "-b", &broker])
        .output()?;
    let said = String::from_utf8_lossy(&health.stdout).into_owned();
    ensure!(
        health.status.code() == Some(UNHEALTHY) && said.contains(&shared),
        "health ended with {} and said {said}",
        health.status
    );

    // Both clients of an address that were there are sent away, and when they come back they may stay.
    for client in &mut early {
        ensure!(ask(client, &shared)? == -1);
        ensure!(client.is_closed_within(CLOSED)?, "one of two stayed");
    }
    for last in [3, 4] {
        let mut back = Connection::open_from(address(last), &broker)?;
        for _ in 0..2 {
            ensure!(ask(&mut back, &shared)? == -1);
        }
        stays(&mut back, "that was sent away a moment ago")?;
    }

    // Each kind of request that needs the leader.
    let mut client = Connection::open_from(address(5), &broker)?;
    let code = client.produce(&shared, 100)?;
    ensure!(code == ErrorCode::NotLeaderOrFollower.number(), "{code}");
    ensure!(client.is_closed_within(CLOSED)?, "a producer stayed");
    let mut client = Connection::open_from(address(6), &broker)?;
    let sent = client.send_fetch(&shared, 0, 1 << 20)?;
    let refused = client.batches_within(sent, CLOSED);
    ensure!(refused.is_err(), "a fetch was answered");
    ensure!(client.is_closed_within(CLOSED)?, "a consumer stayed");
    let mut client = Connection::open_from(address(7), &broker)?;
    let code = latest(&mut client, &shared)?;
    ensure!(code == ErrorCode::NotLeaderOrFollower.number(), "{code}");
    ensure!(client.is_closed_within(CLOSED)?, "a consumer stayed");

    // With a majority nobody is sent away.
    trio.spawn(2)?;
    trio.wait_ready()?;
    trio.agree(&shared)?;
    let mut client = Connection::open_from(address(8), &broker)?;
    ensure!(ask(&mut client, &shared)? > 0);
    stays(&mut client, "that was told of a leader")
}

fn stays(client: &mut Connection, which: &str) -> Result<()> {
    let closed = client.is_closed_within(WATCHED)?;
    ensure!(!closed, "a client was hung up on {which}");
    Ok(())
}

/// The leader that a node names of a topic's only partition.
fn ask(client: &mut Connection, topic: &str) -> Result<i32> {
    let asked = MetadataRequestTopic {
        name: Some(topic.to_owned()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![asked]),
        ..MetadataRequest::default()
    };
    let answer = client.call(&request, METADATA_VERSION)?;
    let topic = answer.topics.into_iter().next().context("no topic")?;
    let partition = topic.partitions.into_iter().next();
    Ok(partition.context("no partition")?.leader_id)
}

/// The error that a question for the end of a topic's only partition gets.
fn latest(client: &mut Connection, topic: &str) -> Result<i16> {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                current_leader_epoch: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let answer = client.call(&request, 5)?;
    let topic = answer.topics.into_iter().next().context("no topic")?;
    let partition = topic.partitions.into_iter().next();
    Ok(partition.context("no partition")?.error_code)
}

/// Creates a topic of one partition on these nodes.
fn create(broker: &str, name: &str, nodes: &[i32]) -> Result<()> {
    let assignment = CreatableReplicaAssignment {
        partition_index: 0,
        broker_ids: nodes.to_vec(),
    };
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![assignment],
        configs: Vec::new(),
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 20_000,
        validate_only: false,
    };
    let answer = Connection::open(broker)?.call(&request, 5)?;
    let topic = answer.topics.into_iter().next().context("no topic")?;
    ensure!(topic.error_code == 0, "creating {name}: {topic:?}");
    Ok(())
}
