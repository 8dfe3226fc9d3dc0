//! The consumer of assigned partitions.
//!
//! [`Consumer::assign`] says which partitions are read and from where; [`Consumer::next`] hands out
//! what was fetched, each partition's records in order and without a gap. One task fetches ahead,
//! one request at a time from each broker, while the caller works on what came before.

mod decode;
mod fetcher;
mod request;
mod start;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use riverrun_record::OwnedRecord;
use tokio::sync::{Notify, mpsc};

use self::fetcher::{Command, Placed};
pub use self::start::Start;
use crate::{
    admin::TopicPartition,
    cluster::Client,
    config::ConsumerConfig,
    error::{Error, Result},
};

/// Records of one partition, in order.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Their topic.
    pub topic: Arc<str>,
    /// Their partition.
    pub partition: i32,
    /// The records; may be none where only control batches were passed.
    pub records: Vec<OwnedRecord>,
    /// The offset after the last of them: where reading goes on.
    pub next_offset: i64,
    /// The offset up to which the partition could be read when this was fetched.
    pub high_watermark: i64,
}

/// What the fetching task hands over.
#[derive(Debug)]
struct Handed {
    place: TopicPartition,
    generation: u64,
    bytes: usize,
    result: Result<Fetched>,
}

/// Reads partitions.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    commands: mpsc::UnboundedSender<Command>,
    inbox: mpsc::UnboundedReceiver<Handed>,
    buffer: Arc<Buffer>,
    positions: BTreeMap<TopicPartition, Position>,
    /// Counts assignments and seeks: what was fetched before the last one is not handed out.
    generation: u64,
}

#[derive(Debug)]
struct Position {
    generation: u64,
    next_offset: i64,
}

/// How much is fetched and not yet handed out.
#[derive(Debug, Default)]
struct Buffer {
    bytes: AtomicUsize,
    freed: Notify,
}

impl Consumer {
    /// A consumer of a cluster, still without partitions.
    ///
    /// # Errors
    /// If the settings cannot hold.
    pub fn new(client: Client, config: ConsumerConfig) -> Result<Self> {
        if config.fetch_max_bytes <= 0
            || config.partition_max_bytes <= 0
            || config.prefetch_bytes == 0
        {
            return Err(Error::InvalidConfig {
                what: "limits of bytes to fetch must be above 0",
            });
        }
        let answer_bytes = usize::try_from(config.fetch_max_bytes).unwrap_or(usize::MAX);
        if answer_bytes >= client.config().max_frame_bytes {
            return Err(Error::InvalidConfig {
                what: "fetch_max_bytes must be below the client's max_frame_bytes",
            });
        }
        let (commands, orders) = mpsc::unbounded_channel();
        // Bounded by `prefetch_bytes` and one answer of each broker.
        let (outbox, inbox) = mpsc::unbounded_channel();
        let buffer = Arc::new(Buffer::default());
        tokio::spawn(fetcher::run(
            client.clone(),
            config,
            orders,
            outbox,
            buffer.clone(),
        ));
        Ok(Self {
            client,
            commands,
            inbox,
            buffer,
            positions: BTreeMap::new(),
            generation: 0,
        })
    }

    /// Reads these partitions from these places, instead of what was assigned before. Says at which
    /// offset each begins.
    ///
    /// # Errors
    /// If a partition does not exist, or its leader cannot be asked in time.
    pub async fn assign(
        &mut self,
        places: impl IntoIterator<Item = (TopicPartition, Start)>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let places: BTreeMap<_, _> = places.into_iter().collect();
        let starts = self.client.resolve(&places).await?;
        self.generation += 1;
        let generation = self.generation;
        self.positions = starts
            .iter()
            .map(|(place, next_offset)| {
                (
                    place.clone(),
                    Position {
                        generation,
                        next_offset: *next_offset,
                    },
                )
            })
            .collect();
        let placed = starts.iter().map(|(place, offset)| Placed {
            place: place.clone(),
            generation,
            offset: *offset,
        });
        self.command(Command::Assign(placed.collect()))?;
        Ok(starts)
    }

    /// Goes on at another offset of an assigned partition.
    ///
    /// # Errors
    /// If the partition is not assigned.
    pub fn seek(&mut self, place: &TopicPartition, offset: i64) -> Result<()> {
        self.generation += 1;
        let generation = self.generation;
        let Some(position) = self.positions.get_mut(place) else {
            return Err(Error::UnknownPartition {
                topic: place.topic.clone(),
                partition: place.partition,
            });
        };
        *position = Position {
            generation,
            next_offset: offset,
        };
        self.command(Command::Seek(Placed {
            place: place.clone(),
            generation,
            offset,
        }))
    }

    /// Stops reading a partition.
    ///
    /// # Errors
    /// If the consumer is closed.
    pub fn unassign(&mut self, place: &TopicPartition) -> Result<()> {
        self.positions.remove(place);
        self.command(Command::Unassign(place.clone()))
    }

    /// The offset of the next record that [`Consumer::next`] will hand out of a partition, as far
    /// as it is known.
    #[must_use]
    pub fn position(&self, place: &TopicPartition) -> Option<i64> {
        self.positions.get(place).map(|p| p.next_offset)
    }

    /// Waits for records. Dropping the future loses none.
    ///
    /// # Errors
    /// What stands in the way of a partition. After a damaged batch, an offset that is not there or
    /// a topic that is gone, that partition waits for [`Consumer::seek`] and the others go on;
    /// anything else is being tried again, and this says that it has been for some time.
    pub async fn next(&mut self) -> Result<Fetched> {
        loop {
            let Some(handed) = self.inbox.recv().await else {
                return Err(Error::Closed);
            };
            self.buffer.bytes.fetch_sub(handed.bytes, Ordering::AcqRel);
            self.buffer.freed.notify_one();
            let current = self
                .positions
                .get_mut(&handed.place)
                .filter(|p| p.generation == handed.generation);
            let Some(position) = current else { continue };
            if let Ok(fetched) = &handed.result {
                position.next_offset = fetched.next_offset;
            }
            return handed.result;
        }
    }

    fn command(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::Closed)
    }
}
