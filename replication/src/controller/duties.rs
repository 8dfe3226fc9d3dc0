//! What the controller's leader sees to by itself: nodes that fell silent are fenced, and a topic that is
//! being deleted is forgotten when it is closed (L8). A node whose replicas are lost has them replaced
//! itself (R9). Nothing is remembered that the next leader would need: each looks at the image again, and
//! what nodes have said of closed topics they say again as long as the topic is there.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use super::Controller;
use super::command::{Command, FenceBroker};
use super::image::{BrokerImage, ReplicaImage, TopicImage};

/// The nodes that have deleted what they had of topics that are being deleted.
#[derive(Debug, Clone, Default)]
pub struct ClosedTopics {
    nodes: BTreeMap<Uuid, BTreeSet<i32>>,
}

impl ClosedTopics {
    /// A node accepts nothing more for a topic and has deleted its replicas; whether that is new.
    pub fn closed(&mut self, topic: Uuid, node: i32) -> bool {
        self.nodes.entry(topic).or_default().insert(node)
    }

    /// Keeps what is still of use.
    pub fn retain(&mut self, controller: &Controller) {
        let topics = &controller.image().topics;
        self.nodes
            .retain(|id, _| topics.get(id).is_some_and(|topic| topic.closing));
    }

    /// Whether nothing can be acknowledged for a topic any more: of each partition so many replicas are
    /// gone that no majority of them will ever hold another entry. Where replicas move, the image does not
    /// say who votes now, and that holds of whoever may.
    fn is_closed(&self, topic: &TopicImage) -> bool {
        let nobody = BTreeSet::new();
        let nodes = self.nodes.get(&topic.id).unwrap_or(&nobody);
        if planted::is(Bug::L8) {
            return true;
        }
        let has_no_majority = |voters: &[ReplicaImage]| {
            let gone = voters.iter();
            let gone = gone.filter(|replica| nodes.contains(&replica.node)).count();
            gone > voters.len() / 2
        };
        topic
            .partitions
            .iter()
            .all(|partition| partition.possible_voters().all(has_no_majority))
    }
}

impl Controller {
    /// The commands that the leader of group 0 has to write now. `is_silent` says of a node whether
    /// it counts as out of service, `None` where that is not known yet.
    #[must_use]
    pub fn duties(
        &self,
        is_silent: impl Fn(&BrokerImage) -> Option<bool>,
        closed: &ClosedTopics,
    ) -> Vec<Command> {
        let image = self.image();
        let fence = image.brokers.values().filter_map(|broker| {
            let fenced = is_silent(broker)?;
            (fenced != broker.fenced).then_some(Command::FenceBroker(FenceBroker {
                node: broker.node,
                fenced,
            }))
        });
        let closing = image.topics.values().filter(|topic| topic.closing);
        let remove = closing
            .filter(|topic| closed.is_closed(topic))
            .filter_map(|topic| self.plan_remove_topic(&topic.id).ok());
        fence.chain(remove).collect()
    }
}
