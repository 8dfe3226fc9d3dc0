//! The `.raft` sidecar: what Raft knows of the entries of a segment.
//!
//! ```text
//! header, all numbers big endian
//!    0  magic "RVRF"           4
//!    4  version (1)            u16
//!    6  header length          u16   with the padding; a multiple of 32
//!    8  group                  u64
//!   16  replica                u64
//!   24  topic id               16 bytes
//!   40  partition              i32
//!   44  zero                   u32
//!   48  birth: previous index  u64   where this log was created or last reset; the same in all its
//!   56  birth: previous term   u64   segments, so that files of before a reset are known
//!   64  birth: offset          i64
//!   72  previous index         u64   the entry before the segment's first
//!   80  previous term          u64
//!   88  next offset            i64   the segment's base offset
//!   96  durable segment        i64   base offset of the newest segment that was wholly synced when
//!                                    this header was written, or -1
//!  104  configuration index    u64
//!  112  configuration length   u32
//!  116  crc                    u32   CRC-32 of bytes 0..116 and the configuration
//!  120  configuration          ...   then zeros
//!
//! one record for each entry, 32 bytes
//!    0  term                   u32
//!    4  kind                   u8    0 data, 1 no-op, 2 configuration, 3 command, 4 hole
//!    5  zero                   3
//!    8  crc                    u32   CRC-32 of the index (u64) and of bytes 0..8 and 12..32
//!   12  base offset            i64
//!   20  position               u32   of a data entry in `.log`, of a payload in `.aux`
//!   24  length                 u32   of the batch or the payload
//!   28  last offset delta      u32
//! ```
//!
//! The record of index `i` lies at `header length + 32 * (i - previous index - 1)`.

use byteorder::{BigEndian, ByteOrder};
use bytes::Bytes;
use uuid::Uuid;

use crate::entry::EntryKind;
use crate::recovered::{LogIdentity, LogStart, StoredConf};

/// The first bytes of the file.
pub const MAGIC: [u8; 4] = *b"RVRF";
/// The version that is written.
pub const VERSION: u16 = 1;
/// Bytes of a record.
pub const RECORD_LEN: usize = 32;
/// Bytes of the header before the configuration.
const FIXED_LEN: usize = 120;
const CRC_AT: usize = 116;
/// The longest configuration that a header takes.
pub const MAX_CONF_LEN: usize = 60_000;

/// The header of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose log it is.
    pub identity: LogIdentity,
    /// Where the log was created or last reset.
    pub birth: LogStart,
    /// The entry before the first, and the base offset.
    pub start: LogStart,
    /// Base offset of the newest segment known to be durable, or -1.
    pub durable_segment: i64,
    /// The configuration as known when the segment was begun.
    pub conf: StoredConf,
}

impl Header {
    /// The bytes of the header.
    ///
    /// # Panics
    /// When the configuration is longer than [`MAX_CONF_LEN`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.conf.bytes.len() <= MAX_CONF_LEN,
            "the configuration is too long"
        );
        self.encode_as((FIXED_LEN + self.conf.bytes.len()).next_multiple_of(RECORD_LEN))
    }

    /// The same in a length that it is to have, with more zeros behind; none where that is too little.
    #[must_use]
    pub fn encode_to(&self, len: u64) -> Option<Vec<u8>> {
        let len = usize::from(u16::try_from(len).ok()?);
        let fits = len.is_multiple_of(RECORD_LEN) && FIXED_LEN + self.conf.bytes.len() <= len;
        fits.then(|| self.encode_as(len))
    }

    fn encode_as(&self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&self.identity.group.to_be_bytes());
        out.extend_from_slice(&self.identity.replica.to_be_bytes());
        out.extend_from_slice(self.identity.topic_id.as_bytes());
        out.extend_from_slice(&self.identity.partition.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        for start in [self.birth, self.start] {
            out.extend_from_slice(&start.prev_index.to_be_bytes());
            out.extend_from_slice(&start.prev_term.to_be_bytes());
            out.extend_from_slice(&start.offset.to_be_bytes());
        }
        out.extend_from_slice(&self.durable_segment.to_be_bytes());
        out.extend_from_slice(&self.conf.index.to_be_bytes());
        out.extend_from_slice(
            &u32::try_from(self.conf.bytes.len())
                .unwrap_or(0)
                .to_be_bytes(),
        );
        let mut crc = crc32fast::Hasher::new();
        crc.update(&out);
        crc.update(&self.conf.bytes);
        out.extend_from_slice(&crc.finalize().to_be_bytes());
        out.extend_from_slice(&self.conf.bytes);
        out.resize(len, 0);
        out
    }

    /// Reads a header and its length, or says why the bytes are none.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), &'static str> {
        let fixed = bytes
            .first_chunk::<FIXED_LEN>()
            .ok_or("the header is cut short")?;
        if !fixed.starts_with(&MAGIC) {
            return Err("no .raft magic");
        }
        let u16_at = |at: usize| BigEndian::read_u16(fixed.get(at..).unwrap_or(&[0; 2]));
        let u32_at = |at: usize| BigEndian::read_u32(fixed.get(at..).unwrap_or(&[0; 4]));
        let u64_at = |at: usize| BigEndian::read_u64(fixed.get(at..).unwrap_or(&[0; 8]));
        let i64_at = |at: usize| u64_at(at).cast_signed();
        if u16_at(4) != VERSION {
            return Err("an unknown version of the .raft format");
        }
        let len = usize::from(u16_at(6));
        let conf_len = u32_at(112) as usize;
        if !len.is_multiple_of(RECORD_LEN) || conf_len > len.saturating_sub(FIXED_LEN) {
            return Err("the header's lengths do not fit");
        }
        let conf = bytes
            .get(FIXED_LEN..FIXED_LEN + conf_len)
            .ok_or("the header is cut short")?;
        let padding = bytes
            .get(FIXED_LEN + conf_len..len)
            .ok_or("the header is cut short")?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the header's padding is not zero");
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(fixed.get(..CRC_AT).unwrap_or_default());
        crc.update(conf);
        if crc.finalize() != u32_at(CRC_AT) {
            return Err("the header's checksum does not match");
        }
        let topic_id = fixed.get(24..40).and_then(|id| Uuid::from_slice(id).ok());
        let start_at = |at: usize| LogStart {
            prev_index: u64_at(at),
            prev_term: u64_at(at + 8),
            offset: i64_at(at + 16),
        };
        let header = Self {
            identity: LogIdentity {
                group: u64_at(8),
                replica: u64_at(16),
                topic_id: topic_id.unwrap_or_default(),
                partition: u32_at(40).cast_signed(),
            },
            birth: start_at(48),
            start: start_at(72),
            durable_segment: i64_at(96),
            conf: StoredConf {
                index: u64_at(104),
                bytes: Bytes::copy_from_slice(conf),
            },
        };
        Ok((header, len))
    }

    /// What a header whose checksum is wrong says of its own length and of the index before the
    /// first: a guess, for tools that look at the records nevertheless. None where it is not even
    /// possible.
    #[must_use]
    pub fn guess(bytes: &[u8]) -> Option<(usize, u64)> {
        let len = usize::from(BigEndian::read_u16(bytes.get(6..8)?));
        let prev_index = BigEndian::read_u64(bytes.get(72..80)?);
        (len > FIXED_LEN && len.is_multiple_of(RECORD_LEN) && prev_index < u64::MAX >> 1)
            .then_some((len, prev_index))
    }
}

/// What the sidecar says of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Kafka offset of the first record of a data entry or hole, the next offset for the others.
    pub base_offset: i64,
    /// The Raft term.
    pub term: u32,
    /// Where a batch lies in `.log`, or a payload in `.aux`.
    pub position: u32,
    /// Bytes of the batch or the payload.
    pub len: u32,
    /// Last offset minus base offset of a data entry or hole.
    pub last_offset_delta: u32,
    /// What the entry is.
    pub kind: EntryKind,
}

impl Record {
    /// The next free offset behind the entry.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        if self.kind.moves_offset() {
            self.base_offset + i64::from(self.last_offset_delta) + 1
        } else {
            self.base_offset
        }
    }

    /// The last offset of a data entry or hole.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The end of a data entry in `.log`.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.position) + u64::from(self.len)
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self, index: u64) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        let (head, rest) = out.split_at_mut(12);
        BigEndian::write_u32(head, self.term);
        if let Some(kind) = head.get_mut(4) {
            *kind = self.kind as u8;
        }
        BigEndian::write_i64(rest, self.base_offset);
        let (_, rest) = rest.split_at_mut(8);
        BigEndian::write_u32_into(&[self.position, self.len, self.last_offset_delta], rest);
        let crc = checksum(index, &out);
        if let Some(place) = out.get_mut(8..12) {
            BigEndian::write_u32(place, crc);
        }
        out
    }

    /// Reads a record back; none where the bytes are not that of this index.
    #[must_use]
    pub fn decode(index: u64, bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let u32_at = |at: usize| BigEndian::read_u32(bytes.get(at..).unwrap_or(&[0; 4]));
        if u32_at(8) != checksum(index, bytes) {
            return None;
        }
        Some(Self {
            base_offset: BigEndian::read_i64(bytes.get(12..)?),
            term: u32_at(0),
            position: u32_at(20),
            len: u32_at(24),
            last_offset_delta: u32_at(28),
            kind: EntryKind::from_u8(*bytes.get(4)?)?,
        })
    }
}

fn checksum(index: u64, record: &[u8; RECORD_LEN]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&index.to_be_bytes());
    crc.update(record.get(..8).unwrap_or_default());
    crc.update(record.get(12..).unwrap_or_default());
    crc.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn header() -> Header {
        Header {
            identity: LogIdentity {
                group: 7,
                replica: 0x0102_0304_0506_0708,
                topic_id: Uuid::from_u128(0xfeed),
                partition: 3,
            },
            birth: LogStart {
                prev_index: 1,
                prev_term: 2,
                offset: 3,
            },
            start: LogStart {
                prev_index: 4,
                prev_term: 5,
                offset: 6,
            },
            durable_segment: -1,
            conf: StoredConf {
                index: 9,
                bytes: Bytes::from_static(b"voters 1 2 3"),
            },
        }
    }

    #[test]
    fn a_header_leads_back_and_no_flipped_bit_passes() {
        let bytes = header().encode();
        assert_eq!(bytes.len() % RECORD_LEN, 0);
        assert_eq!(Header::decode(&bytes), Ok((header(), bytes.len())));
        for at in 0..120 + 12 {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(Header::decode(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
        for len in 0..120 + 12 {
            assert!(Header::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn a_record_leads_back_for_its_index_only() {
        let record = Record {
            base_offset: 1 << 40,
            term: 5,
            position: 77,
            len: 99,
            last_offset_delta: 3,
            kind: EntryKind::Data,
        };
        let bytes = record.encode(12);
        assert_eq!(Record::decode(12, &bytes), Some(record));
        assert_eq!(Record::decode(13, &bytes), None);
        assert_eq!(
            Record::decode(0, &[0; RECORD_LEN]),
            None,
            "zeros are no record"
        );
        for at in 0..RECORD_LEN {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert_eq!(Record::decode(12, &bad), None);
        }
        assert_eq!(
            (record.next_offset(), record.last_offset()),
            ((1 << 40) + 4, (1 << 40) + 3)
        );
    }
}
