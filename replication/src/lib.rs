//! Raft groups over partition logs, pure; and the runner that carries out what they decide.
//!
//! * `group` one Raft group: the library's `RawNode`, and the order of its writes
//! * `raft_log`, `raft_codec`, `conf`, `logger` between the library's types and ours
//! * `partition` what a produce is answered, what is visible, who waits
//! * `producers` sequences of batches that are appended and not yet applied
//! * `refused` batches that were refused for now: those behind them wait
//! * `handshake`, `peers`, `recovering` who is heard, and who is not whole
//! * `members` from the members that the controller wants to the next change
//! * `message` what replicas say to each other; `frame` the bytes that carry it between nodes
//! * `shard` a set of groups and its turn
//! * `mailbox` a state machine behind a lock that nobody waits for
//! * `lane` the way of a group's writes to its files, in the turn or through a writer thread
//! * `node` the node store and the logs: carries effects out, for the runner and the simulator alike
//! * `runtime` shards, mailboxes and the node, as the server uses them
//! * `founding` how a node comes to its cluster; `leaders` who leads what, by the word of the leaders
//! * `controller` the cluster's metadata as a state machine; `proposer` the numbers of its changes
//!
//! The crate opens no file or socket by itself, reads no clock and no random source: disk, time,
//! seed and messages are handed in.

#![forbid(unsafe_code)]

pub mod api;
pub mod asides;
pub mod conf;
pub mod config;
pub mod controller;
pub mod cut_off;
pub mod founding;
pub mod frame;
pub mod group;
mod handshake;
pub mod lane;
pub mod leaders;
pub mod lives;
mod logger;
pub mod mailbox;
pub mod members;
pub mod mending;
pub mod message;
pub mod node;
pub mod partition;
pub mod peers;
pub mod producers;
pub mod proposer;
pub mod raft_codec;
pub mod raft_log;
pub mod reconciler;
pub mod recovering;
mod refused;
pub mod replacement;
pub mod retry;
pub mod runtime;
pub mod scrub;
pub mod shard;
mod sync;
pub mod unreadable;
mod word;

pub use api::{
    Acks, CommittedBatch, Produce, ProduceError, ProduceOutcome, Produced, Progress, Published,
    Role, Ticket, VoterWord, Word,
};
pub use config::{CACHING_WINDOW, GroupConfig, GroupSettings};
pub use partition::PartitionHandle;
