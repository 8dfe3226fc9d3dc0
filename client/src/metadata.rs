//! What a client knows of a cluster: its brokers, its topics, and who leads what.

use std::{collections::BTreeMap, sync::Arc};

use riverrun_wire::{ErrorCode, api::MetadataResponse};
use uuid::Uuid;

use crate::error::error_code;

/// A broker as the cluster names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its node id.
    pub id: i32,
    /// Host that clients reach it by.
    pub host: String,
    /// Port that clients reach it by.
    pub port: i32,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

impl BrokerInfo {
    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A topic and its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; nil where the broker has none. A topic that is created again has another one.
    pub id: Uuid,
    /// Whether it is one of the cluster's own.
    pub is_internal: bool,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
}

impl TopicInfo {
    /// A partition by its number.
    #[must_use]
    pub fn partition(&self, number: i32) -> Option<&PartitionInfo> {
        self.partitions.iter().find(|p| p.number == number)
    }
}

/// A partition and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub number: i32,
    /// Node that leads it, if one does.
    pub leader: Option<i32>,
    /// Epoch of the leadership; -1 where it is not known.
    pub leader_epoch: i32,
    /// Nodes that have a replica.
    pub replicas: Vec<i32>,
    /// Those that are caught up.
    pub in_sync: Vec<i32>,
    /// Those that cannot be reached.
    pub offline: Vec<i32>,
}

/// The whole picture, replaced bit by bit as answers come.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<i32>,
    pub(crate) brokers: BTreeMap<i32, BrokerInfo>,
    pub(crate) topics: BTreeMap<String, Arc<TopicInfo>>,
    /// Counts the answers taken in, so that a call can tell whether there is a newer one.
    pub(crate) generation: u64,
    /// The last answer that each of the topics was in.
    told: BTreeMap<String, u64>,
}

impl Picture {
    /// Whether each of these topics is known from an answer after the one `seen`.
    pub(crate) fn is_newer(&self, topics: &[String], seen: u64) -> bool {
        self.generation > seen
            && topics
                .iter()
                .all(|topic| self.told.get(topic).is_some_and(|told| *told > seen))
    }

    /// Takes an answer in. Says which topics it refused, and why.
    pub(crate) fn take(&mut self, response: MetadataResponse) -> BTreeMap<String, ErrorCode> {
        self.generation += 1;
        if response.cluster_id.is_some() {
            self.cluster_id = response.cluster_id;
        }
        self.controller = (response.controller_id >= 0).then_some(response.controller_id);
        if !response.brokers.is_empty() {
            self.brokers = response
                .brokers
                .into_iter()
                .map(|b| {
                    (
                        b.node_id,
                        BrokerInfo {
                            id: b.node_id,
                            host: b.host,
                            port: b.port,
                            rack: b.rack,
                        },
                    )
                })
                .collect();
        }
        let mut refused = BTreeMap::new();
        for topic in response.topics {
            let Some(name) = topic.name else { continue };
            let code = error_code(topic.error_code);
            if code != ErrorCode::None {
                if code == ErrorCode::UnknownTopicOrPartition {
                    self.forget(&name);
                }
                refused.insert(name, code);
                continue;
            }
            let old = self.topics.get(&name);
            let mut partitions: Vec<_> = topic
                .partitions
                .into_iter()
                .map(|p| PartitionInfo {
                    number: p.partition_index,
                    leader: (p.leader_id >= 0).then_some(p.leader_id),
                    leader_epoch: p.leader_epoch,
                    replicas: p.replica_nodes,
                    in_sync: p.isr_nodes,
                    offline: p.offline_replicas,
                })
                .collect();
            partitions.sort_by_key(|p| p.number);
            for partition in &mut partitions {
                // A broker that has not heard of the newest leader yet must not take us back.
                let known = old
                    .filter(|t| t.id == topic.topic_id)
                    .and_then(|t| t.partition(partition.number));
                if let Some(known) = known
                    && known.leader_epoch > partition.leader_epoch
                    && partition.leader_epoch >= 0
                {
                    *partition = known.clone();
                }
            }
            let info = TopicInfo {
                name: name.as_str().into(),
                id: topic.topic_id,
                is_internal: topic.is_internal,
                partitions,
            };
            self.told.insert(name.clone(), self.generation);
            self.topics.insert(name, Arc::new(info));
        }
        refused
    }

    /// Drops what is known of a topic.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
        self.told.remove(topic);
    }

    /// Takes in what an answer to a produce or fetch says of a partition's leader.
    pub(crate) fn lead(&mut self, topic: &str, partition: i32, leader: i32, epoch: i32) -> bool {
        let Some(info) = self.topics.get_mut(topic) else {
            return false;
        };
        if leader < 0 || !self.brokers.contains_key(&leader) {
            return false;
        }
        let newer = info
            .partition(partition)
            .is_some_and(|p| p.leader_epoch < epoch);
        if newer {
            let info = Arc::make_mut(info);
            if let Some(p) = info.partitions.iter_mut().find(|p| p.number == partition) {
                p.leader = Some(leader);
                p.leader_epoch = epoch;
            }
        }
        newer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use riverrun_wire::api::metadata::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };

    use super::*;

    fn answer(id: u128, leader: i32, epoch: i32) -> MetadataResponse {
        MetadataResponse {
            brokers: [1, 2]
                .map(|node_id| MetadataResponseBroker {
                    node_id,
                    host: "h".into(),
                    port: 9,
                    rack: None,
                })
                .to_vec(),
            topics: vec![MetadataResponseTopic {
                name: Some("t".into()),
                topic_id: Uuid::from_u128(id),
                partitions: vec![MetadataResponsePartition {
                    leader_id: leader,
                    leader_epoch: epoch,
                    ..MetadataResponsePartition::default()
                }],
                ..MetadataResponseTopic::default()
            }],
            ..MetadataResponse::default()
        }
    }

    fn leader(picture: &Picture) -> (Option<i32>, i32) {
        let partition = picture.topics.get("t").unwrap().partition(0).unwrap();
        (partition.leader, partition.leader_epoch)
    }

    #[test]
    fn an_older_leader_does_not_replace_a_newer_one() {
        let mut picture = Picture::default();
        picture.take(answer(7, 1, 5));
        picture.take(answer(7, 2, 4));
        assert_eq!(leader(&picture), (Some(1), 5));
        picture.take(answer(7, 2, 6));
        assert_eq!(leader(&picture), (Some(2), 6));
        // The topic was deleted and created again: its epochs begin anew.
        picture.take(answer(8, 1, 0));
        assert_eq!(leader(&picture), (Some(1), 0));
    }

    #[test]
    fn a_hint_is_taken_if_it_is_newer_and_names_a_known_broker() {
        let mut picture = Picture::default();
        picture.take(answer(7, 1, 5));
        assert!(!picture.lead("t", 0, 9, 6));
        assert!(!picture.lead("t", 0, 2, 5));
        assert!(!picture.lead("t", 0, -1, 6));
        assert!(!picture.lead("u", 0, 2, 6));
        assert!(picture.lead("t", 0, 2, 6));
        assert_eq!(leader(&picture), (Some(2), 6));
    }

    #[test]
    fn a_topic_is_newer_only_by_an_answer_that_it_was_in() {
        let mut picture = Picture::default();
        let names = ["t".to_owned()];
        assert!(!picture.is_newer(&names, 0));
        picture.take(answer(7, 1, 5));
        assert!(picture.is_newer(&names, 0) && !picture.is_newer(&names, 1));
        let mut other = answer(7, 1, 5);
        other.topics[0].name = Some("u".into());
        picture.take(other);
        assert!(picture.is_newer(&names, 0) && !picture.is_newer(&names, 1));
        assert!(picture.is_newer(&[], 1) && !picture.is_newer(&[], 2));
        picture.forget("t");
        assert!(!picture.is_newer(&names, 0));
    }

    #[test]
    fn a_refused_topic_is_reported_and_forgotten_if_it_is_gone() {
        let mut picture = Picture::default();
        picture.take(answer(7, 1, 5));
        let mut gone = answer(7, 1, 5);
        gone.topics[0].error_code = 3;
        let refused = picture.take(gone);
        assert_eq!(refused.get("t"), Some(&ErrorCode::UnknownTopicOrPartition));
        assert!(picture.topics.is_empty());
    }
}
