//! What the node that leads group 0 sees to: nodes that fell silent are fenced, replicas whose disk
//! was lost are replaced (R3), and a topic that is being deleted is forgotten when it is closed (L8).
//!
//! Nothing is remembered that the next leader would need: each looks at the image again, and what
//! nodes have said of closed topics they say again as long as the topic is there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::controller::{Command, Controller, FenceBroker, Image, TopicImage};
use riverrun_replication::node::CONTROLLER_GROUP;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use crate::broker::Broker;

/// It is looked at what there is to do when something changed, and so often besides.
const EVERY: Duration = Duration::from_millis(500);
/// Commands of one kind that are written at once.
const MOST_COMMANDS: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    changed: Notify,
    /// The nodes that accept nothing more for a topic that is being deleted.
    closed: Mutex<FxHashMap<Uuid, FxHashSet<i32>>>,
}

impl Duties {
    /// There may be something to do.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// A node has closed and deleted what it had of a topic.
    pub(crate) fn closed(&self, topic: Uuid, node: i32) {
        let is_new = self.closed.lock().entry(topic).or_default().insert(node);
        if is_new {
            self.look();
        }
    }

    /// Whether nothing can be acknowledged for the topic any more: of each partition as many replicas
    /// are gone as would have to hold an entry.
    fn is_closed(&self, topic: &TopicImage) -> bool {
        let closed = self.closed.lock();
        let Some(nodes) = closed.get(&topic.id) else {
            return topic.partitions.is_empty();
        };
        topic.partitions.iter().all(|partition| {
            let gone = partition.replicas.iter();
            let gone = gone.filter(|replica| nodes.contains(&replica.node)).count();
            gone > partition.replicas.len() / 2
        })
    }

    fn forget_all_but(&self, image: &Image) {
        let mut closed = self.closed.lock();
        closed.retain(|id, _| image.topics.get(id).is_some_and(|topic| topic.closing));
    }
}

/// Sees to it all until the broker is gone.
pub(crate) async fn follow(broker: Weak<Broker>) {
    let mut leads_since = None;
    loop {
        let Some(broker) = broker.upgrade().filter(|broker| !broker.is_stopping()) else {
            return;
        };
        {
            let changed = broker.duties().changed.notified();
            let _ = tokio::time::timeout(EVERY, changed).await;
        }
        let handle = broker.runtime().handle(CONTROLLER_GROUP);
        if handle.is_none_or(|handle| !handle.published().ready) {
            leads_since = None;
            continue;
        }
        let since = *leads_since.get_or_insert_with(Instant::now);
        see_to_it(&broker, since).await;
    }
}

async fn see_to_it(broker: &Arc<Broker>, leads_since: Instant) {
    let plan = |controller: &Controller| {
        let image = controller.image();
        let mut commands = liveness(broker, image, leads_since);
        for (topic, number, replica) in image.lost_replicas().take(MOST_COMMANDS) {
            // With one replica there is nobody to fill another from: it is lost, and says so.
            if topic
                .partitions
                .get(number)
                .is_none_or(|partition| partition.replicas.len() < 2)
            {
                continue;
            }
            let replace =
                controller.plan_replace_replica(&topic.id, number, replica.replica, replica.node);
            match replace {
                Ok(command) => commands.push(command),
                Err(error) => warn!(topic = topic.name, %error, "a lost replica stays lost"),
            }
        }
        let closing = image.topics.values().filter(|topic| topic.closing);
        for topic in closing.filter(|topic| broker.duties().is_closed(topic)) {
            match controller.plan_remove_topic(&topic.id) {
                Ok(command) => commands.push(command),
                Err(error) => warn!(topic = topic.name, %error, "a closed topic is not forgotten"),
            }
        }
        broker.duties().forget_all_but(image);
        Ok(commands)
    };
    let anything = {
        let mut any = false;
        broker.catalog().plan(|controller| {
            any = plan(controller).is_ok_and(|commands: Vec<_>| !commands.is_empty())
        });
        any
    };
    // The turn of changes is taken only where there is one to make.
    if anything && let Err(error) = broker.catalog().change(broker, plan).await {
        info!(%error, "the cluster's state is not changed yet");
    }
}

/// Nodes that fell silent are fenced, and those that are heard again are not.
fn liveness(broker: &Broker, image: &Image, leads_since: Instant) -> Vec<Command> {
    let own = broker.config().node_id;
    let timeout = broker.config().session_timeout;
    let mut commands = Vec::new();
    for node in image.brokers.values() {
        let silent_for = if node.node == own {
            Duration::ZERO
        } else {
            // A node that was never heard counts from when this one began to listen.
            let heard = broker.peers().last_heard(node.node);
            heard.unwrap_or_else(|| leads_since.elapsed())
        };
        let fenced = silent_for >= timeout;
        if fenced == node.fenced {
            continue;
        }
        if fenced {
            warn!(
                node = node.node,
                silent_s = silent_for.as_secs(),
                "a node is fenced"
            );
        } else if broker.peers().last_heard(node.node).is_none() && node.node != own {
            continue;
        } else {
            info!(node = node.node, "a node is back");
        }
        commands.push(Command::FenceBroker(FenceBroker {
            node: node.node,
            fenced,
        }));
    }
    commands
}
