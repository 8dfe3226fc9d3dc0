//! What one node says of the cluster.

use crate::fsync::requests::Connection;
use anyhow::{Context, Result, ensure};
use riverrun_wire::api::describe_quorum::{
    DescribeQuorumPartition, DescribeQuorumTopic, ReplicaState,
};
use riverrun_wire::api::metadata::{MetadataRequestTopic, MetadataResponsePartition};
use riverrun_wire::api::{DescribeQuorumRequest, MetadataRequest, MetadataResponse};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// The first version in which topics have ids that may be asked for.
const METADATA_VERSION: i16 = 12;
/// The first version that tells directories.
const DESCRIBE_QUORUM_VERSION: i16 = 2;
/// A node that is starting lets connect, and answers when it serves.
const ASK: Duration = Duration::from_secs(2);

/// Metadata of some topics, none of which is created by asking.
pub(crate) fn metadata(broker: &str, topics: &[&str]) -> Result<MetadataResponse> {
    let mut connection = Connection::open(broker)?;
    connection.patience = ASK;
    let asked = topics.iter().map(|name| MetadataRequestTopic {
        name: Some((*name).to_owned()),
        ..MetadataRequestTopic::default()
    });
    let request = MetadataRequest {
        topics: Some(asked.collect()),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    connection.call(&request, METADATA_VERSION)
}

/// The node that leads group 0, as a node has it.
pub(crate) fn controller(broker: &str) -> Result<i32> {
    Ok(metadata(broker, &[])?.controller_id)
}

/// One topic, as one node shows it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    partitions: BTreeMap<usize, MetadataResponsePartition>,
}

/// Asks a node for a topic, which must be there.
pub(crate) fn view(broker: &str, topic: &str) -> Result<View> {
    let answer = metadata(broker, &[topic])?;
    let topic = answer.topics.into_iter().next().context("no topic")?;
    ensure!(topic.error_code == 0, "error {}", topic.error_code);
    let by_number = |partition: MetadataResponsePartition| {
        Ok((usize::try_from(partition.partition_index)?, partition))
    };
    let partitions = topic.partitions.into_iter().map(by_number);
    Ok(View {
        partitions: partitions.collect::<Result<_>>()?,
    })
}

impl View {
    pub(crate) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// The leader that is named, if one is.
    pub(crate) fn leader(&self, partition: usize) -> Option<i32> {
        let partition = self.partitions.get(&partition)?;
        (partition.error_code == 0 && partition.leader_id >= 0).then_some(partition.leader_id)
    }

    /// Leader and epoch of each partition.
    pub(crate) fn leaders(&self) -> Vec<(i32, i32)> {
        let partitions = self.partitions.values();
        partitions.map(|p| (p.leader_id, p.leader_epoch)).collect()
    }

    pub(crate) fn is_led_by(&self, nodes: &[i32]) -> bool {
        let mut partitions = self.partitions.keys();
        partitions.all(|p| {
            self.leader(*p)
                .is_some_and(|leader| nodes.contains(&leader))
        })
    }

    /// Whether any partition is shown as led by one of these nodes.
    pub(crate) fn names_any(&self, nodes: &[i32]) -> bool {
        let mut partitions = self.partitions.values();
        partitions.any(|partition| nodes.contains(&partition.leader_id))
    }

    pub(crate) fn replicas(&self, partition: usize) -> Vec<i32> {
        let partition = self.partitions.get(&partition);
        let mut nodes = partition.map_or_else(Vec::new, |p| p.replica_nodes.clone());
        nodes.sort_unstable();
        nodes
    }

    /// How many replicas of a partition are shown as in sync.
    pub(crate) fn in_sync(&self, partition: usize) -> usize {
        let partition = self.partitions.get(&partition);
        partition.map_or(0, |partition| partition.isr_nodes.len())
    }
}

/// The replicas of group 0, as one node shows them: node and directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quorum {
    pub(crate) voters: Vec<(i32, Uuid)>,
    pub(crate) observers: Vec<(i32, Uuid)>,
}

impl Quorum {
    pub(crate) fn ask(broker: &str) -> Result<Quorum> {
        let mut connection = Connection::open(broker)?;
        connection.patience = ASK;
        let request = DescribeQuorumRequest {
            topics: vec![DescribeQuorumTopic {
                topic_name: "__cluster_metadata".to_owned(),
                partitions: vec![DescribeQuorumPartition::default()],
            }],
        };
        let answer = connection.call(&request, DESCRIBE_QUORUM_VERSION)?;
        let topic = answer.topics.into_iter().next().context("no topic")?;
        let partition = topic.partitions.into_iter().next();
        let partition = partition.context("no partition")?;
        ensure!(partition.error_code == 0, "error {}", partition.error_code);
        let nodes = |replicas: Vec<ReplicaState>| {
            let nodes = replicas.iter();
            let nodes = nodes.map(|r| (r.replica_id, r.replica_directory_id));
            let mut nodes: Vec<_> = nodes.collect();
            nodes.sort_unstable();
            nodes
        };
        Ok(Quorum {
            voters: nodes(partition.current_voters),
            observers: nodes(partition.observers),
        })
    }

    /// The directory of a voter.
    pub(crate) fn voter(&self, node: i32) -> Option<Uuid> {
        let found = self.voters.iter().find(|(id, _)| *id == node);
        found.map(|(_, directory)| *directory)
    }

    pub(crate) fn voting_nodes(&self) -> Vec<i32> {
        self.voters.iter().map(|(id, _)| *id).collect()
    }
}
