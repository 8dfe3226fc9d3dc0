//! The node's own store: its identity, and the node WAL that every flush round of all its groups
//! goes through.
//!
//! # A flush round
//! 1. [`NodeStore::begin_round`] takes what many groups want durable, lays the round's records into
//!    the WAL with one write, and decides for each log whether its data goes into the WAL too
//!    (*small*) or its files are synced beside it (*bulk*).
//! 2. [`Round::sync`] waits for the disk. Every round syncs the WAL (W1).
//! 3. [`NodeStore::end_round`] takes note. What a bulk round has made durable is recorded by the next
//!    round; where there is none, [`NodeStore::needs_idle_round`] asks for an empty one.
//!
//! One round at a time: it starts when the last one has ended. A round is replayed whole or not at
//! all.
//!
//! # A checkpoint
//! The WAL is a ring. [`NodeStore::begin_checkpoint`] collects the logs whose entries lie in it,
//! [`Checkpoint::sync`] makes their files durable, on any thread and beside the rounds; then the next
//! round writes the state of all groups forward, and the one after it moves the start mark. A log
//! that cannot be synced has its entries moved to a side file (W6). A round that finds no room does
//! all this itself first.
//!
//! # File map
//! - [`identity`]: who the directory is, incarnation, clean mark. - [`wal`]: the ring.
//! - `image`: what the records mean. - `round`, `checkpoint`: see above. - `shape`: what goes where. - `boot`: what a start does.
//! - `side`: side files. - `occupied`: what stands in the way of founding.
//! - [`survey()`]: what a boot would find, without being one. - `target`: what is asked of a log.
//! - `pool`: threads that wait for syncs.
//!
//! # What must never be true
//! A live record written over (W3); a stored durable index above what is durable (I6); a record of a
//! torn tail replayed by a later boot (W3); a cut repeated that was recorded as done (W2).

mod boot;
mod checkpoint;
mod config;
mod error;
pub mod identity;
mod image;
mod occupied;
mod pool;
mod retire;
mod round;
mod shape;
mod side;
mod store;
mod survey;
mod target;
pub mod wal;

pub use checkpoint::{Checkpoint, CheckpointResult};
pub use config::{Boot, NodeConfig, NodeRecovery, WalDamage};
pub use error::{NodeError, WalFailed};
pub use identity::{
    IdentitySlot, MAX_STARTS, NodeIdentity, StandingDamage, Start, WalEnd, read_identity,
    read_identity_slots,
};
pub use retire::{PREFIX as SET_ASIDE_PREFIX, Retirement};
pub use round::{Round, RoundItem, RoundResult};
pub use side::{MAGIC as SIDE_MAGIC, parse_side_name, read_side};
pub use store::NodeStore;
pub use survey::{Survey, survey};
pub use target::SyncTarget;
pub use wal::Flags;

/// The node store's folder in a data directory.
pub const NODE_DIR: &str = "node";
/// The name of the WAL in it.
pub const WAL_FILE: &str = "wal";
/// The name of the identity file in it.
pub const IDENTITY_FILE: &str = "identity";
/// The name of the file whose lock a process holds.
pub const LOCK_FILE: &str = "lock";
