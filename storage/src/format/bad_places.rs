//! The `bad-places` file: entries of a log whose bytes at rest were found to be bad and have not been put
//! right, so that a restart shows them at once.
//!
//! ```text
//!    0  magic "RVBP"           4
//!    4  version (1)            u16
//!    6  zero                   u16
//!    8  group                  u64
//!   16  replica                u64
//!   24  count                  u32
//!   28  crc                    u32   CRC-32 of bytes 0..28 and the entries
//!
//! an entry, 24 bytes
//!    0  index                  u64
//!    8  first offset           i64   or the first of the place where it lies
//!   16  next offset            i64
//! ```
//!
//! All numbers are big endian. Written aside, synced and renamed. It tells nothing that a scrub would not find
//! again: one that cannot be read counts as one that says nothing.

use byteorder::{BigEndian, ByteOrder};

/// The file's name.
pub const FILE_NAME: &str = "bad-places";
/// What it is called where it cannot be read: it is set aside under this name.
pub const DAMAGED_NAME: &str = "bad-places.damaged";
/// The first bytes of the file.
pub const MAGIC: [u8; 4] = *b"RVBP";
/// The version that is written.
pub const VERSION: u16 = 1;
/// The most entries that a file has. Where more are bad the disk is, and the first ones say so.
pub const MOST_PLACES: usize = 4096;
const HEADER_LEN: usize = 32;
const PLACE_LEN: usize = 24;

/// An entry that is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPlace {
    /// Its Raft index.
    pub index: u64,
    /// Its first offset, or the first of the place where it lies.
    pub first_offset: i64,
    /// The offset behind it.
    pub next_offset: i64,
}

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPlaces {
    /// The group.
    pub group: u64,
    /// The replica.
    pub replica: u64,
    /// In the order of their indexes.
    pub places: Vec<BadPlace>,
}

impl BadPlaces {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let places = self.places.get(..MOST_PLACES).unwrap_or(&self.places);
        let mut body = Vec::with_capacity(places.len() * PLACE_LEN);
        for place in places {
            body.extend_from_slice(&place.index.to_be_bytes());
            body.extend_from_slice(&place.first_offset.to_be_bytes());
            body.extend_from_slice(&place.next_offset.to_be_bytes());
        }
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&self.replica.to_be_bytes());
        out.extend_from_slice(&u32::try_from(places.len()).unwrap_or(0).to_be_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&out);
        crc.update(&body);
        out.extend_from_slice(&crc.finalize().to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads the file, or says why it is none.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (header, body) = bytes
            .split_at_checked(HEADER_LEN)
            .ok_or("the file is cut short")?;
        let u64_at = |at: usize| BigEndian::read_u64(header.get(at..).unwrap_or(&[0; 8]));
        let u32_at = |at: usize| BigEndian::read_u32(header.get(at..).unwrap_or(&[0; 4]));
        if !header.starts_with(&MAGIC) {
            return Err("no bad-places magic");
        }
        if BigEndian::read_u16(header.get(4..).unwrap_or(&[0; 2])) != VERSION {
            return Err("an unknown version of the bad-places format");
        }
        let (places, rest) = body.as_chunks::<PLACE_LEN>();
        let count = u32_at(24) as usize;
        if !rest.is_empty() || count != places.len() || count > MOST_PLACES {
            return Err("the length does not fit");
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(header.get(..28).unwrap_or_default());
        crc.update(body);
        if crc.finalize() != u32_at(28) {
            return Err("the checksum does not match");
        }
        let number = |place: &[u8; PLACE_LEN], at: usize| {
            BigEndian::read_u64(place.get(at..).unwrap_or(&[0; 8]))
        };
        let places = places.iter().map(|place| BadPlace {
            index: number(place, 0),
            first_offset: number(place, 8).cast_signed(),
            next_offset: number(place, 16).cast_signed(),
        });
        Ok(Self {
            group: u64_at(8),
            replica: u64_at(16),
            places: places.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn the_file_leads_back_and_no_flipped_bit_passes() {
        let place = |index| BadPlace {
            index,
            first_offset: 10,
            next_offset: -1,
        };
        let file = BadPlaces {
            group: 1,
            replica: 2,
            places: vec![place(3), place(u64::MAX)],
        };
        let bytes = file.encode();
        assert_eq!(BadPlaces::decode(&bytes), Ok(file));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(BadPlaces::decode(&bad).is_err(), "byte {at}");
            assert!(BadPlaces::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn no_more_places_are_written_than_are_read() {
        let place = BadPlace {
            index: 1,
            first_offset: 0,
            next_offset: 1,
        };
        let file = BadPlaces {
            group: 1,
            replica: 2,
            places: vec![place; MOST_PLACES + 1],
        };
        let read = BadPlaces::decode(&file.encode()).unwrap();
        assert_eq!(read.places.len(), MOST_PLACES);
    }
}
