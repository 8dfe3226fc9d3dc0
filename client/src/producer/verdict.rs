//! What a broker's answer to one batch means.

use riverrun_wire::{ErrorCode, api::produce::PartitionProduceResponse};

use super::{delivery::Delivered, queue::Verdict};
use crate::error::{Error, error_code};

/// The verdict on a batch, and whether the cluster's metadata is out of date.
pub(super) fn of(
    topic: &str,
    answer: &PartitionProduceResponse,
    idempotence: bool,
) -> (Verdict, bool) {
    let code = error_code(answer.error_code);
    if code == ErrorCode::None {
        let delivered = Delivered {
            base_offset: (answer.base_offset >= 0).then_some(answer.base_offset),
            log_append_time_ms: (answer.log_append_time_ms >= 0)
                .then_some(answer.log_append_time_ms),
        };
        return (Verdict::Written(delivered), false);
    }
    // The broker's words about single records say more than those about the batch.
    let of_record = answer
        .record_errors
        .iter()
        .find_map(|e| e.batch_index_error_message.clone());
    let message = of_record.or_else(|| answer.error_message.clone());
    let error = Error::refused(
        format!("a record for {topic}/{}", answer.index),
        code,
        message,
    );
    let verdict = match code {
        // It is there; where, the broker no longer knows.
        ErrorCode::DuplicateSequenceNumber if idempotence => Verdict::Written(Delivered {
            base_offset: None,
            log_append_time_ms: None,
        }),
        ErrorCode::OutOfOrderSequenceNumber if idempotence => Verdict::OutOfOrder(error),
        ErrorCode::UnknownProducerId
        | ErrorCode::InvalidProducerEpoch
        | ErrorCode::InvalidProducerIdMapping
        | ErrorCode::ProducerFenced
            if idempotence =>
        {
            Verdict::Identity(error)
        }
        // Said before anything is appended.
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownTopicId
        | ErrorCode::LeaderNotAvailable
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::CorruptMessage => Verdict::Rejected(error),
        // A leader may have appended the batch before it lost its place or its followers, and
        // the batch may be committed yet.
        code if code.is_retriable() => Verdict::Unknown(error),
        _ => Verdict::Fatal(error),
    };
    let stale = matches!(
        code,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::KafkaStorageError
    );
    (verdict, stale)
}

/// The verdict on batches whose request failed as a whole.
pub(super) fn of_failure(error: &Error) -> Verdict {
    match error {
        // These fail before a byte is sent.
        Error::NoBroker { .. } => Verdict::Rejected(error.clone()),
        Error::Unsendable { .. } | Error::UnsupportedVersion { .. } => {
            Verdict::Fatal(error.clone())
        }
        _ => Verdict::Unknown(error.clone()),
    }
}
