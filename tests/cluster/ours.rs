//! Our own client under the kill loops: a producer, a consumer that runs all the time, and one that
//! reads at places.

use crate::event::{Event, Stored};
use crate::kafka::PATIENCE;
use crate::kill_loop::{Beside, Followed, Ledger, PARTITIONS, Run, Take};
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use rdkafka::topic_partition_list::Offset;
use riverrun_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Delivery, Producer, ProducerConfig,
    ProducerRecord, Record, Start, TopicPartition,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) fn client(brokers: &str) -> Result<Client> {
    Ok(Client::new(ClientConfig::new(brokers.split(',')))?)
}

pub(super) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn place(topic: &str, partition: usize) -> Result<TopicPartition> {
    Ok(TopicPartition::new(topic, i32::try_from(partition)?))
}

fn stored(record: Record) -> Result<Stored> {
    let header = |(name, value): (Bytes, Option<Bytes>)| {
        Ok((
            String::from_utf8(name.to_vec())?,
            value.map(|value| value.to_vec()),
        ))
    };
    let headers = record.headers.into_iter().map(header);
    Ok(Stored {
        offset: record.offset,
        event: Event {
            timestamp_ms: record.timestamp,
            key: record.key.map(|key| key.to_vec()),
            value: record.value.map(|value| value.to_vec()),
            headers: headers.collect::<Result<_>>()?,
        },
    })
}

/// An idempotent producer that writes on through every kill.
pub(crate) struct OurWriter(Beside);

impl OurWriter {
    /// Sends `burst` events, spread over the partitions, and pauses.
    pub(crate) fn start(run: &Run, burst: usize) -> OurWriter {
        let (brokers, topic) = (run.brokers.clone(), run.topic.clone());
        OurWriter(Beside::start(
            &run.ledger,
            "our producer",
            move |ledger, stopped| {
                runtime()?.block_on(write(&brokers, &topic, ledger, burst, stopped))
            },
        ))
    }

    /// Sends nothing more and waits until everything sent has been answered.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

async fn write(
    brokers: &str,
    topic: &str,
    ledger: &Arc<Ledger>,
    burst: usize,
    stopped: &AtomicBool,
) -> Result<()> {
    let config = ProducerConfig {
        linger: Duration::from_millis(2),
        // No event is ever given up: then nothing but a lost acknowledgement is uncertain.
        delivery_timeout: Duration::from_secs(24 * 3600),
        max_block: Duration::from_secs(24 * 3600),
        buffer_bytes: 4 << 20,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client(brokers)?, config)?;
    let mut sent = Vec::new();
    let mut noting = Vec::new();
    for partition in 0..PARTITIONS {
        let (sender, deliveries) = mpsc::unbounded_channel();
        sent.push(sender);
        noting.push(tokio::spawn(note(
            partition,
            deliveries,
            Arc::clone(ledger),
        )));
    }
    while !stopped.load(Ordering::Relaxed) {
        for number in 0..burst {
            let partition = number % PARTITIONS;
            let n = ledger.sending(partition);
            let delivery = producer.send(record(topic, partition, ledger.event(partition, n))?);
            let delivery = delivery.await.with_context(|| format!("event {n}"))?;
            sent[partition].send((n, delivery)).ok().context("ended")?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    drop(sent);
    let answered = async {
        for task in noting {
            task.await?;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .context("waiting for the last acknowledgements")?
}

fn record(topic: &str, partition: usize, event: Event) -> Result<ProducerRecord> {
    let mut record = ProducerRecord::to(topic)
        .partition(i32::try_from(partition)?)
        .timestamp_ms(event.timestamp_ms)
        .key(event.key.unwrap_or_default())
        .value(event.value.unwrap_or_default());
    for (name, value) in event.headers {
        record = record.header(name.into_bytes(), value.unwrap_or_default());
    }
    Ok(record)
}

/// Notes the answers of one partition in the order in which its events were sent.
async fn note(
    partition: usize,
    mut deliveries: mpsc::UnboundedReceiver<(i64, Delivery)>,
    ledger: Arc<Ledger>,
) {
    while let Some((n, delivery)) = deliveries.recv().await {
        let offset = match delivery.wait().await {
            Ok(written) => written.offset.ok_or_else(|| "without an offset".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        ledger.acknowledge(partition, n, offset);
    }
}

/// A consumer that follows the topic from the first event to the last, through all kills.
pub(crate) struct OurTail(Beside);

impl OurTail {
    pub(crate) fn start(run: &Run) -> OurTail {
        let (brokers, topic) = (run.brokers.clone(), run.topic.clone());
        OurTail(Beside::start(
            &run.ledger,
            "our consumer that runs all the time",
            move |ledger, stopped| runtime()?.block_on(follow(&brokers, &topic, ledger, stopped)),
        ))
    }

    /// Waits until it has read everything that was sent.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

async fn follow(brokers: &str, topic: &str, ledger: &Ledger, stopped: &AtomicBool) -> Result<()> {
    let mut consumer = Consumer::new(client(brokers)?, ConsumerConfig::default())?;
    let mut places = Vec::new();
    for partition in 0..PARTITIONS {
        places.push((place(topic, partition)?, Start::Offset(0)));
    }
    consumer.assign(places).await?;
    let mut followed = Followed::default();
    while !followed.is_done(ledger, stopped)? {
        let soon = Duration::from_millis(50);
        let fetched = match tokio::time::timeout(soon, consumer.next()).await {
            Err(_) => continue,
            Ok(Ok(fetched)) => fetched,
            // It goes on by itself; when it does not, patience ends.
            Ok(Err(error)) if error.is_retriable() => continue,
            Ok(Err(error)) => return Err(error.into()),
        };
        let partition = usize::try_from(fetched.partition)?;
        for record in fetched.records {
            followed.read(ledger, partition, &stored(record)?)?;
        }
    }
    Ok(())
}

/// Reads at places.
pub(crate) struct OurReader {
    runtime: Runtime,
    consumer: Mutex<Consumer>,
}

impl OurReader {
    pub(crate) fn new(brokers: &str) -> Result<OurReader> {
        let runtime = runtime()?;
        let client = client(brokers)?;
        let consumer = runtime.block_on(async { Consumer::new(client, ConsumerConfig::default()) });
        Ok(OurReader {
            consumer: Mutex::new(consumer?),
            runtime,
        })
    }
}

impl Take for OurReader {
    fn take(
        &self,
        topic: &str,
        partition: usize,
        from: Offset,
        count: usize,
    ) -> Result<Vec<Stored>> {
        let start = match from {
            Offset::Beginning => Start::Beginning,
            Offset::End => Start::End,
            Offset::OffsetTail(count) => Start::BeforeEnd(count),
            Offset::Offset(offset) => Start::Offset(offset),
            other => return Err(anyhow!("{other:?} is no place for our client")),
        };
        let mut consumer = self.consumer.lock().unwrap();
        let place = place(topic, partition)?;
        self.runtime.block_on(async {
            consumer.assign([(place, start)]).await?;
            let mut taken = Vec::new();
            while taken.len() < count {
                let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
                let next = next.with_context(|| {
                    let got = taken.len();
                    format!("{topic}/{partition}: {got} of {count} records from {from:?}")
                })?;
                match next {
                    Ok(fetched) => {
                        for record in fetched.records {
                            taken.push(stored(record)?);
                        }
                    }
                    Err(error) if error.is_retriable() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            taken.truncate(count);
            Ok(taken)
        })
    }
}
