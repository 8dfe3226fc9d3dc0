//! Which node a replica is on.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use riverrun_replication::message::PeerMessage;
use rustc_hash::FxHashMap;

/// By group and replica. Ids are never used again, so what is known stays true.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    nodes: RwLock<FxHashMap<(u64, u64), i32>>,
    /// The controller's image has said where the replicas are.
    told: AtomicBool,
}

impl Routes {
    pub(crate) fn node_of(&self, group: u64, replica: u64) -> Option<i32> {
        self.nodes.read().get(&(group, replica)).copied()
    }

    pub(crate) fn add(&self, group: u64, replicas: impl Iterator<Item = (u64, i32)>) {
        let mut nodes = self.nodes.write();
        for (replica, node) in replicas {
            nodes.insert((group, replica), node);
        }
    }

    /// The controller's image says from now on where replicas are.
    pub(crate) fn are_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Learns where replicas are from what they say, while there is no image that would tell: groups go on
    /// without the controller's log (R17).
    pub(crate) fn learn(&self, node: i32, messages: &[PeerMessage]) {
        if !self.told.load(Ordering::Relaxed) {
            for message in messages {
                self.add(message.group, std::iter::once((message.from, node)));
            }
        }
    }

    /// Forgets the replicas of a group that this node has none of any more.
    pub(crate) fn forget(&self, group: u64) {
        self.nodes.write().retain(|(of, _), _| *of != group);
    }

    /// The replicas on a node.
    pub(crate) fn on_node(&self, node: i32) -> Vec<(u64, u64)> {
        let nodes = self.nodes.read();
        let there = nodes.iter().filter(|(_, at)| **at == node);
        there.map(|(replica, _)| *replica).collect()
    }
}
