//! The producer that writes on through every kill.

use super::beside::Beside;
use super::ledger::{Ledger, PARTITIONS};
use super::run::Run;
use crate::kafka::config;
use anyhow::{Context, Result, ensure};
use rdkafka::client::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

type Place = Box<(usize, i64)>;

struct Reports(Arc<Ledger>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Place;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Place) {
        let (partition, n) = *place;
        let offset = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.acknowledge(partition, n, offset);
    }
}

pub(crate) struct Writer {
    producer: Arc<ThreadedProducer<Reports>>,
    sending: Beside,
}

impl Writer {
    /// Sends `burst` events, spread over the partitions, and pauses.
    pub(crate) fn start(run: &Run, burst: usize) -> Result<Writer> {
        let ledger = &run.ledger;
        let producer: ThreadedProducer<Reports> = config(&run.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("batch.size", "32768")
            .set("queue.buffering.max.messages", "5000")
            .set("retry.backoff.ms", "20")
            // No event is ever given up: then nothing but a lost acknowledgement is uncertain.
            .set("message.timeout.ms", "0")
            .create_with_context(Reports(Arc::clone(ledger)))?;
        let producer = Arc::new(producer);
        let (sender, topic) = (Arc::clone(&producer), run.topic.clone());
        let sending = Beside::start(ledger, "the producer", move |ledger, stopped| {
            write(&sender, &topic, ledger, burst, stopped)
        });
        Ok(Writer { producer, sending })
    }

    /// Sends nothing more and waits until everything sent has been answered.
    pub(crate) fn finish(self, limit: Duration) -> Result<()> {
        self.sending.finish()?;
        self.producer
            .flush(limit)
            .context("waiting for the last acknowledgements")
    }
}

fn write(
    producer: &ThreadedProducer<Reports>,
    topic: &str,
    ledger: &Ledger,
    burst: usize,
    stopped: &AtomicBool,
) -> Result<()> {
    while !stopped.load(Ordering::Relaxed) {
        for number in 0..burst {
            let partition = number % PARTITIONS;
            let n = ledger.sending(partition);
            send(producer, topic, ledger, partition, n)?;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn send(
    producer: &ThreadedProducer<Reports>,
    topic: &str,
    ledger: &Ledger,
    partition: usize,
    n: i64,
) -> Result<()> {
    let event = ledger.event(partition, n);
    let mut headers = OwnedHeaders::new();
    for (key, value) in &event.headers {
        headers = headers.insert(Header {
            key,
            value: value.as_ref(),
        });
    }
    let mut record =
        BaseRecord::<[u8], [u8], Place>::with_opaque_to(topic, Box::new((partition, n)))
            .partition(i32::try_from(partition)?)
            .timestamp(event.timestamp_ms)
            .key(event.key.as_deref().unwrap_or_default())
            .payload(event.value.as_deref().unwrap_or_default())
            .headers(headers);
    // While the broker is down the queue fills, and is given time.
    while let Err((error, returned)) = producer.send(record) {
        ensure!(
            error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull),
            "sending event {n} of partition {partition}: {error}"
        );
        thread::sleep(Duration::from_millis(2));
        record = returned;
    }
    Ok(())
}
