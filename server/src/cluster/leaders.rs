//! Who leads what, by the word of the leaders themselves (L6).
//!
//! A node tells every other one what it leads: all of it when the link is up, and then each change.
//! A link is ordered, and another link begins with all of it again, so nothing has to be repeated or
//! acknowledged. The greater term wins; who leads no longer says so, in the same term. Metadata is
//! answered by the greater of this table and this node's own replica.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use riverrun_replication::{PartitionHandle, Role};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::net::burst;

/// The longest announcement is below this; a table is told in several.
const MAX_ENTRIES: usize = 10_000;

#[derive(Clone, PartialEq, Message)]
struct Announcement {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "1")]
    group: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    /// Whether the node leads in that term; it says so, too, when it has ceased to.
    #[prost(bool, tag = "3")]
    leads: bool,
    /// The replicas in sync.
    #[prost(uint64, repeated, tag = "4")]
    in_sync: Vec<u64>,
}

/// A leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) term: u64,
    /// -1: it has ceased to lead.
    pub(crate) node: i32,
    pub(crate) in_sync: Arc<[u64]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    table: RwLock<FxHashMap<u64, Lead>>,
    /// Groups of this node whose leadership changed since the last announcement.
    changed: Mutex<FxHashSet<u64>>,
    any: Notify,
}

impl Leaders {
    /// What the leader of a group that is not this node has said.
    pub(crate) fn of_group(&self, group: u64) -> Option<Lead> {
        self.table.read().get(&group).cloned()
    }

    /// Notes that this node's replica of a group changed.
    pub(crate) fn changed(&self, group: u64) {
        self.changed.lock().insert(group);
        self.any.notify_one();
    }

    /// Waits until something changed and takes it.
    pub(crate) async fn take_changed(&self) -> Vec<u64> {
        loop {
            self.any.notified().await;
            let changed: Vec<u64> = self.changed.lock().drain().collect();
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// Takes in what a node says of itself; whether anything is new.
    pub(crate) fn announced(&self, node: i32, announcement: Bytes) -> bool {
        let Ok(announcement) = Announcement::decode(announcement) else {
            return false;
        };
        let mut table = self.table.write();
        let mut any = false;
        for entry in announcement.entries {
            let known = table.get(&entry.group);
            let counts = known.is_none_or(|known| {
                entry.term > known.term
                    || (entry.term == known.term && (known.node == node || known.node < 0))
            });
            if !counts {
                continue;
            }
            let lead = Lead {
                term: entry.term,
                node: if entry.leads { node } else { -1 },
                in_sync: entry.in_sync.into(),
            };
            if known != Some(&lead) {
                any = true;
                table.insert(entry.group, lead);
            }
        }
        any
    }

    /// A group is no more.
    pub(crate) fn forget(&self, group: u64) {
        self.table.write().remove(&group);
    }
}

/// What this node says of its replicas.
pub(crate) fn announcements(handles: &[PartitionHandle]) -> Vec<Bytes> {
    let of_one = |handle: &PartitionHandle| {
        let published = handle.published();
        Entry {
            group: handle.group(),
            term: published.term,
            leads: published.role == Role::Leader,
            in_sync: handle.in_sync().to_vec(),
        }
    };
    let of_some = |some: &[PartitionHandle]| {
        let entries = some.iter().map(of_one).collect();
        Announcement { entries }.encode_to_vec().into()
    };
    handles.chunks(MAX_ENTRIES).map(of_some).collect()
}

/// Tells every node of each change, until the broker is gone.
pub(crate) async fn announce(broker: Weak<Broker>) {
    // Groups that the others take this node for the leader of.
    let mut told = FxHashSet::default();
    loop {
        let changed = {
            let Some(broker) = broker.upgrade() else {
                return;
            };
            broker.leaders().take_changed().await
        };
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let mut say = Vec::new();
        for group in changed {
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
        if say.is_empty() {
            continue;
        }
        burst::run(&broker, || {
            for announcement in announcements(&say) {
                broker.peers().announce_all(&announcement);
            }
        });
    }
}
