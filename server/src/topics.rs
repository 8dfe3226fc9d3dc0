//! The topics as requests see them: the controller's image, with this node's partitions in it.
//!
//! The image changes when a command is committed; this table follows when the groups of it exist
//! on this node, so a topic that is found here can be produced to as soon as its partitions lead.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use riverrun_replication::controller::ReplicaImage;
use riverrun_replication::reconciler::Standing;
use riverrun_wire::ErrorCode;
use rustc_hash::FxHashMap;
use uuid::Uuid;

use crate::config::TopicSettings;
use crate::partition::Partition;

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) name: Arc<str>,
    /// The settings that it was given.
    pub(crate) given: BTreeMap<String, String>,
    /// Those over the defaults.
    pub(crate) settings: Arc<TopicSettings>,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// A partition of a topic, on this node or elsewhere.
#[derive(Debug)]
pub(crate) struct TopicPartition {
    pub(crate) group: u64,
    pub(crate) replicas: Vec<ReplicaImage>,
    /// This node's replica of it.
    pub(crate) local: Option<Arc<Partition>>,
    /// This node has a replica of it that is not open, and what is the matter with it.
    pub(crate) unopened: Option<Standing>,
    /// This node was ordered to create a replica of it and could not yet.
    pub(crate) missing: bool,
}

impl TopicPartition {
    /// This node's replica, or why there is none.
    pub(crate) fn here(&self) -> Result<&Arc<Partition>, ErrorCode> {
        match &self.local {
            Some(local) => Ok(local),
            None if self.unopened.is_some() || self.missing => Err(ErrorCode::KafkaStorageError),
            None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }
}

impl Topic {
    /// The partition of a number that a client sent.
    pub(crate) fn partition(&self, index: i32) -> Option<&TopicPartition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// Every topic that is not being deleted.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: FxHashMap<Uuid, Arc<Topic>>,
    by_group: FxHashMap<u64, Arc<Partition>>,
}

impl Topics {
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Topic>> {
        self.tables.read().by_name.get(name).cloned()
    }

    pub(crate) fn with_id(&self, id: &Uuid) -> Option<Arc<Topic>> {
        self.tables.read().by_id.get(id).cloned()
    }

    pub(crate) fn of_group(&self, group: u64) -> Option<Arc<Partition>> {
        self.tables.read().by_group.get(&group).cloned()
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.tables.read().by_name.values().cloned().collect()
    }

    /// Those whose names lie at or behind `from`, in order, `count` at most.
    pub(crate) fn starting_at(&self, from: &str, count: usize) -> Vec<Arc<Topic>> {
        let tables = self.tables.read();
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
        tables
            .by_name
            .range::<str, _>(range)
            .take(count)
            .map(|(_, topic)| Arc::clone(topic))
            .collect()
    }

    /// Adds a topic, or puts a changed one in the place of what was known of it.
    pub(crate) fn put(&self, topic: Arc<Topic>) {
        let mut tables = self.tables.write();
        for partition in topic.partitions.iter().filter_map(|p| p.local.as_ref()) {
            tables
                .by_group
                .insert(partition.handle().group(), Arc::clone(partition));
        }
        tables.by_id.insert(topic.id, Arc::clone(&topic));
        tables.by_name.insert(Arc::clone(&topic.name), topic);
    }

    /// A group has no replica on this node any more; another one may take its place.
    pub(crate) fn forget_group(&self, group: u64) {
        let gone = self.tables.write().by_group.remove(&group);
        if let Some(partition) = gone {
            partition.close();
        }
    }

    /// Takes a topic out and returns it. Its partitions accept nothing from now on.
    pub(crate) fn take(&self, id: &Uuid) -> Option<Arc<Topic>> {
        let mut tables = self.tables.write();
        let topic = tables.by_id.remove(id)?;
        tables.by_name.remove(&topic.name);
        for partition in topic.partitions.iter().filter_map(|p| p.local.as_ref()) {
            tables.by_group.remove(&partition.handle().group());
            partition.close();
        }
        Some(topic)
    }
}
