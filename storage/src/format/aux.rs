//! The `.aux` file: payloads of configuration changes and commands.
//!
//! ```text
//! header                      payload, one after another
//!   0  magic "RVAX"   4         0  length   u32
//!   4  version (1)    u16       4  crc      u32   CRC-32 of the index (u64) and the bytes
//!   6  zero           u16       8  bytes
//! ```
//!
//! All numbers are big endian. The sidecar's record has the position of the length field and the
//! length of the bytes. The file exists only where there is such an entry.

use byteorder::{BigEndian, ByteOrder};

/// The first bytes of the file.
pub const MAGIC: [u8; 4] = *b"RVAX";
/// The version that is written.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: u32 = 8;
/// Bytes before each payload.
pub const ITEM_HEADER_LEN: u32 = 8;

/// The header.
#[must_use]
pub fn header() -> [u8; HEADER_LEN as usize] {
    let mut out = [0; HEADER_LEN as usize];
    let (magic, rest) = out.split_at_mut(4);
    magic.copy_from_slice(&MAGIC);
    BigEndian::write_u16(rest, VERSION);
    out
}

/// Appends a payload.
pub fn encode_into(out: &mut Vec<u8>, index: u64, payload: &[u8]) {
    out.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    out.extend_from_slice(&checksum(index, payload).to_be_bytes());
    out.extend_from_slice(payload);
}

/// The payload of an item that was read whole, if it is the one of this index.
#[must_use]
pub fn decode(index: u64, item: &[u8]) -> Option<&[u8]> {
    let (head, payload) = item.split_at_checked(ITEM_HEADER_LEN as usize)?;
    let (len, crc) = head.split_at(4);
    let whole = BigEndian::read_u32(len) as usize == payload.len()
        && BigEndian::read_u32(crc) == checksum(index, payload);
    whole.then_some(payload)
}

fn checksum(index: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&index.to_be_bytes());
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_leads_back_for_its_index_only() {
        let mut item = Vec::new();
        encode_into(&mut item, 5, b"close");
        assert_eq!(decode(5, &item), Some(b"close".as_slice()));
        assert_eq!(decode(6, &item), None);
        item.pop();
        assert_eq!(decode(5, &item), None);
        assert_eq!(decode(0, &[0; 8]), None, "zeros are no payload");
    }
}
