//! What nodes ask each other, beside the messages of their replicas: prost messages in call frames.
//!
//! | Question | Asked of | Answer |
//! |---|---|---|
//! | Founding | every voter, by a node with an empty directory | who it is, and how it came to its cluster, if it did |
//! | Join | any node of a running cluster | the order to create a replica of group 0 |
//! | Propose | the node that leads group 0 | where in group 0's log the commands lie |
//! | Quorum | the node that leads group 0 | how far it knows the replicas of group 0 to be |
//! | Entry | a node with another replica of a group | an entry of its log, verified (R8) |
//! | Words | a node that leads groups | its word on each of them (R9) |
//! | Closed | the node that leads group 0 | that it knows: this node accepts nothing for a topic any more |

use bytes::Bytes;
use prost::{Message, Oneof};
use riverrun_replication::founding::{Known, MAX_BYTES};
use riverrun_replication::{VoterWord, Word};

/// A question.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum Question {
    #[prost(message, tag = "1")]
    Founding(AskFounding),
    #[prost(message, tag = "2")]
    Join(Join),
    #[prost(message, tag = "3")]
    Propose(Propose),
    #[prost(message, tag = "4")]
    Closed(Closed),
    #[prost(message, tag = "5")]
    Quorum(AskQuorum),
    #[prost(message, tag = "10")]
    Words(AskWords),
    #[prost(message, tag = "11")]
    Entry(AskEntry),
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum Reply {
    /// Why there is no other.
    #[prost(message, tag = "1")]
    Refused(Refused),
    #[prost(message, tag = "2")]
    Founding(Founding),
    #[prost(message, tag = "3")]
    Joined(Known),
    #[prost(message, tag = "4")]
    Proposed(Proposed),
    #[prost(message, tag = "5")]
    Noted(Noted),
    #[prost(message, tag = "6")]
    Quorum(Quorum),
    #[prost(message, tag = "11")]
    Words(Words),
    #[prost(message, tag = "12")]
    Entry(Entry),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct QuestionFrame {
    #[prost(oneof = "Question", tags = "1, 2, 3, 4, 5, 10, 11")]
    question: Option<Question>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ReplyFrame {
    #[prost(oneof = "Reply", tags = "1, 2, 3, 4, 5, 6, 11, 12")]
    reply: Option<Reply>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct AskFounding {
    /// The asking node's own line of voters, in the order of their ids.
    #[prost(string, tag = "1")]
    pub(crate) voters: String,
}

/// A node that is to found a cluster, or has.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Founding {
    #[prost(int32, tag = "1")]
    pub(crate) node: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) directory: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) voters: String,
    /// How it came to its cluster; nothing while it belongs to none.
    #[prost(message, optional, tag = "4")]
    pub(crate) known: Option<Known>,
}

/// A node that is not part of the cluster asks to be.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Join {
    /// Its registration: one batch of commands, as it would lie in group 0.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) registration: Bytes,
    /// Its replica of group 0 that is lost, on the same data directory; 0 where there is none (R17).
    #[prost(uint64, tag = "2")]
    pub(crate) lost: u64,
}

/// Commands to be written to group 0.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Propose {
    /// One record batch of commands.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) batch: Bytes,
}

/// Commands that were written to group 0.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Proposed {
    /// The offset of the first.
    #[prost(int64, tag = "1")]
    pub(crate) base_offset: i64,
}

/// A node accepts nothing for a topic any more: its replicas are gone.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Closed {
    #[prost(int32, tag = "1")]
    pub(crate) node: i32,
    /// The 16 bytes of each topic's id.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) topics: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Noted {}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct AskQuorum {}

/// What the leader of group 0 knows of its replicas.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Quorum {
    #[prost(int64, tag = "1")]
    pub(crate) high_watermark: i64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) replicas: Vec<QuorumReplica>,
}

/// How far one of them is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct QuorumReplica {
    #[prost(uint64, tag = "1")]
    pub(crate) replica: u64,
    #[prost(int64, tag = "2")]
    pub(crate) end_offset: i64,
    /// Since it was heard.
    #[prost(int64, tag = "3")]
    pub(crate) silent_ms: i64,
    /// Since it was heard with everything.
    #[prost(int64, tag = "4")]
    pub(crate) lagging_ms: i64,
}

/// An entry is asked of another replica of its group: this one's bytes are bad (R8).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct AskEntry {
    #[prost(uint64, tag = "1")]
    pub(crate) group: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) index: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) term: u64,
    /// Bytes of it that the asking node has already.
    #[prost(uint64, tag = "4")]
    pub(crate) from: u64,
}

/// An entry, or a piece of it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Entry {
    /// As the sidecar numbers it.
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    #[prost(int64, tag = "2")]
    pub(crate) base_offset: i64,
    #[prost(uint32, tag = "3")]
    pub(crate) last_offset_delta: u32,
    /// Bytes of the whole batch or payload.
    #[prost(uint64, tag = "4")]
    pub(crate) len: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) piece: Bytes,
}

/// The word of a leader on its groups is asked for (R9).
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct AskWords {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) groups: Vec<u64>,
}

/// The words of a leader, on those of the groups that it leads.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Words {
    #[prost(message, repeated, tag = "1")]
    pub(crate) words: Vec<WordMessage>,
}

/// See `riverrun_replication::Word`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct WordMessage {
    #[prost(uint64, tag = "1")]
    group: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(bool, tag = "3")]
    changing: bool,
    #[prost(message, repeated, tag = "4")]
    voters: Vec<VoterMessage>,
    #[prost(uint64, repeated, tag = "5")]
    learners: Vec<u64>,
    #[prost(int64, tag = "6")]
    high_watermark: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct VoterMessage {
    #[prost(uint64, tag = "1")]
    replica: u64,
    #[prost(bool, tag = "2")]
    whole: bool,
    #[prost(bool, tag = "3")]
    has_all: bool,
}

impl From<Word> for WordMessage {
    fn from(word: Word) -> Self {
        let voters = word.voters.into_iter().map(|voter| VoterMessage {
            replica: voter.replica,
            whole: voter.whole,
            has_all: voter.has_all,
        });
        Self {
            group: word.group,
            term: word.term,
            changing: word.changing,
            voters: voters.collect(),
            learners: word.learners,
            high_watermark: word.high_watermark,
        }
    }
}

impl From<WordMessage> for Word {
    fn from(word: WordMessage) -> Self {
        let voters = word.voters.into_iter().map(|voter| VoterWord {
            replica: voter.replica,
            whole: voter.whole,
            has_all: voter.has_all,
        });
        Self {
            group: word.group,
            term: word.term,
            changing: word.changing,
            voters: voters.collect(),
            learners: word.learners,
            high_watermark: word.high_watermark,
        }
    }
}

/// Why a question is not answered.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Refused {
    /// 1: this node does not lead group 0, and has written nothing.
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(string, tag = "2")]
    pub(crate) why: String,
    /// With [`Refused::OTHER_DIRECTORY`], which.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) directory: Vec<u8>,
}

impl Refused {
    pub(crate) const NOT_LEADER: u32 = 1;
    pub(crate) const OTHER: u32 = 2;
    /// Leadership of group 0 was lost, or there was too much to do: nobody knows whether it was written.
    pub(crate) const LOST: u32 = 3;

    /// The node that wants to join is there on another data directory.
    pub(crate) const OTHER_DIRECTORY: u32 = 4;

    pub(crate) fn reply(code: u32, why: impl ToString) -> Reply {
        Reply::Refused(Self {
            code,
            why: why.to_string(),
            directory: Vec::new(),
        })
    }

    pub(crate) fn not_leader() -> Reply {
        let why = "this node does not lead the controller's group";
        Self::reply(Self::NOT_LEADER, why)
    }

    pub(crate) fn other(why: impl ToString) -> Reply {
        Self::reply(Self::OTHER, why)
    }
}

impl Question {
    pub(crate) fn into_bytes(self) -> Bytes {
        let frame = QuestionFrame {
            question: Some(self),
        };
        frame.encode_to_vec().into()
    }

    /// `None` for anything that is no question of this version.
    pub(crate) fn from_bytes(bytes: Bytes) -> Option<Self> {
        QuestionFrame::decode(bytes).ok()?.question
    }
}

impl Reply {
    pub(crate) fn into_bytes(self) -> Bytes {
        let frame = ReplyFrame { reply: Some(self) };
        frame.encode_to_vec().into()
    }

    /// `None` for anything that is no answer of this version.
    pub(crate) fn from_bytes(bytes: Bytes) -> Option<Self> {
        if bytes.len() > MAX_BYTES {
            return None;
        }
        ReplyFrame::decode(bytes).ok()?.reply
    }
}
