//! The image as a file, so that a node need not replay group 0 from its beginning.
//!
//! ```text
//!  0  magic "RRCK"
//!  4  format version u16 = 1
//!  6  reserved u16 = 0
//!  8  next offset i64: the offset behind the last batch that is in it
//! 16  body length u32
//! 20  crc32 (IEEE) u32 over bytes 0..20 and the body
//! 24  body: one prost message, `ImageMessage`
//! ```
//! All numbers are little-endian. The file is named `<next offset>-<term>.checkpoint`, written aside,
//! synced, renamed, and its directory synced by whoever keeps it.

use std::collections::{BTreeMap, BTreeSet};

use byteorder::{ByteOrder, LittleEndian};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use uuid::Uuid;

use super::Controller;
use super::command::Room;
use super::image::{
    BrokerImage, DirectoryImage, FIRST_REPLICA, Image, PartitionImage, ReplicaImage, TopicImage,
};
use super::quorum::QuorumReplica;

/// The first bytes of the file.
pub const MAGIC: [u8; 4] = *b"RRCK";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;
const CRC_AT: usize = 20;

/// A checkpoint that cannot be used. The log of group 0 is replayed from an older one instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unusable controller checkpoint: {what}")]
pub struct BadCheckpoint {
    /// What is wrong with it.
    pub what: &'static str,
}

const fn bad(what: &'static str) -> BadCheckpoint {
    BadCheckpoint { what }
}

#[derive(Clone, PartialEq, Message)]
struct ImageMessage {
    #[prost(bytes = "vec", tag = "1")]
    cluster_id: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    topics: Vec<TopicMessage>,
    #[prost(message, repeated, tag = "3")]
    brokers: Vec<BrokerMessage>,
    #[prost(message, repeated, tag = "4")]
    directories: Vec<DirectoryMessage>,
    #[prost(uint64, tag = "5")]
    next_group: u64,
    #[prost(uint64, tag = "6")]
    next_replica: u64,
    #[prost(int64, tag = "7")]
    next_producer_id: i64,
    #[prost(uint64, repeated, tag = "8")]
    first_controllers: Vec<u64>,
    #[prost(message, repeated, tag = "9")]
    controllers: Vec<ControllerMessage>,
    #[prost(message, repeated, tag = "21")]
    removed: Vec<RemovedMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RemovedMessage {
    #[prost(bytes = "vec", tag = "1")]
    topic: Vec<u8>,
    #[prost(int32, repeated, tag = "2")]
    nodes: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct ControllerMessage {
    #[prost(message, required, tag = "1")]
    at: ReplicaMessage,
    #[prost(bool, tag = "2")]
    votes: bool,
}

#[derive(Clone, PartialEq, Message)]
struct TopicMessage {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    partitions: Vec<PartitionMessage>,
    #[prost(btree_map = "string, string", tag = "4")]
    configs: BTreeMap<String, String>,
    #[prost(bool, tag = "5")]
    closing: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PartitionMessage {
    #[prost(uint64, tag = "1")]
    group: u64,
    #[prost(message, repeated, tag = "2")]
    replicas: Vec<ReplicaMessage>,
    #[prost(uint64, repeated, tag = "3")]
    first_voters: Vec<u64>,
    #[prost(message, repeated, tag = "4")]
    before: Vec<ReplicasMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ReplicasMessage {
    #[prost(message, repeated, tag = "1")]
    replicas: Vec<ReplicaMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ReplicaMessage {
    #[prost(uint64, tag = "1")]
    replica: u64,
    #[prost(int32, tag = "2")]
    node: i32,
    #[prost(bytes = "vec", tag = "3")]
    directory: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct BrokerMessage {
    #[prost(int32, tag = "1")]
    node: i32,
    #[prost(bytes = "vec", tag = "2")]
    directory: Vec<u8>,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
    #[prost(string, tag = "4")]
    host: String,
    #[prost(uint32, tag = "5")]
    port: u32,
    #[prost(string, tag = "6")]
    rack: String,
    #[prost(bool, tag = "7")]
    fenced: bool,
    #[prost(string, tag = "8")]
    peer_host: String,
    #[prost(uint32, tag = "9")]
    peer_port: u32,
    #[prost(message, optional, tag = "15")]
    room: Option<Room>,
}

#[derive(Clone, PartialEq, Message)]
struct DirectoryMessage {
    #[prost(bytes = "vec", tag = "1")]
    directory: Vec<u8>,
    #[prost(int32, tag = "2")]
    node: i32,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
    #[prost(fixed64, tag = "4")]
    token: u64,
}

impl Controller {
    /// The image as the bytes of a file. Equal images give equal bytes.
    #[must_use]
    pub fn checkpoint(&self) -> Bytes {
        let body = to_message(self.image()).encode_to_vec();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
        out.put_slice(&MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_i64_le(self.image().next_offset);
        // INVARIANT: an image is far below 4 GiB; a longer one would be refused when it is read.
        out.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
        let crc = checksum(&out, &body);
        out.put_u32_le(crc);
        out.put_slice(&body);
        out.freeze()
    }

    /// Reads what [`Controller::checkpoint`] wrote.
    ///
    /// # Errors
    /// [`BadCheckpoint`] where the bytes are anything else.
    pub fn from_checkpoint(bytes: &[u8]) -> Result<Self, BadCheckpoint> {
        let (header, body) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or(bad("shorter than its header"))?;
        let (summed, crc) = header
            .split_at_checked(CRC_AT)
            .ok_or(bad("shorter than its header"))?;
        if !summed.starts_with(&MAGIC) {
            return Err(bad("not a checkpoint"));
        }
        let fields = summed.get(4..).ok_or(bad("shorter than its header"))?;
        let version = LittleEndian::read_u16(fields);
        if version != VERSION {
            return Err(bad("of a version that this program does not know"));
        }
        let length = fields.get(12..16).map(LittleEndian::read_u32);
        if length.and_then(|length| usize::try_from(length).ok()) != Some(body.len()) {
            return Err(bad("its length is not the one that it states"));
        }
        if checksum(summed, body) != LittleEndian::read_u32(crc) {
            return Err(bad("its checksum is wrong"));
        }
        let next_offset = fields
            .get(4..12)
            .map(LittleEndian::read_i64)
            .ok_or(bad("shorter than its header"))?;
        let message = ImageMessage::decode(body).map_err(|_| bad("its body cannot be decoded"))?;
        Ok(Self {
            image: from_message(message, next_offset)?,
        })
    }
}

fn checksum(summed: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(summed);
    hasher.update(body);
    hasher.finalize()
}

fn to_message(image: &Image) -> ImageMessage {
    let replica = |replica: &ReplicaImage| ReplicaMessage {
        replica: replica.replica,
        node: replica.node,
        directory: replica.directory.as_bytes().to_vec(),
    };
    let replicas = |of: &Vec<ReplicaImage>| ReplicasMessage {
        replicas: of.iter().map(replica).collect(),
    };
    let partition = |partition: &PartitionImage| PartitionMessage {
        group: partition.group,
        first_voters: partition.first_voters.clone(),
        replicas: partition.replicas.iter().map(replica).collect(),
        before: partition.before.iter().map(replicas).collect(),
    };
    let topic = |topic: &TopicImage| TopicMessage {
        id: topic.id.as_bytes().to_vec(),
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(partition).collect(),
        configs: topic.configs.clone(),
        closing: topic.closing,
    };
    let broker = |broker: &BrokerImage| BrokerMessage {
        node: broker.node,
        directory: broker.directory.as_bytes().to_vec(),
        incarnation: broker.incarnation,
        host: broker.host.clone(),
        port: u32::from(broker.port),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        peer_host: broker.peer_host.clone(),
        peer_port: u32::from(broker.peer_port),
        room: broker.room,
    };
    let controller = |known: &QuorumReplica| ControllerMessage {
        at: replica(&known.at),
        votes: known.votes,
    };
    let directory = |(id, seen): (&Uuid, &DirectoryImage)| DirectoryMessage {
        directory: id.as_bytes().to_vec(),
        node: seen.node,
        incarnation: seen.incarnation,
        token: seen.token,
    };
    let removed = |(topic, nodes): (&Uuid, &BTreeSet<i32>)| RemovedMessage {
        topic: topic.as_bytes().to_vec(),
        nodes: nodes.iter().copied().collect(),
    };
    ImageMessage {
        cluster_id: image.cluster_id.as_bytes().to_vec(),
        topics: image.topics.values().map(topic).collect(),
        brokers: image.brokers.values().map(broker).collect(),
        directories: image.directories.iter().map(directory).collect(),
        next_group: image.next_group,
        next_replica: image.next_replica,
        next_producer_id: image.next_producer_id,
        first_controllers: image.quorum.first_voters.clone(),
        controllers: image.quorum.replicas.iter().map(controller).collect(),
        removed: image.removed.iter().map(removed).collect(),
    }
}

fn from_message(message: ImageMessage, next_offset: i64) -> Result<Image, BadCheckpoint> {
    let mut image = Image {
        cluster_id: uuid(&message.cluster_id)?,
        next_group: message.next_group,
        next_replica: message.next_replica,
        next_producer_id: message.next_producer_id,
        next_offset,
        ..Image::default()
    };
    let mut groups = BTreeSet::new();
    let mut replicas = BTreeSet::new();
    for topic in message.topics {
        let id = uuid(&topic.id)?;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            if partition.group >= image.next_group || !groups.insert(partition.group) {
                return Err(bad("a group id is not one that was given out once"));
            }
            let mut members = Vec::with_capacity(partition.replicas.len());
            for replica in partition.replicas {
                if replica.replica >= image.next_replica || !replicas.insert(replica.replica) {
                    return Err(bad("a replica id is not one that was given out once"));
                }
                members.push(replica_image(&replica)?);
            }
            let before = partition.before.iter();
            let before = before.map(|of| of.replicas.iter().map(replica_image).collect());
            partitions.push(PartitionImage {
                group: partition.group,
                first_voters: partition.first_voters,
                replicas: members,
                before: before.collect::<Result<_, _>>()?,
            });
        }
        let name = topic.name.clone();
        let made = TopicImage {
            id,
            name: topic.name,
            partitions,
            configs: topic.configs,
            closing: topic.closing,
        };
        if image.names.insert(name, id).is_some() || image.topics.insert(id, made).is_some() {
            return Err(bad("a topic is in it twice"));
        }
    }
    for broker in message.brokers {
        let made = BrokerImage {
            node: broker.node,
            directory: uuid(&broker.directory)?,
            incarnation: broker.incarnation,
            host: broker.host,
            port: port(broker.port)?,
            peer_host: broker.peer_host,
            peer_port: port(broker.peer_port)?,
            rack: broker.rack,
            fenced: broker.fenced,
            room: broker.room,
        };
        if image.brokers.insert(broker.node, made).is_some() {
            return Err(bad("a broker is in it twice"));
        }
    }
    for removed in message.removed {
        let nodes = removed.nodes.into_iter().collect();
        if image.removed.insert(uuid(&removed.topic)?, nodes).is_some() {
            return Err(bad("a removed topic is in it twice"));
        }
    }
    for seen in message.directories {
        let made = DirectoryImage {
            node: seen.node,
            incarnation: seen.incarnation,
            token: seen.token,
        };
        if image
            .directories
            .insert(uuid(&seen.directory)?, made)
            .is_some()
        {
            return Err(bad("a directory is in it twice"));
        }
    }
    image.quorum.first_voters = message.first_controllers;
    for known in message.controllers {
        let at = ReplicaImage {
            replica: known.at.replica,
            node: known.at.node,
            directory: uuid(&known.at.directory)?,
        };
        let ids =
            |other: &QuorumReplica| other.at.replica == at.replica || other.at.node == at.node;
        if at.replica >= FIRST_REPLICA || image.quorum.replicas.iter().any(ids) {
            return Err(bad(
                "a replica of group 0 is not one that was given out once",
            ));
        }
        let votes = known.votes;
        image.quorum.replicas.push(QuorumReplica { at, votes });
    }
    Ok(image)
}

fn replica_image(message: &ReplicaMessage) -> Result<ReplicaImage, BadCheckpoint> {
    Ok(ReplicaImage {
        replica: message.replica,
        node: message.node,
        directory: uuid(&message.directory)?,
    })
}

fn port(number: u32) -> Result<u16, BadCheckpoint> {
    u16::try_from(number).map_err(|_| bad("a port is out of range"))
}

fn uuid(bytes: &[u8]) -> Result<Uuid, BadCheckpoint> {
    Uuid::from_slice(bytes).map_err(|_| bad("an id is not 16 bytes long"))
}
