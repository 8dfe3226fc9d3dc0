//! What comes of a command, and why one is refused.

use uuid::Uuid;

/// What an applied command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// It was in effect already.
    Unchanged,
    /// A topic was created, or partitions were added to it: the new groups, in partition order.
    Partitions {
        /// The topic.
        topic: Uuid,
        /// Number of the first new partition.
        first_partition: usize,
        /// The first new group; the others follow one by one.
        first_group: u64,
        /// How many.
        count: usize,
    },
    /// Producer ids were given out.
    ProducerIds {
        /// The first.
        first: i64,
        /// How many.
        count: u32,
    },
    /// A replica was replaced.
    Replaced {
        /// The group.
        group: u64,
        /// The replica that is gone.
        old: u64,
        /// The one in its place.
        new: u64,
    },
    /// It was refused and changed nothing.
    Rejected(Rejection),
}

/// Why a request or a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is its own message")]
pub enum Rejection {
    #[error("a topic of this name exists")]
    TopicExists,
    #[error("topic name {name:?} is not allowed: {why}")]
    InvalidTopicName { name: String, why: &'static str },
    #[error("topic name collides with topic {other:?}: the two differ only in '.' and '_'")]
    CollidingTopicName { other: String },
    #[error("{count} partitions: give from 1 to {most}")]
    InvalidPartitions { count: i64, most: usize },
    #[error(
        "replication factor {asked} with {brokers} usable brokers: give from 1 to that, at most {most}"
    )]
    InvalidReplicationFactor {
        asked: usize,
        brokers: usize,
        most: usize,
    },
    #[error(
        "{asked} more replicas for node {node}, which may have {descriptors} files and sockets open and so \
         has room for {most} replicas, {have} of them taken: give it more (ulimit -n) and start it again, or \
         ask for fewer partitions"
    )]
    NoRoom {
        node: i32,
        asked: usize,
        descriptors: u64,
        most: u32,
        have: usize,
    },
    #[error("replica assignment: {why}")]
    InvalidAssignment { why: &'static str },
    #[error("setting {name:?}: {why}")]
    InvalidConfig { name: String, why: &'static str },
    #[error("no such topic")]
    UnknownTopic,
    #[error("the topic is being deleted")]
    TopicClosing,
    #[error("the topic is not marked as being deleted")]
    TopicNotClosing,
    #[error("the partition's replicas are moving")]
    Moving,
    #[error("no such broker")]
    UnknownBroker,
    #[error("no such replica")]
    UnknownReplica,
    #[error("the replicas of the partition are not those any more on whose word it was ordered")]
    OldWord,
    #[error(
        "incarnation {given} of a data directory that has been seen with {seen}: a restored disk"
    )]
    StaleIncarnation { given: u64, seen: u64 },
    #[error("the data directory belongs to node {node}")]
    DirectoryOfAnotherNode { node: i32 },
    #[error("node {node} is there on another data directory, {directory}")]
    OtherDirectory { node: i32, directory: Uuid },
    #[error("the cluster has another id")]
    OtherCluster,
    #[error("a field of the command makes no sense: {what}")]
    Malformed { what: &'static str },
    #[error("the numbers of this kind are used up")]
    Exhausted,
}
