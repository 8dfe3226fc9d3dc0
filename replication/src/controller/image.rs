//! What the cluster consists of.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::command::Room;
use super::quorum::QuorumImage;

/// All that the controller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The cluster's id; nil before it is founded.
    pub cluster_id: Uuid,
    /// Every topic.
    pub topics: BTreeMap<Uuid, TopicImage>,
    /// The id behind every name. A topic that is being deleted keeps its name taken.
    pub names: BTreeMap<String, Uuid>,
    /// Every broker that has registered.
    pub brokers: BTreeMap<i32, BrokerImage>,
    /// The replicas of group 0.
    pub quorum: QuorumImage,
    /// Topics that were removed, and the nodes that have not said yet that nothing is left of them. Only
    /// what stands here was deleted for good: what is merely not known is not touched (R11).
    pub removed: BTreeMap<Uuid, BTreeSet<i32>>,
    /// The greatest incarnation seen of every data directory (R3).
    pub directories: BTreeMap<Uuid, DirectoryImage>,
    /// The next group id to be given out. 0 is the controller's own.
    pub next_group: u64,
    /// The next replica id to be given out; none is ever given out twice (I7).
    pub next_replica: u64,
    /// The next producer id to be given out.
    pub next_producer_id: i64,
    /// The offset behind the last applied batch of group 0.
    pub next_offset: i64,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            cluster_id: Uuid::nil(),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            brokers: BTreeMap::new(),
            quorum: QuorumImage::default(),
            removed: BTreeMap::new(),
            directories: BTreeMap::new(),
            next_group: 1,
            // The replicas of group 0 are numbered by whoever founds it, below this.
            next_replica: FIRST_REPLICA,
            next_producer_id: 0,
            next_offset: 0,
        }
    }
}

/// Replica ids below this belong to group 0, whose replicas exist before the controller does.
pub(super) const FIRST_REPLICA: u64 = 1 << 20;

impl Image {
    /// The topic of a name.
    #[must_use]
    pub fn topic_by_name(&self, name: &str) -> Option<&TopicImage> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// The partition that is a group.
    #[must_use]
    pub fn partition_of_group(&self, group: u64) -> Option<&PartitionImage> {
        let mut partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        partitions.find(|partition| partition.group == group)
    }

    /// The data directory that a node is known to have, also of a founder that has not registered yet.
    #[must_use]
    pub fn directory_of(&self, node: i32) -> Option<Uuid> {
        let registered = self.brokers.get(&node).map(|broker| broker.directory);
        registered.or_else(|| Some(self.quorum.of_node(node)?.at.directory))
    }

    /// Replicas of a node on other data directories than the one that it has now: they are lost (R3). As
    /// (topic, partition number, replica).
    pub fn left_behind(
        &self,
        node: i32,
        directory: Uuid,
    ) -> impl Iterator<Item = (&TopicImage, usize, &ReplicaImage)> {
        let open = self.topics.values().filter(|topic| !topic.closing);
        open.flat_map(move |topic| {
            let numbered = topic.partitions.iter().enumerate();
            numbered.flat_map(move |(number, partition)| {
                let replicas = partition.replicas.iter();
                let left = replicas
                    .filter(move |replica| replica.node == node && replica.directory != directory);
                left.map(move |replica| (topic, number, replica))
            })
        })
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Its id; paths on disk are made of it.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionImage>,
    /// The settings that differ from the defaults.
    pub configs: BTreeMap<String, String>,
    /// Whether it is being deleted: nothing is accepted, the name is still taken.
    pub closing: bool,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionImage {
    /// Its Raft group.
    pub group: u64,
    /// The replicas that it was founded with: the configuration with which the first entry of its
    /// log is read, by whoever joins later too.
    pub first_voters: Vec<u64>,
    /// Its replicas, the preferred leader first.
    pub replicas: Vec<ReplicaImage>,
    /// The replicas that it had before, as long as its group may still have them for voters: a replica moved
    /// to another node, and nobody has said since that the group has followed. Who replaces one on its own
    /// node leaves nothing here: what that node says of itself it says of both.
    pub before: Vec<Vec<ReplicaImage>>,
}

impl PartitionImage {
    /// Every set of replicas that may be the voters of its group. The group goes from one to the next and
    /// needs a majority of both on its way.
    pub fn possible_voters(&self) -> impl Iterator<Item = &[ReplicaImage]> {
        let before = self.before.iter().map(Vec::as_slice);
        before.chain([self.replicas.as_slice()])
    }
}

/// A replica of a partition, bound to one data directory of one node (R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaImage {
    /// Its id, never used again.
    pub replica: u64,
    /// The node.
    pub node: i32,
    /// The data directory.
    pub directory: Uuid,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerImage {
    /// Its `node.id`.
    pub node: i32,
    /// The data directory that it runs on.
    pub directory: Uuid,
    /// How often it has started on that directory.
    pub incarnation: u64,
    /// Where clients find it.
    pub host: String,
    /// Where clients find it.
    pub port: u16,
    /// Where other nodes find it; empty for a node that no other one can reach.
    pub peer_host: String,
    /// Where other nodes find it.
    pub peer_port: u16,
    /// The rack, empty where it has none.
    pub rack: String,
    /// Whether it is out of service: nothing is placed on it.
    pub fenced: bool,
    /// What it has room for, where it has said.
    pub room: Option<Room>,
}

/// A data directory that has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryImage {
    /// The node that ran on it last.
    pub node: i32,
    /// The greatest incarnation that registered. A lower one is a restored disk.
    pub incarnation: u64,
    /// What was drawn at that start: a restored disk that was started as often has drawn another.
    pub token: u64,
}
