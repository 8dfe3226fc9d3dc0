//! An append-only partition log on disk, and the node's own store beside it.
//!
//! This crate knows files, record batches and indexes. It knows nothing of Kafka requests, of Raft's
//! types or of tokio, and never spawns a task.

pub mod descriptors;
pub mod disk;
pub mod entry;
pub mod format;
pub mod log;
pub mod node;
#[doc(hidden)]
pub mod planted;
pub mod producer_state;
pub mod recovered;

pub use disk::{DirEntry, Disk, DiskFile, LenientDisk, MemDisk, OpenMode, StdDisk};
pub use entry::{EntryKind, LogEntry};
pub use log::{
    Appended, BadEntry, EntryMeta, Fetched, KnownProducers, Log, LogConfig, LogError, LogFlush,
    LogReader, LogResult, LogSync, Recovery, Scrubbed, Scrubber, TimestampOffset,
};
pub use producer_state::{
    BadSnapshot, ProducerBatch, ProducerState, REMEMBERED_BATCHES, SequenceVerdict,
};
pub use recovered::{FileTrust, GroupRecord, HardState, LogIdentity, LogStart, StoredConf};
