//! What the node store knows of a group when the process starts: the input of a log's recovery.

use bytes::Bytes;
use uuid::Uuid;

use crate::entry::LogEntry;

/// Who a log belongs to. Written in its files and in the node WAL; never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// The Raft group; 0 is the controller's own.
    pub group: u64,
    /// The replica of the group that this log is; never used again after the log was lost (I7).
    pub replica: u64,
    /// The topic, from which the directory's name is made.
    pub topic_id: Uuid,
    /// The partition of the topic.
    pub partition: i32,
}

/// Where a log begins: the last entry before its first one, and the first Kafka offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStart {
    /// Index of the entry before the first; 0 for a log that begins at index 1.
    pub prev_index: u64,
    /// Term of that entry.
    pub prev_term: u64,
    /// Kafka offset of the first entry.
    pub offset: i64,
}

/// A Raft hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// The replica voted for in that term, 0 for none.
    pub vote: u64,
    /// The commit index as last stored; may lag behind the true one.
    pub commit: u64,
}

/// A Raft configuration with the index of the entry that made it (R4), in the encoding of the
/// replication crate, opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredConf {
    /// Index of the configuration entry; may lie above or below the log.
    pub index: u64,
    /// The encoded configuration.
    pub bytes: Bytes,
}

/// What a failed flush has left of a log's files (W8). The disk may hold other bytes than the cache,
/// on pages that count as clean, so files that are not sound are written anew, into new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u32)]
pub enum FileTrust {
    /// Nothing is known against them.
    #[default]
    Sound = 0,
    /// An opening of the log failed, perhaps at a sync. The stored durable index may be one round
    /// behind, so all that they hold may have been acknowledged, and counts as at any opening.
    Suspect = 1,
    /// A flush has failed. What they hold above the durable index counts as lost.
    Poisoned = 2,
}

/// All that the node WAL says of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// Whose it is.
    pub identity: LogIdentity,
    /// Where the log was created, or last reset by a snapshot (with the reset's cut below).
    pub start: LogStart,
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The applied configuration.
    pub conf: StoredConf,
    /// Every entry at or below this index was durable in its file or in the WAL when it was
    /// written (I6). At most one flush round behind the truth.
    pub durable_index: u64,
    /// Whether entries may have been acknowledged from memory (`write.caching`): R2.
    pub may_be_short: bool,
    /// Whether the replica was recovering (R1) when it stopped.
    pub recovering: bool,
    /// What a failed flush has left of the files (W8).
    pub trust: FileTrust,
    /// The sidecars were synced with a record of every entry up to this index, 0 for none (R13).
    pub sidecar_synced: u64,
    /// A cut whose files may not have been cut: it is carried out before anything is merged (W2).
    pub unfinished_cut: Option<u64>,
    /// Entries that the WAL still holds and that no later cut killed, in index order, one each.
    pub entries: Vec<LogEntry>,
}
