//! The cluster's administration: what the controller's leader would do by itself, and what people
//! would ask of it. It registers brokers, creates topics, replaces lost replicas and moves others, by
//! commands of group 0 and by membership changes, and repeats each until the image or the
//! configuration shows it.

use std::collections::{BTreeMap, BTreeSet};

use riverrun_record::{Limits, validate};
use riverrun_replication::conf::{self, Change};
use riverrun_replication::controller::{Command, CreateTopicRequest, RegisterBroker, encode_batch};
use riverrun_replication::partition::Partition;
use riverrun_replication::shard::Input;
use riverrun_replication::{Acks, Produce, Role, Ticket};
use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use crate::boot::{metadata_topic, node_id};
use crate::clock::MS;
use crate::host::Flusher;
use crate::plan::Plan;
use crate::world::{CONTROLLER, Event, OPERATOR, World};

/// A replica on its way into a group.
#[derive(Debug, Clone, Copy)]
struct Joining {
    group: u64,
    new: u64,
    node: usize,
    /// Whether it becomes a voter.
    promote: bool,
}

/// What the administration remembers.
#[derive(Debug)]
pub struct Operator {
    /// Greatest incarnation seen of every data directory (R3).
    incarnations: BTreeMap<Uuid, u64>,
    /// Replicas that are lost, and the node that they were on.
    lost: BTreeMap<(u64, u64), usize>,
    /// All that ever were.
    set_aside: BTreeSet<(u64, u64)>,
    joining: Vec<Joining>,
    /// Replicas that were removed and must never come back.
    retired: BTreeSet<(u64, u64)>,
    /// Learners that the plan wants, by the group's place, and the replica that each became.
    learners: BTreeMap<usize, (usize, Option<u64>)>,
    next_replica: u64,
    moves: Vec<u64>,
    requests: u64,
}

/// Replica ids that are not given out by the image begin here.
const OWN_REPLICAS: u64 = 1 << 40;

impl Operator {
    /// An administration with nothing done yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let learners = plan.groups.iter().enumerate();
        Self {
            incarnations: BTreeMap::new(),
            lost: BTreeMap::new(),
            set_aside: BTreeSet::new(),
            joining: Vec::new(),
            retired: BTreeSet::new(),
            learners: learners
                .filter_map(|(place, group)| Some((place, (group.learner?, None))))
                .collect(),
            next_replica: OWN_REPLICAS,
            moves: Vec::new(),
            requests: 0,
        }
    }

    /// A directory presents itself in an incarnation. False where the others have seen that one or
    /// a later one: it is a restored disk.
    pub fn admit(&mut self, directory: Uuid, incarnation: u64) -> bool {
        let greatest = self.incarnations.entry(directory).or_default();
        if incarnation <= *greatest {
            return false;
        }
        *greatest = incarnation;
        true
    }

    /// A replica id that nobody had.
    pub fn next_replica(&mut self) -> u64 {
        self.next_replica += 1;
        self.next_replica
    }

    /// A replica is lost.
    pub fn is_lost(&mut self, group: u64, replica: u64, node: usize) {
        if !planted::is(Bug::R3) {
            self.lost.insert((group, replica), node);
            self.set_aside.insert((group, replica));
        }
    }

    /// Whether a replica was ever called lost.
    #[must_use]
    pub fn is_set_aside(&self, group: u64, replica: u64) -> bool {
        self.set_aside.contains(&(group, replica))
    }

    /// Whether a replica was removed.
    #[must_use]
    pub fn is_retired(&self, group: u64, replica: u64) -> bool {
        self.retired.contains(&(group, replica))
    }

    /// A new replica is to take the place of whatever the group had on a node.
    pub fn replace(&mut self, group: u64, new: u64, node: usize) {
        self.joining
            .retain(|joining| joining.group != group || joining.node != node);
        self.joining.push(Joining {
            group,
            new,
            node,
            promote: true,
        });
    }

    /// Somebody wants a replica moved, chosen by the draw.
    pub fn want_move(&mut self, draw: u64) {
        if self.moves.len() < 2 {
            self.moves.push(draw);
        }
    }

    /// Whether something is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.joining.is_empty() || !self.lost.is_empty()
    }

    /// What is under way, for whoever looks into a stuck run.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("joining {:?}, lost {:?}", self.joining, self.lost)
    }
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

    /// Looks at what is wanted and takes the next step towards it.
    pub fn operate(&mut self) {
        self.clock.after(100 * MS, Event::Operator);
        self.mend();
        if let Some(leader) = self.leader_of(CONTROLLER) {
            self.learn(leader);
            if let Some(command) = self.next_command(leader) {
                self.command(leader, &command);
            }
        }
        self.join();
        self.place_learners();
        self.tidy();
    }

    /// The next command that group 0 needs, by its leader's image.
    fn next_command(&mut self, leader: usize) -> Option<Command> {
        let controller = &self.process(leader)?.controller;
        let image = controller.image();
        for node in 0..self.hosts.len() {
            let Some(process) = self.process(node) else {
                continue;
            };
            let (directory, incarnation) =
                (process.node.directory_id(), process.node.incarnation());
            let known = image.brokers.get(&node_id(node)).is_some_and(|broker| {
                broker.directory == directory && broker.incarnation == incarnation
            });
            if known {
                continue;
            }
            let broker = RegisterBroker {
                node: node_id(node),
                directory: directory.as_bytes().to_vec(),
                incarnation,
                host: format!("node{node}"),
                port: 9092,
                ..RegisterBroker::default()
            };
            if let Ok(command) = controller.plan_register_broker(broker) {
                return Some(command);
            }
        }
        for (place, group) in self.plan.groups.iter().enumerate() {
            let name = format!("topic-{place}");
            if image.names.contains_key(&name) {
                continue;
            }
            let nodes = group.voters.iter().map(|node| node_id(*node)).collect();
            let request = CreateTopicRequest {
                name,
                id: Self::topic_of(place),
                assignments: Some(vec![nodes]),
                ..CreateTopicRequest::default()
            };
            // Not before all of its brokers are known.
            if let Ok(command) = controller.plan_create_topic(request) {
                return Some(command);
            }
        }
        if planted::is(Bug::R3) {
            return None;
        }
        for topic in image.topics.values() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                for replica in &partition.replicas {
                    let moved_disk = image
                        .brokers
                        .get(&replica.node)
                        .is_some_and(|broker| broker.directory != replica.directory);
                    if moved_disk
                        || self
                            .operator
                            .lost
                            .contains_key(&(partition.group, replica.replica))
                    {
                        return controller
                            .plan_replace_replica(&topic.id, number, replica.replica, replica.node)
                            .ok();
                    }
                }
            }
        }
        self.next_move(leader)
    }

    /// A healthy replica goes to a node that has none of its group.
    fn next_move(&mut self, leader: usize) -> Option<Command> {
        let draw = self.operator.moves.pop()?;
        if self.calm || self.operator.is_busy() {
            return None;
        }
        let controller = &self.process(leader)?.controller;
        let topics: Vec<_> = controller.image().topics.values().collect();
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
            .plan_replace_replica(&topic.id, 0, old, node_id(free))
            .ok()
    }

    /// Writes a command to group 0. Whether it got there is seen in the image.
    fn command(&mut self, leader: usize, command: &Command) {
        let Ok(batch) = encode_batch(std::slice::from_ref(command)) else {
            return;
        };
        let limits = Limits::new(self.clock.now_ms());
        let Ok(summary) = validate(&batch, &limits) else {
            return;
        };
        self.operator.requests += 1;
        let ticket = Ticket {
            connection: OPERATOR,
            request: self.operator.requests,
            slot: 0,
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

    /// Replicas of the leader's image that the group's configuration does not have yet are brought
    /// in.
    fn learn(&mut self, leader: usize) {
        let Some(process) = self.process(leader) else {
            return;
        };
        let mut wanted = Vec::new();
        for topic in process.controller.image().topics.values() {
            for partition in &topic.partitions {
                for replica in &partition.replicas {
                    if !partition.first_voters.contains(&replica.replica) {
                        let node = usize::try_from(replica.node - 1).unwrap_or(0);
                        wanted.push((partition.group, replica.replica, node));
                    }
                }
            }
        }
        for (group, replica, node) in wanted {
            self.routes.insert((group, replica), node);
            let known = self
                .operator
                .joining
                .iter()
                .any(|j| j.group == group && j.new == replica)
                || self.operator.retired.contains(&(group, replica))
                || self.is_voter(group, replica);
            if !known {
                self.operator.joining.push(Joining {
                    group,
                    new: replica,
                    node,
                    promote: true,
                });
            }
        }
    }

    fn is_voter(&self, group: u64, replica: u64) -> bool {
        self.leader_of(group)
            .and_then(|leader| self.process(leader))
            .and_then(|process| {
                let partition = process.partition(group)?;
                let conf = partition.group().conf().1;
                Some(conf.get_voters().contains(&replica) && conf.get_voters_outgoing().is_empty())
            })
            .unwrap_or(false)
    }

    /// Whether the controller's leader is so far that it knows a replica id to be given out.
    fn knows(&self, group: u64, replica: u64) -> bool {
        group == CONTROLLER
            || replica > OWN_REPLICAS
            || self
                .leader_of(CONTROLLER)
                .and_then(|leader| self.process(leader))
                .is_some_and(|process| process.controller.image().next_replica > replica)
    }

    /// The members that group should have by the newest image: voters only.
    fn members_wanted(&self, group: u64) -> Option<Vec<u64>> {
        if group == CONTROLLER {
            return Some(
                self.hosts
                    .iter()
                    .map(|host| host.controller_replica)
                    .collect(),
            );
        }
        let leader = self.leader_of(CONTROLLER)?;
        let image = self.process(leader)?.controller.image();
        let topic = image
            .topics
            .values()
            .find(|t| t.partitions.iter().any(|p| p.group == group))?;
        let partition = topic.partitions.iter().find(|p| p.group == group)?;
        Some(
            partition
                .replicas
                .iter()
                .map(|replica| replica.replica)
                .collect(),
        )
    }

    /// Takes every replica that is on its way one step further.
    fn join(&mut self) {
        let mut arrived = Vec::new();
        for joining in self.operator.joining.clone() {
            if self.join_one(&joining) {
                arrived.push((joining.group, joining.new));
            }
        }
        self.operator
            .joining
            .retain(|joining| !arrived.contains(&(joining.group, joining.new)));
    }

    /// True when it has arrived.
    fn join_one(&mut self, joining: &Joining) -> bool {
        let Joining {
            group,
            new,
            node,
            promote,
            ..
        } = *joining;
        let Some(leader) = self.leader_of(group) else {
            return false;
        };
        let Some(wanted) = self.members_wanted(group) else {
            return false;
        };
        if promote && !wanted.contains(&new) {
            // It was lost or replaced itself on its way, unless the image is older than its id.
            let gone = self.knows(group, new);
            if gone {
                self.operator.retired.insert((group, new));
            }
            return gone;
        }
        let Some(process) = self.process(leader) else {
            return false;
        };
        let Some(partition) = process.partition(group) else {
            return false;
        };
        let conf = partition.group().conf().1.clone();
        if !conf.get_voters_outgoing().is_empty() {
            return false;
        }
        let is_voter = conf.get_voters().contains(&new);
        // Who brings in a learner replaces learners only, and none that is on its way itself.
        let on_its_way = |member: &u64| {
            self.operator
                .joining
                .iter()
                .any(|j| j.group == group && j.new == *member)
        };
        let voters: &[u64] = if promote { conf.get_voters() } else { &[] };
        let gone: Vec<u64> = voters
            .iter()
            .chain(conf.get_learners())
            .copied()
            .filter(|member| {
                !wanted.contains(member)
                    && !self.is_wanted_learner(group, *member)
                    && !on_its_way(member)
            })
            .collect();
        let changes = if is_voter || (!promote && conf.get_learners().contains(&new)) {
            // A voter goes in one change with the one that takes its place.
            let complete = wanted.iter().all(|id| conf.get_voters().contains(id));
            if gone.is_empty() || (promote && !complete) {
                self.summary.replicas_replaced += u64::from(promote);
                return true;
            }
            gone.iter().map(|member| Change::Remove(*member)).collect()
        } else if !conf.get_learners().contains(&new) {
            vec![Change::AddLearner(new)]
        } else {
            let here = self
                .process(node)
                .and_then(|process| process.node.handle(group));
            let last = process
                .node
                .handle(group)
                .map_or(0, |handle| handle.reader().last_index());
            let matched = partition.group().matched(new);
            if here.is_none_or(|handle| handle.replica() != new) || matched + 8 < last {
                return false;
            }
            std::iter::once(Change::AddVoter(new))
                .chain(gone.iter().map(|member| Change::Remove(*member)))
                .collect()
        };
        self.operator.requests += 1;
        let ticket = Ticket {
            connection: OPERATOR,
            request: self.operator.requests,
            slot: 0,
        };
        self.inputs(
            leader,
            vec![(
                group,
                Input::Change {
                    group,
                    ticket,
                    changes,
                },
            )],
        );
        false
    }

    fn is_wanted_learner(&self, group: u64, replica: u64) -> bool {
        self.groups
            .get(&group)
            .and_then(|place| self.operator.learners.get(place))
            .is_some_and(|(_, learner)| *learner == Some(replica))
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
            let here = process.node.handle(group).map(|handle| handle.replica());
            let lost = known.is_some_and(|id| self.operator.lost.contains_key(&(group, id)));
            let Some(voters) = self.first_voters(group) else {
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
            let id = self.operator.next_replica();
            if let Some(old) = known {
                self.operator.lost.remove(&(group, old));
                self.operator
                    .joining
                    .retain(|j| j.group != group || j.new != old);
            }
            self.operator.learners.insert(place, (node, Some(id)));
            self.create(node, group, id, Self::topic_of(place), voters);
            self.operator.joining.push(Joining {
                group,
                new: id,
                node,
                promote: false,
            });
        }
    }

    fn first_voters(&self, group: u64) -> Option<Vec<u64>> {
        (0..self.hosts.len()).find_map(|node| {
            let image = self.process(node)?.controller.image();
            let mut partitions = image.topics.values().flat_map(|topic| &topic.partitions);
            partitions
                .find(|partition| partition.group == group)
                .map(|p| p.first_voters.clone())
        })
    }

    /// Replicas that are no members any more are deleted where they are.
    fn tidy(&mut self) {
        let groups: Vec<u64> = self.groups.keys().copied().collect();
        for group in groups {
            let Some(wanted) = self.members_wanted(group) else {
                continue;
            };
            let learner = self.groups.get(&group).and_then(|place| {
                let (_, learner) = self.operator.learners.get(place)?;
                *learner
            });
            self.operator.lost.retain(|(of, replica), _| {
                *of != group || wanted.contains(replica) || learner == Some(*replica)
            });
            for node in 0..self.hosts.len() {
                let Some(handle) = self.process(node).and_then(|p| p.node.handle(group)) else {
                    continue;
                };
                let replica = handle.replica();
                let member = wanted.contains(&replica)
                    || self.is_wanted_learner(group, replica)
                    || self.is_member(group, replica);
                if !member && !self.operator.is_busy() && self.knows(group, replica) {
                    self.operator.retired.insert((group, replica));
                    self.remove(node, group);
                }
            }
        }
        let own: Vec<u64> = self
            .hosts
            .iter()
            .map(|host| host.controller_replica)
            .collect();
        self.operator
            .lost
            .retain(|(of, replica), _| *of != CONTROLLER || own.contains(replica));
        self.replace_controller_replicas();
    }

    /// A replica of group 0 that is set aside comes back under a new id.
    fn replace_controller_replicas(&mut self) {
        let lost: Vec<(u64, usize)> = self
            .operator
            .lost
            .iter()
            .filter(|((group, _), _)| *group == CONTROLLER)
            .map(|((_, replica), node)| (*replica, *node))
            .collect();
        for (old, node) in lost {
            if self.process(node).is_none() {
                continue;
            }
            let new = self.operator.next_replica();
            if let Some(host) = self.hosts.get_mut(node) {
                host.controller_replica = new;
            }
            self.routes.insert((CONTROLLER, new), node);
            self.operator.lost.remove(&(CONTROLLER, old));
            self.operator.replace(CONTROLLER, new, node);
            let voters = (1..=self.plan.nodes as u64).collect();
            self.create(node, CONTROLLER, new, metadata_topic(), voters);
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
        let mut members = self.members_wanted(group).unwrap_or_default();
        let learner = self
            .groups
            .get(&group)
            .and_then(|place| self.operator.learners.get(place))
            .and_then(|(_, learner)| *learner);
        members.extend(learner);
        members
            .into_iter()
            .filter_map(|replica| Some((replica, *self.routes.get(&(group, replica))?)))
            .collect()
    }
}
