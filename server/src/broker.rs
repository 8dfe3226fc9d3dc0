//! The broker: everything that a running node consists of, and what handlers ask of it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use riverrun_replication::runtime::Runtime;
use riverrun_replication::{PartitionHandle, Published, Role};
use riverrun_wire::ErrorCode;
use rustc_hash::FxHashSet;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tracing::error;
use uuid::Uuid;

use crate::catalog::{Catalog, ChangeError};
use crate::checkpointer::Checkpointer;
use crate::config::Config;
use crate::error;
use crate::founding;
use crate::hooks::Hooks;
use crate::internal::Internal;
use crate::kafka::refused::RefusedLog;
use crate::net::burst;
use crate::net::connection::{Connection, Connections};
use crate::net::memory::Budget;
use crate::partition::Partition;
use crate::topics::{TopicPartition, Topics};

/// Producer ids taken from the controller at once.
const PRODUCER_ID_BLOCK: u32 = 1000;
/// Reads from the disk at one time. Enough to keep a disk busy; more would only take threads from
/// others, and each holds a buffer.
const DISK_READS: usize = 16;
/// The shortest wait for a new leader or a confirmation, whatever a request says.
const LEAST_WAIT: Duration = Duration::from_millis(500);

/// A node.
#[derive(Debug)]
pub(crate) struct Broker {
    config: Config,
    budget: Budget,
    disk_reads: Arc<Semaphore>,
    connections: Connections,
    refused_log: RefusedLog,
    topics: Topics,
    catalog: Catalog,
    checkpointer: Checkpointer,
    internal: Internal,
    runtime: OnceLock<Runtime<Hooks>>,
    cluster_id: OnceLock<(Uuid, String)>,
    producer_ids: tokio::sync::Mutex<std::ops::Range<i64>>,
    seed: AtomicU64,
    /// Partitions whose files recovery refused; they are never created anew (R3).
    refused: Mutex<FxHashSet<u64>>,
    /// Notified when any partition's role or watermark changes, while anybody waits for that.
    led: Notify,
    led_waiters: AtomicUsize,
    flusher: OnceLock<thread::Thread>,
    stopping: AtomicBool,
    fatal: watch::Sender<Option<String>>,
    tokio: Handle,
}

/// What Metadata shows of a partition.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) error: ErrorCode,
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) in_sync: Vec<i32>,
    pub(crate) offline: Vec<i32>,
}

/// A node of the cluster and where a client finds it.
#[derive(Debug)]
pub(crate) struct NodeView {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
}

impl Broker {
    pub(crate) fn new(config: Config) -> Self {
        let budget = Budget::new(config.request_memory_bytes, config.max_request_bytes);
        let (seed, _) = Uuid::new_v4().as_u64_pair();
        let catalog = Catalog::new(config.controller_checkpoint_bytes);
        Self {
            config,
            budget,
            disk_reads: Arc::new(Semaphore::new(DISK_READS)),
            connections: Connections::default(),
            refused_log: RefusedLog::default(),
            topics: Topics::default(),
            catalog,
            checkpointer: Checkpointer::default(),
            internal: Internal::default(),
            runtime: OnceLock::new(),
            cluster_id: OnceLock::new(),
            producer_ids: tokio::sync::Mutex::new(0..0),
            seed: AtomicU64::new(seed),
            refused: Mutex::default(),
            led: Notify::new(),
            led_waiters: AtomicUsize::new(0),
            flusher: OnceLock::new(),
            stopping: AtomicBool::new(false),
            fatal: watch::Sender::new(None),
            tokio: Handle::current(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The turns of reads from the disk.
    pub(crate) fn disk_reads(&self) -> &Arc<Semaphore> {
        &self.disk_reads
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Where a request that is refused for what is in it leaves its line.
    pub(crate) fn refused_log(&self) -> &RefusedLog {
        &self.refused_log
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn checkpointer(&self) -> &Checkpointer {
        &self.checkpointer
    }

    pub(crate) fn internal(&self) -> &Internal {
        &self.internal
    }

    pub(crate) fn tokio(&self) -> &Handle {
        &self.tokio
    }

    /// The groups of this node.
    ///
    /// # Panics
    /// Before the data directory has been opened; nothing that could ask is running then.
    #[expect(clippy::expect_used, reason = "see Panics")]
    pub(crate) fn runtime(&self) -> &Runtime<Hooks> {
        self.runtime.get().expect("the data directory is open")
    }

    /// Whether the data directory has been opened.
    pub(crate) fn is_open(&self) -> bool {
        self.runtime.get().is_some()
    }

    /// The wall clock: the edge where time comes in.
    #[expect(clippy::disallowed_methods, reason = "the edge")]
    pub(crate) fn now_ms(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// A number that differs from call to call, for placements.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn cluster_id(&self) -> String {
        self.cluster_id
            .get()
            .map(|(_, text)| text.clone())
            .unwrap_or_default()
    }

    pub(crate) fn cluster_uuid(&self) -> Uuid {
        self.cluster_id.get().map(|(id, _)| *id).unwrap_or_default()
    }

    pub(crate) fn set_cluster_id(&self, id: Uuid) {
        let _ = self.cluster_id.set((id, founding::cluster_id_text(&id)));
    }

    pub(crate) fn is_refused(&self, group: u64) -> bool {
        self.refused.lock().contains(&group)
    }

    pub(crate) fn refuse(&self, group: u64) {
        self.refused.lock().insert(group);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Lets the threads end.
    pub(crate) fn end_threads(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_flusher();
    }

    /// To be told of what ends the process's service.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Takes the opened data directory; false where there is one already.
    pub(crate) fn set_runtime(&self, runtime: Runtime<Hooks>) -> bool {
        self.runtime.set(runtime).is_ok()
    }

    /// Whom to wake when there is something to flush.
    pub(crate) fn set_flusher(&self, flusher: thread::Thread) {
        let _ = self.flusher.set(flusher);
    }

    /// Ends the process's service: nothing may be acknowledged any more.
    pub(crate) fn fail(&self, why: &str) {
        error!(why, "the broker stops");
        self.fatal.send_replace(Some(why.to_owned()));
    }

    /// Does the posted work of a shard; only inside a burst.
    pub(crate) fn run_shard(&self, shard: usize) {
        self.runtime().run(shard);
    }

    /// Does the posted work of a shard and writes what it answers.
    pub(crate) fn step_shard(&self, shard: usize) {
        burst::run(self, || self.run_shard(shard));
    }

    pub(crate) fn wake_flusher(&self) {
        if let Some(flusher) = self.flusher.get() {
            flusher.unpark();
        }
    }

    pub(crate) fn look_at_waiters(&self, partition: &Arc<Partition>) {
        for fetch in partition.waiters().all() {
            fetch.look(self);
        }
    }

    /// A partition's role or watermark changed.
    pub(crate) fn advanced(&self, handle: &PartitionHandle) {
        if let Some(partition) = self.topics.of_group(handle.group()) {
            burst::advanced(self, &partition);
        }
        if self.led_waiters.load(Ordering::SeqCst) > 0 {
            self.led.notify_waiters();
        }
    }

    /// Waits until a look at the partitions is satisfied.
    async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        self.led_waiters.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(&self.led_waiters);
        loop {
            // Registered before the look, so that a change between look and wait is seen.
            let mut changed = std::pin::pin!(self.led.notified());
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until every partition of a topic that this node has is led, here or elsewhere.
    pub(crate) async fn until_led(&self, id: &Uuid) {
        let settled = |at: &TopicPartition| match &at.local {
            None => !at.missing,
            Some(local) => {
                let published = local.handle().published();
                match published.role {
                    Role::Leader => published.ready,
                    Role::Follower => published.leader_replica != 0,
                    Role::Fenced => true,
                }
            }
        };
        self.until(|| match self.topics.with_id(id) {
            Some(topic) => topic.partitions.iter().all(settled).then_some(()),
            // It has been deleted meanwhile.
            None => Some(()),
        })
        .await;
    }

    /// Waits until a group of this node leads and can answer.
    pub(crate) async fn until_ready(&self, handle: &PartitionHandle) -> Published {
        self.until(|| Some(handle.published()).filter(|published| published.ready))
            .await
    }

    /// What a leader may answer about offsets: not before it has applied an entry of its own term
    /// (L4), and where `majority` is asked for, not before a majority has said that it leads still
    /// (L5).
    pub(crate) async fn leading(
        &self,
        at: &Arc<Partition>,
        epoch: i32,
        wait: Duration,
        majority: bool,
    ) -> Result<Published, ErrorCode> {
        let until = deadline(wait.max(LEAST_WAIT));
        let ready = self.until(|| match at.leading(epoch) {
            Ok(published) if published.ready => Some(Ok(published)),
            Ok(_) => None,
            Err(not_leading) => Some(Err(error::of_not_leading(not_leading))),
        });
        let published = timeout_at(until, ready)
            .await
            .map_err(|_| ErrorCode::OffsetNotAvailable)??;
        if !majority {
            return Ok(published);
        }
        let (ticket, answer) = self.internal.expect_confirm();
        self.runtime().confirm(at.handle(), ticket);
        self.step_shard(at.handle().shard());
        match timeout_at(until, answer).await {
            Ok(Ok(Ok(published))) => Ok(published),
            Ok(Ok(Err(error))) => Err(error::of_produce(error)),
            Ok(Err(_)) | Err(_) => Err(ErrorCode::OffsetNotAvailable),
        }
    }

    /// An id for an idempotent producer.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, ChangeError> {
        use riverrun_replication::controller::Outcome;
        let mut block = self.producer_ids.lock().await;
        if block.is_empty() {
            let outcome = self
                .catalog
                .change_one(self, |controller| {
                    controller.plan_producer_ids(PRODUCER_ID_BLOCK)
                })
                .await?;
            let Outcome::ProducerIds { first, count } = outcome else {
                return Err(ChangeError::Stopping);
            };
            *block = first..first.saturating_add(i64::from(count));
        }
        block.next().ok_or(ChangeError::Stopping)
    }

    /// The node that leads a partition, as far as this one knows, and its epoch; -1 for nobody.
    pub(crate) fn leader_of(&self, at: &Arc<Partition>) -> (i32, i32) {
        let handle = at.handle();
        let topic = self.topics.with_id(&handle.topic_id());
        let partition = topic
            .as_ref()
            .and_then(|topic| topic.partition(handle.partition()));
        match partition {
            Some(partition) => {
                let state = self.state_of(partition);
                (state.leader, state.leader_epoch)
            }
            None => (-1, -1),
        }
    }

    pub(crate) fn state_of(&self, partition: &TopicPartition) -> PartitionState {
        let replicas: Vec<i32> = partition
            .replicas
            .iter()
            .map(|replica| replica.node)
            .collect();
        let published = partition
            .local
            .as_ref()
            .map(|local| local.handle().published());
        let own = self.config.node_id;
        let (leader, leader_epoch, offline) = match published {
            Some(published) => match published.role {
                Role::Leader => (own, published.leader_epoch(), Vec::new()),
                Role::Follower => {
                    let leads = |r: &&riverrun_replication::controller::ReplicaImage| {
                        r.replica == published.leader_replica
                    };
                    let leader = partition.replicas.iter().find(leads).map_or(-1, |r| r.node);
                    (leader, published.leader_epoch(), Vec::new())
                }
                Role::Fenced => (-1, published.leader_epoch(), vec![own]),
            },
            None if partition.refused || partition.missing => (-1, -1, vec![own]),
            None => (-1, -1, Vec::new()),
        };
        let in_sync = replicas
            .iter()
            .copied()
            .filter(|node| !offline.contains(node))
            .collect();
        let error = if leader < 0 {
            ErrorCode::LeaderNotAvailable
        } else {
            ErrorCode::None
        };
        PartitionState {
            error,
            leader,
            leader_epoch,
            replicas,
            in_sync,
            offline,
        }
    }

    /// The nodes that clients can go to, as this one is to be told of them.
    pub(crate) fn nodes(&self, connection: &Connection) -> Vec<NodeView> {
        self.catalog.read(|image| {
            image
                .brokers
                .values()
                .filter(|broker| !broker.fenced)
                .map(|broker| {
                    let (host, port) = if broker.node == self.config.node_id {
                        self.own_endpoint(connection)
                    } else {
                        (broker.host.clone(), broker.port)
                    };
                    let rack = Some(broker.rack.clone()).filter(|rack| !rack.is_empty());
                    NodeView {
                        id: broker.node,
                        host,
                        port,
                        rack,
                    }
                })
                .collect()
        })
    }

    /// Where a client finds a node.
    pub(crate) fn endpoint(&self, node: i32, connection: &Connection) -> Option<(String, u16)> {
        if node == self.config.node_id {
            return Some(self.own_endpoint(connection));
        }
        self.catalog.read(|image| {
            image
                .brokers
                .get(&node)
                .map(|broker| (broker.host.clone(), broker.port))
        })
    }

    /// Without an advertised address: the one that the client reached us by.
    fn own_endpoint(&self, connection: &Connection) -> (String, u16) {
        self.config.advertised.clone().unwrap_or_else(|| {
            let local = connection.local();
            (local.ip().to_string(), local.port())
        })
    }

    /// The node that answers requests to change topics.
    pub(crate) fn controller_node(&self) -> i32 {
        self.config.node_id
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait
}
