//! librdkafka as the yardstick: what it produced, what it reads.

use super::event::{Event, Stored};
use super::trial::fresh_seed;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long any one answer may take before that is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A topic name that no other run has used, for brokers that outlive a run.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:x}", fresh_seed())
}

pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Client settings that wait for nothing that a test does not need.
pub(crate) fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("broker.address.family", "v4")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "20");
    config
}

pub(crate) fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(config(brokers).create()?)
}

/// Waits for one of the admin client's answers.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future))
}

/// Creates a topic that keeps old timestamps for ever, with as many replicas as the brokers think
/// right.
pub(crate) fn create_topic(
    brokers: &str,
    name: &str,
    partitions: usize,
    configs: &[(&str, &str)],
) -> Result<()> {
    let count = i32::try_from(partitions)?;
    let mut topic =
        NewTopic::new(name, count, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
    for (name, value) in configs {
        topic = topic.set(name, value);
    }
    // librdkafka goes on dialling the controller that it was told of, dead or alive, until a request's time is
    // over: a new client is told of the next one.
    let options = AdminOptions::new()
        .operation_timeout(Some(PATIENCE / 4))
        .request_timeout(Some(PATIENCE / 4));
    let deadline = Instant::now() + PATIENCE;
    let mut asked_again = false;
    loop {
        let created = wait(admin(brokers)?.create_topics([&topic], &options))?;
        let failed = match created.map(|results| results.into_iter().next()) {
            Ok(Some(Ok(_))) => return Ok(()),
            Ok(Some(Err((_, code)))) => code,
            Ok(None) => bail!("no answer to the creation of topic {name}"),
            Err(KafkaError::AdminOp(code)) => code,
            Err(error) => return Err(error.into()),
        };
        match failed {
            // The broker that was asked is gone, or there is nobody yet who could write it down.
            RDKafkaErrorCode::NotController
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
                if Instant::now() < deadline =>
            {
                asked_again = true;
            }
            RDKafkaErrorCode::TopicAlreadyExists if asked_again => return Ok(()),
            code => bail!("creating topic {name}: {code}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where one event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) partition: usize,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
}

/// What has been acknowledged, by the number of the event.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(usize, Result<Delivered, String>)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let delivered = match result {
            Ok(message) => Ok(Delivered {
                partition: usize::try_from(message.partition()).unwrap_or(usize::MAX),
                offset: message.offset(),
                timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            }),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.lock().unwrap().push((*number, delivered));
    }
}

/// Produces events with an idempotent producer, each to the partition given or to the one that the
/// partitioner chooses, and returns where each went. Every one must be acknowledged.
pub(crate) fn produce<'a>(
    brokers: &str,
    topic: &str,
    settings: &[(&str, &str)],
    events: impl IntoIterator<Item = (Option<usize>, &'a Event)>,
) -> Result<Vec<Delivered>> {
    let mut config = config(brokers);
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "5");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let producer: ThreadedProducer<Deliveries> =
        config.create_with_context(Deliveries::default())?;
    let mut count = 0;
    for (number, (partition, event)) in events.into_iter().enumerate() {
        let mut record =
            BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(number))
                .timestamp(event.timestamp_ms);
        if let Some(partition) = partition {
            record = record.partition(i32::try_from(partition)?);
        }
        if let Some(key) = &event.key {
            record = record.key(key);
        }
        if let Some(value) = &event.value {
            record = record.payload(value);
        }
        if !event.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(event.headers.len());
            for (key, value) in &event.headers {
                headers = headers.insert(Header {
                    key,
                    value: value.as_ref(),
                });
            }
            record = record.headers(headers);
        }
        while let Err((error, returned)) = producer.send(record) {
            ensure!(
                error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull),
                "producing event {number} to {topic}: {error}"
            );
            std::thread::sleep(Duration::from_millis(1));
            record = returned;
        }
        count += 1;
    }
    producer
        .flush(PATIENCE)
        .with_context(|| format!("flushing {count} events to {topic}"))?;
    let mut deliveries = std::mem::take(&mut *producer.context().0.lock().unwrap());
    deliveries.sort_by_key(|(number, _)| *number);
    ensure!(
        deliveries.len() == count,
        "{count} events sent, {} answered",
        deliveries.len()
    );
    deliveries
        .into_iter()
        .map(|(number, delivered)| {
            delivered.map_err(|error| anyhow!("event {number} to {topic}: {error}"))
        })
        .collect()
}

/// A consumer by assignment. It never falls back to another offset than the one it was given, and
/// it knows no group.
pub(crate) struct Reader {
    consumer: BaseConsumer,
}

impl Reader {
    pub(crate) fn new(brokers: &str) -> Result<Reader> {
        Reader::that_checks(brokers, "true")
    }

    /// One that takes what it is given, as librdkafka does unless it is told not to.
    pub(crate) fn without_checksums(brokers: &str) -> Result<Reader> {
        Reader::that_checks(brokers, "false")
    }

    fn that_checks(brokers: &str, checks: &str) -> Result<Reader> {
        let mut config = config(brokers);
        config
            .set("group.id", "no-group-is-ever-joined")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.error.backoff.ms", "20")
            .set("check.crcs", checks);
        Ok(Reader {
            consumer: config.create()?,
        })
    }

    /// Goes to the given places and stays assigned there.
    pub(crate) fn assign(&self, topic: &str, places: &[(usize, Offset)]) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            list.add_partition_offset(topic, i32::try_from(*partition)?, *offset)?;
        }
        self.consumer
            .assign(&list)
            .with_context(|| format!("assigning {list:?}"))
    }

    /// The next record or the end of a partition.
    pub(crate) fn next(&self, limit: Duration) -> Result<Option<Next>> {
        match self.consumer.poll(limit) {
            None => Ok(None),
            Some(Ok(message)) => {
                let (partition, stored) = read(&message)?;
                Ok(Some(Next::Record(partition, stored)))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                Ok(Some(Next::End(usize::try_from(partition)?)))
            }
            // librdkafka reports lost connections here and goes on by itself; when it does not,
            // the caller runs out of patience.
            Some(Err(error)) if is_passing(&error) => Ok(None),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Reads from the given places to the end of each partition.
    pub(crate) fn read(&self, topic: &str, places: &[(usize, Offset)]) -> Result<Vec<Vec<Stored>>> {
        self.assign(topic, places)?;
        let mut logs = vec![Vec::new(); places.len()];
        let mut ended = vec![false; places.len()];
        let mut deadline = Instant::now() + PATIENCE;
        while ended.contains(&false) {
            let Some(next) = self.next(Duration::from_millis(200))? else {
                if Instant::now() > deadline {
                    let read: Vec<usize> = logs.iter().map(Vec::len).collect();
                    bail!(
                        "reading {topic} from {places:?}: nothing for {PATIENCE:?} after {read:?} records"
                    );
                }
                continue;
            };
            deadline = Instant::now() + PATIENCE;
            let at = |wanted: usize| {
                places
                    .iter()
                    .position(|(partition, _)| *partition == wanted)
            };
            match next {
                Next::Record(partition, stored) => {
                    logs[at(partition).context("a record of another partition")?].push(stored);
                }
                Next::End(partition) => {
                    ended[at(partition).context("the end of another partition")?] = true;
                }
            }
        }
        Ok(logs)
    }

    /// Reads all of a topic from offset 0.
    pub(crate) fn read_all(&self, topic: &str, partitions: usize) -> Result<Vec<Vec<Stored>>> {
        let places: Vec<_> = (0..partitions).map(|p| (p, Offset::Offset(0))).collect();
        self.read(topic, &places)
    }

    /// Reads `count` records of one partition from a place on.
    pub(crate) fn take(
        &self,
        topic: &str,
        partition: usize,
        from: Offset,
        count: usize,
    ) -> Result<Vec<Stored>> {
        self.assign(topic, &[(partition, from)])?;
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while records.len() < count {
            if let Some(Next::Record(_, stored)) = self.next(Duration::from_millis(100))? {
                records.push(stored);
            }
            ensure!(
                Instant::now() < deadline,
                "{topic}/{partition}: {} of {count} records from {from:?} in {PATIENCE:?}",
                records.len()
            );
        }
        Ok(records)
    }

    /// What the broker answers for a timestamp: an offset, or nothing as old as that.
    pub(crate) fn offset_at(
        &self,
        topic: &str,
        partition: usize,
        timestamp_ms: i64,
    ) -> Result<Option<i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            topic,
            i32::try_from(partition)?,
            Offset::Offset(timestamp_ms),
        )?;
        let answered = insist(|| self.consumer.offsets_for_times(list.clone(), PATIENCE))?;
        let elements = answered.elements();
        let element = elements.first().context("an answer without a partition")?;
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => Ok(Some(offset)),
            Offset::End => Ok(None),
            other => bail!("{topic}/{partition} at {timestamp_ms}: {other:?}"),
        }
    }

    /// How many partitions the broker says the topic has.
    pub(crate) fn partitions(&self, topic: &str) -> Result<usize> {
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let topic = metadata
            .topics()
            .first()
            .context("no topic in the answer")?;
        ensure!(
            topic.error().is_none(),
            "{}: {:?}",
            topic.name(),
            topic.error()
        );
        Ok(topic.partitions().len())
    }
}

/// Asks again while the answer is that a broker is not there, or not there yet.
fn insist<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(error) if is_passing(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            answer => return Ok(answer?),
        }
    }
}

/// What a consumer meets.
pub(crate) enum Next {
    Record(usize, Stored),
    End(usize),
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::OffsetNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

fn read(message: &BorrowedMessage<'_>) -> Result<(usize, Stored)> {
    let mut headers = Vec::new();
    if let Some(list) = message.headers() {
        for header in list.iter() {
            headers.push((header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
        }
    }
    let event = Event {
        timestamp_ms: message
            .timestamp()
            .to_millis()
            .context("a record without a timestamp")?,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    };
    Ok((
        usize::try_from(message.partition())?,
        Stored {
            offset: message.offset(),
            event,
        },
    ))
}
