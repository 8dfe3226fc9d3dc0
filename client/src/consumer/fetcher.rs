//! The task that fetches ahead: one request at a time from each broker, for all partitions that it
//! leads, as long as there is room for what comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use riverrun_wire::ErrorCode;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Buffer, Fetched, Handed,
    request::{Asked, Told, Trouble, fetch},
};
use crate::{
    admin::{OffsetSpec, TopicPartition},
    cluster::Client,
    config::{ConsumerConfig, OutOfRange},
    error::{Error, Result},
};

/// What the consumer wants.
#[derive(Debug)]
pub(super) enum Command {
    Assign(Vec<Placed>),
    Seek(Placed),
    Unassign(TopicPartition),
}

/// A partition and where to read it.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) place: TopicPartition,
    pub(super) generation: u64,
    pub(super) offset: i64,
}

#[derive(Debug)]
enum Event {
    Fetched {
        node: i32,
        asked: Vec<Asked>,
        result: Result<BTreeMap<TopicPartition, Told>>,
    },
    Refreshed {
        refused: BTreeMap<String, ErrorCode>,
    },
    Bounds {
        place: TopicPartition,
        generation: u64,
        result: Result<(i64, i64)>,
    },
}

#[derive(Debug)]
struct Partition {
    generation: u64,
    offset: i64,
    last_epoch: Option<i32>,
    in_flight: bool,
    /// Waits for a seek.
    stopped: bool,
    not_before: Instant,
    pause: Duration,
    /// Since when it could not be read.
    failing_since: Option<Instant>,
}

struct Fetcher {
    client: Client,
    config: ConsumerConfig,
    partitions: BTreeMap<TopicPartition, Partition>,
    busy: BTreeSet<i32>,
    buffer: Arc<Buffer>,
    outbox: mpsc::UnboundedSender<Handed>,
    events: mpsc::UnboundedSender<Event>,
    refreshing: bool,
    refresh_not_before: Instant,
    /// Counts requests: each begins with another partition, so that none is starved by those
    /// before it.
    turns: usize,
}

pub(super) async fn run(
    client: Client,
    config: ConsumerConfig,
    mut orders: mpsc::UnboundedReceiver<Command>,
    outbox: mpsc::UnboundedSender<Handed>,
    buffer: Arc<Buffer>,
) {
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut fetcher = Fetcher {
        client,
        config,
        partitions: BTreeMap::new(),
        busy: BTreeSet::new(),
        buffer: buffer.clone(),
        outbox,
        events,
        refreshing: false,
        refresh_not_before: Instant::now(),
        turns: 0,
    };
    loop {
        let next = fetcher.fetch_all();
        let at = next.unwrap_or_else(Instant::now);
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => fetcher.order(order),
                // The consumer is gone.
                None => return,
            },
            Some(event) = inbox.recv() => fetcher.take(event),
            () = buffer.freed.notified() => {}
            () = sleep_until(at), if next.is_some() => {}
        }
    }
}

impl Fetcher {
    fn order(&mut self, order: Command) {
        match order {
            Command::Assign(placed) => {
                self.partitions.clear();
                for placed in placed {
                    self.place(placed);
                }
            }
            Command::Seek(placed) => self.place(placed),
            Command::Unassign(place) => {
                self.partitions.remove(&place);
            }
        }
    }

    fn place(&mut self, placed: Placed) {
        let partition = Partition {
            generation: placed.generation,
            offset: placed.offset,
            last_epoch: None,
            in_flight: false,
            stopped: false,
            not_before: Instant::now(),
            pause: self.client.config().retry_backoff,
            failing_since: None,
        };
        self.partitions.insert(placed.place, partition);
    }

    /// Sends a fetch to every broker that is free and leads something to be read. Says when to look
    /// again if nothing happens.
    fn fetch_all(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.buffer.bytes.load(Ordering::Acquire) >= self.config.prefetch_bytes {
            return None;
        }
        let mut next: Option<Instant> = None;
        let mut leaderless = Vec::new();
        let mut by_node: BTreeMap<i32, Vec<Asked>> = BTreeMap::new();
        for (place, partition) in &self.partitions {
            if partition.stopped || partition.in_flight {
                continue;
            }
            if partition.not_before > now {
                next = next.into_iter().chain([partition.not_before]).min();
                continue;
            }
            let topic = self.client.known_topic(&place.topic);
            let known = topic.as_ref().and_then(|t| t.partition(place.partition));
            let (Some(topic), Some(known), Some(leader)) =
                (&topic, known, known.and_then(|p| p.leader))
            else {
                leaderless.push((place.clone(), partition.generation));
                continue;
            };
            if self.busy.contains(&leader) {
                continue;
            }
            by_node.entry(leader).or_default().push(Asked {
                place: place.clone(),
                topic: topic.name.clone(),
                topic_id: topic.id,
                generation: partition.generation,
                offset: partition.offset,
                leader_epoch: known.leader_epoch,
                last_epoch: partition.last_epoch,
            });
        }
        for (node, asked) in by_node {
            self.fetch(node, asked);
        }
        if !leaderless.is_empty() {
            let again = self.refresh(now);
            next = next.into_iter().chain([again]).min();
        }
        for (place, generation) in leaderless {
            let what = format!("{}/{}", place.topic, place.partition);
            let error = Error::refused(what, ErrorCode::LeaderNotAvailable, None);
            self.lasting(&place, generation, &error, now);
        }
        next
    }

    fn fetch(&mut self, node: i32, mut asked: Vec<Asked>) {
        self.turns = self.turns.wrapping_add(1);
        let first = self.turns % asked.len().max(1);
        asked.rotate_left(first);
        self.busy.insert(node);
        for a in &asked {
            if let Some(partition) = self.partitions.get_mut(&a.place) {
                partition.in_flight = true;
            }
        }
        let (client, config, events) = (
            self.client.clone(),
            self.config.clone(),
            self.events.clone(),
        );
        tokio::spawn(async move {
            let result = fetch(&client, node, &asked, &config).await;
            // The consumer may be gone.
            let _ = events.send(Event::Fetched {
                node,
                asked,
                result,
            });
        });
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Fetched {
                node,
                asked,
                result,
            } => {
                self.busy.remove(&node);
                match result {
                    Ok(mut told) => {
                        for a in asked {
                            let told = told.remove(&a.place);
                            self.told(&a, told);
                        }
                    }
                    Err(error) => {
                        for a in asked {
                            self.failed(&a, &error);
                        }
                    }
                }
            }
            Event::Refreshed { refused } => {
                self.refreshing = false;
                let gone = |code: &ErrorCode| *code == ErrorCode::UnknownTopicOrPartition;
                for topic in refused
                    .iter()
                    .filter(|(_, code)| gone(code))
                    .map(|(topic, _)| topic)
                {
                    self.gone(topic);
                }
            }
            Event::Bounds {
                place,
                generation,
                result,
            } => self.bounds(&place, generation, result),
        }
    }

    /// The partition that an answer is about, unless it was sought or unassigned meanwhile.
    fn current(&mut self, place: &TopicPartition, generation: u64) -> Option<&mut Partition> {
        self.partitions
            .get_mut(place)
            .filter(|p| p.generation == generation)
    }

    fn told(&mut self, asked: &Asked, told: Option<Told>) {
        let Some(told) = told else {
            let what = "its answer to Fetch leaves a partition out";
            return self.failed(
                asked,
                &Error::Protocol {
                    broker: "the leader".to_owned(),
                    what,
                },
            );
        };
        let backoff = self.client.config().retry_backoff;
        let Some(partition) = self.current(&asked.place, asked.generation) else {
            return;
        };
        partition.in_flight = false;
        let moved = told.decoded.next_offset > partition.offset;
        partition.offset = told.decoded.next_offset;
        partition.last_epoch = told.decoded.epoch.or(partition.last_epoch);
        if told.trouble.is_none() {
            partition.failing_since = None;
            partition.pause = backoff;
        }
        if moved {
            let fetched = Fetched {
                topic: asked.topic.clone(),
                partition: asked.place.partition,
                records: told.decoded.records,
                next_offset: told.decoded.next_offset,
                high_watermark: told.high_watermark,
            };
            self.hand(
                &asked.place,
                asked.generation,
                told.decoded.bytes,
                Ok(fetched),
            );
        }
        match told.trouble {
            None => {}
            Some(Trouble::Passing(error)) => self.failed(asked, &error),
            Some(Trouble::Lasting(error)) => self.stop(&asked.place, asked.generation, error),
            Some(Trouble::OutOfRange) => self.ask_bounds(&asked.place, asked.generation),
            Some(Trouble::Diverged(end)) => {
                let TopicPartition { topic, partition } = asked.place.clone();
                let error = Error::LogTruncated {
                    topic,
                    partition,
                    offset: asked.offset,
                    end,
                };
                self.stop(&asked.place, asked.generation, error);
            }
        }
    }

    /// Tries again after a pause, with newer metadata; says so when it has been failing for long.
    fn failed(&mut self, asked: &Asked, error: &Error) {
        let now = Instant::now();
        let max = self.client.config().retry_backoff_max;
        let Some(partition) = self.current(&asked.place, asked.generation) else {
            return;
        };
        partition.in_flight = false;
        partition.not_before = now + partition.pause;
        partition.pause = (partition.pause * 2).min(max);
        let TopicPartition { topic, partition } = &asked.place;
        tracing::debug!(%error, topic, partition, "fetch failed");
        self.lasting(&asked.place, asked.generation, error, now);
        self.refresh(now);
    }

    /// Says that a partition cannot be read, once it has been so for long; it is still tried.
    fn lasting(&mut self, place: &TopicPartition, generation: u64, error: &Error, now: Instant) {
        let patience = self.client.config().operation_timeout;
        let Some(partition) = self.current(place, generation) else {
            return;
        };
        let since = *partition.failing_since.get_or_insert(now);
        if now.duration_since(since) < patience {
            return;
        }
        partition.failing_since = Some(now);
        let error = Error::GaveUp {
            what: format!("{}/{} could not be read", place.topic, place.partition),
            after: patience,
            last: Some(Box::new(error.clone())),
        };
        self.hand(place, generation, 0, Err(error));
    }

    /// Hands an error over and reads the partition no further until it is sought.
    fn stop(&mut self, place: &TopicPartition, generation: u64, error: Error) {
        if let Some(partition) = self.current(place, generation) {
            partition.stopped = true;
            self.hand(place, generation, 0, Err(error));
        }
    }

    /// The topic was deleted, or so it seems; a broker that is only behind is given some time.
    fn gone(&mut self, topic: &str) {
        const GRACE: Duration = Duration::from_secs(5);
        let now = Instant::now();
        let mut gone = Vec::new();
        for (place, partition) in self
            .partitions
            .iter_mut()
            .filter(|(place, _)| place.topic == topic)
        {
            let since = *partition.failing_since.get_or_insert(now);
            if !partition.stopped && now.duration_since(since) >= GRACE {
                gone.push((place.clone(), partition.generation));
            }
        }
        for (place, generation) in gone {
            self.stop(
                &place,
                generation,
                Error::UnknownTopic {
                    topic: topic.to_owned(),
                },
            );
        }
    }

    /// Finds out which offsets are there, after one that is not.
    fn ask_bounds(&mut self, place: &TopicPartition, generation: u64) {
        if let Some(partition) = self.current(place, generation) {
            // Nothing is fetched before the answer.
            partition.in_flight = true;
        }
        let (client, events, place) = (self.client.clone(), self.events.clone(), place.clone());
        tokio::spawn(async move {
            let result = bounds(&client, &place).await;
            let _ = events.send(Event::Bounds {
                place,
                generation,
                result,
            });
        });
    }

    fn bounds(&mut self, place: &TopicPartition, generation: u64, result: Result<(i64, i64)>) {
        let out_of_range = self.config.out_of_range;
        let Some(partition) = self.current(place, generation) else {
            return;
        };
        partition.in_flight = false;
        let (start, end) = match result {
            Ok(bounds) => bounds,
            Err(error) => return self.stop(place, generation, error),
        };
        let offset = partition.offset;
        if (start..=end).contains(&offset) {
            // It has come to be there meanwhile: a leader that was behind has caught up.
            partition.not_before = Instant::now() + partition.pause;
            return;
        }
        partition.last_epoch = None;
        match out_of_range {
            OutOfRange::Start => partition.offset = start,
            OutOfRange::End => partition.offset = end,
            OutOfRange::Fail => {
                let TopicPartition { topic, partition } = place.clone();
                self.stop(
                    place,
                    generation,
                    Error::OffsetOutOfRange {
                        topic,
                        partition,
                        offset,
                        start,
                        end,
                    },
                );
            }
        }
    }

    fn hand(&self, place: &TopicPartition, generation: u64, bytes: usize, result: Result<Fetched>) {
        self.buffer.bytes.fetch_add(bytes, Ordering::AcqRel);
        // The consumer may be gone.
        let _ = self.outbox.send(Handed {
            place: place.clone(),
            generation,
            bytes,
            result,
        });
    }

    /// Asks for newer metadata, but not in a tight loop. Says when to look again.
    fn refresh(&mut self, now: Instant) -> Instant {
        let backoff = self.client.config().retry_backoff;
        if self.refreshing {
            return now + backoff;
        }
        if now < self.refresh_not_before {
            return self.refresh_not_before;
        }
        self.refreshing = true;
        self.refresh_not_before = now + backoff;
        let topics: BTreeSet<String> = self.partitions.keys().map(|p| p.topic.clone()).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        let (client, events) = (self.client.clone(), self.events.clone());
        tokio::spawn(async move {
            let refused = client
                .refresh(&topics, false, None)
                .await
                .unwrap_or_else(|error| {
                    tracing::debug!(%error, "metadata could not be refreshed");
                    BTreeMap::new()
                });
            let _ = events.send(Event::Refreshed { refused });
        });
        now + backoff
    }
}

/// The first offset that is there and the next to come.
async fn bounds(client: &Client, place: &TopicPartition) -> Result<(i64, i64)> {
    let mut bounds = [0, 0];
    for (bound, spec) in bounds.iter_mut().zip([OffsetSpec::Start, OffsetSpec::End]) {
        let listed = client.list_offsets(&[(place.clone(), spec)]).await?;
        *bound = listed.get(place).and_then(|l| l.offset).unwrap_or(0);
    }
    let [start, end] = bounds;
    Ok((start, end))
}
