//! Kafka's sparse indexes of a segment, and the rule by which they are written.
//!
//! ```text
//! .index      relative offset u32, position u32      of a batch: its last offset, where it begins
//! .timeindex  timestamp i64, relative offset u32     the largest timestamp so far, and the last
//!                                                    offset of the first batch that has it
//! ```
//!
//! All numbers are big endian, offsets relative to the segment's base. Which entries there are is a
//! function of the batches alone: an index that was lost is written again the same.

use byteorder::{BigEndian, ByteOrder};

/// Bytes of an entry of `.index`.
pub const OFFSET_ENTRY_LEN: usize = 8;
/// Bytes of an entry of `.timeindex`.
pub const TIME_ENTRY_LEN: usize = 12;

/// An entry of `.index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetEntry {
    /// Last offset of the batch minus the segment's base offset.
    pub relative_offset: u32,
    /// Where the batch begins in `.log`.
    pub position: u32,
}

impl OffsetEntry {
    /// The entry's bytes.
    pub fn encode_into(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    /// Reads an entry; zeros where the bytes are too few.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            relative_offset: bytes.get(..4).map_or(0, BigEndian::read_u32),
            position: bytes.get(4..8).map_or(0, BigEndian::read_u32),
        }
    }
}

/// An entry of `.timeindex`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeEntry {
    /// The largest timestamp up to this place, in milliseconds.
    pub timestamp: i64,
    /// Last offset of the first batch that has it, minus the segment's base offset.
    pub relative_offset: u32,
}

impl TimeEntry {
    /// The entry's bytes.
    pub fn encode_into(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    /// Reads an entry; zeros where the bytes are too few.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            timestamp: bytes.get(..8).map_or(0, BigEndian::read_i64),
            relative_offset: bytes.get(8..12).map_or(0, BigEndian::read_u32),
        }
    }
}

/// What an index needs to know of a batch.
#[derive(Debug, Clone, Copy)]
pub struct IndexedBatch {
    /// The last offset.
    pub last_offset: i64,
    /// The largest timestamp, or -1.
    pub max_timestamp: i64,
    /// Where it begins.
    pub position: u32,
    /// Its length.
    pub len: u32,
}

/// Both indexes of a segment, as they grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexes {
    base_offset: i64,
    /// Entries of `.index`.
    pub offset: Vec<OffsetEntry>,
    /// Entries of `.timeindex`.
    pub time: Vec<TimeEntry>,
    /// Bytes of batches since the last entry.
    bytes_since_entry: u64,
    /// The largest timestamp so far, -1 for none, and the last offset of the first batch that has it.
    pub max: TimeEntry,
    /// The largest timestamp of the first batch that has one.
    pub first_timestamp: Option<i64>,
}

impl Indexes {
    /// Those of an empty segment.
    #[must_use]
    pub fn new(base_offset: i64) -> Self {
        Self {
            base_offset,
            offset: Vec::new(),
            time: Vec::new(),
            bytes_since_entry: 0,
            max: TimeEntry {
                timestamp: -1,
                relative_offset: 0,
            },
            first_timestamp: None,
        }
    }

    /// Takes the next batch. Kafka's rule: once more than the interval has been written since the
    /// last entry, the next batch gets one, and the time index one with it if time has moved on.
    pub fn add(&mut self, batch: IndexedBatch, interval_bytes: u32) {
        let relative = u32::try_from(batch.last_offset - self.base_offset).unwrap_or(u32::MAX);
        if batch.max_timestamp > self.max.timestamp {
            self.max = TimeEntry {
                timestamp: batch.max_timestamp,
                relative_offset: relative,
            };
        }
        if self.first_timestamp.is_none() && batch.max_timestamp >= 0 {
            self.first_timestamp = Some(batch.max_timestamp);
        }
        if self.bytes_since_entry > u64::from(interval_bytes) {
            self.offset.push(OffsetEntry {
                relative_offset: relative,
                position: batch.position,
            });
            self.add_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += u64::from(batch.len);
    }

    fn add_time(&mut self) {
        if self.max.timestamp > self.time.last().map_or(-1, |last| last.timestamp) {
            self.time.push(self.max);
        }
    }

    /// Ends the segment: its largest timestamp gets an entry.
    pub fn seal(&mut self) {
        self.add_time();
    }

    /// The bytes of `.index` from entry `from` on.
    #[must_use]
    pub fn offset_bytes(&self, from: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in self.offset.get(from..).unwrap_or_default() {
            entry.encode_into(&mut out);
        }
        out
    }

    /// The bytes of `.timeindex` from entry `from` on.
    #[must_use]
    pub fn time_bytes(&self, from: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in self.time.get(from..).unwrap_or_default() {
            entry.encode_into(&mut out);
        }
        out
    }

    /// Where to begin looking for the batch that holds an offset.
    #[must_use]
    pub fn position_of(&self, offset: i64) -> u32 {
        let relative = u32::try_from((offset - self.base_offset).max(0)).unwrap_or(u32::MAX);
        let after = self
            .offset
            .partition_point(|entry| entry.relative_offset <= relative);
        after
            .checked_sub(1)
            .and_then(|at| self.offset.get(at))
            .map_or(0, |entry| entry.position)
    }

    /// The newest entry of the time index that is below a timestamp.
    #[must_use]
    pub fn time_below(&self, timestamp: i64) -> Option<TimeEntry> {
        let after = self
            .time
            .partition_point(|entry| entry.timestamp < timestamp);
        self.time.get(after.checked_sub(1)?).copied()
    }
}

/// How many entries at the front of index bytes satisfy `holds`, which is true for none behind one
/// for which it is false.
#[must_use]
pub fn partition_entries(
    bytes: &[u8],
    entry_len: usize,
    mut holds: impl FnMut(&[u8]) -> bool,
) -> usize {
    let (mut low, mut high) = (0, bytes.len() / entry_len.max(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = bytes.get(middle * entry_len..).unwrap_or_default();
        if holds(entry) {
            low = middle + 1
        } else {
            high = middle
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_written_by_kafkas_rule() {
        let mut indexes = Indexes::new(100);
        // Five batches of 100 bytes with two offsets each and an interval of 150 bytes: the third
        // and the fifth get entries, each behind more than 150 bytes.
        for (n, timestamp) in [10, 50, 30, 40, 60].into_iter().enumerate() {
            let n = u32::try_from(n).unwrap_or_default();
            indexes.add(
                IndexedBatch {
                    last_offset: 101 + 2 * i64::from(n),
                    max_timestamp: timestamp,
                    position: n * 100,
                    len: 100,
                },
                150,
            );
        }
        let entry = |relative_offset, position| OffsetEntry {
            relative_offset,
            position,
        };
        let time = |timestamp, relative_offset| TimeEntry {
            timestamp,
            relative_offset,
        };
        assert_eq!(indexes.offset, [entry(5, 200), entry(9, 400)]);
        assert_eq!(indexes.time, [time(50, 3), time(60, 9)]);
        indexes.seal();
        assert_eq!(indexes.time.len(), 2, "the largest is there already");
        assert_eq!(indexes.position_of(100), 0);
        assert_eq!(indexes.position_of(105), 200);
        assert_eq!(indexes.position_of(1000), 400);
        assert_eq!(indexes.time_below(50), None);
        assert_eq!(indexes.time_below(51), Some(time(50, 3)));
        assert_eq!(indexes.first_timestamp, Some(10));
        let bytes = indexes.offset_bytes(1);
        assert_eq!(OffsetEntry::decode(&bytes), entry(9, 400));
        assert_eq!(TimeEntry::decode(&indexes.time_bytes(0)), time(50, 3));
        let all = indexes.offset_bytes(0);
        let below = |bytes: &[u8]| OffsetEntry::decode(bytes).relative_offset <= 5;
        assert_eq!(partition_entries(&all, OFFSET_ENTRY_LEN, below), 1);
    }
}
