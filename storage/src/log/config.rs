//! How a log is cut into segments and indexed.

/// The largest segment that may be configured: positions within one are 31 bits for Kafka's tools.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// The settings of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is ended before a batch that would make its `.log` longer than this. A batch that
    /// is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// A segment is ended before a batch whose largest timestamp is this much above that of the
    /// segment's first batch, in milliseconds.
    pub segment_ms: i64,
    /// Bytes of batches between two entries of the offset index.
    pub index_interval_bytes: u32,
    /// A segment is ended when one of its indexes is this long.
    pub index_max_bytes: u32,
    /// Whether blocks are reserved ahead, so that a full disk is met before a write and not in it.
    pub preallocate: bool,
    /// Whether opening checks every byte of every segment, and not only of those that were not yet
    /// known to be durable.
    pub scrub_on_open: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            index_interval_bytes: 4096,
            index_max_bytes: 10 << 20,
            preallocate: true,
            scrub_on_open: false,
        }
    }
}

impl LogConfig {
    /// Segments of 4 KiB with an index entry every 256 bytes, everything checked: what is rare in a
    /// real log happens all the time in a test.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            segment_bytes: 4096,
            segment_ms: i64::MAX,
            index_interval_bytes: 256,
            index_max_bytes: 4096,
            preallocate: false,
            scrub_on_open: true,
        }
    }
}
