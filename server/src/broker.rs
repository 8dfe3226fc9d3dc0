//! The broker: everything that a running node consists of, put together, started and stopped.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use riverrun_replication::node::NodeSettings;
use riverrun_replication::runtime::Runtime;
use riverrun_replication::{GroupConfig, PartitionHandle, Published, Role};
use riverrun_wire::ErrorCode;
use rustc_hash::FxHashSet;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::catalog::{Catalog, ChangeError};
use crate::config::Config;
use crate::error::{self, StartError};
use crate::hooks::Hooks;
use crate::internal::Internal;
use crate::net::burst;
use crate::net::connection::{Connection, Connections};
use crate::net::listener;
use crate::net::memory::Budget;
use crate::partition::Partition;
use crate::topics::{Topic, TopicPartition, Topics};
use crate::{founding, reconcile};

/// One tick of every group (the election timeout of data groups is ten of them and more).
const TICK: Duration = Duration::from_millis(50);
/// Producer ids taken from the controller at once.
const PRODUCER_ID_BLOCK: u32 = 1000;
/// The shortest wait for a new leader or a confirmation, whatever a request says.
const LEAST_WAIT: Duration = Duration::from_millis(500);

/// A node.
#[derive(Debug)]
pub(crate) struct Broker {
    config: Config,
    budget: Budget,
    connections: Connections,
    topics: Topics,
    catalog: Catalog,
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
    fn new(config: Config) -> Self {
        let budget = Budget::new(config.request_memory_bytes, config.max_request_bytes);
        let (seed, _) = Uuid::new_v4().as_u64_pair();
        Self {
            config,
            budget,
            connections: Connections::default(),
            topics: Topics::default(),
            catalog: Catalog::new(),
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

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
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
    pub(crate) async fn until_led(&self, topic: &Topic) {
        for partition in topic.partitions.iter().filter_map(|p| p.local.as_ref()) {
            self.until(|| {
                let published = partition.handle().published();
                let settled = match published.role {
                    Role::Leader => published.ready,
                    Role::Follower => published.leader_replica != 0,
                    Role::Fenced => true,
                };
                (settled || partition.is_closed()).then_some(())
            })
            .await;
        }
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
            None if partition.refused => (-1, -1, vec![own]),
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

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    broker: Arc<Broker>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// Starts a broker: returns when it accepts connections and can answer them.
///
/// # Errors
/// See [`StartError`].
pub async fn start(mut config: Config) -> Result<Running, StartError> {
    let listener = listener::bind(config.listen, config.insecure)?;
    let address = listener.local_addr().map_err(|source| StartError::Bind {
        address: config.listen,
        source,
    })?;
    config.listen = address;
    let broker = Arc::new(Broker::new(config));
    open(&broker).await?;
    let threads = start_threads(&broker)?;
    let (stop, stopped) = watch::channel(false);
    let boot = async {
        founding::found_or_join(&broker).await?;
        reconcile::once(&broker).await;
        tokio::spawn(reconcile::follow(Arc::clone(&broker), stopped.clone()));
        for topic in broker.topics.all() {
            broker.until_led(&topic).await;
        }
        Ok(())
    };
    let mut fatal = broker.fatal.subscribe();
    let booted = tokio::select! {
        booted = boot => booted,
        why = until_fatal(&mut fatal) => Err(StartError::Fatal(why)),
    };
    let accepting = tokio::spawn(listener::accept(Arc::clone(&broker), listener, stopped));
    let running = Running {
        broker,
        address,
        stop,
        accepting,
        threads,
    };
    match booted {
        Ok(()) => Ok(running),
        Err(error) => {
            let _ = running.stop().await;
            Err(error)
        }
    }
}

async fn until_fatal(fatal: &mut watch::Receiver<Option<String>>) -> String {
    match fatal.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => std::future::pending().await,
    }
}

/// Starts a broker, says where it listens, and serves until `shutdown`.
///
/// # Errors
/// See [`StartError`].
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let running = start(config).await?;
    ready(running.address());
    let mut fatal = running.broker.fatal.subscribe();
    tokio::select! {
        () = shutdown => running.stop().await,
        why = until_fatal(&mut fatal) => {
            let _ = running.stop().await;
            Err(StartError::Fatal(why))
        }
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the flusher was woken, for tests of what a produce costs.
    #[must_use]
    pub fn flusher_wakes(&self) -> u64 {
        self.broker.runtime().flusher_wakes()
    }

    /// Stops: answers what has been asked, then makes everything durable and closes the data
    /// directory cleanly.
    ///
    /// # Errors
    /// Where the disk refuses, or had failed before.
    pub async fn stop(self) -> Result<(), StartError> {
        let Self {
            broker,
            stop,
            mut accepting,
            threads,
            ..
        } = self;
        let _ = stop.send(true);
        if tokio::time::timeout(broker.config.drain, &mut accepting)
            .await
            .is_err()
        {
            warn!("connections were cut off: they did not drain in time");
            broker.connections.hang_up_all();
            if tokio::time::timeout(Duration::from_secs(1), &mut accepting)
                .await
                .is_err()
            {
                accepting.abort();
            }
        }
        broker.stopping.store(true, Ordering::SeqCst);
        broker.wake_flusher();
        let failed = broker.fatal.borrow().clone();
        let closed = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
            match failed {
                Some(why) => Err(StartError::Fatal(why)),
                None => broker
                    .runtime()
                    .close()
                    .map_err(|e| StartError::Fatal(e.to_string())),
            }
        });
        closed
            .await
            .unwrap_or_else(|e| Err(StartError::Fatal(e.to_string())))
    }
}

fn data_error(path: &Path, what: impl ToString) -> StartError {
    StartError::Data {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

/// Opens the data directory; commands that group 0 committed before are applied on the way.
async fn open(broker: &Arc<Broker>) -> Result<(), StartError> {
    let hooks = Arc::new(Hooks::new(Arc::downgrade(broker)));
    let broker = Arc::clone(broker);
    let opening = tokio::task::spawn_blocking(move || {
        let data = broker.config.data_dir.clone();
        prepare(&data)?;
        let shards = match broker.config.shards {
            0 => thread::available_parallelism().map_or(1, usize::from),
            shards => shards,
        };
        let settings = NodeSettings {
            node_id: broker.config.node_id,
            kernel_boot_id: kernel_boot_id(),
            new_directory_id: Uuid::new_v4(),
            store: broker.config.store.clone(),
            group: GroupConfig {
                seed: broker.seed(),
                ..GroupConfig::default()
            },
            shards,
        };
        let defaults = broker.config.topic.group_settings();
        let disk = riverrun_storage::StdDisk::shared();
        let (runtime, report) = Runtime::open(disk, &data, settings, |_| defaults.clone(), hooks)
            .map_err(|e| data_error(&data, e))?;
        for refused in &report.refused {
            broker.refuse(refused.identity.group);
        }
        if report.unclean_power_loss {
            warn!("the machine stopped hard since the last start");
        }
        if let Some(id) = report.cluster_id {
            broker.set_cluster_id(id);
        }
        broker
            .runtime
            .set(runtime)
            .map_err(|_| data_error(&data, "it was opened twice"))
    });
    opening
        .await
        .unwrap_or_else(|e| Err(StartError::Fatal(e.to_string())))
}

/// Creates the directory for its owner alone. A link in its place is refused: it may point anywhere.
fn prepare(data: &Path) -> Result<(), StartError> {
    match std::fs::symlink_metadata(data) {
        Ok(found) if found.is_symlink() => Err(data_error(
            data,
            "it is a symbolic link; give the directory itself",
        )),
        Ok(found) if !found.is_dir() => Err(data_error(data, "it is not a directory")),
        Ok(_) => Ok(()),
        Err(_) => {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(data).map_err(|e| data_error(data, e))
        }
    }
}

/// What the kernel calls this boot: another one means that page caches were lost.
fn kernel_boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    // Without it every start counts as after a power cut, which is the safe side.
    read.map_or_else(|_| Uuid::new_v4().to_string(), |id| id.trim().to_owned())
}

fn start_threads(broker: &Arc<Broker>) -> Result<Vec<thread::JoinHandle<()>>, StartError> {
    let spawn = |name: &str, body: fn(Weak<Broker>)| {
        let broker = Arc::downgrade(broker);
        let thread = thread::Builder::new().name(name.to_owned());
        thread
            .spawn(move || body(broker))
            .map_err(StartError::Thread)
    };
    let flusher = spawn("flusher", flush)?;
    let _ = broker.flusher.set(flusher.thread().clone());
    flusher.thread().unpark();
    let ticker = spawn("ticker", tick)?;
    Ok(vec![flusher, ticker])
}

/// The flusher: a round starts when the last one ends and takes all that has come meanwhile.
fn flush(broker: Weak<Broker>) {
    while let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) {
        match burst::run(&broker, || broker.runtime().flush_once()) {
            Ok(true) => {}
            Ok(false) => {
                drop(broker);
                thread::park();
            }
            Err(error) => {
                broker.fail(&format!("the node's write-ahead log failed: {error}"));
                return;
            }
        }
    }
}

fn tick(broker: Weak<Broker>) {
    while let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) {
        burst::run(&broker, || broker.runtime().tick());
        drop(broker);
        thread::sleep(TICK);
    }
}

/// Says what was started, in a few lines.
pub(crate) fn announce(broker: &Broker, founded: bool) {
    let config = &broker.config;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %config.data_dir.display(),
        cluster = broker.cluster_id(),
        node = config.node_id,
        founded,
        "serving"
    );
}
