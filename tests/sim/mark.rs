//! One log entry, as much of it as is needed to know it again.

use riverrun_record::BatchView;
use riverrun_storage::{EntryKind, LogEntry};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Its first offset, or the one that comes next.
    pub base_offset: i64,
    /// Offsets that it takes, less one.
    pub last_offset_delta: u32,
    /// The batch's id, 0 where it is none.
    pub batch: i64,
    /// The batch's checksum, or that of the payload.
    pub crc: u32,
    /// The idempotent producer, -1 for none.
    pub producer: i64,
    /// Its epoch, first and last sequence.
    pub sequence: (i16, i32, i32),
}

impl Mark {
    /// The mark of an entry.
    #[must_use]
    pub fn of(entry: &LogEntry) -> Self {
        let mut mark = Self {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            base_offset: entry.base_offset,
            last_offset_delta: entry.last_offset_delta,
            batch: 0,
            crc: 0,
            producer: -1,
            sequence: (-1, -1, -1),
        };
        match BatchView::parse(&entry.payload) {
            Ok(view) if entry.kind == EntryKind::Data => {
                mark.batch = view.base_timestamp();
                mark.crc = view.crc();
                mark.producer = view.producer_id();
                mark.sequence = (
                    view.producer_epoch(),
                    view.base_sequence(),
                    view.last_sequence(),
                );
            }
            _ => mark.crc = crc32fast::hash(&entry.payload),
        }
        mark
    }

    /// Whether it is a record batch.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.kind == EntryKind::Data
    }

    /// The offset behind it.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        if self.kind.moves_offset() {
            self.base_offset + i64::from(self.last_offset_delta) + 1
        } else {
            self.base_offset
        }
    }
}
