//! One simulated node: its disk, which outlives it, and the process on it, which does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use riverrun_replication::controller::{ClosedTopics, Controller};
use riverrun_replication::founding::Known;
use riverrun_replication::group::Op;
use riverrun_replication::leaders::LeaderTable;
use riverrun_replication::members::Members;
use riverrun_replication::node::{Node, RoundUnderWay, Unopened};
use riverrun_replication::partition::Partition;
use riverrun_replication::proposer::{Outcomes, Proposer};
use riverrun_replication::reconciler::{Here, Standing};
use riverrun_replication::shard::{Input, Shard};
use riverrun_storage::disk::mem::{MemDisk, MemSnapshot, Operation, SlowSyncs, Times};
use riverrun_storage::node::{NodeError, RoundResult};
use riverrun_storage::{LogEntry, LogReader};
use uuid::Uuid;

use crate::changes::UnderWay;
use crate::coming::Coming;
use crate::invariants::{Checked, offsets_dense};
use crate::mark::Mark;
use crate::refusal::Refusal;
use crate::words::Words;
use crate::world::Event;

/// Where every node keeps its data on its own disk.
#[must_use]
pub fn data_dir() -> PathBuf {
    PathBuf::from("/data")
}

/// A replica's log as the simulator saw it written, or found it at a start.
#[derive(Debug, Default)]
pub struct View {
    /// Index before the first mark.
    before: u64,
    marks: VecDeque<Mark>,
    /// Up to here it was compared with what is committed.
    pub checked: u64,
    /// The term in which this replica was last looked at as a leader that may answer.
    pub judged_term: u64,
}

impl View {
    /// What a start found in the files.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn read(reader: &LogReader) -> Result<Self, String> {
        let before = reader.start().prev_index;
        let mut view = Self {
            before,
            checked: before,
            ..Self::default()
        };
        let last = reader.last_index();
        while view.last() < last {
            let from = view.last() + 1;
            let entries = reader
                .entries(from, last + 1, 1 << 20)
                .map_err(|e| format!("entry {from}: {e}"))?;
            if entries.is_empty() {
                return Err(format!("entry {from} cannot be read"));
            }
            view.marks.extend(entries.iter().map(Mark::of));
        }
        Ok(view)
    }

    /// Index of the last entry.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.before + self.marks.len() as u64
    }

    /// Index of the first entry.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.before + 1
    }

    /// The entry of an index.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Mark> {
        self.marks
            .get(usize::try_from(index.checked_sub(self.before + 1)?).ok()?)
    }

    /// Every entry.
    pub fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter()
    }

    /// The offset behind an index, where it is known.
    #[must_use]
    pub fn offset_after(&self, index: u64) -> Option<i64> {
        self.get(index.min(self.last())).map(Mark::next_offset)
    }

    /// Everything at and above an index is gone.
    pub fn cut(&mut self, from: u64) {
        while self.last() >= from && self.marks.pop_back().is_some() {}
        self.checked = self.checked.min(self.last());
    }

    /// The log begins again behind an index.
    pub fn reset(&mut self, before: u64) {
        *self = Self {
            before,
            checked: before,
            judged_term: self.judged_term,
            ..Self::default()
        };
    }

    /// An entry was written.
    ///
    /// # Errors
    /// Where it does not follow the one before it.
    pub fn push(&mut self, group: u64, node: usize, mark: Mark) -> Checked {
        if mark.index <= self.last() {
            self.cut(mark.index);
        }
        if let Some(before) = self.marks.back() {
            offsets_dense::follows(group, node, before, &mark)?;
        }
        self.marks.push_back(mark);
        Ok(())
    }
}

/// Work in the lane of one group's files.
#[derive(Debug)]
pub struct LaneWrite {
    /// The entries.
    pub entries: Vec<LogEntry>,
}

/// A flush round whose sync takes its time.
#[derive(Debug)]
pub struct Syncing {
    /// The round.
    pub round: RoundUnderWay,
    /// What the disk will have said.
    pub result: Result<RoundResult, NodeError>,
    /// What becomes durable when it has ended.
    pub slow: SlowSyncs,
}

/// What the flusher of a node is at.
#[derive(Debug, Default)]
pub enum Flusher {
    /// Nothing.
    #[default]
    Idle,
    /// Blocking work on files that begins soon.
    Working(Vec<(u64, Op)>),
    /// A round.
    Syncing(Box<Syncing>),
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// The production code that is driven.
    pub node: Node,
    /// Its shards.
    pub shards: Vec<Shard>,
    /// Its copy of the controller's state.
    pub controller: Controller,
    /// Its logs as they were seen written.
    pub views: BTreeMap<u64, View>,
    /// Writes that left their turn.
    pub lanes: BTreeMap<u64, VecDeque<LaneWrite>>,
    /// The flusher.
    pub flusher: Flusher,
    /// Groups whose failure was reported, so that their fencing is no surprise.
    pub failed: BTreeSet<u64>,
    /// Groups of which this node's replica contradicts its leader (R2b).
    pub contradicted: BTreeSet<u64>,
    /// What it asks the leaders of groups whose replicas here cannot go on.
    pub words: Words,
    /// Commands were applied that may concern this node's replicas.
    pub must_reconcile: bool,
    /// How often in a row it could not, for what the flusher was at.
    pub starved: u32,
    /// The flusher begins nothing: an order is carried out first.
    pub holds_rounds: bool,
    /// Whom each group was told to have as members last, and which replica was told.
    pub members_told: BTreeMap<u64, (u64, Members)>,
    /// What the others have said of who leads what.
    pub leaders: LeaderTable,
    /// The life in which each other node was heard last.
    pub known_lives: BTreeMap<usize, u64>,
    /// Groups of which something about their leadership changed since the others were told.
    pub led: BTreeSet<u64>,
    /// Groups that the others take this node for the leader of.
    pub leads: BTreeSet<u64>,
    /// What other nodes have said of topics that are being deleted.
    pub closed: ClosedTopics,
    /// How the node came to its cluster.
    pub known: Option<Known>,
    /// What it does to come to one.
    pub coming: Option<Coming>,
    /// The newest term that was answered for each group.
    pub answered: BTreeMap<u64, u64>,
    /// The numbers of its changes.
    pub proposer: Proposer,
    /// What came of what it applied last.
    pub outcomes: Outcomes,
    /// The change that it is at.
    pub change: Option<UnderWay>,
    /// Replicas whose bad bytes nobody could be asked for yet, and what else their shards are to be told.
    pub marred: Vec<(Partition, Vec<Input>)>,
    /// What could not be opened or carried out will be tried again.
    pub reopens: bool,
    /// Its image shows this start.
    pub registered: bool,
}

impl Process {
    /// The shard of a group.
    #[must_use]
    pub fn shard_of(&self, group: u64) -> usize {
        usize::try_from(group % self.shards.len().max(1) as u64).unwrap_or(0)
    }

    /// The replica of a group that is here and not open.
    #[must_use]
    pub fn unopened(&self, group: u64) -> Option<Unopened> {
        self.node.unopened_of(group)
    }

    /// Whether this node's replica of a group has to be replaced.
    #[must_use]
    pub fn cannot_go_on(&self, group: u64) -> bool {
        let unopened = self.unopened(group);
        self.contradicted.contains(&group)
            || unopened.is_some_and(|of| of.standing != Standing::Unavailable)
    }

    /// What this node has of a group.
    #[must_use]
    pub fn here(&self, group: u64) -> Here {
        if let Some(handle) = self.node.handle(group) {
            return Here::Open {
                replica: handle.replica(),
                contradicted: self.contradicted.contains(&group),
            };
        }
        self.unopened(group)
            .map_or(Here::Nothing, |of| Here::Unopened {
                replica: of.identity.replica,
                standing: of.standing,
            })
    }

    /// The partition of a group, where it is in service here.
    #[must_use]
    pub fn partition(&self, group: u64) -> Option<&Partition> {
        self.shards.get(self.shard_of(group))?.partition(group)
    }

    /// Turns one input into what [`crate::world::World::turn`] takes.
    #[must_use]
    pub fn place(&self, group: u64, input: Input) -> (usize, Input) {
        (self.shard_of(group), input)
    }
}

/// A disk that fails for good after a number of calls: the machine stops in the middle of one.
#[derive(Debug, Clone, Default)]
pub struct Fuse {
    tripped: Arc<AtomicBool>,
}

impl Fuse {
    /// Whether the machine has stopped.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        self.tripped.load(Ordering::Relaxed)
    }

    /// Lets `calls` more calls pass that change the disk.
    pub fn arm(&self, disk: &MemDisk, calls: i64) {
        let left = Arc::new(AtomicI64::new(calls));
        let changing = [
            Operation::Write,
            Operation::Sync,
            Operation::SyncDir,
            Operation::SetLen,
            Operation::Reserve,
            Operation::Rename,
        ];
        for operation in changing {
            let left = left.clone();
            let tripped = self.tripped.clone();
            disk.fail(operation, Times::Always, move |_: &Path| {
                let blown = left.fetch_sub(1, Ordering::Relaxed) <= 0;
                tripped.fetch_or(blown, Ordering::Relaxed);
                blown
            });
        }
    }
}

/// One node.
#[derive(Debug)]
pub struct Host {
    /// Its disk.
    pub disk: MemDisk,
    /// How often its machine was started; the kernel's boot id.
    pub boots: u64,
    /// How often its process was started; events of an earlier one are dropped.
    pub life: u64,
    /// The last life whose incarnation others have seen.
    pub admitted_life: u64,
    /// The process, where it runs.
    pub process: Option<Box<Process>>,
    /// Whether it will be started again by itself.
    pub starting: bool,
    /// It stands still until then.
    pub paused_until_us: u64,
    /// What has come for it while it stood still.
    pub waiting: VecDeque<Event>,
    /// Its disk hangs until then.
    pub hung_until_us: u64,
    /// Thousandths by which its clock runs too fast, 1000 for exactly right.
    pub clock_permille: u64,
    /// The machine stops in the middle of a call.
    pub fuse: Fuse,
    /// What its disk refuses for now.
    pub refusal: Option<Refusal>,
    /// A copy of its disk to be rolled back to, and the life in which it was made. Until others have
    /// seen a later life nothing tells a copy from the original (R3).
    pub backup: Option<(u64, MemSnapshot)>,
    /// Durable lengths of its files before the last flush round but one, and before the last.
    pub durable_lengths: [BTreeMap<PathBuf, u64>; 2],
    /// The positions that its node WAL had reached then.
    pub wal_tails: [u64; 2],
    /// Where its node WAL has the creation of each replica.
    pub created: BTreeMap<u64, std::ops::Range<u64>>,
    /// Copies of its own files, as they were once.
    pub older: BTreeMap<PathBuf, Vec<u8>>,
    /// Counts its data directories: a new one after its disk was lost.
    pub directories: u128,
    /// The cluster that its disk says it belongs to.
    pub cluster: Option<Uuid>,
    /// When its process started.
    pub started_us: u64,
    /// When its process heard of each other node last.
    pub heard_us: BTreeMap<usize, u64>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// What is started on its disk next has never been started before.
    pub fn begins_anew(&mut self) {
        self.directories += 1;
        self.cluster = None;
        self.backup = None;
        self.durable_lengths = [BTreeMap::new(), BTreeMap::new()];
        self.wal_tails = [0; 2];
        self.created.clear();
        self.older.clear();
    }

    /// A node that was never started, with an empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self {
            disk: MemDisk::new(),
            boots: 1,
            life: 0,
            admitted_life: 0,
            process: None,
            starting: false,
            paused_until_us: 0,
            waiting: VecDeque::new(),
            hung_until_us: 0,
            clock_permille: 1000,
            fuse: Fuse::default(),
            refusal: None,
            backup: None,
            durable_lengths: [BTreeMap::new(), BTreeMap::new()],
            wal_tails: [0; 2],
            created: BTreeMap::new(),
            older: BTreeMap::new(),
            directories: 1,
            cluster: None,
            started_us: 0,
            heard_us: BTreeMap::new(),
        }
    }
}
