//! What a committed command does to the image. Everything is checked before anything is changed, so
//! that a refused command leaves no trace.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use super::command::{
    AddPartitions, AllocateProducerIds, Command, CreateTopic, FenceBroker, FoundCluster,
    NewPartition, RegisterBroker, ReplaceReplica, SetTopicConfigs, TopicsGone,
};
use super::image::{BrokerImage, DirectoryImage, PartitionImage, ReplicaImage, TopicImage};
use super::names::check_topic_name;
use super::outcome::{Outcome, Rejection};
use super::{
    Controller, MAX_CONFIGS, MAX_MOVES_AT_ONCE, MAX_PARTITIONS_PER_COMMAND, MAX_PRODUCER_IDS,
    MAX_TEXT_BYTES,
};

type Applied = Result<Outcome, Rejection>;

impl Controller {
    /// Carries a committed command out. The same commands in the same order give the same image on
    /// every node; no command, however senseless, panics.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        let applied = match command {
            Command::FoundCluster(found) => self.found_cluster(found),
            Command::RegisterBroker(broker) => self.register_broker(broker),
            Command::FenceBroker(fence) => self.fence_broker(fence),
            Command::CreateTopic(topic) => self.create_topic(topic),
            Command::AddPartitions(partitions) => self.add_partitions(partitions),
            Command::SetTopicConfigs(configs) => self.set_topic_configs(configs),
            Command::MarkTopicClosing(mark) => self.mark_topic_closing(&mark.id),
            Command::RemoveTopic(remove) => self.remove_topic(&remove.id),
            Command::AllocateProducerIds(count) => self.allocate_producer_ids(count),
            Command::ReplaceReplica(replace) => self.replace_replica(replace),
            Command::TopicsGone(gone) => self.topics_gone(gone),
        };
        applied.unwrap_or_else(Outcome::Rejected)
    }

    fn found_cluster(&mut self, found: &FoundCluster) -> Applied {
        let id = uuid(&found.cluster_id, "cluster id")?;
        if self.image.cluster_id == id {
            return Ok(Outcome::Unchanged);
        }
        if !self.image.cluster_id.is_nil() {
            return Err(Rejection::OtherCluster);
        }
        let founders = found
            .founders
            .iter()
            .map(|founder| {
                Ok(ReplicaImage {
                    replica: founder.replica,
                    node: founder.node,
                    directory: uuid(&founder.directory, "directory id")?,
                })
            })
            .collect::<Result<Vec<_>, Rejection>>()?;
        if !founders.is_empty() {
            self.image.quorum.found(&founders)?;
        }
        self.image.cluster_id = id;
        Ok(Outcome::Done)
    }

    fn register_broker(&mut self, given: &RegisterBroker) -> Applied {
        let directory = uuid(&given.directory, "directory id")?;
        let port = |given| u16::try_from(given).map_err(|_| Rejection::Malformed { what: "port" });
        let (port, peer_port) = (port(given.port)?, port(given.peer_port)?);
        if given.node < 0 {
            return Err(Rejection::Malformed { what: "node id" });
        }
        let texts = [&given.host, &given.rack, &given.peer_host];
        if texts.iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(Rejection::Malformed {
                what: "host or rack",
            });
        }
        let broker = BrokerImage {
            node: given.node,
            directory,
            incarnation: given.incarnation,
            host: given.host.clone(),
            port,
            peer_host: given.peer_host.clone(),
            peer_port,
            rack: given.rack.clone(),
            fenced: false,
            room: given.room,
        };
        if let Some(seen) = self.image.directories.get(&directory) {
            let same_life = self.image.brokers.get(&given.node).is_some_and(|known| {
                known.directory == directory && known.incarnation == given.incarnation
            }) && seen.token == given.token;
            if given.incarnation < seen.incarnation
                || (given.incarnation == seen.incarnation && !same_life)
            {
                return Err(Rejection::StaleIncarnation {
                    given: given.incarnation,
                    seen: seen.incarnation,
                });
            }
            if seen.node != given.node {
                return Err(Rejection::DirectoryOfAnotherNode { node: seen.node });
            }
        }
        // What asks late for a directory that another one has followed does not displace that (R3).
        if let (Some(there), Some(replaces)) =
            (self.image.directory_of(given.node), &given.replaces)
            && there != directory
            && replaces != there.as_bytes()
        {
            return Err(Rejection::OtherDirectory {
                node: given.node,
                directory: there,
            });
        }
        let joined = self.image.quorum.register(given.node, directory)?;
        let before = self.image.brokers.get(&given.node);
        if before.is_some_and(|before| before.directory != directory) {
            // What the directory before holds of removed topics is nobody's to delete any more.
            self.image.removed.retain(|_, nodes| {
                nodes.remove(&given.node);
                !nodes.is_empty()
            });
        }
        let seen = DirectoryImage {
            node: given.node,
            incarnation: given.incarnation,
            token: given.token,
        };
        self.image.directories.insert(directory, seen);
        match self.image.brokers.insert(given.node, broker.clone()) {
            Some(before) if before == broker && !joined => Ok(Outcome::Unchanged),
            _ => Ok(Outcome::Done),
        }
    }

    fn fence_broker(&mut self, fence: &FenceBroker) -> Applied {
        let broker = self
            .image
            .brokers
            .get_mut(&fence.node)
            .ok_or(Rejection::UnknownBroker)?;
        if broker.fenced == fence.fenced {
            return Ok(Outcome::Unchanged);
        }
        broker.fenced = fence.fenced;
        Ok(Outcome::Done)
    }

    fn create_topic(&mut self, topic: &CreateTopic) -> Applied {
        let id = uuid(&topic.id, "topic id")?;
        check_topic_name(&topic.name)?;
        if self.image.topics.contains_key(&id) {
            return Err(Rejection::TopicExists);
        }
        self.check_name_is_free(&topic.name)?;
        check_configs(&topic.configs)?;
        self.check_new_partitions(&topic.partitions)?;
        let (first_group, partitions) = self.make_partitions(&topic.partitions)?;
        let count = partitions.len();
        self.image.names.insert(topic.name.clone(), id);
        let made = TopicImage {
            id,
            name: topic.name.clone(),
            partitions,
            configs: topic.configs.clone(),
            closing: false,
        };
        self.image.topics.insert(id, made);
        Ok(Outcome::Partitions {
            topic: id,
            first_partition: 0,
            first_group,
            count,
        })
    }

    fn add_partitions(&mut self, add: &AddPartitions) -> Applied {
        let id = uuid(&add.id, "topic id")?;
        let have = self.open_topic(&id)?.partitions.len();
        if usize::try_from(add.first) != Ok(have) {
            let count = i64::from(add.first);
            return Err(Rejection::InvalidPartitions {
                count,
                most: MAX_PARTITIONS_PER_COMMAND,
            });
        }
        self.check_new_partitions(&add.partitions)?;
        let (first_group, partitions) = self.make_partitions(&add.partitions)?;
        let count = partitions.len();
        let topic = self
            .image
            .topics
            .get_mut(&id)
            .ok_or(Rejection::UnknownTopic)?;
        topic.partitions.extend(partitions);
        Ok(Outcome::Partitions {
            topic: id,
            first_partition: have,
            first_group,
            count,
        })
    }

    fn set_topic_configs(&mut self, change: &SetTopicConfigs) -> Applied {
        let id = uuid(&change.id, "topic id")?;
        check_configs(&change.set)?;
        let mut configs = self.open_topic(&id)?.configs.clone();
        for name in &change.unset {
            configs.remove(name);
        }
        configs.extend(change.set.clone());
        check_configs(&configs)?;
        let topic = self
            .image
            .topics
            .get_mut(&id)
            .ok_or(Rejection::UnknownTopic)?;
        if topic.configs == configs {
            return Ok(Outcome::Unchanged);
        }
        topic.configs = configs;
        Ok(Outcome::Done)
    }

    fn mark_topic_closing(&mut self, id: &[u8]) -> Applied {
        let id = uuid(id, "topic id")?;
        let topic = self
            .image
            .topics
            .get_mut(&id)
            .ok_or(Rejection::UnknownTopic)?;
        if topic.closing {
            return Ok(Outcome::Unchanged);
        }
        topic.closing = true;
        Ok(Outcome::Done)
    }

    fn remove_topic(&mut self, id: &[u8]) -> Applied {
        let id = uuid(id, "topic id")?;
        let topic = self.image.topics.get(&id).ok_or(Rejection::UnknownTopic)?;
        if !topic.closing {
            return Err(Rejection::TopicNotClosing);
        }
        self.image.names.remove(&topic.name);
        self.image.topics.remove(&id);
        // A node that has no replica now may have had one, and files of it still.
        let nodes: BTreeSet<i32> = self.image.brokers.keys().copied().collect();
        if !nodes.is_empty() {
            self.image.removed.insert(id, nodes);
        }
        Ok(Outcome::Done)
    }

    fn topics_gone(&mut self, gone: &TopicsGone) -> Applied {
        let mut ids = Vec::with_capacity(gone.topics.len());
        for id in &gone.topics {
            ids.push(uuid(id, "topic id")?);
        }
        let mut outcome = Outcome::Unchanged;
        for id in ids {
            let Some(nodes) = self.image.removed.get_mut(&id) else {
                continue;
            };
            if nodes.remove(&gone.node) {
                outcome = Outcome::Done;
            }
            if nodes.is_empty() {
                self.image.removed.remove(&id);
            }
        }
        Ok(outcome)
    }

    fn allocate_producer_ids(&mut self, block: &AllocateProducerIds) -> Applied {
        if block.count == 0 || block.count > MAX_PRODUCER_IDS {
            return Err(Rejection::Malformed {
                what: "count of producer ids",
            });
        }
        let first = self.image.next_producer_id;
        self.image.next_producer_id = first
            .checked_add(i64::from(block.count))
            .ok_or(Rejection::Exhausted)?;
        Ok(Outcome::ProducerIds {
            first,
            count: block.count,
        })
    }

    fn replace_replica(&mut self, replace: &ReplaceReplica) -> Applied {
        if replace.id.is_empty() {
            return self.replace_controller(replace);
        }
        let id = uuid(&replace.id, "topic id")?;
        self.open_topic(&id)?;
        let image = &mut self.image;
        let broker = image
            .brokers
            .get(&replace.node)
            .ok_or(Rejection::UnknownBroker)?;
        let partition = usize::try_from(replace.partition)
            .ok()
            .and_then(|number| image.topics.get_mut(&id)?.partitions.get_mut(number))
            .ok_or(Rejection::UnknownReplica)?;
        let replicas = partition.replicas.iter().map(|at| at.replica);
        check_word(replace, replicas)?;
        let on_node =
            |replica: &ReplicaImage| replica.replica != replace.old && replica.node == replace.node;
        if partition.replicas.iter().any(on_node) {
            return Err(Rejection::InvalidAssignment {
                why: "the node has a replica of the partition",
            });
        }
        let settled = replace.on_word.as_ref().is_some_and(|word| word.settled);
        let now = partition.replicas.clone();
        let old = partition
            .replicas
            .iter_mut()
            .find(|replica| replica.replica == replace.old)
            .ok_or(Rejection::UnknownReplica)?;
        let moves = old.node != replace.node;
        if moves && !settled && partition.before.len() >= MAX_MOVES_AT_ONCE {
            return Err(Rejection::Moving);
        }
        let new = image.next_replica;
        image.next_replica = new.checked_add(1).ok_or(Rejection::Exhausted)?;
        if settled {
            partition.before.clear();
        }
        if moves {
            partition.before.push(now);
        }
        *old = ReplicaImage {
            replica: new,
            node: replace.node,
            directory: broker.directory,
        };
        Ok(Outcome::Replaced {
            group: partition.group,
            old: replace.old,
            new,
        })
    }

    fn replace_controller(&mut self, replace: &ReplaceReplica) -> Applied {
        let replicas = self.image.quorum.replicas.iter().map(|at| at.at.replica);
        check_word(replace, replicas)?;
        let new = self.image.quorum.replace(replace.node, replace.old)?;
        Ok(Outcome::Replaced {
            group: 0,
            old: replace.old,
            new,
        })
    }

    fn check_new_partitions(&self, partitions: &[NewPartition]) -> Result<(), Rejection> {
        if partitions.is_empty() || partitions.len() > MAX_PARTITIONS_PER_COMMAND {
            let count = i64::try_from(partitions.len()).unwrap_or(i64::MAX);
            return Err(Rejection::InvalidPartitions {
                count,
                most: MAX_PARTITIONS_PER_COMMAND,
            });
        }
        partitions
            .iter()
            .try_for_each(|partition| self.check_nodes(partition))?;
        self.check_room(partitions)
    }

    /// Gives out the ids. Fails before it has changed anything.
    fn make_partitions(
        &mut self,
        new: &[NewPartition],
    ) -> Result<(u64, Vec<PartitionImage>), Rejection> {
        let first_group = self.image.next_group;
        let mut next_group = first_group;
        let mut next_replica = self.image.next_replica;
        let mut made = Vec::with_capacity(new.len());
        for partition in new {
            let mut replicas = Vec::with_capacity(partition.nodes.len());
            for node in &partition.nodes {
                let broker = self
                    .image
                    .brokers
                    .get(node)
                    .ok_or(Rejection::UnknownBroker)?;
                let replica = ReplicaImage {
                    replica: next_replica,
                    node: *node,
                    directory: broker.directory,
                };
                replicas.push(replica);
                next_replica = next_replica.checked_add(1).ok_or(Rejection::Exhausted)?;
            }
            let first_voters = replicas.iter().map(|replica| replica.replica).collect();
            made.push(PartitionImage {
                group: next_group,
                first_voters,
                replicas,
                before: Vec::new(),
            });
            next_group = next_group.checked_add(1).ok_or(Rejection::Exhausted)?;
        }
        self.image.next_group = next_group;
        self.image.next_replica = next_replica;
        Ok((first_group, made))
    }
}

/// R9: the order stands on the word of the others, who have to be the same still.
fn check_word(
    replace: &ReplaceReplica,
    replicas: impl Iterator<Item = u64>,
) -> Result<(), Rejection> {
    let Some(word) = &replace.on_word else {
        return Ok(());
    };
    let mut others: Vec<u64> = replicas.filter(|id| *id != replace.old).collect();
    let mut named = word.others.clone();
    others.sort_unstable();
    named.sort_unstable();
    if others != named && !planted::is(Bug::OrderOnOldWord) {
        return Err(Rejection::OldWord);
    }
    Ok(())
}

/// Checks what the image can hold, not what the settings mean.
pub(super) fn check_configs(configs: &BTreeMap<String, String>) -> Result<(), Rejection> {
    let refuse = |name: &str, why| {
        let name = name.chars().take(100).collect();
        Err(Rejection::InvalidConfig { name, why })
    };
    for (name, value) in configs {
        if name.is_empty() || name.len() > MAX_TEXT_BYTES || value.len() > MAX_TEXT_BYTES {
            return refuse(name, "the name or the value is empty or too long");
        }
    }
    if configs.len() > MAX_CONFIGS {
        return refuse("", "there are too many");
    }
    Ok(())
}

fn uuid(bytes: &[u8], what: &'static str) -> Result<Uuid, Rejection> {
    match Uuid::from_slice(bytes) {
        Ok(id) if !id.is_nil() => Ok(id),
        _ => Err(Rejection::Malformed { what }),
    }
}
