//! The library's view of a group's log: the file for what is committed and persisted here, memory
//! for the tail above it.
//!
//! INVARIANT (I3, W9): the file is read only at indexes that were released from the tail, and only
//! indexes at or below min(commit, written and persisted here) are ever released.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use riverrun_storage::{LogEntry, LogError, LogReader, LogStart};

use crate::conf;
use crate::message::SnapshotMessage;
use crate::raft_codec::{snapshot_to_raft, to_raft};

/// The log of one group as Raft reads it.
#[derive(Debug)]
pub struct RaftLog {
    reader: LogReader,
    start: LogStart,
    /// Index of the last entry that is read from the file; the tail begins behind it.
    floor: u64,
    /// The next Kafka offset behind that entry.
    floor_offset: i64,
    tail: VecDeque<LogEntry>,
    tail_bytes: usize,
    initial: RaftState,
    /// The applied configuration and the index of the entry that made it.
    applied_conf: (u64, ConfState),
    /// The producer state of exactly the log below its first index, where it is known.
    head_producers: Option<bytes::Bytes>,
}

/// What recovery found of a log.
#[derive(Debug)]
pub struct Recovered {
    /// Reads of the files.
    pub reader: LogReader,
    /// Where the log begins.
    pub start: LogStart,
    /// Index of the last entry that is read from the files.
    pub floor: u64,
    /// The next Kafka offset behind that entry.
    pub floor_offset: i64,
    /// What follows it.
    pub tail: VecDeque<LogEntry>,
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The configuration and the index of its entry.
    pub conf: (u64, ConfState),
    /// The producer state of exactly the log below its first index, encoded; none where it cannot be read.
    pub head_producers: Option<bytes::Bytes>,
}

impl RaftLog {
    /// The log as recovery left it.
    #[must_use]
    pub fn new(recovered: Recovered) -> Self {
        let Recovered {
            reader,
            start,
            floor,
            floor_offset,
            tail,
            hard_state,
            conf,
            head_producers,
        } = recovered;
        let tail_bytes = tail.iter().map(|e| e.payload.len()).sum();
        let initial = RaftState::new(hard_state, conf.1.clone());
        Self {
            reader,
            start,
            floor,
            floor_offset,
            tail,
            tail_bytes,
            initial,
            applied_conf: conf,
            head_producers,
        }
    }

    /// Where the log begins.
    #[must_use]
    pub fn start(&self) -> LogStart {
        self.start
    }

    /// Index of the last entry, persisted or not.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.floor + self.tail.len() as u64
    }

    /// The next free Kafka offset behind the last entry.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        match self.tail.back() {
            Some(entry) => entry.next_offset(),
            None => self.floor_offset,
        }
    }

    /// The next Kafka offset behind the entry of an index that the log holds.
    ///
    /// # Errors
    /// Where that lies in the file and cannot be read.
    pub fn offset_after(&self, index: u64) -> Result<i64, LogError> {
        match self.offset_in_memory(index) {
            Some(offset) => Ok(offset),
            None => self.reader.offset_after(index),
        }
    }

    /// The same where it needs no reading: at the log's start, and from what is committed and in the file on.
    #[must_use]
    pub fn offset_in_memory(&self, index: u64) -> Option<i64> {
        if index <= self.start.prev_index {
            return Some(self.start.offset);
        }
        if index == self.floor {
            return Some(self.floor_offset);
        }
        self.tail_entry(index).map(LogEntry::next_offset)
    }

    /// The entry of an index where it is still in memory.
    #[must_use]
    pub fn tail_entry(&self, index: u64) -> Option<&LogEntry> {
        self.tail
            .get(usize::try_from(index.checked_sub(self.floor + 1)?).ok()?)
    }

    /// The entries in memory above an index.
    pub fn tail_above(&self, index: u64) -> impl Iterator<Item = &LogEntry> {
        let skip = index.saturating_sub(self.floor);
        self.tail
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    /// Bytes held in memory.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Drops the entries at and above `from`, all of which must be in memory.
    pub fn cut(&mut self, from: u64) {
        while self.tail.back().is_some_and(|e| e.index >= from) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= entry.payload.len();
            }
        }
        assert!(
            self.last() < from,
            "the tail holds every entry above commit"
        );
    }

    /// Adds the next entry.
    pub fn push(&mut self, entry: LogEntry) {
        assert_eq!(entry.index, self.last() + 1, "indexes are dense (I2)");
        self.tail_bytes += entry.payload.len();
        self.tail.push_back(entry);
    }

    /// Lets go of the entries at or below `through`, which are committed, written and persisted.
    pub fn release(&mut self, through: u64) {
        while self.floor < through
            && let Some(entry) = self.tail.pop_front()
        {
            self.tail_bytes -= entry.payload.len();
            self.floor = entry.index;
            self.floor_offset = entry.next_offset();
        }
    }

    /// Begins again behind a snapshot.
    pub fn reset(&mut self, start: LogStart, head_producers: bytes::Bytes) {
        self.tail.clear();
        self.tail_bytes = 0;
        self.start = start;
        self.floor = start.prev_index;
        self.floor_offset = start.offset;
        self.head_producers = Some(head_producers);
    }

    /// The head of the file was dropped.
    pub fn set_start(&mut self, start: LogStart, head_producers: bytes::Bytes) {
        self.start = start;
        self.head_producers = Some(head_producers);
    }

    /// A configuration was applied.
    pub fn set_applied_conf(&mut self, index: u64, conf: ConfState) {
        self.applied_conf = (index, conf);
    }

    /// The applied configuration and its index.
    #[must_use]
    pub fn applied_conf(&self) -> &(u64, ConfState) {
        &self.applied_conf
    }

    /// The term of an index, where the log holds it.
    #[must_use]
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.start.prev_index {
            return Some(self.start.prev_term);
        }
        if index < self.start.prev_index || index > self.last() {
            return None;
        }
        match self.tail_entry(index) {
            Some(entry) => Some(entry.term),
            None => self.reader.term(index),
        }
    }
}

fn other(error: impl std::fmt::Display) -> raft::Error {
    raft::Error::Store(StorageError::Other(error.to_string().into()))
}

impl Storage for RaftLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.start.prev_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let mut left = max_size.into().unwrap_or(u64::MAX);
        let mut out: Vec<Entry> = Vec::new();
        let in_file = high.min(self.floor + 1);
        if low < in_file {
            let read = self.reader.entries(low, in_file, left);
            let read = read.map_err(|error| match error {
                // A follower that needs what cannot be read waits for it; no other does (R7).
                LogError::BadBatch { .. }
                | LogError::Damaged { .. }
                | LogError::Absent { .. }
                | LogError::Io { .. }
                    if context.can_async() =>
                {
                    raft::Error::Store(StorageError::LogTemporarilyUnavailable)
                }
                error => other(error),
            })?;
            for entry in read {
                left = left.saturating_sub(entry.payload.len() as u64);
                out.push(to_raft(&entry));
            }
            if low + (out.len() as u64) < in_file {
                return Ok(out);
            }
        }
        for entry in self.tail_above(low.max(in_file) - 1) {
            let bytes = entry.payload.len() as u64;
            if entry.index >= high || (!out.is_empty() && bytes > left) {
                break;
            }
            left = left.saturating_sub(bytes);
            out.push(to_raft(entry));
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.start.prev_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.term_of(index)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.prev_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let unavailable = || raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        if self.start.prev_index == 0 || request_index > self.start.prev_index {
            return Err(unavailable());
        }
        snapshot_to_raft(&SnapshotMessage {
            index: self.start.prev_index,
            term: self.start.prev_term,
            conf: conf::encode_conf(&self.applied_conf.1),
            conf_index: self.applied_conf.0,
            offset: self.start.offset,
            producers: self.head_producers.clone().ok_or_else(unavailable)?,
        })
        .map_err(other)
    }
}
