//! Administration of topics, and questions about offsets.

mod configs;
mod offsets;
mod topics;

pub use self::{
    configs::{ConfigEntry, ConfigSource},
    offsets::{ListedOffset, OffsetSpec, TopicPartition},
    topics::{ClusterInfo, CreatedTopic, NewTopic},
};
