//! What the outside asks of a group and is told by it.

use bytes::{Bytes, BytesMut};
use riverrun_record::BatchSummary;

/// Names one waiting part of a request. The numbers are the host's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Whose request.
    pub connection: u64,
    /// Which of its requests.
    pub request: u64,
    /// Which part of it.
    pub slot: u32,
}

impl Ticket {
    /// Nobody waits (acks=0).
    pub const NONE: Self = Self {
        connection: u64::MAX,
        request: u64::MAX,
        slot: u32::MAX,
    };
}

/// When a produce is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// After the leader's write: visible only when committed, and may be lost (acks=1).
    Leader,
    /// When it is committed (acks=all).
    All,
}

/// One record batch to append.
#[derive(Debug)]
pub struct Produce {
    /// Who is answered.
    pub ticket: Ticket,
    /// When.
    pub acks: Acks,
    /// Exactly one validated batch, stamped in place with its offset and epoch.
    pub batch: BytesMut,
    /// What validation said of it.
    pub summary: BatchSummary,
    /// The leader epoch that the producer expects, if it does.
    pub expected_epoch: Option<i32>,
}

/// An appended batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Offset of its first record.
    pub base_offset: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
}

/// What a produce is answered.
pub type ProduceOutcome = Result<Produced, ProduceError>;

/// Why a batch was not appended, or why nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProduceError {
    /// Another replica leads, or leadership was lost before the batch was committed: it may or may
    /// not be in the log.
    #[error("not the leader")]
    NotLeader,
    /// The producer's leader epoch is older than the group's term.
    #[error("the leader epoch is old")]
    FencedEpoch,
    /// The producer's leader epoch is newer than the group's term.
    #[error("the leader epoch is unknown here")]
    UnknownEpoch,
    /// A sequence was left out.
    #[error("the sequence is not the next one")]
    OutOfOrderSequence,
    /// The batch is in the log, so far back that nobody remembers where. It is said when the batch is as safe
    /// as its answer would be.
    #[error("the sequence is there already")]
    DuplicateSequence,
    /// A newer producer of the same id exists.
    #[error("the producer epoch is old")]
    InvalidProducerEpoch,
    /// Fewer replicas are in sync than `min.insync.replicas` asks for; nothing was appended.
    #[error("too few replicas are in sync")]
    NotEnoughReplicas,
    /// The partition's storage failed.
    #[error("the partition's storage failed")]
    Storage,
    /// Too much is uncommitted.
    #[error("too much is uncommitted")]
    Busy,
    /// The partition is being deleted.
    #[error("the partition is being deleted")]
    Closed,
}

/// What a replica is to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads its term.
    Leader,
    /// It follows, or campaigns.
    Follower,
    /// It is out of service on this node.
    Fenced,
}

/// What the outside may see of a partition, always published as one value (L4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// What this replica is.
    pub role: Role,
    /// The leader it knows of, 0 for none.
    pub leader_replica: u64,
    /// The Raft term; the leader epoch of the Kafka protocol.
    pub term: u64,
    /// A leader that has applied an entry of its own term (I11): only then may offsets be answered.
    pub ready: bool,
    /// Everything below is committed.
    pub high_watermark: i64,
    /// Everything below is decided as well.
    pub last_stable_offset: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// The next offset behind the last entry that is persisted here.
    pub end_offset: i64,
}

impl Published {
    /// The leader epoch of the Kafka protocol.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        i32::try_from(self.term).unwrap_or(i32::MAX)
    }
}

/// How far a leader knows a replica of its group to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The replica.
    pub replica: u64,
    /// The offset behind all that it is known to hold.
    pub end_offset: i64,
    /// Ticks since it was heard.
    pub silent_ticks: u32,
    /// Ticks since it was heard with all that the leader has.
    pub lagging_ticks: u32,
}

/// What a ready leader says of its group, after it was asked and a majority has confirmed that it leads
/// still (R9, L5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The group.
    pub group: u64,
    /// The leader's term.
    pub term: u64,
    /// Whether a change of the members is under way: a joint configuration, or a change that is not applied.
    pub changing: bool,
    /// The voters of its applied configuration, the leader among them.
    pub voters: Vec<VoterWord>,
    /// The learners.
    pub learners: Vec<u64>,
    /// Everything below is committed.
    pub high_watermark: i64,
}

/// What a leader says of a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoterWord {
    /// The replica.
    pub replica: u64,
    /// It has answered since the question, may have lost nothing, has no bad place, and has persisted what
    /// the leader had committed at the question.
    pub whole: bool,
    /// It has also persisted all that the leader's log held at the question.
    pub has_all: bool,
}

/// A committed batch of a group whose commits are delivered to the host (the controller's).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedBatch {
    /// The group.
    pub group: u64,
    /// Raft index of the batch.
    pub index: u64,
    /// The batch.
    pub batch: Bytes,
}
