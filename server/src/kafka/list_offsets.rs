//! ListOffsets: offsets by time, and the special ones.
//!
//! All but the earliest are answered only when a majority has confirmed the leadership after the
//! request came (L5).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::Published;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use riverrun_wire::api::{ListOffsetsRequest, ListOffsetsResponse};
use tracing::warn;

use super::Call;
use crate::partition::Partition;
use crate::repair;
use crate::watched::Kind;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

const READ_COMMITTED: i8 = 1;
const FIRST_VERSION_WITH_EPOCHS: i16 = 4;
const FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE: i16 = 5;
const FIRST_VERSION_WITH_TIMEOUT: i16 = 10;
/// How long an older request waits for a new leader to be able to answer.
const DEFAULT_WAIT: Duration = Duration::from_millis(1000);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A timestamp, an offset and its leader epoch; -1 for what is not known.
struct Answer {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

const NOTHING: Answer = Answer {
    timestamp: -1,
    offset: -1,
    leader_epoch: -1,
};

pub(crate) async fn handle(call: Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let wait = if call.version >= FIRST_VERSION_WITH_TIMEOUT {
        Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(LONGEST_WAIT)
    } else {
        DEFAULT_WAIT
    };
    let read_committed = request.isolation_level == READ_COMMITTED;
    let mut response = ListOffsetsResponse::default();
    let mut lacks_leader = false;
    for topic in request.topics {
        let mut seen = BTreeSet::new();
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for part in topic.partitions {
            let answer = if !seen.insert(part.partition_index) {
                Err(ErrorCode::InvalidRequest)
            } else if request.replica_id >= 0 {
                Err(ErrorCode::ClusterAuthorizationFailed)
            } else {
                offset(&call, &topic.name, &part, read_committed, wait).await
            };
            if let Err(error) = &answer {
                let found = call.broker.topics().named(&topic.name);
                let at = found
                    .as_ref()
                    .and_then(|t| t.partition(part.partition_index));
                lacks_leader |= call.broker.lacks_leader_at(at, *error);
            }
            rows.push(row(&call, part.partition_index, answer));
        }
        response.topics.push(ListOffsetsTopicResponse {
            name: topic.name,
            partitions: rows,
        });
    }
    if lacks_leader {
        call.broker.refused(&call.connection);
    }
    response
}

fn row(
    call: &Call,
    partition_index: i32,
    answer: Result<Answer, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let mut row = ListOffsetsPartitionResponse {
        partition_index,
        ..ListOffsetsPartitionResponse::default()
    };
    match answer {
        Ok(answer) => {
            row.timestamp = answer.timestamp;
            row.offset = answer.offset;
            if call.version >= FIRST_VERSION_WITH_EPOCHS {
                row.leader_epoch = answer.leader_epoch;
            }
        }
        Err(ErrorCode::OffsetNotAvailable)
            if call.version < FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE =>
        {
            row.error_code = ErrorCode::LeaderNotAvailable.number();
        }
        Err(error) => row.error_code = error.number(),
    }
    row
}

/// The version that a special timestamp came with.
fn first_version(timestamp: i64) -> i16 {
    match timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => 0,
    }
}

async fn offset(
    call: &Call,
    topic: &str,
    part: &ListOffsetsPartition,
    read_committed: bool,
    wait: Duration,
) -> Result<Answer, ErrorCode> {
    if call.version < first_version(part.timestamp) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let topic = call
        .broker
        .topics()
        .named(topic)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let at = topic
        .partition(part.partition_index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let at = at.here()?;
    let needs_majority = !matches!(part.timestamp, EARLIEST | EARLIEST_LOCAL);
    let published = call
        .broker
        .leading(at, part.current_leader_epoch, wait, needs_majority)
        .await?;
    let timestamp = part.timestamp;
    let found = if timestamp >= 0 || timestamp == MAX_TIMESTAMP {
        // It is searched for in the log, which may have to be read from the disk.
        let turn = Arc::clone(call.broker.disk_reads()).acquire_owned().await;
        let at = Arc::clone(at);
        let search = call.broker.blocking(Kind::DiskSearch, move || {
            let found = look_up(&at, timestamp, &published, read_committed);
            drop(turn);
            found
        });
        search.await.map_err(|error| {
            warn!(%error, "a search by time was cut off");
            ErrorCode::KafkaStorageError
        })?
    } else {
        look_up(at, timestamp, &published, read_committed)
    };
    found.map_err(|error| {
        warn!(group = at.handle().group(), %error, "a partition cannot be read");
        repair::of_read(&call.broker, at.handle(), &error)
    })
}

fn look_up(
    at: &Arc<Partition>,
    timestamp: i64,
    published: &Published,
    read_committed: bool,
) -> Result<Answer, riverrun_storage::LogError> {
    let reader = at.handle().reader();
    let epoch_of = |offset: i64| reader.epoch_of_offset(offset).unwrap_or(-1);
    let ceiling = if read_committed {
        published.last_stable_offset
    } else {
        published.high_watermark
    };
    let found = match timestamp {
        LATEST => {
            return Ok(Answer {
                timestamp: -1,
                offset: ceiling,
                leader_epoch: published.leader_epoch(),
            });
        }
        EARLIEST | EARLIEST_LOCAL => {
            let offset = published.log_start_offset;
            return Ok(Answer {
                timestamp: -1,
                offset,
                leader_epoch: epoch_of(offset),
            });
        }
        // Nothing is kept anywhere but here.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(NOTHING),
        MAX_TIMESTAMP => reader.max_timestamp(ceiling)?,
        timestamp => reader.offset_for_timestamp(timestamp, ceiling)?,
    };
    Ok(found.map_or(NOTHING, |found| Answer {
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: found.leader_epoch,
    }))
}
