//! The file that says how this node came to its cluster.
//!
//! ```text
//!  0  magic "RRKNOWN1"
//!  8  body length u32
//! 12  crc32 (IEEE) u32 over the body
//! 16  body: one prost message, `Known`
//! ```
//! All numbers are little-endian. `<data>/node/cluster`: written aside, synced, renamed, its
//! directory synced, before this node gives anybody what stands in it and before it has a replica of
//! group 0. It is never changed: what group 0 says is newer.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use byteorder::{ByteOrder, LittleEndian};
use bytes::BufMut;
use prost::Message;
use uuid::Uuid;

use super::protocol::{Known, MAX_BYTES};

/// The first bytes of the file.
pub const MAGIC: &[u8; 8] = b"RRKNOWN1";
/// What it is called, in the node's own directory.
pub const FILE_NAME: &str = "cluster";
const HEADER_BYTES: usize = 16;
const DIR: &str = "node";

/// What the file says, for whoever inspects a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// The cluster.
    pub cluster_id: Uuid,
    /// The replicas that group 0 was founded with.
    pub first_voters: Vec<u64>,
    /// Whether the members are the founders.
    pub founders: bool,
    /// The nodes with a replica of group 0, as they were then.
    pub members: Vec<ClusterMember>,
}

/// A node in a [`ClusterRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMember {
    /// Its `node.id`.
    pub node: i32,
    /// Its data directory.
    pub directory_id: Uuid,
    /// Its replica of group 0.
    pub replica: u64,
    /// Where other nodes find it.
    pub host: String,
    /// Where other nodes find it.
    pub port: u32,
}

impl ClusterRecord {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let known = decode(bytes)?;
        let id = |bytes: &[u8]| Uuid::from_slice(bytes).map_err(|_| "an id is not 16 bytes long");
        let members = known.members.into_iter().map(|member| {
            Ok(ClusterMember {
                node: member.node,
                directory_id: id(&member.directory)?,
                replica: member.replica,
                host: member.host,
                port: member.port,
            })
        });
        Ok(Self {
            cluster_id: id(&known.cluster_id)?,
            first_voters: known.first_voters,
            founders: known.founders,
            members: members.collect::<Result<_, &'static str>>()?,
        })
    }
}

/// Reads the record of a data directory, if there is one.
pub(crate) fn read(data: &Path) -> io::Result<Option<Known>> {
    let path = data.join(DIR).join(FILE_NAME);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let bad = |what| {
        io::Error::new(
            ErrorKind::InvalidData,
            format!("{}: {what}", path.display()),
        )
    };
    decode(&bytes).map(Some).map_err(bad)
}

/// Writes the record; durable when this returns.
pub(crate) fn write(data: &Path, known: &Known) -> io::Result<()> {
    let dir = data.join(DIR);
    let (path, aside) = (dir.join(FILE_NAME), dir.join(format!("{FILE_NAME}.tmp")));
    let mut file = File::create(&aside)?;
    file.write_all(&encode(known))?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(&dir)?.sync_all()
}

fn encode(known: &Known) -> Vec<u8> {
    let body = known.encode_to_vec();
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.put_slice(MAGIC);
    out.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put_u32_le(crc32fast::hash(&body));
    out.put_slice(&body);
    out
}

fn decode(bytes: &[u8]) -> Result<Known, &'static str> {
    let (header, body) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or("shorter than its header")?;
    let (magic, numbers) = header.split_at(8);
    if magic != MAGIC {
        return Err("not the record of a cluster");
    }
    let (length, crc) = numbers.split_at(4);
    if usize::try_from(LittleEndian::read_u32(length)) != Ok(body.len()) || body.len() > MAX_BYTES {
        return Err("its length is not the one that it states");
    }
    if LittleEndian::read_u32(crc) != crc32fast::hash(body) {
        return Err("its checksum is wrong");
    }
    Known::decode(body).map_err(|_| "its body cannot be decoded")
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Member;
    use super::*;

    fn known() -> Known {
        Known {
            cluster_id: vec![7; 16],
            first_voters: vec![1, 2],
            members: vec![Member {
                node: 3,
                directory: vec![9; 16],
                replica: 2,
                host: "b.example".to_owned(),
                port: 9093,
            }],
            founders: true,
        }
    }

    #[test]
    fn what_was_written_is_read_and_no_byte_of_it_may_change() {
        let bytes = encode(&known());
        assert_eq!(decode(&bytes), Ok(known()));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            if let Some(byte) = other.get_mut(at) {
                *byte ^= 0x10;
            }
            assert!(decode(&other).is_err(), "byte {at}");
            other.truncate(at);
            assert!(decode(&other).is_err(), "cut at {at}");
        }
    }
}
