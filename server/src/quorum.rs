//! The controller's log and its replicas, by the word of whoever leads it.

use std::time::Duration;

use riverrun_replication::controller::QuorumReplica as Replica;
use riverrun_replication::node::CONTROLLER_GROUP;
use uuid::Uuid;

use crate::broker::Broker;
use crate::cluster::protocol::{AskQuorum, Question, Quorum, QuorumReplica, Reply};
use crate::peers::Callee;
use crate::start::TICK;

/// How long the node that leads group 0 may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

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
    /// What this node knows as the leader of group 0; nothing of the replicas where it is not.
    pub(crate) fn led_quorum(&self) -> Quorum {
        let Some(handle) = self.runtime().handle(CONTROLLER_GROUP) else {
            return Quorum::default();
        };
        let ms = |ticks: u32| i64::from(ticks) * i64::try_from(TICK.as_millis()).unwrap_or(0);
        let (progress, published) = (handle.progress(), handle.published());
        let replicas = progress.iter().map(|progress| QuorumReplica {
            replica: progress.replica,
            // What was noted at the last tick is older than the watermark; of itself it knows more.
            end_offset: if progress.replica == handle.replica() {
                progress.end_offset.max(published.end_offset)
            } else {
                progress.end_offset
            },
            silent_ms: ms(progress.silent_ticks),
            lagging_ms: ms(progress.lagging_ticks),
        });
        Quorum {
            high_watermark: published.high_watermark,
            replicas: replicas.collect(),
        }
    }

    /// The controller's log as its leader sees it; where that is not to be reached, as this node does.
    pub(crate) async fn quorum(&self) -> QuorumView {
        let leader = self.controller_node();
        let known = if leader == self.config().node_id || leader < 0 {
            self.led_quorum()
        } else {
            let question = Question::Quorum(AskQuorum {}).into_bytes();
            let answer = self
                .peers()
                .call(Callee::Node(leader), question, ANSWER_WAIT);
            match answer.await.map(Reply::from_bytes) {
                Ok(Some(Reply::Quorum(quorum))) => quorum,
                _ => self.led_quorum(),
            }
        };
        self.view(leader, &known)
    }

    fn view(&self, leader_id: i32, known: &Quorum) -> QuorumView {
        let handle = self.runtime().handle(CONTROLLER_GROUP);
        let published = handle.map(|handle| handle.published());
        let own = self.config().node_id;
        let mut replicas = self.catalog().read(|image| image.quorum.replicas.clone());
        replicas.sort_by_key(|replica| replica.at.node);
        let said = self.leaders().of_group(CONTROLLER_GROUP);
        let terms = published.map(|published| published.term).into_iter();
        let term = terms.chain(said.map(|lead| lead.term)).max();
        let now = self.now_ms();
        let view = |replica: &Replica| {
            let found = known
                .replicas
                .iter()
                .find(|r| r.replica == replica.at.replica);
            let of_own = published.filter(|_| replica.at.node == own);
            let leads = replica.at.node == leader_id;
            ReplicaView {
                node: replica.at.node,
                directory: replica.at.directory,
                log_end_offset: found.map_or_else(
                    || of_own.map_or(-1, |published| published.end_offset),
                    |found| found.end_offset,
                ),
                // A leader does not ask itself, and always has everything.
                last_fetch_ms: found
                    .filter(|_| !leads)
                    .map_or(-1, |found| now - found.silent_ms),
                last_caught_up_ms: found
                    .map_or(if leads { now } else { -1 }, |found| now - found.lagging_ms),
            }
        };
        let of_kind = |votes: bool| {
            let chosen = replicas.iter().filter(|replica| replica.votes == votes);
            chosen.map(view).collect()
        };
        let high_watermark = if known.replicas.is_empty() {
            published.map_or(-1, |published| published.high_watermark)
        } else {
            known.high_watermark
        };
        QuorumView {
            leader_id,
            leader_epoch: term.map_or(-1, |term| i32::try_from(term).unwrap_or(i32::MAX)),
            high_watermark,
            voters: of_kind(true),
            observers: of_kind(false),
        }
    }
}
