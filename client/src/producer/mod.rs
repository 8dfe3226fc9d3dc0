//! The producer.
//!
//! [`Producer::send`] puts a record into the open batch of its partition and returns at once,
//! unless memory or the topic's metadata has to be waited for; what comes back is a [`Delivery`] to
//! wait on. One task sends the batches.

mod config;
mod delivery;
mod lane;
mod partitioner;
mod queue;
mod sender;
mod verdict;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_record::{HEADER_LEN, Header, record_len};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use self::{
    config::QueueConfig,
    partitioner::Sticky,
    queue::{Append, PartitionQueue, Taken},
};
pub use self::{
    delivery::{Delivery, RecordMetadata},
    partitioner::partition_of_key,
};
use crate::{
    cluster::Client,
    config::{Acks, ProducerConfig},
    error::{Error, Result},
    metadata::TopicInfo,
};

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Topic to write to.
    pub topic: Arc<str>,
    /// Partition to write to; `None` lets the key, or chance, decide.
    pub partition: Option<i32>,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in their order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp_ms: Option<i64>,
}

impl ProducerRecord {
    /// A record of a topic, still without key and value.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            ..Self::default()
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp in milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }
}

/// Writes records.
///
/// Dropping it gives up what is not acknowledged; [`Producer::close`] waits for it.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
}

/// What callers and the sending task share.
#[derive(Debug)]
struct Shared {
    client: Client,
    config: ProducerConfig,
    queue_config: QueueConfig,
    queues: Mutex<Queues>,
    /// Bytes that records may still take.
    memory: Semaphore,
    /// Callers that wait for memory: nothing lingers meanwhile.
    starved: AtomicUsize,
    closed: AtomicBool,
    /// Tells the sending task that there is something new.
    wake: Notify,
}

#[derive(Debug)]
struct Queues {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, PartitionQueue>>,
    sticky: Sticky,
}

impl Producer {
    /// A producer of a cluster. Nothing is sent before the first record.
    ///
    /// # Errors
    /// If the settings cannot hold together.
    pub fn new(client: Client, config: ProducerConfig) -> Result<Self> {
        let queue_config = QueueConfig::new(&config, client.config())?;
        let seed = config
            .seed
            .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        let shared = Arc::new(Shared {
            queues: Mutex::new(Queues {
                topics: BTreeMap::new(),
                sticky: Sticky::new(seed, config.batch_bytes),
            }),
            memory: Semaphore::new(config.buffer_bytes),
            starved: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            wake: Notify::new(),
            queue_config,
            config,
            client,
        });
        let sender = tokio::spawn(sender::run(shared.clone()));
        Ok(Self {
            shared,
            sender: Some(sender),
        })
    }

    /// Puts a record on its way. Waits, at most `max_block`, only for memory and for metadata of a
    /// topic that is not known yet; what becomes of the record is known by the [`Delivery`].
    ///
    /// Records of one partition are written in the order of these calls.
    ///
    /// # Errors
    /// If the record cannot be sent at all: too large, no such topic or partition, no memory in
    /// time, the producer closed.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery> {
        let shared = &*self.shared;
        let topic = match shared.client.known_topic(&record.topic) {
            Some(topic) => topic,
            None => {
                shared
                    .client
                    .topic_within(
                        &record.topic,
                        shared.config.auto_create_topics,
                        shared.config.max_block,
                    )
                    .await?
            }
        };
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        // As large as it can be: the deltas are not known yet.
        let len = record_len(i32::MAX, i64::MAX, key, value, &headers);
        if len + HEADER_LEN > shared.config.max_request_bytes {
            return Err(Error::RecordTooLarge {
                len: len + HEADER_LEN,
                limit: shared.config.max_request_bytes,
            });
        }
        let topic = match record.partition {
            Some(partition) => shared.with_partition(topic, partition).await?,
            None => topic,
        };
        shared.reserve(len).await?;
        let appended = shared.append(&topic, &record, &headers, len);
        if appended.is_err() {
            shared.memory.add_permits(len);
        }
        appended
    }

    /// Sends what waits for company, and waits until every record sent before is answered. What
    /// became of each is in its [`Delivery`].
    pub async fn flush(&self) {
        let cells: Vec<_> = {
            let mut queues = self.shared.queues.lock();
            let all = queues.topics.values_mut().flat_map(BTreeMap::values_mut);
            all.flat_map(|queue| {
                queue.close_open();
                queue.cells().collect::<Vec<_>>()
            })
            .collect()
        };
        self.shared.wake.notify_one();
        for cell in cells {
            let _ = cell.wait().await;
        }
    }

    /// Flushes, then ends the producer.
    pub async fn close(mut self) {
        self.flush().await;
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        if let Some(sender) = self.sender.take() {
            // It ends by itself now; a panic in it has been reported by the runtime.
            let _ = sender.await;
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }
}

impl Shared {
    /// Makes sure that the topic has the partition, asking once more if it seems not to.
    async fn with_partition(
        &self,
        topic: Arc<TopicInfo>,
        partition: i32,
    ) -> Result<Arc<TopicInfo>> {
        if topic.partition(partition).is_some() {
            return Ok(topic);
        }
        self.client
            .refresh(&[topic.name.to_string()], false, None)
            .await?;
        match self.client.known_topic(&topic.name) {
            Some(topic) if topic.partition(partition).is_some() => Ok(topic),
            _ => Err(Error::UnknownPartition {
                topic: topic.name.to_string(),
                partition,
            }),
        }
    }

    /// Takes memory for a record, waiting for it if there is none.
    async fn reserve(&self, len: usize) -> Result<()> {
        let permits = u32::try_from(len).map_err(|_| Error::RecordTooLarge {
            len,
            limit: self.config.max_request_bytes,
        })?;
        if let Ok(taken) = self.memory.try_acquire_many(permits) {
            taken.forget();
            return Ok(());
        }
        self.starved.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
        let deadline = Instant::now() + self.config.max_block;
        let taken = timeout_at(deadline, self.memory.acquire_many(permits)).await;
        self.starved.fetch_sub(1, Ordering::AcqRel);
        match taken {
            Ok(Ok(taken)) => {
                taken.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::GaveUp {
                what: "no memory for the record was free".to_owned(),
                after: self.config.max_block,
                last: None,
            }),
        }
    }

    fn append(
        &self,
        topic: &TopicInfo,
        record: &ProducerRecord,
        headers: &[Header<'_>],
        len: usize,
    ) -> Result<Delivery> {
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(now_ms);
        let now = Instant::now();
        let mut queues = self.queues.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => of_key(key, topic)?,
            (None, None) => queues.sticky.choose(&topic.name, len, || candidates(topic)),
        };
        let partitions = queues.topics.entry(topic.name.clone()).or_default();
        let queue = partitions
            .entry(partition)
            .or_insert_with(PartitionQueue::new);
        let append = Append {
            timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers,
            reserved_bytes: len,
        };
        let appended = queue.append(&append, &self.queue_config, now)?;
        drop(queues);
        if appended.wake {
            self.wake.notify_one();
        }
        Ok(Delivery {
            cell: appended.cell,
            index: appended.index,
            topic: topic.name.clone(),
            partition,
            timestamp_ms: appended.timestamp_ms,
        })
    }

    /// Gives the memory of finished batches back.
    fn give_back(&self, taken: impl IntoIterator<Item = Taken>) {
        let bytes = taken.into_iter().map(|t| t.reserved_bytes).sum::<usize>();
        if bytes > 0 {
            self.memory.add_permits(bytes);
        }
    }

    fn is_answered(&self) -> bool {
        self.config.acks != Acks::None
    }
}

/// The partition of a key. Partitions are numbered from 0 without gaps.
fn of_key(key: &[u8], topic: &TopicInfo) -> Result<i32> {
    let none = || Error::UnknownPartition {
        topic: topic.name.to_string(),
        partition: 0,
    };
    let count = u32::try_from(topic.partitions.len())
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(none)?;
    i32::try_from(partition_of_key(key, count)).map_err(|_| none())
}

fn candidates(topic: &TopicInfo) -> Vec<i32> {
    let led: Vec<_> = topic
        .partitions
        .iter()
        .filter(|p| p.leader.is_some())
        .map(|p| p.number)
        .collect();
    if led.is_empty() {
        topic.partitions.iter().map(|p| p.number).collect()
    } else {
        led
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a record without a timestamp was made now; this is the edge"
)]
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
