//! One Raft group on one node: the library's `RawNode` and the order of its writes.
//!
//! Pure: it is stepped, ticked and told what became written and durable; it fills [`Out`] with what
//! is to be done. What the library calls a Ready becomes a [`Record`], and records are reported as
//! persisted strictly in order. Between a Ready and its record stand three gates:
//!
//! * **I4**: a data entry behind a non-data entry is not written before that one is durable;
//! * **W2, W5**: entries that replace others are not written before the cut of those is recorded,
//!   carried out in the files, and done;
//! * **I5, W1**: a record is persisted when its entries are durable (written, with `write.caching`)
//!   and its term and vote are durable; only then do its messages leave.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use raft::{Config, RawNode, StateRole};
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{EntryKind, HardState, LogEntry, LogError, LogReader, LogStart, StoredConf};

use crate::conf::{self, Change};
use crate::config::GroupConfig;
use crate::message::{RaftKind, RaftMessage, SnapshotMessage};
use crate::raft_codec::{
    Unsendable, from_raft, message_from_raft, message_to_raft, snapshot_from_raft,
};
use crate::raft_log::{RaftLog, Recovered};

/// Ticks after which the preferred leader of a new group campaigns.
const FIRST_ELECTION_TICKS: usize = 2;
/// Ticks over which the followers of a leader that is gone spread.
const GONE_JITTER_TICKS: u64 = 4;

/// What a group needs of the next flush round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlushItem {
    /// The group.
    pub group: u64,
    /// Term, vote and commit, where term or vote changed or something else is flushed anyway.
    pub hard_state: Option<HardState>,
    /// The applied configuration where it changed.
    pub conf: Option<StoredConf>,
    /// Entries written since the last round, in index order.
    pub entries: Vec<LogEntry>,
    /// The cut that was recorded before has been carried out in the files.
    pub cut_done: bool,
    /// Everything at and above this index is about to be cut from the files.
    pub cut: Option<u64>,
    /// The cut is a reset: the log begins again here.
    pub reset: Option<LogStart>,
    /// (may be short, recovering), where either changed.
    pub flags: Option<(bool, bool)>,
    /// Everything at or below this index is durable after the round.
    pub durable_through: u64,
}

/// Work on a group's files that blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Cut the files at an index.
    Cut {
        /// First index dropped.
        from: u64,
    },
    /// Make the producer state of a snapshot durable, before the reset is recorded.
    SaveProducers {
        /// The snapshot's offset.
        offset: i64,
        /// The state, in the storage crate's encoding.
        producers: Bytes,
    },
    /// Drop everything and begin again behind a snapshot.
    Reset {
        /// Where.
        start: LogStart,
        /// The configuration there.
        conf: StoredConf,
    },
    /// Write the producer state of the log below an offset beside the segments.
    ProducerSnapshot {
        /// The offset.
        offset: i64,
        /// The state.
        producers: Bytes,
    },
    /// Delete whole segments below an index.
    DropHead {
        /// First index kept at the latest.
        keep_from: u64,
        /// The applied configuration.
        conf: StoredConf,
    },
}

/// What is to be done after a group was pumped.
#[derive(Debug, Default)]
pub struct Out {
    /// Entries to append to the files, in order.
    pub writes: Vec<LogEntry>,
    /// For the next flush round; at most one is outstanding.
    pub flush: Option<FlushItem>,
    /// Blocking work on the files, in order.
    pub ops: Vec<Op>,
    /// Messages to other replicas.
    pub messages: Vec<(u64, RaftMessage)>,
    /// Entries that are committed and persisted here, to be applied.
    pub committed: Vec<LogEntry>,
    /// Entries at and above this index were replaced.
    pub cut_at: Option<u64>,
    /// The log began again behind a snapshot.
    pub reset: Option<SnapshotMessage>,
    /// Term, role or leader changed.
    pub role_changed: bool,
}

/// A Ready that is not reported as persisted yet.
#[derive(Debug)]
struct Record {
    number: u64,
    /// Last entry, 0 for none.
    through: u64,
    /// The hard state that must be durable, 0 for none.
    hard_sequence: u64,
    /// Index of its snapshot, 0 for none.
    snapshot: u64,
    /// What may leave when it is persisted.
    messages: Vec<(u64, RaftMessage)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CutPhase {
    /// The producer state of a snapshot is being written.
    Saving,
    /// Writes and rounds that are under way must end first.
    Waiting,
    /// The cut record is in a flush round.
    Recording,
    /// The files are being cut.
    Cutting,
}

#[derive(Debug)]
struct Cut {
    from: u64,
    phase: CutPhase,
    reset: Option<SnapshotMessage>,
}

/// A flush round that this group takes part in.
#[derive(Debug)]
struct Flight {
    through: u64,
    hard_sequence: u64,
    conf_index: u64,
    commit: u64,
    cut: bool,
    cut_done: bool,
    flags: Option<(bool, bool)>,
}

/// What recovery hands to a group.
#[derive(Debug)]
pub struct Boot {
    /// The group.
    pub group: u64,
    /// This replica.
    pub replica: u64,
    /// Reads of the recovered files.
    pub reader: LogReader,
    /// Where the log begins.
    pub start: LogStart,
    /// Its last index; all of it is durable.
    pub last_index: u64,
    /// The stored hard state.
    pub hard_state: HardState,
    /// The stored configuration.
    pub conf: StoredConf,
    /// The producer state of the log below its start, encoded.
    pub head_producers: Option<Bytes>,
    /// Whether the durable flag says that the group may be short after a power loss.
    pub may_be_short: bool,
    /// Whether the durable flag says that it was recovering.
    pub recovering: bool,
    /// Acknowledge from memory.
    pub caching: bool,
}

/// Why a group cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Its stored configuration cannot be read.
    #[error("the stored configuration cannot be read: {0}")]
    Conf(#[from] conf::BadConf),
    /// Its files end before an entry that they should hold.
    #[error("the log of group {group} does not hold entry {index}")]
    Missing {
        /// The group.
        group: u64,
        /// The entry.
        index: u64,
    },
    /// Reading them failed.
    #[error("the log cannot be read: {0}")]
    Log(#[from] LogError),
    /// The library refused the state.
    #[error("raft refused the recovered state: {0}")]
    Raft(#[from] raft::Error),
}

/// Why a proposal was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not the leader, or handing leadership away.
    #[error("not the leader")]
    NotLeader,
    /// Too many bytes are uncommitted.
    #[error("too many bytes are uncommitted")]
    Busy,
}

/// One replica of one group.
pub struct Group {
    id: u64,
    replica: u64,
    config: GroupConfig,
    node: RawNode<RaftLog>,
    /// The newest hard state, and a counter of its changes of term or vote.
    hard: HardState,
    hard_sequence: u64,
    hard_durable: u64,
    conf_durable: u64,
    commit_durable: u64,
    /// What is applied has effects outside the group: its commit index is made durable for its own
    /// sake, not only when something else is flushed.
    stores_commits: bool,
    records: VecDeque<Record>,
    /// Last index handed to the files; last index there; last index durable.
    issued: u64,
    written: u64,
    durable: u64,
    writes_under_way: u32,
    /// INVARIANT (I4): no data entry above this index is issued while `durable` is below it.
    barrier: u64,
    flight: Option<Flight>,
    cut: Option<Cut>,
    next_cut: Option<u64>,
    next_reset: Option<SnapshotMessage>,
    owes_cut_done: bool,
    caching: bool,
    flags: (bool, bool),
    flags_durable: (bool, bool),
    flush_now: bool,
    unflushed_ticks: usize,
    /// The time of this turn.
    now: Duration,
    /// When the oldest entry was written that is not durable: of those that the round under way takes, and of
    /// those behind them.
    unsynced_since: Option<Duration>,
    behind_since: Option<Duration>,
    applied: u64,
    attempts: u64,
    stalled_ticks: usize,
    role: StateRole,
    leader: u64,
    /// What is to be done; taken by the caller after [`Group::pump`].
    pub out: Out,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.id)
            .field("replica", &self.replica)
            .field("role", &self.role)
            .field("hard", &self.hard)
            .field("issued", &self.issued)
            .field("written", &self.written)
            .field("durable", &self.durable)
            .field("applied", &self.applied)
            .field("cut", &self.cut)
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}

/// How far the log of a group's only voter is committed: as far as the entries in its files whose batches were
/// found to be bad, which it cannot keep in memory. What is durable on the only voter is committed. A change
/// of the members on the way there ends it: the stored configuration is that of the stored commit index (R4).
fn committed_alone(reader: &LogReader, commit: u64) -> Result<u64, LogError> {
    let bad = reader.bad_entries();
    let Some(last) = bad.last().map(|bad| bad.index).filter(|at| *at > commit) else {
        return Ok(commit);
    };
    for index in commit + 1..=last {
        let meta = reader.entry_meta(index)?;
        if meta.is_none_or(|meta| meta.kind == EntryKind::Conf) {
            return Ok(commit);
        }
    }
    Ok(last)
}

impl Group {
    /// A group from what recovery found.
    ///
    /// # Errors
    /// Where the recovered parts contradict each other.
    pub fn boot(boot: Boot, config: GroupConfig) -> Result<Self, BootError> {
        let Boot {
            group,
            replica,
            reader,
            start,
            last_index,
            mut hard_state,
            ..
        } = boot;
        let missing = |index| BootError::Missing { group, index };
        let last_term = if last_index == start.prev_index {
            start.prev_term
        } else {
            reader.term(last_index).ok_or_else(|| missing(last_index))?
        };
        // W1: a term that is only known from an entry may have been voted in.
        if last_term > hard_state.term {
            hard_state.term = last_term;
            hard_state.vote = replica;
        }
        hard_state.commit = hard_state.commit.clamp(start.prev_index, last_index);
        let conf_state = conf::decode_conf(&boot.conf.bytes)?;
        if conf_state.get_voters() == [replica] && conf_state.get_voters_outgoing().is_empty() {
            hard_state.commit = committed_alone(&reader, hard_state.commit)?;
        }
        // R4: the commit index is stored as far as it was applied, in one round with the
        // configuration: every change at or below it is in the stored configuration, whose own index
        // may lie above.
        let applied = hard_state.commit;

        // What is committed and in the files is read from there, the rest is kept in memory.
        let floor = hard_state.commit;
        let floor_offset = reader.offset_after(floor)?;
        let mut tail = VecDeque::new();
        while floor + (tail.len() as u64) < last_index {
            let from = floor + tail.len() as u64 + 1;
            let read = reader.entries(from, last_index + 1, 8 << 20)?;
            if read.is_empty() {
                return Err(missing(from));
            }
            // A copy, or one entry would keep all that was read with it in memory.
            tail.extend(read.into_iter().map(|mut entry| {
                entry.payload = Bytes::copy_from_slice(&entry.payload);
                entry
            }));
        }
        let raft_hard = raft::eraftpb::HardState {
            term: hard_state.term,
            vote: hard_state.vote,
            commit: hard_state.commit,
            ..Default::default()
        };
        let log = RaftLog::new(Recovered {
            reader,
            start,
            floor,
            floor_offset,
            tail,
            hard_state: raft_hard,
            conf: (boot.conf.index, conf_state),
            head_producers: boot.head_producers,
        });
        let raft_config = Config {
            id: replica,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.max_message_bytes,
            max_inflight_msgs: config.max_inflight_messages,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            max_uncommitted_size: config.max_uncommitted_bytes,
            max_committed_size_per_ready: config.max_committed_bytes,
            ..Config::default()
        };
        let node = RawNode::new(&raft_config, log, &crate::logger::logger())?;
        let mut booted = Self {
            id: group,
            replica,
            config,
            node,
            hard: hard_state,
            hard_sequence: 1,
            hard_durable: 1,
            conf_durable: boot.conf.index,
            commit_durable: applied,
            stores_commits: false,
            records: VecDeque::new(),
            issued: last_index,
            written: last_index,
            durable: last_index,
            writes_under_way: 0,
            barrier: 0,
            flight: None,
            cut: None,
            next_cut: None,
            next_reset: None,
            owes_cut_done: false,
            caching: boot.caching,
            flags: (boot.may_be_short || boot.caching, boot.recovering),
            flags_durable: (boot.may_be_short, boot.recovering),
            flush_now: false,
            unflushed_ticks: 0,
            now: Duration::ZERO,
            unsynced_since: None,
            behind_since: None,
            applied,
            attempts: 0,
            stalled_ticks: 0,
            role: StateRole::Follower,
            leader: 0,
            out: Out::default(),
        };
        booted.reseed();
        Ok(booted)
    }

    /// The group's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// This replica's id.
    #[must_use]
    pub fn replica(&self) -> u64 {
        self.replica
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &RaftLog {
        self.node.store()
    }

    /// Its current term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether it leads its term.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader it knows of, 0 for none.
    #[must_use]
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// Ticks within which a replica must have been caught up to be in sync.
    pub(crate) fn lag_ticks(&self) -> u32 {
        self.config.lag_ticks
    }

    /// Ticks without a leader after which a voter campaigns at the earliest.
    pub(crate) fn election_ticks(&self) -> usize {
        self.config.election_ticks
    }

    /// Somebody knows that the entry of this index and term is committed. If this log has it, all below
    /// it is the same too, and committed.
    pub(crate) fn learn_commit(&mut self, index: u64, term: u64) {
        if self.node.raft.state == StateRole::Follower {
            self.node.raft.raft_log.maybe_commit(index, term);
        }
    }

    /// Its commit index.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Last index applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Last index in the files.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Last index that a power cut would leave.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The hard state as it is stored. Commit stops at what is applied (R4): a stored configuration
    /// then holds every change at or below the commit index stored beside it.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        HardState {
            commit: self.applied.min(self.commit()),
            ..self.hard
        }
    }

    /// The applied configuration and the index of its entry.
    #[must_use]
    pub fn conf(&self) -> (u64, &ConfState) {
        let (index, conf) = self.log().applied_conf();
        (*index, conf)
    }

    /// Whether its term and vote are durable here.
    #[must_use]
    pub fn term_is_durable(&self) -> bool {
        self.hard_sequence == self.hard_durable
    }

    /// Whether the applied configuration is stored durably. A replica that a change has removed may
    /// be deleted when this holds on every voter that is left: one that comes back with the
    /// configuration before would wait for its report (R2).
    #[must_use]
    pub fn conf_is_durable(&self) -> bool {
        self.conf().0 <= self.conf_durable
    }

    /// The applied configuration as it is stored.
    #[must_use]
    pub fn stored_conf(&self) -> StoredConf {
        let (index, conf) = self.conf();
        StoredConf {
            index,
            bytes: conf::encode_conf(conf),
        }
    }

    /// Last index that counts as persisted here: durable, or written where the topic acknowledges
    /// from memory and the flag that says so is durable (R2). What is not data is never acknowledged
    /// from memory: a membership change that a power cut takes back leaves members that nobody knows.
    #[must_use]
    pub fn persisted(&self) -> u64 {
        let from_memory = self.caching
            && self.flags_durable.0
            && self.barrier <= self.durable
            && !self.owes_cut_done
            && self.cut.is_none()
            && !self.is_overdue();
        if from_memory {
            self.written
        } else {
            self.durable
        }
    }

    /// Whether what is acknowledged need only be in memory (`write.caching`), here or, as far as this replica
    /// knows, at the others.
    pub(crate) fn acknowledges_from_memory(&self) -> bool {
        self.caching || self.flags.0
    }

    /// Whether the oldest byte that is not synced is so old that nothing more is acknowledged from memory: the
    /// flush round is late, and a power cut would take more than is promised (`write.caching`).
    fn is_overdue(&self) -> bool {
        let oldest = self.unsynced_since.or(self.behind_since);
        self.caching
            && self.written > self.durable
            && oldest
                .is_some_and(|since| self.now.saturating_sub(since) >= self.config.caching_window)
    }

    /// Tells the time, by a clock that never goes back.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now.max(self.now);
    }

    /// What the leader knows a replica to hold.
    #[must_use]
    pub fn matched(&self, replica: u64) -> u64 {
        self.node.raft.prs().get(replica).map_or(0, |p| p.matched)
    }

    /// Whether the leader heard of a replica since its last check of the quorum.
    #[must_use]
    pub fn recently_active(&self, replica: u64) -> bool {
        replica == self.replica
            || self
                .node
                .raft
                .prs()
                .get(replica)
                .is_some_and(|p| p.recent_active)
    }

    /// Switches acknowledgement from memory on or off.
    pub fn set_caching(&mut self, caching: bool) {
        self.caching = caching;
        self.flags.0 |= caching;
    }

    /// Makes every commit index durable soon: somebody acts on what is applied.
    pub fn store_commits(&mut self) {
        self.stores_commits = true;
    }

    /// The commit index that a restart begins with at least.
    #[must_use]
    pub fn commit_durable(&self) -> u64 {
        self.commit_durable
    }

    /// Notes durably whether the replica is recovering.
    pub fn set_recovering(&mut self, recovering: bool) {
        self.flags.1 = recovering;
    }

    /// Whether a flag that was set is durable.
    #[must_use]
    pub fn flags_settled(&self) -> bool {
        self.flags == self.flags_durable
    }

    /// Asks for a flush round of what is written.
    pub fn flush_now(&mut self) {
        self.flush_now = self.written > self.durable;
    }

    /// The first voter of a group that has just been created campaigns when the others are sure to
    /// have their replicas too, and not only after an election timeout: it is the preferred leader.
    pub fn hasten(&mut self) {
        let first = self.conf().1.get_voters().iter().min();
        if first == Some(&self.replica) && self.log().last() == 0 && self.term() == 0 {
            let raft = &mut self.node.raft;
            let timeout = raft.randomized_election_timeout();
            raft.election_elapsed = timeout.saturating_sub(FIRST_ELECTION_TICKS);
        }
    }

    /// Campaigns at once.
    pub fn campaign(&mut self) {
        if self.records.is_empty() && !self.is_leader() {
            let _ = self.node.campaign();
            self.reseed();
        }
    }

    /// One tick of time. A follower with something unpersisted is not ticked towards an election,
    /// as the library demands.
    pub fn tick(&mut self, may_campaign: bool) {
        let busy = self.flight.is_some() || self.writes_under_way > 0 || self.cut.is_some();
        self.stalled_ticks = if busy { self.stalled_ticks + 1 } else { 0 };
        if self.caching && self.written > self.durable {
            self.unflushed_ticks += 1;
            self.flush_now |= self.unflushed_ticks >= self.config.caching_flush_ticks;
        }
        if self.is_leader() || (may_campaign && self.records.is_empty()) {
            self.node.tick();
        } else if !may_campaign {
            // It may not campaign, but the lease of a leader that fell silent ends for it too: else
            // it would never hear the one that it may vote for (R2).
            let raft = &mut self.node.raft;
            raft.election_elapsed = (raft.election_elapsed + 1).min(self.config.election_ticks);
        }
        if self.is_leader() && self.stalled_ticks == self.config.election_ticks {
            self.hand_over();
        }
        self.reseed();
    }

    /// The node of a replica does not live. If it led, this one need not wait for its lease to end, and
    /// campaigns after a tick or a few, drawn so that the followers do not all do it at once. A wrong
    /// guess costs an election and nothing else.
    pub(crate) fn is_gone(&mut self, replica: u64) {
        if self.is_leader() || self.leader() != replica {
            return;
        }
        let wait = 1 + usize::try_from(self.draw() % GONE_JITTER_TICKS).unwrap_or(0);
        let raft = &mut self.node.raft;
        let elapsed = raft.randomized_election_timeout().saturating_sub(wait);
        raft.election_elapsed = elapsed.max(self.config.election_ticks);
    }

    /// W10: a disk that hangs lets somebody else lead.
    fn hand_over(&mut self) {
        let voters = self.conf().1.get_voters().to_vec();
        if let Some(to) = self.hand_over_to(&voters) {
            tracing::warn!(
                group = self.id,
                to,
                "the disk hangs: leadership is handed away"
            );
        }
    }

    /// Hands leadership to the voter among these that lacks least; says to whom.
    pub(crate) fn hand_over_to(&mut self, among: &[u64]) -> Option<u64> {
        let voters = self.conf().1.get_voters();
        let to = among
            .iter()
            .filter(|id| **id != self.replica && voters.contains(id) && self.recently_active(**id))
            .max_by_key(|id| (self.matched(**id), std::cmp::Reverse(**id)))
            .copied()?;
        self.node.transfer_leader(to);
        Some(to)
    }

    /// Whether leadership is being handed to another replica: nothing is taken meanwhile.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// Whether a membership change is in the log and not applied.
    pub(crate) fn has_pending_change(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Hands leadership to a voter.
    pub fn transfer(&mut self, to: u64) {
        self.node.transfer_leader(to);
    }

    /// W10: whether the group must not be heard any more, because its disk hangs and nobody took over.
    fn silent(&self) -> bool {
        self.stalled_ticks >= 2 * self.config.election_ticks
    }

    /// Steps a message from another replica.
    pub fn step(&mut self, from: u64, message: RaftMessage) {
        // A heartbeat may carry a commit index from a life whose entries are gone here: to step it
        // would be fatal in the library.
        if message.kind == RaftKind::Heartbeat && message.commit > self.log().last() {
            return;
        }
        // An answer above the leader's own last entry is from another history (R2b).
        if message.kind == RaftKind::AppendResponse
            && !message.reject
            && self.is_leader()
            && message.index > self.log().last()
        {
            return;
        }
        if message.kind == RaftKind::HeartbeatResponse && message.term == self.term() {
            self.snapshot_arrived(from, message.commit);
        }
        match message_to_raft(from, self.replica, message) {
            Ok(message) => {
                // Errors say that a message is of no use, which is no news.
                let _ = self.node.step(message);
                self.reseed();
            }
            Err(error) => {
                tracing::error!(group = self.id, from, %error, "a message of another replica is refused");
            }
        }
    }

    /// R4: the answer to a snapshot may be lost, and its sender is not the one who would have to be
    /// told of that. A commit index that reaches the snapshot says that it arrived; what of it is
    /// persisted the replica says when it is sent what follows.
    fn snapshot_arrived(&mut self, replica: u64, commit: u64) {
        let awaited = self.node.raft.prs().get(replica);
        if awaited.is_some_and(|p| p.pending_snapshot != 0 && p.pending_snapshot <= commit) {
            self.node
                .report_snapshot(replica, raft::SnapshotStatus::Finish);
        }
    }

    /// Tells the library that messages to a replica were lost.
    pub fn unreachable(&mut self, replica: u64) {
        self.node.report_unreachable(replica);
        if self
            .node
            .raft
            .prs()
            .get(replica)
            .is_some_and(|p| p.pending_snapshot != 0)
        {
            self.node
                .report_snapshot(replica, raft::SnapshotStatus::Failure);
        }
    }

    /// Forgets what a replica was known to hold: it holds entries up to `last` and no more.
    pub fn reset_progress(&mut self, replica: u64, last: u64) {
        let next = last.min(self.log().last()) + 1;
        if let Some(progress) = self.node.raft.mut_prs().get_mut(replica) {
            progress.matched = 0;
            progress.pending_snapshot = 0;
            progress.become_probe();
            progress.next_idx = next;
        }
    }

    fn propose_entry(&mut self, entry: Entry) -> Result<u64, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.replica;
        message.set_entries(vec![entry].into());
        let transferring = self.node.raft.lead_transferee.is_some();
        match self.node.step(message) {
            Ok(()) => Ok(self.node.raft.raft_log.last_index()),
            Err(_) if transferring => Err(ProposeError::NotLeader),
            Err(_) => Err(ProposeError::Busy),
        }
    }

    /// Proposes a record batch that is stamped for this term and for the end of the log.
    ///
    /// # Errors
    /// Where the group does not lead or has too much uncommitted; nothing was appended then.
    pub fn propose_batch(&mut self, batch: Bytes) -> Result<u64, ProposeError> {
        self.propose_entry(Entry {
            data: batch,
            ..Entry::default()
        })
    }

    /// Proposes a command to the partition itself.
    ///
    /// # Errors
    /// As [`Group::propose_batch`].
    pub fn propose_command(&mut self, command: Bytes) -> Result<u64, ProposeError> {
        self.propose_entry(Entry {
            data: command,
            context: Bytes::from_static(b"c"),
            ..Entry::default()
        })
    }

    /// Proposes a membership change. `Ok(None)`: the library made it a no-op, as another change is
    /// pending or it does not fit the configuration (L7).
    ///
    /// # Errors
    /// As [`Group::propose_batch`].
    pub fn propose_change(&mut self, changes: &[Change]) -> Result<Option<u64>, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if !conf::fits(self.conf().1, changes) {
            return Ok(None);
        }
        let context = conf::encode_change(changes).to_vec();
        self.node
            .propose_conf_change(context, conf::conf_change(changes))
            .map_err(|_| ProposeError::Busy)?;
        let index = self.node.raft.raft_log.last_index();
        let kind = self
            .node
            .raft
            .raft_log
            .unstable_entries()
            .last()
            .map_or(EntryType::EntryNormal, Entry::get_entry_type);
        Ok((kind == EntryType::EntryConfChangeV2).then_some(index))
    }

    /// The leader of a joint configuration that nobody is leaving leaves it: the library forgets to
    /// when leadership changed in between.
    pub fn leave_joint(&mut self) {
        let joint = !self.conf().1.get_voters_outgoing().is_empty();
        if joint && self.is_leader() && !self.has_pending_change() {
            let _ = self.propose_change(&[]);
        }
    }

    /// The files hold everything up to `through`.
    pub fn on_written(&mut self, through: u64) {
        self.writes_under_way = self.writes_under_way.saturating_sub(1);
        if self.written <= self.durable {
            (self.unsynced_since, self.behind_since) = (None, None);
        }
        self.written = through.min(self.issued).max(self.written);
        if self.written > self.durable {
            let since = match &self.flight {
                Some(_) => &mut self.behind_since,
                None => &mut self.unsynced_since,
            };
            since.get_or_insert(self.now);
        }
    }

    /// The flush round with this group's item has ended.
    pub fn on_flushed(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        self.stalled_ticks = 0;
        self.durable = self.durable.max(flight.through);
        self.unsynced_since = self.behind_since.take();
        self.hard_durable = self.hard_durable.max(flight.hard_sequence);
        self.conf_durable = self.conf_durable.max(flight.conf_index);
        self.commit_durable = self.commit_durable.max(flight.commit);
        if flight.cut_done {
            self.owes_cut_done = false;
        }
        if let Some(flags) = flight.flags {
            self.flags_durable = flags;
        }
        if flight.cut
            && let Some(cut) = &mut self.cut
        {
            cut.phase = CutPhase::Cutting;
            self.out.ops.push(match &cut.reset {
                None => Op::Cut { from: cut.from },
                Some(s) => Op::Reset {
                    start: LogStart {
                        prev_index: s.index,
                        prev_term: s.term,
                        offset: s.offset,
                    },
                    conf: StoredConf {
                        index: s.conf_index,
                        bytes: s.conf.clone(),
                    },
                },
            });
        }
    }

    /// The files were cut or reset.
    pub fn on_cut(&mut self) {
        self.stalled_ticks = 0;
        self.cut = None;
        self.owes_cut_done = true;
        if let Some(snapshot) = self.next_reset.take() {
            self.begin_reset(snapshot);
        } else if let Some(from) = self.next_cut.take() {
            self.cut = Some(Cut {
                from,
                phase: CutPhase::Waiting,
                reset: None,
            });
        }
    }

    /// The producer state of a snapshot is durable.
    pub fn on_saved(&mut self) {
        if let Some(cut) = &mut self.cut
            && cut.phase == CutPhase::Saving
        {
            cut.phase = CutPhase::Waiting;
        }
    }

    /// Begins to go to a snapshot: first what a later boot could not make again.
    fn begin_reset(&mut self, snapshot: SnapshotMessage) {
        self.out.ops.push(Op::SaveProducers {
            offset: snapshot.offset,
            producers: snapshot.producers.clone(),
        });
        self.cut = Some(Cut {
            from: 0,
            phase: CutPhase::Saving,
            reset: Some(snapshot),
        });
    }

    /// Whole segments were deleted.
    pub fn on_head_dropped(&mut self, start: LogStart, producers: Bytes) {
        // One that was asked for before a reset speaks of the log that the reset has left behind.
        if start.prev_index > self.log().start().prev_index {
            self.node.mut_store().set_start(start, producers);
        }
    }

    /// Carries on as far as possible without the outside; fills `out`.
    pub fn pump(&mut self) {
        loop {
            self.issue_writes();
            self.post_flush();
            let reported = self.report_persisted();
            if self.node.has_ready() {
                self.take_ready();
            } else if !reported {
                break;
            }
        }
        let through = self.applied.min(self.durable).min(self.commit());
        if self.cut.is_none() {
            self.node.mut_store().release(through);
        }
        let (role, leader) = (self.node.raft.state, self.node.raft.leader_id);
        self.out.role_changed |= role != self.role || leader != self.leader;
        self.role = role;
        self.leader = leader;
        if self.silent()
            && !self
                .conf()
                .1
                .get_voters()
                .iter()
                .all(|id| *id == self.replica)
        {
            self.drop_messages();
        }
    }

    /// Nothing is said. What was to be sent counts as lost, or the library would wait for the answer to a
    /// snapshot that never left (R4).
    fn drop_messages(&mut self) {
        let dropped = std::mem::take(&mut self.out.messages).into_iter();
        let told = |(to, m): (u64, RaftMessage)| {
            matches!(m.kind, RaftKind::Append | RaftKind::Snapshot).then_some(to)
        };
        for to in dropped.filter_map(told).collect::<BTreeSet<u64>>() {
            self.unreachable(to);
        }
    }

    fn issue_writes(&mut self) {
        if self.cut.is_some() {
            return;
        }
        let skip_barrier = planted::is(Bug::SkipI4Barrier);
        let mut barrier = self.barrier;
        let mut issued = self.issued;
        let mut writes = std::mem::take(&mut self.out.writes);
        let before = writes.len();
        for entry in self.node.store().tail_above(issued) {
            if entry.kind.moves_offset() {
                if barrier > self.durable && !skip_barrier {
                    break;
                }
            } else {
                barrier = entry.index;
            }
            issued = entry.index;
            writes.push(entry.clone());
        }
        if writes.len() > before && before == 0 {
            self.writes_under_way += 1;
        }
        self.barrier = barrier;
        self.issued = issued;
        self.out.writes = writes;
    }

    fn post_flush(&mut self) {
        if self.flight.is_some() {
            return;
        }
        let mut item = FlushItem {
            group: self.id,
            ..FlushItem::default()
        };
        match &mut self.cut {
            Some(cut) if cut.phase == CutPhase::Waiting => {
                if self.writes_under_way > 0 {
                    return;
                }
                cut.phase = CutPhase::Recording;
                item.cut = Some(cut.from);
                item.reset = cut.reset.as_ref().map(|s| LogStart {
                    prev_index: s.index,
                    prev_term: s.term,
                    offset: s.offset,
                });
            }
            Some(_) => return,
            None => {
                let unflushed = self.written > self.durable;
                let wanted = unflushed
                    && (!self.caching
                        || !self.flags_durable.0
                        || self.owes_cut_done
                        || self.barrier > self.durable
                        || self.flush_now
                        || self.is_overdue()
                        || self.node.store().tail_bytes() >= self.config.caching_flush_bytes);
                if !wanted
                    && self.term_is_durable()
                    && self.flags == self.flags_durable
                    && self.conf_is_durable()
                    && !(self.stores_commits && self.applied > self.commit_durable)
                    && !self.owes_cut_done
                {
                    return;
                }
            }
        }
        item.cut_done = self.owes_cut_done;
        item.hard_state = Some(self.hard_state());
        let (conf_index, _) = self.conf();
        if !self.conf_is_durable() {
            item.conf = Some(self.stored_conf());
        }
        if self.flags != self.flags_durable {
            item.flags = Some(self.flags);
        }
        if item.cut.is_none() {
            let through = self.written;
            item.entries = self
                .log()
                .tail_above(self.durable)
                .take_while(|e| e.index <= through)
                .cloned()
                .collect();
        }
        item.durable_through = self.written;
        self.flush_now = false;
        self.unflushed_ticks = 0;
        self.flight = Some(Flight {
            through: self.written,
            hard_sequence: self.hard_sequence,
            conf_index,
            commit: item.hard_state.map_or(0, |hard| hard.commit),
            cut: item.cut.is_some(),
            cut_done: item.cut_done,
            flags: item.flags,
        });
        self.out.flush = Some(item);
    }

    /// Reports records as persisted, in order; says whether there was one.
    fn report_persisted(&mut self) -> bool {
        let mut persisted = self.persisted();
        if planted::is(Bug::AckBeforePersist) && self.is_leader() {
            persisted = u64::MAX;
        }
        let mut any = false;
        while let Some(record) = self.records.front() {
            let reset_under_way =
                self.next_reset.is_some() || self.cut.as_ref().is_some_and(|c| c.reset.is_some());
            if record.through > persisted
                || record.hard_sequence > self.hard_durable
                || (record.snapshot != 0 && reset_under_way)
            {
                break;
            }
            let Some(record) = self.records.pop_front() else {
                break;
            };
            // M4: the report comes before the messages that it frees.
            self.node.on_persist_ready(record.number);
            if record.snapshot != 0 {
                self.node.advance_apply_to(record.snapshot);
                self.applied = self.applied.max(record.snapshot);
            }
            self.out.messages.extend(record.messages);
            any = true;
        }
        any
    }

    fn take_ready(&mut self) {
        let mut ready = self.node.ready();
        let mut record = Record {
            number: ready.number(),
            through: 0,
            hard_sequence: 0,
            snapshot: 0,
            messages: Vec::new(),
        };
        // What this Ready commits may be among the entries that it brings: only what was committed
        // before it must not be replaced.
        let settled = self.hard.commit;
        if let Some(hs) = ready.hs() {
            if hs.term != self.hard.term || hs.vote != self.hard.vote {
                self.hard_sequence += 1;
                record.hard_sequence = self.hard_sequence;
                self.out.role_changed = true;
            }
            self.hard = HardState {
                term: hs.term,
                vote: hs.vote,
                commit: hs.commit,
            };
        }
        if !ready.snapshot().is_empty() {
            let snapshot = snapshot_from_raft(ready.snapshot());
            record.snapshot = ready.snapshot().get_metadata().index;
            let snapshot = snapshot.unwrap_or_else(|| {
                panic!("group {}: a snapshot that was stepped can be read", self.id)
            });
            self.take_snapshot(snapshot, &mut record);
        }
        if !ready.entries().is_empty() {
            self.take_entries(&mut record, ready.take_entries(), settled);
        }
        // L3: a single voter becomes leader in the step that raises its term, and the library lets a
        // leader's messages go at once: they wait here until the term is durable.
        let hold = !planted::is(Bug::L3)
            && (record.hard_sequence != 0 || self.records.iter().any(|r| r.hard_sequence != 0));
        let mut unsent = BTreeSet::new();
        let at_once = self.convert(ready.take_messages(), &mut unsent);
        let mut after = self.convert(ready.take_persisted_messages(), &mut unsent);
        if hold {
            record.messages.extend(at_once);
        } else {
            self.out.messages.extend(at_once);
        }
        if planted::is(Bug::FollowerAckBeforePersist) {
            let early: Vec<_> = after
                .extract_if(.., |(_, m)| m.kind == RaftKind::AppendResponse)
                .collect();
            self.out.messages.extend(early);
        }
        record.messages.extend(after);
        let committed = ready.take_committed_entries();
        self.records.push_back(record);
        self.node.advance_append_async(ready);
        for replica in unsent {
            self.unreachable(replica);
        }
        self.apply(committed);
    }

    /// Our form of the library's messages. To whom one could not be made is in `unsent`: the library has to make
    /// it again.
    fn convert(
        &self,
        messages: Vec<Message>,
        unsent: &mut BTreeSet<u64>,
    ) -> Vec<(u64, RaftMessage)> {
        let mut converted = Vec::with_capacity(messages.len());
        for message in messages {
            let to = message.to;
            match message_from_raft(message, |index| self.log().offset_after(index - 1)) {
                Ok(Some(message)) => converted.push((to, message)),
                Ok(None) => {}
                Err(Unsendable::Unread(error)) => {
                    tracing::warn!(group = self.id, to, %error, "a replica waits for what cannot be read");
                    unsent.insert(to);
                }
                Err(error) => panic!("I1: {error}"),
            }
        }
        converted
    }

    /// The next Kafka offset behind an entry that is applied, or follows one that is.
    pub(crate) fn offset_in_memory(&self, index: u64) -> i64 {
        self.log()
            .offset_in_memory(index)
            .unwrap_or_else(|| panic!("I3: entry {index} is below what is released"))
    }

    /// Takes new entries over into the tail. Entries that they replace are cut, and the records of
    /// those go up in the new one.
    fn take_entries(&mut self, record: &mut Record, entries: Vec<Entry>, settled: u64) {
        let first = entries.first().map_or(0, |e| e.index);
        if first <= self.log().last() {
            self.replace_from(first, record, settled);
        }
        for entry in entries {
            let log = self.node.mut_store();
            let entry = from_raft(&entry, log.next_offset()).unwrap_or_else(|e| panic!("I1: {e}"));
            if entry.kind.moves_offset() && !planted::is(Bug::StaleBaseOffset) {
                assert_eq!(
                    entry.base_offset,
                    log.next_offset(),
                    "I1: base offsets are dense"
                );
            }
            log.push(entry);
        }
        record.through = self.log().last();
    }

    /// The records from the first one on for which `gone` holds become part of `record`: what they
    /// waited for it waits for, and what may still be said it says.
    fn supersede(&mut self, record: &mut Record, first: u64, gone: impl Fn(&Record) -> bool) {
        let keep = self
            .records
            .iter()
            .position(gone)
            .unwrap_or(self.records.len());
        for old in self.records.drain(keep..) {
            record.hard_sequence = record.hard_sequence.max(old.hard_sequence);
            record.snapshot = record.snapshot.max(old.snapshot);
            // A success that was not persisted in time is never said: the entry is gone.
            record
                .messages
                .extend(old.messages.into_iter().filter(|(_, m)| {
                    m.kind != RaftKind::AppendResponse || m.reject || m.index < first
                }));
        }
    }

    fn replace_from(&mut self, first: u64, record: &mut Record, settled: u64) {
        assert!(
            first > settled,
            "I3: nothing at or below commit is replaced"
        );
        self.node.mut_store().cut(first);
        self.out.cut_at = Some(self.out.cut_at.map_or(first, |at| at.min(first)));
        // Entries that were issued in this very pump and not taken by the caller yet.
        self.out.writes.retain(|e| e.index < first);
        self.supersede(record, first, |r| r.through >= first);
        self.barrier = self.barrier.min(first - 1);
        if first > self.issued {
            return;
        }
        // What the files lose: the planted bug takes the last committed entry along.
        let from = if planted::is(Bug::TruncateBelowCommit) {
            first.min(settled).max(self.log().start().prev_index + 1)
        } else {
            first
        };
        self.issued = first - 1;
        self.written = self.written.min(first - 1);
        self.durable = self.durable.min(first - 1);
        if let Some(flight) = &mut self.flight {
            flight.through = flight.through.min(first - 1);
        }
        match &mut self.cut {
            None => {
                self.cut = Some(Cut {
                    from,
                    phase: CutPhase::Waiting,
                    reset: None,
                })
            }
            Some(cut) if cut.phase == CutPhase::Waiting && cut.reset.is_none() => {
                cut.from = cut.from.min(from);
            }
            Some(_) => self.next_cut = Some(self.next_cut.map_or(from, |at| at.min(from))),
        }
    }

    fn take_snapshot(&mut self, snapshot: SnapshotMessage, record: &mut Record) {
        let start = LogStart {
            prev_index: snapshot.index,
            prev_term: snapshot.term,
            offset: snapshot.offset,
        };
        let conf = conf::decode_conf(&snapshot.conf)
            .unwrap_or_else(|e| panic!("group {}: a stepped snapshot: {e}", self.id));
        let log = self.node.mut_store();
        log.reset(start, snapshot.producers.clone());
        log.set_applied_conf(snapshot.conf_index, conf);
        self.conf_durable = 0;
        // Nothing below the snapshot will ever be written here.
        self.supersede(record, 0, |_| true);
        self.out.writes.clear();
        self.barrier = 0;
        self.issued = snapshot.index;
        self.written = snapshot.index;
        self.durable = snapshot.index;
        if let Some(flight) = &mut self.flight {
            flight.through = 0;
        }
        self.next_cut = None;
        self.out.cut_at = Some(0);
        self.out.reset = Some(snapshot.clone());
        if self.cut.is_some() {
            self.next_reset = Some(snapshot);
        } else {
            self.begin_reset(snapshot);
        }
    }

    fn apply(&mut self, committed: Vec<Entry>) {
        for raft_entry in committed {
            let index = raft_entry.index;
            let entry = match self.log().tail_entry(index) {
                Some(entry) => entry.clone(),
                None => from_raft(&raft_entry, self.offset_in_memory(index - 1))
                    .unwrap_or_else(|e| panic!("I1: {e}")),
            };
            if entry.kind == EntryKind::Conf && index > self.conf().0 {
                let changes = conf::decode_change(&entry.payload)
                    .unwrap_or_else(|e| panic!("group {}: a committed change: {e}", self.id));
                match self.node.apply_conf_change(&conf::conf_change(&changes)) {
                    Ok(conf) => self.take_conf(index, conf),
                    Err(error) => {
                        tracing::error!(group = self.id, index, %error, "a membership change is void");
                        let conf = self.conf().1.clone();
                        self.node.mut_store().set_applied_conf(index, conf);
                    }
                }
                self.out.role_changed = true;
            }
            self.applied = index;
            self.out.committed.push(entry);
            self.node.advance_apply_to(index);
        }
    }

    fn take_conf(&mut self, index: u64, conf: ConfState) {
        let out = !conf::members(&conf).contains(&self.replica);
        self.node.mut_store().set_applied_conf(index, conf);
        // A leader that has removed itself has nothing to count any more, and the library would
        // look for its own progress and find none.
        if out && self.is_leader() {
            let term = self.term();
            self.node.raft.become_follower(term, 0);
        }
    }

    /// A number that differs between replicas, terms and attempts.
    fn draw(&self) -> u64 {
        mix(self.config.seed
            ^ mix(self.id)
            ^ mix(self.replica << 1)
            ^ mix(self.term())
            ^ self.attempts)
    }

    /// The library draws its election timeout from a random source of its own; ours is seeded.
    fn reseed(&mut self) {
        if self.node.raft.state == StateRole::PreCandidate && self.node.raft.election_elapsed == 0 {
            self.attempts += 1;
        }
        let min = self.config.election_ticks;
        let extra = usize::try_from(self.draw() % (min as u64)).unwrap_or(0);
        self.node.raft.set_randomized_election_timeout(min + extra);
    }
}

/// A round of splitmix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
