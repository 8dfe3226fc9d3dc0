//! Administration of topics, and questions about offsets and the cluster.

mod configs;
mod offsets;
mod quorum;
mod topics;

pub use self::{
    configs::{ConfigEntry, ConfigSource},
    offsets::{ListedOffset, OffsetSpec, TopicPartition},
    quorum::{QuorumInfo, QuorumReplica},
    topics::{ClusterInfo, CreatedTopic, NewTopic},
};
