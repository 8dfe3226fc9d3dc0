//! Produce (0): record batches for partitions. Versions 0 to 2 are refused everywhere, yet a server
//! advertises from 0, because librdkafka looks for them to enable compression.

use std::ops::Range;

use bytes::{Buf, BytesMut};
use uuid::Uuid;

use crate::codec::table::message;
use crate::{Decode, Reader, Records, WireError};

message! {
    /// Appends record batches.
    request ProduceRequest of Produce {
        /// Null unless the producer is transactional.
        transactional_id: Option<String> = 3.., nullable 3..;
        /// 0 for no answer, 1 once the leader has written, -1 once it is replicated.
        acks: i16 = 0..;
        timeout_ms: i32 = 0..;
        topic_data: Vec<TopicProduceData> = 0..;
    }

    /// One topic: by name up to version 12, by id from version 13.
    struct TopicProduceData {
        name: String = 0..=12, ignorable;
        topic_id: Uuid = 13.., ignorable;
        partition_data: Vec<PartitionProduceData> = 0..;
    }

    /// One partition.
    struct PartitionProduceData {
        index: i32 = 0..;
        /// One record batch. The protocol lets it be null; no server accepts that.
        records: Option<Records> = 0.., nullable 0..;
    }
}

message! {
    /// What became of each batch.
    response ProduceResponse of Produce {
        responses: Vec<TopicProduceResponse> = 0..;
        throttle_time_ms: i32 = 1.., ignorable;
        /// The endpoints of all leaders named above.
        node_endpoints: Vec<NodeEndpoint> = 10.., tag 0;
    }

    /// One topic.
    struct TopicProduceResponse {
        name: String = 0..=12, ignorable;
        topic_id: Uuid = 13.., ignorable;
        partition_responses: Vec<PartitionProduceResponse> = 0..;
    }

    /// One partition.
    struct PartitionProduceResponse {
        index: i32 = 0..;
        error_code: i16 = 0..;
        /// The offset of the first record; the first one again for a duplicate.
        base_offset: i64 = 0..;
        /// -1 if the topic keeps the producer's timestamps.
        log_append_time_ms: i64 = 2.., default -1, ignorable;
        log_start_offset: i64 = 5.., default -1, ignorable;
        record_errors: Vec<BatchIndexAndErrorMessage> = 8.., ignorable;
        error_message: Option<String> = 8.., nullable 8.., ignorable;
        /// Set with NOT_LEADER_OR_FOLLOWER.
        current_leader: LeaderIdAndEpoch = 10.., tag 0;
    }

    /// A record for which its batch was refused.
    struct BatchIndexAndErrorMessage {
        /// The record's place in the batch.
        batch_index: i32 = 8..;
        batch_index_error_message: Option<String> = 8.., nullable 8..;
    }

    /// The leader of a partition, as far as the broker knows.
    struct LeaderIdAndEpoch {
        leader_id: i32 = 10.., default -1;
        leader_epoch: i32 = 10.., default -1;
    }

    /// Where a leader named in this response is reached.
    struct NodeEndpoint {
        node_id: i32 = 10..;
        host: String = 10..;
        port: i32 = 10..;
        rack: Option<String> = 10.., nullable 10..;
    }
}

/// Where the records of one partition lie in the frame that held the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedRecords {
    /// The place of the topic in the request.
    pub topic: usize,
    /// The place of the partition in the topic.
    pub partition: usize,
    /// The bytes of the frame.
    pub range: Range<usize>,
}

impl ProduceRequest {
    /// Reads a request over a borrowed frame ([`Reader::borrowed`]) and leaves the records in it.
    /// The request holds empty records where there are some; their places are given beside it, in
    /// the order of the frame. A server that owns the frame as [`BytesMut`] can then cut it up
    /// with [`split_records`] and stamp each batch where it lies.
    ///
    /// # Errors
    /// If the bytes are no such request.
    pub fn decode_placed(
        reader: &mut Reader<'_>,
        version: i16,
    ) -> Result<(Self, Vec<PlacedRecords>), WireError> {
        let request = Self::decode(reader, version)?;
        let mut ranges = reader.take_placed().into_iter();
        let mut placed = Vec::with_capacity(ranges.len());
        for (topic, data) in request.topic_data.iter().enumerate() {
            for (partition, data) in data.partition_data.iter().enumerate() {
                if data.records.is_some()
                    && let Some(range) = ranges.next()
                {
                    placed.push(PlacedRecords {
                        topic,
                        partition,
                        range,
                    });
                }
            }
        }
        Ok((request, placed))
    }
}

/// Cuts the records out of their frame, one piece for each place, without copying: the pieces are
/// disjoint, so each can be changed.
///
/// # Errors
/// If the places are not in order or not inside the frame.
pub fn split_records(
    mut frame: BytesMut,
    placed: &[PlacedRecords],
) -> Result<Vec<BytesMut>, WireError> {
    let mut taken = 0_usize;
    let mut pieces = Vec::with_capacity(placed.len());
    for PlacedRecords { range, .. } in placed {
        let between = range
            .start
            .checked_sub(taken)
            .ok_or(WireError::MisplacedRecords)?;
        let len = range
            .end
            .checked_sub(range.start)
            .ok_or(WireError::MisplacedRecords)?;
        if between
            .checked_add(len)
            .is_none_or(|needed| needed > frame.len())
        {
            return Err(WireError::MisplacedRecords);
        }
        frame.advance(between);
        pieces.push(frame.split_to(len));
        taken = range.end;
    }
    Ok(pieces)
}
