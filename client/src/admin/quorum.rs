//! The controller's log and its replicas.

use riverrun_wire::{
    ErrorCode,
    api::{
        DescribeQuorumRequest,
        describe_quorum::{DescribeQuorumPartition, DescribeQuorumTopic, ReplicaState},
    },
};
use uuid::Uuid;

use crate::{
    cluster::Client,
    error::{Error, Result, error_code},
};

/// What Kafka calls the controller's log.
const TOPIC: &str = "__cluster_metadata";

/// The controller's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumInfo {
    /// Node that leads it, if one does.
    pub leader: Option<i32>,
    /// Epoch of the leadership; -1 where it is not known.
    pub leader_epoch: i32,
    /// Everything below is committed; -1 where it is not known.
    pub high_watermark: i64,
    /// The replicas that vote, by node.
    pub voters: Vec<QuorumReplica>,
    /// Those that only follow, by node.
    pub observers: Vec<QuorumReplica>,
}

/// A replica of the controller's log, as far as whoever was asked knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Its node.
    pub node: i32,
    /// Its data directory; nil where the broker does not say.
    pub directory: Uuid,
    /// The offset behind its last entry.
    pub log_end_offset: Option<i64>,
    /// When it last asked its leader for more, in milliseconds since 1970.
    pub last_fetch_ms: Option<i64>,
    /// When it last had everything.
    pub last_caught_up_ms: Option<i64>,
}

impl Client {
    /// The controller's log and its replicas, asked for now: of the controller where it can be
    /// reached, since only it knows how far the others are.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn describe_quorum(&self) -> Result<QuorumInfo> {
        let request = DescribeQuorumRequest {
            topics: vec![DescribeQuorumTopic {
                topic_name: TOPIC.to_owned(),
                partitions: vec![DescribeQuorumPartition { partition_index: 0 }],
            }],
        };
        let response = match self.ask_controller(&request).await {
            Ok(response) => response,
            Err(_) => {
                let what = "the controller's log was not described";
                self.ask_any(&request, what).await?
            }
        };
        let refused = |code, message| Error::refused("the controller's log", code, message);
        match error_code(response.error_code) {
            ErrorCode::None => {}
            code => return Err(refused(code, response.error_message)),
        }
        let topics = response.topics.into_iter();
        let found = topics
            .filter(|topic| topic.topic_name == TOPIC)
            .flat_map(|topic| topic.partitions)
            .find(|partition| partition.partition_index == 0);
        let Some(found) = found else {
            return Err(Error::Protocol {
                broker: "the broker".to_owned(),
                what: "its answer to DescribeQuorum leaves out what was asked for",
            });
        };
        match error_code(found.error_code) {
            ErrorCode::None => {}
            code => return Err(refused(code, found.error_message)),
        }
        Ok(QuorumInfo {
            leader: (found.leader_id >= 0).then_some(found.leader_id),
            leader_epoch: found.leader_epoch,
            high_watermark: found.high_watermark,
            voters: replicas(found.current_voters),
            observers: replicas(found.observers),
        })
    }
}

fn replicas(states: Vec<ReplicaState>) -> Vec<QuorumReplica> {
    let known = |number: i64| (number >= 0).then_some(number);
    let mut replicas: Vec<_> = states
        .into_iter()
        .map(|state| QuorumReplica {
            node: state.replica_id,
            directory: state.replica_directory_id,
            log_end_offset: known(state.log_end_offset),
            last_fetch_ms: known(state.last_fetch_timestamp),
            last_caught_up_ms: known(state.last_caught_up_timestamp),
        })
        .collect();
    replicas.sort_by_key(|replica| replica.node);
    replicas
}
