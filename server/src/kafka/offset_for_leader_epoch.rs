//! OffsetForLeaderEpoch: where an epoch ended, by which a consumer finds that logs have parted.

use std::time::Duration;

use riverrun_wire::ErrorCode;
use riverrun_wire::api::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use riverrun_wire::api::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::Call;

const WAIT: Duration = Duration::from_millis(1000);

pub(crate) async fn handle(
    call: Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut response = OffsetForLeaderEpochResponse::default();
    let mut lacks_leader = false;
    for topic in request.topics {
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for part in topic.partitions {
            let mut row = EpochEndOffset {
                partition: part.partition,
                ..EpochEndOffset::default()
            };
            let answer = if request.replica_id >= 0 {
                Err(ErrorCode::ClusterAuthorizationFailed)
            } else {
                end_offset(&call, &topic.topic, &part).await
            };
            match answer {
                Ok((leader_epoch, end_offset)) => {
                    row.leader_epoch = leader_epoch;
                    row.end_offset = end_offset;
                }
                Err(error) => {
                    row.error_code = error.number();
                    let found = call.broker.topics().named(&topic.topic);
                    let at = found.as_ref().and_then(|t| t.partition(part.partition));
                    lacks_leader |= call.broker.lacks_leader_at(at, error);
                }
            }
            rows.push(row);
        }
        response.topics.push(OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions: rows,
        });
    }
    if lacks_leader {
        call.broker.refused(&call.connection);
    }
    response
}

/// The greatest epoch at or below the asked one and the offset behind its last record; (-1, -1)
/// where there is none, or the epoch lies in the future.
async fn end_offset(
    call: &Call,
    topic: &str,
    part: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let topic = call
        .broker
        .topics()
        .named(topic)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let at = topic
        .partition(part.partition)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let at = at.here()?;
    let published = call
        .broker
        .leading(at, part.current_leader_epoch, WAIT, true)
        .await?;
    let ours = published.leader_epoch();
    if part.leader_epoch == ours {
        return Ok((ours, published.high_watermark));
    }
    if part.leader_epoch > ours || part.leader_epoch < 0 {
        return Ok((-1, -1));
    }
    let reader = at.handle().reader();
    Ok(reader
        .end_offset_for_epoch(part.leader_epoch, published.high_watermark)
        .unwrap_or((-1, -1)))
}
