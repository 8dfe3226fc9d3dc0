//! The `log-start` file: where a log begins once its head was dropped.
//!
//! ```text
//!    0  magic "RVLS"           4
//!    4  version (1)            u16
//!    6  zero                   u16
//!    8  group                  u64
//!   16  replica                u64
//!   24  birth: previous index  u64   as in the sidecars, so that a file of before a reset is known
//!   32  birth: previous term   u64
//!   40  birth: offset          i64
//!   48  previous index         u64   the entry before the first one kept
//!   56  previous term          u64
//!   64  offset                 i64   base offset of the first segment kept
//!   72  configuration index    u64
//!   80  configuration length   u32
//!   84  crc                    u32   CRC-32 of bytes 0..84 and the configuration
//!   88  configuration
//! ```
//!
//! All numbers are big endian. Written aside, synced and renamed before the first file of the head
//! is unlinked: a segment below it is a leftover, a missing one at it is damage.

use byteorder::{BigEndian, ByteOrder};
use bytes::Bytes;

use crate::recovered::{LogStart, StoredConf};

/// The file's name.
pub const FILE_NAME: &str = "log-start";
/// The first bytes of the file.
pub const MAGIC: [u8; 4] = *b"RVLS";
/// The version that is written.
pub const VERSION: u16 = 1;
const FIXED_LEN: usize = 88;

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFile {
    /// The group.
    pub group: u64,
    /// The replica.
    pub replica: u64,
    /// Where the log was created or last reset.
    pub birth: LogStart,
    /// Where it begins now.
    pub start: LogStart,
    /// The configuration that was in force when the head was dropped.
    pub conf: StoredConf,
}

impl StartFile {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_LEN + self.conf.bytes.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&self.replica.to_be_bytes());
        for start in [self.birth, self.start] {
            out.extend_from_slice(&start.prev_index.to_be_bytes());
            out.extend_from_slice(&start.prev_term.to_be_bytes());
            out.extend_from_slice(&start.offset.to_be_bytes());
        }
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
        out
    }

    /// Reads the file, or says why it is none.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (fixed, conf) = bytes
            .split_at_checked(FIXED_LEN)
            .ok_or("the file is cut short")?;
        let u64_at = |at: usize| BigEndian::read_u64(fixed.get(at..).unwrap_or(&[0; 8]));
        let u32_at = |at: usize| BigEndian::read_u32(fixed.get(at..).unwrap_or(&[0; 4]));
        if !fixed.starts_with(&MAGIC) {
            return Err("no log-start magic");
        }
        if BigEndian::read_u16(fixed.get(4..).unwrap_or(&[0; 2])) != VERSION {
            return Err("an unknown version of the log-start format");
        }
        if u32_at(80) as usize != conf.len() {
            return Err("the length does not fit");
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(fixed.get(..84).unwrap_or_default());
        crc.update(conf);
        if crc.finalize() != u32_at(84) {
            return Err("the checksum does not match");
        }
        let start_at = |at: usize| LogStart {
            prev_index: u64_at(at),
            prev_term: u64_at(at + 8),
            offset: u64_at(at + 16).cast_signed(),
        };
        Ok(Self {
            group: u64_at(8),
            replica: u64_at(16),
            birth: start_at(24),
            start: start_at(48),
            conf: StoredConf {
                index: u64_at(72),
                bytes: Bytes::copy_from_slice(conf),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn the_file_leads_back_and_no_flipped_bit_passes() {
        let file = StartFile {
            group: 1,
            replica: 2,
            birth: LogStart {
                prev_index: 3,
                prev_term: 4,
                offset: 5,
            },
            start: LogStart {
                prev_index: 6,
                prev_term: 7,
                offset: 8,
            },
            conf: StoredConf {
                index: 9,
                bytes: Bytes::from_static(b"conf"),
            },
        };
        let bytes = file.encode();
        assert_eq!(StartFile::decode(&bytes), Ok(file));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(StartFile::decode(&bad).is_err(), "byte {at}");
            assert!(StartFile::decode(&bytes[..at]).is_err());
        }
    }
}
