//! What the log knows of idempotent producers: the last batches of each, by which a retry is told
//! from a new batch, and a gap from the next one. The rules are Apache Kafka's.
//!
//! Two forms are stored. Kafka's own `.snapshot` (below) keeps one batch a producer:
//!
//! ```text
//! version i16 = 1 | crc u32 (CRC-32C of what follows) | count i32 | count x
//!   producer id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32 |
//!   timestamp i64 | coordinator epoch i32 | current transaction's first offset i64
//! ```
//! and the lossless one of Raft snapshots, little-endian, which keeps all five:
//!
//! ```text
//! version u8 = 1 | count u32 | count x, by ascending id (producer id i64 | epoch i16 | batches u8 | batches x
//!   (first sequence i32 | last sequence i32 | base offset i64 | last offset i64 | timestamp i64))
//! ```

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use riverrun_record::{BatchView, increment_sequence};

/// Batches of a producer that a retry is recognised by; clients have at most as many in flight.
pub const REMEMBERED_BATCHES: usize = 5;

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_HEAD_LEN: usize = 10;
const SNAPSHOT_ENTRY_LEN: usize = 46;
const LOSSLESS_VERSION: u8 = 1;

/// A batch that was appended for a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence number of the first record.
    pub first_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Last offset minus first offset.
    pub last_offset_delta: i32,
    /// The greatest timestamp of its records, in milliseconds.
    pub timestamp: i64,
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
    timestamp: i64,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Remembered>,
}

/// What a batch is to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceVerdict {
    /// The next one of its producer, or the first.
    Next,
    /// One of the last five: it was appended at these offsets.
    Duplicate {
        /// Its first offset.
        base_offset: i64,
        /// Its last offset.
        last_offset: i64,
    },
    /// Neither.
    OutOfOrder {
        /// The sequence that would be next.
        expected: i32,
    },
    /// A producer of a newer epoch has written.
    Fenced {
        /// That epoch.
        current: i16,
    },
}

/// What stands before the entries of Kafka's `.snapshot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The format's version; 1 is the one that is known.
    pub version: i16,
    /// The checksum that the file states.
    pub crc: u32,
    /// Whether it matches the bytes.
    pub crc_is_valid: bool,
    /// The number of entries that the file states.
    pub count: i32,
    /// Bytes behind the last whole entry, which do not belong there.
    pub extra_bytes: usize,
}

/// One entry of Kafka's `.snapshot`, as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The last sequence number of its last batch, or -1.
    pub last_sequence: i32,
    /// The last offset of that batch, or -1.
    pub last_offset: i64,
    /// Last offset minus first offset of that batch.
    pub offset_delta: i32,
    /// The batch's greatest timestamp, in milliseconds.
    pub timestamp: i64,
    /// The epoch of the transaction coordinator, or -1.
    pub coordinator_epoch: i32,
    /// The first offset of the transaction that is open, or -1.
    pub current_txn_first_offset: i64,
}

/// Reads Kafka's `.snapshot` as it stands, checked or not: for whoever looks at files. None where the
/// bytes are too few for its head. [`ProducerState::from_snapshot`] is for whoever uses it.
#[must_use]
pub fn read_snapshot(bytes: &[u8]) -> Option<(SnapshotHead, impl Iterator<Item = SnapshotEntry>)> {
    let mut input = bytes;
    if input.len() < SNAPSHOT_HEAD_LEN {
        return None;
    }
    let version = input.get_i16();
    let crc = input.get_u32();
    let crc_is_valid = crc32c::crc32c(input) == crc;
    let count = input.get_i32();
    let head = SnapshotHead {
        version,
        crc,
        crc_is_valid,
        count,
        extra_bytes: input.len() % SNAPSHOT_ENTRY_LEN,
    };
    let entries = input
        .chunks_exact(SNAPSHOT_ENTRY_LEN)
        .map(|mut entry| SnapshotEntry {
            producer_id: entry.get_i64(),
            epoch: entry.get_i16(),
            last_sequence: entry.get_i32(),
            last_offset: entry.get_i64(),
            offset_delta: entry.get_i32(),
            timestamp: entry.get_i64(),
            coordinator_epoch: entry.get_i32(),
            current_txn_first_offset: entry.get_i64(),
        });
    Some((head, entries))
}

/// A producer snapshot that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a producer snapshot of {0} bytes is damaged")]
pub struct BadSnapshot(pub usize);

/// The producers of a log up to one offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<i64, Producer>,
}

impl ProducerState {
    /// How many producers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Whether anything of a producer is known.
    #[must_use]
    pub fn knows(&self, producer_id: i64) -> bool {
        self.producers.contains_key(&producer_id)
    }

    /// The sequence behind the last batch of a producer, where that was of this epoch.
    #[must_use]
    pub fn next(&self, producer_id: i64, epoch: i16) -> Option<i32> {
        let producer = self.producers.get(&producer_id)?;
        let last = producer
            .batches
            .back()
            .filter(|_| producer.epoch == epoch)?;
        Some(increment_sequence(last.last_sequence, 1))
    }

    /// What a batch with these sequences is.
    #[must_use]
    pub fn check(&self, producer_id: i64, epoch: i16, first: i32, last: i32) -> SequenceVerdict {
        let Some(producer) = self.producers.get(&producer_id) else {
            return SequenceVerdict::Next;
        };
        if epoch < producer.epoch {
            return SequenceVerdict::Fenced {
                current: producer.epoch,
            };
        }
        if epoch > producer.epoch {
            return if first == 0 {
                SequenceVerdict::Next
            } else {
                SequenceVerdict::OutOfOrder { expected: 0 }
            };
        }
        let known = producer
            .batches
            .iter()
            .find(|b| b.first_sequence == first && b.last_sequence == last);
        if let Some(known) = known {
            return SequenceVerdict::Duplicate {
                base_offset: known.base_offset,
                last_offset: known.last_offset,
            };
        }
        let expected = producer
            .batches
            .back()
            .map_or(0, |b| increment_sequence(b.last_sequence, 1));
        if first == expected {
            SequenceVerdict::Next
        } else {
            SequenceVerdict::OutOfOrder { expected }
        }
    }

    /// Takes a batch of the log into account, whatever [`ProducerState::check`] says of it.
    pub fn apply(&mut self, batch: &BatchView<'_>) {
        if batch.producer_id() >= 0 && batch.base_sequence() >= 0 {
            self.append(ProducerBatch {
                producer_id: batch.producer_id(),
                epoch: batch.producer_epoch(),
                first_sequence: batch.base_sequence(),
                base_offset: batch.base_offset(),
                last_offset_delta: batch.last_offset_delta(),
                timestamp: batch.max_timestamp(),
            });
        }
    }

    /// Takes an appended batch into account.
    pub fn append(&mut self, batch: ProducerBatch) {
        let ProducerBatch {
            producer_id,
            epoch,
            first_sequence,
            base_offset,
            ..
        } = batch;
        let producer = self
            .producers
            .entry(producer_id)
            .or_insert_with(|| Producer {
                epoch,
                batches: VecDeque::new(),
            });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Remembered {
            first_sequence,
            last_sequence: increment_sequence(first_sequence, batch.last_offset_delta),
            base_offset,
            last_offset: base_offset + i64::from(batch.last_offset_delta),
            timestamp: batch.timestamp,
        });
    }

    /// Takes one producer over from another state, or forgets it where that does not know it.
    pub fn adopt(&mut self, from: &Self, producer_id: i64) {
        match from.producers.get(&producer_id) {
            Some(producer) => self.producers.insert(producer_id, producer.clone()),
            None => self.producers.remove(&producer_id),
        };
    }

    /// Forgets one producer.
    pub fn forget(&mut self, producer_id: i64) {
        self.producers.remove(&producer_id);
    }

    /// Forgets producers whose last batch is older than `expiration_ms` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        let oldest = now_ms.saturating_sub(expiration_ms);
        self.producers
            .retain(|_, p| p.batches.back().is_some_and(|b| b.timestamp >= oldest));
    }

    /// Kafka's `.snapshot`: the last batch of each producer.
    #[must_use]
    pub fn to_snapshot(&self) -> Bytes {
        let mut entries = BytesMut::with_capacity(4 + SNAPSHOT_ENTRY_LEN * self.producers.len());
        entries.put_i32(i32::try_from(self.producers.len()).unwrap_or(i32::MAX));
        for (id, producer) in &self.producers {
            let last = producer.batches.back();
            entries.put_i64(*id);
            entries.put_i16(producer.epoch);
            entries.put_i32(last.map_or(-1, |b| b.last_sequence));
            entries.put_i64(last.map_or(-1, |b| b.last_offset));
            entries.put_i32(last.map_or(0, |b| {
                i32::try_from(b.last_offset - b.base_offset).unwrap_or(i32::MAX)
            }));
            entries.put_i64(last.map_or(-1, |b| b.timestamp));
            entries.put_i32(-1);
            entries.put_i64(-1);
        }
        let mut out = BytesMut::with_capacity(6 + entries.len());
        out.put_i16(SNAPSHOT_VERSION);
        out.put_u32(crc32c::crc32c(&entries));
        out.put_slice(&entries);
        out.freeze()
    }

    /// Reads Kafka's `.snapshot`.
    ///
    /// # Errors
    /// [`BadSnapshot`] where length, version or checksum do not fit.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let bad = BadSnapshot(bytes.len());
        let (head, entries) = read_snapshot(bytes).ok_or(bad)?;
        if head.version != SNAPSHOT_VERSION || !head.crc_is_valid {
            return Err(bad);
        }
        let count = usize::try_from(head.count).map_err(|_| bad)?;
        if count.checked_mul(SNAPSHOT_ENTRY_LEN) != Some(bytes.len() - SNAPSHOT_HEAD_LEN) {
            return Err(bad);
        }
        let mut state = Self::default();
        for entry in entries {
            let SnapshotEntry {
                producer_id: id,
                epoch,
                last_sequence,
                last_offset,
                offset_delta: delta,
                timestamp,
                ..
            } = entry;
            let mut batches = VecDeque::new();
            if last_sequence >= 0 && delta >= 0 && last_offset >= i64::from(delta) {
                // Sequences wrap behind 2^31-1, so the first may lie above the last.
                let first = i64::from(last_sequence) - i64::from(delta);
                let first = if first < 0 { first + (1 << 31) } else { first };
                batches.push_back(Remembered {
                    first_sequence: i32::try_from(first).map_err(|_| bad)?,
                    last_sequence,
                    base_offset: last_offset - i64::from(delta),
                    last_offset,
                    timestamp,
                });
            }
            state.producers.insert(id, Producer { epoch, batches });
        }
        Ok(state)
    }

    /// The lossless form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(5 + 171 * self.producers.len());
        out.put_u8(LOSSLESS_VERSION);
        out.put_u32_le(u32::try_from(self.producers.len()).unwrap_or(u32::MAX));
        for (id, producer) in &self.producers {
            out.put_i64_le(*id);
            out.put_i16_le(producer.epoch);
            out.put_u8(u8::try_from(producer.batches.len()).unwrap_or(u8::MAX));
            for batch in &producer.batches {
                out.put_i32_le(batch.first_sequence);
                out.put_i32_le(batch.last_sequence);
                out.put_i64_le(batch.base_offset);
                out.put_i64_le(batch.last_offset);
                out.put_i64_le(batch.timestamp);
            }
        }
        out.freeze()
    }

    /// Reads the lossless form.
    ///
    /// # Errors
    /// [`BadSnapshot`] where the bytes are not exactly one state of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let bad = BadSnapshot(bytes.len());
        let mut input = bytes;
        if input.len() < 5 || input.get_u8() != LOSSLESS_VERSION {
            return Err(bad);
        }
        let count = input.get_u32_le();
        let mut state = Self::default();
        for _ in 0..count {
            if input.len() < 11 {
                return Err(bad);
            }
            let id = input.get_i64_le();
            let epoch = input.get_i16_le();
            let kept = usize::from(input.get_u8());
            let follows = state.producers.last_key_value();
            let follows = follows.is_none_or(|(last, _)| *last < id);
            if !follows || kept > REMEMBERED_BATCHES || input.len() < 32 * kept {
                return Err(bad);
            }
            let batches = (0..kept)
                .map(|_| Remembered {
                    first_sequence: input.get_i32_le(),
                    last_sequence: input.get_i32_le(),
                    base_offset: input.get_i64_le(),
                    last_offset: input.get_i64_le(),
                    timestamp: input.get_i64_le(),
                })
                .collect();
            state.producers.insert(id, Producer { epoch, batches });
        }
        if input.has_remaining() {
            Err(bad)
        } else {
            Ok(state)
        }
    }
}

/// The byte at which something is wrong with a snapshot that cannot be read, and what it is.
#[must_use]
pub fn snapshot_fault(bytes: &[u8]) -> (u64, &'static str) {
    let Some((head, entries)) = read_snapshot(bytes) else {
        return (0, "the file is shorter than a snapshot's head");
    };
    if head.version != SNAPSHOT_VERSION {
        (0, "the snapshot's version is not known")
    } else if !head.crc_is_valid {
        (2, "the snapshot's checksum does not match")
    } else if head.extra_bytes > 0 || usize::try_from(head.count) != Ok(entries.count()) {
        (6, "the snapshot has not as many entries as it states")
    } else {
        (
            SNAPSHOT_HEAD_LEN as u64,
            "an entry of the snapshot is impossible",
        )
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn with(batches: &[(i64, i16, i32, i64, i32)]) -> ProducerState {
        let mut state = ProducerState::default();
        for &(producer_id, epoch, first_sequence, base_offset, last_offset_delta) in batches {
            let timestamp = 1000 + base_offset;
            state.append(ProducerBatch {
                producer_id,
                epoch,
                first_sequence,
                base_offset,
                last_offset_delta,
                timestamp,
            });
        }
        state
    }

    #[test]
    fn the_last_five_batches_are_duplicates_and_older_ones_are_out_of_order() {
        let state = with(&[
            (7, 0, 0, 0, 0),
            (7, 0, 1, 1, 0),
            (7, 0, 2, 2, 0),
            (7, 0, 3, 3, 0),
            (7, 0, 4, 4, 0),
            (7, 0, 5, 5, 9),
        ]);
        assert_eq!(
            state.check(7, 0, 0, 0),
            SequenceVerdict::OutOfOrder { expected: 15 }
        );
        for (sequence, offset) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
            let duplicate = SequenceVerdict::Duplicate {
                base_offset: offset,
                last_offset: offset,
            };
            assert_eq!(state.check(7, 0, sequence, sequence), duplicate);
        }
        let duplicate = SequenceVerdict::Duplicate {
            base_offset: 5,
            last_offset: 14,
        };
        assert_eq!(state.check(7, 0, 5, 14), duplicate);
        assert_eq!(state.check(7, 0, 15, 15), SequenceVerdict::Next);
        assert_eq!(
            state.check(7, 0, 17, 17),
            SequenceVerdict::OutOfOrder { expected: 15 }
        );
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_an_old_one_is_fenced() {
        let state = with(&[(7, 3, 0, 0, 4)]);
        assert_eq!(
            state.check(7, 2, 5, 5),
            SequenceVerdict::Fenced { current: 3 }
        );
        assert_eq!(
            state.check(7, 4, 5, 5),
            SequenceVerdict::OutOfOrder { expected: 0 }
        );
        assert_eq!(state.check(7, 4, 0, 0), SequenceVerdict::Next);
        assert_eq!(state.check(8, 0, 123, 123), SequenceVerdict::Next);
    }

    #[test]
    fn sequences_wrap_behind_two_to_the_31_minus_1() {
        let state = with(&[(7, 0, i32::MAX - 1, 100, 2)]);
        assert_eq!(state.check(7, 0, 1, 1), SequenceVerdict::Next);
        let back = ProducerState::from_snapshot(&state.to_snapshot()).unwrap();
        let duplicate = SequenceVerdict::Duplicate {
            base_offset: 100,
            last_offset: 102,
        };
        assert_eq!(back.check(7, 0, i32::MAX - 1, 0), duplicate);
    }

    #[test]
    fn both_stored_forms_come_back_and_damage_is_an_error() {
        let state = with(&[(7, 0, 0, 0, 4), (7, 0, 5, 5, 0), (9, 2, 0, 6, 1)]);
        assert_eq!(ProducerState::decode(&state.encode()).unwrap(), state);
        let snapshot = state.to_snapshot();
        let back = ProducerState::from_snapshot(&snapshot).unwrap();
        assert_eq!(back.to_snapshot(), snapshot);
        for at in 0..snapshot.len() {
            let mut damaged = snapshot.to_vec();
            damaged[at] ^= 1;
            assert!(ProducerState::from_snapshot(&damaged).is_err(), "byte {at}");
            assert!(
                ProducerState::from_snapshot(&snapshot[..at]).is_err(),
                "cut at {at}"
            );
        }
        let lossless = state.encode();
        for at in 0..lossless.len() {
            assert!(
                ProducerState::decode(&lossless[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn producers_that_were_silent_for_long_are_forgotten() {
        let mut state = with(&[(7, 0, 0, 0, 0), (8, 0, 0, 5000, 0)]);
        state.expire(10_000, 6_000);
        assert_eq!(state.len(), 1);
    }
}
