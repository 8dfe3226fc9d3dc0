//! One entry of a group's log, as it is handed to and read back from the disk.

use bytes::Bytes;

/// What an entry is. The number is the one stored in the `.raft` sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Exactly one record batch (I1). The only kind, with [`EntryKind::Hole`], that moves the offset.
    Data = 0,
    /// The empty entry that opens a term, or a configuration change that was refused.
    Noop = 1,
    /// A configuration change, in our own encoding.
    Conf = 2,
    /// A command to the partition itself, such as closing it.
    Command = 3,
    /// What is left of a batch that compaction removed: its offsets, no bytes.
    Hole = 4,
}

impl EntryKind {
    /// The kind of a stored number.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Data,
            1 => Self::Noop,
            2 => Self::Conf,
            3 => Self::Command,
            4 => Self::Hole,
            _ => return None,
        })
    }

    /// Whether the entry takes Kafka offsets (I2).
    #[must_use]
    pub fn moves_offset(self) -> bool {
        matches!(self, Self::Data | Self::Hole)
    }
}

/// One log entry. `payload` is the stamped record batch of a data entry, the encoded change or
/// command of the others, and empty for no-ops and holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Raft index, dense (I2).
    pub index: u64,
    /// Raft term; of a data entry also the batch's partition leader epoch (I1).
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Of a data entry or hole its first Kafka offset; of the others the next offset of the log
    /// before it.
    pub base_offset: i64,
    /// Last offset minus first offset of a data entry or hole; 0 for the others.
    pub last_offset_delta: u32,
    /// The bytes.
    pub payload: Bytes,
}

impl LogEntry {
    /// The next free Kafka offset behind this entry.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        if self.kind.moves_offset() {
            self.base_offset + i64::from(self.last_offset_delta) + 1
        } else {
            self.base_offset
        }
    }
}
