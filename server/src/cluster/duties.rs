//! When the node that leads group 0 looks what there is to do, and with what it knows of the others.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::controller::{BrokerImage, ClosedTopics, Controller};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use crate::broker::Broker;

/// It is looked at what there is to do when something changed, and so often besides.
const EVERY: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    changed: Notify,
    closed: Mutex<ClosedTopics>,
}

impl Duties {
    /// There may be something to do.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// A node has closed and deleted what it had of a topic.
    pub(crate) fn closed(&self, topic: Uuid, node: i32) {
        if self.closed.lock().closed(topic, node) {
            self.look();
        }
    }
}

/// Sees to it all until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>) {
    let mut leads_since = None;
    loop {
        let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) else {
            return;
        };
        let changed = broker.duties().changed.notified();
        let _ = tokio::time::timeout(EVERY, changed).await;
        if !broker.leads_controller() {
            leads_since = None;
            continue;
        }
        let since = *leads_since.get_or_insert_with(Instant::now);
        see_to_it(&broker, since).await;
    }
}

async fn see_to_it(broker: &Arc<Broker>, leads_since: Instant) {
    let plan = |controller: &Controller| {
        let mut closed = broker.duties().closed.lock();
        closed.retain(controller);
        controller.duties(|node| is_silent(broker, node, leads_since), &closed)
    };
    let mut any = false;
    broker
        .catalog()
        .plan(|controller| any = !plan(controller).is_empty());
    // The turn of changes is taken only where there is one to make.
    if any
        && let Err(error) = broker
            .catalog()
            .change(broker, |controller| Ok(plan(controller)))
            .await
    {
        info!(%error, "the cluster's state is not changed yet");
    }
}

/// Whether a node counts as out of service. One that was never heard counts from when this one began
/// to look, and does not come back before it is.
fn is_silent(broker: &Broker, node: &BrokerImage, leads_since: Instant) -> Option<bool> {
    if node.node == broker.config().node_id {
        return Some(false);
    }
    let heard = broker.peers().last_heard(node.node);
    let silent_for = heard.unwrap_or_else(|| leads_since.elapsed());
    let silent = silent_for >= broker.config().session_timeout;
    if silent && !node.fenced {
        let silent_s = silent_for.as_secs();
        warn!(node = node.node, silent_s, "a node is out of service");
    }
    (silent || heard.is_some()).then_some(silent)
}
