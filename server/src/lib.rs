//! The broker: listeners, Kafka's APIs, topics and settings of one node.
//!
//! What this crate is: the part between sockets and partitions. What it is not: it knows neither
//! segment files nor Raft; it touches a log only through `riverrun-replication`'s handles.
//!
//! | File | Thing |
//! |---|---|
//! | `broker` | the parts of a running node, and what handlers ask of it |
//! | `start` | in which order the parts come up and go down |
//! | `catalog` | the controller's image on this node, and how it is changed |
//! | `checkpointer` | that image as a file beside group 0's log |
//! | `reconcile` | makes the node what the image says |
//! | `topics`, `partition`, `quorum` | what requests see |
//! | `watched` | starts every thread and task; what comes of the end of each |
//! | `hooks`, `internal` | completions from replication, for connections and for ourselves |
//! | `cluster/` | the node as one of several: founding, joining, who leads what |
//! | `peers/` | connections between nodes |
//! | `net/` | sockets, frames, answer slots, memory |
//! | `kafka/` | the API table and one file for each API |
//! | `config/` | the tables of settings |
//! | `error` | the one place where anything becomes a Kafka error code |
//!
//! What must never be true:
//! - an answer leaves before an earlier request of its connection was answered;
//! - a byte of a request's body is read into memory that the budget has not given;
//! - a thread waits for a shard's lock, or steps a shard while it carries out another's effects;
//! - a setting is stored and has no effect.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod broker;
mod catalog;
mod checkpointer;
mod cluster;
pub mod config;
mod descriptors;
#[cfg(test)]
mod dropped;
mod error;
mod hooks;
mod internal;
mod kafka;
mod net;
mod partition;
mod peers;
mod quorum;
mod reconcile;
mod reopen;
mod repair;
mod scrub;
mod start;
#[cfg(test)]
mod testing;
mod topics;
mod watched;

pub use config::Config;
pub use error::StartError;
pub use start::{Running, run, start};
