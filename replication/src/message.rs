//! What replicas say to each other, before any frame is made of it.

use bytes::Bytes;
use riverrun_storage::LogEntry;

/// One message between two replicas of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMessage {
    /// The group.
    pub group: u64,
    /// The sending replica.
    pub from: u64,
    /// The replica that it is for; any other drops it (R3).
    pub to: u64,
    /// The sender's life: its node's incarnation.
    pub from_incarnation: u64,
    /// The receiver's incarnation as far as the sender knows it, 0 where it does not. A message to
    /// an earlier life is dropped when it is stepped.
    pub to_incarnation: u64,
    /// What is said.
    pub body: Body,
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A message of Raft itself.
    Raft(RaftMessage),
    /// A leader asks a replica to introduce itself: on first contact in a term, and after a new
    /// incarnation of either side. Until the answer is in, what the replica says is not counted.
    AskHello {
        /// The leader's term.
        term: u64,
    },
    /// The introduction.
    Hello(Hello),
    /// A leader that has applied an entry of its own term after the replica's introduction tells a
    /// recovering replica what it must hold to be whole again (R1).
    RecoverTo {
        /// The leader's term.
        term: u64,
        /// Last index of the leader's log at that moment.
        index: u64,
        /// Term of that entry.
        index_term: u64,
    },
    /// The leader has found that the replica holds as committed what the leader's log contradicts
    /// (R2b): the replica sets its log aside.
    Contradicted {
        /// The leader's term.
        term: u64,
    },
    /// A recovering replica asks a voter what it holds (R2).
    AskReport {
        /// Distinguishes this round of questions from older ones.
        round: u64,
    },
    /// The answer to [`Body::AskReport`].
    Report(Report),
    /// A replica that is no voter any more and hears of no leader says what it knows to be committed.
    Committed {
        /// An index that is committed.
        index: u64,
        /// The term of its entry.
        index_term: u64,
    },
    /// A leader asks whether the term is still that one (L5).
    Probe {
        /// The leader's term.
        term: u64,
        /// Counts the leader's probes.
        sequence: u64,
    },
    /// The answer of a voter that knows no newer term.
    ProbeOk {
        /// The term asked for.
        term: u64,
        /// The probe answered.
        sequence: u64,
    },
}

/// A replica's introduction to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The leader's term that it answers.
    pub term: u64,
    /// Last index of the replica's log that is persisted.
    pub last_index: u64,
    /// Its commit index.
    pub commit: u64,
    /// The term of the entry at that index.
    pub commit_term: u64,
    /// Whether it may have lost acknowledged entries.
    pub recovering: bool,
    /// Whether some of its bytes are bad (R6). It votes, and is nobody's proof that another one may go.
    pub marred: bool,
}

/// What a voter holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The round of questions answered.
    pub round: u64,
    /// The voter's current term.
    pub term: u64,
    /// Term of its last entry.
    pub last_term: u64,
    /// Index of its last entry.
    pub last_index: u64,
    /// Whether it is whole (not recovering).
    pub whole: bool,
    /// A leader that it knows of, 0 for none.
    pub leader: u64,
    /// Index of the entry that made its applied configuration.
    pub conf_index: u64,
    /// That configuration: who asks may still have one whose members are gone.
    pub conf: Bytes,
}

/// The kinds of Raft message that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Raft's")]
pub enum RaftKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    Snapshot,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
}

/// A message of Raft, with entries in our form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Raft's")]
pub struct RaftMessage {
    pub kind: RaftKind,
    pub term: u64,
    pub log_term: u64,
    pub index: u64,
    pub commit: u64,
    pub commit_term: u64,
    pub reject: bool,
    pub reject_hint: u64,
    pub request_snapshot: u64,
    pub priority: i64,
    pub context: Bytes,
    pub entries: Vec<LogEntry>,
    pub snapshot: Option<SnapshotMessage>,
}

/// A snapshot is metadata only: where the log begins and what a replica that begins there must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMessage {
    /// Index of the entry before the first one.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The sender's applied configuration ...
    pub conf: Bytes,
    /// ... and the index of the entry that made it, which may lie above `index` (R4).
    pub conf_index: u64,
    /// Kafka offset of the first entry.
    pub offset: i64,
    /// The producer state of exactly the log up to `index`.
    pub producers: Bytes,
}
