//! Clients of a node that is cut off are sent away, so that they find who leads (X2).
//!
//! Whoever answers a request notes what it refused for want of a leader; [`Broker::refused`] has the
//! connection closed behind that answer where the rules of [`riverrun_replication::cut_off`] say so.
//! What `cluster health` asks (DescribeCluster, DescribeQuorum, Metadata of all topics) is never noted:
//! whoever looks at a node that is cut off is to see what it knows.

use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::controller::Image;
use riverrun_replication::cut_off::{
    SentAway, concerns_others, is_cut_off, quorum_concerns_others,
};
use riverrun_wire::ErrorCode;
use tokio::time::Instant;

use crate::broker::{Broker, PartitionState};
use crate::catalog::ChangeError;
use crate::error;
use crate::net::connection::Connection;
use crate::partition::Partition;
use crate::topics::TopicPartition;

/// Between two looks of whoever waits.
const LOOK: Duration = Duration::from_millis(100);

/// What the broker keeps for it.
#[derive(Debug)]
pub(crate) struct CutOff {
    /// When this node began: times are milliseconds since.
    since: Instant,
    sent_away: Mutex<SentAway>,
}

impl Default for CutOff {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            sent_away: Mutex::default(),
        }
    }
}

impl CutOff {
    fn ms(&self, at: Instant) -> u64 {
        ms(at.saturating_duration_since(self.since))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an error may say that a leader is wanting.
fn may_lack_leader(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::OffsetNotAvailable
    )
}

impl PartitionState {
    /// Whether a request that was answered with this error was refused for want of a leader: none is
    /// known here, or this node cannot be sure that it leads.
    fn lacks_leader(&self, own: i32, error: ErrorCode) -> bool {
        let is_named = self.leader >= 0 && error != ErrorCode::OffsetNotAvailable;
        may_lack_leader(error) && !is_named && concerns_others(own, self.replicas.iter().copied())
    }
}

impl Broker {
    /// Whether a request to this node's replica was refused for want of a leader.
    pub(crate) fn lacks_leader(&self, at: &Partition, error: ErrorCode) -> bool {
        let own = self.config().node_id;
        // What most answers hold is not looked into.
        may_lack_leader(error)
            && self
                .shown(at)
                .is_some_and(|state| state.lacks_leader(own, error))
    }

    /// The same of any partition.
    pub(crate) fn lacks_leader_at(&self, at: Option<&TopicPartition>, error: ErrorCode) -> bool {
        let own = self.config().node_id;
        at.is_some_and(|at| self.state_of(at).lacks_leader(own, error))
    }

    /// What a change of the cluster that did not happen is answered. Where nobody leads group 0 it was
    /// refused for want of a leader.
    pub(crate) fn refused_change(
        &self,
        connection: &Connection,
        error: &ChangeError,
    ) -> (ErrorCode, String) {
        let own = self.config().node_id;
        let shared = |image: &Image| quorum_concerns_others(own, &image.quorum);
        if error.is_unknown() && self.controller_node() < 0 && self.catalog().read(shared) {
            self.refused(connection);
        }
        (error::of_change(error), error.to_string())
    }

    /// Until when a connection that was just opened is to wait for its first answer, if it is: its address
    /// was sent away a moment ago, and this node is cut off still.
    pub(crate) fn held_until(&self, connection: &Connection) -> Option<Instant> {
        let kept = self.cut_off();
        let now_ms = kept.ms(Instant::now());
        let address = connection.peer().ip();
        let until_ms = kept.sent_away.lock().held_until(address, now_ms)?;
        self.is_cut_off()
            .then(|| kept.since + Duration::from_millis(until_ms))
    }

    /// Waits until this node is cut off: who needs the cluster for an answer is told so then, and asks
    /// another node.
    pub(crate) async fn until_cut_off(&self) {
        while !self.is_cut_off() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether this node of several hears no majority of group 0's voters.
    pub(crate) fn is_cut_off(&self) -> bool {
        let now_ms = self.cut_off().ms(Instant::now());
        let own = self.config().node_id;
        let heard = |node: i32| self.peers().last_heard(node).map(ms);
        self.catalog()
            .read(|image| is_cut_off(&image.quorum, own, now_ms, heard))
    }

    /// An answer that refused something for want of a leader is given to this connection: it is closed
    /// behind it where this node is cut off and the client has not been sent away just now.
    pub(crate) fn refused(&self, connection: &Connection) {
        let kept = self.cut_off();
        let now_ms = kept.ms(Instant::now());
        if !self.is_cut_off() {
            return;
        }
        let (address, opened_ms) = (connection.peer().ip(), kept.ms(connection.opened()));
        if kept.sent_away.lock().sends_away(address, opened_ms, now_ms) {
            connection.send_away();
        }
    }
}
