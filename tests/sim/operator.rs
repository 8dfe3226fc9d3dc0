//! The cluster's administration. What nodes and the leader of the controller's group do by themselves
//! is production code that is driven here: registration, `Controller::duties`, replicas that cannot
//! go on. What people would ask for is the simulator's own: topics, replicas that move while all is
//! well, a learner beside the voters. Each is asked for again until the image shows it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use riverrun_record::{Limits, validate};
use riverrun_replication::conf;
use riverrun_replication::controller::{
    BrokerImage, Command, Controller, PartitionImage, TopicImage, encode_batch,
};
use riverrun_replication::frame::Start;
use riverrun_replication::lives::{Life, judge};
use riverrun_replication::partition::Partition;
use riverrun_replication::shard::Input;
use riverrun_replication::{Acks, Produce, Role, Ticket};
use riverrun_storage::format::aside::Reason;
use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use crate::boot::node_id;

use crate::clock::{MS, SECOND};
use crate::coming::registration;
use crate::host::{Flusher, Process};
use crate::plan::Plan;
use crate::world::{CONTROLLER, Event, OPERATOR, World};

/// A node that was not heard for as long is out of service.
const SESSION_US: u64 = 3 * SECOND;

/// A node's question for the word of a group's leader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) from: usize,
    /// Its life.
    pub(crate) life: u64,
    /// The last entry that was committed when the leader was reached.
    pub(crate) committed: u64,
}

/// What the administration remembers.
#[derive(Debug)]
pub struct Operator {
    /// The latest start seen of every data directory (R3).
    seen: BTreeMap<Uuid, Start>,
    /// Replicas that were removed and must never come back.
    retired: BTreeSet<(u64, u64)>,
    /// Learners that the plan wants, by the group's place, and the replica that each became.
    learners: BTreeMap<usize, (usize, Option<u64>)>,
    /// The ids of learners lie below all that the controller gives out.
    next_learner: u64,
    moves: Vec<u64>,
    requests: u64,
    /// Batches of group 0 below this offset were looked at for replicas that they replace.
    pub(crate) judged_to: i64,
    /// Every question for a word that reached its group's leader, in their order.
    pub(crate) asked: Vec<Question>,
    /// The last entry that was committed at the question for the first word by which a replica of a group may
    /// be replaced.
    pub(crate) ordered: BTreeMap<(u64, u64), u64>,
}

impl Operator {
    /// An administration with nothing done yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let learners = plan.groups.iter().enumerate();
        Self {
            seen: BTreeMap::new(),
            retired: BTreeSet::new(),
            learners: learners
                .filter_map(|(place, group)| Some((place, (group.learner?, None))))
                .collect(),
            next_learner: 0,
            moves: Vec::new(),
            requests: 0,
            judged_to: 0,
            asked: Vec::new(),
            ordered: BTreeMap::new(),
        }
    }

    /// A directory presents itself with its starts. False where the others know it for a copy of an
    /// older one.
    pub fn admit(&mut self, directory: Uuid, starts: &[Start]) -> bool {
        let seen = self.seen.get(&directory);
        let is_copy = seen.is_some_and(|seen| matches!(judge(*seen, starts), Life::Restored(_)));
        if !is_copy && let Some(last) = starts.last() {
            self.seen.insert(directory, *last);
        }
        !is_copy
    }

    /// The topic of a place is no more, and with it its learner.
    pub fn is_deleted(&mut self, place: usize) {
        if let Some((_, learner)) = self.learners.get_mut(&place) {
            *learner = None;
        }
    }

    /// A replica is removed and must never come back.
    pub fn retire(&mut self, group: u64, replica: u64) {
        self.retired.insert((group, replica));
    }

    /// Whether a replica was removed.
    #[must_use]
    pub fn is_retired(&self, group: u64, replica: u64) -> bool {
        self.retired.contains(&(group, replica))
    }

    /// Somebody wants a replica moved, chosen by the draw.
    pub fn want_move(&mut self, draw: u64) {
        if self.moves.len() < 2 {
            self.moves.push(draw);
        }
    }
}

/// Whoever leads group 0 first says who founded the cluster.
fn founding(process: &Process) -> Option<Command> {
    let known = process.known.as_ref()?;
    Some(Command::FoundCluster(known.found_cluster(known.cluster())))
}

impl World {
    /// The node that leads a group and may answer, by its own word and in the newest term.
    #[must_use]
    pub fn leader_of(&self, group: u64) -> Option<usize> {
        (0..self.hosts.len())
            .filter_map(|node| {
                let published = self.process(node)?.node.handle(group)?.published();
                let leads = published.role == Role::Leader && published.ready;
                leads.then_some((published.term, node))
            })
            .max()
            .map(|(_, node)| node)
    }

    /// Looks at what is wanted and asks for the next step towards it.
    pub fn operate(&mut self) {
        self.clock.after(100 * MS, Event::Operator);
        self.mend();
        for node in 0..self.hosts.len() {
            self.ensure_controller_replica(node);
        }
        if let Some(leader) = self.leader_of(CONTROLLER) {
            let commands = self.next_commands(leader);
            self.write_commands(leader, &commands);
        }
        self.say_closed();
        self.look_for_lost();
        self.place_learners();
        for node in 0..self.hosts.len() {
            self.want_members(node);
        }
        self.tidy();
    }

    /// The commands that group 0 needs now, by its leader's image.
    fn next_commands(&mut self, leader: usize) -> Vec<Command> {
        let Some(process) = self.process(leader) else {
            return Vec::new();
        };
        let controller = &process.controller;
        if controller.image().cluster_id.is_nil() {
            return founding(process).into_iter().collect();
        }
        if let Some(command) = self.registration(controller) {
            return vec![command];
        }
        if let Some(command) = self.creation(controller) {
            return vec![command];
        }
        if planted::is(Bug::R3) {
            return Vec::new();
        }
        let controller = controller.clone();
        if let Some(command) = self.deletion(&controller) {
            return vec![command];
        }
        let process = self.process_mut(leader);
        let Some(closed) = process.map(|process| {
            process.closed.retain(&controller);
            process.closed.clone()
        }) else {
            return Vec::new();
        };
        let is_silent = |broker: &BrokerImage| self.is_silent(leader, broker.node);
        let mut commands = controller.duties(is_silent, &closed);
        if commands.is_empty() {
            commands.extend(self.next_move(leader));
        }
        commands
    }

    /// A node that the image does not know as it is now registers.
    fn registration(&self, controller: &Controller) -> Option<Command> {
        let brokers = &controller.image().brokers;
        (0..self.hosts.len()).find_map(|node| {
            let process = self.process(node)?;
            let (directory, incarnation) =
                (process.node.directory_id(), process.node.incarnation());
            let known = brokers.get(&node_id(node)).is_some_and(|broker| {
                broker.directory == directory && broker.incarnation == incarnation
            });
            if known {
                return None;
            }
            // One without a replica of group 0 has not come to the cluster yet.
            process.node.handle(CONTROLLER)?;
            let broker = registration(node, process);
            controller.plan_register_broker(broker).ok()
        })
    }

    /// Whether a node counts as out of service with the leader of group 0, `None` where it has not
    /// been heard yet and may be heard still.
    fn is_silent(&self, leader: usize, broker: i32) -> Option<bool> {
        let host = self.hosts.get(leader)?;
        let node = usize::try_from(broker - 1).ok()?;
        if node == leader {
            return Some(false);
        }
        let heard = host.heard_us.get(&node).copied();
        let since = heard.unwrap_or(host.started_us);
        let silent = self.clock.now_us().saturating_sub(since) >= SESSION_US;
        (silent || heard.is_some()).then_some(silent)
    }

    /// A healthy replica goes to a node that has none of its group.
    fn next_move(&mut self, leader: usize) -> Option<Command> {
        let draw = self.operator.moves.pop()?;
        let unsettled = |group: &u64| !self.is_settled(*group);
        if self.calm || self.is_busy() || self.groups.keys().any(unsettled) {
            return None;
        }
        let controller = &self.process(leader)?.controller;
        let topics = controller.image().topics.values();
        let stays = |topic: &&TopicImage| !topic.closing && !self.topics.is_unwanted(&topic.id);
        let topics: Vec<&TopicImage> = topics.filter(stays).collect();
        let at = usize::try_from(draw % topics.len().max(1) as u64).unwrap_or(0);
        let topic = topics.get(at)?;
        let partition = topic.partitions.first()?;
        // What nobody leads may not be there yet to be filled from.
        self.leader_of(partition.group)?;
        let place = self.groups.get(&partition.group);
        let learner = place
            .and_then(|place| self.operator.learners.get(place))
            .map(|(node, _)| *node);
        // Where a majority lost its memory a caching group waits for every voter (R2), and a group of
        // one or two never loses one: neither goes where one may be lost for good.
        let caching = place
            .and_then(|place| self.plan.groups.get(*place))
            .is_some_and(|group| group.caching);
        let precious = caching || partition.replicas.len() <= 2;
        let free = (0..self.plan.nodes).find(|node| {
            Some(*node) != learner
                && !(precious && self.plan.endangers(*node))
                // One that is on its way out there may still be a voter.
                && self
                    .process(*node)
                    .is_some_and(|process| process.node.handle(partition.group).is_none())
                && !partition
                    .replicas
                    .iter()
                    .any(|replica| replica.node == node_id(*node))
        })?;
        let gone =
            usize::try_from((draw >> 32) % partition.replicas.len().max(1) as u64).unwrap_or(0);
        let leaving = partition.replicas.get(gone)?;
        // One that its node never came to create is waited for: a caching group may need its word.
        let on = usize::try_from(leaving.node - 1).unwrap_or(0);
        let handle = self.process(on)?.node.handle(partition.group)?;
        let old = leaving.replica;
        if handle.replica() != old {
            return None;
        }
        controller
            .plan_replace_replica(&topic.id, 0, old, node_id(free), None)
            .ok()
    }

    /// Writes commands to group 0. Whether they got there is seen in the image.
    pub fn write_commands(&mut self, leader: usize, commands: &[Command]) {
        if commands.is_empty() {
            return;
        }
        let Ok(batch) = encode_batch(commands) else {
            return;
        };
        self.operator.requests += 1;
        let ticket = Ticket {
            connection: OPERATOR,
            request: self.operator.requests,
            slot: 0,
        };
        self.write_batch(leader, batch, ticket);
    }

    /// Writes a batch of commands to group 0.
    pub fn write_batch(&mut self, leader: usize, batch: BytesMut, ticket: Ticket) {
        let limits = Limits::new(self.clock.now_ms());
        let Ok(summary) = validate(&batch, &limits) else {
            return;
        };
        let produce = Produce {
            ticket,
            acks: Acks::All,
            batch,
            summary,
            expected_epoch: None,
        };
        self.inputs(
            leader,
            vec![(
                CONTROLLER,
                Input::Produce {
                    group: CONTROLLER,
                    produce,
                },
            )],
        );
    }

    /// The learner that the plan wants of a group, as it is now.
    #[must_use]
    pub fn learner_of(&self, group: u64) -> Option<u64> {
        let place = self.groups.get(&group)?;
        self.operator.learners.get(place)?.1
    }

    /// Groups with a learner get it, and a new one where it was lost.
    fn place_learners(&mut self) {
        let wanted: Vec<(usize, usize, Option<u64>)> = self
            .operator
            .learners
            .iter()
            .map(|(at, (node, id))| (*at, *node, *id))
            .collect();
        for (place, node, known) in wanted {
            let Some(group) = self
                .groups
                .iter()
                .find(|(_, at)| **at == place)
                .map(|(id, _)| *id)
            else {
                continue;
            };
            let Some(process) = self.process(node) else {
                continue;
            };
            if !matches!(process.flusher, Flusher::Idle) {
                // A creation waits for what the flusher is at.
                continue;
            }
            let registered = process.controller.image().directory_of(node_id(node));
            if registered != Some(process.node.directory_id()) {
                // Nothing is ordered for a directory that has not registered.
                continue;
            }
            let here = process.node.handle(group).map(|handle| handle.replica());
            let lost = process.cannot_go_on(group);
            let Some((topic, voters)) = self.first_voters(group) else {
                continue;
            };
            match known {
                Some(id) if here == Some(id) && !lost => continue,
                Some(id) if !lost && here.is_none() && !self.operator.is_retired(group, id) => {
                    // The order was not carried out, or the disk is a new one: either way the old
                    // id is not used again.
                    self.operator.retired.insert((group, id));
                }
                _ => {}
            }
            self.operator.next_learner += 1;
            let id = self.operator.next_learner;
            if !self.set_aside(node, group, Reason::Replaced) {
                continue;
            }
            tracing::info!(
                now = self.clock.now_us(),
                node,
                group,
                id,
                ?topic,
                ?known,
                ?here,
                "learner"
            );
            self.operator.learners.insert(place, (node, Some(id)));
            let order = self.order(group, id, topic, voters);
            self.create(node, order);
        }
    }

    /// The topic of a group and the voters that it was founded with, where it stays.
    fn first_voters(&self, group: u64) -> Option<(Uuid, Vec<u64>)> {
        let images = (0..self.hosts.len()).filter_map(|node| self.process(node));
        let of_group = images.flat_map(|process| {
            let topics = process.controller.image().topics.values();
            topics.filter_map(|topic| {
                let mut partitions = topic.partitions.iter();
                Some((
                    topic,
                    partitions.find(|partition| partition.group == group)?,
                ))
            })
        });
        let known: Vec<(&TopicImage, &PartitionImage)> = of_group.collect();
        if known.iter().any(|(topic, _)| topic.closing) {
            return None;
        }
        let (topic, partition) = known.first()?;
        // Who knows it still is behind: the nodes that are not have said that nothing is left of it.
        if self.topics.is_gone(&topic.id) {
            return None;
        }
        Some((topic.id, partition.first_voters.clone()))
    }

    /// Replicas that are no members any more are deleted where they are.
    fn tidy(&mut self) {
        let groups: Vec<u64> = self.groups.keys().copied().collect();
        for group in groups {
            let Some(wanted) = self.members_wanted(group) else {
                continue;
            };
            let is_wanted = |id: u64| wanted.voters.contains(&id) || wanted.learners.contains(&id);
            for node in 0..self.hosts.len() {
                let Some(handle) = self.process(node).and_then(|p| p.node.handle(group)) else {
                    continue;
                };
                let replica = handle.replica();
                // One that the image of the controller's leader does not know yet is newer than it.
                let member = is_wanted(replica)
                    || replica >= wanted.next_replica
                    || self.is_member(group, replica);
                if !member && self.is_settled(group) {
                    self.operator.retired.insert((group, replica));
                    self.set_aside(node, group, Reason::Replaced);
                }
            }
        }
        // Who cannot go on with his replica of group 0 begins again with an empty directory.
        for node in 0..self.hosts.len() {
            let lost = self
                .process(node)
                .is_some_and(|process| process.cannot_go_on(CONTROLLER));
            if lost {
                self.lose_disk(node);
                self.start_later(node);
            }
        }
    }

    /// Whether the leader's configuration names a replica, or that of a voter still may after its
    /// next start: a recovering one would wait for the report of the removed (R2).
    pub fn is_member(&self, group: u64, replica: u64) -> bool {
        let Some(leader) = self
            .leader_of(group)
            .and_then(|node| self.replica_on(node, group))
        else {
            return true;
        };
        let (index, conf) = leader.group().conf();
        let forgotten = conf.get_voters().iter().all(|voter| {
            self.routes
                .get(&(group, *voter))
                .and_then(|node| self.replica_on(*node, group))
                .filter(|partition| partition.group().replica() == *voter)
                .is_some_and(|partition| {
                    partition.group().conf().0 >= index && partition.group().conf_is_durable()
                })
        });
        conf::members(conf).contains(&replica) || !forgotten
    }

    fn replica_on(&self, node: usize, group: u64) -> Option<&Partition> {
        let process = self.process(node)?;
        process.partition(group)
    }
}

impl World {
    /// The replicas that a group should have in the end, with their nodes.
    #[must_use]
    pub fn expected_members(&self, group: u64) -> Vec<(u64, usize)> {
        let wanted = self.members_wanted(group);
        let members =
            wanted.map_or_else(Vec::new, |wanted| [wanted.voters, wanted.learners].concat());
        members
            .into_iter()
            .filter_map(|replica| Some((replica, *self.routes.get(&(group, replica))?)))
            .collect()
    }
}
