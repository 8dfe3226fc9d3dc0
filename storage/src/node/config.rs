//! Settings of the node store, what a start tells it, and what it tells a start.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::wal::chain::ChainEnd;
use crate::recovered::{GroupRecord, LogIdentity};

/// Settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Size of the WAL file, at least 32 KiB. Fixed when the directory is founded: a start that is given
    /// another one says that it counts for new directories only.
    pub wal_bytes: u64,
    /// A round with no more data than this is small: its data goes through the WAL.
    pub small_round_max_bytes: u64,
    /// A round that would have to sync at least this many files ...
    pub many_files: usize,
    /// ... is small up to this much data: many files take longer to sync than their bytes.
    pub many_files_max_bytes: u64,
    /// Up to this many files of a bulk round are synced one after another by the flusher itself.
    pub inline_files: usize,
    /// Up to this many on the flush pool; more by one sync of the whole file system.
    pub pool_files: usize,
    /// Threads of the flush pool; 0 syncs everything inline, as a simulation must.
    pub flush_threads: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            wal_bytes: 64 * 1024 * 1024,
            small_round_max_bytes: 256 * 1024,
            many_files: 5,
            many_files_max_bytes: 2 * 1024 * 1024,
            inline_files: 2,
            pool_files: 64,
            flush_threads: 16,
        }
    }
}

/// What this start of the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's boot id: the page cache has lost nothing while it is the same (R2).
    pub kernel_boot_id: String,
    /// The configured node id.
    pub node_id: i32,
    /// The directory id to take if the directory is empty; randomness is an input.
    pub new_directory_id: Uuid,
    /// What tells this start from one of a copy of the directory (R3); randomness is an input.
    pub start_token: u64,
}

/// Damage in the WAL: records that had been synced cannot be read (W3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalDamage {
    /// The bad stretches as (first byte in the file, bytes until the next good record).
    pub places: Vec<(u64, u64)>,
    /// Groups whose records may be among the missing: their `recovering` flag is set.
    pub affected: Vec<u64>,
    /// Groups (with replica) of which so much is missing that nothing can be recovered: lost (R3).
    pub lost: Vec<(u64, u64)>,
}

/// What a start found.
#[derive(Debug, Clone)]
pub struct NodeRecovery {
    /// The directory's id.
    pub directory_id: Uuid,
    /// The cluster, if it is known.
    pub cluster_id: Option<Uuid>,
    /// The number of this start.
    pub incarnation: u64,
    /// Whether the directory was founded just now.
    pub founded: bool,
    /// Whether the last process stopped without the clean mark and the kernel has been started
    /// since: what was in the page cache may be gone (R2).
    pub unclean_power_loss: bool,
    /// Every group that was created and not removed.
    pub groups: BTreeMap<u64, GroupRecord>,
    /// Replicas whose removal the WAL still shows; their files may be there.
    pub removed: Vec<LogIdentity>,
    /// Damage in the WAL or its side files.
    pub damage: Option<WalDamage>,
    /// Records that were replayed.
    pub replayed_records: usize,
    /// How the WAL ended.
    pub wal_end: ChainEnd,
}
