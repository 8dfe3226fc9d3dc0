//! InitProducerId (22): an id and epoch for an idempotent or transactional producer. Version 6, for
//! two-phase commit, is still unstable in Kafka and left out.

use crate::codec::table::message;

message! {
    /// Asks for a producer id.
    request InitProducerIdRequest of InitProducerId {
        /// Null unless the producer is transactional.
        transactional_id: Option<String> = 0.., nullable 0..;
        transaction_timeout_ms: i32 = 0..;
        /// The id whose epoch is to be raised, or -1 for a new one.
        producer_id: i64 = 3.., default -1;
        producer_epoch: i16 = 3.., default -1;
    }
}

message! {
    /// The producer id.
    response InitProducerIdResponse of InitProducerId {
        throttle_time_ms: i32 = 0.., ignorable;
        error_code: i16 = 0..;
        producer_id: i64 = 0.., default -1;
        producer_epoch: i16 = 0..;
    }
}
