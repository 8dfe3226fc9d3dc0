//! The answer to a produced record.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::error::Error;

/// What a broker says of a written batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Offset of its first record; `None` where the broker did not say (`acks=0`, or a retry of a
    /// batch so old that its offset is forgotten).
    pub(crate) base_offset: Option<i64>,
    /// The broker's time, where the topic uses it.
    pub(crate) log_append_time_ms: Option<i64>,
}

/// One batch's answer, shared by its records.
#[derive(Debug, Default)]
pub(crate) struct DeliveryCell {
    result: OnceLock<Result<Delivered, Error>>,
    ready: Notify,
}

impl DeliveryCell {
    /// Answers, once; a second answer is ignored.
    pub(crate) fn set(&self, result: Result<Delivered, Error>) {
        // INVARIANT: a batch leaves its queue when it is answered, so nobody answers it again.
        let first = self.result.set(result).is_ok();
        debug_assert!(first, "a batch is answered once");
        self.ready.notify_waiters();
    }

    pub(crate) async fn wait(&self) -> Result<Delivered, Error> {
        loop {
            let ready = self.ready.notified();
            if let Some(result) = self.result.get() {
                return result.clone();
            }
            ready.await;
        }
    }

    pub(crate) fn peek(&self) -> Option<&Result<Delivered, Error>> {
        self.result.get()
    }
}

/// Where and when a record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset; `None` where the broker did not say (`acks=0`, or a retry that the broker
    /// recognised after it had forgotten the offset).
    pub offset: Option<i64>,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: i64,
}

/// A record on its way. Dropping this does not stop the record.
#[derive(Debug)]
#[must_use = "whether the record was written is known only after waiting for it"]
pub struct Delivery {
    pub(crate) cell: Arc<DeliveryCell>,
    pub(crate) index: i32,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) timestamp_ms: i64,
}

impl Delivery {
    /// The partition that was chosen for the record.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// Why the record was not written, or cannot be known to be.
    pub async fn wait(self) -> Result<RecordMetadata, Error> {
        let delivered = self.cell.wait().await?;
        Ok(self.metadata(delivered))
    }

    /// Waits until the answer is there, without taking it.
    pub async fn ready(&self) {
        let _ = self.cell.wait().await;
    }

    /// The answer, if it is there.
    #[must_use]
    pub fn try_get(&self) -> Option<Result<RecordMetadata, Error>> {
        let result = self.cell.peek()?;
        Some(result.clone().map(|delivered| self.metadata(delivered)))
    }

    fn metadata(&self, delivered: Delivered) -> RecordMetadata {
        RecordMetadata {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: delivered
                .base_offset
                .map(|base| base + i64::from(self.index)),
            timestamp_ms: delivered.log_append_time_ms.unwrap_or(self.timestamp_ms),
        }
    }
}
