//! From a request to a command: what cannot work is said before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::command::{
    AddPartitions, AllocateProducerIds, Command, CreateTopic, MarkTopicClosing, NewPartition,
    OnWord, RegisterBroker, RemoveTopic, ReplaceReplica, SetTopicConfigs, TopicsGone,
};
use super::image::TopicImage;
use super::names::check_topic_name;
use super::outcome::Rejection;
use super::placement::{Candidate, place};
use super::{Controller, MAX_PARTITIONS_PER_COMMAND, MAX_PRODUCER_IDS, MAX_REPLICAS};

/// Most topics that one command says to be gone.
const MAX_TOPICS_GONE: usize = 10_000;
/// Replicas of a partition where nobody says how many, if there are as many brokers.
const DEFAULT_REPLICATION: usize = 3;

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateTopicRequest {
    /// Its name.
    pub name: String,
    /// Its id, drawn by the caller.
    pub id: Uuid,
    /// How many partitions; not looked at where `assignments` are given.
    pub partitions: i32,
    /// How many replicas each; `None`: three, or as many as there are brokers. Not looked at where
    /// `assignments` are given.
    pub replication: Option<u16>,
    /// The brokers of each partition, where the client chose them.
    pub assignments: Option<Vec<Vec<i32>>>,
    /// Settings, checked by the caller.
    pub configs: BTreeMap<String, String>,
    /// Where the round robin starts.
    pub seed: u64,
}

impl Controller {
    /// A topic is created.
    ///
    /// # Errors
    /// The reason why it cannot be.
    pub fn plan_create_topic(&self, request: CreateTopicRequest) -> Result<Command, Rejection> {
        check_topic_name(&request.name)?;
        self.check_name_is_free(&request.name)?;
        let partitions = match &request.assignments {
            Some(assignments) => self.check_assignments(assignments, None)?,
            None => {
                let count = partition_count(i64::from(request.partitions))?;
                self.place(0, count, request.replication.map(usize::from), request.seed)?
            }
        };
        let command = CreateTopic {
            name: request.name,
            id: request.id.as_bytes().to_vec(),
            partitions,
            configs: request.configs,
        };
        super::apply::check_configs(&command.configs)?;
        Ok(Command::CreateTopic(command))
    }

    /// A topic gets more partitions, `total` in all.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn plan_create_partitions(
        &self,
        topic: &Uuid,
        total: i32,
        assignments: Option<&[Vec<i32>]>,
        seed: u64,
    ) -> Result<Command, Rejection> {
        let topic = self.open_topic(topic)?;
        let have = topic.partitions.len();
        let more = i64::from(total) - i64::try_from(have).unwrap_or(i64::MAX);
        let invalid = Rejection::InvalidPartitions {
            count: more,
            most: MAX_PARTITIONS_PER_COMMAND,
        };
        let more = partition_count(more).map_err(|_| invalid)?;
        let replication = topic
            .partitions
            .first()
            .map_or(1, |partition| partition.replicas.len());
        let partitions = match assignments {
            Some(given) if given.len() != more => {
                return Err(Rejection::InvalidAssignment {
                    why: "one list of brokers for each new partition",
                });
            }
            Some(given) => self.check_assignments(given, Some(replication))?,
            None => self.place(have, more, Some(replication), seed)?,
        };
        let first = u32::try_from(have).map_err(|_| Rejection::Exhausted)?;
        Ok(Command::AddPartitions(AddPartitions {
            id: topic.id.as_bytes().to_vec(),
            first,
            partitions,
        }))
    }

    /// A topic is marked as being deleted, the first step of deleting it.
    ///
    /// # Errors
    /// [`Rejection::UnknownTopic`].
    pub fn plan_delete_topic(&self, topic: &Uuid) -> Result<Command, Rejection> {
        let topic = self
            .image()
            .topics
            .get(topic)
            .ok_or(Rejection::UnknownTopic)?;
        Ok(Command::MarkTopicClosing(MarkTopicClosing {
            id: topic.id.as_bytes().to_vec(),
        }))
    }

    /// A topic all of whose groups have closed is forgotten, the last step of deleting it.
    ///
    /// # Errors
    /// [`Rejection::UnknownTopic`], [`Rejection::TopicNotClosing`].
    pub fn plan_remove_topic(&self, topic: &Uuid) -> Result<Command, Rejection> {
        let topic = self
            .image()
            .topics
            .get(topic)
            .ok_or(Rejection::UnknownTopic)?;
        if !topic.closing {
            return Err(Rejection::TopicNotClosing);
        }
        Ok(Command::RemoveTopic(RemoveTopic {
            id: topic.id.as_bytes().to_vec(),
        }))
    }

    /// Settings of a topic are set and taken back; the others stay.
    ///
    /// # Errors
    /// The reason why they cannot be.
    pub fn plan_set_configs(
        &self,
        topic: &Uuid,
        set: BTreeMap<String, String>,
        unset: Vec<String>,
    ) -> Result<Command, Rejection> {
        let topic = self.open_topic(topic)?;
        super::apply::check_configs(&set)?;
        Ok(Command::SetTopicConfigs(SetTopicConfigs {
            id: topic.id.as_bytes().to_vec(),
            set,
            unset,
        }))
    }

    /// A broker makes itself known at its start.
    ///
    /// # Errors
    /// The reason why its disk is not believed (R3).
    pub fn plan_register_broker(&self, broker: RegisterBroker) -> Result<Command, Rejection> {
        let mut copy = self.clone();
        match copy.apply(&Command::RegisterBroker(broker.clone())) {
            super::Outcome::Rejected(why) => Err(why),
            _ => Ok(Command::RegisterBroker(broker)),
        }
    }

    /// A block of producer ids is set aside for a broker.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] for none or too many, [`Rejection::Exhausted`].
    pub fn plan_producer_ids(&self, count: u32) -> Result<Command, Rejection> {
        if count == 0 || count > MAX_PRODUCER_IDS {
            return Err(Rejection::Malformed {
                what: "count of producer ids",
            });
        }
        if self
            .image()
            .next_producer_id
            .checked_add(i64::from(count))
            .is_none()
        {
            return Err(Rejection::Exhausted);
        }
        Ok(Command::AllocateProducerIds(AllocateProducerIds { count }))
    }

    /// A replica is replaced by a new one on `node`, which may be the same node where its disk was
    /// lost.
    ///
    /// # Errors
    /// The reason why it cannot be.
    pub fn plan_replace_replica(
        &self,
        topic: &Uuid,
        partition: usize,
        old: u64,
        node: i32,
        on_word: Option<OnWord>,
    ) -> Result<Command, Rejection> {
        let found = self
            .open_topic(topic)?
            .partitions
            .get(partition)
            .ok_or(Rejection::UnknownReplica)?;
        if !found.replicas.iter().any(|replica| replica.replica == old) {
            return Err(Rejection::UnknownReplica);
        }
        if found
            .replicas
            .iter()
            .any(|replica| replica.replica != old && replica.node == node)
        {
            return Err(Rejection::InvalidAssignment {
                why: "the node has a replica of the partition",
            });
        }
        if !self.image().brokers.contains_key(&node) {
            return Err(Rejection::UnknownBroker);
        }
        let is_there = found.replicas.iter().any(|replica| replica.node == node);
        if !is_there {
            let nodes = vec![node];
            self.check_room(&[NewPartition { nodes }])?;
        }
        let partition = u32::try_from(partition).map_err(|_| Rejection::UnknownReplica)?;
        Ok(Command::ReplaceReplica(ReplaceReplica {
            id: topic.as_bytes().to_vec(),
            partition,
            old,
            node,
            on_word,
        }))
    }

    /// A replica of group 0 that is lost is replaced on the same node and data directory.
    ///
    /// # Errors
    /// The reason why it cannot be.
    pub fn plan_replace_controller(
        &self,
        old: u64,
        node: i32,
        others: Vec<u64>,
    ) -> Result<Command, Rejection> {
        let known = self.image().quorum.of_node(node);
        if known.is_none_or(|known| known.at.replica != old) {
            return Err(Rejection::UnknownReplica);
        }
        Ok(Command::ReplaceReplica(ReplaceReplica {
            id: Vec::new(),
            partition: 0,
            old,
            node,
            on_word: Some(OnWord {
                others,
                settled: false,
            }),
        }))
    }

    /// A node says that it has nothing left of these topics, of those that are waited for.
    ///
    /// # Errors
    /// [`Rejection::UnknownTopic`] where nobody waits for it.
    pub fn plan_topics_gone(&self, node: i32, topics: &[Uuid]) -> Result<Command, Rejection> {
        let waits = |topic: &&Uuid| {
            let nodes = self.image().removed.get(topic);
            nodes.is_some_and(|nodes| nodes.contains(&node))
        };
        let topics: Vec<Vec<u8>> = topics
            .iter()
            .filter(waits)
            .take(MAX_TOPICS_GONE)
            .map(|topic| topic.as_bytes().to_vec())
            .collect();
        if topics.is_empty() {
            return Err(Rejection::UnknownTopic);
        }
        Ok(Command::TopicsGone(TopicsGone { node, topics }))
    }

    pub(super) fn check_name_is_free(&self, name: &str) -> Result<(), Rejection> {
        let image = self.image();
        if image.names.contains_key(name) {
            return Err(Rejection::TopicExists);
        }
        // Only names with one of the two characters can collide, and the search is linear.
        if !name.contains(['.', '_']) {
            return Ok(());
        }
        let metric = super::names::metric_name(name);
        match image
            .names
            .keys()
            .find(|other| super::names::metric_name(other) == metric)
        {
            Some(other) => Err(Rejection::CollidingTopicName {
                other: other.clone(),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn open_topic(&self, topic: &Uuid) -> Result<&TopicImage, Rejection> {
        let topic = self
            .image()
            .topics
            .get(topic)
            .ok_or(Rejection::UnknownTopic)?;
        if topic.closing {
            Err(Rejection::TopicClosing)
        } else {
            Ok(topic)
        }
    }

    fn place(
        &self,
        first: usize,
        count: usize,
        replication: Option<usize>,
        seed: u64,
    ) -> Result<Vec<NewPartition>, Rejection> {
        let mut candidates: Vec<Candidate> = self
            .image()
            .brokers
            .values()
            .filter(|broker| !broker.fenced)
            .map(|broker| Candidate {
                node: broker.node,
                rack: broker.rack.clone(),
                room: None,
            })
            .collect();
        let replication = replication.unwrap_or(DEFAULT_REPLICATION.min(candidates.len()));
        let invalid = Rejection::InvalidReplicationFactor {
            asked: replication,
            brokers: candidates.len(),
            most: MAX_REPLICAS,
        };
        if replication > MAX_REPLICAS {
            return Err(invalid);
        }
        let placed = |candidates: &[Candidate]| -> Option<Vec<NewPartition>> {
            let placed = place(candidates, first, count, replication, seed)?;
            Some(
                placed
                    .into_iter()
                    .map(|nodes| NewPartition { nodes })
                    .collect(),
            )
        };
        let partitions = placed(&candidates).ok_or(invalid)?;
        // Where that is more than one of them has room for, the others take what they can.
        let Err(no_room) = self.check_room(&partitions) else {
            return Ok(partitions);
        };
        for candidate in &mut candidates {
            candidate.room = self.room_of(candidate.node);
        }
        placed(&candidates).ok_or(no_room)
    }

    fn check_assignments(
        &self,
        assignments: &[Vec<i32>],
        replication: Option<usize>,
    ) -> Result<Vec<NewPartition>, Rejection> {
        partition_count(i64::try_from(assignments.len()).unwrap_or(i64::MAX))?;
        let partitions: Vec<NewPartition> = assignments
            .iter()
            .map(|nodes| NewPartition {
                nodes: nodes.clone(),
            })
            .collect();
        let wanted = replication
            .or(assignments.first().map(Vec::len))
            .unwrap_or(0);
        for partition in &partitions {
            if partition.nodes.len() != wanted {
                return Err(Rejection::InvalidAssignment {
                    why: "every partition needs as many replicas as the others",
                });
            }
            self.check_nodes(partition)?;
        }
        self.check_room(&partitions)?;
        Ok(partitions)
    }

    pub(super) fn check_nodes(&self, partition: &NewPartition) -> Result<(), Rejection> {
        let nodes = &partition.nodes;
        if nodes.is_empty() || nodes.len() > MAX_REPLICAS {
            return Err(Rejection::InvalidAssignment {
                why: "a partition needs from 1 to 15 replicas",
            });
        }
        if nodes.iter().collect::<BTreeSet<_>>().len() != nodes.len() {
            return Err(Rejection::InvalidAssignment {
                why: "a broker is named twice for one partition",
            });
        }
        if !nodes
            .iter()
            .all(|node| self.image().brokers.contains_key(node))
        {
            return Err(Rejection::InvalidAssignment {
                why: "a broker that is not registered is named",
            });
        }
        Ok(())
    }
}

fn partition_count(count: i64) -> Result<usize, Rejection> {
    let invalid = Rejection::InvalidPartitions {
        count,
        most: MAX_PARTITIONS_PER_COMMAND,
    };
    match usize::try_from(count) {
        Ok(n) if (1..=MAX_PARTITIONS_PER_COMMAND).contains(&n) => Ok(n),
        _ => Err(invalid),
    }
}
