//! The messages: one file for each API, each with its request, its response and their structs.
//!
//! Structs inside a message keep Kafka's names, of which some repeat, so they are reached through
//! their API's module: `produce::NodeEndpoint` and `fetch::NodeEndpoint` are two types.

pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;

macro_rules! exports {
    ($( $Name:ident = $number:literal, $versions:expr, flexible $flexible:literal,
        $module:ident::{$Request:ident, $Response:ident}; )*) => {
        $( pub use $module::{$Request, $Response}; )*
    };
}

crate::api_key::api_table!(exports);
