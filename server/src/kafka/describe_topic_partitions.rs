//! DescribeTopicPartitions: topics with their partitions, a page at a time.

use std::sync::Arc;

use riverrun_replication::cut_off::concerns_others;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use riverrun_wire::api::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::Call;
use crate::error;
use crate::topics::Topic;

/// The most partitions of one page (`max.request.partition.size.limit`).
const MAX_PAGE: usize = 2000;

enum Asked {
    Known(Arc<Topic>),
    Unknown(String, ErrorCode),
}

impl Asked {
    fn name(&self) -> &str {
        match self {
            Self::Known(topic) => &topic.name,
            Self::Unknown(name, _) => name,
        }
    }
}

pub(crate) fn handle(
    call: &Call,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, MAX_PAGE);
    let (from_name, mut from_partition) = match &request.cursor {
        Some(cursor) => (
            cursor.topic_name.as_str(),
            usize::try_from(cursor.partition_index).unwrap_or(0),
        ),
        None => ("", 0),
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for asked in asked(call, &request, from_name, limit) {
        let topic = match asked {
            Asked::Known(topic) => topic,
            Asked::Unknown(name, error) => {
                response.topics.push(DescribeTopicPartitionsResponseTopic {
                    error_code: error.number(),
                    name: Some(name),
                    ..DescribeTopicPartitionsResponseTopic::default()
                });
                continue;
            }
        };
        // The place inside the topic counts only for the topic that the last page ended in.
        let skip = if &*topic.name == from_name {
            from_partition
        } else {
            0
        };
        from_partition = 0;
        if left == 0 {
            response.next_cursor = Some(cursor(&topic, skip));
            break;
        }
        let rows = partitions(call, &topic, skip, left);
        left -= rows.len();
        let next = skip + rows.len();
        let cut = next < topic.partitions.len();
        response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(topic.name.to_string()),
            topic_id: topic.id,
            partitions: rows,
            ..DescribeTopicPartitionsResponseTopic::default()
        });
        if cut {
            response.next_cursor = Some(cursor(&topic, next));
            break;
        }
    }
    let own = call.broker.config().node_id;
    let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let lacks_leader = partitions.any(|partition| {
        partition.leader_id < 0 && concerns_others(own, partition.replica_nodes.iter().copied())
    });
    if lacks_leader {
        call.broker.refused(&call.connection);
    }
    response
}

fn cursor(topic: &Topic, partition: usize) -> Cursor {
    Cursor {
        topic_name: topic.name.to_string(),
        partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
    }
}

/// The topics at or behind the cursor, in the order of their names; as many as may fill a page and
/// one more.
fn asked(
    call: &Call,
    request: &DescribeTopicPartitionsRequest,
    from_name: &str,
    limit: usize,
) -> Vec<Asked> {
    let topics = call.broker.topics();
    if request.topics.is_empty() {
        return topics
            .starting_at(from_name, limit + 1)
            .into_iter()
            .map(Asked::Known)
            .collect();
    }
    let mut asked: Vec<Asked> = request
        .topics
        .iter()
        .filter(|topic| topic.name.as_str() >= from_name)
        .map(|topic| match topics.named(&topic.name) {
            Some(topic) => Asked::Known(topic),
            None => {
                let error = riverrun_replication::controller::check_topic_name(&topic.name)
                    .map_or_else(
                        |rejection| error::of_rejection(&rejection),
                        |()| ErrorCode::UnknownTopicOrPartition,
                    );
                Asked::Unknown(topic.name.clone(), error)
            }
        })
        .collect();
    asked.sort_by(|a, b| a.name().cmp(b.name()));
    asked.dedup_by(|a, b| a.name() == b.name());
    asked
}

fn partitions(
    call: &Call,
    topic: &Topic,
    skip: usize,
    limit: usize,
) -> Vec<DescribeTopicPartitionsResponsePartition> {
    (0..)
        .zip(&topic.partitions)
        .skip(skip)
        .take(limit)
        .map(|(index, partition)| {
            let state = call.broker.state_of(partition);
            DescribeTopicPartitionsResponsePartition {
                error_code: state.error.number(),
                partition_index: index,
                leader_id: state.leader,
                leader_epoch: state.leader_epoch,
                replica_nodes: state.replicas,
                isr_nodes: state.in_sync,
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                offline_replicas: state.offline,
            }
        })
        .collect()
}
