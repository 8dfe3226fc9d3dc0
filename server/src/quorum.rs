//! What this node knows of the controller's log and its replicas.

use riverrun_replication::node::CONTROLLER_GROUP;
use uuid::Uuid;

use crate::broker::Broker;

/// The controller's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuorumView {
    /// The node that leads it; -1 for nobody.
    pub(crate) leader_id: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) high_watermark: i64,
    /// Those that vote, by node.
    pub(crate) voters: Vec<ReplicaView>,
    /// Those that only follow, by node.
    pub(crate) observers: Vec<ReplicaView>,
}

/// One of its replicas; -1 stands for what is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaView {
    pub(crate) node: i32,
    pub(crate) directory: Uuid,
    pub(crate) log_end_offset: i64,
    pub(crate) last_fetch_ms: i64,
    pub(crate) last_caught_up_ms: i64,
}

impl Broker {
    /// The controller's log as this node sees it: how far others are only their leader knows.
    pub(crate) fn quorum(&self) -> QuorumView {
        let handle = self.runtime().handle(CONTROLLER_GROUP);
        let published = handle.map(|handle| handle.published());
        let own = self.config().node_id;
        let mut replicas = self.catalog().read(|image| image.quorum.replicas.clone());
        replicas.sort_by_key(|replica| replica.at.node);
        let leader_id = self.controller_node();
        let said = self.leaders().of_group(CONTROLLER_GROUP);
        let terms = published.map(|published| published.term).into_iter();
        let term = terms.chain(said.map(|lead| lead.term)).max();
        let view = |node: i32, directory: Uuid| {
            let of_own = published.filter(|_| node == own);
            let leads = node == leader_id && node == own;
            ReplicaView {
                node,
                directory,
                log_end_offset: of_own.map_or(-1, |published| published.end_offset),
                // A leader does not ask itself, and always has everything.
                last_fetch_ms: -1,
                last_caught_up_ms: if leads { self.now_ms() } else { -1 },
            }
        };
        let of_kind = |votes: bool| {
            let chosen = replicas.iter().filter(|replica| replica.votes == votes);
            chosen
                .map(|replica| view(replica.at.node, replica.at.directory))
                .collect()
        };
        let mut voters: Vec<ReplicaView> = of_kind(true);
        if voters.is_empty() {
            // A cluster whose log names no replicas has this one.
            voters.push(view(own, self.runtime().node().directory_id()));
        }
        QuorumView {
            leader_id,
            leader_epoch: term.map_or(-1, |term| i32::try_from(term).unwrap_or(i32::MAX)),
            high_watermark: published.map_or(-1, |published| published.high_watermark),
            voters,
            observers: of_kind(false),
        }
    }
}
