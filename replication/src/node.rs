//! The node store and the logs of one node: opens them, makes groups of what recovery finds, and
//! carries out what turns decide. The server's runtime and the simulator drive the same code; what
//! blocks is split in a beginning and an end, so that the simulator can put time between them.

mod asides;
pub mod mend;
mod scrub;
mod unopened;
pub mod unreadable;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use raft::eraftpb::ConfState;
use riverrun_storage::node::{
    Boot as StoreBoot, Flags, NODE_DIR, NodeConfig, NodeError, NodeRecovery, NodeStore, Round,
    RoundItem, RoundResult, Start, SyncTarget, WAL_FILE, WalDamage,
};
use riverrun_storage::{
    Disk, FileTrust, GroupRecord, HardState, KnownProducers, Log, LogEntry, LogError, LogIdentity,
    LogStart, LogSync, ProducerState, Scrubber, StoredConf,
};
use uuid::Uuid;

use crate::api::{Published, Role};
use crate::conf;
use crate::config::{GroupConfig, GroupSettings};
use crate::controller::Checkpoints;
use crate::founding::Known;
use crate::group::{Boot, BootError, FlushItem, Group, Op};
use crate::lane::{Entered, Lane, Work};
use crate::partition::{Partition, PartitionBoot, PartitionHandle};
use crate::shard::Input;

pub use unopened::Unopened;

/// The directory of the controller's own group.
pub const CONTROLLER_DIR: &str = "__cluster_metadata-0";
/// The controller's group.
pub const CONTROLLER_GROUP: u64 = 0;

/// A write that takes longer than this in a turn sends the group's next ones to writer threads: the
/// kernel makes writers wait when too many pages are dirty, and then for milliseconds. A write into
/// the page cache takes some tens of microseconds, so what is quick never gets there by itself.
const SLOW_WRITE: Duration = Duration::from_millis(1);

/// What a replica's directory is called in the data directory.
#[must_use]
pub fn directory_name(identity: &LogIdentity) -> String {
    if identity.group == CONTROLLER_GROUP {
        CONTROLLER_DIR.to_owned()
    } else {
        format!("{}-{}", identity.topic_id.simple(), identity.partition)
    }
}

/// What a node is given.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The node's id.
    pub node_id: i32,
    /// What the kernel calls this boot of the machine (R2).
    pub kernel_boot_id: String,
    /// The id that an empty data directory takes.
    pub new_directory_id: Uuid,
    /// What tells this start from one of a copy of the directory (R3).
    pub start_token: u64,
    /// The node WAL.
    pub store: NodeConfig,
    /// Elections and replication.
    pub group: GroupConfig,
    /// Shards that groups are spread over.
    pub shards: usize,
    /// Replicas that are open at once; others are unavailable. Group 0 is always opened.
    pub most_replicas: usize,
}

/// The controller's order to create a replica on this node (I12).
#[derive(Debug, Clone)]
pub struct GroupOrder {
    /// Who it is.
    pub identity: LogIdentity,
    /// Replica ids of the voters.
    pub voters: Vec<u64>,
    /// Replica ids of the learners.
    pub learners: Vec<u64>,
    /// The topic's settings.
    pub settings: GroupSettings,
}

impl GroupOrder {
    /// The configuration that the replica begins with.
    fn conf(&self) -> StoredConf {
        let mut conf = ConfState::default();
        conf.set_voters(self.voters.clone());
        conf.set_learners(self.learners.clone());
        StoredConf {
            index: 0,
            bytes: conf::encode_conf(&conf),
        }
    }
}

/// Why a node cannot open, or a group cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The node store.
    #[error(transparent)]
    Store(#[from] NodeError),
    /// A log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A group.
    #[error(transparent)]
    Group(#[from] BootError),
    /// The operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// The group is here already.
    #[error("group {0} exists on this node")]
    Exists(u64),
    /// The replica was created here before and is not open, or is being removed (R3).
    #[error("the replica of group {0} was created here before and cannot be opened")]
    Refused(u64),
    /// More replicas than the process has descriptors for.
    #[error(
        "{most} replicas are open, as many as the limit of open files allows: raise it (ulimit -n) and start \
         the node again"
    )]
    TooMany {
        /// How many are open at most.
        most: usize,
    },
    /// Files of the replica lie where it is to be created, and no record speaks of them (R12).
    #[error(
        "{}: files of this replica are there, and the node store has no record of it; they are not touched",
        path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
}

type OpenedGroup = (LogIdentity, Result<Partition, OpenError>);

/// What opening a node found.
#[derive(Debug)]
pub struct Opened {
    /// The partitions, ready for their shards.
    pub partitions: Vec<Partition>,
    /// Replicas whose logs could not be opened; [`Node::unopened`] has them from now on.
    pub unopened: Vec<Unopened>,
    /// Damage in the node WAL that this start has met.
    pub wal_damage: Option<WalDamage>,
    /// The machine stopped hard since the last start.
    pub unclean_power_loss: bool,
    /// The data directory was empty.
    pub founded: bool,
    /// The cluster, once the node belongs to one.
    pub cluster_id: Option<Uuid>,
}

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    identity: LogIdentity,
    log: Mutex<Log>,
    /// Writes and other work on the files, in order; nothing is written past what waits in it.
    lane: Lane<Vec<LogEntry>, Op>,
    /// The replica was removed: nothing may be written any more.
    gone: AtomicBool,
    sync: Arc<LogSync>,
    handle: PartitionHandle,
    /// What a scrub has seen of the log.
    scrubber: Mutex<Scrubber>,
}

impl Files {
    fn until_nobody_writes(&self) {
        while !self.lane.is_idle() {
            // Whoever is at it holds the log for most of the time.
            drop(self.log.lock());
            std::thread::yield_now();
        }
    }
}

#[derive(Debug, Default)]
struct Wanted {
    items: Vec<FlushItem>,
    ops: Vec<(u64, Op)>,
}

impl From<Input> for Wrote {
    fn from(input: Input) -> Self {
        Self {
            input: Some(input),
            writer: false,
        }
    }
}

/// One node's storage.
#[derive(Debug)]
pub struct Node {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    store: NodeStore,
    settings: NodeSettings,
    incarnation: u64,
    directory_id: Uuid,
    files: RwLock<BTreeMap<u64, Arc<Files>>>,
    unopened: Mutex<BTreeMap<u64, Unopened>>,
    wanted: Mutex<Wanted>,
    /// Held while directories of replicas are made, named and given other names.
    orders: Mutex<()>,
    /// Held over a whole round: a creation waits for the flusher's round and the other way round.
    round: Mutex<()>,
    /// A write found no room since the last look.
    any_full: AtomicBool,
    /// Notes of directories set aside of which was said that they cannot be read.
    said_of_notes: Mutex<BTreeSet<PathBuf>>,
}

/// What became of a write.
#[derive(Debug, Default)]
#[must_use]
pub struct Wrote {
    /// The input that tells of it, if it was carried out.
    pub input: Option<Input>,
    /// A writer has to be started for the group: its lane has work and nobody is at it.
    pub writer: bool,
}

/// A flush round that was begun.
#[derive(Debug)]
pub struct RoundUnderWay {
    round: Round,
    groups: Vec<u64>,
}

impl Node {
    /// Opens a data directory, recovers every log, and makes partitions of them.
    ///
    /// # Errors
    /// Where the node store cannot be opened. A damaged partition is no error: it is refused.
    pub fn open(
        disk: Arc<dyn Disk>,
        data: &Path,
        settings: NodeSettings,
        group_settings: impl Fn(&LogIdentity) -> GroupSettings,
    ) -> Result<(Self, Opened), OpenError> {
        Self::open_after(disk, data, settings, group_settings, |_, _| Ok(()))
    }

    /// The same; `controller` sees group 0 before the settings of any other group are asked for, so
    /// that what its log says of them can be answered. Where it fails for bytes that are bad, group 0 is
    /// damaged.
    ///
    /// # Errors
    /// As [`Node::open`], and where `controller` fails for anything else.
    pub fn open_after(
        disk: Arc<dyn Disk>,
        data: &Path,
        settings: NodeSettings,
        group_settings: impl Fn(&LogIdentity) -> GroupSettings,
        controller: impl FnOnce(&Self, &PartitionHandle) -> Result<(), OpenError>,
    ) -> Result<(Self, Opened), OpenError> {
        let boot = StoreBoot {
            kernel_boot_id: settings.kernel_boot_id.clone(),
            node_id: settings.node_id,
            new_directory_id: settings.new_directory_id,
            start_token: settings.start_token,
        };
        let (store, recovery) = NodeStore::open(disk.clone(), data, settings.store.clone(), boot)?;
        let NodeRecovery {
            directory_id,
            cluster_id,
            incarnation,
            founded,
            unclean_power_loss,
            groups,
            removed,
            damage,
            ..
        } = recovery;
        let mut groups = groups;
        let node = Self {
            disk,
            data: data.to_owned(),
            store,
            settings,
            incarnation,
            directory_id,
            files: RwLock::default(),
            unopened: Mutex::default(),
            wanted: Mutex::default(),
            orders: Mutex::new(()),
            round: Mutex::new(()),
            any_full: AtomicBool::new(false),
            said_of_notes: Mutex::default(),
        };
        let mut opened = Opened {
            partitions: Vec::new(),
            unopened: Vec::new(),
            wal_damage: damage,
            unclean_power_loss,
            founded,
            cluster_id,
        };
        if unclean_power_loss {
            node.note_short(&mut groups)?;
        }
        if let Some(damage) = &opened.wal_damage {
            node.say_damage(damage);
        }
        node.finish_asides(&removed, &groups);
        let mut results = Vec::new();
        if let Some(record) = groups.remove(&CONTROLLER_GROUP) {
            let settings = group_settings(&record.identity);
            let mut result = node.open_group(&record, settings);
            if let Ok(partition) = &result
                && let Err(error) = controller(&node, &partition.handle)
            {
                if !error.is_of_bytes() {
                    return Err(error);
                }
                // R17: it alone is not open, and the node's other groups are.
                node.files.write().remove(&CONTROLLER_GROUP);
                result = Err(error);
            }
            results.push((record.identity, result));
        }
        let records = groups.into_values();
        let with_settings = records.map(|record| {
            let settings = group_settings(&record.identity);
            (record, settings)
        });
        results.extend(node.open_groups(with_settings.collect()));
        for (identity, result) in results {
            match result {
                Ok(partition) => opened.partitions.push(partition),
                Err(error) => opened.unopened.push(node.is_unopened(&identity, &error)),
            }
        }
        // What the logs' recovery has cut is recorded, in one round for all of them, before anything
        // is appended behind it: else the WAL would go on holding what the files have not, and a
        // later boot meet both (W2).
        while node.store.needs_idle_round() {
            node.store.idle_round()?;
        }
        Ok((node, opened))
    }

    fn say_damage(&self, damage: &WalDamage) {
        let path = self.data.join(NODE_DIR).join(WAL_FILE);
        for (position, bytes) in &damage.places {
            tracing::error!(file = %path.display(), position, bytes, "the node WAL is damaged");
        }
        for group in &damage.affected {
            tracing::warn!(
                group,
                "records of a replica may be missing: it is recovering"
            );
        }
        for (group, replica) in &damage.lost {
            tracing::error!(
                group,
                replica,
                "too little is left of the records of a replica: it is lost"
            );
        }
    }

    /// R2: after a hard stop of the machine every group that acknowledged from memory may be short.
    /// That is durable before the new boot id is, so that no second stop can make it be forgotten.
    fn note_short(&self, groups: &mut BTreeMap<u64, GroupRecord>) -> Result<(), OpenError> {
        let mut items = Vec::new();
        for (group, record) in groups
            .iter_mut()
            .filter(|(_, r)| r.may_be_short && !r.recovering)
        {
            record.recovering = true;
            items.push(RoundItem {
                group: *group,
                flags: Some(Flags {
                    may_be_short: true,
                    recovering: true,
                }),
                durable_through: record.durable_index,
                ..RoundItem::default()
            });
        }
        if !items.is_empty() {
            self.round_of(items)?;
        }
        self.store.settle_boot(&self.settings.kernel_boot_id)?;
        Ok(())
    }

    /// This start's incarnation of the node.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The last starts on this data directory, this one last.
    #[must_use]
    pub fn starts(&self) -> Vec<Start> {
        self.store.identity().starts
    }

    /// The data directory's own id.
    #[must_use]
    pub fn directory_id(&self) -> Uuid {
        self.directory_id
    }

    /// The node store.
    #[must_use]
    pub fn store(&self) -> &NodeStore {
        &self.store
    }

    /// How this node came to its cluster, if it did and that was written down.
    ///
    /// # Errors
    /// The disk's, and `InvalidData` where the record is damaged.
    pub fn known(&self) -> std::io::Result<Option<Known>> {
        Known::read(&*self.disk, &self.data)
    }

    /// Writes down how this node comes to its cluster; durable when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_known(&self, known: &Known) -> std::io::Result<()> {
        known.write(&*self.disk, &self.data)
    }

    /// The images of the controller beside group 0's log.
    #[must_use]
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.disk.clone(), self.data.join(CONTROLLER_DIR))
    }

    fn directory_of(&self, identity: &LogIdentity) -> PathBuf {
        self.data.join(directory_name(identity))
    }

    fn shard_of(&self, group: u64) -> usize {
        usize::try_from(group % self.settings.shards.max(1) as u64).unwrap_or(0)
    }

    /// Opens groups side by side on as many threads as flush: each waits for syncs of its own files,
    /// and one after another they would wait many times as long. A simulation has no threads.
    fn open_groups(&self, records: Vec<(GroupRecord, GroupSettings)>) -> Vec<OpenedGroup> {
        let threads = self.settings.store.flush_threads.min(records.len());
        let most = self.settings.most_replicas;
        let room = most.saturating_sub(self.files.read().len());
        let open = |at: usize, (record, settings): &(GroupRecord, GroupSettings)| {
            let result = if at < room {
                self.open_group(record, settings.clone())
            } else {
                Err(OpenError::TooMany { most })
            };
            (record.identity.clone(), result)
        };
        if threads < 2 {
            let numbered = records.iter().enumerate();
            return numbered.map(|(at, record)| open(at, record)).collect();
        }
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<OpenedGroup>>> =
            records.iter().map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(record), Some(result)) = (records.get(at), results.get(at))
                        else {
                            return;
                        };
                        *result.lock() = Some(open(at, record));
                    }
                });
            }
        });
        results.into_iter().filter_map(Mutex::into_inner).collect()
    }

    fn open_group(
        &self,
        record: &GroupRecord,
        settings: GroupSettings,
    ) -> Result<Partition, OpenError> {
        let (log, dir) = self.open_log(Arc::clone(&self.disk), record, &settings)?;
        self.store
            .log_opened(record.identity.group, log.last_index());
        self.start_group(record, log, dir, settings)
    }

    /// Whether one replica more may be open.
    fn check_room(&self, group: u64) -> Result<(), OpenError> {
        let most = self.settings.most_replicas;
        if group != CONTROLLER_GROUP && self.files.read().len() >= most {
            return Err(OpenError::TooMany { most });
        }
        Ok(())
    }

    fn open_log(
        &self,
        disk: Arc<dyn Disk>,
        record: &GroupRecord,
        settings: &GroupSettings,
    ) -> Result<(Log, PathBuf), OpenError> {
        let dir = self.directory_of(&record.identity);
        let group = record.identity.group;
        tracing::debug!(
            group,
            durable_index = record.durable_index,
            entries = record.entries.len(),
            cut = record.unfinished_cut,
            "what the node store knows"
        );
        if record.trust != FileTrust::Sound {
            tracing::warn!(
                group,
                trust = ?record.trust,
                durable_index = record.durable_index,
                recovering = record.recovering,
                "a flush of this log had failed: its files are written anew"
            );
        }
        let opened = Log::open(disk, &dir, record, settings.log.clone());
        if opened.as_ref().is_err_and(LogError::may_have_lost_pages) {
            self.store.suspect(group);
        }
        let (log, recovery) = opened?;
        tracing::debug!(
            group,
            replica = record.identity.replica,
            durable_index = record.durable_index,
            last_index = log.last_index(),
            may_be_short = record.may_be_short,
            recovering = record.recovering,
            ?recovery,
            "recovered a log"
        );
        Ok((log, dir))
    }

    fn start_group(
        &self,
        record: &GroupRecord,
        log: Log,
        dir: PathBuf,
        settings: GroupSettings,
    ) -> Result<Partition, OpenError> {
        let identity = record.identity.clone();
        let start = log.start();
        let reader = log.reader();
        let head = reader.recover_known_producers(start.offset)?;
        let boot = Boot {
            group: identity.group,
            replica: identity.replica,
            reader: log.reader(),
            start,
            last_index: log.last_index(),
            hard_state: record.hard_state,
            conf: record.conf.clone(),
            head_producers: head.lost.is_none().then(|| head.state.encode()),
            may_be_short: record.may_be_short,
            recovering: record.recovering,
            caching: settings.write_caching,
        };
        let group = Group::boot(boot, self.settings.group)?;
        let offset = group.offset_in_memory(group.commit());
        let known = reader.recover_known_producers(offset)?;
        let blind = !known.is_all();
        self.say_unknown(identity.group, &known);
        let published = Published {
            role: Role::Follower,
            leader_replica: 0,
            term: group.term(),
            ready: false,
            high_watermark: offset,
            last_stable_offset: offset,
            log_start_offset: start.offset,
            end_offset: offset,
        };
        let handle = PartitionHandle::new(
            &identity,
            self.shard_of(identity.group),
            log.reader(),
            published,
        );
        let sync = log.sync_handle();
        let files = Files {
            dir,
            identity: identity.clone(),
            log: Mutex::new(log),
            lane: Lane::default(),
            gone: AtomicBool::new(false),
            sync,
            handle: handle.clone(),
            scrubber: Mutex::default(),
        };
        self.files.write().insert(identity.group, Arc::new(files));
        Ok(Partition::boot(PartitionBoot {
            group,
            handle,
            incarnation: self.incarnation,
            producers: known.state,
            blind,
            settings,
            deliver: identity.group == CONTROLLER_GROUP,
            recovering: record.recovering,
        }))
    }

    /// Says what is not known of producers.
    fn say_unknown(&self, group: u64, known: &KnownProducers) {
        if let Some(index) = known.skipped.first() {
            let count = known.skipped.len();
            let what = "what bad batches say of producers is not known";
            tracing::warn!(group, count, index, what);
        }
        if let Some(error) = &known.lost {
            let what = "what the log's dropped head said of producers is not known";
            tracing::error!(group, %error, what);
        }
    }

    /// Creates an empty replica by the controller's order: recorded in the WAL, durable, before it
    /// says a word. Blocks.
    ///
    /// # Errors
    /// Where the group is here already, open or not, files of it are there, or the disk refuses.
    pub fn create_group(&self, order: &GroupOrder) -> Result<Partition, OpenError> {
        let _orders = self.orders.lock();
        let group = order.identity.group;
        if self.files.read().contains_key(&group) {
            return Err(OpenError::Exists(group));
        }
        if let Some(refused) = self.known_already(order) {
            return Err(refused);
        }
        self.check_room(group)?;
        if let Err(error) = self.clear_for(order) {
            if matches!(error, OpenError::Occupied { .. }) {
                self.note_lost(&order.identity, error.to_string());
            }
            return Err(error);
        }
        let conf = order.conf();
        let dir = self.directory_of(&order.identity);
        let start = LogStart::default();
        let config = order.settings.log.clone();
        let log = Log::create(
            self.disk.clone(),
            &dir,
            &order.identity,
            start,
            &conf,
            config,
        )?;
        let item = RoundItem {
            group,
            identity: Some((order.identity.clone(), start)),
            hard_state: Some(HardState::default()),
            conf: Some(conf.clone()),
            flags: order.settings.write_caching.then_some(Flags {
                may_be_short: true,
                recovering: false,
            }),
            ..RoundItem::default()
        };
        self.round_of(vec![item])?;
        // An earlier replica, whose files could not be taken, is gone with this one's creation.
        self.unopened.lock().remove(&group);
        let record = GroupRecord {
            identity: order.identity.clone(),
            start,
            hard_state: HardState::default(),
            conf,
            durable_index: 0,
            may_be_short: order.settings.write_caching,
            recovering: false,
            trust: FileTrust::Sound,
            sidecar_synced: 0,
            unfinished_cut: None,
            entries: Vec::new(),
        };
        self.start_group(&record, log, dir, order.settings.clone())
    }

    fn round_of(&self, items: Vec<RoundItem>) -> Result<(), OpenError> {
        let _one = self.round.lock();
        let round = self.store.begin_round(items)?;
        let result = round.sync().map_err(NodeError::from)?;
        self.store.end_round(round, &result)?;
        Ok(())
    }

    /// The partitions of this node as others see them.
    #[must_use]
    pub fn handles(&self) -> Vec<PartitionHandle> {
        self.files
            .read()
            .values()
            .map(|f| f.handle.clone())
            .collect()
    }

    /// The partition of a group.
    #[must_use]
    pub fn handle(&self, group: u64) -> Option<PartitionHandle> {
        self.files.read().get(&group).map(|f| f.handle.clone())
    }

    fn files_of(&self, group: u64) -> Option<Arc<Files>> {
        self.files.read().get(&group).cloned()
    }

    /// Changes what the settings of a topic say of segments.
    pub fn set_log_config(&self, group: u64, config: riverrun_storage::LogConfig) {
        if let Some(files) = self.files_of(group) {
            files.log.lock().set_config(config);
        }
    }

    /// Carries a write out; gives the input that tells of it. Where there is no room the rest waits
    /// for [`Node::retry`], and the group is told.
    pub fn write(&self, group: u64, entries: Vec<LogEntry>) -> Option<Input> {
        self.write_timed(group, entries, || Duration::ZERO).input
    }

    /// Carries a write out at once, or leaves it to a writer where the last one was slow or others
    /// wait. `now` is a clock that never goes back.
    pub fn write_timed(
        &self,
        group: u64,
        entries: Vec<LogEntry>,
        now: impl Fn() -> Duration,
    ) -> Wrote {
        let Some(files) = self.files_of(group) else {
            return Wrote::default();
        };
        match files.lane.enter(entries) {
            Entered::Now(entries) => {
                let append = || self.append(&files, entries, now);
                let input = catch_unwind(AssertUnwindSafe(append));
                // The lane is let go in any case, or nothing would ever be written after a panic.
                let writer = files.lane.leave();
                let input = input.unwrap_or_else(|panic| resume_unwind(panic));
                Wrote { input, writer }
            }
            Entered::Writer => Wrote {
                input: None,
                writer: true,
            },
            Entered::Queued => Wrote::default(),
        }
    }

    /// The next piece of work in a group's lane, for the writer that was started; none ends its
    /// work. Blocks.
    pub fn write_next(&self, group: u64, now: impl Fn() -> Duration) -> Option<Option<Input>> {
        let files = self.files_of(group)?;
        Some(match files.lane.next()? {
            Work::Write(entries) => self.append(&files, entries, now),
            Work::Aside(op) => self.run_op(group, &op),
        })
    }

    fn append(
        &self,
        files: &Files,
        mut entries: Vec<LogEntry>,
        now: impl Fn() -> Duration,
    ) -> Option<Input> {
        let group = files.identity.group;
        let through = entries.last()?.index;
        let began = now();
        let appended = {
            let mut log = files.log.lock();
            if files.gone.load(Ordering::SeqCst) {
                return None;
            }
            log.append(&entries)
        };
        files
            .lane
            .note_speed(now().saturating_sub(began) > SLOW_WRITE);
        match appended {
            Ok(appended) => Some(Input::Written {
                group,
                through,
                rolled: appended.rolled,
            }),
            Err(LogError::Full { last_index, .. }) => {
                entries.retain(|e| e.index > last_index);
                files.lane.put_back(entries);
                self.any_full.store(true, Ordering::SeqCst);
                Some(Input::Full { group })
            }
            Err(error) => {
                tracing::error!(group, %error, "a write failed");
                Some(Input::Failed {
                    group,
                    why: error.to_string(),
                })
            }
        }
    }

    /// The groups whose writes found no room and are to be tried again now: a writer has to be
    /// started for each.
    #[must_use]
    pub fn retry_full(&self) -> Vec<u64> {
        if !self.any_full.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        let files = self.files.read();
        let full = files.iter().filter(|(_, files)| files.lane.retry());
        full.map(|(group, _)| *group).collect()
    }

    /// Tries again what found no room, here and now.
    pub fn retry(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for group in self.retry_full() {
            // Each write is told of by itself: the group counts those that are under way.
            while let Some(input) = self.write_next(group, || Duration::ZERO) {
                inputs.extend(input);
            }
        }
        inputs
    }

    /// Waits until the writers have carried out what they were started for. Blocks; for closing.
    pub fn finish_writes(&self) {
        let files: Vec<Arc<Files>> = self.files.read().values().cloned().collect();
        files.iter().for_each(|files| files.until_nobody_writes());
    }

    /// A group is out of service: what it wanted is forgotten, and the WAL no longer waits for its
    /// files (W6). Where a write or flush of them is why, the next round says so (W8).
    pub fn fence(&self, group: u64) {
        let mut wanted = self.wanted.lock();
        wanted.items.retain(|i| i.group != group);
        wanted.ops.retain(|(g, _)| *g != group);
        drop(wanted);
        if let Some(files) = self.files_of(group) {
            if files.sync.is_poisoned() {
                self.store.poison(group);
            }
            files.sync.poison();
            files.lane.clear();
        }
        self.store.fence(group);
    }

    /// Notes what the next round, or the blocking work before it, must do.
    pub fn want_flush(&self, item: FlushItem) {
        self.wanted.lock().items.push(item);
    }

    /// Notes blocking work.
    pub fn want_op(&self, group: u64, op: Op) {
        self.wanted.lock().ops.push((group, op));
    }

    /// Whether a flusher would find work.
    #[must_use]
    pub fn wants(&self) -> bool {
        let wanted = self.wanted.lock();
        !wanted.items.is_empty()
            || !wanted.ops.is_empty()
            || self.store.needs_idle_round()
            || self.store.needs_checkpoint()
    }

    /// Takes the blocking work that waits.
    #[must_use]
    pub fn take_ops(&self) -> Vec<(u64, Op)> {
        std::mem::take(&mut self.wanted.lock().ops)
    }

    /// Does a piece of blocking work; gives the input that tells of it, where there is one.
    pub fn run_op(&self, group: u64, op: &Op) -> Option<Input> {
        let files = self.files_of(group)?;
        let done = match op {
            Op::Cut { from } => files
                .log
                .lock()
                .truncate_from(*from)
                .map(|()| Some(Input::Cut { group })),
            Op::SaveProducers { offset, producers } => (|| {
                let state = decode_producers(producers);
                files.log.lock().write_producer_snapshot(*offset, &state)?;
                files.sync.sync_all().map_err(|source| LogError::Io {
                    path: files.dir.clone(),
                    source,
                })?;
                Ok(Some(Input::Saved { group }))
            })(),
            Op::Reset { start, conf } => files
                .log
                .lock()
                .reset(*start, conf)
                .map(|()| Some(Input::Cut { group })),
            Op::ProducerSnapshot { offset, producers } => {
                let state = decode_producers(producers);
                files
                    .log
                    .lock()
                    .write_producer_snapshot(*offset, &state)
                    .map(|()| None)
            }
            Op::DropHead { keep_from, conf } => (|| {
                let mut log = files.log.lock();
                let start = log.drop_head(*keep_from, conf)?;
                let producers = log.recover_producer_state(start.offset)?.encode();
                Ok(Some(Input::HeadDropped {
                    group,
                    start,
                    producers,
                }))
            })(),
        };
        match done {
            Ok(input) => input,
            // What is bad is put right first; the head is dropped by a later order.
            Err(
                error @ (LogError::BadBatch { .. }
                | LogError::Damaged { .. }
                | LogError::Absent { .. }),
            ) if matches!(op, Op::DropHead { .. }) => {
                tracing::warn!(group, %error, "the head of a log is not dropped yet");
                None
            }
            Err(error) => {
                tracing::error!(group, %error, ?op, "work on a partition's files failed");
                Some(Input::Failed {
                    group,
                    why: error.to_string(),
                })
            }
        }
    }

    /// Begins a flush round of all that waits; `None` where nothing does.
    ///
    /// # Errors
    /// Where the WAL cannot be written, which ends the process (I10).
    pub fn begin_round(&self) -> Result<Option<RoundUnderWay>, NodeError> {
        let items = std::mem::take(&mut self.wanted.lock().items);
        if items.is_empty() && !self.store.needs_idle_round() {
            return Ok(None);
        }
        let mut round_items = Vec::with_capacity(items.len());
        let mut groups = Vec::with_capacity(items.len());
        let mut seen = BTreeSet::new();
        for item in items {
            let Some(files) = self.files_of(item.group) else {
                continue;
            };
            debug_assert!(seen.insert(item.group), "a group has one item outstanding");
            groups.push(item.group);
            round_items.push(RoundItem {
                group: item.group,
                identity: item.reset.map(|start| (files.identity.clone(), start)),
                removed: false,
                hard_state: item.hard_state,
                conf: item.conf,
                entries: item.entries,
                cut: item.cut,
                cut_done: item.cut_done,
                flags: item.flags.map(|(may_be_short, recovering)| Flags {
                    may_be_short,
                    recovering,
                }),
                log: Some(files.sync.clone() as Arc<dyn SyncTarget>),
                durable_through: item.durable_through,
            });
        }
        let round = self.store.begin_round(round_items)?;
        Ok(Some(RoundUnderWay { round, groups }))
    }

    /// Makes a round durable. Blocks.
    ///
    /// # Errors
    /// Where the WAL cannot be synced, which ends the process (I10).
    pub fn sync_round(&self, under_way: &RoundUnderWay) -> Result<RoundResult, NodeError> {
        under_way.round.sync().map_err(NodeError::from)
    }

    /// Ends a round; gives the inputs that tell its groups.
    ///
    /// # Errors
    /// Where the WAL fails, which ends the process (I10).
    pub fn end_round(
        &self,
        under_way: RoundUnderWay,
        result: &RoundResult,
    ) -> Result<Vec<Input>, NodeError> {
        let RoundUnderWay { round, groups } = under_way;
        self.store.end_round(round, result)?;
        Ok(groups
            .into_iter()
            .map(
                |group| match result.failed.iter().find(|(failed, _)| *failed == group) {
                    None => Input::Flushed { group },
                    Some((_, why)) => Input::Failed {
                        group,
                        why: why.to_string(),
                    },
                },
            )
            .collect())
    }

    /// Makes everything that is written durable and sets the clean mark. Blocks.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn close(&self) -> Result<(), NodeError> {
        let _one = self.round.lock();
        self.store.checkpoint()?;
        let mut clean = true;
        for files in self.files.read().values() {
            let group = files.identity.group;
            // Index entries that wait in memory: readers of the files are to find them all.
            if let Err(error) = files.log.lock().flush_indexes() {
                tracing::warn!(group, %error, "indexes could not be written");
            }
            if let Err(error) = files.sync.sync_full() {
                tracing::error!(group, %error, "a log could not be synced");
                self.store.poison(group);
                clean = false;
            }
        }
        if clean {
            return self.store.close_clean();
        }
        // Another start must not believe what the cache holds of those logs (W8).
        while self.store.needs_idle_round() {
            self.store.idle_round()?;
        }
        Ok(())
    }

    /// One round of a flusher thread: blocking work, a round, a checkpoint where one is due. Work on
    /// files that a writer is at is left to it, so that one file's disk never holds back the rounds.
    /// `writers` gets the groups for which one has to be started. Blocks.
    ///
    /// # Errors
    /// Where the WAL fails, which ends the process (I10).
    pub fn flush_once(
        &self,
        inputs: &mut Vec<Input>,
        writers: &mut Vec<u64>,
    ) -> Result<bool, NodeError> {
        let ops = self.take_ops();
        let mut any = !ops.is_empty();
        for (group, op) in ops {
            let Some(files) = self.files_of(group) else {
                continue;
            };
            if let Entered::Now(op) = files.lane.enter_aside(op) {
                inputs.extend(self.run_op(group, &op));
                if files.lane.leave() {
                    writers.push(group);
                }
            }
        }
        let _one = self.round.lock();
        if let Some(round) = self.begin_round()? {
            any = true;
            let result = self.sync_round(&round)?;
            inputs.extend(self.end_round(round, &result)?);
        }
        if self.store.needs_checkpoint() {
            any = true;
            let result = self.store.checkpoint()?;
            inputs.extend(failures(result.failed));
        }
        inputs.extend(failures(self.store.take_failed_logs()));
        Ok(any)
    }
}

/// Producers as this process encoded them.
fn decode_producers(bytes: &[u8]) -> ProducerState {
    ProducerState::decode(bytes).unwrap_or_else(|error| panic!("producers of our own: {error}"))
}

/// I10: a log that cannot be synced takes its partition out of service.
fn failures(failed: Vec<(u64, std::io::Error)>) -> impl Iterator<Item = Input> {
    failed.into_iter().map(|(group, error)| Input::Failed {
        group,
        why: error.to_string(),
    })
}
