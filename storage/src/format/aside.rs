//! The `aside` file: why the directory of a replica was set aside, and whose it is.
//!
//! ```text
//!  0  magic "RVAS"           4
//!  4  version (1)            u16
//!  6  reason                 u8    0 unknown, 1 replaced, 2 contradicted, 3 topic deleted, 4 unrecorded,
//!                                  5 by an operator
//!  7  zero                   u8
//!  8  group                  u64
//! 16  replica                u64
//! 24  topic id               16 bytes
//! 40  partition              i32
//! 44  incarnation            u64   the start of the node that set it aside
//! 52  crc                    u32   CRC-32 of bytes 0..52
//! ```
//!
//! All numbers are big endian. Written into the directory and synced before the removal of the replica is
//! recorded and the directory renamed to `<name>.aside-<replica>-<incarnation>`. Nothing opens, counts or
//! votes from a directory with such a name (R10).

use byteorder::{BigEndian, ByteOrder};
use uuid::Uuid;

use crate::recovered::LogIdentity;

/// The file's name.
pub const FILE_NAME: &str = "aside";
/// The first bytes of the file.
pub const MAGIC: [u8; 4] = *b"RVAS";
/// The version that is written.
pub const VERSION: u16 = 1;
const LEN: usize = 56;
/// What stands between a directory's name and whose it was.
const INFIX: &str = ".aside-";

/// Why a directory was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Nobody noted it.
    Unknown = 0,
    /// Another replica was ordered in its place (R9). It goes when that one is whole (R10).
    Replaced = 1,
    /// Its leader's log contradicts it (R2b). It may be the last copy of what was acknowledged, and goes
    /// by an operator's order only (R11).
    Contradicted = 2,
    /// Its topic was deleted. It goes when the controller has removed the topic (R11).
    TopicDeleted = 3,
    /// The node store had no record of it.
    Unrecorded = 4,
    /// An operator wanted it.
    Operator = 5,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Replaced,
        Self::Contradicted,
        Self::TopicDeleted,
        Self::Unrecorded,
        Self::Operator,
    ];

    /// The reason of a stored number.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == byte)
    }

    /// The reason in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "for a reason that was not noted",
            Self::Replaced => "replaced by another replica",
            Self::Contradicted => "contradicted by its leader",
            Self::TopicDeleted => "its topic was deleted",
            Self::Unrecorded => "not recorded in the node store",
            Self::Operator => "set aside by an operator",
        }
    }
}

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whose directory it was.
    pub identity: LogIdentity,
    /// Why it was set aside.
    pub reason: Reason,
    /// The start of the node that set it aside.
    pub incarnation: u64,
}

impl Note {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.push(self.reason as u8);
        out.push(0);
        out.extend_from_slice(&self.identity.group.to_be_bytes());
        out.extend_from_slice(&self.identity.replica.to_be_bytes());
        out.extend_from_slice(self.identity.topic_id.as_bytes());
        out.extend_from_slice(&self.identity.partition.to_be_bytes());
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads the file, or says why it is none.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let fixed: &[u8; LEN] = bytes
            .try_into()
            .map_err(|_| "the file has another length")?;
        if !fixed.starts_with(&MAGIC) {
            return Err("no aside magic");
        }
        let at = |from: usize, len: usize| fixed.get(from..from + len).unwrap_or_default();
        if BigEndian::read_u16(at(4, 2)) != VERSION {
            return Err("an unknown version of the aside format");
        }
        if BigEndian::read_u32(at(52, 4)) != crc32fast::hash(at(0, 52)) {
            return Err("the checksum does not match");
        }
        let reason = at(6, 1).first().copied().and_then(Reason::from_u8);
        Ok(Self {
            identity: LogIdentity {
                group: BigEndian::read_u64(at(8, 8)),
                replica: BigEndian::read_u64(at(16, 8)),
                topic_id: Uuid::from_slice(at(24, 16)).unwrap_or_default(),
                partition: BigEndian::read_i32(at(40, 4)),
            },
            reason: reason.unwrap_or(Reason::Unknown),
            incarnation: BigEndian::read_u64(at(44, 8)),
        })
    }
}

/// The name that a replica's directory gets when it is set aside; `attempt` counts from 0 where names are
/// taken.
#[must_use]
pub fn name_of(directory: &str, replica: u64, incarnation: u64, attempt: u32) -> String {
    match attempt {
        0 => format!("{directory}{INFIX}{replica}-{incarnation}"),
        _ => format!("{directory}{INFIX}{replica}-{incarnation}-{attempt}"),
    }
}

/// Whether a directory has the name of one that was set aside.
#[must_use]
pub fn is_aside(name: &str) -> bool {
    name.contains(INFIX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn a_note_leads_back_and_no_flipped_bit_passes() {
        for reason in Reason::ALL {
            let note = Note {
                identity: LogIdentity {
                    group: 7,
                    replica: 1 << 21,
                    topic_id: Uuid::from_u128(0xfeed),
                    partition: 3,
                },
                reason,
                incarnation: 12,
            };
            let bytes = note.encode();
            assert_eq!(Note::decode(&bytes), Ok(note));
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 2;
                assert!(Note::decode(&bad).is_err(), "byte {at}");
                assert!(Note::decode(&bytes[..at]).is_err());
            }
        }
    }

    #[test]
    fn a_note_that_version_1_wrote_is_read_for_ever() {
        let note = Note {
            identity: LogIdentity {
                group: 7,
                replica: 1 << 21,
                topic_id: Uuid::from_u128(0xfeed),
                partition: 3,
            },
            reason: Reason::Contradicted,
            incarnation: 12,
        };
        let golden = include_bytes!("../../fixtures/aside/v1/aside");
        assert_eq!(Note::decode(golden).as_ref(), Ok(&note));
        assert_eq!(note.encode(), golden);
    }

    #[test]
    fn names_say_that_they_are_aside() {
        let name = name_of("0123-4", 9, 2, 0);
        assert_eq!(name, "0123-4.aside-9-2");
        assert!(is_aside(&name) && is_aside(&name_of("0123-4", 9, 2, 3)));
        assert!(!is_aside("0123-4") && !is_aside("lost+found"));
    }
}
