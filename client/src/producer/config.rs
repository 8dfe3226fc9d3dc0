//! What a partition's queue goes by: the producer's settings, checked.

use std::time::Duration;

use riverrun_record::Compression;

use crate::{
    config::{Acks, ClientConfig, ProducerConfig},
    error::Error,
};

/// Most batches of one producer and partition that a broker remembers.
pub(super) const BATCHES_REMEMBERED: u64 = 5;

#[derive(Debug, Clone)]
pub(crate) struct QueueConfig {
    pub(crate) idempotence: bool,
    /// Whether brokers answer at all.
    pub(crate) answered: bool,
    pub(crate) compression: Compression,
    pub(crate) compression_level: Option<i32>,
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
}

impl QueueConfig {
    /// Takes settings that can hold together, and refuses the others with the reason.
    pub(crate) fn new(producer: &ProducerConfig, client: &ClientConfig) -> Result<Self, Error> {
        let refuse = |what| Err(Error::InvalidConfig { what });
        if producer.idempotence && producer.acks != Acks::All {
            return refuse("idempotence needs acks=all: without it a retry cannot be recognised");
        }
        if producer.max_in_flight == 0 {
            return refuse("max_in_flight must be at least 1");
        }
        if producer.idempotence && producer.max_in_flight as u64 > BATCHES_REMEMBERED {
            return refuse(
                "idempotence needs max_in_flight of at most 5: brokers remember that many batches",
            );
        }
        if producer.batch_bytes > producer.max_request_bytes {
            return refuse("batch_bytes must not be above max_request_bytes");
        }
        if producer.max_request_bytes > producer.buffer_bytes {
            return refuse(
                "max_request_bytes must not be above buffer_bytes: such a record would wait for ever",
            );
        }
        if u32::try_from(producer.buffer_bytes).is_err() {
            return refuse("buffer_bytes must be below 4 GiB");
        }
        Ok(Self {
            idempotence: producer.idempotence,
            answered: producer.acks != Acks::None,
            compression: producer.compression,
            compression_level: producer.compression_level,
            batch_bytes: producer.batch_bytes,
            linger: producer.linger,
            max_in_flight: producer.max_in_flight,
            delivery_timeout: producer.delivery_timeout,
            retry_backoff: client.retry_backoff,
            retry_backoff_max: client.retry_backoff_max,
        })
    }
}
