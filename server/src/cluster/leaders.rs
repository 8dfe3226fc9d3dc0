//! Who leads what, shared by the threads of the broker, and told to the other nodes (L6).

use std::sync::Weak;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use riverrun_replication::leaders::{Lead, LeaderTable, announce};
use riverrun_replication::{Published, Role};
use rustc_hash::FxHashSet;
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::net::burst;

/// What other nodes have said, and what is to be told to them.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    table: RwLock<LeaderTable>,
    /// What is to be told. One task tells all of it: what is read of a partition later is said later, and
    /// nobody hears last what was true first.
    to_tell: Mutex<ToTell>,
    any: Notify,
}

#[derive(Debug, Default)]
struct ToTell {
    /// Groups of this node whose leadership changed since the last announcement.
    changed: FxHashSet<u64>,
    /// Nodes that there is a new link to, which begins with all of it.
    links: FxHashSet<i32>,
}

impl Leaders {
    /// What the leader of a group that is not this node has said.
    pub(crate) fn of_group(&self, group: u64) -> Option<Lead> {
        self.table.read().get(group)
    }

    /// Takes in what a node says of itself; whether anything is new.
    pub(crate) fn hear(&self, node: i32, announcement: Bytes) -> bool {
        self.table.write().hear(node, announcement)
    }

    /// A node is not heard any more.
    pub(crate) fn gone(&self, node: i32) {
        self.table.write().gone(node);
    }

    /// A node is heard again.
    pub(crate) fn heard(&self, node: i32) {
        self.table.write().heard(node);
    }

    /// A node was started anew.
    pub(crate) fn started(&self, node: i32) {
        self.table.write().started(node);
    }

    /// What this node's own replica of a group shows now.
    pub(crate) fn know(&self, group: u64, published: &Published, leader: Option<i32>) {
        self.table.write().know(group, published, leader);
    }

    /// A group is no more.
    pub(crate) fn forget(&self, group: u64) {
        self.table.write().forget(group);
    }

    /// Notes that this node's replica of a group changed.
    pub(crate) fn changed(&self, group: u64) {
        self.to_tell.lock().changed.insert(group);
        self.any.notify_one();
    }

    /// Notes that there is a new link to a node.
    pub(crate) fn link_up(&self, node: i32) {
        self.to_tell.lock().links.insert(node);
        self.any.notify_one();
    }

    /// Waits until there is something to tell and takes it.
    async fn take(&self) -> ToTell {
        loop {
            let to_tell = std::mem::take(&mut *self.to_tell.lock());
            if !to_tell.changed.is_empty() || !to_tell.links.is_empty() {
                return to_tell;
            }
            self.any.notified().await;
        }
    }
}

/// Tells every node of each change, and all of it where a link is new, until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>) {
    // Groups that the others take this node for the leader of.
    let mut told = FxHashSet::default();
    while let Some(broker) = broker.upgrade() {
        let to_tell = broker.leaders().take().await;
        let mut say = Vec::new();
        for group in to_tell.changed {
            let Some(handle) = broker.runtime().handle(group) else {
                told.remove(&group);
                continue;
            };
            let leads = handle.published().role == Role::Leader;
            let knew = if leads {
                !told.insert(group)
            } else {
                told.remove(&group)
            };
            if leads || knew {
                say.push(handle);
            }
        }
        if !say.is_empty() {
            burst::run(&broker, || {
                for announcement in announce(&say) {
                    broker.peers().announce_all(&announcement);
                }
            });
        }
        if !to_tell.links.is_empty() {
            let handles = broker.runtime().handles();
            burst::run(&broker, || {
                for announcement in announce(&handles) {
                    for node in &to_tell.links {
                        broker.peers().announce(*node, announcement.clone());
                    }
                }
            });
        }
    }
}
