//! The broker: everything that a running node consists of, and what handlers ask of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use riverrun_replication::founding::{Founding, Known};
use riverrun_replication::leaders::{by_own_replica, newest};
use riverrun_replication::node::CONTROLLER_GROUP;
use riverrun_replication::runtime::Runtime;
use riverrun_replication::{PartitionHandle, ProduceError, Published, Role};
use riverrun_wire::ErrorCode;
use rustc_hash::FxHashSet;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::catalog::{Catalog, ChangeError};
use crate::checkpointer::Checkpointer;
use crate::cluster::cut_off::CutOff;
use crate::cluster::duties::Duties;
use crate::cluster::founding;
use crate::cluster::host::NodeHost;
use crate::cluster::leaders::Leaders;
use crate::cluster::replacement::Replacement;
use crate::cluster::routes::Routes;
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::error;
use crate::hooks::Hooks;
use crate::internal::Internal;
use crate::kafka::fetch::COLD_UNITS;
use crate::kafka::refused::RefusedLog;
use crate::net::burst;
use crate::net::connection::{Connection, Connections};
use crate::net::memory::Budget;
use crate::partition::Partition;
use crate::peers::{Address, Peers};
use crate::topics::{TopicPartition, Topics};
use crate::watched::{Kind, Watch};

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
    budget: Arc<Budget>,
    disk_reads: Arc<Semaphore>,
    cold_bytes: Arc<Semaphore>,
    connections: Connections,
    descriptors: Descriptors,
    refused_log: RefusedLog,
    topics: Topics,
    catalog: Catalog,
    checkpointer: Checkpointer,
    internal: Internal,
    runtime: OnceLock<Runtime<Hooks>>,
    peers: OnceLock<Arc<Peers<NodeHost>>>,
    /// Where other nodes find this one, if they can.
    peer_address: OnceLock<Address>,
    /// How this node came to its cluster.
    known: RwLock<Arc<Known>>,
    /// While it comes to it together with others.
    founding: Mutex<Option<Founding>>,
    leaders: Leaders,
    routes: Routes,
    duties: Duties,
    cut_off: CutOff,
    /// Drawn for this start, so that two copies of one disk are told apart (R3).
    start_token: u64,
    cluster_id: OnceLock<(Uuid, String)>,
    producer_ids: tokio::sync::Mutex<std::ops::Range<i64>>,
    seed: AtomicU64,
    /// Groups of which this node's replica has to be replaced: its leader's log contradicts it (R2b).
    contradicted: Mutex<FxHashSet<u64>>,
    replacement: Replacement,
    /// Notified when any partition's role or watermark changes, while anybody waits for that.
    led: Notify,
    led_waiters: AtomicUsize,
    flusher: OnceLock<thread::Thread>,
    watch: Watch,
    /// Held by whoever creates, opens, closes or sets aside replicas.
    files: Mutex<()>,
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
        let (seed, start_token) = Uuid::new_v4().as_u64_pair();
        let catalog = Catalog::new(config.controller_checkpoint_bytes, start_token);
        Self {
            config,
            budget: Arc::new(budget),
            disk_reads: Arc::new(Semaphore::new(DISK_READS)),
            cold_bytes: Arc::new(Semaphore::new(COLD_UNITS)),
            connections: Connections::default(),
            descriptors: Descriptors::default(),
            refused_log: RefusedLog::default(),
            topics: Topics::default(),
            catalog,
            checkpointer: Checkpointer::default(),
            internal: Internal::default(),
            runtime: OnceLock::new(),
            peers: OnceLock::new(),
            peer_address: OnceLock::new(),
            known: RwLock::default(),
            founding: Mutex::default(),
            leaders: Leaders::default(),
            routes: Routes::default(),
            duties: Duties::default(),
            cut_off: CutOff::default(),
            start_token,
            cluster_id: OnceLock::new(),
            producer_ids: tokio::sync::Mutex::new(0..0),
            seed: AtomicU64::new(seed),
            contradicted: Mutex::default(),
            replacement: Replacement::default(),
            led: Notify::new(),
            led_waiters: AtomicUsize::new(0),
            flusher: OnceLock::new(),
            watch: Watch::default(),
            files: Mutex::new(()),
            tokio: Handle::current(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The turns of reads from the disk.
    pub(crate) fn disk_reads(&self) -> &Arc<Semaphore> {
        &self.disk_reads
    }

    /// The budget of verified bytes that answers hold.
    pub(crate) fn cold_bytes(&self) -> &Arc<Semaphore> {
        &self.cold_bytes
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// What the process may have open.
    pub(crate) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
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

    /// The links to other nodes.
    ///
    /// # Panics
    /// Before they were begun; nothing that could ask is running then.
    #[expect(clippy::expect_used, reason = "see Panics")]
    pub(crate) fn peers(&self) -> &Peers<NodeHost> {
        self.peers.get().expect("the links have been begun")
    }

    /// Takes the links; false where there are some already.
    pub(crate) fn set_peers(&self, peers: Arc<Peers<NodeHost>>) -> bool {
        self.peers.set(peers).is_ok()
    }

    pub(crate) fn leaders(&self) -> &Leaders {
        &self.leaders
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn duties(&self) -> &Duties {
        &self.duties
    }

    pub(crate) fn cut_off(&self) -> &CutOff {
        &self.cut_off
    }

    pub(crate) fn start_token(&self) -> u64 {
        self.start_token
    }

    /// Where other nodes find this one, if they can.
    pub(crate) fn peer_address(&self) -> Option<Address> {
        self.peer_address.get().cloned()
    }

    pub(crate) fn set_peer_address(&self, address: Address) {
        let _ = self.peer_address.set(address);
    }

    /// How this node came to its cluster; empty where an older version brought it there.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read())
    }

    pub(crate) fn set_known(&self, known: Known) {
        *self.known.write() = Arc::new(known);
        self.follow_nodes();
    }

    /// What it knows of the other voters while it comes to a cluster together with them.
    pub(crate) fn founding(&self) -> &Mutex<Option<Founding>> {
        &self.founding
    }

    /// Makes links and routes what the image says, or what was known when the node came to its cluster.
    pub(crate) fn follow_nodes(&self) {
        let known = self.known();
        let members = known.members.iter();
        let first = members.clone().map(|member| (member.replica, member.node));
        self.routes.add(CONTROLLER_GROUP, first);
        let mut nodes: BTreeMap<i32, Address> = members
            .filter_map(|m| Some((m.node, (m.host.clone(), u16::try_from(m.port).ok()?))))
            .collect();
        self.catalog.read(|image| {
            let controllers = image.quorum.replicas.iter();
            let controllers = controllers.map(|known| (known.at.replica, known.at.node));
            self.routes.add(CONTROLLER_GROUP, controllers);
            for broker in image.brokers.values() {
                nodes.insert(broker.node, (broker.peer_host.clone(), broker.peer_port));
            }
        });
        nodes.retain(|_, (host, port)| !host.is_empty() && *port != 0);
        self.peers().set_nodes(nodes);
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

    /// This node's replica of a group contradicts its leader: another one has to take its place.
    pub(crate) fn contradicts(&self, group: u64) {
        if self.contradicted.lock().insert(group) {
            self.replacement.look();
        }
    }

    pub(crate) fn is_contradicted(&self, group: u64) -> bool {
        self.contradicted.lock().contains(&group)
    }

    /// A replica that could not go on was set aside.
    pub(crate) fn is_replaced(&self, group: u64) {
        self.contradicted.lock().remove(&group);
        self.replacement.forget(group);
    }

    /// Replicas that cannot go on.
    pub(crate) fn replacement(&self) -> &Replacement {
        &self.replacement
    }

    /// What watches its threads and tasks.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.watch.is_stopping()
    }

    /// Lets the threads and tasks end.
    pub(crate) fn end_threads(&self) {
        self.watch.stop();
        self.wake_flusher();
    }

    /// Ends all that was begun, without waiting for it.
    pub(crate) fn end(&self) {
        self.watch.drain();
        self.connections.hang_up_all();
        self.end_threads();
        if let Some(peers) = self.peers.get() {
            peers.stop();
        }
    }

    /// Creates, opens, closes or sets aside replicas on a thread that may block. One piece of such work
    /// follows the other: whoever waited for the one before may be gone while it goes on.
    ///
    /// # Errors
    /// Where the node stops, or the work panicked.
    pub(crate) async fn on_files<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let broker = Arc::clone(self);
        let done = self.blocking(Kind::Files, move || {
            let _one = broker.files.lock();
            (!broker.is_stopping()).then(|| work(&broker))
        });
        done.await?.ok_or(NotDone::Stopping)
    }

    /// Does something on a thread that may block.
    pub(crate) fn blocking<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.watch.blocking(&self.tokio, kind, work)
    }

    /// Waits until nothing is done to files any more. The broker is stopping, so nothing will be.
    pub(crate) fn finish_files(&self) {
        drop(self.files.lock());
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
        self.watch.fail(why);
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
        self.tell_led();
    }

    /// Who leads a partition of this node, or who is in sync with it, changed.
    pub(crate) fn led(&self, handle: &PartitionHandle) {
        let published = handle.published();
        let leader = self
            .routes
            .node_of(handle.group(), published.leader_replica);
        self.leaders.know(handle.group(), &published, leader);
        self.leaders.changed(handle.group());
        if handle.group() == CONTROLLER_GROUP {
            self.duties.look();
        }
        self.tell_led();
    }

    /// Wakes whoever waits for a partition to be led, here or elsewhere.
    pub(crate) fn tell_led(&self) {
        if self.led_waiters.load(Ordering::SeqCst) > 0 {
            self.led.notify_waiters();
        }
    }

    /// The node that leads group 0, when there is one.
    ///
    /// # Errors
    /// Where nobody leads it for as long as that.
    pub(crate) async fn until_controller(&self, wait: Duration) -> Result<i32, ProduceError> {
        let leader = self.until(|| Some(self.controller_node()).filter(|node| *node >= 0));
        timeout_at(deadline(wait), leader)
            .await
            .map_err(|_| ProduceError::NotLeader)
    }

    /// Waits until a node other than `node` leads the controller's group.
    pub(crate) async fn until_controller_is_not(&self, node: i32) {
        let other = |leader: &i32| *leader >= 0 && *leader != node;
        self.until(|| Some(self.controller_node()).filter(other))
            .await;
    }

    /// How many wait for a partition or for an answer of the broker's own.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.led_waiters.load(Ordering::SeqCst) + self.internal.waiting()
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
            None if at.missing => false,
            None => self
                .leaders
                .of_group(at.group)
                .is_some_and(|lead| lead.node.is_some()),
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

    /// An id for an idempotent producer out of those that the controller has given this node, if one is
    /// left.
    pub(crate) fn producer_id_at_hand(&self) -> Option<i64> {
        self.producer_ids.try_lock().ok()?.next()
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
    pub(crate) fn leader_of(&self, at: &Partition) -> (i32, i32) {
        self.shown(at)
            .map_or((-1, -1), |state| (state.leader, state.leader_epoch))
    }

    /// What Metadata shows of a partition that this node has a replica of, while its topic is there.
    pub(crate) fn shown(&self, at: &Partition) -> Option<PartitionState> {
        let handle = at.handle();
        let topic = self.topics.with_id(&handle.topic_id())?;
        let partition = topic.partition(handle.partition())?;
        Some(self.state_of(partition))
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
        let node_of = |replica: u64| {
            let found = partition.replicas.iter().find(|r| r.replica == replica);
            found.map_or(-1, |found| found.node)
        };
        let mut offline = self.silent_nodes(&replicas);
        if partition.unopened.is_some()
            || partition.missing
            || published.is_some_and(|published| published.role == Role::Fenced)
        {
            offline.push(own);
        }
        let here = published.and_then(|published| {
            let leader = Some(node_of(published.leader_replica)).filter(|node| *node >= 0);
            by_own_replica(&published, own, leader)
        });
        let said = self.leaders.of_group(partition.group);
        let lead = newest(said.as_ref(), here);
        // A term is told with its leader only: clients take no lower one afterwards, and that of a
        // candidate is gone with its power while the leader of the term before goes on.
        let (leader, leader_epoch) = lead
            .and_then(|(term, node)| Some((node?, i32::try_from(term).unwrap_or(i32::MAX))))
            .filter(|(node, _)| !offline.contains(node))
            .unwrap_or((-1, -1));
        let in_sync: Vec<i32> = if leader == own {
            let local = partition.local.as_ref();
            let in_sync = local.map(|local| local.handle().in_sync());
            in_sync
                .iter()
                .flat_map(|ids| ids.iter().map(|id| node_of(*id)))
                .collect()
        } else {
            let said = said.filter(|lead| lead.node == Some(leader));
            said.iter()
                .flat_map(|lead| lead.in_sync.iter().map(|id| node_of(*id)))
                .collect()
        };
        // In the order of the replicas, as Kafka shows them. Before the leader has said who is in
        // sync, it is.
        let in_sync: Vec<i32> = replicas
            .iter()
            .copied()
            .filter(|node| !offline.contains(node))
            .filter(|node| in_sync.contains(node) || (in_sync.is_empty() && *node == leader))
            .collect();
        // A replica with bad bytes at rest votes and serves the rest; it is shown like one on a disk that
        // failed until they are put right.
        let is_marred = |local: &Arc<Partition>| local.handle().reader().is_marred();
        if partition.local.as_ref().is_some_and(is_marred) && !offline.contains(&own) {
            offline.push(own);
        }
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

    /// Those of these nodes that are fenced.
    fn silent_nodes(&self, nodes: &[i32]) -> Vec<i32> {
        self.catalog.read(|image| {
            let fenced = |node: &i32| image.brokers.get(node).is_none_or(|broker| broker.fenced);
            nodes.iter().copied().filter(fenced).collect()
        })
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

    /// Whether this node leads group 0 and may answer for it.
    pub(crate) fn leads_controller(&self) -> bool {
        let handle = self.runtime().handle(CONTROLLER_GROUP);
        handle.is_some_and(|handle| handle.published().ready)
    }

    /// The node that leads a group, as far as this one knows.
    pub(crate) fn leading_node(&self, group: u64) -> Option<i32> {
        if group == CONTROLLER_GROUP {
            return Some(self.controller_node()).filter(|node| *node >= 0);
        }
        let here = self.runtime().handle(group).and_then(|handle| {
            let published = handle.published();
            let leader = self.routes.node_of(group, published.leader_replica);
            by_own_replica(&published, self.config.node_id, leader)
        });
        let told = self.leaders.of_group(group);
        newest(told.as_ref(), here).and_then(|(_, node)| node)
    }

    /// The node that leads group 0, -1 for nobody.
    pub(crate) fn controller_node(&self) -> i32 {
        let Some(handle) = self.runtime().handle(CONTROLLER_GROUP) else {
            return -1;
        };
        let published = handle.published();
        let leader = self
            .routes
            .node_of(CONTROLLER_GROUP, published.leader_replica);
        let here = by_own_replica(&published, self.config.node_id, leader);
        let told = self.leaders.of_group(CONTROLLER_GROUP);
        let lead = newest(told.as_ref(), here);
        lead.and_then(|(_, node)| node).unwrap_or(-1)
    }
}

/// Why something was not done on a thread that may block.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    /// Nothing is begun any more.
    #[error("the broker is stopping")]
    Stopping,
    /// It panicked, or the process ends.
    #[error("{0}")]
    CutOff(#[from] JoinError),
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
