//! Stories of a replica that is lost while something else is under way with its group: of the orders that
//! give it a successor, most are right whatever they stand on, and these are not (R9).

use riverrun_storage::disk::Disk;
use riverrun_storage::node::NODE_DIR;

use crate::boot::node_id;
use crate::clock::{MS, SECOND};
use crate::host::data_dir;
use crate::story::Step;
use crate::world::{CONTROLLER, World};

/// Orders on a word that reach whoever leads group 0 late.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    group: u64,
    until_us: u64,
    /// Where a sound replica of the group moves meanwhile.
    to: usize,
    /// It was asked to.
    moved: bool,
}

impl World {
    /// The node whose replica is lost in a story, and that of one that is neither it nor the leader; none where
    /// the group is not as it is to be.
    fn victim_and_third(&mut self, group: u64, leader: usize) -> Option<(usize, usize)> {
        let victim = self.plan.victim;
        let others = self.others(group, leader);
        let third = others.iter().copied().find(|node| *node != victim)?;
        (others.contains(&victim) && self.is_settled(group)).then_some((victim, third))
    }

    /// A node that has nothing of a group, for a replica that moves.
    fn free_of(&self, group: u64) -> Option<usize> {
        let place = self.groups.get(&group)?;
        let learner = self.plan.groups.get(*place)?.learner;
        (0..self.plan.nodes).find(|node| {
            *node != self.plan.victim
                && Some(*node) != learner
                && self
                    .process(*node)
                    .is_some_and(|process| process.node.identity_of(group).is_none())
        })
    }

    /// One replica lags behind what the others have committed when another one is lost.
    pub fn lost_while_one_lags(&mut self, group: u64, leader: usize) {
        let Some((victim, lagging)) = self.victim_and_third(group, leader) else {
            return;
        };
        let hang_us = self.stories.rng.between(5000, 12_000) * MS;
        self.hang(lagging, hang_us);
        let after_us = self.stories.rng.between(200, 1500) * MS;
        self.step_after(after_us, Step::LoseReplica, victim, group);
    }

    /// One replica moves, and its successor is not filled, when another one is lost.
    pub fn lost_while_one_moves(&mut self, group: u64, leader: usize) {
        let (Some((victim, _)), Some(free)) =
            (self.victim_and_third(group, leader), self.free_of(group))
        else {
            return;
        };
        self.tell(Step::CutOff, free, group);
        let moves_us = self.stories.rng.between(10, 500) * MS;
        self.step_after(moves_us, Step::MoveTo, free, group);
        let lost_us = moves_us + self.stories.rng.between(300, 1500) * MS;
        self.step_after(lost_us, Step::LoseReplica, victim, group);
        let back_us = self.stories.rng.between(5000, 9000) * MS;
        self.step_after(lost_us + back_us, Step::Rejoin, free, group);
    }

    /// The order for a replica that was lost is overtaken by one that moves another.
    pub fn order_is_overtaken(&mut self, group: u64, leader: usize) {
        let (Some((victim, _)), Some(free)) =
            (self.victim_and_third(group, leader), self.free_of(group))
        else {
            return;
        };
        self.tell(Step::CutOff, free, group);
        self.tell(Step::LoseReplica, victim, group);
        let held_us = self.stories.rng.between(2500, 6000) * MS;
        self.stories.held = Some(Held {
            group,
            until_us: self.until(held_us),
            to: free,
            moved: false,
        });
        self.step_after(held_us + 3 * SECOND, Step::Rejoin, free, group);
    }

    /// How much later than it might an order on a word gets to whoever leads group 0.
    pub fn order_is_held(&mut self, group: u64) -> u64 {
        let now = self.clock.now_us();
        let held = self.stories.held.as_mut();
        let Some(held) = held.filter(|held| held.group == group && now < held.until_us) else {
            return 0;
        };
        let (late_us, to) = (held.until_us - now, held.to);
        if !std::mem::replace(&mut held.moved, true) {
            self.tell(Step::MoveTo, to, group);
        }
        late_us
    }

    /// A sound replica of a group, neither the leader's nor one that may be lost, is to move to a node.
    pub fn move_to(&mut self, to: usize, group: u64) {
        let leader = self.leader_of(group);
        let stays = [leader.map(node_id), Some(node_id(self.plan.victim))];
        let controller = self.leader_of(CONTROLLER);
        let Some((writer, process)) = controller.and_then(|node| Some((node, self.process(node)?)))
        else {
            return;
        };
        let topics = process.controller.image().topics.values();
        let partitions = topics.flat_map(|topic| {
            let numbered = topic.partitions.iter().enumerate();
            numbered.map(|(number, partition)| (topic.id, number, partition))
        });
        let mut of_group = partitions.filter(|(_, _, partition)| partition.group == group);
        let Some((topic, number, partition)) = of_group.next() else {
            return;
        };
        let moves = partition
            .replicas
            .iter()
            .find(|replica| !stays.contains(&Some(replica.node)));
        let planned = moves.and_then(|replica| {
            let old = replica.replica;
            let planned =
                process
                    .controller
                    .plan_replace_replica(&topic, number, old, node_id(to), None);
            planned.ok()
        });
        if let Some(command) = planned {
            self.write_commands(writer, &[command]);
        }
    }

    /// A node comes back without the directory of one replica.
    pub fn lose_replica(&mut self, node: usize, group: u64) {
        let Some(process) = self.process(node) else {
            return;
        };
        let Some(identity) = process.node.identity_of(group) else {
            return;
        };
        let name = riverrun_replication::node::directory_name(&identity);
        self.lose_power(node);
        self.lose_directory(node, &name);
        self.start_soon(node);
    }

    /// A directory is gone from a stopped node's disk.
    pub fn lose_directory(&mut self, node: usize, name: &str) {
        debug_assert_ne!(name, NODE_DIR);
        self.memory_lost(node);
        self.nemesis.is_damaged(node);
        if let Some(host) = self.hosts.get(node) {
            let _ = host.disk.remove_dir_all(&data_dir().join(name));
            let _ = host.disk.sync_dir(&data_dir());
        }
    }
}
