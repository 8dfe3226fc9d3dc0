//! The settings of groups, with their units.

use std::time::Duration;

/// [`GroupConfig::caching_window`] unless a setting says otherwise. A round begins within 100 ms, and on a disk
/// that is not overloaded it ends long before this is over.
pub const CACHING_WINDOW: Duration = Duration::from_millis(250);

/// How a group elects and replicates. All nodes of a cluster use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupConfig {
    /// Ticks without a leader after which a follower campaigns at the earliest; at the latest twice
    /// as many.
    pub election_ticks: usize,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// Most bytes of entries in one append message, unless one entry is larger.
    pub max_message_bytes: u64,
    /// Most append messages under way to one replica.
    pub max_inflight_messages: usize,
    /// Most bytes proposed and not committed; above it proposals are refused.
    pub max_uncommitted_bytes: u64,
    /// Most bytes of committed entries applied at once.
    pub max_committed_bytes: u64,
    /// Bytes written and not flushed at which a `write.caching` group asks for a flush round.
    pub caching_flush_bytes: usize,
    /// Ticks after which a `write.caching` group with unflushed bytes asks for a flush round.
    pub caching_flush_ticks: usize,
    /// How old the oldest byte that is written and not synced may be in a `write.caching` group while something
    /// is acknowledged from memory: a power cut takes what was acknowledged in a stretch of this length at most.
    pub caching_window: Duration,
    /// Ticks within which a replica must have been heard with all that its leader has, to be in sync
    /// (`replica.lag.time.max.ms`).
    pub lag_ticks: u32,
    /// The source of election timeouts: the same seed replays the same elections.
    pub seed: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            election_ticks: 10,
            heartbeat_ticks: 2,
            max_message_bytes: 512 << 10,
            max_inflight_messages: 32,
            max_uncommitted_bytes: 32 << 20,
            max_committed_bytes: 8 << 20,
            caching_flush_bytes: 4 << 20,
            caching_flush_ticks: 2,
            caching_window: CACHING_WINDOW,
            lag_ticks: 600,
            seed: 0,
        }
    }
}

/// What a topic's settings mean to one of its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// Segments and indexes.
    pub log: riverrun_storage::LogConfig,
    /// Acknowledge from the memory of a majority (`write.caching`).
    pub write_caching: bool,
    /// `min.insync.replicas`; at or below the majority it changes nothing.
    pub min_insync_replicas: u32,
    /// `flush.messages`: with `write.caching`, records after which a flush round is asked for.
    pub flush_messages: u64,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            log: riverrun_storage::LogConfig::default(),
            write_caching: false,
            min_insync_replicas: 1,
            flush_messages: u64::MAX,
        }
    }
}
