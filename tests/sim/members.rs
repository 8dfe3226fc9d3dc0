//! The members that groups are to have: what every node tells its replicas of its own image, and
//! whether a group has come to it.

use riverrun_replication::controller::Image;
use riverrun_replication::members::Members;
use riverrun_replication::shard::Input;

use crate::world::{CONTROLLER, World};

impl World {
    /// The members of a group by an image, and the learner that the plan wants beside them.
    pub(crate) fn members_by(&self, image: &Image, group: u64) -> Option<Members> {
        if group == CONTROLLER {
            let members = Members {
                voters: image.quorum.ids(true).collect(),
                learners: image.quorum.ids(false).collect(),
                next_replica: image.quorum.next_replica(),
            };
            return (!members.voters.is_empty()).then_some(members);
        }
        let partition = image.partition_of_group(group)?;
        Some(Members {
            voters: partition.replicas.iter().map(|at| at.replica).collect(),
            learners: self.learner_of(group).into_iter().collect(),
            next_replica: image.next_replica,
        })
    }

    /// The members that a group should have by the image of the controller's leader.
    #[must_use]
    pub fn members_wanted(&self, group: u64) -> Option<Members> {
        let leader = self.leader_of(CONTROLLER)?;
        self.members_by(self.process(leader)?.controller.image(), group)
    }

    /// Every replica of a node is told the members that the node's own image wants of its group.
    pub fn want_members(&mut self, node: usize) {
        let Some(process) = self.process(node) else {
            return;
        };
        let image = process.controller.image();
        let mut news = Vec::new();
        for handle in process.node.handles() {
            let group = handle.group();
            let Some(members) = self.members_by(image, group) else {
                continue;
            };
            let told = (handle.replica(), members);
            if process.members_told.get(&group) != Some(&told) {
                news.push((group, told));
            }
        }
        if news.is_empty() {
            return;
        }
        if let Some(process) = self.process_mut(node) {
            process.members_told.extend(news.iter().cloned());
        }
        let inputs = news.into_iter();
        let inputs = inputs.map(|(group, (_, members))| (group, Input::Members { group, members }));
        self.inputs(node, inputs.collect());
    }

    /// Whether the configuration of a group is the one that is wanted.
    #[must_use]
    pub fn is_settled(&self, group: u64) -> bool {
        let partition = self
            .leader_of(group)
            .and_then(|leader| self.process(leader)?.partition(group));
        let (Some(partition), Some(wanted)) = (partition, self.members_wanted(group)) else {
            return false;
        };
        let conf = partition.group().conf().1;
        let same = |wanted: &[u64], have: &[u64]| {
            wanted.len() == have.len() && wanted.iter().all(|id| have.contains(id))
        };
        conf.get_voters_outgoing().is_empty()
            && same(&wanted.voters, conf.get_voters())
            && same(&wanted.learners, conf.get_learners())
    }
}
