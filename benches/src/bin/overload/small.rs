//! Somebody beside the load who wants little: one record ten times a second, written and read.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use riverrun_record::{BatchBuilder, Compression};
use riverrun_wire::Records;
use riverrun_wire::api::fetch::{FetchPartition, FetchTopic};
use riverrun_wire::api::produce::{PartitionProduceData, TopicProduceData};
use riverrun_wire::api::{FetchRequest, ProduceRequest};

use crate::broker::{self, Connection};

const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const NOT_LEADER: i16 = 6;
const BACKOFF: Duration = Duration::from_millis(20);
const EVERY: Duration = Duration::from_millis(100);
const TOPIC: &str = "small";
/// As quick as before: by its median, of so many answers.
const ANSWERS: usize = 5;

/// How long each answer took.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    fn at(&self, permille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * permille / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |permille| self.at(permille).as_secs_f64() * 1e3;
        let (count, half, most) = (self.0.len(), ms(500), ms(1000));
        write!(
            f,
            "{count} times, median {half:.1} ms, p99 {:.1}, most {most:.1}",
            ms(990)
        )
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// How often it was told that another node leads.
    moves: AtomicU64,
    times: Mutex<Times>,
}

/// See the module.
pub(crate) struct Small {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

impl Small {
    pub(crate) fn start(brokers: &[String]) -> Result<Self> {
        let mut connection = to_leader(brokers)?;
        let brokers = brokers.to_vec();
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !own.stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                while !write_and_read(&mut connection)? {
                    own.moves.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(BACKOFF);
                    connection = to_leader(&brokers)?;
                }
                let took = begun.elapsed();
                if let Ok(mut times) = own.times.lock() {
                    times.0.push(took);
                }
                thread::sleep(EVERY.saturating_sub(took));
            }
            Ok(())
        });
        Ok(Self { shared, thread })
    }

    /// What it saw since this was asked last.
    pub(crate) fn times(&self) -> Times {
        let times = self.shared.times.lock();
        times.map_or_else(
            |_| Times::default(),
            |mut times| std::mem::take(&mut *times),
        )
    }

    /// How often it was told that another node leads.
    pub(crate) fn moves(&self) -> u64 {
        self.shared.moves.load(Ordering::Relaxed)
    }

    /// How long it takes until it is served as before: its median within twice that of then, or within
    /// a millisecond of it, which is what a disk varies by.
    pub(crate) fn until_as_quick_as(&self, before: &Times, limit: Duration) -> Result<Duration> {
        let enough = (before.at(500) * 2).max(before.at(500) + Duration::from_millis(1));
        let begun = Instant::now();
        self.times();
        let mut seen = Times::default();
        while begun.elapsed() < limit {
            thread::sleep(EVERY / 2);
            seen.0.extend(self.times().0);
            let last = seen.0.len().saturating_sub(ANSWERS);
            let last = Times(seen.0.split_off(last));
            if last.0.len() == ANSWERS && last.at(500) <= enough {
                return Ok(begun.elapsed());
            }
            seen = last;
        }
        bail!("the small client is slower than before for {limit:?}: {seen}, and {before} then")
    }

    /// Ends it. An error is that of a request of its own that failed.
    pub(crate) fn stop(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(done) => done.context("the small client"),
            Err(_) => bail!("the small client panicked"),
        }
    }
}

fn to_leader(brokers: &[String]) -> Result<Connection> {
    let leaders = broker::leaders(brokers, TOPIC)?;
    Connection::open(leaders.first().context("a leader")?)
}

/// False where this node does not lead.
fn write_and_read(connection: &mut Connection) -> Result<bool> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(1_700_000_000_000, None, Some(&[b's'; 100]), &[])?;
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: TOPIC.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(Records::from(builder.build()?)),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let response = connection.call(&request, PRODUCE)?;
    let topic = response.responses.first().context("a topic")?;
    let written = topic.partition_responses.first().context("a partition")?;
    if written.error_code == NOT_LEADER {
        return Ok(false);
    }
    ensure!(
        written.error_code == 0,
        "a produce got error {}",
        written.error_code
    );
    let request = FetchRequest {
        max_wait_ms: 10_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: TOPIC.to_owned(),
            partitions: vec![FetchPartition {
                partition: 0,
                fetch_offset: written.base_offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let response = connection.call(&request, FETCH)?;
    let topic = response.responses.into_iter().next().context("a topic")?;
    let read = topic.partitions.into_iter().next().context("a partition")?;
    if read.error_code == NOT_LEADER {
        return Ok(false);
    }
    ensure!(
        read.error_code == 0,
        "a fetch got error {}",
        read.error_code
    );
    let bytes = read.records.map_or(0, |records| records.into_bytes().len());
    ensure!(bytes > 0, "what was acknowledged is not there");
    Ok(true)
}
