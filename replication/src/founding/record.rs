//! The file that says how a node came to its cluster.
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

use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;

use byteorder::{ByteOrder, LittleEndian};
use bytes::BufMut;
use prost::Message;
use riverrun_storage::LogIdentity;
use riverrun_storage::disk::{Disk, OpenMode};
use riverrun_storage::node::NODE_DIR;
use uuid::Uuid;

use super::Candidate;
use crate::config::GroupSettings;
use crate::controller::{FIRST_CONTROLLER, FoundCluster, Founder, Image, QuorumReplica};
use crate::node::{CONTROLLER_GROUP, GroupOrder};

/// The first bytes of the file.
pub const MAGIC: &[u8; 8] = b"RRKNOWN1";
/// What it is called, in the node's own directory.
pub const FILE_NAME: &str = "cluster";
/// No body is longer.
pub const MAX_BYTES: usize = 4 << 20;
const HEADER_BYTES: usize = 16;

/// A cluster, as somebody knows it who comes to it: enough to have a replica of group 0 and to find
/// the others. What follows from group 0 replaces it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Known {
    /// The 16 bytes of its id.
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    /// The replicas that group 0 was founded with.
    #[prost(uint64, repeated, tag = "2")]
    pub first_voters: Vec<u64>,
    /// The nodes with a replica of group 0.
    #[prost(message, repeated, tag = "3")]
    pub members: Vec<Member>,
    /// Whether the members are the founders.
    #[prost(bool, tag = "4")]
    pub founders: bool,
}

/// A node with a replica of group 0.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Member {
    /// Its `node.id`.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// The 16 bytes of its data directory's id.
    #[prost(bytes = "vec", tag = "2")]
    pub directory: Vec<u8>,
    /// Its replica of group 0.
    #[prost(uint64, tag = "3")]
    pub replica: u64,
    /// Where other nodes find it.
    #[prost(string, tag = "4")]
    pub host: String,
    /// Where other nodes find it.
    #[prost(uint32, tag = "5")]
    pub port: u32,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {position}: {what}")]
pub struct BadRecord {
    position: u64,
    what: &'static str,
}

impl BadRecord {
    /// The byte at which it is wrong.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What is wrong there.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    fn at(position: u64, what: &'static str) -> Self {
        Self { position, what }
    }
}

impl Member {
    /// A node that has no replica yet, and where others find it.
    #[must_use]
    pub fn new(node: &Candidate, host: String, port: u16) -> Self {
        Self {
            node: node.node,
            directory: node.directory.as_bytes().to_vec(),
            replica: 0,
            host,
            port: u32::from(port),
        }
    }

    /// Its data directory's id, nil where the bytes are none.
    #[must_use]
    pub fn directory_id(&self) -> Uuid {
        Uuid::from_slice(&self.directory).unwrap_or_default()
    }
}

impl Known {
    /// What a founder writes down: the members, in the order of their ids, get the first replicas.
    #[must_use]
    pub fn founded(cluster_id: Uuid, mut members: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.node);
        for (replica, member) in (FIRST_CONTROLLER..).zip(&mut members) {
            member.replica = replica;
        }
        Self {
            cluster_id: cluster_id.as_bytes().to_vec(),
            first_voters: members.iter().map(|member| member.replica).collect(),
            members,
            founders: true,
        }
    }

    /// What a node is answered that has joined: the cluster by an image in which it has a replica of
    /// group 0.
    #[must_use]
    pub fn joined(image: &Image, node: i32, directory: Uuid) -> Option<Self> {
        let own = image.quorum.of_node(node)?;
        if own.at.directory != directory || image.cluster_id.is_nil() {
            return None;
        }
        let member = |at: &QuorumReplica| {
            let there = image.brokers.get(&at.at.node);
            Member {
                node: at.at.node,
                directory: at.at.directory.as_bytes().to_vec(),
                replica: at.at.replica,
                host: there.map(|b| b.peer_host.clone()).unwrap_or_default(),
                port: there.map_or(0, |b| u32::from(b.peer_port)),
            }
        };
        Some(Self {
            cluster_id: image.cluster_id.as_bytes().to_vec(),
            first_voters: image.quorum.first_voters.clone(),
            members: image.quorum.replicas.iter().map(member).collect(),
            founders: false,
        })
    }

    /// The cluster's id, nil where this says nothing.
    #[must_use]
    pub fn cluster(&self) -> Uuid {
        Uuid::from_slice(&self.cluster_id).unwrap_or_default()
    }

    /// Whether this says nothing: the node came to its cluster before it was written down.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.first_voters.is_empty()
    }

    /// Who founded the cluster, where that is known.
    #[must_use]
    pub fn founders(&self) -> Vec<Candidate> {
        let members = self.members.iter().filter(|_| self.founders);
        members
            .map(|member| Candidate {
                node: member.node,
                directory: member.directory_id(),
            })
            .collect()
    }

    /// The command by which whoever leads group 0 first makes the founders known, of this cluster.
    #[must_use]
    pub fn found_cluster(&self, cluster: Uuid) -> FoundCluster {
        let members = self.members.iter().filter(|_| self.founders);
        FoundCluster {
            cluster_id: cluster.as_bytes().to_vec(),
            founders: members
                .map(|member| Founder {
                    node: member.node,
                    directory: member.directory.clone(),
                    replica: member.replica,
                })
                .collect(),
        }
    }

    /// The order to create the replica of group 0 that a data directory has.
    #[must_use]
    pub fn order(&self, directory: Uuid, settings: GroupSettings) -> Option<GroupOrder> {
        let mut members = self.members.iter();
        let own = members.find(|member| member.directory_id() == directory)?;
        Some(GroupOrder {
            identity: LogIdentity {
                group: CONTROLLER_GROUP,
                replica: own.replica,
                topic_id: Uuid::nil(),
                partition: 0,
            },
            voters: self.first_voters.clone(),
            learners: Vec::new(),
            settings,
        })
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_file(bytes: &[u8]) -> Result<Self, BadRecord> {
        let (header, body) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or(BadRecord::at(0, "shorter than its header"))?;
        let (magic, numbers) = header.split_at(8);
        if magic != MAGIC {
            return Err(BadRecord::at(0, "not the record of a cluster"));
        }
        let (length, crc) = numbers.split_at(4);
        if usize::try_from(LittleEndian::read_u32(length)) != Ok(body.len())
            || body.len() > MAX_BYTES
        {
            return Err(BadRecord::at(8, "its length is not the one that it states"));
        }
        if LittleEndian::read_u32(crc) != crc32fast::hash(body) {
            return Err(BadRecord::at(12, "its checksum is wrong"));
        }
        let known =
            Self::decode(body).map_err(|_| BadRecord::at(16, "its body cannot be decoded"))?;
        let directories = known.members.iter().map(|member| member.directory.len());
        if known.cluster_id.len() != 16 || directories.into_iter().any(|len| len != 16) {
            return Err(BadRecord::at(16, "an id is not 16 bytes long"));
        }
        Ok(known)
    }

    fn to_file(&self) -> Vec<u8> {
        let body = self.encode_to_vec();
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.put_slice(MAGIC);
        out.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
        out.put_u32_le(crc32fast::hash(&body));
        out.put_slice(&body);
        out
    }

    /// Reads the record of a data directory, if there is one. It is durable when this returns: a
    /// process that was killed as it wrote it may have left its name in memory only.
    pub fn read(disk: &dyn Disk, data: &Path) -> io::Result<Option<Self>> {
        let dir = data.join(NODE_DIR);
        let path = dir.join(FILE_NAME);
        let file = match disk.open(&path, OpenMode::ReadOnly) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let bad = |what| {
            // One checksum covers all of it, so no byte of it can be told from another.
            let text = format!("{} is damaged at byte 0: {what}", path.display());
            io::Error::new(ErrorKind::InvalidData, text)
        };
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        if len > HEADER_BYTES + MAX_BYTES {
            return Err(bad(BadRecord::at(0, "longer than any record")));
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        let known = Self::from_file(&bytes).map_err(bad)?;
        disk.sync_dir(&dir)?;
        Ok(Some(known))
    }

    /// Writes the record; durable when this returns.
    pub(crate) fn write(&self, disk: &dyn Disk, data: &Path) -> io::Result<()> {
        let dir = data.join(NODE_DIR);
        let (path, aside) = (dir.join(FILE_NAME), dir.join(format!("{FILE_NAME}.tmp")));
        if disk.exists(&aside)? {
            disk.remove_file(&aside)?;
        }
        let file = disk.open(&aside, OpenMode::CreateNew)?;
        file.write_all_at(&[IoSlice::new(&self.to_file())], 0)?;
        file.sync_data()?;
        drop(file);
        disk.rename(&aside, &path)?;
        disk.sync_dir(&dir)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use riverrun_storage::disk::MemDisk;
    use riverrun_storage::disk::mem::{CrashModel, Operation, Times};

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
        let bytes = known().to_file();
        assert_eq!(Known::from_file(&bytes), Ok(known()));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            if let Some(byte) = other.get_mut(at) {
                *byte ^= 0x10;
            }
            assert!(Known::from_file(&other).is_err(), "byte {at}");
            other.truncate(at);
            assert!(Known::from_file(&other).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn ids_of_another_length_are_refused() {
        let mut other = known();
        other.cluster_id.pop();
        assert!(Known::from_file(&other.to_file()).is_err());
        let mut other = known();
        other.members.first_mut().unwrap().directory.push(1);
        assert!(Known::from_file(&other.to_file()).is_err());
    }

    #[test]
    fn a_record_whose_name_was_not_synced_is_durable_once_it_was_read() {
        let disk = MemDisk::new();
        let data = Path::new("/data");
        disk.create_dir_all(&data.join(NODE_DIR)).unwrap();
        disk.sync_dir(data).unwrap();
        disk.fail(Operation::SyncDir, Times::Once, |_: &Path| true);
        assert!(known().write(&disk, data).is_err());
        disk.clear_faults();
        // The process was killed there; the next one finds it in the page cache.
        assert_eq!(Known::read(&disk, data).unwrap(), Some(known()));
        disk.crash(1, &CrashModel::LOSE_ALL);
        assert_eq!(Known::read(&disk, data).unwrap(), Some(known()));
    }
}
